//! Proxies on the way: for the leg, for WebSockets, for sessions, for bare streams.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bowline_dial::{
    Config, ConnectError, Leg, LegFailureKind, LegOptions, LegRequest, Message, Options, Protocol,
    Proxy, Transports, Trust, connect,
    socket::{self, SocketEvent, SocketOptions},
    stream::{self, StreamOptions},
};
use bowline_proto::websocket::{Incoming, OpCode};
use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use crate::servers::{DEADLINE, HttpServer, SocketServer};

#[tokio::test]
async fn the_leg_goes_through_a_proxy_with_and_without_tls() {
    let proxy = TestProxy::start().await;
    for server in [HttpServer::plain().await, HttpServer::tls().await] {
        let trust = server.trust.clone().unwrap_or_default();
        let leg = leg(proxy.with("us%65r:p%40ss"), trust);
        for _ in 0..2 {
            let answer = leg.send(get(&server)).await.unwrap();
            assert_eq!(answer.body.collect(100).await.unwrap(), "answer on 1");
        }
        let seen = proxy.taken();
        assert_eq!(seen, [format!("CONNECT localhost:{} HTTP/1.1", server.address.port())]);
        // What the proxy is told is not for the server.
        assert!(!server.seen()[0].head.contains("proxy"));
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_and_its_password_is_not() {
    let (proxy, server) = (TestProxy::start().await, HttpServer::plain().await);
    for user in ["", "user:wrong"] {
        let failure = leg(proxy.with(user), Trust::System).send(get(&server)).await.unwrap_err();
        assert_eq!((failure.kind, failure.is_sent()), (LegFailureKind::NotReached, false));
        let expected = "was not reached: the proxy wants other credentials (407)";
        assert!(failure.words.ends_with(expected), "{failure}");
        assert!(!failure.words.contains("wrong"));
    }
    let gone = Proxy::parse("http://127.0.0.1:1").unwrap();
    let failure = leg(gone, Trust::System).send(get(&server)).await.unwrap_err();
    assert!(failure.words.contains("the proxy was not reached"), "{failure}");
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_websocket_goes_through_a_proxy() {
    let proxy = TestProxy::start().await;
    for tls in [false, true] {
        let server = SocketServer::start(tls, "", |mut peer| async move {
            peer.send(OpCode::Text, b"hello").await;
            peer.hear().await;
        })
        .await;
        let options = SocketOptions {
            proxy: Some(proxy.with("user:p@ss")),
            trust: server.trust.clone().unwrap_or_default(),
            ..SocketOptions::new(server.url())
        };
        let mut socket = timeout(DEADLINE, socket::open(options.clone())).await.unwrap().unwrap();
        let hello = SocketEvent::Message(Message::Text("hello".into()));
        assert_eq!(timeout(DEADLINE, socket.next()).await.unwrap(), Some(hello));
        assert_eq!(proxy.taken().len(), 1);

        let options = SocketOptions { proxy: Some(proxy.with("")), ..options };
        let refusal = socket::open(options).await.unwrap_err();
        // It is the proxy's status, not the server's.
        assert_eq!(refusal.status, None);
        assert!(refusal.words.contains("other credentials (407)"), "{}", refusal.words);
    }
}

#[tokio::test]
async fn a_session_goes_through_a_proxy() {
    let proxy = TestProxy::start().await;
    let server = SocketServer::start(false, "", |mut peer| async move {
        let open = br#"0{"sid":"s","upgrades":[],"pingInterval":25000,"pingTimeout":20000}"#;
        peer.send(OpCode::Text, open).await;
        let Some(Incoming::Message(message)) = peer.hear().await else { return };
        peer.send(OpCode::Text, message.as_bytes()).await;
        peer.hear().await;
    })
    .await;
    let config = Config {
        protocol: Protocol::EngineIo,
        transports: Transports::WebSocket,
        ..Config::default()
    };
    let options = Options { config, proxy: Some(proxy.with("user:p%40ss")), ..Options::default() };
    let connection = connect(&server.url(), options.clone()).await.unwrap();
    connection.handle().send(Message::Text("through".into())).await.unwrap();
    assert_eq!(proxy.taken().len(), 1);

    let options = Options { proxy: Some(proxy.with("")), ..options };
    let Err(ConnectError::Closed { detail, .. }) = connect(&server.url(), options).await else {
        panic!()
    };
    assert!(detail.contains("other credentials (407)"), "{detail}");
}

#[tokio::test]
async fn a_stream_is_opened_for_whoever_speaks_by_himself() {
    let (proxy, plain, tls) =
        (TestProxy::start().await, HttpServer::plain().await, HttpServer::tls().await);
    for (server, through) in [(&plain, false), (&tls, false), (&plain, true), (&tls, true)] {
        let options = StreamOptions {
            host: "localhost".to_owned(),
            port: server.address.port(),
            tls: server.trust.is_some(),
            proxy: through.then(|| proxy.with("user:p%40ss")),
            trust: server.trust.clone().unwrap_or_default(),
            connect_timeout: DEADLINE,
        };
        let mut stream = stream::open(options).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut start = [0; 15];
        stream.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200 OK");
    }
    let options = StreamOptions {
        host: "127.0.0.1".to_owned(),
        port: 1,
        tls: false,
        proxy: None,
        trust: Trust::System,
        connect_timeout: DEADLINE,
    };
    let words = stream::open(options).await.unwrap_err();
    assert!(words.starts_with("connecting to 127.0.0.1:1: "), "{words}");
}

fn leg(proxy: Proxy, trust: Trust) -> Leg {
    Leg::new(LegOptions { proxy: Some(proxy), trust, ..LegOptions::default() })
}

fn get(server: &HttpServer) -> LegRequest {
    LegRequest {
        method: Method::GET,
        url: server.url("/"),
        headers: HeaderMap::new(),
        body: Bytes::new(),
    }
}

/// A proxy that knows one user: `user`, with the password `p@ss`.
struct TestProxy {
    address: SocketAddr,
    /// The first lines of those that it let through.
    taken: Arc<Mutex<Vec<String>>>,
    _task: JoinSet<()>,
}

impl TestProxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let mut task = JoinSet::new();
        task.spawn({
            let taken = Arc::clone(&taken);
            async move {
                let mut tunnels = JoinSet::new();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tunnels.spawn(tunnel(stream, Arc::clone(&taken)));
                }
            }
        });
        Self { address, taken, _task: task }
    }

    fn with(&self, user: &str) -> Proxy {
        let at = if user.is_empty() { "" } else { "@" };
        Proxy::parse(&format!("http://{}{at}{}", user.replace("p@ss", "p%40ss"), self.address))
            .unwrap()
    }

    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut self.taken.lock().unwrap())
    }
}

async fn tunnel(mut stream: TcpStream, taken: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap_or_default() == 0 {
            return;
        }
    }
    let head = String::from_utf8(head).unwrap();
    // `user:p@ss`
    if !head.contains("\r\nProxy-Authorization: Basic dXNlcjpwQHNz\r\n") {
        let _ = stream.write_all(b"HTTP/1.1 407 No\r\nContent-Length: 3\r\n\r\nno\n").await;
        return;
    }
    let line = head.lines().next().unwrap().to_owned();
    let authority = line.split(' ').nth(1).unwrap().to_owned();
    taken.lock().unwrap().push(line);
    let mut server = TcpStream::connect(authority).await.unwrap();
    stream.write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n").await.unwrap();
    let _ = copy_bidirectional(&mut stream, &mut server).await;
}
