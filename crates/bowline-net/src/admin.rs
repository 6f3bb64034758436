//! What an embedding program adds to the admin listeners.

use std::{net::SocketAddr, pin::Pin};

use bytes::Bytes;
use http::Request;

use crate::mount::HttpResponse;

/// Answers operators' requests that are not `/health/*`.
///
/// Called on the thread of a shard: the future it returns must do its work elsewhere, on a runtime
/// of its own, so that a large answer never delays a ping. Bodies are read up to 1 MiB before it is
/// called.
pub trait AdminService: Send + Sync + 'static {
    /// Answers one request that came from `peer`.
    fn call(&self, peer: SocketAddr, request: Request<Bytes>) -> AdminAnswer;
}

/// An answer under way: whole, or the beginning of a stream. When the operator leaves first, the future
/// is dropped, or the body of its answer.
pub type AdminAnswer = Pin<Box<dyn Future<Output = HttpResponse> + Send>>;
