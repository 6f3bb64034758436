//! The disk at its worst: the process killed, no room, nothing may be written, a file that is not ours to touch.
//!
//! What needs a process of its own runs this test's program again, with the directory in an environment variable.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print")]

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use bowline_store::{Arrival, Mode, Options, Put, Stage, Store};
use bytes::Bytes;
use rusqlite::Connection;

const CHILD: &str = "BOWLINE_STORE_TEST";

/// The disk is tried again soon.
const SOON: Options = Options {
    memory_max_bytes: 64 << 20,
    retry: Duration::from_millis(20),
    sweep: Duration::from_secs(600),
};

#[tokio::test]
async fn nothing_that_was_answered_is_lost_by_kill_9() {
    if let Some(directory) = child() {
        return put_until_killed(&directory).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut stored = Vec::new();
    let mut confirmed = Vec::new();
    for answers in [1, 10, 100, 500, 1000] {
        let mut child =
            Killed(again("nothing_that_was_answered_is_lost_by_kill_9", directory.path(), &[]));
        let lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map_while(Result::ok);
        for line in lines.skip_while(|line| !line.ends_with("begins")).skip(1).take(answers) {
            match line.split_once(' ') {
                Some(("stored", id)) => stored.push(id.to_owned()),
                Some(("confirmed", id)) => confirmed.push(id.to_owned()),
                _ => panic!("{line}"),
            }
        }
        child.0.kill().unwrap();
        child.0.wait().unwrap();

        let store = Store::open(path(directory.path()));
        let waiting = store.inbox().waiting("a", 0, usize::MAX).await;
        let waits = |id: &String| waiting.iter().any(|entry| entry.arrival.id == *id);
        assert!(confirmed.iter().all(|id| !waits(id)), "confirmed, and waiting again");
        for id in &stored {
            let again = store.inbox().put(arrival(id, 10)).await;
            assert_eq!(again, Put::Seen, "{id} was answered and is lost");
        }
        assert!(waiting.iter().all(|entry| entry.arrival.body.len() == 2000));
        assert_eq!(store.health().mode, Mode::Disk, "{}", store.health().words);
        store.close().await;
    }
    assert!(stored.len() > 500 && confirmed.len() > 100, "{} {}", stored.len(), confirmed.len());
}

/// Says on its standard output what was answered.
async fn put_until_killed(directory: &Path) {
    let store = Store::open(path(directory));
    let run = std::process::id();
    println!("begins");
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..16 {
        let inbox = store.inbox();
        tasks.spawn(async move {
            for number in 0.. {
                let id = format!("{run}-{task}-{number}");
                assert!(matches!(inbox.put(arrival(&id, 2000)).await, Put::New { .. }));
                println!("stored {id}");
                if number % 4 == 0 {
                    inbox.step("a", &id, Stage::Confirmed, 1, "").await;
                    println!("confirmed {id}");
                }
            }
        });
    }
    tasks.join_next().await;
}

#[tokio::test]
async fn a_full_disk_degrades_to_memory_and_is_used_again_when_it_has_room() {
    if let Some(directory) = child() {
        return fill(&directory).await;
    }
    let name = "a_full_disk_degrades_to_memory_and_is_used_again_when_it_has_room";
    run_on_tmpfs(name, "size=2m");
}

async fn fill(directory: &Path) {
    let store = Store::open_with(path(directory), SOON);
    let inbox = store.inbox();
    for number in 0..10 {
        assert!(matches!(
            inbox.put(arrival(&format!("before-{number}"), 1000)).await,
            Put::New { .. }
        ));
    }
    inbox.step("a", "before-0", Stage::Confirmed, 1, "").await;
    inbox.step("a", "before-1", Stage::Offered, 1, "").await;
    inbox.set("a", "fact", Some("1")).await;
    assert_eq!(store.health().mode, Mode::Disk, "{}", store.health().words);

    let mut ballast = fs::File::create(directory.join("ballast")).unwrap();
    while ballast.write_all(&[0; 4096]).is_ok() {}
    drop(ballast);
    let mut number = 0;
    while store.health().mode == Mode::Disk || number < 20 {
        let id = format!("full-{number}");
        assert!(matches!(inbox.put(arrival(&id, 4000)).await, Put::New { .. }));
        number += 1;
    }
    let words = store.health().words;
    assert!(words.contains("the disk is full") && words.contains("links.db"), "{words}");
    assert_eq!(inbox.put(arrival("before-0", 10)).await, Put::Seen, "what was confirmed is known");
    assert_eq!(inbox.put(arrival("before-1", 10)).await, Put::Seen);
    assert_eq!(inbox.step("a", "before-1", Stage::Offered, 2, "").await, Some(2));
    inbox.step("a", "full-0", Stage::Confirmed, 1, "").await;
    assert_eq!(inbox.waiting("a", 0, 1000).await.len(), 9 + number - 1);
    assert_eq!(inbox.counts("a").waiting as usize, 9 + number - 1);

    fs::remove_file(directory.join("ballast")).unwrap();
    back_on_disk(&store).await;
    assert_eq!(store.health().changes, 2);
    store.close().await;

    let store = Store::open(path(directory));
    let waiting = store.inbox().waiting("a", 0, 1000).await;
    assert_eq!(waiting.len(), 9 + number - 1);
    assert_eq!((waiting[0].arrival.id.as_str(), waiting[0].offers), ("before-1", 2));
    assert!(waiting.windows(2).all(|two| two[0].seq < two[1].seq));
    assert_eq!(waiting[8].arrival.id, "before-9");
    assert_eq!(waiting[9].arrival.id, "full-1");
    assert_eq!(store.inbox().trace("before-1").await.len(), 3);
    assert_eq!(store.inbox().put(arrival("full-0", 10)).await, Put::Seen);
    assert_eq!(store.inbox().get("a", "fact").await.as_deref(), Some("1"));
    println!("child done");
}

#[tokio::test]
async fn a_file_that_may_not_grow_degrades_to_memory() {
    if let Some(directory) = child() {
        let store = Store::open_with(path(&directory), SOON);
        let mut number = 0;
        while store.health().mode == Mode::Disk {
            assert!(number < 10_000, "the limit is not felt");
            let id = number.to_string();
            assert!(matches!(store.inbox().put(arrival(&id, 4000)).await, Put::New { .. }));
            number += 1;
        }
        assert!(number > 5, "{number}");
        assert_eq!(store.inbox().waiting("a", 0, 10_000).await.len(), number);
        println!("child done");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    // The signal that comes with the error is ignored, as it is when a service manager sets the limit.
    let limited = ["sh", "-c", r#"trap '' XFSZ; ulimit -f 1000; exec "$@""#, "sh"];
    finish(again("a_file_that_may_not_grow_degrades_to_memory", directory.path(), &limited));
}

#[tokio::test]
async fn a_read_only_directory_degrades_to_memory_until_it_can_be_written() {
    if let Some(directory) = child() {
        let store = Store::open_with(path(&directory), SOON);
        assert!(matches!(store.inbox().put(arrival("1", 10)).await, Put::New { .. }));
        assert_eq!(store.health().mode, Mode::Memory);
        let words = store.health().words;
        assert!(words.contains("Read-only"), "{words}");
        assert!(!path(&directory).exists());
        let remounted =
            Command::new("mount").args(["-o", "remount,rw"]).arg(&directory).status().unwrap();
        assert!(remounted.success());
        back_on_disk(&store).await;
        store.close().await;
        let store = Store::open(path(&directory));
        assert_eq!(store.inbox().put(arrival("1", 10)).await, Put::Seen);
        assert_eq!(store.health().mode, Mode::Disk);
        println!("child done");
        return;
    }
    run_on_tmpfs("a_read_only_directory_degrades_to_memory_until_it_can_be_written", "ro,size=8m");
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_degrades_to_memory() {
    let store = Store::open("/proc/no/links.db");
    assert!(matches!(store.inbox().put(arrival("1", 10)).await, Put::New { .. }));
    assert_eq!(store.inbox().put(arrival("1", 10)).await, Put::Seen);
    assert_eq!(store.inbox().waiting("a", 0, 10).await.len(), 1);
    let health = store.health();
    assert_eq!((health.mode, health.changes), (Mode::Memory, 1));
    assert!(health.words.starts_with("/proc/no/links.db: it cannot be made"), "{}", health.words);
    store.close().await;
}

#[tokio::test]
async fn a_file_that_is_no_database_is_left_alone_and_replaced_when_it_is_moved_away() {
    let directory = tempfile::tempdir().unwrap();
    let garbage = vec![0xa5; 20_000];
    fs::write(path(directory.path()), &garbage).unwrap();
    let store = Store::open_with(path(directory.path()), SOON);
    assert!(matches!(store.inbox().put(arrival("1", 10)).await, Put::New { .. }));
    assert_eq!(store.health().mode, Mode::Memory);
    assert!(store.health().words.contains("move it away"), "{}", store.health().words);
    assert_eq!(fs::read(path(directory.path())).unwrap(), garbage);

    fs::rename(path(directory.path()), directory.path().join("broken")).unwrap();
    back_on_disk(&store).await;
    store.close().await;
    let store = Store::open(path(directory.path()));
    assert_eq!(store.inbox().put(arrival("1", 10)).await, Put::Seen);
}

#[tokio::test]
async fn a_damaged_database_degrades_to_memory() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(path(directory.path()));
    for number in 0..200 {
        store.inbox().put(arrival(&number.to_string(), 2000)).await;
    }
    store.close().await;
    let mut bytes = fs::read(path(directory.path())).unwrap();
    let length = bytes.len();
    bytes[4096..length - 4096].fill(0xa5);
    fs::write(path(directory.path()), &bytes).unwrap();

    let store = Store::open_with(path(directory.path()), SOON);
    assert!(matches!(store.inbox().put(arrival("new", 10)).await, Put::New { .. }));
    assert_eq!(store.health().mode, Mode::Memory);
    assert!(store.health().words.contains("damaged"), "{}", store.health().words);
    store.close().await;
    assert_eq!(
        fs::read(path(directory.path())).unwrap(),
        bytes,
        "and is left for a person to look at"
    );
}

#[tokio::test]
async fn damage_that_shows_later_degrades_to_memory_with_what_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open_with(path(directory.path()), SOON);
    store.inbox().put(arrival("1", 10)).await;
    // Another program takes the table away under it.
    let other = Connection::open(path(directory.path())).unwrap();
    other.execute_batch("ALTER TABLE message RENAME TO elsewhere").unwrap();
    assert!(matches!(store.inbox().put(arrival("2", 10)).await, Put::New { .. }));
    assert_eq!(store.health().mode, Mode::Memory);
    other.execute_batch("ALTER TABLE elsewhere RENAME TO message").unwrap();
    back_on_disk(&store).await;
    assert_eq!(store.inbox().put(arrival("1", 10)).await, Put::Seen);
    let waiting = store.inbox().waiting("a", 0, 10).await;
    assert_eq!(waiting.len(), 2, "what was on the disk only is back");
    assert_ne!(waiting[0].seq, waiting[1].seq);
}

#[tokio::test]
async fn the_file_of_a_later_bowline_or_of_another_program_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(path(directory.path()));
    store.inbox().put(arrival("1", 10)).await;
    store.close().await;
    Connection::open(path(directory.path()))
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    let store = Store::open_with(path(directory.path()), SOON);
    assert!(matches!(store.inbox().put(arrival("2", 10)).await, Put::New { .. }));
    let words = store.health().words;
    assert!(words.contains("a later Bowline") && words.contains("99"), "{words}");
    store.close().await;

    let other = directory.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    let store = Store::open_with(&other, SOON);
    assert!(matches!(store.inbox().put(arrival("1", 10)).await, Put::New { .. }));
    assert!(store.health().words.contains("another program"), "{}", store.health().words);
    store.close().await;
    let tables: u32 = Connection::open(&other)
        .unwrap()
        .query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tables, 1);
}

#[tokio::test]
async fn the_file_gives_back_what_a_burst_has_taken() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open_with(path(directory.path()), SOON);
    let inbox = store.inbox();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200 {
        let inbox = inbox.clone();
        tasks.spawn(async move {
            let id = number.to_string();
            inbox.put(arrival(&id, 200_000)).await;
            if number > 0 {
                // Long ago, so that the next sweep takes it.
                inbox.step("a", &id, Stage::Confirmed, 1, "").await;
            }
        });
    }
    tasks.join_all().await;
    store.close().await;
    let bytes = || fs::metadata(path(directory.path())).unwrap().len();
    assert!(bytes() > 30 << 20, "{}", bytes());
    let store = Store::open_with(path(directory.path()), Options { sweep: SOON.retry, ..SOON });
    for _ in 0..3000 {
        if bytes() < 5 << 20 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(bytes() < 5 << 20, "the file stays at {}", bytes());
    let waiting = store.inbox().waiting("a", 0, 10).await;
    assert_eq!((waiting.len(), waiting[0].arrival.body.len()), (1, 200_000));
    assert_eq!(store.health().mode, Mode::Disk, "{}", store.health().words);
}

#[tokio::test]
async fn the_log_is_cut_when_somebody_who_read_for_long_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(path(directory.path()));
    let inbox = store.inbox();
    inbox.put(arrival("first", 10)).await;
    let bytes = || fs::metadata(directory.path().join("links.db-wal")).unwrap().len();
    // An operator who has left `sqlite3` open.
    let other = Connection::open(path(directory.path())).unwrap();
    other.execute_batch("BEGIN; SELECT COUNT(*) FROM message").unwrap();
    for number in 0..200 {
        inbox.put(arrival(&number.to_string(), 100_000)).await;
    }
    assert!(bytes() > 16 << 20, "{}", bytes());
    assert_eq!(store.health().mode, Mode::Disk, "{}", store.health().words);
    drop(other);
    for number in 0..10 {
        inbox.put(arrival(&format!("later {number}"), 100_000)).await;
    }
    assert!(bytes() <= 5 << 20, "{}", bytes());
}

#[tokio::test]
async fn somebody_who_holds_the_file_for_long_degrades_it_to_memory_for_that_time() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open_with(path(directory.path()), SOON);
    let inbox = store.inbox();
    inbox.put(arrival("1", 10)).await;
    let other = Connection::open(path(directory.path())).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(inbox.put(arrival("2", 10)).await, Put::New { .. }));
    assert_eq!(store.health().mode, Mode::Memory);
    assert!(store.health().words.contains("another process holds it"), "{}", store.health().words);
    drop(other);
    back_on_disk(&store).await;
    assert_eq!(inbox.waiting("a", 0, 10).await.len(), 2);
}

async fn back_on_disk(store: &Store) {
    for _ in 0..1000 {
        if store.health().mode == Mode::Disk {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not back on disk: {}", store.health().words);
}

fn arrival(id: &str, bytes: usize) -> Arrival {
    Arrival {
        link: "a".to_owned(),
        id: id.to_owned(),
        room: "r".to_owned(),
        at_unix_ms: 1,
        body: Bytes::from(vec![b'x'; bytes]),
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join("links.db")
}

/// The directory, in the child.
fn child() -> Option<PathBuf> {
    env::var_os(CHILD).map(PathBuf::from)
}

/// Runs one test of this program in a file system of its own, or says why it cannot.
fn run_on_tmpfs(test: &str, options: &str) {
    let directory = tempfile::tempdir().unwrap();
    let mount = r#"mount -t tmpfs -o "$1" bowline-test "$2""#;
    let command = ["unshare", "--map-root-user", "--mount", "sh", "-c"];
    let at = directory.path().to_str().unwrap();
    let tried =
        Command::new(command[0]).args(&command[1..]).args([mount, "sh", options, at]).output();
    if !tried.as_ref().is_ok_and(|tried| tried.status.success()) {
        println!(
            "SKIPPED {test}: no file system can be mounted here, not even in a namespace: {tried:?}"
        );
        return;
    }
    let script = format!(r#"{mount} && shift 2 && exec "$@""#);
    let command: Vec<&str> =
        command.into_iter().chain([script.as_str(), "sh", options, at]).collect();
    finish(again(test, directory.path(), &command));
}

/// This program once more, with one test, below another command if need be.
fn again(test: &str, directory: &Path, below: &[&str]) -> Child {
    let program = env::current_exe().unwrap();
    let mut command = match below.split_first() {
        Some((first, more)) => {
            let mut command = Command::new(first);
            command.args(more).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.args(["--exact", "--nocapture", test]).env(CHILD, directory).stdout(Stdio::piped());
    command.spawn().unwrap()
}

fn finish(child: Child) {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("child done"), "{said}");
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
