//! Acks asked of all receivers of a broadcast.

use super::{
    Hub, SHARED_ACKS_FROM,
    namespace::{Kinds, NamespaceKey},
};
use crate::wall::{AckError, AckRequest, Broadcast, Event};

impl Hub {
    /// A socket has come that owes an ack of this number: no other one gets it, if it is one that
    /// many share.
    pub(super) fn pass_shared_ack(&mut self, id: u64) {
        let shared = u32::try_from(id).ok().and_then(|id| id.checked_sub(SHARED_ACKS_FROM));
        self.shared_acks = self.shared_acks.max(shared.unwrap_or(0) % SHARED_ACKS_FROM);
    }

    /// Notes the ack that every receiver of a broadcast owes from now on. Returns its number, which
    /// is the same for all of them so that they can share a frame, and how many they are.
    ///
    /// A session that owes too many acks already receives the event, but its ack is not awaited.
    pub(super) fn ask_receivers(
        &mut self,
        broadcast: &Broadcast,
        namespace: NamespaceKey,
        request: AckRequest,
    ) -> (u64, usize) {
        self.shared_acks = (self.shared_acks + 1) % SHARED_ACKS_FROM;
        let id = u64::from(SHARED_ACKS_FROM + self.shared_acks);
        let mut count = 0;
        let mut not_asked = Vec::new();
        let mut walk = self.walk(broadcast, namespace, Kinds::NONE);
        while let Some(member) = self.next_member(&mut walk) {
            let Some(sid) = self.sockets.get(member.socket).and_then(|socket| socket.id) else {
                continue;
            };
            count += 1;
            if !self.owe(member.socket, id, request, &broadcast.args, broadcast.volatile) {
                not_asked.push((member.socket, sid));
            }
        }
        for (socket, sid) in not_asked {
            let (token, result) = (request.token, Err(AckError::TooMany));
            self.deliver(socket, Event::Ack { socket, id: sid, token, result });
        }
        (id, count)
    }
}
