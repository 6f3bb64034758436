//! Rooms: a client names one in `auth.room` when it connects to `/rooms`, and everybody in it hears
//! its events.

#![expect(clippy::print_stderr, reason = "an example says where it listens")]

mod flags;

use bowline_net::{Ack, Broadcast, ConnectRequest, Context, Handler, SocketRef, socketio::Args};
use clap::Parser;
use serde_json::Value;

struct Rooms;

impl Handler for Rooms {
    fn on_connect(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        let auth = request.auth().and_then(|auth| serde_json::from_str::<Value>(auth).ok());
        match auth.as_ref().and_then(|auth| auth["room"].as_str()) {
            Some(room) => {
                let room = room.to_owned();
                cx.accept_with(request, [room], None);
            }
            None => cx.refuse(request, "auth.room is missing", None),
        }
    }

    fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, args: Args, _ack: Option<Ack>) {
        let Some(view) = cx.socket(socket) else { return };
        let namespace = view.namespace.clone();
        let room = cx.rooms(socket).next().map(str::to_owned);
        if let Some(room) = room {
            cx.broadcast(Broadcast::new(namespace, args).to(room));
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    flags::serve(flags::Flags::parse().builder().namespace("/rooms", Rooms))
}
