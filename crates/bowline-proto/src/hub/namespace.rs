//! Namespaces, rooms and the walk over a broadcast's receivers.

use std::collections::{BTreeMap, HashMap};

use bytestring::ByteString;
use siphasher::sip::SipHasher13;
use slotmap::{Key as _, SlotMap};

use super::{Hub, Socket};
use crate::{
    SessionKey, Sid, SocketKey, Time, TransportId,
    session::{Phase, Session},
    wall::{Broadcast, HandlerId},
};

slotmap::new_key_type! {
    pub(crate) struct NamespaceKey;
    pub(crate) struct RoomKey;
}

/// Hashes names that clients choose, with a key they cannot know.
#[derive(Debug, Clone)]
pub(crate) struct KeyedHash(pub(crate) [u8; 16]);

impl std::hash::BuildHasher for KeyedHash {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_key(&self.0)
    }
}

#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) name: ByteString,
    pub(crate) handler: HandlerId,
    /// Sockets that were accepted. Their order is that in which broadcasts leave.
    pub(crate) members: Vec<Receiver>,
    /// Sockets that await an answer to their CONNECT.
    pub(crate) pending: usize,
    pub(crate) rooms: HashMap<ByteString, RoomKey, KeyedHash>,
}

/// A socket and its session side by side: a broadcast reads the session alone and saves the way
/// through the socket, a cache miss for each receiver.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Receiver {
    pub(crate) socket: SocketKey,
    /// The null key while the socket awaits the answer to its CONNECT: it is in rooms then, and
    /// receives nothing.
    pub(crate) session: SessionKey,
}

impl Receiver {
    /// Whether it was accepted.
    pub(super) fn is_in(self) -> bool {
        !self.session.is_null()
    }
}

#[derive(Debug)]
pub(crate) struct Room {
    pub(super) namespace: NamespaceKey,
    pub(super) name: ByteString,
    pub(super) members: Vec<Member>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub(super) receiver: Receiver,
    /// Where this room stands in the socket's own list.
    place: u32,
}

/// A socket's entry for a room it is in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Membership {
    pub(crate) room: RoomKey,
    /// Where the socket stands among the room's members.
    place: u32,
}

/// An ack a client owes: the handler's token, and until when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PendingAck {
    pub(crate) token: u64,
    pub(crate) deadline: Time,
}

pub(crate) type PendingAcks = BTreeMap<u64, PendingAck>;

/// The namespaces of a hub and the rooms in them.
#[derive(Debug)]
pub(crate) struct Namespaces {
    pub(crate) all: SlotMap<NamespaceKey, Namespace>,
    by_name: HashMap<ByteString, NamespaceKey, KeyedHash>,
    pub(crate) rooms: SlotMap<RoomKey, Room>,
    hash: KeyedHash,
}

impl Namespaces {
    pub(crate) fn new(hash: KeyedHash) -> Self {
        Self {
            all: SlotMap::default(),
            by_name: HashMap::with_hasher(hash.clone()),
            rooms: SlotMap::default(),
            hash,
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<NamespaceKey> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn find_or_make(&mut self, name: &ByteString, handler: HandlerId) -> NamespaceKey {
        if let Some(key) = self.by_name.get(name) {
            return *key;
        }
        let key = self.all.insert(Namespace {
            name: name.clone(),
            handler,
            members: Vec::new(),
            pending: 0,
            rooms: HashMap::with_hasher(self.hash.clone()),
        });
        self.by_name.insert(name.clone(), key);
        key
    }

    /// Forgets a namespace that nobody is in: their names may come from clients, by a pattern.
    pub(crate) fn drop_if_empty(&mut self, key: NamespaceKey) {
        if let Some(namespace) = self.all.get(key)
            && namespace.members.is_empty()
            && namespace.pending == 0
        {
            self.by_name.remove(&namespace.name);
            self.all.remove(key);
        }
    }

    /// Checks that rooms and sockets agree on who is where; returns how many memberships there are.
    #[cfg(test)]
    pub(super) fn check_rooms(&self, sockets: &SlotMap<SocketKey, Socket>) -> usize {
        let mut count = 0;
        for (key, room) in &self.rooms {
            assert!(!room.members.is_empty(), "an empty room is forgotten");
            for (place, member) in room.members.iter().enumerate() {
                let socket = &sockets[member.receiver.socket];
                let membership = socket.rooms[member.place as usize];
                assert_eq!((membership.room, membership.place as usize), (key, place));
                assert_eq!(member.receiver.session.is_null(), socket.id.is_none());
                assert_eq!(self.all[socket.namespace].rooms.get(&room.name), Some(&key));
                count += 1;
            }
        }
        count
    }

    /// Puts an accepted socket among the members of its namespace. From now on it receives what is
    /// sent to the rooms it has joined before.
    pub(crate) fn admit(&mut self, key: SocketKey, socket: &mut Socket) {
        for membership in &socket.rooms {
            if let Some(room) = self.rooms.get_mut(membership.room) {
                room.members[membership.place as usize].receiver.session = socket.session;
            }
        }
        if let Some(namespace) = self.all.get_mut(socket.namespace) {
            socket.place = u32::try_from(namespace.members.len()).unwrap_or(u32::MAX);
            namespace.members.push(Receiver { socket: key, session: socket.session });
        }
    }
}

impl Hub {
    /// Takes a socket out of the members of its namespace.
    pub(super) fn expel(&mut self, namespace: NamespaceKey, place: u32) {
        let Some(namespace) = self.namespaces.all.get_mut(namespace) else { return };
        namespace.members.swap_remove(place as usize);
        if let Some(moved) = namespace.members.get(place as usize)
            && let Some(moved) = self.sockets.get_mut(moved.socket)
        {
            moved.place = place;
        }
    }

    /// Puts a socket into a room. Returns whether it was not in it before.
    pub(super) fn enter_room(&mut self, key: SocketKey, name: &ByteString) -> bool {
        let Some(socket) = self.sockets.get_mut(key) else { return false };
        let in_namespace = socket.namespace;
        let Some(namespace) = self.namespaces.all.get_mut(in_namespace) else { return false };
        let rooms = &mut self.namespaces.rooms;
        let room_key = *namespace.rooms.entry(name.clone()).or_insert_with(|| {
            rooms.insert(Room { namespace: in_namespace, name: name.clone(), members: Vec::new() })
        });
        let Some(room) = rooms.get_mut(room_key) else { return false };
        // The shorter list answers: neither a full room nor a socket in many rooms is slow to ask.
        let inside = if room.members.len() < socket.rooms.len() {
            room.members.iter().any(|member| member.receiver.socket == key)
        } else {
            socket.rooms.iter().any(|membership| membership.room == room_key)
        };
        if inside {
            return false;
        }
        let (own, theirs) = (socket.rooms.len(), room.members.len());
        let session = socket.id.map_or_else(SessionKey::null, |_| socket.session);
        let receiver = Receiver { socket: key, session };
        room.members.push(Member { receiver, place: u32::try_from(own).unwrap_or(u32::MAX) });
        socket
            .rooms
            .push(Membership { room: room_key, place: u32::try_from(theirs).unwrap_or(u32::MAX) });
        true
    }

    /// Takes a socket out of a room by its name. Returns whether it was in it.
    pub(super) fn exit_room(&mut self, key: SocketKey, name: &str) -> bool {
        let Some(socket) = self.sockets.get(key) else { return false };
        let Some(namespace) = self.namespaces.all.get(socket.namespace) else { return false };
        let Some(room) = namespace.rooms.get(name) else { return false };
        let Some(members) = self.namespaces.rooms.get(*room).map(|room| &room.members) else {
            return false;
        };
        // The shorter list answers, as above.
        let place = if members.len() < socket.rooms.len() {
            let member = members.iter().find(|member| member.receiver.socket == key);
            member.map(|member| member.place as usize)
        } else {
            socket.rooms.iter().position(|membership| membership.room == *room)
        };
        let Some(place) = place else { return false };
        self.exit_room_at(key, place);
        true
    }

    /// Takes a socket out of the room at `place` of its own list.
    pub(super) fn exit_room_at(&mut self, key: SocketKey, place: usize) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let namespace = socket.namespace;
        let left = socket.rooms.swap_remove(place);
        let moved_up = socket.rooms.get(place).copied();
        let rooms = &mut self.namespaces.rooms;
        if let Some(moved) = moved_up
            && let Some(room) = rooms.get_mut(moved.room)
        {
            room.members[moved.place as usize].place = u32::try_from(place).unwrap_or(u32::MAX);
        }
        let Some(room) = rooms.get_mut(left.room) else { return };
        room.members.swap_remove(left.place as usize);
        if let Some(moved) = room.members.get(left.place as usize).copied()
            && let Some(moved_socket) = self.sockets.get_mut(moved.receiver.socket)
        {
            moved_socket.rooms[moved.place as usize].place = left.place;
        }
        if room.members.is_empty()
            && let Some(room) = self.namespaces.rooms.remove(left.room)
            && let Some(namespace) = self.namespaces.all.get_mut(namespace)
        {
            namespace.rooms.remove(&room.name);
        }
    }

    /// The rooms a socket has joined, its own not among them.
    pub fn rooms_of(&self, key: SocketKey) -> impl Iterator<Item = &str> {
        let memberships = self.sockets.get(key).map(|socket| socket.rooms.as_slice());
        memberships
            .unwrap_or_default()
            .iter()
            .filter_map(|membership| self.namespaces.rooms.get(membership.room))
            .map(|room| room.name.as_ref())
    }

    /// Starts a walk over the sockets a broadcast names, on sessions that `leg` admits.
    pub(super) fn walk(&self, broadcast: &Broadcast, namespace: NamespaceKey, leg: Leg) -> Walk {
        let everyone = broadcast.rooms.is_empty();
        let (mut lists, mut singles) = (Vec::new(), Vec::new());
        for name in &broadcast.rooms {
            self.resolve_room(namespace, name, &mut lists, &mut singles);
        }
        let (mut except_lists, mut except_singles) = (Vec::new(), Vec::new());
        for name in &broadcast.except {
            self.resolve_room(namespace, name, &mut except_lists, &mut except_singles);
        }
        let overlap = lists.len() + singles.len() > 1;
        Walk {
            namespace,
            everyone,
            marked: overlap || !except_lists.is_empty() || !except_singles.is_empty(),
            lists,
            singles,
            except_lists,
            except_singles,
            leg,
            volatile: broadcast.volatile,
            mark: None,
            list: 0,
            place: 0,
        }
    }

    fn resolve_room(
        &self,
        namespace: NamespaceKey,
        name: &ByteString,
        lists: &mut Vec<RoomKey>,
        singles: &mut Vec<Receiver>,
    ) {
        if let Some(room) = self.namespaces.all.get(namespace).and_then(|n| n.rooms.get(name)) {
            lists.push(*room);
        }
        if name.len() == Sid::TEXT_LEN
            && let Ok(sid) = name.parse::<Sid>()
            && let Some(key) = self.by_socket_sid.get(&sid)
            && let Some(socket) = self.sockets.get(*key)
            && socket.namespace == namespace
        {
            singles.push(Receiver { socket: *key, session: socket.session });
        }
    }

    /// The next socket of a walk, whatever serves it.
    pub(super) fn next_member(&mut self, walk: &mut Walk) -> Option<Receiver> {
        if walk.marked && walk.mark.is_none() {
            walk.mark = Some(self.next_mark());
            let mut place = 0;
            for list in &walk.except_lists {
                while let Some(room) = self.namespaces.rooms.get(*list)
                    && let Some(member) = room.members.get(place)
                {
                    place += 1;
                    if let Some(socket) = self.sockets.get_mut(member.receiver.socket) {
                        socket.mark = self.mark;
                    }
                }
                place = 0;
            }
            for single in &walk.except_singles {
                if let Some(socket) = self.sockets.get_mut(single.socket) {
                    socket.mark = self.mark;
                }
            }
        }
        loop {
            let receiver = self.step_walk(walk)?;
            if !receiver.is_in() {
                continue;
            }
            let Some(mark) = walk.mark else { return Some(receiver) };
            if let Some(socket) = self.sockets.get_mut(receiver.socket)
                && socket.mark != mark
            {
                socket.mark = mark;
                return Some(receiver);
            }
        }
    }

    /// Draws the mark of a walk, which no socket has.
    fn next_mark(&mut self) -> u32 {
        self.mark = self.mark.checked_add(1).unwrap_or_else(|| {
            for socket in self.sockets.values_mut() {
                socket.mark = 0;
            }
            1
        });
        self.mark
    }

    fn step_walk(&self, walk: &mut Walk) -> Option<Receiver> {
        if walk.everyone {
            let receiver = self.namespaces.all.get(walk.namespace)?.members.get(walk.place)?;
            walk.place += 1;
            return Some(*receiver);
        }
        while let Some(list) = walk.lists.get(walk.list) {
            if let Some(member) =
                self.namespaces.rooms.get(*list).and_then(|room| room.members.get(walk.place))
            {
                walk.place += 1;
                return Some(member.receiver);
            }
            walk.list += 1;
            walk.place = 0;
        }
        walk.singles.pop()
    }

    /// Takes the next receiver of an [`Output::Send`](crate::Output::Send), or `None` when all
    /// were named.
    pub fn next_receiver(&mut self, receivers: &mut Receivers) -> Option<TransportId> {
        match receivers {
            Receivers::One(transport) => transport.take(),
            Receivers::Many(walk) => loop {
                let receiver = self.next_member(walk)?;
                if let Some(session) = self.sessions.get(receiver.session)
                    && walk.leg.admits(session)
                    && !(walk.volatile && session.backlog_bytes > 0)
                    && session.websocket.is_some()
                {
                    return session.websocket;
                }
            },
        }
    }
}

/// Who an [`Output::Send`](crate::Output::Send) is for. The names are taken one by one with
/// [`Hub::next_receiver`], before the next input.
#[derive(Debug)]
pub enum Receivers {
    /// One WebSocket.
    One(Option<TransportId>),
    /// The members of a broadcast that share an encoding.
    Many(Walk),
}

/// A walk over the sockets of a broadcast. See [`Receivers`].
#[derive(Debug)]
pub struct Walk {
    namespace: NamespaceKey,
    everyone: bool,
    lists: Vec<RoomKey>,
    singles: Vec<Receiver>,
    except_lists: Vec<RoomKey>,
    except_singles: Vec<Receiver>,
    leg: Leg,
    volatile: bool,
    /// Whether a socket may come up twice or be left out, so that visits must be marked.
    marked: bool,
    /// The mark of this walk, drawn at its first step: outputs that wait behind one another must
    /// not see each other's marks.
    mark: Option<u32>,
    list: usize,
    place: usize,
}

/// The sessions that share an encoding of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leg {
    /// Any session.
    Any,
    /// Sessions on a WebSocket; `None` where the encoding does not depend on it.
    WebSocket { eio3: Option<bool>, deflate: Option<bool> },
}

impl Leg {
    pub(crate) fn admits(self, session: &Session) -> bool {
        let websocket = session.phase == Phase::WebSocket;
        match self {
            Self::Any => true,
            Self::WebSocket { eio3, deflate } => {
                websocket
                    && !session.base64
                    && eio3.is_none_or(|eio3| eio3 == session.is_eio3())
                    && deflate.is_none_or(|deflate| deflate == session.deflate)
            }
        }
    }
}
