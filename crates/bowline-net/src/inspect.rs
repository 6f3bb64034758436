//! What operators ask of a running server: who is here, and that somebody be sent away.

use std::{collections::BTreeMap, net::IpAddr, sync::atomic::Ordering::Relaxed, time::Duration};

use bowline_proto::{
    Sid, SocketKey,
    engineio::{TransportName, Version},
};
use bytestring::ByteString;

use crate::{
    handler::{Context, Handle, Wish},
    limit,
    mailbox::Message,
    packet_log::PacketLogError,
};

/// Which sockets to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SocketFilter {
    /// Only those in this namespace. Default: all.
    pub namespace: Option<String>,
    /// Only those in this room. A Socket.IO sid is the name of its socket's own room. Default: all.
    pub room: Option<String>,
    /// How many to describe at most. Default and most 1,000: describing them takes the time of the
    /// shards they live on.
    pub limit: Option<usize>,
}

/// Sockets of a running server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SocketList {
    /// How many there are, described or not.
    pub total: usize,
    /// Some of them, shard by shard.
    pub sockets: Vec<SocketInfo>,
}

/// One session's place in one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketInfo {
    /// Its Socket.IO sid, which is public.
    pub sid: Sid,
    /// The name of its namespace.
    pub namespace: ByteString,
    /// The rooms it has joined, its own not among them; the first 100 of them.
    pub rooms: Vec<String>,
    /// How many rooms it has joined.
    pub rooms_total: usize,
    /// How long ago its client lost its session, if it has not come back yet.
    pub away: Option<Duration>,
    /// What serves its session: `polling` or `websocket`. `None` while it is away.
    pub transport: Option<&'static str>,
    /// The revision of Engine.IO its client speaks: 3 or 4. `None` while it is away.
    pub protocol: Option<u8>,
    /// The address of its client. `None` while it is away.
    pub address: Option<IpAddr>,
    /// How long ago its session was opened. `None` while it is away.
    pub age: Option<Duration>,
    /// Whether the packets of its session are logged.
    pub packet_log: bool,
}

/// Rooms of a running server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoomList {
    /// Some of them, by namespace and name.
    pub rooms: Vec<RoomInfo>,
    /// Whether there are more than were listed.
    pub more: bool,
}

/// A room, on all shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomInfo {
    /// The name of its namespace.
    pub namespace: ByteString,
    /// Its name.
    pub name: ByteString,
    /// How many sockets are in it.
    pub sockets: usize,
}

/// Which sockets of a namespace are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// The socket with this Socket.IO sid.
    Sid(Sid),
    /// Everybody in this room.
    Room(String),
    /// Everybody in the namespace.
    All,
}

impl Handle {
    /// The sockets of the server, asked of every shard. Those of its own, such as health probes, are
    /// in no list.
    pub async fn sockets(&self, filter: SocketFilter) -> SocketList {
        let most = filter.limit.unwrap_or(limit::LISTED).min(limit::LISTED);
        let mut list = SocketList::default();
        let asked = move |cx: &mut Context<'_>| {
            let namespace = filter.namespace.as_deref();
            let mut list = SocketList::default();
            for key in cx.hub.sockets_in(namespace, filter.room.as_deref()) {
                list.total += 1;
                if list.sockets.len() < most {
                    list.sockets.extend(describe(cx, key));
                }
            }
            list
        };
        for part in self.ask(asked).await {
            list.total += part.total;
            let room = most - list.sockets.len();
            list.sockets.extend(part.sockets.into_iter().take(room));
        }
        list
    }

    /// The rooms of a namespace, or of all: at most 1,000 of them.
    pub async fn rooms(&self, namespace: Option<String>) -> RoomList {
        let asked = move |cx: &mut Context<'_>| {
            let rooms = cx.hub.rooms_in(namespace.as_deref());
            let named = rooms.map(|room| (room.namespace.clone(), room.name.clone()));
            named.take(limit::LISTED + 1).collect::<Vec<_>>()
        };
        let mut counts = BTreeMap::new();
        let mut more = false;
        for part in self.ask(asked).await {
            more |= part.len() > limit::LISTED;
            counts.extend(part.into_iter().map(|name| (name, 0)));
        }
        while counts.len() > limit::LISTED {
            counts.pop_last();
            more = true;
        }
        // Each shard knows its own share of a room, also of one that it did not name.
        let names: Vec<(ByteString, ByteString)> = counts.keys().cloned().collect();
        let asked = move |cx: &mut Context<'_>| {
            let size = |(namespace, name): &(ByteString, ByteString)| {
                cx.hub.room(namespace, name).map_or(0, |room| room.sockets())
            };
            names.iter().map(size).collect::<Vec<_>>()
        };
        for sizes in self.ask(asked).await {
            for (count, size) in counts.values_mut().zip(sizes) {
                *count += size;
            }
        }
        let rooms = counts.into_iter().map(|((namespace, name), sockets)| RoomInfo {
            namespace,
            name,
            sockets,
        });
        RoomList { rooms: rooms.collect(), more }
    }

    /// Takes sockets out of `namespace`, or closes their whole sessions, and says how many there
    /// were. Their clients are told `41`, after which the official ones stay away until they are
    /// told otherwise.
    pub async fn disconnect_from(&self, namespace: &str, whom: Whom, close: bool) -> usize {
        let namespace = namespace.to_owned();
        let asked = move |cx: &mut Context<'_>| {
            let found = whom.sockets(cx.hub, &namespace);
            let count = found.len();
            dismiss(cx, found, close);
            count
        };
        self.ask(asked).await.into_iter().sum()
    }

    /// Writes every packet of the session of the socket with this Socket.IO sid to the log, for so
    /// long (at most a day), or no longer; after its client was away, every one of the next session: events of [`tracing`] with the target `packets`, at level
    /// `info`, with `sid`, `direction`, `bytes` and the first 200 characters of a text `packet`.
    /// What a client presents in CONNECT is left out; what it says in events is not.
    ///
    /// # Errors
    ///
    /// [`PacketLogError`]: there is no such socket, or 64 sessions of its shard are logged already.
    pub async fn packet_logs(
        &self,
        sid: Sid,
        on_for: Option<Duration>,
    ) -> Result<(), PacketLogError> {
        self.process.packet_logs.store(true, Relaxed);
        let asked = move |cx: &mut Context<'_>| {
            let now = cx.process.clock.now();
            match cx.desk.packet_logs.set(now, cx.hub, sid, on_for) {
                Err(PacketLogError::UnknownSocket) => None,
                result => Some(result),
            }
        };
        self.ask_for(sid, asked).await.unwrap_or(Err(PacketLogError::UnknownSocket))
    }

    /// Asks every shard. One that has stopped says nothing.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl Fn(&mut Context<'_>) -> T + Clone + Send + 'static,
    ) -> Vec<T> {
        // All at once: each takes its time to answer.
        let asked: Vec<_> = (0..self.process.shards.len() as u8)
            .map(|shard| self.put(shard, question.clone()))
            .collect();
        let mut answers = Vec::new();
        for answer in asked {
            answers.extend(answer.await.ok());
        }
        answers
    }

    /// Asks the shards for the socket with this Socket.IO sid: first the one where it was born, which
    /// most often still has it.
    pub(crate) async fn ask_for<T: Send + 'static>(
        &self,
        sid: Sid,
        question: impl Fn(&mut Context<'_>) -> Option<T> + Clone + Send + 'static,
    ) -> Option<T> {
        if let Some(answer) = self.ask_one(sid.shard(), question.clone()).await.flatten() {
            return Some(answer);
        }
        self.ask(question).await.into_iter().flatten().next()
    }

    async fn ask_one<T: Send + 'static>(
        &self,
        shard: u8,
        question: impl FnOnce(&mut Context<'_>) -> T + Send + 'static,
    ) -> Option<T> {
        if usize::from(shard) >= self.process.shards.len() {
            return None;
        }
        self.put(shard, question).await.ok()
    }

    fn put<T: Send + 'static>(
        &self,
        shard: u8,
        question: impl FnOnce(&mut Context<'_>) -> T + Send + 'static,
    ) -> tokio::sync::oneshot::Receiver<T> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let task = Message::Task(Box::new(move |cx| {
            // Whoever asked may be gone.
            let _ = reply.send(question(cx));
        }));
        // Operators are few and wait for their answers: they are always heard.
        let _ = self.process.shards[usize::from(shard)].mailbox.push_outer(task, usize::MAX);
        answer
    }
}

/// A socket is back: if its packets were logged on another shard, they are from now on logged here.
pub(crate) fn follow(cx: &mut Context<'_>, socket: Sid) {
    let here = cx.shard;
    for peer in (0..cx.process.shards.len() as u8).filter(|peer| *peer != here) {
        let task = Message::Task(Box::new(move |cx| {
            let Some(until) = cx.desk.packet_logs.give(socket) else { return };
            let take = Message::Task(Box::new(move |cx| cx.desk.packet_logs.take(socket, until)));
            cx.desk.wishes.push_back(Wish::There(here, take));
        }));
        cx.desk.wishes.push_back(Wish::There(peer, task));
    }
}

/// Sends sockets away, so many in a turn that nobody else waits long.
fn dismiss(cx: &mut Context<'_>, mut sockets: Vec<SocketKey>, close: bool) {
    let rest = sockets.split_off(sockets.len().min(limit::DISMISSED_PER_TURN));
    for key in sockets {
        let socket = cx.socket_ref(key);
        match close {
            true => cx.close_socket(socket),
            false => cx.disconnect(socket),
        }
    }
    if !rest.is_empty() {
        let task = Message::Task(Box::new(move |cx| dismiss(cx, rest, close)));
        cx.desk.wishes.push_back(Wish::There(cx.shard, task));
    }
}

fn describe(cx: &Context<'_>, key: SocketKey) -> Option<SocketInfo> {
    let socket = cx.hub.socket(key)?;
    let now = cx.process.clock.now();
    let session = cx.hub.session(socket.session);
    Some(SocketInfo {
        sid: socket.id,
        namespace: socket.namespace.clone(),
        rooms: cx.hub.rooms_of(key).take(limit::LISTED_ROOMS).map(str::to_owned).collect(),
        rooms_total: cx.hub.rooms_of(key).count(),
        away: cx.hub.away_since(key).map(|since| now - since),
        transport: session.map(|session| match session.transport {
            TransportName::Polling => "polling",
            TransportName::WebSocket => "websocket",
        }),
        protocol: session.map(|session| match session.version {
            Version::V3 => 3,
            Version::V4 => 4,
        }),
        address: session.and_then(|session| session.address),
        age: session.map(|session| now - session.opened),
        packet_log: cx.desk.packet_logs.has(&socket),
    })
}
