//! When the next request is due.

use std::time::Instant;

use crate::schedule::Schedule;

/// Requests that are still to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Supply {
    /// As soon as a client is free.
    InTurn { left: u64 },
    /// At even distances. One for which no client is free waits, and counts from when it was due.
    OnSchedule(Schedule),
}

impl Supply {
    pub(super) fn in_turn(requests: u64) -> Self {
        Self::InTurn { left: requests }
    }

    /// So many requests, so many a second.
    pub(super) fn on_schedule(begun: Instant, rate: f64, requests: u64) -> Self {
        Self::OnSchedule(Schedule::of(begun, rate, requests))
    }

    /// When the next one was due, if it is.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Instant> {
        match self {
            Self::InTurn { left: 0 } => None,
            Self::InTurn { left } => {
                *left -= 1;
                Some(now)
            }
            Self::OnSchedule(schedule) => schedule.pop(now).map(|number| schedule.due(number)),
        }
    }

    /// When the next one will be due; none if there is no next one.
    pub(super) fn wake(&self, now: Instant) -> Option<Instant> {
        match self {
            Self::InTurn { left } => (*left > 0).then_some(now),
            Self::OnSchedule(schedule) => schedule.wake(),
        }
    }

    /// What is left is not sent.
    pub(super) fn end(&mut self) {
        *self = Self::InTurn { left: 0 };
    }
}
