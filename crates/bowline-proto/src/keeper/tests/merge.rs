//! Two connections, one stream.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use proptest::{collection::vec, prelude::*};

use super::super::{ConnectionId, Merge, Merged};
use crate::Time;

const OLD: ConnectionId = ConnectionId(1);
const NEW: ConnectionId = ConnectionId(2);

#[test]
fn the_older_one_speaks_and_what_the_newer_one_has_beyond_follows() {
    let mut merge = both_open();
    arrive(&mut merge, 0, OLD, ["a"]);
    arrive(&mut merge, 0, NEW, ["a", "b", "c"]);
    arrive(&mut merge, 0, OLD, ["b"]);
    assert_eq!(merge.held(), 1);
    assert_eq!(told(&mut merge), ["1 a", "2 a again", "1 b", "2 b again"]);
    merge.end(at(1), OLD);
    assert_eq!((told(&mut merge), merge.held()), (vec!["2 c".to_owned()], 0));
    arrive(&mut merge, 1, NEW, ["d"]);
    assert_eq!(told(&mut merge), ["2 d"]);
}

#[test]
fn alone_a_connection_is_passed_on_as_it_is() {
    let mut merge = Merge::default();
    merge.open(at(0), OLD);
    for own_id in [true, false] {
        merge.arrived(at(0), OLD, ("x", own_id), 1, "x");
    }
    // The service tells what it wants to be acknowledged once more; without ids two people say the same.
    for own_id in [true, false] {
        merge.arrived(at(0), OLD, ("x", own_id), 1, "x");
    }
    assert_eq!(told(&mut merge), ["1 x", "1 x", "1 x again", "1 x"]);
}

#[test]
fn what_is_said_twice_without_an_id_comes_out_twice() {
    let mut merge = both_open();
    for (connection, times) in [(OLD, 2), (NEW, 3)] {
        (0..times).for_each(|_| merge.arrived(at(0), connection, ("yes", false), 3, "yes"));
    }
    merge.end(at(1), OLD);
    let told = told(&mut merge);
    assert_eq!(told.iter().filter(|line| !line.ends_with("again")).count(), 3);
    assert_eq!(told.len(), 5);
}

#[test]
fn a_copy_may_come_shortly_after_the_older_one_has_gone() {
    let mut merge = both_open();
    merge.arrived(at(0), OLD, ("yes", false), 3, "yes");
    merge.end(at(1), OLD);
    merge.arrived(at(2), NEW, ("yes", false), 3, "yes");
    // And once only.
    merge.arrived(at(2), NEW, ("yes", false), 3, "yes");
    assert_eq!(told(&mut merge), ["1 yes", "2 yes again", "2 yes"]);
    merge.open(at(3), ConnectionId(3));
    merge.arrived(at(20), ConnectionId(3), ("yes", false), 3, "yes");
    merge.end(at(21), NEW);
    assert_eq!(told(&mut merge), ["3 yes"]);
}

#[test]
fn what_was_said_before_a_connection_was_opened_has_no_copy_on_it() {
    // Just before is another matter: the service may have known of it already.
    for (opened, lines) in [(600, ["1 yes", "2 yes"]), (400, ["1 yes", "2 yes again"])] {
        let mut merge = Merge::new();
        merge.open(millis(0), OLD);
        merge.arrived(millis(0), OLD, ("yes", false), 3, "yes");
        merge.open(millis(opened), NEW);
        merge.arrived(millis(opened + 100), NEW, ("yes", false), 3, "yes");
        merge.end(millis(opened + 200), OLD);
        assert_eq!(told(&mut merge), lines);
    }
}

#[test]
fn equal_messages_in_quick_succession_are_told_apart_by_their_times() {
    for (older_late, newer_late) in [(0, 0), (0, 1), (1, 0), (0, 12), (12, 0)] {
        // One every 3 ms; the newer connection has them from the 100th on, the older one up to the 250th.
        let mut events: Vec<(u64, u64)> =
            (0..250).map(|n| (1_000 + 3 * n + older_late, 1)).collect();
        events.extend((100..400).map(|n| (1_000 + 3 * n + newer_late, 2)));
        let (opened, ended) = (1_000 + 3 * 100 - 2, 1_000 + 3 * 249 + older_late);
        events.sort_unstable();
        let mut merge = Merge::new();
        merge.open(millis(0), OLD);
        let mut is_beside = false;
        for (at, connection) in events {
            if at > opened && !std::mem::replace(&mut is_beside, at > opened) {
                merge.open(millis(opened), NEW);
            }
            if at > ended {
                merge.end(millis(ended), OLD);
            }
            merge.arrived(millis(at), ConnectionId(connection), ("tick", false), 4, "tick");
        }
        let told = told(&mut merge);
        let new = told.iter().filter(|line| !line.ends_with("again")).count();
        // When one of them is behind by more than the pause between two messages, nobody can tell.
        let off = new.abs_diff(400);
        assert!(
            off <= (older_late + newer_late) as usize / 3,
            "{off}: {older_late}, {newer_late} ms"
        );
    }
}

#[test]
fn what_a_connection_brought_that_was_not_proved_is_not_lost() {
    let mut merge = both_open();
    arrive(&mut merge, 0, NEW, ["a", "b"]);
    merge.end(at(1), NEW);
    arrive(&mut merge, 1, OLD, ["a", "b", "c"]);
    merge.end(at(1), NEW);
    assert_eq!(told(&mut merge), ["2 a", "2 b", "1 a again", "1 b again", "1 c"]);
}

#[test]
fn with_too_much_held_back_the_newer_one_speaks_before_its_time() {
    for (count, bytes) in [(1_025, 1), (9, 1024 * 1024)] {
        let mut merge = both_open();
        let ids: Vec<_> = (0..count + 10).map(|n| n.to_string()).collect();
        ids.iter().for_each(|id| merge.arrived(at(0), NEW, (id, true), bytes, "m"));
        assert_eq!(merge.held(), 0);
        assert_eq!(told(&mut merge).len(), ids.len());
        // The last ones of them at least are remembered.
        merge.arrived(at(0), OLD, (&ids[count], true), bytes, "m");
        merge.arrived(at(0), OLD, ("another", true), bytes, "m");
        merge.end(at(1), OLD);
        assert_eq!(told(&mut merge), ["1 m again", "1 m"]);
    }
}

#[test]
fn a_third_connection_ends_the_first_ones_time() {
    let mut merge = both_open();
    arrive(&mut merge, 0, NEW, ["a"]);
    merge.open(at(0), ConnectionId(3));
    arrive(&mut merge, 0, NEW, ["b"]);
    arrive(&mut merge, 0, ConnectionId(3), ["b", "c"]);
    arrive(&mut merge, 0, OLD, ["a"]);
    assert_eq!(told(&mut merge), ["2 a", "2 b", "3 b again", "1 a again"]);
    assert_eq!(merge.held(), 1);
}

/// Something that happens while two connections are open.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The service sends a message with one of a few contents to both.
    Send(u8),
    /// What is on its way on the older or the newer one arrives, as many.
    Older(usize),
    Newer(usize),
    Pass(u64),
}

proptest! {
    /// Three renewals, one after the other. Each message is sent on all connections that are open, and what is on its
    /// way when a connection ends is lost there.
    #[test]
    fn nothing_is_lost_nothing_comes_twice_and_order_is_kept(
        own_id in any::<bool>(),
        renewals in vec((vec(step(), 0..80), any::<bool>()), 1..4),
    ) {
        let mut merge = Merge::default();
        let mut now = at(10);
        let (mut sent, mut came) = (Vec::new(), Vec::new());
        let mut older = Pipe::new(1);
        merge.open(now, older.id);
        for (number, (steps, newer_fails)) in renewals.into_iter().enumerate() {
            let mut newer = Pipe::new(2 + number as u64);
            merge.open(now, newer.id);
            for step in steps {
                match step {
                    Step::Send(content) => {
                        let content = if own_id { format!("id {}", sent.len()) } else { format!("{content}") };
                        older.coming.push_back((sent.len(), content.clone()));
                        newer.coming.push_back((sent.len(), content.clone()));
                        sent.push(content);
                    }
                    Step::Older(count) => older.bring(&mut merge, now, count, own_id),
                    Step::Newer(count) => newer.bring(&mut merge, now, count, own_id),
                    Step::Pass(millis) => {
                        // Where only times tell equal ones apart, those of one have to be closer than those of two.
                        if !own_id {
                            older.bring(&mut merge, now, usize::MAX, own_id);
                            newer.bring(&mut merge, now, usize::MAX, own_id);
                        }
                        now += Duration::from_millis(millis);
                    }
                }
                drain(&mut merge, &mut came);
            }
            let (ends, stays) = if newer_fails { (newer, older) } else { (older, newer) };
            merge.end(now, ends.id);
            older = stays;
            older.bring(&mut merge, now, usize::MAX, own_id);
            drain(&mut merge, &mut came);
            prop_assert_eq!(merge.held(), 0);
            now += Duration::from_secs(2);
        }
        let (mut expected, mut contents) = (sent.clone(), Vec::new());
        let mut last: BTreeMap<ConnectionId, usize> = BTreeMap::new();
        for (connection, index) in came {
            let before = last.insert(connection, index);
            prop_assert!(before.is_none_or(|before| before < index), "{connection:?} out of order");
            contents.push(sent[index].clone());
        }
        expected.sort();
        contents.sort();
        prop_assert_eq!(contents, expected);
    }

    #[test]
    fn what_both_bring_comes_out_in_the_order_in_which_it_was_sent(steps in vec(step(), 0..120)) {
        let mut merge = both_open();
        let (mut older, mut newer) = (Pipe::new(1), Pipe::new(2));
        let (mut sent, mut came) = (0, Vec::new());
        for step in steps {
            match step {
                Step::Send(_) => {
                    older.coming.push_back((sent, sent.to_string()));
                    newer.coming.push_back((sent, sent.to_string()));
                    sent += 1;
                }
                Step::Older(count) => older.bring(&mut merge, at(0), count, true),
                Step::Newer(count) => newer.bring(&mut merge, at(0), count, true),
                Step::Pass(_) => (),
            }
        }
        merge.end(at(1), OLD);
        newer.bring(&mut merge, at(1), usize::MAX, true);
        drain(&mut merge, &mut came);
        prop_assert_eq!(came.into_iter().map(|(_, index)| index).collect::<Vec<_>>(), (0..sent).collect::<Vec<_>>());
    }
}

/// A connection, and what is on its way on it.
struct Pipe {
    id: ConnectionId,
    coming: VecDeque<(usize, String)>,
}

impl Pipe {
    fn new(id: u64) -> Self {
        Self { id: ConnectionId(id), coming: VecDeque::new() }
    }

    fn bring(&mut self, merge: &mut Merge<usize>, now: Time, count: usize, own_id: bool) {
        for (index, content) in self.coming.drain(..count.min(self.coming.len())) {
            merge.arrived(now, self.id, (&content, own_id), content.len(), index);
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_u8).prop_map(Step::Send),
        2 => (0..4_usize).prop_map(Step::Older),
        2 => (0..4_usize).prop_map(Step::Newer),
        1 => (0..50_u64).prop_map(Step::Pass),
    ]
}

fn both_open<T>() -> Merge<T> {
    let mut merge = Merge::new();
    merge.open(at(0), OLD);
    merge.open(at(0), NEW);
    merge
}

fn arrive<const N: usize>(
    merge: &mut Merge<&'static str>,
    seconds: u64,
    on: ConnectionId,
    ids: [&'static str; N],
) {
    for id in ids {
        merge.arrived(at(seconds), on, (id, true), id.len(), id);
    }
}

/// What comes out, in words.
fn told(merge: &mut Merge<&'static str>) -> Vec<String> {
    std::iter::from_fn(|| merge.poll())
        .map(|merged| match merged {
            Merged::New { connection, message } => format!("{} {message}", connection.0),
            Merged::Copy { connection, message } => format!("{} {message} again", connection.0),
        })
        .collect()
}

/// What is new of what comes out.
fn drain(merge: &mut Merge<usize>, came: &mut Vec<(ConnectionId, usize)>) {
    while let Some(merged) = merge.poll() {
        if let Merged::New { connection, message } = merged {
            came.push((connection, message));
        }
    }
}

fn at(seconds: u64) -> Time {
    millis(seconds * 1_000)
}

fn millis(millis: u64) -> Time {
    Time::from_micros(millis * 1_000)
}
