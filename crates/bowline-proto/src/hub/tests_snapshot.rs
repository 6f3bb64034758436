//! From process to process: what clients find that come back after a restart.

use std::time::Duration;

use proptest::{option, prelude::*};

use super::{
    Config, Continuity, Keeping, NamespacePattern, NamespaceRule, SHARED_ACKS_FROM,
    SessionKeySource, Snapshot, Stamp,
    tests::{Shell, args, broadcast, emit},
};
use crate::{
    Command, Input, SocketKey, Time, TransportId,
    engineio::Version,
    socketio::Args,
    wall::{
        AckRequest, Broadcast, DisconnectReason, ErrorCode, Event, Handshake, Lost, Origin,
        RecoveryOutcome, SocketData,
    },
};

const SECOND: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(120);
const EPOCH: u32 = 0xabc;

/// The shards of one process after the other.
struct Fleet {
    shells: Vec<Shell>,
    /// The heads of all logs that there were.
    heads: Vec<u64>,
    processes: u64,
    keeping: Keeping,
    /// What the process that ended has left, while the next one loads.
    saved: Vec<u8>,
    change: fn(&mut Config),
}

/// A client and what it has got, offsets aside.
#[derive(Debug, Default, Clone)]
struct Client {
    shard: usize,
    transport: Option<TransportId>,
    sid: String,
    pid: Option<String>,
    offset: Option<String>,
    cookie: Option<&'static str>,
    /// Numbers; those of events that ask for an ack behind that.
    got: Vec<String>,
    /// The acks that it owes.
    asked: Vec<String>,
}

fn stamping() -> Keeping {
    Keeping { stamp: Stamp::Always, ..Keeping::default() }
}

impl Fleet {
    fn new(shards: u8, keeping: Keeping) -> Self {
        let mut fleet = Self {
            shells: Vec::new(),
            heads: Vec::new(),
            processes: 0,
            keeping,
            saved: Vec::new(),
            change: |_| {},
        };
        fleet.start(shards, false);
        fleet
    }

    fn start(&mut self, shards: u8, loading: bool) {
        self.processes += 1;
        self.heads.resize(self.heads.len().max(usize::from(shards)), 0);
        let shell = |shard: u8| {
            let head = self.heads[usize::from(shard)];
            let continuity = Continuity {
                shard,
                epoch: EPOCH,
                head,
                loading,
                window: WINDOW,
                ..Continuity::default()
            };
            let mut shell = Shell::new(Config { shards, continuity, ..Config::default() });
            let mut config = shell.hub.config.clone();
            for rule in &mut config.namespaces {
                rule.keeping = self.keeping.clone();
            }
            (self.change)(&mut config);
            shell.input(Input::Configure(Box::new(config)));
            shell.ids = self.processes * 1_000_000 + u64::from(shard) * 1_000;
            shell
        };
        self.shells = (0..shards).map(shell).collect();
    }

    /// Ends the process in order, and begins the next, which has not read what was saved.
    fn restart(&mut self, shards: u8) {
        for shell in &mut self.shells {
            let sessions: Vec<_> = shell.hub.sessions().collect();
            for session in sessions {
                shell.input(Input::Drain { session });
            }
        }
        self.settle();
        let mut snapshots = Vec::new();
        for (shell, head) in self.shells.iter_mut().zip(&mut self.heads) {
            let snapshot = shell.hub.snapshot(shell.now);
            *head = snapshot.head();
            snapshots.push(snapshot);
        }
        self.saved = postcard::to_stdvec(&snapshots).unwrap();
        self.start(shards, true);
    }

    /// Takes back what was saved.
    fn load(&mut self) {
        let snapshots: Vec<Snapshot> = postcard::from_bytes(&self.saved).unwrap();
        let shards = u8::try_from(self.shells.len()).unwrap();
        let snapshots = Snapshot::redistribute(snapshots, shards);
        assert_eq!(snapshots.len(), self.shells.len());
        for (shell, snapshot) in self.shells.iter_mut().zip(snapshots) {
            shell.input(Input::Restore(Some(Box::new(snapshot))));
        }
        self.settle();
    }

    fn settle(&mut self) {
        let mut any = true;
        while std::mem::take(&mut any) {
            for from in 0..self.shells.len() {
                for broadcast in std::mem::take(&mut self.shells[from].forwarded) {
                    any = true;
                    for to in (0..self.shells.len()).filter(|to| *to != from) {
                        self.shells[to].command(Command::Broadcast(broadcast.clone()));
                    }
                }
                for (to, message) in std::mem::take(&mut self.shells[from].told) {
                    any = true;
                    self.shells[usize::from(to)].input(Input::Heard(message));
                }
            }
        }
    }

    fn advance(&mut self, by: Duration) {
        for shell in &mut self.shells {
            shell.advance(by);
        }
        self.settle();
    }

    fn broadcast(&mut self, shard: usize, rooms: &[&'static str], except: &[&str], n: u32) {
        let to = Broadcast {
            rooms: rooms.iter().map(|room| (*room).into()).collect(),
            except: except.iter().map(|room| (*room).into()).collect(),
            args: Args::new(format!("[\"n\",{n}]")).unwrap(),
            ..broadcast("/")
        };
        let shard = shard % self.shells.len();
        self.shells[shard].command(Command::Broadcast(to));
        self.settle();
    }

    /// Where a socket is now.
    fn find(&self, client: &Client) -> (usize, SocketKey) {
        let sid = client.sid.parse().unwrap();
        let mut found = self.shells.iter().map(|shell| shell.hub.find_socket(sid)).enumerate();
        found.find_map(|(shard, key)| Some((shard, key?))).unwrap()
    }

    fn command(&mut self, client: &Client, command: impl FnOnce(SocketKey) -> Command) {
        let (shard, key) = self.find(client);
        self.shells[shard].command(command(key));
        self.settle();
    }

    /// Opens a WebSocket and sends a CONNECT.
    fn knock(&mut self, client: &mut Client, shard: usize) {
        let shell = &mut self.shells[shard];
        let (id, transport) = (shell.sid(), TransportId(shell.next_id()));
        let mut handshake: Handshake = (*shell.handshake(Version::V4)).clone();
        if let Some(cookie) = client.cookie {
            handshake.headers.push(("cookie".into(), format!("device={cookie}")));
        }
        let origin = Origin::WebSocket { transport, deflate: false };
        shell.input(Input::Open { id, origin, handshake: handshake.into() });
        let mut auth = Vec::new();
        auth.extend(client.pid.as_ref().map(|pid| format!("\"pid\":\"{pid}\"")));
        auth.extend(client.offset.as_ref().map(|offset| format!("\"offset\":\"{offset}\"")));
        let auth = if auth.is_empty() { String::new() } else { format!("{{{}}}", auth.join(",")) };
        shell.text(transport, &format!("40{auth}"));
        (client.shard, client.transport) = (shard, Some(transport));
        self.settle();
    }

    /// Reads what was sent. Returns whether the client was let in.
    fn read(&mut self, client: &mut Client) -> bool {
        let mut let_in = false;
        for text in self.shells[client.shard].sent(client.transport.unwrap()) {
            if let Some(auth) = text.strip_prefix("40") {
                let auth: serde_json::Value = serde_json::from_str(auth).unwrap();
                client.sid = auth["sid"].as_str().unwrap().to_owned();
                client.pid = auth["pid"].as_str().map(str::to_owned);
                let_in = true;
            } else if let Some(event) = text.strip_prefix("42") {
                let digits = event.find('[').unwrap();
                let mut args: Vec<serde_json::Value> =
                    serde_json::from_str(&event[digits..]).unwrap();
                if client.pid.is_some() && digits == 0 {
                    client.offset = args.pop().unwrap().as_str().map(str::to_owned);
                }
                let ack = &event[..digits];
                if ack.is_empty() {
                    client.got.push(args[1].to_string());
                } else {
                    client.got.push(format!("{ack} {}", args[1]));
                    client.asked.push(ack.to_owned());
                }
            } else {
                assert!(text.starts_with("43") || text.starts_with('0') || text == "2", "{text}");
            }
        }
        let_in
    }

    fn connect(&mut self, shard: usize, cookie: Option<&'static str>) -> Client {
        let mut client = Client { cookie, ..Client::default() };
        self.knock(&mut client, shard);
        assert!(self.read(&mut client));
        client
    }

    /// Comes back and must find the socket that it had.
    fn come_back(&mut self, client: &mut Client, shard: usize) {
        let before = (client.sid.clone(), client.pid.clone());
        self.knock(client, shard);
        assert!(self.read(client));
        let outcomes = RecoveryOutcome::ALL.map(|outcome| (outcome, self.recoveries(outcome)));
        assert_eq!((client.sid.clone(), client.pid.clone()), before, "{outcomes:?}");
    }

    /// Comes back, or is left waiting if what was saved is not known yet.
    fn come_back_or_wait(&mut self, client: &mut Client, shard: usize, loading: bool) {
        if client.transport.is_some() {
            self.read(client);
        }
        let before = client.sid.clone();
        self.knock(client, shard);
        if self.read(client) {
            assert_eq!(client.sid, before);
        } else {
            assert!(loading);
        }
    }

    fn lose(&mut self, client: &Client) {
        let transport = client.transport.unwrap();
        self.shells[client.shard].input(Input::Lost { transport, why: Lost::Failed });
        self.settle();
    }

    fn recoveries(&self, outcome: RecoveryOutcome) -> u64 {
        self.shells.iter().map(|shell| shell.hub.stats().recoveries[outcome as usize]).sum()
    }
}

fn numbers(client: &Client) -> Vec<&str> {
    client.got.iter().map(String::as_str).collect()
}

fn join(room: &'static str) -> impl Fn(SocketKey) -> Command {
    move |socket| Command::Join { socket, room: room.into() }
}

fn leave(room: &'static str) -> impl Fn(SocketKey) -> Command {
    move |socket| Command::Leave { socket, room: room.into() }
}

fn say(n: u32) -> impl Fn(SocketKey) -> Command {
    move |socket| emit(socket, &format!("[\"n\",{n}]"))
}

/// Changes of the number of shards, and where the client comes back.
const CHANGES: [(u8, u8, usize); 8] =
    [(1, 1, 0), (2, 2, 0), (2, 2, 1), (3, 1, 0), (1, 3, 2), (3, 2, 1), (2, 4, 3), (4, 3, 0)];

#[test]
fn a_client_with_an_offset_gets_all_it_has_missed_once_and_in_order() {
    for (before, after, back) in CHANGES {
        for home in 0..usize::from(before) {
            let mut fleet = Fleet::new(before, stamping());
            let mut client = fleet.connect(home, None);
            fleet.command(&client, join("red"));
            fleet.command(&client, join("blue"));
            fleet.broadcast(0, &[], &[], 1);
            assert!(!fleet.read(&mut client));
            fleet.lose(&client);
            fleet.broadcast(1, &[], &[], 2);
            fleet.broadcast(0, &["red"], &[], 3);
            fleet.broadcast(0, &["red"], &["blue"], 4);
            fleet.command(&client, say(5));
            fleet.command(&client, leave("blue"));
            fleet.broadcast(1, &["red"], &["blue"], 6);
            fleet.broadcast(1, &["blue"], &[], 7);
            fleet.command(&client, join("green"));
            fleet.restart(after);
            fleet.broadcast(0, &["red", "green"], &[], 8);
            fleet.broadcast(1, &[], &[], 9);
            fleet.load();
            fleet.broadcast(1, &["green"], &[], 10);
            fleet.broadcast(1, &["blue"], &[], 11);
            fleet.command(&client, say(12));
            fleet.come_back(&mut client, back);
            let context = format!("{before} to {after}, from {home} to {back}");
            let due = ["1", "2", "3", "5", "6", "8", "9", "10", "12"];
            assert_eq!(numbers(&client), due, "{context}");
            fleet.broadcast(1, &["red"], &[], 13);
            fleet.read(&mut client);
            assert_eq!(client.got.last().unwrap(), "13", "{context}");
            assert_eq!(fleet.recoveries(RecoveryOutcome::Recovered), 1);
            let restored: u64 = fleet.shells.iter().map(|shell| shell.hub.stats().restored).sum();
            assert_eq!(restored, 1);
        }
    }
}

#[test]
fn several_restarts_in_a_row_lose_nothing_whatever_the_number_of_shards() {
    let mut fleet = Fleet::new(4, stamping());
    let mut clients: Vec<Client> = (0..4).map(|shard| fleet.connect(shard, None)).collect();
    let mut n = 0;
    for (round, shards) in [2, 4, 4, 1, 3, 3, 2, 4].into_iter().enumerate() {
        for client in &clients {
            n += 1;
            fleet.command(client, say(n));
        }
        n += 1;
        fleet.broadcast(round, &[], &[], n);
        for (index, client) in clients.iter_mut().enumerate() {
            // Some read what comes, some come back after every second restart only.
            if client.transport.is_some() && (index + round) % 3 > 0 {
                fleet.read(client);
            }
        }
        fleet.restart(shards);
        n += 1;
        fleet.broadcast(round, &[], &[], n);
        fleet.load();
        n += 1;
        fleet.broadcast(round + 1, &[], &[], n);
        for (index, client) in clients.iter_mut().enumerate() {
            client.transport = None;
            if (index + round) % 2 == 0 {
                fleet.come_back(client, (index * 3 + round) % usize::from(shards));
            }
        }
    }
    for client in &mut clients {
        if client.transport.is_none() {
            fleet.come_back(client, 0);
        }
        fleet.read(client);
    }
    // Of each round: one of its own of the four, then three for all.
    for (index, client) in clients.iter().enumerate() {
        let index = u32::try_from(index).unwrap();
        let due = (0..8).flat_map(|round| {
            let first = round * 7 + 1;
            [first + index, first + 4, first + 5, first + 6].map(|n| n.to_string())
        });
        assert_eq!(client.got, due.collect::<Vec<_>>(), "client {index}");
    }
}

#[test]
fn a_client_without_an_offset_gets_what_it_has_missed() {
    for (before, after, back) in CHANGES {
        let mut fleet = Fleet::new(before, stamping());
        let mut client = fleet.connect(usize::from(before) - 1, None);
        fleet.lose(&client);
        fleet.broadcast(0, &[], &[], 1);
        fleet.command(&client, say(2));
        fleet.restart(after);
        fleet.load();
        fleet.broadcast(0, &[], &[], 3);
        assert_eq!(client.offset, None);
        fleet.come_back(&mut client, back);
        assert_eq!(numbers(&client), ["1", "2", "3"], "{before} to {after}");
    }
}

#[test]
fn a_named_client_finds_its_socket_and_rooms_under_its_cookie() {
    let session_key = Some(SessionKeySource::Cookie("device".into()));
    let keeping = Keeping { session_key, stamp: Stamp::Never, ..Keeping::default() };
    for (before, after, back) in CHANGES {
        let mut fleet = Fleet::new(before, keeping.clone());
        let mut owl = fleet.connect(0, Some("owl"));
        let mut cat = fleet.connect(usize::from(before) - 1, Some("cat"));
        fleet.command(&owl, join("red"));
        fleet.lose(&owl);
        fleet.broadcast(0, &["red"], &[], 1);
        fleet.restart(after);
        fleet.load();
        fleet.broadcast(0, &["red"], &[], 2);
        fleet.broadcast(0, &[], &[], 3);
        fleet.come_back(&mut owl, back);
        fleet.come_back(&mut cat, 0);
        assert_eq!(numbers(&owl), ["1", "2", "3"], "{before} to {after}");
        assert_eq!(numbers(&cat), ["3"], "{before} to {after}");
        assert_eq!((owl.pid.clone(), owl.offset.clone()), (None, None));
    }
}

#[test]
fn events_that_await_an_ack_are_sent_again_and_the_answer_is_nobodys() {
    for (before, after, back) in CHANGES {
        let mut fleet = Fleet::new(before, stamping());
        let mut client = fleet.connect(usize::from(before) - 1, None);
        let ask = |n: u32, token| {
            let request = AckRequest { token, timeout: 5 * SECOND };
            let args = Args::new(format!("[\"n\",{n}]")).unwrap();
            move |socket| Command::Emit { socket, args, ack: Some(request), volatile: false }
        };
        fleet.command(&client, ask(1, 70));
        fleet.read(&mut client);
        assert_eq!(numbers(&client), ["0 1"]);
        fleet.lose(&client);
        fleet.command(&client, say(2));
        fleet.command(&client, ask(3, 71));
        fleet.command(&client, say(4));
        fleet.restart(after);
        fleet.load();
        // Longer than the handler that has gone would have waited.
        fleet.advance(10 * SECOND);
        client.got.clear();
        fleet.come_back(&mut client, back);
        let mut got = numbers(&client);
        if before == after && before == 1 {
            assert_eq!(got, ["0 1", "2", "1 3", "4"]);
        }
        got.sort_unstable();
        assert_eq!(got, ["0 1", "1 3", "2", "4"], "{before} to {after}");
        let shard = client.shard;
        fleet.shells[shard].text(client.transport.unwrap(), "431[\"late\"]");
        fleet.lose(&client);
        client.got.clear();
        fleet.come_back(&mut client, 0);
        assert_eq!(numbers(&client), ["0 1"], "the other was answered");
        fleet.advance(WINDOW + WINDOW);
        for shell in &fleet.shells {
            assert_eq!(shell.acks(), [], "{before} to {after}");
            assert_eq!(shell.hub.sockets.len(), 0);
        }
    }
}

#[test]
fn a_claim_that_comes_before_what_was_saved_waits_for_it() {
    let session_key = Some(SessionKeySource::Cookie("device".into()));
    let named = Keeping { session_key, stamp: Stamp::Never, ..Keeping::default() };
    for (before, after, back) in CHANGES {
        for (keeping, cookie) in [(stamping(), None), (named.clone(), Some("owl"))] {
            let mut fleet = Fleet::new(before, keeping);
            let mut client = fleet.connect(0, cookie);
            fleet.lose(&client);
            fleet.command(&client, say(1));
            fleet.restart(after);
            let sid = client.sid.clone();
            fleet.knock(&mut client, back);
            assert!(!fleet.read(&mut client), "it waits");
            assert_eq!(fleet.shells[back].events, []);
            fleet.broadcast(0, &[], &[], 2);
            // Somebody new does not.
            let mut other = fleet.connect(back, None);
            fleet.load();
            assert!(fleet.read(&mut client));
            assert_eq!(client.sid, sid);
            assert_eq!(numbers(&client), ["1", "2"], "{before} to {after}, back on {back}");
            fleet.broadcast(0, &[], &[], 3);
            fleet.read(&mut other);
            assert_eq!(numbers(&other), ["3"]);
        }
    }
}

#[test]
fn nothing_is_left_of_those_who_do_not_come_back() {
    let mut fleet = Fleet::new(2, stamping());
    let clients = [fleet.connect(0, None), fleet.connect(1, None)];
    fleet.command(&clients[1], join("red"));
    fleet.lose(&clients[0]);
    fleet.advance(20 * SECOND);
    fleet.restart(3);
    assert_eq!(fleet.shells[0].now, Time::ZERO);
    fleet.load();
    let away: usize = fleet.shells.iter().map(|shell| shell.hub.away_count()).sum();
    assert_eq!(away, 2);
    for (shell, client) in fleet.shells.iter().zip(&clients) {
        let socket = shell.hub.find_socket(client.sid.parse().unwrap()).unwrap();
        assert!(shell.hub.socket(socket).unwrap().away);
        assert_eq!(shell.hub.born(socket), (shell.hub.config.continuity.shard, socket));
        let reason = DisconnectReason::ServerShuttingDown;
        assert_eq!(shell.events, [Event::Away { socket, reason }]);
    }
    // The window counts anew, and then they go for the reasons they went.
    fleet.advance(WINDOW - SECOND);
    assert_eq!(fleet.shells[0].hub.away_count(), 1);
    fleet.advance(SECOND);
    for (shell, reason) in fleet
        .shells
        .iter()
        .zip([DisconnectReason::TransportError, DisconnectReason::ServerShuttingDown])
    {
        assert_eq!(shell.last_disconnect(), reason);
        let hub = &shell.hub;
        assert_eq!((hub.sockets.len(), hub.by_socket_sid.len(), hub.away_count()), (0, 0, 0));
        assert_eq!((hub.keeper.by_pid.len(), hub.namespaces.all.len()), (0, 0));
        assert_eq!(hub.namespaces.rooms.len(), 0);
    }
    let mut late = clients[0].clone();
    fleet.knock(&mut late, 1);
    assert!(fleet.read(&mut late));
    assert_ne!(late.sid, clients[0].sid);
    assert_eq!(fleet.recoveries(RecoveryOutcome::Window), 1);
}

#[test]
fn the_reason_why_a_socket_ended_is_known_after_a_restart() {
    let mut fleet = Fleet::new(3, stamping());
    let mut clients: Vec<_> = (0..3).map(|shard| fleet.connect(shard, None)).collect();
    for client in &clients {
        fleet.lose(client);
    }
    fleet.advance(WINDOW);
    fleet.restart(2);
    fleet.load();
    for client in &mut clients {
        fleet.knock(client, 0);
        assert!(fleet.read(client));
    }
    assert_eq!(fleet.recoveries(RecoveryOutcome::Window), 3);
}

#[test]
fn data_and_the_end_of_a_token_are_saved() {
    for shards in [1, 2] {
        let mut fleet = Fleet::new(2, stamping());
        let mut client = fleet.connect(1, None);
        let data = SocketData::new("{\"user\":1}").unwrap();
        fleet.command(&client, |socket| Command::SetData { socket, data: Some(data.clone()) });
        fleet.command(&client, |socket| Command::Expire {
            socket,
            after: 30 * SECOND,
            code: ErrorCode::TokenExpired,
        });
        fleet.advance(10 * SECOND);
        fleet.restart(shards);
        fleet.load();
        let (shard, socket) = fleet.find(&client);
        assert_eq!(fleet.shells[shard].hub.socket(socket).unwrap().data(), Some(&data));
        fleet.come_back(&mut client, 0);
        fleet.advance(20 * SECOND);
        let sent = fleet.shells[0].sent(client.transport.unwrap());
        assert!(sent[0].contains("token-expired"), "{sent:?}");
        assert_eq!(sent[1], "41");
    }
}

#[test]
fn a_namespace_that_is_not_served_any_more_is_left_out_and_counted() {
    let mut fleet = Fleet::new(2, stamping());
    let client = fleet.connect(1, None);
    fleet.change = |config| {
        let pattern = NamespacePattern::new("/other");
        config.namespaces =
            vec![NamespaceRule { pattern, handler: 0, keeping: Keeping::default() }];
    };
    fleet.restart(2);
    fleet.load();
    let hub = &fleet.shells[1].hub;
    assert_eq!((hub.stats().restored, hub.stats().not_restored), (0, 1));
    assert_eq!((hub.sockets.len(), hub.away_count()), (0, 0));
    assert_eq!(fleet.shells[1].events, []);
    drop(client);
}

#[test]
fn what_is_taken_back_honours_the_limits() {
    // Who went away first makes room.
    let mut fleet = Fleet::new(1, stamping());
    let mut clients: Vec<_> = (0..3).map(|_| fleet.connect(0, None)).collect();
    fleet.lose(&clients[1]);
    fleet.advance(SECOND);
    fleet.change = |config| config.continuity.away_max = 2;
    fleet.restart(1);
    fleet.load();
    assert_eq!(fleet.shells[0].hub.away_count(), 2);
    fleet.come_back(&mut clients[0], 0);
    fleet.knock(&mut clients[1], 0);
    assert!(fleet.read(&mut clients[1]));
    assert_eq!(fleet.recoveries(RecoveryOutcome::Crowded), 1);

    // What the log cannot hold is not replayed in part.
    for shards in [1, 3] {
        let mut fleet = Fleet::new(2, stamping());
        let mut clients = [fleet.connect(0, None), fleet.connect(1, None)];
        fleet.lose(&clients[0]);
        fleet.lose(&clients[1]);
        for n in 0..20 {
            fleet.broadcast(0, &[], &[], n);
        }
        fleet.change = |config| config.continuity.log_bytes = 1_000;
        fleet.restart(shards);
        fleet.load();
        for (index, client) in clients.iter_mut().enumerate() {
            fleet.knock(client, 0);
            assert!(fleet.read(client));
            assert_eq!(client.got, Vec::<String>::new(), "{shards}, {index}");
        }
        assert_eq!(fleet.recoveries(RecoveryOutcome::LogFull), 2, "{shards}");
    }
}

#[test]
fn a_log_that_was_lost_makes_new_sockets() {
    let mut fleet = Fleet::new(2, stamping());
    let mut client = fleet.connect(1, None);
    fleet.broadcast(0, &[], &[], 1);
    fleet.read(&mut client);
    fleet.restart(2);
    for shell in &mut fleet.shells {
        shell.input(Input::Restore(None));
    }
    fleet.knock(&mut client, 0);
    assert!(fleet.read(&mut client));
    assert_eq!(fleet.recoveries(RecoveryOutcome::Unknown), 1);

    // What is of another log is not taken for this one's.
    let mut fleet = Fleet::new(2, stamping());
    let mut client = fleet.connect(1, None);
    fleet.restart(2);
    fleet.heads[1] += 1;
    fleet.start(2, true);
    fleet.load();
    assert_eq!(fleet.shells[1].hub.stats().not_restored, 1);
    fleet.knock(&mut client, 0);
    assert!(fleet.read(&mut client));
    assert_eq!(fleet.recoveries(RecoveryOutcome::Restarted), 1);
}

#[test]
fn sockets_that_still_have_a_session_are_saved_as_away() {
    let mut fleet = Fleet::new(1, stamping());
    let mut client = fleet.connect(0, None);
    fleet.shells[0]
        .command(Command::Broadcast(Broadcast { args: args("[\"n\",1]"), ..broadcast("/") }));
    let now = fleet.shells[0].now;
    let snapshot = fleet.shells[0].hub.snapshot(now);
    assert_eq!(snapshot.sockets(), 1);
    assert!(!format!("{snapshot:?}").contains('['), "no secrets in logs: {snapshot:?}");
    fleet.heads[0] = snapshot.head();
    fleet.saved = postcard::to_stdvec(&vec![snapshot]).unwrap();
    fleet.start(1, true);
    fleet.load();
    fleet.come_back(&mut client, 0);
    assert_eq!(numbers(&client), ["1"]);
}

#[test]
fn the_ids_of_events_go_along_from_shard_to_shard_and_over_a_restart() {
    let event_id = Some("/0".parse().unwrap());
    for (before, after, back) in CHANGES {
        let mut fleet = Fleet::new(before, Keeping { event_id: event_id.clone(), ..stamping() });
        let mut client = fleet.connect(0, None);
        let delivered = |fleet: &Fleet| {
            let events = fleet.shells.iter().flat_map(|shell| &shell.events);
            events.filter(|event| matches!(event, Event::Event { .. })).count()
        };
        let say = |fleet: &mut Fleet, client: &Client, packet: &str| {
            fleet.shells[client.shard].text(client.transport.unwrap(), packet);
            fleet.settle();
            fleet.shells[client.shard].sent(client.transport.unwrap())
        };
        for packet in ["420[\"n\",\"a\"]", "421[\"n\",\"b\"]", "42[\"n\",\"c\"]"] {
            say(&mut fleet, &client, packet);
        }
        fleet.command(&client, |socket| Command::Ack { socket, id: 0, args: args("[7]") });
        assert_eq!(say(&mut fleet, &client, "3"), ["430[7]"]);
        assert_eq!(delivered(&fleet), 3);
        fleet.come_back(&mut client, usize::from(before) - 1);
        fleet.shells[client.shard].sent(client.transport.unwrap());
        assert_eq!(say(&mut fleet, &client, "420[\"n\",\"a\"]"), ["430[7]"]);
        say(&mut fleet, &client, "421[\"n\",\"b\"]");
        assert_eq!(delivered(&fleet), 3, "{before}");
        fleet.restart(after);
        fleet.load();
        fleet.come_back(&mut client, back);
        assert_eq!(say(&mut fleet, &client, "428[\"n\",\"a\"]"), ["438[7]"]);
        say(&mut fleet, &client, "42[\"n\",\"c\"]");
        assert_eq!(delivered(&fleet), 0);
        // Nobody knows what became of the one that was not answered.
        say(&mut fleet, &client, "421[\"n\",\"b\"]");
        assert_eq!(delivered(&fleet), 1);
    }
}

#[test]
fn acks_asked_of_many_are_told_apart_wherever_a_socket_goes() {
    let ask = |n: u32, token| {
        let request = AckRequest { token, timeout: 60 * SECOND };
        let args = Args::new(format!("[\"n\",{n}]")).unwrap();
        Command::Broadcast(Broadcast {
            args,
            ack: Some(Box::new(request)),
            forwarded: true,
            ..broadcast("/")
        })
    };
    let mut fleet = Fleet::new(2, stamping());
    let mut client = fleet.connect(0, None);
    fleet.shells[0].command(ask(1, 71));
    fleet.come_back(&mut client, 1);
    fleet.shells[1].command(ask(2, 72));
    fleet.read(&mut client);
    fleet.restart(2);
    fleet.load();
    fleet.shells[0].command(ask(3, 73));
    fleet.come_back(&mut client, 1);
    client.got.sort_unstable();
    client.got.dedup();
    let shared = u64::from(SHARED_ACKS_FROM);
    let due = [1, 2, 3].map(|n| format!("{} {n}", shared + n));
    assert_eq!(client.got, due);
    for id in 1..=3 {
        fleet.shells[1].text(client.transport.unwrap(), &format!("43{}[]", shared + id));
    }
    let tokens: Vec<u64> = fleet.shells[1].acks().iter().map(|(token, _)| *token).collect();
    assert_eq!(tokens, [73]);
}

/// What happens to a fleet. Numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Step {
    Say {
        shard: usize,
        room: Option<usize>,
        except: Option<usize>,
    },
    SayTo(usize),
    Ask(usize),
    Join(usize, usize),
    Leave(usize, usize),
    /// The client reads what was sent.
    Read(usize),
    /// It answers what it has read and not answered.
    Answer(usize),
    Lose(usize),
    ComeBack(usize, usize),
    /// Time for pings and pongs, which are lost if the client does not read.
    Idle,
    Restart(u8),
    Load,
}

fn step() -> impl Strategy<Value = Step> {
    let any = 0..12_usize;
    prop_oneof![
        4 => (any.clone(), option::of(0..2_usize), option::of(0..2_usize))
            .prop_map(|(shard, room, except)| Step::Say { shard, room, except }),
        2 => any.clone().prop_map(Step::SayTo),
        1 => any.clone().prop_map(Step::Ask),
        2 => (any.clone(), 0..2_usize).prop_map(|(client, room)| Step::Join(client, room)),
        2 => (any.clone(), 0..2_usize).prop_map(|(client, room)| Step::Leave(client, room)),
        3 => any.clone().prop_map(Step::Read),
        1 => any.clone().prop_map(Step::Answer),
        2 => any.clone().prop_map(Step::Lose),
        4 => (any.clone(), any).prop_map(|(client, shard)| Step::ComeBack(client, shard)),
        1 => Just(Step::Idle),
        1 => (1..5_u8).prop_map(Step::Restart),
        2 => Just(Step::Load),
    ]
}

const ROOMS: [&str; 2] = ["red", "blue"];

/// What a client is due, after a model that knows of no log.
#[derive(Default)]
struct Due {
    rooms: [bool; 2],
    said: Vec<u32>,
    asked: Vec<u32>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_nothing_comes_twice_whatever_happens(
        shards in 1..4_u8,
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut fleet = Fleet::new(shards, stamping());
        let count = 3;
        let mut clients: Vec<Client> =
            (0..count).map(|n| fleet.connect(n % usize::from(shards), None)).collect();
        let mut due: Vec<Due> = (0..count).map(|_| Due::default()).collect();
        let mut loading = false;
        let mut n = 0;
        for step in steps {
            n += 1;
            let shards = fleet.shells.len();
            match step {
                Step::Say { shard, room, except } => {
                    let room = room.map(|room| ROOMS[room]);
                    let except = except.map(|room| ROOMS[room]);
                    fleet.broadcast(shard, room.as_slice(), except.as_slice(), n);
                    for due in &mut due {
                        let is_in = |name: &str| due.rooms[usize::from(name == ROOMS[1])];
                        if room.is_none_or(is_in) && !except.is_some_and(is_in) {
                            due.said.push(n);
                        }
                    }
                }
                Step::SayTo(client) if !loading => {
                    fleet.command(&clients[client % count], say(n));
                    due[client % count].said.push(n);
                }
                Step::Ask(client) if !loading => {
                    let request = AckRequest { token: 1, timeout: 10 * WINDOW };
                    let args = Args::new(format!("[\"n\",{n}]")).unwrap();
                    fleet.command(&clients[client % count], |socket| Command::Emit {
                        socket,
                        args,
                        ack: Some(request),
                        volatile: false,
                    });
                    due[client % count].asked.push(n);
                }
                Step::Join(client, room) if !loading => {
                    fleet.command(&clients[client % count], join(ROOMS[room]));
                    due[client % count].rooms[room] = true;
                }
                Step::Leave(client, room) if !loading => {
                    fleet.command(&clients[client % count], leave(ROOMS[room]));
                    due[client % count].rooms[room] = false;
                }
                Step::Read(client) => {
                    let client = &mut clients[client % count];
                    if client.transport.is_some() && !client.sid.is_empty() {
                        fleet.read(client);
                    }
                }
                Step::Answer(client) => {
                    let client = &mut clients[client % count];
                    if let Some(transport) = client.transport {
                        fleet.read(client);
                        for event in std::mem::take(&mut client.asked) {
                            let shell = &mut fleet.shells[client.shard];
                            shell.text(transport, &format!("43{event}[]"));
                        }
                        fleet.settle();
                        fleet.read(client);
                    }
                }
                Step::Lose(client) => {
                    let client = &mut clients[client % count];
                    if client.transport.is_some() {
                        fleet.lose(client);
                        client.transport = None;
                    }
                }
                Step::ComeBack(client, shard) => {
                    let client = &mut clients[client % count];
                    fleet.come_back_or_wait(client, shard % shards, loading);
                }
                Step::Idle => {
                    // Those who answer have read all that was sent.
                    for client in &mut clients {
                        if client.transport.is_some() {
                            fleet.read(client);
                        }
                    }
                    fleet.advance(10 * SECOND);
                    for client in &mut clients {
                        if let Some(transport) = client.transport {
                            fleet.read(client);
                            fleet.shells[client.shard].text(transport, "3");
                        }
                    }
                }
                Step::Restart(shards) => {
                    if loading {
                        fleet.load();
                    }
                    fleet.restart(shards);
                    for client in &mut clients {
                        client.transport = None;
                    }
                    loading = true;
                }
                Step::Load => {
                    if loading {
                        fleet.load();
                    }
                    loading = false;
                }
                Step::SayTo(_) | Step::Ask(_) | Step::Join(..) | Step::Leave(..) => {}
            }
        }
        if loading {
            fleet.load();
        }
        for (client, due) in clients.iter_mut().zip(due) {
            fleet.come_back_or_wait(client, 0, false);
            let number = |text: &String| text.parse().unwrap();
            let said: Vec<u32> = client.got.iter().filter(|it| !it.contains(' ')).map(number).collect();
            prop_assert_eq!(said, due.said);
            let asked = client.got.iter().filter_map(|it| it.split_once(' '));
            let mut asked: Vec<u32> = asked.map(|(_, number)| number.parse().unwrap()).collect();
            asked.sort_unstable();
            asked.dedup();
            prop_assert_eq!(asked, due.asked);
        }
        prop_assert_eq!(fleet.recoveries(RecoveryOutcome::LogFull), 0);
    }
}
