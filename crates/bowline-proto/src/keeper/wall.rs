//! What crosses the wall between a keeper and the shell that carries it out.

use std::time::Duration;

use crate::Time;

/// One connection of a link to its service, numbered from 1 in the order of opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// One routing round trip that is under way, numbered from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeId(pub u64);

/// How far a connection was proved to work, and when. Each proves what those before it prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Bytes arrived.
    Tcp,
    /// The WebSocket's pong (RFC 6455 section 5.5.3), or the heartbeat of Engine.IO.
    Pong,
    /// The service's own acknowledgement of a ping of its protocol.
    Ack,
    /// A message to itself came back, or the service's echo: events are routed to this connection.
    Routing,
    /// The bot answered a message, or said that it has it.
    Handled,
}

impl Level {
    /// All of them, the lowest first.
    pub const ALL: [Self; 5] = [Self::Tcp, Self::Pong, Self::Ack, Self::Routing, Self::Handled];

    /// The word of metrics and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Pong => "pong",
            Self::Ack => "ack",
            Self::Routing => "routing",
            Self::Handled => "handled",
        }
    }
}

/// What happened. Of a connection that was given up nothing changes anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Keep the connection from now on: the token's lease is held.
    Start,
    /// Let go of it: everything is closed, and nothing opened until the next [`Input::Start`].
    Stop,
    /// What [`Output::Reserve`] asked for: the attempt may be made then.
    Slot {
        /// When.
        at: Time,
    },
    /// What [`Output::Open`] asked for is open: connected, authorised, joined.
    Opened {
        /// Which.
        connection: ConnectionId,
    },
    /// It could not be opened.
    OpenFailed {
        /// Which.
        connection: ConnectionId,
        /// Why.
        why: OpenFailure,
    },
    /// It has ended, and not because of [`Output::Close`].
    Closed {
        /// Which.
        connection: ConnectionId,
        /// What its end means, by the close codes of its protocol.
        verdict: Verdict,
        /// For logs and people.
        words: String,
    },
    /// Bytes, pongs or acks arrived.
    Heard {
        /// On which.
        connection: ConnectionId,
        /// What they prove: [`Level::Tcp`], [`Level::Pong`] or [`Level::Ack`].
        level: Level,
    },
    /// An event of the service arrived.
    Arrived {
        /// On which.
        connection: ConnectionId,
    },
    /// The service was asked ([`Output::Look`]) and had something that no connection has brought.
    Missed,
    /// A routing round trip came back.
    Probed {
        /// Which.
        probe: ProbeId,
        /// On which connection; another than it was meant for proves nothing.
        connection: ConnectionId,
    },
    /// It could not be begun: the HTTP leg failed, the service refused the message. Says nothing of the routing.
    NotProbed {
        /// Which.
        probe: ProbeId,
        /// Why.
        words: String,
    },
    /// The service said that this connection will end soon.
    Draining {
        /// Which.
        connection: ConnectionId,
    },
    /// A message was handed to the bot, which may want to answer it.
    HandedOver,
    /// Something is about to be sent to the service.
    Sending,
    /// The bot confirmed one, or answered it.
    Handled,
    /// The bot did neither in time.
    Unhandled,
    /// An operator wants a routing round trip now. [`Report::Probe`] tells how it went.
    Probe,
    /// An operator wants a new connection now, made before the old one is closed.
    Renew,
    /// A deadline that [`Keeper::deadline`](super::Keeper::deadline) named may have passed.
    Timeout,
}

/// Why a connection could not be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenFailure {
    /// What is to be done about it.
    pub verdict: Verdict,
    /// For logs and people: what was tried, what was answered.
    pub words: String,
    /// When the service said that one may try again.
    pub retry_after: Option<Duration>,
}

/// What the end of a connection, or a refusal of one, means for the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Try again, with backoff.
    Again,
    /// Try again, and not at this address: a new device, a new URL, a new look-up.
    Elsewhere,
    /// Another connection took this one's place: stand down for long, and say who might have.
    Replaced,
    /// The token is not accepted: only a person can mend that. Tried again seldom.
    Unauthorized,
    /// The service will not have us, for another reason. Tried again seldom.
    Refused,
}

/// What is to be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Ask the [budget](super::Budget) of the service's host for an attempt. [`Input::Slot`] answers. Pauses between
    /// attempts are over by then.
    Reserve,
    /// Open a connection. [`Input::Opened`] or [`Input::OpenFailed`] answers.
    Open {
        /// Its number.
        connection: ConnectionId,
        /// Nothing may be kept of where the last one went: look the name up again, register a new device.
        fresh_address: bool,
        /// Every pooled HTTP connection of this link is closed before.
        fresh_pool: bool,
        /// Given up when it takes longer.
        within: Duration,
    },
    /// Send a WebSocket ping. [`Input::Heard`] with [`Level::Pong`] answers.
    Ping {
        /// On which.
        connection: ConnectionId,
    },
    /// Send a ping of the service's own protocol. [`Input::Heard`] with [`Level::Ack`] answers.
    Ack {
        /// On which.
        connection: ConnectionId,
    },
    /// Begin a routing round trip. [`Input::Probed`] or [`Input::NotProbed`] answers, or nothing.
    Probe {
        /// On which.
        connection: ConnectionId,
        /// Its number.
        probe: ProbeId,
        /// The shell gives it up when it takes longer; the keeper does so by itself.
        within: Duration,
    },
    /// This is the connection to send on from now on. What arrives on an older one still counts.
    Use {
        /// Which.
        connection: ConnectionId,
    },
    /// Close it, or give up opening it: a goodbye, and a hard end when that takes longer than `within`. It is not heard
    /// of again. Of one that has ended by itself only what `discard` asks for is left to do.
    Close {
        /// Which.
        connection: ConnectionId,
        /// 2 s by default.
        within: Duration,
        /// Whether what belongs to it at the service (a device) is deleted: it is not used again.
        discard: bool,
    },
    /// Ask the service for what arrived since then: a connection was not routed to, or there was none, or its place was
    /// taken and nobody knows until when it was. Until that
    /// succeeded it is tried again by whoever carries this out: the keeper does not ask twice.
    CatchUp {
        /// When the last routing round trip that came back was begun. The service's clock may go otherwise.
        since: Time,
    },
    /// Ask the service whether there is anything since then that the connection should have brought and has not. What
    /// there is is taken in as with [`Output::CatchUp`], and [`Input::Missed`] tells of it; it is tried again likewise.
    Look {
        /// When the last look was begun, or the connection opened.
        since: Time,
    },
    /// Restart the service that the bot runs as: the last rung of the ladder.
    RestartService,
    /// Tell logs, metrics and alerts.
    Report(Report),
}

/// What the world is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The link changed its state.
    State {
        /// From now on.
        state: State,
        /// Why, for people.
        words: String,
    },
    /// How a routing round trip went; one for each [`Output::Probe`], and one for each [`Input::Probe`] that could not
    /// lead to one.
    Probe {
        /// Why it was made.
        cause: ProbeCause,
        /// How it ended.
        outcome: ProbeOutcome,
        /// How long it took.
        took: Duration,
    },
    /// A connection was made and proved, and took the place of the one before, if there was one.
    Renewed {
        /// Why.
        reason: Reason,
        /// From the wish to the close of the old one; to the proof where none was left to close.
        took: Duration,
    },
    /// A connection could not be made or proved; the old one stays if there is one that still works.
    NotRenewed {
        /// Why it was tried.
        reason: Reason,
        /// What went wrong.
        words: String,
    },
    /// A rung of the escalation ladder was reached.
    Escalated {
        /// Which.
        rung: Rung,
    },
}

/// The state of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Not kept: stopped, or the lease is somebody else's.
    Off,
    /// No connection: the next attempt waits for its time.
    Waiting,
    /// No connection yet: one is being opened.
    Connecting,
    /// It is open, and its first routing round trip is under way.
    Proving,
    /// Proved.
    Live,
    /// Open, and a level is overdue: it is being probed or replaced.
    Suspect,
    /// Another connection took this one's place; see [`Verdict::Replaced`].
    Replaced,
    /// The service refuses the token or us.
    Refused,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Off,
        Self::Waiting,
        Self::Connecting,
        Self::Proving,
        Self::Live,
        Self::Suspect,
        Self::Replaced,
        Self::Refused,
    ];

    /// The word of metrics and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Waiting => "waiting",
            Self::Connecting => "connecting",
            Self::Proving => "proving",
            Self::Live => "live",
            Self::Suspect => "suspect",
            Self::Replaced => "replaced",
            Self::Refused => "refused",
        }
    }
}

/// Why a routing round trip is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeCause {
    /// Before a connection is called live.
    Opened,
    /// Its time has come.
    Interval,
    /// Something arrives, or is about to be sent, after nothing has for long.
    Idle,
    /// The one before failed, or another level is overdue.
    Doubt,
    /// A look found what no connection has brought.
    Missed,
    /// The operator's wish.
    Asked,
}

impl ProbeCause {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Opened, Self::Interval, Self::Idle, Self::Doubt, Self::Missed, Self::Asked];

    /// The word of metrics and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Interval => "interval",
            Self::Idle => "idle",
            Self::Doubt => "doubt",
            Self::Missed => "missed",
            Self::Asked => "asked",
        }
    }
}

/// How a routing round trip ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// It came back.
    Ok,
    /// It did not come back in time: nothing is routed to this connection.
    Lost,
    /// It could not be begun; says nothing of the routing.
    NotMade(String),
    /// None can be made now, for this reason: the link is off, has no routing probe, or no connection.
    Impossible(String),
}

/// Why a connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// There was none before.
    First,
    /// The one before ended.
    Lost,
    /// Its pongs, or acks, did not come.
    Silent,
    /// It is as old as it may become.
    Age,
    /// The service said that it would end.
    Drain,
    /// A routing round trip was lost.
    Unrouted,
    /// The operator's wish.
    Asked,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::First,
        Self::Lost,
        Self::Silent,
        Self::Age,
        Self::Drain,
        Self::Unrouted,
        Self::Asked,
    ];

    /// The word of metrics and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Lost => "lost",
            Self::Silent => "silent",
            Self::Age => "age",
            Self::Drain => "drain",
            Self::Unrouted => "unrouted",
            Self::Asked => "asked",
        }
    }
}

/// The escalation ladder, the lowest rung first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    /// Try again.
    Retry,
    /// Look the address up again, register a new device.
    Address,
    /// Close every pooled HTTP connection.
    Pool,
    /// Restart the service that the bot runs as.
    Service,
}

impl Rung {
    /// All of them, the lowest first.
    pub const ALL: [Self; 4] = [Self::Retry, Self::Address, Self::Pool, Self::Service];

    /// The word of metrics and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Address => "address",
            Self::Pool => "pool",
            Self::Service => "service",
        }
    }
}
