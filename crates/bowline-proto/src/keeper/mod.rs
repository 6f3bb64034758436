//! Keeps a link: an outbound connection that proves itself. It decides, without any IO.
//!
//! A [`Keeper`] is one link. It is driven like the [hub](crate::hub), under the same law:
//!
//! ```text
//! keeper.handle_input(now, input);
//! while let Some(output) = keeper.poll_output() { … carry it out … }
//! sleep until keeper.deadline(), then handle_input(now, Input::Timeout)
//! ```
//!
//! Silence never replaces a connection: it only begins a routing round trip. A connection that is replaced is closed
//! after the new one was proved and both were open for a while; what arrives on both is made one stream by [`Merge`].
//! [`Budget`] is shared by all links to one host, [`Leg`] is the HTTP that a link needs beside its connection.

mod config;
mod wall;

pub use config::Config;
pub use wall::{
    ConnectionId, Input, Level, OpenFailure, Output, ProbeCause, ProbeId, ProbeOutcome, Reason, Report,
    Rung, State, Verdict,
};
