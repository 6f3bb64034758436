//! Frames between two ends, whole and cut, good and bad.

use bytes::Bytes;
use bytestring::ByteString;
use proptest::{prelude::*, sample::Index};

use super::{frame::CONTROL_MAX_BYTES, *};

const CONFIG: DecodeConfig = DecodeConfig { max_message_bytes: 100_000, deflate: true };
const MASK: Option<[u8; 4]> = Some([0x37, 0xfa, 0x21, 0x3d]);

#[test]
fn the_examples_of_the_rfc_decode() {
    // RFC 6455 section 5.7.
    let text = |text| Incoming::Message(Message::Text(ByteString::from_static(text)));
    let server = |bytes: &[u8]| decode_all(Role::Client, &[bytes]);
    let client = |bytes: &[u8]| decode_all(Role::Server, &[bytes]);
    let hello = Bytes::from_static(b"Hello");

    assert_eq!(server(b"\x81\x05Hello"), Ok(vec![text("Hello")]));
    assert_eq!(client(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), Ok(vec![text("Hello")]));
    assert_eq!(server(b"\x01\x03Hel\x80\x02lo"), Ok(vec![text("Hello")]));
    assert_eq!(server(b"\x89\x05Hello"), Ok(vec![Incoming::Ping(hello.clone())]));
    assert_eq!(
        client(b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"),
        Ok(vec![Incoming::Pong(hello)])
    );
    for (len, header) in [(256, &b"\x82\x7e\x01\x00"[..]), (65_536, b"\x82\x7f\0\0\0\0\0\x01\0\0")]
    {
        let payload = vec![7; len];
        let message = Incoming::Message(Message::Binary(payload.clone().into()));
        assert_eq!(server(&[header, &payload].concat()), Ok(vec![message]));
    }
    // RFC 7692 section 7.2.3.1, whole and in two fragments.
    assert_eq!(server(b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00"), Ok(vec![text("Hello")]));
    assert_eq!(server(b"\x41\x03\xf2\x48\xcd\x80\x04\xc9\xc9\x07\x00"), Ok(vec![text("Hello")]));
}

#[test]
fn what_breaks_the_protocol_is_refused_as_soon_as_it_is_seen() {
    for (bytes, error) in [
        (&b"\x91"[..], Error::ReservedBits),
        (b"\xa1", Error::ReservedBits),
        (b"\xc9", Error::ReservedBits),
        (b"\x83", Error::ReservedOpCode(3)),
        (b"\x8b", Error::ReservedOpCode(11)),
        (b"\x09", Error::FragmentedControl),
        (b"\x89\x7e", Error::LongControl),
        (b"\x88\x7f", Error::LongControl),
        (b"\x81\x80", Error::WrongMasking { sender: Role::Server }),
        (b"\x81\x7e\x00\x7d", Error::BadLength),
        (b"\x81\x7f\0\0\0\0\0\0\xff\xff", Error::BadLength),
        (b"\x81\x7f\x80\0\0\0\0\0\0\0", Error::BadLength),
        (b"\x80\x00", Error::NothingToContinue),
        (b"\x01\x01a\x81\x00", Error::Interleaved),
        (b"\x01\x01a\xc0\x00", Error::ReservedBits),
        (b"\x81\x01\xff", Error::InvalidUtf8),
        (b"\x81\x01\xce", Error::InvalidUtf8),
        (b"\x81\x05ab\xc0", Error::InvalidUtf8),
        (b"\x01\x02\xce\xba\x80\x01\xce", Error::InvalidUtf8),
        (b"\x01\x02ab\x00\x04\xed\xa0", Error::InvalidUtf8),
        (b"\x88\x01\x03", Error::BadClose),
        (b"\x88\x02\x03\xe7", Error::BadClose),
        (b"\x88\x02\x03\xed", Error::BadClose),
        (b"\x88\x02\x03\xf7", Error::BadClose),
        (b"\x88\x02\x0b\xb7", Error::BadClose),
        (b"\x88\x02\x13\x88", Error::BadClose),
        (b"\x88\x03\x03\xe8\xff", Error::InvalidUtf8),
        (b"\x82\x7f\0\0\0\0\0\x01\x86\xa1", Error::TooBig { max_bytes: 100_000 }),
        (b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", Error::TooBig { max_bytes: 100_000 }),
        (b"\xc1\x01\xff", Error::BadDeflate),
    ] {
        assert_eq!(decode_all(Role::Client, &[bytes]), Err(error), "{bytes:x?}");
        let bytewise = bytes.chunks(1).collect::<Vec<_>>();
        assert_eq!(decode_all(Role::Client, &bytewise), Err(error), "{bytes:x?} byte by byte");
    }
    let error = Error::WrongMasking { sender: Role::Client };
    assert_eq!(decode_all(Role::Server, &[b"\x81\x00"]), Err(error));
    assert_eq!(error.to_string(), "the client sent a WebSocket frame without a mask");
}

#[test]
fn compression_that_was_not_agreed_on_is_refused() {
    let config = DecodeConfig { deflate: false, ..CONFIG };
    let mut bytes = *b"\xc1\x00";
    let error = Decoder::new(Role::Client).decode(&config, &mut &mut bytes[..]);
    assert_eq!(error, Err(Error::ReservedBits));
}

#[test]
fn the_limit_holds_over_fragments_and_after_inflating() {
    let config = DecodeConfig { max_message_bytes: 5, deflate: true };
    let decode = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let mut decoder = Decoder::new(Role::Client);
        let mut input = &mut bytes[..];
        decoder.decode(&config, &mut input)
    };
    assert!(matches!(decode(b"\x81\x05Hello"), Ok(Some(_))));
    let too_big = Err(Error::TooBig { max_bytes: 5 });
    assert_eq!(decode(b"\x81\x06"), too_big);
    assert_eq!(decode(b"\x01\x05Hello\x80\x01"), too_big);
    let mut bomb = Vec::new();
    encode(&mut bomb, OpCode::Text, true, None, &[&deflate::compress(b"HelloHelloHello")]);
    assert_eq!(decode(&bomb), too_big);
}

#[test]
fn nothing_is_read_after_a_close_frame() {
    let mut bytes = b"\x88\x04\x03\xe8ok\x81\x01a\xff".to_vec();
    let mut decoder = Decoder::new(Role::Client);
    let mut input = &mut bytes[..];
    let close = CloseFrame { code: Some(1000), reason: ByteString::from_static("ok") };
    assert_eq!(decoder.decode(&CONFIG, &mut input), Ok(Some(Incoming::Close(close))));
    assert!(input.is_empty());
    assert_eq!(decoder.decode(&CONFIG, &mut &mut [0xff][..]), Ok(None));
}

#[test]
fn close_frames_are_written_within_their_bounds() {
    assert_eq!(&close_frame(None, "dropped", None)[..], b"\x88\x00");
    assert_eq!(&close_frame(Some(1001), "bye", None)[..], b"\x88\x05\x03\xe9bye");
    let long = close_frame(Some(1001), &"é".repeat(100), MASK);
    let Ok(incoming) = decode_all(Role::Server, &[&long]) else { panic!("{long:x?}") };
    let close = CloseFrame { code: Some(1001), reason: "é".repeat(61).into() };
    assert_eq!(incoming, [Incoming::Close(close)]);
}

#[test]
fn an_idle_decoder_is_small_and_keeps_nothing() {
    assert!(size_of::<Decoder>() <= 32);
    let mut decoder = Decoder::new(Role::Client);
    for piece in [&b"\x01"[..], b"\x02a", b"b\x89", b"\x01", b"x\x80\x00"] {
        let mut piece = piece.to_vec();
        let mut input = &mut piece[..];
        while decoder.decode(&CONFIG, &mut input).unwrap().is_some() {}
    }
    assert!(decoder.is_idle());
}

#[test]
fn memory_grows_with_what_arrives_not_with_what_is_announced() {
    // A decoder that trusted the announced length would ask for 4 GiB here.
    let config = DecodeConfig { max_message_bytes: usize::MAX / 2, deflate: false };
    let mut bytes = b"\x82\x7f\0\0\0\xff\0\0\0\0abc".to_vec();
    let mut decoder = Decoder::new(Role::Client);
    assert_eq!(decoder.decode(&config, &mut &mut bytes[..]), Ok(None));
    assert!((3..100).contains(&decoder.kept_bytes()));
}

#[test]
fn a_server_frame_is_exactly_allocated() {
    for len in [0, 1, 125, 126, 65_535, 65_536] {
        let payload = vec![b'x'; len];
        let mut encoded = Vec::new();
        encode(
            &mut encoded,
            OpCode::Text,
            false,
            None,
            &[&payload[..len / 2], &payload[len / 2..]],
        );
        assert_eq!(server_frame(OpCode::Text, &[&payload]), encoded);
    }
}

proptest! {
    #[test]
    fn what_one_end_writes_the_other_reads(
        server in any::<bool>(),
        plan in proptest::collection::vec(planned(), 0..8),
        cuts in proptest::collection::vec(any::<Index>(), 0..20),
    ) {
        let (writer, reader) = if server { (Role::Server, Role::Client) } else { (Role::Client, Role::Server) };
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for planned in &plan {
            planned.write(writer, &mut bytes, &mut expected);
        }
        let pieces = cut(&bytes, &cuts);
        prop_assert_eq!(decode_all(reader, &pieces), Ok(expected));
    }

    #[test]
    fn any_bytes_decode_or_fail_alike_however_cut(
        server in any::<bool>(),
        bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), Just(0x81), Just(0x01), Just(0x80), Just(0x89), Just(0xc1), 0_u8..4],
            0..200,
        ),
        cuts in proptest::collection::vec(any::<Index>(), 0..20),
    ) {
        let role = if server { Role::Server } else { Role::Client };
        let whole = decode_all(role, &[&bytes]);
        let pieces = cut(&bytes, &cuts);
        prop_assert_eq!(decode_all(role, &pieces), whole);
    }
}

/// A message, how it is sent, and the pings between its fragments.
#[derive(Debug, Clone)]
struct Planned {
    message: Message,
    compressed: bool,
    mask: [u8; 4],
    splits: Vec<Index>,
    pings: Vec<Vec<u8>>,
}

fn planned() -> impl Strategy<Value = Planned> {
    let short = proptest::collection::vec(any::<u8>(), 0..300);
    let long = (any::<u8>(), 60_000_usize..70_000).prop_map(|(byte, len)| vec![byte; len]);
    let message = prop_oneof![
        8 => any::<String>().prop_map(|text| Message::Text(text.into())),
        8 => short.prop_map(|bytes| Message::Binary(bytes.into())),
        1 => long.prop_map(|bytes| Message::Binary(bytes.into())),
    ];
    (
        message,
        any::<bool>(),
        any::<[u8; 4]>(),
        proptest::collection::vec(any::<Index>(), 0..4),
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..=125), 0..3),
    )
        .prop_map(|(message, compressed, mask, splits, pings)| Planned {
            message,
            compressed,
            mask,
            splits,
            pings,
        })
}

impl Planned {
    fn write(&self, writer: Role, bytes: &mut Vec<u8>, expected: &mut Vec<Incoming>) {
        let mask = (writer == Role::Client).then_some(self.mask);
        let compressed = deflate::compress(self.message.as_bytes());
        let payload = if self.compressed { &compressed } else { self.message.as_bytes() };
        let fragments = cut(payload, &self.splits);
        let mut pings = self.pings.iter();
        for (index, fragment) in fragments.iter().enumerate() {
            let opcode = if index == 0 { self.message.opcode() } else { OpCode::Continuation };
            let start = bytes.len();
            encode(bytes, opcode, self.compressed && index == 0, mask, &[fragment]);
            if index + 1 < fragments.len() {
                bytes[start] &= 0x7f;
                if let Some(ping) = pings.next() {
                    encode(bytes, OpCode::Ping, false, mask, &[ping]);
                    expected.push(Incoming::Ping(ping.clone().into()));
                }
            }
        }
        expected.push(Incoming::Message(self.message.clone()));
    }
}

/// Cuts `bytes` at these places into pieces, some of them empty; at least one.
fn cut<'a>(bytes: &'a [u8], places: &[Index]) -> Vec<&'a [u8]> {
    let mut places = places.iter().map(|place| place.index(bytes.len() + 1)).collect::<Vec<_>>();
    places.sort_unstable();
    let mut pieces = Vec::new();
    let mut start = 0;
    for place in places.into_iter().chain([bytes.len()]) {
        pieces.push(&bytes[start..place]);
        start = place;
    }
    pieces
}

/// Decodes pieces as they would come from a socket; the first error ends it.
fn decode_all(role: Role, pieces: &[&[u8]]) -> Result<Vec<Incoming>, Error> {
    let mut decoder = Decoder::new(role);
    let mut all = Vec::new();
    let mut given = 0;
    for piece in pieces {
        given += piece.len();
        let mut piece = piece.to_vec();
        let mut input = &mut piece[..];
        while let Some(incoming) = decoder.decode(&CONFIG, &mut input)? {
            all.push(incoming);
        }
        assert!(input.is_empty(), "`None` means that all was taken");
        assert!(decoder.kept_bytes() <= 2 * given + CONTROL_MAX_BYTES, "more memory than input");
    }
    Ok(all)
}
