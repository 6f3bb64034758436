//! The commands that look after a server, in every state that a server can be in: what they say
//! and with which code they end.
//!
//! Some states can only be made by root: other users, a disk that is full, a pid that is used
//! again. Without root those tests say loudly that they were left out.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]
#![cfg(target_os = "linux")]

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

#[test]
fn a_server_is_started_found_restarted_and_stopped() {
    let at = Place::new();
    at.run(&["status"]).ends(3).says("bowline is not running (looked in ");
    at.run(&["stop"]).ends(0).says("bowline is not running: nothing to stop");

    at.start(&[]).ends(0).says("bowline has started: pid ").says("answered a client after");
    let first = at.pid();
    let address = at.public();
    assert!(get(address, "/health/live").ends_with(r#"{"status":"live"}"#));
    at.run(&["status"]).ends(0).says("bowline 0.1.0 is running").says(&format!("{address}"));
    let status = at.json();
    assert_eq!(status["state"], "running");
    assert_eq!(status["management"], "daemon");
    assert_eq!(status["pid"], first);

    at.start(&[]).ends(0).says(&format!("bowline is running already: pid {first}, daemon"));
    assert_eq!(at.pid(), first);

    at.run(&["restart"]).ends(0).says("bowline has stopped").says("bowline has started");
    assert_ne!(at.pid(), first);
    assert!(get(at.public(), "/health/live").contains("live"));

    at.run(&["stop"]).ends(0).says("bowline has stopped: pid ");
    at.run(&["status"]).ends(3).says("bowline is not running");
    assert_eq!(at.run(&["status", "--json"]).ends(3).json()["state"], "stopped");
    let left: Vec<_> =
        fs::read_dir(at.dir()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "lock, log and what clients may come back to are left: {left:?}");
}

#[test]
fn of_two_that_start_it_at_once_both_find_it_running() {
    let at = Place::new();
    let (one, other) = thread::scope(|scope| {
        let other = scope.spawn(|| at.start(&[]));
        (at.start(&[]), other.join().unwrap())
    });
    let pid = at.pid();
    for said in [&one, &other] {
        said.ends(0).says(&format!("pid {pid}"));
    }
}

#[test]
fn restart_keeps_the_flags_of_start() {
    let at = Place::new();
    at.start(&["--log-level", "debug", "--listen", "127.0.0.1:0"]).ends(0);
    at.run(&["restart", "--log-level", "warn"]).ends(0);
    let record = at.record();
    let arguments: Vec<_> =
        record["arguments"].as_array().unwrap().iter().filter_map(|word| word.as_str()).collect();
    assert!(arguments.contains(&"--log-level=warn"), "{arguments:?}");
    assert!(!arguments.contains(&"--log-level=debug"), "{arguments:?}");
    let listens = arguments.iter().filter(|word| word.starts_with("--listen=")).count();
    assert_eq!(listens, 2, "{arguments:?}");
}

#[test]
fn restart_keeps_the_variables_of_start() {
    let at = Place::new();
    let file = at.dir().with_extension("toml");
    fs::write(&file, "[limits]\nattachments = 11\n").unwrap();
    let mut start = bowline(&["start", "--listen=127.0.0.1:0", "--state-dir"]);
    start.arg(at.dir()).env("BOWLINE_CONFIG", &file).env("BOWLINE_LOG_LEVEL", "debug");
    start.env("BOWLINE_ADMIN_LISTEN", "127.0.0.1:0");
    Said::of(&mut start).ends(0);
    let config = file.to_str().unwrap();
    // Once more: what was kept is kept again, until something else is said.
    for words in [&["restart"][..], &["restart"], &["restart", "--log-level=warn"]] {
        at.run(words).ends(0);
        let record = at.record();
        assert_eq!(record["config_file"], config);
        assert_eq!(record["variables"]["BOWLINE_CONFIG"], config);
        let level = &record["variables"]["BOWLINE_LOG_LEVEL"];
        assert_eq!(level.as_str(), (words.len() == 1).then_some("debug"));
    }
    assert_eq!(at.json()["config_file"], config);
    at.run(&["restart", "--config", "/nowhere/bowline.toml"]).ends(2).says("/nowhere/bowline.toml");
}

#[test]
fn a_start_beside_a_server_that_runs_names_the_flags_that_it_did_not_use() {
    let at = Place::new();
    at.start(&[]).ends(0);
    at.start(&[]).ends(0).says("is running already").lacks("not used");
    at.start(&["--log-level=debug"])
        .ends(0)
        .says("is running already")
        .says("not used  --log-level=debug; `bowline restart` with them");
}

#[test]
fn a_unit_has_variables_as_flags() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bowline.toml");
    fs::write(&file, "").unwrap();
    let mut unit = bowline(&["service", "unit", "--systemd", "--shards=2"]);
    unit.env("BOWLINE_CONFIG", &file).env("BOWLINE_SHARDS", "3").env("PORT", "3000");
    let flags = format!(" serve --shards=2 --config={} --listen=0.0.0.0:3000\n", file.display());
    Said::of(&mut unit).ends(0).says(&flags);
}

#[test]
fn a_server_that_died_is_told_from_one_that_was_stopped() {
    let at = Place::new();
    at.start(&[]).ends(0);
    let died = at.kill();
    let words = format!("its server, pid {died}, died without clearing up");
    at.run(&["status"]).ends(1).says(&words);
    assert_eq!(at.run(&["status", "--json"]).ends(1).json()["state"], "dead");
    at.run(&["reload"]).ends(3).says("error[not-running]");
    at.run(&["stop"]).ends(0).says(&format!("its server, pid {died}, had died"));
    at.run(&["status"]).ends(3);

    at.start(&[]).ends(0);
    let died = at.kill();
    at.start(&["--shards=1"]).ends(0).says(&format!("pid {died}, died without clearing up"));
    assert_ne!(at.pid(), died);
    at.kill();
    at.run(&["restart"]).ends(0).says("bowline has started");
    assert_eq!(at.record()["arguments"].as_array().unwrap().len(), 4, "as it was");
    at.run(&["status"]).ends(0);
}

#[test]
fn a_pid_that_is_used_again_is_left_alone() {
    let script = r#"
        pid() { sed -n 's/.*"pid": \([0-9]*\),.*/\1/p' "$2/record.json"; }
        "$1" start --state-dir "$2" --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 || exit 9
        PID=$(pid "$@")
        kill -9 "$PID"
        while [ -e "/proc/$PID" ]; do sleep 0.02; done
        OTHER=
        # The number is free when the gateway, which is of the same session, has drained.
        for attempt in $(seq 200); do
            echo "$((PID - 1))" > /proc/sys/kernel/ns_last_pid
            sleep 1000 &
            OTHER=$!
            [ "$OTHER" = "$PID" ] && break
            kill "$OTHER"
            sleep 0.05
        done
        [ "$OTHER" = "$PID" ] || exit 8
        "$1" status --state-dir "$2"; echo "status $?"
        "$1" stop --state-dir "$2"; echo "stop $?"
        kill -0 "$OTHER" && echo "the other lives"
        "$1" start --state-dir "$2" --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0
        echo "start $?"
        "$1" stop --state-dir "$2"; echo "stop $?"
        kill -0 "$OTHER" && echo "the other lives still"
    "#;
    if !root("a pid can be used again on purpose only in a pid namespace") {
        return;
    }
    let at = Place::new();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "sh", "-c", script, "sh"]);
    command.arg(env!("CARGO_BIN_EXE_bowline")).arg(at.dir());
    let said = Said::of(clean(&mut command));
    said.ends(0)
        .says("died without clearing up\nstatus 1\n")
        .says("stop 0\nthe other lives\n")
        .says("start 0\n")
        .says("the other lives still");
}

#[test]
fn a_port_that_is_taken_is_named_with_its_holder() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    let holder = format!("(pid {})", std::process::id());
    let at = Place::new();
    let taken = ["start", "--admin-listen", "127.0.0.1:0", "--listen", &address];
    at.run(&taken).ends(69).says("error[address-in-use]").says(&holder);
    at.run(&["status"]).ends(3);

    // A server that runs is not stopped for the sake of one that could not start.
    at.start(&[]).ends(0);
    let pid = at.pid();
    let restart = at.run(&["restart", "--listen", &address]);
    restart
        .ends(69)
        .says("error[address-in-use]")
        .says(&holder)
        .says("the server was left as it is");
    assert_eq!(at.pid(), pid);
    at.run(&["status"]).ends(0);
    at.run(&["stop"]).ends(0);
}

#[test]
fn a_wrong_configuration_stops_nothing_and_starts_nothing() {
    let at = Place::new();
    let file = at.dir().with_extension("toml");
    fs::write(&file, "[server]\nlisen = 1\n").unwrap();
    let config = file.to_str().unwrap();
    let mistake = "unknown key `server.lisen`; did you mean `listen`?";
    at.start(&["--config", config]).ends(2).says("error[config-invalid]").says(mistake);
    at.run(&["status", "--config", config]).ends(3);
    at.run(&["stop", "--config", config]).ends(0).says("nothing to stop");
    at.start(&["--config", "/nowhere/bowline.toml"]).ends(2).says("error[config-unreadable]");

    fs::write(&file, "[limits]\nattachments = 11\n").unwrap();
    at.start(&["--config", config]).ends(0);
    let pid = at.pid();
    fs::write(&file, "[server]\nlisen = 1\n").unwrap();
    at.run(&["restart"]).ends(2).says(mistake).says("the server was left as it is");
    at.run(&["reload"]).ends(2).says("server.lisen");
    at.run(&["status", "--config", config]).ends(0);
    assert_eq!(at.pid(), pid);

    fs::write(&file, "[limits]\nattachments = 12\n[server]\nlisten = \"127.0.0.1:1\"\n").unwrap();
    at.run(&["reload"]).ends(0).says("limits.attachments");
    at.run(&["reload"]).ends(0);
    at.run(&["stop"]).ends(0);
}

#[test]
fn whoever_may_not_is_told_so() {
    if !root("another user can only be played by root") {
        return;
    }
    let binary = binary_for_all();
    let nobody = |at: &Path, words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
        command.arg(&binary).args(words).arg("--state-dir").arg(at);
        Said::of(clean(&mut command))
    };
    let ports = ["--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"];

    // Somebody else's server.
    let at = Place::new();
    at.start(&[]).ends(0);
    let pid = at.pid();
    nobody(&at.dir(), &["status"]).ends(4).says("this user may not read ");
    let unknown = nobody(&at.dir(), &["status", "--json"]);
    assert_eq!(unknown.ends(4).json()["state"], "unknown");
    for words in [&["start", ports[0], ports[1]][..], &["stop"], &["restart"], &["reload"]] {
        nobody(&at.dir(), words).ends(77).says("error[instance-denied]").says("blame:  operator");
    }
    assert_eq!(at.pid(), pid);
    at.run(&["status"]).ends(0);
    at.run(&["stop"]).ends(0);

    // A place where nobody may write.
    let open = tempfile::tempdir().unwrap();
    fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let place = open.path().join("bowline");
    nobody(&place, &["status"]).ends(3);
    let refused = nobody(&place, &["start", ports[0], ports[1]]);
    refused.ends(77).says("this user may not write ");
    nobody(&place, &["status"]).ends(3);
}

#[test]
fn a_disk_that_is_full_is_named_before_anything_is_stopped() {
    if !root("a small disk can only be mounted by root") {
        return;
    }
    let disk = Disk::mount();
    let mut at = Place::new();
    at.state = disk.0.path().join("bowline");
    fs::create_dir(at.dir()).unwrap();

    disk.fill();
    at.start(&[]).ends(74).says("error[disk-full]").says("no space is left on the disk");
    at.run(&["status"]).ends(3);
    at.run(&["stop"]).ends(0);

    disk.make_room();
    at.start(&[]).ends(0);
    let pid = at.pid();
    disk.fill();
    at.run(&["status"]).ends(0).says("is running");
    at.run(&["restart"]).ends(74).says("error[disk-full]").says("the server was left as it is");
    assert_eq!(at.pid(), pid);
    assert!(get(at.public(), "/health/live").contains("live"));
    at.run(&["stop"]).ends(0).says("bowline has stopped");
    at.run(&["status"]).ends(3);
}

#[test]
fn a_start_that_takes_too_long_says_what_it_waits_for() {
    let at = Place::new();
    let config = at.dir().with_extension("toml");
    fs::write(&config, "[server.tls]\ncert-file = \"pipe\"\nkey-file = \"pipe\"\n").unwrap();
    // A certificate that never comes.
    let pipe = config.with_file_name("pipe");
    assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
    let late = at.start(&["--config", config.to_str().unwrap(), "--wait", "50ms"]);
    late.ends(75).says("error[start-late]").says("has not answered a client within");
    // It goes on trying.
    until("it has its directory", || at.run(&["status"]).code == 0);
    at.run(&["status"]).ends(0).says("is starting");
    at.start(&[]).ends(0).says("is running already");
    at.run(&["stop"]).ends(0);
    at.run(&["status"]).ends(3);
}

#[test]
fn what_something_else_started_is_not_restarted() {
    let at = Place::new();
    for (variable, words) in
        [("", "runs in the foreground"), ("SYSTEMD_EXEC_PID=$$", "is looked after by systemd")]
    {
        let mut command = Command::new("sh");
        let script = format!("{variable} exec \"$@\"");
        command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_bowline"), "serve"]);
        command.args(["--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--state-dir"]);
        let mut server = clean(&mut command).arg(at.dir()).stderr(Stdio::null()).spawn().unwrap();
        until("it runs", || at.run(&["status"]).code == 0);
        at.run(&["restart"]).ends(1).says("error[managed-elsewhere]").says(words);
        at.run(&["logs"]).ends(1).says("error[log-missing]");
        at.run(&["stop"]).ends(0).says("bowline has stopped");
        assert_eq!(server.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_second_server_in_the_same_place_is_refused() {
    let at = Place::new();
    at.start(&[]).ends(0);
    let mut command = bowline(&["serve", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"]);
    let said = Said::of(command.arg("--state-dir").arg(at.dir()));
    said.ends(1).says("error[instance-held]").says(&format!("pid {}", at.pid()));
    at.run(&["stop"]).ends(0);
}

#[test]
fn logs_show_what_was_said_and_what_is_said_next() {
    let at = Place::new();
    at.run(&["logs"]).ends(1).says("error[log-missing]");
    fs::create_dir(at.dir()).unwrap();
    let log = at.dir().join("bowline.log");
    let line = |time: &str, words: &str| {
        format!(
            "{{\"timestamp\":\"2026-11-22T{time}Z\",\"level\":\"INFO\",\"message\":\"{words}\",\
             \"target\":\"bowline\"}}\n"
        )
    };
    let older = line("03:00:00.000000", "first") + &line("03:30:00.000000", "second");
    fs::write(log.with_extension("log.1"), older).unwrap();
    fs::write(&log, line("04:00:00.000000", "third")).unwrap();

    let all = at.run(&["logs"]);
    all.ends(0).says("first").says("second").says("third");
    at.run(&["logs", "-n", "2"]).ends(0).says("second").lacks("first");
    at.run(&["logs", "--since", "2026-11-22T03:45:00Z"]).ends(0).says("third").lacks("second");

    let mut follower = bowline(&["logs", "--follow", "-n", "1"]);
    let mut follower =
        follower.arg("--state-dir").arg(at.dir()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains("third"));
    let mut file = fs::OpenOptions::new().append(true).open(&log).unwrap();
    file.write_all(line("04:01:00.000000", "fourth").as_bytes()).unwrap();
    assert!(lines.next().unwrap().contains("fourth"));
    fs::rename(&log, log.with_extension("log.1")).unwrap();
    fs::write(&log, line("04:02:00.000000", "fifth")).unwrap();
    assert!(lines.next().unwrap().contains("fifth"));
    end(&mut follower);
}

#[test]
fn the_log_of_a_daemon_has_its_words() {
    let at = Place::new();
    at.start(&[]).ends(0);
    at.run(&["logs"]).ends(0).says("\"message\":\"listening\"");
    at.run(&["stop"]).ends(0);
    at.run(&["logs", "--since", "1h"]).ends(0).says("\"message\":\"draining\"");
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let at = Place::new();
    let file = at.dir().with_extension("toml");
    fs::write(&file, "[server]\nlisten = \"0.0.0.0:443\"\n").unwrap();
    let unit = Said::of(&mut bowline(&[
        "service",
        "unit",
        "--systemd",
        "--config",
        file.to_str().unwrap(),
    ]));
    unit.ends(0).says("[Service]\nType=notify");
    let path = at.dir().with_extension("service");
    fs::write(&path, &unit.stdout).unwrap();
    let mut command = Command::new("systemd-analyze");
    command.arg("verify").arg(&path);
    match command.output() {
        Err(error) => {
            left_out(&format!("systemd-analyze, which would check the unit: {error}"));
        }
        Ok(output) => {
            let said = text(&output.stdout) + &text(&output.stderr);
            assert_eq!(said, "");
            assert!(output.status.success());
        }
    }
}

#[test]
fn launchd_gets_a_property_list() {
    let at = Place::new();
    let path = at.dir().with_extension("plist");
    let flags = ["--listen", "127.0.0.1:1", "--public-url", "http://a&b"];
    let unit = [&["service", "unit", "--launchd"][..], &flags].concat();
    fs::write(&path, &Said::of(&mut bowline(&unit)).ends(0).stdout).unwrap();
    let read = "import plistlib, sys; print(plistlib.load(open(sys.argv[1], 'rb'))['ProgramArguments'][1:])";
    let said = Said::of(Command::new("python3").args(["-c", read]).arg(&path));
    said.ends(0).says("['serve', '--listen=127.0.0.1:1', '--public-url=http://a&b']");
    Said::of(&mut bowline(&["service", "unit"])).ends(2).says("--systemd");
}

#[test]
fn every_shell_gets_its_completions() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let said = Said::of(&mut bowline(&["completions", shell]));
        said.ends(0).says("status").says("admin-listen").lacks("gateway").lacks("--daemon");
    }
}

/// An instance directory of its own; what runs in it ends with its test.
struct Place {
    _dir: tempfile::TempDir,
    state: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        Self { _dir: dir, state }
    }

    fn dir(&self) -> PathBuf {
        self.state.clone()
    }

    fn run(&self, words: &[&str]) -> Said {
        Said::of(bowline(words).arg("--state-dir").arg(&self.state))
    }

    fn run_on_free_ports(&self, words: &[&str]) -> Said {
        let ports = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        self.run(&[words, &ports].concat())
    }

    fn start(&self, words: &[&str]) -> Said {
        self.run_on_free_ports(&[&["start"], words].concat())
    }

    fn json(&self) -> serde_json::Value {
        self.run(&["status", "--json"]).json()
    }

    fn record(&self) -> serde_json::Value {
        let text = fs::read_to_string(self.state.join("record.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn pid(&self) -> u64 {
        self.record()["pid"].as_u64().unwrap()
    }

    fn public(&self) -> SocketAddr {
        let record = self.record();
        record["listeners"][0]["address"].as_str().unwrap().parse().unwrap()
    }

    /// Kills the master so that it cannot clear up, and waits until it is gone.
    fn kill(&self) -> u64 {
        let pid = self.pid();
        let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
        assert!(killed.success());
        until("it is dead", || self.run(&["status"]).code == 1);
        pid
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut stop = bowline(&["stop", "--now", "--wait", "20s", "--state-dir"]);
        let _ = stop.arg(&self.state).output();
    }
}

/// What a command said, and how it ended.
struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Said {
    #[track_caller]
    fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        let code = output.status.code().unwrap();
        Self { code, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    #[track_caller]
    fn ends(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "stdout:\n{}stderr:\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    fn says(&self, words: &str) -> &Self {
        let all = format!("{}{}", self.stdout, self.stderr);
        assert!(all.contains(words), "{words:?} is missing in:\n{all}");
        self
    }

    #[track_caller]
    fn lacks(&self, words: &str) -> &Self {
        let all = format!("{}{}", self.stdout, self.stderr);
        assert!(!all.contains(words), "{words:?} stands in:\n{all}");
        self
    }

    #[track_caller]
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// A disk of 256 KiB.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(dir.path());
        Said::of(&mut command).ends(0);
        Self(dir)
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.0.path().join("ballast")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.0.path().join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// Whether this is root; says loudly what is left out if not.
fn root(why: &str) -> bool {
    let uid = text(&Command::new("id").arg("-u").output().unwrap().stdout);
    let root = uid.trim() == "0";
    if !root {
        left_out(&format!("run it as root: {why}"));
    }
    root
}

fn left_out(what: &str) {
    let _ = writeln!(io::stderr(), "LEFT OUT, {what}");
}

/// The binary, where every user can run it.
fn binary_for_all() -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bowline-for-all");
    let reachable = |path: &Path| {
        let modes = path.ancestors().filter_map(|part| fs::metadata(part).ok());
        modes.into_iter().all(|found| found.permissions().mode() & 0o001 != 0)
    };
    let built = PathBuf::from(env!("CARGO_BIN_EXE_bowline"));
    if reachable(&built) {
        return built;
    }
    fs::copy(&built, &path).unwrap();
    assert!(reachable(&path), "no other user can reach {}", path.display());
    path
}

fn bowline(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
    clean(command.args(words));
    command
}

/// Takes away what the surroundings of the test might say.
fn clean(command: &mut Command) -> &mut Command {
    for name in ["PORT", "BOWLINE_LISTEN", "BOWLINE_CONFIG", "BOWLINE_STATE_DIR", "BOWLINE_WAIT"] {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1").stdin(Stdio::null())
}

/// Waits for a condition.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..400 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("waited in vain: {what}");
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    text(&bytes)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
