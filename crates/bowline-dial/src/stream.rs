//! A connection for whoever speaks on it by himself: a tunnel, a protocol that is not known here.

use std::time::Duration;

pub use crate::tls::Stream;
use crate::{ConnectError, Options, Proxy, Trust, target::Target};

/// Where a connection goes.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// The name or address of the server. It is looked up each time.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether TLS is spoken, for the name in `host`, with HTTP/1.1 as what is offered to go on with.
    pub tls: bool,
    /// The proxy on the way to it.
    pub proxy: Option<Proxy>,
    /// Which servers are believed.
    pub trust: Trust,
    /// How long it may take to be there, the handshake of TLS included.
    pub connect_timeout: Duration,
}

/// Opens a connection. It is tried once.
///
/// # Errors
///
/// There is none. The words say how far it went; [`ConnectError::Closed`] has them.
pub async fn open(options: StreamOptions) -> Result<Stream, String> {
    let StreamOptions { host, port, tls, proxy, trust, connect_timeout } = options;
    let options = Options { proxy, trust, connect_timeout, ..Options::default() };
    let target = Target::new(&host, port, tls, &options);
    let target = target.map_err(|error: ConnectError| error.to_string())?;
    target.connect().await
}
