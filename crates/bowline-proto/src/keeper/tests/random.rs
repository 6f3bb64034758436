//! What holds whatever happens.

use std::{collections::BTreeSet, time::Duration};

use proptest::{collection::vec, prelude::*};

use super::super::{
    Config, ConnectionId, Input, Keeper, Level, OpenFailure, Output, ProbeId, ProbeOutcome, Report,
    State, Verdict,
};
use crate::Time;

/// A keeper among people who say anything, and what is known of its connections by what it and they said.
struct World {
    keeper: Keeper,
    now: Time,
    /// Asked for, and neither open nor given up.
    opening: BTreeSet<u64>,
    open: BTreeSet<u64>,
    /// Ended by themselves: their things at the service may be discarded once.
    ended: BTreeSet<u64>,
    /// Not heard of again.
    gone: BTreeSet<u64>,
    connections: u64,
    probes: u64,
    probes_told: u64,
    /// What a service would answer, once it is a good one.
    answers: Vec<Input>,
    /// All that came out.
    log: Vec<Output>,
}

/// Something that happens.
#[derive(Debug, Clone)]
enum Step {
    /// An input, about one of the last connections or round trips.
    Give(Kind, u64),
    Pass(Duration),
    /// Time passes to what is due next.
    Due,
    /// The service answers what it was asked, or time passes to what is due.
    Serve,
}

#[derive(Debug, Clone)]
enum Kind {
    Start,
    Stop,
    Slot(Duration),
    Opened,
    OpenFailed(Verdict, Option<Duration>),
    Closed(Verdict),
    Heard(Level),
    Arrived,
    Missed,
    Probed,
    NotProbed,
    Draining,
    HandedOver,
    Sending,
    Handled,
    Unhandled,
    Probe,
    Renew,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn nothing_that_is_said_breaks_a_keeper(
        config in config(),
        seed in any::<u64>(),
        steps in vec(step(), 1..250),
    ) {
        let mut world = World::new(config.clone(), seed);
        world.give(Input::Start)?;
        for step in &steps {
            world.step(step)?;
        }
        // From now on the service is a good one, and patience is rewarded.
        world.give(Input::Start)?;
        let end = world.now + Duration::from_secs(2 * 3600);
        while !world.is_well() {
            prop_assert!(world.now < end, "{:?}", world.keeper);
            world.serve()?;
        }
        prop_assert!(world.probes - world.probes_told <= 1, "one that nobody was told of");
        prop_assert_eq!(world.keeper.connection().map(|(id, ..)| id.0), world.open.first().copied());

        let mut again = World::new(config, seed);
        again.give(Input::Start)?;
        for step in &steps {
            again.step(step)?;
        }
        prop_assert!(world.log.starts_with(&again.log));
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn a_quiet_day_has_few_round_trips_and_no_doubts(seed in any::<u64>()) {
        let mut world = World::new(Config::default(), seed);
        world.give(Input::Start)?;
        let end = Time::ZERO + Duration::from_secs(24 * 3600);
        while world.now < end {
            world.serve()?;
        }
        prop_assert!(world.probes <= 150, "{}", world.probes);
        prop_assert!(world.connections <= 4);
        let in_doubt = world.log.iter().any(|output| match output {
            Output::Report(Report::State { state, .. }) => *state == State::Suspect,
            _ => false,
        });
        prop_assert!(!in_doubt);
    }
}

impl World {
    fn new(config: Config, seed: u64) -> Self {
        Self {
            keeper: Keeper::new(config, seed),
            now: Time::from_micros(1_000_000),
            opening: BTreeSet::new(),
            open: BTreeSet::new(),
            ended: BTreeSet::new(),
            gone: BTreeSet::new(),
            connections: 0,
            probes: 0,
            probes_told: 0,
            answers: Vec::new(),
            log: Vec::new(),
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Pass(time) => {
                self.now += *time;
                self.give(Input::Timeout)
            }
            Step::Due => {
                self.now = self.keeper.deadline().map_or(self.now, |(at, _)| at);
                self.give(Input::Timeout)
            }
            Step::Serve => self.serve(),
            Step::Give(kind, back) => self.give(self.input(kind, *back)),
        }
    }

    /// The input, about the connection or round trip that is so far back, or about one that will be.
    fn input(&self, kind: &Kind, back: u64) -> Input {
        let connection = ConnectionId((self.connections + 1).saturating_sub(back));
        let probe = ProbeId((self.probes + 1).saturating_sub(back));
        let words = String::new();
        match kind.clone() {
            Kind::Start => Input::Start,
            Kind::Stop => Input::Stop,
            Kind::Slot(after) => Input::Slot { at: self.now + after },
            Kind::Opened => Input::Opened { connection },
            Kind::OpenFailed(verdict, retry_after) => {
                Input::OpenFailed { connection, why: OpenFailure { verdict, words, retry_after } }
            }
            Kind::Closed(verdict) => Input::Closed { connection, verdict, words },
            Kind::Heard(level) => Input::Heard { connection, level },
            Kind::Arrived => Input::Arrived { connection },
            Kind::Missed => Input::Missed,
            Kind::Probed => Input::Probed { probe, connection },
            Kind::NotProbed => Input::NotProbed { probe, words },
            Kind::Draining => Input::Draining { connection },
            Kind::HandedOver => Input::HandedOver,
            Kind::Sending => Input::Sending,
            Kind::Handled => Input::Handled,
            Kind::Unhandled => Input::Unhandled,
            Kind::Probe => Input::Probe,
            Kind::Renew => Input::Renew,
        }
    }

    /// Gives all answers of a good service, or lets time pass to what is due.
    fn serve(&mut self) -> Result<(), TestCaseError> {
        if self.answers.is_empty() {
            // What was opened while nobody answered well is answered now.
            if let Some(id) = self.opening.first().copied() {
                return self.give(Input::Opened { connection: ConnectionId(id) });
            }
            return self.step(&Step::Due);
        }
        for answer in std::mem::take(&mut self.answers) {
            self.give(answer)?;
        }
        Ok(())
    }

    fn is_well(&self) -> bool {
        self.keeper.state() == State::Live && self.open.len() == 1 && self.opening.is_empty()
    }

    fn give(&mut self, input: Input) -> Result<(), TestCaseError> {
        match &input {
            Input::Opened { connection } if self.opening.remove(&connection.0) => {
                self.open.insert(connection.0);
            }
            Input::OpenFailed { connection, .. } if self.opening.remove(&connection.0) => {
                self.gone.insert(connection.0);
            }
            Input::Closed { connection, .. }
                if self.opening.remove(&connection.0) || self.open.remove(&connection.0) =>
            {
                self.ended.insert(connection.0);
            }
            _ => (),
        }
        self.keeper.handle_input(self.now, input);
        while let Some(output) = self.keeper.poll_output() {
            self.check(&output)?;
            self.log.push(output);
        }
        prop_assert!(self.open.len() <= 2, "{:?}", self.open);
        prop_assert!((self.probes_told..=self.probes_told + 2).contains(&self.probes));
        match self.keeper.deadline() {
            None => prop_assert_eq!(self.keeper.state(), State::Off),
            Some((at, timer)) => {
                prop_assert!(at > self.now, "{timer:?} is left over");
                prop_assert_ne!(self.keeper.state(), State::Off);
            }
        }
        if self.keeper.state() == State::Off {
            prop_assert!(self.open.is_empty() && self.opening.is_empty());
        }
        let in_use = self.keeper.connection().map(|(id, ..)| id.0);
        prop_assert!(in_use.is_none_or(|id| self.open.contains(&id)));
        Ok(())
    }

    fn check(&mut self, output: &Output) -> Result<(), TestCaseError> {
        match output {
            Output::Open { connection, .. } => {
                prop_assert!(self.opening.is_empty(), "two are under way");
                prop_assert!(self.open.len() <= 1, "there would be three");
                self.connections += 1;
                prop_assert_eq!(connection.0, self.connections);
                self.opening.insert(connection.0);
                self.answers.push(Input::Opened { connection: *connection });
            }
            Output::Ping { connection } => {
                prop_assert!(self.open.contains(&connection.0));
                self.answers.push(Input::Heard { connection: *connection, level: Level::Pong });
            }
            Output::Ack { connection } => {
                prop_assert!(self.open.contains(&connection.0));
                self.answers.push(Input::Heard { connection: *connection, level: Level::Ack });
            }
            Output::Probe { connection, probe, .. } => {
                prop_assert!(self.open.contains(&connection.0));
                self.probes += 1;
                prop_assert_eq!(probe.0, self.probes);
                self.answers.push(Input::Probed { probe: *probe, connection: *connection });
            }
            Output::Use { connection } => prop_assert!(self.open.contains(&connection.0)),
            Output::Close { connection, discard, .. } => {
                let id = connection.0;
                let was = self.opening.remove(&id) || self.open.remove(&id);
                prop_assert!(was || *discard && self.ended.remove(&id), "{id} was given up before");
                prop_assert!(self.gone.insert(id), "{id} was given up before");
            }
            Output::CatchUp { since } | Output::Look { since } => prop_assert!(*since <= self.now),
            Output::Reserve => self.answers.push(Input::Slot { at: self.now }),
            Output::RestartService => (),
            Output::Report(Report::Probe { outcome, .. }) => match outcome {
                ProbeOutcome::Impossible(_) => (),
                ProbeOutcome::Ok | ProbeOutcome::Lost | ProbeOutcome::NotMade(_) => {
                    self.probes_told += 1
                }
            },
            Output::Report(_) => (),
        }
        Ok(())
    }
}

fn step() -> impl Strategy<Value = Step> {
    let soon = (0..3_000_u64).prop_map(Duration::from_millis);
    let late = (0..20_000_u64).prop_map(Duration::from_secs);
    prop_oneof![
        5 => (kind(), 0..4_u64).prop_map(|(kind, back)| Step::Give(kind, back)),
        2 => soon.prop_map(Step::Pass),
        1 => late.prop_map(Step::Pass),
        2 => Just(Step::Due),
        9 => Just(Step::Serve),
    ]
}

fn kind() -> impl Strategy<Value = Kind> {
    let verdict = || {
        proptest::sample::select(vec![
            Verdict::Again,
            Verdict::Elsewhere,
            Verdict::Replaced,
            Verdict::Unauthorized,
            Verdict::Refused,
        ])
    };
    let pause = || (0..100_u64).prop_map(Duration::from_secs);
    prop_oneof![
        1 => Just(Kind::Start),
        1 => Just(Kind::Stop),
        6 => pause().prop_map(Kind::Slot),
        8 => Just(Kind::Opened),
        2 => (verdict(), proptest::option::of(pause())).prop_map(|(verdict, after)| Kind::OpenFailed(verdict, after)),
        3 => verdict().prop_map(Kind::Closed),
        4 => proptest::sample::select(Level::ALL.to_vec()).prop_map(Kind::Heard),
        2 => Just(Kind::Arrived),
        2 => Just(Kind::Missed),
        8 => Just(Kind::Probed),
        2 => Just(Kind::NotProbed),
        2 => Just(Kind::Draining),
        1 => Just(Kind::HandedOver),
        1 => Just(Kind::Sending),
        1 => Just(Kind::Handled),
        1 => Just(Kind::Unhandled),
        1 => Just(Kind::Probe),
        2 => Just(Kind::Renew),
    ]
}

fn config() -> impl Strategy<Value = Config> {
    let quick = Config {
        max_age: Duration::from_secs(60),
        overlap: Duration::from_secs(9),
        refused_pause: Duration::ZERO,
        backoff_first: Duration::ZERO,
        backoff_reset: Duration::ZERO,
        ping_interval: Some(Duration::ZERO),
        probe_timeout: Duration::ZERO,
        look_interval: Some(Duration::ZERO),
        probe_interval: Some(Duration::from_secs(20)..=Duration::from_secs(20)),
        ..Config::default()
    };
    let acks = Config { ack_interval: Some(Duration::from_secs(15)), ..Config::default() };
    let restarts = Config {
        service_after: Some(0),
        look_interval: Some(Duration::from_secs(60)),
        ..Config::default()
    };
    proptest::sample::select(vec![
        Config::default(),
        Config { probe_interval: None, ..acks.clone() },
        Config { probe_interval: None, ..Config::default() },
        Config { ping_interval: None, ..Config::default() },
        acks,
        restarts,
        Config {
            ping_interval: Some(Duration::from_secs(10)),
            probe_timeout: Duration::from_secs(5),
            ..quick
        },
    ])
}
