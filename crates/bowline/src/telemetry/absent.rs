//! In the place of the exporter, in a build without the feature `otel`: nothing is exported.

use std::sync::Arc;

use bowline_ai::{record::RequestRecord, trace::Tap};

use super::{ExportFate, SpanFate, settings::Target};
use crate::config::Ai;

/// Exports nothing.
#[derive(Debug)]
pub(super) struct Exporter;

impl Exporter {
    pub(super) fn new() -> Self {
        Self
    }

    pub(super) fn set(&self, _: Option<Target>, _: &Ai) {}

    pub(super) fn spans(&self, _: SpanFate) -> u64 {
        0
    }

    pub(super) fn exports(&self, _: ExportFate) -> u64 {
        0
    }

    pub(super) async fn run(&self) {
        std::future::pending().await
    }

    pub(super) async fn flush(&self) {
        std::future::ready(()).await;
    }
}

impl Tap for Exporter {
    fn on_request(&self, _: &Arc<RequestRecord>) {}
}
