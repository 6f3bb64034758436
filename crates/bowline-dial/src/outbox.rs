//! Events on their way to somebody who may be slow.

use std::{collections::VecDeque, future};

use tokio::sync::mpsc::{self, error::TrySendError};

use crate::limit::{EVENTS_MAX, LARGE_BYTES};

/// Events that are handed over in order, and the bound on them: while [`is_full`](Self::is_full), whoever makes them
/// makes no more. Some hundred fit. One that is large goes only when everything before it was taken, so that it is the
/// sum of the small ones that bounds the memory.
#[derive(Debug)]
pub struct Outbox<T> {
    sender: mpsc::Sender<T>,
    waiting: VecDeque<T>,
    bytes_of: fn(&T) -> usize,
}

impl<T> Outbox<T> {
    /// One that is empty, and where its events come out. `bytes_of` tells what an event holds.
    pub fn new(bytes_of: fn(&T) -> usize) -> (Self, mpsc::Receiver<T>) {
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        (Self { sender, waiting: VecDeque::new(), bytes_of }, receiver)
    }

    /// Puts an event behind the others. It is taken even if the outbox is full: what was read must go somewhere.
    pub fn push(&mut self, event: T) {
        self.waiting.push_back(event);
    }

    /// Whether so much waits that nothing more should be made.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= EVENTS_MAX || self.waiting.iter().any(|event| self.is_large(event))
    }

    /// Hands over what there is room for; to be called after [`push`](Self::push) and [`room`](Self::room).
    pub fn deliver(&mut self) {
        while let Some(event) = self.waiting.pop_front() {
            if self.is_large(&event) && self.sender.capacity() < EVENTS_MAX {
                self.waiting.push_front(event);
                return;
            }
            match self.sender.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.waiting.push_front(event);
                    return;
                }
                // Nobody will take the others either.
                Err(TrySendError::Closed(_)) => self.waiting.clear(),
            }
        }
    }

    /// Waits until [`deliver`](Self::deliver) can do something; for ever if nothing waits. Nothing is lost if the future
    /// is dropped.
    pub async fn room(&self) {
        match self.waiting.front() {
            Some(event) => {
                let slots = if self.is_large(event) { EVENTS_MAX } else { 1 };
                // Without anybody there it is room too: then what waits is dropped.
                let _ = self.sender.reserve_many(slots).await;
            }
            None => future::pending().await,
        }
    }

    /// Hands everything over, however long that takes, and ends.
    pub async fn finish(mut self) {
        while !self.waiting.is_empty() {
            self.room().await;
            self.deliver();
        }
    }

    fn is_large(&self, event: &T) -> bool {
        (self.bytes_of)(event) >= LARGE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = LARGE_BYTES;

    #[tokio::test]
    async fn small_events_fill_it_and_large_ones_go_one_by_one() {
        let (mut outbox, mut events) = Outbox::new(|event: &usize| *event);
        for event in 0..2 * EVENTS_MAX {
            assert!(!outbox.is_full(), "{event}");
            outbox.push(1);
            outbox.deliver();
        }
        assert!(outbox.is_full());
        for _ in 0..2 * EVENTS_MAX {
            assert_eq!(events.recv().await, Some(1));
            outbox.deliver();
        }
        for event in [LARGE, LARGE, 2] {
            outbox.push(event);
        }
        outbox.deliver();
        assert!(outbox.is_full(), "the second waits for the first");
        assert_eq!(events.try_recv(), Ok(LARGE));
        assert!(events.try_recv().is_err());
        outbox.room().await;
        outbox.deliver();
        assert!(!outbox.is_full());
        assert_eq!((events.try_recv(), events.try_recv()), (Ok(LARGE), Ok(2)));
    }

    #[tokio::test]
    async fn all_of_it_is_handed_over_at_the_end_unless_nobody_is_there() {
        let (mut outbox, mut events) = Outbox::new(|event: &usize| *event);
        for event in [1, LARGE, 2, LARGE, 3] {
            outbox.push(event);
        }
        let taking = async {
            let mut taken = Vec::new();
            while let Some(event) = events.recv().await {
                taken.push(event);
            }
            taken
        };
        let ((), taken) = tokio::join!(outbox.finish(), taking);
        assert_eq!(taken, [1, LARGE, 2, LARGE, 3]);

        let (mut outbox, events) = Outbox::new(|event: &usize| *event);
        outbox.push(LARGE);
        outbox.push(1);
        drop(events);
        outbox.finish().await;
    }
}
