//! A small chat: rooms, who is typing, and the last lines of each room. Open the page it serves.

#![expect(clippy::print_stderr, reason = "an example says where it listens")]

mod flags;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bowline_net::{
    Ack, Broadcast, ConnectRequest, Context, DisconnectReason, Handler, SocketRef, socketio::Args,
};
use clap::Parser;
use serde_json::{Value, json};

/// Lines kept for those who come later.
const HISTORY: usize = 50;
/// Characters of a name, a room or a line.
const TEXT_MAX: usize = 500;

#[derive(Default)]
struct Chat {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    people: BTreeMap<SocketRef, Person>,
    rooms: BTreeMap<String, VecDeque<Value>>,
}

#[derive(Clone)]
struct Person {
    name: String,
    room: String,
}

impl Handler for Chat {
    fn on_connect(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        let auth = request.auth().and_then(|auth| serde_json::from_str::<Value>(auth).ok());
        let text = |key: &str, default: &str| {
            let text = auth.as_ref().and_then(|auth| auth[key].as_str()).unwrap_or_default().trim();
            let text = text.chars().take(TEXT_MAX).collect::<String>();
            if text.is_empty() { default.to_owned() } else { text }
        };
        let person = Person { name: text("name", "somebody"), room: text("room", "lobby") };
        let socket = cx.accept(request);
        cx.join(socket, person.room.clone());
        let mut state = self.lock();
        if let Some(lines) = state.rooms.get(&person.room) {
            emit(cx, socket, "history", &json!(lines));
        }
        say(cx, &mut state, &person, "joined", None);
        state.people.insert(socket, person);
    }

    fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, args: Args, ack: Option<Ack>) {
        let mut state = self.lock();
        let Some(person) = state.people.get(&socket).cloned() else { return };
        match args.parse::<(String, Value)>() {
            Ok((name, Value::String(text))) if name == "say" => {
                let text = text.chars().take(TEXT_MAX).collect::<String>();
                say(cx, &mut state, &person, "said", Some(&text));
            }
            Ok((name, typing)) if name == "typing" => {
                let others = cx.socket(socket).map(|view| view.id.to_string());
                if let Ok(args) = Args::event("typing", &(&person.name, typing)) {
                    let broadcast = Broadcast::new("/", args).to(person.room).volatile();
                    cx.broadcast(others.into_iter().fold(broadcast, |it, id| it.except(id)));
                }
            }
            _ => return,
        }
        if let Some(ack) = ack {
            cx.ack(ack, Args::from_values(&[json!("ok")]));
        }
    }

    fn on_disconnect(&self, cx: &mut Context<'_>, socket: SocketRef, _reason: DisconnectReason) {
        let mut state = self.lock();
        if let Some(person) = state.people.remove(&socket) {
            say(cx, &mut state, &person, "left", None);
        }
    }
}

impl Chat {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells a room what happened, and remembers it.
fn say(cx: &mut Context<'_>, state: &mut State, person: &Person, what: &str, text: Option<&str>) {
    let line = json!({ "who": person.name, "what": what, "text": text });
    let lines = state.rooms.entry(person.room.clone()).or_default();
    lines.push_back(line.clone());
    if lines.len() > HISTORY {
        lines.pop_front();
    }
    cx.broadcast(
        Broadcast::new("/", Args::from_values(&[json!("line"), line])).to(person.room.clone()),
    );
}

fn emit(cx: &mut Context<'_>, socket: SocketRef, name: &str, value: &Value) {
    cx.emit(socket, Args::from_values(&[json!(name), value.clone()]));
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let builder = flags::Flags::parse().builder();
    flags::serve(builder.namespace("/", Chat::default()).page(PAGE))
}

/// A page without a library: Socket.IO over a WebSocket is a prefix before JSON.
const PAGE: &str = r#"<!doctype html>
<meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Bowline chat</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }
  #lines { min-height: 16rem; border-bottom: 1px solid #ccc; margin-bottom: 1rem }
  #lines i { color: #777 } input { font: inherit; width: 100%; box-sizing: border-box; padding: .4rem }
  #state { color: #777; min-height: 1.5rem }
</style>
<h1>Chat</h1><div id="lines"></div><div id="state"></div><input id="text" autofocus placeholder="Say something">
<script>
const query = new URLSearchParams(location.search)
const name = query.get('name') || 'guest ' + Math.floor(Math.random() * 1000)
const room = query.get('room') || 'lobby'
const lines = document.getElementById('lines'), state = document.getElementById('state'), text = document.getElementById('text')
const line = ({ who, what, text }) => {
  const p = document.createElement('div'), b = document.createElement(text === null ? 'i' : 'b')
  b.textContent = text === null ? `${who} ${what}` : `${who}: `
  p.append(b, text ?? ''); lines.append(p)
}
let socket, delay = 500
const emit = (...args) => socket.readyState === 1 && socket.send('42' + JSON.stringify(args))
const connect = () => {
  socket = new WebSocket(location.origin.replace(/^http/, 'ws') + '/socket.io/?EIO=4&transport=websocket')
  socket.onmessage = ({ data }) => {
    if (data[0] === '0') socket.send('40' + JSON.stringify({ name, room }))
    else if (data === '2') socket.send('3')
    else if (data.startsWith('40')) { delay = 500; lines.textContent = ''; state.textContent = `in ${room} as ${name}` }
    else if (data.startsWith('42')) {
      const [event, ...args] = JSON.parse(data.slice(2))
      if (event === 'line') line(args[0])
      if (event === 'history') args[0].forEach(line)
      if (event === 'typing') state.textContent = args[1] ? `${args[0]} is typing` : ''
    }
  }
  socket.onclose = () => {
    state.textContent = 'away, coming back'
    setTimeout(connect, delay * (0.5 + Math.random())); delay = Math.min(delay * 2, 10000)
  }
}
let quiet
text.oninput = () => { clearTimeout(quiet); emit('typing', true); quiet = setTimeout(() => emit('typing', false), 1500) }
text.onchange = () => { if (text.value) { emit('say', text.value); emit('typing', false); text.value = '' } }
connect()
</script>
"#;
