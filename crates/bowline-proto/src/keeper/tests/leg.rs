//! Which request goes on which pooled connection.

use std::{collections::BTreeMap, time::Duration};

use proptest::{collection::vec, prelude::*};

use super::super::{Answered, Leg, LegConfig, LegId, Retry, Safety, Take};
use crate::Time;

const API: &str = "https://api.example";
const OTHER: &str = "https://other.example";

#[test]
fn a_safe_request_takes_a_pooled_connection_and_may_not_wait_long_there() {
    let mut leg = Leg::new(LegConfig::default());
    let first = used(&mut leg, at(0), API);
    assert_eq!(leg.take(at(10), OTHER, Safety::Safe), Take::Fresh { connection: LegId(2) });
    let head_within = Some(Duration::from_secs(5));
    assert_eq!(
        leg.take(at(59), API, Safety::Safe),
        Take::Pooled { connection: first, head_within }
    );
    // One request at a time.
    assert_eq!(leg.take(at(59), API, Safety::Safe), Take::Fresh { connection: LegId(3) });
}

#[test]
fn an_unsafe_one_goes_only_where_an_answer_has_just_come_from() {
    let mut leg = Leg::new(LegConfig::default());
    let first = used(&mut leg, at(0), API);
    assert_eq!(
        leg.take(at(1), API, Safety::Unsafe),
        Take::Pooled { connection: first, head_within: None }
    );
    leg.give_back(at(1), first);
    assert_eq!(leg.take(at(3), API, Safety::Unsafe), Take::Fresh { connection: LegId(2) });
    // The pooled one is there still.
    assert_eq!(leg.idle(), 1);
}

#[test]
fn a_minute_of_idleness_is_the_end() {
    let mut leg = Leg::new(LegConfig::default());
    let first = used(&mut leg, at(0), API);
    let second = used(&mut leg, at(1), OTHER);
    assert_eq!(leg.deadline(), Some(at(60)));
    leg.expire(at(60));
    assert_eq!((leg.poll_close(), leg.poll_close()), (Some(first), None));
    assert_eq!(leg.deadline(), Some(at(61)));
    // Nobody needs to have asked.
    assert!(matches!(leg.take(at(61), OTHER, Safety::Safe), Take::Fresh { .. }));
    assert_eq!((leg.poll_close(), leg.deadline()), (Some(second), None));
}

#[test]
fn a_dead_pool_costs_one_retry_of_one_request() {
    let mut leg = Leg::new(LegConfig::default());
    let ids: Vec<_> = [API, API, OTHER]
        .into_iter()
        .map(|origin| leg_id(leg.take(at(0), origin, Safety::Safe)))
        .collect();
    ids.iter().for_each(|id| leg.give_back(at(0), *id));
    let young = used(&mut leg, at(20), API);
    // The youngest is tried first; the elder ones need not be tried after that, and not by others either.
    assert_eq!(leg_id(leg.take(at(30), API, Safety::Safe)), young);
    let retry = leg.failed(at(35), young, Answered::Not);
    assert_eq!(retry, Retry::Fresh { connection: LegId(5) });
    let closed: Vec<_> = std::iter::from_fn(|| leg.poll_close()).collect();
    assert_eq!(closed, ids);
    // Only once.
    assert_eq!(leg.failed(at(40), LegId(5), Answered::Not), Retry::No);
    assert_eq!(leg.idle(), 0);
}

#[test]
fn younger_connections_outlive_the_failure_of_an_older_one() {
    let mut leg = Leg::new(LegConfig::default());
    let old = used(&mut leg, at(0), OTHER);
    let young = used(&mut leg, at(20), API);
    assert_eq!(leg_id(leg.take(at(30), OTHER, Safety::Safe)), old);
    assert!(matches!(leg.failed(at(30), old, Answered::Unsent), Retry::Fresh { .. }));
    assert_eq!((leg.poll_close(), leg.idle()), (None, 1));
    assert_eq!(leg_id(leg.take(at(30), API, Safety::Safe)), young);
}

#[test]
fn those_that_were_idle_as_long_go_with_one_that_failed() {
    let mut leg = Leg::new(LegConfig::default());
    let ids = [API, OTHER].map(|origin| leg_id(leg.take(at(0), origin, Safety::Safe)));
    ids.iter().for_each(|id| leg.give_back(at(0), *id));
    leg.take(at(30), API, Safety::Safe);
    assert!(matches!(leg.failed(at(30), ids[0], Answered::Unsent), Retry::Fresh { .. }));
    assert_eq!((leg.poll_close(), leg.idle()), (Some(ids[1]), 0));
}

#[test]
fn what_must_not_be_sent_twice_is_sent_again_only_if_nothing_of_it_was() {
    for (answered, again) in
        [(Answered::Unsent, true), (Answered::Not, false), (Answered::Begun, false)]
    {
        let mut leg = Leg::new(LegConfig::default());
        let pooled = used(&mut leg, at(0), API);
        assert_eq!(leg_id(leg.take(at(1), API, Safety::Unsafe)), pooled);
        assert_eq!(matches!(leg.failed(at(1), pooled, answered), Retry::Fresh { .. }), again);
    }
    // And nothing is, whose answer has begun.
    let mut leg = Leg::new(LegConfig::default());
    let pooled = used(&mut leg, at(0), API);
    leg.take(at(9), API, Safety::Safe);
    assert_eq!(leg.failed(at(9), pooled, Answered::Begun), Retry::No);
}

#[test]
fn a_new_connection_that_fails_says_that_the_far_side_is_not_there() {
    let mut leg = Leg::new(LegConfig::default());
    let fresh = leg_id(leg.take(at(0), API, Safety::Safe));
    assert_eq!(leg.failed(at(0), fresh, Answered::Unsent), Retry::No);
}

#[test]
fn a_fresh_pool_keeps_nothing() {
    let mut leg = Leg::new(LegConfig::default());
    let idle = used(&mut leg, at(0), API);
    let busy = leg_id(leg.take(at(0), OTHER, Safety::Safe));
    leg.fresh_pool();
    assert_eq!(leg.poll_close(), Some(idle));
    assert!(matches!(leg.take(at(0), API, Safety::Safe), Take::Fresh { .. }));
    leg.give_back(at(1), busy);
    assert_eq!((leg.poll_close(), leg.idle()), (Some(busy), 0));
}

#[test]
fn of_too_many_the_idlest_goes() {
    let mut leg = Leg::new(LegConfig { idle_connections_max: 2, ..LegConfig::default() });
    let ids: Vec<_> = (0..3).map(|_| leg_id(leg.take(at(0), API, Safety::Safe))).collect();
    ids.iter().for_each(|id| leg.give_back(at(1), *id));
    assert_eq!((leg.poll_close(), leg.poll_close(), leg.idle()), (Some(ids[0]), None, 2));
    leg.ended(ids[2]);
    assert_eq!(leg_id(leg.take(at(1), API, Safety::Safe)), ids[1]);
}

/// Something that happens to a pool.
#[derive(Debug, Clone)]
enum Step {
    Take(bool, bool),
    GiveBack(usize),
    Failed(usize, Answered),
    Ended(usize),
    Fresh,
    Pass(u64),
}

proptest! {
    #[test]
    fn each_connection_has_one_owner(steps in vec(step(), 1..300)) {
        let mut leg = Leg::new(LegConfig::default());
        let mut now = at(0);
        // Connections with a request, and of what kind; when the others were given back.
        let mut busy: BTreeMap<LegId, Safety> = BTreeMap::new();
        let mut idle: BTreeMap<LegId, Time> = BTreeMap::new();
        let mut last = 0;
        for step in steps {
            let nth = |n: usize| busy.keys().nth(n % busy.len().max(1)).copied();
            match step {
                Step::Take(safe, api) => {
                    let safety = if safe { Safety::Safe } else { Safety::Unsafe };
                    let connection = match leg.take(now, if api { API } else { OTHER }, safety) {
                        Take::Fresh { connection } => {
                            last += 1;
                            prop_assert_eq!(connection, LegId(last));
                            connection
                        }
                        Take::Pooled { connection, head_within } => {
                            let since = idle.remove(&connection);
                            let Some(since) = since else { return Err(TestCaseError::fail("nobody has it")) };
                            prop_assert!(now - since < Duration::from_secs(60));
                            prop_assert!(safe || now - since <= Duration::from_secs(1));
                            prop_assert_eq!(head_within.is_some(), safe);
                            connection
                        }
                    };
                    prop_assert!(busy.insert(connection, safety).is_none());
                }
                Step::GiveBack(n) => {
                    if let Some(id) = nth(n) {
                        busy.remove(&id);
                        idle.insert(id, now);
                        leg.give_back(now, id);
                    }
                }
                Step::Failed(n, answered) => {
                    if let Some(id) = nth(n) {
                        let safety = busy.remove(&id);
                        if let Retry::Fresh { connection } = leg.failed(now, id, answered) {
                            last += 1;
                            prop_assert_eq!(connection, LegId(last));
                            prop_assert!(safety == Some(Safety::Safe) || answered == Answered::Unsent);
                            busy.insert(connection, Safety::Safe);
                            // It fails as well, and that is the end of it.
                            busy.remove(&connection);
                            prop_assert_eq!(leg.failed(now, connection, Answered::Unsent), Retry::No);
                        }
                    }
                }
                Step::Ended(n) => {
                    if let Some(id) = nth(n) {
                        busy.remove(&id);
                        leg.ended(id);
                    }
                }
                Step::Fresh => leg.fresh_pool(),
                Step::Pass(seconds) => {
                    now += Duration::from_secs(seconds);
                    leg.expire(now);
                }
            }
            while let Some(id) = leg.poll_close() {
                prop_assert!(idle.remove(&id).is_some(), "{id:?} is not idle");
            }
            prop_assert_eq!(leg.idle(), idle.len());
            prop_assert!(idle.len() <= 16);
            prop_assert_eq!(leg.deadline(), idle.values().min().map(|since| *since + Duration::from_secs(60)));
            prop_assert!(leg.deadline().is_none_or(|at| at > now));
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let answered = proptest::sample::select(vec![Answered::Unsent, Answered::Not, Answered::Begun]);
    prop_oneof![
        8 => (any::<bool>(), any::<bool>()).prop_map(|(safe, api)| Step::Take(safe, api)),
        8 => any::<usize>().prop_map(Step::GiveBack),
        2 => (any::<usize>(), answered).prop_map(|(n, answered)| Step::Failed(n, answered)),
        1 => any::<usize>().prop_map(Step::Ended),
        1 => Just(Step::Fresh),
        4 => (0..40_u64).prop_map(Step::Pass),
    ]
}

/// A connection that has answered a request just now.
fn used(leg: &mut Leg, now: Time, origin: &str) -> LegId {
    let id = leg_id(leg.take(now, origin, Safety::Unsafe));
    leg.give_back(now, id);
    id
}

fn leg_id(take: Take) -> LegId {
    match take {
        Take::Pooled { connection, .. } | Take::Fresh { connection } => connection,
    }
}

fn at(seconds: u64) -> Time {
    Time::from_micros(seconds * 1_000_000)
}
