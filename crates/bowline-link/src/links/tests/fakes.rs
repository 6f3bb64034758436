//! A service, a bot, and who makes them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bowline_proto::keeper::{Level, OpenFailure, Verdict};
use bytes::Bytes;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    bot::{self, Mouth, Offer, Outcome, Presence, SharedDeliver},
    clock,
    far::{
        Boxed, CatchUpFailure, Command, Connection, Event, Message, OpenHow, Outgoing, Profile,
        QUEUE, SharedProfile,
    },
    links::Host,
    run::{Far, Maker},
    settings,
};

/// Waits for something, for ten seconds at most.
pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline: Instant = clock::instant() + Duration::from_secs(10);
    while !is_so() {
        assert!(clock::instant() < deadline, "waited in vain until {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

pub(super) fn confirmed() -> Outcome {
    Outcome::Confirmed { replies: Vec::new() }
}

pub(super) fn saying(text: &str) -> Outgoing {
    Outgoing { body: Bytes::from(text.to_owned()), text: true, ask: None, reply_to: None }
}

fn message(id: &str, room: &str) -> Message {
    Message {
        id: id.to_owned(),
        own_id: true,
        room: room.to_owned(),
        receipt: Some(format!("receipt {id}")),
        confirm: true,
        body: Bytes::from(format!("text of {id}")),
    }
}

/// A service in memory. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Service(Arc<Mutex<Inside>>);

#[derive(Debug, Default)]
struct Inside {
    /// By number.
    connections: BTreeMap<u64, Leg>,
    opened: u64,
    goodbyes: u64,
    refusing: Option<Verdict>,
    acknowledged: Vec<String>,
    heard: Vec<String>,
    discarded: Vec<String>,
    /// How often fetching fails yet.
    unfetchable: u32,
    /// Whether it cannot be asked, and says on a new connection again what was not acknowledged.
    repeats: bool,
    /// What can be caught up, with the time at which it was said.
    said: Vec<(u64, Message)>,
}

#[derive(Debug)]
struct Leg {
    events: mpsc::Sender<Event>,
    routed: bool,
    alive: bool,
}

impl Service {
    pub(super) fn say(&self, id: &str, room: &str) {
        let message = message(id, room);
        let mut inside = self.inside();
        inside.said.push((clock::unix_ms(), message.clone()));
        inside.tell(&Event::Message(message));
    }

    /// Something that was said so long ago, and reached nobody.
    pub(super) fn said_before(&self, ago: Duration, id: &str, room: &str) {
        let at = clock::unix_ms() - u64::try_from(ago.as_millis()).unwrap();
        self.inside().said.push((at, message(id, room)));
    }

    /// Something that the bot need not confirm.
    pub(super) fn inform(&self, id: &str, room: &str) {
        let message = Message { confirm: false, ..message(id, room) };
        self.inside().tell(&Event::Message(message));
    }

    pub(super) fn say_without_id(&self, text: &str) {
        let message = Message {
            id: text.to_owned(),
            own_id: false,
            room: String::new(),
            receipt: None,
            confirm: true,
            body: Bytes::from(text.to_owned()),
        };
        self.inside().tell(&Event::Message(message));
    }

    /// The network swallows everything from now on, on what is open.
    pub(super) fn drop_silently(&self) {
        for leg in self.inside().connections.values_mut() {
            leg.alive = false;
        }
    }

    /// Nothing is routed to what is open; pings are answered.
    pub(super) fn unroute(&self) {
        for leg in self.inside().connections.values_mut() {
            leg.routed = false;
        }
    }

    pub(super) fn close_all(&self) {
        let closed = Event::Closed { verdict: Verdict::Again, words: "1006".into() };
        let mut inside = self.inside();
        inside.tell(&closed);
        inside.connections.clear();
    }

    /// It cannot be asked any more, and says on a new connection again what was not acknowledged.
    pub(super) fn set_repeating(&self) {
        self.inside().repeats = true;
    }

    pub(super) fn set_refusing(&self, verdict: Option<Verdict>) {
        self.inside().refusing = verdict;
    }

    /// Texts cannot be fetched so often.
    pub(super) fn set_unfetchable(&self, times: u32) {
        self.inside().unfetchable = times;
    }

    pub(super) fn acknowledged(&self) -> Vec<String> {
        self.inside().acknowledged.clone()
    }

    pub(super) fn heard(&self) -> Vec<String> {
        self.inside().heard.clone()
    }

    pub(super) fn discarded(&self) -> Vec<String> {
        self.inside().discarded.clone()
    }

    pub(super) fn opened(&self) -> u64 {
        self.inside().opened
    }

    pub(super) fn open(&self) -> usize {
        self.inside().connections.len()
    }

    pub(super) fn goodbyes(&self) -> u64 {
        self.inside().goodbyes
    }

    async fn serve(self, number: u64, mut commands: mpsc::Receiver<Command>) {
        while let Some(command) = commands.recv().await {
            if self.answer(number, command) {
                return;
            }
        }
        // Dropped by the other side.
        self.inside().connections.remove(&number);
    }

    /// Whether the connection has ended with this.
    fn answer(&self, number: u64, command: Command) -> bool {
        let mut inside = self.inside();
        let Some(leg) = inside.connections.get(&number).filter(|leg| leg.alive) else {
            return false;
        };
        let events = leg.events.clone();
        let tell = |event| events.try_send(event).unwrap();
        match command {
            Command::Ping => tell(Event::Heard(Level::Pong)),
            Command::Ack => tell(Event::Heard(Level::Ack)),
            Command::Probe { nonce } => {
                if leg.routed {
                    tell(Event::Probed { nonce });
                }
            }
            Command::Acknowledge { receipt } => inside.acknowledged.push(receipt),
            Command::Send(Outgoing { body, ask, .. }) => {
                let text = String::from_utf8(body.to_vec()).unwrap();
                inside.heard.push(format!("send {text}"));
                let answer = Ok(Bytes::from(format!("answer to {text}")));
                if let Some(ask) = ask {
                    tell(Event::Answered { ask, answer });
                }
            }
            Command::Confirmed { id } => {
                inside.heard.push(format!("confirmed {id}"));
                tell(Event::Written { id });
            }
            Command::Close { .. } => {
                inside.goodbyes += 1;
                inside.connections.remove(&number);
                tell(Event::Closed { verdict: Verdict::Again, words: "goodbye".into() });
                return true;
            }
        }
        false
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap()
    }
}

impl Inside {
    fn tell(&self, event: &Event) {
        for leg in self.connections.values().filter(|leg| leg.routed && leg.alive) {
            leg.events.try_send(event.clone()).unwrap();
        }
    }
}

impl Profile for Service {
    fn open(&self, _how: OpenHow) -> Boxed<'_, Result<Connection, OpenFailure>> {
        let mut inside = self.inside();
        if let Some(verdict) = inside.refusing {
            let words = "not now".to_owned();
            return Box::pin(async move { Err(OpenFailure { verdict, words, retry_after: None }) });
        }
        inside.opened += 1;
        let number = inside.opened;
        let (commands, receiver) = mpsc::channel(QUEUE);
        let (sender, events) = mpsc::channel(QUEUE);
        if inside.repeats {
            let known = |message: &Message| {
                let receipt = message.receipt.as_ref();
                receipt.is_some_and(|receipt| inside.acknowledged.contains(receipt))
            };
            for (_, message) in inside.said.iter().filter(|(_, message)| !known(message)) {
                sender.try_send(Event::Message(message.clone())).unwrap();
            }
        }
        inside.connections.insert(number, Leg { events: sender, routed: true, alive: true });
        drop(inside);
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().serve(number, receiver));
        let address = Some(format!("device {number}"));
        Box::pin(async move { Ok(Connection { commands, events, address, tasks }) })
    }

    fn catch_up(&self, since_unix_ms: u64) -> Boxed<'_, Result<Vec<Message>, CatchUpFailure>> {
        let inside = self.inside();
        let missed = inside.said.iter().filter(|(at, _)| *at >= since_unix_ms && !inside.repeats);
        let missed = missed.map(|(_, message)| message.clone()).collect();
        Box::pin(async move { Ok(missed) })
    }

    fn discard(&self, address: String) -> Boxed<'_, ()> {
        self.inside().discarded.push(address);
        Box::pin(std::future::ready(()))
    }

    fn fetch<'a>(&'a self, message: &'a Message) -> Boxed<'a, Result<Bytes, String>> {
        let mut inside = self.inside();
        let fails = inside.unfetchable > 0;
        inside.unfetchable = inside.unfetchable.saturating_sub(1);
        let fetched = Bytes::from(format!("fetched {}", message.id));
        Box::pin(std::future::ready(if fails { Err("503".into()) } else { Ok(fetched) }))
    }

    fn can_probe(&self) -> bool {
        true
    }

    fn host(&self) -> String {
        "service.example".into()
    }
}

/// What a bot does with an offer; `None`: nothing, ever.
type Behaviour = dyn Fn(&Offer) -> Option<Outcome> + Send + Sync;

/// A bot in memory.
pub(super) struct Bot {
    there: watch::Sender<bool>,
    offers: Mutex<Vec<Offer>>,
    behaviour: Mutex<Arc<Behaviour>>,
    late: Mutex<Option<Box<dyn FnMut() -> bool + Send>>>,
}

impl Default for Bot {
    fn default() -> Self {
        Self {
            there: watch::Sender::new(true),
            offers: Mutex::default(),
            behaviour: Mutex::new(Arc::new(|_| Some(confirmed()))),
            late: Mutex::default(),
        }
    }
}

impl Bot {
    pub(super) fn set_there(&self, there: bool) {
        self.there.send_replace(there);
    }

    pub(super) fn behave(
        &self,
        behaviour: impl Fn(&Offer) -> Option<Outcome> + Send + Sync + 'static,
    ) {
        *self.behaviour.lock().unwrap() = Arc::new(behaviour);
    }

    /// Confirms as soon as this says so.
    pub(super) fn behave_late(&self, is_done: impl FnMut() -> bool + Send + 'static) {
        *self.late.lock().unwrap() = Some(Box::new(is_done));
    }

    /// Ids and attempts, in the order of offers.
    pub(super) fn offered(&self) -> Vec<(String, u32)> {
        let offers = self.offers.lock().unwrap();
        offers.iter().map(|offer| (offer.message.id.clone(), offer.attempt)).collect()
    }

    pub(super) fn bodies(&self) -> Vec<Bytes> {
        let offers = self.offers.lock().unwrap();
        offers.iter().map(|offer| offer.message.body.clone()).collect()
    }

    pub(super) fn offered_in(&self, room: &str) -> Vec<String> {
        let offers = self.offers.lock().unwrap();
        let here = offers.iter().filter(|offer| offer.message.room == room);
        here.map(|offer| offer.message.id.clone()).collect()
    }

    fn is_late(&self) -> bool {
        self.late.lock().unwrap().as_mut().is_some_and(|is_done| !is_done())
    }
}

impl bot::Deliver for Bot {
    fn offer(&self, offer: Offer) -> Boxed<'_, Outcome> {
        let behaviour = Arc::clone(&self.behaviour.lock().unwrap());
        let outcome = behaviour(&offer);
        self.offers.lock().unwrap().push(offer);
        Box::pin(async move {
            while self.is_late() {
                sleep(Duration::from_millis(5)).await;
            }
            match outcome {
                Some(outcome) => outcome,
                None => std::future::pending().await,
            }
        })
    }

    fn ready(&self) -> Boxed<'_, ()> {
        let mut there = self.there.subscribe();
        Box::pin(async move {
            let _ = timeout(Duration::from_secs(60), there.wait_for(|there| *there)).await;
        })
    }

    fn presence(&self) -> Presence {
        Presence { connections: usize::from(*self.there.borrow()), words: "a bot".into() }
    }
}

impl fmt::Debug for Bot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bot")
    }
}

/// Makes them, and keeps those of a name.
#[derive(Debug, Default)]
pub(super) struct FakeMaker {
    services: Mutex<BTreeMap<String, Service>>,
    bots: Mutex<BTreeMap<String, Arc<Bot>>>,
    panics: Mutex<BTreeSet<String>>,
    deliver_missing: Mutex<bool>,
    ways: Mutex<Vec<settings::Deliver>>,
}

impl FakeMaker {
    pub(super) fn service(&self, name: &str) -> Service {
        self.services.lock().unwrap().entry(name.to_owned()).or_default().clone()
    }

    pub(super) fn bot(&self, name: &str) -> Arc<Bot> {
        Arc::clone(self.bots.lock().unwrap().entry(name.to_owned()).or_default())
    }

    /// The next time that the task of this link is started, it panics.
    pub(super) fn panic_once(&self, name: &str) {
        self.panics.lock().unwrap().insert(name.to_owned());
    }

    fn panics_now(&self, name: &str) -> bool {
        self.panics.lock().unwrap().remove(name)
    }

    fn remember(&self, way: settings::Deliver) {
        self.ways.lock().unwrap().push(way);
    }

    /// Every way to a bot that was made.
    pub(super) fn ways(&self) -> Vec<settings::Deliver> {
        self.ways.lock().unwrap().clone()
    }

    fn is_deliver_missing(&self) -> bool {
        *self.deliver_missing.lock().unwrap()
    }

    pub(super) fn set_deliver_missing(&self, missing: bool) {
        *self.deliver_missing.lock().unwrap() = missing;
    }
}

impl Maker for FakeMaker {
    fn far(&self, link: &settings::Link) -> Result<Far, String> {
        let profile: SharedProfile = Arc::new(self.service(&link.name));
        Ok(Far { profile, rules: None, way: None })
    }

    fn near(
        &self,
        link: &settings::Link,
        _far: &Far,
        _mouth: Mouth,
    ) -> Result<SharedDeliver, String> {
        assert!(!self.panics_now(&link.name), "this is meant to happen");
        if self.is_deliver_missing() {
            return Err("no such backend".into());
        }
        self.remember(link.deliver.clone());
        Ok(self.bot(&link.name))
    }

    fn forget(&self, _name: &str) {}
}

#[derive(Debug)]
pub(super) struct FakeHost;

impl Host for FakeHost {
    fn deliver(&self, _link: &settings::Link, _mouth: Mouth) -> Result<SharedDeliver, String> {
        Err("there is none here".into())
    }

    fn restart_service(&self, _service: &str) {}
}
