//! The hub keeps its promises in a few hundred worlds. More: `cargo run -p bowline-sim --bin world`.

use std::panic;

use bowline_sim::world;

fn check(seeds: impl Iterator<Item = u64>) {
    let mut upgrades = 0;
    for seed in seeds {
        match panic::catch_unwind(|| world::run(seed, None)) {
            Ok(counts) => upgrades += counts.upgrades,
            Err(_) => panic!("the world of seed {seed} fell: see above"),
        }
    }
    assert!(upgrades > 0, "a world in which nobody upgrades proves little");
}

#[test]
fn worlds_hold() {
    check(0..100);
}

#[test]
fn more_worlds_hold() {
    check(100..200);
}

#[test]
fn seeds_that_once_failed_hold() {
    check([192, 215, 443].into_iter());
}

#[test]
fn a_seed_says_everything() {
    assert_eq!(world::run(7, None), world::run(7, None));
}
