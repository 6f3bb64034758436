//! The master and its gateway, as whoever operates them meets them: a gateway that dies, a
//! configuration that is read again, a service manager that listens, a master that is gone.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::{
    fs,
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixDatagram, UnixStream},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use serde_json::Value;

/// How long anything may take before the test fails, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_killed_gateway_is_replaced_and_no_connection_is_refused_meanwhile() {
    let server = Server::start("");
    let (stop, connects) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let caller = {
        let (stop, connects, public) = (Arc::clone(&stop), Arc::clone(&connects), server.public);
        thread::spawn(move || {
            while !stop.load(SeqCst) {
                TcpStream::connect(public).expect("the listener is there all the time");
                connects.fetch_add(1, SeqCst);
                thread::sleep(Duration::from_millis(1));
            }
        })
    };
    let mut pids = vec![server.gateway()];
    for round in 1..=5 {
        kill(*pids.last().unwrap(), "KILL");
        let status = server.wait_for_status(&format!("gateway {}", round + 1), |status| {
            status["gateway"]["restarts"]["total"] == round
                && status["gateway"]["state"] == "answering"
        });
        assert_eq!(status["state"], "running");
        assert_eq!(status["gateway"]["restarts"]["by_reason"]["killed"], round);
        assert_eq!(status["gateway"]["last_end"], "killed by signal 9");
        assert!(get(server.public, "/health/live").starts_with("HTTP/1.1 200"));
        let pid = pid_of(&status);
        assert!(!pids.contains(&pid));
        pids.push(pid);
    }
    stop.store(true, SeqCst);
    caller.join().unwrap();
    assert!(connects.load(SeqCst) > 5);

    let metrics = get(server.admin, "/metrics");
    let line = "bowline_gateway_restarts_total{reason=\"killed\"} 5";
    assert!(metrics.contains(line), "{metrics}");
    server.said("the gateway is gone, starting another");
    let status = server.stop("TERM");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_connection_made_while_there_is_no_gateway_is_served_by_the_next_one() {
    let server = Server::start("");
    kill(server.gateway(), "KILL");
    // It waits in the backlog, which the master holds open.
    let answer = get(server.public, "/socket.io/?EIO=4&transport=polling");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_reload_applies_what_can_change_and_names_what_waits() {
    let server = Server::start("[engine]\nping-interval = \"20s\"\n");
    let mut socket = WebSocket::open(server.public);
    assert!(socket.read().contains("\"pingInterval\":20000"));
    let gateway = server.gateway();

    server.configure("[engine]\nping-interval = \"11s\"\n[server]\nshards = 3\n");
    server.signal("HUP");
    server.said("configuration read again");
    server.said("wait for a restart");
    let mut after = WebSocket::open(server.public);
    assert!(after.read().contains("\"pingInterval\":11000"));
    // Nobody was dropped, by the same gateway.
    socket.write("40");
    assert!(socket.read().starts_with("40{\"sid\""));
    assert_eq!(server.gateway(), gateway);

    server.configure("[engine]\nping-interval = \"12s\"\n[server]\nshards = 3\n");
    let answer = server.control("POST", "/api/v1/reload");
    assert_eq!(answer["applied"], serde_json::json!(["engine.ping-interval"]), "{answer}");

    // The next gateway runs what was read last.
    kill(gateway, "KILL");
    let mut next = WebSocket::open(server.public);
    assert!(next.read().contains("\"pingInterval\":12000"));
}

#[test]
fn a_broken_file_is_refused_and_the_old_configuration_stays_even_after_a_crash() {
    let server = Server::start("[engine]\nping-interval = \"20s\"\n");
    server.configure("[engine]\nping-intervall = \"11s\"\n");
    let answer = server.control("POST", "/api/v1/reload");
    assert_eq!(answer["error"]["code"], "config-invalid", "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("did you mean `ping-interval`"), "{message}");
    server.signal("HUP");
    server.said("the new configuration is refused, the old one stays");

    kill(server.gateway(), "KILL");
    let mut socket = WebSocket::open(server.public);
    assert!(socket.read().contains("\"pingInterval\":20000"));
}

#[test]
fn while_no_gateway_can_start_it_is_told_and_a_file_that_makes_it_worse_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let write_cert = || fs::write(&cert, made.cert.pem()).unwrap();
    write_cert();
    let server = Server::start("");
    server.configure(&format!("[server.tls]\ncert-file = {cert:?}\nkey-file = {key:?}\n"));
    let answer = server.control("POST", "/api/v1/reload");
    assert!(answer["applied"].to_string().contains("server.tls"), "{answer}");
    fs::remove_file(&cert).unwrap();
    kill(server.gateway(), "KILL");
    let status = server.wait_for_status("a gateway that cannot start", |status| {
        status["gateway"]["restarts"]["by_reason"]["failed-to-start"].as_u64() >= Some(2)
    });
    assert_eq!(status["state"], "restarting", "{status}");
    assert_eq!(status["gateway"]["answered"], false);
    let last_end = status["gateway"]["last_end"].as_str().unwrap();
    assert!(
        last_end.starts_with("exited with code 2: ") && last_end.contains("cert.pem"),
        "{status}"
    );
    wait_until("the pause is long enough to ask within", || {
        let answer = server.control("GET", "/api/v1/sockets");
        answer["error"]["code"] == "gateway-restarting"
    });

    // Nobody is there to say that this cannot be served.
    server.configure(
        "[server.tls]\ncert-file = \"/nowhere/cert.pem\"\nkey-file = \"/nowhere/key.pem\"\n",
    );
    server.signal("HUP");
    server.said("the new configuration cannot be served, back to the old one");
    write_cert();
    server.gateway();
}

#[test]
fn a_door_that_stays_open_keeps_its_token_when_its_gateway_dies() {
    let dir = tempfile::tempdir().unwrap();
    let (file, token) = (dir.path().join("bowline.toml"), dir.path().join("token"));
    fs::write(&token, "0123456789abcdef\n").unwrap();
    let open = format!("[admin]\nlisten = \"0.0.0.0:0\"\ntoken-file = {token:?}\n");
    fs::write(&file, open).unwrap();
    let mut command = bowline(&["serve", "--listen", "127.0.0.1:0", "--config"]);
    command.arg(file).arg("--state-dir").arg(dir.path()).env_remove("BOWLINE_ADMIN_LISTEN");
    let server = Server::spawn(command, Some(dir));

    let inside = "[admin]\nlisten = \"127.0.0.1:0\"\n";
    server.configure(&format!("{inside}token-file = {token:?}\n"));
    let waits = serde_json::json!(["admin.listen"]);
    assert_eq!(server.control("POST", "/api/v1/reload")["restart"], waits);
    kill(server.gateway(), "KILL");
    server.wait_for_status("the next gateway", |status| {
        status["gateway"]["restarts"]["total"] == 1 && status["gateway"]["state"] == "answering"
    });
    assert_eq!(server.control("POST", "/api/v1/reload")["restart"], waits);
    server.configure(inside);
    let answer = server.control("POST", "/api/v1/reload");
    assert_eq!(answer["error"]["code"], "config-invalid", "{answer}");
    assert!(get(server.admin, "/metrics").starts_with("HTTP/1.1 401"));
}

#[test]
fn an_admin_token_that_is_gone_keeps_operators_out_and_no_client() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    fs::write(&token, "0123456789abcdef\n").unwrap();
    let server = Server::start(&format!("[admin]\ntoken-file = {token:?}\n"));
    fs::remove_file(&token).unwrap();
    kill(server.gateway(), "KILL");
    assert!(get(server.public, "/health/live").starts_with("HTTP/1.1 200"));
    let ask = |token: &str| {
        let mut stream = TcpStream::connect(server.admin).unwrap();
        let head = format!("Host: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close");
        write!(stream, "GET /metrics HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    for said in ["0123456789abcdef", "x"] {
        let answer = ask(said);
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }

    fs::write(&token, "another-0123456789\n").unwrap();
    server.control("POST", "/api/v1/reload");
    // It is read behind the answer's back.
    wait_until("the new token", || ask("another-0123456789").starts_with("HTTP/1.1 200"));
}

#[test]
fn the_service_manager_hears_the_whole_life() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut bytes = [0; 4096];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let until = |words: &str| {
        let mut heard = Vec::new();
        loop {
            let message = next();
            let found = message.lines().any(|line| line == words);
            heard.push(message);
            if found {
                return heard;
            }
        }
    };
    let mut command = bowline(&["serve", "--listen", "127.0.0.1:0", "--state-dir"]);
    command.arg(dir.path()).env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
    let server = Server::spawn(command, None);

    until("READY=1");
    // It goes on although nothing happens.
    for _ in 0..5 {
        until("WATCHDOG=1");
    }
    server.signal("HUP");
    let reloading = until("RELOADING=1").pop().unwrap();
    let time = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    assert!(time.unwrap().parse::<u64>().unwrap() > 0, "{reloading}");
    until("READY=1");

    // A gateway that is replaced is no new start of the service.
    kill(server.gateway(), "KILL");
    let heard = until("STATUS=serving");
    assert!(!heard.iter().any(|message| message.contains("READY=1")), "{heard:?}");
    assert!(heard.iter().any(|message| message.contains("STATUS=restarting")), "{heard:?}");

    server.signal("TERM");
    until("STOPPING=1");
    assert_eq!(server.wait().code(), Some(0));
    socket.set_nonblocking(true).unwrap();
    let mut last = "STOPPING=1".to_owned();
    let mut bytes = [0; 4096];
    loop {
        match socket.recv(&mut bytes) {
            Ok(length) => last = String::from_utf8_lossy(&bytes[..length]).into_owned(),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
    }
    assert!(last.contains("STOPPING=1"), "{last}");
}

#[test]
fn a_gateway_whose_master_was_killed_sends_its_clients_away_and_ends() {
    let server = Server::start("");
    let gateway = server.gateway();
    let mut socket = WebSocket::open(server.public);
    assert!(socket.read().starts_with("0{"));
    server.signal("KILL");
    server.wait();
    // 1001: going away, so that clients come again.
    assert_eq!(socket.read_close(), 1001);
    wait_until("the gateway is gone", || !Path::new(&format!("/proc/{gateway}")).exists());
    server.said("the master is gone, draining");
    // Nothing listens any more, and what is left of the record does not keep anybody out.
    TcpListener::bind(server.public).unwrap();
    let mut command = bowline(&["serve", "--listen", "127.0.0.1:0", "--state-dir"]);
    command.arg(server.dir.path());
    let second = Server::spawn(command, None);
    assert!(get(second.public, "/health/live").starts_with("HTTP/1.1 200"));
}

#[test]
fn what_a_gateway_cannot_serve_ends_the_first_start_with_its_words() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bowline.toml");
    let text = "[server.tls]\ncert-file = \"/nowhere/cert.pem\"\nkey-file = \"/nowhere/key.pem\"\n";
    fs::write(&file, text).unwrap();
    let mut command = bowline(&["serve", "--listen", "127.0.0.1:0", "--state-dir"]);
    command.arg(dir.path()).arg("--config").arg(&file);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("error[") && said.contains("/nowhere/cert.pem"), "{said}");
}

#[test]
fn a_gateway_that_hangs_is_called_silent_and_does_not_outlive_a_second_stop() {
    let server = Server::start("");
    let gateway = server.gateway();
    kill(gateway, "STOP");
    let status = server.control("GET", "/api/v1/status");
    assert_eq!(status["gateway"]["state"], "silent", "{status}");
    assert_eq!(status["gateway"]["answered"], false);
    assert!(status["sessions"].is_null() && status["connections"].is_null(), "{status}");
    server.signal("TERM");
    server.said("stopping");
    server.signal("TERM");
    server.said("the gateway takes too long to end, killing it");
    assert_eq!(server.wait().code(), Some(130));
}

#[test]
fn a_log_begins_with_who_starts_and_who_died_before() {
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let mut command = bowline(&["serve", "--listen", "127.0.0.1:0", "--state-dir"]);
        command.arg(dir.path());
        Server::spawn(command, None)
    };
    let first = start();
    let words = first.said("bowline starts");
    assert!(words.contains(&format!("pid={} ", first.master())), "{words}");
    first.signal("KILL");
    first.wait();
    let said = start().said("ended without a word");
    assert!(said.contains(&format!("pid={} ", first.master())), "{said}");
}

#[test]
fn a_server_whose_usual_place_is_taken_serves_without_a_control_socket() {
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let mut command = bowline(&["serve", "--listen", "127.0.0.1:0"]);
        command.env("RUNTIME_DIRECTORY", dir.path());
        Server::spawn(command, None)
    };
    let first = start();
    let second = start();
    second.said("serving without a control socket");
    for server in [&first, &second] {
        assert!(get(server.public, "/health/live").starts_with("HTTP/1.1 200"));
    }

    let mut command = bowline(&["serve", "--listen", "127.0.0.1:0", "--state-dir"]);
    let output = command.arg(dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error[instance-held]"), "{said}");
    assert!(said.contains(&format!("pid {}", first.master())), "{said}");
}

#[test]
fn a_signal_to_the_whole_process_group_drains_and_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = bowline(&["serve", "--listen", "127.0.0.1:0", "--state-dir"]);
    command.arg(dir.path()).process_group(0);
    let server = Server::spawn(command, None);
    let mut socket = WebSocket::open(server.public);
    assert!(socket.read().starts_with("0{"));
    let group = format!("-{}", server.master());
    let sent = Command::new("kill").args(["-TERM", "--", &group]).status().unwrap();
    assert!(sent.success());
    assert_eq!(socket.read_close(), 1001);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn what_a_client_has_not_seen_is_there_after_a_restart_and_not_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let mut command = bowline(&["serve", "--listen", "127.0.0.1:0", "--state-dir"]);
        command.arg(dir.path());
        Server::spawn(command, None)
    };
    let server = start();
    let mut socket = WebSocket::open(server.public);
    let join = |socket: &mut WebSocket, auth: &str| {
        assert!(socket.read().starts_with("0{"));
        socket.write(&format!("40/relay,{auth}"));
        let answer = socket.read();
        let answer: Value =
            serde_json::from_str(answer.strip_prefix("40/relay,").unwrap()).unwrap();
        answer
    };
    let joined = join(&mut socket, r#"{"recovery":true}"#);
    socket.write(r#"42/relay,["seen"]"#);
    let seen: Value = serde_json::from_str(&socket.read()["42/relay,".len()..]).unwrap();
    let mut other = WebSocket::open(server.public);
    join(&mut other, "");
    drop(socket);
    other.write(r#"42/relay,["missed"]"#);
    assert!(other.read().contains("missed"));
    assert_eq!(server.stop("TERM").code(), Some(0));
    let state = dir.path().join("continuity.snapshot");
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o600);

    let server = start();
    assert!(!state.exists());
    let ticket = format!(r#"{{"pid":{},"offset":{}}}"#, joined["pid"], seen[1]);
    let mut socket = WebSocket::open(server.public);
    assert_eq!(join(&mut socket, &ticket), joined);
    let missed = socket.read();
    assert!(missed.starts_with(r#"42/relay,["missed","#), "{missed}");

    kill(server.gateway(), "KILL");
    server.wait_for_status("another gateway", |status| {
        status["gateway"]["restarts"]["total"] == 1 && status["gateway"]["state"] == "answering"
    });
    let mut socket = WebSocket::open(server.public);
    assert_ne!(join(&mut socket, &ticket)["sid"], joined["sid"]);
}

#[test]
fn stop_on_the_control_socket_is_a_drain() {
    let server = Server::start("");
    let mut socket = WebSocket::open(server.public);
    assert!(socket.read().starts_with("0{"));
    assert_eq!(server.control("POST", "/api/v1/stop")["state"], "draining");
    assert_eq!(socket.read_close(), 1001);
    assert_eq!(server.wait().code(), Some(0));
    assert!(!server.dir.path().join("record.json").exists());
    assert!(!server.dir.path().join("control.sock").exists());
}

/// A server in a directory of its own that is ended with its test.
struct Server {
    child: Mutex<Child>,
    said: Arc<Said>,
    public: SocketAddr,
    admin: SocketAddr,
    dir: tempfile::TempDir,
    control: PathBuf,
}

/// What it has written to stderr.
#[derive(Default)]
struct Said {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

impl Server {
    /// Starts one with this configuration file.
    fn start(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bowline.toml");
        fs::write(&file, text).unwrap();
        let mut command = bowline(&["serve", "--listen", "127.0.0.1:0", "--config"]);
        command.arg(file).arg("--state-dir").arg(dir.path());
        Self::spawn(command, Some(dir))
    }

    /// Waits until it has said where it listens, and until it answers.
    fn spawn(mut command: Command, dir: Option<tempfile::TempDir>) -> Self {
        let dir = dir.unwrap_or_else(|| tempfile::tempdir().unwrap());
        let state_dir = command.get_args().skip_while(|arg| *arg != "--state-dir").nth(1);
        let control = state_dir.map_or(dir.path(), Path::new).join("control.sock");
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Said::default());
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let into = Arc::clone(&said);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                into.lines.lock().unwrap().push(line);
                into.more.notify_all();
            }
        });
        let public = address(&said.wait("listening "));
        let admin = address(&said.wait("admin "));
        assert!(get(public, "/health/live").starts_with("HTTP/1.1 200"));
        Self { child: Mutex::new(child), said, public, admin, dir, control }
    }

    fn configure(&self, text: &str) {
        fs::write(self.dir.path().join("bowline.toml"), text).unwrap();
    }

    fn master(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// The process that serves now.
    fn gateway(&self) -> u32 {
        pid_of(&self.wait_for_status("a gateway that answers", |status| {
            status["gateway"]["state"] == "answering"
        }))
    }

    fn wait_for_status(&self, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        let mut status = Value::Null;
        wait_until(what, || {
            status = self.control("GET", "/api/v1/status");
            good(&status)
        });
        status
    }

    /// Asks on the control socket.
    fn control(&self, method: &str, path: &str) -> Value {
        let mut stream = UnixStream::connect(&self.control).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = "Host: localhost\r\nContent-Type: application/json\r\nConnection: close";
        write!(stream, "{method} {path} HTTP/1.1\r\n{head}\r\nContent-Length: 0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    fn said(&self, words: &str) -> String {
        self.said.wait(words)
    }

    fn signal(&self, name: &str) {
        kill(self.master(), name);
    }

    fn wait(&self) -> ExitStatus {
        let mut ended = None;
        wait_until("the end of the master", || {
            ended = self.child.lock().unwrap().try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }

    fn stop(&self, signal: &str) -> ExitStatus {
        self.signal(signal);
        self.wait()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        let pid = child.id();
        let gateway = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let _ = child.kill();
        let _ = child.wait();
        // It would end as well, once it had sent its clients away.
        if let Some(gateway) = gateway.ok().filter(|gateway| !gateway.is_empty()) {
            let _ = Command::new("kill").args(["-KILL", gateway.trim()]).output();
        }
    }
}

impl Said {
    /// The first line with these words.
    fn wait(&self, words: &str) -> String {
        let lines = self.lines.lock().unwrap();
        let missing = |lines: &mut Vec<String>| !lines.iter().any(|line| line.contains(words));
        let (lines, waited) = self.more.wait_timeout_while(lines, PATIENCE, missing).unwrap();
        assert!(!waited.timed_out(), "{words:?} was never said:\n{}", lines.join("\n"));
        lines.iter().find(|line| line.contains(words)).unwrap().clone()
    }
}

/// A client of Engine.IO, by hand.
struct WebSocket(TcpStream);

impl WebSocket {
    fn open(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13";
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket";
        let path = "/socket.io/?EIO=4&transport=websocket";
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n{key}\r\n\r\n").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        Self(stream)
    }

    /// One whole frame: its opcode and what it carries.
    fn frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.0.read_exact(&mut length).unwrap();
                u16::from_be_bytes(length).into()
            }
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).unwrap();
        (head[0] & 0x0f, payload)
    }

    fn read(&mut self) -> String {
        let (opcode, payload) = self.frame();
        assert_eq!(opcode, 1);
        String::from_utf8(payload).unwrap()
    }

    /// The code of the close frame, whatever comes before it.
    fn read_close(&mut self) -> u16 {
        loop {
            let (opcode, payload) = self.frame();
            if opcode == 8 {
                return u16::from_be_bytes(payload[..2].try_into().unwrap());
            }
        }
    }

    fn write(&mut self, text: &str) {
        // The mask may be zero.
        let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
        frame.extend(text.as_bytes());
        self.0.write_all(&frame).unwrap();
    }
}

fn bowline(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
    command.args(args).stdin(Stdio::null());
    for name in ["PORT", "BOWLINE_LISTEN", "BOWLINE_CONFIG", "BOWLINE_STATE_DIR", "NOTIFY_SOCKET"] {
        command.env_remove(name);
    }
    command.env("BOWLINE_ADMIN_LISTEN", "127.0.0.1:0").env("BOWLINE_LOG_FORMAT", "text");
    command.env("NO_COLOR", "1");
    command
}

fn pid_of(status: &Value) -> u32 {
    status["gateway"]["pid"].as_u64().unwrap().try_into().unwrap()
}

fn kill(pid: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(status.unwrap().success());
}

fn wait_until(what: &str, mut good: impl FnMut() -> bool) {
    const PAUSE: Duration = Duration::from_millis(5);
    for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
        if good() {
            return;
        }
        thread::sleep(PAUSE);
    }
    panic!("not in time: {what}");
}

fn address(line: &str) -> SocketAddr {
    let url = line.split("http://").nth(1).unwrap();
    url.split('/').next().unwrap().replace("localhost", "127.0.0.1").parse().unwrap()
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
