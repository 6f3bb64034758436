//! The WebSocket decoder, its compression and its handshake.

use std::borrow::Cow;

use bowline_proto::websocket::{
    DecodeConfig, Decoder, Error, Incoming, Message, OpCode, Role,
    deflate::{self, compress, inflate},
    encode,
    handshake::{ClientHandshake, check_request},
};

use crate::{meter::peak_bytes, rng::Rng};

/// What a run of the decoder said: what came, and how it ended.
type Said = (Vec<Incoming>, Option<Error>);

/// Byte 0: role, deflate, limit. Bytes 1 to 8: where to split. The rest: frames.
pub(super) fn frames(data: &[u8]) {
    let Some((settings, data)) = data.split_first() else { return };
    let Some((splits, wire)) = data.split_first_chunk::<8>() else { return };
    let role = if settings & 1 == 0 { Role::Server } else { Role::Client };
    let max_message_bytes =
        if settings & 4 == 0 { 1_000_000 } else { usize::from(settings >> 3) * 8 };
    let config = DecodeConfig { max_message_bytes, deflate: settings & 2 != 0 };

    let mut whole = (Vec::new(), None);
    let peak = peak_bytes(|| whole = feed(role, &config, [wire.to_vec()].into_iter()));
    if !config.deflate {
        // The copy that is unmasked, the payloads, and what is kept while they grow.
        let bound = 6 * wire.len() + 4_096 + 64 * wire.len();
        assert!(peak <= bound, "{peak} bytes for {} on the wire", wire.len());
    }

    let mut rng = Rng::new(u64::from_le_bytes(*splits));
    let step_max = 1 + rng.scaled(7);
    let mut rest = wire;
    let pieces = std::iter::from_fn(|| {
        let (piece, tail) = rest.split_at(rest.len().min(1 + rng.below(step_max)));
        rest = tail;
        (!piece.is_empty()).then(|| piece.to_vec())
    });
    let split = feed(role, &config, pieces);
    if whole.1.is_none() {
        assert_eq!(whole, split, "the same in pieces");
    } else {
        // Text that is wrong may be noticed sooner or later than another mistake after it.
        assert!(split.1.is_some(), "{whole:?} but {split:?}");
        assert_eq!(whole.0, split.0, "the same before the error");
    }

    for incoming in &whole.0 {
        match incoming {
            Incoming::Message(message) => {
                assert!(message.len() <= max_message_bytes, "{} bytes", message.len());
                again(role, message);
            }
            Incoming::Ping(payload) | Incoming::Pong(payload) => assert!(payload.len() <= 125),
            Incoming::Close(frame) => {
                assert!(frame.reason.len() <= 123);
                assert!(frame.code.is_some() || frame.reason.is_empty());
                assert!(frame.code.is_none_or(|code| (1000..5000).contains(&code)));
            }
        }
    }
    if let Some(error) = whole.1 {
        assert!([1002, 1007, 1009].contains(&error.close_code()), "{error}");
    }
}

fn feed(role: Role, config: &DecodeConfig, pieces: impl Iterator<Item = Vec<u8>>) -> Said {
    let mut decoder = Decoder::new(role);
    let mut said = Vec::new();
    for mut piece in pieces {
        let mut input = piece.as_mut_slice();
        loop {
            let before = input.len();
            match decoder.decode(config, &mut input) {
                Ok(Some(incoming)) => {
                    assert!(input.len() < before, "something came of nothing");
                    let last = matches!(incoming, Incoming::Close(_));
                    said.push(incoming);
                    if last {
                        return (said, None);
                    }
                }
                Ok(None) => {
                    assert!(input.is_empty(), "{} bytes left", input.len());
                    break;
                }
                Err(error) => return (said, Some(error)),
            }
        }
    }
    (said, None)
}

/// What was read can be written and is read again.
fn again(role: Role, message: &Message) {
    for (deflate, payload) in
        [(false, message.as_bytes().to_vec()), (true, compress(message.as_bytes()))]
    {
        let mask = (role == Role::Server).then_some([1, 2, 3, 4]);
        let mut wire = Vec::new();
        encode(&mut wire, message.opcode(), deflate, mask, &[&payload]);
        let config = DecodeConfig { max_message_bytes: message.len(), deflate };
        let said = feed(role, &config, [wire].into_iter());
        assert_eq!(said, (vec![Incoming::Message(message.clone())], None));
    }
}

pub(super) fn valid_frames(rng: &mut Rng) -> Vec<u8> {
    let settings = rng.byte();
    let masked = settings & 1 == 0;
    let mut out = vec![settings];
    out.extend(rng.word().to_le_bytes());
    for _ in 0..=rng.below(4) {
        let mask = masked.then(|| [rng.byte(), rng.byte(), rng.byte(), 0]);
        match rng.below(6) {
            0 => encode(&mut out, OpCode::Ping, false, mask, &[&rng.bytes(126)]),
            1 => encode(&mut out, OpCode::Close, false, mask, &[&[3, 0xe8], b"bye"]),
            2 => {
                // A message in three fragments: FIN is taken off the first two.
                for opcode in [OpCode::Text, OpCode::Continuation, OpCode::Continuation] {
                    let at = out.len();
                    encode(&mut out, opcode, false, mask, &["é😀a".as_bytes()]);
                    out[at] &= 0x7f;
                }
                encode(&mut out, OpCode::Continuation, false, mask, &[b"end"]);
            }
            3 if settings & 2 != 0 => {
                let payload = compress(&rng.bytes(400));
                encode(&mut out, OpCode::Binary, true, mask, &[&payload]);
            }
            4 => encode(&mut out, OpCode::Binary, false, mask, &[&vec![7; rng.below(70_000)]]),
            _ => encode(&mut out, OpCode::Text, false, mask, &["42[\"é😀\"]".as_bytes()]),
        }
    }
    out
}

/// Bytes 0 and 1: the limit. The rest: a compressed payload.
pub(super) fn deflate(data: &[u8]) {
    let Some((limit, payload)) = data.split_first_chunk::<2>() else { return };
    let max_bytes = usize::from(u16::from_le_bytes(*limit));
    let mut inflated = None;
    let peak = peak_bytes(|| inflated = inflate(payload, max_bytes).ok());
    // The state of the inflater has about 43 KiB.
    let bound = 64 * 1024 + 3 * max_bytes;
    assert!(peak <= bound, "{peak} bytes for a limit of {max_bytes}");
    if let Some(bytes) = inflated {
        assert!(bytes.len() <= max_bytes);
        assert_eq!(inflate(&compress(&bytes), bytes.len()).as_ref(), Ok(&bytes));
    }
    // The same bytes as a message to compress.
    assert_eq!(inflate(&compress(payload), payload.len()).as_deref(), Ok(payload));
}

pub(super) fn valid_deflate(rng: &mut Rng) -> Vec<u8> {
    let mut out = vec![rng.byte(), rng.byte()];
    let mut plain = rng.bytes(300);
    if rng.one_in(2) {
        plain = plain.repeat(1 + rng.below(100));
    }
    out.extend(compress(&plain));
    out
}

/// Lines: method, deflate (`1`), then headers; after an empty line the response of a server.
pub(super) fn handshake(data: &[u8]) {
    let at = data.windows(2).position(|pair| pair == b"\n\n").unwrap_or(data.len());
    let (request, response) = data.split_at(at);
    let request = String::from_utf8_lossy(request);
    let response = response.get(2..).unwrap_or_default();
    let mut lines = request.lines();
    let method = lines.next().unwrap_or_default();
    let deflate = lines.next() == Some("1");
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let header = |name: &'static str| {
        let mut values =
            headers.iter().filter(|(header, _)| header == name).map(|(_, value)| value.as_str());
        let first = values.next()?;
        Some(values.fold(Cow::Borrowed(first), |all, value| Cow::Owned(format!("{all}, {value}"))))
    };

    match check_request(method, header, deflate) {
        Ok(upgrade) => {
            assert_eq!(upgrade.accept.len(), 28);
            let shown = |text: &str| !text.contains(['\r', '\n', '\0']);
            assert!(upgrade.protocol.as_deref().is_none_or(shown));
            assert!(upgrade.extensions.is_none() || deflate);
        }
        Err(error) => assert!([400, 405, 426].contains(&error.status())),
    }
    for (_, value) in &headers {
        if let Some(accepted) = deflate::negotiate(value) {
            assert_eq!(deflate::check_response(Some(&accepted.response_header)), Some(true));
        }
        let _ = deflate::check_response(Some(value));
    }

    let key = [7; 16];
    let host = header("host").unwrap_or(Cow::Borrowed("example.org"));
    let added: Vec<_> =
        headers.iter().filter(|(name, _)| name.starts_with("x-")).cloned().collect();
    let Ok(client) = ClientHandshake::new(&host, "/engine.io/?EIO=4", key, &added, deflate) else {
        return;
    };
    if let Ok(Some(agreed)) = client.check_response(response) {
        let head = &response[..agreed.head_bytes];
        assert_eq!(client.check_response(head), Ok(Some(agreed)), "what follows does not matter");
        assert_eq!(client.check_response(&head[..head.len() - 1]), Ok(None));
    }
    answer_to(&client, deflate);
}

/// What our client asks, our server answers, and our client takes.
fn answer_to(client: &ClientHandshake, deflate: bool) {
    let request = String::from_utf8_lossy(client.request()).into_owned();
    let header = |name: &'static str| {
        request
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(header, _)| header.eq_ignore_ascii_case(name))
            .map(|(_, value)| Cow::Borrowed(value.trim()))
    };
    let upgrade = check_request("GET", header, true).expect("our own request");
    assert_eq!(upgrade.extensions.is_some(), deflate);
    let mut response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n",
        upgrade.accept
    );
    if let Some(extensions) = upgrade.extensions {
        response += &format!("Sec-WebSocket-Extensions: {extensions}\r\n");
    }
    response += "\r\n";
    let agreed = client.check_response(response.as_bytes());
    let agreed = agreed.expect("our own response").expect("all of it");
    assert_eq!((agreed.head_bytes, agreed.deflate), (response.len(), deflate));
}

pub(super) fn valid_handshake(rng: &mut Rng) -> Vec<u8> {
    let deflate = rng.one_in(2);
    let mut lines = vec!["GET".to_owned(), if deflate { "1" } else { "0" }.to_owned()];
    let headers = [
        "Host: example.org",
        "Upgrade: websocket",
        "Connection: keep-alive, Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ];
    lines.extend(headers.map(str::to_owned));
    for optional in [
        "Sec-WebSocket-Protocol: chat, superchat",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        "Sec-WebSocket-Extensions: x, permessage-deflate; server_max_window_bits=15",
        "X-Added: value",
    ] {
        if rng.one_in(2) {
            lines.push(optional.to_owned());
        }
    }
    let accept = bowline_proto::websocket::handshake::accept_key("BwcHBwcHBwcHBwcHBwcHBw==");
    let extension = if deflate {
        "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n"
    } else {
        ""
    };
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nConnection: upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{extension}\r\nframes"
    );
    (lines.join("\n") + "\n\n" + &response).into_bytes()
}
