//! What sessions say, encoded before anything is measured.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{
    polling::SEPARATOR,
    websocket::{MASK, masked, opcode, push_masked},
};
use crate::{
    limit,
    plan::{Plan, Wire, Workload},
};

/// The name of the event that sessions send.
const EVENT: &str = "message";

/// The bytes of the auth object of each session.
const AUTH_BYTES: usize = 100;

/// Ids of acks have as many digits each, so that they can be written over those of the last event.
const ACK_DIGITS: usize = 6;
const ACK_IDS: u32 = 1_000_000;

/// Events that are encoded together take no more than this, unless a burst is longer.
const EVENTS_BYTES: usize = 1 << 20;

/// All that is said during a measurement.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) wire: Wire,
    /// Whether an ack is what is awaited.
    pub(crate) ack: bool,
    /// How the body of an event begins that comes back.
    pub(crate) expected: Vec<u8>,
    pub(crate) pong: Vec<u8>,
    /// What asks whether a new WebSocket works, and what ends the polling.
    pub(crate) probe: Vec<u8>,
    pub(crate) upgrade: Vec<u8>,
    events: Events,
    /// What stands before the JSON of a packet.
    namespace: String,
    rooms: Option<usize>,
}

/// One event, many times over.
#[derive(Debug)]
struct Events {
    bytes: Vec<u8>,
    /// How long each is.
    each: usize,
    copies: usize,
    ack: Option<AckDigits>,
}

/// Where the digits of the ack id stand in an event.
#[derive(Debug)]
struct AckDigits {
    at: usize,
    /// What masks them there.
    mask: [u8; ACK_DIGITS],
}

impl Script {
    pub(crate) fn new(plan: &Plan) -> Self {
        let namespace = match &*plan.namespace {
            "/" => String::new(),
            other => format!("{other},"),
        };
        Self {
            wire: plan.wire,
            ack: plan.ack,
            expected: format!("{namespace}[\"{EVENT}\"").into_bytes(),
            pong: masked(opcode::TEXT, b"3"),
            probe: masked(opcode::TEXT, b"2probe"),
            upgrade: masked(opcode::TEXT, b"5"),
            events: Events::new(plan, &namespace),
            namespace,
            rooms: (plan.workload == Workload::Rooms).then_some(plan.groups),
        }
    }

    /// How many bytes one event is.
    pub(crate) fn event_bytes(&self) -> usize {
        self.events.each
    }

    /// How many events one write can carry.
    pub(crate) fn copies(&self) -> usize {
        self.events.copies
    }

    /// So many events, each with the next ack id. Those of polling are separated.
    pub(crate) fn events(&mut self, count: usize, next_ack: &mut u32) -> &[u8] {
        let Events { bytes, each, ack, .. } = &mut self.events;
        if let Some(digits) = ack {
            for event in bytes.chunks_exact_mut(*each).take(count) {
                digits.write(event, *next_ack);
                *next_ack = (*next_ack + 1) % ACK_IDS;
            }
        }
        let separator = usize::from(self.wire == Wire::Polling);
        &bytes[..(*each * count).saturating_sub(separator)]
    }

    /// The CONNECT packet of a session, as text.
    pub(crate) fn connect(&self, session: usize) -> String {
        let room = self.rooms.map(|rooms| format!(",\"room\":\"r{}\"", session % rooms));
        let room = room.unwrap_or_default();
        let token = "t".repeat(AUTH_BYTES - "{\"token\":\"\"}".len() - room.len());
        format!("40{}{{\"token\":\"{token}\"{room}}}", self.namespace)
    }
}

impl Events {
    fn new(plan: &Plan, namespace: &str) -> Self {
        let id = if plan.ack { "0".repeat(ACK_DIGITS) } else { String::new() };
        let (text, attachment) = if plan.binary {
            let placeholder = "{\"_placeholder\":true,\"num\":0}";
            let text = format!("451-{namespace}{id}[\"{EVENT}\",{placeholder}]");
            (text, Some(vec![0xb5; plan.bytes]))
        } else {
            (format!("42{namespace}{id}[\"{EVENT}\",\"{}\"]", "x".repeat(plan.bytes)), None)
        };
        let id_at = text.find('[').unwrap_or_default() - id.len();
        let mut event = Vec::new();
        let (begin, mask) = if plan.wire == Wire::Polling {
            event.extend(text.as_bytes());
            event.push(SEPARATOR);
            if let Some(attachment) = attachment {
                event.push(b'b');
                event.extend(BASE64_STANDARD.encode(attachment).as_bytes());
                event.push(SEPARATOR);
            }
            (0, [0; MASK.len()])
        } else {
            let begin = push_masked(&mut event, opcode::TEXT, text.as_bytes());
            if let Some(attachment) = attachment {
                push_masked(&mut event, opcode::BINARY, &attachment);
            }
            (begin, MASK)
        };
        let ack = plan.ack.then(|| AckDigits {
            at: begin + id_at,
            mask: std::array::from_fn(|digit| mask[(id_at + digit) % mask.len()]),
        });
        let fitting = (EVENTS_BYTES / event.len()).clamp(1, limit::EVENTS_PER_WRITE);
        let copies = fitting.max(plan.burst);
        Self { each: event.len(), bytes: event.repeat(copies), copies, ack }
    }
}

impl AckDigits {
    fn write(&self, event: &mut [u8], mut id: u32) {
        let place = &mut event[self.at..self.at + ACK_DIGITS];
        for (digit, mask) in place.iter_mut().zip(self.mask).rev() {
            *digit = (b'0' + (id % 10).to_le_bytes()[0]) ^ mask;
            id /= 10;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Wishes;

    fn script(workload: Workload, wishes: Wishes) -> Script {
        Script::new(&Plan::new(workload, &wishes).unwrap())
    }

    /// The payloads of frames that a client sent.
    fn payloads(mut frames: &[u8]) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        while !frames.is_empty() {
            let short = usize::from(frames[1] & 0x7f);
            assert!(short < 126, "longer than these tests need");
            let (head, rest) = frames.split_at(6);
            let mask = head[2..].iter().cycle();
            payloads.push(rest[..short].iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect());
            frames = &rest[short..];
        }
        payloads
    }

    #[test]
    fn each_event_has_the_next_ack_id() {
        let wishes = Wishes { ack: true, bytes: Some(3), ..Wishes::default() };
        let mut next = 999_998;
        let frames = script(Workload::Echo, wishes.clone()).events(3, &mut next).to_vec();
        let texts = ["999998", "999999", "000000"].map(|id| format!("42{id}[\"message\",\"xxx\"]"));
        assert_eq!(payloads(&frames), texts.each_ref().map(|text| text.as_bytes().to_vec()));
        let wishes = Wishes { wire: Some(Wire::Polling), ..wishes };
        let mut next = 999_998;
        let body = script(Workload::Echo, wishes).events(3, &mut next).to_vec();
        assert_eq!(String::from_utf8(body).unwrap(), texts.join("\x1e"));
    }

    #[test]
    fn an_attachment_follows_its_event() {
        let wishes = Wishes { binary: true, bytes: Some(3), ..Wishes::default() };
        let frames = script(Workload::Broadcast, wishes.clone()).events(1, &mut 0).to_vec();
        let [text, attachment] = &payloads(&frames)[..] else { panic!("{frames:?}") };
        let wanted = b"451-/relay,[\"message\",{\"_placeholder\":true,\"num\":0}]";
        assert_eq!((&text[..], &attachment[..]), (&wanted[..], &[0xb5; 3][..]));
        let wishes = Wishes { wire: Some(Wire::Polling), ..wishes };
        let body = script(Workload::Broadcast, wishes).events(1, &mut 0).to_vec();
        assert_eq!(body, [wanted, &b"\x1ebtbW1"[..]].concat());
    }

    #[test]
    fn the_auth_object_is_as_long_in_every_room() {
        for (workload, session) in
            [(Workload::Rooms, 9), (Workload::Rooms, 95), (Workload::Idle, 1)]
        {
            let connect = script(workload, Wishes::default()).connect(session);
            assert_eq!(connect.len() - connect.find('{').unwrap(), AUTH_BYTES, "{connect}");
        }
    }
}
