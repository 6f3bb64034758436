//! From figures to receivers, over real sockets and a real Alertmanager.

use std::{
    net::TcpListener as StdListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value as Json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time,
};

use super::*;
use crate::config::{Config, Url};

const ALERTMANAGER: &str = "/usr/bin/prometheus-alertmanager";

/// How long anything may take until a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A watched server of which the component `models` is set by hand.
struct Watched {
    board: Arc<Board>,
    state: Arc<Mutex<f64>>,
    config: watch::Sender<Arc<Config>>,
    tasks: JoinSet<()>,
}

impl Watched {
    fn start(alerts: config::Alerts) -> Self {
        let identity = BTreeMap::from([("instance".to_owned(), "test:1".to_owned())]);
        let board = Arc::new(Board::new(identity));
        let state = Arc::new(Mutex::new(2.0));
        let (config, current) = watch::channel(Arc::new(with(alerts)));
        let mut tasks = JoinSet::new();
        let (seen, figures) = (Arc::clone(&board), Arc::clone(&state));
        tasks.spawn(async move {
            let gather = || async {
                vec![Sample {
                    metric: Metric::ComponentState,
                    labels: vec!["models".into()],
                    value: Value::Number(*figures.lock().unwrap()),
                }]
            };
            watch(&seen, current, Duration::from_millis(20), gather).await;
        });
        Self { board, state, config, tasks }
    }

    fn fail(&self) {
        *self.state.lock().unwrap() = 3.0;
    }

    fn mend(&self) {
        *self.state.lock().unwrap() = 2.0;
    }

    fn delivered(&self, receiver: Receiver, outcome: Outcome) -> u64 {
        self.board.deliveries[receiver as usize][outcome as usize].load(Relaxed)
    }
}

fn with(alerts: config::Alerts) -> Config {
    Config { alerts, ..Config::default() }
}

/// Asks again until something is so.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let found = time::timeout(PATIENCE, async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            time::sleep(Duration::from_millis(20)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("{what} has not happened"))
}

/// A webhook that answers with the statuses it is given, then with 200. Keeps what it was sent.
struct Hook {
    url: String,
    heard: Arc<Mutex<Vec<Json>>>,
    _task: JoinSet<()>,
}

impl Hook {
    async fn start(statuses: &'static [u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?key=hidden", listener.local_addr().unwrap());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let letters = Arc::clone(&heard);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut statuses = statuses.iter();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (head, body) = request(&mut stream).await;
                assert!(head.starts_with("POST /hook?key=hidden HTTP/1.1\r\n"), "{head}");
                letters.lock().unwrap().push(serde_json::from_str(&body).unwrap());
                let status = statuses.next().unwrap_or(&200);
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nno");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self { url, heard, _task: task }
    }

    /// What it has heard, as `id status`, once there are so many.
    async fn heard(&self, count: usize) -> Vec<Json> {
        until("so many letters", async || {
            let heard = self.heard.lock().unwrap().clone();
            (heard.len() >= count).then_some(heard)
        })
        .await
    }
}

/// Reads a request with a length, and returns its head and its body.
async fn request(stream: &mut TcpStream) -> (String, String) {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
            });
            if body.len() >= length.unwrap_or(0) {
                return (format!("{head}\r\n"), body.to_owned());
            }
        }
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "cut off: {text}");
    }
}

#[tokio::test]
async fn a_webhook_hears_that_an_alert_fires_and_that_it_is_resolved() {
    let hook = Hook::start(&[]).await;
    let watched = Watched::start(config::Alerts {
        webhook_url: Some(Url::new(hook.url.clone())),
        ..config::Alerts::default()
    });
    watched.fail();
    let firing = hook.heard(1).await.remove(0);
    assert_eq!(firing["status"], "firing");
    assert_eq!(firing["name"], "BowlineComponentFailed");
    assert_eq!(firing["severity"], "critical");
    assert_eq!(firing["summary"], "The component \"models\" failed");
    assert_eq!(firing["labels"]["component"], "models");
    assert_eq!(firing["labels"]["instance"], "test:1");
    assert_eq!(firing["until"], Json::Null);
    assert_eq!(watched.board.firing()[0].name, "BowlineComponentFailed");

    watched.mend();
    let resolved = hook.heard(2).await.remove(1);
    assert_eq!(resolved["status"], "resolved");
    assert_eq!(resolved["since"], firing["since"]);
    assert!(resolved["until"].is_string());
    assert!(watched.board.firing().is_empty());
}

#[tokio::test]
async fn a_letter_is_sent_again_until_the_webhook_takes_it() {
    let hook = Hook::start(&[503, 500]).await;
    let watched = Watched::start(config::Alerts {
        webhook_url: Some(Url::new(hook.url.clone())),
        ..config::Alerts::default()
    });
    watched.fail();
    let heard = hook.heard(3).await;
    assert!(heard.iter().all(|letter| letter == &heard[0]), "{heard:?}");
    until("the count of deliveries", async || {
        (watched.delivered(Receiver::Webhook, Outcome::Accepted) == 1).then_some(())
    })
    .await;
    assert_eq!(watched.delivered(Receiver::Webhook, Outcome::Failed), 2);
}

#[tokio::test]
async fn what_a_webhook_refuses_is_given_up() {
    let hook = Hook::start(&[404]).await;
    let watched = Watched::start(config::Alerts {
        webhook_url: Some(Url::new(hook.url.clone())),
        ..config::Alerts::default()
    });
    watched.fail();
    hook.heard(1).await;
    watched.mend();
    let heard = hook.heard(2).await;
    assert_eq!(heard[1]["status"], "resolved");
    assert_eq!(watched.delivered(Receiver::Webhook, Outcome::Refused), 1);
}

#[tokio::test]
async fn a_receiver_that_a_reload_names_hears_what_fires() {
    let watched = Watched::start(config::Alerts::default());
    watched.fail();
    until("the alert", async || (!watched.board.firing().is_empty()).then_some(())).await;
    let hook = Hook::start(&[]).await;
    watched.config.send_replace(Arc::new(with(config::Alerts {
        webhook_url: Some(Url::new(hook.url.clone())),
        ..config::Alerts::default()
    })));
    assert_eq!(hook.heard(1).await[0]["status"], "firing");
}

#[tokio::test]
async fn a_reload_reads_the_rules_file_again_and_keeps_what_was_when_it_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.toml");
    fs::write(&path, "").unwrap();
    let alerts = config::Alerts { rules_file: Some(path.clone()), ..config::Alerts::default() };
    let watched = Watched::start(alerts.clone());
    watched.fail();
    let fires = |name: &'static str| {
        let board = Arc::clone(&watched.board);
        async move || {
            let firing = board.firing();
            let is = firing.iter().any(|alert| alert.severity == name);
            is.then_some(())
        }
    };
    until("the alert", fires("critical")).await;
    fs::write(&path, "[rules.BowlineComponentFailed]\nseverity = \"info\"\n").unwrap();
    watched.config.send_replace(Arc::new(with(alerts.clone())));
    until("the alert as the file has it", fires("info")).await;
    fs::write(&path, "[rules.BowlineComponentFailed]\nseverity = \"loud\"\n").unwrap();
    assert!(load(&alerts).is_err());
    // The webhook that comes with it shows that the reload has happened.
    let hook = Hook::start(&[]).await;
    let webhook_url = Some(Url::new(hook.url.clone()));
    watched.config.send_replace(Arc::new(with(config::Alerts { webhook_url, ..alerts })));
    assert_eq!(hook.heard(1).await[0]["severity"], "info");
    assert_eq!(watched.board.firing()[0].severity, "info");
}

#[tokio::test]
async fn the_metrics_tell_what_fires_and_what_was_delivered() {
    let mut watched = Watched::start(config::Alerts::default());
    watched.fail();
    until("the alert", async || (!watched.board.firing().is_empty()).then_some(())).await;
    let text = metrics::text(&watched.board.samples());
    for line in [
        "bowline_alerts_firing{alert=\"BowlineComponentFailed\"} 1\n",
        "bowline_alerts_firing{alert=\"BowlineAcceptErrors\"} 0\n",
        "bowline_alert_deliveries_total{receiver=\"webhook\",outcome=\"accepted\"} 0\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    drop(watched.config);
    // Without a configuration there is nothing to watch.
    time::timeout(PATIENCE, watched.tasks.join_next()).await.unwrap();
}

/// An Alertmanager of its own, on a free port.
struct RealAlertmanager {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl RealAlertmanager {
    fn start(port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("alertmanager.yml");
        fs::write(&config, "route: { receiver: none }\nreceivers: [{ name: none }]\n").unwrap();
        let child = Command::new(ALERTMANAGER)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, port, _folder: folder }
    }

    /// What it lists as firing.
    async fn alerts(&self) -> Option<Vec<Json>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        let ask = "GET /api/v2/alerts HTTP/1.0\r\nhost: localhost\r\n\r\n";
        stream.write_all(ask.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }
}

impl Drop for RealAlertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_real_alertmanager_hears_that_an_alert_fires_and_that_it_is_resolved() {
    if !Path::new(ALERTMANAGER).exists() {
        assert!(
            std::env::var_os("CI").is_none(),
            "{ALERTMANAGER} is not there: `cargo xtask test debian` installs it"
        );
        eprintln!("SKIPPED: no {ALERTMANAGER}, `cargo xtask test debian` installs it");
        return;
    }
    // The port is free when it is asked for, and nobody else is likely to take it.
    let port = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let watched = Watched::start(config::Alerts {
        alertmanager_url: Some(Url::new(format!("http://127.0.0.1:{port}/"))),
        ..config::Alerts::default()
    });
    // It fires before anybody is there to hear it.
    watched.fail();
    until("an attempt that fails", async || {
        (watched.delivered(Receiver::Alertmanager, Outcome::Failed) > 0).then_some(())
    })
    .await;
    let alertmanager = RealAlertmanager::start(port);
    let alert = until("the alert at the Alertmanager", async || {
        alertmanager.alerts().await?.into_iter().next()
    })
    .await;
    assert_eq!(alert["labels"]["alertname"], "BowlineComponentFailed");
    assert_eq!(alert["labels"]["severity"], "critical");
    assert_eq!(alert["labels"]["component"], "models");
    assert_eq!(alert["annotations"]["summary"], "The component \"models\" failed");
    assert!(alert["annotations"]["remedy"].as_str().unwrap().contains("bowline status"));
    assert_eq!(alert["status"]["state"], "active");

    watched.mend();
    until("the end of the alert at the Alertmanager", async || {
        alertmanager.alerts().await?.is_empty().then_some(())
    })
    .await;
    assert_eq!(watched.delivered(Receiver::Alertmanager, Outcome::Refused), 0);
}
