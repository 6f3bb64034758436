//! Requests step by step: who is asked, when, and until when.

use proptest::prelude::*;

use super::{super::*, *};
use crate::wire::{Blame, FaultKind, Timer};

struct World {
    health: Health,
    budget: Budget,
    policy: Arc<Policy>,
    targets: Vec<TargetId>,
    now: Time,
    random: u64,
}

impl World {
    fn new(providers: &[&str]) -> Self {
        let targets: Vec<_> = providers.iter().map(|name| TargetId::new(*name, "m")).collect();
        Self {
            health: Health::new(BreakerPolicy::default(), targets.clone()),
            budget: Budget::new(20, 10),
            policy: Arc::default(),
            targets,
            now: Time::from_micros(1_000_000_000),
            random: 0,
        }
    }

    fn request(&self) -> Chain {
        self.request_with(None)
    }

    fn request_with(&self, client_deadline: Option<Duration>) -> Chain {
        Chain::new(&self.targets, &self.policy, self.now, client_deadline)
    }

    fn next(&mut self, chain: &mut Chain) -> Step {
        chain.next(self.now, &mut self.health, &mut self.budget, self.random)
    }

    /// The next step, in short: `a First 1 +300` is asked in an attempt that may take 300 s.
    fn step(&mut self, chain: &mut Chain) -> String {
        let seconds = |until: Time| until.since(self.now).as_millis() as f64 / 1_000.0;
        match chain.next(self.now, &mut self.health, &mut self.budget, self.random) {
            Step::Attempt { target, number, until, reason, .. } => {
                format!("{} {reason:?} {number} +{}", target.provider(), seconds(until))
            }
            Step::Wait { until } => format!("wait {}", seconds(until)),
            Step::Exhausted(Exhausted { why, retry_after: None }) => format!("{why:?}"),
            Step::Exhausted(Exhausted { why, retry_after: Some(after) }) => {
                format!("{why:?}, again in {}", after.as_millis() as f64 / 1_000.0)
            }
        }
    }

    fn fail(&mut self, chain: &mut Chain, fault: &Fault) {
        chain.on_fault(self.now, fault, &mut self.health);
    }

    fn wait_ms(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    /// Opens the breaker of a target.
    fn open(&mut self, at: usize) {
        let target = self.targets[at].clone();
        (0..5).for_each(|_| self.health.on_fault(self.now, &target, self.now, &error()));
    }
}

fn fault(kind: FaultKind, retry: Retry, blames: Blame) -> Fault {
    Fault { retry, blames, after: None, park: None, ..Fault::new(kind, "words") }
}

fn error() -> Fault {
    fault(FaultKind::ServerError, Retry::Same, Blame::Provider)
}

fn timeout() -> Fault {
    fault(FaultKind::Timeout(Timer::FirstContent), Retry::Next, Blame::Provider)
}

fn limited(seconds: u64) -> Fault {
    let after = Some(Duration::from_secs(seconds));
    Fault { after, ..fault(FaultKind::RateLimited, Retry::Same, Blame::Account) }
}

#[test]
fn a_timeout_falls_over_and_the_next_has_time_left() {
    let mut world = World::new(&["a", "b", "c"]);
    let mut chain = world.request();
    assert_eq!(world.step(&mut chain), "a First 1 +200");
    world.wait_ms(75_000);
    world.fail(&mut chain, &timeout());
    assert_eq!(world.step(&mut chain), "b Fallback 2 +262.5");
    world.wait_ms(262_500);
    world.fail(&mut chain, &timeout());
    assert_eq!(world.step(&mut chain), "c Fallback 3 +262.5");
    world.fail(&mut chain, &timeout());
    assert_eq!(world.step(&mut chain), "Failed");
}

#[test]
fn an_error_is_tried_again_after_a_random_while_and_then_falls_over() {
    let mut world = World::new(&["a", "b"]);
    let mut chain = world.request();
    world.random = 123_000;
    assert_eq!(world.step(&mut chain), "a First 1 +300");
    world.fail(&mut chain, &error());
    assert_eq!(world.step(&mut chain), "wait 0.123");
    // Who wakes early waits on, and does not pay again.
    world.wait_ms(100);
    assert_eq!(world.step(&mut chain), "wait 0.023");
    assert_eq!(world.budget.left(world.now), 9);
    world.wait_ms(23);
    assert!(world.step(&mut chain).starts_with("a Retry 2 "));
    world.fail(&mut chain, &error());
    assert!(world.step(&mut chain).starts_with("b Fallback 3 "));
    chain.on_ok(world.now, &mut world.health);
}

#[test]
fn the_wait_is_anything_up_to_a_bound_that_doubles() {
    let policy = Policy { retries: 9, ..Policy::default() };
    let mut longest = Vec::new();
    for random in [249_999, 499_999, 999_999, 1_999_999, 3_999_999, 7_999_999, 7_999_999, 8_000_001]
    {
        let mut world = World::new(&["a"]);
        world.policy = Arc::new(policy.clone());
        world.health = Health::new(BreakerPolicy { failures: 99, ..policy.breaker.clone() }, []);
        let mut chain = world.request();
        world.next(&mut chain);
        for _ in 0..longest.len() {
            world.fail(&mut chain, &error());
            world.next(&mut chain);
        }
        world.fail(&mut chain, &error());
        world.random = random;
        match world.next(&mut chain) {
            Step::Wait { until } => longest.push(until.since(world.now).as_micros()),
            // Nothing at all is a wait, too.
            Step::Attempt { .. } => longest.push(0),
            Step::Exhausted(exhausted) => panic!("{exhausted:?}"),
        }
    }
    assert_eq!(longest, [249_999, 499_999, 999_999, 1_999_999, 3_999_999, 7_999_999, 7_999_999, 0]);
}

#[test]
fn a_short_retry_after_is_waited_for_a_long_one_falls_over() {
    let mut world = World::new(&["a", "b"]);
    let mut chain = world.request();
    world.next(&mut chain);
    world.fail(&mut chain, &limited(1));
    assert_eq!(world.step(&mut chain), "wait 1");
    world.wait_ms(1_000);
    assert!(world.step(&mut chain).starts_with("a Retry 2"));
    world.fail(&mut chain, &limited(1));
    assert!(world.step(&mut chain).starts_with("b Fallback 3"));

    let mut world = World::new(&["a", "b"]);
    let mut chain = world.request();
    world.next(&mut chain);
    world.fail(&mut chain, &limited(3));
    assert_eq!(world.step(&mut chain), "b Fallback 2 +600");
    // And whoever comes next leaves it alone too.
    let mut next = world.request();
    assert_eq!(world.step(&mut next), "b Skipped 1 +600");
}

#[test]
fn a_short_one_falls_over_too_where_little_time_is_left() {
    let mut world = World::new(&["a", "b"]);
    let mut chain = world.request_with(Some(Duration::from_secs(4)));
    world.next(&mut chain);
    world.fail(&mut chain, &limited(1));
    assert_eq!(world.step(&mut chain), "b Fallback 2 +3.8");
}

#[test]
fn who_has_nobody_else_waits_as_long_as_its_deadline_and_good_sense_allow() {
    let alone = |after, client: Option<u64>| {
        let mut world = World::new(&["a"]);
        let mut chain = world.request_with(client.map(Duration::from_secs));
        world.next(&mut chain);
        world.fail(&mut chain, &limited(after));
        world.step(&mut chain)
    };
    assert_eq!(alone(20, None), "wait 20");
    assert_eq!(alone(20, Some(15)), "Deadline, again in 20");
    assert_eq!(alone(90, None), "Failed, again in 90");
}

#[test]
fn when_all_have_failed_the_first_that_is_ready_is_asked_again() {
    let mut world = World::new(&["a", "b"]);
    let mut chain = world.request();
    world.next(&mut chain);
    world.fail(&mut chain, &limited(10));
    world.next(&mut chain);
    world.fail(&mut chain, &limited(5));
    assert_eq!(world.step(&mut chain), "wait 5");
    world.wait_ms(5_000);
    assert!(world.step(&mut chain).starts_with("b Retry 3 "));
    world.fail(&mut chain, &timeout());
    assert_eq!(world.step(&mut chain), "wait 5");
}

#[test]
fn a_clients_mistake_is_nobody_elses_business() {
    let mut world = World::new(&["a", "b"]);
    let mut chain = world.request();
    world.next(&mut chain);
    world.fail(&mut chain, &fault(FaultKind::BadRequest, Retry::Never, Blame::Client));
    assert_eq!(world.step(&mut chain), "Refused");
    assert_eq!(world.step(&mut chain), "Refused");
}

#[test]
fn a_client_that_says_how_long_it_waits_is_answered_before() {
    let world = World::new(&["a"]);
    let waits = |seconds| {
        let chain = world.request_with(Some(Duration::from_secs(seconds)));
        chain.deadline().since(world.now).as_millis()
    };
    assert_eq!([waits(4), waits(60), waits(3_600)], [3_800, 59_000, 600_000]);
    let chain = world.request();
    assert_eq!(chain.hold_until().since(world.now), Duration::from_secs(20));
}

#[test]
fn retries_stop_when_the_budget_is_used_up_and_fallbacks_do_not() {
    let mut world = World::new(&["a", "b"]);
    world.budget = Budget::new(0, 1);
    let mut first = world.request();
    world.next(&mut first);
    world.fail(&mut first, &error());
    assert!(world.step(&mut first).starts_with("a Retry"));
    let mut second = world.request();
    world.next(&mut second);
    world.fail(&mut second, &error());
    assert!(world.step(&mut second).starts_with("b Fallback"));
    world.fail(&mut second, &error());
    assert_eq!(world.step(&mut second), "Budget, again in 0");
}

#[test]
fn open_targets_are_skipped_and_when_all_are_the_client_hears_when() {
    let mut world = World::new(&["a", "b"]);
    world.open(0);
    let mut chain = world.request();
    assert_eq!(world.step(&mut chain), "b Skipped 1 +600");
    chain.on_ok(world.now, &mut world.health);
    world.wait_ms(2_000);
    world.open(1);
    let mut chain = world.request();
    assert_eq!(world.step(&mut chain), "Unavailable, again in 3");
}

#[test]
fn one_request_probes_and_the_others_are_served_elsewhere() {
    let mut world = World::new(&["a", "b"]);
    world.open(0);
    world.wait_ms(5_000);
    let mut probe = world.request();
    assert!(world.step(&mut probe).starts_with("a First"));
    let mut other = world.request();
    assert!(world.step(&mut other).starts_with("b Skipped"));
    // Its client leaves: the next one probes.
    probe.on_cancelled(&mut world.health);
    let mut next = world.request();
    assert!(world.step(&mut next).starts_with("a First"));
    next.on_ok(world.now, &mut world.health);
    // On its way back it has a share, and all who have nobody else.
    world.random = 500;
    let mut chain = world.request();
    assert!(world.step(&mut chain).starts_with("b Skipped"));
    world.fail(&mut chain, &timeout());
    assert!(world.step(&mut chain).starts_with("a Fallback"));
    world.random = 5;
    assert!(world.step(&mut world.request()).starts_with("a First"));
}

#[test]
fn one_that_is_parked_for_a_moment_is_waited_for_by_those_who_have_nobody_else() {
    let mut world = World::new(&["a"]);
    let target = world.targets[0].clone();
    world.health.on_fault(world.now, &target, world.now, &limited(1));
    world.random = 40_000;
    let mut chain = world.request();
    assert_eq!(world.step(&mut chain), "wait 1.04");
    world.wait_ms(1_040);
    assert!(world.step(&mut chain).starts_with("a First 1"));
    world.health.on_fault(world.now, &target, world.now, &limited(30));
    assert_eq!(world.step(&mut world.request()), "Unavailable, again in 30");
}

#[test]
fn a_target_without_a_permit_is_passed_over_and_blamed_for_nothing() {
    let mut world = World::new(&["a", "b"]);
    let mut chain = world.request();
    assert_eq!(world.step(&mut chain), "a First 1 +300");
    chain.on_refused(&mut world.health);
    assert_eq!(world.step(&mut chain), "b Skipped 1 +600");
    chain.on_refused(&mut world.health);
    assert_eq!(world.step(&mut chain), "Busy");
    assert!(world.health.states(world.now).iter().all(|state| state.failures == 0));
}

#[test]
fn a_permit_is_waited_for_longer_where_nobody_else_can_be_asked() {
    let mut world = World::new(&["a", "b"]);
    let mut chain = world.request();
    let mut waits = || {
        let Step::Attempt { permit_until, .. } = world.next(&mut chain) else { panic!() };
        chain.on_refused(&mut world.health);
        permit_until.since(world.now).as_secs()
    };
    assert_eq!([waits(), waits()], [2, 600]);
}

#[test]
fn who_has_waited_for_a_permit_does_not_ask_a_target_that_was_given_up_meanwhile() {
    let mut world = World::new(&["a", "b"]);
    let mut chain = world.request();
    assert_eq!(world.step(&mut chain), "a First 1 +300");
    world.wait_ms(1_000);
    world.open(0);
    assert!(!chain.on_permit(world.now, &mut world.health));
    assert_eq!(world.step(&mut chain), "b Skipped 1 +599");
    assert!(chain.on_permit(world.now, &mut world.health));
    // A target that only wants a moment is waited for, and asked then.
    let mut world = World::new(&["a"]);
    let (mut chain, mut other) = (world.request(), world.request());
    world.next(&mut chain);
    world.next(&mut other);
    world.fail(&mut other, &limited(1));
    assert!(!chain.on_permit(world.now, &mut world.health));
    assert_eq!(world.step(&mut chain), "wait 1");
    world.wait_ms(1_000);
    assert_eq!(world.step(&mut chain), "a First 1 +599");
    assert!(chain.on_permit(world.now, &mut world.health));
}

#[test]
fn a_probe_begins_when_it_has_its_permit() {
    let mut world = World::new(&["a"]);
    world.open(0);
    world.wait_ms(5_000);
    let mut probe = world.request();
    assert_eq!(world.step(&mut probe), "a First 1 +600");
    world.wait_ms(50_000);
    assert!(probe.on_permit(world.now, &mut world.health));
    world.wait_ms(50_000);
    let mut other = world.request();
    assert_eq!(world.step(&mut other), "Unavailable, again in 10");
    // It shows what it was to show.
    world.fail(&mut probe, &timeout());
    assert_eq!(world.health.states(world.now)[0].state, BreakerState::Open);
}

#[test]
fn an_attempt_that_had_little_time_says_nothing_of_its_target() {
    let judged_after = |targets: &[&str], total| {
        let world = World::new(targets);
        let timeouts = Timeouts { total: Duration::from_secs(total), ..Timeouts::default() };
        // However short its client's patience is.
        let chain = world.request_with(Some(Duration::from_secs(1)));
        chain.judged_after(&timeouts).as_secs()
    };
    let all = [judged_after(&["a"], 600), judged_after(&["a", "b"], 600), judged_after(&["a"], 60)];
    assert_eq!(all, [300, 150, 30]);
}

#[test]
fn a_target_that_others_have_given_up_meanwhile_is_not_asked_again() {
    let mut world = World::new(&["a", "b"]);
    let mut chain = world.request();
    world.random = 100_000;
    world.next(&mut chain);
    world.fail(&mut chain, &error());
    assert_eq!(world.step(&mut chain), "wait 0.1");
    world.open(0);
    world.wait_ms(100);
    assert!(world.step(&mut chain).starts_with("b Fallback 2"));
}

#[test]
fn the_end_of_a_request_can_be_told_at_any_time() {
    let mut world = World::new(&["a"]);
    let mut chain = world.request();
    chain.on_cancelled(&mut world.health);
    chain.on_cancelled(&mut world.health);
    chain.on_ok(world.now, &mut world.health);
    assert!(world.step(&mut chain).starts_with("a First"));
    chain.on_cancelled(&mut world.health);
    chain.on_cancelled(&mut world.health);
    assert_eq!(world.health.states(world.now)[0].state, BreakerState::Closed);
}

#[test]
fn a_chain_of_nobody_is_unavailable() {
    let mut world = World::new(&[]);
    let mut chain = world.request();
    assert_eq!(world.step(&mut chain), "Unavailable");
}

fn some_fault() -> impl Strategy<Value = Fault> {
    let kind = prop_oneof![
        Just(error()),
        Just(timeout()),
        Just(fault(FaultKind::Auth, Retry::Next, Blame::Account)),
        Just(fault(FaultKind::TooLong, Retry::Next, Blame::Client)),
        Just(fault(FaultKind::BadRequest, Retry::Never, Blame::Client)),
        Just(fault(FaultKind::RateLimited, Retry::Same, Blame::Account)),
    ];
    (kind, prop::option::of(0_u64..100))
        .prop_map(|(fault, after)| Fault { after: after.map(Duration::from_secs), ..fault })
}

proptest! {
    /// Whatever targets say: every request ends, nobody is asked too often or after a fault that forbids it, nobody
    /// is asked who is to be left alone, waits end, and whoever falls over has time left.
    #[test]
    fn every_request_ends_in_time(
        requests in prop::collection::vec(
            (0_u64..700, prop::collection::vec((some_fault(), 0_u64..200_000, any::<u64>()), 1..12)),
            1..12,
        ),
        retries in 0_u32..3,
        count in 1_usize..4,
    ) {
        let mut world = World::new(&["a", "b", "c"][..count]);
        world.policy = Arc::new(Policy { retries, ..Policy::default() });
        for (client, script) in requests {
            let mut chain = world.request_with(Some(Duration::from_secs(client)));
            let mut script = script.into_iter().cycle();
            let (mut asked, mut steps, mut forbidden) = (vec![0; count], 0, false);
            loop {
                let (fault, took, random) = script.next().unwrap();
                world.random = random;
                steps += 1;
                prop_assert!(steps < 100);
                let before: Vec<_> = world.targets.iter()
                    .map(|target| world.health.verdict(world.now, target, random)).collect();
                match world.next(&mut chain) {
                    Step::Attempt { target, number, until, permit_until, .. } => {
                        let at = world.targets.iter().position(|one| *one == target).unwrap();
                        prop_assert!(may_pass(before[at]) && !forbidden);
                        asked[at] += 1;
                        prop_assert!(asked[at] <= retries + 1);
                        prop_assert_eq!(number, asked.iter().sum::<u32>());
                        prop_assert!(until > world.now && until <= chain.deadline());
                        prop_assert!(permit_until > world.now && permit_until <= until);
                        let others = (0..count).filter(|at| asked[*at] == 0 && may_pass(before[*at])).count();
                        prop_assert!(others == 0 || until < chain.deadline());
                        world.wait_ms(took.min(until.since(world.now).as_millis() as u64));
                        world.fail(&mut chain, &fault);
                        forbidden |= fault.retry == Retry::Never;
                    }
                    Step::Wait { until } => {
                        prop_assert!(until > world.now && until <= chain.deadline());
                        prop_assert!(until.since(world.now) <= Duration::from_secs(61));
                        world.now = until;
                    }
                    Step::Exhausted(_) => break,
                }
            }
        }
    }
}
