//! Looks at the processes of all services: who is there, who has ended, who is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::time;

use super::{
    held::{Held, Leads, Life},
    limit::{FORGOTTEN, LAST_LINES, LOOK_BUSY, LOOK_IDLE, LOOK_SHARE},
    turn::{Event, Running},
};
use crate::{
    os::{members::Table, sweep},
    plan::{End, Input, Instance},
};

impl Running {
    pub(super) fn look_soon(&mut self) {
        self.look_every = LOOK_BUSY;
        self.next_look = self.next_look.min(self.given.clock.now() + LOOK_BUSY);
    }

    /// Looks who is there; kills who is to be killed; tells of who is gone.
    pub(super) fn look(&mut self) {
        let began = self.given.clock.now();
        self.look_at_all();
        let mut gone = Vec::new();
        let mut measured = Vec::new();
        let mut missed = Vec::new();
        let mut busy = false;
        for (instance, held) in &mut self.instances {
            let recycle = held.service.recycle;
            let requests = self.requests.get(&held.service.name).map_or(0, |it| it.sum);
            let requests = requests.saturating_sub(held.requests_before);
            let Some(made) = held.made() else { continue };
            if made.leads == Leads::Told && made.living.is_empty() {
                gone.push(*instance);
                continue;
            }
            if made.kill_until.is_some_and(|until| until > began) {
                // What cannot be killed is told by its being there.
                let _ = made.kill();
                busy = true;
            }
            busy |= made.leads != Leads::Still;
            // Its end is told by its descriptor, unless that could not be waited on.
            if made.leads == Leads::Still && made.leader.as_ref().is_some_and(|it| it.ended()) {
                missed.push(*instance);
            }
            if recycle.memory.is_some() || recycle.requests.is_some() {
                let memory = Some(made.members.resident_bytes());
                let requests = Some(requests);
                measured.push(Input::Measured { instance: *instance, memory, requests });
            }
        }
        self.tell_memory();
        for instance in gone {
            self.gone(instance);
        }
        for instance in missed {
            self.ended(instance);
        }
        for input in measured {
            self.input(input);
        }
        let now = self.given.clock.now();
        self.look_every = if busy { LOOK_BUSY } else { (self.look_every * 2).min(LOOK_IDLE) };
        self.next_look = now + self.look_every.max(now.since(began) * LOOK_SHARE);
    }

    fn tell_memory(&self) {
        let mut resident: BTreeMap<String, u64> = BTreeMap::new();
        for held in self.instances.values() {
            if let Life::Made(made) = &held.life {
                *resident.entry(held.service.name.clone()).or_default() +=
                    made.members.resident_bytes();
            }
        }
        self.given.tell.send_if_modified(|snapshot| {
            if snapshot.resident_bytes != resident {
                Arc::make_mut(snapshot).resident_bytes = resident;
            }
            false
        });
    }

    pub(super) fn look_at_all(&mut self) {
        let table = match Table::read() {
            Ok(table) => table,
            Err(error) => {
                tracing::error!(%error, "processes cannot be looked at");
                return;
            }
        };
        self.carriers.retain(&table);
        let mut leaders = BTreeSet::new();
        for held in self.instances.values_mut() {
            if let Some(made) = held.made() {
                made.look(&table, &mut self.carriers);
                leaders.extend(
                    made.leader.as_ref().filter(|_| made.leads == Leads::Still).map(|it| it.key()),
                );
            }
        }
        sweep::reap_left(&table, |key| leaders.contains(&key));
        let now = self.given.clock.now();
        let before = std::mem::take(&mut self.foreign);
        for key in sweep::ended_of_others(&table) {
            let since = before.get(&key).copied().unwrap_or(now);
            if now.since(since) < FORGOTTEN {
                self.foreign.insert(key, since);
            } else {
                sweep::reap(key);
            }
        }
    }

    /// A leader has ended. Who belongs to it is found out before its number is given back.
    pub(super) fn ended(&mut self, instance: Instance) {
        self.look_at_all();
        let Some(made) = self.instances.get_mut(&instance).and_then(Held::made) else { return };
        if made.leads != Leads::Still {
            return;
        }
        made.leads = Leads::Ended;
        let end = made.leader.as_ref().and_then(|it| it.reap()).unwrap_or(End::Unknown);
        let lines = self.given.logs.last_lines(instance);
        let tell = self.tell.clone();
        self.tasks.spawn(async move {
            let lines = time::timeout(LAST_LINES, lines).await;
            let lines = lines.ok().and_then(Result::ok).unwrap_or_default();
            let _ = tell.send(Event::LastLines(instance, end, lines)).await;
        });
    }

    /// Nobody of an instance is left.
    fn gone(&mut self, instance: Instance) {
        if let Some(mut held) = self.instances.remove(&instance)
            && let Some(made) = held.made()
        {
            made.ears.drain(..).for_each(|ear| ear.abort());
            self.given.logs.detach(instance);
            made.place.remove();
        }
        self.input(Input::Gone { instance });
    }
}
