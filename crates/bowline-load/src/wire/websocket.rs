//! WebSocket frames, RFC 6455: those of a client are made, those of a server are split.

/// Frames of a client must be masked; with this key a server has the whole work of unmasking.
pub(crate) const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The kinds of frames.
pub(crate) mod opcode {
    pub(crate) const CONTINUATION: u8 = 0;
    pub(crate) const TEXT: u8 = 1;
    pub(crate) const BINARY: u8 = 2;
    pub(crate) const CLOSE: u8 = 8;
    pub(crate) const PING: u8 = 9;
    pub(crate) const PONG: u8 = 10;
}

/// Appends one masked frame. Returns where its payload begins.
pub(crate) fn push_masked(frames: &mut Vec<u8>, opcode: u8, payload: &[u8]) -> usize {
    frames.push(0x80 | opcode);
    match u16::try_from(payload.len()) {
        Ok(length @ 0..=125) => frames.push(0x80 | length.to_be_bytes()[1]),
        Ok(length) => {
            frames.push(0x80 | 126);
            frames.extend(length.to_be_bytes());
        }
        Err(_) => {
            frames.push(0x80 | 127);
            frames.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frames.extend(MASK);
    let begin = frames.len();
    frames.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    begin
}

/// One masked frame.
pub(crate) fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 14);
    push_masked(&mut frame, opcode, payload);
    frame
}

/// A frame of a server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) opcode: u8,
    pub(crate) payload: &'a [u8],
    /// What follows it.
    pub(crate) rest: &'a [u8],
}

/// The first frame; none while it is incomplete.
#[inline]
pub(crate) fn split(input: &[u8]) -> Option<Frame<'_>> {
    let [head, length, ..] = *input else { return None };
    let (header, length) = match length & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(input.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(input.get(2..10)?.try_into().ok()?)).ok()?),
        length => (2, usize::from(length)),
    };
    let (payload, rest) = input.get(header..)?.split_at_checked(length)?;
    Some(Frame { opcode: head & 0x0f, payload, rest })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame as servers send it.
    fn plain(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = masked(opcode, payload);
        let at = frame.len() - payload.len() - MASK.len();
        frame[1] &= 0x7f;
        frame.truncate(at);
        frame.extend(payload);
        frame
    }

    #[test]
    fn frames_of_every_length_are_split_wherever_reads_end() {
        let payloads = [0, 1, 125, 126, 127, 65_535, 65_536].map(|length| vec![b'x'; length]);
        let all: Vec<u8> =
            payloads.iter().flat_map(|payload| plain(opcode::TEXT, payload)).collect();
        let mut input = &all[..];
        for payload in &payloads {
            let frame = split(input).unwrap();
            assert_eq!((frame.opcode, frame.payload.len()), (opcode::TEXT, payload.len()));
            let whole = input.len() - frame.rest.len();
            for cut in (0..whole).step_by(whole / 50 + 1).chain([whole - 1]) {
                assert_eq!(split(&input[..cut]), None, "{cut} of {whole}");
            }
            input = frame.rest;
        }
        assert!(input.is_empty());
    }

    #[test]
    fn a_masked_frame_is_what_the_rfc_says() {
        let frame = masked(opcode::TEXT, b"2probe");
        assert_eq!(frame[..2], [0x81, 0x86]);
        let unmasked: Vec<u8> =
            frame[6..].iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        assert_eq!(unmasked, b"2probe");
    }
}
