//! One HTTP request at the shard that owns its session.

use std::{
    pin::Pin,
    task::{Context as TaskContext, Poll},
};

use bowline_proto::{ExchangeId, wall::Response};
use tokio::sync::oneshot;

use crate::{accept::Local, mailbox::Message};

/// Waits for a shard's answer. Dropped before it came, it tells the shard that nobody waits any
/// more.
pub(crate) struct Exchange {
    id: ExchangeId,
    shard: u8,
    local: Local,
    answer: oneshot::Receiver<Reply>,
    over: bool,
}

/// What a shard answers.
#[derive(Debug)]
pub(crate) enum Reply {
    /// From a session that goes on, or before a stop has begun.
    Live(Response),
    /// In a stop, from a session that is over, or from none: there is nothing to come back for.
    Last(Response),
    /// As many sessions are open as may be.
    Full,
}

impl Exchange {
    /// Makes an exchange with `shard`, and what the shard answers through. It must be told at
    /// once.
    pub(crate) fn new(local: &Local, shard: u8) -> (Self, oneshot::Sender<Reply>) {
        let (reply, answer) = oneshot::channel();
        let id = local.next_exchange();
        (Self { id, shard, local: local.clone(), answer, over: false }, reply)
    }

    pub(crate) fn id(&self) -> ExchangeId {
        self.id
    }

    pub(crate) fn tell(&self, message: Message) {
        self.local.process().shards[usize::from(self.shard)].mailbox.push(message);
    }
}

impl Future for Exchange {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Reply> {
        Pin::new(&mut self.answer).poll(cx).map(|answer| {
            self.over = true;
            // Without an answer the shard has stopped.
            answer.unwrap_or(Reply::Last(Response::Status(503)))
        })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.over {
            self.tell(Message::Aborted(self.id));
        }
    }
}
