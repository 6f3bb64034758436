//! The AI gateway: one request of a client, tried at one provider after another, every answer charged to the
//! provider that gave it.
//!
//! [`wire`] reads and translates what clients and providers say, and judges faults; it does no I/O and keeps no
//! time. [`route`] decides which provider is asked next, [`permits`] who has to wait, [`keys`] who may ask at all;
//! they take the time as an argument. [`memory`] counts bytes. [`record`] is what is remembered of requests and attempts, [`trace`] what
//! ties them to traces of clients. [`call`] is the
//! only part that waits: it carries out what the others decided, on connections of `bowline-dial`.
//!
//! *Absent on purpose:* configuration, which is the leaf's; listening; printing.

pub mod call;
mod clock;
pub mod keys;
pub mod limit;
pub mod memory;
pub mod permits;
pub mod record;
pub mod route;
pub mod trace;
pub mod wire;
