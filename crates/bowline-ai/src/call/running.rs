//! What one request holds, and what it must account for on every path: permits, the attempt that is made, records.

use std::{pin::Pin, sync::Arc, time::Duration};

use bowline_names::Header;
use bowline_proto::Time;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio::time::{sleep_until, timeout_at};

use super::{
    Answer, Event, Inner, Request, Watch, Whole,
    attempt::{Attempt, Got, Opened},
    config::Setup,
    stream::{Live, Streamed},
};
use crate::{
    keys::{Admission, KeyRefusal},
    limit::BUSY_RETRY_AFTER,
    memory::Held,
    permits::{Needs, Permit, Priority, Refused, RefusedWhy, Scope},
    record::{AttemptRecord, RequestRecord, attempts_header},
    route::{Chain, Exhausted, ExhaustedWhy, Reason, Step, TargetId},
    wire::{
        Ask, BadRequest, Blame, Failure, Fault, FaultKind, FinishReason, Outcome, Timer, Tried,
        Untranslatable, Usage, error_body, error_frame,
    },
};

/// One request under way. Dropped before it has finished, it is cancelled: the attempt and the request are
/// recorded so, and its permits are given back.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) inner: Arc<Inner>,
    pub(super) setup: Arc<Setup>,
    record: RequestRecord,
    started: Time,
    client_timeout: Option<Duration>,
    /// Headers of the client that are passed on.
    headers: HeaderMap,
    priority: Priority,
    watch: Option<Box<dyn Watch>>,
    /// What the key's limits are charged with.
    admission: Option<Admission>,
    /// `None` until it is let in.
    chain: Option<Chain>,
    /// The attempt that is made just now.
    current: Option<Current>,
    /// Why the last attempt failed.
    fault: Option<Fault>,
    /// Why a target was not asked at all.
    unasked: Option<Unasked>,
    /// For the whole request, and for the attempt.
    permits: [Option<Permit>; 2],
    /// What it takes of the gateway's memory.
    pub(super) memory: Held,
    over: bool,
}

/// An attempt under way.
#[derive(Debug)]
struct Current {
    record: AttemptRecord,
    began: Time,
    /// How long its client has kept it waiting, and since when it does so now: that is nothing that the provider
    /// takes.
    stalled: Duration,
    stalls_since: Option<Time>,
}

impl Current {
    fn took(&self, now: Time) -> Duration {
        now.since(self.began).saturating_sub(self.stalled(now))
    }

    fn stalled(&self, now: Time) -> Duration {
        self.stalled + self.stalls_since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// Its record, with its times.
    fn ended(self, now: Time) -> AttemptRecord {
        let (took, stalled) = (self.took(now), self.stalled(now));
        AttemptRecord { took, stalled, ..self.record }
    }
}

/// Who is asked, and why.
struct Whom {
    target: TargetId,
    number: u32,
    reason: Reason,
}

/// Why a target was not asked though it was its turn.
#[derive(Debug)]
enum Unasked {
    Untranslatable(Untranslatable),
    Busy,
    NoMemory,
}

/// What a client is told that nobody serves.
#[derive(Debug)]
struct Refusal {
    kind: FaultKind,
    failure: Box<Failure>,
    /// Another try of the client's own would end the same way.
    is_final: bool,
}

/// A request that nobody has answered.
#[derive(Debug)]
pub(super) struct Unserved {
    running: Running,
    refusal: Refusal,
}

/// A request that somebody has answered, or begun to.
#[derive(Debug)]
pub(super) enum Served {
    Whole(Box<Running>, Bytes),
    Stream(Box<Live>),
}

/// A request on its way to its first content.
pub(super) type Serving = Pin<Box<dyn Future<Output = Result<Served, Box<Unserved>>> + Send>>;

/// Answers a request.
pub(super) async fn run(inner: Arc<Inner>, mut request: Request) -> Answer {
    let (surface, body) = (request.surface, std::mem::take(&mut request.body));
    let mut running = Running::new(inner, request);
    let let_in = Ask::parse(surface, body).map_err(Refusal::from);
    let let_in = let_in.and_then(|ask| running.admit(&ask).map(|chain| (ask, chain)));
    let (ask, chain) = match let_in {
        Ok(let_in) => let_in,
        Err(refusal) => return Answer::Whole(running.unserved(refusal).whole()),
    };
    let (clock, deadline) = (running.inner.clock, chain.deadline());
    let hold_until = clock.instant(chain.hold_until());
    running.chain = Some(chain);
    let streams = ask.stream();
    let headers = running.answer_headers();
    // On the heap: a stream may have to go on with it behind its headers.
    let mut serving: Serving = Box::pin(running.serve(ask));
    let served = if streams {
        // A provider that says nothing must not keep its client without headers; it is asked on behind them.
        match timeout_at(hold_until, &mut serving).await {
            Ok(served) => served,
            Err(_) => {
                let waiting = Streamed::waiting(serving, headers, surface, clock, deadline);
                return Answer::Stream(waiting);
            }
        }
    } else {
        serving.await
    };
    match served {
        Ok(Served::Whole(running, body)) => Answer::Whole(running.whole(body)),
        Ok(Served::Stream(live)) => Answer::Stream(Streamed::live(live)),
        Err(unserved) => Answer::Whole(unserved.whole()),
    }
}

impl Running {
    fn new(inner: Arc<Inner>, request: Request) -> Self {
        let (setup, started) = (inner.setup(), inner.clock.now());
        let record = RequestRecord {
            id: request.id,
            surface: request.surface,
            stream: false,
            requested: Arc::from(""),
            key: request.key,
            session: request.session,
            client_retry: request.client_retry,
            parent: request.parent,
            started_unix_ms: u64::try_from(inner.clock.unix().as_millis()).unwrap_or(u64::MAX),
            queued: Duration::ZERO,
            first_content: None,
            took: Duration::ZERO,
            outcome: Outcome::Cancelled,
            status: CLIENT_LEFT,
            attempts: Vec::new(),
        };
        Self {
            inner,
            setup,
            record,
            started,
            client_timeout: request.client_timeout,
            headers: request.headers,
            priority: request.priority,
            watch: request.watch,
            admission: None,
            chain: None,
            current: None,
            fault: None,
            unasked: None,
            permits: [None, None],
            memory: Held::new(request.memory),
            over: false,
        }
    }

    /// Looks whether it may be asked at all, and where.
    fn admit(&mut self, ask: &Ask) -> Result<Chain, Refusal> {
        self.record.stream = ask.stream();
        self.record.requested = ask.model().into();
        let Some(model) = self.setup.model(ask.model()) else {
            let message = format!("the model `{}` does not exist here", ask.model());
            let mut failure = Failure::new(StatusCode::NOT_FOUND, "model_not_found", message);
            failure.param = Some("model".to_owned());
            return Err(Refusal::new(FaultKind::NotFound, failure, true));
        };
        let tokens = ask.prompt_tokens().saturating_add(ask.max_tokens().unwrap_or(0));
        self.priority = self.priority.for_tokens(tokens);
        let mut state = self.inner.state();
        if let Some(key) = &self.record.key {
            let admitted = state.keys.admit(self.started, key, ask.model(), tokens);
            self.admission = Some(admitted.map_err(|no| Refusal::of_key(&no, ask.model()))?);
        }
        drop(state);
        let (policy, targets) = (&self.setup.policy, &model.targets);
        Ok(Chain::new(targets, policy, self.started, self.client_timeout))
    }

    /// Asks one provider after another until one has answered, or has begun to.
    async fn serve(mut self, ask: Ask) -> Result<Served, Box<Unserved>> {
        if let Err(refused) = self.acquire().await {
            return Err(self.unserved(Refusal::of_queue(&refused)));
        }
        loop {
            match self.step() {
                Step::Attempt { target, number, until, permit_until, reason } => {
                    let whom = Whom { target, number, reason };
                    match self.attempt(&ask, whom, permit_until, until).await {
                        Some(Got::Whole(answered)) => {
                            let now = self.now();
                            self.end_ok(now, answered.usage, answered.finish);
                            return Ok(Served::Whole(Box::new(self), answered.body));
                        }
                        Some(Got::Stream(opened)) => {
                            return Ok(Served::Stream(Box::new(self.live(*opened))));
                        }
                        None => {}
                    }
                }
                Step::Wait { until } => sleep_until(self.inner.clock.instant(until)).await,
                Step::Exhausted(exhausted) => {
                    let refusal = self.exhausted(exhausted);
                    return Err(self.unserved(refusal));
                }
            }
        }
    }

    /// Waits until the request may run at all.
    async fn acquire(&mut self) -> Result<(), Refused> {
        let mut scopes = vec![Scope::All, Scope::Model(Arc::clone(&self.record.requested))];
        scopes.extend(self.record.session.clone().map(Scope::Session));
        scopes.extend(self.record.key.clone().map(Scope::Key));
        let deadline = self.chain().deadline();
        let permit = self.inner.permits.acquire(self.needs(scopes), deadline).await?;
        self.record.queued = permit.waited();
        self.permits[0] = Some(permit);
        Ok(())
    }

    fn step(&mut self) -> Step {
        let (now, random) = (self.now(), getrandom::u64().unwrap_or_default());
        let state = &mut *self.inner.state();
        let chain = self.chain.as_mut().expect("it was let in");
        chain.next(now, &mut state.health, &mut state.budget, random)
    }

    /// Asks one provider. `None` if it has not answered.
    async fn attempt(
        &mut self,
        ask: &Ask,
        whom: Whom,
        permit_until: Time,
        until: Time,
    ) -> Option<Got> {
        let target = &whom.target;
        let provider = self.setup.provider(target).expect("Setup::new has looked at every target");
        let provider = Arc::clone(provider);
        let body = match ask.body_for(provider.dialect, target.model()) {
            Ok(body) => body,
            Err(untranslatable) => {
                self.leave_out(Unasked::Untranslatable(untranslatable));
                return None;
            }
        };
        if !self.memory.set_sent(body.len()) || !self.memory.set_answer(0) {
            self.leave_out(Unasked::NoMemory);
            return None;
        }
        let needs = self.needs(vec![Scope::Provider(Arc::clone(target.provider()))]);
        let Ok(permit) = self.inner.permits.acquire(needs, permit_until).await else {
            self.leave_out(Unasked::Busy);
            return None;
        };
        if !self.is_still_asked() {
            return None;
        }
        let judged_after = self.chain().judged_after(&provider.timeouts);
        let trace = self.setup.tracing.as_ref().and_then(|tracing| {
            tracing.headers(&self.record.id, self.record.parent.as_deref(), whom.number)
        });
        let began = self.begin(whom, permit.waited());
        self.permits[1] = Some(permit);
        let current = self.current.as_mut().expect("it has just begun");
        let attempt = Attempt {
            clock: self.inner.clock,
            provider: &provider,
            ask,
            body,
            headers: &self.headers,
            trace,
            began,
            until,
            judged_after,
            record: &mut current.record,
            memory: &mut self.memory,
        };
        let got = attempt.run().await;
        self.memory.set_sent(0);
        match got {
            Ok(got) => Some(got),
            Err(fault) => {
                let fault = self.hide(fault);
                self.end_fault(fault);
                None
            }
        }
    }

    /// The target is not asked, and nobody is to blame.
    fn leave_out(&mut self, why: Unasked) {
        let state = &mut *self.inner.state();
        if let Some(chain) = &mut self.chain {
            chain.on_refused(&mut state.health);
        }
        self.unasked = Some(why);
    }

    /// Whether the target, now that there is a permit, is still to be asked.
    fn is_still_asked(&mut self) -> bool {
        let now = self.now();
        let state = &mut *self.inner.state();
        self.chain.as_mut().is_none_or(|chain| chain.on_permit(now, &mut state.health))
    }

    fn begin(&mut self, whom: Whom, queued: Duration) -> Time {
        let Whom { target, number, reason } = whom;
        if let Some(last) = self.record.attempts.last()
            && last.target != target
        {
            let from = last.target.clone();
            self.emit(&Event::FellBack { from, to: target.clone() });
        }
        self.emit(&Event::Started { attempt: number, target: target.clone(), reason });
        let began = self.now();
        let since_start = began.since(self.started);
        let mut record = AttemptRecord::new(number, target, reason, since_start);
        record.queued = queued;
        self.current = Some(Current { record, began, stalled: Duration::ZERO, stalls_since: None });
        began
    }

    /// The stream has said something.
    fn live(mut self, opened: Opened) -> Live {
        let now = self.now();
        self.record.first_content = Some(now.since(self.started));
        if let Some(chain) = &mut self.chain {
            chain.on_content(now, &mut self.inner.state().health);
        }
        let (mut ends_at, mut timeouts) = (self.started + self.setup.policy.deadline, None);
        if let Some(Current { record, began, .. }) = &self.current {
            let (attempt, target) = (record.number, record.target.clone());
            let provider = self.setup.provider(&target);
            timeouts = provider.map(|provider| provider.timeouts);
            ends_at = ends_at.min(*began + timeouts.unwrap_or_default().total);
            let after = record.first_content.unwrap_or_default();
            self.emit(&Event::FirstContent { attempt, target, after });
        }
        let timeouts = timeouts.unwrap_or_default();
        let judged_after = self.chain().judged_after(&timeouts);
        Live::new(self, opened, ends_at, timeouts.idle, judged_after)
    }

    /// How far a stream has come.
    pub(super) fn on_usage(&mut self, usage: Usage) {
        if let Some(current) = &mut self.current {
            current.record.usage = usage;
        }
    }

    /// How long the attempt has lasted, and how long its client has kept it waiting besides.
    pub(super) fn attempt_time(&self) -> (Duration, Duration) {
        let now = self.now();
        let times = |current: &Current| (current.took(now), current.stalled(now));
        self.current.as_ref().map(times).unwrap_or_default()
    }

    /// The client has what there is; until it wants more, the provider is not listened to.
    pub(super) fn on_given(&mut self) {
        let now = self.now();
        if let Some(current) = &mut self.current {
            current.stalls_since.get_or_insert(now);
        }
    }

    /// The provider is listened to.
    pub(super) fn on_listen(&mut self) {
        let now = self.now();
        if let Some(current) = &mut self.current {
            current.stalled = current.stalled(now);
            current.stalls_since = None;
        }
    }

    /// What it holds, to be held on.
    pub(super) fn take_permits(&mut self) -> [Option<Permit>; 2] {
        std::mem::take(&mut self.permits)
    }

    /// Bytes of a stream have come.
    pub(super) fn on_bytes(&mut self, bytes: usize) {
        if let Some(current) = &mut self.current {
            current.record.read_bytes += bytes as u64;
        }
    }

    /// The attempt was answered well.
    pub(super) fn end_ok(&mut self, now: Time, usage: Usage, finish: Option<FinishReason>) {
        let Some(current) = self.current.take() else { return };
        let mut record = current.ended(now);
        record.outcome = Outcome::Ok;
        record.usage = usage;
        record.finish = finish;
        let mut state = self.inner.state();
        if let Some(chain) = &mut self.chain {
            chain.on_ok(now, &mut state.health);
        }
        drop(state);
        self.account(record);
    }

    /// What the present attempt's provider says, without what nobody but the two is to know.
    pub(super) fn hide(&self, mut fault: Fault) -> Fault {
        let target = self.current.as_ref().map(|current| &current.record.target);
        if let Some(provider) = target.and_then(|target| self.setup.provider(target)) {
            provider.hide(&mut fault);
        }
        fault
    }

    /// The attempt has failed.
    pub(super) fn end_fault(&mut self, fault: Fault) {
        let now = self.now();
        let Some(current) = self.current.take() else { return };
        let mut record = current.ended(now);
        record.outcome = Outcome::Fault(fault.kind);
        record.code.clone_from(&fault.code);
        record.words = Some(fault.words.clone());
        if let Some(status) = fault.status {
            record.status = Some(status.as_u16());
        }
        let mut state = self.inner.state();
        if let Some(chain) = &mut self.chain {
            chain.on_fault(now, &fault, &mut state.health);
        }
        drop(state);
        if fault.crowded {
            let provider = Scope::Provider(Arc::clone(record.target.provider()));
            self.inner.permits.on_too_many(&provider);
        }
        if fault.kind.is_hard_down() && fault.blames == Blame::Account {
            tracing::warn!(
                target = %record.target,
                error = %fault.words,
                "a provider does not accept the gateway's account"
            );
        }
        let failed = Event::Failed {
            attempt: record.number,
            target: record.target.clone(),
            outcome: record.outcome,
            words: fault.words.clone(),
            took: record.took,
        };
        self.account(record);
        self.emit(&failed);
        self.fault = Some(fault);
    }

    /// An attempt is over, however: its figures, and its permit.
    fn account(&mut self, record: AttemptRecord) {
        self.permits[1] = None;
        let mut state = self.inner.state();
        state.records.on_attempt(&record);
        state.keys.on_attempt(self.record.key.as_deref(), &record.target, &record.usage);
        drop(state);
        self.record.attempts.push(record);
    }

    /// The request is over: its record, and everything it held.
    pub(super) fn finish(&mut self, outcome: Outcome, status: u16) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let now = self.now();
        self.permits = [None, None];
        self.record.took = now.since(self.started);
        self.record.outcome = outcome;
        self.record.status = status;
        let served = self.record.served().cloned();
        let took = self.record.took;
        let attempts = std::mem::take(&mut self.record.attempts);
        let used = |record: &AttemptRecord| record.usage.input.saturating_add(record.usage.output);
        let used = attempts.iter().map(used).fold(0, u64::saturating_add);
        let record = RequestRecord { attempts, ..self.record.clone() };
        let mut state = self.inner.state();
        if let Some(admission) = self.admission.take() {
            state.keys.settle(now, admission, used);
        }
        let record = state.records.on_request(record);
        drop(state);
        if let Some(tracing) = &self.setup.tracing {
            tracing.on_request(&record);
        }
        self.emit(&Event::Done { outcome, served, took });
    }

    /// The last fault, as a client is told of it.
    pub(super) fn failure(&self, fault: &Fault) -> Failure {
        self.complete(Failure::from(fault))
    }

    /// The event that a client's SDK raises an error on.
    pub(super) fn frame(&self, failure: &Failure) -> Bytes {
        error_frame(self.record.surface, failure)
    }

    fn complete(&self, mut failure: Failure) -> Failure {
        failure.request_id = Some(self.record.id.to_string());
        let tried = |record: &AttemptRecord| Tried {
            provider: record.target.provider().to_string(),
            model: record.target.model().to_string(),
            outcome: record.outcome.name(),
            took: record.took,
        };
        failure.attempts = self.record.attempts.iter().map(tried).collect();
        failure
    }

    fn exhausted(&mut self, exhausted: Exhausted) -> Refusal {
        let mut refusal = match (self.fault.take(), self.unasked.take()) {
            (Some(Fault { kind: FaultKind::NoMemory, .. }), _)
            | (None, Some(Unasked::NoMemory)) => Refusal::of_memory(),
            (Some(fault), _) => Refusal::new(fault.kind, Failure::from(&fault), true),
            (None, Some(Unasked::Untranslatable(words))) => {
                let (param, words) = (Some(words.param), words.words);
                Refusal::from(BadRequest { param, words })
            }
            (None, Some(Unasked::Busy)) => {
                let message = "every provider of this model has as much to do as it may";
                let status = StatusCode::SERVICE_UNAVAILABLE;
                let mut failure = Failure::new(status, "providers_busy", message);
                failure.retry_after = Some(BUSY_RETRY_AFTER);
                Refusal::new(FaultKind::Overloaded, failure, false)
            }
            (None, None) if exhausted.why == ExhaustedWhy::Deadline => Refusal::of_deadline(),
            (None, None) => {
                let message = "no provider of this model is available just now";
                let status = StatusCode::SERVICE_UNAVAILABLE;
                let failure = Failure::new(status, "no_provider_available", message);
                Refusal::new(FaultKind::Overloaded, failure, true)
            }
        };
        refusal.failure.retry_after = refusal.failure.retry_after.or(exhausted.retry_after);
        refusal
    }

    fn unserved(self, refusal: Refusal) -> Box<Unserved> {
        let failure = Box::new(self.complete(*refusal.failure));
        Box::new(Unserved { running: self, refusal: Refusal { failure, ..refusal } })
    }

    fn whole(mut self, body: Bytes) -> Whole {
        let mut headers = self.answer_headers();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.finish(Outcome::Ok, StatusCode::OK.as_u16());
        let body = self.memory.leave_with(body);
        Whole { status: StatusCode::OK, headers, body }
    }

    /// The headers of an answer: who has served it, and who was asked. An attempt that is under way counts as it
    /// stands.
    pub(super) fn answer_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut insert = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        insert(REQUEST_ID, &self.record.id);
        let under_way = self.current.as_ref().map(|current| {
            let took = current.took(self.now());
            AttemptRecord { took, outcome: Outcome::Ok, ..current.record.clone() }
        });
        let served = under_way.as_ref().or(self.record.attempts.last());
        if let Some(served) = served.filter(|served| served.outcome == Outcome::Ok) {
            insert(own(Header::ServedBy), &served.target.to_string());
        }
        match under_way {
            None if self.record.attempts.is_empty() => {}
            None => insert(own(Header::Attempts), &attempts_header(&self.record.attempts)),
            Some(under_way) => {
                let mut attempts = self.record.attempts.clone();
                attempts.push(under_way);
                insert(own(Header::Attempts), &attempts_header(&attempts));
            }
        }
        headers
    }

    fn needs(&self, scopes: Vec<Scope>) -> Needs {
        Needs { request: Arc::clone(&self.record.id), scopes, priority: self.priority }
    }

    fn chain(&self) -> &Chain {
        self.chain.as_ref().expect("it was let in")
    }

    fn now(&self) -> Time {
        self.inner.clock.now()
    }

    fn emit(&mut self, event: &Event) {
        // It may be what has panicked.
        if let Some(watch) = self.watch.as_mut().filter(|_| !std::thread::panicking()) {
            watch.on_event(event);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        if let Some(chain) = &mut self.chain {
            chain.on_cancelled(&mut self.inner.state().health);
        }
        // One that was dropped before there was a connection has asked nobody.
        let asked = |current: &Current| current.record.connect.is_some();
        if let Some(current) = self.current.take().filter(asked) {
            let record = current.ended(self.now());
            self.account(record);
        }
        self.finish(Outcome::Cancelled, CLIENT_LEFT);
    }
}

impl Unserved {
    /// For a client that has nothing yet.
    pub(super) fn whole(mut self) -> Whole {
        let Refusal { kind, failure, is_final } = &self.refusal;
        let surface = self.running.record.surface;
        let status = failure.status_for(surface);
        let mut headers = self.running.answer_headers();
        headers.remove(own(Header::ServedBy));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(after) = failure.retry_after {
            // Never too early: whole seconds, rounded up.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if *is_final {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        let body = error_body(surface, failure);
        self.running.finish(Outcome::Fault(*kind), status.as_u16());
        Whole { status, headers, body }
    }

    /// For a client that has its headers: the event that its SDK raises an error on.
    pub(super) fn last_frame(mut self) -> Bytes {
        let frame = self.running.frame(&self.refusal.failure);
        self.running.finish(Outcome::Fault(self.refusal.kind), StatusCode::OK.as_u16());
        frame
    }
}

impl Refusal {
    fn new(kind: FaultKind, failure: Failure, is_final: bool) -> Self {
        Self { kind, failure: Box::new(failure), is_final }
    }

    fn of_key(refusal: &KeyRefusal, model: &str) -> Self {
        let limited = |what: &str, after: Option<Duration>| {
            let message = format!("this key has used up its {what} of this minute");
            let status = StatusCode::TOO_MANY_REQUESTS;
            let mut failure = Failure::new(status, "rate_limit_exceeded", message);
            failure.retry_after = after;
            Self::new(FaultKind::RateLimited, failure, false)
        };
        match refusal {
            KeyRefusal::Model => {
                let message = format!("this key may not ask for the model `{model}`");
                let failure = Failure::new(StatusCode::FORBIDDEN, "model_not_allowed", message);
                Self::new(FaultKind::Auth, failure, true)
            }
            KeyRefusal::Requests(after) => limited("requests", Some(*after)),
            KeyRefusal::Tokens(after) => limited("tokens", Some(*after)),
            KeyRefusal::TooLarge => {
                let message = "this request may use more tokens than its key has in any minute";
                let status = StatusCode::TOO_MANY_REQUESTS;
                let failure = Failure::new(status, "tokens_per_minute_exceeded", message);
                Self::new(FaultKind::RateLimited, failure, true)
            }
            KeyRefusal::Gone => {
                let message = "this key is not valid any more";
                let failure = Failure::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message);
                Self::new(FaultKind::Auth, failure, true)
            }
        }
    }

    fn of_queue(refused: &Refused) -> Self {
        match refused.why {
            RefusedWhy::Deadline => Self::of_deadline(),
            RefusedWhy::QueueFull => {
                let message = "too many requests wait already";
                let status = StatusCode::SERVICE_UNAVAILABLE;
                let mut failure = Failure::new(status, "queue_full", message);
                failure.retry_after = Some(BUSY_RETRY_AFTER);
                Self::new(FaultKind::Overloaded, failure, false)
            }
            RefusedWhy::Closed => {
                let message = "nothing may run here: a limit is zero";
                let failure = Failure::new(StatusCode::SERVICE_UNAVAILABLE, "closed", message);
                Self::new(FaultKind::Overloaded, failure, true)
            }
        }
    }

    fn of_memory() -> Self {
        let message = "there is no memory for this request just now; try again in a moment";
        let mut failure = Failure::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message);
        failure.retry_after = Some(BUSY_RETRY_AFTER);
        Self::new(FaultKind::NoMemory, failure, false)
    }

    fn of_deadline() -> Self {
        let message = "the request's deadline has passed before any provider was asked";
        let failure = Failure::new(StatusCode::GATEWAY_TIMEOUT, "deadline", message);
        Self::new(FaultKind::Timeout(Timer::Total), failure, true)
    }
}

impl From<BadRequest> for Refusal {
    fn from(wrong: BadRequest) -> Self {
        Self::new(FaultKind::BadRequest, wrong.into(), true)
    }
}

fn own(header: Header) -> HeaderName {
    HeaderName::from_static(header.name())
}

/// Not a status of any RFC: nginx's, for a client that closed the connection before it was answered.
const CLIENT_LEFT: u16 = 499;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What OpenAI's and Anthropic's SDKs ask before they try again.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
