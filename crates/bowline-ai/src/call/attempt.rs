//! One provider asked once: from the connection to a whole answer, or to the first content of a stream.

use std::{sync::Arc, time::Duration};

use bowline_dial::{BodyFailure, NoLane, SendFailure, StreamedAnswer, StreamedBody};
use bowline_proto::Time;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::Full;
use tokio::time::timeout_at;

use super::config::Provider;
use crate::{
    clock::Clock,
    limit::{ANSWER_MAX_BYTES, ERROR_BODY_MAX_BYTES, ERROR_BODY_PATIENCE, HELD_BACK_MAX_BYTES},
    memory::Held,
    record::AttemptRecord,
    wire::{
        Answered, Ask, Blame, Fault, FaultKind, Relay, StreamFault, Surface, Timer, Usage, answer,
        judge,
    },
};

/// One provider, to be asked once.
pub(super) struct Attempt<'a> {
    pub(super) clock: Clock,
    pub(super) provider: &'a Provider,
    pub(super) ask: &'a Ask,
    /// What the provider is sent.
    pub(super) body: Bytes,
    /// Headers of the client that are passed on.
    pub(super) headers: &'a HeaderMap,
    /// `traceparent` and `tracestate` for the provider, if it is told them.
    pub(super) trace: Option<(String, Option<Arc<str>>)>,
    /// When it began.
    pub(super) began: Time,
    /// When it must have come to an answer, or to content.
    pub(super) until: Time,
    /// With less time than this it says nothing of the provider that it was not over in time.
    pub(super) judged_after: Duration,
    /// What the request takes of the gateway's memory.
    pub(super) memory: &'a mut Held,
    /// Written while it goes, so that one that is dropped half-way tells how far it came.
    pub(super) record: &'a mut AttemptRecord,
}

/// What a provider has answered.
pub(super) enum Got {
    /// All of it.
    Whole(Answered),
    /// A stream, up to its first content.
    Stream(Box<Opened>),
}

/// A stream that has said something.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) body: StreamedBody,
    pub(super) relay: Relay,
    /// What the client is to be sent of it so far.
    pub(super) out: Vec<u8>,
    /// It is over already.
    pub(super) ended: bool,
}

/// When something must have happened, and which timer says so.
#[derive(Clone, Copy)]
struct Bound {
    at: Time,
    timer: Timer,
    /// What the timer counts from.
    since: Time,
}

impl Attempt<'_> {
    pub(super) async fn run(self) -> Result<Got, Fault> {
        let surface = self.ask.surface();
        self.get().await.map_err(|fault| match surface {
            // The model is there for others, who ask it to chat.
            Surface::Embeddings if is_about_the_endpoint(&fault) => {
                Fault { blames: Blame::Client, ..fault }
            }
            Surface::Embeddings | Surface::ChatCompletions | Surface::Messages => fault,
        })
    }

    async fn get(mut self) -> Result<Got, Fault> {
        let total = Bound {
            at: self.until.min(self.began + self.provider.timeouts.total),
            timer: Timer::Total,
            since: self.began,
        };
        let (answer, bound) = self.send(total).await?;
        let status = answer.status;
        self.record.headers = Some(self.since_began());
        self.record.status = Some(status.as_u16());
        if status != StatusCode::OK {
            return Err(self.refusal(answer, bound).await);
        }
        if !self.ask.stream() {
            return self.whole(answer.body, bound).await.map(Got::Whole);
        }
        if is_json(&answer.headers) {
            // Some providers refuse with status 200.
            self.whole(answer.body, bound).await?;
            let words = "answered a request for a stream with a whole answer";
            return Err(Fault::new(FaultKind::Malformed, format!("the provider {words}")));
        }
        let opened = self.first_content(answer.body, bound).await?;
        Ok(Got::Stream(Box::new(opened)))
    }

    /// Gets a connection and sends the request. Returns the head of the answer, and what bounds the rest of it.
    async fn send(&mut self, total: Bound) -> Result<(StreamedAnswer, Bound), Fault> {
        let mut request = self.request()?;
        loop {
            let getting = self.provider.lanes.lane();
            let lane = self.within(total, getting).await?.map_err(|no_lane| match no_lane {
                NoLane::TimedOut => {
                    let waited = self.since_began().min(self.provider.timeouts.connect);
                    Fault::timeout(Timer::Connect, waited)
                }
                NoLane::Failed(words) => broken(&words),
            })?;
            let reused = lane.is_reused();
            let connect = if reused { Duration::ZERO } else { self.since_began() };
            self.record.connect = Some(connect);
            self.record.usage =
                Usage { input: self.ask.prompt_tokens(), estimated: true, ..Usage::default() };
            let sent_at = self.clock.now();
            let bound = self.bound(total, sent_at);
            match self.within(bound, lane.send(request)).await? {
                Ok(answer) => return Ok((answer, bound)),
                // The provider closed an idle connection just then. Another one will do.
                Err(SendFailure::NotSent(back)) if reused => request = *back,
                Err(SendFailure::NotSent(_)) => {
                    return Err(broken("closed the connection before the request"));
                }
                Err(SendFailure::Broken(words)) => return Err(broken(&words)),
            }
        }
    }

    fn request(&mut self) -> Result<Request<Full<Bytes>>, Fault> {
        let dialect = self.provider.dialect;
        let uri = self.provider.uri(|base| self.ask.path_below(dialect, base));
        self.record.sent_bytes = self.body.len() as u64;
        let mut request = Request::post(uri)
            .body(Full::new(self.body.clone()))
            .map_err(|error| broken(&format!("cannot be asked: {error}")))?;
        let accept = if self.ask.stream() { "text/event-stream" } else { "application/json" };
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        for (name, value) in &self.provider.headers {
            headers.insert(name.clone(), value.clone());
        }
        if let Some((parent, state)) = &self.trace {
            let told = [("traceparent", Some(parent.as_str())), ("tracestate", state.as_deref())];
            for (name, value) in told {
                if let Some(Ok(value)) = value.map(HeaderValue::from_str) {
                    headers.insert(name, value);
                }
            }
        }
        if self.ask.surface().dialect() == dialect {
            for name in self.headers.keys() {
                headers.remove(name);
            }
            for (name, value) in self.headers {
                headers.append(name.clone(), value.clone());
            }
        }
        Ok(request)
    }

    /// Reads what a provider says that refuses, as far as it says it in time.
    async fn refusal(&mut self, answer: StreamedAnswer, bound: Bound) -> Fault {
        let patience = self.clock.now() + ERROR_BODY_PATIENCE;
        let until = self.clock.instant(bound.at.min(patience));
        let (mut body, mut read) = (answer.body, BytesMut::new());
        while read.len() < ERROR_BODY_MAX_BYTES
            && let Ok(Some(Ok(data))) = timeout_at(until, body.next()).await
        {
            self.record.read_bytes += data.len() as u64;
            read.extend_from_slice(&data);
        }
        // Nothing was done for it.
        self.record.usage = Usage::default();
        judge(answer.status, &answer.headers, &read, self.clock.wall())
    }

    async fn whole(&mut self, body: StreamedBody, bound: Bound) -> Result<Answered, Fault> {
        let collecting = collect(body, self.memory);
        let read = timeout_at(self.clock.instant(bound.at), collecting).await;
        let body = read.map_err(|_| self.timed_out(bound))??;
        self.record.read_bytes = body.len() as u64;
        let created = self.clock.unix().as_secs();
        let answered = answer(self.ask, self.provider.dialect, &body, created)?;
        // Its translation goes to the client, and it is gone then.
        if !self.memory.set_answer(body.len().max(answered.body.len())) {
            return Err(no_memory());
        }
        self.record.usage = answered.usage;
        self.record.finish = answered.finish;
        self.record.identity.clone_from(&answered.identity);
        Ok(answered)
    }

    async fn first_content(&mut self, body: StreamedBody, bound: Bound) -> Result<Opened, Fault> {
        let created = self.clock.unix().as_secs();
        let relay = Relay::new(self.ask, self.provider.dialect, created);
        let mut opened = Opened { body, relay, out: Vec::new(), ended: false };
        loop {
            let Some(data) = self.within(bound, opened.body.next()).await? else {
                self.record.usage = opened.relay.end(&mut opened.out)?;
                opened.ended = true;
                break;
            };
            let data = data.map_err(body_fault)?;
            self.record.read_bytes += data.len() as u64;
            let pushed = opened.relay.push(&data, &mut opened.out);
            self.record.usage = opened.relay.usage();
            if !self.memory.set_answer(opened.relay.waiting_bytes() + opened.out.len()) {
                return Err(no_memory());
            }
            match pushed {
                Ok(seen) if seen.content || seen.finished => break,
                Ok(_) if opened.out.len() > HELD_BACK_MAX_BYTES => {
                    return Err(StreamFault::TooLarge.into());
                }
                // Timers are not looked at while there is always something to read.
                Ok(_) if self.clock.now() >= bound.at => return Err(self.timed_out(bound)),
                Ok(_) => {}
                // The client has nothing of what was good before it, so somebody else may begin anew.
                Err(fault) => return Err(fault.into()),
            }
        }
        self.record.first_content = Some(self.since_began());
        self.record.identity.clone_from(opened.relay.identity());
        Ok(opened)
    }

    /// What bounds everything between the request and a whole answer, or the first content of a stream.
    fn bound(&self, total: Bound, sent_at: Time) -> Bound {
        let first = sent_at + self.provider.timeouts.first_content;
        if self.ask.stream() && first < total.at {
            return Bound { at: first, timer: Timer::FirstContent, since: sent_at };
        }
        total
    }

    async fn within<T>(&self, bound: Bound, doing: impl Future<Output = T>) -> Result<T, Fault> {
        let done = timeout_at(self.clock.instant(bound.at), doing).await;
        done.map_err(|_| self.timed_out(bound))
    }

    fn timed_out(&self, bound: Bound) -> Fault {
        let waited = self.clock.now().since(bound.since);
        match bound.timer {
            Timer::Total => total_timeout(waited, waited >= self.judged_after),
            timer => Fault::timeout(timer, waited),
        }
    }

    fn since_began(&self) -> Duration {
        self.clock.now().since(self.began)
    }
}

/// Not over in time. A provider that had no fair part of that time is not to blame, or clients that are in a hurry
/// would open its breaker for those who are not.
pub(super) fn total_timeout(waited: Duration, is_fair: bool) -> Fault {
    let fault = Fault::timeout(Timer::Total, waited);
    let blames = if is_fair { fault.blames } else { Blame::Client };
    Fault { blames, ..fault }
}

/// Reads a whole answer, as far as there is memory for it.
async fn collect(mut body: StreamedBody, memory: &mut Held) -> Result<Bytes, Fault> {
    let mut first = Bytes::new();
    // Most answers come in one piece, which is not copied.
    let mut whole = BytesMut::new();
    while let Some(data) = body.next().await {
        let data = data.map_err(body_fault)?;
        let length = first.len().max(whole.len()) + data.len();
        if length > ANSWER_MAX_BYTES {
            return Err(body_fault(BodyFailure::TooBig));
        }
        if !memory.set_answer(length) {
            return Err(no_memory());
        }
        if first.is_empty() && whole.is_empty() {
            first = data;
            continue;
        }
        if whole.is_empty() {
            whole = BytesMut::from(std::mem::take(&mut first));
        }
        whole.extend_from_slice(&data);
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

/// There is no memory for more of an answer (`ai.max-bytes`).
pub(super) fn no_memory() -> Fault {
    Fault::new(FaultKind::NoMemory, "the gateway has no memory for more of the answer")
}

/// Whether a provider speaks of what was asked for, rather than of its model or of the gateway's account.
fn is_about_the_endpoint(fault: &Fault) -> bool {
    fault.kind == FaultKind::NotFound
        || fault.kind == FaultKind::Auth && fault.status == Some(StatusCode::FORBIDDEN)
}

/// What went wrong with the body of an answer whose status was good.
pub(super) fn body_fault(failure: BodyFailure) -> Fault {
    match failure {
        BodyFailure::CutOff => StreamFault::Truncated.into(),
        BodyFailure::Broken(words) => broken(&words),
        BodyFailure::TooBig => {
            Fault::new(FaultKind::Malformed, "the provider's answer is larger than any should be")
        }
    }
}

fn broken(words: &str) -> Fault {
    Fault::new(FaultKind::Broken, format!("the provider {words}"))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().starts_with("application/json"))
}
