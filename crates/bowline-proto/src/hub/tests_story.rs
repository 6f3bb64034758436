//! What is told of one client.

use std::time::Duration;

use super::{
    Config, Happened, Keeping, Stamp, StoryEntry, UpgradeFailure,
    tests::{Shell, emit},
};
use crate::{
    Command, Input, Sid, Time, TransportId,
    engineio::{TransportName, Version},
    limit::LimitKey,
    wall::{DisconnectReason, Lost, RecoveryOutcome},
};

const SECOND: Duration = Duration::from_secs(1);

fn shell() -> Shell {
    let mut shell = Shell::new(Config::default());
    let mut config = shell.hub.config.clone();
    for rule in &mut config.namespaces {
        rule.keeping = Keeping { stamp: Stamp::Always, ..Keeping::default() };
    }
    shell.input(Input::Configure(Box::new(config)));
    shell
}

fn happened(shell: &Shell, id: Sid) -> Vec<Happened> {
    shell.hub.story(id).into_iter().map(|entry| entry.happened).collect()
}

fn come_back(shell: &mut Shell, greeting: &str) -> TransportId {
    let transport = shell.open_websocket(Version::V4);
    shell.text(transport, greeting);
    transport
}

#[test]
fn a_story_tells_of_transports_heartbeats_drops_and_returns() {
    let mut shell = shell();
    let session = shell.open_polling(Version::V4);
    shell.post(session, "40");
    let greeting = shell.get(session);
    let (socket, id) = (shell.last_socket(), shell.last_socket_id());
    let failed = shell.attach(session);
    shell.text(failed, "nonsense");
    let websocket = shell.attach(session);
    shell.text(websocket, "2probe");
    shell.text(websocket, "5");
    shell.advance(25 * SECOND);
    shell.now += Duration::from_millis(7);
    shell.text(websocket, "3");
    // Somebody else's are not told.
    shell.join_by_websocket(Version::V4, "/");
    shell.input(Input::Lost { transport: websocket, why: Lost::Failed });
    shell.command(emit(socket, "[\"a\"]"));
    shell.command(emit(socket, "[\"b\"]"));
    shell.now += SECOND;
    let again = come_back(&mut shell, &greeting);
    shell.text(again, "41");
    let at = Time::ZERO + 25 * SECOND;
    let later = at + Duration::from_millis(7);
    let told = shell.hub.story(id);
    let (reason, outcome) = (DisconnectReason::ClientNamespaceDisconnect, RecoveryOutcome::Ended);
    let expected = [
        (Time::ZERO, Happened::Opened(TransportName::Polling)),
        (Time::ZERO, Happened::Connected),
        (Time::ZERO, Happened::UpgradeFailed(UpgradeFailure::Protocol)),
        (Time::ZERO, Happened::Probed),
        (Time::ZERO, Happened::Upgraded),
        (at, Happened::PingSent),
        (later, Happened::Pong { micros: 7_000 }),
        (later, Happened::Away(DisconnectReason::TransportError)),
        (later, Happened::Closed(DisconnectReason::TransportError)),
        (later + SECOND, Happened::Opened(TransportName::WebSocket)),
        (later + SECOND, Happened::Back),
        (later + SECOND, Happened::CaughtUp { replayed: 2 }),
        (later + SECOND, Happened::Ended { reason, outcome }),
    ];
    assert_eq!(told, expected.map(|(at, happened)| StoryEntry { at, happened }));
    assert_eq!(shell.hub.story(shell.hub.socket(shell.last_socket()).unwrap().id).len(), 2);
}

#[test]
fn a_story_tells_why_a_client_was_cut_and_why_it_got_a_new_socket() {
    let mut shell = shell();
    let websocket = shell.open_websocket(Version::V4);
    shell.text(websocket, "40");
    let greeting = shell.sent(websocket).remove(0);
    let id = shell.last_socket_id();
    shell.input(Input::Backlog { transport: websocket, bytes: usize::MAX });
    assert_eq!(
        happened(&shell, id),
        [
            Happened::Opened(TransportName::WebSocket),
            Happened::Connected,
            Happened::LimitHit(LimitKey::QueuedBytesPerSession),
            Happened::Away(DisconnectReason::ForcedServerClose),
            Happened::Closed(DisconnectReason::ForcedServerClose),
        ]
    );
    shell.hold_connects = true;
    come_back(&mut shell, &greeting);
    let socket = shell.hub.find_socket(id).unwrap();
    shell.command(Command::Refuse { socket, message: "no".into(), data: None });
    assert_eq!(happened(&shell, id).last(), Some(&Happened::ReturnRefused));
    shell.hold_connects = false;
    shell.advance(120 * SECOND);
    let (reason, outcome) = (DisconnectReason::ForcedServerClose, RecoveryOutcome::Window);
    assert_eq!(happened(&shell, id).last(), Some(&Happened::Ended { reason, outcome }));
    come_back(&mut shell, &greeting);
    let new = shell.last_socket_id();
    assert_ne!(new, id);
    assert_eq!(
        happened(&shell, new),
        [
            Happened::Opened(TransportName::WebSocket),
            Happened::RecoveryFailed(RecoveryOutcome::Window),
            Happened::Connected,
        ]
    );
    assert_eq!(happened(&shell, shell.hub.sessions[shell.hub.sessions().next().unwrap()].id), []);
}

#[test]
fn what_is_remembered_is_bounded_and_heartbeats_push_out_only_heartbeats() {
    let mut shell = shell();
    let (websocket, _) = shell.join_by_websocket(Version::V3, "/");
    let id = shell.last_socket_id();
    for _ in 0..20_000 {
        shell.now += Duration::from_micros(1);
        shell.text(websocket, "2");
    }
    let told = shell.hub.story(id);
    assert_eq!(told.len(), 2 + 16_384);
    assert_eq!(told[1].happened, Happened::Connected);
    assert_eq!(told[2].at, Time::from_micros(20_000 - 16_384 + 1));
    assert_eq!(told.last().unwrap().at, Time::from_micros(20_000));
    assert!(told.is_sorted_by_key(|entry| entry.at));
}
