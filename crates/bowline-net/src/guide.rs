//! How an application is built on Bowline.
//!
//! An application is a [`Handler`] for each namespace. A server calls it on the thread that owns the
//! socket in question, one call at a time for each socket, many sockets at once on several threads.
//! So a handler must not block, and what it remembers stands behind a lock or in an atomic. It acts
//! through its [`Context`]; every other thread acts through a [`Handle`], which can do the same.
//! Whatever names a socket, a [`SocketRef`], stays valid when the socket is gone: nothing happens
//! then, and nothing fails.
//!
//! `examples/auction` is a whole program with all of this in it, `examples/chat.rs` a smaller one.
//!
//! # State
//!
//! A handler is shared by all threads, so `&self` is all it gets. What belongs to one socket can be
//! kept in a map by its [`SocketRef`], or, as text of up to 16 KiB, [with the
//! socket](crate::Context::set_data), where it ends by itself.
//!
//! ```
//! use std::{collections::BTreeMap, sync::{Mutex, PoisonError}};
//! use bowline_net::{
//!     Ack, ConnectRequest, Context, DisconnectReason, Handler, SocketRef, socketio::Args,
//! };
//!
//! /// Counts what each socket says.
//! #[derive(Default)]
//! struct Counts(Mutex<BTreeMap<SocketRef, u64>>);
//!
//! impl Handler for Counts {
//!     fn on_connect(&self, cx: &mut Context<'_>, request: ConnectRequest) {
//!         let socket = cx.accept(request);
//!         self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(socket, 0);
//!     }
//!
//!     fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, _: Args, ack: Option<Ack>) {
//!         let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
//!         let Some(count) = counts.get_mut(&socket) else { return };
//!         *count += 1;
//!         if let Some(ack) = ack {
//!             cx.ack(ack, Args::from_values(&[(*count).into()]));
//!         }
//!     }
//!
//!     fn on_disconnect(&self, _: &mut Context<'_>, socket: SocketRef, _: DisconnectReason) {
//!         self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&socket);
//!     }
//! }
//! ```
//!
//! # Events
//!
//! [`Args`] are the arguments of an event as the JSON array they came in, its name first. Reading
//! them into a tuple checks them too. Everything a client sends may be wrong: what cannot be read is
//! best answered in the ack, or not at all.
//!
//! ```
//! use bowline_net::socketio::Args;
//!
//! let said = Args::new(r#"["move",{"x":3},true]"#)?;
//! assert_eq!(said.name().as_deref(), Some("move"));
//!
//! #[derive(serde::Deserialize)]
//! struct Point { x: i32 }
//! let (_, point, fast) = said.parse::<(String, Point, bool)>()?;
//! assert_eq!((point.x, fast), (3, true));
//! assert!(said.parse::<(String, String)>().is_err());
//!
//! let answer = Args::event("moved", &(point.x, "ok"))?;
//! assert_eq!(answer.json(), r#"["moved",3,"ok"]"#);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Acks
//!
//! A client that passes a callback asks for an ack: it comes as an [`Ack`], is answered once, now or
//! later, here or through a [`Handle`], and dropped leaves the client waiting. The other way round
//! [`Context::emit_with_ack`] asks one client, and [`Handle::broadcast_with_acks`] asks many.
//!
//! ```
//! use std::time::Duration;
//! use bowline_net::{Ack, Context, Handler, SocketRef, socketio::Args};
//!
//! struct Quiz;
//!
//! impl Handler for Quiz {
//!     fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, args: Args, ack: Option<Ack>) {
//!         if let Some(ack) = ack {
//!             cx.ack(ack, args.rest()); // What came after the name of the event.
//!         }
//!         let question = Args::from_values(&["question".into(), "6 × 7?".into()]);
//!         cx.emit_with_ack(socket, question, Duration::from_secs(20), move |cx, answer| {
//!             // An error says that there is none: it took too long, or the client is gone.
//!             let answer = answer.ok().and_then(|args| args.parse::<(u32,)>().ok());
//!             let right = answer == Some((42,));
//!             cx.emit(socket, Args::from_values(&["right".into(), right.into()]));
//!         });
//!     }
//! }
//! ```
//!
//! # Rooms
//!
//! A room is a name within a namespace; it is there while somebody is in it. Sockets
//! [join](crate::Context::join) and [leave](crate::Context::leave), and leave all rooms when they
//! go. A [`Broadcast`] goes to a whole namespace or to rooms, except to other rooms; each socket gets it
//! once. The Socket.IO sid of a socket is the name of a room in which it is alone. A broadcast reaches
//! the sockets of other threads a moment later, so who joins a room in that moment hears it too.
//!
//! ```
//! use bowline_net::{Ack, Broadcast, Context, Handler, SocketRef, socketio::Args};
//!
//! struct Tables;
//!
//! impl Handler for Tables {
//!     fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, args: Args, _: Option<Ack>) {
//!         match args.parse::<(String, String)>() {
//!             Ok((event, table)) if event == "sit" => cx.join(socket, table),
//!             Ok((event, table)) if event == "rise" => cx.leave(socket, table),
//!             Ok((event, table)) if event == "knock" => {
//!                 let Some(view) = cx.socket(socket) else { return };
//!                 let others = Broadcast::new("/", args).to(table).except(view.id.to_string());
//!                 cx.broadcast(others.volatile()); // Who cannot take it at once can do without.
//!             }
//!             _ => {}
//!         }
//!     }
//! }
//! ```
//!
//! # Authentication
//!
//! Who a client is stands in the payload of its CONNECT packet, the `auth` of the official client,
//! or in the headers of its first request. The request may be kept, checked elsewhere, and answered
//! from there. Rooms and data that are [given with the answer](crate::Context::accept_with) are there
//! before the client knows that it is in; a socket that was let in for a time is [sent
//! away](crate::Context::expire) when that is over.
//!
//! ```
//! use std::time::Duration;
//! use bowline_net::{
//!     Ack, ConnectRequest, Context, ErrorCode, Handler, SocketData, SocketRef, socketio::Args,
//! };
//! # fn look_up(token: &str) -> Option<(String, Duration)> { None }
//!
//! struct Members;
//!
//! #[derive(serde::Deserialize)]
//! struct Auth { token: String }
//!
//! impl Handler for Members {
//!     fn on_connect(&self, cx: &mut Context<'_>, request: ConnectRequest) {
//!         // Elsewhere, because looking it up takes time. A busy program has a pool of threads.
//!         let handle = cx.handle();
//!         std::thread::spawn(move || {
//!             let auth = request.auth().and_then(|text| serde_json::from_str::<Auth>(text).ok());
//!             match auth.and_then(|auth| look_up(&auth.token)) {
//!                 Some((name, rest)) => {
//!                     let room = format!("user-{name}");
//!                     let data = SocketData::new(&name).ok();
//!                     let socket = handle.accept_with(request, [room], data);
//!                     // A server that has stopped sends everybody away.
//!                     let _ = handle.expire(socket, rest, ErrorCode::TokenExpired);
//!                 }
//!                 None => {
//!                     let data = r#"{"code":"who-are-you"}"#.into();
//!                     handle.refuse(request, "Who are you?", Some(data));
//!                 }
//!             }
//!         });
//!     }
//!
//!     fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, _: Args, ack: Option<Ack>) {
//!         let name = cx.socket(socket).and_then(|view| view.data().cloned());
//!         if let (Some(ack), Some(name)) = (ack, name) {
//!             cx.ack(ack, Args::from_values(&[(&**name.text()).into()]));
//!         }
//!     }
//! }
//! ```
//!
//! # Binary
//!
//! Binary arguments travel beside the JSON, which has a placeholder for each.
//!
//! ```
//! use bowline_net::socketio::Args;
//! use bytes::Bytes;
//! use serde_json::{Value, json};
//!
//! let photo = Bytes::from_static(b"\x89PNG");
//! let json = json!(["photo", "cat", Args::placeholder(0)]).to_string();
//! let args = Args::with_attachments(json, vec![photo.clone()])?;
//!
//! let (_, name, data) = args.parse::<(String, String, Value)>()?;
//! assert_eq!((&*name, args.attachment(&data)), ("cat", Some(&photo)));
//! assert_eq!(args.attachment(&json!("no placeholder")), None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # From outside
//!
//! A [`Handle`] comes from a [`Server`] or a [`Context`], is cheap to clone, and works on any thread
//! from before the server runs until after it has stopped. Most of its methods hand their wish over
//! and return; [`Busy`] says that too many wait. Those that answer are `async` and need no particular
//! runtime.
//!
//! ```no_run
//! use std::time::Duration;
//! use bowline_net::{Broadcast, Delivery, Relay, Server, Whom, socketio::Args};
//!
//! # async fn program() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::builder().listen("127.0.0.1:0".parse()?).namespace("/news", Relay).bind()?;
//! let handle = server.handle();
//! std::thread::spawn(move || server.run_blocking(std::future::pending()));
//!
//! let flash = Args::event("flash", &("It rains.",))?;
//! handle.broadcast(Broadcast::new("/news", flash.clone()))?;
//! // Kept for a minute if nobody is there to hear it.
//! let flash = Broadcast::new("/news", flash).to("weather");
//! match handle.broadcast_held(flash.clone(), Duration::from_secs(60)).await? {
//!     Delivery::Reached(sockets) => println!("told {sockets}"),
//!     Delivery::Held => println!("the first who comes will hear it"),
//! }
//! // Who has seen it?
//! let answers = handle.broadcast_with_acks(flash, Duration::from_secs(5), 1_000).await?;
//! println!("{} of {} have", answers.acks.len(), answers.receivers);
//! handle.join_room("/news", Whom::All, ["weather"]).await;
//! # Ok(())
//! # }
//! ```
//!
//! [`Ack`]: crate::Ack
//! [`Args`]: crate::socketio::Args
//! [`Broadcast`]: crate::Broadcast
//! [`Busy`]: crate::Busy
//! [`Context`]: crate::Context
//! [`Context::emit_with_ack`]: crate::Context::emit_with_ack
//! [`Handle`]: crate::Handle
//! [`Handle::broadcast_with_acks`]: crate::Handle::broadcast_with_acks
//! [`Handler`]: crate::Handler
//! [`Server`]: crate::Server
//! [`SocketRef`]: crate::SocketRef
