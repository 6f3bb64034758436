//! How links are, as the API, metrics and `/health/ready` tell it.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use bowline_link::{
    StoreView,
    view::{Figures, View},
};
use bowline_names::Metric;
use bowline_net::{ComponentState, ComponentView};
use bowline_proto::keeper::{Level, ProbeCause, Reason, Rung, State};
use bowline_store::{Gone, Parked, Step};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    clock::unix_ms,
    metrics::{Sample, Value},
};

/// Outcomes of routing round trips, as they are counted.
const PROBES: [&str; 3] = ["ok", "lost", "not-made"];

/// Outcomes of requests over the HTTP leg.
const REQUESTS: [&str; 3] = ["ok", "retried", "failed"];

/// How a link is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct LinkStatus {
    /// Its name in `[links]`.
    #[schema(example = "barnacles")]
    pub(crate) name: String,
    /// `webex`, `socketio` or `websocket`.
    #[schema(example = "webex")]
    pub(crate) profile: String,
    /// The service's host.
    #[schema(example = "u2c.wbx2.com")]
    pub(crate) host: String,
    /// `off`, `waiting`, `connecting`, `proving`, `live`, `suspect`, `replaced` or `refused`.
    #[schema(example = "live")]
    pub(crate) state: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) since: Timestamp,
    /// Why, for people; may be empty.
    pub(crate) text: String,
    /// What somebody can do about it; empty if there is nothing to do.
    #[serde(default)]
    pub(crate) advice: String,
    /// When the next attempt to connect is made, if one is waited for.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) next_attempt: Option<Timestamp>,
    /// The levels that the link has, the lowest first: `tcp`, `pong`, `ack`, `routing`, `handled`.
    pub(crate) levels: Vec<LevelStatus>,
    /// The connection in use; null if there is none.
    pub(crate) connection: Option<ConnectionStatus>,
    /// The last routing round trip that has ended; null if there was none.
    pub(crate) last_probe: Option<LastProbe>,
    /// When the next routing round trip is due.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) next_probe: Option<Timestamp>,
    /// When the connection is renewed at the latest.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) renewal: Option<Timestamp>,
    pub(crate) bot: BotStatus,
    pub(crate) messages: MessageStatus,
    /// What was counted since the start of the gateway.
    pub(crate) figures: FigureStatus,
}

/// How long ago a level was proved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct LevelStatus {
    #[schema(example = "routing")]
    pub(crate) level: String,
    /// Seconds since the last proof; null if there was none yet.
    #[schema(example = 42.0)]
    pub(crate) age_seconds: Option<f64>,
}

/// How a routing round trip ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct LastProbe {
    /// `ok`, `lost` or `not-made`.
    #[schema(example = "ok")]
    pub(crate) outcome: String,
    /// Why it was made, as in `figures.probes`.
    #[schema(example = "interval")]
    pub(crate) cause: String,
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) at: Timestamp,
    /// Why it could not be made; else empty.
    pub(crate) text: String,
}

/// A connection to the service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ConnectionStatus {
    /// Its number; the first one has 1.
    pub(crate) number: u64,
    /// Since when it is open.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) since: Timestamp,
    /// Whether the one before it is open still.
    pub(crate) overlapping: bool,
}

/// The bot's side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct BotStatus {
    /// Connections of the bot; 1 for an app behind HTTP that answers.
    pub(crate) connections: usize,
    /// Whether no bot can come in, since the loopback proxy is not served.
    #[serde(default)]
    pub(crate) locked_out: bool,
    #[schema(example = "1 bot over the proxy for 3h")]
    pub(crate) text: String,
}

/// Messages in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct MessageStatus {
    /// Not confirmed by the bot yet.
    pub(crate) waiting: u64,
    /// Put aside: offered as often as they may be, or refused by the bot.
    pub(crate) parked: u64,
    /// When the oldest that waits arrived.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) oldest: Option<Timestamp>,
    /// That new ones are refused, and not acknowledged to the service; null as long as they are stored.
    pub(crate) refusing: Option<Refusing>,
}

/// Why new messages are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Refusing {
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) since: Timestamp,
    pub(crate) text: String,
}

/// What is left of a link that is not in `[links]` any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct GoneStatus {
    #[schema(example = "larry")]
    pub(crate) name: String,
    /// Not confirmed by its bot; offered again when the link is back.
    pub(crate) waiting: u64,
    /// Put aside.
    pub(crate) parked: u64,
    /// Since when it is gone, as far as this server knows.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) since: Timestamp,
    /// When what waits is deleted.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) until: Timestamp,
}

/// What was counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct FigureStatus {
    /// Messages that were new.
    pub(crate) messages: u64,
    /// Messages that arrived again and were not offered.
    pub(crate) repeated: u64,
    /// Messages that were found by asking the service.
    pub(crate) caught_up: u64,
    /// How often the service was asked whether anything is missing.
    pub(crate) looks: u64,
    /// Offers to the bot beyond the first of each message.
    pub(crate) offered_again: u64,
    pub(crate) confirmed: u64,
    pub(crate) parked: u64,
    /// Messages that found no place, and were not acknowledged.
    #[serde(default)]
    pub(crate) refused: u64,
    /// Attempts to connect, by how they ended.
    pub(crate) attempts: BTreeMap<String, u64>,
    /// Connections made, by reason.
    pub(crate) renewals: BTreeMap<String, u64>,
    /// Renewals that failed, by reason.
    pub(crate) renewals_failed: BTreeMap<String, u64>,
    /// Routing round trips.
    pub(crate) probes: Vec<ProbeFigure>,
    /// Rungs of the escalation ladder that were reached.
    pub(crate) rungs: BTreeMap<String, u64>,
    /// Requests of the bot and of the link, by outcome.
    pub(crate) http: BTreeMap<String, u64>,
}

/// How many routing round trips ended so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ProbeFigure {
    /// `opened`, `interval`, `idle`, `doubt` or `asked`.
    #[schema(example = "interval")]
    pub(crate) cause: String,
    /// `ok`, `lost` or `not-made`.
    #[schema(example = "ok")]
    pub(crate) outcome: String,
    pub(crate) count: u64,
}

/// Something that happened with a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct TraceStep {
    /// The link that it came over.
    pub(crate) link: String,
    /// `arrived`, `fetched`, `offered`, `confirmed`, `replied`, `parked` or `retried`.
    #[schema(example = "arrived")]
    pub(crate) stage: String,
    #[schema(value_type = String, format = DateTime)]
    pub(crate) at: Timestamp,
    /// More about it; may be empty.
    pub(crate) text: String,
}

/// A message that was put aside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ParkedStatus {
    /// The service's id of the message.
    pub(crate) id: String,
    /// Its room; empty where there are none.
    pub(crate) room: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) since: Timestamp,
    /// How often it was offered.
    pub(crate) offers: u32,
    /// Why; may be empty.
    pub(crate) text: String,
}

/// How the store of messages is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct StoreStatus {
    /// Whether messages are on disk; if not they are in memory, and lost with the process.
    pub(crate) healthy: bool,
    /// Why they are not; else empty.
    pub(crate) text: String,
    /// Since when it is so.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) since: Timestamp,
}

impl LinkStatus {
    /// That a level is not proved on the connection in use, or was never.
    pub(crate) fn unproved(&self, level: &str) -> &'static str {
        let figures = &self.figures;
        let was = match level {
            // Not of a connection, but of the bot.
            "handled" => false,
            "routing" => figures.probes.iter().any(|probe| probe.outcome == "ok"),
            _ => figures.renewals.values().any(|count| *count > 0),
        };
        if was { "not yet on this connection" } else { "never" }
    }

    /// Whether it has no connection, and none is being opened.
    pub(crate) fn is_down(&self) -> bool {
        matches!(&*self.state, "off" | "waiting" | "refused" | "replaced")
    }

    pub(crate) fn of(view: &View) -> Self {
        let figures = &view.figures;
        let named = |counts: Vec<(&'static str, u64)>| -> BTreeMap<String, u64> {
            counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
        };
        Self {
            name: view.name.clone(),
            profile: view.profile.to_owned(),
            host: view.host.clone(),
            state: view.state.name().to_owned(),
            since: point(view.since_unix_ms),
            text: view.words.clone(),
            advice: advice(view),
            next_attempt: view.next_attempt_unix_ms.map(point),
            levels: (view.levels.iter())
                .map(|(level, age)| LevelStatus {
                    level: level.name().to_owned(),
                    age_seconds: age.map(round),
                })
                .collect(),
            connection: view.connection.as_ref().map(|connection| ConnectionStatus {
                number: connection.number,
                since: point(connection.since_unix_ms),
                overlapping: connection.overlapping,
            }),
            last_probe: view.last_probe.as_ref().map(|probe| LastProbe {
                outcome: probe.outcome.to_owned(),
                cause: probe.cause.name().to_owned(),
                at: point(probe.at_unix_ms),
                text: probe.words.clone(),
            }),
            next_probe: view.next_probe_unix_ms.map(point),
            renewal: view.renew_unix_ms.map(point),
            bot: BotStatus {
                connections: view.bot.connections,
                locked_out: view.locked_out.is_some(),
                text: match &view.locked_out {
                    Some(why) => format!("no bot can come in: {why}"),
                    None => view.bot.words.clone(),
                },
            },
            messages: MessageStatus {
                waiting: view.inbox.waiting,
                parked: view.inbox.parked,
                oldest: view.inbox.oldest_unix_ms.map(point),
                refusing: view.full.as_ref().map(|full| Refusing {
                    since: point(full.since_unix_ms),
                    text: full.words.clone(),
                }),
            },
            figures: FigureStatus {
                messages: figures.messages,
                repeated: figures.repeated,
                caught_up: figures.caught_up,
                looks: figures.looks,
                offered_again: figures.offered_again,
                confirmed: figures.confirmed,
                parked: figures.parked,
                refused: figures.refused,
                attempts: named(figures.attempts.iter().map(|(how, n)| (*how, *n)).collect()),
                renewals: named(figures.renewals.iter().map(|(why, n)| (why.name(), *n)).collect()),
                renewals_failed: named(
                    figures.renewals_failed.iter().map(|(why, n)| (why.name(), *n)).collect(),
                ),
                probes: (figures.probes.iter())
                    .map(|((cause, outcome), count)| ProbeFigure {
                        cause: cause.name().to_owned(),
                        outcome: (*outcome).to_owned(),
                        count: *count,
                    })
                    .collect(),
                rungs: named(figures.rungs.iter().map(|(rung, n)| (rung.name(), *n)).collect()),
                http: named(figures.http.iter().map(|(how, n)| (*how, *n)).collect()),
            },
        }
    }
}

impl ParkedStatus {
    pub(crate) fn of(parked: Parked) -> Self {
        Self {
            id: parked.id,
            room: parked.room,
            since: point(parked.since_unix_ms),
            offers: parked.offers,
            text: parked.words,
        }
    }
}

impl TraceStep {
    pub(crate) fn of(step: Step) -> Self {
        Self {
            link: step.link,
            stage: step.stage.name().to_owned(),
            at: point(step.at_unix_ms),
            text: step.words,
        }
    }
}

impl GoneStatus {
    pub(crate) fn of(gone: Gone) -> Self {
        Self {
            name: gone.link,
            waiting: gone.counts.waiting,
            parked: gone.counts.parked,
            since: point(gone.since_unix_ms),
            until: point(gone.until_unix_ms),
        }
    }
}

impl StoreStatus {
    pub(crate) fn of(view: StoreView) -> Self {
        Self { healthy: view.healthy, text: view.words, since: point(view.since_unix_ms) }
    }
}

/// What somebody can do about the state of a link, where it does not mend itself.
fn advice(view: &View) -> String {
    let name = &view.name;
    match view.state {
        State::Refused => format!(
            "check its token, then `bowline reload` (reads it again) or `bowline link renew {name}` (tries at once)"
        ),
        State::Replaced => format!(
            "another program uses its token: end that one, then `bowline link renew {name}` (tries at once)"
        ),
        _ if view.profile != "webex" && view.figures.no_probe_came_back() => {
            "no probe has ever come back: is `probe` right?".to_owned()
        }
        State::Off
        | State::Waiting
        | State::Connecting
        | State::Proving
        | State::Live
        | State::Suspect => String::new(),
    }
}

/// How `/health/ready` shows a link.
pub(super) fn component(view: &View, required: bool) -> ComponentView {
    let is_up = matches!(view.state, State::Live | State::Suspect);
    let locked_out = view.locked_out.as_ref().filter(|_| is_up);
    let state = match view.state {
        State::Live | State::Suspect if locked_out.is_some() => ComponentState::Failed,
        State::Live | State::Suspect => ComponentState::Ready,
        State::Replaced | State::Refused => ComponentState::Failed,
        State::Off => ComponentState::Waiting,
        State::Waiting | State::Connecting | State::Proving => ComponentState::Loading,
    };
    let failed = state == ComponentState::Failed;
    let name = view.state.name();
    ComponentView {
        name: view.name.clone(),
        required,
        state,
        progress: f64::from(u8::from(state == ComponentState::Ready)),
        text: if failed || view.words.is_empty() { name.to_owned() } else { view.words.clone() },
        waiting_for: Vec::new(),
        since: SystemTime::UNIX_EPOCH + Duration::from_millis(view.since_unix_ms),
        error: failed.then(|| locked_out.unwrap_or(&view.words).clone()),
        loading_for: None,
    }
}

/// Links as figures, in the order of the table. `longest` is how long it may be from one routing round trip of a link to
/// the next.
pub(crate) fn samples(
    views: &[View],
    store: Option<&StoreView>,
    longest: impl Fn(&str) -> Option<Duration>,
) -> Vec<Sample> {
    let mut samples: Vec<Sample> = (views.iter())
        .flat_map(|view| {
            let is = |state| f64::from(u8::from(view.state == state));
            State::ALL.map(|state| of(Metric::LinkState, view, &[state.name()], is(state)))
        })
        .collect();
    samples.extend(views.iter().flat_map(|view| {
        let proved = view.levels.iter().filter_map(|(level, age)| Some((level, (*age)?)));
        proved
            .map(|(level, age)| of(Metric::LinkLevelAge, view, &[level.name()], age.as_secs_f64()))
    }));
    samples.extend(views.iter().filter(|view| view.state != State::Off).map(|view| {
        // One that is not kept is neither up nor down.
        let live = matches!(view.state, State::Live | State::Suspect);
        of(Metric::LinkLive, view, &[], f64::from(u8::from(live)))
    }));
    samples.extend(views.iter().filter_map(|view| {
        let age = view.levels.get(&Level::Routing).copied().flatten()?;
        let share = age.as_secs_f64() / longest(&view.name)?.as_secs_f64();
        Some(of(Metric::LinkRoutingStaleness, view, &[], share))
    }));
    let now = unix_ms();
    let oldest = |view: &View| {
        let at = view.inbox.oldest_unix_ms;
        at.map_or(0.0, |at| now.saturating_sub(at) as f64 / 1e3)
    };
    let each = |metric, value: &dyn Fn(&View) -> f64| -> Vec<Sample> {
        views.iter().map(|view| of(metric, view, &[], value(view))).collect()
    };
    samples.extend(each(Metric::LinkWaiting, &|view| view.inbox.waiting as f64));
    samples.extend(each(Metric::LinkOldestWaiting, &oldest));
    samples.extend(each(Metric::LinkParked, &|view| view.inbox.parked as f64));
    for (metric, counts) in COUNTED {
        for view in views {
            let counts = counts(&view.figures).into_iter();
            samples.extend(counts.map(|(labels, count)| of(metric, view, &labels, count as f64)));
        }
    }
    samples.extend(store.map(|store| Sample {
        metric: Metric::StoreHealthy,
        labels: Vec::new(),
        value: Value::Number(f64::from(u8::from(store.healthy))),
    }));
    samples
}

/// One value of one link.
fn of(metric: Metric, view: &View, labels: &[&'static str], value: f64) -> Sample {
    let labels = labels.iter().copied().map(Cow::Borrowed);
    let labels = [Cow::Owned(view.name.clone())].into_iter().chain(labels).collect();
    Sample { metric, labels, value: Value::Number(value) }
}

/// What was counted of a link under one name: labels behind its own, and how often.
type Counted = Vec<(Vec<&'static str>, u64)>;

/// How that is taken out of what was counted.
type Counts = fn(&Figures) -> Counted;

/// Counters, in the order of the table. What a link has not done counts 0, so that its first time is seen to be one.
const COUNTED: [(Metric, Counts); 7] = [
    (Metric::LinkRenewals, |figures| {
        Reason::ALL.map(|why| (vec![why.name()], count(&figures.renewals, &why))).into()
    }),
    (Metric::LinkRenewalFailures, |figures| {
        Reason::ALL.map(|why| (vec![why.name()], count(&figures.renewals_failed, &why))).into()
    }),
    (Metric::LinkProbes, |figures| {
        let all = ProbeCause::ALL.into_iter().flat_map(|cause| PROBES.map(|how| (cause, how)));
        all.map(|probe| (vec![probe.0.name(), probe.1], count(&figures.probes, &probe))).collect()
    }),
    (Metric::LinkMessages, |figures| {
        vec![
            (vec!["new"], figures.messages),
            (vec!["repeated"], figures.repeated),
            (vec!["caught-up"], figures.caught_up),
            (vec!["offered-again"], figures.offered_again),
            (vec!["confirmed"], figures.confirmed),
            (vec!["parked"], figures.parked),
            (vec!["refused"], figures.refused),
        ]
    }),
    (Metric::LinkAttempts, |figures| {
        figures.attempts.iter().map(|(how, count)| (vec![*how], *count)).collect()
    }),
    (Metric::LinkHttpRequests, |figures| {
        REQUESTS.map(|how| (vec![how], count(&figures.http, &how))).into()
    }),
    (Metric::LinkEscalations, |figures| {
        Rung::ALL.map(|rung| (vec![rung.name()], count(&figures.rungs, &rung))).into()
    }),
];

fn count<K: Ord>(counts: &BTreeMap<K, u64>, key: &K) -> u64 {
    counts.get(key).copied().unwrap_or_default()
}

fn point(unix_ms: u64) -> Timestamp {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

/// Seconds to the millisecond.
fn round(age: Duration) -> f64 {
    age.as_millis() as f64 / 1e3
}

/// Two links and a store, for the tests of metrics.
#[cfg(test)]
pub(crate) fn example() -> Vec<Sample> {
    let live = tests::view("barnacles", State::Live);
    let off = tests::view("larry", State::Off);
    samples(&[live, off], Some(&StoreView::default()), |_| Some(Duration::from_secs(900)))
}

#[cfg(test)]
mod tests {
    use bowline_link::{
        bot::Presence,
        view::{ConnectionView, ProbeView},
    };
    use bowline_store::Counts as Stored;

    use super::*;

    pub(super) fn view(name: &str, state: State) -> View {
        View {
            name: name.to_owned(),
            profile: "webex",
            host: "u2c.wbx2.com".to_owned(),
            state,
            since_unix_ms: 1_000,
            words: "why".to_owned(),
            next_attempt_unix_ms: Some(2_000),
            levels: BTreeMap::from([
                (Level::Routing, Some(Duration::from_millis(1_800_500))),
                (Level::Tcp, Some(Duration::ZERO)),
                (Level::Handled, None),
            ]),
            connection: Some(ConnectionView {
                number: 2,
                since_unix_ms: 1_500,
                overlapping: false,
            }),
            last_probe: Some(ProbeView {
                cause: ProbeCause::Interval,
                outcome: "not-made",
                words: "503".to_owned(),
                at_unix_ms: 1_700,
            }),
            next_probe_unix_ms: Some(3_000),
            renew_unix_ms: None,
            locked_out: None,
            bot: Presence { connections: 1, words: "1 bot".to_owned() },
            inbox: Stored { waiting: 1, oldest_unix_ms: Some(unix_ms()), ..Stored::default() },
            full: None,
            figures: Figures {
                messages: 5,
                attempts: BTreeMap::from([("ok", 2)]),
                probes: BTreeMap::from([((ProbeCause::Interval, "ok"), 3)]),
                renewals: BTreeMap::from([(Reason::Age, 1)]),
                ..Figures::default()
            },
        }
    }

    fn value(samples: &[Sample], metric: Metric, labels: &[&str]) -> Option<f64> {
        let found = samples.iter().find(|it| it.metric == metric && it.labels == labels);
        found.map(|sample| match sample.value {
            Value::Number(number) => number,
            Value::Histogram { .. } => panic!("{metric:?}"),
        })
    }

    #[test]
    fn a_link_is_told_with_its_levels_from_the_lowest() {
        let status = LinkStatus::of(&view("barnacles", State::Live));
        let levels: Vec<_> =
            status.levels.iter().map(|it| (it.level.as_str(), it.age_seconds)).collect();
        assert_eq!(levels, [("tcp", Some(0.0)), ("routing", Some(1800.5)), ("handled", None)]);
        assert_eq!(status.since.to_string(), "1970-01-01T00:00:01Z");
        assert_eq!(status.figures.renewals, BTreeMap::from([("age".to_owned(), 1)]));
        let probe = status.last_probe.unwrap();
        assert_eq!((&*probe.outcome, &*probe.cause, &*probe.text), ("not-made", "interval", "503"));
    }

    #[test]
    fn a_probe_that_never_came_back_is_doubted_until_one_does() {
        let mut view = View { profile: "socketio", ..view("barnacles", State::Suspect) };
        assert_eq!(LinkStatus::of(&view).advice, "");
        view.figures.probes = BTreeMap::from([((ProbeCause::Opened, "lost"), 2)]);
        let advice = LinkStatus::of(&view).advice;
        assert_eq!(advice, "no probe has ever come back: is `probe` right?");
        view.figures.probes.insert((ProbeCause::Interval, "ok"), 1);
        assert_eq!(LinkStatus::of(&view).advice, "");
    }

    #[test]
    fn figures_are_there_from_zero_and_ages_only_when_there_was_a_proof() {
        let views = [view("barnacles", State::Live), view("larry", State::Off)];
        let samples =
            samples(&views, None, |name| (name == "barnacles").then(|| Duration::from_secs(900)));
        let of = |metric, labels: &[&str]| value(&samples, metric, labels);
        assert_eq!(of(Metric::LinkState, &["barnacles", "live"]), Some(1.0));
        assert_eq!(of(Metric::LinkState, &["barnacles", "refused"]), Some(0.0));
        assert_eq!(of(Metric::LinkLevelAge, &["barnacles", "routing"]), Some(1800.5));
        assert_eq!(of(Metric::LinkLevelAge, &["barnacles", "handled"]), None);
        let staleness = of(Metric::LinkRoutingStaleness, &["barnacles"]).unwrap();
        assert!((staleness - 2.0).abs() < 0.01, "{staleness}");
        assert_eq!(of(Metric::LinkRoutingStaleness, &["larry"]), None);
        assert_eq!(of(Metric::LinkLive, &["barnacles"]), Some(1.0));
        assert_eq!(of(Metric::LinkLive, &["larry"]), None);
        assert_eq!(of(Metric::LinkProbes, &["barnacles", "interval", "ok"]), Some(3.0));
        assert_eq!(of(Metric::LinkProbes, &["barnacles", "doubt", "lost"]), Some(0.0));
        assert_eq!(of(Metric::StoreHealthy, &[]), None);
    }

    #[test]
    fn a_refused_link_is_a_failed_component_and_one_that_connects_loads() {
        let of = |state| component(&view("barnacles", state), false);
        assert_eq!(of(State::Live).state, ComponentState::Ready);
        assert_eq!(of(State::Connecting).state, ComponentState::Loading);
        let refused = of(State::Refused);
        assert_eq!(refused.state, ComponentState::Failed);
        assert_eq!((refused.text.as_str(), refused.error.as_deref()), ("refused", Some("why")));
    }

    #[test]
    fn a_link_whose_bot_cannot_come_in_says_so() {
        let why = "127.0.0.1:8002 cannot be bound: in use".to_owned();
        let view = View { locked_out: Some(why.clone()), ..view("barnacles", State::Live) };
        let component = component(&view, false);
        assert_eq!((component.state, component.error), (ComponentState::Failed, Some(why.clone())));
        assert_eq!(LinkStatus::of(&view).bot.text, format!("no bot can come in: {why}"));
    }
}
