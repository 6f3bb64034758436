//! Socket.IO, against Bowline's own server.

use std::net::SocketAddr;

use bowline_net::{
    Ack, Broadcast, ConnectRequest, Context, DisconnectReason, Handle, Handler, Keeping, Server,
    SocketRef, Stamp, socketio::Args,
};
use bowline_proto::keeper::{Level, Verdict};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::{super::SocketIo, *};

#[tokio::test]
async fn events_have_ids_and_rooms_and_binary_in_them() {
    let mut service = Service::start(|server| server).await;
    let profile = SocketIo::new(&link(socketio(&service.url())), way()).unwrap();
    let mut far = Far::open(&profile, FIRST).await;
    service.connected().await;
    service.broadcast(json!(["message", { "id": "m1", "room": "a", "text": "hi" }]));
    let message = far.message().await;
    assert_eq!((&*message.id, message.own_id, &*message.room), ("m1", true, "a"));
    assert_eq!((message.receipt, message.confirm), (None, true));
    let body: Value = serde_json::from_slice(&message.body).unwrap();
    assert_eq!(body[1]["text"], "hi");

    let bytes = Args::with_attachments(
        r#"["file",{"id":"m2"},{"_placeholder":true,"num":0}]"#,
        vec![Bytes::from_static(&[0, 255])],
    );
    service.handle.broadcast(Broadcast::new("/", bytes.unwrap())).unwrap();
    let body: Value = serde_json::from_slice(&far.message().await.body).unwrap();
    assert_eq!((&body[0], &body[2]), (&json!("file"), &json!({ "$binary": "AP8=" })));

    // And back.
    far.say(r#"["up",{"$binary":"AP8="},18446744073709551615]"#).await;
    let args = service.said().await;
    assert_eq!(args.attachments(), [Bytes::from_static(&[0, 255])]);
    far.say(r#"["up",123456789012345678901234567890]"#).await;
    assert_eq!(service.said().await.json(), r#"["up",123456789012345678901234567890]"#);
}

#[tokio::test]
async fn the_same_event_is_the_same_on_two_connections() {
    for (eio, recovery) in [(4, true), (4, false), (3, true)] {
        // On several shards, so that the offsets of the two differ.
        let mut service = Service::start(|server| server.shards(4).allow_eio3(true)).await;
        let settings = with(socketio(&service.url()), |it| (it.eio, it.recovery) = (eio, recovery));
        let profile = SocketIo::new(&link(settings), way()).unwrap();
        let mut far = Far::open(&profile, FIRST).await;
        service.connected().await;
        let mut connections = Vec::new();
        for _ in 0..3 {
            connections.push(Far::open(&profile, BESIDE).await);
            service.connected().await;
        }
        for text in ["one", "two", "one"] {
            service.broadcast(json!(["message", text]));
        }
        let ids = [far.message().await, far.message().await, far.message().await].map(|it| it.id);
        assert!(ids[0] == ids[2] && ids[0] != ids[1], "{ids:?}");
        for far in &mut connections {
            for id in &ids {
                let message = far.message().await;
                assert_eq!((&message.id, message.own_id), (id, false), "{eio} {recovery}");
            }
        }
    }
}

#[tokio::test]
async fn an_event_that_asks_for_an_ack_gets_the_bots() {
    let mut service = Service::start(|server| server).await;
    let profile = SocketIo::new(&link(socketio(&service.url())), way()).unwrap();
    let mut far = Far::open(&profile, FIRST).await;
    let socket = service.connected().await;

    service.ask(socket, json!(["question", { "id": "q1" }]));
    let message = far.message().await;
    assert_eq!(message.receipt.as_deref(), Some("ack"));
    far.tell(Command::Acknowledge { receipt: "ack".to_owned() }).await;
    let answer = Outgoing { reply_to: Some("q1".to_owned()), ..outgoing(r#"["yes",{"n":1}]"#) };
    far.tell(Command::Send(answer.clone())).await;
    assert_eq!(service.acked().await, r#"["yes",{"n":1}]"#);
    // It is acked once. What else answers it is an event.
    far.tell(Command::Confirmed { id: "q1".to_owned() }).await;
    assert_eq!(far.next().await, Event::Written { id: "q1".to_owned() });
    far.tell(Command::Send(answer)).await;
    assert_eq!(service.said().await.json(), r#"["yes",{"n":1}]"#);

    // A bot that only confirms acks with nothing; another value than an array is the one argument.
    service.ask(socket, json!(["question", "without an id"]));
    let Message { id, own_id, .. } = far.message().await;
    assert!(!own_id);
    far.tell(Command::Confirmed { id: format!("{id}-2") }).await;
    assert_eq!(far.next().await, Event::Written { id: format!("{id}-2") });
    assert_eq!(service.acked().await, "[]");
    service.ask(socket, json!(["question", { "id": "q3" }]));
    far.message().await;
    let answer = Outgoing { reply_to: Some("q3".to_owned()), ..outgoing(r#"{"$binary":"AA=="}"#) };
    far.tell(Command::Send(answer)).await;
    assert_eq!(service.acked().await, r#"[{"_placeholder":true,"num":0}]"#);
}

#[tokio::test]
async fn what_the_bot_asks_is_answered() {
    let mut service = Service::start(|server| server).await;
    let profile = SocketIo::new(&link(socketio(&service.url())), way()).unwrap();
    let mut far = Far::open(&profile, FIRST).await;
    service.connected().await;
    let asked = Outgoing { ask: Some(5), ..outgoing(r#"["sum",1,2]"#) };
    far.tell(Command::Send(asked)).await;
    let answer = Ok(Bytes::from_static(br#"["sum",1,2]"#));
    assert_eq!(far.next().await, Event::Answered { ask: 5, answer });
    for wrong in ["{}", "[1]", "no JSON"] {
        let asked = Outgoing { ask: Some(6), ..outgoing(wrong) };
        far.tell(Command::Send(asked)).await;
        let Event::Answered { ask: 6, answer: Err(_) } = far.next().await else {
            panic!("{wrong}")
        };
    }
}

#[tokio::test]
async fn probes_come_back_by_ack_or_by_echo() {
    let mut service = Service::start(|server| server).await;
    let profile = SocketIo::new(&link(socketio(&service.url())), way()).unwrap();
    let mut far = Far::open(&profile, FIRST).await;
    service.connected().await;
    far.tell(Command::Probe { nonce: nonce(1) }).await;
    assert_eq!(far.next().await, Event::Probed { nonce: nonce(1) });
    service.broadcast(json!(["echo", { "of": nonce(2) }]));
    assert_eq!(far.next().await, Event::Probed { nonce: nonce(2) });
}

#[tokio::test]
async fn both_pings_and_heartbeats_prove_a_connection() {
    let often = |server: bowline_net::Builder| server.ping_interval(Duration::from_millis(50));
    let mut service = Service::start(often).await;
    let profile = SocketIo::new(&link(socketio(&service.url())), way()).unwrap();
    let mut far = Far::open(&profile, FIRST).await;
    service.connected().await;
    // The server's own.
    far.until_pong().await;
    far.until_pong().await;

    let mut service = Service::start(|server| server).await;
    let profile = SocketIo::new(&link(socketio(&service.url())), way()).unwrap();
    let mut far = Far::open(&profile, FIRST).await;
    service.connected().await;
    far.tell(Command::Ping).await;
    assert_eq!(far.any().await, Some(Event::Heard(Level::Pong)));
}

#[tokio::test]
async fn polling_has_to_do_where_there_is_no_websocket() {
    let mut service = Service::start(|server| server.websocket(false)).await;
    let profile = SocketIo::new(&link(socketio(&service.url())), way()).unwrap();
    let mut far = Far::open(&profile, FIRST).await;
    service.connected().await;
    far.tell(Command::Ping).await;
    far.until_pong().await;
    service.broadcast(json!(["message", { "id": "m1" }]));
    assert_eq!(far.message().await.id, "m1");
    far.say(r#"["up"]"#).await;
    assert_eq!(service.said().await.json(), r#"["up"]"#);
}

#[tokio::test]
async fn a_lost_session_is_gone_on_with_and_one_beside_another_is_new() {
    let mut service = Service::start(|server| server).await;
    let cable = Cable::to(service.address).await;
    let url = format!("http://{}", cable.address);
    let profile = SocketIo::new(&link(socketio(&url)), way()).unwrap();
    let mut far = Far::open(&profile, FIRST).await;
    service.connected().await;
    service.broadcast(json!(["message", { "id": "m1" }]));
    assert_eq!(far.message().await.id, "m1");

    // Make before break, and the old one leaves: nothing of it is remembered.
    let mut new = Far::open(&profile, BESIDE).await;
    let second = service.connected().await;
    far.tell(Command::Close { within: DEADLINE }).await;
    while far.any().await.is_some() {}
    service.left().await;
    service.broadcast(json!(["message", { "id": "m2" }]));
    assert_eq!(new.message().await.id, "m2");

    // The network goes; what is said meanwhile comes with the next connection, in order, once.
    for round in 0..3 {
        cable.cut();
        let Event::Closed { verdict: Verdict::Again, .. } = new.next().await else { panic!() };
        drop(new);
        service.away().await;
        for number in 0..5 {
            service.broadcast(json!(["message", { "id": format!("{round}.{number}") }]));
        }
        new = Far::open(&profile, FIRST).await;
        assert_eq!(service.back().await, second, "it is the same to the service");
        for number in 0..5 {
            assert_eq!(new.message().await.id, format!("{round}.{number}"));
        }
    }
    // Acks of the session before are not taken for those of this one.
    let asked = Outgoing { ask: Some(5), ..outgoing(r#"["sum",1]"#) };
    new.tell(Command::Send(asked)).await;
    let answer = Ok(Bytes::from_static(br#"["sum",1]"#));
    assert_eq!(new.next().await, Event::Answered { ask: 5, answer });

    // Without recovery it is a new one each time.
    let plain =
        SocketIo::new(&link(with(socketio(&url), |it| it.recovery = false)), way()).unwrap();
    let far = Far::open(&plain, FIRST).await;
    let first = service.connected().await;
    cable.cut();
    drop((far, new));
    let _far = Far::open(&plain, FIRST).await;
    assert_ne!(service.connected().await, first);
}

#[tokio::test]
async fn a_connection_that_is_dropped_is_remembered_too() {
    let mut service = Service::start(|server| server).await;
    let profile = SocketIo::new(&link(socketio(&service.url())), way()).unwrap();
    let far = Far::open(&profile, FIRST).await;
    let socket = service.connected().await;
    drop(far);
    service.away().await;
    service.broadcast(json!(["message", { "id": "m1" }]));
    let mut far = Far::open(&profile, FIRST).await;
    assert_eq!(service.back().await, socket);
    assert_eq!(far.message().await.id, "m1");
}

#[tokio::test]
async fn the_token_is_told_in_the_auth_and_a_refusal_is_one_of_it() {
    let mut service = Service::start(|server| server.allow_eio3(true)).await;
    let auth = |auth: &str| {
        let auth = auth.to_owned();
        with(socketio(&service.url()), |it| it.auth = Some(Secret::new(auth)))
    };
    let right = SocketIo::new(&link(auth(r#"{"user":"bot","key":"{token}"}"#)), way()).unwrap();
    let wrong = SocketIo::new(&link(auth(r#"{"key":"wrong"}"#)), way()).unwrap();
    let old = with(auth(r#"{"key":"{token}"}"#), |it| it.eio = 3);
    let old = SocketIo::new(&link(old), way()).unwrap();
    let nowhere = format!("{}/nowhere", service.url());
    let nowhere = SocketIo::new(&link(socketio(&nowhere)), way()).unwrap();

    let _far = Far::open(&right, FIRST).await;
    let (auth, _) = service.told().await;
    assert_eq!(
        serde_json::from_str::<Value>(&auth).unwrap(),
        json!({ "user": "bot", "key": "t\"0ken" })
    );
    let failure = wrong.open(FIRST).await.unwrap_err();
    assert_eq!(failure.verdict, Verdict::Unauthorized);
    assert!(failure.words.contains("not you"), "{}", failure.words);
    let failure = nowhere.open(FIRST).await.unwrap_err();
    assert_eq!(failure.verdict, Verdict::Unauthorized);
    // Its root namespace is told nothing: it stands in the query.
    let _old = Far::open(&old, FIRST).await;
    let (auth, query) = service.told().await;
    assert_eq!((auth.as_str(), query.contains("key=t%220ken")), ("", true), "{query}");
}

#[tokio::test]
async fn ends_say_what_is_to_be_done() {
    let mut service = Service::start(|server| server).await;
    let profile = SocketIo::new(&link(socketio(&service.url())), way()).unwrap();
    let mut far = Far::open(&profile, FIRST).await;
    let socket = service.connected().await;
    // Taken out at once: it does not want us.
    service.handle.disconnect(socket).unwrap();
    let Event::Closed { verdict: Verdict::Refused, .. } = far.next().await else { panic!() };
    assert_eq!(far.any().await, None);

    let mut far = Far::open(&profile, FIRST).await;
    let socket = service.connected().await;
    service.handle.close_socket(socket).unwrap();
    let Event::Closed { verdict, .. } = far.next().await else { panic!() };
    assert!(matches!(verdict, Verdict::Again | Verdict::Refused));

    drop(service);
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let profile = SocketIo::new(&link(socketio(&url)), way()).unwrap();
    assert_eq!(profile.open(FIRST).await.unwrap_err().verdict, Verdict::Again);
    assert_eq!(profile.host(), url.trim_start_matches("http://"));
    let wrong = SocketIo::new(&link(with(socketio(&url), |it| it.eio = 5)), way());
    assert_eq!(wrong.unwrap_err().to_string(), "there is no Engine.IO 5");
}

/// The settings, changed.
fn with(settings: Settings, change: impl FnOnce(&mut Changed)) -> Settings {
    let Settings::SocketIo { url, eio, path, auth, message_id, room, probe, recovery } = settings
    else {
        panic!()
    };
    let mut changed = Changed { eio, auth, recovery };
    change(&mut changed);
    let Changed { eio, auth, recovery } = changed;
    Settings::SocketIo { url, eio, path, auth, message_id, room, probe, recovery }
}

struct Changed {
    eio: u8,
    auth: Option<Secret>,
    recovery: bool,
}

/// A service that lets in whoever has another key than `wrong`, acks whatever asks for that with what it was asked, and
/// tells the test of everything.
struct Service {
    address: SocketAddr,
    handle: Handle,
    told: mpsc::Receiver<Told>,
    tell: mpsc::Sender<Told>,
    _stop: oneshot::Sender<()>,
    _task: JoinSet<()>,
}

#[derive(Debug)]
enum Told {
    Connected { socket: SocketRef, auth: String, query: String },
    Said(Args),
    Acked(String),
    Away,
    Back(SocketRef),
    Left,
}

struct Telling(mpsc::Sender<Told>);

impl Telling {
    fn tell(&self, told: Told) {
        self.0.try_send(told).unwrap();
    }
}

impl Handler for Telling {
    fn on_connect(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        let auth = request.auth().map(ToString::to_string).unwrap_or_default();
        let query = request.handshake().query.to_string();
        if auth.contains("wrong") {
            cx.refuse(request, "not you", None);
            return;
        }
        let socket = cx.accept(request);
        self.tell(Told::Connected { socket, auth, query });
    }

    fn on_event(&self, cx: &mut Context<'_>, _socket: SocketRef, args: Args, ack: Option<Ack>) {
        match ack {
            Some(ack) => cx.ack(ack, args),
            None => self.tell(Told::Said(args)),
        }
    }

    fn on_away(&self, _: &mut Context<'_>, _: SocketRef, _: DisconnectReason) {
        self.tell(Told::Away);
    }

    fn on_back(&self, _: &mut Context<'_>, socket: SocketRef) {
        self.tell(Told::Back(socket));
    }

    fn on_disconnect(&self, _: &mut Context<'_>, _: SocketRef, _: DisconnectReason) {
        // Tests that have ended do not listen.
        let _ = self.0.try_send(Told::Left);
    }
}

impl Service {
    async fn start(change: impl FnOnce(bowline_net::Builder) -> bowline_net::Builder) -> Self {
        let (tell, told) = mpsc::channel(100);
        let server = Server::builder()
            .listen("127.0.0.1:0".parse().unwrap())
            .shards(1)
            .drain(Duration::ZERO)
            .namespace("/", Telling(tell.clone()))
            .keeping(Keeping { stamp: Stamp::Always, ..Keeping::default() });
        let server = change(server).bind().unwrap();
        let (address, handle) = (server.local_addrs()[0], server.handle());
        let (stop, stopped) = oneshot::channel::<()>();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            server.run(stopped).await.unwrap();
        });
        tokio::task::yield_now().await;
        Self { address, handle, told, tell, _stop: stop, _task: task }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn broadcast(&self, event: Value) {
        let args = Args::new(event.to_string()).unwrap();
        self.handle.broadcast(Broadcast::new("/", args)).unwrap();
    }

    /// Emits an event that asks for an ack.
    fn ask(&self, socket: SocketRef, event: Value) {
        let (args, tell) = (Args::new(event.to_string()).unwrap(), self.tell.clone());
        let asked = self.handle.emit_with_ack(socket, args, DEADLINE, move |_, answer| {
            tell.try_send(Told::Acked(answer.unwrap().json().to_string())).unwrap();
        });
        asked.unwrap();
    }

    async fn next(&mut self) -> Told {
        timeout(DEADLINE, self.told.recv()).await.unwrap().unwrap()
    }

    /// Of whoever comes next: auth and query.
    async fn told(&mut self) -> (String, String) {
        loop {
            if let Told::Connected { auth, query, .. } = self.next().await {
                return (auth, query);
            }
        }
    }

    async fn connected(&mut self) -> SocketRef {
        loop {
            if let Told::Connected { socket, .. } = self.next().await {
                return socket;
            }
        }
    }

    async fn back(&mut self) -> SocketRef {
        loop {
            match self.next().await {
                Told::Back(socket) => return socket,
                Told::Connected { .. } => panic!("it is a new one"),
                _ => {}
            }
        }
    }

    async fn away(&mut self) {
        while !matches!(self.next().await, Told::Away) {}
    }

    async fn left(&mut self) {
        while !matches!(self.next().await, Told::Left) {}
    }

    async fn said(&mut self) -> Args {
        loop {
            if let Told::Said(args) = self.next().await {
                return args;
            }
        }
    }

    async fn acked(&mut self) -> String {
        loop {
            if let Told::Acked(json) = self.next().await {
                return json;
            }
        }
    }
}
