//! What goes from a shard to a socket that may have gone on, and to other shards.

use bowline_proto::{
    Command, Input, Sid, SocketKey,
    hub::Whereabouts,
    socketio::Args,
    wall::{AckError, Broadcast},
};

use super::Shard;
use crate::{
    errand::{Answer, Errand, key_of_mut},
    handler::{Wish, token_shard},
    limit,
    mailbox::Message,
};

impl Shard {
    /// Hands a message to a shard. When it has much to do, this one reads no more for a while.
    pub(super) fn send(&mut self, peer: u8, message: Message) {
        // A token that a client made up names no shard.
        let Some(port) = self.process.shards.get(usize::from(peer)) else { return };
        let waiting = port.mailbox.push(message);
        if peer != self.index && waiting > limit::PEER_HIGH && !self.congested.contains(&peer) {
            self.congested.push(peer);
        }
    }

    pub(super) fn forward(&mut self, broadcast: &Broadcast) {
        let here = self.index;
        for peer in (0..self.process.shards.len() as u8).filter(|peer| *peer != here) {
            self.send(peer, Message::Forwarded(broadcast.clone()));
        }
    }

    /// Does what handlers want done, in order, and before it what had to wait for sockets that have
    /// arrived now.
    pub(super) fn grant_wishes(&mut self) {
        loop {
            while let Some(pid) = self.settled.pop() {
                for errand in self.desk.parked.take(pid) {
                    self.run_errand(errand);
                }
            }
            let Some(wish) = self.desk.wishes.pop_front() else { return };
            match wish {
                Wish::For(errand) => self.run_errand(errand),
                Wish::Answer(answer) => self.answer(answer),
                Wish::Here(command) => self.command(command),
                Wish::There(shard, message) => self.send(shard, message),
            }
        }
    }

    /// Looks after what is parked, should nobody have said that its sockets have arrived.
    pub(super) fn grant_parked(&mut self) {
        if self.desk.parked.any() {
            self.settled = self.desk.parked.settled(&self.hub);
            self.grant_wishes();
        }
    }

    /// Does something for a socket, or passes it on to where the socket is.
    pub(super) fn run_errand(&mut self, errand: Errand) {
        match (errand.whereabouts(&self.hub), errand) {
            (Whereabouts::Here(key), Errand::Command { mut command, .. }) => {
                if let Some(socket) = key_of_mut(&mut command) {
                    *socket = key;
                }
                self.command(command);
            }
            (Whereabouts::There(shard), errand) if shard != self.index => {
                self.send(shard, Message::Errand(errand));
            }
            (Whereabouts::Moving(pid), errand) if self.desk.parked.has_room(&errand) => {
                self.desk.parked.put(pid, errand);
            }
            (whereabouts, errand) => {
                if let Whereabouts::Moving(_) = whereabouts {
                    tracing::warn!("a command is dropped: too many wait for sockets that move");
                }
                self.drop_errand(errand);
            }
        }
    }

    /// The socket of an errand has gone.
    fn drop_errand(&mut self, errand: Errand) {
        match errand {
            Errand::Command { command, .. } => {
                if let Command::Emit { ack: Some(ack), .. } = command {
                    self.acked(None, ack.token, Err(AckError::Disconnected));
                }
            }
            Errand::Task { task, .. } => self.call(|cx, _| task(cx)),
        }
    }

    /// Lets a client in, or does not, unless it has gone or another has come for the same socket.
    pub(super) fn answer(&mut self, answer: Answer) {
        if !answer.is_awaited(&self.hub) {
            return;
        }
        if let Command::Claim { socket, .. } = &answer.command {
            self.note_claim(*socket);
        }
        self.command(answer.command);
    }

    /// The next that is heard of this socket is the answer to its claim.
    fn note_claim(&mut self, socket: SocketKey) {
        let claimed = &mut self.desk.claimed;
        // Of one that is found elsewhere nothing more is heard. Looked for each time their number
        // has doubled.
        if claimed.len() >= limit::CLAIMED && claimed.len().is_power_of_two() {
            claimed.retain(|socket| self.hub.session_of(*socket).is_some());
        }
        claimed.insert(socket);
    }

    pub(super) fn on_reached(&mut self, report: u64, receivers: usize) {
        let owner = token_shard(report);
        if owner != self.index {
            self.send(owner, Message::Reached { report, receivers });
            return;
        }
        let Some(pending) = self.desk.reports.get_mut(&report) else {
            self.desk.shares.on_reached(report, receivers);
            return;
        };
        pending.receivers += receivers;
        pending.shards_left = pending.shards_left.saturating_sub(1);
        if pending.shards_left == 0
            && let Some(pending) = self.desk.reports.remove(&report)
        {
            self.call(|cx, _| (pending.done)(cx, pending.receivers));
        }
    }

    /// An ack has come, or will not. `id` is the Socket.IO sid of the socket, if it was in.
    pub(super) fn acked(&mut self, id: Option<Sid>, token: u64, result: Result<Args, AckError>) {
        let owner = token_shard(token);
        if owner != self.index {
            self.send(owner, Message::Acked { id, token, result });
        } else if let Some(done) = self.desk.acks.remove(&token) {
            self.call(|cx, _| done(cx, result));
        } else if let Some(id) = id {
            self.desk.shares.on_answer(token, id, result);
        }
    }

    /// What the hub of another shard tells, or an earlier process.
    pub(super) fn on_told(&mut self, input: Input) {
        if matches!(input, Input::Restore(_)) {
            self.restoring = false;
        }
        self.feed(input);
    }
}
