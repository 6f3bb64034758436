//! Changes to an input that keep most of its structure.

use crate::rng::Rng;

/// Pieces that mean something to one decoder or another.
const WORDS: &[&str] = &[
    "0",
    "1",
    "4",
    "9",
    "10",
    "00",
    "-",
    ",",
    ":",
    "/",
    "?",
    "&",
    "=",
    "%",
    "%41",
    "+",
    ";",
    "\"",
    "\\",
    "\\u",
    "\\ud83d",
    "\\n",
    "[",
    "]",
    "{",
    "}",
    "null",
    "true",
    "1e9",
    "-0",
    "b",
    "b4",
    "probe",
    "\u{1e}",
    "\u{2028}",
    "é",
    "😀",
    "\u{fffd}",
    "_placeholder",
    "\"num\":",
    "connect",
    "/ns,",
    "EIO=4",
    "transport=polling",
    "sid=",
    "__proto__",
    "4294967296",
    "18446744073709551616",
    "permessage-deflate",
    "\r\n",
    "\n",
    "\0",
    " ",
    "websocket",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

/// Bytes at which formats change their mind.
const BYTES: &[u8] =
    &[0, 1, 4, 7, 9, 10, 0x1e, 0x7d, 0x7e, 0x7f, 0x80, 0x81, 0x88, 0xc1, 0xf0, 0xfe, 0xff];

/// Makes one change.
pub(super) fn mutate(rng: &mut Rng, data: &mut Vec<u8>) {
    let at = rng.below(data.len() + 1);
    let end = (at + 1 + rng.below(8)).min(data.len());
    match rng.below(8) {
        0 if at < data.len() => data[at] ^= 1 << rng.below(8),
        1 if at < data.len() => data[at] = *rng.pick(BYTES),
        2 => data.insert(at, rng.byte()),
        3 if at < end => drop(data.drain(at..end)),
        4 => {
            let word = rng.pick(WORDS);
            data.splice(at..at, word.bytes());
        }
        5 if at < end => {
            let word = rng.pick(WORDS);
            data.splice(at..end, word.bytes());
        }
        6 if at < data.len() => {
            // A piece said twice, perhaps many times.
            let end = (at + 1 + rng.below(32)).min(data.len());
            let piece = data[at..end].repeat(1 + rng.scaled(6));
            data.splice(at..at, piece);
        }
        _ => data.truncate(at),
    }
}
