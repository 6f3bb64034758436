//! A process, told from every other that ever had its number.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::Arc,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, waitid},
};
use serde::{Deserialize, Serialize};
use tokio::io::{Interest, unix::AsyncFd};

use crate::plan::End;

/// A process by number and start, which together name one process of a boot. The number alone is
/// given to another as soon as its process is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The number.
    pub pid: u32,
    /// When it began, in ticks since the boot (field 22 of `/proc/PID/stat`).
    pub ticks: u64,
}

/// A process that is held by a descriptor: signals reach it and no other.
#[derive(Debug)]
pub struct Process {
    key: Key,
    fd: OwnedFd,
}

/// The boot of this machine. Empty where the system does not say.
pub fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

impl Process {
    /// Holds the process `key` if it still runs. One that has ended and awaits its parent does not
    /// run.
    ///
    /// The descriptor pins whoever has the number before the start time is read, so that the number
    /// cannot change hands between the two looks.
    ///
    /// # Errors
    /// Those of `pidfd_open(2)`.
    pub fn find(key: Key) -> io::Result<Option<Self>> {
        let Some(process) = Self::open(key.pid)? else { return Ok(None) };
        let same = process.key.ticks == key.ticks;
        Ok((same && !process.ended()).then_some(process))
    }

    /// Holds whoever has this number now; `None` if nobody has.
    ///
    /// # Errors
    /// Those of `pidfd_open(2)`.
    pub(super) fn open(pid: u32) -> io::Result<Option<Self>> {
        let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let fd = match pidfd_open(number, PidfdFlags::empty()) {
            Ok(fd) => fd,
            // The number of a thread is refused as no process.
            Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Some(stat) = Stat::read(pid) else { return Ok(None) };
        Ok(Some(Self { key: Key { pid, ticks: stat.ticks }, fd }))
    }

    /// Who has this number now and runs.
    pub fn number_key(pid: u32) -> Option<Key> {
        let stat = Stat::read(pid)?;
        (!stat.ended).then_some(Key { pid, ticks: stat.ticks })
    }

    /// Which process it is.
    pub fn key(&self) -> Key {
        self.key
    }

    /// The number.
    pub fn pid(&self) -> u32 {
        self.key.pid
    }

    /// Whether it has ended, awaited by its parent or not.
    pub fn ended(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// Waits up to `timeout` for its end and says whether it has come.
    pub fn wait(&self, timeout: Duration) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        let timeout = Timespec::try_from(timeout).ok();
        matches!(poll(&mut fds, timeout.as_ref()), Ok(1..))
    }

    /// Sends a signal to this process alone.
    ///
    /// # Errors
    /// Those of the system. That it is gone is no error.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        gone_is_fine(rustix::process::pidfd_send_signal(&self.fd, signal))
    }

    /// Sends a signal to all of the group that it leads or has led, in one step.
    ///
    /// Returns false if the kernel cannot (before Linux 6.9): then nobody was sent anything.
    ///
    /// # Errors
    /// Those of the system. That the group is gone is no error.
    #[expect(unsafe_code, reason = "rustix passes no flags to pidfd_send_signal")]
    pub fn signal_group(&self, signal: Signal) -> io::Result<bool> {
        // `PIDFD_SIGNAL_PROCESS_GROUP`
        const GROUP: libc::c_uint = 1 << 2;
        // SAFETY: the descriptor is open, no `siginfo_t` is given, and the kernel checks the rest.
        let done = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.fd.as_raw_fd(),
                signal.as_raw(),
                std::ptr::null::<libc::siginfo_t>(),
                GROUP,
            )
        };
        if done == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINVAL) => Ok(false),
            Some(libc::ESRCH) => Ok(true),
            _ => Err(error),
        }
    }

    /// Takes the status of a child that has ended. [`End::Unknown`] for a process that is nobody's
    /// child here, `None` for one that runs.
    pub fn reap(&self) -> Option<End> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        loop {
            let status = match waitid(WaitId::PidFd(self.fd.as_fd()), options) {
                Ok(Some(status)) => status,
                Ok(None) => return None,
                Err(Errno::INTR) => continue,
                Err(_) => return self.ended().then_some(End::Unknown),
            };
            return Some(match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => End::Code(code),
                (None, Some(signal)) => End::Signal(signal),
                (None, None) => End::Unknown,
            });
        }
    }
}

impl AsFd for Process {
    /// Readable as soon as the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Process {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

fn gone_is_fine(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits for the end of a process. Needs a runtime.
///
/// # Errors
/// Those of the system: too many files are open.
pub async fn ended(process: Arc<Process>) -> io::Result<()> {
    // SAFETY: the descriptor is the process's own, open for as long as that lives, and the value
    // that holds it lives until this returns.
    #[expect(unsafe_code, reason = "tokio cannot know that the descriptor stays open")]
    let fd = unsafe { AsyncFd::register_with_interest(process, Interest::READABLE)? };
    fd.readable().await.map(drop)
}

/// What `/proc/PID/stat` says, as far as it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// Whether it has ended and awaits its parent.
    pub(super) ended: bool,
    pub(super) parent: u32,
    pub(super) group: u32,
    pub(super) session: u32,
    pub(super) ticks: u64,
    pub(super) resident_pages: u64,
}

impl Stat {
    /// Reads it; `None` if there is no such process.
    pub(super) fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name in parentheses may hold anything, parentheses too.
    fn parse(stat: &[u8]) -> Option<Self> {
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let fields = std::str::from_utf8(&stat[end + 1..]).ok()?;
        let mut fields = fields.split_ascii_whitespace();
        let state = fields.next()?;
        let mut number = |skip| fields.nth(skip)?.parse::<u64>().ok();
        let (parent, group, session) = (number(0)?, number(0)?, number(0)?);
        let ticks = number(15)?;
        let resident_pages = number(1)?;
        Some(Self {
            ended: matches!(state, "Z" | "X" | "x"),
            parent: u32::try_from(parent).ok()?,
            group: u32::try_from(group).ok()?,
            session: u32::try_from(session).ok()?,
            ticks,
            resident_pages,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_any_name() {
        let stat = b"7 (a) S (\xffb) Z 1 7 8 0 -1 4194560 9 0 0 0 1 2 0 0 20 0 1 0 12345 10 5 1";
        let expected =
            Stat { ended: true, parent: 1, group: 7, session: 8, ticks: 12345, resident_pages: 5 };
        assert_eq!(Stat::parse(stat), Some(expected));
    }

    #[test]
    fn another_process_with_the_number_is_not_found() {
        let pid = std::process::id();
        let ticks = Stat::read(pid).unwrap().ticks;
        assert!(Process::find(Key { pid, ticks }).unwrap().is_some());
        assert!(Process::find(Key { pid, ticks: ticks + 1 }).unwrap().is_none());
    }
}
