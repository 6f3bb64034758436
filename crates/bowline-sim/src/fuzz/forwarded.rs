//! `X-Forwarded-For`: what a client writes must never be taken for what a proxy wrote.

use std::net::IpAddr;

use bowline_proto::forwarded::client_address;

use crate::rng::Rng;

const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// The lines of the header, as they are.
pub(super) fn forwarded(data: &[u8]) {
    let lines = data.split(|byte| *byte == b'\n').collect::<Vec<_>>();
    let client = |peer, lines: &[&[u8]]| client_address(peer, lines.iter().copied(), is_proxy);
    assert_eq!(client(CLIENT, &lines), CLIENT, "a stranger was believed");
    let said = client(PROXY, &lines);

    // A proxy appends whom it was called by: to the last line, or as a line of its own.
    let (last, before) = lines.split_last().expect("there is a line");
    let mut appended = last.to_vec();
    appended.extend_from_slice(format!(", {CLIENT}").as_bytes());
    let joined = [before, &[&*appended]].concat();
    assert_eq!(client(PROXY, &joined), CLIENT, "what stood to the left counted");
    let text = CLIENT.to_string();
    let own = [&*lines, &[text.as_bytes()]].concat();
    assert_eq!(client(PROXY, &own), CLIENT, "what stood above counted");

    // One more proxy changes nothing but who stands for what cannot be read.
    let other = IpAddr::from([10, 0, 0, 2]);
    let text = other.to_string();
    let relayed = client(PROXY, &[&*lines, &[text.as_bytes()]].concat());
    let expected = if said == PROXY { other } else { said };
    let hops = lines.iter().map(|line| line.split(|byte| *byte == b',').count()).sum::<usize>();
    // A list that is too long is cut one address later or earlier.
    if hops < 60 {
        assert!(relayed == expected || (relayed == PROXY && said == PROXY), "{relayed} {said}");
    }
}

fn is_proxy(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.octets()[0] == 10)
}

pub(super) fn valid_forwarded(rng: &mut Rng) -> Vec<u8> {
    let mut text = String::new();
    for hop in 0..rng.below(6) {
        if hop > 0 {
            text += *rng.pick(&[", ", ",", " ,\t", "\n"]);
        }
        text += *rng.pick(&[
            "10.0.0.7",
            "198.51.100.4",
            "198.51.100.4:4711",
            "2001:db8::1",
            "[2001:db8::1]",
            "[2001:db8::1]:80",
            "::ffff:10.0.0.9",
            "unknown",
            "",
        ]);
    }
    text.into_bytes()
}
