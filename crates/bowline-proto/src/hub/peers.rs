//! What the hubs of one process tell each other: where the socket of a pid is, and who takes it over.
//!
//! The shard whose index a pid begins with is its *home*. It knows which shard holds the socket, and
//! every claim goes through it, so that a pid has one holder at any instant.

use std::{
    collections::BTreeMap,
    hash::{Hash as _, Hasher as _},
    mem,
};

use bytestring::ByteString;
use serde_json::value::RawValue;
use siphasher::sip::SipHasher13;

use super::{
    Happened, Hub, Offset, Socket,
    engine::Farewell,
    event_id::KnownEvents,
    expiry::Expiry,
    extras::{Asking, Extras},
    kept::{Away, Kept, Missed},
    namespace::{Held, PendingAck},
    replay::CatchUp,
};
use crate::{
    Output, Sid, SocketKey,
    socketio::Packet,
    wall::{DisconnectReason, Event, HandlerId, RecoveryOutcome, SocketData},
};

/// One message from hub to hub. The shell passes it on in order and looks at nothing in it.
#[derive(Debug, Clone)]
pub struct Peer(pub(super) Message);

#[derive(Debug, Clone)]
pub(super) enum Message {
    /// To the home: a client wants its socket back.
    Claim(Claim),
    /// To the holder: somebody else has the client now, who has seen these broadcasts.
    Surrender { pid: Sid, seen: Box<[u64]>, claimant: (u8, SocketKey), offset: Option<Offset> },
    /// To the home: here it is, or why not.
    Surrendered { pid: Sid, socket: Found },
    /// To the shard that has the client. `born` is under what handlers will know the claimant, if it
    /// becomes the first of its name.
    Claimed { claim: Claim, socket: Found, born: Option<SocketKey> },
    /// To the home: a socket that it knows to be there has ended.
    Ended { pid: Sid, holder: u8, outcome: RecoveryOutcome },
}

pub(super) type Found = Result<Box<Parcel>, RecoveryOutcome>;

/// A client came back with a pid, or under a name.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pid: Sid,
    /// The shard that has its client now, and the socket there that waits.
    shard: u8,
    claimant: SocketKey,
    /// The last broadcast of each origin that its shard had seen by then. The socket is not given away
    /// before its holder has seen as many: those of later are in the log of either.
    seen: Box<[u64]>,
    /// The newest record of its log by then.
    asked_at: u64,
    /// What the client says it has seen last.
    offset: Option<Offset>,
    /// Whether the claimant becomes the holder if nobody is: the pid stands for a name.
    register: bool,
}

/// A socket on its way from shard to shard.
#[derive(Debug, Clone)]
pub(super) struct Parcel {
    pid: Sid,
    id: Sid,
    namespace: ByteString,
    /// That of its namespace, which may stand in no rule any more.
    handler: HandlerId,
    born: (u8, SocketKey),
    /// The shard that it was on.
    from: u8,
    stamped: bool,
    away: Away,
    rooms: Vec<ByteString>,
    data: Option<SocketData>,
    expiry: Option<Expiry>,
    known_events: Option<Box<KnownEvents>>,
    sessions_lost: u16,
    next_ack: u64,
    pending_acks: Vec<(u64, PendingAck)>,
    /// What its client has not got for certain, in order.
    missed: Vec<Missed>,
    /// The last broadcast of each origin that `missed` is complete up to.
    seen: Box<[u64]>,
}

/// What the home of a pid knows of a socket that is elsewhere.
#[derive(Debug)]
pub(super) struct Home {
    /// The key by which handlers know it here.
    born: SocketKey,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// On that shard.
    At(u8),
    /// It was asked of its shard, for this client.
    Moving(Claim),
}

/// Whether one shard has seen all the broadcasts that another had.
fn covers(ours: &[u64], theirs: &[u64]) -> bool {
    ours.iter().zip(theirs).all(|(ours, theirs)| ours >= theirs)
}

/// What a client says when it comes back.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    /// Whether it has a pid, ours or not, or asks for one.
    pub(super) takes_part: bool,
    pub(super) pid: Option<Sid>,
    pub(super) offset: Option<Offset>,
    /// Whether what it gave as its pid can be none of ours.
    pub(super) foreign: bool,
}

impl Credentials {
    /// Takes what is Bowline's out of the payload of a CONNECT: a pid is a secret that no handler has
    /// a use for.
    pub(super) fn take(auth: &mut Option<ByteString>) -> Self {
        let mut found = Self::default();
        let Some(text) = auth else { return found };
        // Keys may be written with escapes.
        let hints = ["\"pid\"", "\"recovery\"", "\\u"].map(str::as_bytes);
        let bytes = text.as_bytes();
        let may_begin = |at: usize| hints.iter().any(|hint| bytes[at..].starts_with(hint));
        if !memchr::memchr2_iter(b'"', b'\\', bytes).any(may_begin) {
            return found;
        }
        let Ok(mut fields) = serde_json::from_str::<BTreeMap<String, &RawValue>>(text) else {
            return found;
        };
        found.takes_part = fields.get("recovery").is_some_and(|value| value.get() == "true");
        let text_of = |value: &RawValue| serde_json::from_str::<String>(value.get()).ok();
        let Some(pid) = fields.remove("pid") else { return found };
        found.takes_part = true;
        found.pid = text_of(pid).and_then(|text| text.parse().ok());
        found.foreign = found.pid.is_none();
        let offset = fields.remove("offset").and_then(text_of);
        found.offset = offset.and_then(|text| text.parse().ok());
        let left = (!fields.is_empty()).then(|| serde_json::to_string(&fields).ok()).flatten();
        *auth = left.map(ByteString::from);
        found
    }
}

impl Hub {
    /// A client that awaits the answer to its CONNECT wants the socket of a pid. With `register` the
    /// pid stands for a name, which is its own from now on if nobody has it.
    pub(super) fn claim(&mut self, claimant: SocketKey, pid: Sid, register: bool) {
        let Some(Asking { offset, .. }) = self.asking(claimant) else { return };
        let offset = *offset;
        if register
            && let Some(earlier) = self.keeper.registering.insert(pid, claimant)
            && earlier != claimant
        {
            self.lose_name(earlier);
        }
        if let Some(key) = self.keeper.by_pid.get(&pid).copied() {
            self.claimed_here(claimant, key);
            return;
        }
        let asked_at = self.log.head();
        let shard = self.config.continuity.shard;
        let claim =
            Claim { pid, shard, claimant, seen: self.seen.clone(), asked_at, offset, register };
        self.tell(self.home_of(pid), Message::Claim(claim));
    }

    pub(super) fn asking(&self, key: SocketKey) -> Option<&Asking> {
        self.sockets.get(key)?.extras.as_deref()?.asking.as_deref()
    }

    fn home_of(&self, pid: Sid) -> u8 {
        pid.shard() % self.config.shards.max(1)
    }

    /// The pid that a name stands for: the same on every shard, and in the next process.
    pub(super) fn pid_of_name(&self, namespace: &str, name: &str) -> Sid {
        let mut hasher = SipHasher13::new_with_key(&self.config.continuity.key);
        namespace.hash(&mut hasher);
        name.hash(&mut hasher);
        let first = hasher.finish().to_le_bytes();
        hasher.write_u8(1);
        let second = hasher.finish().to_le_bytes();
        let mut random = [0; 14];
        random[..8].copy_from_slice(&first);
        random[8..].copy_from_slice(&second[..6]);
        Sid::new(second[7], random)
    }

    fn tell(&mut self, shard: u8, message: Message) {
        if shard == self.config.continuity.shard {
            self.on_heard(Peer(message));
        } else {
            self.outputs.push_back(Output::Tell { shard, message: Box::new(Peer(message)) });
        }
    }

    pub(super) fn on_heard(&mut self, Peer(message): Peer) {
        // What was saved is not known yet.
        if self.loading && matches!(message, Message::Claim(_) | Message::Surrender { .. }) {
            self.heard_early.push(Peer(message));
            return;
        }
        if let Message::Surrender { seen, .. } = &message
            && !covers(&self.seen, seen)
        {
            self.claims_waiting.push(Peer(message));
            return;
        }
        match message {
            Message::Claim(claim) => self.on_claim(claim),
            Message::Surrender { pid, claimant, offset, .. } => {
                self.on_surrender(pid, claimant, offset);
            }
            Message::Surrendered { pid, socket } => self.on_surrendered(pid, socket),
            Message::Claimed { claim, socket, born } => self.on_claimed(&claim, socket, born),
            Message::Ended { pid, holder, outcome } => {
                if let Some(Home { place: Place::At(at), .. }) = self.keeper.homes.get(&pid)
                    && *at == holder
                {
                    self.forget_home(pid, outcome);
                }
            }
        }
    }

    fn forget_home(&mut self, pid: Sid, outcome: RecoveryOutcome) {
        if let Some(home) = self.keeper.homes.remove(&pid) {
            self.keeper.moved.remove(&home.born);
        }
        self.keeper.bury(pid, outcome);
    }

    /// At the home of a pid.
    fn on_claim(&mut self, claim: Claim) {
        let own = self.config.continuity.shard;
        if let Some(key) = self.keeper.by_pid.get(&claim.pid).copied() {
            if claim.shard == own {
                self.claimed_here(claim.claimant, key);
            } else if !covers(&self.seen, &claim.seen) {
                self.claims_waiting.push(Peer(Message::Claim(claim)));
            } else {
                let socket = self.pack(key, claim.offset);
                if let Ok(parcel) = &socket {
                    let home = Home { born: parcel.born.1, place: Place::At(claim.shard) };
                    self.keeper.homes.insert(claim.pid, home);
                    self.answer(claim, socket);
                } else {
                    self.claim_of_nobody(claim);
                }
            }
            return;
        }
        let Some(home) = self.keeper.homes.get_mut(&claim.pid) else {
            self.claim_of_nobody(claim);
            return;
        };
        let (pid, seen) = (claim.pid, claim.seen.clone());
        let (claimant, offset) = ((claim.shard, claim.claimant), claim.offset);
        match mem::replace(&mut home.place, Place::Moving(claim)) {
            Place::At(holder) => {
                self.tell(holder, Message::Surrender { pid, seen, claimant, offset });
            }
            Place::Moving(earlier) => self.answer(earlier, Err(RecoveryOutcome::Superseded)),
        }
    }

    /// Nobody has this pid. A name is its claimant's from now on.
    fn claim_of_nobody(&mut self, claim: Claim) {
        let epoch = self.log.epoch();
        let foreign = claim.offset.is_some_and(|theirs| theirs.epoch != epoch);
        let unknown = if foreign { RecoveryOutcome::Restarted } else { RecoveryOutcome::Unknown };
        let known = match claim.register {
            true => self.keeper.exhume(claim.pid),
            false => self.keeper.outcome_of(claim.pid),
        };
        self.answer(claim, Err(known.unwrap_or(unknown)));
    }

    fn answer(&mut self, claim: Claim, socket: Found) {
        let Claim { pid, shard, register, .. } = claim;
        let superseded = matches!(socket, Err(RecoveryOutcome::Superseded));
        let mut born = None;
        if register && socket.is_err() && !superseded && shard != self.config.continuity.shard {
            if let Some(pending) = self.keeper.registering.remove(&pid) {
                self.lose_name(pending);
            }
            // Handlers know it by a key of its home, where its name is looked up.
            let key = self.sockets.insert(Socket::default());
            self.sockets.remove(key);
            self.keeper.moved.insert(key, pid);
            self.keeper.homes.insert(pid, Home { born: key, place: Place::At(shard) });
            born = Some(key);
        }
        self.tell(shard, Message::Claimed { claim, socket, born });
    }

    /// At the holder.
    fn on_surrender(
        &mut self,
        pid: Sid,
        (shard, claimant): (u8, SocketKey),
        offset: Option<Offset>,
    ) {
        let own = shard == self.config.continuity.shard;
        let socket = match self.keeper.by_pid.get(&pid).copied() {
            Some(key) => self.pack(key, offset),
            None => {
                // Another of that name waits to be let in.
                let pending = self.keeper.registering.get(&pid).copied();
                if let Some(pending) = pending.filter(|it| !own || *it != claimant) {
                    self.keeper.registering.remove(&pid);
                    self.lose_name(pending);
                }
                Err(self.keeper.outcome_of(pid).unwrap_or(RecoveryOutcome::Unknown))
            }
        };
        self.tell(self.home_of(pid), Message::Surrendered { pid, socket });
    }

    /// Somebody newer of its name has come: a client that waits to be let in is turned away.
    fn lose_name(&mut self, pending: SocketKey) {
        let extras = self.sockets.get_mut(pending).and_then(|it| it.extras.as_deref_mut());
        if let Some(asking) = extras.and_then(|extras| extras.asking.as_deref_mut()) {
            asking.name = None;
            if let Some(born) = asking.born {
                self.keeper.adopted.remove(&born);
            }
        }
        self.turn_away(pending, "another client has come under this name");
    }

    /// At the home again.
    fn on_surrendered(&mut self, pid: Sid, socket: Found) {
        let own = self.config.continuity.shard;
        let Some(Home { place: Place::Moving(claim), born }) = self.keeper.homes.remove(&pid)
        else {
            debug_assert!(false, "a socket was surrendered that nobody asked for");
            return;
        };
        let settled = match &socket {
            Ok(_) => {
                if claim.shard != own {
                    self.keeper.homes.insert(pid, Home { born, place: Place::At(claim.shard) });
                }
                claim.shard
            }
            Err(outcome) => {
                self.keeper.moved.remove(&born);
                if *outcome != RecoveryOutcome::Unknown {
                    self.keeper.bury(pid, *outcome);
                }
                own
            }
        };
        if socket.is_ok() {
            self.answer(claim, socket);
        } else {
            self.claim_of_nobody(claim);
        }
        self.outputs.push_back(Output::Settled { pid, shard: settled });
    }

    /// At the shard that has the client.
    fn on_claimed(&mut self, claim: &Claim, socket: Found, born: Option<SocketKey>) {
        let Claim { pid, claimant, .. } = *claim;
        match socket {
            Ok(parcel) => {
                self.keeper.registering.remove(&pid);
                let is_there =
                    |offset: &Offset| parcel.missed.iter().any(|it| it.offset == *offset);
                let offset = claim.offset.filter(is_there);
                let key = self.unpack(*parcel, claim);
                if self.has_too_many_older() {
                    self.end_kept(key, RecoveryOutcome::LogFull);
                    // Its home says so to the client, or gives it the name.
                    self.claim(claimant, pid, claim.register);
                    return;
                }
                let extras = self.sockets.get_mut(claimant).and_then(|it| it.extras.as_mut());
                if let Some(asking) = extras.and_then(|extras| extras.asking.as_deref_mut()) {
                    // Where the socket comes from it was looked at already, unless another
                    // client had asked there first.
                    asking.offset = offset;
                }
                self.claimed_here(claimant, key);
                self.make_room_away();
            }
            Err(outcome) => {
                if let Some(born) = born {
                    let home = self.home_of(pid);
                    let extras = self.sockets.get_mut(claimant).and_then(|it| it.extras.as_mut());
                    if let Some(asking) = extras.and_then(|extras| extras.asking.as_deref_mut()) {
                        asking.born = Some((home, born));
                        self.keeper.adopted.insert((home, born), claimant);
                    } else {
                        // The client went meanwhile.
                        let (holder, outcome) =
                            (self.config.continuity.shard, RecoveryOutcome::Ended);
                        self.tell(home, Message::Ended { pid, holder, outcome });
                    }
                }
                self.start_afresh(claimant, outcome);
            }
        }
    }

    /// The socket is here, and its client too.
    fn claimed_here(&mut self, claimant: SocketKey, key: SocketKey) {
        let Some(asking) = self.asking(claimant) else { return };
        let name = asking.name;
        let (offset, auth) = (asking.offset, asking.auth.clone());
        let handshake = asking.handshake.clone();
        if let Some(name) = name {
            self.keeper.registering.remove(&name);
        }
        let Some(namespace) = self.sockets.get(claimant).map(|socket| socket.namespace) else {
            return;
        };
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let Some(id) = socket.id.filter(|_| socket.namespace == namespace) else {
            self.start_afresh(claimant, RecoveryOutcome::Unknown);
            return;
        };
        let now = self.now;
        let expired =
            socket.extras.as_deref().and_then(Extras::expire_by).is_some_and(|at| at <= now);
        let Some(kept) = socket.kept.as_deref_mut() else { return };
        if let Some(offset) = offset.filter(|_| kept.stamped) {
            kept.confirm_offset(offset, self.log.has_given(offset));
        }
        // What its client has for certain is known when it is away.
        self.displace(key);
        let outcome = match expired {
            true => Some(RecoveryOutcome::Ended),
            false if !self.can_be_replayed(key) => Some(RecoveryOutcome::LogFull),
            false => None,
        };
        if let Some(outcome) = outcome {
            self.end_kept(key, outcome);
            self.start_over(claimant, outcome);
            return;
        }
        let kept = self.sockets.get_mut(key).and_then(|socket| socket.kept.as_deref_mut());
        let Some(kept) = kept else {
            self.start_over(claimant, RecoveryOutcome::Crowded);
            return;
        };
        if let Some(earlier) = kept.claimant.replace(claimant)
            && earlier != claimant
        {
            // If nobody was asked yet about the earlier one, the answer must not go to this one.
            self.outputs.retain(|output| {
                let Output::Deliver { event: Event::Return { socket, .. }, .. } = output else {
                    return true;
                };
                *socket != key
            });
            self.start_afresh(earlier, RecoveryOutcome::Superseded);
        }
        let Some(name) = self.namespaces.all.get(namespace).map(|it| it.name.clone()) else {
            return;
        };
        let event = Event::Return { socket: key, id, namespace: name, auth, handshake };
        self.deliver(key, event);
    }

    /// Takes a socket away from the transport that has it, since its client is somewhere else.
    fn displace(&mut self, key: SocketKey) {
        let Some(socket) = self.sockets.get(key).filter(|socket| !socket.is_away()) else { return };
        let session = socket.session;
        let namespace = self.namespaces.all.get(socket.namespace).map(|it| it.name.clone());
        self.go_away(key, DisconnectReason::TransportClose);
        if let Some(namespace) = namespace {
            self.transmit_packet(session, &Packet::Disconnect { namespace });
        }
        self.end(session, DisconnectReason::ForcedServerClose, Farewell::PLAIN);
    }

    /// The socket that a client waits for has ended. One that is named asks its home again, which gives
    /// it the name.
    pub(super) fn start_over(&mut self, key: SocketKey, outcome: RecoveryOutcome) {
        match self.asking(key).and_then(|asking| asking.name) {
            Some(pid) => self.claim(key, pid, true),
            None => self.start_afresh(key, outcome),
        }
    }

    /// A client gets a new socket: the one it wanted is not to be had.
    pub(super) fn start_afresh(&mut self, key: SocketKey, outcome: RecoveryOutcome) {
        let Some(socket) = self.sockets.get_mut(key).filter(|it| it.id.is_none()) else { return };
        let (session, namespace) = (socket.session, socket.namespace);
        let Some(extras) = socket.extras.as_deref_mut() else { return };
        let Some(asking) = extras.asking.as_deref_mut() else { return };
        if asking.told {
            return;
        }
        asking.told = true;
        let (auth, handshake) = (asking.auth.clone(), asking.handshake.clone());
        // Somebody of a name that nobody has had is new.
        let failed = asking.name.is_none() || outcome != RecoveryOutcome::Unknown;
        if outcome == RecoveryOutcome::Superseded {
            asking.name = None;
        }
        if failed {
            self.stats.recoveries[outcome as usize] += 1;
            self.note(session, Happened::RecoveryFailed(outcome));
        }
        let Some(namespace) = self.namespaces.all.get(namespace).map(|it| it.name.clone()) else {
            return;
        };
        self.deliver(key, Event::Connect { socket: key, namespace, auth, handshake });
    }

    /// Takes a socket out of this hub, with all that its client may have missed.
    fn pack(&mut self, key: SocketKey, offset: Option<Offset>) -> Found {
        self.displace(key);
        let kept = self.sockets.get_mut(key).and_then(|socket| socket.kept.as_deref_mut());
        if let (Some(kept), Some(offset)) = (kept.filter(|kept| kept.stamped), offset) {
            // Only here is it known what was sent before an offset of this log.
            kept.confirm_offset(offset, self.log.has_given(offset));
        }
        self.note_parting(key);
        let lost = Err(RecoveryOutcome::LogFull);
        let Some(socket) = self.sockets.get(key) else { return lost };
        let Some(missed) = self.missed_of(socket) else {
            self.end_kept(key, RecoveryOutcome::LogFull);
            return lost;
        };
        let Some(namespace) = self.namespaces.all.get(socket.namespace) else { return lost };
        let (namespace, handler) = (namespace.name.clone(), namespace.handler);
        let rooms = self.rooms_of(key).map(ByteString::from).collect();
        let Some(socket) = self.sockets.get_mut(key) else { return lost };
        let (Some(id), Some(kept)) = (socket.id, socket.kept.as_deref_mut()) else { return lost };
        let Some(away) = kept.away else { return lost };
        let earlier = kept.claimant.take();
        let (pid, born, stamped) = (kept.pid, kept.born, kept.stamped);
        let sessions_lost = kept.sessions_lost;
        let extras = socket.extras.take().map(|extras| *extras).unwrap_or_default();
        let parcel = Parcel {
            pid,
            id,
            namespace,
            handler,
            born,
            from: self.config.continuity.shard,
            stamped,
            away,
            rooms,
            data: extras.data,
            expiry: extras.expiry,
            known_events: extras.known_events,
            sessions_lost,
            next_ack: socket.next_ack,
            pending_acks: extras.pending_acks.into_iter().collect(),
            missed,
            seen: self.seen.clone(),
        };
        if let Some(earlier) = earlier {
            self.start_afresh(earlier, RecoveryOutcome::Superseded);
        }
        if cfg!(bowline_broken = "pid-not-moved") {
            return Ok(Box::new(parcel));
        }
        self.note_socket(key, Happened::MovedAway);
        self.keeper.away -= 1;
        self.keeper.by_pid.remove(&pid);
        self.keeper.adopted.remove(&born);
        if born.0 == self.config.continuity.shard {
            self.keeper.moved.insert(born.1, pid);
        }
        self.forget_socket(key);
        self.stats.moves += 1;
        Ok(Box::new(parcel))
    }

    /// Takes in a socket that comes from another shard. Its client is away until it is let in.
    fn unpack(&mut self, parcel: Parcel, claim: &Claim) -> SocketKey {
        // What was broadcast since the claim was made may have passed it on its way.
        let passed = !covers(&parcel.seen, &self.seen);
        let cursor = if passed { claim.asked_at } else { self.log.head() };
        let begins = self.namespaces.find(&parcel.namespace);
        let begins = begins.and_then(|key| self.namespaces.all.get(key)).map(|it| it.begins);
        let mut parcel = parcel;
        if parcel.stamped && !parcel.missed.is_empty() {
            let marker = self.skip_number();
            parcel.missed.push(marker);
        }
        let key = self.settle_in(parcel, cursor);
        let waits = self.sockets.contains_key(claim.claimant);
        if passed
            && !waits
            && begins.is_none_or(|begins| begins >= cursor)
            && let Some(kept) = self.sockets.get_mut(key).and_then(|it| it.kept.as_deref_mut())
        {
            // The client that asked has gone, and maybe the namespace with it: what passed is not known.
            kept.floor = u64::MAX;
        }
        key
    }

    fn settle_in(&mut self, parcel: Parcel, cursor: u64) -> SocketKey {
        let own = self.config.continuity.shard;
        let rule = self.config.rule_for(&parcel.namespace);
        let handler = rule.map_or(parcel.handler, |rule| rule.handler);
        let namespace = self.namespaces.find_or_make(&parcel.namespace, handler);
        let mut kept = Kept::new(parcel.pid, parcel.born, parcel.stamped, cursor);
        kept.away = Some(Away { since: self.now, ..parcel.away });
        kept.sessions_lost = parcel.sessions_lost;
        let seen = Some((parcel.seen, self.log.head()));
        kept.catch_up = Some(Box::new(CatchUp::new(parcel.missed, seen, &self.older)));
        let mut extras = Extras {
            data: parcel.data,
            expiry: parcel.expiry,
            known_events: parcel.known_events,
            ..Extras::default()
        };
        for (id, ack) in parcel.pending_acks {
            let held = ack.held.map(|held| Held { after: cursor, ..held });
            extras.held_bytes += held.as_ref().map_or(0, |held| held.args.bytes());
            extras.pending_acks.insert(id, PendingAck { held, ..ack });
            self.pass_shared_ack(id);
        }
        let ack_by = extras.ack_by();
        let key = self.sockets.insert(Socket {
            namespace,
            id: Some(parcel.id),
            next_ack: parcel.next_ack,
            extras: (!extras.is_empty()).then(|| Box::new(extras)),
            kept: Some(Box::new(kept)),
            ..Socket::default()
        });
        if let Some(socket) = self.sockets.get_mut(key) {
            self.namespaces.admit(key, socket);
        }
        for room in &parcel.rooms {
            self.enter_room(key, room);
        }
        for membership in self.sockets.get_mut(key).into_iter().flat_map(|it| &mut it.rooms) {
            membership.since = cursor;
        }
        self.by_socket_sid.insert(parcel.id, key);
        self.keeper.by_pid.insert(parcel.pid, key);
        if parcel.born.0 == own {
            self.keeper.moved.remove(&parcel.born.1);
        }
        self.keeper.adopted.insert(parcel.born, key);
        self.enter_away(self.now, key);
        self.note_socket(key, Happened::MovedIn { from: parcel.from });
        if let Some(deadline) = ack_by {
            self.keeper.await_ack(deadline, key);
        }
        key
    }

    /// Tells the home of a pid that its socket has ended.
    pub(super) fn unregister(&mut self, pid: Sid, born: (u8, SocketKey), outcome: RecoveryOutcome) {
        self.keeper.adopted.remove(&born);
        let home = self.home_of(pid);
        if home == self.config.continuity.shard {
            self.keeper.bury(pid, outcome);
        } else {
            let holder = self.config.continuity.shard;
            self.tell(home, Message::Ended { pid, holder, outcome });
        }
    }

    /// Where a socket is that handlers know as `key` of `shard`. Whatever is meant for it is done
    /// where it is, wherever it was said.
    pub fn whereabouts(&self, shard: u8, key: SocketKey) -> Whereabouts {
        let own = shard == self.config.continuity.shard;
        if own && self.sockets.contains_key(key) {
            return Whereabouts::Here(key);
        }
        if let Some(here) = self.keeper.adopted.get(&(shard, key)) {
            return Whereabouts::Here(*here);
        }
        if !own {
            return Whereabouts::There(shard);
        }
        let Some(pid) = self.keeper.moved.get(&key) else { return Whereabouts::Gone };
        match self.keeper.homes.get(pid).map(|home| &home.place) {
            Some(Place::At(shard)) => Whereabouts::There(*shard),
            Some(Place::Moving(_)) => Whereabouts::Moving(*pid),
            None => Whereabouts::Gone,
        }
    }

    /// A socket is about to go: until the outputs of this input are drained, handlers still hear of it.
    pub(super) fn note_parting(&mut self, key: SocketKey) {
        let born = self.born(key);
        if born != (self.config.continuity.shard, key) {
            self.keeper.parted.insert(key, born);
        }
    }

    /// The shard and key under which handlers know a socket of this hub: those it was born with.
    pub fn born(&self, key: SocketKey) -> (u8, SocketKey) {
        let socket = self.sockets.get(key);
        let kept = socket.and_then(|socket| socket.kept.as_deref()).map(|kept| kept.born);
        let born = kept.or_else(|| self.asking(key).and_then(|asking| asking.born));
        let born = born.or_else(|| self.keeper.parted.get(&key).copied());
        born.unwrap_or((self.config.continuity.shard, key))
    }
}

/// Where a socket is that handlers know by its shard and key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    /// In this hub, under this key.
    Here(SocketKey),
    /// Ask that shard, which may send on.
    There(u8),
    /// On its way to a shard: [`Output::Settled`] will say of this pid that it has arrived.
    Moving(Sid),
    /// Nowhere: it has gone.
    Gone,
}
