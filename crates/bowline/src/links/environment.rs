//! The variables by which a bot finds its link.

use std::{ffi::OsString, net::SocketAddr, path::Path};

use bowline_fleet::spec;
use bowline_link::local;

use super::settings;
use crate::config::{Config, Deliver};

/// The variables of a link whose bots come over the proxy. Makes what of it is missing: secrets and certificates.
/// `listen` is where the proxy listens, if that is known better than the configuration does.
///
/// # Errors
/// There is no such link, it delivers in another way, or the files cannot be made.
pub(crate) fn of(
    config: &Config,
    state: &Path,
    listen: Option<SocketAddr>,
    name: &str,
) -> Result<Vec<(String, String)>, String> {
    let link = config.links.all.0.iter().find(|(known, _)| known == name);
    let (_, link) = link.ok_or_else(|| format!("there is no link \"{name}\" in [links]"))?;
    if link.deliver != Deliver::Proxy {
        return Err(format!(
            "`links.{name}` delivers to {}: only deliver = \"proxy\" has variables",
            link.deliver
        ));
    }
    let mut shared = settings::shared(config, state);
    shared.listen = listen.unwrap_or(shared.listen);
    // The token is for the service alone.
    let link = settings::of(name, link, None);
    local::environment(&shared, &link).map_err(|error| error.to_string())
}

/// Adds them to the environments of services that are bots of links. What a service's table or its caller sets itself
/// counts for more. What cannot be had is told in the log, and the service goes without.
pub(crate) fn add(
    specs: &mut [spec::Service],
    config: &Config,
    state: Option<&Path>,
    listen: Option<SocketAddr>,
) {
    for (name, service) in &config.services.0 {
        let Some(link) = &service.link else { continue };
        let Some(spec) = specs.iter_mut().find(|spec| spec.name == *name) else { continue };
        let state = state.ok_or_else(|| "this server has no state directory of its own".to_owned());
        match state.and_then(|state| of(config, state, listen, link)) {
            Ok(variables) => {
                for (name, value) in variables {
                    spec.environment.entry(OsString::from(name)).or_insert(value.into());
                }
            }
            Err(error) => {
                let words = "a service does not get the variables of its link";
                tracing::error!(service = name, link, error, "{words}");
            }
        }
    }
}
