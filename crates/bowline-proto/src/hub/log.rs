//! The log: what was emitted, in order, for those who have missed it.

use std::{collections::VecDeque, fmt, str::FromStr};

use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use crate::{Time, short::Short, socketio::Args, wall::BroadcastOrigin};

/// Where a client stands in the log of a shard: `epoch.shard.number`, the last argument of each event
/// of a stamped socket. Its text is opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Offset {
    /// Which log: that of one process, or of several that passed it on.
    pub epoch: u32,
    /// The shard whose log it is.
    pub shard: u8,
    /// The number of the record that the client has seen last.
    pub number: u64,
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}.{}", self.epoch, self.shard, self.number)
    }
}

impl Offset {
    /// What stands behind the arguments of an event in place of their closing bracket.
    pub(super) fn stamp(self) -> StampText {
        self.stamp_of(&Self::before_number(self.epoch, self.shard))
    }

    /// The same, if what stands before the number is at hand.
    fn stamp_of(self, before_number: &StampText) -> StampText {
        let mut text = *before_number;
        text.push_decimal(self.number);
        text.push("\"]");
        text
    }

    fn before_number(epoch: u32, shard: u8) -> StampText {
        let mut text = Short::new();
        text.push(",\"");
        text.push_hex(epoch.into());
        text.push(".");
        text.push_decimal(shard.into());
        text.push(".");
        text
    }
}

/// The end of a stamped event; empty for one without a stamp. An offset has 33 bytes at most.
pub(super) type StampText = Short<40>;

/// The text is no offset of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidOffset;

impl FromStr for Offset {
    type Err = InvalidOffset;

    fn from_str(text: &str) -> Result<Self, InvalidOffset> {
        let mut parts = text.splitn(3, '.');
        let mut part = || parts.next().filter(|text| !text.starts_with('+')).ok_or(InvalidOffset);
        let (epoch, shard, number) = (part()?, part()?, part()?);
        Ok(Self {
            epoch: u32::from_str_radix(epoch, 16).map_err(|_| InvalidOffset)?,
            shard: shard.parse().map_err(|_| InvalidOffset)?,
            number: number.parse().map_err(|_| InvalidOffset)?,
        })
    }
}

/// The records of one shard, the oldest first.
#[derive(Debug)]
pub(super) struct Log {
    epoch: u32,
    shard: u8,
    /// What all its stamps begin with.
    before_number: StampText,
    /// The number of the oldest record that is left; that of the next one if none is.
    first: u64,
    records: VecDeque<Record>,
    bytes: usize,
    /// When the newest of those was made that are there no more.
    dropped: Time,
}

/// One thing that was emitted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// Not saved: clocks begin anew with each process.
    #[serde(skip)]
    pub(super) at: Time,
    pub(super) target: Target,
    pub(super) args: Args,
    pub(super) kind: RecordKind,
    pub(super) origin: BroadcastOrigin,
}

/// What a record is for its receivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum RecordKind {
    /// An event. Stamped sockets get its offset with it.
    Event,
    /// An event that asks for an ack. Its receivers hold it themselves until they have answered; it
    /// stands here for sockets that were between two shards at the time.
    Asking(u64),
    /// The ack of an event of the client.
    Answer(u64),
}

/// Who a record is for. Each names the record before it that is for the same: following these, a
/// socket finds its own records without looking at those of others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Target {
    /// One socket, which knows the last one.
    Socket { previous: u64 },
    /// Everybody in a namespace, which knows the last one.
    Everyone { previous: u64, except: Box<[ByteString]> },
    /// The members of rooms.
    Rooms { rooms: Box<[Link]>, except: Box<[ByteString]> },
}

/// A room that a record is for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Link {
    pub(super) room: ByteString,
    pub(super) previous: u64,
}

impl Record {
    /// What it counts for in the log: its text, its names, and itself.
    fn bytes(&self) -> usize {
        let names = |names: &[ByteString]| names.iter().map(|name| name.len()).sum::<usize>();
        let target = match &self.target {
            Target::Socket { .. } => 0,
            Target::Everyone { except, .. } => names(except),
            Target::Rooms { rooms, except } => {
                let each = size_of::<Link>();
                rooms.iter().map(|link| link.room.len() + each).sum::<usize>() + names(except)
            }
        };
        size_of::<Self>() + ALLOCATION_BYTES + target + self.args.bytes()
    }
}

/// What the allocator and the shared counters of a text take beside it.
const ALLOCATION_BYTES: usize = 64;

impl Log {
    /// A log that goes on after the record `head`.
    pub(super) fn new(epoch: u32, shard: u8, head: u64) -> Self {
        Self {
            epoch,
            shard,
            before_number: Offset::before_number(epoch, shard),
            first: head + 1,
            records: VecDeque::new(),
            bytes: 0,
            dropped: Time::ZERO,
        }
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The number of the newest record there ever was. The first one is 1.
    pub(super) fn head(&self) -> u64 {
        self.first + self.records.len() as u64 - 1
    }

    pub(super) fn offset(&self, number: u64) -> Offset {
        Offset { epoch: self.epoch, shard: self.shard, number }
    }

    /// The stamp of an event of this number.
    pub(super) fn stamp(&self, number: u64) -> StampText {
        self.offset(number).stamp_of(&self.before_number)
    }

    /// Whether an offset is one that this log has given away.
    pub(super) fn has_given(&self, offset: Offset) -> bool {
        (offset.epoch, offset.shard) == (self.epoch, self.shard) && offset.number <= self.head()
    }

    pub(super) fn push(&mut self, record: Record) -> u64 {
        self.bytes += record.bytes();
        self.records.push_back(record);
        self.head()
    }

    /// The record of this number, or `None` if it is not there any more.
    pub(super) fn get(&self, number: u64) -> Option<&Record> {
        let index = number.checked_sub(self.first)?;
        self.records.get(usize::try_from(index).ok()?)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Record> {
        let index = number.checked_sub(self.first)?;
        self.records.get_mut(usize::try_from(index).ok()?)
    }

    /// The number of the oldest record that is left.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the oldest record that is left was made.
    pub(super) fn oldest(&self) -> Option<Time> {
        self.records.front().map(|record| record.at)
    }

    /// The number of the last record that was made at `time` or before; zero if the log does not go
    /// back so far.
    pub(super) fn number_at(&self, time: Time) -> u64 {
        if time < self.dropped {
            return 0;
        }
        let until = self.records.partition_point(|record| record.at <= time);
        self.first + until as u64 - 1
    }

    /// Drops what was made before `until`, and the oldest of what is more than `bytes_max`.
    pub(super) fn trim(&mut self, until: Time, bytes_max: usize) {
        while let Some(oldest) = self.records.front()
            && (self.bytes > bytes_max || oldest.at < until)
        {
            self.bytes -= oldest.bytes();
            self.dropped = oldest.at;
            self.first += 1;
            self.records.pop_front();
        }
        if self.records.is_empty() {
            self.records.shrink_to(EMPTY_RECORDS);
        }
    }

    /// All records with their numbers, for [`Snapshot`](super::Snapshot).
    pub(super) fn records(&self) -> impl Iterator<Item = (u64, &Record)> {
        (self.first..).zip(&self.records)
    }

    /// Puts records of an earlier process before those of this one. They end where these begin.
    pub(super) fn prepend(&mut self, records: Vec<Record>) {
        for record in records.into_iter().rev() {
            self.bytes += record.bytes();
            self.first -= 1;
            self.records.push_front(record);
        }
    }

    /// Counts the age of all records from now on.
    pub(super) fn rejuvenate(&mut self, now: Time) {
        for record in &mut self.records {
            record.at = now;
        }
    }
}

/// The room that an empty log keeps.
const EMPTY_RECORDS: usize = 1_024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn record(seconds: u64) -> Record {
        Record {
            at: Time::ZERO + Duration::from_secs(seconds),
            target: Target::Socket { previous: 0 },
            args: Args::new("[\"a\"]").unwrap(),
            kind: RecordKind::Event,
            origin: BroadcastOrigin { shard: 0, number: 0 },
        }
    }

    #[test]
    fn an_offset_is_read_as_it_is_written_and_rubbish_is_none() {
        let offset = Offset { epoch: 0xdead_beef, shard: 7, number: 12_345 };
        assert_eq!(offset.to_string(), "deadbeef.7.12345");
        assert_eq!(offset.stamp().as_str(), ",\"deadbeef.7.12345\"]");
        let longest = Offset { epoch: u32::MAX, shard: u8::MAX, number: u64::MAX };
        assert_eq!(longest.stamp().as_str(), format!(",\"{longest}\"]"));
        assert_eq!("deadbeef.7.12345".parse(), Ok(offset));
        for rubbish in
            ["", ".", "..", "a.1", "a.1.", "a.256.1", "x.1.1", "+a.1.1", "a.1.+1", "a.1.1.1"]
        {
            assert_eq!(rubbish.parse::<Offset>(), Err(InvalidOffset), "{rubbish:?}");
        }
    }

    #[test]
    fn records_are_numbered_from_one_and_go_by_age_and_by_bytes() {
        let mut log = Log::new(1, 0, 0);
        assert_eq!((log.head(), log.first()), (0, 1));
        for second in 0..10 {
            assert_eq!(log.push(record(second)), second + 1);
        }
        assert_eq!(log.number_at(Time::ZERO + Duration::from_secs(4)), 5);
        log.trim(Time::ZERO + Duration::from_secs(3), usize::MAX);
        assert_eq!((log.first(), log.head(), log.len()), (4, 10, 7));
        assert!(log.get(3).is_none() && log.get(4).is_some() && log.get(11).is_none());
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        assert_eq!(log.number_at(at(2)), 3, "what is gone is older than all that is left");
        assert_eq!(log.number_at(at(1)), 0, "what is gone may be newer than that");
        let each = log.bytes() / 7;
        log.trim(Time::ZERO, 2 * each);
        assert_eq!((log.len(), log.bytes()), (2, 2 * each));
        log.trim(Time::ZERO, 0);
        assert_eq!((log.len(), log.bytes(), log.head(), log.first()), (0, 0, 10, 11));
        assert_eq!(log.push(record(9)), 11);
    }

    #[test]
    fn what_an_earlier_process_saved_comes_before() {
        let mut log = Log::new(1, 0, 5);
        assert_eq!(log.push(record(9)), 6);
        log.prepend(vec![record(1), record(2)]);
        assert_eq!((log.first(), log.head()), (4, 6));
        assert_eq!(log.get(4).unwrap().at, Time::ZERO + Duration::from_secs(1));
        assert!(log.has_given(Offset { epoch: 1, shard: 0, number: 4 }));
        assert!(!log.has_given(Offset { epoch: 1, shard: 0, number: 7 }));
        assert!(!log.has_given(Offset { epoch: 2, shard: 0, number: 4 }));
    }
}
