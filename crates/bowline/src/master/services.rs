//! What the master does about services beside having a crew for them: it tells the gateway how they are, and
//! waits for their end.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use tokio::{sync::watch, time};

use super::{Now, cord::Cord, limit, plan::Notice};
use crate::{
    gateway::SERVICES,
    services::{
        post::Statuses,
        status::{ServiceStatus, awaited},
    },
};

/// Tells every gateway how the services are, at its start and whenever that changes. For ever.
pub(super) async fn tell(mut now: watch::Receiver<Now>, mut statuses: watch::Receiver<Statuses>) {
    // The process of the gateway that knows what is so.
    let mut knows = None;
    let mut any = false;
    loop {
        let (cord, pid) = {
            let now = now.borrow_and_update();
            (now.cord.clone(), now.view.pid)
        };
        let changed = statuses.has_changed().unwrap_or_default();
        let services = statuses.borrow_and_update().clone();
        any |= !services.is_empty();
        let mut failed = false;
        if let Some(cord) = cord.filter(|_| any && (changed || knows != pid)) {
            match post(cord, &services).await {
                Ok(()) => knows = pid,
                Err(error) => {
                    // It is gone, most likely, and the next one is told.
                    tracing::debug!(%error, "the gateway could not be told of the services");
                    (knows, failed) = (None, true);
                }
            }
        }
        tokio::select! {
            changed = now.changed() => if changed.is_err() { return },
            changed = statuses.changed() => {
                if changed.is_err() {
                    return;
                }
                // It is still to be told.
                statuses.mark_changed();
            }
            () = time::sleep(limit::TELL_AGAIN), if failed => {}
        }
    }
}

async fn post(mut cord: Cord, services: &[ServiceStatus]) -> Result<(), super::cord::Error> {
    let request = Request::post(format!("http://gateway{SERVICES}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Bytes::from(serde_json::to_vec(services)?))?;
    let response = cord.ask(request, limit::STATUS_PATIENCE).await?;
    if response.status().is_success() {
        return Ok(());
    }
    Err(format!("it answered {}", response.status()).into())
}

/// What the service manager reads: what the gateway does, and which services are awaited.
pub(super) fn manager_words(gateway: &str, services: &[ServiceStatus]) -> String {
    match awaited(services) {
        None => gateway.to_owned(),
        Some(awaited) => format!("{gateway}; services: {awaited}"),
    }
}

/// What it reads while services stop, and how long that may take from now.
pub(super) fn leaving(services: &[ServiceStatus]) -> [Notice; 3] {
    let left: Vec<&str> = (services.iter())
        .filter(|service| service.pid.is_some())
        .map(|service| service.name.as_str())
        .collect();
    let words = format!("stopping services: {}", left.join(", "));
    [Notice::Status(words), Notice::Extend(EXTENSION), Notice::Watchdog]
}

/// How often the service manager is told that services stop.
pub(super) const LEAVING: Duration = Duration::from_secs(1);

/// What it is asked for each time.
const EXTENSION: Duration = Duration::from_secs(30);
