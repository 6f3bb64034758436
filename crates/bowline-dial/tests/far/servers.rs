//! Servers on loopback that misbehave when they are told to.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bowline_dial::Trust;
use bowline_proto::websocket::{
    DecodeConfig, Decoder, Incoming, OpCode, Role, close_frame, handshake::accept_key, server_frame,
};
use bytes::Bytes;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

/// No wait of these tests may take longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Waits, with a deadline, until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

/// What becomes of connections that there are; those that come later are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Serve,
    /// What comes is read, and nothing is answered: the network has forgotten the connection.
    Swallow,
    Reset,
    Finish,
}

/// A request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// On the how-manieth connection, from 1.
    pub(crate) connection: usize,
    /// `GET /path`.
    pub(crate) line: String,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

/// An HTTP server. Its answers say on which connection they were given. By path: `/stream` sends one piece, and another
/// one after [`HttpServer::go_on`]; `/cut` announces more than it sends; `/last` says that it will close; `/drop` closes
/// without an answer.
pub(crate) struct HttpServer {
    pub(crate) address: SocketAddr,
    pub(crate) trust: Option<Trust>,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

struct Shared {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    /// Up to which connection, and what.
    fate: watch::Sender<(usize, Fate)>,
    going_on: watch::Sender<bool>,
}

impl HttpServer {
    pub(crate) async fn plain() -> Self {
        Self::start(None).await
    }

    pub(crate) async fn tls() -> Self {
        Self::start(Some(certificate())).await
    }

    async fn start(tls: Option<(TlsAcceptor, Trust)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            fate: watch::Sender::new((0, Fate::Serve)),
            going_on: watch::Sender::new(false),
        });
        let (acceptor, trust) = tls.unzip();
        let mut task = JoinSet::new();
        task.spawn({
            let shared = Arc::clone(&shared);
            async move {
                let mut connections = JoinSet::new();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
                    let (shared, acceptor) = (Arc::clone(&shared), acceptor.clone());
                    connections.spawn(async move {
                        shared.open.fetch_add(1, Ordering::SeqCst);
                        let _ = serve(&shared, number, stream, acceptor).await;
                        shared.open.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            }
        });
        Self { address, trust, shared, _task: task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        let scheme = if self.trust.is_some() { "https" } else { "http" };
        format!("{scheme}://localhost:{}{path}", self.address.port())
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// What was asked for, and on which connection.
    pub(crate) fn lines(&self) -> Vec<(usize, String)> {
        self.seen().into_iter().map(|seen| (seen.connection, seen.line)).collect()
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    pub(crate) fn black_hole(&self) {
        self.condemn(Fate::Swallow);
    }

    pub(crate) fn reset(&self) {
        self.condemn(Fate::Reset);
    }

    pub(crate) fn finish(&self) {
        self.condemn(Fate::Finish);
    }

    pub(crate) fn go_on(&self) {
        self.shared.going_on.send_replace(true);
    }

    fn condemn(&self, fate: Fate) {
        self.shared.fate.send_replace((self.connections(), fate));
    }
}

async fn serve(
    shared: &Shared,
    number: usize,
    tcp: TcpStream,
    acceptor: Option<TlsAcceptor>,
) -> io::Result<()> {
    let mut fate = shared.fate.subscribe();
    let resets = tcp.set_zero_linger();
    let mut stream: Pin<Box<dyn Stream>> = match acceptor {
        Some(acceptor) => Box::pin(acceptor.accept(tcp).await?),
        None => Box::pin(tcp),
    };
    resets?;
    let mut input = Vec::new();
    loop {
        let mine = |(upto, fate): (usize, Fate)| if number <= upto { fate } else { Fate::Serve };
        let now = mine(*fate.borrow_and_update());
        match now {
            Fate::Serve | Fate::Swallow => {}
            Fate::Reset => return Ok(()),
            Fate::Finish => {
                stream.shutdown().await?;
                // The other end closes too, or says something that nobody hears.
                while stream.read_buf(&mut input).await? > 0 {}
                return Ok(());
            }
        }
        tokio::select! {
            changed = fate.changed() => changed.map_err(io::Error::other)?,
            read = stream.read_buf(&mut input) => {
                if read? == 0 {
                    return Ok(());
                }
            }
        }
        while let Some(seen) = request(number, &mut input) {
            let path = seen.line.split(' ').nth(1).unwrap_or_default().to_owned();
            shared.seen.lock().unwrap().push(seen);
            if mine(*fate.borrow()) == Fate::Serve {
                answer(shared, number, &path, &mut stream).await?;
            }
        }
    }
}

async fn answer(
    shared: &Shared,
    number: usize,
    path: &str,
    stream: &mut Pin<Box<dyn Stream>>,
) -> io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nkeep-alive: timeout=5\r\nx-kept: yes\r\n";
    match path {
        "/stream" => {
            let first = format!("{head}transfer-encoding: chunked\r\n\r\n3\r\none\r\n");
            stream.write_all(first.as_bytes()).await?;
            stream.flush().await?;
            let mut going_on = shared.going_on.subscribe();
            going_on.wait_for(|going_on| *going_on).await.map_err(io::Error::other)?;
            stream.write_all(b"3\r\ntwo\r\n0\r\n\r\n").await?;
        }
        "/cut" => {
            stream.write_all(format!("{head}content-length: 10\r\n\r\nhalf").as_bytes()).await?;
            stream.flush().await?;
            return Err(io::ErrorKind::Other.into());
        }
        "/drop" => return Err(io::ErrorKind::Other.into()),
        _ => {
            let close = if path == "/last" { "connection: close\r\n" } else { "" };
            let body = format!("answer on {number}");
            let whole = format!("{head}{close}content-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(whole.as_bytes()).await?;
        }
    }
    stream.flush().await
}

/// Takes a whole request from the front.
fn request(connection: usize, input: &mut Vec<u8>) -> Option<Seen> {
    let end = input.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8(input[..end].to_vec()).unwrap();
    let length = head.to_ascii_lowercase();
    let length = length.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(0, |length| length.parse::<usize>().unwrap());
    let body = input.get(end..end + length)?;
    let body = String::from_utf8(body.to_vec()).unwrap();
    input.drain(..end + length);
    let (line, rest) = head.split_once(" HTTP/1.1\r\n")?;
    Some(Seen { connection, line: line.to_owned(), head: rest.to_ascii_lowercase(), body })
}

/// A WebSocket server that does with each connection what it was made with.
pub(crate) struct SocketServer {
    pub(crate) address: SocketAddr,
    pub(crate) trust: Option<Trust>,
    _task: JoinSet<()>,
}

impl SocketServer {
    /// `talk` gets each connection after its handshake, which answers with these further headers.
    pub(crate) async fn start<F>(
        tls: bool,
        headers: &'static str,
        talk: impl Fn(Peer) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (acceptor, trust) = tls.then(certificate).unzip();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut talks = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let stream: Pin<Box<dyn Stream>> = match &acceptor {
                    Some(acceptor) => match acceptor.accept(stream).await {
                        Ok(stream) => Box::pin(stream),
                        Err(_) => continue,
                    },
                    None => Box::pin(stream),
                };
                if let Some(peer) = Peer::shake(stream, headers).await {
                    talks.spawn(talk(peer));
                }
            }
        });
        Self { address, trust, _task: task }
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.trust.is_some() { "wss" } else { "ws" };
        format!("{scheme}://localhost:{}/chat?x=1", self.address.port())
    }
}

/// The server's end of a WebSocket.
pub(crate) struct Peer {
    pub(crate) stream: Pin<Box<dyn Stream>>,
    /// Of the request, in lower case.
    pub(crate) head: String,
    decoder: Decoder,
    input: Vec<u8>,
}

impl Peer {
    async fn shake(mut stream: Pin<Box<dyn Stream>>, headers: &str) -> Option<Self> {
        let mut input = Vec::new();
        let end = loop {
            if let Some(at) = input.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut input).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8(input.drain(..end).collect()).unwrap();
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n{headers}\r\n",
            accept_key(key)
        );
        stream.write_all(answer.as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
        let head = head.to_ascii_lowercase();
        Some(Self { stream, head, decoder: Decoder::new(Role::Server), input })
    }

    pub(crate) async fn send(&mut self, opcode: OpCode, payload: &[u8]) {
        self.write(&server_frame(opcode, &[payload])).await;
    }

    pub(crate) async fn close(&mut self, code: u16, reason: &str) {
        self.write(&close_frame(Some(code), reason, None)).await;
    }

    pub(crate) async fn write(&mut self, bytes: &Bytes) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next thing that the client says; `None` when the connection ends.
    pub(crate) async fn hear(&mut self) -> Option<Incoming> {
        let config = DecodeConfig { max_message_bytes: 1 << 20, deflate: false };
        loop {
            let mut input = &mut self.input[..];
            let decoded = self.decoder.decode(&config, &mut input).unwrap();
            let left = input.len();
            self.input.drain(..self.input.len() - left);
            if decoded.is_some() {
                return decoded;
            }
            if self.stream.read_buf(&mut self.input).await.ok()? == 0 {
                return None;
            }
        }
    }
}

/// What bytes travel on.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

/// A server that believes in itself, and whoever trusts it.
fn certificate() -> (TlsAcceptor, Trust) {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = CertificateDer::from(key.cert.der().to_vec());
    let secret = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![certificate.clone()], secret)
    .unwrap();
    (TlsAcceptor::from(Arc::new(config)), Trust::SystemAnd(vec![certificate]))
}
