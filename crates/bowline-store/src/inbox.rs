//! Messages of links: stored before they are acknowledged, kept until the bot has confirmed them.

use bytes::Bytes;

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
    /// A message with this id has arrived on this link in the last 24 h.
    Seen,
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
    /// It was offered as often as it may be, and is kept for a person to look at.
    Parked,
}

impl Stage {
    /// The word of the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Arrived => "arrived",
            Self::Fetched => "fetched",
            Self::Offered => "offered",
            Self::Confirmed => "confirmed",
            Self::Replied => "replied",
            Self::Parked => "parked",
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
}
