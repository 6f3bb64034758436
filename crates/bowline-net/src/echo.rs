//! The handler `echo`.

use bowline_proto::{socketio::Args, websocket::Message};

use crate::handler::{Ack, Context, EngineHandler, Handler, SessionRef, SocketRef};

/// Sends every event back to its sender, name and arguments. Asked for an ack, it acks with the
/// arguments instead. Over bare Engine.IO it sends every message back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo;

impl Handler for Echo {
    fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, args: Args, ack: Option<Ack>) {
        match ack {
            Some(ack) => cx.ack(ack, args.rest()),
            None => cx.emit(socket, args),
        }
    }
}

impl EngineHandler for Echo {
    fn on_message(&self, cx: &mut Context<'_>, session: SessionRef, message: Message) {
        cx.send(session, message);
    }
}
