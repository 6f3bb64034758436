//! The Engine.IO half of a client: transports, upgrade, heartbeat.

use std::{collections::VecDeque, mem, sync::Arc, time::Duration};

use bytes::Bytes;
use bytestring::ByteString;
use serde::Deserialize;

use super::{
    CloseReason, Config, HttpRequest, Output, RequestId, Response, Timer, Transports,
    phase::{Phase, Step},
};
use crate::{
    Time,
    engineio::{Packet, PacketKind, Version, payload},
    wall::Lost,
    websocket::Message,
};

/// What the layer above hears.
#[derive(Debug)]
pub(super) enum Happened {
    Opened,
    Upgraded,
    UpgradeFailed(&'static str),
    Message(Message),
    Closed(CloseReason, String),
}

/// One Engine.IO session, from the client's end.
#[derive(Debug)]
pub(super) struct Engine {
    config: Arc<Config>,
    phase: Phase,
    handshake: Option<Handshake>,
    heartbeat: Heartbeat,
    /// When the phase is given up: opening, an upgrade, closing.
    phase_until: Option<Time>,
    get: Option<RequestId>,
    post: Option<(RequestId, Time)>,
    next_request: u64,
    /// What no POST has taken yet. Empty on a WebSocket.
    queue: VecDeque<Packet>,
    queued_bytes: usize,
    outputs: VecDeque<Output>,
    happened: VecDeque<Happened>,
}

/// What the server said when it opened the session.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handshake {
    /// The Engine.IO sid: a secret that stands for the session.
    pub sid: String,
    /// The transports that can be upgraded to.
    #[serde(default)]
    pub upgrades: Vec<String>,
    #[serde(rename = "pingInterval")]
    ping_interval_ms: u64,
    #[serde(rename = "pingTimeout")]
    ping_timeout_ms: u64,
    #[serde(rename = "maxPayload")]
    max_payload_bytes: Option<usize>,
}

impl Handshake {
    /// How often a ping is due.
    pub fn ping_interval(&self) -> Duration {
        Duration::from_millis(self.ping_interval_ms)
    }

    /// How long an answer to a ping may take.
    pub fn ping_timeout(&self) -> Duration {
        Duration::from_millis(self.ping_timeout_ms)
    }

    /// The most bytes a message or a polling body may have, if the server said so (EIO 4).
    pub fn max_payload_bytes(&self) -> Option<usize> {
        self.max_payload_bytes
    }
}

/// Who owes whom a sign of life, and until when. A change of transport does not touch it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heartbeat {
    /// The session is not open.
    Off,
    /// EIO 4: the server owes a ping until this time.
    AwaitingPing(Time),
    /// EIO 3: a ping is sent at this time.
    Resting(Time),
    /// EIO 3: the server owes a pong until this time.
    AwaitingPong(Time),
}

impl Engine {
    pub(super) fn new(config: Arc<Config>) -> Self {
        Self {
            config,
            phase: Phase::New,
            handshake: None,
            heartbeat: Heartbeat::Off,
            phase_until: None,
            get: None,
            post: None,
            next_request: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            outputs: VecDeque::new(),
            happened: VecDeque::new(),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn handshake(&self) -> Option<&Handshake> {
        self.handshake.as_ref()
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(super) fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    pub(super) fn next_happened(&mut self) -> Option<Happened> {
        self.happened.pop_front()
    }

    pub(super) fn open(&mut self, now: Time) {
        if self.phase != Phase::New {
            return;
        }
        self.phase_until = Some(now + self.config.open_timeout);
        match self.config.transports {
            Transports::Polling | Transports::Upgrade => {
                self.step(Step::Poll);
                self.send_get();
            }
            Transports::WebSocket => {
                self.step(Step::Dial);
                let target = self.config.target("websocket", None);
                self.outputs.push_back(Output::OpenWebSocket { target });
            }
        }
    }

    /// Sends a packet, now or with the next POST. Dropped if the session is closing or closed.
    pub(super) fn send(&mut self, packet: Packet) {
        match self.phase {
            Phase::WebSocket => self.outputs.push_back(Output::Send(packet)),
            Phase::Closing | Phase::Closed => {}
            Phase::New
            | Phase::OpeningPolling
            | Phase::OpeningWebSocket
            | Phase::Polling
            | Phase::Probing
            | Phase::Pausing => {
                self.queued_bytes += packet.data.len();
                self.queue.push_back(packet);
            }
        }
    }

    /// Closes in order: what was sent before is still delivered.
    pub(super) fn close(&mut self, now: Time) {
        let before = self.phase;
        match before.after(Step::Close) {
            Some(Phase::Closing) => {
                if matches!(before, Phase::Probing | Phase::Pausing) {
                    self.outputs.push_back(Output::CloseWebSocket);
                }
                self.send(Packet::bare(PacketKind::Close));
                self.step(Step::Close);
                self.phase_until = Some(now + self.config.post_timeout);
            }
            Some(_) => {
                if matches!(before, Phase::OpeningWebSocket | Phase::WebSocket) {
                    self.outputs.push_back(Output::CloseWebSocket);
                }
                self.step(Step::Close);
                self.closed(CloseReason::Requested, String::new());
            }
            None => {}
        }
    }

    /// Ends the session at once, telling the server no more than that a WebSocket closes.
    pub(super) fn end(&mut self, mut reason: CloseReason, detail: impl Into<String>) {
        let before = self.phase;
        if !self.step(Step::End) {
            return;
        }
        match before {
            Phase::OpeningWebSocket | Phase::Probing | Phase::Pausing | Phase::WebSocket => {
                self.outputs.push_back(Output::CloseWebSocket);
            }
            // It was this end's wish already, however it came about.
            Phase::Closing => reason = CloseReason::Requested,
            Phase::New | Phase::OpeningPolling | Phase::Polling | Phase::Closed => {}
        }
        self.closed(reason, detail.into());
    }

    fn closed(&mut self, reason: CloseReason, detail: String) {
        self.heartbeat = Heartbeat::Off;
        self.phase_until = None;
        (self.get, self.post) = (None, None);
        self.queue = VecDeque::new();
        self.queued_bytes = 0;
        self.happened.push_back(Happened::Closed(reason, detail));
    }

    pub(super) fn handle_response(&mut self, now: Time, id: RequestId, response: Response) {
        let is_get = self.get == Some(id);
        if is_get {
            self.get = None;
        } else if self.post.is_some_and(|(post, _)| post == id) {
            self.post = None;
        } else {
            return;
        }
        match response {
            Response::Answered { status: 200, body, binary } => {
                if is_get {
                    self.on_polled(now, body, binary);
                }
            }
            Response::Answered { status, body, .. } => {
                let reason = match self.phase {
                    Phase::OpeningPolling => CloseReason::Refused { status },
                    Phase::New
                    | Phase::OpeningWebSocket
                    | Phase::Polling
                    | Phase::Probing
                    | Phase::Pausing
                    | Phase::WebSocket
                    | Phase::Closing
                    | Phase::Closed => CloseReason::TransportError,
                };
                self.end(reason, format!("status {status}: {}", excerpt(&body)));
            }
            Response::Failed { detail } => self.end(CloseReason::TransportError, detail),
        }
    }

    fn on_polled(&mut self, now: Time, body: Bytes, binary: bool) {
        let packets_max = self.config.limits.packets_per_payload;
        match payload::decode(self.config.version, body, binary, packets_max) {
            Ok(packets) => {
                for packet in packets {
                    self.on_packet(now, packet);
                }
            }
            Err(error) => self.end_unreadable("polling body", &error),
        }
    }

    pub(super) fn handle_websocket_opened(&mut self) {
        if self.phase == Phase::Probing {
            self.outputs.push_back(Output::Send(Packet::text(PacketKind::Ping, PROBE)));
        }
    }

    pub(super) fn handle_message(&mut self, now: Time, message: Message) {
        match self.phase {
            Phase::OpeningWebSocket | Phase::WebSocket => {
                match Packet::from_frame(self.config.version, message) {
                    Ok(packet) => self.on_packet(now, packet),
                    Err(error) => self.end_unreadable("packet", &error),
                }
            }
            Phase::Probing => {
                let probed = Ok(Packet::text(PacketKind::Pong, PROBE));
                if Packet::from_frame(self.config.version, message) == probed {
                    self.step(Step::Pause);
                } else {
                    self.fail_upgrade("the server answered the probe with another packet");
                }
            }
            Phase::Pausing => self.fail_upgrade("the server spoke before the upgrade"),
            // Late words of a WebSocket that was given up.
            Phase::New
            | Phase::OpeningPolling
            | Phase::Polling
            | Phase::Closing
            | Phase::Closed => {}
        }
    }

    pub(super) fn handle_websocket_lost(&mut self, why: Lost, detail: String) {
        match self.phase {
            Phase::Probing | Phase::Pausing => self.fail_upgrade("the WebSocket failed"),
            Phase::OpeningWebSocket | Phase::WebSocket => {
                let reason = match why {
                    Lost::Closed => CloseReason::TransportClose,
                    Lost::Failed => CloseReason::TransportError,
                    Lost::Protocol | Lost::TooBig => CloseReason::ParseError,
                };
                self.end(reason, detail);
            }
            Phase::New
            | Phase::OpeningPolling
            | Phase::Polling
            | Phase::Closing
            | Phase::Closed => {}
        }
    }

    fn fail_upgrade(&mut self, why: &'static str) {
        if self.step(Step::ProbeFailed) {
            self.phase_until = None;
            self.outputs.push_back(Output::CloseWebSocket);
            self.happened.push_back(Happened::UpgradeFailed(why));
        }
    }

    fn on_packet(&mut self, now: Time, packet: Packet) {
        match (self.phase, packet.kind) {
            // What was on its way when this end said goodbye.
            (Phase::Closing | Phase::Closed, _) => {}
            (Phase::OpeningPolling | Phase::OpeningWebSocket, PacketKind::Open) => {
                self.on_open_packet(now, &packet.data);
            }
            (Phase::New | Phase::OpeningPolling | Phase::OpeningWebSocket, _)
            | (_, PacketKind::Open) => {
                self.end(CloseReason::ParseError, "the server opened the session in a wrong way");
            }
            (_, PacketKind::Message) => self.happened.push_back(Happened::Message(packet.data)),
            (_, PacketKind::Ping) if self.config.version == Version::V4 => {
                if let Some(handshake) = &self.handshake {
                    let until = now + handshake.ping_interval() + handshake.ping_timeout();
                    self.heartbeat = Heartbeat::AwaitingPing(until);
                }
                self.send(Packet { kind: PacketKind::Pong, data: packet.data });
            }
            (_, PacketKind::Pong) if self.config.version == Version::V3 => {
                if let Some(handshake) = &self.handshake {
                    self.heartbeat = Heartbeat::Resting(now + handshake.ping_interval());
                }
            }
            (_, PacketKind::Close) => {
                self.end(CloseReason::TransportClose, "the server closed the session");
            }
            (_, PacketKind::Noop) => {}
            (_, PacketKind::Ping | PacketKind::Pong | PacketKind::Upgrade) => {
                self.end(CloseReason::ParseError, "the server sent what only a client may");
            }
        }
    }

    fn on_open_packet(&mut self, now: Time, data: &Message) {
        let handshake = match serde_json::from_slice::<Handshake>(data.as_bytes()) {
            Ok(handshake) => handshake,
            Err(error) => {
                self.end(
                    CloseReason::ParseError,
                    format!("the server sent an open packet that cannot be read: {error}"),
                );
                return;
            }
        };
        self.heartbeat = match self.config.version {
            Version::V4 => {
                Heartbeat::AwaitingPing(now + handshake.ping_interval() + handshake.ping_timeout())
            }
            Version::V3 => Heartbeat::Resting(now + handshake.ping_interval()),
        };
        self.phase_until = None;
        self.step(Step::Open);
        let offered = handshake.upgrades.iter().any(|name| name == "websocket");
        if self.phase == Phase::Polling && offered && self.config.transports == Transports::Upgrade
        {
            let target = self.config.target("websocket", Some(&handshake.sid));
            self.outputs.push_back(Output::OpenWebSocket { target });
            self.step(Step::Probe);
            self.phase_until = Some(now + self.config.upgrade_timeout);
        }
        self.handshake = Some(handshake);
        self.happened.push_back(Happened::Opened);
        self.send_queue_on_websocket();
    }

    /// Begins whatever the phase calls for: the next GET, a POST of what is queued, the switch to
    /// the WebSocket, the end.
    pub(super) fn pump(&mut self, now: Time) {
        match self.phase {
            Phase::Polling | Phase::Probing => {
                if self.get.is_none() {
                    self.send_get();
                }
                if self.post.is_none() && !self.queue.is_empty() {
                    self.send_post(now);
                }
            }
            Phase::Pausing => {
                if self.get.is_none() && self.post.is_none() {
                    self.outputs.push_back(Output::Send(Packet::bare(PacketKind::Upgrade)));
                    self.step(Step::Upgrade);
                    self.phase_until = None;
                    self.send_queue_on_websocket();
                    self.happened.push_back(Happened::Upgraded);
                }
            }
            Phase::Closing => {
                if self.post.is_none() {
                    if self.queue.is_empty() {
                        self.end(CloseReason::Requested, String::new());
                    } else {
                        self.send_post(now);
                    }
                }
            }
            Phase::New
            | Phase::OpeningPolling
            | Phase::OpeningWebSocket
            | Phase::WebSocket
            | Phase::Closed => {}
        }
    }

    fn send_queue_on_websocket(&mut self) {
        if self.phase == Phase::WebSocket {
            self.queued_bytes = 0;
            self.outputs.extend(mem::take(&mut self.queue).into_iter().map(Output::Send));
        }
    }

    fn send_get(&mut self) {
        let id = self.next_request_id();
        self.get = Some(id);
        let target = self.polling_target();
        self.outputs.push_back(Output::Request(HttpRequest { id, target, body: None }));
    }

    fn send_post(&mut self, now: Time) {
        let count = self.count_for_post();
        let body =
            payload::encode(self.config.version, &self.config.style, self.queue.iter().take(count));
        for packet in self.queue.drain(..count) {
            self.queued_bytes = self.queued_bytes.saturating_sub(packet.data.len());
        }
        let id = self.next_request_id();
        self.post = Some((id, now + self.config.post_timeout));
        let target = self.polling_target();
        self.outputs.push_back(Output::Request(HttpRequest { id, target, body: Some(body) }));
    }

    /// How many of the queued packets one POST may carry; at least one, which the server refuses
    /// if it is too large by itself.
    fn count_for_post(&self) -> usize {
        let limits = &self.config.limits;
        let server_max = self.handshake.as_ref().and_then(Handshake::max_payload_bytes);
        let mut room = server_max.unwrap_or(usize::MAX).min(limits.max_payload_bytes);
        let mut count = 0;
        for packet in self.queue.iter().take(limits.packets_per_payload) {
            // At most: base64 takes 4 bytes for 3.
            let len = PACKET_OVERHEAD_BYTES
                + match &packet.data {
                    Message::Text(text) => text.len(),
                    Message::Binary(bytes) => bytes.len().div_ceil(3) * 4,
                };
            if len > room {
                break;
            }
            room -= len;
            count += 1;
        }
        count.max(1)
    }

    fn polling_target(&self) -> String {
        let sid = self.handshake.as_ref().map(|handshake| handshake.sid.as_str());
        self.config.target("polling", sid)
    }

    fn next_request_id(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    pub(super) fn deadlines(&self) -> impl Iterator<Item = (Time, Timer)> {
        let phase = self.phase_until.map(|at| {
            let timer = match self.phase {
                Phase::Probing | Phase::Pausing => Timer::Upgrade,
                Phase::Closing => Timer::Close,
                Phase::New
                | Phase::OpeningPolling
                | Phase::OpeningWebSocket
                | Phase::Polling
                | Phase::WebSocket
                | Phase::Closed => Timer::Open,
            };
            (at, timer)
        });
        let heartbeat = match self.heartbeat {
            Heartbeat::Off => None,
            Heartbeat::AwaitingPing(at) => Some((at, Timer::ServerPing)),
            Heartbeat::Resting(at) => Some((at, Timer::Ping)),
            Heartbeat::AwaitingPong(at) => Some((at, Timer::Pong)),
        };
        let post = self.post.map(|(_, at)| (at, Timer::Post));
        [phase, heartbeat, post].into_iter().flatten()
    }

    pub(super) fn handle_timeout(&mut self, now: Time) {
        while let Some((_, timer)) = self.deadlines().filter(|(at, _)| *at <= now).min() {
            match timer {
                Timer::Open => {
                    self.end(CloseReason::OpenTimeout, "the server did not open the session")
                }
                Timer::Upgrade => self.fail_upgrade("the upgrade took too long"),
                Timer::Close => self.end(CloseReason::Requested, "the last POST took too long"),
                Timer::Post => self.end(CloseReason::TransportError, "a POST took too long"),
                Timer::ServerPing => self.end(CloseReason::PingTimeout, "no ping came in time"),
                Timer::Pong => self.end(CloseReason::PingTimeout, "no pong came in time"),
                Timer::Ping => {
                    let Some(handshake) = &self.handshake else { return };
                    self.heartbeat = Heartbeat::AwaitingPong(now + handshake.ping_timeout());
                    self.send(Packet::bare(PacketKind::Ping));
                }
                Timer::Join | Timer::Ack => return,
            }
        }
    }

    fn end_unreadable(&mut self, what: &str, error: &dyn std::fmt::Debug) {
        self.end(CloseReason::ParseError, format!("the server sent no valid {what}: {error:?}"));
    }

    fn step(&mut self, step: Step) -> bool {
        match self.phase.after(step) {
            Some(next) => {
                self.phase = next;
                true
            }
            None => false,
        }
    }
}

/// The data of the ping and pong that try a WebSocket.
const PROBE: ByteString = ByteString::from_static("probe");

/// The most that a packet adds to its data in a polling body: `0x00`, ten digits of a length,
/// `0xff` or a colon, `b`, and a type.
const PACKET_OVERHEAD_BYTES: usize = 14;

/// The beginning of what a server answered, for a log.
fn excerpt(body: &[u8]) -> String {
    const EXCERPT_MAX_BYTES: usize = 200;
    String::from_utf8_lossy(&body[..body.len().min(EXCERPT_MAX_BYTES)]).into_owned()
}
