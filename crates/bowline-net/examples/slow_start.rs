//! A server whose application takes its time to load, and which answers from the first moment.
//!
//! Six components, each busy for `--seconds`, some of which need others. While they load,
//! `/health/live` is 200, `/health/ready` is 503 and tells how far each is, and clients connect.

#![expect(clippy::print_stderr, reason = "an example says where it listens")]

mod flags;

use std::{convert::Infallible, thread, time::Duration};

use bowline_net::{Echo, Progress};
use clap::Parser;

#[derive(Debug, Parser)]
struct SlowFlags {
    #[command(flatten)]
    flags: flags::Flags,
    /// How long each component loads, in seconds.
    #[arg(long, default_value = "3.4", value_parser = parse_seconds)]
    seconds: Duration,
}

/// What there is to load, and what has to be there first. Two chains meet in the last one: with
/// 3.4 s for each it takes 13.6 s until all is ready.
const COMPONENTS: [(&str, &[&str]); 6] = [
    ("settings", &[]),
    ("vocabulary", &["settings"]),
    ("language-model", &["vocabulary"]),
    ("index", &["settings"]),
    ("cache", &[]),
    ("answers", &["language-model", "index", "cache"]),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let SlowFlags { flags, seconds } = SlowFlags::parse();
    let mut builder = flags.builder().namespace("/", Echo);
    for (name, needs) in COMPONENTS {
        builder = builder.component(name, needs, true, move |progress| work(progress, seconds));
    }
    flags::serve(builder)
}

/// Stands for reading a large file: it blocks, and says how far it is.
fn work(progress: &Progress, time: Duration) -> Result<(), Infallible> {
    const STEPS: u32 = 50;
    for step in 1..=STEPS {
        if progress.is_stopping() {
            break;
        }
        thread::sleep(time / STEPS);
        progress.set(f64::from(step) / f64::from(STEPS), format!("part {step} of {STEPS}"));
    }
    Ok(())
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds, please".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
