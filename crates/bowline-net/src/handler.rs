//! What an application implements, and what it can have done.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bowline_proto::{
    Command, Hub, SessionKey, Sid, SocketKey,
    hub::{SocketView, Whereabouts},
    limit::LimitKey,
    socketio::Args,
    wall::{
        self, AckError, AckRequest, BroadcastOrigin, DisconnectReason, ErrorCode, Handshake,
        SocketData,
    },
    websocket::Message as Payload,
};
use bytestring::ByteString;

use crate::{
    builder::{BindError, Builder},
    entropy::Entropy,
    errand::{Answer, Errand, Parked},
    gather::Shares,
    limit,
    mailbox::{Busy, Message, ShardStats, Task},
    packet_log::PacketLogs,
    process::Process,
    stats::Stats,
    tls::{CertificateView, TlsError},
};

/// The application behind a namespace.
///
/// Every method is called on the thread of the shard that owns the socket, between two reads of
/// its sockets: it must not block. Work that takes time goes elsewhere and comes back through a
/// [`Handle`]. What a method asks of its [`Context`] is done when it returns, in order. A method
/// that panics is counted and logged; its socket and its shard go on.
pub trait Handler: Send + Sync + 'static {
    /// A client asks to join. The default lets everybody in.
    ///
    /// The request may be kept and answered later, through a [`Handle`]; dropped unanswered it is
    /// refused.
    fn on_connect(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        cx.accept(request);
    }

    /// A client sent an event. `args` begins with its name. `ack` is there if the client asked
    /// for one.
    fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, args: Args, ack: Option<Ack>);

    /// The client of a socket that was kept is back. The request has the socket's own sid; refused, the
    /// socket stays away and its client may try again. The default lets it in, as what was checked at
    /// its connect holds for as long as the socket lives.
    fn on_return(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        cx.accept(request);
    }

    /// A socket has lost its transport, and its client may come back within `continuity.window`. The
    /// socket stays in its rooms, and what is sent to it waits for its client.
    fn on_away(&self, cx: &mut Context<'_>, socket: SocketRef, reason: DisconnectReason) {
        let _ = (cx, socket, reason);
    }

    /// A socket that was away is back.
    fn on_back(&self, cx: &mut Context<'_>, socket: SocketRef) {
        let _ = (cx, socket);
    }

    /// A socket has left the namespace: its client or the server said so, or it stayed away for too
    /// long. `reason` is then why its transport ended.
    fn on_disconnect(&self, cx: &mut Context<'_>, socket: SocketRef, reason: DisconnectReason) {
        let _ = (cx, socket, reason);
    }
}

/// The application behind a server that speaks Engine.IO alone. Called like a [`Handler`].
pub trait EngineHandler: Send + Sync + 'static {
    /// A session has opened.
    fn on_open(&self, cx: &mut Context<'_>, session: SessionRef, handshake: &Handshake) {
        let _ = (cx, session, handshake);
    }

    /// A client sent a message.
    fn on_message(&self, cx: &mut Context<'_>, session: SessionRef, message: Payload);

    /// A session has ended.
    fn on_close(&self, cx: &mut Context<'_>, session: SessionRef, reason: DisconnectReason) {
        let _ = (cx, session, reason);
    }
}

/// A socket, wherever in the process it lives. Stays the same for as long as the socket lives, and
/// valid as a name after it has gone: what is asked of it then does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketRef {
    /// Where it was born: its client may have come back to another shard since, and the socket with it.
    pub(crate) shard: u8,
    pub(crate) key: SocketKey,
}

/// An Engine.IO session, wherever in the process it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionRef {
    pub(crate) shard: u8,
    pub(crate) key: SessionKey,
}

/// The ack a client asked for. It can be answered once; dropped, the client waits in vain.
#[derive(Debug)]
#[must_use = "the client waits for its ack"]
pub struct Ack {
    pub(crate) socket: SocketRef,
    pub(crate) id: u64,
}

/// A client that asks to join a namespace.
///
/// Answered with [`Context::accept`] or [`Context::refuse`], or from any thread with the methods
/// of the same name of a [`Handle`]. Dropped unanswered, the client is refused.
pub struct ConnectRequest {
    pub(crate) socket: SocketRef,
    /// The session of the client that asks, and the key of the socket on the shard of that.
    pub(crate) session: SessionRef,
    key: SocketKey,
    /// The Socket.IO sid it will have.
    id: Sid,
    /// The secret that its client may be given to come back with.
    pid: Sid,
    claimed: bool,
    namespace: ByteString,
    auth: Option<ByteString>,
    handshake: Arc<Handshake>,
    /// Where a refusal goes when this is dropped; `None` once it was answered.
    unanswered: Option<Arc<Process>>,
    /// Called when this is dropped without having been accepted.
    refused: Option<Box<dyn FnOnce() + Send + Sync>>,
}

/// An event for many sockets of one namespace, on all shards.
#[derive(Debug, Clone)]
pub struct Broadcast(pub(crate) wall::Broadcast);

/// What a handler can have done. Everything takes effect in order, when the handler returns.
pub struct Context<'a> {
    pub(crate) shard: u8,
    /// What the client calls the event that is being handled.
    pub(crate) event_id: Option<ByteString>,
    pub(crate) process: &'a Arc<Process>,
    pub(crate) hub: &'a Hub,
    pub(crate) desk: &'a mut Desk,
}

/// The same for other threads. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(crate) process: Arc<Process>,
    /// The shard that runs what could run on any.
    home: u8,
}

/// What the handlers of one shard have asked for and are waiting for.
pub(crate) struct Desk {
    pub(crate) wishes: VecDeque<Wish>,
    pub(crate) acks: HashMap<u64, AckCallback>,
    /// Sockets that wait for somebody of their name to be found.
    pub(crate) claimed: HashSet<SocketKey>,
    pub(crate) parked: Parked,
    pub(crate) reports: HashMap<u64, Report>,
    pub(crate) shares: Shares,
    pub(crate) entropy: Entropy,
    pub(crate) packet_logs: PacketLogs,
    next_token: u64,
}

/// What a handler wants done, in the order in which it said so.
pub(crate) enum Wish {
    /// For one socket, wherever that is.
    For(Errand),
    /// For a client that waits on this shard to be let in.
    Answer(Answer),
    /// For many sockets, or for a session of this shard.
    Here(Command),
    /// On another shard, or later.
    There(u8, Message),
}

pub(crate) type AckCallback =
    Box<dyn FnOnce(&mut Context<'_>, Result<Args, AckError>) + Send + 'static>;

pub(crate) type CountCallback = Box<dyn FnOnce(&mut Context<'_>, usize) + Send + 'static>;

/// A broadcast whose receivers are being counted.
pub(crate) struct Report {
    pub(crate) shards_left: usize,
    pub(crate) receivers: usize,
    pub(crate) done: CountCallback,
}

impl SocketRef {
    /// What a socket of a hub is called everywhere.
    pub(crate) fn of(hub: &Hub, key: SocketKey) -> Self {
        let (shard, key) = hub.born(key);
        Self { shard, key }
    }
}

impl ConnectRequest {
    /// A client waits at `key` of this shard's hub.
    pub(crate) fn new(
        cx: &mut Context<'_>,
        key: SocketKey,
        (id, pid): (Sid, Sid),
        namespace: ByteString,
        auth: Option<ByteString>,
        handshake: Arc<Handshake>,
    ) -> Self {
        // One that has gone already has no session.
        let session = cx.hub.session_of(key).unwrap_or_default();
        let claimed = cx.desk.claimed.remove(&key);
        Self {
            socket: cx.socket_ref(key),
            session: SessionRef { shard: cx.shard, key: session },
            key,
            id,
            pid,
            claimed,
            namespace,
            auth,
            handshake,
            unanswered: Some(Arc::clone(cx.process)),
            refused: None,
        }
    }

    /// The socket that will join, if it is accepted.
    pub fn socket(&self) -> SocketRef {
        self.socket
    }

    /// The session it belongs to, which may have sockets in other namespaces.
    pub fn session(&self) -> SessionRef {
        self.session
    }

    /// The Socket.IO sid that the socket will have, if it is accepted.
    pub fn sid(&self) -> Sid {
        self.id
    }

    /// The namespace the client named, which a pattern may have matched.
    pub fn namespace(&self) -> &ByteString {
        &self.namespace
    }

    /// Whether [`Handler::on_connect`] is called in answer to a [`claim`](Context::claim): nobody of that
    /// name is kept, and it is not to be claimed again.
    pub fn is_claimed(&self) -> bool {
        self.claimed
    }

    /// The payload of its CONNECT packet: a JSON object, if there was one.
    pub fn auth(&self) -> Option<&ByteString> {
        self.auth.as_ref()
    }

    /// What the client said when it opened its session.
    pub fn handshake(&self) -> &Arc<Handshake> {
        &self.handshake
    }

    /// Has `told` called if whoever answers does not let the client in. For handlers that look at a
    /// request before another one answers it, and keep something for the socket: it will not
    /// disconnect if it never joins. All that are given are called, the first one first.
    pub fn on_refusal(&mut self, told: impl FnOnce() + Send + Sync + 'static) {
        self.refused = Some(match self.refused.take() {
            None => Box::new(told),
            Some(before) => Box::new(|| {
                before();
                told();
            }),
        });
    }

    /// Marks it as answered, and says for which shard `command` is.
    fn answer(mut self, command: Command) -> (u8, Answer) {
        self.unanswered = None;
        (self.session.shard, Answer { session: self.session.key, command })
    }

    /// Marks it as accepted.
    fn accept(mut self) -> (u8, Answer) {
        self.refused = None;
        let command = Command::Accept { socket: self.key, id: self.id, pid: self.pid };
        self.answer(command)
    }

    fn refuse(self, message: String, data: Option<ByteString>) -> (u8, Answer) {
        let command = Command::Refuse { socket: self.key, message, data };
        self.answer(command)
    }

    fn claim(self, name: ByteString) -> (u8, Answer) {
        let command = Command::Claim { socket: self.key, name };
        self.answer(command)
    }
}

impl Drop for ConnectRequest {
    fn drop(&mut self) {
        if let Some(refused) = self.refused.take() {
            refused();
        }
        if let Some(process) = self.unanswered.take() {
            let message = "Unanswered".to_owned();
            let command = Command::Refuse { socket: self.key, message, data: None };
            let answer = Answer { session: self.session.key, command };
            let mailbox = &process.shards[usize::from(self.session.shard)].mailbox;
            mailbox.push(Message::Answer(answer));
        }
    }
}

impl std::fmt::Debug for ConnectRequest {
    /// Leaves out `auth` and headers: they hold credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectRequest")
            .field("socket", &self.socket)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl Broadcast {
    /// An event for everybody in `namespace`.
    pub fn new(namespace: impl Into<ByteString>, args: Args) -> Self {
        Self(wall::Broadcast {
            namespace: namespace.into(),
            rooms: Vec::new(),
            except: Vec::new(),
            args,
            volatile: false,
            report: None,
            ack: None,
            forwarded: false,
            origin: None,
        })
    }

    /// Only for members of this room, or of another that was named too.
    pub fn to(mut self, room: impl Into<ByteString>) -> Self {
        self.0.rooms.push(room.into());
        self
    }

    /// Not for members of this room. The Socket.IO sid of a socket is the name of its own room.
    pub fn except(mut self, room: impl Into<ByteString>) -> Self {
        self.0.except.push(room.into());
        self
    }

    /// May be dropped for receivers that cannot take it at once.
    pub fn volatile(mut self) -> Self {
        self.0.volatile = true;
        self
    }
}

impl Context<'_> {
    /// Lets a client in.
    pub fn accept(&mut self, request: ConnectRequest) -> SocketRef {
        let socket = request.socket;
        self.answer(request.accept());
        socket
    }

    /// Lets a client in that is in `rooms` and has `data` before it hears so, and before any event
    /// of it comes.
    pub fn accept_with<R: Into<ByteString>>(
        &mut self,
        request: ConnectRequest,
        rooms: impl IntoIterator<Item = R>,
        data: Option<SocketData>,
    ) -> SocketRef {
        let socket = request.socket;
        for room in rooms {
            self.join(socket, room);
        }
        if data.is_some() {
            self.set_data(socket, data);
        }
        self.answer(request.accept());
        socket
    }

    /// Turns a client away with CONNECT_ERROR. `data` is JSON.
    pub fn refuse(
        &mut self,
        request: ConnectRequest,
        message: impl Into<String>,
        data: Option<ByteString>,
    ) {
        self.answer(request.refuse(message.into(), data));
    }

    /// Looks for the socket of a client that has no other way to say which one was its own: by a name
    /// that is its client's alone, such as a claim of a token that was verified. The handler is asked
    /// again: [`Handler::on_return`] if somebody of that name is kept, else [`Handler::on_connect`]
    /// with a request that [is claimed](ConnectRequest::is_claimed). Does something only where the
    /// namespace is [told](Builder::keeping) to name sockets so.
    pub fn claim(&mut self, request: ConnectRequest, name: impl Into<ByteString>) {
        self.answer(request.claim(name.into()));
    }

    /// Sends an event to one socket. `args` begins with its name.
    pub fn emit(&mut self, socket: SocketRef, args: Args) {
        let command = Command::Emit { socket: socket.key, args, ack: None, volatile: false };
        self.command(socket, command);
    }

    /// Sends an event to one socket unless its client cannot take it at once.
    pub fn emit_volatile(&mut self, socket: SocketRef, args: Args) {
        let command = Command::Emit { socket: socket.key, args, ack: None, volatile: true };
        self.command(socket, command);
    }

    /// Sends an event to one socket and asks for an ack. `done` is called once, on the socket's
    /// shard: with the arguments of the ack, or with why there are none.
    pub fn emit_with_ack(
        &mut self,
        socket: SocketRef,
        args: Args,
        timeout: Duration,
        done: impl FnOnce(&mut Context<'_>, Result<Args, AckError>) + Send + 'static,
    ) {
        if let Whereabouts::There(_) | Whereabouts::Moving(_) = self.whereabouts(socket) {
            let task: Task = Box::new(move |cx| cx.emit_with_ack(socket, args, timeout, done));
            self.desk.wishes.push_back(Wish::For(Errand::Task { socket, task }));
            return;
        }
        let token = self.desk.token(self.shard);
        self.desk.acks.insert(token, Box::new(done));
        let ack = Some(AckRequest { token, timeout });
        let command = Command::Emit { socket: socket.key, args, ack, volatile: false };
        self.command(socket, command);
    }

    /// Answers an event. `args` are the arguments of the client's callback.
    pub fn ack(&mut self, ack: Ack, args: Args) {
        let Ack { socket, id } = ack;
        self.command(socket, Command::Ack { socket: socket.key, id, args });
    }

    /// Sends an event to many sockets, on all shards.
    pub fn broadcast(&mut self, broadcast: Broadcast) {
        self.desk.wishes.push_back(Wish::Here(Command::Broadcast(broadcast.0)));
    }

    /// Sends an event to many sockets. `done` is called on this shard once all shards have said
    /// how many they reached.
    pub fn broadcast_counted(
        &mut self,
        broadcast: Broadcast,
        done: impl FnOnce(&mut Context<'_>, usize) + Send + 'static,
    ) {
        let token = self.desk.token(self.shard);
        let report =
            Report { shards_left: self.process.shards.len(), receivers: 0, done: Box::new(done) };
        self.desk.reports.insert(token, report);
        let broadcast = wall::Broadcast { report: Some(token), ..broadcast.0 };
        self.desk.wishes.push_back(Wish::Here(Command::Broadcast(broadcast)));
    }

    /// Puts a socket into a room.
    pub fn join(&mut self, socket: SocketRef, room: impl Into<ByteString>) {
        self.command(socket, Command::Join { socket: socket.key, room: room.into() });
    }

    /// Takes a socket out of a room.
    pub fn leave(&mut self, socket: SocketRef, room: impl Into<ByteString>) {
        self.command(socket, Command::Leave { socket: socket.key, room: room.into() });
    }

    /// Keeps data with a socket for as long as it lives, in place of what was kept before. Read it
    /// with [`Context::socket`].
    pub fn set_data(&mut self, socket: SocketRef, data: Option<SocketData>) {
        self.command(socket, Command::SetData { socket: socket.key, data });
    }

    /// Sends a socket away after some time, for example when its token ends: its client gets an event
    /// `error` with `{"code", "message"}` of `code` and is removed from the namespace; if it still
    /// waits to be let in, it is refused. The latest time that was given counts, and
    /// [`Duration::MAX`] lets it stay.
    pub fn expire(&mut self, socket: SocketRef, after: Duration, code: ErrorCode) {
        self.command(socket, Command::Expire { socket: socket.key, after, code });
    }

    /// Removes a socket from its namespace. Its client stays away until it is told otherwise.
    pub fn disconnect(&mut self, socket: SocketRef) {
        self.command(socket, Command::Disconnect { socket: socket.key, close: false });
    }

    /// Closes the whole session of a socket.
    pub fn close_socket(&mut self, socket: SocketRef) {
        self.command(socket, Command::Disconnect { socket: socket.key, close: true });
    }

    /// Engine.IO alone: sends a message.
    pub fn send(&mut self, session: SessionRef, message: Payload) {
        self.session_command(session, Command::Send { session: session.key, message });
    }

    /// Engine.IO alone: closes a session.
    pub fn close_session(&mut self, session: SessionRef) {
        self.session_command(session, Command::Close { session: session.key });
    }

    /// What is known of a socket of this shard that is in its namespace. The socket a method is
    /// called for is of this shard; one that was accepted in this call is not in yet.
    pub fn socket(&self, socket: SocketRef) -> Option<SocketView<'_>> {
        self.hub.socket(self.key_here(socket)?)
    }

    /// The session of a socket of this shard, which may still wait to be let in. `None` while its
    /// client is away.
    pub fn session_of(&self, socket: SocketRef) -> Option<SessionRef> {
        let key = self.hub.session_of(self.key_here(socket)?)?;
        Some(SessionRef { shard: self.shard, key })
    }

    /// What the client calls the event that [`Handler::on_event`] is being called for, where its
    /// namespace has an `event-id`. No other event of this socket has the same.
    pub fn event_id(&self) -> Option<&str> {
        self.event_id.as_deref()
    }

    /// The rooms that a socket of this shard has joined, its own not among them.
    pub fn rooms(&self, socket: SocketRef) -> impl Iterator<Item = &str> {
        let here = self.key_here(socket);
        here.into_iter().flat_map(|key| self.hub.rooms_of(key))
    }

    /// The socket of this shard with this Socket.IO sid.
    pub fn find_socket(&self, id: Sid) -> Option<SocketRef> {
        Some(self.socket_ref(self.hub.find_socket(id)?))
    }

    /// Counts somebody who was refused because of a limit that the application keeps, and lets the
    /// log say so once a minute at most.
    pub fn count_refused(&self, limit: LimitKey) {
        self.process.counters.on_refused(limit, self.process.clock.now());
    }

    /// The same abilities for other threads.
    pub fn handle(&self) -> Handle {
        Handle { process: Arc::clone(self.process), home: self.shard }
    }

    /// What a socket of this shard's hub is called everywhere.
    pub(crate) fn socket_ref(&self, key: SocketKey) -> SocketRef {
        SocketRef::of(self.hub, key)
    }

    /// The key that this shard's hub has for a socket.
    fn key_here(&self, socket: SocketRef) -> Option<SocketKey> {
        match self.whereabouts(socket) {
            Whereabouts::Here(key) => Some(key),
            Whereabouts::There(_) | Whereabouts::Moving(_) | Whereabouts::Gone => None,
        }
    }

    fn whereabouts(&self, socket: SocketRef) -> Whereabouts {
        self.hub.whereabouts(socket.shard, socket.key)
    }

    fn command(&mut self, socket: SocketRef, command: Command) {
        let errand = Errand::Command { born: socket.shard, command };
        self.desk.wishes.push_back(Wish::For(errand));
    }

    fn answer(&mut self, (shard, answer): (u8, Answer)) {
        self.desk.wishes.push_back(if shard == self.shard {
            Wish::Answer(answer)
        } else {
            Wish::There(shard, Message::Answer(answer))
        });
    }

    fn session_command(&mut self, session: SessionRef, command: Command) {
        self.desk.wishes.push_back(if session.shard == self.shard {
            Wish::Here(command)
        } else {
            Wish::There(session.shard, Message::Command(command))
        });
    }
}

/// Every method hands its wish to the shard in question and returns at once.
///
/// # Errors
///
/// [`Busy`] when 16,384 wishes wait at that shard already. Answers to a [`ConnectRequest`] are
/// always taken.
impl Handle {
    pub(crate) fn new(process: Arc<Process>) -> Self {
        Self { process, home: 0 }
    }

    /// Lets a client in.
    pub fn accept(&self, request: ConnectRequest) -> SocketRef {
        let socket = request.socket;
        self.answer(request.accept());
        socket
    }

    /// Lets a client in that is in `rooms` and has `data` before it hears so, and before any event
    /// of it comes.
    pub fn accept_with<R: Into<ByteString>>(
        &self,
        request: ConnectRequest,
        rooms: impl IntoIterator<Item = R>,
        data: Option<SocketData>,
    ) -> SocketRef {
        let (socket, shard) = (request.socket, request.session.shard);
        let rooms: Vec<ByteString> = rooms.into_iter().map(Into::into).collect();
        let task: Task = Box::new(move |cx| {
            cx.accept_with(request, rooms, data);
        });
        self.process.shards[usize::from(shard)].mailbox.push(Message::Task(task));
        socket
    }

    /// Turns a client away with CONNECT_ERROR. `data` is JSON.
    pub fn refuse(
        &self,
        request: ConnectRequest,
        message: impl Into<String>,
        data: Option<ByteString>,
    ) {
        self.answer(request.refuse(message.into(), data));
    }

    /// Looks for the socket of a client by its name, as [`Context::claim`].
    pub fn claim(&self, request: ConnectRequest, name: impl Into<ByteString>) {
        self.answer(request.claim(name.into()));
    }

    /// Runs code on the shard of a socket, between two reads of its sockets: what it asks of its
    /// context is done as one, in order, and after all that this thread had done before by answering
    /// requests or by this method. It must not block.
    ///
    /// Always taken, so that an answer cannot get lost: whoever calls it bounds how much it has under
    /// way. Only a server that has stopped drops it.
    pub fn run(&self, socket: SocketRef, task: impl FnOnce(&mut Context<'_>) + Send + 'static) {
        let errand = Errand::Task { socket, task: Box::new(task) };
        self.process.shards[usize::from(socket.shard)].mailbox.push(Message::Errand(errand));
    }

    /// Has something done on the shard of a socket, with all that a handler can do there.
    pub fn call(
        &self,
        socket: SocketRef,
        doing: impl FnOnce(&mut Context<'_>) + Send + 'static,
    ) -> Result<(), Busy> {
        self.errand(socket.shard, Errand::Task { socket, task: Box::new(doing) })
    }

    /// Sends an event to one socket.
    pub fn emit(&self, socket: SocketRef, args: Args) -> Result<(), Busy> {
        let command = Command::Emit { socket: socket.key, args, ack: None, volatile: false };
        self.command(socket, command)
    }

    /// Sends an event to one socket and asks for an ack. `done` is called once, on the socket's
    /// shard.
    pub fn emit_with_ack(
        &self,
        socket: SocketRef,
        args: Args,
        timeout: Duration,
        done: impl FnOnce(&mut Context<'_>, Result<Args, AckError>) + Send + 'static,
    ) -> Result<(), Busy> {
        self.call(socket, move |cx| cx.emit_with_ack(socket, args, timeout, done))
    }

    /// Answers an event.
    pub fn ack(&self, ack: Ack, args: Args) -> Result<(), Busy> {
        let Ack { socket, id } = ack;
        self.command(socket, Command::Ack { socket: socket.key, id, args })
    }

    /// Sends an event to many sockets, on all shards. At each of them it comes after what this
    /// thread asked for before, but for sockets whose clients have come back to another shard: what
    /// was sent to one of those alone takes a longer way.
    pub fn broadcast(&self, broadcast: Broadcast) -> Result<(), Busy> {
        self.to_all(|origin| {
            Message::Forwarded(wall::Broadcast { origin: Some(origin), ..broadcast.0.clone() })
        })
    }

    /// Sends an event to many sockets. `done` is called once all shards have said how many they
    /// reached.
    pub fn broadcast_counted(
        &self,
        broadcast: Broadcast,
        done: impl FnOnce(&mut Context<'_>, usize) + Send + 'static,
    ) -> Result<(), Busy> {
        self.run_on(self.home, Box::new(move |cx| cx.broadcast_counted(broadcast, done)))
    }

    /// Puts a socket into a room.
    pub fn join(&self, socket: SocketRef, room: impl Into<ByteString>) -> Result<(), Busy> {
        self.command(socket, Command::Join { socket: socket.key, room: room.into() })
    }

    /// Takes a socket out of a room.
    pub fn leave(&self, socket: SocketRef, room: impl Into<ByteString>) -> Result<(), Busy> {
        self.command(socket, Command::Leave { socket: socket.key, room: room.into() })
    }

    /// Keeps data with a socket, as [`Context::set_data`].
    pub fn set_data(&self, socket: SocketRef, data: Option<SocketData>) -> Result<(), Busy> {
        self.command(socket, Command::SetData { socket: socket.key, data })
    }

    /// Sends a socket away after some time, as [`Context::expire`].
    pub fn expire(&self, socket: SocketRef, after: Duration, code: ErrorCode) -> Result<(), Busy> {
        self.command(socket, Command::Expire { socket: socket.key, after, code })
    }

    /// Removes a socket from its namespace.
    pub fn disconnect(&self, socket: SocketRef) -> Result<(), Busy> {
        self.command(socket, Command::Disconnect { socket: socket.key, close: false })
    }

    /// Closes the whole session of a socket.
    pub fn close_socket(&self, socket: SocketRef) -> Result<(), Busy> {
        self.command(socket, Command::Disconnect { socket: socket.key, close: true })
    }

    /// Engine.IO alone: sends a message.
    pub fn send(&self, session: SessionRef, message: Payload) -> Result<(), Busy> {
        self.session_command(session, Command::Send { session: session.key, message })
    }

    /// Engine.IO alone: closes a session.
    pub fn close_session(&self, session: SessionRef) -> Result<(), Busy> {
        self.session_command(session, Command::Close { session: session.key })
    }

    /// Replaces what may change while the server runs by what a freshly described builder says:
    /// everything but addresses, adopted sockets, shards, the admin service, components and whether
    /// it speaks Socket.IO. Nobody is dropped: sessions keep what they were told when they opened,
    /// down to the path and the transport they are on; a namespace that has another handler now is
    /// handled by that one from here on, and one that no rule names any more keeps its sockets and
    /// its handler and lets nobody else in. Limits count from now on, for those who are here too.
    ///
    /// # Errors
    ///
    /// [`BindError::Invalid`] and [`BindError::Tls`] as [`Builder::bind`] says them; then nothing has
    /// changed.
    pub fn reconfigure(&self, builder: Builder) -> Result<(), BindError> {
        self.process.reconfigure(builder)
    }

    /// The certificate of the public listeners; `None` if they do not speak TLS.
    pub fn certificate(&self) -> Option<CertificateView> {
        self.process.certificates.view()
    }

    /// When that certificate stops being valid, in seconds since 1970.
    pub fn certificate_expiry(&self) -> Option<i64> {
        self.certificate().map(|certificate| certificate.expires)
    }

    /// Looks at the files of the certificate now instead of within the next two seconds. Whether
    /// there was something new, which counts for the handshakes from here on.
    ///
    /// # Errors
    ///
    /// What is there now cannot be used, and what was in use stays.
    pub fn look_at_certificate(&self) -> Result<bool, TlsError> {
        self.process.certificates.look()
    }

    /// Whether the server has begun to stop.
    pub fn is_draining(&self) -> bool {
        self.process.is_draining()
    }

    /// What the server has counted and holds, asked of every shard. A shard that has stopped
    /// counts nothing.
    pub async fn stats(&self) -> Stats {
        let mut answers = Vec::with_capacity(self.process.shards.len());
        for port in &self.process.shards {
            let (reply, answer) = tokio::sync::oneshot::channel();
            if port.mailbox.push_outer(Message::Stats(reply), usize::MAX).is_ok() {
                answers.push(answer);
            }
        }
        let mut shards = Vec::with_capacity(answers.len());
        for answer in answers {
            shards.push(answer.await.unwrap_or_else(|_| ShardStats::default()));
        }
        Stats::gather(&self.process, &shards)
    }

    fn command(&self, socket: SocketRef, command: Command) -> Result<(), Busy> {
        self.errand(socket.shard, Errand::Command { born: socket.shard, command })
    }

    fn errand(&self, shard: u8, errand: Errand) -> Result<(), Busy> {
        let mailbox = &self.process.shards[usize::from(shard)].mailbox;
        mailbox.push_outer(Message::Errand(errand), limit::MAILBOX_MAX)
    }

    fn session_command(&self, session: SessionRef, command: Command) -> Result<(), Busy> {
        let mailbox = &self.process.shards[usize::from(session.shard)].mailbox;
        mailbox.push_outer(Message::Command(command), limit::MAILBOX_MAX)
    }

    fn answer(&self, (shard, answer): (u8, Answer)) {
        self.process.shards[usize::from(shard)].mailbox.push(Message::Answer(answer));
    }

    /// Hands each shard its share of a broadcast.
    pub(crate) fn to_all(
        &self,
        mut share: impl FnMut(BroadcastOrigin) -> Message,
    ) -> Result<(), Busy> {
        let shards = &self.process.shards;
        // Held to the end, so that all shards hear of broadcasts in the same order.
        let mut broadcasts = self.process.lock_broadcasts();
        if shards.iter().any(|port| port.mailbox.is_full(limit::MAILBOX_MAX)) {
            return Err(Busy);
        }
        *broadcasts += 1;
        let origin = BroadcastOrigin { shard: shards.len() as u8, number: *broadcasts };
        for port in shards {
            // Another thread may have taken the last place meanwhile; a broadcast that reached
            // some shards reaches all.
            port.mailbox.push_outer(share(origin), usize::MAX)?;
        }
        self.process.counters.on_broadcast();
        Ok(())
    }

    fn run_on(&self, shard: u8, task: Task) -> Result<(), Busy> {
        let mailbox = &self.process.shards[usize::from(shard)].mailbox;
        mailbox.push_outer(Message::Task(task), limit::MAILBOX_MAX)
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("home", &self.home).finish_non_exhaustive()
    }
}

impl Desk {
    pub(crate) fn new(mut entropy: Entropy) -> Self {
        // Not from zero: a client may answer what the process before this one asked of it.
        let [a, b, c, d, e, f] = entropy.bytes();
        Self {
            next_token: u64::from_be_bytes([0, 0, a, b, c, d, e, f]),
            wishes: VecDeque::new(),
            acks: HashMap::new(),
            claimed: HashSet::new(),
            parked: Parked::default(),
            reports: HashMap::new(),
            shares: Shares::default(),
            entropy,
            packet_logs: PacketLogs::default(),
        }
    }

    /// A token that no other shard of the process draws.
    pub(crate) fn token(&mut self, shard: u8) -> u64 {
        self.next_token += 1;
        (u64::from(shard) << 56) | self.next_token
    }
}

/// The shard that drew a token.
pub(crate) fn token_shard(token: u64) -> u8 {
    (token >> 56) as u8
}
