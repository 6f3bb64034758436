//! Kinds of values of `[links]`.

use std::net::SocketAddr;

use bowline_link::settings::Secret;
use http::{HeaderName, HeaderValue, Uri};
use serde_json::{Value, json};
use toml::de::DeValue;

use super::{
    super::{effective::Url, links::Deliver},
    Address, Kind, NamedTexts, each, refused,
    services::{HIDDEN, json_of},
};

/// What stands in the place of what nobody is shown, where it must be ASCII.
const STARS: &str = "***";

/// Where a service is reached.
pub(crate) struct FarUrl;

/// Names and values of HTTP headers.
pub(crate) const HEADERS: NamedTexts = NamedTexts {
    words: "a table of headers, as in { Authorization = \"Bearer {token}\" }",
    names: "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
    hidden: STARS,
    fault: |name, text| {
        if HeaderName::try_from(name).is_err() {
            return Some(format!("has \"{}\", which no header is called", name.escape_debug()));
        }
        let fits = text.is_some_and(|text| HeaderValue::try_from(text).is_ok());
        (!fits).then(|| format!("has `{name}` with what no header can say"))
    },
};

/// A text that nobody is shown.
pub(crate) struct SecretText;

/// A JSON object whose values nobody is shown.
pub(crate) struct SecretTable;

/// A place in a JSON value (RFC 6901).
pub(crate) struct Pointer;

/// Who gets the messages of a link.
pub(crate) struct DeliverTo;

/// Names of hosts, of which some stand for all below.
pub(crate) struct HostPatterns;

/// A proxy, with what it asks for.
pub(crate) struct ProxyUrl;

/// An address that this machine alone can reach.
pub(crate) struct LoopbackAddress;

impl Kind<Url> for FarUrl {
    fn words(&self) -> String {
        "a URL such as \"wss://chat.example.com/bots\" or \"https://chat.example.com\"".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Url, String> {
        let fits = |text: &&str| {
            let Ok(uri) = text.parse::<Uri>() else { return false };
            let scheme = matches!(uri.scheme_str(), Some("ws" | "wss" | "http" | "https"));
            let host = uri.authority().is_some_and(|host| !host.as_str().contains('@'));
            scheme && host && !text.contains('#')
        };
        // Not shown: there may be a token in it.
        let url = value.as_str().filter(fits);
        url.map(|url| Url::new(url.to_owned()))
            .ok_or_else(|| format!("is no URL; write {}", self.words()))
    }

    fn write(&self, value: &Url) -> Value {
        json!(&**value)
    }

    fn show(&self, value: &Url) -> Value {
        json!(value.shown())
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": "^(ws|http)s?://[^/?#@]+[^#]*$" })
    }
}

impl Kind<Secret> for SecretText {
    fn words(&self) -> String {
        "a text".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Secret, String> {
        let text = value.as_str().filter(|text| !text.is_empty());
        text.map(Secret::new).ok_or_else(|| "is no text".to_owned())
    }

    fn write(&self, value: &Secret) -> Value {
        json!(value.expose())
    }

    fn show(&self, _: &Secret) -> Value {
        json!(HIDDEN)
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

impl Kind<Secret> for SecretTable {
    fn words(&self) -> String {
        "a table, as in { token = \"{token}\" }".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Secret, String> {
        // Not shown: it may be a secret.
        let wrong = || format!("is no table; write {}", self.words());
        let object = value.as_table().map(|_| json_of(value)).ok_or_else(wrong)?;
        let object = object.map_err(|_| "has a number that JSON cannot say".to_owned())?;
        Ok(Secret::new(object.to_string()))
    }

    fn write(&self, value: &Secret) -> Value {
        serde_json::from_str(value.expose()).unwrap_or_default()
    }

    fn show(&self, value: &Secret) -> Value {
        match self.write(value) {
            Value::Object(members) => {
                members.into_iter().map(|(name, _)| (name, json!(HIDDEN))).collect()
            }
            _ => json!({}),
        }
    }

    fn schema(&self) -> Value {
        json!({ "type": "object" })
    }
}

impl Kind<String> for Pointer {
    fn words(&self) -> String {
        "a JSON pointer, as in \"/data/id\"".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<String, String> {
        let fits = |text: &&str| {
            let escapes = text.match_indices('~');
            text.starts_with('/')
                && escapes
                    .into_iter()
                    .all(|(at, _)| matches!(text.as_bytes().get(at + 1), Some(b'0' | b'1')))
        };
        let text = value.as_str().filter(fits);
        text.map(str::to_owned).ok_or_else(|| refused(value, &self.words()))
    }

    fn write(&self, value: &String) -> Value {
        json!(value)
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": "^/([^~]|~[01])*$" })
    }
}

impl Kind<Deliver> for DeliverTo {
    fn words(&self) -> String {
        "\"proxy\", { http = \"NAME\" } or { namespace = \"/NAME\" }".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Deliver, String> {
        if value.as_str() == Some("proxy") {
            return Ok(Deliver::Proxy);
        }
        let one = value.as_table().filter(|table| table.len() == 1);
        let one = one.and_then(|table| table.iter().next());
        let named = one.and_then(|(key, name)| Some((&**key.get_ref(), name.get_ref().as_str()?)));
        match named {
            Some(("http", name)) if !name.is_empty() => Ok(Deliver::Http(name.to_owned())),
            Some(("namespace", name)) if name.starts_with('/') && !name.contains('*') => {
                Ok(Deliver::Namespace(name.to_owned()))
            }
            _ => Err(refused(value, &self.words())),
        }
    }

    fn write(&self, value: &Deliver) -> Value {
        match value {
            Deliver::Proxy => json!("proxy"),
            Deliver::Http(app) => json!({ "http": app }),
            Deliver::Namespace(name) => json!({ "namespace": name }),
        }
    }

    fn schema(&self) -> Value {
        let table = |key: &str, pattern: &str| {
            json!({
                "type": "object",
                "properties": { (key): { "type": "string", "pattern": pattern } },
                "required": [key],
                "additionalProperties": false,
            })
        };
        json!({ "anyOf": [{ "const": "proxy" }, table("http", "."), table("namespace", "^/[^*]*$")] })
    }
}

impl Kind<Vec<String>> for HostPatterns {
    fn words(&self) -> String {
        "an array of hosts such as \"api.example.com\" or \"*.example.com\"".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<String>, String> {
        each(
            value,
            &self.words(),
            "hosts such as \"api.example.com\" or \"*.example.com\"",
            |text| {
                let host = text.strip_prefix("*.").unwrap_or(text);
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
                let fits = !host.is_empty() && !host.starts_with('.') && host.chars().all(plain);
                fits.then(|| text.to_ascii_lowercase())
            },
        )
    }

    fn write(&self, value: &Vec<String>) -> Value {
        json!(value)
    }

    fn schema(&self) -> Value {
        let one = json!({ "type": "string", "pattern": r"^(\*\.)?[A-Za-z0-9_-][A-Za-z0-9._-]*$" });
        json!({ "type": "array", "items": one })
    }
}

impl Kind<Secret> for ProxyUrl {
    fn words(&self) -> String {
        "a proxy such as \"http://proxy.example.com:3128\", or with user:password@ before the host"
            .to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Secret, String> {
        let fits = |text: &&str| {
            let Ok(uri) = text.parse::<Uri>() else { return false };
            uri.scheme_str() == Some("http")
                && uri.host().is_some_and(|host| !host.is_empty())
                && uri.path_and_query().is_none_or(|path| path == "/")
        };
        // Not shown: there may be a password in it.
        let text = value.as_str().filter(fits);
        text.map(|text| Secret::new(text.trim_end_matches('/')))
            .ok_or_else(|| format!("is no proxy; write {}", self.words()))
    }

    fn write(&self, value: &Secret) -> Value {
        json!(value.expose())
    }

    fn show(&self, value: &Secret) -> Value {
        match value.expose().rsplit_once('@') {
            Some((_, host)) => json!(format!("http://{STARS}@{host}")),
            None => json!(value.expose()),
        }
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": "^http://[^/?#]+/?$" })
    }
}

impl Kind<SocketAddr> for LoopbackAddress {
    fn words(&self) -> String {
        "an address of this machine alone, such as \"127.0.0.1:8002\"".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<SocketAddr, String> {
        let address = Address.read(value).ok().filter(|address| address.ip().is_loopback());
        address.ok_or_else(|| refused(value, &self.words()))
    }

    fn write(&self, value: &SocketAddr) -> Value {
        Address.write(value)
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": r"^(localhost|127\.\d+\.\d+\.\d+|\[::1\]):\d{1,5}$" })
    }
}
