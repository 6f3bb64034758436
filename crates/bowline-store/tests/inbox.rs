//! What the inbox promises: dedup, order, counts, traces, and that old things go.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeSet, time::Duration};

use bowline_store::{Arrival, Counts, Options, Put, Stage, Store};
use bytes::Bytes;

const HOUR: u64 = 3600 * 1000;

#[tokio::test]
async fn a_repetition_is_known_until_a_sweep_24_hours_after_its_confirmation() {
    let (_directory, store) = store();
    let inbox = store.inbox();
    assert!(matches!(inbox.put(arrival("a", "1", 0)).await, Put::New { .. }));
    assert_eq!(inbox.put(arrival("a", "1", 5)).await, Put::Seen);
    assert!(matches!(inbox.put(arrival("b", "1", 5)).await, Put::New { .. }), "another link's");
    assert_eq!(inbox.put(arrival("a", "1", 90 * HOUR)).await, Put::Seen, "it waits still");

    inbox.step("a", "1", Stage::Confirmed, 100 * HOUR, "").await;
    assert_eq!(inbox.sweep(124 * HOUR - 1).await, 0);
    let in_a_year = arrival("a", "1", 9000 * HOUR);
    assert_eq!(inbox.put(in_a_year).await, Put::Seen, "says a clock that is wrong");
    assert_eq!(inbox.sweep(124 * HOUR).await, 1);
    assert!(matches!(inbox.put(arrival("a", "1", 124 * HOUR)).await, Put::New { .. }));
    assert_eq!(inbox.waiting("a", 0, 10).await.len(), 1);
}

#[tokio::test]
async fn what_waits_comes_in_the_order_of_arrival_until_it_is_confirmed_or_parked() {
    let (directory, store) = store();
    let inbox = store.inbox();
    for id in ["1", "2", "3", "4"] {
        inbox.put(arrival("a", id, id.parse().unwrap())).await;
    }
    assert_eq!(ids(&store, 0, 10).await, ["1", "2", "3", "4"]);
    let first = inbox.waiting("a", 0, 2).await;
    assert_eq!(first.len(), 2);
    assert_eq!(ids(&store, first[1].seq, 10).await, ["3", "4"]);

    assert_eq!(inbox.step("a", "1", Stage::Offered, 10, "").await, Some(1));
    assert_eq!(inbox.step("a", "1", Stage::Offered, 11, "").await, Some(2));
    inbox.step("a", "1", Stage::Confirmed, 12, "").await;
    inbox.step("a", "2", Stage::Parked, 13, "10 offers").await;
    let counts = Counts { waiting: 2, parked: 1, oldest_unix_ms: Some(3), waiting_bytes: 18 };
    assert_eq!(inbox.counts("a"), counts);
    for id in ["1", "2"] {
        let offers = inbox.step("a", id, Stage::Offered, 14, "").await;
        assert_eq!(offers, Some(0), "{id} does not wait any more");
    }
    inbox.step("a", "3", Stage::Offered, 14, "").await;
    store.close().await;

    let store = Store::open(directory.path().join("links.db"));
    let waiting = store.inbox().waiting("a", 0, 10).await;
    let seen: Vec<_> = waiting.iter().map(|one| (one.arrival.id.as_str(), one.offers)).collect();
    assert_eq!(seen, [("3", 1), ("4", 0)], "offers go on being counted");
    assert_eq!(waiting[0].arrival.body, "body of 3");
    assert_eq!(store.inbox().counts("a"), counts, "counted or read, they are the same");
}

#[tokio::test]
async fn a_trace_tells_what_happened_and_when() {
    let (_directory, store) = store();
    let inbox = store.inbox();
    inbox.put(arrival("a", "1", 1)).await;
    for (stage, at, words) in [
        (Stage::Fetched, 2, ""),
        (Stage::Offered, 3, "to the bot over the proxy"),
        (Stage::Confirmed, 4, ""),
        (Stage::Replied, 5, "ü".repeat(1000).as_str()),
    ] {
        inbox.step("a", "1", stage, at, words).await;
    }
    let trace = inbox.trace("1").await;
    let seen: Vec<_> = trace.iter().map(|step| (step.stage, step.at_unix_ms)).collect();
    let wanted = [
        (Stage::Arrived, 1),
        (Stage::Fetched, 2),
        (Stage::Offered, 3),
        (Stage::Confirmed, 4),
        (Stage::Replied, 5),
    ];
    assert_eq!(seen, wanted);
    assert_eq!(trace[0].words, "in room r");
    assert_eq!(trace[4].words.len(), 500, "words are cut");
    assert_eq!(inbox.trace("2").await, []);

    for at in 0..100 {
        inbox.step("a", "1", Stage::Replied, at, "").await;
    }
    assert_eq!(inbox.trace("1").await.len(), 1 + 64, "and lines are limited");
    assert_eq!(inbox.step("a", "no such", Stage::Offered, 1, "").await, Some(0));
}

#[tokio::test]
async fn confirmed_goes_after_24_hours_and_parked_after_7_days() {
    let (_directory, store) = store();
    let inbox = store.inbox();
    for number in 0..20 {
        let id = number.to_string();
        inbox.put(arrival("a", &id, 0)).await;
        inbox.step("a", &id, Stage::Confirmed, HOUR, "").await;
    }
    inbox.put(arrival("a", "parked", 0)).await;
    inbox.step("a", "parked", Stage::Parked, HOUR, "").await;
    inbox.put(arrival("a", "waits", 0)).await;

    assert_eq!(inbox.sweep(25 * HOUR - 1).await, 0);
    assert_eq!(inbox.sweep(25 * HOUR).await, 20);
    assert_eq!(inbox.trace("7").await, []);
    assert_eq!((inbox.counts("a").waiting, inbox.counts("a").parked), (1, 1));
    assert_eq!(inbox.sweep(169 * HOUR).await, 1);
    assert_eq!(inbox.counts("a").parked, 0);
    inbox.set_links(names(&["a"]));
    assert_eq!(
        inbox.sweep(100_000 * HOUR).await,
        0,
        "what waits of a link that is there never goes"
    );
}

#[tokio::test]
async fn what_was_done_while_the_clock_was_a_year_ahead_is_not_kept_for_a_year() {
    let (_directory, store) = store();
    let inbox = store.inbox();
    inbox.put(arrival("a", "1", 0)).await;
    inbox.step("a", "1", Stage::Confirmed, 9000 * HOUR, "").await;
    assert_eq!(inbox.sweep(HOUR).await, 0);
    assert_eq!(inbox.put(arrival("a", "1", HOUR)).await, Put::Seen);
    assert_eq!(inbox.sweep(25 * HOUR).await, 1);
}

#[tokio::test]
async fn what_waits_of_a_link_that_is_gone_is_told_and_kept_for_7_days() {
    let (directory, store) = store();
    let inbox = store.inbox();
    inbox.set_links(names(&["a", "b"]));
    for link in ["a", "b"] {
        inbox.put(arrival(link, "1", HOUR)).await;
    }
    inbox.put(arrival("a", "parked", HOUR)).await;
    inbox.step("a", "parked", Stage::Parked, HOUR, "").await;
    assert_eq!(inbox.gone(), []);

    inbox.set_links(names(&["b"]));
    let gone = inbox.gone();
    assert_eq!((gone.len(), gone[0].link.as_str()), (1, "a"));
    assert_eq!((gone[0].counts.waiting, gone[0].counts.parked), (1, 1));
    // Another process goes on from when the first one noticed.
    inbox.set("a", "gone", Some(&HOUR.to_string())).await;
    store.close().await;
    let store = Store::open(directory.path().join("links.db"));
    let inbox = store.inbox();
    assert_eq!(inbox.gone(), [], "nobody has told it which links there are");
    assert_eq!(inbox.sweep(HOUR).await, 0);
    inbox.set_links(names(&["b"]));
    assert_eq!(inbox.sweep(HOUR).await, 0);
    let gone = inbox.gone();
    assert_eq!((gone[0].since_unix_ms, gone[0].until_unix_ms), (HOUR, 169 * HOUR));

    inbox.set_links(names(&["a", "b"]));
    assert_eq!(inbox.sweep(169 * HOUR).await, 1, "the parked one");
    assert_eq!(ids(&store, 0, 10).await, ["1"], "its link is back, and it waits");
    inbox.set_links(names(&["b"]));
    assert_eq!(inbox.sweep(169 * HOUR).await, 0, "its 7 days begin anew");
    // When the link went, by the clock of this test; the store has looked at the real one.
    inbox.set("a", "gone", Some(&(169 * HOUR).to_string())).await;
    assert_eq!(inbox.sweep(337 * HOUR - 1).await, 0);
    assert_eq!(inbox.sweep(337 * HOUR).await, 1);
    assert_eq!(inbox.gone(), []);
    assert_eq!(inbox.counts("b").waiting, 1);
    inbox.sweep(337 * HOUR).await;
    assert_eq!(inbox.get("a", "gone").await, None, "nothing is left of it");
}

#[tokio::test]
async fn what_waits_of_a_link_that_is_gone_can_be_let_go_and_is_known_when_it_comes_again() {
    let (_directory, store) = store();
    let inbox = store.inbox();
    inbox.set_links(names(&["a", "b"]));
    for number in 0..1200 {
        inbox.put(arrival("a", &number.to_string(), 0)).await;
    }
    inbox.put(arrival("b", "1", 0)).await;
    inbox.step("a", "7", Stage::Parked, 1, "").await;
    assert_eq!(inbox.let_go("a", HOUR).await, 0, "it is configured");
    inbox.set_links(names(&["b"]));
    assert_eq!(inbox.let_go("a", HOUR).await, 1200);
    assert_eq!(
        (inbox.gone(), inbox.counts("a"), inbox.counts("b").waiting),
        (vec![], Counts::default(), 1)
    );
    assert_eq!(inbox.put(arrival("a", "5", HOUR)).await, Put::Seen);
    let last = inbox.trace("5").await.pop().unwrap();
    assert_eq!((last.stage, last.words.as_str()), (Stage::Confirmed, "let go: its link is gone"));
}

#[tokio::test]
async fn what_is_parked_is_listed_with_its_reason_and_waits_again_when_somebody_asks() {
    let (directory, store) = store();
    let inbox = store.inbox();
    for number in 0..1200 {
        inbox.put(arrival("a", &number.to_string(), number)).await;
    }
    inbox.put(arrival("b", "1", 0)).await;
    for (link, id, at) in [("a", "2", 20), ("a", "1", 30), ("b", "1", 10)] {
        inbox.step(link, id, Stage::Offered, at, "").await;
        inbox.step(link, id, Stage::Parked, at, &format!("why {id}")).await;
    }
    let parked = inbox.parked("a", 10).await;
    let seen: Vec<_> = (parked.iter())
        .map(|one| (one.id.as_str(), one.since_unix_ms, one.offers, one.words.as_str()))
        .collect();
    assert_eq!(seen, [("2", 20, 1, "why 2"), ("1", 30, 1, "why 1")]);
    assert_eq!(parked[0].room, "r");
    assert_eq!(inbox.parked("a", 1).await.len(), 1);

    assert_eq!(inbox.offer_again("a", Some("3"), 40).await, Some(0), "it waits as it is");
    assert_eq!(inbox.offer_again("a", Some("1"), 40).await, Some(1));
    let counts = inbox.counts("a");
    assert_eq!((counts.waiting, counts.parked, counts.oldest_unix_ms), (1199, 1, Some(0)));
    let first = inbox.waiting("a", 0, 2).await;
    assert_eq!((first[1].arrival.id.as_str(), first[1].offers), ("1", 0), "in its old place");
    assert_eq!(first[1].arrival.body, "body of 1");
    let last = inbox.trace("1").await.into_iter().rfind(|step| step.link == "a").unwrap();
    assert_eq!((last.stage, last.at_unix_ms), (Stage::Retried, 40));
    assert_eq!(inbox.step("a", "1", Stage::Offered, 50, "").await, Some(1));

    for number in 0..1200 {
        inbox.step("a", &number.to_string(), Stage::Parked, 60, "").await;
    }
    assert_eq!(inbox.offer_again("a", None, 70).await, Some(1200), "in more than one go");
    assert_eq!(inbox.parked("a", 10).await, []);
    assert_eq!(inbox.sweep(1000 * HOUR).await, 1, "the other link's");
    let counts = inbox.counts("a");
    store.close().await;
    let store = Store::open(directory.path().join("links.db"));
    assert_eq!(store.inbox().waiting("a", 0, 2000).await.len(), 1200);
    assert_eq!(store.inbox().counts("a"), counts, "counted or read, they are the same");
}

#[tokio::test]
async fn no_link_takes_the_place_of_all_others_and_all_together_stay_below_the_limit() {
    let (_directory, store) = store();
    let inbox = store.inbox();
    assert_eq!(inbox.room("a", 20), 20, "who is alone has all");
    inbox.set_links(names(&["a", "b", "c", "gone"]));
    inbox.put(arrival("gone", "1", 0)).await;
    inbox.set_links(names(&["a", "b", "c"]));
    let fill = async |link: &str| {
        let mut count = 0;
        while inbox.room(link, 20) > 0 {
            inbox.put(arrival(link, &count.to_string(), 0)).await;
            count += 1;
        }
        count
    };
    assert_eq!(fill("a").await, 14, "its third of one half, and the other half with what is over");
    assert_eq!(inbox.room("a", 20), 0);
    assert_eq!((inbox.room("b", 20), inbox.room("c", 20)), (3, 3));
    assert_eq!((fill("b").await, fill("c").await), (3, 3));
    inbox.step("a", "0", Stage::Confirmed, 0, "").await;
    assert_eq!((inbox.room("a", 20), inbox.room("b", 20)), (1, 1), "whoever comes first");
    inbox.step("b", "0", Stage::Confirmed, 0, "").await;
    assert_eq!((inbox.room("a", 20), inbox.room("b", 20)), (1, 2));
    assert_eq!(inbox.room("c", 2), 0, "fewer than links");
    assert_eq!(inbox.room("c", 0), 0);
}

#[tokio::test]
async fn what_waits_is_read_in_pieces_that_fit_into_memory() {
    let (_directory, store) = store();
    let inbox = store.inbox();
    for number in 0..5 {
        let body = Bytes::from(vec![b'x'; 3 << 20]);
        inbox.put(Arrival { body, ..arrival("a", &number.to_string(), 0) }).await;
    }
    let huge = Bytes::from(vec![b'x'; 16 << 20]);
    inbox.put(Arrival { body: huge, ..arrival("a", "5", 0) }).await;
    let (mut after, mut pieces) = (0, Vec::new());
    while let piece @ [.., last] = &inbox.waiting("a", after, 256).await[..] {
        after = last.seq;
        pieces.push(piece.len());
    }
    assert_eq!(pieces, [3, 3]);
    assert_eq!(inbox.counts("a").waiting_bytes, 31 << 20);
}

#[tokio::test]
async fn what_is_old_is_swept_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { sweep: Duration::from_millis(10), ..Options::default() };
    let store = Store::open_with(directory.path().join("links.db"), options);
    let inbox = store.inbox();
    inbox.put(arrival("a", "old", 0)).await;
    inbox.put(arrival("a", "waits", 0)).await;
    inbox.step("a", "old", Stage::Confirmed, HOUR, "").await;
    while !inbox.trace("old").await.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(ids(&store, 0, 10).await, ["waits"]);
}

#[tokio::test]
async fn facts_are_remembered_and_forgotten() {
    let (directory, store) = store();
    let inbox = store.inbox();
    inbox.set("a", "room", Some("x")).await;
    inbox.set("a", "room", Some("y")).await;
    inbox.set("b", "room", Some("z")).await;
    inbox.set("b", "room", None).await;
    store.close().await;
    let store = Store::open(directory.path().join("links.db"));
    assert_eq!(store.inbox().get("a", "room").await.as_deref(), Some("y"));
    assert_eq!(store.inbox().get("b", "room").await, None);
}

#[tokio::test]
async fn two_processes_share_the_file_during_an_upgrade() {
    let (directory, old) = store();
    let new = Store::open(directory.path().join("links.db"));
    for number in 0..20 {
        let id = number.to_string();
        let (one, other) = if number % 2 == 0 { (&old, &new) } else { (&new, &old) };
        let put = one.inbox().put(arrival("a", &id, 0)).await;
        assert!(matches!(put, Put::New { .. }), "{put:?} {:?}", one.health());
        let put = other.inbox().put(arrival("a", &id, 0)).await;
        assert_eq!(put, Put::Seen, "{:?}", other.health());
    }
    assert_eq!(ids(&new, 0, 100).await.len(), 20);
    assert_eq!(new.inbox().counts("a").waiting, 20, "asked from the beginning it counts anew");
    old.close().await;
    assert_eq!(new.inbox().put(arrival("a", "19", 0)).await, Put::Seen);
    assert_eq!(
        old.inbox().put(arrival("a", "20", 0)).await,
        Put::Refused,
        "a closed store takes nothing"
    );
    let step = old.inbox().step("a", "19", Stage::Offered, 1, "").await;
    assert_eq!(step, None, "that says nothing of the message");
}

fn names(links: &[&str]) -> BTreeSet<String> {
    links.iter().map(|link| (*link).to_owned()).collect()
}

async fn ids(store: &Store, after_seq: u64, limit: usize) -> Vec<String> {
    let waiting = store.inbox().waiting("a", after_seq, limit).await;
    waiting.into_iter().map(|entry| entry.arrival.id).collect()
}

fn arrival(link: &str, id: &str, at_unix_ms: u64) -> Arrival {
    Arrival {
        link: link.to_owned(),
        id: id.to_owned(),
        room: "r".to_owned(),
        at_unix_ms,
        body: Bytes::from(format!("body of {id}")),
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("links.db"));
    (directory, store)
}
