//! `event-id`: clients that name their events, so that none is handled twice.

use std::{borrow::Cow, collections::VecDeque, fmt, hash::Hasher as _, mem};

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use super::Hub;
use crate::{
    Output, SocketKey,
    socketio::Args,
    wall::{Event, HandlerId},
};

/// Where clients put an id into the arguments of their events: a JSON pointer (RFC 6901) whose first
/// part is the index of an argument, the name of the event not counted.
///
/// A second event of the same id on the same socket is not delivered. If it asks for an ack, it gets
/// the answer of the first one, as soon as that is there. The last 256 ids of a socket are known,
/// also on another shard and after a clean restart. Of the answers up to 4 KiB each are remembered,
/// and 64 KiB of one socket, the latest first; an event whose answer was longer, or that did not ask
/// for one the first time, is answered without arguments. One that its handler had not answered
/// when the server stopped is delivered again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventIdPath {
    pub(super) argument: usize,
    pub(super) keys: Vec<String>,
}

/// The text is no path to an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidEventIdPath;

impl fmt::Display for InvalidEventIdPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected the index of an argument and keys, such as \"/0/id\"")
    }
}

impl std::error::Error for InvalidEventIdPath {}

impl EventIdPath {
    /// The longest id, in bytes. A longer one counts as none, as does an empty one.
    pub const ID_BYTES_MAX: usize = 256;

    /// The id of an event: a string, or a number in its digits as they were written.
    pub fn find<'a>(&self, args: &'a Args) -> Option<Cow<'a, str>> {
        let id = args.scalar_at(self.argument.checked_add(1)?, &self.keys)?;
        (1..=Self::ID_BYTES_MAX).contains(&id.len()).then_some(id)
    }
}

impl fmt::Display for EventIdPath {
    /// Writes the path as it is read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.argument)?;
        let mut keys = self.keys.iter().map(|key| key.replace('~', "~0").replace('/', "~1"));
        keys.try_for_each(|key| write!(f, "/{key}"))
    }
}

impl std::str::FromStr for EventIdPath {
    type Err = InvalidEventIdPath;

    fn from_str(text: &str) -> Result<Self, InvalidEventIdPath> {
        let mut parts = text.strip_prefix('/').ok_or(InvalidEventIdPath)?.split('/');
        let first = parts.next().unwrap_or_default();
        let argument = first.parse().map_err(|_| InvalidEventIdPath)?;
        let keys = parts.map(|key| key.replace("~1", "/").replace("~0", "~")).collect();
        Ok(Self { argument, keys })
    }
}

/// The events that a socket has sent with an id, the latest last.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct KnownEvents {
    /// The hashes of their ids.
    events: VecDeque<(u64, Answer)>,
    /// Bytes of the answers that are remembered.
    bytes: usize,
}

/// What became of an event.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Answer {
    /// It did not ask for an ack.
    Unasked,
    /// Its handler has not answered. It knows the event by the first number; the client waits for
    /// the answer to the others too.
    Awaited { first: u64, others: Vec<u64> },
    /// It was answered with this, unless that is not remembered.
    Given(Option<Box<Args>>),
}

/// What there is to do about an event with an id.
enum Sight {
    First,
    /// It is known, and there is nothing to say.
    Again,
    /// It is known, and this is the answer.
    Answered(Args),
}

/// How many ids of a socket are known.
const IDS_MAX: usize = 256;
/// The longest answer that is remembered.
const ANSWER_BYTES_MAX: usize = 4 * 1024;
/// What the answers of a socket may take that are remembered.
const ANSWERS_BYTES_MAX: usize = 64 * 1024;
/// Repetitions of one event that may wait for its answer.
const WAITING_MAX: usize = 16;

impl KnownEvents {
    fn see(&mut self, hash: u64, ack: Option<u64>) -> Sight {
        let known = self.events.iter_mut().rev().find(|(known, _)| *known == hash);
        let Some((_, answer)) = known else {
            let answer = match ack {
                Some(first) => Answer::Awaited { first, others: Vec::new() },
                None => Answer::Unasked,
            };
            self.events.push_back((hash, answer));
            if self.events.len() > IDS_MAX
                && let Some((_, Answer::Given(Some(args)))) = self.events.pop_front()
            {
                self.bytes -= args.bytes();
            }
            return Sight::First;
        };
        let Some(ack) = ack else { return Sight::Again };
        match answer {
            Answer::Awaited { first, others } => {
                if ack != *first && !others.contains(&ack) && others.len() < WAITING_MAX {
                    others.push(ack);
                }
                Sight::Again
            }
            Answer::Given(Some(args)) => Sight::Answered((**args).clone()),
            Answer::Given(None) | Answer::Unasked => {
                let json = ByteString::from_static("[]");
                Sight::Answered(Args { json, attachments: Vec::new() })
            }
        }
    }

    /// Remembers the answer to the event that a handler knows by `ack`. Returns under which other
    /// numbers the client waits for it.
    fn note(&mut self, ack: u64, args: &Args) -> Vec<u64> {
        let awaited = |(_, answer): &&mut (u64, Answer)| match answer {
            Answer::Awaited { first, .. } => *first == ack,
            Answer::Unasked | Answer::Given(_) => false,
        };
        let Some((_, answer)) = self.events.iter_mut().find(awaited) else { return Vec::new() };
        let bytes = args.bytes();
        // Copied: what is shared might be a small part of something large.
        let copy = (bytes <= ANSWER_BYTES_MAX).then(|| {
            let copied = args.attachments.iter().map(|it| bytes::Bytes::copy_from_slice(it));
            Box::new(Args { json: (*args.json).into(), attachments: copied.collect() })
        });
        self.bytes += copy.as_deref().map_or(0, Args::bytes);
        let before = mem::replace(answer, Answer::Given(copy));
        for (_, answer) in &mut self.events {
            if self.bytes <= ANSWERS_BYTES_MAX {
                break;
            }
            if let Answer::Given(args) = answer
                && let Some(args) = args.take()
            {
                self.bytes -= args.bytes();
            }
        }
        match before {
            Answer::Awaited { others, .. } => others,
            Answer::Unasked | Answer::Given(_) => Vec::new(),
        }
    }

    /// Without those that no handler will answer any more, since it goes with the process.
    pub(super) fn to_save(&self) -> Self {
        let answered = |(_, answer): &&(u64, Answer)| !matches!(answer, Answer::Awaited { .. });
        Self { events: self.events.iter().filter(answered).cloned().collect(), bytes: self.bytes }
    }
}

impl Hub {
    /// Hands an event to its handler, unless it is one of those that it has had.
    pub(super) fn on_event(
        &mut self,
        key: SocketKey,
        handler: HandlerId,
        args: Args,
        mut ack: Option<u64>,
    ) {
        if let Some(asked) = &mut ack
            && let Some(socket) = self.sockets.get_mut(key)
            && let Some(kept) = socket.kept.as_deref_mut()
        {
            *asked = kept.ask(*asked);
        }
        let mut id = None;
        if self.named_events
            && let Some(found) = self.id_of_event(key, &args)
        {
            // The same on every shard, and in the next process.
            let mut hasher = SipHasher13::new_with_key(&self.config.continuity.key);
            hasher.write(found.as_bytes());
            let Some(socket) = self.sockets.get_mut(key) else { return };
            let known = socket.extras_mut().known_events.get_or_insert_default();
            match known.see(hasher.finish(), ack) {
                Sight::First => id = Some(found),
                sight @ (Sight::Again | Sight::Answered(_)) => {
                    self.stats.events_repeated += 1;
                    if let (Sight::Answered(args), Some(ack)) = (sight, ack) {
                        self.send_ack(key, ack, args);
                    }
                    return;
                }
            }
        }
        let event = Event::Event { socket: key, args, ack, id };
        self.outputs.push_back(Output::Deliver { handler, event });
    }

    fn id_of_event(&self, key: SocketKey, args: &Args) -> Option<Box<str>> {
        let namespace = self.namespaces.all.get(self.sockets.get(key)?.namespace)?;
        let path = self.config.rule_for(&namespace.name)?.keeping.event_id.as_ref()?;
        Some(Box::from(&*path.find(args)?))
    }

    /// Answers an event, and what has repeated it.
    pub(super) fn ack(&mut self, key: SocketKey, id: u64, args: Args) {
        let extras = self.sockets.get(key).and_then(|socket| socket.extras.as_deref());
        if extras.is_none_or(|extras| extras.known_events.is_none()) {
            return self.send_ack(key, id, args);
        }
        self.send_ack(key, id, args.clone());
        let extras = self.sockets.get_mut(key).and_then(|socket| socket.extras.as_deref_mut());
        if let Some(known) = extras.and_then(|extras| extras.known_events.as_deref_mut()) {
            for other in known.note(id, &args) {
                self.send_ack(key, other, args.clone());
            }
        }
    }
}
