//! What a client that comes back has missed: found in the log, and sent in portions, so that it is
//! not cut again for what it cannot take at once.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{
    Happened, Hub, Offset, Socket,
    engine::{Farewell, PACKET_OVERHEAD_BYTES},
    kept::{Kept, Mark, Missed, Stay},
    log::{Record, RecordKind, StampText, Target},
    namespace::{Held, Namespace, Reach},
    sockets::Heading,
};
use crate::{
    SessionKey, SocketKey, Timer,
    session::{NEVER, Session},
    socketio::Args,
    wall::{DisconnectReason, RecoveryOutcome},
};

/// How far a socket has been sent what it has missed.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    /// What comes from the log of another shard or process, and is not known to have arrived.
    pub(super) older: VecDeque<Missed>,
    older_sent: usize,
    /// Where those are counted that all sockets of the hub have of them.
    total: Arc<AtomicUsize>,
    /// How many things were sent since its client came back.
    replayed: u32,
    /// Records that are to be sent, of those up to `scanned`.
    todo: VecDeque<u64>,
    scanned: u64,
    /// Events that are owed an ack: the record after which they were emitted, and the ack's number.
    asking: VecDeque<(u64, u64)>,
    /// Whether something is left to send. The socket is reached by nothing else until then.
    active: bool,
    covered: Option<Covered>,
}

/// What a socket had already been sent, or is sent as `older`, when it came from another shard.
#[derive(Debug)]
struct Covered {
    /// The last broadcast of each origin.
    seen: Box<[u64]>,
    /// The newest record when the socket arrived. From then on it holds itself what it owes an ack for.
    arrived: u64,
    /// Records up to this one may be among them. Unknown until this shard has seen as much.
    until: Option<u64>,
}

impl CatchUp {
    /// What a socket brings from another shard or process. `seen` is for one that moves: what it had
    /// been sent there, and the newest record here.
    pub(super) fn new(
        older: Vec<Missed>,
        seen: Option<(Box<[u64]>, u64)>,
        total: &Arc<AtomicUsize>,
    ) -> Self {
        total.fetch_add(older.len(), Relaxed);
        let mut new = Self::default();
        new.covered = seen.map(|(seen, arrived)| Covered { seen, arrived, until: None });
        new.older = older.into();
        new.total = Arc::clone(total);
        new
    }

    /// Whether something of what this shard has logged came with it.
    pub(super) fn is_covered(&self) -> bool {
        self.covered.is_some()
    }

    pub(super) fn sent(&self, head: u64) -> Mark {
        let number = match self.todo.front() {
            _ if !self.active => head,
            _ if self.older_sent < self.older.len() => 0,
            Some(next) => next - 1,
            None => self.scanned,
        };
        let older = if self.active { self.older_sent } else { self.older.len() };
        Mark { older, number }
    }

    pub(super) fn confirm(&mut self, older: usize) {
        let older = older.min(self.older.len());
        self.older.drain(..older);
        self.total.fetch_sub(older, Relaxed);
        self.older_sent = self.older_sent.saturating_sub(older);
    }

    /// How many of the older ones a client has seen whose last was this.
    pub(super) fn older_until(&self, offset: Offset) -> usize {
        let seen = |missed: &Missed| {
            (missed.offset.epoch, missed.offset.shard) == (offset.epoch, offset.shard)
                && missed.offset.number <= offset.number
        };
        self.older.iter().rposition(seen).map_or(0, |last| last + 1)
    }

    pub(super) fn is_over(&self, cursor: u64) -> bool {
        let covered = |covered: &Covered| covered.until.is_some_and(|until| until <= cursor);
        !self.active && self.older.is_empty() && self.covered.as_ref().is_none_or(covered)
    }

    /// Its transport is lost: nothing counts as sent.
    pub(super) fn rewind(&mut self) {
        self.active = false;
        self.older_sent = 0;
        self.replayed = 0;
        self.todo.clear();
        self.asking.clear();
    }

    /// Whether a record was covered where the socket came from.
    fn has_had(&self, number: u64, record: &Record) -> bool {
        self.covered.as_ref().is_some_and(|covered| {
            let seen = covered.seen.get(usize::from(record.origin.shard)).copied();
            covered.until.is_none_or(|until| number <= until)
                && !matches!(record.target, Target::Socket { .. })
                && record.origin.number <= seen.unwrap_or(0)
        })
    }
}

impl Drop for CatchUp {
    fn drop(&mut self) {
        self.total.fetch_sub(self.older.len(), Relaxed);
    }
}

impl RecordKind {
    /// The number of the ack that a record is, and of the one that it asks for.
    fn acks(self) -> (Option<u64>, Option<u64>) {
        match self {
            Self::Event => (None, None),
            Self::Asking(id) => (None, Some(id)),
            Self::Answer(id) => (Some(id), None),
        }
    }
}

/// What one socket can miss. Each return looks through all of it, and costs its client one request.
pub(super) const MISSED_MAX: usize = 65_536;

/// What is sent of a replay at once.
const PORTION_BYTES: usize = 256 * 1024;

/// What may wait for a poll while more of a replay is put behind it.
const POLLED_BYTES: usize = 64 * 1024;

impl Hub {
    /// Starts to send a socket what its client has not got for certain.
    pub(super) fn begin_replay(&mut self, key: SocketKey) {
        let Some(socket) = self.sockets.get_mut(key).filter(|it| !it.is_away()) else { return };
        let session = socket.session;
        let mut asking: Vec<(u64, u64)> = socket
            .extras
            .as_deref()
            .into_iter()
            .flat_map(|extras| &extras.pending_acks)
            .filter_map(|(id, ack)| Some((ack.held.as_ref()?.after, *id)))
            .collect();
        asking.sort_unstable();
        let Some(kept) = socket.kept.as_deref_mut() else { return };
        let cursor = kept.cursor;
        let catch_up = kept.catch_up.get_or_insert_default();
        catch_up.rewind();
        catch_up.active = true;
        catch_up.scanned = cursor;
        catch_up.asking = asking.into();
        if let Some(session) = self.sessions.get_mut(session) {
            session.catching_up += 1;
        }
        self.go_on_replaying(key);
    }

    /// Sends the next portion, and sees to it that there will be another.
    fn go_on_replaying(&mut self, key: SocketKey) {
        let mut left = PORTION_BYTES.min(self.config.limits.queued_bytes_per_session / 4 + 1);
        loop {
            let Some(socket) = self.sockets.get(key) else { return };
            let Some(session) = self.sessions.get(socket.session) else { return };
            let session_key = socket.session;
            if !session.takes_more(self.config.limits.queued_bytes_per_session) {
                // `on_backlog` or the next poll goes on.
                return;
            }
            if left == 0 {
                self.schedule_replay(session_key);
                return;
            }
            match self.next_missed(key) {
                Ok(Some(next)) => {
                    let taken = self.send_missed(key, next);
                    left = left.saturating_sub(taken);
                }
                Ok(None) => {
                    self.end_replay(key);
                    return;
                }
                Err(Pause::ForPeers) => {
                    if !self.waiting_for_peers.contains(&key) {
                        self.waiting_for_peers.push(key);
                    }
                    return;
                }
                Err(Pause::Lost) => {
                    // The rest of what was promised has left the log.
                    self.end_kept(key, RecoveryOutcome::LogFull);
                    let reason = DisconnectReason::ForcedServerClose;
                    self.end(session_key, reason, Farewell::Close(Some(super::POLICY)));
                    return;
                }
            }
        }
    }

    /// Everything was sent: from now on it is reached by what is emitted.
    fn end_replay(&mut self, key: SocketKey) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if let Some(session) = self.sessions.get_mut(socket.session) {
            session.catching_up -= 1;
        }
        let Some(kept) = socket.kept.as_deref_mut() else { return };
        let reach = if kept.stamped { Reach::Stamped } else { Reach::Plain };
        let cursor = kept.cursor;
        kept.caught_up = self.now;
        let mut replayed = 0;
        if let Some(catch_up) = kept.catch_up.as_deref_mut() {
            catch_up.active = false;
            catch_up.todo = VecDeque::new();
            catch_up.asking = VecDeque::new();
            replayed = catch_up.replayed;
            if catch_up.is_over(cursor) {
                kept.catch_up = None;
            }
        }
        if let Some(socket) = self.sockets.get(key) {
            self.namespaces.set_reach(socket, reach, self.sessions.get(socket.session));
        }
        self.note_socket(key, Happened::CaughtUp { replayed });
    }

    /// What a socket is to be sent next.
    fn next_missed(&mut self, key: SocketKey) -> Result<Option<Next>, Pause> {
        loop {
            let Some(socket) = self.sockets.get(key) else { return Ok(None) };
            let Some(catch_up) = socket.kept.as_deref().and_then(|it| it.catch_up.as_deref())
            else {
                return Ok(None);
            };
            if catch_up.older_sent < catch_up.older.len() {
                return Ok(Some(Next::Older));
            }
            let next = catch_up.todo.front().copied();
            if let Some((after, id)) = catch_up.asking.front()
                && next.is_none_or(|next| *after < next)
                && (next.is_some() || *after <= catch_up.scanned)
            {
                return Ok(Some(Next::Asking(*id)));
            }
            if let Some(number) = next {
                return Ok(Some(Next::Record(number)));
            }
            let head = self.log.head();
            let scanned = catch_up.scanned;
            let had_all = catch_up.covered.as_ref().is_none_or(|it| it.until.is_some());
            if scanned == head && catch_up.asking.is_empty() {
                if !had_all && !self.has_seen(catch_up) {
                    return Err(Pause::ForPeers);
                }
                self.settle_covered(key, head);
                return Ok(None);
            }
            let found = self.missed_since(socket, scanned).ok_or(Pause::Lost)?;
            let Some(kept) = self.sockets.get_mut(key).and_then(|it| it.kept.as_deref_mut()) else {
                return Ok(None);
            };
            let catch_up = kept.catch_up.get_or_insert_default();
            catch_up.todo = found.into();
            catch_up.scanned = head;
        }
    }

    fn has_seen(&self, catch_up: &CatchUp) -> bool {
        catch_up.covered.as_ref().is_none_or(|covered| {
            covered.seen.iter().zip(&self.seen).all(|(theirs, own)| own >= theirs)
        })
    }

    fn settle_covered(&mut self, key: SocketKey, head: u64) {
        let kept = self.sockets.get_mut(key).and_then(|socket| socket.kept.as_deref_mut());
        if let Some(covered) = kept
            .and_then(|kept| kept.catch_up.as_deref_mut())
            .and_then(|catch_up| catch_up.covered.as_mut())
        {
            covered.until.get_or_insert(head);
        }
    }

    /// Sends one thing and returns what it takes of a portion.
    fn send_missed(&mut self, key: SocketKey, next: Next) -> usize {
        let Some(socket) = self.sockets.get_mut(key) else { return 0 };
        let Some(kept) = socket.kept.as_deref_mut() else { return 0 };
        let stamped = kept.stamped;
        let Some(catch_up) = kept.catch_up.as_deref_mut() else { return 0 };
        catch_up.replayed = catch_up.replayed.saturating_add(1);
        let (args, answers, asks, offset) = match next {
            Next::Older => {
                let missed = catch_up.older[catch_up.older_sent].clone();
                if missed.is_marker() {
                    catch_up.older_sent += 1;
                    catch_up.replayed = catch_up.replayed.saturating_sub(1);
                    return 0;
                }
                let Missed { offset, args, answers, asks } = missed;
                catch_up.older_sent += 1;
                (args, answers, asks, Some(offset))
            }
            Next::Asking(id) => {
                catch_up.asking.pop_front();
                let ack = socket.extras.as_deref().and_then(|it| it.pending_acks.get(&id));
                let Some(Held { args, .. }) = ack.and_then(|ack| ack.held.clone()) else {
                    return 0;
                };
                (args, None, Some(id), None)
            }
            Next::Record(number) => {
                catch_up.todo.pop_front();
                let Some(record) = self.log.get(number) else { return 0 };
                let (answers, asks) = record.kind.acks();
                (record.args.clone(), answers, asks, Some(self.log.offset(number)))
            }
        };
        let bytes = args.bytes() + PACKET_OVERHEAD_BYTES;
        if let Some(id) = answers {
            self.send_late(key, Heading::Ack(id), &args, &StampText::new());
        } else {
            let stamp = offset.filter(|_| stamped && asks.is_none());
            let stamp = stamp.map_or(StampText::new(), Offset::stamp);
            self.stats.events_replayed += 1;
            self.send_late(key, Heading::Event(asks), &args, &stamp);
        }
        bytes
    }

    /// The numbers of the records after `from` that are for a socket, in order. `None` if one of
    /// them has left the log.
    pub(super) fn missed_since(&self, socket: &Socket, from: u64) -> Option<Vec<u64>> {
        let kept = socket.kept.as_deref()?;
        let namespace = self.namespaces.all.get(socket.namespace)?;
        if kept.floor > from {
            return None;
        }
        let own = socket.id?.to_string();
        let mut found = Vec::new();
        self.trail(kept.newest, from, &mut found, |target| match target {
            Target::Socket { previous } => Some(*previous),
            Target::Everyone { .. } | Target::Rooms { .. } => None,
        })?;
        self.trail(namespace.trail.everyone, from, &mut found, |target| match target {
            Target::Everyone { previous, .. } => Some(*previous),
            Target::Socket { .. } | Target::Rooms { .. } => None,
        })?;
        let mut stays: Vec<(&str, (u64, u64))> = vec![(&own, (0, u64::MAX))];
        stays.extend(kept.past.iter().map(|stay| (&*stay.room, (stay.since, stay.until))));
        stays.extend(socket.rooms.iter().filter_map(|membership| {
            let room = self.namespaces.rooms.get(membership.room)?;
            Some((&*room.name, (membership.since, u64::MAX)))
        }));
        stays.sort_unstable();
        for stays in stays.chunk_by(|one, other| one.0 == other.0) {
            self.trail_of_room(namespace, stays, from, &mut found)?;
            if found.len() > 2 * MISSED_MAX {
                found.sort_unstable();
                found.dedup();
            }
            if found.len() > 2 * MISSED_MAX {
                return None;
            }
        }
        found.sort_unstable();
        found.dedup();
        if found.len() > MISSED_MAX {
            return None;
        }
        let catch_up = kept.catch_up.as_deref();
        found.retain(|number| {
            self.log.get(*number).is_some_and(|record| {
                let excepted = match &record.target {
                    Target::Socket { .. } => false,
                    Target::Everyone { except, .. } | Target::Rooms { except, .. } => {
                        !cfg!(bowline_broken = "replay-except")
                            && except.iter().any(|it| self.was_in(socket, kept, &own, it, *number))
                    }
                };
                let covered = catch_up.and_then(|it| it.covered.as_ref());
                let kind = match record.kind {
                    RecordKind::Event | RecordKind::Answer(_) => true,
                    RecordKind::Asking(_) => covered.is_some_and(|it| *number <= it.arrived),
                };
                kind && !excepted && !catch_up.is_some_and(|it| it.has_had(*number, record))
            })
        });
        Some(found)
    }

    /// Follows a trail of records back to `from`. `None` if it leads out of the log before.
    fn trail(
        &self,
        newest: u64,
        from: u64,
        found: &mut Vec<u64>,
        previous: impl Fn(&Target) -> Option<u64>,
    ) -> Option<()> {
        let mut number = newest;
        while number > from {
            let record = self.log.get(number)?;
            found.push(number);
            if found.len() > MISSED_MAX {
                return None;
            }
            number = previous(&record.target)?;
        }
        Some(())
    }

    /// The same for a room, of which only what was sent in one of the stays counts: after a record, up
    /// to another.
    fn trail_of_room(
        &self,
        namespace: &Namespace,
        stays: &[(&str, (u64, u64))],
        from: u64,
        found: &mut Vec<u64>,
    ) -> Option<()> {
        let Some(&(room, _)) = stays.first() else { return Some(()) };
        let (mut number, before) = (namespace.trail.newest(room), found.len());
        let joined = stays.iter().map(|(_, (since, _))| *since).min().unwrap_or(u64::MAX);
        while number > from.max(joined) {
            let Some(record) = self.log.get(number) else {
                // It and those before it are gone. That is a loss if the socket was there then.
                let there = |&(_, (since, until)): &_| from.max(since) < number.min(until);
                return (!stays.iter().any(there)).then_some(());
            };
            if stays.iter().any(|&(_, (since, until))| since < number && number <= until) {
                found.push(number);
            }
            if found.len() - before > MISSED_MAX {
                return None;
            }
            let Target::Rooms { rooms, .. } = &record.target else { return None };
            number = rooms.iter().find(|link| link.room == *room)?.previous;
        }
        Some(())
    }

    /// Whether a socket was in a room when a record was made.
    fn was_in(&self, socket: &Socket, kept: &Kept, own: &str, room: &str, number: u64) -> bool {
        let key = self.namespaces.all.get(socket.namespace).and_then(|it| it.rooms.get(room));
        let is_in = |key| socket.rooms.iter().any(|it| it.room == key && it.since < number);
        let was_in =
            |stay: &Stay| stay.room == *room && stay.since < number && number <= stay.until;
        room == own || key.is_some_and(|key| is_in(*key)) || kept.past.iter().any(was_in)
    }

    // When to go on.

    fn schedule_replay(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        // Not in this turn: what was sent has to be written first.
        let at = self.now + Duration::from_micros(1);
        session.set_replay_at(at);
        self.timers.push(at, Timer::Replay, key);
    }

    /// A session may take more than it could so far.
    pub(super) fn resume_replays(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(key) else { return };
        if session.catching_up > 0 && session.replay_at() == NEVER {
            self.schedule_replay(key);
        }
    }

    pub(super) fn on_replay_due(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.set_replay_at(NEVER);
        for socket in session.sockets.clone() {
            if self.sockets.get(socket).is_some_and(Socket::is_catching_up) {
                self.go_on_replaying(socket);
            }
        }
    }

    /// Another shard's broadcast has come: who waited for it may be able to go on.
    pub(super) fn resume_after_peers(&mut self) {
        for claim in std::mem::take(&mut self.claims_waiting) {
            self.on_heard(claim);
        }
        for key in std::mem::take(&mut self.waiting_for_peers) {
            if let Some(socket) = self.sockets.get(key).filter(|socket| socket.is_catching_up()) {
                // Not at once: the broadcast has not been walked yet, and would reach it too.
                self.resume_replays(socket.session);
            }
        }
    }

    /// What a socket takes along to another shard. `None` if some of it has left the log.
    pub(super) fn missed_of(&self, socket: &Socket) -> Option<Vec<Missed>> {
        let kept = socket.kept.as_deref()?;
        let found = self.missed_since(socket, kept.cursor)?;
        let older = kept.catch_up.as_deref().into_iter().flat_map(|it| it.older.iter().cloned());
        let own = found.into_iter().filter_map(|number| {
            let record = self.log.get(number)?;
            let (answers, asks) = record.kind.acks();
            let (offset, args) = (self.log.offset(number), record.args.clone());
            Some(Missed { offset, args, answers, asks })
        });
        Some(older.chain(own).collect())
    }

    /// Whether sockets from elsewhere have brought more than is remembered. Beside its record in the log
    /// each costs memory of its own, for each of them.
    pub(super) fn has_too_many_older(&self) -> bool {
        let most = self.config.continuity.log_bytes / size_of::<Missed>();
        self.older.load(Relaxed) > most.max(MISSED_MAX)
    }

    /// Whether the log still has all that a socket may have to be sent.
    pub(super) fn can_be_replayed(&self, key: SocketKey) -> bool {
        self.sockets.get(key).is_some_and(|socket| {
            let cursor = socket.kept.as_deref().map_or(0, |kept| kept.cursor);
            self.missed_since(socket, cursor).is_some()
        })
    }

    /// An event with an ack was emitted to a socket that has not caught up.
    pub(super) fn ask_later(&mut self, key: SocketKey, after: u64, id: u64) {
        let kept = self.sockets.get_mut(key).and_then(|socket| socket.kept.as_deref_mut());
        if let Some(catch_up) = kept.and_then(|kept| kept.catch_up.as_deref_mut())
            && catch_up.active
        {
            catch_up.asking.push_back((after, id));
        }
    }
}

impl Session {
    /// Whether more of a replay can be sent: what was sent before has gone out.
    fn takes_more(&self, queued_bytes_max: usize) -> bool {
        match self.polling.as_deref() {
            Some(polling) => polling.queued_bytes < POLLED_BYTES.min(queued_bytes_max / 4),
            None => self.backlog_bytes == 0,
        }
    }
}

impl Socket {
    pub(super) fn is_catching_up(&self) -> bool {
        let kept = self.kept.as_deref().filter(|kept| kept.away.is_none());
        kept.and_then(|kept| kept.catch_up.as_deref()).is_some_and(|it| it.active)
    }
}

/// What is to be sent next.
#[derive(Debug, Clone, Copy)]
enum Next {
    /// The next of what comes from elsewhere.
    Older,
    /// An event that was not acked.
    Asking(u64),
    Record(u64),
}

/// Why nothing can be sent for now.
#[derive(Debug, Clone, Copy)]
enum Pause {
    /// Broadcasts are still on their way here that the socket's last shard had seen.
    ForPeers,
    /// The log does not have it any more.
    Lost,
}

/// The arguments of an event without what the stamp, if there is one, stands in place of.
pub(super) fn before_stamp<'a>(args: &'a Args, stamp: &StampText) -> &'a str {
    let json: &str = &args.json;
    if stamp.is_empty() {
        return json;
    }
    let inner = json.strip_suffix(']').or_else(|| json.trim_end().strip_suffix(']'));
    inner.unwrap_or(json)
}
