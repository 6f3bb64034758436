//! What is configured, in two forms: what is asked for, and what runs.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use bowline_dial::{ConnectError, LaneOptions, Lanes, Options, Origin, Trust};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::PoolState;
use crate::{
    keys::ClientKey,
    permits::Limits,
    route::{Policy, TargetId, Timeouts},
    trace::Tracing,
    wire::{Dialect, Fault},
};

/// What a gateway is to do.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// How requests are tried.
    pub policy: Policy,
    /// How many may run at once.
    pub limits: Limits,
    /// When a stream that does say something is too slow.
    pub slow: Slow,
    /// Whom it may ask.
    pub providers: Vec<ProviderConfig>,
    /// What clients may ask for.
    pub models: Vec<ModelConfig>,
    /// Who may ask; none is everybody.
    pub keys: Vec<ClientKey>,
    /// How many of the last requests are remembered. Default 0.
    pub records_max: usize,
    /// How traces are made. Default: none are.
    pub tracing: Option<Tracing>,
}

/// When a stream that does say something is too slow to be of use. Time in which nobody reads it does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slow {
    /// What its tokens are counted over; begins anew each time. Default 30 s; zero turns the guard off.
    pub window: Duration,
    /// Fewer than so many tokens in a window are too slow. Default 15.
    pub tokens_min: u64,
}

impl Default for Slow {
    fn default() -> Self {
        Self { window: Duration::from_secs(30), tokens_min: 15 }
    }
}

/// Somebody who has models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderConfig {
    /// What it is called: in targets, in records, in metrics.
    pub name: Arc<str>,
    /// What it speaks.
    pub dialect: Dialect,
    /// Where it is, with the version if its dialect is OpenAI's: `https://api.openai.com/v1`. A query is put behind
    /// every path.
    pub base_url: String,
    /// What it knows the gateway's account by. Default none.
    pub key: Option<Secret>,
    /// Headers of every request to it. One that is set here replaces the gateway's own. Default none.
    pub headers: Vec<(String, Secret)>,
    /// Its timers; `None` takes those of [`Policy::timeouts`].
    pub timeouts: Option<Timeouts>,
    /// Its connections. A provider without a limit in [`Config::limits`] is asked by no more requests at once than it
    /// may have connections.
    pub lanes: LaneOptions,
    /// Which servers are believed where its URL asks for TLS.
    pub trust: Trust,
}

impl ProviderConfig {
    /// A provider with the defaults.
    pub fn new(name: impl Into<Arc<str>>, dialect: Dialect, base_url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            dialect,
            base_url: base_url.into(),
            key: None,
            headers: Vec::new(),
            timeouts: None,
            lanes: LaneOptions::default(),
            trust: Trust::System,
        }
    }
}

/// A name that clients may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelConfig {
    /// The name.
    pub name: Arc<str>,
    /// Who is asked, in this order. At least one.
    pub targets: Vec<TargetId>,
}

/// What must not be seen. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A configuration that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigError {
    /// Two providers have the same name.
    SameProvider(Arc<str>),
    /// Two models have the same name.
    SameModel(Arc<str>),
    /// The address of a provider cannot be dialled.
    Address {
        /// The provider.
        provider: Arc<str>,
        /// Why not.
        error: ConnectError,
    },
    /// A key or a header of a provider has characters that no header may have, or a name that is none.
    Header {
        /// The provider.
        provider: Arc<str>,
        /// The header.
        header: String,
    },
    /// A model has no target.
    NoTarget(Arc<str>),
    /// A target names a provider that there is not.
    NoProvider {
        /// The model.
        model: Arc<str>,
        /// Its target.
        target: TargetId,
    },
}

impl Config {
    /// The limits, where a provider without one has that of its connections: so requests wait where they are counted,
    /// by priority, and their waiting is not charged to the provider.
    pub(super) fn limits(&self) -> Limits {
        let mut limits = self.limits.clone();
        for provider in &self.providers {
            let own = limits.providers.entry(Arc::clone(&provider.name));
            own.or_insert(provider.lanes.connections_max);
        }
        limits
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SameProvider(name) => write!(f, "the provider `{name}` is there twice"),
            Self::SameModel(name) => write!(f, "the model `{name}` is there twice"),
            Self::Address { provider, error } => {
                write!(f, "the base URL of the provider `{provider}`: {error}")
            }
            Self::Header { provider, header } => {
                write!(f, "the provider `{provider}` cannot be sent the header `{header}`")
            }
            Self::NoTarget(model) => write!(f, "the model `{model}` has no target"),
            Self::NoProvider { model, target } => {
                write!(
                    f,
                    "the model `{model}` is to be tried at `{target}`, and there is no such provider"
                )
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// What runs. A request keeps the one that it began with.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) policy: Arc<Policy>,
    pub(super) slow: Slow,
    pub(super) tracing: Option<Tracing>,
    providers: BTreeMap<Arc<str>, Arc<Provider>>,
    models: Vec<ModelConfig>,
}

/// A provider, ready to be asked.
#[derive(Debug)]
pub(super) struct Provider {
    pub(super) dialect: Dialect,
    pub(super) timeouts: Timeouts,
    pub(super) lanes: Lanes,
    /// What every request to it has.
    pub(super) headers: HeaderMap,
    config: ProviderConfig,
    base: String,
    query: String,
}

impl Setup {
    /// Makes ready what is configured. Connections are taken over from the old one where nothing of them changes.
    pub(super) fn new(config: &Config, old: Option<&Self>) -> Result<Self, ConfigError> {
        let mut providers = BTreeMap::new();
        for provider in &config.providers {
            let known = old.and_then(|old| old.providers.get(&provider.name));
            let ready = Provider::new(provider, &config.policy, known)?;
            if providers.insert(Arc::clone(&provider.name), Arc::new(ready)).is_some() {
                return Err(ConfigError::SameProvider(Arc::clone(&provider.name)));
            }
        }
        for (index, model) in config.models.iter().enumerate() {
            if config.models[..index].iter().any(|other| other.name == model.name) {
                return Err(ConfigError::SameModel(Arc::clone(&model.name)));
            }
            if model.targets.is_empty() {
                return Err(ConfigError::NoTarget(Arc::clone(&model.name)));
            }
            let unknown = model.targets.iter().find(|it| !providers.contains_key(it.provider()));
            if let Some(target) = unknown {
                let (model, target) = (Arc::clone(&model.name), target.clone());
                return Err(ConfigError::NoProvider { model, target });
            }
        }
        let policy = Arc::new(config.policy.clone());
        let (models, tracing) = (config.models.clone(), config.tracing.clone());
        Ok(Self { policy, slow: config.slow, tracing, providers, models })
    }

    pub(super) fn provider(&self, target: &TargetId) -> Option<&Arc<Provider>> {
        self.providers.get(target.provider())
    }

    pub(super) fn model(&self, name: &str) -> Option<&ModelConfig> {
        self.models.iter().find(|model| &*model.name == name)
    }

    pub(super) fn models(&self) -> Vec<ModelConfig> {
        self.models.clone()
    }

    pub(super) fn model_names(&self) -> impl Iterator<Item = Arc<str>> {
        self.models.iter().map(|model| Arc::clone(&model.name))
    }

    pub(super) fn targets(&self) -> impl Iterator<Item = TargetId> {
        self.models.iter().flat_map(|model| model.targets.iter().cloned())
    }

    pub(super) fn pools(&self) -> Vec<PoolState> {
        let pool = |(name, provider): (&Arc<str>, &Arc<Provider>)| PoolState {
            provider: Arc::clone(name),
            figures: provider.lanes.figures(),
        };
        self.providers.iter().map(pool).collect()
    }

    pub(super) fn sweep(&self) {
        for provider in self.providers.values() {
            provider.lanes.sweep();
        }
    }
}

impl Provider {
    fn new(
        config: &ProviderConfig,
        policy: &Policy,
        old: Option<&Arc<Self>>,
    ) -> Result<Self, ConfigError> {
        let timeouts = config.timeouts.unwrap_or(policy.timeouts);
        let options = Options {
            connect_timeout: timeouts.connect,
            trust: config.trust.clone(),
            ..Options::default()
        };
        let address = |error| ConfigError::Address { provider: Arc::clone(&config.name), error };
        let origin = Origin::parse(&config.base_url, &options).map_err(address)?;
        let (base, query) = match origin.path().split_once('?') {
            Some((base, query)) => (base.to_owned(), format!("?{query}")),
            None => (origin.path().to_owned(), String::new()),
        };
        let unchanged = |old: &&Arc<Self>| {
            let (now, then) = (config, &old.config);
            old.timeouts.connect == timeouts.connect
                && (&now.base_url, &now.trust, &now.lanes)
                    == (&then.base_url, &then.trust, &then.lanes)
        };
        let lanes = match old.filter(unchanged) {
            Some(old) => old.lanes.clone(),
            None => Lanes::new(&origin, config.lanes.clone()),
        };
        let headers = Self::headers(config)?;
        let (dialect, config) = (config.dialect, config.clone());
        Ok(Self { dialect, timeouts, lanes, headers, config, base, query })
    }

    /// Path and query for what stands below its base URL.
    pub(super) fn uri(&self, path_below: impl FnOnce(&str) -> String) -> String {
        format!("{}{}", path_below(&self.base), self.query)
    }

    /// Takes out of its words what it was shown: some servers repeat the head of a request in their errors.
    pub(super) fn hide(&self, fault: &mut Fault) {
        let headers = self.config.headers.iter().map(|(_, value)| value);
        for Secret(secret) in self.config.key.iter().chain(headers) {
            if secret.len() >= SECRET_MIN_BYTES {
                let texts = [Some(&mut fault.words), fault.code.as_mut(), fault.param.as_mut()];
                texts.into_iter().flatten().for_each(|text| hide(text, secret));
            }
        }
    }

    fn headers(config: &ProviderConfig) -> Result<HeaderMap, ConfigError> {
        let wrong = |header: &str| ConfigError::Header {
            provider: Arc::clone(&config.name),
            header: header.to_owned(),
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if config.dialect == Dialect::Anthropic {
            headers.insert("anthropic-version", HeaderValue::from_static(ANTHROPIC_VERSION));
        }
        if let Some(Secret(key)) = &config.key {
            let (name, value) = match config.dialect {
                Dialect::OpenAi => (header::AUTHORIZATION, format!("Bearer {key}")),
                Dialect::Anthropic => (HeaderName::from_static("x-api-key"), key.clone()),
            };
            headers.insert(name.clone(), hidden(&value).ok_or_else(|| wrong(name.as_str()))?);
        }
        for (name, Secret(value)) in &config.headers {
            let parsed = name.parse::<HeaderName>().map_err(|_| wrong(name))?;
            headers.insert(parsed, hidden(value).ok_or_else(|| wrong(name))?);
        }
        Ok(headers)
    }
}

/// Replaces a secret in a text, which may have been cut off in the middle of it.
fn hide(text: &mut String, secret: &str) {
    if text.contains(secret) {
        *text = text.replace(secret, HIDDEN);
    }
    let is_start = |at: &usize| secret.get(..*at).is_some_and(|start| text.ends_with(start));
    if let Some(at) = (SECRET_MIN_BYTES..secret.len()).rev().find(is_start) {
        text.truncate(text.len() - at);
        text.push_str(HIDDEN);
    }
}

/// A value that is not shown in debug output, and not put into the table of HTTP/2.
fn hidden(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What stands where a secret stood.
const HIDDEN: &str = "(hidden)";

/// What is shorter is no secret, and may stand in any text.
const SECRET_MIN_BYTES: usize = 8;

/// The only version there is; docs.anthropic.com, "Versions".
const ANTHROPIC_VERSION: &str = "2023-06-01";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_in_what_a_provider_says_even_if_that_was_cut() {
        let hidden = |text: &str| {
            let mut text = text.to_owned();
            hide(&mut text, "sk-0123456789");
            text
        };
        assert_eq!(hidden("Bearer sk-0123456789, sk-0123456789"), "Bearer (hidden), (hidden)");
        assert_eq!(hidden("authorization: Bearer sk-012345"), "authorization: Bearer (hidden)");
        assert_eq!(hidden("wrong key sk-…789"), "wrong key sk-…789");
        assert_eq!(hidden(""), "");
    }
}
