//! The head of a request to the engine path: its query, and what is refused before any session
//! is asked.

use std::{borrow::Cow, fmt};

use super::Version;
use crate::Sid;

/// How polling bodies are written for a client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PollStyle {
    /// It asked for base64 instead of binary: any non-empty `b64`, even `0`, as in the reference.
    pub base64: bool,
    /// It asked for JSONP: the digits of `j`, which name its callback; there may be none.
    pub jsonp: Option<Box<str>>,
}

/// Why a request is refused, with the numbers and words of the reference server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestError {
    /// `transport` is missing or not one that this server offers.
    UnknownTransport,
    /// `sid` names no session.
    UnknownSid,
    /// A session can be opened by GET only.
    BadHandshakeMethod,
    /// The request contradicts itself or the session it names.
    BadRequest,
    /// The origin may not open sessions here.
    Forbidden,
    /// `EIO` asks for a revision that is switched off (`engine.allow-eio3`).
    UnsupportedVersion,
}

impl RequestError {
    /// Every refusal, in the order of their codes.
    pub const ALL: [Self; 6] = [
        Self::UnknownTransport,
        Self::UnknownSid,
        Self::BadHandshakeMethod,
        Self::BadRequest,
        Self::Forbidden,
        Self::UnsupportedVersion,
    ];

    /// The number clients see.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The words clients see.
    pub fn message(self) -> &'static str {
        match self {
            Self::UnknownTransport => "Transport unknown",
            Self::UnknownSid => "Session ID unknown",
            Self::BadHandshakeMethod => "Bad handshake method",
            Self::BadRequest => "Bad request",
            Self::Forbidden => "Forbidden",
            Self::UnsupportedVersion => "Unsupported protocol version",
        }
    }

    /// The HTTP status for requests that are not WebSocket upgrades; those always get 400.
    pub fn status(self) -> u16 {
        match self {
            Self::Forbidden => 403,
            Self::UnknownTransport
            | Self::UnknownSid
            | Self::BadHandshakeMethod
            | Self::BadRequest
            | Self::UnsupportedVersion => 400,
        }
    }

    /// The body for requests that are not WebSocket upgrades, `application/json`.
    pub fn json(self) -> String {
        format!("{{\"code\":{},\"message\":\"{}\"}}", self.code(), self.message())
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for RequestError {}

/// A transport, as the query names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransportName {
    /// `polling`
    Polling,
    /// `websocket`
    WebSocket,
}

impl TransportName {
    /// Its name in queries and in the `upgrades` of an open packet.
    pub fn name(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::WebSocket => "websocket",
        }
    }
}

/// What the query of a request to the engine path says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// `transport`, if it names a known one.
    pub transport: Option<TransportName>,
    /// `EIO`: 4 if it is exactly that, else 3.
    pub version: Version,
    /// `sid`, unless empty.
    pub sid: Option<String>,
    /// `b64` and `j`.
    pub style: PollStyle,
}

impl Query {
    /// Reads a raw query string, without its question mark.
    ///
    /// It is read as `application/x-www-form-urlencoded`; of a parameter that is given more than
    /// once the last value counts, as in the reference.
    pub fn parse(raw: &str) -> Self {
        let mut query =
            Self { transport: None, version: Version::V3, sid: None, style: PollStyle::default() };
        for (key, value) in form_pairs(raw) {
            match &*key {
                "transport" => {
                    query.transport = match &*value {
                        "polling" => Some(TransportName::Polling),
                        "websocket" => Some(TransportName::WebSocket),
                        _ => None,
                    }
                }
                "EIO" => query.version = if value == "4" { Version::V4 } else { Version::V3 },
                "sid" => query.sid = Some(value.into_owned()).filter(|sid| !sid.is_empty()),
                "b64" => query.style.base64 = !value.is_empty(),
                "j" => {
                    let digits: String = value.chars().filter(char::is_ascii_digit).collect();
                    query.style.jsonp = Some(digits.into());
                }
                _ => {}
            }
        }
        query
    }
}

/// What is known of a request when its head is read.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// The method, as written.
    pub method: &'a str,
    /// The raw query string, without its question mark.
    pub query: &'a str,
    /// The value of the `Origin` header.
    pub origin: Option<&'a [u8]>,
    /// Whether it asks for an upgrade to WebSocket.
    pub upgrade: bool,
}

/// What this server accepts.
#[derive(Debug, Clone, Copy)]
pub struct RequestConfig<'a> {
    /// `polling` is in `engine.transports`.
    pub polling: bool,
    /// `websocket` is in `engine.transports`.
    pub websocket: bool,
    /// `engine.allow-eio3`.
    pub allow_eio3: bool,
    /// `engine.cors-allowed-origins`: if it names any, others may not open sessions; `*` allows all.
    pub allowed_origins: &'a [String],
}

impl Default for RequestConfig<'_> {
    fn default() -> Self {
        Self { polling: true, websocket: true, allow_eio3: true, allowed_origins: &[] }
    }
}

/// Where a request goes that was not refused by its head alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// It opens a session.
    Open {
        /// The transport it arrives on.
        transport: TransportName,
        /// The revision it speaks.
        version: Version,
        /// How its polling bodies are to be written.
        style: PollStyle,
    },
    /// It names a session, whose owner has the last word: see [`SessionRequest::verify`].
    Session(SessionRequest),
    /// A WebSocket upgrade that asks for another transport: it is completed and then closed.
    Discard,
}

/// A request that names a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionRequest {
    /// The session.
    pub sid: Sid,
    /// The transport it arrives on.
    pub transport: TransportName,
    /// The revision it claims.
    pub version: Version,
    /// Whether it is a WebSocket upgrade.
    pub upgrade: bool,
}

impl SessionRequest {
    /// Checks the request against the session it names.
    ///
    /// `found` is the transport that serves the session and its revision, or `None` if there is no
    /// such session.
    ///
    /// # Errors
    ///
    /// [`RequestError::UnknownSid`] without a session; [`RequestError::BadRequest`] if the
    /// transport or the revision is another one, or a plain request says `websocket`.
    pub fn verify(&self, found: Option<(TransportName, Version)>) -> Result<(), RequestError> {
        let (transport, version) = found.ok_or(RequestError::UnknownSid)?;
        // A plain GET with `transport=websocket` for a session on a WebSocket is left hanging by
        // the reference; here it is refused like any other mismatch.
        let mismatch = transport != self.transport || self.transport == TransportName::WebSocket;
        if !self.upgrade && mismatch || version != self.version {
            return Err(RequestError::BadRequest);
        }
        Ok(())
    }
}

/// Checks a request by its head, in the order of the reference: transport, origin bytes, session,
/// method, upgrade, origin, revision.
///
/// # Errors
///
/// [`RequestError`]: the first check that fails.
pub fn verify(head: &RequestHead<'_>, config: &RequestConfig<'_>) -> Result<Route, RequestError> {
    let query = Query::parse(head.query);
    let transport = query.transport.filter(|transport| match transport {
        TransportName::Polling => config.polling,
        TransportName::WebSocket => config.websocket,
    });
    let transport = transport.ok_or(RequestError::UnknownTransport)?;
    if head.origin.is_some_and(|origin| !is_field_value(origin)) {
        return Err(RequestError::BadRequest);
    }
    if let Some(sid) = &query.sid {
        let sid = sid.parse().map_err(|_| RequestError::UnknownSid)?;
        return Ok(Route::Session(SessionRequest {
            sid,
            transport,
            version: query.version,
            upgrade: head.upgrade,
        }));
    }
    if head.method != "GET" {
        return Err(RequestError::BadHandshakeMethod);
    }
    if transport == TransportName::WebSocket && !head.upgrade {
        return Err(RequestError::BadRequest);
    }
    if !origin_allowed(head.origin, config.allowed_origins) {
        return Err(RequestError::Forbidden);
    }
    if transport == TransportName::Polling && head.upgrade {
        return Ok(Route::Discard);
    }
    if query.version == Version::V3 && !config.allow_eio3 {
        return Err(RequestError::UnsupportedVersion);
    }
    Ok(Route::Open { transport, version: query.version, style: query.style })
}

/// Whether every byte may stand in a header value (RFC 9110 section 5.5, with tabs and obs-text).
fn is_field_value(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e | 0x80..))
}

/// Clients that are no browsers send no origin; they are not what this setting is about.
fn origin_allowed(origin: Option<&[u8]>, allowed: &[String]) -> bool {
    let Some(origin) = origin else { return true };
    allowed.is_empty() || allowed.iter().any(|one| one == "*" || one.as_bytes() == origin)
}

/// Reads the pairs of an `application/x-www-form-urlencoded` string, as the WHATWG URL standard
/// does.
pub(crate) fn form_pairs(raw: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (form_decode(key), form_decode(value))
    })
}

/// Undoes `+` and percent signs. What is not UTF-8 afterwards is replaced.
fn form_decode(raw: &str) -> Cow<'_, str> {
    if !raw.bytes().any(|byte| matches!(byte, b'+' | b'%')) {
        return Cow::Borrowed(raw);
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    loop {
        rest = match rest {
            [] => break,
            [b'%', high, low, tail @ ..] => match (hex_value(*high), hex_value(*low)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    tail
                }
                _ => {
                    out.push(b'%');
                    &rest[1..]
                }
            },
            [b'+', tail @ ..] => {
                out.push(b' ');
                tail
            }
            [byte, tail @ ..] => {
                out.push(*byte);
                tail
            }
        };
    }
    match String::from_utf8(out) {
        Ok(text) => Cow::Owned(text),
        Err(error) => Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
    }
}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}
