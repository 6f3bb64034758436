//! The PROXY protocol (versions 1 and 2): the first bytes of a connection say for whom it is.
//!
//! A header ends where it says itself, so what follows must stay in the socket: bytes are looked at
//! first and taken only when they are known to belong to the header.

use std::{fmt, io, net::SocketAddr};

use proxy_header::{Error, ParseConfig, ProxyHeader};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use crate::limit;

/// A connection does not begin with a header that can be read.
#[derive(Debug)]
pub(crate) enum HeaderError {
    /// The connection ended, or failed, before the header did.
    Io(io::Error),
    /// It is none.
    Invalid,
    /// It is longer than any proxy's.
    TooLong,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the connection ended before its header: {error}"),
            Self::Invalid => f.write_str("there is no PROXY protocol header"),
            Self::TooLong => f.write_str("the PROXY protocol header is too long"),
        }
    }
}

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
enum Beginning {
    /// A header of so many bytes. `None` stands for the peer itself: a health check of the proxy,
    /// or a client whose address it does not know.
    Header { bytes: usize, client: Option<SocketAddr> },
    /// The beginning of a header, all of them.
    Part,
}

/// Reads the header. Whom the connection is for, if that is not the peer.
pub(crate) async fn read(stream: &mut TcpStream) -> Result<Option<SocketAddr>, HeaderError> {
    let mut header = Vec::new();
    let mut scratch = [0; 512];
    loop {
        let seen = stream.peek(&mut scratch).await.map_err(HeaderError::Io)?;
        if seen == 0 {
            return Err(HeaderError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        let had = header.len();
        header.extend_from_slice(&scratch[..seen]);
        let beginning = beginning(&header)?;
        let ours = match beginning {
            Beginning::Header { bytes, .. } => bytes - had,
            Beginning::Part => seen,
        };
        stream.read_exact(&mut scratch[..ours]).await.map_err(HeaderError::Io)?;
        if let Beginning::Header { client, .. } = beginning {
            return Ok(client);
        }
    }
}

fn beginning(bytes: &[u8]) -> Result<Beginning, HeaderError> {
    const PREFIXES: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];
    // Said at once: what is no header will never be one, however long it is waited for.
    let may_be = PREFIXES.iter().any(|prefix| {
        let len = prefix.len().min(bytes.len());
        prefix[..len] == bytes[..len]
    });
    if !may_be {
        return Err(HeaderError::Invalid);
    }
    let config = ParseConfig { include_tlvs: false, allow_v1: true, allow_v2: true };
    match ProxyHeader::parse(bytes, config) {
        Ok((header, bytes)) => {
            let client = header.proxied_address().map(|address| address.source);
            Ok(Beginning::Header { bytes, client })
        }
        Err(Error::BufferTooShort) if bytes.len() >= limit::PROXY_HEADER_BYTES => {
            Err(HeaderError::TooLong)
        }
        Err(Error::BufferTooShort) => Ok(Beginning::Part),
        Err(_) => Err(HeaderError::Invalid),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proxy_header::ProxiedAddress;

    use super::*;

    #[test]
    fn both_versions_name_the_client() {
        let v1 = b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\nGET / HTTP/1.1\r\n";
        let client = Some("192.0.2.1:4711".parse().unwrap());
        assert_eq!(beginning(v1).unwrap(), Beginning::Header { bytes: 40, client });
        let v6 = b"PROXY TCP6 2001:db8::1 ::1 4711 443\r\n";
        let client = Some("[2001:db8::1]:4711".parse().unwrap());
        assert_eq!(beginning(v6).unwrap(), Beginning::Header { bytes: v6.len(), client });
        let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        v2.extend([192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x67, 1, 0xbb]);
        let client = Some("192.0.2.1:4711".parse().unwrap());
        assert_eq!(beginning(&v2).unwrap(), Beginning::Header { bytes: 28, client });
    }

    #[test]
    fn a_proxy_may_speak_for_itself() {
        let unknown = b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n";
        let none = |bytes| Beginning::Header { bytes, client: None };
        assert_eq!(beginning(unknown).unwrap(), none(unknown.len()));
        assert_eq!(beginning(b"PROXY UNKNOWN\r\nGET").unwrap(), none(15));
        assert_eq!(beginning(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0rest").unwrap(), none(16));
    }

    #[test]
    fn what_is_no_header_is_known_by_its_first_bytes() {
        for bytes in [
            b"G".as_slice(),
            b"POST / HTTP/1.1\r\n",
            b"\x16\x03\x01",
            b"PROXY TCP4 here there 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\rGET",
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c",
        ] {
            let result = beginning(bytes);
            assert!(matches!(result, Err(HeaderError::Invalid)), "{bytes:?}: {result:?}");
        }
        let endless = b"PROXY UNKNOWN ".iter().copied().chain([b'x'; 200]).collect::<Vec<_>>();
        assert!(beginning(&endless).is_err());
        let mut long = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec();
        long.resize(limit::PROXY_HEADER_BYTES, 0);
        assert!(matches!(beginning(&long), Err(HeaderError::TooLong)));
    }

    proptest! {
        #[test]
        fn a_header_is_the_same_however_it_is_split(
            source in any::<([u8; 16], u16)>(),
            v6 in any::<bool>(),
            second in any::<bool>(),
            rest in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let address = |(bytes, port): ([u8; 16], u16)| {
                let ip = if v6 {
                    std::net::Ipv6Addr::from(bytes).into()
                } else {
                    let [a, b, c, d, ..] = bytes;
                    std::net::IpAddr::from([a, b, c, d])
                };
                SocketAddr::new(ip, port)
            };
            let client = address(source);
            let header =
                ProxyHeader::with_address(ProxiedAddress::stream(client, address(([1; 16], 1))));
            let mut bytes = Vec::new();
            if second { header.encode_v2(&mut bytes) } else { header.encode_v1(&mut bytes) }.unwrap();
            let len = bytes.len();
            bytes.extend_from_slice(&rest);
            for end in 1..len {
                prop_assert_eq!(beginning(&bytes[..end]).unwrap(), Beginning::Part);
            }
            let whole = Beginning::Header { bytes: len, client: Some(client) };
            prop_assert_eq!(beginning(&bytes).unwrap(), whole);
        }

        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..200), first in 0..3) {
            let mut all = match first {
                0 => Vec::new(),
                1 => b"PROXY TCP4 ".to_vec(),
                _ => b"\r\n\r\n\0\r\nQUIT\n".to_vec(),
            };
            all.extend(bytes);
            if let Ok(Beginning::Header { bytes, .. }) = beginning(&all) {
                prop_assert!(bytes <= all.len());
            }
        }
    }
}
