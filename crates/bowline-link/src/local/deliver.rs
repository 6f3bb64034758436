//! The WebSockets of the bots of one link, as a way to hand them messages.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{limit, rules::Noted};
use crate::{
    bot::{Deliver, Mouth, Offer, Outcome, Presence, Said},
    clock,
    far::{Boxed, Message},
};

/// What the task of a WebSocket is told.
#[derive(Debug)]
pub(super) enum Tell {
    /// Hand this to the bot.
    Offer { message: Message, attempt: u32, done: oneshot::Sender<Outcome> },
    /// Pass this on.
    Pass(Bytes),
}

/// The bots of one link that have a WebSocket here. The newest that is ready is offered what there is.
#[derive(Debug)]
pub(super) struct Bots {
    inside: Mutex<Inside>,
    /// How many are ready.
    ready: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Inside {
    last_number: u64,
    /// In the order of arrival.
    seats: VecDeque<Seated>,
    /// Confirmed when nobody waited for it any more: not to be handed over again.
    late: VecDeque<String>,
    /// The last message of each room, the room used last at the end.
    rooms: VecDeque<(String, String)>,
}

#[derive(Debug)]
struct Seated {
    number: u64,
    tell: mpsc::Sender<Tell>,
    ready: bool,
    /// Whether its pings are not answered.
    silent: Arc<AtomicBool>,
    since: Instant,
}

impl Bots {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { inside: Mutex::default(), ready: watch::Sender::new(0) })
    }

    /// Takes a WebSocket in. Its place is held until the seat is dropped; the queue ends earlier when there are too
    /// many.
    pub(super) fn sit(self: &Arc<Self>) -> (Seat, mpsc::Receiver<Tell>) {
        let (tell, told) = mpsc::channel(limit::TELL_MAX);
        let silent = Arc::new(AtomicBool::new(false));
        let mut inside = self.lock();
        inside.last_number += 1;
        let number = inside.last_number;
        let since = clock::instant();
        let seated = Seated { number, tell, ready: false, silent: Arc::clone(&silent), since };
        inside.seats.push_back(seated);
        if inside.seats.len() > limit::SOCKETS_OF_LINK_MAX {
            inside.seats.pop_front();
        }
        self.count(&inside);
        (Seat { number, silent, bots: Arc::clone(self) }, told)
    }

    /// Remembers that a message was confirmed although nobody waits for it.
    pub(super) fn confirmed_late(&self, id: String) {
        let mut inside = self.lock();
        if !inside.late.contains(&id) {
            if inside.late.len() >= limit::LATE_MAX {
                inside.late.pop_front();
            }
            inside.late.push_back(id);
        }
    }

    /// Tells the link what was seen of a bot's requests; as far as it listens, since it is for the trace alone.
    pub(super) fn note(&self, noted: Vec<Noted>, mouth: &Mouth) {
        for noted in noted {
            let said = match noted {
                Noted::Fetched { id } => Said::Fetched { id },
                Noted::Replied { id: Some(id), .. } => Said::Replied { id: Some(id) },
                Noted::Replied { id: None, room } => {
                    Said::Replied { id: room.and_then(|room| self.last_of(&room)) }
                }
            };
            if mouth.try_send(said).is_err() {
                tracing::debug!("a link does not listen to what its bot does");
            }
        }
    }

    fn last_of(&self, room: &str) -> Option<String> {
        let inside = self.lock();
        let found = inside.rooms.iter().rfind(|(name, _)| name == room);
        found.map(|(_, id)| id.clone())
    }

    /// Gives a message to the newest bot that is ready, or says what became of it at once.
    fn hand_over(&self, offer: Offer) -> Result<oneshot::Receiver<Outcome>, Outcome> {
        let mut inside = self.lock();
        if let Some(at) = inside.late.iter().position(|id| *id == offer.message.id) {
            inside.late.remove(at);
            return Err(Outcome::Confirmed { replies: Vec::new() });
        }
        let Some(seated) = inside.seats.iter().rfind(|seated| seated.ready) else {
            return Err(Outcome::Absent);
        };
        let (done, outcome) = oneshot::channel();
        let (room, id) = (offer.message.room.clone(), offer.message.id.clone());
        let tell = Tell::Offer { message: offer.message, attempt: offer.attempt, done };
        match seated.tell.try_send(tell) {
            Ok(()) => {
                inside.remember(room, id);
                Ok(outcome)
            }
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err(Outcome::Unconfirmed("the bot does not read its WebSocket".to_owned()))
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Outcome::Absent),
        }
    }

    fn count(&self, inside: &Inside) {
        let ready = inside.seats.iter().filter(|seated| seated.ready).count();
        self.ready.send_if_modified(|count| std::mem::replace(count, ready) != ready);
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    fn remember(&mut self, room: String, id: String) {
        if room.is_empty() {
            return;
        }
        if let Some(at) = self.rooms.iter().position(|(name, _)| *name == room) {
            self.rooms.remove(at);
        } else if self.rooms.len() >= limit::ROOMS_MAX {
            self.rooms.pop_front();
        }
        self.rooms.push_back((room, id));
    }
}

impl Deliver for Bots {
    fn offer(&self, offer: Offer) -> Boxed<'_, Outcome> {
        Box::pin(async move {
            match self.hand_over(offer) {
                Ok(outcome) => outcome.await.unwrap_or_else(|_| {
                    let words = "the bot's WebSocket ended before it confirmed the message";
                    Outcome::Lost(words.to_owned())
                }),
                Err(outcome) => outcome,
            }
        })
    }

    fn ready(&self) -> Boxed<'_, ()> {
        let mut ready = self.ready.subscribe();
        Box::pin(async move {
            // The sender is in `self`, which outlives this.
            let _ = ready.wait_for(|ready| *ready > 0).await;
        })
    }

    fn presence(&self) -> Presence {
        let now = clock::instant();
        let inside = self.lock();
        let connections = inside.seats.iter().filter(|seated| seated.ready).count();
        let newest = inside.seats.iter().rfind(|seated| seated.ready);
        let words = match (newest, inside.seats.len()) {
            (None, 0) => {
                "no bot over the proxy; `bowline link env` has the variables for one".to_owned()
            }
            (None, 1) => {
                "no bot over the proxy; 1 connection has not authorised itself yet".to_owned()
            }
            (None, many) => format!(
                "no bot over the proxy; {many} connections have not authorised themselves yet"
            ),
            (Some(newest), _) => {
                let age = in_words(now.saturating_duration_since(newest.since));
                let silent = if newest.silent.load(Ordering::Relaxed) {
                    ", which does not answer pings"
                } else {
                    ""
                };
                match connections {
                    1 => format!("1 bot over the proxy for {age}{silent}"),
                    many => format!(
                        "{many} bots over the proxy; messages go to the newest, there for {age}{silent}"
                    ),
                }
            }
        };
        Presence { connections, words }
    }

    fn pass(&self, body: &Bytes) {
        let inside = self.lock();
        if let Some(seated) = inside.seats.iter().rfind(|seated| seated.ready) {
            let _ = seated.tell.try_send(Tell::Pass(body.clone()));
        }
    }
}

/// The place of one WebSocket among those of its link.
#[derive(Debug)]
pub(super) struct Seat {
    number: u64,
    silent: Arc<AtomicBool>,
    bots: Arc<Bots>,
}

impl Seat {
    /// Whether messages may be offered on it.
    pub(super) fn set_ready(&self, ready: bool) {
        let mut inside = self.bots.lock();
        if let Some(seated) = inside.seats.iter_mut().find(|seated| seated.number == self.number) {
            seated.ready = ready;
        }
        self.bots.count(&inside);
    }

    /// Whether it leaves pings unanswered.
    pub(super) fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inside = self.bots.lock();
        inside.seats.retain(|seated| seated.number != self.number);
        self.bots.count(&inside);
    }
}

/// `40s`, `5m`, `3h`, `2d`.
fn in_words(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..86_400 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_newest_bot_that_is_ready_is_offered_messages() {
        let bots = Bots::new();
        assert_eq!(bots.offer(offer("1", "r")).await, Outcome::Absent);
        let (old, mut old_told) = bots.sit();
        let (new, mut new_told) = bots.sit();
        assert_eq!(bots.offer(offer("1", "r")).await, Outcome::Absent);
        let unready = "no bot over the proxy; 2 connections have not authorised themselves yet";
        assert_eq!(bots.presence(), Presence { connections: 0, words: unready.to_owned() });

        old.set_ready(true);
        bots.ready().await;
        let offered = bots.hand_over(offer("1", "r")).unwrap();
        assert!(matches!(old_told.recv().await, Some(Tell::Offer { .. })));
        assert_eq!(bots.presence().words, "1 bot over the proxy for 0s");
        // The task ended without a word.
        assert!(offered.await.is_err());

        new.set_ready(true);
        bots.pass(&Bytes::from_static(b"x"));
        assert!(matches!(new_told.recv().await, Some(Tell::Pass(_))));
        assert_eq!(bots.presence().connections, 2);
        new.set_silent(true);
        tokio::time::advance(Duration::from_secs(300)).await;
        assert_eq!(
            bots.presence().words,
            "2 bots over the proxy; messages go to the newest, there for 5m, which does not \
             answer pings"
        );
        drop((old, new));
        assert!(bots.presence().words.starts_with("no bot over the proxy; `bowline link env`"));
        assert_eq!(bots.offer(offer("1", "r")).await, Outcome::Absent);
    }

    #[tokio::test]
    async fn what_was_confirmed_too_late_is_not_handed_over_again() {
        let bots = Bots::new();
        bots.confirmed_late("1".to_owned());
        let confirmed = Outcome::Confirmed { replies: Vec::new() };
        assert_eq!(bots.offer(offer("1", "r")).await, confirmed);
        assert_eq!(bots.offer(offer("1", "r")).await, Outcome::Absent);
        for number in 0..2 * limit::LATE_MAX {
            bots.confirmed_late(number.to_string());
        }
        assert_eq!(bots.lock().late.len(), limit::LATE_MAX);
    }

    #[tokio::test]
    async fn a_reply_into_a_room_is_one_to_its_last_message() {
        let bots = Bots::new();
        let (seat, mut told) = bots.sit();
        seat.set_ready(true);
        let mut waiting = Vec::new();
        for (id, room) in [("1", "a"), ("2", "b"), ("3", "a")] {
            waiting.push(bots.hand_over(offer(id, room)).unwrap());
            told.recv().await.unwrap();
        }
        let (mouth, mut said) = mpsc::channel(8);
        let replied = |id: Option<&str>, room: Option<&str>| Noted::Replied {
            id: id.map(str::to_owned),
            room: room.map(str::to_owned),
        };
        let noted = vec![
            Noted::Fetched { id: "3".to_owned() },
            replied(None, Some("a")),
            replied(None, Some("b")),
            replied(Some("9"), Some("a")),
            replied(None, None),
        ];
        bots.note(noted, &mouth);
        drop(mouth);
        let mut heard = Vec::new();
        while let Some(one) = said.recv().await {
            heard.push(match one {
                Said::Fetched { id } => format!("fetched {id}"),
                Said::Replied { id } => format!("replied {}", id.unwrap_or_default()),
                Said::Send { .. } => "send".to_owned(),
            });
        }
        assert_eq!(heard, ["fetched 3", "replied 3", "replied 2", "replied 9", "replied "]);

        for number in 0..2 * limit::ROOMS_MAX {
            bots.lock().remember(number.to_string(), "x".to_owned());
        }
        assert_eq!(bots.lock().rooms.len(), limit::ROOMS_MAX);
    }

    #[tokio::test]
    async fn too_many_websockets_cost_the_oldest_its_place() {
        let bots = Bots::new();
        let mut seats = (0..=limit::SOCKETS_OF_LINK_MAX).map(|_| bots.sit()).collect::<Vec<_>>();
        seats.iter().for_each(|(seat, _)| seat.set_ready(true));
        assert_eq!(bots.presence().connections, limit::SOCKETS_OF_LINK_MAX);
        assert!(seats[0].1.recv().await.is_none());
        assert!(seats[1].1.try_recv().is_err());
    }

    fn offer(id: &str, room: &str) -> Offer {
        let message = Message {
            id: id.to_owned(),
            own_id: true,
            room: room.to_owned(),
            receipt: None,
            confirm: true,
            body: Bytes::new(),
        };
        Offer { link: "bot".to_owned(), message, attempt: 1 }
    }
}
