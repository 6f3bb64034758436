//! The side of the bot: how a message is handed to it, and what it says.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::far::{Boxed, Message, Outgoing, Unsaid};

/// How a link's messages reach its bot. Implemented by `local` (unmodified bots), and by the leaf for apps behind HTTP
/// and for namespaces.
pub trait Deliver: Send + Sync + fmt::Debug {
    /// Offers a message. The future ends when the bot has confirmed it, or when it is known that it will not; the
    /// caller has a deadline and drops it. The same message may be offered again, with the same id.
    fn offer(&self, offer: Offer) -> Boxed<'_, Outcome>;

    /// Waits until somebody is there to offer messages to.
    fn ready(&self) -> Boxed<'_, ()>;

    /// Whether somebody is there now, in words for `bowline link show`.
    fn presence(&self) -> Presence;

    /// Passes something on that is not a message ([`far::Event::Passing`](crate::far::Event)), as far as somebody is
    /// there; must not wait. The default drops it.
    fn pass(&self, _body: &Bytes) {}
}

/// A message on its way to the bot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The link.
    pub link: String,
    /// The message. `body` is what [`Profile::fetch`](crate::far::Profile::fetch) made of it.
    pub message: Message,
    /// The how-manieth offer this is, from 1.
    pub attempt: u32,
}

/// What became of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The bot has it. It need not be offered again.
    Confirmed {
        /// What it says to the service at once.
        replies: Vec<Outgoing>,
    },
    /// Nobody took it: it is offered again when somebody is there.
    Absent,
    /// It was handed over and not confirmed: it is offered again after a pause.
    Unconfirmed(String),
    /// It was handed over to a connection of the bot that ended before it was confirmed: as `Unconfirmed`, but all that
    /// one connection loses counts as one failure of the bot.
    Lost(String),
    /// The bot does not want it, now or ever: it is parked.
    Refused(String),
}

/// Who is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Connections of the bot; 1 for an app behind HTTP that answers.
    pub connections: usize,
    /// For people: `1 bot over the proxy for 3h`.
    pub words: String,
}

/// What a bot says to its link.
#[derive(Debug)]
pub enum Said {
    /// Send this to the service. The answer says that it went out, or carries what was asked for.
    Send {
        /// What.
        outgoing: Outgoing,
        /// Who waits.
        done: oneshot::Sender<Result<Bytes, Unsaid>>,
    },
    /// It was seen to get the text of a message over HTTP: for the trace.
    Fetched {
        /// The message.
        id: String,
    },
    /// It was seen to answer a message over HTTP: for the trace and the level `handled`.
    Replied {
        /// The message, if it is known which.
        id: Option<String>,
    },
}

/// Where a bot says it.
pub type Mouth = mpsc::Sender<Said>;

/// A way to the bot that is shared.
pub type SharedDeliver = Arc<dyn Deliver>;
