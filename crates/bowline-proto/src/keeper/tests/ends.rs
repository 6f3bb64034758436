//! Connections that end, and those that take their place.

use std::time::Duration;

use super::{
    super::{Config, ConnectionId, Input, Level, State, Verdict},
    liveness::without_age,
    rig::{AWAY, Opens, Rig},
};
use crate::Time;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn an_old_connection_is_closed_after_the_new_one_was_proved() {
    let mut rig = Rig::live(Config::default());
    let renew_at = rig.keeper.renew_at().unwrap();
    assert!((9 * HOUR..=12 * HOUR + SECOND).contains(&(renew_at - Time::ZERO)));
    rig.pass(renew_at - rig.now);
    rig.said();
    rig.pass(2 * AWAY);
    // Both are open, and the old one is in use.
    let (in_use, _, overlapping) = rig.keeper.connection().unwrap();
    assert_eq!((in_use, overlapping, rig.open.len()), (ConnectionId(1), true, 2));
    rig.pass(AWAY);
    // The old one may have been cut off since it was proved last.
    let said = rig.said();
    assert!(said[2].starts_with("catch up since "), "{said:?}");
    assert_eq!([&said[0], &said[1], &said[3]], ["open 2", "probe opened ok", "use 2"]);
    assert!(rig.keeper.connection().unwrap().2);
    rig.pass(2 * SECOND);
    assert_eq!(rig.said(), ["close 1", "renewed age"]);
    assert!(!rig.keeper.connection().unwrap().2);
    assert!(rig.keeper.renew_at().unwrap() >= renew_at + 9 * HOUR);
}

#[test]
fn links_that_began_together_are_not_renewed_together() {
    let ages = |seed| {
        let mut keeper = super::super::Keeper::new(Config::default(), seed);
        let mut give = |input| {
            keeper.handle_input(Time::ZERO, input);
            while keeper.poll_output().is_some() {}
        };
        give(Input::Start);
        give(Input::Slot { at: Time::ZERO });
        give(Input::Opened { connection: ConnectionId(1) });
        keeper.renew_at().unwrap().as_micros() / 1_000_000
    };
    let mut drawn: Vec<_> = (0..100).map(ages).collect();
    drawn.sort_unstable();
    assert!(drawn[0] < 10 * 3600 && drawn[99] > 11 * 3600, "{drawn:?}");
}

#[test]
fn one_that_is_not_proved_is_closed_and_the_old_one_stays() {
    let mut rig = Rig::live(without_age());
    rig.service.unrouted.insert(2);
    rig.give(Input::Draining { connection: ConnectionId(1) });
    rig.pass_until("not renewed drain");
    let expected = [
        "open 2",
        "probe opened lost",
        "probe doubt lost",
        "close 2",
        "not renewed drain: nothing is routed to the connection",
    ];
    assert_eq!(rig.said(), expected);
    assert_eq!(
        (rig.keeper.state(), rig.keeper.connection().unwrap().0),
        (State::Live, ConnectionId(1))
    );
    rig.pass(5 * SECOND);
    assert_eq!(rig.said()[..2], ["rung retry", "open 3 elsewhere"]);
}

#[test]
fn a_renewal_that_can_wait_waits_for_long_after_it_failed() {
    let mut rig = Rig::live(Config::default());
    rig.service.opens = Opens::No(Verdict::Again, None);
    rig.pass(12 * HOUR);
    assert_eq!(rig.keeper.state(), State::Live);
    let pauses: Vec<_> = rig.opens.windows(2).skip(1).map(|pair| pair[1] - pair[0]).collect();
    assert!(!pauses.is_empty());
    assert!(pauses.iter().all(|pause| (5 * MINUTE..=11 * MINUTE).contains(pause)), "{pauses:?}");
}

#[test]
fn what_an_operator_wants_is_tried_once() {
    let mut rig = Rig::live(without_age());
    rig.service.opens = Opens::No(Verdict::Again, None);
    rig.give(Input::Renew);
    rig.pass(HOUR);
    assert_eq!(rig.count("not renewed asked: no"), 1);
    assert_eq!(rig.opens.len(), 2);
    rig.said();
    rig.service.opens = Opens::Yes;
    rig.give(Input::Renew);
    rig.pass(2 * SECOND);
    let said = rig.said();
    assert_eq!(said.last().unwrap(), "renewed asked");
    assert_eq!(said[said.len() - 3..][..2], ["use 3", "close 1"]);
    rig.give(Input::Stop);
    rig.said();
    rig.give(Input::Renew);
    assert_eq!(rig.said(), ["not renewed asked: the link is off"]);
}

#[test]
fn what_cannot_be_probed_takes_the_place_only_of_something_worse() {
    let mut rig = Rig::live(without_age());
    rig.service.posts = false;
    rig.give(Input::Renew);
    rig.pass(MINUTE);
    assert_eq!(rig.count("close 2"), 1);
    assert_eq!(rig.count("not renewed asked: it could not be probed"), 1);
    rig.said();
    rig.give(Input::Draining { connection: ConnectionId(1) });
    rig.pass(MINUTE);
    assert_eq!((rig.count("use 3"), rig.count("close 1")), (1, 1));
    assert_eq!(rig.keeper.state(), State::Proving);
    rig.said();
    rig.service.posts = true;
    rig.pass(11 * MINUTE);
    let said = rig.said();
    assert_eq!(said[2..4], ["renewed drain", "live: proved"]);
}

#[test]
fn a_lost_connection_is_replaced_and_what_was_missed_is_asked_for() {
    let mut rig = Rig::live(without_age());
    rig.pass(5 * MINUTE);
    rig.closed(1, Verdict::Again);
    assert_eq!(rig.said(), ["waiting: it ended"]);
    assert!(rig.keeper.next_attempt().unwrap() <= rig.now + SECOND);
    rig.pass(2 * SECOND);
    let expected = [
        "open 2",
        "connecting: lost",
        "use 2",
        "proving: open",
        "probe opened ok",
        "catch up since 0.040000s",
        "renewed lost",
        "live: proved",
    ];
    assert_eq!(rig.said(), expected);
}

#[test]
fn the_loss_of_the_new_connection_is_noticed_after_the_old_one_was_closed() {
    let mut rig = Rig::live(without_age());
    rig.pass(5 * MINUTE);
    rig.give(Input::Draining { connection: ConnectionId(1) });
    rig.pass_until("use 2");
    rig.closed(1, Verdict::Again);
    rig.pass(MINUTE);
    rig.said();
    // The end of the old one may be told once more.
    rig.closed(1, Verdict::Replaced);
    rig.pass(MINUTE);
    assert_eq!((rig.said(), rig.keeper.state()), (vec![], State::Live));
    rig.closed(2, Verdict::Again);
    rig.pass_until("live");
    assert_eq!(rig.keeper.connection().unwrap().0, ConnectionId(3));
}

#[test]
fn there_are_never_three() {
    let mut rig = Rig::live(without_age());
    rig.pass(5 * MINUTE);
    rig.give(Input::Renew);
    rig.pass_until("use 2");
    rig.give(Input::Renew);
    rig.pass(500 * Duration::from_millis(1));
    assert_eq!(rig.open, [1, 2].into());
    rig.pass_until("open 3");
    assert_eq!((rig.count("close 1"), rig.open.len()), (1, 2));
}

#[test]
fn the_old_connection_goes_on_if_the_new_one_is_lost_beside_it() {
    let mut rig = Rig::live(without_age());
    rig.pass(5 * MINUTE);
    rig.give(Input::Draining { connection: ConnectionId(1) });
    rig.pass_until("use 2");
    rig.said();
    rig.closed(2, Verdict::Again);
    assert_eq!(rig.said(), ["not renewed drain: it ended", "use 1"]);
    assert_eq!(rig.keeper.state(), State::Live);
    rig.pass_until("renewed drain");
    assert_eq!(rig.said()[..2], ["rung retry", "open 3"]);
    assert_eq!(rig.open, [3].into());
}

#[test]
fn a_round_trip_that_was_cut_short_is_told_of_once_and_made_anew() {
    let mut rig = Rig::live(without_age());
    rig.service.unrouted.insert(1);
    rig.give(Input::Renew);
    rig.give(Input::Probe);
    rig.pass_until("use 2");
    rig.service.unrouted.clear();
    rig.closed(2, Verdict::Again);
    rig.pass(MINUTE);
    let asked: Vec<_> =
        rig.said().into_iter().filter(|line| line.starts_with("probe asked")).collect();
    assert_eq!(asked, ["probe asked not made", "probe asked ok"]);
}

#[test]
fn one_that_ends_before_it_is_proved_leaves_nothing_behind() {
    let mut rig = Rig::live(without_age());
    rig.service.unrouted.insert(2);
    rig.give(Input::Draining { connection: ConnectionId(1) });
    rig.pass_until("open 2");
    rig.pass(SECOND);
    rig.said();
    rig.closed(2, Verdict::Again);
    assert_eq!(rig.said(), ["probe opened not made", "close 2", "not renewed drain: it ended"]);
    assert_eq!(rig.keeper.state(), State::Live);
}

#[test]
fn a_connection_that_is_to_end_before_it_is_used_is_renewed_as_well() {
    let mut rig = Rig::live(without_age());
    rig.give(Input::Renew);
    rig.pass_until("open 2");
    rig.pass(AWAY);
    rig.give(Input::Draining { connection: ConnectionId(2) });
    rig.pass_until("renewed drain");
    assert_eq!((rig.open.clone(), rig.count("renewed asked")), ([3].into(), 1));
}

#[test]
fn one_that_we_replace_ourselves_was_not_replaced_by_another_process() {
    for until in ["open 2", "probe opened"] {
        let mut rig = Rig::live(without_age());
        rig.pass(5 * MINUTE);
        rig.service.unrouted.insert(2);
        rig.give(Input::Renew);
        rig.pass_until("open 2");
        if until != "open 2" {
            rig.pass(SECOND);
        }
        rig.closed(1, Verdict::Replaced);
        rig.service.unrouted.clear();
        rig.pass(30 * SECOND);
        assert_eq!(rig.count("replaced"), 0);
        assert_eq!(rig.keeper.state(), State::Live);
    }
}

#[test]
fn who_was_sent_away_stays_away_for_long() {
    let verdicts = [
        (Verdict::Replaced, State::Replaced),
        (Verdict::Unauthorized, State::Refused),
        (Verdict::Refused, State::Refused),
    ];
    for (verdict, state) in verdicts {
        let mut rig = Rig::live(without_age());
        rig.closed(1, verdict);
        assert_eq!(rig.keeper.state(), state);
        let pause = rig.keeper.next_attempt().unwrap() - rig.now;
        assert!((5 * MINUTE..=10 * MINUTE).contains(&pause), "{pause:?}");
        rig.service.opens = Opens::No(verdict, None);
        rig.pass(pause + SECOND);
        assert_eq!((rig.opens.len(), rig.keeper.state()), (2, state));
        rig.pass(5 * MINUTE - 2 * SECOND);
        assert_eq!(rig.opens.len(), 2);
        // A person knows better.
        rig.service.opens = Opens::Yes;
        rig.give(Input::Renew);
        rig.pass(SECOND);
        assert_eq!(rig.keeper.state(), State::Live);
    }
}

#[test]
fn a_service_that_says_when_is_asked_then() {
    let mut rig = Rig::new(without_age());
    rig.service.opens = Opens::No(Verdict::Again, Some(7 * MINUTE));
    rig.give(Input::Start);
    rig.pass(14 * MINUTE + SECOND);
    assert_eq!(rig.opens.len(), 3);
    rig.service.opens = Opens::No(Verdict::Again, Some(24 * HOUR));
    rig.pass(8 * MINUTE);
    assert!(rig.keeper.next_attempt().unwrap() <= rig.now + HOUR);
}

#[test]
fn what_a_service_asked_for_outlives_the_attempt() {
    let mut rig = Rig::live(without_age());
    rig.service.opens = Opens::No(Verdict::Again, Some(7 * MINUTE));
    rig.give(Input::Renew);
    rig.pass(SECOND);
    let refused = rig.now;
    // Nobody tries again for the person; and when it is needed, it waits.
    rig.closed(1, Verdict::Again);
    let next = rig.keeper.next_attempt().unwrap();
    assert!(next >= refused + (7 * MINUTE - SECOND), "{next:?}");
    rig.give(Input::Renew);
    assert!(rig.keeper.next_attempt().is_none_or(|at| at <= rig.now + AWAY));
}

#[test]
fn pauses_grow_to_a_minute_and_rungs_are_climbed() {
    let mut rig = Rig::new(without_age());
    rig.service.opens = Opens::No(Verdict::Again, None);
    rig.give(Input::Start);
    rig.pass(2 * HOUR);
    let pauses: Vec<_> = rig.opens.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (n, pause) in pauses.iter().enumerate() {
        let longest = (SECOND * 2_u32.pow(n.min(6) as u32)).min(MINUTE);
        assert!(*pause <= longest + 4 * AWAY, "{n}: {pause:?}");
    }
    let late = &pauses[10..];
    let mean = late.iter().sum::<Duration>() / late.len() as u32;
    assert!((20 * SECOND..40 * SECOND).contains(&mean), "{mean:?}");
    let said = rig.said();
    let at = |line: &str| said.iter().position(|it| it == line).unwrap();
    assert!(at("open 2") < at("rung address") && at("rung address") < at("open 3 elsewhere"));
    assert_eq!(at("rung pool") + 1, at("open 5 elsewhere fresh pool"));
    assert_eq!(said.iter().filter(|line| line.starts_with("rung")).count(), 3);
    rig.service.opens = Opens::Yes;
    rig.pass(MINUTE);
    rig.pass(2 * MINUTE);
    rig.closed(rig.keeper.connection().unwrap().0.0, Verdict::Again);
    rig.said();
    rig.pass(2 * SECOND);
    assert!(rig.said().iter().any(|line| line.starts_with("open") && !line.contains("elsewhere")));
}

#[test]
fn a_connection_that_never_lasts_is_tried_less_and_less() {
    let mut rig = Rig::live(without_age());
    for _ in 0..200 {
        if let Some((ConnectionId(id), ..)) = rig.keeper.connection() {
            rig.closed(id, Verdict::Again);
        }
        rig.pass(10 * SECOND);
    }
    // In 2,000 seconds: pauses of half a minute, and up to ten seconds of life.
    assert!((30..80).contains(&rig.opens.len()), "{}", rig.opens.len());
    assert_eq!(rig.count("rung pool"), 1);
}

#[test]
fn an_attempt_that_hangs_is_given_up() {
    let mut rig = Rig::new(without_age());
    rig.service.opens = Opens::Never;
    rig.give(Input::Start);
    let took = rig.pass_until("waiting: not open");
    assert!((30 * SECOND..31 * SECOND).contains(&took), "{took:?}");
    assert_eq!(rig.said()[3..5], ["close 1", "not renewed first: not open after 30s"]);
    // It comes after all, and nobody wants it.
    rig.service.opens = Opens::Yes;
    rig.give(Input::Opened { connection: ConnectionId(1) });
    assert_eq!(rig.keeper.connection(), None);
}

#[test]
fn one_that_is_deaf_from_the_beginning_is_not_kept() {
    let mut rig = Rig::new(without_age());
    rig.service.deaf = true;
    rig.give(Input::Start);
    rig.pass(2 * MINUTE);
    assert_eq!(rig.count("live"), 0);
    assert!(rig.count("close") >= 2);
    assert!(rig.open.len() <= 1);
    rig.service.deaf = false;
    rig.pass_until("live");
}

#[test]
fn what_was_given_up_says_nothing_any_more() {
    let mut rig = Rig::live(without_age());
    rig.give(Input::Renew);
    rig.pass(3 * SECOND);
    rig.said();
    let connection = ConnectionId(1);
    rig.give(Input::Draining { connection });
    rig.give(Input::Heard { connection, level: Level::Ack });
    rig.give(Input::Arrived { connection });
    rig.give(Input::Opened { connection });
    rig.closed(1, Verdict::Unauthorized);
    rig.give(Input::Slot { at: rig.now });
    assert_eq!(rig.said(), [""; 0]);
    assert_eq!(rig.keeper.connection().unwrap().0, ConnectionId(2));
}

#[test]
fn a_stop_closes_everything_and_a_start_catches_up() {
    let mut rig = Rig::live(without_age());
    rig.give(Input::Renew);
    rig.pass_until("open 2");
    rig.said();
    rig.give(Input::Stop);
    assert_eq!(rig.said(), ["close 2", "close 1 for now", "off: stopped"]);
    assert_eq!((rig.keeper.deadline(), rig.keeper.next_attempt()), (None, None));
    rig.give(Input::Opened { connection: ConnectionId(2) });
    rig.pass(HOUR);
    assert_eq!(rig.said(), [""; 0]);
    rig.give(Input::Start);
    rig.give(Input::Start);
    rig.pass(SECOND);
    assert_eq!(rig.count("catch up since 0.040000s"), 1);
    assert_eq!(rig.keeper.state(), State::Live);
}

#[test]
fn a_budget_that_says_nothing_is_asked_again() {
    let mut keeper = super::super::Keeper::new(without_age(), 1);
    let mut asked = 0;
    let mut now = Time::ZERO;
    keeper.handle_input(now, Input::Start);
    for _ in 0..5 {
        while let Some(output) = keeper.poll_output() {
            asked += u32::from(output == super::super::Output::Reserve);
        }
        now = keeper.deadline().unwrap().0;
        keeper.handle_input(now, Input::Timeout);
    }
    assert_eq!(asked, 5);
}
