//! The thread that keeps the logs.

use std::{
    collections::{BTreeMap, VecDeque},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, mpsc},
    time::{Duration, SystemTime},
};

use bowline_proto::Time;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, read},
};
use tokio::sync::{broadcast, oneshot};

use super::{
    Before, FOLLOW_LINES, Follow, Matched, Pattern, Stream,
    file::{LogFile, Trouble},
    fold::Folder,
    path,
    pieces::{Piece, Pieces},
};
use crate::{
    clock::Clock,
    limit::{LAST_LINES, WORDS_BYTES},
    plan::Instance,
    spec,
};

/// What is read at once from one pipe, before it is the turn of the next.
const READ_BYTES: usize = 256 * 1024;

/// How long the beginning of a line waits for its end: a prompt, a bar of progress.
const PARTIAL: Duration = Duration::from_secs(1);

/// As much is read at most of an instance of which only the last words are awaited. What it left
/// behind may print without end.
const LAST_WORDS_BYTES: usize = 16 << 20;

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Job {
    Open { service: String, shape: spec::Logs },
    Attach { instance: Instance, service: String, pipes: [OwnedFd; 2], patterns: Vec<Pattern> },
    LookFor { instance: Instance, patterns: Vec<Pattern> },
    Last { instance: Instance, reply: oneshot::Sender<Vec<String>> },
    Detach { instance: Instance },
    Say { service: String, words: String },
    Follow { service: String, lines: usize, reply: oneshot::Sender<Option<Follow>> },
    Close { service: String },
    End,
}

/// What the thread has.
pub(super) struct Keeper {
    log_dir: PathBuf,
    jobs: mpsc::Receiver<Job>,
    wake: Arc<OwnedFd>,
    matched: tokio::sync::mpsc::Sender<Matched>,
    clock: Clock,
    services: BTreeMap<String, Log>,
    sources: BTreeMap<Instance, Source>,
    buffer: Vec<u8>,
}

/// What one instance writes.
struct Source {
    service: String,
    pipes: [Pipe; 2],
    patterns: Vec<Pattern>,
    /// The last lines, oldest first.
    last: VecDeque<String>,
}

struct Pipe {
    fd: OwnedFd,
    stream: Stream,
    pieces: Pieces,
    /// When the line began that has not ended.
    since: Time,
    /// Nothing can be read from it any more.
    broken: bool,
}

/// The log of one service.
struct Log {
    name: String,
    file: LogFile,
    files: usize,
    timestamps: bool,
    folder: Folder,
    followers: broadcast::Sender<Arc<str>>,
}

/// The time, in the two ways in which it is needed.
struct Now {
    time: Time,
    /// As it stands in a line, with the blank behind it.
    stamp: String,
}

impl Now {
    fn of(clock: Clock) -> Self {
        Self { time: clock.now(), stamp: stamp(clock.wall()) }
    }
}

fn stamp(wall: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(wall).unwrap_or_default();
    format!("{time:.3} ")
}

impl Keeper {
    pub(super) fn new(
        log_dir: PathBuf,
        jobs: mpsc::Receiver<Job>,
        wake: Arc<OwnedFd>,
        matched: tokio::sync::mpsc::Sender<Matched>,
    ) -> Self {
        Self {
            log_dir,
            jobs,
            wake,
            matched,
            clock: Clock::start(),
            services: BTreeMap::new(),
            sources: BTreeMap::new(),
            buffer: vec![0; READ_BYTES],
        }
    }

    /// Works until it is told to end.
    pub(super) fn run(mut self) {
        loop {
            let readable = self.wait();
            let now = Now::of(self.clock);
            for (instance, index) in readable {
                self.read(&now, instance, index);
            }
            loop {
                match self.jobs.try_recv() {
                    Ok(Job::End) | Err(mpsc::TryRecvError::Disconnected) => return self.finish(),
                    Ok(job) => self.job(job),
                    Err(mpsc::TryRecvError::Empty) => break,
                }
            }
            self.settle(&now);
        }
    }

    /// Waits for something to do, and says which pipes hold something.
    fn wait(&self) -> Vec<(Instance, usize)> {
        let mut names = Vec::new();
        let mut fds = vec![PollFd::new(&*self.wake, PollFlags::IN)];
        for (instance, source) in &self.sources {
            for (index, pipe) in source.pipes.iter().enumerate().filter(|(_, it)| !it.broken) {
                names.push((*instance, index));
                fds.push(PollFd::new(&pipe.fd, PollFlags::IN));
            }
        }
        let unfinished = self.services.values().any(|log| log.folder.pending())
            || self.sources.values().flat_map(|it| &it.pipes).any(|it| it.pieces.is_partial());
        let timeout = Timespec::try_from(PARTIAL).ok().filter(|_| unfinished);
        // An interruption is a wake-up as well.
        let _ = poll(&mut fds, timeout.as_ref());
        if !fds[0].revents().is_empty() {
            let _ = read(&*self.wake, &mut [0; 8]);
        }
        let ready = fds[1..].iter().map(|fd| !fd.revents().is_empty());
        names.into_iter().zip(ready).filter_map(|(name, ready)| ready.then_some(name)).collect()
    }

    /// Reads once from a pipe, and says how much there was.
    fn read(&mut self, now: &Now, instance: Instance, index: usize) -> usize {
        let Some(source) = self.sources.get_mut(&instance) else { return 0 };
        let Source { service, pipes, patterns, last } = source;
        let pipe = &mut pipes[index];
        let length = match read(&pipe.fd, &mut self.buffer) {
            Ok(0) => {
                pipe.broken = true;
                0
            }
            Ok(length) => length,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(error) => {
                tracing::warn!(service, %error, "what the service prints cannot be read");
                pipe.broken = true;
                0
            }
        };
        let Some(log) = self.services.get_mut(&*service) else { return length };
        if !pipe.pieces.is_partial() {
            pipe.since = now.time;
        }
        let stream = pipe.stream;
        let matched = &self.matched;
        pipe.pieces.push(&self.buffer[..length], |piece| {
            look(patterns, instance, piece.bytes, matched);
            remember(last, piece.bytes);
            log.piece(now, stream, piece);
        });
        length
    }

    /// Reads all that an instance has written until now.
    fn drain(&mut self, now: &Now, instance: Instance) {
        let mut bytes = 0;
        while bytes < LAST_WORDS_BYTES {
            let length = self.read(now, instance, 0) + self.read(now, instance, 1);
            if length == 0 {
                break;
            }
            bytes += length;
        }
    }

    /// Gives the beginnings of lines of an instance that will not end, or not soon.
    fn flush(&mut self, now: &Now, instance: Instance, older_than: Duration) {
        let Some(source) = self.sources.get_mut(&instance) else { return };
        let Some(log) = self.services.get_mut(&source.service) else { return };
        for pipe in &mut source.pipes {
            if now.time.since(pipe.since) < older_than {
                continue;
            }
            let (patterns, last, matched) = (&mut source.patterns, &mut source.last, &self.matched);
            pipe.pieces.flush(|piece| {
                look(patterns, instance, piece.bytes, matched);
                remember(last, piece.bytes);
                log.piece(now, pipe.stream, piece);
            });
        }
    }

    fn job(&mut self, job: Job) {
        let now = Now::of(self.clock);
        match job {
            Job::Open { service, shape } => self.open(service, shape),
            Job::Attach { instance, service, pipes, patterns } => {
                let [out, err] = pipes;
                let pipe = |fd, stream| {
                    let pieces = Pieces::default();
                    Pipe { fd, stream, pieces, since: now.time, broken: false }
                };
                let pipes = [pipe(out, Stream::Out), pipe(err, Stream::Err)];
                let last = VecDeque::with_capacity(LAST_LINES);
                self.sources.insert(instance, Source { service, pipes, patterns, last });
            }
            Job::LookFor { instance, patterns } => {
                if let Some(source) = self.sources.get_mut(&instance) {
                    source.patterns = patterns;
                }
            }
            Job::Last { instance, reply } => {
                self.drain(&now, instance);
                self.flush(&now, instance, Duration::ZERO);
                let lines = self.sources.get(&instance).map(|it| it.last.iter().cloned().collect());
                // Who does not wait any more does not need them.
                let _ = reply.send(lines.unwrap_or_default());
            }
            Job::Detach { instance } => {
                self.drain(&now, instance);
                self.flush(&now, instance, Duration::ZERO);
                self.sources.remove(&instance);
            }
            Job::Say { service, words } => {
                if let Some(log) = self.services.get_mut(&service) {
                    log.folded(&now, Folder::take);
                    log.own(&now, &words);
                    log.flush(&now);
                }
            }
            Job::Follow { service, lines, reply } => {
                let follow = self.services.get_mut(&service).map(|log| log.follow(&now, lines));
                let _ = reply.send(follow);
            }
            Job::Close { service } => {
                if let Some(mut log) = self.services.remove(&service) {
                    log.finish(&now);
                }
            }
            // It was taken out before.
            Job::End => {}
        }
    }

    fn open(&mut self, service: String, shape: spec::Logs) {
        let files = shape.files as usize;
        let log = self.services.entry(service).or_insert_with_key(|name| Log {
            name: name.clone(),
            file: LogFile::new(path(&self.log_dir, name), shape.max_bytes, files),
            files,
            timestamps: shape.timestamps,
            folder: Folder::default(),
            followers: broadcast::channel(FOLLOW_LINES).0,
        });
        log.file.bound(shape.max_bytes, files);
        (log.files, log.timestamps) = (files, shape.timestamps);
    }

    /// Ends a turn: what has waited for long enough is written, and what is gathered.
    fn settle(&mut self, now: &Now) {
        let instances: Vec<Instance> = self
            .sources
            .iter()
            .filter(|(_, source)| source.pipes.iter().any(|it| it.pieces.is_partial()))
            .map(|(instance, _)| *instance)
            .collect();
        for instance in instances {
            self.flush(now, instance, PARTIAL);
        }
        for log in self.services.values_mut() {
            log.folded(now, |folder| folder.due(now.time));
            log.flush(now);
        }
    }

    fn finish(&mut self) {
        let now = Now::of(self.clock);
        let instances: Vec<Instance> = self.sources.keys().copied().collect();
        for instance in instances {
            self.drain(&now, instance);
            self.flush(&now, instance, Duration::ZERO);
        }
        for log in self.services.values_mut() {
            log.finish(&now);
        }
    }
}

impl Log {
    fn piece(&mut self, now: &Now, stream: Stream, piece: Piece<'_>) {
        if self.folder.repeats(now.time, stream, piece.bytes) {
            return;
        }
        self.folded(now, Folder::take);
        self.folder.wrote(stream, piece.bytes);
        let name = match (stream, piece.continues) {
            (Stream::Out, false) => "out ",
            (Stream::Out, true) => "out+ ",
            (Stream::Err, false) => "err ",
            (Stream::Err, true) => "err+ ",
        };
        self.write(now, name, piece.bytes);
    }

    /// Writes how often the last line was repeated, if `take` says so.
    fn folded(&mut self, now: &Now, take: impl FnOnce(&mut Folder) -> Option<u64>) {
        if let Some(times) = take(&mut self.folder) {
            let s = if times == 1 { "" } else { "s" };
            self.own(now, &format!("last line repeated {times} time{s}"));
        }
    }

    /// Writes words of Bowline's own.
    fn own(&mut self, now: &Now, words: &str) {
        if self.timestamps {
            self.write(now, "--- ", words.as_bytes());
        } else {
            self.write(now, "--- ", format!("--- {words}").as_bytes());
        }
    }

    fn write(&mut self, now: &Now, name: &str, bytes: &[u8]) {
        let (stamp, name) = if self.timestamps { (&*now.stamp, name) } else { ("", "") };
        if self.followers.receiver_count() > 0 {
            let line = format!("{stamp}{name}{}", String::from_utf8_lossy(bytes));
            // The last of them may have gone just now.
            let _ = self.followers.send(line.into());
        }
        let trouble = self.file.line([stamp.as_bytes(), name.as_bytes(), bytes]);
        self.tell(trouble);
    }

    fn flush(&mut self, _now: &Now) {
        let trouble = self.file.flush();
        self.tell(trouble);
    }

    fn tell(&self, trouble: Option<Trouble>) {
        let service = &*self.name;
        match trouble {
            Some(Trouble::Begins(error)) => tracing::error!(
                service,
                %error,
                "what the service prints cannot be written and is lost until it can"
            ),
            Some(Trouble::Over(lost)) => tracing::warn!(
                service,
                lost_lines = lost.lines,
                lost_bytes = lost.bytes,
                "what the service prints is written again"
            ),
            None => {}
        }
    }

    fn follow(&mut self, now: &Now, lines: usize) -> Follow {
        self.folded(now, Folder::take);
        self.flush(now);
        let files = self.file.readers();
        Follow { before: Before { files, lines }, lines: self.followers.subscribe() }
    }

    fn finish(&mut self, now: &Now) {
        self.folded(now, Folder::take);
        self.flush(now);
    }
}

/// Looks for the patterns in a line, without its colours, and tells of those that are found.
fn look(
    patterns: &mut Vec<Pattern>,
    instance: Instance,
    line: &[u8],
    matched: &tokio::sync::mpsc::Sender<Matched>,
) {
    if patterns.is_empty() {
        return;
    }
    let text = String::from_utf8_lossy(line);
    let text = if line.contains(&0x1b) { plain(&text).into() } else { text };
    patterns.retain(|pattern| {
        let found = pattern.regex.is_match(&text);
        let Pattern { phase, index, .. } = *pattern;
        // If there is no room, it may match again.
        !(found && matched.try_send(Matched { instance, phase, index }).is_ok())
    });
}

/// A text without its escape sequences.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char != '\x1b' {
            plain.push(char);
            continue;
        }
        match chars.next() {
            // Ends with a letter.
            Some('[') => {
                chars.find(|char| ('\x40'..='\x7e').contains(char));
            }
            // Ends with a bell or with ESC \.
            Some(']') => {
                chars.find(|char| matches!(char, '\x07' | '\\'));
            }
            _ => {}
        }
    }
    plain
}

/// Keeps the last lines that say something.
fn remember(last: &mut VecDeque<String>, line: &[u8]) {
    if line.trim_ascii().is_empty() {
        return;
    }
    let mut room =
        if last.len() >= LAST_LINES { last.pop_front() } else { None }.unwrap_or_default();
    room.clear();
    let line = &line[..line.len().min(WORDS_BYTES)];
    match std::str::from_utf8(line) {
        Ok(text) => room.push_str(text),
        Err(_) => room.push_str(&String::from_utf8_lossy(line)),
    }
    last.push_back(room);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_do_not_hide_words() {
        assert_eq!(plain("\x1b[1;32mserver\x1b[0m \x1b]0;title\x07ready"), "server ready");
    }

    #[test]
    fn the_time_stands_in_lines_as_others_write_it() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_micros(1_763_820_392_123_456);
        assert_eq!(stamp(time), "2025-11-22T14:06:32.123Z ");
    }

    #[test]
    fn the_last_lines_are_remembered() {
        let mut last = VecDeque::new();
        for number in 0..9 {
            remember(&mut last, format!("{number}").as_bytes());
            remember(&mut last, b"  ");
        }
        assert_eq!(last, ["4", "5", "6", "7", "8"]);
    }
}
