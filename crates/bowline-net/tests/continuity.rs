//! Sockets that outlive their transports, over real ones: as handlers and other threads see them, from
//! shard to shard and from process to process.
//!
//! Nothing sleeps: a test waits for what must come, and every read has a deadline.

#![expect(clippy::disallowed_methods, reason = "deadlines of tests are real time")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like the tests")]

mod client;

use std::{
    fs,
    net::{Shutdown, SocketAddr},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bowline_net::{
    Ack, Broadcast, Builder, Busy, ConnectRequest, Context, DisconnectReason, Handle, Handler,
    Keeping, RunError, Server, SessionKeySource, Sid, SocketData, SocketFilter, SocketRef, Stamp,
    Stats, Whom, socketio::Args,
};
use bowline_proto::websocket::{Incoming, Message};
use client::{DEADLINE, run};
use tokio::sync::oneshot;

const MINUTE: Duration = Duration::from_secs(60);

// From shard to shard.

#[test]
fn handlers_know_a_socket_by_the_same_name_wherever_its_client_comes_back_to() {
    let (server, told) = Running::telling(builder());
    let mut client = Client::join(&server);
    let socket = told.connected();
    let data = SocketData::new("7").unwrap();
    server.handle.set_data(socket, Some(data)).unwrap();
    server.handle.join(socket, "red").unwrap();
    for round in 0..6 {
        client.lose();
        assert_eq!(told.next(), Told::Away(socket));
        server.handle.emit(socket, args(&format!("[\"missed\",{round}]"))).unwrap();
        client.come_back_elsewhere(&server);
        assert_eq!(told.next(), Told::Returned(socket));
        assert_eq!(told.next(), Told::Back(socket));
        assert_eq!(client.event(), format!("[\"missed\",{round}"));

        // What is asked for from outside finds it, and so does what its handler wants done.
        server.handle.emit(socket, args(&format!("[\"here\",{round}]"))).unwrap();
        assert_eq!(client.event(), format!("[\"here\",{round}"));
        client.say(&format!("42{round}[\"who am i\"]"));
        let (sid, shard) = (client.sid.clone(), client.wire.shard);
        assert_eq!(client.hear(), format!("43{round}[\"{sid}\",{shard},7,[\"red\"]]"));
        assert_eq!(told.next(), Told::Said(socket));
        let found = server.ask(server.handle.socket_by_sid("/", sid.parse().unwrap()));
        assert_eq!(found, Some(socket));
    }
    let sid = client.sid.parse().unwrap();
    assert_eq!(server.ask(server.handle.disconnect_from("/", Whom::Sid(sid), false)), 1);
    assert_eq!(client.hear(), "41");
    assert_eq!(told.next(), Told::Left(socket, DisconnectReason::ServerNamespaceDisconnect));
    assert!(server.stats().hub.moves >= 6);
}

#[test]
fn what_is_emitted_while_a_socket_moves_arrives_once_and_in_order() {
    let (server, told) = Running::telling(builder());
    let mut client = Client::join(&server);
    let socket = told.connected();
    let stop = Arc::new(AtomicBool::new(false));
    let emitting = {
        let (handle, stop) = (server.handle.clone(), Arc::clone(&stop));
        thread::spawn(move || {
            let mut counts = [0, 0];
            while !stop.load(Relaxed) {
                // To the socket by its name, and to all: each in an order of its own.
                let own = handle.emit(socket, args(&format!("[\"own\",{}]", counts[0])));
                counts[0] += usize::from(own.is_ok());
                let all = Broadcast::new("/", args(&format!("[\"all\",{}]", counts[1])));
                counts[1] += usize::from(handle.broadcast(all).is_ok());
                if counts[0] % 10 == 0 {
                    run(handle.sockets(SocketFilter::default()));
                }
            }
            counts
        })
    };
    let mut next = [0, 0];
    let mut hear = |client: &mut Client| {
        let event = client.event();
        let (name, number) = event.strip_prefix("[\"").unwrap().split_once("\",").unwrap();
        let kind = usize::from(name == "all");
        assert_eq!(number, next[kind].to_string(), "{event}");
        next[kind] += 1;
        next
    };
    for _ in 0..30 {
        for _ in 0..20 {
            hear(&mut client);
        }
        client.come_back_elsewhere(&server);
    }
    stop.store(true, Relaxed);
    let counts = emitting.join().unwrap();
    while hear(&mut client) != counts {}
    server.handle.emit(socket, args("[\"last\"]")).unwrap();
    assert_eq!(client.event(), "[\"last\"");
    assert_eq!(server.stats().hub.recoveries.iter().sum::<u64>(), 30);
}

#[test]
fn acks_find_those_who_wait_for_them_though_the_socket_has_moved() {
    let (server, told) = Running::telling(builder());
    let mut client = Client::join(&server);
    let socket = told.connected();
    let (done, answers) = mpsc::channel();
    let ask = |number: usize| {
        let done = done.clone();
        let answered = move |_: &mut Context<'_>, result: Result<Args, _>| {
            done.send((number, result.map(|args: Args| args.json().to_string()))).unwrap();
        };
        server.handle.emit_with_ack(socket, args("[\"q\"]"), MINUTE, answered).unwrap();
    };
    // Asked where it was born and answered elsewhere.
    ask(1);
    assert_eq!(client.hear(), "420[\"q\"]");
    client.come_back_elsewhere(&server);
    // It may not have arrived, so it is asked again.
    assert_eq!(client.hear(), "420[\"q\"]");
    client.say("430[\"a\"]");
    assert_eq!(answers.recv_timeout(DEADLINE).unwrap(), (1, Ok("[\"a\"]".to_owned())));
    // Asked where it is now.
    ask(2);
    assert_eq!(client.hear(), "421[\"q\"]");
    client.say("431[\"b\"]");
    assert_eq!(answers.recv_timeout(DEADLINE).unwrap(), (2, Ok("[\"b\"]".to_owned())));

    let handle = server.handle.clone();
    let asked = Broadcast::new("/", args("[\"all\"]"));
    let gathering = thread::spawn(move || run(handle.broadcast_with_acks(asked, MINUTE, 10)));
    let question = client.hear();
    let number = question.strip_prefix("42").and_then(|it| it.strip_suffix("[\"all\"]")).unwrap();
    client.come_back_elsewhere(&server);
    assert_eq!(client.hear(), question);
    client.say(&format!("43{number}[\"c\"]"));
    let gathered = gathering.join().unwrap().unwrap();
    assert_eq!((gathered.receivers, gathered.missing), (1, 0));
    assert_eq!(gathered.acks[0].1.json(), "[\"c\"]");
    // One that has gone will not answer.
    client.say("41");
    assert!(matches!(wait_for_left(&told), DisconnectReason::ClientNamespaceDisconnect));
    ask(3);
    let (number, answer) = answers.recv_timeout(DEADLINE).unwrap();
    assert!(number == 3 && answer.is_err());
}

#[test]
fn operators_see_who_is_away_and_move_them_between_rooms() {
    let (server, told) = Running::telling(builder());
    let mut client = Client::join(&server);
    let socket = told.connected();
    client.come_back_elsewhere(&server);
    let list = server.ask(server.handle.sockets(SocketFilter::default()));
    assert_eq!((list.total, list.sockets[0].away), (1, None));
    assert_eq!(list.sockets[0].transport, Some("websocket"));
    while told.next() != Told::Back(socket) {}
    client.lose();
    assert_eq!(told.next(), Told::Away(socket));

    let list = server.ask(server.handle.sockets(SocketFilter::default()));
    let seen = &list.sockets[0];
    assert!(seen.away.is_some());
    assert_eq!((seen.transport, seen.protocol, seen.age), (None, None, None));
    let sid: Sid = client.sid.parse().unwrap();
    assert_eq!(seen.sid, sid);
    assert_eq!(server.ask(server.handle.join_room("/", Whom::Sid(sid), ["red"])), 1);
    let reached = server.handle.broadcast_reached(Broadcast::new("/", args("[\"r\"]")).to("red"));
    assert_eq!(server.ask(reached).unwrap(), 1);
    // A broadcast that waits for somebody finds who is away.
    let held = server.handle.broadcast_held(Broadcast::new("/", args("[\"h\"]")).to("red"), MINUTE);
    assert_eq!(server.ask(held).unwrap(), bowline_net::Delivery::Reached(1));
    server.ask(server.handle.packet_logs(sid, Some(MINUTE))).unwrap();
    assert_eq!(server.ask(server.handle.leave_room("/", Whom::All, ["red"])), 1);
    let missed = server.handle.broadcast_reached(Broadcast::new("/", args("[\"x\"]")).to("red"));
    assert_eq!(server.ask(missed).unwrap(), 0);

    client.come_back_elsewhere(&server);
    assert_eq!(client.event(), "[\"r\"");
    assert_eq!(client.event(), "[\"h\"");
    client.say("421[\"who am i\"]");
    assert!(client.hear().ends_with(",null,[]]"));
    // Its packets are logged where it is now.
    wait_for(|| {
        let list = server.ask(server.handle.sockets(SocketFilter::default()));
        list.sockets[0].packet_log
    });
}

#[test]
fn a_socket_that_ends_elsewhere_is_said_to_have_ended_by_its_name() {
    let continuity = bowline_net::Continuity {
        window: Duration::from_secs(1),
        ..bowline_net::Continuity::default()
    };
    let (server, told) = Running::telling(builder().continuity(continuity));
    for goodbye in [false, true] {
        let mut client = Client::join(&server);
        let socket = told.connected();
        client.come_back_elsewhere(&server);
        while told.next() != Told::Back(socket) {}
        // Said in one breath: the socket is gone before its handler hears the first of it.
        client.say("42[\"x\"]");
        assert_eq!(told.next(), Told::Said(socket));
        if goodbye {
            client.say("41");
            let reason = DisconnectReason::ClientNamespaceDisconnect;
            assert_eq!(told.next(), Told::Left(socket, reason));
        } else {
            client.lose();
            assert_eq!(told.next(), Told::Away(socket));
            assert_eq!(told.next(), Told::Left(socket, DisconnectReason::TransportClose));
            client.come_back(&server);
            assert!(!client.recovered);
            // So that nothing of it comes into the next round.
            let other = told.connected();
            client.lose();
            assert_eq!(told.next(), Told::Away(other));
            assert_eq!(told.next(), Told::Left(other, DisconnectReason::TransportClose));
        }
    }
}

#[test]
fn an_answer_to_one_who_came_back_lets_nobody_else_in() {
    let (asked, requests) = mpsc::channel();
    let server =
        Running::start(builder().namespace("/", Decides(Mutex::new(asked))).keeping(ALWAYS));
    let next = || -> (bool, ConnectRequest) { requests.recv_timeout(DEADLINE).unwrap() };
    let mut client = Client::open(&server);
    client.say("40");
    let (_, request) = next();
    let socket = server.handle.accept(request);
    client.joined();
    client.lose();

    let mut first = client.opened_elsewhere(&server);
    first.say(&client.ticket());
    let (returning, earlier) = next();
    assert!(returning && earlier.socket() == socket);
    let mut second = client.opened_elsewhere(&server);
    second.say(&client.ticket());
    // The earlier one gets a socket of its own, if anybody lets it in.
    let mut later = None;
    let mut afresh = None;
    for _ in 0..2 {
        match next() {
            (true, request) => later = Some(request),
            (false, request) => afresh = Some(request),
        }
    }
    let later = later.unwrap();
    assert_eq!(later.socket(), socket);
    server.handle.accept(earlier);
    server.handle.refuse(later, "not you", None);
    assert_eq!(second.hear(), "44{\"message\":\"not you\"}");
    server.handle.refuse(afresh.unwrap(), "nor you", None);
    assert_eq!(first.hear(), "44{\"message\":\"nor you\"}");

    client.wire = client.opened_elsewhere(&server);
    let ticket = client.ticket();
    client.say(&ticket);
    let (returning, request) = next();
    assert!(returning);
    assert_eq!(request.sid().to_string(), client.sid);
    server.handle.accept(request);
    client.joined();
    assert!(client.recovered);
}

#[test]
fn a_name_that_a_token_gave_finds_its_socket_on_any_shard() {
    let (tell, told) = mpsc::channel();
    let claims = Keeping { session_key: Some(SessionKeySource::Claim), ..Keeping::default() };
    let server = Running::start(builder().namespace("/", Claims(tell)).keeping(claims));
    let told = Listener(told);
    let (mut sockets, mut clients) = (Vec::new(), Vec::new());
    for name in ["ann", "bob"] {
        let mut client = Client::open(&server);
        client.say(&format!("40{{\"name\":\"{name}\"}}"));
        assert!(client.hear().starts_with("40{\"sid\":\""));
        sockets.push(told.connected());
        server.handle.emit(sockets[sockets.len() - 1], args("[\"hi\"]")).unwrap();
        assert_eq!(client.hear(), "42[\"hi\"]");
        clients.push(client);
    }
    drop(clients);
    assert_ne!(sockets[0], sockets[1]);
    for _ in 0..2 {
        assert!(matches!(told.next(), Told::Away(_)));
    }
    for round in 0..8 {
        let (name, socket) = [("ann", sockets[0]), ("bob", sockets[1])][round % 2];
        server.handle.emit(socket, args(&format!("[\"n\",{round}]"))).unwrap();
        let mut client = Client::open(&server);
        client.say(&format!("40{{\"name\":\"{name}\"}}"));
        assert!(client.hear().starts_with("40{\"sid\":\""));
        assert_eq!(told.next(), Told::Returned(socket));
        assert_eq!(told.next(), Told::Back(socket));
        // What nothing proves to have arrived comes again, and then the new one.
        let wanted = format!("42[\"n\",{round}]");
        while client.hear() != wanted {}
        drop(client);
        assert_eq!(told.next(), Told::Away(socket));
    }
}

#[test]
fn an_event_that_has_an_id_is_handled_once_and_its_handler_knows_the_id() {
    let keeping = Keeping { event_id: Some("/0/id".parse().unwrap()), ..ALWAYS };
    let server = Running::start(builder().namespace("/", Ids).keeping(keeping));
    let mut client = Client::join(&server);
    client.say("421[\"pay\",{\"id\":\"x-1\"}]");
    assert_eq!(client.hear(), "431[\"x-1\"]");
    client.say("422[\"pay\",{}]");
    assert_eq!(client.hear(), "432[null]");
}

// From process to process.

#[test]
fn what_a_server_leaves_is_found_by_the_next_whatever_its_number_of_shards() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state");
    let mut clients = Vec::new();
    for (generation, shards) in [3, 1, 2, 4].into_iter().enumerate() {
        let (server, told) = Running::telling(builder().shards(shards).state_file(file.clone()));
        for client in &mut clients {
            let client: &mut Client = client;
            client.come_back(&server);
            assert!(client.recovered, "generation {generation}");
            assert_eq!(client.event(), format!("[\"last of\",{}", generation - 1));
        }
        clients.extend((0..4).map(|_| Client::join(&server)));
        let event = args(&format!("[\"of\",{generation}]"));
        server.handle.broadcast(Broadcast::new("/", event)).unwrap();
        for client in &mut clients {
            assert_eq!(client.event(), format!("[\"of\",{generation}"));
            client.lose();
        }
        wait_for(|| server.stats().away == clients.len());
        // One to all and one to a socket by its name: neither has arrived when the server stops.
        let event = args(&format!("[\"last of\",{generation}]"));
        server.handle.broadcast(Broadcast::new("/", event)).unwrap();
        drop(told);
        server.stop();
        assert!(file.exists());
    }
}

#[test]
fn what_is_taken_until_a_server_has_stopped_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state");
    let (server, _told) = Running::telling(builder().state_file(file.clone()));
    let mut clients: Vec<_> = (0..20).map(|_| Client::join(&server)).collect();
    let handle = server.handle.clone();
    let emitting = thread::spawn(move || {
        let mut taken = Vec::new();
        for number in 0.. {
            match handle.broadcast(Broadcast::new("/", args(&format!("[\"n\",{number}]")))) {
                Ok(()) => taken.push(number),
                Err(Busy) if handle.is_draining() && taken.len() > 100 => {
                    // Full, or no more is taken: the second is for good.
                    let again = (0..100).any(|_| {
                        thread::yield_now();
                        let event = args(&format!("[\"n\",{number}]"));
                        handle.broadcast(Broadcast::new("/", event)).is_ok()
                    });
                    match again {
                        true => taken.push(number),
                        false => break,
                    }
                }
                Err(Busy) => thread::yield_now(),
            }
            // Slow enough for those who read.
            run(handle.sockets(SocketFilter::default()));
        }
        taken
    });
    for client in &mut clients {
        client.event();
    }
    server.stop();
    let taken: Vec<usize> = emitting.join().unwrap();

    let (server, _told) = Running::telling(builder().state_file(file));
    let mark = thread::spawn({
        let handle = server.handle.clone();
        move || handle.broadcast(Broadcast::new("/", args("[\"end\"]"))).unwrap()
    });
    mark.join().unwrap();
    for client in &mut clients {
        let mut heard = client.drain();
        client.come_back(&server);
        assert!(client.recovered);
        loop {
            let event = client.event();
            if event == "[\"end\"" {
                break;
            }
            heard.push(event);
        }
        let heard: Vec<usize> = heard.iter().map(|it| number_of(it)).collect();
        let wanted = taken.iter().skip(1).copied();
        assert!(heard.iter().copied().eq(wanted), "{:?} of {:?}", heard.len(), taken.len() - 1);
    }
}

#[test]
fn a_state_that_is_of_no_use_is_left_alone_and_clients_start_afresh() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state");
    let (server, _told) = Running::telling(builder().state_file(file.clone()));
    let mut client = Client::join(&server);
    client.lose();
    wait_for(|| server.stats().away == 1);
    server.stop();
    let whole = fs::read(&file).unwrap();
    let mut last_changed = whole.clone();
    *last_changed.last_mut().unwrap() ^= 1;
    for useless in [b"hello".to_vec(), whole[..40].to_vec(), last_changed] {
        fs::write(&file, useless).unwrap();
        let (server, _told) = Running::telling(builder().state_file(file.clone()));
        let (sid, ticket) = (client.sid.clone(), client.ticket());
        let mut again = Client::open(&server);
        again.say(&ticket);
        again.joined();
        assert_ne!(again.sid, sid);
        again.lose();
        wait_for(|| server.stats().away == 1);
        server.stop();
    }
    // What was found last was its own.
    fs::write(&file, whole).unwrap();
    let (server, _told) = Running::telling(builder().state_file(file.clone()));
    client.come_back(&server);
    assert!(client.recovered);
    assert!(!Path::new(&file).exists());
}

// Helpers.

const ALWAYS: Keeping = Keeping {
    stamp: Stamp::Always,
    on_doubt: bowline_net::OnDoubt::Repeat,
    event_id: None,
    session_key: None,
};

fn builder() -> Builder {
    Server::builder().listen("127.0.0.1:0".parse().unwrap()).shards(3).drain(Duration::ZERO)
}

fn args(json: &str) -> Args {
    Args::new(json).unwrap()
}

fn number_of(event: &str) -> usize {
    event.strip_prefix("[\"n\",").unwrap().parse().unwrap()
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain");
        thread::yield_now();
    }
}

fn wait_for_left(told: &Listener) -> DisconnectReason {
    loop {
        if let Told::Left(_, reason) = told.next() {
            return reason;
        }
    }
}

/// What a handler heard.
#[derive(Debug, PartialEq)]
enum Told {
    Connected(SocketRef),
    Said(SocketRef),
    Returned(SocketRef),
    Away(SocketRef),
    Back(SocketRef),
    Left(SocketRef, DisconnectReason),
}

/// Lets everybody in and tells the test what it hears. Acks `who am i` with what it knows.
struct Tells(mpsc::Sender<Told>);

impl Handler for Tells {
    fn on_connect(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        self.tell(Told::Connected(request.socket()));
        cx.accept(request);
    }

    fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, _: Args, ack: Option<Ack>) {
        self.tell(Told::Said(socket));
        let Some(ack) = ack else { return };
        let view = cx.socket(socket).unwrap();
        let data = view.data().map_or("null", |data| data.text());
        let rooms: Vec<_> = cx.rooms(socket).map(|room| format!("\"{room}\"")).collect();
        let shard = format!("{:?}", cx.session_of(socket).unwrap());
        let shard = shard.split_once("shard: ").unwrap().1.split_once(',').unwrap().0;
        let answer = format!("[\"{}\",{shard},{data},[{}]]", view.id, rooms.join(","));
        cx.ack(ack, args(&answer));
    }

    fn on_return(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        // It is known, but not in: its session is that of who asks.
        assert_eq!(cx.session_of(request.socket()), Some(request.session()));
        assert_eq!(cx.socket(request.socket()).map(|view| view.id), Some(request.sid()));
        self.tell(Told::Returned(request.socket()));
        cx.accept(request);
    }

    fn on_away(&self, _: &mut Context<'_>, socket: SocketRef, _: DisconnectReason) {
        self.tell(Told::Away(socket));
    }

    fn on_back(&self, _: &mut Context<'_>, socket: SocketRef) {
        self.tell(Told::Back(socket));
    }

    fn on_disconnect(&self, _: &mut Context<'_>, socket: SocketRef, reason: DisconnectReason) {
        self.tell(Told::Left(socket, reason));
    }
}

impl Tells {
    fn tell(&self, told: Told) {
        // The test may have heard enough.
        let _ = self.0.send(told);
    }
}

/// Leaves it to the test whom to let in, and whether they came back.
struct Decides(Mutex<mpsc::Sender<(bool, ConnectRequest)>>);

impl Handler for Decides {
    fn on_connect(&self, _: &mut Context<'_>, request: ConnectRequest) {
        self.0.lock().unwrap().send((false, request)).unwrap();
    }

    fn on_event(&self, _: &mut Context<'_>, _: SocketRef, _: Args, _: Option<Ack>) {}

    fn on_return(&self, _: &mut Context<'_>, request: ConnectRequest) {
        self.0.lock().unwrap().send((true, request)).unwrap();
    }
}

/// Takes the name of a client for what its token says.
struct Claims(mpsc::Sender<Told>);

impl Handler for Claims {
    fn on_connect(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        if request.is_claimed() {
            Tells(self.0.clone()).on_connect(cx, request);
            return;
        }
        let name = request.auth().unwrap().split('"').nth(3).unwrap().to_owned();
        cx.claim(request, name);
    }

    fn on_event(&self, _: &mut Context<'_>, _: SocketRef, _: Args, _: Option<Ack>) {}

    fn on_return(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        Tells(self.0.clone()).on_return(cx, request);
    }

    fn on_away(&self, cx: &mut Context<'_>, socket: SocketRef, reason: DisconnectReason) {
        Tells(self.0.clone()).on_away(cx, socket, reason);
    }

    fn on_back(&self, cx: &mut Context<'_>, socket: SocketRef) {
        Tells(self.0.clone()).on_back(cx, socket);
    }
}

/// Acks each event with its id.
struct Ids;

impl Handler for Ids {
    fn on_event(&self, cx: &mut Context<'_>, _: SocketRef, _: Args, ack: Option<Ack>) {
        let id = cx.event_id().map_or("null".to_owned(), |id| format!("\"{id}\""));
        cx.ack(ack.unwrap(), args(&format!("[{id}]")));
    }
}

struct Listener(mpsc::Receiver<Told>);

impl Listener {
    fn next(&self) -> Told {
        self.0.recv_timeout(DEADLINE).unwrap()
    }

    /// The next socket that is let in.
    fn connected(&self) -> SocketRef {
        loop {
            if let Told::Connected(socket) = self.next() {
                return socket;
            }
        }
    }
}

struct Running {
    address: SocketAddr,
    handle: Handle,
    stop: oneshot::Sender<()>,
    end: JoinHandle<Result<(), RunError>>,
}

impl Running {
    fn start(builder: Builder) -> Self {
        let server = builder.bind().unwrap();
        let (address, handle) = (server.local_addrs()[0], server.handle());
        let (stop, stopped) = oneshot::channel::<()>();
        let end = thread::spawn(move || {
            server.run_blocking(async {
                let _ = stopped.await;
            })
        });
        Self { address, handle, stop, end }
    }

    /// A server whose one namespace gives everybody a pid and tells of it.
    fn telling(builder: Builder) -> (Self, Listener) {
        let (tell, told) = mpsc::channel();
        (Self::start(builder.namespace("/", Tells(tell)).keeping(ALWAYS)), Listener(told))
    }

    fn stop(self) {
        drop(self.stop);
        self.end.join().unwrap().unwrap();
    }

    fn ask<T>(&self, question: impl Future<Output = T>) -> T {
        run(question)
    }

    fn stats(&self) -> Stats {
        self.ask(self.handle.stats())
    }
}

/// A client that comes back.
struct Client {
    wire: client::Client,
    sid: String,
    pid: String,
    offset: Option<String>,
    /// Whether it found its socket the last time.
    recovered: bool,
}

impl Client {
    fn open(server: &Running) -> Self {
        let wire = client::Client::open(server.address);
        let (sid, pid) = (String::new(), String::new());
        Self { wire, sid, pid, offset: None, recovered: false }
    }

    fn join(server: &Running) -> Self {
        let mut client = Self::open(server);
        client.say("40");
        client.joined();
        client
    }

    /// Hears that it is let in.
    fn joined(&mut self) {
        let answer = self.hear();
        let texts: Vec<_> = answer.split('"').collect();
        let ["40{", "sid", ":", sid, ",", "pid", ":", pid, "}"] = texts[..] else {
            panic!("{answer}");
        };
        self.recovered = self.pid == pid;
        assert_eq!(self.recovered, self.sid == sid);
        (self.sid, self.pid) = (sid.to_owned(), pid.to_owned());
    }

    /// What it says to get its socket back.
    fn ticket(&self) -> String {
        let offset = self.offset.as_ref().map(|it| format!(",\"offset\":\"{it}\""));
        format!("40{{\"pid\":\"{}\"{}}}", self.pid, offset.unwrap_or_default())
    }

    /// Its transport ends without a word.
    fn lose(&self) {
        let _ = self.wire.stream.shutdown(Shutdown::Both);
    }

    fn come_back(&mut self, server: &Running) {
        self.wire = client::Client::open(server.address);
        let ticket = self.ticket();
        self.say(&ticket);
        self.joined();
    }

    fn come_back_elsewhere(&mut self, server: &Running) {
        self.wire = self.opened_elsewhere(server);
        let ticket = self.ticket();
        self.say(&ticket);
        self.joined();
        assert!(self.recovered);
    }

    /// A transport to another shard than that of the last one.
    fn opened_elsewhere(&self, server: &Running) -> client::Client {
        for _ in 0..10_000 {
            let wire = client::Client::open(server.address);
            if wire.shard != self.wire.shard {
                return wire;
            }
        }
        panic!("all connections go to one shard");
    }

    fn say(&mut self, text: &str) {
        self.wire.say(text);
    }

    fn hear(&mut self) -> String {
        self.wire.hear()
    }

    /// The next event that has an offset, without that and what closes it.
    fn event(&mut self) -> String {
        loop {
            let text = self.hear();
            // An answer that is not known to have arrived comes again.
            if !text.starts_with("43") {
                return self.note(&text);
            }
        }
    }

    fn note(&mut self, text: &str) -> String {
        let event = text.strip_prefix("42").unwrap_or_else(|| panic!("{text}"));
        let (event, offset) = event.strip_suffix("\"]").unwrap().rsplit_once(",\"").unwrap();
        self.offset = Some(offset.to_owned());
        event.to_owned()
    }

    /// The events that it has got from a server that has stopped.
    fn drain(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        while let Some(Incoming::Message(Message::Text(text))) = self.wire.next() {
            events.push(self.note(&text));
        }
        events
    }
}
