//! Folds lines that repeat the one before: the first is written, the others are counted.

use std::time::Duration;

use bowline_proto::Time;

use super::Stream;

/// How long repeated lines are counted before their number is written.
const WINDOW: Duration = Duration::from_secs(10);

/// What was written last.
#[derive(Debug, Default)]
pub(super) struct Folder {
    last: Vec<u8>,
    stream: Option<Stream>,
    folded: u64,
    since: Time,
}

impl Folder {
    /// Whether the line repeats the one before and is counted instead of written.
    pub(super) fn repeats(&mut self, now: Time, stream: Stream, line: &[u8]) -> bool {
        let same = self.stream == Some(stream) && self.last == line;
        if same {
            if self.folded == 0 {
                self.since = now;
            }
            self.folded += 1;
        }
        same
    }

    /// Remembers what is written.
    pub(super) fn wrote(&mut self, stream: Stream, line: &[u8]) {
        self.last.clear();
        self.last.extend_from_slice(line);
        self.stream = Some(stream);
    }

    /// Takes how many were counted, if any: before another line, and at the end.
    pub(super) fn take(&mut self) -> Option<u64> {
        let folded = std::mem::take(&mut self.folded);
        (folded > 0).then_some(folded)
    }

    /// Takes how many were counted if that has gone on for long enough.
    pub(super) fn due(&mut self, now: Time) -> Option<u64> {
        if now.since(self.since) < WINDOW { None } else { self.take() }
    }

    /// Whether there is something to be told of.
    pub(super) fn pending(&self) -> bool {
        self.folded > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn repeated_lines_are_counted_until_another_comes() {
        let mut folder = Folder::default();
        assert!(!folder.repeats(at(0), Stream::Out, b"same"));
        folder.wrote(Stream::Out, b"same");
        for second in 0..214 {
            assert!(folder.repeats(at(second), Stream::Out, b"same"));
        }
        assert!(!folder.repeats(at(300), Stream::Err, b"same"));
        assert_eq!((folder.take(), folder.take()), (Some(214), None));
    }

    #[test]
    fn a_line_that_goes_on_is_told_of_now_and_then() {
        let mut folder = Folder::default();
        folder.wrote(Stream::Out, b"same");
        let mut told = 0;
        for second in 0..25 {
            assert!(folder.repeats(at(second), Stream::Out, b"same"));
            told += folder.due(at(second)).unwrap_or_default();
        }
        assert_eq!(told, 22);
        assert!(folder.pending());
    }
}
