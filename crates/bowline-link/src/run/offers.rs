//! One offer of a message to the bot, from the store to its outcome.

use std::{sync::Arc, time::Duration};

use bowline_store::{Inbox, Stage};
use tokio::time::timeout;

use super::{limit, queue::Waiting};
use crate::{
    bot::{Offer, Outcome, SharedDeliver},
    clock,
    far::{Message, SharedProfile},
};

/// What an offer needs.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    pub(super) link: Arc<str>,
    pub(super) inbox: Inbox,
    pub(super) profile: SharedProfile,
    pub(super) deliver: SharedDeliver,
    /// Whether the bot cannot get by itself what the service did not send.
    pub(super) fetches: bool,
    pub(super) confirm_timeout: Duration,
}

/// How an offer ended.
#[derive(Debug)]
pub(super) struct Offered {
    pub(super) room: String,
    pub(super) id: String,
    pub(super) confirm: bool,
    /// How often it was offered, this one included.
    pub(super) offers: u32,
    pub(super) fate: Fate,
}

#[derive(Debug)]
pub(super) enum Fate {
    /// The bot has said, or somebody for it.
    Said(Outcome),
    /// It took too long.
    Late,
    /// The service did not give its text.
    Unfetched(String),
    /// The store does not have it, or not any more: nothing was offered.
    Gone,
    /// The store could not write down that it is offered: nothing was.
    Unwritten,
}

impl Desk {
    pub(super) async fn offer(self, room: String, waiting: Waiting) -> Offered {
        let mut offered = Offered {
            room,
            id: waiting.id.clone(),
            confirm: waiting.confirm,
            offers: waiting.offers,
            fate: Fate::Gone,
        };
        offered.fate = self.fate(&mut offered.offers, &offered.room, waiting).await;
        offered
    }

    async fn fate(&self, offers: &mut u32, room: &str, waiting: Waiting) -> Fate {
        let body = match waiting.body {
            Some(body) => body,
            None => match self.stored(waiting.seq, &waiting.id).await {
                Some(body) => body,
                None => return Fate::Gone,
            },
        };
        let mut message = Message {
            id: waiting.id,
            own_id: true,
            room: room.to_owned(),
            receipt: waiting.receipt,
            confirm: waiting.confirm,
            body,
        };
        if self.fetches {
            match self.fetched(&mut message).await {
                Ok(()) => {}
                Err(words) => return Fate::Unfetched(words),
            }
        }
        if waiting.confirm {
            // Written down before it is handed over: whoever comes after a kill counts on from here.
            match self.step(&message.id, Stage::Offered).await {
                Some(0) => return Fate::Gone,
                Some(counted) => *offers = counted,
                None => return Fate::Unwritten,
            }
        }
        let attempt = (*offers).max(1);
        let offer = Offer { link: self.link.to_string(), message, attempt };
        match timeout(self.confirm_timeout, self.deliver.offer(offer)).await {
            Ok(outcome) => Fate::Said(outcome),
            Err(_) => Fate::Late,
        }
    }

    async fn stored(&self, seq: u64, id: &str) -> Option<bytes::Bytes> {
        let entries = self.inbox.waiting(&self.link, seq.saturating_sub(1), 1).await;
        let entry = entries.into_iter().next().filter(|entry| entry.arrival.id == id)?;
        Some(entry.arrival.body)
    }

    async fn fetched(&self, message: &mut Message) -> Result<(), String> {
        let body = match timeout(limit::FETCH, self.profile.fetch(message)).await {
            Ok(Ok(body)) => body,
            Ok(Err(words)) => return Err(words),
            Err(_) => return Err("fetching its text took too long".into()),
        };
        if body != message.body {
            message.body = body;
            self.step(&message.id, Stage::Fetched).await;
        }
        Ok(())
    }

    async fn step(&self, id: &str, stage: Stage) -> Option<u32> {
        self.inbox.step(&self.link, id, stage, clock::unix_ms(), "").await
    }
}
