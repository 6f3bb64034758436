//! From `[telemetry]`, and the variables that OpenTelemetry has for it, to where spans go.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
    str,
};

use bowline_dial::{Options, Origin};
use bowline_names::EnvVar;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::limit::{HEADERS_BYTES_MAX, HEADERS_MAX};
use crate::config::{self, Telemetry};

/// Where spans go, and how.
#[derive(Debug)]
#[cfg_attr(not(feature = "otel"), expect(dead_code, reason = "nobody exports anything"))]
pub(super) struct Target {
    pub(super) origin: Origin,
    /// Path and query of the collector's receiver for traces.
    pub(super) path: String,
    /// What it is shown. Hidden from debug output.
    pub(super) headers: HeaderMap,
    /// `service.name`
    pub(super) service: String,
}

/// Where spans go; `None` is nowhere. `variable` reads one of the environment.
///
/// # Errors
/// What is wrong with what is configured. Does not hold what is secret.
pub(super) fn target(
    telemetry: &Telemetry,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Target>, String> {
    let of_environment = |row: EnvVar| {
        let value = variable(row.name())?.trim().to_owned();
        Some(value).filter(|value| !value.is_empty())
    };
    let named = telemetry.service_name.clone().or_else(|| of_environment(EnvVar::OtelServiceName));
    let service = named.unwrap_or_else(|| "bowline".to_owned());
    let headers = headers(telemetry, &variable)?;
    if let Some(url) = &telemetry.otlp_endpoint {
        // What is meant for the collector of the environment is shown to no other.
        let told = at(url, headers.unwrap_or_default(), service);
        return told.map(Some).map_err(|why| format!("`otlp-endpoint`: {why}"));
    }
    let Some(url) = of_environment(EnvVar::OtlpEndpoint) else { return Ok(None) };
    let url = url.trim_end_matches('/');
    let shown = match headers {
        Some(headers) => Ok(headers),
        None => of_environment(EnvVar::OtlpHeaders).map_or_else(
            || Ok(HeaderMap::new()),
            |text| {
                let name = EnvVar::OtlpHeaders.name();
                of_variable(&text).map_err(|why| format!("the variable {name} {why}"))
            },
        ),
    };
    let is_url = config::endpoint(url).is_ok() && !url.contains('?');
    let told = match (is_url, shown) {
        (false, _) => Err("it is no URL of HTTP to put /v1/traces behind".to_owned()),
        (true, shown) => shown.and_then(|headers| at(url, headers, service)),
    };
    // It may be meant for another program that is started with the same environment, and must not keep this one from its
    // clients.
    if let Err(error) = &told {
        tracing::warn!(variable = EnvVar::OtlpEndpoint.name(), error, "no spans are exported");
    }
    Ok(told.ok())
}

fn at(url: &str, headers: HeaderMap, service: String) -> Result<Target, String> {
    let origin = Origin::parse(url, &Options::default()).map_err(|error| error.to_string())?;
    let path = format!("{}/v1/traces", origin.path().trim_end_matches('/'));
    Ok(Target { origin, path, headers, service })
}

/// What the collector is shown, if that is configured.
///
/// # Errors
/// What is wrong with where it should be. Does not hold what stands there.
pub(crate) fn headers(
    telemetry: &Telemetry,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<HeaderMap>, String> {
    if let Some(name) = &telemetry.otlp_headers_env {
        let missing = || format!("`otlp-headers-env`: the variable {name} is not set");
        let text = variable(name).ok_or_else(missing)?;
        return of_variable(&text)
            .map(Some)
            .map_err(|why| format!("`otlp-headers-env`: the variable {name} {why}"));
    }
    let Some(path) = &telemetry.otlp_headers_file else { return Ok(None) };
    let shown = path.display();
    let text =
        read(path).map_err(|error| format!("`otlp-headers-file`: cannot read {shown}: {error}"))?;
    of_file(&text).map(Some).map_err(|why| format!("`otlp-headers-file`: {shown} {why}"))
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(HEADERS_BYTES_MAX + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// `NAME: VALUE` or `NAME=VALUE`, one a line; lines that begin with `#` say nothing.
fn of_file(text: &str) -> Result<HeaderMap, &'static str> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    of_pairs(text, lines.map(str::to_owned))
}

/// `NAME=VALUE,NAME=VALUE`, the values with percent signs, as OpenTelemetry has it.
fn of_variable(text: &str) -> Result<HeaderMap, &'static str> {
    of_pairs(text, text.split(',').map(|pair| decoded(pair.trim())))
}

fn of_pairs(text: &str, pairs: impl Iterator<Item = String>) -> Result<HeaderMap, &'static str> {
    const WRONG: &str = "holds something that is no header";
    if text.len() as u64 > HEADERS_BYTES_MAX {
        return Err("holds too much");
    }
    let mut headers = HeaderMap::new();
    for pair in pairs.filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once([':', '=']).ok_or(WRONG)?;
        let name = name.trim().parse::<HeaderName>().map_err(|_| WRONG)?;
        let mut value = value.trim().parse::<HeaderValue>().map_err(|_| WRONG)?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    match headers.len() {
        0 => Err("holds no header"),
        1..=HEADERS_MAX => Ok(headers),
        _ => Err("holds too many headers"),
    }
}

/// A text without its percent signs; one that stands for nothing stays.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| first == b'%');
        let digits = digits.and_then(|digits| str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::Url;

    fn none(_: &str) -> Option<String> {
        None
    }

    fn at(url: &str) -> Telemetry {
        Telemetry { otlp_endpoint: Some(Url::new(url.to_owned())), ..Telemetry::default() }
    }

    fn environment(name: &str) -> Option<String> {
        let value = match name {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => "http://collector:4318/",
            "OTEL_EXPORTER_OTLP_HEADERS" => "x-key=hush%20hush, x-tenant=a",
            "OTEL_SERVICE_NAME" => "shop",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn the_file_counts_for_more_than_the_environment() {
        assert!(target(&Telemetry::default(), none).unwrap().is_none());
        let of_file = target(&at("http://a:1/otlp"), environment).unwrap().unwrap();
        assert_eq!((of_file.origin.authority(), &*of_file.path), ("a:1", "/otlp/v1/traces"));
        // What is meant for the other collector is not shown to this one.
        assert!(of_file.headers.is_empty());
        assert_eq!(of_file.service, "shop");
        let named = Telemetry { service_name: Some("own".to_owned()), ..at("http://a:1") };
        assert_eq!(target(&named, environment).unwrap().unwrap().service, "own");
        assert_eq!(target(&named, none).unwrap().unwrap().path, "/v1/traces");

        let of_environment = target(&Telemetry::default(), environment).unwrap().unwrap();
        assert_eq!(of_environment.origin.authority(), "collector:4318");
        assert_eq!(of_environment.headers["x-key"], "hush hush");
        assert_eq!(of_environment.headers["x-tenant"], "a");
        assert!(!format!("{of_environment:?}").contains("hush"));
    }

    #[test]
    fn a_variable_that_is_meant_for_others_keeps_nobody_from_starting() {
        for wrong in ["collector:4317", "grpc://a:4317", " ", "http://a/?b"] {
            let only = |name: &str| (name == EnvVar::OtlpEndpoint.name()).then(|| wrong.to_owned());
            assert!(target(&Telemetry::default(), only).unwrap().is_none(), "{wrong}");
        }
    }

    #[test]
    fn headers_come_from_a_file_or_a_variable_and_are_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("headers");
        let of_file = Telemetry { otlp_headers_file: Some(path.clone()), ..at("http://a") };
        let why = |telemetry: &Telemetry, variable: fn(&str) -> Option<String>| {
            target(telemetry, variable).unwrap_err()
        };
        assert!(why(&of_file, none).starts_with("`otlp-headers-file`: cannot read"));
        fs::write(&path, "# who we are\nAuthorization: Basic a=,b\n\nx-tenant=t\n").unwrap();
        let headers = target(&of_file, none).unwrap().unwrap().headers;
        assert_eq!(
            (&headers["authorization"], &headers["x-tenant"]),
            (&"Basic a=,b".parse().unwrap(), &"t".parse().unwrap())
        );
        for wrong in ["", "hush", "a b: hush", "a: hush\u{1}"] {
            fs::write(&path, wrong).unwrap();
            let why = why(&of_file, none);
            assert!(why.contains("header") && !why.contains("hush"), "{why}");
        }
        let of_variable =
            Telemetry { otlp_headers_env: Some("HEADERS".to_owned()), ..at("http://a") };
        assert!(why(&of_variable, none).ends_with("the variable HEADERS is not set"));
        let hush = |_: &str| Some("hush".to_owned());
        assert!(!why(&of_variable, hush).contains("hush"));
        let set = |_: &str| Some("a=1,b=2%2C3".to_owned());
        assert_eq!(target(&of_variable, set).unwrap().unwrap().headers["b"], "2,3");
    }
}
