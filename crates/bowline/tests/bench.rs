//! `bowline bench` against real servers: few messages of every workload over every wire, all counted.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Output},
    thread,
};

use serde_json::Value;
use tokio::sync::oneshot;

use bowline_load::OwnServer;

const BOWLINE: &str = env!("CARGO_BIN_EXE_bowline");

#[test]
fn every_workload_counts_what_arrives_over_websocket() {
    every_workload_counts_what_arrives("websocket");
}

#[test]
fn every_workload_counts_what_arrives_over_polling() {
    every_workload_counts_what_arrives("polling");
}

#[test]
fn every_workload_counts_what_arrives_after_an_upgrade() {
    every_workload_counts_what_arrives("upgrade");
}

#[test]
fn without_a_target_it_measures_a_server_of_its_own() {
    let report = measured("echo --sessions 3 --messages 10");
    assert_eq!(report["messages"], 10);
    let pid = report["server"]["pids"][0].as_u64().unwrap();
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "its server is still there");
    let Output { stdout, .. } = bench("join --sessions 3");
    let table = String::from_utf8(stdout).unwrap();
    assert!(table.starts_with("join over websocket, 3 sessions\n"), "{table}");
    assert!(table.contains("server: CPU for each join"), "{table}");
}

#[test]
fn each_room_hears_its_own() {
    let server = bowline_net::Server::builder()
        .listen("127.0.0.1:0".parse().unwrap())
        .namespace("/rooms", rooms::Rooms)
        .bind()
        .unwrap();
    let target = format!("http://{}", server.local_addrs()[0]);
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = thread::spawn(move || {
        server.run_blocking(async {
            // It ends by being dropped.
            let _ = stopped.await;
        })
    });
    for wire in ["websocket", "polling"] {
        let line = format!("rooms --sessions 7 --rooms 3 --rounds 4 --burst 2 --wire {wire}");
        let report = measured(&format!("{line} --target {target}"));
        assert_eq!(report["messages"], 7 * 4 * 2, "{report}");
        has(&report, "/fanout_us", &["p50", "p99", "p999", "max"]);
        let line = format!("rooms --sessions 7 --rooms 3 --rate 90 --seconds 0.1 --wire {wire}");
        let report = measured(&format!("{line} --target {target}"));
        assert_eq!(report["messages"], 3 * 7, "{report}");
    }
    drop(stop);
    assert!(serving.join().unwrap().is_ok());
}

#[test]
fn what_is_wrong_is_told_with_what_to_do() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let at_nobody = format!("echo --target http://{nobody}");
    for (line, code, told) in [
        ("broadcast --messages 5", 2, "it is for echo"),
        ("echo --sessions 0", 2, "at least 1"),
        ("rooms", 2, "--target"),
        ("echo --target https://localhost", 2, "TLS is not measured"),
        ("echo --pid 1", 2, "--target"),
        (&at_nobody, 1, "start the server"),
    ] {
        let Output { status, stderr, .. } = bench(line);
        let said = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(code), "{line}: {said}");
        assert!(said.contains(told), "{line}: {said}");
    }
}

fn every_workload_counts_what_arrives(wire: &str) {
    let server = OwnServer::start(Path::new(BOWLINE)).unwrap();
    let target = server.target().to_string();
    for (line, messages) in [
        ("echo --sessions 7 --messages 50", 50),
        ("echo --sessions 7 --messages 50 --ack", 50),
        ("echo --sessions 7 --messages 50 --binary --bytes 1000", 50),
        ("echo --sessions 7 --messages 50 --binary --ack --window 3", 50),
        ("echo --sessions 7 --rate 500 --seconds 0.2", 100),
        ("broadcast --sessions 5 --rounds 4", 20),
        ("broadcast --sessions 5 --rounds 4 --burst 3 --binary", 60),
        ("broadcast --sessions 5 --rate 50 --seconds 0.2 --burst 2", 100),
    ] {
        let report = measured(&format!("{line} --wire {wire} --target {target}"));
        assert_eq!(report["messages"], messages, "{line} over {wire}: {report}");
        assert_eq!(report["wire"], wire);
        has(&report, "", &["workload", "sessions", "per_second"]);
        has(&report, "/server", &["pids", "cpu_us_per_message", "context_switches_per_message"]);
        has(&report, "/server", &["rss_before_bytes", "rss_after_bytes", "join_us"]);
        has(&report, "/load", &["cpu_us_per_message"]);
        has(&report, "/latency_us", &["p50", "p99", "p999", "max"]);
        let fans = line.starts_with("broadcast");
        assert_eq!(report["fanout_us"]["max"].is_f64(), fans, "{report}");
    }
    for line in ["idle --sessions 6 --seconds 0.2", "join --sessions 6"] {
        let report = measured(&format!("{line} --wire {wire} --target {target}"));
        assert_eq!(report["messages"], 6, "{line} over {wire}: {report}");
        has(&report, "/server", &["join_us", "bytes_per_session", "rss_after_bytes"]);
        has(&report, "/load", &["join_us"]);
        has(&report, "/latency_us", &["p50", "max"]);
        let rests: &[&str] = &["further_bytes_per_session", "cpu_us_per_session_second"];
        has(&report, "/server", if line.starts_with("idle") { rests } else { &[] });
    }
}

/// Puts whoever connects into the room that the auth object names.
mod rooms {
    use bowline_net::{
        Ack, Broadcast, ConnectRequest, Context, Handler, SocketRef, socketio::Args,
    };
    use serde_json::Value;

    pub(crate) struct Rooms;

    impl Handler for Rooms {
        fn on_connect(&self, cx: &mut Context<'_>, request: ConnectRequest) {
            let auth: Value = serde_json::from_str(request.auth().unwrap()).unwrap();
            let room = auth["room"].as_str().unwrap().to_owned();
            cx.accept_with(request, [room], None);
        }

        fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, args: Args, _: Option<Ack>) {
            let namespace = cx.socket(socket).unwrap().namespace.clone();
            let room = cx.rooms(socket).next().unwrap().to_owned();
            cx.broadcast(Broadcast::new(namespace, args).to(room));
        }
    }
}

fn bench(line: &str) -> Output {
    let mut command = Command::new(BOWLINE);
    command.arg("bench").args(line.split(' ')).env("NO_COLOR", "1");
    command.output().unwrap()
}

fn measured(line: &str) -> Value {
    let Output { status, stdout, stderr } = bench(&format!("{line} --json"));
    assert!(status.success(), "{line}: {}", String::from_utf8_lossy(&stderr));
    serde_json::from_slice(&stdout).unwrap()
}

/// Whether all of these figures are there.
fn has(report: &Value, place: &str, names: &[&str]) {
    let part = report.pointer(place).unwrap_or_else(|| panic!("no {place}: {report}"));
    for name in names {
        assert!(!part[name].is_null(), "no {name}: {report}");
    }
}
