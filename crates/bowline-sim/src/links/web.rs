//! HTTP: requests of a link and of its bot, over the pool that `Leg` decides on.

use std::time::Duration;

use bowline_proto::{
    Time,
    keeper::{Answered, Input, LegId, ProbeId, Retry, Safety, Take},
};

use super::{
    far::published,
    link::{Arrived, How},
    network::{Answer, Fate, FlowId, Host, Path, Way},
    service::Down,
    world::{Event, World},
};

/// From nothing to a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// From the request to the answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// What must not be sent twice goes only where an answer came from so long ago.
const SURE: Duration = Duration::from_secs(1);

/// How soon a catch-up that failed is tried again, at most.
const CATCH_UP_PAUSE: Duration = Duration::from_secs(30);

/// The one origin that there is.
const ORIGIN: &str = "https://api.example";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RequestId(pub(super) u64);

/// A request that is under way.
#[derive(Debug)]
pub(super) struct Request {
    link: usize,
    what: What,
    leg: LegId,
    flow: Option<FlowId>,
    /// How many steps it has come: what belongs to an earlier one is over.
    tries: u32,
    sent: bool,
}

/// What it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// A routing probe is posted.
    Probe(ProbeId),
    /// The bot gets what it needs of a message, in two steps.
    Get { message: usize, attempt: u32, step: u8 },
    /// The bot answers it.
    Reply { message: usize, attempt: u32 },
    /// What arrived since then is asked for.
    CatchUp { since: Time },
    /// Something that the bot asks now and then.
    Chatter,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The connection for this try is there, if somebody is.
    Connected {
        tries: u32,
    },
    /// It is at the service.
    There {
        link: usize,
        what: What,
        flow: FlowId,
    },
    /// The answer is here; what was asked for, when it was made, were so many messages.
    Back {
        flow: FlowId,
        messages: usize,
    },
    Reset {
        flow: FlowId,
    },
    /// The time of this try is over.
    Late {
        tries: u32,
    },
}

impl What {
    fn safety(self) -> Safety {
        match self {
            Self::Get { .. } | Self::CatchUp { .. } | Self::Chatter => Safety::Safe,
            Self::Probe(_) | Self::Reply { .. } => Safety::Unsafe,
        }
    }
}

impl World<'_> {
    pub(super) fn request(&mut self, link: usize, what: What) {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.counts.requests += 1;
        self.say(|| format!("  {link} asks {what:?}"));
        let take = self.links[link].leg.take(self.now, ORIGIN, what.safety());
        self.close_idle(link);
        let (leg, within) = match take {
            Take::Pooled { connection, head_within } => (connection, head_within),
            Take::Fresh { connection } => (connection, None),
        };
        let flow = self.links[link].legs.get(&leg).copied();
        let request = Request { link, what, leg, flow, tries: 1, sent: false };
        self.requests.insert(id, request);
        match (take, flow) {
            (Take::Pooled { .. }, Some(flow)) => {
                let answered = self.links[link].answered.get(&leg).map(|at| self.now.since(*at));
                assert!(
                    what.safety() == Safety::Safe || answered.is_some_and(|ago| ago <= SURE),
                    "{what:?} goes where the last answer came from {answered:?} ago"
                );
                self.links[link].idle.retain(|idle| *idle != flow);
                self.post(id, flow, within.unwrap_or(HEAD_TIMEOUT));
            }
            (Take::Pooled { .. }, None) => panic!("{leg:?} is not in the pool"),
            (Take::Fresh { .. }, _) => self.connect(id),
        }
    }

    fn connect(&mut self, id: RequestId) {
        let Some(request) = self.requests.get(&id) else { return };
        let tries = request.tries;
        let delay = self.network.delay(self.now, Host::Api, &mut self.rng) * 4;
        self.at(self.now + delay, Event::Web(id, Step::Connected { tries }));
        self.at(self.now + CONNECT_TIMEOUT, Event::Web(id, Step::Late { tries }));
    }

    /// Sends it on a connection that is there.
    fn post(&mut self, id: RequestId, flow: FlowId, within: Duration) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        (request.flow, request.sent) = (Some(flow), true);
        request.tries += 1;
        let (link, what, tries) = (request.link, request.what, request.tries);
        match self.network.send(self.now, flow, Way::Up, &mut self.rng) {
            Fate::Arrive(at) => self.at(at, Event::Web(id, Step::There { link, what, flow })),
            Fate::Reset(at) => self.at(at, Event::Web(id, Step::Reset { flow })),
            Fate::Vanish => {}
        }
        self.at(self.now + within, Event::Web(id, Step::Late { tries }));
    }

    pub(super) fn on_web(&mut self, id: RequestId, step: Step) {
        // It is served though nobody may wait for the answer any more.
        if let Step::There { link, what, flow } = step
            && self.network.path(flow) == Path::Good
        {
            self.serve(link, what);
            let messages = self.accounts[link].history.len();
            if let Fate::Arrive(at) = self.network.send(self.now, flow, Way::Down, &mut self.rng) {
                self.at(at, Event::Web(id, Step::Back { flow, messages }));
            }
        }
        let Some(request) = self.requests.get(&id) else { return };
        let is_its = |flow: FlowId| request.flow == Some(flow);
        match step {
            Step::Connected { tries } if tries == request.tries => self.connected(id),
            Step::Back { flow, messages } if is_its(flow) => {
                if self.network.path(flow) == Path::Good {
                    self.answered(id, messages);
                }
            }
            Step::Reset { flow } if is_its(flow) => self.web_failed(id, Answered::Not),
            Step::Late { tries } if tries == request.tries => {
                let sent = if request.sent { Answered::Not } else { Answered::Unsent };
                self.web_failed(id, sent);
            }
            Step::Connected { .. }
            | Step::There { .. }
            | Step::Back { .. }
            | Step::Reset { .. }
            | Step::Late { .. } => {}
        }
    }

    fn connected(&mut self, id: RequestId) {
        let Some(request) = self.requests.get(&id) else { return };
        let (link, leg) = (request.link, request.leg);
        let address = self.network.look_up(self.now, Host::Api);
        match self.network.knock(self.now, Host::Api, address) {
            Answer::Yes => {
                let flow = self.network.open(self.now, Host::Api);
                self.links[link].legs.insert(leg, flow);
                self.post(id, flow, HEAD_TIMEOUT);
            }
            Answer::No | Answer::Expired => self.web_failed(id, Answered::Unsent),
            Answer::Silence => {}
        }
    }

    /// What the service does with it.
    fn serve(&mut self, link: usize, what: What) {
        match what {
            What::Probe(probe) => {
                for flow in self.accounts[link].echo(self.now) {
                    self.send_down(link, flow, Down::Probe(probe.0));
                }
            }
            What::Reply { message, .. } => {
                *self.links[link].bot.replies.entry(message).or_default() += 1;
                self.links[link].bot.answered.entry(message).or_insert(self.now);
            }
            What::Get { .. } | What::CatchUp { .. } | What::Chatter => {}
        }
    }

    fn answered(&mut self, id: RequestId, messages: usize) {
        let Some(request) = self.requests.remove(&id) else { return };
        let link = request.link;
        self.links[link].answered.insert(request.leg, self.now);
        self.links[link].leg.give_back(self.now, request.leg);
        if let Some(flow) = request.flow {
            self.links[link].idle.push(flow);
        }
        self.close_idle(link);
        match request.what {
            What::Probe(_) | What::Chatter => {}
            What::Get { message, attempt, step } => self.got(link, message, attempt, step),
            What::Reply { message, attempt } => self.replied(link, message, attempt),
            What::CatchUp { since } => self.caught_up(link, since, messages),
        }
    }

    /// Its connection failed, or was too slow.
    fn web_failed(&mut self, id: RequestId, answered: Answered) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        let (link, leg, what) = (request.link, request.leg, request.what);
        request.tries += 1;
        if let Some(flow) = request.flow.take() {
            self.network.leave(flow);
        }
        self.links[link].forget_leg(leg);
        let retry = self.links[link].leg.failed(self.now, leg, answered);
        self.close_idle(link);
        self.notice_pool();
        match retry {
            Retry::Fresh { connection } => {
                let safe = what.safety() == Safety::Safe;
                assert!(safe || answered == Answered::Unsent, "{what:?} is sent twice");
                self.counts.retries += 1;
                if let Some(request) = self.requests.get_mut(&id) {
                    (request.leg, request.sent) = (connection, false);
                }
                self.connect(id);
            }
            Retry::No => {
                self.requests.remove(&id);
                self.counts.failed_requests += 1;
                self.say(|| format!("  {link} {what:?} failed, {answered:?}"));
                match what {
                    What::Probe(probe) => {
                        let words = "the request failed".to_owned();
                        self.input(link, Input::NotProbed { probe, words });
                    }
                    What::Get { message, attempt, .. } => {
                        self.bot_failed(link, message, attempt, false)
                    }
                    What::Reply { message, attempt } => {
                        self.bot_failed(link, message, attempt, answered != Answered::Unsent);
                    }
                    What::CatchUp { .. } => self.not_caught_up(link),
                    What::Chatter => {}
                }
            }
        }
    }

    /// Closes what the pool lets go of.
    pub(super) fn close_idle(&mut self, link: usize) {
        while let Some(leg) = self.links[link].leg.poll_close() {
            let kept = &mut self.links[link];
            if let Some(flow) = kept.forget_leg(leg) {
                kept.idle.retain(|idle| *idle != flow);
                self.network.leave(flow);
            }
        }
        self.links[link].look_at_pool();
        self.notice_pool();
    }

    pub(super) fn expire_pool(&mut self, link: usize) {
        self.links[link].leg.expire(self.now);
        self.close_idle(link);
    }

    pub(super) fn fresh_pool(&mut self, link: usize) {
        self.links[link].leg.fresh_pool();
        self.close_idle(link);
    }

    /// The service closed one that was idle.
    pub(super) fn lose_idle(&mut self, link: usize, flow: FlowId) {
        let kept = &mut self.links[link];
        let leg = kept.legs.iter().find(|(_, it)| **it == flow).map(|(leg, _)| *leg);
        if let Some(leg) = leg {
            kept.leg.ended(leg);
            kept.forget_leg(leg);
        }
        kept.idle.retain(|idle| *idle != flow);
        self.network.leave(flow);
    }

    /// A failure of the pool is over, as far as the link is concerned, when nothing dead is in it any more.
    fn notice_pool(&mut self) {
        if self.watch.of_pool && !self.dead_in_pool() {
            self.notice();
        }
    }

    /// Whether a connection is in a pool, or in use, that leads nowhere.
    pub(super) fn dead_in_pool(&self) -> bool {
        let dead = |flow: &FlowId| self.network.path(*flow) != Path::Good;
        self.links.iter().any(|link| link.legs.values().any(dead))
    }

    /// The service is to be asked for what arrived since then.
    pub(super) fn want_catch_up(&mut self, link: usize, since: Time) {
        self.counts.catch_ups += 1;
        let kept = &mut self.links[link];
        let since = kept.behind.map_or(since, |(other, _)| other.min(since));
        kept.behind = Some((since, 0));
        self.catch_up(link);
    }

    pub(super) fn catch_up(&mut self, link: usize) {
        let kept = &mut self.links[link];
        let Some((since, _)) = kept.behind.filter(|_| !kept.catching_up) else { return };
        if !self.script.setup.history {
            self.links[link].behind = None;
            return;
        }
        kept.catching_up = true;
        // The shell knows how far clocks may differ, and no more: what the keeper says must be exact.
        self.request(link, What::CatchUp { since: published(since, self.script.setup.behind) });
    }

    fn caught_up(&mut self, link: usize, since: Time, messages: usize) {
        let behind = self.script.setup.behind;
        let kept = &mut self.links[link];
        kept.catching_up = false;
        let asked = kept.behind.map(|(since, _)| published(since, behind));
        if asked.is_some_and(|asked| asked < since) {
            // Meanwhile it was found that more is missing.
            self.catch_up(link);
            return;
        }
        kept.behind = None;
        // What the service had when it answered.
        let history = &self.accounts[link].history[..messages];
        let missed = history.iter().enumerate().filter(|(_, it)| published(it.at, behind) >= since);
        let missed: Vec<usize> = missed.map(|(number, _)| number).collect();
        for number in missed {
            self.store(link, None, Arrived { number, how: How::CaughtUp });
        }
    }

    fn not_caught_up(&mut self, link: usize) {
        let kept = &mut self.links[link];
        kept.catching_up = false;
        let Some((_, tries)) = &mut kept.behind else { return };
        *tries += 1;
        let pause = Duration::from_secs(1 << (*tries).min(5)).min(CATCH_UP_PAUSE);
        self.at(self.now + pause, Event::CatchUp { link });
    }

    pub(super) fn chatter(&mut self, link: usize) {
        self.request(link, What::Chatter);
    }
}
