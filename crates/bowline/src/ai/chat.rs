//! `handler = { ai = "MODEL" }`: a namespace whose clients talk to a model. docs/ai.md has the events.
//!
//! A client that is away is still answered: what it misses is replayed when it is back, as everything else. One that has
//! left ends its answers at the provider.

mod deltas;
mod said;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use bowline_ai::{
    call::{self, Answer, Event, Gateway, Streamed, Watch},
    record::attempts_header,
    route::Reason,
    wire::{Outcome, Surface},
};
use bowline_names::Header;
use bowline_net::{
    Ack, ConnectRequest, Context, DisconnectReason, Handle, Handler, SocketRef, socketio::Args,
};
use bytestring::ByteString;
use serde_json::{Value, json};
use tokio::{task::AbortHandle, time};

use super::{
    Shared, conversations,
    conversations::{Bounds, Conversations},
    door, limit, lock, request_id,
};
use crate::config::Namespace;
use deltas::{Deltas, Written};
use said::{Meant, Said};

/// Answers the events of a namespace with a model.
pub(crate) struct Chat {
    shared: Arc<Shared>,
    model: Arc<str>,
    /// Where it answers.
    pattern: Arc<str>,
    /// The key that all of its clients use together.
    key: Option<Arc<str>>,
    /// Its clients show a token to get in.
    guarded: bool,
}

/// What all such namespaces share.
pub(super) struct Chats {
    conversations: Mutex<Conversations>,
    /// Answers under way, by whose they are.
    running: Mutex<HashMap<SocketRef, Vec<Running>>>,
    /// The keys of those who have shown one.
    keys: Mutex<HashMap<SocketRef, Arc<str>>>,
    /// Where there are models to talk to.
    namespaces: Mutex<BTreeSet<String>>,
}

/// An answer that is under way or waits.
struct Running {
    /// What its client calls it.
    id: Arc<str>,
    /// `None` until its task is known.
    task: Option<AbortHandle>,
    /// Where.
    pattern: Arc<str>,
    /// Why it ends, if that is for another reason than its client's.
    why: Arc<OnceLock<Problem>>,
}

/// What ends a chat without an answer, as its client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    code: String,
    message: String,
    retry: bool,
}

impl Chats {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            conversations: Mutex::new(Conversations::new(bounds)),
            running: Mutex::default(),
            keys: Mutex::default(),
            namespaces: Mutex::default(),
        }
    }

    /// There will be models to talk to here, too.
    pub(super) fn open(&self, namespaces: &BTreeSet<String>) {
        lock(&self.namespaces).extend(namespaces.iter().cloned());
    }

    /// There are models here, and nowhere else. Elsewhere answers under way end: their clients could not cancel them
    /// any more, and nobody would know that they have left.
    pub(super) fn retain(&self, namespaces: BTreeSet<String>) {
        let running = lock(&self.running);
        for one in running.values().flatten().filter(|one| !namespaces.contains(&*one.pattern)) {
            // The first reason counts.
            let _ = one.why.set(Problem::gone());
            if let Some(task) = &one.task {
                task.abort();
            }
        }
        *lock(&self.namespaces) = namespaces;
    }

    pub(super) fn set_bounds(&self, bounds: Bounds) {
        lock(&self.conversations).set_bounds(bounds);
    }

    /// How many conversations are kept.
    pub(super) fn conversations(&self) -> usize {
        lock(&self.conversations).len()
    }

    /// Makes room for an answer at `pattern`. Why it ends may be said meanwhile.
    fn enter(
        &self,
        socket: SocketRef,
        id: &Arc<str>,
        pattern: &Arc<str>,
        most: usize,
    ) -> Result<Arc<OnceLock<Problem>>, Problem> {
        let mut running = lock(&self.running);
        if !lock(&self.namespaces).contains(&**pattern) {
            return Err(Problem::gone());
        }
        let own = running.entry(socket).or_default();
        if own.iter().any(|one| one.id == *id) {
            return Err(Problem::new("id-used", "an answer with this id is under way"));
        }
        if own.len() >= most {
            let words = format!("{most} answers are under way or wait already");
            return Err(Problem { retry: true, ..Problem::new("too-many-chats", words) });
        }
        let why = Arc::<OnceLock<Problem>>::default();
        let (id, pattern) = (Arc::clone(id), Arc::clone(pattern));
        own.push(Running { id, task: None, pattern, why: Arc::clone(&why) });
        Ok(why)
    }

    fn on_task(&self, socket: SocketRef, id: &Arc<str>, task: AbortHandle) {
        let mut running = lock(&self.running);
        let own = running.get_mut(&socket).into_iter().flatten();
        // One that is not there any more has ended already.
        if let Some(one) = own.into_iter().find(|one| one.id == *id) {
            if one.why.get().is_some() {
                task.abort();
            }
            one.task = Some(task);
        }
    }

    fn leave(&self, socket: SocketRef, id: &Arc<str>) {
        let mut running = lock(&self.running);
        let Some(own) = running.get_mut(&socket) else { return };
        own.retain(|one| one.id != *id);
        if own.is_empty() {
            running.remove(&socket);
        }
    }

    /// Ends answers of a client: the one with this id, or all. How many that were: one that is being ended is not ended
    /// again.
    fn cancel(&self, socket: SocketRef, id: Option<&str>) -> usize {
        let mut running = lock(&self.running);
        let own = running.get_mut(&socket).into_iter().flatten();
        let meant = own.filter(|one| id.is_none_or(|id| *one.id == *id));
        meant.filter_map(|one| one.task.take()).map(|task| task.abort()).count()
    }
}

impl Chat {
    pub(super) fn new(shared: Arc<Shared>, pattern: &str, model: &str, rule: &Namespace) -> Self {
        let key = rule.ai_key.as_deref().map(Arc::from);
        let (model, pattern) = (model.into(), pattern.into());
        Self { shared, model, pattern, key, guarded: rule.jwt.is_some() }
    }

    /// Lets a client in, if the key that it shows is known, or it needs none.
    fn welcome(&self, cx: &mut Context<'_>, mut request: ConnectRequest) {
        let socket = request.socket();
        match self.judge(request.auth()) {
            Ok(Some(key)) => {
                lock(&self.shared.chats.keys).insert(socket, key);
                let shared = Arc::clone(&self.shared);
                request.on_refusal(move || _ = lock(&shared.chats.keys).remove(&socket));
                cx.accept(request);
            }
            Ok(None) => _ = cx.accept(request),
            Err(problem) => {
                let data = json!({ "code": problem.code }).to_string();
                cx.refuse(request, problem.message, Some(data.into()));
            }
        }
    }

    /// Whose key a client shows (`auth: { key }`), where the namespace does not say it.
    fn judge(&self, auth: Option<&ByteString>) -> Result<Option<Arc<str>>, Problem> {
        let Some(gateway) = self.shared.gateway().filter(|_| self.key.is_none()) else {
            return Ok(None);
        };
        let shown = auth.and_then(|auth| said::key(auth));
        match shown.map(|shown| gateway.identify(&shown)) {
            Some(Some(key)) => Ok(Some(key.name)),
            Some(None) => Err(Problem::new(door::INVALID_KEY, "the key is not known here")),
            None => self.without_key(&gateway).map(|()| None),
        }
    }

    /// Whether somebody may ask who has shown no key: as at `/v1`, but where a token is asked for, that is enough.
    fn without_key(&self, gateway: &Gateway) -> Result<(), Problem> {
        if self.guarded {
            return Ok(());
        }
        if gateway.has_keys() {
            let words = "no key is shown: connect with `auth: { key }`";
            return Err(Problem::new(door::INVALID_KEY, words));
        }
        if self.shared.terms().listens_to_others {
            return Err(Problem::new(door::KEYS_REQUIRED, door::KEYS_REQUIRED_WORDS));
        }
        Ok(())
    }

    /// Whose limits count for a client; `None` where nobody's do.
    fn key_of(&self, socket: SocketRef) -> Result<Option<Arc<str>>, Problem> {
        let own = || lock(&self.shared.chats.keys).get(&socket).cloned();
        let key = self.key.clone().or_else(own);
        if let (None, Some(gateway)) = (&key, self.shared.gateway()) {
            // Keys may have come with a reload, when it was in already.
            self.without_key(&gateway)?;
        }
        Ok(key)
    }

    /// Begins an answer. But for its id, what the client says is read elsewhere: it may be long, and this is the
    /// thread of a shard.
    fn begin(&self, cx: &Context<'_>, socket: SocketRef, args: Args, ack: Option<Ack>) {
        let Some(sid) = cx.socket(socket).map(|view| view.id.to_string()) else { return };
        let record = request_id();
        let id = said::id(&args).map_or_else(|| Arc::clone(&record), Arc::from);
        // From here on whoever ends it tells the client.
        let mut turn = Turn {
            shared: Arc::clone(&self.shared),
            client: Client { handle: cx.handle(), socket, id: Arc::clone(&id) },
            record,
            ack,
            entered: false,
            conversation: None,
            said: Vec::new(),
            key: None,
            why: Arc::default(),
            ended: Some(Problem::new("cancelled", "the answer was cancelled")),
        };
        match self.key_of(socket) {
            Ok(key) => turn.key = key,
            Err(problem) => return turn.fail(problem),
        }
        let most = self.shared.terms().per_session * limit::CHATS_PER_PERMIT;
        match self.shared.chats.enter(socket, &id, &self.pattern, most) {
            Ok(why) => turn.why = why,
            Err(problem) => return turn.fail(problem),
        }
        turn.entered = true;
        let task = self.shared.spawn(turn.run(Arc::clone(&self.model), sid, args));
        if let Some(task) = task {
            self.shared.chats.on_task(socket, &id, task);
        }
    }
}

impl Handler for Chat {
    fn on_connect(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        self.welcome(cx, request);
    }

    fn on_return(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        self.welcome(cx, request);
    }

    fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, args: Args, ack: Option<Ack>) {
        match args.name().as_deref() {
            Some("chat") => self.begin(cx, socket, args, ack),
            Some("cancel") => {
                let cancelled = match said::meant(&args) {
                    Meant::One(id) => self.shared.chats.cancel(socket, Some(&id)),
                    Meant::All => self.shared.chats.cancel(socket, None),
                    Meant::Nothing => 0,
                };
                if let Some(ack) = ack {
                    cx.ack(ack, Args::from_values(&[json!({ "cancelled": cancelled })]));
                }
            }
            _ => {
                if let Some(ack) = ack {
                    let words = "this namespace takes `chat` and `cancel`";
                    let problem = Problem::new("unknown-event", words);
                    cx.ack(ack, Args::from_values(&[problem.view()]));
                }
            }
        }
    }

    fn on_disconnect(&self, _: &mut Context<'_>, socket: SocketRef, _: DisconnectReason) {
        lock(&self.shared.chats.keys).remove(&socket);
        self.shared.chats.cancel(socket, None);
    }
}

/// Who is answered.
#[derive(Clone)]
struct Client {
    handle: Handle,
    socket: SocketRef,
    /// What the answer is called between the two.
    id: Arc<str>,
}

impl Client {
    /// Sends an event whose one argument has the id. `false` if the shard of the client has too much to do.
    fn emit(&self, name: &str, mut value: Value) -> bool {
        value["id"] = json!(&*self.id);
        let args = Args::from_values(&[json!(name), value]);
        self.handle.emit(self.socket, args).is_ok()
    }
}

impl Watch for Client {
    /// An attempt that is not told, since a shard has too much to do, stands in the record all the same.
    fn on_event(&mut self, event: &Event) {
        let ms = |time: &Duration| time.as_secs_f64() * 1_000.0;
        let value = match event {
            Event::Started { attempt, target, reason } => json!({
                "state": "started", "attempt": attempt, "provider": &**target.provider(),
                "model": &**target.model(), "reason": reason_name(*reason),
            }),
            Event::FirstContent { attempt, target, after } => json!({
                "state": "first-content", "attempt": attempt, "provider": &**target.provider(),
                "model": &**target.model(), "ms": ms(after),
            }),
            Event::Failed { attempt, target, outcome, words, took } => json!({
                "state": "failed", "attempt": attempt, "provider": &**target.provider(),
                "model": &**target.model(), "outcome": outcome.name(), "message": words_for_clients(*outcome, words),
                "ms": ms(took),
            }),
            Event::FellBack { from, to } => json!({
                "state": "fell-back", "from": from.to_string(), "to": to.to_string(),
            }),
            Event::Done { outcome, served, took } => json!({
                "state": "done", "outcome": outcome.name(),
                "served_by": served.as_ref().map(ToString::to_string), "ms": ms(took),
            }),
        };
        self.emit("attempt", value);
    }
}

/// A provider's words about the gateway's own account are nobody else's business, also when another provider answers.
fn words_for_clients(outcome: Outcome, words: &str) -> &str {
    match outcome {
        Outcome::Fault(kind) => kind.words_for_clients().unwrap_or(words),
        Outcome::Ok | Outcome::Cancelled => words,
    }
}

fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::First => "first",
        Reason::Fallback => "fallback",
        Reason::Skipped => "skipped",
        Reason::Retry => "retry",
    }
}

/// One answer, from its event to its ack: whatever ends it, the client is told, its place is free again, and the
/// conversation goes on.
struct Turn {
    shared: Arc<Shared>,
    client: Client,
    /// What its request is called.
    record: Arc<str>,
    ack: Option<Ack>,
    /// Whether it has a place.
    entered: bool,
    conversation: Option<Arc<str>>,
    /// What is to be remembered.
    said: Vec<conversations::Message>,
    /// Whose limits count.
    key: Option<Arc<str>>,
    /// Why it ends, if somebody else has ended it.
    why: Arc<OnceLock<Problem>>,
    /// What its client is told if nothing else is said.
    ended: Option<Problem>,
}

impl Turn {
    async fn run(mut self, model: Arc<str>, sid: String, args: Args) {
        if let Err(problem) = Box::pin(self.answer(&model, &sid, &args)).await {
            self.fail(problem);
        }
    }

    async fn answer(&mut self, model: &str, sid: &str, args: &Args) -> Result<(), Problem> {
        let said = Said::read(args)?;
        let gateway = self
            .shared
            .gateway()
            .ok_or_else(|| Problem::new("overloaded", "there is no AI gateway here any more"))?;
        let earlier = self.open(sid, &said)?;
        let body = said.body(model, &earlier)?;
        let share = self.shared.bodies.take(body.len()).ok_or_else(|| {
            let words = "too many requests are being answered; try again in a moment";
            Problem { retry: true, ..Problem::new("overloaded", words) }
        })?;
        let record = Arc::clone(&self.record);
        let mut request = call::Request::new(Arc::clone(&record), Surface::ChatCompletions, body);
        request.session = Some(sid.into());
        request.memory = Some(share);
        if let Some(key) = &self.key {
            // One that is gone is refused there.
            request.priority = gateway.key(key).map(|key| key.priority).unwrap_or_default();
            request.key = Some(Arc::clone(key));
        }
        request.watch = Some(Box::new(self.client.clone()));
        let answer = match Box::pin(gateway.run(request)).await {
            Answer::Stream(stream) => self.relay(stream).await,
            Answer::Whole(whole) => Err(Problem::of_body(whole.status.as_u16(), &whole.body)),
        };
        let (served, written) = answer?;
        self.said = said.remembered(&written);
        self.tell(&gateway, &record, served, &written);
        Ok(())
    }

    /// Opens the conversation, if it is part of one: what was said in it before.
    fn open(&mut self, sid: &str, said: &Said) -> Result<Vec<conversations::Message>, Problem> {
        let mut all = lock(&self.shared.chats.conversations);
        let Some(name) = said.conversation_name(sid, |name| all.contains(name)) else {
            return Ok(Vec::new());
        };
        let earlier = all.begin(&name).map_err(|conversations::Busy| {
            let words = "an answer in this conversation is under way";
            Problem { retry: true, ..Problem::new("conversation-busy", words) }
        })?;
        self.conversation = Some(name);
        Ok(earlier)
    }

    /// Sends the answer on as it comes; who gave it, and all of it.
    async fn relay(&self, mut stream: Streamed) -> Result<(Option<String>, Written), Problem> {
        let mut deltas = Deltas::default();
        let served = stream.headers().get(Header::ServedBy.name());
        let served = served.and_then(|value| value.to_str().ok()).map(str::to_owned);
        while let Some(piece) = stream.next().await {
            let delta = deltas.push(&piece)?;
            if let Some(delta) = delta {
                self.send(delta).await?;
            }
        }
        Ok((served, deltas.written()?))
    }

    /// Sends a delta, also when its shard has too much to do for a moment.
    async fn send(&self, delta: Value) -> Result<(), Problem> {
        const PAUSE: Duration = Duration::from_millis(20);
        let mut waited = Duration::ZERO;
        while !self.client.emit("delta", delta.clone()) {
            if waited > limit::BUSY_SHARD {
                let words = "the server has too much to do";
                return Err(Problem { retry: true, ..Problem::new("overloaded", words) });
            }
            time::sleep(PAUSE).await;
            waited += PAUSE;
        }
        Ok(())
    }

    /// Acks with the whole answer.
    fn tell(&mut self, gateway: &Gateway, record: &str, served: Option<String>, written: &Written) {
        self.ended = None;
        let Some(ack) = self.ack.take() else { return };
        let found = gateway.find(record);
        let attempts = found.as_ref().map(|found| attempts_header(&found.attempts));
        let served = found.and_then(|found| found.served().map(ToString::to_string)).or(served);
        let mut value = written.view();
        value["id"] = json!(&*self.client.id);
        value["conversation"] = json!(self.conversation_for_client());
        value["request_id"] = json!(record);
        value["served_by"] = json!(served);
        value["attempts"] = json!(attempts);
        self.acknowledge(ack, &value);
    }

    /// What its client calls the conversation.
    fn conversation_for_client(&self) -> Option<&str> {
        let name = self.conversation.as_deref()?;
        Some(name.split_once('/').map_or(name, |(_, own)| own))
    }

    fn fail(mut self, problem: Problem) {
        self.ended = Some(problem);
    }

    /// Acks behind all deltas, on the same way. Even a shard that has too much to do does not lose it.
    fn acknowledge(&self, ack: Ack, value: &Value) {
        let args = Args::from_values(std::slice::from_ref(value));
        let slot = Arc::new(Mutex::new(Some((ack, args))));
        let deliver = |slot: Arc<Mutex<Option<(Ack, Args)>>>| {
            move |cx: &mut Context<'_>| {
                if let Some((ack, args)) = lock(&slot).take() {
                    cx.ack(ack, args);
                }
            }
        };
        let Client { handle, socket, .. } = &self.client;
        if handle.call(*socket, deliver(Arc::clone(&slot))).is_err() {
            // How many are under way is bounded.
            handle.run(*socket, deliver(slot));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.entered {
            self.shared.chats.leave(self.client.socket, &self.client.id);
        }
        if let Some(name) = &self.conversation {
            let said = std::mem::take(&mut self.said);
            lock(&self.shared.chats.conversations).end(name, said);
        }
        let Some(ended) = self.ended.take() else { return };
        let problem = self.why.get().cloned().unwrap_or(ended);
        match self.ack.take() {
            Some(ack) => self.acknowledge(ack, &problem.view()),
            None => {
                self.client.emit("chat-error", problem.view());
            }
        }
    }
}

impl Problem {
    fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), retry: false }
    }

    /// What an answer says that is none.
    fn of_body(status: u16, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let problem = Self::of_error(&body["error"]);
        // More than a whole minute of its key has.
        let never = problem.code == "tokens_per_minute_exceeded";
        Self { retry: !never && (status == 429 || status >= 500), ..problem }
    }

    /// A reload has taken the model away from the namespace.
    fn gone() -> Self {
        Self::new("handler-gone", "there is no model at this namespace any more")
    }

    /// What an error in a stream says.
    fn of_error(error: &Value) -> Self {
        let text = |key: &str| error[key].as_str().filter(|text| !text.is_empty());
        let code = text("code").or(text("type")).unwrap_or("failed");
        Self { retry: true, ..Self::new(code, text("message").unwrap_or("the answer failed")) }
    }

    fn view(&self) -> Value {
        json!({ "error": { "code": self.code, "message": self.message, "retry": self.retry } })
    }
}

#[cfg(test)]
mod tests {
    use bowline_ai::wire::FaultKind;

    use super::*;

    #[test]
    fn what_a_provider_says_of_the_gateways_account_is_not_told() {
        let words = "Your account org-446a <ak-f817> is suspended";
        let told = |kind| words_for_clients(Outcome::Fault(kind), words);
        for kind in [FaultKind::Auth, FaultKind::Billing, FaultKind::RateLimited] {
            assert!(!told(kind).contains("446a"), "{}", told(kind));
        }
        assert_eq!(told(FaultKind::ServerError), words);
    }
}
