//! A seeded world of sessions that outlive their transports: real clients over real hubs on several
//! shards, a network that cuts, delays, goes silent and repeats requests, handlers that emit and move
//! sockets from room to room, and clients that come back at once, late, twice, elsewhere, or lying.
//!
//! What happens stands in a script that is drawn from the seed before anything does, so that a script
//! which fails can be made shorter. A model, written from what is promised, says of
//! every event whom it is for. Checked throughout:
//!
//! - clients with offsets hear every event once and in order, or are told that they are new, for a
//!   reason that the model agrees with; clients that are named hear everything at least once, or at most
//!   once, and nothing twice that was confirmed; volatile events at most once, those with an ack at least
//!   once;
//! - nobody hears what is not for it, whoever joined or left a room while it was away;
//! - a socket is away, back and gone as its handler is told, once each, and keeps its ids; what ends
//!   before the window is over was wanted;
//! - events that clients name are handled once, and the answer is that of the first time;
//! - logs and the number of those who are away stay within their bounds, and when all are silent, nothing
//!   is left.

mod device;
mod handlers;
mod model;
mod network;
mod restart;
mod script;
mod shards;
mod shrink;
mod world;

use std::fmt;

use script::Script;
pub use shrink::{Shrunk, shrink};
use world::World;

/// What happened in a world, or in many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Inputs that hubs were given.
    pub inputs: u64,
    /// Sessions that clients opened.
    pub sessions: u64,
    /// Sockets that were let in, and were not there before.
    pub fresh: u64,
    /// Returns after which the client was who it had been.
    pub recovered: u64,
    /// Times that handlers were told of somebody who went away, came back, or ended.
    pub away: u64,
    /// See above.
    pub back: u64,
    /// See above.
    pub ended: u64,
    /// Events that were emitted.
    pub emitted: u64,
    /// Events that clients heard.
    pub heard: u64,
    /// How many of them a client had heard before.
    pub repeated: u64,
    /// Acks that handlers were told of.
    pub acks: u64,
    /// Events that clients sent.
    pub said: u64,
    /// What handlers were told.
    pub told: u64,
    /// Times that the server was stopped and started again.
    pub restarts: u64,
}

impl Counts {
    /// Adds those of another world.
    pub fn add(&mut self, other: &Self) {
        self.inputs += other.inputs;
        self.sessions += other.sessions;
        self.fresh += other.fresh;
        self.recovered += other.recovered;
        self.away += other.away;
        self.back += other.back;
        self.ended += other.ended;
        self.emitted += other.emitted;
        self.heard += other.heard;
        self.repeated += other.repeated;
        self.acks += other.acks;
        self.said += other.said;
        self.told += other.told;
        self.restarts += other.restarts;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} inputs, {} sessions, {} sockets let in anew, {} returned as who they were, {} events \
             emitted, {} heard ({} again, in doubt), {} acks, {} said by clients, {} away, {} back, {} ended, {} restarts",
            self.inputs,
            self.sessions,
            self.fresh,
            self.recovered,
            self.emitted,
            self.heard,
            self.repeated,
            self.acks,
            self.said,
            self.away,
            self.back,
            self.ended,
            self.restarts,
        )
    }
}

/// Runs the world of `seed` to its end. With `trace` every step is handed to it as a line.
///
/// # Panics
///
/// If a promise is broken.
pub fn run(seed: u64, trace: Option<&mut dyn FnMut(String)>) -> Counts {
    World::new(Script::new(seed), trace).run()
}
