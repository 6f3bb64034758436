//! Engine.IO 4 and Socket.IO 5 packets as a client hears them: no more of each than a load tool
//! needs to know.

/// A packet, as text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    /// The engine is open; its JSON.
    Open(&'a [u8]),
    /// The engine closes the session.
    Close,
    Ping,
    /// With its payload: "probe" or nothing.
    Pong(&'a [u8]),
    Noop,
    /// A namespace has let the session in.
    Connected,
    /// A namespace has sent it away.
    Disconnected,
    /// A namespace has not let it in; the JSON that says why.
    Refused(&'a [u8]),
    /// An event, from its namespace on.
    Event {
        attachments: usize,
        body: &'a [u8],
    },
    /// An ack.
    Ack {
        attachments: usize,
    },
}

/// What a packet is; none if it is none.
#[inline]
pub(crate) fn read(text: &[u8]) -> Option<Packet<'_>> {
    Some(match text {
        [b'4', b'2', body @ ..] => Packet::Event { attachments: 0, body },
        [b'4', b'3', ..] => Packet::Ack { attachments: 0 },
        [b'4', b'5', rest @ ..] => {
            let (attachments, body) = attachments(rest)?;
            Packet::Event { attachments, body }
        }
        [b'4', b'6', rest @ ..] => Packet::Ack { attachments: attachments(rest)?.0 },
        [b'2'] => Packet::Ping,
        [b'6'] => Packet::Noop,
        [b'0', json @ ..] => Packet::Open(json),
        [b'1'] => Packet::Close,
        [b'3', payload @ ..] => Packet::Pong(payload),
        [b'4', b'0', ..] => Packet::Connected,
        [b'4', b'1', ..] => Packet::Disconnected,
        [b'4', b'4', json @ ..] => Packet::Refused(json),
        _ => return None,
    })
}

/// How many attachments follow, and what stands behind the number.
fn attachments(text: &[u8]) -> Option<(usize, &[u8])> {
    let dash = text.iter().position(|byte| *byte == b'-')?;
    let number = std::str::from_utf8(&text[..dash]).ok()?.parse().ok()?;
    Some((number, &text[dash + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_told_apart() {
        for (text, packet) in [
            ("0{}", Packet::Open(b"{}")),
            ("2", Packet::Ping),
            ("3probe", Packet::Pong(b"probe")),
            ("40{\"sid\":\"a\"}", Packet::Connected),
            ("41", Packet::Disconnected),
            ("42[\"a\"]", Packet::Event { attachments: 0, body: b"[\"a\"]" }),
            ("4312[]", Packet::Ack { attachments: 0 }),
            ("44/x,{}", Packet::Refused(b"/x,{}")),
            ("4512-/x,[\"a\"]", Packet::Event { attachments: 12, body: b"/x,[\"a\"]" }),
            ("461-7[]", Packet::Ack { attachments: 1 }),
            ("6", Packet::Noop),
        ] {
            assert_eq!(read(text.as_bytes()), Some(packet), "{text}");
        }
        for wrong in ["", "4", "7", "45x-[]", "451[]"] {
            assert_eq!(read(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
