//! The database file: how it is opened, and the versions of its schema.
//!
//! The version is SQLite's own `user_version`, which is written in the same transaction as what it stands for. Two
//! processes have the file open during an upgrade, so a migration only adds: what the version before reads and writes
//! goes on working.

use std::{
    fmt,
    fs::{DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    thread,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::clock;

/// Each leads to the version of its number, counted from 1. Never edited once released: a new one is added.
pub(crate) const MIGRATIONS: &[&str] = &["
    CREATE TABLE message (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        link TEXT NOT NULL,
        id TEXT NOT NULL,
        room TEXT NOT NULL,
        at INTEGER NOT NULL,
        body BLOB NOT NULL,
        offers INTEGER NOT NULL DEFAULT 0,
        -- 0 waits, 1 confirmed, 2 parked
        state INTEGER NOT NULL DEFAULT 0,
        -- when it was confirmed or parked
        done INTEGER,
        UNIQUE (id, link)
    ) STRICT;
    CREATE INDEX message_waiting ON message (link, seq) WHERE state = 0;
    CREATE INDEX message_done ON message (done) WHERE state <> 0;
    CREATE TABLE step (
        seq INTEGER PRIMARY KEY,
        message INTEGER NOT NULL REFERENCES message (seq) ON DELETE CASCADE,
        stage TEXT NOT NULL,
        at INTEGER NOT NULL,
        words TEXT NOT NULL
    ) STRICT;
    CREATE INDEX step_message ON step (message, seq);
    CREATE TABLE fact (
        link TEXT NOT NULL,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (link, key)
    ) STRICT, WITHOUT ROWID;
"];

/// `BOWL`: what SQLite's `application_id` of the file is, so that another program's file is left alone.
const APPLICATION: i32 = 0x424f_574c;

/// How long a write waits for another process that is writing. Both hold the file for a commit at most.
pub(crate) const BUSY: Duration = Duration::from_secs(5);

/// After how long a file is opened again that another process holds: SQLite itself does not wait while one makes it a file
/// with a write-ahead log.
const OPEN_AGAIN: Duration = Duration::from_millis(25);

/// A write-ahead log that grew is cut to this after a checkpoint.
const WAL_BYTES: u32 = 4 << 20;

/// Statements that are kept prepared; there are fewer.
const STATEMENTS: usize = 64;

/// Why a database cannot be used.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// SQLite says so.
    Sqlite(rusqlite::Error),
    /// The file cannot be made.
    File(io::Error),
    /// It is damaged, in SQLite's words.
    Damaged(String),
    /// It was written by a later Bowline.
    Newer { found: u32, known: u32 },
    /// It belongs to another program.
    Foreign,
}

impl From<rusqlite::Error> for Unusable {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(error) => {
                let what = match error.sqlite_error_code() {
                    Some(ErrorCode::DiskFull) => "the disk is full",
                    Some(ErrorCode::ReadOnly) => "it cannot be written",
                    Some(ErrorCode::CannotOpen) => "it cannot be opened",
                    Some(ErrorCode::NotADatabase) => {
                        "it is no database; move it away and a new one is made"
                    }
                    Some(ErrorCode::DatabaseCorrupt) => {
                        "it is damaged; move it away and a new one is made"
                    }
                    Some(ErrorCode::SystemIoFailure) => "the disk fails",
                    Some(ErrorCode::DatabaseBusy) => "another process holds it",
                    _ => "SQLite fails",
                };
                write!(f, "{what} ({error})")
            }
            Self::File(error) => write!(f, "it cannot be made ({error})"),
            Self::Damaged(words) => {
                write!(f, "it is damaged; move it away and a new one is made ({words})")
            }
            Self::Newer { found, known } => write!(
                f,
                "a later Bowline wrote it: its schema is version {found}, and this one knows {known}; it is left alone"
            ),
            Self::Foreign => f.write_str("it belongs to another program; it is left alone"),
        }
    }
}

/// Opens the file, makes it if it is not there, and brings its schema up to date. Another process that holds it is waited
/// for about as long as `patience`, and by what is written afterwards as well.
pub(crate) fn open(
    path: &Path,
    migrations: &[&str],
    patience: Duration,
) -> Result<Connection, Unusable> {
    let until = clock::now() + patience;
    loop {
        match open_once(path, migrations, patience) {
            Err(Unusable::Sqlite(error))
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && clock::now() < until =>
            {
                thread::sleep(OPEN_AGAIN);
            }
            done => return done,
        }
    }
}

fn open_once(path: &Path, migrations: &[&str], patience: Duration) -> Result<Connection, Unusable> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    // Made by us and not by SQLite, so that nobody else can read messages; what SQLite puts beside it has the same mode.
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut database = Connection::open_with_flags(path, flags)?;
    database.busy_timeout(patience)?;
    let (version, application, tables) = signs(&mut database)?;
    if application != APPLICATION && (application, version, tables) != (0, 0, 0) {
        return Err(Unusable::Foreign);
    }
    if tables == 0 {
        // Only a file that is new can be told that it shall become smaller; see `shrink`.
        database.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    let known = u32::try_from(migrations.len()).unwrap_or(u32::MAX);
    if version > known {
        return Err(Unusable::Newer { found: version, known });
    }
    let sound: String = database.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if sound != "ok" {
        return Err(Unusable::Damaged(sound.chars().take(200).collect()));
    }
    database.pragma_update(None, "journal_mode", "WAL")?;
    sync(&database, true)?;
    database.pragma_update(None, "journal_size_limit", WAL_BYTES)?;
    prepare(&mut database, migrations)?;
    Ok(database)
}

/// What tells whose file it is, as of one moment: another process may just be making it.
fn signs(database: &mut Connection) -> rusqlite::Result<(u32, i32, u32)> {
    let moment = database.transaction()?;
    let tables = moment.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let version = moment.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application = moment.pragma_query_value(None, "application_id", |row| row.get(0))?;
    Ok((version, application, tables))
}

/// Whether commits from now on outlive a loss of power, at the price of a sync of the disk each; a kill of the process
/// they outlive always. What the service was told that it is stored must.
pub(crate) fn sync(database: &Connection, on: bool) -> rusqlite::Result<()> {
    database.pragma_update(None, "synchronous", if on { "FULL" } else { "NORMAL" })
}

/// Gives some of the pages that nothing is in back to the file system; true if there are more than `keep` of them still.
pub(crate) fn shrink(database: &Connection, keep: u64, at_once: u64) -> rusqlite::Result<bool> {
    let free = || database.pragma_query_value(None, "freelist_count", |row| row.get(0));
    let before: i64 = free()?;
    let before = u64::try_from(before).unwrap_or(0);
    if before <= keep {
        return Ok(false);
    }
    let pages = at_once.min(before - keep);
    // It does one page a step.
    let mut statement = database.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    let after: i64 = free()?;
    let after = u64::try_from(after).unwrap_or(0);
    // A file of before it could be made smaller stays as it is.
    if after > keep && after < before {
        return Ok(true);
    }
    // What is at the end of the file is cut off when the log is brought into it.
    database.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
    Ok(false)
}

/// The same in memory, with a hard limit to its size.
pub(crate) fn memory(bytes_max: u64) -> Result<Connection, Unusable> {
    let mut database = Connection::open_in_memory()?;
    let page: u32 = database.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let pages = bytes_max / u64::from(page);
    database.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
    prepare(&mut database, MIGRATIONS)?;
    Ok(database)
}

fn prepare(database: &mut Connection, migrations: &[&str]) -> Result<(), Unusable> {
    database.set_prepared_statement_cache_capacity(STATEMENTS);
    database.pragma_update(None, "foreign_keys", true)?;
    let change = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Read once more: another process may have brought it up to date in the meantime.
    let version: u32 = change.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (migration, version) in migrations.iter().zip(1..).skip(version as usize) {
        change.execute_batch(migration)?;
        change.pragma_update(None, "application_id", APPLICATION)?;
        change.pragma_update(None, "user_version", version)?;
    }
    change.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_schema_of_before_is_brought_up_to_date_and_a_later_one_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/links.db");
        let (first, second) =
            ("CREATE TABLE a (x INTEGER) STRICT", "ALTER TABLE a ADD COLUMN y INTEGER");
        drop(open(&path, &[first], BUSY).unwrap());
        let database = open(&path, &[first, second], BUSY).unwrap();
        database.execute("INSERT INTO a (x, y) VALUES (1, 2)", []).unwrap();
        drop(database);
        let error = open(&path, &[first], BUSY).unwrap_err();
        assert!(matches!(error, Unusable::Newer { found: 2, known: 1 }), "{error}");
        assert!(error.to_string().contains("version 2"), "{error}");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "nobody else can read messages");
    }

    #[test]
    fn a_migration_that_fails_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("links.db");
        let first = "CREATE TABLE a (x INTEGER) STRICT";
        drop(open(&path, &[first], BUSY).unwrap());
        open(
            &path,
            &[first, "CREATE TABLE b (x INTEGER) STRICT; CREATE TABLE a (x INTEGER)"],
            BUSY,
        )
        .unwrap_err();
        let database = open(&path, &[first, "CREATE TABLE b (y INTEGER) STRICT"], BUSY).unwrap();
        database.execute("INSERT INTO b (y) VALUES (1)", []).unwrap();
    }
    #[test]
    fn a_process_that_dies_within_a_migration_leaves_the_version_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("links.db");
        let first = "CREATE TABLE a (x INTEGER) STRICT; INSERT INTO a VALUES (1)";
        let second = "ALTER TABLE a ADD COLUMN y INTEGER; CREATE TABLE b (x BLOB) STRICT;
            INSERT INTO b SELECT zeroblob(1000) FROM
                (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 10000) SELECT i FROM n)";
        let mut database = open(&path, &[first], BUSY).unwrap();
        // So much that some of it is in the log before it is committed.
        database.pragma_update(None, "cache_size", 10).unwrap();
        let change = database.transaction().unwrap();
        change.execute_batch(second).unwrap();
        change.pragma_update(None, "user_version", 2).unwrap();
        let dead = tempfile::tempdir().unwrap();
        for name in ["links.db", "links.db-wal"] {
            std::fs::copy(directory.path().join(name), dead.path().join(name)).unwrap();
        }
        assert!(std::fs::metadata(dead.path().join("links.db-wal")).unwrap().len() > 1 << 20);

        let database = open(&dead.path().join("links.db"), &[first], BUSY).unwrap();
        let rows: u32 = database.query_row("SELECT COUNT(*) FROM a", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 1);
        drop(database);
        let database = open(&dead.path().join("links.db"), &[first, second], BUSY).unwrap();
        let rows: u32 = database.query_row("SELECT COUNT(*) FROM b", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 10_000);
    }
}
