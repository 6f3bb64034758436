//! A timer that is exact to microseconds: that of epoll counts in milliseconds.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use mio::{Interest, Registry, Token, unix::SourceFd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// Wakes an epoll once.
#[derive(Debug)]
pub(crate) struct Timer {
    fd: OwnedFd,
    /// What it is set to.
    due: Option<Instant>,
}

impl Timer {
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { fd, due: None })
    }

    /// Sets it, unless it is set to that already. It need not be read: setting it anew takes back
    /// that it has gone off.
    pub(crate) fn set(&mut self, due: Instant, left: Duration) -> io::Result<()> {
        if self.due == Some(due) {
            return Ok(());
        }
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?,
        };
        timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once)?;
        self.due = Some(due);
        Ok(())
    }
}
