//! Who gets into a namespace: tokens, the keys they are checked with, and how many connections one
//! subject may have.
//!
//! [`Auth`] is kept over reloads: fetched key sets, and who is in. It makes a [`Guard`] for each
//! namespace that has `auth.jwt`; `jwt` decides, `jwks` fetches.

mod crypto;
mod guard;
mod jwks;
mod jwt;
mod keys;
mod limit;
mod subjects;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bowline_names::{ErrorCode, Metric};
use bowline_net::Handler;
use tokio::{runtime, task::JoinSet};

use self::{
    guard::Source,
    jwks::{KeySet, Pauses},
    jwt::Rules,
    subjects::Subjects,
};
use crate::{
    clock::Clock,
    config::{Jwt, Namespaces, Url},
    failure::Failure,
};

pub(crate) use self::guard::Guard;
use self::keys::Keys;

/// What the guards of a gateway share.
pub(crate) struct Auth {
    shared: Arc<Shared>,
    clock: Clock,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    lenient: bool,
    /// The server, once it is bound.
    server: Option<bowline_net::Handle>,
    rules: BTreeMap<String, Arc<Rule>>,
    sets: Vec<Kept>,
}

/// A key set, and the task that keeps it; that ends with this.
struct Kept {
    set: Arc<KeySet>,
    keeper: JoinSet<()>,
}

pub(crate) struct Shared {
    office: runtime::Handle,
    /// Clients that wait for a key set.
    waiting: Mutex<JoinSet<()>>,
}

/// What is kept of a namespace that asks for tokens.
#[derive(Debug, Default)]
pub(crate) struct Rule {
    subjects: Subjects,
    outcomes: [AtomicU64; Outcome::ALL.len()],
}

/// What came of a client that wanted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Accepted,
    Missing,
    Invalid,
    Expired,
    Unverifiable,
    SubjectFull,
}

impl Auth {
    /// A gateway that takes the place of another serves whomever it can: namespaces whose keys
    /// cannot be read any more let nobody in until they can.
    pub(crate) fn new(office: runtime::Handle, first: bool) -> Self {
        Self {
            shared: Arc::new(Shared { office, waiting: Mutex::default() }),
            clock: Clock::start(),
            inner: Mutex::new(Inner { lenient: !first, ..Inner::default() }),
        }
    }

    /// Puts a guard before the handler of a namespace. `name_claim` names clients that come back.
    ///
    /// # Errors
    /// Its keys cannot be read, and nobody waits for another gateway.
    pub(crate) fn guard(
        &self,
        pattern: &str,
        jwt: &Jwt,
        name_claim: Option<String>,
        per_subject_max: Option<usize>,
        handler: Arc<dyn Handler>,
    ) -> Result<Guard, Failure> {
        let keys = match files(jwt) {
            Some(Ok(keys)) => Source::File(Arc::new(keys)),
            Some(Err(error)) if self.lock().lenient => {
                tracing::error!(namespace = pattern, error, "nobody gets in: there are no keys");
                Source::Nothing
            }
            Some(Err(why)) => {
                let words = format!("`namespaces.{pattern:?}.auth.jwt`: {why}");
                return Err(Failure::new(ErrorCode::TokenKeysUnusable, words));
            }
            None => match &jwt.jwks_url {
                Some(url) => Source::Fetched(self.set(pattern, url)),
                None => Source::Nothing,
            },
        };
        let rules = Rules {
            issuer: jwt.issuer.clone(),
            audience: jwt.audience.clone(),
            rooms_claim: jwt.rooms_claim.clone(),
            data_claim: jwt.data_claim.clone(),
            name_claim,
            leeway: jwt.leeway,
        };
        let rule = Arc::clone(self.lock().rules.entry(pattern.to_owned()).or_default());
        Ok(Guard::new(Arc::clone(&self.shared), rule, rules, keys, per_subject_max, handler))
    }

    /// The server is bound: key sets are fetched from now on.
    pub(crate) fn open(&self, server: bowline_net::Handle) {
        let mut inner = self.lock();
        for kept in &mut inner.sets {
            kept.start(&server, &self.shared.office);
        }
        inner.server = Some(server);
        inner.lenient = false;
    }

    /// Forgets what the namespaces have no use for any more.
    pub(crate) fn retain(&self, namespaces: &Namespaces) {
        let jwts = || namespaces.0.iter().filter_map(|(name, it)| Some((name, it.jwt.as_ref()?)));
        let mut inner = self.lock();
        let Inner { server, rules, sets, .. } = &mut *inner;
        rules.retain(|pattern, _| jwts().any(|(name, _)| name == pattern));
        sets.retain(|kept| {
            let used = jwts().any(|(_, jwt)| jwt.jwks_url.as_ref() == Some(kept.set.url()));
            if let Some(server) = server.as_ref().filter(|_| !used) {
                // Nobody misses it.
                server.report_component(&format!("jwks:{}", kept.set.name()), Ok(()));
            }
            used
        });
    }

    /// What was counted: metric, labels, value.
    pub(crate) fn counts(&self) -> Vec<(Metric, [String; 2], u64)> {
        let inner = self.lock();
        let mut counts = Vec::new();
        for (pattern, rule) in &inner.rules {
            for outcome in Outcome::ALL {
                let count = rule.outcomes[outcome as usize].load(Relaxed);
                let labels = [pattern.clone(), outcome.name().to_owned()];
                counts.push((Metric::AuthChecks, labels, count));
            }
        }
        for Kept { set, .. } in &inner.sets {
            let (good, failed) = set.fetches();
            for (outcome, count) in [("ok", good), ("failed", failed)] {
                let labels = [set.name().to_owned(), outcome.to_owned()];
                counts.push((Metric::KeySetFetches, labels, count));
            }
        }
        counts
    }

    /// The key set of a namespace, which others may use too.
    fn set(&self, pattern: &str, url: &Url) -> Arc<KeySet> {
        let mut inner = self.lock();
        let found = inner.sets.iter().find(|kept| kept.set.url() == url);
        if let Some(kept) = found {
            return Arc::clone(&kept.set);
        }
        let set =
            Arc::new(KeySet::new(url.clone(), pattern.to_owned(), self.clock, Pauses::default()));
        let mut kept = Kept { set: Arc::clone(&set), keeper: JoinSet::new() };
        if let Some(server) = &inner.server {
            kept.start(server, &self.shared.office);
        }
        inner.sets.push(kept);
        set
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the keys that stand in a file; `None` if they do not.
pub(crate) fn files(jwt: &Jwt) -> Option<Result<Keys, String>> {
    let secrets = jwt.secret_file.as_deref().map(Keys::read_secrets);
    secrets.or_else(|| jwt.public_key_file.as_deref().map(Keys::read_public))
}

impl Kept {
    fn start(&mut self, server: &bowline_net::Handle, office: &runtime::Handle) {
        if self.keeper.is_empty() {
            self.keeper.spawn_on(Arc::clone(&self.set).keep(server.clone()), office);
        }
    }
}

impl Rule {
    fn count(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].fetch_add(1, Relaxed);
    }
}

impl Outcome {
    const ALL: [Self; 6] = [
        Self::Accepted,
        Self::Missing,
        Self::Invalid,
        Self::Expired,
        Self::Unverifiable,
        Self::SubjectFull,
    ];

    /// The name operators see.
    fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Missing => ErrorCode::TokenMissing.name(),
            Self::Invalid => ErrorCode::TokenInvalid.name(),
            Self::Expired => ErrorCode::TokenExpired.name(),
            Self::Unverifiable => ErrorCode::TokenUnverifiable.name(),
            Self::SubjectFull => ErrorCode::SubjectFull.name(),
        }
    }

    /// That of a client who was told this.
    fn of(code: ErrorCode) -> Self {
        let found = Self::ALL.into_iter().find(|outcome| outcome.name() == code.name());
        found.unwrap_or(Self::Invalid)
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").finish_non_exhaustive()
    }
}
