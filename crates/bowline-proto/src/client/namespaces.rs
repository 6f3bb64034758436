//! The Socket.IO half of a client: namespaces, events, acks.

use std::collections::{BTreeMap, BTreeSet};

use bytestring::ByteString;
use serde::Deserialize;

use super::{Client, CloseReason, Event, JoinError, Phase, Timer, Unsent};
use crate::{
    Time,
    engineio::{self, Version},
    socketio::{self, Args, Packet},
    wall::{AckError, AckRequest},
    websocket::Message,
};

/// The namespaces of one session.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    members: BTreeMap<ByteString, Member>,
    /// Of CONNECT packets (`None`) and acks, by the time they are due.
    deadlines: BTreeSet<(Time, ByteString, Option<u64>)>,
    decoder: socketio::Decoder,
    held_bytes: usize,
    pending_acks: usize,
}

/// This client's place in one namespace.
#[derive(Debug)]
struct Member {
    state: State,
    next_ack: u64,
    acks: BTreeMap<u64, PendingAck>,
    /// What was emitted before the namespace was joined.
    held: Vec<Held>,
}

#[derive(Debug)]
enum State {
    /// The session is not open.
    Waiting { auth: Option<ByteString> },
    /// CONNECT was sent; to the root of an EIO 3 server it is not.
    Joining { until: Time },
    /// The server answered.
    Joined,
}

#[derive(Debug)]
struct PendingAck {
    token: u64,
    until: Time,
}

#[derive(Debug)]
struct Held {
    ack: Option<u64>,
    packets: Vec<engineio::Packet>,
    bytes: usize,
}

impl Namespaces {
    pub(super) fn deadline(&self) -> Option<(Time, Timer)> {
        let (at, _, ack) = self.deadlines.first()?;
        Some((*at, if ack.is_some() { Timer::Ack } else { Timer::Join }))
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Takes a member out and returns the tokens of the acks it awaited.
    fn remove(&mut self, namespace: &ByteString) -> Option<Vec<u64>> {
        let member = self.members.remove(namespace)?;
        if let State::Joining { until } = member.state {
            self.deadlines.remove(&(until, namespace.clone(), None));
        }
        for (id, ack) in &member.acks {
            self.deadlines.remove(&(ack.until, namespace.clone(), Some(*id)));
        }
        self.pending_acks -= member.acks.len();
        self.held_bytes -= member.held.iter().map(|held| held.bytes).sum::<usize>();
        Some(member.acks.into_values().map(|ack| ack.token).collect())
    }

    fn take_ack(&mut self, namespace: &ByteString, id: u64) -> Option<PendingAck> {
        let ack = self.members.get_mut(namespace)?.acks.remove(&id)?;
        self.deadlines.remove(&(ack.until, namespace.clone(), Some(id)));
        self.pending_acks -= 1;
        Some(ack)
    }
}

impl Client {
    /// Whether the server has let this client into a namespace.
    pub fn is_joined(&self, namespace: &str) -> bool {
        let member = self.namespaces.members.get(namespace);
        member.is_some_and(|member| matches!(member.state, State::Joined))
    }

    pub(super) fn join(&mut self, now: Time, namespace: ByteString, auth: Option<ByteString>) {
        if self.namespaces.members.contains_key(&namespace) || self.phase() == Phase::Closed {
            return;
        }
        if self.namespaces.members.len() >= self.config.limits.namespaces_per_session {
            self.events.push_back(Event::JoinFailed { namespace, error: JoinError::TooMany });
            return;
        }
        self.namespaces.members.insert(
            namespace.clone(),
            Member {
                state: State::Waiting { auth },
                next_ack: self.config.acks_from,
                acks: BTreeMap::new(),
                held: Vec::new(),
            },
        );
        if self.handshake().is_some() {
            self.connect(now, &namespace);
        }
    }

    /// Sends the CONNECT packets that waited for the session to open.
    pub(super) fn connect_all(&mut self, now: Time) {
        let names = self.namespaces.members.keys().cloned().collect::<Vec<_>>();
        for namespace in names {
            self.connect(now, &namespace);
        }
    }

    fn connect(&mut self, now: Time, namespace: &ByteString) {
        let Some(member) = self.namespaces.members.get_mut(namespace) else { return };
        let State::Waiting { auth } = &mut member.state else { return };
        let auth = auth.take();
        let until = now + self.config.join_timeout;
        member.state = State::Joining { until };
        self.namespaces.deadlines.insert((until, namespace.clone(), None));

        let packet = match (self.config.version, auth) {
            (Version::V4, auth) => Packet::Connect { namespace: namespace.clone(), auth },
            // The server connects its clients to the root by itself.
            (Version::V3, _) if namespace == ROOT => return,
            (Version::V3, None) => Packet::Connect { namespace: namespace.clone(), auth: None },
            (Version::V3, Some(query)) => {
                Packet::Connect { namespace: format!("{namespace}?{query}").into(), auth: None }
            }
        };
        self.send_packet(&packet);
    }

    pub(super) fn leave(&mut self, namespace: &ByteString) {
        let joined = self.is_joined(namespace);
        let Some(tokens) = self.namespaces.remove(namespace) else { return };
        // A server closes the session of a client that leaves where it has not been let in.
        if joined {
            self.send_packet(&Packet::Disconnect { namespace: namespace.clone() });
        }
        self.fail_acks(namespace, tokens);
    }

    pub(super) fn leave_all(&mut self) {
        while let Some(namespace) = self.namespaces.members.keys().next().cloned() {
            self.leave(&namespace);
        }
    }

    /// The session is over.
    pub(super) fn forget_all(&mut self) {
        while let Some(namespace) = self.namespaces.members.keys().next().cloned() {
            if let Some(tokens) = self.namespaces.remove(&namespace) {
                self.fail_acks(&namespace, tokens);
            }
        }
        self.namespaces.decoder = socketio::Decoder::default();
    }

    fn fail_acks(&mut self, namespace: &ByteString, tokens: Vec<u64>) {
        self.events.extend(tokens.into_iter().map(|token| Event::Ack {
            namespace: namespace.clone(),
            token,
            result: Err(AckError::Disconnected),
        }));
    }

    pub(super) fn emit(
        &mut self,
        now: Time,
        namespace: ByteString,
        args: Args,
        ack: Option<AckRequest>,
    ) {
        let limits = &self.config.limits;
        let full = self.queued_bytes() >= limits.queued_bytes_per_session;
        let acks_full =
            ack.is_some() && self.namespaces.pending_acks >= limits.pending_acks_per_session;
        let Some(member) = self.namespaces.members.get_mut(&namespace) else {
            self.refuse(namespace, args, ack, Unsent::NotJoined);
            return;
        };
        if full || acks_full {
            self.refuse(namespace, args, ack, Unsent::QueueFull);
            return;
        }

        let id = ack.map(|ack| {
            let id = member.next_ack;
            member.next_ack += 1;
            let until = now + ack.timeout;
            member.acks.insert(id, PendingAck { token: ack.token, until });
            self.namespaces.deadlines.insert((until, namespace.clone(), Some(id)));
            self.namespaces.pending_acks += 1;
            id
        });
        let joined = matches!(member.state, State::Joined);
        let packet = Packet::Event { namespace, ack: id, args };
        if joined {
            self.send_packet(&packet);
        } else {
            let packets = packets(self.config.version, &packet).collect::<Vec<_>>();
            let bytes = packets.iter().map(|packet| packet.data.len()).sum();
            self.namespaces.held_bytes += bytes;
            member.held.push(Held { ack: id, packets, bytes });
        }
    }

    fn refuse(&mut self, namespace: ByteString, args: Args, ack: Option<AckRequest>, why: Unsent) {
        self.events.push_back(match (ack, why) {
            (None, why) => Event::Unsent { namespace, args, why },
            (Some(ack), Unsent::NotJoined) => {
                Event::Ack { namespace, token: ack.token, result: Err(AckError::Disconnected) }
            }
            (Some(ack), Unsent::QueueFull) => {
                Event::Ack { namespace, token: ack.token, result: Err(AckError::TooMany) }
            }
        });
    }

    pub(super) fn ack(&mut self, namespace: ByteString, id: u64, args: Args) {
        if self.is_joined(&namespace) {
            self.send_packet(&Packet::Ack { namespace, id, args });
        }
    }

    fn send_packet(&mut self, packet: &Packet) {
        for packet in packets(self.config.version, packet) {
            self.engine.send(packet);
        }
    }

    pub(super) fn on_message(&mut self, message: Message) {
        let decoder = &mut self.namespaces.decoder;
        let decoded = match message {
            Message::Text(text) => {
                decoder.decode_text(self.config.version, &self.config.limits, text)
            }
            Message::Binary(bytes) => decoder.decode_binary(bytes),
        };
        match decoded {
            Ok(Some(packet)) => self.on_packet(packet),
            Ok(None) => {}
            Err(error) => {
                let detail = format!("the server sent no valid Socket.IO packet: {error:?}");
                self.engine.end(CloseReason::ParseError, detail);
            }
        }
    }

    fn on_packet(&mut self, packet: Packet) {
        match packet {
            Packet::Connect { namespace, auth } => self.on_connect(namespace, auth.as_deref()),
            Packet::ConnectError { namespace, data } => {
                self.on_join_failed(namespace, JoinError::Refused(data));
            }
            Packet::Disconnect { namespace } => {
                if let Some(tokens) = self.namespaces.remove(&namespace) {
                    self.fail_acks(&namespace, tokens);
                    self.events.push_back(Event::Left { namespace });
                }
            }
            Packet::Event { namespace, ack, args } => {
                // What was on its way when this end left.
                if self.namespaces.members.contains_key(&namespace) {
                    self.events.push_back(Event::Event { namespace, args, ack });
                }
            }
            Packet::Ack { namespace, id, args } => {
                if let Some(ack) = self.namespaces.take_ack(&namespace, id) {
                    self.events.push_back(Event::Ack {
                        namespace,
                        token: ack.token,
                        result: Ok(args),
                    });
                }
            }
        }
    }

    fn on_connect(&mut self, namespace: ByteString, payload: Option<&str>) {
        let Some((sid, pid)) = self.ids_of(&namespace, payload) else {
            let detail = "the server sent a CONNECT packet without a sid, as EIO 3 servers do";
            self.engine.end(CloseReason::ParseError, detail);
            return;
        };
        let Some(member) = self.namespaces.members.get_mut(&namespace) else {
            match self.config.version {
                Version::V3 if namespace == ROOT => {
                    self.namespaces.members.insert(
                        namespace.clone(),
                        Member {
                            state: State::Joined,
                            next_ack: self.config.acks_from,
                            acks: BTreeMap::new(),
                            held: Vec::new(),
                        },
                    );
                    self.events.push_back(Event::Joined { namespace, sid, pid });
                }
                // The answer came after its time, and the server believes this client is there.
                Version::V3 | Version::V4 => self.send_packet(&Packet::Disconnect { namespace }),
            }
            return;
        };
        let State::Joining { until } = member.state else { return };
        member.state = State::Joined;
        let held = std::mem::take(&mut member.held);
        self.namespaces.deadlines.remove(&(until, namespace.clone(), None));
        self.events.push_back(Event::Joined { namespace, sid, pid });
        for held in held {
            self.namespaces.held_bytes -= held.bytes;
            for packet in held.packets {
                self.engine.send(packet);
            }
        }
    }

    /// The Socket.IO sid, and the pid if there is one, of a CONNECT packet.
    fn ids_of(
        &self,
        namespace: &str,
        payload: Option<&str>,
    ) -> Option<(ByteString, Option<ByteString>)> {
        #[derive(Deserialize)]
        struct Ids {
            sid: String,
            pid: Option<String>,
        }

        match self.config.version {
            Version::V4 => {
                let ids = serde_json::from_str::<Ids>(payload?).ok()?;
                Some((ids.sid.into(), ids.pid.map(Into::into)))
            }
            Version::V3 => {
                let engine = &self.handshake()?.sid;
                let sid = if namespace == ROOT {
                    engine.clone()
                } else {
                    format!("{namespace}#{engine}")
                };
                Some((sid.into(), None))
            }
        }
    }

    fn on_join_failed(&mut self, namespace: ByteString, error: JoinError) {
        if let Some(tokens) = self.namespaces.remove(&namespace) {
            self.fail_acks(&namespace, tokens);
            self.events.push_back(Event::JoinFailed { namespace, error });
        }
    }

    /// Gives up what is overdue.
    pub(super) fn expire(&mut self, now: Time) {
        while let Some((at, ..)) = self.namespaces.deadlines.first()
            && *at <= now
        {
            let Some((_, namespace, ack)) = self.namespaces.deadlines.pop_first() else { return };
            match ack {
                None => self.on_join_failed(namespace, JoinError::TimedOut),
                Some(id) => {
                    let Some(ack) = self.namespaces.take_ack(&namespace, id) else { continue };
                    self.forget_held(&namespace, id);
                    self.events.push_back(Event::Ack {
                        namespace,
                        token: ack.token,
                        result: Err(AckError::TimedOut),
                    });
                }
            }
        }
    }

    /// Does not send an event whose ack has timed out, if it is not sent yet.
    fn forget_held(&mut self, namespace: &ByteString, id: u64) {
        let Some(member) = self.namespaces.members.get_mut(namespace) else { return };
        let held_bytes = &mut self.namespaces.held_bytes;
        member.held.retain(|held| {
            let keep = held.ack != Some(id);
            if !keep {
                *held_bytes -= held.bytes;
            }
            keep
        });
    }
}

/// The name of the root namespace.
const ROOT: &str = "/";

/// The Engine.IO packets that carry a Socket.IO packet.
fn packets(version: Version, packet: &Packet) -> impl Iterator<Item = engineio::Packet> + use<> {
    let encoded = socketio::encode(version, packet);
    let text = Message::Text(encoded.text);
    let attachments = encoded.attachments.into_iter().map(Message::Binary);
    std::iter::once(text).chain(attachments).map(engineio::Packet::message)
}
