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
    /// A number made of `t`, which clients set to something new in each request, so that no cache
    /// answers it. Two that are alike are one request that a proxy has repeated.
    pub timestamp: Option<u64>,
}

impl Query {
    /// Reads a raw query string, without its question mark.
    ///
    /// It is read as `application/x-www-form-urlencoded`; of a parameter that is given more than
    /// once the last value counts, as in the reference.
    pub fn parse(raw: &str) -> Self {
        let mut query = Self {
            transport: None,
            version: Version::V3,
            sid: None,
            style: PollStyle::default(),
            timestamp: None,
        };
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
                "t" => query.timestamp = Some(fnv(value.as_bytes())),
                "sid" => query.sid = Some(value.into_owned()).filter(|sid| !sid.is_empty()),
                "b64" => query.style.base64 = !value.is_empty(),
                "j" => {
                    let digits = value.chars().filter(char::is_ascii_digit);
                    let digits: String = digits.take(JSONP_DIGITS_MAX).collect();
                    query.style.jsonp = Some(digits.into());
                }
                _ => {}
            }
        }
        query
    }
}

/// FNV-1a: whoever makes two of theirs alike harms nobody else.
fn fnv(bytes: &[u8]) -> u64 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix)
}

/// Digits of `j` that are kept, and written into every body: as many as a 64-bit number has.
const JSONP_DIGITS_MAX: usize = 20;

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
    /// What tells it from others: see [`Query::timestamp`].
    pub timestamp: Option<u64>,
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
            timestamp: query.timestamp,
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
    if memchr::memchr2(b'+', b'%', raw.as_bytes()).is_none() {
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

#[cfg(test)]
mod tests {
    use super::*;

    const SID: &str = "AQAAAAAAAAAAAAAAAAAA";

    fn head(query: &str) -> RequestHead<'_> {
        RequestHead { method: "GET", query, origin: None, upgrade: false }
    }

    fn route(query: &str) -> Result<Route, RequestError> {
        verify(&head(query), &RequestConfig::default())
    }

    #[test]
    fn refusals_have_the_codes_and_words_of_the_reference() {
        let all: Vec<String> = RequestError::ALL
            .iter()
            .map(|error| format!("{} {}", error.status(), error.json()))
            .collect();
        assert_eq!(
            all,
            [
                r#"400 {"code":0,"message":"Transport unknown"}"#,
                r#"400 {"code":1,"message":"Session ID unknown"}"#,
                r#"400 {"code":2,"message":"Bad handshake method"}"#,
                r#"400 {"code":3,"message":"Bad request"}"#,
                r#"403 {"code":4,"message":"Forbidden"}"#,
                r#"400 {"code":5,"message":"Unsupported protocol version"}"#,
            ]
        );
    }

    #[test]
    fn a_query_is_a_form_whose_last_value_counts() {
        let query = Query::parse("EIO=3&transport=polling&EIO=4&t=abc&transport=websocket");
        assert_eq!(query.transport, Some(TransportName::WebSocket));
        assert_eq!(query.version, Version::V4);
        assert_eq!(Query::parse("transport=polling&transport=x").transport, None);
        assert_eq!(Query::parse("tr%61nsport=poll%69ng").transport, Some(TransportName::Polling));
        assert_eq!(Query::parse("&&sid=a%2Bb+c&&").sid.as_deref(), Some("a+b c"));
        assert_eq!(Query::parse("sid=%zz%4").sid.as_deref(), Some("%zz%4"));
        assert_eq!(Query::parse("sid=%ff").sid.as_deref(), Some("\u{fffd}"));
        assert_eq!(Query::parse("sid=").sid, None);
        assert_eq!(Query::parse("").transport, None);
    }

    #[test]
    fn every_revision_but_exactly_4_is_3() {
        for (query, version) in [
            ("EIO=4", Version::V4),
            ("", Version::V3),
            ("EIO", Version::V3),
            ("EIO=3", Version::V3),
            ("EIO=5", Version::V3),
            ("EIO=abc", Version::V3),
            ("EIO=04", Version::V3),
            ("EIO=4%20", Version::V3),
            ("eio=4", Version::V3),
        ] {
            assert_eq!(Query::parse(query).version, version, "{query}");
        }
    }

    #[test]
    fn any_b64_asks_for_base64_and_any_j_for_jsonp() {
        for (query, base64) in
            [("b64=1", true), ("b64=true", true), ("b64=0", true), ("b64=", false), ("", false)]
        {
            assert_eq!(Query::parse(query).style.base64, base64, "{query}");
        }
        for (query, digits) in [
            ("j=12", Some("12")),
            ("j=", Some("")),
            ("j=1);alert(2", Some("12")),
            ("j=%D9%A1", Some("")),
            ("", None),
        ] {
            assert_eq!(Query::parse(query).style.jsonp.as_deref(), digits, "{query}");
        }
    }

    #[test]
    fn checks_are_made_in_the_order_of_the_reference() {
        let config = RequestConfig { allow_eio3: false, ..RequestConfig::default() };
        let all_wrong = RequestHead {
            method: "POST",
            query: "transport=x&EIO=3&sid=zzz",
            origin: Some(b"\x01"),
            upgrade: false,
        };
        let only = ["https://a.example".to_owned()];
        let strict = RequestConfig { allowed_origins: &only, ..config };
        let mut head = all_wrong;
        assert_eq!(verify(&head, &strict), Err(RequestError::UnknownTransport));
        head.query = "transport=websocket&EIO=3&sid=zzz";
        assert_eq!(verify(&head, &strict), Err(RequestError::BadRequest));
        head.origin = Some(b"https://b.example");
        assert_eq!(verify(&head, &strict), Err(RequestError::UnknownSid));
        head.query = "transport=websocket&EIO=3";
        assert_eq!(verify(&head, &strict), Err(RequestError::BadHandshakeMethod));
        head.method = "GET";
        assert_eq!(verify(&head, &strict), Err(RequestError::BadRequest));
        head.upgrade = true;
        assert_eq!(verify(&head, &strict), Err(RequestError::Forbidden));
        head.origin = Some(b"https://a.example");
        assert_eq!(verify(&head, &strict), Err(RequestError::UnsupportedVersion));
        head.query = "transport=websocket&EIO=4";
        assert_eq!(
            verify(&head, &strict),
            Ok(Route::Open {
                transport: TransportName::WebSocket,
                version: Version::V4,
                style: PollStyle::default()
            })
        );
    }

    #[test]
    fn names_of_the_language_are_no_transports_and_no_sessions() {
        for name in ["__proto__", "constructor", "toString", "webtransport", "POLLING", ""] {
            let query = format!("EIO=4&transport={name}");
            assert_eq!(route(&query), Err(RequestError::UnknownTransport), "{name}");
        }
        for sid in ["__proto__", "constructor", "AQAAAAAAAAAAAAAAAAA=", "é"] {
            let query = format!("EIO=4&transport=polling&sid={sid}");
            assert_eq!(route(&query), Err(RequestError::UnknownSid), "{sid}");
        }
    }

    #[test]
    fn transports_that_are_switched_off_are_unknown() {
        let config = RequestConfig { polling: false, ..RequestConfig::default() };
        let polling = head("EIO=4&transport=polling");
        assert_eq!(verify(&polling, &config), Err(RequestError::UnknownTransport));
        let config = RequestConfig { websocket: false, ..RequestConfig::default() };
        let websocket = RequestHead { upgrade: true, ..head("EIO=4&transport=websocket") };
        assert_eq!(verify(&websocket, &config), Err(RequestError::UnknownTransport));
    }

    #[test]
    fn origins_are_refused_at_the_handshake_only_and_only_if_any_are_named() {
        let open = RequestHead { origin: Some(b"https://b"), ..head("EIO=4&transport=polling") };
        let named = ["https://a".to_owned()];
        let star = ["*".to_owned()];
        let with = |origins| RequestConfig { allowed_origins: origins, ..RequestConfig::default() };
        assert!(verify(&open, &with(&[])).is_ok());
        assert!(verify(&open, &with(&star)).is_ok());
        assert_eq!(verify(&open, &with(&named)), Err(RequestError::Forbidden));
        assert!(verify(&RequestHead { origin: None, ..open }, &with(&named)).is_ok());
        let query = format!("EIO=4&transport=polling&sid={SID}");
        assert!(verify(&RequestHead { query: &query, ..open }, &with(&named)).is_ok());
    }

    #[test]
    fn an_upgrade_that_asks_for_polling_is_completed_and_dropped() {
        let upgrade = RequestHead { upgrade: true, ..head("EIO=4&transport=polling") };
        assert_eq!(verify(&upgrade, &RequestConfig::default()), Ok(Route::Discard));
    }

    #[test]
    fn a_request_must_fit_the_session_it_names() {
        use TransportName::{Polling, WebSocket};
        let request = |transport, upgrade| SessionRequest {
            sid: SID.parse().unwrap(),
            transport,
            version: Version::V4,
            upgrade,
            timestamp: None,
        };
        let polling = Some((Polling, Version::V4));
        let websocket = Some((WebSocket, Version::V4));
        let bad = Err(RequestError::BadRequest);
        assert_eq!(request(Polling, false).verify(None), Err(RequestError::UnknownSid));
        assert_eq!(request(WebSocket, false).verify(None), Err(RequestError::UnknownSid));
        assert_eq!(request(Polling, false).verify(polling), Ok(()));
        assert_eq!(request(Polling, false).verify(websocket), bad, "a poll after the upgrade");
        assert_eq!(request(WebSocket, false).verify(polling), bad);
        assert_eq!(request(WebSocket, false).verify(websocket), bad);
        assert_eq!(request(WebSocket, true).verify(polling), Ok(()));
        assert_eq!(request(WebSocket, true).verify(websocket), Ok(()));
        assert_eq!(request(Polling, false).verify(Some((Polling, Version::V3))), bad);
    }
}
