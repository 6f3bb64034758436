//! Whose request a proxy passes on: the header `X-Forwarded-For`.
//!
//! Every proxy appends the address it was called from, so the list reads from the client to the
//! last proxy, and only what trusted proxies wrote is true: it is read from the right, and the
//! first address that is no trusted proxy is the client's. What stands to the left of it, anybody
//! may have written.
//!
//! `Forwarded` (RFC 7239) is not read: a client that leaves a quote open decides how what the
//! proxies append to it is split.

use std::net::{IpAddr, SocketAddr};

/// Addresses that are looked at. A request passes a handful of proxies; a list that is longer is
/// somebody's attempt to be expensive.
const HOPS_MAX: usize = 64;

/// The address of the client, as far as it can be believed: `peer` itself unless that is trusted.
///
/// `lines` are the values of the header, one for each of its lines, in their order. If every
/// address is trusted, the left-most is returned; at one that cannot be read the walk ends, and
/// the address right of it is returned.
pub fn client_address<'a>(
    peer: IpAddr,
    lines: impl DoubleEndedIterator<Item = &'a [u8]>,
    trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let mut client = peer.to_canonical();
    let hops = lines.rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
    for hop in hops.take(HOPS_MAX) {
        if !trusted(client) {
            break;
        }
        let Some(address) = address_of(hop) else { break };
        client = address;
    }
    client
}

/// An address as proxies write it: alone, with a port, in brackets.
fn address_of(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim_matches([' ', '\t']);
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = text.parse::<IpAddr>().ok().or_else(with_port).or_else(bracketed)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nobody_is_believed_but_a_trusted_proxy() {
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("::ffff:10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn the_right_most_address_that_is_no_proxy_is_the_client() {
        // What the client wrote itself stands on the left.
        assert_eq!(client("10.0.0.1", &["10.6.6.6, 198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["1.1.1.1", "198.51.100.7,10.0.0.2"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
    }

    #[test]
    fn an_address_may_have_a_port_and_brackets() {
        assert_eq!(client("10.0.0.1", &["198.51.100.7:4711"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["2001:db8::1"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["\t::ffff:198.51.100.7 "]), "198.51.100.7");
    }

    #[test]
    fn what_cannot_be_read_ends_the_walk() {
        assert_eq!(client("10.0.0.1", &["198.51.100.7, unknown"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.7, unknown, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &[""]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.7,"]), "10.0.0.1");
    }

    #[test]
    fn a_list_without_end_is_not_walked_to_its_end() {
        let line = "10.0.0.9,".repeat(100_000) + "10.0.0.2";
        assert_eq!(client("10.0.0.1", &[&line]), "10.0.0.9");
    }

    proptest! {
        #[test]
        fn what_the_client_writes_changes_nothing(
            mut line in proptest::collection::vec(any::<u8>(), 0..200),
            real in any::<[u8; 4]>(),
        ) {
            let real = IpAddr::from(real);
            prop_assume!(!is_ours(real));
            line.extend_from_slice(format!(", {real}, 10.0.0.2").as_bytes());
            let peer = IpAddr::from([10, 0, 0, 1]);
            prop_assert_eq!(client_address(peer, [&*line].into_iter(), is_ours), real);
        }
    }

    fn client(peer: &str, lines: &[&str]) -> String {
        let lines = lines.iter().map(|line| line.as_bytes());
        client_address(peer.parse().unwrap(), lines, is_ours).to_string()
    }

    fn is_ours(address: IpAddr) -> bool {
        address.to_string().starts_with("10.")
    }
}
