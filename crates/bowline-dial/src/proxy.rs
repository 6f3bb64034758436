//! An HTTP proxy on the way to a server: `CONNECT` (RFC 9110 section 9.3.6).

use std::{fmt, io, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Uri;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{limit::PROXY_HEAD_MAX_BYTES, target::reach};

/// A proxy that connections go through, whatever they carry: it is asked for a tunnel, and TLS is between this end and
/// the server. It looks the server's name up.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    /// What stands behind `Basic`.
    credentials: Option<String>,
}

impl Proxy {
    /// Reads `http://[user:password@]host:port`. In user and password, `%XX` stands for a byte. Without a port it is 80.
    ///
    /// # Errors
    ///
    /// It is of another form.
    pub fn parse(url: &str) -> Result<Self, InvalidProxy> {
        let uri = url.parse::<Uri>().map_err(|_| InvalidProxy)?;
        let authority = uri.authority().ok_or(InvalidProxy)?;
        if uri.scheme_str() != Some("http")
            || !matches!(uri.path(), "" | "/")
            || uri.query().is_some()
        {
            return Err(InvalidProxy);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(InvalidProxy);
        }
        let credentials = match authority.as_str().rsplit_once('@') {
            Some((user, _)) => Some(STANDARD.encode(unescaped(user).ok_or(InvalidProxy)?)),
            None => None,
        };
        Ok(Self { host, port: authority.port_u16().unwrap_or(80), credentials })
    }

    /// Where it is, `host:port`, without what it is told in secret.
    pub fn address(&self) -> String {
        authority(&self.host, self.port)
    }

    /// Opens a tunnel to a server, however long that takes.
    pub(crate) async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let mut stream = reach((self.host.as_str(), self.port))
            .await
            .map_err(|error| io::Error::other(format!("the proxy was not reached: {error}")))?;
        let server = authority(host, port);
        let mut request = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n");
        if let Some(credentials) = &self.credentials {
            request.extend(["Proxy-Authorization: Basic ", credentials, "\r\n"]);
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;

        let mut head = Vec::new();
        loop {
            if stream.read_buf(&mut head).await? == 0 {
                return Err(io::Error::other("the proxy closed the connection"));
            }
            if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                judge(&head[..end])?;
                // Who is behind it waits for us to speak: nothing can have come yet.
                return if head.len() == end + 4 { Ok(stream) } else { Err(no_http()) };
            }
            if head.len() > PROXY_HEAD_MAX_BYTES {
                return Err(no_http());
            }
        }
    }
}

impl FromStr for Proxy {
    type Err = InvalidProxy;

    fn from_str(url: &str) -> Result<Self, InvalidProxy> {
        Self::parse(url)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Proxy").field(&self.address()).finish()
    }
}

/// The address of a proxy cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidProxy;

impl fmt::Display for InvalidProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the proxy is not of the form http://user:password@host:port")
    }
}

impl std::error::Error for InvalidProxy {}

/// Whether the head of an answer lets us through.
fn judge(head: &[u8]) -> io::Result<()> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = str::from_utf8(line).map_err(|_| no_http())?;
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
    match status.and_then(|status| status.parse::<u16>().ok()) {
        Some(200..=299) => Ok(()),
        Some(407) => Err(io::Error::other("the proxy wants other credentials (407)")),
        Some(status) => Err(io::Error::other(format!("the proxy refused with status {status}"))),
        None => Err(no_http()),
    }
}

fn no_http() -> io::Error {
    io::Error::other("the proxy did not answer in HTTP")
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Reads what is written with `%XX`.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        rest = others;
        if *first == b'%' {
            let digits = str::from_utf8(others.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &others[2..];
        } else {
            bytes.push(*first);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_read_and_does_not_show_its_password() {
        let proxy = Proxy::parse("http://al%40ice:p%3aw@proxy.example:3128/").unwrap();
        assert_eq!(proxy.address(), "proxy.example:3128");
        assert_eq!(proxy.credentials.as_deref(), Some(&*STANDARD.encode("al@ice:p:w")));
        assert_eq!(format!("{proxy:?}"), r#"Proxy("proxy.example:3128")"#);
        let proxy = "http://[::1]".parse::<Proxy>().unwrap();
        assert_eq!((proxy.address().as_str(), proxy.credentials), ("[::1]:80", None));
    }

    #[test]
    fn what_is_no_proxy_is_refused() {
        for url in
            ["", "proxy:3128", "socks5://proxy:1080", "http://proxy/path", "http://a%zz@proxy"]
        {
            assert_eq!(Proxy::parse(url), Err(InvalidProxy), "{url}");
        }
    }

    #[test]
    fn an_answer_lets_through_or_says_why_not() {
        let words = |head: &str| judge(head.as_bytes()).unwrap_err().to_string();
        judge(b"HTTP/1.1 200 Connection established\r\nVia: x").unwrap();
        judge(b"HTTP/1.0 200").unwrap();
        assert_eq!(words("HTTP/1.1 407 No"), "the proxy wants other credentials (407)");
        assert_eq!(words("HTTP/1.1 503 No"), "the proxy refused with status 503");
        assert_eq!(words("SSH-2.0"), "the proxy did not answer in HTTP");
    }
}
