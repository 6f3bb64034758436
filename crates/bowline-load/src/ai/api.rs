//! Where requests go.

use std::{fmt, net::SocketAddr, str::FromStr};

use crate::target::Target;

/// Where a server has OpenAI's API: an address, and a path below which `chat/completions` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api(Target);

impl Api {
    /// Where connections go.
    pub(super) fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// What the `Host` header says.
    pub(super) fn authority(&self) -> &str {
        &self.0.authority
    }

    /// Of `chat/completions`.
    pub(super) fn path(&self) -> String {
        format!("{}chat/completions", self.0.path)
    }
}

impl FromStr for Api {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const WANTED: &str = "such as http://127.0.0.1:8000/v1";
        if text.starts_with("https://") {
            return Err("TLS is not measured: name that provider in [ai.providers] of a `bowline serve` and measure \
                        through it, or give the http address behind it"
                .into());
        }
        Target::parse(text, "/v1/", WANTED).map(Self)
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_string().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_that_of_the_api_with_or_without_a_slash() {
        for text in
            ["http://127.0.0.1:8000", "http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1/"]
        {
            let api: Api = text.parse().unwrap();
            assert_eq!(api.path(), "/v1/chat/completions", "{text}");
            assert_eq!(api.to_string(), "http://127.0.0.1:8000/v1");
        }
        let api: Api = "http://127.0.0.1:8000/openai/deployments/x".parse().unwrap();
        assert_eq!(api.path(), "/openai/deployments/x/chat/completions");
        assert!("https://api.openai.com/v1".parse::<Api>().unwrap_err().contains("[ai.providers]"));
        assert!("127.0.0.1:8000".parse::<Api>().unwrap_err().contains("/v1"));
    }
}
