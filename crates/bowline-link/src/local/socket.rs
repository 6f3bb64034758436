//! One WebSocket of a bot, which believes to speak with its service.

use std::{
    collections::{BTreeMap, VecDeque},
    future::pending,
};

use bowline_proto::websocket::{
    DecodeConfig, Decoder, Incoming, Message as Frame, OpCode, Role, close_frame, server_frame,
};
use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, WriteHalf},
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout},
};

use super::{
    Served,
    connect::AnyStream,
    deliver::{Seat, Tell},
    limit,
    rules::{ConfirmedBy, Did, Socket},
};
use crate::{
    bot::{Outcome, Said},
    clock,
    far::Outgoing,
};

const GOING_AWAY: u16 = 1001;
const POLICY: u16 = 1008;
const SERVICE_RESTART: u16 = 1012;

const CONFIG: DecodeConfig =
    DecodeConfig { max_message_bytes: limit::MESSAGE_BYTES_MAX, deflate: false };

/// What is read at once.
const READ_BYTES: usize = 16 * 1024;

/// Serves the WebSocket until it ends.
pub(super) async fn run(stream: AnyStream, served: &Served, ending: watch::Receiver<bool>) {
    let rules = served.terms().rules.socket();
    let (seat, told) = served.bots.sit();
    let mut talk = Talk::new(rules, served, seat, clock::instant());
    tracing::info!(link = served.name, "a bot has connected");
    let mut stream = stream;
    let why = talk.go(&mut stream, told, ending).await;
    drop(talk);
    tracing::info!(link = served.name, why, "a bot has disconnected");
    let _ = timeout(limit::CLOSE_WITHIN, stream.shutdown()).await;
}

/// Why a turn of the loop began.
enum Woke {
    Read(std::io::Result<usize>),
    Written(std::io::Result<usize>),
    Flushed(std::io::Result<()>),
    Told(Option<Tell>),
    /// The link listens, or does so no more.
    Listens(Result<mpsc::OwnedPermit<Said>, ()>),
    /// It is served with other terms.
    Terms,
    Ping,
    /// The time is over that the bot has to authorise itself, to answer, or to close.
    Late,
    /// The link ends with this code.
    Ends(u16),
}

struct Talk<'a> {
    rules: Box<dyn Socket>,
    served: &'a Served,
    seat: Seat,
    decoder: Decoder,
    out: BytesMut,
    /// Whether what was written may still be on its way through TLS.
    is_unflushed: bool,
    /// Who waits for the confirmation of a message.
    pending: BTreeMap<String, oneshot::Sender<Outcome>>,
    /// Messages by the ping that was sent after each of them.
    by_pong: VecDeque<(u64, String)>,
    /// Those who only wait until all of `out` was written.
    by_write: Vec<oneshot::Sender<Outcome>>,
    pings: u64,
    /// Pings sent since something was heard.
    unheard: u32,
    heard: Instant,
    is_ready: bool,
    /// Said by the bot, and not yet taken by the link.
    unsaid: VecDeque<Outgoing>,
    unsaid_bytes: usize,
    /// When the link does not listen: it is being started again.
    is_deaf: bool,
    stage: Stage,
}

/// How far the goodbye is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// A close frame is written; the bot's is awaited until then.
    Closing(Instant),
    /// Both have said goodbye; what is left is to be written until then.
    Closed(Instant),
}

impl<'a> Talk<'a> {
    fn new(rules: Box<dyn Socket>, served: &'a Served, seat: Seat, now: Instant) -> Self {
        Self {
            rules,
            served,
            seat,
            decoder: Decoder::new(Role::Server),
            out: BytesMut::new(),
            is_unflushed: false,
            pending: BTreeMap::new(),
            by_pong: VecDeque::new(),
            by_write: Vec::new(),
            pings: 0,
            unheard: 0,
            heard: now,
            is_ready: false,
            unsaid: VecDeque::new(),
            unsaid_bytes: 0,
            is_deaf: false,
            stage: Stage::Open,
        }
    }

    /// The loop. Says in the end why it is over.
    async fn go(
        &mut self,
        stream: &mut AnyStream,
        mut told: mpsc::Receiver<Tell>,
        mut ending: watch::Receiver<bool>,
    ) -> &'static str {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut input = BytesMut::with_capacity(READ_BYTES);
        let mut forgotten = self.served.forgotten.subscribe();
        let mut terms = self.served.terms.subscribe();
        let begun = clock::instant();
        let mut ticks = interval_at(begun + limit::PING_EVERY, limit::PING_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);

        for frame in self.rules.opened() {
            self.write(&frame);
        }
        self.look_whether_ready();
        let why = loop {
            let is_open = self.stage == Stage::Open;
            let may_read = self.unsaid.len() < limit::UNSAID_MAX
                && self.unsaid_bytes < limit::UNSAID_BYTES_MAX
                && self.out.len() < 2 * limit::UNWRITTEN_BYTES_MAX;
            let may_push = !self.out.is_empty() || self.is_unflushed;
            let may_be_told = is_open && self.out.len() < limit::UNWRITTEN_BYTES_MAX;
            let mouth = (!self.unsaid.is_empty() && !self.is_deaf)
                .then(|| self.served.terms().mouth.clone());
            let late = self.late(begun, may_read);
            let woke = tokio::select! {
                pushed = push(&mut writer, &self.out), if may_push => pushed,
                read = reader.read_buf(&mut input), if may_read => Woke::Read(read),
                tell = told.recv(), if may_be_told => Woke::Told(tell),
                listens = listens(mouth) => Woke::Listens(listens),
                Ok(()) = terms.changed() => Woke::Terms,
                _ = ticks.tick(), if is_open => Woke::Ping,
                () = until(late) => Woke::Late,
                _ = ending.wait_for(|ending| *ending), if is_open => Woke::Ends(GOING_AWAY),
                _ = forgotten.wait_for(|is| *is), if is_open => Woke::Ends(SERVICE_RESTART),
            };
            match woke {
                Woke::Written(Ok(0) | Err(_)) => break "it does not read any more",
                Woke::Written(Ok(count)) => {
                    let _ = self.out.split_to(count);
                    self.is_unflushed = true;
                }
                Woke::Flushed(Err(_)) => break "it does not read any more",
                Woke::Flushed(Ok(())) => {
                    self.is_unflushed = false;
                    self.on_written();
                    if matches!(self.stage, Stage::Closed(_)) {
                        break "it said goodbye";
                    }
                }
                Woke::Read(Ok(0) | Err(_)) => break "its connection ended",
                Woke::Read(Ok(_)) => {
                    self.on_read(&mut input);
                    input.clear();
                    input.reserve(READ_BYTES);
                }
                Woke::Told(Some(tell)) => self.on_tell(tell),
                Woke::Told(None) => self.close(POLICY, "too many connections of this link"),
                Woke::Listens(Ok(permit)) => {
                    if let Some(outgoing) = self.unsaid.pop_front() {
                        self.unsaid_bytes -= outgoing.body.len();
                        // What became of it is the link's to tell: a WebSocket has no word for it.
                        let (done, _) = oneshot::channel();
                        permit.send(Said::Send { outgoing, done });
                    }
                }
                Woke::Listens(Err(())) => self.is_deaf = true,
                Woke::Terms => self.is_deaf = false,
                Woke::Ping => self.on_ping(),
                Woke::Late => match self.stage {
                    Stage::Open if self.is_ready => break "it has been silent for too long",
                    Stage::Open => self.close(POLICY, "not authorised in time"),
                    Stage::Closing(_) | Stage::Closed(_) => break "its goodbye did not come",
                },
                Woke::Ends(code) => self.close(code, "come back at once"),
            }
        };
        // What has not been taken yet was not handed over.
        told.close();
        while let Ok(tell) = told.try_recv() {
            if let Tell::Offer { done, .. } = tell {
                let _ = done.send(Outcome::Absent);
            }
        }
        why
    }

    /// When something is too late.
    fn late(&self, begun: Instant, may_read: bool) -> Option<Instant> {
        match self.stage {
            // It may have said something that is not read.
            Stage::Open if !may_read => None,
            Stage::Open if self.is_ready => Some(self.heard + limit::SILENCE_MAX),
            Stage::Open => Some(begun + limit::READY_WITHIN),
            Stage::Closing(at) | Stage::Closed(at) => Some(at),
        }
    }

    fn on_read(&mut self, input: &mut BytesMut) {
        self.heard = clock::instant();
        if self.unheard > 0 {
            self.unheard = 0;
            self.seat.set_silent(false);
        }
        let mut rest = &mut input[..];
        loop {
            match self.decoder.decode(&CONFIG, &mut rest) {
                Ok(None) => return,
                Ok(Some(Incoming::Message(frame))) => self.on_frame(&frame),
                Ok(Some(Incoming::Ping(payload))) => self.frame(OpCode::Pong, &payload),
                Ok(Some(Incoming::Pong(payload))) => self.on_pong(&payload),
                Ok(Some(Incoming::Close(close))) => {
                    if self.stage == Stage::Open {
                        self.out.extend_from_slice(&close_frame(close.code, "", None));
                    }
                    self.end();
                }
                Err(error) => {
                    tracing::debug!(link = self.served.name, %error, "a bot broke the protocol");
                    if self.stage == Stage::Open {
                        let words = error.to_string();
                        self.out.extend_from_slice(&close_frame(
                            Some(error.close_code()),
                            &words,
                            None,
                        ));
                    }
                    self.end();
                }
            }
        }
    }

    /// Also counts while a goodbye is under way: what it confirms, it has.
    fn on_frame(&mut self, frame: &Frame) {
        for did in self.rules.heard(frame) {
            match did {
                Did::Reply(frame) => self.write(&frame),
                Did::Confirmed { id } => self.confirm(id),
                Did::Say(outgoing) => {
                    self.unsaid_bytes += outgoing.body.len();
                    self.unsaid.push_back(outgoing);
                }
                Did::Close { code, words } => self.close(code, words),
            }
        }
        self.look_whether_ready();
    }

    fn on_pong(&mut self, payload: &[u8]) {
        let Ok(number) = payload.try_into().map(u64::from_be_bytes) else { return };
        if number > self.pings {
            return;
        }
        while let Some((before, _)) = self.by_pong.front()
            && *before <= number
        {
            if let Some((_, id)) = self.by_pong.pop_front() {
                self.confirm(id);
            }
        }
    }

    /// Gives up on nothing soon: a bot whose loop is busy answers no ping, and is well.
    fn on_ping(&mut self) {
        self.unheard += 1;
        if self.unheard > 3 {
            self.seat.set_silent(true);
        }
        // More of them would only wait to be written.
        if self.out.len() < limit::UNWRITTEN_BYTES_MAX {
            self.ping();
        }
    }

    fn on_tell(&mut self, tell: Tell) {
        match tell {
            Tell::Pass(body) => {
                if let Some(frame) = self.rules.pass(&body) {
                    self.write(&frame);
                }
            }
            Tell::Offer { message, attempt, done } => {
                if done.is_closed() {
                    return;
                }
                let Some(frame) = self.rules.offer(&message, attempt) else {
                    let words = "it cannot be said on the bot's WebSocket";
                    let _ = done.send(Outcome::Refused(words.to_owned()));
                    return;
                };
                self.write(&frame);
                if !message.confirm {
                    self.by_write.push(done);
                    return;
                }
                // Whoever waits no longer may be replaced; a confirmation counts for both.
                self.pending.retain(|_, done| !done.is_closed());
                self.pending.insert(message.id.clone(), done);
                if self.rules.confirmed_by() == ConfirmedBy::Pong {
                    self.ping();
                    self.by_pong.push_back((self.pings, message.id));
                    if self.by_pong.len() > limit::LATE_MAX {
                        self.by_pong.pop_front();
                    }
                }
            }
        }
    }

    fn on_written(&mut self) {
        for done in self.by_write.drain(..) {
            let _ = done.send(Outcome::Confirmed { replies: Vec::new() });
        }
    }

    fn confirm(&mut self, id: String) {
        let confirmed = Outcome::Confirmed { replies: Vec::new() };
        let told = self.pending.remove(&id).is_some_and(|done| done.send(confirmed).is_ok());
        if !told {
            self.served.bots.confirmed_late(id);
        }
    }

    fn look_whether_ready(&mut self) {
        let is_ready = self.stage == Stage::Open && self.rules.is_ready();
        if is_ready != self.is_ready {
            self.is_ready = is_ready;
            self.seat.set_ready(is_ready);
        }
    }

    fn write(&mut self, frame: &Frame) {
        self.frame(frame.opcode(), frame.as_bytes());
    }

    fn ping(&mut self) {
        self.pings += 1;
        self.frame(OpCode::Ping, &self.pings.to_be_bytes());
    }

    /// Nothing comes after a close frame.
    fn frame(&mut self, opcode: OpCode, payload: &[u8]) {
        if self.stage == Stage::Open {
            self.out.extend_from_slice(&server_frame(opcode, &[payload]));
        }
    }

    /// Says goodbye, and waits for the answer.
    fn close(&mut self, code: u16, words: &str) {
        if self.stage == Stage::Open {
            self.out.extend_from_slice(&close_frame(Some(code), words, None));
            self.stage = Stage::Closing(clock::instant() + limit::CLOSE_WITHIN);
            self.look_whether_ready();
        }
    }

    /// Nothing is said any more; what waits is written.
    fn end(&mut self) {
        self.stage = Stage::Closed(clock::instant() + limit::CLOSE_WITHIN);
        self.look_whether_ready();
    }
}

/// Writes, or sees to it that what was written is on its way.
async fn push(writer: &mut WriteHalf<&mut AnyStream>, out: &[u8]) -> Woke {
    if out.is_empty() {
        Woke::Flushed(writer.flush().await)
    } else {
        Woke::Written(writer.write(out).await)
    }
}

/// Waits until the link takes something; for ever if nothing is to be taken.
async fn listens(mouth: Option<mpsc::Sender<Said>>) -> Result<mpsc::OwnedPermit<Said>, ()> {
    match mouth {
        Some(mouth) => mouth.reserve_owned().await.map_err(drop),
        None => pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}
