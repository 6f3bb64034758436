//! What the gateway tells the master about itself.

use std::{collections::BTreeMap, fs::File, io::Write as _, sync::Arc, time::Duration};

use bowline_net::{ComponentState, ComponentView, Handle, StepOutcome};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tokio::time;

use super::Gateway;
use crate::master::{ALIVE, Report};

/// How long it rests between two looks before it is ready.
const PAUSE: Duration = Duration::from_millis(100);

/// Where reports go.
#[derive(Clone)]
pub(super) struct Reports(Arc<File>);

impl Reports {
    pub(super) fn new(file: File) -> Self {
        // A master that does not read must not hold up the office. If it cannot be set, it may.
        let _ = fcntl_getfl(&file).and_then(|flags| fcntl_setfl(&file, flags | OFlags::NONBLOCK));
        Self(Arc::new(file))
    }

    /// Says it. A master that has not read for long misses it; one that is gone, everything.
    pub(super) fn tell(&self, report: &Report) {
        let Ok(mut line) = serde_json::to_vec(report) else { return };
        line.push(b'\n');
        let _ = (&*self.0).write_all(&line);
    }

    /// Says that clients are answered, what is waited for until all is ready, and from then on
    /// that the shards turn. Ends only with the gateway.
    pub(super) async fn live(self, gateway: Arc<Gateway>) {
        let handle = &gateway.handle;
        while let Err(problem) = answers(handle).await {
            self.alive(handle, Report::Status { text: problem }).await;
            time::sleep(PAUSE).await;
        }
        self.tell(&Report::Answering);
        let mut changes = handle.component_changes();
        while !handle.readiness().is_serving() {
            let text = waiting_for(&handle.components());
            self.alive(handle, Report::Status { text }).await;
            time::sleep(PAUSE).await;
            // A load that says nothing new is still one that lives.
            let _ = time::timeout(ALIVE, changes.changed()).await;
        }
        self.tell(&Report::Ready);
        loop {
            time::sleep(ALIVE).await;
            self.alive(handle, Report::Alive).await;
            self.requests(&gateway);
        }
    }

    /// Says how many requests the apps of services have been passed.
    fn requests(&self, gateway: &Gateway) {
        let config = gateway.config.borrow().clone();
        let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, stats) in gateway.backends.stats() {
            let backend = config.backends.0.iter().find(|(known, _)| *known == name);
            if let Some(service) = backend.and_then(|(_, backend)| backend.service.as_deref()) {
                *totals.entry(service).or_default() += stats.requests.iter().sum::<u64>();
            }
        }
        for (service, total) in totals {
            self.tell(&Report::Requests { service: service.to_owned(), total });
        }
    }

    /// Says something once every shard has answered: a shard that hangs silences the gateway.
    async fn alive(&self, handle: &Handle, report: Report) {
        handle.stats().await;
        self.tell(&report);
    }
}

/// Goes the way of a client. What went wrong, if not even a session could be opened.
async fn answers(handle: &Handle) -> Result<(), String> {
    let report = handle.probe().await;
    if report.steps.iter().any(|step| step.outcome == StepOutcome::Done) {
        return Ok(());
    }
    let failed = report.steps.into_iter().find_map(|step| match step.outcome {
        StepOutcome::Failed(why) => Some(format!("its own client cannot {}: {why}", step.name)),
        StepOutcome::Done | StepOutcome::Skipped => None,
    });
    failed.map_or(Ok(()), Err)
}

/// What a server with these components waits for, in words.
fn waiting_for(components: &[ComponentView]) -> String {
    let parts: Vec<String> = (components.iter())
        .filter(|view| view.required && view.state != ComponentState::Ready)
        .map(|view| {
            let ComponentView { name, state, progress, text, .. } = view;
            let mut words = format!("{name} {}", state.name());
            if *state == ComponentState::Loading {
                words.push_str(&format!(" {:.0} %", progress * 100.0));
            }
            if !text.is_empty() {
                words.push_str(&format!(" ({text})"));
            }
            words
        })
        .collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn view(name: &str, required: bool, state: ComponentState, text: &str) -> ComponentView {
        ComponentView {
            name: name.to_owned(),
            required,
            state,
            progress: 0.4,
            text: text.to_owned(),
            waiting_for: Vec::new(),
            since: SystemTime::UNIX_EPOCH,
            error: None,
            loading_for: None,
        }
    }

    #[test]
    fn only_what_keeps_the_server_from_being_ready_is_told() {
        let components = [
            view("store", true, ComponentState::Ready, ""),
            view("models", true, ComponentState::Loading, "2 of 5 files"),
            view("search", true, ComponentState::Waiting, ""),
            view("extras", false, ComponentState::Loading, ""),
        ];
        assert_eq!(waiting_for(&components), "models loading 40 % (2 of 5 files), search waiting");
    }
}
