//! Signatures as the Standard Webhooks specification has them: HMAC-SHA256 over
//! `id.timestamp.body`, so that an app knows who asks, and what, and that it is not an old request
//! sent again. Pure.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::hmac;

/// What Bowline and an app both know.
#[derive(Clone)]
pub struct Secret(hmac::Key);

/// Why a text is no secret. Does not hold the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretError {
    /// There is nothing in it.
    Empty,
    /// It begins with `whsec_`, and what follows is not base64.
    NotBase64,
}

impl Secret {
    /// Takes what stands in a file: `whsec_` and the key in base64, as the specification writes
    /// secrets, or any other text, whose bytes are then the key. White space around it is not part
    /// of it.
    ///
    /// # Errors
    ///
    /// It is empty, or begins with `whsec_` and goes on with something that is not base64.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        let key = match text.strip_prefix("whsec_") {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_| SecretError::NotBase64)?,
            None => text.as_bytes().to_vec(),
        };
        if key.is_empty() {
            return Err(SecretError::Empty);
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &key)))
    }

    /// The value of `webhook-signature`. `timestamp` is in seconds since 1970.
    pub(crate) fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the secret is empty",
            Self::NotBase64 => "the secret begins with whsec_, and what follows is not base64",
        })
    }
}

impl std::error::Error for SecretError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the official library (`standardwebhooks` 1.1.0 of PyPI) makes of the same.
    #[test]
    fn the_official_library_signs_the_same() {
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        for (secret, id, body, wanted) in [
            (
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                id,
                r#"{"test": 2432232314}"#,
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
            (
                " whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n",
                "msg_1",
                r#"{"ü":1}"#,
                "v1,0OJMigMJZkXmOKuWqFoild9jiZy1PMLFy8IqFBR6kJc=",
            ),
            (
                "raw text secret äö",
                id,
                r#"{"test": 2432232314}"#,
                "v1,2FgGqhZoiNB9i31m5zKNBSBdq8X4r7PT2jkFC014om8=",
            ),
        ] {
            let secret = Secret::parse(secret).unwrap();
            assert_eq!(secret.sign(id, 1_614_265_330, body.as_bytes()), wanted);
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_and_never_shown() {
        for text in ["", " \n", "whsec_"] {
            assert_eq!(Secret::parse(text).unwrap_err(), SecretError::Empty, "{text:?}");
        }
        assert_eq!(Secret::parse("whsec_a b").unwrap_err(), SecretError::NotBase64);
        let shown = format!("{:?}", Secret::parse("hunter2").unwrap());
        assert!(!shown.contains("hunter2"));
    }
}
