//! `bowline bench ai`: the command line of the load tool for models.

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use bowline_load::{
    Error,
    ai::{
        self, Api, Key, Wishes,
        soak::{self, Admin},
    },
};
use bowline_names::Exit;
use clap::Args;
use tokio::{runtime, sync::oneshot};

use super::{UNKNOWN, failure};
use crate::{
    clock,
    daemon::print,
    failure::Failure,
    signals::{Asked, Signals},
};

pub(super) const HELP: &str = "\
Sends the same chat request again and again, to a Bowline or to any other server that speaks
OpenAI's API, and prints how long requests took, and how long each provider did that was asked: what
Bowline tells of attempts in the header `bowline-attempts` (in whole milliseconds). Requests that
another provider answered than the first one stand apart, and so do those that failed. Each client
has one connection, which it keeps. With --fixed-rate a delay counts from when a request was due.

With --soak the load is modest (10 requests a second, 10 clients at most) and goes on for as long as
it says. Memory, sockets and descriptors of the server and with --admin its permits are written to
DIR/samples.jsonl as they are seen, and drawn and judged at the end, or when Ctrl-C ends it (twice:
at once): DIR/soak.svg, DIR/soak.json. --draw does that for the samples of a run that was cut off.

CPU time and memory are those of the processes that --pid names, else of those that listen there.

Providers are paid for what is asked of them: --requests and --max-tokens bound that.

Examples:
  bowline bench ai --model chat
  bowline bench ai --url http://127.0.0.1:9000/v1 --model m --stream --concurrency 1,50 --key-file K
  bowline bench ai --model chat --fixed-rate 20 --requests 2000 --concurrency 200 --json
  bowline bench ai --model chat --soak 24h --admin http://127.0.0.1:8001
  bowline bench ai --draw bowline-soak-20260131-120000

Exit codes: 0 measured, 2 wrong usage, 1 anything else";

/// What to ask, and of whom.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where the server has its API
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000/v1")]
    url: Api,

    /// The model to ask for
    #[arg(long, value_name = "NAME", required_unless_present = "draw")]
    model: Option<String>,

    /// Requests of each concurrency [default: 100]
    #[arg(long, value_name = "N", conflicts_with = "soak")]
    requests: Option<u64>,

    /// Requests at once, one measurement each [default: 2,5,10; with --soak: 10]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    concurrency: Vec<usize>,

    /// Ask for streams
    #[arg(long)]
    stream: bool,

    /// File with the key that requests show
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,

    /// What the user says [default: hello]
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,

    /// A text of that length instead
    #[arg(long, value_name = "N", conflicts_with = "prompt")]
    prompt_bytes: Option<usize>,

    /// Bound of an answer [default: as the server has it]
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,

    /// Requests that go ahead of each measurement and do not count
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "soak")]
    warm_up: u64,

    /// Requests a second, whatever comes back [default: as fast as they come back; with --soak: 10]
    #[arg(long, value_name = "R")]
    fixed_rate: Option<f64>,

    /// How long an answer may take before the client leaves
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// Processes of the server [default: those that listen there, if it is on this machine]
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pid: Vec<u32>,

    /// Ask modestly for so long, such as 24h
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    soak: Option<Duration>,

    /// --soak: from one sample to the next
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    every: Duration,

    /// --soak: folder for what is seen [default: bowline-soak-DATE-TIME, in UTC]
    #[arg(long, value_name = "DIR", requires = "soak")]
    out: Option<PathBuf>,

    /// --soak: the admin listener, which tells of permits, such as http://127.0.0.1:8001
    #[arg(long, value_name = "URL", requires = "soak")]
    admin: Option<Admin>,

    /// --soak: file with the token that the admin listener wants
    #[arg(long, value_name = "FILE", requires = "admin")]
    admin_token_file: Option<PathBuf>,

    /// Only draw and judge the samples in the folder of a soak
    #[arg(long, value_name = "DIR", conflicts_with = "soak")]
    draw: Option<PathBuf>,

    /// As JSON, one line for each concurrency
    #[arg(long)]
    json: bool,
}

/// The prompt where none is given.
const PROMPT: &str = "hello";

/// What a prompt of a given length is made of: a word is a token or two, as in texts.
const WORDS: &str = "the quick brown fox jumps over the lazy dog ";

/// The longest prompt: as much as `ai.max-request` takes at most.
const PROMPT_BYTES_MAX: usize = 64 << 20;

/// A modest load for a soak.
const SOAK_RATE: f64 = 10.0;
const SOAK_CONCURRENCY: usize = 10;

/// Measures and prints.
///
/// # Errors
/// When something cannot be measured. It is said why.
pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    if let Some(folder) = &arguments.draw {
        let verdict = soak::draw(folder).map_err(failure)?;
        print(&if arguments.json { verdict.json() + "\n" } else { verdict.text() });
        return Ok(Exit::Ok);
    }
    let wishes = arguments.wishes().map_err(failure)?;
    match arguments.soak {
        Some(lasts) => arguments.soak(&wishes, lasts),
        None => arguments.measure(&wishes),
    }
    .map_err(failure)?;
    Ok(Exit::Ok)
}

impl Arguments {
    fn measure(&self, wishes: &Wishes) -> Result<(), Error> {
        let concurrencies = match &*self.concurrency {
            [] => &[2, 5, 10],
            asked => asked,
        };
        for concurrency in concurrencies {
            wishes.check(*concurrency)?;
        }
        for (index, concurrency) in concurrencies.iter().enumerate() {
            let watched = io::stderr().is_terminal();
            let report = ai::measure(&self.url, wishes, *concurrency, watched)?;
            if report.server.is_none() && index == 0 {
                // Nobody reads it if stderr is closed.
                let _ = io::stderr().write_all(UNKNOWN.as_bytes());
            }
            print(&if self.json { report.json() + "\n" } else { report.table() + "\n" });
        }
        Ok(())
    }

    fn soak(&self, wishes: &Wishes, lasts: Duration) -> Result<(), Error> {
        let concurrency = match *self.concurrency {
            [] => SOAK_CONCURRENCY,
            [one] => one,
            [..] => return Err(Error::Usage("--soak has one --concurrency".into())),
        };
        let wishes = Wishes { rate: wishes.rate.or(Some(SOAK_RATE)), ..wishes.clone() };
        let token = self.admin_token_file.as_deref().map(key_in).transpose()?;
        let named_after_now =
            || clock::timestamp().strftime("bowline-soak-%Y%m%d-%H%M%S").to_string().into();
        let soak = soak::Wishes {
            lasts,
            every: self.every,
            admin: self.admin.clone().map(|admin| admin.with_token(token)),
            out: self.out.clone().unwrap_or_else(named_after_now),
        };
        soak.check()?;
        let interrupts = Interrupts::listen()?;
        let watched = io::stderr().is_terminal();
        let report = soak::run(&self.url, &wishes, concurrency, &soak, watched, &interrupts.count);
        interrupts.end();
        let report = report?;
        let files = format!("  samples and picture: {}\n", soak.out.display());
        print(&if self.json { report.json() + "\n" } else { report.table() + &files });
        Ok(())
    }

    fn wishes(&self) -> Result<Wishes, Error> {
        let prompt = match (&self.prompt, self.prompt_bytes) {
            (_, Some(length)) if length > PROMPT_BYTES_MAX => {
                return Err(Error::Usage(format!(
                    "--prompt-bytes may be {PROMPT_BYTES_MAX} at most"
                )));
            }
            (_, Some(length)) => WORDS.chars().cycle().take(length).collect(),
            (prompt, None) => prompt.clone().unwrap_or_else(|| PROMPT.to_owned()),
        };
        Ok(Wishes {
            model: self.model.clone().unwrap_or_default(),
            prompt,
            max_tokens: self.max_tokens,
            stream: self.stream,
            key: self.key_file.as_deref().map(key_in).transpose()?,
            requests: self.requests.unwrap_or(100),
            warm_up: self.warm_up,
            rate: self.fixed_rate,
            timeout: self.timeout,
            pids: self.pid.clone(),
        })
    }
}

/// The key in a file.
fn key_in(file: &Path) -> Result<Key, Error> {
    let place = file.display();
    let text =
        fs::read_to_string(file).map_err(|error| Error::Usage(format!("{place}: {error}")))?;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    Key::new(line).map_err(|error| Error::Usage(format!("{place}: {error}")))
}

/// Counts how often this program was asked to end, on a thread of its own.
struct Interrupts {
    count: Arc<AtomicU8>,
    /// Dropped when it is no longer listened for.
    enough: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Interrupts {
    fn listen() -> Result<Self, Error> {
        let no_signals = |error| Error::Failed(format!("listening for signals: {error}"));
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().map_err(no_signals)?;
        // Listening begins here, not when the thread comes to run.
        let mut signals = runtime.block_on(async { Signals::listen() }).map_err(no_signals)?;
        let count = Arc::new(AtomicU8::new(0));
        let (enough, mut ended) = oneshot::channel();
        let counted = Arc::clone(&count);
        let listen = async move {
            loop {
                tokio::select! {
                    _ = &mut ended => return,
                    asked = signals.next() => match asked {
                        Asked::Stop(_) => {
                            let times = counted.load(Ordering::Relaxed);
                            counted.store(times.saturating_add(1), Ordering::Relaxed);
                        }
                        Asked::Reload => {}
                    },
                }
            }
        };
        let thread = thread::Builder::new()
            .name("signals".into())
            .spawn(move || runtime.block_on(listen))
            .map_err(no_signals)?;
        Ok(Self { count, enough, thread })
    }

    fn end(self) {
        drop(self.enough);
        // It has nothing to say.
        let _ = self.thread.join();
    }
}
