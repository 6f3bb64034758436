//! What was emitted lately under an id, so that who asks again is answered again and nothing is
//! sent twice. Knows no clock.

use std::collections::{HashMap, VecDeque};

use bowline_proto::Time;

use super::limit;

/// Requests by id, and what became of each.
#[derive(Debug)]
pub(super) struct Recent<T> {
    known: HashMap<String, Known<T>>,
    /// In the order in which they came, which is that in which they are forgotten. One that was
    /// taken back stays here until its turn comes.
    order: VecDeque<(u64, String)>,
    /// The bytes of all that is remembered.
    bytes: usize,
    /// The number of the next request.
    next: u64,
}

#[derive(Debug)]
struct Known<T> {
    number: u64,
    /// What was asked for, hashed.
    asked: u64,
    value: T,
    bytes: usize,
    until: Time,
}

/// Whether a request was there before.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen<T> {
    /// It was not; it is remembered from now on, under this number.
    New(u64),
    /// It was, and this came of it.
    Before(T),
    /// Something else was asked for under this id.
    Other,
}

impl<T: Clone> Recent<T> {
    pub(super) fn new() -> Self {
        Self { known: HashMap::new(), order: VecDeque::new(), bytes: 0, next: 0 }
    }

    /// Looks a request up, and remembers it with `value` if it is new. `asked` is what it asks for,
    /// hashed.
    pub(super) fn take(&mut self, now: Time, id: &str, asked: u64, value: T) -> Seen<T> {
        self.expire(now);
        if let Some(known) = self.known.get(id) {
            let same = known.asked == asked;
            return if same { Seen::Before(known.value.clone()) } else { Seen::Other };
        }
        let number = self.next;
        self.next += 1;
        let bytes = id.len();
        self.bytes += bytes;
        let until = now + limit::REMEMBERED;
        self.known.insert(id.to_owned(), Known { number, asked, value, bytes, until });
        self.order.push_back((number, id.to_owned()));
        self.make_room();
        Seen::New(number)
    }

    /// Says how large the answer to a request has become.
    pub(super) fn weigh(&mut self, number: u64, id: &str, bytes: usize) {
        let Some(known) = self.known.get_mut(id).filter(|known| known.number == number) else {
            return;
        };
        known.bytes += bytes;
        self.bytes += bytes;
        self.make_room();
    }

    /// Forgets a request that came to nothing: it may be tried again.
    pub(super) fn forget(&mut self, number: u64, id: &str) {
        if self.known.get(id).is_some_and(|known| known.number == number) {
            self.remove(id);
        }
    }

    fn expire(&mut self, now: Time) {
        while let Some((number, id)) = self.order.front() {
            let known = self.known.get(id).filter(|known| known.number == *number);
            if known.is_some_and(|known| known.until > now) {
                return;
            }
            self.drop_first();
        }
    }

    /// Forgets the oldest until the others fit.
    fn make_room(&mut self) {
        let full = |recent: &Self| {
            // Those that were taken back have a place in the order still.
            recent.order.len() > limit::REMEMBERED_MAX || recent.bytes > limit::REMEMBERED_BYTES
        };
        while full(self) && !self.order.is_empty() {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some((number, id)) = self.order.pop_front() {
            self.forget(number, &id);
        }
    }

    fn remove(&mut self, id: &str) {
        if let Some(known) = self.known.remove(id) {
            self.bytes -= known.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const START: Time = Time::from_micros(0);

    #[test]
    fn who_asks_again_is_answered_again() {
        let mut recent = Recent::new();
        assert_eq!(recent.take(START, "a", 1, 'x'), Seen::New(0));
        assert_eq!(recent.take(START, "a", 1, 'y'), Seen::Before('x'));
        assert_eq!(recent.take(START, "b", 1, 'y'), Seen::New(1));
        assert_eq!(recent.take(START, "a", 2, 'z'), Seen::Other);
    }

    #[test]
    fn an_id_is_free_again_after_its_time() {
        let mut recent = Recent::new();
        recent.take(START, "a", 1, 'x');
        let last = START + (limit::REMEMBERED - Duration::from_micros(1));
        assert_eq!(recent.take(last, "a", 1, 'y'), Seen::Before('x'));
        assert_eq!(recent.take(START + limit::REMEMBERED, "a", 2, 'y'), Seen::New(1));
        assert_eq!((recent.known.len(), recent.order.len(), recent.bytes), (1, 1, 1));
    }

    #[test]
    fn what_came_to_nothing_may_be_tried_again() {
        let mut recent = Recent::new();
        recent.take(START, "a", 1, 'x');
        recent.forget(0, "a");
        assert_eq!(recent.take(START, "a", 2, 'y'), Seen::New(1));
        // The first attempt's end says nothing about the second.
        recent.forget(0, "a");
        recent.weigh(0, "a", 1_000);
        assert_eq!(recent.take(START, "a", 2, 'z'), Seen::Before('y'));
        // Its place in the order does not outlive it for the second's sake.
        assert_eq!(recent.take(START + limit::REMEMBERED, "a", 3, 'z'), Seen::New(2));
        assert_eq!((recent.order.len(), recent.bytes), (1, 1));
    }

    #[test]
    fn it_holds_so_many_and_so_much_and_forgets_the_oldest() {
        let mut recent = Recent::new();
        for number in 0..=limit::REMEMBERED_MAX as u64 {
            recent.take(START, &number.to_string(), 1, ());
        }
        assert_eq!(recent.known.len(), limit::REMEMBERED_MAX);
        assert_eq!(recent.take(START, "1", 1, ()), Seen::Before(()));
        assert!(matches!(recent.take(START, "0", 1, ()), Seen::New(_)));

        let mut recent = Recent::new();
        recent.take(START, "a", 1, ());
        recent.take(START, "b", 1, ());
        recent.weigh(0, "a", limit::REMEMBERED_BYTES / 2);
        recent.weigh(1, "b", limit::REMEMBERED_BYTES / 2);
        assert_eq!(recent.take(START, "b", 1, ()), Seen::Before(()));
        assert!(matches!(recent.take(START, "a", 1, ()), Seen::New(_)));
        // What is too large alone is not remembered at all.
        recent.weigh(1, "b", limit::REMEMBERED_BYTES);
        assert!(matches!(recent.take(START, "b", 1, ()), Seen::New(_)));
    }

    #[test]
    fn one_that_is_tried_for_ever_takes_no_room() {
        let mut recent = Recent::new();
        for number in 0..3 * limit::REMEMBERED_MAX as u64 {
            assert_eq!(recent.take(START, "a", 1, ()), Seen::New(number));
            recent.forget(number, "a");
        }
        assert!(recent.order.len() <= limit::REMEMBERED_MAX);
        assert_eq!((recent.known.len(), recent.bytes), (0, 0));
    }
}
