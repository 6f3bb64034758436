//! Clients with tokens at a real server: who comes, and who comes back.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bowline_dial::{ConnectError, Connection, Message, Options, Wire, WireSocket};
use bowline_net::{Keeping, Server, SessionKeySource, SocketFilter, SocketView};
use serde_json::Value;
use tokio::{runtime, sync::oneshot, task::JoinSet};

use super::*;
use crate::{
    auth::{Auth, jwt::tests::secret_token},
    config::Jwt,
};

/// Refuses every second client, at once or later, and tells what it knows of the others.
#[derive(Default)]
struct Moody(AtomicUsize);

impl Handler for Moody {
    fn on_connect(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        match self.0.fetch_add(1, SeqCst) % 4 {
            1 => cx.refuse(request, "not today", None),
            // Unanswered is refused.
            3 => drop(request),
            _ => drop(cx.accept(request)),
        }
    }

    fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, _: Args, ack: Option<Ack>) {
        let data = cx
            .socket(socket)
            .and_then(|view: SocketView<'_>| Some(view.data()?.text().to_string()));
        let rooms: Vec<String> = cx.rooms(socket).map(str::to_owned).collect();
        if let Some(ack) = ack {
            cx.ack(ack, Args::from_values(&[json!(data), json!(rooms)]));
        }
    }
}

/// A server whose clients need a token of the secret, and may be two of each subject.
fn serve(tasks: &mut JoinSet<()>) -> (String, Auth) {
    let (url, auth, _) = serve_with(tasks, None, Arc::new(Moody::default()));
    (url, auth)
}

/// The same with a handler of one's own, and a claim that names those who come back.
fn serve_with(
    tasks: &mut JoinSet<()>,
    claim: Option<&str>,
    handler: Arc<dyn Handler>,
) -> (String, Auth, bowline_net::Handle) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    std::fs::write(&path, jwt::tests::SECRET).unwrap();
    let jwt = Jwt {
        secret_file: Some(path),
        rooms_claim: Some("rooms".to_owned()),
        data_claim: Some("data".to_owned()),
        ..Jwt::default()
    };
    let auth = Auth::new(runtime::Handle::current(), true);
    let guard = auth.guard("/", &jwt, claim.map(str::to_owned), Some(2), handler).unwrap();
    let session_key = claim.map(|_| SessionKeySource::Claim);
    let server = Server::builder()
        .listen(([127, 0, 0, 1], 0).into())
        .shards(2)
        .namespace("/", guard)
        .keeping(Keeping { session_key, ..Keeping::default() })
        .bind()
        .unwrap();
    let handle = server.handle();
    auth.open(handle.clone());
    let url = format!("http://{}", server.local_addrs()[0]);
    let (stop, stopped) = oneshot::channel::<()>();
    tasks.spawn(async move {
        let _stop = stop;
        let _ = server.run(std::future::pending()).await;
    });
    drop(stopped);
    (url, auth, handle)
}

async fn connect(url: &str, claims: Value) -> Result<Connection, ConnectError> {
    let auth = json!({ "token": secret_token(&claims) }).to_string();
    bowline_dial::connect(url, Options { auth: Some(auth.into()), ..Options::default() }).await
}

#[tokio::test]
async fn who_is_refused_by_the_handler_behind_takes_no_place() {
    let mut tasks = JoinSet::new();
    let (url, auth) = serve(&mut tasks);
    let rule = Arc::clone(&auth.lock().rules["/"]);
    let ada = || json!({ "sub": "ada" });
    let mut inside = Vec::new();
    // In, refused, in, dropped.
    for turn in 0..4 {
        let outcome = connect(&url, ada()).await;
        assert_eq!(outcome.is_ok(), turn % 2 == 0, "{turn}: {:?}", outcome.err());
        inside.extend(outcome);
        if turn == 0 {
            assert_eq!(rule.subjects.held_by("ada"), 1);
        }
    }
    assert_eq!(rule.subjects.held_by("ada"), 2);
    let full = connect(&url, ada()).await.err().unwrap();
    assert!(full.to_string().contains("subject-full"), "{full}");
    for connection in inside {
        connection.close().await;
    }
    let gone = async {
        while !rule.subjects.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("places are given back");
}

#[tokio::test]
async fn the_handler_behind_finds_rooms_and_data_of_the_token() {
    let mut tasks = JoinSet::new();
    let (url, _auth) = serve(&mut tasks);
    let claims = json!({ "rooms": ["owls"], "data": { "name": "Ada" } });
    let ada = connect(&url, claims).await.unwrap();
    let asked = Args::from_values(&[json!("who")]);
    let answer = ada.emit_with_ack(asked, Duration::from_secs(10)).await.unwrap();
    let answer: Vec<Value> = serde_json::from_str(answer.json()).unwrap();
    assert_eq!(answer[0], json!(r#"{"name":"Ada"}"#));
    assert!(answer[1].as_array().unwrap().contains(&json!("owls")), "{answer:?}");
}

/// Lets everybody in, and says who is there.
struct Calm;

impl Handler for Calm {
    fn on_connect(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        cx.accept(request);
    }

    fn on_event(&self, cx: &mut Context<'_>, _: SocketRef, args: Args, ack: Option<Ack>) {
        if let Some(ack) = ack {
            cx.ack(ack, args);
        }
    }
}

/// Connects a client that says this in its CONNECT beside its token, and returns the answer to it.
async fn come(url: &str, claims: Value, says: Value) -> (WireSocket, Value) {
    let wire = Wire::new(url, &Options::default()).unwrap();
    let path = "/socket.io/?EIO=4&transport=websocket";
    let mut socket = wire.websocket(path).await.map_err(|_| "refused").unwrap();
    let mut auth = says;
    auth["token"] = json!(secret_token(&claims));
    assert!(next(&mut socket).await.starts_with('0'));
    socket.send(&format!("40{auth}")).await.unwrap();
    let answer = next(&mut socket).await;
    let answer = answer.strip_prefix("40").or(answer.strip_prefix("44")).unwrap();
    let answer = serde_json::from_str(answer).unwrap();
    (socket, answer)
}

async fn next(socket: &mut WireSocket) -> String {
    let message = tokio::time::timeout(PATIENCE, socket.receive()).await.unwrap();
    match message.unwrap() {
        Message::Text(text) => text.to_string(),
        Message::Binary(_) => panic!("nothing binary was sent"),
    }
}

const PATIENCE: Duration = Duration::from_secs(10);

async fn until_away(server: &bowline_net::Handle, sid: &Value) {
    let away = async {
        loop {
            let sockets = server.sockets(SocketFilter::default()).await.sockets;
            let kept = |sid: &Value| {
                let it = sockets.iter().find(|it| *sid == it.sid.to_string());
                it.is_some_and(|it| it.away.is_some())
            };
            if kept(sid) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, away).await.expect("it is kept");
}

#[tokio::test]
async fn who_comes_back_shows_a_good_token_again_and_keeps_its_place() {
    let mut tasks = JoinSet::new();
    let (url, auth, server) = serve_with(&mut tasks, None, Arc::new(Calm));
    let rule = Arc::clone(&auth.lock().rules["/"]);
    let ada = || json!({ "sub": "ada" });
    let (socket, first) = come(&url, ada(), json!({ "recovery": true })).await;
    let back = || json!({ "pid": first["pid"] });
    assert!(first["pid"].is_string(), "{first}");
    drop(socket);
    until_away(&server, &first["sid"]).await;
    assert_eq!(rule.subjects.held_by("ada"), 1);

    let (_, refused) = come(&url, json!({ "sub": "ada", "exp": 1 }), back()).await;
    assert_eq!(refused["data"]["code"], "token-expired");
    until_away(&server, &first["sid"]).await;
    let (socket, second) = come(&url, ada(), back()).await;
    assert_eq!(second, first);
    assert_eq!(rule.subjects.held_by("ada"), 1);
    // A second one of its own takes the second place; a third finds none.
    let (_other, another) = come(&url, ada(), json!({})).await;
    assert_ne!(another["sid"], first["sid"]);
    drop(socket);
    until_away(&server, &first["sid"]).await;
    let (_, full) = come(&url, ada(), json!({})).await;
    assert_eq!(full["data"]["code"], "subject-full");
    let (_socket, third) = come(&url, ada(), back()).await;
    assert_eq!(third, first);
}

#[tokio::test]
async fn a_token_that_was_shown_at_a_return_ends_the_connection_when_it_ends() {
    let mut tasks = JoinSet::new();
    let (url, _auth, _server) = serve_with(&mut tasks, None, Arc::new(Calm));
    let (socket, first) = come(&url, json!({}), json!({ "recovery": true })).await;
    drop(socket);
    // The server of these tests has a leeway of 30 s.
    let soon = clock::unix_ms() / 1_000 - 29;
    let (mut socket, second) =
        come(&url, json!({ "exp": soon }), json!({ "pid": first["pid"] })).await;
    assert_eq!(second, first);
    let told = next(&mut socket).await;
    assert!(told.starts_with("42[\"error\"") && told.contains("token-expired"), "{told}");
    assert_eq!(next(&mut socket).await, "41");
}

#[tokio::test]
async fn nobody_goes_on_with_the_session_of_another_subject() {
    let mut tasks = JoinSet::new();
    let (url, auth, server) = serve_with(&mut tasks, None, Arc::new(Calm));
    let rule = Arc::clone(&auth.lock().rules["/"]);
    let (socket, first) = come(&url, json!({ "sub": "ada" }), json!({ "recovery": true })).await;
    drop(socket);
    until_away(&server, &first["sid"]).await;
    let back = || json!({ "pid": first["pid"] });
    let (_, refused) = come(&url, json!({ "sub": "bob" }), back()).await;
    assert_eq!(refused["data"]["code"], "token-invalid");
    // The next attempt is a connection of his own.
    let (_bob, own) = come(&url, json!({ "sub": "bob" }), back()).await;
    assert!(own["sid"].is_string() && own["sid"] != first["sid"], "{own}");
    assert_eq!((rule.subjects.held_by("ada"), rule.subjects.held_by("bob")), (0, 1));
}

#[tokio::test]
async fn a_claim_finds_the_session_of_a_client_that_has_no_pid() {
    let mut tasks = JoinSet::new();
    let (url, auth, server) = serve_with(&mut tasks, Some("device"), Arc::new(Calm));
    let rule = Arc::clone(&auth.lock().rules["/"]);
    let phone = |of: &str| json!({ "sub": of, "device": "phone" });
    let (socket, first) = come(&url, phone("ada"), json!({})).await;
    assert!(first["sid"].is_string() && first["pid"].is_null(), "{first}");
    drop(socket);
    until_away(&server, &first["sid"]).await;
    for other in [phone("bob"), json!({ "sub": "ada", "device": "desk" }), json!({})] {
        let (_, answer) = come(&url, other, json!({})).await;
        assert!(answer["sid"].is_string() && answer["sid"] != first["sid"], "{answer}");
    }
    // Who has a pid is not looked for by name.
    let (_tab, stamped) = come(&url, phone("cleo"), json!({ "recovery": true })).await;
    let (_, another) = come(&url, phone("cleo"), json!({ "recovery": true })).await;
    assert!(stamped["pid"].is_string() && another["sid"] != stamped["sid"], "{another}");
    let (_socket, second) = come(&url, phone("ada"), json!({})).await;
    assert_eq!(second["sid"], first["sid"]);
    let accepted = rule.outcomes[Outcome::Accepted as usize].load(SeqCst);
    assert_eq!(accepted, 7, "who is looked for by a name is counted once");
}
