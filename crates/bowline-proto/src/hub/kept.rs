//! Sockets that are kept while their clients are away: what they remember, and how they lose and
//! find a session.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use super::{
    Happened, Hub, Offset, Socket,
    namespace::{KeyedHash, Reach},
    replay::CatchUp,
};
use crate::{
    SessionKey, Sid, SocketKey, Time,
    hub::{OnDoubt, extras::Asking, peers::Home},
    id::SidHash,
    session::NEVER,
    socketio::{self, Args},
    wall::{DisconnectReason, Event, RecoveryOutcome},
};

/// What a socket has that is kept.
#[derive(Debug)]
pub(super) struct Kept {
    /// The secret by which its client comes back, or what its name was made into.
    pub(super) pid: Sid,
    /// The shard and the key under which handlers know it.
    pub(super) born: (u8, SocketKey),
    /// Whether its events carry offsets and its client was told the pid.
    pub(super) stamped: bool,
    /// All that concerns it up to this record is known to have arrived.
    pub(super) cursor: u64,
    /// How far things were sent before the ping that awaits its pong, and before the poll that was
    /// answered last.
    ping: Option<Mark>,
    poll: Option<Mark>,
    /// The newest record that is for it alone.
    pub(super) newest: u64,
    /// Memberships that have ended, and that it may still have to be sent something for.
    pub(super) past: VecDeque<Stay>,
    /// Before this record, memberships are not remembered.
    pub(super) floor: u64,
    pub(super) away: Option<Away>,
    /// Since when it has been sent all that it had missed; [`NEVER`] until then.
    pub(super) caught_up: Time,
    /// Present while it has not been sent all that it has missed, or something of another log is
    /// not known to have arrived.
    pub(super) catch_up: Option<Box<CatchUp>>,
    /// The socket of a client that wants to take over, once the handler has agreed.
    pub(super) claimant: Option<SocketKey>,
    /// How many sessions it has lost, if it has no offsets: its client may number its events anew in
    /// each.
    pub(super) sessions_lost: u16,
    /// The number of the first event of this session that asks for an ack.
    asks_from: Option<u64>,
}

/// Since when a socket has no session, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Away {
    pub(super) since: Time,
    pub(super) reason: DisconnectReason,
}

/// A point in what a socket is sent: so many of the things from elsewhere, then the log up to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) older: usize,
    pub(super) number: u64,
}

/// A membership that has ended: it counted for records after `since`, up to `until`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stay {
    pub(super) room: ByteString,
    pub(super) since: u64,
    pub(super) until: u64,
}

/// Something that was emitted to a socket and comes from the log of another shard or process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Missed {
    pub(super) offset: Offset,
    pub(super) args: Args,
    /// The number of the ack that it is, if it is none of the events.
    pub(super) answers: Option<u64>,
    /// The number of the ack that it asks for.
    pub(super) asks: Option<u64>,
}

impl Missed {
    /// Stands for nothing that was emitted: whoever names its offset, or a later one of its log, has
    /// seen what stands before it.
    pub(super) fn marker(offset: Offset) -> Self {
        let args = Args { json: ByteString::from_static("[]"), attachments: Vec::new() };
        Self { offset, args, answers: None, asks: None }
    }

    pub(super) fn is_marker(&self) -> bool {
        self.answers.is_none() && self.args.json == "[]"
    }
}

/// Ended memberships that one socket may remember. Whoever leaves rooms faster than its pongs come
/// has more to replay than anybody reads.
const STAYS_MAX: usize = 1_024;

/// Bits of the number of an event. No client counts further.
const ASK_BITS: u32 = 48;

impl Kept {
    pub(super) fn new(pid: Sid, born: (u8, SocketKey), stamped: bool, head: u64) -> Self {
        Self {
            pid,
            born,
            stamped,
            cursor: head,
            ping: None,
            poll: None,
            newest: 0,
            past: VecDeque::new(),
            floor: 0,
            away: None,
            caught_up: Time::ZERO,
            catch_up: None,
            claimant: None,
            sessions_lost: 0,
            asks_from: None,
        }
    }

    /// Under which number handlers know the ack that an event of this session asks for.
    pub(super) fn ask(&mut self, id: u64) -> u64 {
        self.asks_from.get_or_insert(id);
        if id < 1 << ASK_BITS { u64::from(self.sessions_lost) << ASK_BITS | id } else { id }
    }

    /// Under which number its client knows the ack that handlers know by this one. `None` if it may
    /// mean another event by it: numbers go up within a session.
    pub(super) fn answer(&self, known: u64) -> Option<u64> {
        let id = known & ((1 << ASK_BITS) - 1);
        match (known >> ASK_BITS).cmp(&self.sessions_lost.into()) {
            Ordering::Less => Some(id).filter(|id| self.asks_from.is_none_or(|from| *id < from)),
            Ordering::Equal => Some(id),
            Ordering::Greater => Some(known),
        }
    }

    /// How far things were handed to its transport.
    fn sent(&self, head: u64) -> Mark {
        match self.catch_up.as_deref() {
            Some(catch_up) => catch_up.sent(head),
            None => Mark { older: 0, number: head },
        }
    }

    /// What was sent up to here has arrived.
    pub(super) fn confirm(&mut self, mark: Mark) {
        self.cursor = self.cursor.max(mark.number);
        if let Some(catch_up) = self.catch_up.as_deref_mut() {
            catch_up.confirm(mark.older);
            // The poll and the ping count from the same beginning.
            for other in [&mut self.ping, &mut self.poll].into_iter().flatten() {
                other.older = other.older.saturating_sub(mark.older);
            }
            if catch_up.is_over(self.cursor) {
                self.catch_up = None;
            }
        }
        let cursor = self.cursor;
        while self.past.pop_front_if(|stay| stay.until <= cursor).is_some() {
            if self.past.is_empty() {
                self.past.shrink_to_fit();
            }
        }
    }

    /// Its client says what it has seen last.
    pub(super) fn confirm_offset(&mut self, offset: Offset, is_own: bool) {
        let older = match self.catch_up.as_deref() {
            Some(catch_up) if is_own && offset.number > self.cursor => catch_up.older.len(),
            Some(catch_up) => catch_up.older_until(offset),
            None => 0,
        };
        let number = if is_own { offset.number } else { 0 };
        (self.ping, self.poll) = (None, None);
        self.confirm(Mark { older, number });
    }

    /// Notes that a membership has ended.
    pub(super) fn note_stay(&mut self, room: &ByteString, since: u64, until: u64) {
        if until <= self.cursor.max(since) {
            return;
        }
        self.past.push_back(Stay { room: room.clone(), since, until });
        if self.past.len() > STAYS_MAX
            && let Some(oldest) = self.past.pop_front()
        {
            self.floor = self.floor.max(oldest.until);
        }
    }
}

/// Who is kept in a hub, and who of them is away.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) by_pid: HashMap<Sid, SocketKey, SidHash>,
    /// Who went away when, the earliest first. An entry is stale if the socket is not away since
    /// then.
    order: VecDeque<(Time, SocketKey)>,
    pub(super) away: usize,
    /// When acks count as missing that sockets owe which are away.
    acks: BTreeSet<(Time, SocketKey)>,
    /// Sockets whose pids begin with this shard's index and that are elsewhere.
    pub(super) homes: HashMap<Sid, Home, SidHash>,
    /// Sockets that were born here and are elsewhere.
    pub(super) moved: HashMap<SocketKey, Sid, KeyedHash>,
    /// Sockets that were born elsewhere and are here.
    pub(super) adopted: HashMap<(u8, SocketKey), SocketKey, KeyedHash>,
    /// Sockets that were born elsewhere and went with this input: what is said of them may still be on
    /// its way to handlers.
    pub(super) parted: HashMap<SocketKey, (u8, SocketKey), KeyedHash>,
    /// Clients that will be kept under a name once they are let in.
    pub(super) registering: HashMap<Sid, SocketKey, SidHash>,
    /// Why those ended that have ended of late.
    graves: VecDeque<Sid>,
    ended: HashMap<Sid, RecoveryOutcome, SidHash>,
}

/// How many ended sockets are remembered, to say why they cannot be recovered.
const GRAVES: usize = 4_096;

impl Keeper {
    pub(super) fn new(hash: &KeyedHash) -> Self {
        Self {
            by_pid: HashMap::default(),
            order: VecDeque::new(),
            away: 0,
            acks: BTreeSet::new(),
            homes: HashMap::default(),
            moved: HashMap::with_hasher(hash.clone()),
            adopted: HashMap::with_hasher(hash.clone()),
            parted: HashMap::with_hasher(hash.clone()),
            registering: HashMap::default(),
            graves: VecDeque::new(),
            ended: HashMap::default(),
        }
    }

    /// Remembers why a socket has ended.
    pub(super) fn bury(&mut self, pid: Sid, outcome: RecoveryOutcome) {
        if self.ended.insert(pid, outcome).is_none() {
            self.graves.push_back(pid);
        }
        if self.graves.len() > GRAVES
            && let Some(oldest) = self.graves.pop_front()
        {
            self.ended.remove(&oldest);
        }
    }

    /// A name is in use again.
    pub(super) fn exhume(&mut self, pid: Sid) -> Option<RecoveryOutcome> {
        let outcome = self.ended.remove(&pid)?;
        self.graves.retain(|buried| *buried != pid);
        Some(outcome)
    }

    pub(super) fn outcome_of(&self, pid: Sid) -> Option<RecoveryOutcome> {
        self.ended.get(&pid).copied()
    }

    /// Why those ended that have ended of late, the earliest first.
    pub(super) fn graves(&self) -> impl Iterator<Item = (Sid, RecoveryOutcome)> {
        self.graves.iter().filter_map(|pid| Some((*pid, *self.ended.get(pid)?)))
    }

    #[cfg(test)]
    pub(super) fn acks_len(&self) -> usize {
        self.acks.len()
    }

    /// Asks to be told when an ack counts as missing.
    pub(super) fn await_ack(&mut self, deadline: Time, key: SocketKey) {
        self.acks.insert((deadline, key));
    }
}

/// Timers of sockets that are away: they have no session that could own them.
impl Hub {
    pub(super) fn away_timeout(&self) -> Option<Time> {
        let window = self.config.continuity.window;
        let window = self.keeper.order.front().map(|(since, _)| *since + window);
        let ack = self.keeper.acks.first().map(|(at, _)| *at);
        [window, ack].into_iter().flatten().min()
    }

    /// Ends those who stayed away for too long, and the acks that came too late.
    pub(super) fn on_away_timeout(&mut self, now: Time) {
        let window = self.config.continuity.window;
        while let Some((since, key)) =
            self.keeper.order.pop_front_if(|(since, _)| *since + window <= now)
        {
            if self.is_away_since(key, since) {
                self.end_kept(key, RecoveryOutcome::Window);
            }
        }
        while self.keeper.acks.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, key)) = self.keeper.acks.pop_first()
        {
            if self.sockets.get(key).is_some_and(|socket| socket.is_away()) {
                self.expire_acks_of(now, key);
            }
        }
    }

    fn is_away_since(&self, key: SocketKey, since: Time) -> bool {
        let kept = self.sockets.get(key).and_then(|socket| socket.kept.as_deref());
        kept.is_some_and(|kept| kept.away.is_some_and(|away| away.since == since))
    }

    /// How many sockets are away.
    pub fn away_count(&self) -> usize {
        self.keeper.away
    }

    /// Takes all sockets of a session that has lost its transport out of it: those that are kept go
    /// away, the others leave.
    pub(super) fn part(&mut self, key: SessionKey, reason: DisconnectReason) {
        while let Some(socket) =
            self.sessions.get(key).and_then(|session| session.sockets.first()).copied()
        {
            if self.sockets.get(socket).is_some_and(|socket| socket.kept.is_some()) {
                self.go_away(socket, reason);
            } else {
                self.remove_socket(socket, reason, RecoveryOutcome::Ended);
            }
        }
    }

    /// A kept socket loses its session.
    pub(super) fn go_away(&mut self, key: SocketKey, reason: DisconnectReason) {
        let now = self.now;
        let skips = self.skips_doubt(key);
        let head = self.log.head();
        if self.sockets.get(key).is_none_or(Socket::is_away) {
            return;
        }
        self.note_socket(key, Happened::Away(reason));
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let session_key = std::mem::take(&mut socket.session);
        let Some(kept) = socket.kept.as_deref_mut() else { return };
        kept.away = Some(Away { since: now, reason });
        let sent = kept.sent(head);
        (kept.ping, kept.poll) = (None, None);
        if !kept.stamped {
            kept.sessions_lost = kept.sessions_lost.wrapping_add(1);
            kept.asks_from = None;
        }
        if skips && !kept.stamped {
            kept.confirm(sent);
        }
        if let Some(catch_up) = kept.catch_up.as_deref_mut() {
            catch_up.rewind();
        }
        let owed = socket.extras.as_deref().map_or(0, |extras| extras.pending_acks.len());
        let rooms = socket.rooms.len();
        let deadline = socket.extras.as_deref().and_then(super::extras::Extras::ack_by);
        if let Some(session) = self.sessions.get_mut(session_key) {
            session.sockets.retain(|other| *other != key);
            session.rooms -= u32::try_from(rooms).unwrap_or(u32::MAX);
            session.pending_acks -= u32::try_from(owed).unwrap_or(u32::MAX);
            if session.is_eio3()
                && let Some(kept) = self.sockets.get_mut(key).and_then(|it| it.kept.as_deref_mut())
            {
                // It answers no pings. That something has arrived is believed after the time in
                // which a client that is gone would have been noticed, and its last ping come. What
                // was sent again counts from when all of it was.
                let terms = &session.terms;
                let before = (terms.ping_interval + 2 * terms.ping_timeout).as_micros();
                let before = u64::try_from(before).unwrap_or(u64::MAX);
                let at = Time::from_micros(now.as_micros().saturating_sub(before));
                if kept.caught_up <= at && !skips {
                    let number = self.log.number_at(at).min(sent.number);
                    kept.confirm(Mark { number, ..sent });
                }
            }
        }
        if let Some(socket) = self.sockets.get(key) {
            self.namespaces.set_reach(socket, Reach::Absent, None);
        }
        if let Some(deadline) = deadline {
            self.keeper.await_ack(deadline, key);
        }
        self.enter_away(now, key);
        self.deliver(key, Event::Away { socket: key, reason });
        self.make_room_away();
    }

    pub(super) fn make_room_away(&mut self) {
        let most = self.config.continuity.away_max;
        while self.keeper.away > most
            && let Some((since, key)) = self.keeper.order.pop_front()
        {
            if self.is_away_since(key, since) {
                self.end_kept(key, RecoveryOutcome::Crowded);
            }
        }
        // Clients that come and go leave entries behind faster than these are due.
        if self.keeper.order.len() > 2 * self.keeper.away + ORDER_SLACK {
            let sockets = &self.sockets;
            self.keeper.order.retain(|(since, key)| {
                let kept = sockets.get(*key).and_then(|socket| socket.kept.as_deref());
                kept.is_some_and(|kept| kept.away.is_some_and(|away| away.since == *since))
            });
        }
    }

    fn skips_doubt(&self, key: SocketKey) -> bool {
        let namespace = self.sockets.get(key).map(|socket| socket.namespace);
        let name = namespace.and_then(|key| self.namespaces.all.get(key)).map(|it| &it.name);
        let rule = name.and_then(|name| self.config.rule_for(name));
        rule.is_some_and(|rule| rule.keeping.on_doubt == OnDoubt::Skip)
    }

    /// Ends a socket that is away: its handler hears why it went.
    pub(super) fn end_kept(&mut self, key: SocketKey, outcome: RecoveryOutcome) {
        let kept = self.sockets.get(key).and_then(|socket| socket.kept.as_deref());
        let reason = kept
            .and_then(|kept| kept.away)
            .map_or(DisconnectReason::ForcedServerClose, |away| away.reason);
        self.remove_socket(key, reason, outcome);
    }

    /// A socket finds the session of its claimant: the handler has agreed.
    pub(super) fn come_back(&mut self, key: SocketKey) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let (Some(id), namespace) = (socket.id, socket.namespace) else { return };
        let Some(kept) = socket.kept.as_deref_mut() else { return };
        let Some(claimant) = kept.claimant.take() else { return };
        let (stamped, pid) = (kept.stamped, kept.pid);
        let Some(pending) = self.sockets.get(claimant) else { return };
        let session_key = pending.session;
        let expiry = pending.extras.as_deref().and_then(|extras| extras.expiry);
        let was_away = {
            let Some(socket) = self.sockets.get_mut(key) else { return };
            let Some(kept) = socket.kept.as_deref_mut() else { return };
            socket.session = session_key;
            kept.caught_up = NEVER;
            kept.away.take().is_some()
        };
        self.keeper.away -= usize::from(was_away);
        self.forget_socket(claimant);
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if expiry.is_some() {
            socket.extras_mut().expiry = expiry;
        }
        let owed = socket.extras.as_deref().map_or(0, |extras| extras.pending_acks.len());
        let deadline = socket.extras.as_deref().and_then(super::extras::Extras::ack_by);
        let expires = socket.extras.as_deref().and_then(super::extras::Extras::expire_by);
        let rooms = socket.rooms.len();
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        session.sockets.push(key);
        session.rooms += u32::try_from(rooms).unwrap_or(u32::MAX);
        session.pending_acks += u32::try_from(owed).unwrap_or(u32::MAX);
        if let Some(at) = deadline.filter(|at| *at < session.ack_by()) {
            session.set_ack_by(at);
            self.timers.push(at, crate::Timer::Ack, session_key);
        }
        if let Some(session) = self.sessions.get_mut(session_key)
            && let Some(at) = expires.filter(|at| *at < session.expire_by())
        {
            session.set_expire_by(at);
            self.timers.push(at, crate::Timer::Expiry, session_key);
        }
        self.stats.recoveries[RecoveryOutcome::Recovered as usize] += 1;
        // The answer may be too much for what is queued already, and its client away again.
        self.note_socket(key, Happened::Back);
        self.deliver(key, Event::Back { socket: key });
        self.greet_socket(session_key, namespace, id, stamped.then_some(pid));
        self.begin_replay(key);
    }

    /// Answers a CONNECT.
    pub(super) fn greet_socket(
        &mut self,
        session_key: SessionKey,
        namespace: super::namespace::NamespaceKey,
        id: Sid,
        pid: Option<Sid>,
    ) {
        let Some(name) = self.namespaces.all.get(namespace).map(|found| found.name.clone()) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        self.stats.on_connected(session, self.now);
        session.connect_by = NEVER;
        if !self.config.keep_headers && !self.config.names_by_cookie() {
            session.handshake = None;
        }
        let auth = (session.version == crate::engineio::Version::V4).then(|| {
            let pid = pid.map(Sid::text);
            let (key, pid) = match &pid {
                Some(pid) => ("\",\"pid\":\"", pid.as_str()),
                None => ("", ""),
            };
            ["{\"sid\":\"", id.text().as_str(), key, pid, "\"}"].concat().into()
        });
        self.transmit_packet(session_key, &socketio::Packet::Connect { namespace: name, auth });
    }

    /// A ping is about to be sent: its pong will confirm what was sent before it.
    pub(super) fn mark_ping(&mut self, key: SessionKey) {
        if cfg!(bowline_broken = "ping-overtakes") {
            return self.each_kept(key, |kept, head| {
                kept.ping = Some(Mark { number: head + 1, ..kept.sent(head) });
            });
        }
        self.each_kept(key, |kept, head| kept.ping = Some(kept.sent(head)));
    }

    /// A pong has come.
    pub(super) fn confirm_ping(&mut self, key: SessionKey) {
        if cfg!(bowline_broken = "cursor-on-pong") {
            return;
        }
        self.each_kept(key, |kept, _| {
            if let Some(mark) = kept.ping.take() {
                kept.confirm(mark);
            }
        });
    }

    /// A poll was answered with all that was queued: the next one will confirm that it came.
    pub(super) fn mark_poll(&mut self, key: SessionKey) {
        self.each_kept(key, |kept, head| kept.poll = Some(kept.sent(head)));
    }

    /// The next poll has come.
    pub(super) fn confirm_poll(&mut self, key: SessionKey) {
        self.each_kept(key, |kept, _| {
            if let Some(mark) = kept.poll.take() {
                kept.confirm(mark);
            }
        });
    }

    fn each_kept(&mut self, key: SessionKey, act: impl Fn(&mut Kept, u64)) {
        let head = self.log.head();
        let Some(session) = self.sessions.get(key) else { return };
        for socket in &session.sockets {
            let kept = self.sockets.get_mut(*socket).and_then(|socket| socket.kept.as_deref_mut());
            if let Some(kept) = kept {
                act(kept, head);
            }
        }
    }
}

/// Entries of who went away when, from which on it is worth looking for stale ones.
const ORDER_SLACK: usize = 1_024;

impl Socket {
    pub(super) fn is_away(&self) -> bool {
        self.kept.as_deref().is_some_and(|kept| kept.away.is_some())
    }
}

impl Hub {
    /// Tells the home of a kept socket that it ends. Returns the client that waits for it.
    pub(super) fn forget_kept(
        &mut self,
        key: SocketKey,
        outcome: RecoveryOutcome,
    ) -> Option<SocketKey> {
        let kept = self.sockets.get_mut(key)?.kept.as_deref_mut()?;
        let (pid, born, claimant) = (kept.pid, kept.born, kept.claimant.take());
        self.keeper.away -= usize::from(kept.away.is_some());
        if self.keeper.by_pid.get(&pid) == Some(&key) {
            self.keeper.by_pid.remove(&pid);
            self.unregister(pid, born, outcome);
        } else {
            self.keeper.adopted.remove(&born);
        }
        claimant
    }

    /// A client goes that has not been let in.
    pub(super) fn forget_asking(&mut self, key: SocketKey, asking: &Asking) {
        if let Some(pid) = asking.name
            && self.keeper.registering.get(&pid) == Some(&key)
        {
            self.keeper.registering.remove(&pid);
        }
        if let (Some(born), Some(pid)) = (asking.born, asking.name) {
            self.unregister(pid, born, RecoveryOutcome::Ended);
        }
    }

    pub(super) fn enter_away(&mut self, since: Time, key: SocketKey) {
        self.keeper.order.push_back((since, key));
        self.keeper.away += 1;
    }
}

/// What the log of a hub holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogView {
    /// How many records.
    pub records: usize,
    /// What they take, in bytes.
    pub bytes: usize,
    /// How long ago the oldest of them was made.
    pub oldest: Option<Duration>,
}

impl Hub {
    /// What the log holds.
    pub fn log_view(&self, now: Time) -> LogView {
        LogView {
            records: self.log.len(),
            bytes: self.log.bytes(),
            oldest: self.log.oldest().map(|oldest| now - oldest),
        }
    }

    /// Drops what nobody can come back for any more: after the window, and as long before it as it
    /// takes to notice that a client has gone and to hear its last pong.
    pub(super) fn trim_log(&mut self) {
        let config = &self.config;
        let age = config.continuity.window + config.ping_interval + 2 * config.ping_timeout;
        let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        let until = Time::from_micros(self.now.as_micros().saturating_sub(age));
        self.log.trim(until, config.continuity.log_bytes);
    }
}
