//! What is asked, and how often.

use std::{fmt, time::Duration};

use serde_json::json;

use super::api::Api;
use crate::{error::Error, limit};

/// The key that requests show. It is printed nowhere.
#[derive(Clone)]
pub struct Key(String);

impl Key {
    /// Takes a key, without the white space around it.
    ///
    /// # Errors
    /// There is none, or it has characters that no header can carry.
    pub fn new(text: &str) -> Result<Self, Error> {
        let key = text.trim();
        if key.is_empty() {
            return Err(Error::usage("no key stands in the key file"));
        }
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::usage("the key has characters that no header can carry"));
        }
        Ok(Self(key.to_owned()))
    }

    /// The header that shows it.
    pub(super) fn header(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// What is to be asked.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// The model, as clients of the server name it.
    pub model: String,
    /// What the user says.
    pub prompt: String,
    /// How long the answer may be; none: as the server has it.
    pub max_tokens: Option<u32>,
    /// Whether answers are streamed.
    pub stream: bool,
    /// The key that requests show; none: they show none.
    pub key: Option<Key>,
    /// How many requests are measured, of each concurrency.
    pub requests: u64,
    /// How many go before them that do not count, of each concurrency.
    pub warm_up: u64,
    /// Requests a second on a schedule, whatever comes back; none: the next one when one has been answered. A delay
    /// counts from when a request was due.
    pub rate: Option<f64>,
    /// How long an answer may take before its client leaves; such a request counts as failed.
    pub timeout: Duration,
    /// The processes of the server; none: whoever listens there.
    pub pids: Vec<u32>,
}

impl Wishes {
    /// Whether so many at once make sense.
    ///
    /// # Errors
    /// They do not. The text says what would.
    pub fn check(&self, concurrency: usize) -> Result<(), Error> {
        if self.requests == 0 {
            return Err(Error::usage("--requests must be at least 1"));
        }
        if concurrency == 0 || concurrency > limit::CONCURRENCY_MAX {
            let most = limit::CONCURRENCY_MAX;
            return Err(Error::usage(format!("--concurrency must be 1 to {most}")));
        }
        if self.rate.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
            return Err(Error::usage("--fixed-rate must be more than 0"));
        }
        if self.timeout.is_zero() {
            return Err(Error::usage("--timeout must be more than 0"));
        }
        Ok(())
    }

    /// The bytes of every request.
    pub(super) fn request(&self, api: &Api) -> Vec<u8> {
        let mut body = json!({
            "model": self.model,
            "messages": [{ "role": "user", "content": self.prompt }],
        });
        if self.stream {
            body["stream"] = true.into();
        }
        if let Some(most) = self.max_tokens {
            body["max_tokens"] = most.into();
        }
        let body = body.to_string();
        let (path, host, length) = (api.path(), api.authority(), body.len());
        let key = self.key.as_ref().map(Key::header).unwrap_or_default();
        format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bowline-bench\r\nAccept: */*\r\n\
             Content-Type: application/json\r\n{key}Content-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

#[cfg(test)]
impl Wishes {
    /// Little, of a model `m`.
    pub(super) fn little() -> Self {
        Self {
            model: "m".into(),
            prompt: "hello".into(),
            max_tokens: None,
            stream: false,
            key: None,
            requests: 4,
            warm_up: 0,
            rate: None,
            timeout: Duration::from_secs(20),
            pids: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_and_its_key_is_not_shown() {
        let api = "http://127.0.0.1:8000/v1".parse().unwrap();
        let key = Some(Key::new(" secret\n").unwrap());
        let wishes = Wishes { key, stream: true, max_tokens: Some(5), ..Wishes::little() };
        let text = String::from_utf8(wishes.request(&api)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n"));
        assert!(head.contains("\r\nAuthorization: Bearer secret\r\n"), "{head}");
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&body["stream"], &body["max_tokens"]), (&json!(true), &json!(5)));
        assert!(!format!("{wishes:?}").contains("secret"));
        assert!(Key::new(" \n").is_err() && Key::new("a\r\nb: c").is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let good = Wishes::little();
        assert!(good.check(1).is_ok());
        for (wishes, concurrency) in [
            (Wishes { requests: 0, ..good.clone() }, 1),
            (Wishes { rate: Some(0.0), ..good.clone() }, 1),
            (Wishes { rate: Some(f64::NAN), ..good.clone() }, 1),
            (Wishes { timeout: Duration::ZERO, ..good.clone() }, 1),
            (good.clone(), 0),
            (good.clone(), limit::CONCURRENCY_MAX + 1),
        ] {
            assert!(matches!(wishes.check(concurrency), Err(Error::Usage(_))), "{wishes:?}");
        }
    }
}
