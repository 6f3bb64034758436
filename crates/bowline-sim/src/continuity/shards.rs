//! The shards: hubs, the mailboxes between them, and what a shell does with what a hub says.

use std::{collections::BTreeMap, time::Duration};

use bowline_proto::{
    Command, Hub, Input, Output, Sid, SocketKey, Time,
    hub::{Config, Continuity, NamespacePattern, NamespaceRule, Peer, Whereabouts},
    limit::Limits,
    wall::{Broadcast, BroadcastOrigin},
};
use bytestring::ByteString;

use super::{
    model::{LifeId, SocketRef},
    network::events_in,
    script::{Latency, NAMESPACES, Setup, Source},
    world::{Parcel, World},
};

/// One shard.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) hub: Hub,
    turn_end_due: bool,
    /// What is meant for sockets that are on their way.
    parked: BTreeMap<Sid, Vec<Errand>>,
}

/// A command for one socket, wherever that is.
#[derive(Debug)]
pub(super) struct Errand {
    socket: SocketRef,
    command: Command,
    ticket: Ticket,
    hops: u32,
}

/// What the model is told when a command has been dealt with.
#[derive(Debug, Clone)]
pub(super) enum Ticket {
    None,
    Emission(u64),
    Room { life: LifeId, room: ByteString, inside: bool },
}

/// What is in a mailbox.
#[derive(Debug)]
pub(super) enum Mail {
    Heard(Box<Peer>),
    Broadcast(Box<Broadcast>),
    Errand(Box<Errand>),
}

/// What a hub has a handler told, with the name by which that knows the socket.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) shard: u8,
    pub(super) handler: u16,
    pub(super) event: bowline_proto::Event,
    pub(super) born: SocketRef,
}

pub(super) fn config_of(setup: &Setup, shards: u8, continuity: Continuity) -> Config {
    let rules = NAMESPACES.iter().zip(0..).map(|(place, handler)| NamespaceRule {
        pattern: NamespacePattern::new(place.name),
        handler,
        keeping: place.keeping(),
    });
    Config {
        shards,
        ping_interval: setup.ping_interval,
        ping_timeout: setup.ping_timeout,
        upgrades: setup.upgrades,
        keep_headers: setup.keep_headers,
        limits: Limits { queued_bytes_per_session: setup.queued_bytes, ..Limits::default() },
        continuity: Continuity {
            window: setup.window,
            log_bytes: setup.log_bytes,
            away_max: setup.away_max,
            ..continuity
        },
        namespaces: rules.collect(),
        ..Config::default()
    }
}

impl Shard {
    pub(super) fn new(config: Config, hash_key: [u8; 16]) -> Self {
        Self { hub: Hub::new(config, hash_key), turn_end_due: false, parked: BTreeMap::new() }
    }

    pub(super) fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }
}

impl World<'_> {
    /// Hands an input to a hub and carries out what comes of it. Handlers hear of it when all that is
    /// to be sent has been sent.
    pub(super) fn feed(&mut self, shard: u8, input: Input) {
        self.feed_only(shard, input);
        if std::mem::replace(&mut self.delivering, true) {
            return;
        }
        while let Some(delivery) = self.deliveries.pop_front() {
            self.on_event(delivery);
        }
        self.delivering = false;
    }

    fn feed_only(&mut self, shard: u8, input: Input) {
        self.note(|| format!("shard {shard} <- {input:?}"));
        let turn_ends = matches!(input, Input::TurnEnd);
        if !turn_ends {
            self.end_turn(shard);
        }
        self.counts.inputs += 1;
        let index = usize::from(shard);
        let now = self.now;
        self.shards[index].hub.handle_input(now, input);
        // Receivers can be walked while an output is in hand only.
        while let Some(output) = self.shards[index].hub.poll_output() {
            match output {
                Output::Send { mut receivers, frame } => {
                    let mut found = Vec::new();
                    let hub = &mut self.shards[index].hub;
                    while let Some(transport) = hub.next_receiver(&mut receivers) {
                        found.push(transport);
                    }
                    self.note(|| format!("shard {shard} -> {found:?}: {}", shown(&frame)));
                    for transport in found {
                        self.send_frame(transport, &frame);
                    }
                }
                Output::Respond { exchange, response } => {
                    self.note(|| format!("shard {shard} -> {exchange:?}: {response:?}"));
                    self.respond(exchange, response);
                }
                Output::Close { transport, code } => {
                    self.note(|| format!("shard {shard} closes {transport:?}: {code:?}"));
                    self.on_close(transport);
                }
                Output::Deliver { handler, event } => {
                    let key = bowline_key(&event);
                    let (born, key) = self.shards[index].hub.born(key);
                    let born = SocketRef { shard: born, key };
                    self.deliveries.push_back(Delivery { shard, handler, event, born });
                }
                Output::Forward(broadcast) => self.forward(shard, &broadcast),
                Output::Reached { .. } => {}
                Output::Tell { shard: to, message } => self.mail(shard, to, Mail::Heard(message)),
                Output::Settled { pid, .. } => {
                    let parked = self.shards[index].parked.remove(&pid).unwrap_or_default();
                    self.released.extend(parked.into_iter().map(|errand| (shard, errand)));
                }
            }
        }
        if turn_ends {
            let view = self.shards[index].hub.log_view(now);
            let most = self.script.setup.log_bytes;
            assert!(view.bytes <= most, "a log of {} bytes, of {most}", view.bytes);
        }
        let away = self.shards[index].hub.away_count();
        assert!(away <= self.script.setup.away_max, "{away} sockets are away");
        while let Some((shard, errand)) = self.released.pop_front() {
            self.run_errand(shard, errand);
        }
        self.say_backlogs(shard);
    }

    fn end_turn(&mut self, shard: u8) {
        if !std::mem::replace(&mut self.shards[usize::from(shard)].turn_end_due, true) {
            let delay = Duration::from_micros(self.rng.word() % 3_000);
            self.post(delay, Parcel::TurnEnd(shard));
        }
    }

    pub(super) fn turn_ends(&mut self, shard: u8) {
        if let Some(it) = self.shards.get_mut(usize::from(shard)) {
            it.turn_end_due = false;
            self.feed(shard, Input::TurnEnd);
        }
    }

    /// Puts something into a mailbox: order is kept between two shards, and nowhere else.
    pub(super) fn mail(&mut self, from: u8, to: u8, mail: Mail) {
        let micros = match self.script.setup.latency {
            Latency::Near => 20 + self.rng.word() % 300,
            Latency::Far => 20 + self.rng.word() % 5_000,
            Latency::Jumpy => 20 + self.rng.word() % if self.rng.one_in(20) { 50_000 } else { 500 },
        };
        let free = self.mailboxes.entry((from, to)).or_insert(Time::ZERO);
        let at = (self.now + Duration::from_micros(micros)).max(*free);
        *free = at;
        self.post(at - self.now, Parcel::Mail(from, to, mail));
    }

    pub(super) fn open_mail(&mut self, from: u8, to: u8, mail: Mail) {
        self.note(|| format!("mail from {from} to {to}: {mail:?}"));
        match mail {
            Mail::Heard(message) => self.feed(to, Input::Heard(message)),
            Mail::Broadcast(broadcast) => {
                let number = number_of(&broadcast);
                self.feed(to, Input::Command(Command::Broadcast(*broadcast)));
                self.model.applied(number);
            }
            Mail::Errand(errand) => self.run_errand(to, *errand),
        }
    }

    fn forward(&mut self, from: u8, broadcast: &Broadcast) {
        let others = (0..self.shards.len()).filter_map(|index| u8::try_from(index).ok());
        let others: Vec<u8> = others.filter(|to| *to != from).collect();
        self.model.copied(number_of(broadcast), others.len());
        for to in others {
            self.mail(from, to, Mail::Broadcast(Box::new(broadcast.clone())));
        }
    }

    /// Broadcasts from a shard's handler, or to all shards from a thread that is none.
    pub(super) fn broadcast(&mut self, from: Source, mut broadcast: Broadcast) {
        if from != Source::OUTSIDE {
            let number = number_of(&broadcast);
            self.feed(from.0, Input::Command(Command::Broadcast(broadcast)));
            self.model.applied(number);
            return;
        }
        self.outside_number += 1;
        let shards = u8::try_from(self.shards.len()).unwrap_or(u8::MAX);
        broadcast.forwarded = true;
        broadcast.origin = Some(BroadcastOrigin { shard: shards, number: self.outside_number });
        for to in 0..shards {
            self.mail(Source::OUTSIDE.0, to, Mail::Broadcast(Box::new(broadcast.clone())));
        }
    }

    /// Gives a command for a socket to a shard, which knows where that is.
    pub(super) fn route(&mut self, from: u8, socket: SocketRef, command: Command, ticket: Ticket) {
        let errand = Errand { socket, command, ticket, hops: 0 };
        if from == Source::OUTSIDE.0 {
            // Threads that are no shard ask the one where it was born.
            self.mail(from, socket.shard, Mail::Errand(Box::new(errand)));
        } else {
            self.run_errand(from, errand);
        }
    }

    fn run_errand(&mut self, shard: u8, mut errand: Errand) {
        let Some(hub) = self.shards.get(usize::from(shard)).map(|it| &it.hub) else {
            self.redeem(errand.ticket, false);
            return;
        };
        errand.hops += 1;
        assert!(errand.hops < 100, "{errand:?} finds no end");
        match hub.whereabouts(errand.socket.shard, errand.socket.key) {
            Whereabouts::Here(key) => {
                let found = hub.socket(key).is_some();
                *key_of(&mut errand.command) = key;
                self.feed(shard, Input::Command(errand.command));
                self.redeem(errand.ticket, found);
            }
            Whereabouts::There(to) if to == shard => panic!("{errand:?} is sent to its sender"),
            Whereabouts::There(to) => self.mail(shard, to, Mail::Errand(Box::new(errand))),
            Whereabouts::Moving(pid) => {
                self.shards[usize::from(shard)].parked.entry(pid).or_default().push(errand);
            }
            Whereabouts::Gone => self.redeem(errand.ticket, false),
        }
    }

    fn redeem(&mut self, ticket: Ticket, found: bool) {
        match ticket {
            Ticket::None => {}
            Ticket::Emission(number) => self.model.applied(number),
            Ticket::Room { life, room, inside } => self.model.moved(life, &room, inside, found),
        }
    }

    /// The earliest time at which a hub wants to be woken.
    pub(super) fn hub_deadline(&self) -> Option<(Time, u8)> {
        let deadlines = self
            .shards
            .iter()
            .zip(0..)
            .filter_map(|(shard, index)| shard.hub.poll_timeout().map(|(at, _)| (at, index)));
        deadlines.min()
    }
}

fn number_of(broadcast: &Broadcast) -> u64 {
    let found = events_in(broadcast.args.json());
    found.first().map(|(_, number)| *number).expect("an event of this world")
}

/// The socket that an event is about.
fn bowline_key(event: &bowline_proto::Event) -> SocketKey {
    use bowline_proto::Event;
    match event {
        Event::Connect { socket, .. }
        | Event::Event { socket, .. }
        | Event::Ack { socket, .. }
        | Event::Return { socket, .. }
        | Event::Away { socket, .. }
        | Event::Back { socket }
        | Event::Disconnect { socket, .. } => *socket,
        Event::Open { .. } | Event::Message { .. } | Event::Close { .. } => {
            panic!("{event:?}, where Socket.IO is spoken")
        }
    }
}

fn key_of(command: &mut Command) -> &mut SocketKey {
    match command {
        Command::Accept { socket, .. }
        | Command::Claim { socket, .. }
        | Command::Refuse { socket, .. }
        | Command::Emit { socket, .. }
        | Command::Ack { socket, .. }
        | Command::Join { socket, .. }
        | Command::Leave { socket, .. }
        | Command::Disconnect { socket, .. }
        | Command::SetData { socket, .. }
        | Command::Expire { socket, .. } => socket,
        Command::Broadcast(_) | Command::Send { .. } | Command::Close { .. } => {
            panic!("{command:?} is for no socket")
        }
    }
}

/// The text of a frame, for a trace.
fn shown(frame: &[u8]) -> String {
    String::from_utf8_lossy(frame).chars().filter(|it| !it.is_control()).take(160).collect()
}
