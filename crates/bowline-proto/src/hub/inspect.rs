//! Who is here, for operators: read-only, and in bounded steps.

use bytestring::ByteString;

use super::{
    Hub,
    namespace::{Namespace, Receiver, Room},
};
use crate::{
    SessionKey, Sid, SocketKey, Time, TransportId,
    engineio::{TransportName, Version},
};

/// Namespaces whose names begin so are the server's own: they are in no list.
pub const OWN_NAMESPACES: &str = "/.bowline/";

/// What is known of a session.
#[derive(Debug, Clone, Copy)]
pub struct SessionView {
    /// Its Engine.IO sid, a secret that stands for the whole session.
    pub id: Sid,
    /// The revision its client speaks.
    pub version: Version,
    /// What serves it.
    pub transport: TransportName,
    /// Its WebSocket, if that serves it.
    pub websocket: Option<TransportId>,
    /// The address its client has, as the [handshake](crate::wall::Handshake) gave it.
    pub address: Option<std::net::IpAddr>,
    /// When it was opened.
    pub opened: Time,
    /// `engine.max-payload` as its client was told.
    pub max_payload_bytes: usize,
    /// Whether the server opened it itself: see [`Handshake`](crate::wall::Handshake).
    pub own: bool,
}

/// A room of this shard.
#[derive(Debug, Clone, Copy)]
pub struct RoomView<'a> {
    /// The name of its namespace.
    pub namespace: &'a ByteString,
    /// Its name.
    pub name: &'a ByteString,
    room: &'a Room,
}

impl Hub {
    /// What is known of a session.
    pub fn session(&self, key: SessionKey) -> Option<SessionView> {
        self.sessions.get(key).map(|session| SessionView {
            id: session.id,
            version: session.version,
            transport: session.transport_name(),
            websocket: session.websocket,
            address: session.address,
            opened: session.opened,
            max_payload_bytes: session.terms.max_payload_bytes,
            own: session.own,
        })
    }

    /// `engine.max-payload` as clients are told that open a session now.
    pub fn max_payload_bytes(&self) -> usize {
        self.terms.max_payload_bytes
    }

    /// Keeps something of the shell's with a session until that ends, and drops it then; at once if
    /// there is no such session.
    pub fn keep_with(&mut self, id: Sid, kept: Box<dyn std::any::Any + Send>) {
        let key = self.by_sid.get(&id).copied();
        if let Some(session) = key.and_then(|key| self.sessions.get_mut(key)) {
            session.set_lease(kept);
        }
    }

    /// Since when the client of a socket is away, if it is.
    pub fn away_since(&self, key: SocketKey) -> Option<Time> {
        let kept = self.sockets.get(key)?.kept.as_deref()?;
        kept.away.map(|away| away.since)
    }

    /// The session with this Engine.IO sid.
    pub fn find_session(&self, id: Sid) -> Option<SessionKey> {
        self.by_sid.get(&id).copied()
    }

    /// The sockets in a namespace, or in all; in a room of it, or in none in particular. A
    /// Socket.IO sid is the name of its socket's own room.
    pub fn sockets_in<'a>(
        &'a self,
        namespace: Option<&'a str>,
        room: Option<&'a str>,
    ) -> impl Iterator<Item = SocketKey> + 'a {
        self.listed(namespace)
            .flat_map(move |found| self.members_of(found, room))
            .filter(|receiver| receiver.is_in())
            .map(|receiver| receiver.socket)
    }

    /// The rooms in a namespace, or in all.
    pub fn rooms_in<'a>(
        &'a self,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = RoomView<'a>> + 'a {
        self.namespaces.rooms.values().filter_map(move |room| {
            let found = self.namespaces.all.get(room.namespace)?;
            let wanted = is_listed(found) && namespace.is_none_or(|name| found.name == *name);
            wanted.then(|| view(found, room))
        })
    }

    /// A room of a namespace.
    pub fn room(&self, namespace: &str, name: &str) -> Option<RoomView<'_>> {
        let found = self.listed(Some(namespace)).next()?;
        let room = self.namespaces.rooms.get(*found.rooms.get(name)?)?;
        Some(view(found, room))
    }

    fn listed<'a>(
        &'a self,
        namespace: Option<&str>,
    ) -> impl Iterator<Item = &'a Namespace> + use<'a> {
        let named = namespace.map(|name| self.namespaces.find(name));
        let one = named.flatten().and_then(|key| self.namespaces.all.get(key));
        let all = named.is_none().then(|| self.namespaces.all.values()).into_iter().flatten();
        one.into_iter().chain(all).filter(|found| is_listed(found))
    }

    fn members_of<'a>(
        &'a self,
        namespace: &'a Namespace,
        room: Option<&str>,
    ) -> impl Iterator<Item = Receiver> + use<'a> {
        let all = if room.is_none() { &*namespace.members } else { &[] };
        let key = room.and_then(|name| namespace.rooms.get(name));
        let members = key.and_then(|key| self.namespaces.rooms.get(*key));
        let members = members.map_or(&[][..], |room| &room.members);
        let own = room.and_then(|name| name.parse().ok()).and_then(|id| self.find_socket(id));
        let own = own.and_then(|key| {
            let socket = self.sockets.get(key)?;
            let name = &self.namespaces.all.get(socket.namespace)?.name;
            (*name == namespace.name).then(|| self.namespaces.receiver(key, socket))
        });
        all.iter().copied().chain(members.iter().map(|member| member.receiver)).chain(own)
    }
}

fn view<'a>(namespace: &'a Namespace, room: &'a Room) -> RoomView<'a> {
    RoomView { namespace: &namespace.name, name: &room.name, room }
}

impl RoomView<'_> {
    /// How many sockets of this shard are in it.
    pub fn sockets(&self) -> usize {
        self.room.members.iter().filter(|member| member.receiver.is_in()).count()
    }
}

fn is_listed(namespace: &Namespace) -> bool {
    !namespace.name.starts_with(OWN_NAMESPACES)
}
