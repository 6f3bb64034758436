//! Events from outside: what programs ask to be sent that are no handlers of this process.
//!
//! Each source of them (the API now; a broker's channel would be another) makes an [`Emit`] and hands
//! it to the [`Emitter`], which the gateway has one of. A source owns how it is asked and how it
//! answers, and has its row in [`Source`]; everything else is here and the same for all: ids that are
//! asked for twice, holding, gathering of acks, counting.

pub(crate) mod command;
pub(crate) mod limit;
mod recent;

use std::{
    fmt,
    hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bowline_names::Metric;
use bowline_net::{Broadcast, Busy, Delivery, Handle, Sid, socketio::Args};
use bytestring::ByteString;
use tokio::{sync::watch, task::JoinSet};

use self::recent::{Recent, Seen};
use crate::{
    clock::Clock,
    metrics::{Sample, Value},
};

/// Where emits come from: a label of `bowline_emits_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// `POST /api/v1/emit`, and with it `bowline emit`.
    Api,
}

/// An event for sockets of one namespace.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Emit {
    pub(crate) namespace: ByteString,
    pub(crate) to: To,
    /// Not for members of these rooms.
    pub(crate) except: Vec<ByteString>,
    /// The name of the event first.
    pub(crate) args: Args,
    /// May be dropped for receivers that cannot take it at once.
    pub(crate) volatile: bool,
    /// How long it is kept if there is nobody yet whom it is for. It is not awaited.
    pub(crate) hold: Option<Duration>,
    /// How long acks of all receivers are awaited; `None` asks for none. What was held asks for none
    /// either: nobody would wait for them.
    pub(crate) ack: Option<Duration>,
}

/// For whom an event is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum To {
    /// Everybody in the namespace.
    All,
    /// Members of any of these rooms; of none, it is for nobody.
    Rooms(Vec<ByteString>),
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Emitted {
    /// The id under which it was asked for, or one that was made for it.
    pub(crate) id: String,
    /// How many sockets it was sent to.
    pub(crate) receivers: usize,
    /// Who has acked, and the arguments of the acks, in order of arrival.
    pub(crate) acks: Vec<(Sid, Args)>,
    /// How many have not acked in time.
    pub(crate) missing: usize,
    /// How many acks came and are not in `acks`, because that are so many already.
    pub(crate) left_out: usize,
    /// Whether it waits for somebody whom it is for.
    pub(crate) held: bool,
}

/// Why an event was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EmitError {
    /// A shard has too much to do, or too many events are held already.
    Busy,
    /// Something else was asked for under this id.
    IdReused,
}

impl fmt::Display for EmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "too many events wait to be sent already",
            Self::IdReused => "the id was used for another event within the last ten minutes",
        })
    }
}

impl From<Busy> for EmitError {
    fn from(Busy: Busy) -> Self {
        Self::Busy
    }
}

/// Sends events from outside. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Emitter(Arc<Inner>);

struct Inner {
    handle: Handle,
    clock: Clock,
    recent: Mutex<Recent<Told>>,
    /// Those that were asked for with an id and are not done.
    tasks: Mutex<JoinSet<()>>,
    /// Of what is asked for, so that an id can be told to stand for something else.
    hashing: RandomState,
    /// Begins the ids that are made here.
    prefix: u64,
    made: AtomicU64,
    counts: Counts,
}

/// How many emits of each source came to what.
#[derive(Debug, Default)]
pub(crate) struct Counts([[AtomicU64; Outcome::ALL.len()]; Source::ALL.len()]);

/// What becomes of an event, for all who ask; `None` until it is known.
type Told = watch::Receiver<Option<Result<Arc<Emitted>, EmitError>>>;

/// What is counted of an emit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It was sent to somebody.
    Sent,
    /// There was nobody whom it was for.
    Nobody,
    Held,
    /// Its id was there before, and so was its answer.
    Repeated,
    /// Something else was asked for under its id.
    IdReused,
    Busy,
}

impl Source {
    const ALL: [Self; 1] = [Self::Api];

    fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
        }
    }
}

impl Outcome {
    const ALL: [Self; 6] =
        [Self::Sent, Self::Nobody, Self::Held, Self::Repeated, Self::IdReused, Self::Busy];

    fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Nobody => "nobody",
            Self::Held => "held",
            Self::Repeated => "repeated",
            Self::IdReused => "id-reused",
            Self::Busy => "busy",
        }
    }
}

impl From<EmitError> for Outcome {
    fn from(error: EmitError) -> Self {
        match error {
            EmitError::Busy => Self::Busy,
            EmitError::IdReused => Self::IdReused,
        }
    }
}

impl Emitter {
    pub(crate) fn new(handle: Handle) -> Self {
        let hashing = RandomState::new();
        let prefix = hashing.hash_one(());
        Self(Arc::new(Inner {
            handle,
            clock: Clock::start(),
            recent: Mutex::new(Recent::new()),
            tasks: Mutex::new(JoinSet::new()),
            hashing,
            prefix,
            made: AtomicU64::new(0),
            counts: Counts::default(),
        }))
    }

    /// Sends an event and says what became of it: when it has been handed to its receivers, or when
    /// their acks are there. With an `id` that was there in the last ten minutes nothing is sent, and
    /// the answer is that of the first time, which may still be awaited. It runs on the current
    /// runtime.
    ///
    /// # Errors
    /// Nothing was sent.
    pub(crate) async fn emit(
        &self,
        source: Source,
        id: Option<String>,
        emit: Emit,
    ) -> Result<Arc<Emitted>, EmitError> {
        let inner = &self.0;
        let Some(id) = id else {
            let made = inner.made.fetch_add(1, Relaxed);
            let emitted = inner.deliver(format!("{:016x}-{made}", inner.prefix), emit).await;
            inner.counts.add(source, outcome(&emitted));
            return emitted.map(Arc::new);
        };
        let (tell, mut told) = watch::channel(None);
        let seen = inner.recent().take(inner.clock.now(), &id, inner.hash(&emit), told.clone());
        match seen {
            Seen::New(number) => {
                // A task, so that it comes to an end for those who ask again although the first who
                // asked has gone.
                let work = Arc::clone(inner).deliver_for_all(source, (number, id), emit, tell);
                let mut tasks = inner.tasks.lock().unwrap_or_else(PoisonError::into_inner);
                while tasks.try_join_next().is_some() {}
                tasks.spawn(work);
            }
            Seen::Before(before) => {
                inner.counts.add(source, Outcome::Repeated);
                told = before;
            }
            Seen::Other => {
                inner.counts.add(source, Outcome::IdReused);
                return Err(EmitError::IdReused);
            }
        }
        // Without an end it was cut with the runtime.
        let ended = told.wait_for(Option::is_some).await;
        ended.ok().and_then(|ended| ended.clone()).unwrap_or(Err(EmitError::Busy))
    }

    /// What has been counted.
    pub(crate) fn counts(&self) -> &Counts {
        &self.0.counts
    }
}

impl Counts {
    fn add(&self, source: Source, outcome: Outcome) {
        self.0[source as usize][outcome as usize].fetch_add(1, Relaxed);
    }

    /// All of them, under the name of the table.
    pub(crate) fn samples(&self) -> impl Iterator<Item = Sample> {
        Source::ALL.into_iter().flat_map(move |source| {
            Outcome::ALL.into_iter().map(move |outcome| Sample {
                metric: Metric::Emits,
                labels: vec![source.name().into(), outcome.name().into()],
                value: Value::Number(self.0[source as usize][outcome as usize].load(Relaxed) as f64),
            })
        })
    }
}

impl Inner {
    async fn deliver(&self, id: String, emit: Emit) -> Result<Emitted, EmitError> {
        let (hold, ack) = (emit.hold, emit.ack);
        let mut emitted =
            Emitted { id, receivers: 0, acks: vec![], missing: 0, left_out: 0, held: false };
        let Some(broadcast) = emit.broadcast() else { return Ok(emitted) };
        if let Some(timeout) = ack {
            let asked = broadcast.clone();
            let gathered = self.handle.broadcast_with_acks(asked, timeout, limit::ACKS_MAX).await?;
            emitted.receivers = gathered.receivers;
            emitted.acks = gathered.acks;
            emitted.missing = gathered.missing;
            emitted.left_out = gathered.left_out;
            if emitted.receivers > 0 {
                return Ok(emitted);
            }
        }
        match hold {
            Some(hold) => match self.handle.broadcast_held(broadcast, hold).await? {
                Delivery::Held => emitted.held = true,
                Delivery::Reached(receivers) => {
                    emitted.receivers = receivers;
                    // They came after acks were asked for.
                    emitted.missing = if ack.is_some() { receivers } else { 0 };
                }
            },
            None if ack.is_none() => {
                emitted.receivers = self.handle.broadcast_reached(broadcast).await?;
            }
            None => {}
        }
        Ok(emitted)
    }

    /// The same for everybody who asks for this id.
    async fn deliver_for_all(
        self: Arc<Self>,
        source: Source,
        (number, id): (u64, String),
        emit: Emit,
        tell: watch::Sender<Option<Result<Arc<Emitted>, EmitError>>>,
    ) {
        let emitted = self.deliver(id.clone(), emit).await;
        self.counts.add(source, outcome(&emitted));
        match &emitted {
            Ok(emitted) => self.recent().weigh(number, &id, emitted.bytes()),
            Err(_) => self.recent().forget(number, &id),
        }
        tell.send_replace(Some(emitted.map(Arc::new)));
    }

    /// What makes an event this event and no other.
    fn hash(&self, emit: &Emit) -> u64 {
        let Emit { namespace, to, except, args, volatile: _, hold: _, ack: _ } = emit;
        let mut hasher = self.hashing.build_hasher();
        (&**namespace, to, except).hash(&mut hasher);
        (&**args.json(), args.attachments()).hash(&mut hasher);
        hasher.finish()
    }

    fn recent(&self) -> MutexGuard<'_, Recent<Told>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Emit {
    /// `None` if it is for nobody.
    fn broadcast(self) -> Option<Broadcast> {
        let mut broadcast = Broadcast::new(self.namespace, self.args);
        match self.to {
            To::All => {}
            To::Rooms(rooms) if rooms.is_empty() => return None,
            To::Rooms(rooms) => broadcast = rooms.into_iter().fold(broadcast, Broadcast::to),
        }
        broadcast = self.except.into_iter().fold(broadcast, Broadcast::except);
        Some(if self.volatile { broadcast.volatile() } else { broadcast })
    }
}

impl Emitted {
    fn bytes(&self) -> usize {
        let acks = self.acks.iter().map(|(sid, args)| size_of_val(sid) + args.bytes());
        size_of::<Self>() + self.id.len() + acks.sum::<usize>()
    }
}

fn outcome(emitted: &Result<Emitted, EmitError>) -> Outcome {
    match emitted {
        Ok(Emitted { held: true, .. }) => Outcome::Held,
        Ok(Emitted { receivers: 0, .. }) => Outcome::Nobody,
        Ok(_) => Outcome::Sent,
        Err(error) => (*error).into(),
    }
}

#[cfg(test)]
mod tests;
