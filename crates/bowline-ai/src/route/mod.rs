//! Which provider is asked next, until when, and which one is left alone for a while.
//!
//! A [`Chain`] belongs to one request and says step by step what to do; [`Health`] knows of every target how it has
//! been lately; [`Budget`] keeps retries a share of the requests. All three are plain values: time and randomness
//! are arguments, and what is dropped half-way leaves nothing behind that has to be given back.

mod budget;
mod chain;
mod health;
pub(crate) mod window;

use std::{fmt, sync::Arc, time::Duration};

pub use self::{
    budget::Budget,
    chain::{Chain, Exhausted, ExhaustedWhy, Reason, Step},
    health::{BreakerState, Health, TargetState, Verdict},
};

/// A model of a provider: what is asked, judged and charged.
///
/// Cheap to clone. Ordered by provider, then by model.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId {
    provider: Arc<str>,
    model: Arc<str>,
}

impl TargetId {
    /// The model that the provider of this name calls so.
    pub fn new(provider: impl Into<Arc<str>>, model: impl Into<Arc<str>>) -> Self {
        Self { provider: provider.into(), model: model.into() }
    }

    /// The name of the provider's table in the configuration.
    pub fn provider(&self) -> &Arc<str> {
        &self.provider
    }

    /// What the provider calls the model; may have slashes.
    pub fn model(&self) -> &Arc<str> {
        &self.model
    }
}

/// As it is configured: `PROVIDER/MODEL`.
impl fmt::Display for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.provider, self.model)
    }
}

impl fmt::Debug for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// How long one attempt may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until there is a connection. Default 5 s.
    pub connect: Duration,
    /// Until a stream says something that is content. Default 30 s.
    pub first_content: Duration,
    /// From one piece of content of a stream to the next. Default 30 s.
    pub idle: Duration,
    /// All of it. Default 10 min, as the official SDKs wait.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_content: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            total: Duration::from_secs(600),
        }
    }
}

/// How requests are tried. A request keeps the policy that it began with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// From the arrival of a request to the end of its answer, all attempts and waits included. Default 10 min.
    pub deadline: Duration,
    /// The timers of attempts at providers that have none of their own.
    pub timeouts: Timeouts,
    /// How often one request may ask the same target *again*. Default 1.
    pub retries: u32,
    /// A retry without `Retry-After` waits a random part of this, doubled for each that went before. Default 250 ms.
    pub backoff: Duration,
    /// The most that doubling comes to. Default 8 s.
    pub backoff_max: Duration,
    /// The longest wait for a target, or for a permit for it, while there is another one to ask instead; and for one
    /// that is parked before it was asked at all. Default 2 s.
    pub patience: Duration,
    /// The longest wait, as `retry-after` says, for a target that has failed and that nobody can stand in for. Beyond
    /// it the client is told to come back itself; the official SDKs do, up to a minute. Default 60 s.
    pub wait_max: Duration,
    /// How long a streaming client's headers are held back for the first content, so that a fault until then can
    /// still fall over and keep its status. Default 20 s.
    pub hold_headers: Duration,
    /// How many retries there may be for a hundred requests. Default 20.
    pub retry_percent: u32,
    /// How many retries there may be in ten seconds however few requests there are. Default 10.
    pub retry_floor: u32,
    /// When a target is left alone.
    pub breaker: BreakerPolicy,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(600),
            timeouts: Timeouts::default(),
            retries: 1,
            backoff: Duration::from_millis(250),
            backoff_max: Duration::from_secs(8),
            patience: Duration::from_secs(2),
            wait_max: Duration::from_secs(60),
            hold_headers: Duration::from_secs(20),
            retry_percent: 20,
            retry_floor: 10,
            breaker: BreakerPolicy::default(),
        }
    }
}

/// When a target is left alone, and how it comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// So many faults of the provider in a row open the breaker. Default 5.
    pub failures: u32,
    /// So many of a hundred attempts that failed within [`window`](Self::window) open it too. Default 50.
    pub failed_percent: u32,
    /// The share counts from so many attempts on. Default 20.
    pub of_at_least: u32,
    /// What the share is taken over. Default 30 s.
    pub window: Duration,
    /// How long an open breaker rests before it lets a probe through. Doubles with each probe that fails. Default 5 s.
    pub rest: Duration,
    /// The most that doubling comes to. Default 2 min.
    pub rest_max: Duration,
    /// How long a probe keeps others from probing if nobody ever hears of its end. Default 60 s.
    pub probe: Duration,
    /// How long it takes, after a probe went well, until the target has all of its traffic back; until then a
    /// rising share, if others can take the rest. Default 10 s.
    pub ramp: Duration,
    /// A target that is down (key refused, account in arrears, no such model) is tried again so often, so that it
    /// comes back without a reload. Default 60 s.
    pub down: Duration,
    /// The longest that a target is parked because it said so. Default 1 h: then it is asked again, whatever was said.
    pub park_max: Duration,
    /// So many 429 in a row that say nothing of when park the target for a second, then for two, four … Default 3.
    pub limited: u32,
    /// The most that this doubling comes to. Default 30 s.
    pub limited_max: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            failures: 5,
            failed_percent: 50,
            of_at_least: 20,
            window: Duration::from_secs(30),
            rest: Duration::from_secs(5),
            rest_max: Duration::from_secs(120),
            probe: Duration::from_secs(60),
            ramp: Duration::from_secs(10),
            down: Duration::from_secs(60),
            park_max: Duration::from_secs(3_600),
            limited: 3,
            limited_max: Duration::from_secs(30),
        }
    }
}
