//! A Socket.IO client.
//!
//! Each connection is a session of its own. One that is lost while no other is open is remembered, and the next asks the
//! service to go on with it (`pid` and offset); one that is made beside another is new, so that events come on both.
//!
//! Its server sends the heartbeats, every 25 s or so, and the session ends by itself when they do not come. So that a
//! dead connection is seen sooner, [`Command::Ping`] sends a ping of the WebSocket, which servers answer. Both count as
//! [`Level::Pong`]; where there is no WebSocket, or one whose pings are not answered, the heartbeats have to do.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bowline_dial::{
    Args, CloseReason, Config, ConnectError, Connection as Session, Event as Heard, Handle,
    JoinError, Options, Outbox, Signs, Transports, Version,
};
use bowline_proto::{
    client::Recall,
    hub::Offset,
    keeper::{Level, OpenFailure, Verdict},
    wall::AckError,
};
use bytes::Bytes;
use bytestring::ByteString;
use http::Uri;
use serde_json::{Map, Value};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Unusable, Way, bytes_of, fill_json,
    reading::{Pointers, binary, content_id, from_binary, kept_id, nonce_in},
    verdict::of_status,
};
use crate::{
    clock,
    far::{Boxed, Command, Connection, Event, Message, OpenHow, Outgoing, Profile, QUEUE, Unsaid},
    settings,
};

/// How long the service may take to ack what was asked for.
const ASK_MAX: Duration = Duration::from_secs(60);

/// Acks that are awaited at a time. A bot that asks faster than its service answers is told so.
const ASKS_MAX: usize = 1024;

/// Acks that are owed to the service. Beyond, the oldest event is never acked, as if the bot were gone.
const OWED_MAX: usize = 4096;

/// What of the time for a close is the goodbye's. In the rest of it acks are waited for that are owed on it.
const GOODBYE: Duration = Duration::from_millis(500);

/// A service that takes us out of the namespace sooner does not want us; later it may be its restart.
const WELCOME: Duration = Duration::from_secs(60);

/// What the receipt of an event says that asked for an ack.
const ASKED: &str = "ack";

/// A service that speaks Socket.IO.
pub struct SocketIo {
    url: String,
    options: Options,
    /// What is told at the CONNECT.
    auth: Option<Map<String, Value>>,
    reading: Pointers,
    /// The event of the routing probe.
    probe: Option<String>,
    recovers: bool,
    host: String,
    /// A WebSocket has worked: polling is not tried any more.
    has_websocket: AtomicBool,
    memory: Arc<Mutex<Memory>>,
}

/// What is known beyond one connection.
#[derive(Debug, Default)]
struct Memory {
    /// Connections that were opened so far, and those that are open.
    opened: u64,
    open: BTreeSet<u64>,
    /// What was the last session's that ended while no other was open.
    recall: Recall,
    /// How many acks the sessions have asked for; a session that goes on must not use their numbers again.
    acks: u64,
    owed: Owed,
    /// Something that was owed was paid.
    paid: watch::Sender<()>,
}

impl SocketIo {
    /// A service as the settings name it.
    pub(super) fn new(link: &settings::Link, way: Way) -> Result<Self, Unusable> {
        let settings::Profile::SocketIo { url, eio, path, auth, message_id, room, probe, recovery } =
            &link.profile
        else {
            return Err(Unusable("it is no Socket.IO".to_owned()));
        };
        let version = match eio {
            3 => Version::V3,
            4 => Version::V4,
            other => return Err(Unusable(format!("there is no Engine.IO {other}"))),
        };
        let authority = url.parse::<Uri>().ok().and_then(|uri| uri.authority().cloned());
        let authority = authority.ok_or_else(|| Unusable("its URL names no host".to_owned()))?;
        let auth = auth.as_ref().map(|auth| auth_of(auth, link.token.as_ref())).transpose()?;
        let mut config = Config { version, ..Config::default() };
        config.path = format!("/{}/", path.trim_matches('/'));
        if let (Version::V3, Some(auth)) = (version, &auth) {
            // Its root namespace is joined unasked: what there is to say stands in each request.
            config.query = query_of(auth);
        }
        let Way { trust, proxy } = way;
        let connect_timeout = link.http.connect_timeout;
        let options = Options { config, connect_timeout, proxy, trust, ..Options::default() };
        Ok(Self {
            url: url.clone(),
            options,
            auth: auth.filter(|_| version == Version::V4),
            reading: Pointers { id: message_id.clone(), room: room.clone() },
            probe: probe.clone(),
            recovers: *recovery && version == Version::V4,
            host: authority.as_str().to_ascii_lowercase(),
            has_websocket: AtomicBool::new(false),
            memory: Arc::default(),
        })
    }

    async fn open(&self, how: OpenHow) -> Result<Connection, OpenFailure> {
        let mut recall = if self.recovers && !how.beside_another {
            self.memory().recall.clone()
        } else {
            Recall::default()
        };
        let asked = recall.pid().is_some();
        let session = match self.connect(recall.auth(self.auth.as_ref())).await {
            Ok(session) => session,
            Err(error) => {
                if asked && matches!(error, ConnectError::NotJoined(_)) {
                    // It may be what was recalled that is not wanted.
                    self.memory().recall = Recall::default();
                }
                return Err(failure(&error));
            }
        };
        let recovered = recall.on_joined(session.pid());
        if asked {
            tracing::debug!(
                recovered,
                host = self.host,
                "the service was asked for the last session"
            );
        }
        let mut memory = self.memory();
        memory.opened += 1;
        memory.recall = Recall::default();
        let number = memory.opened;
        memory.open.insert(number);
        drop(memory);

        let (commands, command_receiver) = mpsc::channel(QUEUE);
        let (outbox, events) = Outbox::new(bytes_of);
        let driver = Driver {
            handle: session.handle().clone(),
            signs: session.signs(),
            session,
            known: Known { number, recall, memory: Arc::clone(&self.memory) },
            reading: self.reading.clone(),
            probe: self.probe.clone(),
            is_polling: !self.has_websocket.load(Ordering::Relaxed),
            told: Signs::default(),
            joined: clock::instant(),
            asks: JoinSet::new(),
            commands: command_receiver,
            events: outbox,
            stage: Stage::Open,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(driver.run());
        Ok(Connection { commands, events, address: None, tasks })
    }

    /// A WebSocket, or what there is where proxies let none through.
    async fn connect(&self, auth: Option<ByteString>) -> Result<Session, ConnectError> {
        let mut options = Options { auth, ..self.options.clone() };
        options.config.acks_from = self.memory().acks;
        options.config.transports = Transports::WebSocket;
        let first = bowline_dial::connect(&self.url, options.clone()).await;
        match first {
            Ok(session) => {
                self.has_websocket.store(true, Ordering::Relaxed);
                Ok(session)
            }
            Err(ConnectError::Closed {
                reason: CloseReason::TransportError | CloseReason::Refused { .. },
                ..
            }) if !self.has_websocket.load(Ordering::Relaxed) => {
                options.config.transports = Transports::Upgrade;
                bowline_dial::connect(&self.url, options).await
            }
            Err(error) => Err(error),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }
}

impl Profile for SocketIo {
    fn open(&self, how: OpenHow) -> Boxed<'_, Result<Connection, OpenFailure>> {
        Box::pin(self.open(how))
    }

    fn can_probe(&self) -> bool {
        self.probe.is_some()
    }

    fn host(&self) -> String {
        self.host.clone()
    }
}

impl fmt::Debug for SocketIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketIo").field("host", &self.host).finish_non_exhaustive()
    }
}

/// One connection.
struct Driver {
    session: Session,
    handle: Handle,
    signs: watch::Receiver<Signs>,
    known: Known,
    reading: Pointers,
    probe: Option<String>,
    is_polling: bool,
    /// The signs that were passed on.
    told: Signs,
    joined: Instant,
    asks: JoinSet<Asked>,
    commands: mpsc::Receiver<Command>,
    events: Outbox<Event>,
    stage: Stage,
}

/// How far it has come.
enum Stage {
    Open,
    /// It says goodbye, ends hard after so long, and tells what that means.
    Leaving {
        within: Duration,
        verdict: Verdict,
        words: &'static str,
    },
    /// It has ended, and told so.
    Over,
}

/// An ack that was waited for.
enum Asked {
    Bot {
        ask: u64,
        result: Result<Args, AckError>,
    },
    Probe {
        nonce: String,
        result: Result<Args, AckError>,
    },
    /// What was sent before this message was confirmed has left, or the session is over.
    Written {
        id: String,
        is_over: bool,
    },
}

/// What the loop woke up for.
enum Turn {
    Command(Command),
    Heard(Option<Heard>),
    Signs,
    Asked(Asked),
    /// Events were taken.
    Room,
}

impl Driver {
    async fn run(mut self) {
        while matches!(self.stage, Stage::Open) {
            let turn = self.choose().await;
            self.handle(turn).await;
            self.events.deliver();
        }
        let Self { session, mut events, known, stage, .. } = self;
        if let Stage::Leaving { within, verdict, words } = stage {
            let until = clock::instant() + within;
            known.settle(within.saturating_sub(GOODBYE)).await;
            // Whether the goodbye arrives or not, it is over after that time.
            let _ = timeout_at(until, session.close()).await;
            events.push(Event::Closed { verdict, words: words.to_owned() });
        }
        drop(known);
        events.finish().await;
    }

    /// Events that are not taken stop the reading.
    async fn choose(&mut self) -> Turn {
        let may_read = !self.events.is_full();
        loop {
            return tokio::select! {
                Some(command) = self.commands.recv() => Turn::Command(command),
                heard = self.session.next_event(), if may_read => Turn::Heard(heard),
                Ok(()) = self.signs.changed() => Turn::Signs,
                Some(asked) = self.asks.join_next(), if !self.asks.is_empty() => match asked {
                    Ok(asked) => Turn::Asked(asked),
                    // They do not panic, nor are they aborted one by one.
                    Err(_) => continue,
                },
                () = self.events.room() => Turn::Room,
            };
        }
    }

    async fn handle(&mut self, turn: Turn) {
        match turn {
            Turn::Command(command) => self.command(command).await,
            Turn::Heard(Some(event)) => self.heard(event).await,
            Turn::Heard(None) => self.stage = Stage::Over,
            Turn::Signs => {
                let signs = *self.signs.borrow_and_update();
                if signs != self.told {
                    self.told = signs;
                    self.say(Event::Heard(Level::Pong));
                }
            }
            Turn::Asked(Asked::Bot { ask, result }) => {
                let answer = match result {
                    Ok(args) => Ok(json_of(&args)),
                    Err(AckError::TimedOut) => {
                        let within = ASK_MAX.as_secs();
                        let words = format!("it was sent; no ack came within {within} s");
                        Err(Unsaid::Unanswered(words))
                    }
                    Err(AckError::Disconnected) => {
                        let words = "it was sent; the connection ended before an ack came";
                        Err(Unsaid::Unanswered(words.to_owned()))
                    }
                    Err(AckError::TooMany) => Err("too many acks are awaited".into()),
                };
                self.say(Event::Answered { ask, answer });
            }
            Turn::Asked(Asked::Probe { nonce, result }) => match result {
                Ok(_) => self.say(Event::Probed { nonce }),
                // Its echo may have come, or may not: the keeper's own time counts.
                Err(AckError::TimedOut) => {}
                Err(AckError::Disconnected | AckError::TooMany) => {
                    let words = "the event could not be sent".to_owned();
                    self.say(Event::NotProbed { nonce, words });
                }
            },
            Turn::Asked(Asked::Written { id, is_over: false }) => self.say(Event::Written { id }),
            // It goes out once more on the next connection.
            Turn::Asked(Asked::Written { .. }) | Turn::Room => {}
        }
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Ping => {
                // That it is over is told by an event.
                let _ = self.handle.ping().await;
                let Signs { heartbeats, pongs } = self.told;
                if self.is_polling || (pongs == 0 && heartbeats > 0) {
                    // The session is open: its heartbeats came in time.
                    self.say(Event::Heard(Level::Pong));
                }
            }
            Command::Probe { nonce } => match &self.probe {
                Some(_) if self.asks.len() >= ASKS_MAX => {
                    let words = "too many acks are awaited".to_owned();
                    self.say(Event::NotProbed { nonce, words });
                }
                Some(probe) => {
                    let args = Args::from_values(&[Value::from(&**probe), Value::from(&*nonce)]);
                    let asking = self.asking(args);
                    self.asks.spawn(async move { Asked::Probe { nonce, result: asking.await } });
                }
                None => {
                    let words = "the link has no probe".to_owned();
                    self.say(Event::NotProbed { nonce, words });
                }
            },
            Command::Send(outgoing) => self.send(outgoing).await,
            Command::Confirmed { id } => {
                self.answer(&id, Args::from_values(&[])).await;
                let handle = self.handle.clone();
                self.asks.spawn(async move {
                    let is_over = handle.written().await.is_err();
                    Asked::Written { id, is_over }
                });
            }
            Command::Close { within } => {
                let words = "closed from this side";
                self.stage = Stage::Leaving { within, verdict: Verdict::Again, words };
            }
            // There is no ping above the engine's, and an event is acked when the bot has confirmed it.
            Command::Ack | Command::Acknowledge { .. } => {}
        }
    }

    async fn send(&mut self, outgoing: Outgoing) {
        let Outgoing { body, ask, reply_to, text: _ } = outgoing;
        let value = serde_json::from_slice::<Value>(&body);
        let answered = match (&reply_to, &value) {
            (Some(id), Ok(value)) => {
                let one = std::slice::from_ref(value);
                let values = value.as_array().map_or(one, Vec::as_slice);
                self.answer(id, args_of(values.to_vec())).await
            }
            _ => false,
        };
        let sent = match value {
            _ if answered => Ok(()),
            Ok(Value::Array(values)) if values.first().is_some_and(Value::is_string) => {
                let args = match ByteString::try_from(body) {
                    // What has no binary stays as it was written.
                    Ok(text) if !text.contains("\"$binary\"") => Args::new(text).ok(),
                    _ => None,
                };
                let args = args.unwrap_or_else(|| args_of(values));
                match ask {
                    Some(_) if self.asks.len() >= ASKS_MAX => {
                        Err("too many acks are awaited".to_owned())
                    }
                    Some(ask) => {
                        let asking = self.asking(args);
                        self.asks.spawn(async move { Asked::Bot { ask, result: asking.await } });
                        return;
                    }
                    None => self.handle.emit(args).await.map_err(|gone| gone.to_string()),
                }
            }
            _ => Err("it is no JSON array that begins with the name of an event".to_owned()),
        };
        match (ask, sent) {
            (Some(ask), sent) => {
                let answer = sent.map(|()| Bytes::new()).map_err(Unsaid::NotSent);
                self.say(Event::Answered { ask, answer });
            }
            (None, Ok(())) => {}
            (None, Err(words)) => {
                tracing::debug!(reason = words, "a message of a bot was not sent")
            }
        }
    }

    /// Emits an event and waits for its ack.
    fn asking(&self, args: Args) -> impl Future<Output = Result<Args, AckError>> + Send + use<> {
        lock(&self.known.memory).acks += 1;
        let handle = self.handle.clone();
        async move { handle.emit_with_ack(args, ASK_MAX).await }
    }

    /// Acks an event, on every connection that it came on; says whether it asked for that.
    async fn answer(&self, id: &str, args: Args) -> bool {
        let debts = lock(&self.known.memory).owed.pay(id);
        for debt in &debts {
            // One whose session is over cannot be acked any more.
            let _ = debt.handle.ack(debt.ack, args.clone()).await;
        }
        lock(&self.known.memory).paid.send_replace(());
        !debts.is_empty()
    }

    async fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::Event { namespace, args, ack } if namespace == *self.session.namespace() => {
                let has_offset = self.known.recall.pid().is_some() && ack.is_none();
                self.known.recall.on_event(&args, ack.is_some());
                if let Some(nonce) = nonce_in(args.json().as_bytes()) {
                    if let Some(ack) = ack {
                        let _ = self.handle.ack(ack, Args::from_values(&[])).await;
                    }
                    self.say(Event::Probed { nonce });
                    return;
                }
                let message = self.message(&args, has_offset, ack.is_some());
                if let Some(ack) = ack {
                    let debt =
                        Debt { connection: self.known.number, ack, handle: self.handle.clone() };
                    lock(&self.known.memory).owed.owe(&message.id, debt);
                }
                self.say(Event::Message(message));
            }
            Heard::Upgraded => self.is_polling = false,
            Heard::Left { namespace } if namespace == *self.session.namespace() => {
                let is_welcome = clock::instant().duration_since(self.joined) >= WELCOME;
                let verdict = if is_welcome { Verdict::Again } else { Verdict::Refused };
                let words = "the service took us out of the namespace";
                self.stage = Stage::Leaving { within: Duration::from_secs(1), verdict, words };
            }
            Heard::Closed { reason, detail } => {
                self.stage = Stage::Over;
                let verdict = verdict_of(reason);
                let words = if detail.is_empty() { reason.name().to_owned() } else { detail };
                self.say(Event::Closed { verdict, words });
            }
            Heard::Unsent { why, .. } => {
                tracing::debug!(reason = ?why, "a message of a bot was not sent");
            }
            Heard::Event { .. }
            | Heard::Left { .. }
            | Heard::Opened
            | Heard::UpgradeFailed { .. }
            | Heard::Joined { .. }
            | Heard::JoinFailed { .. }
            | Heard::Ack { .. }
            | Heard::Message(_) => {}
        }
    }

    fn message(&self, args: &Args, has_offset: bool, asks_ack: bool) -> Message {
        let body = json_of(args);
        let needs_value = has_offset || !self.reading.are_none();
        let value = needs_value.then(|| serde_json::from_slice::<Value>(&body).ok()).flatten();
        let id = value.as_ref().and_then(|value| self.reading.id(value));
        let content = || match value.as_ref().filter(|_| has_offset) {
            Some(value) => content_id(without_offset(value).to_string().as_bytes()),
            None => content_id(&body),
        };
        Message {
            own_id: id.is_some(),
            id: id.as_deref().map_or_else(content, kept_id),
            room: value.as_ref().map(|value| self.reading.room(value)).unwrap_or_default(),
            receipt: asks_ack.then(|| ASKED.to_owned()),
            confirm: true,
            body,
        }
    }

    fn say(&mut self, event: Event) {
        self.events.push(event);
    }
}

/// What a connection knows, which the next one asks for if there is none beside it at its end.
struct Known {
    number: u64,
    recall: Recall,
    memory: Arc<Mutex<Memory>>,
}

impl Known {
    /// Waits until no ack is owed on this connection, as long as there is another: the bot may confirm still what came
    /// on this one alone, and no other can ack that.
    async fn settle(&self, within: Duration) {
        let mut paid = lock(&self.memory).paid.subscribe();
        let settled = async { while self.owes() && paid.changed().await.is_ok() {} };
        // Else the service does not get them, as when a connection is lost.
        let _ = timeout(within, settled).await;
    }

    fn owes(&self) -> bool {
        let memory = lock(&self.memory);
        memory.open.len() > 1 && memory.owed.is_owed_on(self.number)
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        let mut memory = lock(&self.memory);
        memory.open.remove(&self.number);
        memory.owed.forget(self.number);
        if memory.open.is_empty() {
            memory.recall = std::mem::take(&mut self.recall);
        }
    }
}

/// Acks that the service waits for, by the id of their message.
#[derive(Debug, Default)]
struct Owed {
    by_id: BTreeMap<String, VecDeque<Debt>>,
    /// The oldest first; those that were paid may still be in it.
    order: VecDeque<String>,
    count: usize,
}

#[derive(Debug)]
struct Debt {
    connection: u64,
    ack: u64,
    handle: Handle,
}

impl Owed {
    fn owe(&mut self, id: &str, debt: Debt) {
        while self.count >= OWED_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            self.count -= self.by_id.remove(&oldest).map_or(0, |debts| debts.len());
        }
        if self.order.len() >= OWED_MAX * 2 {
            let by_id = &self.by_id;
            self.order.retain(|id| by_id.contains_key(id));
        }
        let id = key(id).to_owned();
        if !self.by_id.contains_key(&id) {
            self.order.push_back(id.clone());
        }
        self.by_id.entry(id).or_default().push_back(debt);
        self.count += 1;
    }

    /// What is owed to one event of this id: an ack on each connection that it came on.
    fn pay(&mut self, id: &str) -> Vec<Debt> {
        let Some(debts) = self.by_id.get_mut(key(id)) else { return Vec::new() };
        let mut paid = Vec::<Debt>::new();
        let mut left = VecDeque::new();
        for debt in debts.drain(..) {
            if paid.iter().any(|one| one.connection == debt.connection) {
                left.push_back(debt);
            } else {
                paid.push(debt);
            }
        }
        self.count -= paid.len();
        if left.is_empty() {
            self.by_id.remove(key(id));
        } else {
            *debts = left;
        }
        paid
    }

    fn is_owed_on(&self, connection: u64) -> bool {
        self.by_id.values().flatten().any(|debt| debt.connection == connection)
    }

    /// A connection is over.
    fn forget(&mut self, connection: u64) {
        let mut count = 0;
        self.by_id.retain(|_, debts| {
            debts.retain(|debt| debt.connection != connection);
            count += debts.len();
            !debts.is_empty()
        });
        self.count = count;
    }
}

/// An id that was made of the content may have got an end since then, which tells equal ones apart.
fn key(id: &str) -> &str {
    const CONTENT_ID_BYTES: usize = 40;
    if id.starts_with("content-") { id.get(..CONTENT_ID_BYTES).unwrap_or(id) } else { id }
}

/// The arguments as JSON, with binary in it.
fn json_of(args: &Args) -> Bytes {
    let text = args.json().as_bytes().clone();
    if args.attachments().is_empty() {
        return text;
    }
    let Ok(mut value) = serde_json::from_slice::<Value>(&text) else { return text };
    fill_binary(&mut value, args);
    value.to_string().into()
}

fn fill_binary(value: &mut Value, args: &Args) {
    if let Some(bytes) = args.attachment(value) {
        *value = binary(bytes);
        return;
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| fill_binary(item, args)),
        Value::Object(members) => members.values_mut().for_each(|item| fill_binary(item, args)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The arguments that JSON with binary in it stands for.
fn args_of(values: Vec<Value>) -> Args {
    let mut value = Value::Array(values);
    let mut attachments = Vec::new();
    take_binary(&mut value, &mut attachments);
    let made = Args::with_attachments(value.to_string(), attachments);
    // A placeholder that somebody has written himself, and that stands for nothing, makes it none.
    made.unwrap_or_else(|_| Args::from_values(&[]))
}

fn take_binary(value: &mut Value, attachments: &mut Vec<Bytes>) {
    if let Some(bytes) = from_binary(value) {
        *value = Args::placeholder(attachments.len());
        attachments.push(bytes);
        return;
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| take_binary(item, attachments)),
        Value::Object(members) => {
            members.values_mut().for_each(|item| take_binary(item, attachments));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The arguments without the offset that another Bowline has put behind them: it may differ from session to session, and
/// what is the same must have the same id.
fn without_offset(value: &Value) -> Value {
    let Value::Array(values) = value else { return value.clone() };
    match values.as_slice() {
        [args @ .., Value::String(last)] if !args.is_empty() && last.parse::<Offset>().is_ok() => {
            Value::Array(args.to_vec())
        }
        _ => value.clone(),
    }
}

fn auth_of(
    template: &settings::Secret,
    token: Option<&settings::Secret>,
) -> Result<Map<String, Value>, Unusable> {
    match serde_json::from_str::<Value>(template.expose()) {
        Ok(mut value @ Value::Object(_)) => {
            fill_json(&mut value, token);
            let Value::Object(auth) = value else { return Ok(Map::new()) };
            Ok(auth)
        }
        _ => Err(Unusable("`auth` is no JSON object".to_owned())),
    }
}

/// What is told to an EIO 3 server.
fn query_of(auth: &Map<String, Value>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in auth {
        match value {
            Value::String(text) => query.append_pair(name, text),
            other => query.append_pair(name, &other.to_string()),
        };
    }
    query.finish()
}

fn failure(error: &ConnectError) -> OpenFailure {
    let verdict = match error {
        ConnectError::InvalidUrl | ConnectError::NoRoots => Verdict::Refused,
        ConnectError::Closed { reason, .. } => verdict_of(*reason),
        // Those who refuse a CONNECT do so for what it tells.
        ConnectError::NotJoined(JoinError::Refused(_)) => Verdict::Unauthorized,
        ConnectError::NotJoined(JoinError::TimedOut) => Verdict::Again,
        ConnectError::NotJoined(JoinError::TooMany) => Verdict::Refused,
    };
    OpenFailure { verdict, words: error.to_string(), retry_after: None }
}

fn verdict_of(reason: CloseReason) -> Verdict {
    match reason {
        CloseReason::Refused { status } => of_status(status),
        CloseReason::Requested
        | CloseReason::OpenTimeout
        | CloseReason::TransportClose
        | CloseReason::TransportError
        | CloseReason::PingTimeout
        | CloseReason::ParseError => Verdict::Again,
    }
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}
