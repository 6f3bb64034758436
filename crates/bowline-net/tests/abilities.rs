//! What applications can have done beyond events: clients let in from other threads, data kept with
//! sockets, an end at a certain time, acks of many, broadcasts that wait, rooms from outside.
//!
//! Nothing sleeps: a test waits for what must come, and every read has a deadline.

#![expect(clippy::disallowed_methods, reason = "deadlines of tests are real time")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like the tests")]

mod client;

use std::{
    net::SocketAddr,
    sync::{Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use bowline_net::{
    Ack, Broadcast, Builder, Busy, ConnectRequest, Context, Delivery, DisconnectReason, ErrorCode,
    Gathered, Handle, Handler, HeldEnd, Server, SessionLimits, SessionRef, Sid, SocketData,
    SocketRef, Stats, Whom, socketio::Args,
};
use client::{DEADLINE, run};
use tokio::sync::oneshot;

const MINUTE: Duration = Duration::from_secs(60);

// Letting in.

#[test]
fn a_client_let_in_from_another_thread_has_rooms_and_data_before_it_hears_so() {
    let (asked, requests) = mpsc::channel();
    let server = Running::start(builder().namespace("/", Waits(Mutex::new(asked))).shards(2));
    for _ in 0..4 {
        let mut client = Client::open(&server);
        client.say("40{\"token\":\"t\"}");
        let request: ConnectRequest = requests.recv_timeout(DEADLINE).unwrap();
        assert_eq!(&**request.auth().unwrap(), "{\"token\":\"t\"}");
        assert_eq!(request.handshake().query, "EIO=4&transport=websocket");
        assert!(request.handshake().headers.iter().any(|(name, _)| name == "host"));
        assert!(request.handshake().address.is_some());
        let sid = request.sid();
        let data = SocketData::new("{\"user\":7}").unwrap();
        let socket = server.handle.accept_with(request, ["red", "blue"], Some(data));
        server.handle.emit(socket, args("[\"after\"]")).unwrap();
        server.handle.broadcast(Broadcast::new("/", args("[\"to red\"]")).to("red")).unwrap();
        assert_eq!(client.hear(), format!("40{{\"sid\":\"{sid}\"}}"));
        assert_eq!(client.hear(), "42[\"after\"]");
        assert_eq!(client.hear(), "42[\"to red\"]");
        client.say("421[\"who am i\"]");
        assert_eq!(client.hear(), format!("431[\"{sid}\",{{\"user\":7}},[\"red\",\"blue\"]]"));
        let leave = server.handle.leave_room("/", Whom::All, ["red"]);
        assert_eq!(server.ask(leave), 1);
        drop(client);
        wait_for(|| server.stats().sessions_websocket == 0);
    }
}

#[test]
fn namespaces_of_a_session_are_told_by_their_requests_to_be_of_one() {
    let (asked, requests) = mpsc::channel();
    let waits = || Waits(Mutex::new(asked.clone()));
    let server = Running::start(builder().namespace("/", waits()).namespace("/b", waits()));
    let mut client = Client::open(&server);
    client.say("40");
    client.say("40/b,");
    let sessions: Vec<SessionRef> = (0..2)
        .map(|_| {
            let request: ConnectRequest = requests.recv_timeout(DEADLINE).unwrap();
            let session = request.session();
            server.handle.accept(request);
            client.hear();
            session
        })
        .collect();
    assert_eq!(sessions[0], sessions[1]);
    let mut other = Client::open(&server);
    other.say("40");
    let request = requests.recv_timeout(DEADLINE).unwrap();
    assert_ne!(request.session(), sessions[0]);
    // Nobody answers it.
    drop(request);
    assert_eq!(other.hear(), "44{\"message\":\"Unanswered\"}");
}

#[test]
fn data_is_replaced_from_outside_and_goes_no_further_than_its_socket() {
    let server = Running::start(builder().namespace("/", Asks).shards(2));
    let mut clients: Vec<_> = (0..4).map(|_| Client::join(&server, "/")).collect();
    let sid = clients[1].socket;
    // What is asked after a wish comes after it.
    let find = || server.ask(server.handle.socket_by_sid("/", sid)).unwrap();
    let socket = find();
    for text in ["1", "2"] {
        let data = SocketData::new(text).unwrap();
        server.handle.set_data(socket, Some(data)).unwrap();
    }
    find();
    for (index, client) in clients.iter_mut().enumerate() {
        let expected = if index == 1 { "2" } else { "null" };
        client.say("420[\"who am i\"]");
        assert_eq!(client.hear(), format!("430[\"{}\",{expected},[]]", client.socket));
    }
    server.handle.set_data(socket, None).unwrap();
    find();
    clients[1].say("420[\"who am i\"]");
    assert!(clients[1].hear().contains(",null,"));
}

// An end.

#[test]
fn a_socket_whose_time_is_over_is_told_why_and_sent_away() {
    let (gone, reasons) = mpsc::channel();
    let server = Running::start(builder().namespace("/", Ends(Mutex::new(gone))));
    let mut client = Client::join(&server, "/");
    let socket = server.ask(server.handle.socket_by_sid("/", client.socket)).unwrap();
    server.handle.expire(socket, MINUTE, ErrorCode::TokenExpired).unwrap();
    client.say("42[\"still here\"]");
    assert_eq!(client.hear(), "42[\"still here\"]");
    server.handle.expire(socket, Duration::ZERO, ErrorCode::TokenExpired).unwrap();
    assert_eq!(
        client.hear(),
        "42[\"error\",{\"code\":\"token-expired\",\"message\":\"The token has expired.\"}]"
    );
    assert_eq!(client.hear(), "41");
    let reason = reasons.recv_timeout(DEADLINE).unwrap();
    assert_eq!(reason, DisconnectReason::ServerNamespaceDisconnect);
    assert_eq!(server.ask(server.handle.socket_by_sid("/", client.socket)), None);
}

// Acks of many.

#[test]
fn acks_are_gathered_from_all_shards_and_those_that_miss_are_counted() {
    let server = Running::start(builder().namespace("/", Asks).namespace("/b", Asks).shards(3));
    let mut clients: Vec<_> = (0..8).map(|_| Client::join(&server, "/")).collect();
    let _elsewhere = Client::join(&server, "/b");
    let excepted = clients[7].socket;
    let handle = server.handle.clone();
    let (tell, told) = mpsc::channel();
    let asking = thread::spawn(move || {
        let broadcast = Broadcast::new("/", args("[\"q\",1]")).except(excepted.to_string());
        let asked = handle.broadcast_with_acks(broadcast, MINUTE, 100);
        tell.send(run(asked)).unwrap();
    });
    let mut expected = Vec::new();
    for (index, client) in clients[..7].iter_mut().enumerate() {
        let question = client.hear();
        let number = question.strip_prefix("42").unwrap().strip_suffix("[\"q\",1]").unwrap();
        if index < 5 {
            client.say(&format!("43{number}[{index}]"));
            expected.push((client.socket, args(&format!("[{index}]"))));
        }
    }
    assert!(told.try_recv().is_err(), "two have neither answered nor gone");
    drop(clients.drain(5..7));
    let mut gathered = told.recv_timeout(DEADLINE).unwrap().unwrap();
    asking.join().unwrap();
    gathered.acks.sort_by_key(|(sid, _)| *sid);
    expected.sort_by_key(|(sid, _)| *sid);
    let expected = Gathered { receivers: 7, acks: expected, missing: 2, left_out: 0 };
    assert_eq!(gathered, expected);
}

#[test]
fn gathering_ends_when_its_time_is_over_and_keeps_no_more_than_is_wanted() {
    let server = Running::start(builder().namespace("/", Asks).shards(2));
    let ask = |timeout, max| {
        let broadcast = Broadcast::new("/", args("[\"q\"]"));
        server.ask(server.handle.broadcast_with_acks(broadcast, timeout, max)).unwrap()
    };
    assert_eq!(ask(MINUTE, 10), Gathered::default(), "nobody is there");
    let mut silent = Client::join(&server, "/");
    let gathered = ask(Duration::from_millis(1), 10);
    assert_eq!(gathered, Gathered { receivers: 1, missing: 1, ..Gathered::default() });
    assert!(silent.hear().starts_with("42"));
    drop(silent);
    wait_for(|| server.stats().sessions_websocket == 0);

    let clients: Vec<_> = (0..5).map(|_| Client::join(&server, "/")).collect();
    let answering: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            thread::spawn(move || {
                let question = client.hear();
                let number = question.trim_start_matches("42").trim_end_matches("[\"q\"]");
                client.say(&format!("43{number}[]"));
                client
            })
        })
        .collect();
    let gathered = ask(MINUTE, 2);
    assert_eq!((gathered.receivers, gathered.acks.len()), (5, 2));
    assert_eq!((gathered.left_out, gathered.missing), (3, 0));
    answering.into_iter().for_each(|thread| drop(thread.join().unwrap()));
}

#[test]
fn a_receiver_that_owes_too_many_acks_is_missing() {
    let limits = SessionLimits { pending_acks_per_session: 1, ..SessionLimits::default() };
    let server = Running::start(builder().namespace("/", Asks).session_limits(limits));
    let mut client = Client::join(&server, "/");
    let socket = server.ask(server.handle.socket_by_sid("/", client.socket)).unwrap();
    server.handle.emit_with_ack(socket, args("[\"first\"]"), MINUTE, |_, _| {}).unwrap();
    let broadcast = Broadcast::new("/", args("[\"q\"]"));
    let gathered = server.ask(server.handle.broadcast_with_acks(broadcast, MINUTE, 10)).unwrap();
    assert_eq!((gathered.receivers, gathered.missing), (1, 1));
    assert_eq!(client.hear(), "420[\"first\"]");
    assert!(client.hear().ends_with("[\"q\"]"), "the event itself comes");
}

#[test]
fn gathering_ends_when_the_server_stops() {
    let server = Running::start(builder().namespace("/", Asks).shards(2));
    let mut client = Client::join(&server, "/");
    let handle = server.handle.clone();
    let asking = thread::spawn(move || {
        run(handle.broadcast_with_acks(Broadcast::new("/", args("[\"q\"]")), MINUTE, 10))
    });
    client.hear();
    drop(server);
    let gathered = asking.join().unwrap().unwrap();
    assert_eq!((gathered.receivers, gathered.missing), (1, 1));
}

// Broadcasts that wait.

#[test]
fn broadcasts_wait_for_the_first_who_joins_and_reach_nobody_twice() {
    let server = Running::start(builder().namespace("/", Asks).shards(2));
    let held = |number: u32| {
        let broadcast = Broadcast::new("/", args(&format!("[\"e\",{number}]"))).to("red");
        server.ask(server.handle.broadcast_held(broadcast, MINUTE)).unwrap()
    };
    let mut early = Client::join(&server, "/");
    for number in 0..3 {
        assert_eq!(held(number), Delivery::Held);
    }
    assert_eq!(server.stats().held, 3);
    early.say("420[\"join\",\"blue\"]");
    assert_eq!(early.hear(), "430[]", "that is not the room");
    early.say("421[\"join\",\"red\"]");
    for number in 0..3 {
        assert_eq!(early.hear(), format!("42[\"e\",{number}]"));
    }
    assert_eq!(early.hear(), "431[]");
    let stats = server.stats();
    assert_eq!((stats.held, stats.held_ends[HeldEnd::Sent as usize]), (0, 3));

    let mut late = Client::join(&server, "/");
    late.say("420[\"join\",\"red\"]");
    assert_eq!(late.hear(), "430[]");
    assert_eq!(held(3), Delivery::Reached(2));
    assert_eq!(late.hear(), "42[\"e\",3]");
    assert_eq!(early.hear(), "42[\"e\",3]");
    assert_eq!(server.stats().held_ends[HeldEnd::Sent as usize], 3, "that one did not wait");
}

#[test]
fn a_broadcast_for_a_namespace_waits_for_a_client_that_is_let_in() {
    let server = Running::start(builder().namespace("/", Asks).namespace("/b", Asks).shards(2));
    let (everybody, nowhere) = (args("[\"all\"]"), args("[\"to c\"]"));
    let hold = |broadcast| server.ask(server.handle.broadcast_held(broadcast, MINUTE)).unwrap();
    assert_eq!(hold(Broadcast::new("/b", everybody)), Delivery::Held);
    assert_eq!(hold(Broadcast::new("/b", nowhere).to("c")), Delivery::Held);
    let mut root = Client::join(&server, "/");
    let mut client = Client::join(&server, "/b");
    assert_eq!(client.hear(), "42/b,[\"all\"]");
    assert_eq!(server.stats().held, 1);
    root.say("420[\"who am i\"]");
    assert!(root.hear().starts_with("430"), "nothing came here");
}

#[test]
fn a_broadcast_that_has_waited_too_long_is_dropped_and_counted() {
    let server = Running::start(builder().namespace("/", Asks));
    let broadcast = Broadcast::new("/", args("[\"late\"]"));
    let held = server.handle.broadcast_held(broadcast, Duration::from_millis(1));
    assert_eq!(server.ask(held), Ok(Delivery::Held));
    wait_for(|| server.stats().held_ends[HeldEnd::Expired as usize] == 1);
    assert_eq!(server.stats().held, 0);
    let mut client = Client::join(&server, "/");
    client.say("420[\"who am i\"]");
    assert!(client.hear().starts_with("430"));
}

#[test]
fn what_waits_is_bounded_in_number_and_in_bytes_and_who_is_there_is_reached_all_the_same() {
    for (count, bytes) in [(1_000, 10), (17, 960_000)] {
        let server = Running::start(builder().namespace("/", Asks));
        let broadcast = |room: &str| {
            Broadcast::new("/", args(&format!("[\"{}\"]", "x".repeat(bytes)))).to(room)
        };
        let hold = |room| server.ask(server.handle.broadcast_held(broadcast(room), MINUTE));
        for _ in 0..count {
            assert_eq!(hold("nowhere"), Ok(Delivery::Held));
        }
        assert_eq!(hold("nowhere"), Err(Busy));
        let mut client = Client::join(&server, "/");
        client.say("420[\"join\",\"red\"]");
        client.hear();
        assert_eq!(hold("red"), Ok(Delivery::Reached(1)));
        assert_eq!(client.hear().len(), bytes + 6);
        let stats = server.stats();
        assert_eq!((stats.held, stats.held_ends[HeldEnd::Refused as usize]), (count, 1));
    }
}

#[test]
fn whoever_comes_while_a_broadcast_begins_to_wait_gets_it_once() {
    const ROOMS: usize = 60;
    let server = Running::start(builder().namespace("/", Asks).shards(3));
    let clients: Vec<_> = (0..ROOMS).map(|_| Client::join(&server, "/")).collect();
    let handle = server.handle.clone();
    let sending = thread::spawn(move || {
        for room in 0..ROOMS {
            let args = args(&format!("[\"for\",{room}]"));
            let broadcast = Broadcast::new("/", args).to(format!("room-{room}"));
            run(handle.broadcast_held(broadcast, MINUTE)).unwrap();
        }
    });
    let mut clients = clients;
    for (room, client) in clients.iter_mut().enumerate() {
        client.say(&format!("420[\"join\",\"room-{room}\"]"));
    }
    sending.join().unwrap();
    for (room, client) in clients.iter_mut().enumerate() {
        let mut heard = [client.hear(), client.hear()];
        heard.sort();
        assert_eq!(heard, [format!("42[\"for\",{room}]"), "430[]".to_owned()]);
        client.say("421[\"who am i\"]");
        assert!(client.hear().starts_with("431"), "nothing comes twice");
    }
    assert_eq!(server.stats().held, 0);
}

// Rooms from outside.

#[test]
fn sockets_are_moved_between_rooms_from_outside_and_the_answer_comes_after_they_are_there() {
    let server = Running::start(builder().namespace("/", Asks).namespace("/b", Asks).shards(2));
    let clients: Vec<_> = (0..30).map(|_| Client::join(&server, "/")).collect();
    let _elsewhere = Client::join(&server, "/b");
    let reached = |room: &str| {
        let broadcast = Broadcast::new("/", args("[\"e\"]")).to(room);
        server.ask(server.handle.broadcast_reached(broadcast)).unwrap()
    };
    // More rooms than one turn takes for all.
    let many: Vec<String> = (0..200).map(|number| format!("room-{number}")).collect();
    assert_eq!(server.ask(server.handle.join_room("/", Whom::All, many)), 30);
    assert_eq!((reached("room-0"), reached("room-199")), (30, 30));

    let one = Whom::Sid(clients[4].socket);
    assert_eq!(server.ask(server.handle.join_room("/", one, ["red"])), 1);
    assert_eq!(reached("red"), 1);
    let from = |room: &str| Whom::Room(room.to_owned());
    assert_eq!(server.ask(server.handle.leave_room("/", from("red"), ["room-0", "red"])), 1);
    assert_eq!((reached("room-0"), reached("red")), (29, 0));
    assert_eq!(server.ask(server.handle.leave_room("/", from("red"), ["room-1"])), 0);
    let stranger = Whom::Sid(Sid::new(250, [1; 14]));
    assert_eq!(server.ask(server.handle.join_room("/", stranger, ["red"])), 0);
    // A room may have the name of a sid; its members are not that socket, and are no fewer for it.
    let name = clients[4].socket.to_string();
    assert_eq!(server.ask(server.handle.join_room("/", Whom::All, [name.clone()])), 30);
    let one = Whom::Sid(clients[4].socket);
    assert_eq!(server.ask(server.handle.join_room("/", one, ["red"])), 1);
    assert_eq!(server.ask(server.handle.leave_room("/", from(&name), ["red"])), 30);
    let other = Whom::Sid(clients[4].socket);
    assert_eq!(server.ask(server.handle.join_room("/b", other, ["red"])), 0);
    // It is as many as there are, rooms or not.
    let none: [&str; 0] = [];
    assert_eq!(server.ask(server.handle.join_room("/", Whom::All, none)), 30);
}

#[test]
fn a_socket_is_found_by_its_sid_in_its_own_namespace_alone() {
    let server = Running::start(builder().namespace("/", Asks).namespace("/b", Asks).shards(3));
    let mut clients: Vec<_> = (0..6).map(|_| Client::join(&server, "/")).collect();
    let sid = clients[0].socket;
    // A room of that name is not that socket.
    clients[1].say(&format!("420[\"join\",\"{sid}\"]"));
    clients[1].hear();
    let find = |namespace: &str| server.ask(server.handle.socket_by_sid(namespace, sid));
    let socket = find("/").unwrap();
    server.handle.emit(socket, args("[\"you\"]")).unwrap();
    assert_eq!(clients[0].hear(), "42[\"you\"]");
    assert_eq!(find("/b"), None);
    drop(clients.remove(0));
    wait_for(|| find("/").is_none());
}

// A server, and clients made of sockets.

fn builder() -> Builder {
    Server::builder().listen("127.0.0.1:0".parse().unwrap()).shards(1)
}

fn args(json: &str) -> Args {
    Args::new(json).unwrap()
}

/// Acks `who am i` with what it knows, and joins rooms.
struct Asks;

impl Handler for Asks {
    fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, args: Args, ack: Option<Ack>) {
        let Some(ack) = ack else { return };
        if let Ok((_, room)) = args.parse::<(String, String)>() {
            cx.join(socket, room);
            cx.ack(ack, Args::new("[]").unwrap());
            return;
        }
        let view = cx.socket(socket).unwrap();
        let data = view.data().map_or("null", |data| data.text());
        let rooms: Vec<_> = cx.rooms(socket).map(|room| format!("\"{room}\"")).collect();
        let answer = format!("[\"{}\",{data},[{}]]", view.id, rooms.join(","));
        cx.ack(ack, Args::new(answer).unwrap());
    }
}

/// Leaves it to the test to let clients in.
struct Waits(Mutex<mpsc::Sender<ConnectRequest>>);

impl Handler for Waits {
    fn on_connect(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        assert_eq!(cx.session_of(request.socket()), Some(request.session()));
        self.0.lock().unwrap().send(request).unwrap();
    }

    fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, args: Args, ack: Option<Ack>) {
        Asks.on_event(cx, socket, args, ack);
    }
}

/// Echoes, and tells the test why sockets leave.
struct Ends(Mutex<mpsc::Sender<DisconnectReason>>);

impl Handler for Ends {
    fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, args: Args, _: Option<Ack>) {
        cx.emit(socket, args);
    }

    fn on_disconnect(&self, _: &mut Context<'_>, _: SocketRef, reason: DisconnectReason) {
        self.0.lock().unwrap().send(reason).unwrap();
    }
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
        run(question)
    }

    fn stats(&self) -> Stats {
        self.ask(self.handle.stats())
    }
}

/// A client in a namespace.
struct Client {
    wire: client::Client,
    socket: Sid,
}

impl Client {
    fn join(server: &Running, namespace: &str) -> Self {
        let mut client = Self::open(server);
        let name = if namespace == "/" { String::new() } else { format!("{namespace},") };
        client.say(&format!("40{name}"));
        let answer = client.hear();
        let sid = answer.strip_prefix(&format!("40{name}{{\"sid\":\"")).unwrap();
        client.socket = sid[..Sid::TEXT_LEN].parse().unwrap();
        client
    }

    fn open(server: &Running) -> Self {
        Self { wire: client::Client::open(server.address), socket: Sid::new(0, [0; 14]) }
    }

    fn say(&mut self, text: &str) {
        self.wire.say(text);
    }

    fn hear(&mut self) -> String {
        self.wire.hear()
    }
}
