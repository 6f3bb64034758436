//! How descriptors and orders get from the master to a gateway.
//!
//! The gateway's stdin is one end of a socket pair, the *cord*. Over it come first, with a single
//! byte, the descriptors: where the gateway reports, then the listeners in the order of the
//! charter. Then the charter: its length and its JSON. After that both sides speak HTTP/2 on it.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut, PipeReader, Read as _, stdin},
    mem::MaybeUninit,
    net::TcpListener,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::{
    cmsg_space,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
    stdio::dup2_stdin,
};

use crate::charter::{Charter, Listener};

/// Descriptors that one message may carry: what Linux allows.
const DESCRIPTORS_MAX: usize = 253;

/// No charter is longer: it is mostly the configuration file.
const CHARTER_BYTES_MAX: u32 = 16 << 20;

/// The master's side of a gateway that is about to be started.
pub(crate) struct Offer {
    /// What shall be the gateway's stdin. The descriptors wait in it.
    pub(crate) stdin: OwnedFd,
    /// The other end. The [charter](charter_bytes) has yet to be written to it.
    pub(crate) cord: UnixStream,
    /// Where the gateway reports.
    pub(crate) reports: PipeReader,
}

/// The gateway's side.
pub(crate) struct Taken {
    pub(crate) charter: Charter,
    pub(crate) listeners: Vec<(Listener, TcpListener)>,
    pub(crate) cord: UnixStream,
    pub(crate) reports: File,
}

/// Prepares what a gateway is to get.
///
/// # Errors
/// Those of the system: no descriptors left, mostly.
pub(crate) fn offer(listeners: &[(Listener, TcpListener)]) -> io::Result<Offer> {
    let (cord, theirs) = UnixStream::pair()?;
    let (reports, writer) = io::pipe()?;
    let mut descriptors = vec![writer.as_fd()];
    descriptors.extend(listeners.iter().map(|(_, listener)| listener.as_fd()));
    send(&cord, &descriptors)?;
    Ok(Offer { stdin: theirs.into(), cord, reports })
}

fn send(cord: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if descriptors.len() > DESCRIPTORS_MAX
        || !control.push(SendAncillaryMessage::ScmRights(descriptors))
    {
        return Err(io::Error::other("more listeners than can be handed over"));
    }
    sendmsg(cord, &[IoSlice::new(&[0])], &mut control, SendFlags::empty())?;
    Ok(())
}

/// The charter as it is written to the cord.
///
/// # Errors
/// If it cannot be said in JSON: a path that is not UTF-8.
pub(crate) fn charter_bytes(charter: &Charter) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(charter)?;
    let length = u32::try_from(json.len()).ok().filter(|length| *length <= CHARTER_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::other("the configuration file is too long"))?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(json);
    Ok(bytes)
}

/// Takes what the master gave, and closes stdin.
///
/// # Errors
/// If this process was not started by a master.
pub(crate) fn take() -> io::Result<Taken> {
    let cord = UnixStream::from(stdin().as_fd().try_clone_to_owned()?);
    let mut descriptors = receive(&cord)?.into_iter();
    dup2_stdin(File::open("/dev/null")?)?;
    let reports = File::from(descriptors.next().ok_or(io::ErrorKind::InvalidData)?);
    let mut length = [0; 4];
    (&cord).read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > CHARTER_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut json = vec![0; length as usize];
    (&cord).read_exact(&mut json)?;
    let charter: Charter = serde_json::from_slice(&json)?;
    if charter.listeners.len() != descriptors.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let listeners = charter.listeners.iter().copied().zip(descriptors.map(TcpListener::from));
    Ok(Taken { listeners: listeners.collect(), charter, cord, reports })
}

fn receive(cord: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(cord, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    Ok(descriptors)
}
