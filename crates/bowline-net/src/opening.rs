//! What a public connection may begin with before HTTP: the header of a proxy, then TLS.

use std::{cell::Cell, future::poll_fn, io, net::SocketAddr, pin::pin, sync::Arc, task::Poll};

use bowline_proto::limit::LimitKey;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    accept::Local,
    admission::{Door, Permit},
    connection::{head_time, linger},
    process::Process,
    proxy_protocol::{self, HeaderError},
    stream::Stream,
    tls::TlsOutcome,
};

/// What a client hears that speaks HTTP where TLS is spoken.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 69\r\n\
    Connection: close\r\n\
    \r\n\
    This port speaks TLS, and the request was plain HTTP: use https://.\r\n";

/// Why a connection is not served.
enum Refusal {
    /// There is nobody to talk to.
    Gone,
    /// It is told why, and closed.
    Told(TcpStream, &'static [u8]),
}

/// Whether a connection begins with anything but HTTP.
pub(crate) fn is_needed(process: &Process, door: Door, peer: SocketAddr) -> bool {
    door == Door::Public
        && (process.certificates.is_on() || process.settings().proxies.expects_header(peer.ip()))
}

/// Reads the beginning of a connection, in the time that the head of a request has. The connection,
/// and whom it is for; `None` if it is over.
pub(crate) async fn open(
    local: &Local,
    stream: TcpStream,
    peer: SocketAddr,
    permit: &mut Permit,
) -> Option<(Stream, SocketAddr)> {
    let process = local.process();
    let clock = process.clock;
    let deadline = clock.instant(clock.now() + head_time(process, permit.standing));
    let shaking = Cell::new(false);
    let opening = tokio::time::timeout_at(deadline, begin(process, stream, peer, permit, &shaking));
    let mut opening = pin!(opening);
    let mut close = pin!(local.close().notified());
    close.as_mut().enable();
    let opened = poll_fn(|cx| {
        if local.is_closing() || close.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(Err(Refusal::Gone)));
        }
        opening.as_mut().poll(cx)
    })
    .await;
    match opened {
        Ok(Ok(opened)) => Some(opened),
        Ok(Err(Refusal::Gone)) => None,
        Ok(Err(Refusal::Told(stream, words))) => {
            linger(Stream::Plain(stream), words).await;
            None
        }
        Err(_) => {
            process.counters.on_limit(LimitKey::RequestHead);
            if shaking.get() {
                process.counters.on_tls(TlsOutcome::TimedOut);
            }
            None
        }
    }
}

async fn begin(
    process: &Process,
    mut stream: TcpStream,
    mut peer: SocketAddr,
    permit: &mut Permit,
    shaking: &Cell<bool>,
) -> Result<(Stream, SocketAddr), Refusal> {
    let expects_header = process.settings().proxies.expects_header(peer.ip());
    if expects_header {
        peer = match proxy_protocol::read(&mut stream).await {
            Ok(client) => client.unwrap_or(peer),
            Err(error) => {
                // Balancers connect and close to see whether there is anybody.
                if !matches!(error, HeaderError::Io(_)) {
                    process.counters.on_proxy_header_error();
                    tracing::warn!(%peer, %error, "a connection is closed");
                }
                return Err(Refusal::Gone);
            }
        };
        let trusted = process.settings().proxies.trusts(peer.ip());
        if !trusted && !permit.claim(peer.ip()) && !permit.refuse() {
            return Err(Refusal::Gone);
        }
    }
    let Some(config) = process.certificates.config() else {
        return Ok((Stream::Plain(stream), peer));
    };
    shaking.set(true);
    let stream = shake_hands(process, stream, peer, config).await?;
    Ok((Stream::Tls(stream), peer))
}

async fn shake_hands(
    process: &Process,
    stream: TcpStream,
    peer: SocketAddr,
    config: Arc<ServerConfig>,
) -> Result<Box<TlsStream<TcpStream>>, Refusal> {
    let mut first = [0];
    if !stream.peek(&mut first).await.is_ok_and(|seen| seen > 0) {
        return Err(Refusal::Gone);
    }
    // Requests begin with a method; TLS never begins with a letter.
    if first[0].is_ascii_alphabetic() {
        process.counters.on_tls(TlsOutcome::PlainHttp);
        return Err(Refusal::Told(stream, PLAIN_HTTP));
    }
    match TlsAcceptor::from(config).accept(stream).into_fallible().await {
        Ok(stream) => {
            process.counters.on_tls(TlsOutcome::Done);
            Ok(Box::new(stream))
        }
        Err((error, stream)) => {
            process.counters.on_tls(TlsOutcome::Failed);
            tracing::debug!(%peer, %error, "a TLS handshake failed");
            // The alert that says why would be lost in a reset.
            match error.kind() {
                io::ErrorKind::InvalidData => Err(Refusal::Told(stream, &[])),
                _ => Err(Refusal::Gone),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PLAIN_HTTP;

    #[test]
    fn the_answer_to_plain_http_is_as_long_as_it_says() {
        let answer = std::str::from_utf8(PLAIN_HTTP).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
