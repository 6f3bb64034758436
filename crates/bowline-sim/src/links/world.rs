//! Time in a world: what happens next, and who is told.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bowline_proto::{
    Time,
    keeper::{Budget, ConnectionId, Input, Output, Report, State},
};

use super::{
    Counts,
    link::Link,
    network::{Fate, FlowId, Host, Network, Path, Way, up_to},
    script::{Act, Script},
    service::{Account, Down},
    web::{Request, RequestId},
};
use crate::rng::Rng;

/// The name under which all links of a world ask the budget.
const HOST: &str = "service.example";

/// How often the service looks for connections that are silent.
const SWEEP: Duration = Duration::from_secs(20);

/// How long a resumed step may take at one point in time before it counts as going round in circles.
const AT_ONCE_MAX: u32 = 20_000;

/// What is to happen.
#[derive(Debug)]
pub(super) enum Event {
    Act(Act),
    /// Trouble of this kind has ended: from then on nothing may be laid to it that begins later.
    Trouble,
    /// A connection that is being opened gets further.
    Opening {
        link: usize,
        connection: ConnectionId,
        step: u8,
    },
    /// It has taken too long.
    OpenLate {
        link: usize,
        connection: ConnectionId,
    },
    Up {
        link: usize,
        flow: FlowId,
        up: Up,
    },
    Down {
        link: usize,
        flow: FlowId,
        down: Down,
    },
    /// Bytes of ours were answered with a reset.
    Reset {
        link: usize,
        flow: FlowId,
    },
    /// The service closes this flow, if it is there still.
    Shut {
        link: usize,
        flow: FlowId,
        code: u16,
    },
    Web(RequestId, super::web::Step),
    /// The message is committed: it is acknowledged.
    Stored {
        link: usize,
        connection: Option<ConnectionId>,
        message: usize,
    },
    /// What can be offered is offered.
    Offer {
        link: usize,
    },
    /// The bot's time for a message is over.
    Unconfirmed {
        link: usize,
        message: usize,
        attempt: u32,
    },
    CatchUp {
        link: usize,
    },
    Chatter {
        link: usize,
    },
    Discard {
        link: usize,
        device: u64,
    },
    Resume {
        link: usize,
    },
    Sweep,
}

/// What goes up a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Up {
    Ping,
    Ack,
    Receipt(usize),
    /// A routing probe that is said on the connection.
    Echo(u64),
    Bye,
}

/// The moment that a failure is measured from.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Watch {
    /// The next act is the failure.
    pub(super) armed: bool,
    /// It is noticed when nothing dead is left in the pool.
    pub(super) of_pool: bool,
    pub(super) failed: Option<Time>,
    pub(super) noticed: Option<Time>,
}

pub(super) struct World<'a> {
    pub(super) rng: Rng,
    pub(super) now: Time,
    pub(super) script: Script,
    pub(super) network: Network,
    pub(super) accounts: Vec<Account>,
    pub(super) links: Vec<Link>,
    pub(super) requests: BTreeMap<RequestId, Request>,
    pub(super) next_request: u64,
    pub(super) watch: Watch,
    pub(super) counts: Counts,
    budget: Budget,
    attempts: Vec<Time>,
    events: BTreeMap<(Time, u64), Event>,
    order: u64,
    inputs: VecDeque<(usize, Input)>,
    /// Whether an input is being carried out.
    busy: bool,
    trace: Option<&'a mut dyn FnMut(String)>,
}

impl<'a> World<'a> {
    pub(super) fn new(script: Script, trace: Option<&'a mut dyn FnMut(String)>) -> Self {
        let mut rng = Rng::new(script.seed ^ 0x006c_696e_6b73);
        let setup = &script.setup;
        let links = (0..setup.links).map(|number| Link::new(setup, number, rng.word())).collect();
        let mut world = Self {
            now: Time::ZERO,
            network: Network::new(setup.manner.clone()),
            accounts: (0..setup.links).map(|_| Account::default()).collect(),
            links,
            requests: BTreeMap::new(),
            next_request: 0,
            watch: Watch::default(),
            counts: Counts::default(),
            budget: Budget::new(setup.budget.0, setup.budget.1),
            attempts: Vec::new(),
            events: BTreeMap::new(),
            order: 0,
            inputs: VecDeque::new(),
            busy: false,
            trace,
            rng,
            script,
        };
        for (at, act) in world.script.acts.clone() {
            world.at(at, Event::Act(act));
        }
        world.at(Time::ZERO + SWEEP, Event::Sweep);
        for link in 0..world.links.len() {
            world.input(link, Input::Start);
            if let Some((from, every)) = world.script.setup.chatter {
                world.at(from + every, Event::Chatter { link });
            }
        }
        world
    }

    /// Plays everything, and says what happened.
    pub(super) fn run(&mut self) {
        let (calm_from, ends) = (self.script.calm_from, self.script.ends);
        self.run_until(calm_from);
        self.calm();
        self.run_until(ends);
        self.check_budget();
        for number in 0..self.links.len() {
            self.links[number].model.check_well();
            self.check_messages(number);
        }
        self.finish();
    }

    fn run_until(&mut self, end: Time) {
        let mut at_once = 0;
        loop {
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let wakes = self.links.iter().enumerate();
            let timer = wakes.filter_map(|(number, link)| Some((link.wakes?, number))).min();
            let next = event.into_iter().chain(timer.map(|(at, _)| at)).min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            at_once = if at > self.now { 0 } else { at_once + 1 };
            assert!(at_once < AT_ONCE_MAX, "it goes round in circles");
            self.now = self.now.max(at);
            if event.is_some_and(|at| at <= self.now) {
                if let Some((_, event)) = self.events.pop_first() {
                    self.on_event(event);
                }
            } else if let Some((_, number)) = timer {
                let late = up_to(&mut self.rng, self.script.setup.late);
                self.now += late;
                self.on_timer(number);
            }
        }
        self.now = self.now.max(end);
    }

    fn on_timer(&mut self, link: usize) {
        self.expire_pool(link);
        if self.links[link].due.is_some_and(|at| at <= self.now) {
            self.input(link, Input::Timeout);
            let next = self.links[link].due;
            assert!(next.is_none_or(|at| at > self.now), "it is to be woken in the past: {next:?}");
        }
    }

    fn on_event(&mut self, event: Event) {
        let dull = matches!(
            event,
            Event::Up { up: Up::Ping | Up::Ack, .. }
                | Event::Down { down: Down::Pong | Down::Ack, .. }
                | Event::Sweep
                | Event::Web(..)
        );
        if !dull {
            self.say(|| format!("{event:?}"));
        }
        match event {
            Event::Act(act) => self.on_act(act),
            Event::Trouble => self.links.iter_mut().for_each(|it| it.model.on_trouble(self.now)),
            Event::Opening { link, connection, step } => self.on_opening(link, connection, step),
            Event::OpenLate { link, connection } => self.on_open_late(link, connection),
            Event::Up { link, flow, up } => {
                if self.network.path(flow) == Path::Good {
                    self.on_up(link, flow, up);
                }
            }
            Event::Down { link, flow, down } => {
                if self.network.path(flow) == Path::Good {
                    self.on_down(link, flow, down);
                }
            }
            Event::Reset { link, flow } => self.on_reset(link, flow),
            Event::Shut { link, flow, code } => self.shut(link, flow, code),
            Event::Web(request, step) => self.on_web(request, step),
            Event::Stored { link, connection, message } => {
                self.on_stored(link, connection, message);
            }
            Event::Offer { link } => self.offer(link),
            Event::Unconfirmed { link, message, attempt } => {
                self.on_unconfirmed(link, message, attempt);
            }
            Event::CatchUp { link } => self.catch_up(link),
            Event::Chatter { link } => {
                self.chatter(link);
                if let Some((_, every)) = self.script.setup.chatter {
                    self.at(self.now + every, Event::Chatter { link });
                }
            }
            Event::Discard { link, device } => drop(self.accounts[link].devices.remove(&device)),
            Event::Resume { link } => self.input(link, Input::Start),
            Event::Sweep => {
                self.accounts.iter_mut().for_each(|account| account.sweep(self.now));
                self.network.sweep(self.now);
                self.at(self.now + SWEEP, Event::Sweep);
            }
        }
    }

    /// Gives a keeper an input, does what it says, and so on until it says nothing any more.
    pub(super) fn input(&mut self, link: usize, input: Input) {
        self.inputs.push_back((link, input));
        if std::mem::replace(&mut self.busy, true) {
            return;
        }
        while let Some((link, input)) = self.inputs.pop_front() {
            let dull = matches!(input, Input::Heard { .. } | Input::Timeout);
            if !dull {
                self.say(|| format!("  {link} ← {input:?}"));
            }
            self.counts.inputs += 1;
            let kept = &mut self.links[link];
            kept.model.on_input(self.now, &input);
            kept.keeper.handle_input(self.now, input);
            while let Some(output) = self.links[link].keeper.poll_output() {
                if !matches!(output, Output::Ping { .. } | Output::Ack { .. }) {
                    self.say(|| format!("  {link} → {output:?}"));
                }
                self.links[link].model.on_output(self.now, &output);
                self.on_output(link, output);
            }
            let kept = &mut self.links[link];
            kept.model.check(self.now, &kept.keeper);
            if !dull {
                kept.model.check_levels(&kept.keeper);
            }
            kept.look_at_time();
        }
        self.busy = false;
    }

    fn on_output(&mut self, link: usize, output: Output) {
        match output {
            Output::Reserve => {
                self.notice_far();
                let at = self.budget.reserve(self.now, HOST);
                assert!(at >= self.now, "the budget allows what is over");
                self.inputs.push_back((link, Input::Slot { at }));
            }
            Output::Open { connection, fresh_address, fresh_pool, within } => {
                self.attempts.push(self.now);
                self.counts.attempts += 1;
                if fresh_pool {
                    self.fresh_pool(link);
                }
                self.begin_open(link, connection, fresh_address, within);
            }
            Output::Ping { connection } => self.send_up(link, connection, Up::Ping),
            Output::Ack { connection } => self.send_up(link, connection, Up::Ack),
            Output::Probe { connection, probe, .. } => self.begin_probe(link, connection, probe),
            Output::Close { connection, discard, .. } => self.close(link, connection, discard),
            Output::CatchUp { since } => {
                self.notice_far();
                self.want_catch_up(link, since);
            }
            Output::Look { since } => {
                self.counts.looks += 1;
                self.want_catch_up(link, since);
            }
            Output::RestartService => self.restart_bot(link),
            Output::Report(Report::State { state, .. }) => {
                if !matches!(state, State::Live | State::Proving | State::Off) {
                    self.notice_far();
                }
            }
            Output::Report(Report::Renewed { .. }) => {
                self.counts.renewals += 1;
                if !std::mem::replace(&mut self.links[link].begun, true) {
                    // The keeper knows nothing of what was before it; the shell knows from its store.
                    self.want_catch_up(link, Time::ZERO);
                }
            }
            Output::Use { .. } | Output::Report(_) => {}
        }
    }

    /// The keeper does something that a failure leads to.
    fn notice_far(&mut self) {
        if !self.watch.of_pool {
            self.notice();
        }
    }

    /// The failure is noticed, if there was one.
    pub(super) fn notice(&mut self) {
        if self.watch.failed.is_some() && self.watch.noticed.is_none() {
            self.watch.noticed = Some(self.now);
        }
    }

    /// Sends something up a connection.
    pub(super) fn send_up(&mut self, link: usize, connection: ConnectionId, up: Up) {
        let Some(flow) = self.links[link].flow_of(connection) else { return };
        match self.network.send(self.now, flow, Way::Up, &mut self.rng) {
            Fate::Arrive(at) => self.at(at, Event::Up { link, flow, up }),
            Fate::Reset(at) => self.at(at, Event::Reset { link, flow }),
            Fate::Vanish => {}
        }
    }

    pub(super) fn send_down(&mut self, link: usize, flow: FlowId, down: Down) {
        if let Fate::Arrive(at) = self.network.send(self.now, flow, Way::Down, &mut self.rng) {
            self.at(at, Event::Down { link, flow, down });
        }
    }

    fn on_act(&mut self, act: Act) {
        if !matches!(act, Act::Write { .. }) {
            self.links.iter_mut().for_each(|link| link.model.on_trouble(self.now));
            self.counts.troubles += 1;
            if std::mem::take(&mut self.watch.armed) {
                self.watch.failed = Some(self.now);
            }
        }
        match act {
            Act::Write { link, room, times, every } => {
                self.write(link, room);
                if times > 1 {
                    let again = Act::Write { link, room, times: times - 1, every };
                    self.at(self.now + every, Event::Act(again));
                }
            }
            Act::Unroute { link, device } => {
                self.accounts[link].unroute(device);
                self.tell_unrouted(link);
            }
            Act::Lose { link, path } => {
                for (connection, flow) in self.links[link].flows() {
                    self.network.spoil(flow, path);
                    self.links[link].model.on_broken(self.now, connection);
                }
            }
            Act::LosePool { link, path } => {
                for flow in self.links[link].idle.clone() {
                    self.network.spoil(flow, path);
                }
                if self.watch.of_pool && !self.dead_in_pool() {
                    self.watch.noticed = self.watch.failed;
                }
            }
            Act::Move { host, old } => self.move_away(host, old),
            Act::Renew { host, within } => {
                self.network.expire(host, self.now + within);
                self.at(self.now + within, Event::Trouble);
                self.shut_all(host, Duration::from_secs(5), 1001);
            }
            Act::Recycle { notice, down, silent, forgets } => {
                if let Some(notice) = notice {
                    (0..self.links.len()).for_each(|link| self.drain(link, notice));
                    return;
                }
                self.network.down(Host::Socket, self.now + down, silent);
                self.at(self.now + down, Event::Trouble);
                if silent {
                    // They went without a word.
                    for link in 0..self.links.len() {
                        for (connection, flow) in self.links[link].flows() {
                            self.network.spoil(flow, Path::Hole);
                            self.accounts[link].gone(flow);
                            self.links[link].model.on_broken(self.now, connection);
                        }
                    }
                } else {
                    self.shut_all(Host::Socket, Duration::from_millis(50), 1001);
                }
                if forgets {
                    self.accounts.iter_mut().for_each(Account::forget_devices);
                    (0..self.links.len()).for_each(|link| self.tell_unrouted(link));
                }
            }
            Act::Drain { link, after } => self.drain(link, after),
            Act::Down { host, time, silent } => {
                self.network.down(host, self.now + time, silent);
                self.at(self.now + time, Event::Trouble);
            }
            Act::Slow { host, time, by } => {
                self.network.slow(host, self.now + time, by);
                self.at(self.now + time, Event::Trouble);
            }
            Act::Stall { host, time } => {
                self.network.stall(host, self.now + time);
                self.at(self.now + time, Event::Trouble);
            }
            Act::Evict { link } => {
                let flows: Vec<_> = self.links[link].flows();
                for (_, flow) in flows {
                    self.shut(link, flow, 4000);
                }
            }
            Act::Bar { link, time } => {
                self.accounts[link].barred_until = self.now + time;
                for (_, flow) in self.links[link].flows() {
                    self.shut(link, flow, 4401);
                }
            }
            Act::Busy { link, time } => self.accounts[link].busy_until = self.now + time,
            Act::BotGone { link, time } => self.send_bot_away(link, time),
            Act::Renewal { link } => self.input(link, Input::Renew),
            Act::Probing { link } => self.input(link, Input::Probe),
            Act::Pause { link, time } => {
                self.input(link, Input::Stop);
                self.at(self.now + time, Event::Resume { link });
            }
        }
    }

    /// The model learns what events do not find any more.
    fn tell_unrouted(&mut self, link: usize) {
        for (connection, flow) in self.links[link].open_flows() {
            if !self.accounts[link].will_route(flow) {
                self.links[link].model.on_unrouted(self.now, connection);
            }
        }
    }

    fn move_away(&mut self, host: Host, old: Option<Path>) {
        self.network.move_away(self.now, host, &mut self.rng);
        let late = self.script.setup.manner.dns_ttl;
        self.at(self.now + late, Event::Trouble);
        match (old, host) {
            (Some(Path::Over), _) => self.shut_all(host, Duration::from_millis(50), 1006),
            (None, Host::Socket) => {
                for link in 0..self.links.len() {
                    self.accounts[link].unroute(false);
                    self.tell_unrouted(link);
                }
            }
            (path, _) => {
                for flow in self.network.to(host) {
                    self.network.spoil(flow, path.unwrap_or(Path::Hole));
                }
                for link in 0..self.links.len() {
                    for (connection, flow) in self.links[link].flows() {
                        if self.network.path(flow) != Path::Good {
                            self.links[link].model.on_broken(self.now, connection);
                            self.accounts[link].gone(flow);
                        }
                    }
                }
            }
        }
    }

    /// The service closes every connection to this host, each within this time.
    fn shut_all(&mut self, host: Host, within: Duration, code: u16) {
        for link in 0..self.links.len() {
            let flows = match host {
                Host::Socket => self.links[link].flows().into_iter().map(|it| it.1).collect(),
                Host::Api => self.links[link].idle.clone(),
            };
            for flow in flows {
                let at = self.now + up_to(&mut self.rng, within);
                self.at(at, Event::Shut { link, flow, code });
            }
        }
    }

    fn drain(&mut self, link: usize, after: Duration) {
        for (_, flow) in self.links[link].open_flows() {
            self.send_down(link, flow, Down::Draining);
            self.at(self.now + after, Event::Shut { link, flow, code: 4001 });
        }
        self.at(self.now + after, Event::Trouble);
    }

    /// The service closes one.
    fn shut(&mut self, link: usize, flow: FlowId, code: u16) {
        self.accounts[link].gone(flow);
        if self.links[link].idle.contains(&flow) {
            self.network.spoil(flow, Path::Over);
            self.lose_idle(link, flow);
        } else {
            self.send_down(link, flow, Down::Close(code));
        }
        if let Some(connection) = self.links[link].connection_of(flow) {
            self.links[link].model.on_broken(self.now, connection);
        }
    }

    /// From now on all is well, with those who behaved badly too.
    fn calm(&mut self) {
        self.say(|| "from now on all is well".to_owned());
        self.network.mend(self.now);
        for link in 0..self.links.len() {
            self.accounts[link].barred_until = Time::ZERO;
            self.accounts[link].busy_until = Time::ZERO;
            self.links[link].model.on_trouble(self.now);
            self.call_bot_back(link);
        }
    }

    /// Attempts were never more than the budget allows, in any time.
    fn check_budget(&self) {
        let (per_second, burst) = self.script.setup.budget;
        for (index, from) in self.attempts.iter().enumerate() {
            for (count, at) in self.attempts[index..].iter().enumerate().take(100) {
                let micros = u64::try_from(at.since(*from).as_micros()).unwrap_or(u64::MAX);
                let late = u64::try_from(self.script.setup.late.as_micros()).unwrap_or(u64::MAX);
                let refilled = (micros + late).saturating_mul(per_second.into()) / 1_000_000;
                let allowed = u64::from(burst) + refilled + 1;
                assert!((count as u64) < allowed, "{} attempts in {micros} µs", count + 1);
            }
        }
    }

    fn finish(&mut self) {
        for link in &self.links {
            self.counts.proofs += u64::from(link.model.proofs);
            self.counts.probes += u64::from(link.model.probed);
        }
    }

    pub(super) fn at(&mut self, at: Time, event: Event) {
        self.order += 1;
        self.events.insert((at, self.order), event);
    }

    pub(super) fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace(format!("{:?} {}", self.now, line()));
        }
    }
}
