//! The connections of one link: one in use, one beside it during a renewal, and those that are being closed.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    task::{Context, Poll},
    time::Duration,
};

use bowline_proto::{Time, keeper::ConnectionId};
use tokio::sync::mpsc;

use crate::far::{Command, Connection, Event};

#[derive(Debug, Default)]
pub(super) struct Connections {
    all: BTreeMap<ConnectionId, One>,
    /// Which one was heard last, so that a busy one does not drown the other.
    last: Option<ConnectionId>,
    /// Devices of those that ended by themselves, until it is decided what becomes of them.
    left: BTreeMap<ConnectionId, String>,
}

/// Devices that wait for that decision; the keeper decides at once, or about the next connection at the latest.
const LEFT_MAX: usize = 8;

#[derive(Debug)]
struct One {
    connection: Connection,
    closing: Option<Closing>,
}

#[derive(Debug, Clone, Copy)]
struct Closing {
    until: Time,
    discard: bool,
}

impl Connections {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether one is open that was not told to close.
    pub(super) fn any_open(&self) -> bool {
        self.all.values().any(|one| one.closing.is_none())
    }

    /// Takes on one that is open. Returns the devices that nobody will use again: those of connections that have ended
    /// by themselves, if this one has another.
    pub(super) fn insert(&mut self, id: ConnectionId, connection: Connection) -> Vec<String> {
        self.all.insert(id, One { connection, closing: None });
        let mut unused = self.take_left();
        unused.retain(|left| {
            self.all.values().all(|one| one.connection.address.as_ref() != Some(left))
        });
        unused
    }

    /// The devices of connections that have ended by themselves, for the last time.
    pub(super) fn take_left(&mut self) -> Vec<String> {
        std::mem::take(&mut self.left).into_values().collect()
    }

    /// Whether it was told to close.
    pub(super) fn is_closing(&self, id: ConnectionId) -> bool {
        self.all.get(&id).is_some_and(|one| one.closing.is_some())
    }

    /// Where it is told things; nothing once it is closing.
    pub(super) fn commands(&self, id: ConnectionId) -> Option<&mpsc::Sender<Command>> {
        self.all.get(&id).filter(|one| one.closing.is_none()).map(|one| &one.connection.commands)
    }

    /// Tells it something, if it is there and has room. What it was not told it is told again by whoever misses the
    /// answer: the keeper, or the service.
    pub(super) fn tell(&self, id: ConnectionId, command: Command) -> bool {
        self.commands(id).is_some_and(|commands| commands.try_send(command).is_ok())
    }

    /// Tells it to close. What it brings until then still counts. Returns the device that is to be deleted now: that of
    /// one that has ended by itself.
    pub(super) fn close(
        &mut self,
        now: Time,
        id: ConnectionId,
        within: Duration,
        discard: bool,
    ) -> Option<String> {
        let Some(one) = self.all.get_mut(&id) else {
            return self.left.remove(&id).filter(|_| discard);
        };
        // Without room for the command it has not read for long: then it is a hard end.
        let told = one.connection.commands.try_send(Command::Close { within }).is_ok();
        let until = if told { now + within } else { now };
        one.closing = Some(Closing { until, discard });
        None
    }

    /// When the next one that was told to close is ended the hard way.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.all.values().filter_map(|one| one.closing).map(|closing| closing.until).min()
    }

    /// Ends those that have taken too long to close. Returns the devices that are to be deleted.
    pub(super) fn end_overdue(&mut self, now: Time) -> Vec<String> {
        let overdue = |one: &One| one.closing.is_some_and(|closing| closing.until <= now);
        let ids: Vec<_> =
            self.all.iter().filter(|(_, one)| overdue(one)).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.end(id)).collect()
    }

    /// Forgets one that has ended. Returns its device, if that is to be deleted.
    pub(super) fn end(&mut self, id: ConnectionId) -> Option<String> {
        let one = self.all.remove(&id)?;
        let address = one.connection.address?;
        if one.closing.is_some_and(|closing| closing.discard) {
            return Some(address);
        }
        if one.closing.is_none() {
            self.left.insert(id, address);
            while self.left.len() > LEFT_MAX {
                self.left.pop_first();
            }
        }
        None
    }

    /// What happens next on any of them; `None` once one has no more to say. Pending while there are none.
    pub(super) async fn next(&mut self) -> (ConnectionId, Option<Event>) {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// What one has brought already.
    pub(super) fn try_next(&mut self, id: ConnectionId) -> Option<Event> {
        self.all.get_mut(&id)?.connection.events.try_recv().ok()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(ConnectionId, Option<Event>)> {
        let after = self.last;
        let later = |id: &ConnectionId| after.is_none_or(|last| *id > last);
        for turn in [true, false] {
            for (id, one) in &mut self.all {
                if later(id) != turn {
                    continue;
                }
                if let Poll::Ready(event) = one.connection.events.poll_recv(cx) {
                    self.last = Some(*id);
                    return Poll::Ready((*id, event));
                }
            }
        }
        Poll::Pending
    }
}
