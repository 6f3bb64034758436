//! Emits through a server with clients, on threads of its own.

use std::{future, time::Duration};

use bowline_dial::Event;
use bowline_net::{Echo, Server};
use tokio::{task::JoinSet, time::timeout};

use super::*;

/// How long whatever must come about may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server of two shards, and the way in.
fn server() -> (Emitter, String, JoinSet<()>) {
    let builder = Server::builder().listen(([127, 0, 0, 1], 0).into()).shards(2);
    let server = builder.namespace("/", Echo).bind().unwrap();
    let url = format!("http://{}", server.local_addrs()[0]);
    let emitter = Emitter::new(server.handle());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { server.run(future::pending()).await.unwrap() });
    (emitter, url, tasks)
}

async fn connect(url: &str) -> bowline_dial::Connection {
    bowline_dial::connect(url, bowline_dial::Options::default()).await.unwrap()
}

/// The name of the next event, and the id of the ack that it asks for.
async fn event(client: &mut bowline_dial::Connection) -> (String, Option<u64>) {
    loop {
        let next = timeout(PATIENCE, client.next_event()).await.unwrap().unwrap();
        if let Event::Event { args, ack, .. } = next {
            return (args.name().unwrap().into_owned(), ack);
        }
    }
}

fn emit(name: &str) -> Emit {
    Emit {
        namespace: "/".into(),
        to: To::All,
        except: Vec::new(),
        args: Args::event(name, &[(); 0]).unwrap(),
        volatile: false,
        hold: None,
        ack: None,
    }
}

fn counted(emitter: &Emitter, outcome: Outcome) -> u64 {
    emitter.counts().0[Source::Api as usize][outcome as usize].load(Relaxed)
}

#[tokio::test]
async fn what_is_asked_for_twice_is_sent_once() {
    let (emitter, url, _server) = server();
    let mut client = connect(&url).await;
    let id = || Some("a".to_owned());
    let ask = |event: Emit| emitter.emit(Source::Api, id(), event);
    // At the same time, and later.
    let (one, other) = tokio::join!(ask(emit("e")), ask(emit("e")));
    let again = ask(emit("e")).await;
    assert_eq!(one.as_ref().map(|emitted| emitted.receivers), Ok(1));
    assert_eq!((&one, &one), (&other, &again));
    assert_eq!(ask(emit("f")).await, Err(EmitError::IdReused));
    emitter.emit(Source::Api, None, emit("last")).await.unwrap();
    let mut names = Vec::new();
    while names.last().is_none_or(|name| name != "last") {
        names.push(event(&mut client).await.0);
    }
    assert_eq!(names, ["e", "last"]);
    let counts = [Outcome::Sent, Outcome::Repeated, Outcome::IdReused];
    assert_eq!(counts.map(|outcome| counted(&emitter, outcome)), [2, 2, 1]);
}

#[tokio::test]
async fn who_asks_and_goes_leaves_the_answer_to_who_asks_again() {
    let (emitter, url, _server) = server();
    let mut client = connect(&url).await;
    let ask = || Emit { ack: Some(PATIENCE), ..emit("ask") };
    let mut first = JoinSet::new();
    let theirs = emitter.clone();
    first.spawn(async move { theirs.emit(Source::Api, Some("a".to_owned()), ask()).await });
    let (_, ack) = event(&mut client).await;
    first.shutdown().await;
    client.ack(ack.unwrap(), Args::new("[7]").unwrap()).await.unwrap();
    let again = emitter.emit(Source::Api, Some("a".to_owned()), ask());
    let again = timeout(PATIENCE, again).await.unwrap().unwrap();
    assert_eq!((again.receivers, again.missing), (1, 0));
    assert_eq!(again.acks[0].1.json(), "[7]");
}

#[tokio::test]
async fn nobody_is_nobody_and_an_id_is_made_for_each() {
    let (emitter, _, _server) = server();
    let ask = |event: Emit| emitter.emit(Source::Api, None, event);
    let one = ask(emit("e")).await.unwrap();
    let other = ask(Emit { ack: Some(PATIENCE), ..emit("e") }).await.unwrap();
    assert_eq!((one.receivers, other.receivers, other.missing), (0, 0, 0));
    assert_ne!(one.id, other.id);
    let rooms = To::Rooms(Vec::new());
    let none = Emit { to: rooms, hold: Some(PATIENCE), ..emit("e") };
    assert!(!ask(none).await.unwrap().held, "it is for nobody who could come");
    // One that awaits acks is held too, if there is nobody.
    let held = Emit { ack: Some(PATIENCE), hold: Some(PATIENCE), ..emit("e") };
    assert!(ask(held).await.unwrap().held);
    assert_eq!([Outcome::Nobody, Outcome::Held].map(|it| counted(&emitter, it)), [3, 1]);
}
