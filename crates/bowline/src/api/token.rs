//! The token of the admin listener.

use std::{fmt, fs::File, io::Read as _, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::HeaderValue;
use subtle::{Choice, ConstantTimeEq as _};

/// Bytes of a token file that are read; more is a mistake.
const FILE_BYTES_MAX: u64 = 4_096;

/// Characters that a token must have at least: whoever guesses shall not be lucky.
const TOKEN_LENGTH_MIN: usize = 16;

/// What stands in the file of `admin.token-file`: a token a line, so that a new one can be handed
/// out before the old one is taken away.
pub(crate) struct Tokens(Vec<String>);

impl Tokens {
    /// Nobody has one of these.
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    /// Reads the file.
    ///
    /// # Errors
    /// In words, when it cannot be read, is empty, or a token is too short.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(format!("{}: it is longer than {FILE_BYTES_MAX} bytes", path.display()));
        }
        Self::parse(&text).map_err(|why| format!("{}: {why}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let tokens: Vec<String> = text
            .lines()
            .map(|line| line.trim().to_owned())
            .filter(|line| !line.is_empty())
            .collect();
        if tokens.is_empty() {
            return Err("no token stands in it".to_owned());
        }
        if tokens.iter().any(|token| token.len() < TOKEN_LENGTH_MIN) {
            return Err(format!("a token has fewer than {TOKEN_LENGTH_MIN} characters"));
        }
        Ok(Self(tokens))
    }

    /// Whether the value of an `Authorization` header carries one of the tokens: after `Bearer`,
    /// or as the password of `Basic` with any name. Takes as long for a wrong token as for a right
    /// one of the same length.
    pub(crate) fn admit(&self, authorization: &HeaderValue) -> bool {
        let Ok(text) = authorization.to_str() else { return false };
        let Some((scheme, credentials)) = text.split_once(' ') else { return false };
        let credentials = credentials.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.has(credentials.as_bytes());
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return false;
        }
        let Ok(pair) = BASE64_STANDARD.decode(credentials) else { return false };
        let Some(colon) = pair.iter().position(|byte| *byte == b':') else { return false };
        self.has(&pair[colon + 1..])
    }

    fn has(&self, said: &[u8]) -> bool {
        let found = |found, token: &String| found | token.as_bytes().ct_eq(said);
        self.0.iter().fold(Choice::from(0), found).into()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tokens", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "correct-horse-battery";

    fn header(text: String) -> HeaderValue {
        HeaderValue::from_str(&text).unwrap()
    }

    #[test]
    fn a_token_is_taken_as_bearer_and_as_password() {
        let tokens = Tokens::parse(&format!("\n{TOKEN}\nanother-token-of-them\n")).unwrap();
        assert!(tokens.admit(&header(format!("Bearer {TOKEN}"))));
        assert!(tokens.admit(&header(format!("bearer  {TOKEN}"))));
        assert!(tokens.admit(&header("Bearer another-token-of-them".to_owned())));
        let basic = BASE64_STANDARD.encode(format!("me:{TOKEN}"));
        assert!(tokens.admit(&header(format!("Basic {basic}"))));
        for wrong in ["Bearer", "Bearer ", "Bearer wrong", "Basic !", "Digest x", TOKEN] {
            assert!(!tokens.admit(&header(wrong.to_owned())), "{wrong}");
        }
        let longer = format!("Bearer {TOKEN}x");
        assert!(!tokens.admit(&header(longer)));
    }

    #[test]
    fn a_file_without_a_good_token_is_refused() {
        assert!(Tokens::parse(" \n\n").is_err());
        assert!(Tokens::parse("short").is_err());
        assert!(Tokens::read(Path::new("/nonexistent")).unwrap_err().contains("/nonexistent"));
    }

    #[test]
    fn none_are_the_tokens_of_nobody() {
        for said in ["Bearer", "Bearer ", "Bearer x", "Basic Og=="] {
            assert!(!Tokens::none().admit(&header(said.to_owned())), "{said}");
        }
    }

    #[test]
    fn a_token_is_not_printed() {
        assert_eq!(format!("{:?}", Tokens::parse(TOKEN).unwrap()), "1 tokens");
    }
}
