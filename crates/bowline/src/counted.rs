//! What a server has counted, under the names of the table.

use bowline_names::Metric;
use bowline_net::{AcceptError, DisconnectReason, LimitKey, Stats};
use bowline_proto::{Timer, hub::UpgradeFailure};

/// One value of one series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) metric: Metric,
    /// The value of its label, if it has one.
    pub(crate) label: Option<&'static str>,
    pub(crate) value: u64,
}

/// Takes the figures apart, in the order of the table.
pub(crate) fn samples(stats: &Stats) -> Vec<Sample> {
    let hub = &stats.hub;
    let mut samples = Vec::new();
    let mut add = |metric: Metric, values: &[(&'static str, u64)]| {
        samples.extend(values.iter().map(|&(label, value)| Sample {
            metric,
            label: (!metric.labels().is_empty()).then_some(label),
            value,
        }));
    };
    let websocket = stats.sessions_websocket as u64;
    let http = (stats.connections as u64).saturating_sub(websocket);
    add(Metric::Connections, &[("http", http), ("websocket", websocket)]);
    add(Metric::Sessions, &[("connected", stats.sessions_polling as u64 + websocket)]);
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
    add(Metric::SlowReceivers, &[("", hub.slow_receivers)]);
    add(Metric::LimitHits, &each(LimitKey::ALL.iter().map(|key| key.name()), &stats.limit_hits));
    add(
        Metric::AcceptErrors,
        &each(AcceptError::ALL.iter().map(|kind| kind.name()), &stats.accept_errors),
    );
    add(Metric::Wakeups, &each(Timer::ALL.iter().map(|timer| timer.name()), &hub.wakeups));
    samples
}

/// Says in the log what was counted, but not what never happened.
pub(crate) fn log(stats: &Stats) {
    for Sample { metric, label, value } in samples(stats) {
        if value > 0 {
            let label = label.unwrap_or_default();
            tracing::debug!(metric = metric.name(), label, value, "counted");
        }
    }
}

fn each(names: impl Iterator<Item = &'static str>, counts: &[u64]) -> Vec<(&'static str, u64)> {
    names.zip(counts.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_metric_of_the_table_is_counted_and_no_series_twice() {
        let samples = samples(&Stats::default());
        let counted: BTreeSet<Metric> = samples.iter().map(|sample| sample.metric).collect();
        assert_eq!(counted, Metric::ALL.iter().copied().collect());
        let series: BTreeSet<_> =
            samples.iter().map(|sample| (sample.metric, sample.label)).collect();
        assert_eq!(series.len(), samples.len());
    }
}
