//! The limits of one link, and why they are what they are.

use std::time::Duration;

/// Offers under way at once, each in a room of its own: enough that slow rooms do not hold up others, few enough that a
/// bot that comes back is not overrun.
pub(super) const OFFERS: usize = 32;

/// Bodies of waiting messages that are kept in memory; others are read from the store again when their turn comes.
pub(super) const BODIES_BYTES: usize = 8 << 20;

/// The pause before a message that was not confirmed is offered again; doubled each time.
pub(super) const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// The longest such pause.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Messages that have arrived and are not stored yet. When there are more, connections are not read from.
pub(super) const ARRIVALS: usize = 256;

/// Messages that are stored in one go: the store commits them together.
pub(super) const BATCH: usize = 64;

/// What the bot wants to send while there is no connection, or while it does not take more.
pub(super) const OUTBOUND: usize = 256;

/// The same in bytes.
pub(super) const OUTBOUND_BYTES: usize = 4 << 20;

/// How long that waits for a connection before the bot is told that it was not sent.
pub(super) const OUTBOUND_WAIT: Duration = Duration::from_secs(60);

/// Answers of the service that are waited for.
pub(super) const ASKS: usize = 256;

/// How long.
pub(super) const ASK_WAIT: Duration = Duration::from_secs(60);

/// What bots say, waiting to be looked at.
pub(crate) const SAID: usize = 64;

/// Wishes of operators, waiting.
pub(crate) const ORDERS: usize = 16;

/// Routing round trips that are remembered; the keeper has one or two under way.
pub(super) const PROBES: usize = 8;

/// How long asking the service for what was missed may hold up what arrives meanwhile, so that the order is kept.
pub(super) const CATCH_UP_HOLD: Duration = Duration::from_secs(5);

/// The same, when nothing is known to be missing.
pub(super) const LOOK_HOLD: Duration = Duration::from_secs(1);

/// How long it may take at all.
pub(super) const CATCH_UP: Duration = Duration::from_secs(60);

/// How far back the service is asked: as long as ids are remembered, so that nothing is offered twice.
pub(super) const CATCH_UP_MAX: Duration = Duration::from_secs(23 * 3600);

/// How long fetching the text of a message may take.
pub(super) const FETCH: Duration = Duration::from_secs(90);

/// How long deleting a device may take.
pub(super) const DISCARD: Duration = Duration::from_secs(30);

/// Entries that are read from the store in one go, after a start.
pub(super) const PAGE: usize = 256;

/// How often a link looks for a lease that somebody else has, the first ten times, and afterwards.
pub(super) const LEASE_SOON: Duration = Duration::from_secs(1);
/// See [`LEASE_SOON`].
pub(super) const LEASE: Duration = Duration::from_secs(10);

/// How often the time of the last proof of routing is written down, for the next process.
pub(super) const PROVED: Duration = Duration::from_secs(10);

/// Writes to the store that nobody waits for. When there are more, neither bots nor arrivals are listened to.
pub(super) const BESIDE: usize = 1_024;

/// How long the goodbye of a link may take that is changed, or gone from the configuration.
pub(crate) const FAREWELL: Duration = Duration::from_secs(4);

/// The pause before the task of a link is started again that has panicked; doubled each time.
pub(crate) const RESTART_FIRST: Duration = Duration::from_secs(1);
/// The longest such pause.
pub(crate) const RESTART_MAX: Duration = Duration::from_secs(60);
/// How long it must have run for that to begin anew.
pub(crate) const RESTART_RESET: Duration = Duration::from_secs(600);
