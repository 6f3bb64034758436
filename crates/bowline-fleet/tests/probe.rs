//! What the checks make of servers: real ones, and some that are of no use.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::Path,
    thread,
    time::Duration,
};

use bowline_fleet::{
    probe::{Finding, Progress, Surroundings, run},
    spec::{Check, Listen, Phase, Probe},
};
use bowline_net::{Echo, Server};

/// Ample for an answer, short for a silence that is waited for.
const TIMEOUT: Duration = Duration::from_secs(1);

async fn found(check: Check) -> Finding {
    let mut probe = Probe::new(Phase::Ready, check);
    probe.timeout = TIMEOUT;
    run(&probe, &Surroundings::default()).await.finding
}

fn http(url: String) -> Check {
    Check::Http { url, status: None, contains: None }
}

fn websocket(url: String) -> Check {
    Check::WebSocket { url }
}

fn socketio(url: String, namespace: &str) -> Check {
    Check::SocketIo { url, namespace: namespace.to_owned(), auth: None }
}

/// A real server.
fn bowline(polling: bool, websocket: bool) -> SocketAddr {
    let server = Server::builder()
        .listen("127.0.0.1:0".parse().unwrap())
        .shards(1)
        .polling(polling)
        .websocket(websocket)
        .namespace("/", Echo)
        .namespace("/chat", Echo)
        .bind()
        .unwrap();
    let address = server.local_addrs()[0];
    thread::spawn(move || server.run_blocking(std::future::pending()));
    address
}

/// Answers every connection with the same.
fn says(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // The whole request, so that the close is no reset.
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
                request.push(byte[0]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    address
}

/// Listens and never accepts.
fn deaf() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn nobody() -> SocketAddr {
    deaf().1
}

#[tokio::test]
async fn a_server_that_is_there_is_ready_for_each_check() {
    let address = bowline(true, true);
    assert_eq!(found(Check::Tcp(Listen::Tcp(address))).await, Finding::Ready);
    assert_eq!(found(http(format!("http://{address}/health/live"))).await, Finding::Ready);
    let engine = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
    assert_eq!(found(websocket(engine)).await, Finding::Ready);
    for namespace in ["/", "/chat"] {
        let check = socketio(format!("http://{address}"), namespace);
        assert_eq!(found(check).await, Finding::Ready);
    }
    let check = socketio(format!("http://{address}/socket.io/"), "/nowhere");
    let Finding::Failed { words } = found(check).await else { panic!("it is not there") };
    assert!(words.contains("/nowhere is refused: ") && words.contains("Invalid namespace"));
}

#[tokio::test]
async fn a_server_of_one_transport_can_be_joined() {
    for (polling, websocket) in [(true, false), (false, true)] {
        let address = bowline(polling, websocket);
        let check = socketio(format!("http://{address}"), "/chat");
        assert_eq!(found(check).await, Finding::Ready, "polling {polling}");
    }
}

#[tokio::test]
async fn nobody_there_and_nobody_at_home_are_told_apart() {
    let (_listener, silent) = deaf();
    for (address, expected) in [(nobody(), Finding::Refused), (silent, Finding::Deaf)] {
        assert_eq!(found(http(format!("http://{address}/"))).await, expected);
        assert_eq!(found(websocket(format!("ws://{address}/"))).await, expected);
        assert_eq!(found(socketio(format!("http://{address}"), "/")).await, expected);
    }
    // All that TCP can say.
    assert_eq!(found(Check::Tcp(Listen::Tcp(nobody()))).await, Finding::Refused);
    assert_eq!(found(Check::Tcp(Listen::Tcp(silent))).await, Finding::Ready);
    let nowhere = Listen::Unix(Path::new("/nowhere/at/all.sock").to_owned());
    assert_eq!(found(Check::Tcp(nowhere)).await, Finding::Refused);
}

#[tokio::test]
async fn one_that_says_that_it_starts_is_starting() {
    let body = r#"{"status":"starting","components":[{"name":"a","state":"ready","progress":1},{"name":"b","state":"waiting","progress":0}]}"#;
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: {}\r\nretry-after: 1\r\n\r\n{body}",
        body.len()
    );
    let address = says(answer.leak());
    let progress = Some(Progress::Percent(50));
    let expected = Finding::Starting { progress, words: "b waiting".to_owned() };
    assert_eq!(found(http(format!("http://{address}/health/ready"))).await, expected);
    let starting = Finding::Starting { progress: None, words: String::new() };
    assert_eq!(found(websocket(format!("ws://{address}/"))).await, starting);
}

#[tokio::test]
async fn another_answer_is_a_failure_with_its_words() {
    let address = says("HTTP/1.1 500 Oh\r\ncontent-length: 24\r\n\r\nthe database is gone\nlog");
    let Finding::Failed { words } = found(http(format!("http://{address}/"))).await else {
        panic!("500 is a failure")
    };
    assert_eq!(words, "it answered 500: the database is gone");

    let address = says("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nfoo");
    let check = |status, contains: Option<&str>| Check::Http {
        url: format!("http://{address}"),
        status,
        contains: contains.map(str::to_owned),
    };
    assert_eq!(found(check(Some(200), Some("oo"))).await, Finding::Ready);
    assert!(matches!(found(check(Some(204), None)).await, Finding::Failed { .. }));
    assert!(matches!(found(check(None, Some("bar"))).await, Finding::Failed { .. }));
    assert!(matches!(found(websocket(format!("ws://{address}"))).await, Finding::Failed { .. }));
    let no_session = found(socketio(format!("http://{address}"), "/")).await;
    assert!(matches!(no_session, Finding::Failed { .. }), "{no_session}");
    // TLS where there is none.
    let no_tls = found(http(format!("https://{address}/"))).await;
    assert!(matches!(no_tls, Finding::Failed { .. } | Finding::Deaf), "{no_tls}");
    let endless = says("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n");
    assert!(matches!(found(http(format!("http://{endless}/"))).await, Finding::Failed { .. }));
}

#[tokio::test]
async fn a_command_is_judged_by_its_code() {
    let sh = |script: &str| Check::Exec(["/bin/sh", "-c", script].map(Into::into).to_vec());
    assert_eq!(found(sh("exit 0")).await, Finding::Ready);
    for (script, expected) in [
        ("echo 'no disk' >&2; exit 4", "it ended with code 4: no disk"),
        ("kill -9 $$", "signal 9 ended it: it said nothing"),
        ("echo so far; sleep 1000", "it was not done within 1000 ms: so far"),
    ] {
        let words = expected.to_owned();
        assert_eq!(found(sh(script)).await, Finding::Failed { words });
    }
    let missing = found(Check::Exec(vec!["/nowhere/program".into()])).await;
    assert!(matches!(missing, Finding::Failed { .. }));
    for heard in [Check::Notify, Check::Log("ready".to_owned())] {
        assert!(matches!(found(heard).await, Finding::Failed { .. }));
    }
}
