//! What the shards of a process share.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;

use crate::{
    admin::AdminService,
    admission::Admission,
    builder::{BindError, Builder, Described, Parts, Started},
    clock::Clock,
    components::{ComponentView, Components},
    continuity::Identity,
    ending::Ending,
    hold::Holds,
    mailbox::{Mailbox, Message},
    mount::HttpService,
    probe::Prober,
    refusal::Refusals,
    settings::{Plan, Settings},
    stats::Counters,
    tls::{Certificates, Fresh},
};

/// One process: configuration, counters, and a way to every shard.
pub(crate) struct Process {
    pub(crate) clock: Clock,
    settings: ArcSwap<Settings>,
    /// What shards that start, or are told of a change, work by.
    plan: Mutex<Plan>,
    pub(crate) admin_service: Option<Arc<dyn AdminService>>,
    pub(crate) http_service: Option<Arc<dyn HttpService>>,
    pub(crate) shards: Vec<Port>,
    pub(crate) admission: Admission,
    pub(crate) counters: Counters,
    pub(crate) holds: Holds,
    pub(crate) refusals: Refusals,
    pub(crate) components: Arc<Components>,
    /// Processes beside the server, as the program has said last.
    pub(crate) services: ArcSwap<Vec<ComponentView>>,
    /// The same of the outbound connections that the program keeps.
    pub(crate) links: ArcSwap<Vec<ComponentView>>,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) started: Started,
    pub(crate) prober: Prober,
    /// Where probes connect: the first public address.
    pub(crate) public: SocketAddr,
    /// Whether the packets of any session were ever logged.
    pub(crate) packet_logs: AtomicBool,
    pub(crate) ending: Ending,
    identity: OnceLock<Identity>,
    /// How many broadcasts came from threads.
    broadcasts: Mutex<u64>,
    draining: AtomicBool,
}

/// The outside of one shard.
#[derive(Default)]
pub(crate) struct Port {
    pub(crate) mailbox: Mailbox,
    /// Connections it serves.
    pub(crate) connections: AtomicUsize,
}

impl Process {
    pub(crate) fn new(described: Described, builder: Parts, shards: usize, clock: Clock) -> Self {
        // The certificate was read before anything was bound.
        let Described { settings, hub, continuity, handlers, tls: _ } = described;
        let hub = bowline_proto::hub::Config { shards: shards as u8, ..hub };
        Self {
            clock,
            admission: Admission::new(&settings.limits),
            settings: ArcSwap::from_pointee(settings),
            plan: Mutex::new(Plan::new(hub, continuity, handlers)),
            admin_service: builder.admin_service,
            http_service: builder.http_service,
            shards: (0..shards).map(|_| Port::default()).collect(),
            counters: Counters::default(),
            holds: Holds::default(),
            refusals: Refusals::default(),
            components: builder.components,
            services: ArcSwap::default(),
            links: ArcSwap::default(),
            certificates: builder.certificates,
            started: builder.started,
            prober: Prober::default(),
            public: builder.public,
            packet_logs: AtomicBool::new(false),
            ending: Ending::new(builder.state_file, shards),
            identity: OnceLock::new(),
            broadcasts: Mutex::default(),
            draining: AtomicBool::new(false),
        }
    }

    /// The settings that count now. Not to be held over an await.
    pub(crate) fn settings(&self) -> arc_swap::Guard<Arc<Settings>> {
        self.settings.load()
    }

    /// What a shard works by that starts now.
    pub(crate) fn plan(&self) -> Plan {
        self.lock_plan().clone()
    }

    /// `engine.ping-interval`, for sessions that open now.
    pub(crate) fn ping_interval(&self) -> std::time::Duration {
        self.lock_plan().hub.ping_interval
    }

    /// Replaces what may change while the server runs.
    pub(crate) fn reconfigure(&self, builder: Builder) -> Result<(), BindError> {
        let Described { mut settings, hub, continuity, handlers, tls } = builder.describe()?;
        // Before anything is locked: whoever wants figures does not wait for a disk that hangs.
        let certificate = Fresh::read(tls).map_err(BindError::Tls)?;
        // Held to the end, so that of two changes all shards hear in the same order.
        let mut plan = self.lock_plan();
        let next = plan.changed(hub, continuity, handlers)?;
        self.certificates.put(certificate);
        settings.engine.follow(&self.settings().engine);
        self.admission.reconfigure(&settings.limits);
        self.settings.store(Arc::new(settings));
        *plan = next;
        for port in &self.shards {
            port.mailbox.push(Message::Configure(Box::new(plan.clone())));
        }
        Ok(())
    }

    /// What this process is to clients that come back. Known before the first shard starts.
    pub(crate) fn identity(&self) -> &Identity {
        self.identity.get_or_init(Identity::draw)
    }

    /// Goes on as the process before it.
    pub(crate) fn adopt(&self, identity: Identity) {
        // Only said before anybody has asked.
        let _ = self.identity.set(identity);
    }

    /// The number of the last broadcast that came from a thread. Whoever holds this is the only one
    /// that has shards told of one.
    pub(crate) fn lock_broadcasts(&self) -> MutexGuard<'_, u64> {
        self.broadcasts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
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
