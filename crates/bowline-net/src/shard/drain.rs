//! How a shard ends: sessions closed one after the other, then what is left handed over.

use bowline_proto::{Input, SessionKey, Time, hub::Snapshot};

use super::Shard;
use crate::{ending::Phase, limit};

/// A stop under way.
pub(super) struct Drain {
    /// Sessions to close, the next one last.
    pub(super) schedule: Vec<(Time, SessionKey)>,
    /// When to stop waiting for sessions.
    pub(super) sessions_until: Time,
    /// When to stop waiting for connections; set when the last session is gone.
    pub(super) connections_until: Option<Time>,
    /// All of it is over, and the other shards are waited for.
    ready: bool,
    /// When to stop waiting for them; set when none of them has sessions.
    sealed_until: Option<Time>,
}

impl Drain {
    /// When to look again.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        if self.ready {
            return self.sealed_until;
        }
        let session = self.schedule.last().map(|(at, _)| *at);
        Some(session.or(self.connections_until).unwrap_or(self.sessions_until))
    }
}

impl Shard {
    pub(super) fn start_drain(&mut self) {
        if self.drain.is_some() {
            return;
        }
        self.local.stop_accepting_clients();
        let mut sessions = self.hub.sessions().collect::<Vec<_>>();
        let all = sessions.len() as u64 * self.process.shards.len() as u64;
        let spread = all.saturating_mul(1_000_000) / limit::DRAINED_PER_SECOND;
        let drain = self.process.settings().drain;
        let spread = spread.min(u64::try_from(drain.as_micros()).unwrap_or(u64::MAX));
        let entropy = &mut self.desk.entropy;
        let mut schedule = sessions
            .drain(..)
            .map(|session| {
                let after = std::time::Duration::from_micros(entropy.below(spread));
                (self.now + after, session)
            })
            .collect::<Vec<_>>();
        schedule.sort_unstable_by(|a, b| b.cmp(a));
        tracing::info!(sessions = schedule.len(), shard = self.index, "draining");
        let sessions_until = self.now + drain;
        self.drain = Some(Drain {
            schedule,
            sessions_until,
            connections_until: None,
            ready: false,
            sealed_until: None,
        });
        self.continue_drain();
    }

    pub(super) fn continue_drain(&mut self) {
        let now = self.now;
        while let Some(drain) = &mut self.drain {
            let due = drain.schedule.pop_if(|(at, _)| *at <= now);
            let Some((_, session)) = due else { break };
            self.feed(Input::Drain { session });
        }
        self.sessions.set(self.hub.session_count());
        let Some(drain) = &mut self.drain else { return };
        // Connections here may carry the polls of sessions that live on other shards.
        if drain.connections_until.is_none()
            && drain.schedule.is_empty()
            && (self.process.admission.sessions() == 0 || drain.sessions_until <= now)
        {
            // Responses that were given just now are on their way; connections are told to end
            // when they have been written.
            drain.connections_until = Some(now + limit::DRAIN_TAIL);
            self.local.close_connections();
            for port in &self.process.shards {
                port.mailbox.wake();
            }
        }
    }

    /// Whether this was the last turn: nothing is to be done any more, and if there is a state to be
    /// saved, on no other shard either.
    pub(super) fn is_over(&mut self) -> bool {
        if !self.is_drained() {
            return false;
        }
        self.local.stop_accepting();
        let ending = &self.process.ending;
        if ending.file().is_none() {
            return true;
        }
        // What is still being read must not be lost.
        let Some(drain) = self.drain.as_mut().filter(|_| !self.restoring) else { return false };
        if !drain.ready {
            drain.ready = true;
            ending.on_ready(&self.process, self.index);
        }
        if ending.phase() == Phase::Sealed {
            let until = *drain.sealed_until.get_or_insert(self.now + limit::SEALED);
            ending.on_handled(&self.process, self.index, self.handled);
            if until <= self.now {
                tracing::warn!(shard = self.index, "the state is saved before all is at rest");
                ending.cut_short(&self.process);
            }
        }
        self.is_quiet()
    }

    /// Whether all that comes now is what shards still have for one another.
    pub(super) fn is_sealed(&self) -> bool {
        self.process.ending.phase() != Phase::Serving
            && self.drain.as_ref().is_some_and(|drain| drain.ready)
    }

    /// Whether not even that comes any more.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_sealed() && self.process.ending.phase() == Phase::Quiet
    }

    /// What the next process shall have of this shard.
    pub(super) fn save(mut self) -> Option<Snapshot> {
        self.process.ending.file()?;
        Some(self.hub.snapshot(self.now))
    }

    fn is_drained(&self) -> bool {
        let Some(until) = self.drain.as_ref().and_then(|drain| drain.connections_until) else {
            return false;
        };
        until <= self.now || (self.transports.len() == 0 && self.local.connections() == 0)
    }
}
