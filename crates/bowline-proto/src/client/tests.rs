//! A client and a server that is spelled out, under a fake clock.

use std::time::Duration;

use proptest::{prelude::*, sample::Index};

use super::*;

const OPEN: &str = r#"0{"sid":"S","upgrades":["websocket"],"pingInterval":300,"pingTimeout":200,"maxPayload":1000000}"#;
const OPEN_ALONE: &str =
    r#"0{"sid":"S","upgrades":[],"pingInterval":300,"pingTimeout":200,"maxPayload":1000000}"#;
const MS: Duration = Duration::from_millis(1);

#[test]
fn polling_opens_joins_and_emits() {
    let mut peer = Peer::new(Transports::Polling, Version::V4);
    peer.input(join("/", Some(r#"{"token":"x"}"#)));
    assert_eq!(peer.input(Input::Open), ["GET 1 /socket.io/?EIO=4&transport=polling"]);
    // The open packet brings the next GET and the CONNECT.
    assert_eq!(
        peer.answer(1, OPEN),
        [
            "GET 2 /socket.io/?EIO=4&transport=polling&sid=S",
            r#"POST 3 /socket.io/?EIO=4&transport=polling&sid=S 40{"token":"x"}"#,
            "Opened"
        ]
    );
    // What is emitted before the namespace is joined waits.
    assert!(peer.input(emit("/", r#"["early"]"#)).is_empty());
    assert!(peer.answer(3, "ok").is_empty());
    assert_eq!(
        peer.answer(2, r#"40{"sid":"P","pid":"Q"}"#),
        [
            "GET 4 /socket.io/?EIO=4&transport=polling&sid=S",
            r#"POST 5 /socket.io/?EIO=4&transport=polling&sid=S 42["early"]"#,
            r#"Joined { namespace: "/", sid: "P", pid: Some("Q") }"#,
        ]
    );
    // There is one POST at a time; the next carries all that waited.
    assert!(peer.input(emit("/", r#"["a"]"#)).is_empty());
    assert!(peer.input(emit("/", r#"["b"]"#)).is_empty());
    assert_eq!(
        peer.answer(5, "ok"),
        ["POST 6 /socket.io/?EIO=4&transport=polling&sid=S 42[\"a\"]\u{1e}42[\"b\"]"]
    );
    assert_eq!(
        peer.answer(4, "42[\"x\",1]\u{1e}427[\"y\"]"),
        [
            "GET 7 /socket.io/?EIO=4&transport=polling&sid=S",
            r#"Event / ["x",1]"#,
            r#"Event / ["y"] asks 7"#,
        ]
    );
    peer.answer(6, "ok");
    let args = Args::new(r#"["yes"]"#).unwrap();
    assert_eq!(
        peer.input(Input::Ack { namespace: "/".into(), id: 7, args }),
        [r#"POST 8 /socket.io/?EIO=4&transport=polling&sid=S 437["yes"]"#]
    );
}

#[test]
fn a_websocket_opens_joins_and_leaves() {
    let mut peer = Peer::new(Transports::WebSocket, Version::V4);
    peer.input(join("/admin", None));
    assert_eq!(peer.input(Input::Open), ["DIAL /socket.io/?EIO=4&transport=websocket"]);
    assert!(peer.input(Input::WebSocketOpened).is_empty());
    assert_eq!(peer.hear(OPEN_ALONE), ["SEND 40/admin,", "Opened"]);
    assert_eq!(
        peer.hear(r#"40/admin,{"sid":"P"}"#),
        [r#"Joined { namespace: "/admin", sid: "P", pid: None }"#]
    );
    assert_eq!(peer.input(emit("/admin", r#"["a"]"#)), [r#"SEND 42/admin,["a"]"#]);
    assert_eq!(peer.input(emit("/other", r#"["a"]"#)), [r#"Unsent /other ["a"] NotJoined"#]);
    assert_eq!(peer.input(Input::Leave { namespace: "/admin".into() }), ["SEND 41/admin,"]);
    // What the server had already sent is not for anybody.
    assert!(peer.hear(r#"42/admin,["late"]"#).is_empty());
    assert_eq!(peer.input(Input::Close), ["CLOSE", "Closed: io client disconnect"]);
    assert_eq!(peer.client.phase(), Phase::Closed);
    assert_eq!(peer.client.poll_timeout(), None);
}

#[test]
fn an_upgrade_waits_for_the_requests_and_loses_nothing() {
    let mut peer = joined_and_probing();
    // While the probe is under way, polling goes on.
    assert_eq!(peer.input(emit("/", r#"["a"]"#)).len(), 1);
    assert_eq!(peer.input(Input::WebSocketOpened), ["SEND 2probe"]);
    assert!(peer.hear("3probe").is_empty());
    assert_eq!(peer.client.phase(), Phase::Pausing);
    // From here on everything waits for the WebSocket.
    assert!(peer.input(emit("/", r#"["b"]"#)).is_empty());
    assert_eq!(peer.answer_get("42[\"x\"]\u{1e}2"), [r#"Event / ["x"]"#]);
    assert_eq!(peer.answer_post(), ["SEND 5", r#"SEND 42["b"]"#, "SEND 3", "Upgraded"]);
    assert_eq!(peer.client.queued_bytes(), 0);
    assert_eq!(peer.input(emit("/", r#"["c"]"#)), [r#"SEND 42["c"]"#]);
    assert_eq!(peer.hear(r#"42["y"]"#), [r#"Event / ["y"]"#]);
}

#[test]
fn a_failed_probe_leaves_polling_untouched() {
    for fail in [
        |peer: &mut Peer| peer.lose_websocket(),
        |peer: &mut Peer| peer.hear("3nonsense"),
        |peer: &mut Peer| {
            peer.hear("3probe");
            peer.input(emit("/", r#"["paused"]"#));
            peer.lose_websocket()
        },
        |peer: &mut Peer| {
            peer.hear("3probe");
            peer.input(emit("/", r#"["paused"]"#));
            peer.hear("42[\"too soon\"]")
        },
    ] {
        let mut peer = joined_and_probing();
        peer.input(Input::WebSocketOpened);
        let outputs = fail(&mut peer);
        assert!(outputs.contains(&"CLOSE".to_owned()), "{outputs:?}");
        assert!(outputs.last().unwrap().starts_with("UpgradeFailed"), "{outputs:?}");
        assert_eq!(peer.client.phase(), Phase::Polling);
        assert_eq!(peer.answer_get("42[\"x\"]").last().unwrap(), r#"Event / ["x"]"#);
        assert!(peer.get.is_some(), "polling goes on");
        peer.input(emit("/", r#"["later"]"#));
        while peer.post.is_some() {
            peer.answer_post();
        }
        let paused = outputs.iter().any(|output| output.contains("paused"));
        assert_eq!(peer.posts_with("later"), 1);
        assert_eq!(peer.posts_with("paused"), usize::from(paused), "{:?}", peer.posted);
        assert_eq!(peer.client.queued_bytes(), 0);
    }
}

#[test]
fn an_upgrade_is_given_up_in_time() {
    let mut peer = joined_and_probing();
    peer.input(Input::WebSocketOpened);
    peer.config(|config| assert_eq!(config.upgrade_timeout, 100 * MS));
    assert_eq!(peer.client.poll_timeout(), Some((Time::ZERO + 100 * MS, Timer::Upgrade)));
    assert_eq!(peer.wait(100), ["CLOSE", r#"UpgradeFailed { why: "the upgrade took too long" }"#]);
    assert_eq!(peer.client.poll_timeout(), Some((Time::ZERO + 500 * MS, Timer::ServerPing)));
}

#[test]
fn the_heartbeat_is_the_sessions_not_the_transports() {
    let mut peer = joined_and_probing();
    peer.input(Input::WebSocketOpened);
    peer.wait(50);
    peer.hear("3probe");
    // The ping comes by polling, the pong goes by WebSocket.
    assert_eq!(peer.answer_get("2"), ["SEND 5", "SEND 3", "Upgraded"]);
    assert_eq!(peer.client.poll_timeout(), Some((Time::ZERO + 550 * MS, Timer::ServerPing)));
    assert!(peer.wait(549).is_empty());
    assert_eq!(peer.wait(550), ["CLOSE", "Closed: ping timeout"]);
}

#[test]
fn an_eio3_client_pings_and_awaits_the_pong() {
    let mut peer = Peer::new(Transports::WebSocket, Version::V3);
    peer.input(Input::Open);
    peer.hear(OPEN_ALONE);
    assert_eq!(peer.wait(300), ["SEND 2"]);
    assert_eq!(peer.client.poll_timeout(), Some((Time::ZERO + 500 * MS, Timer::Pong)));
    assert!(peer.hear("3").is_empty());
    assert_eq!(peer.wait(600), ["SEND 2"]);
    assert_eq!(peer.wait(800), ["CLOSE", "Closed: ping timeout"]);
}

#[test]
fn an_eio3_server_connects_the_root_and_takes_auth_as_a_query() {
    let mut peer = Peer::new(Transports::WebSocket, Version::V3);
    peer.input(join("/", None));
    peer.input(join("/admin", Some("token=1")));
    assert_eq!(peer.input(Input::Open), ["DIAL /socket.io/?EIO=3&transport=websocket"]);
    assert_eq!(peer.hear(OPEN_ALONE), ["SEND 40/admin?token=1,", "Opened"]);
    assert_eq!(peer.hear("40"), [r#"Joined { namespace: "/", sid: "S", pid: None }"#]);
    assert_eq!(
        peer.hear("40/admin,"),
        [r#"Joined { namespace: "/admin", sid: "/admin#S", pid: None }"#]
    );
    peer.input(join("/no", None));
    assert_eq!(
        peer.hear(r#"44/no,"Invalid namespace""#),
        [r#"JoinFailed { namespace: "/no", error: Refused("\"Invalid namespace\"") }"#]
    );
}

#[test]
fn an_eio4_client_finds_out_that_the_server_is_older() {
    let mut peer = joined(Transports::WebSocket);
    assert_eq!(peer.hear("40"), ["CLOSE", "Closed: parse error"]);
}

#[test]
fn acks_come_once_time_out_and_fail_with_the_namespace() {
    let mut peer = joined(Transports::WebSocket);
    let emit = |token| Input::Emit {
        namespace: "/".into(),
        args: Args::new(r#"["q"]"#).unwrap(),
        ack: Some(AckRequest { token, timeout: 50 * MS }),
    };
    assert_eq!(peer.input(emit(70)), [r#"SEND 420["q"]"#]);
    assert_eq!(peer.input(emit(71)), [r#"SEND 421["q"]"#]);
    assert_eq!(peer.hear(r#"431["a"]"#), [r#"Ack / 71 Ok ["a"]"#]);
    assert!(peer.hear(r#"431["a"]"#).is_empty(), "once");
    assert!(peer.hear(r#"439["a"]"#).is_empty(), "unknown");
    assert_eq!(peer.client.poll_timeout(), Some((Time::ZERO + 50 * MS, Timer::Ack)));
    assert_eq!(peer.wait(50), ["Ack / 70 Err TimedOut"]);
    peer.input(emit(72));
    assert_eq!(peer.hear("41"), ["Ack / 72 Err Disconnected", r#"Left { namespace: "/" }"#]);
    assert_eq!(peer.input(emit(73)), ["Ack / 73 Err Disconnected"]);
    peer.input(join("/", None));
    peer.hear(r#"40{"sid":"P2"}"#);
    assert_eq!(peer.input(emit(74)), [r#"SEND 420["q"]"#]);
    assert_eq!(
        peer.lose_websocket(),
        ["CLOSE", "Ack / 74 Err Disconnected", "Closed: transport error"]
    );
}

#[test]
fn an_event_whose_ack_timed_out_before_the_join_is_not_sent() {
    let mut peer = Peer::new(Transports::WebSocket, Version::V4);
    peer.input(join("/", None));
    let ack = Some(AckRequest { token: 1, timeout: 50 * MS });
    let args = Args::new(r#"["q"]"#).unwrap();
    peer.input(Input::Emit { namespace: "/".into(), args, ack });
    peer.input(Input::Open);
    assert_eq!(peer.wait(50), ["Ack / 1 Err TimedOut"]);
    assert_eq!(peer.client.queued_bytes(), 0);
    peer.hear(OPEN_ALONE);
    assert_eq!(
        peer.hear(r#"40{"sid":"P"}"#),
        [r#"Joined { namespace: "/", sid: "P", pid: None }"#]
    );
}

#[test]
fn binary_travels_as_attachments_both_ways() {
    for (transports, version, sent) in [
        (
            Transports::WebSocket,
            Version::V4,
            vec![r#"SEND 451-["b",{"_placeholder":true,"num":0}]"#, "SEND [1, 2, 3]"],
        ),
        (
            Transports::Polling,
            Version::V4,
            vec![
                "POST 5 /socket.io/?EIO=4&transport=polling&sid=S 451-[\"b\",{\"_placeholder\":true,\"num\":0}]\u{1e}bAQID",
            ],
        ),
    ] {
        let mut peer = Peer::new(transports, version);
        peer.open_and_join();
        let args = Args::with_attachments(
            r#"["b",{"_placeholder":true,"num":0}]"#,
            vec![Bytes::from_static(&[1, 2, 3])],
        )
        .unwrap();
        let outputs = peer.input(Input::Emit { namespace: "/".into(), args, ack: None });
        assert_eq!(outputs, sent);
        let heard = if transports == Transports::WebSocket {
            assert!(peer.hear(r#"451-["c",{"_placeholder":true,"num":0}]"#).is_empty());
            peer.input(Input::Message(Message::Binary(Bytes::from_static(&[4]))))
        } else {
            peer.answer_get("451-[\"c\",{\"_placeholder\":true,\"num\":0}]\u{1e}bBA==")
        };
        assert_eq!(
            heard.last().unwrap(),
            r#"Event / ["c",{"_placeholder":true,"num":0}] with [[4]]"#
        );
    }
}

#[test]
fn a_refused_handshake_names_its_status() {
    let mut peer = Peer::new(Transports::Upgrade, Version::V4);
    peer.input(Input::Open);
    let outputs = peer.input(Input::Response {
        id: RequestId(1),
        response: Response::Answered {
            status: 403,
            body: Bytes::from_static(b"{\"code\":4}"),
            binary: false,
        },
    });
    assert_eq!(outputs, ["Closed: refused, status 403: {\"code\":4}"]);
}

#[test]
fn opening_and_joining_are_given_up_in_time() {
    let mut peer = Peer::new(Transports::Upgrade, Version::V4);
    peer.input(Input::Open);
    assert_eq!(peer.client.poll_timeout(), Some((Time::ZERO + 1000 * MS, Timer::Open)));
    assert_eq!(peer.wait(1000), ["Closed: timeout"]);

    let mut peer = joined(Transports::WebSocket);
    assert_eq!(peer.input(join("/slow", None)), ["SEND 40/slow,"]);
    assert_eq!(peer.client.poll_timeout(), Some((Time::ZERO + 400 * MS, Timer::Join)));
    assert_eq!(peer.wait(400), [r#"JoinFailed { namespace: "/slow", error: TimedOut }"#]);
    // It answers after all: it must not believe that this client is there.
    assert_eq!(peer.hear(r#"40/slow,{"sid":"P"}"#), ["SEND 41/slow,"]);
}

#[test]
fn closing_by_polling_posts_what_waits_and_then_the_goodbye() {
    let mut peer = joined(Transports::Polling);
    assert_eq!(peer.input(emit("/", r#"["a"]"#)).len(), 1);
    peer.input(emit("/", r#"["b"]"#));
    assert!(peer.input(Input::Close).is_empty());
    assert_eq!(
        peer.answer_post(),
        ["POST 6 /socket.io/?EIO=4&transport=polling&sid=S 42[\"b\"]\u{1e}41\u{1e}1"]
    );
    assert!(peer.answer_get("6").is_empty(), "no GET after the goodbye");
    assert_eq!(peer.answer_post(), ["Closed: io client disconnect"]);

    // However the last requests end, and if they do not.
    let mut peer = joined(Transports::Polling);
    peer.input(Input::Close);
    let id = peer.post.unwrap();
    let response = Response::Failed { detail: "cut".to_owned() };
    let outputs = peer.input(Input::Response { id, response });
    assert_eq!(outputs, ["Closed: io client disconnect, cut"]);
    let mut peer = joined(Transports::Polling);
    peer.input(Input::Close);
    assert_eq!(peer.wait(200), ["Closed: io client disconnect, the last POST took too long"]);
}

#[test]
fn closing_while_probing_gives_the_websocket_up() {
    let mut peer = joined_and_probing();
    peer.input(Input::WebSocketOpened);
    let outputs = peer.input(Input::Close);
    assert_eq!(outputs[0], "CLOSE");
    assert!(outputs[1].ends_with(" 41\u{1e}1"), "{outputs:?}");
    assert!(peer.hear("3probe").is_empty());
}

#[test]
fn the_server_may_close() {
    assert_eq!(
        joined(Transports::Polling).answer_get("1").last().unwrap(),
        "Closed: transport close"
    );
    assert_eq!(joined(Transports::WebSocket).hear("1"), ["CLOSE", "Closed: transport close"]);
}

#[test]
fn what_cannot_be_read_ends_the_session() {
    for text in ["", "9", "0{}", "4", "4x", "42{}", "451-[]", "2", "3", "5", "41x", "40/a"] {
        let mut peer = joined(Transports::WebSocket);
        let outputs = peer.hear(text);
        // A ping is answered, a stray attachment or an unknown namespace is waited for or left.
        match text {
            "2" => assert_eq!(outputs, ["SEND 3"]),
            _ => assert!(
                outputs.last().is_some_and(|last| last.starts_with("Closed: parse error")),
                "{text}: {outputs:?}"
            ),
        }
    }
    let mut peer = joined(Transports::Polling);
    assert!(peer.answer_get("\u{1e}").last().unwrap().starts_with("Closed: parse error"));
}

#[test]
fn a_post_is_no_larger_than_the_server_allows() {
    let open =
        r#"0{"sid":"S","upgrades":[],"pingInterval":300,"pingTimeout":200,"maxPayload":100}"#;
    let mut peer = Peer::new(Transports::Polling, Version::V4);
    peer.input(join("/", None));
    peer.input(Input::Open);
    peer.answer(1, open);
    peer.answer_get(r#"40{"sid":"P"}"#);
    for _ in 0..10 {
        peer.input(emit("/", r#"["0123456789"]"#));
    }
    let mut sizes = Vec::new();
    while peer.post.is_some() {
        sizes
            .push(peer.answer_post().iter().map(|post| post.matches("42[").count()).sum::<usize>());
    }
    assert_eq!(sizes, [3, 3, 3, 1, 0]);
}

#[test]
fn queues_are_bounded() {
    let mut peer = joined(Transports::Polling);
    let big = format!("[\"{}\"]", "x".repeat(600_000));
    let mut unsent = 0;
    for _ in 0..10 {
        unsent += peer
            .input(emit("/", &big))
            .iter()
            .filter(|output| output.starts_with("Unsent"))
            .count();
    }
    // One is in the POST, seven are 4.2 MB.
    assert_eq!(unsent, 2);
}

#[test]
fn bare_engine_io_has_no_namespaces() {
    let mut peer = Peer::new(Transports::WebSocket, Version::V4);
    let config = Config { protocol: Protocol::EngineIo, ..(*peer.client.config).clone() };
    peer.client = Client::new(Arc::new(config));
    peer.input(Input::Open);
    peer.hear(OPEN_ALONE);
    assert_eq!(peer.input(Input::Send(Message::Text("hi".into()))), ["SEND 4hi"]);
    assert_eq!(peer.hear("4ho"), [r#"Message(Text("ho"))"#]);
}

#[test]
fn a_frame_is_written_masked() {
    let mut out = Vec::new();
    write_frame(
        &mut out,
        Version::V4,
        &Packet::text(engineio::PacketKind::Message, "2"),
        [0, 0, 0, 1],
    );
    assert_eq!(out, b"\x81\x82\0\0\0\x0142");
}

proptest! {
    #[test]
    fn whatever_a_server_says_the_session_ends_once_and_no_ack_is_forgotten(
        version in prop_oneof![Just(Version::V3), Just(Version::V4)],
        transports in prop_oneof![
            Just(Transports::Polling),
            Just(Transports::WebSocket),
            Just(Transports::Upgrade),
        ],
        inputs in proptest::collection::vec((any::<u8>(), any::<Index>(), any::<Index>()), 0..60),
    ) {
        let mut peer = Peer::new(transports, version);
        let mut outputs = peer.input(join("/", None));
        outputs.extend(peer.input(Input::Open));
        let mut tokens = 0;
        for (kind, first, second) in inputs {
            let said = [*first.get(&SAID), *second.get(&SAID)];
            outputs.extend(match kind % 12 {
                0..=2 if peer.get.is_some() => peer.answer_get(&said.join("\u{1e}")),
                0..=2 if peer.get.is_none() => peer.hear(said[0]),
                3 if peer.post.is_some() => peer.answer_post(),
                4 => peer.input(Input::WebSocketOpened),
                5 => peer.hear("3probe"),
                6 => peer.input(Input::Message(Message::Binary(Bytes::from_static(b"\x04x")))),
                7 => {
                    let ack = Some(AckRequest { token: tokens, timeout: 300 * MS });
                    tokens += 1;
                    let args = Args::new(r#"["q"]"#).unwrap();
                    peer.input(Input::Emit { namespace: "/".into(), args, ack })
                }
                8 => {
                    peer.now += MS * u32::from(kind);
                    peer.input(Input::Timeout)
                }
                9 if kind < 40 => peer.lose_websocket(),
                10 => peer.input(join("/a", None)),
                11 if kind < 40 => peer.input(Input::Leave { namespace: "/".into() }),
                _ => Vec::new(),
            });
            if peer.client.phase() == Phase::Closed {
                break;
            }
        }
        outputs.extend(peer.input(Input::Close));
        while peer.client.phase() != Phase::Closed {
            let (at, _) = peer.client.poll_timeout().expect("closing has a deadline");
            peer.now = at;
            outputs.extend(peer.input(Input::Timeout));
        }
        outputs.extend(peer.hear("4late"));
        prop_assert!(outputs.last().unwrap().starts_with("Closed"), "{outputs:?}");
        let closed = outputs.iter().filter(|output| output.starts_with("Closed"));
        prop_assert_eq!(closed.count(), 1);
        for token in 0..tokens {
            let ack = format!("Ack / {token} ");
            let acks = outputs.iter().filter(|output| output.starts_with(&ack));
            prop_assert_eq!(acks.count(), 1, "{} in {:?}", token, outputs);
        }
        prop_assert_eq!(peer.client.poll_timeout(), None);
        prop_assert_eq!(peer.client.queued_bytes(), 0);
    }
}

/// What a server may say, and what it may not.
const SAID: [&str; 24] = [
    OPEN,
    OPEN,
    OPEN,
    OPEN,
    OPEN_ALONE,
    r#"40{"sid":"P"}"#,
    r#"40{"sid":"P"}"#,
    "40",
    "2",
    "3",
    "6",
    "6",
    "1",
    "41",
    r#"40/a,{"sid":"A"}"#,
    r#"41/a,"#,
    r#"42["x"]"#,
    r#"427["x"]"#,
    r#"430["y"]"#,
    r#"431[]"#,
    r#"44{"message":"no"}"#,
    r#"451-["b",{"_placeholder":true,"num":0}]"#,
    "bAQID",
    "nonsense",
];

/// A client, its clock, and the requests it has under way.
struct Peer {
    client: Client,
    now: Time,
    get: Option<RequestId>,
    post: Option<RequestId>,
    posted: Vec<String>,
}

fn join(namespace: &str, auth: Option<&str>) -> Input {
    Input::Join { namespace: namespace.into(), auth: auth.map(Into::into) }
}

fn emit(namespace: &str, args: &str) -> Input {
    Input::Emit { namespace: namespace.into(), args: Args::new(args).unwrap(), ack: None }
}

fn joined(transports: Transports) -> Peer {
    let mut peer = Peer::new(transports, Version::V4);
    peer.open_and_join();
    peer
}

fn joined_and_probing() -> Peer {
    let peer = joined(Transports::Upgrade);
    assert_eq!(peer.client.phase(), Phase::Probing);
    peer
}

impl Peer {
    fn new(transports: Transports, version: Version) -> Self {
        let config = Config {
            version,
            transports,
            open_timeout: 1000 * MS,
            upgrade_timeout: 100 * MS,
            join_timeout: 400 * MS,
            post_timeout: 200 * MS,
            ..Config::default()
        };
        let client = Client::new(Arc::new(config));
        Self { client, now: Time::ZERO, get: None, post: None, posted: Vec::new() }
    }

    fn config(&self, look: impl Fn(&Config)) {
        look(&self.client.config);
    }

    fn open_and_join(&mut self) {
        self.input(join("/", None));
        self.input(Input::Open);
        if self.client.config.transports == Transports::WebSocket {
            self.input(Input::WebSocketOpened);
            self.hear(OPEN_ALONE);
            self.hear(r#"40{"sid":"P"}"#);
        } else {
            self.answer_get(OPEN);
            self.answer_get(r#"40{"sid":"P"}"#);
            self.answer_post();
        }
        assert!(self.client.is_joined("/"));
    }

    /// Gives an input and returns all that comes out, in words.
    fn input(&mut self, input: Input) -> Vec<String> {
        self.client.handle_input(self.now, input);
        std::iter::from_fn(|| self.client.poll_output())
            .map(|output| {
                if let Output::Request(request) = &output {
                    let slot = if request.body.is_some() { &mut self.post } else { &mut self.get };
                    assert_eq!(slot.replace(request.id), None, "one of a kind at a time");
                }
                let words = describe(&output);
                if words.starts_with("POST") {
                    self.posted.push(words.clone());
                }
                words
            })
            .collect()
    }

    fn answer(&mut self, id: u64, body: &str) -> Vec<String> {
        let id = RequestId(id);
        self.get = self.get.filter(|get| *get != id);
        self.post = self.post.filter(|post| *post != id);
        let body = Bytes::copy_from_slice(body.as_bytes());
        self.input(Input::Response {
            id,
            response: Response::Answered { status: 200, body, binary: false },
        })
    }

    fn answer_get(&mut self, body: &str) -> Vec<String> {
        let id = self.get.unwrap();
        self.answer(id.0, body)
    }

    fn answer_post(&mut self) -> Vec<String> {
        let id = self.post.unwrap();
        self.answer(id.0, "ok")
    }

    fn posts_with(&self, text: &str) -> usize {
        self.posted.iter().filter(|post| post.contains(text)).count()
    }

    fn hear(&mut self, text: &str) -> Vec<String> {
        self.input(Input::Message(Message::Text(text.into())))
    }

    fn lose_websocket(&mut self) -> Vec<String> {
        self.input(Input::WebSocketLost { why: Lost::Failed, detail: String::new() })
    }

    /// Sets the clock to so many milliseconds after the start.
    fn wait(&mut self, millis: u32) -> Vec<String> {
        self.now = Time::ZERO + MS * millis;
        self.input(Input::Timeout)
    }
}

fn describe(output: &Output) -> String {
    match output {
        Output::Request(request) => {
            let RequestId(id) = request.id;
            let head = format!("{} {id} {}", request.method(), request.target);
            match request.content() {
                Some((_, bytes)) => format!("{head} {}", String::from_utf8_lossy(bytes)),
                None => head,
            }
        }
        Output::OpenWebSocket { target } => format!("DIAL {target}"),
        Output::Send(packet) => {
            let payload = engineio::ws_payload(Version::V4, packet);
            match payload.opcode {
                websocket::OpCode::Binary => format!("SEND {:?}", payload.data),
                _ => format!(
                    "SEND {}",
                    String::from_utf8([payload.head, &payload.data].concat()).unwrap()
                ),
            }
        }
        Output::CloseWebSocket => "CLOSE".to_owned(),
        Output::Event(Event::Event { namespace, args, ack }) => {
            let asks = ack.map_or(String::new(), |id| format!(" asks {id}"));
            let with = match args.attachments() {
                [] => String::new(),
                some => format!(
                    " with {:?}",
                    some.iter().map(|bytes| bytes.to_vec()).collect::<Vec<_>>()
                ),
            };
            format!("Event {namespace} {}{asks}{with}", args.json())
        }
        Output::Event(Event::Ack { namespace, token, result: Ok(args) }) => {
            format!("Ack {namespace} {token} Ok {}", args.json())
        }
        Output::Event(Event::Ack { namespace, token, result: Err(error) }) => {
            format!("Ack {namespace} {token} Err {error:?}")
        }
        Output::Event(Event::Unsent { namespace, args, why }) => {
            format!(
                "Unsent {namespace} {} {why:?}",
                if args.bytes() < 100 { args.json() } else { "…" }
            )
        }
        Output::Event(Event::Closed { reason, detail }) => match (reason, detail.as_str()) {
            (CloseReason::Refused { .. } | CloseReason::Requested, detail)
                if !detail.is_empty() =>
            {
                format!("Closed: {}, {detail}", reason.name())
            }
            _ => format!("Closed: {}", reason.name()),
        },
        Output::Event(event) => format!("{event:?}"),
    }
}
