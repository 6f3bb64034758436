//! Whom a broadcast is for, asked of single sockets: for broadcasts that wait for somebody, and for
//! those whose receivers are told apart. The [walk](super::Walk) is what broadcasts themselves use.

use bytestring::ByteString;

use super::{
    Hub, Socket,
    namespace::{Namespace, Receiver},
};
use crate::{Sid, SocketKey, wall::Broadcast};

impl Hub {
    /// Whether a broadcast that was sent now would be for this socket.
    pub fn is_receiver(&self, key: SocketKey, broadcast: &Broadcast) -> bool {
        let Some(socket) = self.sockets.get(key) else { return false };
        let Some(namespace) = self.namespaces.all.get(socket.namespace) else { return false };
        if socket.id.is_none() || namespace.name != broadcast.namespace {
            return false;
        }
        let is_in = |room: &ByteString| self.is_in_room(key, socket, namespace, room);
        let named = broadcast.rooms.is_empty() || broadcast.rooms.iter().any(is_in);
        named && !broadcast.except.iter().any(is_in)
    }

    /// Whether a broadcast that was sent now would be for anybody of this shard.
    pub fn has_receiver(&self, broadcast: &Broadcast) -> bool {
        self.candidates(broadcast).any(|socket| self.is_receiver(socket, broadcast))
    }

    /// The members of the rooms that a broadcast names, those excepted among them.
    fn candidates<'a>(&'a self, broadcast: &'a Broadcast) -> impl Iterator<Item = SocketKey> + 'a {
        let found = self.namespaces.find(&broadcast.namespace);
        let found = found.and_then(|key| self.namespaces.all.get(key));
        let everybody = found.filter(|_| broadcast.rooms.is_empty());
        let everybody = everybody.into_iter().flat_map(|namespace| namespace.members.iter());
        let rooms = found.into_iter().flat_map(|namespace| {
            broadcast.rooms.iter().filter_map(|name| namespace.rooms.get(name))
        });
        let rooms = rooms.filter_map(|key| self.namespaces.rooms.get(*key));
        let members = rooms.flat_map(|room| room.members.iter().map(|member| member.receiver));
        let own = broadcast.rooms.iter().filter_map(|name| self.find_socket(own_room(name)?));
        everybody.copied().chain(members).map(|receiver: Receiver| receiver.socket).chain(own)
    }

    fn is_in_room(
        &self,
        key: SocketKey,
        socket: &Socket,
        namespace: &Namespace,
        name: &ByteString,
    ) -> bool {
        if let Some(own) = own_room(name)
            && socket.id == Some(own)
        {
            return true;
        }
        let Some(room_key) = namespace.rooms.get(name) else { return false };
        let Some(room) = self.namespaces.rooms.get(*room_key) else { return false };
        // The shorter list answers, as in joining.
        if room.members.len() < socket.rooms.len() {
            room.members.iter().any(|member| member.receiver.socket == key)
        } else {
            socket.rooms.iter().any(|membership| membership.room == *room_key)
        }
    }
}

/// The Socket.IO sid that the name of a room may be.
fn own_room(name: &ByteString) -> Option<Sid> {
    (name.len() == Sid::TEXT_LEN).then(|| name.parse().ok()).flatten()
}
