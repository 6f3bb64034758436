//! The words of `sd_notify`.

use sd_notify::NotifyState;

use super::plan::Notice;

/// Tells the service manager, if there is one.
pub(super) fn tell(notices: &[Notice]) {
    // A message is lines, so words must be one.
    let notices: Vec<Notice> = notices.iter().map(on_one_line).collect();
    let mut states = Vec::new();
    for notice in &notices {
        match notice {
            Notice::Ready => states.push(NotifyState::Ready),
            Notice::Reloading => {
                states.push(NotifyState::Reloading);
                // Without the time systemd takes the reload for failed and ends the service.
                states.extend(NotifyState::monotonic_usec_now());
            }
            Notice::Watchdog => states.push(NotifyState::Watchdog),
            Notice::Stopping => states.push(NotifyState::Stopping),
            Notice::Status(words) => states.push(NotifyState::Status(words)),
            Notice::Extend(time) => {
                let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
                states.push(NotifyState::ExtendTimeoutUsec(micros));
            }
        }
    }
    if let Err(error) = sd_notify::notify(&states) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}

fn on_one_line(notice: &Notice) -> Notice {
    match notice {
        Notice::Status(words) => Notice::Status(words.replace(['\n', '\r'], " ")),
        other => other.clone(),
    }
}
