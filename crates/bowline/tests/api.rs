//! The admin API of a real server, as curl sees it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    process::{Child, ChildStderr, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;

const TOKEN: &str = "correct-horse-battery";

const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn every_described_path_answers() {
    let server = Server::start(&[]);
    let (status, description) = server.get("/api/v1/openapi.json");
    assert_eq!(status, 200);
    let description = json(&description);
    let paths = description["paths"].as_object().unwrap();
    assert!(paths.len() >= 12, "{paths:?}");
    for (path, operations) in paths {
        for method in operations.as_object().unwrap().keys() {
            // What only the master does is refused, an empty body is wrong; nothing is unknown but the
            // service or link `{name}`, and the message `{id}`.
            let (status, body) = server.ask(&method.to_uppercase(), path, &[JSON], "{}");
            let unknown = ["service-unknown", "link-unknown", "link-message-unknown"];
            let unknown = unknown.iter().any(|code| body.contains(code));
            let bad = [404, 500, 501].contains(&status) && !unknown;
            assert!(!bad, "{method} {path}: {status} {body}");
            let declared = &operations[method]["responses"][status.to_string()];
            assert!(declared.is_object(), "{method} {path}: {status} is not described");
        }
    }
}

#[test]
fn a_socket_is_listed_logged_and_disconnected() {
    let mut server = Server::start(&[]);
    let client = Client::connect(server.public);

    let list = json(&server.get("/api/v1/sockets?namespace=/").1);
    assert_eq!(list["total"], 1);
    let socket = &list["sockets"][0];
    assert_eq!(socket["sid"], *client.socket);
    assert_eq!((&socket["transport"], &socket["protocol"]), (&"polling".into(), &4.into()));
    assert_eq!(json(&server.get("/api/v1/status").1)["sessions"], 1);
    let elsewhere = json(&server.get("/api/v1/sockets?namespace=/relay").1);
    assert_eq!(elsewhere["total"], 0);

    let body = format!(r#"{{"sid":"{}","on":true,"for":"1m"}}"#, client.socket);
    let (status, answer) = server.ask("PUT", "/api/v1/packet-logs", &[JSON], &body);
    assert_eq!((status, &json(&answer)["for_seconds"]), (200, &60.into()), "{answer}");
    let told = server.read_until("audit: request");
    assert!(told.contains("PUT") && told.contains("logs the packets of sid"), "{told}");
    client.post(r#"42["say","hello"]"#);
    let packet = server.read_until("packets: packet ");
    assert!(packet.contains("direction=in") && packet.contains("hello"), "{packet}");

    let body = format!(r#"{{"sid":"{}"}}"#, client.socket);
    let (status, answer) = server.ask("POST", "/api/v1/disconnect", &[JSON], &body);
    assert_eq!((status, answer.as_str()), (200, r#"{"disconnected":1}"#));
    let told = server.read_until("audit: request");
    assert!(told.contains(&*client.socket) && told.contains("status=200"), "{told}");
    assert!(client.poll().contains("41"));
    let (status, answer) = server.ask("POST", "/api/v1/disconnect", &[JSON], &body);
    assert_eq!((status, &json(&answer)["error"]["code"]), (404, &"socket-unknown".into()));
}

#[test]
fn a_request_that_is_wrong_is_told_why() {
    let server = Server::start(&[]);
    for (method, path, body, status, code) in [
        ("POST", "/api/v1/disconnect", "{}", 400, "request-invalid"),
        ("POST", "/api/v1/disconnect", "{", 400, "request-invalid"),
        ("POST", "/api/v1/disconnect", r#"{"sid":"x"}"#, 400, "request-invalid"),
        ("POST", "/api/v1/disconnect", r#"{"sid":"x","room":"y"}"#, 400, "request-invalid"),
        (
            "PUT",
            "/api/v1/packet-logs",
            r#"{"sid":"x","on":true,"for":"2d"}"#,
            400,
            "request-invalid",
        ),
        ("GET", "/api/v1/sockets?limit=many", "", 400, "request-invalid"),
        ("GET", "/api/v1/sockets?colour=red", "", 400, "request-invalid"),
        ("GET", "/nowhere", "", 404, "not-found"),
        ("PUT", "/api/v1/status", "", 405, "method-refused"),
        ("POST", "/api/v1/reload", "", 405, "control-socket-only"),
    ] {
        let (found, answer) = server.ask(method, path, &[JSON], body);
        let error = &json(&answer)["error"];
        assert_eq!((found, &error["code"]), (status, &code.into()), "{method} {path} {body}");
        assert!(error["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()));
    }
}

#[test]
fn a_web_page_cannot_drive_a_loopback_admin() {
    let mut server = Server::start(&[]);
    for (headers, status, code) in [
        (&[("host", "evil.example")][..], 403, "host-refused"),
        (&[("origin", "http://evil.example")], 403, "origin-refused"),
        (&[("content-type", "text/plain")], 415, "not-json"),
    ] {
        let (found, answer) = server.ask("POST", "/api/v1/disconnect", headers, "{}");
        assert_eq!((found, &json(&answer)["error"]["code"]), (status, &code.into()));
        let told = server.read_until("audit: refused");
        assert!(told.contains(code), "{told}");
    }
    let (_, page) = server.get("/");
    assert!(page.contains("all is well"), "{page}");
}

#[test]
fn a_token_is_asked_for_compared_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let mut server = Server::start(&["--admin-token-file", file.to_str().unwrap()]);
    let with = |token: &str| server.ask("GET", "/metrics", &[("authorization", token)], "").0;
    let right = format!("Bearer {TOKEN}");
    assert_eq!(server.get("/metrics").0, 401);
    assert_eq!(with("Bearer wrong-horse-battery"), 401);
    assert_eq!(with(&right), 200);
    // Health is for machines that know no token.
    assert_eq!(server.get("/health/ready").0, 200);

    fs::write(&file, "another-horse-battery\n").unwrap();
    server.signal("HUP");
    let mut tries = 0;
    while server.ask("GET", "/metrics", &[("authorization", &right)], "").0 != 401 {
        tries += 1;
        assert!(tries < 250, "the old token is still good");
        thread::sleep(Duration::from_millis(20));
    }
    let another = ("authorization", "Bearer another-horse-battery");
    assert_eq!(server.ask("GET", "/metrics", &[another], "").0, 200);

    for _ in 0..10 {
        server.ask("GET", "/metrics", &[("authorization", "Bearer guessing-and-guessing")], "");
    }
    let (status, answer) = server.ask("GET", "/metrics", &[another], "");
    assert_eq!((status, &json(&answer)["error"]["code"]), (429, &"too-many-failures".into()));
    let rest = server.end();
    assert!(!rest.contains("horse") && !rest.contains("guessing"), "a token was logged: {rest}");
}

#[test]
fn a_reload_over_the_control_socket_changes_the_level_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bowline.toml");
    fs::write(&file, "[log]\nlevel = \"error\"\n").unwrap();
    let mut server = Server::start(&["--config", file.to_str().unwrap()]);
    fs::write(&file, "[log]\nlevel = \"info\"\n").unwrap();
    let control = UnixStream::connect(server.state.path().join("control.sock")).unwrap();
    let (status, answer) = exchange(control, "POST", "/api/v1/reload", &[JSON], "localhost", "");
    assert_eq!((status, &json(&answer)["applied"][0]), (200, &"log.level".into()), "{answer}");
    let control = UnixStream::connect(server.state.path().join("control.sock")).unwrap();
    let (status, answer) = exchange(control, "GET", "/api/v1/rooms", &[], "localhost", "");
    assert_eq!((status, answer.as_str()), (200, r#"{"rooms":[],"more":false}"#));
    let said = server.end();
    assert!(said.contains(r#"audit: request from="control socket""#), "{said}");
    assert!(said.contains("INFO draining"), "{said}");
}

#[test]
fn a_client_that_is_away_is_listed_counted_and_spoken_to() {
    let server = Server::start(&[]);
    let client = Client::connect_with(server.public, r#"{"recovery":true}"#);
    let pid = client.pid.clone().unwrap();
    client.post("1");
    let listed = || json(&server.get("/api/v1/sockets").1)["sockets"][0].clone();
    let socket = until("it is away", || Some(listed()).filter(|socket| socket["away"] == true));
    assert_eq!(socket["sid"], *client.socket);
    assert!(socket["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{socket}");
    for unknown in ["transport", "protocol", "address", "age_seconds"] {
        assert!(socket[unknown].is_null(), "{socket}");
    }
    server.counts("bowline_sessions{state=\"away\"} 1");
    server.counts("bowline_sessions{state=\"connected\"} 0");
    let body = r#"{"event":"news","args":[1]}"#;
    let (status, answer) = server.ask("POST", "/api/v1/emit", &[JSON], body);
    assert_eq!((status, &json(&answer)["receivers"]), (200, &1.into()), "{answer}");

    let back = format!(r#"{{"pid":"{pid}"}}"#);
    let again = Client::connect_with(server.public, &back);
    assert_eq!((&again.socket, again.pid.as_ref()), (&client.socket, Some(&pid)));
    let heard = again.early.clone().unwrap_or_else(|| again.poll());
    assert!(heard.contains(r#"["news",1,"#), "{heard}");
    assert_eq!((&listed()["away"], &listed()["since"]), (&false.into(), &Value::Null));
    server.counts("bowline_recoveries_total{outcome=\"recovered\"} 1");
    server.counts("bowline_events_replayed_total 1");

    // It is disconnected as anybody else, and cannot come back from that.
    again.post("1");
    until("it is away", || Some(listed()).filter(|socket| socket["away"] == true));
    let body = format!(r#"{{"sid":"{}"}}"#, client.socket);
    let (status, answer) = server.ask("POST", "/api/v1/disconnect", &[JSON], &body);
    assert_eq!((status, answer.as_str()), (200, r#"{"disconnected":1}"#));
    let other = Client::connect_with(server.public, &back);
    assert_ne!(other.socket, client.socket);
    server.counts("bowline_recoveries_total{outcome=\"ended\"} 1");
    server.counts("bowline_sessions{state=\"away\"} 0");

    let path = |sid: &str| format!("/api/v1/sockets/{sid}/story");
    let story = json(&server.get(&path(&client.socket)).1);
    let entries = story["entries"].as_array().unwrap();
    // Whether it goes from shard to shard is chance.
    let moved = |entry: &&Value| !entry["event"].as_str().unwrap().starts_with("moved");
    let events: Vec<_> = entries.iter().filter(moved).map(|entry| &entry["event"]).collect();
    assert_eq!(
        events,
        [
            "opened",
            "connected",
            "away",
            "closed",
            "opened",
            "back",
            "caught-up",
            "away",
            "closed",
            "ended",
        ]
    );
    assert_eq!((&entries[0]["transport"], &story["more"]), (&"polling".into(), &false.into()));
    let last = entries.last().unwrap();
    assert_eq!(
        (&last["reason"], &last["outcome"]),
        (&"server namespace disconnect".into(), &"ended".into())
    );
    for (sid, status) in [("AAAAAAAAAAAAAAAAAAAA", 404), ("nobody", 400), ("%ff", 400)] {
        assert_eq!(server.get(&path(sid)).0, status, "{sid}");
    }
}

#[test]
fn a_reload_changes_who_may_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bowline.toml");
    let config = |window: &str, stamp: &str| {
        let text = format!(
            "[continuity]\nwindow = \"{window}\"\n\
             [namespaces.\"/\"]\nhandler = \"echo\"\nstamp = \"{stamp}\"\n"
        );
        fs::write(&file, text).unwrap();
    };
    config("2m", "never");
    let server = Server::start(&["--config", file.to_str().unwrap()]);
    let client = Client::connect_with(server.public, r#"{"recovery":true}"#);
    assert_eq!(client.pid, None);
    config("1ms", "always");
    let control = UnixStream::connect(server.state.path().join("control.sock")).unwrap();
    let (status, answer) = exchange(control, "POST", "/api/v1/reload", &[JSON], "localhost", "");
    let applied = serde_json::json!(["continuity.window", "namespaces.*.stamp"]);
    assert_eq!((status, &json(&answer)["applied"]), (200, &applied), "{answer}");
    let client = Client::connect_with(server.public, "");
    let pid = client.pid.clone().unwrap();
    client.post("1");
    let total = || json(&server.get("/api/v1/sockets").1)["total"].clone();
    until("its time is over", || Some(()).filter(|()| total() == 1));
    let again = Client::connect_with(server.public, &format!(r#"{{"pid":"{pid}"}}"#));
    assert_ne!(again.socket, client.socket);
    server.counts("bowline_recoveries_total{outcome=\"window\"} 1");
}

/// Asks again until something is so.
fn until<T>(what: &str, ask: impl Fn() -> Option<T>) -> T {
    for _ in 0..500 {
        if let Some(found) = ask() {
            return found;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("waited in vain: {what}");
}

/// A client that polls, in the namespace `/`.
struct Client {
    server: SocketAddr,
    session: String,
    /// Its Socket.IO sid.
    socket: String,
    /// What it comes back with.
    pid: Option<String>,
    /// What came with the answer to its CONNECT.
    early: Option<String>,
}

impl Client {
    fn connect(server: SocketAddr) -> Self {
        Self::connect_with(server, "")
    }

    fn connect_with(server: SocketAddr, auth: &str) -> Self {
        let (session, socket) = (String::new(), String::new());
        let mut client = Self { server, session, socket, pid: None, early: None };
        let open = client.poll();
        client.session = json(&open[1..])["sid"].as_str().unwrap().to_owned();
        client.post(&format!("40{auth}"));
        let answer = client.poll();
        let (connected, early) = match answer.split_once('\u{1e}') {
            Some((connected, early)) => (connected, Some(early.to_owned())),
            None => (&*answer, None),
        };
        let connected = json(connected.strip_prefix("40").unwrap());
        client.socket = connected["sid"].as_str().unwrap().to_owned();
        client.pid = connected["pid"].as_str().map(str::to_owned);
        client.early = early;
        client
    }

    fn poll(&self) -> String {
        ask(self.server, "GET", &self.path(), &[], "").1
    }

    fn post(&self, packets: &str) {
        let (status, body) = ask(self.server, "POST", &self.path(), &[], packets);
        assert_eq!((status, body.as_str()), (200, "ok"));
    }

    fn path(&self) -> String {
        let sid = &self.session;
        let sid = if sid.is_empty() { String::new() } else { format!("&sid={sid}") };
        format!("/socket.io/?EIO=4&transport=polling{sid}")
    }
}

/// A server that is ended with its test.
struct Server {
    child: Child,
    said: BufReader<ChildStderr>,
    public: SocketAddr,
    admin: SocketAddr,
    state: tempfile::TempDir,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        let state = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        command.args(["--log-format", "text", "--state-dir"]).arg(state.path()).args(args);
        command.env_remove("PORT").env_remove("BOWLINE_CONFIG").env("NO_COLOR", "1");
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let public = address(&read_until(&mut said, "listening "));
        let admin = address(&read_until(&mut said, "admin "));
        let server = Self { child, said, public, admin, state };
        // The listener is there before the gateway: the first request waits for it.
        assert_eq!(server.get("/health/live").0, 200);
        server
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path, &[], "")
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        ask(self.admin, method, path, headers, body)
    }

    /// Whether `/metrics` has this line, at once or soon.
    fn counts(&self, line: &str) {
        until(line, || Some(()).filter(|()| self.get("/metrics").1.lines().any(|it| it == line)));
    }

    fn read_until(&mut self, words: &str) -> String {
        read_until(&mut self.said, words)
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Ends it, and returns what it said that was not read.
    fn end(&mut self) -> String {
        self.signal("TERM");
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).unwrap();
        rest
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(
    server: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, String) {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    exchange(stream, method, path, headers, &server.to_string(), body)
}

fn exchange(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    host: &str,
    body: &str,
) -> (u16, String) {
    let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if !headers.iter().any(|(name, _)| *name == "host") {
        request.push_str(&format!("host: {host}\r\n"));
    }
    request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no answer: {answer}")), body.to_owned())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
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
    url.split('/').next().unwrap().parse().unwrap()
}
