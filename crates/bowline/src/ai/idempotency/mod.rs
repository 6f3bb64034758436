//! `Idempotency-Key`: the same key with the same request asks a model once. Whoever repeats it while it is under way
//! joins it, and whoever repeats it afterwards gets the answer that was kept; docs/ai.md says what that is good for.
//!
//! [`store`] knows the keys. Here is one request for many clients: [`Place`] writes its answer, on a task of its own,
//! and each [`Reader`] reads it from the beginning, as fast as its client does.

mod store;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bowline_ai::{
    call::{Answer, Gateway, Request, Whole},
    keys::ClientKey,
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use ring::digest::{Context, SHA256};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

pub(crate) use self::store::Bounds;
pub(in crate::ai) use self::store::Hash;
use self::store::{Found, Store};
use super::{limit, lock};
use crate::clock::Clock;

/// The requests of all keys that are known.
#[derive(Debug)]
pub(super) struct Idempotency {
    store: Mutex<Store<Run>>,
    clock: Clock,
    /// Requests that were joined, and answers that were given again.
    counts: [AtomicU64; How::ALL.len()],
}

/// How a request was answered without a model being asked: a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// The same was under way.
    Joined,
    /// The same had been answered.
    Replayed,
}

/// What a request with a key is answered with.
pub(super) enum Begun {
    /// By asking a model; what is written at the place can be read.
    New(Place, Reader),
    /// By what was asked for already.
    Known(Reader),
    /// With a refusal.
    Refused(Refused),
}

/// Why a request with a key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The key came with another request before.
    Other,
    /// Its answer was too long to be kept.
    TooLong,
    /// There is no room for one more key.
    Full,
}

/// One request, and its answer as far as it has come.
#[derive(Debug)]
struct Run {
    answer: Mutex<Written>,
    /// Something was written.
    written: watch::Sender<()>,
    /// A reader has come or gone.
    read: Notify,
    /// There may be room for more. Not `read`, which wakes one alone: who waits to be deserted would take it.
    room: Notify,
}

#[derive(Debug, Default)]
struct Written {
    head: Option<Head>,
    pieces: VecDeque<Bytes>,
    /// The number of the first of them: those before it are not kept.
    first: usize,
    bytes: usize,
    /// Nothing is kept but what somebody has still to read.
    passing: bool,
    end: Option<End>,
    /// Who reads, and the number of the piece that is next.
    readers: BTreeMap<u64, usize>,
    last_reader: u64,
}

/// The head of an answer.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// More follows than one piece.
    pub(super) streams: bool,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Said,
    /// It was given up.
    Broken,
}

/// What comes next of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Piece(Bytes),
    End,
    /// Nothing more comes, and it is not whole.
    Broken,
}

/// Where an answer is written. Dropped before its end, the answer is given up, and the key is forgotten.
pub(super) struct Place {
    all: Arc<Idempotency>,
    key: Hash,
    run: Arc<Run>,
    over: bool,
}

/// Reads an answer.
pub(super) struct Reader {
    run: Arc<Run>,
    number: u64,
    written: watch::Receiver<()>,
}

impl How {
    pub(super) const ALL: [Self; 2] = [Self::Joined, Self::Replayed];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Replayed => "replayed",
        }
    }
}

impl Idempotency {
    pub(super) fn new(bounds: Bounds) -> Self {
        let (store, clock) = (Mutex::new(Store::new(bounds)), Clock::start());
        Self { store, clock, counts: Default::default() }
    }

    pub(super) fn set_bounds(&self, bounds: Bounds) {
        lock(&self.store).set_bounds(bounds);
    }

    /// Whether keys mean anything.
    pub(super) fn is_on(&self) -> bool {
        lock(&self.store).bounds().max > 0
    }

    /// Keys that are known, and what their answers take.
    pub(super) fn held(&self) -> (usize, usize) {
        lock(&self.store).held()
    }

    pub(super) fn counts(&self) -> [u64; How::ALL.len()] {
        self.counts.each_ref().map(|count| count.load(Relaxed))
    }

    /// Forgets what has been kept for long enough.
    pub(super) fn sweep(&self) {
        lock(&self.store).forget(self.clock.now());
    }

    /// Somebody shows a key with a request.
    pub(super) fn begin(self: &Arc<Self>, key: Hash, request: Hash) -> Begun {
        let found = lock(&self.store).begin(self.clock.now(), key, request, Run::new);
        match found {
            Found::New(run) => {
                let place = Place { all: Arc::clone(self), key, run, over: false };
                Reader::new(&place.run)
                    .map_or(Begun::Refused(Refused::TooLong), |reader| Begun::New(place, reader))
            }
            Found::Known { run, running } => {
                let Some(reader) = Reader::new(&run) else {
                    return Begun::Refused(Refused::TooLong);
                };
                let how = if running { How::Joined } else { How::Replayed };
                self.counts[how as usize].fetch_add(1, Relaxed);
                Begun::Known(reader)
            }
            Found::Other => Begun::Refused(Refused::Other),
            Found::TooLong => Begun::Refused(Refused::TooLong),
            Found::Full => Begun::Refused(Refused::Full),
        }
    }
}

/// What a key is known by: nobody finds another's, and no client what it was told of models that it may not ask for any
/// more.
pub(super) fn key_of(owner: Option<&ClientKey>, said: &str) -> Hash {
    let digest: &[u8] = owner.map_or(&[], |key| &key.digest.0);
    let models = owner.and_then(|key| key.limits.models.as_deref()).unwrap_or_default();
    hash([digest, said.as_bytes()].into_iter().chain(models.iter().map(String::as_bytes)))
}

/// What a request is known by: all of it that a provider is told.
pub(super) fn request_of(request: &Request) -> Hash {
    let headers =
        request.headers.iter().flat_map(|(name, value)| [name.as_ref(), value.as_bytes()]);
    let surface = request.surface.operation().as_bytes();
    let dialect = request.surface.dialect().name().as_bytes();
    hash([surface, dialect, &request.body].into_iter().chain(headers))
}

fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        // So that no part can be taken for the end of another.
        context.update(&part.len().to_le_bytes());
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

impl Run {
    fn new() -> Self {
        let answer = Mutex::default();
        Self { answer, written: watch::Sender::new(()), read: Notify::new(), room: Notify::new() }
    }

    fn is_read(&self) -> bool {
        !lock(&self.answer).readers.is_empty()
    }

    /// Waits until nobody has read for so long.
    async fn deserted(&self, linger: Duration) {
        loop {
            while self.is_read() {
                self.read.notified().await;
            }
            let back = async {
                while !self.is_read() {
                    self.read.notified().await;
                }
            };
            if timeout(linger, back).await.is_err() {
                return;
            }
        }
    }
}

impl Written {
    /// Drops what everybody has read.
    fn pass(&mut self) {
        let next = self.first + self.pieces.len();
        let read = self.readers.values().copied().min().unwrap_or(next);
        while self.first < read
            && let Some(piece) = self.pieces.pop_front()
        {
            self.first += 1;
            self.bytes -= piece.len();
        }
    }
}

impl Place {
    /// Asks a model, for as long as anybody waits for it.
    pub(super) async fn fill(mut self, gateway: Gateway, request: Request) {
        let linger = lock(&self.all.store).bounds().linger;
        let run = Arc::clone(&self.run);
        let mut deserted = std::pin::pin!(run.deserted(linger));
        let answer = tokio::select! {
            biased;
            answer = Box::pin(gateway.run(request)) => answer,
            () = &mut deserted => return,
        };
        let mut stream = match answer {
            Answer::Whole(whole) => return self.write_whole(whole),
            Answer::Stream(stream) => stream,
        };
        self.head(StatusCode::OK, stream.headers().clone(), true);
        loop {
            let piece = tokio::select! {
                biased;
                piece = stream.next() => piece,
                () = &mut deserted => return,
            };
            let Some(piece) = piece else {
                return self.end(stream.is_whole());
            };
            if !self.write(piece, stream.expired()).await {
                return;
            }
        }
    }

    fn write_whole(&mut self, whole: Whole) {
        let Whole { status, headers, body } = whole;
        self.head(status, headers, false);
        let good = status == StatusCode::OK;
        let kept = good && lock(&self.all.store).grow(&self.key, body.len());
        // A copy: what came may be a part of something larger, or belong to a budget.
        self.push(if kept { Bytes::copy_from_slice(&body) } else { body }, !kept);
        self.end(good);
    }

    fn head(&self, status: StatusCode, headers: HeaderMap, streams: bool) {
        lock(&self.run.answer).head = Some(Head { status, headers, streams });
        self.run.written.send_replace(());
    }

    /// Writes a piece of a stream, whose request has all of its time when it has `expired`. `false` if nobody wants it
    /// any more.
    async fn write(&self, piece: Bytes, expired: impl Future<Output = ()>) -> bool {
        if lock(&self.all.store).grow(&self.key, piece.len()) {
            self.push(piece, false);
            return true;
        }
        let mut expired = std::pin::pin!(expired);
        while !self.has_room() {
            tokio::select! {
                biased;
                () = self.run.room.notified() => {}
                // Whoever reads so slowly has had all its time.
                () = &mut expired => return false,
            }
        }
        self.push(piece, true);
        self.run.is_read()
    }

    /// Whether one more piece may wait for those who read.
    fn has_room(&self) -> bool {
        let mut answer = lock(&self.run.answer);
        answer.passing = true;
        answer.pass();
        answer.pieces.is_empty() || answer.bytes < limit::WAITING_BYTES_MAX
    }

    fn push(&self, piece: Bytes, passing: bool) {
        let mut answer = lock(&self.run.answer);
        answer.passing |= passing;
        answer.bytes += piece.len();
        answer.pieces.push_back(piece);
        drop(answer);
        self.run.written.send_replace(());
    }

    fn end(&mut self, whole: bool) {
        self.over = true;
        lock(&self.all.store).end(self.all.clock.now(), &self.key, whole);
        self.close(End::Said);
    }

    fn close(&self, end: End) {
        let mut answer = lock(&self.run.answer);
        answer.end = Some(end);
        if answer.passing {
            // Whoever had asked may have left, and the key is known for longer.
            answer.pass();
        }
        drop(answer);
        self.run.written.send_replace(());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.over {
            lock(&self.all.store).end(self.all.clock.now(), &self.key, false);
            self.close(End::Broken);
        }
    }
}

impl Reader {
    /// From the beginning; `None` if that is not kept any more.
    fn new(run: &Arc<Run>) -> Option<Self> {
        let mut answer = lock(&run.answer);
        if answer.first > 0 {
            return None;
        }
        answer.last_reader += 1;
        let number = answer.last_reader;
        answer.readers.insert(number, 0);
        drop(answer);
        run.read.notify_one();
        Some(Self { run: Arc::clone(run), number, written: run.written.subscribe() })
    }

    /// The head of the answer; `None` if there will be none.
    pub(super) async fn head(&mut self) -> Option<Head> {
        loop {
            self.written.mark_unchanged();
            let (head, end) = {
                let answer = lock(&self.run.answer);
                (answer.head.clone(), answer.end)
            };
            if head.is_some() || end.is_some() || self.written.changed().await.is_err() {
                return head;
            }
        }
    }

    /// What comes next. Nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> Next {
        loop {
            self.written.mark_unchanged();
            if let Some(next) = self.take() {
                return next;
            }
            if self.written.changed().await.is_err() {
                return Next::Broken;
            }
        }
    }

    fn take(&self) -> Option<Next> {
        let mut answer = lock(&self.run.answer);
        let at = answer.readers.get(&self.number).copied().unwrap_or_default();
        let Some(piece) = answer.pieces.get(at.checked_sub(answer.first)?).cloned() else {
            return answer.end.map(|end| match end {
                End::Said => Next::End,
                End::Broken => Next::Broken,
            });
        };
        answer.readers.insert(self.number, at + 1);
        let passing = answer.passing;
        if passing {
            answer.pass();
        }
        drop(answer);
        if passing {
            self.run.room.notify_one();
        }
        Some(Next::Piece(piece))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut answer = lock(&self.run.answer);
        answer.readers.remove(&self.number);
        if answer.passing {
            answer.pass();
        }
        drop(answer);
        self.run.read.notify_one();
        self.run.room.notify_one();
    }
}

#[cfg(test)]
mod tests;
