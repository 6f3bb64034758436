//! How often one host is tried, over all links of a process.

use std::{collections::BTreeMap, time::Duration};

use crate::Time;

/// Hosts that are told apart while attempts to them are due. A process has a few dozen links at most to one or two
/// services; beyond this the rest share one bucket.
const HOSTS_MAX: usize = 1_024;

/// Attempts to open a connection, counted by host: a bucket of tokens for each, which refills evenly. Whoever asks
/// first goes first. When a service has gone, and all links to it want to come back, they come one after the other.
#[derive(Debug)]
pub struct Budget {
    /// The time in which one token comes back.
    token: Duration,
    /// How far ahead of that a full bucket lets attempts go.
    ahead: Duration,
    /// When the bucket of a host is full again. Hosts whose bucket is full are forgotten.
    full: BTreeMap<String, Time>,
    /// The same for all that found no place.
    others: Time,
}

impl Budget {
    /// Makes one that allows `per_second` attempts to each host, and `burst` at once after a rest. Defaults of
    /// `[links]`: 5 and 5; less than 1 counts as 1.
    pub fn new(per_second: u32, burst: u32) -> Self {
        // Rounded up, since the rate is an upper bound.
        let token = Duration::from_micros(1_000_000_u64.div_ceil(u64::from(per_second.max(1))));
        Self { token, ahead: token * burst.max(1), full: BTreeMap::new(), others: Time::ZERO }
    }

    /// Takes a token, and says when the attempt may be made: now, or later. Never earlier than what was said for the
    /// same host before.
    pub fn reserve(&mut self, now: Time, host: &str) -> Time {
        let is_known = self.full.contains_key(host);
        if !is_known && self.full.len() >= HOSTS_MAX {
            self.full.retain(|_, full| *full > now);
        }
        let full = if is_known || self.full.len() < HOSTS_MAX {
            self.full.entry(host.to_owned()).or_insert(Time::ZERO)
        } else {
            &mut self.others
        };
        *full = (*full).max(now) + self.token;
        let behind = full.since(now);
        now + behind.saturating_sub(self.ahead)
    }
}
