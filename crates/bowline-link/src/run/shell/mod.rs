//! The loop of one link: choose what happened, handle it, carry out what the keeper says.

mod arriving;
mod offering;
mod saying;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    future::pending,
    sync::{Arc, PoisonError},
    time::Duration,
};

use bowline_proto::{
    Time,
    keeper::{ConnectionId, Input, Keeper, Merge, OpenFailure, Output, ProbeId, Verdict},
};
use bowline_store::{Inbox, Stage};
use tokio::{
    sync::mpsc::{self, OwnedPermit},
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::{sleep_until, timeout},
};

use super::{
    Far, Given, Order,
    arrivals::{self, Arrived, Stored},
    catch_up::{CatchUp, Question},
    connections::Connections,
    limit,
    offers::Offered,
    outbound::Outbound,
    queue::Queue,
    report::Reporter,
};
use crate::{
    bot::{Outcome, Presence, Said, SharedDeliver},
    clock,
    far::{Boxed, CatchUpFailure, Command, Connection, Event, Message, OpenHow},
};

/// What the inbox remembers of a link besides its messages: when routing was proved last, in milliseconds since 1970.
const PROVED: &str = "proved";

pub(super) struct Shell {
    given: Given,
    link: Arc<str>,
    far: Far,
    inbox: Inbox,
    keeper: Keeper,
    inputs: VecDeque<Input>,
    reporter: Reporter,

    opening: JoinSet<Result<Connection, OpenFailure>>,
    openings: Vec<(Id, ConnectionId, AbortHandle)>,
    connections: Connections,
    current: Option<ConnectionId>,
    merge: Merge<Message>,
    probes: VecDeque<(String, ProbeId)>,

    catch_up: CatchUp<Arrived>,
    asking: JoinSet<Result<Vec<Message>, CatchUpFailure>>,
    /// When routing was proved last, as far as that was not written down yet.
    proved: Option<Time>,
    proved_written: Option<Time>,
    /// The same, of the process before this one.
    proved_before: Option<u64>,

    incoming: VecDeque<Arrived>,
    arrivals: mpsc::Sender<Arrived>,
    stored: mpsc::Receiver<Stored>,
    storing: usize,
    /// Since when messages find no place, in milliseconds since 1970.
    full_since: Option<u64>,
    /// How many the service was not asked for that found none: it can only say them again on another connection.
    left_there: u64,
    /// How often the store had changed between disk and memory when the queue was filled from it.
    store_changes: u64,
    /// Whether something may wait in the store that is not in the queue.
    reload: bool,
    made_here: u64,

    deliver: SharedDeliver,
    /// Whether the way to the bot could not be made yet.
    deliver_missing: bool,
    queue: Queue,
    offering: JoinSet<Offered>,
    offers: HashMap<Id, Offered>,
    /// Offers that were under way when a connection of the bot was lost: that has counted as its failure.
    excused: HashSet<Id>,
    absent: bool,
    absences: u32,
    ready: JoinSet<()>,
    outbound: Outbound,

    look_at: Time,
    stage: Phase,
    /// What is written and deleted beside all this; see [`limit::BESIDE`].
    beside: JoinSet<()>,
    storer: JoinSet<()>,
}

/// How far the task is with its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// Nothing is offered any more; what is under way may end.
    Finishing {
        until: Time,
        end: Time,
    },
    /// The connections say goodbye.
    Closing {
        end: Time,
    },
}

enum Happened {
    Far(ConnectionId, Option<Event>),
    Opened(Result<(Id, Result<Connection, OpenFailure>), JoinError>),
    /// The storing task takes messages again.
    Storing,
    Stored(Stored),
    /// The storing task has ended, which it does not do by itself.
    StorerEnded,
    Offered(Result<(Id, Offered), JoinError>),
    /// Somebody is there again to offer messages to.
    Ready,
    Said(Said),
    Order(Order),
    Asked(Result<Result<Vec<Message>, CatchUpFailure>, JoinError>),
    /// The connection in use has room for one more.
    Room(OwnedPermit<Command>),
    Beside,
    /// What the link is told of its bot is otherwise.
    Changed,
    Due,
    Stop(Duration),
}

impl Shell {
    pub(super) async fn new(mut given: Given, far: Far) -> Self {
        given.link = Arc::clone(&given.changes.borrow_and_update());
        let link: Arc<str> = given.link.name.as_str().into();
        let inbox = given.common.store.inbox();
        given.board.set_host(far.profile.host(), far.way.as_ref().map(|way| way.leg.clone()));
        let mut config = given.link.keeper.clone();
        if !far.profile.can_probe() {
            config.probe_interval = None;
        }
        if !far.profile.can_look() {
            config.look_interval = None;
        }
        let (arrivals, receiver) = mpsc::channel(limit::ARRIVALS);
        let (sender, stored) = mpsc::channel(limit::ARRIVALS);
        let mut storer = JoinSet::new();
        let waiting_max = given.common.waiting_max;
        storer.spawn(arrivals::store(
            link.to_string(),
            inbox.clone(),
            waiting_max,
            receiver,
            sender,
        ));
        let (deliver, deliver_missing) = near(&given, &far);
        let now = given.common.clock.now();
        let mut shell = Self {
            reporter: Reporter::new(Arc::clone(&link), Arc::clone(&given.board)),
            keeper: Keeper::new(config, u64::from_ne_bytes(random())),
            inputs: VecDeque::new(),
            opening: JoinSet::new(),
            openings: Vec::new(),
            connections: Connections::default(),
            current: None,
            merge: Merge::new(),
            probes: VecDeque::new(),
            catch_up: CatchUp::default(),
            asking: JoinSet::new(),
            proved: None,
            proved_written: None,
            proved_before: None,
            incoming: VecDeque::new(),
            arrivals,
            stored,
            storing: 0,
            full_since: None,
            left_there: 0,
            store_changes: 0,
            reload: false,
            made_here: 0,
            deliver,
            deliver_missing,
            queue: Queue::default(),
            offering: JoinSet::new(),
            offers: HashMap::new(),
            excused: HashSet::new(),
            absent: false,
            absences: 0,
            ready: JoinSet::new(),
            outbound: Outbound::default(),
            look_at: now + given.common.look_every,
            stage: Phase::Running,
            beside: JoinSet::new(),
            storer,
            given,
            link,
            far,
            inbox,
        };
        shell.load().await;
        shell.proved_before =
            shell.inbox.get(&shell.link, PROVED).await.and_then(|text| text.parse().ok());
        shell
    }

    pub(super) async fn run(mut self) {
        self.drive(Input::Start);
        loop {
            self.pump();
            self.given.board.publish(&self.keeper);
            if self.is_over() {
                break;
            }
            let happened = self.choose().await;
            self.handle(happened).await;
        }
    }

    async fn choose(&mut self) -> Happened {
        let wake = self.wake_at().map(|at| self.given.common.clock.instant(at));
        let reads = self.incoming.len() < limit::ARRIVALS;
        // A store that hangs is waited for.
        let writes = self.beside.len() < limit::BESIDE;
        let running = self.stage == Phase::Running;
        let room = self.current.and_then(|id| self.connections.commands(id).cloned());
        tokio::select! {
            () = async { match wake { Some(at) => sleep_until(at).await, None => pending().await } } => {
                Happened::Due
            }
            (id, event) = self.connections.next(), if reads => Happened::Far(id, event),
            Some(opened) = self.opening.join_next_with_id() => Happened::Opened(opened),
            Ok(permit) = self.arrivals.reserve(), if !self.incoming.is_empty() => {
                if let Some(arrived) = self.incoming.pop_front() {
                    self.storing += 1;
                    permit.send(arrived);
                }
                Happened::Storing
            }
            Some(stored) = self.stored.recv(), if writes => Happened::Stored(stored),
            Some(_) = self.storer.join_next() => Happened::StorerEnded,
            Some(offered) = self.offering.join_next_with_id() => Happened::Offered(offered),
            Some(_) = self.ready.join_next() => Happened::Ready,
            Some(said) = self.given.said.recv(), if writes => Happened::Said(said),
            Some(order) = self.given.orders.recv() => Happened::Order(order),
            Some(asked) = self.asking.join_next() => Happened::Asked(asked),
            Ok(permit) = room_for(room), if !self.outbound.is_empty() => Happened::Room(permit),
            Some(_) = self.beside.join_next() => Happened::Beside,
            Ok(()) = self.given.changes.changed(), if running => Happened::Changed,
            stop = self.given.stop.wait_for(Option::is_some), if running => {
                // Nobody who could say it any more: the end is hard.
                Happened::Stop(stop.ok().and_then(|within| *within).unwrap_or_default())
            }
        }
    }

    async fn handle(&mut self, happened: Happened) {
        match happened {
            Happened::Far(id, Some(event)) => self.on_event(id, event),
            Happened::Far(id, None) => {
                let words = "its task ended".to_owned();
                self.on_closed(id, Verdict::Again, words);
            }
            Happened::Opened(opened) => self.on_opened(opened),
            Happened::Stored(stored) => self.on_stored(stored),
            Happened::Offered(offered) => self.on_offered(offered),
            Happened::Ready => self.absent = false,
            Happened::Said(said) => self.on_said(said),
            Happened::Order(order) => self.on_order(order),
            Happened::Asked(asked) => self.on_asked(asked),
            Happened::Room(permit) => self.send_one(permit),
            Happened::Changed => self.on_changed(),
            Happened::Due => self.on_due().await,
            Happened::Stop(within) => self.on_stop(within),
            Happened::StorerEnded => panic!("the storing task has ended"),
            Happened::Storing | Happened::Beside => {}
        }
    }

    /// Tells the keeper what happened, and carries out what it says; and so on, until it has nothing more to say.
    fn drive(&mut self, input: Input) {
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            let now = self.now();
            self.keeper.handle_input(now, input);
            while let Some(output) = self.keeper.poll_output() {
                self.carry_out(now, output);
            }
        }
    }

    fn carry_out(&mut self, now: Time, output: Output) {
        match output {
            Output::Reserve => {
                let host = self.far.profile.host();
                let budget = self.given.common.budget.lock();
                let at = budget.unwrap_or_else(PoisonError::into_inner).reserve(now, &host);
                self.inputs.push_back(Input::Slot { at });
            }
            Output::Open { connection, fresh_address, fresh_pool, within } => {
                self.open(connection, fresh_address, fresh_pool, within);
            }
            // What is not told is not answered, and the keeper notices that.
            Output::Ping { connection } => {
                self.connections.tell(connection, Command::Ping);
            }
            Output::Ack { connection } => {
                self.connections.tell(connection, Command::Ack);
            }
            Output::Probe { connection, probe, within: _ } => self.probe(connection, probe),
            Output::Use { connection } => {
                self.current = Some(connection);
                if let Some(since) = self.proved_before.take() {
                    self.catch_up.want(now, clock::unix_ms(), since);
                }
            }
            Output::Close { connection, within, discard } => {
                self.close(now, connection, within, discard);
            }
            Output::CatchUp { since } => {
                let since = self.given.common.clock.unix_ms_of(since);
                self.catch_up.want(now, clock::unix_ms(), since);
            }
            Output::Look { since } => {
                let since = self.given.common.clock.unix_ms_of(since);
                self.catch_up.look(now, clock::unix_ms(), since);
            }
            Output::RestartService => {
                if let Some(service) = &self.given.link.service {
                    self.given.common.host.restart_service(service);
                }
            }
            Output::Report(report) => self.reporter.report(report),
        }
    }

    fn open(
        &mut self,
        connection: ConnectionId,
        fresh_address: bool,
        fresh_pool: bool,
        within: Duration,
    ) {
        if fresh_pool {
            self.far.profile.fresh_pool();
        }
        if fresh_address {
            for address in self.connections.take_left() {
                self.discard(address);
            }
        }
        let profile = Arc::clone(&self.far.profile);
        let how = OpenHow { fresh_address, beside_another: self.connections.any_open() };
        let task = self.opening.spawn(async move {
            match timeout(within, profile.open(how)).await {
                Ok(opened) => opened,
                Err(_) => Err(OpenFailure {
                    verdict: Verdict::Again,
                    words: format!("it took longer than {} s", within.as_secs()),
                    retry_after: None,
                }),
            }
        });
        self.openings.push((task.id(), connection, task));
    }

    fn on_opened(&mut self, opened: Result<(Id, Result<Connection, OpenFailure>), JoinError>) {
        let (task, opened) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let words = format!("opening it failed: {error}");
                let failure = OpenFailure { verdict: Verdict::Again, words, retry_after: None };
                (error.id(), Err(failure))
            }
        };
        let known = self.openings.iter().position(|(id, ..)| *id == task);
        let Some(known) = known else {
            // It was given up meanwhile; what it has at the service is of no use to anybody.
            if let Ok(Connection { address: Some(address), .. }) = opened {
                self.discard(address);
            }
            return;
        };
        let (_, connection, _) = self.openings.swap_remove(known);
        match opened {
            Ok(open) => {
                self.reporter.attempt(None);
                for address in self.connections.insert(connection, open) {
                    self.discard(address);
                }
                self.merge.open(self.now(), connection);
                self.drive(Input::Opened { connection });
            }
            Err(why) => {
                self.reporter.attempt(Some(why.verdict));
                self.drive(Input::OpenFailed { connection, why });
            }
        }
    }

    fn probe(&mut self, connection: ConnectionId, probe: ProbeId) {
        let nonce = nonce();
        if !self.connections.tell(connection, Command::Probe { nonce: nonce.clone() }) {
            let words = "the connection does not take it".to_owned();
            self.inputs.push_back(Input::NotProbed { probe, words });
            return;
        }
        self.probes.push_back((nonce, probe));
        if self.probes.len() > limit::PROBES {
            self.probes.pop_front();
        }
    }

    fn close(&mut self, now: Time, connection: ConnectionId, within: Duration, discard: bool) {
        if let Some(opening) = self.openings.iter().position(|(_, id, _)| *id == connection) {
            self.openings.swap_remove(opening).2.abort();
            return;
        }
        // What it has brought by now is older than what the next one says.
        while let Some(event) = self.connections.try_next(connection) {
            if let Event::Closed { .. } = event {
                self.gone(now, connection);
                break;
            }
            self.on_event_of(now, connection, event);
        }
        if let Some(address) = self.connections.close(now, connection, within, discard) {
            self.discard(address);
        }
        self.merge.end(now, connection);
        self.pass_merged(now);
    }

    fn on_closed(&mut self, connection: ConnectionId, verdict: Verdict, words: String) {
        let asked_for = self.connections.is_closing(connection);
        self.gone(self.now(), connection);
        if !asked_for {
            self.drive(Input::Closed { connection, verdict, words });
        }
    }

    fn gone(&mut self, now: Time, connection: ConnectionId) {
        self.merge.end(now, connection);
        self.pass_merged(now);
        self.outbound.ended(connection);
        if self.current == Some(connection) {
            self.current = None;
        }
        if let Some(address) = self.connections.end(connection) {
            self.discard(address);
        }
    }

    fn discard(&mut self, address: String) {
        let profile = Arc::clone(&self.far.profile);
        self.beside.spawn(async move {
            // A device that could not be deleted is the profile's business at its next start.
            let _ = timeout(limit::DISCARD, profile.discard(address)).await;
        });
    }

    /// What can be done without waiting.
    fn pump(&mut self) {
        let now = self.now();
        if self.asking.is_empty()
            && let Some(Question { since_unix_ms, is_missing }) = self.catch_up.ask(now)
        {
            if !is_missing {
                self.given.board.count(|figures| figures.looks += 1);
            }
            let profile = Arc::clone(&self.far.profile);
            self.asking.spawn(async move {
                let ask = if is_missing {
                    profile.catch_up(since_unix_ms)
                } else {
                    profile.look(since_unix_ms)
                };
                match timeout(limit::CATCH_UP, ask).await {
                    Ok(answer) => answer,
                    Err(_) => Err(CatchUpFailure {
                        words: "the service did not answer in time".to_owned(),
                        retry_after: None,
                    }),
                }
            });
        }
        self.incoming.append(&mut self.catch_up.release(now));
        if self.proved.is_some()
            && self.proved_written.is_none_or(|at| now.since(at) >= limit::PROVED)
        {
            self.write_proved(now);
        }
        while !self.outbound.is_empty()
            && let Some(commands) = self.current.and_then(|id| self.connections.commands(id))
            && let Ok(permit) = commands.clone().try_reserve_owned()
        {
            self.send_one(permit);
        }
        self.offer(now);
    }

    fn wake_at(&self) -> Option<Time> {
        let now = self.now();
        let offers = if self.may_offer() { self.queue.deadline() } else { None };
        let phase = match self.stage {
            Phase::Running => Some(self.look_at),
            Phase::Finishing { until, .. } => Some(until),
            Phase::Closing { end } => Some(end),
        };
        [
            self.keeper.deadline().map(|(at, _)| at),
            offers,
            self.connections.deadline(),
            self.outbound.deadline(),
            self.catch_up.deadline(now),
            phase,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    async fn on_due(&mut self) {
        let now = self.now();
        if self.keeper.deadline().is_some_and(|(at, _)| at <= now) {
            self.drive(Input::Timeout);
        }
        for address in self.connections.end_overdue(now) {
            self.discard(address);
        }
        let expired = self.outbound.expire(now);
        for unsent in expired.unsent {
            self.not_sent(unsent);
        }
        for id in expired.confirmed {
            self.step(id, Stage::Confirmed, "its replies could not be sent".into());
        }
        if self.look_at <= now {
            self.look_at = now + self.given.common.look_every;
            self.look().await;
        }
        if let Phase::Finishing { until, end } = self.stage
            && until <= now
        {
            self.begin_closing(end);
        }
    }

    /// Looks after what nobody calls about.
    async fn look(&mut self) {
        let has_changed = self.given.common.store.health().changes != self.store_changes;
        if has_changed || (self.reload && self.storing == 0) {
            self.load().await;
            // What was stored before that is in the queue by now, and must not come into it again later.
            while let Ok(stored) = self.stored.try_recv() {
                self.on_stored(stored);
            }
        }
        if self.full_since.is_some()
            && self.inbox.room(&self.link, self.given.common.waiting_max) > 0
            && self.given.common.store.health().words.is_empty()
        {
            self.has_room_again();
        }
        self.have_it_said_again();
        if self.deliver_missing {
            self.reach_bot();
        }
    }

    /// Makes the side of the bot anew. Offers that are under way end over the way on which they began.
    fn reach_bot(&mut self) {
        (self.deliver, self.deliver_missing) = near(&self.given, &self.far);
        if !self.deliver_missing {
            self.absent = false;
            self.ready = JoinSet::new();
        }
    }

    fn on_changed(&mut self) {
        self.given.link = Arc::clone(&self.given.changes.borrow_and_update());
        tracing::info!(
            link = &*self.link,
            "the settings of the bot's side have changed and count from now on; the connection goes on"
        );
        self.given.board.set_link(&self.given.link);
        self.keeper.set_service_after(self.given.link.keeper.service_after);
        self.reach_bot();
    }

    /// Writes down when routing was proved last: from then on the next process asks for what it missed.
    fn write_proved(&mut self, now: Time) {
        // As long as something before it may be missing, or is not stored yet, it is not to be believed.
        let is_stored = self.incoming.is_empty() && self.storing == 0 && self.full_since.is_none();
        if self.proved_before.is_some() || !self.catch_up.is_idle() || !is_stored {
            return;
        }
        let Some(proved) = self.proved.take() else { return };
        self.proved_written = Some(now);
        let (inbox, link) = (self.inbox.clone(), Arc::clone(&self.link));
        let text = self.given.common.clock.unix_ms_of(proved).to_string();
        self.beside.spawn(async move { inbox.set(&link, PROVED, Some(&text)).await });
    }

    fn now(&self) -> Time {
        self.given.common.clock.now()
    }

    fn on_stop(&mut self, within: Duration) {
        let now = self.now();
        let end = now + within;
        // Half of it for the bot, half for the goodbye.
        self.stage = Phase::Finishing { until: now + within / 2, end };
    }

    fn begin_closing(&mut self, end: Time) {
        self.stage = Phase::Closing { end };
        self.offering.abort_all();
        self.write_proved(self.now());
        self.drive(Input::Stop);
    }

    fn is_over(&mut self) -> bool {
        if let Phase::Finishing { end, .. } = self.stage
            && self.offering.is_empty()
            && (self.outbound.is_done() || self.current.is_none())
        {
            self.begin_closing(end);
        }
        let Phase::Closing { end } = self.stage else { return false };
        let stored = self.incoming.is_empty() && self.storing == 0;
        let done = self.connections.is_empty() && self.beside.is_empty() && stored;
        done || end <= self.now()
    }
}

/// Makes the side of the bot; says so if it cannot be made, and lets messages wait meanwhile.
fn near(given: &Given, far: &Far) -> (SharedDeliver, bool) {
    let made = given.common.maker.near(&given.link, far, given.mouth.clone());
    let (deliver, missing) = match made {
        Ok(deliver) => (deliver, false),
        Err(words) => {
            tracing::error!(
                link = given.link.name,
                error = words,
                "messages cannot reach the bot yet"
            );
            (Arc::new(Nobody { words }) as SharedDeliver, true)
        }
    };
    given.board.set_deliver(Arc::clone(&deliver));
    (deliver, missing)
}

/// Stands in for a way to the bot that cannot be made yet.
#[derive(Debug)]
struct Nobody {
    words: String,
}

impl crate::bot::Deliver for Nobody {
    fn offer(&self, _offer: crate::bot::Offer) -> Boxed<'_, Outcome> {
        Box::pin(std::future::ready(Outcome::Absent))
    }

    fn ready(&self) -> Boxed<'_, ()> {
        Box::pin(pending())
    }

    fn presence(&self) -> Presence {
        Presence { connections: 0, words: self.words.clone() }
    }
}

/// Waits until the connection takes one more command.
async fn room_for(commands: Option<mpsc::Sender<Command>>) -> Result<OwnedPermit<Command>, ()> {
    match commands {
        Some(commands) => commands.reserve_owned().await.map_err(|_| ()),
        None => Err(()),
    }
}

/// The word of a routing round trip: nobody else can guess it.
fn nonce() -> String {
    use std::fmt::Write as _;

    let mut nonce = "bowline-probe-".to_owned();
    for byte in random::<16>() {
        // Writing into a string does not fail.
        let _ = write!(nonce, "{byte:02x}");
    }
    nonce
}

/// Fresh bytes of the system's.
///
/// # Panics
///
/// When the operating system gives no randomness: a word that can be guessed proves nothing.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives no randomness");
    bytes
}
