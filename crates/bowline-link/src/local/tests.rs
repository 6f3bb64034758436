//! The loopback side with real sockets: a bot, the proxy, and a service behind TLS that is found by way of a proxy of
//! its own.

mod attacks;
mod requests;
mod service;
mod sockets;

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc, time::Duration};

use bowline_dial::{Leg, LegOptions, Proxy, Trust};
use bowline_proto::{
    keeper,
    websocket::{
        DecodeConfig, Decoder, Incoming, Message as Frame, OpCode, Role, encode,
        handshake::ClientHandshake,
    },
};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Far, Local,
    connect::AnyStream,
    environment,
    rules::{Answer, Asked, ConfirmedBy, Did, Noted, Rules, Socket},
};
use crate::{
    bot::{Said, SharedDeliver},
    far::{Message, Outgoing},
    settings::{Deliver, Http, Link, Profile, Shared},
};
use service::Service;

/// What a link is told in these tests.
pub(super) fn settings(directory: &Path) -> (Shared, Link) {
    let shared = Shared {
        listen: ([127, 0, 0, 1], 8002).into(),
        attempts_per_second: 5,
        attempts_burst: 5,
        directory: directory.join("links"),
        leases: directory.join("leases"),
        waiting_max: 1000,
    };
    let link = Link {
        name: "bot".to_owned(),
        profile: Profile::WebSocket {
            url: "wss://service.test/socket".to_owned(),
            headers: BTreeMap::default(),
            hello: None,
            message_id: None,
            room: None,
            probe: None,
            ack: None,
            protocols: Vec::new(),
        },
        token: None,
        proxy: None,
        ca_file: None,
        keeper: keeper::Config::default(),
        http: Http::default(),
        deliver: Deliver::Proxy { intercept: vec!["*.more.test".to_owned()] },
        service: None,
        confirm_timeout: Duration::from_secs(60),
        offers_max: 10,
    };
    (shared, link)
}

/// All of it, for one link.
struct Rig {
    local: Local,
    link: Link,
    deliver: SharedDeliver,
    said: mpsc::Receiver<Said>,
    service: Service,
    /// As the bot has them.
    variables: BTreeMap<String, String>,
    port: u16,
    tasks: JoinSet<()>,
    directory: TempDir,
}

impl Rig {
    async fn start(confirmed_by: ConfirmedBy) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (mut shared, link) = settings(directory.path());
        let service = Service::start().await;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        shared.listen = listener.local_addr().unwrap();

        let local = Local::new(&shared).unwrap();
        let (mouth, said) = mpsc::channel(16);
        let rules = Arc::new(TestRules { confirmed_by });
        let deliver = local.register(&link, rules, far(&service), mouth).unwrap();
        let mut tasks = JoinSet::new();
        local.serve(listener, &mut tasks).unwrap();
        let variables = environment(&shared, &link).unwrap().into_iter().collect();
        let port = shared.listen.port();
        Self { local, link, deliver, said, service, variables, port, tasks, directory }
    }

    /// What the bot shows to the proxy.
    fn credentials(&self) -> String {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let proxy = self.variables["HTTPS_PROXY"].strip_prefix("http://").unwrap();
        let (user, _) = proxy.rsplit_once('@').unwrap();
        format!("Basic {}", STANDARD.encode(user))
    }

    fn secret(&self) -> String {
        let proxy = self.variables["HTTPS_PROXY"].strip_prefix("http://").unwrap();
        let (user, _) = proxy.rsplit_once('@').unwrap();
        user.split_once(':').unwrap().1.to_owned()
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    /// A tunnel, as a bot asks for one; the status if there is none.
    async fn tunnel(&self, to: &str) -> Result<TcpStream, StatusCode> {
        let mut stream = self.connect().await;
        let credentials = self.credentials();
        let request = format!(
            "CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nProxy-Authorization: {credentials}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = read_head(&mut stream).await;
        let status = head.get(9..12).and_then(|status| status.parse().ok()).unwrap();
        match StatusCode::from_u16(status).unwrap() {
            StatusCode::OK => Ok(stream),
            status => Err(status),
        }
    }

    /// The certificates that the bot was told to believe, and nothing else.
    fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        let bundle = CertificateDer::pem_file_iter(&self.variables["SSL_CERT_FILE"]).unwrap();
        roots.add_parsable_certificates(bundle.map(Result::unwrap));
        connector(roots)
    }

    /// TLS to the service, as the bot believes.
    async fn secure(&self, to: &str, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = self.tunnel(to).await.unwrap();
        self.connector().connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await
    }

    /// HTTP inside of TLS to the service.
    async fn client(&mut self) -> Client {
        let stream = self.secure("service.test:443", "service.test").await.unwrap();
        self.speak(Box::new(stream)).await
    }

    async fn speak(&mut self, stream: AnyStream) -> Client {
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        self.tasks.spawn(async move { drop(connection.await) });
        Client { sender }
    }

    /// A WebSocket of the bot, by way of the proxy.
    async fn socket(&self) -> BotSocket {
        let stream = self.secure("service.test:443", "service.test").await.unwrap();
        BotSocket::open(Box::new(stream), "service.test", "/socket").await.unwrap()
    }
}

fn far(service: &Service) -> Far {
    let trust = Trust::SystemAnd(vec![service.root.clone()]);
    let proxy = Some(Proxy::parse(&format!("http://127.0.0.1:{}", service.proxy_port)).unwrap());
    let options =
        LegOptions { proxy: proxy.clone(), trust: trust.clone(), ..LegOptions::default() };
    Far { leg: Leg::new(options), trust, proxy }
}

fn connector(roots: RootCertStore) -> TlsConnector {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

async fn read_head(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// A bot's connection that speaks HTTP.
struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: &str,
    ) -> (StatusCode, HeaderMap, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "service.test")
            .header("accept-encoding", "gzip")
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        self.send(request).await
    }

    async fn get(&mut self, path: &str) -> (StatusCode, HeaderMap, String) {
        self.ask(Method::GET, path, "").await
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> (StatusCode, HeaderMap, String) {
        self.sender.ready().await.unwrap();
        let (head, body) = self.sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
    }
}

/// The code in an error of Bowline's own.
fn code(body: &str) -> String {
    let body = serde_json::from_str::<serde_json::Value>(body).unwrap();
    assert!(body["error"]["remedy"].is_string() && body["error"]["blame"].is_string(), "{body}");
    body["error"]["code"].as_str().unwrap().to_owned()
}

/// A bot's WebSocket.
struct BotSocket {
    stream: AnyStream,
    decoder: Decoder,
    waiting: std::collections::VecDeque<Incoming>,
}

impl BotSocket {
    async fn open(mut stream: AnyStream, host: &str, path: &str) -> Result<Self, String> {
        let offered = [("Sec-WebSocket-Extensions".to_owned(), "permessage-deflate".to_owned())];
        let handshake = ClientHandshake::new(host, path, [7; 16], &offered, false).unwrap();
        stream.write_all(handshake.request()).await.unwrap();
        stream.flush().await.unwrap();
        let head = read_head(&mut stream).await;
        match handshake.check_response(head.as_bytes()) {
            Ok(Some(_)) => {}
            Ok(None) => return Err("no answer".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
        assert!(!head.to_ascii_lowercase().contains("extensions"), "{head}");
        let decoder = Decoder::new(Role::Client);
        Ok(Self { stream, decoder, waiting: Default::default() })
    }

    async fn next(&mut self) -> Option<Incoming> {
        const CONFIG: DecodeConfig = DecodeConfig { max_message_bytes: 1 << 20, deflate: false };
        while self.waiting.is_empty() {
            let mut input = vec![0; 4096];
            let count = match self.stream.read(&mut input).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => count,
            };
            let mut rest = &mut input[..count];
            while let Some(incoming) = self.decoder.decode(&CONFIG, &mut rest).unwrap() {
                self.waiting.push_back(incoming);
            }
        }
        self.waiting.pop_front()
    }

    /// The next message; pings on the way are not answered.
    async fn text(&mut self) -> String {
        loop {
            match self.next().await.expect("a message") {
                Incoming::Message(Frame::Text(text)) => return text.to_string(),
                Incoming::Ping(_) | Incoming::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The code that the socket is closed with.
    async fn closed(&mut self) -> Option<u16> {
        loop {
            if let Incoming::Close(close) = self.next().await? {
                return close.code;
            }
        }
    }

    async fn frame(&mut self, opcode: OpCode, payload: &[u8]) {
        let mut bytes = Vec::new();
        encode(&mut bytes, opcode, false, Some([1, 2, 3, 4]), &[payload]);
        self.stream.write_all(&bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    async fn say(&mut self, text: &str) {
        self.frame(OpCode::Text, text.as_bytes()).await;
    }
}

/// A small language: `hello` authorises, `got ID` confirms, `bye` asks for the end, everything else is for the service.
#[derive(Debug)]
struct TestRules {
    confirmed_by: ConfirmedBy,
}

impl Rules for TestRules {
    fn hosts(&self) -> Vec<String> {
        vec!["Service.test".to_owned()]
    }

    fn is_socket(&self, host: &str, target: &str) -> bool {
        host == "service.test" && target.starts_with("/socket")
    }

    fn answer(&self, request: &Asked<'_>, socket_url: &str) -> Option<Answer> {
        (request.target == "/where").then(|| Answer {
            status: StatusCode::OK,
            body: Bytes::from(format!("{{\"url\":\"{socket_url}\"}}")),
        })
    }

    fn observe(&self, request: &Asked<'_>, status: StatusCode, body: &Bytes) -> Vec<Noted> {
        if request.method != Method::POST || !status.is_success() {
            return Vec::new();
        }
        let id = format!("{}:{}", request.target, String::from_utf8_lossy(body));
        vec![Noted::Replied { id: Some(id), room: None }]
    }

    fn socket(&self) -> Box<dyn Socket> {
        Box::new(TestSocket { confirmed_by: self.confirmed_by, is_ready: false })
    }
}

#[derive(Debug)]
struct TestSocket {
    confirmed_by: ConfirmedBy,
    is_ready: bool,
}

impl Socket for TestSocket {
    fn opened(&mut self) -> Vec<Frame> {
        vec![Frame::Text("opened".into())]
    }

    fn heard(&mut self, frame: &Frame) -> Vec<Did> {
        let text = String::from_utf8_lossy(frame.as_bytes()).into_owned();
        if text == "hello" {
            self.is_ready = true;
            return vec![Did::Reply(Frame::Text("welcome".into()))];
        }
        if text == "bye" {
            return vec![Did::Close { code: 4001, words: "as you wish" }];
        }
        if let Some(id) = text.strip_prefix("got ") {
            return vec![Did::Confirmed { id: id.to_owned() }];
        }
        let body = Bytes::from(text);
        vec![Did::Say(Outgoing { body, text: true, ask: None, reply_to: None })]
    }

    fn offer(&mut self, message: &Message, attempt: u32) -> Option<Frame> {
        let body = String::from_utf8_lossy(&message.body);
        (body != "unsayable")
            .then(|| Frame::Text(format!("{attempt} {} {body}", message.id).into()))
    }

    fn pass(&mut self, body: &Bytes) -> Option<Frame> {
        Some(Frame::Binary(body.clone()))
    }

    fn confirmed_by(&self) -> ConfirmedBy {
        self.confirmed_by
    }

    fn is_ready(&self) -> bool {
        self.is_ready
    }
}

/// Waits for something that must come, not so long that a failure is taken for patience.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), what).await.expect("it comes")
}

impl fmt::Debug for Rig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rig").finish_non_exhaustive()
    }
}
