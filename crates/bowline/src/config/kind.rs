//! Kinds of values: how each is read, written and described.

mod ai;
mod links;
mod services;

use std::{
    collections::BTreeMap, net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration,
};

use bowline_net::EventIdPath;
use ipnet::IpNet;
use serde_json::{Value, json};
use toml::de::DeValue;

use super::{
    document::shown,
    effective::{Allowance, Cookie, Durability, Handler, SessionKey, Shards, Transports, Url},
    later,
    services::Variables,
    suggest, value,
};

pub(crate) use self::{
    ai::{BaseUrl, Chain, ClientKeyName, KeyHash, ModelNames, Percent, VariableName},
    links::{
        DeliverTo, FarUrl, HEADERS, HostPatterns, LoopbackAddress, Pointer, ProxyUrl, SecretTable,
        SecretText,
    },
    services::{
        CommandLine, ENVIRONMENT, Files, InterpreterPlace, Listens, ModuleName, Needs, Probes,
        Texts, UserName,
    },
};

/// A kind of value that becomes a `T`.
pub(crate) trait Kind<T>: Sync {
    /// What one writes, as in "write …".
    fn words(&self) -> String;

    /// Reads a value. What it says when it cannot goes on after the name of the key.
    fn read(&self, value: &DeValue<'_>) -> Result<T, String>;

    /// Writes a value as [`read`](Self::read) takes it. JSON, whose values TOML has too.
    fn write(&self, value: &T) -> Value;

    /// Writes a value for others to see, without what is secret in it.
    fn show(&self, value: &T) -> Value {
        self.write(value)
    }

    /// The JSON Schema of what [`read`](Self::read) takes.
    fn schema(&self) -> Value;
}

/// `true` or `false`.
pub(crate) struct Truth;

/// One of a few words.
pub(crate) struct OneOf<T: 'static>(pub(crate) &'static [(&'static str, T)]);

/// A time with its unit.
pub(crate) struct Time(pub(crate) RangeInclusive<Duration>);

/// A size in bytes, with or without a unit.
pub(crate) struct Size(pub(crate) RangeInclusive<u64>);

/// A number of things.
pub(crate) struct Count(pub(crate) RangeInclusive<u64>);

/// A number of things, or `"auto"`.
pub(crate) struct CountOrAuto(pub(crate) RangeInclusive<u64>);

/// A number of threads.
pub(crate) struct Threads;

/// An address with its port.
pub(crate) struct Address;

/// One address, or an array of them.
pub(crate) struct Addresses;

/// Addresses or networks.
pub(crate) struct Networks;

/// A file or a directory.
pub(crate) struct File;

/// The path of a URL.
pub(crate) struct UrlPath;

/// A scheme, a host and perhaps a port.
pub(crate) struct WebOrigin;

/// A URL that may hold a secret.
pub(crate) struct Endpoint;

/// Which web pages may connect.
pub(crate) struct Origins;

/// Which transports may be used.
pub(crate) struct TransportNames;

/// The name of a cookie, or `false`.
pub(crate) struct CookieName;

/// Which log lines are written.
pub(crate) struct Level;

/// Any text but none, which is called so.
pub(crate) struct Text(pub(crate) &'static str);

/// A table of texts, whose values nobody is shown.
pub(crate) struct NamedTexts {
    words: &'static str,
    /// A regular expression for names.
    names: &'static str,
    /// What stands in the place of a value.
    hidden: &'static str,
    /// What is wrong with one, to be read after the name of the key. The value is not repeated: it may be a secret.
    fault: fn(&str, Option<&str>) -> Option<String>,
}

/// What sessions survive; more of it is of a later version.
pub(crate) struct DurabilityName;

/// Where clients put an id into their events.
pub(crate) struct EventIdPlace;

/// What names a client: a cookie, or a claim of its token.
pub(crate) struct SessionKeyPlace;

/// A name of one's own.
pub(crate) struct ShortText;

/// One text, or an array of them, which are called so.
pub(crate) struct Words(pub(crate) &'static str);

impl Kind<bool> for Truth {
    fn words(&self) -> String {
        "true or false".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<bool, String> {
        value.as_bool().ok_or_else(|| refused(value, &self.words()))
    }

    fn write(&self, value: &bool) -> Value {
        json!(value)
    }

    fn schema(&self) -> Value {
        json!({ "type": "boolean" })
    }
}

impl<T: Copy + PartialEq + Sync> Kind<T> for OneOf<T> {
    fn words(&self) -> String {
        quoted(self.names()).join(" or ")
    }

    fn read(&self, value: &DeValue<'_>) -> Result<T, String> {
        let word = value.as_str().unwrap_or_default();
        let found = self.0.iter().find(|(name, _)| *name == word);
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let mut message = refused(value, &self.words());
            if let Some(nearest) = suggest::nearest(word, self.names()) {
                message.push_str(&format!("; did you mean \"{nearest}\"?"));
            }
            message
        })
    }

    fn write(&self, value: &T) -> Value {
        let found = self.0.iter().find(|(_, choice)| choice == value);
        json!(found.map(|(name, _)| name))
    }

    fn schema(&self) -> Value {
        json!({ "enum": self.names().collect::<Vec<_>>() })
    }
}

impl<T> OneOf<T> {
    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(name, _)| *name)
    }
}

impl Kind<Duration> for Time {
    fn words(&self) -> String {
        let (low, high) = (self.0.start(), self.0.end());
        let text = value::duration_text;
        format!("a duration such as \"500ms\", from {} to {}", text(*low), text(*high))
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Duration, String> {
        // A bare number would leave its unit to be guessed.
        (value.as_str().and_then(|text| value::duration(text).ok()))
            .filter(|duration| self.0.contains(duration))
            .ok_or_else(|| refused(value, &self.words()))
    }

    fn write(&self, value: &Duration) -> Value {
        json!(value::duration_text(*value))
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": r"^\s*(\d+\s*[a-zA-Zµ]+\s*)+$|^0$" })
    }
}

impl<T: TryFrom<u64> + TryInto<u64> + Copy> Kind<T> for Size {
    fn words(&self) -> String {
        let (low, high) = (value::size_text(*self.0.start()), value::size_text(*self.0.end()));
        format!("a size such as \"64KiB\" or \"1MB\", or a number of bytes, from {low} to {high}")
    }

    fn read(&self, value: &DeValue<'_>) -> Result<T, String> {
        (integer(value).or_else(|| value::size(value.as_str()?).ok()))
            .filter(|bytes| self.0.contains(bytes))
            .and_then(|bytes| T::try_from(bytes).ok())
            .ok_or_else(|| refused(value, &Kind::<T>::words(self)))
    }

    fn write(&self, value: &T) -> Value {
        json!(value::size_text((*value).try_into().unwrap_or(u64::MAX)))
    }

    fn schema(&self) -> Value {
        let (low, high) = (self.0.start(), self.0.end());
        json!({ "anyOf": [
            { "type": "integer", "minimum": low, "maximum": high },
            { "type": "string", "pattern": r"^\s*\d[\d_]*\s*([kKmMgG][iI]?)?[bB]?\s*$" },
        ] })
    }
}

impl<T: TryFrom<u64> + serde::Serialize> Kind<T> for Count {
    fn words(&self) -> String {
        format!("a number from {} to {}", self.0.start(), self.0.end())
    }

    fn read(&self, value: &DeValue<'_>) -> Result<T, String> {
        (integer(value).filter(|number| self.0.contains(number)))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| refused(value, &Kind::<T>::words(self)))
    }

    fn write(&self, value: &T) -> Value {
        json!(value)
    }

    fn schema(&self) -> Value {
        json!({ "type": "integer", "minimum": self.0.start(), "maximum": self.0.end() })
    }
}

impl Kind<Allowance> for CountOrAuto {
    fn words(&self) -> String {
        format!("\"auto\" or a number from {} to {}", self.0.start(), self.0.end())
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Allowance, String> {
        if value.as_str() == Some("auto") {
            return Ok(Allowance::Auto);
        }
        let number = Count(self.0.clone()).read(value).map(Allowance::Of);
        number.map_err(|_: String| refused(value, &self.words()))
    }

    fn write(&self, value: &Allowance) -> Value {
        match value {
            Allowance::Auto => json!("auto"),
            Allowance::Of(number) => json!(number),
        }
    }

    fn schema(&self) -> Value {
        let number = Kind::<usize>::schema(&Count(self.0.clone()));
        json!({ "anyOf": [{ "const": "auto" }, number] })
    }
}

impl Kind<Shards> for Threads {
    fn words(&self) -> String {
        value::SHARDS.to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Shards, String> {
        let number = integer(value).map(|number| number.to_string());
        let text = number.as_deref().or(value.as_str()).unwrap_or_default();
        text.parse().map_err(|_: String| refused(value, &self.words()))
    }

    fn write(&self, value: &Shards) -> Value {
        match value {
            Shards::Auto => json!("auto"),
            Shards::Of(number) => json!(number),
        }
    }

    fn schema(&self) -> Value {
        json!({ "anyOf": [
            { "const": "auto" },
            { "type": "integer", "minimum": 1, "maximum": 255 },
            // A number between quotes, as the variable has it.
            { "type": "string", "pattern": r"^\d{1,3}$" },
        ] })
    }
}

impl Kind<SocketAddr> for Address {
    fn words(&self) -> String {
        value::ADDRESS.to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<SocketAddr, String> {
        let text = value.as_str().unwrap_or_default();
        value::address(text).map_err(|_| refused(value, &self.words()))
    }

    fn write(&self, value: &SocketAddr) -> Value {
        json!(value.to_string())
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": r":\d{1,5}$" })
    }
}

impl Kind<Vec<SocketAddr>> for Addresses {
    fn words(&self) -> String {
        format!("{}, or an array of such", value::ADDRESS)
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<SocketAddr>, String> {
        match value.as_array() {
            None => Ok(vec![Address.read(value)?]),
            Some(array) if array.is_empty() => {
                Err("is empty; name at least one address".to_owned())
            }
            Some(_) => each(value, "an array", &Address.words(), |text| value::address(text).ok()),
        }
    }

    fn write(&self, value: &Vec<SocketAddr>) -> Value {
        match &value[..] {
            [one] => Address.write(one),
            more => json!(more.iter().map(SocketAddr::to_string).collect::<Vec<_>>()),
        }
    }

    fn schema(&self) -> Value {
        let one = Address.schema();
        json!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
    }
}

impl Kind<Vec<IpNet>> for Networks {
    fn words(&self) -> String {
        format!("an array of {}", value::NETWORK)
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<IpNet>, String> {
        each(value, &self.words(), value::NETWORK, value::network)
    }

    fn write(&self, value: &Vec<IpNet>) -> Value {
        json!(value.iter().map(value::network_text).collect::<Vec<_>>())
    }

    fn schema(&self) -> Value {
        let one = json!({ "type": "string", "pattern": r"^[0-9a-fA-F.:]+(/\d{1,3})?$" });
        json!({ "type": "array", "items": one })
    }
}

impl Kind<PathBuf> for File {
    fn words(&self) -> String {
        "a path, absolute or from where the configuration file is".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<PathBuf, String> {
        let text = value.as_str().filter(|text| !text.is_empty() && !text.contains('\0'));
        text.map(PathBuf::from).ok_or_else(|| refused(value, &self.words()))
    }

    fn write(&self, value: &PathBuf) -> Value {
        json!(value.to_string_lossy())
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

impl Kind<String> for UrlPath {
    fn words(&self) -> String {
        "a path that begins with a slash, as in \"/socket.io/\"".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<String, String> {
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '%');
        (value.as_str())
            .filter(|path| path.len() >= 2 && path.starts_with('/') && path.chars().all(plain))
            .map(str::to_owned)
            .ok_or_else(|| refused(value, &self.words()))
    }

    fn write(&self, value: &String) -> Value {
        json!(value)
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": r"^/[!-~]+$" })
    }
}

impl Kind<String> for WebOrigin {
    fn words(&self) -> String {
        value::ORIGIN.to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<String, String> {
        let text = value.as_str().unwrap_or_default();
        // Not shown: there may be a password in it.
        value::origin(text).map_err(|wanted| format!("is no origin; {wanted}"))
    }

    fn write(&self, value: &String) -> Value {
        json!(value)
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": "^https?://[^/?#@]+/?$" })
    }
}

impl Kind<Url> for Endpoint {
    fn words(&self) -> String {
        value::ENDPOINT.to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Url, String> {
        let text = value.as_str().unwrap_or_default();
        // Not shown: whoever knows the URL of a hook may use it.
        value::endpoint(text).map(Url::new).map_err(|wanted| format!("is no URL; {wanted}"))
    }

    fn write(&self, value: &Url) -> Value {
        json!(&**value)
    }

    fn show(&self, value: &Url) -> Value {
        json!(value.shown())
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": "^https?://[^/?#@]+[^#]*$" })
    }
}

impl Kind<Vec<String>> for Origins {
    fn words(&self) -> String {
        "an array of origins such as \"https://example.com\", or \"*\" for all".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<String>, String> {
        let item = "origins such as \"https://example.com\", or \"*\" for all";
        each(value, &self.words(), item, |origin| {
            let host = origin.split_once("://").map(|(_, host)| host);
            // A path, or a slash at the end, would never compare equal to what a browser sends.
            let bare = host.is_some_and(|host| !host.is_empty() && !host.contains('/'));
            (origin == "*" || bare).then(|| origin.to_owned())
        })
    }

    fn write(&self, value: &Vec<String>) -> Value {
        json!(value)
    }

    fn schema(&self) -> Value {
        let one = json!({ "type": "string", "pattern": r"^(\*|[^:/]+://[^/]+)$" });
        json!({ "type": "array", "items": one })
    }
}

impl Kind<Transports> for TransportNames {
    fn words(&self) -> String {
        "an array with \"polling\", \"websocket\" or both".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Transports, String> {
        const NAMES: OneOf<&str> = OneOf(&[("polling", "polling"), ("websocket", "websocket")]);
        let items = value.as_array().ok_or_else(|| refused(value, &self.words()))?;
        let mut transports = Transports { polling: false, websocket: false };
        for item in items {
            match NAMES.read(item.get_ref()).map_err(|why| format!("has an entry that {why}"))? {
                "polling" => transports.polling = true,
                _ => transports.websocket = true,
            }
        }
        if !transports.polling && !transports.websocket {
            return Err(format!("is empty; write {}", self.words()));
        }
        Ok(transports)
    }

    fn write(&self, value: &Transports) -> Value {
        let names = [value.polling.then_some("polling"), value.websocket.then_some("websocket")];
        json!(names.into_iter().flatten().collect::<Vec<_>>())
    }

    fn schema(&self) -> Value {
        let names = json!({ "enum": ["polling", "websocket"] });
        json!({ "type": "array", "items": names, "minItems": 1 })
    }
}

impl Kind<Cookie> for CookieName {
    fn words(&self) -> String {
        "false or the name of a cookie".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Cookie, String> {
        if value.as_bool() == Some(false) {
            return Ok(Cookie::Off);
        }
        (value.as_str())
            .filter(|name| is_token(name))
            .map(|name| Cookie::Named(name.to_owned()))
            .ok_or_else(|| refused(value, &self.words()))
    }

    fn write(&self, value: &Cookie) -> Value {
        match value {
            Cookie::Off => json!(false),
            Cookie::Named(name) => json!(name),
        }
    }

    fn schema(&self) -> Value {
        let name = format!("^{TOKEN}$");
        json!({ "anyOf": [{ "const": false }, { "type": "string", "pattern": name }] })
    }
}

impl Kind<String> for Level {
    fn words(&self) -> String {
        value::LEVEL.to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<String, String> {
        let text = value.as_str().unwrap_or_default();
        value::log_level(text).map_err(|_| refused(value, &self.words()))?;
        Ok(text.to_owned())
    }

    fn write(&self, value: &String) -> Value {
        json!(value)
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

impl Kind<String> for Text {
    fn words(&self) -> String {
        self.0.to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<String, String> {
        let text = value.as_str().filter(|text| !text.is_empty());
        text.map(str::to_owned).ok_or_else(|| refused(value, &self.words()))
    }

    fn write(&self, value: &String) -> Value {
        json!(value)
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

impl Kind<Variables> for NamedTexts {
    fn words(&self) -> String {
        self.words.to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Variables, String> {
        let table = value.as_table().ok_or_else(|| refused(value, self.words))?;
        let mut texts = BTreeMap::new();
        for (name, value) in table {
            let (name, text) = (&**name.get_ref(), value.get_ref().as_str());
            match (self.fault)(name, text) {
                Some(fault) => return Err(fault),
                None => texts.insert(name.to_owned(), text.unwrap_or_default().to_owned()),
            };
        }
        Ok(Variables(texts))
    }

    fn write(&self, value: &Variables) -> Value {
        json!(value.0)
    }

    fn show(&self, value: &Variables) -> Value {
        value.0.keys().map(|name| (name.clone(), json!(self.hidden))).collect()
    }

    fn schema(&self) -> Value {
        json!({
            "type": "object",
            "patternProperties": { (self.names): { "type": "string" } },
            "additionalProperties": false,
        })
    }
}

impl Kind<String> for ShortText {
    fn words(&self) -> String {
        format!("a name of at most {NAME_MAX} characters")
    }

    fn read(&self, value: &DeValue<'_>) -> Result<String, String> {
        let fits = |name: &&str| {
            !name.trim().is_empty()
                && name.chars().count() <= NAME_MAX
                && !name.contains(char::is_control)
        };
        let name = value.as_str().filter(fits);
        name.map(str::to_owned).ok_or_else(|| refused(value, &self.words()))
    }

    fn write(&self, value: &String) -> Value {
        json!(value)
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "minLength": 1, "maxLength": NAME_MAX })
    }
}

/// Characters of a name: it is told with every span.
const NAME_MAX: usize = 128;

impl Kind<Durability> for DurabilityName {
    fn words(&self) -> String {
        DURABILITIES.words()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Durability, String> {
        match value.as_str().filter(|name| later::DURABILITIES.contains(name)) {
            Some(name) => Err(format!("\"{name}\" is not in this version; write {}", self.words())),
            None => DURABILITIES.read(value),
        }
    }

    fn write(&self, value: &Durability) -> Value {
        DURABILITIES.write(value)
    }

    fn schema(&self) -> Value {
        DURABILITIES.schema()
    }
}

const DURABILITIES: OneOf<Durability> = OneOf(&[("memory", Durability::Memory)]);

impl Kind<EventIdPath> for EventIdPlace {
    fn words(&self) -> String {
        "the index of an argument and keys, as in \"/0/id\"".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<EventIdPath, String> {
        let path = value.as_str().and_then(|text| text.parse().ok());
        path.ok_or_else(|| refused(value, &self.words()))
    }

    fn write(&self, value: &EventIdPath) -> Value {
        json!(value.to_string())
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": r"^/\d+(/[\s\S]*)?$" })
    }
}

impl Kind<SessionKey> for SessionKeyPlace {
    fn words(&self) -> String {
        "\"cookie:NAME\" or \"claim:NAME\"".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<SessionKey, String> {
        let key = match value.as_str().and_then(|text| text.split_once(':')) {
            Some(("cookie", name)) if is_token(name) => Some(SessionKey::Cookie(name.to_owned())),
            Some(("claim", name)) if !name.is_empty() => Some(SessionKey::Claim(name.to_owned())),
            Some(_) | None => None,
        };
        key.ok_or_else(|| refused(value, &self.words()))
    }

    fn write(&self, value: &SessionKey) -> Value {
        match value {
            SessionKey::Cookie(name) => json!(format!("cookie:{name}")),
            SessionKey::Claim(name) => json!(format!("claim:{name}")),
        }
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": format!(r"^(cookie:{TOKEN}|claim:[\s\S]+)$") })
    }
}

impl Kind<Vec<String>> for Words {
    fn words(&self) -> String {
        format!("a text, or an array of {}, of which one is enough", self.0)
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<String>, String> {
        let word = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        match value.as_str().and_then(word) {
            Some(one) => Ok(vec![one]),
            None => each(value, &Kind::words(self), self.0, word),
        }
    }

    fn write(&self, value: &Vec<String>) -> Value {
        match &value[..] {
            [one] => json!(one),
            more => json!(more),
        }
    }

    fn schema(&self) -> Value {
        let one = json!({ "type": "string", "minLength": 1 });
        json!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

/// What handles a namespace; some handlers are of a later version.
pub(crate) struct HandlerName;

impl Kind<Handler> for HandlerName {
    fn words(&self) -> String {
        let names = quoted(HANDLERS.names()).join(", ");
        format!("{names}, {{ http = \"NAME\" }} or {{ ai = \"MODEL\" }}")
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Handler, String> {
        if let Some(table) = value.as_table()
            && let Some((key, name)) = table.iter().next().filter(|_| table.len() == 1)
            && let Some(name) = name.get_ref().as_str().map(str::to_owned)
        {
            match &**key.get_ref() {
                "http" => return Ok(Handler::Http(name)),
                "ai" => return Ok(Handler::Ai(name)),
                _ => {}
            }
        }
        if let Some(table) = value.as_table()
            && let Some(key) = table.keys().find(|key| later::HANDLERS.contains(&&**key.get_ref()))
        {
            let key = key.get_ref();
            return Err(format!("with `{key}` is not in this version; write {}", self.words()));
        }
        let word = HANDLERS
            .read(value)
            .map_err(|why| why.replacen(&HANDLERS.words(), &self.words(), 1))?;
        Ok(match word {
            "echo" => Handler::Echo,
            "link" => Handler::Link,
            _ => Handler::Relay,
        })
    }

    fn write(&self, value: &Handler) -> Value {
        match value {
            Handler::Http(backend) => json!({ "http": backend }),
            Handler::Ai(model) => json!({ "ai": model }),
            Handler::Echo | Handler::Relay | Handler::Link => json!(value.name()),
        }
    }

    fn schema(&self) -> Value {
        let table = |key: &str| {
            json!({
                "type": "object",
                "properties": { (key): { "type": "string" } },
                "required": [key],
                "additionalProperties": false,
            })
        };
        json!({ "anyOf": [HANDLERS.schema(), table("http"), table("ai")] })
    }
}

const HANDLERS: OneOf<&str> = OneOf(&[("echo", "echo"), ("relay", "relay"), ("link", "link")]);

/// The name of a cookie (RFC 6265 section 4.1.1), as a regular expression.
const TOKEN: &str = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+";

fn is_token(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !name.is_empty() && name.chars().all(fits)
}

/// What is said of a value that is not understood.
fn refused(value: &DeValue<'_>, words: &str) -> String {
    format!("is {}; write {words}", shown(value))
}

/// Reads an array of texts. `wanted` says what the whole is, `item` what its entries are.
fn each<T>(
    value: &DeValue<'_>,
    wanted: &str,
    item: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, String> {
    let items = value.as_array().ok_or_else(|| refused(value, wanted))?;
    (items.iter().map(|item| item.get_ref()))
        .map(|entry| {
            let wrong = || format!("names {}; write {item}", shown(entry));
            entry.as_str().and_then(&read).ok_or_else(wrong)
        })
        .collect()
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn quoted(names: impl Iterator<Item = &'static str>) -> Vec<String> {
    names.map(|name| format!("\"{name}\"")).collect()
}
