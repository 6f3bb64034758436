//! What the end of a socket means, as Cisco's own client takes it (facts/links-and-fleet.md, section 2.1). Pure.

use bowline_proto::keeper::Verdict;

/// Reasons of 1000 after which Cisco's client connects again; after others it stays away.
const AGAIN: [&str; 4] = ["idle", "done (forced)", "pong not received", "pong mismatch"];

/// What a close code means; `None`: it ended without a close frame. `opening`: the service had not admitted the socket.
pub(super) fn verdict(code: Option<u16>, reason: &str, opening: bool) -> Verdict {
    let reason = reason.trim().to_ascii_lowercase();
    match (code, opening) {
        (Some(4400 | 4403), true) => Verdict::Refused,
        (Some(4401), true) => Verdict::Unauthorized,
        // The device is not what it was, or is not there any more.
        (Some(1005 | 4404), true) => Verdict::Elsewhere,
        (Some(1001 | 1005 | 1006 | 1011) | None, _) => Verdict::Again,
        // Whoever gives no reason has not refused us.
        (Some(1000), _) if reason.is_empty() || AGAIN.contains(&&*reason) => Verdict::Again,
        // The authorization came too late; the service restarts, or asks to come back later (RFC 6455's registry).
        (Some(1008 | 1012 | 1013), _) => Verdict::Again,
        (Some(4000), _) if reason == "replaced" => Verdict::Replaced,
        // 4001: a socket that took this one's place while the service drained it. It is ours, or there is none.
        (Some(4000 | 4001), _) => Verdict::Again,
        _ => Verdict::Refused,
    }
}

/// What a status means with which a device, or the handshake of its socket, was refused.
pub(super) fn verdict_of_status(status: u16) -> Verdict {
    match status {
        401 => Verdict::Unauthorized,
        404 | 410 => Verdict::Elsewhere,
        408 | 425 | 429 | 500.. => Verdict::Again,
        400..500 => Verdict::Refused,
        _ => Verdict::Again,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_a_socket_in_use_mean_what_the_facts_say() {
        use Verdict::{Again, Refused, Replaced};
        let table = [
            (Some(1001), "", Again),
            (Some(1005), "", Again),
            (Some(1006), "", Again),
            (Some(1011), "internal", Again),
            (None, "", Again),
            (Some(1000), "idle", Again),
            (Some(1000), "Done (forced)", Again),
            (Some(1000), "Pong not received", Again),
            (Some(1000), "Pong mismatch", Again),
            (Some(1000), "", Again),
            (Some(1000), "go away", Refused),
            (Some(1003), "", Refused),
            (Some(1008), "authorization timeout", Again),
            (Some(1012), "", Again),
            (Some(4000), "Replaced", Replaced),
            (Some(4000), "replaced", Replaced),
            (Some(4000), "something else", Again),
            (Some(4001), "Replaced during shutdown", Again),
            (Some(4999), "", Refused),
        ];
        for (code, reason, expected) in table {
            assert_eq!(verdict(code, reason, false), expected, "{code:?} {reason}");
        }
    }

    #[test]
    fn codes_while_it_opens_may_mean_the_token_or_the_device() {
        use Verdict::{Elsewhere, Refused, Replaced, Unauthorized};
        let table = [
            (Some(4400), Refused),
            (Some(4401), Unauthorized),
            (Some(4403), Refused),
            (Some(4404), Elsewhere),
            (Some(1005), Elsewhere),
            (None, Verdict::Again),
            (Some(1011), Verdict::Again),
            (Some(4000), Replaced),
        ];
        for (code, expected) in table {
            assert_eq!(verdict(code, "Replaced", true), expected, "{code:?}");
        }
    }

    #[test]
    fn statuses_mean_the_token_the_device_us_or_nothing() {
        use Verdict::{Again, Elsewhere, Refused, Unauthorized};
        let table =
            [(401, Unauthorized), (404, Elsewhere), (429, Again), (503, Again), (403, Refused)];
        for (status, expected) in table {
            assert_eq!(verdict_of_status(status), expected, "{status}");
        }
    }
}
