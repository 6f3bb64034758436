//! The inbox, and a bot that does what `webex_bot` does for each message: two requests to learn what it says, one to
//! answer it. It never tries again, and tells nobody when it failed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bowline_proto::{
    Time,
    keeper::{ConnectionId, Input},
};

use super::{
    link::{Arrived, How, Stored},
    network::up_to,
    script::{Probe, Setup},
    web::What,
    world::{Event, World},
};

/// How long the bot may take to confirm a message.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(60);

/// How long it is left alone after it did not.
const OFFER_PAUSE: Duration = Duration::from_secs(5);

/// How long it takes to start again.
const RESTART: Duration = Duration::from_secs(5);

/// How long after all is well a connection is there at the latest, on which what is written comes.
const SETTLED: Duration = Duration::from_secs(30 * 60);

#[derive(Debug, Default)]
pub(super) struct Bot {
    away_until: Time,
    /// What it works on: message and attempt.
    tasks: BTreeSet<(usize, u32)>,
    /// What the shell waits for, by room.
    offered: BTreeMap<u8, (usize, u32)>,
    /// Nothing more of this room before.
    pauses: BTreeMap<u8, Time>,
    /// How often each message was answered, as the service knows.
    pub(super) replies: BTreeMap<usize, u32>,
    /// When first.
    pub(super) answered: BTreeMap<usize, Time>,
    /// The last message of each room that came as it should, for the order.
    last_live: BTreeMap<u8, usize>,
}

impl World<'_> {
    /// A message has arrived, once or again.
    pub(super) fn store(
        &mut self,
        link: usize,
        connection: Option<ConnectionId>,
        Arrived { number, how }: Arrived,
    ) {
        let kept = &mut self.links[link];
        if kept.inbox.contains_key(&number) {
            self.counts.repeated += 1;
            if let Some(connection) = connection {
                self.acknowledge(link, connection, number);
            }
            return;
        }
        if how == How::CaughtUp {
            self.input(link, Input::Missed);
        }
        let room = self.accounts[link].history[number].room;
        let kept = &mut self.links[link];
        if how == How::Live {
            let last = kept.bot.last_live.insert(room, number);
            assert!(
                last.is_none_or(|last| last < number),
                "message {number} of {link} comes after {last:?}"
            );
        }
        self.counts.caught_up += u64::from(how == How::CaughtUp);
        let stored = Stored { at: self.now, attempts: 0, confirmed: false, unsure: false };
        kept.inbox.insert(number, stored);
        kept.rooms.entry(room).or_default().push_back(number);
        let commit = up_to(&mut self.rng, Duration::from_millis(20));
        self.at(self.now + commit, Event::Stored { link, connection, message: number });
    }

    pub(super) fn on_stored(
        &mut self,
        link: usize,
        connection: Option<ConnectionId>,
        message: usize,
    ) {
        if let Some(connection) = connection {
            self.acknowledge(link, connection, message);
        }
        self.offer(link);
    }

    /// Hands the bot the next message of each room.
    pub(super) fn offer(&mut self, link: usize) {
        let rooms: Vec<u8> = self.links[link].rooms.keys().copied().collect();
        for room in rooms {
            let kept = &mut self.links[link];
            let pause = kept.bot.pauses.get(&room).is_some_and(|until| *until > self.now);
            if kept.bot.away_until > self.now || pause || kept.bot.offered.contains_key(&room) {
                continue;
            }
            let Some(message) = kept.rooms.get(&room).and_then(|room| room.front().copied()) else {
                continue;
            };
            let Some(stored) = kept.inbox.get_mut(&message) else { continue };
            stored.attempts += 1;
            let attempt = stored.attempts;
            kept.bot.offered.insert(room, (message, attempt));
            kept.bot.tasks.insert((message, attempt));
            self.counts.offers += 1;
            self.at(self.now + CONFIRM_TIMEOUT, Event::Unconfirmed { link, message, attempt });
            self.input(link, Input::HandedOver);
            self.request(link, What::Get { message, attempt, step: 0 });
        }
    }

    /// The bot got what it asked for.
    pub(super) fn got(&mut self, link: usize, message: usize, attempt: u32, step: u8) {
        if !self.links[link].bot.tasks.contains(&(message, attempt)) {
            return;
        }
        if step == 0 {
            self.request(link, What::Get { message, attempt, step: 1 });
        } else {
            self.input(link, Input::Sending);
            self.request(link, What::Reply { message, attempt });
        }
    }

    /// Its answer was taken.
    pub(super) fn replied(&mut self, link: usize, message: usize, attempt: u32) {
        let room = self.accounts[link].history[message].room;
        let kept = &mut self.links[link];
        kept.bot.tasks.remove(&(message, attempt));
        let Some(stored) = kept.inbox.get_mut(&message) else { return };
        if std::mem::replace(&mut stored.confirmed, true) {
            return;
        }
        if let Some(queue) = kept.rooms.get_mut(&room) {
            queue.retain(|other| *other != message);
        }
        if kept.bot.offered.get(&room).is_some_and(|(other, _)| *other == message) {
            kept.bot.offered.remove(&room);
        }
        self.input(link, Input::Handled);
        self.offer(link);
    }

    /// Something that it needed failed: it gives up, and says nothing.
    pub(super) fn bot_failed(&mut self, link: usize, message: usize, attempt: u32, unsure: bool) {
        let kept = &mut self.links[link];
        kept.bot.tasks.remove(&(message, attempt));
        if let Some(stored) = kept.inbox.get_mut(&message) {
            stored.unsure |= unsure;
        }
    }

    pub(super) fn on_unconfirmed(&mut self, link: usize, message: usize, attempt: u32) {
        let room = self.accounts[link].history[message].room;
        let kept = &mut self.links[link];
        if kept.bot.offered.get(&room) != Some(&(message, attempt)) {
            return;
        }
        kept.bot.offered.remove(&room);
        if kept.bot.tasks.contains(&(message, attempt))
            && let Some(stored) = kept.inbox.get_mut(&message)
        {
            stored.unsure = true;
        }
        kept.bot.pauses.insert(room, self.now + OFFER_PAUSE);
        self.at(self.now + OFFER_PAUSE, Event::Offer { link });
        self.input(link, Input::Unhandled);
    }

    /// It ends, with all that it works on, and is back after that time.
    pub(super) fn send_bot_away(&mut self, link: usize, time: Duration) {
        let kept = &mut self.links[link];
        for (message, _) in std::mem::take(&mut kept.bot.tasks) {
            if let Some(stored) = kept.inbox.get_mut(&message) {
                stored.unsure = true;
            }
        }
        kept.bot.away_until = self.now + time;
        self.at(self.now + time, Event::Offer { link });
    }

    pub(super) fn call_bot_back(&mut self, link: usize) {
        let away_until = &mut self.links[link].bot.away_until;
        *away_until = (*away_until).min(self.now);
        self.at(self.now, Event::Offer { link });
    }

    pub(super) fn restart_bot(&mut self, link: usize) {
        self.counts.restarts += 1;
        self.send_bot_away(link, RESTART);
    }

    /// At the end: every message was answered, and once.
    pub(super) fn check_messages(&mut self, link: usize) {
        let Setup { history, probe, .. } = self.script.setup;
        let kept = &self.links[link];
        for (number, written) in self.accounts[link].history.iter().enumerate() {
            let Some(stored) = kept.inbox.get(&number) else {
                // What cannot be asked for is beyond anybody's power, and so is what was not routed where nobody probes.
                let blind = probe == Probe::None && !written.routed;
                let hopeless = blind || !history && written.at < self.script.calm_from + SETTLED;
                assert!(hopeless, "message {number} of {link} from {:?} is lost", written.at);
                self.counts.hopeless += 1;
                continue;
            };
            let replies = kept.bot.replies.get(&number).copied().unwrap_or_default();
            assert!(
                replies > 0 && stored.confirmed,
                "message {number} of {link}, here since {:?}, was offered {} times and not answered",
                stored.at,
                stored.attempts
            );
            assert!(
                replies == 1 || stored.unsure,
                "message {number} of {link} was answered {replies} times"
            );
            self.counts.answered += 1;
            self.counts.doubled += u64::from(replies > 1);
        }
    }
}
