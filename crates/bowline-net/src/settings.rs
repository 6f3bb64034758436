//! What may change while the server runs: one value, replaced as a whole.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bowline_proto::hub::{self, NamespacePattern, NamespaceRule};
use bytes::Bytes;

use crate::{
    builder::{BindError, Engine},
    continuity::{Continuity, Identity},
    forwarded::Proxies,
    handler::{EngineHandler, Handler},
    limit::Limits,
};

/// What all shards and connections read, the newest version of it.
pub(crate) struct Settings {
    pub(crate) engine: Engine,
    pub(crate) limits: Limits,
    /// `server.drain`.
    pub(crate) drain: Duration,
    /// What stands at `/` of the public listeners.
    pub(crate) page: Option<Bytes>,
    /// `health.public-url`.
    pub(crate) public_url: Option<String>,
    pub(crate) proxies: Proxies,
}

/// What each shard keeps for itself: its hub's configuration, and the handlers it names.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) hub: hub::Config,
    pub(crate) continuity: Continuity,
    pub(crate) handlers: Arc<Handlers>,
    /// The pattern each handler was given for, by its index. It keeps that index for as long as
    /// the process lives: a namespace may outlast its rule.
    pub(crate) patterns: Vec<NamespacePattern>,
}

/// The handlers, by [`HandlerId`](bowline_proto::wall::HandlerId).
pub(crate) struct Handlers {
    pub(crate) namespaces: Vec<Arc<dyn Handler>>,
    pub(crate) engine: Option<Arc<dyn EngineHandler>>,
}

impl Plan {
    pub(crate) fn new(hub: hub::Config, continuity: Continuity, handlers: Handlers) -> Self {
        let patterns = hub.namespaces.iter().map(|rule| rule.pattern.clone()).collect();
        Self { hub, continuity, handlers: Arc::new(handlers), patterns }
    }

    /// The plan after a change. What a running process cannot change stays as it was.
    ///
    /// # Errors
    ///
    /// [`BindError::Invalid`] if more namespaces were named since the start than can be told apart.
    pub(crate) fn changed(
        &self,
        mut hub: hub::Config,
        continuity: Continuity,
        new: Handlers,
    ) -> Result<Self, BindError> {
        hub.protocol = self.hub.protocol;
        hub.shards = self.hub.shards;
        let mut namespaces = self.handlers.namespaces.clone();
        let mut patterns = self.patterns.clone();
        let mut rules = Vec::new();
        let mut seen = HashSet::new();
        for (rule, handler) in std::mem::take(&mut hub.namespaces).into_iter().zip(new.namespaces) {
            // Of two rules for the same names the first counts, and only that may have the place.
            if !seen.insert(rule.pattern.clone()) {
                continue;
            }
            let index = match patterns.iter().position(|pattern| *pattern == rule.pattern) {
                Some(index) => {
                    namespaces[index] = handler;
                    index
                }
                None => {
                    patterns.push(rule.pattern.clone());
                    namespaces.push(handler);
                    namespaces.len() - 1
                }
            };
            let Ok(handler) = u16::try_from(index) else {
                return Err(BindError::Invalid(
                    "more than 65,535 namespaces were named since the start",
                ));
            };
            rules.push(NamespaceRule { handler, ..rule });
        }
        hub.namespaces = rules;
        let engine = new.engine.or_else(|| self.handlers.engine.clone());
        let handlers = Arc::new(Handlers { namespaces, engine });
        Ok(Self { hub, continuity, handlers, patterns })
    }

    /// The configuration of one shard's hub.
    pub(crate) fn hub_of(&self, shard: u8, identity: &Identity) -> hub::Config {
        let continuity = self.continuity.of_shard(shard, self.hub.shards, identity);
        hub::Config { continuity, ..self.hub.clone() }
    }
}
