//! The side of the service: what a profile offers, and one connection of it.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use bowline_proto::keeper::{Level, OpenFailure, Verdict};
use bytes::Bytes;
use tokio::{sync::mpsc, task::JoinSet};

/// A future that is kept in a box, for traits that are used as objects.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a connection may have waiting in each direction.
pub const QUEUE: usize = 256;

/// A kind of service, with the token of one link.
pub trait Profile: Send + Sync + fmt::Debug {
    /// Opens a connection, as far as the service routes events to it: connected, authorised, joined.
    fn open(&self, how: OpenHow) -> Boxed<'_, Result<Connection, OpenFailure>>;

    /// What has arrived at the service since then, oldest first, as far as it can be asked. The default knows nothing.
    fn catch_up(&self, _since_unix_ms: u64) -> Boxed<'_, Result<Vec<Message>, CatchUpFailure>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// The same, asked each minute in which nothing arrives, where [`Profile::can_look`]: what has to stay cheap may leave
    /// out what the next routing round trip brings to light. The default is [`Profile::catch_up`].
    fn look(&self, since_unix_ms: u64) -> Boxed<'_, Result<Vec<Message>, CatchUpFailure>> {
        self.catch_up(since_unix_ms)
    }

    /// Whether the service can be asked, beside a connection, for what that has not brought. By default it cannot.
    fn can_look(&self) -> bool {
        false
    }

    /// Deletes what a connection that is closed has at the service: its device. The default has nothing.
    fn discard(&self, _address: String) -> Boxed<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Gets what the bot needs to know of a message and the service did not send: its text. The default has all.
    fn fetch<'a>(&'a self, message: &'a Message) -> Boxed<'a, Result<Bytes, String>> {
        Box::pin(std::future::ready(Ok(message.body.clone())))
    }

    /// Whether [`Command::Probe`] leads to a routing round trip.
    fn can_probe(&self) -> bool;

    /// The host whose budget attempts are taken from.
    fn host(&self) -> String;

    /// Closes every pooled HTTP connection of this link.
    fn fresh_pool(&self) {}
}

/// Why the service did not say what was missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatchUpFailure {
    /// For logs and people.
    pub words: String,
    /// How long the service does not want to be asked again, if it says so.
    pub retry_after: Option<Duration>,
}

impl From<OpenFailure> for CatchUpFailure {
    fn from(OpenFailure { words, retry_after, .. }: OpenFailure) -> Self {
        Self { words, retry_after }
    }
}

/// How a connection is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenHow {
    /// Nothing may be kept of where the last one went.
    pub fresh_address: bool,
    /// The one before is open still: its device may not be used.
    pub beside_another: bool,
}

/// One connection to the service. Dropped, it ends at once and without a goodbye.
#[derive(Debug)]
pub struct Connection {
    /// What it is told.
    pub commands: mpsc::Sender<Command>,
    /// What happens on it; ends after [`Event::Closed`].
    pub events: mpsc::Receiver<Event>,
    /// What belongs to it at the service and is to be deleted when it is not used any more; for [`Profile::discard`].
    pub address: Option<String>,
    /// Its tasks.
    pub tasks: JoinSet<()>,
}

/// What a connection is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Send a WebSocket ping. [`Event::Heard`] with [`Level::Pong`] answers.
    Ping,
    /// Send a ping of the service's protocol. [`Event::Heard`] with [`Level::Ack`] answers.
    Ack,
    /// Begin a routing round trip with this word in it, which nobody else can guess. [`Event::Probed`] or
    /// [`Event::NotProbed`] answers. What it leaves at the service is removed again.
    Probe {
        /// The word.
        nonce: String,
    },
    /// Acknowledge a message to the service: it is stored.
    Acknowledge {
        /// [`Message::receipt`].
        receipt: String,
    },
    /// Send what the bot says.
    Send(Outgoing),
    /// The bot has confirmed this message, and its replies were sent before: for services that wait to hear it.
    /// [`Event::Written`] answers.
    Confirmed {
        /// [`Message::id`].
        id: String,
    },
    /// Say goodbye and close; a hard end after `within`.
    Close {
        /// How long it may take.
        within: Duration,
    },
}

/// What happens on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Bytes, pongs or acks arrived.
    Heard(Level),
    /// A message for the bot.
    Message(Message),
    /// Something that the bot should see and that is not stored: it is passed on as it is, or not at all.
    Passing(Bytes),
    /// A routing round trip came back.
    Probed {
        /// Its word.
        nonce: String,
    },
    /// It could not be begun.
    NotProbed {
        /// Its word.
        nonce: String,
        /// Why.
        words: String,
    },
    /// The answer to [`Outgoing::ask`].
    Answered {
        /// The number that was asked with.
        ask: u64,
        /// What was answered, or why there is nothing.
        answer: Result<Bytes, Unsaid>,
    },
    /// What was sent before [`Command::Confirmed`] outlives this process as far as a profile can know: it is with the
    /// system, or nobody can say.
    Written {
        /// The id of that command.
        id: String,
    },
    /// The service will end this connection soon.
    Draining,
    /// It has ended.
    Closed {
        /// What that means.
        verdict: Verdict,
        /// For logs and people.
        words: String,
    },
}

/// A message of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The service's id of it; the same on every connection and in every repetition.
    pub id: String,
    /// Whether the id is the service's own. One that was made here, of the content, tells repetitions apart only while
    /// two connections are open beside each other, and is made different afterwards.
    pub own_id: bool,
    /// What keeps its order; empty where there are no rooms.
    pub room: String,
    /// What [`Command::Acknowledge`] is to say to the service, if it wants that.
    pub receipt: Option<String>,
    /// Whether the bot is expected to confirm it. The bot's own messages, and what only informs, pass.
    pub confirm: bool,
    /// What is stored and offered to the bot. Its form is the profile's.
    pub body: Bytes,
}

/// What a bot sends to the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// In the form of the profile: a WebSocket message (`text` says of which kind), a JSON array of event and
    /// arguments, a JSON object for `POST /messages`.
    pub body: Bytes,
    /// Text or binary, where there are two kinds.
    pub text: bool,
    /// An answer is wanted: [`Event::Answered`] with this number.
    pub ask: Option<u64>,
    /// The message that this answers.
    pub reply_to: Option<String>,
}

/// Why there is no answer to what the bot said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsaid {
    /// It was not sent; for people.
    NotSent(String),
    /// It was sent, or may have been, and nobody knows whether it counts; for people.
    Unanswered(String),
}

impl Unsaid {
    /// Why.
    pub fn words(&self) -> &str {
        match self {
            Self::NotSent(words) | Self::Unanswered(words) => words,
        }
    }
}

impl From<String> for Unsaid {
    fn from(words: String) -> Self {
        Self::NotSent(words)
    }
}

impl From<&str> for Unsaid {
    fn from(words: &str) -> Self {
        Self::NotSent(words.to_owned())
    }
}

/// A profile that is shared.
pub type SharedProfile = Arc<dyn Profile>;
