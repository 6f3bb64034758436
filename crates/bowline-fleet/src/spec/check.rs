//! What is wrong with services that somebody wrote.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    time::Duration,
};

use super::{Check, Interpreter, Listen, Phase, Probe, Restart, Run, Service, Until};
use crate::limit;

/// The longest name of a service: it becomes part of file names and labels.
const NAME_BYTES_MAX: usize = 64;

/// The largest regular expression, compiled: as much as the crate allows by itself, and a tenth of it is much.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// What is wrong with a service, for whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The service.
    pub service: String,
    /// The key it is about, as in `[services.NAME]`, from there: `needs`, `probes.ready`. Empty: the service itself.
    pub key: &'static str,
    /// What is wrong and what to do, one sentence without a full stop.
    pub words: String,
}

/// Returns everything that is wrong with these services, in their order.
pub fn check(services: &[Service]) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for (index, service) in services.iter().enumerate() {
        let mut found = Found { service, mistakes: &mut mistakes };
        if services[..index].iter().any(|other| other.name == service.name) {
            found.add("", "there is another service of this name".to_owned());
        }
        found.name();
        found.run();
        found.environment();
        found.needs(services);
        found.listen(&services[..index]);
        for phase in Phase::ALL {
            found.probes(phase);
        }
        found.times();
        found.numbers();
    }
    cycles(services, &mut mistakes);
    mistakes
}

/// The mistakes of one service.
struct Found<'a> {
    service: &'a Service,
    mistakes: &'a mut Vec<Mistake>,
}

impl Found<'_> {
    fn add(&mut self, key: &'static str, words: String) {
        self.mistakes.push(Mistake { service: self.service.name.clone(), key, words });
    }

    fn name(&mut self) {
        let name = &self.service.name;
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
        if !first || !name.chars().all(known) || name.len() > NAME_BYTES_MAX {
            let words = format!(
                "a name is at most {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`, and begins with a letter or a digit"
            );
            self.add("", words);
        }
    }

    fn run(&mut self) {
        let none = self.service.interpreter == Interpreter::None;
        match &self.service.run {
            Run::Command(words) => {
                if words.first().is_none_or(|program| program.is_empty()) {
                    self.add("command", "is empty: it begins with a program".to_owned());
                }
                self.no_nul("command", words);
            }
            Run::Script { path, args } => {
                if path.as_os_str().is_empty() {
                    self.add("script", "is empty".to_owned());
                } else if none {
                    let words = "needs an interpreter; what runs by itself is a `command`";
                    self.add("script", words.to_owned());
                }
                self.no_nul("args", args);
            }
            Run::Module { name, args } => {
                let part = |part: &str| {
                    !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_')
                };
                if !name.split('.').all(part) {
                    let words = format!("`{name}` is not the dotted name of a module");
                    self.add("module", words);
                } else if !matches!(self.service.interpreter, Interpreter::Python(_)) {
                    self.add("module", "is Python's: it needs `python`".to_owned());
                }
                self.no_nul("args", args);
            }
        }
    }

    fn no_nul(&mut self, key: &'static str, words: &[OsString]) {
        if words.iter().any(|word| has_nul(word)) {
            self.add(key, "contains a zero byte, which no program can be given".to_owned());
        }
    }

    fn environment(&mut self) {
        let service = self.service;
        for (name, value) in &service.environment {
            let bytes = name.as_encoded_bytes();
            let shown = name.display();
            if bytes.is_empty() || bytes.contains(&b'=') || has_nul(name) {
                self.add("environment", format!("`{shown}` is not the name of a variable"));
            } else if has_nul(value) {
                self.add("environment", format!("the value of `{shown}` contains a zero byte"));
            } else if is_ours(bytes) {
                self.add("environment", format!("`{shown}` is set by Bowline itself"));
            }
        }
        if let Some(user) = &service.user
            && (user.user.is_empty() || user.group.as_ref().is_some_and(String::is_empty))
        {
            self.add("user", "is empty: a name or a number".to_owned());
        }
    }

    fn needs(&mut self, services: &[Service]) {
        let service = self.service;
        for (index, need) in service.needs.iter().enumerate() {
            let name = &need.service;
            if service.needs[..index].iter().any(|other| other.service == *name) {
                self.add("needs", format!("names `{name}` twice"));
            }
            let Some(needed) = services.iter().find(|other| other.name == *name) else {
                let words = match nearest(name, services) {
                    Some(nearest) => format!("there is no service `{name}`; is it `{nearest}`?"),
                    None => format!("there is no service `{name}`"),
                };
                self.add("needs", words);
                continue;
            };
            if need.until == Until::Completed && needed.restart == Restart::Always {
                let words = format!(
                    "`{name}` never completes: give it `restart = \"on-failure\"` or \"never\""
                );
                self.add("needs", words);
            }
        }
    }

    fn listen(&mut self, before: &[Service]) {
        let service = self.service;
        for (index, address) in service.listen.iter().enumerate() {
            if service.listen[..index].contains(address) {
                self.add("listen", format!("names {address} twice"));
            }
            // Port 0 is another one each time.
            if matches!(address, Listen::Tcp(address) if address.port() == 0) {
                continue;
            }
            if let Some(other) = before.iter().find(|other| other.listen.contains(address)) {
                self.add("listen", format!("{address} is taken by service `{}`", other.name));
            }
        }
        if service.overlap && service.listen.is_empty() {
            let words = "needs `listen`: two processes side by side cannot both bind an address, they inherit it";
            self.add("overlap", words.to_owned());
        }
    }

    fn probes(&mut self, phase: Phase) {
        let key = match phase {
            Phase::Startup => "probes.startup",
            Phase::Ready => "probes.ready",
            Phase::Live => "probes.live",
        };
        for probe in &self.service.probes.of(phase).probes {
            for words in wrong(phase, probe) {
                self.add(key, format!("{}: {words}", probe.check));
            }
        }
    }

    fn times(&mut self) {
        let service = self.service;
        let (backoff, crash_loop) = (service.backoff, service.crash_loop);
        if backoff.first > backoff.max {
            self.add("backoff", "`first` is longer than `max`".to_owned());
        }
        let positive = [
            ("backoff", "first", backoff.first),
            ("backoff", "reset", backoff.reset),
            ("crash-loop", "within", crash_loop.within),
            ("overdue", "the time", service.overdue),
            ("startup-timeout", "the time", service.startup_timeout.unwrap_or(Duration::MAX)),
        ];
        for (key, what, time) in positive {
            if time.is_zero() {
                self.add(key, format!("{what} is zero"));
            }
        }
        if crash_loop.retry < limit::RETRY_AT_LEAST {
            let words = format!("`retry` is less than {:?}", limit::RETRY_AT_LEAST);
            self.add("crash-loop", words);
        }
        if service.recycle.age.is_some_and(|age| age < limit::RECYCLE_AT_LEAST) {
            let words = format!("`age` is less than {:?}", limit::RECYCLE_AT_LEAST);
            self.add("recycle", words);
        }
    }

    fn numbers(&mut self) {
        let service = self.service;
        if service.crash_loop.deaths == 0 || service.crash_loop.deaths > limit::DEATHS_MAX {
            self.add("crash-loop", format!("`deaths` is from 1 to {}", limit::DEATHS_MAX));
        }
        let recycle = service.recycle;
        if recycle.requests == Some(0) || recycle.memory == Some(0) {
            self.add("recycle", "a limit is zero".to_owned());
        }
        if service.limits.open_files.is_some_and(|files| files < limit::OPEN_FILES_AT_LEAST) {
            let words = format!("`open-files` is less than {}", limit::OPEN_FILES_AT_LEAST);
            self.add("limits", words);
        }
        if service.logs.files == 0 || service.logs.max_bytes < limit::LOG_AT_LEAST_BYTES {
            let least = limit::LOG_AT_LEAST_BYTES;
            self.add("logs", format!("there is at least one file, of at least {least} bytes"));
        }
    }
}

/// What is wrong with one check.
fn wrong(phase: Phase, probe: &Probe) -> Vec<String> {
    let mut words = Vec::new();
    let mut add = |what: &str| words.push(what.to_owned());
    if probe.every < limit::CHECK_EVERY_AT_LEAST {
        add(&format!("`every` is less than {:?}", limit::CHECK_EVERY_AT_LEAST));
    }
    if probe.timeout.is_zero() {
        add("`timeout` is zero");
    }
    if probe.failures == 0 || probe.successes == 0 {
        add("`failures` and `successes` are at least 1");
    }
    match &probe.check {
        Check::Tcp(_) | Check::Notify => {}
        Check::Http { url, status, .. } => {
            if let Some(what) = wrong_url(url, &["http", "https"]) {
                add(&what);
            }
            if status.is_some_and(|status| !(100..=599).contains(&status)) {
                add("`status` is from 100 to 599");
            }
        }
        Check::WebSocket { url } => {
            if let Some(what) = wrong_url(url, &["ws", "wss"]) {
                add(&what);
            }
        }
        Check::SocketIo { url, namespace, auth } => {
            if let Some(what) = wrong_url(url, &["http", "https"]) {
                add(&what);
            }
            if !namespace.starts_with('/') || namespace.contains(',') {
                add("`namespace` begins with `/` and has no comma");
            }
            let json = |auth: &String| serde_json::from_str::<serde_json::Value>(auth).is_ok();
            if !auth.as_ref().is_none_or(json) {
                add("`auth` is not JSON");
            }
        }
        Check::Log(_) if phase == Phase::Live => {
            add("a line says that something has happened, not that it still lives");
        }
        Check::Log(pattern) => {
            let regex = regex::RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build();
            if let Err(error) = regex {
                let error = error.to_string();
                let last = error.lines().last().unwrap_or_default();
                add(last.trim_start_matches("error: "));
            }
        }
        Check::Exec(command) => {
            if command.first().is_none_or(|program| program.is_empty()) {
                add("is empty: it begins with a program");
            }
            if command.iter().any(|word| has_nul(word)) {
                add("contains a zero byte");
            }
        }
    }
    words
}

fn wrong_url(url: &str, schemes: &[&str]) -> Option<String> {
    let expected = || format!("a URL that begins with {}://", schemes.join(":// or "));
    let Some((scheme, rest)) = url.split_once("://") else { return Some(expected()) };
    if !schemes.contains(&scheme) {
        return Some(expected());
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let bad = |c: char| c.is_whitespace() || c.is_control();
    if host.is_empty() || host.starts_with(':') || rest.chars().any(bad) {
        return Some("the URL names no host".to_owned());
    }
    None
}

/// Each cycle of needs, at the first of its services.
fn cycles(services: &[Service], mistakes: &mut Vec<Mistake>) {
    let by_name: BTreeMap<&str, &Service> =
        services.iter().map(|service| (&*service.name, service)).collect();
    let mut done = BTreeSet::new();
    for service in services {
        let mut path = Vec::new();
        if let Some(cycle) = cycle(&service.name, &by_name, &mut path, &mut done) {
            let words = format!("a cycle: {}", cycle.join(" → "));
            mistakes.push(Mistake { service: service.name.clone(), key: "needs", words });
        }
    }
}

/// Follows the needs of a service until one of them comes again. What was followed once is `done`.
fn cycle<'a>(
    name: &'a str,
    services: &BTreeMap<&'a str, &'a Service>,
    path: &mut Vec<&'a str>,
    done: &mut BTreeSet<&'a str>,
) -> Option<Vec<&'a str>> {
    if let Some(first) = path.iter().position(|before| *before == name) {
        let mut cycle = path[first..].to_vec();
        cycle.push(name);
        return Some(cycle);
    }
    if !done.insert(name) {
        return None;
    }
    path.push(name);
    let mut found = None;
    for need in services.get(name).map(|service| &*service.needs).unwrap_or_default() {
        found = found.or_else(|| cycle(&need.service, services, path, done));
    }
    path.pop();
    found
}

/// The service whose name is like this one.
fn nearest<'a>(name: &str, services: &'a [Service]) -> Option<&'a str> {
    let names = services.iter().map(|service| &*service.name);
    let nearest = names.min_by_key(|other| distance(name, other))?;
    (distance(name, nearest) * 3 <= name.len()).then_some(nearest)
}

/// How many bytes must be changed, added or taken away to make one of the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Whether Bowline gives this variable its value.
fn is_ours(name: &[u8]) -> bool {
    let names: [&[u8]; 6] = [
        b"NOTIFY_SOCKET",
        b"WATCHDOG_USEC",
        b"WATCHDOG_PID",
        b"BOWLINE_SERVICE",
        b"BOWLINE_SERVICE_ID",
        b"BOWLINE_SERVICE_VARIANT",
    ];
    names.contains(&name) || name.starts_with(b"LISTEN_FD") || name == b"LISTEN_PID"
}

fn has_nul(word: &OsStr) -> bool {
    word.as_encoded_bytes().contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{CrashLoop, Limits, Logs, Need, Which};

    #[test]
    fn what_is_right_is_not_complained_about() {
        let mut web = plain("web-1.a");
        web.needs = vec![need("db"), Need { until: Until::Completed, ..need("job") }];
        web.listen = vec![address("127.0.0.1:80"), Listen::Unix("/run/web".into())];
        web.overlap = true;
        let checks = [
            Check::Tcp(address("[::1]:80")),
            Check::Http { url: "https://a/health?x".into(), status: Some(204), contains: None },
            Check::WebSocket { url: "ws://127.0.0.1:80".into() },
            socketio("http://[::1]:80", "/", Some("{\"token\":1}")),
            Check::Log("ready in [0-9]+ ms".into()),
            Check::Exec(vec!["true".into()]),
            Check::Notify,
        ];
        web.probes.ready.probes = checks.map(|check| Probe::new(Phase::Ready, check)).into();
        let job = Service { restart: Restart::OnFailure, ..plain("job") };
        let python = Interpreter::Python(Which::Auto);
        let run = Run::Module { name: "uvicorn".into(), args: vec!["app:app".into()] };
        let db = Service { run, interpreter: python, ..plain("db") };
        assert_eq!(check(&[web, job, db]), []);
    }

    #[test]
    fn cycles_are_shown_once() {
        let with = |name, needs: &[&str]| {
            let needs = needs.iter().map(|name| need(name)).collect();
            Service { needs, ..plain(name) }
        };
        let services = [
            with("web", &["api"]),
            with("api", &["db", "cache"]),
            with("db", &["api"]),
            with("cache", &[]),
            with("own", &["own"]),
        ];
        let found = check(&services);
        let expected = [("web", "a cycle: api → db → api"), ("own", "a cycle: own → own")];
        let found: Vec<_> = found.iter().map(|it| (&*it.service, &*it.words)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn each_mistake_is_named_with_its_key() {
        type Spoil = fn(&mut Service);
        let cases: [(Spoil, &str, &str); 31] = [
            (|it| it.name = "a/b".into(), "", "a name is"),
            (|it| it.name = "-a".into(), "", "begins with"),
            (|it| it.name = "other".into(), "", "another service"),
            (|it| it.run = Run::Command(vec![]), "command", "is empty"),
            (|it| it.run = Run::Command(vec!["a\0".into()]), "command", "zero byte"),
            (|it| it.run = Run::Script { path: "a.py".into(), args: vec![] }, "script", "needs an"),
            (|it| it.run = Run::Module { name: "a".into(), args: vec![] }, "module", "`python`"),
            (|it| it.run = Run::Module { name: "a..b".into(), args: vec![] }, "module", "dotted"),
            (|it| set(it, "A=B", ""), "environment", "not the name"),
            (|it| set(it, "LISTEN_FDS", "1"), "environment", "by Bowline itself"),
            (|it| it.needs = vec![need("othr")], "needs", "is it `other`?"),
            (|it| it.needs = vec![need("zzz")], "needs", "no service `zzz`"),
            (|it| it.needs = vec![need("other"), need("other")], "needs", "twice"),
            (
                |it| it.needs = vec![Need { until: Until::Completed, ..need("other") }],
                "needs",
                "never completes",
            ),
            (|it| it.listen = vec![address("127.0.0.1:1")], "listen", "taken by service `other`"),
            (|it| it.overlap = true, "overlap", "needs `listen`"),
            (|it| probe(it, Phase::Live, Check::Log("a".into())), "probes.live", "a line says"),
            (|it| probe(it, Phase::Ready, Check::Log("a(".into())), "probes.ready", "unclosed"),
            (|it| probe(it, Phase::Ready, Check::Exec(vec![])), "probes.ready", "is empty"),
            (|it| probe(it, Phase::Startup, http("ftp://a")), "probes.startup", "http:// or"),
            (|it| probe(it, Phase::Ready, http("http:///a")), "probes.ready", "no host"),
            (
                |it| probe(it, Phase::Ready, socketio("http://a", "x", None)),
                "probes.ready",
                "begins with `/`",
            ),
            (
                |it| probe(it, Phase::Ready, socketio("http://a", "/", Some("{"))),
                "probes.ready",
                "not JSON",
            ),
            (|it| it.backoff.first = Duration::from_secs(60), "backoff", "longer than `max`"),
            (|it| it.overdue = Duration::ZERO, "overdue", "zero"),
            (|it| it.startup_timeout = Some(Duration::ZERO), "startup-timeout", "zero"),
            (|it| it.crash_loop = CrashLoop { deaths: 0, ..it.crash_loop }, "crash-loop", "deaths"),
            (|it| it.crash_loop.retry = Duration::ZERO, "crash-loop", "retry"),
            (|it| it.recycle.age = Some(Duration::from_secs(1)), "recycle", "age"),
            (|it| it.limits = Limits { open_files: Some(1), ..it.limits }, "limits", "open-files"),
            (|it| it.logs = Logs { files: 0, ..it.logs }, "logs", "at least one file"),
        ];
        for (spoil, key, words) in cases {
            let other = Service { listen: vec![address("127.0.0.1:1")], ..plain("other") };
            let mut service = plain("web");
            spoil(&mut service);
            let found = check(&[other, service]);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].key, key, "{found:?}");
            assert!(found[0].words.contains(words), "{found:?}");
        }
    }

    fn plain(name: &str) -> Service {
        Service::new(name, Run::Command(vec!["true".into()]))
    }

    fn need(service: &str) -> Need {
        Need { service: service.into(), until: Until::Ready }
    }

    fn address(address: &str) -> Listen {
        Listen::Tcp(address.parse().unwrap())
    }

    fn http(url: &str) -> Check {
        Check::Http { url: url.into(), status: None, contains: None }
    }

    fn socketio(url: &str, namespace: &str, auth: Option<&str>) -> Check {
        let auth = auth.map(str::to_owned);
        Check::SocketIo { url: url.into(), namespace: namespace.into(), auth }
    }

    fn set(service: &mut Service, name: &str, value: &str) {
        service.environment.insert(name.into(), value.into());
    }

    fn probe(service: &mut Service, phase: Phase, check: Check) {
        let checks = match phase {
            Phase::Startup => &mut service.probes.startup,
            Phase::Ready => &mut service.probes.ready,
            Phase::Live => &mut service.probes.live,
        };
        checks.probes.push(Probe::new(phase, check));
    }
}
