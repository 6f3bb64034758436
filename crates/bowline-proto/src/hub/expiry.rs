//! Sockets that may stay until a certain time: that of the token they came with.

use std::time::Duration;

use bowline_names::ErrorCode;
use bytestring::ByteString;
use serde_json::json;

use super::Hub;
use crate::{
    Output, SessionKey, SocketKey, Time, Timer,
    session::NEVER,
    socketio::Args,
    wall::{DisconnectReason, Event},
};

/// When a socket has to go, and what its client is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expiry {
    at: Time,
    code: ErrorCode,
}

impl Expiry {
    pub(super) fn new(at: Time, code: ErrorCode) -> Self {
        Self { at, code }
    }

    pub(super) fn at(self) -> Time {
        self.at
    }

    pub(super) fn code(self) -> ErrorCode {
        self.code
    }
}

impl Hub {
    /// Sets when a socket has to go; [`Duration::MAX`] takes it back.
    pub(super) fn expire(&mut self, now: Time, key: SocketKey, after: Duration, code: ErrorCode) {
        let at = now + after;
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if at == NEVER {
            if let Some(extras) = socket.extras.as_deref_mut() {
                extras.expiry = None;
                socket.drop_empty_extras();
            }
            return;
        }
        socket.extras_mut().expiry = Some(Expiry { at, code });
        let session_key = socket.session;
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        if at < session.expire_by() {
            session.set_expire_by(at);
            self.timers.push(at, Timer::Expiry, session_key);
        }
    }

    /// Sends away the sockets of a session whose time is over.
    pub(super) fn expire_sockets(&mut self, now: Time, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let mut next = NEVER;
        let mut expired = Vec::new();
        for socket_key in &session.sockets {
            let extras = self.sockets.get(*socket_key).and_then(|it| it.extras.as_deref());
            let Some(Expiry { at, code }) = extras.and_then(|extras| extras.expiry) else {
                continue;
            };
            if at <= now {
                expired.push((*socket_key, code));
            } else {
                next = next.min(at);
            }
        }
        session.set_expire_by(next);
        if next != NEVER {
            self.timers.push(next, Timer::Expiry, key);
        }
        for (socket, code) in expired {
            self.send_away(now, socket, code);
        }
    }

    /// Tells a client that its time is over: in an event if it is in, in the answer to its CONNECT
    /// if that is still awaited.
    fn send_away(&mut self, now: Time, key: SocketKey, code: ErrorCode) {
        if self.socket(key).is_none() {
            let data = json!({ "code": code.name() }).to_string();
            let namespace = self.sockets.get(key).map(|socket| socket.namespace);
            let handler = self.handler_of(namespace);
            self.refuse(key, code.help(), Some(ByteString::from(data)));
            // Whoever was asked about it has not answered, and hears that there is no need to.
            if let Some(handler) = handler {
                let reason = DisconnectReason::ServerNamespaceDisconnect;
                let event = Event::Disconnect { socket: key, reason };
                self.outputs.push_back(Output::Deliver { handler, event });
            }
            return;
        }
        let error = json!({ "code": code.name(), "message": code.help() });
        let args = Args::from_values(&[json!("error"), error]);
        self.emit(key, args, None, false);
        self.disconnect(now, key, false);
    }
}
