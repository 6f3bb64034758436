//! What is so: processes, listeners, components, alerts.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    process,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{Json, extract::State};
use bowline_net::{ComponentView, Readiness, Stats};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    alerts::Firing,
    charter::Door,
    clock,
    gateway::Gateway,
    links::status::{GoneStatus, LinkStatus, StoreStatus},
    process_stats,
    services::status::ServiceStatus,
};

/// How the server is.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct Status {
    /// `starting`, `running`, `restarting` or `draining`.
    #[schema(example = "running")]
    pub(crate) state: String,
    /// Who looks after it: `foreground`, `daemon` or `systemd`.
    #[schema(example = "systemd")]
    pub(crate) management: String,
    #[schema(example = "0.1.0")]
    pub(crate) version: String,
    /// The process of the master, which signals go to.
    pub(crate) pid: u32,
    /// When the master started.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) started: Timestamp,
    /// How long ago that was.
    pub(crate) uptime_seconds: u64,
    /// Where the record and the control socket are; null without such a place.
    #[schema(value_type = Option<String>)]
    pub(crate) state_dir: Option<PathBuf>,
    /// The configuration file; null if there is none.
    #[schema(value_type = Option<String>)]
    pub(crate) config_file: Option<PathBuf>,
    pub(crate) gateway: GatewayStatus,
    pub(crate) listeners: Vec<ListenerStatus>,
    pub(crate) components: Vec<ComponentStatus>,
    /// Processes beside the server.
    pub(crate) services: Vec<ServiceStatus>,
    /// Connections to services of bots.
    pub(crate) links: Vec<LinkStatus>,
    /// Where messages of links are kept until bots have confirmed them; null without links.
    pub(crate) links_store: Option<StoreStatus>,
    /// Links that are not configured any more and have messages still.
    pub(crate) links_gone: Vec<GoneStatus>,
    /// What fires now.
    pub(crate) alerts: Vec<Firing>,
    /// Sessions that live; null if the gateway did not say it in time.
    pub(crate) sessions: Option<usize>,
    /// Open connections, HTTP and WebSocket; null if the gateway did not say it in time.
    pub(crate) connections: Option<usize>,
}

/// The process that speaks to clients.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct GatewayStatus {
    /// `starting`, `answering`, `silent` if it had answered and does not answer the master now,
    /// `backing-off` or `draining`.
    #[schema(example = "answering")]
    pub(crate) state: String,
    /// Its process; null while there is none.
    pub(crate) pid: Option<u32>,
    /// When it started.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) started: Option<Timestamp>,
    /// Whether it has answered a client since, and is not silent.
    pub(crate) answered: bool,
    pub(crate) restarts: Restarts,
    /// How the one before it ended.
    #[schema(example = "killed by signal 9")]
    pub(crate) last_end: Option<String>,
    /// When it is started again, while it is `backing-off`.
    pub(crate) next_attempt_seconds: Option<f64>,
    /// What it waits for before it answers or is ready, in its words.
    #[schema(example = "models loading 40 %")]
    pub(crate) waiting_for: Option<String>,
}

/// How often the gateway was started again because it had ended by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub(crate) struct Restarts {
    pub(crate) total: u64,
    /// By `exited`, `killed`, `failed-to-start` and `unresponsive`.
    #[schema(example = json!({"killed": 1}))]
    pub(crate) by_reason: BTreeMap<String, u64>,
}

/// A listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ListenerStatus {
    /// `public` for clients, `admin` for operators.
    #[schema(example = "public")]
    pub(crate) door: String,
    #[schema(value_type = String, example = "127.0.0.1:8000")]
    pub(crate) address: SocketAddr,
    /// Whether it speaks TLS.
    pub(crate) tls: bool,
}

/// A part of the server that takes its time to load, or may fail.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct ComponentStatus {
    #[schema(example = "certificates")]
    pub(crate) name: String,
    /// Whether the server is not ready without it.
    pub(crate) required: bool,
    /// `waiting`, `loading`, `ready`, `failed` or `skipped` because something it needs failed.
    #[schema(example = "ready")]
    pub(crate) state: String,
    /// The share of its load that is done, 0 to 1.
    pub(crate) progress: f64,
    /// What it says of itself.
    pub(crate) text: String,
    /// What it needs and has not got.
    pub(crate) waiting_for: Vec<String>,
    /// When it came into this state.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) since: Timestamp,
    /// Why it failed.
    pub(crate) error: Option<String>,
    /// How long its load took, or has been running.
    pub(crate) seconds: Option<f64>,
}

/// All components.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Components {
    /// `starting`, `ready` or `degraded`.
    #[schema(example = "ready")]
    status: String,
    components: Vec<ComponentStatus>,
}

/// Processes, listeners, components and alerts.
///
/// On the control socket the master answers, also while there is no gateway; elsewhere the gateway
/// says what it was told when it was started.
#[utoipa::path(get, path = "/api/v1/status", tag = "observe", responses(
    (status = 200, description = "How the server is", body = Status),
))]
pub(super) async fn status(State(gateway): State<Arc<Gateway>>) -> Json<Status> {
    Json(of_gateway(&gateway).await)
}

/// The components with state, progress and errors.
#[utoipa::path(get, path = "/api/v1/components", tag = "observe", responses(
    (status = 200, description = "All components in the order in which they were declared", body = Components),
))]
pub(super) async fn components(State(gateway): State<Arc<Gateway>>) -> Json<Components> {
    let status = gateway.handle.readiness().name().to_owned();
    Json(Components { status, components: all_components(&gateway) })
}

/// What a gateway knows.
pub(super) async fn of_gateway(gateway: &Gateway) -> Status {
    let Gateway { handle, config, charter, .. } = gateway;
    let Stats { sessions_polling, sessions_websocket, connections, .. } = handle.stats().await;
    let tls = config.borrow().server.tls.is_some();
    let draining = handle.is_draining();
    let state = match handle.readiness() {
        _ if draining => "draining",
        Readiness::Starting => "starting",
        Readiness::Ready | Readiness::Degraded { .. } => "running",
    };
    let now = clock::timestamp();
    // The milliseconds of this century.
    let started = Timestamp::from_millisecond(charter.started_unix_ms as i64).unwrap_or(now);
    let uptime = Duration::try_from(now.duration_since(started)).unwrap_or_default();
    let by_reason: BTreeMap<String, u64> =
        charter.restarts.iter().map(|(reason, times)| (reason.name().to_owned(), *times)).collect();
    let listeners = charter.listeners.iter().map(|listener| ListenerStatus {
        door: listener.door.name().to_owned(),
        address: listener.address,
        tls: tls && listener.door == Door::Public,
    });
    Status {
        state: state.to_owned(),
        management: charter.management.name().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: charter.master_pid,
        started,
        uptime_seconds: uptime.as_secs(),
        state_dir: charter.state_dir.clone(),
        config_file: charter.file.as_ref().map(|file| file.path.clone()),
        gateway: GatewayStatus {
            state: if draining { "draining" } else { "answering" }.to_owned(),
            pid: Some(process::id()),
            started: process_stats::started(),
            // It answers this.
            answered: true,
            restarts: Restarts { total: by_reason.values().sum(), by_reason },
            last_end: charter.last_end.clone(),
            next_attempt_seconds: None,
            waiting_for: None,
        },
        listeners: listeners.collect(),
        components: all_components(gateway),
        services: gateway.services.services().to_vec(),
        links: gateway.links.view().iter().map(LinkStatus::of).collect(),
        links_store: gateway.links.store().map(StoreStatus::of),
        links_gone: gateway.links.gone().into_iter().map(GoneStatus::of).collect(),
        alerts: gateway.alerts.firing(),
        sessions: Some(sessions_polling + sessions_websocket),
        connections: Some(connections),
    }
}

fn all_components(gateway: &Gateway) -> Vec<ComponentStatus> {
    gateway.handle.components().into_iter().map(ComponentStatus::of).collect()
}

impl ComponentStatus {
    fn of(view: ComponentView) -> Self {
        let seconds = view.loading_for.map(|time| time.as_secs_f64());
        Self {
            name: view.name,
            required: view.required,
            state: view.state.name().to_owned(),
            progress: view.progress,
            text: view.text,
            waiting_for: view.waiting_for,
            since: point(view.since),
            error: view.error,
            seconds,
        }
    }
}

/// Points beyond jiff's reach, year 9999, are its last.
fn point(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::MAX)
}
