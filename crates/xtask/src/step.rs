//! One step of a test run: a command, its output kept, its tests counted.

use std::{
    fs::{self, File},
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use crate::{
    clock::{Watch, shown},
    target,
};

/// How the tests of a step are counted from its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    /// The step is one test.
    Step,
    /// The last line with numbers sums up all.
    Last,
    /// Every line with numbers counts (`cargo test` sums up each binary).
    Sum,
}

/// What came of a step.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) time: Duration,
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// What it printed.
    pub(crate) output: String,
    /// The line of its output that is shown in the summary.
    pub(crate) note: String,
}

impl Outcome {
    /// Shows the last line with these words in the summary, behind what is shown already.
    pub(crate) fn noting(mut self, words: &str) -> Self {
        if let Some(line) = self.output.lines().rev().find(|line| line.contains(words)) {
            if !self.note.is_empty() {
                self.note.push_str("; ");
            }
            self.note.push_str(line.trim());
        }
        self
    }
}

/// Runs a command as a step. `patience` ends one that hangs.
pub(crate) fn run(name: &str, mut command: Command, count: Count, patience: Duration) -> Outcome {
    let watch = Watch::start();
    let log = log_path(name);
    let ended = start(&mut command, &log).and_then(|child| wait(name, child, watch, patience));
    let output = fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let output = strip_colours(&output.unwrap_or_default());
    let (passed, failed) = match count {
        Count::Step => (0, 0),
        Count::Last | Count::Sum => numbers(&output, count),
    };
    let problem = match ended {
        Ok(Some(status)) if status.success() => None,
        Ok(Some(status)) => Some(status.to_string()),
        Ok(None) => Some(format!("still running after {}, ended", shown(patience))),
        Err(error) => Some(format!("did not start: {error}")),
    };
    finish(name, watch, (passed, failed), output, problem)
}

/// Runs a step that is a function of this program.
pub(crate) fn call(name: &str, work: impl FnOnce() -> Result<String, String>) -> Outcome {
    let watch = Watch::start();
    match work() {
        Ok(output) => finish(name, watch, (0, 0), output, None),
        Err(output) => finish(name, watch, (0, 0), output, Some("failed".to_owned())),
    }
}

fn finish(
    name: &str,
    watch: Watch,
    (passed, failed): (u64, u64),
    output: String,
    problem: Option<String>,
) -> Outcome {
    let time = watch.read();
    let mut outcome =
        Outcome { name: name.to_owned(), time, passed, failed, output, note: String::new() };
    match problem {
        None if passed + failed == 0 => outcome.passed = 1,
        None => {}
        Some(problem) => {
            // A step that fails has failed, whatever its tests say.
            outcome.failed = failed.max(1);
            outcome.output.push_str(&format!("\n({problem})"));
        }
    }
    let sign = if outcome.failed == 0 { "ok" } else { "FAILED" };
    say(&format!("{name:<24} {sign:<7} {:>10}", shown(time)), true);
    outcome
}

fn start(command: &mut Command, log: &Path) -> io::Result<Child> {
    let file = File::create(log)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()
}

/// Waits for the end; `None` when patience was over first.
fn wait(
    name: &str,
    mut child: Child,
    watch: Watch,
    patience: Duration,
) -> io::Result<Option<ExitStatus>> {
    let terminal = io::stdout().is_terminal();
    if !terminal {
        say(&format!("{name} …"), true);
    }
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if watch.read() > patience {
            end_tree(child.id());
            child.wait()?;
            return Ok(None);
        }
        if terminal {
            say(&format!("{name:<24} …       {:>10}", shown(watch.read())), false);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Ends a process and everything it started.
fn end_tree(pid: u32) {
    let listing = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output();
    let listing = listing.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let listing = listing.unwrap_or_default();
    let pairs: Vec<(u32, u32)> = (listing.lines())
        .filter_map(|line| {
            let mut words = line.split_whitespace().map(str::parse);
            Some((words.next()?.ok()?, words.next()?.ok()?))
        })
        .collect();
    let mut tree = vec![pid];
    let mut next = 0;
    while next < tree.len() {
        let parent = tree[next];
        tree.extend(pairs.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    let pids: Vec<String> = tree.iter().map(u32::to_string).collect();
    // Those that have gone already are no loss.
    let _ = Command::new("kill").arg("-KILL").args(pids).stderr(Stdio::null()).status();
}

fn log_path(name: &str) -> PathBuf {
    let folder = target().join("xtask");
    // If it cannot be made, opening the file says why.
    let _ = fs::create_dir_all(&folder);
    folder.join(format!("{}.log", name.replace([' ', '/'], "-")))
}

/// Prints a line; on a terminal the next one may take its place.
fn say(text: &str, last: bool) {
    let mut out = io::stdout().lock();
    let terminal = out.is_terminal();
    // A closed pipe ends the run soon enough.
    let _ = match (terminal, last) {
        (true, true) => writeln!(out, "\r\x1b[K{text}"),
        (true, false) => write!(out, "\r\x1b[K{text}"),
        (false, _) => writeln!(out, "{text}"),
    };
    let _ = out.flush();
}

/// Finds the numbers of tests in an output, in the words of every runner in use.
fn numbers(output: &str, count: Count) -> (u64, u64) {
    let mut sum = (0, 0);
    let mut pending = (None, None);
    for line in output.lines() {
        let (passed, failed) = line_numbers(line);
        if count == Count::Sum {
            sum.0 += passed.unwrap_or(0);
            sum.1 += failed.unwrap_or(0);
        } else {
            // A line that says both starts anew; node says them on lines of their own.
            if passed.is_some() {
                pending = (passed, failed.or(if is_node(line) { pending.1 } else { None }));
            } else if failed.is_some() {
                pending.1 = failed;
            }
        }
    }
    if count == Count::Sum { sum } else { (pending.0.unwrap_or(0), pending.1.unwrap_or(0)) }
}

fn is_node(line: &str) -> bool {
    line.starts_with("ℹ ") || line.starts_with("# ")
}

fn line_numbers(line: &str) -> (Option<u64>, Option<u64>) {
    let words: Vec<&str> =
        line.split([' ', '\t']).map(|word| word.trim_matches([',', ';', ':', '='])).collect();
    let before = |name: &str| {
        (words.windows(2)).find(|pair| pair[1] == name).and_then(|pair| pair[0].parse().ok())
    };
    let after = |name: &str| match words.as_slice() {
        [_, word, number] if is_node(line) && *word == name => number.parse().ok(),
        _ => None,
    };
    let passed = before("passed").or_else(|| before("equal")).or_else(|| after("pass"));
    let failed = before("failed").or_else(|| before("different")).or_else(|| after("fail"));
    (passed, failed)
}

fn strip_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\x1b[") {
        plain.push_str(&rest[..at]);
        let code = &rest[at + 2..];
        let end = code.find(|c: char| c.is_ascii_alphabetic()).map_or(code.len(), |end| end + 1);
        rest = &code[end..];
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_counted_in_the_words_of_every_runner() {
        let cases = [
            ("test result: ok. 12 passed; 0 failed; 0 ignored", Count::Sum, (12, 0)),
            ("3 passed; 1 failed;\n4 passed; 0 failed;", Count::Sum, (7, 1)),
            (
                "     Summary [   1.2s] 9 tests run: 8 passed, 1 failed, 2 skipped",
                Count::Last,
                (8, 1),
            ),
            ("=== 1 failed, 11 passed in 3.21s ===", Count::Last, (11, 1)),
            ("ℹ tests 5\nℹ pass 4\nℹ fail 1\nℹ skipped 0", Count::Last, (4, 1)),
            ("2 passed, 3 failed\n60 passed, 0 failed", Count::Last, (60, 0)),
            (
                "60 scripts: 58 equal or intended (3 with a reason), 2 different",
                Count::Last,
                (58, 2),
            ),
            ("nothing to see", Count::Last, (0, 0)),
        ];
        for (output, count, expected) in cases {
            assert_eq!(numbers(output, count), expected, "{output}");
        }
    }

    #[test]
    fn colours_are_taken_out() {
        assert_eq!(strip_colours("\x1b[1;32mok\x1b[0m 5 passed"), "ok 5 passed");
    }
}
