//! Accepting: one task for each listener of each shard, which never ends by an error.

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use bowline_proto::ExchangeId;
use hyper::server::conn::http1;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::AbortHandle,
};

use crate::{
    admission::{Door, Permit},
    connection, limit,
    mailbox::Message,
    process::Process,
    stats::AcceptError,
};

/// What the tasks of one shard share.
#[derive(Clone)]
pub(crate) struct Local(Rc<Inner>);

struct Inner {
    shard: u8,
    process: Arc<Process>,
    http: http1::Builder,
    next_exchange: Cell<u64>,
    connections: Cell<usize>,
    closing: Cell<bool>,
    close: Notify,
    accepting: RefCell<Vec<(Door, AbortHandle)>>,
}

/// A connection that was just accepted.
pub(crate) struct Arrival {
    pub(crate) stream: std::net::TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) door: Door,
    pub(crate) permit: Permit,
}

impl Local {
    pub(crate) fn new(shard: u8, process: Arc<Process>) -> Self {
        let mut http = http1::Builder::new();
        http.max_buf_size(limit::REQUEST_HEAD_BYTES)
            // Times are watched by `connection`, which tells a slow head from an idle connection.
            .header_read_timeout(None);
        Self(Rc::new(Inner {
            shard,
            process,
            http,
            next_exchange: Cell::new(0),
            connections: Cell::new(0),
            closing: Cell::new(false),
            close: Notify::new(),
            accepting: RefCell::default(),
        }))
    }

    pub(crate) fn shard(&self) -> u8 {
        self.0.shard
    }

    pub(crate) fn process(&self) -> &Arc<Process> {
        &self.0.process
    }

    pub(crate) fn http(&self) -> &http1::Builder {
        &self.0.http
    }

    /// A number for a request that no other request of the process has.
    pub(crate) fn next_exchange(&self) -> ExchangeId {
        let number = self.0.next_exchange.get() + 1;
        self.0.next_exchange.set(number);
        ExchangeId(u64::from(self.0.shard) << 56 | number)
    }

    /// Starts to accept from a listener.
    pub(crate) fn accept(&self, listener: TcpListener, door: Door) {
        let task = tokio::task::spawn_local(accept(self.clone(), listener, door));
        self.0.accepting.borrow_mut().push((door, task.abort_handle()));
    }

    /// Closes the listeners of this shard that clients come to. Operators and publishers are
    /// answered until [`stop_accepting`](Self::stop_accepting).
    pub(crate) fn stop_accepting_clients(&self) {
        self.0.accepting.borrow_mut().retain(|(door, task)| {
            let stays = *door == Door::Admin;
            if !stays {
                task.abort();
            }
            stays
        });
    }

    /// Closes all listeners of this shard.
    pub(crate) fn stop_accepting(&self) {
        for (_, task) in self.0.accepting.take() {
            task.abort();
        }
    }

    /// How many HTTP connections are open.
    pub(crate) fn connections(&self) -> usize {
        self.0.connections.get()
    }

    /// Closes HTTP connections that are idle now, and the others when they have answered.
    pub(crate) fn close_connections(&self) {
        self.0.closing.set(true);
        self.0.close.notify_waiters();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.0.closing.get()
    }

    /// Told when connections are to close.
    pub(crate) fn close(&self) -> &Notify {
        &self.0.close
    }

    /// Serves a connection that another shard accepted.
    pub(crate) fn take_in(&self, arrival: Arrival) {
        let Arrival { stream, peer, door, permit } = arrival;
        match TcpStream::from_std(stream) {
            Ok(stream) => self.serve(stream, peer, door, permit),
            Err(error) => tracing::warn!(%error, "a connection cannot be watched and is closed"),
        }
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr, door: Door, permit: Permit) {
        let guard = Guard::new(self.clone());
        tokio::task::spawn_local(async move {
            connection::serve(&guard.0, stream, peer, door, permit).await;
        });
    }
}

/// Counts one HTTP connection while it lives.
struct Guard(Local);

impl Guard {
    fn new(local: Local) -> Self {
        let connections = &local.0.connections;
        connections.set(connections.get() + 1);
        Self(local)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let inner = &*self.0.0;
        inner.connections.set(inner.connections.get() - 1);
        if inner.closing.get() && inner.connections.get() == 0 {
            // The shard waits for this one.
            inner.process.shards[usize::from(inner.shard)].mailbox.wake();
        }
    }
}

async fn accept(local: Local, listener: TcpListener, door: Door) {
    let process = Arc::clone(local.process());
    let here = local.shard();
    loop {
        process.admission.wait_for_room(door).await;
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                let kind = AcceptError::of(&error);
                process.counters.on_accept_error(kind);
                // Unknown errors may stay, as a lack of descriptors does: none may make this loop
                // spin, or fill the log.
                if kind != AcceptError::Aborted {
                    if let Some(times) = process.counters.rests_to_tell(process.clock.now()) {
                        tracing::warn!(%error, times, "cannot accept, accepting rests");
                    }
                    tokio::time::sleep(limit::ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        process.counters.on_accepted();
        if stream.set_nodelay(true).is_err() {
            // Its peer is gone already.
            continue;
        }
        let shard = process.choose_shard(here);
        // Closed at once: an address with more than its share must not keep the others out.
        let address = counted_address(&process, peer.ip());
        let Some(permit) = Permit::new(&process, shard, door, address) else { continue };
        if shard == here {
            local.serve(stream, peer, door, permit);
        } else if let Ok(stream) = stream.into_std() {
            let arrival = Box::new(Arrival { stream, peer, door, permit });
            process.shards[usize::from(shard)].mailbox.push(Message::Connection(arrival));
        }
    }
}

/// The address that a connection counts under from the start. A proxy speaks for many, and says
/// for whom only later.
fn counted_address(process: &Process, peer: IpAddr) -> Option<IpAddr> {
    let settings = process.settings();
    let proxies = &settings.proxies;
    (!proxies.trusts(peer) && !proxies.expects_header(peer)).then_some(peer)
}
