//! Ends what belongs to instances: by the crew step by step, and all at once for a server that is
//! dead.

use std::{io, path::Path, time::Duration};

use bowline_proto::Time;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, set_child_subreaper, waitid};

use super::{
    members::{Carriers, Members, Table},
    place::{Place, Record},
    process::{Key, Process},
};
use crate::spec;

/// How long is looked again and again whether those who were killed are gone. A process that waits
/// for a disk or a network file system cannot be killed until that answers.
pub const KILL_MAX: Duration = Duration::from_secs(10);

/// How often is looked.
pub const LOOK: Duration = Duration::from_millis(50);

/// Makes this process the parent of all whose own parent, a descendant of this process, ends.
///
/// # Errors
/// Those of the system.
pub fn become_subreaper() -> io::Result<()> {
    Ok(set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Waits for children that services have left behind and that have ended.
///
/// All that is started for a service is of another session than this process, and nobody can move
/// into a session: whoever is of this one's is somebody else's to wait for, see
/// [`ended_of_others`]. Those in `awaited` are left alone too.
pub fn reap_left(table: &Table, awaited: impl Fn(Key) -> bool) {
    for (key, ended) in table.left_to(std::process::id()) {
        if ended && !awaited(key) {
            reap(key);
        }
    }
}

/// Children that have ended, have not been waited for and are not the services': that is for others
/// to do, unless they have left them behind.
pub fn ended_of_others(table: &Table) -> impl Iterator<Item = Key> {
    table.ended_here(std::process::id())
}

/// Waits for a child that has ended.
pub fn reap(key: Key) {
    if let Some(pid) = i32::try_from(key.pid).ok().and_then(Pid::from_raw) {
        // It has ended and is this process's child: the number is its own until this call.
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
}

/// Sends each of them a signal, and says to how many of those who live it could not be sent, with
/// the first reason.
pub fn signal_all(keys: &[Key], signal: Signal) -> Option<(usize, io::Error)> {
    let mut refused: Option<(usize, io::Error)> = None;
    for key in keys {
        let sent = Process::find(*key).and_then(|process| match process {
            Some(process) => process.signal(signal),
            None => Ok(()),
        });
        if let Err(error) = sent {
            let (count, error) = refused.take().unwrap_or((0, error));
            refused = Some((count + 1, error));
        }
    }
    refused
}

/// What a sweep has done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Services of which something still ran, and how many processes that were.
    pub ended: Vec<(String, usize)>,
    /// Processes that are still there, as `NAME: pid, pid`.
    pub left: Vec<String>,
}

/// Ends everything that a dead server has left: asks each instance by its own signal, gives it its
/// own grace, then kills whoever is left of it. All of them at once; returns when nobody is left or
/// [`KILL_MAX`] after the longest grace.
///
/// To be called only by who holds the lock of the server's directory: a server that lives would
/// start them again.
///
/// # Errors
/// Those of the system. With one nothing may have been done.
pub fn sweep(state_dir: &Path) -> io::Result<Swept> {
    let mut swept = Swept::default();
    let mut carriers = Carriers::default();
    let mut instances = Vec::new();
    let table = Table::read()?;
    for (place, record) in Place::all(state_dir)? {
        if !record.of_this_boot() {
            place.remove();
            continue;
        }
        let mut members = Members::new(record.identity.clone(), record.leader);
        let living = members.look(&table, &mut carriers);
        if living.is_empty() {
            place.remove();
            continue;
        }
        swept.ended.push((record.service.clone(), living.len()));
        ask(&record, &living);
        instances.push((place, record, members));
    }
    let began = crate::clock::Clock::start();
    while !instances.is_empty() {
        let waited = began.now().since(Time::ZERO);
        let table = Table::read()?;
        carriers.retain(&table);
        let late = |record: &Record| waited >= record.grace() + KILL_MAX;
        instances.retain_mut(|(place, record, members)| {
            let living = members.look(&table, &mut carriers);
            if living.is_empty() {
                place.remove();
                return false;
            }
            if waited >= record.grace() {
                signal_all(&living, Signal::KILL);
            }
            if late(record) {
                let pids: Vec<String> = living.iter().map(|it| it.pid.to_string()).collect();
                swept.left.push(format!("{}: {}", record.service, pids.join(", ")));
            }
            !late(record)
        });
        if !instances.is_empty() {
            std::thread::sleep(LOOK);
        }
    }
    Ok(swept)
}

/// Asks an instance to end: the group of its leader, or whoever is left of it.
fn ask(record: &Record, living: &[Key]) {
    let signal = signal_of(record.stop_signal);
    let leader = record.leader.and_then(|leader| Process::find(leader).ok().flatten());
    let asked = leader.is_some_and(|leader| leader.signal_group(signal).unwrap_or(false));
    if !asked {
        signal_all(living, signal);
    }
}

/// The signal of a number; SIGTERM for one that means nothing.
fn signal_of(number: i32) -> Signal {
    Signal::from_named_raw(number).unwrap_or(Signal::TERM)
}

/// The system's signal for one of the configuration.
pub fn signal(signal: spec::Signal) -> Signal {
    match signal {
        spec::Signal::Hup => Signal::HUP,
        spec::Signal::Int => Signal::INT,
        spec::Signal::Quit => Signal::QUIT,
        spec::Signal::Term => Signal::TERM,
        spec::Signal::Usr1 => Signal::USR1,
        spec::Signal::Usr2 => Signal::USR2,
        spec::Signal::Kill => Signal::KILL,
    }
}
