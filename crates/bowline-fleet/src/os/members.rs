//! Who belongs to an instance of a service: its leader, and all that came of it.
//!
//! Five things tell. A process carries the identity of the instance in its environment; or it carries
//! the mark of the instance, see [`mark`]; or its parent belongs; or its session is one that a process
//! that belongs has begun; or it belonged at an earlier look. A process that hides from one (it cleans
//! its environment, its parent ends, it begins a session, it becomes another user) is found by
//! another. The number of a process never tells by itself: see [`Key`].

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io::{self, Read as _},
};

use memchr::memmem;

use super::process::{Key, Stat};

/// The variable by which a process says to which instance it belongs.
pub const IDENTITY: &str = "BOWLINE_SERVICE_ID";

/// How much of an environment is read. The kernel allows a quarter of the stack, 2 MB by default.
const ENVIRONMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The mark of an instance: a number that its processes have as their limit of file locks.
///
/// Linux has not counted those locks since 2.4.25, but every process still has the limit, inherits
/// it through fork and exec whatever else it gives up, can only lower it without privileges, and
/// shows it to everybody. So this stays where an environment is cleaned and parents end.
pub fn mark(identity: &str) -> Option<u64> {
    // As large as a limit may be, and never what somebody would set.
    let digits = identity.get(..16)?;
    Some(u64::from_str_radix(digits, 16).ok()? >> 2 | 1 << 61)
}

/// All processes at one moment.
#[derive(Debug, Default)]
pub struct Table {
    entries: Vec<Entry>,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) key: Key,
    stat: Stat,
}

impl Table {
    /// Looks at all processes that this one can see.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn read() -> io::Result<Self> {
        let mut entries = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            // It may be gone meanwhile.
            let Some(stat) = Stat::read(pid) else { continue };
            entries.push(Entry { key: Key { pid, ticks: stat.ticks }, stat });
        }
        Ok(Self { entries })
    }

    /// The children of process `pid` that are of another session than it: with `pid` as the
    /// subreaper, what services have left behind. With those that have ended.
    pub(super) fn left_to(&self, pid: u32) -> impl Iterator<Item = (Key, bool)> {
        let session = self.session_of(pid);
        let children = self.entries.iter().filter(move |it| it.stat.parent == pid);
        children
            .filter(move |it| Some(it.stat.session) != session)
            .map(|it| (it.key, it.stat.ended))
    }

    /// The children of process `pid` that are of its own session and have ended.
    pub(super) fn ended_here(&self, pid: u32) -> impl Iterator<Item = Key> {
        let session = self.session_of(pid);
        let children = self.entries.iter().filter(move |it| it.stat.parent == pid);
        children
            .filter(move |it| it.stat.ended && Some(it.stat.session) == session)
            .map(|it| it.key)
    }

    fn session_of(&self, pid: u32) -> Option<u32> {
        self.entries.iter().find(|it| it.key.pid == pid).map(|it| it.stat.session)
    }
}

/// What is known about who carries which identity or mark. A process is asked once: one that does not
/// belong never begins to.
#[derive(Debug, Default)]
pub struct Carriers {
    seen: HashMap<Key, Carried>,
}

#[derive(Debug)]
struct Carried {
    identity: Option<Box<str>>,
    mark: Option<u64>,
}

impl Carriers {
    /// Forgets those that are not there any more. Called with each new table.
    pub fn retain(&mut self, table: &Table) {
        if self.seen.len() > 2 * table.entries.len() {
            let there: BTreeSet<Key> = table.entries.iter().map(|it| it.key).collect();
            self.seen.retain(|key, _| there.contains(key));
        }
    }

    fn carries(&mut self, entry: &Entry, identity: &str, mark: Option<u64>) -> bool {
        if entry.stat.ended {
            return false;
        }
        let matches = |found: &Carried| {
            found.identity.as_deref() == Some(identity) || mark.is_some() && found.mark == mark
        };
        if let Some(found) = self.seen.get(&entry.key) {
            return matches(found);
        }
        let pid = entry.key.pid;
        let environment = environment(pid);
        let found = Carried {
            identity: environment.as_deref().and_then(identity_in).map(Into::into),
            mark: limits(pid).as_deref().and_then(mark_in),
        };
        let carries = matches(&found);
        // One that has no environment just now may be about to get one.
        if carries || environment.is_some() {
            self.seen.insert(entry.key, found);
        }
        carries
    }
}

fn limits(pid: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/limits")).ok()
}

/// The hard limit of file locks.
fn mark_in(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max file locks"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The environment that a process was started with; `None` if it cannot be read, or has none just
/// now.
fn environment(pid: u32) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(format!("/proc/{pid}/environ")).ok()?;
    file.take(ENVIRONMENT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    (!bytes.is_empty()).then_some(bytes)
}

fn identity_in(environment: &[u8]) -> Option<&str> {
    memmem::find_iter(environment, IDENTITY).find_map(|at| {
        let begins = at == 0 || environment[at - 1] == 0;
        let value = environment[at + IDENTITY.len()..].strip_prefix(b"=")?;
        let end = memchr::memchr(0, value).unwrap_or(value.len());
        begins.then(|| std::str::from_utf8(&value[..end]).ok())?
    })
}

/// Those who belong to one instance.
#[derive(Debug)]
pub struct Members {
    identity: String,
    mark: Option<u64>,
    /// All that have been seen and were there at the last look.
    known: BTreeSet<Key>,
    /// Sessions that one of them has begun and that had somebody in them at the last look: nobody
    /// else can get such a number.
    sessions: BTreeSet<u32>,
    resident_pages: u64,
}

impl Members {
    /// Of the instance `identity`, whose first process is `leader`; none if that is not known.
    pub fn new(identity: String, leader: Option<Key>) -> Self {
        Self {
            mark: mark(&identity),
            identity,
            known: leader.into_iter().collect(),
            sessions: leader.into_iter().map(|it| it.pid).collect(),
            resident_pages: 0,
        }
    }

    /// Looks who belongs now and runs, the leader among them if it does.
    pub fn look(&mut self, table: &Table, carriers: &mut Carriers) -> Vec<Key> {
        let me = std::process::id();
        // Anybody who has ended but was not waited for still holds number and session.
        let mut belong: BTreeSet<Key> = BTreeSet::new();
        let mut pids: BTreeSet<u32> = BTreeSet::new();
        let candidates: Vec<&Entry> =
            table.entries.iter().filter(|it| it.key.pid != me && it.key.pid != 1).collect();
        for entry in &candidates {
            if self.known.contains(&entry.key) || carriers.carries(entry, &self.identity, self.mark)
            {
                belong.insert(entry.key);
                pids.insert(entry.key.pid);
            }
        }
        // A session number is trusted as long as it has not been out of use since the last look.
        let mut sessions: BTreeSet<u32> = BTreeSet::new();
        loop {
            let before = (belong.len(), sessions.len());
            for entry in &candidates {
                let session = entry.stat.session;
                let begun = pids.contains(&session);
                let held = belong.contains(&entry.key) && self.sessions.contains(&session);
                if begun || held {
                    sessions.insert(session);
                }
                if !belong.contains(&entry.key)
                    && (pids.contains(&entry.stat.parent) || sessions.contains(&session))
                {
                    belong.insert(entry.key);
                    pids.insert(entry.key.pid);
                }
            }
            if before == (belong.len(), sessions.len()) {
                break;
            }
        }
        let alive = |it: &&&Entry| !it.stat.ended && belong.contains(&it.key);
        self.resident_pages =
            candidates.iter().filter(alive).map(|it| it.stat.resident_pages).sum();
        let living = candidates.iter().filter(alive).map(|it| it.key).collect();
        self.known = belong;
        self.sessions = sessions;
        living
    }

    /// Whether this process was seen to belong at the last look.
    pub fn contains(&self, key: Key) -> bool {
        self.known.contains(&key)
    }

    /// The memory that they had at the last look, in bytes. Pages that they share count for each.
    pub fn resident_bytes(&self) -> u64 {
        self.resident_pages * rustix::param::page_size() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: u32, parent: u32, session: u32) -> Entry {
        let ticks = u64::from(pid);
        let stat = Stat { ended: false, parent, group: session, session, ticks, resident_pages: 1 };
        Entry { key: Key { pid, ticks }, stat }
    }

    fn key(pid: u32) -> Key {
        Key { pid, ticks: u64::from(pid) }
    }

    /// None of these numbers is given to a process: the largest that Linux knows is 2²².
    const BASE: u32 = 1 << 23;

    fn pids(members: &mut Members, entries: Vec<Entry>) -> Vec<u32> {
        let table = Table { entries };
        let found = members.look(&table, &mut Carriers::default());
        found.iter().map(|it| it.pid - BASE).collect()
    }

    #[test]
    fn children_of_children_belong_and_strangers_do_not() {
        let mut members = Members::new("x".to_owned(), Some(key(BASE + 10)));
        let entries = vec![
            entry(BASE + 12, BASE + 11, BASE + 12),
            entry(BASE + 11, BASE + 10, BASE + 10),
            entry(BASE + 10, BASE + 2, BASE + 10),
            entry(BASE + 20, BASE + 2, BASE + 20),
        ];
        assert_eq!(pids(&mut members, entries), [12, 11, 10]);
    }

    #[test]
    fn who_has_been_seen_belongs_when_its_parents_are_gone() {
        let mut members = Members::new("x".to_owned(), Some(key(BASE + 10)));
        pids(
            &mut members,
            vec![entry(BASE + 10, BASE + 2, BASE + 10), entry(BASE + 11, BASE + 10, BASE + 11)],
        );
        let mut left = vec![entry(BASE + 11, BASE + 2, BASE + 11)];
        assert_eq!(pids(&mut members, left.clone()), [11]);
        // One that it has left behind since, in the session that it has begun.
        left.push(entry(BASE + 12, BASE + 2, BASE + 11));
        assert_eq!(pids(&mut members, left), [11, 12]);
    }

    #[test]
    fn another_process_with_the_number_of_the_leader_does_not_belong() {
        let mut members = Members::new("x".to_owned(), Some(key(BASE + 10)));
        let mut other = entry(BASE + 10, BASE + 2, BASE + 10);
        other.key.ticks += 1;
        let child = entry(BASE + 11, BASE + 10, BASE + 10);
        assert!(pids(&mut members, vec![other, child]).is_empty());
    }

    #[test]
    fn a_session_whose_number_was_free_meanwhile_is_not_trusted() {
        let mut members = Members::new("x".to_owned(), Some(key(BASE + 10)));
        assert_eq!(pids(&mut members, vec![entry(BASE + 10, BASE + 2, BASE + 10)]), [10]);
        assert!(pids(&mut members, Vec::new()).is_empty());
        let mut other = entry(BASE + 10, BASE + 2, BASE + 10);
        other.key.ticks += 1;
        assert!(pids(&mut members, vec![other, entry(BASE + 13, BASE + 2, BASE + 10)]).is_empty());
    }

    #[test]
    fn the_mark_is_read_from_the_limits() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
            Max locked memory         8388608              8388608              bytes\n\
            Max file locks            12                   34                   locks\n";
        assert_eq!(mark_in(limits), Some(34));
        assert_eq!(mark_in("Max file locks  unlimited  unlimited  locks"), None);
        let mark = mark("ffffffffffffffff0000000000000000").unwrap();
        assert!((1 << 61..1 << 62).contains(&mark));
        assert_eq!(super::mark("x"), None);
    }

    #[test]
    fn the_identity_is_read_from_an_environment() {
        let environment = b"A=1\0XBOWLINE_SERVICE_ID=no\0BOWLINE_SERVICE_ID=yes\0B=\0";
        assert_eq!(identity_in(environment), Some("yes"));
        assert_eq!(identity_in(b"A=1\0"), None);
    }
}
