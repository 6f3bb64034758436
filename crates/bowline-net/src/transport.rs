//! The WebSockets of one shard: descriptors, decoders, and what waits to be written.
//!
//! They have left tokio and hyper: an idle one is an entry in a slab and nothing else. The kernel
//! tells of them through one [`mio::Poll`], whose own descriptor tokio watches.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, Read, Write},
    net::{Shutdown, TcpStream},
    os::fd::AsRawFd,
    task::{Context as TaskContext, Poll, ready},
    time::Duration,
};

use bowline_proto::{
    Time, TransportId,
    websocket::{Decoder, Role, close_frame},
};
use bytes::{Buf, Bytes};
use mio::{Events, Interest, Token, unix::SourceFd};
use rustls::ServerConnection;
use tokio::io::{Interest as TokioInterest, unix::AsyncFd};

use crate::{admission::Permit, limit};

/// The WebSockets of one shard.
pub(crate) struct Transports {
    slots: Vec<Slot>,
    free: Vec<u32>,
    live: usize,
    readiness: AsyncFd<mio::Poll>,
    events: Events,
    /// The kernel may have more events than were taken.
    more_events: bool,
    /// Those with something new to write.
    touched: Vec<TransportId>,
    /// Bytes that were appended since they were last flushed.
    fresh_bytes: usize,
    /// Those with something left to read that the kernel will not tell of again.
    pub(crate) unread: VecDeque<TransportId>,
    /// The time of this turn.
    pub(crate) now: Time,
    /// Those that were closed from this side, by when they are let go.
    lingering: VecDeque<(Time, TransportId)>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

struct Slot {
    generation: u32,
    transport: Option<Transport>,
}

/// One WebSocket.
pub(crate) struct Transport {
    stream: TcpStream,
    pub(crate) decoder: Decoder,
    out: Out,
    pub(crate) state: State,
    pub(crate) deflate: bool,
    /// `engine.max-payload` as its session was told.
    pub(crate) max_message_bytes: usize,
    /// Whether the server opened it itself, from outside: its end is not counted.
    pub(crate) own: bool,
    /// When bytes last went either way.
    pub(crate) active: Time,
    /// Listed in `touched`.
    touched: bool,
    /// Listed in `unread`.
    unread: bool,
    /// The kernel took less than it was given and will say when it takes more.
    blocked: bool,
    /// The hub was told that bytes were left.
    lagging: bool,
    /// The peer will send nothing more; what it sent may still be there to read.
    ended: bool,
    _permit: Permit,
}

/// Who knows of a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The hub does.
    Open,
    /// Only the shell: a close frame is on its way, and whatever the peer sends is dropped.
    Closing,
    /// The same, and the close frame is out.
    Closed,
}

/// What waits to be written.
enum Out {
    Empty,
    /// One frame, shared with all its receivers.
    One(Bytes),
    Many(Box<Queue>),
    /// What waits to be sealed first. It stands here, and not beside the socket, so that sockets
    /// without TLS are no larger for it.
    Sealed(Box<Sealed>),
}

/// The TLS of a WebSocket, its handshake done.
struct Sealed {
    connection: ServerConnection,
    /// What waits to be sealed; never `Sealed` itself.
    plain: Out,
    /// Bytes that were sealed, of which some are not written yet.
    sealed_bytes: usize,
    /// Nothing follows what waits.
    closing: bool,
}

/// Frames behind one another.
#[derive(Default)]
struct Queue {
    chunks: VecDeque<Chunk>,
    bytes: usize,
}

enum Chunk {
    /// A large frame, shared with all its receivers.
    Shared(Bytes),
    /// Small frames, copied together; those before `at` are written.
    Own { bytes: Vec<u8>, at: usize },
}

/// What the kernel said of one socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) id: TransportId,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// How a read went.
pub(crate) enum ReadOutcome {
    /// So many bytes are in the scratch buffer. `more` says that there may be more to read.
    Some {
        bytes: usize,
        more: bool,
    },
    Nothing,
    Ended,
    Failed,
}

/// How a flush went.
pub(crate) enum FlushOutcome {
    /// There is no such socket any more.
    Gone,
    /// All was written.
    Done,
    /// All was written, after a time when it was not.
    CaughtUp,
    /// So many bytes were left.
    Left(usize),
    Failed,
}

impl Transports {
    /// # Errors
    ///
    /// The system gave no epoll descriptor, or tokio could not watch it.
    pub(crate) fn new() -> io::Result<Self> {
        #[expect(unsafe_code, reason = "tokio cannot know that a poll keeps its descriptor")]
        // SAFETY: the poll owns its descriptor, never changes it, and moves into the `AsyncFd`,
        // which takes it out of the driver before it is dropped.
        let readiness =
            unsafe { AsyncFd::register_with_interest(mio::Poll::new()?, TokioInterest::READABLE)? };
        Ok(Self {
            slots: Vec::new(),
            free: Vec::new(),
            live: 0,
            readiness,
            events: Events::with_capacity(limit::EVENTS_PER_TURN),
            more_events: false,
            touched: Vec::new(),
            fresh_bytes: 0,
            unread: VecDeque::new(),
            now: Time::ZERO,
            lingering: VecDeque::new(),
            bytes_in: 0,
            bytes_out: 0,
        })
    }

    /// Takes a socket in. It is reported as readable at once, so nothing that came before is lost.
    ///
    /// # Errors
    ///
    /// The kernel would not watch it; it is closed.
    pub(crate) fn insert(
        &mut self,
        stream: TcpStream,
        tls: Option<Box<ServerConnection>>,
        deflate: bool,
        permit: Permit,
    ) -> io::Result<TransportId> {
        // What came early lies decrypted with the connection, and the kernel knows nothing of it.
        let unread = tls.is_some();
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(Slot { generation: 0, transport: None });
                (self.slots.len() - 1) as u32
            }
        };
        let entry = &mut self.slots[slot as usize];
        let id = TransportId(u64::from(entry.generation) << 32 | u64::from(slot));
        // Both at once and edge-triggered: no later call is needed when a write would block.
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.readiness.get_ref().registry();
        let fd = stream.as_raw_fd();
        if let Err(error) = registry.register(&mut SourceFd(&fd), token(id), interest) {
            self.free.push(slot);
            return Err(error);
        }
        entry.transport = Some(Transport {
            stream,
            decoder: Decoder::new(Role::Server),
            out: tls.map_or(Out::Empty, |connection| Out::Sealed(Sealed::new(*connection))),
            state: State::Open,
            deflate,
            max_message_bytes: 0,
            own: false,
            active: self.now,
            touched: false,
            unread: false,
            blocked: false,
            lagging: false,
            ended: false,
            _permit: permit,
        });
        self.live += 1;
        if unread {
            self.read_later(id);
        }
        Ok(id)
    }

    pub(crate) fn get_mut(&mut self, id: TransportId) -> Option<&mut Transport> {
        let slot = self.slots.get_mut(id.0 as u32 as usize)?;
        if slot.generation != (id.0 >> 32) as u32 {
            return None;
        }
        slot.transport.as_mut()
    }

    /// Closes a socket and forgets it.
    pub(crate) fn remove(&mut self, id: TransportId) {
        let slot = id.0 as u32;
        let Some(entry) = self.slots.get_mut(slot as usize) else { return };
        if entry.generation == (id.0 >> 32) as u32 && entry.transport.take().is_some() {
            // The kernel forgets a descriptor when it is closed.
            entry.generation = entry.generation.wrapping_add(1);
            self.free.push(slot);
            self.live -= 1;
        }
    }

    /// How many sockets there are.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// Waits until the kernel has events.
    pub(crate) fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        // The readiness is taken back before the events are fetched, so one that comes after the
        // fetch is told again.
        ready!(self.readiness.poll_read_ready(cx))?.clear_ready();
        self.more_events = true;
        Poll::Ready(Ok(()))
    }

    /// Whether there is something to do without waiting.
    pub(crate) fn has_more(&self) -> bool {
        self.has_unread() || self.has_touched()
    }

    /// Whether there may be something to read.
    pub(crate) fn has_unread(&self) -> bool {
        self.more_events || !self.unread.is_empty()
    }

    /// Fetches the events that are there.
    pub(crate) fn take_events(&mut self, into: &mut Vec<Ready>) -> io::Result<()> {
        if !self.more_events {
            return Ok(());
        }
        match self.readiness.get_mut().poll(&mut self.events, Some(Duration::ZERO)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        let mut count = 0;
        for event in &self.events {
            count += 1;
            let id = TransportId(event.token().0 as u64);
            let over = event.is_read_closed() || event.is_error();
            into.push(Ready {
                id,
                readable: event.is_readable() || over,
                writable: event.is_writable(),
            });
            if over
                && let Some(transport) = {
                    let slot = self.slots.get_mut(id.0 as u32 as usize);
                    let slot = slot.filter(|slot| slot.generation == (id.0 >> 32) as u32);
                    slot.and_then(|slot| slot.transport.as_mut())
                }
            {
                transport.ended = true;
            }
        }
        self.more_events = count == limit::EVENTS_PER_TURN;
        Ok(())
    }

    /// Reads once. Less than a full buffer means that the kernel will tell of anything more.
    pub(crate) fn read(&mut self, id: TransportId, scratch: &mut [u8]) -> ReadOutcome {
        let Some(transport) = self.get_mut(id) else { return ReadOutcome::Nothing };
        if let Out::Sealed(sealed) = &mut transport.out {
            let outcome = sealed.read(&transport.stream, scratch);
            if sealed.connection.wants_write() {
                self.touch(id);
            }
            if let ReadOutcome::Some { bytes, .. } = outcome {
                self.bytes_in += bytes as u64;
            }
            return outcome;
        }
        let bytes = loop {
            match (&transport.stream).read(scratch) {
                Ok(0) => return ReadOutcome::Ended,
                Ok(bytes) => break bytes,
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => return ReadOutcome::Nothing,
                    _ => return ReadOutcome::Failed,
                },
            }
        };
        let more = bytes == scratch.len() || transport.ended;
        self.bytes_in += bytes as u64;
        ReadOutcome::Some { bytes, more }
    }

    /// Remembers a socket that has more to read than its turn allowed.
    pub(crate) fn read_later(&mut self, id: TransportId) {
        if let Some(transport) = self.get_mut(id)
            && !transport.unread
        {
            transport.unread = true;
            self.unread.push_back(id);
        }
    }

    /// Takes the next of those that were remembered.
    pub(crate) fn next_unread(&mut self) -> Option<TransportId> {
        let id = self.unread.pop_front()?;
        if let Some(transport) = self.get_mut(id) {
            transport.unread = false;
        }
        Some(id)
    }

    /// Appends a frame that others get too.
    pub(crate) fn send_shared(&mut self, id: TransportId, frame: &Bytes) {
        if let Some(transport) = self.get_mut(id)
            && transport.state == State::Open
        {
            match &mut transport.out {
                // Small frames behind others are copied: that needs no count of who shares them.
                Out::Many(queue) if frame.len() <= limit::COALESCE_BYTES => queue.copy(frame),
                out => out.push(frame.clone()),
            }
            self.fresh_bytes += frame.len();
            self.touch(id);
        }
    }

    /// Appends a frame.
    pub(crate) fn send(&mut self, id: TransportId, frame: Bytes) {
        if let Some(transport) = self.get_mut(id)
            && transport.state == State::Open
        {
            let bytes = frame.len();
            transport.out.push(frame);
            self.fresh_bytes += bytes;
            self.touch(id);
        }
    }

    /// Says to the peer that this is the end, after all that is queued. `now` begins the time it
    /// has to hear it. Does nothing for a socket that was closed already.
    pub(crate) fn close(&mut self, now: Time, id: TransportId, code: Option<u16>) {
        let Some(transport) = self.get_mut(id) else { return };
        if transport.state != State::Open {
            return;
        }
        transport.out.push(close_frame(code, "", None));
        if let Out::Sealed(sealed) = &mut transport.out {
            sealed.closing = true;
        }
        transport.state = State::Closing;
        self.lingering.push_back((now + limit::LINGER, id));
        self.touch(id);
    }

    /// Notes that a socket has something to write, or can write again.
    pub(crate) fn touch(&mut self, id: TransportId) {
        if let Some(transport) = self.get_mut(id)
            && !transport.touched
        {
            transport.touched = true;
            self.touched.push(id);
        }
    }

    /// The kernel takes bytes of this socket again.
    pub(crate) fn unblock(&mut self, id: TransportId) {
        if let Some(transport) = self.get_mut(id)
            && transport.blocked
        {
            transport.blocked = false;
            self.touch(id);
        }
    }

    /// Takes the sockets that have something to write, in the order in which they got it. Give the
    /// list back empty.
    pub(crate) fn take_touched(&mut self) -> Vec<TransportId> {
        self.fresh_bytes = 0;
        std::mem::take(&mut self.touched)
    }

    /// Takes back the memory of a list, for the next one.
    pub(crate) fn reuse_touched(&mut self, mut list: Vec<TransportId>) {
        if self.touched.is_empty() {
            list.clear();
            self.touched = list;
        }
    }

    /// Whether a socket has something new to write.
    pub(crate) fn has_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Whether so much waits to be written that the turn should not gather more.
    pub(crate) fn is_full(&self) -> bool {
        self.fresh_bytes > limit::TURN_BYTES
    }

    /// Writes what a socket has to write.
    pub(crate) fn flush(&mut self, id: TransportId) -> FlushOutcome {
        let now = self.now;
        let Some(transport) = self.get_mut(id) else { return FlushOutcome::Gone };
        transport.touched = false;
        if transport.blocked {
            return FlushOutcome::Left(transport.out.len());
        }
        transport.active = now;
        let lagged = std::mem::take(&mut transport.lagging);
        let mut written = 0;
        let result = transport.out.write_to(&transport.stream, &mut written);
        let outcome = match result {
            Ok(true) => {
                if transport.state == State::Closing {
                    transport.state = State::Closed;
                    // Fails only if the connection is gone, which reading will tell.
                    let _ = transport.stream.shutdown(Shutdown::Write);
                }
                if lagged { FlushOutcome::CaughtUp } else { FlushOutcome::Done }
            }
            Ok(false) => {
                transport.blocked = true;
                transport.lagging = true;
                FlushOutcome::Left(transport.out.len())
            }
            Err(_) => FlushOutcome::Failed,
        };
        self.bytes_out += written as u64;
        outcome
    }

    /// When the first of the lingering sockets is let go.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.lingering.front().map(|(at, _)| *at)
    }

    /// Lets go the sockets that have lingered long enough.
    pub(crate) fn handle_timeout(&mut self, now: Time) {
        while let Some((at, id)) = self.lingering.front().copied()
            && at <= now
        {
            self.lingering.pop_front();
            self.remove(id);
        }
    }
}

fn token(id: TransportId) -> Token {
    Token(id.0 as usize)
}

impl Out {
    fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(frame) => frame.len(),
            Self::Many(queue) => queue.bytes,
            Self::Sealed(sealed) => sealed.plain.len() + sealed.sealed_bytes,
        }
    }

    fn push(&mut self, frame: Bytes) {
        match self {
            Self::Empty => *self = Self::One(frame),
            Self::One(first) => {
                let mut queue = Box::<Queue>::default();
                queue.push(std::mem::take(first));
                queue.push(frame);
                *self = Self::Many(queue);
            }
            Self::Many(queue) => queue.push(frame),
            Self::Sealed(sealed) => sealed.plain.push(frame),
        }
    }

    /// Writes until all is written (`true`) or the kernel takes no more (`false`).
    fn write_to(&mut self, mut stream: &TcpStream, total: &mut usize) -> io::Result<bool> {
        loop {
            let result = match self {
                Self::Empty => return Ok(true),
                Self::One(frame) => stream.write(frame),
                Self::Many(queue) => queue.write_to(stream),
                Self::Sealed(sealed) => return sealed.write_to(stream, total),
            };
            let written = match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => continue,
                    io::ErrorKind::WouldBlock => return Ok(false),
                    _ => return Err(error),
                },
            };
            *total += written;
            self.advance(written);
        }
    }

    /// Forgets what was written.
    fn advance(&mut self, written: usize) {
        let left = match self {
            Self::Empty | Self::Sealed(_) => return,
            Self::One(frame) => {
                frame.advance(written);
                frame.len()
            }
            Self::Many(queue) => {
                queue.advance(written);
                queue.bytes
            }
        };
        if left == 0 {
            *self = Self::Empty;
        }
    }
}

impl Sealed {
    fn new(connection: ServerConnection) -> Box<Self> {
        Box::new(Self { connection, plain: Out::Empty, sealed_bytes: 0, closing: false })
    }

    /// Seals and writes until all is written (`true`) or the kernel takes no more (`false`). What
    /// is sealed ahead of the kernel is bounded by the buffer of the connection, 64 KiB.
    fn write_to(&mut self, mut stream: &TcpStream, total: &mut usize) -> io::Result<bool> {
        loop {
            while self.connection.wants_write() {
                match self.connection.write_tls(&mut stream) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(_) => {}
                    Err(error) => match error.kind() {
                        io::ErrorKind::Interrupted => {}
                        io::ErrorKind::WouldBlock => return Ok(false),
                        _ => return Err(error),
                    },
                }
            }
            self.sealed_bytes = 0;
            let mut writer = self.connection.writer();
            let taken = match &self.plain {
                Out::One(frame) => writer.write(frame)?,
                Out::Many(queue) => queue.write_to(writer)?,
                Out::Empty | Out::Sealed(_) if self.closing => {
                    self.closing = false;
                    self.connection.send_close_notify();
                    continue;
                }
                Out::Empty | Out::Sealed(_) => return Ok(true),
            };
            if taken == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.sealed_bytes = taken;
            *total += taken;
            self.plain.advance(taken);
        }
    }

    /// Reads until the buffer is full or the kernel has nothing more.
    fn read(&mut self, mut stream: &TcpStream, scratch: &mut [u8]) -> ReadOutcome {
        let mut filled = 0;
        // Records may be empty: what is read is bounded, not what is in it.
        let mut left = scratch.len();
        let end = loop {
            match self.connection.reader().read(&mut scratch[filled..]) {
                Ok(0) => break ReadOutcome::Ended,
                Ok(bytes) => {
                    filled += bytes;
                    if filled == scratch.len() {
                        return ReadOutcome::Some { bytes: filled, more: true };
                    }
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Many close without a word of TLS.
                Err(_) => break ReadOutcome::Ended,
            }
            if left == 0 {
                return ReadOutcome::Some { bytes: filled, more: true };
            }
            match self.connection.read_tls(&mut stream) {
                Ok(bytes) => left = left.saturating_sub(bytes),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => continue,
                    io::ErrorKind::WouldBlock => break ReadOutcome::Nothing,
                    _ => break ReadOutcome::Failed,
                },
            }
            if let Err(error) = self.connection.process_new_packets() {
                tracing::debug!(%error, "a TLS connection is broken");
                // The alert that says so; if there is no room for it, then not.
                let _ = self.connection.write_tls(&mut stream);
                break ReadOutcome::Failed;
            }
        };
        match end {
            ReadOutcome::Nothing if filled > 0 => ReadOutcome::Some { bytes: filled, more: false },
            // What came before the end counts; the end is found again.
            end if filled == 0 => end,
            _ => ReadOutcome::Some { bytes: filled, more: true },
        }
    }
}

impl Queue {
    fn push(&mut self, frame: Bytes) {
        if frame.len() <= limit::COALESCE_BYTES {
            self.copy(&frame);
        } else {
            self.bytes += frame.len();
            self.chunks.push_back(Chunk::Shared(frame));
        }
    }

    fn copy(&mut self, frame: &[u8]) {
        self.bytes += frame.len();
        if let Some(Chunk::Own { bytes, .. }) = self.chunks.back_mut()
            && bytes.len() < OWN_MAX_BYTES
        {
            bytes.extend_from_slice(frame);
            return;
        }
        let mut bytes = Vec::with_capacity(frame.len() * 4);
        bytes.extend_from_slice(frame);
        self.chunks.push_back(Chunk::Own { bytes, at: 0 });
    }

    fn write_to(&self, mut stream: impl Write) -> io::Result<usize> {
        if let [chunk] = self.chunks.as_slices().0
            && self.chunks.len() == 1
        {
            return stream.write(chunk.rest());
        }
        let mut slices = [IoSlice::new(&[]); limit::SLICES_MAX];
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(chunk.rest());
            count += 1;
        }
        stream.write_vectored(&slices[..count])
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(chunk) = self.chunks.front_mut() {
            let here = chunk.rest().len();
            if written < here {
                match chunk {
                    Chunk::Shared(frame) => frame.advance(written),
                    Chunk::Own { at, .. } => *at += written,
                }
                return;
            }
            written -= here;
            self.chunks.pop_front();
        }
    }
}

/// Small frames are copied together up to about this size: a socket that lags for long then has
/// many moderate pieces, which are freed one by one, instead of one that grows by doubling.
const OWN_MAX_BYTES: usize = 64 * 1024;

impl Chunk {
    fn rest(&self) -> &[u8] {
        match self {
            Self::Shared(frame) => frame,
            Self::Own { bytes, at } => &bytes[*at..],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        net::{TcpListener, TcpStream},
    };

    use bytes::Bytes;

    use super::{Out, Queue};

    #[test]
    fn tls_makes_no_websocket_larger_that_has_none() {
        #[expect(dead_code, reason = "only its size matters")]
        enum WithoutTls {
            Empty,
            One(Bytes),
            Many(Box<Queue>),
        }
        assert_eq!(size_of::<Out>(), size_of::<WithoutTls>());
    }

    #[test]
    fn frames_arrive_whole_and_in_order_however_the_kernel_takes_them() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();

        let mut out = Out::Empty;
        let mut expected = Vec::new();
        for number in 0..400_u32 {
            let len = [3, 9_000, 200, 4_096, 4_097, 70_000][number as usize % 6];
            let frame = Bytes::from(vec![number as u8; len]);
            expected.extend_from_slice(&frame);
            out.push(frame);
        }
        assert_eq!(out.len(), expected.len());

        let total = expected.len();
        let reader = std::thread::spawn(move || {
            let mut received = vec![0; total];
            far.read_exact(&mut received).unwrap();
            received
        });
        let mut written = 0;
        while !out.write_to(&near, &mut written).unwrap() {
            assert_eq!(out.len(), total - written);
            std::thread::yield_now();
        }
        assert!(matches!(out, Out::Empty));
        assert_eq!(written, total);
        assert!(reader.join().unwrap() == expected);
    }
}
