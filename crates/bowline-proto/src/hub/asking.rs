//! Acks asked of all receivers of a broadcast.

use super::{
    Hub, SHARED_ACKS_FROM,
    namespace::{Leg, NamespaceKey, PendingAck},
};
use crate::{
    Timer,
    limit::LimitKey,
    wall::{AckError, AckRequest, Broadcast, Event},
};

impl Hub {
    /// Notes the ack that every receiver of a broadcast owes from now on. Returns its number, which
    /// is the same for all of them so that they can share a frame, and how many they are.
    ///
    /// A session that owes too many acks already receives the event, but its ack is not awaited.
    pub(super) fn ask_receivers(
        &mut self,
        broadcast: &Broadcast,
        namespace: NamespaceKey,
        AckRequest { token, timeout }: AckRequest,
    ) -> (u64, usize) {
        let pending_max = self.config.limits.pending_acks_per_session;
        let deadline = self.now + timeout;
        self.shared_acks = (self.shared_acks + 1) % SHARED_ACKS_FROM;
        let id = u64::from(SHARED_ACKS_FROM + self.shared_acks);
        let mut count = 0;
        let mut not_asked = Vec::new();
        let mut walk = self.walk(broadcast, namespace, Leg::Any);
        while let Some(member) = self.next_member(&mut walk) {
            let Some(session) = self.sessions.get_mut(member.session) else { continue };
            let Some(socket) = self.sockets.get_mut(member.socket) else { continue };
            let Some(sid) = socket.id else { continue };
            count += 1;
            if session.pending_acks as usize >= pending_max {
                not_asked.push((member.socket, sid));
                continue;
            }
            socket.extras_mut().pending_acks.insert(id, PendingAck { token, deadline });
            session.pending_acks += 1;
            if deadline < session.ack_by() {
                session.set_ack_by(deadline);
                self.timers.push(deadline, Timer::Ack, member.session);
            }
        }
        for (socket, sid) in not_asked {
            self.stats.on_limit(LimitKey::PendingAcksPerSession);
            let result = Err(AckError::TooMany);
            self.deliver(socket, Event::Ack { socket, id: sid, token, result });
        }
        (id, count)
    }
}
