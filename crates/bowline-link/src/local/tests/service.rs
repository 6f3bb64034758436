//! The service that bots speak with, and the proxy that it is found by, whatever name is asked for.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{
    body::{Body, Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, crypto::ring::default_provider};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::read_head;

pub(super) struct Service {
    pub(super) root: CertificateDer<'static>,
    pub(super) proxy_port: u16,
    /// Lets the answer to `/slow` go on.
    pub(super) go: Arc<Semaphore>,
    _tasks: JoinSet<()>,
}

impl Service {
    pub(super) async fn start() -> Self {
        let (config, root) = certificates();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let go = Arc::new(Semaphore::new(0));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, TlsAcceptor::from(config), Arc::clone(&go)));

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy_port = listener.local_addr().unwrap().port();
        tasks.spawn(proxy(listener, port));
        Self { root, proxy_port, go, _tasks: tasks }
    }
}

fn certificates() -> (Arc<ServerConfig>, CertificateDer<'static>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_key = KeyPair::generate().unwrap();
    let root = params.self_signed(&root_key).unwrap();
    let issuer = Issuer::new(params, root_key);

    let names = ["service.test", "other.test", "deep.more.test"].map(str::to_owned).to_vec();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    (Arc::new(config), root.der().clone())
}

/// Leads every name to the service; to a port of 1 there is no way.
async fn proxy(listener: TcpListener, port: u16) {
    let mut tasks = JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        tasks.spawn(async move {
            let head = read_head(&mut near).await;
            if head.split(' ').nth(1).is_none_or(|to| to.ends_with(":1")) {
                let _ = near.write_all(b"HTTP/1.1 502 No\r\n\r\n").await;
                return;
            }
            near.write_all(b"HTTP/1.1 200 Yes\r\n\r\n").await.unwrap();
            let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let _ = copy_bidirectional(&mut near, &mut far).await;
        });
    }
}

struct State {
    go: Arc<Semaphore>,
    tasks: Mutex<JoinSet<()>>,
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, go: Arc<Semaphore>) {
    let state = Arc::new(State { go, tasks: Mutex::default() });
    let mut tasks = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, state) = (tls.clone(), Arc::clone(&state));
        tasks.spawn(async move {
            let mut first = [0];
            stream.peek(&mut first).await.unwrap();
            let service = service_fn(move |request| answer(request, Arc::clone(&state)));
            let builder = hyper::server::conn::http1::Builder::new();
            if first == [0x16] {
                let Ok(stream) = tls.accept(stream).await else { return };
                let _ =
                    builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
            } else {
                let _ =
                    builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
            }
        });
    }
}

type Answer = Response<BoxBody<Bytes, std::io::Error>>;

async fn answer(mut request: Request<Incoming>, state: Arc<State>) -> Result<Answer, Infallible> {
    let whole = |text: String| {
        Response::new(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed())
    };
    Ok(match request.uri().path() {
        // What arrived here.
        "/mirror" => {
            let mut lines = format!("{} {}\n", request.method(), request.uri());
            for (name, value) in request.headers() {
                lines.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
            }
            let body = request.body_mut().collect().await.unwrap().to_bytes();
            whole(lines + "\n" + &String::from_utf8_lossy(&body))
        }
        // One piece, and another when the test says so.
        "/slow" => {
            let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, _>>(1);
            let go = Arc::clone(&state.go);
            state.tasks.lock().unwrap().spawn(async move {
                let piece =
                    |text: &'static str| Ok(Frame::data(Bytes::from_static(text.as_bytes())));
                let _ = sender.send(piece("one")).await;
                go.acquire().await.unwrap().forget();
                let _ = sender.send(piece("two")).await;
            });
            Response::new(Pieces { receiver }.boxed())
        }
        // Less than was promised.
        "/short" => {
            let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, _>>(2);
            let go = Arc::clone(&state.go);
            state.tasks.lock().unwrap().spawn(async move {
                let _ = sender.send(Ok(Frame::data(Bytes::from_static(b"one")))).await;
                go.acquire().await.unwrap().forget();
                let _ = sender.send(Err(std::io::Error::other("broken"))).await;
            });
            let body = Pieces { receiver }.boxed();
            Response::builder().header(header::CONTENT_LENGTH, 100).body(body).unwrap()
        }
        // Something else than HTTP, which is echoed.
        "/other-socket" => {
            let upgrade = hyper::upgrade::on(&mut request);
            let mut response = whole(String::new());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            for name in [header::UPGRADE, header::SEC_WEBSOCKET_KEY] {
                let value = request.headers()[&name].clone();
                response.headers_mut().insert(name, value);
            }
            response.headers_mut().insert(header::CONNECTION, "Upgrade".parse().unwrap());
            state.tasks.lock().unwrap().spawn(async move {
                let mut stream = TokioIo::new(upgrade.await.unwrap());
                let mut bytes = [0; 64];
                while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                    stream.write_all(&bytes[..count]).await.unwrap();
                }
            });
            response
        }
        _ => {
            let mut response = whole("nothing here".to_owned());
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    })
}

struct Pieces {
    receiver: mpsc::Receiver<Result<Frame<Bytes>, std::io::Error>>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.receiver.poll_recv(cx)
    }
}
