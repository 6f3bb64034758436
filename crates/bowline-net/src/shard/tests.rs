//! Turns by hand, at times the test chooses, beside a shard that takes nothing.

use std::{
    collections::VecDeque,
    io::Write,
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream},
    pin::pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, Waker},
    time::Duration,
};

use bowline_proto::{
    ExchangeId, Sid, Timer,
    engineio::{PollStyle, SessionRequest, TransportName, Version},
    wall::{DisconnectReason, Handshake, PostBody, Response},
    websocket::{OpCode, encode},
};
use bytes::Bytes;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::oneshot;

use super::Shard;
use crate::{
    Ack, Broadcast, Builder, Context, Handler, Server, SocketRef,
    accept::Local,
    admission::{Door, Permit},
    exchange::Reply,
    idle_cut::idle_cut,
    limit,
    mailbox::{Adoption, Entry, Message},
    socketio::Args,
    stats::WebSocketEnd,
};

const PING_INTERVAL: Duration = Duration::from_secs(25);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

#[test]
fn pongs_that_have_arrived_count_however_many_came_at_once() {
    run(builder(), async |mut driven| {
        let clients = driven.connect(limit::EVENTS_PER_TURN + 100);
        driven.settle().await;
        driven.ping(clients.len()).await;
        for client in &clients {
            say(client, "3");
        }
        driven.shard.now += PING_TIMEOUT + Duration::from_millis(1);
        driven.settle().await;
        assert_eq!(driven.timed_out(), 0);
        assert_eq!(driven.shard.hub.session_count(), clients.len());

        // Those who say nothing are still noticed, and at once.
        driven.ping(clients.len()).await;
        driven.shard.now += PING_TIMEOUT + Duration::from_millis(1);
        driven.look().await;
        assert_eq!(driven.timed_out(), clients.len() as u64);
    });
}

#[test]
fn nobody_times_out_while_reading_rests_but_for_a_bounded_time() {
    run(builder(), async |mut driven| {
        let clients = driven.connect(4);
        driven.settle().await;
        driven.ping(4).await;
        driven.congest();
        for client in &clients[..2] {
            say(client, "3");
        }
        driven.shard.now += PING_TIMEOUT + Duration::from_millis(1);
        driven.look().await;
        driven.shard.now += Duration::from_millis(1_500);
        driven.look().await;
        assert_eq!(driven.timed_out(), 0);
        driven.relieve();
        driven.settle().await;
        assert_eq!(driven.timed_out(), 2);

        driven.ping(2).await;
        driven.congest();
        driven.shard.now += PING_TIMEOUT + Duration::from_millis(1);
        driven.look().await;
        driven.shard.now += limit::PUT_OFF_MAX;
        driven.look().await;
        assert_eq!(driven.timed_out(), 4);
    });
}

#[test]
fn a_process_that_was_stopped_hears_its_clients_before_it_gives_them_up() {
    run(builder(), async |mut driven| {
        let clients = driven.connect(2);
        driven.settle().await;
        driven.ping(2).await;
        driven.shard.now += PING_TIMEOUT + Duration::from_secs(60);
        driven.look().await;
        // What was sent meanwhile may reach this shard a little later still.
        say(&clients[0], "3");
        driven.shard.now += Duration::from_millis(100);
        driven.settle().await;
        assert_eq!(driven.timed_out(), 0);
        driven.shard.now += limit::LATE_GRACE;
        driven.settle().await;
        assert_eq!(driven.timed_out(), 1);
    });
}

#[test]
fn a_shard_reads_no_more_in_the_turn_in_which_another_has_too_much() {
    const SENDERS: usize = 20;
    const EVENTS: usize = 4_000;
    run(builder(), async |mut driven| {
        let mut clients = driven.connect(SENDERS);
        let mut burst = Vec::new();
        frame(&mut burst, "40");
        for _ in 0..EVENTS {
            frame(&mut burst, r#"42["x"]"#);
        }
        for client in &mut clients {
            client.write_all(&burst).unwrap();
        }
        let mut posts = Vec::new();
        for number in 0..5 {
            let sid = driven.open_polling(ExchangeId(number)).await;
            for (exchange, body) in
                [(100, "40".to_owned()), (200, [r#"42["x"]"#; EVENTS].join("\u{1e}"))]
            {
                let (reply, answer) = oneshot::channel();
                driven.shard.inbox.push_back(Message::Post {
                    exchange: ExchangeId(exchange + number),
                    session: request(sid, Version::V4),
                    body: PostBody::Whole { body: body.into(), binary: false },
                    reply: Some(reply),
                });
                posts.push(answer);
            }
        }
        // One share of a turn above the mark, and not twenty.
        let bound = limit::PEER_HIGH + limit::SCRATCH_BYTES / 8;
        let mut forwarded = 0;
        let all = (SENDERS + posts.len() / 2) * EVENTS;
        for _ in 0..1_000 {
            driven.look().await;
            let taken = driven.relieve();
            assert!(taken <= bound, "{taken} messages at once");
            forwarded += taken;
            if forwarded == all {
                break;
            }
        }
        assert_eq!(forwarded, all);
        for mut answer in posts {
            assert!(matches!(answer.try_recv(), Ok(Reply::Live(Response::Taken))));
        }
    });
}

#[test]
fn what_other_shards_say_is_heard_though_they_have_too_much() {
    run(builder(), async |mut driven| {
        driven.congest();
        let handle = driven.server.handle();
        let (send, ran) = std::sync::mpsc::channel();
        let event = Args::event("x", &[1]).unwrap();
        let done = move |_: &mut Context<'_>, _| send.send(()).unwrap();
        handle.broadcast_counted(Broadcast::new("/", event), done).unwrap();
        let (reply, mut answer) = oneshot::channel();
        let sid = driven.shard.desk.entropy.sid(0);
        let mailbox = &driven.server.process.shards[0].mailbox;
        mailbox.push(Message::Find { session: sid, reply });
        driven.look().await;
        assert!(matches!(answer.try_recv(), Ok(None)));
        // The thread's wish could be one more message for the other: it waits.
        assert_eq!(driven.relieve(), 0);
        // One turn to see that there is room, one to take the wish.
        driven.look().await;
        driven.look().await;
        assert_eq!(driven.relieve(), 1);
        assert!(ran.try_recv().is_err());
    });
}

#[test]
fn the_body_of_a_post_that_was_refused_is_not_acted_on() {
    run(builder(), async |mut driven| {
        let sid = driven.open_polling(ExchangeId(1)).await;
        let exchange = ExchangeId(2);
        let (reply, mut answer) = oneshot::channel();
        let post = |session, body, reply| Message::Post { exchange, session, body, reply };
        let session = request(sid, Version::V3);
        driven.shard.on_message(post(session, PostBody::Begun, Some(reply)));
        assert!(matches!(answer.try_recv(), Ok(Reply::Last(Response::Refused(_)))));
        let before = driven.shard.hub.stats().packets_in;
        let body = PostBody::Whole { body: Bytes::from_static(b"40"), binary: false };
        driven.shard.on_message(post(session, body, None));
        assert_eq!(driven.shard.hub.stats().packets_in, before);
    });
}

#[test]
fn websockets_that_are_cut_when_idle_are_told_from_those_that_take_their_leave() {
    run(builder(), async |mut driven| {
        let mut clients = driven.connect(10);
        driven.settle().await;
        driven.shard.now += Duration::from_secs(3);
        // Nine go quiet now, one speaks again: it is cut in the middle of a conversation.
        let busy = clients.pop().unwrap();
        for client in &clients {
            say(client, "40");
        }
        driven.settle().await;
        driven.shard.now += Duration::from_secs(4);
        say(&busy, "40");
        driven.settle().await;
        let polite = clients.split_off(6);
        for mut client in &polite {
            let mut bytes = Vec::new();
            encode(&mut bytes, OpCode::Close, false, Some([1, 2, 3, 4]), &[]);
            client.write_all(&bytes).unwrap();
        }
        drop((clients, busy));
        driven.settle().await;

        let stats = driven.shard.stats();
        assert_eq!(stats.websocket_ends[WebSocketEnd::Client as usize], 3);
        assert_eq!(stats.websocket_ends[WebSocketEnd::Server as usize], 0);
        assert_eq!(stats.websocket_ends[WebSocketEnd::Cut as usize], 7);
        let mut idle: Vec<_> = stats.cut.iter().map(|end| end.idle.as_secs()).collect();
        idle.sort_unstable();
        assert_eq!(idle, [0, 4, 4, 4, 4, 4, 4]);
        let cut = idle_cut(&stats.cut, driven.shard.now, PING_INTERVAL);
        assert_eq!(cut, Some(Duration::from_secs(4)));
    });
}

fn builder() -> Builder {
    let address = (Ipv4Addr::LOCALHOST, 0).into();
    Server::builder()
        .listen(address)
        .shards(2)
        .namespace("/", Elsewhere)
        .ping_interval(PING_INTERVAL)
        .ping_timeout(PING_TIMEOUT)
        // None of the clients needs to join.
        .connect_timeout(Duration::from_secs(86_400))
}

/// Makes a broadcast of every event, which reaches nobody here.
struct Elsewhere;

impl Handler for Elsewhere {
    fn on_event(&self, cx: &mut Context<'_>, _: SocketRef, args: Args, _: Option<Ack>) {
        cx.broadcast(Broadcast::new("/", args).to("elsewhere"));
    }
}

/// The first of two shards, driven by the test. Nobody drives the second.
struct Driven {
    server: Server,
    shard: Shard,
    listener: TcpListener,
}

fn run(builder: Builder, test: impl AsyncFnOnce(Driven)) {
    let mut descriptors = getrlimit(Resource::Nofile);
    descriptors.current = descriptors.maximum;
    setrlimit(Resource::Nofile, descriptors).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap();
    runtime.block_on(async {
        let server = builder.bind().unwrap();
        let process = Arc::clone(&server.process);
        let local = Local::new(0, Arc::clone(&process));
        let shard = Shard::new(0, process, local).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        test(Driven { server, shard, listener }).await;
    });
}

impl Driven {
    /// Lets so many WebSockets in and opens a session for each.
    fn connect(&mut self, count: usize) -> Vec<TcpStream> {
        let address = self.listener.local_addr().unwrap();
        let connect = |_| {
            let far = TcpStream::connect(address).unwrap();
            let (near, peer) = self.listener.accept().unwrap();
            near.set_nonblocking(true).unwrap();
            let permit =
                Permit::new(&self.server.process, 0, Door::Public, Some(peer.ip())).unwrap();
            self.shard.adopt(Adoption {
                tls: None,
                stream: near,
                head: Bytes::new(),
                unread: Bytes::new(),
                entry: Entry::Open(handshake()),
                deflate: false,
                permit,
            });
            far
        };
        (0..count).map(connect).collect()
    }

    async fn open_polling(&mut self, exchange: ExchangeId) -> Sid {
        let (reply, answer) = oneshot::channel();
        self.shard.on_message(Message::Open {
            exchange,
            handshake: handshake(),
            seat: None,
            reply,
        });
        match answer.await {
            Ok(Reply::Live(Response::Open { sid, .. })) => sid,
            other => panic!("{other:?}"),
        }
    }

    /// One turn, with what the kernel knows.
    async fn look(&mut self) {
        // The driver is polled meanwhile.
        tokio::task::yield_now().await;
        let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
        std::future::poll_fn(|cx| {
            if let Poll::Ready(result) = self.shard.poll_wake(cx, false, sleep.as_mut()) {
                result.unwrap();
            }
            Poll::Ready(())
        })
        .await;
        self.shard.turn().unwrap();
    }

    /// Turns until one has found nothing to read.
    async fn settle(&mut self) {
        let mut before = None;
        loop {
            self.look().await;
            let bytes_in = self.shard.transports.bytes_in;
            if self.shard.has_read_all() && before.replace(bytes_in) == Some(bytes_in) {
                break;
            }
        }
    }

    /// Passes the time until all sessions are pinged.
    async fn ping(&mut self, sessions: usize) {
        let pings = |shard: &Shard| shard.hub.stats().wakeups[Timer::Ping as usize];
        let before = pings(&self.shard);
        self.shard.now += PING_INTERVAL;
        self.settle().await;
        assert_eq!(pings(&self.shard), before + sessions as u64);
    }

    fn timed_out(&self) -> u64 {
        self.shard.hub.stats().closed[DisconnectReason::PingTimeout as usize]
    }

    /// The other shard has more than it may before this one reads on.
    fn congest(&mut self) {
        let other = &self.server.process.shards[1].mailbox;
        for _ in 0..=limit::PEER_HIGH {
            other.push(Message::Aborted(ExchangeId(0)));
        }
        self.shard.congested.push(1);
    }

    /// The other shard takes what it has. Counts broadcasts.
    fn relieve(&self) -> usize {
        let mut taken = VecDeque::new();
        let mut waiting = Vec::new();
        let cx = TaskContext::from_waker(Waker::noop());
        self.server.process.shards[1].mailbox.poll_take(&cx, &mut taken, None, &mut waiting);
        taken.iter().filter(|message| matches!(message, Message::Forwarded(_))).count()
    }
}

fn handshake() -> Arc<Handshake> {
    Arc::new(Handshake {
        version: Version::V4,
        poll_style: PollStyle::default(),
        query: String::new(),
        headers: Vec::new(),
        address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        own: false,
    })
}

fn request(sid: Sid, version: Version) -> SessionRequest {
    SessionRequest {
        sid,
        transport: TransportName::Polling,
        version,
        upgrade: false,
        timestamp: None,
    }
}

fn say(mut client: &TcpStream, text: &str) {
    let mut bytes = Vec::new();
    frame(&mut bytes, text);
    client.write_all(&bytes).unwrap();
}

fn frame(out: &mut Vec<u8>, text: &str) {
    encode(out, OpCode::Text, false, Some([1, 2, 3, 4]), &[text.as_bytes()]);
}
