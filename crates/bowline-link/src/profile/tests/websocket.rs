//! WebSockets.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bowline_dial::Message as Frame;
use bowline_proto::{
    keeper::{Level, OpenFailure, Verdict},
    websocket::{
        DecodeConfig, Decoder, Incoming, OpCode, Role, close_frame, handshake::accept_key,
        server_frame,
    },
};
use http::{HeaderMap, Method};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    super::{WebSocket, WebSocketRules},
    *,
};
use crate::local::rules::{Asked, ConfirmedBy, Did, Rules as _};

#[tokio::test]
async fn it_authorises_itself_and_reads_ids_and_rooms() {
    let mut server = Service::start().await;
    let Settings::WebSocket { url, headers, message_id, room, probe, protocols, .. } =
        websocket(&server.url())
    else {
        panic!()
    };
    let profile = Settings::WebSocket {
        url,
        headers,
        hello: Some(Secret::new("token={token}")),
        message_id,
        room,
        probe,
        ack: Some(r#"{"ack":"{id}"}"#.to_owned()),
        protocols,
    };
    let profile = WebSocket::new(&link(profile), way()).unwrap();
    let mut far = Far::open(&profile, FIRST).await;
    let mut peer = server.peer().await;
    assert!(peer.head.contains("authorization: Bearer t\"0ken\r\n"), "{}", peer.head);
    assert_eq!(peer.text().await, "token=t\"0ken");

    let body = r#"{"id":17,"room":"a","text":"hi"}"#;
    peer.say(body).await;
    let expected = Message {
        id: "17".to_owned(),
        own_id: true,
        room: "a".to_owned(),
        receipt: Some("17".to_owned()),
        confirm: true,
        body: Bytes::from_static(body.as_bytes()),
    };
    assert_eq!(far.message().await, expected);
    far.tell(Command::Acknowledge { receipt: "a\"b".to_owned() }).await;
    assert_eq!(peer.text().await, r#"{"ack":"a\"b"}"#);
    assert_eq!(profile.fetch(&expected).await.unwrap(), body);

    // The same is the same, on every connection; what has no id has one of its content.
    let mut other = Far::open(&profile, BESIDE).await;
    let mut second = server.peer().await;
    second.text().await;
    for peer in [&mut peer, &mut second] {
        peer.say(r#"{"text":"hi"}"#).await;
        peer.send(OpCode::Binary, b"\x00\x01").await;
        peer.say("no JSON").await;
    }
    for body in [r#"{"text":"hi"}"#.as_bytes(), b"\xff\x00\x01", b"no JSON"] {
        let message = far.message().await;
        assert_eq!((&message.body[..], message.own_id, &*message.room), (body, false, ""));
        assert_eq!(message.receipt, None);
        assert_eq!(other.message().await, message);
    }
}

#[tokio::test]
async fn apps_get_json_whatever_came() {
    let server = Service::start().await;
    let profile = WebSocket::new(&link(websocket(&server.url())), way()).unwrap();
    for (body, json) in [
        (&b"[1, 2]"[..], &b"[1, 2]"[..]),
        (b"hello \"you\"", br#""hello \"you\"""#),
        (b"\xff\x00\x01", br#"{"$binary":"AAE="}"#),
    ] {
        let message = Message {
            id: String::new(),
            own_id: false,
            room: String::new(),
            receipt: None,
            confirm: true,
            body: Bytes::from_static(body),
        };
        assert_eq!(profile.fetch(&message).await.unwrap(), json);
    }
}

#[tokio::test]
async fn a_probe_that_comes_back_is_no_message_wherever_it_comes() {
    let mut server = Service::start().await;
    let profile = WebSocket::new(&link(websocket(&server.url())), way()).unwrap();
    assert!(profile.can_probe());
    let mut far = Far::open(&profile, FIRST).await;
    let mut peer = server.peer().await;
    let mut other = Far::open(&profile, BESIDE).await;
    let mut second = server.peer().await;
    far.tell(Command::Probe { nonce: nonce(1) }).await;
    let said = peer.text().await;
    assert_eq!(said, format!(r#"{{"echo":"{}"}}"#, nonce(1)));
    for peer in [&mut peer, &mut second] {
        peer.say(&format!(r#"{{"id":"1","from":"you","text":{said}}}"#)).await;
    }
    assert_eq!(far.next().await, Event::Probed { nonce: nonce(1) });
    assert_eq!(other.next().await, Event::Probed { nonce: nonce(1) });
}

#[tokio::test]
async fn pings_prove_the_connection_and_a_send_is_told() {
    let mut server = Service::start().await;
    let profile = WebSocket::new(&link(websocket(&server.url())), way()).unwrap();
    let mut far = Far::open(&profile, FIRST).await;
    let mut peer = server.peer().await;
    far.tell(Command::Ping).await;
    let Some(Incoming::Ping(payload)) = peer.hear().await else { panic!() };
    peer.send(OpCode::Pong, &payload).await;
    assert_eq!(far.any().await, Some(Event::Heard(Level::Pong)));
    peer.send(OpCode::Ping, b"").await;
    assert_eq!(peer.hear().await, Some(Incoming::Pong(Bytes::new())));
    assert_eq!(far.any().await, Some(Event::Heard(Level::Tcp)));

    far.say("hello").await;
    assert_eq!(peer.text().await, "hello");
    far.tell(Command::Confirmed { id: "m".to_owned() }).await;
    assert_eq!(far.next().await, Event::Written { id: "m".to_owned() });
    let binary = Outgoing { text: false, ask: Some(7), ..outgoing("\u{1}") };
    far.tell(Command::Send(binary)).await;
    let expected = Some(Incoming::Message(Frame::Binary(Bytes::from_static(&[1]))));
    assert_eq!(peer.hear().await, expected);
    assert_eq!(far.next().await, Event::Answered { ask: 7, answer: Ok(Bytes::new()) });
    let mut wrong = Outgoing { ask: Some(8), ..outgoing("") };
    wrong.body = Bytes::from_static(b"\xff");
    far.tell(Command::Send(wrong)).await;
    let Event::Answered { ask: 8, answer: Err(_) } = far.next().await else { panic!() };
}

#[tokio::test]
async fn ends_are_read_by_their_codes_and_a_goodbye_is_said() {
    let mut server = Service::start().await;
    let profile = WebSocket::new(&link(websocket(&server.url())), way()).unwrap();
    for (code, reason, verdict, words) in [
        (1001, "bye", Verdict::Again, "the service closed with code 1001 bye"),
        (4401, "", Verdict::Unauthorized, "the service closed with code 4401"),
        (1008, "policy", Verdict::Refused, "the service closed with code 1008 policy"),
    ] {
        let mut far = Far::open(&profile, FIRST).await;
        let mut peer = server.peer().await;
        peer.write(&close_frame(Some(code), reason, None)).await;
        assert_eq!(far.next().await, Event::Closed { verdict, words: words.to_owned() });
        assert_eq!(far.any().await, None);
    }
    let mut far = Far::open(&profile, FIRST).await;
    drop(server.peer().await);
    let Event::Closed { verdict: Verdict::Again, .. } = far.next().await else { panic!() };

    let mut far = Far::open(&profile, FIRST).await;
    let mut peer = server.peer().await;
    far.tell(Command::Close { within: DEADLINE }).await;
    let Some(Incoming::Close(close)) = peer.hear().await else { panic!() };
    assert_eq!(close.code, Some(1000));
    peer.write(&close_frame(Some(1000), "", None)).await;
    let Event::Closed { .. } = far.next().await else { panic!() };
}

#[tokio::test]
async fn refusals_say_what_is_to_be_done() {
    let server = Service::start().await;
    let profile = WebSocket::new(&link(websocket(&server.url())), way()).unwrap();
    for (answer, verdict, retry_after) in [
        ("401 No", Verdict::Unauthorized, None),
        ("404 No\r\nRetry-After: soon", Verdict::Elsewhere, None),
        ("429 No\r\nRetry-After: 7", Verdict::Again, Some(Duration::from_secs(7))),
    ] {
        server.refuse(answer);
        let failure = profile.open(FIRST).await.unwrap_err();
        let words = format!("the server refused the WebSocket with status {}", &answer[..3]);
        assert_eq!(failure, OpenFailure { verdict, words, retry_after });
    }
}

#[tokio::test]
async fn events_that_are_not_taken_are_not_lost() {
    let mut server = Service::start().await;
    let profile = WebSocket::new(&link(websocket(&server.url())), way()).unwrap();
    let mut far = Far::open(&profile, FIRST).await;
    let mut peer = server.peer().await;
    let mut flood = JoinSet::new();
    flood.spawn(async move {
        let large = "x".repeat(100_000);
        for number in 0..2000 {
            let text = if number % 50 == 0 { large.as_str() } else { "" };
            peer.say(&format!("{{\"id\":{number},\"text\":\"{text}\"}}")).await;
        }
        peer
    });
    for number in 0..2000 {
        assert_eq!(far.message().await.id, number.to_string());
    }
    drop(flood.join_next().await);
}

#[test]
fn bots_get_the_frames_of_the_service_and_their_hello_goes_nowhere() {
    let Settings::WebSocket { url, headers, message_id, room, probe, protocols, .. } =
        websocket("wss://Service.test/chat?v=1")
    else {
        panic!()
    };
    let hello = Some(Secret::new("token={token}"));
    let profile =
        Settings::WebSocket { url, headers, hello, message_id, room, probe, ack: None, protocols };
    let rules = WebSocketRules::new(&link(profile)).unwrap();
    assert_eq!(rules.hosts(), ["service.test"]);
    assert!(rules.is_socket("service.test", "/chat?v=2"));
    assert!(!rules.is_socket("service.test", "/chat/x"));
    assert!(!rules.is_socket("other.test", "/chat"));
    let asked = Asked {
        method: &Method::GET,
        host: "service.test",
        target: "/x",
        headers: &HeaderMap::new(),
        body: &Bytes::new(),
    };
    assert_eq!(rules.answer(&asked, "wss://localhost:1/x"), None);

    let mut socket = rules.socket();
    assert!(socket.is_ready());
    assert_eq!(socket.confirmed_by(), ConfirmedBy::Pong);
    assert_eq!(socket.heard(&Frame::Text("token=t\"0ken".into())), []);
    let said = socket.heard(&Frame::Text("token=t\"0ken".into()));
    assert_eq!(said, [Did::Say(outgoing("token=t\"0ken"))], "only the first one");
    let binary = Frame::Binary(Bytes::from_static(&[0, 255]));
    let [Did::Say(said)] = &socket.heard(&binary)[..] else { panic!() };
    assert_eq!((said.text, &said.body[..]), (false, &[0, 255][..]));
    for (body, frame) in [
        (&b"hello"[..], Frame::Text("hello".into())),
        (b"\xff\x00\xff", binary),
        (b"", Frame::Text("".into())),
    ] {
        let body = Bytes::from_static(body);
        assert_eq!(socket.pass(&body), Some(frame));
    }
}

/// A WebSocket service.
struct Service {
    address: SocketAddr,
    peers: tokio::sync::mpsc::Receiver<Peer>,
    refusal: Arc<Mutex<Option<&'static str>>>,
    _task: JoinSet<()>,
}

impl Service {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, peers) = tokio::sync::mpsc::channel(10);
        let refusal = Arc::new(Mutex::new(None));
        let mut task = JoinSet::new();
        task.spawn({
            let refusal = Arc::clone(&refusal);
            async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        stream.read_buf(&mut head).await.unwrap();
                    }
                    let head = String::from_utf8(head).unwrap();
                    let refused = *refusal.lock().unwrap();
                    if let Some(refused) = refused {
                        let answer = format!("HTTP/1.1 {refused}\r\nContent-Length: 0\r\n\r\n");
                        stream.write_all(answer.as_bytes()).await.unwrap();
                        continue;
                    }
                    let mut keys =
                        head.lines().filter_map(|it| it.strip_prefix("Sec-WebSocket-Key: "));
                    let answer = format!(
                        "HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Accept: {}\r\n\r\n",
                        accept_key(keys.next().unwrap())
                    );
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    let decoder = Decoder::new(Role::Server);
                    let peer = Peer { stream, head, decoder, input: Vec::new() };
                    tell.send(peer).await.unwrap();
                }
            }
        });
        Self { address, peers, refusal, _task: task }
    }

    fn url(&self) -> String {
        format!("ws://{}/chat", self.address)
    }

    fn refuse(&self, answer: &'static str) {
        *self.refusal.lock().unwrap() = Some(answer);
    }

    async fn peer(&mut self) -> Peer {
        timeout(DEADLINE, self.peers.recv()).await.unwrap().unwrap()
    }
}

/// The service's end of a connection.
struct Peer {
    stream: TcpStream,
    head: String,
    decoder: Decoder,
    input: Vec<u8>,
}

impl Peer {
    async fn say(&mut self, text: &str) {
        self.send(OpCode::Text, text.as_bytes()).await;
    }

    async fn send(&mut self, opcode: OpCode, payload: &[u8]) {
        self.write(&server_frame(opcode, &[payload])).await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn text(&mut self) -> String {
        match self.hear().await {
            Some(Incoming::Message(Frame::Text(text))) => text.to_string(),
            other => panic!("{other:?}"),
        }
    }

    async fn hear(&mut self) -> Option<Incoming> {
        let config = DecodeConfig { max_message_bytes: 1 << 20, deflate: false };
        loop {
            let mut input = &mut self.input[..];
            let decoded = self.decoder.decode(&config, &mut input).unwrap();
            let left = input.len();
            self.input.drain(..self.input.len() - left);
            if decoded.is_some() {
                return decoded;
            }
            if timeout(DEADLINE, self.stream.read_buf(&mut self.input)).await.unwrap().ok()? == 0 {
                return None;
            }
        }
    }
}
