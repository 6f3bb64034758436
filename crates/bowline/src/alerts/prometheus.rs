//! The same rules for a Prometheus: a file of alerting rules.
//!
//! Growth is what `increase` makes of it, which guesses what lies between two scrapes: small
//! numbers may differ from those that the server counts by itself.

use std::{fmt::Write as _, time::Duration};

use super::rule::{Condition, LOOK_BACK, Rule, Rules, Selection, Test, Unit, fill};

/// Writes a rules file for Prometheus.
pub(crate) fn rules_file(rules: &Rules) -> String {
    let mut text = String::from(
        "# Bowline's alerts for Prometheus, written by `bowline alerts print --prometheus`.\n\
         groups:\n  - name: bowline\n    rules:\n",
    );
    for rule in &rules.rules {
        // Writing to a string cannot fail.
        let _ = write_rule(&mut text, rule, rules);
    }
    if rules.rules.is_empty() {
        text = text.replace("    rules:\n", "    rules: []\n");
    }
    text
}

fn write_rule(text: &mut String, rule: &Rule, rules: &Rules) -> std::fmt::Result {
    writeln!(text, "      - alert: {}", rule.name)?;
    writeln!(text, "        expr: {}", quoted(&expression(&rule.condition)))?;
    if !rule.hold.is_zero() {
        writeln!(text, "        for: {}", span(rule.hold))?;
    }
    writeln!(text, "        labels:\n          severity: {}", rule.severity.name())?;
    for (name, value) in &rules.labels {
        writeln!(text, "          {name}: {}", quoted(&literal(value)))?;
    }
    writeln!(text, "        annotations:")?;
    writeln!(text, "          summary: {}", quoted(&summary(rule)))?;
    writeln!(text, "          remedy: {}", quoted(&literal(&rule.remedy)))
}

/// A string of YAML. What JSON quotes, YAML reads.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Words that are no template.
fn literal(text: &str) -> String {
    text.replace("{{", "{{ \"{{\" }}")
}

/// The summary as a template.
fn summary(rule: &Rule) -> String {
    let condition = &rule.condition;
    fill(&rule.summary, |place| {
        Some(match place {
            "value" => match condition.unit() {
                Unit::Plain => "{{ $value | humanize }}".to_owned(),
                Unit::Part => "{{ $value | humanizePercentage }}".to_owned(),
                Unit::Seconds => "{{ $value | humanizeDuration }}".to_owned(),
            },
            "threshold" => condition.threshold_text(),
            "window" => condition.window().map(span)?,
            label if condition.each_series() => format!("{{{{ $labels.{label} }}}}"),
            _ => return None,
        })
    })
}

/// When the rule applies, in PromQL.
fn expression(condition: &Condition) -> String {
    match condition {
        Condition::Value { of, test } => match test {
            Test::Above(limit) => format!("{of} > {limit}"),
            Test::Below(limit) => format!("{of} < {limit}"),
            Test::Is(limit) => format!("{of} == {limit}"),
        },
        Condition::Ratio { of, to, above } => {
            format!("{} / {} > {above}", sum(of, &of.to_string()), sum(to, &to.to_string()))
        }
        Condition::Increase { of, window, above } => {
            format!("{} > {above}", increase(of, *window))
        }
        Condition::Share { of, among, window, above, least } => {
            let (part, whole) = (sum_of_growth(of, *window), sum_of_growth(among, *window));
            format!("{part} / {whole} > {above} and {whole} >= {least}")
        }
        Condition::Surge { of, window, factor, least } => {
            let now = increase(of, *window);
            let rest = LOOK_BACK.saturating_sub(*window);
            let part = format!("{} / {}", window.as_secs(), rest.as_secs());
            let (rest, offset, seen) = (span(rest), span(*window), span(LOOK_BACK));
            // Unlike the server itself, Prometheus waits for a whole hour of history: it takes a
            // shorter one for a whole one.
            format!(
                "{now} > {factor} * {part} * increase({of}[{rest}] offset {offset}) \
                 and {now} >= {least} and {of} offset {seen}"
            )
        }
        Condition::Wave { of, among, window, above, least } => {
            let (lost, left) = (sum_of_growth(of, *window), sum(among, &among.to_string()));
            format!("{lost} / ({left} + {lost}) > {above} and {lost} >= {least}")
        }
        Condition::Expiry { of, within } => {
            format!("({of} > 0) - time() < {}", within.as_secs())
        }
    }
}

fn increase(of: &Selection, window: Duration) -> String {
    format!("increase({of}[{}])", span(window))
}

fn sum_of_growth(of: &Selection, window: Duration) -> String {
    sum(of, &increase(of, window))
}

/// The sum over the series of one server. What Prometheus adds to tell servers apart stays.
fn sum(of: &Selection, figures: &str) -> String {
    let labels = of.metric.labels();
    if labels.is_empty() {
        return figures.to_owned();
    }
    // The label of a single series goes too, so that both sides of a quotient have the same.
    format!("sum without ({}) ({figures})", labels.join(", "))
}

/// A duration as Prometheus reads it.
fn span(duration: Duration) -> String {
    match duration.as_secs() {
        _ if duration.subsec_millis() > 0 => format!("{}ms", duration.as_millis()),
        0 => "0s".to_owned(),
        seconds if seconds % 3_600 == 0 => format!("{}h", seconds / 3_600),
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, path::Path, process::Command};

    use serde_json::{Value, json};

    use super::{
        super::{read, rule::Severity},
        *,
    };

    #[test]
    fn the_built_in_rules_are_written_for_prometheus() {
        insta::assert_snapshot!(rules_file(&read::built_in()));
    }

    #[test]
    fn promtool_takes_the_rules() {
        let mut rules = read::built_in();
        rules.labels.insert("site".to_owned(), "a \"{{ b }}\"".to_owned());
        check(&rules);
        rules.rules.clear();
        check(&rules);
    }

    #[test]
    fn every_matcher_of_a_rule_is_written() {
        let (rules, mistakes) = read::read(
            "[rules.X]\nkind = \"increase\"\nwindow = \"90s\"\nabove = 5\nsummary = \"{limit}: \
             {value}\"\nremedy = \"-\"\nof = 'bowline_limit_hits_total{limit!=\"a\"}'\n",
            &Rules::default(),
        );
        assert_eq!(mistakes, []);
        let [rule] = &rules.rules[..] else { panic!("{rules:?}") };
        assert_eq!(rule.severity, Severity::Warning);
        assert_eq!(
            expression(&rule.condition),
            "increase(bowline_limit_hits_total{limit!=\"a\"}[90s]) > 5"
        );
        assert_eq!(summary(rule), "{{ $labels.limit }}: {{ $value | humanize }}");
    }

    /// Prometheus' own tool lets time pass over made-up figures: the rules mean there what they mean
    /// inside. The evaluator's tests have the same stories.
    #[test]
    fn the_rules_fire_in_a_prometheus_as_they_do_inside() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("rules.yml"), rules_file(&read::built_in())).unwrap();
        let stories = json!({
            "rule_files": ["rules.yml"],
            "evaluation_interval": "30s",
            "tests": [
                story(
                    &[("bowline_open_fds", "10x9 90x20"), ("bowline_max_fds", "100x40")],
                    &[("7m", "BowlineDescriptorsNearLimit", json!({ "severity": "warning" }), "90% of the descriptors that the process may open are in use")],
                ),
                story(
                    &[
                        ("bowline_connections{transport=\"http\"}", "41x20"),
                        ("bowline_connections{transport=\"websocket\"}", "40x20"),
                        ("bowline_max_connections", "100x20"),
                    ],
                    &[("5m", "BowlineConnectionsNearLimit", json!({ "severity": "warning" }), "81% of the connections that `limits.connections` allows are open")],
                ),
                story(
                    &[
                        ("bowline_accept_errors_total{kind=\"aborted\"}", "0+50x40"),
                        ("bowline_accept_errors_total{kind=\"emfile\"}", "0x9 4x30"),
                    ],
                    &[("7m", "BowlineAcceptErrors", json!({ "severity": "critical", "kind": "emfile" }), "The operating system did not hand over 4 connections in 5m (emfile)")],
                ),
                story(
                    &[
                        ("bowline_recoveries_total{outcome=\"window\"}", "0+50x40"),
                        ("bowline_recoveries_total{outcome=\"log-full\"}", "0x9 4x30"),
                    ],
                    &[("7m", "BowlineLogTooSmall", json!({ "severity": "warning", "outcome": "log-full" }), "4 clients came back in 10m and could not go on, since the log had given up what they had missed")],
                ),
                story(
                    &[
                        ("bowline_upgrades_total{result=\"done\"}", "0+7x60"),
                        ("bowline_upgrades_total{result=\"failed\"}", "0+3x60"),
                    ],
                    &[("20m", "BowlineUpgradesFailing", json!({ "severity": "warning" }), "30% of the upgrades from polling to WebSocket failed in 10m")],
                ),
                story(
                    &[
                        ("bowline_disconnects_total{reason=\"transport close\"}", "0+5x140 700+50x20"),
                        ("bowline_disconnects_total{reason=\"ping timeout\"}", "0+20x200"),
                        ("bowline_sessions{state=\"connected\"}", "100000x200"),
                    ],
                    &[("76m", "BowlineDisconnectsUnusual", json!({ "severity": "warning", "reason": "transport close" }), "500 sessions ended by \"transport close\" in 5m, more than 3 times as many as in the hour before")],
                ),
                story(
                    &[
                        ("bowline_disconnects_total{reason=\"ping timeout\"}", "0x9 0+100x3 300x10"),
                        ("bowline_sessions{state=\"connected\"}", "1000x9 1000-100x3 700x10"),
                    ],
                    &[("6m30s", "BowlinePingTimeoutWave", json!({ "severity": "critical" }), "30% of the sessions were lost by ping timeout within 2m")],
                ),
                story(
                    &[
                        ("bowline_component_state{component=\"models\"}", "3x20"),
                        ("bowline_component_state{component=\"index\"}", "2x20"),
                        ("bowline_idle_cut_seconds", "0x20"),
                        ("bowline_certificate_expiry_timestamp_seconds", "0x20"),
                    ],
                    &[("5m", "BowlineComponentFailed", json!({ "severity": "critical", "component": "models" }), "The component \"models\" failed")],
                ),
                story(
                    &[("bowline_idle_cut_seconds", "4x20")],
                    &[("5m", "BowlineIdleConnectionsCut", json!({ "severity": "warning" }), "Idle WebSockets end without a close frame at the age of 4s, before the first ping is due")],
                ),
                story(
                    &[("bowline_certificate_expiry_timestamp_seconds", "1209700x20")],
                    &[("5m", "BowlineCertificateExpiresSoon", json!({ "severity": "warning" }), "The certificate of the public listener ends in 13d 23h 56m 40s")],
                ),
            ],
        });
        let file = folder.path().join("stories.yml");
        // JSON is YAML.
        std::fs::write(&file, stories.to_string()).unwrap();
        promtool(&["test", "rules"], &file);
    }

    /// One test of promtool: series, one value each 30 s, and what fires when. Everything else must
    /// be silent then.
    fn story(series: &[(&str, &str)], firing: &[(&str, &str, Value, &str)]) -> Value {
        let rules = read::built_in();
        let cases: Vec<Value> = (firing.iter())
            .flat_map(|(at, alert, labels, words)| {
                rules.rules.iter().map(move |rule| {
                    let mut expected = Vec::new();
                    if rule.name == *alert {
                        expected.push(json!({
                            "exp_labels": labels,
                            "exp_annotations": { "summary": words, "remedy": rule.remedy },
                        }));
                    }
                    json!({ "eval_time": at, "alertname": rule.name, "exp_alerts": expected })
                })
            })
            .collect();
        json!({
            "interval": "30s",
            "input_series": series.iter().map(|(series, values)| json!({ "series": series, "values": values })).collect::<Vec<_>>(),
            "alert_rule_test": cases,
        })
    }

    /// Lets Prometheus' own tool read the rules.
    fn check(rules: &Rules) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(rules_file(rules).as_bytes()).unwrap();
        promtool(&["check", "rules"], file.path());
    }

    /// Without the program nothing is said about the file.
    fn promtool(words: &[&str], file: &Path) {
        let Ok(output) = Command::new("promtool").args(words).arg(file).output() else {
            assert!(
                std::env::var_os("CI").is_none(),
                "promtool is not there: `cargo xtask test debian` installs it"
            );
            eprintln!("SKIPPED: promtool is not there, `cargo xtask test debian` installs it");
            return;
        };
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{said}");
    }
}
