//! Alerts: a server that watches its own figures and says when something is wrong.
//!
//! ```text
//! metrics::gather ─ every 5 s ─▶ Evaluator (rules, history; pure) ─ changes ─▶ Outbox (pure) ─▶ POST
//!                                                                              one a receiver
//! ```
//!
//! The rules that are built in are a file (`rules.toml`), read by the reader of rules files. The
//! same rules are written for a Prometheus by [`prometheus::rules_file`].

pub(crate) mod command;
mod evaluator;
mod history;
mod outbox;
mod post;
mod prometheus;
mod read;
mod rule;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bowline_names::{ErrorCode, Metric};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, watch},
    time::{self, MissedTickBehavior},
};
use utoipa::ToSchema;

use self::{
    evaluator::{Alert, Evaluator, Now},
    outbox::{Alertmanager, Outbox, Outcome, Webhook, rfc3339},
    post::Sender,
    rule::Rules,
};
use crate::{
    charter::{Charter, Door},
    clock::{self, Clock},
    config::{self, Config},
    failure::Failure,
    gateway::Gateway,
    metrics::{self, Sample, Value},
};

/// How often the figures are looked at: often enough that a rule without `for` fires while
/// somebody still looks, and rare enough to cost nothing.
const EVERY: Duration = Duration::from_secs(5);

/// How long the figures may take to be gathered. A shard that does not answer must not silence
/// the next look.
const GATHERING: Duration = Duration::from_secs(10);

/// Everybody who is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receiver {
    Alertmanager,
    Webhook,
}

impl Receiver {
    const ALL: [Self; 2] = [Self::Alertmanager, Self::Webhook];

    /// The value of the label.
    fn name(self) -> &'static str {
        match self {
            Self::Alertmanager => "alertmanager",
            Self::Webhook => "webhook",
        }
    }
}

/// What fires, for whoever asks: the status, the metrics, the page.
#[derive(Debug)]
pub(crate) struct Board {
    evaluator: Mutex<Evaluator>,
    /// Attempts to deliver, by [`Receiver`] and [`Outcome`].
    deliveries: [[AtomicU64; Outcome::ALL.len()]; Receiver::ALL.len()],
}

/// An alert that fires, as `/api/v1/status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Firing {
    /// The name of its rule.
    pub(crate) name: String,
    /// `info`, `warning` or `critical`.
    pub(crate) severity: String,
    /// When it began to fire, in RFC 3339.
    pub(crate) since: String,
    /// What is so.
    pub(crate) summary: String,
    /// What to do.
    pub(crate) remedy: String,
    /// What tells it from others: of its series, of the operator, of this server.
    pub(crate) labels: BTreeMap<String, String>,
}

impl Board {
    /// Begins with the rules that are built in and nothing firing. `identity` are labels that tell
    /// this server from others at the receivers: `instance`, as Prometheus has it.
    pub(crate) fn new(identity: BTreeMap<String, String>) -> Self {
        let evaluator = Evaluator::new(Arc::new(read::built_in()), identity);
        Self { evaluator: Mutex::new(evaluator), deliveries: Default::default() }
    }

    /// Takes new figures, and says which alerts began to fire and which ceased.
    pub(crate) fn evaluate(&self, now: Now, samples: &[Sample]) -> Vec<Arc<Alert>> {
        self.evaluator().evaluate(now, samples)
    }

    /// What fires, in the order of the rules.
    pub(crate) fn firing(&self) -> Vec<Firing> {
        (self.evaluator().firing().iter())
            .map(|alert| Firing {
                name: alert.name().to_owned(),
                severity: alert.severity().to_owned(),
                since: rfc3339(alert.since),
                summary: alert.summary.clone(),
                remedy: alert.remedy.clone(),
                labels: alert.labels.clone(),
            })
            .collect()
    }

    /// What is counted about alerts, in the order of the table.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let evaluator = self.evaluator();
        let firing = evaluator.firing();
        let mut samples = Vec::new();
        for rule in &evaluator.rules().rules {
            let count = firing.iter().filter(|alert| alert.name() == rule.name).count();
            samples.push(Sample {
                metric: Metric::AlertsFiring,
                labels: vec![rule.name.clone().into()],
                value: Value::Number(count as f64),
            });
        }
        for receiver in Receiver::ALL {
            for outcome in Outcome::ALL {
                let count = self.deliveries[receiver as usize][outcome as usize].load(Relaxed);
                samples.push(Sample {
                    metric: Metric::AlertDeliveries,
                    labels: vec![receiver.name().into(), outcome.name().into()],
                    value: Value::Number(count as f64),
                });
            }
        }
        samples
    }

    fn count(&self, receiver: Receiver, outcome: Outcome, times: usize) {
        let counter = &self.deliveries[receiver as usize][outcome as usize];
        counter.fetch_add(times as u64, Relaxed);
    }

    fn evaluator(&self) -> MutexGuard<'_, Evaluator> {
        // It is whole between two calls, whoever panicked.
        self.evaluator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The labels that tell a server from others: what a Prometheus calls it that scrapes its admin
/// listener under the name of the machine.
pub(crate) fn identity(charter: &Charter) -> BTreeMap<String, String> {
    let name = rustix::system::uname();
    let host = name.nodename().to_string_lossy();
    let admin = charter.listeners.iter().find(|listener| listener.door == Door::Admin);
    let instance = match admin {
        Some(listener) => format!("{host}:{}", listener.address.port()),
        None => host.into_owned(),
    };
    BTreeMap::from([("instance".to_owned(), instance), ("job".to_owned(), "bowline".to_owned())])
}

/// The rules of a configuration: those that are built in, with what its rules file changes.
///
/// # Errors
/// When the file cannot be read or has mistakes.
pub(crate) fn load(config: &config::Alerts) -> Result<Rules, Failure> {
    config.rules_file.as_deref().map_or_else(|| Ok(read::built_in()), load_file)
}

fn load_file(path: &Path) -> Result<Rules, Failure> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| {
        Failure::new(ErrorCode::AlertRulesUnreadable, format!("cannot read {shown}: {error}"))
    })?;
    let (rules, mistakes) = read::read(&text, &read::built_in());
    if mistakes.is_empty() {
        return Ok(rules);
    }
    let error = config::Error::Invalid { file: Some((path.to_owned(), text)), mistakes };
    Err(Failure::new(ErrorCode::AlertRulesInvalid, error))
}

/// Raises the alerts of a gateway, as long as it is polled.
pub(crate) async fn run(gateway: Arc<Gateway>) {
    let config = gateway.config.clone();
    watch(&gateway.alerts, config, EVERY, || metrics::gather(&gateway)).await;
}

/// Looks at the figures until the configuration is gone, and tells the receivers that it names.
async fn watch<F>(
    board: &Board,
    config: watch::Receiver<Arc<Config>>,
    every: Duration,
    gather: impl Fn() -> F,
) where
    F: Future<Output = Vec<Sample>>,
{
    let clock = Clock::start();
    let mut id = [0; 8];
    // Without chance the ids of two processes may be alike, and no more than that.
    let _ = getrandom::fill(&mut id);
    let process = format!("{:016x}", u64::from_ne_bytes(id));
    let sender = Sender::default();
    let alertmanager = Post::new(Receiver::Alertmanager, Alertmanager::default());
    let webhook = Post::new(Receiver::Webhook, Webhook::new(process));
    let mut ticks = time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let look = look(board, config, ticks, gather, clock, (&alertmanager, &webhook));
    tokio::select! {
        () = look => {}
        () = alertmanager.deliver(board, &sender, clock) => {}
        () = webhook.deliver(board, &sender, clock) => {}
    }
}

async fn look<F>(
    board: &Board,
    mut config: watch::Receiver<Arc<Config>>,
    mut ticks: time::Interval,
    gather: impl Fn() -> F,
    clock: Clock,
    (alertmanager, webhook): (&Post<Alertmanager>, &Post<Webhook>),
) where
    F: Future<Output = Vec<Sample>>,
{
    config.mark_changed();
    loop {
        let changes = tokio::select! {
            changed = config.changed() => {
                if changed.is_err() {
                    return;
                }
                let alerts = config.borrow_and_update().alerts.clone();
                let ended = follow(board, &alerts, now(clock));
                let firing = board.evaluator().firing();
                let url = alerts.alertmanager_url.as_deref().map(|url| {
                    format!("{}/api/v2/alerts", url.trim_end_matches('/'))
                });
                alertmanager.set_url(url, &firing);
                webhook.set_url(alerts.webhook_url.as_deref().map(str::to_owned), &firing);
                ended
            }
            _ = ticks.tick() => match time::timeout(GATHERING, gather()).await {
                Ok(samples) => board.evaluate(now(clock), &samples),
                Err(_) => {
                    tracing::warn!("the figures for alerts could not be gathered in time");
                    continue;
                }
            },
        };
        tell(&changes);
        let firing = board.evaluator().firing();
        alertmanager.put(board, &changes, &firing);
        webhook.put(board, &changes, &firing);
    }
}

/// Puts the rules of a configuration in force. Those that have mistakes leave in force what is.
fn follow(board: &Board, config: &config::Alerts, now: Now) -> Vec<Arc<Alert>> {
    match load(config) {
        Ok(rules) if rules == **board.evaluator().rules() => Vec::new(),
        Ok(rules) => board.evaluator().set_rules(Arc::new(rules), now),
        Err(failure) => {
            let Failure { code, message } = failure;
            tracing::error!(code = code.name(), error = message, "alert rules stay as they were");
            Vec::new()
        }
    }
}

fn tell(changes: &[Arc<Alert>]) {
    for alert in changes {
        let Alert { summary, remedy, .. } = &**alert;
        let (name, severity) = (alert.name(), alert.severity());
        if alert.until.is_some() {
            tracing::info!(alert = name, severity, summary, "alert resolved");
        } else {
            tracing::warn!(alert = name, severity, summary, remedy, "alert fires");
        }
    }
}

fn now(clock: Clock) -> Now {
    Now {
        running: Duration::from_micros(clock.now().as_micros()),
        unix: Duration::from_millis(clock::unix_ms()),
    }
}

/// One receiver: where it is, and what it has not been told.
struct Post<O> {
    receiver: Receiver,
    desk: Mutex<Desk<O>>,
    wake: Notify,
}

struct Desk<O> {
    url: Option<String>,
    outbox: O,
}

impl<O: Outbox> Post<O> {
    fn new(receiver: Receiver, outbox: O) -> Self {
        let desk = Mutex::new(Desk { url: None, outbox });
        Self { receiver, desk, wake: Notify::new() }
    }

    /// Says where the receiver is. One that is new hears what fires.
    fn set_url(&self, url: Option<String>, firing: &[Arc<Alert>]) {
        let Desk { url: known, outbox } = &mut *self.desk();
        if *known != url {
            outbox.moved(url.is_some(), known.is_none(), firing);
            *known = url;
            self.wake.notify_one();
        }
    }

    fn put(&self, board: &Board, changes: &[Arc<Alert>], firing: &[Arc<Alert>]) {
        let mut desk = self.desk();
        if desk.url.is_none() {
            return;
        }
        desk.outbox.refresh(firing);
        if changes.is_empty() {
            return;
        }
        let dropped = desk.outbox.put(changes);
        if dropped > 0 {
            let receiver = self.receiver.name();
            tracing::warn!(receiver, dropped, "alerts were given up: too many wait");
            board.count(self.receiver, Outcome::Dropped, dropped);
        }
        self.wake.notify_one();
    }

    /// Delivers what is due. Never ends.
    async fn deliver(&self, board: &Board, sender: &Sender, clock: Clock) {
        let mut failing = false;
        loop {
            let (url, json, due) = {
                let Desk { url, outbox } = &mut *self.desk();
                let due = url.as_ref().and_then(|_| outbox.due());
                let time = now(clock);
                let json = due.filter(|due| *due <= time.running).and_then(|_| outbox.take(time));
                (url.clone(), json, due)
            };
            let (Some(url), Some(json)) = (url, json) else {
                let until = due.map(|due| clock.instant(time_of(due)));
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = sleep_until(until) => {}
                }
                continue;
            };
            let answer = sender.post(&url, json).await;
            let outcome =
                answer.as_ref().map_or_else(|error| error.outcome(), |()| Outcome::Accepted);
            board.count(self.receiver, outcome, 1);
            self.desk().outbox.answered(now(clock), outcome, chance());
            let receiver = self.receiver.name();
            match answer {
                Ok(()) if failing => tracing::info!(receiver, "alerts are delivered again"),
                Ok(()) => {}
                Err(error) if failing => tracing::debug!(receiver, %error, "alerts not delivered"),
                Err(error) => tracing::warn!(receiver, %error, "alerts not delivered"),
            }
            failing = outcome != Outcome::Accepted;
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk<O>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn time_of(running: Duration) -> bowline_proto::Time {
    let micros = u64::try_from(running.as_micros()).unwrap_or(u64::MAX);
    bowline_proto::Time::from_micros(micros)
}

async fn sleep_until(at: Option<time::Instant>) {
    match at {
        Some(at) => time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A number from 0 to 1, for pauses that differ between servers.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    // Without chance the pauses are those of everybody else, and no more than that.
    let _ = getrandom::fill(&mut bytes);
    f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
}
