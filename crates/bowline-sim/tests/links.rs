//! The keeper of links holds in a few dozen worlds, and a herd of links stays within its budget. More:
//! `cargo xtask sim --links --seeds 10000`.

use bowline_sim::links::{
    self, Counts, Failure,
    herd::{self, Herd},
};

#[test]
fn worlds_hold() {
    let mut sum = Counts::default();
    for seed in 1..37 {
        sum.add(&links::run(seed, None));
    }
    assert!(sum.renewals > 0 && sum.catch_ups > 0 && sum.caught_up > 0, "{sum}");
    assert!(sum.retries > 0 && sum.copies > 0 && sum.restarts > 0, "{sum}");
    for (failure, row) in Failure::ALL.iter().zip(&sum.idle) {
        assert!(row.messages > 0 && row.lost == 0 && row.doubled == 0, "{failure:?}: {row}");
    }
}

#[test]
fn a_quiet_day_costs_nothing() {
    let counts = links::run(0, None);
    assert_eq!(counts.days, 1);
    assert!(counts.day_probes <= 150, "{counts}");
}

#[test]
fn a_seed_says_everything() {
    assert_eq!(links::run(7, None), links::run(7, None));
}

#[test]
fn a_herd_comes_back_one_by_one() {
    let herd = Herd::default();
    for seed in 0..4 {
        let with = herd::run(seed, &herd);
        let (per_second, burst) = herd.budget.unwrap();
        assert!(with.most_in_a_second <= per_second + burst, "{}", with.most_in_a_second);
        let after = herd.lost + std::time::Duration::from_secs(2);
        let later = &with.attempts[usize::try_from(after.as_secs()).unwrap()..];
        assert!(later.iter().all(|count| *count <= per_second + 1), "{later:?}");
        assert!(with.back_after.is_some(), "not all of them came back");
        let without = herd::run(seed, &Herd { budget: None, ..herd.clone() });
        assert!(without.most_in_a_second > 20 * per_second, "{}", without.most_in_a_second);
    }
}
