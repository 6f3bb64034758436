//! Engine.IO: polling bodies, frames, requests.

use bowline_proto::{
    engineio::{
        Packet, PacketKind, PollStyle, Query, RequestConfig, RequestHead, Route, TransportName,
        Version, payload, verify, ws_payload, ws_payload_base64,
    },
    wall::PollBody,
    websocket::{Message, OpCode},
};
use bytes::Bytes;

use crate::{meter::peak_bytes, rng::Rng};

/// Packets a body may have here.
const PACKETS_MAX: usize = 64;

/// The body as it is.
pub(super) fn payload_v4(data: &[u8]) {
    let Some(packets) = read(Version::V4, data, false) else { return };
    let style = PollStyle::default();
    let body = payload::encode(Version::V4, &style, packets.iter());
    let PollBody::Text(body) = body else { panic!("revision 4 has text bodies only") };
    assert_eq!(read(Version::V4, &body, false), Some(packets.clone()));
    check_script(Version::V4, &packets, &body);
}

/// Byte 0: text, binary or JSONP. The rest: the body.
pub(super) fn payload_v3(data: &[u8]) {
    let Some((form, data)) = data.split_first() else { return };
    let packets = match form % 3 {
        0 => read(Version::V3, data, false),
        1 => read(Version::V3, data, true),
        _ => match payload::decode_jsonp_body(&Bytes::copy_from_slice(data)) {
            Ok(body) => {
                assert!(body.len() <= data.len());
                read(Version::V3, &body, false)
            }
            Err(_) => None,
        },
    };
    let Some(packets) = packets else { return };
    for base64 in [false, true] {
        let style = PollStyle { base64, jsonp: None };
        let again = match payload::encode(Version::V3, &style, packets.iter()) {
            PollBody::Text(body) => {
                if base64 {
                    check_script(Version::V3, &packets, &body);
                }
                read(Version::V3, &body, false)
            }
            PollBody::Binary(body) => {
                assert!(!base64, "binary to one who asked for base64");
                read(Version::V3, &body, true)
            }
            PollBody::Script(_) => panic!("a script to one who did not ask"),
        };
        assert_eq!(again.as_ref(), Some(&packets));
    }
}

/// Reads a body, by both functions, and checks what memory it takes.
fn read(version: Version, body: &[u8], binary: bool) -> Option<Vec<Packet>> {
    let body = Bytes::copy_from_slice(body);
    let mut result = None;
    let peak = peak_bytes(|| {
        result = Some(payload::decode(version, body.clone(), binary, PACKETS_MAX));
    });
    let bound = 2 * body.len() + 2 * PACKETS_MAX * size_of::<Packet>() + 1_024;
    assert!(peak <= bound, "{peak} bytes for a body of {}", body.len());

    let mut packets = Vec::new();
    let partial = payload::decode_into(version, body, binary, PACKETS_MAX, &mut packets);
    assert!(packets.len() <= PACKETS_MAX);
    let result = result?;
    assert_eq!(partial.err(), result.as_ref().err().copied());
    let whole = result.ok()?;
    assert_eq!(packets, whole);
    Some(whole)
}

/// A JSONP body is a call with one string literal, which says what the text body says.
fn check_script(version: Version, packets: &[Packet], text: &[u8]) {
    let style = PollStyle { base64: true, jsonp: Some("12".into()) };
    let PollBody::Script(script) = payload::encode(version, &style, packets.iter()) else {
        panic!("a script was asked for")
    };
    let literal = script.strip_prefix(b"___eio[12](").and_then(|rest| rest.strip_suffix(b");"));
    let literal = literal.expect("a call");
    assert!(!literal.iter().any(|byte| *byte < 0x20));
    let said: String = serde_json::from_slice(literal).expect("one literal");
    assert_eq!(said.as_bytes(), text);
    assert!(!said.is_empty());
    let raw = std::str::from_utf8(&script).expect("UTF-8");
    assert!(!raw.contains(['\u{2028}', '\u{2029}']));
}

fn random_packets(rng: &mut Rng) -> Vec<Packet> {
    let count = 1 + rng.below(5);
    let packet = |rng: &mut Rng| match rng.below(4) {
        0 => Packet::message(Message::Binary(rng.bytes(60).into())),
        1 => Packet::text(*rng.pick(&PacketKind::ALL), "probe"),
        2 => Packet::text(PacketKind::Message, *rng.pick(&["é", "😀€", "\n\"\\", "\u{2028}", ""])),
        _ => Packet::text(PacketKind::Message, "x".repeat(rng.scaled(9))),
    };
    std::iter::repeat_with(|| packet(rng)).take(count).collect()
}

fn body_bytes(body: PollBody) -> Bytes {
    match body {
        PollBody::Text(bytes) | PollBody::Binary(bytes) | PollBody::Script(bytes) => bytes,
    }
}

pub(super) fn valid_payload_v4(rng: &mut Rng) -> Vec<u8> {
    let packets = random_packets(rng);
    body_bytes(payload::encode(Version::V4, &PollStyle::default(), packets.iter())).to_vec()
}

pub(super) fn valid_payload_v3(rng: &mut Rng) -> Vec<u8> {
    let packets = random_packets(rng);
    let form = rng.below(3);
    let style = PollStyle { base64: form != 1, jsonp: None };
    let body = payload::encode(Version::V3, &style, packets.iter());
    let form = if matches!(body, PollBody::Binary(_)) { 1 } else { form };
    let mut out = vec![u8::try_from(form).unwrap_or_default()];
    let body = body_bytes(body);
    if form == 2 {
        out.extend_from_slice(b"d=");
        for byte in body {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(byte),
                b'\n' => out.extend_from_slice(b"%5Cn"),
                other => out.extend_from_slice(format!("%{other:02X}").as_bytes()),
            }
        }
    } else {
        out.extend_from_slice(&body);
    }
    out
}

/// Byte 0: revision, text or binary. The rest: the message.
pub(super) fn frame(data: &[u8]) {
    let Some((settings, data)) = data.split_first() else { return };
    let version = if settings & 1 == 0 { Version::V3 } else { Version::V4 };
    let message = if settings & 2 == 0 {
        Message::Text(String::from_utf8_lossy(data).into_owned().into())
    } else {
        Message::Binary(Bytes::copy_from_slice(data))
    };
    let mut packet = None;
    let peak = peak_bytes(|| packet = Packet::from_frame(version, message).ok());
    assert!(peak <= 2 * data.len() + 128, "{peak} bytes for a message of {}", data.len());
    let Some(packet) = packet else { return };
    let binary = matches!(packet.data, Message::Binary(_));
    assert!(!binary || version == Version::V3 || packet.kind == PacketKind::Message);
    for payload in [ws_payload(version, &packet), ws_payload_base64(version, &packet)] {
        let bytes = [payload.head, &payload.data].concat();
        let message = match payload.opcode {
            OpCode::Binary => Message::Binary(bytes.into()),
            _ => Message::Text(bytes.try_into().expect("UTF-8")),
        };
        assert_eq!(Packet::from_frame(version, message).as_ref(), Ok(&packet));
    }
}

pub(super) fn valid_frame(rng: &mut Rng) -> Vec<u8> {
    let settings = rng.byte();
    let version = if settings & 1 == 0 { Version::V3 } else { Version::V4 };
    let packets = random_packets(rng);
    let packet = rng.pick(&packets);
    let payload = if rng.one_in(2) {
        ws_payload(version, packet)
    } else {
        ws_payload_base64(version, packet)
    };
    let binary = if payload.opcode == OpCode::Binary { 2 } else { 0 };
    [&[settings & 1 | binary], payload.head, &payload.data].concat()
}

/// Byte 0: upgrade, EIO 3, transports. Then lines: method, query, origin.
pub(super) fn request(data: &[u8]) {
    let Some((settings, data)) = data.split_first() else { return };
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let method = String::from_utf8_lossy(lines.next().unwrap_or_default());
    let query = String::from_utf8_lossy(lines.next().unwrap_or_default());
    let origin = lines.next();
    let allowed = ["https://a.example".to_owned()];
    let config = RequestConfig {
        polling: settings & 4 == 0,
        websocket: settings & 8 == 0,
        allow_eio3: settings & 2 != 0,
        allowed_origins: if settings & 16 == 0 { &[] } else { &allowed },
    };
    let head = RequestHead { method: &method, query: &query, origin, upgrade: settings & 1 != 0 };

    let parsed = Query::parse(&query);
    // What `t` was cannot be written again from the number that was made of it.
    let without = Query { timestamp: None, ..parsed.clone() };
    assert_eq!(Query::parse(&written(&parsed)), without, "{query:?}");
    match verify(&head, &config) {
        Ok(Route::Open { transport, version, .. }) => {
            assert_eq!(&method, "GET");
            assert!(parsed.sid.is_none());
            assert!(config.allow_eio3 || version == Version::V4);
            assert_eq!(transport == TransportName::WebSocket, head.upgrade);
            assert_eq!(Some(transport), parsed.transport);
        }
        Ok(Route::Session(request)) => {
            assert_eq!(Some(request.sid.to_string()), parsed.sid);
            for transport in [TransportName::Polling, TransportName::WebSocket] {
                let verdict = request.verify(Some((transport, request.version)));
                let plain =
                    request.transport == TransportName::Polling && transport == request.transport;
                assert_eq!(verdict.is_ok(), head.upgrade || plain);
            }
            assert!(request.verify(None).is_err());
        }
        Ok(Route::Discard) => assert!(head.upgrade),
        Err(error) => {
            let json: serde_json::Value = serde_json::from_str(&error.json()).expect("JSON");
            assert_eq!(json["code"], error.code());
            assert!([400, 403].contains(&error.status()));
        }
    }
}

/// The query that says what `query` says, every byte escaped.
fn written(query: &Query) -> String {
    let escape = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    let mut pairs = vec![];
    if let Some(transport) = query.transport {
        pairs.push(format!("transport={}", escape(transport.name())));
    }
    if query.version == Version::V4 {
        pairs.push("EIO=%34".to_owned());
    }
    if let Some(sid) = &query.sid {
        pairs.push(format!("sid={}", escape(sid)));
    }
    if query.style.base64 {
        pairs.push("b64=1".to_owned());
    }
    if let Some(digits) = &query.style.jsonp {
        pairs.push(format!("j={}", escape(digits)));
    }
    pairs.join("&")
}

pub(super) fn valid_request(rng: &mut Rng) -> Vec<u8> {
    let mut out = vec![rng.byte()];
    out.extend_from_slice(rng.pick(&["GET", "GET", "POST", "OPTIONS"]).as_bytes());
    out.push(b'\n');
    let mut pairs = vec![*rng.pick(&["transport=polling", "transport=websocket"])];
    for pair in [
        "EIO=4",
        "EIO=3",
        "sid=AQAAAAAAAAAAAAAAAAAA",
        "b64=1",
        "j=0",
        "t=Abc123",
        "token=a%20b+c",
        "transport=polling",
    ] {
        if rng.one_in(2) {
            pairs.push(pair);
        }
    }
    out.extend_from_slice(pairs.join("&").as_bytes());
    if rng.one_in(2) {
        out.extend_from_slice(b"\nhttps://a.example");
    }
    out
}
