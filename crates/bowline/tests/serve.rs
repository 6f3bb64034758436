//! The binary as people and supervisors meet it: what it prints, when it answers, how it ends.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    time::Duration,
};

#[test]
fn the_version_is_data_and_goes_to_stdout() {
    let output = bowline(&["--version"]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), format!("bowline {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn a_wrong_flag_is_a_usage_error_with_a_suggestion() {
    let output = bowline(&["serve", "--lisen", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--listen"), "{}", text(&output.stderr));
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once_before_anything_listens() {
    let path = format!("{}/mistakes.toml", env!("CARGO_TARGET_TMPDIR"));
    fs::write(&path, "[server]\nlisen = 1\n[engine]\nping-interval = 25\n").unwrap();
    let output = bowline(&["serve", "--config", &path]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    for words in [
        "error[config-invalid]: the configuration has 2 mistakes",
        "mistakes.toml:2: unknown key `server.lisen`; did you mean `listen`?",
        "mistakes.toml:4: `engine.ping-interval` is 25; write a duration",
        "blame:  operator",
    ] {
        assert!(said.contains(words), "{words:?} is missing in:\n{said}");
    }
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn the_defaults_are_printed_as_a_file_that_can_be_used() {
    let shown = bowline(&["config", "show", "--defaults"]).output().unwrap();
    let path = format!("{}/defaults.toml", env!("CARGO_TARGET_TMPDIR"));
    fs::write(&path, &shown.stdout).unwrap();
    let server = Server::start(&["--config", &path]);
    assert!(get(server.public, "/health/live").contains("live"));
}

#[test]
fn a_missing_file_is_named() {
    let output = bowline(&["serve", "--config", "/nowhere/bowline.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("error[config-unreadable]: cannot read /nowhere/bowline.toml"), "{said}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_port_that_is_held_is_reported_with_its_holder() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    let output = bowline(&["serve", "--listen", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(69));
    let said = text(&output.stderr);
    let holder = format!("(pid {})", std::process::id());
    assert!(said.contains("error[address-in-use]") && said.contains(&holder), "{said}");
}

#[test]
fn both_listeners_answer_live_and_the_public_one_has_the_page() {
    let server = Server::start(&[]);
    for address in [server.public, server.admin] {
        let answer = get(address, "/health/live");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.ends_with(r#"{"status":"live"}"#), "{answer}");
    }
    let page = get(server.public, "/");
    assert!(page.contains("<title>Bowline</title>") && !page.contains("__SETTINGS__"), "{page}");
    assert!(!get(server.admin, "/").contains("<title>Bowline</title>"));
}

#[test]
fn a_session_opens_with_no_configuration() {
    let server = Server::start(&[]);
    let answer = get(server.public, "/socket.io/?EIO=4&transport=polling");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains(r#""pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000"#));
}

#[test]
fn the_port_variable_listens_everywhere() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = bowline(&["serve"]);
    command.env("PORT", port.to_string());
    let server = Server::spawn(command);
    assert!(get(SocketAddr::from(([127, 0, 0, 1], port)), "/health/live").contains("live"));
    drop(server);
}

#[test]
fn a_signal_drains_and_the_end_is_clean() {
    let mut server = Server::start(&[]);
    let waiting = open_poll(server.public);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    // The poll that waited was answered, not cut.
    assert!(read_all(waiting).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut server = Server::start(&[]);
    // A request that never says its end keeps the drain going for a while.
    let mut half = TcpStream::connect(server.public).unwrap();
    half.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").unwrap();
    assert!(get(server.public, "/health/live").contains("live"));
    server.signal("INT");
    server.read_until("draining");
    server.signal("INT");
    let code = server.wait().code();
    assert!(matches!(code, Some(0 | 130)), "{code:?}");
}

/// A server that is ended with its test.
struct Server {
    child: Child,
    said: BufReader<ChildStderr>,
    public: SocketAddr,
    admin: SocketAddr,
}

impl Server {
    /// Starts one on free ports.
    fn start(args: &[&str]) -> Self {
        let mut command = bowline(&["serve", "--listen", "127.0.0.1:0"]);
        command.args(args);
        Self::spawn(command)
    }

    /// Waits until it has said where it listens, and for an answer.
    fn spawn(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let public = address(&read_until(&mut said, "listening "));
        let admin = address(&read_until(&mut said, "admin "));
        Self { child, said, public, admin }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    fn read_until(&mut self, words: &str) {
        read_until(&mut self.said, words);
    }

    fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = self.child.id();
        let gateway = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let _ = self.child.kill();
        let _ = self.child.wait();
        // It would end as well, once it had sent its clients away.
        if let Some(gateway) = gateway.ok().filter(|gateway| !gateway.is_empty()) {
            let _ = Command::new("kill").args(["-KILL", gateway.trim()]).output();
        }
    }
}

fn bowline(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
    command.args(args).env_remove("PORT").env_remove("BOWLINE_LISTEN").env_remove("BOWLINE_CONFIG");
    command.env("BOWLINE_ADMIN_LISTEN", "127.0.0.1:0").env("NO_COLOR", "1");
    command.env("BOWLINE_LOG_FORMAT", "text");
    command.stdin(Stdio::null());
    command
}

/// The first line with these words.
fn read_until(said: &mut BufReader<ChildStderr>, words: &str) -> String {
    let mut all = String::new();
    loop {
        let mut line = String::new();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "{words:?} was never said:\n{all}");
        if line.contains(words) {
            return line;
        }
        all.push_str(&line);
    }
}

fn address(line: &str) -> SocketAddr {
    let url = line.split("http://").nth(1).unwrap();
    url.split('/').next().unwrap().replace("localhost", "127.0.0.1").parse().unwrap()
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    read_all(stream)
}

/// A polling session of Socket.IO whose GET waits.
fn open_poll(address: SocketAddr) -> TcpStream {
    let open = get(address, "/socket.io/?EIO=4&transport=polling");
    let sid = open.split("\"sid\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(
        stream,
        "GET /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: {address}\r\n\
         Connection: close\r\n\r\n"
    )
    .unwrap();
    // A request behind it on another connection: when that is answered, the poll has arrived.
    assert!(get(address, "/health/live").contains("live"));
    stream
}

fn read_all(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    text(&bytes)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
