//! Stands before the handler of a namespace and lets in who shows a good token.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use bowline_names::ErrorCode;
use bowline_net::{
    Ack, ConnectRequest, Context, DisconnectReason, Handler, LimitKey, SocketData, SocketRef,
    socketio::Args,
};
use serde_json::json;

use super::{
    Outcome, Rule, Shared,
    jwks::KeySet,
    jwt::{self, Flaw, Grant, Refusal, Rules},
    keys::Keys,
    limit::WAITING,
};
use crate::clock;

/// A handler whose clients have tokens.
pub(crate) struct Guard(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    /// What is kept over a reload.
    rule: Arc<Rule>,
    rules: Rules,
    keys: Source,
    /// `limits.connections-per-subject`.
    per_subject_max: Option<usize>,
    handler: Arc<dyn Handler>,
}

/// Where keys come from.
pub(super) enum Source {
    File(Arc<Keys>),
    Fetched(Arc<KeySet>),
    /// They could not be read.
    Nothing,
}

impl Guard {
    pub(super) fn new(
        shared: Arc<Shared>,
        rule: Arc<Rule>,
        rules: Rules,
        keys: Source,
        per_subject_max: Option<usize>,
        handler: Arc<dyn Handler>,
    ) -> Self {
        Self(Arc::new(Inner { shared, rule, rules, keys, per_subject_max, handler }))
    }
}

impl Handler for Guard {
    fn on_connect(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        let inner = &self.0;
        match inner.check(&request) {
            // Others may have been made since.
            Verdict::Ask(set) => inner.ask(cx, request, set),
            verdict => inner.settle(cx, request, verdict),
        }
    }

    fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, args: Args, ack: Option<Ack>) {
        self.0.handler.on_event(cx, socket, args, ack);
    }

    fn on_disconnect(&self, cx: &mut Context<'_>, socket: SocketRef, reason: DisconnectReason) {
        self.0.rule.subjects.give_back(socket);
        self.0.handler.on_disconnect(cx, socket, reason);
    }
}

/// What is to be done with a client.
enum Verdict {
    Good(Grant),
    Bad(Refusal),
    /// There are no keys.
    Unverifiable,
    /// Fetch this set first.
    Ask(Arc<KeySet>),
}

impl Inner {
    fn check(&self, request: &ConnectRequest) -> Verdict {
        let token = match jwt::token(request.auth().map(|auth| &**auth)) {
            Ok(token) => token,
            Err(refusal) => return Verdict::Bad(refusal),
        };
        let now = Duration::from_millis(clock::unix_ms());
        let keys = match &self.keys {
            Source::File(keys) => Some(Arc::clone(keys)),
            Source::Fetched(set) => set.keys(),
            Source::Nothing => None,
        };
        let checked = keys.as_deref().map(|keys| jwt::check(&token, keys, &self.rules, now));
        match (checked, &self.keys) {
            (Some(Ok(grant)), _) => Verdict::Good(grant),
            (None | Some(Err(Refusal::UnknownKey)), Source::Fetched(set)) => {
                Verdict::Ask(Arc::clone(set))
            }
            (Some(Err(Refusal::UnknownKey)), _) => Verdict::Bad(Refusal::Invalid(Flaw::Signature)),
            (Some(Err(refusal)), _) => Verdict::Bad(refusal),
            (None, _) => Verdict::Unverifiable,
        }
    }

    /// Has the keys fetched, and decides then. The shard goes on meanwhile.
    fn ask(self: &Arc<Self>, cx: &mut Context<'_>, request: ConnectRequest, set: Arc<KeySet>) {
        let (inner, handle) = (Arc::clone(self), cx.handle());
        let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.try_join_next().is_some() {}
        if waiting.len() >= WAITING {
            drop(waiting);
            self.settle(cx, request, Verdict::Unverifiable);
            return;
        }
        let asking = async move {
            set.refresh().await;
            let verdict = match inner.check(&request) {
                Verdict::Ask(set) if set.keys().is_none() => Verdict::Unverifiable,
                Verdict::Ask(_) => Verdict::Bad(Refusal::UnknownKey),
                verdict => verdict,
            };
            // A shard that is too busy for it drops the request, which refuses it.
            let _ = handle.call(request.socket(), move |cx| inner.settle(cx, request, verdict));
        };
        waiting.spawn_on(asking, &self.shared.office);
    }

    /// Does what was decided.
    fn settle(&self, cx: &mut Context<'_>, mut request: ConnectRequest, verdict: Verdict) {
        let code = match verdict {
            Verdict::Good(grant) => match self.seat(&mut request, &grant) {
                Ok(()) => {
                    self.rule.count(Outcome::Accepted);
                    return self.admit(cx, request, grant);
                }
                Err(code) => {
                    cx.count_refused(LimitKey::ConnectionsPerSubject);
                    code
                }
            },
            Verdict::Bad(refusal) => {
                let namespace = &**request.namespace();
                tracing::debug!(namespace, "a token was refused: {refusal}");
                refusal.code()
            }
            Verdict::Unverifiable | Verdict::Ask(_) => ErrorCode::TokenUnverifiable,
        };
        self.rule.count(Outcome::of(code));
        let data = json!({ "code": code.name() }).to_string();
        cx.refuse(request, code.help(), Some(data.into()));
    }

    /// Finds a place for one more socket of the subject.
    fn seat(&self, request: &mut ConnectRequest, grant: &Grant) -> Result<(), ErrorCode> {
        let (Some(most), Some(subject)) = (self.per_subject_max, &grant.subject) else {
            return Ok(());
        };
        let socket = request.socket();
        if !self.rule.subjects.take(socket, subject, most) {
            return Err(ErrorCode::SubjectFull);
        }
        let rule = Arc::clone(&self.rule);
        request.on_refusal(move || rule.subjects.give_back(socket));
        Ok(())
    }

    /// Gives the client what its token says, and asks the handler.
    fn admit(&self, cx: &mut Context<'_>, request: ConnectRequest, grant: Grant) {
        let Grant { subject: _, rooms, data, lasts } = grant;
        let socket = request.socket();
        for room in rooms {
            cx.join(socket, room);
        }
        // The check has found that it is short enough.
        if let Some(data) = data.as_deref().and_then(|data: &str| SocketData::new(data).ok()) {
            cx.set_data(socket, Some(data));
        }
        if let Some(lasts) = lasts {
            cx.expire(socket, lasts, ErrorCode::TokenExpired);
        }
        self.handler.on_connect(cx, request);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use bowline_dial::{ConnectError, Connection, Options};
    use bowline_net::{Server, SocketView};
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
        let guard = auth.guard("/", &jwt, Some(2), Arc::new(Moody::default())).unwrap();
        let server = Server::builder()
            .listen(([127, 0, 0, 1], 0).into())
            .shards(2)
            .namespace("/", guard)
            .bind()
            .unwrap();
        auth.open(server.handle());
        let url = format!("http://{}", server.local_addrs()[0]);
        let (stop, stopped) = oneshot::channel::<()>();
        tasks.spawn(async move {
            let _stop = stop;
            let _ = server.run(std::future::pending()).await;
        });
        drop(stopped);
        (url, auth)
    }

    async fn connect(url: &str, claims: serde_json::Value) -> Result<Connection, ConnectError> {
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
        let answer: Vec<serde_json::Value> = serde_json::from_str(answer.json()).unwrap();
        assert_eq!(answer[0], json!(r#"{"name":"Ada"}"#));
        assert!(answer[1].as_array().unwrap().contains(&json!("owls")), "{answer:?}");
    }
}
