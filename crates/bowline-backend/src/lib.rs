//! An app in any language behind HTTP: each connect, event and disconnect of a namespace is posted
//! to it as JSON, and its answer is carried out; so is who is away, and who is back.
//!
//! [`Backend`] is a [`Handler`](bowline_net::Handler). The protocol is in `docs/backend.md`. Inside:
//! `wire` is the JSON both ways, `signature` the Standard Webhooks signature, `queue` decides which
//! request is next and `verdict` what an answer means, all of them pure; `app` is what the shards and
//! the driver share, and `driver` the one loop that makes requests, on the connections of a
//! [`bowline_dial::Pool`].
//!
//! An app is one queue: in the order of their arrival, and one at a time, for each session; so many at
//! a time for all of them; each with a deadline. *Absent:* what clients may do, which is the gateway's;
//! configuration, which is the binary's.

mod app;
mod clock;
mod driver;
mod limit;
mod message_id;
mod post;
mod queue;
mod signature;
mod stats;
mod url;
mod verdict;
mod wire;

use std::{fmt, sync::Arc, time::Duration};

use bowline_net::{
    Ack, ConnectRequest, Context, DisconnectReason, Handler, SocketRef, socketio::Args,
};

pub use post::PostFailure;
pub use signature::{Secret, SecretError};
pub use stats::{Outcome, Stats};
pub use url::{Url, UrlError};
pub use verdict::Fault;

use app::App;

/// Arguments of events as apps write and read them, for whoever else takes and shows some.
pub mod wire_args {
    pub use crate::wire::{Mistake, event, to_json};
}

/// Where an app is, and how much is asked of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// What it is called in logs, metrics and components.
    pub name: String,
    /// Where requests are posted to.
    pub url: Url,
    /// What they are signed with. Without it they are not signed.
    pub secret: Option<Secret>,
    /// From the arrival of a request to its answer, the time in the queue included. Default 5 s.
    pub timeout: Duration,
    /// How many requests may be under way. Default 64.
    pub max_concurrent: usize,
    /// How many may wait: 64 MiB of them, and 1,000 of one session, at most. Default 10,000.
    pub queue: usize,
    /// Whether the app is asked again when a client comes back to a socket that was kept for it.
    /// Default no: what it said of the socket's connect holds for as long as the socket lives.
    pub recheck: bool,
}

impl Options {
    /// The default of [`timeout`](Self::timeout).
    pub const TIMEOUT: Duration = limit::TIMEOUT;

    /// The default of [`max_concurrent`](Self::max_concurrent).
    pub const MAX_CONCURRENT: usize = limit::CONCURRENT;

    /// The default of [`queue`](Self::queue).
    pub const QUEUE: usize = limit::QUEUE;

    /// An app at `url`, with the defaults.
    pub fn new(name: impl Into<String>, url: Url) -> Self {
        Self {
            name: name.into(),
            url,
            secret: None,
            timeout: limit::TIMEOUT,
            max_concurrent: limit::CONCURRENT,
            queue: limit::QUEUE,
            recheck: false,
        }
    }
}

/// An app behind HTTP, for any number of namespaces. Clones are the same app: one queue, one order.
///
/// What the app does not answer as it should, it fails with a [`Fault`]: a connect is refused with
/// the code in `data`, an event is acked with `[{"error":{"code","message","retry"}}]`, or counted if
/// no ack was asked for.
#[derive(Clone)]
pub struct Backend {
    shared: Arc<Shared>,
}

/// Ends the driver with the last clone.
struct Shared {
    app: Arc<App>,
}

impl Backend {
    /// Makes an app known. Its requests are made on `runtime`, whose timers and sockets must be
    /// enabled. They go on after the last clone is dropped, until none is left.
    pub fn new(options: Options, runtime: &tokio::runtime::Handle) -> Self {
        let app = Arc::new(App::new(options));
        runtime.spawn(driver::drive(Arc::clone(&app)));
        Self { shared: Arc::new(Shared { app }) }
    }

    /// Whether it is the same app as another.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Replaces what was said of the app. What waits keeps its place and its deadline.
    pub fn reconfigure(&self, options: Options) {
        self.shared.app.reconfigure(options);
    }

    /// What was counted since the start, and how much waits.
    pub fn stats(&self) -> Stats {
        self.shared.app.stats()
    }

    /// Waits until nothing is under way and nothing waits: for a server that stops, so that its app
    /// hears who has left. It takes as long as [`Options::timeout`] at most, if nothing new comes.
    pub async fn settled(&self) {
        self.shared.app.settled().await;
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.app.close();
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("name", &self.shared.app.name()).finish_non_exhaustive()
    }
}

impl Handler for Backend {
    fn on_connect(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        self.shared.app.on_connect(cx, request);
    }

    fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, args: Args, ack: Option<Ack>) {
        self.shared.app.on_event(cx, socket, args, ack);
    }

    fn on_return(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        self.shared.app.on_return(cx, request);
    }

    fn on_away(&self, cx: &mut Context<'_>, socket: SocketRef, reason: DisconnectReason) {
        self.shared.app.on_away(cx, socket, reason);
    }

    fn on_back(&self, cx: &mut Context<'_>, socket: SocketRef) {
        self.shared.app.on_back(cx, socket);
    }

    fn on_disconnect(&self, _: &mut Context<'_>, socket: SocketRef, reason: DisconnectReason) {
        self.shared.app.on_disconnect(socket, reason);
    }
}
