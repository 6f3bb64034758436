//! Memory that is set aside for requests: their bodies, the copies that providers are sent, and what providers answer.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;

use crate::limit::UNCOUNTED_BYTES;

/// So much may be set aside, by all requests together.
#[derive(Debug)]
pub struct Budget {
    most: AtomicUsize,
    taken: AtomicUsize,
}

/// A part of it. Given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: AtomicUsize::new(most), taken: AtomicUsize::new(0) })
    }

    /// The budget has changed. What is taken already stays so.
    pub fn set(&self, most: usize) {
        self.most.store(most, Relaxed);
    }

    /// How much is taken, in bytes.
    pub fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }

    /// Takes a share, if there is as much.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Option<Share> {
        self.grow(bytes).then(|| Share { budget: Arc::clone(self), bytes })
    }

    fn grow(&self, bytes: usize) -> bool {
        let most = self.most.load(Relaxed);
        let taken = self.taken.fetch_update(Relaxed, Relaxed, |taken| {
            taken.checked_add(bytes).filter(|taken| *taken <= most)
        });
        taken.is_ok()
    }
}

impl Share {
    /// Makes it so large. Smaller is always possible; `false` if there is not as much, and then it is as it was.
    pub fn resize(&mut self, bytes: usize) -> bool {
        match bytes.checked_sub(self.bytes) {
            Some(0) => return true,
            Some(more) if !self.budget.grow(more) => return false,
            Some(_) => {}
            None => _ = self.budget.taken.fetch_sub(self.bytes - bytes, Relaxed),
        }
        self.bytes = bytes;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Relaxed);
    }
}

/// What one request takes. What is small is not counted, so that most requests touch the budget once.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// `None`: nobody counts.
    share: Option<Share>,
    /// The client's body.
    body: usize,
    /// The copy of it that a provider is sent.
    sent: usize,
    /// What the provider has answered, as far as it is not passed on yet.
    answer: usize,
}

impl Held {
    /// What was set aside for the client's body grows with the rest.
    pub(crate) fn new(share: Option<Share>) -> Self {
        let body = share.as_ref().map_or(0, |share| share.bytes);
        Self { share, body, ..Self::default() }
    }

    /// So much is sent. `false` if there is no memory for it.
    pub(crate) fn set_sent(&mut self, bytes: usize) -> bool {
        self.set(counted(bytes), self.answer)
    }

    /// So much of an answer is here. `false` if there is no memory for it.
    pub(crate) fn set_answer(&mut self, bytes: usize) -> bool {
        self.set(self.sent, counted(bytes))
    }

    /// An answer that is whole takes its memory along, until it has gone to the client.
    pub(crate) fn leave_with(&mut self, answer: Bytes) -> Bytes {
        let Some(mut share) = self.share.take().filter(|_| self.answer > 0) else { return answer };
        share.resize(answer.len().min(self.body + self.sent + self.answer));
        Bytes::from_owner(Counted { answer, _share: share })
    }

    fn set(&mut self, sent: usize, answer: usize) -> bool {
        if (sent, answer) == (self.sent, self.answer) {
            return true;
        }
        let all = self.body.saturating_add(sent).saturating_add(answer);
        let fits = self.share.as_mut().is_none_or(|share| share.resize(all));
        if fits {
            (self.sent, self.answer) = (sent, answer);
        }
        fits
    }
}

fn counted(bytes: usize) -> usize {
    if bytes > UNCOUNTED_BYTES { bytes } else { 0 }
}

struct Counted {
    answer: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    #[test]
    fn a_share_is_given_back_and_never_more_is_taken_than_there_is() {
        let budget = Budget::new(10);
        let one = budget.take(6).unwrap();
        assert!(budget.take(5).is_none() && budget.take(usize::MAX).is_none());
        let mut two = budget.take(4).unwrap();
        assert_eq!(budget.taken(), 10);
        assert!(!two.resize(5) && two.resize(4) && two.resize(1));
        assert_eq!(budget.taken(), 7);
        assert!(two.resize(4));
        drop(one);
        assert_eq!(budget.taken(), 4);
        budget.set(3);
        assert!(budget.take(1).is_none() && two.resize(3));
        drop(two);
        assert!(budget.take(3).is_some() && budget.taken() == 0);
    }

    #[test]
    fn a_request_counts_with_its_copies_and_its_answer() {
        let budget = Budget::new(200 * KIB);
        let mut held = Held::new(budget.take(50 * KIB));
        // What is small is not counted.
        assert!(held.set_sent(UNCOUNTED_BYTES) && held.set_answer(UNCOUNTED_BYTES));
        assert_eq!(budget.taken(), 50 * KIB);
        assert!(held.set_sent(50 * KIB) && held.set_answer(100 * KIB));
        assert_eq!(budget.taken(), 200 * KIB);
        assert!(!held.set_answer(101 * KIB));
        assert!(held.set_sent(0) && held.set_answer(101 * KIB));
        let answer = held.leave_with(Bytes::from(vec![7; 101 * KIB]));
        drop(held);
        assert_eq!((budget.taken(), answer.len(), answer[0]), (101 * KIB, 101 * KIB, 7));
        drop(answer);
        assert_eq!(budget.taken(), 0);
        // Nobody counts.
        assert!(Held::default().set_answer(usize::MAX));
    }
}
