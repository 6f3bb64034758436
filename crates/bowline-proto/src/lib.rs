//! The protocols and the policy of Bowline, without any IO.
//!
//! Four types cross the wall between this crate and the shell that drives it:
//! [`Input`] and [`Output`] on the side of the sockets, [`Event`] and [`Command`] on the side of
//! the handlers. Everything a shell does is this loop:
//!
//! ```text
//! hub.handle_input(now, input);
//! while let Some(output) = hub.poll_output() { … carry it out … }
//! ```
//!
//! **The one law:** after every `handle_input`, drain [`Hub::poll_output`] until it yields
//! `None`, and only then hand over the next input. [`Output::Send`] names its receivers lazily;
//! they are walked with [`Hub::next_receiver`] while that output is in hand.
//!
//! Time is an argument ([`Time`]), randomness arrives as ready-made ids ([`Sid`]), and the only
//! sleep the shell needs is [`Hub::poll_timeout`], which also says for which [`Timer`].
//!
//! Where things are: bytes to frames in [`websocket`]; packets and polling payloads in
//! [`engineio`]; events and acks in [`socketio`]; one Engine.IO session in [`session`]; rooms,
//! fan-out and acks in [`hub`]; the other end of all of it in [`client`]; outbound connections of bots in
//! [`keeper`]; what proxies say of a
//! client's address in [`forwarded`].

#![warn(missing_docs)]

pub mod client;
pub mod engineio;
pub mod forwarded;
pub mod hub;
pub mod id;
pub mod keeper;
pub mod limit;
pub mod session;
mod short;
pub mod socketio;
pub mod time;
pub mod timer;
pub mod wall;
pub mod websocket;

pub use hub::Hub;
pub use id::{ExchangeId, SessionKey, Sid, SocketKey, TransportId};
pub use time::Time;
pub use timer::Timer;
pub use wall::{Command, Event, Input, Output};
