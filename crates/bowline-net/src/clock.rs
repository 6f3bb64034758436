//! The only file of this crate that reads a clock.

use std::time::{Duration, Instant, SystemTime};

use bowline_proto::Time;

/// One moment on both clocks: the one that deadlines and durations are of, and the one people read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) time: Time,
    pub(crate) wall: SystemTime,
}

/// The clock of a process: what [`Time`] counts from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    zero: Instant,
}

impl Clock {
    /// Starts the clock. It counts from one second, so that "before the start" can be said.
    #[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
    pub(crate) fn start() -> Self {
        let now = Instant::now();
        Self { zero: now.checked_sub(Duration::from_secs(1)).unwrap_or(now) }
    }

    /// The time now.
    #[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
    pub(crate) fn now(self) -> Time {
        let micros = Instant::now().duration_since(self.zero).as_micros();
        Time::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// The time now, on both clocks.
    #[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
    pub(crate) fn moment(self) -> Moment {
        Moment { time: self.now(), wall: SystemTime::now() }
    }

    /// When this process began, as exactly as the kernel says: to 10 ms.
    #[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
    pub(crate) fn start_of_process() -> Instant {
        let now = Instant::now();
        process_age().and_then(|age| now.checked_sub(age)).unwrap_or(now)
    }

    /// A point in time as the system counts them.
    #[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
    pub(crate) fn system_now() -> Instant {
        Instant::now()
    }

    /// A point in time as tokio's timers want it. Points beyond reach are a year away.
    pub(crate) fn instant(self, at: Time) -> tokio::time::Instant {
        const FAR: Duration = Duration::from_secs(365 * 86_400);
        let after = Duration::from_micros(at.as_micros());
        let instant = self.zero.checked_add(after).unwrap_or(self.zero + FAR);
        tokio::time::Instant::from_std(instant)
    }
}

/// How long this process has been running.
fn process_age() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program may hold anything, a closing parenthesis too; the 20th field after it
    // is when the process began, in ticks since the machine did.
    let fields = stat.rsplit_once(')')?.1;
    let ticks = fields.split_ascii_whitespace().nth(19)?.parse::<u64>().ok()?;
    let began = ticks.checked_mul(1_000)? / rustix::param::clock_ticks_per_second();
    let uptime = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let uptime = Duration::try_from(uptime).ok()?;
    uptime.checked_sub(Duration::from_millis(began))
}
