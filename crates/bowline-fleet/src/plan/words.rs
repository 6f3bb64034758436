//! Words that several parts of the plan use.

use std::{fmt, time::Duration};

/// A duration as people say it.
pub(super) struct Lasting(pub(super) Duration);

impl fmt::Display for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0.as_secs(), self.0.subsec_millis());
        match (seconds, millis) {
            (0, millis) => write!(f, "{millis} ms"),
            (1..60, 0) => write!(f, "{seconds} s"),
            (1..60, millis) => write!(f, "{seconds}.{} s", millis / 100),
            (60..3600, _) if seconds.is_multiple_of(60) => write!(f, "{} min", seconds / 60),
            (60..3600, _) => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            _ => write!(f, "{} h {} min", seconds / 3600, seconds / 60 % 60),
        }
    }
}

/// Words of others, cut to [`WORDS_BYTES`](crate::limit::WORDS_BYTES).
pub(super) fn bounded(mut words: String) -> String {
    if words.len() > crate::limit::WORDS_BYTES {
        let end = words.floor_char_boundary(crate::limit::WORDS_BYTES - '…'.len_utf8());
        words.truncate(end);
        words.push('…');
    }
    words
}
