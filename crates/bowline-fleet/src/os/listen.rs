//! The listening sockets of a service. They are bound once and outlive each of its processes: who
//! connects while there is none waits in the queue of the kernel.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            fs::{FileTypeExt as _, PermissionsExt as _},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    net::{AddressFamily, SocketAddrUnix, SocketType, bind, getsockname, listen, socket_with},
    net::{SocketFlags, sockopt},
    process::{PidfdGetfdFlags, pidfd_getfd},
};

use super::process::Process;
use crate::spec::Listen;

/// How many connections may wait to be accepted. The kernel's own limit (`net.core.somaxconn`,
/// 4096 by default) cuts it.
const BACKLOG: i32 = 4096;

/// One that is bound.
#[derive(Debug)]
pub struct Bound {
    address: Listen,
    socket: OwnedFd,
}

impl Bound {
    /// Binds an address. The file of a Unix socket that nobody listens on any more is replaced; a
    /// new one may be connected to by everybody who reaches its directory.
    ///
    /// # Errors
    /// Those of the system: `AddrInUse` if somebody listens there.
    pub fn bind(address: &Listen) -> io::Result<Self> {
        let socket = match address {
            Listen::Tcp(address) => tcp(*address)?,
            Listen::Unix(path) => unix(path)?,
        };
        Ok(Self { address: address.clone(), socket })
    }

    /// Takes the socket that listens on `address` from a process that was handed it by the server
    /// before this one; `None` if it has none or this process may not.
    pub fn take_from(process: &Process, address: &Listen) -> Option<Self> {
        let count = fs::read_dir(format!("/proc/{}/fd", process.pid())).ok()?.count();
        // Handed descriptors come first; a process that has closed them has no low numbers free for
        // long, so a few more are looked at.
        let last = i32::try_from(count.min(64)).unwrap_or(64) + 3;
        (3..last).find_map(|number| {
            let socket = pidfd_getfd(process, number, PidfdGetfdFlags::empty()).ok()?;
            let listens = sockopt::socket_acceptconn(&socket).unwrap_or(false);
            (listens && is_bound_to(&socket, address))
                .then(|| Self { address: address.clone(), socket })
        })
    }

    /// What it is bound to. With port 0 in the configuration, the one that the system chose.
    pub fn address(&self) -> Listen {
        match &self.address {
            Listen::Tcp(address) if address.port() == 0 => getsockname(&self.socket)
                .ok()
                .and_then(|name| SocketAddr::try_from(name).ok())
                .map_or_else(|| self.address.clone(), Listen::Tcp),
            address => address.clone(),
        }
    }

    /// What was asked for.
    pub fn asked(&self) -> &Listen {
        &self.address
    }

    /// Removes the file of a Unix socket. For a service that is no more.
    pub fn remove(self) {
        if let Listen::Unix(path) = &self.address {
            // Somebody else may have done so.
            let _ = fs::remove_file(path);
        }
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    // The standard library sets SO_REUSEADDR and a backlog of 128; the backlog can be raised.
    let socket = OwnedFd::from(TcpListener::bind(address)?);
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn unix(path: &Path) -> io::Result<OwnedFd> {
    match bind_unix(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && nobody_listens(path) => {
            fs::remove_file(path)?;
            bind_unix(path)
        }
        result => result,
    }
}

fn bind_unix(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Whether a socket lies there that a dead process has left.
fn nobody_listens(path: &Path) -> bool {
    let socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    socket && UnixStream::connect(path).is_err_and(refused)
}

fn is_bound_to(socket: &OwnedFd, address: &Listen) -> bool {
    match address {
        Listen::Tcp(address) => getsockname(socket)
            .ok()
            .and_then(|name| SocketAddr::try_from(name).ok())
            .is_some_and(|name| name == *address),
        Listen::Unix(path) => socket.try_clone().is_ok_and(|socket| {
            let name = UnixListener::from(socket).local_addr();
            name.is_ok_and(|name| name.as_pathname() == Some(path))
        }),
    }
}

/// What a service hears of its sockets as their names: those of one service are told apart by their
/// order, and by this.
pub fn fd_name(address: &Listen) -> String {
    match address {
        Listen::Tcp(address) => format!("tcp-{}", address.port()),
        Listen::Unix(path) => {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let plain =
                |char: char| if char.is_ascii_graphic() && char != ':' { char } else { '-' };
            name.chars().map(plain).take(64).collect()
        }
    }
}

/// The path of a Unix socket.
pub fn path(address: &Listen) -> Option<&PathBuf> {
    match address {
        Listen::Unix(path) => Some(path),
        Listen::Tcp(_) => None,
    }
}
