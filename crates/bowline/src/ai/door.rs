//! Who may ask, and for what: judged by the head of a request, before any of its body is read.

use std::{borrow::Cow, net::IpAddr};

use bowline_ai::wire::{Failure, Surface};
use http::{
    HeaderMap, Method, StatusCode,
    header::{AUTHORIZATION, HOST, ORIGIN},
    request::Parts,
    uri::Authority,
};

use super::limit;

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// An answer of a model.
    Ask(Surface),
    /// The list of models.
    Models,
    /// One of them.
    Model(String),
}

/// Where the gateway is, below the root.
const ROOT: &str = "/v1";

/// Whether a path is the gateway's.
pub(super) fn is_below(path: &str) -> bool {
    path.strip_prefix(ROOT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What a request is for.
///
/// # Errors
/// There is nothing at its path, or not for its method.
pub(super) fn target(method: &Method, path: &str) -> Result<Target, Box<Failure>> {
    let rest = path.strip_prefix(ROOT).unwrap_or(path);
    let (target, takes) = match rest.trim_end_matches('/') {
        "/chat/completions" => (Target::Ask(Surface::ChatCompletions), Method::POST),
        "/embeddings" => (Target::Ask(Surface::Embeddings), Method::POST),
        "/messages" => (Target::Ask(Surface::Messages), Method::POST),
        "/models" => (Target::Models, Method::GET),
        rest => match rest.strip_prefix("/models/").and_then(decoded) {
            Some(model) => (Target::Model(model.into_owned()), Method::GET),
            None => {
                let words = format!("there is nothing at {path}");
                return Err(refusal(StatusCode::NOT_FOUND, "not_found", words));
            }
        },
    };
    if *method == takes {
        return Ok(target);
    }
    let words = format!("{path} takes {takes}, not {method}");
    Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", words))
}

/// How those who ask at a path are told of errors.
pub(super) fn surface_of(path: &str) -> Surface {
    if path.starts_with("/v1/messages") { Surface::Messages } else { Surface::ChatCompletions }
}

/// The key that a client shows: as OpenAI's SDKs do, as Anthropic's, or as Azure's.
pub(super) fn key_in(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    let shown = text("x-api-key").or(text("api-key")).or(bearer)?;
    Some(shown).filter(|key| !key.is_empty())
}

/// What names a request, if something does.
///
/// # Errors
/// It is no name: empty, too long, or not ASCII.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Box<Failure>> {
    let mut said = headers.get_all("idempotency-key").into_iter();
    let Some(first) = said.next() else { return Ok(None) };
    let text = first.to_str().ok().map(str::trim).filter(|_| said.next().is_none());
    let fits = |text: &&str| (1..=limit::IDEMPOTENCY_KEY_BYTES_MAX).contains(&text.len());
    let text = text.filter(fits).ok_or_else(|| {
        let most = limit::IDEMPOTENCY_KEY_BYTES_MAX;
        let words = format!("`Idempotency-Key` has 1 to {most} characters of ASCII");
        refusal(StatusCode::BAD_REQUEST, "invalid_idempotency_key", words)
    })?;
    Ok(Some(text.to_owned()))
}

/// Lets a client in without a key: a program on this machine, where nobody else can connect. A web page that is open in
/// a browser there is none.
///
/// # Errors
/// Whoever else asks.
pub(super) fn without_key(
    client: IpAddr,
    head: &Parts,
    listens_to_others: bool,
) -> Result<(), Box<Failure>> {
    let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(HOST).unwrap_or_default();
    let local = client.to_canonical().is_loopback() && !listens_to_others && is_here(host);
    let origin = head.headers.contains_key(ORIGIN);
    let foreign = origin
        && text(ORIGIN)
            .and_then(|origin| origin.split_once("://"))
            .is_none_or(|(_, from)| from != host);
    if local && !foreign {
        return Ok(());
    }
    Err(refusal(StatusCode::FORBIDDEN, KEYS_REQUIRED, KEYS_REQUIRED_WORDS.to_owned()))
}

/// What is said where nobody else than this machine may ask.
pub(super) const KEYS_REQUIRED: &str = "keys_required";
pub(super) const KEYS_REQUIRED_WORDS: &str = "no client keys are configured, so that only programs on the machine itself may ask; \
     the operator makes keys with `bowline config hash-key` and [ai.keys]";

/// What is said of a key that is not shown, or not known.
pub(super) const INVALID_KEY: &str = "invalid_api_key";

/// A refusal of the gateway's own.
pub(super) fn refusal(status: StatusCode, code: &str, words: String) -> Box<Failure> {
    Box::new(Failure::new(status, code, words))
}

/// Whether a `Host` names this machine and nothing that somebody may have pointed to it.
fn is_here(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// A part of a path without its percent signs. `None` if it is not text.
fn decoded(part: &str) -> Option<Cow<'_, str>> {
    if !part.contains('%') {
        return (!part.is_empty()).then_some(Cow::Borrowed(part));
    }
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http::Request;

    use super::*;

    fn head(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri("/v1/models");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn every_path_has_its_method_and_ids_of_models_may_have_slashes() {
        let get = |path| target(&Method::GET, path).map_err(|failure| failure.status.as_u16());
        let post = |path| target(&Method::POST, path).map_err(|failure| failure.status.as_u16());
        assert_eq!(post("/v1/chat/completions"), Ok(Target::Ask(Surface::ChatCompletions)));
        assert_eq!(post("/v1/embeddings"), Ok(Target::Ask(Surface::Embeddings)));
        assert_eq!(post("/v1/messages"), Ok(Target::Ask(Surface::Messages)));
        assert_eq!(get("/v1/models"), Ok(Target::Models));
        for path in ["/v1/models/a/b", "/v1/models/a%2Fb"] {
            assert_eq!(get(path), Ok(Target::Model("a/b".to_owned())), "{path}");
        }
        assert_eq!(get("/v1/chat/completions"), Err(405));
        for path in ["/v1", "/v1/", "/v1/responses", "/v1/models/%FF", "/v1/models/%2"] {
            assert_eq!(get(path), Err(404), "{path}");
        }
        for (path, below) in [("/v1", true), ("/v1/x", true), ("/v11", false), ("/", false)] {
            assert_eq!(is_below(path), below, "{path}");
        }
    }

    #[test]
    fn a_key_is_shown_in_one_of_three_ways() {
        for headers in [
            [("authorization", "Bearer abc")],
            [("authorization", "bearer  abc ")],
            [("x-api-key", "abc")],
            [("api-key", "abc")],
        ] {
            assert_eq!(key_in(&head(&headers).headers), Some("abc"), "{headers:?}");
        }
        for headers in [[("authorization", "Basic abc")], [("authorization", "Bearer ")]] {
            assert_eq!(key_in(&head(&headers).headers), None, "{headers:?}");
        }
    }

    #[test]
    fn without_keys_only_programs_on_this_machine_may_ask() {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let may = |client, headers: &[_], open| without_key(client, &head(headers), open).is_ok();
        assert!(may(here, &[("host", "localhost:8000")], false));
        assert!(may(here, &[("host", "127.0.0.1:8000")], false));
        assert!(may(here, &[("host", "[::1]")], false));
        let same = [("host", "localhost:8000"), ("origin", "http://localhost:8000")];
        assert!(may(here, &same, false));

        assert!(!may(here, &[("host", "localhost:8000")], true));
        assert!(!may([192, 0, 2, 1].into(), &[("host", "localhost:8000")], false));
        // A name that was pointed here, a page of somebody else, and one that hides where it is from.
        assert!(!may(here, &[("host", "evil.example:8000")], false));
        for origin in ["https://evil.example", "null", "http://localhost:3000"] {
            assert!(!may(here, &[("host", "localhost:8000"), ("origin", origin)], false));
        }
        assert!(!may(here, &[], false));
    }
}
