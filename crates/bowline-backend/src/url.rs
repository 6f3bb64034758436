//! Where an app is.

use std::fmt;

use bowline_dial::{ConnectError, Origin};

/// The URL that requests are posted to: `http` or `https`, a host, perhaps a port, a path and a query.
#[derive(Debug, Clone)]
pub struct Url {
    text: String,
    origin: Origin,
}

/// Why a text is no URL of an app. Does not hold the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlError {
    /// It is not of the form `http://host:port/path`, or has a user and a password in it, which would
    /// end up in logs.
    Form,
    /// It asks for TLS, and this machine has no root certificate to believe.
    NoRoots,
}

impl Url {
    /// Reads `http://host:port/path?query`, or `https`.
    ///
    /// # Errors
    ///
    /// It is something else, or has a user and a password in it, or asks for TLS where there is nobody
    /// to believe.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let web = ["http://", "https://"].iter().any(|scheme| {
            text.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme))
        });
        if !web {
            return Err(UrlError::Form);
        }
        match Origin::parse(text, &bowline_dial::Options::default()) {
            Ok(origin) => Ok(Self { text: text.to_owned(), origin }),
            Err(ConnectError::NoRoots) => Err(UrlError::NoRoots),
            Err(_) => Err(UrlError::Form),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }
}

impl PartialEq for Url {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => {
                "the URL must be of the form http://host:port/path, without a user and a password"
            }
            Self::NoRoots => {
                "this machine has no root certificates; Debian has them in `ca-certificates`"
            }
        })
    }
}

impl std::error::Error for UrlError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_host_and_path() {
        let url = Url::parse("http://app.internal:5000/bowline?a=1").unwrap();
        assert_eq!(url.origin().authority(), "app.internal:5000");
        assert_eq!(url.origin().path(), "/bowline?a=1");
        let url = Url::parse("HTTP://[::1]").unwrap();
        assert_eq!((url.origin().authority(), url.origin().path()), ("[::1]", "/"));
    }

    #[test]
    fn what_cannot_be_posted_to_is_refused() {
        for text in
            ["", "app", "/path", "ftp://app/", "ws://app/", "http://", "http://me:secret@app/"]
        {
            assert_eq!(Url::parse(text).unwrap_err(), UrlError::Form, "{text}");
        }
    }
}
