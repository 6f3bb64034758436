//! `/health/*`: what load balancers, supervisors and people ask first. `docs/health.md` is the
//! promise.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};
use serde::Serialize;
use tokio::sync::watch;

use crate::{
    components::{ComponentView, Readiness},
    handler::Handle,
    probe::{self, ProbeReport, StepOutcome},
    process::Process,
};

/// How long the program took to be of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Startup {
    /// From its beginning until its addresses were bound: `bowline_bind_seconds`.
    pub bind: Duration,
    /// From its beginning until every required component was ready for the first time:
    /// `bowline_ready_seconds`. `None` until then.
    pub ready: Option<Duration>,
}

/// How the server is.
impl Handle {
    /// The components in the order in which they were declared, and after them those that look
    /// after themselves.
    pub fn components(&self) -> Vec<ComponentView> {
        self.process.components.views()
    }

    /// What the components make of the whole.
    pub fn readiness(&self) -> Readiness {
        self.process.components.readiness()
    }

    /// Is told when a component has changed, or has got further.
    pub fn component_changes(&self) -> watch::Receiver<()> {
        self.process.components.changes()
    }

    /// Notes how a component is that looks after itself while the server runs. It is optional, and
    /// made when it is first heard of; `name` should come from a closed set. An error is for
    /// operators; beyond 1,000 bytes it is cut.
    pub fn report_component(&self, name: &str, outcome: Result<(), String>) {
        self.process.components.report(name, outcome);
    }

    /// Says how the processes are that the program looks after beside the server. `/health/ready` lists
    /// them behind the components, and is 503 while a required one is not ready. They count for nothing
    /// else: the program that looks after them tells of them itself.
    pub fn set_services(&self, services: Vec<ComponentView>) {
        self.process.services.store(Arc::new(services));
    }

    /// The same of the outbound connections that the program keeps; they stand behind the services.
    pub fn set_links(&self, links: Vec<ComponentView>) {
        self.process.links.store(Arc::new(links));
    }

    /// How long the program took to bind and to be ready.
    pub fn startup(&self) -> Startup {
        let process = &self.process;
        let since = |at: std::time::Instant| at.saturating_duration_since(process.started.began);
        let ready = process.components.ready_at();
        Startup {
            bind: since(process.started.bound),
            ready: ready.map(|at| since(process.clock.instant(at).into_std())),
        }
    }

    /// Answers a request to `/health/live`, `/health/ready` or `/health/websocket`; `None` for any
    /// other path. `errors` says whether texts that are for operators only may be in it.
    pub async fn health(&self, path: &str, errors: bool) -> Option<Response<Bytes>> {
        let check = Check::of(path)?;
        Some(answer(&self.process, check, errors).await)
    }

    /// Opens a session through the first public listener, as a client would, and goes through
    /// polling, the upgrade, an event and an ack. Takes 10 s at most. It is done anew each time,
    /// and does not take the way of [`public_url`](crate::Builder::public_url).
    pub async fn probe(&self) -> ProbeReport {
        probe::through_listener(&self.process).await
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    Live,
    Ready,
    WebSocket,
}

impl Check {
    /// The check at this path.
    pub(crate) fn of(path: &str) -> Option<Self> {
        match path.strip_prefix("/health/")? {
            "live" => Some(Self::Live),
            "ready" => Some(Self::Ready),
            "websocket" => Some(Self::WebSocket),
            _ => None,
        }
    }
}

pub(crate) async fn answer(process: &Arc<Process>, check: Check, errors: bool) -> Response<Bytes> {
    match check {
        Check::Live => json(true, &Live { status: "live" }),
        Check::Ready => ready(process, errors),
        Check::WebSocket => {
            let report = probe::kept(process).await;
            json(report.is_ok(), &WebSocket::of(&report))
        }
    }
}

fn ready(process: &Process, errors: bool) -> Response<Bytes> {
    let components = &process.components;
    // A server that stops takes no new clients: whoever spreads them must hear of it.
    let stopping = process.is_draining();
    let services = process.services.load();
    let links = process.links.load();
    let readiness = components.readiness().with(&services).with(&links);
    let status = if stopping { "stopping" } else { readiness.name() };
    let views = components.views();
    let components = views.iter().map(|view| Component::of(view, "component", errors));
    let services = services.iter().map(|view| Component::of(view, "service", errors));
    let links = links.iter().map(|view| Component::of(view, "link", errors));
    let components = components.chain(services).chain(links).collect();
    json(readiness.is_serving() && !stopping, &Ready { status, components })
}

fn json(good: bool, body: &impl Serialize) -> Response<Bytes> {
    // It is made of plain structs with names for keys, which can always be written.
    let body = serde_json::to_vec(body).unwrap_or_default();
    let mut answer = Response::new(Bytes::from(body));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // A proxy that keeps an answer would tell of another time.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !good {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    answer
}

#[derive(Serialize)]
struct Live {
    status: &'static str,
}

#[derive(Serialize)]
struct Ready<'a> {
    status: &'static str,
    components: Vec<Component<'a>>,
}

#[derive(Serialize)]
struct Component<'a> {
    name: &'a str,
    /// `component`, or `service` for a process beside the server.
    kind: &'static str,
    required: bool,
    state: &'static str,
    progress: f64,
    waiting_for: &'a [String],
    since: String,
    #[serde(flatten)]
    for_operators: Option<ForOperators<'a>>,
}

#[derive(Serialize)]
struct ForOperators<'a> {
    text: &'a str,
    error: Option<&'a str>,
    seconds: Option<f64>,
}

impl<'a> Component<'a> {
    fn of(view: &'a ComponentView, kind: &'static str, errors: bool) -> Self {
        let seconds = view.loading_for.map(|time| rounded(time.as_secs_f64()));
        let error = view.error.as_deref();
        let for_operators = ForOperators { text: &view.text, error, seconds };
        Self {
            name: &view.name,
            kind,
            required: view.required,
            state: view.state.name(),
            progress: rounded(view.progress),
            waiting_for: &view.waiting_for,
            since: rfc3339(view.since),
            for_operators: errors.then_some(for_operators),
        }
    }
}

#[derive(Serialize)]
struct WebSocket<'a> {
    status: &'static str,
    websocket_enabled: bool,
    steps: Vec<Step<'a>>,
}

#[derive(Serialize)]
struct Step<'a> {
    name: &'static str,
    ok: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    skipped: bool,
    ms: f64,
    error: Option<&'a str>,
}

impl<'a> WebSocket<'a> {
    fn of(report: &'a ProbeReport) -> Self {
        let steps = report.steps.iter().map(|step| Step {
            name: step.name,
            ok: step.outcome.is_ok(),
            skipped: step.outcome == StepOutcome::Skipped,
            ms: rounded(step.took.as_secs_f64() * 1_000.0),
            error: match &step.outcome {
                StepOutcome::Failed(error) => Some(error),
                StepOutcome::Done | StepOutcome::Skipped => None,
            },
        });
        Self {
            status: if report.is_ok() { "ok" } else { "failed" },
            websocket_enabled: report.websocket_enabled,
            steps: steps.collect(),
        }
    }
}

/// Three decimals are enough for people.
fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}
