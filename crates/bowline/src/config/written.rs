//! Stage one: what was written in the file.

use std::{net::SocketAddr, ops::RangeInclusive, time::Duration};

use bowline_names::LimitKey;
use toml::de::{DeTable, DeValue};

use super::{
    Mistake, Place,
    document::{At, Lines, Section, shown},
    effective::{Allowance, Cookie, Handler, LogFormat, Shards, Transports},
    later, suggest, value,
};

/// Everything a file can say. What it does not say is `None`.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) listen: Option<Vec<SocketAddr>>,
    pub(crate) shards: Option<Shards>,
    pub(crate) drain: Option<Duration>,
    pub(crate) admin_listen: Option<At<SocketAddr>>,
    pub(crate) engine: Engine,
    pub(crate) limits: Limits,
    pub(crate) namespaces: Option<Vec<(String, Handler)>>,
    pub(crate) log_level: Option<String>,
    pub(crate) log_format: Option<LogFormat>,
}

/// `[engine]`
#[derive(Debug, Default)]
pub(crate) struct Engine {
    pub(crate) path: Option<String>,
    pub(crate) transports: Option<Transports>,
    pub(crate) allow_eio3: Option<bool>,
    pub(crate) ping_interval: Option<Duration>,
    pub(crate) ping_timeout: Option<Duration>,
    pub(crate) upgrade_timeout: Option<Duration>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) max_payload_bytes: Option<usize>,
    pub(crate) compression: Option<bool>,
    pub(crate) cors_allowed_origins: Option<Vec<String>>,
    pub(crate) cookie: Option<Cookie>,
}

/// `[limits]`
#[derive(Debug, Default)]
pub(crate) struct Limits {
    pub(crate) connections: Option<Allowance>,
    pub(crate) connections_per_address: Option<Allowance>,
    pub(crate) handshakes_per_second: Option<u32>,
    pub(crate) request_head: Option<Duration>,
    pub(crate) packets_per_payload: Option<usize>,
    pub(crate) attachments: Option<usize>,
    pub(crate) namespaces_per_session: Option<usize>,
    pub(crate) rooms_per_session: Option<usize>,
    pub(crate) pending_acks_per_session: Option<usize>,
    pub(crate) events_per_second: Option<u32>,
    pub(crate) queued_bytes_per_session: Option<usize>,
}

/// A time that is waited for somewhere: not nothing, and not so long that it must be a slip.
const WAIT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 3600);

/// A drain may be switched off, and ends before a supervisor of any patience gives up.
const DRAIN: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);

/// A count of things. Above it a number is a slip, and would not fit in memory anyway.
const COUNT: RangeInclusive<u64> = 1..=100_000_000;

/// A size in memory, for one session: up to 1 GiB.
const BYTES: RangeInclusive<u64> = 1..=(1 << 30);

/// Reads a file. Never stops at a mistake.
pub(crate) fn read(text: &str) -> (Written, Vec<Mistake>) {
    let lines = Lines::of(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut mistakes: Vec<Mistake> = (errors.iter())
        .map(|error| Mistake {
            place: Place::Line(error.span().map_or(1, |span| lines.line(span))),
            message: error.message().to_owned(),
        })
        .collect();
    let notation: Vec<Place> = mistakes.iter().map(|mistake| mistake.place.clone()).collect();

    let mut found = Vec::new();
    let written = read_document(Section::root(document.get_ref(), &lines), &mut found);
    // What a line seems to say when it cannot be read is no mistake of its own.
    found.retain(|mistake| !notation.contains(&mistake.place));
    mistakes.append(&mut found);
    (written, mistakes)
}

fn read_document(mut root: Section<'_>, mistakes: &mut Vec<Mistake>) -> Written {
    let mut written = Written::default();
    if let Some(mut table) = root.section("server", mistakes) {
        written.listen = take(table.value("listen", mistakes, addresses));
        written.shards = take(table.value("shards", mistakes, shards));
        written.drain = take(table.value("drain", mistakes, duration(DRAIN)));
        table.finish(later::SERVER, mistakes);
    }
    if let Some(mut table) = root.section("admin", mistakes) {
        written.admin_listen = table.value("listen", mistakes, address);
        table.finish(later::ADMIN, mistakes);
    }
    if let Some(table) = root.section("engine", mistakes) {
        written.engine = read_engine(table, mistakes);
    }
    if let Some(table) = root.section("limits", mistakes) {
        written.limits = read_limits(table, mistakes);
    }
    if let Some(table) = root.section("namespaces", mistakes) {
        written.namespaces = Some(read_namespaces(table, mistakes));
    }
    if let Some(mut table) = root.section("log", mistakes) {
        written.log_level = take(table.value("level", mistakes, log_level));
        written.log_format = take(table.value("format", mistakes, |value| {
            one_of(value, &[("text", LogFormat::Text), ("json", LogFormat::Json)])
        }));
        table.finish(&[], mistakes);
    }
    root.finish(later::TABLES, mistakes);
    written
}

fn read_engine(mut table: Section<'_>, mistakes: &mut Vec<Mistake>) -> Engine {
    let engine = Engine {
        path: take(table.value("path", mistakes, path)),
        transports: take(table.value("transports", mistakes, transports)),
        allow_eio3: take(table.value("allow-eio3", mistakes, boolean)),
        ping_interval: take(table.value("ping-interval", mistakes, duration(WAIT))),
        ping_timeout: take(table.value("ping-timeout", mistakes, duration(WAIT))),
        upgrade_timeout: take(table.value("upgrade-timeout", mistakes, duration(WAIT))),
        connect_timeout: take(table.value("connect-timeout", mistakes, duration(WAIT))),
        max_payload_bytes: take(table.value(LimitKey::MaxPayload.name(), mistakes, size(BYTES))),
        compression: take(table.value("compression", mistakes, boolean)),
        cors_allowed_origins: take(table.value("cors-allowed-origins", mistakes, origins)),
        cookie: take(table.value("cookie", mistakes, cookie)),
    };
    table.finish(&[], mistakes);
    engine
}

fn read_limits(mut table: Section<'_>, mistakes: &mut Vec<Mistake>) -> Limits {
    let limits = Limits {
        connections: take(table.value(LimitKey::Connections.name(), mistakes, allowance)),
        connections_per_address: take(table.value(
            LimitKey::ConnectionsPerAddress.name(),
            mistakes,
            allowance,
        )),
        handshakes_per_second: take(table.value(
            LimitKey::HandshakesPerSecond.name(),
            mistakes,
            count(COUNT),
        )),
        request_head: take(table.value(LimitKey::RequestHead.name(), mistakes, duration(WAIT))),
        packets_per_payload: take(table.value(
            LimitKey::PacketsPerPayload.name(),
            mistakes,
            count(COUNT),
        )),
        // None is a sensible number of attachments.
        attachments: take(table.value(LimitKey::Attachments.name(), mistakes, count(0..=10_000))),
        namespaces_per_session: take(table.value(
            LimitKey::NamespacesPerSession.name(),
            mistakes,
            count(COUNT),
        )),
        rooms_per_session: take(table.value(
            LimitKey::RoomsPerSession.name(),
            mistakes,
            count(COUNT),
        )),
        pending_acks_per_session: take(table.value(
            LimitKey::PendingAcksPerSession.name(),
            mistakes,
            count(COUNT),
        )),
        events_per_second: take(table.value(
            LimitKey::EventsPerSecond.name(),
            mistakes,
            count(1..=500_000),
        )),
        queued_bytes_per_session: take(table.value(
            LimitKey::QueuedBytesPerSession.name(),
            mistakes,
            size(BYTES),
        )),
    };
    table.finish(&[], mistakes);
    limits
}

fn read_namespaces(table: Section<'_>, mistakes: &mut Vec<Mistake>) -> Vec<(String, Handler)> {
    let mut namespaces = Vec::new();
    for (name, mut rule) in table.sections(mistakes) {
        let At { line, value: name } = name;
        let mut complain = |message: String| {
            mistakes.push(Mistake { place: Place::Line(line), message });
        };
        if !name.starts_with('/') {
            complain(format!(
                "`namespaces.\"{name}\"` must begin with a slash; did you mean `/{name}`?"
            ));
        }
        let handler = rule.value("handler", mistakes, handler);
        if handler.is_none() && !rule.contains("handler") {
            let place = Place::Line(line);
            let message = format!(
                "`namespaces.\"{name}\".handler` is missing; it may be \"echo\" or \"relay\""
            );
            mistakes.push(Mistake { place, message });
        }
        rule.finish(later::NAMESPACE, mistakes);
        namespaces.extend(take(handler).map(|handler| (name, handler)));
    }
    namespaces
}

fn take<T>(at: Option<At<T>>) -> Option<T> {
    at.map(|at| at.value)
}

fn text<'v>(value: &'v DeValue<'_>, wanted: &str) -> Result<&'v str, String> {
    value.as_str().ok_or_else(|| format!("is {}; {wanted}", shown(value)))
}

fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("is {}; it must be true or false", shown(value)))
}

fn one_of<T: Copy>(value: &DeValue<'_>, choices: &[(&str, T)]) -> Result<T, String> {
    if let Some(word) = value.as_str()
        && let Some((_, choice)) = choices.iter().find(|(name, _)| *name == word)
    {
        return Ok(*choice);
    }
    let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let mut message = format!("is {}; it may be {}", shown(value), names.join(" or "));
    let nearest = (value.as_str())
        .and_then(|word| suggest::nearest(word, choices.iter().map(|(name, _)| *name)));
    if let Some(nearest) = nearest {
        message.push_str(&format!("; did you mean \"{nearest}\"?"));
    }
    Err(message)
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn count<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl FnOnce(&DeValue<'_>) -> Result<T, String> {
    move |value| {
        (integer(value).filter(|number| range.contains(number)))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| {
                let (low, high) = (range.start(), range.end());
                format!("is {}; it must be a number from {low} to {high}", shown(value))
            })
    }
}

fn allowance(value: &DeValue<'_>) -> Result<Allowance, String> {
    if value.as_str() == Some("auto") {
        return Ok(Allowance::Auto);
    }
    count(COUNT)(value).map(Allowance::Of).map_err(|_| {
        let (low, high) = (COUNT.start(), COUNT.end());
        format!("is {}; it must be \"auto\" or a number from {low} to {high}", shown(value))
    })
}

fn shards(value: &DeValue<'_>) -> Result<Shards, String> {
    let parsed = match value.as_str() {
        Some(word) => word.parse(),
        None => (integer(value).map(|number| number.to_string()).unwrap_or_default()).parse(),
    };
    parsed.map_err(|wanted| format!("is {}; {wanted}", shown(value)))
}

fn duration(
    range: RangeInclusive<Duration>,
) -> impl FnOnce(&DeValue<'_>) -> Result<Duration, String> {
    move |value| {
        // A bare number would leave its unit to be guessed.
        let written = value.as_str().unwrap_or_default();
        let duration =
            value::duration(written).map_err(|wanted| format!("is {}; {wanted}", shown(value)))?;
        if range.contains(&duration) {
            return Ok(duration);
        }
        Err(format!(
            "is {}; it must be from {} to {}",
            shown(value),
            value::duration_text(*range.start()),
            value::duration_text(*range.end()),
        ))
    }
}

fn size(range: RangeInclusive<u64>) -> impl FnOnce(&DeValue<'_>) -> Result<usize, String> {
    move |value| {
        let bytes = match integer(value) {
            Some(bytes) => bytes,
            None => value::size(value.as_str().unwrap_or_default())
                .map_err(|wanted| format!("is {}; {wanted}", shown(value)))?,
        };
        (usize::try_from(bytes).ok().filter(|_| range.contains(&bytes))).ok_or_else(|| {
            format!(
                "is {}; it must be from {} to {} bytes",
                shown(value),
                range.start(),
                range.end()
            )
        })
    }
}

fn address(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    value::address(value.as_str().unwrap_or_default())
        .map_err(|wanted| format!("is {}; {wanted}", shown(value)))
}

/// One address, or an array of them.
fn addresses(value: &DeValue<'_>) -> Result<Vec<SocketAddr>, String> {
    let Some(array) = value.as_array() else {
        return Ok(vec![address(value)?]);
    };
    if array.is_empty() {
        return Err("is empty; name at least one address".to_owned());
    }
    array.iter().map(|item| address(item.get_ref())).collect()
}

fn path(value: &DeValue<'_>) -> Result<String, String> {
    let wanted = "it must begin with a slash, as in \"/socket.io/\"";
    let path = text(value, wanted)?;
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '%');
    if path.len() < 2 || !path.starts_with('/') || !path.chars().all(plain) {
        return Err(format!("is {}; {wanted}", shown(value)));
    }
    Ok(path.to_owned())
}

fn transports(value: &DeValue<'_>) -> Result<Transports, String> {
    let wanted = "it may name \"polling\" and \"websocket\"";
    let array = value.as_array().ok_or_else(|| format!("is {}; write an array", shown(value)))?;
    let mut transports = Transports { polling: false, websocket: false };
    for item in array {
        match item.get_ref().as_str() {
            Some("polling") => transports.polling = true,
            Some("websocket") => transports.websocket = true,
            _ => return Err(format!("names {}; {wanted}", shown(item.get_ref()))),
        }
    }
    if !transports.polling && !transports.websocket {
        return Err(format!("is empty; {wanted}"));
    }
    Ok(transports)
}

/// `*`, or origins as browsers send them.
fn origins(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let wanted = "write origins such as \"https://example.com\", or \"*\" for all";
    let array = value.as_array().ok_or_else(|| format!("is {}; write an array", shown(value)))?;
    (array.iter())
        .map(|item| {
            let origin = text(item.get_ref(), wanted)?;
            let host = origin.split_once("://").map(|(_, host)| host);
            // A path, or a slash at the end, would never compare equal to what a browser sends.
            match host {
                _ if origin == "*" => {}
                Some(host) if !host.is_empty() && !host.contains('/') => {}
                _ => return Err(format!("names {}; {wanted}", shown(item.get_ref()))),
            }
            Ok(origin.to_owned())
        })
        .collect()
}

fn cookie(value: &DeValue<'_>) -> Result<Cookie, String> {
    if value.as_bool() == Some(false) {
        return Ok(Cookie::Off);
    }
    let wanted = "it must be false or the name of a cookie";
    let name = text(value, wanted)?;
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(token) {
        return Err(format!("is {}; {wanted}", shown(value)));
    }
    Ok(Cookie::Named(name.to_owned()))
}

fn handler(value: &DeValue<'_>) -> Result<Handler, String> {
    if let Some(table) = value.as_table() {
        let later = table.keys().find(|key| later::HANDLERS.contains(&&**key.get_ref()));
        if let Some(key) = later {
            let key = key.get_ref();
            return Err(format!("with `{key}` is not in this version; \"echo\" and \"relay\" are"));
        }
    }
    one_of(value, &[("echo", Handler::Echo), ("relay", Handler::Relay)])
}

fn log_level(value: &DeValue<'_>) -> Result<String, String> {
    let text = value.as_str().unwrap_or_default();
    value::log_level(text).map_err(|wanted| format!("is {}; {wanted}", shown(value)))?;
    Ok(text.to_owned())
}
