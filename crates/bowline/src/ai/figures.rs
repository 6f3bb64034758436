//! What operators see of the AI gateway: series for metrics, and views for the API.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, sync::atomic::Ordering::Relaxed};

use bowline_ai::{
    call::{Gateway, PoolState},
    keys::KeyUsage,
    permits::{Gauge, Scope},
    record::{Figures, Histogram, RequestRecord},
    route::{TargetId, TargetState},
    wire::Usage,
};
use bowline_names::Metric;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Refusal, Shared, idempotency::How};
use crate::metrics::{Sample, Value};

/// The provider whose permits are those of the gateway as a whole: no provider is called so.
const ALL: &str = "*";

/// The providers as they are now, and what keys have used.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Overview {
    /// The limits of the gateway as a whole, and of models, keys and sessions that have requests under way.
    permits: Vec<PermitView>,
    /// In the order of their names.
    providers: Vec<ProviderView>,
    /// Tokens since the start, by key, provider and model.
    usage: Vec<UsageView>,
    /// How many retries the budget allows just now.
    retries_left: u64,
    /// What is set aside for requests that are being read or answered.
    body_bytes: usize,
    /// Conversations of Socket.IO clients that are kept.
    conversations: usize,
    idempotency: IdempotencyView,
}

/// Requests with an `Idempotency-Key`.
#[derive(Debug, Serialize, ToSchema)]
struct IdempotencyView {
    /// Keys that are known.
    keys: usize,
    /// What the answers that are kept take.
    bytes: usize,
    /// Requests that were joined while they were under way, since the start.
    joined: u64,
    /// Answers that were given again, since the start.
    replayed: u64,
}

/// A provider.
#[derive(Debug, Default, Serialize, ToSchema)]
struct ProviderView {
    #[schema(example = "kimi")]
    name: String,
    permits: Option<PermitView>,
    connections: ConnectionsView,
    models: Vec<TargetView>,
}

/// Permits of one limit.
#[derive(Debug, Serialize, ToSchema)]
struct PermitView {
    /// What is limited: `all`, `model`, `session`, `key` or `provider`.
    #[schema(value_type = String, example = "provider")]
    scope: &'static str,
    /// Which of them; null for `all`.
    name: Option<String>,
    /// How many may run; null without a limit. It is lower than configured while a provider has asked for less.
    limit: Option<usize>,
    /// How many run.
    held: usize,
    /// How many wait.
    queued: usize,
    /// For how long the oldest that runs has.
    oldest_seconds: f64,
    /// For how long the oldest that waits has.
    oldest_wait_seconds: f64,
}

/// The connections to a provider.
#[derive(Debug, Default, Serialize, ToSchema)]
struct ConnectionsView {
    /// Open now.
    open: usize,
    /// Those of them that nobody uses.
    idle: usize,
    /// Attempts that wait for one.
    waiting: usize,
    /// Opened since the start.
    opened: u64,
    /// Attempts that found one.
    reused: u64,
    /// Attempts that had to wait for one.
    waited: u64,
    /// That could not be opened.
    failed: u64,
}

/// A model of a provider.
#[derive(Debug, Serialize, ToSchema)]
struct TargetView {
    #[schema(example = "kimi-k2")]
    model: String,
    /// `closed` (it is asked), `ramp`, `half-open`, `open`, `parked` or `down`.
    #[schema(value_type = String, example = "closed")]
    state: &'static str,
    /// For how long.
    seconds: f64,
    /// When it is asked again; null if it is.
    opens_in_seconds: Option<f64>,
    /// Faults in a row.
    failures: u32,
    /// What kind the last fault was.
    #[schema(value_type = Option<String>)]
    last_fault: Option<&'static str>,
    /// The words of the provider for it.
    last_words: Option<String>,
}

/// Tokens of a key at one model of a provider.
#[derive(Debug, Serialize, ToSchema)]
struct UsageView {
    /// The name of the key; null where none is asked for.
    key: Option<String>,
    provider: String,
    model: String,
    attempts: u64,
    input_tokens: u64,
    output_tokens: u64,
    /// Of the input.
    cached_tokens: u64,
    /// Of the input, into the provider's cache.
    written_tokens: u64,
    /// Of the output.
    reasoning_tokens: u64,
}

/// What there is to be counted.
struct Look {
    figures: Vec<Sample>,
    refused: [u64; Refusal::ALL.len()],
    gauges: Vec<Gauge>,
    targets: Vec<TargetState>,
    pools: Vec<PoolState>,
    usage: Vec<KeyUsage>,
    body_bytes: usize,
    conversations: usize,
    replays: [u64; How::ALL.len()],
    idempotency_bytes: usize,
}

impl Look {
    /// All of it; the samples of a metric stand together.
    fn samples(self) -> Vec<Sample> {
        let mut samples = self.figures;
        samples.extend(Refusal::ALL.iter().zip(self.refused).map(|(why, count)| {
            sample(Metric::AiRefused, [Cow::Borrowed(why.name())], count as f64)
        }));
        samples.extend(of_permits(&self.gauges));
        samples.extend(self.targets.iter().map(|state| {
            let labels = target_labels(&state.target);
            sample(Metric::AiBreakerState, labels, state.state.number() as f64)
        }));
        samples.extend(of_pools(&self.pools));
        samples.extend(self.usage.iter().flat_map(of_usage));
        samples.push(sample(Metric::AiBodyBytes, [], self.body_bytes as f64));
        samples.push(sample(Metric::AiConversations, [], self.conversations as f64));
        samples.extend(How::ALL.iter().zip(self.replays).map(|(how, count)| {
            sample(Metric::AiReplays, [Cow::Borrowed(how.name())], count as f64)
        }));
        samples.push(sample(Metric::AiIdempotencyBytes, [], self.idempotency_bytes as f64));
        samples
    }
}

impl Shared {
    /// Everything that is counted of the AI gateway: nothing before there is a model.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let Some(gateway) = self.gateway() else { return Vec::new() };
        let look = Look {
            figures: gateway.with_figures(of_figures),
            refused: self.refused.each_ref().map(|count| count.load(Relaxed)),
            gauges: gateway.gauges(),
            targets: gateway.states(),
            pools: gateway.pools(),
            usage: gateway.usage(),
            body_bytes: self.bodies.taken(),
            conversations: self.chats.conversations(),
            replays: self.idempotency.counts(),
            idempotency_bytes: self.idempotency.held().1,
        };
        let mut samples = look.samples();
        samples.extend(self.telemetry.samples());
        samples
    }

    /// The last requests, the latest first.
    pub(crate) fn recent(&self, max: usize) -> Vec<Arc<RequestRecord>> {
        self.gateway().map(|gateway| gateway.recent(max)).unwrap_or_default()
    }

    /// A request that is still remembered.
    pub(crate) fn find(&self, id: &str) -> Option<Arc<RequestRecord>> {
        self.gateway()?.find(id)
    }

    /// How everything is now.
    pub(crate) fn overview(&self) -> Overview {
        let gateway = self.gateway();
        let gateway = gateway.as_ref();
        Overview {
            permits: gateway
                .map(Gateway::gauges)
                .unwrap_or_default()
                .iter()
                .filter(|gauge| !matches!(gauge.scope, Scope::Provider(_)))
                .map(PermitView::of)
                .collect(),
            providers: gateway.map(providers).unwrap_or_default(),
            usage: gateway
                .map(Gateway::usage)
                .unwrap_or_default()
                .iter()
                .map(UsageView::of)
                .collect(),
            retries_left: gateway.map(Gateway::retries_left).unwrap_or_default(),
            body_bytes: self.bodies.taken(),
            conversations: self.chats.conversations(),
            idempotency: {
                let (keys, bytes) = self.idempotency.held();
                let [joined, replayed] = self.idempotency.counts();
                IdempotencyView { keys, bytes, joined, replayed }
            },
        }
    }
}

fn providers(gateway: &Gateway) -> Vec<ProviderView> {
    let mut all: BTreeMap<Arc<str>, ProviderView> = BTreeMap::new();
    for PoolState { provider, figures } in gateway.pools() {
        let view = all.entry(Arc::clone(&provider)).or_default();
        view.name = provider.to_string();
        view.connections = ConnectionsView {
            open: figures.open,
            idle: figures.idle,
            waiting: figures.waiting,
            opened: figures.opened,
            reused: figures.reused,
            waited: figures.waited,
            failed: figures.failed,
        };
    }
    for gauge in gateway.gauges() {
        if let Scope::Provider(provider) = &gauge.scope
            && let Some(view) = all.get_mut(provider)
        {
            view.permits = Some(PermitView::of(&gauge));
        }
    }
    for state in gateway.states() {
        if let Some(view) = all.get_mut(state.target.provider()) {
            view.models.push(TargetView::of(state));
        }
    }
    all.into_values().collect()
}

impl PermitView {
    fn of(gauge: &Gauge) -> Self {
        let (scope, name) = match &gauge.scope {
            Scope::All => ("all", None),
            Scope::Model(name) => ("model", Some(name)),
            Scope::Session(name) => ("session", Some(name)),
            Scope::Key(name) => ("key", Some(name)),
            Scope::Provider(name) => ("provider", Some(name)),
        };
        Self {
            scope,
            name: name.map(|name| name.to_string()),
            limit: gauge.limit,
            held: gauge.held,
            queued: gauge.queued,
            oldest_seconds: gauge.oldest.as_secs_f64(),
            oldest_wait_seconds: gauge.oldest_wait.as_secs_f64(),
        }
    }
}

impl TargetView {
    fn of(state: TargetState) -> Self {
        let (last_fault, last_words) = state.last_fault.unzip();
        Self {
            model: state.target.model().to_string(),
            state: state.state.name(),
            seconds: state.age.as_secs_f64(),
            opens_in_seconds: state.opens_in.map(|time| time.as_secs_f64()),
            failures: state.failures,
            last_fault: last_fault.map(|kind| kind.name()),
            last_words,
        }
    }
}

impl UsageView {
    fn of(usage: &KeyUsage) -> Self {
        let Usage { input, output, cached, written, reasoning, .. } = usage.tokens;
        Self {
            key: usage.key.as_ref().map(|key| key.to_string()),
            provider: usage.target.provider().to_string(),
            model: usage.target.model().to_string(),
            attempts: usage.attempts,
            input_tokens: input,
            output_tokens: output,
            cached_tokens: cached,
            written_tokens: written,
            reasoning_tokens: reasoning,
        }
    }
}

/// What was counted of attempts and of requests; the samples of a metric stand together.
fn of_figures(figures: &Figures) -> Vec<Sample> {
    let attempt = |metric, series: &bowline_ai::record::AttemptSeries, value| {
        let [provider, model] = target_labels(&series.target);
        labelled(metric, [provider, model, Cow::Borrowed(series.outcome)], value)
    };
    let attempts: Vec<_> = figures.attempts().collect();
    let count = |took: &Histogram| Value::Number(took.count() as f64);
    let mut samples: Vec<Sample> = (attempts.iter())
        .map(|series| attempt(Metric::AiAttempts, series, count(&series.took)))
        .collect();
    let seconds = attempts
        .iter()
        .map(|series| attempt(Metric::AiAttemptSeconds, series, value(&series.took)));
    samples.extend(seconds);
    samples.extend(figures.first_content().map(|series| {
        let labels = target_labels(&series.target);
        labelled(Metric::AiFirstContentSeconds, labels, value(&series.took))
    }));
    samples.extend(figures.tokens().map(|series| {
        let [provider, model] = target_labels(&series.target);
        let labels = [provider, model, Cow::Borrowed(series.kind)];
        sample(Metric::AiTokens, labels, series.tokens as f64)
    }));
    let served = |target: &Option<TargetId>| -> Cow<'static, str> {
        target.as_ref().map(TargetId::to_string).unwrap_or_default().into()
    };
    let requested = |name: &Arc<str>| -> Cow<'static, str> { name.to_string().into() };
    samples.extend(figures.requests().map(|series| {
        let outcome = Cow::Borrowed(series.outcome);
        let labels = [requested(&series.requested), served(&series.served), outcome];
        labelled(Metric::AiRequests, labels, count(&series.took))
    }));
    samples.extend(figures.request_seconds().iter().map(|(model, target, took)| {
        labelled(Metric::AiRequestSeconds, [requested(model), served(target)], value(took))
    }));
    samples
}

fn of_permits(gauges: &[Gauge]) -> Vec<Sample> {
    let of_provider = |gauge: &Gauge| -> Option<Cow<'static, str>> {
        match &gauge.scope {
            Scope::All => Some(Cow::Borrowed(ALL)),
            Scope::Provider(name) => Some(name.to_string().into()),
            // Models are counted by their requests; sessions are not from the configuration.
            Scope::Model(_) | Scope::Session(_) | Scope::Key(_) => None,
        }
    };
    let gauges: Vec<_> =
        gauges.iter().filter_map(|gauge| Some((of_provider(gauge)?, gauge))).collect();
    let permits = gauges.iter().flat_map(|(provider, gauge)| {
        [("held", gauge.held), ("queued", gauge.queued)].map(|(state, number)| {
            let labels = [provider.clone(), Cow::Borrowed(state)];
            sample(Metric::AiPermits, labels, number as f64)
        })
    });
    let oldest = gauges.iter().map(|(provider, gauge)| {
        let seconds = gauge.oldest.as_secs_f64();
        sample(Metric::AiOldestPermitSeconds, [provider.clone()], seconds)
    });
    permits.chain(oldest).collect()
}

fn of_pools(pools: &[PoolState]) -> Vec<Sample> {
    let name = |pool: &PoolState| -> Cow<'static, str> { pool.provider.to_string().into() };
    let open = pools.iter().flat_map(|pool| {
        let figures = &pool.figures;
        [("open", figures.open), ("idle", figures.idle)].map(|(state, number)| {
            let labels = [name(pool), Cow::Borrowed(state)];
            sample(Metric::AiConnections, labels, number as f64)
        })
    });
    let waits = pools
        .iter()
        .map(|pool| sample(Metric::AiPoolWaits, [name(pool)], pool.figures.waited as f64));
    open.chain(waits).collect()
}

fn of_usage(usage: &KeyUsage) -> [Sample; 2] {
    let kinds = [("input", usage.tokens.input), ("output", usage.tokens.output)];
    kinds.map(|(kind, tokens)| {
        let key: Cow<'static, str> =
            usage.key.as_ref().map(|key| key.to_string()).unwrap_or_default().into();
        let [provider, model] = target_labels(&usage.target);
        let labels = [key, provider, model, Cow::Borrowed(kind)];
        sample(Metric::AiKeyTokens, labels, tokens as f64)
    })
}

fn target_labels(target: &TargetId) -> [Cow<'static, str>; 2] {
    [target.provider().to_string().into(), target.model().to_string().into()]
}

fn value(took: &Histogram) -> Value {
    Value::Histogram {
        buckets: took.buckets().map(|(bound, count)| (bound.as_secs_f64(), count)).collect(),
        sum: took.sum().as_secs_f64(),
        count: took.count(),
    }
}

fn sample<const N: usize>(metric: Metric, labels: [Cow<'static, str>; N], value: f64) -> Sample {
    labelled(metric, labels, Value::Number(value))
}

fn labelled<const N: usize>(
    metric: Metric,
    labels: [Cow<'static, str>; N],
    value: Value,
) -> Sample {
    Sample { metric, labels: labels.into(), value }
}

/// One of everything.
#[cfg(test)]
pub(crate) fn example() -> Vec<Sample> {
    use std::time::Duration;

    use bowline_ai::{
        record::{AttemptRecord, Records},
        route::{BreakerState, Reason},
        wire::{Outcome, Surface},
    };

    let target = TargetId::new("kimi", "k2/\"quoted\"");
    let mut attempt = AttemptRecord::new(1, target.clone(), Reason::First, Duration::ZERO);
    attempt.outcome = Outcome::Ok;
    attempt.first_content = Some(Duration::from_millis(3));
    let mut records = Records::new(10, ["chat".into()]);
    records.on_attempt(&attempt);
    records.on_request(RequestRecord {
        id: "req_1".into(),
        surface: Surface::ChatCompletions,
        stream: true,
        requested: "chat".into(),
        key: None,
        session: None,
        client_retry: 0,
        parent: None,
        started_unix_ms: 0,
        queued: Duration::ZERO,
        first_content: None,
        took: Duration::from_millis(5),
        outcome: Outcome::Ok,
        status: 200,
        attempts: vec![attempt],
    });
    let gauge = |scope| Gauge {
        scope,
        limit: None,
        held: 1,
        queued: 0,
        oldest: Duration::ZERO,
        oldest_wait: Duration::ZERO,
    };
    let look = Look {
        figures: of_figures(records.figures()),
        refused: Default::default(),
        gauges: vec![
            gauge(Scope::All),
            gauge(Scope::Provider("kimi".into())),
            gauge(Scope::Session("somebody".into())),
        ],
        targets: vec![TargetState {
            target: target.clone(),
            state: BreakerState::Open,
            age: Duration::ZERO,
            opens_in: None,
            failures: 5,
            last_fault: None,
        }],
        pools: vec![PoolState { provider: "kimi".into(), figures: Default::default() }],
        usage: [Some("app".into()), None]
            .map(|key| KeyUsage {
                key,
                target: target.clone(),
                attempts: 1,
                tokens: Usage::default(),
            })
            .into(),
        body_bytes: 0,
        conversations: 0,
        replays: [0; How::ALL.len()],
        idempotency_bytes: 0,
    };
    look.samples()
}
