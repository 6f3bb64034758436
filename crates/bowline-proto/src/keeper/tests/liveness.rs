//! Connections that are open: what proves them, what brings them into doubt.

use std::time::Duration;

use super::{
    super::{Config, ConnectionId, Input, Level, ProbeId, State, Verdict},
    rig::{AWAY, Opens, Rig},
};
use crate::Time;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The first one, in most tests.
const FIRST: ConnectionId = ConnectionId(1);

#[test]
fn a_connection_is_live_once_its_first_round_trip_came_back() {
    let mut rig = Rig::new(Config::default());
    assert_eq!((rig.keeper.state(), rig.keeper.deadline()), (State::Off, None));
    rig.give(Input::Start);
    assert_eq!(rig.said(), ["waiting: started"]);
    rig.pass(AWAY);
    assert_eq!(rig.said(), ["open 1", "connecting: first"]);
    rig.pass(AWAY);
    assert_eq!(rig.said(), ["use 1", "proving: open"]);
    rig.pass(AWAY);
    assert_eq!(rig.said(), ["probe opened ok", "renewed first", "live: proved"]);
    let opened = Time::ZERO + 2 * AWAY;
    assert_eq!(rig.keeper.connection(), Some((FIRST, opened, false)));
    let levels = rig.keeper.levels();
    // It proves what was so when it was begun.
    assert_eq!(levels[&Level::Routing], Some(opened));
    assert_eq!(levels[&Level::Handled], None);
    assert!(!levels.contains_key(&Level::Ack));
}

#[test]
fn a_link_without_round_trips_is_live_with_its_first_pong_or_ack() {
    for (ack_interval, level) in [(None, Level::Pong), (Some(15 * SECOND), Level::Ack)] {
        let mut rig = Rig::new(Config { ack_interval, ..without_probe() });
        rig.give(Input::Start);
        rig.pass_until("live");
        assert_eq!(rig.keeper.levels()[&level], Some(rig.now));
        assert!(!rig.keeper.levels().contains_key(&Level::Routing));
        assert_eq!(rig.keeper.next_probe(), None);
        rig.pass(DAY / 2);
        assert_eq!((rig.probes, rig.keeper.state()), (0, State::Live));
    }
}

#[test]
fn a_quiet_bot_is_left_alone_for_a_day() {
    let mut rig = Rig::live(Config::default());
    rig.pass(DAY);
    assert!(rig.probes <= 150, "{}", rig.probes);
    assert_eq!(rig.count("not renewed"), 0);
    // Between 9 and 12 hours each.
    assert_eq!(rig.count("renewed"), 2);
    assert_eq!(rig.count("renewed age"), 2);
    assert_eq!(rig.count("suspect"), 0);
    assert_eq!(rig.count("catch up"), 2);
}

#[test]
fn two_missed_pongs_are_forgiven() {
    let mut rig = Rig::live(Config::default());
    rig.service.dead.insert(1);
    rig.pass(24 * SECOND);
    rig.service.dead.clear();
    rig.pass(5 * MINUTE);
    assert_eq!(rig.said(), [""; 0]);
}

#[test]
fn a_third_missed_pong_leads_to_a_round_trip_and_a_new_connection_at_once() {
    let mut rig = Rig::live(without_age());
    rig.pass(MINUTE);
    rig.service.dead.insert(1);
    let took = rig.pass_until("suspect");
    assert!(took <= 35 * SECOND, "{took:?}");
    assert_eq!(rig.keeper.state(), State::Suspect);
    rig.pass_until("use 2");
    let proved = rig.now;
    rig.pass(2 * SECOND);
    let said = rig.said();
    let rest = [
        "suspect: no pong for too long",
        "open 2",
        "probe opened ok",
        // The last round trip was the first one.
        "catch up since 0.040000s",
        "use 2",
        "probe doubt not made",
        "live: renewed",
        "close 1",
        "renewed silent",
    ];
    assert_eq!(said, rest);
    assert!(rig.now.since(proved) <= 3 * SECOND);
}

#[test]
fn missed_acks_are_as_bad() {
    let mut rig = Rig::live(Config { ack_interval: Some(15 * SECOND), ..without_age() });
    rig.give(Input::Heard { connection: FIRST, level: Level::Handled });
    assert_eq!(rig.keeper.levels()[&Level::Routing], Some(Time::ZERO + 2 * AWAY));
    rig.service.dead.insert(1);
    rig.service.unrouted.insert(1);
    // Pongs come all the same.
    for _ in 0..60 {
        rig.pass(SECOND);
        rig.give(Input::Heard { connection: FIRST, level: Level::Pong });
    }
    assert_eq!(rig.count("suspect: no ack for too long"), 1);
    assert_eq!(rig.count("renewed silent"), 1);
}

#[test]
fn a_service_that_answers_no_pings_is_proved_by_round_trips_alone() {
    let mut rig = Rig::live(Config { ping_interval: None, ..without_age() });
    assert!(!rig.keeper.levels().contains_key(&Level::Pong));
    rig.pass(HOUR);
    assert_eq!((rig.count("renewed"), rig.keeper.state()), (0, State::Live));
    rig.service.dead.insert(1);
    rig.pass_until("renewed unrouted");

    let mut rig = Rig::new(Config { ping_interval: None, ..without_probe() });
    rig.give(Input::Start);
    rig.pass_until("use 1");
    rig.give(Input::Heard { connection: FIRST, level: Level::Tcp });
    assert_eq!(rig.keeper.state(), State::Live);
}

#[test]
fn silence_is_asked_about_and_arrivals_put_that_off() {
    let mut rig = Rig::live(looking());
    let mut since = Time::ZERO + 2 * AWAY;
    for _ in 0..3 {
        let begun = rig.keeper.next_look().unwrap();
        let took = rig.pass_until("look");
        assert!((44 * SECOND..=61 * SECOND).contains(&took), "{took:?}");
        assert_eq!(rig.said(), [format!("look since {since:?}")]);
        since = begun;
    }
    for _ in 0..8 {
        rig.pass(30 * SECOND);
        rig.give(Input::Arrived { connection: FIRST });
    }
    assert_eq!(rig.count("look"), 0);
    rig.pass(MINUTE);
    assert_eq!(rig.said(), [format!("look since {since:?}")]);
}

#[test]
fn what_a_look_finds_leads_to_a_round_trip_at_once() {
    let mut rig = Rig::live(looking());
    rig.service.has_more = true;
    rig.pass_until("probe missed ok");
    rig.said();
    rig.service.unrouted.insert(1);
    let took = rig.pass_until("use 2");
    assert!(took <= 73 * SECOND, "{took:?}");
    assert_eq!(rig.count("probe missed lost"), 1);
    rig.service.has_more = false;
    rig.pass_until("renewed unrouted");
}

#[test]
fn what_is_found_before_the_first_look_was_missed_before_the_connection() {
    let mut rig = Rig::live(looking());
    rig.give(Input::Missed);
    rig.pass(40 * SECOND);
    assert_eq!(rig.said(), [""; 0]);
}

#[test]
fn a_connection_in_doubt_is_not_asked_about() {
    let mut rig = Rig::live(Config { look_interval: Some(SECOND), ..without_age() });
    rig.service.opens = Opens::Never;
    rig.service.dead.insert(1);
    rig.pass_until("suspect");
    rig.said();
    assert_eq!(rig.keeper.next_look(), None);
    rig.pass(10 * SECOND);
    assert_eq!(rig.count("look"), 0);
    rig.service.dead.clear();
    rig.pass_until("live");
    rig.pass(SECOND);
    assert_eq!(rig.count("look"), 1);
}

#[test]
fn a_round_trip_lost_twice_leads_to_a_new_connection_and_what_was_missed() {
    let mut rig = Rig::live(without_age());
    let begun = rig.keeper.next_probe().unwrap();
    rig.pass_until("probe interval ok");
    rig.said();
    rig.pass(MINUTE);
    rig.service.unrouted.insert(1);
    rig.pass_until("probe interval lost");
    let took = rig.pass_until("use 2");
    assert!(took <= 6 * SECOND, "{took:?}");
    rig.pass(2 * SECOND);
    let said = rig.said();
    let expected = [
        "probe interval lost",
        "probe doubt lost",
        "suspect: nothing is routed to the connection",
        "open 2 elsewhere",
        "probe opened ok",
        &format!("catch up since {begun:?}"),
        "use 2",
        "live: renewed",
        "close 1",
        "renewed unrouted",
    ];
    assert_eq!(said, expected);
}

#[test]
fn a_round_trip_lost_once_leads_to_catching_up_only() {
    let mut rig = Rig::live(without_age());
    rig.pass(MINUTE);
    rig.service.unrouted.insert(1);
    rig.give(Input::Probe);
    rig.pass_until("probe asked lost");
    rig.service.unrouted.clear();
    // The second one was begun at the same moment, and is lost as well unless it comes late.
    rig.give(Input::Probed { probe: ProbeId(3), connection: FIRST });
    assert_eq!(rig.said(), ["probe asked lost", "probe doubt ok", "catch up since 0.040000s"]);
    assert_eq!(rig.keeper.state(), State::Live);
}

#[test]
fn what_comes_back_late_proves_the_routing_all_the_same() {
    let mut rig = Rig::live(without_age());
    rig.service.unrouted.insert(1);
    let begun = rig.now;
    rig.give(Input::Probe);
    rig.pass_until("probe asked lost");
    rig.pass(SECOND);
    rig.give(Input::Probed { probe: ProbeId(2), connection: FIRST });
    assert_eq!(rig.keeper.levels()[&Level::Routing], Some(begun));
    rig.pass(10 * SECOND);
    // Of those two in a row the first one was not lost after all: there is a third one.
    assert_eq!((rig.count("probe doubt lost"), rig.count("suspect")), (2, 1));
}

#[test]
fn on_another_connection_it_proves_nothing() {
    let mut rig = Rig::live(without_age());
    rig.service.unrouted.insert(1);
    rig.give(Input::Probe);
    rig.give(Input::Probed { probe: ProbeId(2), connection: ConnectionId(2) });
    rig.pass(5 * SECOND);
    assert_eq!(rig.said(), ["probe asked lost"]);
}

#[test]
fn a_round_trip_that_cannot_be_begun_never_replaces_a_connection() {
    let mut rig = Rig::live(without_age());
    rig.service.posts = false;
    let before = rig.probes;
    rig.pass(DAY);
    assert_eq!((rig.keeper.state(), rig.opens.len()), (State::Live, 1));
    // After a few quick ones no more often than otherwise.
    let made = rig.probes - before;
    assert!((100..350).contains(&made), "{made}");
    rig.service.posts = true;
    rig.said();
    rig.pass(11 * MINUTE);
    assert_eq!(rig.said()[..1], ["probe interval ok"]);
}

#[test]
fn a_connection_that_proves_itself_again_is_not_replaced() {
    let mut rig = Rig::live(without_age());
    rig.pass(2 * MINUTE);
    rig.service.opens = Opens::Never;
    rig.service.unrouted.insert(1);
    rig.give(Input::Probe);
    rig.pass_until("suspect");
    rig.service.unrouted.clear();
    rig.pass_until("not renewed unrouted");
    rig.pass_until("live");
    rig.pass(30 * SECOND);
    rig.said();
    rig.pass(5 * MINUTE);
    assert_eq!(rig.said(), [""; 0]);
    assert_eq!((rig.keeper.next_attempt(), rig.open.len()), (None, 1));
}

#[test]
fn after_idle_hours_activity_brings_a_round_trip() {
    let idle = Config { probe_interval: Some(6 * HOUR..=6 * HOUR), ..without_age() };
    let activities = [Input::HandedOver, Input::Sending, Input::Arrived { connection: FIRST }];
    for activity in activities {
        let mut rig = Rig::live(idle.clone());
        rig.pass(29 * MINUTE);
        rig.give(activity.clone());
        rig.pass(SECOND);
        assert_eq!(rig.said(), [""; 0]);
        rig.pass(31 * MINUTE);
        rig.give(activity);
        rig.pass(SECOND);
        assert_eq!(rig.said(), ["probe idle ok"]);
    }
}

#[test]
fn an_operator_is_told_how_it_went() {
    let mut rig = Rig::live(without_age());
    rig.give(Input::Probe);
    rig.pass(SECOND);
    assert_eq!(rig.said(), ["probe asked ok"]);
    // One that is under way anyway is as good.
    rig.pass(rig.keeper.next_probe().unwrap() - rig.now);
    rig.give(Input::Probe);
    rig.pass(SECOND);
    assert_eq!(rig.said(), ["probe asked ok"]);
    rig.give(Input::Probe);
    rig.give(Input::Stop);
    assert_eq!(rig.said(), ["probe asked not made", "close 1 for now", "off: stopped"]);
    rig.give(Input::Probe);
    assert_eq!(rig.said(), ["probe asked the link is off"]);
}

#[test]
fn an_operator_is_told_why_there_is_no_round_trip() {
    for (config, why) in
        [(without_age(), "there is no connection"), (without_probe(), "the link has no probe")]
    {
        let mut rig = Rig::live(config);
        rig.service.opens = Opens::Never;
        rig.closed(1, Verdict::Again);
        rig.said();
        rig.give(Input::Probe);
        let said = rig.said();
        assert!(said[0].starts_with(&format!("probe asked {why}")), "{said:?}");
    }
}

#[test]
fn a_clock_that_jumps_is_no_storm() {
    let mut rig = Rig::live(without_age());
    rig.pass(5 * SECOND);
    rig.now += 8 * HOUR;
    rig.give(Input::Timeout);
    rig.pass(20 * SECOND);
    assert_eq!(rig.said(), ["probe interval ok"]);
    rig.now += 8 * HOUR;
    rig.service.dead.insert(1);
    let took = {
        rig.give(Input::Timeout);
        rig.pass_until("use 2")
    };
    assert!(took <= 11 * SECOND, "{took:?}");
}

#[test]
fn a_service_that_the_bot_fails_is_restarted_now_and_then() {
    let mut rig = Rig::live(Config { service_after: Some(3), ..without_age() });
    let unhandled = |rig: &mut Rig, times: u32| (0..times).for_each(|_| rig.give(Input::Unhandled));
    unhandled(&mut rig, 2);
    rig.give(Input::Handled);
    assert_eq!(rig.keeper.levels()[&Level::Handled], Some(rig.now));
    unhandled(&mut rig, 2);
    assert_eq!(rig.said(), [""; 0]);
    unhandled(&mut rig, 1);
    assert_eq!(rig.said(), ["rung service", "restart service"]);
    unhandled(&mut rig, 20);
    assert_eq!(rig.said(), [""; 0]);
    rig.pass(5 * MINUTE);
    unhandled(&mut rig, 1);
    assert_eq!(rig.said(), ["rung service", "restart service"]);
}

fn without_probe() -> Config {
    Config { probe_interval: None, ..without_age() }
}

/// One whose service can be asked beside the connection.
fn looking() -> Config {
    Config { look_interval: Some(MINUTE), ..without_age() }
}

/// One whose connections do not get old while a test looks at something else.
pub(super) fn without_age() -> Config {
    Config { max_age: 1000 * HOUR, ..Config::default() }
}
