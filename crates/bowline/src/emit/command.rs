//! `bowline emit`: an event from the command line.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use bowline_names::{ErrorCode, Exit};
use clap::Args;
use http::Method;
use serde_json::{Value, json, value::RawValue};

use super::limit;
use crate::{
    config::duration_text,
    control,
    daemon::{self, Place, print},
    failure::Failure,
    remote::{self, Token, Url},
};

pub(crate) const HELP: &str = "\
Each argument of the event is JSON: a text has quotes of its own. What was sent is counted; an event
that is for nobody is no failure.

Examples:
  bowline emit / news '\"hello\"' '{\"urgent\": true}'
  bowline emit /chat typing --room game-7 --except AMNLsXT6Qy1nC0nDDbWk
  bowline emit / report --ack --timeout 2s
  bowline emit / paid '{\"order\": 17}' --room user-7 --hold 10m --id order-17-paid
  bowline emit / news '\"hello\"' --url https://gateway.example.com --token-file admin.token

Exit codes: 0 sent, held, or nobody was there; 2 wrong usage, 3 not running, 1 anything else";

/// What to send to whom, and who is asked to send it.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Namespace, such as /
    #[arg(value_parser = namespace)]
    namespace: String,

    /// Name of the event
    event: String,

    /// Arguments of the event, each in JSON
    #[arg(value_name = "JSON", value_parser = argument, allow_negative_numbers = true)]
    args: Vec<Box<RawValue>>,

    /// Only members of this room; may be repeated. A sid is a room
    #[arg(long, value_name = "ROOM")]
    room: Vec<String>,

    /// Not members of this room; may be repeated
    #[arg(long, value_name = "ROOM")]
    except: Vec<String>,

    /// Ask all receivers for an ack, and wait for them
    #[arg(long)]
    ack: bool,

    /// How long acks are waited for, 50s at most [default: 5s]
    #[arg(long, value_name = "TIME", requires = "ack", value_parser = timeout)]
    timeout: Option<Duration>,

    /// Drop it for receivers that cannot take it at once
    #[arg(long)]
    volatile: bool,

    /// If nobody is there, keep it so long for whoever comes first
    #[arg(long, value_name = "TIME", value_parser = hold)]
    hold: Option<Duration>,

    /// Send it once, however often it is asked for with this id within ten minutes
    #[arg(long)]
    id: Option<String>,

    /// As JSON
    #[arg(long)]
    json: bool,

    /// Ask the server with this admin listener, instead of the one on this machine
    // No conflict with --config and --state-dir: those may come from the environment.
    #[arg(long)]
    url: Option<Url>,

    /// File with the token for that
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,

    #[command(flatten)]
    place: Place,
}

/// Sends the event and says what became of it.
///
/// # Errors
/// When no server runs, or it says no.
pub(crate) fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let request = request(&arguments);
    let Arguments { json, url, token_file, place, hold, timeout, .. } = arguments;
    // The server says that its time is over before this gives it up.
    let patience = limit::PATIENCE.min(timeout.unwrap_or(limit::ACK) + Duration::from_secs(5));
    let answer = match url {
        Some(url) => {
            let token = token_file.as_deref().map(Token::read).transpose();
            let token = token.map_err(|why| Failure::new(ErrorCode::AdminTokenUnreadable, why))?;
            remote::ask((&url, token.as_ref()), patience, &Method::POST, TARGET, &request)?
        }
        None => {
            let paths = daemon::paths(&place.overrides())?;
            let path = daemon::running(&paths)?.control;
            control::ask_within(patience, &path, &Method::POST, TARGET, Some(&request))?
        }
    };
    Ok(print(&if json { format!("{answer:#}\n") } else { words(&answer, hold) }))
}

const TARGET: &str = "/api/v1/emit";

fn request(arguments: &Arguments) -> Value {
    let Arguments {
        namespace, event, args, room, except, ack, timeout, volatile, hold, id, ..
    } = arguments;
    let to = if room.is_empty() { json!("all") } else { json!(room) };
    let duration = |duration: &Option<Duration>| duration.map(duration_text);
    json!({
        "namespace": namespace,
        "to": to,
        "except": except,
        "event": event,
        "args": args,
        "ack": ack,
        "timeout": duration(timeout),
        "volatile": volatile,
        "hold": duration(hold),
        "id": id,
    })
}

/// The answer for people: a line, and a line for each ack.
fn words(answer: &Value, hold: Option<Duration>) -> String {
    let number = |key: &str| answer.get(key).and_then(Value::as_u64).unwrap_or_default();
    let receivers = number("receivers");
    let sockets = if receivers == 1 { "socket" } else { "sockets" };
    let acks = answer.get("acks").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut text = if answer.get("held") == Some(&Value::Bool(true)) {
        let hold = hold.map(duration_text).unwrap_or_default();
        format!("nobody is there: held for {hold}, for whoever comes first")
    } else if receivers == 0 {
        "sent to nobody: no such socket is connected".to_owned()
    } else {
        format!("sent to {receivers} {sockets}")
    };
    let (missing, left_out) = (number("missing"), number("left_out"));
    if missing > 0 || !acks.is_empty() {
        let _ = write!(text, ", {} acked", acks.len() as u64 + left_out);
    }
    if missing > 0 {
        let _ = write!(text, ", {missing} did not in time");
    }
    text.push('\n');
    for ack in acks {
        let sid = ack.get("sid").and_then(Value::as_str).unwrap_or_default();
        let _ = writeln!(text, "  {sid}  {}", ack.get("args").unwrap_or(&Value::Null));
    }
    if left_out > 0 {
        let _ = writeln!(text, "  and {left_out} more");
    }
    text
}

fn namespace(text: &str) -> Result<String, &'static str> {
    let good = text.starts_with('/');
    if good { Ok(text.to_owned()) } else { Err("a namespace begins with /, and / is the main one") }
}

fn argument(text: &str) -> Result<Box<RawValue>, String> {
    serde_json::from_str::<&RawValue>(text).map(ToOwned::to_owned).map_err(|error| {
        format!(
            "that is no JSON: {error}. A text has quotes inside those of the shell: '\"hello\"'"
        )
    })
}

fn timeout(text: &str) -> Result<Duration, String> {
    up_to(text, limit::ACK_MAX)
}

fn hold(text: &str) -> Result<Duration, String> {
    up_to(text, limit::HOLD_MAX)
}

fn up_to(text: &str, most: Duration) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (Duration::from_millis(1)..=most).contains(&duration) {
        return Ok(duration);
    }
    Err(format!("from 1ms to {}", duration_text(most)))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(words: &[&str]) -> Result<Value, String> {
        let words = ["bowline", "emit"].iter().chain(words);
        match Cli::try_parse_from(words).map_err(|error| error.to_string())?.command {
            Command::Emit(arguments) => Ok(request(&arguments)),
            _ => panic!("another command"),
        }
    }

    #[test]
    fn an_event_for_everybody_needs_two_words() {
        let request = parse(&["/", "news"]).unwrap();
        assert_eq!((&request["to"], &request["args"]), (&json!("all"), &json!([])));
        assert_eq!((&request["ack"], &request["id"]), (&json!(false), &Value::Null));
    }

    #[test]
    fn everything_that_the_api_takes_can_be_said() {
        let request = parse(&[
            "/chat",
            "say",
            "\"hello\"",
            "-5",
            "{\"a\":[1.50]}",
            "--room",
            "a",
            "--room",
            "b",
            "--except",
            "c",
            "--ack",
            "--timeout",
            "2s",
            "--volatile",
            "--hold",
            "10m",
            "--id",
            "x",
        ])
        .unwrap();
        assert_eq!(
            request.to_string(),
            json!({
                "namespace": "/chat", "to": ["a", "b"], "except": ["c"], "event": "say",
                "args": ["hello", -5, {"a": [1.50]}], "ack": true, "timeout": "2s",
                "volatile": true, "hold": "10m", "id": "x",
            })
            .to_string()
        );
    }

    #[test]
    fn mistakes_are_told_with_what_to_write() {
        for (words, told) in [
            (&["chat", "say"][..], "begins with /"),
            (&["/", "say", "hello"], "quotes inside those of the shell"),
            (&["/", "say", "--timeout", "2s"], "--ack"),
            (&["/", "say", "--ack", "--timeout", "2h"], "from 1ms to 50s"),
            (&["/", "say", "--hold", "x"], "--hold"),
            (&["/", "say", "--token-file", "x"], "--url"),
            (&["/", "say", "--url", "gateway"], "such as http://"),
        ] {
            let said = parse(words).unwrap_err();
            assert!(said.contains(told), "{words:?}: {said}");
        }
    }

    #[test]
    fn people_are_told_who_it_reached() {
        let hold = Some(Duration::from_secs(30));
        for (answer, told) in [
            (json!({ "receivers": 0 }), "sent to nobody: no such socket is connected\n"),
            (json!({ "receivers": 1, "acks": [], "missing": 0 }), "sent to 1 socket\n"),
            (
                json!({ "receivers": 0, "held": true }),
                "nobody is there: held for 30s, for whoever comes first\n",
            ),
            (
                json!({ "receivers": 3, "missing": 1, "acks":
                    [{ "sid": "A", "args": ["ok"] }, { "sid": "B", "args": [] }] }),
                "sent to 3 sockets, 2 acked, 1 did not in time\n  A  [\"ok\"]\n  B  []\n",
            ),
            (
                json!({ "receivers": 2, "missing": 0, "left_out": 1, "acks":
                    [{ "sid": "A", "args": [] }] }),
                "sent to 2 sockets, 2 acked\n  A  []\n  and 1 more\n",
            ),
        ] {
            assert_eq!(words(&answer, hold), told);
        }
    }
}
