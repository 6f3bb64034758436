//! What refusals and close codes mean, where the service's protocol does not say it otherwise.

use std::time::Duration;

use bowline_dial::socket::SocketRefusal;
use bowline_proto::keeper::{OpenFailure, Verdict};
use http::{HeaderMap, header::RETRY_AFTER};

/// What a WebSocket that was not opened means.
pub(super) fn of_refusal(refusal: SocketRefusal) -> OpenFailure {
    let verdict = refusal.status.map_or(Verdict::Again, of_status);
    let retry_after = retry_after(&refusal.headers);
    OpenFailure { verdict, words: refusal.words, retry_after }
}

/// What the status of an answer means that is not the one that was wanted.
pub(super) fn of_status(status: u16) -> Verdict {
    match status {
        401 | 407 => Verdict::Unauthorized,
        // A path or a host that is not there (any more); a redirect, which is not followed.
        300..=399 | 404 | 410 | 421 => Verdict::Elsewhere,
        // Too early, too slow, too many.
        408 | 425 | 429 => Verdict::Again,
        400..=499 => Verdict::Refused,
        _ => Verdict::Again,
    }
}

/// What the end of a WebSocket means (RFC 6455 section 7.4 and the registry of IANA). Codes from 4000 on are the
/// service's own: those that look like a status of HTTP are read as one.
pub(super) fn of_close(code: Option<u16>) -> Verdict {
    match code {
        // Policy; an extension that we should have asked for; forbidden.
        Some(1003 | 1008 | 1010 | 3003) => Verdict::Refused,
        Some(3000) => Verdict::Unauthorized,
        Some(code @ (4400..=4499)) => of_status(code - 4000),
        _ => Verdict::Again,
    }
}

/// What `Retry-After` asks for, if it does so in seconds (RFC 9110 section 10.2.3). At most an hour is believed.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse::<u64>().ok()?;
    Some(Duration::from_secs(seconds.min(3600)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_refused_is_told_apart_from_a_server_that_is_busy() {
        use Verdict::{Again, Elsewhere, Refused, Unauthorized};
        let of = |statuses: [u16; 8]| statuses.map(of_status);
        assert_eq!(
            of([401, 403, 404, 301, 429, 500, 503, 200]),
            [Unauthorized, Refused, Elsewhere, Elsewhere, Again, Again, Again, Again]
        );
        let codes = [None, Some(1000), Some(1001), Some(1008), Some(1011), Some(1012), Some(3000)];
        assert_eq!(codes.map(of_close), [Again, Again, Again, Refused, Again, Again, Unauthorized]);
        let own = [4000, 4001, 4401, 4403, 4404, 4429, 4500].map(|code| of_close(Some(code)));
        assert_eq!(own, [Again, Again, Unauthorized, Refused, Elsewhere, Again, Again]);
    }

    #[test]
    fn the_pause_that_a_service_asks_for_has_an_end() {
        let asks = |value: &'static str| {
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]))
        };
        assert_eq!(asks("7"), Some(Duration::from_secs(7)));
        assert_eq!(asks("999999"), Some(Duration::from_secs(3600)));
        assert_eq!(asks("Fri, 31 Dec 1999 23:59:59 GMT"), None);
    }
}
