//! A gateway's process.

use std::{
    env, io,
    net::TcpListener,
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use bowline_names::EnvVar;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    net::unix::pipe,
    time,
};

use super::{limit, plan::Report};
use crate::{
    charter::{Charter, Listener},
    handover::{self, Offer},
};

/// How long is waited for reports of a process that is gone: they are in the pipe already, unless
/// somebody else holds its end.
const LAST_REPORTS: Duration = Duration::from_millis(100);

/// A gateway's process.
pub(super) struct Child {
    process: tokio::process::Child,
    pid: u32,
}

/// What a gateway says about itself.
pub(super) struct Reports(Option<Lines<BufReader<pipe::Receiver>>>);

/// What a start brings.
pub(super) struct Started {
    pub(super) child: Child,
    pub(super) reports: Reports,
    pub(super) cord: UnixStream,
    /// What must be written to the cord first.
    pub(super) charter: Vec<u8>,
}

/// Starts a gateway.
///
/// # Errors
/// Those of the system.
pub(super) fn gateway(
    charter: &Charter,
    listeners: &[(Listener, TcpListener)],
) -> io::Result<Started> {
    let charter = handover::charter_bytes(charter)?;
    let Offer { stdin, cord, reports } = handover::offer(listeners)?;
    cord.set_nonblocking(true)?;
    let reports = pipe::Receiver::from_owned_fd(reports.into())?;
    let mut command = Command::new(program()?);
    command.arg0("bowline").arg("gateway").stdin(Stdio::from(stdin));
    // The service manager hears from the master alone.
    for name in [EnvVar::NotifySocket, EnvVar::WatchdogUsec, EnvVar::WatchdogPid] {
        command.env_remove(name.name());
    }
    let threshold = EnvVar::MallocMmapThreshold.name();
    if env::var_os(threshold).is_none() {
        command.env(threshold, limit::OWN_PAGES_BYTES.to_string());
    }
    let process = tokio::process::Command::from(command).spawn()?;
    let pid = process.id().unwrap_or_default();
    let reports = Reports(Some(BufReader::new(reports).lines()));
    Ok(Started { child: Child { process, pid }, reports, cord, charter })
}

/// The very program that runs, even if the file has been replaced.
fn program() -> io::Result<PathBuf> {
    let program = PathBuf::from("/proc/self/exe");
    if program.exists() { Ok(program) } else { env::current_exe() }
}

impl Child {
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }
}

impl Reports {
    /// Of a gateway that there is not.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Waits for the next report, for ever if there are no more.
    pub(super) async fn next(&mut self) -> Report {
        loop {
            let Some(lines) = &mut self.0 else { return std::future::pending().await };
            match lines.next_line().await {
                // What it cannot read is from another version, and not for this one.
                Ok(Some(line)) => match serde_json::from_str(&line) {
                    Ok(report) => return report,
                    Err(error) => tracing::debug!(%error, line, "a report is not understood"),
                },
                Ok(None) | Err(_) => self.0 = None,
            }
        }
    }

    /// What a process that is gone said last.
    pub(super) async fn rest(&mut self) -> Vec<Report> {
        let mut reports = Vec::new();
        let reading = async {
            while let Some(lines) = &mut self.0 {
                match lines.next_line().await {
                    Ok(Some(line)) => reports.extend(serde_json::from_str(&line)),
                    Ok(None) | Err(_) => self.0 = None,
                }
            }
        };
        // What did not come in time is not waited for.
        let _ = time::timeout(LAST_REPORTS, reading).await;
        reports
    }
}
