//! What a world is made of, and what happens in it, all known from the start so that it can be made shorter.

use std::time::Duration;

use bowline_proto::{Time, keeper::Config};

use super::network::{Host, Manner, Path, up_to};
use crate::rng::Rng;

/// A world before it begins.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) seed: u64,
    pub(super) setup: Setup,
    /// In the order of time.
    pub(super) acts: Vec<(Time, Act)>,
    /// From then on all is well.
    pub(super) calm_from: Time,
    pub(super) ends: Time,
}

/// How a world is arranged.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) links: usize,
    pub(super) config: Config,
    pub(super) manner: Manner,
    pub(super) probe: Probe,
    /// Whether the service can be asked for what arrived since then.
    pub(super) history: bool,
    /// How long it may take, after a connection was opened, until events find it.
    pub(super) routed_within: Duration,
    /// Attempts per second, and at once.
    pub(super) budget: (u32, u32),
    /// From when on, and how often, the bot asks the API something of its own, so that its pool stays warm.
    pub(super) chatter: Option<(Time, Duration)>,
    /// How far the clock of the service is behind ours.
    pub(super) behind: Duration,
    /// How late timers are at most.
    pub(super) late: Duration,
}

/// How a routing round trip is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    /// A message is posted over HTTP, and comes back as an event to whoever is routed to.
    Posted,
    /// It is said on the connection, and comes back on it if events find it.
    Echoed,
    /// The link has none.
    None,
}

/// Something that happens to a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Somebody writes to the bot so often, at this pace.
    Write {
        link: usize,
        room: u8,
        times: u16,
        every: Duration,
    },
    /// Events find none of its connections any more; with `device` not even a new connection of the same device.
    Unroute {
        link: usize,
        device: bool,
    },
    /// The NAT forgets what its sockets go through.
    Lose {
        link: usize,
        path: Path,
    },
    /// The NAT forgets the flows of its HTTP that nothing is under way on.
    LosePool {
        link: usize,
        path: Path,
    },
    /// The host is at another address. What goes to the old one comes to this; `None`: it goes on, pongs and all, and no
    /// event comes through any more.
    Move {
        host: Host,
        old: Option<Path>,
    },
    /// The certificate was renewed; until everybody shows the new one the old one is over. Connections are closed.
    Renew {
        host: Host,
        within: Duration,
    },
    /// The servers are stopped and started: connections are closed after the notice, if there is one.
    Recycle {
        notice: Option<Duration>,
        down: Duration,
        silent: bool,
        forgets: bool,
    },
    /// The service says that this link's connections end after so long.
    Drain {
        link: usize,
        after: Duration,
    },
    Down {
        host: Host,
        time: Duration,
        silent: bool,
    },
    Slow {
        host: Host,
        time: Duration,
        by: Duration,
    },
    Stall {
        host: Host,
        time: Duration,
    },
    /// Somebody else connects with its registration.
    Evict {
        link: usize,
    },
    /// Its token is not accepted for a while, and its connections are closed.
    Bar {
        link: usize,
        time: Duration,
    },
    /// The service has too much to do, and says when it may be asked again.
    Busy {
        link: usize,
        time: Duration,
    },
    /// Its bot takes no messages for a while.
    BotGone {
        link: usize,
        time: Duration,
    },
    /// What an operator may want.
    Renewal {
        link: usize,
    },
    Probing {
        link: usize,
    },
    Pause {
        link: usize,
        time: Duration,
    },
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

impl Setup {
    /// As a link to Webex is set up when nothing is configured.
    pub(super) fn usual() -> Self {
        Self {
            links: 1,
            config: Config {
                ack_interval: Some(15 * SECOND),
                look_interval: Some(MINUTE),
                ..Config::default()
            },
            manner: Manner {
                latency: (Duration::from_millis(15), Duration::from_millis(60)),
                nat_idle: Some(350 * SECOND),
                nat_resets: false,
                dns_ttl: MINUTE,
            },
            probe: Probe::Posted,
            history: true,
            routed_within: Duration::from_millis(800),
            budget: (5, 5),
            chatter: None,
            behind: Duration::ZERO,
            late: Duration::from_millis(3),
        }
    }

    fn random(rng: &mut Rng) -> Self {
        let mut setup = Self::usual();
        setup.links = 1 + rng.below(3);
        let config = &mut setup.config;
        config.ping_interval = Some(SECOND * *rng.pick(&[5, 10, 10, 25]));
        config.pings_missed = *rng.pick(&[1, 2, 2, 3]);
        config.ack_interval = rng.one_in(2).then_some(15 * SECOND);
        config.max_age = MINUTE * *rng.pick(&[8, 30, 720]);
        config.overlap = Duration::from_millis(*rng.pick(&[0, 300, 1000, 2000]));
        config.idle_after = MINUTE * *rng.pick(&[5, 30]);
        config.refused_pause = SECOND * *rng.pick(&[30, 300]);
        config.service_after = rng.one_in(2).then_some(3);
        setup.probe =
            *rng.pick(&[Probe::Posted, Probe::Posted, Probe::Posted, Probe::Echoed, Probe::None]);
        setup.config.probe_interval = match setup.probe {
            Probe::None => None,
            Probe::Posted | Probe::Echoed => {
                let least = SECOND * *rng.pick(&[20, 60, 600]);
                Some(least..=least + least / 2)
            }
        };
        let manner = &mut setup.manner;
        let least = Duration::from_millis(1 + rng.scaled(7) as u64);
        manner.latency = (least, least + Duration::from_millis(rng.scaled(9) as u64));
        manner.nat_idle = (!rng.one_in(3)).then(|| SECOND * *rng.pick(&[40, 120, 350, 3600]));
        manner.nat_resets = rng.one_in(2);
        setup.history = setup.probe == Probe::Posted || rng.one_in(2);
        setup.config.look_interval =
            (setup.history && rng.one_in(2)).then(|| SECOND * *rng.pick(&[5, 60]));
        // Who cannot probe must trust that what is open is routed to.
        let late = Duration::from_millis(rng.scaled(11) as u64);
        setup.routed_within = if setup.probe == Probe::None { Duration::ZERO } else { late };
        setup.budget = *rng.pick(&[(5, 5), (1, 1), (1, 5), (50, 50)]);
        setup.chatter = rng.one_in(2).then(|| (Time::ZERO, SECOND * *rng.pick(&[5, 20, 50, 90])));
        setup.behind = Duration::from_millis(rng.scaled(15) as u64);
        setup
    }
}

impl Script {
    /// A random world.
    pub(super) fn random(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let setup = Setup::random(&mut rng);
        let calm_from = Time::ZERO + 40 * MINUTE + up_to(&mut rng, 50 * MINUTE);
        let mut acts = Vec::new();
        let mut at = Time::ZERO;
        loop {
            // Long calms between troubles that come close to each other.
            let pause = if rng.one_in(3) { 8 * MINUTE } else { 20 * SECOND };
            at += up_to(&mut rng, pause);
            if at >= calm_from {
                break;
            }
            acts.push((at, Act::random(&mut rng, setup.links)));
        }
        // What is written while all is well must come through in any case.
        for link in 0..setup.links {
            let at = calm_from + 35 * MINUTE;
            acts.push((at, Act::Write { link, room: 0, times: 3, every: SECOND }));
        }
        Self { seed, setup, acts, calm_from, ends: calm_from + 45 * MINUTE }
    }
}

impl Act {
    fn random(rng: &mut Rng, links: usize) -> Self {
        let link = rng.below(links);
        let host = *rng.pick(&[Host::Socket, Host::Socket, Host::Api]);
        let path = *rng.pick(&[Path::Hole, Path::Hole, Path::Cut]);
        let time = up_to(rng, 3 * MINUTE);
        let silent = rng.one_in(2);
        match rng.below(36) {
            0..10 => {
                let times = *rng.pick(&[1, 1, 3, 40]);
                let every = Duration::from_millis(*rng.pick(&[20, 200, 5000]));
                Self::Write { link, room: rng.byte() % 3, times, every }
            }
            10..13 => Self::Unroute { link, device: rng.one_in(3) },
            13..15 => Self::Lose { link, path },
            15..18 => Self::LosePool { link, path },
            18 => Self::Move { host, old: *rng.pick(&[None, Some(Path::Hole), Some(Path::Over)]) },
            19 => Self::Renew { host, within: time },
            20..22 => {
                let notice = rng.one_in(2).then(|| up_to(rng, MINUTE));
                Self::Recycle { notice, down: time / 4, silent, forgets: rng.one_in(3) }
            }
            22..24 => Self::Drain { link, after: up_to(rng, MINUTE) },
            24..26 => Self::Down { host, time, silent },
            26 => Self::Slow { host, time, by: up_to(rng, 8 * SECOND) },
            27 => Self::Stall { host, time: time / 3 },
            28 => Self::Evict { link },
            29 => Self::Bar { link, time },
            30 => Self::BotGone { link, time },
            31..33 => Self::Renewal { link },
            33 => Self::Probing { link },
            34 => Self::Pause { link, time },
            _ => Self::Busy { link, time },
        }
    }
}
