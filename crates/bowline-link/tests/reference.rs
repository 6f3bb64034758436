//! Links to the reference server: npm socket.io, in the version that `tests/package.json` pins.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic and print")]

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command as Program, Stdio},
    time::Duration,
};

use bowline_link::{
    far::{Command, Connection, Event, Message, OpenHow, Outgoing, SharedProfile},
    profile,
    settings::{Deliver, Http, Link, Profile, Secret},
};
use bowline_proto::keeper::{self, Level, Verdict};
use bowline_store::Store;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::timeout;

/// No wait of this file may take longer.
const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_session_that_was_lost_is_recovered() {
    let Some(server) = Server::start() else { return };
    let link = server.link(4, "secret");
    let mut far = Far::open(&link, false).await;
    assert_eq!(far.event().await, json!(["welcome", { "recovered": false }]));
    for round in ["a", "b", "c"] {
        far.say(&json!(["lose", format!("{round}1"), format!("{round}2"), format!("{round}3")]))
            .await;
        let Event::Closed { verdict: Verdict::Again, .. } = far.next().await else { panic!() };
        drop(far);
        // The server has said it by then.
        tokio::time::sleep(Duration::from_millis(100)).await;
        far = Far::open(&link, false).await;
        let mut seen = Vec::new();
        while seen.len() < 4 {
            seen.push(far.event().await);
        }
        assert!(seen.contains(&json!(["welcome", { "recovered": true }])), "{seen:?}");
        seen.retain(|event| event[0] == "message");
        for (number, event) in (1..).zip(&seen) {
            assert_eq!(
                (&event[1], event[2].is_string()),
                (&json!(format!("{round}{number}")), true)
            );
        }
    }
}

#[tokio::test]
async fn two_connections_hear_the_same_and_the_older_may_go() {
    for eio in [4, 3] {
        let Some(server) = Server::start() else { return };
        let link = server.link(eio, "secret");
        let mut old = Far::open(&link, false).await;
        old.event().await;
        let mut new = Far::open(&link, true).await;
        assert_eq!(new.event().await, json!(["welcome", { "recovered": false }]));
        old.say(&json!(["say", "one", "two"])).await;
        for _ in 0..2 {
            let (first, second) = (old.message().await, new.message().await);
            assert_eq!((&first.id, &first.body), (&second.id, &second.body));
        }
        old.tell(Command::Close { within: DEADLINE }).await;
        while old.any().await.is_some() {}
        new.say(&json!(["say", "three"])).await;
        assert_eq!(new.event().await[1], "three");
    }
}

#[tokio::test]
async fn probes_pings_and_acks_work_with_it() {
    for eio in [4, 3] {
        let Some(server) = Server::start() else { return };
        let mut far = Far::open(&server.link(eio, "secret"), false).await;
        far.event().await;
        let nonce = format!("bowline-probe-{:032x}", 7);
        far.tell(Command::Probe { nonce: nonce.clone() }).await;
        assert_eq!(far.next().await, Event::Probed { nonce });
        far.tell(Command::Ping).await;
        while far.any().await.unwrap() != Event::Heard(Level::Pong) {}

        far.say(&json!(["ask", "why"])).await;
        let question = far.message().await;
        assert_eq!(question.receipt.as_deref(), Some("ack"));
        let answer = Outgoing { reply_to: Some(question.id), ..outgoing(&json!(["because", 2])) };
        far.tell(Command::Send(answer)).await;
        let answered = far.event().await;
        assert_eq!(
            (&answered[0], &answered[1], &answered[2]),
            (&json!("answered"), &json!("because"), &json!(2))
        );
    }
}

#[tokio::test]
async fn it_may_refuse_and_throw_out() {
    let Some(server) = Server::start() else { return };
    let failure = server.link(4, "wrong").open(how(false)).await.unwrap_err();
    assert_eq!(failure.verdict, Verdict::Unauthorized);
    assert!(failure.words.contains("not you"), "{}", failure.words);
    let mut far = Far::open(&server.link(4, "secret"), false).await;
    far.event().await;
    far.say(&json!(["kick"])).await;
    let Event::Closed { verdict: Verdict::Refused, .. } = far.next().await else { panic!() };
}

struct Far(Connection);

impl Far {
    async fn open(link: &SharedProfile, beside_another: bool) -> Self {
        Self(timeout(DEADLINE, link.open(how(beside_another))).await.unwrap().unwrap())
    }

    async fn tell(&self, command: Command) {
        self.0.commands.send(command).await.unwrap();
    }

    async fn say(&self, event: &Value) {
        self.tell(Command::Send(outgoing(event))).await;
    }

    async fn any(&mut self) -> Option<Event> {
        timeout(DEADLINE, self.0.events.recv()).await.unwrap()
    }

    /// The next thing that happens but signs of life.
    async fn next(&mut self) -> Event {
        loop {
            match self.any().await.unwrap() {
                Event::Heard(_) => {}
                event => return event,
            }
        }
    }

    async fn message(&mut self) -> Message {
        match self.next().await {
            Event::Message(message) => message,
            other => panic!("{other:?}"),
        }
    }

    async fn event(&mut self) -> Value {
        let mut event: Value = serde_json::from_slice(&self.message().await.body).unwrap();
        // The offset of a server that recovers stands behind it.
        if event[0] == "welcome" {
            event.as_array_mut().unwrap().truncate(2);
        }
        event
    }
}

fn how(beside_another: bool) -> OpenHow {
    OpenHow { fresh_address: false, beside_another }
}

fn outgoing(event: &Value) -> Outgoing {
    Outgoing { body: Bytes::from(event.to_string()), text: true, ask: None, reply_to: None }
}

/// The reference server in a process of its own.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start() -> Option<Self> {
        if env::var_os("BOWLINE_SKIP_NODE").is_some() {
            eprintln!("skipped: BOWLINE_SKIP_NODE is set");
            return None;
        }
        Some(Self::run())
    }

    fn run() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let package = root.join("../../tests/package.json");
        let installed = root.join("../../tests/node_modules/socket.io/package.json");
        assert!(
            installed.exists(),
            "{} is missing: `cargo xtask test` installs it, or run `npm ci` in tests/; \
             BOWLINE_SKIP_NODE=1 skips the tests that need it",
            installed.display()
        );
        let mut process = Program::new("node")
            .arg(root.join("tests/reference.mjs"))
            .arg(package)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect(
                "`node` could not be started; BOWLINE_SKIP_NODE=1 skips the tests that need it",
            );
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("the reference server printed no port");
        Self { process, port }
    }

    fn link(&self, eio: u8, token: &str) -> SharedProfile {
        let link = Link {
            name: "bot".to_owned(),
            profile: Profile::SocketIo {
                url: format!("http://127.0.0.1:{}", self.port),
                eio,
                path: "/socket.io/".to_owned(),
                auth: Some(Secret::new(r#"{"token":"{token}"}"#)),
                message_id: None,
                room: None,
                probe: Some("probe".to_owned()),
                recovery: true,
            },
            token: Some(Secret::new(token)),
            proxy: None,
            ca_file: None,
            keeper: keeper::Config::default(),
            http: Http::default(),
            deliver: Deliver::Http("app".to_owned()),
            service: None,
            confirm_timeout: Duration::from_secs(60),
            offers_max: 10,
        };
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store"));
        profile::make(&link, store.inbox()).unwrap().profile
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It ends by itself when its stdin does; nobody waits for that.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
