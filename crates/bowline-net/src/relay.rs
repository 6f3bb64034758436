//! The handler `relay`.

use bowline_proto::socketio::Args;

use crate::handler::{Ack, Broadcast, Context, Handler, SocketRef};

/// Sends every event to everybody in its namespace, the sender included. Asked for an ack, it
/// acks `{"receivers":N}` when all shards have sent theirs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Relay;

impl Handler for Relay {
    fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, args: Args, ack: Option<Ack>) {
        let Some(namespace) = cx.socket(socket).map(|view| view.namespace.clone()) else { return };
        let broadcast = Broadcast::new(namespace, args);
        match ack {
            None => cx.broadcast(broadcast),
            Some(ack) => cx.broadcast_counted(broadcast, move |cx, receivers| {
                match Args::new(format!(r#"[{{"receivers":{receivers}}}]"#)) {
                    Ok(args) => cx.ack(ack, args),
                    Err(error) => tracing::error!(%error, "a relay ack is not JSON"),
                }
            }),
        }
    }
}
