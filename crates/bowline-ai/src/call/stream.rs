//! A streamed answer on its way to the client.

use std::{fmt, time::Duration};

use bowline_dial::{BodyFailure, StreamedBody};
use bowline_proto::Time;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::{sleep_until, timeout_at};

use super::{
    attempt::{Opened, body_fault, no_memory, total_timeout},
    running::{Running, Served, Serving},
};
use crate::{
    clock::Clock,
    limit::{STREAM_END_PATIENCE, WAITING_EVERY},
    permits::Permit,
    wire::{Dialect, Fault, FaultKind, Outcome, Relay, Surface, Timer},
};

/// A streamed answer. It owns everything that the request holds: dropped before its end, the provider is left at
/// once, the permits are given back, and the request is recorded as cancelled, with the tokens so far.
#[derive(Debug)]
pub struct Streamed {
    headers: HeaderMap,
    clock: Clock,
    ends_at: Time,
    whole: bool,
    state: State,
}

enum State {
    /// The headers are gone and nobody has said anything yet. The first piece is due at once.
    Waiting {
        serving: Serving,
        surface: Surface,
        next_word: Time,
    },
    /// Somebody speaks.
    Live(Box<Live>),
    Over,
}

impl Streamed {
    /// A stream that has said something.
    pub(super) fn live(mut live: Box<Live>) -> Self {
        let mut headers = std::mem::take(&mut live.headers);
        stream_headers(&mut headers);
        let (clock, ends_at) = (live.clock, live.ends_at);
        Self { headers, clock, ends_at, whole: false, state: State::Live(live) }
    }

    /// A stream that has said nothing for so long that its headers must go.
    pub(super) fn waiting(
        serving: Serving,
        mut headers: HeaderMap,
        surface: Surface,
        clock: Clock,
        ends_at: Time,
    ) -> Self {
        stream_headers(&mut headers);
        let state = State::Waiting { serving, surface, next_word: clock.now() };
        Self { headers, clock, ends_at, whole: false, state }
    }

    /// The headers of the answer. Who has served it is not among them if nobody had spoken when they had to go.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The next piece, to be sent at once; `None` at the end, and ever after. What goes wrong comes as an event that
    /// the client's SDK raises an error on, and is the last piece. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            match &mut self.state {
                State::Waiting { serving, surface, next_word } => {
                    let next = self.clock.instant(*next_word);
                    match timeout_at(next, serving).await {
                        Ok(Ok(Served::Stream(live))) => {
                            self.ends_at = live.ends_at;
                            self.state = State::Live(live);
                        }
                        // Only a plain request is answered whole.
                        Ok(Ok(Served::Whole(..))) => self.state = State::Over,
                        Ok(Err(unserved)) => {
                            self.state = State::Over;
                            return Some(unserved.last_frame());
                        }
                        Err(_) => {
                            *next_word = self.clock.now() + WAITING_EVERY;
                            return Some(waiting_word(*surface));
                        }
                    }
                }
                State::Live(live) => {
                    let piece = live.next().await;
                    if piece.is_none() {
                        self.whole = live.whole;
                        self.state = State::Over;
                    }
                    return piece;
                }
                State::Over => return None,
            }
        }
    }

    /// Whether the answer has come to its end, and that was no error.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Waits until the request has had all of its time, however slowly its client reads. To be waited for beside
    /// the sending of each piece, since [`next`](Self::next) is not called meanwhile.
    pub fn expired(&self) -> impl Future<Output = ()> + Send + use<> {
        sleep_until(self.clock.instant(self.ends_at))
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting { .. } => "Waiting",
            Self::Live(_) => "Live",
            Self::Over => "Over",
        })
    }
}

/// A provider's stream that has said something.
#[derive(Debug)]
pub(super) struct Live {
    // Before `running` and `permits`: the provider is left before its permit is given back.
    body: Option<StreamedBody>,
    /// Of a request that is accounted for and whose connection is not free yet: a client that reads the end slowly
    /// would else fill the pool with connections that nobody counts.
    permits: [Option<Permit>; 2],
    /// Of the answer: made before it may turn out to be over already, and accounted for.
    headers: HeaderMap,
    relay: Relay,
    /// What the client is to be sent next.
    out: Vec<u8>,
    phase: Phase,
    clock: Clock,
    /// When it must be over, whatever it says.
    ends_at: Time,
    /// With less time than this it says nothing of the provider that it was not over in time.
    judged_after: Duration,
    idle: Idle,
    pace: Pace,
    /// Since when it is being waited for.
    waiting_since: Option<Time>,
    /// It has ended well.
    whole: bool,
    running: Running,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// More is expected.
    Reading,
    /// All has been said. Only the end of the body is waited for, so that its connection can be used again.
    Said {
        until: Time,
    },
    Over,
}

/// How long no content has come, as far as it was waited for: a client that reads slowly is not the provider's fault.
#[derive(Debug)]
struct Idle {
    max: Duration,
    waited: Duration,
}

/// Whether what comes is fast enough to be of use.
#[derive(Debug)]
struct Pace {
    /// Zero: nothing is too slow.
    window: Duration,
    tokens_min: u64,
    /// How much of the window has been waited through.
    waited: Duration,
    /// Tokens when the window began.
    tokens: u64,
}

/// What a stream is waited for, and what it means if nothing comes.
#[derive(Clone, Copy)]
enum Wake {
    Idle,
    Pace,
    Total,
    End,
}

impl Live {
    pub(super) fn new(
        running: Running,
        opened: Opened,
        ends_at: Time,
        idle: Duration,
        judged_after: Duration,
    ) -> Self {
        let Opened { body, relay, out, ended } = opened;
        let (clock, slow) = (running.inner.clock, running.setup.slow);
        let tokens = relay.seen().tokens;
        let mut live = Self {
            body: Some(body),
            permits: [None, None],
            headers: running.answer_headers(),
            relay,
            out,
            phase: Phase::Reading,
            clock,
            ends_at,
            judged_after,
            idle: Idle { max: idle, waited: Duration::ZERO },
            pace: Pace {
                window: slow.window,
                tokens_min: slow.tokens_min,
                waited: Duration::ZERO,
                tokens,
            },
            waiting_since: None,
            whole: false,
            running,
        };
        if ended {
            live.complete();
            live.phase = Phase::Over;
        } else if live.relay.done() {
            live.on_said();
        }
        live
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.out.is_empty() {
                self.running.on_given();
                return Some(std::mem::take(&mut self.out).into());
            }
            if self.phase == Phase::Over {
                return None;
            }
            self.read().await;
        }
    }

    /// Waits for what comes next, and takes it.
    async fn read(&mut self) {
        self.running.on_listen();
        let since = *self.waiting_since.get_or_insert_with(|| self.clock.now());
        let (at, wake) = self.wake(since);
        let Some(body) = &mut self.body else {
            self.phase = Phase::Over;
            return;
        };
        let came = timeout_at(self.clock.instant(at), body.next()).await;
        self.waiting_since = None;
        let waited = self.clock.now().since(since);
        self.idle.waited += waited;
        self.pace.waited += waited;
        match came {
            Ok(Some(Ok(data))) => self.on_data(&data),
            Ok(Some(Err(failure))) => self.on_broken(failure),
            Ok(None) => self.on_end(),
            Err(_) => self.on_timer(wake),
        }
    }

    /// When waiting ends, and what that means.
    fn wake(&self, since: Time) -> (Time, Wake) {
        if let Phase::Said { until } = self.phase {
            return (until, Wake::End);
        }
        let mut wake = (self.ends_at, Wake::Total);
        let idle_at = since + self.idle.max.saturating_sub(self.idle.waited);
        if idle_at < wake.0 {
            wake = (idle_at, Wake::Idle);
        }
        let pace_at = since + self.pace.window.saturating_sub(self.pace.waited);
        if !self.pace.window.is_zero() && pace_at < wake.0 {
            wake = (pace_at, Wake::Pace);
        }
        wake
    }

    fn on_data(&mut self, data: &[u8]) {
        if self.phase != Phase::Reading {
            // Whatever it is, it is behind the end.
            return;
        }
        self.running.on_bytes(data.len());
        let pushed = self.relay.push(data, &mut self.out);
        self.running.on_usage(self.relay.usage());
        let held = self.relay.waiting_bytes() + self.out.len();
        if !self.running.memory.set_answer(held) {
            return self.on_fault(no_memory());
        }
        match pushed {
            Ok(seen) if seen.content => self.idle.waited = Duration::ZERO,
            Ok(_) => {}
            Err(fault) => return self.on_fault(fault.into()),
        }
        if self.relay.done() {
            return self.on_said();
        }
        // Timers are not looked at while there is always something to read.
        let now = self.clock.now();
        let (at, wake) = self.wake(now);
        if at <= now {
            self.on_timer(wake);
        }
    }

    /// The provider has said all. The answer is complete, and accounted for as such.
    fn on_said(&mut self) {
        self.permits = self.running.take_permits();
        self.complete();
        if self.phase == Phase::Reading {
            let until = self.clock.now() + STREAM_END_PATIENCE;
            self.phase = Phase::Said { until };
        }
    }

    fn on_end(&mut self) {
        self.free();
        if self.phase == Phase::Reading {
            self.complete();
        }
        self.phase = Phase::Over;
    }

    fn on_broken(&mut self, failure: BodyFailure) {
        match self.phase {
            Phase::Said { .. } => self.leave(),
            // Whatever happens once the model has said why it stopped, the answer is whole.
            Phase::Reading if self.relay.seen().finished => self.on_end(),
            Phase::Reading => self.on_fault(body_fault(failure)),
            Phase::Over => {}
        }
    }

    fn on_timer(&mut self, wake: Wake) {
        match wake {
            Wake::End => self.leave(),
            Wake::Idle | Wake::Total if self.relay.seen().finished => self.on_end(),
            Wake::Idle => self.on_fault(Fault::timeout(Timer::Idle, self.idle.waited)),
            Wake::Total => {
                let (waited, stalled) = self.running.attempt_time();
                // What would be too long for the provider is too long for the client.
                let is_fair = waited >= self.judged_after && stalled < self.idle.max;
                self.on_fault(total_timeout(waited, is_fair));
            }
            Wake::Pace => {
                let tokens = self.relay.seen().tokens;
                let came = tokens - self.pace.tokens;
                if came < self.pace.tokens_min && !self.relay.seen().finished {
                    let words = format!(
                        "the provider sent {came} tokens in {} ms",
                        self.pace.waited.as_millis()
                    );
                    return self.on_fault(Fault::new(FaultKind::Slow, words));
                }
                (self.pace.waited, self.pace.tokens) = (Duration::ZERO, tokens);
            }
        }
    }

    /// Ends the answer well, or as truncated.
    fn complete(&mut self) {
        match self.relay.end(&mut self.out) {
            Ok(usage) => {
                let now = self.clock.now();
                self.running.end_ok(now, usage, self.relay.finish());
                self.running.finish(Outcome::Ok, StatusCode::OK.as_u16());
                self.whole = true;
            }
            Err(fault) => self.on_fault(fault.into()),
        }
    }

    /// The client is told in a frame, since its status has long been told.
    fn on_fault(&mut self, fault: Fault) {
        self.leave();
        self.running.on_usage(self.relay.usage());
        let fault = self.running.hide(fault);
        let outcome = Outcome::Fault(fault.kind);
        self.running.end_fault(fault.clone());
        let failure = self.running.failure(&fault);
        self.out.extend_from_slice(&self.running.frame(&failure));
        self.running.finish(outcome, StatusCode::OK.as_u16());
    }

    /// Leaves the provider.
    fn leave(&mut self) {
        self.free();
        self.phase = Phase::Over;
    }

    /// The connection is not needed any more.
    fn free(&mut self) {
        self.body = None;
        self.permits = [None, None];
    }
}

fn stream_headers(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx would gather the events.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
}

/// Something that no SDK shows anybody, and that keeps proxies from closing the connection.
fn waiting_word(surface: Surface) -> Bytes {
    Bytes::from_static(match surface.dialect() {
        Dialect::OpenAi => b": waiting for a provider\n\n",
        Dialect::Anthropic => b"event: ping\ndata: {\"type\": \"ping\"}\n\n",
    })
}
