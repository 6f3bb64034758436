//! Sends spans to a collector: a bounded queue of records, batches, a few tries. Whatever becomes of it, no request waits.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bowline_ai::{record::RequestRecord, trace::Tap};
use bowline_dial::{HttpAnswer, Pool};
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Full;
use prost::Message as _;
use tokio::{
    sync::{Notify, watch},
    task, time,
};

use super::{
    ExportFate, SpanFate, limit, otlp,
    settings::Target,
    spans::{self, Providers},
};
use crate::{clock::Clock, config::Ai};

/// Sends spans, as long as [`run`](Self::run) is polled.
#[derive(Debug)]
pub(super) struct Exporter {
    desk: Mutex<Desk>,
    /// There is a batch, or hurry.
    ready: Notify,
    /// Nothing waits or is on its way.
    settled: Notify,
    route: watch::Sender<Option<Arc<Route>>>,
    spans: [AtomicU64; SpanFate::ALL.len()],
    exports: [AtomicU64; ExportFate::ALL.len()],
    /// `service.instance.id`
    instance: Arc<str>,
}

#[derive(Debug, Default)]
struct Desk {
    waiting: VecDeque<Arc<RequestRecord>>,
    /// A batch is on its way.
    sending: bool,
    /// The server stops: nothing waits for others any more, and nothing is tried twice.
    hurry: bool,
}

/// Requests whose spans go together.
type Batch = Arc<[Arc<RequestRecord>]>;

/// Where spans go.
#[derive(Debug)]
struct Route {
    target: Target,
    pool: Pool,
    providers: Providers,
}

/// Why an export has failed. `Later` may go well another time.
#[derive(Debug, PartialEq, Eq)]
enum Problem {
    Later { words: String, after: Option<Duration> },
    Never(String),
}

impl Exporter {
    pub(super) fn new() -> Self {
        Self {
            desk: Mutex::default(),
            ready: Notify::new(),
            settled: Notify::new(),
            route: watch::Sender::new(None),
            spans: Default::default(),
            exports: Default::default(),
            instance: instance_id().into(),
        }
    }

    /// Says where spans go from now on.
    pub(super) fn set(&self, target: Option<Target>, ai: &Ai) {
        self.route.send_replace(target.map(|target| {
            let pool = Pool::new(target.origin.clone(), limit::ANSWER_BYTES_MAX, limit::IDLE);
            Arc::new(Route { pool, providers: Providers::of(ai), target })
        }));
    }

    pub(super) fn spans(&self, fate: SpanFate) -> u64 {
        self.spans[fate as usize].load(Relaxed)
    }

    pub(super) fn exports(&self, fate: ExportFate) -> u64 {
        self.exports[fate as usize].load(Relaxed)
    }

    /// Sends what comes. Never ends.
    pub(super) async fn run(&self) {
        let clock = Clock::start();
        // Whether the last export failed: that is told once, and so is its end.
        let mut failing = false;
        loop {
            // Less than a batch waits for more.
            let _ = time::timeout(limit::BATCH_EVERY, self.ready.notified()).await;
            while let Some(batch) = self.take() {
                self.export(&batch, clock, &mut failing).await;
                self.desk().sending = false;
            }
            self.settled.notify_waiters();
        }
    }

    /// Sends what waits, at once. Ends when nothing waits any more.
    pub(super) async fn flush(&self) {
        loop {
            let settled = self.settled.notified();
            {
                let mut desk = self.desk();
                desk.hurry = true;
                if desk.waiting.is_empty() && !desk.sending {
                    return;
                }
            }
            self.ready.notify_one();
            settled.await;
        }
    }

    fn take(&self) -> Option<Batch> {
        let mut desk = self.desk();
        let length = desk.waiting.len().min(limit::BATCH_MAX);
        let batch: Batch = desk.waiting.drain(..length).collect();
        desk.sending = !batch.is_empty();
        desk.sending.then_some(batch)
    }

    async fn export(&self, batch: &Batch, clock: Clock, failing: &mut bool) {
        let mut route = self.route.subscribe();
        let mut pause = limit::PAUSE;
        for tried in 1.. {
            let current = route.borrow_and_update().clone();
            let Some(current) = current else { break };
            let problem = match self.post(&current, batch, clock).await {
                Ok(rejected) => {
                    self.exports[ExportFate::Ok as usize].fetch_add(1, Relaxed);
                    self.count(SpanFate::Rejected, rejected);
                    let all = batch.iter().map(|record| number_of_spans(record)).sum::<u64>();
                    self.count(SpanFate::Exported, all.saturating_sub(rejected));
                    if std::mem::take(failing) {
                        tracing::info!("spans are exported again");
                    }
                    return;
                }
                Err(problem) => problem,
            };
            self.exports[ExportFate::Failed as usize].fetch_add(1, Relaxed);
            let (error, after) = match problem {
                Problem::Later { words, after } => (words, Some(after.unwrap_or(pause))),
                Problem::Never(words) => (words, None),
            };
            if !std::mem::replace(failing, true) {
                let collector = current.target.origin.authority();
                tracing::warn!(collector, error, "spans are not exported");
            }
            let Some(after) = after.filter(|_| tried < limit::TRIES && !self.desk().hurry) else {
                break;
            };
            tokio::select! {
                () = time::sleep(after.min(limit::PAUSE_MAX)) => {}
                // There may be another collector now, or hurry.
                _ = route.changed() => {}
                () = self.ready_in_hurry() => {}
            }
            pause *= 2;
        }
        self.count(SpanFate::Dropped, batch.iter().map(|record| number_of_spans(record)).sum());
    }

    /// Waits until the server stops.
    async fn ready_in_hurry(&self) {
        loop {
            self.ready.notified().await;
            if self.desk().hurry {
                return;
            }
        }
    }

    /// Sends a batch once. Returns how many spans the collector has not taken.
    async fn post(&self, route: &Arc<Route>, batch: &Batch, clock: Clock) -> Result<u64, Problem> {
        let Route { target, pool, .. } = &**route;
        // That takes milliseconds, which the threads of requests have not.
        let (made, batch) = (Arc::clone(route), Arc::clone(batch));
        let instance = Arc::clone(&self.instance);
        let body = task::spawn_blocking(move || {
            let Route { target, providers, .. } = &*made;
            request(&batch, providers, &target.service, &instance).encode_to_vec()
        });
        let body = body.await.map_err(|error| Problem::Never(error.to_string()))?;
        let mut request = Request::post(target.path.as_str())
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Problem::Never(error.to_string()))?;
        let headers = request.headers_mut();
        *headers = target.headers.clone();
        let agent = concat!("bowline/", env!("CARGO_PKG_VERSION"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        let kind = HeaderValue::from_static("application/x-protobuf");
        headers.insert(header::CONTENT_TYPE, kind);
        if let Ok(host) = target.origin.authority().parse() {
            headers.insert(header::HOST, host);
        }
        let sent = time::timeout(limit::EXPORT, pool.send(clock.now(), request)).await;
        let later = |words: String| Problem::Later { words, after: None };
        let (answer, kept) = match sent {
            Err(_) => return Err(later("the collector did not answer in time".to_owned())),
            Ok(Err(failure)) => return Err(later(words_of(failure))),
            Ok(Ok(answered)) => answered,
        };
        pool.keep(clock.now(), kept);
        judge(&answer)
    }

    fn count(&self, fate: SpanFate, spans: u64) {
        self.spans[fate as usize].fetch_add(spans, Relaxed);
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tap for Exporter {
    fn on_request(&self, record: &Arc<RequestRecord>) {
        let mut desk = self.desk();
        let waiting = desk.waiting.len();
        if waiting >= limit::QUEUE_MAX {
            drop(desk);
            return self.count(SpanFate::Dropped, number_of_spans(record));
        }
        desk.waiting.push_back(Arc::clone(record));
        drop(desk);
        if waiting + 1 == limit::BATCH_MAX {
            self.ready.notify_one();
        }
    }
}

/// What the collector's answer means.
fn judge(answer: &HttpAnswer) -> Result<u64, Problem> {
    let status = answer.status;
    if status.is_success() {
        let said = otlp::Response::decode(answer.body.clone()).unwrap_or_default();
        let partial = said.partial_success.unwrap_or_default();
        let rejected = u64::try_from(partial.rejected_spans).unwrap_or_default();
        if rejected > 0 {
            let error = shown(&partial.error_message);
            tracing::warn!(rejected, error, "the collector has not taken all spans");
        }
        return Ok(rejected);
    }
    let words = format!("the collector answered {status}");
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            let after = answer.headers.get(header::RETRY_AFTER);
            let seconds = after.and_then(|after| after.to_str().ok()?.trim().parse().ok());
            Err(Problem::Later { words, after: seconds.map(Duration::from_secs) })
        }
        _ => Err(Problem::Never(words)),
    }
}

fn words_of(failure: bowline_dial::HttpFailure) -> String {
    match failure {
        bowline_dial::HttpFailure::NotSent(words) | bowline_dial::HttpFailure::Broken(words) => {
            format!("the collector {words}")
        }
        bowline_dial::HttpFailure::TooBig => "the collector's answer is too large".to_owned(),
    }
}

fn shown(words: &str) -> String {
    words.chars().take(200).collect()
}

/// All of a batch, as it is sent.
fn request(
    batch: &[Arc<RequestRecord>],
    providers: &Providers,
    service: &str,
    instance: &str,
) -> otlp::Request {
    let version = env!("CARGO_PKG_VERSION");
    let attributes = [
        ("service.name", service),
        ("service.version", version),
        ("service.instance.id", instance),
        ("telemetry.sdk.name", "bowline"),
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.version", version),
    ];
    let attributes = attributes.map(|(key, value)| otlp::KeyValue::new(key, value)).into();
    let spans = batch.iter().flat_map(|record| spans::of_record(record, providers)).collect();
    let scope = otlp::Scope { name: "bowline.ai".to_owned(), version: version.to_owned() };
    let resource_spans = otlp::ResourceSpans {
        resource: Some(otlp::Resource { attributes }),
        scope_spans: vec![otlp::ScopeSpans { scope: Some(scope), spans }],
    };
    otlp::Request { resource_spans: vec![resource_spans] }
}

fn number_of_spans(record: &RequestRecord) -> u64 {
    1 + record.attempts.len() as u64
}

/// A random UUID (version 4).
fn instance_id() -> String {
    let mut bytes = [0; 16];
    // Without chance two instances may have the same id, and no more than that.
    let _ = getrandom::fill(&mut bytes);
    let number = u128::from_be_bytes(bytes);
    let number = number & !(0xf << 76) & !(0b11 << 62) | 4 << 76 | 0b10 << 62;
    let digits = format!("{number:032x}");
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use bowline_ai::wire::{Outcome, Surface};
    use bowline_dial::{Options, Origin};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
        task::JoinSet,
    };

    use super::*;

    fn record() -> Arc<RequestRecord> {
        Arc::new(RequestRecord {
            id: "req_0123456789abcdeffedcba9876543210".into(),
            surface: Surface::Embeddings,
            stream: false,
            requested: "chat".into(),
            key: None,
            session: None,
            client_retry: 0,
            parent: None,
            started_unix_ms: 0,
            queued: Duration::ZERO,
            first_content: None,
            took: Duration::from_millis(5),
            outcome: Outcome::Ok,
            status: 200,
            attempts: Vec::new(),
        })
    }

    fn target(address: SocketAddr) -> Target {
        let origin = Origin::parse(&format!("http://{address}"), &Options::default()).unwrap();
        let headers = [(header::AUTHORIZATION, HeaderValue::from_static("Basic hush"))];
        let headers = headers.into_iter().collect();
        Target { origin, path: "/v1/traces".to_owned(), headers, service: "s".to_owned() }
    }

    /// Reads a request; answers it.
    async fn answer(stream: &mut TcpStream, with: &str) -> (String, otlp::Request) {
        let mut bytes = Vec::new();
        loop {
            let mut piece = [0; 4_096];
            let length = stream.read(&mut piece).await.unwrap();
            bytes.extend_from_slice(&piece[..length]);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let length = text.split("content-length: ").nth(1).unwrap();
            let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
            if let Some(body) = bytes.get(end + 4..end + 4 + length) {
                let body = otlp::Request::decode(body).unwrap();
                stream.write_all(with.as_bytes()).await.unwrap();
                return (text, body);
            }
        }
    }

    async fn listening() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_is_away_for_a_while_gets_what_it_has_missed() {
        let (listener, address) = listening().await;
        let exporter = Arc::new(Exporter::new());
        exporter.set(Some(target(address)), &Ai::default());
        let mut tasks = JoinSet::new();
        let running = Arc::clone(&exporter);
        tasks.spawn(async move { running.run().await });
        exporter.on_request(&record());
        let (mut stream, _) = listener.accept().await.unwrap();
        let busy =
            "HTTP/1.1 503 Service Unavailable\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n";
        let (head, first) = answer(&mut stream, busy).await;
        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("content-type: application/x-protobuf\r\n"), "{head}");
        assert!(head.contains("authorization: Basic hush\r\n"), "{head}");
        let (_, again) = answer(&mut stream, OK).await;
        assert_eq!(first, again);
        assert_eq!(again.resource_spans[0].scope_spans[0].spans.len(), 1);
        exporter.flush().await;
        assert_eq!((exporter.spans(SpanFate::Exported), exporter.spans(SpanFate::Dropped)), (1, 0));
        assert_eq!(
            (exporter.exports(ExportFate::Ok), exporter.exports(ExportFate::Failed)),
            (1, 1)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_there_costs_a_bounded_queue_and_no_more() {
        let (listener, address) = listening().await;
        drop(listener);
        let exporter = Exporter::new();
        exporter.set(Some(target(address)), &Ai::default());
        for _ in 0..limit::QUEUE_MAX + 10 {
            exporter.on_request(&record());
        }
        assert_eq!(exporter.spans(SpanFate::Dropped), 10);
        tokio::select! {
            biased;
            () = exporter.flush() => {}
            () = exporter.run() => {}
        }
        let all = limit::QUEUE_MAX as u64 + 10;
        assert_eq!(
            (exporter.spans(SpanFate::Dropped), exporter.spans(SpanFate::Exported)),
            (all, 0)
        );
        // In a hurry each batch is tried once.
        let batches = limit::QUEUE_MAX.div_ceil(limit::BATCH_MAX) as u64;
        assert_eq!(exporter.exports(ExportFate::Failed), batches);
        exporter.flush().await;
    }

    #[test]
    fn what_a_collector_does_not_take_is_counted_and_what_never_helps_is_not_tried_again() {
        let answered = |status: u16, body: Vec<u8>| HttpAnswer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: Default::default(),
            body: body.into(),
        };
        assert_eq!(judge(&answered(200, Vec::new())), Ok(0));
        // A body that is none: it has taken them all the same.
        assert_eq!(judge(&answered(202, b"thanks".to_vec())), Ok(0));
        let partial = otlp::PartialSuccess { rejected_spans: 3, error_message: "full".to_owned() };
        let partial = otlp::Response { partial_success: Some(partial) };
        assert_eq!(judge(&answered(200, partial.encode_to_vec())), Ok(3));
        let is_final =
            |status| matches!(judge(&answered(status, Vec::new())), Err(Problem::Never(_)));
        assert!([400, 401, 404, 500].into_iter().all(is_final));
        assert!(![429, 502, 503, 504].into_iter().any(is_final));
    }

    #[test]
    fn an_instance_has_an_id_of_its_own() {
        let (one, other) = (instance_id(), instance_id());
        assert_ne!(one, other);
        assert_eq!((one.len(), &one[14..15]), (36, "4"));
        assert!(matches!(&one[19..20], "8" | "9" | "a" | "b"), "{one}");
    }
}
