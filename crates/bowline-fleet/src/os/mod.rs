//! What the crew asks of the system: processes and who belongs to them, users, sockets, places. It
//! acts and has no opinions.
//!
//! All of it is Linux's: descriptors of processes, `/proc`, the subreaper, abstract sockets.

pub mod ask;
pub mod environment;
pub mod listen;
pub mod members;
pub mod notify;
pub mod place;
pub mod process;
pub mod program;
pub mod spawn;
pub mod sweep;
pub mod user;
