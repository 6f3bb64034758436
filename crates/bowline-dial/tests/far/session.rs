//! A session with a server that is not what it should be.

use std::sync::{Arc, Mutex};

use bowline_dial::{Options, connect};
use bowline_proto::{
    client::{Config, Protocol, Transports},
    websocket::{Message, OpCode},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Duration, timeout},
};

use crate::servers::SocketServer;

#[tokio::test]
async fn whoever_waits_for_what_was_sent_waits_until_it_is_with_the_system() {
    let (go_on, may) = mpsc::channel::<()>(1);
    let may = Arc::new(Mutex::new(Some(may)));
    let server = SocketServer::start(false, "", move |mut peer| {
        let mut may = may.lock().unwrap().take().unwrap();
        async move {
            let open = br#"0{"sid":"s","upgrades":[],"pingInterval":25000,"pingTimeout":20000}"#;
            peer.send(OpCode::Text, open).await;
            may.recv().await;
            while peer.hear().await.is_some() {}
        }
    })
    .await;
    let config = Config {
        protocol: Protocol::EngineIo,
        transports: Transports::WebSocket,
        ..Config::default()
    };
    let options = Options { config, ..Options::default() };
    let connection = connect(&server.url(), options).await.unwrap();
    let handle = connection.handle();
    handle.written().await.unwrap();
    // More than a system keeps for a server that does not read.
    let mut all = JoinSet::new();
    for _ in 0..32 {
        let handle = handle.clone();
        let message = Message::Binary(vec![0; 1 << 20].into());
        all.spawn(async move { handle.send(message).await });
    }
    let mut written = Box::pin(async {
        while let Some(sent) = all.join_next().await {
            sent.unwrap().unwrap();
        }
        handle.written().await
    });
    assert!(timeout(Duration::from_millis(20), &mut written).await.is_err());
    go_on.send(()).await.unwrap();
    written.await.unwrap();

    let waiting = handle.clone();
    drop(connection);
    assert!(waiting.written().await.is_err());
}
