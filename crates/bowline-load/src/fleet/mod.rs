//! All sessions of a measurement: one thread, one epoll.

mod crew;
pub(crate) mod lane;
mod session;
pub(crate) mod timer;

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use mio::{Events, Poll, Token};

pub(crate) use self::crew::Crew;
use self::{
    crew::{TIMER, split_token},
    timer::Timer,
};
use crate::{clock, error::Error, limit, plan::Plan, progress::Progress, target::Target};

/// What is done with what sessions receive.
pub(crate) trait Receiver {
    /// A session has received so many messages, which were read at this time.
    ///
    /// # Errors
    /// A connection broke as something was sent in reply.
    fn on_messages(
        &mut self,
        crew: &mut Crew,
        session: usize,
        count: usize,
        at: Instant,
    ) -> Result<(), Error>;
}

/// Does nothing.
pub(crate) struct Deaf;

impl Receiver for Deaf {
    fn on_messages(&mut self, _: &mut Crew, _: usize, _: usize, _: Instant) -> Result<(), Error> {
        Ok(())
    }
}

/// The sessions, and what they wait on.
pub(crate) struct Fleet {
    poll: Poll,
    events: Events,
    timer: Timer,
    pub(crate) crew: Crew,
    parallel: usize,
}

impl Fleet {
    pub(crate) fn new(plan: &Plan, target: &Target) -> Result<Self, Error> {
        let poll = Poll::new().map_err(Error::io("epoll"))?;
        let registry = poll.registry().try_clone().map_err(Error::io("epoll"))?;
        let timer = Timer::new(&registry, TIMER).map_err(Error::io("a timer"))?;
        Ok(Self {
            poll,
            events: Events::with_capacity(limit::EVENTS_MAX),
            timer,
            crew: Crew::new(plan, target, registry),
            parallel: plan.parallel,
        })
    }

    /// Opens sessions until there are so many, and waits until all have joined.
    pub(crate) fn open(&mut self, sessions: usize, progress: &mut Progress) -> Result<(), Error> {
        while self.crew.joined() < sessions {
            while self.crew.len() < sessions && self.crew.len() - self.crew.joined() < self.parallel
            {
                self.crew.add()?;
            }
            self.turn(&mut Deaf)?;
            progress.at(self.crew.joined() as u64);
        }
        Ok(())
    }

    /// Does no more than answer pings for a while.
    pub(crate) fn rest(
        &mut self,
        duration: Duration,
        progress: &mut Progress,
    ) -> Result<(), Error> {
        let end = clock::now() + duration;
        while let Some(left) = end.checked_duration_since(clock::now()) {
            progress.at((duration - left).as_millis().try_into().unwrap_or(u64::MAX));
            self.wait(left.min(progress.interval()))?;
            self.take_events(&mut Deaf)?;
        }
        Ok(())
    }

    /// Waits for something to happen, and handles it.
    pub(crate) fn turn(&mut self, receiver: &mut impl Receiver) -> Result<(), Error> {
        self.wait(limit::STALL)?;
        if self.events.is_empty() {
            return Err(self.stalled());
        }
        self.take_events(receiver)
    }

    /// The same, but not beyond this time.
    pub(crate) fn turn_until(
        &mut self,
        due: Instant,
        receiver: &mut impl Receiver,
    ) -> Result<(), Error> {
        match due.checked_duration_since(clock::now()).filter(|left| !left.is_zero()) {
            Some(left) => {
                self.timer.set(due, left).map_err(Error::io("a timer"))?;
                self.wait(limit::STALL)?;
            }
            None => self.wait(Duration::ZERO)?,
        }
        self.take_events(receiver)
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), Error> {
        loop {
            match self.poll.poll(&mut self.events, Some(timeout)) {
                // It was stopped, and goes on.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return other.map_err(Error::io("epoll")),
            }
        }
    }

    fn take_events(&mut self, receiver: &mut impl Receiver) -> Result<(), Error> {
        for event in &self.events {
            let Token(token) = event.token();
            let Some((session, channel)) = split_token(token) else { continue };
            if event.is_writable() {
                self.crew.on_writable(session, channel)?;
            }
            if event.is_readable() {
                self.crew.on_readable(session, channel, receiver)?;
            }
        }
        Ok(())
    }

    fn stalled(&self) -> Error {
        let (seconds, joined, all) = (limit::STALL.as_secs(), self.crew.joined(), self.crew.len());
        let others = match self.crew.others() {
            0 => String::new(),
            others => format!(", and {others} packets came that were not awaited"),
        };
        Error::failed(format!(
            "nothing arrived in {seconds} s; {joined} of {all} sessions have joined{others}. Does the \
             server send the event back that this workload awaits? docs/guide has what each needs"
        ))
    }
}
