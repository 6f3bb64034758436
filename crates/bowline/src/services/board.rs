//! What a gateway knows of the services: what the master has told it last.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use bowline_fleet::plan::{Reason, State};
use bowline_names::Metric;
use bowline_net::{ComponentState, ComponentView, Handle};

use super::status::ServiceStatus;
use crate::metrics::{Sample, Value};

/// The services as the master sees them.
#[derive(Debug)]
pub(crate) struct Board(Mutex<Arc<Vec<ServiceStatus>>>);

impl Board {
    /// Begins with what the master has said at the start of this gateway.
    pub(crate) fn new(services: Vec<ServiceStatus>) -> Self {
        Self(Mutex::new(Arc::new(services)))
    }

    /// Takes what the master says now, and lets `/health/ready` know.
    pub(crate) fn set(&self, services: Vec<ServiceStatus>, handle: &Handle) {
        handle.set_services(services.iter().map(component).collect());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(services);
    }

    /// What was said last.
    pub(crate) fn services(&self) -> Arc<Vec<ServiceStatus>> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same as figures, in the order of the table.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        samples(&self.services())
    }
}

/// How `/health/ready` shows a service.
pub(crate) fn component(service: &ServiceStatus) -> ComponentView {
    let state = match service.known_state() {
        Some(State::Ready | State::Completed) => ComponentState::Ready,
        Some(State::CrashLoop | State::Failed) => ComponentState::Failed,
        Some(State::Stopped) => ComponentState::Skipped,
        Some(State::Waiting) => ComponentState::Waiting,
        Some(State::BackingOff | State::Starting | State::NotReady | State::Stopping) | None => {
            ComponentState::Loading
        }
    };
    let progress = match state {
        ComponentState::Ready => 1.0,
        _ => service.progress.unwrap_or_default(),
    };
    let missing = service.needs.iter().filter(|need| !need.met);
    let words = service.words();
    let failed = state == ComponentState::Failed;
    ComponentView {
        name: service.name.clone(),
        required: service.required,
        state,
        progress,
        text: if failed { service.state.clone() } else { words.clone() },
        waiting_for: match state {
            ComponentState::Waiting => missing.map(|need| need.service.clone()).collect(),
            _ => Vec::new(),
        },
        since: SystemTime::from(service.since),
        error: failed.then_some(words),
        loading_for: None,
    }
}

fn samples(services: &[ServiceStatus]) -> Vec<Sample> {
    let sample =
        |metric, service: &ServiceStatus, label: Option<&'static str>, value: f64| Sample {
            metric,
            labels: [Cow::Owned(service.name.clone())]
                .into_iter()
                .chain(label.map(Cow::Borrowed))
                .collect(),
            value: Value::Number(value),
        };
    let mut samples = Vec::new();
    for service in services {
        samples.extend(State::ALL.map(|state| {
            let is = service.state == state.name();
            sample(Metric::ServiceState, service, Some(state.name()), f64::from(u8::from(is)))
        }));
    }
    for service in services {
        samples.extend(Reason::ALL.map(|reason| {
            let times = service.restarts_by(reason) as f64;
            sample(Metric::ServiceRestarts, service, Some(reason.name()), times)
        }));
    }
    samples.extend(services.iter().filter_map(|service| {
        let seconds = service.ready_seconds?;
        Some(sample(Metric::ServiceReadySeconds, service, None, seconds))
    }));
    samples
}

/// Two services, for the tests of metrics.
#[cfg(test)]
pub(crate) fn example() -> Vec<Sample> {
    use crate::config::Service;

    let mut ready = ServiceStatus::unborn("api", &Service::default(), jiff::Timestamp::UNIX_EPOCH);
    ready.state = State::Ready.name().to_owned();
    ready.ready_seconds = Some(1.5);
    let other = ServiceStatus { name: "db".to_owned(), ready_seconds: None, ..ready.clone() };
    samples(&[ready, other])
}
