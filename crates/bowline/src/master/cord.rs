//! The master's end of the cord: how it asks the gateway.

use std::{os::unix::net::UnixStream, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::AsyncWriteExt as _, time};

use super::limit;

/// A way to ask the gateway, by any number of askers at once.
#[derive(Clone)]
pub(super) struct Cord(SendRequest<Full<Bytes>>);

/// What may go wrong on the way.
pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;

/// Gives the gateway its charter and begins to speak HTTP/2. The second part must be driven; it
/// ends with the gateway.
///
/// # Errors
/// If the gateway is gone.
pub(super) async fn connect(
    stream: UnixStream,
    charter: Vec<u8>,
) -> Result<(Cord, impl Future<Output = hyper::Result<()>>), Error> {
    let mut stream = tokio::net::UnixStream::from_std(stream)?;
    stream.write_all(&charter).await?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    Ok((Cord(sender), connection))
}

impl Cord {
    /// Asks, and waits for the whole answer.
    ///
    /// # Errors
    /// If the gateway is gone, too slow or says too much.
    pub(super) async fn ask(
        &mut self,
        request: Request<Bytes>,
        patience: Duration,
    ) -> Result<Response<Bytes>, Error> {
        let answer = async {
            self.0.ready().await?;
            let response = self.0.send_request(request.map(Full::new)).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, limit::ANSWER_BYTES).collect().await?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        time::timeout(patience, answer).await?
    }
}
