//! What the operating system says of this process, as far as `/proc` tells.

use std::{fs, sync::OnceLock, time::Duration};

use bowline_names::Metric;
use jiff::Timestamp;
use rustix::{
    io::Errno,
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

use crate::{
    clock,
    metrics::{Sample, one},
};

/// The figures of this process: descriptors, memory, processor time. Where there is no `/proc`,
/// only those that do not need it.
pub(crate) fn samples() -> Vec<Sample> {
    let stat = fs::read_to_string("/proc/self/stat").ok().and_then(|line| Stat::parse(&line));
    let max = getrlimit(Resource::Nofile).current;
    [
        one(Metric::OpenFds, open_fds(max)),
        one(Metric::MaxFds, max.map(|max| max as f64)),
        one(Metric::ProcessResidentBytes, stat.map(|stat| stat.resident_bytes as f64)),
        one(Metric::ProcessCpuSeconds, stat.map(|stat| stat.cpu.as_secs_f64())),
        one(
            Metric::ProcessStartTimeSeconds,
            started().map(|time| time.as_millisecond() as f64 / 1_000.0),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// When this process was started, to a hundredth of a second.
pub(crate) fn started() -> Option<Timestamp> {
    // Reckoned once: each time it would come out a hundredth different.
    static STARTED: OnceLock<Option<Timestamp>> = OnceLock::new();
    *STARTED.get_or_init(|| {
        let stat = Stat::parse(&fs::read_to_string("/proc/self/stat").ok()?)?;
        let up = up_time(&fs::read_to_string("/proc/uptime").ok()?)?;
        clock::timestamp().checked_sub(up.saturating_sub(stat.started_after_boot)).ok()
    })
}

/// Counts the open descriptors without the one that it takes to count them.
fn open_fds(max: Option<u64>) -> Option<f64> {
    // Since Linux 6.2 this is their number, and takes neither a descriptor nor a look at each.
    if let Ok(folder) = fs::metadata("/proc/self/fd")
        && folder.len() > 0
    {
        return Some(folder.len() as f64);
    }
    match fs::read_dir("/proc/self/fd") {
        Ok(entries) => Some(entries.count().saturating_sub(1) as f64),
        // None is left to look with.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::MFILE) => {
            max.map(|max| max as f64)
        }
        Err(_) => None,
    }
}

/// What is used here of a line of `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    /// In user and in kernel mode, all threads.
    cpu: Duration,
    started_after_boot: Duration,
    resident_bytes: u64,
}

impl Stat {
    fn parse(line: &str) -> Option<Self> {
        // The second field is a name in parentheses that may hold anything, spaces too. The
        // numbers below are those of proc(5), which counts from one.
        const AFTER_NAME: usize = 3;
        let (_, rest) = line.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - AFTER_NAME)?.parse::<u64>().ok();
        Some(Self {
            cpu: ticks(field(14)? + field(15)?),
            started_after_boot: ticks(field(22)?),
            resident_bytes: field(24)? * page_size() as u64,
        })
    }
}

fn ticks(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64)
}

/// How long the machine has been up, from `/proc/uptime`.
fn up_time(text: &str) -> Option<Duration> {
    let seconds: f64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Value;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let line = "7 (a b) c) S 1 7 7 0 -1 4194304 9 0 0 0 100 50 0 0 20 0 3 0 1234 99 10 \
                    18446744073709551615 1 1 0";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(stat.cpu, ticks(150));
        assert_eq!(stat.started_after_boot, ticks(1234));
        assert_eq!(stat.resident_bytes, 10 * page_size() as u64);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_start_of_a_process_is_a_moment_ago_and_stays_the_same() {
        let started = started().unwrap();
        let age = clock::timestamp().duration_since(started);
        // A test's process is young, and clocks of hundredths may be one behind.
        assert!((-20..600_000).contains(&age.as_millis()), "{age:?}");
        assert_eq!(super::started(), Some(started));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_descriptor_that_is_opened_is_counted() {
        let max = getrlimit(Resource::Nofile).current;
        let few = open_fds(max).unwrap();
        let held: Vec<_> = (0..50).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();
        // Other tests open and close theirs meanwhile.
        assert!(open_fds(max).unwrap() >= few + 20.0);
        drop(held);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn every_figure_of_a_live_process_is_above_zero() {
        let samples = samples();
        assert_eq!(samples.len(), 5);
        for Sample { metric, value, .. } in samples {
            // The processor's clock counts in hundredths, and a test may not have used one.
            let least = if metric == Metric::ProcessCpuSeconds { 0.0 } else { 1.0 };
            assert!(matches!(value, Value::Number(value) if value >= least), "{metric:?}");
        }
    }
}
