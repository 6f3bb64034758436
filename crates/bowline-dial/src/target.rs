//! Where a connection goes.

use std::{io, net::SocketAddr, time::Duration};

use http::{HeaderName, HeaderValue, Request, Uri, header, uri::Scheme};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpStream, ToSocketAddrs, lookup_host},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    ConnectError, Options, Proxy,
    limit::NEXT_ADDRESS_AFTER,
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
    proxy: Option<Proxy>,
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
        Self::parse_with(url, options, |host| Tls::new(host, &options.trust))
    }

    /// The same, where somebody else says how TLS is spoken.
    pub(crate) fn parse_with(
        url: &str,
        options: &Options,
        tls: impl Fn(&str) -> Result<Tls, ConnectError>,
    ) -> Result<(Self, Rest), ConnectError> {
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
        let tls = if secure { Some(tls(&host)?) } else { None };
        let target = Self::build(host, port, authority.as_str().to_owned(), tls, options);
        let namespace = if uri.path().is_empty() { "/" } else { uri.path() }.to_owned();
        Ok((target, Rest { namespace, query: uri.query().unwrap_or_default().to_owned() }))
    }

    /// A server that no URL names.
    pub(crate) fn new(
        host: &str,
        port: u16,
        secure: bool,
        options: &Options,
    ) -> Result<Self, ConnectError> {
        let tls = if secure { Some(Tls::new(host, &options.trust)?) } else { None };
        let authority =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Ok(Self::build(host.to_owned(), port, authority, tls, options))
    }

    fn build(
        host: String,
        port: u16,
        authority: String,
        tls: Option<Tls>,
        options: &Options,
    ) -> Self {
        let mut headers = options.headers.clone();
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("user-agent")) {
            let agent = concat!("bowline/", env!("CARGO_PKG_VERSION"));
            headers.push(("user-agent".to_owned(), agent.to_owned()));
        }
        Self {
            host,
            port,
            authority,
            headers,
            connect_timeout: options.connect_timeout,
            proxy: options.proxy.clone(),
            preface: options.preface.clone(),
            tls,
            max_message_bytes: options.max_message_bytes,
        }
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

    /// Whether TLS is spoken.
    pub(crate) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// How long opening a connection may take.
    pub(crate) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// Opens a connection in time.
    pub(crate) async fn connect(&self) -> Result<Stream, String> {
        self.in_time("connecting", self.dial()).await
    }

    /// Opens a connection, however long that takes. The name is looked up each time.
    pub(crate) async fn dial(&self) -> io::Result<Stream> {
        let mut stream = match &self.proxy {
            Some(proxy) => proxy.connect(&self.host, self.port).await?,
            None => reach((self.host.as_str(), self.port)).await?,
        };
        // A small packet must not wait for the acknowledgement of the last one.
        let _ = stream.set_nodelay(true);
        stream.write_all(&self.preface).await?;
        match &self.tls {
            Some(tls) => tls.connect(stream).await,
            None => Ok(Stream::plain(stream)),
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

/// Connects to the first of a server's addresses that answers. Each next one is tried a little later, or as soon as one
/// has failed (RFC 8305 section 5): one that swallows everything must not take all the time there is.
pub(crate) async fn reach(server: impl ToSocketAddrs) -> io::Result<TcpStream> {
    let mut addresses = alternating(lookup_host(server).await?.collect()).into_iter();
    let first = addresses.next().ok_or_else(|| io::Error::other("the name has no address"))?;
    if addresses.len() == 0 {
        return TcpStream::connect(first).await;
    }
    let mut attempts = JoinSet::new();
    attempts.spawn(TcpStream::connect(first));
    loop {
        let has_more = addresses.len() > 0;
        tokio::select! {
            Some(attempt) = attempts.join_next() => match attempt.map_err(io::Error::other)? {
                Ok(stream) => return Ok(stream),
                Err(error) if !has_more && attempts.is_empty() => return Err(error),
                Err(_) => {}
            },
            () = sleep(NEXT_ADDRESS_AFTER), if has_more => {}
        }
        if let Some(address) = addresses.next() {
            attempts.spawn(TcpStream::connect(address));
        }
    }
}

/// The addresses as they came, but of both families in turn.
fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let is_first = addresses.first().map(SocketAddr::is_ipv6);
    let (ones, others): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| Some(address.is_ipv6()) == is_first);
    let mut others = others.into_iter();
    let mut all: Vec<_> =
        ones.into_iter().flat_map(|one| [Some(one), others.next()]).flatten().collect();
    all.extend(others);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Trust;

    #[test]
    fn addresses_are_tried_in_turn_by_family() {
        let of =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        let found = of(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "1.1.1.2:1"]);
        let tried = of(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1", "[::3]:1"]);
        assert_eq!(alternating(found), tried);
        let found = of(&["1.1.1.1:1", "[::1]:1", "[::2]:1"]);
        assert_eq!(alternating(found.clone()), found);
        assert_eq!(alternating(Vec::new()), []);
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_does_not_hold_up_the_next() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = listener.local_addr().unwrap();
        // For documentation (RFC 5737): nobody answers. Nor does anybody listen at port 1.
        let gone = "192.0.2.1:9".parse().unwrap();
        let refused = "127.0.0.1:1".parse().unwrap();
        for addresses in [vec![there], vec![refused, there], vec![gone, refused, there]] {
            let stream = reach(&addresses[..]).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), there);
        }
        reach(&[refused, refused][..]).await.unwrap_err();
        reach(&[][..]).await.unwrap_err();
    }

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
