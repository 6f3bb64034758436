//! Configuration, in two stages: what was written, and what will run.
//!
//! A file is a document of keys with their lines; command line and environment fill
//! [`Overrides`]; [`Config`] is what comes of them: flag > environment > file > default. Reading
//! never stops at the first mistake: all of them are reported at once, each with its line.
//!
//! Every key stands once in [`keys::KEYS`]. The reference that people read is [`DEFAULT_FILE`]; a
//! test proves that it has every key and says what [`Config::default`] says.

mod ai;
mod check;
pub(crate) mod command;
pub(crate) mod document;
mod effective;
mod explain;
mod keys;
mod kind;
mod later;
mod links;
mod read;
mod schema;
mod services;
mod suggest;
mod telemetry;
mod value;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use bowline_names::ErrorCode;
use keys::{Change, KEYS};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use ai::{Ai, ClientKey, Model, Priority, Provider, ProviderKind, Timeouts};
pub(crate) use effective::{
    Alerts, Allowance, Backend, Config, Cookie, Handler, Jwt, LogFormat, Namespace, Namespaces,
    Overrides, SessionKey, Shards, Url,
};
pub(crate) use links::{Deliver, Link, Links, Profile};
pub(crate) use services::Service;
pub(crate) use suggest::nearest;
pub(crate) use telemetry::Telemetry;
pub(crate) use value::{
    address, duration as read_duration, duration_text, endpoint, log_level, origin,
};

use crate::failure::Failure;

/// The commented default configuration.
pub(crate) const DEFAULT_FILE: &str = include_str!("default.toml");

/// One mistake, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) place: Place,
    pub(crate) message: String,
}

/// Where something was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// A line of the configuration file, from 1.
    Line(usize),
    /// A flag or a variable.
    Outside(&'static str),
}

impl Place {
    /// The place of a value that is no default.
    fn of(origin: Origin) -> Self {
        match origin {
            Origin::Line(line) => Self::Line(line),
            Origin::Flag(name) | Origin::Variable(name) => Self::Outside(name),
            Origin::Default => Self::Outside("the default"),
        }
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Origin {
    #[default]
    Default,
    /// A line of the configuration file, from 1.
    Line(usize),
    Variable(&'static str),
    Flag(&'static str),
}

/// A configuration, and who said what.
pub(crate) struct Examined {
    pub(crate) config: Config,
    /// Where the values come from that are not defaults, by the whole path of the key.
    pub(crate) origins: BTreeMap<String, Origin>,
}

/// What differs between two configurations, as paths of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Changes {
    /// What a reload puts in force. `*` stands for the names in `tables`.
    pub(crate) applied: Vec<String>,
    /// What waits for a restart.
    pub(crate) restart: Vec<String>,
    /// Which tables with names come, change and go, by what they are in: `links`, `ai.models`.
    #[serde(default)]
    pub(crate) tables: BTreeMap<String, Tables>,
}

/// Tables of one kind that differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tables {
    pub(crate) added: BTreeSet<String>,
    /// With the keys that differ.
    pub(crate) changed: BTreeMap<String, Vec<String>>,
    pub(crate) removed: BTreeSet<String>,
}

/// Why there is no configuration.
#[derive(Debug)]
pub(crate) enum Error {
    Unreadable {
        path: PathBuf,
        error: io::Error,
    },
    /// With the text of the file, of which the lines with mistakes are shown.
    Invalid {
        file: Option<(PathBuf, String)>,
        mistakes: Vec<Mistake>,
    },
}

/// Makes the configuration that will run.
///
/// # Errors
/// When the file cannot be read, or when there are mistakes in it or in what overrides it.
pub(crate) fn load(overrides: Overrides) -> Result<Config, Error> {
    let file = overrides.file.as_ref().map(|path| read_file(path)).transpose()?;
    of_text(file, overrides)
}

/// Reads a configuration file, for [`of_text`].
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn read_file(path: &Path) -> Result<(PathBuf, String), Error> {
    let path = path.to_owned();
    match fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(error) => Err(Error::Unreadable { path, error }),
    }
}

/// Makes the configuration that will run from the text of a file that was read before.
///
/// # Errors
/// When there are mistakes in the text or in what overrides it.
pub(crate) fn of_text(
    file: Option<(PathBuf, String)>,
    overrides: Overrides,
) -> Result<Config, Error> {
    read::examine(file, overrides).map(|examined| examined.config)
}

/// Returns what runs after a reload: what waits for a restart stays as it was.
///
/// # Errors
/// When the two do not go together: operators are still listened to off loopback, but without a
/// token.
pub(crate) fn reloaded(old: &Config, new: Config) -> Result<Config, Error> {
    let mut config = new;
    config.server.listen.clone_from(&old.server.listen);
    config.server.state_dir.clone_from(&old.server.state_dir);
    config.server.shards = old.server.shards;
    config.admin.listen = old.admin.listen;
    let all = std::mem::take(&mut config.links.all);
    config.links = Links { all, ..old.links.clone() };
    closed(config)
}

/// Returns what a gateway runs that was given these listeners: those that its master has bound,
/// whatever the file says by now.
///
/// # Errors
/// As [`reloaded`].
pub(crate) fn bound(
    mut config: Config,
    public: &[SocketAddr],
    admin: &[SocketAddr],
    links: &[SocketAddr],
) -> Result<Config, Error> {
    let is = |(asked, bound): (&SocketAddr, &SocketAddr)| {
        asked == bound || asked.port() == 0 && asked.ip() == bound.ip()
    };
    let listen = &config.server.listen;
    if listen.len() != public.len() || !listen.iter().zip(public).all(is) {
        config.server.listen = public.to_vec();
    }
    if let Some(bound) = admin.first()
        && !is((&config.admin.listen, bound))
    {
        config.admin.listen = *bound;
    }
    if let Some(bound) = links.first()
        && !is((&config.links.listen, bound))
    {
        config.links.listen = *bound;
    }
    closed(config)
}

/// Sees to it that operators show a token where others can reach them.
fn closed(config: Config) -> Result<Config, Error> {
    match read::open_door(&config, Place::Outside("admin.token-file")) {
        None => Ok(config),
        Some(mistake) => Err(Error::Invalid { file: None, mistakes: vec![mistake] }),
    }
}

/// Finds the directory of the server's state for a command that only looks for a server: what
/// else is wrong with the configuration is none of its business.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn state_dir(overrides: &Overrides) -> Result<Option<PathBuf>, Error> {
    if overrides.state_dir.is_some() {
        return Ok(overrides.state_dir.clone());
    }
    let file = overrides.file.as_ref().map(|path| read_file(path)).transpose()?;
    let (examined, _) = read::look(file.as_ref(), overrides.clone());
    Ok(examined.config.server.state_dir)
}

/// Returns the keys whose values differ.
pub(crate) fn changes(old: &Config, new: &Config) -> Changes {
    let mut changes = Changes::default();
    for key in KEYS.iter().filter(|key| key.get(old) != key.get(new)) {
        match key.change {
            Change::Reload => changes.applied.push(key.path.to_owned()),
            Change::Restart => changes.restart.push(key.path.to_owned()),
        }
        if let Some((kind, name)) = key.path.split_once(".*.") {
            let tables = changes.tables.entry(kind.to_owned()).or_default();
            tables.differ(name, &names(kind, old), &names(kind, new), |table| {
                key.get(old).get(table) != key.get(new).get(table)
            });
        }
    }
    changes
}

impl Changes {
    /// What is in force and stands in no table with a name.
    pub(crate) fn plain(&self) -> Vec<&str> {
        let of_tables = |path: &str| {
            let kind = path.split_once(".*.").map(|(kind, _)| kind);
            kind.is_some_and(|kind| self.tables.contains_key(kind))
        };
        self.applied.iter().map(|path| &**path).filter(|path| !of_tables(path)).collect()
    }
}

impl Tables {
    /// Notes which of the tables that were and that are differ in this key.
    fn differ(
        &mut self,
        key: &str,
        were: &BTreeSet<String>,
        are: &BTreeSet<String>,
        differs: impl Fn(&str) -> bool,
    ) {
        self.added.extend(are.difference(were).cloned());
        self.removed.extend(were.difference(are).cloned());
        for table in were.intersection(are).filter(|table| differs(table)) {
            self.changed.entry(table.clone()).or_default().push(key.to_owned());
        }
    }
}

/// The names of all tables of a kind.
fn names(kind: &str, config: &Config) -> BTreeSet<String> {
    let keys = KEYS.iter().filter(|key| key.path.split_once(".*.").is_some_and(|it| it.0 == kind));
    let of = |value: Value| match value {
        Value::Object(tables) => tables.into_iter().map(|(name, _)| name).collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    keys.flat_map(|key| of(key.get(config))).collect()
}

impl fmt::Display for Tables {
    /// As in `added a, b; changed c (url); removed d`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changed =
            self.changed.iter().map(|(name, keys)| format!("{name} ({})", keys.join(", ")));
        let lists = [
            ("added", self.added.iter().cloned().collect::<Vec<_>>()),
            ("changed", changed.collect()),
            ("removed", self.removed.iter().cloned().collect()),
        ];
        let lists = lists.into_iter().filter(|(_, names)| !names.is_empty());
        let lists = lists.map(|(what, mut names)| {
            let more = names.len().saturating_sub(TABLES_SHOWN);
            names.truncate(TABLES_SHOWN);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{what} {}{more}", names.join(", "))
        });
        f.write_str(&lists.collect::<Vec<_>>().join("; "))
    }
}

/// Tables that are named at once: more are not read by anybody.
const TABLES_SHOWN: usize = 20;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::Unreadable { .. } => ErrorCode::ConfigUnreadable,
            Error::Invalid { .. } => ErrorCode::ConfigInvalid,
        };
        Self::new(code, error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, error } => {
                write!(f, "cannot read {}: {error}", path.display())
            }
            Self::Invalid { file, mistakes } => {
                let mistakes_word = if mistakes.len() == 1 { "mistake" } else { "mistakes" };
                write!(f, "the configuration has {} {mistakes_word}", mistakes.len())?;
                let (name, text) = match file {
                    Some((path, text)) => (near(path), text.as_str()),
                    None => Default::default(),
                };
                for Mistake { place, message } in mistakes {
                    match place {
                        Place::Line(line) => {
                            write!(f, "\n  {name}:{line}: {message}")?;
                            if let Some(excerpt) = excerpt(text, *line) {
                                write!(f, "\n  {line:>5} | {excerpt}")?;
                            }
                        }
                        Place::Outside(what) => write!(f, "\n  {what}: {message}")?,
                    }
                }
                Ok(())
            }
        }
    }
}

/// Shows a path as one would type it here.
fn near(path: &Path) -> String {
    let here = env::current_dir().unwrap_or_default();
    match path.strip_prefix(&here) {
        // Whoever reads what a server in the background writes is not in its directory, which is /.
        Ok(near) if here != Path::new("/") => near.display().to_string(),
        _ => path.display().to_string(),
    }
}

/// Shows a line of a file, shortened, without what may be a secret.
fn excerpt(text: &str, line: usize) -> Option<String> {
    const SECRETS: [&str; 13] = [
        "token",
        "secret",
        "passw",
        "auth",
        "jwt",
        "url",
        "api-key",
        "sha256",
        "environment",
        "otlp-headers",
        "hello",
        "headers",
        "proxy",
    ];
    let line = text.lines().nth(line.checked_sub(1)?)?.trim();
    let lower = line.to_lowercase();
    let shown = if SECRETS.iter().any(|word| lower.contains(word)) {
        format!("{}= …", line.split_once('=')?.0)
    } else {
        line.to_owned()
    };
    let short: String = shown.chars().take(80).collect();
    let rest = if short.len() < shown.len() { "…" } else { "" };
    (!short.is_empty()).then(|| short + rest)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bowline_fleet::spec as fleet;

    use super::*;

    /// The mistakes of a file, as `line: message`.
    fn mistakes(text: &str) -> Vec<String> {
        told(of_text(Some(file(text)), Overrides::default()))
    }

    fn told(result: Result<Config, Error>) -> Vec<String> {
        let mistakes = match result {
            Err(Error::Invalid { mistakes, .. }) => mistakes,
            Err(error) => panic!("{error}"),
            Ok(_) => Vec::new(),
        };
        (mistakes.into_iter())
            .map(|Mistake { place, message }| match place {
                Place::Line(line) => format!("{line}: {message}"),
                Place::Outside(what) => format!("{what}: {message}"),
            })
            .collect()
    }

    fn config(text: &str, overrides: Overrides) -> Config {
        of_text(Some(file(text)), overrides).unwrap()
    }

    fn file(text: &str) -> (PathBuf, String) {
        ("/etc/bowline/bowline.toml".into(), text.to_owned())
    }

    /// Where the keys for tokens can be: in one of these.
    const KEY_PLACES: [&str; 3] = ["secret-file", "public-key-file", "jwks-url"];

    /// The default file with the keys that have no default.
    fn full_file() -> String {
        full_file_with(KEY_PLACES[0])
    }

    /// The same with the keys for tokens at one of their places.
    fn full_file_with(key_place: &str) -> String {
        let others = KEY_PLACES.iter().filter(|other| **other != key_place);
        // So have those of providers, of which there are two.
        let at_provider = usize::from(key_place == KEY_PLACES[0]);
        let other = ["api-key-env", "api-key-file"][at_provider];
        // And so has what is run, of which there are three; the example is one of Node only once.
        let runs = ["command", "script", "module"];
        let run = KEY_PLACES.iter().position(|place| *place == key_place).unwrap();
        let runs = runs.iter().filter(|other| **other != runs[run]);
        let language = ["python", "node"][usize::from(run > 0)];
        let headers = ["otlp-headers-env", "otlp-headers-file"][at_provider];
        let text = full_links(run);
        others.chain([&other, &headers]).chain(runs).chain([&language]).fold(text, |text, other| {
            text.replace(&format!("\n{other} = "), &format!("\n#{other} = "))
        })
    }

    /// The default file with every key, but of a link those of one profile.
    fn full_links(which: usize) -> String {
        let profile = [Profile::WebSocket, Profile::SocketIo, Profile::Webex][which];
        let all = every_key();
        let (before, links) = all.split_once("[links.bot]").unwrap();
        let links =
            links.replace("profile = \"webex\"", &format!("profile = {:?}", profile.name()));
        let links = match profile {
            Profile::SocketIo => links.replace("wss://", "https://"),
            Profile::WebSocket | Profile::Webex => links,
        };
        let token = ["token-env", "token-file"][usize::from(which > 0)];
        let others = profile.own_keys().filter(|(_, has)| !has).map(|(key, _)| key);
        let links = others.chain([token]).fold(links, |links, other| {
            links.replace(&format!("\n{other} = "), &format!("\n#{other} = "))
        });
        format!("{before}[links.bot]{links}")
    }

    fn every_key() -> String {
        let is_key = |rest: &str| rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase());
        (DEFAULT_FILE.lines())
            .map(|line| line.strip_prefix('#').filter(|rest| is_key(rest)).unwrap_or(line))
            .map(|line| line.to_owned() + "\n")
            .collect()
    }

    #[test]
    fn the_default_file_says_what_the_built_in_defaults_say() {
        assert_eq!(config(DEFAULT_FILE, Overrides::default()), Config::default());
    }

    #[test]
    fn the_default_file_has_every_key_of_the_table_and_says_what_it_means() {
        let examined = read::examine(Some(file(DEFAULT_FILE)), Overrides::default()).unwrap();
        let with = |place| {
            read::examine(Some(file(&full_file_with(place))), Overrides::default()).unwrap()
        };
        let full = (KEY_PLACES.map(with).into_iter())
            .reduce(|mut all, one| {
                all.origins.extend(one.origins);
                all
            })
            .unwrap();
        let words = explain::words();
        for key in KEYS {
            // What has no default stands there as an example.
            let default = key.get(&Config::default());
            let has = !default.is_null() && default != serde_json::json!({});
            let tables = [
                ("backends.", "\"app\""),
                ("ai.providers.", "\"kimi\""),
                ("ai.models.", "\"chat\""),
                ("ai.keys.", "\"app\""),
                ("services.", "\"api\""),
                ("links.", "\"bot\""),
                ("", "\"/\""),
            ];
            let example = tables.iter().find(|(table, _)| key.path.starts_with(table)).unwrap().1;
            let path = key.path.replace('*', example);
            assert_eq!(examined.origins.contains_key(&path), has, "{path}");
            assert!(full.origins.contains_key(&path), "{path}");
            assert!(words.get(key.path).is_some_and(|words| !words.is_empty()), "{path}");
        }
        // The example has a namespace more, and nothing else that the table does not have.
        assert_eq!(full.origins.len(), KEYS.len() + 1);
    }

    #[test]
    fn every_limit_that_has_a_name_is_a_key() {
        for limit in bowline_names::LimitKey::ALL {
            assert!(KEYS.iter().any(|key| key.path == limit.path()), "{}", limit.path());
        }
    }

    #[test]
    fn an_empty_file_changes_nothing() {
        assert_eq!(config("", Overrides::default()), Config::default());
    }

    #[test]
    fn all_mistakes_are_reported_at_once_with_their_lines() {
        let text = r#"
[server]
lisen = "127.0.0.1:9000"
shards = 0

[engine]
ping-interval = "25 parsecs"
transports = ["polling", "telepathy"]
max-payload = 1.5

[links.bot]
profile = "webex"

[namespaces."/chat"]
handler = { upstream = "app" }

[sever]
"#;
        assert_eq!(
            mistakes(text),
            [
                "3: unknown key `server.lisen`; did you mean `listen`?",
                "4: `server.shards` is 0; write \"auto\" or a number from 1 to 255",
                "7: `engine.ping-interval` is \"25 parsecs\"; write a duration such as \"500ms\", from 1ms to 1day",
                "8: `engine.transports` has an entry that is \"telepathy\"; write \"polling\" or \"websocket\"",
                "9: `engine.max-payload` is 1.5; write a size such as \"64KiB\" or \"1MB\", or a number of bytes, from 1 to 1GiB",
                "12: `links.\"bot\".profile` needs the bot's token; write `token-file` or `token-env` too",
                "15: `namespaces.\"/chat\".handler` with `upstream` is not in this version; write \"echo\", \"relay\", \"link\", { http = \"NAME\" } or { ai = \"MODEL\" }",
                "17: unknown table `sever`; did you mean `server`?",
            ]
        );
    }

    #[test]
    fn a_mistake_in_the_notation_does_not_hide_the_others() {
        let found = mistakes("[server]\nlisten = \n[engine]\nping-intervall = \"1s\"\n");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("2: "), "{found:?}");
        assert_eq!(
            found[1],
            "4: unknown key `engine.ping-intervall`; did you mean `ping-interval`?"
        );
    }

    #[test]
    fn a_file_may_break_off_anywhere() {
        let keys = |line: &&str| !line.starts_with('#');
        let text: String =
            full_file().lines().filter(keys).map(|line| line.to_owned() + "\n").collect();
        for (end, _) in text.char_indices() {
            let cut = Some(file(&text[..end]));
            let (examined, mistakes) = read::look(cut.as_ref(), Overrides::default());
            // Whatever is left out has its default, and no mistake is beyond the end.
            let lines = text[..end].lines().count().max(1);
            let within = |place: &Place| matches!(place, Place::Line(line) if *line <= lines);
            assert!(mistakes.iter().all(|mistake| within(&mistake.place)), "{end}: {mistakes:?}");
            assert!(examined.origins.len() <= KEYS.len() + 1);
        }
    }

    #[test]
    fn keys_of_later_versions_are_refused_as_such() {
        assert_eq!(
            mistakes(
                "[server]\nupgrade-grace = \"1m\"\n[admin]\nmount = \"/x\"\n\
                 [continuity]\nsync = \"1s\"\ndurability = \"disk\"\n"
            ),
            [
                "2: `server.upgrade-grace` is not in this version",
                "4: `admin.mount` is not in this version",
                "6: `continuity.sync` is not in this version",
                "7: `continuity.durability` \"disk\" is not in this version; write \"memory\"",
            ]
        );
    }

    #[test]
    fn a_key_in_another_table_is_sent_to_its_own() {
        assert_eq!(
            mistakes("drain = \"1s\"\n[server]\nmax_payload = 1\ncert-file = \"x\"\n"),
            [
                "1: unknown key `drain`; did you mean `server.drain`?",
                "3: unknown key `server.max_payload`; did you mean `engine.max-payload`?",
                "4: unknown key `server.cert-file`; did you mean `server.tls.cert-file`?",
            ]
        );
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_file() {
        let file = "[server]\nlisten = \"127.0.0.1:1000\"\n";
        let listen = |overrides| config(file, overrides).server.listen;
        let port = || Some("3000".to_owned());

        assert_eq!(listen(Overrides::default()), [address("127.0.0.1:1000").unwrap()]);
        assert_eq!(
            listen(Overrides { port: port(), ..Overrides::default() }),
            [address("0.0.0.0:3000").unwrap()]
        );
        let flag = vec![address("127.0.0.1:2000").unwrap()];
        let overrides = Overrides { listen: flag.clone(), port: port(), ..Overrides::default() };
        assert_eq!(listen(overrides), flag);
    }

    #[test]
    fn a_port_variable_that_is_no_port_is_a_mistake_of_the_environment() {
        let port = Some("tcp://10.0.0.1".to_owned());
        let result = of_text(None, Overrides { port, ..Overrides::default() });
        assert_eq!(told(result), ["PORT: \"tcp://10.0.0.1\" is not a port"]);
    }

    #[test]
    fn the_admin_listener_leaves_loopback_only_with_a_token() {
        let open = "[admin]\nlisten = \"0.0.0.0:8001\"\n";
        let wanted = "is 0.0.0.0:8001, which others can reach; off loopback it needs \
                      `admin.token-file`, a file with a token that operators show";
        assert_eq!(mistakes(open), [format!("2: `admin.listen` {wanted}")]);
        assert_eq!(mistakes(&format!("{open}token-file = \"token\"\n")), [""; 0]);

        let admin_listen = Some(address("0.0.0.0:8001").unwrap());
        let overrides = Overrides { admin_listen, ..Overrides::default() };
        let told = told(of_text(None, overrides));
        assert_eq!(told, [format!("BOWLINE_ADMIN_LISTEN: `admin.listen` {wanted}")]);
    }

    #[test]
    fn a_certificate_needs_its_key() {
        assert_eq!(
            mistakes("[server.tls]\ncert-file = \"cert.pem\"\n"),
            ["1: `server.tls.key-file` is missing; write a path, absolute or from where the \
              configuration file is"]
        );
    }

    #[test]
    fn relative_files_are_where_the_configuration_is_and_those_of_flags_where_one_typed_them() {
        let text = "[server]\nstate-dir = \"state\"\n[admin]\ntoken-file = \"/run/token\"\n";
        let read = config(text, Overrides::default());
        assert_eq!(read.server.state_dir, Some("/etc/bowline/state".into()));
        assert_eq!(read.admin.token_file, Some("/run/token".into()));

        let flag = Overrides { state_dir: Some("/here/state".into()), ..Overrides::default() };
        assert_eq!(config(text, flag).server.state_dir, Some("/here/state".into()));
    }

    #[test]
    fn networks_may_be_single_addresses() {
        let text = "[server]\ntrusted-proxies = [\"10.0.0.7\", \"fd00::/8\"]\n";
        let networks = config(text, Overrides::default()).server.trusted_proxies;
        assert_eq!(networks, ["10.0.0.7/32".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let wrong = mistakes("[server]\ntrusted-proxies = [\"10.0.0.7:80\"]\n");
        assert!(wrong[0].starts_with("2: `server.trusted-proxies` names \"10.0.0.7:80\"; write"));
    }

    #[test]
    fn what_may_be_a_secret_is_shown_in_no_message() {
        let text = "[admin]\ntoken = \"hush\"\n[alerts]\nwebhook-url = \"ftp://x/hush\"\n\
                    [health]\npublic-url = \"https://me:hush@example.com\"\n";
        let error = of_text(Some(file(text)), Overrides::default()).unwrap_err().to_string();
        assert!(error.contains("did you mean `token-file`?"), "{error}");
        assert!(!error.contains("hush"), "{error}");

        let text = "[alerts]\nwebhook-url = \"https://example.com/hush?a=hush\"\n";
        let read = config(text, Overrides::default());
        assert!(!format!("{read:?}").contains("hush"));
        let examined = read::examine(Some(file(text)), Overrides::default()).unwrap();
        let shown =
            explain::show(&examined, None) + &explain::show_json(&examined, None).to_string();
        assert!(shown.contains("https://example.com/…") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn a_reload_applies_what_it_can_and_names_the_rest() {
        let text = "[server]\nlisten = \"127.0.0.1:1\"\n[engine]\nping-interval = \"1s\"\n\
                    [namespaces.\"/x\"]\nhandler = \"echo\"\n";
        let (old, new) = (Config::default(), config(text, Overrides::default()));
        let differ = changes(&old, &new);
        assert_eq!(
            differ.applied,
            [
                "engine.ping-interval",
                "namespaces.*.handler",
                "namespaces.*.stamp",
                "namespaces.*.on-doubt",
            ]
        );
        assert_eq!(differ.restart, ["server.listen"]);
        assert_eq!(differ.tables["namespaces"].to_string(), "added /x; removed /, /relay");
        assert_eq!(changes(&new, &new), Changes::default());
    }

    #[test]
    fn each_key_of_a_link_has_words_of_its_own() {
        let words = explain::words();
        let mut known = BTreeMap::new();
        for path in KEYS.iter().map(|key| key.path).filter(|path| path.starts_with("links.")) {
            assert!(!words[path].is_empty(), "{path}");
            assert_eq!(known.insert(&words[path], path), None, "{path}");
        }
    }

    #[test]
    fn a_reload_names_the_tables_that_come_change_and_go() {
        let link = |name: &str, keys: &str| {
            format!("[links.{name}]\nprofile = \"webex\"\ntoken-env = \"{name}\"\n{keys}\n")
        };
        let of = |links: &[String]| config(&links.concat(), Overrides::default());
        let old = of(&[link("a", ""), link("b", ""), link("c", "")]);
        let more = "probe-interval = \"1m\"\nintercept = [\"x.example\"]";
        let new = of(&[link("b", more), link("c", ""), link("d", "")]);
        let differ = changes(&old, &new);
        assert_eq!(differ.tables.len(), 1);
        let words = "added d; changed b (intercept, probe-interval); removed a";
        assert_eq!(differ.tables["links"].to_string(), words);

        let many: Vec<String> = (0..30).map(|n| link(&format!("l{n:02}"), "")).collect();
        let words = changes(&Config::default(), &of(&many)).tables["links"].to_string();
        assert!(words.ends_with("l18, l19 and 10 more"), "{words}");
    }

    #[test]
    fn what_waits_for_a_restart_is_told_with_every_reload() {
        let overrides = Overrides { shards: Some(Shards::Of(200)), ..Overrides::default() };
        let listen = (full_file().replace("127.0.0.1", "127.0.0.2"))
            .replace("attempts-per-second = 5", "attempts-per-second = 6")
            .replace("attempts-burst = 5", "attempts-burst = 6")
            .replace("waiting-max = 100_000", "waiting-max = 7");
        let (old, new) = (Config::default(), config(&listen, overrides));
        let waiting: Vec<_> = (KEYS.iter())
            .filter(|key| key.change == Change::Restart)
            .map(|key| key.path.to_owned())
            .collect();
        assert_eq!(changes(&old, &new).restart, waiting);

        let runs = reloaded(&old, new.clone()).unwrap();
        let differ = changes(&runs, &new);
        assert_eq!((differ.applied, differ.restart), (Vec::new(), waiting));
    }

    #[test]
    fn a_reload_does_not_take_the_token_from_a_door_that_stays_open() {
        let open = "[admin]\nlisten = \"0.0.0.0:8001\"\ntoken-file = \"token\"\n";
        let old = config(open, Overrides::default());
        let refused = reloaded(&old, Config::default()).unwrap_err().to_string();
        assert!(refused.contains("0.0.0.0:8001, which others can reach"), "{refused}");
        assert!(reloaded(&Config::default(), old).is_ok());
    }

    #[test]
    fn a_gateway_knows_where_it_listens_better_than_the_file() {
        let at = |address: &str| address.parse::<SocketAddr>().unwrap();
        let text = "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";
        let asked = config(text, Overrides::default());
        let public = [at("127.0.0.1:4711")];
        // Any port of the address that was asked for is what was asked for.
        let same = bound(asked.clone(), &public, &[at("127.0.0.1:4712")], &[]).unwrap();
        assert_eq!(same, asked);
        let other = bound(asked.clone(), &[at("[::1]:1")], &[at("127.0.0.2:2")], &[]).unwrap();
        assert_eq!(other.server.listen, [at("[::1]:1")]);
        assert_eq!(other.admin.listen, at("127.0.0.2:2"));
        let open = bound(asked, &public, &[at("0.0.0.0:8001")], &[]).unwrap_err().to_string();
        assert!(open.contains("0.0.0.0:8001, which others can reach"), "{open}");
    }

    #[test]
    fn what_is_shown_can_be_used_as_a_file() {
        let handled = |handler| full_file().replacen("handler = \"echo\"", handler, 1);
        let app = handled("handler = { http = \"app\" }");
        let ai = handled("handler = { ai = \"chat\" }");
        for text in [DEFAULT_FILE.to_owned(), full_file(), app, ai] {
            let path = Some(Path::new("/etc/bowline/bowline.toml"));
            let before = read::examine(Some(file(&text)), Overrides::default()).unwrap();
            let shown = explain::show(&before, path);
            let mut after = config(&shown, Overrides::default());
            // The path of a hook or of an app is not shown, so it cannot come back.
            after.backends.clone_from(&before.config.backends);
            after.alerts.webhook_url.clone_from(&before.config.alerts.webhook_url);
            // Nor are values of variables.
            for ((_, after), (_, before)) in
                after.services.0.iter_mut().zip(&before.config.services.0)
            {
                assert!(after.environment.0.values().all(|value| value == "…"), "{shown}");
                after.environment.clone_from(&before.environment);
            }
            // Nor is what a link says to its service.
            for ((_, after), (_, before)) in
                after.links.all.0.iter_mut().zip(&before.config.links.all.0)
            {
                after.url.clone_from(&before.url);
                after.hello.clone_from(&before.hello);
                after.headers.clone_from(&before.headers);
            }
            assert_eq!(after, before.config, "{shown}");
        }
    }

    #[test]
    fn an_app_behind_http_is_named_by_its_table() {
        let app = "[backends.my-app]\nurl = \"http://127.0.0.1:5000/\"\ntimeout = \"2s\"\n";
        let text = format!("{app}[namespaces.\"/\"]\nhandler = {{ http = \"my-app\" }}\n");
        let config = config(&text, Overrides::default());
        assert_eq!(config.namespaces.0[0].1.handler, Handler::Http("my-app".to_owned()));
        let (name, backend) = &config.backends.0[0];
        assert_eq!((&**name, backend.timeout), ("my-app", Duration::from_secs(2)));
        assert_eq!((backend.max_concurrent, backend.queue), (64, 10_000));

        assert_eq!(
            mistakes(&text.replace("\"my-app\" }", "\"my-ap\" }").replace("\"2s\"", "2")),
            [
                "3: `backends.\"my-app\".timeout` is 2; write a duration such as \"500ms\", from 10ms to 10m",
                "5: `namespaces.\"/\".handler` names the backend \"my-ap\", which is not in [backends]; did you mean \"my-app\"?",
            ]
        );
        assert_eq!(
            mistakes("[backends.\"my app\"]\nurl = \"ftp://x\"\nurll = 1\n[backends.b]\n"),
            [
                "1: `backends.\"my app\"` must be called by letters, digits, `-` and `_` alone",
                "2: `backends.\"my app\".url` is no URL; write a URL such as \"http://127.0.0.1:9093\"",
                "3: unknown key `backends.\"my app\".urll`; did you mean `url`?",
                "4: `backends.\"b\".url` is missing; write a URL such as \"http://127.0.0.1:9093\"",
            ]
        );
        assert_eq!(
            mistakes("[namespaces.\"/\"]\nhandler = { http = \"app\", x = 1 }\n"),
            [
                "2: `namespaces.\"/\".handler` is a table; write \"echo\", \"relay\", \"link\", { http = \"NAME\" } or { ai = \"MODEL\" }"
            ]
        );
    }

    /// A gateway of two providers.
    const AI: &str = r#"
[ai]
retry-budget = "5%"
[ai.providers.kimi]
kind = "openai"
base-url = "https://api.moonshot.cn/v1/"
api-key-env = "KIMI_API_KEY"
timeout = { first-content = "75s" }
[ai.providers.claude]
kind = "anthropic"
base-url = "https://api.anthropic.com/v1"
api-key-file = "claude-key"
[ai.models."gpt-4.1/mini"]
try = ["kimi/kimi-k2", "claude/family/sonnet"]
[ai.keys.phone]
sha256 = "2BB80D537B1DA3E38BD30361AA855686BDE0EACD7162FEF6A25FE97BF527A25B"
limits = { models = ["gpt-4.1/mini"], tokens-per-minute = 5 }
[namespaces."/"]
handler = { ai = "gpt-4.1/mini" }
"#;

    #[test]
    fn models_are_tried_in_the_order_in_which_they_are_written() {
        let config = config(AI, Overrides::default());
        let ai = &config.ai;
        assert!(ai.is_on() && !Config::default().ai.is_on());
        assert_eq!((ai.retry_percent, ai.max_concurrent), (5, 256));
        let (name, kimi) = &ai.providers.0[0];
        assert_eq!((&**name, &*kimi.base_url), ("kimi", "https://api.moonshot.cn/v1"));
        assert_eq!(kimi.timeout.first_content, Duration::from_secs(75));
        assert_eq!(kimi.timeout.connect, Duration::from_secs(5));
        let claude = &ai.providers.0[1].1;
        assert_eq!(claude.kind, ProviderKind::Anthropic);
        assert_eq!(claude.api_key_file.as_deref(), Some(Path::new("/etc/bowline/claude-key")));
        let chain = &ai.models.0[0].1.chain;
        let chain: Vec<_> = chain.iter().map(|it| (&*it.provider, &*it.model)).collect();
        assert_eq!(chain, [("kimi", "kimi-k2"), ("claude", "family/sonnet")]);
        let phone = &ai.keys.0[0].1;
        assert_eq!((phone.limits.tokens_per_minute, phone.limits.max_concurrent), (Some(5), None));
        assert_eq!(config.namespaces.0[0].1.handler, Handler::Ai("gpt-4.1/mini".to_owned()));
    }

    #[test]
    fn what_a_model_a_key_or_a_namespace_names_must_be_there() {
        let text = AI
            .replace("\"kimi/kimi-k2\"", "\"kimmi/kimi-k2\"")
            .replace("models = [\"gpt-4.1/mini\"]", "models = [\"gpt-4.1\"]")
            .replace("{ ai = \"gpt-4.1/mini\" }", "{ ai = \"gpt\" }");
        let same = "[ai.keys.tablet]\nsha256 = \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\"\n";
        assert_eq!(
            mistakes(&(text + same)),
            [
                "14: `ai.models.\"gpt-4.1/mini\".try` names the provider \"kimmi\", which is not in [ai.providers]; did you mean \"kimi\"?",
                "17: `ai.keys.\"phone\".limits.models` names the model \"gpt-4.1\", which is not in [ai.models]",
                "19: `namespaces.\"/\".handler` names the model \"gpt\", which is not in [ai.models]; did you mean \"gpt-4.1/mini\"?",
                "21: `ai.keys.\"tablet\".sha256` is that of `ai.keys.\"phone\"`",
            ]
        );
    }

    #[test]
    fn a_key_in_the_wrong_place_is_not_repeated() {
        let text = "[ai]\nretry-budget = 0.2\n[ai.providers.kimi]\nkind = \"kimi\"\nbase-url = \"sk-hush\"\n\
                    api-key-env = \"sk-hush\"\napi-key-file = \"key\"\n\
                    [ai.models.chat]\ntry = []\n[ai.keys.app]\nsha256 = \"sk-hush\"\n";
        assert_eq!(
            mistakes(text),
            [
                "2: `ai.retry-budget` is 0.2; write a share such as \"20%\", from 0% to 100%",
                "3: `ai.providers.\"kimi\"` has `api-key-env` and `api-key-file`; write one of them",
                "4: `ai.providers.\"kimi\".kind` is \"kimi\"; write \"openai\" or \"anthropic\"",
                "5: `ai.providers.\"kimi\".base-url` is no URL to put paths behind; write a URL such as \"https://api.example.com/v1\"",
                "6: `ai.providers.\"kimi\".api-key-env` is no name of a variable; write the name of a variable, as in \"KIMI_API_KEY\"",
                "9: `ai.models.\"chat\".try` has 0 entries; write from 1 to 16",
                "11: `ai.keys.\"app\".sha256` is no SHA-256 in hexadecimal; write what `bowline config hash-key` prints",
            ]
        );
        let error = of_text(Some(file(text)), Overrides::default()).unwrap_err().to_string();
        assert!(!error.contains("hush"), "{error}");
    }

    /// Three services.
    const SERVICES: &str = r#"
[services.db]
command = ["redis-server", "--port", "6400"]
ready = [{ tcp = "localhost:6400" }]
[services.engines]
directory = "engines"
script = "main.py"
needs = ["db"]
environment = { TOKEN = "hush" }
environment-files = ["engines.env"]
listen = ["127.0.0.1:5000", "unix:run/engines.sock"]
startup-timeout = "1h"
stop = { grace = "1s" }
[services.api]
module = "api.main"
python = "../venv/bin/python"
needs = [{ service = "db", until = "started" }, "engines"]
[[services.api.ready]]
socketio = "http://127.0.0.1:5001"
auth = { token = "hush", n = 1 }
every = "1s"
"#;

    #[test]
    fn services_are_what_their_tables_say() {
        let config = config(SERVICES, Overrides::default());
        let [(_, db), (_, engines), (_, api)] = &config.services.0[..] else { panic!() };
        assert_eq!(db.language(), Some(fleet::Interpreter::None));
        assert_eq!(
            db.ready[0].check,
            fleet::Check::Tcp(fleet::Listen::Tcp("127.0.0.1:6400".parse().unwrap()))
        );
        let auto = fleet::Interpreter::Python(fleet::Which::Auto);
        assert_eq!(engines.language(), Some(auto));
        assert_eq!(engines.script.as_deref(), Some(Path::new("/etc/bowline/engines/main.py")));
        assert_eq!(engines.environment_files, [Path::new("/etc/bowline/engines.env")]);
        let listens: Vec<_> = engines.listen.iter().map(fleet::Listen::to_string).collect();
        assert_eq!(listens, ["127.0.0.1:5000", "unix:/etc/bowline/run/engines.sock"]);
        assert_eq!(engines.stop.signal, fleet::Signal::Term);
        assert_eq!(engines.stop.grace, Duration::from_secs(1));
        let python = PathBuf::from("/etc/bowline/../venv/bin/python");
        assert_eq!(api.python, Some(fleet::Which::Path(python)));
        let untils: Vec<_> = api.needs.iter().map(|need| need.until).collect();
        assert_eq!(untils, [fleet::Until::Started, fleet::Until::Ready]);
        assert_eq!((api.ready.len(), api.ready[0].every), (1, Duration::from_secs(1)));
        assert_eq!((api.ready[0].timeout, api.ready[0].failures), (Duration::from_secs(5), 3));

        let examined = read::examine(Some(file(SERVICES)), Overrides::default()).unwrap();
        let shown =
            explain::show(&examined, None) + &explain::show_json(&examined, None).to_string();
        assert!(!shown.contains("hush") && !format!("{config:?}").contains("\"hush\""), "{shown}");
        assert_eq!(mistakes(&explain::show(&examined, None)), [""; 0]);
    }

    #[test]
    fn services_that_contradict_themselves_or_each_other_are_refused() {
        let text = r#"
[services.a]
command = ["a"]
needs = ["b", "dbb"]
[services.b]
command = ["b"]
needs = ["c"]
overlap = true
[services.c]
script = "start.sh"
needs = ["a"]
backoff = { first = "1m" }
[services.db]
command = ["db"]
script = "db.py"
listen = ["127.0.0.1:8000"]
[services.d]
command = "d --verbose"
ready = [{ http = "http://127.0.0.1/", evry = "1s" }]
live = [{ tcp = "127.0.0.1:1", log = "x" }]
environment = { LISTEN_FDS = "1" }
needs = ["d"]
[services."e f"]
module = "app main"
python = "python3"
"#;
        assert_eq!(
            mistakes(text),
            [
                "4: `services.\"a\".needs` names the service \"dbb\", which is not in [services]; did you mean \"db\"?",
                "4: `services.\"a\".needs` goes round in a circle: a → b → c → a",
                "8: `services.\"b\".overlap` is true, but of two that run at once only one could listen; write `listen`, so that the server hands its addresses to both",
                "10: `services.\"c\".script` does not say by its name what runs it; write `python` or `node` too, or a `command`",
                "12: `services.\"c\".backoff.first` is longer than `backoff.max`",
                "13: `services.\"db\"` has one of `command`, `script` and `module`, and no more",
                "16: `services.\"db\".listen` has 127.0.0.1:8000, which `server.listen` has too",
                "18: `services.\"d\".command` is \"d --verbose\"; write an array with a program and its arguments, as in [\"node\", \"server.js\"]",
                "19: `services.\"d\".ready` has an entry with an unknown key `evry`; did you mean `every`?",
                "20: `services.\"d\".live` has an entry with 2 of tcp, http, websocket, socketio, log, exec, notify; write one",
                "21: `services.\"d\".environment` sets LISTEN_FDS, which the server sets by what `listen` says",
                "22: `services.\"d\".needs` goes round in a circle: d → d",
                "23: `services.\"e f\"` must be called by letters, digits, `-` and `_` alone",
                "24: `services.\"e f\".module` is \"app main\"; write the name of a module of Python, as in \"app.main\"",
                "25: `services.\"e f\".python` is \"python3\"; write \"auto\" or the path of an interpreter",
            ]
        );
    }

    #[test]
    fn what_the_crew_would_refuse_is_a_mistake_with_its_line() {
        let text = r#"
[services.a]
command = ["a"]
needs = [{ service = "b", until = "completed" }]
live = [{ log = "x" }]
[services.a.limits]
open-files = 1
[services.b]
command = ["b"]
ready = [{ log = "(" }]
"#;
        let found = mistakes(text);
        let begins = [
            "4: `services.\"a\".needs` is wrong: `b` never completes",
            "5: `services.\"a\".live` is wrong: log /x/: a line says",
            "7: `services.\"a\".limits` is wrong: `open-files` is less than",
            "10: `services.\"b\".ready` is wrong: log /(/: unclosed group",
        ];
        assert_eq!(found.len(), begins.len(), "{found:#?}");
        for (found, begin) in found.iter().zip(begins) {
            assert!(found.starts_with(begin), "{found}");
        }
    }

    /// Three links, a service and what they need.
    const LINKS: &str = r#"
[links]
listen = "localhost:9002"
waiting-max = 7
[links.barnacles]
profile = "webex"
token-file = "barnacles.token"
proxy = "http://ada:hush@proxy:3128"
service = "bot"
restart-after = 3
[links.larry]
profile = "socketio"
url = "https://chat.example.com/bots?key=hush"
auth = { token = "{token}", more = "hush" }
token-env = "LARRY"
deliver = { http = "app" }
[links.mo]
profile = "websocket"
url = "ws://127.0.0.1:1/"
headers = { Authorization = "hush" }
hello = "hush"
deliver = { namespace = "/mo" }
http = { idle-max = "2s" }
[namespaces."/mo"]
handler = "link"
[backends.app]
url = "http://127.0.0.1:5000/"
[services.bot]
command = ["bot"]
link = "barnacles"
"#;

    #[test]
    fn links_are_what_their_tables_say_and_their_secrets_are_not_shown() {
        let config = config(LINKS, Overrides::default());
        assert_eq!((config.links.listen.port(), config.links.waiting_max), (9002, 7));
        assert!(config.links.listens());
        let [(_, barnacles), (_, larry), (_, mo)] = &config.links.all.0[..] else { panic!() };
        assert_eq!(
            barnacles.token_file.as_deref(),
            Some(Path::new("/etc/bowline/barnacles.token"))
        );
        assert_eq!(barnacles.deliver, Deliver::Proxy);
        assert!(barnacles.has_probe() && !larry.has_probe() && larry.says_token());
        assert_eq!(larry.deliver, Deliver::Http("app".to_owned()));
        assert_eq!(mo.http.idle_max.as_secs(), 2);
        assert_eq!(config.services.0[0].1.link.as_deref(), Some("barnacles"));

        let examined = read::examine(Some(file(LINKS)), Overrides::default()).unwrap();
        let shown =
            explain::show(&examined, None) + &explain::show_json(&examined, None).to_string();
        assert!(!shown.contains("hush") && !format!("{config:?}").contains("hush"), "{shown}");
        assert_eq!(mistakes(&explain::show(&examined, None)), [""; 0]);
        assert!(explain::explain("links.listen", &examined, None).is_ok());
        let text = explain::explain("links.barnacles.profile", &examined, None).unwrap();
        assert!(text.contains("links.*.profile"), "{text}");
    }

    #[test]
    fn a_link_without_pings_needs_something_else_that_proves_it() {
        let of = |more: &str| {
            mistakes(&format!(
                "[links.a]\nprofile = \"websocket\"\nurl = \"ws://a\"\nping-interval = \"0s\"\n{more}\n"
            ))
        };
        assert_eq!(of("probe = \"echo {nonce}\""), [""; 0]);
        assert_eq!(
            of("look-interval = \"2m\""),
            [
                "4: `links.\"a\".ping-interval` switches pings off, and there is no `probe`: nothing would tell that the connection is dead",
                "5: `links.\"a\".look-interval` is nothing for the profile \"websocket\"",
            ]
        );
    }

    #[test]
    fn links_that_contradict_themselves_or_others_are_refused() {
        let text = r#"
[links]
listen = "0.0.0.0:8002"
lissen = "127.0.0.1:1"
[links.a]
profile = "websocket"
url = "https://chat.example.com"
hello = "{token}"
probe = "ping"
eio = 3
deliver = { http = "ap" }
[links.b]
profile = "websocket"
url = "wss://chat.example.com"
probe-interval = "1m"
restart-after = 3
service = "bott"
deliver = { namespace = "/" }
[links.c]
profile = "webex"
token-file = "t"
token-env = "T"
[links.d]
profile = "webex"
token-file = "t"
deliver = { namespace = "/nowhere" }
intercept = ["a"]
[links.trace]
profile = "socketio"
[links.e]
profile = "webbex"
url = "http://hush@a"
eio = 3
recovery = true
backoff = { first = "2m" }
[namespaces."/"]
handler = "echo"
[namespaces."/x"]
handler = "link"
[backends.app]
url = "http://127.0.0.1:5000/"
[services.bot]
command = ["bot"]
link = "b"
"#;
        assert_eq!(
            mistakes(text),
            [
                "3: `links.listen` is \"0.0.0.0:8002\"; write an address of this machine alone, such as \"127.0.0.1:8002\"",
                "4: unknown key `links.lissen`; did you mean `listen`?",
                "7: `links.\"a\".url` is no URL of a WebSocket; write one such as \"wss://chat.example.com/bots\"",
                "8: `links.\"a\".hello` has {token} in it; write `token-file` or `token-env` too",
                "9: `links.\"a\".probe` has no {nonce} in it, by which its echo is known",
                "10: `links.\"a\".eio` is nothing for the profile \"websocket\"",
                "11: `links.\"a\".deliver` names the backend \"ap\", which is not in [backends]; did you mean \"app\"?",
                "15: `links.\"b\".probe-interval` is set, but there is no `probe`",
                "17: `links.\"b\".service` names the service \"bott\", which is not in [services]; did you mean \"bot\"?",
                "18: `links.\"b\".deliver` names the namespace /, whose handler is another; write handler = \"link\" there",
                "19: `links.\"c\"` has `token-env` and `token-file`; write one of them",
                "25: `links.\"d\".token-file` is that of `links.\"c\"`; two links with one token would drive each other out",
                "26: `links.\"d\".deliver` names the namespace /nowhere, which is not there; write [namespaces.\"/nowhere\"] with handler = \"link\"",
                "27: `links.\"d\".intercept` is for deliver = \"proxy\" alone",
                "28: `links.\"trace\"` needs another name: that of the API's trace is taken",
                "29: `links.\"trace\".profile` needs the service's `url`",
                "31: `links.\"e\".profile` is \"webbex\"; write \"websocket\" or \"socketio\" or \"webex\"; did you mean \"webex\"?",
                "32: `links.\"e\".url` is no URL; write a URL such as \"wss://chat.example.com/bots\" or \"https://chat.example.com\"",
                "35: `links.\"e\".backoff.first` is longer than `backoff.max`",
                "39: `namespaces.\"/x\".handler` is \"link\", but no link delivers there; write deliver = { namespace = \"/x\" } in its table of [links]",
                "44: `services.\"bot\".link` names \"b\", which delivers to the namespace /: only deliver = \"proxy\" has variables",
            ]
        );
    }

    #[test]
    fn namespaces_in_a_file_replace_the_default_ones() {
        let config =
            config("[namespaces.\"/room-*\"]\nhandler = \"relay\"\n", Overrides::default());
        let rule = Namespace::new(Handler::Relay);
        assert_eq!(config.namespaces.0, [("/room-*".to_owned(), rule)]);
    }

    #[test]
    fn a_namespace_says_how_it_keeps_its_clients() {
        let text = r#"
[continuity]
window = "10s"
max-bytes = "64MiB"
max-away = 7
[namespaces."/"]
stamp = "always"
on-doubt = "skip"
event-id = "/1/a~1b/~0"
session-key = "cookie:device"
handler = "echo"
"#;
        let mut read = config(text, Overrides::default());
        let continuity = &read.continuity;
        assert_eq!((continuity.window.as_secs(), continuity.max_bytes), (10, 64 << 20));
        assert_eq!(continuity.max_away, 7);
        let rule = read.namespaces.entry("/");
        assert_eq!(rule.session_key, Some(SessionKey::Cookie("device".to_owned())));
        let examined = read::examine(Some(file(text)), Overrides::default()).unwrap();
        let shown = explain::show(&examined, None);
        assert!(shown.contains("event-id = \"/1/a~1b/~0\""), "{shown}");
        assert_eq!(config(&shown, Overrides::default()), examined.config);

        let wrong = "[namespaces.\"/\"]\nstamp = \"sometimes\"\non-doubt = \"skipp\"\n\
                     event-id = \"id\"\nsession-key = \"cookie:a b\"\nhandler = \"echo\"\n";
        assert_eq!(
            mistakes(wrong),
            [
                "2: `namespaces.\"/\".stamp` is \"sometimes\"; write \"auto\" or \"always\" or \"never\"",
                "3: `namespaces.\"/\".on-doubt` is \"skipp\"; write \"repeat\" or \"skip\"; did you mean \"skip\"?",
                "4: `namespaces.\"/\".event-id` is \"id\"; write the index of an argument and keys, as in \"/0/id\"",
                "5: `namespaces.\"/\".session-key` is \"cookie:a b\"; write \"cookie:NAME\" or \"claim:NAME\"",
            ]
        );
    }

    #[test]
    fn a_claim_names_clients_only_where_they_have_tokens() {
        let claim = "[namespaces.\"/\"]\nhandler = \"echo\"\nsession-key = \"claim:device\"\n";
        assert_eq!(
            mistakes(claim),
            [
                "3: `namespaces.\"/\".session-key` is a claim, but nobody is asked for a token there; \
              write [namespaces.\"/\".auth.jwt] too"
            ]
        );
        let auth = "auth.jwt = { secret-file = \"secret\" }\n";
        assert_eq!(mistakes(&format!("{claim}{auth}")), [""; 0]);
    }

    #[test]
    fn a_namespace_may_ask_for_tokens() {
        let text = r#"
[namespaces."/"]
handler = "echo"
auth = { jwt = { secret-file = "secret", issuer = "us", audience = ["chat", "news"] } }
[namespaces."/open"]
handler = "echo"
[namespaces."/keys".auth.jwt]
jwks-url = "https://id.example.com/keys?for=us"
rooms-claim = "rooms"
leeway = "0s"
[namespaces."/keys"]
handler = "relay"
"#;
        let mut config = config(text, Overrides::default());
        assert_eq!(config.namespaces.entry("/open").jwt, None);
        let jwt = config.namespaces.entry("/").jwt.clone().unwrap();
        assert_eq!(jwt.secret_file.unwrap(), Path::new("/etc/bowline/secret"));
        assert_eq!((jwt.issuer.len(), jwt.audience.len(), jwt.leeway.as_secs()), (1, 2, 30));
        let rule = config.namespaces.entry("/keys");
        assert_eq!(rule.handler, Handler::Relay);
        let jwt = rule.jwt.clone().unwrap();
        assert_eq!(jwt.rooms_claim.as_deref(), Some("rooms"));
        assert!(jwt.leeway.is_zero() && jwt.jwks_url.is_some());

        let examined = read::examine(Some(file(text)), Overrides::default()).unwrap();
        assert_eq!(examined.origins["namespaces.\"/\".auth.jwt.issuer"], Origin::Line(4));
        let shown = explain::show(&examined, None);
        assert!(shown.contains("[namespaces.\"/keys\".auth.jwt]\njwks-url"), "{shown}");
        assert_eq!(shown.matches("[namespaces.\"/\".auth.jwt]").count(), 1, "{shown}");
        // It can be used as a file.
        assert!(mistakes(&shown).is_empty(), "{shown}");
    }

    #[test]
    fn who_asks_for_tokens_must_say_what_they_are_checked_with() {
        let one = "has one of `secret-file`, `public-key-file` and `jwks-url`, and no more";
        let auth = |auth: &str| {
            mistakes(&format!("[namespaces.\"/\"]\nhandler = \"echo\"\nauth = {auth}"))
        };
        let table = "3: `namespaces.\"/\".auth.jwt`";
        assert_eq!(auth("{ jwt = { } }"), [format!("{table} {one}")]);
        assert_eq!(auth("{ jwt = { issuer = \"us\" } }"), [format!("{table} {one}")]);
        assert_eq!(
            auth("{ jwt = { secret-file = \"a\", public-key-file = \"b\" } }"),
            [format!("{table} {one}")]
        );
        assert_eq!(
            auth("{ }"),
            ["3: `namespaces.\"/\".auth.jwt` is missing; write a table, with the keys of tokens"]
        );
        assert_eq!(
            auth("true"),
            ["3: `namespaces.\"/\".auth` is a table: write [namespaces.\"/\".auth]"]
        );
        assert_eq!(
            auth("{ jwt = { secret-file = \"a\", isuer = \"us\" } }"),
            ["3: unknown key `namespaces.\"/\".auth.jwt.isuer`; did you mean `issuer`?"]
        );
        let secret = auth("{ jwt = { jwks-url = \"https://ada:pw@example.com\" } }");
        assert!(secret.len() == 1 && !secret[0].contains("pw"), "{secret:?}");
    }

    #[test]
    fn a_namespace_needs_a_slash_and_a_handler() {
        assert_eq!(
            mistakes("[namespaces.chat]\n[namespaces.\"/x\"]\nhandler = \"eko\"\n"),
            [
                "1: `namespaces.\"chat\"` must begin with a slash; did you mean `/chat`?",
                "1: `namespaces.\"chat\".handler` is missing; write \"echo\", \"relay\", \"link\", { http = \"NAME\" } or { ai = \"MODEL\" }",
                "3: `namespaces.\"/x\".handler` is \"eko\"; write \"echo\", \"relay\", \"link\", { http = \"NAME\" } or { ai = \"MODEL\" }; did you mean \"echo\"?",
            ]
        );
    }

    #[test]
    fn durations_and_sizes_are_read_as_people_write_them() {
        let text = "[server]\ndrain = \"1m 30s\"\n[limits]\nqueued-bytes-per-session = \"1MiB\"\n\
                    [engine]\nmax-payload = \"2MB\"\n";
        let config = config(text, Overrides::default());
        assert_eq!(config.server.drain, Duration::from_secs(90));
        assert_eq!(config.limits.queued_bytes_per_session, 1 << 20);
        assert_eq!(config.engine.max_payload_bytes, 2_000_000);
    }
}
