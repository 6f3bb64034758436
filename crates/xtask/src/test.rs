//! `cargo xtask test`: everything CI runs, from a bare machine.

use std::{
    env, fs, panic,
    path::PathBuf,
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

use crate::{
    bench,
    clock::{Watch, shown},
    root,
    step::{self, Count, Outcome},
    target, tidy, tools,
};

/// How long a step may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// The same for the long runs.
const LONG_PATIENCE: Duration = Duration::from_secs(60 * 60);

/// What the long runs and the benchmarks measure.
pub(crate) const RELEASE_BUILD: [&str; 5] = ["build", "--release", "--locked", "-p", "bowline"];

/// How many worlds of each kind a run has.
const SIM_SEEDS: &str = "500";

/// How many worlds of services, and of links, a long run has.
const SIM_SEEDS_LONG: &str = "10000";

/// How long each fuzz target is driven.
const FUZZ_SECONDS: u32 = 6;

/// One step, by the name under which it can be asked for.
struct Step {
    name: &'static str,
    what: &'static str,
    run: fn(&Run) -> Vec<Outcome>,
    /// Whether the steps behind it make no sense without it.
    needed: bool,
    /// Where it runs: one core waits in many of them.
    place: Place,
}

impl Step {
    const fn new(name: &'static str, what: &'static str, run: fn(&Run) -> Vec<Outcome>) -> Self {
        Self { name, what, run, needed: false, place: Place::Row }
    }

    const fn needed(self) -> Self {
        Self { needed: true, ..self }
    }

    const fn beside(self) -> Self {
        Self { place: Place::Beside, ..self }
    }

    const fn alone(self) -> Self {
        Self { place: Place::Alone, ..self }
    }
}

/// Where a step runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In its turn.
    Row,
    /// Beside those behind it, after others of its kind.
    Beside,
    /// In its turn, once nothing is beside it any more.
    Alone,
}

/// What the steps are told.
#[derive(Default)]
pub(crate) struct Run {
    long: bool,
}

const STEPS: &[Step] = &[
    Step::new("tools", "what must be on the machine", tools).needed(),
    Step::new("node", "npm ci in tests/", node).needed().beside(),
    Step::new("python", "a venv in tests/.venv", python).needed().beside(),
    Step::new("debian", "programs around a server", debian).needed().beside(),
    Step::new("fmt", "cargo fmt --check", fmt),
    Step::new("clippy", "cargo clippy, warnings denied", clippy),
    Step::new("build", "binaries and examples", build).needed(),
    Step::new("rust", "unit, scenario and property tests", rust).alone(),
    Step::new("continuity", "the loss matrix, a bad network, a slow receiver", continuity).beside(),
    Step::new("doc", "the examples in the documentation", doc),
    Step::new(
        "differential",
        "the same bytes to the reference server and to Bowline",
        differential,
    ),
    Step::new("protocol", "the protocol documents", protocol),
    Step::new("clients", "the official JavaScript clients", clients),
    Step::new("shards", "polling across shards", shards),
    Step::new("soak", "numbered events over upgrades", soak),
    Step::new("links", "bots whose service is lost, renewed, killed", links),
    Step::new("pytest", "python-socketio", pytest).alone(),
    Step::new("api", "events from outside, and schemathesis", api),
    Step::new("operations", "real proxies, Prometheus, Alertmanager", operations).alone(),
    Step::new("restarts", "gateways killed with -9", restarts),
    Step::new("backend", "events through an app that is killed", backend),
    Step::new("ai", "models behind the gateway, and their faults", ai),
    Step::new("bench", "how benchmarks are summed up", bench),
    Step::new("rude", "rude clients, and what they leave", rude).alone(),
    Step::new("starts", "the time to the first answer", starts),
    Step::new("sim", "500 seeded worlds of continuity, services, links", sim).beside(),
    Step::new("fuzz", "every decoder, 6 s each", fuzz),
    Step::new("tidy", "the rules no compiler checks", run_tidy),
    Step::new("idle", "memory of 10,000 idle sessions (--long)", idle).alone(),
    Step::new(
        "continuity-long",
        "250 clients, a bad network, ten restarts (--long)",
        continuity_long,
    ),
    Step::new("ai-faults", "100,000 requests to providers that fail (--long)", ai_faults),
    Step::new("ai-lateness", "pings beside 200 streams and busy cores (--long)", ai_lateness),
    Step::new("ai-incident", "who is charged for a fallback, beside LiteLLM (--long)", ai_incident),
    Step::new("links-long", "the same in full, and 200 links as a picture (--long)", links_long),
    Step::new("newcomer", "README's quick start from a clean clone (--long)", newcomer),
];

pub(crate) fn run(args: &[&str]) -> ExitCode {
    let mut long = false;
    let mut wanted = Vec::new();
    for arg in args {
        match *arg {
            "--long" => long = true,
            "--list" => {
                for step in STEPS {
                    println!("{:<14} {}", step.name, step.what);
                }
                return ExitCode::SUCCESS;
            }
            name if STEPS.iter().any(|step| step.name == name) => wanted.push(name),
            other => {
                println!("no step is called {other}; `cargo xtask test --list` names them");
                return ExitCode::from(2);
            }
        }
    }
    let watch = Watch::start();
    let run = Run { long };
    let mut outcomes = Vec::new();
    let mut stopped = None;
    thread::scope(|scope| {
        let mut beside: Option<thread::ScopedJoinHandle<'_, Ran>> = None;
        for step in STEPS.iter().filter(|step| wanted.is_empty() || wanted.contains(&step.name)) {
            if step.place == Place::Beside {
                let before = beside.take();
                let run = &run;
                beside = Some(scope.spawn(move || {
                    let mut ran = before.map_or_else(Ran::default, joined);
                    ran.go(step, run);
                    ran
                }));
                continue;
            }
            let mut ran = Ran::default();
            if step.place == Place::Alone {
                ran = beside.take().map_or_else(Ran::default, joined);
            }
            ran.go(step, &run);
            outcomes.append(&mut ran.outcomes);
            stopped = ran.stopped;
            if stopped.is_some() {
                break;
            }
        }
        let last = beside.take().map_or_else(Ran::default, joined);
        outcomes.extend(last.outcomes);
        stopped = stopped.or(last.stopped);
    });
    summary(&outcomes, stopped, watch)
}

/// Steps that ran one after the other.
#[derive(Default)]
struct Ran {
    outcomes: Vec<Outcome>,
    /// The one that failed and was needed.
    stopped: Option<&'static str>,
}

impl Ran {
    fn go(&mut self, step: &Step, run: &Run) {
        if self.stopped.is_some() {
            return;
        }
        let results = (step.run)(run);
        if step.needed && results.iter().any(|outcome| outcome.failed > 0) {
            self.stopped = Some(step.name);
        }
        self.outcomes.extend(results);
    }
}

fn joined(thread: thread::ScopedJoinHandle<'_, Ran>) -> Ran {
    thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
}

fn summary(outcomes: &[Outcome], stopped: Option<&str>, watch: Watch) -> ExitCode {
    for outcome in outcomes {
        if outcome.failed > 0 {
            println!("\n──── {} failed ────\n{}", outcome.name, tail(&outcome.output));
        }
    }
    println!("\n{:<24} {:>8} {:>7} {:>10}", "step", "passed", "failed", "time");
    for outcome in outcomes {
        let Outcome { name, time, passed, failed, note, .. } = outcome;
        println!("{name:<24} {passed:>8} {failed:>7} {:>10}  {note}", shown(*time));
    }
    if let Some(name) = stopped {
        println!("the steps after `{name}` were not run: they need it");
    }
    println!("{:<24} {:>8} {:>7} {:>10}\n", "all", "", "", shown(watch.read()));
    let passed: u64 = outcomes.iter().map(|outcome| outcome.passed).sum();
    let failed: u64 = outcomes.iter().map(|outcome| outcome.failed).sum();
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The end of an output: what went wrong stands there.
fn tail(output: &str) -> String {
    const LINES_MAX: usize = 200;
    let lines: Vec<&str> = output.lines().collect();
    let skipped = lines.len().saturating_sub(LINES_MAX);
    let kept = lines[skipped..].join("\n");
    if skipped == 0 {
        kept
    } else {
        format!("({skipped} lines above are in target/xtask/)\n{kept}")
    }
}

fn tools(_: &Run) -> Vec<Outcome> {
    vec![step::call("tools", tools::check)]
}

fn fmt(_: &Run) -> Vec<Outcome> {
    vec![plain("fmt", cargo(&["fmt", "--all", "--check"]))]
}

fn clippy(_: &Run) -> Vec<Outcome> {
    let args = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    vec![plain("clippy", cargo(&args))]
}

fn build(_: &Run) -> Vec<Outcome> {
    vec![plain("build", cargo(&["build", "--workspace", "--bins", "--examples", "--locked"]))]
}

pub(crate) fn node(_: &Run) -> Vec<Outcome> {
    let tests = root().join("tests");
    let modified = |path: &str| fs::metadata(tests.join(path)).and_then(|file| file.modified());
    let installed = modified("node_modules/.package-lock.json");
    if let (Ok(installed), Ok(lock)) = (installed, modified("package-lock.json"))
        && installed >= lock
    {
        return vec![step::call("node", || Ok("node_modules is up to date".to_owned()))];
    }
    let mut command = Command::new("npm");
    command.args(["ci", "--no-audit", "--no-fund"]).current_dir(tests);
    vec![plain("node", command)]
}

/// The environments of Python, by the end of their directory's name: the clients of the tests, and the bots of Webex,
/// which want versions of their own.
const VENVS: [(&str, &str); 3] =
    [("", "requirements.txt"), ("-webex-108", "webex-108.txt"), ("-webex-new", "webex-new.txt")];

pub(crate) fn python(_: &Run) -> Vec<Outcome> {
    VENVS.iter().flat_map(|(name, requirements)| install(name, requirements)).collect()
}

fn install(name: &str, requirements: &str) -> Vec<Outcome> {
    let requirements = root().join("tests/python").join(requirements);
    let wanted = fs::read_to_string(&requirements).unwrap_or_default();
    let venv = root().join(format!("tests/.venv{name}"));
    // What was installed last, so that a second run costs nothing.
    let stamp = venv.join("installed.txt");
    let step = format!("python{name}");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return vec![step::call(&step, || Ok("the venv is up to date".to_owned()))];
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(&venv);
    let made = plain(&format!("{step} venv"), make);
    if made.failed > 0 {
        return vec![made];
    }
    let mut install = Command::new(venv.join("bin/pip"));
    install.args(["install", "--disable-pip-version-check", "--quiet", "-r"]).arg(requirements);
    let installed = plain(&format!("{step} packages"), install);
    if installed.failed == 0 {
        // Without the stamp the next run installs once more.
        let _ = fs::write(stamp, wanted);
    }
    vec![made, installed]
}

fn rust(_: &Run) -> Vec<Outcome> {
    if tools::has_nextest() {
        let args = ["nextest", "run", "--workspace", "--locked", "--no-fail-fast"];
        return vec![step::run("rust", cargo(&args), Count::Last, PATIENCE)];
    }
    let args = ["test", "--workspace", "--all-targets", "--locked", "--no-fail-fast"];
    vec![step::run("rust", cargo(&args), Count::Sum, PATIENCE)]
}

fn doc(_: &Run) -> Vec<Outcome> {
    let args = ["test", "--workspace", "--doc", "--locked"];
    vec![step::run("doc", cargo(&args), Count::Sum, PATIENCE)]
}

fn differential(_: &Run) -> Vec<Outcome> {
    vec![npm("differential", &[], PATIENCE)]
}

fn protocol(_: &Run) -> Vec<Outcome> {
    vec![npm("protocol", &[], PATIENCE)]
}

fn clients(_: &Run) -> Vec<Outcome> {
    vec![npm("clients", &[], PATIENCE)]
}

fn continuity(_: &Run) -> Vec<Outcome> {
    vec![
        npm("continuity", &[], PATIENCE).noting("loss matrix:"),
        npm("continuity-long", &[], PATIENCE).noting("long:"),
        npm("continuity-slow", &[], PATIENCE).noting("slow:"),
    ]
}

/// The same with many clients, ten restarts and a thousand receivers, in a release build.
fn continuity_long(run: &Run) -> Vec<Outcome> {
    if !run.long {
        return Vec::new();
    }
    let build = plain("release build", cargo(&RELEASE_BUILD));
    if build.failed > 0 {
        return vec![build];
    }
    let long = |script: &str, flags: &str| {
        let mut command = Command::new("npm");
        command.args(["run", "--silent", script, "--"]).args(flags.split(' '));
        let mut command = with_servers(command);
        command.current_dir(root().join("tests"));
        command.env("BOWLINE_BIN", target().join("release").join("bowline"));
        step::run(script, command, Count::Last, LONG_PATIENCE)
    };
    let size = "--clients 200 --python 50 --restarts 10 --seconds 180";
    vec![
        build,
        long("continuity-long", size).noting("long:"),
        long("continuity-slow", "--clients 1000 --rounds 7 --seconds 8").noting("slow:"),
    ]
}

fn shards(_: &Run) -> Vec<Outcome> {
    vec![npm("shards", &[], PATIENCE)]
}

fn starts(_: &Run) -> Vec<Outcome> {
    vec![npm("starts", &[], PATIENCE).noting("first answer")]
}

fn api(_: &Run) -> Vec<Outcome> {
    vec![npm("api", &[], PATIENCE).noting("schemathesis:")]
}

fn debian(_: &Run) -> Vec<Outcome> {
    vec![step::call("debian", tools::install_debian)]
}

fn operations(_: &Run) -> Vec<Outcome> {
    vec![npm("operations", &[], PATIENCE)]
}

fn links(_: &Run) -> Vec<Outcome> {
    vec![npm("links", &[], PATIENCE).noting("kills:").noting("webex bots:")]
}

/// In a release build; attempts over time are drawn to `target/xtask/links-attempts.svg`.
fn links_long(run: &Run) -> Vec<Outcome> {
    if !run.long {
        return Vec::new();
    }
    let build = plain("release build", cargo(&RELEASE_BUILD));
    if build.failed > 0 {
        return vec![build];
    }
    let mut command = released("links");
    let plot = target().join("xtask/links-attempts.svg");
    command.env("LINKS_LONG", "1").env("LINKS_PLOT", plot);
    let long = step::run("links-long", command, Count::Last, LONG_PATIENCE);
    vec![build, long.noting("kills:").noting("webex bots:")]
}

fn ai(_: &Run) -> Vec<Outcome> {
    vec![npm("ai", &[], PATIENCE).noting("incident:")]
}

/// Every fault there is, 100,000 times in a release build; drawn to `target/xtask/ai-faults.svg`.
fn ai_faults(run: &Run) -> Vec<Outcome> {
    if !run.long {
        return Vec::new();
    }
    let mut outcomes = ai_release();
    if outcomes.iter().any(|outcome| outcome.failed > 0) {
        return outcomes;
    }
    let folder = target().join("xtask");
    let samples = folder.join("ai-faults.json");
    let mut soak = released("ai-faults");
    soak.env("AI_FAULTS", "100000").env("SAMPLES", &samples);
    outcomes.push(step::run("ai-faults", soak, Count::Last, LONG_PATIENCE).noting("ai-faults:"));
    let packages = bench::packages();
    if packages.failed == 0 {
        let mut picture = Command::new("node");
        picture.arg("ai-soak.mjs").arg(samples).arg(folder.join("ai-faults.svg"));
        picture.current_dir(root().join("bench"));
        outcomes.push(plain("ai-faults picture", picture).noting("is drawn"));
    }
    outcomes.push(packages);
    outcomes
}

fn ai_lateness(run: &Run) -> Vec<Outcome> {
    if !run.long {
        return Vec::new();
    }
    let mut outcomes = ai_release();
    if outcomes.iter().all(|outcome| outcome.failed == 0) {
        let command = released("ai-lateness");
        let lateness = step::run("ai-lateness", command, Count::Last, LONG_PATIENCE);
        outcomes.push(lateness.noting("ai-lateness:"));
    }
    outcomes
}

/// The incident through Bowline and through LiteLLM.
fn ai_incident(run: &Run) -> Vec<Outcome> {
    if !run.long {
        return Vec::new();
    }
    let mut outcomes = ai_release();
    outcomes.push(bench::ai_gateway("litellm"));
    if outcomes.iter().all(|outcome| outcome.failed == 0) {
        let mut command = released("ai-incident");
        command.env("LITELLM_BIN", target().join("bench/ai/litellm/bin/litellm"));
        let incident = step::run("ai-incident", command, Count::Step, LONG_PATIENCE);
        outcomes.push(incident.noting("ai-incident:"));
    }
    outcomes
}

/// Builds the gateway and the mock provider as they are measured.
fn ai_release() -> Vec<Outcome> {
    let mock = ["build", "--release", "--locked", "-p", "bowline-ai", "--example", "mock_provider"];
    vec![plain("release build", cargo(&RELEASE_BUILD)), plain("release mock", cargo(&mock))]
}

/// A script of `tests/` with the gateway and the mock provider of a release build.
fn released(script: &str) -> Command {
    let mut command = Command::new("npm");
    command.args(["run", "--silent", script]).current_dir(root().join("tests"));
    let mut command = with_servers(command);
    let release = target().join("release");
    command.env("BOWLINE_BIN", release.join("bowline"));
    command.env("MOCK_PROVIDER_BIN", release.join("examples/mock_provider"));
    command
}

fn bench(_: &Run) -> Vec<Outcome> {
    let packages = bench::packages();
    if packages.failed > 0 {
        return vec![packages];
    }
    let mut command = Command::new("npm");
    command.args(["test", "--silent"]).current_dir(root().join("bench"));
    vec![packages, step::run("bench", command, Count::Last, PATIENCE)]
}

fn rude(_: &Run) -> Vec<Outcome> {
    vec![npm("rude", &[], PATIENCE)]
}

fn restarts(run: &Run) -> Vec<Outcome> {
    let count = if run.long { "50" } else { "5" };
    vec![npm("restarts", &[("RESTARTS", count)], PATIENCE).noting("killed with -9")]
}

/// An app behind HTTP that is killed again and again: a million events in a release build, or few.
fn backend(run: &Run) -> Vec<Outcome> {
    if !run.long {
        return vec![npm("backend", &[], PATIENCE).noting("backend:")];
    }
    let build = plain("release build", cargo(&RELEASE_BUILD));
    if build.failed > 0 {
        return vec![build];
    }
    let mut command = Command::new("npm");
    command.args(["run", "--silent", "backend"]).current_dir(root().join("tests"));
    let mut command = with_servers(command);
    command.env("BOWLINE_BIN", target().join("release").join("bowline"));
    command.envs([("BACKEND_EVENTS", "1000000"), ("BACKEND_RESTARTS", "10")]);
    let soak = step::run("backend", command, Count::Last, LONG_PATIENCE).noting("backend:");
    vec![build, soak]
}

fn soak(run: &Run) -> Vec<Outcome> {
    if run.long {
        let size = [("SOAK_RUNS", "200"), ("SOAK_EVENTS", "10000")];
        return vec![npm("soak", &size, LONG_PATIENCE)];
    }
    vec![npm("soak", &[], PATIENCE)]
}

/// Memory for each of 10,000 sessions that do nothing, in a release build.
fn idle(run: &Run) -> Vec<Outcome> {
    if !run.long {
        return Vec::new();
    }
    let build = plain("release build", cargo(&RELEASE_BUILD));
    if build.failed > 0 {
        return vec![build];
    }
    let mut bench = Command::new(target().join("release/bowline"));
    bench.args(["bench", "idle"]);
    vec![build, plain("idle", bench).noting("memory for each session")]
}

fn newcomer(run: &Run) -> Vec<Outcome> {
    if !run.long {
        return Vec::new();
    }
    vec![npm("newcomer", &[], LONG_PATIENCE).noting("a message in the browser")]
}

fn pytest(_: &Run) -> Vec<Outcome> {
    let mut command = Command::new(venv().join("bin/python"));
    command.args(["-m", "pytest", "-q"]).current_dir(root().join("tests/python"));
    vec![step::run("pytest", with_servers(command), Count::Last, PATIENCE)]
}

/// Seeded worlds of sessions that outlive their transports, of services, and of links; a failing seed of the first and
/// the last is made shorter there.
fn sim(run: &Run) -> Vec<Outcome> {
    let worlds = |kind: &str, seeds: &str| {
        let mut command = Command::new(built("world"));
        command.args([kind, "--seeds", seeds]).current_dir(root());
        command
    };
    let (seeds, patience) =
        if run.long { (SIM_SEEDS_LONG, LONG_PATIENCE) } else { (SIM_SEEDS, PATIENCE) };
    let more = |kind: &str| {
        let outcome = step::run(&format!("sim-{kind}"), worlds(kind, seeds), Count::Step, patience);
        outcome.noting("a second:")
    };
    let continuity = plain("sim", worlds("continuity", SIM_SEEDS)).noting("a second:");
    vec![continuity, more("fleet"), more("links")]
}

/// Every target, two at a time: one for each core that CI has.
fn fuzz(_: &Run) -> Vec<Outcome> {
    let fuzz = built("fuzz");
    // It names its targets when it is asked for one that there is not.
    let asked = Command::new(&fuzz).args(["--target", "?"]).output();
    let said = asked.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
    let said = said.unwrap_or_default();
    let names: Vec<&str> = (said.lines())
        .find_map(|line| line.strip_prefix("targets: "))
        .map(|names| names.split_whitespace().collect())
        .unwrap_or_default();
    if names.is_empty() {
        let problem = format!("{} does not name its targets: {said}", fuzz.display());
        return vec![step::call("fuzz", || Err(problem))];
    }
    let one = |name: &str| {
        let mut command = Command::new(&fuzz);
        command.args(["--target", name, "--seconds", &FUZZ_SECONDS.to_string()]);
        command.current_dir(root());
        plain(&format!("fuzz {name}"), command).noting("executions")
    };
    let mut outcomes = Vec::new();
    for pair in names.chunks(2) {
        thread::scope(|scope| {
            let threads: Vec<_> = pair.iter().map(|name| scope.spawn(move || one(name))).collect();
            outcomes.extend(threads.into_iter().filter_map(|thread| thread.join().ok()));
        });
    }
    outcomes
}

fn run_tidy(_: &Run) -> Vec<Outcome> {
    vec![step::call("tidy", tidy::check)]
}

pub(crate) fn plain(name: &str, command: Command) -> Outcome {
    step::run(name, command, Count::Step, PATIENCE)
}

fn npm(script: &str, variables: &[(&str, &str)], patience: Duration) -> Outcome {
    let mut command = Command::new("npm");
    command.args(["run", "--silent", script]).current_dir(root().join("tests"));
    command.envs(variables.iter().copied());
    step::run(script, with_servers(command), Count::Last, patience)
}

/// Tells the end-to-end tests which servers to start.
fn with_servers(mut command: Command) -> Command {
    command.env("BOWLINE_BIN", built("bowline"));
    command.env("ENGINE_ECHO_BIN", built("examples/engine_echo"));
    command.env("SOCKET_SUITE_BIN", built("examples/socket_suite"));
    command.env("SLOW_START_BIN", built("examples/slow_start"));
    command.env("MOCK_PROVIDER_BIN", built("examples/mock_provider"));
    command.env("PYTHON_BIN", venv().join("bin/python"));
    // A suite that finds no server must not pass by comparing the reference with itself.
    command.env("REQUIRE_BOWLINE", "1");
    // Servers that run side by side cannot share the default address for operators.
    command.env("BOWLINE_ADMIN_LISTEN", "127.0.0.1:0");
    command
}

pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

fn built(name: &str) -> PathBuf {
    target().join("debug").join(name)
}

fn venv() -> PathBuf {
    root().join("tests/.venv")
}
