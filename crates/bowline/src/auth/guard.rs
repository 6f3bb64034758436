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
        self.0.on_request(cx, request, Coming::New);
    }

    fn on_return(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        self.0.on_request(cx, request, Coming::Back);
    }

    fn on_away(&self, cx: &mut Context<'_>, socket: SocketRef, reason: DisconnectReason) {
        // It is still one of its subject's.
        self.0.handler.on_away(cx, socket, reason);
    }

    fn on_back(&self, cx: &mut Context<'_>, socket: SocketRef) {
        self.0.handler.on_back(cx, socket);
    }

    fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, args: Args, ack: Option<Ack>) {
        self.0.handler.on_event(cx, socket, args, ack);
    }

    fn on_disconnect(&self, cx: &mut Context<'_>, socket: SocketRef, reason: DisconnectReason) {
        self.0.rule.subjects.give_back(socket);
        self.0.handler.on_disconnect(cx, socket, reason);
    }
}

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coming {
    /// A socket.
    New,
    /// The one that was kept for it.
    Back,
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

/// Whether a socket may be its subject's.
enum Seat {
    Taken,
    /// The subject has as many as it may.
    Full,
    /// It is somebody else's.
    Foreign,
}

impl Inner {
    fn on_request(self: &Arc<Self>, cx: &mut Context<'_>, request: ConnectRequest, coming: Coming) {
        match self.check(&request) {
            // Others may have been made since.
            Verdict::Ask(set) => self.ask(cx, request, coming, set),
            verdict => self.settle(cx, request, coming, verdict),
        }
    }

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
    fn ask(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        request: ConnectRequest,
        coming: Coming,
        set: Arc<KeySet>,
    ) {
        let (inner, handle) = (Arc::clone(self), cx.handle());
        let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.try_join_next().is_some() {}
        if waiting.len() >= WAITING {
            drop(waiting);
            self.settle(cx, request, coming, Verdict::Unverifiable);
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
            let _ = handle.call(request.socket(), move |cx| {
                inner.settle(cx, request, coming, verdict);
            });
        };
        waiting.spawn_on(asking, &self.shared.office);
    }

    /// Does what was decided.
    fn settle(
        &self,
        cx: &mut Context<'_>,
        request: ConnectRequest,
        coming: Coming,
        verdict: Verdict,
    ) {
        let code = match verdict {
            Verdict::Good(grant) => return self.welcome(cx, request, coming, grant),
            Verdict::Bad(refusal) => {
                let namespace = &**request.namespace();
                tracing::debug!(namespace, "a token was refused: {refusal}");
                refusal.code()
            }
            Verdict::Unverifiable | Verdict::Ask(_) => ErrorCode::TokenUnverifiable,
        };
        self.refuse(cx, request, code);
    }

    fn refuse(&self, cx: &mut Context<'_>, request: ConnectRequest, code: ErrorCode) {
        self.rule.count(Outcome::of(code));
        let data = json!({ "code": code.name() }).to_string();
        cx.refuse(request, code.help(), Some(data.into()));
    }

    /// Goes on with a client whose token is good.
    fn welcome(
        &self,
        cx: &mut Context<'_>,
        mut request: ConnectRequest,
        coming: Coming,
        grant: Grant,
    ) {
        let claims = coming == Coming::New && !request.is_claimed();
        if let Some(name) = grant.name.as_ref().filter(|_| claims) {
            return cx.claim(request, name.clone());
        }
        match self.seat(&mut request, coming, &grant) {
            Seat::Taken => {
                self.rule.count(Outcome::Accepted);
                self.admit(cx, request, coming, grant);
            }
            Seat::Full => {
                cx.count_refused(LimitKey::ConnectionsPerSubject);
                self.refuse(cx, request, ErrorCode::SubjectFull);
            }
            Seat::Foreign => {
                let socket = request.socket();
                let flaw = Verdict::Bad(Refusal::Invalid(Flaw::Subject));
                self.settle(cx, request, coming, flaw);
                // The user of the device has changed: the next attempt shall be a new connection.
                cx.disconnect(socket);
            }
        }
    }

    /// Finds a place for one more socket of the subject, or the one that it has.
    fn seat(&self, request: &mut ConnectRequest, coming: Coming, grant: &Grant) -> Seat {
        let socket = request.socket();
        let holder = match coming {
            Coming::New => None,
            Coming::Back => self.rule.subjects.whose(socket),
        };
        match (holder, &grant.subject) {
            (Some(holder), Some(subject)) if *holder == **subject => return Seat::Taken,
            (Some(_), _) => return Seat::Foreign,
            (None, None) => return Seat::Taken,
            // One that came back after a restart has none yet.
            (None, Some(subject)) => {
                let most = self.per_subject_max.unwrap_or(usize::MAX);
                if !self.rule.subjects.take(socket, subject, most) {
                    return Seat::Full;
                }
            }
        }
        // A kept socket stays when its client is refused, and disconnects when its time is over.
        if coming == Coming::New {
            let rule = Arc::clone(&self.rule);
            request.on_refusal(move || rule.subjects.give_back(socket));
        }
        Seat::Taken
    }

    /// Gives the client what its token says, and asks the handler.
    fn admit(&self, cx: &mut Context<'_>, request: ConnectRequest, coming: Coming, grant: Grant) {
        let Grant { subject: _, name: _, rooms, data, lasts } = grant;
        let socket = request.socket();
        if coming == Coming::Back {
            // Rooms and data are what became of those of its first token.
            cx.expire(socket, lasts.unwrap_or(Duration::MAX), ErrorCode::TokenExpired);
            return self.handler.on_return(cx, request);
        }
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
mod tests;
