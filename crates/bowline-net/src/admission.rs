//! Who is let in: connections, connections of one address, sessions, handshakes in a second.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use bowline_proto::{Time, limit::LimitKey};
use tokio::sync::Notify;

use crate::{
    limit::{self, Limits},
    process::Process,
};

/// What a process has let in.
#[derive(Debug)]
pub(crate) struct Admission {
    connections_max: AtomicUsize,
    per_address_max: AtomicUsize,
    connections: AtomicUsize,
    overflow: AtomicUsize,
    admin: AtomicUsize,
    /// Open sessions of all shards.
    sessions: AtomicUsize,
    /// Counted only while the share of an address is smaller than the whole.
    by_address: Mutex<HashMap<IpAddr, usize>>,
    handshakes: Bucket,
    handshakes_by_address: Buckets,
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
    /// The address it is counted under, if addresses were counted when it came.
    address: Option<IpAddr>,
    shard: u8,
    door: Door,
    pub(crate) standing: Standing,
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Self {
        let admission = Self {
            connections_max: AtomicUsize::new(0),
            per_address_max: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            overflow: AtomicUsize::new(0),
            admin: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
            by_address: Mutex::default(),
            handshakes: Bucket::default(),
            handshakes_by_address: Buckets::default(),
            room: Notify::new(),
            resting: AtomicUsize::new(0),
        };
        admission.reconfigure(limits);
        admission
    }

    /// Sets the limits. Whoever is in stays in; where addresses were not counted before, those who
    /// are in count for none.
    pub(crate) fn reconfigure(&self, limits: &Limits) {
        let connections = limits.connections_max();
        let per_address = limits.connections_per_address.unwrap_or(connections);
        self.connections_max.store(connections, Relaxed);
        self.per_address_max.store(per_address, Relaxed);
        self.handshakes.set(limits.handshakes_per_second);
        let per_address = limits.handshakes_per_second_per_address;
        let per_address = per_address.filter(|most| *most < limits.handshakes_per_second);
        self.handshakes_by_address.set(per_address);
        // There may be room where there was none.
        self.room.notify_waiters();
    }

    /// `limits.connections`.
    pub(crate) fn connections_max(&self) -> usize {
        self.connections_max.load(Relaxed)
    }

    /// Whether the share of an address is smaller than the whole.
    fn counts_addresses(&self) -> bool {
        self.per_address_max.load(Relaxed) < self.connections_max()
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
                self.connections.load(Relaxed) < self.connections_max()
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
        self.sessions() >= self.connections_max()
    }

    /// Whether sessions are opened slowly enough for one more, of this address and in all.
    ///
    /// # Errors
    ///
    /// The limit that is reached.
    pub(crate) fn take_handshake(&self, now: Time, address: IpAddr) -> Result<(), LimitKey> {
        // First, so that one who is over its share takes nothing from the others.
        if !self.handshakes_by_address.take(now, address) {
            return Err(LimitKey::HandshakesPerSecondPerAddress);
        }
        if self.handshakes.take(now) { Ok(()) } else { Err(LimitKey::HandshakesPerSecond) }
    }

    fn admit(&self, address: Option<IpAddr>) -> Standing {
        if !seat(&self.connections, self.connections_max()) {
            return Standing::Full;
        }
        if address.is_some_and(|address| !self.take_address(address)) {
            self.connections.fetch_sub(1, Relaxed);
            return Standing::AddressFull;
        }
        Standing::Served
    }

    fn take_address(&self, address: IpAddr) -> bool {
        let mut by_address = lock(&self.by_address);
        let held = by_address.entry(address).or_insert(0);
        if *held >= self.per_address_max.load(Relaxed) {
            return false;
        }
        *held += 1;
        true
    }

    fn give_back_address(&self, address: IpAddr) {
        let mut by_address = lock(&self.by_address);
        if let Some(held) = by_address.get_mut(&address) {
            *held -= 1;
            if *held == 0 {
                by_address.remove(&address);
            }
        }
    }
}

/// The place that a session has among those of its address when it polls by way of a proxy, whose
/// connections count for nobody. Given back when dropped.
pub(crate) struct AddressSeat {
    process: Arc<Process>,
    address: IpAddr,
}

impl AddressSeat {
    /// Takes one, if addresses are counted.
    ///
    /// # Errors
    ///
    /// The address has its share.
    pub(crate) fn take(process: &Arc<Process>, address: IpAddr) -> Result<Option<Self>, LimitKey> {
        let admission = &process.admission;
        if !admission.counts_addresses() {
            return Ok(None);
        }
        let address = address.to_canonical();
        if !admission.take_address(address) {
            return Err(LimitKey::ConnectionsPerAddress);
        }
        Ok(Some(Self { process: Arc::clone(process), address }))
    }
}

impl Drop for AddressSeat {
    fn drop(&mut self) {
        self.process.admission.give_back_address(self.address);
    }
}

impl std::fmt::Debug for AddressSeat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AddressSeat").field("address", &self.address).finish_non_exhaustive()
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
    /// Counts a connection in that `shard` is going to serve, under `address` unless it is not known
    /// yet whom it is for. `None` if the address has more than its share and as many as may be told
    /// so are being told already.
    pub(crate) fn new(
        process: &Arc<Process>,
        shard: u8,
        door: Door,
        address: Option<IpAddr>,
    ) -> Option<Self> {
        let admission = &process.admission;
        let address = address.filter(|_| admission.counts_addresses());
        let address = address.map(|address| address.to_canonical());
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
                process.counters.on_refused(LimitKey::Connections, process.clock.now());
                admission.overflow.fetch_add(1, Relaxed);
            }
            Standing::AddressFull => {
                let now = process.clock.now();
                process.counters.on_refused(LimitKey::ConnectionsPerAddress, now);
                if !seat(&admission.overflow, limit::OVERFLOW_MAX) {
                    return None;
                }
            }
        }
        let counted = door == Door::Public && standing == Standing::Served;
        process.shards[usize::from(shard)].connections.fetch_add(1, Relaxed);
        Some(Self {
            process: Arc::clone(process),
            address: address.filter(|_| counted),
            shard,
            door,
            standing,
        })
    }

    /// Counts the connection under the address that it turned out to be for, and no longer under
    /// another. Whether that address had room.
    pub(crate) fn claim(&mut self, address: IpAddr) -> bool {
        let admission = &self.process.admission;
        let served = self.door == Door::Public && self.standing == Standing::Served;
        let address = address.to_canonical();
        if !served || !admission.counts_addresses() || self.address == Some(address) {
            return true;
        }
        if !admission.take_address(address) {
            let now = self.process.clock.now();
            self.process.counters.on_refused(LimitKey::ConnectionsPerAddress, now);
            return false;
        }
        if let Some(before) = self.address.replace(address) {
            admission.give_back_address(before);
        }
        true
    }

    /// Serves the connection no longer, but for telling it that its address has more than its
    /// share. Whether there is room for that.
    pub(crate) fn refuse(&mut self) -> bool {
        let admission = &self.process.admission;
        if self.standing == Standing::Served {
            if !seat(&admission.overflow, limit::OVERFLOW_MAX) {
                return false;
            }
            self.standing = Standing::AddressFull;
            admission.connections.fetch_sub(1, Relaxed);
            if admission.resting.load(Relaxed) > 0 {
                admission.room.notify_waiters();
            }
        }
        true
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
#[derive(Debug, Default)]
struct Bucket {
    /// Nanoseconds one takes from the second; zero where there is no limit.
    interval: AtomicU64,
    /// When the bucket will be full again, in nanoseconds of [`Time`].
    full_at: AtomicU64,
}

impl Bucket {
    fn set(&self, per_second: u32) {
        self.interval.store(1_000_000_000 / u64::from(per_second.max(1)), Relaxed);
    }

    fn take(&self, now: Time) -> bool {
        let interval = self.interval.load(Relaxed);
        if interval == 0 {
            return true;
        }
        let now = now.as_micros().saturating_mul(1_000);
        let next = |full_at| after_one(full_at, now, interval);
        self.full_at.fetch_update(Relaxed, Relaxed, next).is_ok()
    }
}

/// A bucket for each address that has taken from it lately.
#[derive(Debug, Default)]
struct Buckets {
    /// As of one [`Bucket`].
    interval: AtomicU64,
    full_at: Mutex<HashMap<IpAddr, u64>>,
}

impl Buckets {
    fn set(&self, per_second: Option<u32>) {
        let interval = per_second.map_or(0, |most| 1_000_000_000 / u64::from(most.max(1)));
        self.interval.store(interval, Relaxed);
        if interval == 0 {
            lock(&self.full_at).clear();
        }
    }

    fn take(&self, now: Time, address: IpAddr) -> bool {
        let interval = self.interval.load(Relaxed);
        if interval == 0 {
            return true;
        }
        let now = now.as_micros().saturating_mul(1_000);
        let mut address = whose(address);
        let mut all = lock(&self.full_at);
        if all.len() >= limit::HANDSHAKE_ADDRESSES && !all.contains_key(&address) {
            // A bucket that is full again is as good as none.
            all.retain(|_, full_at| *full_at > now);
            if all.len() >= limit::HANDSHAKE_ADDRESSES {
                address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            }
        }
        let full_at = all.entry(address).or_insert(0);
        match after_one(*full_at, now, interval) {
            Some(next) => {
                *full_at = next;
                true
            }
            None => false,
        }
    }
}

/// When a bucket will be full that gives one now, if it has one.
fn after_one(full_at: u64, now: u64, interval: u64) -> Option<u64> {
    let next = full_at.max(now) + interval;
    (next <= now + BURST).then_some(next)
}

/// Who has an address: of IPv6, whoever has the network of 64 bits, as most customers do.
fn whose(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        address => address,
    }
}

/// What a bucket holds: one second's worth, in nanoseconds.
const BURST: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use bowline_proto::Time;

    use super::{Bucket, Buckets};
    use crate::limit;

    #[test]
    fn each_address_has_a_bucket_of_its_own() {
        let buckets = Buckets::default();
        let now = Time::from_micros(5_000_000);
        let taken = |address: &str, now| {
            let address = address.parse().unwrap();
            (0..100).filter(|_| buckets.take(now, address)).count()
        };
        assert_eq!(taken("192.0.2.1", now), 100, "without a limit nobody is counted");
        buckets.set(Some(10));
        assert_eq!(taken("192.0.2.1", now), 10);
        assert_eq!(taken("192.0.2.2", now), 10);
        assert_eq!(taken("::ffff:192.0.2.1", now), 0);
        assert_eq!(taken("2001:db8::1", now), 10);
        assert_eq!(taken("2001:db8::ffff:1", now), 0, "the network counts");
        assert_eq!(taken("2001:db8:0:1::1", now), 10);
        assert_eq!(taken("192.0.2.1", Time::from_micros(5_500_000)), 5);
    }

    #[test]
    fn addresses_that_were_seen_long_ago_take_no_room() {
        let buckets = Buckets::default();
        buckets.set(Some(10));
        let now = Time::from_micros(5_000_000);
        let most = limit::HANDSHAKE_ADDRESSES as u32;
        for address in 0..most + 1_000 {
            buckets.take(now, std::net::Ipv4Addr::from_bits(address + 1).into());
        }
        // Those who came too late share one bucket, and those who came before keep theirs.
        let stranger = "203.0.113.7".parse().unwrap();
        assert!(!buckets.take(now, stranger));
        assert!(buckets.take(now, std::net::Ipv4Addr::from_bits(1).into()));
        assert!(super::lock(&buckets.full_at).len() <= limit::HANDSHAKE_ADDRESSES + 1);
        let later = Time::from_micros(7_000_000);
        assert!(buckets.take(later, stranger));
        assert_eq!(super::lock(&buckets.full_at).len(), 1);
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let bucket = Bucket::default();
        bucket.set(10);
        let start = Time::from_micros(5_000_000);
        assert_eq!((0..100).filter(|_| bucket.take(start)).count(), 10);
        assert!(!bucket.take(Time::from_micros(5_099_000)));
        assert!(bucket.take(Time::from_micros(5_100_000)));
        assert!(!bucket.take(Time::from_micros(5_100_000)));
        let later = Time::from_micros(60_000_000);
        assert_eq!((0..100).filter(|_| bucket.take(later)).count(), 10);
    }
}
