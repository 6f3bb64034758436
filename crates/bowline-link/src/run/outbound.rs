//! What a bot says to its service, until it can be handed to a connection. Pure, apart from who waits.

use std::collections::{BTreeMap, VecDeque};

use bowline_proto::{Time, keeper::ConnectionId};
use bytes::Bytes;
use tokio::sync::oneshot;

use super::limit;
use crate::far::{Command, Outgoing, Unsaid};

/// Who waits for what becomes of it.
pub(super) type Done = oneshot::Sender<Result<Bytes, Unsaid>>;

#[derive(Debug, Default)]
pub(super) struct Outbound {
    waiting: VecDeque<(Time, Item)>,
    /// Replies, and the confirmations behind them, that a connection has and that may not outlive this process yet. When
    /// the connection ends they go out with another: perhaps again, but never not at all. Bounded by what a connection
    /// takes before it has written.
    handed: VecDeque<(ConnectionId, Time, Item)>,
    bytes: usize,
    asks: BTreeMap<u64, Ask>,
    next_ask: u64,
}

#[derive(Debug)]
pub(super) enum Item {
    /// Something for the service.
    Send { outgoing: Outgoing, done: Option<Done> },
    /// All replies to this message are before it: it counts as confirmed now.
    Confirmed { id: String },
}

#[derive(Debug)]
struct Ask {
    connection: ConnectionId,
    until: Time,
    done: Option<Done>,
}

/// What is told to the connection, and what follows from that.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) command: Command,
    /// The message that is answered with it.
    pub(super) replied: Option<String>,
}

/// Something that does not go out, and nobody waited to hear that.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unsent {
    /// The message that was answered with it.
    pub(super) reply_to: Option<String>,
    pub(super) words: &'static str,
}

/// What has waited too long.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Expired {
    /// Messages that count as confirmed although replies to them could not be sent: offering them again would only make
    /// the bot say the same again.
    pub(super) confirmed: Vec<String>,
    pub(super) unsent: Vec<Unsent>,
}

impl Outbound {
    /// Whether nothing waits for a connection.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether nothing that must go out is here or with a connection.
    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.handed.is_empty()
    }

    /// Messages that are confirmed as soon as what is before them has gone out.
    pub(super) fn confirming(&self) -> impl Iterator<Item = &str> {
        let handed = self.handed.iter().map(|(_, _, item)| item);
        let waiting = self.waiting.iter().map(|(_, item)| item);
        handed.chain(waiting).filter_map(|item| match item {
            Item::Confirmed { id } => Some(id.as_str()),
            Item::Send { .. } => None,
        })
    }

    /// Takes something to be sent. When there is no place, whoever waits is told; else the caller.
    pub(super) fn send(
        &mut self,
        now: Time,
        outgoing: Outgoing,
        done: Option<Done>,
    ) -> Option<Unsent> {
        let bytes = outgoing.body.len();
        if self.waiting.len() >= limit::OUTBOUND || self.bytes + bytes > limit::OUTBOUND_BYTES {
            return unsent(outgoing, done, "too much waits to be sent to the service");
        }
        self.bytes += bytes;
        self.waiting.push_back((now + limit::OUTBOUND_WAIT, Item::Send { outgoing, done }));
        None
    }

    /// Marks the place where all replies to a message were before. Bounded by the offers that are under way.
    pub(super) fn confirmed(&mut self, now: Time, id: String) {
        self.waiting.push_back((now + limit::OUTBOUND_WAIT, Item::Confirmed { id }));
    }

    /// What is told next to this connection.
    pub(super) fn next(&mut self, now: Time, connection: ConnectionId) -> Option<Told> {
        let (until, item) = self.waiting.pop_front()?;
        match item {
            Item::Send { mut outgoing, done } => {
                self.bytes -= outgoing.body.len();
                if outgoing.ask.is_some() {
                    outgoing.ask = Some(self.ask(now, connection, done));
                } else if let Some(done) = done {
                    // Nobody waits any more: the bot has gone.
                    let _ = done.send(Ok(Bytes::new()));
                }
                let replied = outgoing.reply_to.clone();
                if replied.as_deref().is_some_and(|id| self.is_confirming(id)) {
                    let again = Item::Send { outgoing: outgoing.clone(), done: None };
                    self.handed.push_back((connection, until, again));
                }
                Some(Told { command: Command::Send(outgoing), replied })
            }
            Item::Confirmed { id } => {
                if let Some(reply) = self.untold(now, connection, until, &id) {
                    return Some(reply);
                }
                let command = Command::Confirmed { id: id.clone() };
                self.handed.push_back((connection, until, Item::Confirmed { id }));
                Some(Told { command, replied: None })
            }
        }
    }

    /// What is told first if replies to this message are with another connection: that may never write them, and this
    /// one knows only of its own when it says that all is written.
    fn untold(
        &mut self,
        now: Time,
        connection: ConnectionId,
        until: Time,
        id: &str,
    ) -> Option<Told> {
        let is_reply = |item: &Item| match item {
            Item::Send { outgoing, .. } => outgoing.reply_to.as_deref() == Some(id),
            Item::Confirmed { .. } => false,
        };
        let (back, kept): (VecDeque<_>, _) = std::mem::take(&mut self.handed)
            .into_iter()
            .partition(|(on, _, item)| *on != connection && is_reply(item));
        self.handed = kept;
        if back.is_empty() {
            return None;
        }
        self.waiting.push_front((until, Item::Confirmed { id: id.to_owned() }));
        self.take_back(back);
        self.next(now, connection)
    }

    fn take_back(&mut self, items: VecDeque<(ConnectionId, Time, Item)>) {
        for (_, until, item) in items.into_iter().rev() {
            if let Item::Send { outgoing, .. } = &item {
                self.bytes += outgoing.body.len();
            }
            self.waiting.push_front((until, item));
        }
    }

    fn is_confirming(&self, id: &str) -> bool {
        self.waiting.iter().any(|(_, item)| matches!(item, Item::Confirmed { id: of } if of == id))
    }

    /// The replies to this message, and its confirmation, outlive this process. Whether it was waited for.
    pub(super) fn written(&mut self, id: &str) -> bool {
        let is_it = |item: &Item| matches!(item, Item::Confirmed { id: of } if of == id);
        let is_its = |item: &Item| match item {
            Item::Send { outgoing, .. } => outgoing.reply_to.as_deref() == Some(id),
            Item::Confirmed { .. } => is_it(item),
        };
        let was_handed = self.handed.iter().any(|(_, _, item)| is_it(item));
        self.handed.retain(|(_, _, item)| !is_its(item));
        was_handed
    }

    /// The service has answered.
    pub(super) fn answered(&mut self, ask: u64, answer: Result<Bytes, Unsaid>) {
        if let Some(Ask { done: Some(done), .. }) = self.asks.remove(&ask) {
            let _ = done.send(answer);
        }
    }

    /// A connection has ended: what was asked on it is not answered any more.
    pub(super) fn ended(&mut self, connection: ConnectionId) {
        let lost = self.asks.extract_if(.., |_, ask| ask.connection == connection);
        for (_, ask) in lost {
            unanswered(
                ask.done,
                "it was sent; the connection ended before an answer came".to_owned(),
            );
        }
        let (back, kept): (VecDeque<_>, _) =
            std::mem::take(&mut self.handed).into_iter().partition(|(on, ..)| *on == connection);
        self.handed = kept;
        self.take_back(back);
    }

    /// When something has waited long enough.
    pub(super) fn deadline(&self) -> Option<Time> {
        let waiting = self.waiting.front().map(|(until, _)| *until);
        let asks = self.asks.values().map(|ask| ask.until).min();
        waiting.into_iter().chain(asks).min()
    }

    /// Gives up what has waited too long.
    pub(super) fn expire(&mut self, now: Time) -> Expired {
        let mut expired = Expired::default();
        while let Some((until, _)) = self.waiting.front()
            && *until <= now
        {
            match self.waiting.pop_front() {
                Some((_, Item::Send { outgoing, done })) => {
                    self.bytes -= outgoing.body.len();
                    let words = "there was no connection to the service for too long";
                    expired.unsent.extend(unsent(outgoing, done, words));
                }
                Some((_, Item::Confirmed { id })) => expired.confirmed.push(id),
                None => break,
            }
        }
        for (_, ask) in self.asks.extract_if(.., |_, ask| ask.until <= now) {
            let within = limit::ASK_WAIT.as_secs();
            unanswered(ask.done, format!("it was sent; no answer came within {within} s"));
        }
        expired
    }

    fn ask(&mut self, now: Time, connection: ConnectionId, done: Option<Done>) -> u64 {
        if self.asks.len() >= limit::ASKS
            && let Some((_, oldest)) = self.asks.pop_first()
        {
            let words = "it was sent; too many other answers are waited for";
            unanswered(oldest.done, words.to_owned());
        }
        self.next_ask += 1;
        self.asks.insert(self.next_ask, Ask { connection, until: now + limit::ASK_WAIT, done });
        self.next_ask
    }
}

/// Tells whoever waits; true if somebody did.
fn refuse(done: Option<Done>, words: &str) -> bool {
    done.is_some_and(|done| done.send(Err(words.into())).is_ok())
}

/// Tells whoever waits that what was said has gone out.
fn unanswered(done: Option<Done>, words: String) {
    // Whoever asked may have gone.
    let _ = done.map(|done| done.send(Err(Unsaid::Unanswered(words))));
}

fn unsent(outgoing: Outgoing, done: Option<Done>, words: &'static str) -> Option<Unsent> {
    if refuse(done, words) { None } else { Some(Unsent { reply_to: outgoing.reply_to, words }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time::ZERO;
    const ON: ConnectionId = ConnectionId(1);

    #[test]
    fn what_is_said_goes_out_in_order_and_is_told() {
        let mut outbound = Outbound::default();
        let (done, mut told) = oneshot::channel();
        outbound.send(START, saying("one"), Some(done));
        outbound.confirmed(START, "m".into());
        let sent = outbound.next(START, ON).unwrap();
        assert_eq!(sent.command, Command::Send(saying("one")));
        assert_eq!(told.try_recv(), Ok(Ok(Bytes::new())));
        let confirmed = Command::Confirmed { id: "m".into() };
        assert_eq!(outbound.next(START, ON).unwrap().command, confirmed);
        assert!(outbound.is_empty() && !outbound.is_done() && outbound.bytes == 0);
        assert!(outbound.written("m") && outbound.is_done() && !outbound.written("m"));
    }

    #[test]
    fn a_reply_that_another_connection_was_told_is_said_again_before_its_confirmation() {
        let mut outbound = Outbound::default();
        let reply = Outgoing { reply_to: Some("m".into()), ..saying("x") };
        outbound.send(START, reply.clone(), None);
        outbound.confirmed(START, "m".into());
        assert_eq!(outbound.next(START, ON).unwrap().command, Command::Send(reply.clone()));
        // It had no room for more, and another one was made: it may never have written what it was told.
        let other = ConnectionId(2);
        assert_eq!(outbound.next(START, other).unwrap().command, Command::Send(reply));
        let confirmed = Command::Confirmed { id: "m".into() };
        assert_eq!(outbound.next(START, other).unwrap().command, confirmed);
        outbound.ended(ON);
        assert!(outbound.next(START, other).is_none());
        assert!(outbound.written("m") && outbound.is_done() && outbound.bytes == 0);
    }

    #[test]
    fn replies_that_may_not_have_gone_out_are_said_on_the_next_connection_until_they_have() {
        let mut outbound = Outbound::default();
        let reply = |id: &str| Outgoing { reply_to: Some(id.into()), ..saying("x") };
        for id in ["one", "two"] {
            outbound.send(START, reply(id), None);
            outbound.confirmed(START, id.into());
        }
        outbound.send(START, saying("by itself"), None);
        let said = |outbound: &mut Outbound, on| {
            std::iter::from_fn(|| outbound.next(START, on).map(|told| told.command)).collect()
        };
        let all: Vec<_> = said(&mut outbound, ON);
        assert_eq!(all.len(), 5);
        assert_eq!(outbound.confirming().collect::<Vec<_>>(), ["one", "two"]);
        assert!(outbound.written("one"));
        outbound.ended(ConnectionId(2));
        assert!(outbound.is_empty());
        outbound.ended(ON);
        assert_eq!(outbound.bytes, 1);
        let again: Vec<_> = said(&mut outbound, ConnectionId(2));
        let two = Command::Confirmed { id: "two".into() };
        assert_eq!(again, [Command::Send(reply("two")), two]);
        assert!(outbound.written("two") && outbound.is_done() && outbound.bytes == 0);
    }

    #[test]
    fn numbers_of_two_bots_do_not_meet() {
        let mut outbound = Outbound::default();
        let mut told: Vec<_> = (0..2)
            .map(|_| {
                let (done, told) = oneshot::channel();
                outbound.send(START, Outgoing { ask: Some(7), ..saying("?") }, Some(done));
                told
            })
            .collect();
        let asks: Vec<u64> = (0..2)
            .map(|_| match outbound.next(START, ON).unwrap().command {
                Command::Send(Outgoing { ask: Some(ask), .. }) => ask,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_ne!(asks[0], asks[1]);
        outbound.answered(asks[1], Ok(Bytes::from_static(b"two")));
        outbound.ended(ON);
        assert_eq!(told[1].try_recv(), Ok(Ok(Bytes::from_static(b"two"))));
        assert!(matches!(told[0].try_recv(), Ok(Err(Unsaid::Unanswered(_)))));
    }

    #[test]
    fn what_finds_no_connection_is_refused_in_the_end() {
        let mut outbound = Outbound::default();
        let mut told: Vec<_> = (0..=limit::OUTBOUND)
            .map(|_| {
                let (done, told) = oneshot::channel();
                outbound.send(START, saying("x"), Some(done));
                told
            })
            .collect();
        assert!(matches!(told.pop().unwrap().try_recv(), Ok(Err(_))), "beyond the limit");
        outbound.confirmed(START, "m".into());
        let at = outbound.deadline().unwrap();
        assert_eq!(outbound.confirming().collect::<Vec<_>>(), ["m"]);
        let expired = outbound.expire(at);
        assert_eq!((expired.confirmed, expired.unsent), (vec!["m".to_owned()], Vec::new()));
        let is_unsent = |told: Result<_, _>| matches!(told, Ok(Err(Unsaid::NotSent(_))));
        assert!(told.into_iter().all(|mut told| is_unsent(told.try_recv())));
        assert_eq!((outbound.bytes, outbound.deadline()), (0, None));
    }

    #[test]
    fn what_was_sent_and_not_answered_is_not_told_as_unsent() {
        let mut outbound = Outbound::default();
        let (done, mut told) = oneshot::channel();
        outbound.send(START, Outgoing { ask: Some(1), ..saying("?") }, Some(done));
        outbound.next(START, ON).unwrap();
        outbound.expire(outbound.deadline().unwrap());
        let words = "it was sent; no answer came within 60 s".to_owned();
        assert_eq!(told.try_recv(), Ok(Err(Unsaid::Unanswered(words))));
    }

    #[test]
    fn what_does_not_go_out_is_never_dropped_in_silence() {
        let mut outbound = Outbound::default();
        let reply = || Outgoing { reply_to: Some("m".into()), ..saying("x") };
        for _ in 0..limit::OUTBOUND {
            assert_eq!(outbound.send(START, reply(), None), None);
        }
        let (done, told) = oneshot::channel();
        drop(told);
        assert!(outbound.send(START, reply(), None).is_some());
        assert!(outbound.send(START, reply(), Some(done)).is_some(), "nobody listens");
        let unsent = outbound.expire(outbound.deadline().unwrap()).unsent;
        assert_eq!(unsent.len(), limit::OUTBOUND);
        assert!(unsent.iter().all(|one| one.reply_to.as_deref() == Some("m")));
    }

    fn saying(text: &'static str) -> Outgoing {
        let body = Bytes::from_static(text.as_bytes());
        Outgoing { body, text: true, ask: None, reply_to: None }
    }
}
