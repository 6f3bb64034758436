//! What the shards and the driver share of one app: its queue, and who is there. Shards put in,
//! the driver takes out; neither waits for the other longer than it takes to do that.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bowline_dial::Pool;
use bowline_net::{
    Ack, Broadcast, ConnectRequest, Context, DisconnectReason, Handle, SessionRef, SocketRef,
};
use bowline_proto::{Time, socketio::Args};
use bytestring::ByteString;
use tokio::sync::Notify;

use crate::{
    Options, Stats,
    clock::Clock,
    limit, message_id,
    queue::{Attempt, JobId, Kind, Limits, Output, Queue, Why},
    stats::{Counters, Outcome},
    verdict::{Fault, Verdict},
    wire::{self, ConnectAnswer, Emit, EventAnswer, News, To, View},
};

/// One app.
pub(crate) struct App {
    pub(crate) clock: Clock,
    /// Tells the driver to look at the queue.
    pub(crate) wake: Notify,
    /// Told when the queue has emptied.
    quiet: Notify,
    site: Mutex<Site>,
    room: Mutex<Room>,
    counters: Counters,
    /// Known from the first client on.
    server: OnceLock<Handle>,
    /// What the ids of messages of this process begin with.
    nonce: u64,
    next_id: AtomicU64,
    closing: AtomicBool,
}

/// Where the app is.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) options: Arc<Options>,
    /// Connections to there.
    pub(crate) pool: Arc<Pool>,
}

/// What is behind the lock.
struct Room {
    queue: Queue<Lane, SocketRef, Box<Job>>,
    /// The sockets that the app knows or is being asked about.
    members: HashMap<SocketRef, Member>,
    health: Health,
}

struct Member {
    lane: Lane,
    namespace: ByteString,
    sid: ByteString,
    /// What its next event tells of it: kept while events are queued, since those before it may
    /// change it.
    view: View,
    events_queued: usize,
    /// Whether the app has been told that its client is away, or is about to be.
    away: bool,
}

/// Whose requests are one after the other: those of all sockets that came in one session, and they
/// stay together when their client comes back in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Lane {
    Session(SessionRef),
    /// An earlier process left it away, and nothing was said of it since.
    Socket(SocketRef),
}

/// How the app has been of late.
#[derive(Default)]
struct Health {
    failures: u32,
    reported: Option<bool>,
    was_shut: bool,
}

/// One request.
pub(crate) struct Job {
    /// The same however often it is sent.
    pub(crate) id: u64,
    pub(crate) socket: SocketRef,
    lane: Lane,
    pub(crate) namespace: ByteString,
    sid: ByteString,
    what: What,
}

enum What {
    Connect(ConnectRequest),
    /// The client of a socket that the app knows is back, and the app is asked whether it may be.
    Return(ConnectRequest),
    Event {
        args: Args,
        ack: Option<Ack>,
        /// What its client calls it.
        id: Option<ByteString>,
    },
    News(News<'static>),
}

/// What an app may be asked, and so what it may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Connect,
    Event,
    /// Nothing: it is told something.
    Nothing,
}

/// A good answer.
#[derive(Debug)]
pub(crate) enum Answer {
    Connect(ConnectAnswer),
    Event(EventAnswer),
    Nothing,
}

/// What the driver is to do.
pub(crate) enum Next {
    Send { job: Box<Job>, body: String, id: JobId, deadline: Time },
    Fail { job: Box<Job>, why: Why },
}

/// What an event is thought to take besides its text.
const JOB_BYTES: usize = 256;

impl App {
    pub(crate) fn new(options: Options) -> Self {
        let nonce = getrandom::u64().unwrap_or_default();
        let room = Room {
            queue: Queue::new(limits(&options)),
            members: HashMap::new(),
            health: Health::default(),
        };
        Self {
            clock: Clock::start(),
            wake: Notify::new(),
            quiet: Notify::new(),
            site: Mutex::new(Site { pool: pool(&options), options: Arc::new(options) }),
            room: Mutex::new(room),
            counters: Counters::default(),
            server: OnceLock::new(),
            nonce,
            next_id: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        }
    }

    pub(crate) fn name(&self) -> String {
        self.options().name.clone()
    }

    pub(crate) fn options(&self) -> Arc<Options> {
        self.site().options
    }

    pub(crate) fn site(&self) -> Site {
        self.site.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn reconfigure(&self, options: Options) {
        self.room().queue.set_limits(limits(&options));
        let mut site = self.site.lock().unwrap_or_else(PoisonError::into_inner);
        if site.options.url != options.url {
            site.pool = pool(&options);
        }
        site.options = Arc::new(options);
        drop(site);
        self.wake.notify_one();
    }

    pub(crate) fn stats(&self) -> Stats {
        let room = self.room();
        let (waiting, running) = (room.queue.waiting(), room.queue.running());
        let pool_waits = room.queue.waits();
        drop(room);
        Stats { waiting, running, pool_waits, ..self.counters.read() }
    }

    pub(crate) async fn settled(&self) {
        loop {
            let quiet = self.quiet.notified();
            if self.room().queue.is_empty() {
                return;
            }
            quiet.await;
        }
    }

    /// Nobody will ask for anything any more.
    pub(crate) fn close(&self) {
        self.closing.store(true, Relaxed);
        self.wake.notify_one();
    }

    /// The id of a message, as `webhook-id`.
    pub(crate) fn message_id(&self, job: &Job) -> String {
        match &job.what {
            What::Event { id: Some(id), .. } => message_id::of_event(&job.sid, id),
            What::Connect(_) | What::Return(_) | What::Event { .. } | What::News(_) => {
                message_id::of_request(self.nonce, job.id)
            }
        }
    }

    // From the shards.

    pub(crate) fn on_connect(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        self.meet(cx);
        let bytes = connect_bytes(&request);
        let socket = request.socket();
        let member = Member::of(&request);
        let job = self.job(socket, &member, What::Connect(request));
        let mut room = self.room();
        match room.push(self.clock.now(), job, Kind::Connect, bytes) {
            Ok(()) => {
                room.members.insert(socket, member);
                self.wake_if_useful(&room);
            }
            Err(job) => {
                drop(room);
                self.refuse_busy(cx, job);
            }
        }
    }

    pub(crate) fn on_return(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        self.meet(cx);
        if !self.options().recheck {
            cx.accept(request);
            return;
        }
        let bytes = connect_bytes(&request);
        let socket = request.socket();
        let view = view_of(cx, socket);
        let mut room = self.room();
        let known = room.members.entry(socket);
        let member = known.or_insert_with(|| Member { away: true, ..Member::of(&request) });
        member.come_in(request.session());
        let job = self.job(socket, member, What::Return(request));
        match room.push(self.clock.now(), job, Kind::Event, bytes) {
            Ok(()) => {
                room.on_event_queued(socket, view);
                self.wake_if_useful(&room);
            }
            Err(job) => {
                drop(room);
                self.refuse_busy(cx, job);
            }
        }
    }

    pub(crate) fn on_event(
        &self,
        cx: &mut Context<'_>,
        socket: SocketRef,
        args: Args,
        ack: Option<Ack>,
    ) {
        self.meet(cx);
        let Some(view) = view_of(cx, socket) else { return };
        let bytes = JOB_BYTES + args.bytes();
        let id = cx.event_id().map(ByteString::from);
        let mut room = self.room();
        // One that is not known was let in by whoever handled the namespace before.
        let Some(member) = room.member(cx, socket, false) else { return };
        let job = self.job(socket, member, What::Event { args, ack, id });
        match room.push(self.clock.now(), job, Kind::Event, bytes) {
            Ok(()) => {
                room.on_event_queued(socket, Some(view));
                self.wake_if_useful(&room);
            }
            Err(job) => {
                drop(room);
                self.refuse_busy(cx, job);
            }
        }
    }

    pub(crate) fn on_away(&self, cx: &Context<'_>, socket: SocketRef, reason: DisconnectReason) {
        self.meet(cx);
        let mut room = self.room();
        let Some(member) = room.member(cx, socket, true) else { return };
        // One that is known to be away was left so by an earlier process, which has told the app.
        if std::mem::replace(&mut member.away, true) {
            return;
        }
        let job = self.job(socket, member, What::News(News::Away(reason.name())));
        room.tell(self.clock.now(), job, Kind::Away);
        self.wake_if_useful(&room);
    }

    pub(crate) fn on_back(&self, cx: &Context<'_>, socket: SocketRef) {
        self.meet(cx);
        let mut room = self.room();
        let Some(member) = room.member(cx, socket, true) else { return };
        // Taken over by its client before anybody had missed it.
        if !std::mem::take(&mut member.away) {
            return;
        }
        if let Some(session) = cx.session_of(socket) {
            member.come_in(session);
        }
        let job = self.job(socket, member, What::News(News::Back));
        room.tell(self.clock.now(), job, Kind::Back);
        self.wake_if_useful(&room);
    }

    pub(crate) fn on_disconnect(&self, socket: SocketRef, reason: DisconnectReason) {
        let mut room = self.room();
        let Some(member) = room.members.remove(&socket) else { return };
        let farewell = self.job(socket, &member, What::News(News::Disconnect(reason.name())));
        let now = self.clock.now();
        let dropped = room.queue.leave(now, member.lane, socket, JOB_BYTES, farewell);
        self.wake_if_useful(&room);
        drop(room);
        for _ in &dropped {
            self.counters.on_outcome(Outcome::Gone);
        }
    }

    fn job(&self, socket: SocketRef, member: &Member, what: What) -> Box<Job> {
        Box::new(Job {
            id: self.next_id.fetch_add(1, Relaxed),
            socket,
            lane: member.lane,
            namespace: member.namespace.clone(),
            sid: member.sid.clone(),
            what,
        })
    }

    /// From the first client on there is a server.
    fn meet(&self, cx: &Context<'_>) {
        if self.server.get().is_none() {
            let _ = self.server.set(cx.handle());
        }
    }

    /// There was no place for this.
    fn refuse_busy(&self, cx: &mut Context<'_>, job: Box<Job>) {
        let fault = Fault::Busy;
        self.note_failure(fault, "has a full queue", false);
        match job.what {
            What::Connect(request) | What::Return(request) => {
                cx.refuse(request, fault.message(), Some(fault.json().into()));
            }
            What::Event { ack: Some(ack), .. } => cx.ack(ack, error_args(fault)),
            What::Event { ack: None, .. } => self.counters.on_event_lost(),
            What::News(_) => {}
        }
    }

    /// The driver looks again by itself when a request is over, and at deadlines it knows of.
    fn wake_if_useful(&self, room: &Room) {
        if room.queue.has_places() || room.queue.waiting() == 1 {
            self.wake.notify_one();
        }
    }

    // From the driver.

    /// What is to be done now, and when to ask again. `None` at the end of it all.
    pub(crate) fn choose(&self, now: Time) -> Option<(Vec<Next>, Option<Time>)> {
        let mut room = self.room();
        let mut all = Vec::new();
        while let Some(output) = room.queue.poll(now) {
            all.push(match output {
                Output::Start { id, job, deadline } => {
                    let view = room.members.get(&job.socket).map(|member| &member.view);
                    let body = job.body(view.unwrap_or(&View::default()));
                    Next::Send { job, body, id, deadline }
                }
                Output::Failed { job, why } => {
                    room.on_event_over(&job);
                    Next::Fail { job, why }
                }
            });
        }
        if room.queue.is_empty() && all.is_empty() {
            self.quiet.notify_waiters();
            if self.closing.load(Relaxed) {
                return None;
            }
        }
        Some((all, room.queue.poll_timeout()))
    }

    /// Carries out what came of a request.
    pub(crate) fn settle(
        &self,
        id: JobId,
        job: Box<Job>,
        verdict: Verdict<Answer>,
        took: Duration,
    ) {
        let now = self.clock.now();
        let chance = getrandom::u32().unwrap_or_default();
        let chance = f64::from(chance) / f64::from(u32::MAX);
        let mut dropped = Vec::new();
        match verdict {
            Verdict::NotSent { why, retry_after } => {
                let mut room = self.room();
                let attempt = Attempt::NotSent { job, retry_after };
                dropped = room.queue.finish(now, id, attempt, chance);
                let new = room.queue.is_shut() && !room.health.was_shut;
                room.health.was_shut = room.queue.is_shut();
                drop(room);
                if new {
                    let backend = &*self.options().name;
                    tracing::warn!(
                        backend,
                        error = %why,
                        "an app does not take requests; they wait for it until their deadlines"
                    );
                }
                self.note_health(Err(&why));
            }
            Verdict::Good(answer) => {
                self.counters.on_took(took);
                self.note_good();
                let refused = matches!(answer, Answer::Connect(ConnectAnswer::Refuse { .. }));
                let stranger = refused && matches!(job.what, What::Connect(_));
                let mut room = self.room();
                room.on_event_over(&job);
                if let Answer::Event(answer) = &answer
                    && let Some(member) = room.members.get_mut(&job.socket)
                {
                    member.view.apply(answer);
                }
                if stranger {
                    room.members.remove(&job.socket);
                }
                drop(room);
                // Before the next request of its lane may start: what the answers want done is
                // done in their order.
                self.apply(job, answer);
                let attempt = Attempt::Over { taken: true, member: !stranger };
                let mut room = self.room();
                dropped = room.queue.finish(now, id, attempt, chance);
                room.health.was_shut = false;
            }
            Verdict::Failed { fault, why, doubt } => {
                self.counters.on_took(took);
                self.note_failure(fault, &why, true);
                let mut room = self.room();
                room.on_event_over(&job);
                let is_connect = matches!(job.what, What::Connect(_));
                let refused = if is_connect { room.members.remove(&job.socket) } else { None };
                drop(room);
                let socket = job.socket;
                self.fail(job, fault);
                let attempt = Attempt::Over { taken: fault != Fault::Timeout, member: doubt };
                let mut room = self.room();
                dropped.extend(room.queue.finish(now, id, attempt, chance));
                if let Some(member) = refused
                    && doubt
                {
                    // The app may have let it in; the client was told otherwise.
                    let farewell =
                        self.job(socket, &member, What::News(News::Disconnect("connect failed")));
                    let pushed = room.push(now, farewell, Kind::Disconnect, JOB_BYTES);
                    debug_assert!(pushed.is_ok());
                }
            }
        }
        for _ in &dropped {
            self.counters.on_outcome(Outcome::Gone);
        }
    }

    /// A request was not sent in time.
    pub(crate) fn expire(&self, job: Box<Job>, why: Why) {
        let (fault, words) = match why {
            Why::Unavailable => (Fault::Unavailable, "took no requests until the deadline"),
            Why::Late => (Fault::Timeout, "had too much to do until the deadline"),
        };
        self.note_failure(fault, words, false);
        if matches!(job.what, What::Connect(_)) {
            self.room().members.remove(&job.socket);
        }
        self.fail(job, fault);
    }

    /// A request came to no end at all: a bug of this crate.
    pub(crate) fn give_up(&self, id: JobId, job: Box<Job>) {
        let why = "was not asked, by a fault of the server".to_owned();
        let verdict = Verdict::Failed { fault: Fault::Unavailable, why, doubt: true };
        self.settle(id, job, verdict, Duration::ZERO);
    }

    /// Carries out a good answer.
    fn apply(&self, job: Box<Job>, answer: Answer) {
        let Some(server) = self.server.get() else { return };
        match (job.what, answer) {
            (
                What::Connect(request) | What::Return(request),
                Answer::Connect(ConnectAnswer::Allow { rooms, data }),
            ) => {
                server.accept_with(request, rooms, data);
            }
            (
                What::Connect(request) | What::Return(request),
                Answer::Connect(ConnectAnswer::Refuse { message, data }),
            ) => server.refuse(request, message, data),
            (What::Event { ack, .. }, Answer::Event(answer)) => {
                if ack.is_none() && answer == EventAnswer::default() {
                    return;
                }
                let (socket, namespace) = (job.socket, job.namespace);
                server.run(socket, move |cx| carry_out(cx, socket, &namespace, answer, ack));
            }
            _ => {}
        }
    }

    /// Tells a client that its request has failed.
    fn fail(&self, job: Box<Job>, fault: Fault) {
        let Some(server) = self.server.get() else { return };
        match job.what {
            What::Connect(request) | What::Return(request) => {
                server.refuse(request, fault.message(), Some(fault.json().into()));
            }
            What::Event { ack: Some(ack), .. } => {
                server.run(job.socket, move |cx| cx.ack(ack, error_args(fault)));
            }
            What::Event { ack: None, .. } => self.counters.on_event_lost(),
            What::News(_) => {}
        }
    }

    fn note_good(&self) {
        self.counters.on_outcome(Outcome::Ok);
        self.note_health(Ok(()));
    }

    fn note_failure(&self, fault: Fault, why: &str, is_news: bool) {
        self.counters.on_outcome(Outcome::Failed(fault));
        let backend = &*self.options().name;
        tracing::warn!(backend, code = fault.code(), error = why, "an app has failed a request");
        if is_news {
            self.note_health(Err(why));
        }
    }

    /// Three failures in a row make a component that has failed; one good answer mends it.
    fn note_health(&self, outcome: Result<(), &str>) {
        const FAILURES: u32 = 3;
        let mut room = self.room();
        let health = &mut room.health;
        let good = outcome.is_ok();
        health.failures = if good { 0 } else { health.failures.saturating_add(1) };
        let settled = good || health.failures >= FAILURES;
        if !settled || health.reported == Some(good) {
            return;
        }
        health.reported = Some(good);
        drop(room);
        if let Some(server) = self.server.get() {
            let name = format!("backend:{}", self.options().name);
            let outcome = outcome.map_err(|why| format!("the app {why}"));
            server.report_component(&name, outcome);
        }
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    fn push(&mut self, now: Time, job: Box<Job>, kind: Kind, bytes: usize) -> Result<(), Box<Job>> {
        self.queue.push(now, job.lane, job.socket, kind, bytes, job)
    }

    /// The client of a socket has gone away or is back.
    fn tell(&mut self, now: Time, job: Box<Job>, kind: Kind) {
        // What says nothing any more is not missed.
        let _ = self.queue.tell(now, job.lane, job.socket, kind, JOB_BYTES, job);
    }

    /// A socket that is in its namespace, and `away` for all that the app knows if nothing is known
    /// of it here.
    fn member(&mut self, cx: &Context<'_>, socket: SocketRef, away: bool) -> Option<&mut Member> {
        match self.members.entry(socket) {
            Entry::Occupied(known) => Some(known.into_mut()),
            Entry::Vacant(unknown) => {
                let view = cx.socket(socket)?;
                let member = Member {
                    lane: match cx.session_of(socket) {
                        Some(session) if !view.away => Lane::Session(session),
                        Some(_) | None => Lane::Socket(socket),
                    },
                    namespace: view.namespace.clone(),
                    sid: view.id.to_string().into(),
                    view: View::default(),
                    events_queued: 0,
                    away,
                };
                Some(unknown.insert(member))
            }
        }
    }

    /// An event waits, which tells of its socket.
    fn on_event_queued(&mut self, socket: SocketRef, view: Option<View>) {
        if let Some(member) = self.members.get_mut(&socket) {
            member.view = view.unwrap_or_default();
            member.events_queued += 1;
        }
    }

    /// An event has been answered, or will not be.
    fn on_event_over(&mut self, job: &Job) {
        if let What::Event { .. } | What::Return(_) = job.what
            && let Some(member) = self.members.get_mut(&job.socket)
        {
            member.events_queued = member.events_queued.saturating_sub(1);
            if member.events_queued == 0 {
                member.view = View::default();
            }
        }
    }
}

impl Member {
    fn of(request: &ConnectRequest) -> Self {
        Self {
            lane: Lane::Session(request.session()),
            namespace: request.namespace().clone(),
            sid: request.sid().to_string().into(),
            view: View::default(),
            events_queued: 0,
            away: false,
        }
    }

    /// It is in this session now. One that has a lane stays there, since something may be under way.
    fn come_in(&mut self, session: SessionRef) {
        if let Lane::Socket(_) = self.lane {
            self.lane = Lane::Session(session);
        }
    }
}

impl Job {
    pub(crate) fn asked(&self) -> Asked {
        match self.what {
            What::Connect(_) | What::Return(_) => Asked::Connect,
            What::Event { .. } => Asked::Event,
            What::News(_) => Asked::Nothing,
        }
    }

    fn body(&self, view: &View) -> String {
        let (namespace, sid): (&str, &str) = (&self.namespace, &self.sid);
        match &self.what {
            What::Connect(request) | What::Return(request) => {
                let handshake = request.handshake();
                let returns = matches!(self.what, What::Return(_));
                wire::Connect {
                    namespace,
                    sid,
                    auth: request.auth().map(|auth| &**auth),
                    headers: &handshake.headers,
                    query: &handshake.query,
                    address: handshake.address,
                    recovered: returns.then_some(view),
                }
                .body()
            }
            What::Event { args, ack, .. } => {
                wire::Event { namespace, sid, view, args, ack: ack.is_some() }.body()
            }
            What::News(news) => news.body(namespace, sid),
        }
    }
}

/// What a connect takes while it waits.
fn connect_bytes(request: &ConnectRequest) -> usize {
    let handshake = request.handshake();
    let headers = handshake.headers.iter().map(|(name, value)| name.len() + value.len());
    let auth = request.auth().map_or(0, |auth| auth.len());
    JOB_BYTES + auth + headers.sum::<usize>() + handshake.query.len()
}

/// What the app is told of a socket that is in its namespace.
fn view_of(cx: &Context<'_>, socket: SocketRef) -> Option<View> {
    let data = cx.socket(socket)?.data().cloned();
    Some(View { rooms: cx.rooms(socket).map(ByteString::from).collect(), data })
}

/// Does what an app wants done about an event, on the shard of its socket.
fn carry_out(
    cx: &mut Context<'_>,
    socket: SocketRef,
    own: &ByteString,
    answer: EventAnswer,
    ack: Option<Ack>,
) {
    if answer.data.is_some() {
        cx.set_data(socket, answer.data);
    }
    for room in answer.join {
        cx.join(socket, room);
    }
    for room in answer.leave {
        cx.leave(socket, room);
    }
    for Emit { to, except, namespace, args } in answer.emits {
        let rooms = match to {
            To::Sender => {
                cx.emit(socket, args);
                continue;
            }
            To::All => Vec::new(),
            // To none of them: a broadcast without a room would go to everybody.
            To::Rooms(rooms) if rooms.is_empty() => continue,
            To::Rooms(rooms) => rooms,
        };
        let broadcast = Broadcast::new(namespace.unwrap_or_else(|| own.clone()), args);
        let broadcast = rooms.into_iter().fold(broadcast, Broadcast::to);
        cx.broadcast(except.into_iter().fold(broadcast, Broadcast::except));
    }
    if let Some(ack) = ack {
        cx.ack(ack, answer.ack.unwrap_or_else(|| Args::from_values(&[])));
    }
}

/// What acks an event that has failed.
fn error_args(fault: Fault) -> Args {
    let json = format!(r#"[{{"error":{}}}]"#, fault.json());
    Args::new(json).unwrap_or_else(|_| Args::from_values(&[]))
}

fn pool(options: &Options) -> Arc<Pool> {
    Arc::new(Pool::new(options.url.origin().clone(), limit::ANSWER_BYTES, limit::IDLE))
}

fn limits(options: &Options) -> Limits {
    Limits {
        timeout: options.timeout,
        max_concurrent: options.max_concurrent.max(1),
        jobs: options.queue,
        bytes: limit::QUEUE_BYTES,
        lane: limit::SESSION_QUEUE,
    }
}
