//! What the system says of the server's processes, from `/proc`, and of this one.

use std::{collections::BTreeSet, fs, io, net::SocketAddr, time::Duration};

use crate::error::Error;

/// The processes of the server that is measured. None are known of one on another machine.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pids: Vec<u32>,
}

/// What processes have used so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) context_switches: u64,
}

/// What processes have open.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Descriptors {
    pub(crate) all: u64,
    pub(crate) sockets: u64,
}

impl Server {
    /// These processes, or whoever listens there.
    pub(crate) fn new(pids: &[u32], address: SocketAddr) -> Self {
        if pids.is_empty() {
            Self { pids: listeners(address) }
        } else {
            Self { pids: pids.to_vec() }
        }
    }

    pub(crate) fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// None if no process is known.
    pub(crate) fn usage(&self) -> Result<Option<Usage>, Error> {
        let mut sum = Usage::default();
        for pid in &self.pids {
            let one = usage(&pid.to_string()).map_err(|error| self.unknown(*pid, &error))?;
            sum.cpu += one.cpu;
            sum.context_switches += one.context_switches;
        }
        Ok((!self.pids.is_empty()).then_some(sum))
    }

    /// Resident bytes, shared pages included; none if no process is known.
    pub(crate) fn rss_bytes(&self) -> Result<Option<u64>, Error> {
        let mut sum = 0;
        for pid in &self.pids {
            let kib = fs::read_to_string(format!("/proc/{pid}/status"))
                .and_then(|status| field(&status, "VmRSS:"))
                .map_err(|error| self.unknown(*pid, &error))?;
            sum += kib * 1024;
        }
        Ok((!self.pids.is_empty()).then_some(sum))
    }

    /// None if no process is known.
    pub(crate) fn descriptors(&self) -> Result<Option<Descriptors>, Error> {
        let mut sum = Descriptors::default();
        for pid in &self.pids {
            let folder = format!("/proc/{pid}/fd");
            let entries = fs::read_dir(&folder).map_err(|error| self.unknown(*pid, &error))?;
            for entry in entries.flatten() {
                let link = fs::read_link(entry.path());
                let socket = link.is_ok_and(|link| link.to_string_lossy().starts_with("socket:"));
                sum.all += 1;
                sum.sockets += u64::from(socket);
            }
        }
        Ok((!self.pids.is_empty()).then_some(sum))
    }

    fn unknown(&self, pid: u32, error: &io::Error) -> Error {
        Error::failed(format!(
            "the process {pid} cannot be measured: {error}; is it the one that --pid should name?"
        ))
    }
}

/// What this process has used.
pub(crate) fn own_usage() -> Result<Usage, Error> {
    usage("self").map_err(Error::io("/proc/self"))
}

/// The time that the threads of a process have run, by the scheduler's own count: `/proc/PID/stat`
/// counts in hundredths of a second, which is coarse for a short measurement.
fn usage(pid: &str) -> io::Result<Usage> {
    let mut sum = Usage::default();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        // A thread may end between the two reads.
        let Ok(ran) = fs::read_to_string(task.join("schedstat")) else { continue };
        let Ok(status) = fs::read_to_string(task.join("status")) else { continue };
        let ran = ran.split_whitespace().next().and_then(|field| field.parse().ok());
        sum.cpu += Duration::from_nanos(ran.ok_or_else(|| io::Error::other("no CPU time"))?);
        for name in ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"] {
            sum.context_switches += field(&status, name)?;
        }
    }
    Ok(sum)
}

/// The number behind a name.
fn field(status: &str, name: &str) -> io::Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| io::Error::other(format!("there is no {name}")))
}

/// The processes of this machine that listen at an address. One that has handed its socket to a
/// child, as Bowline's master does, does not serve itself.
fn listeners(address: SocketAddr) -> Vec<u32> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let sockets: BTreeSet<String> = (tables.iter())
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listening(&table, address.port()))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() || !is_here(address) {
        return Vec::new();
    }
    let holders: Vec<u32> = numbers_in("/proc").filter(|pid| holds(*pid, &sockets)).collect();
    let parents: BTreeSet<u32> = holders.iter().filter_map(|pid| parent(*pid)).collect();
    holders.into_iter().filter(|pid| !parents.contains(pid)).collect()
}

/// Whether an address is one of this machine: only then can it be bound.
fn is_here(address: SocketAddr) -> bool {
    std::net::UdpSocket::bind((address.ip(), 0)).is_ok()
}

/// The inodes of the sockets of such a table that listen at a port.
fn listening(table: &str, port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let row = |line: &str| {
        let mut fields = line.split_whitespace();
        let (_, local) = fields.nth(1)?.rsplit_once(':')?;
        let here = u16::from_str_radix(local, 16).ok()? == port && fields.nth(1)? == LISTEN;
        here.then(|| fields.nth(5)?.parse().ok()).flatten()
    };
    table.lines().skip(1).filter_map(row).collect()
}

fn numbers_in(folder: &str) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn holds(pid: u32, sockets: &BTreeSet<String>) -> bool {
    let folder = format!("/proc/{pid}/fd");
    numbers_in(&folder).any(|fd| {
        let link = fs::read_link(format!("{folder}/{fd}"));
        link.is_ok_and(|link| link.to_str().is_some_and(|link| sockets.contains(link)))
    })
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    u32::try_from(field(&status, "PPid:").ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_process_is_found_by_where_it_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::new(&[], listener.local_addr().unwrap());
        assert_eq!(server.pids(), [std::process::id()]);
        assert!(server.usage().unwrap().unwrap().cpu > Duration::ZERO);
        assert!(server.rss_bytes().unwrap().unwrap() > 100_000);
        let Descriptors { all, sockets } = server.descriptors().unwrap().unwrap();
        assert!(sockets >= 1 && all > sockets, "{sockets} of {all}");
    }

    #[test]
    fn of_a_server_elsewhere_nothing_is_known() {
        let server = Server::new(&[], "192.0.2.1:80".parse().unwrap());
        assert!(server.pids().is_empty());
        assert!(server.usage().unwrap().is_none() && server.rss_bytes().unwrap().is_none());
    }

    #[test]
    fn only_sockets_that_listen_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0 0 10 0
   1: 0100007F:1F40 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 4243 1 0 100 0 0 10 0
   2: 0100007F:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4244 1 0 100 0 0 10 0
";
        assert_eq!(listening(table, 8000), [4242]);
    }
}
