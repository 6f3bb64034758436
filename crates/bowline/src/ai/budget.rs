//! Memory that is set aside for requests before they are read.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// So much may be set aside, by all requests together.
#[derive(Debug)]
pub(super) struct Budget {
    most: AtomicUsize,
    taken: AtomicUsize,
}

/// A part of it. Given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: AtomicUsize::new(most), taken: AtomicUsize::new(0) })
    }

    /// What is taken already stays so.
    pub(super) fn set(&self, most: usize) {
        self.most.store(most, Relaxed);
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }

    /// Takes a share, if there is as much.
    pub(super) fn take(self: &Arc<Self>, bytes: usize) -> Option<Share> {
        let most = self.most.load(Relaxed);
        let taken = self.taken.fetch_update(Relaxed, Relaxed, |taken| {
            taken.checked_add(bytes).filter(|taken| *taken <= most)
        });
        taken.ok().map(|_| Share { budget: Arc::clone(self), bytes })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_given_back_and_never_more_is_taken_than_there_is() {
        let budget = Budget::new(10);
        let one = budget.take(6).unwrap();
        assert!(budget.take(5).is_none() && budget.take(usize::MAX).is_none());
        let two = budget.take(4).unwrap();
        assert_eq!(budget.taken(), 10);
        drop(one);
        assert_eq!(budget.taken(), 4);
        budget.set(3);
        assert!(budget.take(1).is_none());
        drop(two);
        assert!(budget.take(3).is_some() && budget.taken() == 0);
    }
}
