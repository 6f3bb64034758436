//! Scenarios over a clock that stands still until it is told to go, and any number of random ones.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Subject = Queue<u8, (u8, u8), u32>;

/// Session and socket.
const A: (u8, u8) = (1, 0);
const B: (u8, u8) = (2, 0);

const LIMITS: Limits =
    Limits { timeout: Duration::from_secs(5), max_concurrent: 2, jobs: 8, bytes: 1_000, lane: 4 };

fn ms(ms: u64) -> Time {
    Time::from_micros(ms * 1_000)
}

/// A queue, a clock and what is under way.
struct Scene {
    queue: Subject,
    now: Time,
    running: BTreeMap<u32, JobId>,
}

impl Scene {
    fn new(limits: Limits) -> Self {
        Self { queue: Queue::new(limits), now: ms(1_000), running: BTreeMap::new() }
    }

    fn push(&mut self, socket: (u8, u8), job: u32) -> bool {
        self.push_as(socket, Kind::Event, job)
    }

    fn push_as(&mut self, socket: (u8, u8), kind: Kind, job: u32) -> bool {
        let pushed = self.queue.push(self.now, socket.0, socket, kind, 10, job);
        self.queue.check();
        pushed.is_ok()
    }

    fn tell(&mut self, socket: (u8, u8), kind: Kind, job: u32) -> Vec<u32> {
        let dropped = self.queue.tell(self.now, socket.0, socket, kind, 10, job);
        self.queue.check();
        dropped
    }

    fn leave(&mut self, socket: (u8, u8), farewell: u32) -> Vec<u32> {
        let dropped = self.queue.leave(self.now, socket.0, socket, 10, farewell);
        self.queue.check();
        dropped
    }

    /// What starts now, and what fails.
    fn poll(&mut self) -> (Vec<u32>, Vec<(u32, Why)>) {
        let (mut started, mut failed) = (Vec::new(), Vec::new());
        while let Some(output) = self.queue.poll(self.now) {
            self.queue.check();
            match output {
                Output::Start { id, job, deadline } => {
                    assert!(deadline > self.now);
                    self.running.insert(job, id);
                    started.push(job);
                }
                Output::Failed { job, why } => failed.push((job, why)),
            }
        }
        // Otherwise its driver would spin.
        assert!(self.queue.poll_timeout().is_none_or(|at| at > self.now));
        (started, failed)
    }

    fn starts(&mut self, wanted: &[u32]) {
        assert_eq!(self.poll(), (wanted.to_vec(), vec![]));
    }

    fn over(&mut self, job: u32) -> Vec<u32> {
        self.finish(job, Attempt::Over { taken: true, member: true })
    }

    fn refused(&mut self, job: u32) -> Vec<u32> {
        self.finish(job, Attempt::NotSent { job, retry_after: None })
    }

    fn finish(&mut self, job: u32, attempt: Attempt<u32>) -> Vec<u32> {
        let id = self.running.remove(&job).unwrap();
        let dropped = self.queue.finish(self.now, id, attempt, 1.0);
        self.queue.check();
        dropped
    }

    fn wait(&mut self, for_ms: u64) {
        self.now += Duration::from_millis(for_ms);
    }
}

#[test]
fn a_session_has_one_request_under_way_and_keeps_its_order() {
    let mut scene = Scene::new(LIMITS);
    for job in 1..=3 {
        assert!(scene.push(A, job));
    }
    scene.starts(&[1]);
    scene.starts(&[]);
    scene.over(1);
    scene.starts(&[2]);
    scene.over(2);
    scene.starts(&[3]);
    scene.over(3);
    assert_eq!((scene.queue.waiting(), scene.queue.running()), (0, 0));
    assert!(scene.queue.lanes.is_empty());
}

#[test]
fn the_sockets_of_one_session_share_its_lane() {
    let mut scene = Scene::new(LIMITS);
    scene.push((1, 0), 1);
    scene.push((1, 1), 2);
    scene.starts(&[1]);
    scene.over(1);
    scene.starts(&[2]);
}

#[test]
fn sessions_take_turns() {
    let mut scene = Scene::new(Limits { max_concurrent: 1, ..LIMITS });
    for job in 1..=4 {
        scene.push(A, job);
    }
    scene.push(B, 10);
    scene.push(B, 11);
    let mut order = Vec::new();
    loop {
        let (started, _) = scene.poll();
        let Some(job) = started.first() else { break };
        order.push(*job);
        scene.over(*job);
    }
    assert_eq!(order, [1, 10, 2, 11, 3, 4]);
}

#[test]
fn no_more_than_max_concurrent_are_under_way_and_those_that_wait_for_a_place_are_counted() {
    let mut scene = Scene::new(LIMITS);
    for session in 1..=4 {
        scene.push((session, 0), u32::from(session));
    }
    scene.starts(&[1, 2]);
    assert_eq!(scene.queue.waits(), 2);
    scene.over(2);
    scene.starts(&[3]);
    scene.over(1);
    scene.over(3);
    scene.starts(&[4]);
    // The second of a lane waits for the first, not for a place.
    scene.push((4, 0), 5);
    assert_eq!(scene.queue.waits(), 2);
}

#[test]
fn what_finds_no_place_comes_back_but_a_farewell_always_finds_one() {
    let mut scene = Scene::new(LIMITS);
    for job in 1..=4 {
        assert!(scene.push(A, job));
    }
    assert!(!scene.push(A, 5), "a lane holds four");
    for job in 6..=9 {
        assert!(scene.push(B, job));
    }
    assert!(!scene.push((3, 0), 10), "the queue holds eight");
    assert!(scene.push_as((3, 0), Kind::Disconnect, 11));
    // What is under way does not wait.
    scene.starts(&[1, 6]);
    assert!(scene.push(A, 12));
    assert!(!scene.push(A, 13));
    let mut scene = Scene::new(Limits { bytes: 25, ..LIMITS });
    assert!(scene.push(A, 1) && scene.push(A, 2) && !scene.push(A, 3));
    assert_eq!(scene.queue.push(scene.now, 1, A, Kind::Event, usize::MAX, 4), Err(4));
}

#[test]
fn a_job_that_was_not_sent_in_time_has_failed() {
    let mut scene = Scene::new(LIMITS);
    scene.push(A, 1);
    scene.push(A, 2);
    scene.starts(&[1]);
    scene.wait(4_999);
    scene.starts(&[]);
    assert_eq!(scene.queue.poll_timeout(), Some(ms(6_000)));
    scene.wait(1);
    // The first is under way: its deadline is with whoever sent it.
    assert_eq!(scene.poll(), (vec![], vec![(2, Why::Late)]));
    scene.over(1);
    assert!(scene.queue.lanes.is_empty());
}

#[test]
fn an_app_that_starts_gets_what_was_waiting_in_order() {
    let mut scene = Scene::new(LIMITS);
    for job in 1..=3 {
        scene.push(A, job);
    }
    scene.push(B, 10);
    scene.starts(&[1, 10]);
    scene.refused(1);
    // Under way when the gate was shut: it says nothing new, and does not double the pause.
    scene.refused(10);
    assert!(scene.queue.is_shut());
    assert_eq!(scene.queue.poll_timeout(), Some(ms(1_050)));
    scene.wait(50);
    // One knock at a time, in turn.
    scene.starts(&[1]);
    scene.refused(1);
    scene.wait(99);
    scene.starts(&[]);
    scene.wait(1);
    scene.starts(&[10]);
    // One that hangs lets the next one try.
    scene.wait(100);
    scene.starts(&[1]);
    scene.over(1);
    assert!(!scene.queue.is_shut());
    scene.starts(&[2]);
    scene.over(10);
    scene.over(2);
    scene.starts(&[3]);
}

#[test]
fn an_app_that_does_not_come_fails_what_waits_as_unavailable() {
    let mut scene = Scene::new(LIMITS);
    scene.push(A, 1);
    scene.push(A, 2);
    let mut knocks = 0;
    while scene.now < ms(5_900) {
        let (started, failed) = scene.poll();
        assert!(failed.is_empty());
        for job in started {
            knocks += 1;
            scene.refused(job);
        }
        scene.now = scene.queue.poll_timeout().unwrap().min(ms(5_900));
    }
    // 50, 100, 200, 400, 800 ms, then every second.
    assert_eq!(knocks, 9);
    scene.now = ms(6_000);
    assert_eq!(scene.poll().1, [(1, Why::Unavailable), (2, Why::Unavailable)]);
    assert!(scene.queue.jobs.is_empty());
}

#[test]
fn an_app_may_say_when_it_wants_to_be_asked_again() {
    let mut scene = Scene::new(LIMITS);
    scene.push(A, 1);
    scene.starts(&[1]);
    let retry_after = Some(Duration::from_secs(2));
    scene.finish(1, Attempt::NotSent { job: 1, retry_after });
    assert_eq!(scene.queue.poll_timeout(), Some(ms(3_000)));
    scene.wait(2_000);
    scene.starts(&[1]);
    // Next year is not waited for.
    let retry_after = Some(Duration::from_secs(86_400 * 365));
    scene.finish(1, Attempt::NotSent { job: 1, retry_after });
    assert_eq!(scene.queue.poll_timeout(), Some(ms(6_000)));
    assert_eq!(
        scene.queue.gate,
        Gate::Shut {
            since: ms(3_000),
            until: ms(8_000),
            failures: 2,
            pause: Duration::from_secs(5),
        }
    );
}

#[test]
fn what_waits_for_a_socket_that_has_left_is_not_sent_but_its_farewell_is() {
    let mut scene = Scene::new(LIMITS);
    scene.push((1, 0), 1);
    scene.push((1, 0), 2);
    scene.push((1, 1), 3);
    scene.starts(&[1]);
    assert_eq!(scene.leave((1, 0), 99), [2]);
    scene.over(1);
    scene.starts(&[3]);
    scene.over(3);
    scene.starts(&[99]);
    scene.over(99);
    assert!(scene.queue.lanes.is_empty());
}

#[test]
fn a_socket_that_the_app_has_never_heard_of_leaves_without_a_word() {
    let mut scene = Scene::new(LIMITS);
    scene.push(A, 1);
    scene.push_as((1, 1), Kind::Connect, 2);
    scene.starts(&[1]);
    assert_eq!(scene.leave((1, 1), 99), [2]);
    scene.over(1);
    scene.starts(&[]);

    // Refused by the app while it left.
    scene.push_as(A, Kind::Connect, 3);
    scene.starts(&[3]);
    assert!(scene.leave(A, 98).is_empty());
    assert_eq!(scene.finish(3, Attempt::Over { taken: true, member: false }), [98]);
    scene.starts(&[]);

    // Never sent.
    scene.push_as(A, Kind::Connect, 4);
    scene.starts(&[4]);
    scene.leave(A, 97);
    assert_eq!(scene.refused(4), [4, 97]);
    scene.starts(&[]);
    assert!(scene.queue.lanes.is_empty());

    // Let in while it left.
    let mut scene = Scene::new(LIMITS);
    scene.push_as(A, Kind::Connect, 5);
    scene.starts(&[5]);
    scene.leave(A, 96);
    assert!(scene.over(5).is_empty());
    scene.starts(&[96]);
}

#[test]
fn who_is_away_or_back_is_told_in_turn_and_finds_a_place() {
    let mut scene = Scene::new(LIMITS);
    for job in 1..=4 {
        assert!(scene.push(A, job));
    }
    // The lane is full, and so is the queue with the next four.
    assert!(scene.tell(A, Kind::Away, 5).is_empty());
    for job in 6..=9 {
        scene.push(B, job);
    }
    assert!(scene.tell(A, Kind::Back, 10).is_empty());
    assert!(!scene.push(A, 11));
    let mut order = Vec::new();
    while let Some(job) = scene.poll().0.first().copied() {
        order.push(job);
        scene.over(job);
        for other in scene.running.keys().copied().collect::<Vec<_>>() {
            scene.over(other);
        }
    }
    order.retain(|job| !(6..=9).contains(job));
    assert_eq!(order, [1, 2, 3, 4, 5, 10]);
}

#[test]
fn a_socket_that_comes_and_goes_has_two_words_waiting_at_most() {
    let mut scene = Scene::new(LIMITS);
    // Its lane is busy.
    scene.push(A, 1);
    scene.starts(&[1]);
    assert!(scene.tell(A, Kind::Away, 2).is_empty());
    assert!(scene.tell(A, Kind::Back, 3).is_empty());
    scene.push(A, 4);
    // Away, back and away again is away; the event is one of somebody who is there.
    assert_eq!(scene.tell(A, Kind::Away, 5), [2, 3]);
    scene.tell(A, Kind::Back, 6);
    // Another socket of the lane has its own words.
    assert!(scene.tell((1, 1), Kind::Away, 7).is_empty());
    for round in 0..100 {
        let (away, back) = (10 + 2 * round, 11 + 2 * round);
        let last = scene.tell(A, Kind::Away, away);
        assert_eq!(last.len(), 2);
        assert!(scene.tell(A, Kind::Back, back).is_empty());
    }
    assert_eq!(scene.queue.waiting(), 4);
    scene.over(1);
    for job in [4, 7, 208, 209] {
        scene.starts(&[job]);
        scene.over(job);
    }
    assert!(scene.queue.jobs.is_empty());
}

#[test]
fn a_word_on_an_absence_that_the_app_has_not_heard_of_is_saved() {
    let mut scene = Scene::new(LIMITS);
    scene.tell(A, Kind::Away, 1);
    scene.starts(&[1]);
    scene.tell(A, Kind::Back, 2);
    scene.push(A, 3);
    scene.tell(A, Kind::Away, 4);
    // It has heard that the socket is away, and hears once that it is back.
    assert_eq!(scene.tell(A, Kind::Back, 5), [4, 5]);
    scene.over(1);
    scene.starts(&[2]);
    scene.over(2);
    scene.starts(&[3]);
    scene.over(3);
    scene.starts(&[]);
}

#[test]
fn who_leaves_while_away_is_only_said_to_have_left() {
    let mut scene = Scene::new(LIMITS);
    scene.push(A, 1);
    scene.starts(&[1]);
    scene.tell(A, Kind::Away, 2);
    scene.tell(A, Kind::Back, 3);
    assert_eq!(scene.leave(A, 99), [2, 3]);
    scene.over(1);
    scene.starts(&[99]);
}

#[test]
fn an_event_whose_socket_left_is_not_sent_a_second_time() {
    let mut scene = Scene::new(LIMITS);
    scene.push(A, 1);
    scene.starts(&[1]);
    assert!(scene.leave(A, 99).is_empty());
    assert_eq!(scene.refused(1), [1]);
    scene.wait(1_000);
    scene.starts(&[99]);
    // A farewell is tried until its deadline.
    scene.refused(99);
    scene.wait(1_000);
    scene.starts(&[99]);
}

#[test]
fn limits_may_change_under_way() {
    let mut scene = Scene::new(LIMITS);
    for session in 1..=4 {
        scene.push((session, 0), u32::from(session));
    }
    scene.starts(&[1, 2]);
    scene.queue.set_limits(Limits { max_concurrent: 1, ..LIMITS });
    scene.over(1);
    scene.starts(&[]);
    scene.over(2);
    scene.starts(&[3]);
    scene.queue.set_limits(LIMITS);
    scene.starts(&[4]);
}

#[test]
fn many_that_expire_together_all_fail_and_leave_nothing() {
    let limits = Limits { jobs: 100_000, bytes: usize::MAX, ..LIMITS };
    let mut queue: Queue<u32, u32, u32> = Queue::new(limits);
    for session in 0..50_000 {
        queue.push(ms(0), session, session, Kind::Event, 1, session).unwrap();
    }
    let mut failed = 0;
    while let Some(output) = queue.poll(ms(5_000)) {
        failed += usize::from(matches!(output, Output::Failed { .. }));
    }
    assert_eq!(failed, 50_000);
    assert!(queue.lanes.is_empty());
}

/// What can happen.
#[derive(Debug, Clone)]
enum Step {
    Push {
        session: u8,
        socket: u8,
    },
    /// Goes away, or comes back.
    Tell {
        session: u8,
        socket: u8,
    },
    Leave {
        session: u8,
        socket: u8,
    },
    Wait(u64),
    /// Ends one that is under way.
    Finish {
        which: usize,
        how: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..4u8, 0..2u8).prop_map(|(session, socket)| Step::Push { session, socket }),
        2 => (0..4u8, 0..2u8).prop_map(|(session, socket)| Step::Tell { session, socket }),
        1 => (0..4u8, 0..2u8).prop_map(|(session, socket)| Step::Leave { session, socket }),
        2 => prop_oneof![0..200u64, 0..6_000u64].prop_map(Step::Wait),
        5 => (any::<usize>(), 0..5u8).prop_map(|(which, how)| Step::Finish { which, how }),
    ]
}

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Waiting,
    Running,
    Over,
}

/// A socket as its app should see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Never,
    Here,
    Away,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_happens_each_job_has_one_end_and_each_session_its_order(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut scene = Scene::new(LIMITS);
        // By job: session, socket, kind, fate.
        let mut jobs: Vec<((u8, u8), Kind, Fate, Time)> = Vec::new();
        let mut known: BTreeMap<(u8, u8), Known> = BTreeMap::new();
        // By session: the last job that was sent and not taken back.
        let mut last_over: BTreeMap<u8, u32> = BTreeMap::new();

        let settle = |scene: &mut Scene, jobs: &mut Vec<((u8, u8), Kind, Fate, Time)>,
                          last_over: &BTreeMap<u8, u32>| {
            let (started, failed) = scene.poll();
            // What fails at a time does so before anything starts.
            for (job, _) in failed {
                let (_, _, fate, arrived) = &mut jobs[job as usize];
                assert_eq!(*fate, Fate::Waiting);
                assert!(scene.now >= *arrived + LIMITS.timeout);
                *fate = Fate::Over;
            }
            for job in started {
                let (socket, _, fate, arrived) = &mut jobs[job as usize];
                assert_eq!(*fate, Fate::Waiting);
                assert!(scene.now < *arrived + LIMITS.timeout);
                *fate = Fate::Running;
                let session = socket.0;
                assert!(last_over.get(&session).is_none_or(|last| *last < job), "order");
                let earlier = jobs[..job as usize].iter();
                assert!(
                    earlier.clone().all(|(other, .., fate, _)| other.0 != session
                        || *fate == Fate::Over),
                    "all before it in its session are over"
                );
            }
            assert!(scene.queue.running() <= LIMITS.max_concurrent);
            let running = jobs.iter().filter(|(_, _, fate, _)| *fate == Fate::Running).count();
            assert_eq!(running, scene.queue.running());
            let waiting = jobs.iter().filter(|(_, _, fate, _)| *fate == Fate::Waiting).count();
            assert_eq!(waiting, scene.queue.waiting());
        };

        for step in steps {
            match step {
                Step::Push { session, socket } => {
                    let socket = (session, socket);
                    let job = jobs.len() as u32;
                    let first = known.get(&socket).copied().unwrap_or(Known::Never) == Known::Never;
                    let kind = if first { Kind::Connect } else { Kind::Event };
                    if scene.push_as(socket, kind, job) {
                        jobs.push((socket, kind, Fate::Waiting, scene.now));
                        known.entry(socket).or_insert(Known::Here);
                    }
                }
                Step::Tell { session, socket } => {
                    let socket = (session, socket);
                    let (kind, then) = match known.get(&socket) {
                        Some(Known::Here) => (Kind::Away, Known::Away),
                        Some(Known::Away) => (Kind::Back, Known::Here),
                        Some(Known::Never) | None => continue,
                    };
                    known.insert(socket, then);
                    let job = jobs.len() as u32;
                    jobs.push((socket, kind, Fate::Waiting, scene.now));
                    for job in scene.tell(socket, kind, job) {
                        let (of, kind, fate, _) = &mut jobs[job as usize];
                        prop_assert_eq!((*of, *fate), (socket, Fate::Waiting));
                        prop_assert!(matches!(kind, Kind::Away | Kind::Back));
                        *fate = Fate::Over;
                    }
                    // The last word that waits is what is so; if none does, the app knows it.
                    let words = jobs.iter().filter(|(of, kind, fate, _)| {
                        *of == socket
                            && *fate == Fate::Waiting
                            && matches!(kind, Kind::Away | Kind::Back)
                    });
                    let words: Vec<Kind> = words.map(|(_, kind, ..)| *kind).collect();
                    prop_assert!(words.len() <= 3, "{:?}", words);
                    prop_assert!(words.last().is_none_or(|last| *last == kind));
                }
                Step::Leave { session, socket } => {
                    let socket = (session, socket);
                    if known.remove(&socket).is_some() {
                        let job = jobs.len() as u32;
                        jobs.push((socket, Kind::Disconnect, Fate::Waiting, scene.now));
                        let before = scene.queue.waiting();
                        let dropped = scene.leave(socket, job);
                        let added = scene.queue.waiting() + dropped.len() - before;
                        if added == 0 {
                            jobs[job as usize].2 = Fate::Over;
                        }
                        for job in dropped {
                            let (of, _, fate, _) = &mut jobs[job as usize];
                            prop_assert_eq!((*of, *fate), (socket, Fate::Waiting));
                            *fate = Fate::Over;
                        }
                    }
                }
                Step::Wait(for_ms) => scene.wait(for_ms),
                Step::Finish { which, how } => {
                    if scene.running.is_empty() {
                        continue;
                    }
                    let job = *scene.running.keys().nth(which % scene.running.len()).unwrap();
                    let attempt = match how {
                        0 => Attempt::NotSent { job, retry_after: None },
                        1 => Attempt::Over { taken: false, member: false },
                        2 => Attempt::Over { taken: true, member: false },
                        _ => Attempt::Over { taken: true, member: true },
                    };
                    let again = matches!(attempt, Attempt::NotSent { .. });
                    let socket = jobs[job as usize].0;
                    let dropped = scene.finish(job, attempt);
                    jobs[job as usize].2 = if again { Fate::Waiting } else { Fate::Over };
                    if !again {
                        last_over.insert(socket.0, job);
                    }
                    for job in dropped {
                        let (of, _, fate, _) = &mut jobs[job as usize];
                        prop_assert_eq!((*of, *fate), (socket, Fate::Waiting));
                        *fate = Fate::Over;
                    }
                }
            }
            settle(&mut scene, &mut jobs, &last_over);
        }
        // In the end nothing is left.
        let mut rounds = 0;
        while scene.queue.waiting() + scene.queue.running() > 0 {
            let running: Vec<u32> = scene.running.keys().copied().collect();
            for job in running {
                let dropped = scene.over(job);
                jobs[job as usize].2 = Fate::Over;
                prop_assert!(dropped.is_empty());
            }
            scene.wait(500);
            settle(&mut scene, &mut jobs, &last_over);
            rounds += 1;
            prop_assert!(rounds < 1_000);
        }
        prop_assert!(jobs.iter().all(|(_, _, fate, _)| *fate == Fate::Over));
        prop_assert!(scene.queue.jobs.is_empty());
        scene.queue.check();
    }
}
