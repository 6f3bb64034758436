//! A world: its clock, what is on its way in it, and the order of things.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bowline_proto::{
    Command, ExchangeId, Input, SessionKey, SocketKey, Time, TransportId,
    hub::{Continuity, Snapshot},
    wall::{AckRequest, Broadcast},
};
use bytestring::ByteString;

use super::{
    Counts,
    device::Device,
    handlers::{Asking, Decision},
    model::{LifeId, Model, SocketRef, Target},
    network::{Downward, Exchange, Line, Stage, Transport, Upward},
    script::{Act, NAMESPACES, Room, Script, Shape, Source},
    shards::{Delivery, Errand, Mail, Shard, Ticket, config_of},
};
use crate::rng::Rng;

/// What arrives, when its time has come.
#[derive(Debug)]
pub(super) enum Parcel {
    /// Something of the script.
    Act(usize),
    /// A client opens a session.
    Come(usize),
    /// A client that was sent away comes after all.
    StandUp(usize),
    /// A client that was refused asks again.
    Rejoin(u64, usize),
    /// A client answers an event.
    ClientAck(u64, usize, u64),
    Up(u64, Upward),
    Down(u64, Downward),
    /// A connection breaks.
    CutLine(u64),
    /// An end of it is told so.
    ClientNotices(u64),
    ShardNotices(u64),
    Unstalled(u64),
    Mail(u8, u8, Mail),
    TurnEnd(u8),
    /// A handler has made up its mind.
    Decide(Asking, Decision),
    Route(Routed),
    /// The drain is over: the process ends, and another begins.
    Stop(u8, Duration),
    /// A process has read what the one before it has saved.
    Restore(u64),
}

/// What a handler of a process does for a socket.
#[derive(Debug)]
pub(super) struct Routed {
    pub(super) process: u64,
    pub(super) from: u8,
    pub(super) socket: SocketRef,
    pub(super) command: Box<Command>,
}

pub(super) struct World<'a> {
    pub(super) script: Script,
    pub(super) rng: Rng,
    pub(super) now: Time,
    parcels: BTreeMap<(Time, u64), Parcel>,
    numbers: u64,
    /// The last id of a transport, an exchange, or something that a client says.
    pub(super) ids: u64,
    pub(super) shards: Vec<Shard>,
    pub(super) mailboxes: BTreeMap<(u8, u8), Time>,
    pub(super) outside_number: u64,
    pub(super) stage: Stage,
    /// Counts the starts of the server.
    pub(super) process: u64,
    /// What was saved and is not restored, and the last number of each log.
    pub(super) saved: Vec<Snapshot>,
    pub(super) heads: Vec<u64>,
    pub(super) devices: Vec<Device>,
    pub(super) lines: BTreeMap<u64, Line>,
    pub(super) transports: BTreeMap<TransportId, Transport>,
    pub(super) exchanges: BTreeMap<ExchangeId, Exchange>,
    pub(super) backlogs: BTreeSet<TransportId>,
    pub(super) deliveries: VecDeque<Delivery>,
    pub(super) delivering: bool,
    pub(super) released: VecDeque<(u8, Errand)>,
    /// Clients that a handler has named.
    pub(super) named: BTreeSet<(u8, SocketKey, SessionKey)>,
    pub(super) model: Model,
    /// Nothing bad happens any more, and nothing new.
    pub(super) quiet: bool,
    trace: Option<&'a mut dyn FnMut(String)>,
    pub(super) counts: Counts,
}

impl<'a> World<'a> {
    pub(super) fn new(script: Script, trace: Option<&'a mut dyn FnMut(String)>) -> Self {
        let setup = script.setup.clone();
        let shards = (0..setup.shards).map(|shard| {
            let continuity =
                Continuity { shard, epoch: EPOCH, key: [9; 16], ..Continuity::default() };
            Shard::new(config_of(&setup, setup.shards, continuity), [3; 16])
        });
        let shards = shards.collect();
        let devices = setup.profiles.iter().enumerate();
        let devices = devices.map(|(index, profile)| Device::new(profile, index, script.seed));
        let devices = devices.collect();
        let acts = script.acts.iter().map(|(at, _)| *at).collect::<Vec<_>>();
        let mut world = Self {
            rng: Rng::new(!script.seed),
            now: Time::ZERO,
            parcels: BTreeMap::new(),
            numbers: 0,
            ids: 0,
            shards,
            mailboxes: BTreeMap::new(),
            outside_number: 0,
            stage: Stage::Serving,
            process: 0,
            saved: Vec::new(),
            heads: Vec::new(),
            devices,
            script,
            lines: BTreeMap::new(),
            transports: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            backlogs: BTreeSet::new(),
            deliveries: VecDeque::new(),
            delivering: false,
            released: VecDeque::new(),
            named: BTreeSet::new(),
            model: Model::default(),
            quiet: false,
            trace,
            counts: Counts::default(),
        };
        for (index, at) in acts.into_iter().enumerate() {
            world.post(at - Time::ZERO, Parcel::Act(index));
        }
        world
    }

    /// The whole of it.
    pub(super) fn run(mut self) -> Counts {
        while self.parcels.values().any(|parcel| matches!(parcel, Parcel::Act(_))) {
            self.step();
        }
        self.rest();
        self.fall_silent();
        self.counts
    }

    /// Everybody comes back, and nothing breaks: now they must have what they are due.
    fn rest(&mut self) {
        self.quiet = true;
        self.calm();
        self.call_back();
        let setup = &self.script.setup;
        let heartbeat = setup.ping_interval + setup.ping_timeout;
        self.run_for(2 * heartbeat + Duration::from_secs(90));
        self.model.check_at_rest();
        for (index, shard) in self.shards.iter().enumerate() {
            assert!(!shard.has_parked(), "shard {index} waits for sockets that do not settle");
        }
        self.check_clients();
    }

    /// Nobody is heard of any more: all must be forgotten in time.
    fn fall_silent(&mut self) {
        for device in &mut self.devices {
            device.gone = true;
            device.line = None;
        }
        for number in self.lines.keys().copied().collect::<Vec<_>>() {
            self.silence(number);
            if let Some(line) = self.lines.get_mut(&number) {
                line.client = None;
            }
        }
        let setup = &self.script.setup;
        let heartbeat = setup.ping_interval + setup.ping_timeout;
        self.run_for(heartbeat + setup.window + Duration::from_secs(120));
        // Acks may be awaited for longer than anybody is.
        self.model.check_over();
        for (index, shard) in self.shards.iter().enumerate() {
            let hub = &shard.hub;
            assert_eq!(hub.session_count(), 0, "shard {index} has sessions that never end");
            assert_eq!(hub.sessions_by_transport(), (0, 0));
            assert_eq!(hub.away_count(), 0, "shard {index} has sockets that are away for ever");
        }
        for (transport, it) in &self.transports {
            assert!(!it.open, "{transport:?} is never closed");
        }
        // Deadlines that nobody means may wait their time, not for ever.
        let mut left = 100_000;
        while let Some((at, shard)) = self.hub_deadline() {
            self.now = self.now.max(at);
            self.feed(shard, Input::Timeout);
            left -= 1;
            assert!(left > 0, "timers without end");
        }
    }

    fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.next_at().is_some_and(|at| at <= until) {
            self.step();
        }
        self.now = until;
    }

    pub(super) fn post(&mut self, delay: Duration, parcel: Parcel) {
        self.numbers += 1;
        self.parcels.insert((self.now + delay, self.numbers), parcel);
    }

    /// When the next thing in a mailbox is due.
    pub(super) fn next_mail(&self) -> Option<(Time, u64)> {
        let mut mail = self.parcels.iter().filter(|(_, it)| matches!(it, Parcel::Mail(..)));
        mail.next().map(|(at, _)| *at)
    }

    pub(super) fn take_parcel(&mut self, at: (Time, u64)) -> Option<Parcel> {
        self.parcels.remove(&at)
    }

    fn next_at(&self) -> Option<Time> {
        let parcel = self.parcels.keys().next().map(|(at, _)| *at);
        let hub = self.hub_deadline().map(|(at, _)| at);
        let client = self.client_deadline().map(|(at, _)| at);
        [parcel, hub, client].into_iter().flatten().min()
    }

    fn client_deadline(&self) -> Option<(Time, u64)> {
        let lines = self.devices.iter().filter_map(|device| device.line);
        let deadlines = lines.filter_map(|number| {
            let client = self.lines.get(&number)?.client.as_ref()?;
            Some((client.poll_timeout()?.0, number))
        });
        deadlines.min()
    }

    /// Lets the next thing happen.
    fn step(&mut self) {
        self.model.tick += 1;
        let parcel = self.parcels.keys().next().map_or(NEVER, |(at, _)| *at);
        let hub = self.hub_deadline();
        let client = self.client_deadline();
        let hub_at = hub.map_or(NEVER, |(at, _)| at);
        let client_at = client.map_or(NEVER, |(at, _)| at);
        if let Some((at, shard)) = hub.filter(|_| hub_at < parcel.min(client_at)) {
            self.now = self.now.max(at);
            self.feed(shard, Input::Timeout);
            // The turn of a shell that wakes for a deadline is over when that has been met.
            self.turn_ends(shard);
        } else if let Some((at, number)) = client.filter(|_| client_at < parcel) {
            self.now = self.now.max(at);
            self.note(|| format!("client timeout on {number}"));
            self.tell_client(number, bowline_proto::client::Input::Timeout);
        } else if let Some(((at, _), parcel)) = self.parcels.pop_first() {
            self.now = self.now.max(at);
            self.arrive(parcel);
        }
    }

    fn arrive(&mut self, parcel: Parcel) {
        if !matches!(parcel, Parcel::TurnEnd(_) | Parcel::Mail(..)) {
            self.note(|| format!("{parcel:?}"));
        }
        match parcel {
            Parcel::Act(index) => self.act(&self.script.acts[index].1.clone()),
            Parcel::Come(device) => self.come(device),
            Parcel::StandUp(device) => self.stand_up(device),
            Parcel::Rejoin(line, seat) => {
                let index = self.lines.get(&line).map(|line| line.device);
                if let Some(index) = index.filter(|it| self.devices[*it].line == Some(line)) {
                    self.join(index, seat);
                }
            }
            Parcel::ClientAck(line, namespace, id) => self.client_acks(line, namespace, id),
            Parcel::Up(line, upward) => self.arrive_up(line, upward),
            Parcel::Down(line, downward) => self.arrive_down(line, downward),
            Parcel::CutLine(line) => self.cut(line),
            Parcel::ClientNotices(line) => self.client_notices(line),
            Parcel::ShardNotices(line) => self.shard_notices(line),
            Parcel::Unstalled(line) => self.unstalled(line),
            Parcel::Mail(from, to, mail) => self.open_mail(from, to, mail),
            Parcel::TurnEnd(shard) => self.turn_ends(shard),
            Parcel::Decide(asking, decision) => self.decide(&asking, decision),
            Parcel::Route(Routed { process, from, socket, command }) => {
                if process == self.process {
                    self.route(from, socket, *command, Ticket::None);
                }
            }
            Parcel::Stop(shards, loading) => self.stop(shards, loading),
            Parcel::Restore(process) => {
                if process == self.process {
                    self.restore();
                }
            }
        }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Arrive { client } => self.come(*client),
            Act::Cut { client } => self.with_line(*client, World::cut),
            Act::Roam { client } => self.roam(*client),
            Act::BlackHole { client } => self.with_line(*client, World::silence),
            Act::CutAfter { client, packets } => {
                self.with_line(*client, |world, line| world.cut_after(line, *packets));
            }
            Act::DeafenAfterPing { client, cut_after } => {
                self.with_line(*client, |world, line| world.deafen_after_ping(line, *cut_after));
            }
            Act::Stall { client, for_ } => {
                self.with_line(*client, |world, line| world.stall(line, *for_));
            }
            Act::Repeat { client, told } => {
                self.with_line(*client, |world, line| world.repeat_next(line, *told));
            }
            Act::Leave { client, seat } => self.leave(*client, *seat),
            Act::Close { client } => self.close(*client),
            Act::Fork { client } => self.fork(*client),
            Act::Say { client, seat, ack } => self.say(*client, *seat, *ack),
            Act::Emit { from, client, seat, shape } => {
                if let Some(life) = self.life_at(*client, *seat) {
                    self.emit(*from, life, *shape);
                }
            }
            Act::Broadcast { from, namespace, rooms, except, shape, count } => {
                let namespace = *namespace;
                let rooms = self.rooms(rooms, namespace);
                let except = self.rooms(except, namespace);
                for _ in 0..*count {
                    self.emit_to_many(*from, namespace, &rooms, &except, *shape);
                }
            }
            Act::Join { from, client, seat, room } => {
                if let Some(life) = self.life_at(*client, *seat) {
                    self.change_room(self.source(*from).0, life, (*room).into(), true);
                }
            }
            Act::Exit { from, client, seat, room } => {
                if let Some(life) = self.life_at(*client, *seat) {
                    self.change_room(self.source(*from).0, life, (*room).into(), false);
                }
            }
            Act::Kick { from, client, seat, close } => {
                if let Some(life) = self.life_at(*client, *seat) {
                    self.kick(*from, life, *close);
                }
            }
            Act::RefuseNext { client } => self.devices[*client].refuse_next = true,
            Act::Restart { shards, loading } => self.drain(*shards, *loading),
        }
    }

    fn with_line(&mut self, client: usize, act: impl FnOnce(&mut Self, u64)) {
        if let Some(line) = self.devices[client].line {
            act(self, line);
        }
    }

    /// The socket that a client is, or was last.
    fn life_at(&self, client: usize, seat: usize) -> Option<LifeId> {
        let life = self.devices[client].seats[seat].heard.life?;
        self.model.is_bound(life).then_some(life)
    }

    /// A shard that there is.
    fn source(&self, from: Source) -> Source {
        let known = usize::from(from.0) < self.shards.len() || from == Source::OUTSIDE;
        if known { from } else { Source(0) }
    }

    fn rooms(&self, rooms: &[Room], namespace: usize) -> Vec<ByteString> {
        let names = rooms.iter().filter_map(|room| match room {
            Room::Named(name) => Some(ByteString::from_static(name)),
            Room::Own { client } => {
                let mut seats = self.devices[*client].seats.iter();
                let seat = seats.find(|seat| seat.namespace == namespace)?;
                Some(self.model.life(seat.heard.life?).sid.to_string().into())
            }
        });
        names.collect()
    }

    fn emit(&mut self, from: Source, life: LifeId, shape: Shape) {
        let from = self.source(from);
        let number = self.model.emit(from, Target::One(life), shape, 1);
        self.counts.emitted += 1;
        let socket = self.model.life(life).socket;
        let ack = match shape {
            Shape::Acked { timeout } => Some(AckRequest { token: number, timeout }),
            Shape::Plain | Shape::Large | Shape::Binary | Shape::Volatile => None,
        };
        let volatile = shape == Shape::Volatile;
        let args = shape.args(number);
        let command = Command::Emit { socket: socket.key, args, ack, volatile };
        self.route(from.0, socket, command, Ticket::Emission(number));
    }

    fn emit_to_many(
        &mut self,
        from: Source,
        namespace: usize,
        rooms: &[ByteString],
        except: &[ByteString],
        shape: Shape,
    ) {
        let from = self.source(from);
        let copies = if from == Source::OUTSIDE { self.shards.len() } else { 1 };
        let target = Target::Many { namespace, rooms: rooms.to_vec(), except: except.to_vec() };
        let number = self.model.emit(from, target, shape, copies);
        self.counts.emitted += 1;
        let broadcast = Broadcast {
            namespace: NAMESPACES[namespace].name.into(),
            rooms: rooms.to_vec(),
            except: except.to_vec(),
            args: shape.args(number),
            volatile: shape == Shape::Volatile,
            report: None,
            ack: None,
            forwarded: false,
            origin: None,
        };
        self.broadcast(from, broadcast);
    }

    fn kick(&mut self, from: Source, life: LifeId, close: bool) {
        let socket = self.model.life(life).socket;
        self.model.wants_to_end(life);
        if close {
            // Everything its session is in ends with it.
            for line in self.lines.values() {
                if line.answers.is(life) {
                    for other in line.answers.lives() {
                        self.model.wants_to_end(other);
                    }
                }
            }
        }
        let command = Command::Disconnect { socket: socket.key, close };
        self.route(self.source(from).0, socket, command, Ticket::None);
    }

    fn client_acks(&mut self, line: u64, namespace: usize, id: u64) {
        let event = self.lines.get_mut(&line).and_then(|line| line.owed.remove(&(namespace, id)));
        let Some(number) = event else { return };
        let args = bowline_proto::socketio::Args::from_values(&[number.into()]);
        let namespace = NAMESPACES[namespace].name.into();
        self.tell_client(line, bowline_proto::client::Input::Ack { namespace, id, args });
    }

    /// Writes something down, if anybody reads it.
    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace(format!("{:?} {}", self.now, line()));
        }
    }
}

pub(super) const EPOCH: u32 = 0xb0;
const NEVER: Time = Time::from_micros(u64::MAX);
