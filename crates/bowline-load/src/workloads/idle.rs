//! Sessions that join and then do nothing.

use std::time::Duration;

use super::{
    Run,
    meter::{Meter, each, micros},
};
use crate::{error::Error, plan::Workload, report::LoadFigures, report::Report};

/// How long the server may settle before its memory is read, where nothing else says so.
const SETTLE: Duration = Duration::from_secs(2);

impl Run<'_> {
    /// Lets all join, the first half first.
    pub(super) fn idle(mut self) -> Result<Report, Error> {
        let sessions = self.plan.sessions;
        let half = sessions / 2;
        let settles = self.plan.workload == Workload::Idle;
        let before = self.server.rss_bytes()?;
        let first = Meter::start(self.server)?;
        self.join(half)?;
        let first = first.end()?;
        if settles {
            self.settle(SETTLE.min(self.plan.duration))?;
        }
        let halfway = self.server.rss_bytes()?;
        let second = Meter::start(self.server)?;
        self.join(sessions)?;
        let second = second.end()?;
        let resting = Meter::start(self.server)?;
        if settles {
            self.settle(self.plan.duration)?;
        }
        let rested = resting.end()?;
        let after = self.server.rss_bytes()?;

        let count = sessions as u64;
        let joining = first.and(&second);
        let mut report = joining.report(self.plan, self.server, count);
        report.load =
            LoadFigures { join_us: Some(joining.own_cpu_us(count)), ..LoadFigures::default() };
        report.latency_us = self.fleet.crew.joins.percentiles();
        if let Some(figures) = &mut report.server {
            figures.join_us = figures.cpu_us_per_message.take();
            figures.context_switches_per_message = None;
            figures.rss_before_bytes = before;
            figures.rss_after_bytes = after;
            let growth = |from: Option<u64>, sessions: usize| {
                let grown = after? as f64 - from? as f64;
                Some(each(grown, sessions as u64))
            };
            figures.bytes_per_session = growth(before, sessions);
            if settles {
                figures.further_bytes_per_session = growth(halfway, sessions - half);
                let seconds = rested.time.as_secs_f64();
                figures.cpu_us_per_session_second =
                    rested.server_cpu().map(|cpu| each(micros(cpu) / seconds, count));
            }
        }
        Ok(report)
    }

    fn settle(&mut self, duration: Duration) -> Result<(), Error> {
        self.progress.begin("at rest", duration.as_millis().try_into().unwrap_or(u64::MAX));
        self.fleet.rest(duration, self.progress)
    }
}
