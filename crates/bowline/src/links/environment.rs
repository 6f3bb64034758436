//! The variables by which a bot finds its link.

use std::{ffi::OsString, io, net::SocketAddr, path::Path};

use bowline_fleet::spec;
use bowline_link::local;
use bowline_names::ErrorCode;

use super::settings;
use crate::{
    config::{Config, Deliver},
    failure::Failure,
};

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
) -> Result<Vec<(String, String)>, Failure> {
    let link = config.links.all.0.iter().find(|(known, _)| known == name);
    let (_, link) = link.ok_or_else(|| {
        let meant = config.links.nearest(name).map(|name| format!("; did you mean \"{name}\"?"));
        let words = format!("there is no link \"{name}\" in [links]{}", meant.unwrap_or_default());
        Failure::new(ErrorCode::LinkUnknown, words)
    })?;
    if link.deliver != Deliver::Proxy {
        let words = format!(
            "`links.{name}` delivers to {}: only deliver = \"proxy\" has variables",
            link.deliver
        );
        return Err(Failure::new(ErrorCode::LinkNoVariables, words));
    }
    let mut shared = settings::shared(config, state);
    shared.listen = listen.unwrap_or(shared.listen);
    // The token is for the service alone.
    let link = settings::of(name, link, None);
    local::environment(&shared, &link).map_err(|error| Failure::new(code_of(error.kind()), error))
}

/// What is wrong when a file cannot be made.
fn code_of(kind: io::ErrorKind) -> ErrorCode {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::DiskFull,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ErrorCode::InstanceDenied
        }
        io::ErrorKind::Other => ErrorCode::LinkNoVariables,
        _ => ErrorCode::InstanceFailed,
    }
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
        let variables = state
            .and_then(|state| of(config, state, listen, link).map_err(|failure| failure.message));
        match variables {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_does_not_give_is_not_blamed_on_the_link() {
        for (kind, code) in [
            (io::ErrorKind::StorageFull, ErrorCode::DiskFull),
            (io::ErrorKind::PermissionDenied, ErrorCode::InstanceDenied),
            (io::ErrorKind::NotADirectory, ErrorCode::InstanceFailed),
            (io::ErrorKind::Other, ErrorCode::LinkNoVariables),
        ] {
            assert_eq!(code_of(kind), code, "{kind}");
        }
    }
}
