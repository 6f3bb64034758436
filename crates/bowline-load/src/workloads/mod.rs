//! What sessions do while they are measured.

mod echo;
mod fanout;
mod idle;
pub(crate) mod meter;

use crate::{
    delays::Delays,
    error::Error,
    fleet::Fleet,
    plan::{Plan, Workload},
    progress::Progress,
    report::Report,
    server::Server,
    target::Target,
};

/// What each workload has at hand.
struct Run<'a> {
    plan: &'a Plan,
    server: &'a Server,
    fleet: Fleet,
    progress: &'a mut Progress,
}

/// What was sent and received, beside what was used.
#[derive(Default)]
struct Outcome {
    /// From sending, or from when it was due, until a message was there.
    latency: Delays,
    /// Until the last receiver had it.
    fanout: Delays,
    received: u64,
}

/// Measures.
pub(crate) fn run(
    plan: &Plan,
    target: &Target,
    server: &Server,
    progress: &mut Progress,
) -> Result<Report, Error> {
    let run = Run { plan, server, fleet: Fleet::new(plan, target)?, progress };
    match plan.workload {
        Workload::Idle | Workload::Join => run.idle(),
        Workload::Echo | Workload::Broadcast | Workload::Rooms => run.messages(),
    }
}

impl Run<'_> {
    /// Sends messages: a tenth to warm up, then all.
    fn messages(mut self) -> Result<Report, Error> {
        let before = self.server.rss_bytes()?;
        let joining = meter::Meter::start(self.server)?;
        self.join(self.plan.sessions)?;
        let joined = joining.end()?;
        let warm_up = self.part("warming up", 0.1)?;
        drop(warm_up);
        let meter = meter::Meter::start(self.server)?;
        let outcome = self.part(self.plan.workload.name(), 1.0)?;
        let used = meter.end()?;

        let mut report = used.report(self.plan, self.server, outcome.received);
        report.latency_us = outcome.latency.percentiles();
        report.fanout_us = outcome.fanout.percentiles();
        if let Some(figures) = &mut report.server {
            figures.rss_before_bytes = before;
            figures.rss_after_bytes = self.server.rss_bytes()?;
            figures.join_us = joined.server_cpu_us(self.plan.sessions as u64);
        }
        report.load.join_us = Some(joined.own_cpu_us(self.plan.sessions as u64));
        Ok(report)
    }

    /// So great a part of what is to be sent.
    fn part(&mut self, what: &str, part: f64) -> Result<Outcome, Error> {
        match self.plan.workload {
            Workload::Echo => self.echo(what, part),
            _ => self.fanout(what, part),
        }
    }

    fn join(&mut self, sessions: usize) -> Result<(), Error> {
        self.progress.begin("joining", sessions as u64);
        self.fleet.open(sessions, self.progress)
    }
}

/// A part of a number, but at least one.
fn part_of(number: usize, part: f64) -> usize {
    ((number as f64 * part).round() as usize).max(1)
}
