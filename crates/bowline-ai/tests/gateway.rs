//! The gateway against a mock provider that fails as it is asked to: what clients get, what is recorded, and that
//! nothing is left behind.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[expect(dead_code, reason = "the program needs more of it")]
#[path = "../examples/mock_provider/server.rs"]
mod server;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bowline_ai::{
    call::{
        Answer, Config, Event, Gateway, ModelConfig, ProviderConfig, Request, Slow, Streamed,
        Watch, Whole,
    },
    keys::{ClientKey, Digest, KeyLimits},
    memory::Budget,
    permits::{Limits, Priority, Scope},
    record::{Figures, RequestRecord},
    route::{BreakerState, Policy, TargetId, TargetState, Timeouts},
    wire::{Dialect, Surface},
};
use bowline_dial::Trust;
use http::{HeaderName, HeaderValue};
use serde_json::Value;
use server::{Mock, Mode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
    time::{sleep, timeout},
};

/// No wait of this file may take longer.
const DEADLINE: Duration = Duration::from_secs(20);

/// The timers of the tests: first content and idle.
const SHORT: Duration = Duration::from_millis(250);

#[tokio::test]
async fn every_answer_is_charged_to_the_provider_that_gave_it() {
    let world = World::with(&["fail-slow-300", "ok"], |config| {
        config.policy.timeouts = Timeouts::default();
    })
    .await;
    for batch in 0..10 {
        let mut asking = JoinSet::new();
        for index in 0..10 {
            let (gateway, stream) = (world.gateway.clone(), index % 2 == 0);
            asking.spawn(async move {
                let answer = gateway.run(request(&format!("r{batch}{index}"), stream)).await;
                collect(answer).await
            });
        }
        for read in asking.join_all().await {
            assert_eq!((read.status, &*read.served), (200, "b/mock:ok"), "{}", read.text);
            assert!(read.attempts.starts_with("a;server-error;"), "{}", read.attempts);
            assert!(read.attempts.contains("ms, b;ok;"), "{}", read.attempts);
        }
    }
    let (mut slow, mut fast) = (Vec::new(), Vec::new());
    for record in world.gateway.recent(100) {
        let [first, second] = &record.attempts[..] else { panic!("{record:?}") };
        slow.push(first.took);
        fast.push(second.took);
        assert!(record.fell_back());
        assert!(record.took >= first.took + second.took);
    }
    let mean = |times: &[Duration]| times.iter().sum::<Duration>() / times.len() as u32;
    assert_eq!(slow.len(), 100);
    println!("A {:?}, B {:?}", mean(&slow), mean(&fast));
    assert!(mean(&slow) >= Duration::from_millis(300));
    // Not a figure of speed: what is asserted is that A's 300 ms are not B's.
    assert!(mean(&fast) < mean(&slow) / 2, "{:?}", mean(&fast));
    world.is_quiet().await;
}

/// A mode of the mock, and what becomes of a plain request and of a streamed one: how the first attempt ends, and who
/// serves in the end. `-` is nobody: the client gets an error. `!` behind it: in a frame, after content.
const MATRIX: &[(&str, [(&str, &str); 2])] = &[
    ("429", [("rate-limited", "b"), ("rate-limited", "b")]),
    ("429-after-1", [("rate-limited", "b"), ("rate-limited", "b")]),
    ("500-once", [("server-error", "b"), ("server-error", "b")]),
    ("503", [("overloaded", "b"), ("overloaded", "b")]),
    ("401", [("auth", "b"), ("auth", "b")]),
    ("402", [("billing", "b"), ("billing", "b")]),
    ("404", [("not-found", "b"), ("not-found", "b")]),
    ("400", [("bad-request", "-"), ("bad-request", "-")]),
    ("reset", [("broken", "b"), ("broken", "b")]),
    ("close", [("broken", "b"), ("broken", "b")]),
    ("silent", [("timeout", "b"), ("timeout", "b")]),
    ("headers-only", [("timeout", "b"), ("timeout", "b")]),
    ("slow-first-500", [("ok", "a"), ("timeout", "b")]),
    ("cut", [("truncated", "b"), ("truncated", "-!")]),
    ("stall", [("timeout", "b"), ("timeout", "-!")]),
    ("malformed", [("malformed", "b"), ("malformed", "-!")]),
    ("no-done", [("ok", "a"), ("ok", "a")]),
    ("no-finish", [("ok", "a"), ("truncated", "-!")]),
    ("error-frame", [("server-error", "b"), ("server-error", "-!")]),
    ("early-error", [("server-error", "b"), ("server-error", "b")]),
    ("keepalive-only", [("timeout", "b"), ("timeout", "b")]),
    ("drip-100", [("timeout", "b"), ("slow", "-!")]),
    ("too-long", [("too-long", "b"), ("too-long", "b")]),
    ("filter", [("refused", "-"), ("refused", "-")]),
    ("filter-late", [("ok", "a"), ("ok", "a")]),
    ("flap", [("server-error", "b"), ("server-error", "b")]),
    ("reasoning", [("ok", "a"), ("ok", "a")]),
    ("tools", [("ok", "a"), ("ok", "a")]),
    ("glm-1302", [("rate-limited", "b"), ("rate-limited", "b")]),
    ("glm-1305", [("overloaded", "b"), ("overloaded", "b")]),
    ("glm-1308", [("rate-limited", "b"), ("rate-limited", "b")]),
    ("glm-1113", [("billing", "b"), ("billing", "b")]),
    ("glm-1301", [("refused", "-"), ("refused", "-")]),
];

#[tokio::test]
async fn each_fault_ends_as_it_should_and_leaves_nothing_behind() {
    let mut wrong = Vec::new();
    let mut playing = JoinSet::new();
    for (mode, expected) in MATRIX {
        for (stream, expected) in [false, true].into_iter().zip(expected) {
            playing.spawn(async move {
                let world = World::of(&[mode, "ok"]).await;
                let read = world.ask(stream).await;
                let record = world.record();
                let first = record.attempts[0].outcome.name();
                let served = match (read.served.split('/').next(), read.failed) {
                    (_, true) if read.content => "-!",
                    (_, true) => "-",
                    (served, false) => served.unwrap_or_default(),
                };
                world.is_quiet().await;
                let got = (first, served);
                (got != *expected).then(|| {
                    let read = &read.text[..read.text.len().min(200)];
                    let words = record.attempts[0].words.clone().unwrap_or_default();
                    format!("{mode} stream={stream}: {got:?}, not {expected:?}: {words}: {read}")
                })
            });
        }
    }
    while let Some(played) = playing.join_next().await {
        wrong.extend(played.unwrap());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_client_that_leaves_ends_everything_at_once() {
    let mut playing = JoinSet::new();
    for (mode, _) in MATRIX {
        for stream in [false, true] {
            playing.spawn(async move {
                let world = World::of(&[mode, "wait-10000"]).await;
                // It leaves while nobody has answered, or in the middle of the stream.
                let asked = world.gateway.run(request("gone", stream));
                if let Ok(Answer::Stream(mut stream)) = timeout(SHORT / 4, asked).await {
                    let _ = timeout(SHORT / 4, stream.next()).await;
                }
                world.is_quiet().await;
                let record = world.record();
                if record.outcome.name() == "cancelled" {
                    assert_eq!(record.status, 499, "{mode} {stream}");
                }
            });
        }
    }
    while let Some(played) = playing.join_next().await {
        played.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_recorded_with_the_tokens_so_far() {
    let world = World::of(&["ok-200x20"]).await;
    let mut stream = world.stream().await;
    let mut pieces = Vec::new();
    while pieces.iter().map(|piece: &String| piece.matches("token").count()).sum::<usize>() < 3 {
        pieces.push(String::from_utf8(stream.next().await.unwrap().to_vec()).unwrap());
    }
    drop(stream);
    let record = world.record();
    assert_eq!((record.status, record.outcome.name()), (499, "cancelled"));
    let [attempt] = &record.attempts[..] else { panic!("{record:?}") };
    assert_eq!(attempt.outcome.name(), "cancelled");
    assert!(attempt.usage.output >= 3 && attempt.usage.output < 100, "{:?}", attempt.usage);
    assert!(attempt.usage.estimated);
    world.is_quiet().await;
    assert_eq!(world.mock.stats()["cancelled"], 1);
}

#[tokio::test]
async fn who_waits_for_a_permit_leaves_the_queue_or_gets_it() {
    let world = World::with(&["ok-50x10"], |config| config.limits.all = 1).await;
    let first = world.stream().await;
    let (gateway, ask) = (world.gateway.clone(), request("queued", false));
    let mut queued = Box::pin(async move { gateway.run(ask).await });
    assert!(timeout(SHORT / 5, &mut queued).await.is_err());
    assert_eq!(world.gauge(&Scope::All), (1, 1));
    // One waits and leaves, the other is let in when the first has gone.
    assert!(timeout(SHORT / 5, world.gateway.run(request("leaves", false))).await.is_err());
    assert_eq!(world.gauge(&Scope::All), (1, 1));
    assert_eq!(world.gateway.find("leaves").unwrap().status, 499);
    drop(first);
    assert_eq!(collect(queued.await).await.status, 200);
    world.is_quiet().await;
}

#[tokio::test]
async fn a_provider_is_asked_by_no_more_than_it_allows() {
    let world = World::with(&["ok-5x20"], |config| {
        config.limits.providers.insert("a".into(), 2);
    })
    .await;
    let mut asking = JoinSet::new();
    for index in 0..8 {
        let gateway = world.gateway.clone();
        asking.spawn(
            async move { collect(gateway.run(request(&index.to_string(), true)).await).await },
        );
    }
    while !asking.is_empty() {
        assert!(world.mock.stats()["answering"].as_u64().unwrap() <= 2);
        if let Ok(Some(read)) = timeout(Duration::from_millis(3), asking.join_next()).await {
            assert!(!read.unwrap().failed);
        }
    }
    world.is_quiet().await;
}

#[tokio::test]
async fn headers_go_when_they_have_been_held_for_long_and_others_are_asked_all_the_same() {
    let hold = |config: &mut Config| config.policy.hold_headers = SHORT / 5;
    let world = World::with(&["keepalive-only", "ok"], hold).await;
    let mut stream = world.stream().await;
    assert!(!stream.headers().contains_key("bowline-served-by"));
    let first = stream.next().await.unwrap();
    assert!(first.starts_with(b": "), "{first:?}");
    let read = collect(Answer::Stream(stream)).await;
    assert!(read.content && !read.failed, "{}", read.text);
    assert_eq!(world.record().served().unwrap().to_string(), "b/mock:ok");
    world.is_quiet().await;

    let world = World::with(&["silent", "fail-slow-100"], hold).await;
    let read = world.ask(true).await;
    assert!(!read.content && read.failed && read.status == 200, "{}", read.text);
    assert_eq!(world.record().outcome.name(), "server-error");
    world.is_quiet().await;
}

#[tokio::test]
async fn a_client_that_reads_slowly_is_not_the_providers_fault() {
    // What counts is how long it was waited for, but for the total.
    let patient = |config: &mut Config| {
        config.policy.timeouts.total = DEADLINE;
        config.policy.timeouts.idle = SHORT * 6;
    };
    let world = World::with(&["ok-40x1"], patient).await;
    let mut stream = world.stream().await;
    let mut text = String::new();
    while let Some(piece) = stream.next().await {
        text.push_str(std::str::from_utf8(&piece).unwrap());
        if text.len() < 600 {
            sleep(SHORT * 7).await;
        }
    }
    assert!(text.contains("token39 ") && text.ends_with("data: [DONE]\n\n"), "{text}");
    assert_eq!(world.record().outcome.name(), "ok");
    world.is_quiet().await;
}

#[tokio::test]
async fn a_client_that_reads_slowly_is_not_charged_to_the_provider() {
    let total = |config: &mut Config| config.policy.timeouts.total = DEADLINE;
    let world = World::with(&["ok-40x1"], total).await;
    let mut stream = world.stream().await;
    stream.next().await.unwrap();
    sleep(SHORT * 4).await;
    assert!(!collect(Answer::Stream(stream)).await.failed);
    let record = world.record();
    assert!(record.took >= SHORT * 4, "{record:?}");
    assert!(record.attempts[0].took < SHORT * 3, "{record:?}");
    // Nor to the gateway.
    assert!(record.client_time() >= SHORT * 3 && record.own_time() < SHORT, "{record:?}");
    world.is_quiet().await;
}

#[tokio::test]
async fn a_provider_is_not_to_blame_for_the_time_that_its_client_took() {
    let world = World::with(&["ok-200x10"], |config| config.policy.breaker.failures = 1).await;
    let mut stream = world.stream().await;
    stream.next().await.unwrap();
    sleep(SHORT * 3).await;
    let read = collect(Answer::Stream(stream)).await;
    assert!(read.failed && read.text.contains("upstream_timeout"), "{}", read.text);
    assert_eq!(world.record().outcome.name(), "timeout");
    assert_eq!(world.gateway.states()[0].state, BreakerState::Closed);
    world.is_quiet().await;
}

#[tokio::test]
async fn clients_that_are_in_a_hurry_do_not_open_the_breaker_for_others() {
    let world = World::with(&["wait-3000"], |config| {
        config.policy.timeouts.total = DEADLINE;
        config.policy.breaker.failures = 2;
    })
    .await;
    for _ in 0..4 {
        let mut asked = request("hurry", false);
        asked.client_timeout = Some(SHORT / 2);
        assert_eq!(collect(world.gateway.run(asked).await).await.status, 504);
        assert_eq!(world.record().attempts.len(), 1);
    }
    assert_eq!(world.gateway.states()[0].state, BreakerState::Closed);
    world.is_quiet().await;

    // A provider that has all of its time does.
    let world = World::with(&["silent"], |config| {
        config.policy.timeouts.total = SHORT / 2;
        config.policy.breaker.failures = 2;
    })
    .await;
    for _ in 0..2 {
        assert_eq!(world.ask(false).await.status, 504);
    }
    assert_eq!(world.gateway.states()[0].state, BreakerState::Open);
    world.is_quiet().await;
}

#[tokio::test]
async fn who_waits_for_a_permit_does_not_ask_a_provider_that_was_given_up_meanwhile() {
    let world = World::with(&["fail-slow-200"], |config| {
        config.limits.providers.insert("a".into(), 1);
        config.policy.breaker.failures = 1;
    })
    .await;
    let mut asking = JoinSet::new();
    for index in 0..5 {
        let gateway = world.gateway.clone();
        asking.spawn(async move {
            collect(gateway.run(request(&format!("w{index}"), false)).await).await
        });
    }
    assert!(asking.join_all().await.iter().all(|read| read.failed));
    assert_eq!(world.mock.stats()["requests"], 1);
    world.is_quiet().await;
}

#[tokio::test]
async fn a_connection_never_outlives_its_permit() {
    // It says all, and then does not end.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut provider = JoinSet::new();
    provider.spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let choice = r#"[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]"#;
        let event = format!("data: {{\"choices\":{choice}}}\n\ndata: [DONE]\n\n");
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
            transfer-encoding: chunked\r\n\r\n";
        let answer = format!("{head}{:x}\r\n{event}\r\n", event.len());
        connection.write_all(answer.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        let _ = connection.read_to_end(&mut read).await;
    });
    let world = World::with(&["ok"], |config| {
        config.providers[0].base_url = format!("http://{address}/v1");
    })
    .await;
    let in_use = || world.gateway.pools()[0].figures.in_use;
    let mut stream = world.stream().await;
    let mut text = String::new();
    while !text.contains("[DONE]") {
        text.push_str(std::str::from_utf8(&stream.next().await.unwrap()).unwrap());
    }
    assert_eq!((world.gauge(&Scope::All).0, in_use()), (1, 1), "{text}");
    assert!(stream.next().await.is_none());
    assert_eq!((world.gauge(&Scope::All).0, in_use()), (0, 0));
    assert_eq!(world.record().outcome.name(), "ok");
    // It is left.
    timeout(DEADLINE, provider.join_all()).await.unwrap();
}

#[tokio::test]
async fn a_fallback_has_time_left_whatever_the_first_does() {
    let world = World::with(&["silent", "ok"], |config| {
        config.policy.deadline = Duration::from_secs(1);
        config.policy.timeouts = Timeouts::default();
    })
    .await;
    let read = world.ask(false).await;
    assert_eq!((read.status, &*read.served), (200, "b/mock:ok"), "{}", read.attempts);
    assert!(world.record().took < Duration::from_secs(1));
    world.is_quiet().await;

    // The client's own patience counts as well.
    let world =
        World::with(&["silent", "ok"], |config| config.policy.timeouts = Timeouts::default()).await;
    let mut asked = request("hurry", false);
    asked.client_timeout = Some(Duration::from_secs(1));
    let read = collect(world.gateway.run(asked).await).await;
    assert_eq!((read.status, &*read.served), (200, "b/mock:ok"), "{}", read.attempts);
    world.is_quiet().await;
}

#[tokio::test]
async fn an_exhausted_chain_says_so() {
    let world = World::of(&["503", "429-after-7"]).await;
    let answer = world.gateway.run(request("lost", false)).await;
    let Answer::Whole(Whole { status, headers, body }) = answer else { panic!("{answer:?}") };
    assert!(status.is_client_error() || status.is_server_error());
    assert_eq!(headers["x-should-retry"], "false");
    assert_eq!(headers["x-request-id"], "lost");
    assert!(headers["bowline-attempts"].to_str().unwrap().contains("a;overloaded;"));
    assert!(!headers.contains_key("bowline-served-by"));
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert!(body["error"]["message"].is_string(), "{body}");
    world.is_quiet().await;
}

#[tokio::test]
async fn a_provider_that_asks_for_a_moment_is_asked_again_after_it() {
    let world = World::with(&["429-once"], |config| config.policy.retries = 1).await;
    let read = world.ask(true).await;
    assert_eq!((read.status, &*read.served), (200, "a/mock:429-once"), "{}", read.text);
    assert_eq!(world.record().attempts.len(), 2);
    world.is_quiet().await;
}

#[tokio::test]
async fn a_target_that_fails_again_and_again_is_left_alone() {
    let world = World::with(&["500", "ok"], |config| config.policy.breaker.failures = 3).await;
    for _ in 0..10 {
        assert_eq!(world.ask(false).await.served, "b/mock:ok");
    }
    assert_eq!(world.mock.stats()["modes"]["500"], 3);
    assert_eq!(world.gateway.states()[0].state, BreakerState::Open);
    world.is_quiet().await;
}

#[tokio::test]
async fn a_key_has_its_limits() {
    let world = World::with(&["ok"], |config| {
        let limits = KeyLimits { requests_per_minute: Some(2), ..KeyLimits::default() };
        config.keys = vec![ClientKey {
            name: "team".into(),
            digest: Digest::of("secret"),
            priority: Priority::High,
            limits,
        }];
    })
    .await;
    assert!(world.gateway.identify("guess").is_none());
    let key = world.gateway.identify("secret").unwrap();
    for status in [200, 200, 429] {
        let mut asked = request("keyed", true);
        asked.key = Some(Arc::clone(&key.name));
        let answer = world.gateway.run(asked).await;
        if let Answer::Whole(Whole { headers, .. }) = &answer {
            assert!(headers.contains_key("retry-after") && !headers.contains_key("x-should-retry"));
        }
        assert_eq!(collect(answer).await.status, status);
    }
    let usage = world.gateway.usage();
    assert_eq!((usage[0].attempts, usage[0].tokens.output), (2, 16));
    world.is_quiet().await;
}

#[tokio::test]
async fn anthropics_clients_are_served_by_both_dialects() {
    let both = |config: &mut Config| {
        config.providers[0].dialect = Dialect::Anthropic;
        config.providers[0].base_url = config.providers[0].base_url.replace("/v1", "");
    };
    for (modes, frame) in [(["ok", "ok"], false), (["500", "ok"], false), (["cut", "ok"], true)] {
        let world = World::with(&modes, both).await;
        let body = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}],"stream":true}"#;
        let asked = Request::new("claude", Surface::Messages, body.into());
        let Answer::Stream(mut stream) = world.gateway.run(asked).await else { panic!("whole") };
        let mut text = String::new();
        while let Some(piece) = stream.next().await {
            text.push_str(std::str::from_utf8(&piece).unwrap());
        }
        assert!(text.contains("event: message_start") && text.contains("token0"), "{text}");
        let end = if frame { "event: error" } else { "event: message_stop" };
        assert!(text.contains(end) && !text.contains("[DONE]"), "{text}");
        world.is_quiet().await;
    }
}

#[tokio::test]
async fn a_model_that_has_no_embeddings_is_there_to_chat() {
    for mode in ["403", "404"] {
        let world = World::with(&["ok"], |config| {
            let vectors = TargetId::new("a", format!("mock:{mode}"));
            config.models.push(ModelConfig { name: "vectors".into(), targets: vec![vectors] });
        })
        .await;
        for number in 0..4 {
            let body = r#"{"model":"vectors","input":"a"}"#;
            let asked = Request::new(number.to_string(), Surface::Embeddings, body.into());
            assert!(collect(world.gateway.run(asked).await).await.failed);
        }
        let closed = |state: &TargetState| state.state == BreakerState::Closed;
        assert!(world.gateway.states().iter().all(closed), "{:?}", world.gateway.states());
        assert_eq!(world.mock.stats()["requests"], 4);
        world.is_quiet().await;
    }
}

#[tokio::test]
async fn copies_and_answers_count_in_the_memory() {
    const KIB: usize = 1024;
    let world = World::with(&["ok-20000", "ok-20000"], |config| {
        config.policy.timeouts = Timeouts::default();
        config.policy.deadline = DEADLINE;
    })
    .await;
    let budget = Budget::new(400 * KIB);
    let ask = |stream: bool, words: usize| {
        let words = "x".repeat(words);
        let body = format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":"{words}"}}],"stream":{stream}}}"#
        );
        let mut asked = Request::new("counted", Surface::ChatCompletions, body.into());
        asked.memory = budget.take(asked.body.len());
        asked
    };
    // The body, its copy, and 200 KiB of an answer, for as long as it is there.
    let answer = world.gateway.run(ask(false, 50 * KIB)).await;
    let Answer::Whole(whole) = answer else { panic!("{answer:?}") };
    assert_eq!((whole.status.as_u16(), budget.taken()), (200, whole.body.len()));
    drop(whole);
    assert_eq!(budget.taken(), 0);
    // There is none for the answer, and none for the copy.
    for words in [150 * KIB, 300 * KIB] {
        let read = collect(world.gateway.run(ask(false, words)).await).await;
        assert!(read.status == 503 && read.text.contains("\"overloaded\""), "{}", read.text);
        assert_eq!((world.record().outcome.name(), budget.taken()), ("no-memory", 0));
    }
    assert!(world.gateway.states().iter().all(|state| state.state == BreakerState::Closed));
    // A stream is passed on as it comes.
    assert!(!collect(world.gateway.run(ask(true, 150 * KIB)).await).await.failed);
    assert_eq!(budget.taken(), 0);
    world.is_quiet().await;
}

#[tokio::test]
async fn embeddings_fall_over_too() {
    let world = World::of(&["503", "ok"]).await;
    let body = r#"{"model":"m","input":["a","b"]}"#;
    let asked = Request::new("vectors", Surface::Embeddings, body.into());
    let read = collect(world.gateway.run(asked).await).await;
    assert_eq!((read.status, &*read.served), (200, "b/mock:ok"), "{}", read.text);
    assert_eq!(world.mock.last().unwrap().path, "/v1/embeddings");
    assert_eq!(world.record().attempts[1].usage.input, 7);
    world.is_quiet().await;
}

/// `BOWLINE_AI_REQUESTS` of them, by default 1,000: every fault, streamed and plain, with clients that leave at any
/// moment, and too few permits for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_permit_leaks_however_requests_end() {
    let wanted = std::env::var("BOWLINE_AI_REQUESTS").map_or(1_000, |text| text.parse().unwrap());
    let modes: Vec<_> = MATRIX.iter().map(|(mode, _)| *mode).collect();
    let world = Arc::new(
        World::with(&["ok", "ok"], |config| {
            config.limits.all = 100;
            config.limits.providers.insert("a".into(), 50);
            let timeouts = &mut config.policy.timeouts;
            (timeouts.first_content, timeouts.idle) = (SHORT / 4, SHORT / 4);
            timeouts.total = SHORT;
            // Faults are what is wanted: nobody is left alone for long.
            let breaker = &mut config.policy.breaker;
            (breaker.rest, breaker.down) = (Duration::from_millis(1), Duration::from_millis(1));
            (breaker.park_max, breaker.limited_max) = (breaker.rest, breaker.rest);
            config.models = modes
                .iter()
                .map(|mode| ModelConfig {
                    name: (*mode).into(),
                    targets: vec![
                        TargetId::new("a", format!("mock:{mode}")),
                        TargetId::new("b", "mock:ok-3x1"),
                    ],
                })
                .collect();
        })
        .await,
    );
    let mut asking = JoinSet::new();
    let (mut begun, mut ended) = (0_u64, 0);
    let mut memory = Vec::new();
    while ended < wanted {
        while begun < wanted && asking.len() < 128 {
            let world = Arc::clone(&world);
            let random = begun.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31);
            let mode = modes[(random % modes.len() as u64) as usize];
            let patience = Duration::from_millis(random >> 7 & 0xFF);
            let (leaves, stream) = (random & 1 << 20 != 0, random & 1 << 21 != 0);
            begun += 1;
            asking.spawn(async move {
                let body = format!(
                    r#"{{"model":"{mode}","messages":[{{"role":"user","content":"hi"}}],"stream":{stream}}}"#
                );
                let asked = Request::new(mode, Surface::ChatCompletions, body.into());
                let reading = async { drop(collect(world.gateway.run(asked).await).await) };
                if leaves {
                    let _ = timeout(patience, reading).await;
                } else {
                    timeout(DEADLINE, reading).await.unwrap();
                }
            });
        }
        asking.join_next().await.unwrap().unwrap();
        ended += 1;
        if ended % (wanted / 10) == 0 {
            memory.push(resident_kib());
        }
    }
    // One that was given up while it was being sent may not have been seen.
    timeout(DEADLINE, async {
        while !world.is_still() {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .unwrap();
    let attempts = world.attempts();
    assert!(world.mock.stats()["requests"].as_u64().unwrap() <= attempts);
    println!("{ended} requests, {attempts} attempts, resident KiB {memory:?}");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn what_is_no_request_asks_nobody() {
    let world = World::of(&["ok"]).await;
    let unknown = br#"{"model":"other","messages":[{"role":"user","content":"x"}]}"#;
    for (body, status) in [(&b"{"[..], 400), (&b"{}"[..], 400), (&unknown[..], 404)] {
        let body = body.to_vec().into();
        let answer = world.gateway.run(Request::new("bad", Surface::ChatCompletions, body)).await;
        assert_eq!(collect(answer).await.status, status);
    }
    assert_eq!(world.mock.stats()["requests"], 0);
    assert_eq!(world.gateway.recent(9).len(), 3);
}

#[tokio::test]
async fn bytes_pass_and_connections_are_used_again() {
    let world = World::of(&["ok"]).await;
    let body =
        br#"{ "model" : "m", "x": [1.0e5 ,"\u00e9"], "messages":[{"role":"user","content":"hi"}]}"#;
    for _ in 0..5 {
        let asked = Request::new("bytes", Surface::ChatCompletions, body.to_vec().into());
        assert_eq!(collect(world.gateway.run(asked).await).await.status, 200);
    }
    let seen = world.mock.last().unwrap();
    let expected = String::from_utf8(body.to_vec()).unwrap().replace("\"m\"", "\"mock:ok\"");
    assert_eq!(String::from_utf8(seen.body).unwrap(), expected);
    assert_eq!(seen.path, "/v1/chat/completions");
    let figures = world.gateway.pools()[0].figures;
    assert_eq!((figures.opened, figures.reused, figures.idle), (1, 4, 1));
    for _ in 0..5 {
        assert!(!world.ask(true).await.failed);
    }
    assert_eq!(world.mock.stats()["connections"], 1);
}

#[tokio::test]
async fn usage_that_the_client_did_not_ask_for_is_counted_and_not_sent() {
    let world = World::of(&["ok"]).await;
    let read = world.ask(true).await;
    assert!(!read.text.contains("prompt_tokens\":7"), "{}", read.text);
    let record = world.record();
    assert_eq!((record.attempts[0].usage.input, record.attempts[0].usage.output), (7, 8));
}

#[tokio::test]
async fn a_provider_of_the_other_dialect_serves_too() {
    let world = World::with(&["ok", "ok"], |config| {
        config.providers[0].dialect = Dialect::Anthropic;
        config.providers[0].base_url = config.providers[0].base_url.replace("/v1", "");
    })
    .await;
    for stream in [false, true] {
        let read = world.ask(stream).await;
        assert_eq!((read.status, &*read.served), (200, "a/mock:ok"), "{}", read.text);
        assert!(read.content && !read.failed, "{}", read.text);
    }
    assert_eq!(world.mock.last().unwrap().path, "/v1/messages");
    world.is_quiet().await;
}

#[tokio::test]
async fn a_reload_leaves_requests_under_way_alone() {
    let world = World::of(&["ok-20x10"]).await;
    let mut stream = world.stream().await;
    let first = stream.next().await.unwrap();
    world.gateway.reconfigure(Config::default()).unwrap();
    assert!(world.gateway.models().is_empty());
    let read = collect(Answer::Stream(stream)).await;
    assert!(!read.failed && read.text.contains("token19"), "{first:?} {}", read.text);
    assert_eq!(world.ask(false).await.status, 404);
    assert_eq!(world.mock.stats()["open_streams"], 0);
}

#[tokio::test]
async fn whoever_watches_sees_every_attempt() {
    struct Seen(Arc<Mutex<Vec<Event>>>);
    impl Watch for Seen {
        fn on_event(&mut self, event: &Event) {
            self.0.lock().unwrap().push(event.clone());
        }
    }
    let world = World::of(&["500", "ok"]).await;
    let events = Arc::<Mutex<Vec<Event>>>::default();
    let mut asked = request("seen", true);
    asked.watch = Some(Box::new(Seen(Arc::clone(&events))));
    collect(world.gateway.run(asked).await).await;
    let events = events.lock().unwrap();
    let [
        Event::Started { attempt: 1, .. },
        Event::Failed { attempt: 1, .. },
        Event::FellBack { from, to },
        Event::Started { attempt: 2, .. },
        Event::FirstContent { attempt: 2, .. },
        Event::Done { served: Some(served), .. },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!((&**from.provider(), to), ("a", served));
}

#[tokio::test]
async fn a_panic_gives_everything_back() {
    struct Clumsy;
    impl Watch for Clumsy {
        fn on_event(&mut self, event: &Event) {
            assert!(!matches!(event, Event::FirstContent { .. }), "a panic of a test");
        }
    }
    let world = World::of(&["ok-100x5"]).await;
    let (gateway, mut asked) = (world.gateway.clone(), request("clumsy", true));
    asked.watch = Some(Box::new(Clumsy));
    let mut asking = JoinSet::new();
    asking.spawn(async move { drop(gateway.run(asked).await) });
    assert!(asking.join_next().await.unwrap().unwrap_err().is_panic());
    world.is_quiet().await;
    assert!(!world.ask(true).await.failed);
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_told_from_a_slow_one() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    // It accepts, and does not shake hands.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::with(&["ok", "ok", "ok"], |config| {
        config.policy.timeouts.connect = SHORT / 4;
        config.providers[0].base_url = format!("http://{nobody}/v1");
        config.providers[1].base_url = format!("https://{}/v1", silent.local_addr().unwrap());
        config.providers[1].trust = Trust::Only(vec![].into());
    })
    .await;
    let read = world.ask(true).await;
    assert_eq!((read.status, &*read.served), (200, "c/mock:ok"), "{}", read.attempts);
    let record = world.record();
    let [refused, slow, _] = &record.attempts[..] else { panic!("{record:?}") };
    assert_eq!((refused.outcome.name(), slow.outcome.name()), ("broken", "timeout"));
    assert!(slow.words.as_ref().unwrap().contains("connect"), "{slow:?}");
    assert!(slow.connect.is_none() && slow.took >= SHORT / 4 && slow.took < SHORT * 4);
}

#[test]
fn clients_say_how_long_they_wait() {
    let read = |pairs: &[(&'static str, &'static str)]| {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut request = request("said", false);
        request.read_headers(&pairs.iter().map(pair).collect());
        (request.client_timeout, request.client_retry, request.headers.len())
    };
    let python = [("x-stainless-read-timeout", "600.0"), ("x-stainless-retry-count", "2")];
    assert_eq!(read(&python), (Some(Duration::from_secs(600)), 2, 0));
    assert_eq!(read(&[("x-stainless-timeout", "5")]), (Some(Duration::from_secs(5)), 0, 0));
    for nonsense in ["NOT_GIVEN", "-1", "0", "inf", "nan", "1e300"] {
        assert_eq!(read(&[("x-stainless-timeout", nonsense)]).0, None, "{nonsense}");
    }
    let headers = [("anthropic-beta", "a"), ("authorization", "Bearer secret"), ("cookie", "c")];
    assert_eq!(read(&headers).2, 1);
}

/// A gateway whose model `m` is tried at providers `a`, `b`, …, which are the same mock in different modes.
struct World {
    gateway: Gateway,
    mock: Mock,
}

impl World {
    async fn of(modes: &[&str]) -> Self {
        Self::with(modes, |_| {}).await
    }

    async fn with(modes: &[&str], change: impl FnOnce(&mut Config)) -> Self {
        let mock = Mock::start("127.0.0.1:0", Mode::default()).await.unwrap();
        let names = ["a", "b", "c"];
        let provider =
            |name: &&str| ProviderConfig::new(*name, Dialect::OpenAi, format!("{}/v1", mock.url()));
        let target = |(mode, name): (&&str, &str)| TargetId::new(name, format!("mock:{mode}"));
        let targets = modes.iter().zip(names).map(target).collect();
        let timeouts = Timeouts {
            connect: Duration::from_secs(2),
            first_content: SHORT,
            idle: SHORT,
            total: Duration::from_secs(1),
        };
        let mut policy =
            Policy { timeouts, deadline: Duration::from_secs(5), retries: 0, ..Policy::default() };
        policy.breaker.failures = 1_000;
        policy.breaker.of_at_least = 1_000;
        let mut config = Config {
            policy,
            limits: Limits::default(),
            slow: Slow { window: SHORT * 2, tokens_min: 10 },
            providers: names.iter().take(modes.len()).map(provider).collect(),
            models: vec![ModelConfig { name: "m".into(), targets }],
            keys: Vec::new(),
            tracing: None,
            records_max: 100,
        };
        change(&mut config);
        let gateway = Gateway::new(config).unwrap();
        Self { gateway, mock }
    }

    async fn ask(&self, stream: bool) -> Read {
        let answer = timeout(DEADLINE, self.gateway.run(request("asked", stream))).await.unwrap();
        timeout(DEADLINE, collect(answer)).await.unwrap()
    }

    async fn stream(&self) -> Streamed {
        match timeout(DEADLINE, self.gateway.run(request("streamed", true))).await.unwrap() {
            Answer::Stream(stream) => stream,
            Answer::Whole(whole) => panic!("{whole:?}"),
        }
    }

    /// Of the last request.
    fn record(&self) -> Arc<RequestRecord> {
        Arc::clone(&self.gateway.recent(1)[0])
    }

    /// How many hold a permit of a scope, and how many wait for one.
    fn gauge(&self, scope: &Scope) -> (usize, usize) {
        let gauges = self.gateway.gauges();
        let gauge = gauges.iter().find(|gauge| gauge.scope == *scope).unwrap();
        (gauge.held, gauge.queued)
    }

    /// Nothing is held, waited for or open any more, and both sides have counted the same.
    async fn is_quiet(&self) {
        for gauge in self.gateway.gauges() {
            assert_eq!((gauge.held, gauge.queued), (0, 0), "{gauge:?}");
        }
        let quiet = async {
            while !self.agree() {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(DEADLINE, quiet).await.unwrap_or_else(|_| {
            panic!("{} {:?}", self.mock.stats(), self.gateway.recent(100));
        });
    }

    /// Whether the mock has caught up, and has seen what the gateway has counted.
    fn agree(&self) -> bool {
        self.is_still() && self.mock.stats()["requests"] == self.attempts()
    }

    /// Whether nothing is held or under way on either side.
    fn is_still(&self) -> bool {
        let is_free = self.gateway.gauges().iter().all(|one| (one.held, one.queued) == (0, 0));
        let stats = self.mock.stats();
        let pools = self.gateway.pools();
        let idle: usize = pools.iter().map(|pool| pool.figures.idle).sum();
        let in_use: usize = pools.iter().map(|pool| pool.figures.in_use).sum();
        let is_idle = stats["answering"] == 0 && stats["open_connections"] == idle;
        is_free && is_idle && in_use == 0
    }

    fn attempts(&self) -> u64 {
        let count = |figures: &Figures| figures.attempts().map(|series| series.took.count()).sum();
        self.gateway.with_figures(count)
    }
}

fn request(id: &str, stream: bool) -> Request {
    let body = format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}],"stream":{stream}}}"#
    );
    Request::new(id, Surface::ChatCompletions, body.into())
}

/// An answer, as a client sees it.
struct Read {
    status: u16,
    served: String,
    attempts: String,
    text: String,
    /// There is something of an answer.
    content: bool,
    /// There is an error.
    failed: bool,
}

async fn collect(answer: Answer) -> Read {
    let (status, headers, text) = match answer {
        Answer::Whole(Whole { status, headers, body }) => {
            (status.as_u16(), headers, String::from_utf8(body.to_vec()).unwrap())
        }
        Answer::Stream(mut stream) => {
            let (headers, mut text) = (stream.headers().clone(), Vec::new());
            while let Some(piece) = timeout(DEADLINE, stream.next()).await.unwrap() {
                text.extend_from_slice(&piece);
            }
            (200, headers, String::from_utf8(text).unwrap())
        }
    };
    let header = |name| match headers.get(name) {
        Some(value) => HeaderValue::to_str(value).unwrap().to_owned(),
        None => String::new(),
    };
    let (served, attempts) = (header("bowline-served-by"), header("bowline-attempts"));
    let content = ["token0", "why0", "tool_calls"].iter().any(|word| text.contains(word));
    let failed = text.contains("\"error\"");
    if status == 200 && !failed && headers["content-type"] == "text/event-stream" {
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    }
    Read { status, served, attempts, text, content, failed }
}
