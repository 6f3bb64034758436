//! The numbers of this crate, each with its reason.

use std::time::Duration;

/// The longest words of a finding, a status or a last line that are kept: a line on a wide terminal, twice.
pub const WORDS_BYTES: usize = 400;

/// How long a service without any probe must live until it counts as ready: as long as supervisord's `startsecs`.
pub const SETTLE: Duration = Duration::from_secs(1);

/// How long what a service left behind may take to see that it is gone (a pipe that closed), before it is told to end.
pub const LEFT_BEHIND: Duration = Duration::from_millis(250);

/// How often what did not end after `SIGKILL` is killed again: new descendants may have appeared meanwhile.
pub const KILL_AGAIN: Duration = Duration::from_secs(1);

/// How long after the first `SIGKILL` it is said that something does not end: only a process that hangs in the kernel
/// survives so long.
pub const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// How much later than its own timeout a check may answer until it counts as failed: it has timed out by itself then,
/// or the machine is so busy that nothing is known.
pub const CHECK_SLACK: Duration = Duration::from_secs(5);

/// The shortest time between two recycles of one service: a service that is too large from its start on would
/// otherwise do nothing else.
pub const RECYCLE_AT_LEAST: Duration = Duration::from_secs(60);

/// By how much of itself a limit of `recycle` is moved by chance, each way, so that services that started together
/// are not recycled together.
pub const RECYCLE_JITTER: f64 = 0.1;

/// How many ends are remembered for a service.
pub const ENDS_KEPT: usize = 5;

/// How many of its last lines are kept with an end.
pub const LAST_LINES: usize = 5;

/// The longest time between two checks of a service that has not been ready yet: whoever waits wants to know.
pub const IMPATIENT: Duration = Duration::from_millis(500);

/// How long a check is being made until `status` says that there is no answer.
pub const SILENT: Duration = Duration::from_secs(1);

/// How long an interpreter may take to say what it is and whether it finds what the service imports. It takes 50 ms;
/// on a cold network file system, seconds.
pub const PROOF: Duration = Duration::from_secs(20);

/// As much as is kept of what it says: a long list of missing modules is 1 KB.
pub const ANSWER_BYTES: usize = 64 * 1024;

/// How long a connection that a check has opened may take to be closed as its protocol wants it.
pub const GOODBYE: Duration = Duration::from_millis(500);

/// The shortest `every` of a check: more often is no check but load.
pub const CHECK_EVERY_AT_LEAST: Duration = Duration::from_millis(50);

/// The shortest `retry` of a crash loop: it is what bounds how often something is started that cannot run.
pub const RETRY_AT_LEAST: Duration = Duration::from_secs(1);

/// The most deaths a crash loop may wait for: each of them is remembered.
pub const DEATHS_MAX: u32 = 1000;

/// The smallest limit of open files: the three streams, the notify socket and what a program opens to start at all.
pub const OPEN_FILES_AT_LEAST: u64 = 16;

/// The smallest log file: a line of the largest size fits twice.
pub const LOG_AT_LEAST_BYTES: u64 = 32 * 1024;

/// The longest time a service can ask for at once (`EXTEND_TIMEOUT_USEC`): it may ask again, and a wrong unit must not
/// keep it from ever being called late.
pub const EXTEND_MAX: Duration = Duration::from_secs(3600);

/// How old a check may be that was told of, while another one has found the same since: of a thousand services, each
/// would otherwise be told of every two seconds.
pub const FRESH: Duration = Duration::from_secs(30);
