//! The master's numbers, each with its reason.

use std::time::Duration;

use rustix::process::Signal as Number;

/// The first pause after a gateway that never answered is up to this: long enough that a program
/// that cannot start does not keep a core busy, short enough that nobody waits for it.
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(100);

/// No pause is longer: what kept it from starting may be gone, and clients wait in the backlog.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// A gateway that lived as long and answered is replaced without any pause.
pub(crate) const SETTLED: Duration = Duration::from_secs(1);

/// How long a gateway may be silent. It says every [`ALIVE`] that its shards turn; no turn takes
/// as long as this on a machine that works.
pub(crate) const LIFE: Duration = Duration::from_secs(30);

/// How often a gateway says so.
pub(crate) const ALIVE: Duration = Duration::from_secs(5);

/// A wake-up that is later than this was not due to a busy machine: the whole process was held,
/// and the gateway perhaps with it.
pub(crate) const LATE: Duration = Duration::from_secs(2);

/// What a gateway may take beyond `server.drain` before it is killed.
pub(crate) const DRAIN_GRACE: Duration = Duration::from_secs(10);

/// What a gateway may take to end once it was told not to drain any more. It has nothing left to
/// do: one that is still there was stopped, or hangs.
pub(crate) const CUT_GRACE: Duration = Duration::from_secs(2);

/// What the service manager is asked for while components load. The gateway says where it is more
/// often than that.
pub(crate) const EXTENSION: Duration = Duration::from_secs(30);

/// The number of the signal that tells a gateway to drain, since the server ends.
pub(crate) const SIGUSR1: i32 = Number::USR1.as_raw();

/// The number of SIGHUP, the same on every Unix.
pub(crate) const SIGHUP: i32 = 1;

/// The number of SIGINT, the same on every Unix.
pub(crate) const SIGINT: i32 = 2;

/// The number of SIGTERM, the same on every Unix.
pub(crate) const SIGTERM: i32 = 15;

/// The number of SIGQUIT, the same on every Unix.
pub(crate) const SIGQUIT: i32 = 3;

/// What is asked on the control socket and waits for the main loop: people and scripts, not crowds.
pub(crate) const WISHES: usize = 32;

/// Connections to the control socket at a time; the next one waits.
pub(crate) const CONTROL_CONNECTIONS: usize = 32;

/// A connection to the control socket that asks nothing for as long makes room.
pub(crate) const CONTROL_IDLE: Duration = Duration::from_secs(60);

/// How long accepting rests when the system does not hand over a connection.
pub(crate) const CONTROL_PAUSE: Duration = Duration::from_millis(100);

/// The longest request that is passed on.
pub(crate) const REQUEST_BYTES: usize = 1 << 20;

/// The longest answer of a gateway: a listing of some ten thousand sockets.
pub(crate) const ANSWER_BYTES: usize = 32 << 20;

/// What the gateway may take for its part of the status. It is told without it then.
pub(crate) const STATUS_PATIENCE: Duration = Duration::from_secs(2);

/// How long the master rests before it tells a gateway again what it could not be told.
pub(crate) const TELL_AGAIN: Duration = Duration::from_secs(1);

/// What the gateway may take to answer what is passed on: an emit that waits for acks takes up to
/// 60 s.
pub(crate) const FORWARD_PATIENCE: Duration = Duration::from_secs(70);

/// What the gateway may take for a reload: it reads certificates and asks every shard.
pub(crate) const RELOAD_PATIENCE: Duration = Duration::from_secs(20);

/// How long a reload waits for a gateway that is starting.
pub(crate) const RELOAD_START: Duration = Duration::from_secs(10);

/// How many gateways are asked in one reload, if each dies over it.
pub(crate) const RELOAD_ATTEMPTS: u32 = 3;

/// From this size on memory has pages of its own in a gateway, which go back to the system when it
/// is freed. It is what glibc begins with; left alone it raises it with each larger piece that is
/// freed, and then keeps the most that slow receivers ever made it hold.
pub(crate) const OWN_PAGES_BYTES: usize = 128 * 1024;
