//! Makes a process of a service: a session of its own, with what it was given and nothing else.
//!
//! Between fork(2) and execve(2) the child may only make system calls; everything else (names,
//! environment, room for its own number) is prepared before. It is done by hand because the
//! standard library can neither put the child's own pid into its environment, as socket activation
//! demands, nor say which of the steps has failed.

use std::{
    ffi::{CString, OsString},
    fmt, fs, io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::Path,
    ptr,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, fcntl_dupfd_cloexec},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Resource, Rlimit, Signal},
};

use super::{environment::Environment, process::Process, program, user::Account};

/// How long a child may take from fork to exec. It takes a millisecond, unless its directory is on
/// a network file system that does not answer.
const BEGIN: Duration = Duration::from_secs(10);

/// The first descriptor of those that are handed over (`SD_LISTEN_FDS_START`).
const FIRST_HANDED: RawFd = 3;

/// Room for the digits of a pid.
const PID_DIGITS: usize = 10;

const LISTEN_PID: &[u8] = b"LISTEN_PID=";

/// A process to be.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The file to be executed.
    pub program: &'a Path,
    /// Its arguments, with its own name as the first.
    pub arguments: &'a [OsString],
    /// Where it begins.
    pub directory: &'a Path,
    /// All of its environment, but for `LISTEN_*`.
    pub environment: &'a Environment,
    /// Who it is to be. This process's own user if none.
    pub account: Option<&'a Account>,
    /// Limits, hard and soft alike. One above the hard limit of this process needs root.
    pub limits: &'a [(Resource, u64)],
    /// What its processes are known by, see [`mark`](super::members::mark). It stays without if this
    /// process has a lower limit itself.
    pub mark: Option<u64>,
    /// Listening sockets, with the names that it hears of them (`LISTEN_FDNAMES`).
    pub listeners: &'a [(&'a str, BorrowedFd<'a>)],
    /// What it writes to.
    pub stdout: BorrowedFd<'a>,
    /// What it writes its errors to.
    pub stderr: BorrowedFd<'a>,
}

/// Why there is no process.
#[derive(Debug)]
pub struct NotSpawned {
    /// What is wrong and where, for operators.
    pub words: String,
    /// Whether it will be the same the next time, unless somebody changes something.
    pub lasting: bool,
}

impl fmt::Display for NotSpawned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for NotSpawned {}

impl NotSpawned {
    /// For what will be the same the next time.
    pub(crate) fn lasting(words: impl Into<String>) -> Self {
        Self { words: words.into(), lasting: true }
    }

    /// For what may pass by itself.
    pub(crate) fn passing(words: impl Into<String>) -> Self {
        Self { words: words.into(), lasting: false }
    }
}

/// The steps of a child, in their order.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
enum Step {
    Session = 1,
    Descriptors,
    Limits,
    Groups,
    Group,
    User,
    Directory,
    Execute,
}

impl Step {
    const ALL: [Self; 8] = [
        Self::Session,
        Self::Descriptors,
        Self::Limits,
        Self::Groups,
        Self::Group,
        Self::User,
        Self::Directory,
        Self::Execute,
    ];
}

/// Starts the process. It has executed the program when this returns.
///
/// # Errors
/// When the program cannot be executed, with the reason in words; when the system has no room for
/// another process; when the user, the directory or a limit cannot be had.
pub fn spawn(launch: &Launch<'_>) -> Result<Process, NotSpawned> {
    let prepared = Prepared::new(launch).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => {
            NotSpawned::lasting("a zero byte is in the command or its environment")
        }
        _ => no_room(&error),
    })?;
    let (report, low) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| no_room(&error.into()))?;
    let tell = above(low.as_fd(), prepared.first_free()).map_err(|error| no_room(&error))?;
    drop(low);
    let pid = fork(prepared, tell.as_raw_fd()).map_err(|error| no_room(&error))?;
    drop(tell);
    let failure = read_report(&report);
    // It has not been waited for, so the number is still its own.
    let process = match Process::open(pid) {
        Ok(Some(process)) => process,
        unknown => {
            // It may run, and nobody would know of it. Its number and group are its own until it is
            // waited for, which the next look does.
            if let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = rustix::process::kill_process_group(number, Signal::KILL);
                let _ = rustix::process::kill_process(number, Signal::KILL);
            }
            return Err(match unknown {
                Err(error) => no_room(&error),
                Ok(_) => NotSpawned::passing("the process could not be looked at"),
            });
        }
    };
    let Some(failure) = failure else { return Ok(process) };
    // Nothing of the service has run in it.
    let _ = process.signal(Signal::KILL);
    process.wait(BEGIN);
    process.reap();
    Err(NotSpawned { words: failure.words(launch), lasting: failure.lasting() })
}

fn no_room(error: &io::Error) -> NotSpawned {
    NotSpawned::passing(match error.raw_os_error() {
        Some(libc::EAGAIN) => format!(
            "no other process can be made, a limit is reached (ulimit -u, pids of the control \
             group): {error}"
        ),
        Some(libc::EMFILE | libc::ENFILE) => {
            format!("no other file can be opened (ulimit -n): {error}")
        }
        _ => format!("no process can be made: {error}"),
    })
}

/// What a child says of the step that failed; nothing once it has executed the program.
fn read_report(report: &OwnedFd) -> Option<Failure> {
    let mut fds = [PollFd::new(report, PollFlags::IN)];
    let timeout = Timespec::try_from(BEGIN).ok();
    loop {
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) => return Some(Failure::Late),
            Err(Errno::INTR) => {}
            Ok(_) | Err(_) => break,
        }
    }
    let mut said = [0; 5];
    match rustix::io::read(report, &mut said) {
        Ok(5) => {
            let step = Step::ALL.into_iter().find(|step| *step as u8 == said[0]);
            let errno = i32::from_ne_bytes([said[1], said[2], said[3], said[4]]);
            Some(Failure::At(step.unwrap_or(Step::Execute), errno))
        }
        // Its end was closed by the execution.
        Ok(_) | Err(_) => None,
    }
}

enum Failure {
    At(Step, i32),
    Late,
}

impl Failure {
    fn lasting(&self) -> bool {
        let Self::At(_, errno) = self else { return false };
        !matches!(*errno, libc::EAGAIN | libc::ENOMEM | libc::ETXTBSY | libc::EMFILE | libc::EIO)
    }

    fn words(&self, launch: &Launch<'_>) -> String {
        let Self::At(step, errno) = self else {
            return format!(
                "the process could not begin within {} s: does {} answer?",
                BEGIN.as_secs(),
                launch.directory.display()
            );
        };
        let error = io::Error::from_raw_os_error(*errno);
        let user = || launch.account.map(|it| it.name.to_string_lossy()).unwrap_or_default();
        match step {
            Step::Session | Step::Descriptors => {
                format!("the process could not be set up: {error}")
            }
            Step::Limits => format!("a limit cannot be set, is it above the hard one? {error}"),
            Step::Groups | Step::Group | Step::User => {
                format!("the process cannot become the user {}: {error}", user())
            }
            Step::Directory => {
                format!("it cannot begin in the directory {}: {error}", launch.directory.display())
            }
            Step::Execute => program::refused(launch.program, launch.account, *errno),
        }
    }
}

/// All that the child needs, made before there is one.
struct Prepared {
    program: CString,
    _arguments: Vec<CString>,
    arguments: Vec<*const libc::c_char>,
    _environment: Vec<CString>,
    environment: Vec<*const libc::c_char>,
    directory: CString,
    /// Where the child's own pid goes, with its name before it and a zero behind.
    listen_pid: Option<Box<[u8; LISTEN_PID.len() + PID_DIGITS + 1]>>,
    /// stdin, stdout, stderr and what is handed over, all above where they go.
    descriptors: Vec<OwnedFd>,
    account: Option<(u32, u32, Vec<u32>)>,
    limits: Vec<(Resource, Rlimit)>,
    mark: Option<Rlimit>,
}

impl Prepared {
    fn new(launch: &Launch<'_>) -> io::Result<Self> {
        let text = |bytes: Vec<u8>| CString::new(bytes).map_err(io::Error::from);
        let arguments: Vec<CString> = launch
            .arguments
            .iter()
            .map(|argument| text(argument.as_bytes().to_vec()))
            .collect::<Result<_, _>>()?;
        let mut variables: Vec<CString> = launch
            .environment
            .iter()
            .map(|(name, value)| {
                let mut variable = name.clone().into_vec();
                variable.push(b'=');
                variable.extend_from_slice(value.as_bytes());
                text(variable)
            })
            .collect::<Result<_, _>>()?;
        let mut listen_pid = None;
        if !launch.listeners.is_empty() {
            variables.push(text(format!("LISTEN_FDS={}", launch.listeners.len()).into_bytes())?);
            let names: Vec<&str> = launch.listeners.iter().map(|(name, _)| *name).collect();
            variables.push(text(format!("LISTEN_FDNAMES={}", names.join(":")).into_bytes())?);
            let mut room = Box::new([0; LISTEN_PID.len() + PID_DIGITS + 1]);
            room[..LISTEN_PID.len()].copy_from_slice(LISTEN_PID);
            listen_pid = Some(room);
        }
        let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
            texts.iter().map(|text| text.as_ptr()).collect()
        };
        let mut argument_pointers = pointers(&arguments);
        argument_pointers.push(ptr::null());
        let mut environment = pointers(&variables);
        // The box does not move any more.
        environment.extend(listen_pid.as_ref().map(|room| room.as_ptr().cast::<libc::c_char>()));
        environment.push(ptr::null());
        let stdin = fs::File::open("/dev/null")?;
        let mut sources = vec![stdin.as_fd(), launch.stdout, launch.stderr];
        sources.extend(launch.listeners.iter().map(|(_, socket)| *socket));
        let first_free = FIRST_HANDED + RawFd::try_from(launch.listeners.len()).unwrap_or(0);
        let descriptors =
            sources.into_iter().map(|fd| above(fd, first_free)).collect::<io::Result<_>>()?;
        Ok(Self {
            program: text(launch.program.as_os_str().as_bytes().to_vec())?,
            _arguments: arguments,
            arguments: argument_pointers,
            _environment: variables,
            environment,
            directory: text(launch.directory.as_os_str().as_bytes().to_vec())?,
            listen_pid,
            descriptors,
            account: launch.account.map(|it| {
                let groups = it.groups.iter().map(|group| group.as_raw()).collect();
                (it.uid.as_raw(), it.gid.as_raw(), groups)
            }),
            limits: launch.limits.iter().map(|(name, value)| (*name, both(*value))).collect(),
            mark: launch.mark.map(both),
        })
    }

    /// The first descriptor that the program does not get.
    fn first_free(&self) -> RawFd {
        RawFd::try_from(self.descriptors.len()).unwrap_or(RawFd::MAX)
    }

    /// Becomes the program. Runs in the child, and makes system calls only.
    fn become_program(&mut self) -> (Step, Errno) {
        match self.steps() {
            Ok(never) => match never {},
            Err(failed) => failed,
        }
    }

    #[expect(unsafe_code, reason = "rustix has no stable dup2 to a number, setgroups and execve")]
    fn steps(&mut self) -> Result<std::convert::Infallible, (Step, Errno)> {
        use std::io::Error;
        let last = || Errno::from_io_error(&Error::last_os_error()).unwrap_or(Errno::IO);
        let at = |step: Step| move |error: Errno| (step, error);

        rustix::process::setsid().map_err(at(Step::Session))?;
        for (number, descriptor) in (0..).zip(&self.descriptors) {
            // SAFETY: both are numbers; no descriptor of anybody is closed that is used later, as
            // all that is used stands above.
            if unsafe { libc::dup2(descriptor.as_raw_fd(), number) } < 0 {
                return Err((Step::Descriptors, last()));
            }
        }
        for (resource, limit) in &self.limits {
            rustix::process::setrlimit(*resource, *limit).map_err(at(Step::Limits))?;
        }
        if let Some(mark) = self.mark {
            // Without it the process has still its environment and its parents.
            let _ = rustix::process::setrlimit(Resource::Locks, mark);
        }
        if let Some((uid, gid, groups)) = &self.account {
            // SAFETY: there are as many groups as is said. The others take numbers. They are called
            // without libc, which would look for other threads.
            unsafe {
                if libc::syscall(libc::SYS_geteuid) == 0
                    && libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) != 0
                {
                    return Err((Step::Groups, last()));
                }
                if libc::syscall(libc::SYS_setresgid, *gid, *gid, *gid) != 0 {
                    return Err((Step::Group, last()));
                }
                if libc::syscall(libc::SYS_setresuid, *uid, *uid, *uid) != 0 {
                    return Err((Step::User, last()));
                }
            }
        }
        rustix::process::chdir(self.directory.as_c_str()).map_err(at(Step::Directory))?;
        if let Some(room) = &mut self.listen_pid {
            digits(rustix::process::getpid(), &mut room[LISTEN_PID.len()..]);
        }
        // SAFETY: the flag leaves the descriptors open until the execution. A kernel that does not
        // know the call (before Linux 5.11) leaves them as they are, which is closed on exec.
        // Both lists end with a null pointer and point to texts that this value owns.
        unsafe {
            let first = libc::c_uint::try_from(self.first_free()).unwrap_or(libc::c_uint::MAX);
            libc::syscall(
                libc::SYS_close_range,
                first,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            );
            libc::execve(self.program.as_ptr(), self.arguments.as_ptr(), self.environment.as_ptr());
        }
        Err((Step::Execute, last()))
    }
}

fn both(value: u64) -> Rlimit {
    Rlimit { current: Some(value), maximum: Some(value) }
}

/// Writes a number and a zero.
fn digits(pid: Pid, room: &mut [u8]) {
    let mut rest = pid.as_raw_nonzero().get().unsigned_abs();
    let mut length = 1;
    while 10_u32.checked_pow(length).is_some_and(|power| rest >= power) {
        length += 1;
    }
    let length = length as usize;
    for place in room[..length].iter_mut().rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    room[length] = 0;
}

/// A second descriptor for the same, with a number above those that the child gives away.
fn above(fd: BorrowedFd<'_>, first_free: RawFd) -> io::Result<OwnedFd> {
    Ok(fcntl_dupfd_cloexec(fd, first_free)?)
}

/// Forks. The child becomes the program or says through `tell` why it cannot.
#[expect(unsafe_code, reason = "nothing else makes a process that has still to be told its pid")]
fn fork(mut prepared: Prepared, tell: RawFd) -> io::Result<u32> {
    // A handler of this process must not run in the child: it would speak to this process's own
    // descriptors.
    // SAFETY: both sets are on the stack, and filled before they are read.
    let before = unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        let mut before = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &all, &mut before);
        before
    };
    // SAFETY: the child makes system calls only and ends in `execve` or `_exit`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        plain_signals();
        let (step, error) = prepared.become_program();
        let mut said = [step as u8, 0, 0, 0, 0];
        said[1..].copy_from_slice(&error.raw_os_error().to_ne_bytes());
        // SAFETY: `said` has five bytes; `_exit` runs nothing of this process.
        unsafe {
            libc::write(tell, said.as_ptr().cast(), said.len());
            libc::_exit(127);
        }
    }
    let error = io::Error::last_os_error();
    // SAFETY: as above.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
    }
    u32::try_from(pid).map_err(|_| error)
}

/// Lets signals do in the child what they do by default. A program that inherits an ignored SIGPIPE
/// (Rust ignores it) would not end when it should.
#[expect(unsafe_code, reason = "rustix has no sigaction")]
fn plain_signals() {
    // SAFETY: runs in the child, where no other thread is; numbers that there are not are refused.
    unsafe {
        let mut action = std::mem::zeroed::<libc::sigaction>();
        action.sa_sigaction = libc::SIG_DFL;
        for signal in 1..=libc::SIGRTMAX() {
            libc::sigaction(signal, &action, ptr::null_mut());
        }
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &none, ptr::null_mut());
    }
}
