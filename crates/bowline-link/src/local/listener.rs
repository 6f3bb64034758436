//! Takes connections, and leads each from its first byte to its end.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::net::Shutdown;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Counted, Guest, Local,
    authority::LOCALHOST,
    connect::{self, AnyStream, Next, Place, Target},
    limit, socket,
};
use crate::clock;

/// The first byte of a handshake of TLS (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// The loop of the listener; owns every connection.
pub(super) async fn accept(local: Local, listener: TcpListener, open: Counted) {
    let mut closing = local.inside.closing.subscribe();
    let mut connections = Connections { local, tasks: JoinSet::new(), unproved: VecDeque::new() };
    let closes = loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.tasks.join_next() => continue,
            closes = closes(&mut closing) => break closes,
        };
        match accepted {
            Ok((stream, _)) => connections.take(stream),
            Err(error) => {
                tracing::warn!(%error, "a bot could not be let in");
                sleep(limit::ACCEPT_PAUSE).await;
            }
        }
    };
    if closes && let Err(error) = close(listener, &mut connections) {
        tracing::warn!(%error, "the listener for bots is not closed before they are let go of");
    }
    drop(open);
    while connections.tasks.join_next().await.is_some() {}
}

/// Waits until nobody is let in any more. Says whether others are not to let anybody in either.
async fn closes(closing: &mut watch::Receiver<Option<bool>>) -> bool {
    closing.wait_for(Option::is_some).await.is_ok_and(|closes| *closes == Some(true))
}

/// Takes those whom the system has let in, and has it refuse others, although other processes have the listener open.
fn close(listener: TcpListener, connections: &mut Connections) -> io::Result<()> {
    let listener = listener.into_std()?;
    // Somebody may come for ever.
    for _ in 0..limit::CONNECTIONS_MAX {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                connections.take(TcpStream::from_std(stream)?);
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => break,
        }
    }
    Ok(rustix::net::shutdown(&listener, Shutdown::Both)?)
}

/// All connections of one listener.
struct Connections {
    local: Local,
    tasks: JoinSet<()>,
    unproved: VecDeque<(AbortHandle, Arc<Proof>)>,
}

impl Connections {
    fn take(&mut self, stream: TcpStream) {
        while self.tasks.try_join_next().is_some() {}
        if self.tasks.len() >= limit::CONNECTIONS_MAX {
            tracing::warn!(max = limit::CONNECTIONS_MAX, "too many connections of bots");
            return;
        }
        let proof = Arc::new(Proof::default());
        let unanswered = Counted::new(&self.local, |inside| &inside.unanswered);
        let connection = connection(self.local.clone(), stream, Arc::clone(&proof), unanswered);
        let task = self.tasks.spawn(connection);
        make_room(&mut self.unproved);
        self.unproved.push_back((task, proof));
    }
}

/// Closes the oldest connection that has shown nothing, if there are too many of them.
fn make_room(unproved: &mut VecDeque<(AbortHandle, Arc<Proof>)>) {
    unproved.retain(|(task, proof)| !task.is_finished() && !proof.is_shown());
    while unproved.len() >= limit::UNPROVED_MAX {
        if let Some((task, _)) = unproved.pop_front() {
            task.abort();
        }
    }
}

/// Whether a connection has shown the secret of a link.
#[derive(Debug, Default)]
pub(super) struct Proof {
    shown: AtomicBool,
}

impl Proof {
    pub(super) fn show(&self) {
        self.shown.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_shown(&self) -> bool {
        self.shown.load(Ordering::Relaxed)
    }
}

/// One connection.
async fn connection(local: Local, stream: TcpStream, proof: Arc<Proof>, unanswered: Counted) {
    let _live = Live::new(&local.inside.live);
    let until = clock::instant() + limit::PROVE_WITHIN;
    let Ok(Ok(mut stream)) = timeout_at(until, open(&local, stream)).await else { return };
    let mut place = Place::Door;
    let unanswered = Arc::new(Mutex::new(Some(unanswered)));
    loop {
        let waits = Arc::clone(&unanswered);
        let serving =
            connect::serve(local.clone(), stream, place, Arc::clone(&proof), until, waits);
        let next = serving.await;
        let Some((next, upgraded)) = next else { return };
        match next {
            Next::Inside(target) => {
                let entered = timeout(limit::HANDSHAKE_WITHIN, enter(&local, upgraded, target));
                let Ok(Ok((inner, target))) = entered.await else { return };
                stream = inner;
                place = Place::Inside(target);
            }
            Next::Tunnel(guest, far) => return tunnel(&guest, upgraded, far).await,
            Next::Socket(guest) => {
                let ending = local.inside.ending.subscribe();
                return Box::pin(socket::run(upgraded, &guest.served, ending)).await;
            }
        }
    }
}

/// Plain HTTP, or TLS for this machine itself.
async fn open(local: &Local, stream: TcpStream) -> io::Result<AnyStream> {
    // Frames are small and waited for.
    stream.set_nodelay(true)?;
    let mut first = [0];
    stream.peek(&mut first).await?;
    if first != [TLS_HANDSHAKE] {
        return Ok(Box::new(stream));
    }
    let config = local.inside.authority.server_config(LOCALHOST).map_err(io::Error::other)?;
    Ok(Box::new(TlsAcceptor::from(config).accept(stream).await?))
}

/// What a bot speaks after its CONNECT was answered: TLS for that host, or HTTP without.
async fn enter(
    local: &Local,
    stream: AnyStream,
    target: Target,
) -> io::Result<(AnyStream, Target)> {
    let mut stream = BufReader::with_capacity(1024, stream);
    if stream.fill_buf().await?.first() != Some(&TLS_HANDSHAKE) {
        return Ok((Box::new(stream), Target { tls: false, ..target }));
    }
    let config = local.inside.authority.server_config(&target.host).map_err(io::Error::other)?;
    match TlsAcceptor::from(config).accept(stream).await {
        Ok(stream) => Ok((Box::new(stream), target)),
        Err(error) => {
            // The first thing that goes wrong for somebody new: the bot was not told of the certificates.
            let link = &target.guest.served.name;
            tracing::warn!(link, host = target.host, %error, "a bot does not agree on TLS");
            Err(error)
        }
    }
}

/// Moves bytes until both sides have ended, or the link is forgotten.
async fn tunnel(guest: &Guest, mut near: AnyStream, mut far: AnyStream) {
    let mut forgotten = guest.served.forgotten.subscribe();
    tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => {}
        _ = forgotten.wait_for(|forgotten| *forgotten) => {}
    }
}

/// Counts a connection.
struct Live<'a> {
    count: &'a watch::Sender<usize>,
}

impl<'a> Live<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self { count }
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.count.send_modify(|count| *count -= 1);
    }
}

/// A point in time that never comes, for those who have shown the secret.
pub(super) async fn unless_shown(proof: Arc<Proof>, until: Instant) {
    tokio::time::sleep_until(until).await;
    if proof.is_shown() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn the_oldest_that_shows_nothing_goes_first() {
        let mut tasks = JoinSet::new();
        let mut unproved = VecDeque::new();
        for number in 0..limit::UNPROVED_MAX {
            let proof = Arc::new(Proof::default());
            if number == 0 {
                proof.show();
            }
            unproved.push_back((tasks.spawn(pending::<()>()), proof));
        }
        // One has shown its secret, and is not counted any more.
        make_room(&mut unproved);
        assert_eq!(unproved.len(), limit::UNPROVED_MAX - 1);
        unproved.push_back((tasks.spawn(pending::<()>()), Arc::default()));
        make_room(&mut unproved);
        assert_eq!(unproved.len(), limit::UNPROVED_MAX - 1);
        assert!(tasks.join_next().await.unwrap().unwrap_err().is_cancelled());
        assert_eq!(tasks.len(), limit::UNPROVED_MAX);
    }
}
