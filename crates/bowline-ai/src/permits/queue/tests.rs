//! Scenarios of the queue, and a model that it must agree with whatever is done to it.

use proptest::prelude::*;

use super::*;

const FAR: Time = Time::from_micros(u64::MAX);

/// A queue and its clock.
struct World {
    queue: Queue,
    now: Time,
}

impl World {
    fn new(limits: Limits) -> Self {
        Self { queue: Queue::new(limits), now: Time::from_micros(1_000_000_000) }
    }

    /// One place at the gateway; providers `a` (one place) and `b` (two).
    fn small() -> Self {
        let providers = [("a".into(), 1), ("b".into(), 2)].into();
        Self::new(Limits { all: 1, per_session: 1, providers, queued: 3, ..Limits::default() })
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn ask(&mut self, scopes: &[Scope], priority: Priority) -> Asked {
        let asked = self.queue.ask(self.now, &"r".into(), scopes, priority, FAR);
        check(&self.queue);
        asked
    }

    fn granted(&mut self, scopes: &[Scope]) -> Ticket {
        match self.ask(scopes, Priority::Normal) {
            Asked::Granted(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    fn queued_as(&mut self, scopes: &[Scope], priority: Priority) -> Ticket {
        match self.ask(scopes, priority) {
            Asked::Queued(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    fn queued(&mut self, scopes: &[Scope]) -> Ticket {
        self.queued_as(scopes, Priority::Normal)
    }

    fn refused(&mut self, scopes: &[Scope], priority: Priority) -> RefusedWhy {
        match self.ask(scopes, priority) {
            Asked::Refused(refused) => refused.why,
            other => panic!("{other:?}"),
        }
    }

    /// Gives one back; who begins because of it?
    fn release(&mut self, ticket: Ticket) -> Vec<Ticket> {
        self.queue.release(self.now, ticket);
        check(&self.queue);
        self.queue.take_changed()
    }

    fn gauge(&self, scope: &Scope) -> Gauge {
        self.queue.gauges(self.now).into_iter().find(|gauge| gauge.scope == *scope).unwrap()
    }
}

fn provider(name: &str) -> Scope {
    Scope::Provider(name.into())
}

fn session(name: &str) -> Scope {
    Scope::Session(name.into())
}

#[test]
fn who_came_first_goes_first() {
    let mut world = World::small();
    let running = world.granted(&[Scope::All]);
    let [one, two] = [world.queued(&[Scope::All]), world.queued(&[Scope::All])];
    assert_eq!(world.release(running), [one]);
    assert_eq!(world.release(one), [two]);
    assert_eq!(world.release(two), []);
    assert!(world.queue.entries.is_empty() && world.queue.gates.is_empty());
}

#[test]
fn a_class_goes_before_the_one_below_it_until_that_one_has_waited_long_enough() {
    let mut world = World::small();
    let running = world.granted(&[Scope::All]);
    let low = world.queued_as(&[Scope::All], Priority::Low);
    let normal = world.queued_as(&[Scope::All], Priority::Normal);
    let high = world.queued_as(&[Scope::All], Priority::High);
    assert_eq!(world.release(running), [high]);
    assert_eq!(world.release(high), [normal]);
    world.wait(AGEING.as_secs() + 1);
    // It has stood here for longer than its class is behind.
    let newer = world.queued_as(&[Scope::All], Priority::Normal);
    assert_eq!(world.release(normal), [low]);
    assert_eq!(world.release(low), [newer]);
}

#[test]
fn who_waits_for_a_full_provider_keeps_nobody_from_another() {
    let mut world = World::small();
    let running = world.granted(&[provider("a")]);
    let waiting = world.queued(&[provider("a")]);
    let other = world.granted(&[provider("b")]);
    assert_eq!(world.release(other), []);
    assert_eq!(world.release(running), [waiting]);
}

#[test]
fn permits_of_one_go_are_granted_together() {
    let mut world = World::small();
    let [mine, other] = [[Scope::All, session("mine")], [Scope::All, session("other")]];
    let running = world.granted(&mine);
    let second = world.queued(&mine);
    let third = world.queued(&other);
    // It is the session that `second` stands at first; the third waits for the gateway.
    assert_eq!(world.gauge(&Scope::All).queued, 2);
    assert_eq!(world.release(running), [second]);
    assert_eq!(world.release(second), [third]);
}

#[test]
fn one_who_moves_to_another_gate_keeps_its_place() {
    let mut world = World::small();
    let limits = Limits { all: 2, ..world.queue.limits.clone() };
    world.queue.reconfigure(world.now, limits);
    let [mine, other] = [[Scope::All, session("mine")], [Scope::All, session("other")]];
    let [running, blocking] = [world.granted(&other), world.granted(&mine)];
    let first = world.queued(&mine);
    let second = world.queued(&other);
    // There is room at the gateway; of the session that has it nobody waits but `second`.
    assert_eq!(world.release(running), [second]);
    let third = world.queued(&other);
    assert_eq!(world.release(blocking), [first]);
    assert_eq!(world.release(second), [third]);
}

#[test]
fn the_same_twice_counts_once() {
    let mut world = World::small();
    let running = world.granted(&[Scope::All, Scope::All]);
    assert_eq!(world.gauge(&Scope::All).held, 1);
    world.release(running);
    assert_eq!(world.gauge(&Scope::All).held, 0);
}

#[test]
fn whose_deadline_passes_waits_no_longer_but_a_grant_stays_one() {
    let mut world = World::small();
    let running = world.granted(&[Scope::All]);
    let [late, lucky] = [world.queued(&[Scope::All]), world.queued(&[Scope::All])];
    world.wait(3);
    let refused = world.queue.give_up(world.now, late).unwrap_err();
    assert_eq!((refused.why, refused.waited), (RefusedWhy::Deadline, Duration::from_secs(3)));
    assert_eq!(refused.scope, Scope::All);
    world.queue.take_changed();
    world.release(late);
    assert_eq!(world.release(running), [lucky]);
    assert_eq!(world.queue.give_up(world.now, lucky), Ok(Duration::from_secs(3)));
    assert_eq!(world.gauge(&Scope::All).held, 1);
}

#[test]
fn a_deadline_that_has_passed_is_no_reason_to_wait_but_none_to_refuse_what_is_free() {
    let mut world = World::small();
    let ask = |world: &mut World| {
        world.queue.ask(world.now, &"r".into(), &[Scope::All], Priority::Normal, world.now)
    };
    assert!(matches!(ask(&mut world), Asked::Granted(_)));
    let Asked::Refused(refused) = ask(&mut world) else { panic!() };
    assert_eq!(refused.why, RefusedWhy::Deadline);
}

#[test]
fn a_full_queue_refuses_unless_somebody_behind_can_leave_its_place() {
    let mut world = World::small();
    let running = world.granted(&[Scope::All]);
    let lows = [(); 3].map(|()| world.queued_as(&[Scope::All], Priority::Low));
    assert_eq!(world.refused(&[Scope::All], Priority::Low), RefusedWhy::QueueFull);
    let high = world.queued_as(&[Scope::All], Priority::High);
    assert_eq!(world.queue.take_changed(), [lows[2]]);
    let turn = world.queue.turn(lows[2]).unwrap().unwrap_err();
    assert_eq!(turn.why, RefusedWhy::QueueFull);
    assert_eq!(world.queue.line.len(), 3);
    assert_eq!(world.release(running), [high]);
}

#[test]
fn one_client_does_not_fill_the_queue() {
    let mut world = World::small();
    world.queue.reconfigure(world.now, limits_of(2, 1, 1, 16));
    let [greedy, other] = [[Scope::All, session("greedy")], [Scope::All, session("other")]];
    let running = world.granted(&greedy);
    let [first, _] = [world.queued(&greedy), world.queued(&greedy)];
    assert_eq!(world.refused(&greedy, Priority::High), RefusedWhy::QueueFull);
    let second = world.granted(&other);
    // Everybody else may wait, also for the gateway.
    let third = world.queued(&[Scope::All]);
    assert_eq!([world.release(running), world.release(second)], [[first], [third]]);
}

#[test]
fn who_leaves_the_queue_is_forgotten() {
    let mut world = World::small();
    let running = world.granted(&[Scope::All]);
    let [left, stayed] = [world.queued(&[Scope::All]), world.queued(&[Scope::All])];
    assert_eq!(world.release(left), []);
    assert_eq!(world.release(running), [stayed]);
    // Nobody can give anything back twice.
    assert_eq!(world.release(running), []);
    assert_eq!(world.gauge(&Scope::All).held, 1);
}

#[test]
fn what_was_granted_and_never_taken_goes_to_the_next() {
    let mut world = World::small();
    let running = world.granted(&[Scope::All]);
    let [gone, next] = [world.queued(&[Scope::All]), world.queued(&[Scope::All])];
    assert_eq!(world.release(running), [gone]);
    // Its future is dropped before it hears of it.
    assert_eq!(world.release(gone), [next]);
}

#[test]
fn higher_limits_let_in_lower_ones_let_run_and_zero_refuses() {
    let mut world = World::small();
    let [one, two] = [world.granted(&[provider("b")]), world.granted(&[provider("b")])];
    let [three, four] = [world.queued(&[provider("b")]), world.queued(&[provider("b")])];
    let limits = world.queue.limits.clone();
    let with = |b| Limits { providers: [("b".into(), b)].into(), ..limits.clone() };
    world.queue.reconfigure(world.now, with(3));
    check(&world.queue);
    assert_eq!(world.queue.take_changed(), [three]);
    world.queue.reconfigure(world.now, with(1));
    assert_eq!(world.gauge(&provider("b")).held, 3);
    assert_eq!([world.release(one), world.release(two)], [[], []]);
    assert_eq!(world.release(three), [four]);
    let five = world.queued(&[provider("b")]);
    world.queue.reconfigure(world.now, with(0));
    check(&world.queue);
    assert_eq!(world.queue.turn(five).unwrap().unwrap_err().why, RefusedWhy::Closed);
    assert_eq!(world.refused(&[provider("b")], Priority::High), RefusedWhy::Closed);
    // A provider that is not configured has no limit, and is counted.
    world.granted(&[provider("new")]);
    assert_eq!(world.gauge(&provider("new")), gauge(provider("new"), None, 1));
}

#[test]
fn a_crowded_provider_gets_fewer_at_once_for_a_while() {
    let mut world = World::small();
    let limits = Limits { providers: [("a".into(), 4)].into(), ..Limits::default() };
    world.queue.reconfigure(world.now, limits);
    let running = [(); 4].map(|()| world.granted(&[provider("a")]));
    // Two of four were told that they are too many.
    world.queue.lower(world.now, &provider("a"));
    world.release(running[0]);
    world.queue.lower(world.now, &provider("a"));
    world.release(running[1]);
    assert_eq!(world.gauge(&provider("a")).limit, Some(2));
    let waiting = world.queued(&[provider("a")]);
    let after = world.queued(&[provider("a")]);
    world.wait(RECOVERY.as_secs());
    assert_eq!(world.gauge(&provider("a")).limit, Some(3));
    // There is room for one by now: who asks first finds that it belongs to who waits.
    let last = world.queued(&[provider("a")]);
    assert_eq!(world.queue.take_changed(), [waiting]);
    world.wait(RECOVERY.as_secs());
    assert_eq!(world.release(waiting), [after, last]);
    assert_eq!(world.gauge(&provider("a")).limit, Some(4));
}

#[test]
fn who_waits_for_a_lowered_limit_begins_when_it_has_risen_though_nobody_else_comes() {
    let mut world = World::small();
    let _running = [(); 2].map(|()| world.granted(&[provider("b")]));
    world.queue.lower(world.now, &provider("b"));
    let limits = Limits { providers: [("b".into(), 4)].into(), ..world.queue.limits.clone() };
    world.queue.reconfigure(world.now, limits);
    let waiting = world.queued(&[provider("b")]);
    world.wait(RECOVERY.as_secs());
    world.queue.rise(world.now);
    assert_eq!(world.queue.take_changed(), []);
    world.wait(RECOVERY.as_secs());
    world.queue.rise(world.now);
    check(&world.queue);
    assert_eq!(world.queue.take_changed(), [waiting]);
}

#[test]
fn a_limit_never_falls_below_one() {
    let mut world = World::small();
    for name in ["a", "unknown"] {
        world.queue.lower(world.now, &provider(name));
        world.queue.lower(world.now, &provider(name));
        let running = world.granted(&[provider(name)]);
        world.queue.lower(world.now, &provider(name));
        assert!(world.gauge(&provider(name)).limit >= Some(1));
        world.release(running);
    }
}

#[test]
fn gauges_show_who_is_oldest_and_what_is_configured() {
    let mut world = World::small();
    let _running = world.granted(&[Scope::All, session("s")]);
    world.wait(5);
    let _waiting = world.queued(&[Scope::All, session("s")]);
    world.wait(2);
    let seconds = Duration::from_secs;
    assert_eq!(
        world.queue.gauges(world.now),
        [
            Gauge {
                queued: 1,
                oldest: seconds(7),
                oldest_wait: seconds(2),
                ..gauge(Scope::All, Some(1), 1)
            },
            gauge(provider("a"), Some(1), 0),
            gauge(provider("b"), Some(2), 0),
        ]
    );
}

#[derive(Debug, Clone)]
enum Op {
    Ask {
        scopes: u8,
        priority: Priority,
        patience: u64,
    },
    /// Gives back one of those that run, wait or were refused.
    Release(prop::sample::Index),
    Wait(u64),
    Limits(usize, usize, usize, usize),
    Lower(bool),
}

fn ops(lower: bool) -> impl Strategy<Value = Vec<Op>> {
    let priority = prop_oneof![Just(Priority::Low), Just(Priority::Normal), Just(Priority::High)];
    let ask = (1_u8..32, priority, 0_u64..60).prop_map(|(scopes, priority, patience)| Op::Ask {
        scopes,
        priority,
        patience,
    });
    let limits = (0_usize..5, 1_usize..3, 0_usize..4, 0_usize..6)
        .prop_map(|(a, b, c, d)| Op::Limits(a, b, c, d));
    let op = prop_oneof![
        6 => ask,
        4 => any::<prop::sample::Index>().prop_map(Op::Release),
        2 => (0_u64..30).prop_map(Op::Wait),
        1 => limits,
        u32::from(lower) => any::<bool>().prop_map(Op::Lower),
    ];
    prop::collection::vec(op, 1..120)
}

fn scopes_of(bits: u8) -> Vec<Scope> {
    let all = [Scope::All, session("s"), session("t"), provider("a"), provider("b")];
    let picked = all.into_iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
    picked.map(|(_, scope)| scope).collect()
}

fn limits_of(all: usize, per_session: usize, a: usize, queued: usize) -> Limits {
    let providers = [("a".into(), a)].into();
    Limits { all, per_session, providers, queued, ..Limits::default() }
}

/// What the queue should do, in the simplest way there is: after whatever happened, walk along all who wait, in
/// their order, and let in each who fits.
#[derive(Default)]
struct Model {
    live: BTreeMap<Ticket, Asker>,
}

struct Asker {
    scopes: Vec<Scope>,
    place: Place,
    deadline: Time,
    state: &'static str,
}

impl Model {
    fn held(&self, scope: &Scope) -> usize {
        self.live.values().filter(|one| one.state == "runs" && one.scopes.contains(scope)).count()
    }

    fn fits(&self, queue: &Queue, scopes: &[Scope]) -> bool {
        scopes
            .iter()
            .all(|scope| queue.configured(scope).is_none_or(|limit| self.held(scope) < limit))
    }

    /// Whether a session that has all it may have makes enough wait.
    fn crowded(&self, queue: &Queue, scopes: &[Scope]) -> bool {
        let share = (queue.limits.queued / CLIENT_QUEUE_SHARE).max(1);
        scopes.iter().filter(|scope| matches!(scope, Scope::Session(_))).any(|scope| {
            let waiting = self.live.values();
            let waiting = waiting.filter(|one| one.state == "waits" && one.scopes.contains(scope));
            self.held(scope) >= queue.limits.per_session && waiting.count() >= share
        })
    }

    fn waiting(&self) -> Vec<Ticket> {
        let waiting = self.live.iter().filter(|(_, one)| one.state == "waits");
        let mut waiting: Vec<_> = waiting.map(|(ticket, one)| (one.place, *ticket)).collect();
        waiting.sort();
        waiting.into_iter().map(|(_, ticket)| ticket).collect()
    }

    fn settle(&mut self, queue: &Queue) {
        for ticket in self.waiting() {
            if self.fits(queue, &self.live[&ticket].scopes) {
                self.live.get_mut(&ticket).unwrap().state = "runs";
            }
        }
    }

    fn agrees(&self, queue: &Queue) {
        for (ticket, one) in &self.live {
            let state = match &queue.entries[ticket].state {
                State::Waiting { .. } => "waits",
                State::Running { .. } => "runs",
                State::Refused(_) => "refused",
            };
            assert_eq!(state, one.state, "{ticket:?}");
        }
        assert_eq!(queue.entries.len(), self.live.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever is asked, given back, cancelled, configured and whoever's deadline passes: the same run, wait and
    /// are refused as in the model, and in the end nothing is held.
    #[test]
    fn it_does_what_the_model_does(ops in ops(false)) {
        let mut world = World::new(limits_of(2, 1, 1, 3));
        let mut model = Model::default();
        for op in ops {
            match op {
                Op::Ask { scopes, priority, patience } => {
                    let scopes = scopes_of(scopes);
                    let deadline = world.now + Duration::from_secs(patience);
                    let fits = model.fits(&world.queue, &scopes);
                    let waiting = model.waiting();
                    let crowded = model.crowded(&world.queue, &scopes);
                    let asked = world.queue.ask(world.now, &"r".into(), &scopes, priority, deadline);
                    match asked {
                        Asked::Granted(ticket) | Asked::Queued(ticket) => {
                            let place = Place(world.now + head_start(priority), ticket);
                            if !fits && waiting.len() >= world.queue.limits.queued {
                                let last = *waiting.last().unwrap();
                                prop_assert!(place < model.live[&last].place);
                                model.live.get_mut(&last).unwrap().state = "refused";
                            }
                            let state = if fits { "runs" } else { "waits" };
                            prop_assert!(fits || (deadline > world.now && !crowded));
                            model.live.insert(ticket, Asker { scopes, place, deadline, state });
                        }
                        Asked::Refused(refused) => {
                            prop_assert!(!fits);
                            match refused.why {
                                RefusedWhy::Closed => prop_assert_eq!(world.queue.configured(&refused.scope), Some(0)),
                                RefusedWhy::Deadline => prop_assert!(deadline <= world.now),
                                RefusedWhy::QueueFull => prop_assert!(crowded || waiting.len() >= world.queue.limits.queued),
                            }
                        }
                    }
                }
                Op::Release(which) => {
                    if model.live.is_empty() { continue }
                    let ticket = *which.get(&model.live.keys().collect::<Vec<_>>());
                    let ticket = *ticket;
                    model.live.remove(&ticket);
                    world.queue.release(world.now, ticket);
                    model.settle(&world.queue);
                }
                Op::Wait(seconds) => {
                    world.wait(seconds);
                    for ticket in model.waiting() {
                        let asker = model.live.get_mut(&ticket).unwrap();
                        if asker.deadline <= world.now {
                            asker.state = "refused";
                            let refused = world.queue.give_up(world.now, ticket).unwrap_err();
                            prop_assert_eq!(refused.why, RefusedWhy::Deadline);
                        }
                    }
                }
                Op::Limits(a, b, c, d) => {
                    world.queue.reconfigure(world.now, limits_of(a, b, c, d));
                    for asker in model.live.values_mut().filter(|one| one.state == "waits") {
                        if asker.scopes.iter().any(|scope| world.queue.configured(scope) == Some(0)) {
                            asker.state = "refused";
                        }
                    }
                    model.settle(&world.queue);
                }
                Op::Lower(_) => {}
            }
            check(&world.queue);
            model.agrees(&world.queue);
            for (scope, gate) in &world.queue.gates {
                prop_assert_eq!(gate.held, model.held(scope));
            }
            // Nobody waits who could run.
            for ticket in model.waiting() {
                prop_assert!(!model.fits(&world.queue, &model.live[&ticket].scopes));
            }
        }
        for ticket in model.live.into_keys() {
            world.queue.release(world.now, ticket);
            check(&world.queue);
        }
        assert_empty(&world.queue);
    }

    /// With limits that fall and rise by themselves too: never does one begin beyond a limit, and nothing leaks.
    #[test]
    fn it_never_exceeds_and_never_leaks(ops in ops(true)) {
        let mut world = World::new(limits_of(2, 1, 1, 3));
        let mut live: Vec<Ticket> = Vec::new();
        for op in ops {
            let before: BTreeMap<Scope, usize> =
                world.queue.gates.iter().map(|(scope, gate)| (scope.clone(), gate.held)).collect();
            match op {
                Op::Ask { scopes, priority, patience } => {
                    let deadline = world.now + Duration::from_secs(patience);
                    let scopes = scopes_of(scopes);
                    match world.queue.ask(world.now, &"r".into(), &scopes, priority, deadline) {
                        Asked::Granted(ticket) | Asked::Queued(ticket) => live.push(ticket),
                        Asked::Refused(_) => {}
                    }
                }
                Op::Release(which) if !live.is_empty() => {
                    let ticket = live.swap_remove(which.index(live.len()));
                    world.queue.release(world.now, ticket);
                }
                Op::Release(_) => {}
                Op::Wait(seconds) => world.wait(seconds),
                Op::Limits(a, b, c, d) => world.queue.reconfigure(world.now, limits_of(a, b, c, d)),
                Op::Lower(which) => {
                    world.queue.lower(world.now, &provider(if which { "a" } else { "b" }));
                }
            }
            check(&world.queue);
            for (scope, gate) in &world.queue.gates {
                let grew = gate.held > before.get(scope).copied().unwrap_or(0);
                let limit = world.queue.limit(scope);
                prop_assert!(!grew || limit.is_none_or(|limit| gate.held <= limit), "{}", scope);
            }
        }
        for ticket in live {
            world.queue.release(world.now, ticket);
        }
        assert_empty(&world.queue);
    }
}

/// What always holds, whatever was done.
fn check(queue: &Queue) {
    let mut line = BTreeSet::new();
    let mut gates: BTreeMap<&Scope, (usize, usize, BTreeSet<Place>)> = BTreeMap::new();
    for entry in queue.entries.values() {
        for scope in &entry.scopes {
            let gate = gates.entry(scope).or_default();
            match &entry.state {
                State::Running { .. } => gate.0 += 1,
                State::Waiting { place, at } => {
                    gate.1 += 1;
                    line.insert(*place);
                    if at == scope {
                        gate.2.insert(*place);
                    }
                }
                State::Refused(_) => {}
            }
        }
    }
    assert_eq!(queue.line, line);
    for (scope, gate) in &queue.gates {
        let (held, queued, standing) = gates.remove(scope).unwrap_or_default();
        assert_eq!((gate.held, gate.queued, &gate.standing), (held, queued, &standing), "{scope}");
        // A limit that rises by itself lets in at the next turn; there always is one, for somebody runs.
        assert!(standing.is_empty() || held > 0, "{scope}");
        assert!(standing.is_empty() || !queue.has_room(scope) || gate.lowered.is_some(), "{scope}");
        assert!(held + queued > 0 || gate.lowered.is_some(), "{scope} is kept for nobody");
    }
    // What is left of them is refused, and holds nothing.
    assert!(gates.values().all(|(held, queued, _)| held + queued == 0));
}

fn assert_empty(queue: &Queue) {
    assert!(queue.entries.is_empty() && queue.line.is_empty());
    assert!(queue.gauges(queue.now).iter().all(|gauge| gauge.held == 0 && gauge.queued == 0));
    assert!(queue.gates.values().all(|gate| gate.lowered.is_some() && gate.held == 0));
}

fn gauge(scope: Scope, limit: Option<usize>, held: usize) -> Gauge {
    let none = Duration::ZERO;
    Gauge { scope, limit, held, queued: 0, oldest: none, oldest_wait: none }
}
