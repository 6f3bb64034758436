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
        status::{LinkStatus, TraceStep},
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
    let store = &answer["store"];
    if store["healthy"] == false {
        let words = store["text"].as_str().unwrap_or_default();
        let _ = writeln!(text, "messages are in memory and not on disk: {}", clean(words));
    }
    Ok(print(&text))
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
    Ok(print(&page(&link, clock::timestamp(), &Paint(colours_on_stdout()))))
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
        return Err(Failure::new(ErrorCode::LinkNotProved, format!("{name}: {outcome}: {words}")));
    }
    let took = answer["seconds"].as_f64().and_then(|took| Duration::try_from_secs_f64(took).ok());
    let took = took.map(|took| format!(" ({})", roughly(took))).unwrap_or_default();
    say(&format!("{name}: {words}{took}"));
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
    let variables = environment::of(&config, &state, listen, name).map_err(|why| {
        let missing = !config.links.all.0.iter().any(|(known, _)| known == name);
        let code = if missing { ErrorCode::LinkUnknown } else { ErrorCode::LinkNoVariables };
        Failure::new(code, why)
    })?;
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
        let mut facts = vec![format!("{} at {}", link.profile, clean(&link.host))];
        if let Some(connection) = &link.connection {
            facts.push(format!("connected for {}", roughly(since(connection.since, now))));
        }
        if let Some(level) = link.levels.iter().find(|level| level.level == "routing") {
            facts.push(match level.age_seconds {
                Some(age) => format!("routing proved {} ago", age_text(age)),
                None => "routing never proved".to_owned(),
            });
        }
        let gap = " ".repeat(states - link.state.len());
        let state = paint.state(&link.state);
        let name = &link.name;
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(text, "{indent}{name:width$}  {state}{gap}  {}", facts.join(", "));
        for line in remarks(link, now) {
            let gap = " ".repeat(width + states + 4);
            let _ = writeln!(text, "{indent}{gap}{}", paint.of("2", &clean(&line)));
        }
    }
    text
}

/// What else is to be known of a link at once.
fn remarks(link: &LinkStatus, now: Timestamp) -> Vec<String> {
    let mut lines = Vec::new();
    if !link.text.is_empty() && link.state != "live" {
        lines.push(link.text.clone());
    }
    if let Some(at) = link.next_attempt {
        lines.push(format!("next attempt in {}", roughly(since(now, at))));
    }
    if !link.bot.text.is_empty() {
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
    row("service", &format!("{} at {}", link.profile, link.host));
    row("connection", &connection_words(link, now));
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

    let ages: Vec<String> = link.levels.iter().map(|level| proved(level.age_seconds)).collect();
    let width = ages.iter().map(|age| age.len()).max().unwrap_or(0).max("proved".len());
    let head = format!("{:<11}  {:<width$}  what it says", "level", "proved");
    let _ = writeln!(text, "\n  {}", paint.of("2", &head));
    for (level, age) in link.levels.iter().zip(ages) {
        let mut words = meaning(&level.level).to_owned();
        if let Some(at) = link.next_probe.filter(|_| level.level == "routing") {
            let _ = write!(words, "; next round trip in {}", roughly(since(now, at)));
        }
        let _ = writeln!(text, "  {:<11}  {age:<width$}  {}", level.level, paint.of("2", &words));
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
    ];
    let counts = counts.iter().filter(|(what, count)| *count > 0 || *what == "new");
    row("messages", joined(counts.map(|(what, count)| (*what, *count))));
    let of = |map: &std::collections::BTreeMap<String, u64>| {
        joined(map.iter().filter(|(_, count)| **count > 0).map(|(name, count)| (&**name, *count)))
    };
    row("connections", of(&figures.renewals));
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
    let stages = steps.iter().map(|step| step.stage.len()).max().unwrap_or(0);
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
        let stage = paint.stage(&step.stage);
        let gap = " ".repeat(stages - step.stage.len());
        let words = clean(&step.text);
        let line = format!("  {:.3}  {later:>8}  {stage}{gap}  {words}", step.at);
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn joined<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> String {
    counts.map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}

fn proved(age: Option<f64>) -> String {
    age.map_or_else(|| "never".to_owned(), |age| format!("{} ago", age_text(age)))
}

fn age_text(seconds: f64) -> String {
    roughly(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// How long it is from one point to another that should be later.
fn since(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
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
        BotStatus, ConnectionStatus, FigureStatus, LevelStatus, MessageStatus, ProbeFigure,
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
            host: "wdm-a.wbx2.com".to_owned(),
            state: "live".to_owned(),
            since: at(0),
            text: String::new(),
            next_attempt: None,
            levels: vec![
                level("tcp", Some(0.4)),
                level("pong", Some(3.1)),
                level("routing", Some(242.0)),
                level("handled", None),
            ],
            connection: Some(ConnectionStatus { number: 3, since: at(100), overlapping: false }),
            next_probe: Some(at(8_400)),
            renewal: Some(at(33_000)),
            bot: BotStatus { connections: 1, text: "1 bot over the proxy since 10:04".to_owned() },
            messages: MessageStatus { waiting: 1, parked: 0, oldest: Some(at(7_990)) },
            figures: FigureStatus {
                messages: 128,
                repeated: 2,
                caught_up: 0,
                offered_again: 0,
                confirmed: 127,
                parked: 0,
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
            next_attempt: Some(at(8_192)),
            levels: Vec::new(),
            connection: None,
            messages: MessageStatus { waiting: 0, parked: 0, oldest: None },
            bot: BotStatus { connections: 0, text: String::new() },
            ..link()
        };
        assert_eq!(
            table(&[link(), refused], "  ", at(8_000), &Paint(false)),
            "\
\x20 barnacles  live     webex at wdm-a.wbx2.com, connected for 2h 11m, routing proved 4m 2s ago
\x20                     1 bot over the proxy since 10:04
\x20                     1 message waits, the oldest for 10s
\x20 larry      refused  webex at wdm-a.wbx2.com
\x20                     the token is not accepted (401)
\x20                     next attempt in 3m 12s
"
        );
    }

    #[test]
    fn a_page_has_the_age_of_every_level() {
        assert_eq!(
            page(&link(), at(8_000), &Paint(false)),
            "\
barnacles  live since 1970-01-01T00:00:00Z
  service      webex at wdm-a.wbx2.com
  connection   number 3, open for 2h 11m, renewed within 6h 56m
  bot          1 bot over the proxy since 10:04
  messages     1 waiting (the oldest for 10s), 0 put aside

  level        proved     what it says
  tcp          400ms ago  bytes arrive
  pong         3.1s ago   the other end answers pings
  routing      4m 2s ago  messages reach this connection; next round trip in 6m 40s
  handled      never      the bot confirms messages

  since the gateway started
  messages     128 new, 2 repeated, 127 confirmed
  connections  2 age, 1 first
  attempts     3 ok
  round trips  11 interval ok
  requests     512 ok, 1 retried
"
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
        ];
        assert_eq!(
            story(&steps, &Paint(false)),
            "\
bot
  1970-01-01T00:00:01.000Z            arrived
  1970-01-01T00:00:01.012Z     +12ms  offered    1
  1970-01-01T00:00:04.512Z     +3.5s  confirmed  by its ack[2J
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
