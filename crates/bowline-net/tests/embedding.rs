//! The example `auction` played through: what the guide to embedding shows, for real.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like the tests")]

#[path = "../examples/auction/app.rs"]
mod app;
mod client;

use std::{thread, time::Duration};

use app::Auction;
use bowline_net::Server;
use bowline_proto::websocket::OpCode;
use client::{Client, run};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn an_auction_is_played_through() {
    let auction = Auction::default();
    for name in ["red", "green"] {
        auction.admit(&format!("{name}-ticket"), name, HOUR);
    }
    auction.admit("spent", "grey", Duration::ZERO);
    let builder = Server::builder().listen("127.0.0.1:0".parse().unwrap()).shards(2);
    let server = builder.namespace("/", auction.clone()).bind().unwrap();
    let (address, handle) = (server.local_addrs()[0], server.handle());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = thread::spawn(move || {
        server.run_blocking(async {
            let _ = stopped.await;
        })
    });

    // Nobody is there yet; the first who comes hears of it.
    run(auction.open(&handle, "vase")).unwrap();
    let mut stranger = Client::open(address);
    stranger.say("40{\"ticket\":\"forged\"}");
    assert_eq!(stranger.hear(), "44{\"message\":\"No ticket.\",\"data\":{\"code\":\"no-ticket\"}}");
    let mut red = Client::open(address);
    red.say("40{\"ticket\":\"red-ticket\"}");
    assert!(red.hear().starts_with("40{\"sid\":"));
    assert_eq!(red.hear(), "42[\"open\",\"vase\"]");
    let mut green = Client::open(address);
    green.say("40{\"ticket\":\"green-ticket\"}");
    assert!(green.hear().starts_with("40{\"sid\":"));

    red.say("420[\"watch\",\"vase\"]");
    assert_eq!(red.hear(), "430[{\"bid\":0,\"bidder\":null}]");
    red.say("451-1[\"photo\",\"vase\",{\"_placeholder\":true,\"num\":0}]");
    red.send(OpCode::Binary, &[1, 2, 3]);
    let photo = "451-[\"photo\",\"vase\",{\"_placeholder\":true,\"num\":0}]";
    assert_eq!([red.hear(), red.hear()], [photo, "<1 2 3>"]);
    assert_eq!(red.hear(), "431[{}]");
    // A broadcast is at the other shard a moment later, and who joins in that moment would get it
    // twice: what every shard is asked comes after it.
    run(handle.stats());
    // Who comes later sees it too.
    green.say("420[\"watch\",\"vase\"]");
    assert_eq!([green.hear(), green.hear()], [photo, "<1 2 3>"]);
    assert_eq!(green.hear(), "430[{\"bid\":0,\"bidder\":null}]");

    green.say("421[\"bid\",\"vase\",5]");
    assert_eq!(green.hear(), "431[{\"bid\":5}]");
    assert_eq!(red.hear(), "42[\"bid\",\"vase\",5,\"green\"]");
    red.say("422[\"bid\",\"vase\",5]");
    assert_eq!(red.hear(), "432[{\"bid\":5,\"error\":\"too low\"}]");
    red.say("423[\"bid\",\"vase\",\"all\"]");
    assert_eq!(red.hear(), "433[{\"error\":\"not understood\"}]");

    let hammer = thread::spawn(move || run(auction.close(&handle, "vase")));
    for client in [&mut red, &mut green] {
        let sold = client.hear();
        let number = sold.strip_prefix("42").unwrap();
        let number = number.strip_suffix("[\"sold\",\"vase\",\"green\"]").unwrap();
        client.say(&format!("43{number}[]"));
    }
    assert_eq!(hammer.join().unwrap(), Ok(2));

    let mut late = Client::open(address);
    late.say("40{\"ticket\":\"spent\"}");
    assert!(late.hear().starts_with("40{\"sid\":"));
    assert!(late.hear().starts_with("42[\"error\",{\"code\":\"token-expired\""));
    assert_eq!(late.hear(), "41");
    stop.send(()).unwrap();
    drop((stranger, red, green, late));
    serving.join().unwrap().unwrap();
}
