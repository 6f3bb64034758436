//! How a link is, as people read it: on the command line and on the admin page.

use std::time::Duration;

use jiff::Timestamp;

use super::status::{GoneStatus, LinkStatus};
use crate::daemon::roughly;

/// What it is, and since when it is so.
pub(crate) fn facts(link: &LinkStatus, now: Timestamp) -> String {
    let mut facts = vec![service(link)];
    if let Some(connection) = &link.connection {
        facts.push(format!("connected for {}", roughly(since(connection.since, now))));
    }
    if let Some(level) = link.levels.iter().find(|level| level.level == "routing") {
        facts.push(match level.age_seconds {
            Some(age) => format!("routing proved {} ago", age_text(age)),
            None => match link.unproved("routing") {
                "never" => "routing never proved".to_owned(),
                when => format!("routing not proved {}", when.trim_start_matches("not ")),
            },
        });
    }
    facts.join(", ")
}

/// What it speaks, and with whom. A link that is not kept knows no host.
pub(crate) fn service(link: &LinkStatus) -> String {
    match &*link.host {
        "" => link.profile.clone(),
        host => format!("{} at {host}", link.profile),
    }
}

/// What is amiss, and what helps.
pub(crate) fn troubles(link: &LinkStatus, now: Timestamp) -> Vec<String> {
    let mut lines = Vec::new();
    if !link.text.is_empty() && link.state != "live" {
        lines.push(link.text.clone());
    }
    lines.extend(round_trip(link, now));
    if !link.advice.is_empty() {
        lines.push(link.advice.clone());
    }
    if link.bot.locked_out {
        lines.push(link.bot.text.clone());
    }
    if let Some(refusing) = &link.messages.refusing {
        let ago = roughly(since(refusing.since, now));
        lines.push(format!("new messages are refused for {ago}: {}", refusing.text));
    }
    lines
}

/// What else is to be known of it at once: what comes next, who is there, and what waits.
pub(crate) fn remarks(link: &LinkStatus, now: Timestamp) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(at) = link.next_attempt {
        lines.push(format!("next attempt in {}", roughly(since(now, at))));
    }
    if !link.bot.text.is_empty() && !link.bot.locked_out {
        lines.push(link.bot.text.clone());
    }
    let messages = &link.messages;
    if messages.waiting > 0 {
        let oldest =
            messages.oldest.map(|at| format!(", the oldest for {}", roughly(since(at, now))));
        let (word, waits) =
            if messages.waiting == 1 { ("message", "waits") } else { ("messages", "wait") };
        lines.push(format!("{} {word} {waits}{}", messages.waiting, oldest.unwrap_or_default()));
    }
    if messages.parked > 0 {
        lines.push(format!("{} put aside", messages.parked));
    }
    lines
}

/// That the last routing round trip did not come back, or could not be made.
pub(crate) fn round_trip(link: &LinkStatus, now: Timestamp) -> Option<String> {
    let probe = link.last_probe.as_ref()?;
    let ago = roughly(since(probe.at, now));
    match &*probe.outcome {
        "lost" => Some(format!("the last round trip was lost {ago} ago: messages may not arrive")),
        "not-made" => {
            Some(format!("the last round trip could not be made {ago} ago: {}", probe.text))
        }
        _ => None,
    }
}

/// What is left of a link that is gone, and what becomes of it.
pub(crate) fn farewell(link: &GoneStatus, now: Timestamp) -> String {
    let GoneStatus { name, waiting, parked, until, .. } = link;
    let aside = if *parked > 0 { format!(" and {parked} put aside") } else { String::new() };
    let left = roughly(since(now, *until));
    let word = if *waiting == 1 { "message" } else { "messages" };
    format!(
        "{name} is not configured any more and has {waiting} {word} waiting{aside}: offered when it is back, deleted in \
         {left}; `bowline link drop {name}` drops them now"
    )
}

/// An age in seconds.
pub(crate) fn age_text(seconds: f64) -> String {
    roughly(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// How long it is from one point to another that should be later.
pub(crate) fn since(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
