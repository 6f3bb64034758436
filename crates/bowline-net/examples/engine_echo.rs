//! A bare Engine.IO server that sends every message back.

#![expect(clippy::print_stderr, reason = "an example says where it listens")]

mod flags;

use bowline_net::Echo;
use clap::Parser;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    flags::serve(flags::Flags::parse().builder().engine_io(Echo))
}
