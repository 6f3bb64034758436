//! What is to be told to whom, and when: policy only, the time is an argument.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use serde_json::json;

use super::evaluator::{Alert, Now};

/// How an attempt to deliver ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The receiver took it.
    Accepted,
    /// It could not be reached, or said that it cannot now. It is tried again.
    Failed,
    /// It said that it never will.
    Refused,
    /// It was not tried any more: too much was waiting.
    Dropped,
}

impl Outcome {
    /// Every outcome, in the order of declaration.
    pub(crate) const ALL: [Self; 4] = [Self::Accepted, Self::Failed, Self::Refused, Self::Dropped];

    /// The value of the label.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
        }
    }
}

/// A receiver's letters that have not been delivered.
pub(crate) trait Outbox {
    /// Takes what changed. Returns how many older letters it gave up for it.
    fn put(&mut self, changes: &[Arc<Alert>]) -> usize;

    /// Takes how alerts that fire look now.
    fn refresh(&mut self, firing: &[Arc<Alert>]);

    /// When something is to be sent, by the clock that never goes back. Long past means: now.
    fn due(&self) -> Option<Duration>;

    /// What is to be sent: JSON. Called when it is due.
    fn take(&mut self, now: Now) -> Option<String>;

    /// The receiver is somewhere else now, or, if it is not `there`, nowhere. `new`: it was nowhere
    /// before.
    fn moved(&mut self, there: bool, new: bool, firing: &[Arc<Alert>]);

    /// Says how that went. `chance` is a random number from 0 to 1.
    fn answered(&mut self, now: Now, outcome: Outcome, chance: f64);
}

/// How often an Alertmanager hears again of what fires, as Prometheus does it.
const RESEND: Duration = Duration::from_secs(60);

/// How long an Alertmanager believes that an alert fires when it hears nothing more of it: four
/// times [`RESEND`], as Prometheus does it. So what a server that is gone said ends by itself.
const BELIEF: Duration = Duration::from_secs(240);

/// The longest pause between attempts: shorter than [`BELIEF`] by far for an Alertmanager.
const ALERTMANAGER_PAUSE_MAX: Duration = Duration::from_secs(30);

/// The longest pause between attempts at a webhook, which nobody relies on being alive.
const WEBHOOK_PAUSE_MAX: Duration = Duration::from_secs(300);

/// The first pause.
const PAUSE: Duration = Duration::from_secs(1);

/// Changes that wait for a webhook; the oldest are given up for new ones. A receiver that comes
/// back after a night gets the last of what happened.
const WEBHOOK_WAITING_MAX: usize = 256;

/// Alerts that ceased and of which an Alertmanager has not taken notice. It finds out by itself
/// after [`BELIEF`], so losing the oldest loses only time.
const RESOLVED_MAX: usize = 1_000;

/// Pauses that double, spread over their second half so that many servers do not come at once.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    fn pause(&mut self, longest: Duration, chance: f64) -> Duration {
        let full = PAUSE.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures += 1;
        full.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }

    fn reset(&mut self) {
        self.failures = 0;
    }
}

/// For an Alertmanager: the state of all alerts, sent as a whole.
#[derive(Debug, Default)]
pub(crate) struct Alertmanager {
    alerts: BTreeMap<BTreeMap<String, String>, Entry>,
    /// When it is sent again although nothing changed.
    again: Duration,
    /// Not before, because it failed.
    pause: Option<Duration>,
    backoff: Backoff,
}

#[derive(Debug)]
struct Entry {
    alert: Arc<Alert>,
    delivery: Delivery,
}

/// How far the last change of an alert has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    Waiting,
    /// In what is on its way.
    Sent,
    Accepted,
}

impl Outbox for Alertmanager {
    fn put(&mut self, changes: &[Arc<Alert>]) -> usize {
        for alert in changes {
            let entry = Entry { alert: Arc::clone(alert), delivery: Delivery::Waiting };
            self.alerts.insert(alert.labels.clone(), entry);
        }
        let over = self.resolved().count().saturating_sub(RESOLVED_MAX);
        let mut oldest: Vec<_> =
            self.resolved().map(|alert| (alert.until, alert.labels.clone())).collect();
        oldest.sort_by_key(|(until, _)| *until);
        for (_, labels) in oldest.into_iter().take(over) {
            self.alerts.remove(&labels);
        }
        over
    }

    fn refresh(&mut self, firing: &[Arc<Alert>]) {
        for alert in firing {
            if let Some(entry) = self.alerts.get_mut(&alert.labels) {
                entry.alert = Arc::clone(alert);
            }
        }
    }

    fn due(&self) -> Option<Duration> {
        if self.alerts.is_empty() {
            return None;
        }
        let waiting = self.alerts.values().any(|entry| entry.delivery != Delivery::Accepted);
        Some(self.pause.unwrap_or(if waiting { Duration::ZERO } else { self.again }))
    }

    fn take(&mut self, now: Now) -> Option<String> {
        let mut list = Vec::new();
        for entry in self.alerts.values_mut() {
            entry.delivery = Delivery::Sent;
            let Alert { labels, summary, remedy, since, until, .. } = &*entry.alert;
            list.push(json!({
                "labels": labels,
                "annotations": { "summary": summary, "remedy": remedy },
                "startsAt": rfc3339(*since),
                "endsAt": rfc3339(until.unwrap_or(now.unix + BELIEF)),
            }));
        }
        (!list.is_empty()).then(|| serde_json::Value::from(list).to_string())
    }

    /// Whoever is there now hears everything that fires.
    fn moved(&mut self, there: bool, _: bool, firing: &[Arc<Alert>]) {
        *self = Self::default();
        if there {
            self.put(firing);
        }
    }

    fn answered(&mut self, now: Now, outcome: Outcome, chance: f64) {
        if outcome == Outcome::Accepted {
            self.backoff.reset();
            self.pause = None;
            self.again = now.running + RESEND;
            // What changed meanwhile is waiting again.
            for entry in self.alerts.values_mut() {
                if entry.delivery == Delivery::Sent {
                    entry.delivery = Delivery::Accepted;
                }
            }
            self.alerts.retain(|_, entry| {
                entry.alert.until.is_none() || entry.delivery != Delivery::Accepted
            });
            return;
        }
        // What an Alertmanager refuses is tried again too: the state is all there is to say, and
        // its configuration may be mended.
        self.pause = Some(now.running + self.backoff.pause(ALERTMANAGER_PAUSE_MAX, chance));
    }
}

impl Alertmanager {
    fn resolved(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.values().map(|entry| &*entry.alert).filter(|alert| alert.until.is_some())
    }
}

/// For a webhook: every change, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Webhook {
    waiting: VecDeque<Letter>,
    /// The id of the letter on its way.
    sent: Option<u64>,
    last_id: u64,
    pause: Option<Duration>,
    backoff: Backoff,
    /// Tells letters of this process from those of others.
    process: String,
}

#[derive(Debug)]
struct Letter {
    id: u64,
    alert: Arc<Alert>,
}

impl Webhook {
    /// `process` is the first part of the ids of all letters.
    pub(crate) fn new(process: String) -> Self {
        Self { process, ..Self::default() }
    }
}

impl Outbox for Webhook {
    fn put(&mut self, changes: &[Arc<Alert>]) -> usize {
        for alert in changes {
            self.last_id += 1;
            self.waiting.push_back(Letter { id: self.last_id, alert: Arc::clone(alert) });
        }
        let over = self.waiting.len().saturating_sub(WEBHOOK_WAITING_MAX);
        self.waiting.drain(..over);
        over
    }

    /// A webhook hears of changes only.
    fn refresh(&mut self, _: &[Arc<Alert>]) {}

    fn due(&self) -> Option<Duration> {
        self.waiting.front().map(|_| self.pause.unwrap_or_default())
    }

    fn take(&mut self, _: Now) -> Option<String> {
        let Letter { id, alert } = self.waiting.front()?;
        self.sent = Some(*id);
        let letter = json!({
            "version": 1,
            "id": format!("{}-{id}", self.process),
            "status": if alert.until.is_none() { "firing" } else { "resolved" },
            "name": alert.name(),
            "severity": alert.severity(),
            "summary": alert.summary,
            "remedy": alert.remedy,
            "value": alert.value,
            "threshold": alert.threshold,
            "labels": alert.labels,
            "since": rfc3339(alert.since),
            "until": alert.until.map(rfc3339),
        });
        Some(letter.to_string())
    }

    /// What waits is taken along: a wrong address is a reason why it waits.
    fn moved(&mut self, there: bool, new: bool, firing: &[Arc<Alert>]) {
        self.pause = None;
        self.backoff.reset();
        if !there {
            self.waiting.clear();
        } else if new {
            self.put(firing);
        }
    }

    fn answered(&mut self, now: Now, outcome: Outcome, chance: f64) {
        let sent = self.sent.take();
        if outcome == Outcome::Failed {
            self.pause = Some(now.running + self.backoff.pause(WEBHOOK_PAUSE_MAX, chance));
            return;
        }
        self.backoff.reset();
        self.pause = None;
        // It may have been given up for newer ones while it was on its way.
        if self.waiting.front().map(|letter| letter.id) == sent {
            self.waiting.pop_front();
        }
    }
}

/// Writes a time since 1970, with milliseconds.
pub(crate) fn rfc3339(unix: Duration) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + unix).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn at(seconds: u64) -> Now {
        let running = Duration::from_secs(seconds);
        Now { running, unix: running + Duration::from_secs(1_000_000_000) }
    }

    fn alert(name: &str, until: Option<u64>) -> Arc<Alert> {
        Arc::new(Alert {
            labels: BTreeMap::from([("alertname".to_owned(), name.to_owned())]),
            summary: "words".to_owned(),
            remedy: "deeds".to_owned(),
            value: 1.0,
            threshold: 0.5,
            since: at(0).unix,
            until: until.map(|seconds| at(seconds).unix),
        })
    }

    fn sent(outbox: &mut impl Outbox, now: Now) -> Value {
        assert!(outbox.due().unwrap() <= now.running, "nothing is due");
        serde_json::from_str(&outbox.take(now).unwrap()).unwrap()
    }

    #[test]
    fn an_alertmanager_hears_of_a_change_at_once_and_then_each_minute() {
        let mut outbox = Alertmanager::default();
        assert_eq!(outbox.due(), None);
        outbox.put(&[alert("A", None)]);
        let first = sent(&mut outbox, at(0));
        assert_eq!(first[0]["labels"]["alertname"], "A");
        assert_eq!(first[0]["startsAt"], "2001-09-09T01:46:40.000Z");
        assert_eq!(first[0]["endsAt"], "2001-09-09T01:50:40.000Z");
        outbox.answered(at(0), Outcome::Accepted, 0.0);
        assert_eq!(outbox.due(), Some(Duration::from_secs(60)));
        let again = sent(&mut outbox, at(60));
        assert_eq!(again[0]["endsAt"], "2001-09-09T01:51:40.000Z");
    }

    #[test]
    fn an_alertmanager_hears_of_a_resolved_alert_until_it_has_taken_it() {
        let mut outbox = Alertmanager::default();
        outbox.put(&[alert("A", None)]);
        sent(&mut outbox, at(0));
        outbox.answered(at(0), Outcome::Accepted, 0.0);
        outbox.put(&[alert("A", Some(10))]);
        for attempt in 0..10 {
            let now = at(10 + attempt * 60);
            assert_eq!(sent(&mut outbox, now)[0]["endsAt"], "2001-09-09T01:46:50.000Z");
            outbox.answered(now, Outcome::Failed, 1.0);
        }
        let now = at(1_000);
        sent(&mut outbox, now);
        outbox.answered(now, Outcome::Accepted, 0.0);
        assert_eq!(outbox.due(), None);
    }

    #[test]
    fn what_changes_while_it_is_on_its_way_is_sent_again() {
        let mut outbox = Alertmanager::default();
        outbox.put(&[alert("A", None)]);
        sent(&mut outbox, at(0));
        outbox.put(&[alert("A", Some(1))]);
        outbox.answered(at(2), Outcome::Accepted, 0.0);
        assert_eq!(sent(&mut outbox, at(2))[0]["endsAt"], "2001-09-09T01:46:41.000Z");
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        let mut outbox = Alertmanager::default();
        outbox.put(&[alert("A", None)]);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            outbox.take(at(0));
            outbox.answered(at(0), Outcome::Failed, 1.0);
            pauses.push(outbox.due().unwrap().as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
        outbox.answered(at(0), Outcome::Failed, 0.0);
        assert_eq!(outbox.due().unwrap().as_secs(), 15);
    }

    #[test]
    fn a_webhook_hears_of_every_change_in_order() {
        let mut outbox = Webhook::new("p".to_owned());
        outbox.put(&[alert("A", None), alert("B", None)]);
        outbox.put(&[alert("A", Some(5))]);
        let mut heard = Vec::new();
        while outbox.due().is_some() {
            let letter = sent(&mut outbox, at(5));
            heard.push(format!("{} {} {}", letter["id"], letter["name"], letter["status"]));
            outbox.answered(at(5), Outcome::Accepted, 0.0);
        }
        assert_eq!(
            heard,
            [r#""p-1" "A" "firing""#, r#""p-2" "B" "firing""#, r#""p-3" "A" "resolved""#]
        );
    }

    #[test]
    fn a_webhook_that_fails_is_tried_again_with_the_same_id() {
        let mut outbox = Webhook::new("p".to_owned());
        outbox.put(&[alert("A", None)]);
        let first = sent(&mut outbox, at(0));
        outbox.answered(at(0), Outcome::Failed, 1.0);
        assert_eq!(outbox.due(), Some(Duration::from_secs(1)));
        assert_eq!(sent(&mut outbox, at(1)), first);
    }

    #[test]
    fn what_a_webhook_refuses_is_not_sent_again() {
        let mut outbox = Webhook::new("p".to_owned());
        outbox.put(&[alert("A", None)]);
        sent(&mut outbox, at(0));
        outbox.answered(at(0), Outcome::Refused, 0.0);
        assert_eq!(outbox.due(), None);
    }

    #[test]
    fn the_oldest_letters_are_given_up_when_too_many_wait() {
        let mut outbox = Webhook::new("p".to_owned());
        outbox.put(&[alert("first", None)]);
        sent(&mut outbox, at(0));
        let many: Vec<_> = (0..WEBHOOK_WAITING_MAX).map(|_| alert("later", None)).collect();
        assert_eq!(outbox.put(&many), 1);
        // The one that was on its way is gone, and the answer to it takes no other with it.
        outbox.answered(at(0), Outcome::Accepted, 0.0);
        assert_eq!(outbox.waiting.len(), WEBHOOK_WAITING_MAX);
        assert_eq!(sent(&mut outbox, at(0))["name"], "later");
    }
}
