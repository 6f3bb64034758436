//! socketioxide with the handlers that all peers have: `/` echoes, as an ack if one is asked for;
//! `/relay` sends to everybody; `/rooms` to the room that a client named when it connected.
//! On one thread, as it is measured on one core.
//!
//!     socketioxide-peer 127.0.0.1:8000

use std::{convert::Infallible, error::Error, sync::Arc};

// Holds text and bytes alike, as its documentation advises.
use rmpv::Value;
use serde::Deserialize;
use socketioxide::{
    SocketIo,
    adapter::Adapter,
    extract::{AckSender, Data, SocketRef},
    handler::FromMessageParts,
    socket::Socket,
};

#[derive(Deserialize)]
struct Auth {
    room: String,
}

/// Whether an event asks for an ack, which [`AckSender`] keeps to itself.
struct Asked(bool);

impl<A: Adapter> FromMessageParts<A> for Asked {
    type Error = Infallible;

    fn from_message_parts(
        _: &Arc<Socket<A>>,
        _: &mut socketioxide_core::Value,
        ack_id: &Option<i64>,
    ) -> Result<Self, Infallible> {
        Ok(Self(ack_id.is_some()))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: socketioxide-peer ADDR")?;
    let (layer, io) = SocketIo::new_layer();
    io.ns("/", async |socket: SocketRef| {
        socket.on(
            "message",
            async |socket: SocketRef, Asked(asked): Asked, Data(data): Data<Value>, ack: AckSender| {
                // A client that has gone gets no answer.
                let _ = if asked { ack.send(&data).is_ok() } else { socket.emit("message", &data).is_ok() };
            },
        );
    });
    io.ns("/relay", async |socket: SocketRef| {
        socket.on("message", async |io: SocketIo, Data(data): Data<Value>| {
            if let Some(relay) = io.of("/relay") {
                let _ = relay.emit("message", &data).await;
            }
        });
    });
    io.ns("/rooms", async |socket: SocketRef, Data(Auth { room }): Data<Auth>| {
        socket.join(room.clone());
        socket.on("message", async move |socket: SocketRef, Data(data): Data<Value>| {
            let _ = socket.within(room.clone()).emit("message", &data).await;
        });
    });
    let listener = tokio::net::TcpListener::bind(address).await?;
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| _ = stream.set_nodelay(true));
    axum::serve(listener, axum::Router::new().layer(layer)).await?;
    Ok(())
}
