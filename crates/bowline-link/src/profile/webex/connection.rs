//! One connection: the loop that reads a device's socket, and does what it is told.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bowline_dial::{
    Message as Frame,
    socket::{Socket, SocketEvent},
};
use bowline_proto::keeper::{Level, Verdict};
use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Account, Share, close,
    cloud::Refused,
    device::Device,
    envelope::{self, Activity, Envelope, Kind, Verb, public_id, text},
    open::Admitted,
    remember,
    rules::text_frame,
    take_share, uuid,
};
use crate::{
    clock,
    far::{CatchUpFailure, Command, Connection, Event, Message, Outgoing, QUEUE},
};

/// Taken off the time of the last frame when what a gap swallowed is asked for: the service's clock may go otherwise.
const GAP_MARGIN_MS: u64 = 60_000;

/// How long the service may take to say what a gap swallowed. What arrives meanwhile waits for it, so that the order of
/// each room is kept.
const ASKING: Duration = Duration::from_secs(5);

/// The payload of the WebSocket ping that stands for a ping of the protocol.
const INSTEAD: Bytes = Bytes::from_static(b"ack");

/// The same when it was asked before and did not answer: nothing waits any more.
const ASKING_AGAIN: Duration = Duration::from_secs(60);

/// How long the end of a connection is kept back while something of the bot's is being sent.
const SENDING: Duration = Duration::from_secs(5);

pub(super) fn start(
    account: Arc<Account>,
    admitted: Admitted,
    device: Device,
    stale: Vec<String>,
) -> Connection {
    let (command_sender, commands) = mpsc::channel(QUEUE);
    let (events, event_receiver) = mpsc::channel(QUEUE);
    let number = {
        let mut known = account.known();
        known.connections += 1;
        known.connections
    };
    let mut jobs = JoinSet::new();
    if !stale.is_empty() {
        let account = Arc::clone(&account);
        jobs.spawn(async move {
            for url in stale {
                account.cloud.delete_device(&url).await;
            }
            Done::Nothing
        });
    }
    let Admitted { socket, early } = admitted;
    let driver = Driver {
        account,
        number,
        socket,
        commands,
        events,
        outbox: VecDeque::new(),
        jobs,
        sends: VecDeque::new(),
        is_sending: false,
        posted: Vec::new(),
        last_number: None,
        heard_unix_ms: clock::unix_ms(),
        asking: None,
        failures: 0,
        retry_after: None,
        is_holding: false,
        held: VecDeque::new(),
        answers_pings: false,
        closing: None,
        is_over: false,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(driver.run(early));
    Connection {
        commands: command_sender,
        events: event_receiver,
        address: Some(device.url),
        tasks,
    }
}

/// What the end of a socket means, and in words.
pub(super) fn ended(
    code: Option<u16>,
    reason: &str,
    is_clean: bool,
    opening: bool,
) -> (Verdict, String) {
    // A close frame without a code (RFC 6455 section 7.1.5).
    let code = code.or(is_clean.then_some(1005));
    let verdict = close::verdict(code, reason, opening);
    let mark = if reason.is_empty() { "" } else { ": " };
    let words = match (code, verdict) {
        (_, Verdict::Replaced) => {
            "closed with 4000 Replaced: another connection uses this device, or its token; stop the other process".to_owned()
        }
        (Some(code), _) => format!("closed with {code}{mark}{reason}"),
        (None, _) => format!("ended{mark}{reason}"),
    };
    (verdict, words)
}

/// The payload of a frame.
pub(super) fn bytes_of(frame: &Frame) -> &[u8] {
    match frame {
        Frame::Text(text) => text.as_bytes(),
        Frame::Binary(bytes) => bytes,
    }
}

/// What a request that was made beside the loop came to.
enum Done {
    Nothing,
    /// A probe's message was posted, or not.
    Posted {
        nonce: String,
        uuid: Result<String, String>,
    },
    /// What a gap swallowed, as far as the service tells.
    Found(Result<Vec<Message>, CatchUpFailure>),
    /// What the bot said was sent, or not.
    Sent {
        ask: Option<u64>,
        answer: Result<Bytes, String>,
    },
}

/// What the loop woke up for.
enum Turn {
    Command(Option<Command>),
    Heard(Option<SocketEvent>),
    Done(Done),
    /// Somebody takes events.
    Room,
}

/// What is sent one after the other.
enum ToSend {
    Message(Outgoing),
    /// What is before it has been answered: [`Event::Written`] with this id.
    Mark(String),
}

struct Driver {
    account: Arc<Account>,
    /// Its number among the connections of the account.
    number: u64,
    socket: Socket,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    /// What `events` had no room for. Nothing is read while there is anything.
    outbox: VecDeque<Event>,
    jobs: JoinSet<Done>,
    /// What the bot says, in its order: one is under way at a time.
    sends: VecDeque<ToSend>,
    is_sending: bool,
    /// Messages of probes that are to be removed, by UUID.
    posted: Vec<String>,
    /// Of the last frame.
    last_number: Option<u64>,
    heard_unix_ms: u64,
    /// From when on the service is being asked for what a gap has swallowed, in milliseconds since 1970.
    asking: Option<u64>,
    /// How often in a row that failed, and how long the service does not want to be asked again.
    failures: u32,
    retry_after: Option<Duration>,
    /// Whether what arrives waits for its answer.
    is_holding: bool,
    held: VecDeque<Event>,
    /// Whether a ping of the protocol was ever answered.
    answers_pings: bool,
    /// How long the goodbye may take that we have said.
    closing: Option<Duration>,
    is_over: bool,
}

impl Driver {
    async fn run(mut self, early: Vec<SocketEvent>) {
        // What the connection before this one did not get to know.
        self.ask_for_missed();
        for event in early {
            if let Some(end) = self.on_event(Some(event)).await {
                return self.finish(end).await;
            }
        }
        loop {
            self.flush();
            match self.choose().await {
                // Whoever held the connection has dropped it: it ends at once.
                Turn::Command(None) => return,
                Turn::Command(Some(command)) => self.on_command(command).await,
                Turn::Heard(event) => {
                    if let Some(end) = self.on_event(event).await {
                        return self.finish(end).await;
                    }
                }
                Turn::Done(done) => self.on_done(done),
                Turn::Room => {}
            }
        }
    }

    /// Bounded both ways: nothing is read while somebody is slow to take what was read before.
    async fn choose(&mut self) -> Turn {
        let may_tell = self.outbox.is_empty();
        let may_read = may_tell && self.held.len() < QUEUE;
        tokio::select! {
            command = self.commands.recv() => Turn::Command(command),
            event = self.socket.next(), if may_read => Turn::Heard(event),
            Some(done) = self.jobs.join_next() => Turn::Done(done.unwrap_or(Done::Nothing)),
            permit = self.events.reserve(), if !may_tell => {
                if let (Ok(permit), Some(event)) = (permit, self.outbox.pop_front()) {
                    permit.send(event);
                }
                Turn::Room
            }
        }
    }

    fn tell(&mut self, event: Event) {
        self.outbox.push_back(event);
    }

    fn flush(&mut self) {
        while let Some(event) = self.outbox.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.outbox.push_front(event);
                    return;
                }
                // Nobody is there any more, and the commands will say so.
                Err(TrySendError::Closed(_)) => self.outbox.clear(),
            }
        }
    }

    /// The socket is over. What the bot has said needs none: it is sent before the end is told, because whoever is told
    /// that drops the connection.
    async fn finish(mut self, end: Event) {
        self.is_over = true;
        for uuid in std::mem::take(&mut self.posted) {
            self.remove(uuid);
        }
        let within = self.closing.map_or(SENDING, |within| within / 2);
        if timeout(within, self.wind_up()).await.is_err() && self.is_sending {
            let waiting = self.sends.iter().filter(|it| matches!(it, ToSend::Message(_)));
            let messages = waiting.count() + 1;
            tracing::warn!(link = %self.account.link, messages, "what the bot says was not sent before the connection was over");
        }
        if let Some(since) = self.asking {
            self.account.missed(since);
        }
        self.outbox.append(&mut self.held);
        self.tell(end);
        for event in self.outbox {
            if self.events.send(event).await.is_err() {
                return;
            }
        }
    }

    /// Waits until everything is sent; after a goodbye, for all else that is under way as well.
    async fn wind_up(&mut self) {
        loop {
            while let Ok(command) = self.commands.try_recv() {
                if matches!(command, Command::Send(_) | Command::Confirmed { .. }) {
                    self.on_command(command).await;
                }
            }
            let is_sent = self.sends.is_empty() && !self.is_sending;
            if is_sent && self.closing.is_none() {
                return;
            }
            match self.jobs.join_next().await {
                Some(done) => self.on_done(done.unwrap_or(Done::Nothing)),
                None => return,
            }
        }
    }

    async fn on_command(&mut self, command: Command) {
        let sender = self.socket.sender.clone();
        // When the socket is over, its end is on the way and tells so.
        match command {
            Command::Ping => {
                let _ = sender.ping(Bytes::new()).await;
            }
            Command::Ack => {
                let _ = sender.send(text_frame(envelope::ping(&uuid()))).await;
                if !self.answers_pings {
                    let _ = sender.ping(INSTEAD).await;
                }
            }
            Command::Probe { nonce } => {
                for uuid in std::mem::take(&mut self.posted) {
                    self.remove(uuid);
                }
                let account = Arc::clone(&self.account);
                self.jobs.spawn(async move {
                    let uuid = account.post_probe(&nonce).await;
                    Done::Posted { nonce, uuid }
                });
            }
            Command::Acknowledge { receipt } => {
                for id in receipt.split_whitespace() {
                    self.acknowledge(id).await;
                }
            }
            Command::Send(outgoing) if self.sends.len() < QUEUE => {
                self.sends.push_back(ToSend::Message(outgoing));
                self.send_next();
            }
            Command::Send(Outgoing { ask, .. }) => {
                let answer = Err(format!("{QUEUE} messages wait to be sent already"));
                self.tell_sent(ask, answer);
            }
            // To the service it was acknowledged when it was stored.
            Command::Confirmed { id } if self.sends.len() < 2 * QUEUE => {
                self.sends.push_back(ToSend::Mark(id));
                self.send_next();
            }
            // Too many wait: it is confirmed by the next connection.
            Command::Confirmed { .. } => {}
            Command::Close { within } => {
                self.closing = Some(within);
                let _ = sender.close(1000, "done", within);
            }
        }
    }

    /// What is to be told when the connection is over.
    async fn on_event(&mut self, event: Option<SocketEvent>) -> Option<Event> {
        let event = event.unwrap_or(SocketEvent::Closed {
            code: None,
            reason: String::new(),
            clean: false,
        });
        match event {
            SocketEvent::Message(frame) => {
                let body = match frame {
                    Frame::Text(text) => text.into_bytes(),
                    Frame::Binary(bytes) => bytes,
                };
                self.on_frame(body).await;
            }
            SocketEvent::Pong(payload) => {
                if payload == INSTEAD && !self.answers_pings {
                    self.tell(Event::Heard(Level::Ack));
                }
                self.tell(Event::Heard(Level::Pong));
            }
            SocketEvent::Heard => self.tell(Event::Heard(Level::Tcp)),
            // Nothing is marked here.
            SocketEvent::Written(_) => {}
            SocketEvent::Closed { code, reason, clean } => {
                let (verdict, words) = ended(code, &reason, clean, false);
                let verdict = if self.closing.is_some() { Verdict::Again } else { verdict };
                return Some(Event::Closed { verdict, words });
            }
        }
        None
    }

    async fn on_frame(&mut self, body: Bytes) {
        self.tell(Event::Heard(Level::Tcp));
        let Ok(envelope) = envelope::decode(&body) else {
            tracing::debug!(link = %self.account.link, bytes = body.len(), "a frame is no envelope");
            return;
        };
        self.count(envelope.number);
        match envelope.kind {
            Kind::Pong => {
                self.answers_pings = true;
                self.tell(Event::Heard(Level::Ack));
            }
            Kind::Shutdown => self.tell(Event::Draining),
            Kind::Admitted => {}
            Kind::Activity(ref activity) => self.on_activity(&envelope, activity, body).await,
            Kind::Other => self.pass(&envelope, body).await,
        }
    }

    /// Looks whether frames are missing: then what they told of is asked for.
    fn count(&mut self, number: Option<u64>) {
        let Some(number) = number else { return };
        let expected = self.last_number.map(|last| last.saturating_add(1));
        self.last_number = Some(number);
        let since = std::mem::replace(&mut self.heard_unix_ms, clock::unix_ms());
        if let Some(missing) = expected.and_then(|expected| number.checked_sub(expected))
            && missing > 0
        {
            tracing::warn!(link = %self.account.link, missing, "frames are missing; the service is asked for what they told of");
            self.account.missed(since.saturating_sub(GAP_MARGIN_MS));
            self.ask_for_missed();
        }
    }

    /// Asks the service, one time after the other, until it has answered.
    fn ask_for_missed(&mut self) {
        if self.asking.is_some() || self.is_over {
            return;
        }
        let Some(since) = self.account.known().missed_since.take() else { return };
        self.asking = Some(since);
        let (failures, pause) = (self.failures, self.retry_after.unwrap_or_default());
        // The order of each room is worth a moment, not an outage.
        self.is_holding = failures == 0;
        let account = Arc::clone(&self.account);
        self.jobs.spawn(async move {
            let within = if failures == 0 {
                ASKING
            } else {
                sleep(pause.max(Duration::from_secs(1 << failures.min(5)))).await;
                ASKING_AGAIN
            };
            let asked = timeout(within, account.catch_up(since)).await;
            Done::Found(asked.unwrap_or_else(|_| {
                let words = "the service took too long".to_owned();
                Err(CatchUpFailure { words, retry_after: None })
            }))
        });
    }

    async fn on_activity(&mut self, envelope: &Envelope, activity: &Activity, body: Bytes) {
        let is_own = {
            let mut known = self.account.known();
            if let Some(at) = activity.published {
                known.is_active(&activity.conversation, at);
            }
            known.me.as_ref().is_some_and(|me| me.is(&activity.actor, &activity.email))
        };
        if is_own {
            return self.on_own(envelope, activity, body).await;
        }
        let receipt = envelope.id.clone();
        let mut message = Message {
            id: activity.id.clone(),
            own_id: true,
            room: activity.conversation.clone(),
            receipt,
            confirm: true,
            body,
        };
        match activity.verb {
            Verb::Post | Verb::CardAction => {}
            Verb::Share => {
                let share = Share {
                    connection: self.number,
                    room: activity.conversation.clone(),
                    id: activity.id.clone(),
                    envelope: envelope.id.clone().unwrap_or_default(),
                };
                // Acknowledged together with what it becomes.
                remember(&mut self.account.known().shares, share);
                return;
            }
            Verb::Filed => {
                let room = &activity.conversation;
                let share = take_share(&mut self.account.known().shares, room, self.number);
                if let Some(share) = share {
                    message.body = envelope::as_post(&message.body, &share.id);
                    let both = [Some(share.envelope), message.receipt.take()];
                    let both: Vec<String> = both.into_iter().flatten().collect();
                    message.receipt = Some(both.join(" "));
                    message.id = share.id;
                }
            }
            Verb::Other => return self.pass(envelope, message.body).await,
        }
        let place = (message.id.clone(), message.room.clone());
        remember(&mut self.account.known().rooms, place);
        self.bring(message);
    }

    fn bring(&mut self, message: Message) {
        let to = if self.is_holding { &mut self.held } else { &mut self.outbox };
        to.push_back(Event::Message(message));
    }

    /// What the bot itself did: a probe has come back, or the bot is told as the service tells it.
    async fn on_own(&mut self, envelope: &Envelope, activity: &Activity, body: Bytes) {
        if self.account.is_probe_room(&activity.conversation) {
            if let Some(id) = &envelope.id {
                self.acknowledge(id).await;
            }
            if activity.verb == Verb::Post {
                self.on_probe(&activity.id);
            }
        } else if self.account.is_proxied && activity.verb == Verb::Post {
            self.bring(Message {
                id: activity.id.clone(),
                own_id: true,
                room: activity.conversation.clone(),
                receipt: envelope.id.clone(),
                confirm: false,
                body,
            });
        } else {
            self.pass(envelope, body).await;
        }
    }

    fn on_probe(&mut self, uuid: &str) {
        let nonce = {
            let mut known = self.account.known();
            let found = known.probes.iter().find(|(posted, _)| posted == uuid);
            let nonce = found.map(|(_, nonce)| nonce.clone());
            if nonce.is_none() {
                // Events overtake answers.
                remember(&mut known.early, (self.number, uuid.to_owned()));
            }
            nonce
        };
        if let Some(nonce) = nonce {
            self.tell(Event::Probed { nonce });
            self.clear(uuid);
        }
    }

    /// Removes the message of a probe, if this connection has posted it.
    fn clear(&mut self, uuid: &str) {
        if let Some(at) = self.posted.iter().position(|posted| posted == uuid) {
            let uuid = self.posted.swap_remove(at);
            self.remove(uuid);
        }
    }

    fn remove(&mut self, uuid: String) {
        let account = Arc::clone(&self.account);
        self.jobs.spawn(async move {
            account.cloud.delete_message(&uuid).await;
            Done::Nothing
        });
    }

    async fn pass(&mut self, envelope: &Envelope, body: Bytes) {
        if let Some(id) = &envelope.id {
            self.acknowledge(id).await;
        }
        self.tell(Event::Passing(body));
    }

    async fn acknowledge(&self, id: &str) {
        // When the socket is over, the service sends it again.
        let _ = self.socket.sender.send(text_frame(envelope::ack(id))).await;
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Nothing => {}
            Done::Posted { nonce, uuid: Err(words) } => {
                self.tell(Event::NotProbed { nonce, words });
            }
            Done::Posted { nonce, uuid: Ok(uuid) } => {
                let is_back = {
                    let mut known = self.account.known();
                    let seen = (self.number, uuid.clone());
                    let at = known.early.iter().position(|early| *early == seen);
                    known.early.retain(|(_, early)| *early != uuid);
                    remember(&mut known.probes, (uuid.clone(), nonce.clone()));
                    at.is_some()
                };
                self.posted.push(uuid.clone());
                if is_back {
                    self.tell(Event::Probed { nonce });
                    self.clear(&uuid);
                }
            }
            Done::Found(found) => {
                let asked = self.asking.take();
                self.is_holding = false;
                match found {
                    Ok(messages) => {
                        (self.failures, self.retry_after) = (0, None);
                        self.outbox.extend(messages.into_iter().map(Event::Message));
                    }
                    Err(CatchUpFailure { words: error, retry_after }) => {
                        self.failures += 1;
                        self.retry_after = retry_after;
                        asked.into_iter().for_each(|since| self.account.missed(since));
                        tracing::warn!(link = %self.account.link, %error, times = self.failures, "what is missing could not be asked for");
                    }
                }
                self.outbox.append(&mut self.held);
                self.ask_for_missed();
            }
            Done::Sent { ask, answer } => {
                self.tell_sent(ask, answer);
                self.is_sending = false;
                self.send_next();
            }
        }
    }

    fn tell_sent(&mut self, ask: Option<u64>, answer: Result<Bytes, String>) {
        match (ask, answer) {
            (Some(ask), answer) => {
                self.tell(Event::Answered { ask, answer: answer.map_err(Into::into) });
            }
            (None, Ok(_)) => {}
            (None, Err(error)) => {
                tracing::warn!(link = %self.account.link, %error, "what the bot says was not sent");
            }
        }
    }

    fn send_next(&mut self) {
        while !self.is_sending {
            match self.sends.pop_front() {
                Some(ToSend::Message(outgoing)) => {
                    self.is_sending = true;
                    let account = Arc::clone(&self.account);
                    self.jobs.spawn(async move {
                        let answer = account.say(&outgoing).await;
                        Done::Sent { ask: outgoing.ask, answer }
                    });
                }
                Some(ToSend::Mark(id)) => self.tell(Event::Written { id }),
                None => return,
            }
        }
    }
}

impl Account {
    fn is_probe_room(&self, conversation: &str) -> bool {
        let known = self.known();
        let room = known.probe_room.as_deref();
        room.is_some_and(|room| envelope::uuid_of(room) == conversation)
    }

    /// Posts the message of a probe: its UUID.
    async fn post_probe(&self, nonce: &str) -> Result<String, String> {
        let mut is_second = false;
        loop {
            let room = self.probe_space().await?;
            let message = serde_json::json!({ "roomId": room, "text": nonce });
            match self.cloud.post(&message).await {
                Ok(posted) => {
                    return match envelope::uuid_of(text(&posted, "/id")) {
                        uuid if uuid.is_empty() => {
                            Err("posting a probe: the answer names no message".to_owned())
                        }
                        uuid => Ok(uuid),
                    };
                }
                // Somebody has deleted the space, or put the bot out of it.
                Err(Refused {
                    status: Some(StatusCode::NOT_FOUND | StatusCode::FORBIDDEN),
                    ..
                }) if !is_second && self.probe_room.is_none() => {
                    is_second = true;
                    self.known().probe_room = None;
                    self.facts.set(&self.link, "probe-room", None).await;
                }
                Err(Refused { words, .. }) => return Err(words),
            }
        }
    }

    /// The space for probes; made if there is none.
    async fn probe_space(&self) -> Result<String, String> {
        let known = self.known().probe_room.clone().or_else(|| self.probe_room.clone());
        let room = match known {
            Some(room) => room,
            None => match self.facts.get(&self.link, "probe-room").await {
                Some(room) => room,
                None => {
                    let room = self.cloud.space(&format!("Bowline probe ({})", self.link)).await?;
                    self.facts.set(&self.link, "probe-room", Some(&room)).await;
                    room
                }
            },
        };
        self.known().probe_room = Some(room.clone());
        Ok(room)
    }

    /// Sends what the bot says: an object for `POST /messages`, or a text. Where it says no space, it goes to that of the
    /// message it answers, into its thread.
    async fn say(&self, outgoing: &Outgoing) -> Result<Bytes, String> {
        let said: Value = serde_json::from_slice(&outgoing.body)
            .map_err(|error| format!("it is no JSON: {error}"))?;
        let mut said = match said {
            Value::String(markdown) => serde_json::json!({ "markdown": markdown }),
            Value::Object(_) => said,
            _ => return Err("it is neither an object for `POST /messages` nor a text".to_owned()),
        };
        let goes_somewhere =
            ["roomId", "toPersonId", "toPersonEmail"].iter().any(|key| said.get(key).is_some());
        if !goes_somewhere {
            let Some(to) = &outgoing.reply_to else {
                return Err("it says no `roomId`, and answers no message".to_owned());
            };
            let known = {
                let known = self.known();
                let found = known.rooms.iter().rev().find(|(message, _)| message == to);
                found.map(|(_, room)| public_id("ROOM", room))
            };
            let room = match known {
                Some(room) => room,
                None => self.cloud.room_of(to).await?,
            };
            said["roomId"] = room.into();
            if said.get("parentId").is_none() {
                said["parentId"] = to.as_str().into();
            }
        }
        let posted = self.cloud.post(&said).await.map_err(|refused| refused.words)?;
        Ok(posted.to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_says_what_it_means() {
        let (verdict, words) = ended(Some(4000), "Replaced", true, false);
        assert_eq!(verdict, Verdict::Replaced);
        assert!(words.contains("stop the other process"));
        assert_eq!(ended(None, "", true, true).0, Verdict::Elsewhere, "1005 while it opens");
        assert_eq!(ended(None, "reset", false, true).0, Verdict::Again);
        assert_eq!(ended(Some(1001), "bye", true, false).1, "closed with 1001: bye");
        assert_eq!(ended(None, "reset", false, false).1, "ended: reset");
    }
}
