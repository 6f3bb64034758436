//! Two hundred links that lose their service at once.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bowline_proto::{
    Time,
    keeper::{
        Budget, Config, ConnectionId, Input, Keeper, Level, OpenFailure, Output, State, Verdict,
    },
};

use super::network::up_to;
use crate::rng::Rng;

/// How a herd is arranged.
#[derive(Debug, Clone)]
pub struct Herd {
    /// Links, all to one host.
    pub links: usize,
    /// When the service goes, with every connection.
    pub lost: Duration,
    /// How long it refuses everybody then.
    pub down: Duration,
    /// How many connections it can open in a second after that; more are refused.
    pub capacity: usize,
    /// How long it is watched.
    pub ends: Duration,
    /// Attempts per second and at once; without a budget every attempt is made as soon as its keeper wants it.
    pub budget: Option<(u32, u32)>,
}

impl Default for Herd {
    fn default() -> Self {
        Self {
            links: 200,
            lost: Duration::from_secs(60),
            down: Duration::from_secs(45),
            capacity: 20,
            ends: Duration::from_secs(300),
            budget: Some((5, 5)),
        }
    }
}

/// What a herd did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stampede {
    /// Attempts to connect in each second.
    pub attempts: Vec<u32>,
    /// Of them refused, since the service was down or had too much to do.
    pub refused: Vec<u32>,
    /// Links that are live at the end of each second.
    pub live: Vec<u32>,
    /// The most attempts in any time of one second.
    pub most_in_a_second: u32,
    /// From the loss until all links were live again.
    pub back_after: Option<Duration>,
}

enum Event {
    Lost,
    Opened(usize, ConnectionId),
    Refused(usize, ConnectionId),
    Pong(usize, ConnectionId),
    Probed(usize, Input),
    Wake(usize),
}

struct Pasture {
    rng: Rng,
    now: Time,
    herd: Herd,
    budget: Option<Budget>,
    keepers: Vec<Keeper>,
    open: Vec<Option<ConnectionId>>,
    events: BTreeMap<(Time, u64), Event>,
    order: u64,
    attempts: Vec<Time>,
    refused: Vec<Time>,
    accepted: VecDeque<Time>,
}

/// Plays it.
pub fn run(seed: u64, herd: &Herd) -> Stampede {
    let mut rng = Rng::new(seed);
    let config = Config::default();
    let keepers = (0..herd.links).map(|_| Keeper::new(config.clone(), rng.word())).collect();
    let mut pasture = Pasture {
        now: Time::ZERO,
        budget: herd.budget.map(|(per_second, burst)| Budget::new(per_second, burst)),
        keepers,
        open: vec![None; herd.links],
        events: BTreeMap::new(),
        order: 0,
        attempts: Vec::new(),
        refused: Vec::new(),
        accepted: VecDeque::new(),
        herd: herd.clone(),
        rng,
    };
    pasture.begin();
    pasture.run()
}

impl Pasture {
    /// All are connected from the start, as if for long.
    fn begin(&mut self) {
        for link in 0..self.keepers.len() {
            // Spread over the time before, so that the beginning is no herd of its own.
            self.at(Time::ZERO, Event::Wake(link));
        }
        let lost = Time::ZERO + self.herd.lost;
        self.at(lost, Event::Lost);
    }

    fn run(mut self) -> Stampede {
        let ends = Time::ZERO + self.herd.ends;
        let seconds = usize::try_from(self.herd.ends.as_secs()).unwrap_or(0);
        let mut live = Vec::new();
        let mut back = None;
        let mut next_second = 1;
        while let Some(((at, _), event)) = self.events.pop_first() {
            while next_second <= seconds
                && at >= Time::ZERO + Duration::from_secs(next_second as u64)
            {
                live.push(self.live());
                next_second += 1;
            }
            if at >= ends {
                break;
            }
            self.now = at;
            self.on_event(event);
            let lost = Time::ZERO + self.herd.lost;
            let all = self.now > lost && self.live() as usize == self.keepers.len();
            if all && back.is_none() {
                back = Some(self.now.since(lost));
            }
        }
        let lost = Time::ZERO + self.herd.lost;
        let after: Vec<_> = self.attempts.iter().copied().filter(|at| *at >= lost).collect();
        Stampede {
            attempts: per_second(&self.attempts, seconds),
            refused: per_second(&self.refused, seconds),
            most_in_a_second: densest(&after),
            live,
            back_after: back,
        }
    }

    fn live(&self) -> u32 {
        let live = self.keepers.iter().filter(|keeper| keeper.state() == State::Live).count();
        u32::try_from(live).unwrap_or(u32::MAX)
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Lost => {
                for link in 0..self.keepers.len() {
                    if let Some(connection) = self.open[link].take() {
                        let words = "the server went away".to_owned();
                        self.input(
                            link,
                            Input::Closed { connection, verdict: Verdict::Again, words },
                        );
                    }
                }
            }
            Event::Opened(link, connection) => {
                self.open[link] = Some(connection);
                self.input(link, Input::Opened { connection });
            }
            Event::Refused(link, connection) => {
                let words = "refused".to_owned();
                let why = OpenFailure { verdict: Verdict::Again, words, retry_after: None };
                self.input(link, Input::OpenFailed { connection, why });
            }
            Event::Pong(link, connection) => {
                if self.open[link] == Some(connection) {
                    self.input(link, Input::Heard { connection, level: Level::Pong });
                }
            }
            Event::Probed(link, input) => self.input(link, input),
            Event::Wake(link) => {
                let keeper = &self.keepers[link];
                if keeper.state() == State::Off {
                    self.input(link, Input::Start);
                } else if keeper.deadline().is_some_and(|(at, _)| at <= self.now) {
                    self.input(link, Input::Timeout);
                }
            }
        }
    }

    fn input(&mut self, link: usize, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.keepers[link].handle_input(self.now, input);
            while let Some(output) = self.keepers[link].poll_output() {
                if let Some(answer) = self.on_output(link, output) {
                    inputs.push_back(answer);
                }
            }
        }
        if let Some((at, _)) = self.keepers[link].deadline() {
            self.at(at.max(self.now), Event::Wake(link));
        }
    }

    fn on_output(&mut self, link: usize, output: Output) -> Option<Input> {
        let delay = Duration::from_millis(20) + up_to(&mut self.rng, Duration::from_millis(60));
        match output {
            Output::Reserve => {
                let before = self.now < Time::ZERO + self.herd.lost;
                // They came one by one, long ago.
                let budget = self.budget.as_mut().filter(|_| !before);
                let at = budget.map_or(self.now, |it| it.reserve(self.now, "service.example"));
                return Some(Input::Slot { at });
            }
            Output::Open { connection, .. } => {
                self.attempts.push(self.now);
                let lost = Time::ZERO + self.herd.lost;
                let down = self.now >= lost && self.now < lost + self.herd.down;
                let second = Duration::from_secs(1);
                while self.accepted.front().is_some_and(|at| self.now.since(*at) >= second) {
                    self.accepted.pop_front();
                }
                let full = self.now >= lost && self.accepted.len() >= self.herd.capacity;
                if down || full {
                    self.refused.push(self.now);
                    self.at(self.now + delay, Event::Refused(link, connection));
                } else {
                    self.accepted.push_back(self.now);
                    self.at(self.now + delay * 4, Event::Opened(link, connection));
                }
            }
            Output::Ping { connection } => self.at(self.now + delay, Event::Pong(link, connection)),
            Output::Probe { connection, probe, .. } => {
                if self.open[link] == Some(connection) {
                    let input = Input::Probed { probe, connection };
                    self.at(self.now + delay * 2, Event::Probed(link, input));
                }
            }
            Output::Ack { .. }
            | Output::Use { .. }
            | Output::Close { .. }
            | Output::CatchUp { .. }
            | Output::Look { .. }
            | Output::RestartService
            | Output::Report(_) => {}
        }
        None
    }

    fn at(&mut self, at: Time, event: Event) {
        self.order += 1;
        self.events.insert((at, self.order), event);
    }
}

fn per_second(times: &[Time], seconds: usize) -> Vec<u32> {
    let mut counts = vec![0; seconds];
    for at in times {
        let second = usize::try_from(at.as_micros() / 1_000_000).unwrap_or(usize::MAX);
        if let Some(count) = counts.get_mut(second) {
            *count += 1;
        }
    }
    counts
}

/// The most of them in any time of one second.
fn densest(times: &[Time]) -> u32 {
    let mut most = 0;
    let mut first = 0;
    for (index, at) in times.iter().enumerate() {
        while at.since(times[first]) >= Duration::from_secs(1) {
            first += 1;
        }
        most = most.max(index + 1 - first);
    }
    u32::try_from(most).unwrap_or(u32::MAX)
}
