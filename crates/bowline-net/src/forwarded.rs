//! Which proxies are believed when they say for whom they speak.

use std::net::IpAddr;

use bowline_proto::forwarded::client_address;
use http::HeaderMap;
use ipnet::IpNet;

/// The name of the header that is read.
const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// `server.trusted-proxies` and `server.proxy-protocol`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxies {
    pub(crate) trusted: Vec<IpNet>,
    /// Whether public connections begin with a PROXY protocol header.
    pub(crate) header: bool,
}

impl Proxies {
    /// Whether what an address says of others is believed.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        // Most servers name none.
        !self.trusted.is_empty() && {
            let address = address.to_canonical();
            self.trusted.iter().any(|network| network.contains(&address))
        }
    }

    /// Whether a connection from there must begin with a PROXY protocol header: any one, unless
    /// trusted proxies are named.
    pub(crate) fn expects_header(&self, peer: IpAddr) -> bool {
        self.header && (self.trusted.is_empty() || self.trusts(peer))
    }

    /// For whom a request of `peer` is, by its headers.
    pub(crate) fn client_of(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if self.trusted.is_empty() {
            return peer.to_canonical();
        }
        let lines = headers.get_all(X_FORWARDED_FOR).iter().map(http::HeaderValue::as_bytes);
        client_address(peer, lines, |address| self.trusts(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_expected_of_everybody_unless_proxies_are_named() {
        let proxy = IpAddr::from([10, 0, 0, 1]);
        let other = IpAddr::from([192, 0, 2, 1]);
        let mut proxies = Proxies::default();
        assert!(!proxies.expects_header(proxy));
        proxies.header = true;
        assert!(proxies.expects_header(proxy) && proxies.expects_header(other));
        proxies.trusted.push("10.0.0.0/8".parse().unwrap());
        assert!(proxies.expects_header(proxy) && !proxies.expects_header(other));
        // As a listener for both families reports it.
        assert!(proxies.expects_header("::ffff:10.0.0.1".parse().unwrap()));
    }
}
