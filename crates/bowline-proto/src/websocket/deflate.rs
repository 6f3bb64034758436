//! permessage-deflate (RFC 7692), always without context takeover: no state lives between
//! messages, so a connection that is idle costs nothing and can move to another process.

use std::fmt::Write as _;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::Error;

/// The name of the extension.
const NAME: &str = "permessage-deflate";

/// What a flush leaves at the end of the data, which is not sent (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// What a client of ours offers in `Sec-WebSocket-Extensions`.
pub const OFFER: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// What a server agreed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The value of `Sec-WebSocket-Extensions` in the response.
    pub response_header: String,
}

/// Chooses among the offers of a client, the value of its `Sec-WebSocket-Extensions`, the first
/// that can be met (RFC 7692 section 5.1). Offers that ask the server for a window smaller than
/// 32 KiB cannot; neither can those with unknown, repeated or wrong parameters (section 7.1).
pub fn negotiate(offers: &str) -> Option<Accepted> {
    offers.split(',').find_map(|offer| {
        let offer = Parameters::parse(offer)?;
        if matches!(offer.server_max_window_bits, Some(Some(8..15) | None)) {
            return None;
        }
        let mut response_header = OFFER.to_owned();
        if let Some(Some(bits)) = offer.server_max_window_bits {
            let _ = write!(response_header, "; server_max_window_bits={bits}");
        }
        Some(Accepted { response_header })
    })
}

/// Whether a server's answer to [`OFFER`] can be kept: `Some(false)` if it declined, `None` if it
/// answered what was not asked, which fails the connection (RFC 7692 section 7.1).
pub fn check_response(extensions: Option<&str>) -> Option<bool> {
    let Some(extensions) = extensions.filter(|value| !value.trim().is_empty()) else {
        return Some(false);
    };
    // A comma would be a second extension; none was offered.
    let answer = Parameters::parse(extensions)?;
    let kept = answer.server_no_context_takeover
        // Nobody offered to take a smaller window.
        && answer.client_max_window_bits.is_none()
        // In an answer the parameter has a value (section 7.1.2.1).
        && answer.server_max_window_bits != Some(None);
    kept.then_some(true)
}

/// The parameters of one `permessage-deflate`, in an offer or an answer (RFC 7692 section 7.1).
#[derive(Debug, Default)]
struct Parameters {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<Option<u8>>,
    client_max_window_bits: Option<Option<u8>>,
}

impl Parameters {
    /// `None` if it is another extension, or has a parameter that is unknown, repeated or wrong.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case(NAME) {
            return None;
        }
        let mut parameters = Self::default();
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim_end(), Some(unquote(value.trim_start()))),
                None => (part, None),
            };
            let repeated = match name.to_ascii_lowercase().as_str() {
                "server_no_context_takeover" if value.is_none() => {
                    std::mem::replace(&mut parameters.server_no_context_takeover, true)
                }
                "client_no_context_takeover" if value.is_none() => {
                    std::mem::replace(&mut parameters.client_no_context_takeover, true)
                }
                "server_max_window_bits" => {
                    let bits = window_bits(value)?;
                    parameters.server_max_window_bits.replace(bits).is_some()
                }
                "client_max_window_bits" => {
                    let bits = window_bits(value)?;
                    parameters.client_max_window_bits.replace(bits).is_some()
                }
                _ => return None,
            };
            if repeated {
                return None;
            }
        }
        Some(parameters)
    }
}

/// 8 to 15 without leading zeros (RFC 7692 section 7.1.2). The outer `None` is a wrong value, the
/// inner one no value.
fn window_bits(value: Option<&str>) -> Option<Option<u8>> {
    let Some(value) = value else { return Some(None) };
    match value {
        "8" => Some(Some(8)),
        "9" => Some(Some(9)),
        "10" | "11" | "12" | "13" | "14" | "15" => value.parse().ok().map(Some),
        _ => None,
    }
}

fn unquote(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// The most bytes that a message of `max_message_bytes` can need compressed: data that does not
/// compress is stored in blocks, with a few bytes before each.
pub(super) fn max_compressed_bytes(max_message_bytes: usize) -> usize {
    max_message_bytes.saturating_add(max_message_bytes / 16).saturating_add(64)
}

/// Compresses the payload of one message, to be sent with RSV1 (RFC 7692 section 7.2.1).
pub fn compress(payload: &[u8]) -> Vec<u8> {
    if payload.is_empty() {
        // RFC 7692 section 7.2.3.6.
        return vec![0x00];
    }
    let mut compressor = Compress::new(Compression::fast(), false);
    let mut out = Vec::with_capacity(payload.len() / 2 + 64);
    loop {
        let taken = compressor.total_in() as usize;
        let status = compressor.compress_vec(&payload[taken..], &mut out, FlushCompress::Sync);
        debug_assert!(status.is_ok(), "compressing in memory cannot fail");
        let all_taken = compressor.total_in() as usize == payload.len();
        // A flush is complete when it has left room (the rule of zlib's `deflate`).
        if status.is_err() || (all_taken && out.len() < out.capacity()) {
            break;
        }
        out.reserve(out.capacity().max(64));
    }
    if out.ends_with(&TAIL) {
        out.truncate(out.len() - TAIL.len());
    }
    out
}

/// Inflates the payload of one message that came with RSV1 (RFC 7692 section 7.2.2).
///
/// # Errors
///
/// [`Error::TooBig`] as soon as it yields more than `max_bytes`, whatever the rest would be;
/// [`Error::BadDeflate`] if it is not DEFLATE data.
pub fn inflate(payload: &[u8], max_bytes: usize) -> Result<Vec<u8>, Error> {
    let mut inflater = Decompress::new(false);
    // Text shrinks to about a third. More than this is asked for only when it is needed.
    let mut out = Vec::with_capacity(payload.len().saturating_mul(3).min(max_bytes));
    for mut part in [payload, &TAIL] {
        loop {
            let before = (inflater.total_in(), out.len());
            let status = inflater
                .decompress_vec(part, &mut out, FlushDecompress::Sync)
                .map_err(|_| Error::BadDeflate)?;
            let taken = (inflater.total_in() - before.0) as usize;
            let progress = taken > 0 || out.len() > before.1;
            part = &part[taken..];
            if out.len() > max_bytes {
                return Err(Error::TooBig { max_bytes });
            }
            if status == Status::StreamEnd {
                // A sender may end the data with a final block and begin again (RFC 7692 section
                // 7.2.3.4).
                inflater.reset(false);
            }
            if out.len() == out.capacity() {
                // One byte beyond the limit is enough to see that it is crossed.
                let room = max_bytes - out.len();
                out.reserve_exact(out.len().max(256).min(room) + 1);
            } else if part.is_empty() {
                break;
            } else if !progress {
                return Err(Error::BadDeflate);
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_rfc_inflate() {
        let hello: [&[u8]; 4] = [
            // RFC 7692 section 7.2.3.1: one compressed block.
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
            // Section 7.2.3.3: a block that is stored.
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            // Section 7.2.3.4: a final block.
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            // Section 7.2.3.5: two blocks.
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ];
        for bytes in hello {
            assert_eq!(inflate(bytes, 100).as_deref(), Ok(&b"Hello"[..]), "{bytes:x?}");
        }
        assert_eq!(inflate(&[0x00], 0).as_deref(), Ok(&b""[..]));
        assert_eq!(compress(b""), [0x00]);
    }

    #[test]
    fn a_bomb_is_refused_at_the_limit() {
        let bomb = compress(&vec![0; 10_000_000]);
        assert!(bomb.len() < 100_000);
        assert_eq!(inflate(&bomb, 100_000), Err(Error::TooBig { max_bytes: 100_000 }));
        assert_eq!(inflate(&compress(b"12345"), 4), Err(Error::TooBig { max_bytes: 4 }));
        assert_eq!(inflate(&compress(b"12345"), 5).as_deref(), Ok(&b"12345"[..]));
    }

    #[test]
    fn incompressible_data_fits_its_bound() {
        let mut seed = 1_u64;
        for len in [1, 10, 100, 1_000, 70_000, 1_000_000] {
            let noise = std::iter::repeat_with(|| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 56) as u8
            });
            let data = noise.take(len).collect::<Vec<_>>();
            let compressed = compress(&data);
            assert!(
                compressed.len() <= max_compressed_bytes(len),
                "{len} became {}",
                compressed.len()
            );
            assert_eq!(inflate(&compressed, len), Ok(data));
        }
    }

    #[test]
    fn the_first_offer_that_can_be_met_is_taken() {
        let taken = |offers| negotiate(offers).map(|accepted| accepted.response_header);
        assert_eq!(taken("permessage-deflate").as_deref(), Some(OFFER));
        assert_eq!(taken("permessage-deflate; client_max_window_bits").as_deref(), Some(OFFER));
        assert_eq!(
            taken("Permessage-Deflate;client_max_window_bits=\"10\"").as_deref(),
            Some(OFFER)
        );
        assert_eq!(
            taken("x-other, permessage-deflate; server_max_window_bits=10, permessage-deflate")
                .as_deref(),
            Some(OFFER)
        );
        assert_eq!(
            taken("permessage-deflate; server_max_window_bits=15"),
            Some(format!("{OFFER}; server_max_window_bits=15"))
        );
        for refused in [
            "",
            "x-webkit-deflate-frame",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=9",
            "permessage-deflate; server_max_window_bits=08",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; what",
        ] {
            assert_eq!(taken(refused), None, "{refused}");
        }
    }

    #[test]
    fn an_answer_that_was_not_asked_fails() {
        assert_eq!(check_response(None), Some(false));
        assert_eq!(check_response(Some(OFFER)), Some(true));
        assert_eq!(
            check_response(Some("permessage-deflate; server_no_context_takeover")),
            Some(true)
        );
        for wrong in [
            "permessage-deflate",
            "permessage-deflate; server_no_context_takeover; client_max_window_bits=10",
            "permessage-deflate; server_no_context_takeover, permessage-deflate",
            "x-other",
        ] {
            assert_eq!(check_response(Some(wrong)), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_compressed_inflates_to_itself(data: Vec<u8>, repeat in 1_usize..200) {
            let data = data.repeat(repeat);
            prop_assert_eq!(inflate(&compress(&data), data.len()), Ok(data));
        }

        #[test]
        fn any_bytes_inflate_within_the_bound_or_fail(bytes: Vec<u8>, max in 0_usize..1_000) {
            if let Ok(out) = inflate(&bytes, max) {
                prop_assert!(out.len() <= max);
            }
        }
    }
}
