//! What a hub is told at its start, and when it changes.

use std::time::Duration;

use bytestring::ByteString;

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
    /// Which namespaces there are. The first rule that matches a name is the one.
    pub namespaces: Vec<NamespaceRule>,
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
            namespaces: Vec::new(),
        }
    }
}

impl Config {
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
