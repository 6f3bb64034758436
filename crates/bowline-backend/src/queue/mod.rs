//! Which request is next. Pure: time and chance arrive as arguments, and what is to be done comes
//! out of [`Queue::poll`].
//!
//! A *lane* is one client's requests: strictly one after the other, in order of arrival, for all its
//! sockets. Lanes take turns. Over all lanes at most `max_concurrent` are under way. A job has until
//! its deadline, from its arrival on; what was never sent by then has failed.
//!
//! When the app did not take a request (refused, or not ready yet), all lanes pause, and one request
//! at a time is let through until one was taken: an app that starts hears nothing but a knock now and
//! then, and what was waiting for it arrives in order.

use std::{
    collections::{BTreeSet, HashMap, VecDeque, hash_map::Entry},
    hash::Hash,
    time::Duration,
};

use bowline_proto::Time;

use crate::limit;

#[cfg(test)]
mod tests;

/// How much may wait, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// From the arrival of a job to its answer.
    pub(crate) timeout: Duration,
    /// Requests under way.
    pub(crate) max_concurrent: usize,
    /// Jobs that wait, over all lanes.
    pub(crate) jobs: usize,
    /// Their bytes together.
    pub(crate) bytes: usize,
    /// Jobs that wait in one lane.
    pub(crate) lane: usize,
}

/// What a job is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The first of a socket.
    Connect,
    /// Something of a socket that the app knows, and that wants an answer.
    Event,
    /// A socket has lost its client. Finds a place as a disconnect does, since an app that does not
    /// hear of it would show somebody who is not there: of one socket at most two such words wait.
    Away,
    /// A socket has its client again.
    Back,
    /// The last of a socket. Finds a place when nothing else does: there is at most one for each
    /// socket, and an app that does not hear of it would keep somebody who has gone.
    Disconnect,
}

/// Names a job, within its queue and for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct JobId(u64);

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Output<J> {
    /// Send this. [`Queue::finish`] must follow, whatever becomes of it.
    Start { id: JobId, job: J, deadline: Time },
    /// It was not sent in time.
    Failed { job: J, why: Why },
}

/// Why a job has failed without having been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The app has not taken requests.
    Unavailable,
    /// Others were before it for too long.
    Late,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Attempt<J> {
    /// It was sent, and whatever came of that is the end of it. After a connect, `member` says
    /// whether the app may believe that the socket is there.
    Over { taken: bool, member: bool },
    /// The app has not taken it: it may be sent again, but not before so much time has passed.
    NotSent { job: J, retry_after: Option<Duration> },
}

/// The queue of one app. `S` names lanes, `K` sockets, `J` is what a job carries.
#[derive(Debug)]
pub(crate) struct Queue<S, K, J> {
    limits: Limits,
    jobs: HashMap<JobId, Job<S, K, J>>,
    lanes: HashMap<S, Lane>,
    /// Lanes whose first job may start, each once; and lanes that have emptied since.
    ready: VecDeque<S>,
    /// Of those that wait.
    deadlines: BTreeSet<(Time, JobId)>,
    waiting: usize,
    waiting_bytes: usize,
    running: usize,
    gate: Gate,
    next_id: u64,
    /// How many jobs found all `max_concurrent` places taken when their turn had come.
    waits: u64,
}

#[derive(Debug)]
struct Job<S, K, J> {
    session: S,
    socket: K,
    kind: Kind,
    bytes: usize,
    deadline: Time,
    /// Taken out while it is under way.
    payload: Option<J>,
    /// When it was sent, the last time.
    started: Time,
    /// The app has not taken it before.
    refused: bool,
    /// Its socket has left while it was under way.
    gone: bool,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<JobId>,
    running: Option<JobId>,
    /// Whether it stands in `ready`.
    ready: bool,
}

/// Whether the app takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    /// It did not. `since` is the last refusal that counted, `failures` how many there were in a
    /// row; the next request may go at `until`.
    Shut {
        since: Time,
        until: Time,
        failures: u32,
        pause: Duration,
    },
}

impl<S: Copy + Eq + Hash, K: Copy + Eq, J> Queue<S, K, J> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            jobs: HashMap::new(),
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            deadlines: BTreeSet::new(),
            waiting: 0,
            waiting_bytes: 0,
            running: 0,
            gate: Gate::Open,
            next_id: 0,
            waits: 0,
        }
    }

    /// What counts from now on. Deadlines that were given stay.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Takes a job.
    ///
    /// # Errors
    ///
    /// There is no place for it; it comes back.
    pub(crate) fn push(
        &mut self,
        now: Time,
        session: S,
        socket: K,
        kind: Kind,
        bytes: usize,
        payload: J,
    ) -> Result<(), J> {
        let in_lane = self.lanes.get(&session).map_or(0, |lane| lane.waiting.len());
        let full = self.waiting >= self.limits.jobs
            || self.waiting_bytes.saturating_add(bytes) > self.limits.bytes
            || in_lane >= self.limits.lane;
        if full && matches!(kind, Kind::Connect | Kind::Event) {
            return Err(payload);
        }
        self.next_id += 1;
        let id = JobId(self.next_id);
        let deadline = now + self.limits.timeout;
        let job = Job {
            session,
            socket,
            kind,
            bytes,
            deadline,
            payload: Some(payload),
            started: now,
            refused: false,
            gone: false,
        };
        self.jobs.insert(id, job);
        self.lanes.entry(session).or_default().waiting.push_back(id);
        self.deadlines.insert((deadline, id));
        self.waiting += 1;
        self.waiting_bytes += bytes;
        self.settle_lane(session);
        Ok(())
    }

    /// A socket has gone away, or is back (`kind`), in turn. Returns what will not be sent, as it says nothing
    /// any more: a client that comes and goes while its app is slow leaves two words at most.
    pub(crate) fn tell(
        &mut self,
        now: Time,
        session: S,
        socket: K,
        kind: Kind,
        bytes: usize,
        payload: J,
    ) -> Vec<J> {
        // An absence and its end cancel each other: so events stay where the app believes the client to
        // be there.
        let (cancelled, said) = match self.words_of(session, socket)[..] {
            [.., _, (last, Kind::Away)] if kind == Kind::Back => (vec![last], true),
            [.., (before, _), (last, _)] => (vec![before, last], false),
            _ => (Vec::new(), false),
        };
        let mut dropped: Vec<J> =
            cancelled.into_iter().filter_map(|id| self.remove_waiting(id)?.payload).collect();
        if said {
            dropped.push(payload);
        } else {
            let pushed = self.push(now, session, socket, kind, bytes, payload);
            debug_assert!(pushed.is_ok());
        }
        dropped
    }

    /// What waits to be said of a socket's absence, in order.
    fn words_of(&self, session: S, socket: K) -> Vec<(JobId, Kind)> {
        let Some(lane) = self.lanes.get(&session) else { return Vec::new() };
        let jobs = lane.waiting.iter().filter_map(|id| Some((*id, self.jobs.get(id)?)));
        let words = jobs
            .filter(|(_, job)| job.socket == socket && matches!(job.kind, Kind::Away | Kind::Back));
        words.map(|(id, job)| (id, job.kind)).collect()
    }

    /// A socket has left: what waits for it is returned and will not be sent, and `farewell` is
    /// queued if the app may know of the socket.
    pub(crate) fn leave(
        &mut self,
        now: Time,
        session: S,
        socket: K,
        bytes: usize,
        farewell: J,
    ) -> Vec<J> {
        let mut known = true;
        let mut dropped = Vec::new();
        if let Some(lane) = self.lanes.get_mut(&session) {
            if let Some(job) = lane.running.and_then(|id| self.jobs.get_mut(&id))
                && job.socket == socket
            {
                job.gone = true;
            }
            let of_socket = |id: &JobId| self.jobs.get(id).is_some_and(|job| job.socket == socket);
            let ids: Vec<JobId> = lane.waiting.iter().copied().filter(of_socket).collect();
            for id in ids {
                if let Some(job) = self.remove_waiting(id) {
                    known &= job.kind != Kind::Connect;
                    dropped.extend(job.payload);
                }
            }
        }
        if known {
            let pushed = self.push(now, session, socket, Kind::Disconnect, bytes, farewell);
            debug_assert!(pushed.is_ok());
        }
        dropped
    }

    /// The next thing to be done at this time. Asked again and again until there is nothing.
    pub(crate) fn poll(&mut self, now: Time) -> Option<Output<J>> {
        if let Some((at, id)) = self.deadlines.first().copied()
            && at <= now
        {
            let job = self.remove_waiting(id)?;
            let unavailable = job.refused || self.gate != Gate::Open;
            let why = if unavailable { Why::Unavailable } else { Why::Late };
            return Some(Output::Failed { job: job.payload?, why });
        }
        if self.running >= self.limits.max_concurrent || !self.gate.lets_through(now) {
            return None;
        }
        let id = self.next_ready()?;
        let job = self.jobs.get_mut(&id)?;
        job.started = now;
        self.deadlines.remove(&(job.deadline, id));
        self.waiting -= 1;
        self.waiting_bytes -= job.bytes;
        self.running += 1;
        self.gate.on_start(now);
        Some(Output::Start { id, job: job.payload.take()?, deadline: job.deadline })
    }

    /// When [`poll`](Self::poll) may have something without anything else having happened.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        let gate = match self.gate {
            Gate::Shut { until, .. } if self.may_start() => Some(until),
            Gate::Shut { .. } | Gate::Open => None,
        };
        [deadline, gate].into_iter().flatten().min()
    }

    /// What became of a job that was started. `chance` is a random number from 0 to 1. Returns what
    /// will not be sent after all.
    pub(crate) fn finish(
        &mut self,
        now: Time,
        id: JobId,
        attempt: Attempt<J>,
        chance: f64,
    ) -> Vec<J> {
        let Some(job) = self.jobs.get_mut(&id) else { return Vec::new() };
        let (session, socket, kind) = (job.session, job.socket, job.kind);
        self.running -= 1;
        if let Some(lane) = self.lanes.get_mut(&session) {
            lane.running = None;
        }
        let mut dropped = Vec::new();
        let forgotten = match attempt {
            Attempt::Over { taken, member } => {
                if taken {
                    self.gate = Gate::Open;
                }
                self.jobs.remove(&id);
                kind == Kind::Connect && !member
            }
            Attempt::NotSent { job: payload, retry_after } => {
                self.gate.on_refusal(now, job.started, retry_after, self.limits.timeout, chance);
                if job.gone && kind != Kind::Disconnect {
                    self.jobs.remove(&id);
                    dropped.push(payload);
                    kind == Kind::Connect
                } else {
                    job.payload = Some(payload);
                    job.refused = true;
                    let (deadline, bytes) = (job.deadline, job.bytes);
                    self.deadlines.insert((deadline, id));
                    self.waiting += 1;
                    self.waiting_bytes += bytes;
                    self.lanes.entry(session).or_default().waiting.push_front(id);
                    false
                }
            }
        };
        if forgotten {
            dropped.extend(self.forget(session, socket));
        }
        self.settle_lane(session);
        dropped
    }

    /// Whether nothing waits and nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Whether fewer than `max_concurrent` are under way.
    pub(crate) fn has_places(&self) -> bool {
        self.running < self.limits.max_concurrent
    }

    /// How many jobs wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many are under way.
    pub(crate) fn running(&self) -> usize {
        self.running
    }

    /// How many jobs found all places taken when their turn had come.
    pub(crate) fn waits(&self) -> u64 {
        self.waits
    }

    /// Whether the app has not taken the last request.
    pub(crate) fn is_shut(&self) -> bool {
        self.gate != Gate::Open
    }

    /// Takes the first job of the lane whose turn it is.
    fn next_ready(&mut self) -> Option<JobId> {
        loop {
            let session = self.ready.pop_front()?;
            let Entry::Occupied(mut entry) = self.lanes.entry(session) else { continue };
            let lane = entry.get_mut();
            lane.ready = false;
            if let Some(id) = lane.waiting.pop_front() {
                lane.running = Some(id);
                return Some(id);
            }
            entry.remove();
        }
    }

    /// Takes back what waits for a socket that the app does not know.
    fn forget(&mut self, session: S, socket: K) -> Vec<J> {
        let Some(lane) = self.lanes.get(&session) else { return Vec::new() };
        let of_socket = |id: &&JobId| self.jobs.get(id).is_some_and(|job| job.socket == socket);
        let ids: Vec<JobId> = lane.waiting.iter().filter(of_socket).copied().collect();
        ids.into_iter().filter_map(|id| self.remove_waiting(id)?.payload).collect()
    }

    /// Takes out a job that waits.
    fn remove_waiting(&mut self, id: JobId) -> Option<Job<S, K, J>> {
        let job = self.jobs.remove(&id)?;
        self.deadlines.remove(&(job.deadline, id));
        self.waiting -= 1;
        self.waiting_bytes -= job.bytes;
        if let Some(lane) = self.lanes.get_mut(&job.session) {
            // Nearly always the first.
            if let Some(at) = lane.waiting.iter().position(|other| *other == id) {
                lane.waiting.remove(at);
            }
        }
        self.settle_lane(job.session);
        Some(job)
    }

    /// Puts a lane in line if its first job may go, and drops it if there is nothing in it.
    fn settle_lane(&mut self, session: S) {
        let Entry::Occupied(mut entry) = self.lanes.entry(session) else { return };
        let lane = entry.get_mut();
        if lane.ready || lane.running.is_some() {
            return;
        }
        if lane.waiting.is_empty() {
            entry.remove();
            return;
        }
        lane.ready = true;
        let ahead = self.running + self.ready.len();
        if self.gate == Gate::Open && ahead >= self.limits.max_concurrent {
            self.waits += 1;
        }
        self.ready.push_back(session);
    }

    fn may_start(&self) -> bool {
        self.running < self.limits.max_concurrent && !self.ready.is_empty()
    }

    /// What must hold between any two calls.
    #[cfg(test)]
    fn check(&self) {
        let mut waiting = std::collections::BTreeMap::new();
        for (session, lane) in &self.lanes {
            assert!(lane.running.is_some() || !lane.waiting.is_empty() || lane.ready);
            assert!(lane.running.is_none() || !lane.ready);
            assert!(lane.ready || lane.running.is_some());
            let listed = self.ready.iter().filter(|other| *other == session).count();
            assert_eq!(listed, usize::from(lane.ready));
            for id in &lane.waiting {
                assert!(self.jobs[id].payload.is_some());
                waiting.insert(*id, self.jobs[id].bytes);
            }
            if let Some(id) = lane.running {
                assert!(self.jobs[&id].payload.is_none());
            }
        }
        assert_eq!(waiting.len(), self.waiting);
        assert_eq!(waiting.values().sum::<usize>(), self.waiting_bytes);
        let running = self.lanes.values().filter(|lane| lane.running.is_some()).count();
        assert_eq!(running, self.running);
        assert_eq!(self.jobs.len(), self.waiting + self.running);
        assert_eq!(self.deadlines.len(), self.waiting);
    }
}

impl Gate {
    fn lets_through(self, now: Time) -> bool {
        match self {
            Self::Open => true,
            Self::Shut { until, .. } => until <= now,
        }
    }

    /// While it is shut, the one that goes now is the one for this while.
    fn on_start(&mut self, now: Time) {
        if let Self::Shut { until, pause, .. } = self {
            *until = now + *pause;
        }
    }

    /// The app has not taken a request that was started at `started`.
    fn on_refusal(
        &mut self,
        now: Time,
        started: Time,
        retry_after: Option<Duration>,
        longest: Duration,
        chance: f64,
    ) {
        let failures = match *self {
            Self::Open => 1,
            // One of those that were under way when it was shut says nothing new.
            Self::Shut { since, .. } if started <= since => return,
            Self::Shut { failures, .. } => failures.saturating_add(1),
        };
        let doubled = limit::RETRY_FIRST.saturating_mul(1 << (failures - 1).min(16));
        let pause = doubled.min(limit::RETRY_MAX).mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0));
        let pause = retry_after.unwrap_or_default().min(longest).max(pause);
        *self = Self::Shut { since: now, until: now + pause, failures, pause };
    }
}
