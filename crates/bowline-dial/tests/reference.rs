//! Against the reference server: npm socket.io, in the version that `tests/package.json` pins.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic and print")]

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bowline_dial::{
    AckError, Args, CloseReason, Config, ConnectError, Connection, Event, JoinError, Options,
    Transports, Version, connect,
};

/// No test of this file may take longer.
const DEADLINE: Duration = Duration::from_secs(20);
const ACK: Duration = Duration::from_secs(5);

const ALL: [(Version, Transports); 6] = [
    (Version::V4, Transports::Polling),
    (Version::V4, Transports::WebSocket),
    (Version::V4, Transports::Upgrade),
    (Version::V3, Transports::Polling),
    (Version::V3, Transports::WebSocket),
    (Version::V3, Transports::Upgrade),
];

#[tokio::test]
async fn events_and_acks_go_both_ways() {
    each(async |server, version, transports| {
        let mut connection = server.connect("/", version, transports).await;
        let welcome = json(&connection.next_args().await);
        assert_eq!(welcome[1]["version"], if version == Version::V3 { 3 } else { 4 });
        assert!(welcome[1]["agent"].as_str().unwrap().starts_with("bowline/"));

        connection.emit(args(r#"["echo",1,{"a":["é\n"]}]"#)).await.unwrap();
        assert_eq!(connection.next_args().await.json(), r#"["echoed",1,{"a":["é\n"]}]"#);

        let answer = connection.emit_with_ack(args(r#"["echo","x",null]"#), ACK).await.unwrap();
        assert_eq!(answer.json(), r#"["x",null]"#);

        connection.emit(args(r#"["ask","why"]"#)).await.unwrap();
        let (question, id) = connection.next_question().await;
        assert_eq!(question.json(), r#"["question","why"]"#);
        connection.ack(id, args(r#"["because",2]"#)).await.unwrap();
        assert_eq!(connection.next_args().await.json(), r#"["answered","because",2]"#);

        assert_eq!(connection.close().await, CloseReason::Requested);
    })
    .await;
}

#[tokio::test]
async fn binary_goes_both_ways() {
    each(async |server, version, transports| {
        let mut connection = server.connect("/", version, transports).await;
        connection.next_args().await;
        let bytes = (0..=255).cycle().take(3_000).collect::<Vec<u8>>();
        let attachments = vec![bytes.clone().into(), vec![7].into()];
        let text = r#"["echo",{"_placeholder":true,"num":0},"t",[{"_placeholder":true,"num":1}]]"#;
        let sent = Args::with_attachments(text, attachments.clone()).unwrap();

        connection.emit(sent.clone()).await.unwrap();
        let echoed = connection.next_args().await;
        assert_eq!(echoed.attachments(), attachments);
        assert_eq!(json(&echoed)[2], "t");

        let acked = connection.emit_with_ack(sent, ACK).await.unwrap();
        assert_eq!(acked.attachments(), attachments);

        let ask = Args::with_attachments(
            r#"["ask",{"_placeholder":true,"num":0}]"#,
            vec![bytes.clone().into()],
        );
        connection.emit(ask.unwrap()).await.unwrap();
        let (question, id) = connection.next_question().await;
        assert_eq!(question.attachments(), [bytes]);
        let answer =
            Args::with_attachments(r#"[{"_placeholder":true,"num":0}]"#, vec![vec![1, 2].into()]);
        connection.ack(id, answer.unwrap()).await.unwrap();
        assert_eq!(connection.next_args().await.attachments(), [vec![1, 2]]);
        connection.close().await;
    })
    .await;
}

#[tokio::test]
async fn an_upgrade_loses_nothing_and_keeps_the_order() {
    for version in [Version::V4, Version::V3] {
        within(async |server| {
            let mut connection = server.connect("/", version, Transports::Upgrade).await;
            let mut numbers = Vec::new();
            let mut upgraded = false;
            for from in (0..400).step_by(10) {
                let count = format!(r#"["count",{from},{}]"#, from + 10);
                connection.emit(args(&count)).await.unwrap();
                while numbers.len() < from + 10 {
                    match connection.next_event().await.unwrap() {
                        Event::Upgraded => upgraded = true,
                        Event::Event { args, .. } => {
                            let args = json(&args);
                            if args[0] == "n" {
                                numbers.push(args[1].as_u64().unwrap());
                            }
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
            assert_eq!(numbers, (0..400).collect::<Vec<_>>());
            assert!(upgraded);
            let transport = connection.emit_with_ack(args(r#"["transport"]"#), ACK).await.unwrap();
            assert_eq!(transport.json(), r#"["websocket"]"#);
            connection.close().await;
        })
        .await;
    }
}

#[tokio::test]
async fn the_heartbeat_keeps_quiet_sessions() {
    within(async |server| {
        let mut connections = Vec::new();
        for (version, transports) in ALL {
            connections.push(server.connect("/", version, transports).await);
        }
        // Two of the server's ping intervals and timeouts: without heartbeats all would be gone.
        let closed = async {
            while let Some(event) = connections[0].next_event().await {
                assert!(!matches!(event, Event::Closed { .. }), "{event:?}");
            }
        };
        assert!(tokio::time::timeout(Duration::from_millis(4_200), closed).await.is_err());
        for connection in connections {
            let answer = connection.emit_with_ack(args(r#"["echo",1]"#), ACK).await.unwrap();
            assert_eq!(answer.json(), "[1]");
            connection.close().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_refused_namespace_says_why() {
    each(async |server, version, transports| {
        let refused =
            async |path| match connect(&server.url(path), options(version, transports)).await {
                Err(ConnectError::NotJoined(JoinError::Refused(data))) => {
                    serde_json::from_str::<serde_json::Value>(&data).unwrap()
                }
                other => panic!("{other:?}"),
            };
        let unknown = refused("/nowhere").await;
        let admin = refused("/admin").await;
        // To EIO 3 clients too, although Socket.IO 2 servers sent the bare text.
        assert_eq!(unknown["message"], "Invalid namespace");
        if version == Version::V4 {
            assert_eq!(admin["message"], "not you");
            assert_eq!(admin["data"]["code"], "token-invalid");
        } else {
            assert_eq!(admin["code"], "token-invalid");
        }
    })
    .await;
}

#[tokio::test]
async fn auth_opens_a_namespace_and_namespaces_share_a_session() {
    each(async |server, version, transports| {
        let auth = if version == Version::V4 { r#"{"token":"secret"}"# } else { "token=secret" };
        let mut connection = server.connect("/", version, transports).await;
        connection.next_args().await;
        let admin = connection.handle().with_namespace("/admin");
        admin.join(Some(auth.into())).await.unwrap();
        let joined = loop {
            match connection.next_event().await.unwrap() {
                Event::Joined { namespace, sid, .. } => break (namespace, sid),
                Event::Upgraded => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(joined.0, "/admin");
        assert_ne!(joined.1, connection.sid());
        let answer = admin.emit_with_ack(args(r#"["echo","in"]"#), ACK).await.unwrap();
        assert_eq!(answer.json(), r#"["in"]"#);

        // The server takes it out again; the root stays.
        admin.emit(args(r#"["kick"]"#)).await.unwrap();
        while connection.next_event().await.unwrap() != (Event::Left { namespace: "/admin".into() })
        {
        }
        let error = admin.emit_with_ack(args(r#"["echo"]"#), ACK).await.unwrap_err();
        assert_eq!(error, AckError::Disconnected);
        connection.emit_with_ack(args(r#"["echo"]"#), ACK).await.unwrap();
        connection.close().await;
    })
    .await;
}

#[tokio::test]
async fn what_the_server_ends_is_over() {
    each(async |server, version, transports| {
        let mut connection = server.connect("/", version, transports).await;
        let short = Duration::from_millis(100);
        let error = connection.emit_with_ack(args(r#"["silent"]"#), short).await.unwrap_err();
        assert_eq!(error, AckError::TimedOut);

        connection.emit(args(r#"["cut"]"#)).await.unwrap();
        let reason = loop {
            if let Event::Closed { reason, .. } = connection.next_event().await.unwrap() {
                break reason;
            }
        };
        assert_eq!(reason, CloseReason::TransportClose);
        assert_eq!(connection.next_event().await, None);
        assert!(connection.emit(args(r#"["echo"]"#)).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_in_time() {
    for transports in [Transports::Polling, Transports::WebSocket, Transports::Upgrade] {
        // A port that was free a moment ago.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut options = options(Version::V4, transports);
        options.config.open_timeout = Duration::from_millis(200);
        // It accepts and is deaf.
        let error = connect(&url, options.clone()).await.unwrap_err();
        let deaf = matches!(error, ConnectError::Closed { reason: CloseReason::OpenTimeout, .. });
        assert!(deaf, "{error:?}");
        drop(listener);
        let error = connect(&url, options).await.unwrap_err();
        let refused =
            matches!(error, ConnectError::Closed { reason: CloseReason::TransportError, .. });
        assert!(refused, "{error:?}");
    }
}

#[tokio::test]
async fn a_server_of_something_else_is_an_error() {
    within(async |server| {
        let mut options = options(Version::V4, Transports::Upgrade);
        options.config.path = "/elsewhere/".to_owned();
        options.config.open_timeout = Duration::from_millis(500);
        let error = connect(&server.url("/"), options).await.unwrap_err();
        assert!(matches!(error, ConnectError::Closed { .. }), "{error:?}");
    })
    .await;
}

/// Runs a test for every version and transport, all against one server.
async fn each(test: impl AsyncFn(&Server, Version, Transports)) {
    within(async |server| {
        for (version, transports) in ALL {
            eprintln!("{version:?} {transports:?}");
            test(server, version, transports).await;
        }
    })
    .await;
}

/// Runs a test with a server of its own, in time. Does nothing if Node is not wanted.
async fn within(test: impl AsyncFnOnce(&Server)) {
    if env::var_os("BOWLINE_SKIP_NODE").is_some() {
        eprintln!("skipped, as BOWLINE_SKIP_NODE is set");
        return;
    }
    let server = Server::start();
    tokio::time::timeout(DEADLINE, test(&server)).await.expect("the test took too long");
}

fn options(version: Version, transports: Transports) -> Options {
    Options { config: Config { version, transports, ..Config::default() }, ..Options::default() }
}

fn args(json: &str) -> Args {
    Args::new(json).unwrap()
}

fn json(args: &Args) -> serde_json::Value {
    args.parse().unwrap()
}

/// The server process; ends with the test.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let package = root.join("../../tests/package.json");
        let installed = root.join("../../tests/node_modules/socket.io/package.json");
        assert!(
            installed.exists(),
            "{} is missing: `cargo xtask test` installs it, or run `npm ci` in tests/; \
             BOWLINE_SKIP_NODE=1 skips the tests that need it",
            installed.display()
        );
        let mut process = Command::new("node")
            .arg(root.join("tests/reference.mjs"))
            .arg(package.canonicalize().unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect(
                "`node` could not be started; BOWLINE_SKIP_NODE=1 skips the tests that need it",
            );
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("the reference server printed no port");
        Self { process, port }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    async fn connect(&self, path: &str, version: Version, transports: Transports) -> Dialled {
        Dialled(connect(&self.url(path), options(version, transports)).await.unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A connection, and how the tests listen to it.
struct Dialled(Connection);

impl std::ops::Deref for Dialled {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl std::ops::DerefMut for Dialled {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}

impl Dialled {
    /// The next event from the server that asks for no ack.
    async fn next_args(&mut self) -> Args {
        match self.next_from_server().await {
            (args, None) => args,
            (args, Some(id)) => panic!("{args:?} asks for ack {id}"),
        }
    }

    /// The next event from the server, which asks for an ack.
    async fn next_question(&mut self) -> (Args, u64) {
        let (args, id) = self.next_from_server().await;
        (args, id.expect("it asks for an ack"))
    }

    async fn next_from_server(&mut self) -> (Args, Option<u64>) {
        loop {
            match self.0.next_event().await.expect("the session is open") {
                Event::Event { args, ack, .. } => return (args, ack),
                Event::Upgraded => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn close(self) -> CloseReason {
        self.0.close().await
    }
}
