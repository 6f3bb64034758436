//! The server from outside: raw HTTP and WebSockets over TCP.
//!
//! Nothing sleeps: a test waits for what must come, and every read has a deadline.

#![expect(clippy::disallowed_methods, reason = "deadlines of tests are real time")]
#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    reason = "helpers of tests fail like the tests"
)]

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use bowline_net::{
    Ack, Broadcast, Builder, ConnectRequest, Context, DisconnectReason, Echo, Handle, Handler,
    LimitKey, Limits, Relay, RunError, Server, SessionLimits, SocketRef, socketio::Args,
};
use bowline_proto::websocket::{
    CloseFrame, DecodeConfig, Decoder, Incoming, Message, OpCode, Role, deflate, encode,
};
use bytes::Bytes;
use socket2::{Domain, Socket, Type};
use tokio::sync::oneshot;

// HTTP.

#[test]
fn health_is_answered_on_both_sides_and_unknown_paths_are_not() {
    let server = Running::start(echo().admin_listen(any()).page("<h1>hi</h1>"));
    let admin = server.admin;
    for address in [server.address, admin] {
        let answer = Http::connect(address).get("/health/live");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.text(), r#"{"status":"live"}"#);
    }
    let mut http = server.http();
    assert_eq!(http.get("/").text(), "<h1>hi</h1>");
    assert_eq!(http.get("/nothing").status, 404);
    assert_eq!(http.get("/socket.io").status, 404);
    let mut admin = Http::connect(admin);
    assert_eq!(admin.get("/").status, 404);
    assert_eq!(admin.get("/socket.io/?EIO=4&transport=polling").status, 404);
}

#[test]
fn a_polling_session_opens_connects_and_echoes() {
    let server = Running::start(echo());
    let mut http = server.http();
    let answer = http.get("/socket.io/?EIO=4&transport=polling");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=UTF-8"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("set-cookie"), None);
    assert_eq!(answer.header("access-control-allow-origin"), None);
    let sid = sid_of(answer.text());
    let url = session_url(&sid);
    let taken = http.post(&url, "40");
    assert_eq!((taken.status, taken.text()), (200, "ok"));
    assert_eq!(taken.header("content-type"), Some("text/html"));
    assert_eq!(taken.header("content-length"), Some("2"));
    assert!(http.get(&url).text().starts_with(r#"40{"sid":""#));
    http.post(&url, "42[\"a\",1]\u{1e}421[\"b\",2]\u{1e}bAQID".replace("\u{1e}bAQID", "").as_str());
    assert_eq!(http.get(&url).text(), "42[\"a\",1]\u{1e}431[2]");
}

#[test]
fn a_poll_waits_for_what_comes_later() {
    let server = Running::start(relay().shards(2));
    let poller = Polling::open(&server);
    let mut waiting = server.http();
    waiting.send_get(&session_url(&poller.sid));
    let mut other = WebSocket::connect(&server);
    other.say(r#"42["hello"]"#);
    assert_eq!(waiting.read().text(), r#"42["hello"]"#);
    assert_eq!(other.hear(), r#"42["hello"]"#);
}

#[test]
fn every_request_may_come_on_a_connection_of_its_own() {
    let server = Running::start(echo().shards(2));
    for round in 0..20 {
        let sid = sid_of(server.http().get("/socket.io/?EIO=4&transport=polling").text());
        let url = session_url(&sid);
        assert_eq!(server.http().post(&url, "40").text(), "ok");
        assert!(server.http().get(&url).text().starts_with("40"));
        assert_eq!(server.http().post(&url, &format!("42[\"n\",{round}]")).text(), "ok");
        assert_eq!(server.http().get(&url).text(), format!("42[\"n\",{round}]"));
    }
}

#[test]
fn requests_that_are_refused_say_why_as_the_reference_does() {
    let server = Running::start(echo());
    let mut http = server.http();
    for (url, status, body) in [
        ("?EIO=4", 400, r#"{"code":0,"message":"Transport unknown"}"#),
        ("?EIO=4&transport=__proto__", 400, r#"{"code":0,"message":"Transport unknown"}"#),
        (
            "?EIO=4&transport=polling&sid=nobody",
            400,
            r#"{"code":1,"message":"Session ID unknown"}"#,
        ),
        // A sid of a shard that does not exist.
        (
            "?EIO=4&transport=polling&sid=_AAAAAAAAAAAAAAAAAAA",
            400,
            r#"{"code":1,"message":"Session ID unknown"}"#,
        ),
        ("?EIO=4&transport=websocket", 400, r#"{"code":3,"message":"Bad request"}"#),
    ] {
        let answer = http.get(&format!("/socket.io/{url}"));
        assert_eq!((answer.status, answer.text()), (status, body), "{url}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    let answer = http.request("POST", "/socket.io/?EIO=4&transport=polling", &[], "x");
    assert_eq!(answer.text(), r#"{"code":2,"message":"Bad handshake method"}"#);
    let sid = Polling::open(&server).sid;
    assert_eq!(http.request("PUT", &session_url(&sid), &[], "x").status, 500);
}

#[test]
fn a_second_poll_ends_the_session() {
    let server = Running::start(echo().shards(2));
    let poller = Polling::open(&server);
    let url = session_url(&poller.sid);
    let mut first = server.http();
    first.send_get(&url);
    server.wait_for_polls(1);
    let second = server.http().get(&url);
    assert_eq!((second.status, second.text()), (400, ""));
    assert_eq!(first.read().text(), "1");
    assert_eq!(server.http().get(&url).text(), r#"{"code":1,"message":"Session ID unknown"}"#);
}

#[test]
fn an_aborted_poll_ends_the_session() {
    let gone = Arc::new(AtomicUsize::new(0));
    let server = Running::start(builder().shards(2).namespace("/", Leavers(Arc::clone(&gone))));
    let poller = Polling::open(&server);
    let mut http = server.http();
    http.send_get(&session_url(&poller.sid));
    server.wait_for_polls(1);
    drop(http);
    wait_for(|| gone.load(SeqCst) == 1);
    let answer = server.http().get(&session_url(&poller.sid));
    assert_eq!(answer.text(), r#"{"code":1,"message":"Session ID unknown"}"#);
}

#[test]
fn a_body_that_comes_in_pieces_is_taken_and_one_that_stops_ends_the_session() {
    let server = Running::start(echo().shards(2));
    let poller = Polling::open(&server);
    let url = session_url(&poller.sid);
    let mut http = server.http();
    http.write(&format!("POST {url} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n42["));
    assert_eq!(server.http().get("/health/live").status, 200);
    http.write("\"");
    assert_eq!(server.http().get("/health/live").status, 200);
    http.write("abc\"]");
    assert_eq!(http.read().text(), "ok");
    assert_eq!(server.http().get(&url).text(), r#"42["abc"]"#);

    let mut http = server.http();
    http.write(&format!("POST {url} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n42["));
    drop(http);
    wait_for(|| server.http().post(&url, "3").text().contains("Session ID unknown"));
}

#[test]
fn a_body_over_the_limit_gets_413_and_the_session_lives() {
    let server = Running::start(echo().max_payload(1_000));
    let poller = Polling::open(&server);
    let url = session_url(&poller.sid);
    let big = "x".repeat(400_000);
    let announced = server.http().post(&url, &big);
    assert_eq!((announced.status, announced.text()), (413, ""));
    let mut http = server.http();
    http.write(&format!("POST {url} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"));
    // The server may answer and stop reading before all is written.
    let _ = write!(http.stream(), "{:x}\r\n{big}\r\n0\r\n\r\n", big.len());
    assert_eq!(http.read().status, 413);
    assert_eq!(server.http().post(&url, "42[\"still\"]").text(), "ok");
    assert_eq!(server.http().get(&url).text(), r#"42["still"]"#);
}

#[test]
fn a_cookie_is_set_once_if_it_is_wanted() {
    let server = Running::start(echo().cookie("io".to_owned()));
    let mut http = server.http();
    let answer = http.get("/socket.io/?EIO=4&transport=polling");
    let sid = sid_of(answer.text());
    let expected = format!("io={sid}; Path=/; HttpOnly; SameSite=Lax");
    assert_eq!(answer.header("set-cookie"), Some(&*expected));
    assert_eq!(http.post(&session_url(&sid), "40").header("set-cookie"), None);
}

#[test]
fn listed_origins_get_cors_headers_and_others_no_session() {
    let server = Running::start(echo().cors_allowed_origins(["https://a.example"]));
    let open = "/socket.io/?EIO=4&transport=polling";
    let mut http = server.http();
    let ours = http.request("GET", open, &[("Origin", "https://a.example")], "");
    assert_eq!(ours.status, 200);
    assert_eq!(ours.header("access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(ours.header("vary"), Some("Origin"));
    let other = http.request("GET", open, &[("Origin", "https://b.example")], "");
    assert_eq!((other.status, other.text()), (403, r#"{"code":4,"message":"Forbidden"}"#));
    assert_eq!(other.header("access-control-allow-origin"), None);
    assert_eq!(http.get(open).status, 200);
    // Errors carry the headers too.
    let error = http.request("GET", "/socket.io/?EIO=4", &[("Origin", "https://a.example")], "");
    assert_eq!(error.header("access-control-allow-origin"), Some("https://a.example"));
    let preflight = http.request(
        "OPTIONS",
        open,
        &[("Origin", "https://a.example"), ("Access-Control-Request-Headers", "x-token")],
        "",
    );
    assert_eq!((preflight.status, preflight.text()), (204, ""));
    assert_eq!(preflight.header("access-control-allow-headers"), Some("x-token"));
    assert_eq!(
        preflight.header("access-control-allow-methods"),
        Some("GET,HEAD,PUT,PATCH,POST,DELETE")
    );
    assert_eq!(preflight.header("vary"), Some("Origin, Access-Control-Request-Headers"));

    let refused = WebSocket::upgrade(server.address, WS_OPEN, &[("Origin", "https://b.example")]);
    let refused = refused.err().unwrap();
    assert_eq!((refused.status, refused.text()), (400, "Forbidden"));
    assert!(
        WebSocket::upgrade(server.address, WS_OPEN, &[("Origin", "https://a.example")]).is_ok()
    );
}

#[test]
fn a_star_lets_every_origin_in() {
    let server = Running::start(echo().cors_allowed_origins(["*"]));
    let open = "/socket.io/?EIO=4&transport=polling";
    let answer = server.http().request("GET", open, &[("Origin", "https://a.example")], "");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("vary"), None);
}

// Limits.

#[test]
fn over_the_connection_limit_one_is_told_to_come_later_and_health_answers() {
    let limits = Limits { connections: Some(2), ..Limits::default() };
    let server = Running::start(echo().limits(limits).shards(2));
    let (mut first, mut second) = (server.http(), server.http());
    assert_eq!(first.get("/health/live").status, 200);
    assert_eq!(second.get("/health/live").status, 200);
    let mut third = server.http();
    let refused = third.get("/socket.io/?EIO=4&transport=polling");
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("connection"), Some("close"));
    assert!(third.comes_to_end());
    assert_eq!(server.http().get("/health/live").status, 200);

    // More than are even refused at a time: they wait, and are served when others go.
    let mut crowd = (0..40).map(|_| server.http()).collect::<Vec<_>>();
    for waiting in &mut crowd {
        waiting.send_get("/health/live");
    }
    drop((first, second));
    for waiting in &mut crowd {
        assert_eq!(waiting.read().status, 200);
        waiting.stream().shutdown(Shutdown::Both).unwrap();
    }
    let stats = server.stats();
    assert!(stats.limit_hits[LimitKey::Connections as usize] > 0);
    drop(crowd);
    wait_for(|| server.http().get("/socket.io/?EIO=4&transport=polling").status == 200);
}

#[test]
fn sessions_that_poll_are_bounded_though_they_hold_no_connection() {
    let limits = Limits { connections: Some(4), ..Limits::default() };
    let server = Running::start(echo().limits(limits).shards(2));
    let open = "/socket.io/?EIO=4&transport=polling";
    let mut http = server.http();
    let sids = (0..4).map(|_| sid_of(http.get(open).text())).collect::<Vec<_>>();
    for _ in 0..3 {
        let refused = http.get(open);
        assert_eq!((refused.status, refused.text()), (503, "limits.connections\n"));
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    let stats = server.stats();
    assert_eq!(stats.limit_hits[LimitKey::Connections as usize], 3);
    assert_eq!(stats.sessions_polling, 4);
    // A WebSocket has been counted as a connection.
    let websocket = WebSocket::connect(&server);
    assert_eq!(http.get(open).status, 503);
    drop(websocket);
    assert_eq!(http.post(&session_url(&sids[0]), "1").text(), "ok");
    wait_for(|| http.get(open).status == 200);
}

#[test]
fn one_address_has_its_share_and_websockets_count() {
    let limits =
        Limits { connections: Some(100), connections_per_address: Some(2), ..Limits::default() };
    let server = Running::start(echo().limits(limits));
    let (websocket, mut http) = (WebSocket::connect(&server), server.http());
    assert_eq!(http.get("/health/live").status, 200);
    let mut third = server.http();
    let refused = third.get("/socket.io/?EIO=4&transport=polling");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("retry-after"), Some("1"));
    drop(websocket);
    wait_for(|| server.http().get("/socket.io/?EIO=4&transport=polling").status == 200);
}

#[test]
fn an_address_with_more_than_its_share_keeps_nobody_else_out() {
    let limits =
        Limits { connections: Some(100), connections_per_address: Some(2), ..Limits::default() };
    let server = Running::start(echo().limits(limits));
    let greedy = (0..200).map(|_| connect(server.address)).collect::<Vec<_>>();
    let mut other = Http::connect_from([127, 0, 0, 2].into(), server.address);
    assert_eq!(other.get("/socket.io/?EIO=4&transport=polling").status, 200);
    wait_for(|| server.stats().accepted == 201);
    let stats = server.stats();
    // Sixteen may wait to be told; the others were closed at once.
    assert!(stats.connections_refused <= 16, "{}", stats.connections_refused);
    assert!(stats.limit_hits[LimitKey::ConnectionsPerAddress as usize] >= 190);
    drop(greedy);
}

#[test]
fn a_refused_connection_gets_one_answer_whatever_it_asks() {
    let limits = Limits { connections: Some(1), ..Limits::default() };
    let server = Running::start(echo().limits(limits));
    let websocket = WebSocket::connect(&server);
    for _ in 0..40 {
        let health = server.http().get("/health/live");
        assert_eq!((health.status, health.header("connection")), (200, Some("close")));
        assert_eq!(server.http().get("/socket.io/?EIO=4&transport=polling").status, 503);
    }
    drop(websocket);
}

#[test]
fn handshakes_have_a_rate() {
    let limits = Limits { handshakes_per_second: 3, ..Limits::default() };
    let server = Running::start(echo().limits(limits));
    let mut http = server.http();
    let open = "/socket.io/?EIO=4&transport=polling";
    let statuses = (0..5).map(|_| http.get(open).status).collect::<Vec<_>>();
    assert_eq!(statuses[..3], [200, 200, 200]);
    assert!(statuses[3..].contains(&429), "{statuses:?}");
    let stats = server.stats();
    assert!(stats.limit_hits[LimitKey::HandshakesPerSecond as usize] > 0);
}

#[test]
fn a_slow_head_is_cut_and_an_idle_connection_is_not() {
    let limits = Limits { request_head: Duration::from_millis(150), ..Limits::default() };
    let server = Running::start(echo().limits(limits));
    let mut idle = server.http();
    assert_eq!(idle.get("/health/live").status, 200);
    let silent = server.http();
    let mut slow = server.http();
    slow.write("GET /health/live HTTP/1.1\r\nHo");
    assert!(slow.comes_to_end());
    assert!(silent.comes_to_end());
    // The second request of a connection is under the same clock, but only from its first byte.
    assert_eq!(idle.get("/health/live").status, 200);
    idle.write("GET /");
    assert!(idle.comes_to_end());
    assert_eq!(server.stats().limit_hits[LimitKey::RequestHead as usize], 3);
}

#[test]
fn bytes_that_are_no_protocol_harm_nobody() {
    let server = Running::start(echo().shards(2));
    let mut websocket = WebSocket::connect(&server);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    let prefixes: [&[u8]; 6] = [
        b"",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n",
        b"POST /socket.io/?EIO=4&transport=polling&sid= HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n",
        b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
          Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ];
    for round in 0..300 {
        let mut bytes = prefixes[round % prefixes.len()].to_vec();
        let len = random();
        bytes.extend((0..len).map(|_| random()));
        let mut stream = connect(server.address);
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        // Whatever it answers, it comes to an end.
        let mut rest = Vec::new();
        match stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{bytes:?}"),
        }
    }
    websocket.say(r#"42["still"]"#);
    assert_eq!(websocket.hear(), r#"42["still"]"#);
    wait_for(|| server.stats().connections == 1);
    assert_eq!(server.stats().sessions_websocket, 1);
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let server = Running::start(echo());
    let mut http = server.http();
    let cookie = "x".repeat(100_000);
    let head = format!("GET /health/live HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n");
    let _ = http.stream().write_all(head.as_bytes());
    match http.try_read() {
        Ok(answer) => assert_eq!(answer.status, 431),
        // The rest of the head was still on its way when the server had seen enough.
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
    assert_eq!(server.http().get("/health/live").status, 200);
}

#[test]
fn without_descriptors_accepting_rests_and_goes_on() {
    let name = "a_child_serves_with_few_descriptors";
    let mut child = Command::new("sh")
        .args(["-c", r#"ulimit -n 48; exec "$0" "$@""#])
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let mut lines = stdout.lines().map_while(Result::ok);
    let address = lines.find_map(|line| Some(line.split_once("ADDRESS ")?.1.parse().unwrap()));
    let address: SocketAddr = address.unwrap();
    let mut crowd = (0..100).map(|_| Http::connect(address)).collect::<Vec<_>>();
    for http in &mut crowd {
        http.send_get("/health/live");
    }
    assert_eq!(crowd[0].read().status, 200);
    // Each that goes makes room for one that waits.
    for mut http in crowd.drain(..).skip(1) {
        assert_eq!(http.read().status, 200);
    }
    assert_eq!(Http::connect(address).get("/health/live").status, 200);
    drop(child.stdin.take());
    let errors = lines.find_map(|line| Some(line.split_once("EMFILE ")?.1.parse::<u64>().unwrap()));
    assert!(errors.unwrap() > 0);
    assert!(child.wait().unwrap().success());
}

#[test]
#[ignore = "the other half of `without_descriptors_accepting_rests_and_goes_on`"]
fn a_child_serves_with_few_descriptors() {
    let limits = Limits { connections: Some(1_000), ..Limits::default() };
    let server = Running::start(echo().limits(limits).shards(1));
    println!("\nADDRESS {}", server.address);
    let _ = io::stdin().read(&mut [0]);
    println!("\nEMFILE {}", server.stats().accept_errors[0]);
}

// WebSockets.

#[test]
fn a_websocket_opens_connects_and_echoes() {
    let server = Running::start(echo());
    let mut websocket = WebSocket::open(&server, WS_OPEN);
    let open = websocket.hear();
    assert!(open.contains(r#""upgrades":[],"pingInterval":25000"#), "{open}");
    websocket.say("40");
    assert!(websocket.hear().starts_with(r#"40{"sid":""#));
    websocket.say(r#"42["a",{"b":[1,2]}]"#);
    assert_eq!(websocket.hear(), r#"42["a",{"b":[1,2]}]"#);
    websocket.say(r#"4217["a","x"]"#);
    assert_eq!(websocket.hear(), r#"4317["x"]"#);
    websocket.say(r#"451-["file",{"_placeholder":true,"num":0}]"#);
    websocket.send(OpCode::Binary, &[1, 2, 3]);
    assert_eq!(websocket.hear(), r#"451-["file",{"_placeholder":true,"num":0}]"#);
    assert_eq!(
        websocket.next(),
        Incoming::Message(Message::Binary(Bytes::from_static(&[1, 2, 3])))
    );
}

#[test]
fn frames_behind_the_handshake_and_behind_one_another_are_all_heard() {
    let server = Running::start(echo());
    let mut bytes = handshake(WS_OPEN, &[]).into_bytes();
    frame(&mut bytes, OpCode::Text, b"40");
    for number in 0..1_000 {
        frame(&mut bytes, OpCode::Text, format!(r#"42["n",{number}]"#).as_bytes());
    }
    let mut stream = connect(server.address);
    stream.write_all(&bytes).unwrap();
    let mut websocket = WebSocket::after_handshake(stream).unwrap();
    assert!(websocket.hear().starts_with('0'));
    assert!(websocket.hear().starts_with("40"));
    for number in 0..1_000 {
        assert_eq!(websocket.hear(), format!(r#"42["n",{number}]"#));
    }
}

#[test]
fn a_message_in_many_pieces_is_one_message() {
    let server = Running::start(echo());
    let mut websocket = WebSocket::connect(&server);
    let text = "ä".repeat(300_000);
    let packet = format!(r#"42["long","{text}"]"#);
    let mut bytes = Vec::new();
    frame(&mut bytes, OpCode::Text, packet.as_bytes());
    for piece in bytes.chunks(50_001) {
        websocket.stream.write_all(piece).unwrap();
    }
    assert_eq!(websocket.hear(), packet);
}

#[test]
fn messages_are_compressed_if_both_want_it() {
    let server = Running::start(echo().compression(true));
    let offer = [("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")];
    let mut plain = WebSocket::connect(&server);
    let mut websocket = WebSocket::upgrade(server.address, WS_OPEN, &offer).unwrap();
    websocket.deflate = true;
    websocket.hear();
    websocket.say("40");
    assert!(websocket.hear().starts_with("40"));
    let packet = format!(r#"42["long","{}"]"#, "x".repeat(100_000));
    let mut bytes = Vec::new();
    let compressed = deflate::compress(packet.as_bytes());
    encode(&mut bytes, OpCode::Text, true, Some([1, 2, 3, 4]), &[&compressed]);
    assert!(bytes.len() < 1_000);
    let before = server.stats().websocket_bytes_out;
    websocket.stream.write_all(&bytes).unwrap();
    assert!(websocket.hear() == packet);
    assert!(server.stats().websocket_bytes_out - before < 1_000);
    // The client that did not offer it gets the same text as it is, and may not compress.
    plain.say(&packet);
    assert!(plain.hear() == packet);
    plain.stream.write_all(&bytes).unwrap();
    assert_eq!(plain.close_code(), Some(1002));
}

#[test]
fn a_crowd_that_talks_to_a_crowd_is_served_in_bounded_memory() {
    let server = Running::start(relay().shards(1));
    let mut websockets = (0..100).map(|_| WebSocket::connect(&server)).collect::<Vec<_>>();
    let text = "x".repeat(1_000);
    let mut burst = Vec::new();
    for number in 0..60 {
        let packet = format!(r#"42["m",{number},"{text}"]"#);
        frame(&mut burst, OpCode::Text, packet.as_bytes());
    }
    for sender in [3, 50, 97] {
        websockets[sender].stream.write_all(&burst).unwrap();
    }
    for websocket in &mut websockets {
        for _ in 0..180 {
            assert!(websocket.hear().starts_with(r#"42["m","#));
        }
    }
}

#[test]
fn pings_of_the_websocket_are_answered() {
    let server = Running::start(echo());
    let mut websocket = WebSocket::connect(&server);
    websocket.send(OpCode::Ping, b"abc");
    assert_eq!(websocket.next(), Incoming::Pong(Bytes::from_static(b"abc")));
}

#[test]
fn a_close_is_answered_and_the_connection_ends() {
    let server = Running::start(echo());
    let mut websocket = WebSocket::connect(&server);
    websocket.send(OpCode::Close, &1000_u16.to_be_bytes());
    assert_eq!(websocket.close_code(), Some(1000));
    assert!(websocket.comes_to_end());
    wait_for(|| server.stats().sessions_websocket == 0);
}

#[test]
fn breaking_the_protocol_closes_with_the_code_that_says_so() {
    let server = Running::start(echo().max_payload(1_000));
    let mut unmasked = WebSocket::connect(&server);
    unmasked.stream.write_all(b"\x81\x02hi").unwrap();
    assert_eq!(unmasked.close_code(), Some(1002));
    let mut invalid = WebSocket::connect(&server);
    invalid.send(OpCode::Text, b"4\xff\xff");
    assert_eq!(invalid.close_code(), Some(1007));
    // The head alone is enough: nothing waits for two gigabytes.
    let mut giant = WebSocket::connect(&server);
    giant.stream.write_all(b"\x82\xff\x00\x00\x00\x00\x80\x00\x00\x00abcd").unwrap();
    assert_eq!(giant.close_code(), Some(1009));
    assert!(giant.comes_to_end());
    wait_for(|| server.stats().sessions_websocket == 0);
}

#[test]
fn an_end_without_a_close_frame_ends_the_session() {
    let gone = Arc::new(AtomicUsize::new(0));
    let server = Running::start(builder().namespace("/", Leavers(Arc::clone(&gone))));
    let mut polite = WebSocket::connect(&server);
    // Half-closed, with a message just before: it is heard, and then the end.
    let mut bytes = Vec::new();
    frame(&mut bytes, OpCode::Text, b"420[\"last\"]");
    polite.stream.write_all(&bytes).unwrap();
    polite.stream.shutdown(Shutdown::Write).unwrap();
    wait_for(|| gone.load(SeqCst) == 1);
    let rude = WebSocket::connect(&server);
    socket2::SockRef::from(&rude.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(rude);
    wait_for(|| gone.load(SeqCst) == 2);
}

#[test]
fn upgrades_that_fail_get_the_one_answer_of_the_reference() {
    let server = Running::start(echo());
    for (query, text) in [
        ("?EIO=4&transport=nothing", "Transport unknown"),
        ("?EIO=4&transport=websocket&sid=nobody", "Session ID unknown"),
        ("?EIO=4&transport=websocket&sid=AAAAAAAAAAAAAAAAAAAA", "Session ID unknown"),
    ] {
        let url = format!("/socket.io/{query}");
        let answer = WebSocket::upgrade(server.address, &url, &[]).err().unwrap();
        assert_eq!((answer.status, answer.text()), (400, text));
        assert_eq!(answer.header("content-type"), Some("text/html"));
        assert_eq!(answer.header("connection"), Some("close"));
    }
}

#[test]
fn polling_is_upgraded_to_a_websocket_wherever_that_arrives() {
    let server = Running::start(echo().shards(2));
    for _ in 0..10 {
        let poller = Polling::open(&server);
        let mut poll = server.http();
        poll.send_get(&session_url(&poller.sid));
        let url = format!("/socket.io/?EIO=4&transport=websocket&sid={}", poller.sid);
        let mut websocket = WebSocket::open(&server, &url);
        websocket.say("2probe");
        assert_eq!(websocket.hear(), "3probe");
        assert_eq!(poll.read().text(), "6");
        websocket.say("5");
        websocket.say(r#"42["moved"]"#);
        assert_eq!(websocket.hear(), r#"42["moved"]"#);
        let answer = server.http().get(&session_url(&poller.sid));
        assert_eq!(answer.text(), r#"{"code":3,"message":"Bad request"}"#);
        // A second WebSocket for it is let in and then closed.
        let mut second = WebSocket::open(&server, &url);
        assert!(matches!(second.next(), Incoming::Close(_)));
    }
}

#[test]
fn a_session_whose_client_is_silent_ends() {
    let server = Running::start(
        echo().ping_interval(Duration::from_millis(50)).ping_timeout(Duration::from_millis(50)),
    );
    let mut websocket = WebSocket::connect(&server);
    assert_eq!(websocket.hear(), "2");
    websocket.say("3");
    assert_eq!(websocket.hear(), "2");
    assert!(matches!(websocket.next(), Incoming::Close(_)));
    assert!(websocket.comes_to_end());
}

#[test]
fn a_receiver_that_reads_nothing_is_cut_and_the_others_are_not() {
    let limits = SessionLimits { queued_bytes_per_session: 100_000, ..SessionLimits::default() };
    let server = Running::start(relay().session_limits(limits).shards(2));
    let slow = WebSocket::connect(&server);
    let mut fast = WebSocket::connect(&server);
    let text = "x".repeat(100_000);
    let packet = format!(r#"42["big","{text}"]"#);
    let cut = || server.stats().hub.slow_receivers == 1;
    for _ in 0..1_000 {
        fast.say(&packet);
        assert!(fast.hear() == packet);
        if cut() {
            break;
        }
    }
    assert!(cut());
    fast.say(r#"421["n"]"#);
    assert_eq!(fast.hear(), r#"42["n"]"#);
    assert_eq!(fast.hear(), r#"431[{"receivers":1}]"#);
    drop(slow);
}

// Shards.

#[test]
fn a_relay_reaches_everybody_on_all_shards_and_counts_them() {
    let server = Running::start(relay().shards(2));
    let mut websockets = (0..12).map(|_| WebSocket::connect(&server)).collect::<Vec<_>>();
    let shards = websockets.iter().map(|it| shard_of(&it.sid)).collect::<Vec<_>>();
    // Connections go to the shard that is free; with one sequence of them that may be one alone.
    let pollers = (0..3).map(|_| Polling::open(&server)).collect::<Vec<_>>();
    for sender in [0, 5, 11] {
        websockets[sender].say(r#"42["to all",1]"#);
        for websocket in &mut websockets {
            assert_eq!(websocket.hear(), r#"42["to all",1]"#, "{shards:?}");
        }
        websockets[sender].say(r#"427["counted"]"#);
        for websocket in &mut websockets {
            assert_eq!(websocket.hear(), r#"42["counted"]"#);
        }
        assert_eq!(websockets[sender].hear(), r#"437[{"receivers":15}]"#);
        for poller in &pollers {
            let mut text = String::new();
            while text.matches("42").count() < 2 {
                text += server.http().get(&session_url(&poller.sid)).text();
            }
        }
    }
}

#[test]
fn shards_share_the_load_and_relay_to_one_another() {
    let server = Running::start(relay().shards(2));
    let mut websockets = Vec::new();
    // A shard that has far more connections than the other hands new ones over.
    for _ in 0..200 {
        websockets.push(WebSocket::connect(&server));
    }
    let on_first = websockets.iter().filter(|it| shard_of(&it.sid) == 0).count();
    assert!((40..=160).contains(&on_first), "{on_first} of 200 on the first shard");
    for (sender, websocket) in websockets.iter_mut().enumerate() {
        websocket.say(&format!(r#"42["from",{sender}]"#));
    }
    for websocket in &mut websockets {
        let mut heard = [false; 200];
        for _ in 0..200 {
            let text = websocket.hear();
            let number = text.trim_start_matches(r#"42["from","#).trim_end_matches(']');
            let number: usize = number.parse().unwrap();
            assert!(!std::mem::replace(&mut heard[number], true));
        }
    }
}

// Handlers.

#[test]
fn a_handler_may_answer_later_from_another_thread() {
    let (send, requests) = mpsc::channel();
    let server = Running::start(builder().shards(2).namespace("/", Doorkeeper(Mutex::new(send))));
    let handle = server.handle.clone();
    let mut clients = (0..3)
        .map(|_| {
            let mut websocket = WebSocket::open(&server, WS_OPEN);
            websocket.hear();
            websocket.say(r#"40{"token":1}"#);
            (websocket, requests.recv_timeout(DEADLINE).unwrap())
        })
        .collect::<Vec<_>>();
    let (mut dropped, request) = clients.pop().unwrap();
    assert_eq!(request.auth().map(|auth| &**auth), Some(r#"{"token":1}"#));
    drop(request);
    assert_eq!(dropped.hear(), r#"44{"message":"Unanswered"}"#);
    let (mut refused, request) = clients.pop().unwrap();
    handle.refuse(request, "no", Some(r#"{"code":7}"#.into()));
    assert_eq!(refused.hear(), r#"44{"message":"no","data":{"code":7}}"#);
    let (mut accepted, request) = clients.pop().unwrap();
    let socket = handle.accept(request);
    assert!(accepted.hear().starts_with("40"));
    handle.join(socket, "room").unwrap();
    let event = Args::event("news", &[1]).unwrap();
    let before = server.stats().hub.events_out;
    handle.broadcast(Broadcast::new("/", event).to("room")).unwrap();
    assert_eq!(accepted.hear(), r#"42["news",1]"#);
    // However many shards there are, one event went out.
    assert_eq!(server.stats().hub.events_out, before + 1);

    let (send, acks) = mpsc::channel();
    let ask = Args::event("ask", &["?"]).unwrap();
    handle.emit_with_ack(socket, ask, DEADLINE, move |_, ack| send.send(ack).unwrap()).unwrap();
    assert_eq!(accepted.hear(), r#"420["ask","?"]"#);
    accepted.say(r#"430["!"]"#);
    assert_eq!(acks.recv_timeout(DEADLINE).unwrap().unwrap().json(), r#"["!"]"#);
    let (send, counts) = mpsc::channel();
    let event = Args::event("news", &[2]).unwrap();
    let done = move |_: &mut Context<'_>, receivers| send.send(receivers).unwrap();
    handle.broadcast_counted(Broadcast::new("/", event), done).unwrap();
    assert_eq!(counts.recv_timeout(DEADLINE).unwrap(), 1);

    drop(accepted);
    let (send, acks) = mpsc::channel();
    wait_for(|| server.stats().sessions_websocket == 2);
    let ask = Args::event("ask", &["?"]).unwrap();
    handle.emit_with_ack(socket, ask, DEADLINE, move |_, ack| send.send(ack).unwrap()).unwrap();
    assert!(acks.recv_timeout(DEADLINE).unwrap().is_err());
}

#[test]
fn a_handler_that_panics_harms_nobody() {
    let server = Running::start(builder().shards(1).namespace("/", Panicky));
    let mut websocket = WebSocket::connect(&server);
    websocket.say(r#"42["panic"]"#);
    websocket.say(r#"42["fine"]"#);
    assert_eq!(websocket.hear(), r#"42["fine"]"#);
    assert_eq!(server.stats().handler_panics, 1);
}

// The end.

#[test]
fn a_drain_closes_sessions_so_that_clients_come_back_and_ends() {
    let server = Running::start(echo().shards(2).drain(Duration::from_secs(5)));
    let mut websockets = (0..5).map(|_| WebSocket::connect(&server)).collect::<Vec<_>>();
    let poller = Polling::open(&server);
    let mut poll = server.http();
    poll.send_get(&session_url(&poller.sid));
    server.wait_for_polls(1);
    let mut idle = server.http();
    assert_eq!(idle.get("/health/live").status, 200);
    let address = server.address;
    let stopping = thread::spawn(move || server.stop());
    for websocket in &mut websockets {
        // A close frame and nothing before it: `41` would keep clients away.
        assert_eq!(websocket.close_code(), Some(1001));
        let _ = websocket.stream.shutdown(Shutdown::Both);
    }
    let answer = poll.read();
    // Not `1`, after which python-engineio stays away.
    assert_eq!(answer.text(), "6");
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(idle.comes_to_end());
    stopping.join().unwrap().unwrap();
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn sessions_that_poll_keep_their_connection_until_it_is_their_turn_to_go() {
    let server = Running::start(echo().shards(2).drain(Duration::from_secs(20)));
    let mut clients = (0..20)
        .map(|_| {
            let url = session_url(&Polling::open(&server).sid);
            let mut http = server.http();
            assert_eq!(http.post(&url, "42[\"before\"]").text(), "ok");
            (http, url)
        })
        .collect::<Vec<_>>();
    // So many that the end is spread over two seconds.
    let mut http = server.http();
    for _ in 0..2_000 {
        assert_eq!(http.get("/socket.io/?EIO=4&transport=polling").status, 200);
    }
    let handle = server.handle.clone();
    let stopping = thread::spawn(move || server.stop());
    wait_for(|| handle.is_draining());
    let mut served = 0;
    clients.retain_mut(|(http, url)| {
        let answer = http.get(url);
        // Those that end at that moment hear the same, and on their next poll that there is no such
        // session.
        let lives = answer.header("connection").is_none();
        assert!(!lives || answer.text() == "42[\"before\"]", "{answer:?}");
        served += usize::from(lives);
        lives
    });
    // At twenty different moments of two seconds; these requests took a fraction of that.
    assert!(served > 2, "{served}");
    let mut echoed = 0;
    for (http, url) in &mut clients {
        // On a slow machine its session and then its connection have ended before it is asked.
        while let Ok(answer) = http.try_post(url, "42[\"during\"]") {
            if answer.text() != "ok" {
                assert_eq!(answer.text(), r#"{"code":1,"message":"Session ID unknown"}"#);
                assert_eq!(answer.header("connection"), Some("close"));
                break;
            }
            assert_eq!(answer.header("connection"), None);
            let answer = http.get(url);
            if answer.header("connection").is_some() {
                break;
            }
            // With the last word behind it, there is no next poll.
            assert_eq!(answer.text(), "42[\"during\"]");
            echoed += 1;
        }
    }
    assert!(echoed > 0);
    stopping.join().unwrap().unwrap();
}

#[test]
fn a_server_without_sessions_stops_at_once() {
    let server = Running::start(echo());
    let begin = Instant::now();
    let handle = server.handle.clone();
    server.stop().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(2));
    // Whoever holds a handle still is told.
    let event = Args::event("late", &[0]).unwrap();
    assert!(handle.broadcast(Broadcast::new("/", event)).is_err());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(handle.stats()).sessions_websocket, 0);
}

#[test]
fn what_contradicts_itself_is_refused_before_anything_is_bound() {
    for (builder, why) in [
        (Server::builder().namespace("/", Echo), "there is no address to listen on"),
        (
            Server::builder().listen(any()),
            "there is no handler: add a namespace, or one for Engine.IO alone",
        ),
        (echo().shards(0), "server.shards must be 1 to 255"),
        (echo().polling(false).websocket(false), "engine.transports names no transport"),
    ] {
        assert_eq!(builder.bind().unwrap_err().to_string(), why);
    }
    let server = Running::start(echo());
    let error = builder().listen(server.address).namespace("/", Echo).bind().unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot listen on {}", server.address)));
}

// Handlers for tests.

/// Counts those who leave.
struct Leavers(Arc<AtomicUsize>);

impl Handler for Leavers {
    fn on_event(&self, _: &mut Context<'_>, _: SocketRef, _: Args, _: Option<Ack>) {}

    fn on_disconnect(&self, _: &mut Context<'_>, _: SocketRef, _: DisconnectReason) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Lets the test decide who comes in.
struct Doorkeeper(Mutex<mpsc::Sender<ConnectRequest>>);

impl Handler for Doorkeeper {
    fn on_connect(&self, _: &mut Context<'_>, request: ConnectRequest) {
        self.0.lock().unwrap().send(request).unwrap();
    }

    fn on_event(&self, _: &mut Context<'_>, _: SocketRef, _: Args, _: Option<Ack>) {}
}

struct Panicky;

impl Handler for Panicky {
    fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, args: Args, _: Option<Ack>) {
        assert_ne!(args.name().as_deref(), Some("panic"), "as the test wants it");
        cx.emit(socket, args);
    }
}

// A server, and clients made of sockets.

/// How long anything may take before a test fails.
const DEADLINE: Duration = Duration::from_secs(10);

const WS_OPEN: &str = "/socket.io/?EIO=4&transport=websocket";

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn builder() -> Builder {
    Server::builder().listen(any())
}

fn echo() -> Builder {
    builder().namespace("/", Echo)
}

fn relay() -> Builder {
    builder().namespace("/", Relay)
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain");
        thread::yield_now();
    }
}

struct Running {
    address: SocketAddr,
    admin: SocketAddr,
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<Result<(), RunError>>>,
}

impl Running {
    fn start(builder: Builder) -> Self {
        let server = builder.bind().unwrap();
        let address = server.local_addrs()[0];
        let admin = server.admin_addrs().first().copied().unwrap_or(address);
        let handle = server.handle();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            server.run_blocking(async {
                let _ = stopped.await;
            })
        });
        Self { address, admin, handle, stop: Some(stop), thread: Some(thread) }
    }

    fn http(&self) -> Http {
        Http::connect(self.address)
    }

    fn stats(&self) -> bowline_net::Stats {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.handle.stats())
    }

    /// Waits until so many polls have reached their sessions.
    fn wait_for_polls(&self, count: usize) {
        wait_for(|| self.stats().requests_waiting == count);
    }

    fn stop(mut self) -> Result<(), RunError> {
        self.stop.take();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.take();
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

struct Http(BufReader<TcpStream>);

impl Http {
    fn connect(address: SocketAddr) -> Self {
        Self(BufReader::new(connect(address)))
    }

    fn connect_from(from: IpAddr, to: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
        socket.connect(&to.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn stream(&mut self) -> &mut TcpStream {
        self.0.get_mut()
    }

    fn write(&mut self, text: &str) {
        self.stream().write_all(text.as_bytes()).unwrap();
    }

    fn send_get(&mut self, url: &str) {
        self.write(&format!("GET {url} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    }

    fn get(&mut self, url: &str) -> Answer {
        self.send_get(url);
        self.read()
    }

    fn post(&mut self, url: &str, body: &str) -> Answer {
        self.try_post(url, body).unwrap()
    }

    fn try_post(&mut self, url: &str, body: &str) -> io::Result<Answer> {
        self.send_request("POST", url, &[("Content-Type", "text/plain;charset=UTF-8")], body);
        self.try_read()
    }

    fn request(&mut self, method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.send_request(method, url, headers, body);
        self.read()
    }

    fn send_request(&mut self, method: &str, url: &str, headers: &[(&str, &str)], body: &str) {
        let mut head = format!("{method} {url} HTTP/1.1\r\nHost: localhost\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        // The server may answer and close before it has read all.
        let _ = self.stream().write_all(format!("{head}\r\n{body}").as_bytes());
    }

    fn read(&mut self) -> Answer {
        self.try_read().unwrap()
    }

    fn try_read(&mut self) -> io::Result<Answer> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            lines.push(line.to_owned());
        }
        let status = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines[1..]
            .iter()
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect::<Vec<_>>();
        let mut answer = Answer { status, headers, body: Vec::new() };
        if status >= 200 && status != 204 {
            let len = answer.header("content-length").map_or(0, |len| len.parse().unwrap());
            answer.body.resize(len, 0);
            self.0.read_exact(&mut answer.body)?;
        }
        Ok(answer)
    }

    /// Whether nothing but the end comes.
    fn comes_to_end(mut self) -> bool {
        is_closed(self.stream())
    }
}

struct Polling {
    sid: String,
}

impl Polling {
    /// Opens a session and joins the root namespace.
    fn open(server: &Running) -> Self {
        let sid = sid_of(server.http().get("/socket.io/?EIO=4&transport=polling").text());
        let url = session_url(&sid);
        assert_eq!(server.http().post(&url, "40").text(), "ok");
        assert!(server.http().get(&url).text().starts_with("40"));
        Self { sid }
    }
}

fn session_url(sid: &str) -> String {
    format!("/socket.io/?EIO=4&transport=polling&sid={sid}")
}

fn sid_of(open: &str) -> String {
    let rest = open.strip_prefix(r#"0{"sid":""#).unwrap();
    rest[..20].to_owned()
}

fn shard_of(sid: &str) -> u8 {
    sid.parse::<bowline_net::Sid>().unwrap().shard()
}

struct WebSocket {
    stream: TcpStream,
    decoder: Decoder,
    received: Vec<u8>,
    sid: String,
    deflate: bool,
}

impl WebSocket {
    /// Opens a session and joins the root namespace.
    fn connect(server: &Running) -> Self {
        let mut websocket = Self::open(server, WS_OPEN);
        websocket.sid = sid_of(&websocket.hear());
        websocket.say("40");
        assert!(websocket.hear().starts_with("40"));
        websocket
    }

    fn open(server: &Running, url: &str) -> Self {
        Self::upgrade(server.address, url, &[]).ok().unwrap()
    }

    fn upgrade(address: SocketAddr, url: &str, headers: &[(&str, &str)]) -> Result<Self, Answer> {
        let mut stream = connect(address);
        stream.write_all(handshake(url, headers).as_bytes()).unwrap();
        Self::after_handshake(stream)
    }

    fn after_handshake(stream: TcpStream) -> Result<Self, Answer> {
        let mut http = Http(BufReader::new(stream));
        let answer = http.read();
        if answer.status != 101 {
            return Err(answer);
        }
        assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        let received = http.0.buffer().to_vec();
        let stream = http.0.into_inner();
        let decoder = Decoder::new(Role::Client);
        Ok(Self { stream, decoder, received, sid: String::new(), deflate: false })
    }

    fn say(&mut self, text: &str) {
        self.send(OpCode::Text, text.as_bytes());
    }

    fn send(&mut self, opcode: OpCode, payload: &[u8]) {
        let mut bytes = Vec::new();
        frame(&mut bytes, opcode, payload);
        self.stream.write_all(&bytes).unwrap();
    }

    fn next(&mut self) -> Incoming {
        let config = DecodeConfig { max_message_bytes: 10_000_000, deflate: self.deflate };
        loop {
            let mut input = &mut *self.received;
            let incoming = self.decoder.decode(&config, &mut input).unwrap();
            let rest = input.len();
            self.received.drain(..self.received.len() - rest);
            if let Some(incoming) = incoming {
                return incoming;
            }
            let mut scratch = vec![0; 64 * 1024];
            let bytes = self.stream.read(&mut scratch).unwrap();
            assert!(bytes > 0, "the server closed without a close frame");
            self.received.extend_from_slice(&scratch[..bytes]);
        }
    }

    fn hear(&mut self) -> String {
        match self.next() {
            Incoming::Message(Message::Text(text)) => text.to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn close_code(&mut self) -> Option<u16> {
        match self.next() {
            Incoming::Close(CloseFrame { code, .. }) => code,
            other => panic!("{other:?}"),
        }
    }

    fn comes_to_end(mut self) -> bool {
        is_closed(&mut self.stream)
    }
}

fn handshake(url: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!(
        "GET {url} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head + "\r\n"
}

fn frame(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    encode(out, opcode, false, Some([1, 2, 3, 4]), &[payload]);
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}
