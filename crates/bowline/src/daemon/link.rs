//! `bowline link …`: the outbound connections that a server keeps for bots.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use bowline_names::{ErrorCode, Exit};
use http::Method;
use jiff::Timestamp;
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use super::{
    paths, print, running,
    status::settled,
    words::{Paint, colours_on_stdout, roughly, say},
};
use crate::{
    api::links::{LINKS, PATIENCE},
    clock,
    config::{self, Overrides},
    control,
    failure::Failure,
    instance::{Paths, Standing},
    links::{
        environment,
        status::{GoneStatus, LinkStatus, ParkedStatus, TraceStep},
        words::{age_text, facts, farewell, remarks, round_trip, service, since, troubles},
    },
};

/// What is wanted of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Probe,
    Renew,
}

/// How variables are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// For `eval` of a shell.
    Shell,
    /// A `NAME=value` a line.
    Plain,
    Json,
}

/// Lists the links.
///
/// # Errors
/// When no server runs.
pub(super) fn ls(overrides: &Overrides, json: bool) -> Result<Exit, Failure> {
    let record = running(&paths(overrides)?)?;
    let answer = control::ask(&record.control, &Method::GET, LINKS, None)?;
    if json {
        return Ok(print(&format!("{answer:#}\n")));
    }
    let links = read(&answer["links"]);
    if links.is_empty() {
        say("there are no links: [links] of the configuration names none");
    }
    let mut text = table(&links, "", clock::timestamp(), &Paint(colours_on_stdout()));
    text.push_str(&beside(&answer["store"], &answer["gone"], "", clock::timestamp()));
    Ok(print(&text))
}

/// What is to be known beside links: that their messages are in memory, and what is left of those that are gone.
pub(super) fn beside(store: &Value, gone: &Value, indent: &str, now: Timestamp) -> String {
    let mut text = String::new();
    if store["healthy"] == false {
        let words = clean(store["text"].as_str().unwrap_or_default());
        let _ = writeln!(text, "{indent}messages are in memory and not on disk: {words}");
    }
    let gone = gone.as_array().into_iter().flatten();
    for link in gone.filter_map(|link| GoneStatus::deserialize(link).ok()) {
        let _ = writeln!(text, "{indent}{}", clean(&farewell(&link, now)));
    }
    text
}

/// Shows one link, with the age of every level.
///
/// # Errors
/// When no server runs, or there is no such link.
pub(super) fn show(overrides: &Overrides, name: &str, json: bool) -> Result<Exit, Failure> {
    let record = running(&paths(overrides)?)?;
    check_name(name)?;
    let target = format!("{LINKS}/{name}");
    let answer = control::ask(&record.control, &Method::GET, &target, None)?;
    if json {
        return Ok(print(&format!("{answer:#}\n")));
    }
    let link = LinkStatus::deserialize(&answer).map_err(strange)?;
    let mut text = page(&link, clock::timestamp(), &Paint(colours_on_stdout()));
    if link.messages.parked > 0 {
        let target = format!("{target}/parked");
        // The rest is worth showing all the same.
        let answer = control::ask(&record.control, &Method::GET, &target, None).unwrap_or_default();
        let listed = answer["messages"].as_array().into_iter().flatten();
        let listed: Vec<_> =
            listed.filter_map(|it| ParkedStatus::deserialize(it).ok()).take(SHOWN).collect();
        text.push_str(&aside(&link, &listed, clock::timestamp()));
    }
    Ok(print(&text))
}

/// Has a link prove itself, or make a new connection.
///
/// # Errors
/// When no server runs, there is no such link, or it does not go well.
pub(super) fn act(
    overrides: &Overrides,
    act: Act,
    name: &str,
    json: bool,
) -> Result<Exit, Failure> {
    let record = running(&paths(overrides)?)?;
    check_name(name)?;
    let (word, good) = match act {
        Act::Probe => ("probe", "ok"),
        Act::Renew => ("renew", "renewed"),
    };
    let target = format!("{LINKS}/{name}/{word}");
    let patience = PATIENCE + Duration::from_secs(5);
    let body = json!({});
    let answer =
        control::ask_within(patience, &record.control, &Method::POST, &target, Some(&body))?;
    let went_well = answer["outcome"] == good;
    if json {
        print(&format!("{answer:#}\n"));
        return Ok(if went_well { Exit::Ok } else { Exit::Failed });
    }
    let words = clean(answer["text"].as_str().unwrap_or_default());
    if !went_well {
        let outcome = answer["outcome"].as_str().unwrap_or("failed");
        let code = match outcome {
            "impossible" => ErrorCode::LinkUnprobed,
            _ => ErrorCode::LinkNotProved,
        };
        return Err(Failure::new(code, format!("{name}: {outcome}: {words}")));
    }
    let took = answer["seconds"].as_f64().and_then(|took| Duration::try_from_secs_f64(took).ok());
    let took = took.map(|took| format!(" ({})", roughly(took))).unwrap_or_default();
    say(&format!("{name}: {words}{took}"));
    Ok(Exit::Ok)
}

/// Has messages that were put aside offered again.
///
/// # Errors
/// When no server runs, there is no such link, or no such message of it is put aside.
pub(super) fn retry(
    overrides: &Overrides,
    name: &str,
    id: Option<&str>,
    json: bool,
) -> Result<Exit, Failure> {
    let record = running(&paths(overrides)?)?;
    check_name(name)?;
    let target = format!("{LINKS}/{name}/retry");
    let body = id.map_or_else(|| json!({}), |id| json!({ "id": id }));
    let patience = PATIENCE + Duration::from_secs(5);
    let answer =
        control::ask_within(patience, &record.control, &Method::POST, &target, Some(&body))?;
    if json {
        return Ok(print(&format!("{answer:#}\n")));
    }
    match answer["retried"].as_u64().unwrap_or_default() {
        0 => say(&format!("{name}: no message is put aside")),
        1 => say(&format!("{name}: 1 message waits again")),
        count => say(&format!("{name}: {count} messages wait again")),
    }
    Ok(Exit::Ok)
}

/// Drops what is left of a link that is gone.
///
/// # Errors
/// When no server runs, the link is configured, or nothing is left of it.
pub(super) fn drop(overrides: &Overrides, name: &str, json: bool) -> Result<Exit, Failure> {
    let record = running(&paths(overrides)?)?;
    check_name(name)?;
    let target = format!("{LINKS}/{name}/drop");
    let body = json!({});
    let patience = PATIENCE + Duration::from_secs(5);
    let answer =
        control::ask_within(patience, &record.control, &Method::POST, &target, Some(&body))?;
    if json {
        return Ok(print(&format!("{answer:#}\n")));
    }
    say(&format!("{name}: {} dropped", messages(answer["dropped"].as_u64().unwrap_or_default())));
    Ok(Exit::Ok)
}

/// Says what became of a message.
///
/// # Errors
/// When no server runs, or nothing is known of such a message.
pub(super) fn trace(overrides: &Overrides, id: &str, json: bool) -> Result<Exit, Failure> {
    let record = running(&paths(overrides)?)?;
    let target = format!("{LINKS}/trace/{}", escaped(id));
    let answer = control::ask(&record.control, &Method::GET, &target, None)?;
    if json {
        return Ok(print(&format!("{answer:#}\n")));
    }
    let steps = answer["steps"].as_array().into_iter().flatten();
    let steps: Vec<TraceStep> = steps.filter_map(|it| TraceStep::deserialize(it).ok()).collect();
    Ok(print(&story(&steps, &Paint(colours_on_stdout()))))
}

/// Prints the variables by which a bot finds its link.
///
/// # Errors
/// When there is no such link, or it delivers in another way.
pub(super) fn env(overrides: &Overrides, name: &str, form: Form) -> Result<Exit, Failure> {
    let place = paths(overrides)?;
    // A server that runs knows its file, and the port that it got.
    let server = match settled(&place) {
        Standing::Running(record) => {
            control::ask(&record.control, &Method::GET, "/api/v1/status", None).ok()
        }
        Standing::Absent | Standing::Stale(_) | Standing::Unknown(_) => None,
    };
    let server = server.unwrap_or_default();
    let known = server["config_file"].as_str().map(PathBuf::from);
    let overrides = Overrides { file: overrides.file.clone().or(known), ..overrides.clone() };
    let config = config::load(overrides)?;
    let listeners = server["listeners"].as_array().into_iter().flatten();
    let listen = listeners
        .filter(|listener| listener["door"] == "links")
        .find_map(|listener| listener["address"].as_str()?.parse().ok());
    let state = Paths::of(config.server.state_dir.as_deref().or(place.named())).state;
    let variables = environment::of(&config, &state, listen, name)?;
    if form == Form::Shell && server.is_null() {
        say("no server runs here: the variables lead nowhere until one does");
    }
    Ok(print(&written(&variables, form)))
}

fn written(variables: &[(String, String)], form: Form) -> String {
    let line = |text: String, (name, value): &(String, String)| match form {
        Form::Plain | Form::Json => text + &format!("{name}={value}\n"),
        // Between single quotes nothing is special but these.
        Form::Shell => text + &format!("export {name}='{}'\n", value.replace('\'', r"'\''")),
    };
    if form == Form::Json {
        let object: Map<String, Value> =
            variables.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        return format!("{:#}\n", Value::Object(object));
    }
    variables.iter().fold(String::new(), line)
}

/// Reads a list of links; what another version says in another way is left out.
pub(super) fn read(list: &Value) -> Vec<LinkStatus> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|link| LinkStatus::deserialize(link).ok()).collect()
}

/// Links as people read them: a line each, and under it who is there and what is amiss.
pub(super) fn table(links: &[LinkStatus], indent: &str, now: Timestamp, paint: &Paint) -> String {
    let width = links.iter().map(|link| link.name.len()).max().unwrap_or(0);
    let states = links.iter().map(|link| link.state.len()).max().unwrap_or(0);
    let mut text = String::new();
    for link in links {
        let gap = " ".repeat(states - link.state.len());
        let state = paint.state(&link.state);
        let name = &link.name;
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(text, "{indent}{name:width$}  {state}{gap}  {}", clean(&facts(link, now)));
        let troubles = troubles(link, now).into_iter().map(|line| clean(&line));
        let remarks = remarks(link, now).into_iter().map(|line| paint.of("2", &clean(&line)));
        for line in troubles.chain(remarks) {
            let gap = " ".repeat(width + states + 4);
            let _ = writeln!(text, "{indent}{gap}{line}");
        }
    }
    text
}

fn messages(count: u64) -> String {
    format!("{count} message{}", if count == 1 { "" } else { "s" })
}

/// The messages that were put aside that [`show`] names.
const SHOWN: usize = 5;

/// What was put aside, and what can be done with it.
fn aside(link: &LinkStatus, listed: &[ParkedStatus], now: Timestamp) -> String {
    let name = &link.name;
    let mut text =
        format!("\n  put aside; `bowline link retry {name} [ID]` offers all again, or one\n");
    for ParkedStatus { id, since: at, text: words, .. } in listed {
        let line = format!("{id}  {} ago  {words}", roughly(since(*at, now)));
        let _ = writeln!(text, "  {}", clean(line.trim_end()));
    }
    let more = link.messages.parked.saturating_sub(listed.len() as u64);
    if more > 0 && !listed.is_empty() {
        let _ = writeln!(text, "  and {more} more");
    }
    text
}

/// One link with all that is known of it.
fn page(link: &LinkStatus, now: Timestamp, paint: &Paint) -> String {
    let mut text = format!("{}  {} since {:.0}", link.name, paint.state(&link.state), link.since);
    if !link.text.is_empty() {
        let _ = write!(text, ": {}", clean(&link.text));
    }
    text.push('\n');
    let mut row = |label: &str, words: &str| {
        let _ = writeln!(text, "  {}  {}", paint.of("2", &format!("{label:<11}")), clean(words));
    };
    row("service", &service(link));
    row("connection", &connection_words(link, now));
    if !link.advice.is_empty() {
        row("to do", &link.advice);
    }
    if let Some(at) = link.next_attempt {
        row("attempt", &format!("the next one in {}", roughly(since(now, at))));
    }
    row("bot", &link.bot.text);
    let messages = &link.messages;
    let oldest = messages.oldest.map(|at| format!(" (the oldest for {})", roughly(since(at, now))));
    let oldest = oldest.unwrap_or_default();
    row(
        "messages",
        &format!("{} waiting{oldest}, {} put aside", messages.waiting, messages.parked),
    );
    if let Some(refusing) = &messages.refusing {
        let ago = roughly(since(refusing.since, now));
        row("refusing", &format!("new messages, for {ago}: {}", refusing.text));
    }

    let ages: Vec<String> = (link.levels.iter())
        .map(|level| match level.age_seconds {
            Some(age) => format!("{} ago", age_text(age)),
            None => link.unproved(&level.level).to_owned(),
        })
        .collect();
    let width = ages.iter().map(|age| age.len()).max().unwrap_or(0).max("proved".len());
    let head = format!("{:<11}  {:<width$}  what it says", "level", "proved");
    let _ = writeln!(text, "\n  {}", paint.of("2", &head));
    for (level, age) in link.levels.iter().zip(ages) {
        let is_routing = level.level == "routing";
        let trouble = round_trip(link, now).filter(|_| is_routing);
        let colour = if trouble.is_some() { "33" } else { "2" };
        let mut words = trouble.unwrap_or_else(|| meaning(&level.level).to_owned());
        match link.next_probe.filter(|_| is_routing) {
            Some(at) if at > now => {
                let _ = write!(words, "; next round trip in {}", roughly(since(now, at)));
            }
            Some(_) => words.push_str("; one is under way"),
            None => {}
        }
        let words = paint.of(colour, &clean(&words));
        let _ = writeln!(text, "  {:<11}  {age:<width$}  {words}", level.level);
    }

    let _ = writeln!(text, "\n  {}", paint.of("2", "since the gateway started"));
    let figures = &link.figures;
    let mut row = |label: &str, words: String| {
        if !words.is_empty() {
            let _ = writeln!(text, "  {label:<11}  {words}");
        }
    };
    let counts = [
        ("new", figures.messages),
        ("repeated", figures.repeated),
        ("caught up", figures.caught_up),
        ("confirmed", figures.confirmed),
        ("offered again", figures.offered_again),
        ("put aside", figures.parked),
        ("refused", figures.refused),
    ];
    let counts = counts.iter().filter(|(what, count)| *count > 0 || *what == "new");
    row("messages", joined(counts.map(|(what, count)| (*what, *count))));
    let of = |map: &std::collections::BTreeMap<String, u64>| {
        joined(map.iter().filter(|(_, count)| **count > 0).map(|(name, count)| (&**name, *count)))
    };
    let opened = figures.renewals.iter().filter(|(_, count)| **count > 0);
    row("opened", joined(opened.map(|(why, count)| (why_opened(why), *count))));
    row("failed", of(&figures.renewals_failed));
    row("attempts", of(&figures.attempts));
    let probes = figures.probes.iter().filter(|probe| probe.count > 0);
    let probes: Vec<(String, u64)> =
        probes.map(|probe| (format!("{} {}", probe.cause, probe.outcome), probe.count)).collect();
    row("round trips", joined(probes.iter().map(|(name, count)| (&**name, *count))));
    row("requests", of(&figures.http));
    row("escalation", of(&figures.rungs));
    text
}

fn connection_words(link: &LinkStatus, now: Timestamp) -> String {
    let Some(connection) = &link.connection else { return "none".to_owned() };
    let mut words =
        format!("number {}, open for {}", connection.number, roughly(since(connection.since, now)));
    if connection.overlapping {
        words.push_str(", beside another one");
    }
    if let Some(at) = link.renewal {
        let _ = write!(words, ", renewed within {}", roughly(since(now, at)));
    }
    words
}

/// Why a connection was opened.
fn why_opened(reason: &str) -> &str {
    match reason {
        "first" => "at the start",
        "lost" => "after a loss",
        "silent" => "after silence",
        "age" => "for age",
        "drain" => "at the service's wish",
        "unrouted" => "since nothing was routed",
        "asked" => "asked for",
        other => other,
    }
}

/// What a level that was proved says.
fn meaning(level: &str) -> &'static str {
    match level {
        "tcp" => "bytes arrive",
        "pong" => "the other end answers pings",
        "ack" => "the service answers pings of its own protocol",
        "routing" => "messages reach this connection",
        "handled" => "the bot confirms messages",
        _ => "",
    }
}

/// What became of a message, step by step.
fn story(steps: &[TraceStep], paint: &Paint) -> String {
    let mut text = String::new();
    let shown = |step: &TraceStep| match &*step.stage {
        "parked" => "put aside".to_owned(),
        stage => stage.to_owned(),
    };
    let stages = steps.iter().map(|step| shown(step).len()).max().unwrap_or(0);
    let mut of_link = None;
    let mut before: Option<Timestamp> = None;
    for step in steps {
        if of_link != Some(&step.link) {
            let _ = writeln!(text, "{}", step.link);
            of_link = Some(&step.link);
            before = None;
        }
        let later =
            before.map(|at| format!("+{}", roughly(since(at, step.at)))).unwrap_or_default();
        before = Some(step.at);
        let stage = paint.stage(&shown(step));
        let gap = " ".repeat(stages - shown(step).len());
        let words = clean(&step.text);
        let line = format!("  {:.3}  {later:>8}  {stage}{gap}  {words}", step.at);
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn joined<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> String {
    counts.map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}

/// Without what a terminal would obey.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// A name that no link can have is said to be unknown without asking.
fn check_name(name: &str) -> Result<(), Failure> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !name.is_empty() && name.chars().all(fits) {
        return Ok(());
    }
    let message = format!("there is no link \"{}\"", name.escape_debug());
    Err(Failure::new(ErrorCode::LinkUnknown, message))
}

/// An id as a part of a path.
fn escaped(id: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~');
    id.bytes().fold(String::new(), |mut path, byte| {
        if plain(byte) {
            path.push(char::from(byte));
        } else {
            let _ = write!(path, "%{byte:02X}");
        }
        path
    })
}

fn strange(error: serde_json::Error) -> Failure {
    let message = format!("the server's answer is not understood: {error}");
    Failure::new(ErrorCode::ControlSilent, message)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::links::status::{
        BotStatus, ConnectionStatus, FigureStatus, LastProbe, LevelStatus, MessageStatus,
        ProbeFigure, Refusing,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn link() -> LinkStatus {
        let level = |level: &str, age_seconds| LevelStatus { level: level.to_owned(), age_seconds };
        let named = |all: &[(&str, u64)]| -> BTreeMap<String, u64> {
            all.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
        };
        LinkStatus {
            name: "barnacles".to_owned(),
            profile: "webex".to_owned(),
            host: "u2c.wbx2.com".to_owned(),
            state: "live".to_owned(),
            since: at(0),
            text: String::new(),
            advice: String::new(),
            next_attempt: None,
            levels: vec![
                level("tcp", Some(0.4)),
                level("pong", Some(3.1)),
                level("routing", Some(242.0)),
                level("handled", None),
            ],
            connection: Some(ConnectionStatus { number: 3, since: at(100), overlapping: false }),
            last_probe: None,
            next_probe: Some(at(8_400)),
            renewal: Some(at(33_000)),
            bot: BotStatus {
                connections: 1,
                locked_out: false,
                text: "1 bot over the proxy for 3h".to_owned(),
            },
            messages: MessageStatus {
                waiting: 1,
                parked: 0,
                oldest: Some(at(7_990)),
                refusing: None,
            },
            figures: FigureStatus {
                messages: 128,
                repeated: 2,
                caught_up: 0,
                looks: 0,
                offered_again: 0,
                confirmed: 127,
                parked: 0,
                refused: 0,
                attempts: named(&[("ok", 3)]),
                renewals: named(&[("age", 2), ("first", 1), ("lost", 0)]),
                renewals_failed: BTreeMap::new(),
                probes: vec![ProbeFigure {
                    cause: "interval".to_owned(),
                    outcome: "ok".to_owned(),
                    count: 11,
                }],
                rungs: BTreeMap::new(),
                http: named(&[("ok", 512), ("retried", 1), ("failed", 0)]),
            },
        }
    }

    #[test]
    fn a_table_says_of_each_link_what_is_to_be_known() {
        let refused = LinkStatus {
            name: "larry".to_owned(),
            state: "refused".to_owned(),
            text: "the token is not accepted (401)".to_owned(),
            advice: "see that its token is good".to_owned(),
            next_attempt: Some(at(8_192)),
            levels: Vec::new(),
            connection: None,
            messages: MessageStatus {
                waiting: 7,
                oldest: None,
                refusing: Some(Refusing {
                    since: at(7_000),
                    text: "as many messages wait as may".to_owned(),
                }),
                ..link().messages
            },
            bot: BotStatus { connections: 0, locked_out: false, text: String::new() },
            ..link()
        };
        assert_eq!(
            table(&[link(), refused], "  ", at(8_000), &Paint(false)),
            "\
\x20 barnacles  live     webex at u2c.wbx2.com, connected for 2h 11m, routing proved 4m 2s ago
\x20                     1 bot over the proxy for 3h
\x20                     1 message waits, the oldest for 10s
\x20 larry      refused  webex at u2c.wbx2.com
\x20                     the token is not accepted (401)
\x20                     see that its token is good
\x20                     new messages are refused for 16m 40s: as many messages wait as may
\x20                     next attempt in 3m 12s
\x20                     7 messages wait
"
        );
    }

    #[test]
    fn a_page_has_the_age_of_every_level() {
        assert_eq!(
            page(&link(), at(8_000), &Paint(false)),
            "\
barnacles  live since 1970-01-01T00:00:00Z
  service      webex at u2c.wbx2.com
  connection   number 3, open for 2h 11m, renewed within 6h 56m
  bot          1 bot over the proxy for 3h
  messages     1 waiting (the oldest for 10s), 0 put aside

  level        proved     what it says
  tcp          400ms ago  bytes arrive
  pong         3.1s ago   the other end answers pings
  routing      4m 2s ago  messages reach this connection; next round trip in 6m 40s
  handled      never      the bot confirms messages

  since the gateway started
  messages     128 new, 2 repeated, 127 confirmed
  opened       2 for age, 1 at the start
  attempts     3 ok
  round trips  11 interval ok
  requests     512 ok, 1 retried
"
        );
    }

    #[test]
    fn a_level_that_was_proved_before_is_not_said_to_be_never_proved() {
        let mut link = link();
        link.levels = ["pong", "routing", "handled"]
            .map(|level| LevelStatus { level: level.to_owned(), age_seconds: None })
            .into();
        let page = page(&link, at(8_000), &Paint(false));
        let line = |level: &str, words: &str| format!("  {level:<11}  {words}  ");
        for level in ["pong", "routing"] {
            assert!(page.contains(&line(level, "not yet on this connection")), "{page}");
        }
        assert!(page.contains(&line("handled", "never")), "{page}");
        let table = table(&[link.clone()], "", at(8_000), &Paint(false));
        assert!(table.contains("routing not proved yet on this connection"), "{table}");
        link.figures.probes.clear();
        link.figures.renewals.clear();
        assert!(!self::page(&link, at(8_000), &Paint(false)).contains("not yet"), "{link:?}");
    }

    #[test]
    fn a_page_and_a_table_say_that_the_last_round_trip_failed() {
        let link = |outcome: &str, text: &str| LinkStatus {
            last_probe: Some(LastProbe {
                outcome: outcome.to_owned(),
                cause: "interval".to_owned(),
                at: at(7_988),
                text: text.to_owned(),
            }),
            ..link()
        };
        let lost = "the last round trip was lost 12s ago: messages may not arrive";
        let not_made = "the last round trip could not be made 12s ago: 503";
        let of = |level: &str, words: &str| format!("  {level:<11}  4m 2s ago  {words}; next ");
        for (link, words) in [(link("lost", ""), lost), (link("not-made", "503"), not_made)] {
            let page = page(&link, at(8_000), &Paint(false));
            assert!(page.contains(&of("routing", words)), "{page}");
            let table = table(&[link], "", at(8_000), &Paint(false));
            assert!(table.contains(words), "{table}");
        }
        let well = page(&link("ok", ""), at(8_000), &Paint(false));
        assert!(well.contains(&of("routing", "messages reach this connection")), "{well}");
        let under_way = LinkStatus { next_probe: Some(at(7_999)), ..link("ok", "") };
        let under_way = page(&under_way, at(8_000), &Paint(false));
        assert!(under_way.contains("this connection; one is under way"), "{under_way}");
    }

    #[test]
    fn a_link_that_is_gone_is_told_with_what_becomes_of_its_messages() {
        let (name, since, until) = ("larry".to_owned(), at(0), at(7 * 24 * 3_600));
        let gone = GoneStatus { name, waiting: 2, parked: 1, since, until };
        assert_eq!(
            farewell(&gone, at(3_600)),
            "larry is not configured any more and has 2 messages waiting and 1 put aside: offered when it is back, \
             deleted in 6d 23h; `bowline link drop larry` drops them now"
        );
    }

    #[test]
    fn a_trace_has_the_time_from_step_to_step() {
        let step = |stage: &str, ms: i64, text: &str| TraceStep {
            link: "bot".to_owned(),
            stage: stage.to_owned(),
            at: Timestamp::from_millisecond(ms).unwrap(),
            text: text.to_owned(),
        };
        let steps = [
            step("arrived", 1_000, ""),
            step("offered", 1_012, "1"),
            step("confirmed", 4_512, "by its ack\x1b[2J"),
            step("parked", 5_512, ""),
        ];
        assert_eq!(
            story(&steps, &Paint(false)),
            "\
bot
  1970-01-01T00:00:01.000Z            arrived
  1970-01-01T00:00:01.012Z     +12ms  offered    1
  1970-01-01T00:00:04.512Z     +3.5s  confirmed  by its ack[2J
  1970-01-01T00:00:05.512Z     +1.0s  put aside
"
        );
    }

    #[test]
    fn variables_are_written_for_a_shell_for_a_file_and_for_programs() {
        let variables = [("A".to_owned(), "it's".to_owned()), ("B".to_owned(), "2".to_owned())];
        assert_eq!(written(&variables, Form::Shell), "export A='it'\\''s'\nexport B='2'\n");
        assert_eq!(written(&variables, Form::Plain), "A=it's\nB=2\n");
        assert_eq!(written(&variables, Form::Json), "{\n  \"A\": \"it's\",\n  \"B\": \"2\"\n}\n");
    }

    #[test]
    fn an_id_is_one_part_of_a_path_whatever_it_has() {
        assert_eq!(escaped("a-b_7/../é?"), "a-b_7%2F%2E%2E%2F%C3%A9%3F");
    }
}
