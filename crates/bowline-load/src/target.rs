//! What is measured: an address and a path.

use std::{
    fmt,
    net::{SocketAddr, ToSocketAddrs as _},
    str::FromStr,
};

/// Where Socket.IO servers listen unless they are told otherwise.
const PATH: &str = "/socket.io/";

/// The server that is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where connections go.
    pub(crate) address: SocketAddr,
    /// What the `Host` header says.
    pub(crate) authority: String,
    /// The path of the engine, with a slash at its end.
    pub(crate) path: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const WANTED: &str = "such as http://127.0.0.1:8000, and with the path of the engine if it is not /socket.io/";
        if text.starts_with("https://") || text.starts_with("wss://") {
            return Err("TLS is not measured: give the http address behind it".into());
        }
        let text =
            text.strip_prefix("ws://").map(|rest| format!("http://{rest}")).unwrap_or(text.into());
        Self::parse(&text, PATH, WANTED)
    }
}

impl Target {
    /// Reads a URL; with this path if it has none. `wanted` says what would be one.
    pub(crate) fn parse(text: &str, default_path: &str, wanted: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("http://").ok_or(wanted)?;
        let (authority, path) = match rest.split_once('/') {
            None | Some((_, "")) => (rest.trim_end_matches('/'), default_path.to_owned()),
            Some((authority, path)) => (authority, format!("/{}/", path.trim_end_matches('/'))),
        };
        // Whoever is asked would read more lines as more headers.
        let odd = |c: char| c.is_control() || matches!(c, '?' | '#' | ' ');
        if authority.is_empty() || authority.contains('@') || rest.contains(odd) {
            return Err(wanted.into());
        }
        let with_port = match authority.rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => authority.to_owned(),
            _ => format!("{authority}:80"),
        };
        let mut found =
            with_port.to_socket_addrs().map_err(|error| format!("{error}; {wanted}"))?;
        let address = found.next().ok_or("the name has no address")?;
        Ok(Self { address, authority: authority.to_owned(), path })
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self { address, authority: address.to_string(), path: PATH.to_owned() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_address_and_perhaps_a_path() {
        let target: Target = "http://127.0.0.1:8000".parse().unwrap();
        assert_eq!((target.address.to_string().as_str(), &*target.path), ("127.0.0.1:8000", PATH));
        assert_eq!("http://127.0.0.1:8000/".parse(), Ok(target.clone()));
        assert_eq!(target.to_string().parse(), Ok(target));
        let target: Target = "http://[::1]/chat/io".parse().unwrap();
        assert_eq!((target.address.to_string().as_str(), &*target.path), ("[::1]:80", "/chat/io/"));
        for wrong in ["", "localhost", "https://a", "http://", "http://a b:1", "http://me@a:1"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }
}
