//! `bowline config …`, as people and scripts meet it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// Five things that people get wrong: a letter, a unit, a word, a shape, a name.
const FIVE_MISTAKES: &str = r#"[server]
lisen = "127.0.0.1:9000"

[engine]
ping-interval = 25
transports = ["polling", "websockets"]

[limits]
queued-bytes-per-session = "4 megs"

[namespaces.chat]
handler = "echo"
"#;

/// What people read about it.
const PAGE: &str = include_str!("../../../docs/configuration.md");

#[test]
fn a_file_with_five_mistakes_is_told_all_five_with_line_text_and_suggestion() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "bowline.toml", FIVE_MISTAKES);
    let output = bowline(directory.path(), &["config", "check", "bowline.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "");
    let said = text(&output.stderr);
    for (line, message, suggestion) in [
        (2, "unknown key `server.lisen`", "did you mean `listen`?"),
        (5, "`engine.ping-interval` is 25", "write a duration such as \"500ms\""),
        (
            6,
            "`engine.transports` has an entry that is \"websockets\"; write \"polling\" or \"websocket\"",
            "did you mean \"websocket\"?",
        ),
        (9, "`limits.queued-bytes-per-session` is \"4 megs\"", "write a size such as \"64KiB\""),
        (11, "`namespaces.\"chat\"` must begin with a slash", "did you mean `/chat`?"),
    ] {
        let told = format!("\n  bowline.toml:{line}: {message}; {suggestion}");
        assert!(said.contains(&told), "{told:?} is missing in:\n{said}");
        let written = FIVE_MISTAKES.lines().nth(line - 1).unwrap();
        assert!(said.contains(&format!("\n  {line:>5} | {written}\n")), "{written:?}:\n{said}");
    }
    assert!(
        said.starts_with("error[config-invalid]: the configuration has 5 mistakes\n"),
        "{said}"
    );
    // The page shows this very file, and this very answer.
    for shown in [format!("```toml\n{FIVE_MISTAKES}```"), format!("```text\n{said}```")] {
        assert!(PAGE.contains(&shown), "docs/configuration.md does not have:\n{shown}");
    }
}

#[test]
fn scripts_get_the_same_as_json() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "bowline.toml", FIVE_MISTAKES);
    let output = bowline(directory.path(), &["config", "check", "--json", "bowline.toml"]);
    assert_eq!(output.status.code(), Some(2));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["ok"], false);
    let lines: Vec<_> =
        told["mistakes"].as_array().unwrap().iter().map(|one| &one["line"]).collect();
    assert_eq!(lines, [2, 5, 6, 9, 11]);
    assert_eq!(told["mistakes"][0]["text"], "lisen = \"127.0.0.1:9000\"");

    let output = bowline(directory.path(), &["config", "check", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["ok"], true);
}

#[test]
fn what_may_be_right_elsewhere_is_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let token = write(directory.path(), "token", "hush-hush-hush-hush\n");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    let file = "[server]\nproxy-protocol = true\n[admin]\ntoken-file = \"token\"\n";
    write(directory.path(), "bowline.toml", file);
    let output = bowline(directory.path(), &["config", "check", "--config", "bowline.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "bowline.toml: OK, 2 keys set\n");
    let said = text(&output.stderr);
    let token = token.display();
    for words in [
        "warning: `server.proxy-protocol` without `server.trusted-proxies`",
        &format!("warning: `admin.token-file`: {token} is open to everybody on this machine"),
    ] {
        assert!(said.contains(words), "{words:?} is missing in:\n{said}");
    }
    assert_eq!(said.lines().count(), 2, "{said}");
}

#[test]
fn a_file_that_is_not_there_is_a_mistake_at_the_line_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = "[server.tls]\ncert-file = \"no.pem\"\nkey-file = \"no.pem\"\n\
                [admin]\ntoken-file = \"no-token\"\n[alerts]\nrules-file = \"no-rules\"\n\
                [backends.app]\nurl = \"http://127.0.0.1:1/\"\nsecret-file = \"no-secret\"\n\
                [namespaces.\"/\"]\nhandler = \"echo\"\n\
                auth.jwt = { secret-file = \"no-keys\" }\n";
    write(directory.path(), "bowline.toml", file);
    let output = bowline(directory.path(), &["config", "check", "bowline.toml"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for (line, key, name) in [
        (2, "server.tls.cert-file", "no.pem"),
        (5, "admin.token-file", "no-token"),
        (7, "alerts.rules-file", "no-rules"),
        (10, "backends.\"app\".secret-file", "no-secret"),
        (13, "namespaces.\"/\".auth.jwt.secret-file", "no-keys"),
    ] {
        let path = directory.path().join(name);
        let told = format!("bowline.toml:{line}: `{key}`: cannot read {}: ", path.display());
        assert!(said.contains(&told), "{told:?} is missing in:\n{said}");
    }
}

#[test]
fn clients_and_operators_are_not_given_one_address() {
    let directory = tempfile::tempdir().unwrap();
    let file = "[server]\nlisten = \"127.0.0.1:9000\"\n[admin]\nlisten = \"127.0.0.1:9000\"\n";
    write(directory.path(), "bowline.toml", file);
    let output = bowline(directory.path(), &["config", "check", "bowline.toml"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("bowline.toml:4: `admin.listen` is 127.0.0.1:9000 and"), "{said}");
    // The address that is for all has the port of the default of the other.
    let mut command = command(directory.path());
    let output = command.args(["config", "check"]).env("PORT", "8001").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("\n  PORT: `admin.listen`"));
    let free = ["config", "check", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"];
    assert_eq!(bowline(directory.path(), &free).status.code(), Some(0));
}

#[test]
fn of_two_files_none_is_checked_in_silence() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "good.toml", "");
    write(directory.path(), "bad.toml", FIVE_MISTAKES);
    let words = ["config", "check", "good.toml", "--config", "bad.toml"];
    let output = bowline(directory.path(), &words);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("two configuration files are named"));
    // The variable is what holds where no file is named.
    let mut command = command(directory.path());
    command.args(&words[..3]).env("BOWLINE_CONFIG", "bad.toml");
    assert_eq!(command.output().unwrap().status.code(), Some(0));
}

#[test]
fn a_bad_value_of_a_variable_is_blamed_on_the_variable() {
    let directory = tempfile::tempdir().unwrap();
    let said = |words: &[&str]| {
        let mut command = command(directory.path());
        let output = command.args(words).env("BOWLINE_SHARDS", "many").output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        text(&output.stderr)
    };
    assert!(said(&["config", "check"]).contains("from the variable BOWLINE_SHARDS"));
    let flag = said(&["config", "check", "--shards=many"]);
    assert!(!flag.contains("BOWLINE_SHARDS"), "{flag}");
}

#[test]
fn a_file_that_no_server_could_use_is_a_mistake_at_the_line_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "token", "hush\n");
    write(directory.path(), "cert.pem", "no certificate\n");
    let file = "[server.tls]\ncert-file = \"cert.pem\"\nkey-file = \"cert.pem\"\n\
                [admin]\ntoken-file = \"token\"\n[alerts]\nrules-file = \"cert.pem\"\n";
    write(directory.path(), "bowline.toml", file);
    let output = bowline(directory.path(), &["config", "check", "bowline.toml"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    for words in [
        "bowline.toml:2: `server.tls.cert-file`: there is no certificate in",
        "bowline.toml:5: `admin.token-file`:",
        "a token has fewer than",
        "bowline.toml:7: `alerts.rules-file`: `bowline alerts check cert.pem` says what is wrong",
    ] {
        assert!(said.contains(words), "{words:?} is missing in:\n{said}");
    }
    assert!(!said.contains("hush"), "{said}");
}

#[test]
fn what_will_run_is_shown_with_where_it_comes_from() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "bowline.toml", "[engine]\nping-interval = \"10s\"\n");
    let mut command = command(directory.path());
    command.args(["config", "show", "--config", "bowline.toml", "--log-level", "debug"]);
    command.env("BOWLINE_SHARDS", "3").env("PORT", "3000");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let lines: Vec<String> = (text(&output.stdout).lines())
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for line in [
        r#"listen = "0.0.0.0:3000" # PORT"#,
        "shards = 3 # BOWLINE_SHARDS",
        "#state-dir # not set",
        r#"ping-interval = "10s" # bowline.toml:2"#,
        r#"ping-timeout = "20s" # default"#,
        r#"max-payload = "1MB" # default"#,
        r#"level = "debug" # --log-level"#,
        r#"[namespaces."/relay"]"#,
    ] {
        assert!(lines.iter().any(|shown| shown == line), "{line:?} is missing in:\n{lines:#?}");
    }

    let output =
        bowline(directory.path(), &["config", "show", "--json", "--config", "bowline.toml"]);
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    let keys = shown["keys"].as_array().unwrap();
    let interval = keys.iter().find(|key| key["key"] == "engine.ping-interval").unwrap();
    assert_eq!(interval["value"], "10s");
    assert_eq!(interval["from"], "file");
    assert_eq!(interval["place"], "bowline.toml:2");
    assert_eq!(interval["change"], "reload");
}

#[test]
fn a_key_is_explained_by_its_path_or_by_its_end() {
    let directory = tempfile::tempdir().unwrap();
    for asked in ["engine.max-payload", "max-payload"] {
        let output = bowline(directory.path(), &["config", "explain", asked]);
        assert_eq!(
            text(&output.stdout),
            r#"engine.max-payload
  The largest message: one WebSocket message or one polling body.

  value    a size such as "64KiB" or "1MB", or a number of bytes, from 1 to 1GiB
  default  "1MB"
  now      "1MB", from the default
  change   takes effect with `bowline reload`
"#
        );
    }
    let output = bowline(directory.path(), &["config", "explain", "engine"]);
    assert_eq!(text(&output.stdout).matches("\n  value ").count(), 11);

    let output = bowline(directory.path(), &["config", "explain", "ping-intervall"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("did you mean `engine.ping-interval`?"), "{said}");
}

#[test]
fn a_key_is_explained_even_where_the_file_has_mistakes() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "bowline.toml", "[server]\ndrain = \"1m\"\nlisen = 1\n");
    let asked = ["config", "explain", "server.drain", "--config", "bowline.toml"];
    let output = bowline(directory.path(), &asked);
    let said = text(&output.stdout);
    assert!(said.contains("now      \"1m\", from bowline.toml:2\n"), "{said}");
}

#[test]
fn what_keeps_a_provider_from_answering_is_told_before_it_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let file = "[server]\nlisten = \"0.0.0.0:0\"\n\
                [ai.providers.far]\nkind = \"openai\"\nbase-url = \"http://models.example.com/v1\"\n\
                api-key-env = \"FAR_KEY\"\n\
                [ai.providers.here]\nkind = \"openai\"\nbase-url = \"http://localhost:11434/v1\"\n\
                [ai.models.chat]\ntry = [\"far/a\", \"here/b\"]\n";
    write(directory.path(), "bowline.toml", file);
    let mut command = command(directory.path());
    let output = command.args(["config", "check", "bowline.toml"]).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for words in [
        "warning: `ai.providers.\"far\".api-key-env`: the variable FAR_KEY is not set here",
        "warning: `ai.providers.\"far\".base-url`: prompts, answers and the key go to",
        "warning: `ai`: others can connect to `server.listen`, and there are no keys in [ai.keys]",
    ] {
        assert!(said.contains(words), "{words:?} is missing in:\n{said}");
    }
    assert_eq!(said.lines().count(), 3, "{said}");

    let file = file.replace("-env = \"FAR_KEY\"", "-file = \"no-key\"");
    write(directory.path(), "bowline.toml", &file);
    let output = bowline(directory.path(), &["config", "check", "bowline.toml"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    let told = "bowline.toml:6: `ai.providers.\"far\".api-key-file`: cannot read";
    assert!(said.contains(told), "{said}");
    // A server that is about to be started has the variables of this command.
    let output = bowline(directory.path(), &["serve", "--config", "bowline.toml"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
}

#[test]
fn a_key_is_hashed_as_its_table_wants_it() {
    let directory = tempfile::tempdir().unwrap();
    let said = |key: &str| {
        let mut command = command(directory.path());
        command.args(["config", "hash-key"]).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(key.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let hashed = said("bl-0123456789abcdef0123456789abcdef\n");
    assert!(hashed.status.success());
    let line = "sha256 = \"a2ad013a24f0634c93851c053f2bea16ce4bc107b6f631223d9cce0aeba1a8b4\"\n";
    assert_eq!(text(&hashed.stdout), line);
    write(directory.path(), "bowline.toml", &format!("[ai.keys.app]\n{line}"));
    let output = bowline(directory.path(), &["config", "check", "bowline.toml"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for wrong in ["", "\n", "hunter2\n", "two lines of a key\nof which one is too much\n"] {
        let refused = said(wrong);
        assert_eq!(refused.status.code(), Some(2));
        let said = text(&refused.stderr);
        assert!(said.starts_with("error[key-unusable]"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn the_schema_agrees_with_the_reader() {
    let directory = tempfile::tempdir().unwrap();
    let schema = bowline(directory.path(), &["config", "schema"]);
    let schema: Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let validator = jsonschema::validator_for(&schema).unwrap();

    let defaults = bowline(directory.path(), &["config", "show", "--defaults"]);
    let defaults: Value = toml::from_str(&text(&defaults.stdout)).unwrap();
    validator.validate(&defaults).unwrap();

    // Whatever one of the two refuses, the other does not like either.
    let wrong = [
        ("[server]\nlisen = 1", false),
        ("[server]\ndrain = 25", false),
        ("[server]\ndrain = \"1m 30s\"", true),
        ("[server]\nshards = 0", false),
        ("[server]\nshards = \"auto\"", true),
        ("[server]\nlisten = []", false),
        ("[server]\nlisten = [\"[::]:80\", \"localhost:81\"]", true),
        ("[server]\ntrusted-proxies = [\"10.0.0.0/8\", \"::1\"]", true),
        ("[server]\ntrusted-proxies = [\"example.com\"]", false),
        ("[server.tls]\ncert-file = \"x\"", false),
        ("[health]\npublic-url = \"https://example.com\"", true),
        ("[health]\npublic-url = \"https://example.com/x\"", false),
        ("[alerts]\nwebhook-url = \"https://example.com/x?y\"", true),
        ("[alerts]\nwebhook-url = \"mailto:me@example.com\"", false),
        ("[engine]\nmax-payload = \"2 MiB\"", true),
        ("[engine]\nmax-payload = \"2 potatoes\"", false),
        ("[engine]\nmax-payload = 1.5", false),
        ("[engine]\ntransports = []", false),
        ("[engine]\ncookie = true", false),
        ("[engine]\ncookie = \"io\"", true),
        ("[engine]\ncors-allowed-origins = [\"*\"]", true),
        ("[engine]\ncors-allowed-origins = [\"https://x/\"]", false),
        ("[limits]\nconnections = \"auto\"", true),
        ("[limits]\nevents-per-second = 1_000_000", false),
        ("[log]\nformat = \"xml\"", false),
        ("[namespaces.\"/x\"]\nhandler = \"echo\"", true),
        ("[namespaces.\"/x\"]", false),
        ("[namespaces.x]\nhandler = \"echo\"", false),
        ("[continuity]\nwindow = \"90s\"\nmax-bytes = \"1GiB\"", true),
        ("[continuity]\ndurability = \"disk\"", false),
        ("[continuity]\nmax-away = 0", false),
        ("[namespaces.\"/x\"]\nhandler = \"echo\"\nstamp = \"always\"", true),
        ("[namespaces.\"/x\"]\nhandler = \"echo\"\nstamp = true", false),
        ("[namespaces.\"/x\"]\nhandler = \"echo\"\nevent-id = \"/0/id\"", true),
        ("[namespaces.\"/x\"]\nhandler = \"echo\"\nevent-id = \"/id\"", false),
        ("[namespaces.\"/x\"]\nhandler = \"echo\"\nsession-key = \"cookie:a\"", true),
        ("[namespaces.\"/x\"]\nhandler = \"echo\"\nsession-key = \"cookie\"", false),
        ("[ai]\nretry-budget = \"100%\"", true),
        ("[ai]\nretry-budget = \"101%\"", false),
        ("[ai.providers.a]\nkind = \"openai\"\nbase-url = \"http://a/v1\"", true),
        ("[ai.providers.a]\nkind = \"openai\"\nbase-url = \"http://a/v1?key=x\"", false),
        ("[ai.providers.a]\nkind = \"openai\"", false),
        (
            "[ai.providers.a]\nkind = \"anthropic\"\nbase-url = \"http://a\"\n\
             timeout = { idle = \"1s\" }\n[ai.models.\"b/c\"]\ntry = [\"a/b\"]",
            true,
        ),
        ("[ai.models.\"b c\"]\ntry = [\"a/b\"]", false),
        ("[ai.models.b]\ntry = []", false),
        ("[ai.keys.a]\nsha256 = \"abc\"", false),
        ("[ai.keys.a]\npriority = \"high\"", false),
        ("[services.a]\ncommand = [\"a\", \"-b\"]", true),
        ("[services.a]\ncommand = \"a -b\"", false),
        ("[services.a]\nscript = \"a.py\"\nmodule = \"a\"", false),
        ("[services.a]\nargs = [\"b\"]", false),
        ("[services._a]\ncommand = [\"a\"]", false),
        ("[services.a]\nmodule = \"a.b\"\npython = \"./python\"\nneeds = []", true),
        ("[services.a]\nmodule = \"a-b\"", false),
        ("[services.a]\ncommand = [\"a\"]\nready = [{ http = \"http://a/\", status = 204 }]", true),
        ("[services.a]\ncommand = [\"a\"]\nready = [{ http = \"a\" }]", false),
        ("[services.a]\ncommand = [\"a\"]\nready = [{ tcp = \"a:1\", log = \"x\" }]", false),
        ("[services.a]\ncommand = [\"a\"]\nready = [{ notify = true, evry = \"1s\" }]", false),
        ("[services.a]\ncommand = [\"a\"]\nstop = { signal = \"INT\", grace = \"0s\" }", true),
        ("[services.a]\ncommand = [\"a\"]\nstop = { signal = \"SIGINT\" }", false),
        (
            "[services.a]\ncommand = [\"a\"]\nlisten = [\"unix:/run/a\", \"[::1]:5\"]\noverlap = true",
            true,
        ),
        ("[services.a]\ncommand = [\"a\"]\nenvironment = { A = \"b\" }", true),
        ("[services.a]\ncommand = [\"a\"]\nenvironment = { A = 1 }", false),
        (
            "[services.a]\ncommand = [\"a\"]\nlink = \"b\"\n[links.b]\nprofile = \"webex\"\ntoken-env = \"B\"",
            true,
        ),
        ("[links]\nlisten = \"127.0.0.1:9\"\nwaiting-max = 5", true),
        ("[links]\nlisten = \"0.0.0.0:9\"", false),
        (
            "[links.a]\nprofile = \"websocket\"\nurl = \"wss://a/b\"\nbackoff = { max = \"5s\" }",
            true,
        ),
        ("[links.a]\nprofile = \"websocket\"", false),
        ("[links.a]\nprofile = \"websockets\"\nurl = \"wss://a/b\"", false),
        ("[links.a]\nprofile = \"socketio\"\nurl = \"http://a/b\"\neio = 2", false),
        (
            "[links.a]\nprofile = \"socketio\"\nurl = \"http://a/b\"\nauth = { a = 1 }\nrecovery = true",
            true,
        ),
        ("[links.a]\nprofile = \"webex\"\ntoken-env = \"A\"\nintercept = [\"*.a.example\"]", true),
        ("[links.a]\nprofile = \"webex\"\ntoken-env = \"A\"\nintercept = [\"https://a\"]", false),
        ("[links.a]\nprofile = \"webex\"\ntoken-env = \"A\"\ndeliver = \"http\"", false),
        ("[links.a]\nprofile = \"webex\"\ntoken-env = \"A\"\nproxy = \"http://u:p@a:1\"", true),
        ("[links.a]\nprofile = \"webex\"\ntoken-env = \"A\"\nproxy = \"socks://a:1\"", false),
        ("[links.a]\nprofile = \"websocket\"\nurl = \"wss://a/b\"\nmessage-id = \"id\"", false),
    ];
    for (file, good) in wrong {
        write(directory.path(), "bowline.toml", file);
        let output = bowline(directory.path(), &["config", "check", "bowline.toml"]);
        assert_eq!(output.status.success(), good, "{file}:\n{}", text(&output.stderr));
        let value: Value = toml::from_str(file).unwrap();
        assert_eq!(validator.is_valid(&value), good, "{file}");
    }
}

/// Runs `bowline` there, with none of the caller's variables.
fn bowline(directory: &Path, args: &[&str]) -> Output {
    command(directory).args(args).output().unwrap()
}

fn command(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
    command.env_clear().current_dir(directory).stdin(Stdio::null());
    command
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
