//! Log lines: to stderr, for people or as JSON.

use tracing_subscriber::{Layer as _, filter::Targets, fmt, layer::SubscriberExt as _, registry};

use crate::{
    config::{LogFormat, log_level},
    failure::colours,
};

/// Starts logging. Called once.
pub(crate) fn start(level: &str, format: LogFormat) {
    // Checked when the configuration was read.
    let filter: Targets = log_level(level).unwrap_or_default();
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(colours()).with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // Fails only if somebody has started it before, and then it runs.
    let _ = tracing::subscriber::set_global_default(registry().with(lines.with_filter(filter)));
}
