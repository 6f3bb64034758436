//! What is asked of Webex over HTTP, with the token of one bot.

use std::{sync::Arc, time::Duration};

use bowline_dial::{Leg, LegFailure, LegRequest};
use bowline_proto::keeper::{OpenFailure, Verdict};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{
    device::{self, CONVERSATIONS, Catalog, Device},
    envelope::{public_id, text, uuid_of},
};
use crate::settings::Secret;

/// The most of an answer that is read.
const BODY_MAX_BYTES: usize = 4 << 20;

/// Spaces that are looked through for the one for probes.
const SPACES: usize = 100;

/// How long one page of a list may take.
const PAGE_WITHIN: Duration = Duration::from_secs(30);

/// The port of `https://`.
const HTTPS: u16 = 443;

/// How long it is waited when the service asks for it, and how often.
const WAIT_MAX: Duration = Duration::from_secs(30);
const WAITS_MAX: u32 = 3;

/// Domains that a token of Webex is sent to, besides the hosts of the configuration.
const DOMAINS: [&str; 4] = [".wbx2.com", ".webexapis.com", ".webex.com", ".ciscospark.com"];

/// The services, for one token.
#[derive(Debug)]
pub(super) struct Cloud {
    pub(super) leg: Arc<Leg>,
    pub(super) token: Secret,
    pub(super) catalog_url: String,
    pub(super) api_url: String,
}

/// Who the bot is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Me {
    /// Its UUID.
    pub(super) id: String,
    /// Its addresses, in small letters.
    pub(super) emails: Vec<String>,
}

impl Me {
    /// Whether it is the one who did something.
    pub(super) fn is(&self, actor: &str, email: &str) -> bool {
        (!actor.is_empty() && self.id == actor)
            || self.emails.iter().any(|own| own.eq_ignore_ascii_case(email))
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Cloud {
    pub(super) async fn me(&self) -> Result<Me, OpenFailure> {
        let what = "asking who the bot is";
        let answer = self.get(what, &format!("{}/people/me", self.api_url)).await?;
        let me = answer.json();
        let emails = me.get("emails").and_then(Value::as_array).into_iter().flatten();
        let emails = emails.filter_map(Value::as_str).map(str::to_ascii_lowercase).collect();
        let id = uuid_of(text(&me, "/id"));
        if id.is_empty() {
            return Err(again(what, "the answer names nobody"));
        }
        Ok(Me { id, emails })
    }

    pub(super) async fn catalog(&self) -> Result<Catalog, OpenFailure> {
        let what = "reading the catalog";
        let url = format!("{}/catalog?format=hostmap", self.catalog_url);
        let answer = self.get(what, &url).await?;
        let mut catalog = Catalog::decode(&answer.body)
            .ok_or_else(|| again(what, "it does not say where devices are"))?;
        if !self.is_service(&catalog.devices) {
            return Err(elsewhere(what, &catalog.devices));
        }
        if !self.is_service(&catalog.conversations) {
            catalog.conversations = CONVERSATIONS.to_owned();
        }
        Ok(catalog)
    }

    /// The devices of the account, in the service's order.
    pub(super) async fn devices(&self, catalog: &Catalog) -> Result<Vec<Device>, OpenFailure> {
        let url = format!("{}/devices", catalog.devices);
        let what = "listing the devices";
        let answer = self.get(what, &url).await?;
        let devices = Device::decode_list(&answer.body).into_iter();
        Ok(devices.filter_map(|device| self.own(what, device).ok()).collect())
    }

    /// Registers a device. `Ok(None)`: there are too many.
    pub(super) async fn register(
        &self,
        catalog: &Catalog,
        name: &str,
    ) -> Result<Option<Device>, OpenFailure> {
        let what = "registering a device";
        let url = format!("{}/devices", catalog.devices);
        let body = Some(device::registration(name));
        let answer = self.ask(Method::POST, &url, body).await.map_err(|why| failed(what, &why))?;
        if device::is_excessive(answer.status.as_u16(), &answer.body) {
            return Ok(None);
        }
        if !answer.status.is_success() {
            return Err(self.refusal(what, &answer));
        }
        let device = Device::decode(&answer.body)
            .ok_or_else(|| again(what, "the answer names no socket"))?;
        self.own(what, device).map(Some)
    }

    /// Tells the service that a device is in use. `Ok(None)`: it is not there any more.
    pub(super) async fn refresh(&self, device: &Device) -> Result<Option<Device>, OpenFailure> {
        let what = "refreshing the device";
        let body = Some(device::registration(&device.name));
        let asked = self.ask(Method::PUT, &device.url, body).await;
        let answer = asked.map_err(|why| failed(what, &why))?;
        match answer.status {
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
            status if status.is_success() => {
                let device = Device::decode(&answer.body).unwrap_or_else(|| device.clone());
                self.own(what, device).map(Some)
            }
            _ => Err(self.refusal(what, &answer)),
        }
    }

    /// Deletes a device, as far as it can be done. What is left is found at the next start.
    pub(super) async fn delete_device(&self, url: &str) {
        self.delete(url).await;
    }

    pub(super) async fn delete_message(&self, uuid: &str) {
        let id = public_id("MESSAGE", uuid);
        self.delete(&format!("{}/messages/{id}", self.api_url)).await;
    }

    /// Posts a message. The message as the service has it, or the answer that refuses it.
    pub(super) async fn post(&self, message: &Value) -> Result<Value, Refused> {
        let url = format!("{}/messages", self.api_url);
        let mut waits = 0;
        loop {
            let asked = self.ask(Method::POST, &url, Some(message.clone())).await;
            let answer = match asked {
                // It never left: nothing is said twice.
                Err(why) if !why.is_sent() && waits < WAITS_MAX => {
                    waits += 1;
                    continue;
                }
                Err(why) => {
                    let words = format!("posting a message: {}", why.words);
                    return Err(Refused { status: None, words, retry_after: None });
                }
                Ok(answer) => answer,
            };
            if answer.status.is_success() {
                return Ok(answer.json());
            }
            let wait = device::retry_after(&answer.headers).filter(|wait| *wait <= WAIT_MAX);
            if let Some(wait) = wait
                && answer.status == StatusCode::TOO_MANY_REQUESTS
                && waits < WAITS_MAX
            {
                waits += 1;
                sleep(wait).await;
                continue;
            }
            return Err(self.refused("posting a message", &answer));
        }
    }

    /// The space with this title that the bot has made, or a new one: its public id.
    pub(super) async fn space(&self, title: &str) -> Result<String, String> {
        let what = "looking for the space for probes";
        let url = format!("{}/rooms?type=group&sortBy=lastactivity&max={SPACES}", self.api_url);
        let answer = self.get(what, &url).await.map_err(|why| why.words)?;
        let rooms = answer.json();
        let rooms = rooms.get("items").and_then(Value::as_array).into_iter().flatten();
        for room in rooms {
            if text(room, "/title") == title {
                return Ok(text(room, "/id").to_owned());
            }
        }
        let url = format!("{}/rooms", self.api_url);
        let asked = self.ask(Method::POST, &url, Some(json!({ "title": title }))).await;
        let answer = asked.map_err(|why| why.words)?;
        if !answer.status.is_success() {
            return Err(self.refusal("making a space for probes", &answer).words);
        }
        match text(&answer.json(), "/id") {
            "" => Err("making a space for probes: the answer names none".to_owned()),
            id => Ok(id.to_owned()),
        }
    }

    /// The space of a message, by its UUID.
    pub(super) async fn room_of(&self, uuid: &str) -> Result<String, String> {
        let url = format!("{}/messages/{}", self.api_url, public_id("MESSAGE", uuid));
        let what = "looking for the space of a message";
        let answer = self.get(what, &url).await.map_err(|why| why.words)?;
        match text(&answer.json(), "/roomId") {
            "" => Err(format!("{what}: the answer names none")),
            room => Ok(room.to_owned()),
        }
    }

    /// A message with its text, as the public API has it, by the URL of its activity at the conversations' service:
    /// only that knows in which part of the world the message is.
    pub(super) async fn message(&self, lookup: &str, is_action: bool) -> Result<Bytes, String> {
        if !self.is_service(lookup) {
            return Err("the conversation is at no host of Webex".to_owned());
        }
        let what = "looking a message up";
        let answer = self.get(what, lookup).await.map_err(|why| why.words)?;
        let answer = answer.json();
        let id = text(&answer, "/id");
        if id.is_empty()
            || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_=".contains(&byte))
        {
            return Err(format!("{what}: the answer names none"));
        }
        let kind = if is_action { "attachment/actions" } else { "messages" };
        let url = format!("{}/{kind}/{id}", self.api_url);
        let answer = self.get("getting a message", &url).await.map_err(|why| why.words)?;
        Ok(answer.body)
    }

    /// One page of a list: what is answered with a success.
    pub(super) async fn page(&self, what: &str, url: &str) -> Result<Answer, Refused> {
        let asked = timeout(PAGE_WITHIN, self.ask(Method::GET, url, None)).await;
        let failed = |why: &str| Refused {
            status: None,
            words: format!("{what}: {why}"),
            retry_after: None,
        };
        let answer = match asked {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => return Err(failed(&why.words)),
            Err(_) => return Err(failed("the service took too long")),
        };
        if answer.status.is_success() { Ok(answer) } else { Err(self.refused(what, &answer)) }
    }

    /// Whether the token may be sent there, by HTTP or on a socket.
    pub(super) fn is_service(&self, url: &str) -> bool {
        let Some((host, port)) = server(url) else { return false };
        let is_own = |own: &String| server(own).is_some_and(|own| own == (host.clone(), port));
        [&self.catalog_url, &self.api_url].into_iter().any(is_own)
            || port == HTTPS && DOMAINS.iter().any(|domain| host.ends_with(domain))
    }

    /// Whether it is at the public API: where pages follow each other.
    pub(super) fn is_api(&self, url: &str) -> bool {
        server(url).is_some_and(|asked| Some(asked) == server(&self.api_url))
    }

    /// A device that the service names, if the token may be sent there.
    fn own(&self, what: &str, device: Device) -> Result<Device, OpenFailure> {
        let foreign = [&device.url, &device.socket].into_iter().find(|url| !self.is_service(url));
        if let Some(foreign) = foreign {
            return Err(elsewhere(what, foreign));
        }
        Ok(device)
    }

    fn refusal(&self, what: &str, answer: &Answer) -> OpenFailure {
        let Answer { status, headers, body } = answer;
        // Whoever is confused may say what he was sent.
        let body = String::from_utf8_lossy(body).replace(self.token.expose(), "(token)");
        device::refusal(what, status.as_u16(), headers, body.as_bytes())
    }

    fn refused(&self, what: &str, answer: &Answer) -> Refused {
        let OpenFailure { words, retry_after, .. } = self.refusal(what, answer);
        Refused { status: Some(answer.status), words, retry_after }
    }

    async fn get(&self, what: &str, url: &str) -> Result<Answer, OpenFailure> {
        let answer = self.ask(Method::GET, url, None).await.map_err(|why| failed(what, &why))?;
        if answer.status.is_success() { Ok(answer) } else { Err(self.refusal(what, &answer)) }
    }

    async fn delete(&self, url: &str) {
        match self.ask(Method::DELETE, url, None).await {
            Ok(answer) if answer.status.is_success() || answer.status == StatusCode::NOT_FOUND => {}
            Ok(answer) => tracing::debug!(status = answer.status.as_u16(), "nothing was deleted"),
            Err(error) => tracing::debug!(%error, "nothing was deleted"),
        }
    }

    async fn ask(
        &self,
        method: Method,
        url: &str,
        body: Option<Value>,
    ) -> Result<Answer, LegFailure> {
        let mut headers = HeaderMap::new();
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", self.token.expose()))
            .unwrap_or_else(|_| HeaderValue::from_static(""));
        bearer.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, bearer);
        let json = HeaderValue::from_static("application/json;charset=utf-8");
        headers.insert(header::ACCEPT, json.clone());
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        if !body.is_empty() {
            headers.insert(header::CONTENT_TYPE, json);
        }
        let request = LegRequest { method, url: url.to_owned(), headers, body };
        let answer = self.leg.send(request).await?;
        let (status, headers) = (answer.status, answer.headers);
        let body = answer.body.collect(BODY_MAX_BYTES).await?;
        Ok(Answer { status, headers, body })
    }
}

/// Something that was not answered as it was wanted.
#[derive(Debug)]
pub(super) struct Refused {
    /// What was answered, if anything was.
    pub(super) status: Option<StatusCode>,
    pub(super) words: String,
    /// When it may be asked again, if the service says so.
    pub(super) retry_after: Option<Duration>,
}

fn failed(what: &str, why: &LegFailure) -> OpenFailure {
    again(what, &why.words)
}

fn again(what: &str, why: &str) -> OpenFailure {
    let words = format!("{what}: {why}");
    OpenFailure { verdict: Verdict::Again, words, retry_after: None }
}

/// Somebody wants the token to be sent elsewhere.
fn elsewhere(what: &str, url: &str) -> OpenFailure {
    let host = server(url).map_or_else(|| "no host".to_owned(), |(host, _)| host);
    let words =
        format!("{what}: it names {host}, which is none of Webex's: no token is sent there");
    OpenFailure { verdict: Verdict::Refused, words, retry_after: None }
}

/// Host and port of a URL that is spoken to over TLS.
fn server(url: &str) -> Option<(String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let is_secure = matches!(uri.scheme_str(), Some("https" | "wss"));
    let host = uri.host().filter(|host| is_secure && !host.is_empty())?;
    Some((host.to_ascii_lowercase(), uri.port_u16().unwrap_or(HTTPS)))
}

#[cfg(test)]
mod tests {
    use bowline_dial::LegOptions;

    use super::*;

    #[test]
    fn a_token_goes_to_webex_and_nowhere_else() {
        let cloud = Cloud {
            leg: Arc::new(Leg::new(LegOptions::default())),
            token: Secret::new("t"),
            catalog_url: "https://u2c.example.com/u2c/api/v1".to_owned(),
            api_url: "https://webexapis.com/v1".to_owned(),
        };
        for url in [
            "https://conv-r.wbx2.com/conversation/api/v1/messages/a",
            "https://webexapis.com/v1/rooms",
            "https://u2c.example.com/x",
            "wss://mercury-connection-a.wbx2.com/v1/apps/wx2/registrations/a/messages",
            "https://Conv-A.wbx2.COM:443/",
        ] {
            assert!(cloud.is_service(url), "{url}");
        }
        for url in [
            "http://conv-a.wbx2.com/",
            "https://wbx2.com.example.com/",
            "https://evilwbx2.com/",
            "https://example.com/",
            "https://conv-a.wbx2.com@example.com/",
            "https://example.com#.wbx2.com",
            "https://example.com?.wbx2.com",
            "https://example.com/.wbx2.com",
            "https://conv-a.wbx2.com:8443/",
            "https://u2c.example.com:8443/x",
            "ws://mercury-connection-a.wbx2.com/",
            "conv-a.wbx2.com",
            "",
        ] {
            assert!(!cloud.is_service(url), "{url}");
        }
    }

    #[test]
    fn a_bot_knows_itself_by_its_id_and_by_its_addresses() {
        let me = Me { id: "u1".to_owned(), emails: vec!["ann@webex.bot".to_owned()] };
        assert!(me.is("u1", "") && me.is("", "Ann@webex.bot"));
        assert!(!me.is("", "") && !me.is("u2", "bob@webex.bot"));
    }
}
