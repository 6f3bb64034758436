//! The bodies of HTTP long-polling: packets with a separator between them.

/// What stands between two packets.
pub(crate) const SEPARATOR: u8 = 0x1e;

/// The packets of a body.
pub(crate) fn split(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split(|byte| *byte == SEPARATOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_one_packet_or_several() {
        let packets = |body: &'static str| {
            split(body.as_bytes()).map(|packet| str::from_utf8(packet).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(packets("2"), ["2"]);
        assert_eq!(packets("42[\"a\"]\x1e2\x1e6"), ["42[\"a\"]", "2", "6"]);
        assert_eq!(packets("451-[]\x1ebAAE="), ["451-[]", "bAAE="]);
    }
}
