//! Which alerts fire: rules and figures in, changes out. No clock, no network.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    history::History,
    rule::{Condition, LOOK_BACK, LOOK_BACK_LEAST, Rule, Rules, Selection, fill},
};
use crate::metrics::{Sample, Value};

/// What time it is, by two clocks: one that never goes back, for everything that is waited for,
/// and the one on the wall, for what people are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    /// Since any fixed point.
    pub(crate) running: Duration,
    /// Since 1970.
    pub(crate) unix: Duration,
}

/// Something that fires, or fired.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Alert {
    /// Tells it from every other alert: its name, its severity, the labels of its series and those
    /// that the operator adds.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) summary: String,
    pub(crate) remedy: String,
    /// What the condition came to when it was last evaluated.
    pub(crate) value: f64,
    /// What it is compared with.
    pub(crate) threshold: f64,
    /// When it began to fire, since 1970.
    pub(crate) since: Duration,
    /// When it ceased, since 1970.
    pub(crate) until: Option<Duration>,
}

/// The label with the name of the rule, as Alertmanager has it.
pub(crate) const NAME_LABEL: &str = "alertname";

/// The label with the severity.
pub(crate) const SEVERITY_LABEL: &str = "severity";

impl Alert {
    pub(crate) fn name(&self) -> &str {
        self.labels.get(NAME_LABEL).map_or("", |name| name)
    }

    pub(crate) fn severity(&self) -> &str {
        self.labels.get(SEVERITY_LABEL).map_or("", |severity| severity)
    }
}

/// Decides which alerts fire.
#[derive(Debug)]
pub(crate) struct Evaluator {
    rules: Arc<Rules>,
    /// Labels of this server.
    identity: BTreeMap<String, String>,
    history: History,
    /// Conditions that hold, by the labels of what would be the alert.
    holding: BTreeMap<BTreeMap<String, String>, Holding>,
}

/// A condition that holds.
#[derive(Debug)]
struct Holding {
    rule: Rule,
    /// Since when, by the clock that never goes back.
    since: Duration,
    /// The alert, once the condition has held for long enough.
    firing: Option<Arc<Alert>>,
}

impl Evaluator {
    /// Begins with nothing firing. `identity` are labels that tell this server from others.
    pub(crate) fn new(rules: Arc<Rules>, identity: BTreeMap<String, String>) -> Self {
        let mut history = History::default();
        history.want(counters(&rules));
        Self { rules, identity, history, holding: BTreeMap::new() }
    }

    /// The rules that are in force.
    pub(crate) fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// Puts other rules in force. What fires by a rule that is gone, or was changed, is resolved;
    /// a rule that was changed begins anew.
    pub(crate) fn set_rules(&mut self, rules: Arc<Rules>, now: Now) -> Vec<Arc<Alert>> {
        let same_labels = rules.labels == self.rules.labels;
        let mut gone = Vec::new();
        self.holding.retain(|_, holding| {
            let stays = same_labels && rules.rules.contains(&holding.rule);
            if !stays {
                gone.extend(holding.firing.take().map(|alert| ended(&alert, now)));
            }
            stays
        });
        self.history.want(counters(&rules));
        self.rules = rules;
        gone
    }

    /// Takes new figures, and says which alerts began to fire and which ceased.
    pub(crate) fn evaluate(&mut self, now: Now, samples: &[Sample]) -> Vec<Arc<Alert>> {
        self.history.take(now.running, samples);
        let rules = Arc::clone(&self.rules);
        let mut changes = Vec::new();
        let mut holds = BTreeSet::new();
        for rule in &rules.rules {
            for found in self.found(rule, now, samples) {
                let labels = self.labels(rule, &found);
                let holding = self.holding.entry(labels.clone()).or_insert_with(|| Holding {
                    rule: rule.clone(),
                    since: now.running,
                    firing: None,
                });
                if now.running.saturating_sub(holding.since) >= rule.hold {
                    let since = holding.firing.as_ref().map(|alert| alert.since);
                    let alert = Arc::new(alert(rule, &found, labels.clone(), since, now));
                    if since.is_none() {
                        changes.push(Arc::clone(&alert));
                    }
                    holding.firing = Some(alert);
                }
                holds.insert(labels);
            }
        }
        self.holding.retain(|labels, holding| {
            let stays = holds.contains(labels);
            if !stays {
                changes.extend(holding.firing.take().map(|alert| ended(&alert, now)));
            }
            stays
        });
        changes
    }

    /// What fires, in the order of the rules.
    pub(crate) fn firing(&self) -> Vec<Arc<Alert>> {
        let place =
            |alert: &Alert| self.rules.rules.iter().position(|rule| rule.name == alert.name());
        let mut firing: Vec<_> =
            self.holding.values().filter_map(|holding| holding.firing.clone()).collect();
        firing.sort_by_key(|alert| place(alert));
        firing
    }

    /// The labels of the alert that a rule and a series make. Its own count for more than those
    /// of the operator, and those for more than the ones of this server.
    fn labels(&self, rule: &Rule, found: &Found) -> BTreeMap<String, String> {
        let mut labels = self.identity.clone();
        labels.extend(self.rules.labels.clone());
        labels.extend(found.labels.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        labels.insert(NAME_LABEL.to_owned(), rule.name.clone());
        labels.insert(SEVERITY_LABEL.to_owned(), rule.severity.name().to_owned());
        labels
    }

    /// Where the condition of a rule holds now.
    fn found(&self, rule: &Rule, now: Now, samples: &[Sample]) -> Vec<Found> {
        let back = |window| now.running.saturating_sub(window);
        let grown = |of, window| self.history.growth(of, back(window), now.running);
        let grown_sum =
            |of, window| grown(of, window).iter().map(|(_, growth)| growth).sum::<f64>();
        match &rule.condition {
            Condition::Value { of, test } => {
                (gauges(samples, of)).filter(|found| test.holds(found.value)).collect()
            }
            Condition::Ratio { of, to, above } => {
                let whole = sum(samples, to).filter(|whole| *whole > 0.0);
                let part = whole.and_then(|whole| Some(sum(samples, of)? / whole));
                Found::all(part.filter(|part| part > above))
            }
            Condition::Increase { of, window, above } => (grown(of, *window).into_iter())
                .filter(|(_, growth)| growth > above)
                .map(|(series, growth)| Found::of(series.metric.labels(), &series.labels, growth))
                .collect(),
            Condition::Share { of, among, window, above, least } => {
                let whole = grown_sum(among, *window);
                let part = grown_sum(of, *window) / whole;
                Found::all((whole > 0.0 && whole >= *least && part > *above).then_some(part))
            }
            Condition::Surge { of, window, factor, least } => (grown(of, *window).into_iter())
                .filter(|(_, growth)| *growth > 0.0 && growth >= least)
                .filter(|(series, growth)| {
                    let begin = self.history.begin(series).unwrap_or(now.running);
                    let from = begin.max(back(LOOK_BACK));
                    if now.running.saturating_sub(from) < LOOK_BACK_LEAST {
                        return false;
                    }
                    let to = back(*window);
                    let only = Selection::only(series.metric, &series.labels);
                    let before = self.history.growth(&only, from, to);
                    let before: f64 = before.iter().map(|(_, growth)| growth).sum();
                    let windows = to.saturating_sub(from).as_secs_f64() / window.as_secs_f64();
                    *growth > factor * before / windows
                })
                .map(|(series, growth)| Found::of(series.metric.labels(), &series.labels, growth))
                .collect(),
            Condition::Wave { of, among, window, above, least } => {
                let lost = grown_sum(of, *window);
                let part = lost / (sum(samples, among).unwrap_or(0.0) + lost);
                Found::all((lost > 0.0 && lost >= *least && part > *above).then_some(part))
            }
            Condition::Expiry { of, within } => (gauges(samples, of))
                .filter(|found| found.value > 0.0)
                .map(|found| Found { value: found.value - now.unix.as_secs_f64(), ..found })
                .filter(|found| found.value < within.as_secs_f64())
                .collect(),
        }
    }
}

/// A condition that holds: for which labels, and what it came to.
#[derive(Debug, Clone)]
struct Found {
    labels: Vec<(&'static str, String)>,
    value: f64,
}

impl Found {
    fn of(names: &[&'static str], labels: &[impl ToString], value: f64) -> Self {
        let labels = names.iter().copied().zip(labels.iter().map(ToString::to_string));
        Self { labels: labels.collect(), value }
    }

    /// For all series together.
    fn all(value: Option<f64>) -> Vec<Self> {
        value.into_iter().map(|value| Self { labels: Vec::new(), value }).collect()
    }
}

fn alert(
    rule: &Rule,
    found: &Found,
    labels: BTreeMap<String, String>,
    since: Option<Duration>,
    now: Now,
) -> Alert {
    let Rule { condition, .. } = rule;
    let window = || condition.window().map(crate::config::duration_text);
    let summary = fill(&rule.summary, |place| match place {
        "value" => Some(condition.unit().text(found.value)),
        "threshold" => Some(condition.threshold_text()),
        "window" => window(),
        label => {
            (found.labels.iter()).find(|(name, _)| *name == label).map(|(_, value)| value.clone())
        }
    });
    Alert {
        labels,
        summary,
        remedy: rule.remedy.clone(),
        value: found.value,
        threshold: condition.threshold(),
        since: since.unwrap_or(now.unix),
        until: None,
    }
}

/// It cannot end before it began, even if the clock on the wall was put back.
fn ended(alert: &Alert, now: Now) -> Arc<Alert> {
    Arc::new(Alert { until: Some(now.unix.max(alert.since)), ..alert.clone() })
}

fn counters(rules: &Rules) -> Vec<Selection> {
    rules.rules.iter().flat_map(|rule| rule.condition.counters()).cloned().collect()
}

fn numbers<'a>(
    samples: &'a [Sample],
    of: &'a Selection,
) -> impl Iterator<Item = (&'a Sample, f64)> {
    samples.iter().filter(|sample| of.picks_sample(sample)).filter_map(|sample| {
        match sample.value {
            Value::Number(value) => Some((sample, value)),
            Value::Histogram { .. } => None,
        }
    })
}

fn gauges<'a>(samples: &'a [Sample], of: &'a Selection) -> impl Iterator<Item = Found> {
    numbers(samples, of)
        .map(|(sample, value)| Found::of(sample.metric.labels(), &sample.labels, value))
}

/// `None` if there is no such series, which is not the same as zero.
fn sum(samples: &[Sample], of: &Selection) -> Option<f64> {
    numbers(samples, of).map(|(_, value)| value).reduce(|a, b| a + b)
}

#[cfg(test)]
mod tests {
    use bowline_names::Metric;

    use super::{super::read, *};

    /// A server of which the figures are set by hand, looked at every 5 s.
    struct Server {
        evaluator: Evaluator,
        figures: BTreeMap<(&'static str, Vec<&'static str>), f64>,
        running: u64,
        /// What changed, as `+Name` and `-Name`.
        heard: Vec<String>,
    }

    const UNIX: u64 = 1_000_000_000;

    impl Server {
        fn new() -> Self {
            Self::with("")
        }

        /// With a rules file.
        fn with(text: &str) -> Self {
            let evaluator = Evaluator::new(rules(text), BTreeMap::new());
            let mut server =
                Self { evaluator, figures: BTreeMap::new(), running: 0, heard: Vec::new() };
            for (name, labels) in [
                ("bowline_disconnects_total", vec!["ping timeout"]),
                ("bowline_disconnects_total", vec!["transport close"]),
                ("bowline_upgrades_total", vec!["done"]),
                ("bowline_upgrades_total", vec!["failed"]),
                ("bowline_accept_errors_total", vec!["aborted"]),
                ("bowline_accept_errors_total", vec!["emfile"]),
            ] {
                server.set(name, &labels, 0.0);
            }
            server
        }

        fn set(&mut self, name: &'static str, labels: &[&'static str], value: f64) {
            self.figures.insert((name, labels.to_vec()), value);
        }

        fn add(&mut self, name: &'static str, label: &'static str, value: f64) {
            *self.figures.entry((name, vec![label])).or_default() += value;
        }

        fn now(&self) -> Now {
            Now {
                running: Duration::from_secs(self.running),
                unix: Duration::from_secs(UNIX + self.running),
            }
        }

        fn look(&mut self) {
            let samples: Vec<Sample> = (self.figures.iter())
                .map(|((name, labels), value)| Sample {
                    metric: *Metric::ALL.iter().find(|row| row.name() == *name).unwrap(),
                    labels: labels.iter().map(|label| (*label).into()).collect(),
                    value: Value::Number(*value),
                })
                .collect();
            let changes = self.evaluator.evaluate(self.now(), &samples);
            self.hear(&changes);
        }

        fn hear(&mut self, changes: &[Arc<Alert>]) {
            self.heard.extend(changes.iter().map(|alert| {
                let sign = if alert.until.is_some() { '-' } else { '+' };
                format!("{sign}{}", alert.name().trim_start_matches("Bowline"))
            }));
        }

        fn run(&mut self, seconds: u64) {
            for _ in 0..seconds / 5 {
                self.running += 5;
                self.look();
            }
        }

        fn heard(&mut self) -> Vec<String> {
            std::mem::take(&mut self.heard)
        }

        fn only_alert(&self) -> Arc<Alert> {
            let firing = self.evaluator.firing();
            assert_eq!(firing.len(), 1, "{firing:?}");
            Arc::clone(&firing[0])
        }
    }

    fn rules(text: &str) -> Arc<Rules> {
        let (rules, mistakes) = read::read(text, &read::built_in());
        assert_eq!(mistakes, []);
        Arc::new(rules)
    }

    #[test]
    fn a_quiet_server_raises_nothing() {
        let mut server = Server::new();
        server.set("bowline_open_fds", &[], 30.0);
        server.set("bowline_max_fds", &[], 1_024.0);
        server.set("bowline_idle_cut_seconds", &[], 0.0);
        server.set("bowline_component_state", &["models"], 2.0);
        server.set("bowline_sessions", &["connected"], 0.0);
        server.run(7_200);
        assert!(server.heard().is_empty());
    }

    #[test]
    fn a_server_without_figures_raises_nothing() {
        let mut evaluator = Evaluator::new(rules(""), BTreeMap::new());
        let now = Now { running: Duration::ZERO, unix: Duration::from_secs(UNIX) };
        assert!(evaluator.evaluate(now, &[]).is_empty());
    }

    #[test]
    fn descriptors_near_their_limit_fire_when_it_lasts_and_resolve() {
        let mut server = Server::new();
        server.set("bowline_max_fds", &[], 100.0);
        server.set("bowline_open_fds", &[], 90.0);
        server.run(25);
        server.set("bowline_open_fds", &[], 10.0);
        server.run(5);
        assert!(server.heard().is_empty(), "too short to be said");
        server.set("bowline_open_fds", &[], 90.0);
        server.run(60);
        assert_eq!(server.heard(), ["+DescriptorsNearLimit"]);
        let alert = server.only_alert();
        assert_eq!(alert.since, Duration::from_secs(UNIX + 65));
        assert_eq!(alert.summary, "90% of the descriptors that the process may open are in use");
        server.set("bowline_open_fds", &[], 80.0);
        server.run(5);
        assert_eq!(server.heard(), ["-DescriptorsNearLimit"]);
        assert!(server.evaluator.firing().is_empty());
    }

    #[test]
    fn an_alert_that_goes_on_says_what_is_so_now() {
        let mut server = Server::new();
        server.set("bowline_max_fds", &[], 100.0);
        server.set("bowline_open_fds", &[], 90.0);
        server.run(60);
        let since = server.only_alert().since;
        server.set("bowline_open_fds", &[], 99.0);
        server.run(5);
        assert_eq!(server.heard(), ["+DescriptorsNearLimit"]);
        let alert = server.only_alert();
        assert!(alert.summary.starts_with("99%"), "{}", alert.summary);
        assert_eq!(alert.since, since);
    }

    #[test]
    fn connections_of_all_transports_count_against_their_limit() {
        let mut server = Server::new();
        server.set("bowline_max_connections", &[], 100.0);
        server.set("bowline_connections", &["http"], 41.0);
        server.set("bowline_connections", &["websocket"], 40.0);
        server.run(60);
        assert_eq!(server.heard(), ["+ConnectionsNearLimit"]);
    }

    #[test]
    fn an_accept_error_fires_at_once_and_resolves_when_its_window_has_passed() {
        let mut server = Server::new();
        server.add("bowline_accept_errors_total", "aborted", 100.0);
        server.run(10);
        assert!(server.heard().is_empty(), "clients that went away are no error of ours");
        server.add("bowline_accept_errors_total", "emfile", 3.0);
        server.run(5);
        assert_eq!(server.heard(), ["+AcceptErrors"]);
        let alert = server.only_alert();
        assert_eq!(alert.labels["kind"], "emfile");
        assert_eq!(alert.severity(), "critical");
        assert_eq!(
            alert.summary,
            "The operating system did not hand over 3 connections in 5m (emfile)"
        );
        server.run(290);
        assert!(server.heard().is_empty());
        server.run(10);
        assert_eq!(server.heard(), ["-AcceptErrors"]);
    }

    #[test]
    fn errors_from_before_the_first_look_count() {
        let mut server = Server::new();
        server.add("bowline_accept_errors_total", "emfile", 1.0);
        server.run(5);
        assert_eq!(server.heard(), ["+AcceptErrors"]);
    }

    #[test]
    fn idle_connections_that_are_cut_at_one_age_fire() {
        let mut server = Server::new();
        server.set("bowline_idle_cut_seconds", &[], 4.02);
        server.run(5);
        assert_eq!(server.heard(), ["+IdleConnectionsCut"]);
        let summary = &server.only_alert().summary;
        assert!(summary.contains("at the age of 4s 20ms"), "{summary}");
        server.set("bowline_idle_cut_seconds", &[], 0.0);
        server.run(5);
        assert_eq!(server.heard(), ["-IdleConnectionsCut"]);
    }

    #[test]
    fn upgrades_that_fail_fire_by_their_share_and_not_when_there_are_few() {
        let mut server = Server::new();
        server.add("bowline_upgrades_total", "failed", 10.0);
        server.run(300);
        assert!(server.heard().is_empty(), "ten are no measure");
        server.add("bowline_upgrades_total", "done", 90.0);
        server.run(300);
        assert!(server.heard().is_empty(), "one in ten is not unusual");
        server.add("bowline_upgrades_total", "failed", 30.0);
        server.run(300);
        assert_eq!(server.heard(), ["+UpgradesFailing"]);
        server.run(600);
        assert_eq!(server.heard(), ["-UpgradesFailing"]);
    }

    #[test]
    fn disconnects_fire_when_they_are_many_more_than_in_the_hour_before() {
        let mut server = Server::new();
        server.set("bowline_sessions", &["connected"], 10_000.0);
        // Ten a minute is what this server is used to.
        for _ in 0..60 {
            server.add("bowline_disconnects_total", "transport close", 10.0);
            server.run(60);
        }
        assert!(server.heard().is_empty());
        server.add("bowline_disconnects_total", "transport close", 90.0);
        server.run(65);
        assert!(server.heard().is_empty(), "less than three times as many");
        server.add("bowline_disconnects_total", "transport close", 200.0);
        server.run(65);
        assert_eq!(server.heard(), ["+DisconnectsUnusual"]);
        assert_eq!(server.only_alert().labels["reason"], "transport close");
        server.run(300);
        assert_eq!(server.heard(), ["-DisconnectsUnusual"]);
    }

    #[test]
    fn disconnects_after_a_start_are_not_unusual() {
        let mut server = Server::new();
        server.set("bowline_sessions", &["connected"], 10_000.0);
        for _ in 0..20 {
            server.add("bowline_disconnects_total", "transport close", 500.0);
            server.run(60);
        }
        assert!(server.heard().is_empty());
    }

    #[test]
    fn a_wave_of_ping_timeouts_fires_by_what_part_of_the_sessions_went() {
        let mut server = Server::new();
        server.set("bowline_sessions", &["connected"], 1_000.0);
        server.run(60);
        server.add("bowline_disconnects_total", "ping timeout", 50.0);
        server.set("bowline_sessions", &["connected"], 950.0);
        server.run(5);
        assert!(server.heard().is_empty(), "one in twenty");
        server.add("bowline_disconnects_total", "ping timeout", 400.0);
        server.set("bowline_sessions", &["connected"], 550.0);
        server.run(5);
        assert_eq!(server.heard(), ["+PingTimeoutWave"]);
        let summary = &server.only_alert().summary;
        assert!(summary.starts_with("45% of the sessions"), "{summary}");
        server.run(125);
        assert_eq!(server.heard(), ["-PingTimeoutWave"]);
    }

    #[test]
    fn a_few_ping_timeouts_on_a_small_server_are_no_wave() {
        let mut server = Server::new();
        server.set("bowline_sessions", &["connected"], 0.0);
        server.add("bowline_disconnects_total", "ping timeout", 9.0);
        server.run(60);
        assert!(server.heard().is_empty());
    }

    #[test]
    fn each_component_that_failed_has_its_own_alert() {
        let mut server = Server::new();
        server.set("bowline_component_state", &["models"], 3.0);
        server.set("bowline_component_state", &["index"], 1.0);
        server.run(5);
        server.set("bowline_component_state", &["index"], 3.0);
        server.run(5);
        assert_eq!(server.heard(), ["+ComponentFailed", "+ComponentFailed"]);
        server.set("bowline_component_state", &["models"], 2.0);
        server.run(5);
        assert_eq!(server.heard(), ["-ComponentFailed"]);
        assert_eq!(server.only_alert().summary, "The component \"index\" failed");
    }

    #[test]
    fn a_certificate_fires_twice_before_it_ends() {
        let mut server = Server::new();
        let day = 86_400.0;
        server.set(
            "bowline_certificate_expiry_timestamp_seconds",
            &[],
            UNIX as f64 + 14.0 * day + 8.0,
        );
        server.run(5);
        assert!(server.heard().is_empty());
        server.run(5);
        assert_eq!(server.heard(), ["+CertificateExpiresSoon"]);
        let summary = &server.only_alert().summary;
        assert!(summary.ends_with("ends in 13days 23h"), "{summary}");
        server.set("bowline_certificate_expiry_timestamp_seconds", &[], UNIX as f64 + day);
        server.run(5);
        assert_eq!(server.heard(), ["+CertificateExpires"]);
        server.set("bowline_certificate_expiry_timestamp_seconds", &[], UNIX as f64 + 90.0 * day);
        server.run(5);
        assert_eq!(server.heard(), ["-CertificateExpires", "-CertificateExpiresSoon"]);
    }

    #[test]
    fn a_clock_that_is_put_back_ends_no_alert_before_it_began() {
        let mut server = Server::new();
        server.set("bowline_component_state", &["models"], 3.0);
        server.run(5);
        let mut now = server.now();
        now.unix -= Duration::from_secs(3_600);
        now.running += Duration::from_secs(5);
        let ended = server.evaluator.evaluate(now, &[]);
        assert_eq!(ended[0].until, Some(ended[0].since));
    }

    #[test]
    fn a_rule_that_is_switched_off_resolves_what_it_raised() {
        let mut server = Server::new();
        server.set("bowline_component_state", &["models"], 3.0);
        server.set("bowline_idle_cut_seconds", &[], 4.0);
        server.run(5);
        assert_eq!(server.heard().len(), 2);
        let text = "[rules.BowlineComponentFailed]\nenabled = false\n";
        let ended = server.evaluator.set_rules(rules(text), server.now());
        server.hear(&ended);
        server.run(5);
        assert_eq!(server.heard(), ["-ComponentFailed"]);
        assert_eq!(server.only_alert().name(), "BowlineIdleConnectionsCut");
    }

    #[test]
    fn a_rule_that_is_changed_begins_anew_under_its_new_labels() {
        let mut server = Server::new();
        server.set("bowline_component_state", &["models"], 3.0);
        server.run(5);
        server.heard();
        let text = "[rules.BowlineComponentFailed]\nseverity = \"info\"\n";
        let ended = server.evaluator.set_rules(rules(text), server.now());
        server.hear(&ended);
        server.run(5);
        assert_eq!(server.heard(), ["-ComponentFailed", "+ComponentFailed"]);
        assert_eq!(server.only_alert().severity(), "info");
    }

    #[test]
    fn labels_of_the_operator_stand_on_every_alert() {
        let mut server = Server::with("[labels]\nsite = \"berlin\"\n");
        server.set("bowline_component_state", &["models"], 3.0);
        server.run(5);
        let labels = &server.only_alert().labels;
        assert_eq!((&*labels["site"], &*labels["component"]), ("berlin", "models"));
    }
}
