//! Eight hours in which nobody writes, then a failure, and then messages; and a whole day in which nothing happens.

use std::{fmt, time::Duration};

use bowline_proto::{Time, keeper::Reason};

use super::{
    Counts,
    network::{Host, Path, up_to},
    script::{Act, Script, Setup},
    world::World,
};
use crate::rng::Rng;

/// What goes wrong behind the back of an idle link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// Events do not find the connection any more, and every ping is answered.
    RoutingDead,
    /// The NAT has dropped the WebSocket's flow.
    SocketDropped,
    /// The NAT has dropped the connections in the HTTP pool.
    PoolDropped,
    /// The service has another address.
    DnsMoved,
    /// The service has a new certificate, and restarts for it.
    CertificateRenewed,
    /// The servers are replaced, with notice or without.
    ServerRecycled,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::RoutingDead,
        Self::SocketDropped,
        Self::PoolDropped,
        Self::DnsMoved,
        Self::CertificateRenewed,
        Self::ServerRecycled,
    ];

    /// For a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoutingDead => "routing dead, pongs alive",
            Self::SocketDropped => "NAT dropped the socket",
            Self::PoolDropped => "NAT dropped the HTTP pool",
            Self::DnsMoved => "DNS moved",
            Self::CertificateRenewed => "certificate renewed",
            Self::ServerRecycled => "server recycled",
        }
    }

    fn acts(self, rng: &mut Rng) -> Vec<Act> {
        const SECOND: Duration = Duration::from_secs(1);
        let path = *rng.pick(&[Path::Hole, Path::Hole, Path::Cut]);
        match self {
            Self::RoutingDead => vec![Act::Unroute { link: 0, device: rng.one_in(2) }],
            Self::SocketDropped => vec![Act::Lose { link: 0, path }],
            Self::PoolDropped => vec![Act::LosePool { link: 0, path }],
            Self::DnsMoved => {
                let old = *rng.pick(&[None, Some(Path::Hole), Some(Path::Over)]);
                let mut acts = vec![Act::Move { host: Host::Socket, old }];
                if rng.one_in(2) {
                    acts.push(Act::Move { host: Host::Api, old: Some(Path::Over) });
                }
                acts
            }
            Self::CertificateRenewed => {
                let within = up_to(rng, 120 * SECOND);
                let mut acts = vec![Act::Renew { host: Host::Socket, within }];
                if rng.one_in(2) {
                    acts.push(Act::Renew { host: Host::Api, within: within / 4 });
                }
                acts
            }
            Self::ServerRecycled => {
                let notice = rng.one_in(2).then(|| up_to(rng, 60 * SECOND));
                let (down, silent) = (up_to(rng, 30 * SECOND), rng.one_in(2));
                vec![Act::Recycle { notice, down, silent, forgets: rng.one_in(2) }]
            }
        }
    }
}

/// What came of the runs with one failure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// From the failure until it was noticed, in milliseconds.
    pub noticed: Vec<u64>,
    /// From the first message until it was answered.
    pub answered: Vec<u64>,
    /// Messages.
    pub messages: u64,
    /// Of them not answered.
    pub lost: u64,
    /// Answered more than once.
    pub doubled: u64,
}

impl Row {
    pub(super) fn add(&mut self, other: &Self) {
        self.noticed.extend(&other.noticed);
        self.answered.extend(&other.answered);
        self.messages += other.messages;
        self.lost += other.lost;
        self.doubled += other.doubled;
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let three = |times: &[u64]| {
            let mut times = times.to_vec();
            times.sort_unstable();
            let at = |index: usize| times.get(index).map_or(0.0, |ms| *ms as f64 / 1000.0);
            let (median, last) = (times.len() / 2, times.len().saturating_sub(1));
            format!("{:7.1} {:7.1} {:7.1}", at(0), at(median), at(last))
        };
        let (noticed, answered) = (three(&self.noticed), three(&self.answered));
        let Self { messages, lost, doubled, .. } = self;
        write!(
            f,
            "{:6} {noticed}   {answered} {messages:9} {lost:5} {doubled:8}",
            self.noticed.len()
        )
    }
}

/// The heading of a table of rows.
pub(super) const HEADING: [&str; 2] = [
    "                              runs   noticed after, s          first answer after, s   messages  lost  doubled",
    "                                      min  median     max       min  median     max",
];

/// How long the first answer may take when only the pool is dead.
const POOL_MAX: Duration = Duration::from_secs(8);

/// Eight idle hours, this failure, and three messages around it.
pub(super) fn run(
    seed: u64,
    failure: Failure,
    trace: Option<&mut dyn FnMut(String)>,
) -> (Row, Counts) {
    const HOUR: Duration = Duration::from_secs(3600);
    const SECOND: Duration = Duration::from_secs(1);
    let mut rng = Rng::new(seed ^ 0x6964_6c65);
    let mut setup = Setup::usual();
    setup.manner.nat_resets = rng.one_in(3);
    // Some bots keep their pool warm: then it is not empty when it is lost.
    let warm = failure == Failure::PoolDropped || rng.one_in(2);
    let failed = Time::ZERO + 8 * HOUR + up_to(&mut rng, HOUR / 3);
    let every = SECOND * *rng.pick(&[7, 25, 50]);
    setup.chatter = warm.then_some((Time::ZERO + (8 * HOUR - HOUR / 4), every));
    // A little before, seconds after, minutes after.
    let written = match rng.below(8) {
        0 => Time::from_micros(failed.as_micros() - 1 - rng.below(1_000_000) as u64),
        1..4 => failed + up_to(&mut rng, 10 * SECOND),
        4..6 => failed + up_to(&mut rng, 60 * SECOND),
        _ => failed + up_to(&mut rng, HOUR / 3),
    };
    let mut acts: Vec<_> = failure.acts(&mut rng).into_iter().map(|act| (failed, act)).collect();
    acts.push((written, Act::Write { link: 0, room: 0, times: 3, every: 3 * SECOND }));
    acts.sort_by_key(|(at, _)| *at);
    let ends = failed + HOUR;
    let mut world = World::new(Script { seed, setup, acts, calm_from: ends, ends }, trace);
    world.watch.armed = true;
    world.watch.of_pool = failure == Failure::PoolDropped;
    world.run();
    let noticed = world.watch.noticed.unwrap_or_else(|| panic!("{failure:?} was not noticed"));
    let answered = world.links[0].bot.answered.get(&0).copied().unwrap_or(ends);
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let counts = world.counts;
    if failure == Failure::PoolDropped {
        // Nothing is wrong with the socket, and one request that is sent again is all it may cost.
        let late = answered.since(written);
        assert!(late <= POOL_MAX, "the first answer took {late:?}");
    }
    assert_eq!(counts.doubled, 0, "a message was answered twice");
    let row = Row {
        noticed: vec![millis(noticed.since(failed))],
        answered: vec![millis(answered.since(written))],
        messages: counts.messages,
        lost: counts.messages - counts.answered,
        doubled: counts.doubled,
    };
    (row, counts)
}

/// Probes that a quiet bot may cost in a day.
const DAY_PROBES_MAX: u32 = 150;

/// A day without a word and without trouble, and one message at its end. Returns how many probes it took.
pub(super) fn quiet_day(seed: u64, trace: Option<&mut dyn FnMut(String)>) -> (u32, Counts) {
    let mut setup = Setup::usual();
    setup.manner.nat_resets = Rng::new(seed).one_in(2);
    let day = Time::ZERO + Duration::from_secs(24 * 3600);
    let acts = vec![(day, Act::Write { link: 0, room: 0, times: 1, every: Duration::ZERO })];
    let ends = day + Duration::from_secs(60);
    let mut world = World::new(Script { seed, setup, acts, calm_from: day, ends }, trace);
    world.run();
    let model = &world.links[0].model;
    let probed = model.probed;
    assert!(probed <= DAY_PROBES_MAX, "{probed} probes in a quiet day");
    assert_eq!(model.restarts, 0, "the bot was restarted");
    for (reason, times) in &model.renewed {
        let due = match reason {
            Reason::First => 1,
            // Each lives for 9 to 12 hours.
            Reason::Age => 2,
            Reason::Lost | Reason::Silent | Reason::Drain | Reason::Unrouted | Reason::Asked => 0,
        };
        assert!(*times <= due, "{times} times renewed on a quiet day: {reason:?}");
    }
    (probed, world.counts)
}
