//! The service as it really is: who is registered, to whom events are routed, what it sends again, what it remembers.
//!
//! It is made of what is known of Mercury: an event goes to each device of the account that is routed to; a device
//! whose connection has ended, or that did not acknowledge, gets it again on its next connection, for 15 minutes; a
//! device that is not routed to gets nothing, now or later, and its connection answers every ping.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bowline_proto::Time;

use super::network::FlowId;

/// How long what was not acknowledged is sent again.
const REDELIVERED: Duration = Duration::from_secs(15 * 60);

/// How long the service keeps a connection from which it hears nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// What goes down a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Down {
    /// Connected, authorised, joined.
    Welcome,
    /// A message for the bot, by its number in [`Account::history`]; `again` if it was not acknowledged before.
    Message {
        number: usize,
        again: bool,
    },
    /// What a routing probe posted comes back.
    Probe(u64),
    Pong,
    Ack,
    Draining,
    /// The connection ends, with this close code.
    Close(u16),
}

/// A message that somebody wrote to the bot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    pub(super) at: Time,
    pub(super) room: u8,
    /// Whether it was sent to somebody.
    pub(super) routed: bool,
}

/// One bot identity.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) history: Vec<Written>,
    pub(super) devices: BTreeMap<u64, Device>,
    next_device: u64,
    /// Until then its token is not accepted.
    pub(super) barred_until: Time,
    /// Until then new connections are refused, and it is said for how long.
    pub(super) busy_until: Time,
}

/// A registration.
#[derive(Debug, Default)]
pub(super) struct Device {
    /// Events do not find it any more.
    pub(super) dead: bool,
    pub(super) end: Option<End>,
    unacked: VecDeque<(usize, Time)>,
}

/// The service's end of a connection.
#[derive(Debug)]
pub(super) struct End {
    pub(super) flow: FlowId,
    /// From when on events find it; `None`: not any more.
    pub(super) routed_from: Option<Time>,
    pub(super) heard: Time,
}

impl Account {
    pub(super) fn register(&mut self) -> u64 {
        self.next_device += 1;
        self.devices.insert(self.next_device, Device::default());
        self.next_device
    }

    /// A connection of a device: who is put out for it, and what is sent again on it.
    pub(super) fn connect(
        &mut self,
        now: Time,
        device: u64,
        flow: FlowId,
        routed_from: Time,
    ) -> Option<(Option<FlowId>, Vec<usize>)> {
        let device = self.devices.get_mut(&device)?;
        let end = End { flow, routed_from: Some(routed_from), heard: now };
        let before = device.end.replace(end).map(|end| end.flow);
        device.unacked.retain(|(_, at)| now.since(*at) <= REDELIVERED);
        Some((before, device.unacked.iter().map(|(message, _)| *message).collect()))
    }

    /// Somebody writes to the bot. Returns the connections that it is sent on.
    pub(super) fn write(&mut self, now: Time, room: u8) -> (usize, Vec<FlowId>) {
        let message = self.history.len();
        let mut flows = Vec::new();
        for device in self.devices.values_mut().filter(|device| !device.dead) {
            match &device.end {
                Some(end) if end.routed_from.is_some_and(|from| from <= now) => {
                    flows.push(end.flow);
                    device.unacked.push_back((message, now));
                }
                Some(_) => {}
                None => device.unacked.push_back((message, now)),
            }
        }
        self.history.push(Written { at: now, room, routed: !flows.is_empty() });
        (message, flows)
    }

    /// Where what the bot posts itself comes back.
    pub(super) fn echo(&self, now: Time) -> Vec<FlowId> {
        let routed = |end: &&End| end.routed_from.is_some_and(|from| from <= now);
        let alive = self.devices.values().filter(|device| !device.dead);
        alive.filter_map(|device| device.end.as_ref().filter(routed)).map(|end| end.flow).collect()
    }

    /// Whether events find this connection now.
    pub(super) fn is_routed(&self, now: Time, flow: FlowId) -> bool {
        self.echo(now).contains(&flow)
    }

    /// Whether events find this connection, now or soon.
    pub(super) fn will_route(&self, flow: FlowId) -> bool {
        let alive = self.devices.values().filter(|device| !device.dead);
        let mut ends = alive.filter_map(|device| device.end.as_ref());
        ends.any(|end| end.flow == flow && end.routed_from.is_some())
    }

    pub(super) fn acknowledge(&mut self, flow: FlowId, message: usize) {
        if let Some(device) = self.device_of(flow) {
            device.unacked.retain(|(other, _)| *other != message);
        }
    }

    pub(super) fn heard(&mut self, now: Time, flow: FlowId) -> bool {
        let end = self.device_of(flow).and_then(|device| device.end.as_mut());
        end.map(|end| end.heard = now).is_some()
    }

    /// The connection has ended, as the service sees it.
    pub(super) fn gone(&mut self, flow: FlowId) {
        if let Some(device) = self.device_of(flow) {
            device.end = None;
        }
    }

    /// Those from which it heard nothing for long are gone.
    pub(super) fn sweep(&mut self, now: Time) {
        for device in self.devices.values_mut() {
            let silent = device.end.as_ref().is_some_and(|end| now.since(end.heard) > PATIENCE);
            if silent {
                device.end = None;
            }
        }
    }

    /// Events find none of the connections any more that there are now.
    pub(super) fn unroute(&mut self, devices_too: bool) {
        for device in self.devices.values_mut().filter(|device| device.end.is_some()) {
            device.dead |= devices_too;
            if let Some(end) = &mut device.end {
                end.routed_from = None;
            }
        }
    }

    /// It forgets who was registered.
    pub(super) fn forget_devices(&mut self) {
        self.devices.clear();
    }

    fn device_of(&mut self, flow: FlowId) -> Option<&mut Device> {
        let is_its = |device: &&mut Device| device.end.as_ref().is_some_and(|it| it.flow == flow);
        self.devices.values_mut().find(is_its)
    }
}
