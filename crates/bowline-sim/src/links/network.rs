//! What really becomes of bytes: flows, what a NAT does to them, hosts that move, and a name server that is late.

use std::{collections::BTreeMap, time::Duration};

use bowline_proto::Time;

use crate::rng::Rng;

/// One TCP connection, as the NAT between knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FlowId(pub(super) u64);

/// The hosts of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    /// Where its WebSockets end.
    Socket,
    /// Its HTTP API.
    Api,
}

/// Whither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

/// What becomes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    Good,
    /// They vanish, both ways, and nobody is told.
    Hole,
    /// The next bytes of ours are answered with a reset.
    Cut,
    /// Both sides know that it is over.
    Over,
}

/// What bytes that were sent come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// They arrive then, if the path is good until then.
    Arrive(Time),
    /// Nothing comes of them.
    Vanish,
    /// The sender hears of a reset then.
    Reset(Time),
}

/// How those that are asked for a connection answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    /// Refused at once.
    No,
    /// Never.
    Silence,
    /// There is one, and it shows a certificate that is over.
    Expired,
}

/// How bytes travel in a world.
#[derive(Debug, Clone)]
pub(super) struct Manner {
    /// One way, at least and at most.
    pub(super) latency: (Duration, Duration),
    /// After so long without bytes the NAT forgets a flow.
    pub(super) nat_idle: Option<Duration>,
    /// Whether it answers with a reset then; else with nothing.
    pub(super) nat_resets: bool,
    /// How long the name server goes on telling an old address, at most.
    pub(super) dns_ttl: Duration,
}

/// How long bytes may be on their way.
const LINGERS: Duration = Duration::from_secs(5 * 60);

#[derive(Debug)]
struct Flow {
    host: Host,
    path: Path,
    used: Time,
    /// When the last bytes arrive: up, down. TCP keeps their order.
    last: [Time; 2],
    /// Nobody sends on it any more; what is on its way may arrive.
    left: bool,
}

/// A host, as it is now.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    address: u32,
    /// Until then the name server says the address before.
    old_until: Time,
    /// Until then nobody answers; silently or not.
    down_until: Time,
    silent: bool,
    expired_until: Time,
    /// Until then everything takes so much longer.
    slow_until: Time,
    slow_by: Duration,
    /// Until then everything waits.
    stalled_until: Time,
}

#[derive(Debug)]
pub(super) struct Network {
    manner: Manner,
    flows: BTreeMap<FlowId, Flow>,
    places: [Place; 2],
    next: u64,
}

impl Network {
    pub(super) fn new(manner: Manner) -> Self {
        Self { manner, flows: BTreeMap::new(), places: [Place::default(); 2], next: 1 }
    }

    /// How long bytes take one way just now.
    pub(super) fn delay(&self, now: Time, host: Host, rng: &mut Rng) -> Duration {
        let (least, most) = self.manner.latency;
        let place = &self.places[host as usize];
        let slow = if now < place.slow_until { place.slow_by } else { Duration::ZERO };
        let took = least + slow + up_to(rng, most.saturating_sub(least) + slow / 4);
        took.max(place.stalled_until.since(now) + least)
    }

    /// The address that a look-up finds now.
    pub(super) fn look_up(&self, now: Time, host: Host) -> u32 {
        let place = &self.places[host as usize];
        if now < place.old_until { place.address - 1 } else { place.address }
    }

    /// What somebody gets who asks this address for a connection.
    pub(super) fn knock(&self, now: Time, host: Host, address: u32) -> Answer {
        let place = &self.places[host as usize];
        if address != place.address {
            // Where it was, nobody is left; an even address belongs to somebody else, who refuses.
            return if address.is_multiple_of(2) { Answer::No } else { Answer::Silence };
        }
        if now < place.down_until {
            return if place.silent { Answer::Silence } else { Answer::No };
        }
        if now < place.expired_until { Answer::Expired } else { Answer::Yes }
    }

    pub(super) fn open(&mut self, now: Time, host: Host) -> FlowId {
        let id = FlowId(self.next);
        self.next += 1;
        let flow = Flow { host, path: Path::Good, used: now, last: [now; 2], left: false };
        self.flows.insert(id, flow);
        id
    }

    pub(super) fn path(&self, flow: FlowId) -> Path {
        self.flows.get(&flow).map_or(Path::Over, |flow| flow.path)
    }

    /// Makes the path of a flow worse; it never gets better again.
    pub(super) fn spoil(&mut self, flow: FlowId, path: Path) {
        let Some(known) = self.flows.get_mut(&flow) else { return };
        if known.path == Path::Good || path == Path::Over {
            known.path = path;
        }
    }

    /// Nobody sends on it any more. What is on its way may still arrive.
    pub(super) fn leave(&mut self, flow: FlowId) {
        if let Some(flow) = self.flows.get_mut(&flow) {
            flow.left = true;
        }
    }

    /// Forgets the flows that were left long ago.
    pub(super) fn sweep(&mut self, now: Time) {
        self.flows.retain(|_, flow| !flow.left || now.since(flow.used) < LINGERS);
    }

    /// Sends bytes.
    pub(super) fn send(&mut self, now: Time, flow: FlowId, way: Way, rng: &mut Rng) -> Fate {
        let known = self.flows.get(&flow).filter(|flow| !flow.left);
        let Some(host) = known.map(|flow| flow.host) else { return Fate::Vanish };
        let delay = self.delay(now, host, rng);
        let manner = &self.manner;
        let Some(known) = self.flows.get_mut(&flow) else { return Fate::Vanish };
        if manner.nat_idle.is_some_and(|idle| now.since(known.used) > idle)
            && known.path == Path::Good
        {
            known.path = if manner.nat_resets { Path::Cut } else { Path::Hole };
        }
        match known.path {
            Path::Good => {
                known.used = now;
                let last = &mut known.last[way as usize];
                *last = (now + delay).max(*last + Duration::from_micros(1));
                Fate::Arrive(*last)
            }
            Path::Cut if way == Way::Up => Fate::Reset(now + delay),
            Path::Cut | Path::Hole | Path::Over => Fate::Vanish,
        }
    }

    /// The flows to a host, of those that work.
    pub(super) fn to(&self, host: Host) -> Vec<FlowId> {
        let good = |it: &Flow| it.host == host && it.path == Path::Good && !it.left;
        let good = self.flows.iter().filter(|(_, it)| good(it));
        good.map(|(id, _)| *id).collect()
    }

    /// The host is somewhere else from now on.
    pub(super) fn move_away(&mut self, now: Time, host: Host, rng: &mut Rng) {
        let late = up_to(rng, self.manner.dns_ttl);
        let place = &mut self.places[host as usize];
        place.address += 1;
        place.old_until = now + late;
    }

    pub(super) fn down(&mut self, host: Host, until: Time, silent: bool) {
        let place = &mut self.places[host as usize];
        place.down_until = place.down_until.max(until);
        place.silent = silent;
    }

    pub(super) fn expire(&mut self, host: Host, until: Time) {
        let place = &mut self.places[host as usize];
        place.expired_until = place.expired_until.max(until);
    }

    pub(super) fn slow(&mut self, host: Host, until: Time, by: Duration) {
        let place = &mut self.places[host as usize];
        (place.slow_until, place.slow_by) = (until, by);
    }

    pub(super) fn stall(&mut self, host: Host, until: Time) {
        let place = &mut self.places[host as usize];
        place.stalled_until = place.stalled_until.max(until);
    }

    /// From now on all is well with the hosts.
    pub(super) fn mend(&mut self, now: Time) {
        for place in &mut self.places {
            place.old_until = place.old_until.min(now);
            place.down_until = place.down_until.min(now);
            place.expired_until = place.expired_until.min(now);
            place.slow_until = place.slow_until.min(now);
            place.stalled_until = place.stalled_until.min(now);
        }
    }
}

/// A time of at most so long.
pub(super) fn up_to(rng: &mut Rng, most: Duration) -> Duration {
    let micros = usize::try_from(most.as_micros()).unwrap_or(usize::MAX);
    Duration::from_micros(rng.below(micros.max(1)) as u64)
}
