//! What is counted: for Prometheus at `/metrics`, and as JSON.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State, response::IntoResponse};
use bowline_names::Kind;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    gateway::Gateway,
    metrics::{self, Sample, Value},
};

/// The text format that Prometheus has read since 2014.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that is counted now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Figures {
    samples: Vec<Figure>,
}

/// One series.
#[derive(Debug, Serialize, ToSchema)]
struct Figure {
    #[schema(example = "bowline_connections")]
    name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    kind: &'static str,
    #[schema(example = json!({"transport": "websocket"}))]
    labels: BTreeMap<&'static str, String>,
    /// The value of a counter or a gauge.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    histogram: Option<Histogram>,
}

/// How many observations fell where.
#[derive(Debug, Serialize, ToSchema)]
struct Histogram {
    buckets: Vec<Bucket>,
    /// All observations, added up.
    sum: f64,
    /// How many there were.
    count: u64,
}

/// Observations up to a bound.
#[derive(Debug, Serialize, ToSchema)]
struct Bucket {
    /// The upper bound.
    le: f64,
    /// Observations that are not above it.
    count: u64,
}

/// Everything that is counted, in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", operation_id = "prometheus", tag = "observe", responses(
    (status = 200, description = "The text format, version 0.0.4", content_type = "text/plain", body = String),
))]
pub(super) async fn text(State(gateway): State<Arc<Gateway>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, TEXT)], metrics::text(&metrics::gather(&gateway).await))
}

/// Everything that is counted, as JSON.
#[utoipa::path(get, path = "/api/v1/metrics", operation_id = "metrics", tag = "observe", responses(
    (status = 200, description = "Every series with its value", body = Figures),
))]
pub(super) async fn json(State(gateway): State<Arc<Gateway>>) -> Json<Figures> {
    let samples = metrics::gather(&gateway).await.into_iter().map(Figure::of).collect();
    Json(Figures { samples })
}

impl Figure {
    fn of(sample: Sample) -> Self {
        let Sample { metric, labels, value } = sample;
        let labels = metric.labels().iter().copied().zip(labels.into_iter().map(Into::into));
        let (value, histogram) = match value {
            Value::Number(number) => (Some(number), None),
            Value::Histogram { buckets, sum, count } => {
                let buckets = buckets.into_iter().map(|(le, count)| Bucket { le, count }).collect();
                (None, Some(Histogram { buckets, sum, count }))
            }
        };
        let kind = match metric.kind() {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        Self { name: metric.name(), kind, labels: labels.collect(), value, histogram }
    }
}
