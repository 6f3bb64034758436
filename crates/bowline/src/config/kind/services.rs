//! Kinds of values of `[services]`.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use bowline_fleet::spec::{Check, Listen, Need, Phase, Probe, Until, Which};
use serde_json::{Map, Value, json};
use toml::de::{DeTable, DeValue};

use super::{
    super::{document::shown, suggest, value},
    Kind, NamedTexts, each, integer, refused,
};

/// A program and its arguments.
pub(crate) struct CommandLine;

/// Any number of texts.
pub(crate) struct Texts;

/// A module of Python.
pub(crate) struct ModuleName;

/// `"auto"`, or the path of an interpreter.
pub(crate) struct InterpreterPlace;

/// Variables and their values.
pub(crate) const ENVIRONMENT: NamedTexts = NamedTexts {
    words: "a table of texts, as in { LOG_LEVEL = \"info\" }",
    names: "^[A-Za-z_][A-Za-z0-9_]*$",
    hidden: HIDDEN,
    fault: |name, text| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !name.chars().all(plain) || !name.starts_with(|c: char| !c.is_ascii_digit()) {
            return Some(format!(
                "names the variable \"{}\"; a name has letters, digits and `_`, and begins with no digit",
                name.escape_debug()
            ));
        }
        if let Some(why) = reserved(name) {
            return Some(format!("sets {name}, {why}"));
        }
        let fits = text.is_some_and(|text| !text.contains('\0'));
        (!fits).then(|| format!("gives {name} no text; write it in quotes"))
    },
};

/// Any number of files.
pub(crate) struct Files;

/// A user, perhaps with a group.
pub(crate) struct UserName;

/// Other services.
pub(crate) struct Needs;

/// Addresses and unix sockets.
pub(crate) struct Listens;

/// Questions to a service, for this.
pub(crate) struct Probes(pub(crate) Phase);

/// The most entries of any of these lists: nobody writes more by hand.
const ENTRIES_MAX: usize = 64;

impl Kind<Vec<String>> for CommandLine {
    fn words(&self) -> String {
        "an array with a program and its arguments, as in [\"node\", \"server.js\"]".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<String>, String> {
        let words = Texts.read(value).map_err(|_| refused(value, &self.words()))?;
        if words.first().is_none_or(String::is_empty) {
            return Err(format!("names no program; write {}", self.words()));
        }
        Ok(words)
    }

    fn write(&self, value: &Vec<String>) -> Value {
        json!(value)
    }

    fn schema(&self) -> Value {
        json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 })
    }
}

impl Kind<Vec<String>> for Texts {
    fn words(&self) -> String {
        "an array of texts".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<String>, String> {
        each(value, &self.words(), "texts without NUL", |text| {
            (!text.contains('\0')).then(|| text.to_owned())
        })
    }

    fn write(&self, value: &Vec<String>) -> Value {
        json!(value)
    }

    fn schema(&self) -> Value {
        json!({ "type": "array", "items": { "type": "string" } })
    }
}

impl Kind<String> for ModuleName {
    fn words(&self) -> String {
        "the name of a module of Python, as in \"app.main\"".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<String, String> {
        let plain = |part: &str| {
            part.starts_with(|c: char| c.is_alphabetic() || c == '_')
                && part.chars().all(|c| c.is_alphanumeric() || c == '_')
        };
        let name = value.as_str().filter(|name| name.split('.').all(plain));
        name.map(str::to_owned).ok_or_else(|| refused(value, &self.words()))
    }

    fn write(&self, value: &String) -> Value {
        json!(value)
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": r"^[^\d\W]\w*(\.[^\d\W]\w*)*$" })
    }
}

impl Kind<Which> for InterpreterPlace {
    fn words(&self) -> String {
        "\"auto\" or the path of an interpreter".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Which, String> {
        match value.as_str() {
            Some("auto") => Ok(Which::Auto),
            Some(path) if path.contains('/') && !path.contains('\0') => {
                Ok(Which::Path(PathBuf::from(path)))
            }
            _ => Err(refused(value, &self.words())),
        }
    }

    fn write(&self, value: &Which) -> Value {
        match value {
            Which::Auto => json!("auto"),
            Which::Path(path) => json!(path.to_string_lossy()),
        }
    }

    fn schema(&self) -> Value {
        json!({ "anyOf": [{ "const": "auto" }, { "type": "string", "pattern": "/" }] })
    }
}

/// What stands in the place of what nobody is shown.
pub(super) const HIDDEN: &str = "…";

/// Why a variable is not an operator's to set.
fn reserved(name: &str) -> Option<&'static str> {
    match name {
        "NOTIFY_SOCKET" | "WATCHDOG_PID" | "WATCHDOG_USEC" => {
            Some("which the server sets by what the probes say")
        }
        "LISTEN_FDS" | "LISTEN_PID" | "LISTEN_FDNAMES" => {
            Some("which the server sets by what `listen` says")
        }
        "BOWLINE_SERVICE" | "BOWLINE_SERVICE_ID" => {
            Some("by which the server knows its own processes")
        }
        _ => None,
    }
}

impl Kind<Vec<PathBuf>> for Files {
    fn words(&self) -> String {
        "an array of paths, absolute or from where the configuration file is".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<PathBuf>, String> {
        each(value, &self.words(), "paths", |path| {
            (!path.is_empty() && !path.contains('\0')).then(|| PathBuf::from(path))
        })
    }

    fn write(&self, value: &Vec<PathBuf>) -> Value {
        json!(value.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>())
    }

    fn schema(&self) -> Value {
        json!({ "type": "array", "items": { "type": "string", "minLength": 1 } })
    }
}

impl Kind<String> for UserName {
    fn words(&self) -> String {
        "a user such as \"www-data\", or with a group as in \"www-data:adm\"".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<String, String> {
        let plain = |name: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '$');
            !name.is_empty() && !name.starts_with('-') && name.chars().all(fits)
        };
        let name = value.as_str().filter(|name| {
            let mut parts = name.split(':');
            parts.clone().count() <= 2 && parts.all(plain)
        });
        name.map(str::to_owned).ok_or_else(|| refused(value, &self.words()))
    }

    fn write(&self, value: &String) -> Value {
        json!(value)
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": r"^[A-Za-z0-9_.$][A-Za-z0-9_.$-]*(:[A-Za-z0-9_.$][A-Za-z0-9_.$-]*)?$" })
    }
}

impl Kind<Vec<Need>> for Needs {
    fn words(&self) -> String {
        "an array of names in [services], or of { service = \"NAME\", until = \"started\" }"
            .to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<Need>, String> {
        let items = value.as_array().ok_or_else(|| refused(value, &self.words()))?;
        let wrong = |entry: &DeValue<'_>| format!("names {}; write {}", shown(entry), self.words());
        let need = |entry: &DeValue<'_>| {
            if let Some(name) = entry.as_str().filter(|name| !name.is_empty()) {
                return Ok(Need { service: name.to_owned(), until: Until::Ready });
            }
            let table = entry.as_table().ok_or_else(|| wrong(entry))?;
            let text = |key: &str| table.get(key).and_then(|value| value.get_ref().as_str());
            let known = |key: &str| matches!(key, "service" | "until");
            let until = match text("until") {
                Some("started") => Until::Started,
                Some("ready") => Until::Ready,
                Some("completed") => Until::Completed,
                None if !table.contains_key("until") => Until::Ready,
                _ => return Err(wrong(entry)),
            };
            match text("service") {
                Some(name) if table.keys().all(|key| known(key.get_ref())) => {
                    Ok(Need { service: name.to_owned(), until })
                }
                _ => Err(wrong(entry)),
            }
        };
        items.iter().map(|item| need(item.get_ref())).collect()
    }

    fn write(&self, value: &Vec<Need>) -> Value {
        let needs = value.iter().map(|need| match need.until {
            Until::Ready => json!(need.service),
            Until::Started => json!({ "service": need.service, "until": "started" }),
            Until::Completed => json!({ "service": need.service, "until": "completed" }),
        });
        needs.collect()
    }

    fn schema(&self) -> Value {
        let table = json!({
            "type": "object",
            "properties": {
                "service": { "type": "string" },
                "until": { "enum": ["started", "ready", "completed"] },
            },
            "required": ["service"],
            "additionalProperties": false,
        });
        json!({ "type": "array", "items": { "anyOf": [{ "type": "string" }, table] } })
    }
}

impl Kind<Vec<Listen>> for Listens {
    fn words(&self) -> String {
        "an array of addresses such as \"127.0.0.1:5000\", or of unix sockets such as \
         \"unix:/run/app.sock\""
            .to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<Listen>, String> {
        let item = "addresses such as \"127.0.0.1:5000\" or \"unix:/run/app.sock\"";
        at_most(each(value, &self.words(), item, listen)?)
    }

    fn write(&self, value: &Vec<Listen>) -> Value {
        value.iter().map(|listen| Value::from(listen.to_string())).collect()
    }

    fn schema(&self) -> Value {
        json!({ "type": "array", "items": { "type": "string", "pattern": r"^unix:.|:\d{1,5}$" } })
    }
}

/// Reads an address or the path of a unix socket.
fn listen(text: &str) -> Option<Listen> {
    match text.strip_prefix("unix:") {
        Some("") => None,
        Some(path) => (!path.contains('\0')).then(|| Listen::Unix(PathBuf::from(path))),
        None => value::address(text).ok().map(Listen::Tcp),
    }
}

/// What a probe can ask, as the key that says so.
const CHECKS: [&str; 7] = ["tcp", "http", "websocket", "socketio", "log", "exec", "notify"];

/// What any probe may say beside that.
const PACE: [&str; 4] = ["every", "timeout", "failures", "successes"];

/// How long probes may rest or wait.
const PROBE_MAX: Duration = Duration::from_secs(3600);

/// How many answers in a row may be asked for.
const IN_A_ROW_MAX: u64 = 1_000;

impl Kind<Vec<Probe>> for Probes {
    fn words(&self) -> String {
        format!(
            "an array of tables with one of {} each, as in [{{ http = \"http://127.0.0.1:5000/health\" }}]",
            CHECKS.join(", ")
        )
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<Probe>, String> {
        let items = value.as_array().ok_or_else(|| refused(value, &self.words()))?;
        let probe = |item: &DeValue<'_>| {
            let table = item.as_table().ok_or_else(|| {
                format!("has an entry that is {}; write {}", shown(item), self.words())
            })?;
            probe(self.0, table).map_err(|why| format!("has an entry {why}"))
        };
        at_most(items.iter().map(|item| probe(item.get_ref())).collect::<Result<_, _>>()?)
    }

    fn write(&self, value: &Vec<Probe>) -> Value {
        value.iter().map(|probe| write_probe(probe, |auth| auth)).collect()
    }

    fn show(&self, value: &Vec<Probe>) -> Value {
        let hide = |auth: Value| match auth {
            Value::Object(members) => {
                members.into_iter().map(|(name, _)| (name, json!(HIDDEN))).collect()
            }
            _ => json!({}),
        };
        value.iter().map(|probe| write_probe(probe, hide)).collect()
    }

    fn schema(&self) -> Value {
        let text = || json!({ "type": "string", "minLength": 1 });
        let pace = json!({ "type": "string", "pattern": r"^\s*(\d+\s*[a-zA-Zµ]+\s*)+$" });
        let count = json!({ "type": "integer", "minimum": 1, "maximum": IN_A_ROW_MAX });
        let one = json!({
            "type": "object",
            "properties": {
                "tcp": { "type": "string", "pattern": r"^unix:.|:\d{1,5}$" },
                "http": { "type": "string", "pattern": "^https?://" },
                "status": { "type": "integer", "minimum": 100, "maximum": 599 },
                "contains": text(),
                "websocket": { "type": "string", "pattern": "^wss?://" },
                "socketio": { "type": "string", "pattern": "^https?://" },
                "namespace": { "type": "string", "pattern": "^/" },
                "auth": { "type": "object" },
                "log": text(),
                "exec": CommandLine.schema(),
                "notify": { "const": true },
                "every": pace,
                "timeout": pace,
                "failures": count,
                "successes": count,
            },
            "oneOf": CHECKS.map(|check| json!({ "required": [check] })),
            "additionalProperties": false,
        });
        json!({ "type": "array", "items": one, "maxItems": ENTRIES_MAX })
    }
}

/// Reads one probe. What it says when it cannot goes on after "has an entry".
fn probe(phase: Phase, table: &DeTable<'_>) -> Result<Probe, String> {
    let has: Vec<&str> = CHECKS.into_iter().filter(|check| table.contains_key(*check)).collect();
    let [check] = has[..] else {
        return Err(format!("with {} of {}; write one", has.len(), CHECKS.join(", ")));
    };
    let beside: &[&str] = match check {
        "http" => &["status", "contains"],
        "socketio" => &["namespace", "auth"],
        _ => &[],
    };
    for key in table.keys() {
        let key: &str = key.get_ref();
        if key != check && !beside.contains(&key) && !PACE.contains(&key) {
            let known = beside.iter().chain(&PACE).copied();
            let meant = suggest::nearest(key, known)
                .map(|meant| format!("; did you mean `{meant}`?"))
                .unwrap_or_default();
            return Err(format!("with an unknown key `{}`{meant}", key.escape_debug()));
        }
    }
    let of = |key: &str| table.get(key).map(|value| value.get_ref());
    let pace = |key: &str, usual: Duration| {
        let Some(value) = of(key) else { return Ok(usual) };
        let least = Duration::from_millis(10);
        let time = value.as_str().and_then(|text| value::duration(text).ok());
        let time = time.filter(|time| (least..=PROBE_MAX).contains(time));
        let wrong = || format!("whose `{key}` {}", refused(value, "a duration from 10ms to 1h"));
        time.ok_or_else(wrong)
    };
    let count = |key: &str, usual: u32| {
        let Some(value) = of(key) else { return Ok(usual) };
        let number = integer(value).filter(|number| (1..=IN_A_ROW_MAX).contains(number));
        let words = format!("a number from 1 to {IN_A_ROW_MAX}");
        let wrong = || format!("whose `{key}` {}", refused(value, &words));
        number.and_then(|number| u32::try_from(number).ok()).ok_or_else(wrong)
    };
    let usual = Probe::new(phase, read_check(check, table)?);
    Ok(Probe {
        every: pace("every", usual.every)?,
        timeout: pace("timeout", usual.timeout)?,
        failures: count("failures", usual.failures)?,
        successes: count("successes", usual.successes)?,
        ..usual
    })
}

fn read_check(check: &str, table: &DeTable<'_>) -> Result<Check, String> {
    let of = |key: &str| table.get(key).map(|value| value.get_ref());
    let text = |key: &str| of(key).and_then(|value| value.as_str()).filter(|it| !it.is_empty());
    let wrong = |key: &str, words: &str| match of(key) {
        Some(value) => format!("whose `{key}` {}", refused(value, words)),
        None => format!("without `{key}`; write {words}"),
    };
    let optional = |key: &str, words: &str| match (of(key), text(key)) {
        (None, _) => Ok(None),
        (Some(_), Some(text)) => Ok(Some(text.to_owned())),
        (Some(_), None) => Err(wrong(key, words)),
    };
    let url = |key: &str, schemes: [&str; 2], words: &str| {
        let url = text(key).filter(|url| {
            let uri = url.parse::<http::Uri>().ok();
            let fits = uri.as_ref().and_then(|uri| uri.scheme_str());
            let host = uri.as_ref().and_then(|uri| uri.authority());
            fits.is_some_and(|scheme| schemes.contains(&scheme))
                && host.is_some_and(|host| !host.as_str().contains('@'))
                && !url.contains('#')
        });
        // Not shown: there may be a password in it.
        url.map(str::to_owned).ok_or_else(|| format!("whose `{key}` is no URL; write {words}"))
    };
    Ok(match check {
        "tcp" => {
            let words = "an address such as \"127.0.0.1:5000\" or \"unix:/run/app.sock\"";
            Check::Tcp(text("tcp").and_then(listen).ok_or_else(|| wrong("tcp", words))?)
        }
        "http" => Check::Http {
            url: url("http", ["http", "https"], "one such as \"http://127.0.0.1:5000/health\"")?,
            status: match of("status") {
                None => None,
                Some(value) => {
                    let status = integer(value).filter(|status| (100..=599).contains(status));
                    let status = status.and_then(|status| u16::try_from(status).ok());
                    Some(status.ok_or_else(|| wrong("status", "a number from 100 to 599"))?)
                }
            },
            contains: optional("contains", "a text")?,
        },
        "websocket" => Check::WebSocket {
            url: url("websocket", ["ws", "wss"], "one such as \"ws://127.0.0.1:5000/ws\"")?,
        },
        "socketio" => Check::SocketIo {
            url: url("socketio", ["http", "https"], "one such as \"http://127.0.0.1:5000\"")?,
            namespace: match optional("namespace", "a name such as \"/chat\"")? {
                None => "/".to_owned(),
                Some(name) if name.starts_with('/') => name,
                Some(_) => return Err(wrong("namespace", "a name such as \"/chat\"")),
            },
            auth: match of("auth") {
                None => None,
                Some(value) if value.is_table() => Some(json_of(value)?.to_string()),
                // Not shown: it may be a secret.
                Some(_) => return Err("whose `auth` is no table".to_owned()),
            },
        },
        "log" => Check::Log(
            optional("log", "a regular expression")?
                .ok_or_else(|| wrong("log", "a regular expression"))?,
        ),
        "exec" => {
            let value = of("exec").ok_or_else(|| wrong("exec", &CommandLine.words()))?;
            let words = CommandLine.read(value).map_err(|why| format!("whose `exec` {why}"))?;
            Check::Exec(words.into_iter().map(OsString::from).collect())
        }
        _ => match of("notify").and_then(|value| value.as_bool()) {
            Some(true) => Check::Notify,
            _ => return Err(wrong("notify", "true")),
        },
    })
}

/// A value of TOML as JSON.
pub(super) fn json_of(value: &DeValue<'_>) -> Result<Value, String> {
    Ok(match value {
        DeValue::String(text) => json!(text),
        DeValue::Boolean(truth) => json!(truth),
        DeValue::Integer(number) => {
            let number = i64::from_str_radix(number.as_str(), number.radix()).ok();
            json!(number.ok_or("whose `auth` has a number that JSON cannot say")?)
        }
        DeValue::Float(number) => {
            let number: Option<f64> = number.as_str().parse().ok();
            json!(number.ok_or("whose `auth` has a number that JSON cannot say")?)
        }
        DeValue::Datetime(time) => json!(time.to_string()),
        DeValue::Array(items) => {
            items.iter().map(|item| json_of(item.get_ref())).collect::<Result<_, _>>()?
        }
        DeValue::Table(table) => {
            let members = table.iter().map(|(name, value)| {
                json_of(value.get_ref()).map(|value| (name.get_ref().to_string(), value))
            });
            Value::Object(members.collect::<Result<Map<_, _>, _>>()?)
        }
    })
}

fn write_probe(probe: &Probe, auth_shown: impl Fn(Value) -> Value) -> Value {
    let mut object = Map::new();
    let mut say = |key: &str, value: Value| {
        object.insert(key.to_owned(), value);
    };
    match &probe.check {
        Check::Tcp(address) => say("tcp", json!(address.to_string())),
        Check::Http { url, status, contains } => {
            say("http", json!(url));
            status.iter().for_each(|status| say("status", json!(status)));
            contains.iter().for_each(|text| say("contains", json!(text)));
        }
        Check::WebSocket { url } => say("websocket", json!(url)),
        Check::SocketIo { url, namespace, auth } => {
            say("socketio", json!(url));
            say("namespace", json!(namespace));
            let auth = auth.as_ref().and_then(|auth| serde_json::from_str(auth).ok());
            auth.into_iter().for_each(|auth| say("auth", auth_shown(auth)));
        }
        Check::Log(pattern) => say("log", json!(pattern)),
        Check::Exec(command) => {
            say("exec", command.iter().map(|word| json!(word.to_string_lossy())).collect());
        }
        Check::Notify => say("notify", json!(true)),
    }
    say("every", json!(value::duration_text(probe.every)));
    say("timeout", json!(value::duration_text(probe.timeout)));
    say("failures", json!(probe.failures));
    say("successes", json!(probe.successes));
    Value::Object(object)
}

fn at_most<T>(entries: Vec<T>) -> Result<Vec<T>, String> {
    match entries.len() {
        length if length > ENTRIES_MAX => {
            Err(format!("has {length} entries; write {ENTRIES_MAX} at most"))
        }
        _ => Ok(entries),
    }
}
