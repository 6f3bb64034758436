//! From `[ai]` to what the gateway is told, with the keys that are shown to providers.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
    sync::Arc,
};

use bowline_ai::{
    call::{Config, ModelConfig, ProviderConfig, Secret, Slow},
    keys::{ClientKey, Digest, KeyLimits},
    permits::{Limits, Priority},
    route::{Policy, TargetId, Timeouts},
    wire::Dialect,
};
use bowline_dial::LaneOptions;

use super::limit;
use crate::config::{self, Ai, Provider, ProviderKind};

/// What a gateway is to do. `variable` reads one of the environment.
///
/// # Errors
/// The key of a provider cannot be had. Does not hold what is secret.
pub(super) fn gateway(
    ai: &Ai,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Config, String> {
    let providers = ai.providers.0.iter().map(|(name, provider)| {
        let key = api_key(provider, &variable)
            .map_err(|why| format!("`ai.providers.{name:?}`: {why}"))?;
        Ok(self::provider(name, provider, key))
    });
    let providers = providers.collect::<Result<_, String>>()?;
    let shared = |name: &String| Arc::<str>::from(name.as_str());
    let model = |(name, model): &(String, config::Model)| ModelConfig {
        name: shared(name),
        targets: (model.chain.iter())
            .map(|target| TargetId::new(target.provider.as_str(), target.model.as_str()))
            .collect(),
    };
    Ok(Config {
        policy: Policy {
            deadline: ai.deadline,
            retry_percent: ai.retry_percent,
            ..Policy::default()
        },
        limits: Limits {
            all: ai.max_concurrent,
            per_session: ai.max_concurrent_per_session,
            models: (ai.models.0.iter())
                .filter_map(|(name, model)| Some((shared(name), model.max_concurrent?)))
                .collect(),
            keys: (ai.keys.0.iter())
                .filter_map(|(name, key)| Some((shared(name), key.limits.max_concurrent?)))
                .collect(),
            providers: (ai.providers.0.iter())
                .map(|(name, provider)| (shared(name), provider.max_concurrent))
                .collect(),
            queued: ai.queue,
        },
        slow: Slow { window: ai.slow_stream.window, tokens_min: ai.slow_stream.min_tokens },
        providers,
        models: ai.models.0.iter().map(model).collect(),
        keys: ai.keys.0.iter().map(|(name, key)| client_key(name, key)).collect(),
        records_max: limit::RECORDS_MAX,
        // Said by whoever exports them.
        tracing: None,
    })
}

/// The key that a provider is shown, if it is shown any.
///
/// # Errors
/// What is wrong with where it should be. Does not hold what stands there.
pub(crate) fn api_key(
    provider: &Provider,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<String>, String> {
    if let Some(name) = &provider.api_key_env {
        let value = variable(name).map(|value| value.trim().to_owned());
        let value = value.filter(|value| !value.is_empty());
        let missing = || format!("`api-key-env`: the variable {name} is not set");
        return checked(value.ok_or_else(missing)?)
            .map(Some)
            .map_err(|why| format!("`api-key-env`: the variable {name} {why}"));
    }
    let Some(path) = &provider.api_key_file else { return Ok(None) };
    let shown = path.display();
    let text =
        read(path).map_err(|error| format!("`api-key-file`: cannot read {shown}: {error}"))?;
    checked(text).map(Some).map_err(|why| format!("`api-key-file`: {shown} {why}"))
}

/// How a variable of this process is read.
pub(crate) fn of_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(limit::KEY_FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

fn checked(key: String) -> Result<String, &'static str> {
    if key.is_empty() {
        return Err("is empty");
    }
    let plain = key.bytes().all(|byte| byte.is_ascii_graphic());
    let short = key.len() as u64 <= limit::KEY_FILE_BYTES_MAX;
    if plain && short { Ok(key) } else { Err("holds no key: that is one word of ASCII") }
}

fn provider(name: &str, provider: &Provider, key: Option<String>) -> ProviderConfig {
    let dialect = match provider.kind {
        ProviderKind::OpenAi => Dialect::OpenAi,
        ProviderKind::Anthropic => Dialect::Anthropic,
    };
    let config::Timeouts { connect, first_content, idle, total } = provider.timeout;
    ProviderConfig {
        key: key.map(Secret::new),
        timeouts: Some(Timeouts { connect, first_content, idle, total }),
        lanes: LaneOptions {
            connections_max: provider.pool.connections,
            idle_max: provider.pool.idle,
            ..LaneOptions::default()
        },
        ..ProviderConfig::new(name, dialect, &*provider.base_url)
    }
}

fn client_key(name: &str, key: &config::ClientKey) -> ClientKey {
    ClientKey {
        name: name.into(),
        digest: Digest(key.sha256.0),
        priority: match key.priority {
            config::Priority::High => Priority::High,
            config::Priority::Normal => Priority::Normal,
            config::Priority::Low => Priority::Low,
        },
        limits: KeyLimits {
            requests_per_minute: key.limits.requests_per_minute,
            tokens_per_minute: key.limits.tokens_per_minute,
            models: key.limits.models.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn of(text: &str) -> Ai {
        let file = Some(("/bowline.toml".into(), text.to_owned()));
        config::of_text(file, Default::default()).unwrap_or_else(|error| panic!("{error}")).ai
    }

    const KIMI: &str = "[ai.providers.kimi]\nkind = \"openai\"\nbase-url = \"https://a/v1\"\n";

    #[test]
    fn what_is_written_is_what_the_gateway_is_told() {
        let text = format!(
            "[ai]\nqueue = 7\ndeadline = \"1m\"\n{KIMI}api-key-env = \"KIMI\"\nmax-concurrent = 3\n\
             timeout.idle = \"7s\"\npool.connections = 5\n\
             [ai.models.chat]\ntry = [\"kimi/k2/x\"]\nmax-concurrent = 2\n\
             [ai.keys.app]\nsha256 = \"{}\"\nlimits.max-concurrent = 4\n",
            "ab".repeat(32)
        );
        let variable = |name: &str| (name == "KIMI").then(|| " sk-1\n".to_owned());
        let config = gateway(&of(&text), variable).unwrap();
        assert_eq!((config.limits.queued, config.policy.deadline.as_secs()), (7, 60));
        assert_eq!(config.limits.providers["kimi"], 3);
        assert_eq!((config.limits.models["chat"], config.limits.keys["app"]), (2, 4));
        let kimi = &config.providers[0];
        assert_eq!(kimi.key, Some(Secret::new("sk-1")));
        assert_eq!(kimi.timeouts.unwrap().idle.as_secs(), 7);
        assert_eq!(kimi.lanes.connections_max, 5);
        assert_eq!(config.models[0].targets, [TargetId::new("kimi", "k2/x")]);
        assert_eq!(config.keys[0].digest, Digest([0xab; 32]));
        assert!(!format!("{config:?}").contains("sk-1"));
    }

    #[test]
    fn a_key_that_cannot_be_had_is_told_and_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let file = format!("{KIMI}api-key-file = {path:?}\n");
        let why = |text: &str| {
            let hush = |_: &str| Some("sk hush".to_owned());
            gateway(&of(text), hush).unwrap_err()
        };
        assert!(why(&file).contains("`ai.providers.\"kimi\"`: `api-key-file`: cannot read"));
        fs::write(&path, "\n").unwrap();
        assert!(why(&file).ends_with("is empty"), "{}", why(&file));
        fs::write(&path, "sk-hush\nsk-hush\n").unwrap();
        assert!(why(&file).ends_with("one word of ASCII") && !why(&file).contains("hush"));
        let variable = format!("{KIMI}api-key-env = \"KIMI\"\n");
        assert!(why(&variable).ends_with("one word of ASCII") && !why(&variable).contains("hush"));
        let missing = gateway(&of(&variable), |_| None).unwrap_err();
        assert!(missing.ends_with("the variable KIMI is not set"), "{missing}");
        fs::write(&path, "sk-1\n").unwrap();
        assert_eq!(
            gateway(&of(&file), |_| None).unwrap().providers[0].key,
            Some(Secret::new("sk-1"))
        );
        // A server of one's own may ask for none.
        assert_eq!(gateway(&of(KIMI), |_| None).unwrap().providers[0].key, None);
    }
}
