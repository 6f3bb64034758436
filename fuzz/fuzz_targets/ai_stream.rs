//! See `bowline_sim::fuzz::Target::AiStream`.
#![no_main]

use bowline_sim::fuzz::Target;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| Target::AiStream.run(data));
