//! `cargo xtask guard`: how many instructions the hot paths of the core take, beside the last figures.
//!
//! Callgrind counts them in `bowline-sim`'s `hot`, built with the release profile. The counts do not
//! depend on what else the machine does, so a change of one in a thousand means something. What a
//! figure was the last time stands in docs/benchmarks.md, in rows of the form that is printed here.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use crate::{root, target, test};

/// A path that `hot` goes, and what one of it is.
struct HotPath {
    name: &'static str,
    what: &'static str,
}

const PATHS: &[HotPath] = &[
    HotPath {
        name: "decode",
        what: "a WebSocket frame with 64 bytes, to the event at its handler",
    },
    HotPath { name: "emit", what: "an event for one socket, into the log and to a frame" },
    HotPath { name: "ack", what: "an answer, into the log and to a frame" },
    HotPath {
        name: "encode",
        what: "a broadcast, into the log and to frames with and without offset",
    },
    HotPath { name: "encode-room", what: "a broadcast to a room, into the log and to a frame" },
    HotPath { name: "fan-out", what: "a receiver without offsets" },
    HotPath { name: "fan-out-stamped", what: "a receiver with offsets" },
    HotPath { name: "fan-out-room", what: "a receiver with offsets, in a room" },
    HotPath { name: "ping", what: "a ping that falls due, to its frame" },
    HotPath { name: "pong", what: "the frame of a pong, to the next timer" },
    HotPath {
        name: "handshake",
        what: "a browser's request, its session, CONNECT, and the answers",
    },
    HotPath { name: "turn-end", what: "the end of a turn, with one record that leaves the log" },
];

/// The function of `hot` within which counting is on.
const COUNTED: &str = "--toggle-collect=hot::counted*";

/// What one of a path took.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Figures {
    instructions: f64,
    allocations: f64,
}

pub(crate) fn run(args: &[&str]) -> ExitCode {
    if !args.is_empty() {
        println!("usage: cargo xtask guard");
        return ExitCode::from(2);
    }
    let valgrind = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    if !valgrind.is_ok_and(|status| status.success()) {
        println!("valgrind is not installed: nothing is counted");
        return ExitCode::SUCCESS;
    }
    let build = ["build", "--release", "--locked", "-p", "bowline-sim", "--bin", "hot", "--quiet"];
    if !test::cargo(&build).status().is_ok_and(|status| status.success()) {
        println!("the hot paths were not built: nothing is counted");
        return ExitCode::SUCCESS;
    }
    let last = fs::read_to_string(root().join("docs/benchmarks.md")).unwrap_or_default();
    println!("| path | instructions | allocations | one of it |\n|---|---|---|---|");
    let mut changes = Vec::new();
    for HotPath { name, what } in PATHS {
        match count(name) {
            Ok(figures) => {
                println!("{}", row(name, what, figures));
                changes.push(change(name, figures, last_figures(&last, name)));
            }
            Err(error) => println!("{name} was not counted: {error}"),
        }
    }
    println!("\nagainst docs/benchmarks.md:");
    for change in changes {
        println!("  {change}");
    }
    ExitCode::SUCCESS
}

/// Goes a path under callgrind.
fn count(name: &str) -> Result<Figures, String> {
    let folder = target().join("xtask");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let profile = folder.join(format!("callgrind-{name}.out"));
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(COUNTED)
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(target().join("release").join("hot"))
        .arg(name)
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let instructions = instructions(&profile)?;
    let [times, allocations] =
        ["times", "allocations"].map(|word| number_after(&said, word).unwrap_or_default());
    if times == 0.0 {
        return Err(format!("it said {said:?}"));
    }
    Ok(Figures { instructions: instructions / times, allocations: allocations / times })
}

/// The sum that callgrind writes under its profile.
fn instructions(profile: &Path) -> Result<f64, String> {
    let text = fs::read_to_string(profile).map_err(|error| error.to_string())?;
    let sum = ["summary:", "totals:"].iter().find_map(|word| number_after(&text, word));
    sum.ok_or_else(|| format!("{} has no sum", profile.display()))
}

/// The number that stands behind a word.
fn number_after(text: &str, word: &str) -> Option<f64> {
    let mut words = text.split_whitespace().skip_while(|it| *it != word);
    words.nth(1)?.parse().ok()
}

fn row(name: &str, what: &str, Figures { instructions, allocations }: Figures) -> String {
    format!("| `{name}` | {instructions:.0} | {allocations:.2} | {what} |")
}

/// The figures of the first row of a path: the newest tables stand at the top.
fn last_figures(text: &str, name: &str) -> Option<Figures> {
    text.lines().find_map(|line| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        (cells.next()? == format!("`{name}`")).then_some(())?;
        let mut number = || cells.next()?.replace(',', "").parse().ok();
        Some(Figures { instructions: number()?, allocations: number()? })
    })
}

fn change(name: &str, now: Figures, last: Option<Figures>) -> String {
    let Some(last) = last else { return format!("{name:<16} no last figure") };
    let percent = 100.0 * (now.instructions - last.instructions) / last.instructions.max(1.0);
    let (before, after) = (last.instructions, now.instructions);
    let allocations = match now.allocations - last.allocations {
        more if more.abs() < 0.01 => String::new(),
        more => format!(", {more:+.2} allocations"),
    };
    format!("{name:<16} {before:>7.0} → {after:>7.0} ({percent:+.1} %){allocations}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_as_it_is_written_and_the_first_counts() {
        let figures = Figures { instructions: 1234.0, allocations: 2.5 };
        let older = Figures { instructions: 9999.0, allocations: 9.0 };
        let text = [row("emit", "an event", figures), row("emit", "an event", older)].join("\n");
        assert_eq!(last_figures(&text, "emit"), Some(figures));
        assert_eq!(last_figures(&text, "em"), None);
        let grouped = text.replace("1234", "1,234");
        assert_eq!(last_figures(&grouped, "emit"), Some(figures));
    }

    #[test]
    fn what_callgrind_and_the_paths_say_is_found() {
        assert_eq!(number_after("times 1000 allocations 3\n", "allocations"), Some(3.0));
        assert_eq!(number_after("fn=(1)\n\ntotals: 2523000\n", "totals:"), Some(2_523_000.0));
        assert_eq!(number_after("times", "times"), None);
    }

    #[test]
    fn a_change_is_told_in_percent() {
        let last = Figures { instructions: 200.0, allocations: 1.0 };
        let now = Figures { instructions: 150.0, allocations: 0.0 };
        let told = change("pong", now, Some(last));
        assert!(told.contains("-25.0 %") && told.contains("-1.00 allocations"), "{told}");
    }
}
