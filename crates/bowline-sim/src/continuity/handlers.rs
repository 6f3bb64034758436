//! The handlers of a world: what they are told is checked, and they do as they please.

use std::{collections::BTreeMap, time::Duration};

use bowline_proto::{
    Command, SessionKey, Sid, SocketKey,
    socketio::Args,
    wall::{DisconnectReason, Event, Handshake},
};
use bytestring::ByteString;
use serde_json::{Map, Value, json};

use super::{
    model::{LifeId, SocketRef, State},
    script::{NAMESPACES, Part, Place, ROOMS},
    shards::{Delivery, Ticket},
    world::{Parcel, Routed, World},
};

/// What is known of the sockets of one session, on the server's side.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Who its client says it was in a namespace.
    claims: BTreeMap<usize, Option<LifeId>>,
    /// Who it is, and when that was said.
    lives: BTreeMap<usize, (LifeId, u64)>,
}

/// A client that waits for the answer to its CONNECT.
#[derive(Debug, Clone)]
pub(super) struct Asking {
    process: u64,
    shard: u8,
    /// As the hub there knows it.
    key: SocketKey,
    session: SessionKey,
    /// As handlers will know it.
    born: SocketRef,
    line: u64,
    namespace: usize,
    /// The socket that it wants back.
    life: Option<LifeId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Accept { rooms: usize },
    Refuse,
    Claim,
}

impl Answers {
    pub(super) fn claim(&mut self, namespace: usize, life: Option<LifeId>) {
        self.claims.insert(namespace, life);
    }

    pub(super) fn is(&self, life: LifeId) -> bool {
        self.lives().any(|it| it == life)
    }

    pub(super) fn lives(&self) -> impl Iterator<Item = LifeId> {
        self.lives.values().map(|(life, _)| *life)
    }
}

impl World<'_> {
    /// The socket that a session is in a namespace.
    pub(super) fn life_on(&self, line: u64, namespace: &str) -> Option<LifeId> {
        let lives = &self.lines.get(&line)?.answers.lives;
        lives.get(&Place::index(namespace)).map(|(life, _)| *life)
    }

    /// A CONNECT packet is sent.
    pub(super) fn on_connect_sent(&self, line: u64, namespace: &str, sid: &str) {
        let life = self.life_on(line, namespace).expect("accepted before it is told so");
        assert_eq!(self.model.life(life).sid.to_string(), sid, "{life:?} is told another sid");
    }

    pub(super) fn on_event(&mut self, delivery: Delivery) {
        self.note(|| format!("told: {delivery:?}"));
        let Delivery { shard, handler, event, born } = delivery;
        self.counts.told += 1;
        let namespace = usize::from(handler);
        match event {
            Event::Connect { socket, namespace: name, auth, handshake } => {
                assert_eq!(name, NAMESPACES[namespace].name, "the wrong handler");
                let asked = (shard, socket, born);
                self.on_asked(asked, namespace, None, auth.as_deref(), &handshake);
            }
            Event::Return { socket, id, namespace: name, auth, handshake } => {
                assert_eq!(name, NAMESPACES[namespace].name, "the wrong handler");
                let asked = (shard, socket, born);
                self.on_asked(asked, namespace, Some(id), auth.as_deref(), &handshake);
            }
            Event::Event { args, ack, id, .. } => {
                self.on_said(shard, born, &args, ack, id.as_deref());
            }
            Event::Ack { token, result, .. } => {
                self.counts.acks += 1;
                if let Ok(args) = &result {
                    let echoed: (u64,) = args.parse().expect("an ack");
                    assert_eq!(echoed.0, token, "the ack of another event");
                }
                self.model.on_answer(token, result.is_ok());
            }
            Event::Away { socket, reason } => {
                let goodbye = matches!(
                    reason,
                    DisconnectReason::ClientNamespaceDisconnect
                        | DisconnectReason::ServerNamespaceDisconnect
                );
                assert!(!goodbye, "away by {reason:?}, which is a goodbye");
                let known = self.model.by_socket.contains_key(&born);
                if !known {
                    self.find_restored(shard, socket, born);
                    return;
                }
                let life = self.life_of(born);
                self.counts.away += 1;
                let setup = &self.script.setup;
                let heartbeat = setup.ping_interval + 2 * setup.ping_timeout;
                self.model.on_away(life, self.now, heartbeat + Duration::from_secs(5));
            }
            Event::Back { .. } => {
                let life = self.life_of(born);
                self.counts.back += 1;
                self.model.on_back(life, self.now);
            }
            Event::Disconnect { reason, .. } => self.on_disconnect(born, reason),
            Event::Open { .. } | Event::Message { .. } | Event::Close { .. } => {
                panic!("{event:?}, where Socket.IO is spoken")
            }
        }
    }

    fn life_of(&self, socket: SocketRef) -> LifeId {
        let life = self.model.by_socket.get(&socket);
        *life.unwrap_or_else(|| panic!("{socket:?}, whom no handler has let in"))
    }

    fn on_disconnect(&mut self, socket: SocketRef, reason: DisconnectReason) {
        if self.model.strangers.remove(&socket) {
            self.model.strangers_ended += 1;
        }
        // One that was asked about and never let in, or refused by its end.
        let Some(life) = self.model.by_socket.get(&socket).copied() else { return };
        let may_be_dropped = self.may_be_dropped(life);
        self.counts.ended += 1;
        let window = self.script.setup.window;
        self.model.on_disconnect(life, reason, self.now, window, may_be_dropped);
    }

    /// Whether there may be no room for it, or none any more.
    fn may_be_dropped(&self, life: LifeId) -> bool {
        let setup = &self.script.setup;
        setup.log_is_small || setup.away_max < 1_000 || self.model.life(life).went_again
    }

    /// A client asks to be let in.
    fn on_asked(
        &mut self,
        (shard, key, born): (u8, SocketKey, SocketRef),
        namespace: usize,
        id: Option<Sid>,
        auth: Option<&str>,
        handshake: &Handshake,
    ) {
        let words = auth.and_then(|auth| serde_json::from_str::<Map<String, Value>>(auth).ok());
        let words = words.unwrap_or_default();
        for secret in ["pid", "offset"] {
            assert!(!words.contains_key(secret), "handlers are told the {secret}");
        }
        let from_auth = words.get("line").and_then(Value::as_str).map(str::to_owned);
        let from_query = || handshake.query.split_once("line=").map(|(_, line)| line.to_owned());
        let line: u64 = from_auth.or_else(from_query).and_then(|it| it.parse().ok()).expect("it");
        let hub = &self.shards[usize::from(shard)].hub;
        // It may have gone with the same input.
        let Some(session) = hub.session_of(key) else { return };
        let index = self.lines[&line].device;
        let life = id.map(|id| {
            let life = self.model.by_sid.get(&id);
            *life.unwrap_or_else(|| panic!("{id} returns, and never was here"))
        });
        if let Some(life) = life.filter(|_| self.model.strangers.remove(&born)) {
            self.model.rebind(life, born);
        }
        match life {
            Some(life) => self.check_return(born, line, namespace, life),
            None => self.check_fresh(line, namespace),
        }
        let process = self.process;
        let asking = Asking { process, shard, key, session, born, line, namespace, life };
        let place = &NAMESPACES[namespace];
        let names = place.takes_claims()
            && life.is_none()
            && place.part_of(&self.devices[index].profile) != Part::Stamped
            && self.named.insert((shard, key, session));
        let refuse = std::mem::take(&mut self.devices[index].refuse_next);
        let line = self.lines.get_mut(&line).expect("a line");
        let decision = match line.rng.below(30) {
            _ if names => Decision::Claim,
            _ if self.quiet => Decision::Accept { rooms: 1 },
            _ if refuse => Decision::Refuse,
            0 => Decision::Refuse,
            rooms => Decision::Accept { rooms: rooms % 3 },
        };
        let delay = match line.rng.below(4) {
            0 => Duration::from_millis(line.rng.word() % 200),
            _ => Duration::ZERO,
        };
        self.post(delay, Parcel::Decide(asking, decision));
    }

    /// Somebody comes back: it must be who has been there.
    fn check_return(&self, born: SocketRef, number: u64, namespace: usize, life: LifeId) {
        let line = &self.lines[&number];
        let device = &self.devices[line.device];
        let it = self.model.life(life);
        assert!(!matches!(it.state, State::Over(_)), "{life:?} returns after its end");
        assert_eq!(it.namespace, namespace);
        assert_eq!(born, it.socket, "{life:?} returns as another");
        match it.part {
            Part::None => panic!("{life:?} takes no part and returns"),
            Part::Stamped => {
                let claimed = line.answers.claims.get(&namespace).copied().flatten();
                assert_eq!(claimed, Some(life), "{life:?} goes to who did not ask for it");
            }
            Part::Repeat | Part::Skip => {
                let name = &self.devices[it.device].name;
                assert_eq!(&device.name, name, "{life:?} goes to another name");
            }
        }
    }

    /// Somebody is let in anew: who it was must have ended, or be claimed by somebody else.
    fn check_fresh(&self, number: u64, namespace: usize) {
        let line = &self.lines[&number];
        let Some(life) = line.answers.claims.get(&namespace).copied().flatten() else { return };
        let it = self.model.life(life);
        let place = &NAMESPACES[namespace];
        let may_be_dropped = self.may_be_dropped(life);
        // Named by a token: at first nobody knows who it is.
        let unnamed = place.takes_claims() && it.part != Part::Stamped;
        let over = match it.state {
            State::In => false,
            // While a handler thought it over, the window has closed.
            State::Away(since) => self.now - since >= self.script.setup.window,
            State::Over(_) => true,
        };
        if over || it.wanted || unnamed || may_be_dropped {
            return;
        }
        let opened = line.opened_at;
        let rival = self.lines.iter().any(|(other, rival)| {
            *other != number
                && match (it.part, rival.answers.claims.get(&namespace)) {
                    (Part::Stamped, claimed) => claimed == Some(&Some(life)),
                    (Part::Repeat | Part::Skip | Part::None, claimed) => {
                        let name = &self.devices[line.device].name;
                        claimed.is_some() && self.devices[rival.device].name == *name
                    }
                }
                && match rival.answers.lives.get(&namespace) {
                    Some((_, settled)) => *settled > opened,
                    None => rival.opened && self.is_known(rival.shard, rival.sid),
                }
        });
        assert!(
            rival,
            "client {} was {life:?} and is let in anew, which has not ended",
            line.device
        );
    }

    fn is_known(&self, shard: u8, sid: Sid) -> bool {
        let hub = self.shards.get(usize::from(shard)).map(|shard| &shard.hub);
        hub.is_some_and(|hub| hub.session_transport(sid).is_some())
    }

    /// A handler has made up its mind.
    pub(super) fn decide(&mut self, asking: &Asking, decision: Decision) {
        let Asking { process, shard, key, session, born, line, namespace, life } = *asking;
        if process != self.process {
            return;
        }
        let Some(hub) = self.shards.get(usize::from(shard)).map(|shard| &shard.hub) else { return };
        if hub.session_of(key) != Some(session) {
            return;
        }
        let mut random = [0; 14];
        random.fill_with(|| self.rng.byte());
        let command = match decision {
            Decision::Refuse => {
                let message = "no entry".to_owned();
                Command::Refuse { socket: key, message, data: None }
            }
            Decision::Claim => {
                let index = self.lines[&line].device;
                let name = ByteString::from(self.devices[index].name.as_str());
                Command::Claim { socket: key, name }
            }
            Decision::Accept { .. } => {
                let id = Sid::new(shard, random);
                random[0] ^= 0xff;
                Command::Accept { socket: key, id, pid: Sid::new(shard, random) }
            }
        };
        if let (Decision::Accept { rooms }, Command::Accept { id, .. }) = (decision, &command) {
            let index = self.lines[&line].device;
            let fresh = life.is_none();
            let life = life.unwrap_or_else(|| {
                let part = NAMESPACES[namespace].part_of(&self.devices[index].profile);
                let life = self.model.begin(born, *id, namespace, part, index);
                if part == Part::Repeat || part == Part::Skip {
                    self.note_rivals(line, namespace, life);
                }
                life
            });
            let tick = self.model.tick;
            self.model.give(life, line, index);
            let answers = &mut self.lines.get_mut(&line).expect("a line").answers;
            answers.lives.insert(namespace, (life, tick));
            self.feed(shard, bowline_proto::Input::Command(command));
            if fresh {
                for room in &ROOMS[..rooms] {
                    self.change_room(shard, life, (*room).into(), true);
                }
            }
        } else {
            self.feed(shard, bowline_proto::Input::Command(command));
        }
    }

    /// Looks for others of the same name who are there, or wait to be let in.
    fn note_rivals(&mut self, number: u64, namespace: usize, life: LifeId) {
        let name = &self.devices[self.lines[&number].device].name;
        let mut rivals = Vec::new();
        let mut waits = false;
        for (other, line) in &self.lines {
            let same = &self.devices[line.device].name == name && *other != number;
            match line.answers.lives.get(&namespace) {
                _ if !same || !line.answers.claims.contains_key(&namespace) => {}
                Some((rival, _)) if self.model.is_over(*rival) => {}
                Some((rival, _)) => rivals.push(*rival),
                None => waits |= line.opened && self.is_known(line.shard, line.sid),
            }
        }
        self.model.life_mut(life).rivalled = waits || !rivals.is_empty();
        for rival in rivals {
            self.model.life_mut(rival).rivalled = true;
        }
    }

    /// A client has said something: a handler answers.
    fn on_said(
        &mut self,
        shard: u8,
        socket: SocketRef,
        args: &Args,
        ack: Option<u64>,
        id: Option<&str>,
    ) {
        let life = self.life_of(socket);
        assert!(!self.model.is_over(life), "{life:?} speaks after its end");
        let (_, value): (String, Value) = args.parse().expect("what clients say");
        let token: u64 = value["id"].as_str().and_then(|id| id.parse().ok()).expect("its name");
        let namespace = self.model.life(life).namespace;
        let answers = self.model.told.entry((life, token)).or_default();
        if NAMESPACES[namespace].has_event_ids() {
            assert_eq!(id, Some(token.to_string().as_str()), "the name of what a client says");
            // What was not answered before a restart is handled again after it.
            let again = answers.iter().any(|(process, _)| *process == self.process);
            assert!(!again, "{life:?}: {token} is told twice");
        } else {
            assert_eq!(id, None);
        }
        let serial = self.counts.told;
        answers.push((self.process, serial));
        if let Some(id) = ack {
            let args = Args::from_values(&[json!(token), json!(serial)]);
            let socket = self.model.life(life).socket;
            let command = Command::Ack { socket: socket.key, id, args };
            if self.rng.one_in(6) {
                let delay = Duration::from_millis(self.rng.word() % 1_500);
                let (process, command) = (self.process, Box::new(command));
                let routed = Routed { process, from: shard, socket, command };
                self.post(delay, Parcel::Route(routed));
            } else {
                self.route(shard, socket, command, Ticket::None);
            }
        }
    }

    /// Puts a socket into a room, or takes it out.
    pub(super) fn change_room(&mut self, from: u8, life: LifeId, room: ByteString, inside: bool) {
        let socket = self.model.life(life).socket;
        self.model.moving(life, &room);
        let command = match inside {
            true => Command::Join { socket: socket.key, room: room.clone() },
            false => Command::Leave { socket: socket.key, room: room.clone() },
        };
        self.route(from, socket, command, Ticket::Room { life, room, inside });
    }
}
