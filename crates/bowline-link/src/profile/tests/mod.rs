//! Profiles against small servers on loopback.

mod socketio;
mod webex;
mod websocket;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use bowline_proto::keeper::{self, Level};
use bowline_store::Store;
use bytes::Bytes;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use super::{Way, make};
use crate::{
    far::{Command, Connection, Event, Message, OpenHow, Outgoing, Profile},
    settings::{Deliver, Http, Link, Profile as Settings, Secret},
};

/// No wait of these tests may take longer.
const DEADLINE: Duration = Duration::from_secs(10);

const FIRST: OpenHow = OpenHow { fresh_address: false, beside_another: false };
const BESIDE: OpenHow = OpenHow { fresh_address: false, beside_another: true };

#[tokio::test]
async fn what_cannot_be_used_is_said_before_anything_is_connected() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("store"));
    let words = |link: &Link| make(link, store.inbox()).unwrap_err().to_string();
    let usable = link(websocket("wss://service.test/x"));
    let made = make(&usable, store.inbox()).unwrap();
    assert_eq!((made.profile.host().as_str(), made.rules.is_some()), ("service.test", true));
    assert_eq!(format!("{:?}", made.profile), r#"WebSocket { host: "service.test", .. }"#);

    let proxy = Some(Secret::new("socks5://user:word@proxy"));
    let said = words(&Link { proxy, ..usable.clone() });
    assert_eq!(said, "the proxy is not of the form http://user:password@host:port");

    let missing = directory.path().join("missing.pem");
    let said = words(&Link { ca_file: Some(missing.clone()), ..usable.clone() });
    assert!(said.starts_with(&missing.display().to_string()), "{said}");
    let empty = directory.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let said = words(&Link { ca_file: Some(empty), ..usable });
    assert!(said.ends_with("no certificate is in it"), "{said}");

    let Settings::SocketIo { url, eio, path, .. } = socketio("http://service.test") else {
        panic!()
    };
    let auth = Some(Secret::new("secret, and no object"));
    let (message_id, room, probe, recovery) = (None, None, None, true);
    let profile = Settings::SocketIo { url, eio, path, auth, message_id, room, probe, recovery };
    assert_eq!(words(&link(profile)), "`auth` is no JSON object");
}

fn link(profile: Settings) -> Link {
    Link {
        name: "bot".to_owned(),
        profile,
        token: Some(Secret::new("t\"0ken")),
        proxy: None,
        ca_file: None,
        keeper: keeper::Config::default(),
        http: Http::default(),
        deliver: Deliver::Http("app".to_owned()),
        service: None,
        confirm_timeout: Duration::from_secs(60),
        offers_max: 10,
    }
}

fn websocket(url: &str) -> Settings {
    Settings::WebSocket {
        url: url.to_owned(),
        headers: BTreeMap::from([("authorization".to_owned(), Secret::new("Bearer {token}"))]),
        hello: None,
        message_id: Some("/id".to_owned()),
        room: Some("/room".to_owned()),
        probe: Some(r#"{"echo":"{nonce}"}"#.to_owned()),
        ack: None,
        protocols: Vec::new(),
    }
}

fn socketio(url: &str) -> Settings {
    Settings::SocketIo {
        url: url.to_owned(),
        eio: 4,
        path: "/socket.io/".to_owned(),
        auth: None,
        message_id: Some("/1/id".to_owned()),
        room: Some("/1/room".to_owned()),
        probe: Some("probe".to_owned()),
        recovery: true,
    }
}

fn way() -> Way {
    Way { trust: bowline_dial::Trust::System, proxy: None }
}

/// The word of a probe.
fn nonce(number: u8) -> String {
    format!("bowline-probe-{number:032x}")
}

/// A connection of a profile, for somebody who waits for what must come.
struct Far {
    connection: Connection,
}

impl Far {
    async fn open(profile: &dyn Profile, how: OpenHow) -> Self {
        let opening = timeout(DEADLINE, profile.open(how));
        Self { connection: opening.await.unwrap().unwrap() }
    }

    async fn tell(&self, command: Command) {
        self.connection.commands.send(command).await.unwrap();
    }

    async fn say(&self, body: &str) {
        self.tell(Command::Send(outgoing(body))).await;
    }

    /// The next thing that happens, whatever it is.
    async fn any(&mut self) -> Option<Event> {
        timeout(DEADLINE, self.connection.events.recv()).await.unwrap()
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

    async fn until_pong(&mut self) {
        while self.any().await.unwrap() != Event::Heard(Level::Pong) {}
    }
}

fn outgoing(body: &str) -> Outgoing {
    Outgoing {
        body: Bytes::copy_from_slice(body.as_bytes()),
        text: true,
        ask: None,
        reply_to: None,
    }
}

/// What connections go through until they are cut.
struct Cable {
    address: SocketAddr,
    cut: watch::Sender<u64>,
    _task: JoinSet<()>,
}

impl Cable {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = watch::Sender::new(0);
        let mut task = JoinSet::new();
        task.spawn({
            let cut = cut.clone();
            async move {
                let mut wires = JoinSet::new();
                loop {
                    let (mut client, _) = listener.accept().await.unwrap();
                    let mut cut = cut.subscribe();
                    cut.mark_unchanged();
                    wires.spawn(async move {
                        let mut server = TcpStream::connect(server).await.unwrap();
                        tokio::select! {
                            _ = copy_bidirectional(&mut client, &mut server) => {}
                            _ = cut.changed() => {}
                        }
                    });
                }
            }
        });
        Self { address, cut, _task: task }
    }

    fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }
}
