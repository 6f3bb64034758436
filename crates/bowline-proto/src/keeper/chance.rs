//! Chance that arrived once, as a seed.

use std::{ops::RangeInclusive, time::Duration};

/// SplitMix64 (Steele, Lea, Flood, 2014): spreads attempts and probes over time, keeps no secret.
#[derive(Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Anything from nothing to `longest`.
    pub(super) fn up_to(&mut self, longest: Duration) -> Duration {
        let longest = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        // The high half of the product of two 64-bit numbers is below the second one.
        let share = u128::from(self.bits()) * (u128::from(longest) + 1);
        Duration::from_micros(u64::try_from(share >> 64).unwrap_or(longest))
    }

    /// Anything in the range; its start where the range is empty.
    pub(super) fn between(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        *range.start() + self.up_to(range.end().saturating_sub(*range.start()))
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reaches_both_ends_and_stays_between_them() {
        let mut chance = Chance::new(7);
        let tiny = Duration::from_micros(3);
        let drawn: Vec<_> = (0..200).map(|_| chance.up_to(tiny).as_micros()).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&0), Some(&3)));
        let range = Duration::from_secs(600)..=Duration::from_secs(900);
        assert!((0..1_000).all(|_| range.contains(&chance.between(&range))));
        assert_eq!(chance.up_to(Duration::ZERO), Duration::ZERO);
        assert!(chance.up_to(Duration::MAX) > Duration::ZERO);
    }
}
