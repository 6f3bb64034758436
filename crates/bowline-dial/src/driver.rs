//! The one loop of a connection: choose what is ready, hand it to the client, carry out what it
//! says.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bowline_proto::{
    client::{Client, Config, Event, Input, Output, Response},
    socketio::Args,
    wall::{AckError, AckRequest},
    websocket::Message,
};
use bytestring::ByteString;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::sleep_until,
};

use crate::{
    Outbox, Signs,
    clock::Clock,
    http::{Answered, Http},
    limit::UNSENT_MAX_BYTES,
    target::Target,
    websocket::{Heard, Ready, WebSocket},
};

/// What the application wants done.
#[derive(Debug)]
pub(crate) enum Command {
    Input(Input),
    /// A ping of the WebSocket, not of the engine.
    Ping,
    /// Says when what was sent before has left.
    Mark(oneshot::Sender<()>),
    EmitWithAck {
        namespace: ByteString,
        args: Args,
        timeout: Duration,
        answer: oneshot::Sender<Result<Args, AckError>>,
    },
}

/// What the loop woke up for.
enum Turn {
    Command(Command),
    Answered(Answered),
    WebSocket(Ready),
    /// The application took events.
    Room,
    Timer,
}

pub(crate) struct Driver {
    clock: Clock,
    client: Client,
    http: Http,
    websocket: WebSocket,
    target: Arc<Target>,
    commands: mpsc::Receiver<Command>,
    events: Outbox<Event>,
    acks: HashMap<u64, oneshot::Sender<Result<Args, AckError>>>,
    /// Who waits for what was sent to have left. Bounded by who waits.
    marks: Vec<oneshot::Sender<()>>,
    next_token: u64,
    signs: watch::Sender<Signs>,
    over: bool,
}

impl Driver {
    pub(crate) fn new(
        config: Arc<Config>,
        target: Arc<Target>,
        commands: mpsc::Receiver<Command>,
        events: Outbox<Event>,
        signs: watch::Sender<Signs>,
    ) -> Self {
        Self {
            clock: Clock::start(),
            client: Client::new(config),
            http: Http::new(Arc::clone(&target)),
            websocket: WebSocket::new(),
            target,
            commands,
            events,
            acks: HashMap::new(),
            marks: Vec::new(),
            next_token: 0,
            signs,
            over: false,
        }
    }

    /// Runs until the session is over and every event of it was taken.
    pub(crate) async fn run(mut self) {
        while !self.over {
            let turn = self.choose().await;
            self.handle(turn);
        }
        // Nobody is answered any more: whoever asks sees a closed channel.
        self.commands.close();
        self.acks.clear();
        self.marks.clear();
        self.events.finish().await;
        self.websocket.closed().await;
    }

    /// Bounded both ways: events that are not taken stop the reading, bytes that are not sent stop
    /// the taking of commands.
    async fn choose(&mut self) -> Turn {
        let may_read = self.may_read();
        let unsent_bytes = self.client.queued_bytes() + self.websocket.unsent_bytes();
        let wake = self.client.poll_timeout().map(|(at, _)| self.clock.instant(at));
        let sleep = async {
            match wake {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(command) = self.commands.recv(), if unsent_bytes < UNSENT_MAX_BYTES => {
                Turn::Command(command)
            }
            answered = self.http.next(), if may_read => Turn::Answered(answered),
            ready = self.websocket.ready(may_read) => Turn::WebSocket(ready),
            () = self.events.room() => Turn::Room,
            () = sleep => Turn::Timer,
        }
    }

    fn handle(&mut self, turn: Turn) {
        match turn {
            Turn::Command(command) => {
                self.command(command);
                // The rest of a burst belongs to the same turn, so that it is written at once.
                while self.websocket.unsent_bytes() < UNSENT_MAX_BYTES
                    && self.client.queued_bytes() < UNSENT_MAX_BYTES
                    && let Ok(command) = self.commands.try_recv()
                {
                    self.command(command);
                }
            }
            Turn::Answered(mut answered) => {
                self.http.keep(self.clock.now(), &mut answered);
                if matches!(answered.response, Response::Answered { status: 200, .. }) {
                    self.signs.send_modify(|signs| signs.heartbeats += 1);
                }
                self.input(Input::Response { id: answered.id, response: answered.response });
            }
            Turn::WebSocket(ready) => {
                let may_read = self.may_read();
                for heard in self.websocket.take(ready, may_read) {
                    self.input(match heard {
                        Heard::Opened => Input::WebSocketOpened,
                        Heard::Message(message) => {
                            if is_heartbeat(&message) {
                                self.signs.send_modify(|signs| signs.heartbeats += 1);
                            }
                            Input::Message(message)
                        }
                        Heard::Pong => {
                            self.signs.send_modify(|signs| signs.pongs += 1);
                            continue;
                        }
                        Heard::Lost { why, detail } => Input::WebSocketLost { why, detail },
                    });
                }
            }
            Turn::Room => {}
            Turn::Timer => self.input(Input::Timeout),
        }
        if let Some(Heard::Lost { why, detail }) = self.websocket.flush() {
            self.input(Input::WebSocketLost { why, detail });
        }
        if !self.marks.is_empty() && !self.over && !self.has_unsent() {
            for mark in self.marks.drain(..) {
                // Whoever asked may have gone.
                let _ = mark.send(());
            }
        }
        self.events.deliver();
    }

    fn has_unsent(&self) -> bool {
        self.client.queued_bytes() > 0 || self.websocket.has_unsent() || self.http.is_posting()
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Input(input) => self.input(input),
            Command::Ping => self.websocket.ping(),
            Command::Mark(mark) => self.marks.push(mark),
            Command::EmitWithAck { namespace, args, timeout, answer } => {
                let token = self.next_token;
                self.next_token += 1;
                self.acks.insert(token, answer);
                let ack = Some(AckRequest { token, timeout });
                self.input(Input::Emit { namespace, args, ack });
            }
        }
    }

    fn input(&mut self, input: Input) {
        let now = self.clock.now();
        self.client.handle_input(now, input);
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Request(request) => self.http.send(now, request),
                Output::OpenWebSocket { target } => {
                    self.websocket.dial(Arc::clone(&self.target), target);
                }
                Output::Send(packet) => self.websocket.send(self.client.version(), &packet),
                Output::CloseWebSocket => self.websocket.close(Some(NORMAL_CLOSURE)),
                Output::Event(Event::Ack { token, result, .. }) => {
                    if let Some(answer) = self.acks.remove(&token) {
                        // Whoever asked may have gone.
                        let _ = answer.send(result);
                    }
                }
                Output::Event(event) => {
                    self.over |= matches!(event, Event::Closed { .. });
                    self.events.push(event);
                }
            }
        }
    }

    fn may_read(&self) -> bool {
        !self.events.is_full()
    }
}

/// Whether this is the ping of a server, or its pong.
fn is_heartbeat(message: &Message) -> bool {
    matches!(message.as_bytes(), b"2" | b"3")
}

/// RFC 6455 section 7.4.1.
const NORMAL_CLOSURE: u16 = 1000;
