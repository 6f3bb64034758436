//! What operators do to a running server: look at it, send somebody away, log packets, change its
//! configuration.
//!
//! Nothing sleeps: a test waits for what must come, and every read has a deadline.

#![expect(clippy::disallowed_methods, reason = "deadlines of tests are real time")]
#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    reason = "helpers of tests fail like the tests"
)]

use std::{
    fmt,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Mutex, OnceLock},
    thread,
    time::{Duration, Instant},
};

use bowline_net::{
    Ack, BindError, Broadcast, Builder, ConnectRequest, Context, Echo, Handle, Handler, LimitKey,
    Limits, Measured, PacketLogError, Relay, Server, SessionLimits, Sid, SocketFilter, SocketRef,
    Tls, WebSocketEnd, Whom, socketio::Args,
};
use bowline_proto::websocket::{
    CloseFrame, DecodeConfig, Decoder, Incoming, Message, OpCode, Role, encode,
};
use tokio::sync::oneshot;
use tracing::{Event, Metadata, Subscriber, field, span};

// Looking.

#[test]
fn sockets_of_all_shards_are_listed_with_what_is_known_of_them() {
    let server = Running::start(rooms().shards(2));
    let mut red: Vec<_> = (0..6).map(|_| Client::join(&server, "/red")).collect();
    let blue = Client::join(&server, "/blue");
    let list = server.ask(server.handle.sockets(SocketFilter::default()));
    assert_eq!((list.total, list.sockets.len()), (7, 7));

    let of = |namespace: &str, room: Option<&str>, limit: Option<usize>| {
        let filter = SocketFilter {
            namespace: Some(namespace.to_owned()),
            room: room.map(str::to_owned),
            limit,
        };
        server.ask(server.handle.sockets(filter))
    };
    let list = of("/blue", None, None);
    assert_eq!((list.total, list.sockets.len()), (1, 1));
    let socket = &list.sockets[0];
    assert_eq!((socket.sid, &*socket.namespace), (blue.socket, "/blue"));
    assert_eq!((socket.transport, socket.protocol), (Some("websocket"), Some(4)));
    assert_eq!(socket.address, Some("127.0.0.1".parse().unwrap()));
    assert_eq!((&*socket.rooms, socket.rooms_total), (&["lobby".to_owned()][..], 1));
    assert!(!socket.packet_log);

    let list = of("/red", None, Some(4));
    assert_eq!((list.total, list.sockets.len()), (6, 4));
    assert_eq!(of("/red", Some("lobby"), Some(0)).total, 6);
    assert_eq!(of("/red", Some("nowhere"), None).total, 0);
    let own = red[3].socket;
    let list = of("/red", Some(&own.to_string()), None);
    assert_eq!(list.sockets.iter().map(|it| it.sid).collect::<Vec<_>>(), [own]);

    red.pop().unwrap().leave();
    wait_for(|| of("/red", None, None).total == 5);
}

#[test]
fn a_room_is_counted_over_all_shards() {
    let server = Running::start(rooms().shards(3));
    let _red: Vec<_> = (0..8).map(|_| Client::join(&server, "/red")).collect();
    let _blue = Client::join(&server, "/blue");
    let list = server.ask(server.handle.rooms(None));
    let rooms: Vec<_> =
        list.rooms.iter().map(|it| (&*it.namespace, &*it.name, it.sockets)).collect();
    assert_eq!(rooms, [("/blue", "lobby", 1), ("/red", "lobby", 8)]);
    assert!(!list.more);
    let list = server.ask(server.handle.rooms(Some("/blue".to_owned())));
    assert_eq!(list.rooms.len(), 1);
}

#[test]
fn lists_of_rooms_are_bounded_and_say_that_there_are_more() {
    let server = Running::start(builder().namespace("/", ManyRooms).shards(2));
    let _clients: Vec<_> = (0..4).map(|_| Client::join(&server, "/")).collect();
    let list = server.ask(server.handle.rooms(None));
    assert_eq!((list.rooms.len(), list.more), (1_000, true));
    // Each client is in every room, wherever it lives.
    assert!(list.rooms.iter().all(|room| room.sockets == 4));
    let list = server.ask(server.handle.sockets(SocketFilter::default()));
    assert_eq!((list.sockets[0].rooms.len(), list.sockets[0].rooms_total), (100, 1_200));
}

#[test]
fn sessions_and_their_ends_are_counted_and_timed() {
    let server = Running::start(builder().namespace("/", Echo).shards(2));
    let stays = Client::join(&server, "/");
    let leaves = Client::join(&server, "/");
    let vanishes = Client::join(&server, "/");
    leaves.close();
    drop(vanishes);
    wait_for(|| server.stats().sessions_websocket == 1);
    let stats = server.stats();
    assert_eq!(stats.websocket_ends[WebSocketEnd::Client as usize], 1);
    assert_eq!(stats.websocket_ends[WebSocketEnd::Cut as usize], 1);
    assert_eq!(stats.hub.measured[Measured::Handshake as usize].count(), 3);
    assert_eq!(stats.hub.measured[Measured::Session as usize].count(), 2);
    assert_eq!(stats.idle_cut, None);

    let sid = stays.socket;
    assert_eq!(server.ask(server.handle.disconnect_from("/", Whom::Sid(sid), true)), 1);
    wait_for(|| server.stats().websocket_ends[WebSocketEnd::Server as usize] == 1);
}

// Sending away.

#[test]
fn one_socket_is_disconnected_and_the_others_of_its_session_stay() {
    let server = Running::start(rooms().shards(2));
    let mut client = Client::join(&server, "/red");
    client.say("40/blue,");
    client.hear();
    let sid = client.socket;
    let gone = |namespace, whom| server.ask(server.handle.disconnect_from(namespace, whom, false));
    assert_eq!(gone("/blue", Whom::Sid(sid)), 0, "it is not in that namespace");
    assert_eq!(gone("/red", Whom::Sid(sid)), 1);
    assert_eq!(client.hear(), "41/red,");
    assert_eq!(gone("/red", Whom::Sid(sid)), 0);
    client.say("42/blue,[\"still here\"]");
    assert_eq!(client.hear(), "42/blue,[\"still here\"]");
}

#[test]
fn a_room_is_emptied_on_all_shards() {
    let server = Running::start(rooms().shards(2));
    let mut red: Vec<_> = (0..6).map(|_| Client::join(&server, "/red")).collect();
    let mut blue = Client::join(&server, "/blue");
    let whom = Whom::Room("lobby".to_owned());
    assert_eq!(server.ask(server.handle.disconnect_from("/red", whom, true)), 6);
    for client in &mut red {
        assert_eq!(client.hear(), "41/red,");
        assert_eq!(client.close_code(), None);
    }
    blue.say("42/blue,[\"still here\"]");
    assert_eq!(blue.hear(), "42/blue,[\"still here\"]");
    // A shard that does not exist has no sockets.
    let nobody = Whom::Sid(Sid::new(250, [0; 14]));
    assert_eq!(server.ask(server.handle.disconnect_from("/", nobody, false)), 0);
}

#[test]
fn a_room_too_large_for_one_turn_is_emptied_all_the_same() {
    const CLIENTS: usize = 250;
    let server = Running::start(rooms());
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Client::join(&server, "/red")).collect();
    let whom = Whom::Room("lobby".to_owned());
    assert_eq!(server.ask(server.handle.disconnect_from("/red", whom, false)), CLIENTS);
    for client in &mut clients {
        assert_eq!(client.hear(), "41/red,");
    }
    assert_eq!(server.ask(server.handle.sockets(SocketFilter::default())).total, 0);
}

// Logging packets.

#[test]
fn packets_of_one_session_are_logged_both_ways_without_its_secrets() {
    let server = Running::start(rooms().shards(2));
    let mut client = Client::join(&server, "/red");
    let mut other = Client::join(&server, "/red");
    assert!(packets(client.socket).is_empty());
    let logged = server.handle.packet_logs(client.socket, Some(Duration::from_secs(60)));
    server.ask(logged).unwrap();
    let list = server.ask(server.handle.sockets(SocketFilter::default()));
    let on: Vec<_> = list.sockets.iter().filter(|it| it.packet_log).map(|it| it.sid).collect();
    assert_eq!(on, [client.socket]);

    client.say("40/blue,{\"token\":\"s3cret\"}");
    client.hear();
    client.say("42/red,[\"hi\"]");
    assert_eq!(client.hear(), "42/red,[\"hi\"]");
    client.send(OpCode::Text, b"451-/red,[\"b\",{\"_placeholder\":true,\"num\":0}]");
    client.send(OpCode::Binary, &[1, 2, 3]);
    assert_eq!(client.hear(), "451-/red,[\"b\",{\"_placeholder\":true,\"num\":0}]");
    client.next();
    other.say("42/red,[\"of another\"]");
    other.hear();
    // What goes to many is logged for the one.
    let args = Args::event("to all", &["x".repeat(2_000)]).unwrap();
    server.handle.broadcast(Broadcast::new("/red", args)).unwrap();
    client.hear();

    server.ask(server.handle.packet_logs(client.socket, None)).unwrap();
    client.say("42/red,[\"no longer\"]");
    client.hear();
    let packets = packets(client.socket);
    let all = packets.join("\n");
    assert!(!all.contains("s3cret") && !all.contains("of another"), "{all}");
    assert!(!all.contains("no longer\""), "{all}");
    let expected = [
        "direction=in transport=websocket bytes=26 packet=40/blue,…",
        "direction=out transport=websocket bytes=",
        "direction=in transport=websocket bytes=13 packet=42/red,[\"hi\"]",
        "direction=out transport=websocket bytes=13 packet=42/red,[\"hi\"]",
        "direction=in transport=websocket bytes=44 packet=451-/red,",
        "direction=in bytes=3 content=binary",
        "direction=out transport=websocket bytes=44 packet=451-/red,",
        "direction=out bytes=3 content=binary",
        "direction=out transport=websocket bytes=2020 packet=42/red,[\"to all\",\"xxx",
    ];
    let seen: Vec<_> = packets.iter().filter(|line| line.contains("direction=")).collect();
    assert_eq!(seen.len(), expected.len(), "{all}");
    for (seen, expected) in seen.iter().zip(expected) {
        assert!(seen.contains(expected), "{seen} does not contain {expected}");
    }
    assert!(seen[8].ends_with('…') && seen[8].len() < 400);
}

#[test]
fn packets_of_a_session_that_polls_are_logged_too() {
    let server = Running::start(rooms());
    let open = http(server.address, "GET", "/socket.io/?EIO=4&transport=polling", "");
    let sid = &open.split_once("\"sid\":\"").unwrap().1[..20];
    let url = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
    http(server.address, "POST", &url, "40/red,");
    let socket = socket_of(&http(server.address, "GET", &url, ""));
    server.ask(server.handle.packet_logs(socket, Some(Duration::from_secs(60)))).unwrap();
    http(
        server.address,
        "POST",
        &url,
        "42/red,[\"one\"]\u{1e}40/blue,{\"token\":\"s3cret\"}\u{1e}42/red,[\"two\"]",
    );
    http(server.address, "GET", &url, "");
    let packets = packets(socket);
    let all = packets.join("\n");
    assert!(!all.contains("s3cret") && !all.contains(sid), "{all}");
    for expected in [
        "direction=in transport=polling bytes=14 packet=42/red,[\"one\"]",
        "direction=in transport=polling bytes=26 packet=40/blue,…",
        "direction=in transport=polling bytes=14 packet=42/red,[\"two\"]",
        "direction=out transport=polling bytes=14 packet=42/red,[\"one\"]",
        "direction=out transport=polling bytes=38 packet=40/blue,{\"sid\":",
    ] {
        assert!(all.contains(expected), "{all}\ndoes not contain {expected}");
    }
}

#[test]
fn packets_of_nobody_cannot_be_logged_and_a_log_ends_by_itself() {
    let server = Running::start(rooms());
    let minute = Some(Duration::from_secs(60));
    for nobody in [Sid::new(0, [0; 14]), Sid::new(99, [0; 14])] {
        for on_for in [minute, None] {
            let answer = server.ask(server.handle.packet_logs(nobody, on_for));
            assert_eq!(answer, Err(PacketLogError::UnknownSocket));
        }
    }
    let mut client = Client::join(&server, "/red");
    server.ask(server.handle.packet_logs(client.socket, Some(Duration::ZERO))).unwrap();
    client.say("42/red,[\"too late\"]");
    client.hear();
    assert!(!packets(client.socket).join("\n").contains("too late"));

    let many: Vec<_> = (0..65).map(|_| Client::join(&server, "/red")).collect();
    let answers: Vec<_> = many
        .iter()
        .map(|client| server.ask(server.handle.packet_logs(client.socket, minute)))
        .collect();
    assert!(answers[..64].iter().all(Result::is_ok));
    assert_eq!(answers[64], Err(PacketLogError::TooMany));
}

// Changing the configuration.

#[test]
fn what_changes_counts_for_those_who_come_and_not_for_those_who_are_here() {
    let server = Running::start(rooms().ping_interval(Duration::from_secs(25)));
    let mut before = Client::open(&server);
    assert!(before.open.contains("\"pingInterval\":25000,\"pingTimeout\":20000"));
    let described = rooms()
        .ping_interval(Duration::from_secs(7))
        .ping_timeout(Duration::from_secs(3))
        .max_payload(200)
        .page("<h1>new</h1>")
        .cookie("io".to_owned())
        .cors_allowed_origins(["*"]);
    server.handle.reconfigure(described).unwrap();
    wait_for(|| Client::open(&server).open.contains("\"pingInterval\":7000,\"pingTimeout\":3000"));
    let mut after = Client::join(&server, "/red");
    assert!(after.open.contains("\"maxPayload\":200"), "{}", after.open);
    let page = http(server.address, "GET", "/", "");
    assert!(page.ends_with("<h1>new</h1>"), "{page}");
    let open = http(server.address, "GET", "/socket.io/?EIO=4&transport=polling", "");
    assert!(open.contains("set-cookie: io="), "{open}");
    assert!(open.contains("access-control-allow-origin: *"), "{open}");

    // Whoever was told that messages may be large may send them still.
    before.say("40/red,");
    before.hear();
    let large = format!("42/red,[\"{}\"]", "x".repeat(500));
    before.say(&large);
    assert_eq!(before.hear(), large);
    after.say(&large);
    assert_eq!(after.close_code(), Some(1009));
}

#[test]
fn an_upgrade_keeps_what_its_session_was_told() {
    let server = Running::start(rooms());
    let open = http(server.address, "GET", "/socket.io/?EIO=4&transport=polling", "");
    let sid = open.split_once("\"sid\":\"").unwrap().1[..20].to_owned();
    server.handle.reconfigure(rooms().max_payload(200).websocket(false)).unwrap();
    let refused = || {
        let open = http(server.address, "GET", "/socket.io/?EIO=4&transport=polling", "");
        open.contains("\"upgrades\":[]")
    };
    wait_for(refused);
    let url = format!("/socket.io/?EIO=4&transport=websocket&sid={sid}");
    let mut client = Client::upgrade(server.address, &url).unwrap();
    client.say("2probe");
    assert_eq!(client.hear(), "3probe");
    client.say("5");
    client.say("40/red,");
    client.hear();
    let large = format!("42/red,[\"{}\"]", "x".repeat(500));
    client.say(&large);
    assert_eq!(client.hear(), large);
    // Nobody else gets a WebSocket.
    assert!(Client::upgrade(server.address, WS_OPEN).is_err());
}

#[test]
fn a_transport_that_is_switched_off_stays_for_the_sessions_on_it() {
    let server = Running::start(rooms());
    let open = http(server.address, "GET", "/socket.io/?EIO=4&transport=polling", "");
    let sid = &open.split_once("\"sid\":\"").unwrap().1[..20];
    let url = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
    server.handle.reconfigure(rooms().polling(false)).unwrap();
    let refused = http(server.address, "GET", "/socket.io/?EIO=4&transport=polling", "");
    assert!(refused.contains("Transport unknown"), "{refused}");
    http(server.address, "POST", &url, "40/red,");
    assert!(http(server.address, "GET", &url, "").contains("40/red,{\"sid\""));
    Client::join(&server, "/red");
    // And on again.
    server.handle.reconfigure(rooms()).unwrap();
    let open = http(server.address, "GET", "/socket.io/?EIO=4&transport=polling", "");
    assert!(open.contains("\"sid\""), "{open}");
}

#[test]
fn namespaces_come_and_go_and_change_hands_without_dropping_anybody() {
    let server = Running::start(
        builder().namespace("/stays", Echo).namespace("/goes", Echo).namespace("/turns", Echo),
    );
    let mut stays = Client::join(&server, "/stays");
    let mut goes = Client::join(&server, "/goes");
    let mut turns = Client::join(&server, "/turns");
    let mut listens = Client::join(&server, "/turns");
    for _ in 0..3 {
        // Each time the handlers are others, and their places are the same.
        let described = builder()
            .namespace("/comes", Echo)
            .namespace("/turns", Relay)
            .namespace("/stays", Echo)
            .namespace("/turns", Echo);
        server.handle.reconfigure(described).unwrap();
        wait_for(|| Client::try_join(&server, "/comes").is_ok());
        assert_eq!(
            Client::try_join(&server, "/goes").err().unwrap(),
            "44/goes,{\"message\":\"Invalid namespace\"}"
        );
        for (client, namespace) in [(&mut stays, "/stays"), (&mut goes, "/goes")] {
            let event = format!("42{namespace},[\"hi\"]");
            client.say(&event);
            assert_eq!(client.hear(), event);
        }
        turns.say("42/turns,[\"to all\"]");
        assert_eq!(turns.hear(), "42/turns,[\"to all\"]");
        assert_eq!(listens.hear(), "42/turns,[\"to all\"]");
    }
}

#[test]
fn a_change_that_waits_for_a_disk_holds_up_nobody_who_wants_figures() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("cert.pem");
    // Whoever opens a pipe without a writer waits for one.
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let server = Running::start(rooms());
    let tls = Tls { cert_file: pipe.clone(), key_file: pipe.clone() };
    let handle = server.handle.clone();
    let change = thread::spawn(move || handle.reconfigure(rooms().tls(Some(tls))));
    let (told, figures) = std::sync::mpsc::channel();
    let handle = server.handle.clone();
    thread::spawn(move || {
        // Long enough that it reads by then. If not, the test finds nothing and fails nobody.
        thread::sleep(Duration::from_millis(200));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _ = told.send(runtime.block_on(handle.stats()).connections);
    });
    let figures = figures.recv_timeout(Duration::from_secs(30));
    // Lets the reader go.
    std::fs::write(&pipe, "none").unwrap();
    assert!(matches!(change.join().unwrap(), Err(BindError::Tls(_))));
    assert_eq!(figures, Ok(0));
}

#[test]
fn limits_change_for_those_who_wait() {
    let limits = |connections| Limits { connections: Some(connections), ..Limits::default() };
    let server = Running::start(rooms().limits(limits(2)));
    let first = Client::join(&server, "/red");
    let second = Client::join(&server, "/red");
    let refused = http(server.address, "GET", "/", "");
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert_eq!(server.stats().connections_max, 2);
    server.handle.reconfigure(rooms().limits(limits(3)).page("hello")).unwrap();
    assert_eq!(server.stats().connections_max, 3);
    assert!(http(server.address, "GET", "/", "").starts_with("HTTP/1.1 200"));

    // Lower than what is there: nobody goes.
    server.handle.reconfigure(rooms().limits(limits(1))).unwrap();
    assert!(http(server.address, "GET", "/", "").starts_with("HTTP/1.1 503"));
    for mut client in [first, second] {
        client.say("42/red,[\"still here\"]");
        assert_eq!(client.hear(), "42/red,[\"still here\"]");
    }
}

#[test]
fn a_share_of_an_address_can_be_set_while_the_server_runs() {
    let server = Running::start(rooms().page("hello"));
    let _first = Client::join(&server, "/red");
    let share = |most| {
        rooms()
            .page("hello")
            .limits(Limits { connections_per_address: Some(most), ..Limits::default() })
    };
    server.handle.reconfigure(share(1)).unwrap();
    // Whoever was here before addresses were counted counts for none.
    let second = Client::join(&server, "/red");
    assert!(http(server.address, "GET", "/", "").starts_with("HTTP/1.1 429"));
    second.leave();
    wait_for(|| http(server.address, "GET", "/", "").starts_with("HTTP/1.1 200"));
    server.handle.reconfigure(rooms().page("hello")).unwrap();
    let _more = [Client::join(&server, "/red"), Client::join(&server, "/red")];
    assert!(http(server.address, "GET", "/", "").starts_with("HTTP/1.1 200"));
}

#[test]
fn limits_of_sessions_count_at_once() {
    let server = Running::start(rooms());
    let mut client = Client::join(&server, "/red");
    let limits = SessionLimits { events_per_second: 5, ..SessionLimits::default() };
    server.handle.reconfigure(rooms().session_limits(limits)).unwrap();
    wait_for(|| {
        client.try_say("42/red,[\"on and on\"]");
        server.stats().limit_hits[LimitKey::EventsPerSecond as usize] == 1
    });
}

#[test]
fn what_contradicts_itself_changes_nothing() {
    let server = Running::start(rooms().page("before"));
    let limits = Limits { connections: Some(0), ..Limits::default() };
    let error = server.handle.reconfigure(rooms().page("after").limits(limits)).unwrap_err();
    assert!(matches!(error, BindError::Invalid(_)), "{error}");
    let nobody = server.handle.reconfigure(Server::builder().page("after")).unwrap_err();
    assert!(matches!(nobody, BindError::Invalid(_)), "{nobody}");
    assert!(http(server.address, "GET", "/", "").ends_with("before"));
}

#[test]
fn the_path_changes_for_sessions_that_open_and_stays_for_the_others() {
    let server = Running::start(rooms().path("/first/"));
    let open = http(server.address, "GET", "/first/?EIO=4&transport=polling", "");
    let sid = &open.split_once("\"sid\":\"").unwrap().1[..20];
    // A change needs no addresses, and takes no shards.
    for path in ["/second/", "/third/"] {
        let described = Server::builder().path(path).shards(7).namespace("/red", Lobby);
        server.handle.reconfigure(described).unwrap();
    }
    let url = format!("/first/?EIO=4&transport=polling&sid={sid}");
    http(server.address, "POST", &url, "40/red,");
    assert!(http(server.address, "GET", &url, "").contains("40/red,{\"sid\""));
    for (path, status) in [("/first/", 404), ("/second/", 404), ("/third/", 200), ("/other/", 404)]
    {
        let answer = http(server.address, "GET", &format!("{path}?EIO=4&transport=polling"), "");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
    for (path, upgrades) in [("/first/", false), ("/third/", true)] {
        let url = format!("{path}?EIO=4&transport=websocket");
        assert_eq!(Client::upgrade(server.address, &url).is_ok(), upgrades);
    }
    // Back where it was.
    server.handle.reconfigure(rooms().path("/first/")).unwrap();
    assert!(Client::upgrade(server.address, "/first/?EIO=4&transport=websocket").is_ok());
}

// A server, and clients made of sockets.

/// How long anything may take before a test fails.
const DEADLINE: Duration = Duration::from_secs(10);

const WS_OPEN: &str = "/socket.io/?EIO=4&transport=websocket";

fn builder() -> Builder {
    Server::builder().listen("127.0.0.1:0".parse().unwrap()).shards(1)
}

/// Two namespaces whose sockets are all in the room `lobby`, and which echo.
fn rooms() -> Builder {
    builder().namespace("/red", Lobby).namespace("/blue", Lobby)
}

struct Lobby;

impl Handler for Lobby {
    fn on_connect(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        let socket = cx.accept(request);
        cx.join(socket, "lobby");
    }

    fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, args: Args, _: Option<Ack>) {
        cx.emit(socket, args);
    }
}

struct ManyRooms;

impl Handler for ManyRooms {
    fn on_connect(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        let socket = request.socket();
        for number in 0..1_200 {
            cx.join(socket, format!("room-{number}"));
        }
        cx.accept(request);
    }

    fn on_event(&self, _: &mut Context<'_>, _: SocketRef, _: Args, _: Option<Ack>) {}
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain");
        thread::yield_now();
    }
}

struct Running {
    address: SocketAddr,
    handle: Handle,
    /// Dropped, it stops the server.
    _stop: oneshot::Sender<()>,
}

impl Running {
    fn start(builder: Builder) -> Self {
        listen_to_packets();
        let server = builder.bind().unwrap();
        let (address, handle) = (server.local_addrs()[0], server.handle());
        let (stop, stopped) = oneshot::channel::<()>();
        thread::spawn(move || {
            server.run_blocking(async {
                let _ = stopped.await;
            })
        });
        Self { address, handle, _stop: stop }
    }

    fn ask<T>(&self, question: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let bounded = async { tokio::time::timeout(DEADLINE, question).await.unwrap() };
        runtime.block_on(bounded)
    }

    fn stats(&self) -> bowline_net::Stats {
        self.ask(self.handle.stats())
    }
}

/// One request on a connection of its own: head and body of the answer.
fn http(address: SocketAddr, method: &str, url: &str, body: &str) -> String {
    let mut stream = connect(address);
    let request = format!(
        "{method} {url} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\
         Content-Type: text/plain;charset=UTF-8\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// The Socket.IO sid in the answer to a CONNECT.
fn socket_of(answer: &str) -> Sid {
    let rest = answer.split_once(",{\"sid\":\"").or_else(|| answer.split_once("40{\"sid\":\""));
    rest.unwrap().1[..20].parse().unwrap()
}

/// A Socket.IO client on a WebSocket.
struct Client {
    stream: TcpStream,
    decoder: Decoder,
    received: Vec<u8>,
    open: String,
    socket: Sid,
}

impl Client {
    fn join(server: &Running, namespace: &str) -> Self {
        Self::try_join(server, namespace).unwrap()
    }

    fn try_join(server: &Running, namespace: &str) -> Result<Self, String> {
        let mut client = Self::open(server);
        client.say(&match namespace {
            "/" => "40".to_owned(),
            namespace => format!("40{namespace},"),
        });
        let answer = client.hear();
        if answer.starts_with("44") {
            return Err(answer);
        }
        client.socket = socket_of(&answer);
        Ok(client)
    }

    fn open(server: &Running) -> Self {
        let mut client = Self::upgrade(server.address, WS_OPEN).unwrap();
        client.open = client.hear();
        client
    }

    fn upgrade(address: SocketAddr, url: &str) -> Result<Self, String> {
        let mut stream = connect(address);
        let head = format!(
            "GET {url} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut received = Vec::new();
        let end = loop {
            let end = received.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = end {
                break end + 4;
            }
            let mut byte = [0; 1024];
            let bytes = stream.read(&mut byte).unwrap();
            assert!(bytes > 0, "no answer to an upgrade");
            received.extend_from_slice(&byte[..bytes]);
        };
        let answer = String::from_utf8(received.drain(..end).collect()).unwrap();
        if !answer.starts_with("HTTP/1.1 101") {
            return Err(answer);
        }
        let decoder = Decoder::new(Role::Client);
        let socket = Sid::new(0, [0; 14]);
        Ok(Self { stream, decoder, received, open: String::new(), socket })
    }

    fn say(&mut self, text: &str) {
        self.send(OpCode::Text, text.as_bytes());
    }

    fn send(&mut self, opcode: OpCode, payload: &[u8]) {
        self.stream.write_all(&frame(opcode, payload)).unwrap();
    }

    /// The server may have closed.
    fn try_say(&mut self, text: &str) {
        let _ = self.stream.write_all(&frame(OpCode::Text, text.as_bytes()));
    }

    /// Says goodbye and waits for the answer.
    fn close(mut self) {
        self.send(OpCode::Close, &[]);
        assert!(matches!(self.next(), Incoming::Close(_)));
    }

    /// Leaves without a word.
    fn leave(self) {
        drop(self.stream);
    }

    fn next(&mut self) -> Incoming {
        let config = DecodeConfig { max_message_bytes: 10_000_000, deflate: false };
        loop {
            let mut input = &mut *self.received;
            let incoming = self.decoder.decode(&config, &mut input).unwrap();
            let rest = input.len();
            self.received.drain(..self.received.len() - rest);
            if let Some(incoming) = incoming {
                return incoming;
            }
            let mut scratch = vec![0; 64 * 1024];
            let bytes = self.stream.read(&mut scratch).unwrap();
            assert!(bytes > 0, "the server closed without a close frame");
            self.received.extend_from_slice(&scratch[..bytes]);
        }
    }

    fn hear(&mut self) -> String {
        match self.next() {
            Incoming::Message(Message::Text(text)) => text.to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn close_code(&mut self) -> Option<u16> {
        match self.next() {
            Incoming::Close(CloseFrame { code, .. }) => code,
            other => panic!("{other:?}"),
        }
    }
}

fn frame(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes, opcode, false, Some([1, 2, 3, 4]), &[payload]);
    bytes
}

// The log.

/// Lines of the packet log, of all servers of this process.
fn log() -> &'static Mutex<Vec<String>> {
    static LINES: OnceLock<Mutex<Vec<String>>> = OnceLock::new();
    LINES.get_or_init(Mutex::default)
}

/// What was logged of this socket's session.
fn packets(socket: Sid) -> Vec<String> {
    let socket = format!("sid={socket} ");
    log().lock().unwrap().iter().filter(|line| line.contains(&socket)).cloned().collect()
}

fn listen_to_packets() {
    // Another test of this process may have begun already.
    let _ = tracing::subscriber::set_global_default(Packets);
}

struct Packets;

impl Subscriber for Packets {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "packets"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        log().lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl field::Visit for Line {
    fn record_str(&mut self, field: &field::Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &field::Field, value: &dyn fmt::Debug) {
        if !self.0.is_empty() {
            self.0.push(' ');
        }
        self.0 += &format!("{}={value:?}", field.name());
    }
}
