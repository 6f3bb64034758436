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
    answer: oneshot::Receiver<Response>,
    over: bool,
}

impl Exchange {
    /// Makes an exchange with `shard`, and what the shard answers through. It must be told at
    /// once.
    pub(crate) fn new(local: &Local, shard: u8) -> (Self, oneshot::Sender<Response>) {
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
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Response> {
        Pin::new(&mut self.answer).poll(cx).map(|answer| {
            self.over = true;
            // Without an answer the shard has stopped.
            answer.unwrap_or(Response::Status(503))
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
