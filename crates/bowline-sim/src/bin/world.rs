//! Runs seeded worlds around the hub: `cargo run -p bowline-sim --bin world -- --seeds 1000`.
//!
//! Prints what happened in all of them together. A seed that breaks an invariant is named, run once more,
//! and its last steps are printed; `--seed N` replays it alone, with `--trace` from the start.

use std::{
    collections::VecDeque,
    io::{self, Write},
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    sync::{Arc, Mutex},
};

use bowline_sim::{
    clock::Stopwatch,
    world::{self, Counts},
};

/// How many steps before a failure are printed.
const LAST_STEPS: usize = 60;

/// How much of each of them.
const LINE_MAX: usize = 300;

struct Arguments {
    first: u64,
    seeds: u64,
    trace: bool,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            let usage = "usage: world [--seeds COUNT] [--first SEED] [--seed SEED] [--trace]";
            let _ = writeln!(io::stderr(), "{error}\n{usage}");
            return ExitCode::from(2);
        }
    };
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// Says whether every world held.
fn run(arguments: &Arguments) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    let watch = Stopwatch::start();
    let words = Arc::new(Mutex::new(String::new()));
    let heard = Arc::clone(&words);
    panic::set_hook(Box::new(move |info| {
        if let Ok(mut words) = heard.lock() {
            *words = info.to_string();
        }
    }));
    let mut counts = Counts::default();
    for seed in arguments.first..arguments.first.saturating_add(arguments.seeds) {
        if arguments.trace {
            let mut print = |line: String| drop(writeln!(io::stdout(), "{line}"));
            if let Ok(one) =
                panic::catch_unwind(AssertUnwindSafe(|| world::run(seed, Some(&mut print))))
            {
                counts.add(&one);
                continue;
            }
        } else if let Ok(one) = panic::catch_unwind(|| world::run(seed, None)) {
            counts.add(&one);
            continue;
        }
        let mut last = VecDeque::new();
        let mut keep = |line: String| {
            last.push_back(line.chars().take(LINE_MAX).collect::<String>());
            if last.len() > LAST_STEPS {
                last.pop_front();
            }
        };
        let again = panic::catch_unwind(AssertUnwindSafe(|| world::run(seed, Some(&mut keep))));
        for line in &last {
            writeln!(out, "  {line}")?;
        }
        let words = words.lock().map(|words| words.clone()).unwrap_or_default();
        let words: String = words.chars().take(10 * LINE_MAX).collect();
        writeln!(out, "seed {seed} FAILED: {words}")?;
        if again.is_ok() {
            writeln!(out, "and not when it was run again: something is not from the seed")?;
        }
        return Ok(false);
    }
    let last = arguments.first + arguments.seeds.saturating_sub(1);
    writeln!(out, "seeds {} to {last} in {:.1?}: {counts}", arguments.first, watch.elapsed())?;
    Ok(true)
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments { first: 0, seeds: 100, trace: false };
    while let Some(flag) = words.next() {
        if flag == "--trace" {
            arguments.trace = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let number = value.parse().map_err(|_| format!("{flag} needs a number, not {value:?}"))?;
        match flag.as_str() {
            "--seeds" => arguments.seeds = number,
            "--first" => arguments.first = number,
            "--seed" => (arguments.first, arguments.seeds) = (number, 1),
            _ => return Err(format!("no flag {flag}")),
        }
    }
    Ok(arguments)
}
