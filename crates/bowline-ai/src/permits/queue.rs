//! Who runs, who waits, who is next. No clock, no waker.
//!
//! Every waiter stands at one gate that is full: the first of its scopes that had no room. When a gate has room
//! again, those who stand there are looked at in their order, and whoever is kept by another gate moves on to stand
//! there. So a scope with room has nobody standing at it, a newcomer overtakes nobody who could run, and what one
//! provider is short of keeps nobody from another.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bowline_proto::Time;

use super::{Gauge, Limits, Priority, Refused, RefusedWhy, Scope};
use crate::limit::{AGEING, CLIENT_QUEUE_SHARE, RECOVERY};

/// Who asked: never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ticket(u64);

/// What came of asking. Every ticket must be given back by [`Queue::release`], whatever became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// It runs.
    Granted(Ticket),
    /// It waits.
    Queued(Ticket),
    Refused(Refused),
}

/// What ran and does no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Released {
    pub(super) request: Arc<str>,
    pub(super) scopes: Vec<Scope>,
    pub(super) held: Duration,
}

#[derive(Debug)]
pub(super) struct Queue {
    limits: Limits,
    gates: BTreeMap<Scope, Gate>,
    entries: HashMap<Ticket, Entry>,
    /// All who wait, in their order.
    line: BTreeSet<Place>,
    last: u64,
    /// The latest time that was heard of.
    now: Time,
    /// Whose turn has changed since it was last asked for.
    changed: Vec<Ticket>,
}

#[derive(Debug, Default)]
struct Gate {
    held: usize,
    /// Who waits and needs it, here or at another gate.
    queued: usize,
    /// Who stands here.
    standing: BTreeSet<Place>,
    lowered: Option<Lowered>,
}

/// A limit that was lowered because a provider asked for it.
#[derive(Debug, Clone, Copy)]
struct Lowered {
    to: usize,
    /// How many ran when it complained.
    from: usize,
    at: Time,
}

#[derive(Debug)]
struct Entry {
    request: Arc<str>,
    scopes: Vec<Scope>,
    asked: Time,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Stands at the gate of this scope.
    Waiting {
        place: Place,
        at: Scope,
    },
    Running {
        since: Time,
    },
    Refused(Refused),
}

/// Where somebody stands in the line. A class has a head start, which is a time as the arrival is, so the order of
/// two never changes and yet nobody waits for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place(Time, Ticket);

impl Queue {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            gates: BTreeMap::new(),
            entries: HashMap::new(),
            line: BTreeSet::new(),
            last: 0,
            now: Time::ZERO,
            changed: Vec::new(),
        }
    }

    /// Begins, waits or is refused.
    pub(super) fn ask(
        &mut self,
        now: Time,
        request: &Arc<str>,
        scopes: &[Scope],
        priority: Priority,
        deadline: Time,
    ) -> Asked {
        self.on_time(now);
        let mut scopes = scopes.to_vec();
        scopes.sort();
        scopes.dedup();
        let refused = |why, scope: &Scope| {
            Asked::Refused(Refused { why, scope: scope.clone(), waited: Duration::ZERO })
        };
        if let Some(closed) = scopes.iter().find(|scope| self.configured(scope) == Some(0)) {
            return refused(RefusedWhy::Closed, closed);
        }
        // A limit that rises with time has let nobody in by itself.
        self.settle(&scopes);
        self.last += 1;
        let ticket = Ticket(self.last);
        let place = Place(now + head_start(priority), ticket);
        let state = match self.full_among(&scopes) {
            None => State::Running { since: now },
            Some(full) if deadline <= now => return refused(RefusedWhy::Deadline, &full),
            Some(full) if self.crowds_out(&scopes) || !self.make_room(place) => {
                return refused(RefusedWhy::QueueFull, &full);
            }
            Some(full) => State::Waiting { place, at: full },
        };
        let asked = match &state {
            State::Waiting { at, .. } => {
                self.line.insert(place);
                self.gate(at).standing.insert(place);
                scopes.iter().for_each(|scope| self.gate(scope).queued += 1);
                Asked::Queued(ticket)
            }
            _ => {
                scopes.iter().for_each(|scope| self.gate(scope).held += 1);
                Asked::Granted(ticket)
            }
        };
        self.entries
            .insert(ticket, Entry { request: Arc::clone(request), scopes, asked: now, state });
        asked
    }

    /// How one who waited has fared: it runs, after so long, or has lost its place to somebody more urgent or to a
    /// limit that is zero now. `None` while it waits.
    pub(super) fn turn(&self, ticket: Ticket) -> Option<Result<Duration, Refused>> {
        let Entry { asked, state, .. } = self.entries.get(&ticket)?;
        match state {
            State::Waiting { .. } => None,
            State::Running { since } => Some(Ok(since.since(*asked))),
            State::Refused(refused) => Some(Err(refused.clone())),
        }
    }

    /// Its deadline has passed: it waits no longer, if it still does.
    pub(super) fn give_up(&mut self, now: Time, ticket: Ticket) -> Result<Duration, Refused> {
        self.on_time(now);
        self.refuse(ticket, RefusedWhy::Deadline);
        let unknown =
            Refused { why: RefusedWhy::Deadline, scope: Scope::All, waited: Duration::ZERO };
        self.turn(ticket).unwrap_or(Err(unknown))
    }

    /// It is gone, whether it ran, waited or was refused. Says what it held.
    pub(super) fn release(&mut self, now: Time, ticket: Ticket) -> Option<Released> {
        self.on_time(now);
        let Entry { request, scopes, state, .. } = self.entries.remove(&ticket)?;
        match state {
            State::Running { since } => {
                scopes.iter().for_each(|scope| self.gate(scope).held -= 1);
                self.settle(&scopes);
                self.forget_idle(&scopes);
                let held = self.now.since(since);
                Some(Released { request, scopes, held })
            }
            State::Waiting { place, at } => {
                self.step_out(place, &at, &scopes);
                None
            }
            State::Refused(_) => None,
        }
    }

    /// Other limits. What runs goes on; who waits for something that is closed now is refused.
    pub(super) fn reconfigure(&mut self, now: Time, limits: Limits) {
        self.on_time(now);
        self.limits = limits;
        let closed = self.line.iter().map(|Place(_, ticket)| *ticket).filter(|ticket| {
            let scopes = self.entries.get(ticket).map(|entry| entry.scopes.as_slice());
            scopes.unwrap_or_default().iter().any(|scope| self.configured(scope) == Some(0))
        });
        for ticket in closed.collect::<Vec<_>>() {
            self.refuse(ticket, RefusedWhy::Closed);
        }
        let scopes: Vec<Scope> = self.gates.keys().cloned().collect();
        self.settle(&scopes);
    }

    /// As many as run now are too many.
    pub(super) fn lower(&mut self, now: Time, scope: &Scope) {
        self.on_time(now);
        let limit = self.limit(scope).unwrap_or(usize::MAX);
        let gate = self.gate(scope);
        let from = gate.held;
        let to = from.saturating_sub(1).clamp(1, limit.max(1));
        gate.lowered = Some(Lowered { to, from, at: now });
    }

    /// Time has passed: a limit that was lowered may have risen, and nobody else says so to those who wait.
    pub(super) fn rise(&mut self, now: Time) {
        self.on_time(now);
        let lowered = self.gates.iter().filter(|(_, gate)| gate.lowered.is_some());
        let scopes: Vec<Scope> = lowered.map(|(scope, _)| scope.clone()).collect();
        self.settle(&scopes);
    }

    /// How all scopes stand but sessions.
    pub(super) fn gauges(&self, now: Time) -> Vec<Gauge> {
        let of_names = |names: &BTreeMap<Arc<str>, usize>, scope: fn(Arc<str>) -> Scope| {
            names.keys().cloned().map(scope).collect::<Vec<_>>()
        };
        let configured = [
            vec![Scope::All],
            of_names(&self.limits.models, Scope::Model),
            of_names(&self.limits.keys, Scope::Key),
            of_names(&self.limits.providers, Scope::Provider),
        ];
        let scopes = configured.into_iter().flatten().chain(self.gates.keys().cloned());
        let gauges = scopes.filter(|scope| !matches!(scope, Scope::Session(_))).map(|scope| {
            let (held, queued) =
                self.gates.get(&scope).map_or((0, 0), |gate| (gate.held, gate.queued));
            let limit = self.limit_at(now, &scope);
            let oldest = Duration::ZERO;
            (scope.clone(), Gauge { scope, limit, held, queued, oldest, oldest_wait: oldest })
        });
        let mut gauges: BTreeMap<Scope, Gauge> = gauges.collect();
        for entry in self.entries.values() {
            for scope in &entry.scopes {
                let Some(gauge) = gauges.get_mut(scope) else { continue };
                match entry.state {
                    State::Running { since } => gauge.oldest = gauge.oldest.max(now.since(since)),
                    State::Waiting { .. } => {
                        gauge.oldest_wait = gauge.oldest_wait.max(now.since(entry.asked));
                    }
                    State::Refused(_) => {}
                }
            }
        }
        gauges.into_values().collect()
    }

    /// Whose turn has changed since this was last asked: they are to be woken.
    pub(super) fn take_changed(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.changed)
    }

    /// Time never runs backwards, whatever threads say in whatever order.
    fn on_time(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    /// Lets in whoever stands at these gates and can be let in, in their order.
    fn settle(&mut self, scopes: &[Scope]) {
        while let Some((place, at)) = self.first_at_open(scopes) {
            let Place(_, ticket) = place;
            self.gate(&at).standing.remove(&place);
            let Some(mut entry) = self.entries.remove(&ticket) else { continue };
            match self.full_among(&entry.scopes) {
                Some(full) => {
                    self.gate(&full).standing.insert(place);
                    entry.state = State::Waiting { place, at: full };
                }
                None => {
                    self.line.remove(&place);
                    for scope in &entry.scopes {
                        let gate = self.gate(scope);
                        gate.queued -= 1;
                        gate.held += 1;
                    }
                    entry.state = State::Running { since: self.now };
                    self.changed.push(ticket);
                }
            }
            self.entries.insert(ticket, entry);
        }
    }

    /// Who is first of those that stand at a gate with room, of these.
    fn first_at_open(&self, scopes: &[Scope]) -> Option<(Place, Scope)> {
        let heads = scopes.iter().filter_map(|scope| {
            let place = *self.gates.get(scope)?.standing.first()?;
            self.has_room(scope).then_some((place, scope))
        });
        heads.min_by_key(|(place, _)| *place).map(|(place, scope)| (place, scope.clone()))
    }

    /// Whether a client that has all it may have makes so many wait besides that others find no place to wait.
    fn crowds_out(&self, scopes: &[Scope]) -> bool {
        let share = (self.limits.queued / CLIENT_QUEUE_SHARE).max(1);
        let queued = |scope| self.gates.get(scope).map_or(0, |gate| gate.queued);
        let mut own =
            scopes.iter().filter(|scope| matches!(scope, Scope::Session(_) | Scope::Key(_)));
        own.any(|scope| !self.has_room(scope) && queued(scope) >= share)
    }

    /// Whether one more may wait; whoever is behind it leaves its place to it.
    fn make_room(&mut self, newcomer: Place) -> bool {
        if self.line.len() < self.limits.queued {
            return true;
        }
        match self.line.last() {
            Some(last) if newcomer < *last => {
                self.refuse(last.1, RefusedWhy::QueueFull);
                true
            }
            _ => false,
        }
    }

    /// Somebody who waits does no longer.
    fn refuse(&mut self, ticket: Ticket, why: RefusedWhy) {
        let Some(mut entry) = self.entries.remove(&ticket) else { return };
        if let State::Waiting { place, at } = entry.state {
            self.step_out(place, &at, &entry.scopes);
            let waited = self.now.since(entry.asked);
            entry.state = State::Refused(Refused { why, scope: at, waited });
            self.changed.push(ticket);
        }
        self.entries.insert(ticket, entry);
    }

    /// Out of the line. Nobody can begin because of it: what it did not have it does not free.
    fn step_out(&mut self, place: Place, at: &Scope, scopes: &[Scope]) {
        self.line.remove(&place);
        self.gate(at).standing.remove(&place);
        scopes.iter().for_each(|scope| self.gate(scope).queued -= 1);
        self.forget_idle(scopes);
    }

    fn full_among(&self, scopes: &[Scope]) -> Option<Scope> {
        scopes.iter().find(|scope| !self.has_room(scope)).cloned()
    }

    fn has_room(&self, scope: &Scope) -> bool {
        let held = self.gates.get(scope).map_or(0, |gate| gate.held);
        self.limit(scope).is_none_or(|limit| held < limit)
    }

    fn limit(&self, scope: &Scope) -> Option<usize> {
        self.limit_at(self.now, scope)
    }

    fn limit_at(&self, now: Time, scope: &Scope) -> Option<usize> {
        let configured = self.configured(scope);
        let lowered = self.gates.get(scope).and_then(|gate| gate.lowered?.limit(now, configured));
        lowered.or(configured)
    }

    fn configured(&self, scope: &Scope) -> Option<usize> {
        match scope {
            Scope::All => Some(self.limits.all),
            Scope::Model(name) => self.limits.models.get(name).copied(),
            Scope::Session(_) => Some(self.limits.per_session),
            Scope::Key(name) => self.limits.keys.get(name).copied(),
            Scope::Provider(name) => self.limits.providers.get(name).copied(),
        }
    }

    fn gate(&mut self, scope: &Scope) -> &mut Gate {
        if !self.gates.contains_key(scope) {
            self.gates.insert(scope.clone(), Gate::default());
        }
        // It is there now.
        self.gates.entry(scope.clone()).or_default()
    }

    /// Sessions come and go: a gate that nobody needs is not kept.
    fn forget_idle(&mut self, scopes: &[Scope]) {
        for scope in scopes {
            let lowered = |gate: &Gate| gate.lowered?.limit(self.now, self.configured(scope));
            let idle = |gate: &Gate| gate.held == 0 && gate.queued == 0 && lowered(gate).is_none();
            if self.gates.get(scope).is_some_and(idle) {
                self.gates.remove(scope);
            }
        }
    }
}

impl Lowered {
    /// What it is now; `None` when it has risen to what is configured, or else to twice what the provider
    /// complained of.
    fn limit(self, now: Time, configured: Option<usize>) -> Option<usize> {
        let steps = now.since(self.at).as_micros() / RECOVERY.as_micros();
        let limit = self.to.saturating_add(usize::try_from(steps).unwrap_or(usize::MAX));
        let end = configured.unwrap_or(self.from.saturating_mul(2).max(2));
        (limit < end).then_some(limit)
    }
}

fn head_start(priority: Priority) -> Duration {
    match priority {
        Priority::High => Duration::ZERO,
        Priority::Normal => AGEING,
        Priority::Low => 2 * AGEING,
    }
}

#[cfg(test)]
mod tests;
