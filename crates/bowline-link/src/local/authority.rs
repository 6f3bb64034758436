//! The certificate authority of this machine: made here once, believed only by bots that are told so, and the
//! certificates of hosts that it signs.
//!
//! Its key never leaves its directory. Whoever could read it could also read the bots' tokens beside it.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SerialNumber, date_time_ymd,
};
use ring::digest;
use rustls::{
    ServerConfig,
    crypto::ring as provider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};

use super::{
    files::{Directory, LocalError},
    limit,
};
use crate::clock;

/// The key and the certificate of the authority, together in one file, so that they always fit.
const KEY_FILE: &str = "ca-key.pem";

/// Its certificate alone, for those who want to look at it.
const CERTIFICATE_FILE: &str = "ca.pem";

/// The roots of the system and the authority, for bots.
const BUNDLE_FILE: &str = "ca-bundle.pem";

/// The name of this machine in certificates and URLs.
pub(super) const LOCALHOST: &str = "localhost";

const DAY: Duration = Duration::from_secs(86_400);

/// Ten years: a new one would mean to start every bot anew.
const VALID: Duration = Duration::from_secs(3650 * 86_400);

/// An authority that has less left is replaced when a process starts.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);

/// How long the certificate of a host is valid. They are made in memory, so they may be short.
const LEAF_VALID: Duration = Duration::from_secs(90 * 86_400);

/// After that a certificate of a host is made anew.
const LEAF_USED: Duration = Duration::from_secs(30 * 86_400);

/// The files that bots are told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) certificate: std::path::PathBuf,
    pub(super) bundle: std::path::PathBuf,
}

/// Signs certificates of hosts.
#[derive(Debug)]
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The one key of all certificates of hosts, of this process alone.
    leaf_key: KeyPair,
    /// By host: what a handshake is answered with, and since when.
    hosts: Mutex<HashMap<String, (Arc<ServerConfig>, u64)>>,
}

impl Authority {
    /// Reads the authority, or makes it; writes beside it what bots are told of.
    pub(super) fn open(path: &Path) -> Result<(Self, Files), LocalError> {
        let directory = Directory::lock(path)?;
        let now = now();
        let (key, certificate) = match directory.read(KEY_FILE)?.map(|text| read(&text, now)) {
            Some(Ok(found)) => found,
            Some(Err(why)) => {
                tracing::warn!(%why, "the authority of the links is made anew; bots must be told");
                make(&directory, now)?
            }
            None => make(&directory, now)?,
        };

        let own = pem("CERTIFICATE", &certificate);
        directory.keep(CERTIFICATE_FILE, &own)?;
        let mut bundle = String::new();
        for root in rustls_native_certs::load_native_certs().certs {
            bundle.push_str(&pem("CERTIFICATE", &root));
        }
        bundle.push_str(&own);
        directory.keep(BUNDLE_FILE, &bundle)?;

        let files = Files {
            certificate: directory.file(CERTIFICATE_FILE),
            bundle: directory.file(BUNDLE_FILE),
        };
        let unusable = |error| LocalError::new("use the authority of the links", error);
        let leaf_key = KeyPair::generate().map_err(unusable)?;
        let issuer = Issuer::new(authority_params(&key, now)?, key);
        Ok((Self { issuer, leaf_key, hosts: Mutex::default() }, files))
    }

    /// How a handshake for a host is answered. The client must name the host, unless it is one that is never named: an
    /// address, or this machine.
    pub(super) fn server_config(&self, host: &str) -> Result<Arc<ServerConfig>, LocalError> {
        let now = now();
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((config, made)) = hosts.get(host)
            && now.saturating_sub(*made) < LEAF_USED.as_secs()
        {
            return Ok(Arc::clone(config));
        }
        if hosts.len() >= limit::CERTIFICATES_MAX {
            hosts.clear();
        }
        let config = Arc::new(self.make_server_config(host, now)?);
        hosts.insert(host.to_owned(), (Arc::clone(&config), now));
        Ok(config)
    }

    fn make_server_config(&self, host: &str, now: u64) -> Result<ServerConfig, LocalError> {
        let wanted = || format!("make a certificate for {host}");
        let names = match host {
            LOCALHOST => vec![LOCALHOST.to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()],
            host => vec![host.to_owned()],
        };
        let mut params =
            CertificateParams::new(names).map_err(|error| LocalError::new(wanted(), error))?;
        params.distinguished_name = named("Bowline link");
        params.serial_number = Some(serial()?);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, now, LEAF_VALID);
        let certificate = params
            .signed_by(&self.leaf_key, &self.issuer)
            .map_err(|error| LocalError::new(wanted(), error))?;

        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.leaf_key.serialize_der()));
        let key = provider::sign::any_ecdsa_type(&key)
            .map_err(|error| LocalError::new(wanted(), error))?;
        let shown = OneHost {
            host: host.to_owned(),
            may_be_unnamed: host == LOCALHOST || host.parse::<IpAddr>().is_ok(),
            key: Arc::new(CertifiedKey::new(vec![certificate.der().clone()], key)),
        };
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|error| LocalError::new(wanted(), error))?
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(shown));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// The certificate for one host, and for no other.
#[derive(Debug)]
struct OneHost {
    host: String,
    may_be_unnamed: bool,
    key: Arc<CertifiedKey>,
}

impl ResolvesServerCert for OneHost {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = match hello.server_name() {
            Some(name) => name.eq_ignore_ascii_case(&self.host),
            None => self.may_be_unnamed,
        };
        fits.then(|| Arc::clone(&self.key))
    }
}

/// Reads an authority that was written before.
fn read(text: &str, now: u64) -> Result<(KeyPair, CertificateDer<'static>), String> {
    let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
        .map_err(|error| format!("its key cannot be read: {error}"))?;
    let key = KeyPair::try_from(&key).map_err(|error| format!("its key is none: {error}"))?;
    let certificate = CertificateDer::from_pem_slice(text.as_bytes())
        .map_err(|error| format!("its certificate cannot be read: {error}"))?;

    let (_, x509) = x509_parser::parse_x509_certificate(&certificate)
        .map_err(|_| "its certificate is none".to_owned())?;
    if x509.public_key().raw != key.subject_public_key_info() {
        return Err("its key is not the one of its certificate".to_owned());
    }
    let until = u64::try_from(x509.validity().not_after.timestamp()).unwrap_or(0);
    if until < now + RENEW_BEFORE.as_secs() {
        return Err("its certificate is about to expire".to_owned());
    }
    Ok((key, certificate))
}

/// Makes an authority.
fn make(directory: &Directory, now: u64) -> Result<(KeyPair, CertificateDer<'static>), LocalError> {
    let failed = |error| LocalError::new("make the authority of the links", error);
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = authority_params(&key, now)?.self_signed(&key).map_err(failed)?;
    let certificate = certificate.der().clone();
    let both = key.serialize_pem() + &pem("CERTIFICATE", &certificate);
    directory.write(KEY_FILE, &both)?;
    Ok((key, certificate))
}

/// What the certificate of the authority says. Its name is made of its key: two authorities of one machine, of two
/// instances, are told apart by it, and it need not be read out of the certificate again.
fn authority_params(key: &KeyPair, now: u64) -> Result<CertificateParams, LocalError> {
    let hash = digest::digest(&digest::SHA256, &key.subject_public_key_info());
    let mark = hash.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect::<String>();

    let mut params = CertificateParams::default();
    params.distinguished_name = named(&format!("Bowline links on this machine {mark}"));
    params.serial_number = Some(serial()?);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, now, VALID);
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// From yesterday on, since clocks differ.
fn valid(params: &mut CertificateParams, now: u64, how_long: Duration) {
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(now);
    params.not_before = now - DAY;
    params.not_after = now + how_long;
}

fn serial() -> Result<SerialNumber, LocalError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| LocalError::new("get random bytes", error))?;
    // Positive, and of one length.
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// One section of a PEM file (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out + &format!("-----END {label}-----\n")
}

/// In seconds since 1970.
fn now() -> u64 {
    clock::unix_ms() / 1000
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::*;

    #[test]
    fn the_authority_is_made_once_although_many_want_it_at_the_same_time() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("links");
        let keys = thread::scope(|scope| {
            let open = || {
                let (_, files) = Authority::open(&path).unwrap();
                let key = fs::read_to_string(path.join(KEY_FILE)).unwrap();
                (key, fs::read_to_string(files.bundle).unwrap())
            };
            let all = (0..8).map(|_| scope.spawn(open)).collect::<Vec<_>>();
            all.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
        let (key, bundle) = &keys[0];
        let own = fs::read_to_string(path.join(CERTIFICATE_FILE)).unwrap();
        assert!(bundle.ends_with(&own) && key.ends_with(&own));
        assert!(!bundle.contains("PRIVATE"));
        assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"));
    }

    #[test]
    fn an_authority_that_is_broken_or_nearly_expired_is_made_anew() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path();
        Authority::open(path).unwrap();
        let first = fs::read_to_string(path.join(KEY_FILE)).unwrap();
        let of = |text: &str, now: u64| read(text, now).map(|_| ());

        assert_eq!(of(&first, now()), Ok(()));
        assert!(of(&first, now() + VALID.as_secs() - DAY.as_secs()).is_err());
        assert!(of("", now()).is_err());
        let certificate = fs::read_to_string(path.join(CERTIFICATE_FILE)).unwrap();
        let other = KeyPair::generate().unwrap().serialize_pem() + &certificate;
        assert_eq!(of(&other, now()), Err("its key is not the one of its certificate".to_owned()));

        fs::write(path.join(KEY_FILE), "-----BEGIN PRIVATE KEY-----\nhalf").unwrap();
        Authority::open(path).unwrap();
        let second = fs::read_to_string(path.join(KEY_FILE)).unwrap();
        assert_ne!(first, second);
        assert_eq!(of(&second, now()), Ok(()));
    }

    #[test]
    fn certificates_of_hosts_are_kept_and_their_number_is_bounded() {
        let temporary = tempfile::tempdir().unwrap();
        let (authority, _) = Authority::open(temporary.path()).unwrap();
        let one = authority.server_config("service.example").unwrap();
        assert!(Arc::ptr_eq(&one, &authority.server_config("service.example").unwrap()));
        for number in 0..limit::CERTIFICATES_MAX {
            authority.server_config(&format!("h{number}.example")).unwrap();
        }
        let known = authority.hosts.lock().unwrap().len();
        assert!(known <= limit::CERTIFICATES_MAX, "{known}");
        authority.server_config("127.0.0.1").unwrap();
        authority.server_config(LOCALHOST).unwrap();
    }
}
