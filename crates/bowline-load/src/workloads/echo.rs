//! Each session sends events and awaits them, or their acks.

use std::time::Instant;

use super::{Outcome, Run, part_of};
use crate::{
    clock,
    error::Error,
    fleet::{Crew, Receiver},
    plan::Plan,
    schedule::Schedule,
};

impl Run<'_> {
    pub(super) fn echo(&mut self, what: &str, part: f64) -> Result<Outcome, Error> {
        match self.plan.rate {
            Some(rate) => {
                let duration = self.plan.duration.mul_f64(part);
                self.echo_on_schedule(what, Schedule::new(clock::now(), rate, duration))
            }
            None => self.echo_in_turn(what, part_of(self.plan.messages, part)),
        }
    }

    /// A session sends the next event when one has come back.
    fn echo_in_turn(&mut self, what: &str, messages: usize) -> Result<Outcome, Error> {
        self.progress.begin(what, messages as u64);
        let mut echo = InTurn::new(self.plan, messages);
        for session in 0..self.plan.sessions {
            echo.send(&mut self.fleet.crew, session, self.plan.window, clock::now())?;
        }
        while echo.outcome.received < echo.sent as u64 {
            self.fleet.turn(&mut echo)?;
            self.progress.at(echo.outcome.received);
        }
        Ok(echo.outcome)
    }

    /// Events are sent when they are due.
    fn echo_on_schedule(&mut self, what: &str, schedule: Schedule) -> Result<Outcome, Error> {
        self.progress.begin(what, schedule.total());
        let sessions = self.plan.sessions;
        let mut schedule = schedule;
        let mut echo =
            OnSchedule { schedule, returned: vec![0; sessions], outcome: Outcome::default() };
        while echo.outcome.received < schedule.total() {
            while let Some(number) = schedule.pop(clock::now()) {
                self.fleet.crew.say(number as usize % sessions, 1)?;
            }
            match schedule.wake() {
                Some(due) => self.fleet.turn_until(due, &mut echo)?,
                None => self.fleet.turn(&mut echo)?,
            }
            self.progress.at(echo.outcome.received);
        }
        Ok(echo.outcome)
    }
}

struct InTurn {
    /// How many are to be sent.
    messages: usize,
    sent: usize,
    window: usize,
    /// When each event was sent that is on its way: a ring for each session, since they come back
    /// in order.
    sent_at: Vec<Instant>,
    /// How many each session has sent, and got back.
    counts: Vec<(usize, usize)>,
    outcome: Outcome,
}

impl InTurn {
    fn new(plan: &Plan, messages: usize) -> Self {
        Self {
            messages,
            sent: 0,
            window: plan.window,
            sent_at: vec![clock::now(); plan.sessions * plan.window],
            counts: vec![(0, 0); plan.sessions],
            outcome: Outcome::default(),
        }
    }

    fn send(
        &mut self,
        crew: &mut Crew,
        session: usize,
        count: usize,
        now: Instant,
    ) -> Result<(), Error> {
        let count = count.min(self.messages - self.sent);
        if count == 0 {
            return Ok(());
        }
        let (sent, _) = &mut self.counts[session];
        for _ in 0..count {
            self.sent_at[session * self.window + *sent % self.window] = now;
            *sent += 1;
        }
        self.sent += count;
        crew.say(session, count)
    }
}

impl Receiver for InTurn {
    #[inline]
    fn on_messages(
        &mut self,
        crew: &mut Crew,
        session: usize,
        count: usize,
        at: Instant,
    ) -> Result<(), Error> {
        let (sent, returned) = &mut self.counts[session];
        if *returned + count > *sent {
            return Err(more_than_sent(session));
        }
        for _ in 0..count {
            let sent_at = self.sent_at[session * self.window + *returned % self.window];
            self.outcome.latency.add(at - sent_at, 1);
            *returned += 1;
        }
        self.outcome.received += count as u64;
        self.send(crew, session, count, at)
    }
}

struct OnSchedule {
    schedule: Schedule,
    /// How many events each session has got back. They were sent in turn and come back in order, so
    /// that says which one came.
    returned: Vec<u64>,
    outcome: Outcome,
}

impl Receiver for OnSchedule {
    #[inline]
    fn on_messages(
        &mut self,
        _: &mut Crew,
        session: usize,
        count: usize,
        at: Instant,
    ) -> Result<(), Error> {
        for _ in 0..count {
            let number = self.returned[session] * self.returned.len() as u64 + session as u64;
            // More than were sent would be due in the future.
            let delay = at.checked_duration_since(self.schedule.due(number));
            self.outcome.latency.add(delay.ok_or_else(|| more_than_sent(session))?, 1);
            self.returned[session] += 1;
        }
        self.outcome.received += count as u64;
        Ok(())
    }
}

fn more_than_sent(session: usize) -> Error {
    Error::failed(format!(
        "session {session} got more back than it had sent: the server sends events on its own; measure with --ack, or \
         in another --namespace"
    ))
}
