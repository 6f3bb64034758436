//! Sessions outlive their transports in a few dozen worlds. More: `cargo xtask sim --seeds 100000`.

use bowline_sim::continuity::{self, Counts};

fn check(seeds: impl Iterator<Item = u64>) -> Counts {
    let mut sum = Counts::default();
    for seed in seeds {
        sum.add(&continuity::run(seed, None));
    }
    sum
}

#[test]
fn worlds_hold() {
    let counts = check(0..24);
    assert!(counts.recovered > 0 && counts.restarts > 0 && counts.repeated > 0, "{counts}");
    assert!(counts.acks > 0 && counts.said > 0 && counts.away > 0, "{counts}");
}

/// Found by long runs; what each was about stands in the tests of `proto::hub`.
#[test]
fn seeds_that_once_failed_hold() {
    check([128, 198, 216, 234, 288, 310, 567, 588, 837].into_iter());
}

#[test]
fn more_seeds_that_once_failed_hold() {
    check([1202, 1375, 2038, 5017, 7212, 7300, 17_496, 25_059, 37_983].into_iter());
}

#[test]
fn a_seed_says_everything() {
    assert_eq!(continuity::run(7, None), continuity::run(7, None));
}
