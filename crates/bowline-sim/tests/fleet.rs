//! The plan of services holds in a few dozen worlds. More: `cargo xtask sim --fleet --seeds 10000`.

use bowline_sim::fleet::{self, Counts};

#[test]
fn worlds_hold() {
    let mut sum = Counts::default();
    for seed in 0..24 {
        sum.add(&fleet::run(seed, None));
    }
    assert!(sum.promotions > 0 && sum.adopted > 0 && sum.crash_loops > 0, "{sum}");
    assert!(sum.kills > 0 && sum.answers > 0 && sum.ready > 0, "{sum}");
}

#[test]
fn a_seed_says_everything() {
    assert_eq!(fleet::run(7, None), fleet::run(7, None));
}
