//! Masks and keys from the operating system's CSPRNG, fetched in blocks.

/// Bytes fetched at once: 64 masks cost one system call.
const BLOCK_BYTES: usize = 256;

/// The randomness of one connection.
pub(crate) struct Entropy {
    block: [u8; BLOCK_BYTES],
    used: usize,
}

impl Entropy {
    pub(crate) fn new() -> Self {
        Self { block: [0; BLOCK_BYTES], used: BLOCK_BYTES }
    }

    /// Fresh bytes.
    ///
    /// # Panics
    ///
    /// When the operating system gives no randomness: a mask that can be guessed is none.
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        if self.used + N > BLOCK_BYTES {
            getrandom::fill(&mut self.block).expect("the operating system gives no randomness");
            self.used = 0;
        }
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.block[self.used..self.used + N]);
        self.used += N;
        bytes
    }
}
