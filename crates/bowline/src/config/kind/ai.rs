//! Kinds of values of `[ai]`.

use serde_json::{Value, json};
use toml::de::DeValue;

use super::{
    super::{
        ai::{Digest, Target},
        effective::Url,
        value,
    },
    Kind, each, refused,
};

/// A URL that paths are put behind, and that is no secret.
pub(crate) struct BaseUrl;

/// The name of a variable of the environment.
pub(crate) struct VariableName;

/// Models of providers, in the order in which they are tried.
pub(crate) struct Chain;

/// The SHA-256 of a key of a client.
pub(crate) struct KeyHash;

/// The name of a key of clients.
pub(crate) struct ClientKeyName;

/// Names that clients ask for.
pub(crate) struct ModelNames;

/// A share, in percent.
pub(crate) struct Percent;

impl Kind<Url> for BaseUrl {
    fn words(&self) -> String {
        "a URL such as \"https://api.example.com/v1\"".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Url, String> {
        let text = value.as_str().unwrap_or_default();
        let url = value::endpoint(text).ok().filter(|url| !url.contains('?'));
        // Not shown: a key may stand where it does not belong.
        let url =
            url.ok_or_else(|| format!("is no URL to put paths behind; write {}", self.words()))?;
        Ok(Url::new(url.trim_end_matches('/').to_owned()))
    }

    fn write(&self, value: &Url) -> Value {
        json!(&**value)
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": "^https?://[^/?#@]+[^#?]*$" })
    }
}

impl Kind<String> for VariableName {
    fn words(&self) -> String {
        "the name of a variable, as in \"KIMI_API_KEY\"".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<String, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let text = value.as_str().filter(|text| {
            text.chars().all(plain) && text.starts_with(|c: char| !c.is_ascii_digit())
        });
        // Not shown: it may be the key itself.
        let wrong = || format!("is no name of a variable; write {}", self.words());
        text.map(str::to_owned).ok_or_else(wrong)
    }

    fn write(&self, value: &String) -> Value {
        json!(value)
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" })
    }
}

impl Kind<String> for ClientKeyName {
    fn words(&self) -> String {
        "the name of a key in [ai.keys], as in \"app\"".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<String, String> {
        let text = value.as_str().filter(|text| !text.is_empty());
        // Not shown: it may be the key itself.
        let wrong = || format!("is no name of a key; write {}", self.words());
        text.map(str::to_owned).ok_or_else(wrong)
    }

    fn write(&self, value: &String) -> Value {
        json!(value)
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

impl Kind<Vec<Target>> for Chain {
    fn words(&self) -> String {
        "an array of \"PROVIDER/MODEL\", in the order in which they are tried".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<Target>, String> {
        let chain = each(value, &self.words(), "\"PROVIDER/MODEL\"", Target::read)?;
        if chain.is_empty() || chain.len() > CHAIN_MAX {
            return Err(format!("has {} entries; write from 1 to {CHAIN_MAX}", chain.len()));
        }
        Ok(chain)
    }

    fn write(&self, value: &Vec<Target>) -> Value {
        json!(value.iter().map(Target::to_string).collect::<Vec<_>>())
    }

    fn schema(&self) -> Value {
        let one = json!({ "type": "string", "pattern": "^[!-.0-~]+/[!-~]+$" });
        json!({ "type": "array", "items": one, "minItems": 1, "maxItems": CHAIN_MAX })
    }
}

/// Models in a chain: nobody waits for more attempts.
const CHAIN_MAX: usize = 16;

impl Kind<Digest> for KeyHash {
    fn words(&self) -> String {
        "what `bowline config hash-key` prints".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Digest, String> {
        let digest = value.as_str().and_then(Digest::read);
        // Not shown: it may be the key itself.
        digest.ok_or_else(|| format!("is no SHA-256 in hexadecimal; write {}", self.words()))
    }

    fn write(&self, value: &Digest) -> Value {
        json!(value.to_string())
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": "^[0-9A-Fa-f]{64}$" })
    }
}

impl Kind<Vec<String>> for ModelNames {
    fn words(&self) -> String {
        "an array of names in [ai.models]".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<String>, String> {
        each(value, &self.words(), "names in [ai.models]", |name| {
            (!name.is_empty()).then(|| name.to_owned())
        })
    }

    fn write(&self, value: &Vec<String>) -> Value {
        json!(value)
    }

    fn schema(&self) -> Value {
        json!({ "type": "array", "items": { "type": "string", "minLength": 1 } })
    }
}

impl Kind<u32> for Percent {
    fn words(&self) -> String {
        "a share such as \"20%\", from 0% to 100%".to_owned()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<u32, String> {
        let digits = value.as_str().and_then(|text| text.strip_suffix('%'));
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let number = digits.and_then(|digits| digits.parse().ok());
        number.filter(|number| *number <= 100).ok_or_else(|| refused(value, &self.words()))
    }

    fn write(&self, value: &u32) -> Value {
        json!(format!("{value}%"))
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": "^0*(100|[0-9]{1,2})%$" })
    }
}
