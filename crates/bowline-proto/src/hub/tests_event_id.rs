//! Clients that name their events, and send them again.

use super::{Config, EventIdPath, Keeping, Stamp, event_id::KnownEvents, tests::Shell};
use crate::{
    Command, Input, SocketKey, TransportId,
    engineio::Version,
    socketio::Args,
    wall::{Event, Lost},
};

fn shell(path: Option<&str>) -> Shell {
    let mut shell = Shell::new(Config::default());
    let mut config = shell.hub.config.clone();
    config.namespaces[0].keeping = Keeping {
        event_id: path.map(|path| path.parse().unwrap()),
        stamp: Stamp::Always,
        ..Keeping::default()
    };
    shell.input(Input::Configure(Box::new(config)));
    shell
}

/// The events that were delivered: what they were called, and the number of the ack.
fn delivered(shell: &mut Shell) -> Vec<(Option<String>, Option<u64>)> {
    let events = shell.events.extract_if(.., |event| matches!(event, Event::Event { .. }));
    let event = |event| match event {
        Event::Event { id, ack, .. } => (id.map(String::from), ack),
        other => panic!("{other:?}"),
    };
    events.map(event).collect()
}

fn say(shell: &mut Shell, to: TransportId, ack: &str, id: &str) {
    shell.text(to, &format!("42{ack}[\"n\",{{\"id\":\"{id}\"}}]"));
}

fn answer(shell: &mut Shell, socket: SocketKey, id: u64, json: &str) {
    shell.command(Command::Ack { socket, id, args: Args::new(json).unwrap() });
}

fn known(shell: &Shell, socket: SocketKey) -> Option<&KnownEvents> {
    shell.hub.sockets[socket].extras.as_deref()?.known_events.as_deref()
}

#[test]
fn an_id_is_a_string_or_a_number_of_some_length_at_the_path() {
    let find = |path: &str, json: &str| {
        let args = Args::new(json.to_owned()).unwrap();
        path.parse::<EventIdPath>().unwrap().find(&args).map(std::borrow::Cow::into_owned)
    };
    assert_eq!(find("/0/id", r#"["n",{"id":"a\u0062"}]"#).as_deref(), Some("ab"));
    assert_eq!(find("/0", r#"["n",17]"#).as_deref(), Some("17"));
    assert_eq!(find("/1/x~1y/0", r#"["n",null,{"x/y":["z"]}]"#).as_deref(), Some("z"));
    for (path, json) in [
        ("/0/id", r#"["n"]"#),
        ("/0/id", r#"["n","id"]"#),
        ("/0/id", r#"["n",{"id":null}]"#),
        ("/0/id", r#"["n",{"id":{"id":1}}]"#),
        ("/0/id", r#"["n",{"id":""}]"#),
        ("/18446744073709551615", r#"["n",1]"#),
    ] {
        assert_eq!(find(path, json), None, "{path} {json}");
    }
    for (length, is_id) in [(256, true), (257, false)] {
        let json = format!("[\"n\",\"{}\"]", "x".repeat(length));
        assert_eq!(find("/0", &json).is_some(), is_id, "{length}");
    }
}

#[test]
fn an_event_of_a_known_id_is_not_delivered_again() {
    let mut shell = shell(Some("/0/id"));
    let (websocket, socket) = shell.join_by_websocket(Version::V4, "/");
    say(&mut shell, websocket, "", "a");
    say(&mut shell, websocket, "", "a");
    say(&mut shell, websocket, "", "b");
    shell.text(websocket, "42[\"n\",{}]");
    shell.text(websocket, "42[\"n\",{}]");
    let a = Some("a".to_owned());
    let b = Some("b".to_owned());
    assert_eq!(delivered(&mut shell), [(a, None), (b, None), (None, None), (None, None)]);
    assert_eq!(shell.hub.stats().events_repeated, 1);
    assert_eq!(shell.hub.stats().events_in, 5);
    // Of another socket it is another event.
    let (other, _) = shell.join_by_websocket(Version::V4, "/");
    say(&mut shell, other, "", "a");
    assert_eq!(delivered(&mut shell).len(), 1);
    assert!(known(&shell, socket).is_some());
}

#[test]
fn a_namespace_without_a_path_remembers_nothing() {
    for path in [None, Some("/0/id")] {
        let mut shell = shell(path);
        let (websocket, _) = shell.join_by_websocket(Version::V4, "/");
        shell.text(websocket, "40/room-1,");
        let socket = shell.last_socket();
        shell.text(websocket, "42/room-1,[\"n\",{\"id\":\"a\"}]");
        shell.text(websocket, "42/room-1,[\"n\",{\"id\":\"a\"}]");
        assert_eq!(delivered(&mut shell), [(None, None), (None, None)]);
        assert!(shell.hub.sockets[socket].extras.is_none());
    }
}

#[test]
fn a_repeated_event_gets_the_answer_of_the_first_before_or_after_it_came() {
    let mut shell = shell(Some("/0/id"));
    let (websocket, socket) = shell.join_by_websocket(Version::V4, "/");
    for ack in ["0", "1", "1", ""] {
        say(&mut shell, websocket, ack, "a");
    }
    say(&mut shell, websocket, "2", "b");
    assert_eq!(delivered(&mut shell).len(), 2);
    assert!(shell.sent(websocket).is_empty());
    answer(&mut shell, socket, 0, "[\"done\"]");
    assert_eq!(shell.sent(websocket), ["430[\"done\"]", "431[\"done\"]"]);
    say(&mut shell, websocket, "3", "a");
    say(&mut shell, websocket, "0", "a");
    assert_eq!(shell.sent(websocket), ["433[\"done\"]", "430[\"done\"]"]);
    answer(&mut shell, socket, 2, "[\"b\"]");
    assert_eq!(shell.sent(websocket), ["432[\"b\"]"]);
    // One that nobody asked to be answered is answered without arguments.
    say(&mut shell, websocket, "", "c");
    say(&mut shell, websocket, "4", "c");
    assert_eq!(shell.sent(websocket), ["434[]"]);
    assert_eq!(delivered(&mut shell), [(Some("c".to_owned()), None)]);
}

#[test]
fn an_answer_that_is_lost_with_its_transport_reaches_the_repetition() {
    let mut shell = shell(Some("/0/id"));
    let transport = shell.open_websocket(Version::V4);
    shell.text(transport, "40");
    let greeting = shell.sent(transport).remove(0);
    let socket = shell.last_socket();
    say(&mut shell, transport, "0", "a");
    shell.input(Input::Lost { transport, why: Lost::Failed });
    let again = shell.open_websocket(Version::V4);
    shell.text(again, &greeting);
    shell.sent(again);
    say(&mut shell, again, "1", "a");
    assert!(shell.sent(again).is_empty());
    answer(&mut shell, socket, 0, "[7]");
    assert_eq!(shell.sent(again), ["430[7]", "431[7]"]);
    assert_eq!(delivered(&mut shell).len(), 1);
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut shell = shell(Some("/0/id"));
    let (websocket, _) = shell.join_by_websocket(Version::V4, "/");
    // Ids: the oldest are forgotten.
    for n in 0..257 {
        shell.advance(std::time::Duration::from_millis(20));
        say(&mut shell, websocket, "", &n.to_string());
    }
    delivered(&mut shell);
    say(&mut shell, websocket, "", "1");
    assert_eq!(delivered(&mut shell).len(), 0);
    say(&mut shell, websocket, "", "0");
    assert_eq!(delivered(&mut shell).len(), 1);

    // Answers: long ones are not remembered, and of many the latest are.
    let (websocket, socket) = shell.join_by_websocket(Version::V4, "/");
    let long = |bytes: usize| format!("[\"{}\"]", "x".repeat(bytes - 4));
    for (ack, bytes) in [(0, 4 * 1024), (1, 4 * 1024 + 1)] {
        say(&mut shell, websocket, &ack.to_string(), &format!("long{ack}"));
        answer(&mut shell, socket, ack, &long(bytes));
    }
    shell.sent(websocket);
    say(&mut shell, websocket, "2", "long0");
    say(&mut shell, websocket, "3", "long1");
    assert_eq!(shell.sent(websocket), [format!("432{}", long(4 * 1024)), "433[]".to_owned()]);
    for ack in 4..20 {
        say(&mut shell, websocket, &ack.to_string(), &ack.to_string());
        answer(&mut shell, socket, ack, &long(4 * 1024));
    }
    shell.sent(websocket);
    say(&mut shell, websocket, "30", "long0");
    say(&mut shell, websocket, "31", "4");
    assert_eq!(shell.sent(websocket), ["4330[]".to_owned(), format!("4331{}", long(4 * 1024))]);

    // Repetitions that wait.
    say(&mut shell, websocket, "100", "wait");
    for ack in 101..150 {
        shell.advance(std::time::Duration::from_millis(20));
        say(&mut shell, websocket, &ack.to_string(), "wait");
    }
    answer(&mut shell, socket, 100, "[]");
    assert_eq!(shell.sent(websocket).len(), 17);
}
