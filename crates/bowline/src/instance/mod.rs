//! The instance directory: where a server keeps its lock, its record and its control socket, and
//! how the other commands find it.
//!
//! A pid in a file proves nothing: the process may be gone and its number taken by another. So a
//! server holds a lock for as long as it lives, and its [`Record`] names the process by pid, start
//! time and boot. All of them must agree before anybody is called "the server", and before
//! anything is sent a signal.

mod claim;
mod paths;
mod process;
mod record;
mod standing;

pub(crate) use claim::{Claim, ClaimError};
pub(crate) use paths::{Paths, make_dir};
pub(crate) use record::{Record, management};
pub(crate) use standing::{Doubt, Standing, look};
