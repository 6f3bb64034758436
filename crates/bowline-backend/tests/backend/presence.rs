//! What an app hears of clients that lose their connection and come back.

use std::time::Duration;

use bowline_backend::Options;
use bowline_dial::{Wire, WireSocket};
use bowline_net::{Builder, Continuity, Keeping};
use bowline_proto::websocket::Message;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::{App, Asked, Reply, Running, SOON, ack, answer};

#[tokio::test]
async fn a_client_that_loses_its_connection_is_away_and_then_back() {
    let app = App::start(hospitable).await;
    let server = start(&app, SOON, |_| {});
    let mut tab = Tab::open(&server, &json!({"user": 7})).await.unwrap();
    assert_eq!(tab.ask("1", &json!(["e", 1])).await, json!([1]));
    let (sid, pid) = (tab.sid.clone(), tab.pid.clone());
    drop(tab);
    app.wait_for(3).await;
    let mut tab = Tab::come_back(&server, &pid).await.unwrap();
    assert_eq!((&tab.sid, &tab.pid), (&sid, &pid), "it is the same socket");
    assert_eq!(tab.ask("2", &json!(["e", 2])).await, json!([2]));
    tab.send("41").await;
    let seen = app.wait_for(6).await;
    let kinds: Vec<_> = seen.iter().map(Asked::kind).collect();
    assert_eq!(kinds, ["connect", "event", "away", "back", "event", "disconnect"]);
    assert!(seen.iter().all(|asked| asked.body["sid"] == json!(sid)));
    assert_eq!(seen[0].body["recovered"], false);
    let away = json!({"type": "away", "namespace": "/", "sid": sid, "reason": "transport close"});
    assert_eq!(seen[2].body, away);
    let back = json!({"type": "back", "namespace": "/", "sid": sid, "reason": null});
    assert_eq!(seen[3].body, back);
    assert_eq!(seen[4].body["rooms"], json!(["lobby"]), "it has stayed in its room");
    assert_eq!(seen[4].body["data"], json!({"user": 7}));
    assert_eq!(seen[5].body["reason"], "client namespace disconnect");
}

#[tokio::test]
async fn a_client_that_is_back_before_it_was_missed_is_away_and_back_at_once() {
    let app = App::start(hospitable).await;
    let server = start(&app, SOON, |_| {});
    let old = Tab::open(&server, &json!({})).await.unwrap();
    let (sid, pid) = (old.sid.clone(), old.pid.clone());
    let mut new = Tab::come_back(&server, &pid).await.unwrap();
    assert_eq!(new.sid, sid);
    old.until_closed().await;
    assert_eq!(new.ask("1", &json!(["e", 1])).await, json!([1]));
    let seen = app.seen();
    let kinds: Vec<_> = seen.iter().map(Asked::kind).collect();
    assert_eq!(kinds, ["connect", "away", "back", "event"]);
}

#[tokio::test]
async fn a_client_that_stays_away_has_left_when_the_window_is_over() {
    let app = App::start(hospitable).await;
    let server = start(&app, Duration::from_millis(200), |_| {});
    let tab = Tab::open(&server, &json!({})).await.unwrap();
    let (sid, pid) = (tab.sid.clone(), tab.pid.clone());
    drop(tab);
    let seen = app.wait_for(3).await;
    assert_eq!(seen[1].kind(), "away");
    assert_eq!(seen[2].kind(), "disconnect");
    assert_eq!(seen[2].body["reason"], seen[1].body["reason"]);
    // Whoever comes now is somebody new.
    let tab = Tab::come_back(&server, &pid).await.unwrap();
    assert_ne!(tab.sid, sid);
    let seen = app.wait_for(4).await;
    assert_eq!((seen[3].kind(), &seen[3].body["recovered"]), ("connect", &json!(false)));
    assert_eq!(seen[3].body["auth"], json!(null), "pid and offset are not for apps");
}

#[tokio::test]
async fn a_client_that_takes_no_part_leaves_with_its_connection() {
    let app = App::start(hospitable).await;
    let server = start(&app, SOON, |_| {});
    drop(server.connect("/").await.unwrap());
    let seen = app.wait_for(2).await;
    assert_eq!(seen[1].kind(), "disconnect");
}

#[tokio::test]
async fn an_app_that_wants_to_be_asked_again_is_asked_who_comes_back() {
    let app = App::start(|asked| match asked.kind() {
        "connect" if asked.body["recovered"] == true => {
            answer(&json!({"allow": true, "rooms": ["second"], "data": {"times": 2}}))
        }
        _ => hospitable(asked),
    })
    .await;
    let server = start(&app, SOON, |options| options.recheck = true);
    let tab = Tab::open(&server, &json!({"user": 7})).await.unwrap();
    let (sid, pid) = (tab.sid.clone(), tab.pid.clone());
    drop(tab);
    app.wait_for(2).await;
    let again = json!({"pid": pid, "token": "new"});
    let mut tab = Tab::open(&server, &again).await.unwrap();
    assert_eq!(tab.ask("1", &json!(["e"])).await, json!([]));
    let seen = app.wait_for(5).await;
    let kinds: Vec<_> = seen.iter().map(Asked::kind).collect();
    assert_eq!(kinds, ["connect", "away", "connect", "back", "event"]);
    let asked = &seen[2].body;
    assert_eq!((&asked["sid"], &asked["recovered"]), (&json!(sid), &json!(true)));
    assert_eq!(asked["auth"], json!({"token": "new"}));
    assert_eq!((&asked["rooms"], &asked["data"]), (&json!(["lobby"]), &json!({"user": 7})));
    assert_eq!(asked["headers"]["user-agent"], json!(["Mozilla/5.0 (a test)"]));
    let (rooms, data) = (&seen[4].body["rooms"], &seen[4].body["data"]);
    assert_eq!((rooms, data), (&json!(["lobby", "second"]), &json!({"times": 2})));
}

#[tokio::test]
async fn who_may_not_come_back_stays_away_and_may_try_again() {
    let app = App::start(|asked| match (asked.kind(), asked.body["auth"]["token"].as_str()) {
        ("connect", Some("bad")) => answer(&json!({"allow": false, "message": "not you"})),
        ("connect", Some("crash")) => Reply::from("").then_close(),
        _ => hospitable(asked),
    })
    .await;
    let server = start(&app, SOON, |options| options.recheck = true);
    let tab = Tab::open(&server, &json!({"user": 7})).await.unwrap();
    let (sid, pid) = (tab.sid.clone(), tab.pid.clone());
    drop(tab);
    app.wait_for(2).await;
    let refused = Tab::open(&server, &json!({"pid": pid, "token": "bad"})).await.err().unwrap();
    assert_eq!(refused, json!({"message": "not you"}));
    let refused = Tab::open(&server, &json!({"pid": pid, "token": "crash"})).await.err().unwrap();
    assert_eq!(refused["data"]["code"], "backend-unavailable");
    let tab = Tab::open(&server, &json!({"pid": pid, "token": "good"})).await.unwrap();
    assert_eq!(tab.sid, sid);
    let seen = app.wait_for(6).await;
    // Nobody has left, and nobody was back in between.
    let kinds: Vec<_> = seen.iter().map(Asked::kind).collect();
    assert_eq!(kinds, ["connect", "away", "connect", "connect", "connect", "back"]);
}

#[tokio::test]
async fn the_answer_to_one_who_comes_back_does_not_let_in_another() {
    let app = App::start(|asked| match asked.body["auth"]["token"].as_str() {
        Some("slow") => Reply::wait_for(answer(&json!({"allow": true})), |seen| {
            seen.iter().any(|asked| asked.head.starts_with("GET /go"))
        }),
        Some("stolen") => answer(&json!({"allow": false, "message": "not you"})),
        _ => hospitable(asked),
    })
    .await;
    let server = start(&app, SOON, |options| options.recheck = true);
    let pid = Tab::open(&server, &json!({})).await.unwrap().pid;
    app.wait_for(2).await;
    let (slow, stolen) =
        (json!({"pid": pid, "token": "slow"}), json!({"pid": pid, "token": "stolen"}));
    let first = Tab::open(&server, &slow);
    let second = async {
        app.wait_for(3).await;
        let second = Tab::open(&server, &stolen);
        let go = async {
            server.counted(|stats| stats.waiting >= 1).await;
            app.poke("GET /go HTTP/1.1\r\n\r\n").await;
        };
        tokio::join!(second, go).0
    };
    let (_, second) = tokio::join!(first, second);
    assert_eq!(second.err().unwrap(), json!({"message": "not you"}));
}

#[tokio::test]
async fn requests_are_one_after_the_other_over_the_end_of_a_connection() {
    let app = App::start(|asked| match asked.body["args"][0].as_i64() {
        Some(1) => Reply::wait_for(answer(&json!({"data": {"seen": 1}})), |seen| {
            seen.iter().any(|asked| asked.head.starts_with("GET /go"))
        }),
        _ => hospitable(asked),
    })
    .await;
    let server = start(&app, SOON, |_| {});
    let mut tab = Tab::open(&server, &json!({})).await.unwrap();
    tab.send(r#"42["e",1]"#).await;
    app.wait_for(2).await;
    let pid = tab.pid.clone();
    drop(tab);
    server.counted(|stats| stats.waiting == 1).await;
    let mut tab = Tab::come_back(&server, &pid).await.unwrap();
    tab.send(r#"42["e",2]"#).await;
    server.counted(|stats| stats.waiting == 3).await;
    assert_eq!(app.seen().len(), 2, "the first event has not been answered");
    app.poke("GET /go HTTP/1.1\r\n\r\n").await;
    let seen = app.wait_for(6).await;
    let kinds = seen.iter().map(Asked::kind).filter(|kind| !kind.is_empty());
    assert_eq!(kinds.collect::<Vec<_>>(), ["connect", "event", "away", "back", "event"]);
    assert_eq!(seen[5].body["data"], json!({"seen": 1}), "what the answer said holds");
    assert_eq!(app.most_at_once(), 2, "the poke, and one of the client");
}

#[tokio::test]
async fn an_event_that_its_client_has_named_is_one_message_however_often_it_comes() {
    let app = App::start(hospitable).await;
    let server = start(&app, SOON, |_| {});
    let mut tab = Tab::open(&server, &json!({})).await.unwrap();
    let event = json!(["e", {"id": "a-7"}]);
    let first = tab.ask("1", &event).await;
    assert_eq!(first, json!([{"id": "a-7"}]));
    // Sent again, as clients do that have not seen the answer: the app is not asked again.
    let (sid, pid) = (tab.sid.clone(), tab.pid.clone());
    drop(tab);
    app.wait_for(3).await;
    let mut tab = Tab::come_back(&server, &pid).await.unwrap();
    assert_eq!(tab.ask("2", &event).await, first);
    assert_eq!(tab.ask("3", &json!(["e", {"id": "a.8"}])).await, json!([{"id": "a.8"}]));
    assert_eq!(tab.ask("4", &json!(["e", {}])).await, json!([{}]));
    let seen = app.seen();
    let events: Vec<_> = seen.iter().filter(|asked| asked.kind() == "event").collect();
    let ids: Vec<_> = events.iter().map(|asked| asked.header("webhook-id").unwrap()).collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert_eq!(ids[0], format!("evt_{sid}_a-7"));
    assert!(ids[1].starts_with(&format!("evh_{sid}_")), "{}", ids[1]);
    assert!(ids[2].starts_with("msg_"), "{}", ids[2]);
}

#[tokio::test]
async fn after_a_restart_the_app_hears_who_is_back_and_who_did_not_come() {
    let app = App::start(hospitable).await;
    let directory = tempfile::tempdir().unwrap();
    let saved = |builder: Builder| builder.state_file(directory.path().join("state"));
    let window = Duration::from_secs(4);
    let server = start_with(&app, window, |_| {}, saved);
    let one = Tab::open(&server, &json!({"user": 1})).await.unwrap();
    let two = Tab::open(&server, &json!({"user": 2})).await.unwrap();
    let (sid, pid, lost) = (one.sid.clone(), one.pid.clone(), two.sid.clone());
    tokio::join!(server.stop(), one.until_closed(), two.until_closed());
    let seen = app.wait_for(4).await;
    for asked in &seen[2..] {
        assert_eq!(asked.kind(), "away");
        assert_eq!(asked.body["reason"], "server shutting down");
    }

    let server = start_with(&app, window, |_| {}, saved);
    let mut tab = Tab::come_back(&server, &pid).await.unwrap();
    assert_eq!(tab.sid, sid);
    assert_eq!(tab.ask("1", &json!(["e"])).await, json!([]));
    let seen = app.wait_for(7).await;
    let after = seen[4..].iter().map(|asked| (asked.kind(), asked.body["sid"].clone()));
    let wanted = [("back", json!(sid)), ("event", json!(sid)), ("disconnect", json!(lost))];
    assert_eq!(after.collect::<Vec<_>>(), wanted);
    assert_eq!(seen[5].body["data"], json!({"user": 1}));
    assert_eq!(seen[6].body["reason"], "server shutting down");
}

#[tokio::test]
async fn others_are_served_while_an_app_does_not_hear_who_is_away() {
    let app = App::start(|asked| match asked.kind() {
        "away" => Reply::never(),
        _ => hospitable(asked),
    })
    .await;
    let server = start(&app, SOON, |options| options.timeout = Duration::from_millis(300));
    let tab = Tab::open(&server, &json!({})).await.unwrap();
    let pid = tab.pid.clone();
    drop(tab);
    app.wait_for(2).await;
    let client = server.connect("/").await.unwrap();
    assert_eq!(ack(&client, &json!(["e", 1])).await, json!([1]));
    // It has failed, and is counted; the client comes back all the same.
    server.counted(|stats| stats.requests[2] == 1).await;
    let mut tab = Tab::come_back(&server, &pid).await.unwrap();
    assert_eq!(tab.ask("1", &json!(["e", 2])).await, json!([2]));
}

/// An app that lets everybody in and acks with what it got.
fn hospitable(asked: &Asked) -> Reply {
    match asked.kind() {
        "connect" => {
            answer(&json!({"allow": true, "rooms": ["lobby"], "data": asked.body["auth"]}))
        }
        "event" => answer(&json!({"ack": asked.body["args"]})),
        _ => answer(&json!({})),
    }
}

fn start(app: &App, window: Duration, change: impl FnOnce(&mut Options)) -> Running {
    start_with(app, window, change, |builder| builder)
}

fn start_with(
    app: &App,
    window: Duration,
    change: impl FnOnce(&mut Options),
    describe: impl FnOnce(Builder) -> Builder,
) -> Running {
    Running::built(app.address, change, |builder, backend| {
        describe(builder)
            .continuity(Continuity { window, ..Continuity::default() })
            .namespace("/", backend)
            .keeping(Keeping { event_id: "/0/id".parse().ok(), ..Keeping::default() })
    })
}

/// A browser's tab, as far as this matters. Dropped, its connection ends without a word.
struct Tab {
    socket: WireSocket,
    sid: String,
    pid: String,
}

impl Tab {
    /// Connects, or says how it was refused.
    async fn open(server: &Running, auth: &Value) -> Result<Self, Value> {
        let headers = vec![("user-agent".to_owned(), "Mozilla/5.0 (a test)".to_owned())];
        let options = bowline_dial::Options { headers, ..bowline_dial::Options::default() };
        let wire = Wire::new(&server.url(""), &options).unwrap();
        let socket = wire.websocket("/socket.io/?EIO=4&transport=websocket").await.unwrap();
        let mut tab = Self { socket, sid: String::new(), pid: String::new() };
        assert!(tab.packet().await.starts_with("0{"));
        tab.send(&format!("40{auth}")).await;
        let answered = tab.packet().await;
        let (kind, rest) = answered.split_at(2);
        let data: Value = serde_json::from_str(rest).unwrap();
        if kind != "40" {
            return Err(data);
        }
        tab.sid = data["sid"].as_str().unwrap().to_owned();
        tab.pid = data["pid"].as_str().expect("a browser gets a pid").to_owned();
        Ok(tab)
    }

    async fn come_back(server: &Running, pid: &str) -> Result<Self, Value> {
        Self::open(server, &json!({ "pid": pid })).await
    }

    /// Waits until the server closes its connection.
    async fn until_closed(mut self) {
        while timeout(SOON, self.socket.receive()).await.unwrap().is_ok() {}
    }

    async fn send(&mut self, packet: &str) {
        self.socket.send(packet).await.unwrap();
    }

    /// Sends an event with an ack of this number, and waits for it.
    async fn ask(&mut self, number: &str, event: &Value) -> Value {
        self.send(&format!("42{number}{event}")).await;
        let wanted = format!("43{number}");
        loop {
            if let Some(args) = self.packet().await.strip_prefix(&wanted) {
                return serde_json::from_str(args).unwrap();
            }
        }
    }

    /// The next packet that is no ping.
    async fn packet(&mut self) -> String {
        loop {
            match timeout(SOON, self.socket.receive()).await.unwrap().unwrap() {
                Message::Text(text) if text == "2" => self.send("3").await,
                Message::Text(text) => return text.to_string(),
                Message::Binary(_) => {}
            }
        }
    }
}
