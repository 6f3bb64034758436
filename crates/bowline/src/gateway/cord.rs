//! The gateway's end of the cord: the same API as for operators, and what only the master may ask.

use std::{future, io, os::unix::net::UnixStream, sync::Arc};

use axum::{Json, extract::DefaultBodyLimit, routing::post};
use http::StatusCode;
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::sync::watch;

use super::{Gateway, reload};
use crate::{api, config::Config, services::status::ServiceStatus};

/// The path of a reload on the cord.
pub(crate) const RELOAD: &str = "/internal/reload";

/// The path on the cord where the master says how the services are.
pub(crate) const SERVICES: &str = "/internal/services";

/// What the master may say of them: some kilobytes each, with what they wrote last.
const SERVICES_BYTES: usize = 16 << 20;

/// What the cord needs.
pub(super) struct Cord {
    pub(super) stream: UnixStream,
    /// Where a new configuration is put.
    pub(super) config: watch::Sender<Arc<Config>>,
}

impl Cord {
    /// Answers the master until it is gone.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn serve(self, gateway: &Arc<Gateway>) -> io::Result<impl Future<Output = ()>> {
        let Self { stream, config } = self;
        stream.set_nonblocking(true)?;
        let stream = tokio::net::UnixStream::from_std(stream)?;
        let reloader = Arc::new(reload::Reloader::new(Arc::clone(gateway), config));
        let told = Arc::clone(gateway);
        let router = api::router(Arc::clone(gateway))
            .route(
                RELOAD,
                post(move |body| {
                    let reloader = Arc::clone(&reloader);
                    async move { reloader.reload(body).await }
                }),
            )
            .route(
                SERVICES,
                post(move |Json(services): Json<Vec<ServiceStatus>>| {
                    told.services.set(services, &told.handle);
                    future::ready(StatusCode::NO_CONTENT)
                })
                .layer(DefaultBodyLimit::max(SERVICES_BYTES)),
            );
        let service = TowerToHyperService::new(router);
        let connection = http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service);
        Ok(async move {
            // Whatever ends it, nobody looks after this process any more.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the cord to the master broke");
            }
        })
    }
}
