//! Namespaces, rooms and the walk over a broadcast's receivers.

use std::collections::{BTreeMap, HashMap};

use bytestring::ByteString;
use siphasher::sip::SipHasher13;
use slotmap::SlotMap;

use super::{Hub, Socket};
use crate::{
    SessionKey, Sid, SocketKey, Time, TransportId,
    session::Session,
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
        if let Some(newest) = self.rooms.get_mut(room) {
            return std::mem::replace(newest, number);
        }
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

/// A socket, and what a broadcast has to know of its session: it reads one list from the front to
/// the end, and saves two cache misses for each receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Receiver {
    pub(crate) socket: SocketKey,
    /// Its WebSocket, if it is of any kind.
    transport: TransportId,
    pub(crate) kind: Kinds,
    pub(crate) reach: Reach,
}

/// Kinds of receivers that share an encoding, a bit for each: by their reach, and by what their
/// WebSockets speak. Who gets nothing for now, or all packet by packet, is of none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kinds(u8);

impl Kinds {
    pub(crate) const NONE: Self = Self(0);

    /// Those of a reach; `None` where the encoding does not depend on it.
    pub(crate) fn of(reach: Reach, eio3: Option<bool>, deflate: Option<bool>) -> Self {
        let pick = |wanted: Option<bool>, those: u8| match wanted {
            None => u8::MAX,
            Some(true) => those,
            Some(false) => !those,
        };
        let of_reach = match reach {
            Reach::Pending | Reach::Absent => 0,
            Reach::Plain => 0b0000_1111,
            Reach::Stamped => 0b1111_0000,
        };
        Self(of_reach & pick(eio3, 0b1100_1100) & pick(deflate, 0b1010_1010))
    }

    fn overlap(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
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
    /// One that gets nothing, or nothing yet.
    fn unreached(socket: SocketKey, reach: Reach) -> Self {
        Self { socket, transport: TransportId(0), kind: Kinds::NONE, reach }
    }

    fn new(socket: SocketKey, reach: Reach, session: &Session) -> Self {
        match session.websocket {
            Some(transport) if !session.takes_packets() => {
                let kind = Kinds::of(reach, Some(session.is_eio3()), Some(session.deflate));
                Self { socket, transport, kind, reach }
            }
            Some(_) | None => Self::unreached(socket, reach),
        }
    }

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
    pub(super) fn check_rooms(
        &self,
        sockets: &SlotMap<SocketKey, Socket>,
        sessions: &SlotMap<SessionKey, Session>,
    ) -> usize {
        let mut count = 0;
        for member in self.all.values().flat_map(|namespace| &namespace.members) {
            let socket = &sockets[member.socket];
            let expected = match sessions.get(socket.session) {
                Some(session) if !matches!(member.reach, Reach::Pending | Reach::Absent) => {
                    Receiver::new(member.socket, member.reach, session)
                }
                Some(_) | None => Receiver::unreached(member.socket, member.reach),
            };
            assert_eq!(*member, expected);
            assert_eq!(self.receiver(member.socket, socket), expected);
        }
        for (key, room) in &self.rooms {
            assert!(!room.members.is_empty(), "an empty room is forgotten");
            for (place, member) in room.members.iter().enumerate() {
                let socket = &sockets[member.receiver.socket];
                let membership = socket.rooms[member.place as usize];
                assert_eq!((membership.room, membership.place as usize), (key, place));
                assert_eq!(member.receiver, self.receiver(member.receiver.socket, socket));
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
            namespace.members.push(Receiver::unreached(key, Reach::Absent));
            namespace.absent += 1;
            namespace.kept += usize::from(socket.kept.is_some());
        }
    }

    /// Says what a socket that was admitted gets from now on, of its namespace and of each of its
    /// rooms. Said again when another transport serves its session.
    pub(super) fn set_reach(&mut self, socket: &Socket, reach: Reach, session: Option<&Session>) {
        let Some(namespace) = self.all.get_mut(socket.namespace) else { return };
        let Some(member) = namespace.members.get_mut(socket.place as usize) else { return };
        let receiver = match (session, reach) {
            (None, _) | (_, Reach::Pending | Reach::Absent) => {
                Receiver::unreached(member.socket, reach)
            }
            (Some(session), Reach::Plain | Reach::Stamped) => {
                Receiver::new(member.socket, reach, session)
            }
        };
        let before = std::mem::replace(member, receiver).reach;
        namespace.count(before, -1);
        namespace.count(reach, 1);
        for membership in &socket.rooms {
            if let Some(room) = self.rooms.get_mut(membership.room) {
                room.members[membership.place as usize].receiver = receiver;
            }
        }
    }

    /// What a socket gets.
    pub(super) fn reach(&self, socket: &Socket) -> Reach {
        match self.member(socket) {
            Some(member) => member.reach,
            None => Reach::Pending,
        }
    }

    /// A socket as a receiver.
    pub(super) fn receiver(&self, key: SocketKey, socket: &Socket) -> Receiver {
        let member = self.member(socket).copied();
        member.unwrap_or(Receiver::unreached(key, Reach::Pending))
    }

    /// A socket among the members of its namespace, if it was accepted.
    fn member(&self, socket: &Socket) -> Option<&Receiver> {
        socket.id?;
        self.all.get(socket.namespace)?.members.get(socket.place as usize)
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
        let pending = Receiver::unreached(key, Reach::Pending);
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

    /// Starts a walk over the sockets a broadcast names. `kinds` are those that
    /// [`next_receiver`](Self::next_receiver) names.
    pub(super) fn walk(
        &self,
        broadcast: &Broadcast,
        namespace: NamespaceKey,
        kinds: Kinds,
    ) -> Walk {
        let over = match (broadcast.rooms.as_slice(), broadcast.except.as_slice()) {
            ([], []) => Over::Everyone,
            ([name], []) => match self.resolve_room(namespace, name) {
                (Some(room), None) => Over::Room(room),
                (None, single) => Over::One(single),
                (Some(room), Some(single)) => {
                    let rooms = Resolved { lists: vec![room], singles: vec![single] };
                    Over::several(false, rooms, Resolved::default())
                }
            },
            (rooms, except) => {
                let everyone = rooms.is_empty();
                let rooms = self.resolve_rooms(namespace, rooms);
                let except = self.resolve_rooms(namespace, except);
                match everyone && except.lists.is_empty() && except.singles.is_empty() {
                    true => Over::Everyone,
                    false => Over::several(everyone, rooms, except),
                }
            }
        };
        Walk { namespace, over, kinds, volatile: broadcast.volatile, place: 0 }
    }

    fn resolve_rooms(&self, namespace: NamespaceKey, names: &[ByteString]) -> Resolved {
        let mut resolved = Resolved::default();
        for name in names {
            let (room, single) = self.resolve_room(namespace, name);
            resolved.lists.extend(room);
            resolved.singles.extend(single);
        }
        resolved
    }

    /// The room of a name, and the socket whose own room that is.
    fn resolve_room(
        &self,
        namespace: NamespaceKey,
        name: &ByteString,
    ) -> (Option<RoomKey>, Option<Receiver>) {
        let rooms = self.namespaces.all.get(namespace).map(|found| &found.rooms);
        let room = rooms.and_then(|rooms| rooms.get(name)).copied();
        let single = (name.len() == Sid::TEXT_LEN)
            .then(|| {
                let key = self.by_socket_sid.get(&name.parse().ok()?)?;
                let socket = self.sockets.get(*key)?;
                (socket.namespace == namespace).then(|| self.namespaces.receiver(*key, socket))
            })
            .flatten();
        (room, single)
    }

    /// The next socket of a walk, whatever serves it.
    pub(super) fn next_member(&mut self, walk: &mut Walk) -> Option<Receiver> {
        let Over::Several(several) = &mut walk.over else {
            return loop {
                let receiver = self.step_list(walk)?;
                if receiver.is_in() {
                    break Some(receiver);
                }
            };
        };
        let mark = match several.mark {
            Some(mark) => mark,
            None => {
                let mark = self.next_mark();
                self.mark_all(&several.except, mark);
                *several.mark.insert(mark)
            }
        };
        loop {
            let receiver = self.step_several(walk.namespace, several, &mut walk.place)?;
            if let Some(socket) = self.sockets.get_mut(receiver.socket)
                && receiver.is_in()
                && socket.mark != mark
            {
                socket.mark = mark;
                return Some(receiver);
            }
        }
    }

    fn mark_all(&mut self, resolved: &Resolved, mark: u32) {
        let rooms = resolved.lists.iter().filter_map(|list| self.namespaces.rooms.get(*list));
        let members = rooms.flat_map(|room| room.members.iter().map(|member| member.receiver));
        for receiver in members.chain(resolved.singles.iter().copied()) {
            if let Some(socket) = self.sockets.get_mut(receiver.socket) {
                socket.mark = mark;
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

    /// The next of one list.
    fn step_list(&self, walk: &mut Walk) -> Option<Receiver> {
        let place = walk.place;
        walk.place += 1;
        match &mut walk.over {
            Over::Everyone => self.namespaces.all.get(walk.namespace)?.members.get(place).copied(),
            Over::Room(room) => {
                let member = self.namespaces.rooms.get(*room)?.members.get(place)?;
                Some(member.receiver)
            }
            Over::One(single) => single.take(),
            Over::Several(_) => None,
        }
    }

    /// The next of several lists, in which somebody may come up again.
    fn step_several(
        &self,
        namespace: NamespaceKey,
        several: &mut Several,
        place: &mut usize,
    ) -> Option<Receiver> {
        if several.everyone {
            let receiver = self.namespaces.all.get(namespace)?.members.get(*place)?;
            *place += 1;
            return Some(*receiver);
        }
        while let Some(list) = several.rooms.lists.get(several.list) {
            let room = self.namespaces.rooms.get(*list);
            if let Some(member) = room.and_then(|room| room.members.get(*place)) {
                *place += 1;
                return Some(member.receiver);
            }
            several.list += 1;
            *place = 0;
        }
        several.rooms.singles.pop()
    }

    /// Takes the next receiver of an [`Output::Send`](crate::Output::Send), or `None` when all
    /// were named.
    pub fn next_receiver(&mut self, receivers: &mut Receivers) -> Option<TransportId> {
        let walk = match receivers {
            Receivers::One(transport) => return transport.take(),
            Receivers::Many(walk) => walk,
        };
        // Most broadcasts go over one list, and look at nobody's session.
        match &walk.over {
            Over::Everyone if !walk.volatile => {
                let members = &self.namespaces.all.get(walk.namespace)?.members;
                next_in(members, &mut walk.place, walk.kinds, |member| member)
            }
            Over::Room(room) if !walk.volatile => {
                let members = &self.namespaces.rooms.get(*room)?.members;
                next_in(members, &mut walk.place, walk.kinds, |member| &member.receiver)
            }
            Over::Everyone | Over::Room(_) | Over::One(_) | Over::Several(_) => {
                self.next_of_any(walk)
            }
        }
    }

    /// The same for every walk. Apart, so that it does not weigh on the short way.
    #[inline(never)]
    fn next_of_any(&mut self, walk: &mut Walk) -> Option<TransportId> {
        loop {
            let receiver = self.next_member(walk)?;
            if receiver.kind.overlap(walk.kinds)
                && !(walk.volatile && self.is_behind(receiver.socket))
            {
                return Some(receiver.transport);
            }
        }
    }

    /// Whether something waits already to be sent to a socket.
    fn is_behind(&self, key: SocketKey) -> bool {
        let session = self.sockets.get(key).and_then(|socket| self.sessions.get(socket.session));
        session.is_some_and(|session| session.backlog_bytes > 0)
    }

    /// A session is served by another transport now.
    pub(super) fn renew_receivers(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(key) else { return };
        for key in &session.sockets {
            if let Some(socket) = self.sockets.get(*key).filter(|socket| socket.id.is_some()) {
                let reach = self.namespaces.reach(socket);
                self.namespaces.set_reach(socket, reach, Some(session));
            }
        }
    }
}

/// The next member of these kinds, from `place` on.
fn next_in<M>(
    members: &[M],
    place: &mut usize,
    kinds: Kinds,
    receiver: impl Fn(&M) -> &Receiver,
) -> Option<TransportId> {
    while let Some(member) = members.get(*place) {
        *place += 1;
        let receiver = receiver(member);
        if receiver.kind.overlap(kinds) {
            return Some(receiver.transport);
        }
    }
    None
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
    over: Over,
    kinds: Kinds,
    volatile: bool,
    place: usize,
}

/// What a walk goes over.
#[derive(Debug)]
enum Over {
    /// All members of the namespace.
    Everyone,
    Room(RoomKey),
    /// At most one socket, by its own room.
    One(Option<Receiver>),
    Several(Box<Several>),
}

/// Lists in which a socket may come up twice, or that others are left out of: visits are marked.
#[derive(Debug)]
struct Several {
    everyone: bool,
    rooms: Resolved,
    except: Resolved,
    /// Drawn at the first step: outputs that wait behind one another must not see each other's
    /// marks.
    mark: Option<u32>,
    list: usize,
}

/// What names of rooms stand for.
#[derive(Debug, Default)]
struct Resolved {
    lists: Vec<RoomKey>,
    singles: Vec<Receiver>,
}

impl Over {
    fn several(everyone: bool, rooms: Resolved, except: Resolved) -> Self {
        Self::Several(Box::new(Several { everyone, rooms, except, mark: None, list: 0 }))
    }
}
