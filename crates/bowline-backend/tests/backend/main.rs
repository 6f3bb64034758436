//! An app behind a server, and clients before it: apps that are well, slow, away or mad.
//!
//! Nothing sleeps but apps that are slow on purpose: a test waits for what must come, with a deadline.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like the tests")]

mod harness;
mod presence;

use std::time::Duration;

use bowline_backend::{Options, Outcome, Secret};
use bowline_dial::Args;
use bowline_net::ComponentState;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};

use harness::{
    App, Asked, IntoReply as _, Reply, Running, SOON, ack, answer, args, client, hear_until_end,
    reserve, text, until,
};

// What an app hears, and what it may have done.

#[tokio::test]
async fn an_app_hears_who_connects_what_they_say_and_that_they_left() {
    let app = App::start(|asked| match asked.kind() {
        "connect" => answer(&json!({"allow": true, "rooms": ["lobby"], "data": {"user": 7}})),
        _ => answer(&json!({"ack": ["heard", asked.body["args"][0]]})),
    })
    .await;
    let server = Running::start(&app, |_| {});
    let mut options = client();
    options.auth = Some(r#"{"token":"t"}"#.into());
    options.headers.push(("x-test".to_owned(), "1".to_owned()));
    let client = bowline_dial::connect(&server.url("/chat?a=b"), options).await.unwrap();
    assert_eq!(
        ack(&client, &json!(["say", {"text": "hi"}])).await,
        json!(["heard", {"text": "hi"}])
    );
    let sid = client.sid().to_owned();
    client.close().await;

    let seen = app.wait_for(3).await;
    let connect = &seen[0].body;
    assert_eq!(connect["type"], "connect");
    assert_eq!(connect["namespace"], "/chat");
    assert_eq!(connect["sid"], json!(sid));
    assert_eq!(connect["auth"], json!({"token": "t"}));
    assert_eq!(connect["headers"]["x-test"], json!(["1"]));
    assert_eq!(connect["query"]["a"], json!(["b"]));
    assert_eq!(connect["query"]["EIO"], json!(["4"]));
    assert_eq!(connect["address"], "127.0.0.1");
    assert_eq!(connect["recovered"], false);
    let event = json!({
        "type": "event", "namespace": "/chat", "sid": sid, "rooms": ["lobby"], "data": {"user": 7},
        "event": "say", "args": [{"text": "hi"}], "ack": true,
    });
    assert_eq!(seen[1].body, event);
    assert_eq!(seen[2].body["type"], "disconnect");
    assert_eq!(seen[2].body["sid"], json!(sid));
    assert_eq!(seen[2].body["reason"], "client namespace disconnect");
    for asked in &seen {
        assert!(asked.head.starts_with("POST /bowline?key=1 HTTP/1.1\r\n"), "{}", asked.head);
        assert_eq!(asked.header("content-type").as_deref(), Some("application/json"));
        assert!(asked.header("webhook-id").unwrap().starts_with("msg_"));
        assert_eq!(asked.header("webhook-signature"), None);
    }
    assert_ne!(seen[0].header("webhook-id"), seen[1].header("webhook-id"));
    assert_eq!(server.counted(|stats| stats.requests[0] == 3).await.count, 3);
}

#[tokio::test]
async fn requests_are_signed() {
    let app = App::start(|_| answer(&json!({"allow": true}))).await;
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let server =
        Running::start(&app, |options| options.secret = Some(Secret::parse(secret).unwrap()));
    let client = server.connect("/").await.unwrap();
    let seen = app.wait_for(1).await;
    let part = |name| seen[0].header(name).unwrap();
    let key = base64::Engine::decode(
        &base64::engine::general_purpose::STANDARD,
        secret.strip_prefix("whsec_").unwrap(),
    );
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key.unwrap());
    let signed =
        format!("{}.{}.{}", part("webhook-id"), part("webhook-timestamp"), seen[0].raw_body);
    let tag = ring::hmac::sign(&key, signed.as_bytes());
    let tag = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, tag);
    assert_eq!(part("webhook-signature"), format!("v1,{tag}"));
    client.close().await;
}

#[tokio::test]
async fn an_app_emits_to_the_sender_to_all_and_to_rooms() {
    let app = App::start(|asked| match asked.kind() {
        "connect" => {
            let room = asked.body["auth"]["room"].clone();
            answer(&json!({"allow": true, "rooms": [room]}))
        }
        _ => answer(&json!({
            "ack": [],
            "emit": [
                {"event": "to-sender", "args": [1]},
                {"to": ["b"], "event": "to-b", "args": [{"$binary": "aGkh"}]},
                {"to": "all", "except": ["b"], "event": "to-others"},
                {"to": [], "event": "to-nobody"},
                {"to": ["a", "b"], "except": [asked.body["sid"]], "event": "to-the-other"},
                {"to": "all", "namespace": "/elsewhere", "event": "to-elsewhere"},
                {"to": "all", "event": "end"},
            ],
        })),
    })
    .await;
    let server = Running::start(&app, |_| {});
    let join = |room: &str| {
        let mut options = client();
        options.auth = Some(json!({ "room": room }).to_string().into());
        let url = server.url("/");
        async move { bowline_dial::connect(&url, options).await.unwrap() }
    };
    let (mut a, mut b) = (join("a").await, join("b").await);
    assert_eq!(ack(&a, &json!(["go"])).await, json!([]));
    assert_eq!(hear_until_end(&mut a).await, ["to-sender", "to-others", "end"]);
    assert_eq!(hear_until_end(&mut b).await, ["to-b", "to-the-other", "end"]);
}

#[tokio::test]
async fn data_joins_and_leaves_count_from_the_next_event_on() {
    let app = App::start(|asked| match asked.body["event"].as_str() {
        Some("join") => answer(&json!({"join": ["a", "b"], "data": {"n": 1}})),
        Some("leave") => answer(&json!({"leave": ["a"]})),
        Some(_) => answer(&json!({"ack": [asked.body["rooms"], asked.body["data"]]})),
        None => answer(&json!({"allow": true})),
    })
    .await;
    let server = Running::start(&app, |_| {});
    let client = server.connect("/").await.unwrap();
    assert_eq!(ack(&client, &json!(["look"])).await, json!([[], {}]));
    // All three are in the queue before the first is answered.
    client.emit(args(&json!(["join"]))).await.unwrap();
    client.emit(args(&json!(["leave"]))).await.unwrap();
    assert_eq!(ack(&client, &json!(["look"])).await, json!([["b"], {"n": 1}]));
    // And again when the queue has been empty in between.
    assert_eq!(ack(&client, &json!(["look"])).await, json!([["b"], {"n": 1}]));
}

#[tokio::test]
async fn binary_goes_both_ways() {
    let app = App::start(|asked| match asked.kind() {
        "connect" => answer(&json!({"allow": true})),
        _ => {
            assert_eq!(asked.body["args"], json!([{"x": {"$binary": "AQL/"}, "$$binary": 1}]));
            answer(&json!({"ack": asked.body["args"]}))
        }
    })
    .await;
    let server = Running::start(&app, |_| {});
    let client = server.connect("/").await.unwrap();
    let blob = bytes::Bytes::from_static(b"\x01\x02\xff");
    let text = r#"["e",{"x":{"_placeholder":true,"num":0},"$binary":1}]"#;
    let sent = Args::with_attachments(text, vec![blob.clone()]).unwrap();
    let got = client.emit_with_ack(sent, SOON).await.unwrap();
    assert_eq!(got.attachments(), [blob]);
    let wanted = json!([{"x": {"_placeholder": true, "num": 0}, "$binary": 1}]);
    assert_eq!(got.parse::<Value>().unwrap(), wanted);
}

#[tokio::test]
async fn a_connect_is_refused_with_what_the_app_says() {
    let app = App::start(|_| {
        answer(&json!({"allow": false, "message": "not you", "data": {"code": "banned"}}))
    })
    .await;
    let server = Running::start(&app, |_| {});
    let refusal = server.refusal("/").await;
    assert_eq!(refusal, json!({"message": "not you", "data": {"code": "banned"}}));
    // Nobody was there, so nobody has left.
    server.settled().await;
    assert_eq!(app.seen().len(), 1);
}

#[tokio::test]
async fn an_event_without_an_answer_to_its_ack_is_acked_with_nothing() {
    let app = App::start(|asked| match asked.kind() {
        "connect" => answer(&json!({"allow": true})),
        _ => match asked.body["event"].as_str().unwrap() {
            "null" => answer(&json!({"ack": null})),
            "empty" => "HTTP/1.1 204 No Content\r\n\r\n".into(),
            _ => answer(&json!({})),
        },
    })
    .await;
    let server = Running::start(&app, |_| {});
    let client = server.connect("/").await.unwrap();
    for event in ["null", "empty", "missing"] {
        assert_eq!(ack(&client, &json!([event])).await, json!([]), "{event}");
    }
}

// Order.

#[tokio::test]
async fn one_session_is_one_after_the_other_and_sessions_do_not_wait_for_each_other() {
    let app = App::start(|asked| match asked.kind() {
        // The first client's first event hangs until the second client has been answered.
        "event" if asked.body["args"][0] == "slow" => {
            Reply::wait_for(answer(&json!({"ack": []})), |seen| {
                seen.iter().any(|asked| asked.body["args"][0] == "quick")
            })
        }
        _ => answer(&json!({"allow": true, "ack": []})),
    })
    .await;
    let server = Running::start(&app, |_| {});
    let (a, b) = (server.connect("/").await.unwrap(), server.connect("/").await.unwrap());
    a.emit(args(&json!(["e", "slow"]))).await.unwrap();
    for n in 0..50 {
        a.emit(args(&json!(["e", n]))).await.unwrap();
    }
    app.wait_until(|seen| seen.iter().any(|asked| asked.body["args"][0] == "slow")).await;
    assert_eq!(ack(&b, &json!(["e", "quick"])).await, json!([]));
    assert_eq!(ack(&a, &json!(["e", "last"])).await, json!([]));
    let seen = app.seen();
    let order =
        seen.iter().filter(|asked| asked.kind() == "event" && asked.body["sid"] == json!(a.sid()));
    let order: Vec<Value> = order.map(|asked| asked.body["args"][0].clone()).collect();
    let mut wanted = vec![json!("slow")];
    wanted.extend((0..50).map(Value::from));
    wanted.push(json!("last"));
    assert_eq!(order, wanted);
}

#[tokio::test]
async fn no_more_requests_are_under_way_than_allowed_and_waits_are_counted() {
    let app = App::start(|asked| match asked.kind() {
        "connect" => answer(&json!({"allow": true})),
        _ => Reply::wait_for(answer(&json!({"ack": []})), |seen| {
            seen.iter().filter(|asked| asked.kind() == "event").count() >= 2
        }),
    })
    .await;
    let server = Running::start(&app, |options| options.max_concurrent = 2);
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(server.connect("/").await.unwrap());
    }
    for client in &clients {
        client.emit(args(&json!(["e"]))).await.unwrap();
    }
    let stats = server.counted(|stats| stats.requests[0] == 12).await;
    assert!(app.most_at_once() <= 2, "{}", app.most_at_once());
    assert!(stats.pool_waits >= 1, "{stats:?}");
    assert_eq!((stats.waiting, stats.running), (0, 0));
}

// Apps that are not well.

#[tokio::test]
async fn an_app_that_is_away_fails_events_at_their_deadline_and_is_noticed() {
    let (_reserved, address) = reserve();
    let server = Running::at(address, |options| options.timeout = Duration::from_millis(700));
    let refusal = server.refusal("/").await;
    assert_eq!(refusal["data"]["code"], "backend-unavailable");
    assert_eq!(refusal["data"]["retry"], true);
    assert!(refusal["message"].as_str().unwrap().ends_with("is not available."));
    let stats = server.counted(|stats| stats.requests[1] == 1).await;
    assert_eq!(stats.count, 0, "nothing was sent: {stats:?}");
    server.component(ComponentState::Failed).await;
}

#[tokio::test]
async fn an_app_that_starts_late_gets_what_was_waiting_for_it() {
    let (reserved, address) = reserve();
    let server = Running::at(address, |_| {});
    let url = server.url("/");
    let mut clients = JoinSet::new();
    for _ in 0..3 {
        let url = url.clone();
        clients.spawn(async move {
            let client = bowline_dial::connect(&url, client()).await.unwrap();
            for n in 0..3 {
                assert_eq!(ack(&client, &json!(["e", n])).await, json!([n]));
            }
            client
        });
    }
    // Long enough for requests to have been refused.
    server.counted(|stats| stats.waiting == 3).await;
    let app = App::on(reserved.listen(64).unwrap(), |asked| match asked.kind() {
        "connect" => answer(&json!({"allow": true})),
        _ => answer(&json!({"ack": asked.body["args"]})),
    });
    let clients = timeout(SOON, clients.join_all()).await.unwrap();
    assert_eq!(app.seen().len(), 12);
    assert_eq!(server.stats().requests, [12, 0, 0, 0, 0, 0]);
    drop(clients);
}

#[tokio::test]
async fn an_app_that_is_not_ready_says_so_and_is_asked_again() {
    let app = App::start(|asked| {
        if asked.number < 2 {
            return "HTTP/1.1 503 Wait\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n".into();
        }
        answer(&json!({"allow": true}))
    })
    .await;
    let server = Running::start(&app, |_| {});
    server.connect("/").await.unwrap();
    let ids: Vec<_> = app.seen().iter().map(|asked| asked.header("webhook-id")).collect();
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().all(|id| *id == ids[0]), "one message, one id");
}

#[tokio::test]
async fn an_app_that_is_slow_is_not_waited_for_beyond_the_deadline() {
    let app = App::start(|asked| match asked.kind() {
        "connect" => answer(&json!({"allow": true})),
        "event" if asked.body["event"] == "slow" => Reply::never(),
        _ => answer(&json!({"ack": ["ok"]})),
    })
    .await;
    let server = Running::start(&app, |options| options.timeout = Duration::from_millis(500));
    let client = server.connect("/").await.unwrap();
    let error = ack(&client, &json!(["slow"])).await;
    assert_eq!(error[0]["error"]["code"], "backend-timeout");
    assert_eq!(error[0]["error"]["retry"], true);
    // The late answer has gone with its connection.
    assert_eq!(ack(&client, &json!(["quick"])).await, json!(["ok"]));
    // One that waits behind a slow one has the same deadline as if it had been sent.
    let events = [json!(["slow"]), json!(["behind"])];
    let (slow, behind) = tokio::join!(ack(&client, &events[0]), ack(&client, &events[1]));
    assert_eq!(slow[0]["error"]["code"], "backend-timeout");
    assert_eq!(behind[0]["error"]["code"], "backend-timeout");
    let stats = server.stats();
    assert_eq!(stats.requests[2], 3, "{stats:?}");
    client.emit(args(&json!(["slow"]))).await.unwrap();
    server.counted(|stats| stats.events_lost == 1).await;
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_no_answer_to_the_next_request() {
    let app = App::start(|asked| match asked.kind() {
        "connect" => answer(&json!({"allow": true})),
        "event" if asked.body["event"] == "slow" => {
            Reply::wait_for(answer(&json!({"ack": ["late"]})), |seen| {
                seen.iter().any(|asked| asked.body["event"] == "next")
            })
        }
        _ => answer(&json!({"ack": ["next"]})),
    })
    .await;
    let server = Running::start(&app, |options| options.timeout = Duration::from_millis(300));
    let client = server.connect("/").await.unwrap();
    assert_eq!(ack(&client, &json!(["slow"])).await[0]["error"]["code"], "backend-timeout");
    for _ in 0..3 {
        assert_eq!(ack(&client, &json!(["next"])).await, json!(["next"]));
    }
}

#[tokio::test]
async fn an_app_that_answers_twice_is_heard_once() {
    let app = App::start(|asked| match asked.kind() {
        "connect" => answer(&json!({"allow": true})),
        _ => {
            let once = text(&json!({"ack": [asked.body["args"][0]]}));
            Reply::from(format!("{once}{}", text(&json!({"ack": ["again"]}))))
        }
    })
    .await;
    let server = Running::start(&app, |_| {});
    let client = server.connect("/").await.unwrap();
    for n in 0..5 {
        assert_eq!(ack(&client, &json!(["e", n])).await, json!([n]));
    }
}

#[tokio::test]
async fn answers_that_are_none_fail_the_event_and_nothing_else() {
    let huge = 100 * 1024 * 1024;
    let app = App::start(move |asked| match asked.body["event"].as_str() {
        None => answer(&json!({"allow": true})),
        Some("rubbish") => "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
             content-length: 6\r\n\r\n<html>"
            .into(),
        Some("no-http") => "SSH-2.0-OpenSSH_9.6\r\n\r\n".into(),
        Some("type") => {
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\n{}".into()
        }
        Some("redirect") => "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\
             content-length: 0\r\n\r\n"
            .into(),
        Some("error") => "HTTP/1.1 500 Oh\r\ncontent-length: 4\r\n\r\noops".into(),
        Some("crash") => Reply::from("").then_close(),
        Some("crash-midway") => "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
             content-length: 100\r\n\r\n{\"ack\":["
            .into_reply()
            .then_close(),
        Some("huge") => format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {huge}\r\n\r\n",
        )
        .into_reply()
        .then_bytes(huge),
        Some("huge-chunked") => {
            let chunk = format!("100000\r\n{}\r\n", " ".repeat(0x10_0000));
            format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                 transfer-encoding: chunked\r\n\r\n{}",
                chunk.repeat(8)
            )
            .into_reply()
            .then_close()
        }
        Some("half-done") => answer(&json!({"join": ["a"], "ack": 1})),
        Some(_) => answer(&json!({"ack": [asked.body["rooms"]]})),
    })
    .await;
    let server = Running::start(&app, |_| {});
    let client = server.connect("/").await.unwrap();
    let mut invalid = 0;
    for (event, code) in [
        ("rubbish", "backend-invalid"),
        ("no-http", "backend-unavailable"),
        ("type", "backend-invalid"),
        ("redirect", "backend-invalid"),
        ("error", "backend-invalid"),
        ("crash", "backend-unavailable"),
        ("crash-midway", "backend-unavailable"),
        ("huge", "backend-invalid"),
        ("huge-chunked", "backend-invalid"),
        ("half-done", "backend-invalid"),
    ] {
        let error = ack(&client, &json!([event])).await;
        assert_eq!(error[0]["error"]["code"], code, "{event}");
        assert_eq!(error[0]["error"]["retry"], code != "backend-invalid", "{event}");
        invalid += u64::from(code == "backend-invalid");
        // Of a wrong answer nothing is done, and what follows is not touched by it.
        assert_eq!(ack(&client, &json!(["fine"])).await, json!([[]]), "after {event}");
    }
    let stats = server.stats();
    assert_eq!(stats.requests, [11, 3, 0, 0, invalid, 0]);
    // Nothing that was sent is sent again.
    assert_eq!(app.seen().len(), 21);
}

#[tokio::test]
async fn an_app_that_closes_after_each_answer_is_as_good() {
    let app = App::start(|_| {
        let body = json!({"allow": true, "ack": ["ok"]});
        let head = "HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n";
        format!("{head}{body}").into_reply().then_close()
    })
    .await;
    let server = Running::start(&app, |_| {});
    let client = server.connect("/").await.unwrap();
    for _ in 0..5 {
        assert_eq!(ack(&client, &json!(["e"])).await, json!(["ok"]));
    }
    assert_eq!(app.connections(), 6);
}

#[tokio::test]
async fn an_app_that_is_restarted_is_found_again() {
    let app = App::start(|_| answer(&json!({"allow": true, "ack": ["one"]}))).await;
    let server = Running::start(&app, |_| {});
    let client = server.connect("/").await.unwrap();
    assert_eq!(ack(&client, &json!(["e"])).await, json!(["one"]));
    let address = app.address;
    app.stop().await;
    let listener = TcpListener::bind(address).await.unwrap();
    let again = App::on(listener, |_| answer(&json!({"allow": true, "ack": ["two"]})));
    // Its idle connection has been closed: that is seen before anything is sent on it.
    assert_eq!(ack(&client, &json!(["e"])).await, json!(["two"]));
    assert_eq!(again.seen().len(), 1);
}

#[tokio::test]
async fn connections_are_used_again() {
    let app = App::start(|_| answer(&json!({"allow": true, "ack": []}))).await;
    let server = Running::start(&app, |_| {});
    let client = server.connect("/").await.unwrap();
    for _ in 0..20 {
        ack(&client, &json!(["e"])).await;
    }
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn a_full_queue_is_busy() {
    let app = App::start(|asked| match asked.kind() {
        "connect" => answer(&json!({"allow": true})),
        _ => Reply::wait_for(answer(&json!({"ack": ["done"]})), |seen| {
            seen.iter().any(|asked| asked.head.starts_with("GET /go"))
        }),
    })
    .await;
    let server = Running::start(&app, |options| options.queue = 2);
    let client = server.connect("/").await.unwrap();
    let handle = client.handle().clone();
    let mut waiting = JoinSet::new();
    for n in 0..3 {
        let (handle, stats) = (handle.clone(), server.backend.clone());
        let args = args(&json!(["e", n]));
        waiting.spawn(async move { handle.emit_with_ack(args, SOON).await.unwrap() });
        until(|| (stats.stats().waiting + stats.stats().running == n + 1).then_some(())).await;
    }
    let error = ack(&client, &json!(["e", 4])).await;
    assert_eq!(error[0]["error"]["code"], "backend-busy");
    assert_eq!(error[0]["error"]["retry"], true);
    assert_eq!(server.refusal("/").await["data"]["code"], "backend-busy");
    app.poke("GET /go HTTP/1.1\r\n\r\n").await;
    for acked in timeout(SOON, waiting.join_all()).await.unwrap() {
        assert_eq!(acked.parse::<Value>().unwrap(), json!(["done"]));
    }
    assert_eq!(server.stats().requests[3], 2);
}

#[tokio::test]
async fn what_waits_for_a_client_that_left_is_dropped_but_its_farewell_is_not() {
    let app = App::start(|asked| match asked.kind() {
        "event" => Reply::wait_for(answer(&json!({})), |seen| {
            seen.iter().any(|asked| asked.head.starts_with("GET /go"))
        }),
        _ => answer(&json!({"allow": true})),
    })
    .await;
    let server = Running::start(&app, |_| {});
    let client = server.connect("/").await.unwrap();
    for n in 0..4 {
        client.emit(args(&json!(["e", n]))).await.unwrap();
    }
    app.wait_for(2).await;
    server.counted(|stats| stats.waiting == 3).await;
    client.close().await;
    server.counted(|stats| stats.waiting == 1 && stats.requests[5] == 3).await;
    app.poke("GET /go HTTP/1.1\r\n\r\n").await;
    let seen = app.wait_for(4).await;
    let kinds: Vec<_> =
        seen.iter().filter(|asked| !asked.body.is_null()).map(Asked::kind).collect();
    assert_eq!(kinds, ["connect", "event", "disconnect"]);
}

#[tokio::test]
async fn an_app_that_may_have_let_somebody_in_hears_that_nobody_is_there() {
    let app = App::start(|asked| match asked.kind() {
        "connect" => Reply::from("").then_close(),
        _ => answer(&json!({})),
    })
    .await;
    let server = Running::start(&app, |_| {});
    assert_eq!(server.refusal("/").await["data"]["code"], "backend-unavailable");
    let seen = app.wait_for(2).await;
    assert_eq!(seen[1].kind(), "disconnect");
    assert_eq!(seen[1].body["reason"], "connect failed");
    assert_eq!(seen[1].body["sid"], seen[0].body["sid"]);
}

#[tokio::test]
async fn an_app_that_comes_back_is_a_component_that_is_ready_again() {
    let app = App::start(|asked| match asked.number {
        1..=3 => Reply::from("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n"),
        _ => answer(&json!({"allow": true, "ack": []})),
    })
    .await;
    let server = Running::start(&app, |_| {});
    let client = server.connect("/").await.unwrap();
    server.component(ComponentState::Ready).await;
    for _ in 0..3 {
        ack(&client, &json!(["e"])).await;
    }
    server.component(ComponentState::Failed).await;
    ack(&client, &json!(["e"])).await;
    server.component(ComponentState::Ready).await;
}

#[tokio::test]
async fn a_server_that_stops_tells_the_app_who_has_left() {
    let app = App::start(|_| answer(&json!({"allow": true}))).await;
    let mut server = Running::start(&app, |_| {});
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(server.connect("/").await.unwrap());
    }
    server.begin_to_stop();
    let seen = app.wait_for(10).await;
    let left = seen.iter().filter(|asked| asked.kind() == "disconnect");
    assert_eq!(left.clone().count(), 5);
    assert!(left.clone().all(|asked| asked.body["reason"] == "server shutting down"));
    server.settled().await;
}

#[tokio::test]
async fn an_app_that_moves_is_followed() {
    let one = App::start(|_| answer(&json!({"allow": true, "ack": ["one"]}))).await;
    let two = App::start(|_| answer(&json!({"allow": true, "ack": ["two"]}))).await;
    let server = Running::start(&one, |_| {});
    let client = server.connect("/").await.unwrap();
    assert_eq!(ack(&client, &json!(["e"])).await, json!(["one"]));
    server.backend.reconfigure(Options::new("app", two.url()));
    assert_eq!(ack(&client, &json!(["e"])).await, json!(["two"]));
}

#[test]
fn outcomes_are_where_these_tests_look_for_them() {
    let names = Outcome::ALL.map(Outcome::name);
    assert_eq!(names, ["ok", "unavailable", "timeout", "busy", "invalid", "gone"]);
}
