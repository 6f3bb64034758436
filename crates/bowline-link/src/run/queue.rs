//! What waits for the bot of one link, in rooms. Pure.
//!
//! Of a room one message is under way at a time, so that its order is kept whatever the bot does. The store has the
//! messages; here are their places, and as many bodies as fit.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use bowline_proto::Time;
use bytes::Bytes;

use super::limit;

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    /// Its place in the order of arrival.
    pub(super) seq: u64,
    /// Its id.
    pub(super) id: String,
    /// How often it was offered.
    pub(super) offers: u32,
    /// How often it could not even be offered, because the service did not give its text.
    pub(super) unfetched: u32,
    /// What the service was acknowledged with: bots that answer by it are told that there is one. Not kept over a restart,
    /// since nobody waits for the answer then.
    pub(super) receipt: Option<String>,
    /// What the store has of it, if it is kept here as well.
    pub(super) body: Option<Bytes>,
    /// How often nobody was there to take it, although somebody had been a moment ago.
    pub(super) untaken: u32,
    /// Whether the store has it and the bot must confirm it; else it is offered once.
    pub(super) confirm: bool,
}

impl Waiting {
    /// One that is in the store.
    pub(super) fn stored(seq: u64, id: String, offers: u32, body: Option<Bytes>) -> Self {
        Self { seq, id, offers, unfetched: 0, untaken: 0, receipt: None, body, confirm: true }
    }
}

/// All of them, of one link.
#[derive(Debug, Default)]
pub(super) struct Queue {
    rooms: BTreeMap<String, Room>,
    /// Rooms whose first message may be offered, by its place.
    ready: BTreeSet<(u64, String)>,
    /// Rooms that pause, by the end of the pause.
    paused: BTreeSet<(Time, String)>,
    under_way: usize,
    /// The ids of all that wait.
    ids: HashSet<String>,
    bodies_bytes: usize,
}

#[derive(Debug)]
struct Room {
    waiting: VecDeque<Waiting>,
    stand: Stand,
    /// Pauses in a row.
    pauses: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    Ready,
    UnderWay,
    Paused(Time),
}

impl Queue {
    /// How many wait, those under way included.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// How many are under way.
    #[cfg(test)]
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Whether a message with this id waits here.
    pub(super) fn has(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// Puts a message at the end of its room, unless it waits already. One that the store does not have is dropped when there is no place for its
    /// body: it only informs.
    pub(super) fn push(&mut self, room: &str, mut message: Waiting) {
        if self.ids.contains(&message.id) {
            return;
        }
        let bytes = message.body.as_ref().map_or(0, Bytes::len);
        if self.bodies_bytes + bytes > limit::BODIES_BYTES {
            if !message.confirm {
                return;
            }
            message.body = None;
        } else {
            self.bodies_bytes += bytes;
        }
        self.ids.insert(message.id.clone());
        let seq = message.seq;
        if let Some(known) = self.rooms.get_mut(room) {
            known.waiting.push_back(message);
        } else {
            let waiting = VecDeque::from([message]);
            self.rooms.insert(room.to_owned(), Room { waiting, stand: Stand::Ready, pauses: 0 });
            self.ready.insert((seq, room.to_owned()));
        }
    }

    /// The oldest message that may be offered now. Its room waits for [`done`](Self::done) or
    /// [`again`](Self::again).
    pub(super) fn next(&mut self, now: Time) -> Option<(String, Waiting)> {
        self.wake(now);
        if self.under_way >= limit::OFFERS {
            return None;
        }
        let (_, name) = self.ready.pop_first()?;
        let room = self.rooms.get_mut(&name)?;
        room.stand = Stand::UnderWay;
        self.under_way += 1;
        let first = room.waiting.front()?.clone();
        Some((name, first))
    }

    /// The message under way in this room was offered so often.
    pub(super) fn offered(&mut self, room: &str, offers: u32) {
        if let Some(first) = self.first(room) {
            first.offers = offers;
        }
    }

    /// Nobody was there to take the message under way in this room: that does not count.
    pub(super) fn untaken(&mut self, room: &str) {
        if let Some(first) = self.first(room) {
            first.untaken = first.untaken.saturating_add(1);
        }
    }

    /// How many offers of the message under way in this room count.
    pub(super) fn offers(&self, room: &str) -> u32 {
        let first = self.rooms.get(room).and_then(|room| room.waiting.front());
        first.map_or(0, |first| first.offers.saturating_sub(first.untaken))
    }

    /// The message under way in this room was not offered, since its text is missing.
    pub(super) fn unfetched(&mut self, room: &str) -> u32 {
        self.first(room).map_or(0, |first| {
            first.unfetched = first.unfetched.saturating_add(1);
            first.unfetched
        })
    }

    /// The message under way in this room need not be offered any more: the next one may be.
    pub(super) fn done(&mut self, room: &str) {
        let Some(known) = self.rooms.get_mut(room) else { return };
        if known.stand == Stand::UnderWay {
            self.under_way -= 1;
        }
        if let Some(gone) = known.waiting.pop_front() {
            self.ids.remove(&gone.id);
            self.bodies_bytes -= gone.body.map_or(0, |body| body.len());
        }
        known.pauses = 0;
        known.stand = Stand::Ready;
        match known.waiting.front() {
            Some(next) => {
                self.ready.insert((next.seq, room.to_owned()));
            }
            None => {
                self.rooms.remove(room);
            }
        }
    }

    /// The message under way in this room is offered again: after a pause that grows with each in a row, or at once.
    pub(super) fn again(&mut self, now: Time, room: &str, pause: bool) {
        let Some(known) = self.rooms.get_mut(room) else { return };
        if known.stand != Stand::UnderWay {
            return;
        }
        self.under_way -= 1;
        if pause {
            let doubled = limit::PAUSE_FIRST.saturating_mul(1 << known.pauses.min(16));
            let until = now + doubled.min(limit::PAUSE_MAX);
            known.pauses = known.pauses.saturating_add(1);
            known.stand = Stand::Paused(until);
            self.paused.insert((until, room.to_owned()));
        } else {
            known.stand = Stand::Ready;
            if let Some(first) = known.waiting.front() {
                self.ready.insert((first.seq, room.to_owned()));
            }
        }
    }

    /// Takes the places from the store anew, as they may have changed there, and what was missing; by id: room, place,
    /// offers.
    pub(super) fn reindex(&mut self, mut stored: BTreeMap<String, (String, u64, u32)>) {
        for room in self.rooms.values_mut() {
            for message in &mut room.waiting {
                if let Some((_, seq, _)) = stored.remove(&message.id) {
                    message.seq = seq;
                }
            }
        }
        for (id, (room, seq, offers)) in stored {
            self.push(&room, Waiting::stored(seq, id, offers, None));
        }
        self.ready.clear();
        for (name, room) in &mut self.rooms {
            let fixed = usize::from(room.stand == Stand::UnderWay);
            let rest = &mut room.waiting.make_contiguous()[fixed..];
            rest.sort_by_key(|message| message.seq);
            if room.stand == Stand::Ready
                && let Some(first) = room.waiting.front()
            {
                self.ready.insert((first.seq, name.clone()));
            }
        }
    }

    /// When the next pause is over.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.paused.first().map(|(at, _)| *at)
    }

    fn first(&mut self, room: &str) -> Option<&mut Waiting> {
        self.rooms.get_mut(room)?.waiting.front_mut()
    }

    fn wake(&mut self, now: Time) {
        while let Some((at, _)) = self.paused.first()
            && *at <= now
        {
            let Some((_, name)) = self.paused.pop_first() else { return };
            let Some(room) = self.rooms.get_mut(&name) else { continue };
            room.stand = Stand::Ready;
            if let Some(first) = room.waiting.front() {
                self.ready.insert((first.seq, name));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Time = Time::ZERO;

    #[test]
    fn one_message_of_a_room_is_under_way_at_a_time() {
        let mut queue = queue(&[("a", 1), ("a", 2), ("b", 3)]);
        assert_eq!(taken(&mut queue, START), [("a", 1), ("b", 3)].map(owned));
        assert_eq!(taken(&mut queue, START), []);
        queue.done("a");
        assert_eq!(taken(&mut queue, START), [("a", 2)].map(owned));
        queue.done("b");
        queue.done("a");
        assert_eq!((queue.len(), queue.under_way(), queue.bodies_bytes), (0, 0, 0));
    }

    #[test]
    fn what_was_not_confirmed_comes_again_before_what_follows_it() {
        let mut queue = queue(&[("a", 1), ("a", 2)]);
        taken(&mut queue, START);
        queue.offered("a", 1);
        queue.again(START, "a", true);
        assert_eq!(taken(&mut queue, START), []);
        let at = queue.deadline().unwrap();
        let (_, message) = queue.next(at).unwrap();
        assert_eq!((message.seq, message.offers), (1, 1));
    }

    #[test]
    fn pauses_grow_to_a_limit_and_begin_anew_after_a_success() {
        let mut queue = queue(&[("a", 1), ("a", 2)]);
        let mut now = START;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert!(queue.next(now).is_some());
            queue.again(now, "a", true);
            let at = queue.deadline().unwrap();
            pauses.push(at.since(now).as_secs());
            now = at;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
        queue.next(now).unwrap();
        queue.done("a");
        queue.next(now).unwrap();
        queue.again(now, "a", true);
        assert_eq!(queue.deadline(), Some(now + limit::PAUSE_FIRST));
    }

    #[test]
    fn rooms_beyond_the_limit_wait() {
        let names: Vec<String> = (0..=limit::OFFERS).map(|n| format!("{n:03}")).collect();
        let mut queue = Queue::default();
        for (seq, name) in (0..).zip(&names) {
            queue.push(name, waiting(seq));
        }
        assert_eq!(taken(&mut queue, START).len(), limit::OFFERS);
        queue.done("000");
        assert_eq!(taken(&mut queue, START).len(), 1);
    }

    #[test]
    fn bodies_that_do_not_fit_stay_in_the_store() {
        let mut queue = Queue::default();
        let big = Bytes::from(vec![0; limit::BODIES_BYTES / 2 + 1]);
        queue.push("a", Waiting { body: Some(big.clone()), ..waiting(1) });
        queue.push("b", Waiting { body: Some(big.clone()), ..waiting(2) });
        queue.push("c", Waiting { body: Some(big), confirm: false, ..waiting(3) });
        assert_eq!(queue.len(), 2);
        assert!(queue.next(START).unwrap().1.body.is_some());
        assert!(queue.next(START).unwrap().1.body.is_none());
    }

    #[test]
    fn places_that_changed_in_the_store_are_taken_from_there() {
        let mut queue = queue(&[("a", 1), ("a", 2), ("b", 3)]);
        taken(&mut queue, START);
        queue.done("b");
        let stored = [("1", "a", 11), ("2", "a", 12), ("old", "a", 5), ("new", "b", 6)];
        queue.reindex(
            stored.map(|(id, room, seq)| (id.to_owned(), (room.to_owned(), seq, 1))).into(),
        );
        assert_eq!(queue.len(), 4);
        assert_eq!(taken(&mut queue, START), [("b", 6)].map(owned));
        queue.done("a");
        assert_eq!(taken(&mut queue, START), [("a", 5)].map(owned));
        queue.done("a");
        assert_eq!(taken(&mut queue, START), [("a", 12)].map(owned));
    }

    proptest! {
        #[test]
        fn every_room_keeps_its_order_and_nothing_is_left(
            rooms in prop::collection::vec(0_u8..5, 0..60),
            fates in prop::collection::vec(0_u8..4, 0..200),
        ) {
            let mut queue = Queue::default();
            for (seq, room) in (1..).zip(&rooms) {
                queue.push(&room.to_string(), waiting(seq));
            }
            let mut now = START;
            let mut done: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            let mut fates = fates.into_iter();
            while queue.len() > 0 {
                while let Some((room, message)) = queue.next(now) {
                    match fates.next().unwrap_or(0) {
                        0 | 1 => {
                            done.entry(room.clone()).or_default().push(message.seq);
                            queue.done(&room);
                        }
                        2 => queue.again(now, &room, true),
                        _ => queue.again(now, &room, false),
                    }
                }
                if let Some(at) = queue.deadline() {
                    prop_assert!(at > now);
                    now = at;
                }
            }
            prop_assert_eq!(done.values().map(Vec::len).sum::<usize>(), rooms.len());
            prop_assert!(done.values().all(|seqs| seqs.is_sorted()));
            prop_assert_eq!((queue.under_way(), queue.bodies_bytes, queue.rooms.len()), (0, 0, 0));
        }
    }

    fn queue(messages: &[(&str, u64)]) -> Queue {
        let mut queue = Queue::default();
        for (room, seq) in messages {
            queue.push(room, waiting(*seq));
        }
        queue
    }

    fn waiting(seq: u64) -> Waiting {
        Waiting::stored(seq, seq.to_string(), 0, Some(Bytes::from_static(b"body")))
    }

    fn taken(queue: &mut Queue, now: Time) -> Vec<(String, u64)> {
        std::iter::from_fn(|| queue.next(now).map(|(room, message)| (room, message.seq))).collect()
    }

    fn owned((room, seq): (&str, u64)) -> (String, u64) {
        (room.to_owned(), seq)
    }
}
