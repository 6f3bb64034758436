//! A server from bind to the end of its drain.

use std::{
    fmt,
    future::poll_fn,
    io,
    net::{SocketAddr, TcpListener},
    pin::pin,
    sync::Arc,
    task::Poll,
    thread,
};

use tokio::{
    runtime::{Builder as RuntimeBuilder, LocalOptions},
    sync::oneshot,
};

use crate::{
    accept::Local, admission::Door, builder::Builder, continuity, handler::Handle,
    mailbox::Message, process::Process, shard::Shard,
};

/// A server whose addresses are bound.
pub struct Server {
    pub(crate) process: Arc<Process>,
    listeners: Vec<Bound>,
}

/// One listening socket.
pub(crate) struct Bound {
    pub(crate) door: Door,
    pub(crate) address: SocketAddr,
    pub(crate) listener: TcpListener,
}

/// The server stopped by itself.
#[derive(Debug)]
pub enum RunError {
    /// A shard could not be started.
    Start(io::Error),
    /// A shard cannot go on: the system stopped telling of its sockets.
    Shard(io::Error),
    /// A shard panicked. This is a bug of Bowline: handlers that panic do not end a shard.
    Panicked,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => write!(f, "cannot start a shard: {error}"),
            Self::Shard(error) => write!(f, "a shard cannot go on: {error}"),
            Self::Panicked => f.write_str("a shard panicked"),
        }
    }
}

impl std::error::Error for RunError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Start(error) | Self::Shard(error) => Some(error),
            Self::Panicked => None,
        }
    }
}

impl Server {
    /// Begins to describe a server.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn new(process: Arc<Process>, listeners: Vec<Bound>) -> Self {
        Self { process, listeners }
    }

    /// The addresses clients connect to, in the order in which they were given.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.addresses(Door::Public)
    }

    /// The addresses for operators.
    pub fn admin_addrs(&self) -> Vec<SocketAddr> {
        self.addresses(Door::Admin)
    }

    fn addresses(&self, door: Door) -> Vec<SocketAddr> {
        self.listeners.iter().filter(|it| it.door == door).map(|it| it.address).collect()
    }

    /// A way to emit and ask from any thread, now and while the server runs.
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.process))
    }

    /// Serves until `shutdown` is ready and all sessions have been closed, spread over one second
    /// for each thousand of them and at most `server.drain`. Runs on threads of its own; the
    /// future may be awaited on any executor. Dropping it begins the same end without waiting.
    ///
    /// # Errors
    ///
    /// [`RunError`]: the server ended by itself. What could be served was served to the end.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let process = Arc::clone(&self.process);
        // However this future ends, the shards are told.
        let _stop = StopOnDrop(Arc::clone(&process));
        let mut shards = self.start()?;
        let mut shutdown = pin!(shutdown);
        let mut result = Ok(());
        poll_fn(|cx| {
            for shard in &mut shards {
                if let Poll::Ready(ended) = shard.poll_end(cx) {
                    result = Err(ended.err().unwrap_or(RunError::Panicked));
                    return Poll::Ready(());
                }
            }
            shutdown.as_mut().poll(cx)
        })
        .await;
        stop(&process);
        for mut shard in shards {
            let ended = poll_fn(|cx| shard.poll_end(cx)).await;
            result = result.and(ended);
        }
        result
    }

    /// Serves like [`run`](Self::run), on a small runtime of its own that also drives `shutdown`.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_blocking(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let runtime = RuntimeBuilder::new_current_thread().enable_all().build();
        runtime.map_err(RunError::Start)?.block_on(self.run(shutdown))
    }

    /// Starts a thread for each shard.
    fn start(self) -> Result<Vec<Running>, RunError> {
        let saved = continuity::find(&self.process);
        let mut shards = Vec::new();
        for index in 0..self.process.shards.len() as u8 {
            let mut listeners = Vec::new();
            for bound in &self.listeners {
                let listener = bound.listener.try_clone().map_err(RunError::Start)?;
                listeners.push((bound.door, listener));
            }
            let process = Arc::clone(&self.process);
            let (tell, end) = oneshot::channel();
            thread::Builder::new()
                .name(format!("shard-{index}"))
                .spawn(move || {
                    // Nobody waits if the server's future was dropped.
                    let _ = tell.send(serve(index, process, listeners));
                })
                .map_err(RunError::Start)?;
            shards.push(Running { end, over: false });
        }
        if let Some(saved) = saved {
            let process = Arc::clone(&self.process);
            thread::Builder::new()
                .name("restore".to_owned())
                .spawn(move || continuity::restore(&process, saved))
                .map_err(RunError::Start)?;
        }
        self.process.components.start();
        let certificates = Arc::clone(&self.process.certificates);
        thread::Builder::new()
            .name("certificates".to_owned())
            .spawn(move || certificates.keep_looking())
            .map_err(RunError::Start)?;
        Ok(shards)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("local_addrs", &self.local_addrs())
            .field("admin_addrs", &self.admin_addrs())
            .field("shards", &self.process.shards.len())
            .finish_non_exhaustive()
    }
}

/// A shard's thread.
struct Running {
    end: oneshot::Receiver<Result<(), RunError>>,
    over: bool,
}

impl Running {
    fn poll_end(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Result<(), RunError>> {
        if self.over {
            return Poll::Ready(Ok(()));
        }
        let end = std::pin::Pin::new(&mut self.end);
        end.poll(cx).map(|end| {
            self.over = true;
            end.unwrap_or(Err(RunError::Panicked))
        })
    }
}

struct StopOnDrop(Arc<Process>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.certificates.stop();
        stop(&self.0);
    }
}

fn stop(process: &Process) {
    if process.start_drain() {
        process.components.stop();
        for shard in &process.shards {
            shard.mailbox.push(Message::Drain);
        }
    }
}

struct CloseOnDrop {
    process: Arc<Process>,
    shard: u8,
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        let shards = &self.process.shards;
        for peer in shards[usize::from(self.shard)].mailbox.close() {
            shards[usize::from(peer)].mailbox.wake();
        }
        // If it has failed, the others must not wait for it at their end.
        self.process.ending.cut_short(&self.process);
    }
}

/// The life of a shard's thread.
fn serve(
    index: u8,
    process: Arc<Process>,
    listeners: Vec<(Door, TcpListener)>,
) -> Result<(), RunError> {
    // However the shard ends, nobody waits for its answers.
    let _closed = CloseOnDrop { process: Arc::clone(&process), shard: index };
    let runtime = RuntimeBuilder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(RunError::Start)?;
    runtime.block_on(async {
        let local = Local::new(index, Arc::clone(&process));
        let shard =
            Shard::new(index, Arc::clone(&process), local.clone()).map_err(RunError::Start)?;
        for (door, listener) in listeners {
            let listener = tokio::net::TcpListener::from_std(listener).map_err(RunError::Start)?;
            local.accept(listener, door);
        }
        // As a task of its own it is woken by its neighbours without a system call.
        let running = tokio::task::spawn_local(shard.run());
        let ended = running.await.map_err(|_| RunError::Panicked)?;
        if let Some(snapshot) = ended.map_err(RunError::Shard)? {
            continuity::save(&process, index, snapshot);
        }
        Ok(())
    })
}
