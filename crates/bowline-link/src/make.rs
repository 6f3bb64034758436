//! Makes both sides of a link from its settings.

use std::sync::Arc;

use bowline_store::Inbox;

use crate::{
    bot::{Mouth, SharedDeliver},
    links::Host,
    local::{self, Door},
    profile,
    run::{Far, Maker},
    settings,
};

/// The real thing.
#[derive(Debug)]
pub(crate) struct Real {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) inbox: Inbox,
    /// Where bots come in.
    pub(crate) door: Arc<Door>,
}

impl Maker for Real {
    fn far(&self, link: &settings::Link) -> Result<Far, String> {
        let made =
            profile::make(link, self.inbox.clone()).map_err(|unusable| unusable.to_string())?;
        Ok(Far {
            profile: made.profile,
            rules: made.rules,
            way: Some(local::Far {
                leg: (*made.leg).clone(),
                trust: made.trust,
                proxy: made.proxy,
            }),
        })
    }

    fn near(
        &self,
        link: &settings::Link,
        far: &Far,
        mouth: Mouth,
    ) -> Result<SharedDeliver, String> {
        match &link.deliver {
            settings::Deliver::Http(_) | settings::Deliver::Namespace(_) => {
                self.host.deliver(link, mouth)
            }
            settings::Deliver::Proxy { .. } => {
                let local = self.door.local()?;
                let (Some(rules), Some(way)) = (&far.rules, &far.way) else {
                    return Err(
                        "bots of this profile cannot come over the proxy: write another `deliver`"
                            .into(),
                    );
                };
                let registered = local.register(link, Arc::clone(rules), way.clone(), mouth);
                registered.map_err(|error| error.to_string())
            }
        }
    }

    fn forget(&self, name: &str) {
        if let Some(local) = self.door.made() {
            local.forget(name);
        }
    }
}
