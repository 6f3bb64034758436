//! TLS on the public listeners: which certificate they show, and how it is replaced while
//! connections live.
//!
//! A new certificate is for new handshakes; nobody is dropped for it. One that cannot be used is
//! kept out, and the last good one stays.

use std::{
    fmt, fs,
    io::{self, Read},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwapOption;
use rustls::{
    ServerConfig,
    crypto::ring::{self, Ticketer},
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};

use crate::{components::Components, limit};

/// `[server.tls]`: what the public listeners show. Both files are PEM; they are looked at every
/// two seconds while the server runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate, and those that lead from it to a root, in this order.
    pub cert_file: PathBuf,
    /// Its private key: PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub key_file: PathBuf,
}

impl Tls {
    /// Reads both files as a server does, without using them.
    ///
    /// # Errors
    ///
    /// What keeps a server with them from starting.
    pub fn check(&self) -> Result<(), TlsError> {
        load(self).map(drop)
    }
}

/// A certificate cannot be used.
#[derive(Debug)]
pub enum TlsError {
    /// A file cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not the PEM that it should be.
    Pem {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        wanted: &'static str,
        /// What the reader of PEM said, if it found anything to read.
        source: Option<pem::Error>,
    },
    /// The two files do not fit together, or TLS cannot work with them.
    Unfit {
        /// The file of the certificate.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The certificate does not say until when it is valid.
    NoExpiry {
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, source } => write!(f, "cannot read {}: {source}", path.display()),
            Self::Pem { path, wanted, source: None } => {
                write!(f, "there is no {wanted} in {}", path.display())
            }
            Self::Pem { path, wanted, source: Some(source) } => {
                write!(f, "there is no readable {wanted} in {}: {source}", path.display())
            }
            Self::Unfit {
                path,
                source: rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch),
            } => write!(f, "the key is not the one of the certificate in {}", path.display()),
            Self::Unfit { path, source } => {
                write!(f, "the certificate in {} cannot be used: {source}", path.display())
            }
            Self::NoExpiry { path } => {
                write!(f, "the certificate in {} is not X.509", path.display())
            }
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::Pem { source, .. } => source.as_ref().map(|source| source as _),
            Self::Unfit { source, .. } => Some(source),
            Self::NoExpiry { .. } => None,
        }
    }
}

/// What is to be known of the certificate of the public listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateView {
    /// When it stops being valid, in seconds since 1970.
    pub expires: i64,
    /// Why what stands in the files now is not in use. Only for operators: it names files.
    pub error: Option<String>,
}

/// How a TLS handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsOutcome {
    /// The connection is secure.
    Done,
    /// The client offered nothing that this server accepts, did not accept the certificate, or
    /// went away.
    Failed,
    /// It took longer than `limits.request-head`.
    TimedOut,
    /// The client spoke plain HTTP and was told so.
    PlainHttp,
}

impl TlsOutcome {
    /// Every outcome, in declaration order.
    pub const ALL: [Self; 4] = [Self::Done, Self::Failed, Self::TimedOut, Self::PlainHttp];

    /// The name operators see, in `bowline_tls_handshakes_total{outcome}`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::TimedOut => "timed-out",
            Self::PlainHttp => "plain-http",
        }
    }
}

/// The certificate of the public listeners, and where it comes from.
pub(crate) struct Certificates {
    components: Arc<Components>,
    current: ArcSwapOption<Loaded>,
    watch: Mutex<Watch>,
    /// Told when there is something else to watch, or nothing any more.
    changed: Condvar,
}

/// A certificate in use.
struct Loaded {
    config: Arc<ServerConfig>,
    leaf: CertificateDer<'static>,
    expires: i64,
}

/// A certificate that was read and is not in use yet.
pub(crate) struct Fresh {
    tls: Tls,
    seen: [Option<Stamp>; 2],
    loaded: Loaded,
}

impl Fresh {
    /// Reads the files, for as long as the disk takes.
    ///
    /// # Errors
    ///
    /// They cannot be used.
    pub(crate) fn read(tls: Option<Tls>) -> Result<Option<Self>, TlsError> {
        let Some(tls) = tls else { return Ok(None) };
        let seen = stamps(&tls);
        let loaded = load(&tls)?;
        Ok(Some(Self { tls, seen, loaded }))
    }
}

#[derive(Default)]
struct Watch {
    files: Option<Watched>,
    replaced: u64,
    refused: u64,
    over: bool,
}

struct Watched {
    tls: Tls,
    seen: [Option<Stamp>; 2],
    /// Looks since the last good one that found nothing usable.
    failed_looks: u32,
    error: Option<String>,
}

/// What of a file changes when it is replaced or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// The component that tells how the certificate is.
const COMPONENT: &str = "certificates";

impl Certificates {
    pub(crate) fn new(components: Arc<Components>) -> Self {
        Self {
            components,
            current: ArcSwapOption::empty(),
            watch: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Reads the files and uses them for handshakes from now on; `None` ends TLS.
    ///
    /// # Errors
    ///
    /// They cannot be used. What was in use stays.
    pub(crate) fn set(&self, tls: Option<Tls>) -> Result<(), TlsError> {
        self.put(Fresh::read(tls)?);
        Ok(())
    }

    /// Uses what was read for handshakes from now on; `None` ends TLS.
    pub(crate) fn put(&self, fresh: Option<Fresh>) {
        let Some(Fresh { tls, seen, loaded }) = fresh else {
            self.current.store(None);
            if self.lock().files.take().is_some() {
                // What was wrong with them is nobody's trouble any more.
                self.components.report(COMPONENT, Ok(()));
            }
            return;
        };
        let mut watch = self.lock();
        let before = self.leaf();
        watch.replaced += u64::from(before.is_some_and(|before| before != loaded.leaf));
        self.current.store(Some(Arc::new(loaded)));
        watch.files = Some(Watched { tls, seen, failed_looks: 0, error: None });
        drop(watch);
        self.changed.notify_all();
        self.components.report(COMPONENT, Ok(()));
    }

    /// What handshakes use now; `None` without TLS.
    pub(crate) fn config(&self) -> Option<Arc<ServerConfig>> {
        self.current.load().as_ref().map(|loaded| Arc::clone(&loaded.config))
    }

    /// Whether the public listeners speak TLS.
    pub(crate) fn is_on(&self) -> bool {
        self.current.load().is_some()
    }

    /// The certificate that is shown, as DER.
    pub(crate) fn leaf(&self) -> Option<CertificateDer<'static>> {
        self.current.load().as_ref().map(|loaded| loaded.leaf.clone())
    }

    pub(crate) fn view(&self) -> Option<CertificateView> {
        let expires = self.current.load().as_ref()?.expires;
        let error = self.lock().files.as_ref().and_then(|files| files.error.clone());
        Some(CertificateView { expires, error })
    }

    /// How often a new certificate was taken, and how often one was kept out.
    pub(crate) fn replacements(&self) -> (u64, u64) {
        let watch = self.lock();
        (watch.replaced, watch.refused)
    }

    /// Looks at the files now. Whether they have changed.
    ///
    /// # Errors
    ///
    /// They have, to something that cannot be used.
    pub(crate) fn look(&self) -> Result<bool, TlsError> {
        self.look_again(true)
    }

    /// Looks at the files every now and then, until [`stop`](Self::stop).
    pub(crate) fn keep_looking(&self) {
        let mut watch = self.lock();
        while !watch.over {
            if watch.files.is_none() {
                watch = self.changed.wait(watch).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let waited = self.changed.wait_timeout(watch, limit::CERTIFICATE_PAUSE);
            drop(waited);
            // It has said so itself.
            let _ = self.look_again(false);
            watch = self.lock();
        }
    }

    /// Ends [`keep_looking`](Self::keep_looking).
    pub(crate) fn stop(&self) {
        self.lock().over = true;
        self.changed.notify_all();
    }

    /// `at_once` says what is wrong even if it may be only that one of two files is not there yet.
    fn look_again(&self, at_once: bool) -> Result<bool, TlsError> {
        let before = (self.lock().files.as_ref())
            .map(|files| (files.tls.clone(), files.seen, files.failed_looks));
        let Some((tls, seen, failed_looks)) = before else { return Ok(false) };
        // Not under the lock: whoever wants figures does not wait for a disk that hangs.
        let stamps = stamps(&tls);
        if stamps == seen && failed_looks == 0 {
            return Ok(false);
        }
        let loaded = load(&tls);
        let watch = &mut *self.lock();
        // Unless a reload was faster.
        let same = |files: &&mut Watched| files.tls == tls && files.seen == seen;
        let Some(files) = watch.files.as_mut().filter(same) else { return Ok(false) };
        files.seen = stamps;
        match loaded {
            Ok(loaded) => {
                tracing::info!(expires = loaded.expires, "the certificate has been replaced");
                self.current.store(Some(Arc::new(loaded)));
                files.failed_looks = 0;
                files.error = None;
                watch.replaced += 1;
                self.components.report(COMPONENT, Ok(()));
                Ok(true)
            }
            Err(error) => {
                files.failed_looks = files.failed_looks.saturating_add(1);
                let words = error.to_string();
                let told = files.error.as_ref() == Some(&words);
                if (at_once || files.failed_looks > 1) && !told {
                    tracing::error!(%error, "a new certificate is kept out, the last one stays");
                    self.components.report(COMPONENT, Err(words.clone()));
                    files.error = Some(words);
                    watch.refused += 1;
                }
                Err(error)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamps(tls: &Tls) -> [Option<Stamp>; 2] {
    [&tls.cert_file, &tls.key_file].map(|path| {
        let metadata = fs::metadata(path).ok()?;
        Some(Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    })
}

fn load(tls: &Tls) -> Result<Loaded, TlsError> {
    let Tls { cert_file, key_file } = tls;
    let chain = read(cert_file)?;
    let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<Vec<_>, _>>();
    let no_pem = |path: &Path, wanted, source| TlsError::Pem {
        path: path.to_owned(),
        wanted,
        source: Some(source).filter(|source| !matches!(source, pem::Error::NoItemsFound)),
    };
    let chain = chain.map_err(|source| no_pem(cert_file, "certificate", source))?;
    let Some(leaf) = chain.first().cloned() else {
        return Err(no_pem(cert_file, "certificate", pem::Error::NoItemsFound));
    };
    let key = PrivateKeyDer::from_pem_slice(&read(key_file)?)
        .map_err(|source| no_pem(key_file, "private key", source))?;
    let (_, x509) = x509_parser::parse_x509_certificate(&leaf)
        .map_err(|_| TlsError::NoExpiry { path: cert_file.clone() })?;
    let expires = x509.validity().not_after.timestamp();

    let unfit = |source| TlsError::Unfit { path: cert_file.clone(), source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unfit)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A crowd that comes back at once resumes, which costs a fraction of a handshake and keeps
    // nothing here.
    config.ticketer = Ticketer::new().map_err(unfit)?;
    Ok(Loaded { config: Arc::new(config), leaf, expires })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = || {
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(limit::PEM_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::mpsc, thread, time::Duration};

    use super::{Arc, COMPONENT, Certificates, Tls, fs};
    use crate::{
        clock::Clock,
        components::{ComponentState, Components},
    };

    const PATIENCE: Duration = Duration::from_secs(30);

    struct Rig {
        certificates: Arc<Certificates>,
        components: Arc<Components>,
        tls: Tls,
        _dir: tempfile::TempDir,
    }

    fn rig() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let file = |name: &str, text: String| -> PathBuf {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let tls = Tls {
            cert_file: file("cert.pem", made.cert.pem()),
            key_file: file("key.pem", made.signing_key.serialize_pem()),
        };
        let components = Components::new(Clock::start(), Vec::new()).unwrap();
        let certificates = Arc::new(Certificates::new(Arc::clone(&components)));
        certificates.set(Some(tls.clone())).unwrap();
        Rig { certificates, components, tls, _dir: dir }
    }

    #[test]
    fn a_disk_that_hangs_holds_up_nobody_who_wants_figures() {
        let Rig { certificates, tls, _dir, .. } = rig();
        // Whoever opens a pipe without a writer waits for one.
        fs::remove_file(&tls.cert_file).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&tls.cert_file).status();
        assert!(made.unwrap().success());
        let looking = {
            let certificates = Arc::clone(&certificates);
            thread::spawn(move || certificates.look().is_err())
        };
        let (told, figures) = mpsc::channel();
        thread::spawn(move || {
            // Long enough that it reads by then. If not, the test finds nothing and fails nobody.
            thread::sleep(Duration::from_millis(200));
            let _ = told.send((certificates.replacements(), certificates.view().is_some()));
        });
        let figures = figures.recv_timeout(PATIENCE);
        // Lets the reader go.
        fs::write(&tls.cert_file, "none").unwrap();
        assert!(looking.join().unwrap());
        assert_eq!(figures, Ok(((0, 0), true)));
    }

    #[test]
    fn without_tls_nothing_is_wrong_with_its_files_any_more() {
        let Rig { certificates, components, tls, _dir } = rig();
        fs::write(&tls.cert_file, "none").unwrap();
        certificates.look().unwrap_err();
        let state = || {
            let views = components.views();
            views.iter().find(|view| view.name == COMPONENT).map(|view| view.state)
        };
        assert_eq!(state(), Some(ComponentState::Failed));
        certificates.set(None).unwrap();
        assert_eq!(state(), Some(ComponentState::Ready));
    }
}
