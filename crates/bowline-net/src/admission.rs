//! Who is let in: connections, connections of one address, sessions, handshakes in a second.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use bowline_proto::{Time, limit::LimitKey};
use tokio::sync::Notify;

use crate::{limit, process::Process};

/// What a process has let in.
#[derive(Debug)]
pub(crate) struct Admission {
    connections_max: usize,
    per_address_max: usize,
    connections: AtomicUsize,
    overflow: AtomicUsize,
    admin: AtomicUsize,
    /// Open sessions of all shards.
    sessions: AtomicUsize,
    /// Kept only if the share of an address is smaller than the whole.
    by_address: Option<Mutex<HashMap<IpAddr, usize>>>,
    handshakes: Option<Bucket>,
    /// Told whenever a connection goes while accepting rests.
    room: Notify,
    resting: AtomicUsize,
}

/// Which door a connection comes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// A public listener.
    Public,
    /// An admin listener: not counted against `limits.connections`.
    Admin,
}

/// What a connection may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Everything.
    Served,
    /// `/health/*`, and else a refusal: `limits.connections` is reached.
    Full,
    /// The same for `limits.connections-per-address`.
    AddressFull,
}

/// One connection's place, given back when dropped.
pub(crate) struct Permit {
    process: Arc<Process>,
    /// The address it is counted under, if addresses are counted.
    address: Option<IpAddr>,
    shard: u8,
    door: Door,
    pub(crate) standing: Standing,
}

impl Admission {
    pub(crate) fn new(connections: usize, per_address: usize, handshakes_per_second: u32) -> Self {
        Self {
            connections_max: connections,
            per_address_max: per_address,
            connections: AtomicUsize::new(0),
            overflow: AtomicUsize::new(0),
            admin: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
            by_address: (per_address < connections).then(Mutex::default),
            handshakes: Bucket::new(handshakes_per_second),
            room: Notify::new(),
            resting: AtomicUsize::new(0),
        }
    }

    /// Waits until one more connection can be accepted, be it to refuse it.
    pub(crate) async fn wait_for_room(&self, door: Door) {
        if self.has_room(door) {
            return;
        }
        self.resting.fetch_add(1, Relaxed);
        loop {
            let told = self.room.notified();
            tokio::pin!(told);
            // From here on nothing that is told is missed.
            told.as_mut().enable();
            if self.has_room(door) {
                break;
            }
            told.await;
        }
        self.resting.fetch_sub(1, Relaxed);
    }

    fn has_room(&self, door: Door) -> bool {
        match door {
            Door::Public => {
                self.connections.load(Relaxed) < self.connections_max
                    || self.overflow.load(Relaxed) < limit::OVERFLOW_MAX
            }
            Door::Admin => self.admin.load(Relaxed) < limit::ADMIN_MAX,
        }
    }

    /// Connections that are served, and those that are only refused.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.connections.load(Relaxed), self.overflow.load(Relaxed))
    }

    /// How many sessions are open.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.load(Relaxed)
    }

    /// Whether as many sessions are open as connections may be. A session that polls outlives its
    /// connections, so their limit alone would not bound it.
    pub(crate) fn is_full_of_sessions(&self) -> bool {
        self.sessions() >= self.connections_max
    }

    /// Whether sessions are opened slowly enough for one more.
    pub(crate) fn take_handshake(&self, now: Time) -> bool {
        self.handshakes.as_ref().is_none_or(|bucket| bucket.take(now))
    }

    fn admit(&self, address: IpAddr) -> Standing {
        if !seat(&self.connections, self.connections_max) {
            return Standing::Full;
        }
        if !self.take_address(address) {
            self.connections.fetch_sub(1, Relaxed);
            return Standing::AddressFull;
        }
        Standing::Served
    }

    fn take_address(&self, address: IpAddr) -> bool {
        let Some(by_address) = &self.by_address else { return true };
        let mut by_address = lock(by_address);
        let held = by_address.entry(address).or_insert(0);
        if *held >= self.per_address_max {
            return false;
        }
        *held += 1;
        true
    }

    fn give_back_address(&self, address: IpAddr) {
        let Some(by_address) = &self.by_address else { return };
        let mut by_address = lock(by_address);
        if let Some(held) = by_address.get_mut(&address) {
            *held -= 1;
            if *held == 0 {
                by_address.remove(&address);
            }
        }
    }
}

/// The open sessions of one shard, as the whole process counts them.
pub(crate) struct SessionCount {
    process: Arc<Process>,
    told: usize,
}

impl SessionCount {
    pub(crate) fn new(process: Arc<Process>) -> Self {
        Self { process, told: 0 }
    }

    /// Says how many there are now.
    pub(crate) fn set(&mut self, count: usize) {
        let sessions = &self.process.admission.sessions;
        if count > self.told {
            sessions.fetch_add(count - self.told, Relaxed);
        } else if count < self.told {
            sessions.fetch_sub(self.told - count, Relaxed);
        }
        self.told = count;
    }
}

impl Drop for SessionCount {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Takes one of `max` places. In one step, so that two shards cannot both take the last one.
fn seat(taken: &AtomicUsize, max: usize) -> bool {
    taken.fetch_update(Relaxed, Relaxed, |taken| (taken < max).then_some(taken + 1)).is_ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Permit {
    /// Counts a connection in that `shard` is going to serve. `None` if its address has more than
    /// its share and as many as may be told so are being told already.
    pub(crate) fn new(
        process: &Arc<Process>,
        shard: u8,
        door: Door,
        address: IpAddr,
    ) -> Option<Self> {
        let admission = &process.admission;
        let address = address.to_canonical();
        let standing = match door {
            Door::Admin => {
                admission.admin.fetch_add(1, Relaxed);
                Standing::Served
            }
            Door::Public => admission.admit(address),
        };
        match standing {
            Standing::Served => {}
            // Accepting pauses at that point; what two shards accept in the same moment is told.
            Standing::Full => {
                process.counters.on_limit(LimitKey::Connections);
                admission.overflow.fetch_add(1, Relaxed);
            }
            Standing::AddressFull => {
                process.counters.on_limit(LimitKey::ConnectionsPerAddress);
                if !seat(&admission.overflow, limit::OVERFLOW_MAX) {
                    return None;
                }
            }
        }
        let counted =
            door == Door::Public && standing == Standing::Served && admission.by_address.is_some();
        process.shards[usize::from(shard)].connections.fetch_add(1, Relaxed);
        Some(Self {
            process: Arc::clone(process),
            address: counted.then_some(address),
            shard,
            door,
            standing,
        })
    }

    /// The connection goes on at another shard.
    pub(crate) fn move_to(&mut self, shard: u8) {
        let shards = &self.process.shards;
        shards[usize::from(self.shard)].connections.fetch_sub(1, Relaxed);
        shards[usize::from(shard)].connections.fetch_add(1, Relaxed);
        self.shard = shard;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let admission = &self.process.admission;
        if let Some(address) = self.address {
            admission.give_back_address(address);
        }
        let count = match (self.door, self.standing) {
            (Door::Admin, _) => &admission.admin,
            (Door::Public, Standing::Served) => &admission.connections,
            (Door::Public, Standing::Full | Standing::AddressFull) => &admission.overflow,
        };
        count.fetch_sub(1, Relaxed);
        self.process.shards[usize::from(self.shard)].connections.fetch_sub(1, Relaxed);
        if admission.resting.load(Relaxed) > 0 {
            admission.room.notify_waiters();
        }
    }
}

/// So many in a second, with a burst of the same size, for many threads at once.
#[derive(Debug)]
struct Bucket {
    /// Nanoseconds one takes from the second.
    interval: u64,
    /// When the bucket will be full again, in nanoseconds of [`Time`].
    full_at: AtomicU64,
}

impl Bucket {
    /// `None` where there is no limit.
    fn new(per_second: u32) -> Option<Self> {
        let interval = 1_000_000_000 / u64::from(per_second.max(1));
        (interval > 0).then(|| Self { interval, full_at: AtomicU64::new(0) })
    }

    fn take(&self, now: Time) -> bool {
        const BURST: u64 = 1_000_000_000;
        let now = now.as_micros().saturating_mul(1_000);
        let taken = self.full_at.fetch_update(Relaxed, Relaxed, |full_at| {
            let next = full_at.max(now) + self.interval;
            (next <= now + BURST).then_some(next)
        });
        taken.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use bowline_proto::Time;

    use super::Bucket;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let bucket = Bucket::new(10).unwrap();
        let start = Time::from_micros(5_000_000);
        assert_eq!((0..100).filter(|_| bucket.take(start)).count(), 10);
        assert!(!bucket.take(Time::from_micros(5_099_000)));
        assert!(bucket.take(Time::from_micros(5_100_000)));
        assert!(!bucket.take(Time::from_micros(5_100_000)));
        let later = Time::from_micros(60_000_000);
        assert_eq!((0..100).filter(|_| bucket.take(later)).count(), 10);
    }
}
