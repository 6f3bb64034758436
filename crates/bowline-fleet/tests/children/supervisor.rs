//! A process with a crew in it, for tests that kill it: this very program once more. A crew is alone
//! in its process (it waits for all that services leave behind), so every test has its own.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use bowline_fleet::{
    crew::{Crew, Options, Snapshot},
    plan::{self, Outcome},
};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncBufReadExt as _;

use super::crew::services;

/// Long enough for anything here, however busy the machine is.
const LONG: Duration = Duration::from_secs(100);

/// What such a process says of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct View {
    pub(crate) state: String,
    pub(crate) words: Option<String>,
    pub(crate) pid: Option<u32>,
    pub(crate) adopted: bool,
    pub(crate) ready: bool,
    pub(crate) status: Option<String>,
    pub(crate) attempts: u32,
    pub(crate) restarts: u64,
    pub(crate) last_end: Option<String>,
    pub(crate) last_lines: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Said {
    Views(BTreeMap<String, View>),
    Answer(bool, String),
    Left(Vec<String>),
}

/// Such a process.
pub(crate) struct Supervisor {
    process: Child,
    stdin: ChildStdin,
    said: mpsc::Receiver<Said>,
    views: BTreeMap<String, View>,
    seen: Vec<BTreeMap<String, View>>,
    dir: PathBuf,
}

impl Supervisor {
    /// Starts one for the services of a scenario. All of them and all that comes of them carry the
    /// directory in their environment or in their arguments.
    pub(crate) fn start(scenario: &str, dir: &Path) -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "supervisor::is_a_process_of_its_own"])
            .env("SCENARIO", scenario)
            .env("SCENARIO_DIR", dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = process.stdin.take().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (tell, said) = mpsc::sync_channel(100_000);
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some(at) = line.find("@@") {
                    // The test may be over.
                    let _ = tell.send(serde_json::from_str(&line[at + 2..]).unwrap());
                }
            }
        });
        let dir = dir.to_owned();
        Self { process, stdin, said, views: BTreeMap::new(), seen: Vec::new(), dir }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    fn next(&mut self) -> Said {
        let said = self.said.recv_timeout(LONG);
        let said = said.unwrap_or_else(|_| panic!("nothing comes after {:#?}", self.views));
        if let Said::Views(views) = &said {
            self.views = views.clone();
            self.seen.push(views.clone());
        }
        said
    }

    /// Waits until a service is as it should be.
    pub(crate) fn until(&mut self, service: &str, is: impl Fn(&View) -> bool) -> View {
        loop {
            if let Some(view) = self.views.get(service).filter(|view| is(view)) {
                return view.clone();
            }
            self.next();
        }
    }

    pub(crate) fn until_state(&mut self, service: &str, state: &str) -> View {
        self.until(service, |view| view.state == state)
    }

    /// Whether a service has been like that at any time.
    pub(crate) fn saw(&self, service: &str, was: impl Fn(&View) -> bool) -> bool {
        self.seen.iter().any(|views| views.get(service).is_some_and(&was))
    }

    /// Wants something of a service and waits for the answer.
    pub(crate) fn ask(&mut self, words: &str) -> (bool, String) {
        writeln!(self.stdin, "{words}").unwrap();
        loop {
            if let Said::Answer(done, words) = self.next() {
                return (done, words);
            }
        }
    }

    /// Stops all services, and then nothing of them is there.
    pub(crate) fn stop(self) {
        self.end("end");
    }

    /// The same, without giving them any time.
    pub(crate) fn cut(self) {
        self.end("cut");
    }

    fn end(mut self, how: &str) {
        writeln!(self.stdin, "{how}").unwrap();
        loop {
            if let Said::Left(left) = self.next() {
                assert!(left.is_empty(), "{left:?}");
                break;
            }
        }
        assert!(self.process.wait().unwrap().success());
        assert_eq!(living(&self.dir), [0; 0]);
    }

    /// Kills it, with no time to do anything.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // A test that has failed leaves nothing behind; one that goes on says so itself.
        if thread::panicking() {
            let _ = self.process.kill();
            let _ = self.process.wait();
            let _ = bowline_fleet::os::sweep::sweep(&self.dir);
        }
    }
}

/// The processes that live and carry this directory in their environment or their arguments, but for
/// the supervisors.
pub(crate) fn living(dir: &Path) -> Vec<u32> {
    let mark = dir.to_str().unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let text = |name: &str| String::from_utf8_lossy(&read(name)).into_owned();
        let (environment, arguments, stat) = (text("environ"), text("cmdline"), text("stat"));
        let ended = stat.rsplit_once(')').is_none_or(|(_, rest)| rest.starts_with(" Z"));
        let supervisor = environment.contains("SCENARIO_DIR=");
        if !ended && !supervisor && (environment.contains(mark) || arguments.contains(mark)) {
            found.push(pid);
        }
    }
    found
}

/// Waits for something that no supervisor tells.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("it does not come: {what}");
}

#[test]
#[ignore = "is run by other tests, as a process of its own"]
fn is_a_process_of_its_own() {
    let (Ok(scenario), Ok(dir)) = (env::var("SCENARIO"), env::var("SCENARIO_DIR")) else { return };
    let dir = PathBuf::from(dir);
    let environment = env::vars_os()
        .filter(|(name, _)| !name.to_string_lossy().starts_with("SCENARIO"))
        .chain([("MARK".into(), dir.clone().into())])
        .collect();
    let options = Options { state_dir: dir.clone(), log_dir: dir.join("logs"), environment };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if scenario == "follow" {
        return runtime.block_on(super::logs::follow(&dir));
    }
    if scenario == "blind" {
        return runtime.block_on(super::blind::see(&dir));
    }
    runtime.block_on(serve(options, &scenario, &dir));
}

async fn serve(options: Options, scenario: &str, dir: &Path) {
    let handle = Crew::start(options, services(scenario, dir)).unwrap();
    let mut snapshots = handle.snapshots();
    let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    let mut asked = tokio::task::JoinSet::new();
    loop {
        let views = views(&snapshots.borrow_and_update());
        say(&Said::Views(views));
        tokio::select! {
            changed = snapshots.changed() => changed.unwrap(),
            line = lines.next_line() => match line.unwrap().as_deref() {
                None => return,
                Some("end") => break,
                Some("cut") => {
                    let (left, ()) = tokio::join!(handle.stop(), async { handle.cut() });
                    return say(&Said::Left(left));
                }
                Some(line) => {
                    let (command, service) = line.split_once(' ').unwrap();
                    let command = match command {
                        "start" => plan::Command::Start,
                        "stop" => plan::Command::Stop,
                        "restart" => plan::Command::Restart,
                        other => panic!("{other}"),
                    };
                    let (handle, service) = (handle.clone(), service.to_owned());
                    asked.spawn(async move {
                        let answer = match handle.command(&service, command).await {
                            Outcome::Done(words) => Said::Answer(true, words),
                            Outcome::Failed(words) => Said::Answer(false, words),
                            Outcome::Unknown => Said::Answer(false, "unknown".to_owned()),
                        };
                        say(&answer);
                    });
                }
            },
        }
    }
    say(&Said::Left(handle.stop().await));
}

fn views(snapshot: &Snapshot) -> BTreeMap<String, View> {
    let view = |view: &plan::View| View {
        state: view.state.name().to_owned(),
        words: view.words.clone(),
        pid: view.stable.as_ref().and_then(|it| it.pid),
        adopted: view.stable.as_ref().is_some_and(|it| it.adopted),
        ready: view.stable.as_ref().is_some_and(|it| it.ready),
        status: view.stable.as_ref().and_then(|it| it.status.clone()),
        attempts: view.attempts,
        restarts: view.restarts.values().sum(),
        last_end: view.ends.last().map(|it| it.words.clone()),
        last_lines: view.ends.last().map(|it| it.lines.clone()).unwrap_or_default(),
    };
    snapshot.services.iter().map(|(name, it)| (name.clone(), view(it))).collect()
}

fn say(said: &Said) {
    println!("@@{}", serde_json::to_string(said).unwrap());
}
