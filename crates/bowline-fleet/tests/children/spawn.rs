//! One process at a time: what it is given, and the words for each reason why there is none.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{Read as _, Seek as _},
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::PermissionsExt as _,
    },
    path::Path,
    time::Duration,
};

use bowline_fleet::{
    os::{
        environment::Environment,
        listen::Bound,
        process::Process,
        spawn::{Launch, NotSpawned, spawn},
        user::Account,
    },
    plan::End,
    spec::Listen,
};
use rustix::process::{Resource, Signal};

/// Long enough for anything here, however busy the machine is.
const LONG: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Given<'a> {
    environment: Environment,
    account: Option<&'a Account>,
    limits: Vec<(Resource, u64)>,
    listeners: Vec<(&'a str, BorrowedFd<'a>)>,
    directory: Option<&'a Path>,
}

fn start(
    given: &Given<'_>,
    program: &Path,
    arguments: &[&str],
    output: &File,
) -> Result<Process, NotSpawned> {
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    spawn(&Launch {
        program,
        arguments: &arguments,
        directory: given.directory.unwrap_or(Path::new("/")),
        environment: &given.environment,
        account: given.account,
        limits: &given.limits,
        mark: None,
        listeners: &given.listeners,
        stdout: output.as_fd(),
        stderr: output.as_fd(),
    })
}

/// Runs a shell to its end and gives what it said.
fn shell(given: &Given<'_>, script: &str) -> (End, String) {
    let mut output = tempfile::tempfile().unwrap();
    let process = start(given, Path::new("/bin/sh"), &["sh", "-c", script], &output).unwrap();
    assert!(process.wait(LONG));
    let end = process.reap().unwrap();
    let mut said = String::new();
    output.rewind().unwrap();
    output.read_to_string(&mut said).unwrap();
    (end, said)
}

#[test]
fn it_begins_a_session_with_nothing_but_what_it_was_given() {
    let mut given = Given { directory: Some(Path::new("/usr")), ..Given::default() };
    given.environment.insert("A".into(), "b c".into());
    let script = "readlink /proc/self/fd/0; pwd; echo $A; ps -o sid=,pgid=,pid= -p $$; \
        ls /proc/$$/fd; grep -E 'Sig(Blk|Ign)' /proc/self/status";
    // `ps` and the others are found by the shell's own default path.
    let (end, said) = shell(&given, script);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((end, &lines[..3]), (End::Code(0), &["/dev/null", "/usr", "b c"][..]), "{said}");
    let ids: Vec<&str> = lines[3].split_whitespace().collect();
    assert!(ids.len() == 3 && ids.iter().all(|id| *id == ids[0]), "{said}");
    // What this test has open is not seen there: the shell has three, and one is of its own.
    assert!(lines[4..].iter().filter(|line| line.parse::<u32>().is_ok()).count() <= 4, "{said}");
    let signals = said.lines().filter(|line| line.starts_with("Sig"));
    assert!(signals.clone().count() == 2, "{said}");
    for line in signals {
        // glibc keeps two signals for itself and leaves them as they are.
        let set = u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap();
        assert_eq!(set & !(0b11 << 31), 0, "{line}");
    }
}

#[test]
fn its_end_is_known() {
    assert_eq!(shell(&Given::default(), "exit 3").0, End::Code(3));
    assert_eq!(shell(&Given::default(), "kill -9 $$").0, End::Signal(9));
}

#[test]
fn a_listening_socket_is_handed_over_with_its_own_pid() {
    let bound = Bound::bind(&Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners = vec![("web", bound.as_fd()), ("admin", other.as_fd())];
    let given = Given { listeners, ..Given::default() };
    let script = "echo $LISTEN_FDS $LISTEN_FDNAMES; [ $LISTEN_PID = $$ ] && echo mine; \
        readlink /proc/$$/fd/3 /proc/$$/fd/4 | cut -c1-6";
    let (_, said) = shell(&given, script);
    assert_eq!(said, "2 web:admin\nmine\nsocket\nsocket\n");
}

#[test]
fn a_unix_socket_that_a_dead_process_has_left_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let address = Listen::Unix(dir.path().join("web.sock"));
    drop(Bound::bind(&address).unwrap());
    let bound = Bound::bind(&address).unwrap();
    let error = Bound::bind(&address).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    bound.remove();
    assert!(!dir.path().join("web.sock").exists());
}

#[test]
fn it_becomes_another_user_with_that_users_groups() {
    if !rustix::process::geteuid().is_root() {
        println!("only root can become another user");
        return;
    }
    let account = Account::find("nobody").unwrap();
    let given = Given { account: Some(&account), ..Given::default() };
    let (_, said) = shell(&given, "id -un; id -u; id -g; id -G");
    let (uid, gid) = (account.uid.as_raw(), account.gid.as_raw());
    assert_eq!(said, format!("nobody\n{uid}\n{gid}\n{gid}\n"));
}

#[test]
fn its_limits_are_its_own() {
    let limits = vec![(Resource::Nofile, 77), (Resource::Core, 0)];
    let given = Given { limits, ..Given::default() };
    assert_eq!(shell(&given, "ulimit -n; ulimit -Hn; ulimit -c").1, "77\n77\n0\n");
}

#[test]
fn a_signal_reaches_the_whole_group_at_once() {
    let output = tempfile::tempfile().unwrap();
    let script = "sleep 1000 & sleep 1000 & echo started; wait";
    let program = Path::new("/bin/sh");
    let process = start(&Given::default(), program, &["sh", "-c", script], &output).unwrap();
    wait_until(|| output.metadata().unwrap().len() > 0);
    if process.signal_group(Signal::KILL).unwrap() {
        assert!(process.wait(LONG));
        // The leader is gone, and its group can still be spoken to without its number.
        assert_eq!(process.reap(), Some(End::Signal(9)));
        wait_until(|| !group_lives(process.pid()));
        assert!(process.signal_group(Signal::KILL).unwrap());
    } else {
        println!("this kernel cannot signal the group of a pidfd");
        process.signal(Signal::KILL).unwrap();
    }
}

#[test]
fn each_reason_why_there_is_no_process_has_its_words() {
    let dir = tempfile::tempdir().unwrap();
    let output = tempfile::tempfile().unwrap();
    let script = |name: &str, text: &str, mode: u32| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let refused = |path: &Path, given: &Given<'_>| {
        let error = start(given, path, &["x"], &output).unwrap_err();
        (error.lasting, error.words)
    };
    let plain = Given::default();
    for (path, words) in [
        (dir.path().join("gone"), "does not exist"),
        (script("mode", "#!/bin/sh\n", 0o644), "chmod +x"),
        (script("wrong", "#!/no/python\n", 0o755), "`#!/no/python`"),
        (script("text", "echo\n", 0o755), "first line"),
        (dir.path().to_owned(), "directory"),
    ] {
        let (lasting, said) = refused(&path, &plain);
        assert!(lasting && said.contains(words), "{said}");
    }
    let given = Given { directory: Some(Path::new("/no/such")), ..Given::default() };
    let (_, said) = refused(Path::new("/bin/true"), &given);
    assert!(said.contains("begin in the directory /no/such"), "{said}");
    if rustix::process::geteuid().is_root() {
        let account = Account::find("nobody").unwrap();
        let given = Given { account: Some(&account), ..Given::default() };
        let (_, said) = refused(&script("closed", "#!/bin/sh\n", 0o700), &given);
        assert!(said.contains("the user nobody may not execute"), "{said}");
    }
}

#[test]
fn no_descriptor_is_left_behind() {
    let count = || fs::read_dir("/proc/self/fd").unwrap().count();
    // Other tests of this process have some open for a moment.
    let before = count();
    for _ in 0..100 {
        shell(&Given::default(), "exit 0");
    }
    wait_until(|| count() < before + 50);
}

fn group_lives(group: u32) -> bool {
    fs::read_dir("/proc").unwrap().any(|entry| {
        let stat = entry.ok().and_then(|it| fs::read_to_string(it.path().join("stat")).ok());
        stat.is_some_and(|stat| {
            let fields: Vec<&str> = stat[stat.rfind(')').unwrap()..].split_whitespace().collect();
            fields[1] != "Z" && fields[3] == group.to_string()
        })
    })
}

fn wait_until(condition: impl Fn() -> bool) {
    for _ in 0..6000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it does not come");
}
