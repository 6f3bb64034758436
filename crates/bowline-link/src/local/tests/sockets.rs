//! WebSockets of bots.

use super::*;
use crate::bot::{Offer, Outcome};

#[tokio::test]
async fn a_message_is_offered_and_confirmed_by_a_frame() {
    let mut rig = Rig::start(ConfirmedBy::Frame).await;
    assert_eq!(rig.deliver.offer(offer("1", 1, "a")).await, Outcome::Absent);
    let mut bot = rig.socket().await;
    assert_eq!(soon(bot.text()).await, "opened");
    // It is there, and has not said who it is.
    assert_eq!(rig.deliver.offer(offer("1", 1, "a")).await, Outcome::Absent);
    bot.say("hello").await;
    assert_eq!(soon(bot.text()).await, "welcome");
    soon(rig.deliver.ready()).await;
    assert_eq!(rig.deliver.presence().connections, 1);

    let deliver = Arc::clone(&rig.deliver);
    let mut offering = JoinSet::new();
    offering.spawn(async move { deliver.offer(offer("1", 2, "a")).await });
    assert_eq!(soon(bot.text()).await, "2 1 a");
    bot.say("got 1").await;
    assert_eq!(soon(offering.join_next()).await.unwrap().unwrap(), confirmed());

    // What cannot be said is nobody's, and what needs no confirmation has none.
    let refused = soon(rig.deliver.offer(offer("2", 1, "unsayable"))).await;
    assert!(matches!(refused, Outcome::Refused(_)), "{refused:?}");
    let mut unheard = offer("3", 1, "c");
    unheard.message.confirm = false;
    assert_eq!(soon(rig.deliver.offer(unheard)).await, confirmed());
    assert_eq!(soon(bot.text()).await, "1 3 c");

    rig.deliver.pass(&Bytes::from_static(b"passing"));
    match soon(bot.next()).await.unwrap() {
        Incoming::Message(Frame::Binary(bytes)) => assert_eq!(bytes, "passing"),
        other => panic!("{other:?}"),
    }

    // The bot speaks.
    bot.say("to the service").await;
    match soon(rig.said.recv()).await.unwrap() {
        Said::Send { outgoing, .. } => assert_eq!(outgoing.body, "to the service"),
        other => panic!("{other:?}"),
    }
    bot.frame(OpCode::Ping, b"are you there").await;
    assert_eq!(soon(bot.next()).await, Some(Incoming::Pong(Bytes::from_static(b"are you there"))));
    // The goodbye of the rules.
    bot.say("bye").await;
    assert_eq!(soon(bot.closed()).await, Some(4001));
    bot.frame(OpCode::Close, &4001_u16.to_be_bytes()).await;
    assert_eq!(soon(bot.next()).await, None);
    while rig.deliver.presence().connections > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_pong_confirms_what_was_sent_before_its_ping() {
    let rig = Rig::start(ConfirmedBy::Pong).await;
    let mut bot = ready(&rig).await;
    let deliver = Arc::clone(&rig.deliver);
    let mut offering = JoinSet::new();
    offering.spawn(async move {
        let (a, b) =
            tokio::join!(deliver.offer(offer("1", 1, "a")), deliver.offer(offer("2", 1, "b")));
        assert_eq!((a, b), (confirmed(), confirmed()));
    });
    let mut pings = Vec::new();
    while pings.len() < 2 {
        if let Incoming::Ping(payload) = soon(bot.next()).await.unwrap() {
            pings.push(payload);
        }
    }
    // Nobody asked for this one.
    bot.frame(OpCode::Pong, &u64::MAX.to_be_bytes()).await;
    bot.frame(OpCode::Pong, b"x").await;
    // The second answers both.
    bot.frame(OpCode::Pong, &pings[1]).await;
    soon(offering.join_next()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_confirmation_that_comes_late_spares_the_bot_the_message() {
    let rig = Rig::start(ConfirmedBy::Frame).await;
    let mut bot = ready(&rig).await;
    let impatient =
        timeout(Duration::from_millis(100), rig.deliver.offer(offer("1", 1, "a"))).await;
    assert!(impatient.is_err());
    assert_eq!(soon(bot.text()).await, "1 1 a");
    bot.say("got 1").await;
    bot.frame(OpCode::Ping, b"").await;
    assert_eq!(soon(bot.next()).await, Some(Incoming::Pong(Bytes::new())));
    assert_eq!(soon(rig.deliver.offer(offer("1", 2, "a"))).await, confirmed());
    bot.frame(OpCode::Ping, b"").await;
    assert_eq!(soon(bot.next()).await, Some(Incoming::Pong(Bytes::new())));
}

#[tokio::test]
async fn a_bot_that_goes_leaves_the_message_unconfirmed() {
    let rig = Rig::start(ConfirmedBy::Frame).await;
    let mut bot = ready(&rig).await;
    let offered = rig.deliver.offer(offer("1", 1, "a"));
    let goes = async {
        assert_eq!(bot.text().await, "1 1 a");
        drop(bot);
    };
    let (outcome, ()) = soon(async { tokio::join!(offered, goes) }).await;
    assert!(matches!(outcome, Outcome::Lost(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_websocket_without_a_proxy_goes_to_this_machine() {
    let rig = Rig::start(ConfirmedBy::Frame).await;
    let rig = &rig;
    let open = |path: String| async move {
        let stream = rig.connect().await;
        let name = ServerName::try_from("localhost").unwrap();
        let stream = rig.connector().connect(name, stream).await.unwrap();
        let host = format!("localhost:{}", rig.port);
        BotSocket::open(Box::new(stream), &host, &path).await
    };
    let path = format!("/links/bot/{}", rig.secret());
    for rest in ["", "/", "/v1/apps/x?y=z"] {
        let mut bot = open(format!("{path}{rest}")).await.unwrap();
        assert_eq!(soon(bot.text()).await, "opened", "{rest}");
    }
    for path in [format!("{path}x"), "/links/bot/".to_owned(), "/links/other/x".to_owned()] {
        assert!(open(path).await.is_err());
    }
}

#[tokio::test]
async fn a_link_that_is_started_again_keeps_its_bots_unless_it_is_another() {
    let mut rig = Rig::start(ConfirmedBy::Frame).await;
    let mut bot = ready(&rig).await;
    // The task of the link is gone; what the bot says meanwhile waits for the next.
    rig.said.close();
    bot.say("first").await;
    bot.say("second").await;
    let (mouth, mut said) = mpsc::channel(1);
    let rules = Arc::new(TestRules { confirmed_by: ConfirmedBy::Frame });
    rig.deliver = rig.local.register(&rig.link, rules.clone(), far(&rig.service), mouth).unwrap();
    for wanted in ["first", "second"] {
        match soon(said.recv()).await.unwrap() {
            Said::Send { outgoing, .. } => assert_eq!(outgoing.body, wanted),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(rig.deliver.presence().connections, 1);

    rig.link.deliver = Deliver::Proxy { intercept: Vec::new() };
    let (mouth, _said) = mpsc::channel(1);
    rig.local.register(&rig.link, rules, far(&rig.service), mouth).unwrap();
    assert_eq!(soon(bot.closed()).await, Some(1012));
}

#[tokio::test]
async fn a_link_that_is_forgotten_closes_with_1012_and_takes_nobody_in() {
    let mut rig = Rig::start(ConfirmedBy::Frame).await;
    let mut bot = ready(&rig).await;
    let mut client = rig.client().await;
    client.get("/where").await;
    rig.local.forget("bot");
    assert_eq!(soon(bot.closed()).await, Some(1012));
    soon(async {
        while client.sender.ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let status = rig.tunnel("service.test:443").await.unwrap_err();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_bot_that_comes_before_its_link_is_served_waits_for_it() {
    let mut rig = Rig::start(ConfirmedBy::Frame).await;
    let (shared, mut link) = settings(rig.directory.path());
    link.name = "late".to_owned();
    rig.variables = environment(&shared, &link).unwrap().into_iter().collect();

    let mut asking = rig.connect().await;
    let connect = format!(
        "CONNECT service.test:443 HTTP/1.1\r\nProxy-Authorization: {}\r\n\r\n",
        rig.credentials()
    );
    asking.write_all(connect.as_bytes()).await.unwrap();
    assert!(timeout(Duration::from_millis(50), asking.read_u8()).await.is_err());
    let (mouth, _said) = mpsc::channel(1);
    let rules = Arc::new(TestRules { confirmed_by: ConfirmedBy::Frame });
    rig.local.register(&link, rules, far(&rig.service), mouth).unwrap();
    let head = soon(read_head(&mut asking)).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");

    // A link that does not come: no status, which clients would take for the last word.
    link.name = "never".to_owned();
    rig.variables = environment(&shared, &link).unwrap().into_iter().collect();
    let connect = format!(
        "CONNECT service.test:443 HTTP/1.1\r\nProxy-Authorization: {}\r\n\r\n",
        rig.credentials()
    );
    let mut asking = rig.connect().await;
    asking.write_all(connect.as_bytes()).await.unwrap();
    tokio::time::pause();
    let mut answer = String::new();
    let _ = asking.read_to_string(&mut answer).await;
    assert_eq!(answer, "");
}

#[tokio::test]
async fn a_farewell_closes_with_1001_and_waits_for_what_is_under_way() {
    let mut rig = Rig::start(ConfirmedBy::Frame).await;
    let mut bot = ready(&rig).await;
    let mut client = rig.client().await;
    let request = Request::get("/slow").header("host", "service.test");
    let answer = client.sender.send_request(request.body(Full::default()).unwrap()).await.unwrap();

    let local = rig.local.clone();
    let mut farewell = JoinSet::new();
    farewell.spawn(async move { local.farewell(Duration::from_secs(60), false).await });
    assert_eq!(soon(bot.closed()).await, Some(1001));
    bot.frame(OpCode::Close, &1001_u16.to_be_bytes()).await;
    assert_eq!(soon(bot.next()).await, None);
    assert!(farewell.try_join_next().is_none());
    rig.service.go.add_permits(1);
    assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "onetwo");
    soon(farewell.join_next()).await.unwrap().unwrap();
    assert!(TcpStream::connect(("127.0.0.1", rig.port)).await.is_err());
}

#[tokio::test]
async fn at_the_end_whoever_has_come_is_answered_and_whoever_comes_is_refused() {
    let mut rig = Rig::start(ConfirmedBy::Frame).await;
    let mut bot = ready(&rig).await;
    // Nobody has taken these when the end is said.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let masters = listener.try_clone().unwrap();
    rig.port = masters.local_addr().unwrap().port();
    let connect = |credentials: &str| {
        format!(
            "CONNECT service.test:443 HTTP/1.1
Proxy-Authorization: {credentials}

"
        )
    };
    let mut late = rig.connect().await;
    late.write_all(connect(&rig.credentials()).as_bytes()).await.unwrap();
    // This one's link is not served yet.
    let (mut shared, mut link) = settings(rig.directory.path());
    shared.listen.set_port(rig.port);
    link.name = "early".to_owned();
    rig.variables = environment(&shared, &link).unwrap().into_iter().collect();
    let mut early = rig.connect().await;
    early.write_all(connect(&rig.credentials()).as_bytes()).await.unwrap();
    rig.local.serve(listener, &mut rig.tasks).unwrap();

    let local = rig.local.clone();
    rig.tasks.spawn(async move { local.farewell(Duration::from_secs(60), true).await });
    assert_eq!(soon(bot.closed()).await, Some(1001));
    assert!(TcpStream::connect(("127.0.0.1", rig.port)).await.is_err());
    drop(masters);
    for asking in [&mut late, &mut early] {
        let mut answer = [0; 12];
        soon(asking.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
}

#[tokio::test]
async fn a_secret_that_is_made_anew_counts_from_its_first_use() {
    let mut rig = Rig::start(ConfirmedBy::Frame).await;
    let mut bot = ready(&rig).await;
    let first = rig.credentials();
    let (shared, link) = settings(rig.directory.path());
    std::fs::remove_file(shared.directory.join("bot.secret")).unwrap();
    // Without another one it stays.
    rig.tunnel("service.test:443").await.unwrap();
    rig.variables = environment(&shared, &link).unwrap().into_iter().collect();
    assert_ne!(rig.credentials(), first);
    rig.tunnel("service.test:443").await.unwrap();
    assert_eq!(soon(bot.closed()).await, Some(1012));
    rig.variables.insert("HTTPS_PROXY".to_owned(), format!("http://bot:{}@x", "wrong"));
    let refused = rig.tunnel("service.test:443").await.unwrap_err();
    assert_eq!(refused, StatusCode::PROXY_AUTHENTICATION_REQUIRED);
}

#[tokio::test]
async fn a_bot_that_breaks_the_protocol_is_told_so() {
    let rig = Rig::start(ConfirmedBy::Frame).await;
    let mut bot = ready(&rig).await;
    bot.frame(OpCode::Text, &[0xff, 0xfe]).await;
    assert_eq!(soon(bot.closed()).await, Some(1007));
    assert_eq!(soon(bot.next()).await, None);

    let mut bot = ready(&rig).await;
    // 1 GiB is announced; nothing of it needs to come.
    bot.stream.write_all(&[0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
    bot.stream.flush().await.unwrap();
    assert_eq!(soon(bot.closed()).await, Some(1009));
}

/// A bot that has authorised itself.
async fn ready(rig: &Rig) -> BotSocket {
    let mut bot = rig.socket().await;
    assert_eq!(soon(bot.text()).await, "opened");
    bot.say("hello").await;
    assert_eq!(soon(bot.text()).await, "welcome");
    bot
}

fn confirmed() -> Outcome {
    Outcome::Confirmed { replies: Vec::new() }
}

fn offer(id: &str, attempt: u32, body: &str) -> Offer {
    let message = Message {
        id: id.to_owned(),
        own_id: true,
        room: "room".to_owned(),
        receipt: None,
        confirm: true,
        body: Bytes::from(body.to_owned()),
    };
    Offer { link: "bot".to_owned(), message, attempt }
}

#[tokio::test]
async fn a_bot_that_says_more_than_the_link_takes_waits_and_loses_nothing() {
    let mut rig = Rig::start(ConfirmedBy::Frame).await;
    let mut bot = ready(&rig).await;
    const COUNT: usize = 2000;
    let says = async {
        for number in 0..COUNT {
            bot.say(&format!("{number} {}", "x".repeat(4096))).await;
        }
    };
    let takes = async {
        // The link is busy, for a moment: what is unsaid is bounded all the time.
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        for wanted in 0..COUNT {
            match rig.said.recv().await.unwrap() {
                Said::Send { outgoing, .. } => {
                    assert!(outgoing.body.starts_with(format!("{wanted} ").as_bytes()));
                }
                other => panic!("{other:?}"),
            }
        }
    };
    soon(async { tokio::join!(says, takes) }).await;
}

#[tokio::test]
async fn a_bot_that_does_not_read_is_given_a_bounded_number_of_messages() {
    let rig = Rig::start(ConfirmedBy::Frame).await;
    let _bot = ready(&rig).await;
    let body = "x".repeat(64 * 1024);
    let mut offers = JoinSet::new();
    let refused = soon(async {
        let mut number = 0;
        loop {
            let (deliver, body) = (Arc::clone(&rig.deliver), body.clone());
            number += 1;
            offers.spawn(async move { deliver.offer(offer(&number.to_string(), 1, &body)).await });
            tokio::task::yield_now().await;
            match offers.try_join_next() {
                Some(outcome) => break outcome.unwrap(),
                None => assert!(number < 10_000),
            }
        }
    })
    .await;
    let words = "the bot does not read its WebSocket".to_owned();
    assert_eq!(refused, Outcome::Unconfirmed(words));
}

#[tokio::test]
async fn a_bot_has_thirty_seconds_to_say_who_it_is_and_ten_minutes_of_silence() {
    let rig = Rig::start(ConfirmedBy::Frame).await;
    let mut mute = rig.socket().await;
    assert_eq!(mute.text().await, "opened");
    tokio::time::pause();
    assert_eq!(mute.closed().await, Some(1008));
    tokio::time::resume();

    let mut bot = ready(&rig).await;
    tokio::time::pause();
    let begun = crate::clock::instant();
    let mut pings = 0;
    while let Some(Incoming::Ping(_)) = bot.next().await {
        pings += 1;
        let words = rig.deliver.presence().words;
        // The last ping may be read when the place has been given up already.
        if pings < 30 {
            let is_silent = words.ends_with("which does not answer pings");
            assert_eq!(is_silent, pings > 3, "{pings}: {words}");
        }
    }
    let took = crate::clock::instant() - begun;
    assert!((28..=30).contains(&pings), "{pings}");
    assert!((Duration::from_secs(600)..Duration::from_secs(605)).contains(&took), "{took:?}");
    assert_eq!(rig.deliver.presence().connections, 0);
}
