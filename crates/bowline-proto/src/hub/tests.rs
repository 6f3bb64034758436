//! Scenarios: a hub, a fake clock, and a shell that writes down what it was told.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use bytestring::ByteString;

use super::{Config, Hub, NamespacePattern, NamespaceRule, Protocol, UpgradeFailure};
use crate::{
    Command, Event, ExchangeId, Input, Output, Sid, SocketKey, Time, TransportId,
    engineio::{PollStyle, RequestError, TransportName, Version},
    limit::{LimitKey, Limits},
    socketio::Args,
    wall::{
        AckError, AckRequest, Broadcast, DisconnectReason, Handshake, Lost, Origin, PollBody,
        PostBody, Response,
    },
    websocket::{self, Message},
};

#[test]
fn a_polling_session_opens_connects_and_gets_a_burst_in_one_body() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    assert_eq!(shell.post(session, "40"), Response::Taken);
    assert_eq!(shell.get(session), format!("40{{\"sid\":\"{}\"}}", shell.last_socket_id()));
    let socket = shell.last_socket();
    let poll = shell.begin_get(session);
    for n in 0..3 {
        shell.command(emit(socket, &format!("[\"n\",{n}]")));
    }
    shell.turn_end();
    assert_eq!(shell.body(poll), "42[\"n\",0]\u{1e}42[\"n\",1]\u{1e}42[\"n\",2]");
}

#[test]
fn an_upgrade_moves_what_no_poll_has_taken_and_keeps_order() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    let socket = shell.join_by_polling(session);
    let pending = shell.begin_get(session);
    let websocket = shell.attach(session);
    shell.text(websocket, "2probe");
    shell.turn_end();
    assert_eq!(shell.body(pending), "6", "the pending poll is let go so that the client can pause");
    assert_eq!(shell.sent(websocket), ["3probe"]);
    shell.command(emit(socket, "[\"a\"]"));
    let racing = shell.begin_get(session);
    shell.turn_end();
    assert_eq!(shell.body(racing), "42[\"a\"]", "a poll in the window still gets real packets");
    shell.command(emit(socket, "[\"b\"]"));
    shell.text(websocket, "5");
    shell.command(emit(socket, "[\"c\"]"));
    assert_eq!(shell.sent(websocket), ["42[\"b\"]", "42[\"c\"]"]);
    let late = shell.begin_get(session);
    assert_eq!(shell.response(late), Response::Refused(RequestError::BadRequest));
    assert_eq!(shell.hub.stats().upgraded, 1);
}

#[test]
fn every_poll_in_the_upgrade_window_is_answered_at_once() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    let websocket = shell.attach(session);
    shell.text(websocket, "2probe");
    for _ in 0..5 {
        assert_eq!(shell.get(session), "6");
    }
}

#[test]
fn a_failed_probe_leaves_polling_and_its_queue_untouched() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    let socket = shell.join_by_polling(session);
    let websocket = shell.attach(session);
    shell.command(emit(socket, "[\"kept\"]"));
    shell.text(websocket, "4 not a probe");
    assert_eq!(shell.closed.get(&websocket), Some(&None));
    assert_eq!(shell.get(session), "42[\"kept\"]");
    let again = shell.attach(session);
    shell.text(again, "2probe");
    shell.text(again, "5");
    assert_eq!(shell.sent(again), ["3probe"]);
    assert_eq!(shell.hub.stats().upgrade_failures[UpgradeFailure::Protocol as usize], 1);
    assert_eq!(shell.hub.stats().upgraded, 1);
}

#[test]
fn an_upgrade_that_takes_too_long_closes_the_websocket_only() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    shell.join_by_polling(session);
    let websocket = shell.attach(session);
    shell.text(websocket, "2probe");
    shell.advance(Duration::from_secs(10));
    assert_eq!(shell.closed.get(&websocket), Some(&None));
    assert_eq!(shell.hub.session_transport(session), Some((TransportName::Polling, Version::V4)));
}

#[test]
fn a_second_websocket_for_an_upgrading_or_upgraded_session_is_closed() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    let first = shell.attach(session);
    let second = shell.attach(session);
    assert_eq!(shell.closed.get(&second), Some(&None));
    shell.text(first, "2probe");
    shell.text(first, "5");
    let third = shell.attach(session);
    assert_eq!(shell.closed.get(&third), Some(&None));
    assert_eq!(shell.closed.get(&first), None);
}

#[test]
fn the_pong_deadline_survives_the_change_of_transport() {
    // The reference forgets it (loss matrix E1) and keeps a dead session for ever.
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    shell.join_by_polling(session);
    let poll = shell.begin_get(session);
    shell.advance(Duration::from_secs(25));
    assert_eq!(shell.body(poll), "2");
    let websocket = shell.attach(session);
    shell.text(websocket, "2probe");
    shell.text(websocket, "5");
    shell.advance(Duration::from_secs(19));
    assert_eq!(shell.hub.session_count(), 1);
    shell.advance(Duration::from_secs(1));
    assert_eq!(shell.hub.session_count(), 0);
    assert_eq!(shell.last_disconnect(), DisconnectReason::PingTimeout);
}

#[test]
fn a_ping_that_falls_due_during_a_probe_is_sent_after_it() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    shell.join_by_polling(session);
    shell.advance(Duration::from_secs(20));
    let websocket = shell.attach(session);
    shell.text(websocket, "2probe");
    shell.advance(Duration::from_secs(6));
    assert_eq!(shell.get(session), "6", "no ping on the leg that is about to go");
    shell.text(websocket, "5");
    assert_eq!(shell.sent(websocket), ["3probe", "2"]);
    shell.text(websocket, "3");
    shell.advance(Duration::from_secs(24));
    assert_eq!(shell.sent(websocket), Vec::<String>::new());
    shell.advance(Duration::from_secs(1));
    assert_eq!(shell.sent(websocket), ["2"]);
}

#[test]
fn a_pong_nobody_asked_for_moves_no_deadline() {
    let mut shell = Shell::new(Config::default());
    let (websocket, _) = shell.join_by_websocket(Version::V4, "/");
    shell.advance(Duration::from_secs(20));
    shell.text(websocket, "3");
    shell.advance(Duration::from_secs(5));
    assert_eq!(shell.sent(websocket), ["2"]);
}

#[test]
fn an_eight_hour_idle_session_is_alive_and_hears_the_first_event() {
    let mut shell = Shell::new(Config::default());
    let (websocket, socket) = shell.join_by_websocket(Version::V4, "/");
    let mut pings = 0;
    for _ in 0..8 * 3600 / 25 {
        shell.advance(Duration::from_secs(25));
        assert_eq!(shell.sent(websocket), ["2"]);
        shell.text(websocket, "3");
        pings += 1;
    }
    assert_eq!(pings, 1152);
    shell.command(emit(socket, "[\"first\"]"));
    assert_eq!(shell.sent(websocket), ["42[\"first\"]"]);
}

#[test]
fn eio3_clients_ping_and_eio4_clients_must_not() {
    let mut shell = Shell::new(Config::default());
    let (old, _) = shell.join_by_websocket(Version::V3, "/");
    shell.advance(Duration::from_secs(40));
    shell.text(old, "2");
    assert_eq!(shell.sent(old), ["3"]);
    shell.advance(Duration::from_secs(44));
    assert_eq!(shell.hub.session_count(), 1);
    shell.advance(Duration::from_secs(1));
    assert_eq!(shell.last_disconnect(), DisconnectReason::PingTimeout);

    let (new, _) = shell.join_by_websocket(Version::V4, "/");
    shell.text(new, "2");
    assert_eq!(shell.closed.get(&new), Some(&None));
    assert_eq!(shell.last_disconnect(), DisconnectReason::TransportError);
}

#[test]
fn a_client_that_pings_without_end_fills_no_queue() {
    let mut shell = Shell::new(Config::default());
    let (old, _) = shell.join_by_websocket(Version::V3, "/");
    let before = shell.hub.timers.len();
    for _ in 0..1000 {
        shell.text(old, "2");
    }
    assert_eq!(shell.hub.timers.len(), before);
}

#[test]
fn a_second_poll_ends_the_session_and_both_polls_hear_of_it() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    let first = shell.begin_get(session);
    let second = shell.begin_get(session);
    assert_eq!(shell.body(first), "1");
    assert_eq!(shell.response(second), Response::Status(400));
    let third = shell.begin_get(session);
    assert_eq!(shell.response(third), Response::Refused(RequestError::UnknownSid));
}

#[test]
fn a_second_post_while_one_is_read_ends_the_session() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    let first = shell.exchange();
    shell.input(Input::Post { exchange: first, session, body: PostBody::Begun, timestamp: None });
    assert_eq!(shell.post(session, "40"), Response::Status(400));
    assert_eq!(shell.response(first), Response::Status(400));
    assert_eq!(shell.hub.session_count(), 0);
}

#[test]
fn an_aborted_poll_ends_the_session() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    shell.join_by_polling(session);
    let poll = shell.begin_get(session);
    shell.input(Input::Aborted { exchange: poll });
    assert_eq!(shell.last_disconnect(), DisconnectReason::TransportError);
    assert_eq!(shell.hub.session_count(), 0);
}

#[test]
fn a_body_that_is_too_big_is_refused_and_the_session_goes_on() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    shell.join_by_polling(session);
    let exchange = shell.exchange();
    shell.input(Input::Post { exchange, session, body: PostBody::TooBig, timestamp: None });
    assert_eq!(shell.response(exchange), Response::Status(413));
    assert_eq!(shell.hub.session_count(), 1);
    assert_eq!(shell.hub.stats().limit_hits[LimitKey::MaxPayload as usize], 1);
}

#[test]
fn a_close_packet_by_post_lets_the_pending_poll_go() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    shell.join_by_polling(session);
    let poll = shell.begin_get(session);
    assert_eq!(shell.post(session, "1"), Response::Taken);
    assert_eq!(shell.body(poll), "6");
    assert_eq!(shell.last_disconnect(), DisconnectReason::TransportClose);
}

#[test]
fn a_session_the_server_closes_waits_for_the_poll_that_tells_the_client() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    let socket = shell.join_by_polling(session);
    shell.command(emit(socket, "[\"last words\"]"));
    shell.command(Command::Disconnect { socket, close: true });
    assert_eq!(shell.last_disconnect(), DisconnectReason::ServerNamespaceDisconnect);
    assert_eq!(shell.get(session), "42[\"last words\"]\u{1e}41\u{1e}1");
    assert_eq!(shell.hub.session_count(), 0);

    let silent = shell.open_polling(Version::V4);
    let socket = shell.join_by_polling(silent);
    shell.command(Command::Disconnect { socket, close: true });
    shell.advance(Duration::from_secs(29));
    assert_eq!(shell.hub.session_count(), 1);
    shell.advance(Duration::from_secs(1));
    assert_eq!(shell.hub.session_count(), 0);
}

#[test]
fn a_session_that_joins_no_namespace_is_closed() {
    let mut shell = Shell::new(Config::default());
    let websocket = shell.open_websocket(Version::V4);
    shell.advance(Duration::from_secs(25));
    shell.text(websocket, "3");
    shell.advance(Duration::from_secs(20));
    assert_eq!(shell.closed.get(&websocket), Some(&None));
}

#[test]
fn connect_is_answered_with_a_sid_or_with_a_reason() {
    let mut shell = Shell::new(Config::default());
    let websocket = shell.open_websocket(Version::V4);
    shell.text(websocket, "40/refused,{\"token\":1}");
    shell.text(websocket, "40/nowhere");
    shell.text(websocket, "40/room-7,");
    let sent = shell.sent(websocket);
    assert_eq!(sent[0], "44/refused,{\"message\":\"no \\\"entry\\\"\",\"data\":{\"code\":7}}");
    assert_eq!(sent[1], "44/nowhere,{\"message\":\"Invalid namespace\"}");
    assert_eq!(sent[2], format!("40/room-7,{{\"sid\":\"{}\"}}", shell.last_socket_id()));
    assert_eq!(shell.closed.get(&websocket), None);
}

#[test]
fn eio3_joins_the_root_namespace_unasked_and_hears_errors_as_bare_json() {
    let mut shell = Shell::new(Config::default());
    let websocket = shell.open_websocket(Version::V3);
    shell.text(websocket, "40/nowhere");
    shell.text(websocket, "40/refused");
    assert_eq!(
        shell.sent(websocket),
        ["40", "44/nowhere,{\"message\":\"Invalid namespace\"}", "44/refused,{\"code\":7}"]
    );
}

#[test]
fn what_breaks_the_namespace_rules_closes_the_session() {
    for bad in [
        "40",
        "42/custom,[\"x\"]",
        "44/x,{}",
        "4",
        "42abc[\"x\"]",
        "49",
        "42{}",
        "42[\"connect\"]",
        "43[]x",
    ] {
        let mut shell = Shell::new(Config::default());
        let (websocket, _) = shell.join_by_websocket(Version::V4, "/");
        shell.text(websocket, bad);
        assert!(shell.closed.contains_key(&websocket), "{bad} must close");
        assert_eq!(shell.hub.session_count(), 0);
    }
}

#[test]
fn leaving_the_last_namespace_keeps_the_session() {
    let mut shell = Shell::new(Config::default());
    let (websocket, _) = shell.join_by_websocket(Version::V4, "/");
    shell.text(websocket, "41");
    assert_eq!(shell.last_disconnect(), DisconnectReason::ClientNamespaceDisconnect);
    assert_eq!(shell.closed.get(&websocket), None);
    shell.text(websocket, "40");
    assert_eq!(shell.sent(websocket).len(), 1);
}

#[test]
fn acks_go_both_ways_once_each_and_missing_ones_are_reported() {
    let mut shell = Shell::new(Config::default());
    let (websocket, socket) = shell.join_by_websocket(Version::V4, "/");
    let ask = |token| Command::Emit {
        socket,
        args: args("[\"ask\"]"),
        ack: Some(AckRequest { token, timeout: Duration::from_secs(5) }),
        volatile: false,
    };
    shell.command(ask(70));
    shell.command(ask(71));
    assert_eq!(shell.sent(websocket), ["420[\"ask\"]", "421[\"ask\"]"]);
    shell.text(websocket, "431[\"yes\"]");
    shell.text(websocket, "431[\"again\"]");
    shell.text(websocket, "4399[\"unknown\"]");
    shell.advance(Duration::from_secs(5));
    let acks: Vec<_> = shell.acks();
    assert_eq!(acks, [(71, Ok(args("[\"yes\"]"))), (70, Err(AckError::TimedOut))]);

    shell.text(websocket, "4213[\"event\",1]");
    let Some(Event::Event { ack: Some(13), .. }) = shell.events.last() else {
        panic!("{:?}", shell.events.last())
    };
    shell.command(Command::Ack { socket, id: 13, args: args("[{}]") });
    assert_eq!(shell.sent(websocket), ["4313[{}]"]);

    shell.command(ask(72));
    shell.input(Input::Lost { transport: websocket, why: Lost::Closed });
    assert_eq!(shell.acks().last(), Some(&(72, Err(AckError::Disconnected))));
}

#[test]
fn binary_events_travel_as_text_and_attachments_on_every_leg() {
    let mut shell = Shell::new(Config::default());
    let (new, a) = shell.join_by_websocket(Version::V4, "/");
    let (old, b) = shell.join_by_websocket(Version::V3, "/");
    let polling = shell.open_polling(Version::V4);
    let c = shell.join_by_polling(polling);
    let event = Args {
        json: "[\"b\",{\"_placeholder\":true,\"num\":0}]".into(),
        attachments: vec![Bytes::from_static(&[1, 2, 3])],
    };
    for socket in [a, b, c] {
        let args = event.clone();
        shell.command(Command::Emit { socket, args, ack: None, volatile: false });
    }
    let broadcast = Broadcast { args: event, ..broadcast("/") };
    shell.command(Command::Broadcast(broadcast));
    let text = "451-[\"b\",{\"_placeholder\":true,\"num\":0}]";
    assert_eq!(shell.sent(new), [text, "<1 2 3>", text, "<1 2 3>"]);
    assert_eq!(shell.sent(old), [text, "<4 1 2 3>", text, "<4 1 2 3>"]);
    assert_eq!(shell.get(polling), [text, "bAQID", text, "bAQID"].join("\u{1e}"));
}

#[test]
fn a_broadcast_reaches_each_member_of_its_rooms_once_but_those_excepted() {
    let mut shell = Shell::new(Config::default());
    let members: Vec<_> = (0..5).map(|_| shell.join_by_websocket(Version::V4, "/")).collect();
    let ids: Vec<_> = members.iter().map(|(_, socket)| shell.id_of(*socket)).collect();
    let join = |shell: &mut Shell, n: usize, room: &'static str| {
        let socket = members[n].1;
        shell.command(Command::Join { socket, room: ByteString::from_static(room) });
    };
    for n in [0, 1, 2] {
        join(&mut shell, n, "red");
    }
    for n in [2, 3] {
        join(&mut shell, n, "blue");
    }
    let mut check = |rooms: &[&str], except: &[&str], expected: &[usize]| {
        let names = |list: &[&str]| list.iter().map(|name| ByteString::from(*name)).collect();
        shell.command(Command::Broadcast(Broadcast {
            rooms: names(rooms),
            except: names(except),
            report: Some(1),
            ..broadcast("/")
        }));
        let got: Vec<_> = (0..5)
            .filter(|n| match shell.sent(members[*n].0).len() {
                0 => false,
                1 => true,
                more => panic!("{n} got {more} copies"),
            })
            .collect();
        assert_eq!(got, expected, "to {rooms:?} except {except:?}");
        assert_eq!(shell.reached.pop(), Some((1, expected.len())));
    };
    check(&[], &[], &[0, 1, 2, 3, 4]);
    check(&["red"], &[], &[0, 1, 2]);
    check(&["red", "blue"], &[], &[0, 1, 2, 3]);
    check(&["red"], &["blue"], &[0, 1]);
    check(&[], &["red", "blue"], &[4]);
    check(&[&ids[4]], &[], &[4]);
    check(&[&ids[4], "red"], &[&ids[0]], &[1, 2, 4]);
    check(&["nobody"], &[], &[]);
    shell.command(Command::Leave { socket: members[1].1, room: "red".into() });
    shell.input(Input::Lost { transport: members[0].0, why: Lost::Closed });
    let mut check_after = |rooms: &[&str], expected: &[usize]| {
        shell.command(Command::Broadcast(Broadcast {
            rooms: rooms.iter().map(|name| ByteString::from(*name)).collect(),
            ..broadcast("/")
        }));
        let got: Vec<_> = (1..5).filter(|n| !shell.sent(members[*n].0).is_empty()).collect();
        assert_eq!(got, expected);
    };
    check_after(&["red"], &[2]);
    check_after(&[], &[1, 2, 3, 4]);
}

#[test]
fn a_broadcast_is_encoded_once_for_each_kind_of_leg() {
    let mut shell = Shell::new(Config { shards: 2, ..Config::default() });
    for version in [Version::V4, Version::V4, Version::V3] {
        shell.join_by_websocket(version, "/");
    }
    shell.sends = 0;
    shell.command(Command::Broadcast(broadcast("/")));
    assert_eq!(shell.sends, 1, "text is the same for all");
    assert_eq!(shell.forwarded.len(), 1);
    let forwarded = shell.forwarded.pop().unwrap();
    shell.command(Command::Broadcast(forwarded));
    assert_eq!(shell.forwarded.len(), 0, "a forwarded copy is not forwarded again");
}

#[test]
fn volatile_events_are_dropped_for_those_who_cannot_take_them_at_once() {
    let mut shell = Shell::new(Config::default());
    let (websocket, socket) = shell.join_by_websocket(Version::V4, "/");
    let volatile =
        |socket| Command::Emit { socket, args: args("[\"v\"]"), ack: None, volatile: true };
    shell.command(volatile(socket));
    shell.input(Input::Backlog { transport: websocket, bytes: 10 });
    shell.command(volatile(socket));
    shell.command(Command::Broadcast(Broadcast { volatile: true, ..broadcast("/") }));
    shell.input(Input::Backlog { transport: websocket, bytes: 0 });
    shell.command(volatile(socket));
    assert_eq!(shell.sent(websocket), ["42[\"v\"]", "42[\"v\"]"]);
}

#[test]
fn a_receiver_that_takes_nothing_is_cut_and_the_others_are_served() {
    let limits = Limits { queued_bytes_per_session: 1000, ..Limits::default() };
    let mut shell = Shell::new(Config { limits, ..Config::default() });
    let (slow, _) = shell.join_by_websocket(Version::V4, "/");
    let polling = shell.open_polling(Version::V4);
    shell.join_by_polling(polling);
    let (good, _) = shell.join_by_websocket(Version::V4, "/");
    shell.input(Input::Backlog { transport: slow, bytes: 1001 });
    assert_eq!(shell.closed.get(&slow), Some(&Some(1008)));
    for _ in 0..30 {
        shell.command(Command::Broadcast(broadcast("/")));
    }
    assert_eq!(shell.sent(good).len(), 30);
    assert_eq!(shell.hub.session_count(), 1);
    assert_eq!(shell.hub.stats().slow_receivers, 2);
    assert_eq!(shell.hub.stats().limit_hits[LimitKey::QueuedBytesPerSession as usize], 2);
}

#[test]
fn each_limit_closes_the_session_and_is_counted_under_its_key() {
    let limits = Limits {
        attachments: 2,
        namespaces_per_session: 2,
        rooms_per_session: 2,
        events_per_second: 3,
        ..Limits::default()
    };
    let check = |limit: LimitKey, act: fn(&mut Shell, TransportId, SocketKey)| {
        let mut shell = Shell::new(Config { limits: limits.clone(), ..Config::default() });
        let (websocket, socket) = shell.join_by_websocket(Version::V4, "/");
        act(&mut shell, websocket, socket);
        assert_eq!(shell.closed.get(&websocket), Some(&Some(1008)), "{limit:?}");
        assert_eq!(shell.hub.stats().limit_hits[limit as usize], 1, "{limit:?}");
    };
    check(LimitKey::Attachments, |shell, websocket, _| {
        shell.text(websocket, "453-[\"x\",{\"_placeholder\":true,\"num\":0}]");
    });
    check(LimitKey::NamespacesPerSession, |shell, websocket, _| {
        shell.text(websocket, "40/room-1");
        shell.text(websocket, "40/room-2");
    });
    check(LimitKey::RoomsPerSession, |shell, _, socket| {
        for room in ["a", "b", "b", "c"] {
            shell.command(Command::Join { socket, room: ByteString::from_static(room) });
        }
    });
    check(LimitKey::EventsPerSecond, |shell, websocket, _| {
        // The CONNECT was the first.
        for _ in 0..2 {
            shell.text(websocket, "42[\"x\"]");
        }
        assert_eq!(shell.hub.session_count(), 1);
        shell.text(websocket, "42[\"x\"]");
    });
}

#[test]
fn who_asks_again_and_again_and_is_refused_is_cut() {
    let mut shell = Shell::new(Config::default());
    let (websocket, _) = shell.join_by_websocket(Version::V4, "/");
    let mut tries = 0;
    while !shell.closed.contains_key(&websocket) {
        shell.text(websocket, "40/refused,{\"token\":\"guessed\"}");
        tries += 1;
    }
    // A hundred in a second, where ten thousand events would have been good.
    assert!((90..=100).contains(&tries), "{tries}");
    assert_eq!(shell.hub.stats().limit_hits[LimitKey::EventsPerSecond as usize], 1);
}

#[test]
fn pending_acks_are_bounded() {
    let limits = Limits { pending_acks_per_session: 2, ..Limits::default() };
    let mut shell = Shell::new(Config { limits, ..Config::default() });
    let (websocket, socket) = shell.join_by_websocket(Version::V4, "/");
    for token in 0..3 {
        let ack = Some(AckRequest { token, timeout: Duration::from_secs(1) });
        shell.command(Command::Emit { socket, args: args("[\"q\"]"), ack, volatile: false });
    }
    assert_eq!(shell.sent(websocket).len(), 2);
    assert_eq!(shell.acks(), [(2, Err(AckError::TooMany))]);
}

#[test]
fn a_python_client_gets_no_more_packets_in_a_body_than_it_accepts() {
    let mut shell = Shell::new(Config::default());
    shell.user_agent = "python-requests/2.32".into();
    let session = shell.open_polling(Version::V4);
    let socket = shell.join_by_polling(session);
    for n in 0..40 {
        shell.command(emit(socket, &format!("[\"n\",{n}]")));
    }
    let counts: Vec<_> = (0..3).map(|_| shell.get(session).split('\u{1e}').count()).collect();
    assert_eq!(counts, [16, 16, 8]);
}

#[test]
fn headers_are_dropped_after_the_first_namespace_and_kept_on_request() {
    for keep_headers in [false, true] {
        let mut shell = Shell::new(Config { keep_headers, ..Config::default() });
        let websocket = shell.open_websocket(Version::V4);
        shell.text(websocket, "40");
        shell.text(websocket, "40/room-1");
        let headers: Vec<_> = shell
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Connect { handshake, .. } => Some(handshake.headers.len()),
                _ => None,
            })
            .collect();
        assert_eq!(headers, [1, usize::from(keep_headers)]);
    }
}

#[test]
fn bare_engine_io_hands_messages_over_as_they_are() {
    let protocol = Protocol::EngineIo(0);
    let mut shell = Shell::new(Config { protocol, ..Config::default() });
    let websocket = shell.open_websocket(Version::V4);
    let Some(Event::Open { session, .. }) = shell.events.last().cloned() else {
        panic!("no open event")
    };
    shell.text(websocket, "4hello");
    assert_eq!(
        shell.events.last(),
        Some(&Event::Message { session, message: Message::Text("hello".into()) })
    );
    shell.command(Command::Send { session, message: Message::Binary(Bytes::from_static(&[9])) });
    assert_eq!(shell.sent(websocket), ["<9>"]);
    shell.command(Command::Close { session });
    assert_eq!(
        shell.events.last(),
        Some(&Event::Close { session, reason: DisconnectReason::ForcedClose })
    );
    assert_eq!(shell.closed.get(&websocket), Some(&None));
}

#[test]
fn a_drain_closes_transports_and_never_says_disconnect() {
    let mut shell = Shell::new(Config::default());
    let (websocket, _) = shell.join_by_websocket(Version::V4, "/");
    let session = shell.open_polling(Version::V4);
    shell.join_by_polling(session);
    let poll = shell.begin_get(session);
    let keys: Vec<_> = shell.hub.sessions().collect();
    for session in keys {
        shell.input(Input::Drain { session });
    }
    assert_eq!(shell.sent(websocket), Vec::<String>::new());
    assert_eq!(shell.closed.get(&websocket), Some(&Some(1001)));
    assert_eq!(shell.body(poll), "6", "python-engineio would not come back from a `1`");
    assert_eq!(shell.last_disconnect(), DisconnectReason::ServerShuttingDown);
}

#[test]
fn nothing_is_left_of_sessions_that_ended() {
    let mut shell = Shell::new(Config::default());
    for _ in 0..3 {
        let (websocket, socket) = shell.join_by_websocket(Version::V4, "/");
        shell.text(websocket, "40/room-1");
        shell.command(Command::Join { socket, room: "red".into() });
        shell.input(Input::Lost { transport: websocket, why: Lost::Failed });
        let session = shell.open_polling(Version::V4);
        shell.join_by_polling(session);
        shell.begin_get(session);
        let probe = shell.attach(session);
        shell.post(session, "1");
        assert_eq!(shell.closed.get(&probe), Some(&None));
    }
    let hub = &shell.hub;
    assert_eq!(
        (hub.sessions.len(), hub.sockets.len(), hub.by_sid.len(), hub.by_socket_sid.len()),
        (0, 0, 0, 0)
    );
    assert_eq!((hub.by_transport.len(), hub.by_exchange.len()), (0, 0));
    assert_eq!((hub.namespaces.all.len(), hub.namespaces.rooms.len()), (0, 0));
    assert_eq!(hub.sessions_by_transport(), (0, 0));
}

/// A hub and a shell that writes down what it was told. Its one handler accepts every CONNECT but
/// those to `/refused`.
pub(super) struct Shell {
    pub(super) hub: Hub,
    pub(super) now: Time,
    pub(super) ids: u64,
    pub(super) user_agent: String,
    pub(super) frames: BTreeMap<TransportId, Vec<u8>>,
    pub(super) closed: BTreeMap<TransportId, Option<u16>>,
    pub(super) responses: BTreeMap<ExchangeId, Response>,
    pub(super) events: Vec<Event>,
    pub(super) forwarded: Vec<Broadcast>,
    pub(super) reached: Vec<(u64, usize)>,
    pub(super) sends: usize,
    pub(super) accepted: Vec<(SocketKey, Sid)>,
    /// Whether CONNECT packets are left unanswered.
    pub(super) hold_connects: bool,
    /// For other shards.
    pub(super) told: Vec<(u8, Box<super::Peer>)>,
    pub(super) settled: Vec<(Sid, u8)>,
}

impl Shell {
    pub(super) fn new(config: Config) -> Self {
        let rule = |pattern| NamespaceRule {
            pattern: NamespacePattern::new(pattern),
            handler: 0,
            keeping: super::Keeping::default(),
        };
        let namespaces = vec![rule("/"), rule("/room-*"), rule("/refused")];
        Self {
            hub: Hub::new(Config { namespaces, ..config }, [7; 16]),
            now: Time::ZERO,
            ids: 0,
            user_agent: "owl/1.0".into(),
            frames: BTreeMap::new(),
            closed: BTreeMap::new(),
            responses: BTreeMap::new(),
            events: Vec::new(),
            forwarded: Vec::new(),
            reached: Vec::new(),
            sends: 0,
            accepted: Vec::new(),
            hold_connects: false,
            told: Vec::new(),
            settled: Vec::new(),
        }
    }

    pub(super) fn input(&mut self, input: Input) {
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.hub.handle_input(self.now, input);
            while let Some(output) = self.hub.poll_output() {
                if let Some(reaction) = self.carry_out(output) {
                    inputs.push_back(Input::Command(reaction));
                }
            }
        }
    }

    pub(super) fn carry_out(&mut self, output: Output) -> Option<Command> {
        match output {
            Output::Send { mut receivers, frame } => {
                self.sends += 1;
                while let Some(transport) = self.hub.next_receiver(&mut receivers) {
                    self.frames.entry(transport).or_default().extend_from_slice(&frame);
                }
            }
            Output::Respond { exchange, response } => {
                let before = self.responses.insert(exchange, response);
                assert_eq!(before, None, "{exchange:?} was answered twice");
            }
            Output::Close { transport, code } => {
                let before = self.closed.insert(transport, code);
                assert_eq!(before, None, "{transport:?} was closed twice");
            }
            Output::Forward(broadcast) => self.forwarded.push(*broadcast),
            Output::Reached { report, receivers } => self.reached.push((report, receivers)),
            Output::Tell { shard, message } => self.told.push((shard, message)),
            Output::Settled { pid, shard } => self.settled.push((pid, shard)),
            Output::Deliver { event, .. } => {
                self.events.push(event.clone());
                if let Event::Connect { socket, namespace, .. } = event.clone()
                    && !self.hold_connects
                {
                    if namespace == "/refused" {
                        let message = "no \"entry\"".to_owned();
                        let data = Some("{\"code\":7}".into());
                        return Some(Command::Refuse { socket, message, data });
                    }
                    let id = self.sid();
                    self.accepted.push((socket, id));
                    let pid = self.sid();
                    return Some(Command::Accept { socket, id, pid });
                }
                if let Event::Return { socket, id, .. } = event
                    && !self.hold_connects
                {
                    return Some(Command::Accept { socket, id, pid: id });
                }
            }
        }
        None
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    pub(super) fn sid(&mut self) -> Sid {
        let mut random = [0; 14];
        random[..8].copy_from_slice(&self.next_id().to_le_bytes());
        Sid::new(self.hub.config.continuity.shard, random)
    }

    pub(super) fn exchange(&mut self) -> ExchangeId {
        ExchangeId(self.next_id())
    }

    pub(super) fn handshake(&self, version: Version) -> Arc<Handshake> {
        Arc::new(Handshake {
            version,
            poll_style: PollStyle::default(),
            query: "EIO=4".into(),
            headers: vec![("user-agent".into(), self.user_agent.clone())],
            address: None,
            own: false,
        })
    }

    pub(super) fn open_polling(&mut self, version: Version) -> Sid {
        let (id, exchange) = (self.sid(), self.exchange());
        let handshake = self.handshake(version);
        self.input(Input::Open { id, origin: Origin::Polling(exchange), handshake });
        match self.response(exchange) {
            Response::Open { sid, .. } => assert_eq!(sid, id),
            other => panic!("not opened: {other:?}"),
        }
        id
    }

    pub(super) fn open_websocket(&mut self, version: Version) -> TransportId {
        let (id, transport) = (self.sid(), TransportId(self.next_id()));
        let handshake = self.handshake(version);
        let origin = Origin::WebSocket { transport, deflate: false };
        self.input(Input::Open { id, origin, handshake });
        let open = self.sent(transport).remove(0);
        assert!(open.starts_with(&format!("0{{\"sid\":\"{id}\",\"upgrades\":[]")), "{open}");
        if version == Version::V3 {
            let root = [129, 2, b'4', b'0'];
            self.frames.insert(transport, root.into());
        }
        transport
    }

    pub(super) fn attach(&mut self, session: Sid) -> TransportId {
        let transport = TransportId(self.next_id());
        self.input(Input::Attach { transport, session, deflate: false });
        transport
    }

    pub(super) fn join_by_websocket(
        &mut self,
        version: Version,
        namespace: &str,
    ) -> (TransportId, SocketKey) {
        let transport = self.open_websocket(version);
        if version == Version::V4 {
            self.text(transport, &format!("40{namespace}"));
        }
        self.sent(transport);
        (transport, self.last_socket())
    }

    pub(super) fn join_by_polling(&mut self, session: Sid) -> SocketKey {
        self.post(session, "40");
        self.get(session);
        self.last_socket()
    }

    pub(super) fn last_socket(&self) -> SocketKey {
        self.accepted.last().unwrap().0
    }

    pub(super) fn last_socket_id(&self) -> Sid {
        self.accepted.last().unwrap().1
    }

    pub(super) fn id_of(&self, socket: SocketKey) -> String {
        self.hub.socket(socket).unwrap().id.to_string()
    }

    pub(super) fn begin_get(&mut self, session: Sid) -> ExchangeId {
        let exchange = self.exchange();
        self.input(Input::Get { exchange, session, timestamp: None });
        exchange
    }

    /// Polls and expects packets at the end of the turn.
    pub(super) fn get(&mut self, session: Sid) -> String {
        let exchange = self.begin_get(session);
        self.turn_end();
        self.body(exchange)
    }

    pub(super) fn post(&mut self, session: Sid, body: &str) -> Response {
        let exchange = self.exchange();
        let body = PostBody::Whole { body: Bytes::copy_from_slice(body.as_bytes()), binary: false };
        self.input(Input::Post { exchange, session, body, timestamp: None });
        self.response(exchange)
    }

    pub(super) fn text(&mut self, transport: TransportId, text: &str) {
        self.input(Input::Message { transport, message: Message::Text(text.into()) });
    }

    pub(super) fn command(&mut self, command: Command) {
        self.input(Input::Command(command));
    }

    pub(super) fn turn_end(&mut self) {
        self.input(Input::TurnEnd);
    }

    /// Lets time pass, from deadline to deadline.
    pub(super) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some((at, _)) = self.hub.poll_timeout()
            && at <= end
        {
            self.now = at;
            self.input(Input::Timeout);
            self.turn_end();
        }
        self.now = end;
    }

    pub(super) fn response(&mut self, exchange: ExchangeId) -> Response {
        self.responses.remove(&exchange).unwrap_or_else(|| panic!("{exchange:?} was not answered"))
    }

    pub(super) fn body(&mut self, exchange: ExchangeId) -> String {
        match self.response(exchange) {
            Response::Payload(PollBody::Text(body)) => String::from_utf8(body.to_vec()).unwrap(),
            other => panic!("no packets: {other:?}"),
        }
    }

    /// What a WebSocket was sent since the last time, binary messages as `<1 2 3>`.
    pub(super) fn sent(&mut self, transport: TransportId) -> Vec<String> {
        let mut bytes = self.frames.remove(&transport).unwrap_or_default();
        let mut rest = bytes.as_mut_slice();
        let mut decoder = websocket::Decoder::new(websocket::Role::Client);
        let config = websocket::DecodeConfig { max_message_bytes: usize::MAX, deflate: false };
        let mut sent = Vec::new();
        while let Some(incoming) = decoder.decode(&config, &mut rest).unwrap() {
            sent.push(match incoming {
                websocket::Incoming::Message(Message::Text(text)) => text.to_string(),
                websocket::Incoming::Message(Message::Binary(bytes)) => {
                    let numbers: Vec<_> = bytes.iter().map(u8::to_string).collect();
                    format!("<{}>", numbers.join(" "))
                }
                other => panic!("a control frame: {other:?}"),
            });
        }
        sent
    }

    pub(super) fn last_disconnect(&self) -> DisconnectReason {
        let reason = self.events.iter().rev().find_map(|event| match event {
            Event::Disconnect { reason, .. } => Some(*reason),
            _ => None,
        });
        reason.unwrap()
    }

    pub(super) fn acks(&self) -> Vec<(u64, Result<Args, AckError>)> {
        let acks = self.events.iter().filter_map(|event| match event {
            Event::Ack { token, result, .. } => Some((*token, result.clone())),
            _ => None,
        });
        acks.collect()
    }
}

pub(super) fn args(json: &'static str) -> Args {
    Args { json: ByteString::from_static(json), attachments: Vec::new() }
}

pub(super) fn emit(socket: SocketKey, json: &str) -> Command {
    let args = Args { json: json.into(), attachments: Vec::new() };
    Command::Emit { socket, args, ack: None, volatile: false }
}

pub(super) fn broadcast(namespace: &'static str) -> Broadcast {
    Broadcast {
        namespace: ByteString::from_static(namespace),
        rooms: Vec::new(),
        except: Vec::new(),
        args: args("[\"b\"]"),
        volatile: false,
        report: None,
        ack: None,
        forwarded: false,
        origin: None,
    }
}
