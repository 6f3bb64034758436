//! Engine.IO 3 and 4: packets, polling payloads, requests.
//!
//! Everything here is stateless: a packet, a polling body or the head of a request goes in, the
//! other form comes out. What a session does with it is decided in [`session`](crate::session).
//!
//! Sources: the protocol documents of `socketio/engine.io-protocol` (revisions 3 and 4), and the
//! behaviour of engine.io 6.6.12 where they are silent. Intended differences from it: base64 and
//! lengths are read strictly (the reference skips stray characters and takes `0x5` for a length),
//! and a polling body must be UTF-8.

mod packet;
pub mod payload;
mod request;

pub(crate) use packet::suffix;
pub use packet::{
    DecodeError, Packet, PacketKind, Version, WsPayload, open_packet, ws_frame, ws_frame_base64,
    ws_payload, ws_payload_base64,
};
pub(crate) use request::form_pairs;
pub use request::{
    PollStyle, Query, RequestConfig, RequestError, RequestHead, Route, SessionRequest,
    TransportName, verify,
};
