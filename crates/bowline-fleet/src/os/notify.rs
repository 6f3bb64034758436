//! The socket on which a service says how it is (`sd_notify(3)`).
//!
//! Its name is in the abstract namespace: a service that runs as another user reaches it although
//! the state directory is closed to it, a path cannot be too long, and the next server gets the same
//! name again for a service that it takes over. Who knows the name knows the identity of the
//! instance; nevertheless a sender that lives and does not belong to the instance is not heard.

use std::{
    io,
    mem::MaybeUninit,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg,
    sockopt::set_socket_passcred,
};

use tokio::io::Interest;

use crate::{plan::Word, probe::Progress};

/// As much as systemd takes in one message.
const MESSAGE_BYTES_MAX: usize = 4096;

/// As much of a status as is kept.
const STATUS_CHARS_MAX: usize = 256;

/// The socket of one instance.
#[derive(Debug)]
pub struct NotifySocket {
    socket: tokio::net::UnixDatagram,
}

/// What came in one message.
#[derive(Debug)]
pub struct Message {
    /// The process that sent it, by number; 0 if the system does not say.
    pub pid: u32,
    /// What it says.
    pub words: Vec<Word>,
    /// The process that it names as the main one (`MAINPID=`). That is not followed: the process
    /// that was started is the service.
    pub main_pid: Option<u32>,
}

impl NotifySocket {
    /// Binds the socket of the instance `identity`. Needs a runtime.
    ///
    /// # Errors
    /// Those of the system: `AddrInUse` if somebody has the name.
    pub fn bind(identity: &str) -> io::Result<Self> {
        let address = SocketAddr::from_abstract_name(name(identity))?;
        let socket = UnixDatagram::bind_addr(&address)?;
        socket.set_nonblocking(true)?;
        set_socket_passcred(&socket, true)?;
        Ok(Self { socket: tokio::net::UnixDatagram::from_std(socket)? })
    }

    /// What stands in `NOTIFY_SOCKET` for it.
    pub fn address(identity: &str) -> String {
        format!("@{}", name(identity))
    }

    /// The next message.
    ///
    /// # Errors
    /// Those of the system.
    pub async fn receive(&self) -> io::Result<Message> {
        self.socket.async_io(Interest::READABLE, || receive(&self.socket)).await
    }
}

fn receive(socket: &tokio::net::UnixDatagram) -> io::Result<Message> {
    let mut bytes = [0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [io::IoSliceMut::new(&mut bytes)];
    // There is room for credentials only: descriptors that are sent along (for a barrier or to be
    // kept) are closed by the kernel, which is what a barrier waits for.
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(socket, &mut parts, &mut ancillary, flags)?;
    let mut pid = 0;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmCredentials(credentials) = message {
            pid = credentials.pid.as_raw_nonzero().get().unsigned_abs();
        }
    }
    let whole = !received.flags.contains(ReturnFlags::TRUNC);
    let said = if whole { &bytes[..received.bytes] } else { &[] };
    let (words, main_pid) = parse(said);
    Ok(Message { pid, words, main_pid })
}

fn name(identity: &str) -> String {
    format!("bowline-service/{identity}")
}

fn parse(message: &[u8]) -> (Vec<Word>, Option<u32>) {
    let text = String::from_utf8_lossy(message);
    let mut progress = None;
    let mut main_pid = None;
    let mut words: Vec<Word> = text
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once('=')?;
            match (name, value.trim()) {
                ("READY", "1") => Some(Word::Ready),
                ("STOPPING", "1") => Some(Word::Stopping),
                ("WATCHDOG", "1") => Some(Word::Watchdog),
                ("STATUS", said) => {
                    progress = progress.or_else(|| progress_in(said));
                    Some(Word::Status(said.chars().take(STATUS_CHARS_MAX).collect()))
                }
                ("X_BOWLINE_PROGRESS", value) => {
                    progress = parts(value).or_else(|| percent(value)).or(progress);
                    None
                }
                ("EXTEND_TIMEOUT_USEC", value) => {
                    value.parse().ok().map(|micros| Word::Extend(Duration::from_micros(micros)))
                }
                ("MAINPID", value) => {
                    main_pid = value.parse().ok();
                    None
                }
                _ => None,
            }
        })
        .collect();
    words.extend(progress.map(Word::Progress));
    (words, main_pid)
}

/// The first number before a `%`.
fn progress_in(words: &str) -> Option<Progress> {
    let before = words[..words.find('%')?].trim_end();
    let digit = |char: char| char.is_ascii_digit() || char == '.';
    percent(&before[before.trim_end_matches(digit).len()..])
}

/// `40`, `40.5` or `40%`.
fn percent(value: &str) -> Option<Progress> {
    let value: f64 = value.trim_end_matches('%').trim_end().parse().ok()?;
    // Between 0 and 100 nothing is cut off but the fraction.
    value.is_finite().then(|| Progress::Percent(value.clamp(0.0, 100.0) as u8))
}

/// `3/6`
fn parts(value: &str) -> Option<Progress> {
    let (done, of) = value.split_once('/')?;
    Some(Progress::Parts { done: done.trim().parse().ok()?, of: of.trim().parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(message: &[u8]) -> Vec<Word> {
        parse(message).0
    }

    #[test]
    fn each_line_is_a_word() {
        let said = b"READY=1\nSTATUS=Engine 3 of 6\nEXTEND_TIMEOUT_USEC=2000000\nFDSTORE=1\nx";
        let expected = [
            Word::Ready,
            Word::Status("Engine 3 of 6".to_owned()),
            Word::Extend(Duration::from_secs(2)),
        ];
        assert_eq!(words(said), expected);
        assert_eq!(parse(b"MAINPID=12\nWATCHDOG=1"), (vec![Word::Watchdog], Some(12)));
    }

    #[test]
    fn progress_is_found_where_it_is_said() {
        let percent = |value| Word::Progress(Progress::Percent(value));
        assert_eq!(words(b"X_BOWLINE_PROGRESS=40"), [percent(40)]);
        assert_eq!(words(b"X_BOWLINE_PROGRESS=140%"), [percent(100)]);
        let parts = Word::Progress(Progress::Parts { done: 3, of: 6 });
        assert_eq!(words(b"X_BOWLINE_PROGRESS=3/6"), [parts]);
        assert_eq!(words("STATUS=läd→12.5 % done".as_bytes())[1], percent(12));
        assert_eq!(words(b"STATUS=no % here").len(), 1);
        assert_eq!(words(b"STATUS=1%\nX_BOWLINE_PROGRESS=2").last(), Some(&percent(2)));
        assert_eq!(words(b"X_BOWLINE_PROGRESS=NaN"), []);
    }

    #[tokio::test]
    async fn the_sender_is_known() {
        let socket = NotifySocket::bind(&format!("test-{}", std::process::id())).unwrap();
        let address = SocketAddr::from(socket.socket.local_addr().unwrap());
        UnixDatagram::unbound().unwrap().send_to_addr(b"READY=1", &address).unwrap();
        let message = socket.receive().await.unwrap();
        assert_eq!((message.pid, message.words), (std::process::id(), vec![Word::Ready]));
    }
}
