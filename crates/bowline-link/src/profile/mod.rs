//! What services speak: one [`Profile`] each, and [`Rules`] for bots that come through the loopback proxy.
//!
//! # Forms of bodies
//!
//! What a [`Message`](crate::far::Message) holds, what [`Profile::fetch`] makes of it (always JSON, for apps and
//! namespaces), and what [`Outgoing`](crate::far::Outgoing) is to hold:
//!
//! - **websocket**: a text as it is; binary behind one byte `0xFF`, which no text begins with. Fetched: JSON as it is,
//!   another text as a JSON string, binary as `{"$binary":"BASE64"}`. Outgoing: as it is, `text` says of which kind.
//! - **socketio**: `[event, …args]`, binary in it as `{"$binary":"BASE64"}`. Fetched: the same. Outgoing: the same; in
//!   answer to an event that asked for an ack, the array of what it is acked with.
//! - **webex**: see there.
//!
//! [`Profile`]: crate::far::Profile
//! [`Profile::fetch`]: crate::far::Profile::fetch
//! [`Rules`]: crate::local::rules::Rules

mod reading;
mod socketio;
mod verdict;
pub mod webex;
mod websocket;

use std::{fmt, sync::Arc};

use bowline_dial::{CertificateDer, Leg, LegOptions, Proxy, Trust};
use bowline_proto::keeper::LegConfig;
use bowline_store::Inbox;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;

pub use socketio::SocketIo;
pub use websocket::{WebSocket, WebSocketRules};

use crate::{
    far::{Event, SharedProfile},
    local::rules::Rules,
    settings,
};

/// What a link is made of, on the side of its service.
#[derive(Debug, Clone)]
pub struct Made {
    /// The connections.
    pub profile: SharedProfile,
    /// How unmodified bots are served; `None` where the profile has no way to do that.
    pub rules: Option<Arc<dyn Rules>>,
    /// The HTTP of the link, for the profile's own requests and for those of its bots.
    pub leg: Arc<Leg>,
    /// Which servers are believed.
    pub trust: Trust,
    /// The proxy that everything of the link goes through.
    pub proxy: Option<Proxy>,
}

/// Makes the far side of a link. Nothing is connected yet. `facts` is where it remembers small things.
///
/// # Errors
///
/// Its settings cannot be used: a file that cannot be read, a URL or a template that cannot be understood.
pub fn make(link: &settings::Link, facts: Inbox) -> Result<Made, Unusable> {
    let proxy = proxy_of(link)?;
    let trust = trust_of(link)?;
    let leg = Arc::new(Leg::new(LegOptions {
        proxy: proxy.clone(),
        trust: trust.clone(),
        connect_timeout: link.http.connect_timeout,
        head_timeout: link.http.head_timeout,
        policy: LegConfig {
            idle_max: link.http.idle_max,
            reused_head_timeout: link.http.reused_head_timeout,
            ..LegConfig::default()
        },
        ..LegOptions::default()
    }));
    let way = Way { trust: trust.clone(), proxy: proxy.clone() };
    let (profile, rules): (SharedProfile, Option<Arc<dyn Rules>>) = match &link.profile {
        settings::Profile::WebSocket { .. } => {
            let rules = WebSocketRules::new(link)?;
            (Arc::new(WebSocket::new(link, way)?), Some(Arc::new(rules)))
        }
        settings::Profile::SocketIo { .. } => (Arc::new(SocketIo::new(link, way)?), None),
        settings::Profile::Webex { .. } => {
            let webex = webex::Webex::new(link, Arc::clone(&leg), way, facts)?;
            (Arc::new(webex), Some(Arc::new(webex::WebexRules::new(&link.name, &link.profile))))
        }
    };
    Ok(Made { profile, rules, leg, trust, proxy })
}

/// Why a link cannot be made, for people. Tells no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable(pub(crate) String);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unusable {}

/// How the service is reached.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) trust: Trust,
    pub(crate) proxy: Option<Proxy>,
}

fn proxy_of(link: &settings::Link) -> Result<Option<Proxy>, Unusable> {
    let parse = |url: &settings::Secret| Proxy::parse(url.expose());
    link.proxy.as_ref().map(parse).transpose().map_err(|error| Unusable(error.to_string()))
}

fn trust_of(link: &settings::Link) -> Result<Trust, Unusable> {
    let Some(path) = &link.ca_file else { return Ok(Trust::System) };
    let failed = |words: String| Unusable(format!("{}: {words}", path.display()));
    let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| failed(error.to_string()))?;
    if certificates.is_empty() {
        return Err(failed("no certificate is in it".to_owned()));
    }
    Ok(Trust::SystemAnd(certificates))
}

/// Puts the token where a template has `{token}`.
fn fill(template: &str, token: Option<&settings::Secret>) -> String {
    match token {
        Some(token) => template.replace(TOKEN, token.expose()),
        None => template.to_owned(),
    }
}

/// The same in every string of a JSON value, so that no token can break out of one.
fn fill_json(value: &mut Value, token: Option<&settings::Secret>) {
    match value {
        Value::String(text) => *text = fill(text, token),
        Value::Array(items) => items.iter_mut().for_each(|item| fill_json(item, token)),
        Value::Object(members) => members.values_mut().for_each(|item| fill_json(item, token)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

const TOKEN: &str = "{token}";

/// What an event holds.
fn bytes_of(event: &Event) -> usize {
    match event {
        Event::Message(message) => message.body.len(),
        Event::Passing(body) | Event::Answered { answer: Ok(body), .. } => body.len(),
        Event::Written { id } => id.len(),
        Event::Heard(_)
        | Event::Probed { .. }
        | Event::NotProbed { .. }
        | Event::Answered { answer: Err(_), .. }
        | Event::Draining
        | Event::Closed { .. } => 0,
    }
}

/// The host of a URL, without its port: what `hosts` of rules are compared with.
fn host_of(url: &str) -> Result<String, Unusable> {
    let uri = url.parse::<http::Uri>().ok();
    let host = uri.as_ref().and_then(http::Uri::host).filter(|host| !host.is_empty());
    host.map(str::to_ascii_lowercase).ok_or_else(|| Unusable("its URL names no host".to_owned()))
}

#[cfg(test)]
pub(crate) mod tests;
