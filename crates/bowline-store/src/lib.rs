//! The embedded store: SQLite in WAL mode behind one writer thread.
//!
//! Whoever writes waits for the commit of its group, never for a lock. A disk that is full or cannot be written
//! degrades the store to memory: nothing fails, [`Store::health`] says so.

mod inbox;

pub use inbox::{Arrival, Counts, Entry, Put, Stage, Step};
