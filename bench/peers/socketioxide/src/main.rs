//! socketioxide with the two handlers of `bowline serve`: `/` echoes, `/relay` sends to everybody.
//! On one thread, as it is measured on one core.
//!
//!     socketioxide-peer 127.0.0.1:8000

use serde_json::Value;
use socketioxide::{
    SocketIo,
    extract::{Data, SocketRef},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).ok_or("an address is missing")?;
    let (layer, io) = SocketIo::new_layer();
    io.ns("/", async |socket: SocketRef| {
        socket.on("message", async |socket: SocketRef, Data(data): Data<Value>| {
            let _ = socket.emit("message", &data);
        });
    });
    io.ns("/relay", async |socket: SocketRef| {
        socket.on("message", async |io: SocketIo, Data(data): Data<Value>| {
            if let Some(relay) = io.of("/relay") {
                let _ = relay.emit("message", &data).await;
            }
        });
    });
    let listener = tokio::net::TcpListener::bind(address).await?;
    let app = axum::Router::new().layer(layer);
    axum::serve(axum::serve::ListenerExt::tap_io(listener, |stream| _ = stream.set_nodelay(true)), app).await?;
    Ok(())
}
