//! `webhook-id`: what an app knows a request by that it may get twice. Pure.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest;

/// The longest id of a client's that is used as it is.
const PLAIN_MAX: usize = 128;

/// The id of a message that a link has brought: the same however often the app is offered it.
pub(crate) fn of_message(link: &str, id: &str) -> String {
    named("lnk", link, id)
}

/// The id of an event that its client has named: the same whenever the client sends it again, for as
/// long as the client is the same socket.
pub(crate) fn of_event(sid: &str, id: &str) -> String {
    named("ev", sid, id)
}

fn named(kind: &str, of: &str, id: &str) -> String {
    // The specification wants no full stops, and headers no more than printable letters.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !id.is_empty() && id.len() <= PLAIN_MAX && id.bytes().all(plain) {
        return format!("{kind}t_{of}_{id}");
    }
    let digest = digest::digest(&digest::SHA256, id.as_bytes());
    // Another beginning, so that nobody can choose an id that looks like the digest of another.
    format!("{kind}h_{of}_{}", URL_SAFE_NO_PAD.encode(digest))
}

/// The id of anything else: the same however often the server sends it.
pub(crate) fn of_request(nonce: u64, number: u64) -> String {
    format!("msg_{nonce:016x}{number:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_a_client_stays_what_it_is_if_a_header_can_hold_it() {
        assert_eq!(of_event("s", "a-B_7"), "evt_s_a-B_7");
        let long = "x".repeat(PLAIN_MAX);
        assert_eq!(of_event("s", &long), format!("evt_s_{long}"));
        let hash = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";
        assert_eq!(of_event("s", ""), format!("evh_s_{hash}"));
        for id in ["a.b", "ü", "a b", "a\r\nx: y", &"x".repeat(PLAIN_MAX + 1)] {
            let made = of_event("s", id);
            assert_eq!(made.len(), "evh_s_".len() + hash.len(), "{id}: {made}");
            assert!(made.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'.'), "{made}");
            assert_eq!(made, of_event("s", id), "the same again");
            assert_ne!(made, of_event("t", id), "each client has its own");
        }
        assert_ne!(of_event("s", "a.b"), of_event("s", "a.c"));
    }

    #[test]
    fn what_nobody_has_named_gets_a_number() {
        assert_eq!(of_request(1, 2), "msg_00000000000000010000000000000002");
    }
}
