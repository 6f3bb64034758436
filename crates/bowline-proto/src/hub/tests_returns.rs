//! Returns that the seeded world (`bowline-sim`) found to go wrong once.

use std::time::Duration;

use super::{
    Keeping, SessionKeySource,
    tests::{args, emit},
    tests_continuity::{Yard, numbered, numbers},
};
use crate::{
    Command, Input, SocketKey, TransportId,
    engineio::Version,
    wall::{Broadcast, Event, Handshake, Origin, RecoveryOutcome},
};

const SECOND: Duration = Duration::from_secs(1);

fn named() -> Keeping {
    let session_key = Some(SessionKeySource::Cookie("device".into()));
    Keeping { session_key, ..Keeping::default() }
}

/// A client with a cookie connects to `/` and hears the answer.
fn come(yard: &mut Yard, shard: usize, version: Version) -> (TransportId, Vec<String>) {
    let shell = &mut yard.0[shard];
    let (id, transport) = (shell.sid(), TransportId(shell.next_id()));
    let mut handshake = Handshake::clone(&shell.handshake(version));
    handshake.headers.push(("cookie".into(), "device=d".into()));
    let origin = Origin::WebSocket { transport, deflate: false };
    shell.input(Input::Open { id, origin, handshake: handshake.into() });
    if version == Version::V4 {
        shell.text(transport, "40");
    }
    yard.settle();
    let sent = yard.0[shard].sent(transport);
    (transport, sent[1..].to_vec())
}

fn asked(yard: &Yard, shard: usize) -> SocketKey {
    let asked = yard.0[shard].events.iter().rev().find_map(|event| match event {
        Event::Connect { socket, .. } | Event::Return { socket, .. } => Some(*socket),
        _ => None,
    });
    asked.unwrap()
}

/// Both shards, since the name's home is on one of them.
fn on_each_of_two(check: impl Fn(&mut Yard, usize)) {
    for shard in [0, 1] {
        check(&mut Yard::keeping(2, named()), shard);
    }
}

#[test]
fn a_name_that_was_refused_is_kept_once_it_is_let_in() {
    on_each_of_two(|yard, shard| {
        yard.0[shard].hold_connects = true;
        let (transport, _) = come(yard, shard, Version::V4);
        let socket = asked(yard, shard);
        let message = "not yet".to_owned();
        yard.0[shard].command(Command::Refuse { socket, message, data: None });
        yard.settle();
        yard.0[shard].hold_connects = false;
        yard.0[shard].text(transport, "40");
        yard.settle();
        let sent = yard.0[shard].sent(transport);
        let sid = sent.last().unwrap().clone();
        yard.lose(shard, transport);
        yard.broadcast(shard, numbered(1));
        yard.settle();
        let (_, sent) = come(yard, 1 - shard, Version::V4);
        assert_eq!((&sent[0], numbers(&sent)), (&sid, vec![1]));
    });
}

#[test]
fn of_two_of_a_name_who_wait_to_be_let_in_the_first_is_turned_away() {
    on_each_of_two(|yard, shard| {
        yard.0[shard].hold_connects = true;
        let (first, _) = come(yard, shard, Version::V4);
        let earlier = asked(yard, shard);
        yard.0[shard].hold_connects = false;
        let (second, sent) = come(yard, shard, Version::V4);
        assert!(sent[0].starts_with("40{"), "{sent:?}");
        assert!(yard.0[shard].sent(first)[0].starts_with("44"));
        let gone =
            |event: &Event| matches!(event, Event::Disconnect { socket, .. } if *socket == earlier);
        assert!(yard.0[shard].events.iter().any(gone), "its handler is told");
        yard.lose(shard, second);
        let (_, again) = come(yard, 1 - shard, Version::V4);
        assert_eq!(again[0], sent[0]);
    });
}

#[test]
fn of_two_of_a_name_on_two_shards_only_the_later_one_is_kept() {
    on_each_of_two(|yard, shard| {
        yard.0[shard].hold_connects = true;
        let (first, _) = come(yard, shard, Version::V4);
        let earlier = asked(yard, shard);
        let (_, sent) = come(yard, 1 - shard, Version::V4);
        let (id, pid) = (yard.0[shard].sid(), yard.0[shard].sid());
        yard.0[shard].command(Command::Accept { socket: earlier, id, pid });
        yard.settle();
        assert!(yard.0[shard].sent(first)[0].starts_with("44"));
        yard.0[shard].hold_connects = false;
        let (_, again) = come(yard, shard, Version::V4);
        assert_eq!(again[0], sent[0]);
    });
}

#[test]
fn a_name_whose_socket_is_sent_away_while_its_client_waits_is_kept_again() {
    on_each_of_two(|yard, shard| {
        let (transport, _) = come(yard, shard, Version::V4);
        yard.lose(shard, transport);
        yard.0[shard].hold_connects = true;
        let (second, _) = come(yard, shard, Version::V4);
        let socket = asked(yard, shard);
        yard.0[shard].hold_connects = false;
        yard.0[shard].command(Command::Disconnect { socket, close: false });
        yard.settle();
        let sent = yard.0[shard].sent(second);
        assert!(sent[0].starts_with("40{"), "{sent:?}");
        yard.lose(shard, second);
        let (_, again) = come(yard, 1 - shard, Version::V4);
        assert_eq!(again[0], sent[0]);
    });
}

#[test]
fn something_volatile_of_the_new_shard_proves_what_came_from_the_old_one() {
    // Back to the shard that it came from, to a third one, and to where it is.
    for to in [0, 2, 1] {
        let mut yard = Yard::stamping(3);
        let (transport, ticket) = yard.connect(0, "");
        let socket = yard.0[0].last_socket();
        yard.lose(0, transport);
        yard.0[0].command(emit(socket, "[\"n\",1]"));
        let (transport, ticket, missed) = yard.come_back(1, &ticket);
        assert_eq!(numbers(&missed), [1]);
        yard.broadcast(1, Broadcast { volatile: true, ..numbered(2) });
        let sent = yard.0[1].sent(transport);
        assert_eq!(numbers(&sent), [2]);
        let seen = ticket.seen(&sent[0]);
        yard.lose(1, transport);
        let (_, again, missed) = yard.come_back(to, &seen);
        assert_eq!((&again.sid, numbers(&missed)), (&ticket.sid, vec![]), "to {to}");
    }
}

#[test]
fn an_offset_beyond_the_log_of_another_shard_counts_as_none() {
    let mut yard = Yard::stamping(2);
    let (transport, ticket) = yard.connect(0, "");
    yard.lose(0, transport);
    yard.broadcast(0, numbered(1));
    yard.settle();
    let beyond = ticket.seen("42[\"n\",\"abc.0.1000\"]");
    let (_, _, missed) = yard.come_back(1, &beyond);
    assert_eq!(numbers(&missed), [1]);
}

#[test]
fn what_an_old_client_was_sent_again_is_in_doubt_for_as_long_as_what_is_new() {
    let mut yard = Yard::keeping(1, named());
    let (transport, _) = come(&mut yard, 0, Version::V3);
    yard.lose(0, transport);
    yard.broadcast(0, numbered(1));
    yard.advance(100 * SECOND);
    let (transport, sent) = come(&mut yard, 0, Version::V3);
    assert_eq!(numbers(&sent), [1]);
    yard.advance(SECOND);
    yard.lose(0, transport);
    let (_, sent) = come(&mut yard, 0, Version::V3);
    assert_eq!(numbers(&sent), [1]);
}

#[test]
fn an_old_client_that_was_there_for_hours_is_taken_over() {
    let mut yard = Yard::keeping(1, named());
    let (transport, _) = come(&mut yard, 0, Version::V3);
    for number in 0..400 {
        yard.broadcast(0, numbered(number));
        yard.advance(25 * SECOND);
        yard.0[0].text(transport, "2");
    }
    come(&mut yard, 0, Version::V3);
    assert_eq!(yard.recoveries(RecoveryOutcome::Recovered), 1);
    assert_eq!(yard.recoveries(RecoveryOutcome::LogFull), 0);
}

#[test]
fn what_an_old_client_may_have_missed_and_the_log_gave_up_is_not_passed_over() {
    let mut yard = Yard::keeping(1, named());
    yard.advance(100 * SECOND);
    let (transport, _) = come(&mut yard, 0, Version::V3);
    yard.broadcast(0, numbered(1));
    let mut config = yard.0[0].hub.config.clone();
    config.continuity.log_bytes = 1;
    yard.0[0].input(Input::Configure(Box::new(config)));
    yard.advance(SECOND);
    yard.0[0].input(Input::TurnEnd);
    yard.lose(0, transport);
    come(&mut yard, 0, Version::V3);
    assert_eq!(yard.recoveries(RecoveryOutcome::LogFull), 1);
}

#[test]
fn a_client_without_offsets_gets_no_acks_of_an_earlier_session() {
    let mut yard = Yard::keeping(1, named());
    let (transport, _) = come(&mut yard, 0, Version::V4);
    yard.0[0].text(transport, "421[\"n\"]");
    let socket = yard.0[0].last_socket();
    yard.0[0].command(Command::Ack { socket, id: 1, args: args("[5]") });
    assert_eq!(yard.0[0].sent(transport), ["431[5]"]);
    yard.lose(0, transport);
    let (_, sent) = come(&mut yard, 0, Version::V4);
    // It numbers its events from 1 again.
    assert_eq!(sent.len(), 1, "{sent:?}");
}

#[test]
fn those_who_arrive_from_other_shards_count_as_away_too() {
    let mut yard = Yard::new(2, |config| config.continuity.away_max = 1);
    let auth = "{\"recovery\":true}";
    let (_, ticket) = yard.connect(0, auth);
    let (transport, _) = yard.connect(1, auth);
    yard.lose(1, transport);
    yard.0[1].hold_connects = true;
    let transport = yard.0[1].open_websocket(Version::V4);
    yard.0[1].text(transport, &format!("40{}", ticket.auth()));
    yard.settle();
    assert_eq!(yard.0[1].hub.away_count(), 1);
}
