//! Real processes: what is made of them, who belongs to whom, and that all of them end. Linux only.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and print")]
#![expect(clippy::disallowed_methods, reason = "figures of tests are real time")]

mod blind;
mod crew;
mod logs;
mod spawn;
mod supervisor;
