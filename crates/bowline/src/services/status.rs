//! What is told of a service: over the API, on a terminal, to the gateway.

use std::collections::BTreeMap;

use bowline_fleet::{
    plan::{ProcessView, Reason, State, View},
    probe::{Finding, Progress},
};
use bowline_proto::Time;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    api::Restarts,
    config::{Config, Service},
};

/// A process beside the server, or what should be one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ServiceStatus {
    #[schema(example = "api")]
    pub(crate) name: String,
    /// `stopped`, `waiting` for services that it needs, `backing-off`, `starting`, `ready`, `not-ready`,
    /// `stopping`, `crash-loop`, `failed` or `completed`; docs/services.md says what each means.
    #[schema(example = "ready")]
    pub(crate) state: String,
    /// When it came into this state.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) since: Timestamp,
    /// More about the state: why it waits, died or is in a crash loop.
    pub(crate) text: Option<String>,
    /// Whether `/health/ready` waits for it.
    pub(crate) required: bool,
    /// Its process; null while there is none.
    pub(crate) pid: Option<u32>,
    /// When that was started.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) started: Option<Timestamp>,
    /// Whether a server had started it that died.
    pub(crate) adopted: bool,
    /// What runs it, and why that was chosen.
    pub(crate) interpreter: Option<String>,
    /// What it says of itself by sd_notify.
    pub(crate) says: Option<String>,
    /// What is awaited while it is not ready.
    #[schema(example = "http http://127.0.0.1:5000/health: starting, 40 %")]
    pub(crate) awaited: Option<String>,
    /// How far it says that its start is, 0 to 1.
    pub(crate) progress: Option<f64>,
    /// The last question to it, and what came of it.
    pub(crate) last_check: Option<CheckStatus>,
    /// How many starts it took to be ready, or has taken until now.
    pub(crate) attempts: u32,
    /// How long the last start took until it was ready.
    pub(crate) ready_seconds: Option<f64>,
    pub(crate) restarts: Restarts,
    /// How it ended last, in words.
    #[schema(example = "killed by signal 9")]
    pub(crate) last_end: Option<String>,
    /// Its last ends, the oldest first.
    pub(crate) ends: Vec<EndStatus>,
    /// When it is tried next, while it waits for that.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) next_attempt: Option<Timestamp>,
    /// What it needs.
    pub(crate) needs: Vec<NeedStatus>,
    /// The process that is to follow it, during a restart with `overlap`.
    pub(crate) candidate: Option<CandidateStatus>,
}

/// A question to a service, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct CheckStatus {
    /// `startup`, `ready` or `live`.
    pub(crate) phase: String,
    /// What was asked.
    #[schema(example = "tcp 127.0.0.1:5000")]
    pub(crate) check: String,
    /// `ready`, `refused`, `deaf` if it accepts and says nothing, `starting` or `failed`.
    #[schema(example = "refused")]
    pub(crate) result: String,
    /// What was seen.
    pub(crate) text: Option<String>,
    /// How long it took.
    pub(crate) seconds: f64,
    #[schema(value_type = String, format = DateTime)]
    pub(crate) at: Timestamp,
    /// How many questions that makes since its start.
    pub(crate) count: u64,
}

/// An end of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct EndStatus {
    #[schema(value_type = String, format = DateTime)]
    pub(crate) at: Timestamp,
    /// How.
    #[schema(example = "exited with code 1")]
    pub(crate) end: String,
    /// The last lines it wrote, the oldest first.
    pub(crate) lines: Vec<String>,
}

/// What a service needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct NeedStatus {
    pub(crate) service: String,
    pub(crate) state: String,
    /// Whether that is as far as it must be.
    pub(crate) met: bool,
}

/// A process that is to follow another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct CandidateStatus {
    pub(crate) pid: Option<u32>,
    #[schema(value_type = String, format = DateTime)]
    pub(crate) started: Timestamp,
    pub(crate) ready: bool,
    pub(crate) interpreter: Option<String>,
}

impl ServiceStatus {
    /// What the crew says. `wall` tells points of its time by the system's clock.
    pub(crate) fn of(view: &View, required: bool, wall: &dyn Fn(Time) -> Timestamp) -> Self {
        let stable = view.stable.as_ref();
        let process = |process: &ProcessView| CandidateStatus {
            pid: process.pid,
            started: begun(process, wall),
            ready: process.ready,
            interpreter: process.interpreter.clone(),
        };
        let by_reason: BTreeMap<String, u64> = (view.restarts.iter())
            .map(|(reason, times)| (reason.name().to_owned(), *times))
            .collect();
        let ends: Vec<EndStatus> = (view.ends.iter())
            .map(|end| EndStatus {
                at: wall(end.at),
                end: end.words.clone(),
                lines: end.lines.clone(),
            })
            .collect();
        Self {
            name: view.name.clone(),
            state: view.state.name().to_owned(),
            since: wall(view.since),
            text: view.words.clone(),
            required,
            pid: stable.and_then(|process| process.pid),
            started: stable.map(|process| begun(process, wall)),
            adopted: stable.is_some_and(|process| process.adopted),
            interpreter: stable.and_then(|process| process.interpreter.clone()),
            says: stable.and_then(|process| process.status.clone()),
            awaited: view.awaited.as_ref().map(|awaited| awaited.words.clone()),
            progress: view.awaited.as_ref().and_then(|awaited| share(awaited.progress?)),
            last_check: view.checked.as_ref().map(|checked| {
                let (result, text) = finding(&checked.finding);
                CheckStatus {
                    phase: checked.phase.name().to_owned(),
                    check: checked.check.clone(),
                    result: result.to_owned(),
                    text: text.map(str::to_owned),
                    seconds: checked.took.as_secs_f64(),
                    at: wall(checked.at),
                    count: checked.count,
                }
            }),
            attempts: view.attempts,
            ready_seconds: view.ready_after.map(|after| after.as_secs_f64()),
            restarts: Restarts { total: by_reason.values().sum(), by_reason },
            last_end: ends.last().map(|end| end.end.clone()),
            ends,
            next_attempt: view.next_try.map(wall),
            needs: (view.needs.iter())
                .map(|need| NeedStatus {
                    service: need.service.clone(),
                    state: need.state.name().to_owned(),
                    met: need.met,
                })
                .collect(),
            candidate: view.candidate.as_ref().map(process),
        }
    }

    /// What is so of a service that nobody has begun with.
    pub(crate) fn unborn(name: &str, service: &Service, since: Timestamp) -> Self {
        Self {
            name: name.to_owned(),
            state: State::Waiting.name().to_owned(),
            since,
            text: Some("the server is starting".to_owned()),
            required: service.required,
            pid: None,
            started: None,
            adopted: false,
            interpreter: None,
            says: None,
            awaited: None,
            progress: None,
            last_check: None,
            attempts: 0,
            ready_seconds: None,
            restarts: Restarts::default(),
            last_end: None,
            ends: Vec::new(),
            next_attempt: None,
            needs: Vec::new(),
            candidate: None,
        }
    }

    /// All services of a configuration before anybody has begun with them.
    pub(crate) fn all_unborn(config: &Config, since: Timestamp) -> Vec<Self> {
        let services = config.services.0.iter();
        services.map(|(name, service)| Self::unborn(name, service, since)).collect()
    }

    /// The state, if this version knows it.
    pub(crate) fn known_state(&self) -> Option<State> {
        State::ALL.into_iter().find(|state| state.name() == self.state)
    }

    /// How often it was started again for this.
    pub(crate) fn restarts_by(&self, reason: Reason) -> u64 {
        self.restarts.by_reason.get(reason.name()).copied().unwrap_or_default()
    }

    /// What there is to say beside the state, in a line; nothing if all is well.
    pub(crate) fn words(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        let well = matches!(self.known_state(), Some(State::Ready | State::Completed));
        parts.extend(self.text.clone());
        if let Some(awaited) = self.awaited.as_ref().filter(|_| !well) {
            parts.push(awaited.clone());
        }
        if let Some(percent) = self.progress.filter(|_| !well && self.awaited.is_none()) {
            parts.push(format!("{:.0} %", percent * 100.0));
        }
        let told = |says: &&String| parts.iter().any(|part| part.contains(says.as_str()));
        if let Some(says) = self.says.as_ref().filter(|says| !well && !told(says)) {
            parts.push(format!("it says \"{says}\""));
        }
        parts.join("; ")
    }
}

/// The services that are not as they should be, in one line for the service manager; `None` if all are.
pub(crate) fn awaited(services: &[ServiceStatus]) -> Option<String> {
    let parts: Vec<String> = (services.iter())
        .filter(|service| {
            !matches!(service.known_state(), Some(State::Ready | State::Completed | State::Stopped))
        })
        .map(|service| match service.words() {
            words if words.is_empty() => format!("{} {}", service.name, service.state),
            words => format!("{} {} ({words})", service.name, service.state),
        })
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn begun(process: &ProcessView, wall: &dyn Fn(Time) -> Timestamp) -> Timestamp {
    let since = wall(process.since);
    since.checked_sub(process.before).unwrap_or(since)
}

fn share(progress: Progress) -> Option<f64> {
    match progress {
        Progress::Percent(percent) => Some(f64::from(percent) / 100.0),
        Progress::Parts { of: 0, .. } => None,
        Progress::Parts { done, of } => Some((f64::from(done) / f64::from(of)).min(1.0)),
    }
}

fn finding(finding: &Finding) -> (&'static str, Option<&str>) {
    match finding {
        Finding::Ready => ("ready", None),
        Finding::Refused => ("refused", None),
        Finding::Deaf => ("deaf", None),
        Finding::Starting { words, .. } => ("starting", Some(words)),
        Finding::Failed { words } => ("failed", Some(words)),
    }
}
