//! The opening handshake (RFC 6455 section 4), from both ends. HTTP itself is the shell's.

use std::{borrow::Cow, collections::BTreeSet, fmt, str};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::deflate;

/// Appended to a key before it is hashed (RFC 6455 section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The only version there is (RFC 6455 section 4.1).
const VERSION: &str = "13";

/// The most bytes of a response head that a client reads. Proxies add headers and cookies; none
/// seen comes near it.
const RESPONSE_HEAD_MAX_BYTES: usize = 16 * 1024;

/// Computes `Sec-WebSocket-Accept` from `Sec-WebSocket-Key` (RFC 6455 section 4.2.2).
pub fn accept_key(key: &str) -> String {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key.as_bytes());
    hash.update(GUID.as_bytes());
    STANDARD.encode(hash.digest().bytes())
}

/// What a server answers to a request it takes: 101, `Upgrade: websocket`, `Connection: Upgrade`
/// and these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// The value of `Sec-WebSocket-Accept`.
    pub accept: String,
    /// The value of `Sec-WebSocket-Protocol`, if the client named any: the first it named, which is
    /// what a server without an opinion answers.
    pub protocol: Option<String>,
    /// The value of `Sec-WebSocket-Extensions`, if permessage-deflate was agreed on; the
    /// connection's [`DecodeConfig::deflate`](super::DecodeConfig) is set then.
    pub extensions: Option<String>,
}

/// Checks a client's request (RFC 6455 section 4.2.1). `header` gives the value of a header by its
/// name in lower case, several lines of one name joined by commas. `deflate` says whether
/// permessage-deflate may be agreed on.
///
/// # Errors
///
/// The request does not ask for a WebSocket, or not in this version: answer
/// [`HandshakeError::status`].
pub fn check_request<'a>(
    method: &str,
    header: impl Fn(&'static str) -> Option<Cow<'a, str>>,
    deflate: bool,
) -> Result<Upgrade, HandshakeError> {
    if method != "GET" {
        return Err(HandshakeError::Method);
    }
    if !header("upgrade").is_some_and(|value| has_token(&value, "websocket")) {
        return Err(HandshakeError::Upgrade);
    }
    if !header("connection").is_some_and(|value| has_token(&value, "upgrade")) {
        return Err(HandshakeError::Connection);
    }
    let key = header("sec-websocket-key").ok_or(HandshakeError::Key)?;
    let key = key.trim();
    let mut nonce = [0; 18];
    if key.len() != 24 || STANDARD.decode_slice(key, &mut nonce) != Ok(16) {
        return Err(HandshakeError::Key);
    }
    if header("sec-websocket-version").as_deref().map(str::trim) != Some(VERSION) {
        return Err(HandshakeError::Version);
    }
    let protocol = match header("sec-websocket-protocol") {
        Some(protocols) => Some(first_protocol(&protocols)?.to_owned()),
        None => None,
    };
    let extensions = header("sec-websocket-extensions")
        .filter(|_| deflate)
        .and_then(|offers| deflate::negotiate(&offers))
        .map(|accepted| accepted.response_header);
    Ok(Upgrade { accept: accept_key(key), protocol, extensions })
}

/// The handshake of a client: its request, and what must be answered.
#[derive(Debug, Clone)]
pub struct ClientHandshake {
    request: Vec<u8>,
    accept: String,
    deflate: bool,
}

/// What a server agreed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// How many bytes the response had. What was received after them are frames.
    pub head_bytes: usize,
    /// Whether messages may be compressed.
    pub deflate: bool,
}

impl ClientHandshake {
    /// Writes the request (RFC 6455 section 4.1). `host` is the value of `Host`, `path` the path
    /// with its query, `key` 16 fresh random bytes, `headers` are added as they are, and `deflate`
    /// offers permessage-deflate.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Unwritable`] if one of the parts has bytes that would end it early.
    pub fn new(
        host: &str,
        path: &str,
        key: [u8; 16],
        headers: &[(String, String)],
        deflate: bool,
    ) -> Result<Self, HandshakeError> {
        let line = |text: &str| text.bytes().all(|byte| !byte.is_ascii_control() || byte == b'\t');
        let word =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !word(host)
            || !word(path)
            || !headers.iter().all(|(name, value)| is_token(name) && line(value))
        {
            return Err(HandshakeError::Unwritable);
        }

        let key = STANDARD.encode(key);
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: {VERSION}\r\n"
        );
        let offer = [("Sec-WebSocket-Extensions", deflate::OFFER)];
        let offer = offer.into_iter().filter(|_| deflate);
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in offer.chain(headers) {
            request.extend([name, ": ", value, "\r\n"]);
        }
        request.push_str("\r\n");
        Ok(Self { request: request.into_bytes(), accept: accept_key(&key), deflate })
    }

    /// The bytes to send.
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Checks all that was received so far (RFC 6455 section 4.1, "Once the client's opening
    /// handshake has been sent"); `None` if the head of the response has not ended.
    ///
    /// # Errors
    ///
    /// The server refused, or what it answered is not what was asked.
    pub fn check_response(&self, received: &[u8]) -> Result<Option<Agreed>, HandshakeError> {
        let Some(end) = memchr::memmem::find(received, b"\r\n\r\n") else {
            if received.len() > RESPONSE_HEAD_MAX_BYTES {
                return Err(HandshakeError::BadResponse);
            }
            return Ok(None);
        };
        let head = str::from_utf8(&received[..end]).map_err(|_| HandshakeError::BadResponse)?;
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1.1 "))
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse().ok())
            .ok_or(HandshakeError::BadResponse)?;
        if status != 101 {
            return Err(HandshakeError::Refused { status });
        }
        let headers = lines
            .map(|line| line.split_once(':').map(|(name, value)| (name, value.trim())))
            .collect::<Option<Vec<_>>>()
            .ok_or(HandshakeError::BadResponse)?;
        let header = |wanted: &str| {
            let mut values = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
            let (_, first) = values.next()?;
            Some(values.fold(Cow::Borrowed(*first), |all, (_, value)| {
                Cow::Owned(format!("{all},{value}"))
            }))
        };

        if !header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")) {
            return Err(HandshakeError::Upgrade);
        }
        if !header("connection").is_some_and(|value| has_token(&value, "upgrade")) {
            return Err(HandshakeError::Connection);
        }
        if header("sec-websocket-accept").as_deref() != Some(&self.accept) {
            return Err(HandshakeError::Accept);
        }
        let agreed = deflate::check_response(header("sec-websocket-extensions").as_deref());
        match agreed {
            Some(deflate) if self.deflate || !deflate => {
                Ok(Some(Agreed { head_bytes: end + 4, deflate }))
            }
            Some(_) | None => Err(HandshakeError::Extensions),
        }
    }
}

/// Why there is no WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeError {
    /// The client's method is not GET.
    Method,
    /// `Upgrade` does not name `websocket`.
    Upgrade,
    /// `Connection` does not name `Upgrade`.
    Connection,
    /// `Sec-WebSocket-Key` is missing or not 16 bytes in base64.
    Key,
    /// `Sec-WebSocket-Version` is not 13.
    Version,
    /// `Sec-WebSocket-Protocol` is not a list of tokens.
    Protocol,
    /// The server answered another status than 101.
    Refused {
        /// What it answered.
        status: u16,
    },
    /// The server answered with what is not HTTP/1.1, or a head of more than 16 KiB.
    BadResponse,
    /// `Sec-WebSocket-Accept` does not answer the key.
    Accept,
    /// The server named extensions or parameters that were not offered.
    Extensions,
    /// This end wanted to send a host, path or header that cannot be written.
    Unwritable,
}

impl HandshakeError {
    /// The status for a server to answer. With 426 goes `Sec-WebSocket-Version: 13` (RFC 6455
    /// section 4.2.2), with 405 `Allow: GET`.
    pub fn status(&self) -> u16 {
        match self {
            Self::Method => 405,
            Self::Version => 426,
            Self::Upgrade
            | Self::Connection
            | Self::Key
            | Self::Protocol
            | Self::Refused { .. }
            | Self::BadResponse
            | Self::Accept
            | Self::Extensions
            | Self::Unwritable => 400,
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => "the client asked for a WebSocket by another method than GET",
            Self::Upgrade => "the peer sent no upgrade header for a WebSocket",
            Self::Connection => "the peer sent no connection header for an upgrade",
            Self::Key => "the client sent no valid Sec-WebSocket-Key",
            Self::Version => "the client asked for another version of WebSocket than 13",
            Self::Protocol => "the client sent no valid Sec-WebSocket-Protocol",
            Self::Refused { status } => {
                return write!(f, "the server refused the WebSocket with status {status}");
            }
            Self::BadResponse => {
                "the server answered the WebSocket handshake with no valid HTTP/1.1"
            }
            Self::Accept => "the server sent no valid Sec-WebSocket-Accept",
            Self::Extensions => "the server chose WebSocket extensions that were not offered",
            Self::Unwritable => "a host, path or header of the WebSocket request cannot be written",
        })
    }
}

impl std::error::Error for HandshakeError {}

/// Whether a comma-separated list names `token`, in whatever case.
fn has_token(list: &str, token: &str) -> bool {
    list.split(',').any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// The first of a list of subprotocols, which must all be tokens, each once (RFC 6455 section 4.1).
fn first_protocol(list: &str) -> Result<&str, HandshakeError> {
    // A head of thousands of short tokens must not cost their square.
    let mut seen = BTreeSet::new();
    let mut items = list.split(',').map(str::trim);
    if !items.clone().all(|item| is_token(item) && seen.insert(item)) {
        return Err(HandshakeError::Protocol);
    }
    items.next().ok_or(HandshakeError::Protocol)
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request of RFC 6455 section 1.2.
    const REQUEST: [(&str, &str); 5] = [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "chat, superchat"),
        ("sec-websocket-version", "13"),
    ];

    fn check_with(changes: &[(&str, Option<&'static str>)]) -> Result<Upgrade, HandshakeError> {
        check_request(
            "GET",
            |name| match changes.iter().find(|(changed, _)| *changed == name) {
                Some((_, value)) => value.map(Cow::Borrowed),
                None => {
                    REQUEST.iter().find(|(n, _)| *n == name).map(|(_, value)| Cow::Borrowed(*value))
                }
            },
            true,
        )
    }

    #[test]
    fn the_example_of_the_rfc_is_taken() {
        assert_eq!(
            check_with(&[]),
            Ok(Upgrade {
                accept: "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned(),
                protocol: Some("chat".to_owned()),
                extensions: None,
            })
        );
    }

    #[test]
    fn each_missing_or_wrong_header_is_named() {
        for (name, value, error) in [
            ("upgrade", None, HandshakeError::Upgrade),
            ("upgrade", Some("h2c"), HandshakeError::Upgrade),
            ("connection", Some("keep-alive"), HandshakeError::Connection),
            ("sec-websocket-key", None, HandshakeError::Key),
            ("sec-websocket-key", Some("dGhlIHNhbXBsZSBub25jZQ"), HandshakeError::Key),
            ("sec-websocket-key", Some("dGhlIHNhbXBsZSBub25j"), HandshakeError::Key),
            ("sec-websocket-version", Some("8"), HandshakeError::Version),
            ("sec-websocket-protocol", Some("a b"), HandshakeError::Protocol),
            ("sec-websocket-protocol", Some("a, a"), HandshakeError::Protocol),
            ("sec-websocket-protocol", Some(""), HandshakeError::Protocol),
        ] {
            assert_eq!(check_with(&[(name, value)]), Err(error), "{name}: {value:?}");
        }
        assert_eq!(check_request("POST", |_| None, true), Err(HandshakeError::Method));
        assert_eq!(HandshakeError::Version.status(), 426);
    }

    #[test]
    fn lists_and_case_do_not_matter() {
        let upgrade = check_with(&[
            ("upgrade", Some("h2c, WebSocket")),
            ("connection", Some("keep-alive,UPGRADE")),
            ("sec-websocket-extensions", Some("permessage-deflate; client_max_window_bits")),
        ]);
        assert_eq!(upgrade.unwrap().extensions.as_deref(), Some(deflate::OFFER));
    }

    fn client() -> ClientHandshake {
        let headers = [("Cookie".to_owned(), "a=b".to_owned())];
        ClientHandshake::new("example.com:80", "/ws?x=1", *b"the sample nonce", &headers, true)
            .unwrap()
    }

    #[test]
    fn a_client_asks_as_the_rfc_says() {
        assert_eq!(
            str::from_utf8(client().request()).unwrap(),
            "GET /ws?x=1 HTTP/1.1\r\nHost: example.com:80\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
             client_no_context_takeover\r\nCookie: a=b\r\n\r\n"
        );
        let headers = [("X".to_owned(), "a\r\nb".to_owned())];
        let error = ClientHandshake::new("host", "/", [0; 16], &headers, false).unwrap_err();
        assert_eq!(error, HandshakeError::Unwritable);
    }

    #[test]
    fn a_client_takes_an_answer_only_whole() {
        let response = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
            connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x00";
        for cut in 0..response.len() - 2 {
            assert_eq!(client().check_response(&response[..cut]), Ok(None), "{cut}");
        }
        let agreed = Agreed { head_bytes: response.len() - 2, deflate: false };
        assert_eq!(client().check_response(response), Ok(Some(agreed)));
    }

    #[test]
    fn a_client_refuses_what_it_did_not_ask() {
        let answer = |text: &str| client().check_response(format!("{text}\r\n\r\n").as_bytes());
        let good = "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade";
        let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        assert_eq!(answer("HTTP/1.1 503 Busy"), Err(HandshakeError::Refused { status: 503 }));
        assert_eq!(answer("SSH-2.0-x"), Err(HandshakeError::BadResponse));
        assert_eq!(answer("HTTP/1.1 101 X\r\nnonsense"), Err(HandshakeError::BadResponse));
        assert_eq!(answer("HTTP/1.1 101 X"), Err(HandshakeError::Upgrade));
        assert_eq!(answer(good), Err(HandshakeError::Accept));
        assert_eq!(
            answer(&format!("{good}\r\nSec-WebSocket-Accept: AAAA")),
            Err(HandshakeError::Accept)
        );
        assert_eq!(
            answer(&format!("{good}\r\n{accept}\r\nSec-WebSocket-Extensions: x-other")),
            Err(HandshakeError::Extensions)
        );
        assert_eq!(client().check_response(&vec![b'x'; 20_000]), Err(HandshakeError::BadResponse));
    }
}
