//! `[services]`: the processes that the master looks after, as they were written.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use bowline_fleet::spec::{
    Backoff, CrashLoop, Interpreter, Limits, Listen, Logs, Match, Need, OnOrphan, Probe, Recycle,
    Restart, Stop, Which,
};

use super::{
    effective::{Backend, Config},
    read::unknown,
};
use crate::services::settings;

/// One table of `[services]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// A program with its arguments. One of this, `script` and `module` is set.
    pub(crate) command: Option<Vec<String>>,
    /// A file that an interpreter runs.
    pub(crate) script: Option<PathBuf>,
    /// A module that Python runs.
    pub(crate) module: Option<String>,
    /// What comes behind it.
    pub(crate) args: Vec<String>,
    /// Which Python runs it.
    pub(crate) python: Option<Which>,
    /// Which Node runs it.
    pub(crate) node: Option<Which>,
    /// Where it runs; `None` is where the configuration file is.
    pub(crate) directory: Option<PathBuf>,
    /// Variables that it gets beside those of the server.
    pub(crate) environment: Variables,
    /// Files with more of them, a `NAME=value` a line.
    pub(crate) environment_files: Vec<PathBuf>,
    /// Whom it runs as: `user` or `user:group`.
    pub(crate) user: Option<String>,
    /// What must be there before it is started.
    pub(crate) needs: Vec<Need>,
    /// Addresses that the master binds for it.
    pub(crate) listen: Vec<Listen>,
    /// Asked until it holds, before anything else is.
    pub(crate) startup: Vec<Probe>,
    /// What it takes to be ready.
    pub(crate) ready: Vec<Probe>,
    /// When this fails it is started again.
    pub(crate) live: Vec<Probe>,
    /// How many of a list of probes must hold.
    pub(crate) matching: Match,
    /// After which ends it is started again.
    pub(crate) restart: Restart,
    pub(crate) backoff: Backoff,
    pub(crate) crash_loop: CrashLoop,
    /// How long it may take to be ready before that is told as a fault; progress prolongs it.
    pub(crate) start_deadline: Duration,
    /// The same, but then it is killed and started again. `None`: it never is.
    pub(crate) startup_timeout: Option<Duration>,
    pub(crate) stop: Stop,
    pub(crate) limits: Limits,
    pub(crate) recycle: Recycle,
    /// Whether a restart starts the new one before the old one stops.
    pub(crate) overlap: bool,
    pub(crate) logs: Logs,
    /// What becomes of one that a server has left that died.
    pub(crate) on_orphan: OnOrphan,
    /// Whether `/health/ready` waits for it.
    pub(crate) required: bool,
    /// The link whose variables it gets.
    pub(crate) link: Option<String>,
}

/// Variables of an environment, whose values nobody is shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Variables(pub(crate) BTreeMap<String, String>);

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Default for Service {
    /// What is run is demanded, so that nothing ever is of this one.
    fn default() -> Self {
        Self {
            command: None,
            script: None,
            module: None,
            args: Vec::new(),
            python: None,
            node: None,
            directory: None,
            environment: Variables::default(),
            environment_files: Vec::new(),
            user: None,
            needs: Vec::new(),
            listen: Vec::new(),
            startup: Vec::new(),
            ready: Vec::new(),
            live: Vec::new(),
            matching: Match::All,
            restart: Restart::Always,
            backoff: Backoff::default(),
            crash_loop: CrashLoop::default(),
            start_deadline: Duration::from_secs(300),
            startup_timeout: None,
            stop: Stop::default(),
            limits: Limits::default(),
            recycle: Recycle::default(),
            overlap: false,
            logs: Logs::default(),
            on_orphan: OnOrphan::Adopt,
            required: false,
            link: None,
        }
    }
}

impl Service {
    /// What runs it: what is said, or what the name of its script says. `None` if that is unknown.
    pub(crate) fn language(&self) -> Option<Interpreter> {
        if let Some(python) = &self.python {
            return Some(Interpreter::Python(python.clone()));
        }
        if let Some(node) = &self.node {
            return Some(Interpreter::Node(node.clone()));
        }
        if self.module.is_some() {
            return Some(Interpreter::Python(Which::Auto));
        }
        let Some(script) = &self.script else { return Some(Interpreter::None) };
        match script.extension().and_then(|extension| extension.to_str()) {
            Some("py" | "pyw" | "pyz") => Some(Interpreter::Python(Which::Auto)),
            Some("js" | "mjs" | "cjs") => Some(Interpreter::Node(Which::Auto)),
            _ => None,
        }
    }
}

/// What is wrong with what services say of each other and of themselves, as the whole path of a key
/// and what goes on after it. `whole` is whether all of it could be read: then the rest of what makes a service
/// impossible is told too.
pub(super) fn mistakes(config: &Config, whole: bool) -> Vec<(String, String)> {
    let services = &config.services.0;
    let mut mistakes = Vec::new();
    for (at, (name, service)) in services.iter().enumerate() {
        let mut say = |key: &str, words: String| {
            mistakes.push((format!("services.{name:?}.{key}"), words));
        };
        for need in &service.needs {
            if let Some(words) = unknown("service", &need.service, "[services]", services) {
                say("needs", words);
            }
        }
        if let Some(cycle) = cycle(at, services) {
            say("needs", format!("goes round in a circle: {}", cycle.join(" → ")));
        }
        if service.python.is_some() && service.node.is_some() {
            say("node", "stands beside `python`; write one of them".to_owned());
        }
        if service.module.is_some() && service.node.is_some() {
            say("node", "cannot run a `module`, which is Python's".to_owned());
        }
        if service.language().is_none() {
            let words = "does not say by its name what runs it; write `python` or `node` too, or a \
                         `command`";
            say("script", words.to_owned());
        }
        let counted = |(_, backend): &(String, Backend)| backend.service.as_ref() == Some(name);
        if service.recycle.requests.is_some() && !config.backends.0.iter().any(counted) {
            let words = format!(
                "is set, but nobody counts its requests: write service = {name:?} in its table of [backends]"
            );
            say("recycle.requests", words);
        }
        if service.overlap && service.listen.is_empty() {
            let words = "is true, but of two that run at once only one could listen; write `listen`, so \
                         that the server hands its addresses to both";
            say("overlap", words.to_owned());
        }
        if service.backoff.first > service.backoff.max {
            say("backoff.first", "is longer than `backoff.max`".to_owned());
        }
        for listen in &service.listen {
            if let Some(other) = also_listens(listen, at, config) {
                say("listen", format!("has {}, which {other} has too", listen));
            }
        }
    }
    if whole && mistakes.is_empty() {
        let found = bowline_fleet::spec::check(&settings::specs(config, None));
        mistakes.extend(found.into_iter().map(|mistake| {
            let key = mistake.key.strip_prefix("probes.").unwrap_or(mistake.key);
            let key = match key {
                "overdue" => ".start-deadline".to_owned(),
                "" => String::new(),
                key => format!(".{key}"),
            };
            (format!("services.{:?}{key}", mistake.service), format!("is wrong: {}", mistake.words))
        }));
    }
    mistakes
}

/// The services along a circle of needs that begins here and of which this is the first in the file.
fn cycle(from: usize, services: &[(String, Service)]) -> Option<Vec<&str>> {
    let place = |name: &str| services.iter().position(|(known, _)| known == name);
    // The way that was gone, and which need of each comes next.
    let mut way = vec![(from, 0)];
    let mut seen = vec![false; services.len()];
    while let Some((at, next)) = way.last_mut() {
        let Some(need) = services[*at].1.needs.get(*next) else {
            way.pop();
            continue;
        };
        *next += 1;
        match place(&need.service) {
            Some(first) if first == from => {
                let names = way.iter().map(|(at, _)| services[*at].0.as_str());
                return Some(names.chain([services[from].0.as_str()]).collect());
            }
            // One that stands before was told of there.
            Some(other) if other > from && !seen[other] => {
                seen[other] = true;
                way.push((other, 0));
            }
            _ => {}
        }
    }
    None
}

/// Who else listens at this address: the server itself, or a service before this one.
fn also_listens(listen: &Listen, at: usize, config: &Config) -> Option<String> {
    if let Listen::Tcp(address) = listen
        && address.port() != 0
    {
        if config.server.listen.contains(address) {
            return Some("`server.listen`".to_owned());
        }
        if config.admin.listen == *address {
            return Some("`admin.listen`".to_owned());
        }
    }
    let any = matches!(listen, Listen::Tcp(address) if address.port() == 0);
    let before = config.services.0[..at].iter().find(|(_, other)| other.listen.contains(listen));
    before.filter(|_| !any).map(|(name, _)| format!("`services.{name:?}`"))
}
