//! One link of a world: what stands in for the shell around a keeper.

use std::collections::{BTreeMap, VecDeque};

use bowline_proto::{
    Time,
    keeper::{ConnectionId, Keeper, Leg, LegConfig, LegId, Merge},
};

use super::{bot::Bot, model::Model, network::FlowId, script::Setup};

/// A connection that the shell has.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) flow: Option<FlowId>,
    pub(super) device: Option<u64>,
    pub(super) fresh: bool,
    pub(super) open: bool,
}

/// A message that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) number: usize,
    pub(super) how: How,
}

/// How it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// On a connection, when it was written.
    Live,
    /// On a connection, since it was not acknowledged before.
    Again,
    /// The service was asked.
    CaughtUp,
}

pub(super) struct Link {
    pub(super) keeper: Keeper,
    pub(super) model: Model,
    /// When the keeper is to be woken.
    pub(super) due: Option<Time>,
    /// When the keeper or the pool is.
    pub(super) wakes: Option<Time>,
    pub(super) merge: Merge<Arrived>,
    pub(super) lines: BTreeMap<ConnectionId, Line>,
    /// Flows of connections that were given up: what still comes on them is told to the keeper, who must not mind.
    pub(super) ghosts: BTreeMap<FlowId, ConnectionId>,
    /// A device of a connection that has ended, for the next one.
    pub(super) spare: Option<(ConnectionId, u64)>,
    pub(super) leg: Leg,
    pub(super) legs: BTreeMap<LegId, FlowId>,
    /// When each of them last answered.
    pub(super) answered: BTreeMap<LegId, Time>,
    /// The flows of its pool that nothing is under way on.
    pub(super) idle: Vec<FlowId>,
    /// Since when it is to catch up, and how often it was tried.
    pub(super) behind: Option<(Time, u32)>,
    pub(super) catching_up: bool,
    /// Whether a connection was proved once.
    pub(super) begun: bool,
    /// Messages that are stored, by number, in the order of arrival.
    pub(super) inbox: BTreeMap<usize, Stored>,
    pub(super) rooms: BTreeMap<u8, VecDeque<usize>>,
    pub(super) bot: Bot,
}

/// A message in the inbox.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored {
    pub(super) at: Time,
    pub(super) attempts: u32,
    pub(super) confirmed: bool,
    /// Whether an attempt may have been answered though nobody knows: then a second answer is nobody's fault.
    pub(super) unsure: bool,
}

impl Link {
    pub(super) fn new(setup: &Setup, number: usize, seed: u64) -> Self {
        Self {
            keeper: Keeper::new(setup.config.clone(), seed ^ number as u64),
            model: Model::new(&setup.config),
            due: None,
            wakes: None,
            merge: Merge::new(),
            lines: BTreeMap::new(),
            ghosts: BTreeMap::new(),
            spare: None,
            leg: Leg::new(LegConfig::default()),
            legs: BTreeMap::new(),
            answered: BTreeMap::new(),
            idle: Vec::new(),
            behind: None,
            catching_up: false,
            begun: false,
            inbox: BTreeMap::new(),
            rooms: BTreeMap::new(),
            bot: Bot::default(),
        }
    }

    /// Looks when something is to be done that only time brings; to be called after everything that may change it.
    pub(super) fn look_at_time(&mut self) {
        self.due = self.keeper.deadline().map(|(at, _)| at);
        self.look_at_pool();
    }

    /// The same, when only the pool has changed.
    pub(super) fn look_at_pool(&mut self) {
        self.wakes = self.due.into_iter().chain(self.leg.deadline()).min();
    }

    pub(super) fn forget_leg(&mut self, leg: LegId) -> Option<FlowId> {
        self.answered.remove(&leg);
        self.legs.remove(&leg)
    }

    pub(super) fn flow_of(&self, connection: ConnectionId) -> Option<FlowId> {
        self.lines.get(&connection).and_then(|line| line.flow)
    }

    pub(super) fn connection_of(&self, flow: FlowId) -> Option<ConnectionId> {
        self.lines.iter().find(|(_, line)| line.flow == Some(flow)).map(|(id, _)| *id)
    }

    /// Its connections that have come so far as to have a flow.
    pub(super) fn flows(&self) -> Vec<(ConnectionId, FlowId)> {
        let flows = self.lines.iter().filter_map(|(id, line)| Some((*id, line.flow?)));
        flows.collect()
    }

    /// Those that are open.
    pub(super) fn open_flows(&self) -> Vec<(ConnectionId, FlowId)> {
        let open = self.lines.iter().filter(|(_, line)| line.open);
        open.filter_map(|(id, line)| Some((*id, line.flow?))).collect()
    }
}
