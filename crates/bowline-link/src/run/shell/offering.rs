//! What waits for the bot, and what becomes of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bowline_proto::{Time, keeper::Input};
use bowline_store::Stage;
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::sleep,
};

use super::{
    super::{
        limit,
        offers::{Desk, Fate, Offered},
    },
    Phase, Shell,
};
use crate::{
    bot::Outcome,
    clock,
    far::{Command, Outgoing},
    settings,
};

impl Shell {
    /// Fills the queue from the store: after the start, and when the disk is back.
    pub(super) async fn load(&mut self) {
        self.store_changes = self.given.common.store.health().changes;
        self.reload = false;
        let mut stored = BTreeMap::new();
        let mut after = 0;
        loop {
            let page = self.inbox.waiting(&self.link, after, limit::PAGE).await;
            let Some(last) = page.last() else { break };
            after = last.seq;
            for entry in page {
                let place = (entry.arrival.room, entry.seq, entry.offers);
                stored.insert(entry.arrival.id, place);
            }
        }
        for id in self.outbound.confirming() {
            stored.remove(id);
        }
        self.queue.reindex(stored);
    }

    /// Apps and namespaces answer at once, so they are not asked while no answer could be sent.
    pub(super) fn may_offer(&self) -> bool {
        let is_proxy = matches!(self.given.link.deliver, settings::Deliver::Proxy { .. });
        self.stage == Phase::Running && !self.absent && (is_proxy || self.current.is_some())
    }

    pub(super) fn offer(&mut self, now: Time) {
        if !self.may_offer() {
            return;
        }
        let mut is_there = None;
        while let Some((room, waiting)) = self.queue.next(now) {
            if !*is_there.get_or_insert_with(|| self.deliver.presence().connections > 0) {
                if waiting.confirm {
                    self.queue.again(now, &room, false);
                    self.wait_for_bot();
                    return;
                }
                // It informs whoever is there: nobody.
                self.queue.done(&room);
                continue;
            }
            self.drive(Input::HandedOver);
            let desk = Desk {
                link: Arc::clone(&self.link),
                inbox: self.inbox.clone(),
                profile: Arc::clone(&self.far.profile),
                deliver: Arc::clone(&self.deliver),
                fetches: !matches!(self.given.link.deliver, settings::Deliver::Proxy { .. }),
                confirm_timeout: self.given.link.confirm_timeout,
            };
            let failed = Offered {
                room: room.clone(),
                id: waiting.id.clone(),
                confirm: waiting.confirm,
                offers: waiting.offers + 1,
                fate: Fate::Said(Outcome::Unconfirmed("the offer failed".into())),
            };
            let task = self.offering.spawn(desk.offer(room, waiting));
            self.offers.insert(task.id(), failed);
        }
    }

    /// Waits until the bot is there; a little longer each time that it was there and took nothing.
    pub(super) fn wait_for_bot(&mut self) {
        self.absent = true;
        self.absences += 1;
        let pause = match self.absences {
            0 | 1 => Duration::ZERO,
            times => limit::PAUSE_FIRST.saturating_mul(1 << times.min(16)).min(limit::PAUSE_MAX),
        };
        let deliver = Arc::clone(&self.deliver);
        self.ready = JoinSet::new();
        self.ready.spawn(async move {
            sleep(pause).await;
            deliver.ready().await;
        });
    }

    pub(super) fn on_offered(&mut self, offered: Result<(Id, Offered), JoinError>) {
        let (task, offered) = match offered {
            Ok((task, offered)) => {
                self.offers.remove(&task);
                (task, offered)
            }
            Err(error) if error.is_cancelled() => return,
            Err(error) => match self.offers.remove(&error.id()) {
                Some(failed) => (error.id(), failed),
                None => return,
            },
        };
        let is_excused = self.excused.remove(&task);
        let Offered { room, id, confirm, offers, fate } = offered;
        self.queue.offered(&room, offers);
        if !matches!(fate, Fate::Said(Outcome::Absent)) {
            self.absences = 0;
        }
        let was_handed_over = match &fate {
            Fate::Late => true,
            Fate::Said(outcome) => *outcome != Outcome::Absent,
            Fate::Unfetched(_) | Fate::Gone | Fate::Unwritten => false,
        };
        if was_handed_over && offers > 1 {
            self.given.board.count(|figures| figures.offered_again += 1);
        }
        match fate {
            Fate::Said(Outcome::Confirmed { replies }) => {
                self.confirmed(&room, id, confirm, replies)
            }
            _ if !confirm => self.queue.done(&room),
            Fate::Said(Outcome::Absent) => {
                self.queue.untaken(&room);
                self.queue.again(self.now(), &room, false);
                self.wait_for_bot();
            }
            Fate::Said(Outcome::Unconfirmed(words)) => {
                self.drive(Input::Unhandled);
                self.unconfirmed(&room, id, words);
            }
            Fate::Said(Outcome::Lost(words)) => {
                // A bot that restarts loses all that it was handed at once.
                if !is_excused {
                    self.excused = self.offers.keys().copied().collect();
                    self.drive(Input::Unhandled);
                }
                self.unconfirmed(&room, id, words);
            }
            Fate::Late => {
                self.drive(Input::Unhandled);
                let within = self.given.link.confirm_timeout.as_secs();
                self.unconfirmed(&room, id, format!("not confirmed within {within} s"));
            }
            Fate::Said(Outcome::Refused(words)) => self.park(&room, id, words),
            Fate::Unfetched(words) => {
                if self.queue.unfetched(&room) >= self.given.link.offers_max {
                    self.park(&room, id, format!("its text cannot be fetched: {words}"));
                } else {
                    self.queue.again(self.now(), &room, true);
                    self.reporter
                        .trouble(format!("the text of a message cannot be fetched: {words}"));
                }
            }
            Fate::Gone => {
                self.queue.done(&room);
                self.reload = true;
            }
            Fate::Unwritten => {
                self.queue.again(self.now(), &room, true);
                self.reporter.trouble("the store does not write down what is offered".into());
            }
        }
    }

    pub(super) fn confirmed(
        &mut self,
        room: &str,
        id: String,
        confirm: bool,
        replies: Vec<Outgoing>,
    ) {
        self.queue.done(room);
        if confirm {
            self.given.board.count(|figures| figures.confirmed += 1);
            self.drive(Input::Handled);
        }
        let now = self.now();
        let has_replies = !replies.is_empty();
        if has_replies {
            self.drive(Input::Sending);
        }
        for mut reply in replies {
            reply.reply_to.get_or_insert_with(|| id.clone());
            if let Some(unsent) = self.outbound.send(now, reply, None) {
                self.not_sent(unsent);
            }
        }
        if confirm {
            // Only after the replies.
            if !has_replies {
                self.tell_confirmed(id);
            } else {
                self.outbound.confirmed(now, id);
            }
        }
    }

    pub(super) fn tell_confirmed(&mut self, id: String) {
        if let Some(current) = self.current {
            self.connections.tell(current, Command::Confirmed { id: id.clone() });
        }
        self.step(id, Stage::Confirmed, String::new());
    }

    pub(super) fn unconfirmed(&mut self, room: &str, id: String, words: String) {
        if self.queue.offers(room) >= self.given.link.offers_max {
            self.park(room, id, words);
        } else {
            self.queue.again(self.now(), room, true);
            self.reporter.trouble(format!("the bot did not confirm a message: {words}"));
        }
    }

    pub(super) fn park(&mut self, room: &str, id: String, words: String) {
        self.given.board.count(|figures| figures.parked += 1);
        tracing::warn!(link = &*self.link, id, "a message is put aside: {words}");
        self.queue.done(room);
        self.step(id, Stage::Parked, words);
    }

    /// Writes down how far a message has come.
    pub(super) fn step(&mut self, id: String, stage: Stage, words: String) {
        let (inbox, link) = (self.inbox.clone(), Arc::clone(&self.link));
        let at = clock::unix_ms();
        self.beside.spawn(async move {
            inbox.step(&link, &id, stage, at, &words).await;
        });
    }
}
