//! What stands between a client and HTTP: TLS, and proxies that speak for others.
//!
//! Nothing sleeps: a test waits for what must come, and every read has a deadline.

#![expect(clippy::disallowed_methods, reason = "deadlines of tests are real time")]
#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    reason = "helpers of tests fail like the tests"
)]

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use bowline_dial::{CertificateDer, Config, Connection, Event, Options, Transports, Trust};
use bowline_net::{
    Ack, Builder, ConnectRequest, Context, Handle, Handler, LimitKey, Limits, RunError, Server,
    SessionLimits, SocketRef, Tls, TlsOutcome, socketio::Args,
};
use bowline_proto::websocket::{DecodeConfig, Decoder, Incoming, Message, OpCode, Role, encode};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use tokio::sync::oneshot;

// TLS.

#[tokio::test]
async fn every_transport_works_over_tls() {
    let certificate = Certificate::new();
    let server = Running::start(certificate.secure(mirror()));
    for transports in [Transports::Polling, Transports::WebSocket, Transports::Upgrade] {
        let mut client = dial(&server, transports, certificate.trust()).await;
        if transports == Transports::Upgrade {
            wait_for_event(&mut client, |event| *event == Event::Upgraded).await;
        }
        let answer = client.emit_with_ack(args(r#"["small",1]"#), DEADLINE).await.unwrap();
        assert_eq!(answer.json(), "[1]");
        // Many records each way, and more than any buffer on the way holds.
        let large = format!(r#"["large","{}"]"#, "x".repeat(900_000));
        for _ in 0..5 {
            let answer = client.emit_with_ack(args(&large), DEADLINE).await.unwrap();
            assert_eq!(answer.json().len(), large.len() - r#""large","#.len());
        }
        client.close().await;
    }
    let stats = server.stats().await;
    assert!(stats.tls_handshakes[TlsOutcome::Done as usize] >= 3);
    assert_eq!(stats.tls_handshakes[TlsOutcome::Failed as usize], 0);
}

#[test]
fn tls_1_2_is_spoken_and_nothing_older_is_offered() {
    let certificate = Certificate::new();
    let server = Running::start(certificate.secure(mirror()));
    let versions: [&[&rustls::SupportedProtocolVersion]; 2] =
        [&[&rustls::version::TLS12], &[&rustls::version::TLS13]];
    for version in versions {
        let config = certificate.client(version);
        let mut http = Http::over_tls(server.address, &config);
        assert_eq!(http.get("/health/live", &[]).status, 200);
        // The connection is good for another request.
        assert_eq!(http.get("/health/live", &[]).status, 200);
    }
}

#[test]
fn a_client_that_comes_back_resumes() {
    let certificate = Certificate::new();
    let server = Running::start(certificate.secure(mirror()));
    let config = certificate.client(rustls::ALL_VERSIONS);
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let mut http = Http::over_tls(server.address, &config);
        assert_eq!(http.get("/health/live", &[]).status, 200);
        kinds.push(http.tls().conn.handshake_kind().unwrap());
    }
    assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
}

#[test]
fn the_end_of_an_http_connection_is_said_in_tls() {
    let certificate = Certificate::new();
    let server = Running::start(certificate.secure(mirror()));
    let mut http = Http::over_tls(server.address, &certificate.client(rustls::ALL_VERSIONS));
    let answer = http.get("/health/live", &[("Connection", "close")]);
    assert_eq!(answer.status, 200);
    // An end that nobody announced would be an error.
    assert_eq!(http.0.read(&mut [0; 16]).unwrap(), 0);
}

#[test]
fn what_comes_with_the_upgrade_is_heard_and_the_close_is_said_in_tls() {
    let certificate = Certificate::new();
    let server = Running::start(certificate.secure(mirror()));
    let config = certificate.client(rustls::ALL_VERSIONS);
    // The handshake of the WebSocket, a CONNECT and an event in one record, more of it than HTTP
    // reads at once.
    let mut first = handshake(WS_OPEN, &[]).into_bytes();
    frame(&mut first, OpCode::Text, b"40");
    let filling = "z".repeat(15_000);
    frame(&mut first, OpCode::Text, format!(r#"42["nothing","{filling}"]"#).as_bytes());
    frame(&mut first, OpCode::Text, br#"421["early",7]"#);
    let mut websocket = WebSocket::begin(tls(server.address, &config), &first);
    assert!(websocket.hear().starts_with("0{"));
    assert!(websocket.hear().starts_with("40{"));
    assert_eq!(websocket.hear(), "431[7]");
    websocket.send(OpCode::Close, &1000_u16.to_be_bytes());
    assert!(matches!(websocket.next(), Incoming::Close(_)));
    assert_eq!(websocket.stream.read(&mut [0; 16]).unwrap(), 0);
}

#[test]
fn a_slow_receiver_gets_everything_in_order_and_others_do_not_wait() {
    let certificate = Certificate::new();
    let limits = SessionLimits { queued_bytes_per_session: 64_000_000, ..SessionLimits::default() };
    let server = Running::start(certificate.secure(mirror()).session_limits(limits).shards(1));
    let config = certificate.client(rustls::ALL_VERSIONS);
    let mut slow = WebSocket::connect(tls(server.address, &config));
    let mut other = WebSocket::connect(tls(server.address, &config));
    // Far more than the sockets' buffers, unread.
    let filling = "y".repeat(200_000);
    for number in 0..60 {
        slow.say(&format!(r#"42["back",{number},"{filling}"]"#));
    }
    other.say(r#"421["quick",1]"#);
    assert_eq!(other.hear(), "431[1]");
    for number in 0..60 {
        let heard = slow.hear();
        assert!(heard.starts_with(&format!(r#"42["back",{number},"#)), "{}", &heard[..30]);
        assert_eq!(heard.len(), filling.len() + format!(r#"42["back",{number},""]"#).len());
    }
    slow.say(r#"422["after",2]"#);
    assert_eq!(slow.hear(), "432[2]");
}

#[test]
fn a_receiver_that_takes_nothing_is_cut() {
    let certificate = Certificate::new();
    let limits = SessionLimits { queued_bytes_per_session: 2_000_000, ..SessionLimits::default() };
    let server = Running::start(certificate.secure(mirror()).session_limits(limits).shards(1));
    let config = certificate.client(rustls::ALL_VERSIONS);
    let mut slow = WebSocket::connect(tls(server.address, &config));
    let filling = "y".repeat(200_000);
    let text = format!(r#"42["back","{filling}"]"#);
    let cut = (0..200).any(|_| slow.try_say(&text).is_err() || server.now().hub.slow_receivers > 0);
    assert!(cut);
    wait_for(|| server.now().hub.slow_receivers == 1);
    wait_for(|| server.now().sessions_websocket == 0);
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections_and_drops_nobody() {
    let first = Certificate::new();
    let server = Running::start(first.secure(mirror()));
    let client = dial(&server, Transports::WebSocket, first.only()).await;
    let expires = server.handle.certificate_expiry().unwrap();
    assert!(!server.handle.look_at_certificate().unwrap(), "there is nothing new");

    let second = Certificate::expiring(2080);
    first.replace_with(&second);
    assert!(server.handle.look_at_certificate().unwrap());
    assert!(server.handle.certificate_expiry().unwrap() > expires);
    assert_eq!(server.stats().await.certificates_replaced, 1);
    // The old connection goes on, new ones see the new certificate, and only that.
    let answer = client.emit_with_ack(args(r#"["still",1]"#), DEADLINE).await.unwrap();
    assert_eq!(answer.json(), "[1]");
    let other = dial(&server, Transports::WebSocket, second.only()).await;
    let answer = other.emit_with_ack(args(r#"["new",2]"#), DEADLINE).await.unwrap();
    assert_eq!(answer.json(), "[2]");
    assert!(try_dial(&server, Transports::WebSocket, first.only()).await.is_err());
}

#[tokio::test]
async fn a_new_certificate_is_found_without_being_told() {
    let first = Certificate::new();
    let server = Running::start(first.secure(mirror()));
    let before = server.handle.certificate_expiry();
    first.replace_with(&Certificate::expiring(2080));
    wait_for(|| server.handle.certificate_expiry() != before);
    assert_eq!(server.handle.certificate().unwrap().error, None);
    assert_eq!(server.stats().await.certificates_refused, 0);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_kept_out() {
    let first = Certificate::new();
    let server = Running::start(first.secure(mirror()));
    let key = fs::read(&first.tls.key_file).unwrap();
    let another = Certificate::new();
    let broken: [(&str, &dyn Fn()); 4] = [
        ("certificate in", &|| fs::write(&first.tls.cert_file, "not a certificate").unwrap()),
        ("is not the one of", &|| {
            fs::copy(&another.tls.cert_file, &first.tls.cert_file).unwrap();
        }),
        ("private key in", &|| fs::write(&first.tls.key_file, "").unwrap()),
        ("cannot read", &|| fs::remove_file(&first.tls.key_file).unwrap()),
    ];
    for (index, (words, break_it)) in broken.into_iter().enumerate() {
        break_it();
        let error = server.handle.look_at_certificate().unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(server.handle.certificate().unwrap().error, Some(error));
        assert_eq!(server.stats().await.certificates_refused, index as u64 + 1);
        let component = server.handle.components().pop().unwrap();
        assert_eq!((&*component.name, component.state.name()), ("certificates", "failed"));
        // The last good one stays.
        dial(&server, Transports::WebSocket, first.only()).await;
    }
    fs::copy(&another.tls.cert_file, &first.tls.cert_file).unwrap();
    fs::copy(&another.tls.key_file, &first.tls.key_file).unwrap();
    assert!(server.handle.look_at_certificate().unwrap());
    assert_eq!(server.handle.certificate().unwrap().error, None);
    assert_eq!(server.handle.components().pop().unwrap().state.name(), "ready");
    dial(&server, Transports::WebSocket, another.only()).await;
    assert!(!key.is_empty());
}

#[test]
fn a_server_does_not_begin_with_a_certificate_that_cannot_be_used() {
    let certificate = Certificate::new();
    fs::write(&certificate.tls.key_file, "-----BEGIN PRIVATE KEY-----\nAA\n").unwrap();
    let error = certificate.secure(mirror()).bind().unwrap_err().to_string();
    assert!(error.contains("private key") && error.contains("key.pem"), "{error}");
}

#[tokio::test]
async fn tls_can_be_switched_on_and_off_for_new_connections() {
    let certificate = Certificate::new();
    let server = Running::start(mirror());
    let plain = dial(&server, Transports::WebSocket, Trust::System).await;
    server.handle.reconfigure(certificate.secure(mirror())).unwrap();
    let secure =
        dial_at("https", &server, Transports::WebSocket, certificate.trust()).await.unwrap();
    server.handle.reconfigure(mirror()).unwrap();
    dial(&server, Transports::WebSocket, Trust::System).await;
    for client in [plain, secure] {
        let answer = client.emit_with_ack(args(r#"["here",1]"#), DEADLINE).await.unwrap();
        assert_eq!(answer.json(), "[1]");
    }
    fs::write(&certificate.tls.cert_file, "").unwrap();
    assert!(server.handle.reconfigure(certificate.secure(mirror())).is_err());
    dial(&server, Transports::WebSocket, Trust::System).await;
}

#[test]
fn plain_http_is_told_that_tls_is_spoken_here() {
    let certificate = Certificate::new();
    let server = Running::start(certificate.secure(mirror()));
    let mut http = Http::new(connect(server.address));
    let answer = http.get("/socket.io/?EIO=4&transport=polling", &[]);
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("https://"), "{}", answer.text());
    assert_eq!(http.0.read(&mut [0; 16]).unwrap(), 0);
    assert_eq!(server.now().tls_handshakes[TlsOutcome::PlainHttp as usize], 1);
}

#[test]
fn a_client_that_offers_nothing_that_is_spoken_here_hears_why() {
    let certificate = Certificate::new();
    let server = Running::start(certificate.secure(mirror()));
    let mut config = ClientConfig::clone(&certificate.client(rustls::ALL_VERSIONS));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut stream = tls(server.address, &Arc::new(config));
    let error = stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap_err().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
    assert_eq!(server.now().tls_handshakes[TlsOutcome::Failed as usize], 1);
    // What is no handshake at all is closed.
    let mut stream = connect(server.address);
    stream.write_all(b"\x16\x03\x01\x00\x05hello, world").unwrap();
    assert!(is_closed(&mut stream));
    assert_eq!(server.now().tls_handshakes[TlsOutcome::Failed as usize], 2);
}

#[test]
fn whoever_is_too_many_is_told_so_in_tls() {
    let certificate = Certificate::new();
    let limits = Limits { connections: Some(1), ..Limits::default() };
    let server = Running::start(certificate.secure(mirror()).limits(limits));
    let config = certificate.client(rustls::ALL_VERSIONS);
    let _first = WebSocket::connect(tls(server.address, &config));
    let mut second = Http::over_tls(server.address, &config);
    assert_eq!(second.get("/socket.io/?EIO=4&transport=polling", &[]).status, 503);
    let mut third = Http::over_tls(server.address, &config);
    assert_eq!(third.get("/health/live", &[]).status, 200);
}

#[test]
fn a_drain_sends_clients_away_in_tls() {
    let certificate = Certificate::new();
    let server = Running::start(certificate.secure(mirror()));
    let config = certificate.client(rustls::ALL_VERSIONS);
    let mut websocket = WebSocket::connect(tls(server.address, &config));
    let stopping = thread::spawn(move || server.stop());
    let Incoming::Close(close) = websocket.next() else { panic!("no close frame") };
    assert_eq!(close.code, Some(1001));
    websocket.send(OpCode::Close, &1001_u16.to_be_bytes());
    assert_eq!(websocket.stream.read(&mut [0; 16]).unwrap(), 0);
    stopping.join().unwrap().unwrap();
}

#[test]
fn a_handshake_has_its_time_and_keeps_nobody_waiting() {
    let certificate = Certificate::new();
    let limits = Limits { request_head: Duration::from_millis(400), ..Limits::default() };
    let server = Running::start(certificate.secure(mirror()).limits(limits).shards(1));
    let silent = connect(server.address);
    let mut halting = connect(server.address);
    // The beginning of a ClientHello, which promises more.
    halting.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").unwrap();
    let mut http = Http::over_tls(server.address, &certificate.client(rustls::ALL_VERSIONS));
    assert_eq!(http.get("/health/live", &[]).status, 200);
    for mut stream in [silent, halting] {
        assert!(is_closed(&mut stream));
    }
    let stats = server.now();
    assert_eq!(stats.tls_handshakes[TlsOutcome::TimedOut as usize], 2);
    assert_eq!(stats.limit_hits[LimitKey::RequestHead as usize], 2);
}

#[test]
fn a_handshake_under_way_does_not_hold_up_the_end() {
    let certificate = Certificate::new();
    let limits = Limits { request_head: DEADLINE * 10, ..Limits::default() };
    let server = Running::start(certificate.secure(mirror()).limits(limits));
    let mut silent = connect(server.address);
    wait_for(|| server.now().accepted == 1);
    let address = server.address;
    server.stop().unwrap();
    assert!(is_closed(&mut silent));
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn admin_listeners_speak_plain_http_all_the_same() {
    let certificate = Certificate::new();
    let builder = certificate.secure(mirror()).proxy_protocol(true).admin_listen(any());
    let server = Running::start(builder);
    let mut http = Http::new(connect(server.admin));
    assert_eq!(http.get("/health/live", &[]).status, 200);
}

// The PROXY protocol.

#[test]
fn a_header_says_whom_a_connection_is_for_however_it_is_split() {
    let server = Running::start(mirror().proxy_protocol(true));
    let mut second = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10".to_vec();
    second.extend([192, 0, 2, 9, 10, 0, 0, 1, 0x12, 0x67, 1, 0xbb]);
    // A field that nobody knows: four bytes with nothing in it that matters.
    second.extend([0xee, 0, 1, 7]);
    for (header, address) in [
        (&b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\n"[..], "192.0.2.1"),
        (b"PROXY TCP6 2001:db8::7 ::1 4711 443\r\n", "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", "127.0.0.1"),
        (&second, "192.0.2.9"),
    ] {
        let mut begun = header.to_vec();
        begun.extend_from_slice(handshake(WS_OPEN, &[]).as_bytes());
        frame(&mut begun, OpCode::Text, b"40");
        // All at once, and byte for byte.
        let mut whole = WebSocket::begin(connect(server.address), &begun);
        assert_eq!(whole.join_and_ask_address(), address);
        let mut stream = connect(server.address);
        for byte in &begun {
            stream.write_all(&[*byte]).unwrap();
        }
        assert_eq!(WebSocket::begin(stream, &[]).join_and_ask_address(), address);
    }
    assert_eq!(server.now().proxy_header_errors, 0);
}

#[test]
fn tls_comes_after_the_header() {
    let certificate = Certificate::new();
    let server = Running::start(certificate.secure(mirror()).proxy_protocol(true));
    let mut stream = connect(server.address);
    stream.write_all(b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\n").unwrap();
    let stream = tls_on(stream, &certificate.client(rustls::ALL_VERSIONS));
    let mut websocket = WebSocket::connect(stream);
    assert_eq!(websocket.ask_address(), "192.0.2.1");
}

#[tokio::test]
async fn the_client_of_this_workspace_can_say_a_header_and_tls() {
    let certificate = Certificate::new();
    let server = Running::start(certificate.secure(mirror()).proxy_protocol(true));
    let options = Options {
        config: Config { transports: Transports::WebSocket, ..Config::default() },
        preface: b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\n".to_vec(),
        trust: certificate.trust(),
        ..Options::default()
    };
    let client = bowline_dial::connect(&format!("https://{}", server.address), options).await;
    let answer = client.unwrap().emit_with_ack(args(r#"["address"]"#), DEADLINE).await.unwrap();
    assert_eq!(answer.json(), r#"["192.0.2.1"]"#);
}

#[test]
fn without_the_header_that_is_expected_there_is_nothing() {
    let limits = Limits { request_head: Duration::from_millis(400), ..Limits::default() };
    let server = Running::start(mirror().proxy_protocol(true).limits(limits));
    for wrong in [
        &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        b"PROXY TCP4 nowhere 10.0.0.1 4711 443\r\nGET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\rGET",
    ] {
        let mut stream = connect(server.address);
        stream.write_all(wrong).unwrap();
        assert!(is_closed(&mut stream));
    }
    assert_eq!(server.now().proxy_header_errors, 3);
    // One that does not end has the time of a head.
    let mut stream = connect(server.address);
    stream.write_all(b"PROXY TCP4 192.0.2.1").unwrap();
    assert!(is_closed(&mut stream));
    assert_eq!(server.now().limit_hits[LimitKey::RequestHead as usize], 1);
}

#[test]
fn a_header_is_expected_of_trusted_proxies_alone_if_there_are_any() {
    let trusted = ["127.0.0.2/32".parse().unwrap()];
    let server = Running::start(mirror().proxy_protocol(true).trusted_proxies(trusted));
    let mut direct = WebSocket::connect(connect(server.address));
    assert_eq!(direct.ask_address(), "127.0.0.1");
    // From anybody else it is no HTTP.
    let mut spoofed = Http::new(connect(server.address));
    spoofed.0.get_mut().write_all(b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n").unwrap();
    assert_eq!(spoofed.get("/health/live", &[]).status, 400);
    let mut stream = connect_from("127.0.0.2", server.address);
    stream.write_all(b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\n").unwrap();
    assert_eq!(WebSocket::connect(stream).ask_address(), "192.0.2.1");
}

#[test]
fn the_share_of_an_address_is_that_of_the_client_in_the_header() {
    let limits =
        Limits { connections: Some(10), connections_per_address: Some(2), ..Limits::default() };
    let server = Running::start(mirror().proxy_protocol(true).limits(limits).shards(1));
    let from = |address: &str| {
        let mut stream = connect(server.address);
        let header = format!("PROXY TCP4 {address} 10.0.0.1 4711 443\r\n");
        stream.write_all(header.as_bytes()).unwrap();
        stream
    };
    let one = WebSocket::connect(from("192.0.2.1"));
    let _two = WebSocket::connect(from("192.0.2.1"));
    let refused = Http::new(from("192.0.2.1")).get("/socket.io/?EIO=4&transport=polling", &[]);
    assert_eq!((refused.status, refused.text()), (429, "limits.connections-per-address\n"));
    let _three = WebSocket::connect(from("192.0.2.2"));
    drop(one);
    wait_for(|| server.now().sessions_websocket == 2);
    let _four = WebSocket::connect(from("192.0.2.1"));
    assert_eq!(server.now().limit_hits[LimitKey::ConnectionsPerAddress as usize], 1);
}

// X-Forwarded-For.

#[test]
fn a_trusted_proxy_says_whom_a_request_is_for_and_nobody_else_does() {
    let trusted = ["127.0.0.2/32".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
    let server = Running::start(mirror().trusted_proxies(trusted));
    let said = [("X-Forwarded-For", "203.0.113.9, 192.0.2.1"), ("X-Forwarded-For", "10.0.0.5")];
    for (peer, headers, address) in [
        ("127.0.0.2", &said[..], "192.0.2.1"),
        ("127.0.0.2", &said[1..], "10.0.0.5"),
        ("127.0.0.2", &[], "127.0.0.2"),
        ("127.0.0.2", &[("X-Forwarded-For", "nonsense")], "127.0.0.2"),
        // Anybody can write a header.
        ("127.0.0.1", &said[..], "127.0.0.1"),
        ("127.0.0.3", &said[..], "127.0.0.3"),
    ] {
        let begun = handshake(WS_OPEN, headers);
        let stream = connect_from(peer, server.address);
        let mut websocket = WebSocket::begin(stream, begun.as_bytes());
        websocket.join();
        assert_eq!(websocket.ask_address(), address);
        // The same by polling.
        let mut http = Http::new(connect_from(peer, server.address));
        let open = http.get("/socket.io/?EIO=4&transport=polling", headers);
        let url = format!("/socket.io/?EIO=4&transport=polling&sid={}", sid_of(open.text()));
        http.post(&url, "40");
        http.post(&url, r#"421["address"]"#);
        let heard = http.get(&url, &[]);
        assert!(heard.text().contains(&format!(r#"431["{address}"]"#)), "{}", heard.text());
    }
}

#[test]
fn connections_of_trusted_proxies_count_under_their_clients() {
    let limits =
        Limits { connections: Some(20), connections_per_address: Some(2), ..Limits::default() };
    let trusted = ["127.0.0.2/32".parse().unwrap()];
    let server = Running::start(mirror().trusted_proxies(trusted).limits(limits).shards(1));
    let through = |client: &str| {
        let stream = connect_from("127.0.0.2", server.address);
        let request = handshake(WS_OPEN, &[("X-Forwarded-For", client)]);
        WebSocket::try_begin(stream, request.as_bytes())
    };
    // Requests of all clients go over whatever connections the proxy has.
    let mut pool =
        (0..5).map(|_| Http::new(connect_from("127.0.0.2", server.address))).collect::<Vec<_>>();
    for http in &mut pool {
        assert_eq!(http.get("/socket.io/?EIO=4&transport=polling", &[]).status, 200);
    }
    let one = through("192.0.2.1").unwrap();
    let _two = through("192.0.2.1").unwrap();
    let refused = through("192.0.2.1").err().unwrap();
    assert_eq!((refused.status, refused.text()), (429, "limits.connections-per-address\n"));
    let _other = through("192.0.2.2").unwrap();
    drop(one);
    wait_for(|| server.now().sessions_websocket == 2);
    let _again = through("192.0.2.1").unwrap();
    // Whoever comes without the proxy has its own share, whatever it says.
    let direct = |stream| {
        let request = handshake(WS_OPEN, &[("X-Forwarded-For", "192.0.2.7")]);
        WebSocket::try_begin(stream, request.as_bytes())
    };
    let _first = direct(connect(server.address)).unwrap();
    let _second = direct(connect(server.address)).unwrap();
    assert_eq!(direct(connect(server.address)).err().unwrap().status, 429);
}

#[test]
fn sessions_that_poll_through_a_trusted_proxy_count_under_their_clients() {
    let limits =
        Limits { connections: Some(20), connections_per_address: Some(2), ..Limits::default() };
    let trusted = ["127.0.0.2/32".parse().unwrap()];
    let server = Running::start(mirror().trusted_proxies(trusted).limits(limits).shards(2));
    let mut proxy = Http::new(connect_from("127.0.0.2", server.address));
    let mut open = |client: &str| {
        let answer =
            proxy.get("/socket.io/?EIO=4&transport=polling", &[("X-Forwarded-For", client)]);
        // A connection that brought a refusal is closed.
        if answer.status != 200 {
            proxy = Http::new(connect_from("127.0.0.2", server.address));
        }
        (answer.status, answer.text().to_owned())
    };
    let (_, one) = open("192.0.2.1");
    let (_, two) = open("192.0.2.1");
    let (status, why) = open("192.0.2.1");
    assert_eq!((status, &*why), (429, "limits.connections-per-address\n"));
    assert_eq!(open("192.0.2.2").0, 200, "others have a share of their own");

    // An upgrade is no further connection, and takes no place.
    let (one, two) = (sid_of(&one), sid_of(&two));
    let upgrade = format!("/socket.io/?EIO=4&transport=websocket&sid={one}");
    let upgrade = handshake(&upgrade, &[("X-Forwarded-For", "192.0.2.1")]);
    let stream = connect_from("127.0.0.2", server.address);
    let upgraded = WebSocket::try_begin(stream, upgrade.as_bytes());
    assert!(upgraded.is_ok());
    assert_eq!(open("192.0.2.1").0, 429);

    // The end of a session makes room.
    let mut http = Http::new(connect_from("127.0.0.2", server.address));
    assert_eq!(
        http.post(&format!("/socket.io/?EIO=4&transport=polling&sid={two}"), "1").status,
        200
    );
    wait_for(|| open("192.0.2.1").0 == 200);
    assert_eq!(open("192.0.2.1").0, 429);
    assert!(server.now().limit_hits[LimitKey::ConnectionsPerAddress as usize] >= 3);
}

// The server.

const DEADLINE: Duration = Duration::from_secs(10);

const WS_OPEN: &str = "/socket.io/?EIO=4&transport=websocket";

/// Acks what it is sent; `address` with the address that the session is from; sends `back` back.
#[derive(Default)]
struct Mirror(Mutex<Vec<(SocketRef, IpAddr)>>);

impl Handler for Mirror {
    fn on_connect(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        let address = request.handshake().address.unwrap();
        self.0.lock().unwrap().push((request.socket(), address));
        cx.accept(request);
    }

    fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, args: Args, ack: Option<Ack>) {
        let name = args.name().map(|name| name.into_owned());
        match (name.as_deref(), ack) {
            (Some("address"), Some(ack)) => {
                let known = self.0.lock().unwrap();
                let (_, address) = known.iter().find(|(known, _)| *known == socket).unwrap();
                cx.ack(ack, Args::from_values(&[address.to_string().into()]));
            }
            (Some("back"), None) => cx.emit(socket, args),
            (_, Some(ack)) => cx.ack(ack, args.rest()),
            (_, None) => {}
        }
    }
}

fn mirror() -> Builder {
    Server::builder().listen(any()).namespace("/", Mirror::default())
}

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn args(json: &str) -> Args {
    Args::new(json).unwrap()
}

/// A certificate for 127.0.0.1 in a directory of its own, which signed itself.
struct Certificate {
    _directory: TempDir,
    tls: Tls,
    der: CertificateDer<'static>,
}

impl Certificate {
    fn new() -> Self {
        Self::expiring(2070)
    }

    fn expiring(year: i32) -> Self {
        let mut params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, pem: String| -> PathBuf {
            let path = directory.path().join(name);
            fs::write(&path, pem).unwrap();
            path
        };
        let tls = Tls {
            cert_file: file("cert.pem", certificate.pem()),
            key_file: file("key.pem", key.serialize_pem()),
        };
        Self { tls, der: certificate.der().clone(), _directory: directory }
    }

    fn secure(&self, builder: Builder) -> Builder {
        builder.tls(self.tls.clone())
    }

    fn trust(&self) -> Trust {
        Trust::SystemAnd(vec![self.der.clone()])
    }

    fn only(&self) -> Trust {
        Trust::Only(self.der.clone())
    }

    /// Puts another certificate where this one is.
    fn replace_with(&self, other: &Self) {
        fs::rename(&other.tls.cert_file, &self.tls.cert_file).unwrap();
        fs::rename(&other.tls.key_file, &self.tls.key_file).unwrap();
    }

    fn client(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}

struct Running {
    address: SocketAddr,
    admin: SocketAddr,
    secure: bool,
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
        let secure = handle.certificate().is_some();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            server.run_blocking(async {
                let _ = stopped.await;
            })
        });
        Self { address, admin, secure, handle, stop: Some(stop), thread: Some(thread) }
    }

    async fn stats(&self) -> bowline_net::Stats {
        self.handle.stats().await
    }

    fn now(&self) -> bowline_net::Stats {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.stats())
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

fn wait_for(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "it did not come true");
        thread::sleep(Duration::from_millis(5));
    }
}

// Clients.

async fn dial(server: &Running, transports: Transports, trust: Trust) -> Connection {
    try_dial(server, transports, trust).await.unwrap()
}

async fn try_dial(
    server: &Running,
    transports: Transports,
    trust: Trust,
) -> Result<Connection, bowline_dial::ConnectError> {
    let scheme = if server.secure { "https" } else { "http" };
    dial_at(scheme, server, transports, trust).await
}

async fn dial_at(
    scheme: &str,
    server: &Running,
    transports: Transports,
    trust: Trust,
) -> Result<Connection, bowline_dial::ConnectError> {
    let config = Config { transports, ..Config::default() };
    let options = Options { config, trust, ..Options::default() };
    let url = format!("{scheme}://{}", server.address);
    let connecting = bowline_dial::connect(&url, options);
    tokio::time::timeout(DEADLINE, connecting).await.unwrap()
}

async fn wait_for_event(client: &mut Connection, wanted: impl Fn(&Event) -> bool) {
    let waiting = async {
        while let Some(event) = client.next_event().await {
            if wanted(&event) {
                return;
            }
        }
        panic!("the session ended");
    };
    tokio::time::timeout(DEADLINE, waiting).await.unwrap();
}

/// Whatever bytes travel on.
trait Bytes: Read + Write {}

impl<T: Read + Write> Bytes for T {}

fn connect(address: SocketAddr) -> TcpStream {
    connect_from("127.0.0.1", address)
}

fn connect_from(from: &str, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from = SocketAddr::new(from.parse::<IpAddr>().unwrap(), 0);
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

type TlsStream = StreamOwned<ClientConnection, TcpStream>;

fn tls(address: SocketAddr, config: &Arc<ClientConfig>) -> TlsStream {
    tls_on(connect(address), config)
}

fn tls_on(stream: TcpStream, config: &Arc<ClientConfig>) -> TlsStream {
    let name = IpAddr::from([127, 0, 0, 1]).into();
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), stream)
}

fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

struct Http<S: Bytes>(BufReader<S>);

impl Http<TlsStream> {
    fn over_tls(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        Self::new(tls(address, config))
    }

    fn tls(&self) -> &TlsStream {
        self.0.get_ref()
    }
}

impl<S: Bytes> Http<S> {
    fn new(stream: S) -> Self {
        Self(BufReader::new(stream))
    }

    fn get(&mut self, url: &str, headers: &[(&str, &str)]) -> Answer {
        self.request("GET", url, headers, "")
    }

    fn post(&mut self, url: &str, body: &str) -> Answer {
        self.request("POST", url, &[], body)
    }

    fn request(&mut self, method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut head = format!("{method} {url} HTTP/1.1\r\nHost: localhost\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        self.0.get_mut().write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
        self.read()
    }

    fn read(&mut self) -> Answer {
        let mut status = 0;
        let mut len = 0;
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "there was no answer");
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().unwrap();
            } else if let Some(value) = line.strip_prefix("content-length: ") {
                len = value.parse().unwrap();
            }
        }
        let mut body = vec![0; len];
        self.0.read_exact(&mut body).unwrap();
        Answer { status, body }
    }
}

fn sid_of(open: &str) -> &str {
    &open.strip_prefix(r#"0{"sid":""#).unwrap()[..20]
}

struct WebSocket<S: Bytes> {
    stream: S,
    decoder: Decoder,
    received: Vec<u8>,
}

impl<S: Bytes> WebSocket<S> {
    /// Opens a session and joins the root namespace.
    fn connect(stream: S) -> Self {
        let mut websocket = Self::begin(stream, handshake(WS_OPEN, &[]).as_bytes());
        websocket.join();
        websocket
    }

    fn begin(stream: S, request: &[u8]) -> Self {
        Self::try_begin(stream, request).ok().unwrap()
    }

    fn try_begin(mut stream: S, request: &[u8]) -> Result<Self, Answer> {
        stream.write_all(request).unwrap();
        let mut http = Http::new(stream);
        let answer = http.read();
        if answer.status != 101 {
            return Err(answer);
        }
        let received = http.0.buffer().to_vec();
        let stream = http.0.into_inner();
        Ok(Self { stream, decoder: Decoder::new(Role::Client), received })
    }

    fn join(&mut self) {
        assert!(self.hear().starts_with("0{"));
        self.say("40");
        assert!(self.hear().starts_with("40{"));
    }

    fn ask_address(&mut self) -> String {
        self.say(r#"429["address"]"#);
        let heard = self.hear();
        heard.strip_prefix(r#"439[""#).unwrap().strip_suffix(r#""]"#).unwrap().to_owned()
    }

    /// For one that has sent its CONNECT already.
    fn join_and_ask_address(&mut self) -> String {
        assert!(self.hear().starts_with("0{"));
        assert!(self.hear().starts_with("40{"));
        self.ask_address()
    }

    fn say(&mut self, text: &str) {
        self.try_say(text).unwrap();
    }

    fn try_say(&mut self, text: &str) -> io::Result<()> {
        let mut bytes = Vec::new();
        frame(&mut bytes, OpCode::Text, text.as_bytes());
        self.stream.write_all(&bytes)?;
        self.stream.flush()
    }

    fn send(&mut self, opcode: OpCode, payload: &[u8]) {
        let mut bytes = Vec::new();
        frame(&mut bytes, opcode, payload);
        self.stream.write_all(&bytes).unwrap();
    }

    fn next(&mut self) -> Incoming {
        let config = DecodeConfig { max_message_bytes: 10_000_000, deflate: false };
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
