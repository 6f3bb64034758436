//! What reaches a shard from other tasks, threads and shards.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context as TaskContext, Waker},
};

use bowline_proto::{
    Command, ExchangeId, Sid,
    engineio::{SessionRequest, TransportName, Version},
    hub::{self, Peer, Snapshot},
    socketio::Args,
    wall::{AckError, Broadcast, Handshake, PostBody},
};
use bytes::Bytes;
use rustls::ServerConnection;
use tokio::sync::oneshot;

use crate::{
    admission::{AddressSeat, Permit},
    errand::{Answer, Errand},
    exchange::Reply,
    handler::Context,
    idle_cut::End,
    settings::Plan,
    stats::WebSocketEnd,
};

/// One message to a shard.
pub(crate) enum Message {
    /// A polling GET without a sid. The session keeps `seat`.
    Open {
        exchange: ExchangeId,
        handshake: Arc<Handshake>,
        seat: Option<AddressSeat>,
        reply: oneshot::Sender<Reply>,
    },
    /// A polling GET of a session.
    Get { exchange: ExchangeId, session: SessionRequest, reply: oneshot::Sender<Reply> },
    /// A polling POST of a session. The first message of an exchange brings the `reply`.
    Post {
        exchange: ExchangeId,
        session: SessionRequest,
        body: PostBody,
        reply: Option<oneshot::Sender<Reply>>,
    },
    /// Nobody waits for the response any more.
    Aborted(ExchangeId),
    /// What serves this session? Asked before a WebSocket is let through to it.
    Find { session: Sid, reply: oneshot::Sender<Option<(TransportName, Version)>> },
    /// A WebSocket whose handshake is done.
    Adopt(Box<Adoption>),
    /// A connection that another shard accepted for this one.
    Connection(Box<crate::accept::Arrival>),
    /// A broadcast of another shard, its own share done.
    Forwarded(Broadcast),
    /// How many receivers a shard found for a broadcast of this one.
    Reached { report: u64, receivers: usize },
    /// Whether a client is let in.
    Answer(Answer),
    /// What is to be done for a socket, which may have gone on to another shard.
    Errand(Errand),
    /// What a handler wants done.
    Command(Command),
    /// What a handler wants done on this shard.
    Task(Task),
    /// What the hub of another shard tells that of this one.
    Heard(Box<Peer>),
    /// An ack that this shard asked for came to another one, where its socket is now.
    Acked { id: Option<Sid>, token: u64, result: Result<Args, AckError> },
    /// What an earlier process has saved for this shard; `None` if nothing of it is left.
    Restore(Option<Box<Snapshot>>),
    /// Somebody wants to know the counters.
    Stats(oneshot::Sender<ShardStats>),
    /// The configuration has changed.
    Configure(Box<Plan>),
    /// The server stops.
    Drain,
}

/// Work for a shard's thread.
pub(crate) type Task = Box<dyn FnOnce(&mut Context<'_>) + Send>;

/// A WebSocket on its way from an HTTP connection to its shard.
pub(crate) struct Adoption {
    pub(crate) stream: std::net::TcpStream,
    pub(crate) tls: Option<Box<ServerConnection>>,
    /// The answer to its request, still to be written.
    pub(crate) head: Bytes,
    /// What the client sent behind its request.
    pub(crate) unread: Bytes,
    pub(crate) entry: Entry,
    pub(crate) deflate: bool,
    pub(crate) permit: Permit,
}

/// What a WebSocket came for.
pub(crate) enum Entry {
    /// To open a session.
    Open(Arc<Handshake>),
    /// To take over this one.
    Attach(Sid),
}

/// What one shard tells of itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct ShardStats {
    pub(crate) hub: hub::Stats,
    pub(crate) log: hub::LogView,
    pub(crate) away: usize,
    pub(crate) polling: usize,
    pub(crate) websocket: usize,
    pub(crate) requests_waiting: usize,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) websocket_ends: [u64; WebSocketEnd::ALL.len()],
    pub(crate) cut: Vec<End>,
}

/// The queues before one shard.
#[derive(Default)]
pub(crate) struct Mailbox {
    queues: Mutex<Queues>,
}

#[derive(Default)]
struct Queues {
    /// From connections (at most a few for each) and from other shards (which stop reading when
    /// it grows): always taken.
    inner: VecDeque<Message>,
    /// From other threads: bounded by the sender.
    outer: VecDeque<Message>,
    /// The shard, asleep.
    waker: Option<Waker>,
    /// The shard is to look around, though there may be no message.
    nudged: bool,
    /// How many messages were taken since the start.
    taken: u64,
    /// The server has stopped: threads are told that nothing is done any more.
    sealed: bool,
    /// Shards to wake when `inner` was taken.
    waiting: Vec<u8>,
    /// The shard has ended: messages are dropped, and whoever waits for an answer hears that.
    closed: bool,
}

/// The mailbox is full, or its server has stopped. What was to be said was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

impl std::fmt::Display for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the server is busy: too many commands wait for one of its shards")
    }
}

impl std::error::Error for Busy {}

impl Mailbox {
    /// Takes a message from a connection or another shard and says how many wait now.
    pub(crate) fn push(&self, message: Message) -> usize {
        let mut queues = self.lock();
        if queues.closed {
            // Dropped without the lock: a message may hold one that is said when it is dropped.
            drop(queues);
            drop(message);
            return 0;
        }
        queues.inner.push_back(message);
        queues.taken += 1;
        let waiting = queues.inner.len();
        let waker = queues.waker.take();
        drop(queues);
        if let Some(waker) = waker {
            waker.wake();
        }
        waiting
    }

    /// Takes a message from another thread unless `max` wait already.
    pub(crate) fn push_outer(&self, message: Message, max: usize) -> Result<(), Busy> {
        let mut queues = self.lock();
        if queues.closed || queues.sealed || queues.outer.len() >= max {
            drop(queues);
            drop(message);
            return Err(Busy);
        }
        queues.outer.push_back(message);
        queues.taken += 1;
        let waker = queues.waker.take();
        drop(queues);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Takes no more from other threads.
    pub(crate) fn seal(&self) {
        self.lock().sealed = true;
    }

    /// How many messages were taken since the start.
    pub(crate) fn taken(&self) -> u64 {
        self.lock().taken
    }

    /// The shard has ended. Names the shards that waited for it.
    pub(crate) fn close(&self) -> Vec<u8> {
        let mut queues = self.lock();
        queues.closed = true;
        let left = (mem::take(&mut queues.inner), mem::take(&mut queues.outer));
        let waiting = mem::take(&mut queues.waiting);
        drop(queues);
        drop(left);
        waiting
    }

    /// Whether `max` messages of other threads wait, or none is taken any more.
    pub(crate) fn is_full(&self, max: usize) -> bool {
        let queues = self.lock();
        queues.sealed || queues.outer.len() >= max
    }

    /// Moves what waits into the shard's hands, the outer queue only if it is wanted, and names
    /// the shards that waited for this. Whether there is anything to do; if not, the shard is woken
    /// when there is.
    pub(crate) fn poll_take(
        &self,
        cx: &TaskContext<'_>,
        inner: &mut VecDeque<Message>,
        outer: Option<&mut VecDeque<Message>>,
        waiting: &mut Vec<u8>,
    ) -> bool {
        let mut queues = self.lock();
        if inner.is_empty() {
            mem::swap(&mut queues.inner, inner);
        } else {
            inner.append(&mut queues.inner);
        }
        let mut woken = !inner.is_empty() || mem::take(&mut queues.nudged);
        if let Some(outer) = outer {
            outer.append(&mut queues.outer);
            woken |= !outer.is_empty();
        }
        mem::swap(&mut queues.waiting, waiting);
        if !woken {
            match &mut queues.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
        woken
    }

    /// Whether more than `max` messages wait; if so `shard` is woken when they were taken.
    pub(crate) fn wait_below(&self, max: usize, shard: u8) -> bool {
        let mut queues = self.lock();
        let above = queues.inner.len() > max;
        if above && !queues.waiting.contains(&shard) {
            queues.waiting.push(shard);
        }
        above
    }

    /// Wakes the shard without a message.
    pub(crate) fn wake(&self) {
        let mut queues = self.lock();
        queues.nudged = true;
        let waker = queues.waker.take();
        drop(queues);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
