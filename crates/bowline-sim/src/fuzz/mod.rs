//! One target per decoder, and one for the hub: its inputs, and what must hold for every one of
//! them.

mod ai;
mod driver;
mod engineio;
mod forwarded;
mod hub;
mod mutate;
mod socketio;
mod webex;
mod websocket;

use crate::rng::Rng;

pub use driver::{Failure, Plan, Report, drive};

/// What is under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The WebSocket decoder, both roles, with random splits.
    WsFrames,
    /// permessage-deflate.
    WsDeflate,
    /// The WebSocket handshake, both sides, and the negotiation of permessage-deflate.
    WsHandshake,
    /// Polling bodies of Engine.IO 4.
    Eio4Payload,
    /// Polling bodies of Engine.IO 3: text, binary, JSONP.
    Eio3Payload,
    /// WebSocket messages as Engine.IO packets.
    EioFrame,
    /// The head of a request to the engine path.
    EioRequest,
    /// Sequences of messages as Socket.IO 4 packets.
    Sio4Packet,
    /// Sequences of messages as Socket.IO 5 packets.
    Sio5Packet,
    /// The header `X-Forwarded-For`.
    Forwarded,
    /// Streams of AI providers on their way to clients, both dialects both ways.
    AiStream,
    /// Bodies that AI clients and providers send.
    AiBody,
    /// What Webex says of bots' messages, and what bots acknowledge.
    Webex,
    /// The hub, with inputs in any order.
    Hub,
}

impl Target {
    /// Every target.
    pub const ALL: [Self; 14] = [
        Self::WsFrames,
        Self::WsDeflate,
        Self::WsHandshake,
        Self::Eio4Payload,
        Self::Eio3Payload,
        Self::EioFrame,
        Self::EioRequest,
        Self::Sio4Packet,
        Self::Sio5Packet,
        Self::Forwarded,
        Self::AiStream,
        Self::AiBody,
        Self::Webex,
        Self::Hub,
    ];

    /// Its name on the command line and under `regressions/`.
    pub fn name(self) -> &'static str {
        match self {
            Self::WsFrames => "ws-frames",
            Self::WsDeflate => "ws-deflate",
            Self::WsHandshake => "ws-handshake",
            Self::Eio4Payload => "eio4-payload",
            Self::Eio3Payload => "eio3-payload",
            Self::EioFrame => "eio-frame",
            Self::EioRequest => "eio-request",
            Self::Sio4Packet => "sio4-packet",
            Self::Sio5Packet => "sio5-packet",
            Self::Forwarded => "forwarded",
            Self::AiStream => "ai-stream",
            Self::AiBody => "ai-body",
            Self::Webex => "webex",
            Self::Hub => "hub",
        }
    }

    /// Returns the target with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| target.name() == name)
    }

    /// Feeds `data` to the decoder.
    ///
    /// # Panics
    ///
    /// If an invariant breaks; that is what it is for.
    pub fn run(self, data: &[u8]) {
        match self {
            Self::WsFrames => websocket::frames(data),
            Self::WsDeflate => websocket::deflate(data),
            Self::WsHandshake => websocket::handshake(data),
            Self::Eio4Payload => engineio::payload_v4(data),
            Self::Eio3Payload => engineio::payload_v3(data),
            Self::EioFrame => engineio::frame(data),
            Self::EioRequest => engineio::request(data),
            Self::Sio4Packet => socketio::packets_v4(data),
            Self::Sio5Packet => socketio::packets_v5(data),
            Self::Forwarded => forwarded::forwarded(data),
            Self::AiStream => ai::stream(data),
            Self::AiBody => ai::body(data),
            Self::Webex => webex::envelope(data),
            Self::Hub => hub::hub(data),
        }
    }

    /// Makes an input: a valid one, changed in a few places, or now and then mere noise.
    pub fn input(self, rng: &mut Rng) -> Vec<u8> {
        if rng.one_in(8) {
            return rng.bytes(256);
        }
        let mut data = match self {
            Self::WsFrames => websocket::valid_frames(rng),
            Self::WsDeflate => websocket::valid_deflate(rng),
            Self::WsHandshake => websocket::valid_handshake(rng),
            Self::Eio4Payload => engineio::valid_payload_v4(rng),
            Self::Eio3Payload => engineio::valid_payload_v3(rng),
            Self::EioFrame => engineio::valid_frame(rng),
            Self::EioRequest => engineio::valid_request(rng),
            Self::Sio4Packet | Self::Sio5Packet => socketio::valid_packets(rng),
            Self::Forwarded => forwarded::valid_forwarded(rng),
            Self::AiStream => ai::valid_stream(rng),
            Self::AiBody => ai::valid_body(rng),
            Self::Webex => webex::valid_envelope(rng),
            Self::Hub => hub::valid_hub(rng),
        };
        for _ in 0..rng.below(5) {
            mutate::mutate(rng, &mut data);
        }
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_holds_for_a_few_thousand_inputs() {
        for target in Target::ALL {
            let mut rng = Rng::new(1);
            for _ in 0..2_000 {
                target.run(&target.input(&mut rng));
            }
        }
    }

    #[test]
    fn names_are_unique() {
        for target in Target::ALL {
            assert_eq!(Target::from_name(target.name()), Some(target));
        }
    }
}
