//! Folds repeated lines: the first is written, those after it are counted.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use jiff::{SignedDuration, Timestamp};

use super::line::Line;

/// How long a line stands for those like it.
const WINDOW: SignedDuration = SignedDuration::from_secs(10);

/// Lines of one message that are written in a window if each says something else, as when five
/// components become ready. A flood differs in its fields too.
const VARIANTS: usize = 10;

/// Messages that are remembered. One that finds no place is written.
const MESSAGES: usize = 256;

/// What was written lately.
#[derive(Default)]
pub(super) struct Folder {
    messages: HashMap<Key, Seen>,
}

/// The place in the code and the words.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    target: &'static str,
    line: Option<u32>,
    message: String,
}

struct Seen {
    until: Timestamp,
    /// The fields of the lines that were written, hashed.
    variants: Vec<u64>,
    /// The last line that was not written.
    last: Option<Line>,
    folded: u64,
}

/// Lines that were not written.
#[derive(Debug)]
pub(super) struct Folded {
    /// The last of them.
    pub(super) line: Line,
    pub(super) times: u64,
}

impl Folder {
    /// Takes a line and gives it back if it is to be written.
    pub(super) fn take(&mut self, line: Line) -> Option<Line> {
        if !folds(&line) {
            return Some(line);
        }
        let full = self.messages.len() >= MESSAGES;
        let key =
            Key { target: line.target, line: line.source_line, message: line.message.clone() };
        let variant = variant(&line);
        match self.messages.entry(key) {
            Entry::Vacant(_) if full => Some(line),
            Entry::Vacant(place) => {
                let until = after(line.time);
                place.insert(Seen { until, variants: vec![variant], last: None, folded: 0 });
                Some(line)
            }
            Entry::Occupied(mut place) => {
                let seen = place.get_mut();
                if !seen.variants.contains(&variant) && seen.variants.len() < VARIANTS {
                    seen.variants.push(variant);
                    return Some(line);
                }
                seen.folded += 1;
                seen.last = Some(line);
                None
            }
        }
    }

    /// What was folded in windows that are over. A message that goes on gets another window.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<Folded> {
        self.sweep(now, false)
    }

    /// All that was folded so far.
    pub(super) fn finish(&mut self, now: Timestamp) -> Vec<Folded> {
        self.sweep(now, true)
    }

    /// When to look again.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.messages.values().map(|seen| seen.until).min()
    }

    fn sweep(&mut self, now: Timestamp, all: bool) -> Vec<Folded> {
        let mut told = Vec::new();
        self.messages.retain(|_, seen| {
            // A clock that was set back must not keep a window open for longer than it is.
            if seen.until > now && seen.until <= after(now) && !all {
                return true;
            }
            let Some(line) = seen.last.take() else { return false };
            told.push(Folded { line, times: std::mem::take(&mut seen.folded) });
            seen.until = after(now);
            true
        });
        told.sort_by_key(|folded| folded.line.time);
        told
    }
}

/// Whether lines like this one are folded. Whoever asked for details or packets wants all of them,
/// and so does who reads later what operators did.
fn folds(line: &Line) -> bool {
    let told = line.level <= tracing::Level::INFO;
    let kept = line.target == super::PACKETS
        || line.target == super::AUDIT && line.level == tracing::Level::INFO;
    told && !kept
}

fn variant(line: &Line) -> u64 {
    let mut hasher = DefaultHasher::new();
    line.level.hash(&mut hasher);
    for (name, value) in &line.fields {
        name.hash(&mut hasher);
        value.hash(&mut hasher);
    }
    hasher.finish()
}

fn after(time: Timestamp) -> Timestamp {
    // Saturates in the year 9999.
    time.checked_add(WINDOW).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    fn line(second: i64, message: &str, sid: u64) -> Line {
        Line {
            time: at(second),
            level: Level::WARN,
            target: "bowline_net::accept",
            source_line: Some(1),
            message: message.to_owned(),
            fields: vec![("sid", sid.into())],
            repeated: None,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_repeated_line_is_written_once_and_counted() {
        let mut folder = Folder::default();
        assert!(folder.take(line(0, "cannot accept", 1)).is_some());
        for second in 0..5 {
            assert!(folder.take(line(second, "cannot accept", 1)).is_none());
        }
        assert!(folder.due(at(9)).is_empty());
        let folded = folder.due(at(10));
        assert_eq!((folded.len(), folded[0].times), (1, 5));
        assert_eq!(folded[0].line.time, at(4));
    }

    #[test]
    fn a_flood_that_goes_on_is_told_of_once_a_window() {
        let mut folder = Folder::default();
        let mut written = 0;
        let mut told = 0;
        for second in 0..60 {
            for _ in 0..100 {
                written += usize::from(folder.take(line(second, "cannot accept", 1)).is_some());
            }
            told += folder.due(at(second)).iter().map(|folded| folded.times).sum::<u64>();
        }
        told += folder.finish(at(60)).iter().map(|folded| folded.times).sum::<u64>();
        assert_eq!((written, told), (1, 5_999));
    }

    #[test]
    fn a_message_that_has_ended_is_forgotten() {
        let mut folder = Folder::default();
        assert!(folder.take(line(0, "cannot accept", 1)).is_some());
        assert!(folder.due(at(11)).is_empty());
        assert_eq!(folder.next(), None);
        assert!(folder.take(line(12, "cannot accept", 1)).is_some());
    }

    #[test]
    fn lines_that_say_different_things_are_written_until_they_are_a_flood() {
        let mut folder = Folder::default();
        let written = (0..500).filter(|&sid| folder.take(line(0, "cut", sid)).is_some()).count();
        assert_eq!(written, VARIANTS);
        assert_eq!(folder.due(at(10))[0].times, 500 - VARIANTS as u64);
        assert!(folder.take(line(0, "another", 1)).is_some());
    }

    #[test]
    fn packets_details_and_what_operators_did_are_not_folded() {
        for (target, level) in [
            (super::super::PACKETS, Level::INFO),
            (super::super::AUDIT, Level::INFO),
            ("x", Level::DEBUG),
        ] {
            let mut folder = Folder::default();
            for _ in 0..3 {
                assert!(folder.take(Line { target, level, ..line(0, "same", 1) }).is_some());
            }
        }
    }

    #[test]
    fn many_messages_do_not_fill_the_memory() {
        let mut folder = Folder::default();
        for number in 0..2 * MESSAGES {
            assert!(folder.take(line(0, &number.to_string(), 1)).is_some());
        }
        assert_eq!(folder.messages.len(), MESSAGES);
    }

    #[test]
    fn a_clock_that_is_set_back_closes_the_window() {
        let mut folder = Folder::default();
        folder.take(line(1_000, "cannot accept", 1));
        folder.take(line(1_000, "cannot accept", 1));
        assert_eq!(folder.due(at(10)).len(), 1);
    }
}
