//! What a server has counted, under the names of the table; and how Prometheus reads it.

use std::{borrow::Cow, fmt::Write as _};

use bowline_backend::Outcome;
use bowline_names::{Kind, Metric, RecoveryOutcome};
use bowline_net::{
    AcceptError, ComponentState, ComponentView, DisconnectReason, HeldEnd, LimitKey, Refusal,
    Stats, TlsOutcome, WebSocketEnd,
};
use bowline_proto::{
    Timer,
    hub::{Measured, UpgradeFailure},
};

use crate::{
    charter::{Charter, Reason},
    gateway::Gateway,
    links::status,
    process_stats,
};

/// One value of one series.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) metric: Metric,
    /// The values of its labels, in the order of [`Metric::labels`].
    pub(crate) labels: Vec<Cow<'static, str>>,
    pub(crate) value: Value,
}

/// What a series says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Of a counter or a gauge.
    Number(f64),
    Histogram {
        /// Upper bound, and how many observations were not above it. The bounds rise; the bucket
        /// of all observations is `count`.
        buckets: Vec<(f64, u64)>,
        sum: f64,
        count: u64,
    },
}

impl Sample {
    fn new(metric: Metric, labels: &[&'static str], value: u64) -> Self {
        let labels = labels.iter().copied().map(Cow::Borrowed).collect();
        // Counters beyond 2^53 lose their last digits, here as in Prometheus.
        Self { metric, labels, value: Value::Number(value as f64) }
    }
}

/// Everything that a gateway counts, as it is now.
pub(crate) async fn gather(gateway: &Gateway) -> Vec<Sample> {
    let handle = &gateway.handle;
    let mut samples = of_stats(&handle.stats().await);
    samples.extend(of_refusals(&handle.refusals()));
    samples.extend(of_components(&handle.components()));
    samples.extend(one(Metric::ReadySeconds, handle.startup().ready.map(|at| at.as_secs_f64())));
    let expiry = handle.certificate_expiry().map(|seconds| seconds as f64);
    samples.extend(one(Metric::CertificateExpiry, expiry));
    samples.extend(process_stats::samples());
    samples.extend(of_charter(&gateway.charter));
    samples.extend(gateway.alerts.samples());
    samples.extend(of_auth(gateway.auth.counts()));
    samples.extend(gateway.emitter.counts().samples());
    samples.extend(of_backends(&gateway.backends.stats()));
    samples.extend(gateway.ai.shared().samples());
    samples.extend(gateway.services.samples());
    samples.extend(of_links(gateway));
    samples
}

/// How links are, and the store of their messages.
fn of_links(gateway: &Gateway) -> Vec<Sample> {
    let config = gateway.config.borrow().clone();
    let longest = |name: &str| {
        let (_, link) = config.links.all.0.iter().find(|(known, _)| known == name)?;
        link.has_probe().then(|| link.longest_probe_interval())
    };
    status::samples(&gateway.links.view(), gateway.links.store().as_ref(), longest)
}

/// What was counted of apps behind HTTP; the samples of a metric stand together.
fn of_backends(backends: &[(String, bowline_backend::Stats)]) -> Vec<Sample> {
    let of_each = |metric, value: &dyn Fn(&bowline_backend::Stats) -> Value| {
        let sample = |(name, stats): &(String, bowline_backend::Stats)| Sample {
            metric,
            labels: vec![Cow::Owned(name.clone())],
            value: value(stats),
        };
        backends.iter().map(sample).collect::<Vec<_>>()
    };
    let requests = backends.iter().flat_map(|(name, stats)| {
        Outcome::ALL.iter().zip(stats.requests).map(|(outcome, count)| Sample {
            metric: Metric::BackendRequests,
            labels: vec![Cow::Owned(name.clone()), Cow::Borrowed(outcome.name())],
            value: Value::Number(count as f64),
        })
    });
    let mut samples: Vec<Sample> = requests.collect();
    samples.extend(of_each(Metric::BackendSeconds, &|stats| Value::Histogram {
        buckets: stats.buckets.clone(),
        sum: stats.seconds,
        count: stats.count,
    }));
    let number = |count: u64| Value::Number(count as f64);
    samples.extend(of_each(Metric::BackendQueue, &|stats| number(stats.waiting as u64)));
    samples.extend(of_each(Metric::BackendPoolWaits, &|stats| number(stats.pool_waits)));
    samples.extend(of_each(Metric::BackendEventsLost, &|stats| number(stats.events_lost)));
    samples
}

fn of_components(components: &[ComponentView]) -> Vec<Sample> {
    let sample = |metric, component: &ComponentView, value| Sample {
        metric,
        labels: vec![Cow::Owned(component.name.clone())],
        value: Value::Number(value),
    };
    let states = components.iter().map(|component| {
        let state = match component.state {
            ComponentState::Waiting => 0.0,
            ComponentState::Loading => 1.0,
            ComponentState::Ready => 2.0,
            ComponentState::Failed => 3.0,
            ComponentState::Skipped => 4.0,
        };
        sample(Metric::ComponentState, component, state)
    });
    let seconds = components.iter().filter_map(|component| {
        let loaded = matches!(component.state, ComponentState::Ready | ComponentState::Failed);
        let took = component.loading_for.filter(|_| loaded)?.as_secs_f64();
        Some(sample(Metric::ComponentSeconds, component, took))
    });
    states.chain(seconds).collect()
}

/// What clients were refused.
pub(crate) fn of_refusals(refusals: &[u64]) -> Vec<Sample> {
    let counts = each(Refusal::ALL.iter().map(|why| why.name()), refusals);
    let sample = |&(why, count): &_| Sample::new(Metric::RequestsRefused, &[why], count);
    counts.iter().map(sample).collect()
}

/// Clients who showed tokens, and fetches of the keys for them, by namespace and outcome.
fn of_auth(counts: Vec<(Metric, [String; 2], u64)>) -> impl Iterator<Item = Sample> {
    counts.into_iter().map(|(metric, labels, count)| Sample {
        metric,
        labels: labels.into_iter().map(Cow::Owned).collect(),
        value: Value::Number(count as f64),
    })
}

/// A sample of a metric without labels, if there is a value.
pub(crate) fn one(metric: Metric, value: Option<f64>) -> Option<Sample> {
    value.map(|value| Sample { metric, labels: Vec::new(), value: Value::Number(value) })
}

/// What only the master knows.
fn of_charter(charter: &Charter) -> Vec<Sample> {
    let times = |reason| charter.restarts.get(&reason).copied().unwrap_or_default();
    let mut samples: Vec<Sample> = (Reason::ALL.iter())
        .map(|&reason| Sample::new(Metric::GatewayRestarts, &[reason.name()], times(reason)))
        .collect();
    samples.extend(one(Metric::BindSeconds, Some(charter.bind_seconds)));
    samples.push(Sample::new(Metric::BuildInfo, &[env!("CARGO_PKG_VERSION")], 1));
    samples
}

/// Takes the figures of the server apart, in the order of the table.
pub(crate) fn of_stats(stats: &Stats) -> Vec<Sample> {
    let hub = &stats.hub;
    let mut samples = Vec::new();
    let mut add = |metric: Metric, values: &[(&'static str, u64)]| {
        samples.extend(values.iter().map(|&(label, value)| {
            let labels = if metric.labels().is_empty() { &[][..] } else { &[label] };
            Sample::new(metric, labels, value)
        }));
    };
    let websocket = stats.sessions_websocket as u64;
    let http = (stats.connections as u64).saturating_sub(websocket);
    add(Metric::Connections, &[("http", http), ("websocket", websocket)]);
    let connected = stats.sessions_polling as u64 + websocket;
    add(Metric::Sessions, &[("connected", connected), ("away", stats.away as u64)]);
    add(
        Metric::Connects,
        &[("accepted", hub.connects_accepted), ("refused", hub.connects_refused)],
    );
    add(
        Metric::Disconnects,
        &each(DisconnectReason::ALL.iter().map(|reason| reason.name()), &hub.closed),
    );
    let failed = hub.upgrade_failures.iter().sum();
    add(Metric::Upgrades, &[("done", hub.upgraded), ("failed", failed)]);
    let failures = each(UpgradeFailure::ALL.iter().map(|why| why.name()), &hub.upgrade_failures);
    add(Metric::UpgradeFailures, &failures);
    add(Metric::Packets, &[("in", hub.packets_in), ("out", hub.packets_out)]);
    add(Metric::Bytes, &[("in", stats.websocket_bytes_in), ("out", stats.websocket_bytes_out)]);
    add(Metric::Events, &[("in", hub.events_in), ("out", hub.events_out)]);
    add(Metric::EventsHeld, &[("", stats.held as u64)]);
    let held = each(HeldEnd::ALL.iter().map(|end| end.name()), &stats.held_ends);
    add(Metric::HeldEvents, &held);
    add(Metric::SlowReceivers, &[("", hub.slow_receivers)]);
    add(Metric::LimitHits, &each(LimitKey::ALL.iter().map(|key| key.name()), &stats.limit_hits));
    add(
        Metric::AcceptErrors,
        &each(AcceptError::ALL.iter().map(|kind| kind.name()), &stats.accept_errors),
    );
    add(Metric::Wakeups, &each(Timer::ALL.iter().map(|timer| timer.name()), &hub.wakeups));
    add(Metric::MaxConnections, &[("", stats.connections_max as u64)]);
    add(Metric::Accepted, &[("", stats.accepted)]);
    add(Metric::HandlerPanics, &[("", stats.handler_panics)]);
    let ends = each(WebSocketEnd::ALL.iter().map(|end| end.name()), &stats.websocket_ends);
    add(Metric::WebSocketEnds, &ends);
    let tls = each(TlsOutcome::ALL.iter().map(|how| how.name()), &stats.tls_handshakes);
    add(Metric::TlsHandshakes, &tls);
    add(Metric::ProxyHeaderErrors, &[("", stats.proxy_header_errors)]);
    let (replaced, refused) = (stats.certificates_replaced, stats.certificates_refused);
    add(Metric::CertificateChanges, &[("replaced", replaced), ("refused", refused)]);
    let idle_cut = stats.idle_cut.unwrap_or_default().as_secs_f64();
    samples.extend(one(Metric::IdleCut, Some(idle_cut)));
    samples.extend(of_continuity(stats));
    for (what, histogram) in Measured::ALL.iter().zip(&hub.measured) {
        let metric = match what {
            Measured::Session => Metric::SessionDuration,
            Measured::Handshake => Metric::HandshakeSeconds,
            Measured::PingLateness => Metric::PingLateness,
            Measured::Pong => Metric::PongSeconds,
        };
        let buckets = histogram.buckets(*what).map(|(bound, count)| (bound.as_secs_f64(), count));
        let value = Value::Histogram {
            buckets: buckets.collect(),
            sum: histogram.sum().as_secs_f64(),
            count: histogram.count(),
        };
        samples.push(Sample { metric, labels: Vec::new(), value });
    }
    samples
}

/// What became of sessions whose clients lost their connection.
fn of_continuity(stats: &Stats) -> Vec<Sample> {
    let hub = &stats.hub;
    let mut samples: Vec<Sample> = RecoveryOutcome::ALL
        .iter()
        .zip(hub.recoveries)
        .map(|(outcome, count)| Sample::new(Metric::Recoveries, &[outcome.name()], count))
        .collect();
    let restored = [("kept", hub.restored), ("lost", hub.not_restored)];
    let restored =
        restored.map(|(how, count)| Sample::new(Metric::SessionsRestored, &[how], count));
    samples.extend(restored);
    let rest = [
        (Metric::EventsReplayed, hub.events_replayed),
        (Metric::EventsRepeated, hub.events_repeated),
        (Metric::SessionMoves, hub.moves),
        (Metric::LogBytes, stats.log.bytes as u64),
        (Metric::LogRecords, stats.log.records as u64),
    ];
    samples.extend(rest.map(|(metric, value)| Sample::new(metric, &[], value)));
    let oldest = stats.log.oldest.unwrap_or_default().as_secs_f64();
    samples.extend(one(Metric::LogAge, Some(oldest)));
    samples
}

/// Says in the log what was counted, but not what never happened.
pub(crate) fn log(stats: &Stats) {
    for Sample { metric, labels, value } in of_stats(stats) {
        match value {
            Value::Number(0.0) | Value::Histogram { .. } => {}
            Value::Number(value) => {
                let label = labels.join(", ");
                tracing::debug!(metric = metric.name(), label, value, "counted");
            }
        }
    }
}

/// Writes the samples in Prometheus' text format, version 0.0.4. Samples of one metric must stand
/// together.
pub(crate) fn text(samples: &[Sample]) -> String {
    let mut text = String::new();
    let mut last = None;
    for sample in samples {
        let metric = sample.metric;
        if last != Some(metric) {
            last = Some(metric);
            head(&mut text, metric);
        }
        match &sample.value {
            Value::Number(value) => line(&mut text, sample, "", None, *value),
            Value::Histogram { buckets, sum, count } => {
                for (bound, reached) in buckets {
                    line(&mut text, sample, "_bucket", Some(*bound), *reached as f64);
                }
                line(&mut text, sample, "_bucket", Some(f64::INFINITY), *count as f64);
                line(&mut text, sample, "_sum", None, *sum);
                line(&mut text, sample, "_count", None, *count as f64);
            }
        }
    }
    text
}

fn head(text: &mut String, metric: Metric) {
    let name = metric.name();
    let help = metric.help().replace('\\', "\\\\").replace('\n', "\\n");
    let kind = match metric.kind() {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, sample: &Sample, suffix: &str, bound: Option<f64>, value: f64) {
    let _ = write!(text, "{}{suffix}", sample.metric.name());
    let mut before = '{';
    let mut label = |text: &mut String, name: &str, value: &str| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(text, "{before}{name}=\"{value}\"");
        before = ',';
    };
    for (name, value) in sample.metric.labels().iter().zip(&sample.labels) {
        label(text, name, value);
    }
    if let Some(bound) = bound {
        label(text, "le", &number(bound));
    }
    let close = if before == ',' { "}" } else { "" };
    let _ = writeln!(text, "{close} {}", number(value));
}

/// Writes a number as Prometheus does; the only words it has beside Rust's are those of infinity.
fn number(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value => value.to_string(),
    }
}

fn each(names: impl Iterator<Item = &'static str>, counts: &[u64]) -> Vec<(&'static str, u64)> {
    names.zip(counts.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        io::{self, Write as _},
        process::{Command, Stdio},
        time::{Duration, SystemTime},
    };

    use super::*;
    use crate::{alerts::Board, charter::Management};

    /// One of everything, hostile names included.
    fn everything() -> Vec<Sample> {
        let mut stats = Stats::default();
        stats.hub.packets_in = 12_345;
        let component = |name: &str, state| ComponentView {
            name: name.to_owned(),
            required: true,
            state,
            progress: 1.0,
            text: String::new(),
            waiting_for: Vec::new(),
            since: SystemTime::UNIX_EPOCH,
            error: None,
            loading_for: Some(Duration::from_millis(3_400)),
        };
        let components = [
            component("store", ComponentState::Ready),
            component("a \"quoted\" \\ name\nof two lines", ComponentState::Loading),
        ];
        let charter = Charter {
            file: None,
            overrides: crate::config::Overrides::default(),
            listeners: Vec::new(),
            restarts: BTreeMap::from([(Reason::Killed, 3)]),
            last_end: None,
            master_pid: 1,
            management: Management::Foreground,
            services: Vec::new(),
            state_dir: None,
            state_file: None,
            started_unix_ms: 0,
            bind_seconds: 0.0042,
        };
        let mut samples = of_stats(&stats);
        samples.extend(of_refusals(&[0; Refusal::ALL.len()]));
        let labels = || ["/chat".to_owned(), "accepted".to_owned()];
        let auth = [Metric::AuthChecks, Metric::KeySetFetches].map(|it| (it, labels(), 1));
        samples.extend(of_auth(auth.to_vec()));
        samples.extend(of_components(&components));
        samples.extend(one(Metric::ReadySeconds, Some(3.5)));
        samples.extend(one(Metric::CertificateExpiry, Some(1_800_000_000.0)));
        samples.extend(process_stats::samples());
        samples.extend(of_charter(&charter));
        samples.extend(Board::new(BTreeMap::new()).samples());
        samples.extend(crate::emit::Counts::default().samples());
        let apps = ["app", "other"].map(|name| (name.to_owned(), Default::default()));
        samples.extend(of_backends(&apps));
        samples.extend(crate::ai::example());
        samples.extend(crate::services::board::example());
        samples.extend(status::example());
        samples.extend(crate::telemetry::Telemetry::new().samples());
        samples
    }

    #[test]
    fn every_metric_of_the_table_is_counted_and_no_series_twice() {
        let samples = everything();
        let counted: BTreeSet<Metric> = samples.iter().map(|sample| sample.metric).collect();
        assert_eq!(counted, Metric::ALL.iter().copied().collect());
        let series: BTreeSet<_> =
            samples.iter().map(|sample| (sample.metric, &sample.labels)).collect();
        assert_eq!(series.len(), samples.len());
    }

    #[test]
    fn every_series_has_the_labels_and_the_kind_that_the_table_says() {
        for Sample { metric, labels, value } in everything() {
            assert_eq!(labels.len(), metric.labels().len(), "{metric:?}");
            let histogram = matches!(value, Value::Histogram { .. });
            assert_eq!(histogram, metric.kind() == Kind::Histogram, "{metric:?}");
        }
    }

    #[test]
    fn a_histogram_is_written_with_all_its_buckets() {
        let value = Value::Histogram { buckets: vec![(0.5, 1), (1.0, 3)], sum: 4.25, count: 4 };
        let sample = Sample { metric: Metric::HandshakeSeconds, labels: Vec::new(), value };
        let text = text(&[sample]);
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "bowline_handshake_seconds_bucket{le=\"0.5\"} 1",
                "bowline_handshake_seconds_bucket{le=\"1\"} 3",
                "bowline_handshake_seconds_bucket{le=\"+Inf\"} 4",
                "bowline_handshake_seconds_sum 4.25",
                "bowline_handshake_seconds_count 4",
            ]
        );
        assert!(text.contains("# TYPE bowline_handshake_seconds histogram\n"));
    }

    #[test]
    fn a_label_cannot_end_its_line() {
        let text = text(&everything());
        let label = "component=\"a \\\"quoted\\\" \\\\ name\\nof two lines\"";
        assert!(text.contains(label), "{text}");
    }

    #[test]
    fn promtool_finds_nothing_to_say() {
        let promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut promtool = match promtool {
            Ok(promtool) => promtool,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                eprintln!(
                    "SKIPPED: there is no promtool here (Debian: apt-get install prometheus)"
                );
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let text = text(&everything());
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
    }
}
