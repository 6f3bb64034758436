//! Scenarios of operation: a configuration that changes under sessions, what is measured, who is
//! listed.

use std::time::Duration;

use bytestring::ByteString;

use super::{
    Config, Histogram, Measured, NamespacePattern, NamespaceRule,
    tests::{Shell, broadcast},
};
use crate::{
    Command, Input, Output, Sid, SocketKey, Time, Timer, TransportId,
    engineio::Version,
    limit::{LimitKey, Limits},
    wall::{Event, Response},
    websocket::Message,
};

const SECOND: Duration = Duration::from_secs(1);

// The configuration changes.

#[test]
fn a_session_keeps_the_heartbeat_it_was_told_and_the_next_one_gets_the_new() {
    let mut shell = Shell::new(with_heartbeat(25, 20));
    let old = shell.open_websocket(Version::V4);
    shell.text(old, "40");
    shell.sent(old);
    configure(&mut shell, with_heartbeat(5, 3));
    let new = shell.open_websocket(Version::V4);
    shell.text(new, "40");
    shell.sent(new);

    shell.advance(5 * SECOND);
    assert_eq!((shell.sent(old), shell.sent(new)), (vec![], vec!["2".to_owned()]));
    shell.text(new, "3");
    shell.advance(5 * SECOND);
    assert_eq!(shell.sent(new), ["2"]);
    shell.advance(3 * SECOND);
    assert_eq!(shell.closed.get(&new), Some(&None), "its pong was overdue after 3 s");

    shell.advance(12 * SECOND);
    assert_eq!(shell.sent(old), ["2"]);
    shell.text(old, "3");
    shell.advance(25 * SECOND);
    assert_eq!(shell.sent(old), ["2"], "the heartbeat goes on as it began");
    shell.advance(Duration::from_millis(19_999));
    assert_eq!(shell.closed.get(&old), None);
    shell.advance(Duration::from_millis(1));
    assert_eq!(shell.closed.get(&old), Some(&None));
}

#[test]
fn a_client_of_engine_io_3_keeps_the_time_it_was_given_to_ping() {
    let mut shell = Shell::new(with_heartbeat(25, 20));
    let old = shell.open_websocket(Version::V3);
    configure(&mut shell, with_heartbeat(1, 1));
    shell.advance(44 * SECOND);
    shell.text(old, "2");
    assert_eq!(shell.sent(old).last().unwrap(), "3");
    shell.advance(44 * SECOND);
    assert_eq!(shell.closed.get(&old), None);
    shell.advance(SECOND);
    assert_eq!(shell.closed.get(&old), Some(&None));
}

#[test]
fn a_client_that_polls_may_send_as_much_as_it_was_told() {
    let config = |max_payload_bytes| Config {
        limits: Limits { max_payload_bytes, ..Limits::default() },
        ..Config::default()
    };
    let mut shell = Shell::new(config(100));
    let old = shell.open_polling(Version::V4);
    shell.join_by_polling(old);
    configure(&mut shell, config(40));
    let new = shell.open_polling(Version::V4);
    shell.join_by_polling(new);
    let event = format!("42[\"{}\"]", "x".repeat(60));
    assert_eq!(shell.post(old, &event), Response::Taken);
    assert_eq!(shell.post(new, &event), Response::Status(413));
    assert_eq!(shell.hub.stats().limit_hits[LimitKey::MaxPayload as usize], 1);
    // As before, a body that is too big ends nothing.
    assert_eq!(shell.post(new, "42[\"a\"]"), Response::Taken);
    let key = shell.hub.find_session(old).unwrap();
    assert_eq!(shell.hub.session(key).unwrap().max_payload_bytes, 100);
    assert_eq!(shell.hub.max_payload_bytes(), 40);
}

#[test]
fn a_namespace_without_a_rule_keeps_its_sockets_and_lets_nobody_in() {
    let mut shell = Shell::new(Config::default());
    let (inside, socket) = shell.join_by_websocket(Version::V4, "/room-1");
    configure_with(&mut shell, &[("/", 0)]);
    shell.command(Command::Broadcast(broadcast("/room-1")));
    assert_eq!(shell.sent(inside), ["42/room-1,[\"b\"]"]);
    shell.text(inside, "42/room-1,[\"hi\"]");
    assert!(
        matches!(shell.events.last(), Some(Event::Event { socket: who, .. }) if *who == socket)
    );

    let outside = shell.open_websocket(Version::V4);
    shell.text(outside, "40/room-1");
    assert_eq!(shell.sent(outside), ["44/room-1,{\"message\":\"Invalid namespace\"}"]);
    // When the last one has left, nobody is in there any more.
    shell.text(inside, "41/room-1");
    assert_eq!(shell.hub.sockets_in(Some("/room-1"), None).count(), 0);
    shell.text(inside, "40/room-1");
    assert_eq!(shell.sent(inside), ["44/room-1,{\"message\":\"Invalid namespace\"}"]);
}

#[test]
fn a_namespace_goes_to_its_new_handler_with_all_its_sockets() {
    let mut shell = Shell::new(Config::default());
    let (root, _) = shell.join_by_websocket(Version::V4, "/");
    let (room, _) = shell.join_by_websocket(Version::V4, "/room-1");
    assert_eq!(
        (handler_of(&mut shell, root, "/"), handler_of(&mut shell, room, "/room-1")),
        (0, 0)
    );
    configure_with(&mut shell, &[("/room-1", 7), ("/room-*", 8), ("/", 0)]);
    assert_eq!(
        (handler_of(&mut shell, root, "/"), handler_of(&mut shell, room, "/room-1")),
        (0, 7)
    );
    configure_with(&mut shell, &[("/", 3)]);
    assert_eq!(
        (handler_of(&mut shell, root, "/"), handler_of(&mut shell, room, "/room-1")),
        (3, 7)
    );
}

#[test]
fn limits_of_a_session_count_from_the_change_on() {
    let mut shell = Shell::new(Config::default());
    let (websocket, socket) = shell.join_by_websocket(Version::V4, "/");
    shell.command(Command::Join { socket, room: "a".into() });
    let limits = Limits { rooms_per_session: 1, ..Limits::default() };
    configure(&mut shell, Config { limits, ..Config::default() });
    assert_eq!(shell.closed.get(&websocket), None, "whoever is in stays in");
    shell.command(Command::Join { socket, room: "b".into() });
    assert_eq!(shell.closed.get(&websocket), Some(&Some(1008)));
}

// What is measured.

#[test]
fn sessions_handshakes_and_pongs_are_timed() {
    let mut shell = Shell::new(Config::default());
    let opened = shell.now;
    let websocket = shell.open_websocket(Version::V4);
    shell.now += Duration::from_millis(40);
    shell.text(websocket, "40");
    shell.text(websocket, "40/room-1");
    assert_eq!(measured(&shell, Measured::Handshake), (1, Duration::from_millis(40)));

    shell.advance(Duration::from_millis(24_960));
    shell.now += Duration::from_millis(70);
    shell.text(websocket, "3");
    assert_eq!(measured(&shell, Measured::Pong), (1, Duration::from_millis(70)));
    // A pong nobody asked for says nothing.
    shell.text(websocket, "3");
    assert_eq!(measured(&shell, Measured::Pong).0, 1);

    shell.text(websocket, "1");
    let lived = shell.now - opened;
    assert_eq!(measured(&shell, Measured::Session), (1, lived));
}

#[test]
fn a_shard_that_wakes_late_counts_how_late_its_pings_are() {
    let mut shell = Shell::new(Config::default());
    shell.join_by_websocket(Version::V4, "/");
    shell.advance(25 * SECOND);
    assert_eq!(measured(&shell, Measured::PingLateness), (1, Duration::ZERO));

    let (second, _) = shell.join_by_websocket(Version::V4, "/");
    let late = Duration::from_millis(300);
    shell.now += 25 * SECOND + late;
    shell.input(Input::Timeout);
    assert_eq!(shell.sent(second), ["2"]);
    assert_eq!(shell.hub.stats().wakeups[Timer::Ping as usize], 2);
    assert_eq!(measured(&shell, Measured::PingLateness), (2, late));
}

#[test]
fn a_session_closed_by_the_server_is_timed_once_though_its_client_hears_later() {
    let mut shell = Shell::new(Config::default());
    let session = shell.open_polling(Version::V4);
    let socket = shell.join_by_polling(session);
    shell.now += 3 * SECOND;
    shell.command(Command::Disconnect { socket, close: true });
    shell.advance(2 * SECOND);
    assert_eq!(shell.get(session), "41\u{1e}1");
    assert_eq!(shell.hub.session_count(), 0);
    assert_eq!(measured(&shell, Measured::Session), (1, 3 * SECOND));
}

#[test]
fn a_histogram_counts_each_time_in_the_buckets_it_fits_into() {
    let what = Measured::Pong;
    let mut histogram = Histogram::default();
    let micros = [0, 1_000, 1_001, 19_999_999, 20_000_000, 20_000_001];
    for micros in micros {
        histogram.add(what, Duration::from_micros(micros));
    }
    let buckets: Vec<_> = histogram.buckets(what).collect();
    let bounds: Vec<_> = buckets.iter().map(|(bound, _)| *bound).collect();
    assert!(bounds.is_sorted());
    assert_eq!(bounds[0], Duration::from_millis(1));
    let counts: Vec<_> = buckets.iter().map(|(_, count)| *count).collect();
    assert_eq!(counts, [2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 5]);
    assert_eq!(histogram.count(), 6);
    assert_eq!(histogram.sum(), Duration::from_micros(micros.iter().sum()));

    let mut twice = histogram.clone();
    twice.merge(&histogram);
    assert_eq!((twice.count(), twice.sum()), (12, 2 * histogram.sum()));
    for what in Measured::ALL {
        let bounds: Vec<_> = histogram.buckets(what).map(|(bound, _)| bound).collect();
        assert!(bounds.is_sorted_by(|a, b| a < b), "{what:?}");
    }
}

// Who is listed.

#[test]
fn sockets_are_found_by_namespace_by_room_and_by_their_sid() {
    let mut shell = Shell::new(Config::default());
    let (_, root) = shell.join_by_websocket(Version::V4, "/");
    let (_, one) = shell.join_by_websocket(Version::V4, "/room-1");
    let (_, other) = shell.join_by_websocket(Version::V4, "/room-1");
    let red = ByteString::from_static("red");
    shell.command(Command::Join { socket: one, room: red.clone() });
    shell.command(Command::Join { socket: root, room: red.clone() });

    let found = |shell: &Shell, namespace, room| -> Vec<SocketKey> {
        shell.hub.sockets_in(namespace, room).collect()
    };
    assert_eq!(found(&shell, None, None), [root, one, other]);
    assert_eq!(found(&shell, Some("/room-1"), None), [one, other]);
    assert_eq!(found(&shell, Some("/room-1"), Some("red")), [one]);
    assert_eq!(found(&shell, None, Some("red")), [root, one]);
    let sid = shell.id_of(other);
    assert_eq!(found(&shell, Some("/room-1"), Some(&sid)), [other]);
    assert_eq!(found(&shell, Some("/"), Some(&sid)), []);
    assert_eq!(found(&shell, None, Some(&sid)), [other]);
    assert_eq!(found(&shell, Some("/nowhere"), None), []);

    let rooms = |namespace| -> Vec<(String, String, usize)> {
        let rooms = shell.hub.rooms_in(namespace);
        rooms.map(|it| (it.namespace.to_string(), it.name.to_string(), it.sockets())).collect()
    };
    let of = |namespace: &str| (namespace.to_owned(), "red".to_owned(), 1);
    assert_eq!(rooms(None), [of("/room-1"), of("/")]);
    assert_eq!(rooms(Some("/")), [of("/")]);
    assert_eq!(shell.hub.room("/room-1", "red").map(|room| room.sockets()), Some(1));
    assert!(shell.hub.room("/room-1", "blue").is_none());
}

#[test]
fn whoever_waits_to_be_let_in_is_not_listed_and_neither_are_the_servers_own() {
    let mut shell = Shell::new(Config::default());
    configure_with(&mut shell, &[("/", 0), ("/.bowline/*", 0)]);
    shell.join_by_websocket(Version::V4, "/.bowline/probe");
    shell.command(Command::Join { socket: shell.last_socket(), room: "red".into() });
    shell.hold_connects = true;
    let websocket = shell.open_websocket(Version::V4);
    shell.text(websocket, "40");
    let Some(Event::Connect { socket, .. }) = shell.events.last().cloned() else {
        panic!("nobody asked to join")
    };
    shell.command(Command::Join { socket, room: "red".into() });
    assert_eq!(shell.hub.sockets_in(None, None).count(), 0);
    assert_eq!(shell.hub.sockets_in(Some("/.bowline/probe"), None).count(), 0);
    assert_eq!(shell.hub.sockets_in(Some("/"), Some("red")).count(), 0);
    let rooms: Vec<_> = shell.hub.rooms_in(None).map(|room| room.sockets()).collect();
    assert_eq!(rooms, [0]);
    let id = Sid::new(0, [9; 14]);
    shell.command(Command::Accept { socket, id, pid: id });
    assert_eq!(shell.hub.sockets_in(Some("/"), Some("red")).count(), 1);
}

#[test]
fn a_session_tells_what_serves_it() {
    let mut shell = Shell::new(Config::default());
    shell.now = Time::from_micros(5_000_000);
    let id = shell.open_polling(Version::V4);
    let socket = shell.join_by_polling(id);
    let key = shell.hub.socket(socket).unwrap().session;
    let view = shell.hub.session(key).unwrap();
    assert_eq!((view.id, view.opened, view.websocket), (id, shell.now, None));
    let websocket = shell.attach(id);
    shell.text(websocket, "2probe");
    shell.text(websocket, "5");
    assert_eq!(shell.hub.session(key).unwrap().websocket, Some(websocket));
    shell.text(websocket, "1");
    assert!(shell.hub.session(key).is_none());
    assert_eq!(shell.hub.find_session(id), None);
}

fn with_heartbeat(interval: u64, timeout: u64) -> Config {
    Config {
        ping_interval: Duration::from_secs(interval),
        ping_timeout: Duration::from_secs(timeout),
        ..Config::default()
    }
}

/// Changes the configuration, but not the namespaces.
fn configure(shell: &mut Shell, config: Config) {
    let namespaces = shell.hub.config.namespaces.clone();
    shell.input(Input::Configure(Box::new(Config { namespaces, ..config })));
}

fn configure_with(shell: &mut Shell, rules: &[(&str, u16)]) {
    let namespaces = rules
        .iter()
        .map(|(pattern, handler)| NamespaceRule {
            pattern: NamespacePattern::new(pattern),
            handler: *handler,
            keeping: super::Keeping::default(),
        })
        .collect();
    let config = Config { namespaces, ..shell.hub.config.clone() };
    shell.input(Input::Configure(Box::new(config)));
}

/// Who hears an event of this socket.
fn handler_of(shell: &mut Shell, transport: TransportId, namespace: &str) -> u16 {
    let name = if namespace == "/" { String::new() } else { format!("{namespace},") };
    let message = Message::Text(format!("42{name}[\"hi\"]").into());
    shell.hub.handle_input(shell.now, Input::Message { transport, message });
    match shell.hub.poll_output() {
        Some(Output::Deliver { handler, event: Event::Event { .. } }) => handler,
        other => panic!("no event: {other:?}"),
    }
}

fn measured(shell: &Shell, what: Measured) -> (u64, Duration) {
    let histogram = &shell.hub.stats().measured[what as usize];
    (histogram.count(), histogram.sum())
}
