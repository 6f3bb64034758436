//! Who may ask the admin listener.
//!
//! Everybody on the machine can connect to a loopback listener, and so can every web page that is
//! open in a browser there: by name (`Host`), if the name's owner points it to 127.0.0.1, and
//! blindly (`Origin`, forms) even without. So those are looked at even where no token is asked for.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use bowline_names::ErrorCode;
use bowline_proto::Time;
use http::{
    HeaderMap, HeaderValue, Method,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN},
    request,
    uri::Authority,
};

use super::{error::ApiError, token::Tokens};

/// Wrong tokens of one address in [`WINDOW`] before it is not listened to any more.
const FAILURES: u32 = 10;

/// How long wrong tokens count.
const WINDOW: Duration = Duration::from_secs(60);

/// Addresses whose wrong tokens are remembered; of more, those that end first are forgotten.
const ADDRESSES: usize = 4_096;

/// Decides on requests. Knows no clock.
#[derive(Debug)]
pub(crate) struct Guard {
    /// The names of this machine, in lower case.
    names: Vec<String>,
    failures: BTreeMap<IpAddr, Failures>,
}

/// The wrong tokens of one address.
#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    until: Time,
}

impl Guard {
    pub(crate) fn new(names: impl IntoIterator<Item = String>) -> Self {
        let names = names.into_iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { names, failures: BTreeMap::new() }
    }

    /// Lets a request through or says why not.
    pub(crate) fn check(
        &mut self,
        now: Time,
        peer: IpAddr,
        head: &request::Parts,
        tokens: Option<&Tokens>,
    ) -> Result<(), ApiError> {
        let peer = peer.to_canonical();
        self.refuse_guessers(now, peer)?;
        check_origin(&head.headers)?;
        match tokens {
            // Whoever knows the token is no page that has taken somebody's name.
            Some(tokens) => self.check_token(now, peer, &head.headers, tokens)?,
            None => self.check_host(&head.headers)?,
        }
        check_body(&head.method, &head.headers)
    }

    fn refuse_guessers(&mut self, now: Time, peer: IpAddr) -> Result<(), ApiError> {
        let Some(failures) = self.failures.get(&peer) else { return Ok(()) };
        if failures.until <= now {
            self.failures.remove(&peer);
            return Ok(());
        }
        if failures.count < FAILURES {
            return Ok(());
        }
        let message = format!("{peer} has sent {FAILURES} wrong tokens");
        let left = failures.until.since(now);
        // Rounded up: a second too early would be refused again.
        let retry_after = Some(left + Duration::from_secs(1));
        Err(ApiError { retry_after, ..ApiError::new(ErrorCode::TooManyFailures, message) })
    }

    fn check_token(
        &mut self,
        now: Time,
        peer: IpAddr,
        headers: &HeaderMap,
        tokens: &Tokens,
    ) -> Result<(), ApiError> {
        let Some(said) = headers.get(AUTHORIZATION) else {
            // No guess, and what any page can make a browser do: it does not count.
            return Err(ApiError::new(ErrorCode::AdminTokenMissing, "a token is asked for"));
        };
        if tokens.admit(said) {
            return Ok(());
        }
        self.on_failure(now, peer);
        Err(ApiError::new(ErrorCode::AdminTokenWrong, "the token is not the right one"))
    }

    fn on_failure(&mut self, now: Time, peer: IpAddr) {
        if self.failures.len() >= ADDRESSES && !self.failures.contains_key(&peer) {
            self.failures.retain(|_, failures| failures.until > now);
            let first = self.failures.iter().min_by_key(|(_, failures)| failures.until);
            if let Some(address) = first.map(|(address, _)| *address)
                && self.failures.len() >= ADDRESSES
            {
                self.failures.remove(&address);
            }
        }
        let fresh = Failures { count: 0, until: now + WINDOW };
        self.failures.entry(peer).or_insert(fresh).count += 1;
    }

    fn check_host(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let refused = |said: &str| {
            let message = format!("\"{}\" is no name of this machine", said.escape_debug());
            ApiError::new(ErrorCode::HostRefused, message)
        };
        let said = text(headers.get(HOST)).unwrap_or_default();
        let authority: Authority = said.parse().map_err(|_| refused(said))?;
        let host = authority.host().to_ascii_lowercase();
        // An address cannot be pointed elsewhere by the owner of a name.
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        let local = host == "localhost" || host.ends_with(".localhost");
        if address || local || self.names.contains(&host) { Ok(()) } else { Err(refused(said)) }
    }
}

/// A page may send requests only to where it came from.
fn check_origin(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let host = text(headers.get(HOST)).unwrap_or_default();
    let origin = text(Some(origin)).unwrap_or("null");
    let from = origin.split_once("://").map(|(_, authority)| authority);
    if !host.is_empty() && from.is_some_and(|from| from.eq_ignore_ascii_case(host)) {
        return Ok(());
    }
    let message = format!("the request comes from a page of {}", origin.escape_debug());
    Err(ApiError::new(ErrorCode::OriginRefused, message))
}

/// What changes something comes as JSON: no page can send that elsewhere without asking first.
fn check_body(method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let said = text(headers.get(CONTENT_TYPE)).unwrap_or_default();
    let kind = said.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = match kind {
        "" => "the request has no content type".to_owned(),
        kind => format!("the content type is {}", kind.escape_debug()),
    };
    Err(ApiError::new(ErrorCode::NotJson, message))
}

fn text(value: Option<&HeaderValue>) -> Option<&str> {
    value?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, net::Ipv4Addr};

    use http::Request;

    use super::*;

    const NOW: Time = Time::from_micros(1_000_000);
    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const TOKEN: &str = "correct-horse-battery";

    fn guard() -> Guard {
        Guard::new(["Gateway-1".to_owned()])
    }

    fn tokens() -> Tokens {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{TOKEN}").unwrap();
        Tokens::read(file.path()).unwrap()
    }

    fn head(method: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::builder().method(method).uri("/api/v1/status");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// What the guard says to a request without a token.
    fn said(method: &str, headers: &[(&str, &str)]) -> Option<ErrorCode> {
        let answer = guard().check(NOW, PEER, &head(method, headers), None);
        answer.err().map(|error| error.code)
    }

    #[test]
    fn only_names_of_this_machine_are_good() {
        for host in [
            "127.0.0.1:8001",
            "[::1]:8001",
            "localhost",
            "LOCALHOST:1",
            "a.localhost",
            "gateway-1:80",
        ] {
            assert_eq!(said("GET", &[("host", host)]), None, "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "a b", ""]
        {
            assert_eq!(said("GET", &[("host", host)]), Some(ErrorCode::HostRefused), "{host}");
        }
        assert_eq!(said("GET", &[]), Some(ErrorCode::HostRefused));
    }

    #[test]
    fn only_pages_of_the_same_origin_are_listened_to() {
        let host = ("host", "127.0.0.1:8001");
        assert_eq!(said("GET", &[host, ("origin", "http://127.0.0.1:8001")]), None);
        for origin in ["http://127.0.0.1:8000", "https://evil.example", "null", "127.0.0.1:8001"] {
            let code = said("GET", &[host, ("origin", origin)]);
            assert_eq!(code, Some(ErrorCode::OriginRefused), "{origin}");
        }
    }

    #[test]
    fn what_changes_something_must_be_json() {
        let host = ("host", "localhost:8001");
        for kind in ["application/json", "Application/JSON; charset=utf-8"] {
            assert_eq!(said("POST", &[host, ("content-type", kind)]), None, "{kind}");
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"] {
            let code = said("POST", &[host, ("content-type", kind)]);
            assert_eq!(code, Some(ErrorCode::NotJson), "{kind}");
        }
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            assert_eq!(said(method, &[host]), Some(ErrorCode::NotJson), "{method}");
        }
        assert_eq!(said("HEAD", &[host]), None);
    }

    #[test]
    fn with_a_token_any_name_is_good_but_not_any_page() {
        let right = format!("Bearer {TOKEN}");
        let check = |headers: &[(&str, &str)]| {
            let answer = guard().check(NOW, PEER, &head("GET", headers), Some(&tokens()));
            answer.err().map(|error| error.code)
        };
        let host = ("host", "bowline.monitoring.svc:8001");
        assert_eq!(check(&[host, ("authorization", &right)]), None);
        assert_eq!(check(&[host]), Some(ErrorCode::AdminTokenMissing));
        assert_eq!(check(&[host, ("authorization", "Bearer x")]), Some(ErrorCode::AdminTokenWrong));
        let page = ("origin", "https://evil.example");
        let code = check(&[host, page, ("authorization", &right)]);
        assert_eq!(code, Some(ErrorCode::OriginRefused));
    }

    #[test]
    fn whoever_guesses_is_not_listened_to_for_the_rest_of_a_minute() {
        let mut guard = guard();
        let tokens = tokens();
        let wrong = head("GET", &[("authorization", "Bearer wrong")]);
        let right = head("GET", &[("authorization", &format!("Bearer {TOKEN}"))]);
        let mut check =
            |now, peer: &str, head| guard.check(now, peer.parse().unwrap(), head, Some(&tokens));
        for _ in 0..FAILURES {
            let error = check(NOW, "192.0.2.1", &wrong).unwrap_err();
            assert_eq!(error.code, ErrorCode::AdminTokenWrong);
        }
        let later = NOW + Duration::from_secs(10);
        for head in [&wrong, &right] {
            // The same address, as a socket for both families has it.
            let error = check(later, "::ffff:192.0.2.1", head).unwrap_err();
            assert_eq!(error.code, ErrorCode::TooManyFailures);
            assert_eq!(error.retry_after, Some(Duration::from_secs(51)));
        }
        assert_eq!(check(later, "192.0.2.2", &right), Ok(()));
        assert_eq!(check(NOW + WINDOW, "192.0.2.1", &right), Ok(()));
    }

    #[test]
    fn a_missing_token_is_no_guess() {
        let mut guard = guard();
        let tokens = tokens();
        for _ in 0..3 * FAILURES {
            let error = guard.check(NOW, PEER, &head("GET", &[]), Some(&tokens)).unwrap_err();
            assert_eq!(error.code, ErrorCode::AdminTokenMissing);
        }
    }

    #[test]
    fn many_addresses_do_not_fill_the_memory() {
        let mut guard = guard();
        for number in 0..2 * ADDRESSES as u32 {
            guard.on_failure(NOW, IpAddr::V4(Ipv4Addr::from(number)));
        }
        assert_eq!(guard.failures.len(), ADDRESSES);
        // An address that guesses already is not forgotten for itself.
        let known = *guard.failures.keys().next().unwrap();
        guard.on_failure(NOW, known);
        assert_eq!(guard.failures[&known].count, 2);
    }
}
