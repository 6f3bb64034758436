//! Where a connection goes.

use std::{io, time::Duration};

use http::{HeaderName, HeaderValue, Request, Uri, header, uri::Scheme};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};

use crate::{
    ConnectError, Options,
    tls::{Stream, Tls},
};

/// One server, and how it is spoken to.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    host: String,
    port: u16,
    /// The value of `Host`.
    pub(crate) authority: String,
    pub(crate) headers: Vec<(String, String)>,
    connect_timeout: Duration,
    preface: Vec<u8>,
    tls: Option<Tls>,
    pub(crate) max_message_bytes: usize,
}

/// What a URL says besides the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rest {
    pub(crate) namespace: String,
    pub(crate) query: String,
}

impl Target {
    pub(crate) fn parse(url: &str, options: &Options) -> Result<(Self, Rest), ConnectError> {
        let uri = url.parse::<Uri>().map_err(|_| ConnectError::InvalidUrl)?;
        let (secure, port) = match uri.scheme_str() {
            Some("http" | "ws") => (false, 80),
            Some("https" | "wss") => (true, 443),
            Some(_) | None => return Err(ConnectError::InvalidUrl),
        };
        let port = uri.port_u16().unwrap_or(port);
        let authority = uri.authority().ok_or(ConnectError::InvalidUrl)?;
        // Credentials in a URL end up in logs; they belong into a header.
        if authority.as_str().contains('@') {
            return Err(ConnectError::InvalidUrl);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = if secure { Some(Tls::new(&host, &options.trust)?) } else { None };
        let mut headers = options.headers.clone();
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("user-agent")) {
            let agent = concat!("bowline/", env!("CARGO_PKG_VERSION"));
            headers.push(("user-agent".to_owned(), agent.to_owned()));
        }
        let target = Self {
            host,
            port,
            authority: authority.as_str().to_owned(),
            headers,
            connect_timeout: options.connect_timeout,
            preface: options.preface.clone(),
            tls,
            max_message_bytes: options.max_message_bytes,
        };
        let namespace = if uri.path().is_empty() { "/" } else { uri.path() }.to_owned();
        Ok((target, Rest { namespace, query: uri.query().unwrap_or_default().to_owned() }))
    }

    /// The same, where HTTP/2 is offered in TLS.
    pub(crate) fn offering_http2(mut self) -> Self {
        self.tls = self.tls.map(Tls::offering_http2);
        self
    }

    /// Whether the server may choose HTTP/2.
    pub(crate) fn offers_http2(&self) -> bool {
        self.tls.as_ref().is_some_and(Tls::offers_http2)
    }

    /// How long opening a connection may take.
    pub(crate) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// Opens a connection in time.
    pub(crate) async fn connect(&self) -> Result<Stream, String> {
        self.in_time("connecting", self.dial()).await
    }

    /// Opens a connection, however long that takes.
    pub(crate) async fn dial(&self) -> io::Result<Stream> {
        let mut stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        // A small packet must not wait for the acknowledgement of the last one.
        let _ = stream.set_nodelay(true);
        stream.write_all(&self.preface).await?;
        match &self.tls {
            Some(tls) => tls.connect(stream).await,
            None => Ok(Stream::Plain(stream)),
        }
    }

    /// Puts the server's name into a request, and the headers that every request has unless it has them
    /// itself. HTTP/2 has the name in the URI, HTTP/1.1 in a header.
    pub(crate) fn complete<B>(&self, request: &mut Request<B>, http2: bool) {
        let headers = request.headers_mut();
        for (name, value) in &self.headers {
            let pair = (name.parse::<HeaderName>(), value.parse::<HeaderValue>());
            if let (Ok(name), Ok(value)) = pair {
                headers.entry(name).or_insert(value);
            }
        }
        if !http2 {
            if let Ok(host) = self.authority.parse() {
                headers.insert(header::HOST, host);
            }
            return;
        }
        headers.remove(header::HOST);
        let mut parts = request.uri().clone().into_parts();
        parts.scheme = Some(if self.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = self.authority.parse().ok();
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }

    /// Gives something that belongs to opening a connection its time.
    pub(crate) async fn in_time<T, E: std::fmt::Display>(
        &self,
        what: &str,
        doing: impl Future<Output = Result<T, E>>,
    ) -> Result<T, String> {
        match timeout(self.connect_timeout, doing).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(format!("{what} to {}: {error}", self.authority)),
            Err(_) => Err(format!("{what} to {} took too long", self.authority)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Trust;

    #[test]
    fn a_url_names_server_namespace_and_query() {
        let parse = |url| Target::parse(url, &Options::default());
        let (target, rest) = parse("http://example.com/admin?token=1").unwrap();
        assert_eq!((target.host.as_str(), target.port), ("example.com", 80));
        assert_eq!(rest, Rest { namespace: "/admin".to_owned(), query: "token=1".to_owned() });
        // Roots are the machine's, which may have none.
        let trust = Trust::Only(vec![].into());
        let options = Options { trust, ..Options::default() };
        let (target, _) = Target::parse("wss://example.com", &options).unwrap();
        assert_eq!((target.port, target.tls.is_some()), (443, true));
        let (target, rest) = parse("ws://[::1]:8000").unwrap();
        assert_eq!((target.host.as_str(), target.port), ("::1", 8000));
        assert_eq!(target.authority, "[::1]:8000");
        assert_eq!(rest, Rest { namespace: "/".to_owned(), query: String::new() });
    }

    #[test]
    fn a_url_that_cannot_be_dialled_is_refused() {
        let error = |url| Target::parse(url, &Options::default()).unwrap_err();
        for url in ["", "example.com", "/path", "ftp://example.com", "https://user:pw@example.com"]
        {
            assert_eq!(error(url), ConnectError::InvalidUrl, "{url}");
        }
    }
}
