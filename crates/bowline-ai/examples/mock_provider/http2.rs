//! The mock over HTTP/2, offered in TLS as providers do: the same modes, each request a stream of a connection that many
//! share. Closing and resetting a connection is here resetting the stream.

use std::{
    convert::Infallible,
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::{
    body::{Body, Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::{TlsAcceptor, rustls};

use super::{Seen, State, Step, clock::Watch, lock, meta, plan};

/// How the mock is spoken to in TLS.
pub(super) struct Tls {
    pub(super) acceptor: TlsAcceptor,
    pub(super) certificate: CertificateDer<'static>,
}

impl Tls {
    /// For `localhost`, with a certificate that nobody has signed.
    pub(super) fn new() -> io::Result<Self> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
        let made = made.map_err(io::Error::other)?;
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.map_err(io::Error::other)?)
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), certificate })
    }
}

/// Accepts connections. Whenever `goodbye` changes, those that are open say that they take no more.
pub(super) async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    state: Arc<State>,
    goodbye: watch::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (acceptor, state, goodbye) = (acceptor.clone(), Arc::clone(&state), goodbye.clone());
        connections.spawn(async move {
            // However it ends.
            let _ = serve(stream, &acceptor, &state, goodbye).await;
        });
    }
}

async fn serve(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    state: &Arc<State>,
    mut goodbye: watch::Receiver<()>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    state.connections.fetch_add(1, Ordering::SeqCst);
    let _open = super::Count::new(&state.open_connections);
    let acting = Arc::<Mutex<JoinSet<()>>>::default();
    let service = service_fn(|request| answer(request, Arc::clone(state), Arc::clone(&acting)));
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.max_concurrent_streams(STREAMS_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    goodbye.mark_unchanged();
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => return ended.map_err(io::Error::other),
            said = goodbye.changed() => {
                connection.as_mut().graceful_shutdown();
                if said.is_err() {
                    return connection.await.map_err(io::Error::other);
                }
            }
        }
    }
}

/// Streams of a connection: more than its clients ask for.
const STREAMS_MAX: u32 = 1_000;

/// One request. An error resets its stream.
async fn answer(
    request: Request<Incoming>,
    state: Arc<State>,
    acting: Arc<Mutex<JoinSet<()>>>,
) -> Result<Response<Told>, Reset> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Reset)?.to_bytes().to_vec();
    let mut lines = format!("{} {} HTTP/2\r\n", head.method, head.uri.path());
    for (name, value) in &head.headers {
        lines.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
    }
    let seen = Seen { path: head.uri.path().to_owned(), head: lines, body };
    if let Some(answer) = meta(&seen, &state) {
        return Ok(Response::new(Told::whole(answer.to_string())));
    }
    let watch = Watch::start();
    let (name, script, stream) = plan(&seen, &state);
    *lock(&state.last) = Some(seen);
    let mut asked = Asked::new(state, name, watch, stream);
    let mut script = script.into_iter();
    while let Some(step) = script.next() {
        let mut response = Response::new(Told::default());
        let kind = match step {
            Step::Whole { status, headers, body } => {
                asked.over = true;
                *response.status_mut() = StatusCode::from_u16(status).map_err(|_| Reset)?;
                for (name, value) in headers.lines().filter_map(|line| line.split_once(": ")) {
                    let name: header::HeaderName = name.parse().map_err(|_| Reset)?;
                    response.headers_mut().insert(name, value.parse().map_err(|_| Reset)?);
                }
                *response.body_mut() = Told::whole(body);
                "application/json"
            }
            Step::Head { length } => {
                let (sender, receiver) = mpsc::channel(1);
                *response.body_mut() = Told::Stream(receiver);
                let rest: Vec<Step> = script.by_ref().collect();
                lock(&acting).spawn(act(asked, rest, sender));
                let kind = if length.is_some() { "application/json" } else { "text/event-stream" };
                response
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, kind.parse().map_err(|_| Reset)?);
                return Ok(response);
            }
            Step::Sleep(ms) => {
                sleep(Duration::from_millis(ms)).await;
                continue;
            }
            Step::Forever => std::future::pending().await,
            Step::Close | Step::Reset => {
                asked.over = true;
                return Err(Reset);
            }
            Step::Raw(_) | Step::Chunk(_) | Step::Repeat(..) | Step::End => continue,
        };
        response.headers_mut().insert(header::CONTENT_TYPE, kind.parse().map_err(|_| Reset)?);
        return Ok(response);
    }
    Err(Reset)
}

/// Says what follows a head. The client has left when nobody takes it.
async fn act(mut asked: Asked, script: Vec<Step>, sender: mpsc::Sender<Result<Bytes, Reset>>) {
    let say = async {
        for step in script {
            let said = match step {
                Step::Raw(data) | Step::Chunk(data) => sender.send(Ok(data.into())).await,
                Step::Repeat(data, ms) => loop {
                    if sender.send(Ok(data.into())).await.is_err() {
                        return;
                    }
                    sleep(Duration::from_millis(ms)).await;
                },
                Step::Sleep(ms) => {
                    sleep(Duration::from_millis(ms)).await;
                    Ok(())
                }
                Step::Forever => std::future::pending().await,
                Step::Close | Step::Reset => {
                    let _ = sender.send(Err(Reset)).await;
                    break;
                }
                Step::End | Step::Whole { .. } | Step::Head { .. } => Ok(()),
            };
            if said.is_err() {
                return;
            }
        }
        asked.over = true;
    };
    tokio::select! {
        biased;
        () = say => {}
        () = sender.closed() => {}
    }
}

/// Ends a stream before its end.
#[derive(Debug)]
struct Reset;

impl std::fmt::Display for Reset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the mock resets the stream")
    }
}

impl std::error::Error for Reset {}

impl From<Infallible> for Reset {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// The body of an answer.
#[derive(Default)]
enum Told {
    Whole(Bytes),
    Stream(mpsc::Receiver<Result<Bytes, Reset>>),
    #[default]
    Over,
}

impl Told {
    fn whole(text: String) -> Self {
        Self::Whole(text.into())
    }
}

impl Body for Told {
    type Data = Bytes;
    type Error = Reset;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reset>>> {
        match &mut *self {
            Self::Whole(data) => {
                let data = std::mem::take(data);
                *self = Self::Over;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Self::Stream(pieces) => {
                pieces.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
            }
            Self::Over => Poll::Ready(None),
        }
    }
}

/// Counts a request while it lasts.
struct Asked {
    state: Arc<State>,
    name: String,
    watch: Watch,
    stream: bool,
    /// It has come to its end; else its client has left.
    over: bool,
}

impl Asked {
    fn new(state: Arc<State>, name: String, watch: Watch, stream: bool) -> Self {
        state.answering.fetch_add(1, Ordering::SeqCst);
        state.open_streams.fetch_add(u64::from(stream), Ordering::SeqCst);
        Self { state, name, watch, stream, over: false }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.state.on_answered(std::mem::take(&mut self.name), self.watch);
        self.state.open_streams.fetch_sub(u64::from(self.stream), Ordering::SeqCst);
        self.state.cancelled.fetch_add(u64::from(!self.over), Ordering::SeqCst);
        self.state.answering.fetch_sub(1, Ordering::SeqCst);
    }
}
