//! How bots of `webex_bot`'s kind are served through the loopback proxy: they are told of one device, whose socket is
//! here. All else they say to Webex passes through. Pure.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use bowline_dial::Message as Frame;
use bytes::Bytes;
use bytestring::ByteString;
use http::{Method, StatusCode, Uri};
use serde_json::{Value, json};

use super::envelope::{self, Kind, Said, text, uuid_of};
use crate::{
    clock,
    far::Message,
    local::rules::{Answer, Asked, ConfirmedBy, Did, Noted, Rules, Socket},
    settings,
};

/// Where bots talk to Webex, whichever region their account is in.
const HOSTS: [&str; 4] = ["*.wbx2.com", "webexapis.com", "*.webexapis.com", "*.ciscospark.com"];

/// The name `webex_bot` looks for among the devices before it registers one of its own.
const DEVICE_NAME: &str = "python-spark-client";

/// Messages that a socket, and a link, remember to have been offered: acknowledgements and answers to older ones are
/// not recognised.
const OFFERED_MAX: usize = 1024;

/// The rules for one link.
#[derive(Debug)]
pub struct WebexRules {
    hosts: Vec<String>,
    /// Its device's id.
    device: String,
    threads: Arc<Mutex<Threads>>,
}

impl WebexRules {
    /// Makes them for a link with this name.
    pub fn new(link: &str, profile: &settings::Profile) -> Self {
        let mut hosts: Vec<String> = HOSTS.map(str::to_owned).into();
        if let settings::Profile::Webex { catalog_url, api_url, .. } = profile {
            for url in [catalog_url, api_url] {
                let host = url.parse::<Uri>().ok().and_then(|url| url.host().map(str::to_owned));
                hosts.extend(host.filter(|host| !hosts.contains(host)));
            }
        }
        let device = format!("bowline-{link}");
        Self { hosts, device, threads: Arc::default() }
    }

    fn device(&self, host: &str, name: &str, socket_url: &str) -> Value {
        let Self { device, .. } = self;
        json!({
            "url": format!("https://{host}/wdm/api/v1/devices/{device}"),
            "webSocketUrl": format!("{socket_url}/v1/apps/wx2/registrations/{device}/messages"),
            "name": name,
            "deviceName": name,
            "deviceType": "DESKTOP",
            "services": {},
        })
    }
}

impl Rules for WebexRules {
    fn hosts(&self) -> Vec<String> {
        self.hosts.clone()
    }

    fn is_socket(&self, _host: &str, target: &str) -> bool {
        let path = path(target);
        path.contains("/registrations/") && path.ends_with("/messages")
    }

    fn answer(&self, request: &Asked<'_>, socket_url: &str) -> Option<Answer> {
        let (_, rest) = path(request.target).split_once("/wdm/api/v1/devices")?;
        let socket_url = socket_url.trim_end_matches('/');
        let wanted: Value = serde_json::from_slice(request.body).unwrap_or_default();
        let name = match text(&wanted, "/name") {
            "" => DEVICE_NAME,
            name => name,
        };
        let device = || self.device(request.host, name, socket_url);
        let method = request.method;
        let (status, body) = match rest {
            "" if method == Method::GET => (StatusCode::OK, json!({ "devices": [device()] })),
            "" if method == Method::POST => (StatusCode::OK, device()),
            _ if rest.is_empty() || !rest.starts_with('/') => return None,
            // It stays: it is not theirs.
            _ if method == Method::DELETE => (StatusCode::NO_CONTENT, Value::Null),
            _ if method == Method::GET || method == Method::PUT => (StatusCode::OK, device()),
            _ => return None,
        };
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        Some(Answer { status, body })
    }

    fn observe(&self, request: &Asked<'_>, status: StatusCode, body: &Bytes) -> Vec<Noted> {
        let Some(path) = path(request.target).strip_prefix("/v1/") else { return Vec::new() };
        if !status.is_success() {
            return Vec::new();
        }
        if *request.method == Method::GET {
            let id = path.strip_prefix("messages/").or(path.strip_prefix("attachment/actions/"));
            let id = id.filter(|id| !id.is_empty() && !id.contains('/'));
            return id.map(|id| Noted::Fetched { id: uuid_of(id) }).into_iter().collect();
        }
        if *request.method != Method::POST || path != "messages" {
            return Vec::new();
        }
        let asked: Value = serde_json::from_slice(request.body).unwrap_or_default();
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let room = [text(&answer, "/roomId"), text(&asked, "/roomId")];
        let room = room.into_iter().find(|room| !room.is_empty()).map(uuid_of);
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let id = threads.last(&uuid_of(text(&asked, "/parentId")));
        vec![Noted::Replied { id, room }]
    }

    fn socket(&self) -> Box<dyn Socket> {
        Box::new(WebexSocket {
            is_ready: false,
            number: 0,
            offered: VecDeque::new(),
            threads: Arc::clone(&self.threads),
        })
    }
}

fn path(target: &str) -> &str {
    target.split('?').next().unwrap_or_default()
}

/// Which message was offered last of each thread: bots answer into the thread, and name the message that began it.
#[derive(Debug, Default)]
struct Threads {
    /// Thread and message, the oldest first.
    offered: VecDeque<(String, String)>,
}

impl Threads {
    fn note(&mut self, thread: String, message: String) {
        self.offered.retain(|(kept, _)| *kept != thread);
        self.offered.push_back((thread, message));
        if self.offered.len() > OFFERED_MAX {
            self.offered.pop_front();
        }
    }

    fn last(&self, thread: &str) -> Option<String> {
        let found = self.offered.iter().find(|(kept, _)| kept == thread);
        found.map(|(_, message)| message.clone())
    }
}

/// One socket of a bot, as Mercury would speak on it: binary frames, numbered.
#[derive(Debug)]
struct WebexSocket {
    is_ready: bool,
    /// Of the last frame.
    number: u64,
    /// Envelopes and the messages in them, the oldest first.
    offered: VecDeque<(String, String)>,
    threads: Arc<Mutex<Threads>>,
}

impl WebexSocket {
    fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// The message that an acknowledgement means: by envelope, by activity, or by the message's public id.
    fn meant(&self, id: &str) -> String {
        let found = self.offered.iter().rev().find(|(envelope, _)| envelope == id);
        found.map_or_else(|| uuid_of(id), |(_, message)| message.clone())
    }
}

impl Socket for WebexSocket {
    fn opened(&mut self) -> Vec<Frame> {
        Vec::new()
    }

    fn heard(&mut self, frame: &Frame) -> Vec<Did> {
        let bytes = match frame {
            Frame::Text(text) => text.as_bytes(),
            Frame::Binary(bytes) => bytes,
        };
        match envelope::said(bytes) {
            Said::Authorization => {
                self.is_ready = true;
                let number = self.next_number();
                let state = envelope::buffer_state("bowline-admitted", number, clock::unix_ms());
                vec![Did::Reply(Frame::Binary(state))]
            }
            _ if !self.is_ready => {
                vec![Did::Close { code: 1008, words: "authorization expected" }]
            }
            Said::Ping { id } => {
                let number = self.next_number();
                let pong = envelope::pong(&id, number, clock::unix_ms());
                vec![Did::Reply(Frame::Binary(pong))]
            }
            Said::Ack { id } => vec![Did::Confirmed { id: self.meant(&id) }],
            Said::Other => Vec::new(),
        }
    }

    fn offer(&mut self, message: &Message, _attempt: u32) -> Option<Frame> {
        let decoded = envelope::decode(&message.body).ok()?;
        let Kind::Activity(activity) = &decoded.kind else { return None };
        let thread = activity.parent.clone().unwrap_or_else(|| activity.id.clone());
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.note(thread, message.id.clone());
        drop(threads);
        self.offered.push_back((decoded.id.unwrap_or_default(), message.id.clone()));
        if self.offered.len() > OFFERED_MAX {
            self.offered.pop_front();
        }
        let number = self.next_number();
        Some(Frame::Binary(envelope::numbered(&message.body, number)))
    }

    fn pass(&mut self, body: &Bytes) -> Option<Frame> {
        let number = self.next_number();
        Some(Frame::Binary(envelope::numbered(body, number)))
    }

    fn confirmed_by(&self) -> ConfirmedBy {
        ConfirmedBy::Frame
    }

    fn is_ready(&self) -> bool {
        self.is_ready
    }
}

/// A text frame.
pub(super) fn text_frame(text: String) -> Frame {
    Frame::Text(ByteString::from(text))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::profile::webex::envelope::{Envelope, decode, public_id};

    #[test]
    fn a_bot_finds_a_device_whose_socket_is_here() {
        let (status, body) = answered("GET", "/wdm/api/v1/devices", "");
        assert_eq!(status, 200);
        let device = &body["devices"][0];
        assert_eq!(device["name"], "python-spark-client");
        let socket =
            "wss://localhost:8002/links/ann/s3cret/v1/apps/wx2/registrations/bowline-ann/messages";
        assert_eq!(device["webSocketUrl"], socket);
        assert!(rules().is_socket("localhost", "/x/v1/apps/wx2/registrations/a/messages?b=c"));
        assert!(!rules().is_socket("webexapis.com", "/v1/messages"));

        let (_, own) = answered("POST", "/wdm/api/v1/devices?x=y", r#"{"name":"another"}"#);
        assert_eq!((&own["name"], &own["webSocketUrl"]), (&"another".into(), &socket.into()));
        let url = own["url"].as_str().unwrap().strip_prefix("https://wdm-a.wbx2.com").unwrap();
        assert_eq!(answered("PUT", url, "{}").1["url"], own["url"]);
        assert_eq!(answered("DELETE", url, "").0, 204);
    }

    #[test]
    fn everything_else_passes() {
        let request = |method, target| ask(&rules(), method, target, "");
        assert_eq!(request(Method::GET, "/v1/messages/a"), None);
        assert_eq!(request(Method::GET, "/u2c/api/v1/catalog"), None);
        assert_eq!(request(Method::GET, "/wdm/api/v1/devicesX"), None);
        assert_eq!(request(Method::PATCH, "/wdm/api/v1/devices"), None);
        assert_eq!(
            rules().hosts(),
            ["*.wbx2.com", "webexapis.com", "*.webexapis.com", "*.ciscospark.com"]
        );
    }

    #[test]
    fn only_who_authorises_himself_is_heard() {
        let mut socket = rules().socket();
        assert_eq!(socket.opened(), []);
        let close = Did::Close { code: 1008, words: "authorization expected" };
        assert_eq!(socket.heard(&frame(envelope::ping("p"))), [close]);
        assert!(!socket.is_ready());
        let said = socket.heard(&frame(envelope::authorization("a", "token")));
        assert!(socket.is_ready());
        assert_eq!(replied(&said).kind, Kind::Admitted);
        let pong = replied(&socket.heard(&frame(envelope::ping("p"))));
        assert_eq!((pong.id.as_deref(), pong.number), (Some("p"), Some(2)));
    }

    #[test]
    fn a_message_is_confirmed_by_any_of_its_ids() {
        let rules = rules();
        let mut socket = rules.socket();
        socket.heard(&frame(envelope::authorization("a", "token")));
        let offered = socket.offer(&message("m1", None), 1).unwrap();
        let Frame::Binary(offered) = offered else { panic!("Mercury speaks binary") };
        let envelope = decode(&offered).unwrap();
        assert_eq!((envelope.id.as_deref(), envelope.number), (Some("envelope-m1"), Some(2)));
        let public = public_id("MESSAGE", "m1");
        let action = public_id("ATTACHMENT_ACTION", "m1");
        for id in ["envelope-m1", "m1", &public, &format!("{public}=="), &action] {
            let did = socket.heard(&frame(envelope::ack(id)));
            assert_eq!(did, [Did::Confirmed { id: "m1".to_owned() }], "{id}");
        }
    }

    #[test]
    fn what_a_bot_fetches_and_answers_is_noted() {
        let rules = rules();
        let note = |method, target: &str, asked: &str, status: u16, answer: &str| {
            let body = Bytes::from(asked.to_owned());
            let headers = HeaderMap::new();
            let host = "webexapis.com";
            let asked = Asked { method: &method, host, target, headers: &headers, body: &body };
            let status = StatusCode::from_u16(status).unwrap();
            rules.observe(&asked, status, &Bytes::from(answer.to_owned()))
        };
        let id = public_id("MESSAGE", "m1");
        let fetched = Noted::Fetched { id: "m1".to_owned() };
        let target = format!("/v1/messages/{id}");
        assert_eq!(note(Method::GET, &target, "", 200, "{}"), [fetched]);
        assert_eq!(note(Method::GET, &target, "", 404, "{}"), []);
        assert_eq!(note(Method::GET, "/v1/messages?roomId=x", "", 200, "{}"), []);
        assert_eq!(note(Method::GET, "/conversation/api/v1/messages/m1", "", 200, "{}"), []);

        let answer = format!(r#"{{"roomId":"{}"}}"#, public_id("ROOM", "r1"));
        let replied = |id: Option<&str>| Noted::Replied {
            id: id.map(str::to_owned),
            room: Some("r1".to_owned()),
        };
        let post = |parent: &str| {
            let asked = format!(r#"{{"markdown":"x","parentId":"{parent}"}}"#);
            note(Method::POST, "/v1/messages", &asked, 200, &answer)
        };
        assert_eq!(post("m1"), [replied(None)], "it was not offered");
        let mut socket = rules.socket();
        socket.offer(&message("m1", None), 1);
        assert_eq!(post("m1"), [replied(Some("m1"))]);
        socket.offer(&message("m2", Some("m1")), 1);
        assert_eq!(post(&public_id("MESSAGE", "m1")), [replied(Some("m2"))], "the thread's last");
        let whole = format!(r#"{{"roomId":"{}"}}"#, public_id("ROOM", "r1"));
        assert_eq!(note(Method::POST, "/v1/messages", &whole, 200, "cut"), [replied(None)]);
    }

    fn rules() -> WebexRules {
        let device = "bowline-ann".to_owned();
        let hosts = HOSTS.map(str::to_owned).into();
        WebexRules { hosts, device, threads: Arc::default() }
    }

    fn answered(method: &str, target: &str, body: &str) -> (u16, Value) {
        let method = method.parse().unwrap();
        let answer = ask(&rules(), method, target, body).unwrap();
        (answer.status.as_u16(), serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    fn ask(rules: &WebexRules, method: Method, target: &str, body: &str) -> Option<Answer> {
        let body = Bytes::from(body.to_owned());
        let (host, headers) = ("wdm-a.wbx2.com", HeaderMap::new());
        let asked = Asked { method: &method, host, target, headers: &headers, body: &body };
        rules.answer(&asked, "wss://localhost:8002/links/ann/s3cret")
    }

    fn frame(text: String) -> Frame {
        text_frame(text)
    }

    fn replied(did: &[Did]) -> Envelope {
        match did {
            [Did::Reply(Frame::Binary(bytes))] => decode(bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn message(id: &str, parent: Option<&str>) -> Message {
        let parent = parent.map(|id| json!({ "id": id, "type": "reply" }));
        let activity = json!({ "id": id, "verb": "post", "parent": parent });
        let data = json!({ "eventType": "conversation.activity", "activity": activity });
        Message {
            id: id.to_owned(),
            own_id: true,
            room: "r1".to_owned(),
            receipt: None,
            confirm: true,
            body: json!({ "id": format!("envelope-{id}"), "data": data }).to_string().into(),
        }
    }
}
