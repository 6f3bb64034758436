//! What is asked of Webex over HTTP, with the token of one bot.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use bowline_dial::{Leg, LegFailure, LegRequest};
use bowline_proto::keeper::{OpenFailure, Verdict};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    device::{self, Catalog, Device},
    envelope::{public_id, text, uuid_of},
};
use crate::settings::Secret;

/// The most of an answer that is read.
const BODY_MAX_BYTES: usize = 4 << 20;

/// Rooms and messages on a page.
const PAGE: usize = 100;

/// Pages of rooms, and of messages of each room, that are looked through.
const PAGES_MAX: usize = 10;

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

    fn refusal(&self, what: &str) -> OpenFailure {
        device::refusal(what, self.status.as_u16(), &self.headers, &self.body)
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
        Catalog::decode(&answer.body)
            .ok_or_else(|| again(what, "it does not say where devices are"))
    }

    /// The devices of the account, in the service's order.
    pub(super) async fn devices(&self, catalog: &Catalog) -> Result<Vec<Device>, OpenFailure> {
        let url = format!("{}/devices", catalog.devices);
        let answer = self.get("listing the devices", &url).await?;
        Ok(Device::decode_list(&answer.body))
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
            return Err(answer.refusal(what));
        }
        let device = Device::decode(&answer.body);
        device.map(Some).ok_or_else(|| again(what, "the answer names no socket"))
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
                Ok(Some(Device::decode(&answer.body).unwrap_or_else(|| device.clone())))
            }
            _ => Err(answer.refusal(what)),
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
                    return Err(Refused { status: None, words });
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
            let OpenFailure { words, .. } = answer.refusal("posting a message");
            return Err(Refused { status: Some(answer.status), words });
        }
    }

    /// The space with this title that the bot has made, or a new one: its public id.
    pub(super) async fn space(&self, title: &str) -> Result<String, String> {
        let what = "looking for the space for probes";
        let url = format!("{}/rooms?type=group&max={PAGE}", self.api_url);
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
            return Err(answer.refusal("making a space for probes").words);
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

    /// What was written since then into the spaces that the bot is in, the oldest first, as the public API has it. In
    /// groups it is told only of what mentions it.
    pub(super) async fn messages_since(
        &self,
        since_unix_ms: u64,
        but_not_in: Option<&str>,
    ) -> Result<Vec<Value>, String> {
        let mut found = Vec::new();
        let url = format!("{}/rooms?sortBy=lastactivity&max={PAGE}", self.api_url);
        let rooms = self.pages("listing the spaces", url, "/lastActivity", since_unix_ms).await?;
        for room in rooms {
            let id = text(&room, "/id");
            if id.is_empty() || but_not_in == Some(id) {
                continue;
            }
            let mut url = format!("{}/messages?roomId={id}&max={PAGE}", self.api_url);
            if text(&room, "/type") != "direct" {
                let _ = write!(url, "&mentionedPeople=me");
            }
            match self.pages("listing messages", url, "/created", since_unix_ms).await {
                // Of two of the same millisecond the list has the newer one first.
                Ok(messages) => found.extend(messages.into_iter().rev()),
                // Spaces come and go, and some may not be read.
                Err(why) if why.contains("answered 40") => {
                    tracing::debug!(%why, "a space is left out")
                }
                Err(why) => return Err(why),
            }
        }
        found.sort_by(|a, b| text(a, "/created").cmp(text(b, "/created")));
        Ok(found)
    }

    /// Items of a list that begins with the newest, as far as they are not older than that.
    async fn pages(
        &self,
        what: &str,
        url: String,
        time: &str,
        since_unix_ms: u64,
    ) -> Result<Vec<Value>, String> {
        let mut found = Vec::new();
        let mut next = Some(url);
        for _ in 0..PAGES_MAX {
            let Some(url) = next.take() else { break };
            let answer = self.get(what, &url).await.map_err(|why| why.words)?;
            let page = answer.json();
            for item in page.get("items").and_then(Value::as_array).into_iter().flatten() {
                // What does not say when it was is taken.
                let at = super::time::unix_ms(text(item, time)).unwrap_or(u64::MAX);
                if at < since_unix_ms {
                    return Ok(found);
                }
                found.push(item.clone());
            }
            next = link_to_next(&answer.headers).filter(|url| self.is_service(url));
        }
        Ok(found)
    }

    /// Whether the token may be sent there.
    fn is_service(&self, url: &str) -> bool {
        let host = |url: &str| {
            let uri: Uri = url.parse().ok()?;
            (uri.scheme_str() == Some("https")).then(|| uri.host().map(str::to_owned)).flatten()
        };
        let Some(asked) = host(url) else { return false };
        let own = [&self.catalog_url, &self.api_url];
        DOMAINS.iter().any(|domain| asked.ends_with(domain))
            || own.into_iter().any(|own| host(own).as_ref() == Some(&asked))
    }

    async fn get(&self, what: &str, url: &str) -> Result<Answer, OpenFailure> {
        let answer = self.ask(Method::GET, url, None).await.map_err(|why| failed(what, &why))?;
        if answer.status.is_success() { Ok(answer) } else { Err(answer.refusal(what)) }
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

/// A message that was not posted.
#[derive(Debug)]
pub(super) struct Refused {
    /// What was answered, if anything was.
    pub(super) status: Option<StatusCode>,
    pub(super) words: String,
}

fn failed(what: &str, why: &LegFailure) -> OpenFailure {
    again(what, &why.words)
}

fn again(what: &str, why: &str) -> OpenFailure {
    let words = format!("{what}: {why}");
    OpenFailure { verdict: Verdict::Again, words, retry_after: None }
}

/// The page after this one (RFC 8288).
fn link_to_next(headers: &HeaderMap) -> Option<String> {
    let links = headers.get(header::LINK)?.to_str().ok()?;
    links.split(',').find_map(|link| {
        let (url, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next =
            parameters.split(';').any(|one| matches!(one.trim(), "rel=\"next\"" | "rel=next"));
        is_next.then(|| url.to_owned())
    })
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
        ] {
            assert!(cloud.is_service(url), "{url}");
        }
        for url in [
            "http://conv-a.wbx2.com/",
            "https://wbx2.com.example.com/",
            "https://evilwbx2.com/",
            "https://example.com/",
            "conv-a.wbx2.com",
            "",
        ] {
            assert!(!cloud.is_service(url), "{url}");
        }
    }

    #[test]
    fn the_next_page_is_named_in_a_header() {
        let next = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LINK, HeaderValue::from_static(value));
            link_to_next(&headers)
        };
        let found = next(r#"<https://a/b>; rel="first", <https://a/b?cursor=1>; rel="next""#);
        assert_eq!(found.as_deref(), Some("https://a/b?cursor=1"));
        assert_eq!(next(r#"<https://a/b>; rel="prev""#), None);
        assert_eq!(next("nonsense"), None);
    }

    #[test]
    fn a_bot_knows_itself_by_its_id_and_by_its_addresses() {
        let me = Me { id: "u1".to_owned(), emails: vec!["ann@webex.bot".to_owned()] };
        assert!(me.is("u1", "") && me.is("", "Ann@webex.bot"));
        assert!(!me.is("", "") && !me.is("u2", "bob@webex.bot"));
    }
}
