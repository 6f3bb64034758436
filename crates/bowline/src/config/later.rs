//! What a later version will know. A file that uses it is refused with just these words, so that
//! nobody believes a setting to be in force that is not.

/// Returns the keys of a later version in the table with this path, which ends with a dot.
pub(crate) fn keys(table: &str) -> &'static [&'static str] {
    match table {
        "" => &["continuity", "ai", "services", "links"],
        "server." => &["upgrade-grace"],
        "admin." => &["mount"],
        "namespaces.*." => &["stamp", "on-doubt", "event-id", "session-key", "public-rooms"],
        _ => &[],
    }
}

/// Handlers of a namespace that are written as a table.
pub(crate) const HANDLERS: &[&str] = &["upstream", "ai"];
