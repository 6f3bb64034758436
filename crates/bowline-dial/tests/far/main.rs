//! What links use: the HTTP leg, the bare WebSocket, proxies. Against servers of the test that do what is asked of them:
//! answer, swallow, break.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod leg;
mod proxy;
mod servers;
mod session;
mod socket;
