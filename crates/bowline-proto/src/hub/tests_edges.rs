//! Scenarios at the edges: what races, what would be kept for ever, what somebody with bad
//! intentions would try.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use bytes::Bytes;
use bytestring::ByteString;
use proptest::prelude::*;

use super::{
    Census, Config, Hub, Keeping, Protocol, SessionKeySource, Socket,
    engine::PACKET_OVERHEAD_BYTES,
    kept::Missed,
    replay::MISSED_MAX,
    tests::{Shell, args, broadcast, emit},
    tests_continuity::{Yard, numbered},
};
use crate::{
    Command, ExchangeId, Input, Sid, SocketKey, TransportId,
    engineio::{RequestError, Version},
    limit::{LimitKey, Limits},
    socketio::Args,
    wall::{
        AckError, AckRequest, Broadcast, DisconnectReason, Event, Handshake, Lost, Origin,
        PostBody, RecoveryOutcome, Response,
    },
};

#[test]
fn acks_that_went_with_their_socket_are_no_longer_counted() {
    let limits = Limits { pending_acks_per_session: 2, ..Limits::default() };
    let mut shell = Shell::new(Config { limits, ..Config::default() });
    let (websocket, mut socket) = shell.join_by_websocket(Version::V4, "/");
    for token in 0..6 {
        shell.command(ask(socket, token, false));
        if token % 2 == 1 {
            shell.text(websocket, "41");
            shell.text(websocket, "40");
            socket = shell.last_socket();
        }
    }
    let expected: Vec<_> = (0..6).map(|token| (token, Err(AckError::Disconnected))).collect();
    assert_eq!(shell.acks(), expected);
}

#[test]
fn a_room_joined_before_the_answer_to_connect_counts_from_the_answer_on() {
    let mut shell = Shell::new(Config::default());
    shell.hold_connects = true;
    let websocket = shell.open_websocket(Version::V4);
    shell.text(websocket, "40");
    let Some(Event::Connect { socket, .. }) = shell.events.last().cloned() else {
        panic!("nobody asked to join")
    };
    shell.command(Command::Join { socket, room: "red".into() });
    let to_red = || {
        let rooms = vec![ByteString::from_static("red")];
        Command::Broadcast(Broadcast { rooms, report: Some(1), ..broadcast("/") })
    };
    shell.command(to_red());
    assert_eq!(shell.sent(websocket), Vec::<String>::new(), "it may yet be refused");
    assert_eq!(shell.reached.pop(), Some((1, 0)));
    let id = shell.sid();
    shell.command(Command::Accept { socket, id, pid: id });
    shell.command(to_red());
    let connect = format!("40{{\"sid\":\"{id}\"}}");
    assert_eq!(shell.sent(websocket), [&connect, "42[\"b\"]"]);
    assert_eq!(shell.reached.pop(), Some((1, 1)));
}

#[test]
fn marks_that_have_gone_all_the_way_round_hide_nobody() {
    let mut shell = Shell::new(Config::default());
    let members: Vec<_> = (0..3).map(|_| shell.join_by_websocket(Version::V4, "/")).collect();
    shell.hub.mark = u32::MAX;
    let red = ByteString::from_static("red");
    for _ in 0..3 {
        let except = vec![red.clone()];
        shell.command(Command::Join { socket: members[0].1, room: red.clone() });
        shell.command(Command::Broadcast(Broadcast { except, ..broadcast("/") }));
        let counts: Vec<_> = members.iter().map(|(it, _)| shell.sent(*it).len()).collect();
        assert_eq!(counts, [0, 1, 1]);
    }
}

#[test]
fn a_receiver_that_is_cut_is_counted_once() {
    let limits = Limits { queued_bytes_per_session: 200, ..Limits::default() };
    let mut shell = Shell::new(Config { limits, ..Config::default() });
    let session = shell.open_polling(Version::V4);
    shell.join_by_polling(session);
    let attachments = vec![Bytes::from_static(&[0; 300]); 3];
    let args = Args { attachments, ..args("[\"b\"]") };
    shell.command(Command::Broadcast(Broadcast { args, ..broadcast("/") }));
    assert_eq!(shell.hub.session_count(), 0);
    assert_eq!(shell.hub.stats().slow_receivers, 1);
    assert_eq!(shell.hub.stats().limit_hits[LimitKey::QueuedBytesPerSession as usize], 1);
}

#[test]
fn the_backlog_of_a_probe_is_not_that_of_its_session() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    let socket = shell.join_by_polling(session);
    let first = shell.attach(session);
    shell.input(Input::Backlog { transport: first, bytes: 10 });
    shell.input(Input::Lost { transport: first, why: Lost::Closed });
    let second = shell.attach(session);
    shell.text(second, "2probe");
    shell.text(second, "5");
    shell.command(volatile(socket));
    assert_eq!(shell.sent(second), ["3probe", "42[\"v\"]"]);
}

#[test]
fn a_probe_that_takes_nothing_fails_and_polling_goes_on() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    let socket = shell.join_by_polling(session);
    let probe = shell.attach(session);
    let bytes = Limits::default().queued_bytes_per_session + 1;
    shell.input(Input::Backlog { transport: probe, bytes });
    assert_eq!(shell.closed.get(&probe), Some(&None));
    shell.command(emit(socket, "[\"a\"]"));
    assert_eq!(shell.get(session), "42[\"a\"]");
}

#[test]
fn a_backlog_from_before_the_upgrade_counts_after_it() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    let socket = shell.join_by_polling(session);
    let websocket = shell.attach(session);
    shell.input(Input::Backlog { transport: websocket, bytes: 10 });
    shell.text(websocket, "5");
    shell.command(volatile(socket));
    assert_eq!(shell.sent(websocket), Vec::<String>::new());
}

#[test]
fn a_session_does_not_outlive_an_answer_that_nobody_took() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    let socket = shell.join_by_polling(session);
    let poll = shell.begin_get(session);
    shell.command(emit(socket, "[\"lost\"]"));
    shell.turn_end();
    assert_eq!(shell.body(poll), "42[\"lost\"]");
    shell.input(Input::Aborted { exchange: poll });
    assert_eq!(shell.last_disconnect(), DisconnectReason::TransportError);
    assert_eq!(shell.hub.session_count(), 0);
    assert_eq!(shell.hub.by_exchange.len(), 0);
}

#[test]
fn the_next_poll_says_that_the_last_answer_has_arrived() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    shell.join_by_polling(session);
    let mut last = shell.begin_get(session);
    for _ in 0..10 {
        shell.command(Command::Broadcast(broadcast("/")));
        shell.turn_end();
        let next = shell.begin_get(session);
        shell.input(Input::Aborted { exchange: last });
        last = next;
    }
    assert_eq!(shell.hub.session_count(), 1);
    assert!(shell.hub.by_exchange.len() <= 2);
    let websocket = shell.attach(session);
    shell.text(websocket, "5");
    assert_eq!(shell.hub.by_exchange.len(), 0);
}

#[test]
fn what_was_said_in_the_turn_of_the_drain_reaches_a_poll_that_waits() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    let socket = shell.join_by_polling(session);
    let poll = shell.begin_get(session);
    shell.command(emit(socket, "[\"last\"]"));
    let key = shell.hub.sessions().next().unwrap();
    shell.input(Input::Drain { session: key });
    shell.turn_end();
    assert_eq!(shell.body(poll), "42[\"last\"]");
    assert_eq!(shell.hub.session_count(), 0);
}

#[test]
fn an_end_is_not_told_behind_events() {
    // The official client would take them in after the end, and have them twice when it comes back.
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    let socket = shell.join_by_polling(session);
    let poll = shell.begin_get(session);
    shell.command(emit(socket, "[\"last\"]"));
    shell.post(session, "2");
    assert_eq!(shell.last_disconnect(), DisconnectReason::TransportError);
    assert_eq!(shell.body(poll), "42[\"last\"]");
    assert_eq!(shell.hub.session_count(), 0);
}

#[test]
fn a_drain_waits_a_little_for_the_poll_that_takes_what_is_queued() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    let socket = shell.join_by_polling(session);
    shell.command(emit(socket, "[\"last\"]"));
    let key = shell.hub.sessions().next().unwrap();
    shell.input(Input::Drain { session: key });
    assert_eq!(shell.last_disconnect(), DisconnectReason::ServerShuttingDown);
    assert_eq!(shell.get(session), "42[\"last\"]");
    assert_eq!(shell.hub.session_count(), 0);

    // One that was closed before waits no longer than the others.
    let silent = shell.open_polling(Version::V4);
    let socket = shell.join_by_polling(silent);
    shell.command(Command::Disconnect { socket, close: true });
    let key = shell.hub.sessions().next().unwrap();
    shell.input(Input::Drain { session: key });
    assert_eq!(shell.hub.session_count(), 1);
    shell.advance(Duration::from_secs(3));
    assert_eq!(shell.hub.session_count(), 0);

    // With nothing to hand over there is nothing to wait for.
    let idle = shell.open_polling(Version::V4);
    shell.join_by_polling(idle);
    let key = shell.hub.sessions().next().unwrap();
    shell.input(Input::Drain { session: key });
    assert_eq!(shell.hub.session_count(), 0);
}

#[test]
fn volatile_events_never_cut_a_polling_receiver() {
    let limits = Limits { queued_bytes_per_session: 1000, ..Limits::default() };
    let mut shell = Shell::new(Config { limits, ..Config::default() });
    let session = shell.open_polling(Version::V4);
    let socket = shell.join_by_polling(session);
    let poll = shell.begin_get(session);
    for _ in 0..100 {
        shell.command(volatile(socket));
        shell.command(Command::Broadcast(Broadcast { volatile: true, ..broadcast("/") }));
    }
    shell.turn_end();
    assert!(shell.body(poll).starts_with("42[\"v\"]\u{1e}42[\"b\"]\u{1e}"));
    assert_eq!(shell.hub.session_count(), 1);
}

#[test]
fn the_ack_of_a_volatile_event_that_was_dropped_times_out() {
    let mut shell = Shell::new(Config::default());
    let (websocket, socket) = shell.join_by_websocket(Version::V4, "/");
    shell.input(Input::Backlog { transport: websocket, bytes: 10 });
    shell.command(ask(socket, 7, true));
    assert_eq!(shell.sent(websocket), Vec::<String>::new());
    shell.advance(Duration::from_secs(5));
    assert_eq!(shell.acks(), [(7, Err(AckError::TimedOut))]);
}

#[test]
fn a_socket_at_its_limit_of_rooms_may_join_one_it_is_in() {
    let limits = Limits { rooms_per_session: 2, ..Limits::default() };
    let mut shell = Shell::new(Config { limits, ..Config::default() });
    let (_, socket) = shell.join_by_websocket(Version::V4, "/");
    for room in ["a", "b", "b", "a"] {
        shell.command(Command::Join { socket, room: ByteString::from_static(room) });
    }
    assert_eq!(shell.hub.session_count(), 1);
    shell.command(Command::Join { socket, room: "c".into() });
    assert_eq!(shell.hub.session_count(), 0);
    assert_eq!(shell.hub.namespaces.rooms.len(), 0);
}

#[test]
fn rooms_are_left_whichever_list_is_the_shorter() {
    let mut shell = Shell::new(Config::default());
    let members: Vec<_> = (0..4).map(|_| shell.join_by_websocket(Version::V4, "/").1).collect();
    let rooms = ["a", "b", "c", "d", "e", "f"];
    for (n, socket) in members.iter().enumerate() {
        for room in &rooms[..rooms.len() - n] {
            shell.command(Command::Join { socket: *socket, room: ByteString::from_static(room) });
        }
    }
    for room in ["a", "f", "c", "c", "b"] {
        let room = ByteString::from_static(room);
        shell.command(Command::Leave { socket: members[0], room });
    }
    shell.command(Command::Leave { socket: members[2], room: "d".into() });
    let mut left: Vec<Vec<_>> =
        members.iter().map(|socket| shell.hub.rooms_of(*socket).collect()).collect();
    left.iter_mut().for_each(|rooms| rooms.sort_unstable());
    let expected: [&[&str]; 4] =
        [&["d", "e"], &["a", "b", "c", "d", "e"], &["a", "b", "c"], &["a", "b", "c"]];
    assert_eq!(left, expected);
    assert_eq!(shell.hub.session_count(), 4);
}

#[test]
fn a_session_without_namespaces_holds_no_headers() {
    let protocol = Protocol::EngineIo(0);
    let mut shell = Shell::new(Config { protocol, ..Config::default() });
    shell.open_websocket(Version::V4);
    assert!(shell.hub.sessions.values().all(|session| session.handshake.is_none()));
}

#[test]
fn deadlines_that_mean_nothing_any_more_do_not_pile_up() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    for _ in 0..10_000 {
        shell.now += Duration::from_micros(1);
        let probe = shell.attach(session);
        shell.input(Input::Lost { transport: probe, why: Lost::Closed });
    }
    assert!(shell.hub.timers.len() < 3_000, "{} entries", shell.hub.timers.len());
    for _ in 0..10_000 {
        let websocket = shell.open_websocket(Version::V4);
        shell.input(Input::Lost { transport: websocket, why: Lost::Closed });
    }
    assert!(shell.hub.timers.len() < 3_000, "{} entries", shell.hub.timers.len());
    shell.advance(Duration::from_secs(25));
    assert_eq!(shell.get(session), "2", "what is meant is kept");
    let (old, _) = shell.join_by_websocket(Version::V3, "/");
    shell.text(old, "2");
    for _ in 0..10_000 {
        let websocket = shell.open_websocket(Version::V4);
        shell.input(Input::Lost { transport: websocket, why: Lost::Closed });
    }
    shell.advance(Duration::from_secs(45));
    assert_eq!(shell.hub.session_count(), 0);
}

#[test]
fn a_small_packet_keeps_no_large_body() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V3);
    let noise = "x".repeat(10_000);
    let body = Bytes::from(format!("3:2ab10001:6{noise}"));
    let exchange = shell.exchange();
    let whole = PostBody::Whole { body: body.clone(), binary: false };
    shell.input(Input::Post { exchange, session, body: whole, timestamp: None });
    assert_eq!(shell.response(exchange), Response::Taken);
    assert!(body.is_unique(), "the pong that waits in the queue holds on to all of it");
    assert_eq!(shell.get(session), "2:403:3ab");
}

#[test]
fn a_namespace_cannot_have_a_name_of_any_length() {
    let mut shell = Shell::new(Config::default());
    let websocket = shell.open_websocket(Version::V4);
    let name = format!("/room-{}", "x".repeat(2_000));
    shell.text(websocket, &format!("40{name}"));
    let refusal = format!("44{name},{{\"message\":\"Invalid namespace\"}}");
    assert_eq!(shell.sent(websocket), [refusal]);
    assert_eq!(shell.hub.namespaces.all.len(), 0);
}

#[test]
fn a_post_that_the_upgrade_overtakes_is_answered_once() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    shell.join_by_polling(session);
    let exchange = shell.exchange();
    shell.input(Input::Post { exchange, session, body: PostBody::Begun, timestamp: None });
    let websocket = shell.attach(session);
    shell.text(websocket, "5");
    assert_eq!(shell.response(exchange), Response::Refused(RequestError::BadRequest));
    shell.input(Input::Aborted { exchange });
    assert_eq!(shell.hub.session_count(), 1);
    assert_eq!(shell.hub.by_exchange.len(), 0);
}

proptest! {
    #[test]
    fn the_books_balance_whatever_happens(acts in prop::collection::vec(any::<(u8, u8, u8)>(), 1..200)) {
        let limits = Limits {
            namespaces_per_session: 3,
            rooms_per_session: 4,
            pending_acks_per_session: 3,
            queued_bytes_per_session: 2_000,
            ..Limits::default()
        };
        let mut shell = Shell::new(Config { limits, ..Config::default() });
        let mut crowd = Crowd::default();
        for act in acts {
            crowd.act(&mut shell, act);
            check_books(&shell.hub);
        }
        let keys: Vec<_> = shell.hub.sessions().collect();
        for session in keys {
            shell.input(Input::Drain { session });
        }
        shell.advance(Duration::from_secs(3));
        prop_assert_eq!(shell.hub.session_count(), 0);
        check_books(&shell.hub);
        prop_assert_eq!(shell.hub.namespaces.all.len(), 0);
        prop_assert_eq!(shell.hub.namespaces.rooms.len(), 0);
    }
}

/// What was opened, whether it is still there or not.
#[derive(Default)]
struct Crowd {
    sessions: Vec<Sid>,
    websockets: Vec<TransportId>,
    requests: Vec<ExchangeId>,
    tokens: u64,
}

impl Crowd {
    fn act(&mut self, shell: &mut Shell, (act, who, what): (u8, u8, u8)) {
        let version = if what % 4 == 0 { Version::V3 } else { Version::V4 };
        let pick = |len: usize| usize::from(who) % len.max(1);
        let session = self.sessions.get(pick(self.sessions.len())).copied();
        let websocket = self.websockets.get(pick(self.websockets.len())).copied();
        let sockets: Vec<_> = shell.hub.sockets.keys().collect();
        let socket = sockets.get(pick(sockets.len())).copied();
        let room = ByteString::from(["a", "b", "c", "d", "e", "f"][usize::from(what) % 6]);
        let namespace =
            ["/", "/room-1,", "/room-2,", "/refused,", "/nowhere,"][usize::from(what) % 5];
        match (act % 20, session, websocket, socket) {
            (0, ..) => self.sessions.push(shell.open_polling(version)),
            (1, ..) => self.websockets.push(shell.open_websocket(version)),
            (2, Some(session), ..) => self.websockets.push(shell.attach(session)),
            (3, Some(session), ..) => self.requests.push(shell.begin_get(session)),
            (4, Some(session), ..) => {
                let exchange = shell.exchange();
                shell.input(Input::Post {
                    exchange,
                    session,
                    body: PostBody::Begun,
                    timestamp: None,
                });
                self.requests.push(exchange);
            }
            (5, Some(session), ..) => {
                let kind = if what % 2 == 0 { "40" } else { "41" };
                let packet = format!("{kind}{namespace}");
                let body = format!("{}:{packet}", packet.len());
                let old = shell.hub.session_transport(session).map(|(_, version)| version);
                shell.post(session, if old == Some(Version::V3) { &body } else { &packet });
            }
            (6, _, Some(websocket), _) => shell.text(websocket, "2probe"),
            (7, _, Some(websocket), _) => shell.text(websocket, "5"),
            (8, _, Some(websocket), _) => {
                shell.input(Input::Lost { transport: websocket, why: Lost::Closed });
            }
            (9, _, Some(websocket), _) => {
                let bytes = usize::from(what) * 10;
                shell.input(Input::Backlog { transport: websocket, bytes });
            }
            (10 | 11, _, Some(websocket), _) => shell.text(websocket, &format!("40{namespace}")),
            (12, _, Some(websocket), _) => shell.text(websocket, &format!("41{namespace}")),
            (13, ..) if !self.requests.is_empty() => {
                let exchange = self.requests.swap_remove(pick(self.requests.len()));
                shell.input(Input::Aborted { exchange });
            }
            (14, .., Some(socket)) => shell.command(Command::Join { socket, room }),
            (15, .., Some(socket)) => shell.command(Command::Leave { socket, room }),
            (16, .., Some(socket)) => {
                self.tokens += 1;
                shell.command(ask(socket, self.tokens, what % 3 == 0));
            }
            (17, .., Some(socket)) => {
                shell.command(Command::Disconnect { socket, close: what % 3 == 0 });
            }
            (18, ..) => {
                let (rooms, except) = (vec![room.clone(), "b".into()], vec![room]);
                let volatile = what % 3 == 0;
                let broadcast = match what % 2 {
                    0 => Broadcast { rooms, volatile, ..broadcast("/") },
                    _ => Broadcast { except, volatile, ..broadcast("/room-1") },
                };
                shell.command(Command::Broadcast(broadcast));
            }
            (19, ..) => shell.advance(Duration::from_secs(u64::from(what) % 30)),
            _ => shell.turn_end(),
        }
        shell.hold_connects = what % 7 == 0;
    }
}

/// Everything that is kept twice must agree.
fn check_books(hub: &Hub) {
    let mut census = Census::default();
    let (mut transports, mut exchanges) = (0, 0);
    for (key, session) in &hub.sessions {
        assert_eq!(hub.by_sid.get(&session.id), Some(&key));
        let sockets: Vec<_> = session.sockets.iter().map(|socket| &hub.sockets[*socket]).collect();
        assert!(sockets.iter().all(|socket| socket.session == key));
        let rooms: usize = sockets.iter().map(|socket| socket.rooms.len()).sum();
        assert_eq!(session.rooms as usize, rooms);
        let extras = sockets.iter().filter_map(|socket| socket.extras.as_ref());
        let acks = extras.map(|extras| extras.pending_acks.len()).sum::<usize>();
        assert_eq!(session.pending_acks as usize, acks);
        assert_eq!(session.websocket.is_some(), session.polling.is_none());
        match session.websocket {
            Some(_) => census.websocket[usize::from(session.is_eio3())][0] += 1,
            None => census.polling += 1,
        }
        census.by_packet += usize::from(session.takes_packets());
        transports += usize::from(session.websocket.is_some());
        let Some(polling) = session.polling.as_deref() else { continue };
        transports += usize::from(polling.probe.is_some());
        exchanges += [polling.get, polling.answered, polling.post].iter().flatten().count();
        let queued = polling.queue.iter().map(|packet| packet.data.len() + PACKET_OVERHEAD_BYTES);
        assert_eq!(polling.queued_bytes, queued.sum::<usize>());
    }
    assert_eq!(hub.by_sid.len(), hub.sessions.len());
    assert_eq!((hub.by_transport.len(), hub.by_exchange.len()), (transports, exchanges));
    let counted = |it: &Census| (it.polling, it.by_packet, it.websocket);
    assert_eq!(counted(&hub.census), counted(&census));
    let accepted = hub.sockets.values().filter(|socket| socket.id.is_some()).count();
    assert_eq!(hub.by_socket_sid.len(), accepted);
    for (key, namespace) in &hub.namespaces.all {
        let inside = |(_, socket): &(_, &Socket)| socket.namespace == key;
        let pending = hub.sockets.iter().filter(inside).filter(|(_, socket)| socket.id.is_none());
        assert_eq!(namespace.pending, pending.count());
        for (place, member) in namespace.members.iter().enumerate() {
            assert_eq!(hub.sockets[member.socket].place as usize, place);
        }
    }
    let members: usize = hub.namespaces.all.values().map(|it| it.members.len()).sum();
    assert_eq!(members, accepted);
    let memberships: usize = hub.sockets.values().map(|socket| socket.rooms.len()).sum();
    let rooms: usize = hub.namespaces.all.values().map(|it| it.rooms.len()).sum();
    assert_eq!(hub.namespaces.rooms.len(), rooms);
    assert_eq!(hub.namespaces.check_rooms(&hub.sockets, &hub.sessions), memberships);
}

#[test]
fn who_has_missed_more_than_is_worth_looking_through_starts_anew() {
    let mut yard = Yard::stamping(1);
    let (transport, ticket) = yard.connect(0, "");
    yard.lose(0, transport);
    for number in 0..MISSED_MAX {
        yard.broadcast(0, numbered(number));
    }
    let (transport, again, _) = yard.come_back(0, &ticket);
    assert_eq!(again.pid, ticket.pid);
    yard.lose(0, transport);
    yard.broadcast(0, numbered(0));
    let (_, again, missed) = yard.come_back(0, &ticket);
    assert_ne!(again.pid, ticket.pid);
    assert_eq!((missed.len(), yard.recoveries(RecoveryOutcome::LogFull)), (0, 1));
}

#[test]
fn what_sockets_bring_from_other_shards_is_bounded_for_all_of_them() {
    let session_key = Some(SessionKeySource::Cookie("device".into()));
    let mut yard = Yard::keeping(2, Keeping { session_key, ..Keeping::default() });
    for shell in &mut yard.0 {
        let mut config = shell.hub.config.clone();
        config.continuity.log_bytes = 10_000_000;
        shell.input(Input::Configure(Box::new(config)));
    }
    let come = |yard: &mut Yard, shard: usize, name: usize| {
        let shell = &mut yard.0[shard];
        let (id, transport) = (shell.sid(), TransportId(shell.next_id()));
        let mut handshake = Handshake::clone(&shell.handshake(Version::V4));
        handshake.headers.push(("cookie".into(), format!("device={name}")));
        let origin = Origin::WebSocket { transport, deflate: false };
        shell.input(Input::Open { id, origin, handshake: handshake.into() });
        shell.text(transport, "40");
        yard.settle();
        let sid = yard.0[shard].sent(transport)[1].clone();
        yard.lose(shard, transport);
        sid
    };
    let first: Vec<String> = (0..8).map(|name| come(&mut yard, 0, name)).collect();
    for number in 0..40_000 {
        yard.broadcast(0, numbered(number));
    }
    yard.settle();
    let second: Vec<String> = (0..8).map(|name| come(&mut yard, 1, name)).collect();
    let most = 10_000_000 / size_of::<Missed>();
    let kept = first.iter().zip(&second).filter(|(first, second)| first == second).count();
    assert_eq!(kept, most / 40_000);
    assert_eq!(yard.0[1].hub.older.load(Relaxed), kept * 40_000);
    assert_eq!(yard.recoveries(RecoveryOutcome::LogFull), 8 - kept as u64);
    // They have their names again, and whoever is gone holds nothing.
    let third: Vec<String> = (0..8).map(|name| come(&mut yard, 1, name)).collect();
    assert_eq!(third, second);
    let fourth: Vec<String> = (kept..8).map(|name| come(&mut yard, 0, name)).collect();
    assert_eq!(fourth, second[kept..]);
    yard.advance(Duration::from_secs(121));
    assert_eq!(yard.0[1].hub.older.load(Relaxed), 0);
}

fn ask(socket: SocketKey, token: u64, volatile: bool) -> Command {
    let ack = Some(AckRequest { token, timeout: Duration::from_secs(5) });
    Command::Emit { socket, args: args("[\"ask\"]"), ack, volatile }
}

fn volatile(socket: SocketKey) -> Command {
    Command::Emit { socket, args: args("[\"v\"]"), ack: None, volatile: true }
}
