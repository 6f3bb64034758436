//! Spans of the AI gateway's requests and attempts, for OpenTelemetry.
//!
//! ```text
//! a request is over ─ its record ─▶ queue ─ every 5 s ─▶ spans (pure) ─ OTLP over HTTP ─▶ collector
//! ```
//!
//! Nothing of it is on a request's path but a place in the queue. The SDK of OpenTelemetry is not used: spans are made of records
//! when those are finished, with the times that they have, and a batch is one POST (`bowline-dial`); what is left of the SDK then
//! is its messages (`otlp`).

#[cfg(not(feature = "otel"))]
#[path = "absent.rs"]
mod exporter;
#[cfg(feature = "otel")]
mod exporter;
#[cfg_attr(not(feature = "otel"), expect(dead_code, reason = "nothing is exported"))]
mod limit;
#[cfg(feature = "otel")]
mod otlp;
mod settings;
#[cfg(feature = "otel")]
mod spans;

use std::sync::{Arc, Mutex, PoisonError};

use bowline_ai::trace::Tracing;
use bowline_names::{ErrorCode, Metric};
use tokio::time::timeout;

use self::{exporter::Exporter, settings::Target};
use crate::{
    config::{self, Config},
    failure::Failure,
    metrics::{Sample, Value},
};

pub(crate) use self::settings::headers;

/// Where spans of a gateway go.
#[derive(Debug)]
pub(crate) struct Telemetry {
    exporter: Arc<Exporter>,
    /// What is prepared and not yet in force.
    next: Mutex<Option<Next>>,
}

/// What has become of spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SpanFate {
    Exported,
    Dropped,
    Rejected,
}

/// How an export ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExportFate {
    Ok,
    Failed,
}

#[derive(Debug)]
struct Next {
    target: Option<Target>,
    ai: config::Ai,
}

impl SpanFate {
    const ALL: [Self; 3] = [Self::Exported, Self::Dropped, Self::Rejected];

    fn name(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::Dropped => "dropped",
            Self::Rejected => "rejected",
        }
    }
}

impl ExportFate {
    const ALL: [Self; 2] = [Self::Ok, Self::Failed];

    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
        }
    }
}

impl Telemetry {
    pub(crate) fn new() -> Self {
        Self { exporter: Arc::new(Exporter::new()), next: Mutex::new(None) }
    }

    /// Makes ready what a configuration says. It counts from [`settle`](Self::settle) on. Returns how traces are made; `None` is
    /// not at all.
    ///
    /// # Errors
    /// It cannot be carried out; then nothing has changed.
    pub(crate) fn prepare(
        &self,
        config: &Config,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Tracing>, Failure> {
        let telemetry = &config.telemetry;
        let unusable =
            |why: String| Failure::new(ErrorCode::TelemetryUnusable, format!("`telemetry`: {why}"));
        let target = settings::target(telemetry, variable).map_err(unusable)?;
        if cfg!(not(feature = "otel")) && telemetry.otlp_endpoint.is_some() {
            return Err(unusable("this bowline was built without the feature `otel`".to_owned()));
        }
        let tracing = target.is_some().then(|| Tracing {
            sample_percent: telemetry.sample_percent,
            propagate: telemetry.propagate,
            tap: Arc::clone(&self.exporter) as _,
        });
        let next = Next { target, ai: config.ai.clone() };
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
        Ok(tracing)
    }

    /// Puts what was prepared in force.
    pub(crate) fn settle(&self) {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Next { target, ai }) = next {
            self.exporter.set(target, &ai);
        }
    }

    /// Sends spans as long as it is polled.
    pub(crate) fn run(&self) -> impl Future<Output = ()> + Send + use<> {
        let exporter = Arc::clone(&self.exporter);
        async move { exporter.run().await }
    }

    /// Waits until the last spans are gone, but not for long.
    pub(crate) async fn farewell(&self) {
        if timeout(limit::FAREWELL, self.exporter.flush()).await.is_err() {
            tracing::warn!("the last spans were not exported");
        }
    }

    /// What has become of spans.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let sample = |metric, label: &'static str, count: u64| Sample {
            metric,
            labels: vec![label.into()],
            value: Value::Number(count as f64),
        };
        let spans = SpanFate::ALL
            .map(|fate| sample(Metric::TelemetrySpans, fate.name(), self.exporter.spans(fate)));
        let exports = ExportFate::ALL
            .map(|fate| sample(Metric::TelemetryExports, fate.name(), self.exporter.exports(fate)));
        spans.into_iter().chain(exports).collect()
    }
}
