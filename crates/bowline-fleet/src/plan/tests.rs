//! The plan with a fake clock and processes that exist only as numbers.

use std::collections::BTreeMap;

use super::*;
use crate::{
    limit,
    probe::{Finding, Seen},
    spec::{Check, Match, OnOrphan, Recycle, Restart},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A plan, a clock, and what came out.
struct Rig {
    plan: Plan,
    now: Time,
    chance: u64,
    /// The last start of each service, and whether it was as a candidate.
    last: BTreeMap<String, (Instance, Variant)>,
    starts: Vec<String>,
    logged: Vec<Line>,
    answers: BTreeMap<Token, Outcome>,
    over: Option<Vec<String>>,
    token: u64,
    changes: usize,
}

#[test]
fn a_service_without_probes_is_ready_once_it_has_lived_a_second() {
    let mut rig = Rig::begin([plain("web")]);
    assert_eq!(rig.state("web"), State::Starting);
    rig.started("web");
    assert_eq!(rig.state("web"), State::Starting);
    rig.pass(limit::SETTLE);
    assert_eq!(rig.state("web"), State::Ready);
    assert_eq!(rig.view("web").attempts, 1);
    assert_eq!(rig.view("web").ready_after, Some(SECOND));
}

#[test]
fn each_finding_is_named_while_it_is_starting() {
    let mut rig = Rig::begin([probed("web")]);
    rig.started("web");
    let cases = [
        (Finding::Refused, "tcp 127.0.0.1:80: refused"),
        (Finding::Deaf, "tcp 127.0.0.1:80: deaf: accepts connections and says nothing"),
        (starting(40), "tcp 127.0.0.1:80: starting, 40 %: loading"),
        (Finding::Failed { words: "500".into() }, "tcp 127.0.0.1:80: failed: 500"),
    ];
    for (finding, words) in cases {
        rig.pass(limit::IMPATIENT);
        rig.found("web", Phase::Ready, finding.clone());
        let view = rig.view("web");
        assert_eq!(view.state, State::Starting);
        assert_eq!(view.awaited.unwrap().words, words);
        assert_eq!(view.checked.unwrap().finding, finding);
    }
    rig.pass(limit::IMPATIENT);
    rig.found("web", Phase::Ready, Finding::Ready);
    assert_eq!(rig.state("web"), State::Ready);
    assert_eq!(rig.view("web").checked.unwrap().count, 5);
    assert_eq!(rig.view("web").awaited, None);
}

#[test]
fn a_check_without_an_answer_is_named_within_a_second() {
    let mut rig = Rig::begin([probed("web")]);
    rig.started("web");
    rig.pass(limit::SILENT);
    assert_eq!(rig.view("web").awaited.unwrap().words, "tcp 127.0.0.1:80: no answer yet");
}

#[test]
fn a_check_that_never_answers_counts_as_failed_and_is_made_again() {
    let mut rig = Rig::begin([probed("web")]);
    rig.started("web");
    let probe = &probed("web").probes.ready.probes[0];
    let out = rig.pass(probe.timeout + limit::CHECK_SLACK);
    assert_eq!(probes(&out), 0);
    assert!(rig.view("web").awaited.unwrap().words.contains("did not end"));
    assert_eq!(probes(&rig.pass(probe.every)), 1);
}

#[test]
fn ready_is_lost_after_failures_in_a_row_only() {
    let mut rig = Rig::ready([probed("web")]);
    for finding in [Finding::Deaf, Finding::Deaf, Finding::Ready, Finding::Deaf, Finding::Deaf] {
        rig.check("web", Phase::Ready, finding);
        assert_eq!(rig.state("web"), State::Ready);
    }
    rig.check("web", Phase::Ready, Finding::Deaf);
    assert_eq!(rig.state("web"), State::NotReady);
    assert!(rig.view("web").awaited.unwrap().words.contains("deaf"));
    rig.check("web", Phase::Ready, Finding::Ready);
    assert_eq!(rig.state("web"), State::Ready);
    assert_eq!(rig.starts, ["web"], "nobody asked it to be started again");
}

#[test]
fn the_other_checks_wait_for_the_startup_phase() {
    let mut service = probed("web");
    service.probes.startup.probes = vec![tcp(Phase::Startup, 81)];
    service.probes.live.probes = vec![tcp(Phase::Live, 82)];
    let mut rig = Rig::begin([service]);
    let out = rig.started("web");
    assert_eq!(phases(&out), [Phase::Startup]);
    rig.found("web", Phase::Startup, Finding::Refused);
    assert_eq!(phases(&rig.pass(limit::IMPATIENT)), [Phase::Startup]);
    let mut out = rig.found("web", Phase::Startup, Finding::Ready);
    out.extend(rig.pass(Duration::ZERO));
    assert_eq!(phases(&out), [Phase::Ready, Phase::Live]);
    assert_eq!(phases(&rig.pass(MINUTE / 20)), [], "the startup phase does not come back");
}

#[test]
fn one_check_is_enough_where_any_is() {
    let mut service = probed("web");
    service.probes.ready.probes.push(tcp(Phase::Ready, 81));
    let mut all = Rig::begin([service.clone()]);
    service.probes.ready.match_ = Match::Any;
    let mut any = Rig::begin([service]);
    for (rig, state) in [(&mut all, State::Starting), (&mut any, State::Ready)] {
        rig.started("web");
        rig.found_at("web", Phase::Ready, 1, Finding::Ready);
        assert_eq!(rig.state("web"), state);
    }
}

#[test]
fn what_the_service_says_itself_makes_it_ready_and_its_progress_is_shown() {
    let mut service = plain("web");
    service.probes.ready.probes = vec![Probe::new(Phase::Ready, Check::Notify)];
    let mut rig = Rig::begin([service]);
    rig.started("web");
    assert_eq!(rig.view("web").awaited.unwrap().words, "notify: not heard yet");
    rig.word("web", Word::Status("loading engine 3 of 6".into()));
    rig.word("web", Word::Progress(Progress::Parts { done: 3, of: 6 }));
    let awaited = rig.view("web").awaited.unwrap();
    assert_eq!(awaited.progress, Some(Progress::Parts { done: 3, of: 6 }));
    assert!(awaited.words.contains("loading engine 3 of 6"), "{}", awaited.words);
    rig.word("web", Word::Ready);
    assert_eq!(rig.state("web"), State::Ready);
    rig.word("web", Word::Stopping);
    assert_eq!(rig.state("web"), State::NotReady);
}

#[test]
fn a_line_makes_it_ready_for_good() {
    let mut service = plain("web");
    service.probes.ready.probes = vec![Probe::new(Phase::Ready, Check::Log("listening".into()))];
    let mut rig = Rig::begin([service]);
    assert_eq!(probes(&rig.started("web")), 0, "it is not asked");
    let instance = rig.instance("web");
    rig.input(Input::Logged { instance, phase: Phase::Ready, index: 0 });
    assert_eq!(rig.state("web"), State::Ready);
    rig.pass(10 * MINUTE);
    assert_eq!(rig.state("web"), State::Ready);
}

#[test]
fn live_checks_that_fail_end_it_and_starting_is_no_failure() {
    let mut service = plain("web");
    service.probes.live.probes = vec![tcp(Phase::Live, 80)];
    let mut rig = Rig::begin([service]);
    rig.started("web");
    rig.pass(SECOND);
    for _ in 0..5 {
        rig.check("web", Phase::Live, starting(1));
    }
    assert_eq!(rig.state("web"), State::Ready);
    rig.check("web", Phase::Live, Finding::Deaf);
    rig.check("web", Phase::Live, Finding::Deaf);
    let out = rig.check("web", Phase::Live, Finding::Deaf);
    let instance = rig.instance("web");
    assert!(out.contains(&Output::Signal { instance, signal: Signal::Term }));
    assert_eq!(rig.state("web"), State::Stopping);
    assert!(rig.view("web").words.unwrap().contains("deaf"));
    rig.end("web", End::Signal(15));
    assert_eq!(rig.view("web").restarts, BTreeMap::from([(Reason::NotLive, 1)]));
    assert_eq!(rig.state("web"), State::BackingOff);
}

#[test]
fn a_watchdog_that_is_not_fed_ends_it() {
    let mut service = plain("web");
    let mut probe = Probe::new(Phase::Live, Check::Notify);
    (probe.every, probe.failures) = (SECOND, 3);
    service.probes.live.probes = vec![probe];
    let mut rig = Rig::begin([service]);
    rig.started("web");
    for _ in 0..20 {
        rig.pass(SECOND / 2);
        rig.word("web", Word::Watchdog);
    }
    assert_eq!(rig.state("web"), State::Ready);
    for _ in 0..3 {
        rig.pass(SECOND);
    }
    assert_eq!(rig.state("web"), State::Stopping);
}

#[test]
fn it_waits_while_there_is_progress_and_says_when_there_is_none() {
    let mut rig = Rig::begin([probed("web")]);
    rig.started("web");
    for percent in 0..10 {
        rig.keep_finding("web", &starting(percent), 4 * MINUTE);
        assert_eq!(rig.state("web"), State::Starting);
    }
    rig.keep_finding("web", &starting(9), 2 * MINUTE);
    assert_eq!(rig.state("web"), State::NotReady, "said");
    assert_eq!(rig.starts, ["web"], "and not ended");
    assert!(rig.errors().iter().any(|words| words.contains("no progress for 5 min")));
    rig.keep_finding("web", &Finding::Ready, SECOND);
    assert_eq!(rig.state("web"), State::Ready);
}

#[test]
fn a_startup_timeout_ends_it_unless_it_asks_for_time() {
    let mut service = probed("web");
    service.startup_timeout = Some(10 * SECOND);
    let mut rig = Rig::begin([service]);
    rig.started("web");
    rig.pass(9 * SECOND);
    rig.word("web", Word::Extend(5 * SECOND));
    rig.pass(2 * SECOND);
    assert_eq!(rig.state("web"), State::Starting);
    rig.pass(3 * SECOND);
    assert_eq!(rig.state("web"), State::Stopping);
    rig.end("web", End::Signal(15));
    assert_eq!(rig.view("web").restarts, BTreeMap::from([(Reason::NotReady, 1)]));
}

#[test]
fn time_that_is_asked_for_is_bounded() {
    let mut rig = Rig::begin([Service { startup_timeout: Some(SECOND), ..probed("web") }]);
    rig.started("web");
    rig.word("web", Word::Extend(1000 * limit::EXTEND_MAX));
    rig.pass(limit::EXTEND_MAX);
    assert_eq!(rig.state("web"), State::Stopping);
}

#[test]
fn the_pause_doubles_and_chance_only_shortens_it() {
    let mut service = plain("web");
    service.crash_loop.deaths = 100;
    let mut most = [Duration::ZERO; 8];
    for chance in 0..200 {
        let mut rig = Rig::begin([service.clone()]);
        rig.chance = chance;
        for pause in &mut most {
            rig.started("web");
            rig.end("web", End::Code(1));
            let at = rig.view("web").next_try.unwrap();
            *pause = (*pause).max(at - rig.now);
            rig.pass(at - rig.now);
        }
    }
    let expected = [1, 2, 4, 8, 16, 30, 30, 30].map(Duration::from_secs);
    for (most, expected) in most.into_iter().zip(expected) {
        assert!(most <= expected && most > expected.mul_f64(0.9), "{most:?} of {expected:?}");
    }
}

#[test]
fn five_deaths_within_a_minute_are_a_crash_loop_that_says_why_and_goes_on() {
    let mut rig = Rig::begin([plain("web")]);
    rig.chance = 7;
    for _ in 0..4 {
        rig.die("web");
        assert_eq!(rig.state("web"), State::BackingOff);
        rig.retry("web");
    }
    rig.started("web");
    let lines = vec!["Traceback".to_owned(), "KeyError: 'TOKEN'".to_owned()];
    rig.end_with("web", End::Code(1), lines.clone());
    let view = rig.view("web");
    assert_eq!(view.state, State::CrashLoop);
    assert_eq!(view.next_try, Some(rig.now + MINUTE));
    let words = view.words.unwrap();
    assert!(words.contains("5 times within 1 min"), "{words}");
    assert!(words.contains("exited with code 1: KeyError: 'TOKEN'"), "{words}");
    assert_eq!(view.ends.last().unwrap().lines, lines);
    assert_eq!(view.ends.len(), 5);

    rig.retry("web");
    rig.started("web");
    assert_eq!(rig.state("web"), State::CrashLoop, "until it is ready");
    rig.pass(SECOND);
    assert_eq!(rig.state("web"), State::Ready);
    rig.end("web", End::Code(1));
    assert_eq!(rig.state("web"), State::CrashLoop, "it was not well for long");
    rig.retry("web");
    rig.started("web");
    rig.pass(SECOND);
    rig.pass(MINUTE);
    rig.end("web", End::Code(1));
    assert_eq!(rig.state("web"), State::BackingOff, "it was");
    assert_eq!(rig.view("web").restarts, BTreeMap::from([(Reason::Exited, 7)]));
}

#[test]
fn a_hundred_ends_at_once_make_few_starts() {
    let mut rig = Rig::begin([plain("web")]);
    let begin = rig.now;
    while rig.now - begin < 10 * MINUTE {
        rig.die("web");
        rig.retry("web");
    }
    assert!(rig.starts.len() <= 5 + 11, "{} starts", rig.starts.len());
}

#[test]
fn attempts_are_counted_until_it_is_ready() {
    let mut rig = Rig::begin([plain("web")]);
    for _ in 0..2 {
        rig.die("web");
        rig.retry("web");
    }
    rig.started("web");
    rig.pass(SECOND);
    assert_eq!(rig.view("web").attempts, 3);
    rig.end("web", End::Signal(9));
    rig.retry("web");
    assert_eq!(rig.view("web").attempts, 1);
}

#[test]
fn the_restart_policy_is_kept() {
    let cases = [
        (Restart::Always, End::Code(0), State::BackingOff),
        (Restart::OnFailure, End::Code(0), State::Completed),
        (Restart::OnFailure, End::Code(1), State::BackingOff),
        (Restart::OnFailure, End::Unknown, State::BackingOff),
        (Restart::Never, End::Code(0), State::Completed),
        (Restart::Never, End::Signal(9), State::Failed),
    ];
    for (restart, end, state) in cases {
        let mut rig = Rig::begin([Service { restart, ..plain("job") }]);
        rig.started("job");
        rig.end("job", end);
        assert_eq!(rig.state("job"), state, "{restart:?} {end:?}");
        rig.pass(10 * MINUTE);
        let starts = if state == State::BackingOff { 2 } else { 1 };
        assert_eq!(rig.starts.len(), starts);
    }
}

#[test]
fn what_cannot_be_started_is_tried_slowly() {
    let mut rig = Rig::begin([plain("web")]);
    for _ in 0..3 {
        let instance = rig.instance("web");
        let words = "no module named fastapi".to_owned();
        rig.input(Input::NotStarted { instance, words, lasting: true });
        let view = rig.view("web");
        assert_eq!(view.state, State::Failed);
        assert_eq!(view.words.unwrap(), "could not be started: no module named fastapi");
        rig.pass(view.next_try.unwrap() - rig.now);
        assert_eq!(rig.state("web"), State::Failed, "until it is a process");
    }
    assert_eq!(rig.now, Time::ZERO + 3 * MINUTE);
    assert_eq!(rig.errors().len(), 1, "said once: {:?}", rig.logged);
    rig.started("web");
    assert_eq!(rig.state("web"), State::Starting);
}

#[test]
fn needs_are_started_in_order_and_stopped_in_reverse() {
    let mut rig = Rig::begin([
        with_needs("web", &["db", "cache"]),
        plain("cache"),
        with_needs("db", &["disk"]),
        plain("disk"),
    ]);
    assert_eq!(rig.starts, ["cache", "disk"]);
    assert_eq!(rig.view("web").words.unwrap(), "for db (waiting), cache (starting)");
    rig.started("cache");
    rig.started("disk");
    rig.pass(SECOND);
    assert_eq!(rig.starts, ["cache", "disk", "db"]);
    assert_eq!(rig.view("web").words.unwrap(), "for db (starting)");
    rig.started("db");
    rig.pass(SECOND);
    rig.started("web");
    rig.pass(SECOND);

    let out = rig.input(Input::StopAll);
    assert_eq!(signalled(&out), [rig.instance("web")]);
    assert_eq!(rig.view("db").words.unwrap(), "after web");
    assert_eq!(rig.state("db"), State::Stopping);
    let out = rig.end("web", End::Signal(15));
    assert_eq!(signalled(&out), [rig.instance("db"), rig.instance("cache")]);
    rig.end("cache", End::Signal(15));
    let out = rig.end("db", End::Signal(15));
    assert_eq!(signalled(&out), [rig.instance("disk")]);
    assert_eq!(rig.over, None);
    rig.end("disk", End::Code(0));
    assert_eq!(rig.over, Some(vec![]));
    assert_eq!(rig.plan.deadline(), None);
}

#[test]
fn a_job_that_is_needed_must_have_succeeded() {
    let mut web = with_needs("web", &["migrate"]);
    web.needs[0].until = Until::Completed;
    let job = Service { restart: Restart::OnFailure, ..plain("migrate") };
    let mut rig = Rig::begin([web, job]);
    rig.started("migrate");
    rig.pass(10 * SECOND);
    assert_eq!(rig.state("web"), State::Waiting);
    rig.end("migrate", End::Code(0));
    assert_eq!(rig.starts, ["migrate", "web"]);
}

#[test]
fn a_need_that_dies_does_not_take_its_dependants_along() {
    let mut rig = Rig::ready([with_needs("web", &["db"]), plain("db")]);
    rig.end("db", End::Signal(9));
    let view = rig.view("web");
    assert_eq!(view.state, State::Ready);
    assert_eq!(view.words.unwrap(), "needs db, which is backing-off");
    rig.end("web", End::Code(1));
    rig.pass(limit::SETTLE);
    assert_eq!(rig.state("web"), State::Waiting, "but it starts after it");
}

#[test]
fn a_stop_is_a_signal_a_grace_and_a_kill_until_nothing_is_left() {
    let mut rig = Rig::ready([plain("web")]);
    let instance = rig.instance("web");
    let (token, out) = rig.ask("web", Command::Stop);
    assert!(out.contains(&Output::Signal { instance, signal: Signal::Term }));
    assert_eq!(rig.view("web").words.unwrap(), "stopped; told with TERM, killed after 10 s");
    assert!(!rig.pass(9 * SECOND).contains(&Output::Kill { instance }));
    assert!(rig.pass(SECOND).contains(&Output::Kill { instance }));
    rig.input(Input::Exited { instance, end: End::Signal(9), lines: vec![] });
    assert!(rig.pass(SECOND).contains(&Output::Kill { instance }), "something is left");
    assert_eq!(rig.answers.get(&token), None);
    rig.input(Input::Gone { instance });
    assert_eq!(rig.answers[&token], Outcome::Done("stopped".into()));
    assert_eq!(rig.state("web"), State::Stopped);
    rig.pass(10 * MINUTE);
    assert_eq!(rig.starts, ["web"]);
}

#[test]
fn what_does_not_end_is_said_and_holds_up_nobody_for_ever() {
    let mut rig = Rig::ready([plain("web")]);
    let (token, _) = rig.ask("web", Command::Stop);
    rig.pass(10 * SECOND);
    for _ in 0..10 {
        rig.pass(limit::KILL_AGAIN);
    }
    assert!(
        matches!(&rig.answers[&token], Outcome::Failed(words) if words.contains("does not end"))
    );
    assert!(rig.view("web").words.unwrap().contains("hangs in the kernel"));
    rig.input(Input::StopAll);
    assert_eq!(rig.over, Some(vec!["web".to_owned()]));
}

#[test]
fn a_second_stop_of_everything_waits_for_nobody() {
    let mut rig = Rig::ready([with_needs("web", &["db"]), plain("db")]);
    rig.input(Input::StopAll);
    let out = rig.input(Input::StopAll);
    let (web, db) = (rig.instance("web"), rig.instance("db"));
    assert!(out.contains(&Output::Kill { instance: web }), "{out:?}");
    assert!(out.contains(&Output::Kill { instance: db }), "{out:?}");
}

#[test]
fn what_a_leader_leaves_behind_is_ended_before_the_next_start() {
    let mut rig = Rig::ready([plain("web")]);
    let instance = rig.instance("web");
    rig.input(Input::Exited { instance, end: End::Code(0), lines: vec![] });
    assert_eq!(rig.state("web"), State::Stopping);
    assert!(rig.view("web").words.unwrap().contains("left behind"));
    let out = rig.pass(limit::LEFT_BEHIND);
    assert!(out.contains(&Output::Signal { instance, signal: Signal::Term }));
    rig.pass(MINUTE);
    assert_eq!(rig.starts, ["web"], "nothing starts while something is left");
    rig.input(Input::Gone { instance });
    rig.pass(MINUTE);
    assert_eq!(rig.starts, ["web", "web"]);
}

#[test]
fn a_stop_wins_over_a_start_that_is_under_way() {
    let mut rig = Rig::begin([plain("web")]);
    let (restart, _) = rig.ask("web", Command::Restart);
    let (stop, _) = rig.ask("web", Command::Stop);
    assert!(matches!(rig.answers[&restart], Outcome::Failed(_)));
    let out = rig.started("web");
    assert_eq!(signalled(&out), [rig.instance("web")]);
    rig.end("web", End::Signal(15));
    assert_eq!(rig.answers[&stop], Outcome::Done("stopped".into()));
    assert_eq!(rig.starts, ["web"]);
}

#[test]
fn a_stop_wins_over_a_pause_and_a_crash_loop() {
    let mut rig = Rig::begin([plain("web")]);
    rig.die("web");
    let (stop, _) = rig.ask("web", Command::Stop);
    assert_eq!(rig.answers[&stop], Outcome::Done("stopped".into()));
    rig.pass(10 * MINUTE);
    assert_eq!(rig.starts, ["web"]);
    assert_eq!(rig.plan.deadline(), None);
}

#[test]
fn a_start_during_a_stop_comes_after_it() {
    let mut rig = Rig::ready([plain("web")]);
    let (stop, _) = rig.ask("web", Command::Stop);
    let (start, _) = rig.ask("web", Command::Start);
    assert!(matches!(rig.answers[&stop], Outcome::Failed(_)));
    assert_eq!(rig.starts, ["web"]);
    rig.end("web", End::Signal(15));
    assert_eq!(rig.starts, ["web", "web"]);
    rig.started("web");
    rig.pass(SECOND);
    assert_eq!(rig.answers[&start], Outcome::Done("ready after 1 s".into()));
}

#[test]
fn a_start_starts_what_is_needed_too() {
    let mut rig = Rig::ready([with_needs("web", &["db"]), plain("db")]);
    for name in ["web", "db"] {
        rig.ask(name, Command::Stop);
        rig.end(name, End::Signal(15));
    }
    let (token, _) = rig.ask("web", Command::Start);
    assert_eq!(rig.starts, ["db", "web", "db"]);
    rig.started("db");
    rig.pass(SECOND);
    rig.started("web");
    rig.pass(SECOND);
    assert!(matches!(rig.answers[&token], Outcome::Done(_)));
}

#[test]
fn a_start_of_what_runs_says_so() {
    let mut rig = Rig::ready([plain("web")]);
    let (token, _) = rig.ask("web", Command::Start);
    assert!(matches!(rig.answers[&token], Outcome::Done(_)));
    let (token, _) = rig.ask("nothing", Command::Start);
    assert_eq!(rig.answers[&token], Outcome::Unknown);
}

#[test]
fn a_start_that_fails_is_answered_though_it_is_tried_again() {
    let mut rig = Rig::ready([plain("web")]);
    let (token, _) = rig.ask("web", Command::Restart);
    rig.end("web", End::Signal(15));
    assert_eq!(rig.answers.get(&token), None);
    rig.started("web");
    rig.end("web", End::Code(3));
    assert_eq!(rig.answers[&token], Outcome::Failed("exited with code 3".into()));
    assert_eq!(rig.state("web"), State::BackingOff);
}

#[test]
fn a_wish_that_waits_for_what_will_not_come_is_refused() {
    let mut rig = Rig::begin([with_needs("web", &["db"]), plain("db")]);
    let instance = rig.instance("db");
    rig.input(Input::NotStarted { instance, words: "no such file".into(), lasting: true });
    let (token, _) = rig.ask("web", Command::Start);
    assert_eq!(rig.answers[&token], Outcome::Failed("it waits for db, which is failed".into()));
}

#[test]
fn a_restart_with_overlap_stops_the_old_one_when_the_new_one_is_ready() {
    let mut rig = Rig::ready([overlapping("web")]);
    let old = rig.instance("web");
    let (token, _) = rig.ask("web", Command::Restart);
    let new = rig.instance("web");
    assert_ne!(old, new);
    assert_eq!(rig.last["web"].1, Variant::Candidate);
    rig.started("web");
    assert_eq!(rig.state("web"), State::Ready);
    assert_eq!(rig.view("web").candidate.unwrap().instance, new);
    rig.pass(Duration::ZERO);
    let out = rig.found("web", Phase::Ready, Finding::Ready);
    assert!(out.contains(&Output::Promote { instance: new }), "{out:?}");
    assert_eq!(signalled(&out), [old]);
    assert!(matches!(rig.answers[&token], Outcome::Done(_)));
    rig.gone(old, End::Code(0));
    assert_eq!(rig.view("web").stable.unwrap().instance, new);
    assert_eq!(rig.view("web").restarts, BTreeMap::from([(Reason::Asked, 1)]));
}

#[test]
fn a_candidate_that_is_not_ready_in_time_is_ended_and_the_old_one_stays() {
    let mut rig =
        Rig::ready([Service { startup_timeout: Some(10 * SECOND), ..overlapping("web") }]);
    let old = rig.instance("web");
    let (token, _) = rig.ask("web", Command::Restart);
    let new = rig.instance("web");
    rig.started("web");
    let out = rig.pass(10 * SECOND);
    assert_eq!(signalled(&out), [new]);
    rig.end("web", End::Signal(15));
    assert!(matches!(&rig.answers[&token], Outcome::Failed(words) if words.contains("10 s")));
    let view = rig.view("web");
    assert_eq!((view.state, view.stable.unwrap().instance), (State::Ready, old));
    assert!(view.words.unwrap().contains("the one before goes on"));
    assert_eq!(rig.errors().len(), 1);
}

#[test]
fn a_candidate_takes_over_when_the_old_one_dies() {
    let mut rig = Rig::ready([overlapping("web")]);
    let old = rig.instance("web");
    let (token, _) = rig.ask("web", Command::Restart);
    let new = rig.instance("web");
    rig.started("web");
    let out = rig.gone(old, End::Signal(11));
    assert!(out.contains(&Output::Promote { instance: new }), "{out:?}");
    assert_eq!(rig.state("web"), State::Starting);
    assert_eq!(rig.starts.len(), 2, "no third one");
    rig.pass(Duration::ZERO);
    rig.found("web", Phase::Ready, Finding::Ready);
    assert!(matches!(rig.answers[&token], Outcome::Done(_)));
}

#[test]
fn a_stop_ends_both() {
    let mut rig = Rig::ready([overlapping("web")]);
    let old = rig.instance("web");
    rig.ask("web", Command::Restart);
    rig.started("web");
    let new = rig.instance("web");
    let (token, out) = rig.ask("web", Command::Stop);
    assert_eq!(signalled(&out), [new, old]);
    rig.gone(new, End::Signal(15));
    assert_eq!(rig.answers.get(&token), None);
    rig.gone(old, End::Signal(15));
    assert!(matches!(rig.answers[&token], Outcome::Done(_)));
    assert_eq!(rig.state("web"), State::Stopped);
}

#[test]
fn a_reload_restarts_only_what_needs_it() {
    let services = [plain("a"), probed("b"), plain("c"), plain("d")];
    let mut rig = Rig::ready(services.clone());
    let [a, mut b, mut c, _] = services;
    b.probes.ready.probes[0].every = SECOND;
    c.environment.insert("MODE".into(), "fast".into());
    let adjusted = rig.instance("b");
    let gone = rig.instance("d");
    let changed = rig.instance("c");
    let out = rig.input(Input::Configure { services: vec![a, b, c, plain("e")] });
    assert_eq!(signalled(&out), [changed, gone]);
    let adjusts = |output: &Output| matches!(output, Output::Adjust { instance, .. } if *instance == adjusted);
    assert_eq!(out.iter().filter(|output| adjusts(output)).count(), 1);
    assert_eq!(rig.state("b"), State::Ready);
    assert_eq!(rig.starts, ["a", "b", "c", "d", "e"]);
    rig.end("c", End::Signal(15));
    assert_eq!(rig.starts.last().unwrap(), "c");
    assert_eq!(rig.view("c").restarts, BTreeMap::from([(Reason::Changed, 1)]));
    let out = rig.end("d", End::Signal(15));
    assert!(out.contains(&Output::Removed { service: "d".into() }));
    assert_eq!(rig.plan.view("d"), None);
}

#[test]
fn a_change_of_a_crash_loop_is_tried_at_once() {
    let mut rig = Rig::begin([plain("web")]);
    for _ in 0..5 {
        rig.die("web");
        rig.retry("web");
    }
    rig.started("web");
    rig.end("web", End::Code(1));
    assert_eq!(rig.state("web"), State::CrashLoop);
    let mut service = plain("web");
    service.environment.insert("TOKEN".into(), "x".into());
    rig.input(Input::Configure { services: vec![service] });
    assert_eq!(rig.state("web"), State::Starting);
}

#[test]
fn what_is_removed_and_comes_back_while_it_stops_starts_after_that() {
    let mut rig = Rig::ready([plain("web")]);
    rig.input(Input::Configure { services: vec![] });
    rig.input(Input::Configure { services: vec![plain("web")] });
    assert_eq!(rig.starts, ["web"]);
    rig.end("web", End::Signal(15));
    assert_eq!(rig.starts, ["web", "web"]);
}

#[test]
fn orphans_are_adopted_or_ended_and_never_doubled() {
    let mut changed = plain("changed");
    let old = changed.clone();
    changed.environment.insert("A".into(), "b".into());
    let services =
        vec![plain("web"), Service { on_orphan: OnOrphan::End, ..plain("fresh") }, changed];
    let orphans = vec![
        orphan(&plain("web"), 10),
        orphan(&services[1], 11),
        orphan(&old, 12),
        orphan(&plain("gone"), 13),
        Orphan { variant: Variant::Candidate, ..orphan(&plain("web"), 14) },
    ];
    let mut rig = Rig::new();
    let out = rig.input(Input::Begin { services, orphans });
    assert_eq!(rig.starts, [] as [&str; 0], "{out:?}");
    let adopted = |output: &Output| match output {
        Output::Adopt { orphan, end, .. } => Some((orphan.pid, *end)),
        _ => None,
    };
    let mut adopted: Vec<_> = out.iter().filter_map(adopted).collect();
    adopted.sort_unstable();
    assert_eq!(adopted, [(10, false), (11, true), (12, false), (13, true), (14, true)]);
    assert_eq!(signalled(&out).len(), 4, "all but the one that goes on: {out:?}");
    let view = rig.view("web");
    let process = view.stable.unwrap();
    assert_eq!((view.state, process.pid, process.adopted), (State::Ready, Some(10), true));
    assert_eq!(process.before, MINUTE);
    assert_eq!(rig.state("fresh"), State::Stopping);
}

#[test]
fn an_orphan_is_asked_again_unless_only_its_word_counted() {
    let mut said = plain("said");
    said.probes.ready.probes = vec![Probe::new(Phase::Ready, Check::Notify)];
    let services = vec![probed("asked"), said];
    let orphans = services.iter().zip(20..).map(|(service, pid)| orphan(service, pid)).collect();
    let mut rig = Rig::new();
    rig.input(Input::Begin { services, orphans });
    assert_eq!(rig.state("said"), State::Ready);
    assert_eq!(rig.state("asked"), State::Starting);
    rig.pass(Duration::ZERO);
    rig.found("asked", Phase::Ready, Finding::Ready);
    assert_eq!(rig.state("asked"), State::Ready);
}

#[test]
fn an_orphan_that_may_have_said_that_it_is_ready_is_started_anew() {
    let mut said = plain("said");
    said.probes.ready.probes = vec![Probe::new(Phase::Ready, Check::Notify)];
    let orphans = vec![Orphan { ready: false, ..orphan(&said, 10) }];
    let mut rig = Rig::new();
    let out = rig.input(Input::Begin { services: vec![said], orphans });
    assert_eq!(signalled(&out).len(), 1);
}

#[test]
fn an_adopted_service_that_ends_is_started_again() {
    let services = vec![plain("web")];
    let orphans = vec![orphan(&services[0], 10)];
    let mut rig = Rig::new();
    rig.input(Input::Begin { services, orphans });
    rig.end("web", End::Unknown);
    assert_eq!(rig.view("web").restarts, BTreeMap::from([(Reason::Unknown, 1)]));
    rig.retry("web");
    assert_eq!(rig.starts, ["web"]);
}

#[test]
fn recycling_by_age_memory_and_requests_is_jittered_and_seldom() {
    let recycle = Recycle { age: Some(10 * MINUTE), memory: Some(1000), requests: Some(100) };
    let mut rig = Rig::ready([Service { recycle, ..plain("web") }]);
    let due = rig.plan.deadline().unwrap() - Time::ZERO;
    assert!(due > 9 * MINUTE && due < 11 * MINUTE, "{due:?}");
    let measured = |rig: &mut Rig, memory, requests| {
        let instance = rig.instance("web");
        rig.input(Input::Measured { instance, memory: Some(memory), requests: Some(requests) })
    };
    assert_eq!(signalled(&measured(&mut rig, 899, 89)), []);
    assert_eq!(signalled(&measured(&mut rig, 1101, 0)).len(), 1);
    rig.end("web", End::Signal(15));
    rig.started("web");
    rig.pass(SECOND);
    assert_eq!(signalled(&measured(&mut rig, 0, 111)), [], "it was just recycled");
    rig.pass(MINUTE);
    assert_eq!(signalled(&measured(&mut rig, 0, 111)).len(), 1);
    rig.end("web", End::Signal(15));
    rig.started("web");
    rig.pass(SECOND);
    let due = rig.plan.deadline().unwrap() - rig.now;
    assert_eq!(signalled(&rig.pass(due)).len(), 1, "{:?}", rig.view("web"));
    assert_eq!(rig.view("web").restarts, BTreeMap::from([(Reason::Recycled, 3)]));
}

#[test]
fn a_master_that_was_held_does_not_blame_the_services() {
    let mut service = probed("web");
    service.startup_timeout = Some(10 * SECOND);
    let mut rig = Rig::begin([service]);
    rig.started("web");
    rig.now += 3600 * SECOND;
    rig.input(Input::Timeout);
    assert_eq!(rig.state("web"), State::Starting);
}

#[test]
fn what_the_shell_says_late_or_twice_changes_nothing() {
    let mut rig = Rig::ready([plain("web")]);
    let old = rig.instance("web");
    rig.end("web", End::Code(1));
    rig.retry("web");
    let before = rig.view("web");
    for input in [
        Input::Started { instance: old, pid: 5, interpreter: None },
        Input::NotStarted { instance: old, words: String::new(), lasting: true },
        Input::Exited { instance: old, end: End::Code(0), lines: vec![] },
        Input::Gone { instance: old },
        Input::Gone { instance: rig.instance("web") },
        Input::Notified { instance: old, word: Word::Ready },
        Input::Timeout,
    ] {
        assert_eq!(rig.input(input), []);
    }
    assert_eq!(rig.view("web"), before);
}

#[test]
fn a_change_is_told_once() {
    let mut rig = Rig::ready([probed("web")]);
    let mut told = |finding: &Finding, times: u32| {
        rig.changes = 0;
        for _ in 0..times {
            rig.check("web", Phase::Ready, finding.clone());
        }
        rig.changes
    };
    assert_eq!(told(&Finding::Ready, 1), 0);
    assert_eq!(told(&Finding::Deaf, 1), 1);
    assert_eq!(told(&Finding::Deaf, 1), 0);
    assert_eq!(told(&Finding::Ready, 1), 1);
    assert_eq!(told(&Finding::Ready, 40), 2, "so that it is seen to be checked");
}

#[test]
fn the_plan_never_asks_to_be_woken_in_the_past() {
    let mut service = probed("web");
    service.startup_timeout = Some(20 * SECOND);
    service.probes.live.probes = vec![Probe::new(Phase::Live, Check::Notify)];
    let mut rig = Rig::begin([service, plain("db")]);
    rig.started("web");
    rig.started("db");
    for _ in 0..10_000 {
        let Some(at) = rig.plan.deadline() else { break };
        assert!(at >= rig.now);
        rig.now = at;
        rig.input(Input::Timeout);
        assert!(rig.plan.deadline().is_none_or(|at| at > rig.now), "at {:?}", rig.now);
    }
}

impl Rig {
    fn new() -> Self {
        Self {
            plan: Plan::new(),
            now: Time::ZERO,
            chance: 1,
            last: BTreeMap::new(),
            starts: Vec::new(),
            logged: Vec::new(),
            answers: BTreeMap::new(),
            over: None,
            token: 0,
            changes: 0,
        }
    }

    fn begin<const N: usize>(services: [Service; N]) -> Self {
        let mut rig = Self::new();
        rig.input(Input::Begin { services: services.into(), orphans: vec![] });
        rig
    }

    /// All of them ready.
    fn ready<const N: usize>(services: [Service; N]) -> Self {
        let mut rig = Self::begin(services);
        for _ in 0..N {
            let waiting = |view: &View| view.stable.as_ref().is_some_and(|it| it.pid.is_none());
            let launched: Vec<_> = rig.plan.views().into_iter().filter(waiting).collect();
            for view in launched {
                rig.started(&view.name);
                if view_is_probed(&rig, &view.name) {
                    rig.pass(Duration::ZERO);
                    rig.found(&view.name, Phase::Ready, Finding::Ready);
                }
            }
            rig.pass(SECOND);
        }
        for view in rig.plan.views() {
            assert_eq!(view.state, State::Ready, "{view:?}");
        }
        rig
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        let out = self.plan.handle_input(self.now, Chance(self.chance), input);
        for output in &out {
            match output {
                Output::Start { instance, service, variant, .. } => {
                    self.starts.push(service.name.clone());
                    self.last.insert(service.name.clone(), (*instance, *variant));
                }
                Output::Adopt { instance, service, orphan, end: false } => {
                    self.last.insert(service.name.clone(), (*instance, orphan.variant));
                }
                Output::Changed(_) => self.changes += 1,
                Output::Log(line) => self.logged.push(line.clone()),
                Output::Answer { token, outcome } => {
                    let before = self.answers.insert(*token, outcome.clone());
                    assert_eq!(before, None, "answered twice");
                }
                Output::Over { left } => self.over = Some(left.clone()),
                _ => {}
            }
        }
        out
    }

    /// Lets time pass, with every timer on the way.
    fn pass(&mut self, time: Duration) -> Vec<Output> {
        let end = self.now + time;
        let mut out = Vec::new();
        while let Some(at) = self.plan.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            out.extend(self.input(Input::Timeout));
        }
        self.now = end;
        out
    }

    fn instance(&self, service: &str) -> Instance {
        self.last[service].0
    }

    fn started(&mut self, service: &str) -> Vec<Output> {
        let instance = self.instance(service);
        let pid = u32::try_from(instance.0).unwrap() + 1000;
        let mut out = self.input(Input::Started { instance, pid, interpreter: None });
        out.extend(self.pass(Duration::ZERO));
        out
    }

    fn end(&mut self, service: &str, end: End) -> Vec<Output> {
        self.gone(self.instance(service), end)
    }

    fn end_with(&mut self, service: &str, end: End, lines: Vec<String>) {
        let instance = self.instance(service);
        self.input(Input::Exited { instance, end, lines });
        self.input(Input::Gone { instance });
    }

    fn gone(&mut self, instance: Instance, end: End) -> Vec<Output> {
        let mut out = self.input(Input::Exited { instance, end, lines: vec![] });
        out.extend(self.input(Input::Gone { instance }));
        out
    }

    /// Starts and exits with code 1 at once.
    fn die(&mut self, service: &str) {
        self.started(service);
        self.end(service, End::Code(1));
    }

    /// Waits for the next start.
    fn retry(&mut self, service: &str) {
        let at = self.view(service).next_try.unwrap();
        self.pass(at - self.now);
    }

    fn found(&mut self, service: &str, phase: Phase, finding: Finding) -> Vec<Output> {
        self.found_at(service, phase, 0, finding)
    }

    fn found_at(
        &mut self,
        service: &str,
        phase: Phase,
        index: usize,
        finding: Finding,
    ) -> Vec<Output> {
        let instance = self.instance(service);
        let seen = Seen { finding, took: Duration::from_millis(1) };
        self.input(Input::Probed { instance, phase, index, seen })
    }

    /// Waits for a check to be due and answers it.
    fn check(&mut self, service: &str, phase: Phase, finding: Finding) -> Vec<Output> {
        self.pass(2 * SECOND);
        self.found(service, phase, finding)
    }

    /// Answers each check with this, for so long.
    fn keep_finding(&mut self, service: &str, finding: &Finding, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.pass(limit::IMPATIENT);
            self.found(service, Phase::Ready, finding.clone());
        }
    }

    fn word(&mut self, service: &str, word: Word) {
        let instance = self.instance(service);
        self.input(Input::Notified { instance, word });
    }

    fn ask(&mut self, service: &str, command: Command) -> (Token, Vec<Output>) {
        self.token += 1;
        let token = Token(self.token);
        let out = self.input(Input::Asked { service: service.to_owned(), command, token });
        (token, out)
    }

    fn view(&self, service: &str) -> View {
        self.plan.view(service).unwrap()
    }

    fn state(&self, service: &str) -> State {
        self.view(service).state
    }

    fn errors(&self) -> Vec<&str> {
        let errors = self.logged.iter().filter(|line| line.level == Level::Error);
        errors.map(|line| &*line.words).collect()
    }
}

fn view_is_probed(rig: &Rig, service: &str) -> bool {
    rig.view(service).awaited.is_some()
}

fn plain(name: &str) -> Service {
    Service::new(name, Run::Command(vec![name.into()]))
}

fn tcp(phase: Phase, port: u16) -> Probe {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    Probe::new(phase, Check::Tcp(crate::spec::Listen::Tcp(address)))
}

fn probed(name: &str) -> Service {
    let mut service = plain(name);
    service.probes.ready.probes = vec![tcp(Phase::Ready, 80)];
    service
}

fn overlapping(name: &str) -> Service {
    Service { overlap: true, ..probed(name) }
}

fn with_needs(name: &str, needs: &[&str]) -> Service {
    let need = |service: &&str| Need { service: (*service).to_owned(), until: Until::Ready };
    Service { needs: needs.iter().map(need).collect(), ..plain(name) }
}

fn orphan(service: &Service, pid: u32) -> Orphan {
    Orphan {
        service: service.name.clone(),
        variant: Variant::Stable,
        pid,
        identity: format!("id-{pid}"),
        fingerprint: service.fingerprint(),
        age: MINUTE,
        ready: true,
    }
}

fn starting(percent: u8) -> Finding {
    let progress = Some(Progress::Percent(percent));
    Finding::Starting { progress, words: "loading".into() }
}

fn signalled(out: &[Output]) -> Vec<Instance> {
    let instance = |output: &Output| match output {
        Output::Signal { instance, .. } => Some(*instance),
        _ => None,
    };
    out.iter().filter_map(instance).collect()
}

fn phases(out: &[Output]) -> Vec<Phase> {
    let phase = |output: &Output| match output {
        Output::Probe { phase, .. } => Some(*phase),
        _ => None,
    };
    out.iter().filter_map(phase).collect()
}

fn probes(out: &[Output]) -> usize {
    phases(out).len()
}
