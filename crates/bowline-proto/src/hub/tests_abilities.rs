//! Scenarios of what handlers can have done beyond events: data kept with a socket, an end at a
//! certain time, acks of many.

use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;

use super::{
    Config, SHARED_ACKS_FROM,
    tests::{Shell, args, broadcast},
};
use crate::{
    Command, Input, SocketKey, Timer,
    engineio::Version,
    limit::{LimitKey, Limits},
    wall::{AckError, AckRequest, Broadcast, DisconnectReason, ErrorCode, Event, Lost, SocketData},
};

const SECOND: Duration = Duration::from_secs(1);

// Data.

#[test]
fn data_is_kept_with_its_socket_and_replaced_and_goes_with_it() {
    let mut shell = Shell::new(Config::default());
    let (websocket, socket) = shell.join_by_websocket(Version::V4, "/");
    let (_, other) = shell.join_by_websocket(Version::V4, "/");
    assert_eq!(data_of(&shell, socket), None);
    shell.command(set_data(socket, "{\"user\":1}"));
    assert_eq!(data_of(&shell, socket), Some("{\"user\":1}"));
    assert_eq!(data_of(&shell, other), None);
    shell.command(set_data(socket, "2"));
    assert_eq!(data_of(&shell, socket), Some("2"));
    shell.command(Command::SetData { socket, data: None });
    assert_eq!(data_of(&shell, socket), None);
    assert!(shell.hub.sockets[socket].extras.is_none(), "nothing is kept for nothing");

    shell.command(set_data(socket, "3"));
    shell.input(Input::Lost { transport: websocket, why: Lost::Closed });
    assert!(shell.hub.socket(socket).is_none());
    // Nobody to keep it with.
    shell.command(set_data(socket, "4"));
}

#[test]
fn a_socket_that_waits_to_be_let_in_is_given_data_and_rooms_before_its_client_hears() {
    let mut shell = Shell::new(Config::default());
    shell.hold_connects = true;
    let websocket = shell.open_websocket(Version::V4);
    shell.text(websocket, "40");
    let socket = asked(&shell);
    let session = shell.hub.session_of(socket).unwrap();
    shell.command(Command::Join { socket, room: "red".into() });
    shell.command(set_data(socket, "1"));
    assert!(shell.sent(websocket).is_empty());
    let id = shell.sid();
    shell.command(Command::Accept { socket, id, pid: id });
    shell.command(Command::Broadcast(to(&["red"], &[])));
    assert_eq!(shell.sent(websocket), [format!("40{{\"sid\":\"{id}\"}}"), "42[\"b\"]".to_owned()]);
    assert_eq!(data_of(&shell, socket), Some("1"));
    assert_eq!(shell.hub.socket(socket).unwrap().session, session);
}

#[test]
fn data_is_at_most_16_kib_and_is_not_in_logs() {
    let most = "x".repeat(SocketData::BYTES_MAX);
    assert!(SocketData::new(&most).is_ok());
    assert!(SocketData::new(&format!("{most}x")).is_err());
    assert_eq!(format!("{:?}", SocketData::new("secret").unwrap()), "SocketData(6 bytes)");
}

// An end.

#[test]
fn a_socket_whose_time_is_over_hears_why_and_leaves_and_the_others_of_its_session_stay() {
    let mut shell = Shell::new(Config::default());
    let (websocket, socket) = shell.join_by_websocket(Version::V4, "/");
    shell.text(websocket, "40/room-1,");
    shell.sent(websocket);
    shell.command(expire(socket, 10 * SECOND));
    shell.advance(Duration::from_millis(9_999));
    assert!(shell.sent(websocket).is_empty());
    shell.advance(Duration::from_millis(1));
    assert_eq!(
        shell.sent(websocket),
        ["42[\"error\",{\"code\":\"token-expired\",\"message\":\"The token has expired.\"}]", "41"]
    );
    assert_eq!(
        shell.events.last(),
        Some(&Event::Disconnect { socket, reason: DisconnectReason::ServerNamespaceDisconnect })
    );
    assert_eq!(shell.hub.stats().wakeups[Timer::Expiry as usize], 1);
    shell.text(websocket, "42/room-1,[\"still here\"]");
    assert!(matches!(shell.events.last(), Some(Event::Event { .. })));
    assert_eq!(shell.closed.get(&websocket), None);
    // Its client may come back, say with a fresh token.
    shell.text(websocket, "40");
    assert_eq!(shell.sent(websocket), [format!("40{{\"sid\":\"{}\"}}", shell.last_socket_id())]);
    shell.advance(24 * SECOND);
    assert_eq!(shell.sent(websocket), ["2"], "it stays");
}

#[test]
fn a_session_that_polls_finds_its_end_in_the_next_poll() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    let socket = shell.join_by_polling(session);
    shell.command(expire(socket, SECOND));
    let poll = shell.begin_get(session);
    shell.advance(SECOND);
    let body = shell.body(poll);
    let (error, rest) = body.split_once('\u{1e}').unwrap();
    assert!(error.starts_with("42[\"error\",{\"code\":\"token-expired\""), "{error}");
    assert_eq!(rest, "41");
}

#[test]
fn the_latest_time_counts_and_can_be_taken_back() {
    let mut shell = Shell::new(Config::default());
    let (later, first) = shell.join_by_websocket(Version::V4, "/");
    let (sooner, second) = shell.join_by_websocket(Version::V4, "/");
    let (never, third) = shell.join_by_websocket(Version::V4, "/");
    shell.command(expire(first, 2 * SECOND));
    shell.command(expire(first, 6 * SECOND));
    shell.command(expire(second, 6 * SECOND));
    shell.command(expire(second, 2 * SECOND));
    shell.command(expire(third, 2 * SECOND));
    shell.command(expire(third, Duration::MAX));
    assert!(shell.hub.sockets[third].extras.is_none());
    shell.advance(2 * SECOND);
    assert_eq!(shell.sent(later), Vec::<String>::new());
    assert_eq!(shell.sent(sooner).last().unwrap(), "41");
    shell.advance(4 * SECOND);
    assert_eq!(shell.sent(later).last().unwrap(), "41");
    shell.advance(19 * SECOND);
    assert_eq!(shell.sent(never), ["2"]);
}

#[test]
fn each_socket_of_a_session_has_its_own_end() {
    let mut shell = Shell::new(Config::default());
    let (websocket, root) = shell.join_by_websocket(Version::V4, "/");
    shell.text(websocket, "40/room-1,");
    let room = shell.last_socket();
    shell.sent(websocket);
    let moment = Duration::from_millis(1);
    shell.command(expire(room, 3 * SECOND));
    shell.command(expire(root, 3 * SECOND + moment));
    shell.advance(3 * SECOND);
    assert_eq!(shell.sent(websocket).last().unwrap(), "41/room-1,");
    shell.advance(moment);
    assert_eq!(shell.sent(websocket).last().unwrap(), "41");
    let session = shell.hub.sessions().next().unwrap();
    assert!(shell.hub.sessions[session].rare.is_none());
}

#[test]
fn who_is_not_let_in_in_time_is_refused() {
    let mut shell = Shell::new(Config::default());
    shell.hold_connects = true;
    let websocket = shell.open_websocket(Version::V4);
    shell.text(websocket, "40");
    let socket = asked(&shell);
    shell.command(expire(socket, SECOND));
    shell.advance(SECOND);
    assert_eq!(
        shell.sent(websocket),
        ["44{\"message\":\"The token has expired.\",\"data\":{\"code\":\"token-expired\"}}"]
    );
    // The handler that was asked hears that there is no need to answer.
    let reason = DisconnectReason::ServerNamespaceDisconnect;
    assert_eq!(shell.events.last(), Some(&Event::Disconnect { socket, reason }));
    // Too late.
    let id = shell.sid();
    shell.command(Command::Accept { socket, id, pid: id });
    assert!(shell.sent(websocket).is_empty());
}

#[test]
fn an_end_that_was_set_survives_the_upgrade_and_goes_with_its_socket() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    let socket = shell.join_by_polling(session);
    shell.command(expire(socket, 5 * SECOND));
    let websocket = shell.attach(session);
    shell.text(websocket, "2probe");
    shell.text(websocket, "5");
    shell.sent(websocket);
    shell.text(websocket, "41");
    shell.text(websocket, "40");
    shell.sent(websocket);
    shell.advance(10 * SECOND);
    assert_eq!(shell.sent(websocket), Vec::<String>::new(), "it was another socket's");
    let socket = shell.last_socket();
    shell.command(expire(socket, SECOND));
    shell.advance(SECOND);
    assert_eq!(shell.sent(websocket).last().unwrap(), "41");
}

// Acks of many.

#[test]
fn every_receiver_of_a_broadcast_is_asked_in_one_frame_and_tells_apart() {
    let mut shell = Shell::new(Config::default());
    let members: Vec<_> = (0..3).map(|_| shell.join_by_websocket(Version::V4, "/")).collect();
    let polling = shell.open_polling(Version::V4);
    let polls = shell.join_by_polling(polling);
    let ids: Vec<_> = members.iter().map(|(_, socket)| shell.id_of(*socket)).collect();
    let sends = shell.sends;
    shell.command(asking(Broadcast { except: vec![ids[2].clone().into()], ..broadcast("/") }));
    let number = u64::from(SHARED_ACKS_FROM) + 1;
    assert_eq!(shell.reached, [(7, 3)]);
    assert_eq!(shell.sends, sends + 1, "both WebSockets share a frame");
    for (websocket, _) in &members[..2] {
        assert_eq!(shell.sent(*websocket), [format!("42{number}[\"b\"]")]);
    }
    assert!(shell.sent(members[2].0).is_empty());
    assert_eq!(shell.get(polling), format!("42{number}[\"b\"]"));

    shell.text(members[1].0, &format!("43{number}[1]"));
    // Whoever was not asked cannot ack.
    shell.text(members[2].0, &format!("43{number}[2]"));
    // Nor can anybody ack twice.
    shell.text(members[1].0, &format!("43{number}[3]"));
    // An ack counts also if its client leaves in the same breath.
    shell.post(polling, &format!("43{number}[4]\u{1e}41"));
    let got = answers(&shell);
    assert_eq!(
        got,
        [(members[1].1, ids[1].clone(), Ok("[1]".into())), {
            let id = shell.accepted.iter().find(|(socket, _)| *socket == polls).unwrap().1;
            (polls, id.to_string(), Ok("[4]".into()))
        }]
    );
    shell.advance(5 * SECOND);
    let got = answers(&shell);
    assert_eq!(got[2..], [(members[0].1, ids[0].clone(), Err(AckError::TimedOut))]);
    let session = shell.hub.sockets[members[0].1].session;
    assert!(shell.hub.sockets[members[0].1].extras.is_none());
    assert!(shell.hub.sessions[session].rare.is_none());
    assert_eq!(shell.hub.sessions[session].pending_acks, 0);
}

#[test]
fn receivers_that_leave_or_owe_too_many_acks_are_told_of_once() {
    let limits = Limits { pending_acks_per_session: 1, ..Limits::default() };
    let mut shell = Shell::new(Config { limits, ..Config::default() });
    let (leaves, first) = shell.join_by_websocket(Version::V4, "/");
    let (owes, second) = shell.join_by_websocket(Version::V4, "/");
    let timeout = SECOND;
    let ack = Some(AckRequest { token: 1, timeout });
    let command = Command::Emit { socket: second, args: args("[\"e\"]"), ack, volatile: false };
    shell.command(command);
    shell.command(asking(broadcast("/")));
    shell.input(Input::Lost { transport: leaves, why: Lost::Closed });
    assert_eq!(shell.reached, [(7, 2)]);
    let got = answers(&shell);
    assert_eq!(got.len(), 2);
    assert_eq!((got[0].0, &got[0].2), (second, &Err(AckError::TooMany)));
    assert_eq!((got[1].0, &got[1].2), (first, &Err(AckError::Disconnected)));
    // The event itself has come.
    assert_eq!(shell.sent(owes).len(), 2);
    assert_eq!(shell.hub.stats().limit_hits[LimitKey::PendingAcksPerSession as usize], 1);
}

#[test]
fn acks_of_one_and_of_many_do_not_meet() {
    let mut shell = Shell::new(Config::default());
    let (websocket, socket) = shell.join_by_websocket(Version::V4, "/");
    for token in [1, 2] {
        let ack = Some(AckRequest { token, timeout: 60 * SECOND });
        shell.command(Command::Emit { socket, args: args("[\"e\"]"), ack, volatile: false });
        shell.command(asking(broadcast("/")));
    }
    let shared = u64::from(SHARED_ACKS_FROM);
    let numbers = [0, shared + 1, 1, shared + 2];
    let sent: Vec<_> = numbers.iter().zip(["e", "b", "e", "b"]).collect();
    let sent: Vec<_> = sent.iter().map(|(id, name)| format!("42{id}[\"{name}\"]")).collect();
    assert_eq!(shell.sent(websocket), sent);
    for number in numbers {
        shell.text(websocket, &format!("43{number}[{number}]"));
    }
    let tokens: Vec<_> = shell.acks().iter().map(|(token, _)| *token).collect();
    assert_eq!(tokens, [1, 7, 2, 7]);
    // Numbers stay below what a client may read with 31 bits, however many there were.
    shell.hub.shared_acks = SHARED_ACKS_FROM - 1;
    shell.command(asking(broadcast("/")));
    assert_eq!(shell.sent(websocket), [format!("42{shared}[\"b\"]")]);
    assert!(u64::from(SHARED_ACKS_FROM - 1) + shared < 1 << 31);
}

#[test]
fn attachments_are_asked_about_too() {
    let mut shell = Shell::new(Config::default());
    let (new, _) = shell.join_by_websocket(Version::V4, "/");
    let (old, _) = shell.join_by_websocket(Version::V3, "/");
    let mut args = args("[\"b\",{\"_placeholder\":true,\"num\":0}]");
    args.attachments = vec![Bytes::from_static(&[1, 2])];
    shell.command(asking(Broadcast { args, ..broadcast("/") }));
    let number = u64::from(SHARED_ACKS_FROM) + 1;
    let text = format!("451-{number}[\"b\",{{\"_placeholder\":true,\"num\":0}}]");
    assert_eq!(shell.sent(new), [text.clone(), "<1 2>".to_owned()]);
    assert_eq!(shell.sent(old), [text, "<4 1 2>".to_owned()]);
}

// Whom a broadcast is for.

#[test]
fn whom_a_broadcast_is_for_is_the_same_asked_one_by_one_as_in_sending_it() {
    let mut shell = Shell::new(Config::default());
    let members: Vec<_> = (0..4).map(|_| shell.join_by_websocket(Version::V4, "/")).collect();
    let (elsewhere, _) = shell.join_by_websocket(Version::V4, "/room-1");
    shell.hold_connects = true;
    let waiting = shell.open_websocket(Version::V4);
    shell.text(waiting, "40");
    let waits = asked(&shell);
    for (socket, room) in [(0, "red"), (1, "red"), (1, "blue"), (2, "blue")] {
        shell.command(Command::Join { socket: members[socket].1, room: room.into() });
    }
    shell.command(Command::Join { socket: waits, room: "red".into() });
    let own = shell.id_of(members[3].1);
    let own = own.as_str();
    let check = |shell: &mut Shell, rooms: &[&str], except: &[&str], expected: &[usize]| {
        let what = to(rooms, except);
        let named: Vec<_> =
            (0..4).filter(|n| shell.hub.is_receiver(members[*n].1, &what)).collect();
        assert_eq!(named, expected, "{rooms:?} but {except:?}");
        assert_eq!(shell.hub.has_receiver(&what), !expected.is_empty());
        assert!(!shell.hub.is_receiver(waits, &what));
        shell.command(Command::Broadcast(what));
        let got: Vec<_> = (0..4).filter(|n| !shell.sent(members[*n].0).is_empty()).collect();
        assert_eq!(got, expected, "{rooms:?} but {except:?}");
    };
    check(&mut shell, &[], &[], &[0, 1, 2, 3]);
    check(&mut shell, &[], &["red"], &[2, 3]);
    check(&mut shell, &["red"], &[], &[0, 1]);
    check(&mut shell, &["red", "blue"], &[], &[0, 1, 2]);
    check(&mut shell, &["red", "blue"], &["blue"], &[0]);
    check(&mut shell, &["red"], &["red"], &[]);
    check(&mut shell, &[own], &[], &[3]);
    check(&mut shell, &[own, "red"], &[own], &[0, 1]);
    check(&mut shell, &["nowhere"], &[], &[]);
    assert!(shell.sent(elsewhere).is_empty());
    let nobody = Broadcast { namespace: "/room-2".into(), ..broadcast("/") };
    assert!(!shell.hub.has_receiver(&nobody));
}

#[test]
fn what_is_rarely_used_makes_no_socket_and_no_session_larger() {
    // The target of memory per idle session stands on these.
    assert!(size_of::<super::Socket>() <= 88, "{}", size_of::<super::Socket>());
    assert!(size_of::<crate::session::Session>() <= 176);
    assert!(size_of::<Event>() <= 104 && size_of::<Command>() <= 192);
}

fn set_data(socket: SocketKey, text: &str) -> Command {
    Command::SetData { socket, data: Some(SocketData::new(text).unwrap()) }
}

fn data_of(shell: &Shell, socket: SocketKey) -> Option<&str> {
    Some(shell.hub.socket(socket)?.data()?.text())
}

fn expire(socket: SocketKey, after: Duration) -> Command {
    Command::Expire { socket, after, code: ErrorCode::TokenExpired }
}

/// A broadcast with acks, token 7, for 5 s.
fn asking(broadcast: Broadcast) -> Command {
    let ack = Some(Box::new(AckRequest { token: 7, timeout: 5 * SECOND }));
    Command::Broadcast(Broadcast { report: Some(7), ack, ..broadcast })
}

fn to(rooms: &[&str], except: &[&str]) -> Broadcast {
    let names = |names: &[&str]| names.iter().map(|name| ByteString::from(*name)).collect();
    Broadcast { rooms: names(rooms), except: names(except), ..broadcast("/") }
}

/// The socket whose CONNECT came last.
fn asked(shell: &Shell) -> SocketKey {
    let last = shell.events.iter().rev().find_map(|event| match event {
        Event::Connect { socket, .. } => Some(*socket),
        _ => None,
    });
    last.unwrap()
}

/// What was told of acks with token 7: of whom, its sid, and what.
fn answers(shell: &Shell) -> Vec<(SocketKey, String, Result<String, AckError>)> {
    let acks = shell.events.iter().filter_map(|event| match event {
        Event::Ack { socket, id, token: 7, result } => {
            Some((*socket, id.to_string(), result.clone().map(|args| args.json().to_string())))
        }
        _ => None,
    });
    acks.collect()
}
