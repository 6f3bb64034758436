//! What signals ask for: of the master by people and supervisors, of a gateway by its master.

use std::{fs::File, io};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The end. With the name of the signal.
    Stop(&'static str),
    /// To read the configuration again.
    Reload,
}

/// The signals that ask for something.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    /// Whether the end of the terminal is the end of this process too.
    bound_to_terminal: bool,
}

impl Signals {
    /// Takes them over from the system, which would end the process.
    pub(crate) fn listen() -> io::Result<Self> {
        let bound_to_terminal = has_terminal() && !hangup_is_ignored();
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            bound_to_terminal,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Stop("SIGINT"),
            _ = self.terminate.recv() => Asked::Stop("SIGTERM"),
            // The same signal says that the terminal is gone.
            _ = self.hangup.recv() => if self.bound_to_terminal && !has_terminal() {
                Asked::Stop("SIGHUP")
            } else {
                Asked::Reload
            },
        }
    }
}

/// What the master tells a gateway. Its signals are not those of the terminal or of a supervisor
/// that signals the whole process group: those reach the master as well, and must not count twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// SIGTERM, and SIGUSR1 if no gateway follows: to drain. Said again, it changes nothing.
    Drain,
    /// SIGQUIT: to end at once.
    Cut,
}

/// The signals of a gateway.
pub(crate) struct Orders {
    drain: Signal,
    end: Signal,
    cut: Signal,
    is_last: bool,
    /// Taken over so that they do not end the process, and left to the master.
    _masters: [Signal; 2],
}

impl Orders {
    /// Takes them over from the system, which would end the process.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            drain: signal(SignalKind::terminate())?,
            end: signal(SignalKind::user_defined1())?,
            cut: signal(SignalKind::quit())?,
            is_last: false,
            _masters: [signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?],
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.drain.recv() => Order::Drain,
            _ = self.end.recv() => {
                self.is_last = true;
                Order::Drain
            }
            _ = self.cut.recv() => Order::Cut,
        }
    }

    /// Whether the master has said that no gateway follows this one.
    pub(crate) fn say_it_is_the_last(&self) -> bool {
        self.is_last
    }
}

/// Whether this process belongs to a terminal that is there.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Whether this process was started so as to outlive its terminal, as `nohup` does.
fn hangup_is_ignored() -> bool {
    const HANGUP: u64 = 1 << 0;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & HANGUP != 0)
}
