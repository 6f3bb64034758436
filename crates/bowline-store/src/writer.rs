//! The thread that has the database to itself.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, TransactionBehavior, params};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use crate::{
    Figures, Health, Mode, Options,
    clock::{self, Steady},
    inbox::{Arrival, Counts, Entry, Gone, Parked, Put, Stage, Step},
    rows::{self, Change},
    schema::{self, MIGRATIONS, Unusable},
};

/// What may wait for the writer; who comes then waits before.
pub(crate) const QUEUE: usize = 1024;

/// What is written in one transaction, and so with one sync of the disk.
const GROUP_MAX: usize = 256;

/// The part of the limit to memory that is kept for what belongs to messages which are there: 1 of 8.
const RESERVE: u64 = 8;

/// When a sweep that has not deleted all goes on: others have their turn in between.
const SWEEP_ON: Duration = Duration::from_millis(50);

/// How many bytes a message takes in memory besides its body, about: its row, its indexes, a few steps.
const MESSAGE_BYTES: u64 = 512;

/// Free pages that stay in the file: 4 MiB, as the next messages need some.
const FREE_PAGES_MAX: u64 = 1024;

/// Free pages that are given back to the file system at once: others have their turn in between.
const SHRINK_PAGES: u64 = 256;

/// How long going back to the disk waits for another process: messages that are stored in memory wait meanwhile.
const BACK_BUSY: Duration = Duration::from_millis(250);

/// What the disk must have room for before it is trusted again.
const ROOM_BYTES: u32 = 256 << 10;

/// What is asked of the store.
#[derive(Debug)]
pub(crate) enum Ask {
    Put(Arrival),
    Step { link: String, id: String, stage: Stage, at_unix_ms: u64, words: String },
    Set { link: String, key: String, value: Option<String> },
    Sweep { now_unix_ms: u64, clock_unix_ms: u64 },
    MarkGone { now_unix_ms: u64 },
    LetGo { link: String, now_unix_ms: u64 },
    OfferAgain { link: String, id: Option<String>, limit: u64, now_unix_ms: u64 },
    Parked { link: String, limit: usize },
    Waiting { link: String, after_seq: u64, limit: usize },
    Trace { id: String },
    Get { link: String, key: String },
    Close,
}

impl Ask {
    fn writes(&self) -> bool {
        match self {
            Self::Put(_)
            | Self::Step { .. }
            | Self::Set { .. }
            | Self::Sweep { .. }
            | Self::MarkGone { .. }
            | Self::LetGo { .. }
            | Self::OfferAgain { .. } => true,
            Self::Parked { .. }
            | Self::Waiting { .. }
            | Self::Trace { .. }
            | Self::Get { .. }
            | Self::Close => false,
        }
    }
}

/// What it answers.
#[derive(Debug)]
pub(crate) enum Answer {
    Put(Put),
    Step {
        offers: u32,
        change: Change,
    },
    Set,
    Swept(u64),
    Marked,
    LetGo(u64),
    OfferedAgain(u64),
    Parked(Vec<Parked>),
    Waiting(Vec<Entry>),
    Trace(Vec<Step>),
    Fact(Option<String>),
    Closed,
    /// It could not be done, not even in memory.
    Failed,
}

/// Something asked, and who waits.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) ask: Ask,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// What others may look at without asking the thread.
#[derive(Debug)]
pub(crate) struct Shared {
    inner: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    health: Health,
    figures: Figures,
    counts: BTreeMap<String, Counts>,
    /// Which links there are, once somebody has told.
    links: Option<Arc<BTreeSet<String>>>,
    /// Since when others are gone that have messages.
    gone: BTreeMap<String, u64>,
}

impl Seen {
    fn is_gone(&self, link: &str) -> bool {
        self.links.as_ref().is_some_and(|links| !links.contains(link))
    }
}

impl Shared {
    pub(crate) fn new(words: &str) -> Self {
        let health = Health {
            mode: Mode::Disk,
            words: words.to_owned(),
            since_unix_ms: clock::unix_ms(),
            changes: 0,
        };
        let (counts, gone) = (BTreeMap::new(), BTreeMap::new());
        let seen = Seen { health, figures: Figures::default(), counts, links: None, gone };
        Self { inner: Mutex::new(seen) }
    }

    pub(crate) fn health(&self) -> Health {
        self.with(|seen| seen.health.clone())
    }

    pub(crate) fn figures(&self) -> Figures {
        self.with(|seen| seen.figures)
    }

    pub(crate) fn counts(&self, link: &str) -> Counts {
        self.with(|seen| seen.counts.get(link).copied().unwrap_or_default())
    }

    /// What a link may have besides what it has, if all may have `max` together: half of that is cut into equal parts,
    /// one for each link, and the rest is for whoever comes first.
    pub(crate) fn room(&self, link: &str, max: u64, of: impl Fn(&str, Counts) -> u64) -> u64 {
        self.with(|seen| {
            let mut links: BTreeSet<&str> = match &seen.links {
                Some(links) => links.iter().map(String::as_str).collect(),
                None => seen.counts.keys().map(String::as_str).collect(),
            };
            links.insert(link);
            let has = |link: &str| of(link, seen.counts.get(link).copied().unwrap_or_default());
            let count = links.len() as u64;
            let part = max / 2 / count;
            let taken: u64 = links.iter().map(|link| has(link).saturating_sub(part)).sum();
            let common = (max - part * count).saturating_sub(taken);
            part.saturating_sub(has(link)) + common
        })
    }

    pub(crate) fn set_links(&self, links: BTreeSet<String>) {
        self.with(|seen| seen.links = Some(Arc::new(links)));
    }

    fn links(&self) -> Option<Arc<BTreeSet<String>>> {
        self.with(|seen| seen.links.clone())
    }

    pub(crate) fn gone(&self) -> Vec<Gone> {
        let now = clock::unix_ms();
        self.with(|seen| {
            let gone = seen.counts.iter().filter(|(link, _)| seen.is_gone(link));
            gone.map(|(link, counts)| {
                let since_unix_ms = seen.gone.get(link).copied().unwrap_or(now);
                let until_unix_ms = since_unix_ms.saturating_add(rows::GONE_MS);
                Gone { link: link.clone(), counts: *counts, since_unix_ms, until_unix_ms }
            })
            .collect()
        })
    }

    pub(crate) fn set_health(&self, mode: Mode, words: String) {
        self.with(|seen| {
            let changes = seen.health.changes + u64::from(mode != seen.health.mode);
            seen.health = Health { mode, words, since_unix_ms: clock::unix_ms(), changes };
        });
    }

    fn with<T>(&self, f: impl FnOnce(&mut Seen) -> T) -> T {
        // Whoever panicked in here left plain numbers behind.
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where messages are at the moment.
#[derive(Debug)]
enum Place {
    Disk(Connection),
    Memory {
        database: Connection,
        retry: Instant,
    },
    /// Not even memory can be had.
    Nowhere,
}

/// The database, and what is known of it.
#[derive(Debug)]
pub(crate) struct Writer {
    path: PathBuf,
    options: Options,
    shared: Arc<Shared>,
    place: Place,
}

impl Writer {
    /// Opens the database, or degrades to memory.
    pub(crate) fn open(path: PathBuf, options: Options, shared: Arc<Shared>) -> Self {
        let mut writer = Self { path, options, shared, place: Place::Nowhere };
        match schema::open(&writer.path, MIGRATIONS, schema::BUSY) {
            Ok(database) => {
                writer.place = Place::Disk(database);
                writer.shared.set_health(Mode::Disk, String::new());
                writer.count_all();
            }
            Err(error) => writer.degrade(&error),
        }
        writer
    }

    /// Carries out what it is told until nobody is left to tell it, or it is closed.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut sweep = clock::now() + self.options.sweep;
        let mut steady = Steady::new(clock::now(), clock::unix_ms());
        let mut group = Vec::with_capacity(GROUP_MAX);
        loop {
            let wake = match &self.place {
                Place::Memory { retry, .. } => sweep.min(*retry),
                Place::Disk(_) | Place::Nowhere => sweep,
            };
            match timeout_at(wake, commands.recv_many(&mut group, GROUP_MAX)).await {
                Ok(0) => break,
                Ok(_) => {
                    if self.handle(&mut group) {
                        break;
                    }
                }
                Err(_) => {}
            }
            let now = clock::now();
            if let Place::Memory { retry, .. } = self.place
                && retry <= now
            {
                self.recover();
            }
            if sweep <= now {
                let clock_unix_ms = clock::unix_ms();
                let now_unix_ms = steady.unix_ms(now, clock_unix_ms);
                let swept = self.group(&[Ask::Sweep { now_unix_ms, clock_unix_ms }]);
                let more = matches!(swept[..], [Answer::Swept(rows::SWEEP_MAX)]) || self.shrink();
                sweep = now + if more { SWEEP_ON } else { self.options.sweep };
            }
        }
        if matches!(self.place, Place::Memory { .. }) {
            self.recover();
        }
        // The file is closed before [`Store::close`](crate::Store::close) hears of the end.
        drop(self);
        drop(commands);
    }

    /// Answers a group; true when it was told to close.
    fn handle(&mut self, group: &mut Vec<Command>) -> bool {
        let (asks, waiting): (Vec<Ask>, Vec<_>) =
            group.drain(..).map(|command| (command.ask, command.answer)).unzip();
        let answers = self.group(&asks);
        let mut closes = false;
        for (answer, to) in answers.into_iter().zip(waiting) {
            closes |= matches!(answer, Answer::Closed);
            // Who does not wait any more does not need it.
            let _ = to.send(answer);
        }
        closes
    }

    /// Carries out a group in one transaction, and answers when that is committed. What the disk does not take is done
    /// in memory.
    pub(crate) fn group(&mut self, asks: &[Ask]) -> Vec<Answer> {
        let links = self.shared.links();
        let links = links.as_deref();
        if let Place::Disk(database) = &mut self.place {
            // What a loss of power takes away of the other steps is only done once more.
            let synced = asks.iter().any(|ask| matches!(ask, Ask::Put(_)));
            let carried_out = schema::sync(database, synced)
                .and_then(|()| carry_out(database, asks, links, &|_, _| Ok(true)));
            match carried_out {
                Ok(answers) => {
                    self.note(asks, &answers);
                    return answers;
                }
                Err(error) => self.degrade(&Unusable::Sqlite(error)),
            }
        }
        let (max, shared) = (self.options.memory_max_bytes, &*self.shared);
        // What this group has put so far is not counted yet.
        let put = RefCell::new(BTreeMap::<String, u64>::new());
        let has_room = |database: &Connection, arrival: &Arrival| {
            let mut put = put.borrow_mut();
            let bytes = arrival.body.len() as u64;
            let of = |link: &str, counts| {
                memory_bytes(counts) + put.get(link).copied().unwrap_or_default()
            };
            let is_fair = bytes + MESSAGE_BYTES <= shared.room(&arrival.link, max, of);
            let has_room = is_fair && rows::used_bytes(database)?.saturating_add(bytes) <= max;
            if has_room {
                *put.entry(arrival.link.clone()).or_default() += bytes + MESSAGE_BYTES;
            }
            Ok(has_room)
        };
        let Place::Memory { database, .. } = &mut self.place else {
            return asks.iter().map(refused).collect();
        };
        let answers = match carry_out(database, asks, links, &has_room) {
            Ok(answers) => answers,
            // One that has no room must not take the others with it.
            Err(_) => {
                put.take();
                let one =
                    |ask| match carry_out(database, std::slice::from_ref(ask), links, &has_room) {
                        Ok(answers) => answers.into_iter().next().unwrap_or(Answer::Failed),
                        Err(_) => refused(ask),
                    };
                asks.iter().map(one).collect()
            }
        };
        self.note(asks, &answers);
        answers
    }

    /// Goes on in memory, with all that can still be read of the disk.
    fn degrade(&mut self, why: &Unusable) {
        let words = format!("{}: {why}", self.path.display());
        let bytes = self.options.memory_max_bytes;
        let was = std::mem::replace(&mut self.place, Place::Nowhere);
        match schema::memory(bytes + bytes / RESERVE) {
            Ok(database) => {
                let mut more = String::new();
                if let Place::Disk(disk) = &was
                    && let Err(error) = rows::copy(disk, &database)
                {
                    more = format!("; not all of it could be brought into memory ({error})");
                }
                let retry = clock::now() + self.options.retry;
                self.place = Place::Memory { database, retry };
                tracing::error!(
                    path = %self.path.display(),
                    reason = %why,
                    "the store goes on in memory{more}: messages that wait are lost when this process is killed"
                );
                self.shared.set_health(Mode::Memory, words + &more);
            }
            Err(error) => {
                tracing::error!(reason = %why, %error, "the store has neither disk nor memory: nothing is stored");
                self.shared.set_health(Mode::Memory, words);
            }
        }
        self.count_all();
    }

    /// Tries the disk once more, and brings back what is in memory.
    fn recover(&mut self) {
        let Place::Memory { database: memory, retry } = &mut self.place else { return };
        *retry = clock::now() + self.options.retry;
        match bring_back(&self.path, memory) {
            Ok(disk) => {
                self.place = Place::Disk(disk);
                tracing::info!(path = %self.path.display(), "the store is on disk again");
                self.shared.set_health(Mode::Disk, String::new());
                self.count_all();
            }
            Err(error) => {
                tracing::debug!(path = %self.path.display(), reason = %error, "the store stays in memory");
                let words = format!("{}: {error}", self.path.display());
                self.shared.with(|seen| seen.health.words = words);
            }
        }
    }

    /// Gives some of what the file does not need any more back to the file system; true if there is more of it.
    fn shrink(&self) -> bool {
        let Place::Disk(database) = &self.place else { return false };
        schema::shrink(database, FREE_PAGES_MAX, SHRINK_PAGES).unwrap_or_else(|error| {
            // Whatever it is, the next message that is stored meets it as well.
            tracing::debug!(path = %self.path.display(), %error, "the file cannot be made smaller");
            false
        })
    }

    fn database(&self) -> Option<&Connection> {
        match &self.place {
            Place::Disk(database) | Place::Memory { database, .. } => Some(database),
            Place::Nowhere => None,
        }
    }

    /// Brings counts and figures up to date after a commit.
    fn note(&self, asks: &[Ask], answers: &[Answer]) {
        let mut changes: BTreeMap<&str, Change> = BTreeMap::new();
        let mut anew = Vec::new();
        let mut all_anew = false;
        let mut puts = 0;
        for (ask, answer) in asks.iter().zip(answers) {
            match (ask, answer) {
                (Ask::Put(arrival), Answer::Put(Put::New { .. })) => {
                    puts += 1;
                    let sum = changes.entry(&arrival.link).or_default();
                    sum.waiting += 1;
                    sum.waiting_bytes += i64::try_from(arrival.body.len()).unwrap_or(i64::MAX);
                }
                (Ask::Step { link, .. }, Answer::Step { change, .. })
                    if *change != Change::default() =>
                {
                    let sum = changes.entry(link).or_default();
                    sum.waiting += change.waiting;
                    sum.parked += change.parked;
                    sum.waiting_bytes += change.waiting_bytes;
                }
                (Ask::Waiting { link, after_seq: 0, .. } | Ask::OfferAgain { link, .. }, _) => {
                    anew.push(link.as_str());
                }
                (Ask::Sweep { .. } | Ask::MarkGone { .. } | Ask::LetGo { .. }, _) => {
                    all_anew = true
                }
                _ => {}
            }
        }
        let Some(database) = self.database() else { return };
        let known: Vec<(&str, Counts)> = changes
            .into_iter()
            .map(|(link, change)| {
                let before = self.shared.counts(link);
                let counts = Counts {
                    waiting: before.waiting.saturating_add_signed(change.waiting),
                    parked: before.parked.saturating_add_signed(change.parked),
                    waiting_bytes: before.waiting_bytes.saturating_add_signed(change.waiting_bytes),
                    oldest_unix_ms: rows::oldest(database, link).unwrap_or(before.oldest_unix_ms),
                };
                (link, counts)
            })
            .chain(anew.into_iter().filter_map(|link| {
                let counted = rows::counts(database, Some(link)).ok()?;
                Some((link, counted.first().map_or(Counts::default(), |(_, counts)| *counts)))
            }))
            .collect();
        let writes = asks.iter().any(Ask::writes);
        self.shared.with(|seen| {
            seen.figures.commits += u64::from(writes);
            seen.figures.puts += puts;
            for (link, counts) in known {
                if counts == Counts::default() {
                    seen.counts.remove(link);
                } else {
                    seen.counts.insert(link.to_owned(), counts);
                }
            }
        });
        if all_anew {
            self.count_all();
        }
    }

    fn count_all(&self) {
        let Some(database) = self.database() else { return };
        // What cannot be counted now keeps its last count; the next statement that fails says why.
        if let (Ok(counts), Ok(gone)) = (rows::counts(database, None), rows::gone(database)) {
            self.shared.with(|seen| {
                seen.counts = counts.into_iter().collect();
                seen.gone = gone;
            });
        }
    }
}

/// Whether there is room for a message.
type HasRoom<'a> = &'a dyn Fn(&Connection, &Arrival) -> rusqlite::Result<bool>;

/// What of the memory belongs to a link.
fn memory_bytes(counts: Counts) -> u64 {
    counts.waiting_bytes.saturating_add(counts.waiting.saturating_mul(MESSAGE_BYTES))
}

fn carry_out(
    database: &mut Connection,
    asks: &[Ask],
    links: Option<&BTreeSet<String>>,
    has_room: HasRoom<'_>,
) -> rusqlite::Result<Vec<Answer>> {
    let behavior = if asks.iter().any(Ask::writes) {
        TransactionBehavior::Immediate
    } else {
        TransactionBehavior::Deferred
    };
    let transaction = database.transaction_with_behavior(behavior)?;
    let mut answers = Vec::with_capacity(asks.len());
    for ask in asks {
        answers.push(match ask {
            Ask::Put(arrival) => Answer::Put(put(&transaction, arrival, has_room)?),
            Ask::Step { link, id, stage, at_unix_ms, words } => {
                let (offers, change) =
                    rows::step(&transaction, link, id, *stage, *at_unix_ms, words)?;
                Answer::Step { offers, change }
            }
            Ask::Set { link, key, value } => {
                rows::set_fact(&transaction, link, key, value.as_deref())?;
                Answer::Set
            }
            Ask::Sweep { now_unix_ms, clock_unix_ms } => {
                Answer::Swept(rows::sweep(&transaction, links, *now_unix_ms, *clock_unix_ms)?)
            }
            Ask::MarkGone { now_unix_ms } => {
                if let Some(links) = links {
                    rows::mark_gone(&transaction, links, *now_unix_ms)?;
                }
                Answer::Marked
            }
            // It may have come back since somebody asked for that.
            Ask::LetGo { link, now_unix_ms } => {
                let is_gone = links.is_some_and(|links| !links.contains(link));
                let count =
                    if is_gone { rows::let_go(&transaction, link, *now_unix_ms)? } else { 0 };
                Answer::LetGo(count)
            }
            Ask::OfferAgain { link, id, limit, now_unix_ms } => {
                let id = id.as_deref();
                Answer::OfferedAgain(rows::offer_again(
                    &transaction,
                    link,
                    id,
                    *limit,
                    *now_unix_ms,
                )?)
            }
            Ask::Parked { link, limit } => {
                Answer::Parked(rows::parked(&transaction, link, *limit)?)
            }
            Ask::Waiting { link, after_seq, limit } => {
                Answer::Waiting(rows::waiting(&transaction, link, *after_seq, *limit)?)
            }
            Ask::Trace { id } => Answer::Trace(rows::trace(&transaction, id)?),
            Ask::Get { link, key } => Answer::Fact(rows::fact(&transaction, link, key)?),
            Ask::Close => Answer::Closed,
        });
    }
    transaction.commit()?;
    Ok(answers)
}

fn put(database: &Connection, arrival: &Arrival, has_room: HasRoom<'_>) -> rusqlite::Result<Put> {
    if !has_room(database, arrival)? {
        return Ok(if rows::knows(database, arrival)? { Put::Seen } else { Put::Refused });
    }
    rows::put(database, arrival)
}

fn refused(ask: &Ask) -> Answer {
    match ask {
        Ask::Put(_) => Answer::Put(Put::Refused),
        Ask::Close => Answer::Closed,
        Ask::Step { .. }
        | Ask::Set { .. }
        | Ask::Sweep { .. }
        | Ask::MarkGone { .. }
        | Ask::LetGo { .. }
        | Ask::OfferAgain { .. }
        | Ask::Parked { .. }
        | Ask::Waiting { .. }
        | Ask::Trace { .. }
        | Ask::Get { .. } => Answer::Failed,
    }
}

fn bring_back(path: &std::path::Path, memory: &Connection) -> Result<Connection, Unusable> {
    let mut disk = schema::open(path, MIGRATIONS, BACK_BUSY)?;
    let transaction = disk.transaction_with_behavior(TransactionBehavior::Immediate)?;
    rows::copy(memory, &transaction)?;
    transaction.commit()?;
    // A disk that has just enough room for this would be full again with the next message.
    let room =
        "INSERT OR REPLACE INTO fact (link, key, value) VALUES ('', 'room', hex(zeroblob(?1 / 2)))";
    disk.execute(room, params![ROOM_BYTES])?;
    rows::set_fact(&disk, "", "room", None)?;
    disk.busy_timeout(schema::BUSY)?;
    Ok(disk)
}

/// A thread of its own, with timers of its own.
pub(crate) fn start(
    path: PathBuf,
    options: Options,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    std::thread::Builder::new().name("store".to_owned()).spawn(move || {
        let writer = Writer::open(path, options, shared);
        runtime.block_on(writer.run(commands));
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_group_is_one_commit() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = writer(directory.path().join("links.db"), Options::default());
        let asks: Vec<Ask> = (0..200).map(|number| Ask::Put(arrival("a", number, 10))).collect();
        let answers = writer.group(&asks);
        assert!(answers.iter().all(|answer| matches!(answer, Answer::Put(Put::New { .. }))));
        assert_eq!(writer.shared.figures(), Figures { commits: 1, puts: 200 });
        assert_eq!(writer.shared.counts("a").waiting, 200);

        writer.group(&[Ask::Waiting { link: "a".to_owned(), after_seq: 0, limit: 5 }]);
        assert_eq!(writer.shared.figures().commits, 1, "reading commits nothing");
    }

    #[tokio::test]
    async fn what_has_come_meanwhile_is_written_together() {
        let directory = tempfile::tempdir().unwrap();
        let writer = writer(directory.path().join("links.db"), Options::default());
        let shared = Arc::clone(&writer.shared);
        let (commands, receiver) = mpsc::channel(QUEUE);
        let mut waiting = Vec::new();
        for number in 0..300 {
            let (answer, answered) = oneshot::channel();
            commands
                .send(Command { ask: Ask::Put(arrival("a", number, 10)), answer })
                .await
                .unwrap();
            waiting.push(answered);
        }
        drop(commands);
        writer.run(receiver).await;
        for answered in waiting {
            assert!(matches!(answered.await, Ok(Answer::Put(Put::New { .. }))));
        }
        assert_eq!(shared.figures(), Figures { commits: 2, puts: 300 }, "groups of at most 256");
    }

    #[test]
    fn a_sweep_does_not_take_all_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = writer(directory.path().join("links.db"), Options::default());
        let confirmed =
            |number| [Ask::Put(arrival("a", number, 10)), step(number, Stage::Confirmed)];
        writer.group(&(0..1500).flat_map(confirmed).collect::<Vec<_>>());
        for swept in [1000, 500, 0] {
            let sweep = Ask::Sweep { now_unix_ms: u64::MAX, clock_unix_ms: u64::MAX };
            let answers = writer.group(&[sweep]);
            assert!(matches!(answers[..], [Answer::Swept(count)] if count == swept), "{answers:?}");
        }
    }

    #[test]
    fn memory_is_bounded_and_takes_what_belongs_to_messages_that_are_there() {
        let path = PathBuf::from("/proc/no/links.db");
        let mut writer =
            writer(path, Options { memory_max_bytes: 512 << 10, ..Options::default() });
        assert_eq!(writer.shared.health().mode, Mode::Memory);
        let mut stored = 0;
        while let Answer::Put(Put::New { .. }) = put(&mut writer, stored, 4096) {
            stored += 1;
        }
        assert!((80..140).contains(&stored), "{stored}");
        assert!(
            matches!(put(&mut writer, 0, 4096), Answer::Put(Put::Seen)),
            "it may be acknowledged again"
        );

        let group: Vec<Ask> = [Ask::Put(arrival("a", 9999, 4096))]
            .into_iter()
            .chain((0..stored).map(|number| step(number, Stage::Offered)))
            .chain((0..stored / 2).map(|number| step(number, Stage::Confirmed)))
            .collect();
        let answers = writer.group(&group);
        assert!(matches!(answers[0], Answer::Put(Put::Refused)));
        assert!(answers[1..].iter().all(|answer| matches!(answer, Answer::Step { offers: 1, .. })));
        let waiting = stored - stored / 2;
        assert_eq!(writer.shared.counts("a").waiting, waiting);
        assert!(
            matches!(put(&mut writer, 9999, 4096), Answer::Put(Put::New { .. })),
            "there is room again"
        );
    }

    #[test]
    fn no_link_takes_all_of_the_memory() {
        let path = PathBuf::from("/proc/no/links.db");
        let mut writer = writer(path, Options { memory_max_bytes: 1 << 20, ..Options::default() });
        writer.shared.set_links(["a", "b"].map(str::to_owned).into());
        let mut fill = |link: &str, bytes: usize| {
            let put = |number| writer.group(&[Ask::Put(arrival(link, number, bytes))]).remove(0);
            (0..).map(put).take_while(|it| matches!(it, Answer::Put(Put::New { .. }))).count()
        };
        let (a, b) = (fill("a", 4096), fill("b", 4096));
        assert!((120..175).contains(&a) && (40..60).contains(&b), "{a} {b}");
        assert_eq!(fill("a", 10), 0);
    }

    #[test]
    fn what_comes_together_does_not_take_the_memory_of_others() {
        let path = PathBuf::from("/proc/no/links.db");
        let mut writer = writer(path, Options { memory_max_bytes: 1 << 20, ..Options::default() });
        writer.shared.set_links(["a", "b"].map(str::to_owned).into());
        let puts = |link: &str| -> Vec<_> {
            (0..200).map(|number| Ask::Put(arrival(link, number, 4096))).collect()
        };
        let is_new = |answer: &&Answer| matches!(answer, Answer::Put(Put::New { .. }));
        let mut taken = |link: &str| writer.group(&puts(link)).iter().filter(is_new).count();
        let (a, b) = (taken("a"), taken("b"));
        assert!((120..175).contains(&a) && (40..60).contains(&b), "{a} {b}");
    }

    #[test]
    fn a_link_that_is_back_keeps_what_waits() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = writer(directory.path().join("links.db"), Options::default());
        writer.shared.set_links(["a"].map(str::to_owned).into());
        writer.group(&[Ask::Put(arrival("a", 1, 10))]);
        let answers = writer.group(&[Ask::LetGo { link: "a".into(), now_unix_ms: 1 }]);
        assert!(matches!(answers[..], [Answer::LetGo(0)]), "{answers:?}");
        assert_eq!(writer.shared.counts("a").waiting, 1);
    }

    fn put(writer: &mut Writer, number: u64, bytes: usize) -> Answer {
        writer.group(&[Ask::Put(arrival("a", number, bytes))]).remove(0)
    }

    fn step(number: u64, stage: Stage) -> Ask {
        let (link, id) = ("a".to_owned(), format!("m-{number}"));
        Ask::Step { link, id, stage, at_unix_ms: 2000, words: String::new() }
    }

    fn arrival(link: &str, number: u64, bytes: usize) -> Arrival {
        Arrival {
            link: link.to_owned(),
            id: format!("m-{number}"),
            room: "r".to_owned(),
            at_unix_ms: 1000,
            body: Bytes::from(vec![b'x'; bytes]),
        }
    }

    fn writer(path: PathBuf, options: Options) -> Writer {
        Writer::open(path, options, Arc::new(Shared::new("")))
    }
}
