//! What happens in a world: drawn from the seed before it begins, so that a part of it can be left
//! out to see whether it matters.

use std::time::Duration;

use bowline_proto::{
    Time,
    client::Transports,
    engineio::Version,
    hub::{EventIdPath, Keeping, OnDoubt, SessionKeySource, Stamp},
    socketio::Args,
};
use serde_json::json;

use crate::rng::Rng;

/// A world before it has begun.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) seed: u64,
    pub(super) setup: Setup,
    pub(super) acts: Vec<(Time, Act)>,
}

/// What holds throughout.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) shards: u8,
    pub(super) ping_interval: Duration,
    pub(super) ping_timeout: Duration,
    pub(super) window: Duration,
    /// Of one shard. If it is small, sessions may end because of it.
    pub(super) log_bytes: usize,
    pub(super) log_is_small: bool,
    /// Of one shard.
    pub(super) away_max: usize,
    pub(super) queued_bytes: usize,
    pub(super) upgrades: bool,
    /// Whether the hub keeps what clients said at the handshake.
    pub(super) keep_headers: bool,
    pub(super) latency: Latency,
    /// One choice in so many is a rude one; a very large number: nobody is rude.
    pub(super) rudeness: usize,
    pub(super) profiles: Vec<Profile>,
}

/// How long things take over the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Latency {
    Near,
    Far,
    /// Near, but now and then something takes seconds.
    Jumpy,
}

/// What a client is.
#[derive(Debug, Clone)]
pub(super) struct Profile {
    pub(super) kind: Kind,
    pub(super) version: Version,
    pub(super) transports: Transports,
    /// The namespaces it joins, by their index in [`NAMESPACES`].
    pub(super) seats: Vec<usize>,
}

/// What a client says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its `User-Agent` begins with `Mozilla/`.
    Browser,
    /// It sends `Sec-Fetch-Mode`.
    Fetches,
    /// It says `recovery: true`.
    Asks,
    /// Nothing that matters, apart from a cookie.
    Cookie,
    /// Nothing that matters.
    Plain,
}

/// A namespace, its index being that of its handler.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) name: &'static str,
    stamp: Stamp,
    on_doubt: OnDoubt,
    event_id: bool,
    session_key: Key,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    None,
    Cookie,
    Claim,
}

pub(super) const NAMESPACES: [Place; 6] = [
    place("/", Stamp::Auto, OnDoubt::Repeat, false, Key::None),
    place("/always", Stamp::Always, OnDoubt::Repeat, true, Key::None),
    place("/named", Stamp::Auto, OnDoubt::Repeat, true, Key::Cookie),
    place("/skip", Stamp::Auto, OnDoubt::Skip, false, Key::Cookie),
    place("/claim", Stamp::Auto, OnDoubt::Repeat, false, Key::Claim),
    place("/never", Stamp::Never, OnDoubt::Repeat, false, Key::None),
];

const fn place(
    name: &'static str,
    stamp: Stamp,
    on_doubt: OnDoubt,
    event_id: bool,
    session_key: Key,
) -> Place {
    Place { name, stamp, on_doubt, event_id, session_key }
}

/// How a client takes part, as DESIGN says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// It has a pid and gets offsets.
    Stamped,
    /// It is named, and gets again what it may not have.
    Repeat,
    /// It is named, and does not.
    Skip,
    /// It does not.
    None,
}

impl Place {
    pub(super) fn index(name: &str) -> usize {
        let found = NAMESPACES.iter().position(|place| place.name == name);
        found.unwrap_or_else(|| panic!("no namespace {name}"))
    }

    pub(super) fn keeping(&self) -> Keeping {
        Keeping {
            stamp: self.stamp,
            on_doubt: self.on_doubt,
            event_id: self.event_id.then(|| "/0/id".parse::<EventIdPath>().expect("a path")),
            session_key: match self.session_key {
                Key::None => None,
                Key::Cookie => Some(SessionKeySource::Cookie("device".into())),
                Key::Claim => Some(SessionKeySource::Claim),
            },
        }
    }

    /// Whether what is in doubt is not sent again here.
    pub(super) fn skips(&self) -> bool {
        self.on_doubt == OnDoubt::Skip
    }

    pub(super) fn takes_claims(&self) -> bool {
        self.session_key == Key::Claim
    }

    /// Whether clients name their events here.
    pub(super) fn has_event_ids(&self) -> bool {
        self.event_id
    }

    pub(super) fn part_of(&self, profile: &Profile) -> Part {
        let says_so = match profile.kind {
            Kind::Browser | Kind::Fetches | Kind::Asks => true,
            Kind::Cookie | Kind::Plain => false,
        };
        let stamped = match self.stamp {
            Stamp::Always => true,
            Stamp::Auto => says_so,
            Stamp::Never => false,
        };
        let named = match self.session_key {
            Key::None => false,
            Key::Cookie => profile.kind != Kind::Plain,
            Key::Claim => true,
        };
        match (stamped && profile.version == Version::V4, named, self.on_doubt) {
            (true, _, _) => Part::Stamped,
            (false, true, OnDoubt::Repeat) => Part::Repeat,
            (false, true, OnDoubt::Skip) => Part::Skip,
            (false, false, _) => Part::None,
        }
    }
}

/// Who sends something: a shard's handler, or a thread that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Source(pub(super) u8);

impl Source {
    pub(super) const OUTSIDE: Self = Self(u8::MAX);
}

/// How an event is emitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Plain,
    /// With some hundred bytes more.
    Large,
    /// With an attachment.
    Binary,
    /// Volatile, and its last argument is text (E6).
    Volatile,
    /// With an ack; to one client only.
    Acked {
        timeout: Duration,
    },
}

/// One thing that happens.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// A client comes for the first time.
    Arrive { client: usize },
    /// Its connection is cut, and both ends are told.
    Cut { client: usize },
    /// It changes its network: the server is not told.
    Roam { client: usize },
    /// Nothing passes any more, and nobody is told.
    BlackHole { client: usize },
    /// So many more packets reach it, then its connection is cut.
    CutAfter { client: usize, packets: usize },
    /// After the next ping nothing reaches it any more, while what it says still arrives; then its
    /// connection is cut.
    DeafenAfterPing { client: usize, cut_after: Duration },
    /// Nothing reaches it for a while.
    Stall { client: usize, for_: Duration },
    /// The answer to its next request is lost, and a proxy repeats the request.
    Repeat { client: usize, told: bool },
    /// It leaves a namespace for good.
    Leave { client: usize, seat: usize },
    /// It closes everything in order.
    Close { client: usize },
    /// Somebody else comes with what it remembers.
    Fork { client: usize },
    /// It emits.
    Say { client: usize, seat: usize, ack: bool },
    /// An event for one client.
    Emit { from: Source, client: usize, seat: usize, shape: Shape },
    /// Events for many, one after the other.
    Broadcast {
        from: Source,
        namespace: usize,
        rooms: Vec<Room>,
        except: Vec<Room>,
        shape: Shape,
        count: usize,
    },
    /// A client enters a room.
    Join { from: Source, client: usize, seat: usize, room: &'static str },
    /// A client leaves a room.
    Exit { from: Source, client: usize, seat: usize, room: &'static str },
    /// The server takes it out of a namespace.
    Kick { from: Source, client: usize, seat: usize, close: bool },
    /// The handler refuses it when it asks next.
    RefuseNext { client: usize },
    /// The server stops in order and starts again, with so many shards.
    Restart { shards: u8, loading: Duration },
}

/// A room of a broadcast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Named(&'static str),
    /// The one that is named by a client's Socket.IO sid.
    Own {
        client: usize,
    },
}

pub(super) const ROOMS: [&str; 4] = ["a", "b", "c", "é"];

impl Shape {
    /// The arguments of the event of a number: its name, the number, and what makes the shape.
    pub(super) fn args(self, number: u64) -> Args {
        let (name, number) = (json!("e"), json!(number));
        match self {
            Self::Plain | Self::Acked { .. } => Args::from_values(&[name, number]),
            Self::Large => Args::from_values(&[name, number, json!({ "pad": "x".repeat(700) })]),
            Self::Volatile => Args::from_values(&[name, number, json!("no offset")]),
            Self::Binary => {
                let bytes = number.to_string().into_bytes();
                let values = Args::from_values(&[name, number, Args::placeholder(0)]);
                let json = values.json().clone();
                Args::with_attachments(json, vec![bytes.into()]).expect("arguments")
            }
        }
    }
}

impl Script {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let setup = Setup::draw(&mut rng);
        let mut acts = Vec::new();
        let mut now = Time::ZERO + Duration::from_secs(1);
        for client in 0..setup.profiles.len() {
            let at = now + Duration::from_millis(rng.word() % 2_000);
            acts.push((at, Act::Arrive { client }));
        }
        // Some worlds are busy, some have hours in which nothing happens.
        let pace = *rng.pick(&[20, 100, 400, 1_000]);
        let idles = rng.one_in(4);
        let restarts = rng.one_in(4);
        let (mut restarted, mut idle) = (0, 0);
        for _ in 0..20 + rng.scaled(9) {
            let gap = match rng.below(60) {
                // At 25 s a ping this is up to four hours.
                0 if idles && idle < 2 => {
                    idle += 1;
                    setup.ping_interval * (1 + u32::try_from(rng.below(600)).unwrap_or(0))
                }
                1 | 2 => setup.window / 2 + Duration::from_millis(rng.word() % 5_000),
                3 | 4 => setup.ping_interval,
                5..10 => Duration::from_secs(rng.word() % 10),
                10..20 => Duration::ZERO,
                _ => Duration::from_millis(rng.word() % pace),
            };
            now += gap;
            if restarts && restarted < 3 && rng.one_in(60) {
                restarted += 1;
                let loading = Duration::from_millis(rng.word() % 3_000);
                acts.push((now, Act::Restart { shards: 1 + rng.byte() % 4, loading }));
                continue;
            }
            acts.push((now, setup.draw_act(&mut rng)));
        }
        acts.sort_by_key(|(at, _)| *at);
        Self { seed, setup, acts }
    }
}

impl Setup {
    fn draw(rng: &mut Rng) -> Self {
        let shards = *rng.pick(&[1, 2, 2, 3, 4]);
        let millis = Duration::from_millis;
        let ping_interval = *rng.pick(&[300, 1_000, 5_000, 25_000]);
        let log_is_small = rng.one_in(8);
        let mut setup = Self {
            shards,
            ping_interval: millis(ping_interval),
            ping_timeout: millis(*rng.pick(&[2_500, 5_000, 20_000])),
            window: millis(*rng.pick(&[3_000, 10_000, 60_000, 120_000])),
            log_bytes: if log_is_small { 2_000 + rng.below(30_000) } else { 256_000_000 },
            log_is_small,
            away_max: if rng.one_in(10) { 1 + rng.below(3) } else { 100_000 },
            queued_bytes: if rng.one_in(8) { 4_000 } else { 4 * 1024 * 1024 },
            upgrades: !rng.one_in(4),
            keep_headers: rng.one_in(4),
            latency: *rng.pick(&[Latency::Near, Latency::Near, Latency::Far, Latency::Jumpy]),
            rudeness: *rng.pick(&[8, 40, 1_000_000]),
            profiles: Vec::new(),
        };
        let crowd = 1 + rng.below(10);
        setup.profiles = (0..crowd).map(|_| Profile::draw(rng)).collect();
        setup
    }

    fn draw_act(&self, rng: &mut Rng) -> Act {
        let client = rng.below(self.profiles.len());
        let seat = rng.below(self.profiles[client].seats.len());
        let from = match rng.below(4) {
            0 => Source::OUTSIDE,
            // On a shard that there may not be later; then it is the first.
            _ => Source(u8::try_from(rng.below(self.shards.into())).unwrap_or(0)),
        };
        match rng.below(100) {
            0..30 => Act::Emit { from, client, seat, shape: self.draw_shape(rng, true) },
            30..50 => {
                let room = |rng: &mut Rng| match rng.below(6) {
                    0 => Room::Own { client: rng.below(self.profiles.len()) },
                    _ => Room::Named(rng.pick::<&str>(&ROOMS)),
                };
                let rooms = (0..*rng.pick(&[0, 0, 1, 1, 2])).map(|_| room(rng)).collect();
                let except = (0..*rng.pick(&[0, 0, 1, 2])).map(|_| room(rng)).collect();
                let namespace = *rng.pick(&self.profiles[client].seats);
                let shape = self.draw_shape(rng, false);
                let count = if rng.one_in(8) { 1 + rng.below(30) } else { 1 };
                Act::Broadcast { from, namespace, rooms, except, shape, count }
            }
            50..57 => Act::Join { from, client, seat, room: rng.pick::<&str>(&ROOMS) },
            57..60 => Act::Exit { from, client, seat, room: rng.pick::<&str>(&ROOMS) },
            60..66 => Act::Say { client, seat, ack: !rng.one_in(3) },
            66..72 => Act::Cut { client },
            72..77 => Act::Roam { client },
            77..80 => Act::BlackHole { client },
            80..84 => Act::CutAfter { client, packets: rng.below(12) },
            84..89 => Act::DeafenAfterPing {
                client,
                cut_after: Duration::from_millis(rng.word() % 2_000),
            },
            89..91 => Act::Stall { client, for_: Duration::from_millis(rng.word() % 8_000) },
            91..94 => Act::Repeat { client, told: !rng.one_in(3) },
            94 => Act::Leave { client, seat },
            95 if rng.one_in(4) => Act::Close { client },
            96 => Act::Fork { client },
            97 => Act::RefuseNext { client },
            98 if rng.one_in(2) => Act::Kick { from, client, seat, close: rng.one_in(3) },
            _ => Act::Emit { from, client, seat, shape: Shape::Plain },
        }
    }

    fn draw_shape(&self, rng: &mut Rng, one: bool) -> Shape {
        match rng.below(12) {
            0 => Shape::Large,
            1 => Shape::Binary,
            2 | 3 => Shape::Volatile,
            4..7 if one => Shape::Acked {
                timeout: Duration::from_secs(*rng.pick(&[3, 3_600 * 24, 3_600 * 24])),
            },
            _ => Shape::Plain,
        }
    }
}

impl Profile {
    fn draw(rng: &mut Rng) -> Self {
        let version = if rng.one_in(8) { Version::V3 } else { Version::V4 };
        let kind = *rng.pick(&[
            Kind::Browser,
            Kind::Browser,
            Kind::Fetches,
            Kind::Asks,
            Kind::Cookie,
            Kind::Cookie,
            Kind::Plain,
        ]);
        let mut seats = vec![rng.below(NAMESPACES.len())];
        if version == Version::V3 {
            // It is in there, whether it likes it or not.
            seats.insert(0, 0);
        }
        if rng.one_in(4) {
            seats.push(rng.below(NAMESPACES.len()));
        }
        seats.sort_unstable();
        seats.dedup();
        let transports =
            *rng.pick(&[Transports::Polling, Transports::WebSocket, Transports::Upgrade]);
        Self { kind, version, transports, seats }
    }
}
