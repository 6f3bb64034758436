//! A seeded world around the keeper of links: a service that routes, forgets and recycles, a NAT, a name server that is
//! late, an HTTP API behind a pool, and a bot that never tries twice.
//!
//! [`service`] and [`network`] know what really happens: who is routed to, what was dropped, what is sent again.
//! `model` is told what crosses the wall of a keeper and says what it may do; neither shares code with the keeper. What
//! stands in for the shell does what `bowline-link` does: budget, merge, inbox, catching up. Checked throughout:
//!
//! - every message that somebody writes to the bot is answered once: whatever was dropped, moved, renewed or recycled
//!   before, at the same moment, or after; a second answer only where a first one was sent and nobody can know;
//! - messages of a room come in their order as long as they come on connections;
//! - a connection is used after it was proved, and given up only when another has taken its place or it does not work;
//!   nothing is replaced without a reason, and silence is none;
//! - a dead connection and dead routing are noticed in time, and no level claims what is not so;
//! - attempts stay within the budget and within pauses, climb the ladder, and are never more than two connections;
//! - requests that must not be sent twice are not;
//! - at the end, when all is well, every link is live on a connection that is routed to.
//!
//! [`idle`] plays eight idle hours with each [`Failure`], and a quiet day; [`herd`] two hundred links that lose their
//! service at once.

mod bot;
mod far;
pub mod herd;
mod idle;
mod link;
mod model;
mod network;
mod script;
mod service;
mod shrink;
mod web;
mod world;

use std::fmt;

pub use idle::{Failure, Row};
use script::Script;
pub use shrink::{Shrunk, shrink};
use world::World;

/// What happened in a world, or in many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Inputs that keepers were given.
    pub inputs: u64,
    /// Things that went wrong, or that an operator wanted.
    pub troubles: u64,
    /// Attempts to connect.
    pub attempts: u64,
    /// Connections that took the place of another, or of none.
    pub renewals: u64,
    /// Routing round trips that were begun.
    pub probes: u64,
    /// Of them that came back.
    pub proofs: u64,
    /// Times that the service was to be asked for what had been missed.
    pub catch_ups: u64,
    /// Of them only to look whether anything had been.
    pub looks: u64,
    /// Messages that were written to bots.
    pub messages: u64,
    /// Of them answered.
    pub answered: u64,
    /// Answered twice, since nobody could know of the first time.
    pub doubled: u64,
    /// Lost where the service routes to nobody and cannot be asked.
    pub hopeless: u64,
    /// Messages that were found by asking.
    pub caught_up: u64,
    /// Messages that arrived again.
    pub repeated: u64,
    /// Copies of messages on two connections.
    pub copies: u64,
    /// Offers to bots.
    pub offers: u64,
    /// Bots that were restarted.
    pub restarts: u64,
    /// HTTP requests.
    pub requests: u64,
    /// Of them sent again on another connection.
    pub retries: u64,
    /// Of them failed.
    pub failed_requests: u64,
    /// Quiet days.
    pub days: u64,
    /// The most probes in one of them.
    pub day_probes: u32,
    /// Eight idle hours and a failure, by failure.
    pub idle: [Row; 6],
}

impl Counts {
    /// Adds those of another world.
    pub fn add(&mut self, other: &Self) {
        self.inputs += other.inputs;
        self.troubles += other.troubles;
        self.attempts += other.attempts;
        self.renewals += other.renewals;
        self.probes += other.probes;
        self.proofs += other.proofs;
        self.catch_ups += other.catch_ups;
        self.looks += other.looks;
        self.messages += other.messages;
        self.answered += other.answered;
        self.doubled += other.doubled;
        self.hopeless += other.hopeless;
        self.caught_up += other.caught_up;
        self.repeated += other.repeated;
        self.copies += other.copies;
        self.offers += other.offers;
        self.restarts += other.restarts;
        self.requests += other.requests;
        self.retries += other.retries;
        self.failed_requests += other.failed_requests;
        self.days += other.days;
        self.day_probes = self.day_probes.max(other.day_probes);
        for (row, other) in self.idle.iter_mut().zip(&other.idle) {
            row.add(other);
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} inputs, {} troubles, {} attempts, {} renewals, {} probes ({} came back), {} catch-ups ({} looks); {} messages: {} \
             answered, {} twice where nobody could know, {} beyond help; {} caught up, {} repeated, {} copies, {} offers, \
             {} restarts of bots; {} requests, {} sent again, {} failed; {} quiet days with at most {} probes",
            self.inputs,
            self.troubles,
            self.attempts,
            self.renewals,
            self.probes,
            self.proofs,
            self.catch_ups,
            self.looks,
            self.messages,
            self.answered,
            self.doubled,
            self.hopeless,
            self.caught_up,
            self.repeated,
            self.copies,
            self.offers,
            self.restarts,
            self.requests,
            self.retries,
            self.failed_requests,
            self.days,
            self.day_probes,
        )?;
        if self.idle.iter().all(|row| row.messages == 0) {
            return Ok(());
        }
        write!(f, "\n\neight idle hours, then:\n{}", idle::HEADING.join("\n"))?;
        for (failure, row) in Failure::ALL.iter().zip(&self.idle) {
            write!(f, "\n{:<28}{row}", failure.name())?;
        }
        Ok(())
    }
}

/// One seed in so many has eight idle hours and a failure, which take as long as everything else.
const IDLE: u64 = 2;

/// One in so many has a quiet day.
const DAYS: u64 = 40;

/// Plays what this seed has: a random world; now and then eight idle hours with one failure, or a quiet day. Panics
/// where a promise is broken.
pub fn run(seed: u64, mut trace: Option<&mut dyn FnMut(String)>) -> Counts {
    let mut counts = random(seed, again(&mut trace));
    if seed.is_multiple_of(IDLE) {
        let which = usize::try_from(seed / IDLE % 6).unwrap_or(0);
        let (row, idle) = idle::run(seed, Failure::ALL[which], again(&mut trace));
        counts.add(&idle);
        counts.idle[which].add(&row);
    }
    if seed.is_multiple_of(DAYS) {
        let (probes, day) = idle::quiet_day(seed, again(&mut trace));
        counts.add(&day);
        counts.days += 1;
        counts.day_probes = probes;
    }
    counts
}

fn random(seed: u64, trace: Option<&mut dyn FnMut(String)>) -> Counts {
    let mut world = World::new(Script::random(seed), trace);
    world.run();
    world.counts
}

/// The same once more, for the next world.
fn again<'a>(trace: &'a mut Option<&mut dyn FnMut(String)>) -> Option<&'a mut dyn FnMut(String)> {
    trace.as_mut().map(|trace| &mut **trace as &mut dyn FnMut(String))
}
