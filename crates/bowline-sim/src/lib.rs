//! Proof without a network: byte drivers for every decoder, and a seeded world for the hub.
//!
//! - [`fuzz`]: one target per decoder. A target takes bytes and panics if an invariant breaks. The same
//!   functions run under the driver in `src/bin/fuzz.rs` on stable Rust, which is what CI uses, and
//!   under cargo-fuzz in the folder `fuzz/` of the repository, by hand. Inputs that once failed are
//!   in `regressions/` and are replayed by a test.
//! - [`world`]: clients, a network and handlers around one hub, all from a seed, and a model that says what
//!   must come of it.
//! - [`continuity`]: the same for sessions that outlive their transports, over the hubs of several shards.
//! - [`fleet`]: processes good and bad under the plan of services, and a master that dies.
//! - [`links`]: connections of bots to a service that forgets, over a network that drops, and a bot that never tries twice.
//! - [`caught`]: a broken promise is a panic, and its words are wanted.
//! - [`meter`]: how much memory a piece of code asks for at most.
//! - [`rng`]: every random choice comes from a seed that is printed.

pub mod caught;
pub mod clock;
pub mod continuity;
pub mod fleet;
pub mod fuzz;
pub mod links;
pub mod meter;
pub mod rng;
pub mod world;
