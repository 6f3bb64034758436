//! The flags that the examples share, and how they stop.

use std::{net::SocketAddr, time::Duration};

use bowline_net::{Builder, Server};
use clap::Parser;

/// Flags of a server that is tried from outside.
#[derive(Debug, Parser)]
pub(crate) struct Flags {
    /// Where to listen; port 0 is any free one.
    #[arg(long, default_value = "127.0.0.1:3000")]
    pub(crate) listen: SocketAddr,
    /// The path of Engine.IO.
    #[arg(long)]
    pub(crate) path: Option<String>,
    #[arg(long, value_parser = humantime::parse_duration)]
    pub(crate) ping_interval: Option<Duration>,
    #[arg(long, value_parser = humantime::parse_duration)]
    pub(crate) ping_timeout: Option<Duration>,
    /// Bytes, or a size such as 1MB or 64KiB.
    #[arg(long, value_parser = parse_size)]
    pub(crate) max_payload: Option<usize>,
    #[arg(long, value_parser = humantime::parse_duration)]
    pub(crate) connect_timeout: Option<Duration>,
    /// Threads that serve.
    #[arg(long)]
    pub(crate) shards: Option<usize>,
}

impl Flags {
    /// A server as the flags describe it, without handlers.
    pub(crate) fn builder(self) -> Builder {
        let mut builder = Server::builder().listen(self.listen);
        if let Some(path) = self.path {
            builder = builder.path(path);
        }
        if let Some(interval) = self.ping_interval {
            builder = builder.ping_interval(interval);
        }
        if let Some(timeout) = self.ping_timeout {
            builder = builder.ping_timeout(timeout);
        }
        if let Some(bytes) = self.max_payload {
            builder = builder.max_payload(bytes);
        }
        if let Some(timeout) = self.connect_timeout {
            builder = builder.connect_timeout(timeout);
        }
        if let Some(shards) = self.shards {
            builder = builder.shards(shards);
        }
        builder
    }
}

/// Binds, says where, and serves until SIGINT or SIGTERM.
pub(crate) fn serve(builder: Builder) -> Result<(), Box<dyn std::error::Error>> {
    let server = builder.bind()?;
    for address in server.local_addrs() {
        eprintln!("listening on {address}");
    }
    server.run_blocking(stop_signal())?;
    Ok(())
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    std::future::poll_fn(|cx| {
        if interrupt.poll_recv(cx).is_ready() || terminate.poll_recv(cx).is_ready() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

fn parse_size(text: &str) -> Result<usize, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit: usize = match text[digits..].trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        other => return Err(format!("unknown unit `{other}`: use B, KB, MB, KiB or MiB")),
    };
    let number: usize = text[..digits].parse().map_err(|_| "a size begins with digits")?;
    number.checked_mul(unit).ok_or_else(|| "the size is too large".to_owned())
}
