//! Which keys are known, for how long, and how much memory their answers take. Knows no clock and does not wait.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bowline_proto::Time;

/// What an entry is thought to take besides the body of its answer: the head, and its place in two tables.
const ENTRY_BYTES: usize = 1_024;

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Keys; 0 switches it off.
    pub(crate) max: usize,
    /// The answers of all of them.
    pub(crate) bytes: usize,
    /// One answer; of a longer one nothing is kept.
    pub(crate) answer_bytes: usize,
    /// How long an answer is kept behind its end.
    pub(crate) keep: Duration,
    /// How long a request goes on that nobody waits for any more.
    pub(crate) linger: Duration,
}

/// A hash: of whose key it is and what it is, or of a request.
pub(in crate::ai) type Hash = [u8; 32];

/// All keys. `R` is what is known of a request: it is shared with all who wait for it.
#[derive(Debug)]
pub(super) struct Store<R> {
    bounds: Bounds,
    entries: HashMap<Hash, Entry<R>>,
    /// The requests that are over, by when they are forgotten.
    order: BTreeMap<(Time, u64), Hash>,
    bytes: usize,
    last: u64,
}

#[derive(Debug)]
struct Entry<R> {
    request: Hash,
    run: Arc<R>,
    /// Of its answer, as far as it is kept.
    bytes: usize,
    /// Its answer is longer than what is kept.
    cut: bool,
    /// Its place in the order, once it is over.
    ended: Option<(Time, u64)>,
}

/// What a key that was shown means.
#[derive(Debug)]
pub(super) enum Found<R> {
    /// It is new, and so is the request.
    New(Arc<R>),
    /// It is known, and so is the request.
    Known {
        run: Arc<R>,
        /// Whether the request is under way still.
        running: bool,
    },
    /// Another request came with it.
    Other,
    /// The answer was too long to be kept.
    TooLong,
    /// There is no room for one more.
    Full,
}

impl<R> Store<R> {
    pub(super) fn new(bounds: Bounds) -> Self {
        let (entries, order) = (HashMap::new(), BTreeMap::new());
        Self { bounds, entries, order, bytes: 0, last: 0 }
    }

    /// Bounds that are lower count at once; requests under way end as they began.
    pub(super) fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        while (self.entries.len() > bounds.max || self.bytes > bounds.bytes) && self.evict() {}
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// How many keys are known, and how much their answers take.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }

    /// A key was shown with a request.
    pub(super) fn begin(
        &mut self,
        now: Time,
        key: Hash,
        request: Hash,
        new: impl FnOnce() -> R,
    ) -> Found<R> {
        self.forget(now);
        if let Some(known) = self.entries.get(&key) {
            return match known {
                Entry { request: other, .. } if *other != request => Found::Other,
                Entry { cut: true, .. } => Found::TooLong,
                Entry { run, ended, .. } => {
                    Found::Known { run: Arc::clone(run), running: ended.is_none() }
                }
            };
        }
        while self.entries.len() >= self.bounds.max || self.bytes + ENTRY_BYTES > self.bounds.bytes
        {
            if !self.evict() {
                return Found::Full;
            }
        }
        let run = Arc::new(new());
        let entry =
            Entry { request, run: Arc::clone(&run), bytes: ENTRY_BYTES, cut: false, ended: None };
        self.entries.insert(key, entry);
        self.bytes += ENTRY_BYTES;
        Found::New(run)
    }

    /// More of an answer has come. `false` if it is not kept, and so nothing of it is: it is too long, or there is no
    /// room beside others that are under way.
    pub(super) fn grow(&mut self, key: &Hash, more: usize) -> bool {
        let most = self.bounds.answer_bytes.saturating_add(ENTRY_BYTES);
        let Some(entry) = self.entries.get(key).filter(|entry| !entry.cut) else { return false };
        let fits = entry.bytes + more <= most;
        while fits && self.bytes + more > self.bounds.bytes && self.evict() {}
        let kept = fits && self.bytes + more <= self.bounds.bytes;
        if let Some(entry) = self.entries.get_mut(key) {
            if kept {
                entry.bytes += more;
                self.bytes += more;
            } else {
                entry.cut = true;
                self.bytes -= entry.bytes - ENTRY_BYTES;
                entry.bytes = ENTRY_BYTES;
            }
        }
        kept
    }

    /// A request is over. If its answer is whole, it is known for a while, also where it was too long to be kept: its
    /// key must not begin it anew unasked.
    pub(super) fn end(&mut self, now: Time, key: &Hash, whole: bool) {
        if !whole || self.bounds.max == 0 {
            self.remove(key);
            return;
        }
        self.last += 1;
        let place = (now + self.bounds.keep, self.last);
        if let Some(entry) = self.entries.get_mut(key) {
            entry.ended = Some(place);
            self.order.insert(place, *key);
        }
    }

    /// Forgets what has been kept for long enough.
    pub(super) fn forget(&mut self, now: Time) {
        while self.order.first_key_value().is_some_and(|((until, _), _)| *until <= now) {
            self.evict();
        }
    }

    /// Forgets the request that is to be forgotten next. `false` if all are under way.
    fn evict(&mut self) -> bool {
        let Some((_, key)) = self.order.pop_first() else { return false };
        self.remove(&key);
        true
    }

    fn remove(&mut self, key: &Hash) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes;
            if let Some(place) = entry.ended {
                self.order.remove(&place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        max: 3,
        bytes: 3 * ENTRY_BYTES + 100,
        answer_bytes: 60,
        keep: Duration::from_secs(10),
        linger: Duration::ZERO,
    };

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    fn begin(store: &mut Store<()>, seconds: u64, key: u8, request: u8) -> &'static str {
        match store.begin(at(seconds), [key; 32], [request; 32], || ()) {
            Found::New(_) => "new",
            Found::Known { running: true, .. } => "running",
            Found::Known { running: false, .. } => "kept",
            Found::Other => "other",
            Found::TooLong => "too long",
            Found::Full => "full",
        }
    }

    #[test]
    fn a_request_is_known_while_it_runs_and_for_a_while_behind_its_end() {
        let mut store = Store::new(BOUNDS);
        assert_eq!(begin(&mut store, 0, 1, 7), "new");
        assert_eq!(begin(&mut store, 99, 1, 7), "running");
        assert_eq!(begin(&mut store, 99, 1, 8), "other");
        store.end(at(100), &[1; 32], true);
        assert_eq!([begin(&mut store, 109, 1, 7), begin(&mut store, 109, 1, 8)], ["kept", "other"]);
        assert_eq!(begin(&mut store, 110, 1, 8), "new");
    }

    #[test]
    fn a_request_that_has_failed_may_be_made_again() {
        let mut store = Store::new(BOUNDS);
        assert_eq!(begin(&mut store, 0, 1, 7), "new");
        store.end(at(1), &[1; 32], false);
        assert_eq!((begin(&mut store, 1, 1, 8), store.held().0), ("new", 1));
    }

    #[test]
    fn an_answer_that_is_too_long_is_not_kept_and_its_key_does_not_begin_it_anew() {
        let mut store = Store::new(BOUNDS);
        begin(&mut store, 0, 1, 7);
        assert!(store.grow(&[1; 32], 60));
        assert!(!store.grow(&[1; 32], 1) && !store.grow(&[1; 32], 0));
        assert_eq!(store.held(), (1, ENTRY_BYTES));
        assert_eq!(begin(&mut store, 1, 1, 7), "too long");
        store.end(at(1), &[1; 32], true);
        assert_eq!([begin(&mut store, 2, 1, 7), begin(&mut store, 11, 1, 7)], ["too long", "new"]);
    }

    #[test]
    fn those_that_ended_first_make_room_and_those_under_way_never_do() {
        let mut store = Store::new(BOUNDS);
        for key in 1..=3 {
            assert_eq!(begin(&mut store, 0, key, 7), "new");
            assert!(store.grow(&[key; 32], 30));
        }
        assert_eq!(begin(&mut store, 0, 4, 7), "full");
        store.end(at(2), &[2; 32], true);
        store.end(at(3), &[1; 32], true);
        // For bytes too: the second goes, then the first.
        assert!(store.grow(&[3; 32], 30));
        assert_eq!(begin(&mut store, 4, 1, 7), "kept");
        assert_eq!(begin(&mut store, 4, 2, 7), "new");
        assert_eq!(begin(&mut store, 4, 4, 7), "new");
        assert_eq!(begin(&mut store, 4, 5, 7), "full");
        assert!(store.grow(&[4; 32], 40));
        // The answers under way are all that there is.
        assert!(!store.grow(&[2; 32], 1));
        for key in 2..=4 {
            store.end(at(5), &[key; 32], false);
        }
        assert_eq!(store.held(), (0, 0));
    }

    #[test]
    fn a_reload_leaves_what_is_under_way_alone() {
        let mut store = Store::new(BOUNDS);
        begin(&mut store, 0, 1, 7);
        begin(&mut store, 0, 2, 7);
        store.end(at(1), &[1; 32], true);
        store.set_bounds(Bounds { max: 0, ..BOUNDS });
        assert_eq!(store.held().0, 1);
        assert_eq!(begin(&mut store, 1, 3, 7), "full");
        store.end(at(2), &[2; 32], true);
        assert_eq!(store.held(), (0, 0));
    }
}
