//! What the processes really do.

use std::{sync::Arc, time::Duration};

use bowline_fleet::{
    plan::{End, Instance},
    probe::Finding,
    spec::{Check, Service},
};
use bowline_proto::Time;

use super::not_ready;
use crate::rng::Rng;

/// A process, or what is left of it.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) instance: Instance,
    pub(super) service: Arc<Service>,
    /// The fingerprint of what it was started from.
    pub(super) made_from: u64,
    pub(super) nature: Nature,
    pub(super) pid: Option<u32>,
    pub(super) born: Time,
    /// From when on it can be used.
    pub(super) boots: Option<Time>,
    pub(super) crash: Option<(Time, End)>,
    /// Whether the leader is there.
    pub(super) leader: bool,
    /// Whether it leaves something behind: for so long, or until it is made to end.
    pub(super) behind: Option<Option<Duration>>,
    pub(super) adopted: bool,
    pub(super) told: bool,
    /// Whether it has said that it is ready.
    pub(super) said: bool,
}

/// What kind of process it is.
#[derive(Debug, Clone)]
pub(super) struct Nature {
    boots_after: Option<Duration>,
    crashes_after: Option<(Duration, End)>,
    pub(super) takes_to_end: Duration,
    /// It does not listen to signals.
    pub(super) stubborn: bool,
    /// It hangs in the kernel when it is killed.
    pub(super) stuck: bool,
    behind: Option<Option<Duration>>,
    /// How often of a hundred times a check fails.
    flaky: usize,
}

impl Nature {
    pub(super) fn random(rng: &mut Rng, calm: bool) -> Self {
        let millis = |rng: &mut Rng, bits| Duration::from_millis(rng.scaled(bits) as u64);
        let boots_after = Some(millis(rng, 13));
        let takes_to_end = millis(rng, 12);
        if calm {
            return Self {
                boots_after,
                crashes_after: None,
                takes_to_end,
                stubborn: false,
                stuck: false,
                behind: None,
                flaky: 0,
            };
        }
        let end = match rng.below(4) {
            0 => End::Code(0),
            1 => End::Signal(11),
            _ => End::Code(1),
        };
        let crashes_after = (!rng.one_in(3)).then(|| (millis(rng, 18), end));
        let behind = rng.one_in(5).then(|| (!rng.one_in(2)).then(|| millis(rng, 12)));
        Self {
            boots_after: if rng.one_in(10) { None } else { boots_after.map(|it| it * 3) },
            crashes_after,
            takes_to_end,
            stubborn: rng.one_in(8),
            stuck: rng.one_in(40),
            behind,
            flaky: if rng.one_in(2) { 0 } else { rng.below(40) },
        }
    }
}

impl Process {
    pub(super) fn new(instance: Instance, service: Arc<Service>, nature: Nature) -> Self {
        Self {
            instance,
            made_from: service.fingerprint(),
            service,
            behind: nature.behind,
            nature,
            pid: None,
            born: Time::ZERO,
            boots: None,
            crash: None,
            leader: false,
            adopted: false,
            told: false,
            said: false,
        }
    }

    pub(super) fn born(&mut self, now: Time, pid: u32) {
        self.pid = Some(pid);
        self.born = now;
        self.leader = true;
        self.boots = self.nature.boots_after.map(|after| now + after);
        self.crash = self.nature.crashes_after.map(|(after, end)| (now + after, end));
    }

    /// Another master has found it, and knows the service as it is now.
    pub(super) fn adopt(&mut self, instance: Instance, service: Arc<Service>) {
        self.instance = instance;
        self.adopted = true;
        self.service = service;
    }

    /// From now on it does as it should.
    pub(super) fn behave(&mut self, now: Time) {
        self.nature.flaky = 0;
        self.nature.stubborn = false;
        self.nature.crashes_after = None;
        self.crash = None;
        self.nature.boots_after = Some(Duration::from_secs(1));
        if self.leader {
            self.boots = Some(self.boots.unwrap_or(now).min(now + Duration::from_secs(5)));
        }
    }

    /// Whether its leader runs.
    pub(super) fn runs(&self) -> bool {
        self.pid.is_some() && self.leader
    }

    /// Whether it says itself that it is ready.
    pub(super) fn notifies(&self) -> bool {
        self.service.probes.ready.probes.iter().any(|probe| probe.check == Check::Notify)
    }

    /// What a check of it finds now.
    pub(super) fn finding(&self, now: Time, rng: &mut Rng) -> Finding {
        let up = self.runs() && self.boots.is_some_and(|at| at <= now);
        if up && rng.below(100) >= self.nature.flaky { Finding::Ready } else { not_ready(rng) }
    }
}
