//! One answer, and those who read it.

use std::iter;

use bowline_ai::{keys::Digest, wire::Surface};

use super::*;

const BOUNDS: Bounds = Bounds {
    max: 10,
    bytes: 1 << 20,
    answer_bytes: 8,
    keep: Duration::from_secs(60),
    linger: Duration::from_millis(20),
};

/// No wait of this file may take longer.
const DEADLINE: Duration = Duration::from_secs(10);

fn all() -> Arc<Idempotency> {
    Arc::new(Idempotency::new(BOUNDS))
}

fn new(all: &Arc<Idempotency>) -> (Place, Reader) {
    match all.begin([1; 32], [2; 32]) {
        Begun::New(place, reader) => (place, reader),
        Begun::Known(_) | Begun::Refused(_) => panic!("it is known"),
    }
}

fn known(all: &Arc<Idempotency>) -> Result<Reader, Option<Refused>> {
    match all.begin([1; 32], [2; 32]) {
        Begun::Known(reader) => Ok(reader),
        Begun::Refused(why) => Err(Some(why)),
        Begun::New(..) => Err(None),
    }
}

/// Writes as [`Place::write`] does where there is room.
fn write(place: &Place, piece: &'static str) {
    let kept = lock(&place.all.store).grow(&place.key, piece.len());
    assert!(kept || place.has_room());
    place.push(Bytes::from_static(piece.as_bytes()), !kept);
}

async fn rest(reader: &mut Reader) -> (Vec<Bytes>, Next) {
    let mut pieces = Vec::new();
    loop {
        match timeout(DEADLINE, reader.next()).await.unwrap() {
            Next::Piece(piece) => pieces.push(piece),
            end => return (pieces, end),
        }
    }
}

#[tokio::test]
async fn all_who_join_read_the_same_and_so_does_who_comes_later() {
    let all = all();
    let (mut place, mut first) = new(&all);
    place.head(StatusCode::OK, HeaderMap::new(), true);
    write(&place, "one ");
    assert!(first.head().await.is_some_and(|head| head.streams));
    assert_eq!(first.next().await, Next::Piece("one ".into()));
    let mut second = known(&all).unwrap();
    // It waits for what is not there yet.
    assert!(timeout(Duration::from_millis(5), first.next()).await.is_err());
    write(&place, "two ");
    place.end(true);
    assert_eq!(rest(&mut first).await, (vec!["two ".into()], Next::End));
    for reader in [&mut second, &mut known(&all).unwrap()] {
        assert_eq!(rest(reader).await, (vec!["one ".into(), "two ".into()], Next::End));
    }
    assert_eq!((all.counts(), all.held().0), ([1, 1], 1));
}

#[tokio::test]
async fn an_answer_that_is_given_up_is_told_as_broken_and_its_key_is_free() {
    let all = all();
    let (place, mut reader) = new(&all);
    drop(place);
    assert!(timeout(DEADLINE, reader.head()).await.unwrap().is_none());
    assert_eq!(rest(&mut reader).await, (vec![], Next::Broken));
    assert_eq!((known(&all).err(), all.held()), (Some(None), (0, 0)));
}

#[tokio::test]
async fn a_failure_is_told_to_all_who_wait_and_not_kept() {
    let all = all();
    let (mut place, mut first) = new(&all);
    let mut second = known(&all).unwrap();
    let (headers, body) = (HeaderMap::new(), Bytes::from_static(b"{}"));
    place.write_whole(Whole { status: StatusCode::BAD_GATEWAY, headers, body });
    for reader in [&mut first, &mut second] {
        assert_eq!(reader.head().await.unwrap().status, StatusCode::BAD_GATEWAY);
        assert_eq!(rest(reader).await, (vec!["{}".into()], Next::End));
    }
    assert!(matches!(known(&all), Err(None)));
}

#[tokio::test]
async fn a_long_answer_goes_to_those_who_read_and_nobody_joins_it() {
    let all = all();
    let (mut place, mut first) = new(&all);
    let mut second = known(&all).unwrap();
    place.head(StatusCode::OK, HeaderMap::new(), true);
    let long: &'static str = String::leak("x".repeat(limit::WAITING_BYTES_MAX));
    write(&place, long);
    assert!(matches!(known(&all), Err(Some(Refused::TooLong))));
    assert_eq!(first.next().await, Next::Piece(long.into()));
    // The other one has not read it.
    assert!(!place.has_room());
    assert_eq!(second.next().await, Next::Piece(long.into()));
    assert!(place.has_room());
    write(&place, "end");
    assert!(lock(&place.run.answer).bytes <= limit::WAITING_BYTES_MAX);
    place.end(true);
    for reader in [&mut first, &mut second] {
        assert_eq!(rest(reader).await, (vec!["end".into()], Next::End));
    }
    assert!(matches!(known(&all), Err(Some(Refused::TooLong))));
}

#[tokio::test]
async fn a_slow_reader_that_leaves_keeps_nobody() {
    let all = all();
    let (place, first) = new(&all);
    let long: &'static str = String::leak("x".repeat(limit::WAITING_BYTES_MAX));
    write(&place, long);
    assert!(!place.has_room());
    drop(first);
    assert!(place.has_room() && !place.run.is_read());
    assert_eq!(lock(&place.run.answer).bytes, 0);
}

#[tokio::test]
async fn nothing_is_kept_of_a_whole_answer_that_is_too_long() {
    for reads in [true, false] {
        let all = all();
        let (mut place, first) = new(&all);
        let mut first = Some(first).filter(|_| reads);
        let run = Arc::clone(&place.run);
        let (headers, body) = (HeaderMap::new(), Bytes::from_static(b"more than eight"));
        place.write_whole(Whole { status: StatusCode::OK, headers, body: body.clone() });
        if let Some(first) = &mut first {
            assert_eq!(rest(first).await, (vec![body], Next::End));
        }
        assert_eq!(lock(&run.answer).bytes, 0);
        assert!(matches!(known(&all), Err(Some(Refused::TooLong))));
    }
}

#[tokio::test]
async fn who_waits_for_room_hears_of_it_also_while_it_waits_to_be_deserted() {
    let all = all();
    let (place, mut first) = new(&all);
    let mut deserted = std::pin::pin!(place.run.deserted(BOUNDS.linger));
    let long: &'static str = String::leak("x".repeat(limit::WAITING_BYTES_MAX));
    write(&place, long);
    assert!(timeout(Duration::from_millis(5), &mut deserted).await.is_err());
    let writing = place.write("end".into(), std::future::pending());
    let both = async { tokio::join!(writing, first.next()) };
    let (wrote, read) = timeout(DEADLINE, both).await.unwrap();
    assert_eq!((wrote, read), (true, Next::Piece(long.into())));
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_goes_on_for_a_moment() {
    let all = all();
    let (place, first) = new(&all);
    let run = Arc::clone(&place.run);
    let mut deserted = std::pin::pin!(run.deserted(BOUNDS.linger));
    assert!(timeout(BOUNDS.linger * 2, &mut deserted).await.is_err());
    drop(first);
    let back = known(&all).unwrap();
    assert!(timeout(BOUNDS.linger * 2, &mut deserted).await.is_err());
    drop(back);
    timeout(DEADLINE, deserted).await.unwrap();
}

#[test]
fn a_key_is_its_owners_and_a_request_is_all_that_a_provider_is_told() {
    let owner = |digest| ClientKey {
        name: "app".into(),
        digest: Digest([digest; 32]),
        priority: Default::default(),
        limits: Default::default(),
    };
    let (one, other, mut narrowed) = (owner(1), owner(2), owner(1));
    narrowed.limits.models = Some(vec!["small".to_owned()]);
    let keys = [
        key_of(Some(&one), "a"),
        key_of(Some(&other), "a"),
        key_of(Some(&narrowed), "a"),
        key_of(Some(&one), "b"),
        key_of(None, "a"),
    ];
    let request = |surface, body: &'static str, header: Option<&'static str>| {
        let mut request = Request::new("id", surface, body.into());
        let header = header.map(http::HeaderValue::from_static);
        request
            .headers
            .extend(header.map(|value| (http::HeaderName::from_static("anthropic-beta"), value)));
        request_of(&request)
    };
    let requests = [
        request(Surface::Messages, "{}", None),
        request(Surface::ChatCompletions, "{}", None),
        request(Surface::Messages, "{ }", None),
        request(Surface::Messages, "{}", Some("x")),
    ];
    for hashes in [&keys[..], &requests] {
        for (at, hash) in iter::zip(0.., hashes) {
            assert!(!hashes[..at].contains(hash), "{at}");
        }
    }
    assert_eq!(key_of(Some(&one), "a"), keys[0]);
}
