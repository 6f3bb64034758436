//! Requests of a bot to its service.

use super::*;

#[tokio::test]
async fn a_request_reaches_the_service_as_the_bot_meant_it() {
    let mut rig = Rig::start(ConfirmedBy::Frame).await;
    let mut bot = rig.client().await;
    let (status, _, body) = bot.ask(Method::PUT, "/mirror?a=b%20c", "the body").await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.starts_with("PUT /mirror?a=b%20c\n") && body.ends_with("\nthe body"), "{body}");
    assert!(body.contains("\nhost: service.test\n"), "{body}");
    // The rules read answers; and nothing of the proxy goes on.
    assert!(body.contains("accept-encoding: identity\n") && !body.contains("proxy"), "{body}");

    // The same connection, again.
    for _ in 0..3 {
        let (status, _, body) = bot.get("/none").await;
        assert_eq!((status, body.as_str()), (StatusCode::NOT_FOUND, "nothing here"));
    }
    // A host of the configuration, with a star.
    let stream = rig.secure("deep.more.test:443", "deep.more.test").await.unwrap();
    let mut other = rig.speak(Box::new(stream)).await;
    let request = Request::get("/mirror").header("host", "deep.more.test");
    let (status, _, body) = other.send(request.body(Full::default()).unwrap()).await;
    assert!(status == StatusCode::OK && body.contains("host: deep.more.test"), "{body}");
}

#[tokio::test]
async fn rules_answer_in_place_of_the_service_and_see_what_it_answers() {
    let mut rig = Rig::start(ConfirmedBy::Frame).await;
    let mut bot = rig.client().await;
    let (status, headers, body) = bot.get("/where").await;
    assert_eq!(status, StatusCode::OK);
    assert!(headers["content-type"].to_str().unwrap().starts_with("application/json"));
    let url = format!("{{\"url\":\"wss://localhost:{}/links/bot/{}\"}}", rig.port, rig.secret());
    assert_eq!(body, url);

    bot.get("/mirror").await;
    let (_, _, body) = bot.ask(Method::POST, "/mirror", "x").await;
    match soon(rig.said.recv()).await.unwrap() {
        Said::Replied { id: Some(id) } => assert_eq!(id, format!("/mirror:{body}")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_answer_is_passed_on_as_it_comes_and_breaks_as_it_breaks() {
    let mut rig = Rig::start(ConfirmedBy::Frame).await;
    let mut bot = rig.client().await;
    let request = Request::get("/slow").header("host", "service.test");
    let answer = bot.sender.send_request(request.body(Full::default()).unwrap()).await.unwrap();
    let mut body = answer.into_body();
    let piece = soon(body.frame()).await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(piece, "one");
    rig.service.go.add_permits(1);
    let piece = soon(body.frame()).await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(piece, "two");
    assert!(soon(body.frame()).await.is_none());

    let request = Request::get("/short").header("host", "service.test");
    let answer = bot.sender.send_request(request.body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(answer.headers()["content-length"], "100");
    let mut body = answer.into_body();
    assert_eq!(soon(body.frame()).await.unwrap().unwrap().into_data().unwrap(), "one");
    rig.service.go.add_permits(1);
    assert!(soon(body.frame()).await.unwrap().is_err());
}

#[tokio::test]
async fn a_service_that_cannot_be_reached_is_silent_as_without_a_proxy() {
    let mut rig = Rig::start(ConfirmedBy::Frame).await;
    let stream = rig.secure("service.test:1", "service.test").await.unwrap();
    let mut bot = rig.speak(Box::new(stream)).await;
    let request = Request::get("/").header("host", "service.test").body(Full::default()).unwrap();
    assert!(soon(bot.sender.send_request(request)).await.is_err());

    // A tunnel says so before it is one, and a proxy for HTTP is seen to be one.
    assert_eq!(rig.tunnel("other.test:1").await.unwrap_err(), StatusCode::BAD_GATEWAY);
    let stream = rig.connect().await;
    let mut bot = rig.speak(Box::new(stream)).await;
    let request = Request::get("http://plain.test:1/")
        .header("proxy-authorization", rig.credentials())
        .body(Full::default());
    let (status, _, body) = bot.send(request.unwrap()).await;
    assert_eq!((status, code(&body).as_str()), (StatusCode::BAD_GATEWAY, "link-unreachable"));
    assert!(!body.contains(&rig.secret()), "{body}");
}

#[tokio::test]
async fn other_hosts_are_passed_through_unseen() {
    let rig = Rig::start(ConfirmedBy::Frame).await;
    let stream = rig.tunnel("other.test:443").await.unwrap();
    // The certificate is the service's own, which the bot's bundle does not have.
    let name = ServerName::try_from("other.test").unwrap();
    assert!(rig.connector().connect(name.clone(), stream).await.is_err());

    let mut roots = RootCertStore::empty();
    roots.add(rig.service.root.clone()).unwrap();
    let stream = rig.tunnel("other.test:443").await.unwrap();
    let mut stream = connector(roots).connect(name, stream).await.unwrap();
    stream
        .write_all(b"GET /none HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    let _ = soon(stream.read_to_string(&mut answer)).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

#[tokio::test]
async fn http_without_tls_is_proxied_and_may_be_inside_of_a_connect() {
    let mut rig = Rig::start(ConfirmedBy::Frame).await;
    let stream = rig.connect().await;
    let mut bot = rig.speak(Box::new(stream)).await;
    for (authority, wanted) in [("service.test", StatusCode::OK), ("plain.test:81", StatusCode::OK)]
    {
        let request = Request::get(format!("http://{authority}/mirror"))
            .header("host", authority)
            .header("proxy-authorization", rig.credentials())
            .body(Full::default());
        let (status, _, body) = bot.send(request.unwrap()).await;
        assert_eq!(status, wanted);
        assert!(
            body.contains(&format!("host: {authority}\n")) && !body.contains("proxy"),
            "{body}"
        );
    }
    let request = Request::get("http://service.test/mirror").body(Full::default()).unwrap();
    let (status, _, body) = bot.send(request).await;
    assert_eq!(status, StatusCode::PROXY_AUTHENTICATION_REQUIRED);
    assert_eq!(code(&body), "link-secret-wrong");

    let stream = rig.tunnel("service.test:80").await.unwrap();
    let mut bot = rig.speak(Box::new(stream)).await;
    let (status, _, body) = bot.get("/where").await;
    assert!(status == StatusCode::OK && body.contains("wss://localhost:"), "{body}");
}

#[tokio::test]
async fn a_connect_of_http_1_0_without_a_host_is_one() {
    // As Python's http.client says it up to 3.11.
    let rig = Rig::start(ConfirmedBy::Frame).await;
    let mut stream = rig.connect().await;
    let request = format!(
        "CONNECT service.test:443 HTTP/1.0\r\nProxy-Authorization: {}\r\n\r\n",
        rig.credentials()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = soon(read_head(&mut stream)).await;
    assert!(head.starts_with("HTTP/1.0 200") || head.starts_with("HTTP/1.1 200"), "{head}");
    let name = ServerName::try_from("service.test").unwrap();
    let mut stream = rig.connector().connect(name, stream).await.unwrap();
    stream.write_all(b"GET /none HTTP/1.1\r\nHost: service.test\r\n\r\n").await.unwrap();
    let head = soon(read_head(&mut stream)).await;
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
}

#[tokio::test]
async fn a_websocket_that_is_not_the_links_is_passed_on() {
    let mut rig = Rig::start(ConfirmedBy::Frame).await;
    let mut stream = rig.secure("service.test:443", "service.test").await.unwrap();
    let request = "GET /other-socket HTTP/1.1\r\nHost: service.test\r\nUpgrade: websocket\r\n\
                   Connection: Upgrade\r\nSec-WebSocket-Key: abc\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = soon(read_head(&mut stream)).await;
    assert!(head.starts_with("HTTP/1.1 101") && head.contains("sec-websocket-key: abc"), "{head}");
    for _ in 0..3 {
        stream.write_all(b"anything").await.unwrap();
        let mut echoed = [0; 8];
        soon(stream.read_exact(&mut echoed)).await.unwrap();
        assert_eq!(&echoed, b"anything");
    }

    // What is refused over there is refused here.
    let mut bot = rig.client().await;
    let request =
        Request::get("/none").header("host", "service.test").header("upgrade", "websocket");
    let request = request.header("connection", "upgrade").body(Full::default()).unwrap();
    let (status, _, body) = bot.send(request).await;
    assert_eq!((status, body.as_str()), (StatusCode::NOT_FOUND, "nothing here"));
}
