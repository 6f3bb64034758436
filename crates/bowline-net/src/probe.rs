//! The probe behind `/health/websocket`: a real client that goes the way of real clients, and can
//! tell at which step it was stopped.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use bowline_dial::{Options, Trust, Wire};
use bowline_names::Header;
use bowline_proto::{Time, socketio::Args};
use http::HeaderMap;
use tokio::{runtime, sync::oneshot, time::timeout};

use crate::{
    entropy::Entropy,
    handler::{Ack, ConnectRequest, Context, Handler, SocketRef},
    limit,
    process::Process,
};

mod steps;

use steps::Session;

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// Whether `websocket` is in `engine.transports`.
    pub websocket_enabled: bool,
    /// The five steps in their order: `open`, `poll`, `upgrade`, `event`, `ack`.
    pub steps: Vec<ProbeStep>,
}

/// One step of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeStep {
    /// Its name.
    pub name: &'static str,
    /// How it went.
    pub outcome: StepOutcome,
    /// How long it took.
    pub took: Duration,
}

/// How a step of a probe went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutcome {
    /// Well.
    Done,
    /// Not tried, because what it is about is switched off.
    Skipped,
    /// Not well, or not tried because a step before it failed. The text says what was seen, and
    /// what that usually means.
    Failed(String),
}

impl StepOutcome {
    /// Whether it says nothing against the server.
    pub fn is_ok(&self) -> bool {
        !matches!(self, Self::Failed(_))
    }
}

impl ProbeReport {
    /// Whether no step failed.
    pub fn is_ok(&self) -> bool {
        self.steps.iter().all(|step| step.outcome.is_ok())
    }
}

/// The namespace of probes. Nobody else is let in.
pub(crate) const NAMESPACE: &str = "/.bowline/probe";

/// What marks the requests of this process's own probes.
fn mark() -> &'static str {
    static MARK: OnceLock<String> = OnceLock::new();
    MARK.get_or_init(random_hex)
}

fn random_hex() -> String {
    let bytes: [u8; 16] = Entropy::new().bytes();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Serves [`NAMESPACE`]: sends events back, acks with their arguments.
pub(crate) struct ProbeHandler;

impl Handler for ProbeHandler {
    fn on_connect(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        if request.handshake().own {
            cx.accept(request);
        } else {
            // As if there were none.
            cx.refuse(request, "Invalid namespace", None);
        }
    }

    fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, args: Args, ack: Option<Ack>) {
        match ack {
            Some(ack) => cx.ack(ack, args.rest()),
            None => cx.emit(socket, args),
        }
    }
}

/// Whether a request comes from a probe of this process.
pub(crate) fn is_own(headers: &HeaderMap) -> bool {
    headers.get(Header::Probe.name()).is_some_and(|value| value == mark())
}

/// The last probe, and those who wait for the next.
#[derive(Default)]
pub(crate) struct Prober(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    latest: Option<(Time, Arc<ProbeReport>)>,
    running: bool,
    waiting: Vec<oneshot::Sender<Arc<ProbeReport>>>,
}

/// A probe by way of [`public_url`](crate::Builder::public_url), or else of the listener; the last
/// one, if it is fresh. One runs at a time, whoever asks.
pub(crate) async fn kept(process: &Arc<Process>) -> Arc<ProbeReport> {
    let (answer, first) = {
        let mut kept = process.prober.lock();
        let now = process.clock.now();
        if let Some((at, report)) = &kept.latest
            && now.since(*at) < limit::PROBE_KEPT
        {
            return Arc::clone(report);
        }
        let (waiting, answer) = oneshot::channel();
        kept.waiting.push(waiting);
        (answer, !std::mem::replace(&mut kept.running, true))
    };
    if first {
        // Dropped without having run, it tells those who wait: not under the lock, therefore.
        let running = Running { process: Arc::clone(process), report: None };
        on_a_thread(move || {
            let mut running = running;
            running.report = Some(run(&running.process, Way::Clients));
        });
    }
    answer.await.unwrap_or_else(|_| Arc::new(Walk::new(process).impossible(NO_THREAD)))
}

/// A probe by way of the first public listener, anew.
pub(crate) async fn through_listener(process: &Arc<Process>) -> ProbeReport {
    let (tell, answer) = oneshot::channel();
    let theirs = Arc::clone(process);
    on_a_thread(move || {
        // Whoever asked may have gone.
        let _ = tell.send(run(&theirs, Way::Listener));
    });
    answer.await.unwrap_or_else(|_| Walk::new(process).impossible(NO_THREAD))
}

/// A probe looks a name up, which blocks, and may meet a server that is slow to do cryptography: on
/// no shard's thread, and not on that of whoever asks. If there is no thread, `code` is dropped.
fn on_a_thread(code: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name("probe".to_owned()).spawn(code) {
        tracing::warn!(%error, "a probe has no thread");
    }
}

/// However a probe ends, those who wait are told, and the next may begin.
struct Running {
    process: Arc<Process>,
    report: Option<ProbeReport>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let report = self.report.take();
        let report = report.unwrap_or_else(|| Walk::new(&self.process).impossible(NO_THREAD));
        let report = Arc::new(report);
        let now = self.process.clock.now();
        let waiting = {
            let mut kept = self.process.prober.lock();
            kept.running = false;
            kept.latest = Some((now, Arc::clone(&report)));
            std::mem::take(&mut kept.waiting)
        };
        for one in waiting {
            let _ = one.send(Arc::clone(&report));
        }
    }
}

impl Prober {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which way a probe takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The one clients take, as far as the server was told.
    Clients,
    /// Straight to the listener.
    Listener,
}

fn run(process: &Arc<Process>, way: Way) -> ProbeReport {
    let mut walk = Walk::new(process);
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return walk.impossible(&error.to_string()),
    };
    runtime.block_on(walk.go(way));
    walk.give_up_the_rest();
    // A look-up of a name may still run, and need not end.
    runtime.shutdown_background();
    walk.report
}

/// A probe under way.
struct Walk {
    process: Arc<Process>,
    report: ProbeReport,
    deadline: Time,
    /// The last step of which the others depend failed.
    stopped_by: Option<&'static str>,
    /// Whether the answers may be a proxy's.
    proxied: bool,
    polling: bool,
    websocket: bool,
    /// Without namespaces there is nobody who would answer an event.
    namespaces: bool,
    /// The path of the engine.
    path: String,
    /// Different in each probe.
    nonce: String,
}

/// What a step says when it fails.
type Words = String;

impl Walk {
    fn new(process: &Arc<Process>) -> Self {
        let settings = process.settings();
        let engine = &settings.engine;
        Self {
            process: Arc::clone(process),
            report: ProbeReport { websocket_enabled: engine.websocket, steps: Vec::new() },
            deadline: process.clock.now() + limit::PROBE_ALL,
            stopped_by: None,
            proxied: false,
            polling: engine.polling,
            websocket: engine.websocket,
            namespaces: process.plan().handlers.engine.is_none(),
            path: engine.path.clone(),
            nonce: random_hex(),
        }
    }

    /// The report of a probe that could not even begin.
    fn impossible(mut self, why: &str) -> ProbeReport {
        self.fail("open", format!("the probe could not begin: {why}"));
        self.give_up_the_rest();
        self.report
    }

    async fn go(&mut self, way: Way) {
        let wire = match self.wire(way) {
            Ok(wire) => wire,
            Err(words) => return self.fail("open", words),
        };
        let opened = if self.polling {
            self.in_time(steps::open_by_polling(self, wire)).await
        } else {
            self.in_time(steps::open_by_websocket(self, wire)).await
        };
        if let Some(mut session) = self.note("open", opened) {
            self.rest(&mut session).await;
            session.end(self).await;
        }
    }

    /// The steps of a session that is open.
    async fn rest(&mut self, session: &mut Session) {
        // Without polling the session joins on its WebSocket, as part of the event.
        if self.polling {
            let joined = self.in_time(steps::join(self, session)).await;
            if self.note("poll", joined).is_none() {
                return;
            }
        } else {
            self.skip("poll");
        }
        if self.polling && self.websocket {
            let upgraded = self.in_time(steps::upgrade(self, session)).await;
            if self.note("upgrade", upgraded).is_none() {
                // A client that cannot upgrade goes on as it was: whether it really can is told.
                self.stopped_by = None;
            }
        } else {
            self.skip("upgrade");
        }
        if !self.namespaces {
            self.skip("event");
            self.skip("ack");
            return;
        }
        let event = async {
            if !self.polling {
                steps::join(self, session).await?;
            }
            steps::event(self, session).await
        };
        let event = self.in_time(event).await;
        if self.note("event", event).is_some() {
            let ack = self.in_time(steps::ack(self, session)).await;
            self.note("ack", ack);
        }
    }

    /// Where to, and how.
    fn wire(&mut self, way: Way) -> Result<Wire, Words> {
        let mut options = Options {
            headers: vec![
                (Header::Probe.name().to_owned(), mark().to_owned()),
                ("user-agent".to_owned(), USER_AGENT.to_owned()),
            ],
            connect_timeout: limit::PROBE_STEP,
            max_message_bytes: limit::PROBE_BYTES,
            ..Options::default()
        };
        let settings = self.process.settings();
        let url = match (&settings.public_url, way) {
            (Some(url), Way::Clients) => {
                self.proxied = true;
                url.clone()
            }
            (None, _) | (_, Way::Listener) => {
                let address = reachable(self.process.public);
                if settings.proxies.expects_header(address.ip()) {
                    options.preface = PROXY_LOCAL.to_vec();
                }
                match self.process.certificates.leaf() {
                    Some(leaf) => {
                        // It is for the name that clients use, and whether it is still good is not
                        // the question here.
                        options.trust = Trust::Only(leaf);
                        format!("https://{address}")
                    }
                    None => format!("http://{address}"),
                }
            }
        };
        Wire::new(&url, &options).map_err(|error| format!("health.public-url: {error}"))
    }

    /// Gives a step its time. Also says how long it took.
    async fn in_time<T>(
        &self,
        step: impl Future<Output = Result<T, Words>>,
    ) -> Result<(T, Duration), (Words, Duration)> {
        let clock = self.process.clock;
        let began = clock.now();
        let time = limit::PROBE_STEP.min(self.deadline.since(began));
        let result = timeout(time, step).await;
        let took = clock.now().since(began);
        match result {
            Ok(Ok(done)) => Ok((done, took)),
            Ok(Err(words)) => Err((words, took)),
            Err(_) => Err((format!("nothing came within {:.1} s", time.as_secs_f64()), took)),
        }
    }

    /// Notes how a step went, and gives back what it brought.
    fn note<T>(
        &mut self,
        name: &'static str,
        result: Result<(T, Duration), (Words, Duration)>,
    ) -> Option<T> {
        let (outcome, took, brought) = match result {
            Ok((brought, took)) => (StepOutcome::Done, took, Some(brought)),
            Err((words, took)) => {
                self.stopped_by = Some(name);
                (StepOutcome::Failed(words), took, None)
            }
        };
        self.report.steps.push(ProbeStep { name, outcome, took });
        brought
    }

    fn skip(&mut self, name: &'static str) {
        let outcome = StepOutcome::Skipped;
        self.report.steps.push(ProbeStep { name, outcome, took: Duration::ZERO });
    }

    fn fail(&mut self, name: &'static str, words: Words) {
        self.note::<()>(name, Err((words, Duration::ZERO)));
    }

    /// Says of the steps that were not tried why not.
    fn give_up_the_rest(&mut self) {
        let Some(stopped_by) = self.stopped_by else { return };
        for name in STEPS.iter().skip(self.report.steps.len()) {
            self.fail(name, format!("not tried, because `{stopped_by}` failed"));
        }
    }
}

/// How a probe can reach what listens there.
fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        ip if !ip.is_unspecified() => ip,
        std::net::IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listener.port())
}

/// The header of the PROXY protocol, version 2, of a connection that a proxy makes on its own
/// behalf: command LOCAL, family unspecified, no addresses.
const PROXY_LOCAL: [u8; 16] = *b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

/// What probes call themselves, so that they can be found in the logs of proxies.
const USER_AGENT: &str = concat!("bowline-probe/", env!("CARGO_PKG_VERSION"));

const NO_THREAD: &str = "it has no thread";

const STEPS: [&str; 5] = ["open", "poll", "upgrade", "event", "ack"];
