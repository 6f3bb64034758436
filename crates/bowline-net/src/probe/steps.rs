//! The steps of a probe: what is said on the wire, and what it usually means when that goes wrong.

use bowline_dial::{Answer, Message, Refusal, Wire, WireSocket};
use serde::Deserialize;

use super::{NAMESPACE, Walk, Words};
use crate::limit;

/// What carries the session of a probe.
pub(super) struct Session {
    wire: Wire,
    sid: String,
    /// Once it is on a WebSocket.
    socket: Option<WireSocket>,
    /// For packets that a poll brought beside the one that was awaited.
    early: Vec<String>,
}

/// The part of the open packet that matters here.
#[derive(Deserialize)]
struct Opened {
    sid: String,
}

/// Opens a session by polling.
pub(super) async fn open_by_polling(walk: &Walk, wire: Wire) -> Result<Session, Words> {
    let answer = wire.request(&walk.url("polling", None), None).await.map_err(unreached)?;
    let body = String::from_utf8_lossy(&answer.body);
    let opened = body.strip_prefix('0').and_then(|json| serde_json::from_str::<Opened>(json).ok());
    match opened {
        Some(Opened { sid }) if answer.status == 200 => {
            Ok(Session { wire, sid, socket: None, early: Vec::new() })
        }
        Some(_) | None => Err(walk.refused("the handshake", &answer)),
    }
}

/// Opens a session on a WebSocket.
pub(super) async fn open_by_websocket(walk: &Walk, wire: Wire) -> Result<Session, Words> {
    let url = walk.url("websocket", None);
    let mut socket = wire.websocket(&url).await.map_err(|refusal| walk.not_upgraded(refusal))?;
    loop {
        let text = text_of(socket.receive().await?);
        if let Some(json) = text.strip_prefix('0')
            && let Ok(Opened { sid }) = serde_json::from_str(json)
        {
            return Ok(Session { wire, sid, socket: Some(socket), early: Vec::new() });
        }
    }
}

/// Joins the namespace of probes, over whatever carries the session. Where there are no namespaces
/// it only says something.
pub(super) async fn join(walk: &Walk, session: &mut Session) -> Result<(), Words> {
    if !walk.namespaces {
        // A noop: the server takes it, and hears nothing.
        return session.say(walk, "6").await;
    }
    session.say(walk, &format!("40{NAMESPACE},")).await?;
    let answer = session
        .hear(walk, |packet| packet.starts_with(&format!("40{NAMESPACE},")) || is_refusal(packet));
    let answer = answer.await?;
    if is_refusal(&answer) {
        return Err(
            "the server did not know its own probe: either something on the way drops the \
             header x-bowline-probe, or the URL leads to another server"
                .to_owned(),
        );
    }
    Ok(())
}

fn is_refusal(packet: &str) -> bool {
    packet.starts_with(&format!("44{NAMESPACE},"))
}

/// Moves a session from polling to a WebSocket.
pub(super) async fn upgrade(walk: &Walk, session: &mut Session) -> Result<(), Words> {
    let url = walk.url("websocket", Some(&session.sid));
    let refused = |refusal| walk.not_upgraded(refusal);
    let mut socket = session.wire.websocket(&url).await.map_err(refused)?;
    let silent = |error: String| {
        format!("the WebSocket was opened, but the session did not come over: {error}")
    };
    socket.send("2probe").await.map_err(silent)?;
    let answer = text_of(socket.receive().await.map_err(silent)?);
    if answer != "3probe" {
        return Err(silent(format!("instead of `3probe` came `{}`", excerpt(&answer))));
    }
    socket.send("5").await.map_err(silent)?;
    session.socket = Some(socket);
    Ok(())
}

/// Sends an event and waits until it comes back.
pub(super) async fn event(walk: &Walk, session: &mut Session) -> Result<(), Words> {
    let event = format!("42{NAMESPACE},[\"probe\",\"{}\"]", walk.nonce);
    session.say(walk, &event).await?;
    session.hear(walk, |packet| *packet == event).await.map(|_| ())
}

/// Sends an event that asks for an ack, and waits for that.
pub(super) async fn ack(walk: &Walk, session: &mut Session) -> Result<(), Words> {
    let nonce = &walk.nonce;
    session.say(walk, &format!("42{NAMESPACE},7[\"probe\",\"{nonce}\"]")).await?;
    let ack = format!("43{NAMESPACE},7[\"{nonce}\"]");
    session.hear(walk, |packet| *packet == ack).await.map(|_| ())
}

impl Session {
    /// Sends a packet.
    async fn say(&mut self, walk: &Walk, packet: &str) -> Result<(), Words> {
        if let Some(socket) = &mut self.socket {
            return socket.send(packet).await;
        }
        let answer = self.wire.request(&walk.url("polling", Some(&self.sid)), Some(packet)).await?;
        if answer.status == 200 { Ok(()) } else { Err(walk.refused("a POST", &answer)) }
    }

    /// Waits for the packet that is `wanted`. Pings that come meanwhile are answered.
    async fn hear(
        &mut self,
        walk: &Walk,
        wanted: impl Fn(&String) -> bool,
    ) -> Result<String, Words> {
        loop {
            if let Some(at) = self.early.iter().position(&wanted) {
                return Ok(self.early.swap_remove(at));
            }
            for packet in self.receive(walk).await? {
                match packet.as_str() {
                    "1" => return Err("the server closed the session".to_owned()),
                    "2" => Box::pin(self.say(walk, "3")).await?,
                    _ => self.early.push(packet),
                }
            }
        }
    }

    async fn receive(&mut self, walk: &Walk) -> Result<Vec<String>, Words> {
        if let Some(socket) = &mut self.socket {
            return Ok(vec![text_of(socket.receive().await?)]);
        }
        let answer = self.wire.request(&walk.url("polling", Some(&self.sid)), None).await?;
        if answer.status != 200 {
            return Err(walk.refused("a poll", &answer));
        }
        let body = String::from_utf8_lossy(&answer.body);
        Ok(body.split('\u{1e}').map(str::to_owned).collect())
    }

    /// Leaves, so that no session waits for its heartbeat to fail.
    pub(super) async fn end(mut self, walk: &Walk) {
        match self.socket.take() {
            Some(socket) => socket.close(limit::PROBE_GOODBYE).await,
            None => {
                // Whether it is heard or not, it is over after that time.
                let goodbye = self.say(walk, "1");
                let _ = tokio::time::timeout(limit::PROBE_GOODBYE, goodbye).await;
            }
        }
    }
}

impl Walk {
    /// Where the engine is asked.
    fn url(&self, transport: &str, sid: Option<&str>) -> String {
        let sid = sid.map(|sid| format!("&sid={sid}")).unwrap_or_default();
        format!("{}?EIO=4&transport={transport}{sid}", self.path)
    }

    /// What an answer means that was not the one a client needs.
    fn refused(&self, what: &str, answer: &Answer) -> Words {
        let words = said(what, answer);
        let body = String::from_utf8_lossy(&answer.body);
        let ours = body.contains("\"code\":");
        let why = match answer.status {
            200 => "something else than Engine.IO answers there",
            300..400 => "Socket.IO clients do not follow redirects: the URL must be the final one",
            400 if body.contains("Session ID unknown") => {
                "requests of one session reach different servers, or the server restarted just now"
            }
            // As nginx puts it, and this server.
            400 if body.contains("HTTPS port") || body.contains("speaks TLS") => {
                "there is TLS at the other end: use https in the URL"
            }
            400 if ours => "the request was changed on the way",
            401 | 403 | 407 if !ours => "something before the server wants to know who asks",
            404 => "the path of the engine does not lead to the server",
            413 => "something on the way does not let bodies through",
            429 | 503 if body.starts_with("limits.") => body.trim_end(),
            503 if body.contains("stopping") => "the server is stopping",
            500..600 if self.proxied => "the proxy does not reach the server",
            _ => return words,
        };
        format!("{words}: {why}")
    }

    /// What it means that there is no WebSocket.
    fn not_upgraded(&self, refusal: Refusal) -> Words {
        let answer = match refusal {
            Refusal::Failed(error) => return format!("the upgrade to WebSocket failed: {error}"),
            Refusal::Answered(answer) => answer,
        };
        let words = said("the upgrade to WebSocket", &answer);
        let json = answer.content_type.as_deref().is_some_and(|kind| kind.contains("json"));
        let why = match answer.status {
            // What the server answers to a request for a WebSocket that asks for none.
            200 => "the server saw no upgrade but a poll: the proxy strips the Upgrade header",
            400 if json => {
                "the server saw a request without Upgrade: the proxy strips that header. It must \
                 speak HTTP/1.1 to the server and pass on Upgrade and Connection"
            }
            400 | 426 => "the headers of the handshake were changed on the way",
            401 | 403 | 407 => "something before the server wants to know who asks",
            404 => "the path of the engine does not lead to the server",
            429 | 503 => "no more connections are taken at the moment",
            500..600 => "the proxy does not pass WebSockets on",
            _ => return words,
        };
        format!("{words}: {why}")
    }
}

/// What it means that there was no answer to the first request.
fn unreached(error: String) -> Words {
    // The words of rustls for bytes that are none of its own.
    if error.contains("InvalidContentType") {
        return format!("{error}: there is no TLS at the other end, the URL must begin with http:");
    }
    error
}

/// What was answered, and by whom.
fn said(what: &str, answer: &Answer) -> Words {
    let by = match &answer.server {
        Some(server) => format!(" by `{}`", excerpt(server)),
        None => String::new(),
    };
    format!("{what} was answered{by} with {}", answer.status)
}

fn text_of(message: Message) -> String {
    match message {
        Message::Text(text) => text.to_string(),
        // Nothing that a probe waits for.
        Message::Binary(_) => String::new(),
    }
}

/// The beginning of what somebody else said, for a message.
fn excerpt(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}
