//! Permits for what may run at once, and the queue for those who wait.
//!
//! A [`Permit`] is an owned guard: whoever holds it counts, and dropping it, on any path, gives it back. There is no
//! way to give one back twice, and none to keep one without holding the guard. The queue is a plain value with the
//! time as an argument; [`Permits`] is a lock and wakers around it.

mod queue;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    time::Duration,
};

use bowline_proto::Time;
use tokio::time::timeout_at;

use self::queue::{Asked, Queue, Released, Ticket};
use crate::{clock::Clock, limit::LARGE_TOKENS};

/// What a permit counts against.
///
/// A request needs its permits in two goes: `All`, `Model`, `Session` and `Key` once, when it begins; `Provider` for
/// each attempt. Those of a go are granted together or not at all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The gateway: every request.
    All,
    /// A model as clients ask for it.
    Model(Arc<str>),
    /// A client's session, or conversation.
    Session(Arc<str>),
    /// A client's key.
    Key(Arc<str>),
    /// A provider: every attempt at it.
    Provider(Arc<str>),
}

/// How many may run at once. What has no limit is counted all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Requests under way. Default 256.
    pub all: usize,
    /// Of one session. Default 16.
    pub per_session: usize,
    /// Of a model, by its name.
    pub models: BTreeMap<Arc<str>, usize>,
    /// Of a key, by its name.
    pub keys: BTreeMap<Arc<str>, usize>,
    /// Attempts at a provider, by its name.
    pub providers: BTreeMap<Arc<str>, usize>,
    /// Who may wait, all together. Of one session or key that has all it may have, an eighth. Default 1,000.
    pub queued: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            all: 256,
            per_session: 16,
            models: BTreeMap::new(),
            keys: BTreeMap::new(),
            providers: BTreeMap::new(),
            queued: 1_000,
        }
    }
}

/// Who goes first where requests wait.
///
/// It is a head start and no wall: a class stands as if it had come [`AGEING`](crate::limit::AGEING) earlier than the
/// one below it, so nobody waits for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Whoever can wait: batches.
    Low,
    /// Everybody.
    #[default]
    Normal,
    /// Somebody sits in front of it.
    High,
}

/// What somebody wants to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// The id of the request, for the log.
    pub request: Arc<str>,
    /// What it counts against; twice the same counts once.
    pub scopes: Vec<Scope>,
    /// Who goes first.
    pub priority: Priority,
}

/// No permit. The words are to be read after "refused:".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub why: RefusedWhy,
    /// What was full.
    pub scope: Scope,
    /// How long it has waited.
    pub waited: Duration,
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusedWhy {
    /// Too many wait already.
    QueueFull,
    /// Its deadline has passed.
    Deadline,
    /// The limit is zero.
    Closed,
}

/// How a scope stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gauge {
    /// Which.
    pub scope: Scope,
    /// How many may run; `None` is without a limit. Lower than configured while a provider has asked for less.
    pub limit: Option<usize>,
    /// How many run.
    pub held: usize,
    /// How many wait that need it.
    pub queued: usize,
    /// For how long the oldest that runs has.
    pub oldest: Duration,
    /// For how long the oldest that waits has.
    pub oldest_wait: Duration,
}

/// The permits of a gateway. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Permits(Arc<Shared>);

/// The right to run. Dropping it gives it back.
///
/// While somebody waits it is the right to wait: so there is one guard from the first moment on, and no moment at
/// which a future that is dropped leaves anything behind.
#[must_use = "it is given back when it is dropped"]
pub struct Permit {
    shared: Arc<Shared>,
    ticket: Ticket,
    waited: Duration,
}

struct Shared {
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    queue: Queue,
    /// Of those who wait and have been polled.
    wakers: HashMap<Ticket, Waker>,
}

impl Permits {
    /// Permits within these limits.
    pub(crate) fn new(limits: Limits, clock: Clock) -> Self {
        let state = State { queue: Queue::new(limits), wakers: HashMap::new() };
        Self(Arc::new(Shared { clock, state: Mutex::new(state) }))
    }

    /// Waits for its turn, until `deadline` at most. Dropped, it leaves the queue; what it was granted meanwhile is
    /// given back.
    ///
    /// # Errors
    ///
    /// Too many wait already, the deadline has passed, or the limit is zero.
    pub async fn acquire(&self, needs: Needs, deadline: Time) -> Result<Permit, Refused> {
        let Needs { request, scopes, priority } = needs;
        let shared = &self.0;
        let asked = shared
            .with(|queue| queue.ask(shared.clock.now(), &request, &scopes, priority, deadline));
        let permit = |ticket| Permit { shared: Arc::clone(shared), ticket, waited: Duration::ZERO };
        let acquired = match asked {
            Asked::Granted(ticket) => Ok(permit(ticket)),
            Asked::Queued(ticket) => permit(ticket).wait(deadline).await,
            Asked::Refused(refused) => Err(refused),
        };
        match &acquired {
            Ok(permit) => tracing::debug!(
                request = %request, scopes = %Names(&scopes), waited = ?permit.waited, "permit acquired"
            ),
            Err(refused) => tracing::debug!(
                request = %request, scopes = %Names(&scopes), waited = ?refused.waited, error = %refused,
                "permit refused"
            ),
        }
        acquired
    }

    /// The limits have changed. What runs goes on, also where it is more than may be now; who waits for something
    /// whose limit is zero now is refused.
    pub fn reconfigure(&self, limits: Limits) {
        self.0.with(|queue| queue.reconfigure(self.0.clock.now(), limits));
    }

    /// A provider says that as many at once as now are too many for its account (GLM 1302): one less than run may,
    /// and one more again every [`RECOVERY`](crate::limit::RECOVERY), up to what is configured. To be called while
    /// the attempt that was told so still has its permit.
    pub fn on_too_many(&self, scope: &Scope) {
        self.0.with(|queue| queue.lower(self.0.clock.now(), scope));
    }

    /// Lets in who waits for a limit that has risen again meanwhile. To be called every few seconds.
    pub fn rise(&self) {
        self.0.with(|queue| queue.rise(self.0.clock.now()));
    }

    /// How all scopes stand but sessions, in their order.
    pub fn gauges(&self) -> Vec<Gauge> {
        self.0.with(|queue| queue.gauges(self.0.clock.now()))
    }
}

impl Permit {
    /// How long it was waited for.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    async fn wait(mut self, deadline: Time) -> Result<Self, Refused> {
        let Self { shared, ticket, .. } = &self;
        let turn = poll_fn(|cx| shared.poll_turn(*ticket, cx.waker()));
        let turn = match timeout_at(shared.clock.instant(deadline), turn).await {
            Ok(turn) => turn,
            // It may have been granted just now.
            Err(_) => shared.with(|queue| queue.give_up(shared.clock.now(), *ticket)),
        };
        self.waited = turn?;
        Ok(self)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let (released, waker) = self.shared.release(self.ticket);
        drop(waker);
        if let Some(released) = released {
            tracing::debug!(
                request = %released.request, scopes = %Names(&released.scopes), held = ?released.held,
                "permit released"
            );
        }
    }
}

impl Shared {
    /// Does something with the queue, and wakes whose turn it is then.
    fn with<R>(&self, act: impl FnOnce(&mut Queue) -> R) -> R {
        let mut state = self.lock();
        let result = act(&mut state.queue);
        let changed = state.queue.take_changed();
        let wakers: Vec<Waker> =
            changed.iter().filter_map(|ticket| state.wakers.remove(ticket)).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        result
    }

    fn poll_turn(&self, ticket: Ticket, waker: &Waker) -> Poll<Result<Duration, Refused>> {
        let mut state = self.lock();
        let State { queue, wakers } = &mut *state;
        match queue.turn(ticket) {
            Some(turn) => Poll::Ready(turn),
            None => {
                wakers.entry(ticket).or_insert_with(|| waker.clone()).clone_from(waker);
                Poll::Pending
            }
        }
    }

    fn release(&self, ticket: Ticket) -> (Option<Released>, Option<Waker>) {
        let waker = self.lock().wakers.remove(&ticket);
        (self.with(|queue| queue.release(self.clock.now(), ticket)), waker)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scope {
    fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::All => ("all", ""),
            Self::Model(name) => ("model", name),
            Self::Session(name) => ("session", name),
            Self::Key(name) => ("key", name),
            Self::Provider(name) => ("provider", name),
        }
    }
}

/// `all`, `model chat`, `provider kimi`, ...
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            (kind, "") => f.write_str(kind),
            (kind, name) => write!(f, "{kind} {name}"),
        }
    }
}

impl Priority {
    /// The class of a request that may use so many tokens: one that is [`LARGE_TOKENS`] or more stands a class lower,
    /// since it holds its place for long and many small ones fit into that time.
    pub fn for_tokens(self, tokens: u64) -> Self {
        match self {
            _ if tokens < LARGE_TOKENS => self,
            Self::High => Self::Normal,
            Self::Normal | Self::Low => Self::Low,
        }
    }
}

impl RefusedWhy {
    /// Its name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::Deadline => "deadline",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.why {
            RefusedWhy::QueueFull => "too many requests wait already",
            RefusedWhy::Deadline => "there was no place in time",
            RefusedWhy::Closed => "its limit is zero",
        };
        write!(f, "{words} ({})", self.scope)
    }
}

impl std::error::Error for Refused {}

impl fmt::Debug for Permits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permits").finish_non_exhaustive()
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

/// Scopes as the log shows them.
struct Names<'a>(&'a [Scope]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(at, scope)| {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{scope}")
        })
    }
}

#[cfg(test)]
mod tests;
