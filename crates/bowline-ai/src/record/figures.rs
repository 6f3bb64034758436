//! What is counted: attempts by who was asked, requests by what was asked for and who served.

use std::{collections::BTreeMap, sync::Arc};

use super::{AttemptRecord, Histogram, RequestRecord};
use crate::{limit::SERIES_MAX, route::TargetId};

/// What a model is called that is not configured: names that clients make up are no labels.
const OTHER: &str = "other";

const KINDS: [&str; 5] = ["input", "output", "cached", "written", "reasoning"];

/// What was counted since the start. Labels come from the configuration and from closed sets.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    models: Vec<Arc<str>>,
    attempts: BTreeMap<(TargetId, &'static str), Histogram>,
    first_content: BTreeMap<TargetId, Histogram>,
    requests: BTreeMap<RequestLabels, Histogram>,
    tokens: BTreeMap<TargetId, [u64; KINDS.len()]>,
}

/// Requested, served, outcome.
type RequestLabels = (Arc<str>, Option<TargetId>, &'static str);

/// Attempts at one target that ended in one way: `bowline_ai_attempts_total` and `bowline_ai_attempt_seconds`
/// `{provider,model,outcome}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptSeries {
    /// Who was asked.
    pub target: TargetId,
    /// [`Outcome::name`](crate::wire::Outcome::name).
    pub outcome: &'static str,
    /// How long they took; its count is theirs.
    pub took: Histogram,
}

/// Streams of one target: `bowline_ai_first_content_seconds{provider,model}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstContentSeries {
    /// Who was asked.
    pub target: TargetId,
    /// How long the first content took.
    pub took: Histogram,
}

/// Requests for one model that one target served and that ended in one way: `bowline_ai_requests_total`
/// `{requested,served,outcome}`; `bowline_ai_request_seconds{requested,served}` is the sum over outcomes, see
/// [`Figures::request_seconds`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestSeries {
    /// What was asked for; `other` if there is no such model.
    pub requested: Arc<str>,
    /// Who served; `None` if nobody did.
    pub served: Option<TargetId>,
    /// [`Outcome::name`](crate::wire::Outcome::name).
    pub outcome: &'static str,
    /// How long they took; its count is theirs.
    pub took: Histogram,
}

/// Tokens of one target: `bowline_ai_tokens_total{provider,model,kind}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSeries {
    /// Who was asked.
    pub target: TargetId,
    /// `input`, `output`, `cached`, `written` or `reasoning`, as in [`Usage`](crate::wire::Usage).
    pub kind: &'static str,
    /// How many.
    pub tokens: u64,
}

impl Figures {
    pub(super) fn new(models: Vec<Arc<str>>) -> Self {
        Self { models, ..Self::default() }
    }

    pub(super) fn reconfigure(&mut self, models: Vec<Arc<str>>) {
        self.models = models;
    }

    /// Attempts, by target and outcome, in that order.
    pub fn attempts(&self) -> impl Iterator<Item = AttemptSeries> {
        self.attempts.iter().map(|((target, outcome), took)| AttemptSeries {
            target: target.clone(),
            outcome,
            took: took.clone(),
        })
    }

    /// First content of streams, by target.
    pub fn first_content(&self) -> impl Iterator<Item = FirstContentSeries> {
        self.first_content
            .iter()
            .map(|(target, took)| FirstContentSeries { target: target.clone(), took: took.clone() })
    }

    /// Requests, by what was asked for, who served and outcome.
    pub fn requests(&self) -> impl Iterator<Item = RequestSeries> {
        self.requests.iter().map(|((requested, served, outcome), took)| RequestSeries {
            requested: Arc::clone(requested),
            served: served.clone(),
            outcome,
            took: took.clone(),
        })
    }

    /// How long requests took, by what was asked for and who served.
    pub fn request_seconds(&self) -> Vec<(Arc<str>, Option<TargetId>, Histogram)> {
        let mut sums: BTreeMap<(&Arc<str>, &Option<TargetId>), Histogram> = BTreeMap::new();
        for ((requested, served, _), took) in &self.requests {
            sums.entry((requested, served)).or_default().merge(took);
        }
        let sums = sums.into_iter();
        sums.map(|((requested, served), took)| (Arc::clone(requested), served.clone(), took))
            .collect()
    }

    /// Tokens, by target and kind.
    pub fn tokens(&self) -> impl Iterator<Item = TokenSeries> {
        self.tokens.iter().flat_map(|(target, tokens)| {
            let of_kind = |(kind, tokens)| TokenSeries { target: target.clone(), kind, tokens };
            KINDS.into_iter().zip(*tokens).map(of_kind)
        })
    }

    pub(super) fn on_attempt(&mut self, attempt: &AttemptRecord) {
        let target = &attempt.target;
        let key = (target.clone(), attempt.outcome.name());
        bounded(&mut self.attempts, key, |target| (target, attempt.outcome.name()))
            .add(attempt.took);
        if let Some(took) = attempt.first_content {
            bounded(&mut self.first_content, target.clone(), |target| target).add(took);
        }
        let usage = &attempt.usage;
        let counts = [usage.input, usage.output, usage.cached, usage.written, usage.reasoning];
        let tokens = bounded(&mut self.tokens, target.clone(), |target| target);
        for (sum, more) in tokens.iter_mut().zip(counts) {
            *sum = sum.saturating_add(more);
        }
    }

    pub(super) fn on_request(&mut self, request: &RequestRecord) {
        let known = self.models.iter().find(|model| **model == request.requested);
        let requested = known.map_or_else(|| OTHER.into(), Arc::clone);
        let outcome = request.outcome.name();
        let key = (Arc::clone(&requested), request.served().cloned(), outcome);
        bounded(&mut self.requests, key, |target| (requested, Some(target), outcome))
            .add(request.took);
    }
}

/// What is counted under these labels; when there are too many, under `other`.
fn bounded<K: Ord, V: Default>(
    series: &mut BTreeMap<K, V>,
    key: K,
    other: impl FnOnce(TargetId) -> K,
) -> &mut V {
    let full = series.len() >= SERIES_MAX && !series.contains_key(&key);
    let key = if full { other(TargetId::new(OTHER, OTHER)) } else { key };
    series.entry(key).or_default()
}
