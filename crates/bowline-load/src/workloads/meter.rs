//! What a while took of the server, of this tool and of the clock.

use std::time::{Duration, Instant};

use crate::{
    clock,
    delays::rounded,
    error::Error,
    plan::Plan,
    report::{LoadFigures, Report, ServerFigures},
    server::{Server, Usage, own_usage},
};

/// A while that has begun.
pub(crate) struct Meter<'a> {
    server: &'a Server,
    usage: Option<Usage>,
    own: Usage,
    begun: Instant,
}

/// A while that is over.
pub(crate) struct Used {
    server: Option<Usage>,
    own: Usage,
    pub(crate) time: Duration,
}

impl<'a> Meter<'a> {
    pub(crate) fn start(server: &'a Server) -> Result<Self, Error> {
        Ok(Self { server, usage: server.usage()?, own: own_usage()?, begun: clock::now() })
    }

    pub(crate) fn end(self) -> Result<Used, Error> {
        let time = clock::now() - self.begun;
        let since = |now: Usage, then: Usage| Usage {
            // The threads that have ended since are not counted any more.
            cpu: now.cpu.saturating_sub(then.cpu),
            context_switches: now.context_switches.saturating_sub(then.context_switches),
        };
        let server = self.server.usage()?.zip(self.usage).map(|(now, then)| since(now, then));
        Ok(Used { server, own: since(own_usage()?, self.own), time })
    }
}

impl Used {
    /// For each of so many things; none if nothing is known of the server.
    pub(crate) fn server_cpu_us(&self, things: u64) -> Option<f64> {
        self.server.map(|used| each(micros(used.cpu), things))
    }

    /// For each of so many things; none if nothing is known of the server.
    pub(crate) fn server_context_switches(&self, things: u64) -> Option<f64> {
        self.server.map(|used| each(used.context_switches as f64, things))
    }

    pub(super) fn server_cpu(&self) -> Option<Duration> {
        self.server.map(|used| used.cpu)
    }

    /// Two whiles as one.
    pub(super) fn and(&self, other: &Self) -> Self {
        let sum = |one: Usage, other: Usage| Usage {
            cpu: one.cpu + other.cpu,
            context_switches: one.context_switches + other.context_switches,
        };
        Self {
            server: self.server.zip(other.server).map(|(one, other)| sum(one, other)),
            own: sum(self.own, other.own),
            time: self.time + other.time,
        }
    }

    pub(crate) fn own_cpu_us(&self, things: u64) -> f64 {
        each(micros(self.own.cpu), things)
    }

    /// The figures of messages that arrived meanwhile.
    pub(super) fn report(&self, plan: &Plan, server: &Server, messages: u64) -> Report {
        let figures = self.server.map(|_| ServerFigures {
            pids: server.pids().to_vec(),
            cpu_us_per_message: self.server_cpu_us(messages),
            context_switches_per_message: self.server_context_switches(messages),
            ..ServerFigures::default()
        });
        Report {
            workload: plan.workload.name(),
            wire: plan.wire.name(),
            sessions: plan.sessions,
            messages,
            per_second: rounded(messages as f64 / self.time.as_secs_f64()),
            server: figures,
            load: LoadFigures {
                cpu_us_per_message: Some(self.own_cpu_us(messages)),
                ..LoadFigures::default()
            },
            latency_us: None,
            fanout_us: None,
        }
    }
}

pub(crate) fn each(sum: f64, things: u64) -> f64 {
    rounded(sum / things as f64)
}

pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
