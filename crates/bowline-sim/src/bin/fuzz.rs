//! Fuzzes the decoders on stable Rust:
//! `cargo run -p bowline-sim --bin fuzz -- --target eio4-payload --seconds 20 --seed 1`.
//!
//! Without `--target` every target has its share of the time. A failing input is made small, written
//! to `--failures` (default `target/fuzz-failures`) and named; move it to
//! `crates/bowline-sim/regressions/TARGET/`, where a test replays it. `--input FILE` replays one.

use std::{
    fs,
    io::{self, Write},
    panic,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use bowline_sim::{
    clock::Stopwatch,
    fuzz::{Failure, Plan, Target, drive},
    meter::Counting,
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Arguments {
    targets: Vec<Target>,
    time: Duration,
    seed: u64,
    executions_max: u64,
    failures: PathBuf,
    input: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            let names = Target::ALL.map(Target::name).join(" ");
            let _ = writeln!(
                io::stderr(),
                "{error}\nusage: fuzz [--target NAME] [--seconds N] [--seed N] [--executions N] \
                 [--failures DIR] [--input FILE]\ntargets: {names}"
            );
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

/// Says whether every target held.
fn run(arguments: &Arguments) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    if let Some(path) = &arguments.input {
        let input = fs::read(path)?;
        for target in &arguments.targets {
            target.run(&input);
            writeln!(out, "{}: holds", target.name())?;
        }
        return Ok(true);
    }
    // Panics are results here; their words are printed below.
    panic::set_hook(Box::new(|_| {}));
    let mut good = true;
    let share = arguments.time / u32::try_from(arguments.targets.len()).unwrap_or(1);
    for &target in &arguments.targets {
        let watch = Stopwatch::start();
        let plan = Plan {
            target,
            seed: arguments.seed,
            time: share,
            executions_max: arguments.executions_max,
        };
        let report = drive(&plan);
        writeln!(
            out,
            "{}: {} executions in {:.1?}, seed {}, slowest {:.1?} for {} bytes",
            target.name(),
            report.executions,
            watch.elapsed(),
            arguments.seed,
            report.slowest.0,
            report.slowest.1,
        )?;
        if let Some(failure) = report.failure {
            good = false;
            let path = save(&arguments.failures, target, &failure)?;
            writeln!(out, "{}: FAILED: {}", target.name(), failure.message)?;
            writeln!(
                out,
                "{}: input {:?}",
                target.name(),
                String::from_utf8_lossy(&failure.input)
            )?;
            writeln!(out, "{}: saved as {}", target.name(), path.display())?;
        }
    }
    Ok(good)
}

fn save(folder: &Path, target: Target, failure: &Failure) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    // A name that says the same input twice is one file (FNV-1a).
    let hash = failure.input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let path = folder.join(format!("{}-{hash:016x}", target.name()));
    fs::write(&path, &failure.input)?;
    Ok(path)
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        targets: Target::ALL.to_vec(),
        time: Duration::from_secs(20),
        seed: 1,
        executions_max: u64::MAX,
        failures: PathBuf::from("target/fuzz-failures"),
        input: None,
    };
    while let Some(flag) = words.next() {
        let value = words.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{flag} needs a number, not {value:?}"));
        match flag.as_str() {
            "--target" => {
                let target = Target::from_name(&value);
                arguments.targets = vec![target.ok_or_else(|| format!("no target {value:?}"))?];
            }
            "--seconds" => arguments.time = Duration::from_secs(number()?),
            "--seed" => arguments.seed = number()?,
            "--executions" => arguments.executions_max = number()?,
            "--failures" => arguments.failures = value.into(),
            "--input" => arguments.input = Some(value.into()),
            _ => return Err(format!("no flag {flag}")),
        }
    }
    Ok(arguments)
}
