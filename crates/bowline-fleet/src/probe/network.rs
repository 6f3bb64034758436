//! Checks over the network. None opens a connection and says nothing on it, but for the one that is asked for: servers
//! log that as an error.

use std::{io, time::Duration};

use bowline_dial::{
    ConnectError, JoinError, Options, Protocol, Refusal, Transports, Version, Wire, connect,
};
use bytestring::ByteString;
use rustix::io::Errno;
use tokio::net::{TcpStream, UnixStream};

use super::{Finding, failed, starting};
use crate::{
    limit::{ANSWER_BYTES, GOODBYE},
    spec::Listen,
};

/// Whether connections are accepted, which says nothing about an answer.
pub(super) async fn accepts(address: &Listen) -> Finding {
    let connected = match address {
        Listen::Tcp(address) => TcpStream::connect(address).await.map(drop),
        Listen::Unix(path) => UnixStream::connect(path).await.map(drop),
    };
    match connected {
        Ok(()) => Finding::Ready,
        // A socket's file appears with the bind.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) =>
        {
            Finding::Refused
        }
        Err(error) => failed(format!("connecting to {address}: {error}")),
    }
}

/// Whether a GET is answered with the status and the text that are expected.
pub(super) async fn answers(
    url: &str,
    status: Option<u16>,
    contains: Option<&str>,
    timeout: Duration,
) -> Finding {
    let (server, path) = parts(url);
    let wire = match Wire::new(server, &options(timeout)) {
        Ok(wire) => wire,
        Err(error) => return failed(format!("{url}: {error}")),
    };
    let answer = match wire.request(path, None).await {
        Ok(answer) => answer,
        Err(words) => return unreached(words),
    };
    let expected = match status {
        Some(status) => answer.status == status,
        None => (200..300).contains(&answer.status),
    };
    if !expected {
        let asked_again = answer.status == 503 && answer.retry_after.is_some();
        let starting = starting::read(&answer.body, asked_again);
        return starting.unwrap_or_else(|| failed(status_words(answer.status, &answer.body)));
    }
    let Some(contains) = contains else { return Finding::Ready };
    match String::from_utf8_lossy(&answer.body).contains(contains) {
        true => Finding::Ready,
        false => starting::read(&answer.body, false)
            .unwrap_or_else(|| failed(format!("the answer does not contain {contains:?}"))),
    }
}

/// Whether a WebSocket can be opened. It is closed as the protocol wants it.
pub(super) async fn upgrades(url: &str, timeout: Duration) -> Finding {
    let (server, path) = parts(url);
    let wire = match Wire::new(server, &options(timeout)) {
        Ok(wire) => wire,
        Err(error) => return failed(format!("{url}: {error}")),
    };
    match wire.websocket(path).await {
        Ok(socket) => {
            socket.close(GOODBYE).await;
            Finding::Ready
        }
        Err(Refusal::Failed(words)) => unreached(words),
        Err(Refusal::Answered(answer)) if answer.status == 503 && answer.retry_after.is_some() => {
            Finding::Starting { progress: None, words: String::new() }
        }
        Err(Refusal::Answered(answer)) => {
            failed(format!("no WebSocket: {}", status_words(answer.status, &answer.body)))
        }
    }
}

/// Whether a session can be opened and joins the namespace: on a WebSocket; by polling, where the server offers no
/// other; in the protocol before, where it speaks that one.
pub(super) async fn joins(
    url: &str,
    namespace: &str,
    auth: Option<&str>,
    timeout: Duration,
) -> Finding {
    let (server, path) = parts(url);
    let address = format!("{server}{}", if namespace == "/" { "" } else { namespace });
    let mut first = None;
    for (transports, version) in [
        (Transports::WebSocket, Version::V4),
        (Transports::Polling, Version::V4),
        (Transports::WebSocket, Version::V3),
    ] {
        let mut options = options(timeout);
        options.auth = auth.map(ByteString::from);
        options.config.protocol = Protocol::SocketIo;
        options.config.transports = transports;
        options.config.version = version;
        if path != "/" {
            path.clone_into(&mut options.config.path);
        }
        match connect(&address, options).await {
            Ok(connection) => {
                // It has joined, however the goodbye goes.
                let _ = tokio::time::timeout(GOODBYE, connection.close()).await;
                return Finding::Ready;
            }
            Err(ConnectError::NotJoined(JoinError::Refused(data))) => {
                return failed(format!("the namespace {namespace} is refused: {data}"));
            }
            Err(error) => {
                let words = error.to_string();
                if refused(&words) {
                    return Finding::Refused;
                }
                first.get_or_insert(words);
            }
        }
    }
    failed(first.unwrap_or_default())
}

/// The server of a URL, and what is asked of it.
fn parts(url: &str) -> (&str, &str) {
    let authority = url.find("://").map_or(0, |at| at + 3);
    match url[authority..].find(['/', '?']) {
        Some(at) if url[authority + at..].starts_with('/') => url.split_at(authority + at),
        Some(at) => (&url[..authority + at], "/"),
        None => (url, "/"),
    }
}

/// Everything below waits longer than the check, whose time is the one that counts.
fn options(timeout: Duration) -> Options {
    let longer = timeout * 2;
    let mut options = Options {
        connect_timeout: longer,
        max_message_bytes: ANSWER_BYTES,
        headers: vec![("user-agent".to_owned(), "bowline-probe".to_owned())],
        ..Options::default()
    };
    options.config.open_timeout = longer;
    options.config.join_timeout = longer;
    options.config.post_timeout = longer;
    options
}

fn unreached(words: String) -> Finding {
    if refused(&words) { Finding::Refused } else { failed(words) }
}

/// Whether nobody listens there. What dials says so in the words of the system.
fn refused(words: &str) -> bool {
    let system = io::Error::from(Errno::CONNREFUSED).to_string();
    words.contains(&system)
}

fn status_words(status: u16, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    // A page is no message.
    match line.trim() {
        "" => format!("it answered {status}"),
        line if line.starts_with('<') => format!("it answered {status}"),
        line => format!("it answered {status}: {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_server_and_what_is_asked_of_it() {
        assert_eq!(parts("http://a:1/b?c"), ("http://a:1", "/b?c"));
        assert_eq!(parts("ws://a"), ("ws://a", "/"));
        assert_eq!(parts("http://[::1]:8000/"), ("http://[::1]:8000", "/"));
    }
}
