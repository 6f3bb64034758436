//! Services as this program has them: what the configuration says of them ([`settings`]), the crew that the
//! master keeps them with ([`post`]), what is told of them ([`status`]), how they are asked about over the API
//! ([`desk`]), and what a gateway knows of them ([`board`]). What is decided about them is in `bowline-fleet`.
//!
//! ```text
//! master:  config ─ settings ─▶ Crew ─ views ─▶ status ─┬─▶ control socket: desk
//!                                                       └─ cord, on change ─▶ gateway: board
//! gateway: admin listener ─ relay ─▶ control socket of the master: desk
//! ```

pub(crate) mod board;
pub(crate) mod desk;
pub(crate) mod post;
pub(crate) mod proof;
pub(crate) mod relay;
pub(crate) mod settings;
pub(crate) mod status;
