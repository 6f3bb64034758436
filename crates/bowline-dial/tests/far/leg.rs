//! The HTTP leg.

use std::time::Duration;

use bowline_dial::{
    Leg, LegAnswer, LegFailure, LegFailureKind, LegFigures, LegOptions, LegRequest, Trust,
};
use bowline_proto::keeper::LegConfig;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::timeout;

use crate::servers::{DEADLINE, HttpServer, until};

#[tokio::test]
async fn a_pooled_connection_that_answers_nothing_costs_a_safe_request_its_patience() {
    let server = HttpServer::plain().await;
    let leg = leg(Some(Duration::from_millis(100)));
    assert_eq!(text(get(&leg, &server, "/a").await).await, (false, "answer on 1".to_owned()));
    server.black_hole();
    assert_eq!(text(get(&leg, &server, "/b").await).await, (true, "answer on 2".to_owned()));
    let lines = server.lines();
    assert_eq!(lines, [(1, "GET /a".into()), (1, "GET /b".into()), (2, "GET /b".into())]);
    // The connection that answered is used again.
    assert_eq!(text(get(&leg, &server, "/c").await).await, (false, "answer on 2".to_owned()));
    let expected =
        LegFigures { ok: 2, retried: 1, opened: 2, reused: 2, idle: 1, ..LegFigures::default() };
    assert_eq!(leg.figures(), expected);
    until("the dead connection is closed", || server.open() == 1).await;
}

#[tokio::test]
async fn what_was_idle_as_long_as_a_dead_connection_is_not_used_either() {
    let (old, dead, young) =
        (HttpServer::plain().await, HttpServer::plain().await, HttpServer::plain().await);
    let leg = leg(Some(Duration::from_millis(100)));
    for server in [&old, &dead, &young] {
        text(get(&leg, server, "/").await).await;
    }
    assert_eq!(leg.figures().idle, 3);
    dead.black_hole();
    text(get(&leg, &dead, "/").await).await;
    let figures = leg.figures();
    assert_eq!((figures.idle, figures.closed_idle, figures.retried), (2, 1, 1));
    text(get(&leg, &old, "/").await).await;
    text(get(&leg, &young, "/").await).await;
    assert_eq!((old.connections(), dead.connections(), young.connections()), (2, 2, 1));
}

#[tokio::test]
async fn an_unsafe_request_is_never_sent_twice() {
    let server = HttpServer::plain().await;
    let leg = leg(None);
    text(get(&leg, &server, "/").await).await;
    // The connection has just answered, so it is believed, and has died in this moment.
    server.black_hole();
    let failure = post(&leg, &server, "/swallowed").await.unwrap_err();
    assert_eq!((failure.is_timeout(), failure.is_sent()), (true, true));
    let failure = post(&leg, &server, "/drop").await.unwrap_err();
    assert_eq!((failure.kind, failure.is_sent()), (LegFailureKind::Broken, true));
    assert!(failure.words.starts_with("localhost:"), "{failure}");
    text(post(&leg, &server, "/kept").await).await;
    let lines = server.lines().into_iter().map(|(_, line)| line).collect::<Vec<_>>();
    assert_eq!(lines, ["GET /", "POST /swallowed", "POST /drop", "POST /kept"]);
    assert_eq!(server.seen()[3].body, "payload");
}

#[tokio::test]
async fn an_unsafe_request_does_not_go_where_nothing_was_heard_lately() {
    let server = HttpServer::plain().await;
    let policy = LegConfig { sure_within: Duration::ZERO, ..LegConfig::default() };
    let leg = Leg::new(LegOptions { policy, ..LegOptions::default() });
    text(get(&leg, &server, "/").await).await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(text(post(&leg, &server, "/").await).await.1, "answer on 2");
    // A safe one may.
    assert_eq!(text(get(&leg, &server, "/").await).await.1, "answer on 2");
}

#[tokio::test]
async fn a_connection_that_was_reset_or_closed_while_idle_is_noticed() {
    for fate in [HttpServer::reset, HttpServer::finish] {
        let server = HttpServer::plain().await;
        let leg = leg(None);
        text(get(&leg, &server, "/").await).await;
        fate(&server);
        until("its end is seen", || leg.figures().idle == 0).await;
        text(post(&leg, &server, "/").await).await;
        text(get(&leg, &server, "/").await).await;
        // The same where the end comes with the request.
        fate(&server);
        assert_eq!(text(get(&leg, &server, "/").await).await.1, "answer on 3");
    }
}

#[tokio::test]
async fn a_new_connection_that_fails_is_told_at_once() {
    let server = HttpServer::plain().await;
    let leg = leg(None);
    let failure = get(&leg, &server, "/drop").await.unwrap_err();
    assert_eq!(failure.kind, LegFailureKind::Broken);
    assert_eq!(server.lines().len(), 1, "nobody knows what the server would make of another one");
    let gone = LegRequest { url: "http://127.0.0.1:1/x?secret".to_owned(), ..request("GET") };
    let failure = leg.send(gone).await.unwrap_err();
    assert_eq!((failure.kind, failure.is_sent()), (LegFailureKind::NotReached, false));
    assert!(!failure.words.contains("secret"), "{failure}");
    for url in ["/path", "ftp://localhost/", "http://user:word@localhost/"] {
        let failure = leg.send(LegRequest { url: url.to_owned(), ..request("GET") }).await;
        assert_eq!(failure.unwrap_err().kind, LegFailureKind::InvalidUrl);
    }
    assert_eq!((leg.figures().failed, leg.figures().in_use), (5, 0));
}

#[tokio::test]
async fn connections_are_closed_when_they_were_idle_for_long() {
    let server = HttpServer::plain().await;
    let policy = LegConfig { idle_max: Duration::from_millis(50), ..LegConfig::default() };
    let leg = Leg::new(LegOptions { policy, ..LegOptions::default() });
    for opened in 1..=2 {
        text(get(&leg, &server, "/").await).await;
        until("it is closed, though nobody asks", || server.open() == 0).await;
        assert_eq!((leg.figures().idle, leg.figures().closed_idle), (0, opened));
    }
}

#[tokio::test]
async fn a_fresh_leg_uses_nothing_that_was_there() {
    let server = HttpServer::plain().await;
    let leg = leg(None);
    text(get(&leg, &server, "/").await).await;
    let under_way = get(&leg, &server, "/").await;
    let other = get(&leg, &server, "/").await;
    text(other).await;
    assert_eq!((leg.figures().idle, leg.figures().in_use), (1, 1));
    leg.fresh();
    assert_eq!(leg.figures().idle, 0);
    text(under_way).await;
    assert_eq!(leg.figures().idle, 0);
    assert_eq!(text(get(&leg, &server, "/").await).await.1, "answer on 3");
    until("the old ones are closed", || server.open() == 1).await;
}

#[tokio::test]
async fn a_body_is_read_as_it_comes() {
    let server = HttpServer::plain().await;
    let leg = leg(None);
    let mut answer = get(&leg, &server, "/stream").await.unwrap();
    assert_eq!(answer.body.chunk().await.unwrap().unwrap(), "one");
    server.go_on();
    assert_eq!(answer.body.chunk().await.unwrap().unwrap(), "two");
    assert!(answer.body.chunk().await.is_none());
    assert!(answer.body.chunk().await.is_none());
    assert_eq!(leg.figures().idle, 1);
    drop(answer);
    assert_eq!(text(get(&leg, &server, "/").await).await.1, "answer on 1");
}

#[tokio::test]
async fn a_body_that_stops_is_told_apart_from_one_that_ends() {
    let server = HttpServer::plain().await;
    let leg = leg(None);
    let mut cut = get(&leg, &server, "/cut").await.unwrap();
    assert_eq!(cut.body.chunk().await.unwrap().unwrap(), "half");
    assert_eq!(cut.body.chunk().await.unwrap().unwrap_err().kind, LegFailureKind::Broken);
    assert!(cut.body.chunk().await.is_none());

    let impatient =
        Leg::new(LegOptions { body_timeout: Duration::from_millis(50), ..LegOptions::default() });
    let silent = get(&impatient, &server, "/stream").await.unwrap();
    assert!(silent.body.collect(100).await.unwrap_err().is_timeout());

    let big = get(&leg, &server, "/").await.unwrap();
    assert_eq!(big.body.collect(10).await.unwrap_err().kind, LegFailureKind::TooBig);
    let fits = get(&leg, &server, "/").await.unwrap();
    assert_eq!(fits.body.collect(11).await.unwrap().len(), 11);
}

#[tokio::test]
async fn whoever_hangs_up_ends_the_request() {
    let server = HttpServer::plain().await;
    let leg = leg(None);
    let answer = get(&leg, &server, "/stream").await.unwrap();
    drop(answer);
    server.go_on();
    until("its connection is closed", || server.open() == 0).await;
    text(get(&leg, &server, "/").await).await;
    server.black_hole();
    let waiting = get(&leg, &server, "/never");
    assert!(timeout(Duration::from_millis(20), waiting).await.is_err());
    until("it is closed too", || server.open() == 0).await;
    assert_eq!((leg.figures().idle, leg.figures().in_use), (0, 0));
}

#[tokio::test]
async fn what_is_said_about_a_connection_does_not_pass() {
    let server = HttpServer::plain().await;
    let leg = leg(None);
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("authorization", "Bearer x"),
        ("connection", "x-hop, keep-alive"),
        ("content-length", "77"),
        ("expect", "100-continue"),
        ("host", "elsewhere"),
        ("proxy-authorization", "Basic x"),
        ("transfer-encoding", "chunked"),
        ("x-hop", "1"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let url = server.url("/a?b=c");
    let body = Bytes::from_static(b"payload");
    let request = LegRequest { method: Method::POST, url, headers, body };
    let answer = leg.send(request).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    let mut names = answer.headers.keys().map(ToString::to_string).collect::<Vec<_>>();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "x-kept"]);
    let [seen] = &server.seen()[..] else { panic!("{:?}", server.seen()) };
    assert_eq!((seen.line.as_str(), seen.body.as_str()), ("POST /a?b=c", "payload"));
    let mut lines = seen.head.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>();
    lines.sort_unstable();
    let host = format!("host: localhost:{}", server.address.port());
    assert_eq!(lines, ["authorization: bearer x", "content-length: 7", &host]);
}

#[tokio::test]
async fn a_server_that_closes_after_its_answer_is_believed() {
    let server = HttpServer::plain().await;
    let leg = leg(None);
    assert_eq!(text(get(&leg, &server, "/last").await).await.1, "answer on 1");
    assert_eq!(leg.figures().idle, 0);
    assert_eq!(text(post(&leg, &server, "/").await).await.1, "answer on 2");
}

#[tokio::test]
async fn a_server_is_asked_for_its_certificate() {
    let server = HttpServer::tls().await;
    let trust = server.trust.clone().unwrap();
    let leg = Leg::new(LegOptions { trust, ..LegOptions::default() });
    text(get(&leg, &server, "/").await).await;
    assert_eq!(text(get(&leg, &server, "/").await).await.1, "answer on 1");

    let other = HttpServer::tls().await.trust.unwrap();
    let leg = Leg::new(LegOptions { trust: other, ..LegOptions::default() });
    let failure = get(&leg, &server, "/").await.unwrap_err();
    assert_eq!(failure.kind, LegFailureKind::NotReached);
    assert!(failure.words.contains("certificate"), "{failure}");

    // Without TLS nobody has to be believed.
    let plain = HttpServer::plain().await;
    let nobody = Trust::Only(vec![].into());
    let leg = Leg::new(LegOptions { trust: nobody, ..LegOptions::default() });
    text(get(&leg, &plain, "/").await).await;
}

#[tokio::test]
async fn many_requests_at_a_time_have_a_connection_each() {
    let server = HttpServer::plain().await;
    let leg = leg(None);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (leg, url) = (leg.clone(), server.url("/"));
        asking.spawn(async move {
            let answer = leg.send(LegRequest { url, ..request("GET") }).await.unwrap();
            answer.body.collect(100).await.unwrap();
        });
    }
    while let Some(done) = timeout(DEADLINE, asking.join_next()).await.unwrap() {
        done.unwrap();
    }
    let figures = leg.figures();
    assert_eq!((figures.ok, figures.failed, figures.in_use), (20, 0, 0));
    assert!(figures.idle <= LegConfig::default().idle_connections_max, "{figures:?}");
}

/// One that waits this long for the head of an answer on a used connection, and half a second on a new one.
fn leg(reused: Option<Duration>) -> Leg {
    let mut policy = LegConfig::default();
    policy.reused_head_timeout = reused.unwrap_or(policy.reused_head_timeout);
    Leg::new(LegOptions {
        head_timeout: Duration::from_millis(500),
        policy,
        ..LegOptions::default()
    })
}

fn request(method: &'static str) -> LegRequest {
    let body = if method == "POST" { Bytes::from_static(b"payload") } else { Bytes::new() };
    LegRequest {
        method: method.parse().unwrap(),
        url: String::new(),
        headers: HeaderMap::new(),
        body,
    }
}

async fn get(leg: &Leg, server: &HttpServer, path: &str) -> Result<LegAnswer, LegFailure> {
    let request = LegRequest { url: server.url(path), ..request("GET") };
    timeout(DEADLINE, leg.send(request)).await.unwrap()
}

async fn post(leg: &Leg, server: &HttpServer, path: &str) -> Result<LegAnswer, LegFailure> {
    let request = LegRequest { url: server.url(path), ..request("POST") };
    timeout(DEADLINE, leg.send(request)).await.unwrap()
}

/// Whether it was sent twice, and what was answered.
async fn text(answer: Result<LegAnswer, LegFailure>) -> (bool, String) {
    let answer = answer.unwrap();
    let body = timeout(DEADLINE, answer.body.collect(1000)).await.unwrap().unwrap();
    (answer.retried, String::from_utf8(body.to_vec()).unwrap())
}
