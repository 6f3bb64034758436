//! See `bowline_sim::fuzz::Target::Webex`.
#![no_main]

use bowline_sim::fuzz::Target;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| Target::Webex.run(data));
