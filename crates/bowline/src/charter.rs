//! What the master tells a gateway when it starts it.
//!
//! A gateway reads neither arguments nor the configuration file: all it knows is written here, so
//! that one that is started after a crash runs what ran before, whatever the file says by then.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{config::Overrides, services::status::ServiceStatus};

/// A gateway's orders.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Charter {
    /// The configuration file as it was when it was last good.
    pub(crate) file: Option<ConfigFile>,
    /// What flags and environment said to the master.
    pub(crate) overrides: Overrides,
    /// The sockets that are handed over, in the order of their descriptors.
    pub(crate) listeners: Vec<Listener>,
    /// How often gateways were started again since the master started, by reason.
    pub(crate) restarts: BTreeMap<Reason, u64>,
    /// How the gateway before this one ended, in words.
    pub(crate) last_end: Option<String>,
    pub(crate) master_pid: u32,
    pub(crate) management: Management,
    /// What is so of the services when it is started.
    pub(crate) services: Vec<ServiceStatus>,
    /// Where the record and the control socket are, if there is such a place.
    pub(crate) state_dir: Option<PathBuf>,
    /// In which file a gateway leaves what the next one needs for clients that come back; none if
    /// there is no place that is this server's alone.
    pub(crate) state_file: Option<PathBuf>,
    /// When the master started, in milliseconds since 1970.
    pub(crate) started_unix_ms: u64,
    /// Seconds from the start of the master until all addresses were bound.
    pub(crate) bind_seconds: f64,
}

impl Charter {
    /// The addresses of one door's listeners, in their order.
    pub(crate) fn at(&self, door: Door) -> Vec<SocketAddr> {
        let listeners = self.listeners.iter().filter(|listener| listener.door == door);
        listeners.map(|listener| listener.address).collect()
    }
}

/// A configuration file that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConfigFile {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// A bound socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listener {
    pub(crate) door: Door,
    /// The address it has, with the port that the system chose where none was asked for.
    pub(crate) address: SocketAddr,
}

/// Whom a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Door {
    /// Clients.
    Public,
    /// Operators.
    Admin,
    /// Bots of links, on this machine.
    Links,
}

impl Door {
    /// The word that `status` shows.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Admin => "admin",
            Self::Links => "links",
        }
    }
}

/// Why a gateway was started again: the label of `bowline_gateway_restarts_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reason {
    /// It ended by itself after it had answered.
    Exited,
    /// A signal ended it that the master did not send.
    Killed,
    /// It ended by itself before it had answered, or could not be started at all.
    FailedToStart,
    /// It gave no sign of life and was killed by the master.
    Unresponsive,
}

impl Reason {
    /// Every reason, in the order of declaration.
    pub(crate) const ALL: [Self; 4] =
        [Self::Exited, Self::Killed, Self::FailedToStart, Self::Unresponsive];

    /// The value of the label.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Killed => "killed",
            Self::FailedToStart => "failed-to-start",
            Self::Unresponsive => "unresponsive",
        }
    }
}

/// Who looks after the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Management {
    /// Whoever typed `bowline serve`.
    Foreground,
    /// Nobody: `bowline start` left it running.
    Daemon,
    Systemd,
}

impl Management {
    /// The word that `bowline status` shows.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Foreground => "foreground",
            Self::Daemon => "daemon",
            Self::Systemd => "systemd",
        }
    }
}
