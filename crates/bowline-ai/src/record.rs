//! What is remembered of requests and of attempts: records, histograms, counters.
//!
//! There are two planes. An [`AttemptRecord`] is one target asked once, and everything that is labelled with a
//! provider is fed by attempts alone, so that no answer is ever charged to somebody else; a timeout is there too, as
//! slow as it was. A [`RequestRecord`] is what the client saw, and has its attempts in it.

mod figures;
mod histogram;

use std::{collections::VecDeque, fmt::Write as _, sync::Arc, time::Duration};

use serde::{Serialize, Serializer, ser::SerializeStruct as _};

pub use self::{
    figures::{AttemptSeries, Figures, FirstContentSeries, RequestSeries, TokenSeries},
    histogram::Histogram,
};
use crate::{
    limit::ATTEMPTS_RECORDED_MAX,
    route::{Reason, TargetId},
    trace::Parent,
    wire::{FaultKind, FinishReason, Identity, Outcome, Surface, Usage},
};

/// One target, asked once.
///
/// All times but `started` count from the moment it was asked; waiting for a permit is not among them.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptRecord {
    /// From 1.
    pub number: u32,
    /// Who was asked.
    pub target: TargetId,
    /// Why.
    pub reason: Reason,
    /// When it was asked, counted from the beginning of the request.
    pub started: Duration,
    /// How long it had waited for its permit before that.
    pub queued: Duration,
    /// How long it took to have a connection; `None` if there was none, zero if one was there.
    pub connect: Option<Duration>,
    /// Until the provider's headers.
    pub headers: Option<Duration>,
    /// Until the first content of a stream.
    pub first_content: Option<Duration>,
    /// Until the last byte, or the fault, without [`stalled`](Self::stalled).
    pub took: Duration,
    /// How long its client kept it waiting, who did not read: nothing that the provider took, nor the gateway.
    pub stalled: Duration,
    /// How it ended.
    pub outcome: Outcome,
    /// The provider's status.
    pub status: Option<u16>,
    /// The provider's own code.
    pub code: Option<String>,
    /// What the fault says.
    pub words: Option<String>,
    /// Its tokens, as far as it came.
    pub usage: Usage,
    /// Why the model stopped.
    pub finish: Option<FinishReason>,
    /// What the provider calls its answer.
    pub identity: Identity,
    /// Bytes of the request's body as sent.
    pub sent_bytes: u64,
    /// Bytes of the answer's body as read.
    pub read_bytes: u64,
}

/// One request of a client.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestRecord {
    /// `x-request-id`.
    pub id: Arc<str>,
    /// What was asked.
    pub surface: Surface,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// The model as the client named it.
    pub requested: Arc<str>,
    /// The name of its key.
    pub key: Option<Arc<str>>,
    /// Its session or conversation.
    pub session: Option<Arc<str>>,
    /// Which retry of the client's own this is (`x-stainless-retry-count`).
    pub client_retry: u32,
    /// The span of its client.
    pub parent: Option<Arc<Parent>>,
    /// When it arrived, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// How long it waited for its first permits; the attempts know of theirs.
    pub queued: Duration,
    /// Until the client was sent its first content.
    pub first_content: Option<Duration>,
    /// Until the last byte for the client, or until it had left.
    pub took: Duration,
    /// What became of it.
    pub outcome: Outcome,
    /// What the client was told; 499 if it had left.
    pub status: u16,
    /// Who was asked, in order.
    pub attempts: Vec<AttemptRecord>,
}

/// The last requests, and the figures of all.
#[derive(Debug)]
pub struct Records {
    kept_max: usize,
    /// The latest last.
    kept: VecDeque<Arc<RequestRecord>>,
    figures: Figures,
}

impl AttemptRecord {
    /// An attempt that has just begun. It is `Cancelled` until something else is known, so that one that is
    /// dropped half-way tells the truth.
    pub fn new(number: u32, target: TargetId, reason: Reason, started: Duration) -> Self {
        Self {
            number,
            target,
            reason,
            started,
            queued: Duration::ZERO,
            connect: None,
            headers: None,
            first_content: None,
            took: Duration::ZERO,
            stalled: Duration::ZERO,
            outcome: Outcome::Cancelled,
            status: None,
            code: None,
            words: None,
            usage: Usage::default(),
            finish: None,
            identity: Identity::default(),
            sent_bytes: 0,
            read_bytes: 0,
        }
    }
}

impl RequestRecord {
    /// Whose answer the client has: the last who was asked, if it has answered or had begun to.
    pub fn served(&self) -> Option<&TargetId> {
        let last = self.attempts.last()?;
        let begun = last.outcome == Outcome::Ok || (self.stream && last.first_content.is_some());
        begun.then_some(&last.target)
    }

    /// Whether another target served than the first of its chain: that one had failed, or was left alone.
    pub fn fell_back(&self) -> bool {
        let first = self.attempts.first().filter(|first| first.reason != Reason::Skipped);
        self.served().is_some_and(|served| first.is_none_or(|first| first.target != *served))
    }

    /// How long its client has kept it waiting, who did not read what there was.
    pub fn client_time(&self) -> Duration {
        self.attempts.iter().map(|attempt| attempt.stalled).sum()
    }

    /// What the request took beyond its attempts, its waits for permits and the time of its client: the gateway's own
    /// time, and the waits between attempts.
    pub fn own_time(&self) -> Duration {
        let attempts =
            self.attempts.iter().map(|attempt| attempt.queued + attempt.took + attempt.stalled);
        self.took.saturating_sub(self.queued + attempts.sum::<Duration>())
    }
}

/// The value of `bowline-attempts`: `kimi;timeout;75000ms, glm;ok;812ms`. For a stream the last of them has got as far
/// as its first content.
pub fn attempts_header(attempts: &[AttemptRecord]) -> String {
    let mut text = String::new();
    for attempt in attempts {
        if !text.is_empty() {
            text.push_str(", ");
        }
        // What a header may have, and what its own commas and semicolons mean.
        let plain = |c: &char| c.is_ascii_graphic() && !matches!(c, ',' | ';');
        text.extend(attempt.target.provider().chars().filter(plain));
        let (outcome, ms) = (attempt.outcome.name(), attempt.took.as_millis());
        // A `String` takes everything.
        let _ = write!(text, ";{outcome};{ms}ms");
    }
    text
}

impl Records {
    /// Keeps so many requests. `models` are the names that clients may ask for: what is counted under another one
    /// is counted as `other`.
    pub fn new(kept_max: usize, models: impl IntoIterator<Item = Arc<str>>) -> Self {
        let figures = Figures::new(models.into_iter().collect());
        Self { kept_max, kept: VecDeque::new(), figures }
    }

    /// The configuration has changed; what was counted stays.
    pub fn reconfigure(&mut self, kept_max: usize, models: impl IntoIterator<Item = Arc<str>>) {
        self.kept_max = kept_max;
        self.make_room(kept_max);
        self.figures.reconfigure(models.into_iter().collect());
    }

    /// An attempt is over. To be called once for each, when it ends.
    pub fn on_attempt(&mut self, attempt: &AttemptRecord) {
        self.figures.on_attempt(attempt);
    }

    /// A request is over. Its attempts have been counted before. Returns what is remembered of it.
    pub fn on_request(&mut self, mut request: RequestRecord) -> Arc<RequestRecord> {
        self.figures.on_request(&request);
        request.attempts.truncate(ATTEMPTS_RECORDED_MAX);
        let request = Arc::new(request);
        if self.kept_max > 0 {
            self.make_room(self.kept_max - 1);
            self.kept.push_back(Arc::clone(&request));
        }
        request
    }

    /// The last requests, the latest first.
    pub fn recent(&self) -> impl Iterator<Item = &Arc<RequestRecord>> {
        self.kept.iter().rev()
    }

    /// A request that is still remembered; the latest, if a client has used its id twice.
    pub fn find(&self, id: &str) -> Option<&Arc<RequestRecord>> {
        self.recent().find(|request| &*request.id == id)
    }

    /// What was counted since the start.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    fn make_room(&mut self, left_max: usize) {
        let over = self.kept.len().saturating_sub(left_max);
        self.kept.drain(..over);
    }
}

/// As the API shows it: durations in milliseconds, times counted from the beginning of the request or attempt.
impl Serialize for RequestRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("RequestRecord", 19)?;
        fields.serialize_field("id", &*self.id)?;
        fields.serialize_field("operation", self.surface.operation())?;
        fields.serialize_field("speaks", self.surface.dialect().name())?;
        fields.serialize_field("stream", &self.stream)?;
        fields.serialize_field("requested", &*self.requested)?;
        fields.serialize_field("served", &self.served().map(TargetId::to_string))?;
        fields.serialize_field("fell_back", &self.fell_back())?;
        fields.serialize_field("key", &self.key.as_deref())?;
        fields.serialize_field("session", &self.session.as_deref())?;
        fields.serialize_field("client_retry", &self.client_retry)?;
        fields.serialize_field("started_unix_ms", &self.started_unix_ms)?;
        fields.serialize_field("queued_ms", &ms(self.queued))?;
        fields.serialize_field("first_content_ms", &self.first_content.map(ms))?;
        fields.serialize_field("took_ms", &ms(self.took))?;
        fields.serialize_field("own_ms", &ms(self.own_time()))?;
        fields.serialize_field("client_ms", &ms(self.client_time()))?;
        fields.serialize_field("outcome", self.outcome.name())?;
        fields.serialize_field("status", &self.status)?;
        fields.serialize_field("attempts", &self.attempts)?;
        fields.end()
    }
}

/// As the API shows it.
impl Serialize for AttemptRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let timer = match self.outcome {
            Outcome::Fault(FaultKind::Timeout(timer)) => Some(timer.name()),
            Outcome::Fault(_) | Outcome::Ok | Outcome::Cancelled => None,
        };
        let mut fields = serializer.serialize_struct("AttemptRecord", 20)?;
        fields.serialize_field("number", &self.number)?;
        fields.serialize_field("provider", &**self.target.provider())?;
        fields.serialize_field("model", &**self.target.model())?;
        fields.serialize_field("reason", self.reason.name())?;
        fields.serialize_field("started_ms", &ms(self.started))?;
        fields.serialize_field("queued_ms", &ms(self.queued))?;
        fields.serialize_field("connect_ms", &self.connect.map(ms))?;
        fields.serialize_field("headers_ms", &self.headers.map(ms))?;
        fields.serialize_field("first_content_ms", &self.first_content.map(ms))?;
        fields.serialize_field("took_ms", &ms(self.took))?;
        fields.serialize_field("client_ms", &ms(self.stalled))?;
        fields.serialize_field("outcome", self.outcome.name())?;
        fields.serialize_field("timer", &timer)?;
        fields.serialize_field("status", &self.status)?;
        fields.serialize_field("code", &self.code)?;
        fields.serialize_field("error", &self.words)?;
        fields.serialize_field("usage", &Tokens(&self.usage))?;
        fields.serialize_field("finish_reason", &self.finish.map(FinishReason::name))?;
        fields.serialize_field("sent_bytes", &self.sent_bytes)?;
        fields.serialize_field("read_bytes", &self.read_bytes)?;
        fields.end()
    }
}

/// Tokens as the API shows them.
struct Tokens<'a>(&'a Usage);

impl Serialize for Tokens<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Usage { input, output, cached, written, reasoning, estimated } = self.0;
        let mut fields = serializer.serialize_struct("Usage", 6)?;
        fields.serialize_field("input", input)?;
        fields.serialize_field("output", output)?;
        fields.serialize_field("cached", cached)?;
        fields.serialize_field("written", written)?;
        fields.serialize_field("reasoning", reasoning)?;
        fields.serialize_field("estimated", estimated)?;
        fields.end()
    }
}

/// Milliseconds, to the microsecond.
fn ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}

#[cfg(test)]
mod tests;
