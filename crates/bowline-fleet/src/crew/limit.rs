//! The numbers of the crew, each with its reason.

use std::time::Duration;

/// How many wishes wait for the crew. It takes one in no time.
pub(super) const WISHES: usize = 256;

/// How many events wait for the loop; whoever brings another waits.
pub(super) const EVENTS: usize = 256;

/// How long the last lines of a process that has ended are waited for.
pub(super) const LAST_LINES: Duration = Duration::from_secs(1);

/// How long is waited at the end until what was printed is written.
pub(super) const LAST_WRITTEN: Duration = Duration::from_secs(5);

/// Whoever waits for a child does so at once: one that is still there after so long was left behind
/// by a check or a proof, and nobody does.
pub(super) const FORGOTTEN: Duration = Duration::from_secs(60);

/// How often is looked who belongs to which service when nothing happens: those who leave their
/// parents and clean their environment must be seen before.
pub(super) const LOOK_IDLE: Duration = Duration::from_secs(5);

/// How often is looked while an end is awaited, and just after a start.
pub(super) const LOOK_BUSY: Duration = Duration::from_millis(50);

/// A look takes at most this part of the time: on a machine with many processes it takes long.
pub(super) const LOOK_SHARE: u32 = 10;

/// How long an instance is killed again and again before the plan is asked what then.
pub(super) const KILL_FOR: Duration = Duration::from_secs(1);

/// After how many tries it is said that what an earlier server has left cannot be found out.
pub(super) const ORPHAN_LOOKS: u32 = 10;

/// How long is waited between these: until files are closed, or a disk answers.
pub(super) const ORPHAN_PAUSE: Duration = Duration::from_secs(1);
