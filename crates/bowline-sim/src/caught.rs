//! Panics of worlds, and what they say.

use std::{
    cell::RefCell,
    panic::{self, AssertUnwindSafe},
};

/// Where a world fell, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fall {
    /// The place in the code.
    pub place: String,
    /// The words.
    pub words: String,
}

thread_local! {
    static LAST: RefCell<Option<Fall>> = const { RefCell::new(None) };
}

/// Keeps the words of panics instead of printing them, in all threads from now on.
pub fn keep_words() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let words = info.payload_as_str().unwrap_or("a panic without words").to_owned();
        LAST.set(Some(Fall { place, words }));
    }));
}

/// Does something and says how it fell, if it did. Needs [`keep_words`].
///
/// # Errors
///
/// The panic.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Fall> {
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    done.map_err(|_| {
        let unknown = || Fall { place: String::new(), words: "its words are lost".to_owned() };
        LAST.take().unwrap_or_else(unknown)
    })
}
