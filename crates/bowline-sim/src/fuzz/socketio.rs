//! Socket.IO: sequences of messages.

use bowline_proto::{
    engineio::Version,
    limit::Limits,
    socketio::{Args, Decoder, Packet, encode},
};
use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::{meter::peak_bytes, rng::Rng};

/// Ends a message; no UTF-8 has it.
const END: u8 = 0xff;
/// Begins a binary message.
const BINARY: u8 = 0xfe;

pub(super) fn packets_v5(data: &[u8]) {
    packets(Version::V4, data);
}

pub(super) fn packets_v4(data: &[u8]) {
    packets(Version::V3, data);
}

/// Messages with [`END`] between them; those that begin with [`BINARY`] are binary.
fn packets(version: Version, data: &[u8]) {
    let limits = Limits::default();
    let mut decoder = Decoder::new();
    for message in data.split(|byte| *byte == END) {
        let mut read = None;
        let peak = match message.strip_prefix(&[BINARY]) {
            Some(bytes) => {
                let bytes = Bytes::copy_from_slice(bytes);
                peak_bytes(|| read = Some(decoder.decode_binary(bytes)))
            }
            None => {
                let text = String::from_utf8_lossy(message).into_owned().into();
                peak_bytes(|| read = Some(decoder.decode_text(version, &limits, text)))
            }
        };
        // Only a query grows: every byte of it may be escaped in JSON, and has a node in a map.
        let factor = if version == Version::V3 { 400 } else { 4 };
        let bound = factor * message.len() + 2_048;
        assert!(peak <= bound, "{peak} bytes for a message of {}", message.len());
        match read {
            Some(Ok(Some(packet))) => {
                assert!(!decoder.is_pending());
                check_packet(version, &packet);
            }
            Some(Ok(None)) => assert!(decoder.is_pending()),
            Some(Err(_)) | None => return,
        }
    }
}

fn check_packet(version: Version, packet: &Packet) {
    assert!(packet.namespace().starts_with('/'));
    match packet {
        Packet::Event { args, .. } => {
            assert!(args.name().is_some());
            check_args(args);
        }
        Packet::Ack { args, .. } => check_args(args),
        Packet::Connect { auth: Some(json), .. } => {
            assert!(is_json(json), "{json}");
            assert!(json.trim_start().starts_with('{'));
        }
        Packet::ConnectError { data, .. } => assert!(data.is_empty() || is_json(data), "{data}"),
        Packet::Connect { auth: None, .. } | Packet::Disconnect { .. } => {}
    }

    // What was read can be written and is read again.
    let encoded = encode(version, packet);
    let mut decoder = Decoder::new();
    let mut read = decoder.decode_text(version, &Limits::default(), encoded.text);
    for attachment in encoded.attachments {
        assert_eq!(read, Ok(None));
        read = decoder.decode_binary(attachment);
    }
    let expected = match packet {
        // What a server writes to such clients has no payload.
        Packet::Connect { namespace, .. } if version == Version::V3 => {
            &Packet::Connect { namespace: namespace.clone(), auth: None }
        }
        other => other,
    };
    assert_eq!(read.as_ref().map(Option::as_ref), Ok(Some(expected)));
}

fn check_args(args: &Args) {
    assert!(is_json(args.json()), "{}", args.json());
    let rest = args.rest();
    assert!(is_json(rest.json()), "{} of {}", rest.json(), args.json());
    let attachments = args.attachments().to_vec();
    if attachments.is_empty() {
        assert!(Args::new(rest.json().clone()).is_ok());
    } else {
        assert!(attachments.len() <= Limits::default().attachments);
        let again = Args::with_attachments(args.json().clone(), attachments);
        assert_eq!(again.as_ref(), Ok(args));
        assert!(Args::with_attachments(rest.json().clone(), rest.attachments().to_vec()).is_ok());
    }
    // Where serde builds values it sees as many of them.
    if let (Ok(all), Ok(rest)) = (args.parse::<Vec<Value>>(), rest.parse::<Vec<Value>>()) {
        assert_eq!(all.get(1..).unwrap_or_default(), rest);
        if !args.attachments().is_empty() {
            all.iter().for_each(|value| check_placeholders(value, args.attachments().len()));
        }
        if let Some(Value::String(name)) = all.first() {
            assert_eq!(args.name().as_deref(), Some(name.as_str()));
        }
    }
}

fn check_placeholders(value: &Value, attachments: usize) {
    match value {
        Value::Array(values) => {
            values.iter().for_each(|value| check_placeholders(value, attachments));
        }
        Value::Object(map) => {
            if map.get("_placeholder") == Some(&Value::Bool(true)) {
                let num = map.get("num").and_then(Value::as_f64).unwrap_or(-1.0);
                assert!((0.0..attachments as f64).contains(&num), "{value}");
            }
            map.values().for_each(|value| check_placeholders(value, attachments));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether serde takes it for one JSON value. It is asked for syntax only, so nesting is no limit.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

pub(super) fn valid_packets(rng: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..=rng.below(3) {
        let namespace = rng.pick(&["/", "/admin", "/a?token=1&x=y", "/é"]).to_string().into();
        let mut values = vec![json!(*rng.pick(&["msg", "", "é😀", "a\"b\\", "message-with-ack"]))];
        for _ in 0..rng.below(4) {
            values.push(random_value(rng, 3));
        }
        let attachments: Vec<Bytes> =
            (0..rng.below(3)).map(|_| Bytes::from(vec![7; rng.below(20)])).collect();
        values.extend((0..attachments.len()).map(Args::placeholder));
        let json = Args::from_values(&values).json().clone();
        let args =
            Args::with_attachments(json, attachments).unwrap_or_else(|_| Args::from_values(&[]));
        let id = rng.word() >> rng.below(64);
        let packet = match rng.below(6) {
            0 => Packet::Connect { namespace, auth: Some("{\"token\":\"x\"}".into()) },
            1 => Packet::Disconnect { namespace },
            2 => Packet::Ack { namespace, id, args },
            3 => Packet::ConnectError { namespace, data: "{\"message\":\"no\"}".into() },
            _ => Packet::Event { namespace, ack: rng.one_in(2).then_some(id), args },
        };
        let encoded = encode(Version::V4, &packet);
        out.extend_from_slice(encoded.text.as_bytes());
        for attachment in encoded.attachments {
            out.extend_from_slice(&[END, BINARY]);
            out.extend_from_slice(&attachment);
        }
        out.push(END);
    }
    out.pop();
    out
}

fn random_value(rng: &mut Rng, depth: usize) -> Value {
    match rng.below(if depth == 0 { 5 } else { 7 }) {
        0 => Value::Null,
        1 => json!(rng.word() as i64),
        2 => json!(rng.word() as f64 / 1e9),
        3 => json!(*rng.pick(&["", "text", "é😀", "\u{1}\"\\\n", "_placeholder"])),
        4 => json!(rng.one_in(2)),
        5 => (0..rng.below(4)).map(|_| random_value(rng, depth - 1)).collect(),
        _ => {
            let keys = ["a", "num", "_placeholder", "é"];
            let pairs =
                (0..rng.below(4)).map(|at| (keys[at].to_owned(), random_value(rng, depth - 1)));
            Value::Object(pairs.collect())
        }
    }
}
