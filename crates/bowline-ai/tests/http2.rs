//! The gateway before a provider that speaks HTTP/2: many requests share a connection, and what befalls one of them or
//! the connection is nothing that the others notice.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[expect(dead_code, reason = "the program needs more of it")]
#[path = "../examples/mock_provider/server.rs"]
mod server;

use std::time::Duration;

use bowline_ai::{
    call::{Answer, Config, Gateway, ModelConfig, ProviderConfig, Request, Streamed, Whole},
    route::{Policy, TargetId},
    wire::{Dialect, Surface},
};
use bowline_dial::{LaneFigures, LaneOptions, Trust};
use server::{Mock, Mode};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

/// No wait of this file may take longer.
const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn many_requests_share_one_connection_and_each_is_charged_with_its_own_time() {
    let world = World::new(256).await;
    let mut asking = JoinSet::new();
    for number in 0..40 {
        let (gateway, slow) = (world.gateway.clone(), number % 4 == 0);
        asking.spawn(async move {
            let mode = if slow { "wait-400" } else { "ok" };
            read(gateway.run(request(mode, number % 2 == 0)).await).await
        });
    }
    for text in asking.join_all().await {
        assert!(text.contains("token7") && !text.contains("\"error\""), "{text}");
    }
    for record in world.gateway.recent(100) {
        let [attempt] = &record.attempts[..] else { panic!("{record:?}") };
        let slow = &*record.requested == "wait-400";
        assert_eq!(slow, attempt.took >= Duration::from_millis(400), "{record:?}");
    }
    assert_eq!((world.stat("requests"), world.stat("connections")), (40, 1));
    world.is_quiet().await;
    let figures = world.figures();
    assert_eq!((figures.open, figures.idle, figures.opened), (1, 1, 1));
}

#[tokio::test]
async fn the_reset_of_one_stream_leaves_the_others() {
    let world = World::new(256).await;
    let mut running = Vec::new();
    for _ in 0..5 {
        running.push(world.stream("ok-20x20").await);
    }
    // Before its head, behind it, and in the middle of a plain answer.
    for (mode, stream, outcome) in
        [("reset", true, "broken"), ("cut", true, "broken"), ("cut", false, "broken")]
    {
        let text = read(world.gateway.run(request(mode, stream)).await).await;
        assert!(text.contains("\"error\""), "{text}");
        assert_eq!(world.gateway.recent(1)[0].outcome.name(), outcome, "{mode} {stream}");
    }
    // A client that leaves resets its own.
    drop(running.pop());
    world.until("cancelled", 1).await;
    for stream in running {
        let text = read(Answer::Stream(stream)).await;
        assert!(text.contains("token19") && text.ends_with("data: [DONE]\n\n"), "{text}");
    }
    assert_eq!(world.stat("connections"), 1);
    world.is_quiet().await;
}

#[tokio::test]
async fn a_connection_that_takes_no_more_lets_its_streams_end() {
    let world = World::new(256).await;
    let mut running = Vec::new();
    for _ in 0..5 {
        running.push(world.stream("ok-20x20").await);
    }
    world.mock.say_goodbye();
    // Whoever asks meanwhile has an answer, and when the word has come, from another connection.
    let asking = async {
        while world.stat("connections") == 1 {
            let text = read(world.gateway.run(request("ok", false)).await).await;
            assert!(text.contains("token7"), "{text}");
        }
    };
    timeout(DEADLINE, asking).await.unwrap();
    for stream in running {
        let text = read(Answer::Stream(stream)).await;
        assert!(text.contains("token19") && text.ends_with("data: [DONE]\n\n"), "{text}");
    }
    assert_eq!(world.stat("connections"), 2);
    world.until("open_connections", 1).await;
    world.is_quiet().await;
    assert_eq!(world.figures().open, 1);
}

#[tokio::test]
async fn requests_beyond_what_the_connections_carry_are_seen() {
    let world = World::new(1).await;
    let mut running = Vec::new();
    for _ in 0..100 {
        running.push(world.stream("stall").await);
    }
    assert_eq!((world.figures().in_use, world.figures().waited), (100, 0));
    running.push(world.stream("stall").await);
    // The one connection takes it all the same, since it may be the only one.
    let figures = world.figures();
    assert_eq!((figures.in_use, figures.waited, figures.open), (101, 1, 1));
    drop(running);
    world.is_quiet().await;
    assert_eq!((world.stat("connections"), world.figures().in_use), (1, 0));
}

/// A gateway whose models are modes of a mock that speaks HTTP/2.
struct World {
    gateway: Gateway,
    mock: Mock,
}

impl World {
    async fn new(connections_max: usize) -> Self {
        let mock = Mock::start_http2("127.0.0.1:0", Mode::default()).await.unwrap();
        let certificate = mock.certificate().unwrap().clone();
        let models =
            ["ok", "ok-20x20", "wait-400", "reset", "cut", "stall"].map(|mode| ModelConfig {
                name: mode.into(),
                targets: vec![TargetId::new("a", format!("mock:{mode}"))],
            });
        let mut config = Config {
            policy: Policy { retries: 0, ..Policy::default() },
            providers: vec![ProviderConfig {
                lanes: LaneOptions { connections_max, ..LaneOptions::default() },
                trust: Trust::Only(certificate),
                ..ProviderConfig::new("a", Dialect::OpenAi, format!("{}/v1", mock.url()))
            }],
            models: models.to_vec(),
            records_max: 100,
            ..Config::default()
        };
        config.policy.breaker.failures = 1_000;
        config.limits.providers.insert("a".into(), 1_000);
        Self { gateway: Gateway::new(config).unwrap(), mock }
    }

    async fn stream(&self, mode: &str) -> Streamed {
        match timeout(DEADLINE, self.gateway.run(request(mode, true))).await.unwrap() {
            Answer::Stream(stream) => stream,
            Answer::Whole(whole) => panic!("{whole:?}"),
        }
    }

    fn figures(&self) -> LaneFigures {
        self.gateway.pools()[0].figures
    }

    fn stat(&self, name: &str) -> u64 {
        self.mock.stats()[name].as_u64().unwrap()
    }

    async fn until(&self, name: &str, wanted: u64) {
        let waiting = async {
            while self.stat(name) != wanted {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("{}", self.mock.stats()));
    }

    /// Nothing is held or under way any more.
    async fn is_quiet(&self) {
        for gauge in self.gateway.gauges() {
            assert_eq!((gauge.held, gauge.queued), (0, 0), "{gauge:?}");
        }
        self.until("answering", 0).await;
        self.until("open_streams", 0).await;
    }
}

fn request(mode: &str, stream: bool) -> Request {
    let body = format!(
        r#"{{"model":"{mode}","messages":[{{"role":"user","content":"hi"}}],"stream":{stream}}}"#
    );
    Request::new("asked", Surface::ChatCompletions, body.into())
}

async fn read(answer: Answer) -> String {
    let mut text = Vec::new();
    match answer {
        Answer::Whole(Whole { body, .. }) => text.extend_from_slice(&body),
        Answer::Stream(mut stream) => {
            while let Some(piece) = timeout(DEADLINE, stream.next()).await.unwrap() {
                text.extend_from_slice(&piece);
            }
        }
    }
    String::from_utf8(text).unwrap()
}
