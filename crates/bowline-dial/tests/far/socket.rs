//! The bare WebSocket.

use std::{
    io::ErrorKind,
    sync::{Arc, Mutex},
    time::Duration,
};

use bowline_dial::{
    Message,
    socket::{self, Socket, SocketEvent, SocketOptions, SocketRefusal},
};
use bowline_proto::websocket::{Incoming, OpCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

use crate::servers::{DEADLINE, SocketServer};

#[tokio::test]
async fn messages_go_both_ways_and_the_handshake_says_what_it_should() {
    for tls in [false, true] {
        let (heads, mut head) = mpsc::channel(1);
        let server =
            SocketServer::start(tls, "Sec-WebSocket-Protocol: two\r\n", move |mut peer| {
                let heads = heads.clone();
                async move {
                    heads.send(peer.head.clone()).await.unwrap();
                    while let Some(Incoming::Message(message)) = peer.hear().await {
                        peer.send(message.opcode(), message.as_bytes()).await;
                    }
                }
            })
            .await;
        let options = SocketOptions {
            headers: vec![("authorization".to_owned(), "Bearer x".to_owned())],
            protocols: vec!["one".to_owned(), "two".to_owned()],
            ..options(&server)
        };
        let mut socket = open(options).await.unwrap();
        assert_eq!(socket.protocol.as_deref(), Some("two"));
        let head = head.recv().await.unwrap();
        assert!(head.starts_with("get /chat?x=1 http/1.1\r\n"), "{head}");
        assert!(head.contains("\r\nauthorization: bearer x\r\n"), "{head}");
        assert!(head.contains("\r\nsec-websocket-protocol: one, two\r\n"), "{head}");

        let large = Message::Binary(vec![7; 100_000].into());
        for message in [Message::Text("hello".into()), large, Message::Text("".into())] {
            socket.sender.send(message.clone()).await.unwrap();
            assert_eq!(message_of(&mut socket).await, message);
        }
    }
}

#[tokio::test]
async fn a_mark_is_told_when_what_was_sent_before_is_with_the_system() {
    let (go_on, mut may) = mpsc::channel(1);
    let may = Arc::new(Mutex::new(Some(move || async move { may.recv().await })));
    let server = SocketServer::start(false, "", move |mut peer| {
        let may = may.lock().unwrap().take().unwrap();
        async move {
            may().await;
            while peer.hear().await.is_some() {}
        }
    })
    .await;
    let mut socket = open(options(&server)).await.unwrap();
    socket.sender.mark("nothing".to_owned()).await.unwrap();
    assert_eq!(next(&mut socket).await, Some(SocketEvent::Written("nothing".to_owned())));
    // More than a system keeps for a server that does not read.
    for _ in 0..32 {
        socket.sender.send(Message::Binary(vec![0; 1 << 20].into())).await.unwrap();
        if !socket.sender.has_room() {
            break;
        }
    }
    let sender = socket.sender.clone();
    let marking = async { sender.mark("all".to_owned()).await.unwrap() };
    assert!(timeout(Duration::from_millis(20), socket.next()).await.is_err());
    go_on.send(()).await.unwrap();
    let (told, ()) = tokio::join!(next(&mut socket), marking);
    assert_eq!(told, Some(SocketEvent::Written("all".to_owned())));
}

#[tokio::test]
async fn pings_are_answered_and_pongs_told() {
    let server = SocketServer::start(false, "", |mut peer| async move {
        peer.send(OpCode::Ping, b"are you there").await;
        assert_eq!(peer.hear().await, Some(Incoming::Pong("are you there".into())));
        let Some(Incoming::Ping(payload)) = peer.hear().await else { panic!() };
        peer.send(OpCode::Pong, &payload).await;
        peer.hear().await;
    })
    .await;
    let mut socket = open(options(&server)).await.unwrap();
    assert_eq!(next(&mut socket).await, Some(SocketEvent::Heard));
    socket.sender.ping("and you").await.unwrap();
    assert_eq!(next(&mut socket).await, Some(SocketEvent::Pong("and you".into())));
}

#[tokio::test]
async fn the_servers_goodbye_is_told_and_answered() {
    let (heard, mut hearing) = mpsc::channel(1);
    let server = SocketServer::start(false, "", move |mut peer| {
        let heard = heard.clone();
        async move {
            peer.send(OpCode::Text, b"last words").await;
            peer.close(4000, "Replaced").await;
            heard.send(peer.hear().await).await.unwrap();
        }
    })
    .await;
    let mut socket = open(options(&server)).await.unwrap();
    assert_eq!(message_of(&mut socket).await, Message::Text("last words".into()));
    let closed =
        SocketEvent::Closed { code: Some(4000), reason: "Replaced".to_owned(), clean: true };
    assert_eq!(next(&mut socket).await, Some(closed));
    assert_eq!(next(&mut socket).await, None);
    let Some(Some(Incoming::Close(answer))) = hearing.recv().await else { panic!() };
    assert_eq!(answer.code, Some(4000));
    assert!(socket.sender.send(Message::Text("x".into())).await.is_err());
    assert!(socket.sender.close(1000, "", DEADLINE).is_err());
}

#[tokio::test]
async fn our_goodbye_comes_after_what_was_said_before() {
    let (heard, mut hearing) = mpsc::channel(10);
    let server = SocketServer::start(false, "", move |mut peer| {
        let heard = heard.clone();
        async move {
            while let Some(incoming) = peer.hear().await {
                let is_close = matches!(incoming, Incoming::Close(_));
                heard.send(incoming).await.unwrap();
                if is_close {
                    peer.send(OpCode::Text, b"one more").await;
                    peer.close(1000, "bye").await;
                }
            }
        }
    })
    .await;
    let mut socket = open(options(&server)).await.unwrap();
    socket.sender.send(Message::Text("first".into())).await.unwrap();
    socket.sender.close(1001, "going away", DEADLINE).unwrap();
    // What the server says until it has heard it still counts.
    assert_eq!(message_of(&mut socket).await, Message::Text("one more".into()));
    let closed = SocketEvent::Closed { code: Some(1000), reason: "bye".to_owned(), clean: true };
    assert_eq!(next(&mut socket).await, Some(closed));
    let first = Incoming::Message(Message::Text("first".into()));
    assert_eq!(hearing.recv().await, Some(first));
    let Some(Incoming::Close(close)) = hearing.recv().await else { panic!() };
    assert_eq!((close.code, &*close.reason), (Some(1001), "going away"));
}

#[tokio::test]
async fn a_server_that_does_not_close_is_left_by_a_reset() {
    let (ended, mut ending) = mpsc::channel(1);
    let server = SocketServer::start(false, "", move |mut peer| {
        let ended = ended.clone();
        async move {
            let mut bytes = Vec::new();
            let end = loop {
                match peer.stream.read_buf(&mut bytes).await {
                    Ok(0) => break None,
                    Ok(_) => {}
                    Err(error) => break Some(error.kind()),
                }
            };
            ended.send(end).await.unwrap();
        }
    })
    .await;
    let mut socket = open(options(&server)).await.unwrap();
    socket.sender.close(1000, "", Duration::from_millis(30)).unwrap();
    let Some(SocketEvent::Closed { code: None, clean: false, .. }) = next(&mut socket).await else {
        panic!()
    };
    assert_eq!(ending.recv().await, Some(Some(ErrorKind::ConnectionReset)));
}

#[tokio::test]
async fn a_close_is_not_held_up_by_what_cannot_be_sent() {
    let server = SocketServer::start(false, "", |peer| async move {
        // It reads nothing.
        std::future::pending::<()>().await;
        drop(peer);
    })
    .await;
    let mut socket = open(options(&server)).await.unwrap();
    let sender = socket.sender.clone();
    let mut flood = JoinSet::new();
    flood.spawn(async move {
        let message = Message::Binary(vec![0; 1 << 20].into());
        while sender.send(message.clone()).await.is_ok() {}
    });
    while socket.sender.has_room() {
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    socket.sender.close(1000, "", Duration::from_millis(30)).unwrap();
    let Some(SocketEvent::Closed { clean: false, .. }) = next(&mut socket).await else { panic!() };
    timeout(DEADLINE, flood.join_next()).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_breaks_is_closed_without_a_code() {
    let server = SocketServer::start(false, "", |peer| async move { drop(peer) }).await;
    let mut socket = open(options(&server)).await.unwrap();
    let Some(SocketEvent::Closed { code: None, clean: false, .. }) = next(&mut socket).await else {
        panic!()
    };
    assert_eq!(next(&mut socket).await, None);
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_it() {
    let (heard, mut hearing) = mpsc::channel(1);
    let server = SocketServer::start(false, "", move |mut peer| {
        let heard = heard.clone();
        async move {
            peer.send(OpCode::Text, &[b'x'; 1001]).await;
            heard.send(peer.hear().await).await.unwrap();
        }
    })
    .await;
    let options = SocketOptions { max_message_bytes: 1000, ..options(&server) };
    let mut socket = open(options).await.unwrap();
    let Some(SocketEvent::Closed { code: None, clean: false, .. }) = next(&mut socket).await else {
        panic!()
    };
    let Some(Some(Incoming::Close(close))) = hearing.recv().await else { panic!() };
    assert_eq!(close.code, Some(1009));
}

#[tokio::test]
async fn a_refusal_is_told_with_all_that_was_said() {
    let body = format!("{{\"message\":\"{}\"}}", "x".repeat(6000));
    let refusal = answered(format!(
        "HTTP/1.1 429 Too Many\r\nRetry-After: 7\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
    .await
    .unwrap_err();
    assert_eq!(refusal.status, Some(429));
    assert_eq!(refusal.headers["retry-after"], "7");
    assert_eq!((&refusal.body[..], refusal.body.len()), (&body.as_bytes()[..4096], 4096));
    assert_eq!(refusal.words, "the server refused the WebSocket with status 429");
    let refusal = answered("HTTP/1.1 404 None\r\nContent-Length: 0\r\n\r\n".to_owned()).await;
    assert_eq!(refusal.unwrap_err().status, Some(404));
    let refusal = answered("SSH-2.0-server\r\n\r\n".to_owned()).await.unwrap_err();
    assert_eq!((refusal.status, refusal.body.len()), (None, 0));
}

#[tokio::test]
async fn what_is_no_websocket_is_not_opened() {
    let options = |url: &str| SocketOptions {
        connect_timeout: Duration::from_millis(50),
        ..SocketOptions::new(url)
    };
    for url in ["", "ftp://localhost", "ws://user:word@localhost", "ws://127.0.0.1:1/"] {
        assert_eq!(open(options(url)).await.unwrap_err().status, None, "{url}");
    }
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/?secret", silent.local_addr().unwrap());
    let refusal = open(options(&url)).await.unwrap_err();
    assert!(refusal.words.ends_with("took too long"), "{}", refusal.words);
    assert!(!refusal.words.contains("secret"));

    let header = "Sec-WebSocket-Protocol: unasked\r\n";
    let server = SocketServer::start(false, header, |peer| async move { drop(peer) }).await;
    let refusal = open(self::options(&server)).await.unwrap_err();
    assert_eq!(refusal.words, "the server chose a subprotocol that was not offered");
}

fn options(server: &SocketServer) -> SocketOptions {
    let trust = server.trust.clone().unwrap_or_default();
    SocketOptions { trust, ..SocketOptions::new(server.url()) }
}

async fn open(options: SocketOptions) -> Result<Socket, SocketRefusal> {
    timeout(DEADLINE, socket::open(options)).await.unwrap()
}

async fn next(socket: &mut Socket) -> Option<SocketEvent> {
    timeout(DEADLINE, socket.next()).await.unwrap()
}

/// The next message; bytes before it do not count.
async fn message_of(socket: &mut Socket) -> Message {
    loop {
        match next(socket).await {
            Some(SocketEvent::Message(message)) => return message,
            Some(SocketEvent::Heard) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// What comes of a server that answers the handshake with this.
async fn answered(answer: String) -> Result<Socket, SocketRefusal> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let mut task = JoinSet::new();
    task.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read_u8().await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        // The rest of the request is read, so that the answer is not lost by a reset.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    });
    open(SocketOptions::new(url)).await
}
