//! Messages of links: stored before they are acknowledged, kept until the bot has confirmed them.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::{
    Store,
    writer::{Answer, Ask},
};

/// A message as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The link's name.
    pub link: String,
    /// The service's own id of the message; unique within the link.
    pub id: String,
    /// What keeps its order: messages of one room are offered one after the other. Empty where there are no rooms.
    pub room: String,
    /// When it arrived, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// What is offered to the bot; made and read by the link's profile.
    pub body: Bytes,
}

/// What became of an arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is new and stored.
    New {
        /// Its place in the order of arrival, over all links.
        seq: u64,
    },
    /// A message with this id is there already: it waits, is parked, or was confirmed at most 24 h ago, or little more.
    Seen,
    /// It is not stored, and must not be acknowledged: the store has degraded to memory, and that is full, or the link's
    /// part of it; or it is closed. [`Store::health`] says more.
    Refused,
}

/// How far a message has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// It is stored.
    Arrived,
    /// Its text was fetched from the service.
    Fetched,
    /// It was handed to the bot.
    Offered,
    /// The bot's side has confirmed it: it is not offered again.
    Confirmed,
    /// The bot has sent an answer.
    Replied,
    /// It was offered as often as it may be, or was refused, and is kept for a person to look at.
    Parked,
    /// A person wants it to be offered again after it was parked.
    Retried,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Arrived,
        Self::Fetched,
        Self::Offered,
        Self::Confirmed,
        Self::Replied,
        Self::Parked,
        Self::Retried,
    ];

    /// The word of the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Arrived => "arrived",
            Self::Fetched => "fetched",
            Self::Offered => "offered",
            Self::Confirmed => "confirmed",
            Self::Replied => "replied",
            Self::Parked => "parked",
            Self::Retried => "retried",
        }
    }
}

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the order of arrival.
    pub seq: u64,
    /// How often it was offered.
    pub offers: u32,
    /// The message.
    pub arrival: Arrival,
}

/// A message that was parked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// The service's own id of the message.
    pub id: String,
    /// Its room; empty where there are none.
    pub room: String,
    /// Since when it is parked, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// How often it was offered.
    pub offers: u32,
    /// Why it was parked, for people; empty if that is not known any more.
    pub words: String,
}

/// One line of the trace of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The link.
    pub link: String,
    /// What happened.
    pub stage: Stage,
    /// When, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// More about it, for people; may be empty.
    pub words: String,
}

/// What a link has in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Neither confirmed nor parked.
    pub waiting: u64,
    /// Parked.
    pub parked: u64,
    /// When the oldest that waits arrived, in milliseconds since 1970.
    pub oldest_unix_ms: Option<u64>,
    /// The bytes of the bodies of what waits.
    pub waiting_bytes: u64,
}

/// What is left of a link that is not configured any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// The link's name.
    pub link: String,
    /// What it has.
    pub counts: Counts,
    /// Since when it is gone, in milliseconds since 1970; as long as it has messages.
    pub since_unix_ms: u64,
    /// When what waits is deleted unless the link is back by then: 7 days later.
    pub until_unix_ms: u64,
}

/// The messages of all links, and small facts of each. Cheap to clone.
///
/// Every future is ready when what it did is committed: that outlives a kill of the process. On disk, a message that was
/// put outlives a loss of power as well; of its steps and of facts that may take the last few away, and the message is
/// then offered once more. Dropped before it is ready, a future may or may not have done what it is for.
#[derive(Debug, Clone)]
pub struct Inbox {
    store: Store,
}

impl Inbox {
    pub(crate) fn of(store: Store) -> Self {
        Self { store }
    }

    /// Stores a message, if it is new.
    pub async fn put(&self, arrival: Arrival) -> Put {
        match self.store.ask(Ask::Put(arrival)).await {
            Some(Answer::Put(put)) => put,
            _ => Put::Refused,
        }
    }

    /// What waits of a link behind `after_seq`, in the order of arrival: at most `limit`, and as many as 8 MiB of bodies
    /// hold, but always one if there is one. Parked messages do not wait.
    ///
    /// Asked from 0 it counts the link anew: another process may have had it until now. After
    /// [`Health::changes`](crate::Health) has grown, messages may wait before a place that was already read.
    pub async fn waiting(&self, link: &str, after_seq: u64, limit: usize) -> Vec<Entry> {
        match self.store.ask(Ask::Waiting { link: link.to_owned(), after_seq, limit }).await {
            Some(Answer::Waiting(entries)) => entries,
            _ => Vec::new(),
        }
    }

    /// Writes down how far a message has come, and tells how often it was offered so far, [`Stage::Offered`] counting
    /// one more. 0 for a message that is not there, or is to be offered and does not wait any more. `None`: it could not
    /// be written down, and says nothing of the message.
    ///
    /// `Confirmed` ends its waiting and forgets its body; `Parked` ends its waiting and keeps it. Words are cut at 500
    /// bytes, and a message has at most 64 steps.
    pub async fn step(
        &self,
        link: &str,
        id: &str,
        stage: Stage,
        at_unix_ms: u64,
        words: &str,
    ) -> Option<u32> {
        let (link, id, words) = (link.to_owned(), id.to_owned(), words.to_owned());
        match self.store.ask(Ask::Step { link, id, stage, at_unix_ms, words }).await {
            Some(Answer::Step { offers, .. }) => Some(offers),
            _ => None,
        }
    }

    /// What became of the messages with this id, on whichever link, oldest first; nothing for one that is not known, or
    /// was confirmed more than 24 h ago.
    pub async fn trace(&self, id: &str) -> Vec<Step> {
        match self.store.ask(Ask::Trace { id: id.to_owned() }).await {
            Some(Answer::Trace(steps)) => steps,
            _ => Vec::new(),
        }
    }

    /// What a link has, as of the last commit. Costs nothing.
    pub fn counts(&self, link: &str) -> Counts {
        self.store.shared().counts(link)
    }

    /// How many more messages a link may have waiting, as of the last commit, if all links together may have `max`. Half
    /// of that is cut into equal parts, one for each link, and the rest goes to whoever comes first: so no link can take
    /// the place of all others. Links that are gone take none. Costs nothing.
    pub fn room(&self, link: &str, max: u64) -> u64 {
        self.store.shared().room(link, max, |_, counts| counts.waiting)
    }

    /// Tells which links there are. What others have is kept for 7 days, and waits again if its link is back by then.
    pub fn set_links(&self, links: BTreeSet<String>) {
        self.store.set_links(links);
    }

    /// What is left of links that are not configured any more, by name; nothing as long as nobody has told which links
    /// there are. Costs nothing.
    pub fn gone(&self) -> Vec<Gone> {
        self.store.shared().gone()
    }

    /// What is parked of a link, what has been so for longest first; at most `limit`.
    pub async fn parked(&self, link: &str, limit: usize) -> Vec<Parked> {
        match self.store.ask(Ask::Parked { link: link.to_owned(), limit }).await {
            Some(Answer::Parked(parked)) => parked,
            _ => Vec::new(),
        }
    }

    /// Has what is parked of a link wait again as if it had never been offered, all of it or the message with this id,
    /// and tells how many. `None`: it could not be done, or not for all.
    pub async fn offer_again(&self, link: &str, id: Option<&str>, now_unix_ms: u64) -> Option<u64> {
        let mut all = 0;
        // What is parked anew meanwhile is not meant.
        let parked = self.counts(link).parked;
        let mut left = if id.is_some() { parked.min(1) } else { parked };
        while left > 0 {
            let (link, id) = (link.to_owned(), id.map(str::to_owned));
            let ask = Ask::OfferAgain { link, id, limit: left, now_unix_ms };
            match self.store.ask(ask).await {
                Some(Answer::OfferedAgain(0)) => break,
                Some(Answer::OfferedAgain(count)) => {
                    all += count;
                    left = left.saturating_sub(count);
                }
                _ => return None,
            }
        }
        Some(all)
    }

    /// Lets everything go that waits or is parked of a link that is gone, and tells how many. Their ids are known for 24
    /// more hours, so that the service does not bring them again. Nothing for a link that is configured.
    pub async fn let_go(&self, link: &str, now_unix_ms: u64) -> u64 {
        let mut all = 0;
        while self.gone().iter().any(|gone| gone.link == link)
            && let Some(Answer::LetGo(count @ 1..)) =
                self.store.ask(Ask::LetGo { link: link.to_owned(), now_unix_ms }).await
        {
            all += count;
        }
        all
    }

    /// Deletes what was confirmed more than 24 h or parked more than 7 days ago, and what waits of links that have been
    /// gone for 7 days, and tells how many. The store does so by itself every ten minutes.
    pub async fn sweep(&self, now_unix_ms: u64) -> u64 {
        let mut all = 0;
        while let Some(Answer::Swept(swept @ 1..)) =
            self.store.ask(Ask::Sweep { now_unix_ms, clock_unix_ms: now_unix_ms }).await
        {
            all += swept;
        }
        all
    }

    /// A small fact of a link: its probe space, its device.
    pub async fn get(&self, link: &str, key: &str) -> Option<String> {
        match self.store.ask(Ask::Get { link: link.to_owned(), key: key.to_owned() }).await {
            Some(Answer::Fact(value)) => value,
            _ => None,
        }
    }

    /// Remembers a small fact of a link, or forgets it.
    pub async fn set(&self, link: &str, key: &str, value: Option<&str>) {
        let (link, key, value) = (link.to_owned(), key.to_owned(), value.map(str::to_owned));
        // Without an answer the store is closed: then it is not remembered, as its health says.
        self.store.ask(Ask::Set { link, key, value }).await;
    }
}
