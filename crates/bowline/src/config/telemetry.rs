//! `[telemetry]`: what will run of it.

use std::path::PathBuf;

use super::effective::Url;

/// `[telemetry]`. Without an endpoint, here or in the environment, nothing is exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Telemetry {
    /// A collector that takes OTLP over HTTP; `/v1/traces` is put behind it.
    pub(crate) otlp_endpoint: Option<Url>,
    /// The file with the headers that it is shown.
    pub(crate) otlp_headers_file: Option<PathBuf>,
    /// The variable that holds them.
    pub(crate) otlp_headers_env: Option<String>,
    /// What this server is called there.
    pub(crate) service_name: Option<String>,
    /// How many of a hundred traces that begin here are kept.
    pub(crate) sample_percent: u32,
    /// Whether providers of models are told the trace.
    pub(crate) propagate: bool,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            otlp_headers_file: None,
            otlp_headers_env: None,
            service_name: None,
            sample_percent: 100,
            propagate: false,
        }
    }
}
