//! Sockets that outlive their transports: on one shard, and from shard to shard.

use std::time::Duration;

use bytestring::ByteString;

use super::{
    Config, Continuity, Keeping, OnDoubt, SessionKeySource, Stamp, Whereabouts,
    tests::{Shell, args, broadcast, emit},
};
use crate::{
    Command, Input, SocketKey, TransportId,
    engineio::Version,
    hub::Offset,
    limit::Limits,
    socketio::Args,
    wall::{
        AckRequest, Broadcast, DisconnectReason, Event, Handshake, Lost, Origin, PostBody,
        RecoveryOutcome, Response,
    },
};

const SECOND: Duration = Duration::from_secs(1);

/// Shards whose messages to each other wait until they are passed on.
pub(super) struct Yard(pub(super) Vec<Shell>);

/// What a client knows of its socket.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ticket {
    pub(super) sid: String,
    pub(super) pid: Option<String>,
    offset: Option<String>,
}

impl Yard {
    pub(super) fn new(shards: u8, change: impl Fn(&mut Config)) -> Self {
        let shell = |shard| {
            let continuity = Continuity { shard, epoch: 0xabc, ..Continuity::default() };
            let mut config = Config { shards, continuity, ..Config::default() };
            change(&mut config);
            let keeping = config.namespaces.first().map(|rule| rule.keeping.clone());
            let mut shell = Shell::new(config);
            if let Some(keeping) = keeping {
                let mut config = shell.hub.config.clone();
                for rule in &mut config.namespaces {
                    rule.keeping = keeping.clone();
                }
                shell.input(Input::Configure(Box::new(config)));
            }
            shell
        };
        Self((0..shards).map(shell).collect())
    }

    /// Shards on which every client of the version gets a pid.
    pub(super) fn stamping(shards: u8) -> Self {
        Self::keeping(shards, Keeping { stamp: Stamp::Always, ..Keeping::default() })
    }

    pub(super) fn keeping(shards: u8, keeping: Keeping) -> Self {
        let mut yard = Self::new(shards, |_| {});
        for shell in &mut yard.0 {
            let mut config = shell.hub.config.clone();
            for rule in &mut config.namespaces {
                rule.keeping = keeping.clone();
            }
            shell.input(Input::Configure(Box::new(config)));
        }
        yard
    }

    /// Passes on what shards have told each other, until nothing follows.
    pub(super) fn settle(&mut self) {
        while self.pass_on() {}
    }

    /// Passes on one message of each shard.
    fn pass_on(&mut self) -> bool {
        let mut any = false;
        for from in 0..self.0.len() {
            let forwarded = std::mem::take(&mut self.0[from].forwarded);
            for to in (0..self.0.len()).filter(|to| *to != from) {
                for broadcast in &forwarded {
                    self.0[to].command(Command::Broadcast(broadcast.clone()));
                    any = true;
                }
            }
            for (to, message) in std::mem::take(&mut self.0[from].told) {
                self.0[usize::from(to)].input(Input::Heard(message));
                any = true;
            }
        }
        any
    }

    pub(super) fn advance(&mut self, by: Duration) {
        for shell in &mut self.0 {
            shell.advance(by);
        }
    }

    /// Connects to `/` on a shard.
    pub(super) fn connect(&mut self, shard: usize, auth: &str) -> (TransportId, Ticket) {
        let transport = self.0[shard].open_websocket(Version::V4);
        self.0[shard].text(transport, &format!("40{auth}"));
        self.settle();
        let sent = self.0[shard].sent(transport);
        (transport, ticket(&sent[0]))
    }

    /// Comes back with what was known, and says what was sent after the CONNECT.
    pub(super) fn come_back(
        &mut self,
        shard: usize,
        ticket: &Ticket,
    ) -> (TransportId, Ticket, Vec<String>) {
        let transport = self.0[shard].open_websocket(Version::V4);
        self.0[shard].text(transport, &format!("40{}", ticket.auth()));
        self.settle();
        let mut sent = self.0[shard].sent(transport);
        let ticket = self::ticket(&sent.remove(0));
        (transport, ticket, sent)
    }

    pub(super) fn lose(&mut self, shard: usize, transport: TransportId) {
        self.0[shard].input(Input::Lost { transport, why: Lost::Failed });
    }

    pub(super) fn recoveries(&self, outcome: RecoveryOutcome) -> u64 {
        self.0.iter().map(|shell| shell.hub.stats().recoveries[outcome as usize]).sum()
    }

    pub(super) fn broadcast(&mut self, shard: usize, broadcast: Broadcast) {
        self.0[shard].command(Command::Broadcast(broadcast));
    }
}

impl Ticket {
    pub(super) fn auth(&self) -> String {
        let mut fields = Vec::new();
        if let Some(pid) = &self.pid {
            fields.push(format!("\"pid\":\"{pid}\""));
        }
        if let Some(offset) = &self.offset {
            fields.push(format!("\"offset\":\"{offset}\""));
        }
        format!("{{{}}}", fields.join(","))
    }

    pub(super) fn seen(&self, event: &str) -> Self {
        let args: Vec<serde_json::Value> = serde_json::from_str(&event[2..]).unwrap();
        let offset = args.last().unwrap().as_str().unwrap().to_owned();
        Self { offset: Some(offset), ..self.clone() }
    }
}

pub(super) fn ticket(connect: &str) -> Ticket {
    let answer = connect.strip_prefix("40").unwrap_or_else(|| panic!("no CONNECT: {connect}"));
    let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
    let text = |key: &str| Some(answer.get(key)?.as_str()?.to_owned());
    Ticket { sid: text("sid").unwrap(), pid: text("pid"), offset: None }
}

pub(super) fn numbered(number: usize) -> Broadcast {
    let json = format!("[\"n\",{number}]");
    Broadcast { args: Args { json: json.into(), attachments: Vec::new() }, ..broadcast("/") }
}

/// The numbers of the events that a client was sent.
pub(super) fn numbers(sent: &[String]) -> Vec<usize> {
    let number = |text: &String| {
        let args: Vec<serde_json::Value> = serde_json::from_str(text.strip_prefix("42")?).ok()?;
        Some(usize::try_from(args.get(1)?.as_u64()?).unwrap())
    };
    sent.iter().filter_map(number).collect()
}

fn events(shell: &Shell, socket: SocketKey) -> Vec<&Event> {
    let of = |event: &&Event| {
        matches!(event,
        Event::Away { socket: who, .. } | Event::Back { socket: who }
        | Event::Disconnect { socket: who, .. } | Event::Return { socket: who, .. }
            if *who == socket)
    };
    shell.events.iter().filter(of).collect()
}

#[test]
fn only_those_who_take_part_get_a_pid_and_offsets() {
    for (stamp, agent, auth, version, part) in [
        (Stamp::Auto, "owl/1.0", "", Version::V4, false),
        (Stamp::Auto, "Mozilla/5.0", "", Version::V4, true),
        (Stamp::Auto, "Mozilla/5.0", "", Version::V3, false),
        (Stamp::Auto, "owl/1.0", "{\"recovery\":true}", Version::V4, true),
        (Stamp::Auto, "owl/1.0", "{\"recovery\":false}", Version::V4, false),
        (Stamp::Auto, "owl/1.0", "{\"pid\":\"nobody's\"}", Version::V4, true),
        (Stamp::Auto, "owl/1.0", "{\"\\u0070id\":\"nobody's\"}", Version::V4, true),
        (Stamp::Always, "owl/1.0", "", Version::V4, true),
        (Stamp::Never, "Mozilla/5.0", "{\"recovery\":true}", Version::V4, false),
    ] {
        let mut yard = Yard::keeping(1, Keeping { stamp, ..Keeping::default() });
        let shell = &mut yard.0[0];
        shell.user_agent = agent.into();
        let transport = shell.open_websocket(version);
        if version == Version::V4 {
            shell.text(transport, &format!("40{auth}"));
        }
        let connect = shell.sent(transport).pop().unwrap();
        assert_eq!(connect.contains("\"pid\""), part, "{stamp:?} {agent} {auth}: {connect}");
        let socket = shell.last_socket();
        shell.command(emit(socket, "[\"a\",1]"));
        shell.command(Command::Broadcast(numbered(2)));
        let sent = shell.sent(transport);
        let stamped = ["42[\"a\",1,\"abc.0.1\"]", "42[\"n\",2,\"abc.0.2\"]"];
        let plain = ["42[\"a\",1]", "42[\"n\",2]"];
        assert_eq!(sent, if part { stamped } else { plain }, "{stamp:?} {agent} {auth}");
    }
}

#[test]
fn what_was_missed_comes_after_the_connect_once_and_in_order() {
    let mut yard = Yard::stamping(1);
    let (transport, first) = yard.connect(0, "");
    let socket = yard.0[0].last_socket();
    yard.broadcast(0, numbered(1));
    let sent = yard.0[0].sent(transport);
    let seen = first.seen(&sent[0]);
    yard.broadcast(0, numbered(2));
    yard.lose(0, transport);
    yard.0[0].command(emit(socket, "[\"n\",3]"));
    yard.broadcast(0, Broadcast { volatile: true, ..numbered(4) });
    yard.broadcast(0, numbered(5));
    let (transport, again, missed) = yard.come_back(0, &seen);
    assert_eq!((&again.sid, &again.pid), (&first.sid, &first.pid));
    assert_eq!(numbers(&missed), [2, 3, 5]);
    yard.broadcast(0, numbered(6));
    assert_eq!(numbers(&yard.0[0].sent(transport)), [6]);
    assert_eq!(yard.recoveries(RecoveryOutcome::Recovered), 1);
    let told = events(&yard.0[0], socket);
    assert!(
        matches!(told[..], [Event::Away { .. }, Event::Return { .. }, Event::Back { .. }]),
        "{told:?}"
    );
    // A second drop right after: only what was not seen.
    let seen = seen.seen(&missed[1]);
    yard.lose(0, transport);
    let (_, _, missed) = yard.come_back(0, &seen);
    assert_eq!(numbers(&missed), [5, 6]);
}

#[test]
fn who_has_received_nothing_needs_no_offset() {
    let mut yard = Yard::stamping(1);
    let (transport, ticket) = yard.connect(0, "");
    yard.lose(0, transport);
    yard.broadcast(0, numbered(1));
    let (_, again, missed) = yard.come_back(0, &ticket);
    assert_eq!((again.pid, numbers(&missed)), (ticket.pid, vec![1]));
}

#[test]
fn an_idle_day_costs_nothing_and_the_log_stays_small() {
    let mut yard = Yard::stamping(1);
    let (transport, ticket) = yard.connect(0, "");
    yard.broadcast(0, numbered(1));
    let sent = yard.0[0].sent(transport);
    let seen = ticket.seen(&sent[0]);
    for _ in 0..3_456 {
        yard.advance(25 * SECOND);
        assert_eq!(yard.0[0].sent(transport), ["2"]);
        yard.0[0].text(transport, "3");
        // Somebody else is busy all day.
        let other = Broadcast { rooms: vec!["others".into()], ..numbered(9) };
        yard.broadcast(0, other);
    }
    assert!(yard.0[0].hub.log_view(yard.0[0].now).records < 10);
    yard.lose(0, transport);
    yard.broadcast(0, numbered(2));
    yard.advance(SECOND);
    let (_, again, missed) = yard.come_back(0, &seen);
    assert_eq!((again.pid, numbers(&missed)), (ticket.pid, vec![2]));
}

#[test]
fn a_client_that_returns_before_the_server_noticed_takes_over() {
    let mut yard = Yard::stamping(1);
    let (old, ticket) = yard.connect(0, "");
    yard.broadcast(0, numbered(1));
    let (new, again, missed) = yard.come_back(0, &ticket);
    assert_eq!((again.pid, numbers(&missed)), (ticket.pid, vec![1]));
    assert_eq!(yard.0[0].sent(old).last().unwrap(), "41");
    assert!(yard.0[0].closed.contains_key(&old));
    yard.broadcast(0, numbered(2));
    assert_eq!(numbers(&yard.0[0].sent(new)), [2]);
    assert_eq!(yard.0[0].hub.session_count(), 1);
}

#[test]
fn rooms_that_were_joined_and_left_while_away_count_for_their_time() {
    let mut yard = Yard::stamping(1);
    let (transport, ticket) = yard.connect(0, "");
    let socket = yard.0[0].last_socket();
    let to =
        |room: &'static str, number| Broadcast { rooms: vec![room.into()], ..numbered(number) };
    let join = |room: &'static str| Command::Join { socket, room: room.into() };
    let leave = |room: &'static str| Command::Leave { socket, room: room.into() };
    yard.0[0].command(join("a"));
    yard.lose(0, transport);
    yard.broadcast(0, to("a", 1));
    yard.broadcast(0, to("b", 2));
    yard.0[0].command(join("b"));
    yard.broadcast(0, to("b", 3));
    yard.0[0].command(leave("a"));
    yard.broadcast(0, to("a", 4));
    yard.broadcast(0, Broadcast { except: vec!["b".into()], ..numbered(5) });
    yard.0[0].command(leave("b"));
    yard.broadcast(0, to("b", 6));
    yard.broadcast(0, Broadcast { except: vec!["b".into()], ..numbered(7) });
    let own: ByteString = ticket.sid.clone().into();
    yard.broadcast(0, Broadcast { rooms: vec![own.clone()], ..numbered(8) });
    yard.broadcast(0, Broadcast { except: vec![own], ..numbered(9) });
    yard.0[0].command(join("a"));
    yard.broadcast(0, Broadcast { rooms: vec!["a".into(), "b".into()], ..numbered(10) });
    let (_, _, missed) = yard.come_back(0, &ticket);
    assert_eq!(numbers(&missed), [1, 3, 7, 8, 10]);
}

#[test]
fn an_event_that_asks_for_an_ack_is_held_until_it_comes() {
    let mut yard = Yard::stamping(1);
    let (transport, ticket) = yard.connect(0, "");
    let socket = yard.0[0].last_socket();
    let ask = |token, json: &'static str| Command::Emit {
        socket,
        args: args(json),
        ack: Some(AckRequest { token, timeout: 60 * SECOND }),
        volatile: false,
    };
    yard.0[0].command(ask(1, "[\"first\"]"));
    yard.lose(0, transport);
    yard.0[0].command(ask(2, "[\"second\"]"));
    yard.broadcast(0, numbered(1));
    let (transport, _, missed) = yard.come_back(0, &ticket);
    assert_eq!(missed[..2], ["420[\"first\"]", "421[\"second\"]"]);
    assert_eq!(numbers(&missed), [1]);
    yard.0[0].text(transport, "431[]");
    yard.0[0].text(transport, "430[]");
    let acks = yard.0[0].acks();
    assert_eq!(
        acks.iter().map(|(token, ack)| (*token, ack.is_ok())).collect::<Vec<_>>(),
        [(2, true), (1, true)]
    );
    yard.lose(0, transport);
    let (_, _, missed) = yard.come_back(0, &ticket);
    assert_eq!(numbers(&missed), [1], "what was acked is not sent again");
    // While away, its time passes too.
    yard.0[0].command(ask(3, "[\"third\"]"));
    let other = yard.connect(0, &ticket.auth()).0;
    yard.lose(0, other);
    yard.advance(61 * SECOND);
    assert!(yard.0[0].acks().iter().any(|(token, ack)| *token == 3 && ack.is_err()));
}

#[test]
fn who_stays_away_for_too_long_is_gone_and_is_told_so() {
    let mut yard = Yard::stamping(1);
    let (transport, ticket) = yard.connect(0, "");
    let socket = yard.0[0].last_socket();
    yard.lose(0, transport);
    yard.advance(121 * SECOND);
    assert_eq!(yard.0[0].last_disconnect(), DisconnectReason::TransportError);
    assert!(yard.0[0].hub.socket(socket).is_none());
    let (_, again, _) = yard.come_back(0, &ticket);
    assert_ne!(again.pid, ticket.pid);
    assert_eq!(yard.recoveries(RecoveryOutcome::Window), 1);
    let stale = Ticket { pid: Some("AAAAAAAAAAAAAAAAAAAA".into()), ..ticket.clone() };
    yard.come_back(0, &stale);
    assert_eq!(yard.recoveries(RecoveryOutcome::Unknown), 1);
    let before = Ticket { offset: Some("dead.0.7".into()), ..stale };
    yard.come_back(0, &before);
    assert_eq!(yard.recoveries(RecoveryOutcome::Restarted), 1);
    yard.come_back(0, &Ticket { pid: Some("<script>".into()), ..ticket });
    assert_eq!(yard.recoveries(RecoveryOutcome::Unknown), 2);
}

#[test]
fn who_says_goodbye_is_gone_at_once() {
    let mut yard = Yard::stamping(1);
    let (transport, ticket) = yard.connect(0, "");
    yard.0[0].text(transport, "41");
    assert_eq!(yard.0[0].last_disconnect(), DisconnectReason::ClientNamespaceDisconnect);
    let (_, again, _) = yard.come_back(0, &ticket);
    assert_ne!(again.pid, ticket.pid);
    assert_eq!(yard.recoveries(RecoveryOutcome::Ended), 1);
    // An engine's goodbye is none.
    yard.0[0].text(transport, "1");
    assert_eq!(yard.0[0].hub.away_count(), 0);
    let (transport, ticket) = yard.connect(0, "");
    yard.0[0].text(transport, "1");
    assert_eq!(yard.0[0].hub.away_count(), 1);
    let (_, again, _) = yard.come_back(0, &ticket);
    assert_eq!(again.pid, ticket.pid);
}

#[test]
fn a_log_that_had_to_give_up_what_is_needed_recovers_nobody() {
    let mut yard = Yard::stamping(1);
    let mut config = yard.0[0].hub.config.clone();
    config.continuity.log_bytes = 2_000;
    yard.0[0].input(Input::Configure(Box::new(config)));
    let (transport, ticket) = yard.connect(0, "");
    let (other, idle) = yard.connect(0, "");
    let socket = yard.0[0].last_socket();
    yard.lose(0, transport);
    yard.lose(0, other);
    for number in 0..50 {
        let to = vec![ByteString::from(&*ticket.sid)];
        yard.broadcast(0, Broadcast { rooms: to, ..numbered(number) });
        yard.0[0].turn_end();
    }
    assert!(yard.0[0].hub.log_view(yard.0[0].now).bytes <= 2_000);
    let (_, again, missed) = yard.come_back(0, &ticket);
    assert_ne!(again.pid, ticket.pid);
    assert_eq!((numbers(&missed), yard.recoveries(RecoveryOutcome::LogFull)), (vec![], 1));
    // What was given up was none of the other's.
    let (_, again, _) = yard.come_back(0, &idle);
    assert_eq!(again.pid, idle.pid);
    assert!(yard.0[0].hub.socket(socket).is_some());
}

#[test]
fn a_long_replay_goes_out_in_portions() {
    let limits = Limits { queued_bytes_per_session: 40_000, ..Limits::default() };
    let mut yard = Yard::stamping(1);
    let mut config = yard.0[0].hub.config.clone();
    config.limits = limits;
    yard.0[0].input(Input::Configure(Box::new(config)));
    let (transport, ticket) = yard.connect(0, "");
    yard.lose(0, transport);
    for number in 0..2_000 {
        yard.broadcast(0, numbered(number));
    }
    let (transport, _, missed) = yard.come_back(0, &ticket);
    assert!(missed.len() < 1_000, "{} at once", missed.len());
    // What is emitted meanwhile comes after it.
    yard.broadcast(0, numbered(2_000));
    let mut seen = numbers(&missed);
    // The transport lags: nothing more comes.
    yard.0[0].input(Input::Backlog { transport, bytes: 10_000 });
    yard.advance(SECOND);
    assert_eq!(yard.0[0].sent(transport), [""; 0]);
    yard.0[0].input(Input::Backlog { transport, bytes: 0 });
    yard.advance(SECOND);
    seen.extend(numbers(&yard.0[0].sent(transport)));
    assert_eq!(seen, (0..=2_000).collect::<Vec<_>>());
}

#[test]
fn a_polling_client_gets_its_replay_poll_by_poll() {
    let mut yard = Yard::stamping(1);
    let shell = &mut yard.0[0];
    let session = shell.open_polling(Version::V4);
    shell.post(session, "40");
    let connect = shell.get(session);
    let ticket = ticket(&connect);
    shell.command(Command::Broadcast(numbered(0)));
    // Its answer is cut: the client never sees it.
    let exchange = shell.begin_get(session);
    shell.turn_end();
    shell.input(Input::Aborted { exchange });
    assert_eq!(shell.hub.away_count(), 1);
    for number in 1..2_000 {
        shell.command(Command::Broadcast(numbered(number)));
    }
    let session = shell.open_polling(Version::V4);
    shell.post(session, &format!("40{}", ticket.auth()));
    let mut seen = Vec::new();
    let mut polls = 0;
    while seen.len() < 2_000 {
        let body = shell.get(session);
        let packets: Vec<_> = body.split('\u{1e}').map(str::to_owned).collect();
        seen.extend(numbers(&packets));
        polls += 1;
        assert!(polls < 1_000);
        shell.advance(Duration::from_millis(1));
    }
    assert_eq!(seen, (0..2_000).collect::<Vec<_>>());
}

#[test]
fn a_poll_confirms_the_body_before_it() {
    let named = |on_doubt| Keeping {
        session_key: Some(SessionKeySource::Cookie("device".into())),
        on_doubt,
        ..Keeping::default()
    };
    for (on_doubt, again) in [(OnDoubt::Repeat, vec![2, 3]), (OnDoubt::Skip, vec![3])] {
        let mut yard = Yard::keeping(1, named(on_doubt));
        let shell = &mut yard.0[0];
        let come = |shell: &mut Shell| {
            let (id, exchange) = (shell.sid(), shell.exchange());
            let mut handshake = Handshake::clone(&shell.handshake(Version::V4));
            handshake.headers.push(("cookie".into(), "a=b; device=owl".into()));
            let origin = Origin::Polling(exchange);
            shell.input(Input::Open { id, origin, handshake: handshake.into() });
            shell.post(id, "40");
            shell.responses.remove(&exchange);
            id
        };
        let session = come(shell);
        let connect = shell.get(session);
        assert!(!connect.contains("pid"), "{connect}");
        shell.command(Command::Broadcast(numbered(1)));
        assert_eq!(shell.get(session), "42[\"n\",1]");
        let exchange = shell.begin_get(session);
        shell.command(Command::Broadcast(numbered(2)));
        shell.turn_end();
        shell.input(Input::Aborted { exchange });
        shell.command(Command::Broadcast(numbered(3)));
        let session = come(shell);
        let body = shell.get(session);
        let packets: Vec<_> = body.split('\u{1e}').map(str::to_owned).collect();
        assert_eq!(packets[0], connect, "the same sid");
        assert_eq!(numbers(&packets), again, "{on_doubt:?}");
        assert_eq!(yard.recoveries(RecoveryOutcome::Recovered), 1);
        assert_eq!(yard.recoveries(RecoveryOutcome::Unknown), 0);
    }
}

#[test]
fn a_refused_return_leaves_the_socket_away() {
    let mut yard = Yard::stamping(1);
    let (transport, ticket) = yard.connect(0, "");
    let socket = yard.0[0].last_socket();
    yard.lose(0, transport);
    yard.broadcast(0, numbered(1));
    yard.0[0].hold_connects = true;
    let transport = yard.0[0].open_websocket(Version::V4);
    yard.0[0].text(transport, &format!("40{}", ticket.auth()));
    yard.0[0].command(Command::Refuse { socket, message: "no".into(), data: None });
    assert_eq!(yard.0[0].sent(transport), ["44{\"message\":\"no\"}"]);
    assert_eq!(yard.0[0].hub.away_count(), 1);
    yard.0[0].hold_connects = false;
    yard.0[0].text(transport, &format!("40{}", ticket.auth()));
    let sent = yard.0[0].sent(transport);
    assert_eq!(self::ticket(&sent[0]).pid, ticket.pid);
    assert_eq!(numbers(&sent), [1]);
}

#[test]
fn too_many_who_are_away_push_the_oldest_out() {
    let mut yard = Yard::new(1, |config| config.continuity.away_max = 2);
    yard.0[0].user_agent = "Mozilla/5.0".into();
    let clients: Vec<_> = (0..3).map(|_| yard.connect(0, "")).collect();
    for (transport, _) in &clients {
        yard.lose(0, *transport);
        yard.advance(SECOND);
    }
    assert_eq!(yard.0[0].hub.away_count(), 2);
    let recovered: Vec<bool> =
        clients.iter().map(|(_, ticket)| yard.come_back(0, ticket).1.pid == ticket.pid).collect();
    assert_eq!(recovered, [false, true, true]);
    assert_eq!(yard.recoveries(RecoveryOutcome::Crowded), 1);
}

#[test]
fn a_socket_moves_to_the_shard_of_its_new_transport() {
    let mut yard = Yard::stamping(3);
    let (transport, ticket) = yard.connect(0, "");
    let born = yard.0[0].last_socket();
    yard.0[0].command(Command::Join { socket: born, room: "owls".into() });
    yard.broadcast(0, numbered(1));
    let seen = ticket.seen(&yard.0[0].sent(transport)[0]);
    yard.broadcast(0, numbered(2));
    yard.settle();
    yard.lose(0, transport);
    yard.broadcast(1, numbered(3));
    yard.settle();
    let (transport, again, missed) = yard.come_back(2, &seen);
    assert_eq!((&again.sid, &again.pid), (&ticket.sid, &ticket.pid));
    assert_eq!(numbers(&missed), [2, 3]);
    assert_eq!(yard.0[0].hub.whereabouts(0, born), Whereabouts::There(2));
    assert_eq!(yard.0[1].hub.whereabouts(0, born), Whereabouts::There(0));
    let Whereabouts::Here(here) = yard.0[2].hub.whereabouts(0, born) else { panic!("not here") };
    assert_eq!(yard.0[2].hub.born(here), (0, born));
    assert_eq!(yard.0[2].hub.rooms_of(here).collect::<Vec<_>>(), ["owls"]);
    // Back to the first, with an offset of the second, and of the third.
    yard.broadcast(1, numbered(4));
    yard.settle();
    let sent = yard.0[2].sent(transport);
    let seen = seen.seen(&sent[0]);
    yard.broadcast(0, Broadcast { rooms: vec!["owls".into()], ..numbered(5) });
    yard.settle();
    let (transport, again, missed) = yard.come_back(0, &seen);
    assert_eq!((again.pid, numbers(&missed)), (ticket.pid.clone(), vec![5]));
    assert!(matches!(yard.0[0].hub.whereabouts(0, born), Whereabouts::Here(_)));
    assert_eq!(yard.0[2].hub.whereabouts(0, born), Whereabouts::There(0));
    // To the second, and from there to the third, past its home.
    yard.lose(0, transport);
    let (transport, _, _) = yard.come_back(1, &seen);
    yard.lose(1, transport);
    yard.broadcast(2, numbered(6));
    yard.settle();
    let (_, again, missed) = yard.come_back(2, &seen);
    assert_eq!((again.pid, numbers(&missed)), (ticket.pid, vec![5, 6]));
    assert_eq!(yard.0[0].settled.len(), 2);
    assert_eq!(yard.recoveries(RecoveryOutcome::Recovered), 4);
}

#[test]
fn broadcasts_that_pass_a_socket_on_its_way_reach_it_once() {
    // The broadcasts of each shard are passed on before or after each message of the move.
    for late in 0..64 {
        let mut yard = Yard::stamping(3);
        let (transport, ticket) = yard.connect(0, "");
        yard.lose(0, transport);
        let mut number = 0;
        let mut broadcast_on_all = |yard: &mut Yard| {
            for shard in 0..3 {
                number += 1;
                yard.broadcast(shard, numbered(number));
            }
            number
        };
        broadcast_on_all(&mut yard);
        let transport = yard.0[2].open_websocket(Version::V4);
        yard.0[2].text(transport, &format!("40{}", ticket.auth()));
        for step in 0..3 {
            broadcast_on_all(&mut yard);
            let mut order = [0, 1, 2];
            order.rotate_left((late >> (2 * step)) % 3);
            // One shard's messages are passed on at a time, in this order.
            for from in order {
                let forwarded = std::mem::take(&mut yard.0[from].forwarded);
                let told = std::mem::take(&mut yard.0[from].told);
                for to in (0..3).filter(|to| *to != from) {
                    for broadcast in &forwarded {
                        yard.0[to].command(Command::Broadcast(broadcast.clone()));
                    }
                }
                for (to, message) in told {
                    yard.0[usize::from(to)].input(Input::Heard(message));
                }
                if late & (16 << step) != 0 {
                    broadcast_on_all(&mut yard);
                }
            }
        }
        let last = broadcast_on_all(&mut yard);
        yard.settle();
        yard.advance(Duration::from_millis(1));
        let mut seen = numbers(&yard.0[2].sent(transport));
        seen.sort_unstable();
        assert_eq!(seen, (1..=last).collect::<Vec<_>>(), "{late}");
    }
}

#[test]
fn of_two_claimants_the_newest_wins_wherever_they_are() {
    for (first, second) in [(0, 0), (1, 1), (1, 2), (0, 2), (2, 0)] {
        let mut yard = Yard::stamping(3);
        let (transport, ticket) = yard.connect(0, "");
        yard.lose(0, transport);
        let transports = [first, second].map(|shard| {
            let transport = yard.0[shard].open_websocket(Version::V4);
            yard.0[shard].text(transport, &format!("40{}", ticket.auth()));
            transport
        });
        yard.settle();
        let answers = [(first, transports[0]), (second, transports[1])]
            .map(|(shard, transport)| yard.0[shard].sent(transport));
        let newest = self::ticket(&answers[1][0]);
        // Where messages meet, either may count as the newer; never both.
        let holders = answers.iter().filter(|sent| {
            self::ticket(&sent[0]).pid == ticket.pid && !sent.contains(&"41".to_owned())
        });
        assert_eq!(holders.count(), 1, "{first} {second}: {answers:?}");
        if first == second {
            assert_eq!(newest.pid, ticket.pid);
        }
    }
}

#[test]
fn a_name_finds_its_socket_on_every_shard() {
    let keeping = Keeping {
        session_key: Some(SessionKeySource::Cookie("device".into())),
        ..Keeping::default()
    };
    let mut yard = Yard::keeping(3, keeping);
    let come = |yard: &mut Yard, shard: usize, version, name: &str| {
        let shell = &mut yard.0[shard];
        let (id, transport) = (shell.sid(), TransportId(shell.next_id()));
        let mut handshake = Handshake::clone(&shell.handshake(version));
        handshake.headers.push(("cookie".into(), format!("device={name}")));
        let origin = Origin::WebSocket { transport, deflate: false };
        shell.input(Input::Open { id, origin, handshake: handshake.into() });
        if version == Version::V4 {
            shell.text(transport, "40");
        }
        yard.settle();
        let sent = yard.0[shard].sent(transport);
        (transport, sent[1..].to_vec())
    };
    for (index, version) in [Version::V4, Version::V3].into_iter().enumerate() {
        for name in 0..8 {
            let name = format!("{index}-{name}");
            let (transport, sent) = come(&mut yard, 0, version, &name);
            let sid = sent[0].clone();
            for (turn, shard) in [1, 2, 1, 0, 0].into_iter().enumerate() {
                let from = [0, 1, 2, 1, 0][turn];
                if turn == 0 {
                    yard.lose(from, transport);
                }
                yard.advance(46 * SECOND);
                let (transport, sent) = come(&mut yard, shard, version, &name);
                if version == Version::V4 {
                    assert_eq!(sent[0], sid, "{name} on {shard}");
                }
                yard.lose(shard, transport);
            }
        }
    }
    assert_eq!(yard.recoveries(RecoveryOutcome::Recovered), 80);
    yard.advance(121 * SECOND);
    yard.settle();
    for shell in &yard.0 {
        let keeper = &shell.hub.keeper;
        let left = (keeper.by_pid.len(), keeper.homes.len(), keeper.moved.len());
        assert_eq!((left, keeper.adopted.len(), keeper.registering.len()), ((0, 0, 0), 0, 0));
        assert_eq!((shell.hub.sockets.len(), shell.hub.away_count()), (0, 0));
    }
}

#[test]
fn offsets_of_elsewhere_and_beyond_count_as_none() {
    let mut yard = Yard::stamping(1);
    for offset in ["dead.0.1", "abc.1.1", "abc.0.999", "rubbish", "1.2", ""] {
        let (transport, ticket) = yard.connect(0, "");
        yard.lose(0, transport);
        yard.broadcast(0, numbered(1));
        let ticket = Ticket { offset: Some(offset.into()), ..ticket };
        let (transport, again, missed) = yard.come_back(0, &ticket);
        assert_eq!((again.pid, numbers(&missed)), (ticket.pid, vec![1]), "{offset:?}");
        yard.0[0].text(transport, "41");
    }
    assert_eq!("abc.0.999".parse::<Offset>().unwrap().number, 999);
}

#[test]
fn a_request_that_a_proxy_repeats_costs_nothing() {
    let mut yard = Yard::stamping(1);
    let shell = &mut yard.0[0];
    let session = shell.open_polling(Version::V4);
    shell.post(session, "40");
    let ticket = ticket(&shell.get(session));
    let get = |shell: &mut Shell, timestamp| {
        let exchange = shell.exchange();
        shell.input(Input::Get { exchange, session, timestamp: Some(timestamp) });
        shell.turn_end();
        exchange
    };
    let post = |shell: &mut Shell, timestamp| {
        let (exchange, body) = (shell.exchange(), "42[\"once\"]".into());
        let body = PostBody::Whole { body, binary: false };
        shell.input(Input::Post { exchange, session, body, timestamp: Some(timestamp) });
        shell.response(exchange)
    };
    assert_eq!(
        [post(shell, 1), post(shell, 1), post(shell, 2)],
        [Response::Taken, Response::Taken, Response::Taken]
    );
    let once = |event: &&Event| matches!(event, Event::Event { .. });
    assert_eq!(shell.events.iter().filter(once).count(), 2);
    shell.command(Command::Broadcast(numbered(1)));
    // The answer to the first is lost on its way, and the proxy asks again.
    let lost = get(shell, 1);
    assert!(shell.body(lost).contains("[\"n\",1"));
    let again = get(shell, 1);
    assert_eq!(shell.response(again), Response::Status(400));
    shell.command(Command::Broadcast(numbered(2)));
    let (_, again, missed) = yard.come_back(0, &ticket);
    assert_eq!((again.pid, numbers(&missed)), (ticket.pid, vec![1, 2]));
}

#[test]
fn an_event_that_asks_for_an_ack_asks_once_at_each_return_wherever_that_is() {
    let mut yard = Yard::stamping(3);
    let ask = |number| {
        let ack = AckRequest { token: number as u64, timeout: 60 * SECOND };
        Broadcast { ack: Some(Box::new(ack)), ..numbered(number) }
    };
    let asked = |sent: &[String]| -> Vec<(String, usize)> {
        let event = |text: &String| {
            let (id, json) = text.strip_prefix("42")?.split_once('[')?;
            let number = json.split([',', ']']).nth(1)?.parse().unwrap();
            Some((id.to_owned(), number))
        };
        sent.iter().filter_map(event).collect()
    };
    let (transport, ticket) = yard.connect(0, "");
    yard.lose(0, transport);
    yard.broadcast(0, ask(1));
    yard.settle();
    let mut held = 1;
    for shard in [1, 1, 2, 2, 0, 1] {
        let (transport, _, missed) = yard.come_back(shard, &ticket);
        let asked = asked(&missed);
        let numbers: Vec<usize> = asked.iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers, (1..=held).collect::<Vec<_>>(), "on {shard}: {missed:?}");
        assert!(asked.iter().all(|(id, _)| !id.is_empty()), "on {shard}: {missed:?}");
        yard.lose(shard, transport);
        held += 1;
        yard.broadcast(0, ask(held));
        yard.settle();
    }
    let (transport, _, missed) = yard.come_back(2, &ticket);
    for (id, _) in asked(&missed) {
        yard.0[2].text(transport, &format!("43{id}[]"));
    }
    yard.lose(2, transport);
    for shard in [2, 1] {
        let (transport, _, missed) = yard.come_back(shard, &ticket);
        assert_eq!(asked(&missed), [], "what was acked is not asked again, on {shard}");
        yard.lose(shard, transport);
    }
}
