//! Whether a token lets its client in, and as what. Pure: keys, rules and the time are arguments.

use std::{fmt, time::Duration};

use bowline_names::ErrorCode;
use bytestring::ByteString;
use jsonwebtoken::{AlgorithmFamily, Validation, decode, decode_header, errors::ErrorKind};
use serde_json::{Map, Value, json};

use super::{
    crypto,
    keys::Keys,
    limit::{DATA_BYTES, TOKEN_BYTES},
};

/// What a token must say, and what is taken from it: `auth.jwt` but for the keys.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    /// Empty: whoever has the key.
    pub(crate) issuer: Vec<String>,
    /// Empty: whomever.
    pub(crate) audience: Vec<String>,
    pub(crate) rooms_claim: Option<String>,
    pub(crate) data_claim: Option<String>,
    /// The claim that names the device: `session-key = "claim:NAME"`.
    pub(crate) name_claim: Option<String>,
    pub(crate) leeway: Duration,
}

/// What a token gives to its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    /// `sub`.
    pub(crate) subject: Option<String>,
    pub(crate) rooms: Vec<ByteString>,
    /// JSON.
    pub(crate) data: Option<ByteString>,
    /// What its session is known by when it comes back.
    pub(crate) name: Option<ByteString>,
    /// How long the client may stay; `None` is for as long as it likes.
    pub(crate) lasts: Option<Duration>,
}

/// Why a client does not get in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    Missing,
    Expired,
    /// It is signed with no key that is known. Others may be known by now.
    UnknownKey,
    Invalid(Flaw),
}

/// What is wrong with a token: for operators, the client is not told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Flaw {
    NotText,
    TooLong,
    Malformed,
    Algorithm,
    Critical,
    Signature,
    Issuer,
    Audience,
    TooEarly,
    Claim(String),
    DataTooLong,
    Subject,
}

impl Refusal {
    /// What the client is told.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Missing => ErrorCode::TokenMissing,
            Self::Expired => ErrorCode::TokenExpired,
            Self::UnknownKey | Self::Invalid(_) => ErrorCode::TokenInvalid,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is none"),
            Self::Expired => f.write_str("it has expired"),
            Self::UnknownKey => f.write_str("it is signed with no key that is known"),
            Self::Invalid(flaw) => flaw.fmt(f),
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotText => "`auth.token` is no text",
            Self::TooLong => "it is too long",
            Self::Malformed => "it is no JSON Web Token",
            Self::Algorithm => "its algorithm is none that the keys are for",
            Self::Critical => "it demands extensions that are not known here",
            Self::Signature => "its signature is wrong",
            Self::Issuer => "it is from another issuer",
            Self::Audience => "it is for another audience",
            Self::TooEarly => "it is not valid yet",
            Self::DataTooLong => "its data is over 16 KiB",
            Self::Subject => "its subject is another than that of the session it came back to",
            Self::Claim(name) => {
                return write!(f, "its claim `{}` has another type", name.escape_debug());
            }
        })
    }
}

/// Takes the token out of the payload of a CONNECT packet, which is JSON.
///
/// # Errors
/// [`Refusal::Missing`], or [`Refusal::Invalid`] if it is no text.
pub(crate) fn token(auth: Option<&str>) -> Result<String, Refusal> {
    let auth = auth.and_then(|auth| serde_json::from_str::<Value>(auth).ok());
    match auth.and_then(|mut auth| Some(auth.get_mut("token")?.take())) {
        None | Some(Value::Null) => Err(Refusal::Missing),
        Some(Value::String(token)) if token.is_empty() => Err(Refusal::Missing),
        Some(Value::String(token)) => Ok(token),
        Some(_) => Err(Refusal::Invalid(Flaw::NotText)),
    }
}

/// Checks a token at a time after 1970.
///
/// # Errors
/// Why it is not good. That it has expired is said only of one that is good otherwise.
pub(crate) fn check(
    token: &str,
    keys: &Keys,
    rules: &Rules,
    now: Duration,
) -> Result<Grant, Refusal> {
    if token.len() > TOKEN_BYTES {
        return Err(Refusal::Invalid(Flaw::TooLong));
    }
    let claims = verify(token, keys, rules)?;
    let lasts = lasts(&claims, rules.leeway, now)?;
    Ok(Grant {
        subject: claims.get("sub").and_then(Value::as_str).map(str::to_owned),
        rooms: rooms(&claims, rules)?,
        data: data(&claims, rules)?,
        name: name(&claims, rules)?,
        lasts,
    })
}

/// Everything that does not depend on the time.
fn verify(token: &str, keys: &Keys, rules: &Rules) -> Result<Map<String, Value>, Refusal> {
    crypto::install();
    // `none` is no algorithm here, nor is any that the library does not know.
    let header = decode_header(token).map_err(|_| Refusal::Invalid(Flaw::Malformed))?;
    if header.crit.is_some() {
        return Err(Refusal::Invalid(Flaw::Critical));
    }
    let mut validation = Validation::new(header.alg);
    // The library reads the clock by itself; time is ours.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.required_spec_claims.clear();
    if !rules.issuer.is_empty() {
        validation.set_issuer(&rules.issuer);
        validation.required_spec_claims.insert("iss".to_owned());
    }
    validation.validate_aud = !rules.audience.is_empty();
    if validation.validate_aud {
        validation.set_audience(&rules.audience);
        validation.required_spec_claims.insert("aud".to_owned());
    }

    let secret = header.alg.family() == AlgorithmFamily::Hmac;
    if secret && !keys.have_secrets() {
        return Err(Refusal::Invalid(Flaw::Algorithm));
    }
    let mut refusal = Refusal::UnknownKey;
    for (key, named) in keys.fitting(header.alg, header.kid.as_deref()) {
        let error = match decode::<Map<String, Value>>(token, key, &validation) {
            Ok(decoded) => return Ok(decoded.claims),
            Err(error) => error,
        };
        match error.into_kind() {
            ErrorKind::InvalidSignature if named => refusal = Refusal::Invalid(Flaw::Signature),
            // Another key may be the right one.
            ErrorKind::InvalidSignature => {}
            kind => return Err(Refusal::Invalid(flaw(&kind))),
        }
    }
    Err(refusal)
}

fn flaw(kind: &ErrorKind) -> Flaw {
    match kind {
        ErrorKind::InvalidIssuer => Flaw::Issuer,
        ErrorKind::InvalidAudience => Flaw::Audience,
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => Flaw::Issuer,
        ErrorKind::MissingRequiredClaim(_) => Flaw::Audience,
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => Flaw::Algorithm,
        _ => Flaw::Malformed,
    }
}

/// How long it is still good, by `exp` and `nbf`.
fn lasts(
    claims: &Map<String, Value>,
    leeway: Duration,
    now: Duration,
) -> Result<Option<Duration>, Refusal> {
    let (now, leeway) = (now.as_secs_f64(), leeway.as_secs_f64());
    if let Some(begin) = seconds(claims, "nbf")?
        && now < begin - leeway
    {
        return Err(Refusal::Invalid(Flaw::TooEarly));
    }
    let Some(end) = seconds(claims, "exp")? else { return Ok(None) };
    let left = end + leeway - now;
    if left <= 0.0 {
        return Err(Refusal::Expired);
    }
    // Beyond what a duration can hold is for ever.
    Ok(Duration::try_from_secs_f64(left).ok())
}

/// A point in time: a number of seconds since 1970, with or without fractions.
fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<f64>, Refusal> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| of_another_type(name)),
    }
}

fn rooms(claims: &Map<String, Value>, rules: &Rules) -> Result<Vec<ByteString>, Refusal> {
    let Some(name) = &rules.rooms_claim else { return Ok(Vec::new()) };
    let wrong = || of_another_type(name);
    match claims.get(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(room)) => Ok(vec![room.as_str().into()]),
        Some(Value::Array(rooms)) => {
            rooms.iter().map(|room| room.as_str().map(Into::into).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}

fn data(claims: &Map<String, Value>, rules: &Rules) -> Result<Option<ByteString>, Refusal> {
    let claim = rules.data_claim.as_ref().and_then(|name| claims.get(name));
    let Some(text) = claim.map(Value::to_string) else { return Ok(None) };
    if text.len() > DATA_BYTES {
        return Err(Refusal::Invalid(Flaw::DataTooLong));
    }
    Ok(Some(text.into()))
}

/// Issuer and subject are part of it, so that nobody who may choose what his device is called finds
/// the session of somebody else.
fn name(claims: &Map<String, Value>, rules: &Rules) -> Result<Option<ByteString>, Refusal> {
    let Some(name) = &rules.name_claim else { return Ok(None) };
    let named = match claims.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(named @ (Value::String(_) | Value::Number(_))) => named,
        Some(_) => return Err(of_another_type(name)),
    };
    Ok(Some(json!([claims.get("iss"), claims.get("sub"), named]).to_string().into()))
}

fn of_another_type(name: &str) -> Refusal {
    Refusal::Invalid(Flaw::Claim(name.to_owned()))
}

#[cfg(test)]
pub(super) mod tests;
