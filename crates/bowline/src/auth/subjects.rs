//! Whose a connection is, and how many each subject has: `limits.connections-per-subject`.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bowline_net::SocketRef;

/// Who has how many sockets, for one rule of `[namespaces]`. Shared by all shards: it is asked when
/// a socket comes and when it goes.
#[derive(Debug, Default)]
pub(super) struct Subjects(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    counts: HashMap<Arc<str>, usize>,
    /// Whose socket it is.
    sockets: HashMap<SocketRef, Arc<str>>,
}

impl Subjects {
    /// Counts a socket of a subject, if it has fewer than `most`.
    pub(super) fn take(&self, socket: SocketRef, subject: &str, most: usize) -> bool {
        let mut inner = self.lock();
        let subject: Arc<str> = subject.into();
        let count = inner.counts.entry(Arc::clone(&subject)).or_default();
        if *count >= most {
            if *count == 0 {
                inner.counts.remove(&subject);
            }
            return false;
        }
        *count += 1;
        if let Some(before) = inner.sockets.insert(socket, subject) {
            inner.forget(&before);
        }
        true
    }

    /// Whose socket it is, as far as that was said.
    pub(super) fn whose(&self, socket: SocketRef) -> Option<Arc<str>> {
        self.lock().sockets.get(&socket).cloned()
    }

    /// The socket has gone, or never came. More than once is as good as once.
    pub(super) fn give_back(&self, socket: SocketRef) {
        let mut inner = self.lock();
        if let Some(subject) = inner.sockets.remove(&socket) {
            inner.forget(&subject);
        }
    }

    #[cfg(test)]
    pub(super) fn held_by(&self, subject: &str) -> usize {
        self.lock().counts.get(subject).copied().unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let inner = self.lock();
        inner.counts.is_empty() && inner.sockets.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn forget(&mut self, subject: &str) {
        if let Some(count) = self.counts.get_mut(subject) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(subject);
            }
        }
    }
}
