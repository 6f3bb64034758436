//! From text to a configuration: what the file says, then what flags and variables say.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{self, Path, PathBuf},
};

use bowline_names::EnvVar;
use toml::de::DeTable;

use super::{
    Error, Examined, Mistake, Origin, Overrides, Place,
    document::{Lines, Section},
    effective::{Admin, Config, Handler, SessionKey},
    keys::{self, KEYS},
    later, links, services, suggest,
};

/// Puts all sources together.
///
/// # Errors
/// [`Error::Invalid`] with every mistake: reading never stops at one.
pub(crate) fn examine(
    file: Option<(PathBuf, String)>,
    overrides: Overrides,
) -> Result<Examined, Error> {
    let (examined, mut mistakes) = look(file.as_ref(), overrides);
    if mistakes.is_empty() {
        return Ok(examined);
    }
    mistakes.sort_by(|a, b| a.place.cmp(&b.place));
    Err(Error::Invalid { file, mistakes })
}

/// The same, where what is wrong keeps its default.
pub(crate) fn look(
    file: Option<&(PathBuf, String)>,
    overrides: Overrides,
) -> (Examined, Vec<Mistake>) {
    let mut reader = Reader::default();
    if let Some((path, text)) = file {
        reader.text(text);
        reader.anchor(path);
    }
    reader.overrides(overrides);
    reader.whole();
    let Reader { config, origins, mistakes } = reader;
    (Examined { config, origins }, mistakes)
}

#[derive(Default)]
struct Reader {
    config: Config,
    origins: BTreeMap<String, Origin>,
    mistakes: Vec<Mistake>,
}

impl Reader {
    fn text(&mut self, text: &str) {
        let lines = Lines::of(text);
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let place = Place::Line(error.span().map_or(1, |span| lines.line(span)));
            // The library says some things in several lines.
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            self.mistakes.push(Mistake { place, message });
        }
        let notation: Vec<Place> = self.mistakes.iter().map(|one| one.place.clone()).collect();

        let root = Section::root(document.get_ref(), &lines).knowing(keys::path_of);
        self.table(root, "", "");
        // What a line seems to say when it cannot be read is no mistake of its own.
        let mut at = 0;
        self.mistakes.retain(|mistake| {
            at += 1;
            at <= notation.len() || !notation.contains(&mistake.place)
        });
    }

    /// Takes a table with the path `prefix`, in which `name` stands in the place of a `*`.
    fn table(&mut self, mut section: Section<'_>, prefix: &str, name: &str) {
        let mut opened = Vec::new();
        for key in KEYS {
            let Some(rest) = key.path.strip_prefix(prefix) else { continue };
            let Some((child, _)) = rest.split_once('.') else {
                let config = &mut self.config;
                let read = |value: &_| key.set(config, name, value);
                if let Some(line) = section.value(rest, &mut self.mistakes, read) {
                    self.origins.insert(section.path(rest), Origin::Line(line));
                }
                if key.required {
                    section.require(rest, &key.words(), &mut self.mistakes);
                }
                continue;
            };
            if opened.contains(&child) {
                continue;
            }
            opened.push(child);
            match section.section(child, &mut self.mistakes) {
                Some(inner) if child == "namespaces" => self.namespaces(inner),
                Some(inner) if child == "links" => self.links(inner),
                Some(inner) if rest.split('.').nth(1) == Some("*") => {
                    self.named(inner, &format!("{prefix}{child}."));
                }
                Some(inner) => {
                    let prefix = format!("{prefix}{child}.");
                    self.guard(&prefix, &inner);
                    self.table(inner, &prefix, name);
                }
                None => {}
            }
        }
        section.finish(later::keys(prefix), &mut self.mistakes);
    }

    /// A file that has any namespace has only those.
    fn namespaces(&mut self, section: Section<'_>) {
        let rules = section.sections(&mut self.mistakes);
        if rules.is_empty() {
            let message = "`namespaces` has none; write one as [namespaces.\"/\"]".to_owned();
            self.mistakes.push(Mistake { place: Place::Line(section.line()), message });
        }
        self.config.namespaces.0.clear();
        for (name, rule) in rules {
            if !name.starts_with('/') {
                let message = format!(
                    "`namespaces.\"{name}\"` must begin with a slash; did you mean `/{name}`?"
                );
                self.mistakes.push(Mistake { place: Place::Line(rule.line()), message });
            }
            self.table(rule, "namespaces.*.", &name);
        }
    }

    /// Takes what all links share, and each of them.
    fn links(&mut self, mut section: Section<'_>) {
        let own = KEYS.iter().filter_map(|key| Some((key, key.path.strip_prefix("links.")?)));
        for (key, name) in own.filter(|(_, name)| !name.contains('.')) {
            let config = &mut self.config;
            let read = |value: &_| key.set(config, "", value);
            if let Some(line) = section.value(name, &mut self.mistakes, read) {
                self.origins.insert(section.path(name), Origin::Line(line));
            }
        }
        let links = section.named_sections(&mut self.mistakes);
        section.finish(&[], &mut self.mistakes);
        self.each(links, "links.");
    }

    /// Takes the tables of a table whose keys are names; its path ends with a dot.
    fn named(&mut self, section: Section<'_>, prefix: &str) {
        let tables = section.sections(&mut self.mistakes);
        self.each(tables, prefix);
    }

    fn each(&mut self, tables: Vec<(String, Section<'_>)>, prefix: &str) {
        for (name, table) in tables {
            let (fits, words) = names(prefix);
            if !fits(&name) {
                let path = table.path("");
                let message =
                    format!("`{}` must be called by {words} alone", path.trim_end_matches('.'));
                self.mistakes.push(Mistake { place: Place::Line(table.line()), message });
            }
            if prefix == "links." && name == "trace" {
                let place = Place::Line(table.line());
                let message =
                    "`links.\"trace\"` needs another name: that of the API's trace is taken";
                self.mistakes.push(Mistake { place, message: message.to_owned() });
            }
            let prefix = format!("{prefix}*.");
            self.guard(&prefix, &table);
            self.table(table, &prefix, &name);
        }
    }

    /// Whoever writes `auth` does not want everybody in: it must say what a token has to be. Of two
    /// places for a key none would know which one counts.
    fn guard(&mut self, prefix: &str, section: &Section<'_>) {
        if prefix == "namespaces.*.auth." {
            section.require("jwt", "a table, with the keys of tokens", &mut self.mistakes);
        }
        if prefix == "ai.providers.*." && section.has("api-key-env") && section.has("api-key-file")
        {
            let place = Place::Line(section.line());
            let table = section.path("");
            let table = table.trim_end_matches('.');
            let message =
                format!("`{table}` has `api-key-env` and `api-key-file`; write one of them");
            self.mistakes.push(Mistake { place, message });
        }
        if prefix == "links.*." && section.has("token-env") && section.has("token-file") {
            let place = Place::Line(section.line());
            let table = section.path("");
            let table = table.trim_end_matches('.');
            let message = format!("`{table}` has `token-env` and `token-file`; write one of them");
            self.mistakes.push(Mistake { place, message });
        }
        if prefix == "services.*." {
            const RUNS: [&str; 3] = ["command", "script", "module"];
            if RUNS.iter().filter(|key| section.has(key)).count() != 1 {
                let place = Place::Line(section.line());
                let table = section.path("");
                let message = format!(
                    "`{}` has one of `command`, `script` and `module`, and no more",
                    table.trim_end_matches('.')
                );
                self.mistakes.push(Mistake { place, message });
            }
        }
        if prefix == "telemetry."
            && section.has("otlp-headers-env")
            && section.has("otlp-headers-file")
        {
            let place = Place::Line(section.line());
            let message =
                "`telemetry` has `otlp-headers-env` and `otlp-headers-file`; write one of them";
            self.mistakes.push(Mistake { place, message: message.to_owned() });
        }
        if prefix == "namespaces.*.auth.jwt." {
            const KEYS: [&str; 3] = ["secret-file", "public-key-file", "jwks-url"];
            if KEYS.iter().filter(|key| section.has(key)).count() != 1 {
                let place = Place::Line(section.line());
                let table = section.path("");
                let message = format!(
                    "`{}` has one of `secret-file`, `public-key-file` and `jwks-url`, and no more",
                    table.trim_end_matches('.')
                );
                self.mistakes.push(Mistake { place, message });
            }
        }
    }

    /// Relative paths of a file are meant from where the file is, wherever the server is started.
    fn anchor(&mut self, file: &Path) {
        let file = path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let Some(base) = file.parent() else { return };
        for path in keys::files(&mut self.config) {
            *path = base.join(&*path);
        }
    }

    fn overrides(&mut self, over: Overrides) {
        let flags = over.flags;
        let listen = Some(over.listen).filter(|listen| !listen.is_empty());
        if listen.is_none() {
            self.port(over.port);
        }
        self.say(EnvVar::Listen, &flags, listen, |config, said| config.server.listen = said);
        self.say(EnvVar::StateDir, &flags, over.state_dir, |config, said| {
            config.server.state_dir = Some(said);
        });
        self.say(EnvVar::Shards, &flags, over.shards, |config, said| config.server.shards = said);
        self.say(EnvVar::AdminListen, &flags, over.admin_listen, |config, said| {
            config.admin.listen = said;
        });
        self.say(EnvVar::AdminTokenFile, &flags, over.admin_token_file, |config, said| {
            config.admin.token_file = Some(said);
        });
        self.say(EnvVar::PublicUrl, &flags, over.public_url, |config, said| {
            config.health.public_url = Some(said);
        });
        self.say(EnvVar::LogLevel, &flags, over.log_level, |config, said| config.log.level = said);
        self.say(EnvVar::LogFormat, &flags, over.log_format, |config, said| {
            config.log.format = said;
        });
    }

    /// Takes what a flag or its variable says.
    fn say<T>(
        &mut self,
        variable: EnvVar,
        flags: &[String],
        said: Option<T>,
        set: impl FnOnce(&mut Config, T),
    ) {
        let key = KEYS.iter().find(|key| key.variable == Some(variable));
        let (Some(said), Some(key)) = (said, key) else { return };
        set(&mut self.config, said);
        let flag = variable.flag().filter(|flag| flags.iter().any(|said| said == flag));
        let origin = flag.map_or(Origin::Variable(variable.name()), Origin::Flag);
        self.origins.insert(key.path.to_owned(), origin);
    }

    fn port(&mut self, port: Option<String>) {
        let Some(port) = port.filter(|port| !port.is_empty()) else { return };
        let name = EnvVar::Port.name();
        match port.parse() {
            Ok(port) => {
                self.config.server.listen = vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))];
                self.origins.insert("server.listen".to_owned(), Origin::Variable(name));
            }
            Err(_) => {
                let message = format!("\"{}\" is not a port", port.escape_debug());
                self.mistakes.push(Mistake { place: Place::Outside(name), message });
            }
        }
    }

    /// What only the whole shows.
    fn whole(&mut self) {
        let origin = self.origins.get("admin.listen").copied().unwrap_or_default();
        self.mistakes.extend(open_door(&self.config, Place::of(origin)));
        let public = self.origins.get("server.listen").copied().unwrap_or_default();
        let place = Place::of(if origin == Origin::Default { public } else { origin });
        self.mistakes.extend(one_door(&self.config, place));
        for (pattern, rule) in &self.config.namespaces.0 {
            let key = format!("namespaces.{pattern:?}.session-key");
            if matches!(rule.session_key, Some(SessionKey::Claim(_))) && rule.jwt.is_none() {
                let message = format!(
                    "`{key}` is a claim, but nobody is asked for a token there; write \
                     [namespaces.{pattern:?}.auth.jwt] too"
                );
                let place = Place::of(self.origins.get(&key).copied().unwrap_or_default());
                self.mistakes.push(Mistake { place, message });
            }
            let key = format!("namespaces.{pattern:?}.handler");
            let Config { backends, ai, .. } = &self.config;
            let missing = match &rule.handler {
                // Of those of a link is told below.
                Handler::Echo | Handler::Relay | Handler::Link => None,
                Handler::Http(wanted) => unknown("backend", wanted, "[backends]", &backends.0),
                Handler::Ai(wanted) => unknown("model", wanted, "[ai.models]", &ai.models.0),
            };
            self.mistakes.extend(missing.map(|words| self.wrong_name(&key, &words)));
            let key = format!("namespaces.{pattern:?}.ai-key");
            // Not shown: the key itself may stand there.
            let named = |name: &&String| ai.keys.0.iter().all(|(known, _)| known != *name);
            let wrong = rule.ai_key.as_ref().filter(named);
            let wrong = wrong.map(|_| "names a key that is not in [ai.keys]".to_owned());
            self.mistakes.extend(wrong.map(|words| self.wrong_name(&key, &words)));
        }
        for (name, backend) in &self.config.backends.0 {
            let services = &self.config.services.0;
            let service = backend.service.as_ref();
            let words =
                service.and_then(|wanted| unknown("service", wanted, "[services]", services));
            let key = format!("backends.{name:?}.service");
            self.mistakes.extend(words.map(|words| self.wrong_name(&key, &words)));
        }
        self.ai();
        let links = links::mistakes(&self.config, |key| self.origins.contains_key(key));
        // What a link needs may be there and not be read.
        let unread = |key: &str| {
            let table = key.strip_suffix("profile").map(|table| format!("`{table}"));
            let begins = |table: String| {
                self.mistakes.iter().any(|mistake| mistake.message.starts_with(&table))
            };
            // Nothing follows from a profile that is none.
            let of_profile = self.config.links.all.0.iter().any(|(name, _)| {
                let table = format!("links.{name:?}.");
                key.strip_prefix(&table).is_some_and(links::is_of_profile)
                    && begins(format!("`{table}profile`"))
            });
            of_profile || table.is_some_and(begins)
        };
        let links = links.into_iter().filter(|(key, _)| !unread(key));
        let links: Vec<Mistake> = links.map(|(key, words)| self.wrong_name(&key, &words)).collect();
        self.mistakes.extend(links);
        // What cannot be read is not looked at again.
        let whole = !self.mistakes.iter().any(|mistake| mistake.message.starts_with("`services."));
        let services = services::mistakes(&self.config, whole);
        let services = services.into_iter().map(|(key, words)| self.wrong_name(&key, &words));
        let services: Vec<Mistake> = services.collect();
        self.mistakes.extend(services);
    }

    /// What refers to something else in `[ai]`, and does not find it.
    fn ai(&mut self) {
        let ai = &self.config.ai;
        let mut wrong = Vec::new();
        for (name, model) in &ai.models.0 {
            let key = format!("ai.models.{name:?}.try");
            for target in &model.chain {
                let words =
                    unknown("provider", &target.provider, "[ai.providers]", &ai.providers.0);
                wrong.extend(words.map(|words| self.wrong_name(&key, &words)));
            }
        }
        for (at, (name, client)) in ai.keys.0.iter().enumerate() {
            let key = format!("ai.keys.{name:?}.limits.models");
            for model in client.limits.models.iter().flatten() {
                let words = unknown("model", model, "[ai.models]", &ai.models.0);
                wrong.extend(words.map(|words| self.wrong_name(&key, &words)));
            }
            let same = ai.keys.0[..at].iter().find(|(_, other)| other.sha256 == client.sha256);
            // One that could not be read is a mistake already.
            if let Some((other, _)) = same.filter(|_| client.sha256 != Default::default()) {
                let key = format!("ai.keys.{name:?}.sha256");
                wrong.push(self.wrong_name(&key, &format!("is that of `ai.keys.{other:?}`")));
            }
        }
        self.mistakes.extend(wrong);
    }

    fn wrong_name(&self, key: &str, words: &str) -> Mistake {
        // Of a table as a whole: where the first of its keys stands.
        let inside = format!("{key}.");
        let first = || {
            let below = self.origins.range(inside.clone()..);
            let below = below.take_while(|(path, _)| path.starts_with(&inside));
            below.map(|(_, origin)| *origin).min_by_key(|origin| Place::of(*origin))
        };
        let origin = self.origins.get(key).copied().or_else(first);
        let place = Place::of(origin.unwrap_or_default());
        Mistake { place, message: format!("`{key}` {words}") }
    }
}

/// What the tables of a table may be called, and how one says that.
fn names(prefix: &str) -> (fn(&str) -> bool, &'static str) {
    // Models are called as clients ask for them. All of them are labels of metrics.
    fn model(name: &str) -> bool {
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
        !name.is_empty() && name.len() <= 128 && name.chars().all(plain)
    }
    fn word(name: &str) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        !name.is_empty() && name.len() <= 64 && name.chars().all(plain)
    }
    match prefix {
        "ai.models." => (model, "letters, digits and signs of ASCII"),
        _ => (word, "letters, digits, `-` and `_`"),
    }
}

/// What is said of a name that nothing has.
pub(super) fn unknown<E>(
    what: &str,
    wanted: &str,
    table: &str,
    all: &[(String, E)],
) -> Option<String> {
    let names = || all.iter().map(|(name, _)| name.as_str());
    if names().any(|name| name == wanted) {
        return None;
    }
    let mut words = format!("names the {what} \"{wanted}\", which is not in {table}");
    if let Some(nearest) = suggest::nearest(wanted, names()) {
        words.push_str(&format!("; did you mean \"{nearest}\"?"));
    }
    Some(words)
}

/// Complains if both doors are at one address: the second could not be opened.
fn one_door(config: &Config, place: Place) -> Option<Mistake> {
    let admin = config.admin.listen;
    let clash = |public: &&SocketAddr| {
        let (one, other) = (public.ip(), admin.ip());
        // An address for all takes the port of every other.
        let all =
            one.is_ipv4() == other.is_ipv4() && (one.is_unspecified() || other.is_unspecified());
        public.port() == admin.port() && admin.port() != 0 && (one == other || all)
    };
    let public = config.server.listen.iter().find(clash)?;
    let message = format!(
        "`admin.listen` is {admin} and `server.listen` is {public}: clients and operators cannot \
         share a port; give one of them another"
    );
    Some(Mistake { place, message })
}

/// Complains if strangers can reach the admin listener.
pub(crate) fn open_door(config: &Config, place: Place) -> Option<Mistake> {
    let Admin { listen, token_file } = &config.admin;
    let open = !listen.ip().is_loopback() && token_file.is_none();
    open.then(|| Mistake {
        place,
        message: format!(
            "`admin.listen` is {listen}, which others can reach; off loopback it needs \
             `admin.token-file`, a file with a token that operators show"
        ),
    })
}
