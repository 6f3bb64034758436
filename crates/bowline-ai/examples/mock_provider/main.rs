//! A provider for tests and measurements: it speaks both dialects, and fails as it is asked to.
//!
//! ```text
//! cargo run --release -p bowline-ai --example mock_provider -- --listen 127.0.0.1:9100
//! curl -s 127.0.0.1:9100/v1/chat/completions -d '{"model":"mock:429-after-2","messages":[]}'
//! curl -s 127.0.0.1:9100/stats
//! ```
//!
//! `server::Mode` lists what it can do.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that is run by hand")]

#[expect(dead_code, reason = "tests look at more of it")]
mod server;

use std::process::ExitCode;

use server::{Mock, Mode};

const HELP: &str = "\
mock_provider [--listen ADDRESS] [--mode MODE] [--threads N]

  --listen   where it listens; default 127.0.0.1:0, the port is printed
  --mode     what it does where nothing else is asked for; default ok
  --threads  default 1

A mode is asked for by the header `x-mock: MODE`, by the path `/mock:MODE/v1/…`, or by the model `mock:MODE`.
What stands behind a `#` in it only tells its counts apart: `500-once#a`. POST /reset forgets all counts.";

fn main() -> ExitCode {
    let (mut listen, mut mode, mut threads) = ("127.0.0.1:0".to_owned(), Mode::default(), 1);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next();
        let understood = match (arg.as_str(), value) {
            ("--listen", Some(value)) => {
                listen = value;
                true
            }
            ("--mode", Some(value)) => Mode::parse(&value).map(|it| mode = it).is_some(),
            ("--threads", Some(value)) => value.parse().map(|it| threads = it).is_ok(),
            _ => false,
        };
        if !understood {
            eprintln!("{HELP}");
            return ExitCode::from(2);
        }
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = match builder.worker_threads(threads).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        match Mock::start(&listen, mode).await {
            Ok(mock) => {
                println!("listening on {}", mock.url());
                mock.serve_for_ever().await;
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("{listen}: {error}");
                ExitCode::FAILURE
            }
        }
    })
}
