//! Signatures for `jsonwebtoken`, checked by ring, which TLS brings along already. Nothing is
//! signed here.

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind, new_error},
    signature::{self, Verifier},
};
use ring::{
    hmac,
    signature::{RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm},
};

/// Makes `jsonwebtoken` ask ring. Once in a process is enough, more often does nothing.
pub(super) fn install() {
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: no_signer,
        verifier_factory: verifier,
        // For making key sets, not for reading them.
        key_utils: KeyUtils::new_unimplemented(),
    };
    // Whoever was first installed the same one.
    let _ = PROVIDER.install_default();
}

fn no_signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    Err(new_error(ErrorKind::UnsupportedAlgorithm))
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    // A public key is no secret, and no secret a public key.
    if key.family() != algorithm.family() {
        return Err(new_error(ErrorKind::InvalidAlgorithm));
    }
    let key = match (algorithm.family(), key.kind()) {
        (AlgorithmFamily::Hmac, DecodingKeyKind::SecretOrDer(secret)) => {
            Key::Secret(hmac::Key::new(hash(*algorithm)?, secret))
        }
        (AlgorithmFamily::Rsa, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            Key::Rsa(RsaPublicKeyComponents { n: n.clone(), e: e.clone() }, rsa(*algorithm)?)
        }
        (_, DecodingKeyKind::SecretOrDer(bytes)) => {
            Key::Public(UnparsedPublicKey::new(public(*algorithm)?, bytes.clone()))
        }
        (_, DecodingKeyKind::RsaModulusExponent { .. }) => {
            return Err(new_error(ErrorKind::InvalidKeyFormat));
        }
    };
    Ok(Box::new(Verify { algorithm: *algorithm, key }))
}

struct Verify {
    algorithm: Algorithm,
    key: Key,
}

enum Key {
    Secret(hmac::Key),
    Rsa(RsaPublicKeyComponents<Vec<u8>>, &'static ring::signature::RsaParameters),
    Public(UnparsedPublicKey<Vec<u8>>),
}

impl Verifier<Vec<u8>> for Verify {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let verified = match &self.key {
            Key::Secret(key) => hmac::verify(key, message, signature),
            Key::Rsa(key, parameters) => key.verify(parameters, message, signature),
            Key::Public(key) => key.verify(message, signature),
        };
        verified.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Verify {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

fn hash(algorithm: Algorithm) -> Result<hmac::Algorithm, Error> {
    match algorithm {
        Algorithm::HS256 => Ok(hmac::HMAC_SHA256),
        Algorithm::HS384 => Ok(hmac::HMAC_SHA384),
        Algorithm::HS512 => Ok(hmac::HMAC_SHA512),
        _ => Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    }
}

/// Keys of less than 2048 bits are refused by all of them.
fn rsa(algorithm: Algorithm) -> Result<&'static ring::signature::RsaParameters, Error> {
    use ring::signature as it;
    match algorithm {
        Algorithm::RS256 => Ok(&it::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Ok(&it::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Ok(&it::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Ok(&it::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Ok(&it::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Ok(&it::RSA_PSS_2048_8192_SHA512),
        _ => Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    }
}

fn public(algorithm: Algorithm) -> Result<&'static dyn VerificationAlgorithm, Error> {
    match algorithm {
        Algorithm::ES256 => Ok(&ring::signature::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => Ok(&ring::signature::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => Ok(&ring::signature::ED25519),
        other => Ok(rsa(other)?),
    }
}
