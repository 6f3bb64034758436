//! The clients: each has one connection, which it keeps, and one request on it at a time.

use std::{
    collections::VecDeque,
    io::ErrorKind,
    net::SocketAddr,
    time::{Duration, Instant},
};

use mio::{Events, Poll, Registry, Token, event::Event};

use super::{
    answer::{Answer, Malformed},
    api::Api,
    plan::Wishes,
    supply::Supply,
    tally::{Ended, Tally},
};
use crate::{
    clock,
    error::Error,
    fleet::{
        lane::{Lane, Read},
        timer::Timer,
    },
    limit,
};

/// What stands for the timer.
const TIMER: Token = Token(usize::MAX);

/// Is called at every look, every [`limit::LOOK`] or so.
pub(super) type OnLook<'a> = &'a mut dyn FnMut(&mut Supply, &mut Tally) -> Result<(), Error>;

/// All clients, and what they wait on.
pub(super) struct Crowd {
    poll: Poll,
    events: Events,
    timer: Timer,
    buffer: Vec<u8>,
    clients: Clients,
    next_look: Instant,
    /// What has come of requests.
    pub(super) tally: Tally,
}

struct Clients {
    registry: Registry,
    address: SocketAddr,
    /// The bytes of every request.
    request: Vec<u8>,
    timeout: Duration,
    all: Vec<Client>,
    /// Those that have no request under way. The one that was used last is asked last, so that none is left so long
    /// that the server closes its connection.
    idle: VecDeque<usize>,
}

#[derive(Default)]
struct Client {
    lane: Option<Lane>,
    /// Whether TCP has connected.
    connected: bool,
    answer: Answer,
    asked: Option<Asked>,
}

/// A request under way.
#[derive(Debug, Clone, Copy)]
struct Asked {
    due: Instant,
    sent: Instant,
    /// Whether the connection was there before it: the server may have closed it meanwhile.
    on_old_lane: bool,
}

impl Crowd {
    pub(super) fn new(api: &Api, wishes: &Wishes, concurrency: usize) -> Result<Self, Error> {
        let poll = Poll::new().map_err(Error::io("epoll"))?;
        let registry = poll.registry().try_clone().map_err(Error::io("epoll"))?;
        let timer = Timer::new(&registry, TIMER).map_err(Error::io("a timer"))?;
        let mut all = Vec::new();
        all.resize_with(concurrency, Client::default);
        let clients = Clients {
            registry,
            address: api.address(),
            request: wishes.request(api),
            timeout: wishes.timeout,
            all,
            idle: (0..concurrency).collect(),
        };
        Ok(Self {
            poll,
            events: Events::with_capacity(limit::EVENTS_MAX),
            timer,
            buffer: vec![0; limit::READ_BYTES],
            clients,
            next_look: clock::now(),
            tally: Tally::default(),
        })
    }

    /// Connects all clients, so that no request waits for that.
    pub(super) fn connect(&mut self) -> Result<(), Error> {
        let deadline = clock::now() + limit::CONNECT;
        for index in 0..self.clients.all.len() {
            self.clients.open(index)?;
        }
        while !self.clients.all.iter().all(|client| client.connected) {
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                let (address, seconds) = (self.clients.address, limit::CONNECT.as_secs());
                return Err(Error::failed(format!(
                    "connecting to {address} takes over {seconds} s"
                )));
            }
            self.wait(left)?;
            for event in &self.events {
                let Some(client) = self.clients.all.get_mut(event.token().0) else { continue };
                let Some(lane) = &mut client.lane else { continue };
                if event.is_writable() {
                    lane.on_writable(self.clients.address)?;
                    client.connected = true;
                }
            }
        }
        Ok(())
    }

    /// Sends what the supply has, and waits for all that is under way.
    pub(super) fn run(&mut self, supply: Supply, on_look: OnLook<'_>) -> Result<(), Error> {
        let mut supply = supply;
        self.next_look = clock::now();
        loop {
            let now = clock::now();
            self.clients.hand_out(&mut supply, now, &mut self.tally);
            if now >= self.next_look {
                self.next_look = now + limit::LOOK;
                self.clients.give_up_what_takes_too_long(now, &mut self.tally);
                on_look(&mut supply, &mut self.tally)?;
            }
            let nothing_to_send = supply.wake(now).is_none();
            if nothing_to_send && self.clients.idle.len() == self.clients.all.len() {
                return Ok(());
            }
            self.turn(&mut supply, now)?;
        }
    }

    /// Waits for something to happen, and handles it.
    fn turn(&mut self, supply: &mut Supply, now: Instant) -> Result<(), Error> {
        let mut timeout = self.next_look.saturating_duration_since(now);
        if let Some(due) = supply.wake(now).filter(|_| !self.clients.idle.is_empty()) {
            match due.checked_duration_since(now).filter(|left| !left.is_zero()) {
                Some(left) => self.timer.set(due, left).map_err(Error::io("a timer"))?,
                None => timeout = Duration::ZERO,
            }
        }
        self.wait(timeout)?;
        for event in &self.events {
            if event.token() != TIMER {
                self.clients.on_event(event, &mut self.buffer, supply, &mut self.tally);
            }
        }
        Ok(())
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), Error> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            // It was stopped, and goes on: with no events, as after a timeout.
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            other => other.map_err(Error::io("epoll")),
        }
    }
}

impl Clients {
    /// Has clients that are free send what is due.
    fn hand_out(&mut self, supply: &mut Supply, now: Instant, tally: &mut Tally) {
        while let Some(index) = self.idle.front().copied() {
            let Some(due) = supply.pop(now) else { return };
            self.idle.pop_front();
            self.all[index].asked = Some(Asked { due, sent: now, on_old_lane: true });
            self.send(index, now, tally);
        }
    }

    /// Sends the request of a client, on a connection that it has or on a new one.
    fn send(&mut self, index: usize, now: Instant, tally: &mut Tally) {
        let old = self.all[index].lane.is_some();
        if !old && self.open(index).is_err() {
            return self.end(index, Some("connect"), now, tally);
        }
        let client = &mut self.all[index];
        client.answer.clear();
        if let Some(asked) = &mut client.asked {
            asked.on_old_lane = old;
        }
        let sent = client.lane.as_mut().map(|lane| lane.send(&self.request));
        if !matches!(sent, Some(Ok(()))) {
            self.on_closed(index, now, tally);
        }
    }

    /// Begins to connect.
    fn open(&mut self, index: usize) -> Result<(), Error> {
        let lane = Lane::connect(self.address, &self.registry, Token(index))?;
        let client = &mut self.all[index];
        client.lane = Some(lane);
        client.connected = false;
        Ok(())
    }

    fn on_event(
        &mut self,
        event: &Event,
        buffer: &mut [u8],
        supply: &mut Supply,
        tally: &mut Tally,
    ) {
        let Token(index) = event.token();
        let Some(client) = self.all.get_mut(index) else { return };
        let Some(lane) = &mut client.lane else { return };
        if event.is_writable() && lane.on_writable(self.address).is_err() {
            let now = clock::now();
            return match client.connected {
                true => self.on_closed(index, now, tally),
                false => self.end(index, Some("connect"), now, tally),
            };
        }
        client.connected |= event.is_writable();
        if event.is_readable() {
            let at = self.read(index, event.is_read_closed(), buffer, tally);
            self.hand_out(supply, at, tally);
        }
    }

    /// Reads all that there is. Returns when it was read.
    fn read(
        &mut self,
        index: usize,
        closed: bool,
        buffer: &mut [u8],
        tally: &mut Tally,
    ) -> Instant {
        loop {
            let client = &mut self.all[index];
            let at = clock::now();
            let Some(lane) = &mut client.lane else { return at };
            let length = match lane.read(buffer) {
                Ok(Read::Bytes(length)) => length,
                Ok(Read::Drained) => return at,
                Ok(Read::Ended) | Err(_) => {
                    self.on_closed(index, at, tally);
                    return at;
                }
            };
            // The time behind the read is that at which it was here.
            let at = clock::now();
            let mut whole = true;
            let answer = &mut client.answer;
            let taken = lane.feed(&buffer[..length], |bytes| {
                let used = answer.take(bytes, at)?;
                whole = used == bytes.len();
                Ok::<_, Malformed>(used)
            });
            if client.asked.is_none() || taken.is_err() {
                // What nobody has asked for is no answer.
                self.end(index, Some("malformed"), at, tally);
                return at;
            }
            if client.answer.is_done() {
                if client.answer.closes || !whole {
                    client.lane = None;
                }
                let failure = client.answer.failure();
                self.end_well(index, failure.as_deref(), at, tally);
                return at;
            }
            // There is no more: epoll tells of what comes, unless it has told already that this is the end.
            if length < buffer.len() && !closed {
                return at;
            }
        }
    }

    /// The server has closed the connection.
    fn on_closed(&mut self, index: usize, now: Instant, tally: &mut Tally) {
        let client = &mut self.all[index];
        client.lane = None;
        let Some(asked) = client.asked else { return };
        if client.answer.on_close() {
            let failure = client.answer.failure();
            return self.end_well(index, failure.as_deref(), now, tally);
        }
        // It may have been closed while the request was on its way, as servers do to connections that nobody uses.
        if asked.on_old_lane && client.answer.head.is_none() {
            tally.reconnects += 1;
            return self.send(index, now, tally);
        }
        self.end(index, Some("broken"), now, tally);
    }

    /// A request has failed in a way after which its connection is of no use.
    fn end(&mut self, index: usize, failure: Option<&str>, now: Instant, tally: &mut Tally) {
        self.all[index].lane = None;
        self.end_well(index, failure, now, tally);
    }

    /// A request is over, and its connection goes on.
    fn end_well(&mut self, index: usize, failure: Option<&str>, now: Instant, tally: &mut Tally) {
        let client = &mut self.all[index];
        let Some(Asked { due, sent, .. }) = client.asked.take() else { return };
        let Answer { head, attempts, events, .. } = &client.answer;
        tally.on_end(Ended {
            due,
            sent,
            head: *head,
            first_content: events.first_content,
            end: now,
            attempts,
            failure,
        });
        self.idle.push_back(index);
    }

    fn give_up_what_takes_too_long(&mut self, now: Instant, tally: &mut Tally) {
        for index in 0..self.all.len() {
            let late = |asked: Asked| now.saturating_duration_since(asked.sent) > self.timeout;
            if self.all[index].asked.is_some_and(late) {
                self.end(index, Some("no answer in --timeout"), now, tally);
            }
        }
    }
}
