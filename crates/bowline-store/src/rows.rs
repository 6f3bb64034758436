//! What is asked of the database, one statement after the other. Nothing in here begins or ends a transaction.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::inbox::{Arrival, Counts, Entry, Parked, Put, Stage, Step};

/// For how long after its confirmation a message is known, so that a repetition is recognised: 24 h.
pub(crate) const CONFIRMED_MS: u64 = 24 * 3600 * 1000;

/// For how long a parked message is kept for a person to look at: 7 days.
pub(crate) const PARKED_MS: u64 = 7 * CONFIRMED_MS;

/// For how long messages wait of a link that is not configured any more: as long as parked ones are kept.
pub(crate) const GONE_MS: u64 = PARKED_MS;

/// The fact of a link since when it is gone, in milliseconds since 1970.
const GONE: &str = "gone";

/// What was written further in the future than this was written while the clock was wrong.
const FUTURE_MS: u64 = 3600 * 1000;

/// What is deleted at once, so that a sweep holds nobody up.
pub(crate) const SWEEP_MAX: u64 = 1000;

/// Bodies that are read in one go: they may be of 16 MiB each.
const READ_BYTES_MAX: usize = 8 << 20;

/// The lines that a trace may have; further ones are not written. Offers are limited to far fewer.
const STEPS_MAX: u32 = 64;

/// The bytes of the words of one line.
const WORDS_MAX: usize = 500;

const WAITS: i64 = 0;
const CONFIRMED: i64 = 1;

/// Stores an arrival, if it is new.
pub(crate) fn put(database: &Connection, arrival: &Arrival) -> rusqlite::Result<Put> {
    let Arrival { link, id, room, at_unix_ms, body } = arrival;
    // Until a sweep has taken it away: that does not trust a clock which was set forward, and an arrival's time does.
    if knows(database, arrival)? {
        return Ok(Put::Seen);
    }
    database
        .prepare_cached(
            "INSERT INTO message (link, id, room, at, body) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![link, id, room, signed(*at_unix_ms), body.as_ref()])?;
    Ok(Put::New { seq: unsigned(database.last_insert_rowid()) })
}

/// Whether a message with its id is there.
pub(crate) fn knows(database: &Connection, arrival: &Arrival) -> rusqlite::Result<bool> {
    let known = database
        .prepare_cached("SELECT 1 FROM message WHERE id = ?1 AND link = ?2")?
        .query_row([&arrival.id, &arrival.link], |_| Ok(()))
        .optional()?;
    Ok(known.is_some())
}

/// What a step changed in the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Change {
    pub(crate) waiting: i64,
    pub(crate) parked: i64,
    pub(crate) waiting_bytes: i64,
}

/// Writes down how far a message has come, and tells how often it was offered so far.
pub(crate) fn step(
    database: &Connection,
    link: &str,
    id: &str,
    stage: Stage,
    at_unix_ms: u64,
    words: &str,
) -> rusqlite::Result<(u32, Change)> {
    let known = database
        .prepare_cached(
            "SELECT seq, state, offers, length(body) FROM message WHERE id = ?1 AND link = ?2",
        )?
        .query_row(params![id, link], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, u32>(2)?,
                row.get::<_, i64>(3)?,
            ))
        })
        .optional()?;
    let Some((seq, state, mut offers, bytes)) = known else {
        return Ok((0, Change::default()));
    };
    let at = signed(at_unix_ms);
    let mut change = Change::default();
    match stage {
        // Whoever asks this has an old view of it: it is not to be offered any more.
        Stage::Offered if state != WAITS => return Ok((0, change)),
        Stage::Offered => {
            offers = offers.saturating_add(1);
            database
                .prepare_cached("UPDATE message SET offers = ?2 WHERE seq = ?1")?
                .execute(params![seq, offers])?;
        }
        Stage::Confirmed if state != CONFIRMED => {
            // Nobody needs the text any more, and what is not kept cannot leak.
            database
                .prepare_cached(
                    "UPDATE message SET state = 1, done = ?2, body = x'' WHERE seq = ?1",
                )?
                .execute(params![seq, at])?;
            if state == WAITS {
                change = Change { waiting: -1, parked: 0, waiting_bytes: -bytes };
            } else {
                change.parked = -1;
            }
        }
        Stage::Parked if state == WAITS => {
            database
                .prepare_cached("UPDATE message SET state = 2, done = ?2 WHERE seq = ?1")?
                .execute(params![seq, at])?;
            change = Change { waiting: -1, parked: 1, waiting_bytes: -bytes };
        }
        Stage::Arrived
        | Stage::Fetched
        | Stage::Replied
        | Stage::Confirmed
        | Stage::Parked
        | Stage::Retried => {}
    }
    note(database, seq, stage, at_unix_ms, words)?;
    Ok((offers, change))
}

/// Adds a line to the trace of a message.
fn note(
    database: &Connection,
    seq: i64,
    stage: Stage,
    at_unix_ms: u64,
    words: &str,
) -> rusqlite::Result<()> {
    database
        .prepare_cached(
            "INSERT INTO step (message, stage, at, words) SELECT ?1, ?2, ?3, ?4
             WHERE (SELECT COUNT(*) FROM step WHERE message = ?1) < ?5",
        )?
        .execute(params![seq, stage.name(), signed(at_unix_ms), shortened(words), STEPS_MAX])?;
    Ok(())
}

/// What waits of a link behind `after_seq`, in the order of arrival; not much more than [`READ_BYTES_MAX`].
pub(crate) fn waiting(
    database: &Connection,
    link: &str,
    after_seq: u64,
    limit: usize,
) -> rusqlite::Result<Vec<Entry>> {
    let mut statement = database.prepare_cached(
        "SELECT seq, offers, link, id, room, at, body FROM message
         WHERE state = 0 AND link = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![link, signed(after_seq), limit])?;
    let (mut entries, mut bytes) = (Vec::new(), 0);
    while bytes < READ_BYTES_MAX
        && let Some(row) = rows.next()?
    {
        let body = Bytes::from(row.get::<_, Vec<u8>>(6)?);
        bytes += body.len();
        entries.push(Entry {
            seq: unsigned(row.get(0)?),
            offers: row.get(1)?,
            arrival: Arrival {
                link: row.get(2)?,
                id: row.get(3)?,
                room: row.get(4)?,
                at_unix_ms: unsigned(row.get(5)?),
                body,
            },
        });
    }
    Ok(entries)
}

/// What became of a message, on every link that has one with this id.
pub(crate) fn trace(database: &Connection, id: &str) -> rusqlite::Result<Vec<Step>> {
    let mut arrived = database
        .prepare_cached("SELECT seq, link, at, room FROM message WHERE id = ?1 ORDER BY seq")?;
    let mut steps = database
        .prepare_cached("SELECT stage, at, words FROM step WHERE message = ?1 ORDER BY seq")?;
    let mut trace = Vec::new();
    for message in arrived.query_map([id], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get::<_, String>(3)?))
    })? {
        let (seq, link, at, room) = message?;
        let words = if room.is_empty() { String::new() } else { format!("in room {room}") };
        trace.push(Step {
            link: link.clone(),
            stage: Stage::Arrived,
            at_unix_ms: unsigned(at),
            words,
        });
        for step in steps.query_map([seq], |row| line(row, &link))? {
            trace.extend(step?);
        }
    }
    Ok(trace)
}

/// `None` for a stage that only a later Bowline knows.
fn line(row: &Row<'_>, link: &str) -> rusqlite::Result<Option<Step>> {
    let name: String = row.get(0)?;
    let Some(stage) = Stage::ALL.into_iter().find(|stage| stage.name() == name) else {
        return Ok(None);
    };
    let at_unix_ms = unsigned(row.get(1)?);
    Ok(Some(Step { link: link.to_owned(), stage, at_unix_ms, words: row.get(2)? }))
}

/// What one link has, or every link.
pub(crate) fn counts(
    database: &Connection,
    link: Option<&str>,
) -> rusqlite::Result<Vec<(String, Counts)>> {
    database
        .prepare_cached(
            "SELECT link, SUM(state = 0), SUM(state = 2), MIN(CASE state WHEN 0 THEN at END),
                SUM(CASE state WHEN 0 THEN length(body) ELSE 0 END) FROM message
             WHERE state <> 1 AND link = IFNULL(?1, link) GROUP BY link",
        )?
        .query_map([link], |row| {
            let oldest: Option<i64> = row.get(3)?;
            let counts = Counts {
                waiting: unsigned(row.get(1)?),
                parked: unsigned(row.get(2)?),
                oldest_unix_ms: oldest.map(unsigned),
                waiting_bytes: unsigned(row.get(4)?),
            };
            Ok((row.get(0)?, counts))
        })?
        .collect()
}

/// When the oldest that waits arrived: the first in the order of arrival.
pub(crate) fn oldest(database: &Connection, link: &str) -> rusqlite::Result<Option<u64>> {
    let at = database
        .prepare_cached(
            "SELECT at FROM message WHERE state = 0 AND link = ?1 ORDER BY seq LIMIT 1",
        )?
        .query_row([link], |row| row.get(0))
        .optional()?;
    Ok(at.map(unsigned))
}

/// A small fact of a link.
pub(crate) fn fact(
    database: &Connection,
    link: &str,
    key: &str,
) -> rusqlite::Result<Option<String>> {
    database
        .prepare_cached("SELECT value FROM fact WHERE link = ?1 AND key = ?2")?
        .query_row([link, key], |row| row.get(0))
        .optional()
}

/// Remembers it, or forgets it.
pub(crate) fn set_fact(
    database: &Connection,
    link: &str,
    key: &str,
    value: Option<&str>,
) -> rusqlite::Result<()> {
    match value {
        Some(value) => database
            .prepare_cached("INSERT OR REPLACE INTO fact (link, key, value) VALUES (?1, ?2, ?3)")?
            .execute([link, key, value]),
        None => database
            .prepare_cached("DELETE FROM fact WHERE link = ?1 AND key = ?2")?
            .execute([link, key]),
    }?;
    Ok(())
}

/// Deletes what was confirmed or parked for long enough, and what waits of links that are gone for long enough, at most
/// [`SWEEP_MAX`], and tells how many. `clock_unix_ms` is what the clock says, which `now_unix_ms` may not trust.
pub(crate) fn sweep(
    database: &Connection,
    links: Option<&BTreeSet<String>>,
    now_unix_ms: u64,
    clock_unix_ms: u64,
) -> rusqlite::Result<u64> {
    // What was done while the clock was ahead would be kept until then.
    database
        .prepare_cached("UPDATE message SET done = ?1 WHERE state <> 0 AND done > ?2")?
        .execute([signed(clock_unix_ms), signed(clock_unix_ms.saturating_add(FUTURE_MS))])?;
    let before = |kept: u64| signed(now_unix_ms.saturating_sub(kept));
    let swept = database
        .prepare_cached(
            "DELETE FROM message WHERE seq IN (
                SELECT seq FROM message
                WHERE state <> 0 AND (state = 1 AND done <= ?1 OR state = 2 AND done <= ?2)
                ORDER BY done LIMIT ?3)",
        )?
        .execute(params![before(CONFIRMED_MS), before(PARKED_MS), signed(SWEEP_MAX)])?;
    let mut swept = swept as u64;
    // Unless somebody has said which links there are, none is gone.
    if let Some(links) = links {
        mark_gone(database, links, now_unix_ms)?;
        let late = gone(database)?.into_iter();
        for (link, _) in late.filter(|(_, since)| since.saturating_add(GONE_MS) <= now_unix_ms) {
            let deleted = database
                .prepare_cached(
                    "DELETE FROM message WHERE seq IN (
                        SELECT seq FROM message WHERE state = 0 AND link = ?1 ORDER BY seq LIMIT ?2)",
                )?
                .execute(params![link, signed(SWEEP_MAX - swept)])?;
            if deleted > 0 {
                tracing::warn!(
                    link,
                    messages = deleted,
                    "messages are deleted that have waited for a link that is not configured any more"
                );
            }
            swept += deleted as u64;
        }
    }
    Ok(swept)
}

/// Since when links are gone that have messages, in milliseconds since 1970.
pub(crate) fn gone(database: &Connection) -> rusqlite::Result<BTreeMap<String, u64>> {
    database
        .prepare_cached("SELECT link, CAST(value AS INTEGER) FROM fact WHERE key = ?1")?
        .query_map([GONE], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?
        .collect()
}

/// Writes down since when links are gone, and forgets it of those that are back or have nothing left.
pub(crate) fn mark_gone(
    database: &Connection,
    links: &BTreeSet<String>,
    now_unix_ms: u64,
) -> rusqlite::Result<()> {
    let known = gone(database)?;
    let are_gone: BTreeSet<String> = (counts(database, None)?.into_iter())
        .map(|(link, _)| link)
        .filter(|link| !links.contains(link))
        .collect();
    for link in known.keys().filter(|link| !are_gone.contains(*link)) {
        set_fact(database, link, GONE, None)?;
    }
    for link in are_gone {
        let since = known.get(&link).copied();
        if since.is_none() {
            tracing::warn!(
                link,
                "messages are left of a link that is not configured any more: they are kept for 7 days"
            );
        }
        if since.is_none_or(|since| since > now_unix_ms.saturating_add(FUTURE_MS)) {
            set_fact(database, &link, GONE, Some(&now_unix_ms.to_string()))?;
        }
    }
    Ok(())
}

/// Confirms what waits or is parked of a link in place of its bot, at most [`SWEEP_MAX`], and tells how many.
pub(crate) fn let_go(database: &Connection, link: &str, now_unix_ms: u64) -> rusqlite::Result<u64> {
    let seqs: Vec<i64> = database
        .prepare_cached("SELECT seq FROM message WHERE state <> 1 AND link = ?1 LIMIT ?2")?
        .query_map(params![link, signed(SWEEP_MAX)], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for seq in &seqs {
        database
            .prepare_cached("UPDATE message SET state = 1, done = ?2, body = x'' WHERE seq = ?1")?
            .execute(params![seq, signed(now_unix_ms)])?;
        note(database, *seq, Stage::Confirmed, now_unix_ms, "let go: its link is gone")?;
    }
    Ok(seqs.len() as u64)
}

/// What is parked of a link, what has been so for longest first.
pub(crate) fn parked(
    database: &Connection,
    link: &str,
    limit: usize,
) -> rusqlite::Result<Vec<Parked>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    database
        .prepare_cached(
            "SELECT id, room, done, offers, IFNULL((SELECT words FROM step
                WHERE message = message.seq AND stage = ?2 ORDER BY seq DESC LIMIT 1), '')
             FROM message WHERE state <> 0 AND state = 2 AND link = ?1
             ORDER BY done, seq LIMIT ?3",
        )?
        .query_map(params![link, Stage::Parked.name(), limit], |row| {
            Ok(Parked {
                id: row.get(0)?,
                room: row.get(1)?,
                since_unix_ms: unsigned(row.get(2)?),
                offers: row.get(3)?,
                words: row.get(4)?,
            })
        })?
        .collect()
}

/// Has what is parked of a link wait again as if it had never been offered, or one message of it; at most `limit` and
/// [`SWEEP_MAX`]. Tells how many.
pub(crate) fn offer_again(
    database: &Connection,
    link: &str,
    id: Option<&str>,
    limit: u64,
    now_unix_ms: u64,
) -> rusqlite::Result<u64> {
    let seqs: Vec<i64> = database
        .prepare_cached(
            "SELECT seq FROM message WHERE state <> 0 AND state = 2 AND link = ?1
             AND id = IFNULL(?2, id) ORDER BY done, seq LIMIT ?3",
        )?
        .query_map(params![link, id, signed(limit.min(SWEEP_MAX))], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for seq in &seqs {
        database
            .prepare_cached("UPDATE message SET state = 0, offers = 0, done = NULL WHERE seq = ?1")?
            .execute([seq])?;
        note(database, *seq, Stage::Retried, now_unix_ms, "it waits again, as it was asked for")?;
    }
    Ok(seqs.len() as u64)
}

/// How many bytes are in use.
pub(crate) fn used_bytes(database: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name| database.pragma_query_value(None, name, |row| row.get(0).map(unsigned));
    let (pages, free) = (pragma("page_count")?, pragma("freelist_count")?);
    Ok(pages.saturating_sub(free).saturating_mul(pragma("page_size")?))
}

/// The last place that was given out in the order of arrival.
pub(crate) fn last_seq(database: &Connection) -> rusqlite::Result<i64> {
    let seq = database
        .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'message'", [], |row| row.get(0))
        .optional()?;
    Ok(seq.unwrap_or(0))
}

/// Places given out from now on come after this one.
pub(crate) fn begin_after(database: &Connection, seq: i64) -> rusqlite::Result<()> {
    if last_seq(database)? < seq {
        database.execute("DELETE FROM sqlite_sequence WHERE name = 'message'", [])?;
        database
            .execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('message', ?1)", [seq])?;
    }
    Ok(())
}

/// Brings all that one database knows into another, which may know some of it already. What waits comes first, so that
/// it is there if the other has not room for all.
pub(crate) fn copy(from: &Connection, to: &Connection) -> rusqlite::Result<()> {
    begin_after(to, last_seq(from)?)?;
    let mut facts = from.prepare("SELECT link, key, value FROM fact")?;
    let mut rows = facts.query([])?;
    while let Some(row) = rows.next()? {
        let value: String = row.get(2)?;
        set_fact(to, &row.get::<_, String>(0)?, &row.get::<_, String>(1)?, Some(&value))?;
    }
    let mut messages = from.prepare(
        "SELECT seq, link, id, room, at, body, offers, state, done FROM message ORDER BY state, seq",
    )?;
    let mut rows = messages.query([])?;
    while let Some(row) = rows.next()? {
        let seq = copy_message(row, to)?;
        copy_steps(from, row.get(0)?, to, seq)?;
    }
    Ok(())
}

fn copy_message(row: &Row<'_>, to: &Connection) -> rusqlite::Result<i64> {
    let (link, id): (String, String) = (row.get(1)?, row.get(2)?);
    let (offers, state): (u32, i64) = (row.get(6)?, row.get(7)?);
    let done: Option<i64> = row.get(8)?;
    let known: Option<i64> = to
        .prepare_cached("SELECT seq FROM message WHERE id = ?1 AND link = ?2")?
        .query_row([&id, &link], |row| row.get(0))
        .optional()?;
    if let Some(seq) = known {
        // Confirmed on either side is confirmed; parked is more than waiting.
        to.prepare_cached(
            "UPDATE message SET
                offers = MAX(offers, ?2),
                state = CASE WHEN state = 1 OR ?3 = 1 THEN 1 ELSE MAX(state, ?3) END,
                body = CASE WHEN state = 1 OR ?3 = 1 THEN x'' ELSE body END,
                done = IFNULL(done, ?4)
             WHERE seq = ?1",
        )?
        .execute(params![seq, offers, state, done])?;
        return Ok(seq);
    }
    let seq: i64 = row.get(0)?;
    let taken = to
        .prepare_cached("SELECT 1 FROM message WHERE seq = ?1")?
        .query_row([seq], |_| Ok(()))
        .optional()?
        .is_some();
    to.prepare_cached(
        "INSERT INTO message (seq, link, id, room, at, body, offers, state, done)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        (!taken).then_some(seq),
        link,
        id,
        row.get::<_, String>(3)?,
        row.get::<_, i64>(4)?,
        row.get::<_, Vec<u8>>(5)?,
        offers,
        state,
        done
    ])?;
    Ok(to.last_insert_rowid())
}

fn copy_steps(from: &Connection, of: i64, to: &Connection, seq: i64) -> rusqlite::Result<()> {
    let mut steps =
        from.prepare_cached("SELECT stage, at, words FROM step WHERE message = ?1 ORDER BY seq")?;
    let mut rows = steps.query([of])?;
    while let Some(row) = rows.next()? {
        let (stage, at, words): (String, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        to.prepare_cached(
            "INSERT INTO step (message, stage, at, words) SELECT ?1, ?2, ?3, ?4 WHERE NOT EXISTS
             (SELECT 1 FROM step WHERE message = ?1 AND stage = ?2 AND at = ?3 AND words = ?4)",
        )?
        .execute(params![seq, stage, at, words])?;
    }
    Ok(())
}

fn shortened(words: &str) -> &str {
    let mut end = words.len().min(WORDS_MAX);
    while !words.is_char_boundary(end) {
        end -= 1;
    }
    &words[..end]
}

/// SQLite's integers have a sign.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
