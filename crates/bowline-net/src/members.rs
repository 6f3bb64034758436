//! Sockets named from outside: found, and moved between rooms.

use bowline_proto::{Hub, Sid, SocketKey, hub::OWN_NAMESPACES};
use bytestring::ByteString;
use tokio::sync::oneshot;

use crate::{
    handler::{Context, Handle, SocketRef, Wish},
    inspect::Whom,
    limit,
    mailbox::Message,
};

/// Sockets on their way into rooms or out of them.
struct Move {
    sockets: Vec<SocketKey>,
    rooms: Vec<ByteString>,
    into: bool,
    /// How many sockets there were in the beginning.
    count: usize,
    reply: oneshot::Sender<usize>,
}

impl Handle {
    /// The socket in `namespace` with this Socket.IO sid.
    pub async fn socket_by_sid(&self, namespace: &str, sid: Sid) -> Option<SocketRef> {
        let namespace = namespace.to_owned();
        let asked =
            move |cx: &mut Context<'_>| Some(cx.socket_ref(by_sid(cx.hub, &namespace, sid)?));
        self.ask_for(sid, asked).await
    }

    /// Puts sockets of `namespace` into rooms and says how many sockets those were. What is sent to
    /// a room after the answer reaches all of them.
    pub async fn join_room<R: Into<ByteString>>(
        &self,
        namespace: &str,
        whom: Whom,
        rooms: impl IntoIterator<Item = R>,
    ) -> usize {
        self.move_sockets(namespace, whom, rooms.into_iter().map(Into::into).collect(), true).await
    }

    /// Takes sockets of `namespace` out of rooms and says how many sockets those were.
    pub async fn leave_room<R: Into<ByteString>>(
        &self,
        namespace: &str,
        whom: Whom,
        rooms: impl IntoIterator<Item = R>,
    ) -> usize {
        self.move_sockets(namespace, whom, rooms.into_iter().map(Into::into).collect(), false).await
    }

    async fn move_sockets(
        &self,
        namespace: &str,
        whom: Whom,
        rooms: Vec<ByteString>,
        into: bool,
    ) -> usize {
        let namespace = namespace.to_owned();
        let mut answers = Vec::new();
        let asked = move |cx: &mut Context<'_>| {
            let (reply, answer) = oneshot::channel();
            let sockets = whom.sockets(cx.hub, &namespace);
            let count = sockets.len();
            carry_on(cx, Move { sockets, rooms: rooms.clone(), into, count, reply });
            answer
        };
        for answer in self.ask(asked).await {
            answers.extend(answer.await.ok());
        }
        answers.into_iter().sum()
    }
}

impl Whom {
    /// Those of one shard who are meant, each once.
    pub(crate) fn sockets(&self, hub: &Hub, namespace: &str) -> Vec<SocketKey> {
        let mut sockets: Vec<SocketKey> = match self {
            Self::Sid(sid) => by_sid(hub, namespace, *sid).into_iter().collect(),
            Self::Room(room) => hub.sockets_in(Some(namespace), Some(room)).collect(),
            Self::All => hub.sockets_in(Some(namespace), None).collect(),
        };
        // A socket may have joined a room that has the name of its own.
        sockets.sort_unstable();
        sockets.dedup();
        sockets
    }
}

/// The socket with this sid alone: a room may have the name of a sid, too.
fn by_sid(hub: &Hub, namespace: &str, sid: Sid) -> Option<SocketKey> {
    let key = hub.find_socket(sid)?;
    let name = hub.socket(key)?.namespace;
    (*name == *namespace && !name.starts_with(OWN_NAMESPACES)).then_some(key)
}

/// Moves so many sockets in a turn that nobody else waits long.
fn carry_on(cx: &mut Context<'_>, mut change: Move) {
    let rooms = change.rooms.len().max(1);
    let left = change.sockets.len().saturating_sub((limit::MOVES_PER_TURN / rooms).max(1));
    for key in change.sockets.split_off(left) {
        let socket = cx.socket_ref(key);
        for room in &change.rooms {
            match change.into {
                true => cx.join(socket, room.clone()),
                false => cx.leave(socket, room.clone()),
            }
        }
    }
    // The answer too comes after what was wished before it.
    let task = Message::Task(Box::new(move |cx| {
        if change.sockets.is_empty() {
            // Whoever asked may be gone.
            let _ = change.reply.send(change.count);
        } else {
            carry_on(cx, change);
        }
    }));
    cx.desk.wishes.push_back(Wish::There(cx.shard, task));
}
