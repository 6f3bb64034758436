//! Requests whose answers are streams, against hyper's server over HTTP/1.1 and over HTTP/2.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bowline_dial::{
    BodyFailure, LaneFigures, LaneOptions, Lanes, NoLane, Options, Origin, StreamedAnswer, Trust,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::{Body, Frame, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

/// No wait of this file may take longer.
const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_connection_is_used_again_after_the_end_of_a_stream() {
    let server = Server::plain().await;
    let lanes = server.lanes(LaneOptions::default());
    for _ in 0..3 {
        let mut answer = ask(&lanes, "/stream").await;
        assert_eq!(answer.body.next().await.unwrap().unwrap(), "one");
        assert_eq!(answer.body.next().await.unwrap().unwrap(), "two");
        assert!(answer.body.next().await.is_none());
        assert!(answer.body.next().await.is_none());
    }
    assert_eq!(ask(&lanes, "/whole").await.body.collect(5).await.unwrap(), "whole");
    assert_eq!(server.connections(), 1);
    let figures = LaneFigures { open: 1, idle: 1, opened: 1, reused: 3, ..LaneFigures::default() };
    assert_eq!(lanes.figures(), figures);
    lanes.close_idle();
    assert_eq!(lanes.figures().open, 0);
    server.until(|server| server.open() == 0).await;
}

#[tokio::test]
async fn an_answer_that_is_dropped_takes_its_connection_along() {
    let server = Server::plain().await;
    let lanes = server.lanes(LaneOptions::default());
    let mut answer = ask(&lanes, "/endless").await;
    assert_eq!(answer.body.next().await.unwrap().unwrap(), "one");
    assert_eq!(lanes.figures().in_use, 1);
    drop(answer);
    server.until(|server| server.streams() == 0 && server.open() == 0).await;

    // Before the head of the answer, too.
    let lane = lanes.lane().await.unwrap();
    let silent = lane.send(request("/silent"));
    assert!(timeout(Duration::from_millis(50), silent).await.is_err());
    server.until(|server| server.open() == 0).await;
    let figures = lanes.figures();
    assert_eq!((figures.open, figures.in_use, figures.opened), (0, 0, 2));
}

#[tokio::test]
async fn a_request_beyond_the_bound_waits_for_a_connection() {
    let server = Server::plain().await;
    let lanes = server.lanes(LaneOptions { connections_max: 1, ..LaneOptions::default() });
    let first = ask(&lanes, "/endless").await;
    let second = timeout(Duration::from_millis(50), lanes.lane());
    assert!(second.await.is_err());
    let third = async {
        let lane = lanes.lane().await.unwrap();
        assert!(!lane.is_reused());
    };
    let end = async {
        tokio::task::yield_now().await;
        assert_eq!(lanes.figures().waiting, 1);
        drop(first);
    };
    timeout(DEADLINE, async { tokio::join!(third, end) }).await.unwrap();
    let figures = lanes.figures();
    assert_eq!((figures.waited, figures.waiting, figures.opened), (2, 0, 2));
}

#[tokio::test]
async fn a_connection_that_is_old_or_closed_is_not_used_again() {
    let server = Server::plain().await;
    let lanes = server.lanes(LaneOptions { idle_max: Duration::ZERO, ..LaneOptions::default() });
    for _ in 0..2 {
        ask(&lanes, "/whole").await.body.collect(5).await.unwrap();
    }
    assert_eq!(server.connections(), 2);

    drop(lanes);
    let lanes = server.lanes(LaneOptions::default());
    ask(&lanes, "/close").await.body.collect(5).await.unwrap();
    server.until(|server| server.open() == 0).await;
    ask(&lanes, "/whole").await.body.collect(5).await.unwrap();
    assert_eq!(lanes.figures().opened, 2);
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_told_from_one_that_ends() {
    let whole = "5\r\nwhole\r\n";
    for (rest, end) in [("0\r\n\r\n", Ok("whole")), ("", Err(BodyFailure::CutOff))] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let lanes =
            Lanes::new(&Origin::parse(&url, &Options::default()).unwrap(), LaneOptions::default());
        let answering = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_buf(&mut Vec::with_capacity(4_096)).await.unwrap();
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(format!("{head}{whole}{rest}").as_bytes()).await.unwrap();
        };
        let ((), answer) = tokio::join!(answering, ask(&lanes, "/"));
        let read = timeout(DEADLINE, answer.body.collect(5)).await.unwrap();
        assert_eq!(read, end.map(Bytes::from));
    }
}

#[tokio::test]
async fn http2_carries_many_streams_on_one_connection() {
    let server = Server::tls(&["h2", "http/1.1"]).await;
    let lanes = server.lanes(LaneOptions::default());
    let mut asking = JoinSet::new();
    for _ in 0..20 {
        let lanes = lanes.clone();
        asking.spawn(async move { ask(&lanes, "/endless").await });
    }
    let mut answers = asking.join_all().await;
    assert_eq!((server.connections(), server.streams()), (1, 20));
    answers.truncate(5);
    server.until(|server| server.streams() == 5).await;
    assert_eq!((lanes.figures().open, lanes.figures().in_use), (1, 5));
    for answer in &mut answers {
        assert_eq!(answer.body.next().await.unwrap().unwrap(), "one");
    }
    assert_eq!(ask(&lanes, "/whole").await.body.collect(5).await.unwrap(), "whole");
    // Nobody has the connections any more, and the streams go on.
    drop(lanes);
    assert_eq!(server.open(), 1);
    drop(answers);
    server.until(|server| server.open() == 0).await;
}

#[tokio::test]
async fn http2_is_a_choice() {
    let server = Server::tls(&["http/1.1"]).await;
    let lanes = server.lanes(LaneOptions::default());
    assert!(!lanes.lane().await.unwrap().is_http2());
    let server = Server::tls(&["h2", "http/1.1"]).await;
    let lanes = server.lanes(LaneOptions { http2: false, ..LaneOptions::default() });
    assert!(!lanes.lane().await.unwrap().is_http2());
    assert_eq!(ask(&lanes, "/whole").await.body.collect(5).await.unwrap(), "whole");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_from_a_slow_one() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let lanes = |url: &str, connect_timeout| {
        let options = Options { connect_timeout, ..Options::default() };
        Lanes::new(&Origin::parse(url, &options).unwrap(), LaneOptions::default())
    };
    let refused = lanes(&format!("http://{nobody}/"), DEADLINE).lane().await.unwrap_err();
    assert!(matches!(refused, NoLane::Failed(_)), "{refused:?}");

    // It accepts, and does not shake hands.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", silent.local_addr().unwrap());
    let trust = Trust::Only(vec![].into());
    let options =
        Options { connect_timeout: Duration::from_millis(50), trust, ..Options::default() };
    let lanes = Lanes::new(&Origin::parse(&url, &options).unwrap(), LaneOptions::default());
    assert_eq!(lanes.lane().await.unwrap_err(), NoLane::TimedOut);
    assert_eq!(lanes.figures(), LaneFigures { failed: 1, ..LaneFigures::default() });
}

fn request(path: &str) -> Request<Full<Bytes>> {
    Request::post(path).body(Full::from("question")).unwrap()
}

async fn ask(lanes: &Lanes, path: &str) -> StreamedAnswer {
    let asking = async { lanes.lane().await.unwrap().send(request(path)).await };
    timeout(DEADLINE, asking).await.unwrap().unwrap()
}

/// A server, and what it has seen.
struct Server {
    url: String,
    certificate: CertificateDer<'static>,
    seen: Arc<Seen>,
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    open: AtomicUsize,
    streams: AtomicUsize,
}

impl Server {
    async fn plain() -> Self {
        Self::start(None, CertificateDer::from(vec![])).await
    }

    async fn tls(protocols: &[&str]) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self::start(Some(TlsAcceptor::from(Arc::new(config))), certificate).await
    }

    async fn start(tls: Option<TlsAcceptor>, certificate: CertificateDer<'static>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://localhost:{}/", listener.local_addr().unwrap().port());
        let (seen, mut serving) = (Arc::<Seen>::default(), JoinSet::new());
        serving.spawn(accept(listener, tls, Arc::clone(&seen)));
        Self { url, certificate, seen, _serving: serving }
    }

    fn lanes(&self, lane_options: LaneOptions) -> Lanes {
        let trust = Trust::Only(self.certificate.clone());
        let options = Options { trust, ..Options::default() };
        Lanes::new(&Origin::parse(&self.url, &options).unwrap(), lane_options)
    }

    fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }

    fn streams(&self) -> usize {
        self.seen.streams.load(Ordering::SeqCst)
    }

    async fn until(&self, condition: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, waiting).await.unwrap();
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, seen: Arc<Seen>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        seen.connections.fetch_add(1, Ordering::SeqCst);
        seen.open.fetch_add(1, Ordering::SeqCst);
        let (tls, seen) = (tls.clone(), Arc::clone(&seen));
        connections.spawn(async move {
            let service = service_fn(|request| answer(request, Arc::clone(&seen)));
            // However it ends.
            let _ = match tls {
                None => http1::Builder::new().serve_connection(TokioIo::new(stream), service).await,
                Some(tls) => {
                    let stream = tls.accept(stream).await.unwrap();
                    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                        let builder = http2::Builder::new(TokioExecutor::new());
                        builder.serve_connection(TokioIo::new(stream), service).await
                    } else {
                        let builder = http1::Builder::new();
                        builder.serve_connection(TokioIo::new(stream), service).await
                    }
                }
            };
            seen.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Seen>,
) -> Result<Response<Parts>, Infallible> {
    seen.streams.fetch_add(1, Ordering::SeqCst);
    let (parts, endless): (&[&'static str], bool) = match request.uri().path() {
        "/stream" => (&["one", "two"], false),
        "/endless" => (&["one"], true),
        "/silent" => std::future::pending().await,
        _ => (&["whole"], false),
    };
    let mut response =
        Response::new(Parts { left: parts.iter().rev().copied().collect(), endless, seen });
    if request.uri().path() == "/close" {
        response.headers_mut().insert("connection", "close".parse().unwrap());
    }
    Ok(response)
}

/// A body that comes in parts.
struct Parts {
    left: Vec<&'static str>,
    endless: bool,
    seen: Arc<Seen>,
}

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.left.pop() {
            Some(part) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(part.as_bytes()))))),
            None if self.endless => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.seen.streams.fetch_sub(1, Ordering::SeqCst);
    }
}
