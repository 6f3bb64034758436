//! How single values are written: durations, sizes, addresses.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http::Uri;
use ipnet::IpNet;

/// What one writes for an address.
pub(crate) const ADDRESS: &str =
    "an address with its port, such as \"127.0.0.1:8000\" or \"[::]:8000\"";

/// What one writes for addresses of others.
pub(crate) const NETWORK: &str = "addresses or networks such as \"10.0.0.7\" or \"10.0.0.0/8\"";

/// What one writes for a number of shards.
pub(crate) const SHARDS: &str = "\"auto\" or a number from 1 to 255";

/// What one writes for an origin.
pub(crate) const ORIGIN: &str = "an origin such as \"https://chat.example.com\"";

/// What one writes for a URL.
pub(crate) const ENDPOINT: &str = "a URL such as \"http://127.0.0.1:9093\"";

/// What one writes for the level of the log.
pub(crate) const LEVEL: &str = "\"error\", \"warn\", \"info\", \"debug\", \"trace\" or \"off\", or \
     levels by module such as \"info,bowline_net=debug\"";

/// Reads a duration such as `500ms`, `25s` or `1m 30s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "write a duration such as \"500ms\", \"25s\" or \"2m\"".to_owned())
}

/// Writes a duration as [`duration`] reads it.
pub(crate) fn duration_text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// Reads a size: a number of bytes, or one with a unit. MB = 10⁶, MiB = 2²⁰.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 7] = [
        ("b", 1),
        ("kb", 1_000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
    ];
    let wrong = || "write a size such as \"64KiB\", \"1MB\" or a number of bytes".to_owned();
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number: u64 = digits.replace('_', "").parse().map_err(|_| wrong())?;
    let unit = unit.trim().to_ascii_lowercase();
    let factor = if unit.is_empty() {
        1
    } else {
        UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1
    };
    number.checked_mul(factor).ok_or_else(wrong)
}

/// Reads an address with its port. `localhost` is 127.0.0.1.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric.parse().map_err(|_| format!("write {ADDRESS}"))
}

/// Writes a size as [`size`] reads it, with the unit that makes the number shortest.
pub(crate) fn size_text(bytes: u64) -> String {
    const UNITS: [(&str, u64); 6] = [
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("kB", 1_000),
    ];
    (UNITS.iter())
        .filter(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor))
        .map(|(unit, factor)| (bytes / factor, unit))
        .min()
        .map_or_else(|| bytes.to_string(), |(number, unit)| format!("{number}{unit}"))
}

/// Reads a network, or an address, which is a network of one.
pub(crate) fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Writes a network as [`network`] reads it.
pub(crate) fn network_text(network: &IpNet) -> String {
    let whole = network.prefix_len() == network.max_prefix_len();
    if whole { network.addr().to_string() } else { network.to_string() }
}

/// Reads an origin: a scheme, a host and perhaps a port. Returns it without a slash at the end.
pub(crate) fn origin(text: &str) -> Result<String, String> {
    let wrong = || format!("write {ORIGIN}");
    let url = endpoint(text).map_err(|_| wrong())?;
    let bare = url.strip_suffix('/').unwrap_or(&url);
    if bare.matches('/').count() != 2 || bare.contains('?') {
        return Err(wrong());
    }
    Ok(bare.to_owned())
}

/// Reads a URL of HTTP. A user and a password in it are refused: nobody would send them.
pub(crate) fn endpoint(text: &str) -> Result<String, String> {
    let wrong = || format!("write {ENDPOINT}");
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let web = matches!(uri.scheme_str(), Some("http" | "https"));
    let host = uri.authority().is_some_and(|host| !host.as_str().contains('@'));
    if web && host && !text.contains('#') { Ok(text.to_owned()) } else { Err(wrong()) }
}

/// Reads which log lines are wanted: a level, or levels by module.
pub(crate) fn log_level(text: &str) -> Result<tracing_subscriber::filter::Targets, String> {
    let wrong = || format!("write {LEVEL}");
    // A bare word would otherwise be taken for the name of a module, and nothing logged.
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    for part in text.split(',') {
        let level = part.rsplit('=').next().unwrap_or(part).trim();
        if !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            return Err(wrong());
        }
    }
    text.parse().map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_know_decimal_and_binary_units() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("1_000", 1_000),
            ("1kB", 1_000),
            ("1 KiB", 1_024),
            ("1MB", 1_000_000),
            ("1MiB", 1_048_576),
            ("2GiB", 2_147_483_648),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MB", "1.5MB", "-1", "1 potato", "99999999999999999GB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_need_a_port() {
        assert_eq!(address("localhost:80"), Ok(SocketAddr::from(([127, 0, 0, 1], 80))));
        assert!(address("[::1]:80").is_ok());
        for text in ["8000", "127.0.0.1", "example.com:80", ""] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn log_levels_are_words_or_words_by_module() {
        for text in ["info", "off", "WARN", "info,bowline_net=debug"] {
            assert!(log_level(text).is_ok(), "{text}");
        }
        for text in ["loud", "bowline_net", "", "info,bowline_net=loud"] {
            assert!(log_level(text).is_err(), "{text}");
        }
    }
}
