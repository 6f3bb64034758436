//! The keys that tokens are checked with, each with the algorithms it is for. A token cannot
//! choose: what its header says must fit the key.

use std::{fs::File, io::Read as _, path::Path};

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

use super::limit::{FILE_BYTES, SECRET_BYTES, SET_KEYS};

/// Keys, in the order in which they are tried.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keys(Vec<Key>);

#[derive(Debug, Clone)]
struct Key {
    /// `kid`, by which a token names it.
    id: Option<String>,
    /// What it may be used with.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl Keys {
    /// Reads a file with a secret a line.
    ///
    /// # Errors
    /// In words, if it cannot be read or holds something else. They never show what stands in it.
    pub(crate) fn read_secrets(path: &Path) -> Result<Self, String> {
        let text = read(path)?;
        Self::from_secrets(&text).map_err(|why| format!("{}: {why}", path.display()))
    }

    /// Reads a file with public keys in PEM.
    ///
    /// # Errors
    /// In words, if it cannot be read or holds something else.
    pub(crate) fn read_public(path: &Path) -> Result<Self, String> {
        let text = read(path)?;
        Self::from_pem(&text).map_err(|why| format!("{}: {why}", path.display()))
    }

    pub(super) fn from_secrets(text: &str) -> Result<Self, String> {
        // Whoever knows a public key could sign with it, if it were taken for a secret.
        if text.contains("-----BEGIN") {
            return Err("it holds a key in PEM, which belongs to `public-key-file`".to_owned());
        }
        let secrets = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys: Vec<Key> = secrets
            .map(|secret| Key {
                id: None,
                algorithms: AlgorithmFamily::Hmac.algorithms().to_vec(),
                key: DecodingKey::from_secret(secret.as_bytes()),
            })
            .collect();
        if keys.is_empty() { Err("no secret stands in it".to_owned()) } else { Ok(Self(keys)) }
    }

    pub(super) fn from_pem(text: &str) -> Result<Self, String> {
        if text.contains("PRIVATE KEY-----") {
            return Err("it holds a private key, which only the issuer of tokens should have; \
                        `openssl pkey -pubout` makes the public one of it"
                .to_owned());
        }
        let mut keys = Vec::new();
        let mut rest = text;
        while let Some(begin) = rest.find("-----BEGIN ") {
            rest = &rest[begin..];
            let end = rest.find("-----END ").ok_or("a key in it does not end")?;
            let end = end + rest[end..].find('\n').unwrap_or(rest.len() - end);
            let (block, after) = rest.split_at(end);
            rest = after;
            keys.push(Key::from_pem(block).ok_or(
                "it has a part that is no public key for RSA from 2048 bits, P-256, P-384 or \
                 Ed25519",
            )?);
        }
        if keys.is_empty() {
            return Err("no public key in PEM stands in it".to_owned());
        }
        Ok(Self(keys))
    }

    /// Takes a JSON Web Key Set (RFC 7517). What is in it besides keys for signatures that are
    /// known here is left out.
    pub(super) fn from_set(json: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set =
            serde_json::from_slice(json).map_err(|error| format!("it is no key set: {error}"))?;
        let of = |value| Key::from_jwk(&serde_json::from_value(value).ok()?);
        let keys: Vec<Key> = set.keys.into_iter().filter_map(of).take(SET_KEYS).collect();
        if keys.is_empty() {
            return Err("the key set has no key that can be used".to_owned());
        }
        Ok(Self(keys))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The keys that a token may have been signed with, and whether it is the one with its name.
    pub(super) fn fitting(
        &self,
        algorithm: Algorithm,
        id: Option<&str>,
    ) -> impl Iterator<Item = (&DecodingKey, bool)> {
        let fits = self.0.iter().filter(move |key| key.algorithms.contains(&algorithm));
        fits.filter_map(move |key| match (&key.id, id) {
            (Some(key_id), Some(id)) => (key_id == id).then_some((&key.key, true)),
            _ => Some((&key.key, false)),
        })
    }

    pub(super) fn have_secrets(&self) -> bool {
        self.secrets().next().is_some()
    }

    /// Whether a secret is shorter than it should be.
    pub(crate) fn has_short_secret(&self) -> bool {
        let short = |key: &DecodingKey| {
            key.try_get_as_bytes().is_ok_and(|secret| secret.len() < SECRET_BYTES)
        };
        self.secrets().any(short)
    }

    fn secrets(&self) -> impl Iterator<Item = &DecodingKey> {
        let keys = self.0.iter().map(|key| &key.key);
        keys.filter(|key| key.family() == AlgorithmFamily::Hmac)
    }
}

impl Key {
    fn from_pem(block: &str) -> Option<Self> {
        // Neither a certificate, whose key is only one part of it, nor parameters of a curve.
        const KINDS: [&str; 2] = ["-----BEGIN PUBLIC KEY-----", "-----BEGIN RSA PUBLIC KEY-----"];
        if !KINDS.iter().any(|kind| block.starts_with(kind)) {
            return None;
        }
        let block = block.as_bytes();
        // The smallest that is allowed; what is around the modulus has about 14 bytes.
        const RSA_BYTES: usize = 2048 / 8;
        if let Ok(key) = DecodingKey::from_rsa_pem(block) {
            let long = key.try_get_as_bytes().is_ok_and(|der| der.len() > RSA_BYTES);
            let algorithms = AlgorithmFamily::Rsa.algorithms().to_vec();
            return long.then_some(Self { id: None, algorithms, key });
        }
        let (key, family) = match DecodingKey::from_ec_pem(block) {
            Ok(key) => (key, AlgorithmFamily::Ec),
            Err(_) => (DecodingKey::from_ed_pem(block).ok()?, AlgorithmFamily::Ed),
        };
        // The length of a point tells its curve.
        let algorithm = match (family, key.try_get_as_bytes().ok()?.len()) {
            (AlgorithmFamily::Ec, 65) => Algorithm::ES256,
            (AlgorithmFamily::Ec, 97) => Algorithm::ES384,
            (AlgorithmFamily::Ed, 32) => Algorithm::EdDSA,
            _ => return None,
        };
        Some(Self { id: None, algorithms: vec![algorithm], key })
    }

    fn from_jwk(jwk: &Jwk) -> Option<Self> {
        let common = &jwk.common;
        let signs = common.public_key_use.as_ref().is_none_or(|it| *it == PublicKeyUse::Signature);
        let operations = common.key_operations.as_deref();
        let verifies = operations.is_none_or(|all| all.contains(&KeyOperations::Verify));
        if !signs || !verifies {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa.algorithms().to_vec(),
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(key) => match key.curve {
                EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
                _ => return None,
            },
            // A secret that everybody can fetch is none.
            _ => return None,
        };
        if let Some(only) = common.key_algorithm {
            let only = Algorithm::try_from(only).ok()?;
            algorithms.retain(|algorithm| *algorithm == only);
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        (!algorithms.is_empty()).then(|| Self { id: common.key_id.clone(), algorithms, key })
    }
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    if text.len() as u64 > FILE_BYTES {
        return Err(format!("{}: it is longer than {FILE_BYTES} bytes", path.display()));
    }
    Ok(text)
}
