//! Runs seeded worlds: `cargo run -p bowline-sim --bin world -- --seeds 1000`, or with `continuity` in
//! front the worlds of sessions that outlive their transports, with `fleet` those of services, with `links` those of
//! connections to services elsewhere.
//!
//! Prints what happened in all of them together. A seed that breaks a promise is named and run once
//! more: its last steps are printed, or, of the second kind, a script as short as can be
//! found and all that happens in it. `--seed N` replays it alone, with `--trace` from the start.

use std::{
    collections::VecDeque,
    fmt::{Debug, Display},
    io::{self, IsTerminal as _, Write},
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use bowline_sim::{
    caught::{self, Fall, catch},
    clock::Stopwatch,
    continuity, fleet, links, world,
};

/// How many steps before a failure are printed.
const LAST_STEPS: usize = 60;

/// How much of each of them.
const LINE_MAX: usize = 300;

/// How often a script is run to make it shorter.
const SHRINK_TRIES: usize = 1_500;

const USAGE: &str = "\
usage: world [engine | continuity | fleet | links] [--seeds COUNT] [--from SEED] [--seed SEED] [--trace]
             [--jobs THREADS] [--no-shrink]";

/// Which worlds there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Engine,
    Continuity,
    Fleet,
    Links,
}

struct Arguments {
    kind: Kind,
    first: u64,
    seeds: u64,
    trace: bool,
    shrink: bool,
    jobs: usize,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    caught::keep_words();
    let held = match arguments.kind {
        Kind::Engine => run(&arguments, world::run, world::Counts::add),
        Kind::Continuity => run(&arguments, continuity::run, continuity::Counts::add),
        Kind::Fleet => run(&arguments, fleet::run, fleet::Counts::add),
        Kind::Links => run(&arguments, links::run, links::Counts::add),
    };
    match held {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// One world, and how it is traced.
type World<C> = fn(u64, Option<&mut dyn FnMut(String)>) -> C;

/// Says whether every world held.
fn run<C: Default + Display + Debug + PartialEq + Send>(
    arguments: &Arguments,
    world: World<C>,
    add: fn(&mut C, &C),
) -> io::Result<bool> {
    let watch = Stopwatch::start();
    let Arguments { first, seeds, .. } = *arguments;
    if arguments.trace {
        let mut print = |line: String| drop(writeln!(io::stdout(), "{line}"));
        return match catch(|| world(first, Some(&mut print))) {
            Ok(counts) => writeln!(io::stdout(), "seed {first}: {counts}").map(|()| true),
            Err(fall) => {
                writeln!(io::stdout(), "seed {first} FAILED: {}", said(&fall)).map(|()| false)
            }
        };
    }
    let end = first.saturating_add(seeds);
    let next = AtomicU64::new(first);
    let over = AtomicBool::new(false);
    let sum = Mutex::new((C::default(), None::<(u64, Fall)>));
    thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                let mut own = C::default();
                while !over.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    match catch(|| world(seed, None)) {
                        Ok(counts) => add(&mut own, &counts),
                        Err(fall) => {
                            over.store(true, Ordering::Relaxed);
                            if let Ok(mut sum) = sum.lock()
                                && sum.1.as_ref().is_none_or(|(other, _)| *other > seed)
                            {
                                sum.1 = Some((seed, fall));
                            }
                        }
                    }
                }
                if let Ok(mut sum) = sum.lock() {
                    add(&mut sum.0, &own);
                }
            });
        }
        scope.spawn(|| progress(&next, &over, first, end, watch));
    });
    let (counts, fell) = sum.into_inner().unwrap_or_default();
    let seconds = watch.elapsed().as_secs_f64();
    let mut out = io::stdout().lock();
    if let Some((seed, fall)) = fell {
        explain(&mut out, arguments, world, seed, &fall)?;
        return Ok(false);
    }
    let rate = seeds as f64 / seconds.max(0.001);
    let last = end.saturating_sub(1);
    writeln!(out, "seeds {first} to {last} in {seconds:.1} s, {rate:.0} a second: {counts}")?;
    Ok(true)
}

/// Says how far it is, on a terminal every second, in a file every minute.
fn progress(next: &AtomicU64, over: &AtomicBool, first: u64, end: u64, watch: Stopwatch) {
    let terminal = io::stderr().is_terminal();
    let every = Duration::from_secs(if terminal { 1 } else { 60 });
    let mut said = Duration::ZERO;
    loop {
        thread::sleep(Duration::from_millis(20));
        let at = next.load(Ordering::Relaxed).min(end);
        let done = at == end || over.load(Ordering::Relaxed);
        if watch.elapsed() - said > every && !done {
            said = watch.elapsed();
            let rate = (at - first) as f64 / said.as_secs_f64();
            let line = format!("seed {at} of {end}, {rate:.0} a second");
            let _ = match terminal {
                true => write!(io::stderr(), "\r\x1b[K{line}"),
                false => writeln!(io::stderr(), "{line}"),
            };
        }
        if done {
            if terminal && !said.is_zero() {
                let _ = write!(io::stderr(), "\r\x1b[K");
            }
            return;
        }
    }
}

/// Runs a seed that fell once more, and prints what helps to understand it.
fn explain<C>(
    out: &mut impl Write,
    arguments: &Arguments,
    world: World<C>,
    seed: u64,
    fall: &Fall,
) -> io::Result<()> {
    if arguments.kind == Kind::Continuity && arguments.shrink {
        writeln!(out, "seed {seed} FAILED: {}\nmaking it shorter …", said(fall))?;
        let short = continuity::shrink(seed, fall, SHRINK_TRIES);
        for line in short.script.iter().chain(&short.trace) {
            writeln!(out, "  {}", line.chars().take(LINE_MAX).collect::<String>())?;
        }
        return writeln!(out, "seed {seed} FAILED: {}", said(&short.fall));
    }
    if arguments.kind == Kind::Links
        && arguments.shrink
        && let Some(short) = links::shrink(seed, fall, SHRINK_TRIES)
    {
        let skipped = short.trace.len().saturating_sub(LAST_STEPS * 4);
        for line in short.script.iter().chain(short.trace.iter().skip(skipped)) {
            writeln!(out, "  {}", line.chars().take(LINE_MAX).collect::<String>())?;
        }
        return writeln!(out, "seed {seed} FAILED: {}", said(&short.fall));
    }
    let mut last = VecDeque::new();
    let mut keep = |line: String| {
        last.push_back(line.chars().take(LINE_MAX).collect::<String>());
        if last.len() > LAST_STEPS {
            last.pop_front();
        }
    };
    let again = catch(|| world(seed, Some(&mut keep)));
    for line in &last {
        writeln!(out, "  {line}")?;
    }
    writeln!(out, "seed {seed} FAILED: {}", said(fall))?;
    if again.is_ok() {
        writeln!(out, "and not when it was run again: something is not from the seed")?;
    }
    Ok(())
}

fn said(fall: &Fall) -> String {
    let words = fall.words.replace('\n', " ");
    let words: String = words.chars().take(10 * LINE_MAX).collect();
    format!("{words} ({})", fall.place)
}

fn parse(words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut words = words.peekable();
    let jobs = thread::available_parallelism().map_or(1, Into::into);
    let mut arguments =
        Arguments { kind: Kind::Engine, first: 0, seeds: 100, trace: false, shrink: true, jobs };
    let kind = words.peek().and_then(|word| match word.as_str() {
        "engine" => Some(Kind::Engine),
        "continuity" => Some(Kind::Continuity),
        "fleet" => Some(Kind::Fleet),
        "links" => Some(Kind::Links),
        _ => None,
    });
    if let Some(kind) = kind {
        arguments.kind = kind;
        words.next();
    }
    while let Some(flag) = words.next() {
        match flag.as_str() {
            "--trace" => arguments.trace = true,
            "--no-shrink" => arguments.shrink = false,
            "--seeds" | "--from" | "--first" | "--seed" | "--jobs" => {
                let value = words.next().ok_or_else(|| format!("{flag} needs a value"))?;
                let number =
                    value.parse().map_err(|_| format!("{flag} needs a number, not {value:?}"))?;
                match flag.as_str() {
                    "--seeds" => arguments.seeds = number,
                    "--seed" => (arguments.first, arguments.seeds) = (number, 1),
                    "--jobs" => arguments.jobs = usize::try_from(number).unwrap_or(1).max(1),
                    _ => arguments.first = number,
                }
            }
            _ => return Err(format!("no flag {flag}")),
        }
    }
    Ok(arguments)
}
