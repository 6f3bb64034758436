//! The load tool: one thread, one epoll, frames encoded beforehand and no allocation for a message,
//! so that it costs less than the servers that it measures. `bowline bench` is its command line.
//!
//! A [`Workload`] says what sessions do, [`Wishes`] how much of it and over what, and [`measure`]
//! does it and returns a [`Report`]: what the server used by the system's own count, how long
//! messages took, and what this tool used itself. If that is more than the server used, the
//! server has been waiting for the tool. [`ai`] does the same for models behind `/v1`.

pub mod ai;
mod clock;
mod delays;
mod descriptors;
mod error;
mod fleet;
mod limit;
mod own;
mod plan;
mod progress;
mod report;
mod schedule;
mod server;
mod target;
mod wire;
mod workloads;

pub use self::{
    delays::{Percentiles, Spread},
    error::Error,
    own::OwnServer,
    plan::{Wire, Wishes, Workload},
    report::{LoadFigures, Report, ServerFigures},
    target::Target,
};
use crate::{plan::Plan, progress::Progress, server::Server};

/// Whether what was asked for makes sense.
///
/// # Errors
/// It does not. The text says what would.
pub fn check(workload: Workload, wishes: &Wishes) -> Result<(), Error> {
    Plan::new(workload, wishes).map(|_| ())
}

/// Measures a server. A bar on stderr shows how far it is, if `watched`.
///
/// # Errors
/// What was asked for makes no sense, the server does not answer as it should, or this system does
/// not have what it takes. The text says what to do.
pub fn measure(
    workload: Workload,
    wishes: &Wishes,
    target: &Target,
    watched: bool,
) -> Result<Report, Error> {
    let plan = Plan::new(workload, wishes)?;
    descriptors::prepare(&plan)?;
    let server = Server::new(&wishes.pids, target.address);
    let mut progress = Progress::new(watched);
    let report = workloads::run(&plan, target, &server, &mut progress);
    progress.end();
    report
}
