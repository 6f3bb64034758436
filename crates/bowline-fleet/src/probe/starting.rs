//! What a service says of its own start, in an answer.

use serde::Deserialize;

use super::{Finding, Progress, bounded};

/// The parts of `/health/ready`, as Bowline itself answers it, that say how far a start has come; and the keys that
/// others have for the same.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    status: Option<String>,
    /// A fraction up to 1, or per cent.
    progress: Option<f64>,
    done: Option<u32>,
    of: Option<u32>,
    total: Option<u32>,
    message: Option<String>,
    components: Vec<Component>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Component {
    name: String,
    state: String,
    progress: f64,
}

/// The words of a status that is no failure yet.
const STARTING: &[&str] = &["starting", "loading", "initializing", "warming", "warmup", "pending"];

/// Reads an answer that is not the one that was expected. `asked_again` says that it came with `Retry-After`.
pub(super) fn read(body: &[u8], asked_again: bool) -> Option<Finding> {
    let document: Document = serde_json::from_slice(body).unwrap_or_default();
    let status = document.status.as_deref().unwrap_or_default().to_lowercase();
    if !asked_again && !STARTING.contains(&&*status) {
        return None;
    }
    Some(Finding::Starting { progress: progress(&document), words: words(&document) })
}

fn progress(document: &Document) -> Option<Progress> {
    if let (Some(done), Some(of)) = (document.done, document.of.or(document.total)) {
        return Some(Progress::Parts { done: done.min(of), of });
    }
    let fraction = match document.progress {
        Some(progress) if progress > 1.0 => progress / 100.0,
        Some(progress) => progress,
        None if document.components.is_empty() => return None,
        None => {
            let whole = |it: &Component| if it.state == "ready" { 1.0 } else { it.progress };
            let sum: f64 = document.components.iter().map(whole).sum();
            #[expect(clippy::cast_precision_loss, reason = "components are few")]
            let count = document.components.len() as f64;
            sum / count
        }
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is clamped, and what is no number becomes zero"
    )]
    Some(Progress::Percent((fraction * 100.0).clamp(0.0, 100.0) as u8))
}

fn words(document: &Document) -> String {
    if let Some(message) = &document.message {
        return bounded(message.clone());
    }
    let parts: Vec<String> = (document.components.iter())
        .filter(|it| it.state != "ready")
        .map(|it| format!("{} {}", it.name, it.state))
        .collect();
    bounded(parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(body: &str, asked_again: bool) -> Option<(Option<Progress>, String)> {
        match read(body.as_bytes(), asked_again)? {
            Finding::Starting { progress, words } => Some((progress, words)),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn bowlines_own_document_says_how_far_it_is() {
        let body = r#"{"status":"starting","components":[
            {"name":"settings","state":"ready","progress":1.0,"waiting_for":[],"since":"…"},
            {"name":"model","state":"loading","progress":0.5,"waiting_for":[],"since":"…"}]}"#;
        let percent = Some(Progress::Percent(75));
        assert_eq!(found(body, false), Some((percent, "model loading".to_owned())));
    }

    #[test]
    fn others_say_it_in_other_keys() {
        let body = r#"{"status":"Loading","done":2,"total":6,"message":"engine\n3"}"#;
        let parts = Some(Progress::Parts { done: 2, of: 6 });
        assert_eq!(found(body, false), Some((parts, "engine 3".to_owned())));
        assert_eq!(found(r#"{"progress":40}"#, true).unwrap().0, Some(Progress::Percent(40)));
        assert_eq!(found(r#"{"progress":0.4}"#, true).unwrap().0, Some(Progress::Percent(40)));
        assert_eq!(found(r#"{"progress":-1e300}"#, true).unwrap().0, Some(Progress::Percent(0)));
    }

    #[test]
    fn only_who_says_so_is_starting() {
        assert_eq!(found("no", false), None);
        assert_eq!(found(r#"{"status":"degraded","progress":0.4}"#, false), None);
        assert_eq!(found("come back later", true), Some((None, String::new())));
    }
}
