//! Who holds a port, as far as `/proc` tells.

use std::{
    collections::HashSet,
    fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// A process that listens.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) name: String,
    pub(crate) pid: u32,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// Finds a process that listens where `address` would. `None` where there is no `/proc`, or when
/// the process belongs to another user.
pub(crate) fn of(address: SocketAddr) -> Option<Holder> {
    let mut inodes = HashSet::new();
    for (file, width) in [("/proc/net/tcp", 8), ("/proc/net/tcp6", 32)] {
        let table = fs::read_to_string(file).unwrap_or_default();
        inodes.extend(table.lines().skip(1).filter_map(|line| listener(line, width, address)));
    }
    if inodes.is_empty() {
        return None;
    }
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Processes of others cannot be looked into.
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let inode =
                (target.to_str()).and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']'));
            if inode.is_some_and(|inode| inodes.contains(inode)) {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                return Some(Holder { name: name.trim().to_owned(), pid });
            }
        }
    }
    None
}

/// Returns the inode of a line of `/proc/net/tcp` if its socket listens in the way of `address`.
fn listener(line: &str, width: usize, address: SocketAddr) -> Option<String> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?;
    let (ip, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let ip = host(ip, width)?;
    let overlaps = ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified();
    (state == LISTEN && port == address.port() && overlaps).then(|| inode.to_owned())
}

/// Reads an address as the kernel writes it: words of 32 bits in the byte order of the machine.
fn host(text: &str, width: usize) -> Option<IpAddr> {
    if text.len() != width {
        return None;
    }
    let words: Option<Vec<u32>> =
        (0..width / 8).map(|i| u32::from_str_radix(&text[i * 8..][..8], 16).ok()).collect();
    let bytes: Vec<u8> = words?.into_iter().flat_map(u32::to_ne_bytes).collect();
    if let Ok(four) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(IpAddr::V4(Ipv4Addr::from(four)));
    }
    let sixteen = <[u8; 16]>::try_from(bytes.as_slice()).ok()?;
    Some(IpAddr::V6(Ipv6Addr::from(sixteen)).to_canonical())
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, process};

    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_listener_of_this_process_is_found() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = of(socket.local_addr().unwrap()).unwrap();
        assert_eq!(holder.pid, process::id());
        assert!(!holder.name.is_empty());
    }

    #[test]
    fn a_connection_is_not_a_listener() {
        let line = "   0: 0100007F:1F40 0100007F:A001 01 00000000:00000000 00:00000000 00000000  \
                    1000        0 12345 1 0000000000000000 20 4 30 10 -1";
        let address = SocketAddr::from(([127, 0, 0, 1], 8000));
        assert_eq!(listener(line, 8, address), None);
        let listening = line.replace(" 01 ", " 0A ");
        #[cfg(target_endian = "little")]
        assert_eq!(listener(&listening, 8, address), Some("12345".to_owned()));
    }
}
