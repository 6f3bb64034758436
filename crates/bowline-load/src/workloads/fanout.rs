//! One session sends what all of its group receive: everybody, or a room.

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
    pub(super) fn fanout(&mut self, what: &str, part: f64) -> Result<Outcome, Error> {
        match self.plan.rate {
            Some(rate) => {
                let duration = self.plan.duration.mul_f64(part);
                self.fanout_on_schedule(what, Schedule::new(clock::now(), rate, duration))
            }
            None => self.fanout_in_turn(what, part_of(self.plan.rounds, part)),
        }
    }

    /// The next of a group sends when all of it have what the last one sent.
    fn fanout_in_turn(&mut self, what: &str, rounds: usize) -> Result<Outcome, Error> {
        let plan = self.plan;
        self.progress.begin(what, (rounds * plan.sessions * plan.burst) as u64);
        let mut rooms = InTurn::new(plan, rounds);
        for group in 0..plan.groups {
            rooms.next_round(&mut self.fleet.crew, group, clock::now())?;
        }
        while rooms.open > 0 {
            self.fleet.turn(&mut rooms)?;
            self.progress.at(rooms.outcome.received);
        }
        Ok(rooms.outcome)
    }

    /// Events are sent when they are due, by the groups and their members in turn.
    fn fanout_on_schedule(&mut self, what: &str, schedule: Schedule) -> Result<Outcome, Error> {
        let plan = self.plan;
        let mut schedule = schedule;
        let mut rooms = OnSchedule::new(plan, schedule);
        self.progress.begin(what, rooms.awaited);
        while rooms.outcome.received < rooms.awaited {
            while let Some(number) = schedule.pop(clock::now()) {
                let number = number as usize;
                let (group, round) = (number % plan.groups, number / plan.groups);
                let member = round % plan.group_size(group);
                self.fleet.crew.say(group + member * plan.groups, plan.burst)?;
            }
            match schedule.wake() {
                Some(due) => self.fleet.turn_until(due, &mut rooms)?,
                None => self.fleet.turn(&mut rooms)?,
            }
            self.progress.at(rooms.outcome.received);
        }
        Ok(rooms.outcome)
    }
}

struct InTurn<'a> {
    plan: &'a Plan,
    groups: Vec<Group>,
    /// Groups that are not through yet.
    open: usize,
    outcome: Outcome,
}

/// A group and the round that it is in.
struct Group {
    size: usize,
    rounds_left: usize,
    /// Who sends next.
    member: usize,
    sent_at: Instant,
    /// Deliveries that are still to come.
    left: usize,
}

impl<'a> InTurn<'a> {
    fn new(plan: &'a Plan, rounds: usize) -> Self {
        let group = |group| Group {
            size: plan.group_size(group),
            rounds_left: rounds,
            member: 0,
            sent_at: clock::now(),
            left: 0,
        };
        Self {
            plan,
            groups: (0..plan.groups).map(group).collect(),
            open: plan.groups,
            outcome: Outcome::default(),
        }
    }

    fn next_round(&mut self, crew: &mut Crew, number: usize, now: Instant) -> Result<(), Error> {
        let group = &mut self.groups[number];
        if group.rounds_left == 0 {
            self.open -= 1;
            return Ok(());
        }
        group.rounds_left -= 1;
        group.left = group.size * self.plan.burst;
        group.sent_at = now;
        let sender = number + group.member * self.plan.groups;
        group.member = (group.member + 1) % group.size;
        crew.say(sender, self.plan.burst)
    }
}

impl Receiver for InTurn<'_> {
    #[inline]
    fn on_messages(
        &mut self,
        crew: &mut Crew,
        session: usize,
        count: usize,
        at: Instant,
    ) -> Result<(), Error> {
        let number = self.plan.group_of(session);
        let group = &mut self.groups[number];
        let Some(left) = group.left.checked_sub(count) else { return Err(too_many(session)) };
        group.left = left;
        self.outcome.received += count as u64;
        self.outcome.latency.add(at - group.sent_at, count);
        if left == 0 {
            self.outcome.fanout.add(at - group.sent_at, 1);
            self.next_round(crew, number, at)?;
        }
        Ok(())
    }
}

struct OnSchedule<'a> {
    plan: &'a Plan,
    schedule: Schedule,
    /// How many events each session has received. Those of a group come in order, so that says
    /// which one came.
    received: Vec<u64>,
    /// For each event how many are still to receive it.
    missing: Vec<u32>,
    awaited: u64,
    outcome: Outcome,
}

impl<'a> OnSchedule<'a> {
    fn new(plan: &'a Plan, schedule: Schedule) -> Self {
        let missing: Vec<u32> = (0..schedule.total() as usize)
            .map(|number| (plan.group_size(number % plan.groups) * plan.burst) as u32)
            .collect();
        Self {
            plan,
            schedule,
            received: vec![0; plan.sessions],
            awaited: missing.iter().copied().map(u64::from).sum(),
            missing,
            outcome: Outcome::default(),
        }
    }
}

impl Receiver for OnSchedule<'_> {
    #[inline]
    fn on_messages(
        &mut self,
        _: &mut Crew,
        session: usize,
        count: usize,
        at: Instant,
    ) -> Result<(), Error> {
        let groups = self.plan.groups as u64;
        let group = self.plan.group_of(session) as u64;
        for _ in 0..count {
            let round = self.received[session] / self.plan.burst as u64;
            let number = round * groups + group;
            let delay = at.checked_duration_since(self.schedule.due(number));
            let missing = self.missing.get_mut(number as usize).filter(|missing| **missing > 0);
            let (Some(delay), Some(missing)) = (delay, missing) else {
                return Err(too_many(session));
            };
            *missing -= 1;
            if *missing == 0 {
                self.outcome.fanout.add(delay, 1);
            }
            self.outcome.latency.add(delay, 1);
            self.received[session] += 1;
        }
        self.outcome.received += count as u64;
        Ok(())
    }
}

fn too_many(session: usize) -> Error {
    Error::failed(format!(
        "session {session} received more than was sent to it: somebody else uses the namespace, or the rooms are not \
         what the auth object says"
    ))
}
