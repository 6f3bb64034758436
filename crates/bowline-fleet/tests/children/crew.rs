//! Children that misbehave, one scenario each: whatever they do, the state says what is so, a second
//! instance never runs beside the first, and after a stop nothing is left.

use std::{
    fs,
    io::Read as _,
    net::TcpStream,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::Path,
    process::Command,
    time::Duration,
};

use bowline_fleet::{
    logs,
    os::sweep::{Swept, sweep},
    spec::{Check, Listen, Phase, Probe, Restart, Run, Service, User},
};

use super::supervisor::{Supervisor, living, wait_until};

/// Says that it is ready, through the socket that it was given.
const READY: &str = "import os, socket, sys, time, signal
def say(words):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(words.encode(), '\\0' + os.environ['NOTIFY_SOCKET'][1:])
def leave(work):
    'Runs it in a session of its own, as a child of nobody.'
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            work()
            os._exit(0)
        os._exit(0)
    os.wait()
";

/// Leaves a file if another instance runs, or anything that came of one.
const ALONE: &str = "import fcntl
lock = open(sys.argv[1] + '/lock', 'w')
try:
    # Held by all that have come of this process, until the last of them ends.
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    open(sys.argv[1] + '/second', 'w')
open(sys.argv[1] + '/starts', 'a').write('x')
";

/// The services of a scenario.
pub(crate) fn services(scenario: &str, dir: &Path) -> Vec<Service> {
    let python = |name: &str, script: &str| {
        let words = ["python3", "-uc", &format!("{READY}{script}"), dir.to_str().unwrap()];
        let mut service = Service::new(name, Run::Command(words.map(Into::into).into()));
        service.stop.grace = Duration::from_millis(500);
        service.backoff.first = Duration::from_millis(10);
        service.backoff.max = Duration::from_millis(50);
        service.crash_loop.deaths = 1000;
        service
    };
    let says_ready = |mut service: Service| {
        service.probes.ready.probes = vec![Probe::new(Phase::Ready, Check::Notify)];
        service
    };
    let shell = |name: &str, script: &str| {
        let words = ["/bin/sh", "-c", script, dir.to_str().unwrap()];
        let mut service = python(name, "");
        service.run = Run::Command(words.map(Into::into).into());
        service
    };
    match scenario {
        "deaf-to-term" => {
            let script = "trap '' TERM INT HUP; sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' & \
                while :; do sleep 0.1; done";
            vec![shell("web", script)]
        }
        "takes-its-time" => {
            let mut service = shell("web", "trap '' TERM; while :; do sleep 0.1; done");
            service.stop.grace = Duration::from_secs(3600);
            vec![service]
        }
        "leaves-a-session" => vec![python(
            "web",
            &format!(
                "{ALONE}if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1000)
time.sleep(0.3)"
            ),
        )],
        "one-at-a-time" => {
            let script = format!(
                "{ALONE}leave(lambda: time.sleep(1000))
say('READY=1')
time.sleep(0.4)"
            );
            vec![says_ready(python("web", &script))]
        }
        "forks-twice" => {
            let mut service = python(
                "web",
                "def work():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.execve(sys.executable, ['python3', '-c', 'import time; time.sleep(1000)', sys.argv[1]], {})
leave(work)
say('READY=1')
time.sleep(1000)",
            );
            service.restart = Restart::Never;
            vec![says_ready(service)]
        }
        "a-gigabyte" => {
            // 250 bytes a line, four million of them, no two the same.
            let script = format!("seq -f '%.0f {}' 4000000; echo the end", "a word ".repeat(35));
            let mut service = shell("web", &script);
            service.restart = Restart::Never;
            vec![service]
        }
        "exits-at-once" => vec![shell("web", "echo no reason $$; exit 7")],
        "crash-loop" => {
            let mut service = shell("web", "echo I cannot; exit 7");
            service.crash_loop.deaths = 5;
            vec![service]
        }
        "ready-then-dies" => vec![says_ready(python(
            "web",
            "say('STATUS=working')
say('READY=1')
time.sleep(0.2)
print('out of luck', file=sys.stderr)
os.kill(os.getpid(), signal.SIGSEGV)",
        ))],
        "never-ready" => {
            let script = "say('X_BOWLINE_PROGRESS=40')
say('STATUS=loading engine 3 of 6')
time.sleep(1000)";
            let mut service = says_ready(python("web", script));
            service.overdue = Duration::from_secs(1);
            vec![service]
        }
        "goes-on" => {
            let script = "say('READY=1')
for number in range(1000000):
    print('line', number)
    time.sleep(0.01)";
            let mut service = says_ready(python("web", script));
            service.logs.timestamps = false;
            vec![service, shell("other", "exec sleep 1000")]
        }
        "listens" => {
            let script = "import select
listener = socket.socket(fileno=3)
assert int(os.environ['LISTEN_PID']) == os.getpid()
listener.setblocking(False)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
say('READY=1')
while signal.SIGTERM not in signal.sigpending():
    select.select([listener], [], [], 0.02)
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        continue
    connection.sendall(str(os.getpid()).encode())
    connection.close()";
            let mut service = says_ready(python("web", script));
            service.listen = vec![Listen::Tcp(port(dir))];
            service.overlap = true;
            vec![service]
        }
        "log-line" => {
            let script = "echo '\u{1b}[32mserver\u{1b}[0m is listening'; sleep 1000";
            let mut service = shell("web", script);
            let check = Check::Log("^server is (listening|ready)$".to_owned());
            service.probes.ready.probes = vec![Probe::new(Phase::Ready, check)];
            vec![service]
        }
        "somebody-else" => {
            let mut service = shell("web", "id -un; echo $HOME $USER; sleep 1000");
            service.user = Some(User { user: "nobody".to_owned(), group: None });
            vec![service]
        }
        "spoken-for" => {
            let script = "open(sys.argv[1] + '/socket', 'w').write(os.environ['NOTIFY_SOCKET'])
say('STATUS=not yet')
time.sleep(1000)";
            vec![says_ready(python("web", script))]
        }
        "speaks-through-a-child" => {
            let script = "if os.fork() == 0:
    say('MAINPID=1\\nREADY=1')
    os._exit(0)
time.sleep(1000)";
            vec![says_ready(python("web", script))]
        }
        "missing" => {
            let run = Run::Command(vec!["no-such-program-here".into()]);
            vec![Service::new("web", run)]
        }
        other => panic!("{other}"),
    }
}

/// The address of the scenario "listens", made once.
fn port(dir: &Path) -> std::net::SocketAddr {
    let file = dir.join("port");
    if let Ok(text) = fs::read_to_string(&file) {
        return text.parse().unwrap();
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    fs::write(file, free.to_string()).unwrap();
    free
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn log(dir: &Path) -> Vec<String> {
    logs::tail(&logs::path(&dir.join("logs"), "web"), 5, 100_000).unwrap()
}

#[test]
fn one_that_ignores_every_signal_is_killed_with_all_of_its_group() {
    let dir = dir();
    let mut crew = Supervisor::start("deaf-to-term", dir.path());
    crew.until_state("web", "ready");
    let (done, words) = crew.ask("stop web");
    assert!(done, "{words}");
    crew.until_state("web", "stopped");
    assert_eq!(living(dir.path()), [0; 0]);
    assert!(crew.ask("start web").0);
    crew.stop();
}

#[test]
fn whoever_cannot_wait_has_them_killed() {
    let dir = dir();
    let mut crew = Supervisor::start("takes-its-time", dir.path());
    crew.until_state("web", "ready");
    crew.cut();
}

#[test]
fn a_grandchild_in_its_own_session_is_ended_before_the_next_start() {
    let dir = dir();
    let mut crew = Supervisor::start("leaves-a-session", dir.path());
    let starts = || fs::read_to_string(dir.path().join("starts")).unwrap_or_default().len();
    wait_until("three starts", || starts() >= 3);
    assert!(!dir.path().join("second").exists(), "a second instance ran beside the first");
    assert!(crew.ask("stop web").0);
    crew.until_state("web", "stopped");
    assert_eq!(living(dir.path()), [0; 0]);
    crew.stop();
}

#[test]
fn one_that_forks_twice_and_cleans_its_environment_does_not_get_away() {
    let dir = dir();
    let mut crew = Supervisor::start("forks-twice", dir.path());
    crew.until_state("web", "ready");
    wait_until("the daemon", || living(dir.path()).len() == 2);
    assert!(crew.ask("stop web").0);
    assert_eq!(living(dir.path()), [0; 0]);
    crew.stop();
}

#[test]
fn a_gigabyte_of_output_passes_with_little_memory() {
    let dir = dir();
    let mut crew = Supervisor::start("a-gigabyte", dir.path());
    let began = std::time::Instant::now();
    crew.until_state("web", "completed");
    println!("a gigabyte took {:?}", began.elapsed());
    let lines = log(dir.path());
    // What Bowline says of the end comes last.
    assert!(
        lines.iter().rev().take(5).any(|it| it.ends_with(" out the end")),
        "{:?}",
        lines.last()
    );
    let files: Vec<u64> = fs::read_dir(dir.path().join("logs/services"))
        .unwrap()
        .map(|it| it.unwrap().metadata().unwrap().len())
        .collect();
    assert!(files.len() == 5 && files.iter().all(|bytes| *bytes < 11_000_000), "{files:?}");
    let status = fs::read_to_string(format!("/proc/{}/status", crew.pid())).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    println!("{peak}");
    let kilobytes: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kilobytes < 100_000, "{peak}");
    crew.stop();
}

#[test]
fn one_that_exits_at_once_a_hundred_times_leaves_nothing_behind() {
    let dir = dir();
    let mut crew = Supervisor::start("exits-at-once", dir.path());
    let open =
        |crew: &Supervisor| fs::read_dir(format!("/proc/{}/fd", crew.pid())).unwrap().count();
    crew.until("web", |view| view.restarts >= 5);
    let before = open(&crew);
    let view = crew.until("web", |view| view.restarts >= 100);
    assert!(view.last_end.as_ref().unwrap().starts_with("exited with code 7"), "{view:?}");
    assert!(view.last_lines[0].starts_with("no reason"), "{view:?}");
    assert!(open(&crew) < before + 20, "{before} descriptors have become {}", open(&crew));
    let parent = crew.pid().to_string();
    let zombies = Command::new("ps")
        .args(["--no-headers", "-o", "stat", "--ppid", &parent])
        .output()
        .unwrap();
    let zombies = String::from_utf8(zombies.stdout).unwrap();
    assert!(zombies.lines().filter(|stat| stat.starts_with('Z')).count() <= 1, "{zombies}");
    crew.stop();
    assert!(!dir.path().join("services/web").exists());
}

#[test]
fn a_crash_loop_says_why() {
    let dir = dir();
    let mut crew = Supervisor::start("crash-loop", dir.path());
    let view = crew.until_state("web", "crash-loop");
    let words = view.words.clone().unwrap_or_default();
    assert!(words.contains("exited with code 7") || view.last_end.is_some(), "{view:?}");
    assert_eq!(view.last_lines, ["I cannot"]);
    crew.stop();
}

#[test]
fn one_that_is_ready_and_dies_is_started_again() {
    let dir = dir();
    let mut crew = Supervisor::start("ready-then-dies", dir.path());
    let first = crew.until("web", |view| view.state == "ready");
    assert_eq!(first.status.as_deref(), Some("working"));
    let second = crew.until("web", |view| view.state == "ready" && view.pid != first.pid);
    assert!(second.last_end.as_ref().unwrap().starts_with("killed by signal 11"), "{second:?}");
    assert_eq!(second.last_lines, ["out of luck"]);
    crew.stop();
}

#[test]
fn one_that_is_never_ready_is_waited_for_and_said_to_be_late() {
    let dir = dir();
    let mut crew = Supervisor::start("never-ready", dir.path());
    let starting = crew.until("web", |view| view.status.is_some());
    assert_eq!(starting.state, "starting");
    assert_eq!(starting.status.as_deref(), Some("loading engine 3 of 6"));
    let late = crew.until_state("web", "not-ready");
    assert_eq!(late.pid, starting.pid);
    crew.stop();
}

#[test]
fn services_outlive_their_master_and_are_adopted() {
    let dir = dir();
    let mut crew = Supervisor::start("goes-on", dir.path());
    let before = crew.until_state("web", "ready");
    let other = crew.until_state("other", "ready");
    wait_until("lines", || log(dir.path()).iter().any(|line| line == "line 3"));
    crew.kill();
    assert_eq!(living(dir.path()).len(), 2);
    // It goes on printing meanwhile.
    std::thread::sleep(Duration::from_millis(300));
    let mut crew = Supervisor::start("goes-on", dir.path());
    let after = crew.until("web", |view| view.state == "ready");
    assert!(after.adopted && after.pid == before.pid, "{before:?} {after:?}");
    assert_eq!(crew.until_state("other", "ready").pid, other.pid);
    let lines = || {
        let lines = log(dir.path());
        lines.iter().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect()
    };
    wait_until("more lines", || Vec::<u32>::from_iter(lines()).len() > 100);
    let numbers: Vec<u32> = lines();
    // The master that was killed may have had a few in its hands.
    let missing = numbers.windows(2).filter(|it| it[1] != it[0] + 1).count();
    assert!(missing <= 1 && numbers[0] == 0, "{numbers:?}");
    // What nobody could see the end of is started again.
    Command::new("kill").arg("-9").arg(after.pid.unwrap().to_string()).status().unwrap();
    let again = crew.until("web", |view| view.state == "ready" && view.pid != after.pid);
    assert!(!again.adopted && again.last_end.unwrap().contains("nobody saw how"));
    crew.stop();
}

#[test]
fn masters_that_are_killed_at_any_moment_never_start_a_second_one() {
    let dir = dir();
    for number in 0..15 {
        let crew = Supervisor::start("one-at-a-time", dir.path());
        // Before the first start, in the middle of one, after an end: wherever that hits.
        std::thread::sleep(Duration::from_millis(50 + number * 97 % 1300));
        crew.kill();
        assert!(
            !dir.path().join("second").exists(),
            "a second instance ran after {number} masters"
        );
    }
    let mut crew = Supervisor::start("one-at-a-time", dir.path());
    crew.until_state("web", "ready");
    crew.stop();
    assert!(!dir.path().join("second").exists(), "a second instance ran beside the first");
    let starts = fs::read_to_string(dir.path().join("starts")).unwrap().len();
    println!("15 masters have started it {starts} times");
}

#[test]
fn what_a_dead_master_has_left_can_be_swept() {
    let dir = dir();
    let mut crew = Supervisor::start("goes-on", dir.path());
    crew.until_state("web", "ready");
    crew.until_state("other", "ready");
    crew.kill();
    let mut swept = sweep(dir.path()).unwrap();
    swept.ended.sort();
    assert_eq!(swept.ended, [("other".to_owned(), 1), ("web".to_owned(), 1)]);
    assert!(swept.left.is_empty());
    assert_eq!(living(dir.path()), [0; 0]);
    assert_eq!(sweep(dir.path()).unwrap(), Swept::default());
}

#[test]
fn a_process_that_got_the_number_of_a_dead_one_is_not_touched() {
    if !rustix::process::geteuid().is_root() {
        println!("only root can choose the number of a process");
        return;
    }
    let dir = dir();
    let mut crew = Supervisor::start("goes-on", dir.path());
    let web = crew.until_state("web", "ready").pid.unwrap();
    crew.until_state("other", "ready");
    crew.kill();
    Command::new("kill").arg("-9").arg(web.to_string()).status().unwrap();
    wait_until("its end", || !Path::new(&format!("/proc/{web}")).exists());
    let Some(mut foreign) = with_number(web) else {
        println!("the number was taken by somebody else each time");
        sweep(dir.path()).unwrap();
        return;
    };
    // One master adopts what is there, another sweeps, and neither takes it for its own.
    let mut crew = Supervisor::start("goes-on", dir.path());
    let view = crew.until_state("web", "ready");
    assert!(view.pid != Some(web), "{view:?}");
    crew.kill();
    sweep(dir.path()).unwrap();
    assert_eq!(living(dir.path()), [0; 0]);
    assert!(foreign.try_wait().unwrap().is_none(), "a foreign process was signalled");
    foreign.kill().unwrap();
    foreign.wait().unwrap();
}

/// A process of nobody's with just this number, leader of a group and a session as the dead one was.
fn with_number(pid: u32) -> Option<std::process::Child> {
    for _ in 0..200 {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).ok()?;
        let mut command = Command::new("python3");
        // `setsid` of the shell's would fork; this does it in the process with the number.
        let script =
            "import os, time; os.getpgrp() == os.getpid() or os.setsid(); time.sleep(1000)";
        let mut process = command.args(["-c", script]).spawn().ok()?;
        if process.id() == pid {
            wait_until("its session", || {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
                let fields = stat.rsplit_once(')').unwrap().1;
                fields.split_whitespace().nth(3) == Some(&pid.to_string())
            });
            return Some(process);
        }
        process.kill().ok()?;
        process.wait().ok()?;
    }
    None
}

#[test]
fn a_restart_with_overlap_loses_no_connection() {
    let dir = dir();
    let mut crew = Supervisor::start("listens", dir.path());
    let address = port(dir.path());
    crew.until_state("web", "ready");
    let served = || {
        let mut answer = String::new();
        let mut connection = TcpStream::connect(address).unwrap();
        connection.read_to_string(&mut answer).map(|_| answer.parse::<u32>().unwrap())
    };
    let first = served().unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    let refused = std::thread::scope(|scope| {
        let clients = scope.spawn(|| {
            let mut refused = 0;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                refused += u32::from(TcpStream::connect(address).is_err());
            }
            refused
        });
        for _ in 0..3 {
            let (done, words) = crew.ask("restart web");
            assert!(done, "{words}");
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        clients.join().unwrap()
    });
    assert_eq!(refused, 0);
    let last = crew.until("web", |view| view.state == "ready" && view.pid != Some(first));
    let alone = || wait_until("the end of the old one", || living(dir.path()).len() == 1);
    alone();
    assert_eq!(Some(served().unwrap()), last.pid);
    // The next master takes the socket from the process that goes on.
    crew.kill();
    let mut crew = Supervisor::start("listens", dir.path());
    assert!(crew.until_state("web", "ready").adopted);
    assert!(crew.ask("restart web").0);
    let new = crew.until("web", |view| view.state == "ready" && view.pid != last.pid).pid;
    alone();
    assert_eq!(Some(served().unwrap()), new);
    crew.stop();
}

#[test]
fn a_line_that_it_prints_makes_it_ready() {
    let dir = dir();
    let mut crew = Supervisor::start("log-line", dir.path());
    crew.until_state("web", "ready");
    // It is told of before it is written.
    let printed = "out \u{1b}[32mserver\u{1b}[0m is listening";
    wait_until("the line", || log(dir.path()).iter().any(|line| line.ends_with(printed)));
    crew.stop();
}

#[test]
fn nobody_else_can_say_that_a_service_is_ready() {
    let dir = dir();
    let mut crew = Supervisor::start("spoken-for", dir.path());
    crew.until("web", |view| view.status.is_some());
    let socket = fs::read_to_string(dir.path().join("socket")).unwrap();
    let address = SocketAddr::from_abstract_name(socket.strip_prefix('@').unwrap()).unwrap();
    let stranger = UnixDatagram::unbound().unwrap();
    stranger.send_to_addr(b"READY=1\nSTATUS=taken over", &address).unwrap();
    // The service itself is heard after that.
    let (done, words) = crew.ask("stop web");
    assert!(done, "{words}");
    assert!(!crew.saw("web", |view| view.ready || view.status.as_deref() == Some("taken over")));
    crew.stop();
}

#[test]
fn a_child_of_the_service_speaks_for_it_even_if_it_is_gone_at_once() {
    let dir = dir();
    let mut crew = Supervisor::start("speaks-through-a-child", dir.path());
    crew.until_state("web", "ready");
    crew.stop();
}

#[test]
fn it_runs_as_the_user_that_it_is_to_be() {
    if !rustix::process::geteuid().is_root() {
        println!("only root can become another user");
        return;
    }
    let dir = dir();
    let mut crew = Supervisor::start("somebody-else", dir.path());
    crew.until_state("web", "ready");
    wait_until("its words", || log(dir.path()).len() >= 2);
    let lines = log(dir.path());
    assert!(lines.iter().any(|it| it.ends_with(" out nobody")), "{lines:?}");
    assert!(lines.iter().any(|it| it.ends_with(" nobody") && it.contains("out /")), "{lines:?}");
    crew.stop();
}

#[test]
fn a_program_that_there_is_not_is_said_before_anything_is_tried_again() {
    let dir = dir();
    let mut crew = Supervisor::start("missing", dir.path());
    let view = crew.until_state("web", "failed");
    assert!(view.words.unwrap().contains("no program called \"no-such-program-here\""));
    let (done, words) = crew.ask("start web");
    assert!(!done && words.contains("no-such-program-here"), "{words}");
    crew.stop();
}
