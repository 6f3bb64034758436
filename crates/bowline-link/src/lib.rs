//! Links: outbound connections that Bowline keeps for bots.
//!
//! ```text
//!   service ◀─ profile (webex, socketio, websocket) ─▶ far::Connection      HTTP leg: http
//!                     │ far::Event                             ▲
//!                     ▼                                        │
//!   one task a link: run ── proto::keeper decides ──▶ open, probe, renew, close
//!                     │ Merge: two connections, one stream
//!                     ▼
//!   inbox (bowline-store): stored, then acknowledged to the service
//!                     │
//!                     ▼
//!   bot::Deliver: an app behind HTTP, a namespace, or the loopback proxy for unmodified bots (local)
//! ```
//!
//! [`Links`] is what the program around sees; `thread` starts and stops the tasks as the configuration wants it.
//!
//! *Absent on purpose:* configuration, the API, metrics' text: those are the leaf's.

#![warn(missing_docs)]

pub mod bot;
mod clock;
pub mod far;
pub mod lease;
mod links;
pub mod local;
mod make;
pub mod profile;
mod run;
pub mod settings;
mod thread;
pub mod view;

pub use links::{Host, Links, ProbeAnswer, RenewAnswer, SendFailure, StoreView, Unknown};
