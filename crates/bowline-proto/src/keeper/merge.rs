//! Two connections to one service, one stream of messages.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::ConnectionId;
use crate::Time;

/// Messages that are held back, and that are remembered, at most. A second at the rates bots see, with room to spare.
const MESSAGES_MAX: usize = 1_024;

/// Bytes that are held back at most.
const HELD_BYTES: usize = 8 * 1024 * 1024;

/// How far behind the other connection's a copy may come after the overlap, where messages have no id of their own.
/// Later, an equal one is another message: people do say the same thing twice.
const LAG: Duration = Duration::from_secs(2);

/// How long before it is known to be open a connection may have been routed to already, and how long after that the
/// other one may bring what was sent before: a way there and back.
const OPENING: Duration = Duration::from_millis(500);

/// Makes one stream of what an older and a newer connection bring while both are open.
///
/// The older one speaks. What the newer one brings is held back until the older one has brought it too, or is closed;
/// then what is left comes out in its order. So the order of each connection is kept, and what only one of them brings
/// comes out once. When more is held than may be, the newer one begins to speak before its time, and nothing is lost.
///
/// Messages with an id of the service are told apart by that. Others are compared by what the caller makes of their
/// content, and counted when the overlap is over: as often as both connections brought the same, it was sent so often.
/// Which of those from the beginning of the overlap are on both, their times tell.
#[derive(Debug)]
pub struct Merge<T> {
    /// The connection that was open first, and the one beside it.
    older: Option<ConnectionId>,
    newer: Option<Newer>,
    /// When the newer one was known to be open.
    opened: Time,
    /// What the newer one brought and the older one did not, yet.
    held: VecDeque<Held<T>>,
    held_bytes: usize,
    /// What came out, the oldest first: the other connection may bring a copy.
    told: VecDeque<Told>,
    out: VecDeque<Merged<T>>,
}

/// The newer one of two connections.
#[derive(Debug, Clone, Copy)]
enum Newer {
    /// What it brings is held back.
    Held(ConnectionId),
    /// Too much was: it speaks as well.
    Speaking(ConnectionId),
}

/// A message that comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged<T> {
    /// It did not come out before, as far as is remembered here.
    New {
        /// Which connection brought it.
        connection: ConnectionId,
        /// The message.
        message: T,
    },
    /// It did. It is not for the bot, but the service may want an acknowledgement of this one too. Where the id is the
    /// service's own, put it into the store once more: that knows whether the first one could be stored.
    Copy {
        /// Which connection brought it.
        connection: ConnectionId,
        /// The message.
        message: T,
    },
}

#[derive(Debug)]
struct Held<T> {
    connection: ConnectionId,
    at: Time,
    key: Key,
    bytes: usize,
    message: T,
}

/// What came out, of one connection.
#[derive(Debug)]
struct Told {
    key: Key,
    connection: ConnectionId,
    at: Time,
}

/// What tells messages apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// The service's id: it is the same message wherever and however often it comes.
    Id(String),
    /// What was made of the content: each is one of perhaps many equal ones.
    Content(String),
}

impl<T> Default for Merge<T> {
    /// One without connections.
    fn default() -> Self {
        Self {
            older: None,
            newer: None,
            opened: Time::ZERO,
            held: VecDeque::new(),
            held_bytes: 0,
            told: VecDeque::new(),
            out: VecDeque::new(),
        }
    }
}

impl<T> Merge<T> {
    /// One without connections.
    pub fn new() -> Self {
        Self::default()
    }

    /// A connection is open. The first one speaks, a second one is held back. With a third one the first one's time is
    /// over; a keeper never has three.
    pub fn open(&mut self, now: Time, connection: ConnectionId) {
        if let (Some(older), Some(_)) = (self.older, self.newer) {
            self.end(now, older);
        }
        match self.older {
            Some(_) => {
                self.newer = Some(Newer::Held(connection));
                self.opened = now;
                self.told.retain(|told| matches!(told.key, Key::Id(_)) || now <= told.at + OPENING);
            }
            None => self.older = Some(connection),
        }
    }

    /// A connection brought a message. `id` is the service's own where `own_id` says so, else made of the content.
    /// `bytes` is what it weighs. One that was closed a moment ago may still bring something.
    pub fn arrived(
        &mut self,
        now: Time,
        connection: ConnectionId,
        (id, own_id): (&str, bool),
        bytes: usize,
        message: T,
    ) {
        let key = if own_id { Key::Id(id.to_owned()) } else { Key::Content(id.to_owned()) };
        let is_held_back = matches!(self.newer, Some(Newer::Held(newer)) if newer == connection);
        self.forget(now);
        if is_held_back && !own_id {
            // Which of them are copies shows at the end.
            self.hold(now, Held { connection, at: now, key, bytes, message });
            return;
        }
        if self.was_told(now, connection, &key) {
            self.out.push_back(Merged::Copy { connection, message });
            return;
        }
        let equal = self.held.iter().position(|held| own_id && held.key == key);
        match (is_held_back, equal) {
            (true, Some(_)) => self.out.push_back(Merged::Copy { connection, message }),
            (true, None) => self.hold(now, Held { connection, at: now, key, bytes, message }),
            (false, equal) => {
                self.told.push_back(Told { key, connection, at: now });
                self.out.push_back(Merged::New { connection, message });
                if let Some(held) = equal.and_then(|place| self.held.remove(place)) {
                    self.held_bytes -= held.bytes;
                    let (connection, message) = (held.connection, held.message);
                    self.out.push_back(Merged::Copy { connection, message });
                }
            }
        }
    }

    /// A connection is closed, or its time beside the newer one is over. Each comes to an end once; of one that is not
    /// open nothing happens.
    pub fn end(&mut self, now: Time, connection: ConnectionId) {
        let newer = self.newer.map(|newer| match newer {
            Newer::Held(newer) | Newer::Speaking(newer) => newer,
        });
        if self.older == Some(connection) {
            self.older = newer;
        } else if newer != Some(connection) {
            return;
        }
        self.newer = None;
        self.release(now);
    }

    /// What comes out next. Take it all before anything else.
    pub fn poll(&mut self) -> Option<Merged<T>> {
        self.out.pop_front()
    }

    /// How many messages are held back.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    fn hold(&mut self, now: Time, held: Held<T>) {
        self.held_bytes += held.bytes;
        let newer = held.connection;
        self.held.push_back(held);
        if self.held.len() > MESSAGES_MAX || self.held_bytes > HELD_BYTES {
            self.newer = Some(Newer::Speaking(newer));
            self.release(now);
        }
    }

    /// What is held back comes out.
    fn release(&mut self, now: Time) {
        let mut copies = self.count_copies();
        self.held_bytes = 0;
        for Held { connection, key, message, .. } in self.held.drain(..) {
            match copies.get_mut(&key).filter(|copies| **copies > 0) {
                Some(copies) => {
                    *copies -= 1;
                    self.out.push_back(Merged::Copy { connection, message });
                }
                None => {
                    self.told.push_back(Told { key, connection, at: now });
                    self.out.push_back(Merged::New { connection, message });
                }
            }
        }
    }

    /// How many of the contents that are held back came out already, of each the first ones. What they are copies of is
    /// not remembered any more, nor what came out before and has no copy.
    fn count_copies(&mut self) -> BTreeMap<Key, usize> {
        let mut held: BTreeMap<&Key, Vec<Time>> = BTreeMap::new();
        for it in self.held.iter().filter(|held| matches!(held.key, Key::Content(_))) {
            held.entry(&it.key).or_default().push(it.at);
        }
        let newer = self.held.front().map(|held| held.connection);
        let (mut copies, mut over) = (BTreeMap::new(), BTreeSet::<usize>::new());
        for (key, held) in held {
            let is_other = |told: &Told| told.key == *key && Some(told.connection) != newer;
            let places = self.told.iter().enumerate().filter(|(_, told)| is_other(told));
            let (places, told): (Vec<_>, Vec<_>) =
                places.map(|(place, told)| (place, told.at)).unzip();
            let skipped = skipped(&told, &held, self.opened);
            let count = held.len().min(told.len() - skipped);
            over.extend(&places[..skipped + count]);
            copies.insert(key.clone(), count);
        }
        let mut place = 0;
        self.told.retain(|_| {
            place += 1;
            !over.contains(&(place - 1))
        });
        copies
    }

    /// Whether the same came out before. Of equal contents each stands for one copy on the other connection.
    fn was_told(&mut self, now: Time, connection: ConnectionId, key: &Key) -> bool {
        match key {
            Key::Id(_) => self.told.iter().any(|told| told.key == *key),
            Key::Content(_) => {
                let is_copied = |told: &Told| {
                    told.key == *key && told.connection != connection && now <= told.at + LAG
                };
                let place = self.told.iter().position(is_copied);
                place.and_then(|place| self.told.remove(place)).is_some()
            }
        }
    }

    /// What came out long ago is the store's to know.
    fn forget(&mut self, now: Time) {
        let alone = self.newer.is_none();
        let (mut spare, told) = (self.told.len().saturating_sub(MESSAGES_MAX), &mut self.told);
        while told.pop_front_if(|told| spare > 0 || alone && told.at + LAG < now).is_some() {
            spare = spare.saturating_sub(1);
        }
    }
}

/// How many of those that came out have no copy among those that are held back: of the ones from about the time when
/// the other connection was opened as many as let the rest come in pairs that are as near to each other as possible.
fn skipped(told: &[Time], held: &[Time], opened: Time) -> usize {
    let doubtful = told.partition_point(|at| *at < opened + OPENING);
    let apart = |skipped: usize| {
        let pairs = told[skipped..].iter().zip(held);
        let apart = pairs.map(|(told, held)| held.since(*told).max(told.since(*held)).as_micros());
        let (count, sum) = apart.fold((0, 0), |(count, sum), apart| (count + 1, sum + apart));
        // To have nothing in common is as good as to be too far apart.
        u128::checked_div(sum, count).unwrap_or(LAG.as_micros())
    };
    (0..=doubtful).min_by_key(|skipped| apart(*skipped)).unwrap_or_default()
}
