//! The server that the official Socket.IO protocol test suite expects.

#![expect(clippy::print_stderr, reason = "an example says where it listens")]

mod flags;

use bowline_net::{
    Ack, ConnectRequest, Context, Handler, Keeping, SocketRef, Stamp, socketio::Args,
};
use clap::Parser;

/// Tells a client what it authenticated with, sends `message` back as `message-back`, and acks
/// `message-with-ack` with its arguments.
struct Suite;

impl Handler for Suite {
    fn on_connect(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        let auth = request.auth().map_or("{}", |auth| auth).to_owned();
        let socket = cx.accept(request);
        if let Ok(args) = Args::new(format!(r#"["auth",{auth}]"#)) {
            cx.emit(socket, args);
        }
    }

    fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, args: Args, ack: Option<Ack>) {
        match (args.name().as_deref(), ack) {
            (Some("message"), _) => cx.emit(socket, renamed("message-back", &args)),
            (Some("message-with-ack"), Some(ack)) => cx.ack(ack, args.rest()),
            _ => {}
        }
    }
}

/// The same arguments under another name.
fn renamed(name: &str, args: &Args) -> Args {
    let rest = args.rest();
    let inner = rest.json().trim().strip_prefix('[').unwrap_or("]");
    let comma = if inner.trim_start().starts_with(']') { "" } else { "," };
    let json = format!(r#"["{name}"{comma}{inner}"#);
    // Without attachments a placeholder is an object like any other.
    let renamed = match rest.attachments() {
        [] => Args::new(json),
        attachments => Args::with_attachments(json, attachments.to_vec()),
    };
    renamed.unwrap_or(rest)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The suites expect the packets of a server without recovery, and those that use `fetch` look like
    // browsers.
    let bare = || Keeping { stamp: Stamp::Never, ..Keeping::default() };
    let builder = flags::Flags::parse().builder();
    let builder = builder.namespace("/", Suite).keeping(bare());
    flags::serve(builder.namespace("/custom", Suite).keeping(bare()))
}
