//! The HTTP that a link needs beside its connection: which request goes on which pooled connection.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::Time;

/// One HTTP connection, numbered from 1. Never used again within a [`Leg`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LegId(pub u64);

/// How HTTP connections are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegConfig {
    /// A connection that was idle for so long is closed. Default 60 s, well below the 350 s after which common
    /// gateways forget one without telling anybody.
    pub idle_max: Duration,
    /// A request that is not safe goes only on a connection that has answered within this time. Default 1 s.
    pub sure_within: Duration,
    /// How long the head of the answer to a safe request may take on a connection that was used before. Default 5 s.
    pub reused_head_timeout: Duration,
    /// Idle connections that are kept; the one that was idle longest goes. Default 16.
    pub idle_connections_max: usize,
}

impl Default for LegConfig {
    fn default() -> Self {
        Self {
            idle_max: Duration::from_secs(60),
            sure_within: Duration::from_secs(1),
            reused_head_timeout: Duration::from_secs(5),
            idle_connections_max: 16,
        }
    }
}

/// Whether a request may be sent twice (RFC 9110 section 9.2.1: GET, HEAD, OPTIONS).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Safety {
    /// It changes nothing.
    Safe,
    /// It does, or may.
    Unsafe,
}

/// What a request goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// A connection that was used before.
    Pooled {
        /// Which.
        connection: LegId,
        /// The head of the answer has to be there within this time; `None`: as on a new one.
        head_within: Option<Duration>,
    },
    /// A new one.
    Fresh {
        /// The number it gets.
        connection: LegId,
    },
}

/// How far a request had come when its connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answered {
    /// Nothing of it was sent.
    Unsent,
    /// Some of it, or all, and nothing was answered in time.
    Not,
    /// The answer had begun.
    Begun,
}

/// What becomes of a request whose connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It is sent once more, on this new connection.
    Fresh {
        /// The number it gets.
        connection: LegId,
    },
    /// Whoever sent it is told of the failure.
    No,
}

/// The policy of a pool. It holds no connections: whoever does asks it, and closes those that
/// [`Leg::poll_close`] names after each call.
///
/// A gateway or a firewall may drop a connection that is idle without telling either end. What is then sent on it is
/// lost, and noticed late. So idle connections are few and young, a request that must not be sent twice goes only where
/// an answer has just come from, and one that may be is sent again on a new connection, once.
#[derive(Debug)]
pub struct Leg {
    config: LegConfig,
    last: u64,
    /// Up to this number none is used for another request.
    stale: u64,
    /// Connections with a request under way.
    busy: BTreeMap<LegId, Busy>,
    /// The others, the one that was idle longest first.
    idle: VecDeque<Idle>,
    close: VecDeque<LegId>,
}

#[derive(Debug)]
struct Busy {
    origin: String,
    safety: Safety,
    use_: Use,
}

/// How a connection came to its request.
#[derive(Debug, Clone, Copy)]
enum Use {
    /// It was made for it.
    Fresh,
    /// It was made for it after another one had failed.
    Retry,
    /// It was idle since then.
    Pooled { since: Time },
}

#[derive(Debug)]
struct Idle {
    connection: LegId,
    origin: String,
    since: Time,
}

impl Leg {
    /// An empty pool.
    pub fn new(config: LegConfig) -> Self {
        Self {
            config,
            last: 0,
            stale: 0,
            busy: BTreeMap::new(),
            idle: VecDeque::new(),
            close: VecDeque::new(),
        }
    }

    /// Chooses the connection for a request to this origin (`https://host:port`, and the proxy where there are
    /// several): the youngest idle one that is good enough, else a new one.
    pub fn take(&mut self, now: Time, origin: &str, safety: Safety) -> Take {
        self.expire(now);
        let newest_of_origin = self.idle.iter().rposition(|idle| idle.origin == origin);
        let is_sure = |idle: &Idle| match safety {
            Safety::Safe => true,
            Safety::Unsafe if cfg!(bowline_broken = "unsafe-on-pooled") => true,
            Safety::Unsafe => now.since(idle.since) <= self.config.sure_within,
        };
        let pooled = newest_of_origin.filter(|place| self.idle.get(*place).is_some_and(is_sure));
        let Some(Idle { connection, origin, since }) =
            pooled.and_then(|place| self.idle.remove(place))
        else {
            return Take::Fresh { connection: self.fresh(origin.to_owned(), safety, Use::Fresh) };
        };
        self.busy.insert(connection, Busy { origin, safety, use_: Use::Pooled { since } });
        let head_within = match safety {
            Safety::Safe => Some(self.config.reused_head_timeout),
            Safety::Unsafe => None,
        };
        Take::Pooled { connection, head_within }
    }

    /// The answer is complete, and the connection could take another request.
    pub fn give_back(&mut self, now: Time, connection: LegId) {
        self.expire(now);
        let Some(Busy { origin, .. }) = self.busy.remove(&connection) else { return };
        if connection.0 <= self.stale {
            self.close.push_back(connection);
            return;
        }
        self.idle.push_back(Idle { connection, origin, since: now });
        while self.idle.len() > self.config.idle_connections_max {
            self.close.extend(self.idle.pop_front().map(|idle| idle.connection));
        }
    }

    /// The connection failed under its request, or the head of the answer did not come within
    /// [`Take::Pooled::head_within`]; it is closed. Says whether the request is sent again.
    pub fn failed(&mut self, now: Time, connection: LegId, answered: Answered) -> Retry {
        self.expire(now);
        let Some(Busy { origin, safety, use_ }) = self.busy.remove(&connection) else {
            return Retry::No;
        };
        let Use::Pooled { since } = use_ else { return Retry::No };
        if answered == Answered::Begun {
            return Retry::No;
        }
        // Whatever took this one away while it was idle had as much time to take those.
        while let Some(idle) = self.idle.pop_front_if(|idle| idle.since <= since) {
            self.close.push_back(idle.connection);
        }
        match (safety, answered) {
            (Safety::Safe, _) | (Safety::Unsafe, Answered::Unsent) => {
                Retry::Fresh { connection: self.fresh(origin, safety, Use::Retry) }
            }
            (Safety::Unsafe, Answered::Not | Answered::Begun) => Retry::No,
        }
    }

    /// The connection has ended: after an answer that was its last, or while it was idle.
    pub fn ended(&mut self, connection: LegId) {
        self.busy.remove(&connection);
        self.idle.retain(|idle| idle.connection != connection);
    }

    /// No connection that is there now takes another request: those that are idle are closed, the others later.
    pub fn fresh_pool(&mut self) {
        self.close.extend(self.idle.drain(..).map(|idle| idle.connection));
        self.stale = self.last;
    }

    /// Lets go of what was idle for too long.
    pub fn expire(&mut self, now: Time) {
        let idle_max = self.config.idle_max;
        while let Some(idle) = self.idle.pop_front_if(|idle| idle.since + idle_max <= now) {
            self.close.push_back(idle.connection);
        }
    }

    /// When [`Leg::expire`] has something to do.
    pub fn deadline(&self) -> Option<Time> {
        self.idle.front().map(|idle| idle.since + self.config.idle_max)
    }

    /// An idle connection to close.
    pub fn poll_close(&mut self) -> Option<LegId> {
        self.close.pop_front()
    }

    /// How many are idle.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    fn fresh(&mut self, origin: String, safety: Safety, use_: Use) -> LegId {
        self.last += 1;
        let connection = LegId(self.last);
        self.busy.insert(connection, Busy { origin, safety, use_ });
        connection
    }
}
