//! What others may know of the links: for the API, metrics, alerts and the command line. Times are milliseconds since
//! 1970; nothing in here is secret.

use std::{collections::BTreeMap, time::Duration};

use bowline_proto::keeper::{Level, ProbeCause, Reason, Rung, State};
use bowline_store::Counts;

/// One link.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Its name.
    pub name: String,
    /// `webex`, `socketio`, `websocket`.
    pub profile: &'static str,
    /// The service's host.
    pub host: String,
    /// Its state.
    pub state: State,
    /// Since when.
    pub since_unix_ms: u64,
    /// Why, for people; `held by pid 4711 (bowline, /srv/a) since 10:04` while another process has the lease.
    pub words: String,
    /// When the next attempt is made.
    pub next_attempt_unix_ms: Option<u64>,
    /// The age of each level's last proof on the connection in use; `None`: never. Levels that the link does not have
    /// are absent.
    pub levels: BTreeMap<Level, Option<Duration>>,
    /// The connection in use.
    pub connection: Option<ConnectionView>,
    /// The last routing round trip that has ended, over whichever connection.
    pub last_probe: Option<ProbeView>,
    /// When the next routing round trip is due.
    pub next_probe_unix_ms: Option<u64>,
    /// When the connection is renewed at the latest.
    pub renew_unix_ms: Option<u64>,
    /// Why no bot can come to it over the loopback proxy, if it delivers there.
    pub locked_out: Option<String>,
    /// Who is there on the bot's side.
    pub bot: crate::bot::Presence,
    /// What waits.
    pub inbox: Counts,
    /// Messages are refused: they are not stored, and the service hears of no acknowledgement.
    pub full: Option<FullView>,
    /// What was counted since the start of the process.
    pub figures: Figures,
}

/// A connection that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionView {
    /// Its number.
    pub number: u64,
    /// Since when it is open.
    pub since_unix_ms: u64,
    /// Whether another one is beside it just now.
    pub overlapping: bool,
}

/// A routing round trip that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeView {
    /// Why it was made.
    pub cause: ProbeCause,
    /// How it ended: `ok`, `lost` or `not-made`.
    pub outcome: &'static str,
    /// Why it could not be made; else empty.
    pub words: String,
    /// When it ended.
    pub at_unix_ms: u64,
}

/// Why messages find no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullView {
    /// Since when.
    pub since_unix_ms: u64,
    /// Why, for people.
    pub words: String,
}

/// What is counted of a link.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Figures {
    /// Messages that arrived and were new.
    pub messages: u64,
    /// Messages that arrived again.
    pub repeated: u64,
    /// Messages found by asking the service, after a connection was not routed to.
    pub caught_up: u64,
    /// How often the service was asked whether anything is missing.
    pub looks: u64,
    /// Offers to the bot beyond the first of each message.
    pub offered_again: u64,
    /// Messages confirmed.
    pub confirmed: u64,
    /// Messages parked.
    pub parked: u64,
    /// Messages that found no place and were not acknowledged; one that comes again counts again.
    pub refused: u64,
    /// Attempts to open a connection, by how they ended: `ok`, or the name of a verdict.
    pub attempts: BTreeMap<&'static str, u64>,
    /// Connections made, by reason.
    pub renewals: BTreeMap<Reason, u64>,
    /// Renewals that failed, by reason.
    pub renewals_failed: BTreeMap<Reason, u64>,
    /// Routing round trips, by cause and outcome (`ok`, `lost`, `not-made`).
    pub probes: BTreeMap<(ProbeCause, &'static str), u64>,
    /// Rungs of the ladder that were reached.
    pub rungs: BTreeMap<Rung, u64>,
    /// HTTP requests of the bot and of the link, by outcome: `ok`, `retried`, `failed`.
    pub http: BTreeMap<&'static str, u64>,
}

impl Figures {
    /// Whether routing round trips were lost, and none has ever come back: what is said may be nothing that comes back.
    pub fn no_probe_came_back(&self) -> bool {
        let any = |of: &str| self.probes.iter().any(|((_, how), count)| *how == of && *count > 0);
        any("lost") && !any("ok")
    }
}
