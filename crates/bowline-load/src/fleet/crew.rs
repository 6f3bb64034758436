//! The sessions by number, and what each event of the network means for one of them.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
};

use mio::{Registry, Token};

use super::{
    Receiver,
    lane::{Lane, Read},
    session::{Ear, Heard, Http, Main, Named, Session, refused},
};
use crate::{
    clock,
    delays::Delays,
    error::Error,
    limit,
    plan::{Plan, Wire},
    target::Target,
    wire::{
        http::{self, Requests},
        polling::SEPARATOR,
        script::Script,
        websocket::{self, opcode},
    },
};

/// What the floor says when it has accepted: without a protocol nothing else tells.
const HELLO: &[u8] = b"0";

/// The token of the timer.
pub(super) const TIMER: Token = Token(usize::MAX);

/// The connections that a session may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    Main,
    Get,
    Post,
}

fn token(session: usize, channel: Channel) -> Token {
    Token(session << 2 | channel as usize)
}

/// Whose event it is; none for the timer's.
pub(super) fn split_token(token: usize) -> Option<(usize, Channel)> {
    let channel = match token & 3 {
        0 => Channel::Main,
        1 => Channel::Get,
        2 => Channel::Post,
        _ => return None,
    };
    Some((token >> 2, channel))
}

/// All sessions.
pub(crate) struct Crew {
    address: SocketAddr,
    registry: Registry,
    sessions: Vec<Session>,
    script: Script,
    requests: Requests,
    buffer: Vec<u8>,
    /// Where bodies of posts are put together.
    body: Vec<u8>,
    request: Vec<u8>,
    joined: usize,
    others: u64,
    /// From the first SYN until the namespace was joined.
    pub(crate) joins: Delays,
}

impl Crew {
    pub(super) fn new(plan: &Plan, target: &Target, registry: Registry) -> Self {
        Self {
            address: target.address,
            registry,
            sessions: Vec::with_capacity(plan.sessions),
            script: Script::new(plan),
            requests: Requests::new(target),
            buffer: vec![0; limit::READ_BYTES],
            body: Vec::new(),
            request: Vec::new(),
            joined: 0,
            others: 0,
            joins: Delays::default(),
        }
    }

    /// How many sessions there are.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// How many of them are in their namespace, on the transport that they stay with.
    pub(crate) fn joined(&self) -> usize {
        self.joined
    }

    /// How many packets came that nobody waited for.
    pub(crate) fn others(&self) -> u64 {
        self.others
    }

    /// Begins one more session.
    pub(super) fn add(&mut self) -> Result<(), Error> {
        let index = self.sessions.len();
        let mut session = Session {
            main: None,
            http: None,
            ear: Ear::default(),
            next_ack: 0,
            joined: false,
            begun: clock::now(),
        };
        match self.script.wire {
            Wire::WebSocket => {
                let request = self.requests.websocket(index, None);
                session.main = Some(self.main(index, request.as_bytes())?);
            }
            Wire::Raw => session.main = Some(self.main(index, &[])?),
            Wire::Polling | Wire::Upgrade => {
                let mut get = self.lane(index, Channel::Get)?;
                get.send(self.requests.poll(index, None).next()).map_err(Error::io("writing"))?;
                session.http = Some(Box::new(Http {
                    get,
                    post: None,
                    named: None,
                    polling: true,
                    posting: false,
                    connect: false,
                    pongs: 0,
                    events: 0,
                    pausing: false,
                }));
            }
        }
        self.sessions.push(session);
        Ok(())
    }

    fn lane(&self, index: usize, channel: Channel) -> Result<Lane, Error> {
        Lane::connect(self.address, &self.registry, token(index, channel))
    }

    fn main(&self, index: usize, request: &[u8]) -> Result<Main, Error> {
        let mut lane = self.lane(index, Channel::Main)?;
        lane.send(request).map_err(Error::io("writing"))?;
        Ok(Main { lane, greeting: true, left_over: 0 })
    }

    /// A session sends so many events.
    #[inline]
    pub(crate) fn say(&mut self, index: usize, count: usize) -> Result<(), Error> {
        let session = &mut self.sessions[index];
        if let Some(http) = &mut session.http {
            http.events += count;
            return self.post(index);
        }
        let mut left = count;
        while left > 0 {
            let now = left.min(self.script.copies());
            let events = self.script.events(now, &mut session.next_ack);
            if let Some(main) = &mut session.main {
                main.lane.send(events).map_err(|error| lost(index, &error))?;
            }
            left -= now;
        }
        Ok(())
    }

    pub(super) fn on_writable(&mut self, index: usize, channel: Channel) -> Result<(), Error> {
        let session = &mut self.sessions[index];
        let lane = match channel {
            Channel::Main => session.main.as_mut().map(|main| &mut main.lane),
            Channel::Get => session.http.as_mut().map(|http| &mut http.get),
            Channel::Post => session.http.as_mut().and_then(|http| http.post.as_mut()),
        };
        if let Some(lane) = lane {
            lane.on_writable(self.address)?;
        }
        Ok(())
    }

    pub(super) fn on_readable(
        &mut self,
        index: usize,
        channel: Channel,
        receiver: &mut impl Receiver,
    ) -> Result<(), Error> {
        loop {
            let mut heard = Heard::default();
            let read = match channel {
                Channel::Main => self.read_main(index, &mut heard)?,
                Channel::Get => self.read_get(index, &mut heard)?,
                Channel::Post => self.read_post(index)?,
            };
            let Some(read) = read else { return Ok(()) };
            let messages = heard.messages;
            if heard.calls() {
                self.reply(index, heard)?;
            }
            if messages > 0 {
                receiver.on_messages(self, index, messages, clock::now())?;
            }
            // A short read has emptied the socket: what comes later wakes us again.
            if read < limit::READ_BYTES {
                return Ok(());
            }
        }
    }

    /// Reads from the WebSocket, or from the connection without a protocol.
    #[inline]
    fn read_main(&mut self, index: usize, heard: &mut Heard) -> Result<Option<usize>, Error> {
        let Self { sessions, buffer, script, joined, joins, .. } = self;
        let Session { main: Some(main), ear, joined: here, begun, .. } = &mut sessions[index]
        else {
            return Ok(None);
        };
        let read = match main.lane.read(buffer).map_err(|error| lost(index, &error))? {
            Read::Bytes(read) => read,
            Read::Drained => return Ok(None),
            Read::Ended => return Err(gone(index, *here)),
        };
        let fresh = &buffer[..read];
        if script.wire == Wire::Raw {
            let mut bytes = main.left_over + read;
            if main.greeting {
                main.greeting = false;
                *here = true;
                *joined += 1;
                joins.add(clock::now() - *begun, 1);
                bytes -= HELLO.len();
            }
            heard.messages = bytes / script.event_bytes();
            main.left_over = bytes % script.event_bytes();
            return Ok(Some(read));
        }
        let Main { lane, greeting, .. } = main;
        let mut welcome = false;
        lane.feed(fresh, |input| {
            let mut used = 0;
            if *greeting {
                let Some(response) = http::split(input)? else { return Ok(0) };
                if response.status != 101 {
                    return Err(refused(&response));
                }
                *greeting = false;
                welcome = true;
                used = response.used;
            }
            Ok(used + ear.hear_frames(script, &input[used..], heard)?)
        })?;
        if welcome && script.wire == Wire::Upgrade {
            lane.send(&script.probe).map_err(|error| lost(index, &error))?;
        }
        Ok(Some(read))
    }

    /// Reads the answer to a poll, and polls again.
    fn read_get(&mut self, index: usize, heard: &mut Heard) -> Result<Option<usize>, Error> {
        let Self { sessions, buffer, script, .. } = self;
        let Session { http: Some(http), ear, joined, .. } = &mut sessions[index] else {
            return Ok(None);
        };
        let read = match http.get.read(buffer).map_err(|error| lost(index, &error))? {
            Read::Bytes(read) => read,
            Read::Drained => return Ok(None),
            Read::Ended => return Err(gone(index, *joined)),
        };
        let Http { get, polling, .. } = &mut **http;
        get.feed(&buffer[..read], |input| {
            let Some(response) = http::split(input)? else { return Ok(0) };
            if response.status != 200 {
                return Err(refused(&response));
            }
            *polling = false;
            ear.hear_body(script, &response.body, heard)?;
            Ok(response.used)
        })?;
        if let Some(sid) = heard.opened.take() {
            self.on_open(index, sid)?;
        }
        self.poll(index)?;
        self.upgrade(index)?;
        Ok(Some(read))
    }

    /// The engine is open: the namespace is asked for, and a WebSocket, if there is to be one.
    fn on_open(&mut self, index: usize, sid: String) -> Result<(), Error> {
        if self.script.wire == Wire::Upgrade {
            let request = self.requests.websocket(index, Some(&sid));
            self.sessions[index].main = Some(self.main(index, request.as_bytes())?);
        }
        let poll = self.requests.poll(index, Some(&sid));
        let post = self.requests.post(index, &sid);
        if let Some(http) = &mut self.sessions[index].http {
            http.named = Some(Box::new(Named { poll, post }));
            http.connect = true;
        }
        self.post(index)
    }

    /// Polls, unless a poll is out already or the polling is to end.
    fn poll(&mut self, index: usize) -> Result<(), Error> {
        let Some(http) = &mut self.sessions[index].http else { return Ok(()) };
        let Http { get, named: Some(named), polling: polling @ false, pausing: false, .. } =
            &mut **http
        else {
            return Ok(());
        };
        *polling = true;
        get.send(named.poll.next()).map_err(|error| lost(index, &error))
    }

    /// Reads the answer to a post, and posts what has gathered meanwhile.
    fn read_post(&mut self, index: usize) -> Result<Option<usize>, Error> {
        let Self { sessions, buffer, .. } = self;
        let Session { http: Some(http), joined, .. } = &mut sessions[index] else {
            return Ok(None);
        };
        let Some(post) = &mut http.post else { return Ok(None) };
        let read = match post.read(buffer).map_err(|error| lost(index, &error))? {
            Read::Bytes(read) => read,
            Read::Drained => return Ok(None),
            // Servers close what has been idle for a while; the next post has a new one.
            Read::Ended if !http.posting => {
                http.post = None;
                return Ok(None);
            }
            Read::Ended => return Err(gone(index, *joined)),
        };
        let posting = &mut http.posting;
        post.feed(&buffer[..read], |input| {
            let Some(response) = http::split(input)? else { return Ok(0) };
            if response.status != 200 {
                return Err(refused(&response));
            }
            *posting = false;
            Ok(response.used)
        })?;
        self.post(index)?;
        self.upgrade(index)?;
        Ok(Some(read))
    }

    /// Posts all that waits, unless a post is out already or the polling is to end.
    fn post(&mut self, index: usize) -> Result<(), Error> {
        let Self { sessions, script, body, request, registry, address, .. } = self;
        let Session { http: Some(http), next_ack, .. } = &mut sessions[index] else {
            return Ok(());
        };
        let http = &mut **http;
        let Http { post, named: Some(named), posting: false, pausing: false, .. } = http else {
            return Ok(());
        };
        body.clear();
        if std::mem::take(&mut http.connect) {
            body.extend_from_slice(script.connect(index).as_bytes());
            body.push(SEPARATOR);
        }
        for _ in 0..std::mem::take(&mut http.pongs) {
            body.extend_from_slice(&[b'3', SEPARATOR]);
        }
        let events = http.events.min(script.copies());
        http.events -= events;
        body.extend_from_slice(script.events(events, next_ack));
        if body.last() == Some(&SEPARATOR) {
            body.pop();
        }
        if body.is_empty() {
            return Ok(());
        }
        http.posting = true;
        request.clear();
        request.extend_from_slice(named.post.next());
        // Writing to a vector cannot fail.
        let _ = write!(request, "{}\r\n\r\n", body.len());
        request.extend_from_slice(body);
        let lane = match post {
            Some(lane) => lane,
            None => post.insert(Lane::connect(*address, registry, token(index, Channel::Post))?),
        };
        lane.send(request).map_err(|error| lost(index, &error))
    }

    /// Does what one read asks for, but for messages.
    #[cold]
    fn reply(&mut self, index: usize, heard: Heard) -> Result<(), Error> {
        let Self { sessions, script, others, .. } = self;
        let session = &mut sessions[index];
        *others += heard.others as u64;
        if let Some(http) = &mut session.http {
            http.pongs += heard.pongs_due;
            http.pausing |= heard.probed;
            self.post(index)?;
            self.upgrade(index)?;
        } else if let Some(main) = &mut session.main {
            let mut said = Vec::new();
            if heard.opened.is_some() {
                websocket::push_masked(&mut said, opcode::TEXT, script.connect(index).as_bytes());
            }
            for _ in 0..heard.pongs_due {
                said.extend_from_slice(&script.pong);
            }
            if let Some(payload) = heard.echo {
                websocket::push_masked(&mut said, opcode::PONG, &payload);
            }
            main.lane.send(&said).map_err(|error| lost(index, &error))?;
        }
        self.see_joined(index);
        Ok(())
    }

    /// Ends the polling if it is to end and nothing of it is on its way: what waits goes over the
    /// WebSocket.
    fn upgrade(&mut self, index: usize) -> Result<(), Error> {
        let Self { sessions, script, .. } = self;
        let Session { http: slot @ Some(_), main: Some(main), next_ack, .. } = &mut sessions[index]
        else {
            return Ok(());
        };
        let through = |http: &mut Box<Http>| http.pausing && !http.polling && !http.posting;
        let Some(http) = slot.take_if(through) else { return Ok(()) };
        let mut said = script.upgrade.clone();
        if http.connect {
            websocket::push_masked(&mut said, opcode::TEXT, script.connect(index).as_bytes());
        }
        for _ in 0..http.pongs {
            said.extend_from_slice(&script.pong);
        }
        said.extend_from_slice(script.events(http.events, next_ack));
        main.lane.send(&said).map_err(|error| lost(index, &error))?;
        self.see_joined(index);
        Ok(())
    }

    /// Counts a session that has joined, and does not poll any more if it is to upgrade.
    fn see_joined(&mut self, index: usize) {
        let session = &mut self.sessions[index];
        let settled = self.script.wire != Wire::Upgrade || session.http.is_none();
        if session.ear.connected && settled && !session.joined {
            session.joined = true;
            self.joined += 1;
            self.joins.add(clock::now() - session.begun, 1);
        }
    }
}

fn lost(index: usize, error: &io::Error) -> Error {
    Error::failed(format!("the connection of session {index} broke: {error}"))
}

fn gone(index: usize, joined: bool) -> Error {
    let when = if joined { "" } else { " before it had joined" };
    Error::failed(format!(
        "the server closed the connection of session {index}{when}; it may have reached its limit on open files, or died"
    ))
}
