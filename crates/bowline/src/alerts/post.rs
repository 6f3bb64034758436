//! One POST over a connection of its own. A connection that was kept from the last alert may have
//! died in silence since, and alerts are rare.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::OnceCell,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};

use super::outbox::Outcome;
use crate::trust;

/// For everything from the name to the end of the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is read of an answer.
const ANSWER_BYTES: usize = 64 * 1024;

/// What is shown of an answer.
const SHOWN_CHARS: usize = 200;

/// Sends letters. Remembers which certificates the system trusts.
#[derive(Debug, Default)]
pub(super) struct Sender {
    tls: OnceCell<Arc<ClientConfig>>,
}

/// Why a letter was not taken. Free of the path of the URL, which may be a secret.
#[derive(Debug)]
pub(super) enum PostError {
    /// What was configured is no URL of HTTP.
    Url,
    Connect(std::io::Error),
    Tls(std::io::Error),
    Http(hyper::Error),
    /// Nothing came to an end within [`PATIENCE`].
    Slow,
    Answered {
        status: StatusCode,
        said: String,
    },
}

impl PostError {
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Url => Outcome::Refused,
            Self::Connect(_) | Self::Tls(_) | Self::Http(_) | Self::Slow => Outcome::Failed,
            Self::Answered { status, .. } => match *status {
                StatusCode::REQUEST_TIMEOUT
                | StatusCode::TOO_EARLY
                | StatusCode::TOO_MANY_REQUESTS => Outcome::Failed,
                status if status.is_server_error() => Outcome::Failed,
                _ => Outcome::Refused,
            },
        }
    }
}

impl fmt::Display for PostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url => f.write_str("not a URL of HTTP"),
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Tls(error) => write!(f, "no TLS: {error}"),
            Self::Http(error) => write!(f, "no answer: {error}"),
            Self::Slow => write!(f, "no answer within {} s", PATIENCE.as_secs()),
            Self::Answered { status, said } if said.is_empty() => write!(f, "answered {status}"),
            Self::Answered { status, said } => write!(f, "answered {status}: {said}"),
        }
    }
}

impl Sender {
    /// Sends JSON. Any 2xx is success; redirects are not followed.
    ///
    /// # Errors
    /// When it was not taken.
    pub(super) async fn post(&self, url: &str, json: String) -> Result<(), PostError> {
        timeout(PATIENCE, self.exchange(url, json)).await.unwrap_or(Err(PostError::Slow))
    }

    async fn exchange(&self, url: &str, json: String) -> Result<(), PostError> {
        let uri: Uri = url.parse().map_err(|_| PostError::Url)?;
        let (Some(host), Some(authority)) = (uri.host(), uri.authority()) else {
            return Err(PostError::Url);
        };
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, authority.as_str())
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(header::USER_AGENT, concat!("bowline/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from(json)))
            .map_err(|_| PostError::Url)?;

        // The brackets of an IPv6 address belong to the URL.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, port)).await.map_err(PostError::Connect)?;
        if !secure {
            return ask(stream, request).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| PostError::Url)?;
        let tls = TlsConnector::from(self.tls().await?);
        ask(tls.connect(name, stream).await.map_err(PostError::Tls)?, request).await
    }

    /// The settings for TLS, with the certificates that the system trusts.
    async fn tls(&self) -> Result<Arc<ClientConfig>, PostError> {
        let made = self.tls.get_or_try_init(|| async {
            // Reads files.
            tokio::task::spawn_blocking(trust::system).await.map_err(std::io::Error::other)?
        });
        made.await.cloned().map_err(PostError::Tls)
    }
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(), PostError> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(PostError::Http)?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(PostError::Http)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let said = String::from_utf8_lossy(&body);
        let said = said.trim().chars().take(SHOWN_CHARS).collect::<String>();
        Err(PostError::Answered { status, said: said.escape_debug().to_string() })
    };
    // The connection makes progress only while it is polled; it ends when this function does.
    let mut connection = Box::pin(connection);
    let mut exchange = std::pin::pin!(exchange);
    let broken = tokio::select! {
        biased;
        done = &mut exchange => return done,
        broken = &mut connection => broken.err(),
    };
    // What was answered before the connection broke counts: many servers end TLS without a word.
    drop(connection);
    exchange.await.map_err(|error| match (error, broken) {
        (PostError::Http(_), Some(broken)) => PostError::Http(broken),
        (error, _) => error,
    })
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        task::JoinSet,
    };
    use tokio_rustls::{
        TlsAcceptor,
        rustls::{
            RootCertStore, ServerConfig, crypto,
            pki_types::{CertificateDer, PrivateKeyDer},
        },
    };

    use super::*;

    #[tokio::test]
    async fn a_letter_goes_over_tls_to_whom_the_system_trusts_only() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = CertificateDer::from(made.cert.der().to_vec());
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // One that does not trust us goes away again.
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut bytes = [0; 4_096];
                let length = stream.read(&mut bytes).await.unwrap();
                assert!(bytes[..length].starts_with(b"POST / HTTP/1.1\r\n"));
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            }
        });

        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let trusting = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let sender = Sender { tls: OnceCell::new_with(Some(Arc::new(trusting))) };
        sender.post(&url, "{}".to_owned()).await.unwrap();
        let error = Sender::default().post(&url, "{}".to_owned()).await.unwrap_err();
        assert!(matches!(error, PostError::Tls(_)), "{error}");
        assert_eq!(error.outcome(), Outcome::Failed);
    }

    #[tokio::test]
    async fn nobody_there_is_a_failure_that_does_not_show_the_path() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/secret-path", listener.local_addr().unwrap());
        drop(listener);
        let error = Sender::default().post(&url, "{}".to_owned()).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Failed);
        let words = error.to_string();
        assert!(words.starts_with("cannot connect: ") && !words.contains("secret"), "{words}");
    }

    #[test]
    fn what_may_help_later_is_told_from_what_never_will() {
        let outcome = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            PostError::Answered { status, said: String::new() }.outcome()
        };
        for status in [408, 429, 500, 502, 503] {
            assert_eq!(outcome(status), Outcome::Failed, "{status}");
        }
        for status in [301, 400, 401, 404, 413] {
            assert_eq!(outcome(status), Outcome::Refused, "{status}");
        }
    }
}
