//! What a hub saves when its process stops, and takes back in the next.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    time::Duration,
};

use bowline_names::ErrorCode;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use super::{
    Config, Continuity, Happened, Hub, Keeping, NamespacePattern, NamespaceRule, Offset, Socket,
    event_id::KnownEvents,
    expiry::Expiry,
    extras::Extras,
    kept::{Away, Kept, Missed, Stay},
    log::{Record, Target},
    namespace::{Held, NamespaceKey, PendingAck},
    replay::CatchUp,
};
use crate::{
    Sid, SocketKey, Time,
    socketio::Args,
    wall::{DisconnectReason, Event, RecoveryOutcome, SocketData},
};

/// What one shard leaves to the next process: its log and the sockets that it keeps.
///
/// Plain data for serde, with pids and what was emitted in clear: whoever can read it can take over
/// the sessions. It knows no points in time, only spans that are left.
#[derive(Clone, Serialize, Deserialize)]
pub struct Snapshot {
    epoch: u32,
    shard: u8,
    head: u64,
    records: Vec<Record>,
    trails: Vec<SavedTrail>,
    /// What sockets have missed that comes from other logs, each once.
    elsewhere: Vec<Missed>,
    /// Who went away first comes first.
    sockets: Vec<SavedSocket>,
    ended: Vec<(Sid, ByteString)>,
}

#[derive(Clone, Serialize, Deserialize)]
struct SavedTrail {
    namespace: ByteString,
    everyone: u64,
    rooms: Vec<(ByteString, u64)>,
    forgotten: u64,
}

#[derive(Clone, Serialize, Deserialize)]
struct SavedSocket {
    pid: Sid,
    id: Sid,
    namespace: ByteString,
    stamped: bool,
    reason: ByteString,
    rooms: Vec<ByteString>,
    /// Where it stands in the log of its shard. Without it, it has got or is owed as `older` all of
    /// the log.
    place: Option<Place>,
    /// What is not known to have arrived of other logs: indices of `elsewhere`, in order.
    older: Vec<u32>,
    /// Whether something that it is owed is lost.
    lost: bool,
    next_ack: u64,
    held: Vec<SavedHeld>,
    data: Option<ByteString>,
    expiry: Option<(Duration, ByteString)>,
    known_events: Option<Box<KnownEvents>>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Place {
    cursor: u64,
    newest: u64,
    floor: u64,
    past: Vec<Stay>,
    /// Since when it is in each of its rooms.
    since: Vec<u64>,
}

#[derive(Clone, Serialize, Deserialize)]
struct SavedHeld {
    id: u64,
    left: Duration,
    args: Args,
    after: u64,
}

impl fmt::Debug for Snapshot {
    /// Counts only: the rest is long, and secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("shard", &self.shard)
            .field("head", &self.head)
            .field("records", &self.records.len())
            .field("sockets", &self.sockets.len())
            .finish_non_exhaustive()
    }
}

/// Entries of `older` that are made for all sockets together when shards change: each costs some
/// hundred bytes in the next process. Sockets beyond that cannot be recovered.
const OLDER_MAX: usize = 2_000_000;

impl Snapshot {
    /// The index of the shard.
    pub fn shard(&self) -> u8 {
        self.shard
    }

    /// The number of the last record that its log ever had: the
    /// [`head`](super::Continuity::head) of the hub that goes on with it.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// How many sockets there are in it.
    pub fn sockets(&self) -> usize {
        self.sockets.len()
    }

    fn empty(epoch: u32, shard: u8) -> Self {
        Self {
            epoch,
            shard,
            head: 0,
            records: Vec::new(),
            trails: Vec::new(),
            elsewhere: Vec::new(),
            sockets: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// Makes what the shards of one process have left into what so many shards take back: every
    /// socket comes to the home of its pid. Those that were there before, on a shard of the same
    /// index, keep their places in its log; the others bring along what they have missed.
    ///
    /// The logs of shards that there are no more end here. If there will be as many again in the same
    /// epoch, theirs must go on after [`head`](Self::head): offsets that were given away are known
    /// by number.
    pub fn redistribute(snapshots: Vec<Self>, shards: u8) -> Vec<Self> {
        let shards = shards.max(1);
        let epoch = snapshots.first().map_or(0, |first| first.epoch);
        let mut new: Vec<Self> = (0..shards).map(|shard| Self::empty(epoch, shard)).collect();
        let mut elsewhere: Vec<Elsewhere> = new.iter().map(|_| Elsewhere::default()).collect();
        let mut sockets = Vec::new();
        let mut ended = Vec::new();
        let mut left = OLDER_MAX;
        for mut snapshot in snapshots {
            let own = snapshot.shard;
            ended.append(&mut snapshot.ended);
            let goes = |pid: Sid| pid.shard() % shards != own;
            if snapshot.sockets.iter().any(|socket| goes(socket.pid)) {
                snapshot = Hub::of_snapshot(snapshot).save(goes, &mut left);
            }
            for mut socket in std::mem::take(&mut snapshot.sockets) {
                let table = &mut elsewhere[usize::from(socket.pid.shard() % shards)];
                for index in &mut socket.older {
                    if let Some(missed) = snapshot.elsewhere.get(*index as usize) {
                        *index = table.index_of(missed.clone());
                    }
                }
                sockets.push(socket);
            }
            if let Some(place) = new.get_mut(usize::from(own)) {
                *place = snapshot;
            }
        }
        for socket in sockets {
            new[usize::from(socket.pid.shard() % shards)].sockets.push(socket);
        }
        for (snapshot, table) in new.iter_mut().zip(elsewhere) {
            snapshot.elsewhere = table.all;
        }
        for (pid, outcome) in ended {
            new[usize::from(pid.shard() % shards)].ended.push((pid, outcome));
        }
        new
    }
}

/// Missed entries, each once however many sockets have missed it.
#[derive(Default)]
struct Elsewhere {
    all: Vec<Missed>,
    by_offset: BTreeMap<Offset, u32>,
}

impl Elsewhere {
    fn index_of(&mut self, missed: Missed) -> u32 {
        let next = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        let index = *self.by_offset.entry(missed.offset).or_insert(next);
        if index == next {
            self.all.push(missed);
        }
        index
    }
}

impl Hub {
    /// What the next process needs to go on with the sockets that are kept. To be asked when all
    /// sessions have ended and all messages of other shards have come; sockets that have a session
    /// all the same lose it, without a word to their clients. The hub is of no use afterwards.
    ///
    /// A hub that still waits for [`Input::Restore`](crate::Input::Restore) must get that first.
    pub fn snapshot(&mut self, now: Time) -> Snapshot {
        self.now = now;
        let kept = self.sockets.iter().filter(|(_, socket)| socket.kept.is_some());
        let present: Vec<_> =
            kept.filter(|(_, socket)| !socket.is_away()).map(|(key, _)| key).collect();
        for key in present {
            self.go_away(key, DisconnectReason::ServerShuttingDown);
        }
        self.outputs.clear();
        let mut left = self.config.continuity.log_bytes / size_of::<Missed>();
        self.save(|_| false, &mut left)
    }

    /// Saves everything. Sockets that `goes` names are made independent of the log, for which there
    /// may be as many entries as are `left`.
    fn save(&self, goes: impl Fn(Sid) -> bool, left: &mut usize) -> Snapshot {
        let mut away: Vec<(Time, SocketKey)> = self
            .sockets
            .iter()
            .filter_map(|(key, socket)| Some((socket.kept.as_deref()?.away?.since, key)))
            .collect();
        away.sort_unstable();
        let mut elsewhere = Elsewhere::default();
        let saved = away
            .into_iter()
            .filter_map(|(_, key)| self.save_socket(key, &goes, &mut elsewhere, left));
        let sockets = saved.collect();
        let first = self.log.first();
        let trails = self.namespaces.all.values().filter(|namespace| namespace.kept > 0);
        let trails = trails.map(|namespace| {
            let trail = &namespace.trail;
            let (rooms, gone): (Vec<_>, Vec<_>) =
                trail.rooms.iter().partition(|(_, newest)| **newest >= first);
            let gone = gone.into_iter().map(|(_, newest)| *newest).max();
            SavedTrail {
                namespace: namespace.name.clone(),
                everyone: trail.everyone,
                rooms: rooms.into_iter().map(|(room, newest)| (room.clone(), *newest)).collect(),
                forgotten: trail.forgotten.max(gone.unwrap_or_default()),
            }
        });
        let ended = self.keeper.graves();
        Snapshot {
            epoch: self.log.epoch(),
            shard: self.config.continuity.shard,
            head: self.log.head(),
            records: self.log.records().map(|(_, record)| record.clone()).collect(),
            trails: trails.collect(),
            elsewhere: elsewhere.all,
            sockets,
            ended: ended.map(|(pid, why)| (pid, ByteString::from_static(why.name()))).collect(),
        }
    }

    fn save_socket(
        &self,
        key: SocketKey,
        goes: impl Fn(Sid) -> bool,
        elsewhere: &mut Elsewhere,
        left: &mut usize,
    ) -> Option<SavedSocket> {
        let socket = self.sockets.get(key)?;
        let kept = socket.kept.as_deref()?;
        let catch_up = kept.catch_up.as_deref();
        // Which records it has had elsewhere is said in numbers that end with the process.
        let independent = goes(kept.pid) || catch_up.is_some_and(CatchUp::is_covered);
        let mut lost = kept.floor == u64::MAX;
        let missed = match independent {
            true => self.missed_of(socket).unwrap_or_else(|| {
                lost = true;
                Vec::new()
            }),
            false => catch_up.into_iter().flat_map(|it| it.older.iter().cloned()).collect(),
        };
        match left.checked_sub(missed.len()) {
            Some(rest) => *left = rest,
            None => lost = true,
        }
        let missed = if lost { Vec::new() } else { missed };
        let place = Place {
            cursor: kept.cursor,
            newest: kept.newest,
            floor: kept.floor,
            past: kept.past.iter().cloned().collect(),
            since: socket.rooms.iter().map(|membership| membership.since).collect(),
        };
        let extras = socket.extras.as_deref();
        let acks = extras.into_iter().flat_map(|extras| &extras.pending_acks);
        let held = acks.filter_map(|(id, ack)| {
            let Held { args, after } = ack.held.clone()?;
            Some(SavedHeld { id: *id, left: ack.deadline - self.now, args, after })
        });
        let expiry = extras
            .and_then(|extras| extras.expiry)
            .map(|expiry| (expiry.at() - self.now, ByteString::from_static(expiry.code().name())));
        Some(SavedSocket {
            pid: kept.pid,
            id: socket.id?,
            namespace: self.namespaces.all.get(socket.namespace)?.name.clone(),
            stamped: kept.stamped,
            reason: ByteString::from_static(kept.away?.reason.name()),
            rooms: self.rooms_of(key).map(ByteString::from).collect(),
            place: (!independent).then_some(place),
            older: missed.into_iter().map(|missed| elsewhere.index_of(missed)).collect(),
            lost,
            next_ack: socket.next_ack,
            held: held.collect(),
            data: extras.and_then(|extras| Some(extras.data.as_ref()?.text().clone())),
            expiry,
            known_events: extras
                .and_then(|extras| extras.known_events.as_deref())
                .map(|known| Box::new(known.to_save())),
        })
    }

    /// A hub that has taken back `snapshot` and does nothing else with it.
    fn of_snapshot(snapshot: Snapshot) -> Self {
        let rules = snapshot.sockets.iter().map(|socket| socket.namespace.clone());
        let rules: std::collections::BTreeSet<ByteString> = rules.collect();
        let rule = |name: ByteString| NamespaceRule {
            pattern: NamespacePattern::new(&name),
            handler: 0,
            keeping: Keeping::default(),
        };
        let continuity = Continuity {
            shard: snapshot.shard,
            epoch: snapshot.epoch,
            head: snapshot.head,
            loading: true,
            window: Duration::ZERO,
            log_bytes: usize::MAX,
            away_max: usize::MAX,
            ..Continuity::default()
        };
        let namespaces = rules.into_iter().map(rule).collect();
        let mut hub = Self::new(Config { continuity, namespaces, ..Config::default() }, [0; 16]);
        hub.take_back(snapshot, None);
        hub.outputs.clear();
        hub
    }

    /// Takes back what an earlier process has saved.
    pub(super) fn restore(&mut self, snapshot: Option<Box<Snapshot>>) {
        if !self.loading {
            return;
        }
        if let Some(snapshot) = snapshot {
            let marker = (!snapshot.elsewhere.is_empty()).then(|| self.skip_number());
            self.take_back(*snapshot, marker.as_ref());
        }
        self.loading = false;
        self.namespaces.keep_empty = false;
        let names: Vec<NamespaceKey> = self.namespaces.all.keys().collect();
        for key in names {
            self.namespaces.drop_if_empty(key);
        }
        for early in std::mem::take(&mut self.heard_early) {
            self.on_heard(early);
        }
    }

    fn take_back(&mut self, saved: Snapshot, marker: Option<&Missed>) {
        let head = self.config.continuity.head;
        let goes_on = (saved.epoch, saved.head) == (self.log.epoch(), head);
        // If some of what came after has left the log already, what was before must go too.
        if goes_on && self.log.first() == head + 1 {
            self.log.prepend(saved.records);
        }
        self.log.rejuvenate(self.now);
        for (pid, outcome) in saved.ended {
            if let Some(outcome) = RecoveryOutcome::ALL.iter().find(|it| outcome == it.name()) {
                self.keeper.bury(pid, *outcome);
            }
        }
        let texts: usize = saved.elsewhere.iter().map(|missed| missed.args.bytes()).sum();
        let mut left = self.config.continuity.log_bytes.saturating_sub(texts) / size_of::<Missed>();
        for socket in saved.sockets {
            if socket.place.is_some() && !goes_on {
                self.stats.not_restored += 1;
                self.keeper.bury(socket.pid, RecoveryOutcome::Restarted);
                continue;
            }
            match self.take_back_socket(socket, &saved.elsewhere, marker, head, &mut left) {
                Some(key) => {
                    self.stats.restored += 1;
                    self.note_socket(key, Happened::Restored);
                    let reason = DisconnectReason::ServerShuttingDown;
                    self.deliver(key, Event::Away { socket: key, reason });
                }
                None => self.stats.not_restored += 1,
            }
        }
        if goes_on {
            for trail in saved.trails {
                self.take_back_trail(trail, head);
            }
        }
        self.trim_log();
        self.make_room_away();
    }

    fn take_back_socket(
        &mut self,
        mut saved: SavedSocket,
        elsewhere: &[Missed],
        marker: Option<&Missed>,
        head: u64,
        left: &mut usize,
    ) -> Option<SocketKey> {
        let handler = self.config.rule_for(&saved.namespace)?.handler;
        if self.keeper.by_pid.contains_key(&saved.pid) || self.by_socket_sid.contains_key(&saved.id)
        {
            return None;
        }
        let now = self.now;
        let mut lost = saved.lost;
        let of = |index: &u32| elsewhere.get(*index as usize).cloned();
        let mut older: Vec<Missed> = Vec::new();
        match left.checked_sub(saved.older.len()) {
            Some(rest) => {
                *left = rest;
                older = saved.older.iter().filter_map(of).collect();
                if saved.stamped && !older.is_empty() {
                    older.extend(marker.cloned());
                }
            }
            None => lost = true,
        }
        let reason = DisconnectReason::ALL.iter().find(|it| saved.reason == it.name());
        let reason = *reason.unwrap_or(&DisconnectReason::ServerShuttingDown);
        let (cursor, since) = match &saved.place {
            Some(place) => (place.cursor.min(head), place.since.clone()),
            None => (head, vec![head; saved.rooms.len()]),
        };
        let own = self.config.continuity.shard;
        let namespace = self.namespaces.find_or_make(&saved.namespace, handler);
        let key = self.sockets.insert_with_key(|key| {
            let mut kept = Kept::new(saved.pid, (own, key), saved.stamped, cursor);
            kept.away = Some(Away { since: now, reason });
            if let Some(Place { newest, floor, past, .. }) = saved.place.take() {
                (kept.newest, kept.floor, kept.past) = (newest, floor, VecDeque::from(past));
            }
            if lost {
                kept.floor = u64::MAX;
            }
            if !older.is_empty() {
                kept.catch_up = Some(Box::new(CatchUp::new(older, None, &self.older)));
            }
            Socket {
                namespace,
                id: Some(saved.id),
                next_ack: saved.next_ack,
                kept: Some(Box::new(kept)),
                ..Socket::default()
            }
        });
        let extras = self.take_back_extras(&mut saved, head, cursor);
        let ack_by = extras.ack_by();
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.extras = (!extras.is_empty()).then(|| Box::new(extras));
            self.namespaces.admit(key, socket);
        }
        for (room, since) in saved.rooms.iter().zip(since) {
            if self.enter_room(key, room)
                && let Some(socket) = self.sockets.get_mut(key)
                && let Some(membership) = socket.rooms.last_mut()
            {
                membership.since = since;
            }
        }
        self.by_socket_sid.insert(saved.id, key);
        self.keeper.by_pid.insert(saved.pid, key);
        self.enter_away(now, key);
        if let Some(deadline) = ack_by {
            self.keeper.await_ack(deadline, key);
        }
        Some(key)
    }

    /// What few sockets have. Acks that were owed are nobody's now: their events are sent again.
    fn take_back_extras(&mut self, saved: &mut SavedSocket, head: u64, cursor: u64) -> Extras {
        let now = self.now;
        let mut extras = Extras {
            data: saved.data.take().and_then(|text| SocketData::new(&text).ok()),
            expiry: saved.expiry.take().and_then(|(left, code)| {
                let code = ErrorCode::ALL.iter().find(|it| code == it.name())?;
                Some(Expiry::new(now + left, *code))
            }),
            known_events: saved.known_events.take(),
            ..Extras::default()
        };
        for SavedHeld { id, left, args, after } in std::mem::take(&mut saved.held) {
            // Nobody waits for the answer any more: there is time for the client to come back.
            let deadline = now + left.max(self.config.continuity.window);
            self.pass_shared_ack(id);
            extras.held_bytes += args.bytes();
            let held = Some(Held { args, after: after.min(head).max(cursor) });
            extras.pending_acks.insert(id, PendingAck { token: None, deadline, held });
        }
        extras
    }

    /// Ties what was emitted before this to what was saved.
    fn take_back_trail(&mut self, saved: SavedTrail, head: u64) {
        let Some(key) = self.namespaces.find(&saved.namespace) else { return };
        let Some(namespace) = self.namespaces.all.get_mut(key) else { return };
        let trail = &mut namespace.trail;
        let mut early = vec![(None, trail.everyone, saved.everyone)];
        trail.everyone = trail.everyone.max(saved.everyone);
        let mut rooms: BTreeMap<ByteString, u64> = saved.rooms.into_iter().collect();
        for (room, newest) in &trail.rooms {
            let before = rooms.remove(room).unwrap_or(saved.forgotten);
            early.push((Some(room.clone()), *newest, before));
        }
        trail.rooms.extend(rooms);
        trail.forgotten = trail.forgotten.max(saved.forgotten);
        for (room, newest, before) in early {
            self.tie(room.as_deref(), newest, before, head);
        }
    }

    /// Follows the links of a room, or of everybody, back to the oldest record of this process, and
    /// links that to `before`.
    fn tie(&mut self, room: Option<&str>, newest: u64, before: u64, head: u64) {
        let mut number = newest;
        while number > head {
            let Some(record) = self.log.get_mut(number) else { return };
            let previous = match (&mut record.target, room) {
                (Target::Everyone { previous, .. }, None) => previous,
                (Target::Rooms { rooms, .. }, Some(room)) => {
                    let Some(link) = rooms.iter_mut().find(|link| link.room == *room) else {
                        return;
                    };
                    &mut link.previous
                }
                (Target::Socket { .. } | Target::Everyone { .. } | Target::Rooms { .. }, _) => {
                    return;
                }
            };
            number = *previous;
            if number <= head {
                *previous = before;
            }
        }
    }
}
