//! What the service says: merged, stored, acknowledged.

use bowline_proto::{
    Time,
    keeper::{ConnectionId, Input, Merged, ProbeId},
};
use bowline_store::{Put, Stage};
use tokio::task::JoinError;

use super::{
    super::{
        arrivals::{Arrived, Stored},
        queue::Waiting,
    },
    Phase, Shell,
};
use crate::{
    clock,
    far::{CatchUpFailure, Command, Event, Message},
    view::FullView,
};

impl Shell {
    pub(super) fn on_event(&mut self, connection: ConnectionId, event: Event) {
        if let Event::Closed { verdict, words } = event {
            self.on_closed(connection, verdict, words);
            return;
        }
        let now = self.now();
        self.on_event_of(now, connection, event);
        if let Some(input) = self.inputs.pop_front() {
            self.drive(input);
        }
    }

    /// Everything but the end. What the keeper is to hear of it is left in `inputs`.
    pub(super) fn on_event_of(&mut self, now: Time, connection: ConnectionId, event: Event) {
        match event {
            Event::Heard(level) => self.inputs.push_back(Input::Heard { connection, level }),
            Event::Message(message) => {
                self.inputs.push_back(Input::Arrived { connection });
                self.proved = Some(now);
                let id = message.id.clone();
                let bytes = message.body.len();
                self.merge.arrived(now, connection, (&id, message.own_id), bytes, message);
                self.pass_merged(now);
            }
            Event::Passing(body) => {
                self.inputs.push_back(Input::Arrived { connection });
                if self.current == Some(connection) || self.current.is_none() {
                    self.deliver.pass(&body);
                }
            }
            Event::Probed { nonce } => {
                self.proved = Some(now);
                if let Some(probe) = self.probe_of(&nonce) {
                    self.inputs.push_back(Input::Probed { probe, connection });
                }
            }
            Event::NotProbed { nonce, words } => {
                if let Some(probe) = self.probe_of(&nonce) {
                    self.inputs.push_back(Input::NotProbed { probe, words });
                }
            }
            Event::Answered { ask, answer } => self.outbound.answered(ask, answer),
            Event::Written { id } => self.on_written(id),
            Event::Draining => self.inputs.push_back(Input::Draining { connection }),
            Event::Closed { .. } => {}
        }
    }

    pub(super) fn probe_of(&self, nonce: &str) -> Option<ProbeId> {
        self.probes.iter().find(|(known, _)| known == nonce).map(|(_, probe)| *probe)
    }

    /// Takes on what came out of both connections.
    pub(super) fn pass_merged(&mut self, now: Time) {
        while let Some(merged) = self.merge.poll() {
            let (connection, message) = match merged {
                Merged::New { connection, mut message } => {
                    if !message.own_id {
                        self.made_here += 1;
                        message.id =
                            format!("{}-{:x}-{:x}", message.id, clock::unix_ms(), self.made_here);
                    }
                    (connection, message)
                }
                // The store knows it, once the first one is stored, and it is acknowledged then.
                Merged::Copy { connection, message } if message.own_id => (connection, message),
                Merged::Copy { connection, message } => {
                    self.acknowledge(Some(connection), &message);
                    continue;
                }
            };
            let arrived = Arrived { connection: Some(connection), message };
            if let Some(arrived) = self.catch_up.pass(now, arrived) {
                self.incoming.push_back(arrived);
            }
        }
    }

    /// Acknowledges a message to the service, on the connection that brought it, or on the one in use.
    pub(super) fn acknowledge(&self, connection: Option<ConnectionId>, message: &Message) {
        let Some(receipt) = &message.receipt else { return };
        let command = || Command::Acknowledge { receipt: receipt.clone() };
        let told = connection.is_some_and(|id| self.connections.tell(id, command()));
        if !told && let Some(current) = self.current {
            // If this one does not take it either, the service sends it again, and is told then.
            self.connections.tell(current, command());
        }
    }

    pub(super) fn on_stored(&mut self, stored: Stored) {
        self.storing -= 1;
        let Stored { arrived: Arrived { connection, message }, put } = stored;
        match put {
            Some(Put::New { seq }) => {
                self.acknowledge(connection, &message);
                self.given.board.count(|figures| {
                    figures.messages += 1;
                    figures.caught_up += u64::from(connection.is_none());
                });
                if connection.is_none() {
                    self.drive(Input::Missed);
                }
                self.has_room_again();
                let mut waiting = Waiting::stored(seq, message.id, 0, Some(message.body));
                waiting.receipt = message.receipt;
                if !message.confirm {
                    waiting.confirm = false;
                    self.step(waiting.id.clone(), Stage::Confirmed, "needs no confirmation".into());
                    if self.absent {
                        return;
                    }
                }
                self.queue.push(&message.room, waiting);
            }
            Some(Put::Seen) => {
                self.acknowledge(connection, &message);
                if connection.is_some() {
                    self.given.board.count(|figures| figures.repeated += 1);
                }
                self.reload |= message.confirm && self.may_be_missing(&message.id);
            }
            Some(Put::Refused) => {
                let health = self.given.common.store.health();
                self.no_room(format!(
                    "the store takes no message ({}): they are not acknowledged",
                    health.words
                ));
            }
            None => self.no_room(
                "as many messages wait for the bot as may (`waiting-max`): more are not acknowledged"
                    .into(),
            ),
        }
    }

    /// Whether a message that the store has may wait there and not here: another process may have stored it after this
    /// one had read what waits.
    fn may_be_missing(&self, id: &str) -> bool {
        !self.queue.has(id) && self.outbound.confirming().all(|confirming| confirming != id)
    }

    pub(super) fn no_room(&mut self, words: String) {
        let since_unix_ms = *self.full_since.get_or_insert_with(clock::unix_ms);
        self.given.board.set_full(Some(FullView { since_unix_ms, words: words.clone() }));
        self.given.board.count(|figures| figures.refused += 1);
        self.left_there += u64::from(!self.far.profile.can_look());
        self.reporter.trouble(words);
    }

    /// A message was stored again after others were not: the service is asked for those.
    pub(super) fn has_room_again(&mut self) {
        if let Some(since) = self.full_since.take() {
            self.given.board.set_full(None);
            tracing::info!(link = &*self.link, "messages are stored again");
            self.catch_up.want(self.now(), clock::unix_ms(), since);
        }
    }

    /// A service that cannot be asked may say again on a new connection what was not acknowledged: there is one as soon as
    /// all of that has a place, or nothing else waits.
    pub(super) fn have_it_said_again(&mut self) {
        let is_kept = self.stage == Phase::Running && self.current.is_some();
        if self.left_there == 0 || self.full_since.is_some() || !is_kept {
            return;
        }
        let room = self.inbox.room(&self.link, self.given.common.waiting_max);
        if room < self.left_there && self.inbox.counts(&self.link).waiting > 0 {
            return;
        }
        tracing::info!(
            link = &*self.link,
            refused = self.left_there,
            "a new connection is made, so that the service can say again what found no place"
        );
        self.left_there = 0;
        self.drive(Input::Renew);
    }

    pub(super) fn on_asked(
        &mut self,
        asked: Result<Result<Vec<Message>, CatchUpFailure>, JoinError>,
    ) {
        let now = self.now();
        match asked {
            Ok(Ok(messages)) => {
                self.catch_up.done(now);
                let arrived = |message| Arrived { connection: None, message };
                self.incoming.extend(messages.into_iter().map(arrived));
            }
            Ok(Err(CatchUpFailure { words, retry_after })) => {
                self.catch_up.failed(now, retry_after);
                self.reporter.trouble(format!(
                    "what was missed, if anything was, cannot be asked for: {words}"
                ));
            }
            Err(error) => {
                self.catch_up.failed(now, None);
                self.reporter.trouble(format!("asking for what was missed failed: {error}"));
            }
        }
    }
}
