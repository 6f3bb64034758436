//! What few sockets have: acks they owe, data of their handler, a time at which they end, and what
//! their client asked for while that is not answered.

use std::sync::Arc;

use bytestring::ByteString;

use super::{Hub, Offset, Socket, event_id::KnownEvents, expiry::Expiry, namespace::PendingAcks};
use crate::{
    Sid, SocketKey, Time,
    wall::{Handshake, SocketData},
};

/// Kept apart, so that a socket that has none of it pays one pointer.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    pub(super) pending_acks: PendingAcks,
    /// Bytes of the events that are held until they are acked.
    pub(super) held_bytes: usize,
    pub(super) data: Option<SocketData>,
    pub(super) expiry: Option<Expiry>,
    pub(super) asking: Option<Box<Asking>>,
    pub(super) known_events: Option<Box<KnownEvents>>,
}

/// What a client asked for that may be kept, until it is let in.
#[derive(Debug)]
pub(super) struct Asking {
    /// Whether it will get a pid and offsets.
    pub(super) stamped: bool,
    /// What its name was made into.
    pub(super) name: Option<Sid>,
    /// What it has seen last.
    pub(super) offset: Option<Offset>,
    pub(super) auth: Option<ByteString>,
    pub(super) handshake: Arc<Handshake>,
    /// Whether its handler was asked.
    pub(super) told: bool,
    /// Under what handlers know it, if that is not its own key.
    pub(super) born: Option<(u8, SocketKey)>,
}

impl Extras {
    /// The earliest deadline of an ack.
    pub(super) fn ack_by(&self) -> Option<Time> {
        self.pending_acks.values().map(|ack| ack.deadline).min()
    }

    pub(super) fn expire_by(&self) -> Option<Time> {
        self.expiry.map(Expiry::at)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending_acks.is_empty()
            && self.data.is_none()
            && self.expiry.is_none()
            && self.asking.is_none()
            && self.known_events.is_none()
    }
}

impl Socket {
    pub(super) fn extras_mut(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    /// Gives the memory back once nothing is in it any more. Asked after each removal.
    pub(super) fn drop_empty_extras(&mut self) {
        if self.extras.as_deref().is_some_and(Extras::is_empty) {
            self.extras = None;
        }
    }
}

impl Hub {
    /// Keeps `data` with a socket in place of what was kept before.
    pub(super) fn set_data(&mut self, key: SocketKey, data: Option<SocketData>) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if data.is_some() || socket.extras.is_some() {
            socket.extras_mut().data = data;
            socket.drop_empty_extras();
        }
    }
}
