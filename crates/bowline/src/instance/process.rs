//! A process, told from every other that ever had its number.

use std::{fs, io};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The boot of this machine; empty where the system does not say.
pub(super) fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// When a process began, in ticks since the boot. `None` when there is none, or none that runs: a
/// process that has ended and awaits its parent has let go of everything.
pub(super) fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&stat)
}

/// Reads state and start time. The name in parentheses may hold anything, parentheses too.
fn parse_stat(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Sends a signal to the process that began at `ticks`, and to no other.
///
/// The descriptor pins the process before its start time is read; between the two looks the number
/// cannot change hands.
///
/// # Errors
/// `NotFound` when that process is gone, and those of the system.
pub(super) fn signal(pid: u32, ticks: u64, signal: Signal) -> io::Result<()> {
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
    let process = pidfd_open(number, PidfdFlags::empty()).map_err(|error| match error {
        rustix::io::Errno::SRCH => gone(),
        error => error.into(),
    })?;
    if start_ticks(pid) != Some(ticks) {
        return Err(gone());
    }
    pidfd_send_signal(process, signal).map_err(|error| match error {
        rustix::io::Errno::SRCH => gone(),
        error => error.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let stat = "7 (a) S (b) S 1 7 7 0 -1 4194560 9 0 0 0 1 2 0 0 20 0 1 0 12345 10 5";
        assert_eq!(parse_stat(stat), Some(12345));
    }

    #[test]
    fn a_process_that_awaits_its_parent_is_gone() {
        let stat = "7 (bowline) Z 1 7 7 0 -1 4194560 9 0 0 0 1 2 0 0 20 0 1 0 12345 10 5";
        assert_eq!(parse_stat(stat), None);
    }

    #[test]
    fn another_process_with_the_number_gets_no_signal() {
        let pid = std::process::id();
        let ticks = start_ticks(pid).unwrap();
        // This would end the test.
        let error = signal(pid, ticks + 1, Signal::KILL).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
