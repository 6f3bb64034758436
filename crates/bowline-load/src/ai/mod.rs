//! The load tool for models behind `/v1`: requests to any server that speaks OpenAI's chat API, and what is said of
//! them. One thread and one epoll as for sessions; connections are kept, every request is the same bytes, and of an
//! answer nothing is read but its head, where a stream's first content stands, and how it ends.
//!
//! There are two planes, as in Bowline itself: a request is what a client waits for, an attempt is one provider asked
//! once. A server that answers with the header `bowline-attempts` tells of its attempts; of another one there is a
//! single provider, `server`.

mod answer;
mod api;
mod attempts;
mod crowd;
mod events;
mod plan;
mod report;
pub mod soak;
mod supply;
mod tally;

pub use self::{
    api::Api,
    plan::{Key, Wishes},
    report::{AttemptFigures, LoadFigures, Report, RequestDelays, ServerFigures},
};
use self::{crowd::Crowd, supply::Supply, tally::Tally};
use crate::{clock, error::Error, limit, progress::Progress, server::Server, workloads::meter};

/// Measures a server with so many requests at once. A bar on stderr shows how far it is, if `watched`.
///
/// # Errors
/// What was asked for makes no sense, nobody listens there, or a process cannot be measured. The text says what to do.
/// Requests that fail are no error: they are counted.
pub fn measure(
    api: &Api,
    wishes: &Wishes,
    concurrency: usize,
    watched: bool,
) -> Result<Report, Error> {
    wishes.check(concurrency)?;
    let server = Server::new(&wishes.pids, api.address());
    let rss_before = server.rss_bytes()?;
    let mut rss_max = rss_before;
    let mut progress = Progress::new(watched);
    let mut crowd = Crowd::new(api, wishes, concurrency)?;
    crowd.connect()?;

    progress.begin("warming up", wishes.warm_up);
    crowd.run(Supply::in_turn(wishes.warm_up), &mut |_, tally| {
        progress.at(tally.requests);
        Ok(())
    })?;
    crowd.tally = Tally::default();

    let total = wishes.requests;
    progress.begin(&format!("{concurrency} at once"), total);
    let meter = meter::Meter::start(&server)?;
    let supply = match wishes.rate {
        Some(rate) => Supply::on_schedule(clock::now(), rate, total),
        None => Supply::in_turn(total),
    };
    crowd.run(supply, &mut |_, tally| {
        rss_max = rss_max.max(server.rss_bytes()?);
        progress.interval();
        progress.at(tally.requests);
        Ok(())
    })?;
    let used = meter.end()?;
    progress.end();

    let rss_after = server.rss_bytes()?;
    let mut report = Report::new(api, wishes, concurrency, &crowd.tally, used.time);
    let requests = crowd.tally.requests;
    report.server = used.server_cpu_us(requests).map(|cpu_us_per_request| ServerFigures {
        pids: server.pids().to_vec(),
        cpu_us_per_request,
        context_switches_per_request: used.server_context_switches(requests).unwrap_or_default(),
        rss_before_bytes: rss_before.unwrap_or_default(),
        rss_max_bytes: rss_max.max(rss_after).unwrap_or_default(),
        rss_after_bytes: rss_after.unwrap_or_default(),
    });
    report.load.cpu_us_per_request = used.own_cpu_us(requests);
    Ok(report)
}

/// A name from outside as it is printed and counted under: short, and nothing in it that a terminal acts on.
fn plain(text: &str) -> String {
    let graphic = text.chars().filter(|c| !c.is_control());
    graphic.take(limit::NAME_CHARS_MAX).collect()
}
