//! What others of this machine, and web pages, may try.

use super::*;
use crate::local::limit;

/// Sends bytes and reads until the end of the connection.
async fn say(rig: &Rig, bytes: &[u8]) -> String {
    let mut stream = rig.connect().await;
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn nobody_gets_anything_without_the_secret() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let rig = Rig::start(ConfirmedBy::Frame).await;
    let secret = rig.secret();
    let basic = |text: String| format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(text));
    let shown = [
        String::new(),
        basic("bot:".to_owned()),
        basic("bot".to_owned()),
        basic(format!("other:{secret}")),
        basic(format!("bot:{}", &secret[1..])),
        basic(format!("bot:{secret} ")),
        "Proxy-Authorization: Basic !!!\r\n".to_owned(),
        format!("Proxy-Authorization: Bearer {secret}\r\n"),
        format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("bot:{secret}"))),
    ];
    for shown in shown {
        let close = "Connection: close\r\n";
        let connect = format!("CONNECT service.test:443 HTTP/1.1\r\nHost: x\r\n{close}{shown}\r\n");
        let plain = format!("GET http://service.test/ HTTP/1.1\r\nHost: x\r\n{close}{shown}\r\n");
        for request in [connect, plain] {
            let answer = say(&rig, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 407 "), "{request}{answer}");
            assert!(answer.contains("proxy-authenticate: Basic"), "{answer}");
            assert!(answer.contains("\"link-secret-wrong\""), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_web_page_gets_nothing() {
    let rig = Rig::start(ConfirmedBy::Frame).await;
    let secret = rig.secret();
    let cases = [
        // A page may reach the port by its address or, with DNS of its own, by any name.
        ("GET / HTTP/1.1", format!("127.0.0.1:{}", rig.port), 404),
        ("GET / HTTP/1.1", format!("evil.example:{}", rig.port), 421),
        ("POST /links HTTP/1.1", "localhost".to_owned(), 404),
        ("GET /links/bot/guessed HTTP/1.1", "localhost".to_owned(), 407),
        ("OPTIONS /links/bot/guessed HTTP/1.1", "[::1]".to_owned(), 407),
    ];
    for (line, host, status) in cases {
        let request = format!(
            "{line}\r\nHost: {host}\r\nOrigin: https://evil.example\r\nConnection: close\r\n\r\n"
        );
        let answer = say(&rig, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line} {host}: {answer}");
        assert!(!answer.to_ascii_lowercase().contains("access-control"), "{answer}");
    }
    // Even with the secret: not by another name, and no more than a WebSocket.
    let line = format!("GET /links/bot/{secret} HTTP/1.1\r\nConnection: close\r\n");
    let answer = say(&rig, format!("{line}Host: evil.example\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
    let answer = say(&rig, format!("{line}Host: localhost\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let twice = format!("{line}Host: localhost\r\nHost: evil.example\r\n\r\n");
    let answer = say(&rig, twice.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
}

#[tokio::test]
async fn a_connection_is_for_the_host_that_it_was_made_to() {
    let mut rig = Rig::start(ConfirmedBy::Frame).await;
    assert!(rig.secure("service.test:443", "other.test").await.is_err());
    // The name that no handshake names.
    assert!(rig.secure("service.test:443", "127.0.0.1").await.is_err());

    let mut bot = rig.client().await;
    for host in ["other.test", "service.test:444", "service.test.", "a@service.test", "x y"] {
        let request = Request::get("/mirror").header("host", host).body(Full::default());
        let (status, _, body) = bot.send(request.unwrap()).await;
        let fits = host == "service.test.";
        let wanted = if fits { StatusCode::OK } else { StatusCode::MISDIRECTED_REQUEST };
        assert_eq!(status, wanted, "{host}");
        assert!(fits || code(&body) == "link-request-refused");
    }
    let request = Request::get("https://other.test/mirror").body(Full::default()).unwrap();
    assert_eq!(bot.send(request).await.0, StatusCode::MISDIRECTED_REQUEST);

    let own = rig.port;
    for to in [format!("127.0.0.1:{own}"), format!("LOCALHOST:{own}"), format!("[::1]:{own}")] {
        assert_eq!(rig.tunnel(&to).await.unwrap_err(), StatusCode::FORBIDDEN, "{to}");
    }
    for to in ["service.test", "service.test:0", "user@service.test:443"] {
        let status = rig.tunnel(to).await.unwrap_err();
        assert_eq!(status, StatusCode::BAD_REQUEST, "{to}");
    }
}

#[tokio::test]
async fn garbage_is_refused_and_costs_nobody_else_anything() {
    let mut rig = Rig::start(ConfirmedBy::Frame).await;
    let mut client_hello = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    client_hello.resize(517, 0xaa);
    for garbage in [
        b"\0\0\0\0\0\0".as_slice(),
        b"\x16\x03\x01garbage that is no handshake at all",
        &client_hello,
        b"HELO mail\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"CONNECT\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let answer = say(&rig, garbage).await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    }
    // The same behind the secret.
    for garbage in [b"\x16\x03\x01garbage".as_slice(), b"\0\0\0\r\n\r\n"] {
        let mut stream = rig.tunnel("service.test:443").await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = soon(stream.read_to_end(&mut Vec::new())).await;
    }
    assert_eq!(rig.client().await.get("/where").await.0, StatusCode::OK);
}

#[tokio::test]
async fn heads_and_bodies_are_bounded() {
    let mut rig = Rig::start(ConfirmedBy::Frame).await;
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(2 * limit::HEAD_BYTES_MAX));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(2 * limit::HEADERS_MAX));
    for request in [long, many] {
        let answer = say(&rig, request.as_bytes()).await;
        // What is left unread may reset the connection before the answer is there.
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }

    let mut bot = rig.client().await;
    let (status, _, body) =
        bot.ask(Method::POST, "/mirror", &"x".repeat(limit::BODY_BYTES_MAX + 1)).await;
    assert_eq!(
        (status, code(&body).as_str()),
        (StatusCode::PAYLOAD_TOO_LARGE, "link-request-refused")
    );

    // Announced, and never sent.
    let mut stream = rig.secure("service.test:443", "service.test").await.unwrap();
    let head = "POST /mirror HTTP/1.1\r\nHost: service.test\r\nContent-Length: 99999999999\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let head = soon(read_head(&mut stream)).await;
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    // Memory is there again.
    let free = rig.local.inside.bodies.available_permits();
    assert_eq!(free, limit::BODIES_KIB_MAX);
    let (status, _, body) =
        rig.client().await.ask(Method::POST, "/mirror", &"x".repeat(1 << 20)).await;
    assert!(status == StatusCode::OK && body.len() > 1 << 20);
}

#[tokio::test]
async fn who_holds_connections_open_keeps_no_bot_out() {
    let mut rig = Rig::start(ConfirmedBy::Frame).await;
    let mut idle = Vec::new();
    for number in 0..limit::UNPROVED_MAX + 50 {
        let mut stream = rig.connect().await;
        // A part of a head, or of a handshake.
        let part = if number % 2 == 0 { b"GET / H".as_slice() } else { b"\x16\x03\x01" };
        let _ = stream.write_all(part).await;
        idle.push(stream);
    }
    assert_eq!(rig.client().await.get("/where").await.0, StatusCode::OK);
    // The first of them has made room.
    let _ = soon(idle[0].read(&mut [0; 8])).await;
}

#[tokio::test]
async fn a_link_has_so_many_connections_and_no_more() {
    let rig = Rig::start(ConfirmedBy::Frame).await;
    let mut held = Vec::new();
    for _ in 0..limit::CONNECTIONS_OF_LINK_MAX {
        held.push(rig.tunnel("service.test:443").await.unwrap());
    }
    assert_eq!(rig.tunnel("service.test:443").await.unwrap_err(), StatusCode::SERVICE_UNAVAILABLE);
    drop(held.pop());
    // Its end is noticed in a moment.
    soon(async {
        while rig.tunnel("service.test:443").await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_slow_head_has_ten_seconds_in_all() {
    let rig = Rig::start(ConfirmedBy::Frame).await;
    tokio::time::pause();
    for (first, then) in
        [(b"GET / HTTP/1.1\r\nx: ".as_slice(), b"y".as_slice()), (b"\x16", b"\x03"), (b"", b"")]
    {
        let mut stream = rig.connect().await;
        stream.write_all(first).await.unwrap();
        let begun = crate::clock::instant();
        loop {
            // A byte now and then does not help.
            let read = timeout(Duration::from_secs(2), stream.read(&mut [0; 512])).await;
            match read {
                Ok(Ok(0) | Err(_)) => break,
                Ok(Ok(_)) => {}
                Err(_) => drop(stream.write_all(then).await),
            }
        }
        let took = crate::clock::instant() - begun;
        assert!(took <= limit::PROVE_WITHIN + Duration::from_secs(3), "{took:?}");
    }
}
