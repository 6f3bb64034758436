//! One shard: the turn. Everything that is ready is handed to the hub, everything the hub wants
//! done is done, and every socket that has something to say writes once.

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context as TaskContext, Poll},
};

use bowline_proto::{
    Command, Event, ExchangeId, Hub, Input, Output, Sid, SocketKey, Time, TransportId,
    engineio::SessionRequest,
    hub::Snapshot,
    id::NumberHash,
    limit::LimitKey,
    wall::{AckError, Broadcast, HandlerId, Lost, Origin, PostBody, Response},
    websocket::{self, DecodeConfig, Incoming, OpCode},
};
use tokio::sync::oneshot;

use crate::{
    accept::Local,
    admission::SessionCount,
    entropy::Entropy,
    exchange::Reply,
    handler::{Ack, ConnectRequest, Context, Desk, SessionRef, SocketRef},
    idle_cut::{End, Ends},
    inspect, limit,
    mailbox::{Adoption, Entry, Message, ShardStats},
    overdue::Overdue,
    process::Process,
    settings::{Handlers, Plan},
    stats::WebSocketEnd,
    transport::{FlushOutcome, ReadOutcome, Ready, State, Transports},
};

mod drain;
mod routing;
#[cfg(test)]
mod tests;

use drain::Drain;

/// One thread's share of the server.
pub(crate) struct Shard {
    index: u8,
    process: Arc<Process>,
    local: Local,
    /// The time of this turn.
    now: Time,
    hub: Hub,
    handlers: Arc<Handlers>,
    desk: Desk,
    transports: Transports,
    /// HTTP requests that wait for the hub's answer.
    exchanges: HashMap<ExchangeId, Waiting, NumberHash>,
    sessions: SessionCount,
    scratch: Vec<u8>,
    /// How WebSockets ended, by [`WebSocketEnd`].
    websocket_ends: [u64; WebSocketEnd::ALL.len()],
    /// Those that ended without a close frame.
    cut: Ends,
    ready: Vec<Ready>,
    /// From connections and from other shards.
    inbox: VecDeque<Message>,
    /// From other threads.
    commands: VecDeque<Message>,
    /// Messages of clients that came while other shards had too many, before those in `inbox`.
    held: VecDeque<Message>,
    overdue: Overdue,
    /// Shards that must take messages before this one reads more from its sockets.
    congested: Vec<u8>,
    /// Shards that waited for this one to take its messages.
    waiting: Vec<u8>,
    /// The hub was told something since polls were last answered.
    fed: bool,
    /// Sockets that have arrived where they were on their way to, by pid.
    settled: Vec<Sid>,
    /// What an earlier process has saved is still to come.
    restoring: bool,
    /// How many messages were handled, with all that followed from them.
    handled: u64,
    drain: Option<Drain>,
}

/// A request that waits for its answer.
struct Waiting {
    reply: oneshot::Sender<Reply>,
    session: Sid,
}

impl Shard {
    /// # Errors
    ///
    /// The system gave no epoll descriptor.
    pub(crate) fn new(index: u8, process: Arc<Process>, local: Local) -> io::Result<Self> {
        let mut entropy = Entropy::new();
        let plan = process.plan();
        let config = plan.hub_of(index, process.identity());
        Ok(Self {
            index,
            now: process.clock.now(),
            restoring: config.continuity.loading,
            hub: Hub::new(config, entropy.bytes()),
            handlers: plan.handlers,
            sessions: SessionCount::new(Arc::clone(&process)),
            process,
            local,
            desk: Desk::new(entropy),
            transports: Transports::new()?,
            exchanges: HashMap::default(),
            scratch: vec![0; limit::SCRATCH_BYTES],
            websocket_ends: [0; WebSocketEnd::ALL.len()],
            cut: Ends::default(),
            ready: Vec::new(),
            inbox: VecDeque::new(),
            commands: VecDeque::new(),
            held: VecDeque::new(),
            overdue: Overdue::default(),
            congested: Vec::new(),
            waiting: Vec::new(),
            fed: false,
            settled: Vec::new(),
            handled: 0,
            drain: None,
        })
    }

    /// Serves until a drain is over. Gives what is to be saved, if anything is.
    ///
    /// # Errors
    ///
    /// The system stopped telling of sockets: nothing can be served any more.
    pub(crate) async fn run(mut self) -> io::Result<Option<Snapshot>> {
        let sleep = tokio::time::sleep_until(self.process.clock.instant(self.now));
        tokio::pin!(sleep);
        let mut armed = self.now;
        loop {
            let deadline = self.next_deadline();
            if let Some(at) = deadline
                && at != armed
            {
                armed = at;
                sleep.as_mut().reset(self.process.clock.instant(at));
            }
            if self.is_idle() {
                poll_fn(|cx| self.poll_wake(cx, deadline.is_some(), sleep.as_mut())).await?;
            } else {
                // The driver is polled in between, and the other tasks have their turn.
                tokio::task::yield_now().await;
                poll_fn(|cx| {
                    let woken = self.poll_wake(cx, false, sleep.as_mut());
                    if let Poll::Ready(Err(error)) = woken {
                        Poll::Ready(Err(error))
                    } else {
                        Poll::Ready(Ok(()))
                    }
                })
                .await?;
            }
            self.now = self.process.clock.now();
            if !self.is_quiet() {
                self.turn()?;
            }
            if self.is_over() {
                return Ok(self.save());
            }
        }
    }

    /// Whether nothing is to be done before something happens.
    fn is_idle(&self) -> bool {
        let more = !self.held.is_empty()
            || !self.commands.is_empty()
            || (!self.is_sealed() && self.transports.has_more());
        self.inbox.is_empty() && (self.is_congested() || !more)
    }

    /// Whether other shards must take messages before anything is handled that could make more.
    fn is_congested(&self) -> bool {
        !self.congested.is_empty()
    }

    /// Whether nothing is known to wait that could be a sign of life.
    fn has_read_all(&self) -> bool {
        self.inbox.is_empty()
            && self.held.is_empty()
            && !self.is_congested()
            && !self.transports.has_unread()
    }

    fn next_deadline(&self) -> Option<Time> {
        let drain = self.drain.as_ref().and_then(Drain::next_deadline);
        let hub = self.hub.poll_timeout().filter(|_| !self.is_sealed());
        let hub = hub.map(|(at, _)| self.overdue.next(self.now, at));
        [hub, self.transports.poll_timeout(), drain].into_iter().flatten().min()
    }

    /// Ready when there may be something to do.
    fn poll_wake(
        &mut self,
        cx: &mut TaskContext<'_>,
        timed: bool,
        sleep: Pin<&mut tokio::time::Sleep>,
    ) -> Poll<io::Result<()>> {
        let mut woken = false;
        let shards = &self.process.shards;
        // While others cannot take more, what threads want waits, but what shards say does not:
        // two that waited for one another would wait for ever.
        let congested = !self.congested.is_empty();
        if self.inbox.is_empty() && (congested || self.commands.is_empty()) {
            let outer = (!congested).then_some(&mut self.commands);
            let mailbox = &shards[usize::from(self.index)].mailbox;
            woken |= mailbox.poll_take(cx, &mut self.inbox, outer, &mut self.waiting);
            for peer in self.waiting.drain(..) {
                shards[usize::from(peer)].mailbox.wake();
            }
        }
        // After the mailbox has this shard's waker: a peer that makes room now finds it.
        if !self.congested.is_empty() {
            let above = |peer: &u8| {
                shards[usize::from(*peer)].mailbox.wait_below(limit::PEER_HIGH, self.index)
            };
            self.congested.retain(above);
            woken |= self.congested.is_empty();
        }
        if let Poll::Ready(result) = self.transports.poll_ready(cx) {
            result?;
            woken = true;
        }
        if timed && sleep.poll(cx).is_ready() {
            woken = true;
        }
        if woken { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Takes in what is ready, a bounded share of it, and carries out what follows.
    fn turn(&mut self) -> io::Result<()> {
        self.transports.now = self.now;
        let sealed = self.is_sealed();
        if !sealed {
            self.turn_sockets()?;
        }
        for _ in 0..limit::MESSAGES_PER_TURN {
            let Some(message) = self.next_message() else { break };
            self.on_message(message);
            self.handled += 1;
            if self.transports.is_full() {
                self.end_turn();
            }
        }
        let due = self.hub.poll_timeout().map(|(at, _)| at);
        if !sealed && self.overdue.is_over(self.now, due, self.has_read_all()) {
            self.feed(Input::Timeout);
        }
        self.transports.handle_timeout(self.now);
        self.continue_drain();
        self.end_turn();
        Ok(())
    }

    /// The next message that may be handled.
    fn next_message(&mut self) -> Option<Message> {
        if !self.is_congested()
            && let Some(message) = self.held.pop_front()
        {
            return Some(message);
        }
        while let Some(message) = self.inbox.pop_front() {
            if !self.is_congested() || !may_broadcast(&message) {
                return Some(message);
            }
            self.held.push_back(message);
        }
        if self.is_congested() { None } else { self.commands.pop_front() }
    }

    fn turn_sockets(&mut self) -> io::Result<()> {
        let mut ready = std::mem::take(&mut self.ready);
        self.transports.take_events(&mut ready)?;
        // Those left from the last turn come first, and only those: what is put back now waits
        // for the next.
        for _ in 0..self.transports.unread.len() {
            // Any read may have been the one that was too much for another shard.
            if self.is_congested() {
                break;
            }
            let Some(id) = self.transports.next_unread() else { break };
            self.read(id);
        }
        for Ready { id, readable, writable } in ready.drain(..) {
            if writable {
                self.transports.unblock(id);
            }
            if readable {
                if self.is_congested() {
                    self.transports.read_later(id);
                } else {
                    self.read(id);
                }
            }
        }
        self.ready = ready;
        Ok(())
    }

    /// Answers polls and writes, until nothing follows from it.
    fn end_turn(&mut self) {
        self.grant_parked();
        loop {
            if std::mem::take(&mut self.fed) {
                self.hub.handle_input(self.now, Input::TurnEnd);
                self.carry_out();
                self.grant_wishes();
            }
            let touched = self.transports.take_touched();
            for id in &touched {
                match self.transports.flush(*id) {
                    FlushOutcome::Gone | FlushOutcome::Done => {}
                    FlushOutcome::CaughtUp => self.feed_backlog(*id, 0),
                    FlushOutcome::Left(bytes) => self.feed_backlog(*id, bytes),
                    FlushOutcome::Failed => self.lose(*id, Lost::Failed),
                }
            }
            self.transports.reuse_touched(touched);
            if !self.fed && !self.transports.has_touched() {
                break;
            }
        }
        self.count_sessions();
    }

    fn count_sessions(&mut self) {
        self.sessions.set(self.hub.session_count());
        let waits_for_sessions =
            self.drain.as_ref().is_some_and(|drain| drain.connections_until.is_none());
        if waits_for_sessions && self.process.admission.sessions() == 0 {
            // The next turn goes on with the end.
            self.process.shards[usize::from(self.index)].mailbox.wake();
        }
    }

    fn feed_backlog(&mut self, transport: TransportId, bytes: usize) {
        if self.transports.get_mut(transport).is_some_and(|it| it.state == State::Open) {
            self.feed(Input::Backlog { transport, bytes });
        }
    }

    // The sockets.

    /// Reads one socket's share of a turn.
    fn read(&mut self, id: TransportId) {
        let mut scratch = std::mem::take(&mut self.scratch);
        match self.transports.read(id, &mut scratch) {
            ReadOutcome::Nothing => {}
            ReadOutcome::Ended => self.lose(id, Lost::Closed),
            ReadOutcome::Failed => self.lose(id, Lost::Failed),
            ReadOutcome::Some { bytes, more } => {
                self.decode(id, &mut scratch[..bytes]);
                if more {
                    self.transports.read_later(id);
                }
            }
        }
        self.scratch = scratch;
    }

    /// Hands what a socket sent to the hub, message by message.
    fn decode(&mut self, id: TransportId, mut input: &mut [u8]) {
        loop {
            // Looked up each time: a message may have closed its own socket.
            let Some(transport) = self.transports.get_mut(id) else { return };
            if transport.state != State::Open {
                return;
            }
            transport.active = self.now;
            let config = DecodeConfig {
                max_message_bytes: transport.max_message_bytes,
                deflate: transport.deflate,
            };
            match transport.decoder.decode(&config, &mut input) {
                Ok(None) => return,
                Ok(Some(Incoming::Message(message))) => {
                    if self.desk.packet_logs.is_on() {
                        self.desk.packet_logs.on_message(self.now, &self.hub, id, &message);
                    }
                    self.feed(Input::Message { transport: id, message });
                    if self.transports.is_full() {
                        self.end_turn();
                    }
                }
                Ok(Some(Incoming::Ping(payload))) => {
                    let pong = websocket::server_frame(OpCode::Pong, &[&payload]);
                    self.transports.send(id, pong);
                }
                Ok(Some(Incoming::Pong(_))) => {}
                Ok(Some(Incoming::Close(frame))) => {
                    self.websocket_ends[WebSocketEnd::Client as usize] += u64::from(!transport.own);
                    self.transports.close(self.now, id, frame.code);
                    self.feed(Input::Lost { transport: id, why: Lost::Closed });
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, "websocket closed");
                    let (why, end) = match error {
                        websocket::Error::TooBig { .. } => (Lost::TooBig, WebSocketEnd::Server),
                        _ => (Lost::Protocol, WebSocketEnd::Broken),
                    };
                    self.close_as(end, id, Some(error.close_code()));
                    self.feed(Input::Lost { transport: id, why });
                    return;
                }
            }
        }
    }

    /// A socket has gone.
    fn lose(&mut self, id: TransportId, why: Lost) {
        let open = self.transports.get_mut(id).filter(|it| it.state == State::Open);
        let open = open.map(|it| (it.own, it.active));
        self.transports.remove(id);
        if let Some((own, active)) = open {
            if !own {
                self.websocket_ends[WebSocketEnd::Cut as usize] += 1;
                self.cut.note(End { at: self.now, idle: self.now - active });
            }
            self.feed(Input::Lost { transport: id, why });
        }
    }

    /// Closes a socket from this side.
    fn close(&mut self, id: TransportId, code: Option<u16>) {
        self.close_as(WebSocketEnd::Server, id, code);
    }

    fn close_as(&mut self, end: WebSocketEnd, id: TransportId, code: Option<u16>) {
        let open = self.transports.get_mut(id).filter(|it| it.state == State::Open);
        if open.is_some_and(|it| !it.own) {
            self.websocket_ends[end as usize] += 1;
        }
        self.transports.close(self.now, id, code);
    }

    fn adopt(&mut self, adoption: Adoption) {
        let Adoption { stream, tls, head, unread, entry, deflate, mut permit } = adoption;
        permit.move_to(self.index);
        let transport = match self.transports.insert(stream, tls, deflate, permit) {
            Ok(transport) => transport,
            Err(error) => {
                tracing::warn!(%error, "a websocket cannot be watched and is closed");
                return;
            }
        };
        let (max_message_bytes, own) = match &entry {
            Entry::Open(handshake) => (self.hub.max_payload_bytes(), handshake.own),
            Entry::Attach(session) => {
                let session = self.hub.find_session(*session).and_then(|key| self.hub.session(key));
                session.map_or((0, false), |session| (session.max_payload_bytes, session.own))
            }
        };
        if let Some(transport) = self.transports.get_mut(transport) {
            transport.max_message_bytes = max_message_bytes;
            transport.own = own;
        }
        self.transports.send(transport, head);
        match entry {
            // A session that opens now would have to be closed in the same breath.
            Entry::Open(_) if self.drain.is_some() => {
                self.close(transport, Some(1001));
                return;
            }
            Entry::Open(handshake) => {
                let id = self.desk.entropy.sid(self.index);
                let origin = Origin::WebSocket { transport, deflate };
                self.feed(Input::Open { id, origin, handshake });
            }
            Entry::Attach(session) => self.feed(Input::Attach { transport, session, deflate }),
        }
        if !unread.is_empty() {
            self.decode(transport, &mut unread.to_vec());
        }
    }

    // The hub.

    /// Tells the hub something and does what it wants.
    fn feed(&mut self, input: Input) {
        self.fed = true;
        self.hub.handle_input(self.now, input);
        self.carry_out();
        self.grant_wishes();
    }

    fn command(&mut self, command: Command) {
        self.fed = true;
        if let Command::Emit { socket, ack: Some(ack), .. } = &command
            && self.hub.socket(*socket).is_none()
        {
            // The hub says nothing of sockets that have gone.
            self.acked(None, ack.token, Err(AckError::Disconnected));
            return;
        }
        let arrived = match &command {
            Command::Accept { socket, .. } | Command::Join { socket, .. } => Some(*socket),
            _ => None,
        };
        self.hub.handle_input(self.now, Input::Command(command));
        self.carry_out();
        if let Some(socket) = arrived
            && self.process.holds.any()
        {
            self.send_held(socket);
        }
    }

    /// Sends the broadcasts that have waited for this socket.
    fn send_held(&mut self, socket: SocketKey) {
        let hub = &self.hub;
        let is_for = |broadcast: &Broadcast| hub.is_receiver(socket, broadcast);
        for broadcast in self.process.holds.take_for(self.now, is_for) {
            self.hub.handle_input(self.now, Input::Command(Command::Broadcast(broadcast)));
            self.carry_out();
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Send { mut receivers, frame } => {
                    let logs = self.desk.packet_logs.is_on();
                    let mut next = self.hub.next_receiver(&mut receivers);
                    while let Some(id) = next {
                        if logs {
                            self.desk.packet_logs.on_frames(self.now, &self.hub, id, &frame);
                        }
                        next = self.hub.next_receiver(&mut receivers);
                        if next.is_none() {
                            // Most frames are for one: it is given away, not shared.
                            self.transports.send(id, frame);
                            break;
                        }
                        self.transports.send_shared(id, &frame);
                    }
                }
                Output::Respond { exchange, response } => {
                    if let Some(Waiting { reply, session }) = self.exchanges.remove(&exchange) {
                        if self.desk.packet_logs.is_on()
                            && let Response::Payload(body) = &response
                        {
                            self.desk.packet_logs.on_payload(self.now, &self.hub, session, body);
                        }
                        let lives =
                            self.drain.is_none() || self.hub.session_transport(session).is_some();
                        let kind = if lives { Reply::Live } else { Reply::Last };
                        // Nobody there: the request's own end says so with `Aborted`.
                        let _ = reply.send(kind(response));
                    }
                }
                Output::Close { transport, code } => self.close(transport, code),
                Output::Deliver { handler, event } => self.deliver(handler, event),
                Output::Forward(broadcast) => self.forward(&broadcast),
                Output::Reached { report, receivers } => self.on_reached(report, receivers),
                Output::Tell { shard, message } => self.send(shard, Message::Heard(message)),
                Output::Settled { pid, .. } => self.settled.push(pid),
            }
        }
    }

    // The handlers.

    fn deliver(&mut self, handler: HandlerId, event: Event) {
        let shard = self.index;
        let session_ref = |key| SessionRef { shard, key };
        let index = usize::from(handler);
        match event {
            Event::Event { socket, args, ack, id } => {
                let socket = SocketRef::of(&self.hub, socket);
                let ack = ack.map(|id| Ack { socket, id });
                self.call(|cx, handlers| {
                    cx.event_id = id.map(Into::into);
                    handlers.namespaces[index].on_event(cx, socket, args, ack);
                });
            }
            Event::Connect { socket, namespace, auth, handshake } => self.call(|cx, handlers| {
                let ids = (cx.desk.entropy.sid(shard), cx.desk.entropy.sid(shard));
                let request = ConnectRequest::new(cx, socket, ids, namespace, auth, handshake);
                handlers.namespaces[index].on_connect(cx, request);
            }),
            Event::Return { socket, id, namespace, auth, handshake } => {
                self.call(|cx, handlers| {
                    let ids = (id, id);
                    let request = ConnectRequest::new(cx, socket, ids, namespace, auth, handshake);
                    handlers.namespaces[index].on_return(cx, request);
                });
            }
            Event::Away { socket, reason } => self.call(|cx, handlers| {
                handlers.namespaces[index].on_away(cx, cx.socket_ref(socket), reason);
            }),
            Event::Back { socket } => self.call(|cx, handlers| {
                if let Some(view) = cx.hub.socket(socket)
                    && cx.process.packet_logs.load(Relaxed)
                {
                    inspect::follow(cx, view.id);
                }
                handlers.namespaces[index].on_back(cx, cx.socket_ref(socket));
            }),
            Event::Disconnect { socket, reason } => self.call(|cx, handlers| {
                cx.desk.claimed.remove(&socket);
                handlers.namespaces[index].on_disconnect(cx, cx.socket_ref(socket), reason);
            }),
            Event::Ack { id, token, result, .. } => self.acked(Some(id), token, result),
            Event::Open { session, handshake, .. } => self.call(|cx, handlers| {
                if let Some(engine) = &handlers.engine {
                    engine.on_open(cx, session_ref(session), &handshake);
                }
            }),
            Event::Message { session, message } => self.call(|cx, handlers| {
                if let Some(engine) = &handlers.engine {
                    engine.on_message(cx, session_ref(session), message);
                }
            }),
            Event::Close { session, reason } => self.call(|cx, handlers| {
                if let Some(engine) = &handlers.engine {
                    engine.on_close(cx, session_ref(session), reason);
                }
            }),
        }
    }

    /// Runs code of the application. If it panics, the server goes on without what it wanted.
    fn call(&mut self, code: impl FnOnce(&mut Context<'_>, &Handlers)) {
        let process = &self.process;
        let mut cx = Context {
            shard: self.index,
            event_id: None,
            process,
            hub: &self.hub,
            desk: &mut self.desk,
        };
        // Nothing of the shard is borrowed mutably but the desk, whose queues are whole between
        // any two of its calls.
        let handlers = &*self.handlers;
        let result = catch_unwind(AssertUnwindSafe(|| code(&mut cx, handlers)));
        if result.is_err() {
            process.counters.on_handler_panic();
            tracing::error!("a handler panicked; its socket goes on");
        }
    }

    // Messages.

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Get { exchange, session, reply } => {
                if self.expect(exchange, session, Some(reply)) {
                    let SessionRequest { sid: session, timestamp, .. } = session;
                    self.feed(Input::Get { exchange, session, timestamp });
                }
            }
            Message::Post { exchange, session, body, reply } => {
                if self.expect(exchange, session, reply) {
                    if self.desk.packet_logs.is_on()
                        && let PostBody::Whole { body, binary } = &body
                    {
                        let (logs, sid) = (&mut self.desk.packet_logs, session.sid);
                        logs.on_post(self.now, &self.hub, sid, body, *binary);
                    }
                    let SessionRequest { sid: session, timestamp, .. } = session;
                    self.feed(Input::Post { exchange, session, body, timestamp });
                }
            }
            Message::Open { exchange, handshake, seat, reply } => {
                if self.drain.is_some() {
                    let _ = reply.send(Reply::Last(Response::Status(503)));
                    return;
                }
                // A message that was held may come after the word that its client is gone.
                if reply.is_closed() {
                    return;
                }
                if self.process.admission.is_full_of_sessions() {
                    let now = self.process.clock.now();
                    self.process.counters.on_refused(LimitKey::Connections, now);
                    let _ = reply.send(Reply::Full);
                    return;
                }
                let id = self.desk.entropy.sid(self.index);
                self.exchanges.insert(exchange, Waiting { reply, session: id });
                self.feed(Input::Open { id, origin: Origin::Polling(exchange), handshake });
                if let Some(seat) = seat {
                    self.hub.keep_with(id, Box::new(seat));
                }
                self.count_sessions();
            }
            Message::Aborted(exchange) => {
                self.exchanges.remove(&exchange);
                self.feed(Input::Aborted { exchange });
            }
            Message::Find { session, reply } => {
                let _ = reply.send(self.hub.session_transport(session));
            }
            Message::Adopt(adoption) => self.adopt(*adoption),
            Message::Connection(arrival) => self.local.take_in(*arrival),
            Message::Forwarded(broadcast) => {
                let broadcast = Broadcast { forwarded: true, ..broadcast };
                self.command(Command::Broadcast(broadcast));
                self.grant_wishes();
            }
            Message::Reached { report, receivers } => {
                self.on_reached(report, receivers);
                self.grant_wishes();
            }
            Message::Answer(answer) => {
                self.answer(answer);
                self.grant_wishes();
            }
            Message::Errand(errand) => {
                self.run_errand(errand);
                self.grant_wishes();
            }
            Message::Command(command) => {
                self.command(command);
                self.grant_wishes();
            }
            Message::Task(task) => {
                self.call(|cx, _| task(cx));
                self.grant_wishes();
            }
            Message::Acked { id, token, result } => {
                self.acked(id, token, result);
                self.grant_wishes();
            }
            Message::Heard(peer) => self.on_told(Input::Heard(peer)),
            Message::Restore(snapshot) => self.on_told(Input::Restore(snapshot)),
            Message::Stats(reply) => {
                let _ = reply.send(self.stats());
            }
            Message::Configure(plan) => self.configure(*plan),
            Message::Drain => self.start_drain(),
        }
    }

    /// The configuration has changed.
    fn configure(&mut self, plan: Plan) {
        let hub = plan.hub_of(self.index, self.process.identity());
        self.handlers = plan.handlers;
        self.feed(Input::Configure(Box::new(hub)));
    }

    /// Notes who waits for the answer to a request, unless it is refused here. The second message
    /// of an exchange has no `reply`.
    fn expect(
        &mut self,
        exchange: ExchangeId,
        session: SessionRequest,
        reply: Option<oneshot::Sender<Reply>>,
    ) -> bool {
        // A request that has its answer is over, whatever was still on its way.
        let Some(reply) = reply else { return self.exchanges.contains_key(&exchange) };
        if let Err(error) = session.verify(self.hub.session_transport(session.sid)) {
            let _ = reply.send(Reply::Last(Response::Refused(error)));
            return false;
        }
        self.exchanges.insert(exchange, Waiting { reply, session: session.sid });
        true
    }

    fn stats(&self) -> ShardStats {
        let (polling, websocket) = self.hub.sessions_by_transport();
        ShardStats {
            hub: self.hub.stats().clone(),
            log: self.hub.log_view(self.process.clock.now()),
            away: self.hub.away_count(),
            polling,
            websocket,
            requests_waiting: self.exchanges.len(),
            bytes_in: self.transports.bytes_in,
            bytes_out: self.transports.bytes_out,
            websocket_ends: self.websocket_ends,
            cut: self.cut.to_vec(),
        }
    }
}

/// Whether handlers may answer a message with broadcasts, any number of them. Its client waits for
/// an answer anyway, so few of these can wait at a time.
fn may_broadcast(message: &Message) -> bool {
    match message {
        Message::Post { body, .. } => matches!(body, PostBody::Whole { .. }),
        Message::Open { .. } | Message::Adopt(_) => true,
        _ => false,
    }
}
