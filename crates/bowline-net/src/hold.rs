//! Broadcasts that wait for somebody to receive them.
//!
//! One store for the whole process: a broadcast that is held is sent once, by the shard where
//! somebody arrives whom it is for. It is put into the store before any shard is asked whether
//! somebody is there already, so that nobody who arrives meanwhile is missed: whoever comes before a
//! shard is asked is found, and whoever comes after it finds the broadcast.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bowline_proto::{Time, wall};
use tokio::sync::oneshot;

use crate::{
    handler::{Broadcast, Context, Handle},
    limit,
    mailbox::Busy,
};

/// What has become of a broadcast that may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It was sent to so many sockets.
    Reached(usize),
    /// Nobody was there. It is sent once somebody is whom it is for, unless its time is over first.
    Held,
}

/// What became of broadcasts that waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldEnd {
    /// Somebody came.
    Sent,
    /// Nobody came in time.
    Expired,
    /// Too many were waiting already.
    Refused,
}

impl HeldEnd {
    /// Every end, in declaration order.
    pub const ALL: [Self; 3] = [Self::Sent, Self::Expired, Self::Refused];

    /// The name operators see, in `bowline_held_events_total{outcome}`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Expired => "expired",
            Self::Refused => "refused",
        }
    }
}

/// The broadcasts of a process that wait.
#[derive(Default)]
pub(crate) struct Holds {
    /// How many there are: all that is looked at when somebody arrives and none waits.
    waiting: AtomicUsize,
    store: Mutex<Store>,
    ends: [AtomicU64; HeldEnd::ALL.len()],
}

#[derive(Default)]
struct Store {
    /// In order of arrival.
    held: VecDeque<Held>,
    bytes: usize,
    numbers: u64,
}

struct Held {
    number: u64,
    broadcast: wall::Broadcast,
    until: Time,
    bytes: usize,
}

impl Holds {
    /// Whether any broadcast waits.
    pub(crate) fn any(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// How many wait now.
    pub(crate) fn waiting(&self, now: Time) -> usize {
        if self.any() { self.change(now, |store| store.held.len()) } else { 0 }
    }

    /// How many have ended, by [`HeldEnd`].
    pub(crate) fn ends(&self) -> [u64; HeldEnd::ALL.len()] {
        self.ends.each_ref().map(|count| count.load(Relaxed))
    }

    /// Puts a broadcast behind those that wait, and gives it a number; `None` if there is no room.
    fn put(&self, now: Time, broadcast: wall::Broadcast, hold: Duration) -> Option<u64> {
        let bytes = cost(&broadcast);
        self.change(now, |store| {
            if store.held.len() >= limit::HELD || store.bytes + bytes > limit::HELD_BYTES {
                return None;
            }
            store.numbers += 1;
            store.bytes += bytes;
            let number = store.numbers;
            store.held.push_back(Held { number, broadcast, until: now + hold, bytes });
            Some(number)
        })
    }

    /// Takes out this broadcast, unless somebody else has.
    fn take(&self, now: Time, number: u64) -> Option<wall::Broadcast> {
        self.change(now, |store| {
            let place = store.held.iter().position(|held| held.number == number)?;
            store.remove(place)
        })
    }

    /// Takes out what is for somebody who has arrived, in order.
    pub(crate) fn take_for(
        &self,
        now: Time,
        is_for: impl Fn(&wall::Broadcast) -> bool,
    ) -> Vec<wall::Broadcast> {
        let taken = self.change(now, |store| {
            let mut taken = Vec::new();
            let mut place = 0;
            while let Some(held) = store.held.get(place) {
                if is_for(&held.broadcast) {
                    taken.extend(store.remove(place));
                } else {
                    place += 1;
                }
            }
            taken
        });
        self.ends[HeldEnd::Sent as usize].fetch_add(taken.len() as u64, Relaxed);
        taken
    }

    /// Changes the store after dropping from it what has waited too long.
    fn change<T>(&self, now: Time, change: impl FnOnce(&mut Store) -> T) -> T {
        let mut store = self.lock();
        let before = store.held.len();
        store.held.retain(|held| held.until > now);
        let expired = before - store.held.len();
        if expired > 0 {
            store.bytes = store.held.iter().map(|held| held.bytes).sum();
            self.ends[HeldEnd::Expired as usize].fetch_add(expired as u64, Relaxed);
        }
        let result = change(&mut store);
        if store.held.is_empty() {
            store.held = VecDeque::new();
        }
        self.waiting.store(store.held.len(), Relaxed);
        result
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    fn remove(&mut self, place: usize) -> Option<wall::Broadcast> {
        let held = self.held.remove(place)?;
        self.bytes -= held.bytes;
        Some(held.broadcast)
    }
}

/// What a broadcast takes of the room for those that wait.
fn cost(broadcast: &wall::Broadcast) -> usize {
    let names = broadcast.rooms.iter().chain(&broadcast.except);
    let names: usize = names.map(|name| name.len() + size_of_val(name)).sum();
    size_of::<Held>() + broadcast.namespace.len() + names + broadcast.args.bytes()
}

impl Handle {
    /// Sends an event to many sockets, on all shards. If there is nobody yet whom it is for, it is
    /// kept for so long as `hold` says, and sent when the first such socket joins the namespace or
    /// a room; several that wait are sent in the order in which they came. It is not sent again to
    /// those who come later. At most 1,000 events and 16 MiB wait.
    ///
    /// # Errors
    ///
    /// [`Busy`]: nobody is there, and too much waits already.
    pub async fn broadcast_held(
        &self,
        broadcast: Broadcast,
        hold: Duration,
    ) -> Result<Delivery, Busy> {
        let holds = &self.process.holds;
        let now = self.process.clock.now();
        let Some(number) = holds.put(now, broadcast.0.clone(), hold) else {
            return match self.broadcast_reached(broadcast).await? {
                0 => {
                    holds.ends[HeldEnd::Refused as usize].fetch_add(1, Relaxed);
                    Err(Busy)
                }
                receivers => Ok(Delivery::Reached(receivers)),
            };
        };
        let asked = move |cx: &mut Context<'_>| {
            if !cx.hub.has_receiver(&broadcast.0) {
                return None;
            }
            // Another shard may have been first.
            let taken = cx.process.holds.take(cx.process.clock.now(), number)?;
            let (reply, reached) = oneshot::channel();
            cx.broadcast_counted(Broadcast(taken), move |_, receivers| {
                // Whoever asked may be gone.
                let _ = reply.send(receivers);
            });
            Some(reached)
        };
        let reached = self.ask(asked).await.into_iter().flatten().next();
        match reached {
            Some(reached) => Ok(Delivery::Reached(reached.await.map_err(|_| Busy)?)),
            None => Ok(Delivery::Held),
        }
    }

    /// Sends an event to many sockets, on all shards, and says how many they were.
    ///
    /// # Errors
    ///
    /// [`Busy`], as [`Handle::broadcast`].
    pub async fn broadcast_reached(&self, broadcast: Broadcast) -> Result<usize, Busy> {
        let (reply, reached) = oneshot::channel();
        self.broadcast_counted(broadcast, move |_, receivers| {
            // Whoever asked may be gone.
            let _ = reply.send(receivers);
        })?;
        reached.await.map_err(|_| Busy)
    }
}
