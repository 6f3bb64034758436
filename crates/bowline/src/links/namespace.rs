//! Messages of a link to whoever is in a namespace, and back.
//!
//! A message is the event `message` with an ack, for the socket that came last: its ack confirms it. What sockets of the
//! namespace emit goes to the service: over `socketio` the event as it is, else its first argument.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bowline_backend::wire_args;
use bowline_link::{
    bot::{Deliver, Mouth, Offer, Outcome, Presence, Said},
    far::{Boxed, Outgoing, Unsaid},
};
use bowline_net::{
    Ack, AckError, ConnectRequest, Context, DisconnectReason, Handle, Handler, SocketRef,
    socketio::Args,
};
use bytes::Bytes;
use serde_json::{json, value::RawValue};
use tokio::{
    runtime,
    sync::{Semaphore, oneshot, watch},
};

use super::{message, unsaid_code};
use crate::config::Profile;

/// The event that a message is.
const EVENT: &str = "message";

/// What sockets may have under way to the service together: as many as a connection has room for, and some.
const SAYING: usize = 512;

/// A namespace that a link delivers to. Lives as long as its name stands in the configuration.
pub(super) struct Door {
    namespace: String,
    office: runtime::Handle,
    handle: Arc<OnceLock<Handle>>,
    state: Mutex<State>,
    /// How many sockets could take a message.
    present: watch::Sender<usize>,
    saying: Arc<Semaphore>,
    asked: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Who is in, whoever came last behind; and whether its client is there.
    sockets: Vec<(SocketRef, bool)>,
    /// Where what they say goes, and in which form.
    mouth: Option<(Mouth, Profile)>,
    /// How often that was set.
    set: u64,
}

impl Door {
    pub(super) fn new(
        namespace: &str,
        office: runtime::Handle,
        handle: Arc<OnceLock<Handle>>,
    ) -> Self {
        Self {
            namespace: namespace.to_owned(),
            office,
            handle,
            state: Mutex::default(),
            present: watch::Sender::new(0),
            saying: Arc::new(Semaphore::new(SAYING)),
            asked: AtomicU64::new(0),
        }
    }

    /// The way in for a link, whose sockets speak to this mouth from now on.
    pub(super) fn deliver(
        self: &Arc<Self>,
        mouth: Mouth,
        profile: Profile,
        patience: Duration,
    ) -> ToSockets {
        let mut state = self.state();
        state.mouth = Some((mouth, profile));
        state.set += 1;
        ToSockets { door: Arc::clone(self), set: state.set, profile, patience }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Vec<(SocketRef, bool)>)) {
        let mut state = self.state();
        change(&mut state.sockets);
        let present = state.sockets.iter().filter(|(_, present)| *present).count();
        self.present.send_if_modified(|now| std::mem::replace(now, present) != present);
    }

    fn set(&self, socket: SocketRef, present: bool) {
        self.change(|sockets| match sockets.iter_mut().find(|(known, _)| *known == socket) {
            Some((_, is)) => *is = present,
            // One that was taken over from the server before this one.
            None => sockets.push((socket, present)),
        });
    }

    /// Who is offered messages.
    fn latest(&self) -> Option<SocketRef> {
        let state = self.state();
        state.sockets.iter().rev().find(|(_, present)| *present).map(|(socket, _)| *socket)
    }

    /// Passes on what a socket says. The ack tells what came of it.
    fn say(&self, args: &Args, ack: Option<Ack>) {
        let mouth = self.state().mouth.clone();
        let said = match &mouth {
            None => Err("the link is not there yet".into()),
            Some((_, profile)) => spoken(*profile, args).map_err(Unsaid::NotSent),
        };
        let permit = Arc::clone(&self.saying).try_acquire_owned();
        let (said, permit, mouth) = match (said, permit, mouth) {
            (Ok(said), Ok(permit), Some((mouth, _))) => (said, permit, mouth),
            (Err(unsaid), ..) => return self.tell(ack, Err(unsaid)),
            (Ok(_), ..) => return self.tell(ack, Err("too much waits for the service".into())),
        };
        let ask = ack.is_some().then(|| self.asked.fetch_add(1, Relaxed));
        let (done, told) = oneshot::channel();
        let said = Said::Send { outgoing: Outgoing { ask, ..said }, done };
        if mouth.try_send(said).is_err() {
            return self.tell(ack, Err("too much waits for the service".into()));
        }
        let handle = Arc::clone(&self.handle);
        // It ends when the link has said what came of it, which has a deadline of its own.
        drop(self.office.spawn(async move {
            let told = told.await.unwrap_or_else(|_| Err("the link has ended".into()));
            drop(permit);
            answer(handle.get(), ack, told);
        }));
    }

    fn tell(&self, ack: Option<Ack>, told: Result<Bytes, Unsaid>) {
        answer(self.handle.get(), ack, told);
    }
}

impl Handler for Door {
    fn on_connect(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        let socket = cx.accept(request);
        self.set(socket, true);
    }

    fn on_event(&self, _: &mut Context<'_>, _: SocketRef, args: Args, ack: Option<Ack>) {
        self.say(&args, ack);
    }

    fn on_away(&self, _: &mut Context<'_>, socket: SocketRef, _: DisconnectReason) {
        self.set(socket, false);
    }

    fn on_back(&self, _: &mut Context<'_>, socket: SocketRef) {
        self.set(socket, true);
    }

    fn on_disconnect(&self, _: &mut Context<'_>, socket: SocketRef, _: DisconnectReason) {
        self.change(|sockets| sockets.retain(|(known, _)| *known != socket));
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// A link's way to the sockets of a namespace.
#[derive(Debug)]
pub(super) struct ToSockets {
    door: Arc<Door>,
    /// Which of those that were made at this door.
    set: u64,
    profile: Profile,
    /// How long a socket may take for its ack.
    patience: Duration,
}

impl ToSockets {
    async fn emit(&self, offer: Offer) -> Outcome {
        let args = match message::for_socket(&offer).and_then(|told| event(&told)) {
            Ok(args) => args,
            Err(words) => return Outcome::Refused(words),
        };
        let (Some(socket), Some(handle)) = (self.door.latest(), self.door.handle.get()) else {
            return Outcome::Absent;
        };
        let (tell, told) = oneshot::channel();
        let sent = handle.emit_with_ack(socket, args, self.patience, move |_, acked| {
            // Whoever asked may have stopped waiting.
            let _ = tell.send(acked);
        });
        if sent.is_err() {
            return Outcome::Unconfirmed("the shard of the socket has too much to do".to_owned());
        }
        match told.await {
            Ok(Ok(args)) => acked(self.profile, &offer, &args),
            Ok(Err(AckError::TimedOut)) => {
                Outcome::Unconfirmed(format!("no ack within {}", seconds(self.patience)))
            }
            Ok(Err(AckError::Disconnected)) => Outcome::Lost("the socket has left".to_owned()),
            Ok(Err(AckError::TooMany)) => {
                Outcome::Unconfirmed("the socket owes too many acks".to_owned())
            }
            Err(_) => Outcome::Unconfirmed("the server stops".to_owned()),
        }
    }
}

impl Deliver for ToSockets {
    fn offer(&self, offer: Offer) -> Boxed<'_, Outcome> {
        Box::pin(self.emit(offer))
    }

    fn ready(&self) -> Boxed<'_, ()> {
        let mut present = self.door.present.subscribe();
        Box::pin(async move {
            // The sender is the door's, which is held here.
            let _ = present.wait_for(|present| *present > 0).await;
        })
    }

    fn presence(&self) -> Presence {
        let connections = *self.door.present.borrow();
        let word = if connections == 1 { "socket" } else { "sockets" };
        let words = format!("{connections} {word} in {}", self.door.namespace);
        Presence { connections, words }
    }
}

impl Drop for ToSockets {
    fn drop(&mut self) {
        let mut state = self.door.state();
        // The link may have been given another way in meanwhile.
        if state.set == self.set {
            state.mouth = None;
        }
    }
}

/// What the ack of a message says.
fn acked(profile: Profile, offer: &Offer, args: &Args) -> Outcome {
    let json = wire_args::to_json(args);
    let values: Vec<&RawValue> = serde_json::from_str(&json).unwrap_or_default();
    let answers = matches!(&*values, [answer] if message::is_answer(answer.get()));
    if profile == Profile::SocketIo && offer.message.receipt.is_some() && !answers {
        // The service has asked for an ack: it is the one that the bot has given.
        let body = Bytes::copy_from_slice(json.as_bytes());
        let reply_to = Some(offer.message.id.clone());
        return Outcome::Confirmed {
            replies: vec![Outgoing { body, text: true, ask: None, reply_to }],
        };
    }
    // An object says more than that it is here.
    let said = values.first().map(|value| value.get()).filter(|json| json.starts_with('{'));
    message::outcome(profile, &offer.message.id, said.unwrap_or_default().as_bytes())
}

/// What goes to the service for an event.
fn spoken(profile: Profile, args: &Args) -> Result<Outgoing, String> {
    let json = wire_args::to_json(args);
    if profile == Profile::SocketIo {
        return message::outgoing(profile, &json, None);
    }
    let values: Vec<&RawValue> = serde_json::from_str(&json).unwrap_or_default();
    let first = values.get(1).ok_or("the event has no argument to send")?;
    message::outgoing(profile, first.get(), None)
}

fn event(told: &str) -> Result<Args, String> {
    wire_args::event(EVENT, &format!("[{told}]")).map_err(|mistake| mistake.to_string())
}

/// Answers the ack of an event with what the service has answered, or with what went wrong.
fn answer(handle: Option<&Handle>, ack: Option<Ack>, told: Result<Bytes, Unsaid>) {
    let (Some(handle), Some(ack)) = (handle, ack) else {
        if let Err(unsaid) = told {
            tracing::debug!(words = unsaid.words(), "what a socket said did not reach the service");
        }
        return;
    };
    let json = match &told {
        Ok(body) if body.is_empty() => "[]".to_owned(),
        Ok(body) if body.starts_with(b"[") => String::from_utf8_lossy(body).into_owned(),
        Ok(body) => format!("[{}]", String::from_utf8_lossy(body)),
        Err(unsaid) => {
            let (code, words) = (unsaid_code(unsaid), unsaid.words());
            let error = json!({ "code": code.name(), "message": words, "retry": code.retry() });
            json!([{ "error": error }]).to_string()
        }
    };
    let args = wire_args::event("ack", &json).map(|args| args.rest());
    match args {
        // A shard that has too much to do, or a socket that has left: then nobody waits.
        Ok(args) => drop(handle.ack(ack, args)),
        Err(mistake) => tracing::debug!(%mistake, "the service's answer is no JSON"),
    }
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

/// All doors of a gateway, by namespace.
#[derive(Default)]
pub(super) struct Doors(Mutex<Vec<(String, Weak<Door>)>>);

impl Doors {
    /// The door of this namespace: the one that there is, or a new one.
    pub(super) fn open(&self, namespace: &str, make: impl FnOnce() -> Door) -> Arc<Door> {
        let mut doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doors.retain(|(_, door)| door.strong_count() > 0);
        let known = doors.iter().find(|(name, _)| name == namespace);
        if let Some(door) = known.and_then(|(_, door)| door.upgrade()) {
            return door;
        }
        let door = Arc::new(make());
        doors.push((namespace.to_owned(), Arc::downgrade(&door)));
        door
    }

    /// The door of this namespace, if somebody holds it.
    pub(super) fn get(&self, namespace: &str) -> Option<Arc<Door>> {
        let doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doors.iter().find(|(name, _)| name == namespace).and_then(|(_, door)| door.upgrade())
    }
}

#[cfg(test)]
mod tests {
    use bowline_link::far::Message;

    use super::*;

    fn args(json: &str) -> Args {
        Args::new(json.to_owned()).unwrap()
    }

    #[test]
    fn an_event_goes_to_a_socketio_service_as_it_is_and_to_others_as_its_argument() {
        let args = args(r#"["send",{"text":"hi"},2]"#);
        let body = |profile| spoken(profile, &args).map(|said| said.body);
        assert_eq!(body(Profile::SocketIo).unwrap(), r#"["send",{"text":"hi"},2]"#);
        assert_eq!(body(Profile::Webex).unwrap(), r#"{"text":"hi"}"#);
        assert_eq!(body(Profile::WebSocket).unwrap(), r#"{"text":"hi"}"#);
        let text = spoken(Profile::WebSocket, &self::args(r#"["send","hi"]"#)).unwrap();
        assert_eq!((&*text.body, text.text), (&b"hi"[..], true));
        assert!(spoken(Profile::WebSocket, &self::args(r#"["send"]"#)).is_err());
    }

    #[test]
    fn an_event_that_wants_an_ack_takes_the_answers_of_an_app_and_any_other_ack_as_it_is() {
        let of = |receipt: Option<&str>, json: &str| {
            let message = Message {
                id: "m".to_owned(),
                own_id: true,
                room: String::new(),
                receipt: receipt.map(str::to_owned),
                confirm: true,
                body: Bytes::from_static(b"[]"),
            };
            let offer = Offer { link: "bot".to_owned(), message, attempt: 1 };
            acked(Profile::SocketIo, &offer, &args(json))
        };
        let said = |outcome| match outcome {
            Outcome::Confirmed { replies } => {
                let body = |it: Outgoing| String::from_utf8_lossy(&it.body).into_owned();
                replies.into_iter().map(body).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        };
        for receipt in [None, Some("ack")] {
            assert_eq!(said(of(receipt, r#"[{"reply":["chat",1]}]"#)), [r#"["chat",1]"#]);
            let replies = said(of(receipt, r#"[{"replies":[["a"],["b"]]}]"#));
            assert_eq!(replies, [r#"["a"]"#, r#"["b"]"#]);
            let refused = Outcome::Refused("no".to_owned());
            assert_eq!(of(receipt, r#"[{"refuse":"no"}]"#), refused);
        }
        for ack in [r#"["chat",1]"#, r#"[{"ok":true}]"#, "[{}]", "[]"] {
            assert_eq!(said(of(Some("ack"), ack)), [ack]);
        }
        assert_eq!(said(of(None, r#"["chat",1]"#)), [""; 0]);
    }

    #[test]
    fn a_message_is_one_event_with_one_argument() {
        let args = event(r#"{"link":"bot","data":["a",{"b":1}]}"#).unwrap();
        assert_eq!(args.name().as_deref(), Some("message"));
        assert_eq!(&**args.json(), r#"["message",{"link":"bot","data":["a",{"b":1}]}]"#);
    }
}
