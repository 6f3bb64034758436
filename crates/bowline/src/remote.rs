//! A server that is asked by its URL: its admin listener, or what stands in front of that.

use std::{fmt, fs, path::Path, str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header, uri::Scheme};
use http_body_util::Full;
use serde_json::Value;
use tokio::{net::TcpStream, runtime, time};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};

use crate::{
    control::{ControlError, Trouble, converse, understand},
    trust,
};

/// The URL of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    secure: bool,
    host: String,
    port: u16,
    authority: String,
    /// What its paths begin with, without a slash at the end.
    path: String,
}

/// What opens the admin listener. Is not printed.
#[derive(Clone)]
pub(crate) struct Token(HeaderValue);

impl Token {
    /// Reads the first token of a file such as that of `admin.token-file`.
    ///
    /// # Errors
    /// In words, without the token.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let place = path.display();
        let text = fs::read_to_string(path).map_err(|error| format!("{place}: {error}"))?;
        let token = text.lines().map(str::trim).find(|line| !line.is_empty());
        let token = token.ok_or_else(|| format!("{place}: no token stands in it"))?;
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| format!("{place}: the token has characters that no header can carry"))?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl FromStr for Url {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const WANTED: &str = "such as http://127.0.0.1:8001 or https://gateway.example.com";
        let uri: Uri = text.parse().map_err(|_| WANTED)?;
        let secure = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(WANTED),
        };
        let authority = uri.authority().ok_or(WANTED)?;
        if authority.as_str().contains('@') {
            return Err("without a password: the token goes into a file, for --token-file");
        }
        Ok(Self {
            secure,
            // The brackets of an IPv6 address belong to the URL.
            host: authority.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: authority.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

/// Asks a server for something that may take as long as `patience`.
///
/// # Errors
/// When it does not answer, or says no.
pub(crate) fn ask(
    (url, token): (&Url, Option<&Token>),
    patience: Duration,
    method: &Method,
    target: &str,
    body: &Value,
) -> Result<Value, ControlError> {
    let silent = |error: &dyn fmt::Display| ControlError::Unreachable {
        url: url.to_string(),
        error: error.to_string(),
    };
    let tls =
        if url.secure { Some(trust::system().map_err(|error| silent(&error))?) } else { None };
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| silent(&error))?;
    runtime.block_on(async {
        let exchange = exchange((url, token), tls, method, target, body);
        match time::timeout(patience, exchange).await {
            Ok(Ok((status, body))) => understand(status, &body),
            Ok(Err(Trouble::Connect(error))) => Err(silent(&error)),
            Ok(Err(Trouble::Http(error))) => Err(silent(&error)),
            Err(_) => Err(silent(&format_args!("no answer within {} s", patience.as_secs()))),
        }
    })
}

async fn exchange(
    (url, token): (&Url, Option<&Token>),
    tls: Option<Arc<ClientConfig>>,
    method: &Method,
    target: &str,
    body: &Value,
) -> Result<(http::StatusCode, Bytes), Trouble> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{}{target}", url.path))
        .header(header::HOST, &url.authority)
        .header(header::USER_AGENT, concat!("bowline/", env!("CARGO_PKG_VERSION")))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::from(body.to_string()))
        .map_err(|error| Trouble::Http(error.into()))?;
    if let Some(Token(value)) = token {
        request.headers_mut().insert(header::AUTHORIZATION, value.clone());
    }
    let stream = TcpStream::connect((&*url.host, url.port)).await.map_err(Trouble::Connect)?;
    let Some(tls) = tls else { return converse(stream, request).await };
    let name =
        ServerName::try_from(url.host.clone()).map_err(|error| Trouble::Http(error.into()))?;
    let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(Trouble::Connect)?;
    converse(stream, request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_server_and_perhaps_a_path() {
        let url: Url = "https://gateway.example.com/admin/".parse().unwrap();
        assert_eq!((url.secure, &*url.host, url.port), (true, "gateway.example.com", 443));
        assert_eq!(
            (&*url.path, url.to_string()),
            ("/admin", "https://gateway.example.com/admin".into())
        );
        let url: Url = "http://[::1]:8001".parse().unwrap();
        assert_eq!((&*url.host, url.port, &*url.authority), ("::1", 8001, "[::1]:8001"));
        assert_eq!(url.path, "");
        for wrong in ["", "localhost", "localhost:8001", "ws://a", "http://me:secret@a"] {
            assert!(wrong.parse::<Url>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_the_first_line_of_its_file_and_is_not_printed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "\n  correct-horse-battery \nold-one-old-one-old\n").unwrap();
        let token = Token::read(&path).unwrap();
        assert_eq!(token.0.to_str().unwrap(), "Bearer correct-horse-battery");
        assert_eq!(format!("{token:?}"), "Token");
        fs::write(&path, "\n").unwrap();
        assert!(Token::read(&path).unwrap_err().contains("no token"));
        assert!(Token::read(Path::new("/nonexistent")).unwrap_err().contains("/nonexistent"));
    }
}
