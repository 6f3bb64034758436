//! What a hub is told at its start, and when it changes.

use std::time::Duration;

use bytestring::ByteString;

use super::EventIdPath;
use crate::{
    limit::{self, Limits},
    wall::HandlerId,
};

/// What runs on top of the Engine.IO sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Socket.IO: namespaces, rooms, events, acks.
    SocketIo,
    /// Nothing: bare messages go to this handler.
    EngineIo(HandlerId),
}

/// The configuration of one hub, that is, of one shard.
#[derive(Debug, Clone)]
pub struct Config {
    /// Default Socket.IO.
    pub protocol: Protocol,
    /// How many shards the process has; with more than one, broadcasts are forwarded. Default 1.
    pub shards: u8,
    /// `engine.ping-interval`. Default 25 s.
    pub ping_interval: Duration,
    /// `engine.ping-timeout`. Default 20 s.
    pub ping_timeout: Duration,
    /// `engine.upgrade-timeout`. Default 10 s.
    pub upgrade_timeout: Duration,
    /// `engine.connect-timeout`: how long a session may go without a namespace. Default 45 s.
    pub connect_timeout: Duration,
    /// Whether the open packet of a polling session offers an upgrade to WebSocket. Default true.
    pub upgrades: bool,
    /// `engine.allow-eio3`. Default true.
    pub allow_eio3: bool,
    /// Whether a [`Handshake`](crate::wall::Handshake) is kept for the life of its session, for
    /// handlers that read headers in every namespace. Default false: an idle session holds none.
    pub keep_headers: bool,
    /// What one session may hold or do.
    pub limits: Limits,
    /// How sessions outlive their transports.
    pub continuity: Continuity,
    /// Which namespaces there are. The first rule that matches a name is the one.
    pub namespaces: Vec<NamespaceRule>,
}

/// How sessions outlive their transports: `[continuity]`, and what the shards of a process share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuity {
    /// The index of this shard.
    pub shard: u8,
    /// What the offsets of this log begin with. Drawn by the shell for a new log, taken from the
    /// file with a saved one.
    pub epoch: u32,
    /// With which names are made into pids; the same on all shards, and saved with the log.
    pub key: [u8; 16],
    /// The number of the last record that the saved log had. Zero for a new log.
    pub head: u64,
    /// Whether an [`Input::Restore`](crate::Input::Restore) will come. CONNECTs with a pid wait for it.
    pub loading: bool,
    /// `continuity.window`: how long a client may stay away. Default 2 min.
    pub window: Duration,
    /// What this shard's log may take: its share of `continuity.max-bytes`. Default 256 MB.
    pub log_bytes: usize,
    /// How many sockets of this shard may be away: its share of `continuity.max-away`. Default
    /// 100,000.
    pub away_max: usize,
}

impl Default for Continuity {
    fn default() -> Self {
        Self {
            shard: 0,
            epoch: 0,
            key: [0; 16],
            head: 0,
            loading: false,
            window: Duration::from_secs(120),
            log_bytes: 256_000_000,
            away_max: 100_000,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            protocol: Protocol::SocketIo,
            shards: 1,
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            upgrade_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(45),
            upgrades: true,
            allow_eio3: true,
            keep_headers: false,
            limits: Limits::default(),
            continuity: Continuity::default(),
            namespaces: Vec::new(),
        }
    }
}

impl Config {
    /// Whether some namespace names its clients by a cookie, so that headers are kept until the last
    /// of them has been joined.
    pub(super) fn names_by_cookie(&self) -> bool {
        let by_cookie = |source: &SessionKeySource| matches!(source, SessionKeySource::Cookie(_));
        self.namespaces.iter().any(|rule| rule.keeping.session_key.as_ref().is_some_and(by_cookie))
    }

    /// Whether clients of some namespace name their events.
    pub(super) fn names_events(&self) -> bool {
        self.namespaces.iter().any(|rule| rule.keeping.event_id.is_some())
    }

    /// The first rule that a namespace falls under.
    pub(super) fn rule_for(&self, name: &str) -> Option<&NamespaceRule> {
        if name.len() > limit::NAMESPACE_NAME_BYTES {
            return None;
        }
        self.namespaces.iter().find(|rule| rule.pattern.matches(name))
    }
}

/// A namespace, or a family of them, and who handles it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceRule {
    /// The names it is for.
    pub pattern: NamespacePattern,
    /// Who handles them.
    pub handler: HandlerId,
    /// Who of them is kept over the end of a transport, and how.
    pub keeping: Keeping,
}

/// How a namespace keeps its sockets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keeping {
    /// `stamp`: who gets offsets and a pid.
    pub stamp: Stamp,
    /// `on-doubt`: what becomes of events that a client without offsets may have or may not have.
    pub on_doubt: OnDoubt,
    /// `event-id`: where clients put an id into their events, so that none is handled twice.
    pub event_id: Option<EventIdPath>,
    /// `session-key`: what names the sockets of clients that get no pid.
    pub session_key: Option<SessionKeySource>,
}

/// `stamp`: who gets an offset as an extra last argument of each event, and a pid to come back with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stamp {
    /// Browsers, and clients that ask for it: with a `pid`, or `recovery: true` in their auth.
    #[default]
    Auto,
    /// Every client but those of EIO 3.
    Always,
    /// Nobody.
    Never,
}

/// `on-doubt`: what becomes of events that were sent, and whose arrival nothing proves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnDoubt {
    /// They are sent again: at least once.
    #[default]
    Repeat,
    /// They are not: at most once.
    Skip,
}

/// `session-key`: where the name of a client stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionKeySource {
    /// In the cookie of this name.
    Cookie(ByteString),
    /// In a claim of its token: [`Command::Claim`](crate::Command::Claim) says it.
    Claim,
}

/// The name of a namespace, in which each `*` stands for any run of characters but `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NamespacePattern(ByteString);

impl NamespacePattern {
    /// Reads a pattern. The leading slash may be left out, as in Socket.IO.
    pub fn new(pattern: &str) -> Self {
        if pattern.starts_with('/') {
            Self(pattern.into())
        } else {
            Self(format!("/{pattern}").into())
        }
    }

    /// Whether `name` is this namespace or one of the family.
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            return rest.is_empty();
        };
        let gap_fits = |gap: &str| !gap.contains('/');
        // Each middle part is taken where it first occurs: leaving the most to the parts after it
        // can only help them, since a `*` may be as long as the rest of the segment.
        for part in parts {
            match rest.find(part) {
                Some(at) if gap_fits(&rest[..at]) => rest = &rest[at + part.len()..],
                Some(_) | None => return false,
            }
        }
        rest.strip_suffix(last).is_some_and(gap_fits)
    }
}

#[cfg(test)]
mod tests {
    use super::NamespacePattern;

    #[test]
    fn a_pattern_matches_whole_names_and_stars_stay_within_a_segment() {
        let check = |pattern: &str, name: &str| NamespacePattern::new(pattern).matches(name);
        assert!(check("/", "/"));
        assert!(!check("/", "/a"));
        assert!(check("chat", "/chat"));
        assert!(check("/room-*", "/room-12"));
        assert!(check("/room-*", "/room-"));
        assert!(!check("/room-*", "/room-1/2"));
        assert!(check("/a*b*c", "/aXbYbc"));
        assert!(!check("/a*b*c", "/aXbYbd"));
        assert!(check("/*/x", "/y/x"));
        assert!(!check("/*/x", "/y/z/x"));
        assert!(!check("/ab*ba", "/aba"));
    }
}
