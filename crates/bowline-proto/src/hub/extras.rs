//! What few sockets have: acks they owe, data of their handler, a time at which they end.

use super::{Hub, Socket, expiry::Expiry, namespace::PendingAcks};
use crate::{SocketKey, wall::SocketData};

/// Kept apart, so that a socket that has none of it pays one pointer.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    pub(super) pending_acks: PendingAcks,
    pub(super) data: Option<SocketData>,
    pub(super) expiry: Option<Expiry>,
}

impl Socket {
    pub(super) fn extras_mut(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    /// Gives the memory back once nothing is in it any more. Asked after each removal.
    pub(super) fn drop_empty_extras(&mut self) {
        if self.extras.as_deref().is_some_and(|extras| {
            extras.pending_acks.is_empty() && extras.data.is_none() && extras.expiry.is_none()
        }) {
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
