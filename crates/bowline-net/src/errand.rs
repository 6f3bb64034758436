//! What is meant for one socket, and how it gets there.
//!
//! Handlers know a socket by the shard and the key it was born with. Its client may have come back to
//! another shard since, and the socket with it: [`Hub::whereabouts`] says where to go on. While it is
//! on its way between two shards, what is meant for it is parked, in order.

use std::collections::{HashMap, VecDeque};

use bowline_proto::{Command, Hub, SessionKey, Sid, SocketKey, hub::Whereabouts};

use crate::{handler::SocketRef, limit, mailbox::Task};

/// Something to be done for one socket, where that is now.
pub(crate) enum Errand {
    /// The hub is told. The key in the command is the one the socket was born with; nothing is done if
    /// it has gone.
    Command { born: u8, command: Command },
    /// A handler's code is run, here if the socket has gone.
    Task { socket: SocketRef, task: Task },
}

/// What becomes of a client that waits for the answer to its CONNECT. It goes to the shard that has
/// the client, and to no other client that has come for the same socket meanwhile.
pub(crate) struct Answer {
    /// The session of the client that asked.
    pub(crate) session: SessionKey,
    /// Its key is the one that the hub there knows.
    pub(crate) command: Command,
}

/// Errands for sockets that are on their way, by pid.
#[derive(Default)]
pub(crate) struct Parked {
    by_pid: HashMap<Sid, VecDeque<Errand>>,
    commands: usize,
}

impl Errand {
    /// The socket it is for.
    pub(crate) fn socket(&self) -> Option<SocketRef> {
        match self {
            Self::Command { born, command } => {
                Some(SocketRef { shard: *born, key: *key_of(command)? })
            }
            Self::Task { socket, .. } => Some(*socket),
        }
    }

    /// Where it is to be done.
    pub(crate) fn whereabouts(&self, hub: &Hub) -> Whereabouts {
        self.socket().map_or(Whereabouts::Gone, |it| hub.whereabouts(it.shard, it.key))
    }
}

impl Answer {
    /// Whether the client that asked still waits for it.
    pub(crate) fn is_awaited(&self, hub: &Hub) -> bool {
        let session = key_of(&self.command).and_then(|key| hub.session_of(*key));
        session == Some(self.session)
    }
}

impl Parked {
    /// Whether anything is parked.
    pub(crate) fn any(&self) -> bool {
        !self.by_pid.is_empty()
    }

    /// Whether there is room for an errand. There is for every task: they hold what must not get lost,
    /// and whoever sends them bounds how many there are.
    pub(crate) fn has_room(&self, errand: &Errand) -> bool {
        match errand {
            Errand::Command { .. } => self.commands < limit::PARKED,
            Errand::Task { .. } => true,
        }
    }

    /// Keeps an errand until its socket has arrived.
    pub(crate) fn put(&mut self, pid: Sid, errand: Errand) {
        self.commands += usize::from(matches!(errand, Errand::Command { .. }));
        self.by_pid.entry(pid).or_default().push_back(errand);
    }

    /// What was parked for the socket of this pid, in order.
    pub(crate) fn take(&mut self, pid: Sid) -> VecDeque<Errand> {
        let taken = self.by_pid.remove(&pid).unwrap_or_default();
        self.commands -= taken.iter().filter(|it| matches!(it, Errand::Command { .. })).count();
        taken
    }

    /// The sockets that are not on their way any more, by pid.
    pub(crate) fn settled(&self, hub: &Hub) -> Vec<Sid> {
        let mut settled = Vec::new();
        for (pid, errands) in &self.by_pid {
            let first = errands.front().map(|errand| errand.whereabouts(hub));
            if first != Some(Whereabouts::Moving(*pid)) {
                settled.push(*pid);
            }
        }
        settled
    }
}

/// The socket a command is for, if it is for one.
pub(crate) fn key_of(command: &Command) -> Option<&SocketKey> {
    match command {
        Command::Accept { socket, .. }
        | Command::Claim { socket, .. }
        | Command::Refuse { socket, .. }
        | Command::Emit { socket, .. }
        | Command::Ack { socket, .. }
        | Command::Join { socket, .. }
        | Command::Leave { socket, .. }
        | Command::Disconnect { socket, .. }
        | Command::SetData { socket, .. }
        | Command::Expire { socket, .. } => Some(socket),
        Command::Broadcast(_) | Command::Send { .. } | Command::Close { .. } => None,
    }
}

/// The same, to be replaced.
pub(crate) fn key_of_mut(command: &mut Command) -> Option<&mut SocketKey> {
    match command {
        Command::Accept { socket, .. }
        | Command::Claim { socket, .. }
        | Command::Refuse { socket, .. }
        | Command::Emit { socket, .. }
        | Command::Ack { socket, .. }
        | Command::Join { socket, .. }
        | Command::Leave { socket, .. }
        | Command::Disconnect { socket, .. }
        | Command::SetData { socket, .. }
        | Command::Expire { socket, .. } => Some(socket),
        Command::Broadcast(_) | Command::Send { .. } | Command::Close { .. } => None,
    }
}
