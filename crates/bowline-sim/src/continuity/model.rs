//! What must come of it: written from what is promised, not from how the hub does it.
//!
//! The model knows who was in which room at what moment, so it knows whom an event is for. Where two
//! things are under way at once, between shards or from several sources, either order is right: such an
//! event may reach a socket or not.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bowline_proto::{Sid, SocketKey, Time, wall::DisconnectReason};
use bytestring::ByteString;

use super::script::{Part, Shape, Source};

/// The shard and the key under which handlers know a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SocketRef {
    pub(super) shard: u8,
    pub(super) key: SocketKey,
}

/// A socket from its first accept to its disconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LifeId(pub(super) usize);

#[derive(Debug)]
pub(super) struct Life {
    pub(super) socket: SocketRef,
    pub(super) sid: Sid,
    pub(super) namespace: usize,
    pub(super) part: Part,
    /// The client that began it.
    pub(super) device: usize,
    rooms: BTreeMap<ByteString, Membership>,
    pub(super) state: State,
    /// Whether it may end at once: somebody wanted it.
    pub(super) wanted: bool,
    /// Whether handlers know it by a name: not between two processes.
    bound: bool,
    /// When it came back last, and whether it went again before anything that was sent to it could
    /// be confirmed: what it missed the first time is older by then than logs are kept.
    returned: Option<Time>,
    pub(super) went_again: bool,
    /// Whether somebody else of its name was let in at the same time: one of them is not kept.
    pub(super) rivalled: bool,
    /// The session that holds it, and the client that did last.
    pub(super) line: u64,
    holder: usize,
    /// Since when clients have it that took it from others, who have heard what was before.
    taken: BTreeMap<usize, u64>,
}

/// Where a socket stands, as handlers know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    In,
    Away(Time),
    Over(u64),
}

#[derive(Debug, Default, Clone, Copy)]
struct Membership {
    inside: bool,
    /// Joins and leaves that are under way.
    under_way: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maybe {
    No,
    Perhaps,
    Yes,
}

/// An event that was emitted.
#[derive(Debug)]
pub(super) struct Emission {
    pub(super) shape: Shape,
    target: Target,
    source: Source,
    begin: u64,
    end: Option<u64>,
    under_way: usize,
    /// The sockets it is for, or may be for.
    lives: BTreeMap<LifeId, Maybe>,
    /// What the handler was told of its ack.
    pub(super) answer: Option<bool>,
    /// Whether whoever waited for its ack has gone with its process.
    orphaned: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Target {
    One(LifeId),
    Many { namespace: usize, rooms: Vec<ByteString>, except: Vec<ByteString> },
}

/// Events that take the same way keep their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    One,
    Many,
    Acked,
}

/// What a client has heard as a certain socket.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard {
    pub(super) life: Option<LifeId>,
    times: BTreeMap<u64, u32>,
    /// The latest of what was heard, by where it came from and by when it began. Events with an ack
    /// are sent again until they are acked, so between them and the others there is no order.
    latest: BTreeMap<(Source, Class), u64>,
    begun: [u64; 2],
    /// What began before this may be missing: somebody else has heard it in its place.
    pub(super) excused_before: u64,
    /// Whether it came back with an offset that is not its own, or with none.
    pub(super) lied: bool,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    /// Counts what happens, so that of two things at the same time one is the first.
    pub(super) tick: u64,
    pub(super) lives: Vec<Life>,
    pub(super) by_socket: BTreeMap<SocketRef, LifeId>,
    pub(super) by_sid: BTreeMap<Sid, LifeId>,
    /// Restored sockets of which it is not known who they are, and how many of them have ended.
    pub(super) strangers: BTreeSet<SocketRef>,
    pub(super) strangers_ended: usize,
    pub(super) emissions: Vec<Emission>,
    under_way: BTreeSet<u64>,
    /// What was put on a wire or into a polling body, or was to be while a client was there: it is in
    /// doubt until it is confirmed.
    sent: BTreeSet<(LifeId, u64)>,
    /// What has arrived for certain.
    confirmed: BTreeSet<(LifeId, u64)>,
    /// Events of clients that were handled: by socket and their name, with the handler's answer.
    pub(super) told: BTreeMap<(LifeId, u64), Vec<(u64, u64)>>,
}

impl Model {
    pub(super) fn life(&self, id: LifeId) -> &Life {
        &self.lives[id.0]
    }

    pub(super) fn life_mut(&mut self, id: LifeId) -> &mut Life {
        &mut self.lives[id.0]
    }

    pub(super) fn is_over(&self, id: LifeId) -> bool {
        matches!(self.life(id).state, State::Over(_))
    }

    /// Whether handlers can do something for it.
    pub(super) fn is_bound(&self, id: LifeId) -> bool {
        self.life(id).bound && !self.is_over(id)
    }

    /// The process ends. Those who are kept are there again, by other names, when the next one has read
    /// what was saved. Nobody is told of acks that are still owed.
    pub(super) fn stop(&mut self) {
        assert!(self.under_way.is_empty(), "emissions that no shard has dealt with at the end");
        self.by_socket.clear();
        for (index, life) in self.lives.iter_mut().enumerate() {
            match life.state {
                State::In => panic!("{:?} is there after a drain", LifeId(index)),
                State::Away(_) => life.bound = false,
                State::Over(_) => {}
            }
        }
        for emission in &mut self.emissions {
            emission.orphaned |= emission.answer.is_none();
        }
    }

    /// A socket has come from the process before.
    pub(super) fn rebind(&mut self, id: LifeId, socket: SocketRef) -> bool {
        let life = self.life_mut(id);
        if life.bound || matches!(life.state, State::Over(_)) {
            return false;
        }
        (life.bound, life.socket) = (true, socket);
        self.by_socket.insert(socket, id);
        true
    }

    /// Everything has been restored. Says whether those who were not may have been dropped.
    pub(super) fn check_restored(&mut self, may_be_dropped: bool) {
        let unbound = |life: &Life| !life.bound && !matches!(life.state, State::Over(_));
        let strangers = self.strangers.len() + self.strangers_ended;
        let missing: Vec<usize> =
            (0..self.lives.len()).filter(|index| unbound(&self.lives[*index])).collect();
        if missing.len() <= strangers {
            return;
        }
        for index in missing {
            let life = &self.lives[index];
            let fine = may_be_dropped || life.went_again;
            assert!(fine, "{:?} was kept and is not restored: {life:?}", LifeId(index));
            if strangers == 0 {
                self.lives[index].state = State::Over(self.tick);
            } else {
                self.strangers_ended += 1;
            }
        }
    }

    /// A socket was let in.
    pub(super) fn begin(
        &mut self,
        socket: SocketRef,
        sid: Sid,
        namespace: usize,
        part: Part,
        device: usize,
    ) -> LifeId {
        let id = LifeId(self.lives.len());
        self.lives.push(Life {
            socket,
            sid,
            namespace,
            part,
            device,
            rooms: BTreeMap::from([(
                ByteString::from(sid.to_string()),
                Membership { inside: true, under_way: 0 },
            )]),
            state: State::In,
            wanted: false,
            bound: true,
            returned: None,
            went_again: false,
            rivalled: false,
            line: 0,
            holder: device,
            taken: BTreeMap::new(),
        });
        assert!(self.by_socket.insert(socket, id).is_none(), "{socket:?} was let in twice");
        assert!(self.by_sid.insert(sid, id).is_none(), "two sockets of the same sid");
        self.look_again(id, true);
        id
    }

    /// `doubt` is the time after which a client that is there has confirmed what it was sent.
    pub(super) fn on_away(&mut self, id: LifeId, now: Time, doubt: Duration) {
        let life = self.life_mut(id);
        assert!(life.part != Part::None, "{id:?} takes no part, and is said to be away");
        assert_eq!(life.state, State::In, "{id:?} is said to be away");
        life.state = State::Away(now);
        life.went_again = life.returned.is_some_and(|returned| now - returned <= doubt);
    }

    /// A session of a client gets it.
    pub(super) fn give(&mut self, id: LifeId, line: u64, device: usize) {
        let tick = self.tick;
        let life = self.life_mut(id);
        life.line = line;
        if std::mem::replace(&mut life.holder, device) != device {
            life.taken.insert(device, tick);
        }
    }

    /// What a client may not know of a socket because others have had it: what began before this.
    pub(super) fn taken_at(&self, id: LifeId, device: usize) -> u64 {
        self.life(id).taken.get(&device).copied().unwrap_or(0)
    }

    pub(super) fn on_back(&mut self, id: LifeId, now: Time) {
        let life = self.life_mut(id);
        assert!(!matches!(life.state, State::Over(_)), "{id:?} is said to be back after its end");
        life.state = State::In;
        life.returned = Some(now);
        if life.part == Part::Skip {
            // What it has missed is on its way, and so in doubt.
            for (number, emission) in (0..).zip(&self.emissions) {
                if emission.lives.contains_key(&id) {
                    self.sent.insert((id, number));
                }
            }
        }
    }

    /// Handlers were told that a socket has gone: there must be a reason.
    pub(super) fn on_disconnect(
        &mut self,
        id: LifeId,
        reason: DisconnectReason,
        now: Time,
        window: Duration,
        may_be_dropped: bool,
    ) {
        let life = self.life_mut(id);
        let wanted = life.wanted;
        match (life.part, life.state) {
            (_, State::Over(_)) => panic!("{id:?} ends twice"),
            (Part::None, _) => {}
            _ if wanted || may_be_dropped || life.rivalled => {}
            (_, State::In) => panic!("{id:?} ends ({reason:?}) and was never away"),
            (_, State::Away(since)) => {
                let away = now - since;
                assert!(away >= window, "{id:?} ends ({reason:?}) after {away:?} away");
            }
        }
        let tick = self.tick;
        self.life_mut(id).state = State::Over(tick);
        self.look_again(id, false);
    }

    /// Something is emitted. It counts as under way until [`Self::applied`] has been said as often as
    /// `copies` and [`Self::copied`] say.
    pub(super) fn emit(
        &mut self,
        source: Source,
        target: Target,
        shape: Shape,
        copies: usize,
    ) -> u64 {
        self.tick += 1;
        let number = self.emissions.len() as u64;
        let mut emission = Emission {
            shape,
            target,
            source,
            begin: self.tick,
            end: None,
            under_way: copies,
            lives: BTreeMap::new(),
            answer: None,
            orphaned: false,
        };
        for (index, life) in self.lives.iter().enumerate() {
            let id = LifeId(index);
            match is_for(&emission.target, id, life) {
                Maybe::No => {}
                found @ (Maybe::Yes | Maybe::Perhaps) => {
                    emission.lives.insert(id, found);
                }
            }
        }
        self.emissions.push(emission);
        self.under_way.insert(number);
        self.expose(number);
        number
    }

    /// So many copies of it are on their way to other shards.
    pub(super) fn copied(&mut self, number: u64, copies: usize) {
        self.emissions[index(number)].under_way += copies;
    }

    /// A shard has dealt with it.
    pub(super) fn applied(&mut self, number: u64) {
        self.expose(number);
        self.tick += 1;
        let tick = self.tick;
        let emission = &mut self.emissions[index(number)];
        emission.under_way -= 1;
        if emission.under_way == 0 {
            emission.end = Some(tick);
            self.under_way.remove(&number);
        }
    }

    fn expose(&mut self, number: u64) {
        for id in self.emissions[index(number)].lives.keys() {
            let life = &self.lives[id.0];
            if life.part == Part::Skip && life.state == State::In {
                self.sent.insert((*id, number));
            }
        }
    }

    /// Somebody is on the way into a room, or out of it.
    pub(super) fn moving(&mut self, id: LifeId, room: &ByteString) {
        self.life_mut(id).rooms.entry(room.clone()).or_default().under_way += 1;
        self.look_again(id, false);
    }

    /// And has arrived, if the socket was still there.
    pub(super) fn moved(&mut self, id: LifeId, room: &ByteString, inside: bool, found: bool) {
        let membership = self.life_mut(id).rooms.entry(room.clone()).or_default();
        membership.under_way -= 1;
        if found {
            membership.inside = inside;
        }
        self.look_again(id, false);
    }

    /// What is under way may or may not have been for a socket of which something has changed.
    fn look_again(&mut self, id: LifeId, new: bool) {
        self.tick += 1;
        for number in &self.under_way {
            let emission = &mut self.emissions[index(*number)];
            let now = is_for(&emission.target, id, &self.lives[id.0]);
            let before = match new {
                true => Maybe::No,
                false => emission.lives.get(&id).copied().unwrap_or(Maybe::No),
            };
            if now != before {
                emission.lives.insert(id, Maybe::Perhaps);
            }
        }
    }

    /// It is on a wire, or in a polling body.
    pub(super) fn on_sent(&mut self, id: LifeId, number: u64) {
        let emission = &self.emissions[index(number)];
        if let Shape::Acked { .. } = emission.shape {
            let again = self.sent.contains(&(id, number));
            let acked = emission.answer == Some(true);
            assert!(!(acked && again), "{number} was acked, and is sent to {id:?} again");
        }
        self.sent.insert((id, number));
    }

    /// It has arrived, as a pong or a poll proves.
    pub(super) fn on_confirmed(&mut self, id: LifeId, number: u64) {
        // A session that is being closed has lost its sockets already.
        if self.life(id).state == State::In {
            self.confirmed.insert((id, number));
        }
    }

    /// A client hears an event.
    pub(super) fn on_heard(&self, heard: &mut Heard, number: u64, namespace: usize) {
        let id = heard.life.expect("it was let in");
        let life = self.life(id);
        assert_eq!(life.namespace, namespace, "{number} was heard in another namespace");
        let emission = self.emissions.get(index(number));
        let emission = emission.unwrap_or_else(|| panic!("{number} was never emitted"));
        assert!(emission.lives.contains_key(&id), "{number} is not for {id:?}: {emission:?}");

        let times = heard.times.entry(number).or_default();
        *times += 1;
        let again = *times > 1;
        if again {
            // Of several who share a name, each hears what another has confirmed.
            if life.taken.is_empty() {
                self.check_repeat(heard.lied, id, number);
            }
            return;
        }
        // What was lost for good on one wire leaves no gap that could be filled later.
        let class = match (&emission.target, emission.shape) {
            (_, Shape::Acked { .. }) => Class::Acked,
            (Target::One(_), _) => Class::One,
            (Target::Many { .. }, _) => Class::Many,
        };
        let key = (emission.source, class);
        let begun = &mut heard.begun[usize::from(class == Class::Acked)];
        let before = heard.latest.get(&key).copied();
        assert!(before.is_none_or(|it| it < number), "{id:?} hears {number} after {before:?}");
        if let Some(end) = emission.end {
            assert!(
                *begun <= end,
                "{id:?} hears {number} after something that was emitted when it was done"
            );
        }
        *begun = (*begun).max(emission.begin);
        heard.latest.insert(key, number);
    }

    fn check_repeat(&self, lied: bool, id: LifeId, number: u64) {
        let acked = matches!(self.emissions[index(number)].shape, Shape::Acked { .. });
        let volatile = self.emissions[index(number)].shape == Shape::Volatile;
        assert!(!volatile, "{id:?} hears {number} twice, which is volatile");
        let in_doubt = !self.confirmed.contains(&(id, number));
        let fine = acked
            || match self.life(id).part {
                Part::Stamped => lied && in_doubt,
                Part::Repeat => in_doubt,
                Part::Skip | Part::None => false,
            };
        assert!(fine, "{id:?} ({:?}) hears {number} twice", self.life(id).part);
    }

    /// What a client that is there and has nothing on its way should have heard and has not.
    pub(super) fn missing(&self, heard: &Heard) -> Vec<u64> {
        let Some(id) = heard.life else { return Vec::new() };
        let life = self.life(id);
        let numbers = (0..).zip(&self.emissions);
        let missing = numbers.filter(|(number, emission)| {
            let optional = match emission.shape {
                Shape::Volatile => true,
                // Somebody has waited for too long, and was told so.
                Shape::Acked { .. } => emission.answer == Some(false),
                Shape::Plain | Shape::Large | Shape::Binary => false,
            };
            let in_doubt = life.part == Part::Skip
                && !matches!(emission.shape, Shape::Acked { .. })
                && self.sent.contains(&(id, *number));
            emission.lives.get(&id) == Some(&Maybe::Yes)
                && !optional
                && !in_doubt
                && emission.begin >= heard.excused_before
                && !heard.times.contains_key(number)
        });
        missing.map(|(number, _)| number).collect()
    }

    /// Everything is at rest: nothing is under way, and acks were answered or are still awaited.
    pub(super) fn check_at_rest(&self) {
        assert!(self.under_way.is_empty(), "emissions that no shard has dealt with");
    }

    /// Nobody is there any more, nor will be.
    pub(super) fn check_over(&self) {
        let mut strangers = self.strangers_ended;
        for (index, life) in self.lives.iter().enumerate() {
            let mut over = matches!(life.state, State::Over(_));
            if !over && !life.bound && strangers > 0 {
                (strangers, over) = (strangers - 1, true);
            }
            assert!(over, "{:?} never ends: {life:?}", LifeId(index));
        }
        for (number, emission) in self.emissions.iter().enumerate() {
            if let (Shape::Acked { .. }, false) = (emission.shape, emission.lives.is_empty()) {
                let perhaps = emission.lives.values().any(|it| *it != Maybe::Yes);
                let told = emission.answer.is_some() || emission.orphaned;
                assert!(told || perhaps, "nobody was told what became of the ack of {number}");
            }
        }
    }

    /// Handlers are told of an ack, once.
    pub(super) fn on_answer(&mut self, number: u64, result: bool) {
        let emission = &mut self.emissions[index(number)];
        let before = emission.answer.replace(result);
        assert!(before.is_none(), "the ack of {number} is told twice");
    }

    pub(super) fn shape_of(&self, number: u64) -> Shape {
        self.emissions[index(number)].shape
    }

    /// Somebody wants it to end: its client, or a handler.
    pub(super) fn wants_to_end(&mut self, id: LifeId) {
        self.life_mut(id).wanted = true;
    }
}

impl Heard {
    /// Of a client that is let in anew.
    pub(super) fn of(life: LifeId) -> Self {
        Self { life: Some(life), ..Self::default() }
    }

    pub(super) fn has(&self, number: u64) -> bool {
        self.times.contains_key(&number)
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Whether something that is emitted now is for a socket.
fn is_for(target: &Target, id: LifeId, life: &Life) -> Maybe {
    let gone = matches!(life.state, State::Over(_));
    match target {
        _ if gone => Maybe::No,
        Target::One(other) if *other == id => Maybe::Yes,
        Target::One(_) => Maybe::No,
        Target::Many { namespace, .. } if *namespace != life.namespace => Maybe::No,
        Target::Many { rooms, except, .. } => {
            let is_in = |room: &ByteString| match life.rooms.get(room) {
                Some(membership) if membership.under_way > 0 => Maybe::Perhaps,
                Some(membership) if membership.inside => Maybe::Yes,
                Some(_) | None => Maybe::No,
            };
            let any = |rooms: &[ByteString]| {
                rooms.iter().map(is_in).fold(Maybe::No, |sum, one| match (sum, one) {
                    (Maybe::Yes, _) | (_, Maybe::Yes) => Maybe::Yes,
                    (Maybe::Perhaps, _) | (_, Maybe::Perhaps) => Maybe::Perhaps,
                    (Maybe::No, Maybe::No) => Maybe::No,
                })
            };
            let wanted = if rooms.is_empty() { Maybe::Yes } else { any(rooms) };
            match (wanted, any(except)) {
                (Maybe::No, _) | (_, Maybe::Yes) => Maybe::No,
                (Maybe::Yes, Maybe::No) => Maybe::Yes,
                (Maybe::Perhaps, _) | (_, Maybe::Perhaps) => Maybe::Perhaps,
            }
        }
    }
}
