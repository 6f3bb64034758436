//! One TCP connection of a session.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::SocketAddr,
};

use mio::{Interest, Registry, Token, net::TcpStream};

use crate::error::Error;

/// A connection and what is halfway through it.
#[derive(Debug)]
pub(crate) struct Lane {
    stream: TcpStream,
    /// Whether TCP has connected. Until then what is said waits.
    connected: bool,
    /// The beginning of something that has not arrived whole.
    partial: Vec<u8>,
    /// What the socket has not taken yet.
    unsent: Vec<u8>,
}

/// What reading came to.
pub(crate) enum Read {
    Bytes(usize),
    /// There is no more for now.
    Drained,
    /// The server has closed it.
    Ended,
}

impl Lane {
    pub(crate) fn connect(
        address: SocketAddr,
        registry: &Registry,
        token: Token,
    ) -> Result<Self, Error> {
        let open = || {
            let mut stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            Ok(stream)
        };
        let stream = open().map_err(|error| explain(address, &error))?;
        Ok(Self { stream, connected: false, partial: Vec::new(), unsent: Vec::new() })
    }

    /// Says this, as soon as the socket takes it.
    #[inline]
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.connected || !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let sent = write_some(&mut self.stream, bytes)?;
        self.unsent.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    /// The socket takes something. Returns whether this is the news that it has connected.
    pub(crate) fn on_writable(&mut self, address: SocketAddr) -> Result<bool, Error> {
        let news = !self.connected;
        if news {
            match self.stream.take_error() {
                Ok(None) => self.connected = true,
                Ok(Some(error)) | Err(error) => return Err(explain(address, &error)),
            }
        }
        if !self.unsent.is_empty() {
            let sent = write_some(&mut self.stream, &self.unsent).map_err(Error::io("writing"))?;
            self.unsent.drain(..sent);
        }
        Ok(news)
    }

    #[inline]
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Read> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Ok(Read::Ended),
                Ok(read) => return Ok(Read::Bytes(read)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Read::Drained),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // What is left of a server that was killed.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(Read::Ended),
                Err(error) => return Err(error),
            }
        }
    }

    /// Hands over what has arrived, with what was left of the last time. `take` says how much of it
    /// was whole; the rest is kept.
    #[inline]
    pub(crate) fn feed<E>(
        &mut self,
        fresh: &[u8],
        take: impl FnOnce(&[u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        if self.partial.is_empty() {
            let used = take(fresh)?;
            self.partial.extend_from_slice(&fresh[used..]);
        } else {
            self.partial.extend_from_slice(fresh);
            let used = take(&self.partial)?;
            self.partial.drain(..used);
        }
        Ok(())
    }
}

/// How much of it the socket took.
#[inline]
fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(written) => sent += written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

/// Why there is no connection, and what to do about it.
fn explain(address: SocketAddr, error: &io::Error) -> Error {
    let advice = match error.kind() {
        ErrorKind::ConnectionRefused => {
            "; nothing listens there: start the server, or correct its URL".to_owned()
        }
        ErrorKind::AddrNotAvailable => {
            "; no local port is left: ask for fewer at once, or widen net.ipv4.ip_local_port_range"
                .to_owned()
        }
        _ => String::new(),
    };
    Error::failed(format!("connecting to {address}: {error}{advice}"))
}
