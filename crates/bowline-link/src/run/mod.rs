//! One task a link: carries out what the keeper decides.
//!
//! ```text
//!   far::Event ──▶ shell ── keeper.handle_input ──▶ carry out: open, ping, probe, close, catch up
//!                    │ Message
//!                    ▼
//!   Merge (two connections, one stream) ──▶ CatchUp (keeps back) ──▶ arrivals (stores) ──▶ acknowledge
//!                                                                        │
//!                                                    Queue (rooms) ◀─────┘
//!                                                        │ one a room
//!                                                        ▼
//!                                                    offers ──▶ bot::Deliver ──▶ Outbound ──▶ the service
//! ```
//!
//! `queue`, `outbound`, `catch_up` and `told` are pure.

mod arrivals;
mod board;
mod catch_up;
mod connections;
pub(crate) mod limit;
mod offers;
mod outbound;
mod queue;
mod report;
mod shell;
mod told;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use bowline_proto::keeper::{Budget, State};
use bowline_store::Store;
use tokio::{
    sync::{OwnedMutexGuard, mpsc, watch},
    time::sleep,
};

pub(crate) use board::{Board, Boards, Order};
use shell::Shell;

use crate::{
    bot::{Mouth, Said, SharedDeliver},
    clock::{self, Clock},
    far::SharedProfile,
    lease::{Holder, Lease, LeaseKey, NotTaken},
    links::Host,
    local::{self, rules::Rules},
    settings,
};

/// What all links of a process share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) clock: Clock,
    pub(crate) store: Store,
    pub(crate) budget: Mutex<Budget>,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) maker: Arc<dyn Maker>,
    /// Where leases are.
    pub(crate) leases: PathBuf,
    /// Named in leases, for whoever finds one taken.
    pub(crate) directory: PathBuf,
    pub(crate) waiting_max: u64,
    /// How often it is looked after what nobody calls about: a store that works again, an app that was missing.
    pub(crate) look_every: Duration,
}

/// Makes the two sides of a link.
pub(crate) trait Maker: Send + Sync + std::fmt::Debug {
    /// Makes the side of the service.
    fn far(&self, link: &settings::Link) -> Result<Far, String>;

    /// Makes the side of the bot.
    fn near(&self, link: &settings::Link, far: &Far, mouth: Mouth)
    -> Result<SharedDeliver, String>;

    /// The link is gone, and does not come back as it was.
    fn forget(&self, name: &str);
}

/// The side of the service.
#[derive(Debug, Clone)]
pub(crate) struct Far {
    pub(crate) profile: SharedProfile,
    /// For bots that come through the loopback proxy.
    pub(crate) rules: Option<Arc<dyn Rules>>,
    /// How their requests get to the service.
    pub(crate) way: Option<local::Far>,
}

/// What the task of one link is given.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) common: Arc<Common>,
    pub(crate) link: Arc<settings::Link>,
    pub(crate) board: Arc<Board>,
    pub(crate) orders: mpsc::Receiver<Order>,
    /// Where its bot speaks. It outlives the task, as the bot's connections do.
    pub(crate) mouth: Mouth,
    pub(crate) said: OwnedMutexGuard<mpsc::Receiver<Said>>,
    /// The link as it is wanted; it is the same at its service.
    pub(crate) changes: watch::Receiver<Arc<settings::Link>>,
    /// How long the goodbye may take, once it is to be said.
    pub(crate) stop: watch::Receiver<Option<Duration>>,
}

/// Keeps a link until it is told to stop.
pub(crate) async fn keep(mut given: Given) {
    let Some(lease) = taken(&mut given).await else { return };
    let Some(far) = made(&mut given).await else { return };
    let board = Arc::clone(&given.board);
    let shell = Shell::new(given, far).await;
    shell.run().await;
    board.set_off("stopped");
    drop(lease);
}

/// A lease, or none where none is needed, or none can be had.
type Leased = Option<Lease>;

/// Waits for the link's lease. `None`: told to stop.
async fn taken(given: &mut Given) -> Option<Leased> {
    let Some(key) = LeaseKey::of(&given.link) else { return Some(None) };
    let owner = Holder::here(&given.link.name, &given.common.directory, clock::unix_ms());
    let mut told = String::new();
    let mut tries = 0_u32;
    loop {
        let words = match Lease::take(&given.common.leases, &key, &owner) {
            Ok(lease) => return Some(Some(lease)),
            Err(NotTaken::Failed(error)) => {
                tracing::warn!(
                    link = given.link.name, %error,
                    "no lease can be taken: another process with this token would not be noticed"
                );
                return Some(None);
            }
            Err(held @ NotTaken::Held(_)) => held.to_string(),
        };
        if told != words {
            tracing::warn!(link = given.link.name, "the link is {words}: it stays off");
            given.board.set_state(State::Off, &format!("{words}; taken over when that ends"));
            told.clone_from(&words);
        }
        tries += 1;
        let pause = if tries <= 10 { limit::LEASE_SOON } else { limit::LEASE };
        if !pauses(given, pause, &words).await {
            return None;
        }
    }
}

/// Makes the side of the service, as soon as that can be done. `None`: told to stop.
async fn made(given: &mut Given) -> Option<Far> {
    let mut told = String::new();
    loop {
        let words = match given.common.maker.far(&given.link) {
            Ok(far) => return Some(far),
            Err(words) => words,
        };
        if told != words {
            tracing::error!(link = given.link.name, error = words, "the link cannot be kept");
            given.board.set_state(State::Off, &words);
            told.clone_from(&words);
        }
        if !pauses(given, limit::LEASE, &words).await {
            return None;
        }
    }
}

/// Waits while the link is off. `false`: told to stop.
async fn pauses(given: &mut Given, pause: Duration, words: &str) -> bool {
    let pause = sleep(pause);
    tokio::pin!(pause);
    loop {
        tokio::select! {
            () = &mut pause => return true,
            _ = given.stop.wait_for(Option::is_some) => return false,
            Some(order) = given.orders.recv() => order.refuse(&format!("the link is off: {words}")),
            Some(said) = given.said.recv() => {
                if let Said::Send { done, .. } = said {
                    // The bot may have gone meanwhile.
                    let _ = done.send(Err(words.into()));
                }
            }
        }
    }
}
