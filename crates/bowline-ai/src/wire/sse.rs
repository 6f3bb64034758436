//! Server-sent events, cut out of bytes that come in pieces of any size.
//!
//! Follows the WHATWG's "Interpreting an event stream": lines end with LF, CR or CRLF, a blank line ends an event,
//! several `data` lines are one text, lines that begin with a colon are comments. Only `event` and `data` are told;
//! the bytes of an event are kept together, so that they can be passed on unchanged.

use memchr::memchr2;

/// Cuts a byte stream into events.
#[derive(Debug)]
pub(super) struct Decoder {
    /// The beginning of an event whose end has not come yet.
    tail: Vec<u8>,
    /// `tail` is an event that has been given out.
    given: bool,
    /// Several `data` lines, joined.
    joined: Vec<u8>,
    /// How long an event may be.
    max: usize,
    /// No character of the present line has come yet.
    at_line_start: bool,
    /// The byte before was a CR: an LF now belongs to it.
    after_cr: bool,
    /// Nothing has been given out yet: a byte order mark may come.
    fresh: bool,
}

/// What [`Decoder::next`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// An event, or a comment or blank line between events.
    Event(Event<'a>),
    /// The LF of a CRLF whose CR ended the event before. It is told apart, so that the event need not wait for it.
    LateLf,
}

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event<'a> {
    /// Its bytes, the blank line at its end included.
    pub(super) raw: &'a [u8],
    /// Its `event` field.
    pub(super) name: Option<&'a [u8]>,
    /// Its `data`, lines joined with LF. `None` for comments and blank lines.
    pub(super) data: Option<&'a [u8]>,
}

/// An event is longer than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLarge;

/// Capacity that is kept after a long event.
const KEPT_BYTES: usize = 64 * 1024;

impl Decoder {
    /// A decoder for events of at most `max` bytes.
    pub(super) fn new(max: usize) -> Self {
        Self {
            tail: Vec::new(),
            given: false,
            joined: Vec::new(),
            max,
            at_line_start: true,
            after_cr: false,
            fresh: true,
        }
    }

    /// Bytes of an event that has not come whole yet.
    pub(super) fn waiting_bytes(&self) -> usize {
        if self.given { 0 } else { self.tail.len() }
    }

    /// The next event of `input`, which is moved behind it. `None`: it is all taken, more is needed.
    pub(super) fn next<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Frame<'a>>, TooLarge> {
        if self.late_lf(input) {
            return Ok(Some(Frame::LateLf));
        }
        let bytes: &'i [u8] = input;
        let end = self.find_end(bytes);
        let taken = end.unwrap_or(bytes.len());
        if self.tail.len() + taken > self.max {
            return Err(TooLarge);
        }
        *input = &bytes[taken..];
        if end.is_none() {
            self.tail.extend_from_slice(bytes);
            return Ok(None);
        }
        let raw: &'a [u8] = if self.tail.is_empty() {
            &bytes[..taken]
        } else {
            self.tail.extend_from_slice(&bytes[..taken]);
            self.given = true;
            &self.tail
        };
        Ok(Some(Frame::Event(read(raw, std::mem::take(&mut self.fresh), &mut self.joined))))
    }

    /// Takes the LF of a CRLF whose CR ended the event before, if that is what comes next.
    pub(super) fn late_lf(&mut self, input: &mut &[u8]) -> bool {
        self.forget_given();
        // Only what comes at once belongs to the CR.
        if input.is_empty()
            || !self.tail.is_empty()
            || !self.at_line_start
            || !std::mem::take(&mut self.after_cr)
        {
            return false;
        }
        let late = input.first() == Some(&b'\n');
        if late {
            *input = &input[1..];
        }
        late
    }

    /// What stands at the end of the stream without a blank line behind it, as if one had come.
    pub(super) fn end(&mut self) -> Option<Event<'_>> {
        self.forget_given();
        if self.tail.is_empty() {
            return None;
        }
        self.given = true;
        // A lone CR and an LF would be one end of line.
        let missing = if self.at_line_start && !self.after_cr { "\n" } else { "\n\n" };
        self.tail.extend_from_slice(missing.as_bytes());
        Some(read(&self.tail, std::mem::take(&mut self.fresh), &mut self.joined))
    }

    fn forget_given(&mut self) {
        if std::mem::take(&mut self.given) {
            self.tail.clear();
            self.tail.shrink_to(KEPT_BYTES);
            self.joined.clear();
            self.joined.shrink_to(KEPT_BYTES);
        }
    }

    /// Where in `bytes` the present event ends, blank line included.
    fn find_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(found) = memchr2(b'\r', b'\n', &bytes[at..]) {
            let line_end = at + found;
            if found > 0 {
                self.at_line_start = false;
            } else if self.after_cr && bytes[line_end] == b'\n' {
                self.after_cr = false;
                at = line_end + 1;
                continue;
            }
            let blank = std::mem::replace(&mut self.at_line_start, true);
            self.after_cr = bytes[line_end] == b'\r';
            at = line_end + 1;
            if blank {
                if self.after_cr && bytes.get(at) == Some(&b'\n') {
                    self.after_cr = false;
                    at += 1;
                }
                return Some(at);
            }
        }
        if at < bytes.len() {
            self.at_line_start = false;
            self.after_cr = false;
        }
        None
    }
}

/// Reads the lines of one event.
fn read<'a>(raw: &'a [u8], fresh: bool, joined: &'a mut Vec<u8>) -> Event<'a> {
    let mut rest = if fresh { raw.strip_prefix(b"\xef\xbb\xbf").unwrap_or(raw) } else { raw };
    let mut name = None;
    let mut first: Option<&[u8]> = None;
    let mut several = false;
    while !rest.is_empty() {
        let end = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        let (line, behind) = rest.split_at(end);
        rest = behind.strip_prefix(b"\r\n").or_else(|| behind.get(1..)).unwrap_or_default();
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"data" => match first {
                None => first = Some(value),
                Some(text) => {
                    if !several {
                        joined.clear();
                        joined.extend_from_slice(text);
                        several = true;
                    }
                    joined.push(b'\n');
                    joined.extend_from_slice(value);
                }
            },
            b"event" => name = Some(value),
            _ => {}
        }
    }
    Event { raw, name, data: if several { Some(joined) } else { first } }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `(name, data)` of each event with data, and all the bytes that were given out.
    fn all(pieces: &[&[u8]]) -> (Vec<(Option<String>, String)>, Vec<u8>) {
        let mut decoder = Decoder::new(1024);
        let (mut events, mut raw) = (Vec::new(), Vec::new());
        let mut take = |event: Event<'_>| {
            raw.extend_from_slice(event.raw);
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            if let Some(data) = event.data {
                events.push((event.name.map(text), text(data)));
            }
        };
        for mut piece in pieces.iter().copied() {
            while let Some(frame) = decoder.next(&mut piece).unwrap() {
                take(match frame {
                    Frame::Event(event) => event,
                    Frame::LateLf => Event { raw: b"\n", name: None, data: None },
                });
            }
        }
        if let Some(event) = decoder.end() {
            take(event);
        }
        (events, raw)
    }

    fn data(pieces: &[&[u8]]) -> Vec<String> {
        all(pieces).0.into_iter().map(|(_, data)| data).collect()
    }

    #[test]
    fn lines_end_with_lf_cr_or_crlf() {
        assert_eq!(
            data(&[b"data: a\n\ndata: b\r\n\r\ndata: c\r\rdata: d\n\r\n"]),
            ["a", "b", "c", "d"]
        );
    }

    #[test]
    fn an_event_does_not_wait_for_the_lf_of_its_last_crlf() {
        let mut decoder = Decoder::new(1024);
        let mut piece: &[u8] = b"data: a\r\n\r";
        assert!(matches!(
            decoder.next(&mut piece),
            Ok(Some(Frame::Event(Event { data: Some(b"a"), .. })))
        ));
        let mut piece: &[u8] = b"\ndata: b\r\n\r\n";
        assert_eq!(decoder.next(&mut piece), Ok(Some(Frame::LateLf)));
        assert!(matches!(
            decoder.next(&mut piece),
            Ok(Some(Frame::Event(Event { data: Some(b"b"), .. })))
        ));
    }

    #[test]
    fn several_data_lines_are_one_text() {
        assert_eq!(data(&[b"data: {\ndata:  \"a\": 1\ndata\ndata: }\n\n"]), ["{\n \"a\": 1\n\n}"]);
    }

    #[test]
    fn comments_and_other_fields_are_no_data() {
        let (events, raw) = all(&[b": ping\n\nid: 1\nevent: x\nretry: 5\ndata:a\n\n\n"]);
        assert_eq!(events, [(Some("x".into()), "a".into())]);
        assert_eq!(raw, b": ping\n\nid: 1\nevent: x\nretry: 5\ndata:a\n\n\n");
    }

    #[test]
    fn a_byte_order_mark_is_passed_over_once() {
        assert_eq!(data(&[b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n"]), ["a"]);
    }

    #[test]
    fn what_lacks_its_blank_line_is_told_at_the_end() {
        assert_eq!(data(&[b"data: a\n\nda", b"ta: [DONE]"]), ["a", "[DONE]"]);
    }

    #[test]
    fn an_event_has_a_greatest_length() {
        let mut decoder = Decoder::new(16);
        let mut piece: &[u8] = b"data: 12345678\n\n";
        assert!(decoder.next(&mut piece).unwrap().is_some());
        let mut piece: &[u8] = b"data: 123456789\n\n";
        assert_eq!(decoder.next(&mut piece), Err(TooLarge));
        let mut decoder = Decoder::new(16);
        for _ in 0..4 {
            let mut piece: &[u8] = b"data";
            assert_eq!(decoder.next(&mut piece), Ok(None));
        }
        let mut piece: &[u8] = b"d";
        assert_eq!(decoder.next(&mut piece), Err(TooLarge));
    }

    proptest! {
        /// However a stream is cut, the events are the same, and no byte is lost or made up.
        #[test]
        fn any_split_gives_the_same(
            parts in prop::collection::vec(
                prop_oneof![
                    Just("data: "), Just("data"), Just(":"), Just("event: e"), Just("\r"), Just("\n"), Just("\r\n"),
                    Just("\n\n"), Just("{}"), Just(" "), Just("\u{feff}"), Just("é"),
                ],
                0..40,
            ),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let whole: String = parts.concat();
            let bytes = whole.as_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let (events, raw) = all(&pieces);
            prop_assert_eq!(&events, &all(&[bytes]).0);
            prop_assert!(raw.starts_with(bytes));
            prop_assert!(raw.len() - bytes.len() <= 2);
        }
    }
}
