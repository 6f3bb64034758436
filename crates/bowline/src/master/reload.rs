//! Reading the configuration again.

use std::{path::PathBuf, sync::Arc};

use bowline_names::ErrorCode;
use bytes::Bytes;
use http::{Request, header};
use tokio::{sync::watch, task, time};

use super::{Now, cord::Cord, limit, plan::GatewayState};
use crate::{
    charter::ConfigFile,
    config::{self, Changes, Config, Overrides},
    failure::Failure,
    gateway::RELOAD,
};

/// One reload.
pub(super) struct Reload {
    pub(super) overrides: Overrides,
    pub(super) path: Option<PathBuf>,
    pub(super) current: Arc<Config>,
    pub(super) now: watch::Receiver<Now>,
}

/// A file, and what it says.
pub(super) type Read = (Option<ConfigFile>, Arc<Config>);

/// What came of it.
pub(super) struct Outcome {
    /// What the next gateway shall run from now on, if the file was good.
    pub(super) good: Option<Read>,
    /// Whether a gateway has it. If not, the next one may find fault with it.
    pub(super) tried: bool,
    pub(super) result: Result<Changes, Failure>,
}

impl Reload {
    /// Reads the file and, if it is good, has the gateway take it.
    pub(super) async fn run(mut self) -> Outcome {
        let refused = |failure| Outcome { good: None, tried: false, result: Err(failure) };
        let (path, overrides) = (self.path.take(), self.overrides.clone());
        // A file may be on a disk that takes its time.
        let read = task::spawn_blocking(move || read(path, overrides)).await;
        let (file, config) = match read {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => return refused(error.into()),
            Err(error) => return refused(Failure::new(ErrorCode::ConfigUnreadable, error)),
        };
        // A gateway that dies over it has a successor, which is asked in its place.
        for _ in 0..limit::RELOAD_ATTEMPTS {
            let Some(cord) = self.cord().await else { break };
            match ask(cord, &file).await {
                Ok(Ok(done)) => {
                    return Outcome { good: Some((file, config)), tried: true, result: Ok(done) };
                }
                Ok(Err(failure)) => return refused(failure),
                Err(error) => tracing::debug!(%error, "the gateway could not be asked"),
            }
        }
        // There is none to take it: the next one starts with it.
        let changes = config::changes(&self.current, &config);
        Outcome { good: Some((file, config)), tried: false, result: Ok(changes) }
    }

    /// The way to the gateway; a moment is waited for one that is starting.
    async fn cord(&mut self) -> Option<Cord> {
        let settled = |now: &Now| now.cord.is_some() || now.view.gateway != GatewayState::Starting;
        let waiting = self.now.wait_for(settled);
        let now = time::timeout(limit::RELOAD_START, waiting).await.ok()?.ok()?;
        now.cord.clone()
    }
}

fn read(path: Option<PathBuf>, overrides: Overrides) -> Result<Read, config::Error> {
    let file = path.map(|path| config::read_file(&path)).transpose()?;
    let config = config::of_text(file.clone(), overrides)?;
    let file = file.map(|(path, text)| ConfigFile { path, text });
    Ok((file, Arc::new(config)))
}

/// Hands the file over. The inner result is the gateway's answer.
async fn ask(
    mut cord: Cord,
    file: &Option<ConfigFile>,
) -> Result<Result<Changes, Failure>, super::cord::Error> {
    let request = Request::post(format!("http://gateway{RELOAD}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Bytes::from(serde_json::to_vec(file)?))?;
    let response = cord.ask(request, limit::RELOAD_PATIENCE).await?;
    if response.status().is_success() {
        return Ok(Ok(serde_json::from_slice(response.body())?));
    }
    let words = String::from_utf8_lossy(response.body());
    let (code, words) = words.split_once('\n').unwrap_or(("", &words));
    let code = ErrorCode::ALL.into_iter().find(|row| row.name() == code);
    Ok(Err(Failure::new(code.unwrap_or(ErrorCode::ConfigInvalid), words)))
}
