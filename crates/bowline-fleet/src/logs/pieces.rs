//! Cuts what a service writes into lines, and lines into pieces of bounded length.

/// The longest piece: 16 KiB, as container runtimes have it. A longer line goes on in the next one.
pub(super) const PIECE_BYTES_MAX: usize = 16 * 1024;

/// What was written since the last end of a line, for one stream.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    partial: Vec<u8>,
    /// Whether the line that comes has begun in a piece before.
    within: bool,
}

/// A line, or a piece of a long one, without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    pub(super) bytes: &'a [u8],
    /// Whether it goes on where the piece before ended.
    pub(super) continues: bool,
}

impl Pieces {
    /// Takes what was read and gives each piece that is complete.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut give: impl FnMut(Piece<'_>)) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.partial.is_empty() {
                self.line(line, &mut give);
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                self.line(&whole, &mut give);
                whole.clear();
                self.partial = whole;
            }
        }
        while self.partial.len() + bytes.len() >= PIECE_BYTES_MAX {
            let (now, rest) = bytes.split_at(PIECE_BYTES_MAX - self.partial.len());
            self.partial.extend_from_slice(now);
            bytes = rest;
            self.flush(&mut give);
        }
        self.partial.extend_from_slice(bytes);
    }

    /// Gives what there is of a line that has not ended.
    pub(super) fn flush(&mut self, mut give: impl FnMut(Piece<'_>)) {
        if !self.partial.is_empty() {
            give(Piece { bytes: &self.partial, continues: self.within });
            self.partial.clear();
            self.within = true;
        }
    }

    /// Whether a line has begun that [`Self::flush`] would give.
    pub(super) fn is_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    fn line(&mut self, line: &[u8], give: &mut impl FnMut(Piece<'_>)) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut rest = line;
        while rest.len() > PIECE_BYTES_MAX {
            let (now, later) = rest.split_at(PIECE_BYTES_MAX);
            give(Piece { bytes: now, continues: self.within });
            (self.within, rest) = (true, later);
        }
        // The end alone of a line whose pieces have been given says nothing.
        if !(self.within && rest.is_empty()) {
            give(Piece { bytes: rest, continues: self.within });
        }
        self.within = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(reads: &[&[u8]]) -> Vec<(String, bool)> {
        let mut pieces = Pieces::default();
        let mut found = Vec::new();
        let mut give = |piece: Piece<'_>| {
            found.push((String::from_utf8_lossy(piece.bytes).into_owned(), piece.continues));
        };
        for read in reads {
            pieces.push(read, &mut give);
        }
        pieces.flush(&mut give);
        found
    }

    #[test]
    fn lines_are_cut_wherever_the_reads_are() {
        let whole = b"one\ntwo\r\n\nthree";
        let expected = pieces(&[whole]);
        assert_eq!(
            expected.iter().map(|(line, _)| line.as_str()).collect::<Vec<_>>(),
            ["one", "two", "", "three"]
        );
        for at in 1..whole.len() {
            assert_eq!(pieces(&[&whole[..at], &whole[at..]]), expected);
        }
    }

    #[test]
    fn a_long_line_comes_in_pieces() {
        let long = vec![b'x'; 3 * PIECE_BYTES_MAX + 5];
        let mut text = long.clone();
        text.extend_from_slice(b"\nnext\n");
        for chunk in [1000, PIECE_BYTES_MAX, text.len()] {
            let reads: Vec<&[u8]> = text.chunks(chunk).collect();
            let found = pieces(&reads);
            let lengths: Vec<usize> = found.iter().map(|(line, _)| line.len()).collect();
            let full = PIECE_BYTES_MAX;
            assert_eq!(lengths, [full, full, full, 5, 4], "{chunk}");
            let continues: Vec<bool> = found.iter().map(|(_, continues)| *continues).collect();
            assert_eq!(continues, [false, true, true, true, false], "{chunk}");
        }
    }

    #[test]
    fn a_line_of_just_that_length_is_one_piece() {
        let mut text = vec![b'x'; PIECE_BYTES_MAX];
        text.extend_from_slice(b"\nnext\n");
        assert_eq!(pieces(&[&text]).len(), 2);
        assert_eq!(pieces(&[&text[..PIECE_BYTES_MAX], &text[PIECE_BYTES_MAX..]]).len(), 2);
    }
}
