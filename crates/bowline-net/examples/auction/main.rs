//! An auction: tickets that end, a room for each lot, bids with acks, photographs, and a hammer that
//! falls from outside. `app.rs` has all that matters; `tests/embedding.rs` plays it through.
//!
//! ```text
//! cargo run -p bowline-net --example auction
//! > const socket = io("http://127.0.0.1:3000", { auth: { ticket: "red" } })
//! > socket.on("sold", (lot, bidder, ack) => ack())
//! > socket.emit("watch", "vase", console.log); socket.emit("bid", "vase", 5, console.log)
//! ```

#![expect(clippy::print_stderr, reason = "an example says what happens")]

mod app;

use std::{thread, time::Duration};

use bowline_net::{Busy, Handle, Server};

/// How long each lot is on sale.
const SALE: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let auction = app::Auction::default();
    for ticket in ["red", "green", "blue"] {
        auction.admit(ticket, ticket, Duration::from_secs(3600));
    }
    let builder = Server::builder().listen("127.0.0.1:3000".parse()?);
    let server = builder.namespace("/", auction.clone()).bind()?;
    let handle = server.handle();
    // Everything that is not a socket's runs elsewhere, here on a runtime of its own.
    let outside = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    thread::spawn(move || outside.block_on(sell(&auction, &handle)));
    server.run_blocking(async {
        // Without signals there is nothing to wait for but the end.
        let _ = tokio::signal::ctrl_c().await;
    })?;
    Ok(())
}

/// Sells one thing after the other, until the server has stopped.
async fn sell(auction: &app::Auction, handle: &Handle) -> Result<(), Busy> {
    for lot in ["vase", "clock", "map"].iter().cycle() {
        auction.open(handle, lot).await?;
        tokio::time::sleep(SALE).await;
        let heard = auction.close(handle, lot).await?;
        eprintln!("{lot} is sold; {heard} have heard it");
    }
    Ok(())
}
