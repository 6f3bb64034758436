//! `/health/*` from outside: raw HTTP over TCP, and proxies that spoil what passes through them.
//!
//! Nothing sleeps: a test waits for what must come, and every read has a deadline.

#![expect(clippy::disallowed_methods, reason = "deadlines of tests are real time")]
#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    reason = "helpers of tests fail like the tests"
)]

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use bowline_net::{
    Ack, Builder, ComponentState, Context, Echo, EngineHandler, Handle, Handler, Limits, Message,
    Progress, Readiness, RunError, Server, SessionRef, SocketRef, StepOutcome, Tls, socketio::Args,
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

// Components.

#[test]
fn while_components_load_clients_are_served_and_ready_tells_how_far_they_are() {
    let (step, steps) = mpsc::channel();
    let server = Running::start(
        echo()
            .component("model", &["settings"], true, move |progress| load(progress, &steps))
            .component("settings", &[], true, |_| Ok::<_, String>(())),
    );
    let mut http = Http::connect(server.address);
    assert_eq!(http.get("/health/live").text(), r#"{"status":"live"}"#);
    wait_for(|| server.component("settings").state == ComponentState::Ready);
    step.send(Some(0.25)).unwrap();
    wait_for(|| server.component("model").progress == 0.25);
    let answer = http.get("/health/ready");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let mut ready = answer.json();
    for component in ready["components"].as_array_mut().unwrap() {
        let since = component["since"].take();
        assert!(since.as_str().unwrap().parse::<humantime::Timestamp>().is_ok(), "{since}");
    }
    let part = |name: &str, state: &str, progress: f64| {
        json!({
            "name": name, "kind": "component", "required": true, "state": state, "progress": progress,
            "waiting_for": [], "since": null,
        })
    };
    let components = [part("model", "loading", 0.25), part("settings", "ready", 1.0)];
    assert_eq!(ready, json!({ "status": "starting", "components": components }));
    assert!(http.get("/socket.io/?EIO=4&transport=polling").text().starts_with("0{"));
    assert_eq!(server.handle.startup().ready, None);

    step.send(None).unwrap();
    wait_for(|| server.handle.readiness() == Readiness::Ready);
    let answer = http.get("/health/ready");
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("ready")));
    assert_eq!(answer.header("retry-after"), None);
    let startup = server.handle.startup();
    assert!(startup.ready.unwrap() >= startup.bind, "{startup:?}");
}

#[test]
fn what_went_wrong_is_for_operators_only() {
    let server = Running::start(
        echo()
            .admin_listen(any())
            .component("cache", &[], false, |_| Err("no route to 10.0.0.7"))
            .component("warm-up", &["cache"], false, |_| Ok::<_, String>(())),
    );
    wait_for(|| server.component("warm-up").state == ComponentState::Skipped);
    let answer = Http::connect(server.address).get("/health/ready");
    // Optional ones keep nobody from being served.
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("degraded")));
    assert!(!answer.text().contains("10.0.0.7"), "{}", answer.text());
    let answer = Http::connect(server.admin).get("/health/ready").json();
    assert_eq!(answer["components"][0]["error"], "no route to 10.0.0.7");
    assert_eq!(answer["components"][1]["waiting_for"], json!(["cache"]));
    assert_eq!(answer["components"][1]["error"], json!(null));
    // A page that was led here by its own name is no operator.
    let mut http = Http::connect(server.admin);
    http.write("GET /health/ready HTTP/1.1\r\nHost: evil.example:8001\r\n\r\n");
    assert_eq!(http.read().json()["components"][0].get("error"), None);
}

#[test]
fn a_load_that_panics_has_failed_and_the_server_goes_on() {
    let server = Running::start(echo().component("model", &[], true, |_: &Progress| {
        if true {
            panic!("weights are torn");
        }
        Ok::<_, String>(())
    }));
    wait_for(|| server.component("model").state == ComponentState::Failed);
    let error = server.component("model").error;
    assert_eq!(error.as_deref(), Some("it panicked: weights are torn"));
    let mut http = Http::connect(server.address);
    let answer = http.get("/health/ready");
    assert_eq!((answer.status, &answer.json()["status"]), (503, &json!("degraded")));
    assert_eq!(http.get("/health/live").status, 200);
}

#[test]
fn components_that_need_one_another_are_refused_before_anything_is_bound() {
    let error = echo()
        .component("a", &["b"], true, |_| Ok::<_, String>(()))
        .component("b", &["a"], true, |_| Ok::<_, String>(()))
        .bind()
        .unwrap_err();
    assert_eq!(error.to_string(), "components need one another in a circle: a -> b -> a");
}

#[test]
fn independent_components_load_at_the_same_time() {
    // Each waits for the other, so only both at once can end.
    let meeting = Arc::new(std::sync::Barrier::new(2));
    let mut builder = echo();
    for name in ["left", "right"] {
        let meeting = Arc::clone(&meeting);
        builder = builder.component(name, &[], true, move |_| {
            meeting.wait();
            Ok::<_, String>(())
        });
    }
    let server = Running::start(builder);
    wait_for(|| server.handle.readiness() == Readiness::Ready);
}

#[test]
fn a_component_can_tell_of_itself_later() {
    let server = Running::start(echo());
    let mut changes = server.handle.component_changes();
    changes.mark_unchanged();
    server.handle.report_component("certificates", Err("expired".to_owned()));
    assert!(changes.has_changed().unwrap());
    let answer = Http::connect(server.address).get("/health/ready");
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("degraded")));
    server.handle.report_component("certificates", Ok(()));
    assert_eq!(server.handle.readiness(), Readiness::Ready);
}

#[test]
fn a_server_that_stops_is_not_ready_any_more_and_tells_long_loads() {
    let (told, stopping) = mpsc::channel();
    let server = Running::start(echo().admin_listen(any()).component(
        "index",
        &[],
        false,
        move |progress| {
            wait_for(|| progress.is_stopping());
            told.send(()).unwrap();
            Ok::<_, String>(())
        },
    ));
    // A session that polls keeps the drain going until its poll is answered.
    let mut http = Http::connect(server.address);
    for _ in 0..1_000 {
        http.get("/socket.io/?EIO=4&transport=polling");
    }
    let (handle, admin) = (server.handle.clone(), server.admin);
    let stop = thread::spawn(move || server.stop());
    wait_for(|| handle.is_draining());
    let answer = http.get("/health/ready");
    assert_eq!((answer.status, &answer.json()["status"]), (503, &json!("stopping")));
    // Operators and publishers still come in, clients do not.
    let mut operator = Http::connect(admin);
    assert_eq!(operator.get("/health/ready").status, 503);
    stopping.recv_timeout(DEADLINE).unwrap();
    stop.join().unwrap().unwrap();
}

// How it is asked.

#[test]
fn health_is_asked_with_get_or_head() {
    let server = Running::start(echo());
    let mut http = Http::connect(server.address);
    for path in ["/health/live", "/health/ready", "/health/websocket"] {
        let got = http.get(path);
        http.write(&format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let head = http.read_head();
        assert_eq!((head.status, got.status), (200, 200), "{path}");
        let length = got.body.len().to_string();
        assert_eq!(head.header("content-length"), Some(&*length), "{path}");
        http.write(&format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        ));
        let refused = http.read();
        assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")), "{path}");
    }
    assert_eq!(http.get("/health/").status, 404);
    assert_eq!(http.get("/health/other").status, 404);
}

#[test]
fn whoever_is_refused_may_ask_how_the_server_is() {
    let limits = Limits { connections: Some(1), ..Limits::default() };
    let server = Running::start(echo().limits(limits));
    let mut inside = Http::connect(server.address);
    assert_eq!(inside.get("/health/live").status, 200);
    let mut outside = Http::connect(server.address);
    let answer = outside.get("/health/ready");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    // The probe is refused as any other client, and says which limit it was.
    let answer = Http::connect(server.address).get("/health/websocket");
    assert_eq!(answer.status, 503);
    let error = "the handshake was answered with 503: limits.connections";
    assert_eq!(answer.json()["steps"][0]["error"], error);
}

// The probe.

#[test]
fn a_probe_goes_through_all_five_steps_and_is_not_counted() {
    let server = Running::start(echo().shards(2));
    let answer = Http::connect(server.address).get("/health/websocket");
    assert_eq!((answer.status, answer.header("retry-after")), (200, None), "{}", answer.text());
    let report = answer.json();
    assert_eq!((&report["status"], &report["websocket_enabled"]), (&json!("ok"), &json!(true)));
    let steps = report["steps"].as_array().unwrap();
    let names = steps.iter().map(|step| step["name"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(names, ["open", "poll", "upgrade", "event", "ack"]);
    for step in steps {
        assert_eq!((&step["ok"], &step["error"]), (&json!(true), &json!(null)));
        assert!(step["ms"].as_f64().unwrap() > 0.0, "{step}");
        assert_eq!(step.get("skipped"), None);
    }
    let stats = server.stats();
    assert_eq!((stats.sessions_polling, stats.sessions_websocket), (0, 0));
    assert_eq!(stats.websocket_ends, [0; 4]);
    let hub = stats.hub;
    assert_eq!((hub.opened_polling, hub.opened_websocket, hub.upgraded), (0, 0, 0));
    assert_eq!((hub.connects_accepted, hub.connects_refused), (0, 0));
    assert_eq!((hub.events_in, hub.events_out, hub.packets_in, hub.packets_out), (0, 0, 0, 0));
    assert_eq!(hub.closed.iter().sum::<u64>(), 0);
}

#[test]
fn a_probe_leaves_no_session_behind() {
    let server = Running::start(echo().websocket(false));
    assert!(server.probe().is_ok());
    // Sessions over the limit are refused, whoever has them.
    let limits = Limits { connections: Some(5), ..Limits::default() };
    let server = Running::start(echo().websocket(false).limits(limits));
    for _ in 0..20 {
        let report = server.probe();
        assert!(report.is_ok(), "{report:?}");
    }
}

#[test]
fn the_result_is_kept_for_a_while() {
    let server = Running::start(echo());
    let first = Http::connect(server.address).get("/health/websocket").json();
    let second = Http::connect(server.address).get("/health/websocket").json();
    // To the microsecond, two probes would not take the same time five times.
    assert_eq!(first, second);
}

#[test]
fn those_who_ask_at_once_share_one_probe() {
    let proxy = Proxy::bind();
    let server = Running::start(echo().public_url(proxy.url()));
    let askers = (0..8)
        .map(|_| {
            let mut http = Http::connect(server.address);
            http.send_get("/health/websocket");
            http
        })
        .collect::<Vec<_>>();
    // Until the first request is let through, nobody is answered.
    let seen = proxy.start(server.address, Proxy::HONEST);
    let mut answers = askers.into_iter().map(|mut http| http.read().json());
    let first = answers.next().unwrap();
    assert_eq!(first["status"], "ok");
    assert!(answers.all(|answer| answer == first));
    let opened = seen.lock().unwrap().iter().filter(|head| is_handshake(head)).count();
    assert_eq!(opened, 1);
}

#[test]
fn transports_that_are_switched_off_are_skipped() {
    let server = Running::start(echo().websocket(false));
    let report = Http::connect(server.address).get("/health/websocket").json();
    assert_eq!((&report["status"], &report["websocket_enabled"]), (&json!("ok"), &json!(false)));
    assert_eq!(skipped(&report), ["upgrade"]);
    let server = Running::start(echo().polling(false));
    let report = Http::connect(server.address).get("/health/websocket").json();
    assert_eq!((&report["status"], &report["websocket_enabled"]), (&json!("ok"), &json!(true)));
    assert_eq!(skipped(&report), ["poll", "upgrade"]);
}

/// Fails if anybody comes.
struct Nobody;

impl EngineHandler for Nobody {
    fn on_open(&self, _: &mut Context<'_>, _: SessionRef, _: &bowline_net::Handshake) {
        panic!("the application hears of a probe");
    }

    fn on_message(&self, _: &mut Context<'_>, _: SessionRef, _: Message) {
        panic!("the application hears a probe");
    }
}

#[test]
fn over_bare_engine_io_the_application_does_not_hear_of_probes() {
    let server = Running::start(Server::builder().listen(any()).engine_io(Nobody));
    let report = Http::connect(server.address).get("/health/websocket").json();
    assert_eq!((&report["status"], skipped(&report)), (&json!("ok"), vec!["event", "ack"]));
    let stats = server.stats();
    assert_eq!((stats.handler_panics, stats.hub.opened_polling), (0, 0));
}

#[test]
fn a_probe_works_with_other_paths_cors_and_patterns() {
    let server = Running::start(
        Server::builder()
            .listen("[::]:0".parse().unwrap())
            .namespace("/*/*", Loud)
            .path("/chat/engine")
            .cors_allowed_origins(["https://example.com"])
            .compression(true),
    );
    let report = server.probe();
    assert!(report.is_ok(), "{report:?}");
}

#[test]
fn a_probe_speaks_tls_and_the_proxy_protocol_as_the_listener_does() {
    let files = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["gateway.example".to_owned()]).unwrap();
    let (cert_file, key_file) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    std::fs::write(&cert_file, made.cert.pem()).unwrap();
    std::fs::write(&key_file, made.signing_key.serialize_pem()).unwrap();
    let tls = Tls { cert_file, key_file };
    for builder in [echo().tls(tls.clone()), echo().proxy_protocol(true), {
        // Of this machine no header is expected.
        let proxies = ["192.0.2.0/24".parse().unwrap()];
        echo().proxy_protocol(true).trusted_proxies(proxies).tls(tls)
    }] {
        let server = Running::start(builder);
        let report = server.probe();
        assert!(report.is_ok(), "{report:?}");
    }
}

/// Breaks whatever comes to it.
struct Loud;

impl Handler for Loud {
    fn on_event(&self, _: &mut Context<'_>, _: SocketRef, _: Args, _: Option<Ack>) {
        panic!("the application hears a probe");
    }
}

#[test]
fn clients_cannot_join_the_namespace_of_probes() {
    let server = Running::start(echo().namespace("/*/*", Echo));
    let mut http = Http::connect(server.address);
    let open = http.get("/socket.io/?EIO=4&transport=polling");
    let sid = open.text().split('"').nth(3).unwrap().to_owned();
    let url = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
    let headers = "x-bowline-probe: 0123456789abcdef0123456789abcdef\r\n";
    let body = "40/.bowline/probe,";
    http.write(&format!(
        "POST {url} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(http.read().text(), "ok");
    let answer = http.get(&url);
    assert_eq!(answer.text(), r#"44/.bowline/probe,{"message":"Invalid namespace"}"#);
}

#[test]
fn a_proxy_that_strips_upgrade_fails_that_step_alone_and_is_told_apart() {
    let strip = |head: &str| {
        let kept = head.trim_end().lines().filter(|line| {
            let line = line.to_ascii_lowercase();
            !line.starts_with("upgrade:") && !line.starts_with("connection:")
        });
        Some(kept.collect::<Vec<_>>().join("\r\n") + "\r\nConnection: close\r\n\r\n")
    };
    let proxy = Proxy::bind();
    let server = Running::start(echo().public_url(proxy.url()));
    proxy.start(server.address, strip);
    let answer = Http::connect(server.address).get("/health/websocket");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    let report = answer.json();
    assert_eq!(report["status"], "failed");
    assert_eq!(failed(&report), ["upgrade"]);
    let error = report["steps"][2]["error"].as_str().unwrap();
    assert!(error.contains("was answered with 400"), "{error}");
    assert!(error.contains("the proxy strips that header"), "{error}");
    // The master asks the listener itself, which is well.
    assert!(server.probe().is_ok());
}

#[test]
fn a_proxy_that_drops_the_mark_is_told_apart() {
    let strip = |head: &str| {
        let kept = head.trim_end().lines().filter(|line| !line.starts_with("x-bowline-probe"));
        Some(kept.collect::<Vec<_>>().join("\r\n") + "\r\n\r\n")
    };
    let proxy = Proxy::bind();
    let server = Running::start(echo().public_url(proxy.url()));
    proxy.start(server.address, strip);
    let report = Http::connect(server.address).get("/health/websocket").json();
    assert_eq!(failed(&report), ["poll", "upgrade", "event", "ack"]);
    let error = report["steps"][1]["error"].as_str().unwrap();
    assert!(error.contains("drops the header x-bowline-probe"), "{error}");
    assert_eq!(report["steps"][4]["error"], "not tried, because `poll` failed");
}

#[test]
fn requests_that_reach_different_servers_are_told_apart() {
    let (one, two) = (Running::start(echo()), Running::start(echo()));
    let servers = [one.address, two.address];
    let proxy = Proxy::bind();
    let server = Running::start(echo().public_url(proxy.url()));
    let turn = AtomicUsize::new(0);
    proxy.start_with(move |head| (servers[turn.fetch_add(1, SeqCst) % 2], Some(head.to_owned())));
    let report = Http::connect(server.address).get("/health/websocket").json();
    let error = report["steps"][1]["error"].as_str().unwrap();
    assert!(error.contains("requests of one session reach different servers"), "{error}");
}

#[test]
fn a_proxy_that_is_not_there_fails_the_first_step_and_the_rest_is_not_tried() {
    let proxy = Proxy::bind();
    let url = proxy.url();
    drop(proxy);
    let server = Running::start(echo().public_url(url));
    let report = Http::connect(server.address).get("/health/websocket").json();
    assert_eq!(failed(&report), ["open", "poll", "upgrade", "event", "ack"]);
    let error = report["steps"][0]["error"].as_str().unwrap();
    assert!(error.contains("refused"), "{error}");
    assert_eq!(report["steps"][1]["error"], "not tried, because `open` failed");
}

#[test]
fn a_url_that_leads_elsewhere_is_told_apart() {
    for (answer, why) in [
        ("302 Found\r\nLocation: https://x/", "do not follow redirects"),
        ("502 Bad Gateway", "the proxy does not reach the server"),
        ("404 Not Found", "does not lead to the server"),
        ("200 OK", "something else than Engine.IO"),
    ] {
        let elsewhere = TcpListener::bind(any()).unwrap();
        let url = format!("http://{}", elsewhere.local_addr().unwrap());
        let server = Running::start(echo().public_url(url));
        let serving = thread::spawn(move || {
            let (mut stream, _) = elsewhere.accept().unwrap();
            read_head(&mut stream).unwrap();
            let head = format!("HTTP/1.1 {answer}\r\nServer: nginx/1.22.1\r\nContent-Length: 2");
            write!(stream, "{head}\r\nConnection: close\r\n\r\nhi").unwrap();
        });
        let report = Http::connect(server.address).get("/health/websocket").json();
        let error = report["steps"][0]["error"].as_str().unwrap().to_owned();
        assert!(error.contains("by `nginx/1.22.1` with") && error.contains(why), "{error}");
        serving.join().unwrap();
    }
}

#[test]
fn a_way_that_swallows_everything_is_given_up_in_time() {
    // Connections are taken in by the kernel, and nobody reads.
    let silent = TcpListener::bind(any()).unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let server = Running::start(echo().public_url(url));
    let report = Http::connect(server.address).get("/health/websocket").json();
    assert_eq!(report["steps"][0]["error"], "nothing came within 5.0 s");
    assert_eq!(failed(&report).len(), 5);
}

#[test]
fn the_probe_of_a_handle_is_done_anew_each_time() {
    let server = Running::start(echo());
    let (first, second) = (server.probe(), server.probe());
    assert!(first.is_ok() && second.is_ok());
    assert_ne!(first, second);
    assert_eq!(first.steps[0].outcome, StepOutcome::Done);
}

fn failed(report: &Value) -> Vec<&str> {
    let steps = report["steps"].as_array().unwrap().iter();
    steps.filter(|step| step["ok"] == false).map(|step| step["name"].as_str().unwrap()).collect()
}

fn skipped(report: &Value) -> Vec<&str> {
    let steps = report["steps"].as_array().unwrap().iter();
    let skipped = steps.filter(|step| step["skipped"] == true);
    skipped
        .inspect(|step| assert_eq!(step["ok"], true))
        .map(|s| s["name"].as_str().unwrap())
        .collect()
}

fn is_handshake(head: &str) -> bool {
    head.contains("transport=polling") && !head.contains("sid=")
}

// A server, clients, and proxies made of sockets.

/// How long anything may take before a test fails.
const DEADLINE: Duration = Duration::from_secs(10);

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn echo() -> Builder {
    Server::builder().listen(any()).namespace("/", Echo)
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain");
        thread::yield_now();
    }
}

/// Loads as the test says: a share is progress, `None` the end.
fn load(progress: &Progress, steps: &mpsc::Receiver<Option<f64>>) -> Result<(), String> {
    while let Some(fraction) = steps.recv_timeout(DEADLINE).map_err(|error| error.to_string())? {
        progress.set(fraction, "reading weights");
    }
    Ok(())
}

struct Running {
    address: SocketAddr,
    admin: SocketAddr,
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<Result<(), RunError>>>,
}

impl Running {
    fn start(builder: Builder) -> Self {
        let server = builder.bind().unwrap();
        let address = server.local_addrs()[0];
        let admin = server.admin_addrs().first().copied().unwrap_or(address);
        let handle = server.handle();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            server.run_blocking(async {
                let _ = stopped.await;
            })
        });
        Self { address, admin, handle, stop: Some(stop), thread: Some(thread) }
    }

    fn component(&self, name: &str) -> bowline_net::ComponentView {
        self.handle.components().into_iter().find(|view| view.name == name).unwrap()
    }

    fn stats(&self) -> bowline_net::Stats {
        block_on(self.handle.stats())
    }

    fn probe(&self) -> bowline_net::ProbeReport {
        block_on(self.handle.probe())
    }

    fn stop(mut self) -> Result<(), RunError> {
        self.stop.take();
        self.thread.take().unwrap().join().unwrap()
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

struct Http(BufReader<TcpStream>);

impl Http {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn write(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn send_get(&mut self, url: &str) {
        self.write(&format!("GET {url} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    }

    fn get(&mut self, url: &str) -> Answer {
        self.send_get(url);
        self.read()
    }

    /// Reads an answer that has no body whatever its head says.
    fn read_head(&mut self) -> Answer {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the server closed");
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            lines.push(line.to_owned());
        }
        let status = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines[1..].iter().map(|line| line.split_once(": ").unwrap());
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
        Answer { status, headers: headers.collect(), body: Vec::new() }
    }

    fn read(&mut self) -> Answer {
        let mut answer = self.read_head();
        let len = answer.header("content-length").map_or(0, |len| len.parse().unwrap());
        answer.body.resize(len, 0);
        self.0.read_exact(&mut answer.body).unwrap();
        answer
    }
}

/// What stands between a probe and the server. It reads the head of the one request of each
/// connection, and may change it.
struct Proxy(TcpListener);

type Seen = Arc<Mutex<Vec<String>>>;

impl Proxy {
    const HONEST: fn(&str) -> Option<String> = |head| Some(head.to_owned());

    /// Connections wait until it is started.
    fn bind() -> Self {
        Self(TcpListener::bind(any()).unwrap())
    }

    fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    fn start(
        self,
        server: SocketAddr,
        change: impl Fn(&str) -> Option<String> + Send + 'static,
    ) -> Seen {
        self.start_with(move |head| (server, change(head)))
    }

    /// `change` says where a request goes, and how it reads then. Returns the heads that came.
    fn start_with(
        self,
        change: impl Fn(&str) -> (SocketAddr, Option<String>) + Send + 'static,
    ) -> Seen {
        let seen = Seen::default();
        let noted = Arc::clone(&seen);
        // It lives as long as the process of the test.
        thread::spawn(move || {
            for stream in self.0.incoming() {
                let mut stream = stream.unwrap();
                let Ok((head, rest)) = read_head(&mut stream) else { continue };
                noted.lock().unwrap().push(head.clone());
                let (server, head) = change(&head);
                let Some(head) = head else { continue };
                let mut behind = TcpStream::connect(server).unwrap();
                behind.write_all(head.as_bytes()).unwrap();
                behind.write_all(&rest).unwrap();
                let (up, down) = (stream.try_clone().unwrap(), behind.try_clone().unwrap());
                thread::spawn(move || pass(up, down));
                thread::spawn(move || pass(behind, stream));
            }
        });
        seen
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

/// The head of a request, and what came behind it.
fn read_head(stream: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut received = Vec::new();
    loop {
        let mut scratch = [0; 4096];
        let bytes = stream.read(&mut scratch)?;
        if bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received.extend_from_slice(&scratch[..bytes]);
        if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = received.split_off(end + 4);
            return Ok((String::from_utf8(received).unwrap(), rest));
        }
    }
}
