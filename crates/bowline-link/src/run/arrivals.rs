//! Stores what has arrived, in the order of arrival, many in one commit.

use std::{future::poll_fn, pin::pin, task::Poll};

use bowline_proto::keeper::ConnectionId;
use bowline_store::{Arrival, Inbox, Put};
use tokio::sync::mpsc;

use super::limit;
use crate::{clock, far::Message};

/// A message that is to be stored.
#[derive(Debug)]
pub(super) struct Arrived {
    /// The connection that brought it; none if the service was asked for it.
    pub(super) connection: Option<ConnectionId>,
    /// The message, with an id that is its own.
    pub(super) message: Message,
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) arrived: Arrived,
    /// `None`: as many of this link wait as may.
    pub(super) put: Option<Put>,
}

/// Does so until nobody asks any more.
pub(super) async fn store(
    link: String,
    inbox: Inbox,
    waiting_max: u64,
    mut arrivals: mpsc::Receiver<Arrived>,
    stored: mpsc::Sender<Stored>,
) {
    let mut batch = Vec::with_capacity(limit::BATCH);
    while arrivals.recv_many(&mut batch, limit::BATCH).await > 0 {
        let mut puts = Vec::with_capacity(batch.len());
        // In waves: what was seen before takes no place.
        while let Some(rest @ [_, ..]) = batch.get(puts.len()..) {
            let wave = usize::try_from(inbox.room(&link, waiting_max))
                .unwrap_or(usize::MAX)
                .min(rest.len());
            if wave == 0 {
                break;
            }
            puts.extend(all(rest[..wave].iter().map(|arrived| put(&link, &inbox, arrived))).await);
        }
        let puts = puts.into_iter().map(Some).chain(std::iter::repeat(None));
        for (arrived, put) in batch.drain(..).zip(puts) {
            if stored.send(Stored { arrived, put }).await.is_err() {
                return;
            }
        }
    }
}

async fn put(link: &str, inbox: &Inbox, arrived: &Arrived) -> Put {
    let message = &arrived.message;
    inbox
        .put(Arrival {
            link: link.to_owned(),
            id: message.id.clone(),
            room: message.room.clone(),
            at_unix_ms: clock::unix_ms(),
            body: message.body.clone(),
        })
        .await
}

/// Waits for all of them at once, so that they are committed together. They begin in their order.
async fn all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    let mut polled = pin!(poll_fn(move |cx| {
        for (future, answer) in &mut futures {
            if answer.is_none()
                && let Poll::Ready(ready) = future.as_mut().poll(cx)
            {
                *answer = Some(ready);
            }
        }
        if futures.iter().all(|(_, answer)| answer.is_some()) {
            Poll::Ready(futures.iter_mut().filter_map(|(_, answer)| answer.take()).collect())
        } else {
            Poll::Pending
        }
    }));
    polled.as_mut().await
}
