//! The AI gateway as clients meet it: `/v1` on the public listeners ([`service`], [`door`]), `chat` events over
//! Socket.IO ([`chat`]), and what operators see of it ([`figures`]). What is done with a request is `bowline-ai`'s.
//!
//! All of its work runs on threads of its own, which no shard waits for and which nobody starts before there is a model.

mod chat;
mod conversations;
mod door;
mod figures;
mod idempotency;
mod limit;
mod service;
mod settings;
mod threads;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bowline_ai::{
    call::{self, Gateway},
    memory::Budget,
};
use bowline_names::ErrorCode;
use tokio::{
    task::{AbortHandle, JoinSet},
    time,
};

use self::{
    chat::{Chat, Chats},
    conversations::Bounds,
    idempotency::Idempotency,
    threads::Threads,
};
use crate::{
    config::{self, Config, Namespace},
    failure::Failure,
    telemetry::Telemetry,
};

#[cfg(test)]
pub(crate) use self::figures::example;
pub(crate) use self::{
    figures::Overview,
    service::Service,
    settings::{api_key, of_environment},
};

/// The AI gateway of a process. It is there without a model too, and then serves nobody.
pub(crate) struct Ai {
    shared: Arc<Shared>,
    /// A gateway that takes the place of another serves whomever it can.
    lenient: bool,
    next: Mutex<Option<Next>>,
}

/// What is prepared and not yet in force.
struct Next {
    gateway: call::Config,
    terms: Terms,
    conversations: Bounds,
    idempotency: idempotency::Bounds,
    namespaces: BTreeSet<String>,
    body_bytes: usize,
    threads: Option<Threads>,
}

/// What the doors share.
pub(crate) struct Shared {
    /// `None` as long as there has been no model.
    gateway: RwLock<Option<Gateway>>,
    terms: RwLock<Terms>,
    bodies: Arc<Budget>,
    refused: [AtomicU64; Refusal::ALL.len()],
    chats: Chats,
    idempotency: Arc<Idempotency>,
    telemetry: Telemetry,
    threads: Mutex<Option<Threads>>,
    tasks: Mutex<JoinSet<()>>,
}

/// On which terms clients are let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Terms {
    /// Whether there is a model.
    on: bool,
    /// Whether others than this machine can connect.
    listens_to_others: bool,
    request_bytes: usize,
    client_stall: Duration,
    /// What one session may have under way.
    per_session: usize,
}

/// Why a request was refused before anybody was asked: a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NotFound,
    Method,
    KeysRequired,
    KeyMissing,
    KeyUnknown,
    TooLarge,
    IdempotencyKey,
    Memory,
}

impl Refusal {
    pub(crate) const ALL: [Self; 8] = [
        Self::NotFound,
        Self::Method,
        Self::KeysRequired,
        Self::KeyMissing,
        Self::KeyUnknown,
        Self::TooLarge,
        Self::IdempotencyKey,
        Self::Memory,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::Method => "method",
            Self::KeysRequired => "keys-required",
            Self::KeyMissing => "key-missing",
            Self::KeyUnknown => "key-unknown",
            Self::TooLarge => "too-large",
            Self::IdempotencyKey => "idempotency-key",
            Self::Memory => "memory",
        }
    }
}

impl Ai {
    /// One that is not the first gateway of its master asks providers without their keys rather than nobody.
    pub(crate) fn new(first: bool) -> Self {
        let ai = config::Ai::default();
        let shared = Shared {
            gateway: RwLock::new(None),
            terms: RwLock::new(Terms {
                on: false,
                listens_to_others: true,
                request_bytes: ai.request_bytes,
                client_stall: ai.client_stall,
                per_session: ai.max_concurrent_per_session,
            }),
            bodies: Budget::new(ai.body_bytes),
            refused: Default::default(),
            chats: Chats::new(bounds(&ai)),
            idempotency: Arc::new(Idempotency::new(idempotency_bounds(&ai))),
            telemetry: Telemetry::new(),
            threads: Mutex::new(None),
            tasks: Mutex::default(),
        };
        Self { shared: Arc::new(shared), lenient: !first, next: Mutex::new(None) }
    }

    /// Makes ready what a configuration says. It counts from [`settle`](Self::settle) on.
    ///
    /// # Errors
    /// It cannot be carried out; then nothing has changed.
    pub(crate) fn prepare(&self, config: &Config) -> Result<(), Failure> {
        let ai = &config.ai;
        let unusable = |why| Failure::new(ErrorCode::ProviderUnusable, why);
        let told = match settings::gateway(ai, of_environment) {
            Err(why) if self.lenient => {
                tracing::error!(error = why, "a provider is asked without its key");
                settings::gateway(&without_keys(ai), of_environment)
            }
            told => told,
        };
        let mut gateway = told.map_err(unusable)?;
        gateway.tracing = match self.shared.telemetry.prepare(config, of_environment) {
            Err(Failure { message, .. }) if self.lenient => {
                tracing::error!(error = message, "no spans are exported");
                None
            }
            told => told?,
        };
        // What cannot be carried out shows here, and not half-way.
        Gateway::new(gateway.clone()).map_err(|error| unusable(error.to_string()))?;
        let start = ai.is_on() && lock(&self.shared.threads).is_none();
        let threads = start.then(|| Threads::start(limit::THREADS)).transpose();
        let threads = threads.map_err(|error| Failure::new(ErrorCode::StartFailed, error))?;
        let terms = Terms {
            on: ai.is_on(),
            listens_to_others: listens_to_others(config),
            request_bytes: ai.request_bytes,
            client_stall: ai.client_stall,
            per_session: ai.max_concurrent_per_session,
        };
        let conversations = bounds(ai);
        let idempotency = idempotency_bounds(ai);
        let namespaces = chats(config);
        // Their events may come before this is in force.
        self.shared.chats.open(&namespaces);
        let body_bytes = ai.body_bytes;
        let next =
            Next { gateway, terms, conversations, idempotency, namespaces, body_bytes, threads };
        *lock(&self.next) = Some(next);
        Ok(())
    }

    /// Puts what was prepared in force. Requests under way end as they began.
    pub(crate) fn settle(&self) {
        let Some(next) = lock(&self.next).take() else { return };
        let Next { gateway, terms, conversations, idempotency, namespaces, body_bytes, threads } =
            next;
        if let Some(threads) = threads {
            *lock(&self.shared.threads) = Some(threads);
        }
        if terms.on && terms.listens_to_others && gateway.keys.is_empty() {
            tracing::warn!(
                "/v1 is closed: others can connect to `server.listen`, and there are no keys in [ai.keys]; \
                 make one with `bowline config hash-key`"
            );
        }
        self.shared.bodies.set(body_bytes);
        self.shared.chats.set_bounds(conversations);
        self.shared.chats.retain(namespaces);
        self.shared.idempotency.set_bounds(idempotency);
        self.shared.telemetry.settle();
        *self.shared.terms.write().unwrap_or_else(PoisonError::into_inner) = terms;
        let known = self.shared.gateway();
        let done = match known {
            Some(known) => known.reconfigure(gateway),
            None if !terms.on => Ok(()),
            None => Gateway::new(gateway).map(|made| self.open(made)),
        };
        if let Err(error) = done {
            // It could be carried out when it was prepared.
            tracing::error!(%error, "the AI gateway stays as it was");
        }
    }

    /// What answers `/v1`.
    pub(crate) fn service(&self) -> Service {
        Service::new(Arc::clone(&self.shared))
    }

    /// What answers a namespace whose handler is this model.
    pub(crate) fn chat(&self, pattern: &str, model: &str, rule: &Namespace) -> Chat {
        Chat::new(Arc::clone(&self.shared), pattern, model, rule)
    }

    /// Waits until what there is to tell of requests has been told, but not for long.
    pub(crate) async fn farewell(&self) {
        self.shared.telemetry.farewell().await;
    }

    /// For operators.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn open(&self, made: Gateway) {
        let (sweeper, idempotency) = (made.clone(), Arc::clone(&self.shared.idempotency));
        *self.shared.gateway.write().unwrap_or_else(PoisonError::into_inner) = Some(made);
        self.shared.spawn(self.shared.telemetry.run());
        self.shared.spawn(async move {
            loop {
                time::sleep(limit::SWEEP).await;
                sweeper.sweep();
                idempotency.sweep();
            }
        });
    }
}

impl Drop for Ai {
    fn drop(&mut self) {
        lock(&self.shared.tasks).abort_all();
        *lock(&self.shared.threads) = None;
    }
}

impl Shared {
    fn gateway(&self) -> Option<Gateway> {
        self.gateway.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn terms(&self) -> Terms {
        *self.terms.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs something on the gateway's own threads. `None` if there are none any more, or not yet.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> Option<AbortHandle> {
        let threads = lock(&self.threads);
        let mut tasks = lock(&self.tasks);
        // What is over need not be remembered.
        while tasks.try_join_next().is_some() {}
        threads.as_ref()?.spawn(&mut tasks, work)
    }

    fn on_refused(&self, why: Refusal) {
        self.refused[why as usize].fetch_add(1, Relaxed);
    }
}

/// An id for a request, as `x-request-id` has it.
fn request_id() -> Arc<str> {
    // Without chance ids would repeat, and records be mistaken for each other; nothing else depends on them.
    let mut chance = [0; 16];
    let _ = getrandom::fill(&mut chance);
    format!("{REQUEST}{:032x}", u128::from_ne_bytes(chance)).into()
}

/// What ids of requests begin with.
const REQUEST: &str = "req_";

/// Whether it could be an id of a request.
pub(crate) fn is_request_id(text: &str) -> bool {
    text.strip_prefix(REQUEST).is_some_and(|digits| {
        digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

fn bounds(ai: &config::Ai) -> Bounds {
    let kept = &ai.conversations;
    Bounds { conversations: kept.max, turns: kept.turns, bytes: kept.max_bytes }
}

/// The namespaces whose clients talk to a model.
fn chats(config: &Config) -> BTreeSet<String> {
    let all = config.namespaces.0.iter();
    let chats = all.filter(|(_, rule)| matches!(rule.handler, config::Handler::Ai(_)));
    chats.map(|(pattern, _)| pattern.clone()).collect()
}

fn idempotency_bounds(ai: &config::Ai) -> idempotency::Bounds {
    let kept = &ai.idempotency;
    idempotency::Bounds {
        max: kept.max,
        bytes: kept.max_bytes,
        answer_bytes: kept.max_answer,
        keep: kept.keep,
        linger: kept.linger,
    }
}

/// Whether others than this machine can connect to the public listeners.
pub(crate) fn listens_to_others(config: &Config) -> bool {
    config.server.listen.iter().any(|address| !address.ip().is_loopback())
}

fn without_keys(ai: &config::Ai) -> config::Ai {
    let mut ai = ai.clone();
    for (_, provider) in &mut ai.providers.0 {
        if api_key(provider, of_environment).is_err() {
            (provider.api_key_env, provider.api_key_file) = (None, None);
        }
    }
    ai
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
