//! What can be seen of a request while it runs.

use std::{fmt, time::Duration};

use crate::{
    route::{Reason, TargetId},
    wire::Outcome,
};

/// Told of every attempt while it is made. Called in line: what takes time must be done elsewhere.
pub trait Watch: Send {
    /// Something happened.
    fn on_event(&mut self, event: &Event);
}

impl fmt::Debug for dyn Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

/// Something that happened in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A target is asked.
    Started {
        /// Which attempt, from 1.
        attempt: u32,
        /// Who is asked.
        target: TargetId,
        /// Why.
        reason: Reason,
    },
    /// A stream said something that is content.
    FirstContent {
        /// Which attempt.
        attempt: u32,
        /// Who said it.
        target: TargetId,
        /// How long after it was asked.
        after: Duration,
    },
    /// An attempt failed.
    Failed {
        /// Which attempt.
        attempt: u32,
        /// Who was asked.
        target: TargetId,
        /// How.
        outcome: Outcome,
        /// The same in words.
        words: String,
        /// How long it took.
        took: Duration,
    },
    /// Another target is asked after one that has failed.
    FellBack {
        /// Who failed.
        from: TargetId,
        /// Who is asked now.
        to: TargetId,
    },
    /// The request is over, and nothing follows.
    Done {
        /// What became of it.
        outcome: Outcome,
        /// Whose answer the client has.
        served: Option<TargetId>,
        /// How long it all took.
        took: Duration,
    },
}
