//! Leaves the names of functions out of release binaries. `strip` of the profile does not do so for this crate: cargo
//! (1.95) gives a package whose `opt-level` is overridden `strip=debuginfo` instead.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    if is("PROFILE", "release") && is("DEBUG", "false") && is("CARGO_CFG_TARGET_OS", "linux") {
        println!("cargo::rustc-link-arg-bins=-Wl,--strip-all");
    }
}
