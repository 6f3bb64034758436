//! The loopback side, for bots that do not know of Bowline.

pub mod rules;
