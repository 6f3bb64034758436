//! One request carried out: attempts at providers, their timers, the answer as it comes.
//!
//! A [`Gateway`] has what all requests share. [`Gateway::run`] drives one of them and is a plain future: there is
//! no task of its own behind it, and dropping it, or the [`Streamed`] answer that it returned, ends the attempt at
//! the provider at once, gives back every permit and writes the records with 499.
//!
//! `running` is what one request holds and must account for, on every path; `attempt` asks one provider; `stream` is
//! the answer on its way; `config` what is configured, `watch` what can be seen live.

mod attempt;
mod config;
mod running;
mod stream;
mod watch;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bowline_dial::LaneFigures;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use self::config::Setup;
pub use self::{
    config::{Config, ConfigError, ModelConfig, ProviderConfig, Secret, Slow},
    stream::Streamed,
    watch::{Event, Watch},
};
use crate::{
    clock::Clock,
    keys::{ClientKey, Digest, KeyUsage, Keys},
    memory::Share,
    permits::{Gauge, Permits, Priority},
    record::{Records, RequestRecord},
    route::{Budget, Health, TargetId, TargetState},
    trace::Parent,
    wire::Surface,
};

/// The AI gateway. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    clock: Clock,
    permits: Permits,
    /// Never locked while anything is awaited.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    setup: Arc<Setup>,
    health: Health,
    budget: Budget,
    keys: Keys,
    records: Records,
}

/// What a client asks.
#[derive(Debug)]
pub struct Request {
    /// `x-request-id`: what every record and log line of it is found by.
    pub id: Arc<str>,
    /// Which endpoint.
    pub surface: Surface,
    /// The body as it was sent.
    pub body: Bytes,
    /// The name of the client's key, if it has shown one that is known.
    pub key: Option<Arc<str>>,
    /// Its session or conversation, whose requests are limited together.
    pub session: Option<Arc<str>>,
    /// Who goes first where requests wait.
    pub priority: Priority,
    /// How long the client waits, if it has said so; see [`read_headers`](Self::read_headers).
    pub client_timeout: Option<Duration>,
    /// Which retry of the client's own this is; 0 is none.
    pub client_retry: u32,
    /// The span of the client that it belongs to.
    pub parent: Option<Arc<Parent>>,
    /// Headers for the provider, where it speaks the client's dialect: `anthropic-version`, `anthropic-beta`,
    /// `openai-beta`. Others are not passed on.
    pub headers: HeaderMap,
    /// Who is told of every attempt while it is made.
    pub watch: Option<Box<dyn Watch>>,
    /// What was set aside for the body. It grows with the copies that providers are sent and with what they answer.
    /// `None`: nobody counts.
    pub memory: Option<Share>,
}

impl Request {
    /// A request without anything that can be left out.
    pub fn new(id: impl Into<Arc<str>>, surface: Surface, body: Bytes) -> Self {
        Self {
            id: id.into(),
            surface,
            body,
            key: None,
            session: None,
            priority: Priority::default(),
            client_timeout: None,
            client_retry: 0,
            parent: None,
            headers: HeaderMap::new(),
            watch: None,
            memory: None,
        }
    }

    /// Takes what the official SDKs say of themselves: their timeout (`x-stainless-read-timeout` of Python,
    /// `x-stainless-timeout` of JS, in seconds; what is no positive number counts as unsaid) and their retries
    /// (`x-stainless-retry-count`); its span (`traceparent`); and the headers that are for the provider.
    pub fn read_headers(&mut self, headers: &HeaderMap) {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let seconds = |name| {
            let seconds = text(name)?.trim().parse::<f64>().ok()?;
            Duration::try_from_secs_f64(seconds).ok().filter(|timeout| !timeout.is_zero())
        };
        let read = seconds("x-stainless-read-timeout");
        self.client_timeout = read.or_else(|| seconds("x-stainless-timeout"));
        let retry = text("x-stainless-retry-count").and_then(|text| text.trim().parse().ok());
        self.client_retry = retry.unwrap_or(0);
        self.parent = Parent::read(headers).map(Arc::new);
        for name in ["anthropic-version", "anthropic-beta", "openai-beta"] {
            for value in headers.get_all(name) {
                self.headers.append(name, value.clone());
            }
        }
    }
}

/// The answer to a request.
#[derive(Debug)]
pub enum Answer {
    /// All of it, be it good or a failure.
    Whole(Whole),
    /// The beginning of a stream; its status is 200.
    Stream(Streamed),
}

/// An answer that is complete.
#[derive(Debug)]
pub struct Whole {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, `content-type` and `x-request-id` among them.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// The connections to one provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolState {
    /// The provider.
    pub provider: Arc<str>,
    /// What they are doing.
    pub figures: LaneFigures,
}

impl Gateway {
    /// A gateway for this configuration.
    ///
    /// # Errors
    ///
    /// The configuration cannot be carried out; nothing was begun.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let clock = Clock::start();
        let permits = Permits::new(config.limits(), clock);
        let setup = Setup::new(&config, None)?;
        let state = State {
            health: Health::new(config.policy.breaker.clone(), setup.targets()),
            budget: Budget::new(config.policy.retry_percent, config.policy.retry_floor),
            keys: Keys::new(config.keys),
            records: Records::new(config.records_max, setup.model_names()),
            setup: Arc::new(setup),
        };
        Ok(Self { inner: Arc::new(Inner { clock, permits, state: Mutex::new(state) }) })
    }

    /// Takes another configuration. Requests under way end as they began; connections to providers whose address
    /// is the same stay.
    ///
    /// # Errors
    ///
    /// The configuration cannot be carried out; the old one stays.
    pub fn reconfigure(&self, config: Config) -> Result<(), ConfigError> {
        let old = self.inner.setup();
        let setup = Arc::new(Setup::new(&config, Some(&old))?);
        let (now, limits) = (self.inner.clock.now(), config.limits());
        let mut state = self.inner.state();
        state.health.reconfigure(now, config.policy.breaker.clone(), setup.targets());
        state.budget.reconfigure(config.policy.retry_percent, config.policy.retry_floor);
        state.keys.reconfigure(config.keys);
        state.records.reconfigure(config.records_max, setup.model_names());
        state.setup = setup;
        drop(state);
        self.inner.permits.reconfigure(limits);
        Ok(())
    }

    /// Answers a request. Of a stream that is everything until its first content, or until its headers cannot be
    /// held back any longer ([`Policy::hold_headers`](crate::route::Policy::hold_headers)); the rest comes out of
    /// the [`Streamed`] answer. A failure is an answer too, in the words of the client's dialect. Dropped, the
    /// request is cancelled.
    pub async fn run(&self, request: Request) -> Answer {
        running::run(Arc::clone(&self.inner), request).await
    }

    /// Whose key this is, if it is known. Takes as long for a wrong one as for a right one.
    pub fn identify(&self, shown: &str) -> Option<ClientKey> {
        let digest = Digest::of(shown);
        self.inner.state().keys.identify(&digest).cloned()
    }

    /// The key of this name, if there is one.
    pub fn key(&self, name: &str) -> Option<ClientKey> {
        self.inner.state().keys.named(name).cloned()
    }

    /// Whether there is any key; without one everybody may ask.
    pub fn has_keys(&self) -> bool {
        !self.inner.state().keys.is_empty()
    }

    /// The models that clients may ask for, in the order of the configuration.
    pub fn models(&self) -> Vec<ModelConfig> {
        self.inner.setup().models()
    }

    /// How every target has been lately.
    pub fn states(&self) -> Vec<TargetState> {
        let now = self.inner.clock.now();
        self.inner.state().health.states(now)
    }

    /// Somebody says that this target is well again.
    pub fn reset(&self, target: &TargetId) {
        let now = self.inner.clock.now();
        self.inner.state().health.reset(now, target);
    }

    /// The permits that are held and waited for.
    pub fn gauges(&self) -> Vec<Gauge> {
        self.inner.permits.gauges()
    }

    /// The connections to all providers, in the order of their names.
    pub fn pools(&self) -> Vec<PoolState> {
        self.inner.setup().pools()
    }

    /// What every key has used.
    pub fn usage(&self) -> Vec<KeyUsage> {
        self.inner.state().keys.usage()
    }

    /// How many retries are left just now.
    pub fn retries_left(&self) -> u64 {
        let now = self.inner.clock.now();
        self.inner.state().budget.left(now)
    }

    /// The last requests, the latest first, so many at most.
    pub fn recent(&self, max: usize) -> Vec<Arc<RequestRecord>> {
        self.inner.state().records.recent().take(max).cloned().collect()
    }

    /// A request that is still remembered.
    pub fn find(&self, id: &str) -> Option<Arc<RequestRecord>> {
        self.inner.state().records.find(id).cloned()
    }

    /// Looks at what was counted since the start. Requests wait meanwhile, so it should not take long.
    pub fn with_figures<T>(&self, look: impl FnOnce(&crate::record::Figures) -> T) -> T {
        look(self.inner.state().records.figures())
    }

    /// Closes connections that nobody has used for long, and lets in who waits for a limit that has risen again. To
    /// be called every few seconds.
    pub fn sweep(&self) {
        self.inner.permits.rise();
        self.inner.setup().sweep();
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn setup(&self) -> Arc<Setup> {
        Arc::clone(&self.state().setup)
    }
}
