//! The least that a server can do: epoll and write(2), no protocol, no sessions. What the others
//! are measured against.
//!
//!     floor 127.0.0.1:8000 echo|broadcast|rooms
//!
//! It says [`HELLO`] to whoever connects. Then it sends what it reads back to where it came from,
//! to everybody, or to everybody in the same room: the connections in the order in which they came,
//! modulo [`ROOMS`].

use std::{
    env,
    error::Error,
    io::{self, ErrorKind, Read as _, Write as _},
    net::SocketAddr,
};

use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};

/// Without a protocol nothing else tells a client that it has been accepted.
const HELLO: &[u8] = b"0";
/// Bytes read at once. A burst of messages fits many times over.
const READ_BYTES: usize = 64 * 1024;
/// Events taken from epoll at once.
const EVENTS_MAX: usize = 1024;
/// As many as the load tool has rooms.
const ROOMS: usize = 100;

const LISTENER: Token = Token(usize::MAX);

#[derive(Clone, Copy)]
enum Audience {
    Sender,
    Everybody,
    Room,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let usage = "usage: floor ADDR echo|broadcast|rooms";
    let address: SocketAddr = args.next().ok_or(usage)?.parse()?;
    let audience = match args.next().as_deref() {
        Some("echo") => Audience::Sender,
        Some("broadcast") => Audience::Everybody,
        Some("rooms") => Audience::Room,
        _ => return Err(usage.into()),
    };
    serve(address, audience)?;
    Ok(())
}

fn serve(address: SocketAddr, audience: Audience) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(EVENTS_MAX);
    let mut listener = TcpListener::bind(address)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections: Vec<Option<TcpStream>> = Vec::new();
    let mut free = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            let Token(index) = event.token();
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    // A client that has gone already is noticed when it is read from.
                    let _ = stream.write(HELLO);
                    let index = free.pop().unwrap_or(connections.len());
                    poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
                    if index == connections.len() {
                        connections.push(Some(stream));
                    } else {
                        connections[index] = Some(stream);
                    }
                }
            } else if let Some(read) = read_from(&mut connections[index], &mut buffer) {
                pass_on(&mut connections, audience, index, &buffer[..read]);
            } else {
                connections[index] = None;
                free.push(index);
            }
        }
    }
}

/// How much was read; none when the peer has gone.
fn read_from(stream: &mut Option<TcpStream>, buffer: &mut [u8]) -> Option<usize> {
    match stream.as_mut()?.read(buffer) {
        Ok(0) => None,
        Ok(read) => Some(read),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Some(0),
        Err(_) => None,
    }
}

/// The messages are small and answered at once, so that every socket always has room.
fn pass_on(
    connections: &mut [Option<TcpStream>],
    audience: Audience,
    from: usize,
    bytes: &[u8],
) {
    let (receivers, step) = match audience {
        Audience::Sender => (&mut connections[from..=from], 1),
        Audience::Everybody => (connections, 1),
        Audience::Room => (&mut connections[from % ROOMS..], ROOMS),
    };
    for stream in receivers.iter_mut().step_by(step).flatten() {
        // A receiver that has gone is noticed when it is read from.
        let _ = stream.write(bytes);
    }
}
