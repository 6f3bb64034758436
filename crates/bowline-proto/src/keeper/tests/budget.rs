//! Attempts to one host, over all links.

use std::time::Duration;

use proptest::{collection::vec, prelude::*};

use super::super::Budget;
use crate::Time;

#[test]
fn two_hundred_links_come_back_one_after_the_other() {
    let mut budget = Budget::new(5, 5);
    let now = at(100_000);
    let slots: Vec<_> = (0..200).map(|_| budget.reserve(now, "wss.example") - now).collect();
    assert!(slots[..5].iter().all(Duration::is_zero));
    assert_eq!(slots[5], Duration::from_millis(200));
    assert_eq!(slots[199], Duration::from_secs(39));
    // Another host has nothing to do with it.
    assert_eq!(budget.reserve(now, "other.example"), now);
    // After a rest the bucket is full again, and not fuller.
    let later = now + Duration::from_secs(60);
    let again: Vec<_> = (0..7).map(|_| budget.reserve(later, "wss.example") - later).collect();
    assert!(again[..5].iter().all(Duration::is_zero));
    assert_eq!(again[6], Duration::from_millis(400));
}

#[test]
fn a_budget_of_nothing_counts_as_one_each_second() {
    let mut budget = Budget::new(0, 0);
    let slots: Vec<_> = (0..3).map(|_| budget.reserve(at(0), "a")).collect();
    assert_eq!(slots, [at(0), at(1_000), at(2_000)]);
}

#[test]
fn more_hosts_than_are_told_apart_share_a_bucket() {
    let mut budget = Budget::new(1, 1);
    for host in 0..1_024 {
        assert_eq!(budget.reserve(at(0), &host.to_string()), at(0));
    }
    let slots: Vec<_> = (0..3).map(|n| budget.reserve(at(0), &format!("late {n}"))).collect();
    assert_eq!(slots, [at(0), at(1_000), at(2_000)]);
    // When the others have rested, there is room.
    assert_eq!(budget.reserve(at(5_000), "later"), at(5_000));
    assert_eq!(budget.reserve(at(5_000), "late 9"), at(5_000));
}

proptest! {
    #[test]
    fn no_window_has_more_than_its_share(
        per_second in 1..50_u32,
        burst in 1..20_u32,
        pauses in vec(0..2_000_u64, 1..200),
    ) {
        let mut budget = Budget::new(per_second, burst);
        let (mut now, mut slots) = (at(0), Vec::new());
        for pause in pauses {
            // Mostly at once, as after the loss of a service.
            now += Duration::from_millis(if pause % 3 == 0 { pause } else { 0 });
            let slot = budget.reserve(now, "host");
            prop_assert!(slot >= now);
            slots.push(slot);
        }
        prop_assert!(slots.is_sorted(), "who asks first goes first");
        for (n, first) in slots.iter().enumerate() {
            for (more, last) in slots[n..].iter().enumerate() {
                let share = (*last - *first).as_secs_f64() * f64::from(per_second) + f64::from(burst);
                prop_assert!((more + 1) as f64 <= share + 0.001);
            }
        }
    }
}

fn at(millis: u64) -> Time {
    Time::from_micros(millis * 1_000)
}
