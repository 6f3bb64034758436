//! Whom outgoing TLS trusts: what the system trusts.

use std::{io, sync::Arc};

use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

/// Settings for TLS with the certificates that the system trusts. Reads files.
///
/// # Errors
/// Those of the library; a store that cannot be read trusts nobody.
pub(crate) fn system() -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
