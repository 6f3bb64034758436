//! Clients: the real one of `proto::client`, session after session, and what it remembers between them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bowline_proto::{
    Sid,
    client::{self, Client, CloseReason, Config, Recall},
    engineio::Version,
    hub::Offset,
    socketio::Args,
    wall::AckRequest,
};
use bytestring::ByteString;
use serde_json::{Map, Value, json};

use super::{
    model::Heard,
    network::Line,
    script::{Kind, Latency, NAMESPACES, Part, Place, Profile, Shape},
    world::{Parcel, World},
};
use crate::rng::Rng;

/// A client over all its sessions.
#[derive(Debug, Clone)]
pub(super) struct Device {
    pub(super) profile: Profile,
    /// What its cookie and its token say.
    pub(super) name: String,
    /// The session it has now.
    pub(super) line: Option<u64>,
    pub(super) seats: Vec<Seat>,
    pub(super) refuse_next: bool,
    /// It has left, and will not come again.
    pub(super) gone: bool,
    sessions: u64,
    rng: Rng,
}

/// A client's place in one namespace.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub(super) namespace: usize,
    pub(super) part: Part,
    pub(super) recall: Recall,
    pub(super) heard: Heard,
    /// Whether the server has let it in, in this session.
    pub(super) joined: bool,
    /// It has been sent away, or has left.
    pub(super) down: bool,
    /// The offsets it has heard.
    offsets: Vec<ByteString>,
    /// What it has said in a namespace of named events, and awaits an ack for.
    unanswered: BTreeSet<u64>,
    lie: Lie,
    /// Whether it has told a lie that costs it something, even if it was not let in then.
    may_lose: bool,
}

/// What a client says instead of its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    Honest,
    /// None.
    Silent,
    /// An earlier one.
    Stale,
    /// Somebody else's.
    Foreign,
    /// One that is to come yet.
    Beyond,
    /// One of another log.
    OtherEpoch,
    Garbage,
    /// And a pid that nobody has.
    NoSuchPid,
}

impl Device {
    pub(super) fn new(profile: &Profile, index: usize, seed: u64) -> Self {
        let seats = profile.seats.iter().map(|namespace| Seat {
            namespace: *namespace,
            part: NAMESPACES[*namespace].part_of(profile),
            recall: Recall::default(),
            heard: Heard::default(),
            joined: false,
            down: false,
            offsets: Vec::new(),
            unanswered: BTreeSet::new(),
            lie: Lie::Honest,
            may_lose: false,
        });
        Self {
            profile: profile.clone(),
            name: format!("d{index}"),
            line: None,
            seats: seats.collect(),
            refuse_next: false,
            gone: false,
            sessions: 0,
            rng: Rng::new(seed ^ (index as u64 + 1).wrapping_mul(0x1234_5678_9abc_def1)),
        }
    }

    /// Somebody else who remembers the same.
    fn fork(&self, index: usize, seed: u64) -> Self {
        let mut fork = self.clone();
        fork.line = None;
        fork.refuse_next = false;
        fork.sessions = 0;
        fork.rng = Rng::new(seed ^ (index as u64 + 1).wrapping_mul(0x1234_5678_9abc_def1));
        for seat in &mut fork.seats {
            seat.joined = false;
            seat.unanswered.clear();
        }
        fork
    }

    /// When it comes back: most often at once, sometimes late, sometimes too late.
    fn pause(&mut self, window: Duration) -> Duration {
        let millis = |millis| Duration::from_millis(millis);
        match self.rng.below(20) {
            0..10 => millis(self.rng.word() % 60),
            10..15 => millis(self.rng.word() % 4_000),
            15 | 16 => (window / 2).saturating_sub(millis(100)) + millis(self.rng.word() % 200),
            17 => window.saturating_sub(millis(300)) + millis(self.rng.word() % 400),
            18 => window * 2 + millis(self.rng.word() % 5_000),
            _ => millis(self.rng.word() % 30_000),
        }
    }

    fn seat(&mut self, name: &str) -> Option<&mut Seat> {
        self.seats.iter_mut().find(|seat| NAMESPACES[seat.namespace].name == name)
    }
}

impl World<'_> {
    /// A client opens a session, if it has none.
    pub(super) fn come(&mut self, index: usize) {
        let device = &mut self.devices[index];
        if device.line.is_some() || device.gone || device.seats.iter().all(|seat| seat.down) {
            return;
        }
        let number = index as u64 * 1_000_000 + device.sessions;
        device.sessions += 1;
        device.line = Some(number);
        let mut rng = Rng::new(self.script.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let shard = u8::try_from(rng.below(self.shards.len())).unwrap_or(0);
        let mut random = [0; 14];
        random.fill_with(|| rng.byte());
        let version = device.profile.version;
        // The official client counts on, others begin anew.
        let counts_on = device.seats.iter().any(|seat| seat.part == Part::Stamped);
        let acks_from = if counts_on { device.sessions * 10_000 } else { 0 };
        let transports = device.profile.transports;
        let config = Config { version, transports, acks_from, ..Config::default() };
        let client = Client::new(Arc::new(config));
        let sid = Sid::new(shard, random);
        let process = self.process;
        self.lines.insert(number, Line::new(index, (process, shard), sid, client, version, rng));
        self.counts.sessions += 1;
        for seat in 0..self.devices[index].seats.len() {
            self.join(index, seat);
        }
        self.tell_client(number, client::Input::Open);
    }

    /// Asks to be let into a namespace, in the session it has.
    pub(super) fn join(&mut self, index: usize, seat: usize) {
        let foreign = self.foreign_offset(index);
        let rudeness = if self.quiet { usize::MAX } else { self.script.setup.rudeness };
        let device = &mut self.devices[index];
        let Some(number) = device.line else { return };
        let asks = device.profile.kind == Kind::Asks;
        let version = device.profile.version;
        let Device { rng, seats, .. } = device;
        let seat = &mut seats[seat];
        if seat.down || seat.joined {
            return;
        }
        seat.lie = if rng.one_in(rudeness) {
            *rng.pick(&[
                Lie::Silent,
                Lie::Silent,
                Lie::Stale,
                Lie::Stale,
                Lie::Foreign,
                Lie::Beyond,
                Lie::OtherEpoch,
                Lie::Garbage,
                Lie::NoSuchPid,
            ])
        } else {
            Lie::Honest
        };
        if seat.recall.pid().is_none() || seat.part != Part::Stamped {
            seat.lie = Lie::Honest;
        }
        // How long the log of another shard is, or was, nobody asks it for every return.
        let alone = self.shards.len() == 1 && self.process == 0;
        let beyond = seat.lie == Lie::Beyond && !alone;
        seat.may_lose |= seat.lie == Lie::Foreign || beyond;
        seat.heard.lied |= seat.lie != Lie::Honest;
        let recall = seat.recall_told(rng, foreign);
        let place = &NAMESPACES[seat.namespace];
        let mut own = Map::new();
        own.insert("device".to_owned(), json!(index.to_string()));
        own.insert("line".to_owned(), json!(number.to_string()));
        if asks {
            own.insert("recovery".to_owned(), json!(true));
        }
        let auth = match version {
            Version::V4 => recall.auth(Some(&own)),
            Version::V3 if place.name == "/" => None,
            Version::V3 => Some(format!("device={index}&line={number}").into()),
        };
        let claims = match seat.lie {
            Lie::NoSuchPid => None,
            _ => seat.heard.life.filter(|_| seat.part != Part::None),
        };
        let namespace = seat.namespace;
        if let Some(line) = self.lines.get_mut(&number) {
            line.answers.claim(namespace, claims);
        }
        let input = client::Input::Join { namespace: place.name.into(), auth };
        self.tell_client(number, input);
    }

    /// What another client has heard last.
    fn foreign_offset(&self, index: usize) -> Option<ByteString> {
        let others = self.devices.iter().enumerate().filter(|(other, _)| *other != index);
        let mut seats = others.flat_map(|(_, device)| &device.seats);
        seats.find_map(|seat| seat.offsets.last().cloned())
    }

    pub(super) fn fork(&mut self, index: usize) {
        if self.devices.len() >= 24 {
            return;
        }
        let fork = self.devices[index].fork(self.devices.len(), self.script.seed);
        self.devices.push(fork);
        self.come(self.devices.len() - 1);
    }

    /// The network of a client has changed: it knows nothing of the old session any more.
    pub(super) fn roam(&mut self, index: usize) {
        let Some(number) = self.devices[index].line else { return };
        self.silence(number);
        self.forget_line(index);
        self.come_later(index);
    }

    fn come_later(&mut self, index: usize) {
        let window = self.script.setup.window;
        let pause = match self.quiet {
            true => Duration::from_millis(300),
            false => self.devices[index].pause(window),
        };
        self.post(pause, Parcel::Come(index));
    }

    fn forget_line(&mut self, index: usize) {
        let device = &mut self.devices[index];
        if let Some(line) = device.line.take().and_then(|number| self.lines.get_mut(&number)) {
            line.client = None;
        }
        for seat in &mut device.seats {
            seat.joined = false;
        }
    }

    /// A client says something.
    pub(super) fn say(&mut self, index: usize, seat: usize, ack: bool) {
        let device = &mut self.devices[index];
        let Some(number) = device.line else { return };
        let seat = &mut device.seats[seat];
        if !seat.joined {
            return;
        }
        self.ids += 1;
        let place = &NAMESPACES[seat.namespace];
        if place.has_event_ids() && ack {
            seat.unanswered.insert(self.ids);
        }
        let input = said(place, self.ids, ack);
        self.counts.said += 1;
        self.tell_client(number, input);
    }

    pub(super) fn leave(&mut self, index: usize, seat: usize) {
        let device = &mut self.devices[index];
        let Some(number) = device.line else { return };
        let seat = &mut device.seats[seat];
        // One that has not been let in would be, after it has gone.
        if !seat.joined {
            return;
        }
        (seat.joined, seat.down) = (false, true);
        let namespace = seat.namespace;
        let life = self.life_on(number, NAMESPACES[namespace].name);
        if let Some(life) = life {
            self.model.wants_to_end(life);
        }
        let namespace = NAMESPACES[namespace].name.into();
        self.tell_client(number, client::Input::Leave { namespace });
    }

    pub(super) fn close(&mut self, index: usize) {
        let Some(number) = self.devices[index].line else { return };
        self.devices[index].gone = true;
        for seat in 0..self.devices[index].seats.len() {
            self.leave(index, seat);
        }
        self.tell_client(number, client::Input::Close);
    }

    /// Hands something to the client of a session, and carries out what it wants.
    pub(super) fn tell_client(&mut self, number: u64, input: client::Input) {
        let now = self.now;
        let Some(line) = self.lines.get_mut(&number) else { return };
        let Some(client) = &mut line.client else { return };
        client.handle_input(now, input);
        let mut outputs = Vec::new();
        while let Some(output) = client.poll_output() {
            outputs.push(output);
        }
        let index = line.device;
        for output in outputs {
            self.note(|| format!("client {index} on {number}: {output:?}"));
            match output {
                client::Output::Request(request) => self.send_request(number, request),
                client::Output::OpenWebSocket { target } => self.open_websocket(number, &target),
                client::Output::Send(packet) => self.send_packet(number, &packet),
                client::Output::CloseWebSocket => self.close_websocket(number),
                client::Output::Event(event) => self.on_client_event(number, index, event),
            }
        }
    }

    fn on_client_event(&mut self, number: u64, index: usize, event: client::Event) {
        if self.devices[index].line != Some(number) {
            return;
        }
        match event {
            client::Event::Joined { namespace, sid, pid } => {
                self.on_joined(number, index, &namespace, &sid, pid.as_ref());
            }
            client::Event::JoinFailed { namespace, .. } => {
                if self.devices[index].profile.version == Version::V3 && namespace == "/" {
                    // It cannot ask there: whoever wants to be let in after all connects anew.
                    self.roam(index);
                    return;
                }
                let seats = &self.devices[index].seats;
                let seat = seats.iter().position(|it| namespace == NAMESPACES[it.namespace].name);
                if let Some(seat) = seat {
                    self.post(Duration::from_millis(500), Parcel::Rejoin(number, seat));
                }
            }
            client::Event::Left { namespace } => self.on_left(number, index, &namespace),
            client::Event::Event { namespace, args, ack } => {
                self.on_heard(number, index, &namespace, &args, ack);
            }
            client::Event::Ack { namespace, token, result } => {
                let life = self.life_on(number, &namespace);
                let seat = self.devices[index].seat(&namespace);
                let (Some(seat), Ok(args), Some(life)) = (seat, result, life) else { return };
                seat.unanswered.remove(&token);
                let answer: (u64, u64) = args.parse().expect("an answer of a handler");
                assert_eq!(answer.0, token, "the answer to something else");
                let told = self.model.told.get(&(life, token));
                let known =
                    told.is_some_and(|answers| answers.iter().any(|(_, it)| *it == answer.1));
                assert!(known, "an answer to {token}, which no handler was told");
            }
            client::Event::Closed { reason, .. } => self.on_line_closed(number, index, reason),
            client::Event::Opened
            | client::Event::Upgraded
            | client::Event::UpgradeFailed { .. }
            | client::Event::Unsent { .. } => {}
            client::Event::Message(_) => panic!("{event:?}"),
        }
    }

    fn on_joined(
        &mut self,
        number: u64,
        index: usize,
        namespace: &str,
        sid: &str,
        pid: Option<&ByteString>,
    ) {
        let life = self.life_on(number, namespace).expect("a handler has let it in");
        let tick = self.model.tick;
        let device = &mut self.devices[index];
        let v4 = device.profile.version == Version::V4;
        if v4 {
            assert_eq!(sid, self.model.life(life).sid.to_string(), "the sid is that of its socket");
        }
        let Some(seat) = device.seat(namespace) else { panic!("let into {namespace} unasked") };
        assert!(!seat.joined, "let into {namespace} twice");
        seat.joined = true;
        assert_eq!(pid.is_some(), seat.part == Part::Stamped, "who gets a pid in {namespace}");
        let recovered = seat.recall.on_joined(pid);
        let goes_on = seat.heard.life == Some(life);
        if seat.part == Part::Stamped {
            assert_eq!(recovered, goes_on, "whether {life:?} goes on and has the same pid");
        }
        self.counts.recovered += u64::from(goes_on);
        if !goes_on {
            self.counts.fresh += 1;
            seat.heard = Heard::of(life);
        }
        let taken_at = self.model.taken_at(life, index);
        let skips = NAMESPACES[seat.namespace].skips();
        let may_lose = std::mem::take(&mut seat.may_lose) || skips && seat.heard.lied;
        seat.heard.excused_before = seat.heard.excused_before.max(taken_at);
        if may_lose {
            seat.heard.excused_before = tick;
        }
        let place = &NAMESPACES[seat.namespace];
        let again: Vec<u64> = seat.unanswered.iter().copied().collect();
        self.note(|| format!("client {index} on {number} is {life:?}, before: {goes_on}"));
        for token in again {
            self.tell_client(number, said(place, token, true));
        }
    }

    fn on_left(&mut self, number: u64, index: usize, namespace: &str) {
        let device = &mut self.devices[index];
        let Some(seat) = device.seat(namespace) else { return };
        (seat.joined, seat.down) = (false, true);
        // Some apps come back by themselves.
        let again = device.rng.one_in(2);
        let millis = Duration::from_millis(device.rng.word() % 3_000);
        if device.seats.iter().all(|seat| seat.down) {
            self.tell_client(number, client::Input::Close);
        }
        if again && !self.quiet {
            self.post(millis, Parcel::StandUp(index));
        }
    }

    /// The app of a client that was sent away connects again.
    pub(super) fn stand_up(&mut self, index: usize) {
        if self.quiet || self.devices[index].gone {
            return;
        }
        if self.devices[index].line.is_some() {
            // What it was sent before it left may still be on its way here.
            self.post(Duration::from_secs(3), Parcel::StandUp(index));
            return;
        }
        for seat in &mut self.devices[index].seats {
            seat.down = false;
        }
        self.come(index);
    }

    fn on_heard(
        &mut self,
        number: u64,
        index: usize,
        namespace: &str,
        args: &Args,
        ack: Option<u64>,
    ) {
        let device = &mut self.devices[index];
        let Some(seat) = device.seat(namespace) else { panic!("an event in {namespace}") };
        let harmed = self.lines.get(&number).is_some_and(|line| line.harmed);
        if !seat.joined && seat.part == Part::None && harmed {
            // A proxy has lost its CONNECT, and it takes no part.
            return;
        }
        assert!(seat.joined, "an event came before the CONNECT in {namespace}");
        seat.recall.on_event(args, ack.is_some());
        let values: Vec<Value> = args.parse().expect("arguments");
        let event = values[1].as_u64().expect("a number");
        self.counts.heard += 1;
        let again = seat.heard.has(event);
        self.counts.repeated += u64::from(again);
        let namespace_index = seat.namespace;
        let part = seat.part;
        if let Some(Value::String(last)) = values.last()
            && part == Part::Stamped
            && ack.is_none()
        {
            seat.offsets.push(last.as_str().into());
        }
        self.model.on_heard(&mut seat.heard, event, namespace_index);
        let shape = self.model.shape_of(event);
        let own = shape.args(event);
        let stamped = part == Part::Stamped && ack.is_none();
        assert_eq!(ack.is_some(), matches!(shape, Shape::Acked { .. }), "{event} asks for an ack");
        let expected: Vec<Value> = own.parse().expect("arguments");
        assert_eq!(values[..expected.len()], expected[..], "the arguments of {event}");
        assert_eq!(args.attachments(), own.attachments());
        match &values[expected.len()..] {
            [] => assert!(!stamped, "{event} has no offset"),
            [Value::String(offset)] if stamped => {
                assert!(offset.parse::<Offset>().is_ok(), "{offset} is no offset");
            }
            more => panic!("{more:?} after the arguments of {event} to a client of {part:?}"),
        }
        if let Some(id) = ack {
            let device = &mut self.devices[index];
            let delay = match device.rng.below(8) {
                0 => Duration::from_millis(device.rng.word() % 3_000),
                _ => Duration::ZERO,
            };
            if let Some(line) = self.lines.get_mut(&number) {
                line.owed.insert((namespace_index, id), event);
            }
            self.post(delay, Parcel::ClientAck(number, namespace_index, id));
        }
    }

    fn on_line_closed(&mut self, number: u64, index: usize, reason: CloseReason) {
        self.forget_line(index);
        let line = &self.lines[&number];
        let disturbed = line.harmed || line.delayed;
        let far = self.script.setup.latency == Latency::Jumpy;
        let silent = reason == CloseReason::PingTimeout && !disturbed && !far;
        assert!(!silent, "client {index} on {number} hears no pings any more");
        let device = &mut self.devices[index];
        // The official client says goodbye to a session whose poll has failed.
        if reason == CloseReason::TransportError && device.rng.one_in(2) {
            self.say_goodbye(number);
        }
        self.come_later(index);
    }

    /// Everybody who is away comes back now.
    pub(super) fn call_back(&mut self) {
        for index in 0..self.devices.len() {
            self.post(Duration::from_millis(100), Parcel::Come(index));
        }
    }

    /// What clients must have by now.
    pub(super) fn check_clients(&self) {
        for (index, device) in self.devices.iter().enumerate() {
            if device.gone {
                continue;
            }
            for seat in device.seats.iter().filter(|seat| !seat.down) {
                let name = NAMESPACES[seat.namespace].name;
                assert!(seat.joined, "client {index} does not come to be let into {name}");
                let line = device.line.and_then(|number| self.lines.get(&number));
                let rivalled = seat.heard.life.is_some_and(|life| self.model.life(life).rivalled);
                let lossy = seat.part == Part::None && line.is_none_or(|line| line.harmed);
                if lossy || rivalled {
                    continue;
                }
                let missing = self.model.missing(&seat.heard);
                assert!(
                    missing.is_empty(),
                    "client {index} ({:?}) never hears {missing:?} in {name}, as {:?}",
                    seat.part,
                    seat.heard.life
                );
                assert!(
                    seat.unanswered.is_empty(),
                    "client {index} never gets an answer to {:?}",
                    seat.unanswered
                );
            }
        }
    }
}

impl Seat {
    /// What it says it remembers.
    fn recall_told(&self, rng: &mut Rng, foreign: Option<ByteString>) -> Recall {
        let pid = self.recall.pid().cloned();
        let last = self.offsets.last().and_then(|it| it.parse::<Offset>().ok());
        let offset = match self.lie {
            Lie::Honest => return self.recall.clone(),
            Lie::Silent => None,
            Lie::Stale if self.offsets.is_empty() => None,
            Lie::Stale => Some(rng.pick(&self.offsets).clone()),
            Lie::Foreign => foreign,
            Lie::Beyond => {
                last.map(|it| Offset { number: it.number + 1_000_000, ..it }.to_string().into())
            }
            Lie::OtherEpoch => {
                last.map(|it| Offset { epoch: it.epoch.wrapping_add(1), ..it }.to_string().into())
            }
            Lie::Garbage => Some((*rng.pick(&["", "x", "0.0", "-1.0.0", "1.999.1"])).into()),
            Lie::NoSuchPid => {
                let mut random = [0; 14];
                random.fill_with(|| rng.byte());
                let shard = rng.byte() % 5;
                return Recall::new(Some(Sid::new(shard, random).to_string().into()), None);
            }
        };
        Recall::new(pid, offset)
    }
}

/// Something a client says: its name is its number.
fn said(place: &Place, token: u64, ack: bool) -> client::Input {
    let ack = ack.then_some(AckRequest { token, timeout: Duration::from_secs(86_400) });
    let args = Args::from_values(&[json!("s"), json!({ "id": token.to_string() })]);
    client::Input::Emit { namespace: place.name.into(), args, ack }
}
