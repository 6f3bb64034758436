//! What the crew has of one instance of a service.

use std::{collections::BTreeMap, io, sync::Arc};

use bowline_proto::Time;
use regex::Regex;
use rustix::process::Signal;
use tokio::task::AbortHandle;

use crate::{
    logs::Pattern,
    os::{
        members::{Carriers, Members, Table},
        place::{Place, Record},
        process::{Key, Process},
        sweep,
    },
    plan::{Instance, Variant},
    probe::Surroundings,
    spec::{Check, Phase, Service},
};

/// One start of a service, or one that was taken over.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) service: Arc<Service>,
    pub(super) variant: Variant,
    pub(super) surroundings: Arc<Surroundings>,
    pub(super) life: Life,
    /// How many requests the service had been passed when this began.
    pub(super) requests_before: u64,
}

/// How far it is.
#[derive(Debug)]
pub(super) enum Life {
    /// What it needs is made ready. The plan waits for that with whatever it wants of it.
    Preparing,
    /// There is a process, or what it left.
    Made(Box<Made>),
}

/// A process and all that came of it.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) place: Place,
    pub(super) record: Record,
    /// None if a dead master has left descendants without it.
    pub(super) leader: Option<Arc<Process>>,
    pub(super) leads: Leads,
    pub(super) members: Members,
    /// Those who ran at the last look.
    pub(super) living: Vec<Key>,
    /// It is killed again and again until then.
    pub(super) kill_until: Option<Time>,
    /// Hear its end and its words.
    pub(super) ears: Vec<AbortHandle>,
}

/// How far the leader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leads {
    /// It runs.
    Still,
    /// It has ended, and its last lines are being read.
    Ended,
    /// The plan knows of it.
    Told,
}

/// All of them.
pub(super) type Instances = BTreeMap<Instance, Held>;

impl Held {
    pub(super) fn made(&mut self) -> Option<&mut Made> {
        match &mut self.life {
            Life::Made(made) => Some(made),
            Life::Preparing => None,
        }
    }
}

impl Made {
    /// Looks who is there.
    pub(super) fn look(&mut self, table: &Table, carriers: &mut Carriers) {
        self.living = self.members.look(table, carriers);
    }

    /// Sends a signal to the group of the leader. Without a leader there is nobody to tell its
    /// group what to do, so all that it left are told.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        if let Some(leader) = self.leader.as_ref().filter(|_| self.leads == Leads::Still)
            && leader.signal_group(signal)?
        {
            return Ok(());
        }
        match sweep::signal_all(&self.living, signal) {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }

    /// Kills all that were there at the last look.
    pub(super) fn kill(&self) -> io::Result<()> {
        let group = self.leader.as_ref().map(|leader| leader.signal_group(Signal::KILL));
        // Whoever has left the group is killed even if the group could not be.
        match sweep::signal_all(&self.living, Signal::KILL) {
            Some((_, error)) => Err(error),
            None => group.transpose().map(drop),
        }
    }

    /// Writes down who it is.
    pub(super) fn write(&self) {
        if let Err(error) = self.place.write(&self.record) {
            let service = &*self.record.service;
            tracing::error!(
                service,
                %error,
                "what runs cannot be written down: a server after this one will find it by its \
                 identity only"
            );
        }
    }
}

/// What is looked for in what a service prints.
pub(super) fn patterns(service: &Service) -> Vec<Pattern> {
    let checks = Phase::ALL.into_iter().flat_map(|phase| {
        let probes = service.probes.of(phase).probes.iter().enumerate();
        probes.map(move |(index, probe)| (phase, index, &probe.check))
    });
    checks
        .filter_map(|(phase, index, check)| {
            let Check::Log(pattern) = check else { return None };
            match Regex::new(pattern) {
                Ok(regex) => Some(Pattern { phase, index, regex }),
                Err(error) => {
                    // It was checked when the configuration was read.
                    tracing::error!(service = service.name, %error, "a pattern cannot be read");
                    None
                }
            }
        })
        .collect()
}
