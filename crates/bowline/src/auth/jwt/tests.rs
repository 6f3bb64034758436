//! Vectors, and issuers of every kind, good and bad.

use std::collections::BTreeSet;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use jsonwebtoken::Algorithm;
use ring::{
    hmac,
    rand::SystemRandom,
    rsa::KeyPair as RsaKeyPair,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use serde_json::json;

use super::*;

const NOW: Duration = Duration::from_secs(1_800_000_000);
pub(in crate::auth) const SECRET: &str = "an owl was here, and it has left 32 bytes";

/// The key pair of RFC 7515, appendix A.2. Everybody knows it.
const RSA: [&str; 8] = [
    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    "AQAB",
    "Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjnczT0QU91p1DhOVRuOopznQ",
    "4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8cQn7ouZ2KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc",
    "uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD_YwD66t62wDmpe_HlB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc",
    "BwKfV3Akq5_MFZDFZCnW-wzl-CCo83WoZvnLQwCTeDv8uzluRSnm71I3QCLdhrqE2e9YkxvuxdBfpT_PI7Yz-FOKnu1R6HsJeDCjn12Sk3vmAktV2zb34MCdy7cpdTh_YVr7tss2u6vneTwrA86rZtu5Mbr1C1XsmvkxHQAdYo0",
    "h_96-mK1R_7glhsum81dZxjTnYynPbZpHziZjeeHcXYsXaaMwkOlODsWa7I9xXDoRwbKgB719rrmI2oKr6N3Do9U0ajaHF-NKJnwgjMd2w9cjz3_-kyNlxAr2v4IKhGNpmM5iIgOS1VZnOZ68m6_pbLBSp3nssTdlqvd0tIiTHU",
    "IYd7DHOhrWvxkwPQsRM2tOgrjbcrfvtQJipd-DlcxyVuuM9sQLdgjVk2oy26F0EmpScGLq2MowX7fhd_QJQ3ydy5cY7YIBi87w93IKLEdfnbJtoOPLUW0ITrJReOgo1cq9SbsxYawBgfp_gh6A5603k2-ZQwVK0JKSHuLFkuQ3U",
];

/// Whoever issues tokens: signs, and gives others what they check it with.
enum Issuer {
    Secret,
    Rsa(Box<RsaKeyPair>),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Issuer {
    /// With fresh keys, but for RSA, which ring makes none of.
    fn of(algorithm: Algorithm) -> Self {
        let random = SystemRandom::new();
        let ec = |signing| {
            let document = EcdsaKeyPair::generate_pkcs8(signing, &random).unwrap();
            Self::Ec(EcdsaKeyPair::from_pkcs8(signing, document.as_ref(), &random).unwrap())
        };
        match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => Self::Secret,
            Algorithm::ES256 => ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::ES384 => ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::EdDSA => {
                let document = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
                Self::Ed(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
            }
            _ => {
                let [n, e, d, p, q, dp, dq, qi] = RSA.map(|part| BASE64.decode(part).unwrap());
                let public_key = ring::rsa::PublicKeyComponents { n, e };
                let parts =
                    ring::rsa::KeyPairComponents { public_key, d, p, q, dP: dp, dQ: dq, qInv: qi };
                Self::Rsa(Box::new(RsaKeyPair::from_components(&parts).unwrap()))
            }
        }
    }

    fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Secret => hmac_of(algorithm, SECRET.as_bytes(), message),
            Self::Ec(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
            Self::Rsa(key) => {
                let padding: &dyn signature::RsaEncoding = match algorithm {
                    Algorithm::RS256 => &signature::RSA_PKCS1_SHA256,
                    Algorithm::RS384 => &signature::RSA_PKCS1_SHA384,
                    Algorithm::RS512 => &signature::RSA_PKCS1_SHA512,
                    Algorithm::PS256 => &signature::RSA_PSS_SHA256,
                    Algorithm::PS384 => &signature::RSA_PSS_SHA384,
                    _ => &signature::RSA_PSS_SHA512,
                };
                let mut signed = vec![0; key.public().modulus_len()];
                key.sign(padding, &random, message, &mut signed).unwrap();
                signed
            }
        }
    }

    /// Its public key as a member of a key set.
    fn jwk(&self) -> Value {
        let point = |point: &[u8], curve: &str| {
            let (x, y) = point[1..].split_at(point.len() / 2);
            json!({ "kty": "EC", "crv": curve, "x": BASE64.encode(x), "y": BASE64.encode(y) })
        };
        match self {
            Self::Secret => json!({ "kty": "oct", "k": BASE64.encode(SECRET) }),
            Self::Rsa(_) => json!({ "kty": "RSA", "n": RSA[0], "e": RSA[1] }),
            Self::Ec(key) => match key.public_key().as_ref() {
                public if public.len() == 65 => point(public, "P-256"),
                public => point(public, "P-384"),
            },
            Self::Ed(key) => {
                let x = BASE64.encode(key.public_key());
                json!({ "kty": "OKP", "crv": "Ed25519", "x": x })
            }
        }
    }

    fn keys(&self) -> Keys {
        match self {
            Self::Secret => Keys::from_secrets(SECRET).unwrap(),
            _ => set(&[self.jwk()]),
        }
    }

    fn token(&self, algorithm: Algorithm, claims: &Value) -> String {
        self.token_with(&json!({ "alg": name(algorithm), "typ": "JWT" }), algorithm, claims)
    }

    fn token_with(&self, header: &Value, algorithm: Algorithm, claims: &Value) -> String {
        let part = |value: &Value| BASE64.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = BASE64.encode(self.sign(algorithm, message.as_bytes()));
        format!("{message}.{signature}")
    }
}

/// A token of [`SECRET`].
pub(in crate::auth) fn secret_token(claims: &Value) -> String {
    Issuer::Secret.token(Algorithm::HS256, claims)
}

fn hmac_of(algorithm: Algorithm, secret: &[u8], message: &[u8]) -> Vec<u8> {
    let hash = match algorithm {
        Algorithm::HS256 => hmac::HMAC_SHA256,
        Algorithm::HS384 => hmac::HMAC_SHA384,
        _ => hmac::HMAC_SHA512,
    };
    hmac::sign(&hmac::Key::new(hash, secret), message).as_ref().to_vec()
}

fn set(keys: &[Value]) -> Keys {
    Keys::from_set(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn name(algorithm: Algorithm) -> String {
    format!("{algorithm:?}")
}

fn every_algorithm() -> Vec<Algorithm> {
    use jsonwebtoken::AlgorithmFamily as Family;
    let families = [Family::Hmac, Family::Rsa, Family::Ec, Family::Ed];
    families.iter().flat_map(|family| family.algorithms().to_vec()).collect()
}

/// Claims that nothing is wrong with.
fn claims() -> Value {
    json!({ "sub": "ada", "exp": NOW.as_secs() + 60 })
}

/// Checks a token of the secret under other rules.
fn under(rules: &Rules, claims: &Value) -> Result<Grant, Refusal> {
    let token = Issuer::Secret.token(Algorithm::HS256, claims);
    check(&token, &Issuer::Secret.keys(), rules, NOW)
}

fn invalid(flaw: Flaw) -> Result<Grant, Refusal> {
    Err(Refusal::Invalid(flaw))
}

#[test]
fn every_algorithm_lets_in_whoever_has_its_key() {
    for algorithm in every_algorithm() {
        let issuer = Issuer::of(algorithm);
        let token = issuer.token(algorithm, &claims());
        let grant = check(&token, &issuer.keys(), &Rules::default(), NOW);
        let grant = grant.unwrap_or_else(|why| panic!("{algorithm:?}: {why}"));
        assert_eq!(grant.subject.as_deref(), Some("ada"), "{algorithm:?}");
        assert_eq!(grant.lasts, Some(Duration::from_secs(60)), "{algorithm:?}");
    }
}

#[test]
fn every_algorithm_refuses_what_was_changed_after_signing() {
    for algorithm in every_algorithm() {
        let issuer = Issuer::of(algorithm);
        let token = issuer.token(algorithm, &claims());
        let parts: Vec<&str> = token.split('.').collect();
        let other = BASE64.encode(json!({ "sub": "eve", "exp": NOW.as_secs() + 60 }).to_string());
        let mut signature = BASE64.decode(parts[2]).unwrap();
        signature[7] ^= 1;
        let signature = BASE64.encode(signature);
        for forged in [
            format!("{}.{other}.{}", parts[0], parts[2]),
            format!("{}.{}.{signature}", parts[0], parts[1]),
            format!("{}.{}.", parts[0], parts[1]),
        ] {
            let verdict = check(&forged, &issuer.keys(), &Rules::default(), NOW);
            assert_eq!(verdict, Err(Refusal::UnknownKey), "{algorithm:?}");
        }
    }
}

#[test]
fn the_tokens_of_the_standard_are_good() {
    // RFC 7515, appendices A.1 (HS256), A.2 (RS256) and A.3 (ES256): the claims of all three are
    // those of `joe`, who expired in 2011.
    let claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let before = Duration::from_secs(1_300_819_379);
    let secret = BASE64
        .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
        .unwrap();
    let header = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9";
    let message = format!("{header}.{claims}");
    let signature = hmac_of(Algorithm::HS256, &secret, message.as_bytes());
    assert_eq!(BASE64.encode(signature), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");

    let rsa = set(&[json!({ "kty": "RSA", "n": RSA[0], "e": RSA[1] })]);
    let ec = set(&[json!({
        "kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    })]);
    for (keys, token) in [
        (
            &rsa,
            format!(
                "eyJhbGciOiJSUzI1NiJ9.{claims}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
            ),
        ),
        (
            &ec,
            format!(
                "eyJhbGciOiJFUzI1NiJ9.{claims}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
            ),
        ),
    ] {
        let rules = Rules { issuer: vec!["joe".to_owned()], ..Rules::default() };
        let grant = check(&token, keys, &rules, before).unwrap();
        assert_eq!(grant.lasts, Some(Duration::from_secs(1)));
        assert_eq!(check(&token, keys, &rules, NOW), Err(Refusal::Expired));
    }
}

#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    for algorithm in every_algorithm() {
        let issuer = Issuer::of(algorithm);
        if matches!(issuer, Issuer::Secret) {
            continue;
        }
        // The attack: sign with HMAC, and with what everybody can fetch as the secret.
        let jwk = issuer.jwk();
        let known = [
            jwk.to_string(),
            jwk["n"].as_str().or(jwk["x"].as_str()).unwrap().to_owned(),
            public_pem(),
        ];
        for secret in known {
            for confused in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let part = |value: &Value| BASE64.encode(value.to_string());
                let header = part(&json!({ "alg": name(confused) }));
                let message = format!("{header}.{}", part(&claims()));
                let signed = hmac_of(confused, secret.as_bytes(), message.as_bytes());
                let token = format!("{message}.{}", BASE64.encode(signed));
                for keys in [issuer.keys(), Keys::from_pem(&public_pem()).unwrap()] {
                    let verdict = check(&token, &keys, &Rules::default(), NOW);
                    assert_eq!(verdict, invalid(Flaw::Algorithm), "{algorithm:?} as {confused:?}");
                }
            }
        }
    }
}

#[test]
fn an_algorithm_that_is_not_that_of_the_key_is_refused() {
    for signed in every_algorithm() {
        let issuer = Issuer::of(signed);
        let mut taken = BTreeSet::new();
        for claimed in every_algorithm() {
            // The signature is good for `signed`; the header says something else.
            let token = issuer.token_with(&json!({ "alg": name(claimed) }), signed, &claims());
            if check(&token, &issuer.keys(), &Rules::default(), NOW).is_ok() {
                taken.insert(name(claimed));
            }
        }
        assert_eq!(taken, BTreeSet::from([name(signed)]));
    }
    // Nor is one that a key of the set is not for.
    let issuer = Issuer::of(Algorithm::RS256);
    let mut jwk = issuer.jwk();
    jwk["alg"] = json!("RS256");
    let keys = set(&[jwk]);
    let verdict = |algorithm| {
        check(&issuer.token(algorithm, &claims()), &keys, &Rules::default(), NOW).map(|_| ())
    };
    assert_eq!(verdict(Algorithm::RS256), Ok(()));
    assert_eq!(verdict(Algorithm::PS256), Err(Refusal::UnknownKey));
    assert_eq!(verdict(Algorithm::RS512), Err(Refusal::UnknownKey));
}

#[test]
fn no_algorithm_is_no_algorithm() {
    for none in ["none", "None", "NONE", "nOnE", "", "HS1", "RSA-OAEP"] {
        let part = |value: &Value| BASE64.encode(value.to_string());
        let message = format!("{}.{}", part(&json!({ "alg": none })), part(&claims()));
        let signature =
            BASE64.encode(hmac_of(Algorithm::HS256, SECRET.as_bytes(), message.as_bytes()));
        for token in [format!("{message}."), message.clone(), format!("{message}.{signature}")] {
            let verdict = check(&token, &Issuer::Secret.keys(), &Rules::default(), NOW);
            assert_eq!(verdict, invalid(Flaw::Malformed), "{none:?}");
        }
    }
}

#[test]
fn what_a_token_says_of_its_own_key_is_not_believed() {
    let (ours, theirs) = (Issuer::of(Algorithm::ES256), Issuer::of(Algorithm::ES256));
    let mut jwk = theirs.jwk();
    jwk["kid"] = json!("theirs");
    let header = json!({
        "alg": "ES256", "kid": "theirs", "jwk": jwk, "jku": "https://evil.example/keys",
        "x5u": "https://evil.example/certificate",
    });
    let token = theirs.token_with(&header, Algorithm::ES256, &claims());
    let verdict = check(&token, &ours.keys(), &Rules::default(), NOW);
    assert_eq!(verdict, Err(Refusal::UnknownKey));
}

#[test]
fn demands_that_are_not_understood_are_refused() {
    let header = json!({ "alg": "HS256", "crit": ["b64"], "b64": false });
    let token = Issuer::Secret.token_with(&header, Algorithm::HS256, &claims());
    let verdict = check(&token, &Issuer::Secret.keys(), &Rules::default(), NOW);
    assert_eq!(verdict, invalid(Flaw::Critical));
}

#[test]
fn a_token_is_found_by_the_name_of_its_key() {
    let (old, new) = (Issuer::of(Algorithm::ES256), Issuer::of(Algorithm::ES256));
    let named = |issuer: &Issuer, kid: &str| {
        let mut jwk = issuer.jwk();
        jwk["kid"] = json!(kid);
        jwk
    };
    let keys = set(&[named(&old, "old"), named(&new, "new")]);
    let verdict = |issuer: &Issuer, header: Value| {
        let token = issuer.token_with(&header, Algorithm::ES256, &claims());
        check(&token, &keys, &Rules::default(), NOW).map(|_| ())
    };
    assert_eq!(verdict(&old, json!({ "alg": "ES256", "kid": "old" })), Ok(()));
    assert_eq!(verdict(&new, json!({ "alg": "ES256", "kid": "new" })), Ok(()));
    // Without a name all are tried.
    assert_eq!(verdict(&new, json!({ "alg": "ES256" })), Ok(()));
    // A name that is known, with the signature of another key, is no reason to fetch keys.
    let wrong = Err(Refusal::Invalid(Flaw::Signature));
    assert_eq!(verdict(&new, json!({ "alg": "ES256", "kid": "old" })), wrong);
    let unknown = Err(Refusal::UnknownKey);
    assert_eq!(verdict(&new, json!({ "alg": "ES256", "kid": "newer" })), unknown);
}

#[test]
fn a_key_set_gives_only_keys_for_signatures() {
    let (signs, encrypts) = (Issuer::of(Algorithm::ES256), Issuer::of(Algorithm::ES256));
    let with = |issuer: &Issuer, name: &str, value: Value| {
        let mut jwk = issuer.jwk();
        jwk[name] = value;
        jwk
    };
    let keys = set(&[
        with(&encrypts, "use", json!("enc")),
        with(&encrypts, "key_ops", json!(["encrypt"])),
        with(&encrypts, "alg", json!("ECDH-ES")),
        json!({ "kty": "oct", "k": BASE64.encode(SECRET) }),
        json!({ "kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA" }),
        json!({ "kty": "something new" }),
        json!("rubbish"),
        with(&signs, "use", json!("sig")),
    ]);
    assert_eq!(keys.len(), 1);
    let refused = encrypts.token(Algorithm::ES256, &claims());
    assert!(check(&refused, &keys, &Rules::default(), NOW).is_err());
    let secret = Issuer::Secret.token(Algorithm::HS256, &claims());
    assert_eq!(check(&secret, &keys, &Rules::default(), NOW), invalid(Flaw::Algorithm));
    for rubbish in ["", "{}", "[]", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"AA"}]}"#] {
        assert!(Keys::from_set(rubbish.as_bytes()).is_err(), "{rubbish}");
    }
    // Keys that are none are found out when they are used, and nobody falls over them.
    let broken = [
        json!({ "kty": "OKP", "crv": "Ed25519", "x": "AA" }),
        json!({ "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA" }),
        json!({ "kty": "RSA", "n": "AQ", "e": "AQAB" }),
    ];
    for (jwk, algorithm) in
        broken.iter().zip([Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256])
    {
        let token = Issuer::of(algorithm).token(algorithm, &claims());
        assert!(check(&token, &set(std::slice::from_ref(jwk)), &Rules::default(), NOW).is_err());
    }
}

#[test]
fn a_claim_names_a_device_of_one_subject_of_one_issuer() {
    let rules = Rules { name_claim: Some("device".to_owned()), ..Rules::default() };
    let name = |claims: Value| under(&rules, &claims).map(|grant| grant.name);
    let named = |claims: Value| name(claims).unwrap().unwrap();
    let ada = named(json!({ "iss": "us", "sub": "ada", "device": "phone" }));
    assert_eq!(named(json!({ "device": "phone", "sub": "ada", "iss": "us", "exp": 2e9 })), ada);
    for other in [
        json!({ "iss": "us", "sub": "ada", "device": "desk" }),
        json!({ "iss": "us", "sub": "bob", "device": "phone" }),
        json!({ "iss": "them", "sub": "ada", "device": "phone" }),
        json!({ "iss": "us", "device": "phone" }),
        json!({ "iss": "us", "sub": "ada", "device": 7 }),
    ] {
        assert_ne!(named(other.clone()), ada, "{other}");
    }
    for nameless in [json!({}), json!({ "device": null }), json!({ "device": "" })] {
        assert_eq!(name(nameless), Ok(None));
    }
    assert_eq!(name(json!({ "device": ["phone"] })), Err(of_another_type("device")));
    assert_eq!(under(&Rules::default(), &json!({ "device": "phone" })).unwrap().name, None);
}

#[test]
fn a_token_counts_from_nbf_to_exp_and_the_leeway_on_both_sides() {
    let now = NOW.as_secs();
    let rules = Rules { leeway: Duration::from_secs(30), ..Rules::default() };
    let lasts = |claims: Value| under(&rules, &claims).map(|grant| grant.lasts);
    let left = |seconds: f64| Ok(Some(Duration::from_secs_f64(seconds)));
    assert_eq!(lasts(json!({ "exp": now + 10 })), left(40.0));
    assert_eq!(lasts(json!({ "exp": now })), left(30.0));
    assert_eq!(lasts(json!({ "exp": now - 29 })), left(1.0));
    assert_eq!(lasts(json!({ "exp": now - 30 })), Err(Refusal::Expired));
    assert_eq!(lasts(json!({ "exp": now as f64 + 0.5 })), left(30.5));
    assert_eq!(lasts(json!({ "exp": -1 })), Err(Refusal::Expired));
    assert_eq!(lasts(json!({ "exp": 1e300 })), Ok(None));
    assert_eq!(lasts(json!({})), Ok(None));
    assert_eq!(lasts(json!({ "nbf": now + 30 })), Ok(None));
    let early = Err(Refusal::Invalid(Flaw::TooEarly));
    assert_eq!(lasts(json!({ "nbf": now + 31 })), early);
    assert_eq!(
        lasts(json!({ "exp": "soon" })),
        Err(Refusal::Invalid(Flaw::Claim("exp".to_owned())))
    );
    for claims in [json!({ "exp": true }), json!({ "exp": [now] }), json!({ "exp": {} })] {
        assert_eq!(lasts(claims).unwrap_err().code(), ErrorCode::TokenInvalid);
    }
    let nbf = Err(Refusal::Invalid(Flaw::Claim("nbf".to_owned())));
    assert_eq!(lasts(json!({ "nbf": "now" })), nbf);
}

#[test]
fn issuer_and_audience_must_be_among_those_that_are_named() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let rules =
        Rules { issuer: names(&["us"]), audience: names(&["chat", "news"]), ..Rules::default() };
    let verdict = |claims: Value| under(&rules, &claims).map(|_| ());
    assert_eq!(verdict(json!({ "iss": "us", "aud": "chat" })), Ok(()));
    assert_eq!(verdict(json!({ "iss": "us", "aud": ["mail", "news"] })), Ok(()));
    for claims in [
        json!({ "iss": "us" }),
        json!({ "iss": "us", "aud": "mail" }),
        json!({ "iss": "us", "aud": ["mail"] }),
        json!({ "iss": "us", "aud": [] }),
        json!({ "iss": "us", "aud": 7 }),
        json!({ "iss": "us", "aud": null }),
    ] {
        assert_eq!(verdict(claims.clone()), Err(Refusal::Invalid(Flaw::Audience)), "{claims}");
    }
    for claims in [
        json!({ "aud": "chat" }),
        json!({ "iss": "them", "aud": "chat" }),
        json!({ "iss": 7, "aud": "chat" }),
    ] {
        assert_eq!(verdict(claims.clone()), Err(Refusal::Invalid(Flaw::Issuer)), "{claims}");
    }
    // That it has expired is said only of one that is for us.
    let expired = json!({ "iss": "us", "aud": "mail", "exp": 1 });
    assert_eq!(verdict(expired), Err(Refusal::Invalid(Flaw::Audience)));
    let any = under(&Rules::default(), &json!({ "iss": "them", "aud": "mail" }));
    assert!(any.is_ok(), "what is not asked for does not matter");
}

#[test]
fn claims_become_rooms_and_data() {
    let rules = Rules {
        rooms_claim: Some("https://example.com/rooms".to_owned()),
        data_claim: Some("data".to_owned()),
        ..Rules::default()
    };
    let rooms = |rooms: Value| {
        let grant = under(&rules, &json!({ "https://example.com/rooms": rooms }));
        grant.map(|grant| grant.rooms.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(rooms(json!(["a", "b"])), Ok(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(rooms(json!("a")), Ok(vec!["a".to_owned()]));
    assert_eq!(rooms(json!(null)), Ok(vec![]));
    let wrong = Refusal::Invalid(Flaw::Claim("https://example.com/rooms".to_owned()));
    for value in [json!(7), json!([7]), json!({ "a": true })] {
        assert_eq!(rooms(value), Err(wrong.clone()));
    }

    let data = |data: Value| under(&rules, &json!({ "data": data })).map(|grant| grant.data);
    assert_eq!(data(json!({ "name": "Ada" })), Ok(Some(r#"{"name":"Ada"}"#.into())));
    assert_eq!(data(json!("x".repeat(DATA_BYTES - 2))).map(|data| data.is_some()), Ok(true));
    let long = Err(Refusal::Invalid(Flaw::DataTooLong));
    assert_eq!(data(json!("x".repeat(DATA_BYTES - 1))), long);
    assert_eq!(under(&rules, &json!({})).unwrap().data, None);
}

#[test]
fn the_token_is_taken_from_the_payload_of_the_connect_packet() {
    for missing in
        [None, Some("{}"), Some(r#"{"token":null}"#), Some(r#"{"token":""}"#), Some("[]")]
    {
        assert_eq!(token(missing), Err(Refusal::Missing), "{missing:?}");
    }
    for other in [r#"{"token":7}"#, r#"{"token":["a"]}"#, r#"{"token":{}}"#] {
        assert_eq!(token(Some(other)), Err(Refusal::Invalid(Flaw::NotText)), "{other}");
    }
    assert_eq!(token(Some(r#"{"token":"a.b.c","more":1}"#)), Ok("a.b.c".to_owned()));
}

#[test]
fn rubbish_is_no_token() {
    let long = "a".repeat(TOKEN_BYTES + 1);
    for rubbish in ["", ".", "..", "...", "a.b.c", "a.b.c.d", "🦉.🦉.🦉", "e30.e30.e30", &long]
    {
        let verdict = check(rubbish, &Issuer::Secret.keys(), &Rules::default(), NOW);
        let code = verdict.unwrap_err().code();
        assert_eq!(code, ErrorCode::TokenInvalid, "{}", &rubbish[..rubbish.len().min(20)]);
    }
}

#[test]
fn files_hold_secrets_or_public_keys_and_what_is_wrong_with_them_is_said_without_showing_them() {
    let keys = Keys::from_secrets(&format!("\n  {SECRET}  \r\nanother secret\n")).unwrap();
    assert_eq!((keys.len(), keys.has_short_secret()), (2, true));
    let token = Issuer::Secret.token(Algorithm::HS256, &claims());
    assert!(check(&token, &keys, &Rules::default(), NOW).is_ok());
    assert!(Keys::from_secrets(" \n").is_err());
    assert!(Keys::from_secrets(&public_pem()).unwrap_err().contains("public-key-file"));

    let ec = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let ed = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let both =
        format!("of last year:\n{}and this year's:\n{}", ec.public_key_pem(), ed.public_key_pem());
    let keys = Keys::from_pem(&both).unwrap();
    assert_eq!(keys.len(), 2);
    let random = SystemRandom::new();
    let signing = &signature::ECDSA_P384_SHA384_FIXED_SIGNING;
    let ec = EcdsaKeyPair::from_pkcs8(signing, &ec.serialize_der(), &random).unwrap();
    let ed = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&ed.serialize_der()).unwrap();
    for (issuer, algorithm) in
        [(Issuer::Ec(ec), Algorithm::ES384), (Issuer::Ed(ed), Algorithm::EdDSA)]
    {
        let token = issuer.token(algorithm, &claims());
        assert!(check(&token, &keys, &Rules::default(), NOW).is_ok(), "{algorithm:?}");
    }
    let rsa = Keys::from_pem(&public_pem()).unwrap();
    let token = Issuer::of(Algorithm::PS384).token(Algorithm::PS384, &claims());
    assert!(check(&token, &rsa, &Rules::default(), NOW).is_ok());

    let private = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let why = Keys::from_pem(&private).unwrap_err();
    assert!(why.contains("private key") && !why.contains("MI"), "{why}");
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    assert!(Keys::from_pem(&certificate.cert.pem()).is_err());
    for wrong in ["", "a secret", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
        assert!(Keys::from_pem(wrong).is_err(), "{wrong}");
    }
}

/// The RSA key as a file that `openssl rsa -RSAPublicKey_out` writes.
fn public_pem() -> String {
    let [n, e] = [RSA[0], RSA[1]].map(|part| BASE64.decode(part).unwrap());
    // SEQUENCE { INTEGER n, INTEGER e }; the first bit of n would be taken for its sign.
    let mut body = vec![0x02, 0x82, 0x01, 0x01, 0x00];
    body.extend(n);
    body.extend([0x02, e.len() as u8]);
    body.extend(e);
    let mut der = vec![0x30, 0x82, (body.len() >> 8) as u8, body.len() as u8];
    der.extend(body);
    let text = base64::prelude::BASE64_STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN RSA PUBLIC KEY-----\n{}\n-----END RSA PUBLIC KEY-----\n", lines.join("\n"))
}
