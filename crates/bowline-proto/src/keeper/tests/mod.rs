//! What a keeper does, over fake time.

mod budget;
mod ends;
mod leg;
mod liveness;
mod merge;
mod random;
mod rig;
