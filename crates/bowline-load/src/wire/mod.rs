//! The bytes: what a session says, encoded beforehand, and what it hears.

pub(crate) mod http;
pub(crate) mod packet;
pub(crate) mod polling;
pub(crate) mod script;
pub(crate) mod websocket;
