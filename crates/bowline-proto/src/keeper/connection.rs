//! One connection that is open: what it has proved, what it owes, when it is asked again.

use std::time::Duration;

use super::{Config, ConnectionId, Level, ProbeCause, ProbeId, Reason, Timer, chance::Chance};
use crate::Time;

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) opened: Time,
    /// Why it was made, and since when it was wished for.
    pub(super) reason: Reason,
    pub(super) wished: Time,
    /// Whether it has proved itself once.
    pub(super) proved: bool,
    /// Why it is to be replaced: it does not work, as far as one can see.
    pub(super) doubt: Option<Reason>,
    /// Whether it has been in use for so long that its end is no failure of the attempt.
    pub(super) settled: bool,
    /// Whether the service said that it will end soon.
    pub(super) draining: bool,
    /// When it is as old as it may become.
    pub(super) renew_at: Time,
    /// When an event or a routing round trip came last.
    pub(super) last_event: Time,
    /// When the service was last asked whether anything is missing; at first, when the connection was opened: what was
    /// before that is asked for otherwise.
    looked: Time,
    /// How long nothing may come before it is asked again.
    look_pause: Option<Duration>,
    /// The last proofs of [`Level::Tcp`] to [`Level::Routing`].
    proofs: [Option<Time>; 4],
    ping: Option<Beat>,
    ack: Option<Beat>,
    probe: Probe,
    /// Routing round trips that were lost in a row.
    pub(super) lost: u32,
    /// Those that were lost or could not be begun in a row, for the pause between them.
    pub(super) tries: u32,
    /// The last one that was lost, and when it was begun: late is better than never.
    late: Option<(ProbeId, Time)>,
}

/// What a connection was opened for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    pub(super) id: ConnectionId,
    pub(super) reason: Reason,
    /// Since when it was wished for, over all attempts.
    pub(super) wished: Time,
}

/// A routing round trip that is under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trip {
    pub(super) id: ProbeId,
    pub(super) cause: ProbeCause,
    pub(super) begun: Time,
}

/// Where a connection is with its routing round trips.
#[derive(Debug)]
enum Probe {
    /// The link has none.
    Never,
    Due(Time, ProbeCause),
    UnderWay(Trip),
}

/// What is to be done for a connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Due {
    Ping,
    Ack,
    /// Too many pongs or acks are missing.
    Overdue(Level),
    Probe(ProbeCause),
    /// The routing round trip did not come back.
    Lost(Trip),
}

/// Something that is sent at intervals, and its answer.
#[derive(Debug)]
struct Beat {
    every: Duration,
    timeout: Duration,
    /// When the next one is sent, if none is under way.
    next: Time,
    sent: Option<Time>,
    missed: u32,
}

impl Connection {
    pub(super) fn new(now: Time, made: Made, config: &Config, chance: &mut Chance) -> Self {
        let Made { id, reason, wished } = made;
        let spread = config.max_age * u32::from(config.max_age_spread.min(100)) / 100;
        Self {
            id,
            opened: now,
            reason,
            wished,
            proved: false,
            doubt: None,
            settled: false,
            draining: false,
            renew_at: now + config.max_age.saturating_sub(chance.up_to(spread)),
            last_event: now,
            looked: now,
            look_pause: look_pause(config, chance),
            proofs: [Some(now), None, None, None],
            ping: config.ping_interval.map(|every| Beat::new(now, every, config.ping_timeout)),
            ack: config.ack_interval.map(|every| Beat::new(now, every, config.ack_timeout)),
            probe: match config.probe_interval {
                Some(_) => Probe::Due(now, ProbeCause::Opened),
                None => Probe::Never,
            },
            lost: 0,
            tries: 0,
            late: None,
        }
    }

    /// How it came to be.
    pub(super) fn made(&self) -> Made {
        Made { id: self.id, reason: self.reason, wished: self.wished }
    }

    /// When this level was last proved.
    pub(super) fn proof(&self, level: Level) -> Option<Time> {
        self.proofs.get(level as usize).copied().flatten()
    }

    /// Notes a proof of a level and of those below it. Whether it is the first that a link without routing round trips
    /// takes for one.
    pub(super) fn prove(&mut self, now: Time, level: Level) -> bool {
        for proof in self.proofs.iter_mut().take(level as usize + 1) {
            *proof = Some(now);
        }
        // What proves more than a pong does stands for it: its question was answered as well.
        if level >= Level::Pong
            && let Some(ping) = &mut self.ping
        {
            ping.answered();
        }
        if level >= Level::Ack
            && let Some(ack) = &mut self.ack
        {
            ack.answered();
        }
        let enough = match (&self.ack, &self.ping) {
            (Some(_), _) => Level::Ack,
            (None, Some(_)) => Level::Pong,
            (None, None) => Level::Tcp,
        };
        matches!(self.probe, Probe::Never) && level >= enough
    }

    /// The next thing to do by then, if there is one. Ask again until there is none.
    pub(super) fn due(&mut self, now: Time, config: &Config) -> Option<Due> {
        let missed_max = config.pings_missed;
        match self.ping.as_mut().and_then(|ping| ping.due(now)) {
            Some(Turn::Send) => return Some(Due::Ping),
            Some(Turn::Missed(missed)) if missed > missed_max => {
                return Some(Due::Overdue(Level::Pong));
            }
            Some(Turn::Missed(_)) | None => (),
        }
        match self.ack.as_mut().and_then(|ack| ack.due(now)) {
            Some(Turn::Send) => return Some(Due::Ack),
            Some(Turn::Missed(missed)) if missed > missed_max => {
                return Some(Due::Overdue(Level::Ack));
            }
            Some(Turn::Missed(_)) | None => (),
        }
        match self.probe {
            Probe::Due(at, cause) if at <= now => Some(Due::Probe(cause)),
            Probe::UnderWay(trip) if trip.begun + config.probe_timeout.max(SHORTEST) <= now => {
                self.lost = self.lost.saturating_add(1);
                self.late = Some((trip.id, trip.begun));
                Some(Due::Lost(trip))
            }
            Probe::Never | Probe::Due(..) | Probe::UnderWay(_) => None,
        }
    }

    /// When [`Connection::due`] has something to say next, and because of what.
    pub(super) fn deadline(&self, config: &Config) -> Option<(Time, Timer)> {
        let ping = self.ping.as_ref().map(|ping| (ping.deadline(), Timer::Ping));
        let ack = self.ack.as_ref().map(|ack| (ack.deadline(), Timer::Ack));
        let probe = match self.probe {
            Probe::Never => None,
            Probe::Due(at, _) => Some((at, Timer::Probe)),
            Probe::UnderWay(trip) => {
                Some((trip.begun + config.probe_timeout.max(SHORTEST), Timer::Probe))
            }
        };
        [ping, ack, probe].into_iter().flatten().min()
    }

    /// When the service is asked next whether anything is missing: only silence has to be asked about, and only on a
    /// connection that is not in doubt.
    pub(super) fn next_look(&self) -> Option<Time> {
        let works = self.proved && self.doubt.is_none();
        let pause = self.look_pause.filter(|_| works)?;
        Some(self.looked.max(self.last_event) + pause)
    }

    /// It is asked now. Since when.
    pub(super) fn look(&mut self, now: Time, config: &Config, chance: &mut Chance) -> Time {
        self.look_pause = look_pause(config, chance);
        std::mem::replace(&mut self.looked, now)
    }

    /// Whether it was asked since this connection was opened.
    pub(super) fn has_looked(&self) -> bool {
        self.looked > self.opened
    }

    /// When the next routing round trip is begun, if the link has any; when this one was, if one is under way.
    pub(super) fn next_probe(&self) -> Option<Time> {
        match self.probe {
            Probe::Never => None,
            Probe::Due(at, _) => Some(at),
            Probe::UnderWay(trip) => Some(trip.begun),
        }
    }

    /// Lets one be begun at once, if the link has any. One that is under way serves the same end, and after one that
    /// failed only a person need not wait.
    pub(super) fn hasten_probe(&mut self, now: Time, cause: ProbeCause) {
        let asked = cause == ProbeCause::Asked;
        match &mut self.probe {
            Probe::Due(at, due) if asked || self.tries == 0 && *at > now => {
                (*at, *due) = (now, cause)
            }
            Probe::UnderWay(trip) if asked => trip.cause = cause,
            Probe::Never | Probe::Due(..) | Probe::UnderWay(_) => (),
        }
    }

    /// One was begun.
    pub(super) fn probing(&mut self, trip: Trip) {
        self.probe = Probe::UnderWay(trip);
    }

    /// The one that is under way.
    pub(super) fn trip(&self) -> Option<Trip> {
        match self.probe {
            Probe::UnderWay(trip) => Some(trip),
            Probe::Never | Probe::Due(..) => None,
        }
    }

    /// Gives up the one that is under way. If the connection is used again, there is another one at once.
    pub(super) fn forget_trip(&mut self, now: Time) -> Option<Trip> {
        let trip = self.trip()?;
        self.probe = Probe::Due(now, trip.cause);
        Some(trip)
    }

    /// When the routing round trip with this number was begun, if its coming back still proves something: it is under
    /// way, or it is the last one that was lost.
    pub(super) fn begun(&self, probe: ProbeId) -> Option<Time> {
        let under_way = self.trip().map(|trip| (trip.id, trip.begun));
        [under_way, self.late]
            .into_iter()
            .flatten()
            .find(|(id, _)| *id == probe)
            .map(|(_, begun)| begun)
    }

    /// A routing round trip came back: the next one has time, unless it is under way. It proves what was so when it was
    /// begun: it may have been on its way for long.
    pub(super) fn routed(
        &mut self,
        now: Time,
        (probe, begun): (ProbeId, Time),
        config: &Config,
        chance: &mut Chance,
    ) {
        let routing = self.proof(Level::Routing).max(Some(begun));
        self.prove(now, Level::Routing);
        if let Some(proof) = self.proofs.get_mut(Level::Routing as usize) {
            *proof = routing;
        }
        self.last_event = now;
        (self.lost, self.tries, self.late) = (0, 0, None);
        if let Some(interval) = &config.probe_interval
            && self.trip().is_none_or(|trip| trip.id == probe)
        {
            let pause = chance.between(interval).max(SHORTEST);
            self.probe = Probe::Due(now + pause, ProbeCause::Interval);
        }
    }

    /// The routing round trip said nothing of the routing, or that there is none: there is another one, at once after
    /// the first loss, else after a pause.
    pub(super) fn probe_again(
        &mut self,
        now: Time,
        at_once: bool,
        config: &Config,
        chance: &mut Chance,
    ) {
        let Some(interval) = &config.probe_interval else { return };
        let cause = match self.proved {
            _ if self.lost > 0 => ProbeCause::Doubt,
            true => ProbeCause::Interval,
            false => ProbeCause::Opened,
        };
        // No shorter than half: the service may be refusing just this.
        let longest = doubled(config.backoff_first, self.tries).min(*interval.start());
        let pause = if at_once { Duration::ZERO } else { longest / 2 + chance.up_to(longest / 2) };
        self.tries = self.tries.saturating_add(1);
        self.probe = Probe::Due(now + pause, cause);
    }

    /// It works, after all.
    pub(super) fn trust(&mut self) {
        self.doubt = None;
        for beat in [&mut self.ping, &mut self.ack].into_iter().flatten() {
            beat.missed = 0;
        }
    }
}

/// How long nothing may come before the service is asked whether that is so; links of one process do not ask in step.
fn look_pause(config: &Config, chance: &mut Chance) -> Option<Duration> {
    let interval = config.look_interval?;
    Some((interval - chance.up_to(interval / 4)).max(SHORTEST))
}

/// What a configuration may not go below: questions without a pause between them are no questions.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);

/// What a beat is due for.
enum Turn {
    Send,
    /// The how-manieth in a row is missing.
    Missed(u32),
}

impl Beat {
    /// One whose first question is due at once: the sooner a connection proves itself, the better.
    fn new(now: Time, every: Duration, timeout: Duration) -> Self {
        Self { every: every.max(SHORTEST), timeout, next: now, sent: None, missed: 0 }
    }

    fn due(&mut self, now: Time) -> Option<Turn> {
        match self.sent {
            Some(sent) if sent + self.timeout <= now => {
                self.sent = None;
                self.missed = self.missed.saturating_add(1);
                Some(Turn::Missed(self.missed))
            }
            None if self.next <= now => {
                self.sent = Some(now);
                self.next = now + self.every;
                Some(Turn::Send)
            }
            Some(_) | None => None,
        }
    }

    fn deadline(&self) -> Time {
        self.sent.map_or(self.next, |sent| sent + self.timeout)
    }

    fn answered(&mut self) {
        self.sent = None;
        self.missed = 0;
    }
}

/// `first` doubled so many times, as long as that can be said.
pub(super) fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(times.min(31)))
}
