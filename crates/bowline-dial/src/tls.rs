//! TLS to servers: whom to believe, and the connection.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::ConnectError;

/// Which servers are believed at the other end of TLS. Without TLS it does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those whose certificate leads to a root that the operating system trusts, and is for the
    /// name in the URL, now.
    #[default]
    System,
    /// The same, where these roots count too.
    SystemAnd(Vec<CertificateDer<'static>>),
    /// The one that has the key of exactly this certificate, for whatever name and time that is:
    /// for a server that is known already.
    Only(CertificateDer<'static>),
}

/// The name of HTTP/2 in TLS (RFC 9113 section 3.2).
const HTTP2: &[u8] = b"h2";

/// How one server is spoken to.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    pub(crate) fn new(host: &str, trust: &Trust) -> Result<Self, ConnectError> {
        // What is no name is told before anything about roots.
        let name = server_name(host)?;
        Ok(Self { config: Self::config(trust)?, name })
    }

    /// How one of several servers is spoken to that share all but their names.
    pub(crate) fn with(config: &Arc<ClientConfig>, host: &str) -> Result<Self, ConnectError> {
        Ok(Self { config: Arc::clone(config), name: server_name(host)? })
    }

    /// What is the same for all servers. Every connection holds it, so those that believe the same share one.
    pub(crate) fn config(trust: &Trust) -> Result<Arc<ClientConfig>, ConnectError> {
        static SYSTEM: OnceLock<Arc<ClientConfig>> = OnceLock::new();
        if *trust != Trust::System {
            return Self::make(trust);
        }
        if let Some(config) = SYSTEM.get() {
            return Ok(Arc::clone(config));
        }
        let made = Self::make(trust)?;
        Ok(Arc::clone(SYSTEM.get_or_init(|| made)))
    }

    fn make(trust: &Trust) -> Result<Arc<ClientConfig>, ConnectError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|_| ConnectError::NoRoots)?;
        let mut config = match trust {
            Trust::System => builder.with_root_certificates(roots(&[])?).with_no_client_auth(),
            Trust::SystemAnd(extra) => {
                builder.with_root_certificates(roots(extra)?).with_no_client_auth()
            }
            Trust::Only(certificate) => {
                let certificate = certificate.clone();
                let only = Arc::new(OnlyThis { certificate, provider });
                builder.dangerous().with_custom_certificate_verifier(only).with_no_client_auth()
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// The same, where the server may choose HTTP/2.
    pub(crate) fn offering_http2(mut self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
        self.config = Arc::new(config);
        self
    }

    /// Whether the server may choose HTTP/2.
    pub(crate) fn offers_http2(&self) -> bool {
        self.config.alpn_protocols.iter().any(|name| name == HTTP2)
    }

    /// Shakes hands.
    pub(crate) async fn connect(&self, stream: TcpStream) -> io::Result<Stream> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let connected = connector.connect(self.name.clone(), stream).await?;
        Ok(Stream(Carrier::Tls(Box::new(connected))))
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, ConnectError> {
    ServerName::try_from(host.to_owned()).map_err(|_| ConnectError::InvalidUrl)
}

/// The roots of the system, and others. Those of the system are read once.
fn roots(extra: &[CertificateDer<'static>]) -> Result<RootCertStore, ConnectError> {
    static SYSTEM: OnceLock<RootCertStore> = OnceLock::new();
    let system = SYSTEM.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        // What cannot be read or used is as good as not there.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    });
    let mut roots = system.clone();
    roots.add_parsable_certificates(extra.iter().cloned());
    if roots.is_empty() { Err(ConnectError::NoRoots) } else { Ok(roots) }
}

/// Believes whoever holds the key of one certificate.
#[derive(Debug)]
struct OnlyThis {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for OnlyThis {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A connection, with TLS or without.
#[derive(Debug)]
pub struct Stream(Carrier);

#[derive(Debug)]
enum Carrier {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub(crate) fn plain(stream: TcpStream) -> Self {
        Self(Carrier::Plain(stream))
    }

    /// Whether the server has chosen HTTP/2.
    pub(crate) fn speaks_http2(&self) -> bool {
        match &self.0 {
            Carrier::Plain(_) => false,
            Carrier::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(HTTP2),
        }
    }

    /// When it is dropped, nothing that is queued in the system is sent any more, and the other end is told by a reset.
    pub(crate) fn end_hard(&self) {
        let tcp = match &self.0 {
            Carrier::Plain(stream) => stream,
            Carrier::Tls(stream) => stream.get_ref().0,
        };
        // What cannot be set ends a little later.
        let _ = tcp.set_zero_linger();
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Carrier::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Carrier::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Carrier::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Carrier::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Carrier::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Carrier::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Carrier::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Carrier::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Carrier::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Carrier::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
