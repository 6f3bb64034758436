//! Reads rules files: all mistakes at once, each with its line.

use std::{borrow::Cow, collections::BTreeMap, ops::RangeInclusive, time::Duration};

use bowline_names::{Kind, Metric};
use toml::de::{DeTable, DeValue};

use super::{
    evaluator::{NAME_LABEL, SEVERITY_LABEL},
    rule::{Condition, LOOK_BACK, Matcher, Rule, Rules, Selection, Severity, Test, places},
};
use crate::config::{
    Mistake, Place,
    document::{Lines, Section, shown},
    duration_text, nearest, read_duration,
};

/// The rules that are built in, as a file.
pub(crate) const BUILT_IN: &str = include_str!("rules.toml");

/// Rules of a file beside those that are built in: more than anybody reads.
const RULES_MAX: usize = 200;

/// The time that a condition must hold.
const HOLD: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3600);

/// A window holds some samples, and what is remembered.
const WINDOW: RangeInclusive<Duration> = Duration::from_secs(10)..=LOOK_BACK;

/// A surge needs something to be compared with.
const SURGE_WINDOW: RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(LOOK_BACK.as_secs() / 4);

/// How soon an end may come.
const WITHIN: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3650 * 86_400);

/// The kinds of conditions, in the order of the documentation.
const KINDS: [&str; 7] = ["value", "ratio", "increase", "share", "surge", "wave", "expiry"];

/// The keys that belong to one kind or another.
const CONDITION_KEYS: [&str; 10] =
    ["of", "to", "among", "window", "above", "below", "is", "at-least", "factor", "within"];

/// The rules that are built in.
pub(crate) fn built_in() -> Rules {
    // A test proves that there are no mistakes.
    read(BUILT_IN, &Rules::default()).0
}

/// Reads a file whose rules change or join `base`. What is wrong is left out of the rules.
pub(crate) fn read(text: &str, base: &Rules) -> (Rules, Vec<Mistake>) {
    let lines = Lines::of(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut mistakes: Vec<Mistake> = (errors.iter())
        .map(|error| Mistake {
            place: Place::Line(error.span().map_or(1, |span| lines.line(span))),
            message: error.message().to_owned(),
        })
        .collect();
    let notation: Vec<Place> = mistakes.iter().map(|mistake| mistake.place.clone()).collect();
    let mut found = Vec::new();
    let rules = document_of(Section::root(document.get_ref(), &lines), base, &mut found);
    // What a line seems to say when it cannot be read is no mistake of its own.
    found.retain(|mistake| !notation.contains(&mistake.place));
    mistakes.append(&mut found);
    mistakes.sort_by(|a, b| a.place.cmp(&b.place));
    (rules, mistakes)
}

fn document_of(mut root: Section<'_>, base: &Rules, mistakes: &mut Vec<Mistake>) -> Rules {
    let mut rules = base.clone();
    root.value("labels", mistakes, |value| {
        rules.labels.extend(labels(value)?);
        Ok(())
    });
    if let Some(table) = root.section("rules", mistakes) {
        for (name, section) in table.sections(mistakes) {
            let place = rules.rules.iter().position(|rule| rule.name == name);
            let known = place.map(|place| rules.rules[place].clone());
            let reader = Reader { section, name: &name, known: known.as_ref(), mistakes };
            match (reader.rule(), place) {
                (Read::Off, Some(place)) => {
                    rules.rules.remove(place);
                }
                (Read::Rule(rule), Some(place)) => rules.rules[place] = *rule,
                (Read::Rule(rule), None) => rules.rules.push(*rule),
                (Read::Off | Read::Wrong, _) => {}
            }
        }
        if rules.rules.len() > base.rules.len() + RULES_MAX {
            let message = format!("a file may add {RULES_MAX} rules");
            mistakes.push(Mistake { place: Place::Line(1), message });
        }
    }
    root.finish(&[], mistakes);
    rules
}

/// What came of one table.
enum Read {
    Rule(Box<Rule>),
    /// It is switched off.
    Off,
    Wrong,
}

/// Reads the table of one rule.
struct Reader<'a> {
    section: Section<'a>,
    name: &'a str,
    /// The rule of this name that the file changes.
    known: Option<&'a Rule>,
    mistakes: &'a mut Vec<Mistake>,
}

impl<'a> Reader<'a> {
    fn rule(mut self) -> Read {
        let before = self.mistakes.len();
        if !is_name(self.name) {
            self.complain(format!(
                "`rules.\"{}\"`: a name has letters, digits and underscores only, as Prometheus \
                 wants them",
                self.name
            ));
        }
        let enabled = self.value("enabled", |value| {
            value.as_bool().ok_or_else(|| format!("is {}; it must be true or false", shown(value)))
        });
        let condition = self.condition();
        let severity = self.value("severity", severity);
        let hold = self.value("for", duration(HOLD));
        let (summary, remedy) = (self.value("summary", text), self.value("remedy", text));

        let known = self.known.map(|rule| (rule.summary.clone(), rule.remedy.clone()));
        let (known_summary, known_remedy) = known.unzip();
        let summary = self.needed("summary", "what is so, in one line", summary, known_summary);
        let remedy = self.needed("remedy", "what to do", remedy, known_remedy);
        if let (Some(summary), Some(condition)) = (&summary, &condition) {
            self.check_places(summary, condition);
        }
        let severity = severity.or(self.known.map(|rule| rule.severity));
        let hold = hold.or(self.known.map(|rule| rule.hold));
        let name = self.name.to_owned();
        let mistakes = self.mistakes;
        self.section.finish(&[], mistakes);
        if mistakes.len() > before {
            return Read::Wrong;
        }
        if enabled == Some(false) {
            return Read::Off;
        }
        let (Some(summary), Some(remedy), Some(condition)) = (summary, remedy, condition) else {
            return Read::Wrong;
        };
        Read::Rule(Box::new(Rule {
            name,
            severity: severity.unwrap_or(Severity::Warning),
            hold: hold.unwrap_or_default(),
            summary,
            remedy,
            condition,
        }))
    }

    fn condition(&mut self) -> Option<Condition> {
        let kind = self.kind()?;
        let known = self.known.map(|rule| rule.condition.clone());
        match kind {
            "value" => self.comparison(known),
            "ratio" => {
                let known = match known {
                    Some(Condition::Ratio { of, to, above }) => (Some(of), Some(to), Some(above)),
                    _ => (None, None, None),
                };
                let of = self.figures("of", GAUGE_OR_COUNTER, known.0);
                let to = self.figures("to", GAUGE_OR_COUNTER, known.1);
                let above = self.number("above", known.2);
                Some(Condition::Ratio { of: of?, to: to?, above: above? })
            }
            "increase" => {
                let known = match known {
                    Some(Condition::Increase { of, window, above }) => {
                        (Some(of), Some(window), Some(above))
                    }
                    _ => (None, None, None),
                };
                let of = self.figures("of", COUNTER, known.0);
                let window = self.time("window", WINDOW, known.1);
                let above = self.number("above", known.2);
                Some(Condition::Increase { of: of?, window: window?, above: above? })
            }
            "share" | "wave" => self.part(kind, known),
            "surge" => {
                let known = match known {
                    Some(Condition::Surge { of, window, factor, least }) => {
                        (Some(of), Some(window), Some(factor), Some(least))
                    }
                    _ => (None, None, None, None),
                };
                let of = self.figures("of", COUNTER, known.0);
                let window = self.time("window", SURGE_WINDOW, known.1);
                let factor = self.number("factor", known.2);
                let least = self.number("at-least", known.3);
                Some(Condition::Surge { of: of?, window: window?, factor: factor?, least: least? })
            }
            _ => {
                let known = match known {
                    Some(Condition::Expiry { of, within }) => (Some(of), Some(within)),
                    _ => (None, None),
                };
                let of = self.figures("of", GAUGE, known.0);
                let within = self.time("within", WITHIN, known.1);
                Some(Condition::Expiry { of: of?, within: within? })
            }
        }
    }

    /// Which kind of condition it is: as written, or as the known rule has it.
    fn kind(&mut self) -> Option<&'static str> {
        let written = self.value("kind", kind);
        let known = self.known.map(|rule| rule.condition.kind());
        if let (Some(kind), Some(known)) = (written, known)
            && kind != known
        {
            self.complain(format!(
                "`rules.\"{}\".kind` is \"{kind}\", but this rule is built in as \"{known}\"; \
                 switch it off with `enabled = false` and write another",
                self.name
            ));
            return self.no_kind();
        }
        if written.or(known).is_none() {
            let words = format!("{}: no rule of this name is built in", quoted(&KINDS));
            self.section.require("kind", &words, self.mistakes);
            return self.no_kind();
        }
        written.or(known)
    }

    /// What belongs to a kind that nobody knows is not complained about on top.
    fn no_kind(&mut self) -> Option<&'static str> {
        for key in CONDITION_KEYS {
            self.value(key, |_| Ok(()));
        }
        None
    }

    fn comparison(&mut self, known: Option<Condition>) -> Option<Condition> {
        let (known, known_test) = match known {
            Some(Condition::Value { of, test }) => (Some(of), Some(test)),
            _ => (None, None),
        };
        let of = self.figures("of", GAUGE, known);
        let tests = [
            self.value("above", number).map(Test::Above),
            self.value("below", number).map(Test::Below),
            self.value("is", number).map(Test::Is),
        ];
        let written: Vec<Test> = tests.into_iter().flatten().collect();
        let test = match (&written[..], known_test) {
            ([test], _) => *test,
            ([], Some(test)) => test,
            _ => {
                let name = self.name;
                self.complain(format!("`rules.\"{name}\"` needs one of `above`, `below` and `is`"));
                return None;
            }
        };
        Some(Condition::Value { of: of?, test })
    }

    fn part(&mut self, kind: &str, known: Option<Condition>) -> Option<Condition> {
        let (of, among, window, above, least) = match known {
            Some(
                Condition::Share { of, among, window, above, least }
                | Condition::Wave { of, among, window, above, least },
            ) => (Some(of), Some(among), Some(window), Some(above), Some(least)),
            _ => (None, None, None, None, None),
        };
        let is_share = kind == "share";
        let of = self.figures("of", COUNTER, of);
        let among = self.figures("among", if is_share { COUNTER } else { GAUGE }, among);
        let window = self.time("window", WINDOW, window);
        let above = self.number("above", above);
        let least = self.number("at-least", least);
        let (of, among, window, above, least) = (of?, among?, window?, above?, least?);
        Some(if is_share {
            Condition::Share { of, among, window, above, least }
        } else {
            Condition::Wave { of, among, window, above, least }
        })
    }

    fn figures(
        &mut self,
        key: &'static str,
        kinds: &[Kind],
        known: Option<Selection>,
    ) -> Option<Selection> {
        let written = self.value(key, |value| figures(value, kinds));
        self.needed(key, "a metric", written, known)
    }

    fn number(&mut self, key: &'static str, known: Option<f64>) -> Option<f64> {
        let written = self.value(key, number);
        self.needed(key, "a number", written, known)
    }

    fn time(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
        known: Option<Duration>,
    ) -> Option<Duration> {
        let written = self.value(key, duration(range));
        self.needed(key, "a duration", written, known)
    }

    /// A key that must be written unless the rule has it already.
    fn needed<T>(
        &mut self,
        key: &'static str,
        words: &str,
        written: Option<T>,
        known: Option<T>,
    ) -> Option<T> {
        let found = written.or(known);
        if found.is_none() {
            self.section.require(key, words, self.mistakes);
        }
        found
    }

    fn value<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'a>) -> Result<T, String>,
    ) -> Option<T> {
        let mut found = None;
        self.section.value(key, self.mistakes, |value| {
            found = Some(read(value)?);
            Ok(())
        });
        found
    }

    /// Places that nothing would fill are slips.
    fn check_places(&mut self, summary: &str, condition: &Condition) {
        let mut known = vec!["value", "threshold"];
        known.extend(condition.window().map(|_| "window"));
        if condition.each_series() {
            known.extend(condition.of().metric.labels());
        }
        for place in places(summary) {
            if !known.contains(&place.as_str()) {
                self.complain(format!(
                    "`rules.\"{}\".summary` has the place {{{place}}}; known are {}",
                    self.name,
                    known.join(", ")
                ));
            }
        }
    }

    fn complain(&mut self, message: String) {
        self.mistakes.push(Mistake { place: Place::Line(self.section.line()), message });
    }
}

const GAUGE: &[Kind] = &[Kind::Gauge];
const COUNTER: &[Kind] = &[Kind::Counter];
const GAUGE_OR_COUNTER: &[Kind] = &[Kind::Gauge, Kind::Counter];

/// A name that Prometheus takes for a label or an alert.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn kind(value: &DeValue<'_>) -> Result<&'static str, String> {
    one_of(value, &KINDS.map(|kind| (kind, kind)))
}

fn severity(value: &DeValue<'_>) -> Result<Severity, String> {
    one_of(value, &Severity::ALL)
}

fn one_of<T: Copy>(value: &DeValue<'_>, choices: &[(&'static str, T)]) -> Result<T, String> {
    let word = value.as_str().unwrap_or_default();
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == word) {
        return Ok(*choice);
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let mut message = format!("is {}; it may be {}", shown(value), quoted(&names));
    if let Some(nearest) = nearest(word, names) {
        message.push_str(&format!("; did you mean \"{nearest}\"?"));
    }
    Err(message)
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(" or ")
}

fn text(value: &DeValue<'_>) -> Result<String, String> {
    let text = value.as_str().map(str::trim).filter(|text| !text.is_empty());
    text.map(str::to_owned).ok_or_else(|| format!("is {}; write a sentence", shown(value)))
}

fn number(value: &DeValue<'_>) -> Result<f64, String> {
    let digits = match value {
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        _ => String::new(),
    };
    (digits.replace('_', "").parse().ok())
        .filter(|number: &f64| number.is_finite())
        .ok_or_else(|| format!("is {}; write a number such as 0.8 or 20", shown(value)))
}

fn duration(
    range: RangeInclusive<Duration>,
) -> impl FnOnce(&DeValue<'_>) -> Result<Duration, String> {
    move |value| {
        let written = value.as_str().unwrap_or_default();
        let duration =
            read_duration(written).map_err(|wanted| format!("is {}; {wanted}", shown(value)))?;
        if range.contains(&duration) {
            return Ok(duration);
        }
        let (least, most) = (duration_text(*range.start()), duration_text(*range.end()));
        Err(format!("is {}; it must be from {least} to {most}", shown(value)))
    }
}

/// Labels for every alert.
fn labels(value: &DeValue<'_>) -> Result<BTreeMap<String, String>, String> {
    let wanted = "write [labels] and lines such as site = \"berlin\"";
    let table = value.as_table().ok_or_else(|| format!("is {}; {wanted}", shown(value)))?;
    let mut labels = BTreeMap::new();
    for (key, value) in table {
        let name = key.get_ref().to_string();
        if !is_name(&name) {
            return Err(format!("has \"{name}\"; a label has letters, digits and underscores"));
        }
        if [NAME_LABEL, SEVERITY_LABEL].contains(&name.as_str()) {
            return Err(format!("has \"{name}\", which every alert has by itself"));
        }
        let value = value.get_ref();
        let text = value.as_str().ok_or_else(|| format!("has {}; {wanted}", shown(value)))?;
        labels.insert(name, text.to_owned());
    }
    Ok(labels)
}

fn figures(value: &DeValue<'_>, kinds: &[Kind]) -> Result<Selection, String> {
    let wanted = "write a metric such as 'bowline_disconnects_total{reason=\"ping timeout\"}'";
    let text = value.as_str().ok_or_else(|| format!("is {}; {wanted}", shown(value)))?;
    let selection = selection(text)?;
    if kinds.contains(&selection.metric.kind()) {
        return Ok(selection);
    }
    let names: Vec<&str> = kinds.iter().map(|kind| kind_name(*kind)).collect();
    let found = kind_name(selection.metric.kind());
    Err(format!(
        "is {}, a {found}; here it must be a {}",
        selection.metric.name(),
        names.join(" or a ")
    ))
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

/// Reads a metric with matchers, as [`Selection`] is displayed.
fn selection(text: &str) -> Result<Selection, String> {
    let text = text.trim();
    let (name, matchers) = match text.split_once('{') {
        None => (text, None),
        Some((name, rest)) => {
            let inner = rest.strip_suffix('}');
            let inner = inner.ok_or_else(|| format!("is {text:?}; a brace is not closed"))?;
            (name.trim(), Some(inner))
        }
    };
    let metric = Metric::ALL.iter().copied().find(|row| row.name() == name);
    let metric = metric.ok_or_else(|| {
        let mut message = format!("names \"{name}\", which is no metric");
        match metric_near(name) {
            Some(nearest) => message.push_str(&format!("; did you mean \"{nearest}\"?")),
            None => message.push_str("; docs/names.md lists them"),
        }
        message
    })?;
    let mut rest = matchers.unwrap_or_default().trim();
    let mut matchers = Vec::new();
    while !rest.is_empty() {
        let (matcher, after) = matcher(rest, metric)?;
        matchers.push(matcher);
        rest = after.trim_start();
        if let Some(after) = rest.strip_prefix(',') {
            rest = after.trim_start();
        } else if !rest.is_empty() {
            return Err(format!("has {rest:?} where a comma must be"));
        }
    }
    Ok(Selection { metric, matchers })
}

/// All names begin alike, which would make any two of them near.
fn metric_near(name: &str) -> Option<&'static str> {
    let bare = |name: &'static str| name.strip_prefix("bowline_").unwrap_or(name);
    // The finder of near words knows words with hyphens.
    let names: Vec<(String, &'static str)> =
        Metric::ALL.iter().map(|row| (bare(row.name()).replace('_', "-"), row.name())).collect();
    let word = name.strip_prefix("bowline_").unwrap_or(name).replace('_', "-");
    let found = nearest(&word, names.iter().map(|(bare, _)| bare.as_str()))?;
    names.iter().find(|(bare, _)| bare == found).map(|(_, name)| *name)
}

/// Reads one matcher, and returns what stands behind it.
fn matcher(text: &str, metric: Metric) -> Result<(Matcher, &str), String> {
    let wrong = || format!("has {text:?}; write label=\"value\" or label!=\"value\"");
    let end = text.find(['=', '!']).ok_or_else(wrong)?;
    let (name, rest) = (text[..end].trim(), &text[end..]);
    let (equal, rest) = match (rest.strip_prefix("!="), rest.strip_prefix('=')) {
        (Some(rest), _) => (false, rest),
        (None, Some(rest)) => (true, rest),
        (None, None) => return Err(wrong()),
    };
    let label = metric.labels().iter().copied().find(|label| *label == name).ok_or_else(|| {
        let labels: Cow<'_, str> = match metric.labels() {
            [] => "no labels".into(),
            labels => format!("the labels {}", labels.join(", ")).into(),
        };
        format!("has the label \"{name}\"; {} has {labels}", metric.name())
    })?;
    let rest = rest.trim_start().strip_prefix('"').ok_or_else(wrong)?;
    let mut value = String::new();
    let mut letters = rest.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((Matcher { label, equal, value }, &rest[at + 1..])),
            '\\' => match letters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, letter @ ('"' | '\\'))) => value.push(letter),
                _ => return Err(wrong()),
            },
            letter => value.push(letter),
        }
    }
    Err(wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        (read(text, &built_in()).1.into_iter())
            .map(|Mistake { place, message }| match place {
                Place::Line(line) => format!("{line}: {message}"),
                Place::Outside(what) => format!("{what}: {message}"),
            })
            .collect()
    }

    fn rule(text: &str, name: &str) -> Option<Rule> {
        let (rules, mistakes) = read(text, &built_in());
        assert_eq!(mistakes, []);
        rules.rules.into_iter().find(|rule| rule.name == name)
    }

    #[test]
    fn the_built_in_rules_have_no_mistakes() {
        let (rules, mistakes) = read(BUILT_IN, &Rules::default());
        assert_eq!(mistakes, []);
        assert_eq!(rules.rules.len(), BUILT_IN.matches("\n[rules.").count());
    }

    #[test]
    fn the_built_in_rules_show_every_kind() {
        let rules = built_in();
        for kind in KINDS {
            assert!(rules.rules.iter().any(|rule| rule.condition.kind() == kind), "{kind}");
        }
    }

    #[test]
    fn the_page_has_every_rule_and_kind_and_its_example_is_right() {
        let page = include_str!("../../../../docs/alerts.md");
        for rule in built_in().rules {
            let row = format!("| `{}` | {} |", rule.name, rule.severity.name());
            assert!(page.contains(&row), "{row}");
        }
        for kind in KINDS {
            assert!(page.contains(&format!("| `{kind}` |")), "{kind}");
        }
        let example = page.split("```toml\n").find(|part| part.contains("[rules."));
        let example = example.and_then(|part| part.split("```").next()).unwrap();
        assert_eq!(mistakes(example), [""; 0]);
    }

    #[test]
    fn a_file_changes_only_what_it_says() {
        let name = "BowlineDescriptorsNearLimit";
        let changed =
            rule("[rules.BowlineDescriptorsNearLimit]\nabove = 0.9\nfor = \"0s\"\n", name).unwrap();
        let before = rule("", name).unwrap();
        assert_eq!(changed.condition.threshold(), 0.9);
        assert_eq!(changed.hold, Duration::ZERO);
        assert_eq!(changed.condition.of(), before.condition.of());
        assert_eq!((changed.summary, changed.remedy), (before.summary, before.remedy));
    }

    #[test]
    fn a_rule_can_be_switched_off() {
        let name = "BowlineAcceptErrors";
        assert!(rule("", name).is_some());
        assert!(rule("[rules.BowlineAcceptErrors]\nenabled = false\n", name).is_none());
    }

    #[test]
    fn a_file_can_add_a_rule_of_every_kind() {
        let text = r#"
[labels]
site = "berlin"
[rules.ManySessions]
kind = "value"
of = 'bowline_sessions{state="connected"}'
above = 10_000
severity = "info"
summary = "{value} sessions ({state})"
remedy = "Add a server."
[rules.Refused]
kind = "increase"
of = 'bowline_limit_hits_total{limit!="max-payload", limit!="attachments"}'
window = "1m"
above = 5
summary = "{limit} was hit {value} times in {window}"
remedy = "Look at the limit."
"#;
        let sessions = rule(text, "ManySessions").unwrap();
        assert_eq!(sessions.severity, Severity::Info);
        assert_eq!(sessions.condition.threshold(), 10_000.0);
        let refused = rule(text, "Refused").unwrap();
        assert_eq!(refused.severity, Severity::Warning);
        assert_eq!(refused.condition.of().matchers.len(), 2);
        assert_eq!(read(text, &built_in()).0.labels["site"], "berlin");
    }

    #[test]
    fn all_mistakes_are_reported_at_once_with_their_lines() {
        let text = r#"[rules.BowlineDescriptorsNearLimit]
abve = 0.9
severity = "urgent"
[rules.BowlineAcceptErrors]
kind = "value"
is = 5
[rules.Mine]
kind = "increase"
of = "bowline_acept_errors_total"
window = "5 parsecs"
summary = "{reason}"
[rules.Wrong]
kind = "surge"
of = 'bowline_sessions{room="a"}'
window = "1h"
factor = 2
at-least = 1
summary = "x"
remedy = "y"
[rules.Nothing]
[labels]
severity = "x"
"#;
        assert_eq!(
            mistakes(text),
            [
                "2: unknown key `rules.\"BowlineDescriptorsNearLimit\".abve`; did you mean `above`?",
                "3: `rules.\"BowlineDescriptorsNearLimit\".severity` is \"urgent\"; it may be \"info\" or \"warning\" or \"critical\"",
                "4: `rules.\"BowlineAcceptErrors\".kind` is \"value\", but this rule is built in as \"increase\"; switch it off with `enabled = false` and write another",
                "7: `rules.\"Mine\".above` is missing; write a number",
                "7: `rules.\"Mine\".remedy` is missing; write what to do",
                "9: `rules.\"Mine\".of` names \"bowline_acept_errors_total\", which is no metric; did you mean \"bowline_accept_errors_total\"?",
                "10: `rules.\"Mine\".window` is \"5 parsecs\"; write a duration such as \"500ms\", \"25s\" or \"2m\"",
                "14: `rules.\"Wrong\".of` has the label \"room\"; bowline_sessions has the labels state",
                "15: `rules.\"Wrong\".window` is \"1h\"; it must be from 10s to 15m",
                "20: `rules.\"Nothing\".kind` is missing; write \"value\" or \"ratio\" or \"increase\" or \"share\" or \"surge\" or \"wave\" or \"expiry\": no rule of this name is built in",
                "20: `rules.\"Nothing\".summary` is missing; write what is so, in one line",
                "20: `rules.\"Nothing\".remedy` is missing; write what to do",
                "21: `labels` has \"severity\", which every alert has by itself",
            ]
        );
    }

    #[test]
    fn a_place_in_a_summary_must_be_one_that_is_filled() {
        let text = "[rules.BowlinePingTimeoutWave]\nsummary = \"{reason} {value}\"\n";
        assert_eq!(
            mistakes(text),
            ["1: `rules.\"BowlinePingTimeoutWave\".summary` has the place {reason}; known are \
              value, threshold, window"]
        );
    }

    #[test]
    fn figures_are_read_as_they_are_written() {
        for text in [
            "bowline_open_fds",
            "bowline_disconnects_total{reason=\"ping timeout\"}",
            "bowline_limit_hits_total{limit!=\"a \\\"b\\\" \\\\ c\"}",
        ] {
            assert_eq!(selection(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "bowline_open_fds{",
            "bowline_open_fds{x=\"1\"}",
            "bowline_disconnects_total{reason}",
            "bowline_disconnects_total{reason=~\"a\"}",
            "bowline_disconnects_total{reason=\"a}",
            "bowline_disconnects_total{reason=\"a\" reason=\"b\"}",
            "bowline_disconnects_total{reason=\"a\"}}",
        ] {
            assert!(selection(text).is_err(), "{text}");
        }
    }
}
