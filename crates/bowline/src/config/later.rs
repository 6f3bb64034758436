//! What a later version will know. A file that uses it is refused with just these words, so that
//! nobody believes a setting to be in force that is not.

/// Returns the keys of a later version in the table with this path, which ends with a dot.
pub(crate) fn keys(table: &str) -> &'static [&'static str] {
    match table {
        "server." => &["upgrade-grace"],
        "admin." => &["mount"],
        "continuity." => &["sync"],
        "namespaces.*." => &["public-rooms"],
        _ => &[],
    }
}

/// Values of `continuity.durability`.
pub(crate) const DURABILITIES: &[&str] = &["disk"];

/// Handlers of a namespace that are written as a table.
pub(crate) const HANDLERS: &[&str] = &["upstream"];
