//! What a reading of the continuity core has found, one test for each.

use std::time::Duration;

use bowline_names::ErrorCode;

use super::{
    Keeping, OnDoubt, SessionKeySource, Whereabouts,
    tests::{Shell, args, emit},
    tests_continuity::{Yard, numbered, numbers, ticket},
};
use crate::{
    Command, Input, TransportId,
    engineio::Version,
    socketio::Args,
    wall::{AckRequest, Broadcast, Event, Handshake, Lost, Origin, PostBody, RecoveryOutcome},
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_broadcast_that_a_moved_socket_has_had_does_not_reach_it_again() {
    let mut yard = Yard::stamping(3);
    let (other, _) = yard.connect(1, "");
    let (transport, ticket) = yard.connect(0, "");
    // It comes to the first shard at once and to the second late.
    yard.broadcast(2, numbered(1));
    let late = yard.0[2].forwarded.remove(0);
    yard.0[0].command(Command::Broadcast(late.clone()));
    assert_eq!(numbers(&yard.0[0].sent(transport)), [1]);
    yard.lose(0, transport);
    let (transport, again, missed) = yard.come_back(1, &ticket);
    assert_eq!((again.pid, numbers(&missed)), (ticket.pid, vec![1]));
    yard.0[1].command(Command::Broadcast(late));
    yard.advance(SECOND);
    yard.broadcast(1, numbered(2));
    assert_eq!(numbers(&yard.0[1].sent(transport)), [2]);
    assert_eq!(numbers(&yard.0[1].sent(other)), [1, 2]);
}

#[test]
fn a_replay_goes_on_over_an_upgrade() {
    let mut yard = Yard::stamping(1);
    let (transport, ticket) = yard.connect(0, "");
    yard.lose(0, transport);
    for number in 0..2_000 {
        yard.broadcast(0, long(number, 200));
    }
    let shell = &mut yard.0[0];
    let session = shell.open_polling(Version::V4);
    shell.post(session, &format!("40{}", ticket.auth()));
    let body = shell.get(session);
    let mut seen = numbers(&body.split('\u{1e}').map(str::to_owned).collect::<Vec<_>>());
    shell.advance(SECOND);
    let transport = shell.attach(session);
    shell.text(transport, "2probe");
    shell.text(transport, "5");
    shell.advance(SECOND);
    seen.extend(numbers(&shell.sent(transport)));
    assert_eq!(seen, (0..2_000).collect::<Vec<_>>());
}

#[test]
fn what_is_volatile_is_not_sent_again_even_if_it_asks_for_an_ack() {
    let mut yard = Yard::stamping(1);
    let (transport, ticket) = yard.connect(0, "");
    let socket = yard.0[0].last_socket();
    let ack = Some(AckRequest { token: 1, timeout: 60 * SECOND });
    let ask = |json| Command::Emit { socket, args: args(json), ack, volatile: true };
    yard.0[0].command(ask("[\"n\",1]"));
    let all = Broadcast { volatile: true, ack: ack.map(Box::new), ..numbered(2) };
    yard.broadcast(0, all.clone());
    assert_eq!(yard.0[0].sent(transport).len(), 2);
    yard.lose(0, transport);
    yard.0[0].command(ask("[\"n\",3]"));
    yard.broadcast(0, all);
    let (_, again, missed) = yard.come_back(0, &ticket);
    assert_eq!((again.pid, missed), (ticket.pid, vec![]));
    yard.advance(61 * SECOND);
    assert_eq!(yard.0[0].acks().len(), 4, "they count as missing after their time");
}

#[test]
fn what_a_client_of_eio3_has_had_for_long_is_not_in_doubt() {
    let mut yard = Yard::keeping(2, by_device(OnDoubt::Repeat));
    let transport = come(&mut yard.0[0], Version::V3);
    yard.settle();
    yard.0[0].sent(transport);
    yard.lose(0, transport);
    yard.broadcast(0, numbered(1));
    yard.settle();
    let transport = come(&mut yard.0[1], Version::V3);
    yard.settle();
    assert_eq!(numbers(&yard.0[1].sent(transport)), [1]);
    for _ in 0..6 {
        yard.advance(20 * SECOND);
        yard.0[1].text(transport, "2");
    }
    yard.lose(1, transport);
    let transport = come(&mut yard.0[1], Version::V3);
    assert_eq!(numbers(&yard.0[1].sent(transport)), [] as [usize; 0]);
    assert_eq!(yard.recoveries(RecoveryOutcome::Recovered), 2);
}

#[test]
fn a_client_that_is_cut_as_it_comes_back_is_away_for_its_handler() {
    let mut yard = Yard::new(1, |config| config.limits.queued_bytes_per_session = 2_000);
    yard.0[0].user_agent = "Mozilla/5.0".into();
    let (transport, ticket) = yard.connect(0, "");
    let socket = yard.0[0].last_socket();
    yard.lose(0, transport);
    let shell = &mut yard.0[0];
    let session = shell.open_polling(Version::V4);
    shell.post(session, "40/room-1");
    let room = shell.last_socket();
    let text = "x".repeat(1_700);
    shell.command(emit(room, &format!("[\"{text}\"]")));
    shell.post(session, &format!("40{}", ticket.auth()));
    assert_eq!(shell.hub.away_count(), 2);
    let last = shell.events.iter().rev().find_map(|event| match event {
        Event::Away { socket: who, .. } if *who == socket => Some("away"),
        Event::Back { socket: who } if *who == socket => Some("back"),
        _ => None,
    });
    assert_eq!(last, Some("away"), "{:?}", shell.events);
}

#[test]
fn what_is_remembered_of_acks_does_not_grow_with_every_drop() {
    let mut yard = Yard::stamping(1);
    let (mut transport, ticket) = yard.connect(0, "");
    let socket = yard.0[0].last_socket();
    let ack = Some(AckRequest { token: 1, timeout: 36_000 * SECOND });
    yard.0[0].command(Command::Emit { socket, args: args("[\"a\"]"), ack, volatile: false });
    for _ in 0..1_000 {
        yard.lose(0, transport);
        transport = yard.come_back(0, &ticket).0;
    }
    let entries = yard.0[0].hub.keeper.acks_len();
    assert!(entries < 10, "{entries}");
}

#[test]
fn acks_that_are_missing_one_after_the_other_are_looked_for_once_each() {
    let mut yard = Yard::stamping(1);
    let (transport, _) = yard.connect(0, "");
    let socket = yard.0[0].last_socket();
    yard.lose(0, transport);
    for token in 0..1_000 {
        let timeout = SECOND + Duration::from_millis(token);
        let ack = Some(AckRequest { token, timeout });
        yard.0[0].command(Command::Emit { socket, args: args("[\"a\"]"), ack, volatile: false });
    }
    yard.advance(SECOND + Duration::from_millis(990));
    assert_eq!(yard.0[0].acks().len(), 991);
    let entries = yard.0[0].hub.keeper.acks_len();
    assert!(entries < 20, "{entries}");
}

#[test]
fn a_socket_whose_namespace_is_served_no_more_comes_along_all_the_same() {
    let mut yard = Yard::stamping(2);
    let shell = &mut yard.0[0];
    let transport = shell.open_websocket(Version::V4);
    shell.text(transport, "40/room-1,");
    let first = ticket(&shell.sent(transport)[0].replace("/room-1,", ""));
    yard.lose(0, transport);
    let transport = yard.0[1].open_websocket(Version::V4);
    // It shows the pid in another namespace, and the one it is of has gone from the configuration.
    for shell in &mut yard.0 {
        let mut config = shell.hub.config.clone();
        config.namespaces.truncate(1);
        shell.input(Input::Configure(Box::new(config)));
    }
    yard.0[1].text(transport, &format!("40{}", first.auth()));
    yard.settle();
    let sent = yard.0[1].sent(transport);
    assert_ne!(ticket(&sent[0]).pid, first.pid);
    assert_eq!(yard.0[1].hub.away_count(), 1);
    yard.lose(1, transport);
    yard.advance(121 * SECOND);
    yard.settle();
    for shell in &yard.0 {
        let keeper = &shell.hub.keeper;
        let left = (keeper.by_pid.len(), keeper.homes.len(), keeper.moved.len());
        assert_eq!((left, keeper.adopted.len(), shell.hub.sockets.len()), ((0, 0, 0), 0, 0));
    }
}

#[test]
fn an_answer_that_comes_late_does_not_answer_another_event() {
    let mut yard = Yard::keeping(1, by_device(OnDoubt::Repeat));
    let shell = &mut yard.0[0];
    let transport = come(shell, Version::V4);
    let socket = shell.last_socket();
    shell.text(transport, "420[\"first\"]");
    shell.input(Input::Lost { transport, why: Lost::Failed });
    // Its library begins anew with the numbers.
    let transport = come(shell, Version::V4);
    shell.text(transport, "420[\"second\"]");
    shell.sent(transport);
    let asked: Vec<u64> = shell
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Event { ack, .. } => *ack,
            _ => None,
        })
        .collect();
    shell.command(Command::Ack { socket, id: asked[0], args: args("[\"to the first\"]") });
    assert_eq!(shell.sent(transport), [] as [&str; 0]);
    shell.command(Command::Ack { socket, id: asked[1], args: args("[\"to the second\"]") });
    assert_eq!(shell.sent(transport), ["430[\"to the second\"]"]);
}

#[test]
fn a_client_that_goes_on_with_its_numbers_gets_late_answers_on_every_shard() {
    let mut yard = Yard::keeping(3, by_device(OnDoubt::Repeat));
    let transport = come(&mut yard.0[0], Version::V4);
    yard.settle();
    let born = (0..3).find_map(|shard| {
        let (socket, _) = *yard.0[0].accepted.last()?;
        (shard == 0).then(|| yard.0[0].hub.born(socket))
    });
    let (shard, key) = born.unwrap();
    yard.0[0].text(transport, "427[\"first\"]");
    yard.lose(0, transport);
    let transport = come(&mut yard.0[1], Version::V4);
    yard.settle();
    yard.0[1].text(transport, "428[\"second\"]");
    yard.0[1].sent(transport);
    let asked = |yard: &Yard, shard: usize| {
        let events = yard.0[shard].events.iter();
        events
            .filter_map(|event| match event {
                Event::Event { ack, .. } => *ack,
                _ => None,
            })
            .next()
            .unwrap()
    };
    let (first, second) = (asked(&yard, 0), asked(&yard, 1));
    let Whereabouts::Here(socket) = yard.0[1].hub.whereabouts(shard, key) else { panic!("gone") };
    for id in [second, first] {
        yard.0[1].command(Command::Ack { socket, id, args: args("[]") });
    }
    assert_eq!(yard.0[1].sent(transport), ["438[]", "437[]"]);
}

#[test]
fn what_a_client_of_eio3_took_long_to_take_is_in_doubt() {
    let mut yard = Yard::keeping(1, by_device(OnDoubt::Repeat));
    let shell = &mut yard.0[0];
    let transport = come(shell, Version::V3);
    shell.input(Input::Lost { transport, why: Lost::Failed });
    let missed = 4_000;
    for number in 0..missed {
        shell.command(Command::Broadcast(long(number, 200)));
    }
    let transport = come(shell, Version::V3);
    shell.input(Input::Backlog { transport, bytes: 1 });
    for _ in 0..5 {
        shell.advance(20 * SECOND);
        shell.text(transport, "2");
    }
    shell.input(Input::Backlog { transport, bytes: 0 });
    shell.advance(SECOND);
    assert_eq!(numbers(&shell.sent(transport)), (0..missed).collect::<Vec<_>>());
    shell.input(Input::Lost { transport, why: Lost::Failed });
    let transport = come(shell, Version::V3);
    let again = numbers(&shell.sent(transport));
    assert!(!again.is_empty(), "the latest were sent a second before the drop");
}

#[test]
fn a_client_whose_time_is_over_before_it_is_let_in_goes_under_the_key_it_came_with() {
    let mut yard = Yard::keeping(3, by_device(OnDoubt::Repeat));
    for shard in 0..3 {
        yard.0[shard].hold_connects = true;
        let transport = come(&mut yard.0[shard], Version::V4);
        yard.settle();
        let Some(Event::Connect { socket, .. }) = yard.0[shard].events.last().cloned() else {
            panic!("nobody was asked: {:?}", yard.0[shard].events)
        };
        let born = yard.0[shard].hub.born(socket);
        let (after, code) = (SECOND, ErrorCode::TokenExpired);
        yard.0[shard].command(Command::Expire { socket, after, code });
        yard.0[shard].now += SECOND;
        yard.0[shard].input(Input::Timeout);
        assert!(yard.0[shard].sent(transport).pop().unwrap().starts_with("44"));
        let told = yard.0[shard].events.last();
        assert!(matches!(told, Some(Event::Disconnect { socket: who, .. }) if *who == socket));
        assert_eq!(yard.0[shard].hub.born(socket), born, "what the shell asks for now");
        yard.settle();
    }
    for shell in &yard.0 {
        let keeper = &shell.hub.keeper;
        assert_eq!((keeper.homes.len(), keeper.moved.len(), keeper.adopted.len()), (0, 0, 0));
    }
}

#[test]
fn a_request_that_only_looks_like_the_one_before_is_none_that_a_proxy_repeats() {
    // The parameter is the app's own; its clock is coarse.
    for own in [true, false] {
        let mut yard = Yard::stamping(1);
        let shell = &mut yard.0[0];
        let session = shell.open_polling(Version::V4);
        let post = |shell: &mut Shell, body: &str| {
            let exchange = shell.exchange();
            let body = PostBody::Whole { body: body.to_owned().into(), binary: false };
            shell.input(Input::Post { exchange, session, body, timestamp: Some(1) });
            shell.response(exchange)
        };
        let get = |shell: &mut Shell, timestamp| {
            let exchange = shell.exchange();
            shell.input(Input::Get { exchange, session, timestamp: Some(timestamp) });
            shell.turn_end();
            shell.body(exchange)
        };
        post(shell, "40");
        for turn in 0..3 {
            get(shell, if own { 1 } else { 2 + turn });
            post(shell, &format!("42[\"n\",{turn}]"));
            shell.command(Command::Broadcast(numbered(1)));
        }
        let events = shell.events.iter().filter(|event| matches!(event, Event::Event { .. }));
        assert_eq!(events.count(), 3, "{own}");
    }
}

#[test]
fn a_handler_hears_that_a_socket_has_gone_before_its_client_comes_anew() {
    let mut yard = Yard::new(1, |config| config.continuity.window = 10 * SECOND);
    yard.0[0].user_agent = "Mozilla/5.0".into();
    let (transport, ticket) = yard.connect(0, "");
    let socket = yard.0[0].last_socket();
    yard.lose(0, transport);
    yard.0[0].hold_connects = true;
    let transport = yard.0[0].open_websocket(Version::V4);
    yard.0[0].text(transport, &format!("40{}", ticket.auth()));
    // Nobody answers before the window is over.
    yard.advance(11 * SECOND);
    let told: Vec<_> = yard.0[0].events.iter().rev().take(2).collect();
    assert!(
        matches!(told[..], [Event::Connect { .. }, Event::Disconnect { socket: who, .. }] if *who == socket),
        "{told:?}"
    );
}

fn long(number: usize, bytes: usize) -> Broadcast {
    let json = format!("[\"n\",{number},\"{}\"]", "x".repeat(bytes));
    Broadcast { args: Args { json: json.into(), attachments: Vec::new() }, ..numbered(number) }
}

fn by_device(on_doubt: OnDoubt) -> Keeping {
    let session_key = Some(SessionKeySource::Cookie("device".into()));
    Keeping { session_key, on_doubt, ..Keeping::default() }
}

/// Comes as the device of that name.
fn come(shell: &mut Shell, version: Version) -> TransportId {
    let (id, transport) = (shell.sid(), TransportId(shell.next_id()));
    let mut handshake = Handshake::clone(&shell.handshake(version));
    handshake.headers.push(("cookie".into(), "device=owl".into()));
    let origin = Origin::WebSocket { transport, deflate: false };
    shell.input(Input::Open { id, origin, handshake: handshake.into() });
    if version == Version::V4 {
        shell.text(transport, "40");
    }
    transport
}
