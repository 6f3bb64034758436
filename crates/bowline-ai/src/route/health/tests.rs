//! What opens a breaker, what parks a target, and how both come back.

use proptest::prelude::*;

use super::*;

/// One target and its clock.
struct World {
    health: Health,
    target: TargetId,
    now: Time,
}

impl World {
    fn new() -> Self {
        let target = TargetId::new("kimi", "kimi-k2");
        let health = Health::new(BreakerPolicy::default(), [target.clone()]);
        Self { health, target, now: Time::from_micros(1_000_000_000) }
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn ok(&mut self) {
        self.health.begin(self.now, &self.target);
        self.health.on_ok(self.now, &self.target, self.now);
    }

    fn fail(&mut self, fault: &Fault) {
        self.health.begin(self.now, &self.target);
        self.health.on_fault(self.now, &self.target, self.now, fault);
    }

    fn fail_times(&mut self, times: u32) {
        (0..times).for_each(|_| self.fail(&broken()));
    }

    fn state(&self) -> BreakerState {
        self.health.states(self.now)[0].state
    }

    fn opens_in(&self) -> Option<u64> {
        self.health.states(self.now)[0].opens_in.map(|wait| wait.as_secs())
    }

    /// How many of a thousand requests pass.
    fn passing(&self) -> usize {
        let pass =
            |random: &u64| self.health.verdict(self.now, &self.target, *random) == Verdict::Pass;
        (0..1_000).filter(pass).count()
    }
}

fn broken() -> Fault {
    fault(FaultKind::Broken, Blame::Network)
}

fn fault(kind: FaultKind, blames: Blame) -> Fault {
    Fault { blames, ..Fault::new(kind, "words") }
}

fn after(seconds: u64) -> Fault {
    let after = Some(Duration::from_secs(seconds));
    Fault { after, ..fault(FaultKind::RateLimited, Blame::Account) }
}

#[test]
fn faults_in_a_row_open_it() {
    let mut world = World::new();
    world.fail_times(4);
    world.ok();
    world.fail_times(4);
    assert_eq!(world.state(), BreakerState::Closed);
    world.fail_times(1);
    assert_eq!(
        (world.state(), world.opens_in(), world.passing()),
        (BreakerState::Open, Some(5), 0)
    );
}

#[test]
fn a_large_share_of_faults_opens_it() {
    let mut world = World::new();
    for _ in 0..9 {
        world.ok();
        world.fail(&broken());
    }
    assert_eq!(world.state(), BreakerState::Closed);
    world.ok();
    world.fail(&broken());
    assert_eq!(world.state(), BreakerState::Open);
}

#[test]
fn faults_of_long_ago_do_not_count() {
    let mut world = World::new();
    for _ in 0..30 {
        world.ok();
        world.wait(4);
        world.fail(&broken());
    }
    assert_eq!(world.state(), BreakerState::Closed);
}

#[test]
fn what_a_client_did_wrong_says_nothing() {
    let mut world = World::new();
    for _ in 0..100 {
        world.fail(&fault(FaultKind::BadRequest, Blame::Client));
    }
    assert_eq!(world.state(), BreakerState::Closed);
    assert_eq!(world.health.states(world.now)[0].last_fault, None);
}

#[test]
fn after_its_rest_one_probe_passes_and_decides() {
    let mut world = World::new();
    world.fail_times(5);
    world.wait(5);
    assert_eq!((world.state(), world.opens_in()), (BreakerState::HalfOpen, None));
    world.health.begin(world.now, &world.target);
    // Another one has to wait for its end.
    assert_eq!(
        (world.state(), world.opens_in(), world.passing()),
        (BreakerState::HalfOpen, Some(60), 0)
    );
    world.health.on_ok(world.now, &world.target, world.now);
    assert_eq!((world.state(), world.passing()), (BreakerState::Ramp, 100));
    world.wait(5);
    assert_eq!(world.passing(), 500);
    world.wait(5);
    assert_eq!((world.state(), world.passing()), (BreakerState::Closed, 1_000));
}

#[test]
fn each_probe_that_fails_doubles_the_rest() {
    let mut world = World::new();
    world.fail_times(5);
    let mut rests = vec![world.opens_in()];
    for _ in 0..7 {
        world.wait(world.opens_in().unwrap());
        world.fail_times(1);
        rests.push(world.opens_in());
    }
    assert_eq!(rests, [5, 10, 20, 40, 80, 120, 120, 120].map(Some));
}

#[test]
fn a_fall_in_the_ramp_rests_longer_and_one_after_it_does_not() {
    let mut world = World::new();
    world.fail_times(5);
    world.wait(5);
    world.ok();
    world.fail_times(1);
    assert_eq!(world.state(), BreakerState::Ramp);
    world.fail_times(1);
    assert_eq!((world.state(), world.opens_in()), (BreakerState::Open, Some(10)));
    world.wait(10);
    world.ok();
    world.wait(10);
    world.ok();
    assert_eq!(world.state(), BreakerState::Closed);
    world.fail_times(5);
    assert_eq!((world.state(), world.opens_in()), (BreakerState::Open, Some(5)));
}

#[test]
fn a_probe_need_not_end_to_show_what_it_shows() {
    let mut world = World::new();
    world.fail_times(5);
    // A stream of before says nothing.
    world.health.on_content(world.now, &world.target, Time::ZERO);
    assert_eq!(world.state(), BreakerState::Open);
    world.wait(5);
    let probe = world.now;
    world.health.begin(probe, &world.target);
    world.wait(1);
    world.health.on_content(world.now, &world.target, probe);
    assert_eq!(world.state(), BreakerState::Ramp);
    // Streams that begin and then break are ill all the same.
    world.health.on_fault(world.now, &world.target, probe, &broken());
    assert_eq!(world.state(), BreakerState::Ramp);
    world.fail_times(1);
    assert_eq!(world.state(), BreakerState::Open);
}

#[test]
fn a_probe_that_says_nothing_leaves_its_place_and_one_that_never_ends_is_forgotten() {
    let mut world = World::new();
    world.fail_times(5);
    world.wait(5);
    world.health.begin(world.now, &world.target);
    world.health.on_nothing(&world.target, world.now);
    assert_eq!(world.passing(), 1_000);
    world.health.begin(world.now, &world.target);
    // Somebody else's end is not the probe's.
    world.health.on_nothing(&world.target, Time::ZERO);
    assert_eq!(world.passing(), 0);
    world.wait(60);
    assert_eq!(world.passing(), 1_000);
}

#[test]
fn what_began_before_it_opened_says_nothing_any_more() {
    let mut world = World::new();
    let early = world.now;
    world.wait(1);
    world.fail_times(5);
    world.health.on_ok(world.now, &world.target, early);
    assert_eq!(world.state(), BreakerState::Open);
    world.wait(5);
    world.health.on_ok(world.now, &world.target, early);
    world.health.on_fault(world.now, &world.target, early, &broken());
    assert_eq!((world.state(), world.opens_in()), (BreakerState::HalfOpen, None));
}

#[test]
fn what_ends_in_the_moment_it_opens_says_nothing_either() {
    let mut world = World::new();
    world.fail_times(5);
    world.ok();
    world.fail_times(3);
    assert_eq!((world.state(), world.opens_in()), (BreakerState::Open, Some(5)));
    world.wait(5);
    assert_eq!((world.state(), world.passing()), (BreakerState::HalfOpen, 1_000));
}

#[test]
fn a_target_that_says_when_is_parked_until_then_and_not_ill() {
    let mut world = World::new();
    world.fail(&after(30));
    assert_eq!(
        (world.state(), world.opens_in(), world.passing()),
        (BreakerState::Parked, Some(30), 0)
    );
    // A later word that is sooner does not shorten it; what began before changes nothing.
    world.wait(1);
    world.fail(&after(2));
    world.ok();
    assert_eq!(world.opens_in(), Some(29));
    world.wait(29);
    assert_eq!((world.state(), world.passing()), (BreakerState::Closed, 1_000));
    world.fail(&after(1_000_000));
    assert_eq!(world.opens_in(), Some(3_600));
}

#[test]
fn limits_without_a_time_park_it_longer_and_longer_when_they_come_in_a_row() {
    let mut world = World::new();
    let limited = fault(FaultKind::RateLimited, Blame::Account);
    // A burst is told all at once.
    let early = world.now;
    world.wait(1);
    for _ in 0..10 {
        world.health.on_fault(world.now, &world.target, early, &limited);
    }
    assert_eq!(world.state(), BreakerState::Closed);
    let mut parked = Vec::new();
    for _ in 0..8 {
        world.fail(&limited);
        parked.push(world.opens_in().unwrap_or(0));
        world.wait(world.opens_in().unwrap_or(1));
    }
    assert_eq!(parked, [0, 1, 2, 4, 8, 16, 30, 30]);
    world.ok();
    world.fail(&limited);
    assert_eq!(world.state(), BreakerState::Closed);
    // Where fewer at once help, nobody is kept away.
    for _ in 0..10 {
        world.wait(1);
        world.fail(&Fault { crowded: true, ..limited.clone() });
    }
    assert_eq!(world.state(), BreakerState::Closed);
}

#[test]
fn a_refused_key_takes_it_down_until_a_probe_is_answered() {
    let mut world = World::new();
    let auth =
        Fault { status: Some(StatusCode::UNAUTHORIZED), ..fault(FaultKind::Auth, Blame::Account) };
    world.fail(&auth);
    assert_eq!((world.state(), world.opens_in()), (BreakerState::Down, Some(60)));
    world.wait(30);
    world.fail(&auth);
    assert_eq!(world.opens_in(), Some(30));
    world.wait(30);
    assert_eq!((world.state(), world.passing()), (BreakerState::Down, 1_000));
    world.fail(&auth);
    assert_eq!((world.state(), world.opens_in()), (BreakerState::Down, Some(60)));
    world.wait(60);
    world.ok();
    assert_eq!((world.state(), world.passing()), (BreakerState::Closed, 1_000));
}

#[test]
fn one_that_is_forbidden_may_be_the_request_three_in_a_row_are_not() {
    let mut world = World::new();
    let forbidden =
        Fault { status: Some(StatusCode::FORBIDDEN), ..fault(FaultKind::Auth, Blame::Account) };
    for _ in 0..2 {
        world.fail(&forbidden);
        world.fail(&forbidden);
        assert_eq!(world.state(), BreakerState::Closed);
        world.ok();
    }
    (0..3).for_each(|_| world.fail(&forbidden));
    assert_eq!(world.state(), BreakerState::Down);
}

#[test]
fn what_may_be_the_request_takes_nobody_down_at_once_whatever_the_status() {
    let account = |kind| fault(kind, Blame::Account);
    let not_for_this = Fault { code: Some("1220".to_owned()), ..account(FaultKind::Auth) };
    for doubtful in [account(FaultKind::NotFound), not_for_this] {
        let mut world = World::new();
        (0..2).for_each(|_| world.fail(&doubtful));
        assert_eq!(world.state(), BreakerState::Closed);
        world.fail(&doubtful);
        assert_eq!(world.state(), BreakerState::Down);
    }
}

#[test]
fn no_balance_takes_it_down_at_once_whatever_the_status() {
    let mut world = World::new();
    let billing =
        Fault { status: Some(StatusCode::FORBIDDEN), ..fault(FaultKind::Billing, Blame::Account) };
    world.fail(&billing);
    assert_eq!(world.state(), BreakerState::Down);
    // It is down and ill: it stays down.
    world.wait(60);
    world.fail(&broken());
    assert_eq!((world.state(), world.opens_in()), (BreakerState::Down, Some(60)));
}

#[test]
fn a_reload_trusts_what_was_down_keeps_what_was_open_and_forgets_what_is_gone() {
    let target = |name: &str| TargetId::new(name, "m");
    let mut health = Health::new(BreakerPolicy::default(), ["down", "gone", "open"].map(target));
    let now = Time::from_micros(1_000_000_000);
    let billing = fault(FaultKind::Billing, Blame::Account);
    health.on_fault(now, &target("down"), now, &billing);
    (0..5).for_each(|_| health.on_fault(now, &target("open"), now, &broken()));
    health.reconfigure(now, BreakerPolicy::default(), ["down", "new", "open"].map(target));
    let states = health.states(now);
    let states: Vec<_> = states.iter().map(|one| (&**one.target.provider(), one.state)).collect();
    use BreakerState::{Closed, Open};
    assert_eq!(states, [("down", Closed), ("new", Closed), ("open", Open)]);
    // Requests that still know it may ask it, and nothing grows because of them.
    health.on_fault(now, &target("gone"), now, &billing);
    assert_eq!(health.verdict(now, &target("gone"), 0), Verdict::Pass);
    assert_eq!(health.states(now).len(), 3);
    health.reset(now, &target("open"));
    assert_eq!(health.verdict(now, &target("open"), 0), Verdict::Pass);
}

#[test]
fn states_tell_of_the_last_fault_and_for_how_long() {
    let mut world = World::new();
    world.fail_times(5);
    world.wait(2);
    let state = &world.health.states(world.now)[0];
    assert_eq!((state.age, state.opens_in), (Duration::from_secs(2), Some(Duration::from_secs(3))));
    assert_eq!(state.failures, 5);
    assert_eq!(state.last_fault, Some((FaultKind::Broken, "words".to_owned())));
    let numbers = BreakerState::ALL.map(BreakerState::number);
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
}

proptest! {
    /// Whatever happened to a target, probes that nobody ever heard of again among it: when it is well again, all of
    /// its traffic comes back by itself.
    #[test]
    fn nothing_keeps_a_target_away_for_ever(
        story in prop::collection::vec((0_usize..9, 0_u64..100, 0_u64..100), 0..60),
    ) {
        let mut world = World::new();
        for (what, wait, ago) in story {
            world.wait(wait);
            let started = Time::from_micros(world.now.as_micros() - ago * 1_000_000);
            let (health, target, now) = (&mut world.health, &world.target, world.now);
            let fault = match what {
                0 => broken(),
                1 => fault(FaultKind::ServerError, Blame::Provider),
                2 => fault(FaultKind::Auth, Blame::Account),
                3 => fault(FaultKind::BadRequest, Blame::Client),
                4 => fault(FaultKind::RateLimited, Blame::Account),
                5 => after(ago * ago),
                _ => {
                    match what {
                        6 => health.begin(now, target),
                        7 => health.on_content(now, target, started),
                        _ => health.on_ok(now, target, started),
                    }
                    continue;
                }
            };
            health.on_fault(now, target, started, &fault);
        }
        // An hour's park, a probe that is forgotten, the ramp: each once, one after the other.
        for _ in 0..400 {
            if world.health.verdict(world.now, &world.target, 0) == Verdict::Pass {
                world.ok();
            }
            world.wait(10);
        }
        prop_assert_eq!((world.state(), world.passing()), (BreakerState::Closed, 1_000));
    }
}
