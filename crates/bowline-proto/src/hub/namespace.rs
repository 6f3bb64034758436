//! Namespaces, rooms and the walk over a broadcast's receivers.

use std::collections::{BTreeMap, HashMap};

use bytestring::ByteString;
use siphasher::sip::SipHasher13;
use slotmap::{Key as _, SlotMap};

use super::{Hub, Socket};
use crate::{
    SessionKey, Sid, SocketKey, Time, TransportId,
    session::{Phase, Session},
    socketio::Args,
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
    /// How many members get offsets with their events, and how many get nothing for now.
    pub(super) stamped: usize,
    pub(super) absent: usize,
    /// Members that are kept when their session ends: for them there is a log.
    pub(super) kept: usize,
    pub(super) trail: Trail,
    /// The newest record when the first of its sockets came: of what was sent before, there is none.
    pub(super) begins: u64,
}

/// Where the newest records of the log are that a namespace and its rooms were sent.
#[derive(Debug)]
pub(super) struct Trail {
    pub(super) everyone: u64,
    pub(super) rooms: HashMap<ByteString, u64, KeyedHash>,
    /// Records up to this one are known of no room: they have left the log.
    pub(super) forgotten: u64,
    crowded_from: usize,
}

impl Trail {
    fn new(hash: KeyedHash) -> Self {
        Self { everyone: 0, rooms: HashMap::with_hasher(hash), forgotten: 0, crowded_from: 0 }
    }

    /// The newest record that a room was sent. Zero if there is none; what is forgotten counts as
    /// one for each room.
    pub(super) fn newest(&self, room: &str) -> u64 {
        self.rooms.get(room).copied().unwrap_or(self.forgotten)
    }

    /// Notes the newest record of a room and returns the one before.
    pub(super) fn follow(&mut self, room: &ByteString, number: u64, first: u64) -> u64 {
        if self.rooms.len() >= self.crowded_from.max(CROWDED_FROM) {
            let forgotten = &mut self.forgotten;
            self.rooms.retain(|_, newest| {
                let keep = *newest >= first;
                if !keep {
                    *forgotten = (*forgotten).max(*newest);
                }
                keep
            });
            self.crowded_from = 2 * self.rooms.len();
        }
        self.rooms.insert(room.clone(), number).unwrap_or(self.forgotten)
    }
}

/// Rooms from which on it is worth looking for those whose records have left the log.
const CROWDED_FROM: usize = 64;

/// A socket and its session side by side: a broadcast reads the session alone and saves the way
/// through the socket, a cache miss for each receiver.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Receiver {
    pub(crate) socket: SocketKey,
    /// The null key while it receives nothing.
    pub(crate) session: SessionKey,
    pub(crate) reach: Reach,
}

/// What a socket gets of what is sent to its rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Nothing: it awaits the answer to its CONNECT. It is in rooms all the same.
    Pending,
    /// Nothing now: it is away, or has not caught up. The log keeps it.
    Absent,
    /// Events as they are.
    Plain,
    /// Events with their offsets.
    Stamped,
}

impl Receiver {
    /// Whether it was accepted.
    pub(super) fn is_in(self) -> bool {
        self.reach != Reach::Pending
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
    /// The newest record of the log when it joined.
    pub(super) since: u64,
}

/// An ack a client owes, and until when.
#[derive(Debug, Clone)]
pub(crate) struct PendingAck {
    /// That of the handler who waits for it; nobody does if that was in an earlier process.
    pub(crate) token: Option<u64>,
    pub(crate) deadline: Time,
    /// The event, if the socket is kept: it is sent again to a client that comes back.
    pub(super) held: Option<Held>,
}

/// An event that is held until it is acked.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) args: Args,
    /// The newest record of the log when it was emitted.
    pub(super) after: u64,
}

pub(crate) type PendingAcks = BTreeMap<u64, PendingAck>;

/// The namespaces of a hub and the rooms in them.
#[derive(Debug)]
pub(crate) struct Namespaces {
    pub(crate) all: SlotMap<NamespaceKey, Namespace>,
    by_name: HashMap<ByteString, NamespaceKey, KeyedHash>,
    pub(crate) rooms: SlotMap<RoomKey, Room>,
    hash: KeyedHash,
    /// Whether those that nobody is in are kept all the same, since somebody may be restored to them.
    pub(super) keep_empty: bool,
}

impl Namespaces {
    pub(crate) fn new(hash: KeyedHash, keep_empty: bool) -> Self {
        Self {
            all: SlotMap::default(),
            by_name: HashMap::with_hasher(hash.clone()),
            rooms: SlotMap::default(),
            hash,
            keep_empty,
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
            stamped: 0,
            absent: 0,
            kept: 0,
            trail: Trail::new(self.hash.clone()),
            begins: 0,
        });
        self.by_name.insert(name.clone(), key);
        key
    }

    /// Forgets a namespace that nobody is in: their names may come from clients, by a pattern.
    pub(crate) fn drop_if_empty(&mut self, key: NamespaceKey) {
        if let Some(namespace) = self.all.get(key)
            && namespace.members.is_empty()
            && namespace.pending == 0
            && !self.keep_empty
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
                assert_eq!(member.receiver.is_in(), socket.id.is_some());
                assert_eq!(self.all[socket.namespace].rooms.get(&room.name), Some(&key));
                count += 1;
            }
        }
        count
    }

    /// Puts an accepted socket among the members of its namespace, where nothing reaches it before
    /// [`set_reach`](Self::set_reach).
    pub(crate) fn admit(&mut self, key: SocketKey, socket: &mut Socket) {
        if let Some(namespace) = self.all.get_mut(socket.namespace) {
            socket.place = u32::try_from(namespace.members.len()).unwrap_or(u32::MAX);
            let reach = Reach::Absent;
            namespace.members.push(Receiver { socket: key, session: SessionKey::null(), reach });
            namespace.absent += 1;
            namespace.kept += usize::from(socket.kept.is_some());
        }
    }

    /// Says what a socket gets from now on, of its namespace and of each of its rooms.
    pub(super) fn set_reach(&mut self, socket: &Socket, reach: Reach) {
        let Some(namespace) = self.all.get_mut(socket.namespace) else { return };
        let Some(member) = namespace.members.get_mut(socket.place as usize) else { return };
        let session = match reach {
            Reach::Pending | Reach::Absent => SessionKey::null(),
            Reach::Plain | Reach::Stamped => socket.session,
        };
        let before = std::mem::replace(member, Receiver { session, reach, ..*member }).reach;
        namespace.count(before, -1);
        namespace.count(reach, 1);
        for membership in &socket.rooms {
            if let Some(room) = self.rooms.get_mut(membership.room) {
                let receiver = &mut room.members[membership.place as usize].receiver;
                (receiver.session, receiver.reach) = (session, reach);
            }
        }
    }

    /// What a socket gets.
    pub(super) fn reach(&self, socket: &Socket) -> Reach {
        if socket.id.is_none() {
            return Reach::Pending;
        }
        let namespace = self.all.get(socket.namespace);
        let member = namespace.and_then(|found| found.members.get(socket.place as usize));
        member.map_or(Reach::Absent, |member| member.reach)
    }
}

impl Namespace {
    fn count(&mut self, reach: Reach, by: isize) {
        let count = match reach {
            Reach::Absent => &mut self.absent,
            Reach::Stamped => &mut self.stamped,
            Reach::Pending | Reach::Plain => return,
        };
        *count = count.saturating_add_signed(by);
    }
}

impl Hub {
    /// Takes a socket out of the members of its namespace.
    pub(super) fn expel(&mut self, namespace: NamespaceKey, place: u32, kept: bool) {
        let Some(namespace) = self.namespaces.all.get_mut(namespace) else { return };
        let gone = namespace.members.swap_remove(place as usize);
        namespace.count(gone.reach, -1);
        namespace.kept -= usize::from(kept);
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
        let pending = Receiver { socket: key, session: SessionKey::null(), reach: Reach::Pending };
        // As it is among all members, so it is here.
        let receiver = match socket.id {
            Some(_) => namespace.members.get(socket.place as usize).copied().unwrap_or(pending),
            None => pending,
        };
        room.members.push(Member { receiver, place: u32::try_from(own).unwrap_or(u32::MAX) });
        socket.rooms.push(Membership {
            room: room_key,
            place: u32::try_from(theirs).unwrap_or(u32::MAX),
            since: self.log.head(),
        });
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
        if let (Some(kept), Some(room)) = (socket.kept.as_deref_mut(), rooms.get(left.room)) {
            kept.note_stay(&room.name, left.since, self.log.head());
        }
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
            let reach = self.namespaces.reach(socket);
            singles.push(Receiver { socket: *key, session: socket.session, reach });
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
                    && walk.leg.admits(session, receiver.reach)
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
    WebSocket { reach: Reach, eio3: Option<bool>, deflate: Option<bool> },
}

impl Leg {
    pub(crate) fn admits(self, session: &Session, reach: Reach) -> bool {
        let websocket = session.phase == Phase::WebSocket;
        match self {
            Self::Any => true,
            Self::WebSocket { reach: wanted, eio3, deflate } => {
                reach == wanted
                    && websocket
                    && !session.base64
                    && eio3.is_none_or(|eio3| eio3 == session.is_eio3())
                    && deflate.is_none_or(|deflate| deflate == session.deflate)
            }
        }
    }
}
