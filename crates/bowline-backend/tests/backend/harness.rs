//! A server, an app behind it, and clients before it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bowline_backend::{Backend, Options, Stats, Url};
use bowline_dial::{Args, Config, ConnectError, Connection, Event, JoinError, Transports};
use bowline_net::{Builder, ComponentState, Server};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{oneshot, watch},
    task::JoinSet,
    time::timeout,
};

/// How long anything may take that must happen.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) fn args(value: &Value) -> Args {
    Args::new(value.to_string()).unwrap()
}

pub(crate) async fn ack(client: &Connection, value: &Value) -> Value {
    client.emit_with_ack(args(value), SOON).await.unwrap().parse().unwrap()
}

pub(crate) fn client() -> bowline_dial::Options {
    let config = Config { transports: Transports::WebSocket, ..Config::default() };
    bowline_dial::Options { config, ..bowline_dial::Options::default() }
}

pub(crate) async fn hear_until_end(client: &mut Connection) -> Vec<String> {
    let mut heard = Vec::new();
    loop {
        let event = timeout(SOON, client.next_event()).await.unwrap().unwrap();
        if let Event::Event { args, .. } = event {
            heard.push(args.name().unwrap().into_owned());
            if heard.last().is_some_and(|name| name == "end") {
                return heard;
            }
        }
    }
}

/// Waits for something that nobody announces.
pub(crate) async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(SOON, looking).await.expect("it did not happen in time")
}

/// A port that is this test's, where nobody listens yet.
pub(crate) fn reserve() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A server with one app behind it.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) handle: bowline_net::Handle,
    pub(crate) backend: Backend,
    stop: Option<oneshot::Sender<()>>,
    /// Closed when it has stopped.
    ended: oneshot::Receiver<()>,
}

impl Running {
    pub(crate) fn start(app: &App, change: impl FnOnce(&mut Options)) -> Self {
        Self::at(app.address, change)
    }

    pub(crate) fn at(app: SocketAddr, change: impl FnOnce(&mut Options)) -> Self {
        Self::built(app, change, |builder, backend| {
            builder.namespace("/", backend.clone()).namespace("/chat", backend)
        })
    }

    /// One whose builder is told more than where to listen.
    pub(crate) fn built(
        app: SocketAddr,
        change: impl FnOnce(&mut Options),
        describe: impl FnOnce(Builder, Backend) -> Builder,
    ) -> Self {
        let url = Url::parse(&format!("http://{app}/bowline?key=1")).unwrap();
        let mut options = Options::new("app", url);
        options.timeout = SOON;
        change(&mut options);
        let backend = Backend::new(options, &tokio::runtime::Handle::current());
        let builder = Server::builder().listen("127.0.0.1:0".parse().unwrap()).shards(2);
        let server = describe(builder, backend.clone()).bind().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (ending, ended) = oneshot::channel::<()>();
        let (address, handle) = (server.local_addrs()[0], server.handle());
        std::thread::spawn(move || {
            let stopped = async move {
                let _ = stopped.await;
            };
            server.run_blocking(stopped).unwrap();
            drop(ending);
        });
        Self { address, handle, backend, stop: Some(stop), ended }
    }

    /// Stops it, and waits for that.
    pub(crate) async fn stop(mut self) {
        self.stop.take();
        let ended = &mut self.ended;
        assert!(timeout(SOON, ended).await.unwrap().is_err(), "nothing is sent");
        self.settled().await;
    }

    /// Begins to stop it.
    pub(crate) fn begin_to_stop(&mut self) {
        self.stop.take();
    }

    pub(crate) fn url(&self, rest: &str) -> String {
        format!("ws://{}{rest}", self.address)
    }

    pub(crate) async fn connect(&self, namespace: &str) -> Result<Connection, ConnectError> {
        bowline_dial::connect(&self.url(namespace), client()).await
    }

    /// What a client is told that is not let in.
    pub(crate) async fn refusal(&self, namespace: &str) -> Value {
        match self.connect(namespace).await.unwrap_err() {
            ConnectError::NotJoined(JoinError::Refused(data)) => {
                serde_json::from_str(&data).unwrap()
            }
            other => panic!("{other}"),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        self.backend.stats()
    }

    pub(crate) async fn counted(&self, wanted: impl Fn(&Stats) -> bool) -> Stats {
        let look = || Some(self.stats()).filter(|stats| wanted(stats));
        until(look).await
    }

    pub(crate) async fn settled(&self) {
        timeout(SOON, self.backend.settled()).await.unwrap();
    }

    pub(crate) async fn component(&self, wanted: ComponentState) {
        until(|| {
            let all = self.handle.components();
            let found = all.iter().find(|component| component.name == "backend:app")?;
            (found.state == wanted).then_some(())
        })
        .await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its thread ends by itself.
        self.stop.take();
    }
}

/// What an app was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) number: usize,
    pub(crate) head: String,
    pub(crate) raw_body: String,
    pub(crate) body: Value,
}

impl Asked {
    pub(crate) fn kind(&self) -> &str {
        self.body["type"].as_str().unwrap_or_default()
    }

    pub(crate) fn header(&self, wanted: &str) -> Option<String> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
        Some(found.1.to_owned())
    }
}

pub(crate) type Seen = Vec<Asked>;

/// What an app answers, byte by byte.
pub(crate) struct Reply {
    bytes: Vec<u8>,
    then_bytes: usize,
    then_close: bool,
    when: Box<dyn Fn(&Seen) -> bool + Send + Sync>,
}

impl Reply {
    pub(crate) fn wait_for(
        reply: Self,
        when: impl Fn(&Seen) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { when: Box::new(when), ..reply }
    }

    pub(crate) fn never() -> Self {
        Self::wait_for(Self::from(""), |_| false)
    }

    pub(crate) fn then_close(mut self) -> Self {
        self.then_close = true;
        self
    }

    pub(crate) fn then_bytes(mut self, count: usize) -> Self {
        self.then_bytes = count;
        self
    }
}

impl<T: Into<String>> From<T> for Reply {
    fn from(text: T) -> Self {
        let bytes = text.into().into_bytes();
        Self { bytes, then_bytes: 0, then_close: false, when: Box::new(|_| true) }
    }
}

pub(crate) trait IntoReply {
    fn into_reply(self) -> Reply;
}

impl<T: Into<String>> IntoReply for T {
    fn into_reply(self) -> Reply {
        Reply::from(self)
    }
}

pub(crate) fn text(value: &Value) -> String {
    let body = value.to_string();
    let len = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len}\r\n\r\n{body}"
    )
}

pub(crate) fn answer(value: &Value) -> Reply {
    text(value).into()
}

/// An app that speaks just enough HTTP. Dropped, it closes all connections.
pub(crate) struct App {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
    task: JoinSet<()>,
}

struct Inner {
    reply: Box<dyn Fn(&Asked) -> Reply + Send + Sync>,
    seen: watch::Sender<Seen>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    connections: usize,
    at_once: usize,
    most_at_once: usize,
}

impl App {
    pub(crate) async fn start(reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), reply)
    }

    pub(crate) fn on(
        listener: TcpListener,
        reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner {
            reply: Box::new(reply),
            seen: watch::Sender::new(Vec::new()),
            counts: Mutex::default(),
        });
        let mut task = JoinSet::new();
        let shared = Arc::clone(&inner);
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                shared.counts.lock().unwrap().connections += 1;
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { address, inner, task }
    }

    pub(crate) fn url(&self) -> Url {
        Url::parse(&format!("http://{}/", self.address)).unwrap()
    }

    pub(crate) async fn stop(mut self) {
        self.task.shutdown().await;
    }

    pub(crate) fn seen(&self) -> Seen {
        self.inner.seen.borrow().clone()
    }

    pub(crate) async fn wait_for(&self, count: usize) -> Seen {
        self.wait_until(move |seen| seen.len() >= count).await
    }

    pub(crate) async fn wait_until(&self, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let mut seen = self.inner.seen.subscribe();
        let found = timeout(SOON, seen.wait_for(|seen| wanted(seen))).await;
        found.expect("the app was not asked in time").unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.inner.counts.lock().unwrap().connections
    }

    pub(crate) fn most_at_once(&self) -> usize {
        self.inner.counts.lock().unwrap().most_at_once
    }

    /// Has the app see something that is not from the server.
    pub(crate) async fn poke(&self, request: &str) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let wanted = request.lines().next().unwrap().to_owned();
        self.wait_until(move |seen| seen.iter().any(|asked| asked.head.starts_with(&wanted))).await;
    }
}

async fn serve(mut stream: TcpStream, app: Arc<Inner>) {
    let mut read = Vec::new();
    while let Some((head, raw_body)) = next_request(&mut stream, &mut read).await {
        {
            let mut counts = app.counts.lock().unwrap();
            counts.at_once += 1;
            counts.most_at_once = counts.most_at_once.max(counts.at_once);
        }
        let body = serde_json::from_str(&raw_body).unwrap_or_default();
        let mut asked = Asked { number: 0, head, raw_body, body };
        app.seen.send_modify(|seen| {
            asked.number = seen.len();
            seen.push(asked.clone());
        });
        let reply = (app.reply)(&asked);
        let mut seen = app.seen.subscribe();
        seen.wait_for(|seen| (reply.when)(seen)).await.unwrap();
        app.counts.lock().unwrap().at_once -= 1;
        if stream.write_all(&reply.bytes).await.is_err() {
            return;
        }
        let mut left = reply.then_bytes;
        let piece = vec![b' '; 64 * 1024];
        while left > 0 {
            let now = left.min(piece.len());
            if stream.write_all(&piece[..now]).await.is_err() {
                return;
            }
            left -= now;
        }
        if reply.then_close {
            return;
        }
    }
}

/// The next request of a connection: head and body.
async fn next_request(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<(String, String)> {
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(read[..end + 4].to_vec()).unwrap();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length").then(|| value.parse().unwrap())
            });
            let whole = end + 4 + length.unwrap_or(0usize);
            if read.len() >= whole {
                let body = String::from_utf8(read[end + 4..whole].to_vec()).unwrap();
                read.drain(..whole);
                return Some((head, body));
            }
        }
        if stream.read_buf(read).await.ok()? == 0 {
            return None;
        }
    }
}
