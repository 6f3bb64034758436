//! Acks of all receivers of a broadcast, gathered over all shards.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bowline_proto::{
    Command, Sid,
    id::NumberHash,
    socketio::Args,
    wall::{self, AckError, AckRequest},
};
use tokio::sync::oneshot;

use crate::{
    handler::{Broadcast, Context, Handle, Wish},
    limit,
    mailbox::{Busy, Message},
};

/// What the receivers of a broadcast have answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gathered {
    /// How many sockets it was for.
    pub receivers: usize,
    /// The Socket.IO sids of those who acked, and the arguments of their acks, in order of arrival.
    pub acks: Vec<(Sid, Args)>,
    /// How many have not acked: they took too long, left, or owe too many acks already.
    pub missing: usize,
    /// How many acks came and are not in `acks`, because that were enough.
    pub left_out: usize,
}

/// One broadcast. What it has gathered goes out when the last shard has let go of it.
pub(crate) struct Gathering {
    /// How many acks are kept.
    max: usize,
    state: Mutex<State>,
}

struct State {
    gathered: Gathered,
    /// Bytes of the acks that are kept.
    bytes: usize,
    reply: Option<oneshot::Sender<Gathered>>,
}

/// The broadcasts for which one shard awaits acks, by token.
#[derive(Default)]
pub(crate) struct Shares(HashMap<u64, Share, NumberHash>);

struct Share {
    gathering: Arc<Gathering>,
    /// How many receivers this shard has, once it is known.
    receivers: Option<usize>,
    answered: usize,
}

impl Handle {
    /// Sends an event to many sockets, on all shards, and waits for their acks: until all have
    /// acked or gone, and for `timeout` at most. At most `max` acks are kept, and at most 16 MiB of
    /// them. It is sent when the future is polled first.
    ///
    /// # Errors
    ///
    /// [`Busy`], as [`Handle::broadcast`].
    pub async fn broadcast_with_acks(
        &self,
        broadcast: Broadcast,
        timeout: Duration,
        max: usize,
    ) -> Result<Gathered, Busy> {
        let (reply, gathered) = oneshot::channel();
        let state = State { gathered: Gathered::default(), bytes: 0, reply: Some(reply) };
        let gathering = Arc::new(Gathering { max, state: Mutex::new(state) });
        self.to_all(|origin| {
            let (mut broadcast, gathering) = (broadcast.clone(), Arc::clone(&gathering));
            broadcast.0.origin = Some(origin);
            Message::Task(Box::new(move |cx| cx.gather(broadcast, timeout, gathering)))
        })?;
        drop(gathering);
        gathered.await.map_err(|_| Busy)
    }
}

impl Context<'_> {
    /// Does this shard's share of a broadcast.
    fn gather(&mut self, broadcast: Broadcast, timeout: Duration, gathering: Arc<Gathering>) {
        let token = self.desk.token(self.shard);
        let share = Share { gathering, receivers: None, answered: 0 };
        self.desk.shares.0.insert(token, share);
        let broadcast = wall::Broadcast {
            report: Some(token),
            ack: Some(Box::new(AckRequest { token, timeout })),
            forwarded: true,
            ..broadcast.0
        };
        self.desk.wishes.push_back(Wish::Here(Command::Broadcast(broadcast)));
    }
}

impl Shares {
    /// The hub has said how many receivers a broadcast has on this shard.
    pub(crate) fn on_reached(&mut self, token: u64, receivers: usize) {
        if let Some(share) = self.0.get_mut(&token) {
            share.receivers = Some(receivers);
            share.gathering.change(|state| state.gathered.receivers += receivers);
        }
        self.drop_if_whole(token);
    }

    /// One of the receivers has acked, or will not any more.
    pub(crate) fn on_answer(&mut self, token: u64, id: Sid, result: Result<Args, AckError>) {
        if let Some(share) = self.0.get_mut(&token) {
            share.answered += 1;
            if let Ok(args) = result {
                share.gathering.keep(id, args);
            }
        }
        self.drop_if_whole(token);
    }

    fn drop_if_whole(&mut self, token: u64) {
        if self.0.get(&token).is_some_and(|share| share.receivers == Some(share.answered)) {
            self.0.remove(&token);
        }
    }
}

impl Gathering {
    fn keep(&self, id: Sid, args: Args) {
        let max = self.max;
        self.change(|state| {
            let bytes = state.bytes + args.bytes();
            if state.gathered.acks.len() < max && bytes <= limit::GATHERED_BYTES {
                state.bytes = bytes;
                state.gathered.acks.push((id, args));
            } else {
                state.gathered.left_out += 1;
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut gathered = mem::take(&mut state.gathered);
        gathered.missing = gathered.receivers - gathered.acks.len() - gathered.left_out;
        if let Some(reply) = state.reply.take() {
            // Whoever asked may be gone.
            let _ = reply.send(gathered);
        }
    }
}
