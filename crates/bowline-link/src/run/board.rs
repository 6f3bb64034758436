//! What a link shows: written by its task after each turn, read by everybody.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bowline_dial::Leg;
use bowline_proto::{
    Time,
    keeper::{Keeper, Level, ProbeCause, ProbeOutcome, State},
};
use bowline_store::Inbox;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::{
    bot::{Presence, SharedDeliver},
    clock::{self, Clock},
    far::{Outgoing, Unsaid},
    links::{ProbeAnswer, RenewAnswer},
    settings,
    view::{ConnectionView, Figures, FullView, ProbeView, View},
};

/// What an operator wants of a link.
#[derive(Debug)]
pub(crate) enum Order {
    Probe(oneshot::Sender<ProbeAnswer>),
    Renew(oneshot::Sender<RenewAnswer>),
    Send(Outgoing, oneshot::Sender<Result<Bytes, Unsaid>>),
    /// More waits in the store than the link knows of.
    Reload,
}

/// The board of one link. It outlives the link's task.
#[derive(Debug)]
pub(crate) struct Board {
    clock: Clock,
    inbox: Inbox,
    shown: Mutex<Shown>,
}

#[derive(Debug)]
struct Shown {
    name: String,
    profile: &'static str,
    host: String,
    by_proxy: bool,
    state: State,
    since_unix_ms: u64,
    words: String,
    next_attempt: Option<Time>,
    levels: BTreeMap<Level, Option<Time>>,
    connection: Option<(u64, Time, bool)>,
    last_probe: Option<ProbeView>,
    next_probe: Option<Time>,
    renew_at: Option<Time>,
    full: Option<FullView>,
    deliver: Option<SharedDeliver>,
    leg: Option<Leg>,
    figures: Figures,
    orders: Option<mpsc::Sender<Order>>,
}

impl Board {
    pub(crate) fn new(clock: Clock, inbox: Inbox, link: &settings::Link) -> Self {
        let shown = Shown {
            name: link.name.clone(),
            profile: kind(&link.profile),
            host: String::new(),
            by_proxy: is_by_proxy(link),
            state: State::Off,
            since_unix_ms: clock::unix_ms(),
            words: "it begins".into(),
            next_attempt: None,
            levels: BTreeMap::new(),
            connection: None,
            last_probe: None,
            next_probe: None,
            renew_at: None,
            full: None,
            deliver: None,
            leg: None,
            figures: Figures::default(),
            orders: None,
        };
        Self { clock, inbox, shown: Mutex::new(shown) }
    }

    /// What everybody may know. `locked_out` is why the loopback proxy is not served.
    pub(crate) fn view(&self, locked_out: Option<&str>) -> View {
        let now = self.clock.now();
        let unix = |at: Time| self.clock.unix_ms_of(at);
        let shown = self.shown();
        let age = |at: Option<Time>| at.map(|at| now.since(at));
        let view = View {
            name: shown.name.clone(),
            profile: shown.profile,
            host: shown.host.clone(),
            state: shown.state,
            since_unix_ms: shown.since_unix_ms,
            words: shown.words.clone(),
            next_attempt_unix_ms: shown.next_attempt.map(unix),
            levels: shown.levels.iter().map(|(level, at)| (*level, age(*at))).collect(),
            connection: shown.connection.map(|(number, since, overlapping)| ConnectionView {
                number,
                since_unix_ms: unix(since),
                overlapping,
            }),
            last_probe: shown.last_probe.clone(),
            next_probe_unix_ms: shown.next_probe.map(unix),
            renew_unix_ms: shown.renew_at.map(unix),
            locked_out: locked_out.filter(|_| shown.by_proxy).map(str::to_owned),
            bot: Presence { connections: 0, words: "nobody yet".into() },
            inbox: self.inbox.counts(&shown.name),
            full: shown.full.clone(),
            figures: shown.figures.clone(),
        };
        let (deliver, leg) = (shown.deliver.clone(), shown.leg.clone());
        drop(shown);
        Self::completed(view, deliver, leg)
    }

    /// Adds what others know, whom the lock does not wait for.
    fn completed(mut view: View, deliver: Option<SharedDeliver>, leg: Option<Leg>) -> View {
        if let Some(deliver) = deliver {
            view.bot = deliver.presence();
        }
        if let Some(leg) = leg {
            let figures = leg.figures();
            view.figures.http = BTreeMap::from([
                ("failed", figures.failed),
                ("ok", figures.ok),
                ("retried", figures.retried),
            ]);
        }
        view
    }

    /// Where orders for the link's task go; `None` while it has none.
    pub(crate) fn orders(&self) -> Option<mpsc::Sender<Order>> {
        self.shown().orders.clone()
    }

    pub(crate) fn set_orders(&self, orders: mpsc::Sender<Order>) {
        self.shown().orders = Some(orders);
    }

    /// The settings have changed.
    pub(crate) fn set_link(&self, link: &settings::Link) {
        let mut shown = self.shown();
        shown.profile = kind(&link.profile);
        shown.by_proxy = is_by_proxy(link);
    }

    pub(super) fn set_host(&self, host: String, leg: Option<Leg>) {
        let mut shown = self.shown();
        shown.host = host;
        shown.leg = leg;
    }

    pub(super) fn set_deliver(&self, deliver: SharedDeliver) {
        self.shown().deliver = Some(deliver);
    }

    /// The state is another one, or for another reason.
    pub(crate) fn set_state(&self, state: State, words: &str) {
        let mut shown = self.shown();
        if shown.state != state {
            shown.since_unix_ms = clock::unix_ms();
        }
        shown.state = state;
        words.clone_into(&mut shown.words);
    }

    /// The task has ended: nothing is open any more.
    pub(crate) fn set_off(&self, words: &str) {
        self.set_state(State::Off, words);
        let mut shown = self.shown();
        shown.next_attempt = None;
        shown.connection = None;
        shown.next_probe = None;
        shown.renew_at = None;
        shown.full = None;
        shown.orders = None;
    }

    /// Shows what the keeper knows.
    pub(super) fn publish(&self, keeper: &Keeper) {
        let (levels, connection) = (keeper.levels(), keeper.connection());
        let mut shown = self.shown();
        shown.next_attempt = keeper.next_attempt();
        shown.levels = levels;
        shown.connection = connection.map(|(id, since, overlapping)| (id.0, since, overlapping));
        shown.next_probe = keeper.next_probe();
        shown.renew_at = keeper.renew_at();
    }

    /// A routing round trip has ended.
    pub(super) fn set_probed(&self, cause: ProbeCause, outcome: &'static str, words: &str) {
        let mut shown = self.shown();
        *shown.figures.probes.entry((cause, outcome)).or_default() += 1;
        let (words, at_unix_ms) = (words.to_owned(), clock::unix_ms());
        shown.last_probe = Some(ProbeView { cause, outcome, words, at_unix_ms });
    }

    /// Whether what is said as a `probe` may be wrong.
    pub(super) fn doubts_probe(&self) -> bool {
        let shown = self.shown();
        shown.profile != "webex" && shown.figures.no_probe_came_back()
    }

    /// Messages are refused, or not any more.
    pub(super) fn set_full(&self, full: Option<FullView>) {
        self.shown().full = full;
    }

    /// Counts something.
    pub(super) fn count(&self, count: impl FnOnce(&mut Figures)) {
        count(&mut self.shown().figures);
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Order {
    /// Answers that the link does not do anything now.
    pub(crate) fn refuse(self, words: &str) {
        // Whoever asked may have gone meanwhile.
        match self {
            Self::Probe(answer) => {
                let outcome = ProbeOutcome::Impossible(words.to_owned());
                let _ = answer.send(ProbeAnswer { outcome, took: Duration::ZERO });
            }
            Self::Renew(answer) => {
                let _ = answer.send(RenewAnswer::NotRenewed { words: words.to_owned() });
            }
            Self::Send(_, answer) => {
                let _ = answer.send(Err(words.into()));
            }
            // It is read when the link begins.
            Self::Reload => {}
        }
    }
}

/// All boards, by name.
pub(crate) type Boards = Arc<Mutex<BTreeMap<String, Arc<Board>>>>;

fn kind(profile: &settings::Profile) -> &'static str {
    match profile {
        settings::Profile::WebSocket { .. } => "websocket",
        settings::Profile::SocketIo { .. } => "socketio",
        settings::Profile::Webex { .. } => "webex",
    }
}

fn is_by_proxy(link: &settings::Link) -> bool {
    matches!(link.deliver, settings::Deliver::Proxy { .. })
}
