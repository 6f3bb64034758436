//! What is to be measured: what was asked for, and what that means.

use std::time::Duration;

use crate::error::Error;

/// What sessions do while they are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Each sends an event and awaits its return, or its ack.
    Echo,
    /// One sends what all receive.
    Broadcast,
    /// In each room one sends what the room receives.
    Rooms,
    /// Nothing.
    Idle,
    /// They join.
    Join,
}

impl Workload {
    /// Its name in commands and results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Broadcast => "broadcast",
            Self::Rooms => "rooms",
            Self::Idle => "idle",
            Self::Join => "join",
        }
    }
}

/// What carries the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Socket.IO 5 over Engine.IO 4, WebSocket from the start.
    WebSocket,
    /// The same over HTTP long-polling.
    Polling,
    /// Polling, then upgraded to WebSocket, as clients do by default.
    Upgrade,
    /// As many bytes as on a WebSocket, but no protocol: all that arrives is counted by its length.
    Raw,
}

impl Wire {
    /// Its name in commands and results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Polling => "polling",
            Self::Upgrade => "upgrade",
            Self::Raw => "raw",
        }
    }

    /// Connections that a session has at its busiest.
    pub(crate) fn connections(self) -> u64 {
        match self {
            Self::WebSocket | Self::Raw => 1,
            Self::Polling => 2,
            Self::Upgrade => 3,
        }
    }
}

/// What was asked for. What is absent is as the workload has it.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// The processes of the server; none: whoever listens there.
    pub pids: Vec<u32>,
    /// What carries the packets; default: WebSocket.
    pub wire: Option<Wire>,
    /// How many sessions.
    pub sessions: Option<usize>,
    /// The namespace that they join.
    pub namespace: Option<String>,
    /// echo: how many events are sent.
    pub messages: Option<usize>,
    /// broadcast, rooms: how many times one sends to all.
    pub rounds: Option<usize>,
    /// broadcast, rooms: events that are sent at once.
    pub burst: Option<usize>,
    /// rooms: how many.
    pub rooms: Option<usize>,
    /// echo: events of a session that may be on their way.
    pub window: Option<usize>,
    /// Length of the text, or of the attachment, that an event carries.
    pub bytes: Option<usize>,
    /// Whether events carry an attachment instead of a text.
    pub binary: bool,
    /// echo: whether an ack is awaited instead of the event.
    pub ack: bool,
    /// Sessions that join at once.
    pub parallel: Option<usize>,
    /// Events a second over all sessions, sent on a schedule, whatever comes back.
    pub rate: Option<f64>,
    /// How long; with a rate, and for idle.
    pub duration: Option<Duration>,
}

/// What will be measured.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) workload: Workload,
    pub(crate) wire: Wire,
    pub(crate) sessions: usize,
    pub(crate) namespace: String,
    pub(crate) messages: usize,
    pub(crate) rounds: usize,
    pub(crate) burst: usize,
    /// How many groups of sessions there are, each of which receives what one of it sends.
    pub(crate) groups: usize,
    pub(crate) window: usize,
    pub(crate) bytes: usize,
    pub(crate) binary: bool,
    pub(crate) ack: bool,
    pub(crate) parallel: usize,
    pub(crate) rate: Option<f64>,
    pub(crate) duration: Duration,
}

impl Plan {
    /// Fills in what the workload says, and refuses what has no meaning in it.
    pub(crate) fn new(workload: Workload, wishes: &Wishes) -> Result<Self, Error> {
        refuse_what_means_nothing(workload, wishes)?;
        let at_least_one = |name: &str, wish: Option<usize>, default: usize| match wish {
            Some(0) => Err(Error::usage(format!("{name} must be at least 1"))),
            wish => Ok(wish.unwrap_or(default)),
        };
        let rooms = at_least_one("--rooms", wishes.rooms, 100)?;
        let (sessions, namespace) = match workload {
            Workload::Echo => (100, "/"),
            Workload::Broadcast => (1000, "/relay"),
            Workload::Rooms => (rooms.saturating_mul(100), "/rooms"),
            Workload::Idle => (10_000, "/"),
            Workload::Join => (5000, "/"),
        };
        let plan =
            Self {
                workload,
                wire: wishes.wire.unwrap_or(Wire::WebSocket),
                sessions: at_least_one("--sessions", wishes.sessions, sessions)?,
                namespace: wishes.namespace.clone().unwrap_or_else(|| namespace.to_owned()),
                messages: at_least_one("--messages", wishes.messages, 100_000)?,
                rounds: at_least_one("--rounds", wishes.rounds, 200)?,
                burst: at_least_one("--burst", wishes.burst, 1)?,
                groups: if workload == Workload::Rooms { rooms } else { 1 },
                window: at_least_one("--window", wishes.window, 1)?,
                bytes: wishes.bytes.unwrap_or(64),
                binary: wishes.binary,
                ack: wishes.ack,
                parallel: at_least_one("--parallel", wishes.parallel, 64)?,
                rate: wishes.rate,
                duration: wishes
                    .duration
                    .unwrap_or(Duration::from_secs(if wishes.rate.is_some() { 5 } else { 2 })),
            };
        plan.check()?;
        Ok(plan)
    }

    fn check(&self) -> Result<(), Error> {
        if !self.namespace.starts_with('/') || self.namespace.contains([',', '"']) {
            return Err(Error::usage("a namespace begins with /, and / is the main one"));
        }
        if self.groups > self.sessions {
            return Err(Error::usage(format!(
                "{} rooms need as many sessions at least: --sessions {}",
                self.groups, self.groups
            )));
        }
        if self.rate.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
            return Err(Error::usage("--rate must be more than 0"));
        }
        let most = |name: &str, value: usize, most: usize| match value <= most {
            true => Ok(()),
            false => Err(Error::usage(format!("{name} may be {most} at most"))),
        };
        most("--sessions", self.sessions, 1 << 20)?;
        most("--bytes", self.bytes, 1 << 24)?;
        most("--burst", self.burst, 10_000)?;
        most("--window", self.window, 10_000)?;
        if self.rate.is_none() || self.duration <= Duration::from_secs(3600) {
            Ok(())
        } else {
            Err(Error::usage("--seconds may be 3600 at most"))
        }
    }

    /// The sessions of a group: those whose number leaves this rest.
    pub(crate) fn group_of(&self, session: usize) -> usize {
        session % self.groups
    }

    pub(crate) fn group_size(&self, group: usize) -> usize {
        (self.sessions - group).div_ceil(self.groups)
    }
}

/// Refuses what a workload cannot have.
fn refuse_what_means_nothing(workload: Workload, wishes: &Wishes) -> Result<(), Error> {
    use Workload::{Broadcast, Echo, Idle, Rooms};
    let fans = matches!(workload, Broadcast | Rooms);
    let sends = fans || workload == Echo;
    let timed = wishes.rate.is_some();
    for (given, name, good, means) in [
        (
            wishes.messages.is_some(),
            "--messages",
            workload == Echo && !timed,
            "echo without --rate",
        ),
        (wishes.rounds.is_some(), "--rounds", fans && !timed, "broadcast and rooms without --rate"),
        (wishes.burst.is_some(), "--burst", fans, "broadcast and rooms"),
        (wishes.rooms.is_some(), "--rooms", workload == Rooms, "rooms"),
        (wishes.window.is_some(), "--window", workload == Echo && !timed, "echo without --rate"),
        (wishes.bytes.is_some(), "--bytes", sends, "echo, broadcast and rooms"),
        (wishes.binary, "--binary", sends, "echo, broadcast and rooms"),
        (wishes.ack, "--ack", workload == Echo, "echo"),
        (timed, "--rate", sends, "echo, broadcast and rooms"),
        (
            wishes.duration.is_some(),
            "--seconds",
            workload == Idle || timed,
            "idle, and with --rate",
        ),
    ] {
        if given && !good {
            let name_here = workload.name();
            return Err(Error::usage(format!(
                "{name} has no meaning for {name_here} here: it is for {means}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_as_the_workload_has_it() {
        let plan = Plan::new(Workload::Rooms, &Wishes::default()).unwrap();
        assert_eq!((plan.sessions, plan.groups, &*plan.namespace), (10_000, 100, "/rooms"));
        assert_eq!((plan.group_of(205), plan.group_size(5)), (5, 100));
        let wishes = Wishes { sessions: Some(7), rooms: Some(3), ..Wishes::default() };
        let plan = Plan::new(Workload::Rooms, &wishes).unwrap();
        assert_eq!([0, 1, 2].map(|group| plan.group_size(group)), [3, 2, 2]);
    }

    #[test]
    fn what_has_no_meaning_is_refused_with_what_has() {
        for (workload, wishes, told) in [
            (
                Workload::Echo,
                Wishes { rounds: Some(1), ..Wishes::default() },
                "broadcast and rooms",
            ),
            (Workload::Broadcast, Wishes { ack: true, ..Wishes::default() }, "it is for echo"),
            (Workload::Echo, Wishes { sessions: Some(0), ..Wishes::default() }, "at least 1"),
            (
                Workload::Rooms,
                Wishes { sessions: Some(2), rooms: Some(3), ..Wishes::default() },
                "--sessions 3",
            ),
            (Workload::Idle, Wishes { rate: Some(1.0), ..Wishes::default() }, "--rate"),
            (
                Workload::Echo,
                Wishes { rate: Some(1.0), messages: Some(5), ..Wishes::default() },
                "without --rate",
            ),
            (Workload::Echo, Wishes { rate: Some(0.0), ..Wishes::default() }, "more than 0"),
        ] {
            let said = Plan::new(workload, &wishes).unwrap_err().to_string();
            assert!(said.contains(told), "{said}");
        }
    }
}
