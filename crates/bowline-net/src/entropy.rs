//! Ids and keys from the operating system's CSPRNG, fetched in blocks.

use bowline_proto::Sid;

/// Bytes fetched at once: 292 ids cost one system call.
const BLOCK_BYTES: usize = 4096;

/// The randomness of one shard.
pub(crate) struct Entropy {
    block: Box<[u8; BLOCK_BYTES]>,
    used: usize,
}

impl Entropy {
    pub(crate) fn new() -> Self {
        Self { block: Box::new([0; BLOCK_BYTES]), used: BLOCK_BYTES }
    }

    /// A fresh id of something that `shard` owns.
    pub(crate) fn sid(&mut self, shard: u8) -> Sid {
        Sid::new(shard, self.bytes())
    }

    /// A number below `bound`, or zero if that is zero. The bias is below one in 2³².
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let number = u64::from_le_bytes(self.bytes());
        ((u128::from(number) * u128::from(bound)) >> 64) as u64
    }

    /// Fresh bytes. The ones handed out are wiped: whoever reads this memory later learns no id.
    ///
    /// # Panics
    ///
    /// When the operating system gives no randomness: no id is better than one that can be guessed.
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        if self.used + N > BLOCK_BYTES {
            getrandom::fill(&mut *self.block).expect("the operating system gives no randomness");
            self.used = 0;
        }
        let taken = &mut self.block[self.used..self.used + N];
        let mut bytes = [0; N];
        bytes.copy_from_slice(taken);
        taken.fill(0);
        self.used += N;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::Entropy;

    #[test]
    fn ids_name_their_shard_and_differ_over_many_blocks() {
        let mut entropy = Entropy::new();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1_000 {
            let sid = entropy.sid(3);
            assert_eq!(sid.shard(), 3);
            assert!(seen.insert(sid));
        }
    }

    #[test]
    fn a_bounded_number_stays_below_its_bound() {
        let mut entropy = Entropy::new();
        assert_eq!(entropy.below(0), 0);
        for _ in 0..1_000 {
            assert!(entropy.below(7) < 7);
        }
    }
}
