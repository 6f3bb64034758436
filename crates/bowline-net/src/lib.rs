//! The inbound side of Bowline: listeners, HTTP, polling, WebSockets, and the threads that own
//! them. What is decided is decided in [`bowline_proto`]; this crate carries it out.
//!
//! It is also the way to use Bowline as a library:
//!
//! ```no_run
//! use bowline_net::{Ack, Broadcast, Context, Handler, Server, SocketRef, socketio::Args};
//!
//! /// Everybody hears what anybody says.
//! struct Chat;
//!
//! impl Handler for Chat {
//!     fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, args: Args, ack: Option<Ack>) {
//!         cx.broadcast(Broadcast::new("/chat", args.clone()));
//!         if let Some(ack) = ack {
//!             cx.ack(ack, args.rest());
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::builder()
//!     .listen("127.0.0.1:8000".parse()?)
//!     .namespace("/chat", Chat)
//!     .bind()?;
//! server.run_blocking(std::future::pending())?;
//! # Ok(())
//! # }
//! ```
//!
//! The [`guide`] goes on from here: state, acks, rooms, authentication, binary, broadcasts from
//! outside. A server also loads [components](Builder::component) and says
//! [how ready](Handle::components) it is, and its [counters](Handle::stats) are one call away.
//!
//! Inside: a [`Server`] is a thread per *shard*. `accept` lets connections in, `connection` and
//! `routes` speak HTTP, `transport` holds the WebSockets, which have left HTTP and tokio behind,
//! and `shard` is the loop that takes what is ready to the hub and carries out what the hub wants.
//! A request or WebSocket that arrives at another shard than its session's is passed on through a
//! `mailbox`. `handler` is where the application's code is called.

mod accept;
mod admin;
mod admission;
mod builder;
mod clock;
mod components;
mod connection;
mod continuity;
mod cors;
mod echo;
mod ending;
mod entropy;
mod errand;
mod exchange;
mod forwarded;
mod gather;
#[cfg(any(doc, doctest))]
pub mod guide;
mod handler;
mod health;
mod hold;
mod idle_cut;
mod inspect;
mod limit;
mod mailbox;
mod members;
mod mount;
mod opening;
mod overdue;
mod packet_log;
mod probe;
mod process;
mod proxy_protocol;
mod refusal;
mod relay;
mod routes;
mod saved;
mod server;
mod settings;
mod shard;
mod stats;
mod story;
mod stream;
mod tls;
mod transport;

pub use bowline_proto::{
    Sid,
    hub::{
        EventIdPath, Happened, Histogram, InvalidEventIdPath, Keeping, LogView, Measured, OnDoubt,
        SessionKeySource, SocketView, Stamp, Stats as HubStats,
    },
    limit::{LimitKey, Limits as SessionLimits},
    socketio,
    wall::{AckError, DisconnectReason, ErrorCode, Handshake, SocketData, TooMuchData},
    websocket::Message,
};

pub use admin::{AdminAnswer, AdminService};
pub use builder::{BindError, Builder, listen};
pub use components::{ComponentError, ComponentState, ComponentView, Progress, Readiness};
pub use continuity::Continuity;
pub use echo::Echo;
pub use gather::Gathered;
pub use handler::{
    Ack, Broadcast, ConnectRequest, Context, EngineHandler, Handle, Handler, SessionRef, SocketRef,
};
pub use health::Startup;
pub use hold::{Delivery, HeldEnd};
pub use inspect::{RoomInfo, RoomList, SocketFilter, SocketInfo, SocketList, Whom};
pub use limit::Limits;
pub use mailbox::Busy;
pub use mount::{
    BodySender, ClientLeft, HttpAnswer, HttpBody, HttpCall, HttpResponse, HttpService,
};
pub use packet_log::PacketLogError;
pub use probe::{ProbeReport, ProbeStep, StepOutcome};
pub use refusal::Refusal;
pub use relay::Relay;
pub use server::{RunError, Server};
pub use stats::{AcceptError, Stats, WebSocketEnd};
pub use story::StoryLine;
pub use tls::{CertificateView, Tls, TlsError, TlsOutcome};
