//! Short texts that stand on the stack: what is written around the arguments of each event.

/// A text of at most `N` bytes of ASCII. What would be longer is cut, and a mistake of ours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Short<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Short<N> {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    /// A text that takes all the place there is.
    pub(crate) fn fill(write: impl FnOnce(&mut [u8; N])) -> Self {
        let mut bytes = [0; N];
        write(&mut bytes);
        Self { bytes, len: N }
    }

    pub(crate) fn push(&mut self, text: &str) {
        self.push_bytes(text.as_bytes());
    }

    pub(crate) fn push_decimal(&mut self, number: u64) {
        self.push_digits::<10>(number);
    }

    pub(crate) fn push_hex(&mut self, number: u64) {
        self.push_digits::<16>(number);
    }

    /// What `write!` would say, at a fifth of the price.
    fn push_digits<const BASE: u64>(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b"0123456789abcdef"[(number % BASE) as usize];
            number /= BASE;
            if number == 0 || at == 0 {
                break;
            }
        }
        self.push_bytes(&digits[at..]);
    }

    fn push_bytes(&mut self, text: &[u8]) {
        let free = &mut self.bytes[self.len..];
        debug_assert!(text.is_ascii() && text.len() <= free.len(), "{text:?} does not fit");
        let len = text.len().min(free.len());
        free[..len].copy_from_slice(&text[..len]);
        self.len += len;
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Short;

    proptest! {
        #[test]
        fn numbers_are_written_as_everywhere(number: u64) {
            let mut short = Short::<48>::new();
            short.push_decimal(number);
            short.push(" ");
            short.push_hex(number);
            let written = format!("{number} {number:x}");
            prop_assert_eq!(short.as_str(), written.as_str());
            prop_assert_eq!(short.as_bytes(), written.as_bytes());
        }
    }

    #[test]
    fn the_least_and_the_largest_number_fit() {
        for number in [0, 9, 10, u64::MAX] {
            let mut short = Short::<20>::new();
            assert!(short.is_empty());
            short.push_decimal(number);
            assert_eq!(short.as_str(), number.to_string());
        }
    }
}
