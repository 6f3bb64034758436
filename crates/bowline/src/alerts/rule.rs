//! What a rule says: which figures, how they are compared, for how long, and the words.

use std::{borrow::Cow, collections::BTreeMap, fmt, time::Duration};

use bowline_names::Metric;

use crate::{config, metrics::Sample};

/// The rules that are in force.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Rules {
    /// In the order in which they were written; those that are switched off are left out.
    pub(crate) rules: Vec<Rule>,
    /// Labels that every alert gets, beside its own.
    pub(crate) labels: BTreeMap<String, String>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rule {
    /// The name of the alert, the same inside, at receivers and in Prometheus.
    pub(crate) name: String,
    pub(crate) severity: Severity,
    /// How long the condition must hold without a break before the alert fires.
    pub(crate) hold: Duration,
    /// One line, with places in braces for what is only known when it fires.
    pub(crate) summary: String,
    /// What to do.
    pub(crate) remedy: String,
    pub(crate) condition: Condition,
}

/// How urgent an alert is. Routes of an Alertmanager are usually written by this label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// Worth knowing.
    Info,
    /// Look at it in working hours.
    Warning,
    /// Somebody has to get up.
    Critical,
}

impl Severity {
    /// Every severity with the word for it.
    pub(crate) const ALL: [(&'static str, Self); 3] =
        [("info", Self::Info), ("warning", Self::Warning), ("critical", Self::Critical)];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// When a rule applies. What is said of "each" series can fire once for each of them; the others
/// add their series up and fire once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Condition {
    /// Each gauge compared with a number.
    Value { of: Selection, test: Test },
    /// One sum over another.
    Ratio { of: Selection, to: Selection, above: f64 },
    /// How much each counter grew within the window.
    Increase { of: Selection, window: Duration, above: f64 },
    /// The part of `of` in the growth of `among`, which must have grown by `least`.
    Share { of: Selection, among: Selection, window: Duration, above: f64, least: f64 },
    /// Growth of each counter beyond `factor` times its average in the rest of the last
    /// [`LOOK_BACK`], and by `least`.
    Surge { of: Selection, window: Duration, factor: f64, least: f64 },
    /// The growth of `of`, which must be `least`, as a part of the gauge `among` and what it lost.
    Wave { of: Selection, among: Selection, window: Duration, above: f64, least: f64 },
    /// Each point in time, in seconds since 1970, that comes within so long. Zero is none.
    Expiry { of: Selection, within: Duration },
}

/// The time that a surge is compared with, and the longest window of any rule.
pub(crate) const LOOK_BACK: Duration = Duration::from_secs(3600);

/// How much of [`LOOK_BACK`] must have been seen before anything is called a surge: less is no
/// measure, and everything is new after a start.
pub(crate) const LOOK_BACK_LEAST: Duration = Duration::from_secs(1800);

/// How a gauge is compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Test {
    Above(f64),
    Below(f64),
    Is(f64),
}

impl Test {
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Self::Above(limit) => value > limit,
            Self::Below(limit) => value < limit,
            Self::Is(limit) => value == limit,
        }
    }
}

/// Some series of one metric.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Selection {
    pub(crate) metric: Metric,
    pub(crate) matchers: Vec<Matcher>,
}

/// What a label must be, or must not be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Matcher {
    pub(crate) label: &'static str,
    pub(crate) equal: bool,
    pub(crate) value: String,
}

impl Selection {
    /// Whether a series of that metric with these values of its labels is meant.
    pub(crate) fn picks(&self, metric: Metric, labels: &[Cow<'static, str>]) -> bool {
        let value = |label| {
            let place = metric.labels().iter().position(|name| *name == label);
            place.and_then(|place| labels.get(place)).map_or("", |value| value)
        };
        metric == self.metric
            && (self.matchers.iter())
                .all(|matcher| (value(matcher.label) == matcher.value) == matcher.equal)
    }

    /// Exactly one series.
    pub(crate) fn only(metric: Metric, labels: &[Cow<'static, str>]) -> Self {
        let matchers = (metric.labels().iter().zip(labels))
            .map(|(label, value)| Matcher { label, equal: true, value: value.to_string() })
            .collect();
        Self { metric, matchers }
    }

    pub(crate) fn picks_sample(&self, sample: &Sample) -> bool {
        self.picks(sample.metric, &sample.labels)
    }
}

/// As Prometheus writes it.
impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.metric.name())?;
        for (number, Matcher { label, equal, value }) in self.matchers.iter().enumerate() {
            let before = if number == 0 { "{" } else { "," };
            let sign = if *equal { "=" } else { "!=" };
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(f, "{before}{label}{sign}\"{value}\"")?;
        }
        f.write_str(if self.matchers.is_empty() { "" } else { "}" })
    }
}

/// What kind of number the value of an alert is, for the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Plain,
    /// A part of one.
    Part,
    Seconds,
}

impl Unit {
    /// Writes a value for people.
    pub(crate) fn text(self, value: f64) -> String {
        match self {
            Self::Plain => short(value),
            Self::Part => format!("{}%", short(value * 100.0)),
            Self::Seconds => Duration::try_from_secs_f64(value.max(0.0))
                .map_or_else(|_| short(value), |duration| config::duration_text(coarse(duration))),
        }
    }
}

impl Condition {
    /// The word for it in a rules file.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Value { .. } => "value",
            Self::Ratio { .. } => "ratio",
            Self::Increase { .. } => "increase",
            Self::Share { .. } => "share",
            Self::Surge { .. } => "surge",
            Self::Wave { .. } => "wave",
            Self::Expiry { .. } => "expiry",
        }
    }

    /// The figures that can make it fire.
    pub(crate) fn of(&self) -> &Selection {
        match self {
            Self::Value { of, .. }
            | Self::Ratio { of, .. }
            | Self::Increase { of, .. }
            | Self::Share { of, .. }
            | Self::Surge { of, .. }
            | Self::Wave { of, .. }
            | Self::Expiry { of, .. } => of,
        }
    }

    /// Whether each series can fire, which puts its labels on the alert.
    pub(crate) fn each_series(&self) -> bool {
        match self {
            Self::Value { .. }
            | Self::Increase { .. }
            | Self::Surge { .. }
            | Self::Expiry { .. } => true,
            Self::Ratio { .. } | Self::Share { .. } | Self::Wave { .. } => false,
        }
    }

    /// The counters whose past must be kept.
    pub(crate) fn counters(&self) -> Vec<&Selection> {
        match self {
            Self::Value { .. } | Self::Ratio { .. } | Self::Expiry { .. } => Vec::new(),
            Self::Increase { of, .. } | Self::Surge { of, .. } | Self::Wave { of, .. } => vec![of],
            Self::Share { of, among, .. } => vec![of, among],
        }
    }

    pub(crate) fn window(&self) -> Option<Duration> {
        match self {
            Self::Increase { window, .. }
            | Self::Share { window, .. }
            | Self::Surge { window, .. }
            | Self::Wave { window, .. } => Some(*window),
            Self::Value { .. } | Self::Ratio { .. } | Self::Expiry { .. } => None,
        }
    }

    /// What kind of number its value is.
    pub(crate) fn unit(&self) -> Unit {
        match self {
            Self::Ratio { .. } | Self::Share { .. } | Self::Wave { .. } => Unit::Part,
            Self::Expiry { .. } => Unit::Seconds,
            Self::Value { of, .. } if of.metric.name().ends_with("_seconds") => Unit::Seconds,
            Self::Value { .. } | Self::Increase { .. } | Self::Surge { .. } => Unit::Plain,
        }
    }

    /// The number that is compared with.
    pub(crate) fn threshold(&self) -> f64 {
        match self {
            Self::Value {
                test: Test::Above(limit) | Test::Below(limit) | Test::Is(limit), ..
            } => *limit,
            Self::Ratio { above, .. }
            | Self::Increase { above, .. }
            | Self::Share { above, .. }
            | Self::Wave { above, .. } => *above,
            Self::Surge { factor, .. } => *factor,
            Self::Expiry { within, .. } => within.as_secs_f64(),
        }
    }

    /// The threshold for people.
    pub(crate) fn threshold_text(&self) -> String {
        let unit = match self {
            Self::Surge { .. } => Unit::Plain,
            _ => self.unit(),
        };
        unit.text(self.threshold())
    }
}

/// Fills the places in a summary. A name that `known` does not know stays as it is; the reader of
/// rules has refused those.
pub(crate) fn fill(template: &str, known: impl Fn(&str) -> Option<String>) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        match after.split_once('}') {
            Some((name, behind)) => {
                match known(name) {
                    Some(filled) => text.push_str(&filled),
                    None => text.push_str(&format!("{{{name}}}")),
                }
                rest = behind;
            }
            None => {
                text.push('{');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

/// The names of the places in a summary.
pub(crate) fn places(template: &str) -> Vec<String> {
    let names = std::cell::RefCell::new(Vec::new());
    fill(template, |name| {
        names.borrow_mut().push(name.to_owned());
        None
    });
    names.into_inner()
}

/// Four digits that count, as people read figures.
fn short(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let whole = value.abs().log10().floor() as i32;
    let decimals = usize::try_from(3 - whole).unwrap_or(0).min(9);
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    text
}

/// Nobody wants the seconds of a fortnight.
fn coarse(duration: Duration) -> Duration {
    let step = match duration.as_secs() {
        0..60 => return Duration::from_millis(duration.as_millis().try_into().unwrap_or(u64::MAX)),
        60..3_600 => 1,
        3_600..86_400 => 60,
        _ => 3_600,
    };
    Duration::from_secs(duration.as_secs() / step * step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_picks_by_labels_that_are_and_are_not() {
        let matcher = |equal| Matcher { label: "kind", equal, value: "aborted".to_owned() };
        let is = Selection { metric: Metric::AcceptErrors, matchers: vec![matcher(true)] };
        let is_not = Selection { metric: Metric::AcceptErrors, matchers: vec![matcher(false)] };
        for (value, aborted) in [("aborted", true), ("emfile", false)] {
            let labels = [Cow::Borrowed(value)];
            assert_eq!(is.picks(Metric::AcceptErrors, &labels), aborted);
            assert_eq!(is_not.picks(Metric::AcceptErrors, &labels), !aborted);
            assert!(!is.picks(Metric::LimitHits, &labels));
        }
        assert_eq!(is_not.to_string(), "bowline_accept_errors_total{kind!=\"aborted\"}");
    }

    #[test]
    fn a_summary_is_filled_where_it_has_places() {
        let known = |name: &str| (name == "value").then(|| "5".to_owned());
        assert_eq!(fill("{value} of {what} {", known), "5 of {what} {");
        assert_eq!(places("{value} of {what}"), ["value", "what"]);
    }

    #[test]
    fn values_are_written_for_people() {
        assert_eq!(Unit::Part.text(0.853_21), "85.32%");
        assert_eq!(Unit::Part.text(0.8), "80%");
        assert_eq!(Unit::Plain.text(12_345.0), "12345");
        assert_eq!(Unit::Plain.text(0.001), "0.001");
        assert_eq!(Unit::Plain.text(0.0), "0");
        assert_eq!(Unit::Seconds.text(4.0), "4s");
        assert_eq!(Unit::Seconds.text(13.0 * 86_400.0 + 3_600.0 + 17.0), "13days 1h");
        assert_eq!(Unit::Seconds.text(-5.0), "0s");
    }
}
