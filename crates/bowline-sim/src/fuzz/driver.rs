//! Runs a target on inputs from a seed, and makes a failing one small.

use std::{
    panic::{self, AssertUnwindSafe},
    time::Duration,
};

use super::Target;
use crate::{clock::Stopwatch, rng::Rng};

/// An input that takes longer than this counts as failed. A decoder needs microseconds; a machine
/// that is busy may need a thousand times as long.
const SLOW: Duration = Duration::from_secs(2);

/// How long a failing input is made smaller.
const SHRINK: Duration = Duration::from_secs(5);

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The decoder.
    pub target: Target,
    /// Where the random numbers begin.
    pub seed: u64,
    /// How long to go on.
    pub time: Duration,
    /// How many inputs at most.
    pub executions_max: u64,
}

/// What was run.
#[derive(Debug, Clone)]
pub struct Report {
    /// How many inputs.
    pub executions: u64,
    /// The one that took longest: how long, and how large it was.
    pub slowest: (Duration, usize),
    /// The first that failed, which ended the run.
    pub failure: Option<Failure>,
}

/// An input that broke an invariant.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The input, made small.
    pub input: Vec<u8>,
    /// What the panic said.
    pub message: String,
}

/// Carries out `plan`. Panics of the target are caught; the panic hook of the process is left alone.
pub fn drive(plan: &Plan) -> Report {
    let watch = Stopwatch::start();
    let mut rng = Rng::new(plan.seed);
    let mut report = Report { executions: 0, slowest: (Duration::ZERO, 0), failure: None };
    while report.executions < plan.executions_max && watch.elapsed() < plan.time {
        let input = plan.target.input(&mut rng);
        report.executions += 1;
        let (took, failed) = run_one(plan.target, &input);
        report.slowest = report.slowest.max((took, input.len()));
        if failed.is_some() {
            report.failure = Some(shrink(plan.target, input));
            break;
        }
    }
    report
}

/// Runs one input; says how long it took, and why it failed.
fn run_one(target: Target, input: &[u8]) -> (Duration, Option<String>) {
    let watch = Stopwatch::start();
    let result = panic::catch_unwind(AssertUnwindSafe(|| target.run(input)));
    let took = watch.elapsed();
    let failed = match result {
        Ok(()) if took > SLOW => Some(format!("took {took:?}")),
        Ok(()) => None,
        Err(payload) => {
            Some(match (payload.downcast_ref::<String>(), payload.downcast_ref::<&str>()) {
                (Some(message), _) => message.clone(),
                (None, Some(message)) => (*message).to_owned(),
                (None, None) => "panicked without words".to_owned(),
            })
        }
    };
    (took, failed)
}

/// Takes pieces out as long as what is left still fails.
fn shrink(target: Target, mut input: Vec<u8>) -> Failure {
    let watch = Stopwatch::start();
    let mut message = run_one(target, &input).1.unwrap_or_else(|| "failed once only".to_owned());
    let mut piece = input.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        while at < input.len() && watch.elapsed() < SHRINK {
            let mut smaller = input.clone();
            smaller.drain(at..(at + piece).min(input.len()));
            match run_one(target, &smaller).1 {
                Some(failed) => (input, message) = (smaller, failed),
                None => at += piece,
            }
        }
        if piece == 1 || watch.elapsed() >= SHRINK {
            return Failure { input, message };
        }
        piece = piece.div_ceil(2);
    }
}
