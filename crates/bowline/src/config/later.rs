//! What a later version will know. A file that uses it is refused with just these words, so that
//! nobody believes a setting to be in force that is not.

/// Tables of the top.
pub(crate) const TABLES: &[&str] =
    &["health", "continuity", "backends", "ai", "services", "links", "alerts"];

/// Keys of `[server]`.
pub(crate) const SERVER: &[&str] =
    &["state-dir", "trusted-proxies", "proxy-protocol", "upgrade-grace", "tls"];

/// Keys of `[admin]`.
pub(crate) const ADMIN: &[&str] = &["token-file", "mount"];

/// Keys of one namespace.
pub(crate) const NAMESPACE: &[&str] =
    &["stamp", "on-doubt", "event-id", "session-key", "auth", "public-rooms"];

/// Handlers of a namespace that are written as a table.
pub(crate) const HANDLERS: &[&str] = &["http", "upstream", "ai"];
