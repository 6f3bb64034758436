//! What the shards of a process share.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;

use crate::{
    admin::AdminService,
    admission::Admission,
    builder::Engine,
    clock::Clock,
    handler::{EngineHandler, Handler},
    limit::Limits,
    mailbox::Mailbox,
    stats::Counters,
};

/// One process: configuration, counters, and a way to every shard.
pub(crate) struct Process {
    pub(crate) clock: Clock,
    pub(crate) engine: Engine,
    pub(crate) limits: Limits,
    /// `server.drain`.
    pub(crate) drain: std::time::Duration,
    /// What stands at `/` of the public listeners.
    pub(crate) page: Option<Bytes>,
    pub(crate) admin_service: Option<Arc<dyn AdminService>>,
    pub(crate) handlers: Handlers,
    pub(crate) shards: Vec<Port>,
    pub(crate) admission: Admission,
    pub(crate) counters: Counters,
    draining: AtomicBool,
}

/// The handlers, by [`HandlerId`](bowline_proto::wall::HandlerId).
pub(crate) struct Handlers {
    pub(crate) namespaces: Vec<Arc<dyn Handler>>,
    pub(crate) engine: Option<Arc<dyn EngineHandler>>,
}

/// The outside of one shard.
#[derive(Default)]
pub(crate) struct Port {
    pub(crate) mailbox: Mailbox,
    /// Connections it serves.
    pub(crate) connections: AtomicUsize,
}

impl Process {
    pub(crate) fn new(
        builder: crate::builder::Parts,
        shards: usize,
        admission: Admission,
        clock: Clock,
    ) -> Self {
        Self {
            clock,
            engine: builder.engine,
            limits: builder.limits,
            drain: builder.drain,
            page: builder.page,
            admin_service: builder.admin_service,
            handlers: builder.handlers,
            shards: (0..shards).map(|_| Port::default()).collect(),
            admission,
            counters: Counters::default(),
            draining: AtomicBool::new(false),
        }
    }

    /// Whether the server has begun to stop.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Says that the server stops. Whether it was the first to say so.
    pub(crate) fn start_drain(&self) -> bool {
        !self.draining.swap(true, Relaxed)
    }

    /// The shard a new connection should go to: `here`, unless that has far more than another.
    pub(crate) fn choose_shard(&self, here: u8) -> u8 {
        if self.shards.len() == 1 {
            return here;
        }
        let load = |port: &Port| port.connections.load(Relaxed);
        let mine = load(&self.shards[usize::from(here)]);
        let least = self.shards.iter().enumerate().min_by_key(|(_, port)| load(port));
        match least {
            // A hand-over wakes another thread, so a small lead is not worth one.
            Some((index, port)) if mine > load(port) + 32 + load(port) / 8 => index as u8,
            _ => here,
        }
    }
}
