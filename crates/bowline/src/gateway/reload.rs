//! A new configuration for a running gateway.

use std::sync::Arc;

use axum::{Json, http::StatusCode};
use bowline_names::ErrorCode;
use tokio::sync::{Mutex, watch};

use super::Gateway;
use crate::{
    alerts,
    api::Tokens,
    charter::ConfigFile,
    config::{self, Changes, Config},
    failure::Failure,
    links, log, wiring,
};

/// Puts a new configuration in place, one at a time.
pub(super) struct Reloader {
    gateway: Arc<Gateway>,
    config: Mutex<watch::Sender<Arc<Config>>>,
}

impl Reloader {
    pub(super) fn new(gateway: Arc<Gateway>, config: watch::Sender<Arc<Config>>) -> Self {
        Self { gateway, config: Mutex::new(config) }
    }

    /// Takes the file as the master has read it, and answers what has changed.
    pub(super) async fn reload(
        &self,
        Json(file): Json<Option<ConfigFile>>,
    ) -> Result<Json<Changes>, (StatusCode, String)> {
        let current = self.config.lock().await;
        let applied = self.apply(&current, file);
        if applied.is_ok() {
            links::settle(Arc::clone(&self.gateway)).await;
        }
        applied.map(Json).map_err(|failure| {
            (
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("{}\n{}", failure.code.name(), failure.message),
            )
        })
    }

    /// All of it or nothing.
    fn apply(
        &self,
        current: &watch::Sender<Arc<Config>>,
        file: Option<ConfigFile>,
    ) -> Result<Changes, Failure> {
        let Gateway { handle, charter, auth, backends, ai, links, .. } = &*self.gateway;
        let file = file.map(|file| (file.path, file.text));
        let new = config::of_text(file, charter.overrides.clone())?;
        let changes = config::changes(&current.borrow(), &new);
        let new = config::reloaded(&current.borrow(), new)?;
        alerts::load(&new.alerts)?;
        if let Some(path) = &new.admin.token_file {
            Tokens::read(path).map_err(|why| Failure::new(ErrorCode::AdminTokenUnreadable, why))?;
        }
        handle.reconfigure(wiring::builder(&new, auth, backends, ai, links)?)?;
        backends.settle();
        ai.settle();
        auth.retain(&new.namespaces);
        log::apply(&new.log.level, new.log.format);
        current.send_replace(Arc::new(new));
        Ok(changes)
    }
}
