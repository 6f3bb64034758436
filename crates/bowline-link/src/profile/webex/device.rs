//! Devices: what the service routes events to. Each has a resource and a socket. Pure.

use std::{collections::VecDeque, time::Duration};

use bowline_proto::{Time, keeper::OpenFailure};
use http::{HeaderMap, header::RETRY_AFTER};
use serde_json::{Value, json};

use super::{close, envelope::text};

/// Registrations in an hour. A renewal every ten hours needs none of it; a loop that registers forever would block
/// the whole account at the service's limit of 100 devices (webex-js-sdk#4823).
pub(super) const REGISTRATIONS_MAX: usize = 10;

/// What [`REGISTRATIONS_MAX`] is counted over.
pub(super) const REGISTRATIONS_WITHIN: Duration = Duration::from_secs(3600);

/// Where messages are known by their UUID, if the catalog does not say it.
pub(super) const CONVERSATIONS: &str = "https://conv-a.wbx2.com/conversation/api/v1";

/// The catalog: where an account's services are. They move, and a device at the wrong one hears nothing (webex_bot#48).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Catalog {
    /// The base of the devices' service.
    pub(super) devices: String,
    /// The base of the service that knows messages by their UUID.
    pub(super) conversations: String,
}

impl Catalog {
    /// Reads it; `None` if it does not say where devices are.
    pub(super) fn decode(body: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(body).ok()?;
        let base = |name: &str| {
            let base = text(&value, &format!("/serviceLinks/{name}")).trim_end_matches('/');
            base.starts_with("https://").then(|| base.to_owned())
        };
        let conversations = base("conversation").unwrap_or_else(|| CONVERSATIONS.to_owned());
        Some(Self { devices: base("wdm")?, conversations })
    }
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    /// Its resource: what is refreshed and deleted.
    pub(super) url: String,
    /// Where its socket is.
    pub(super) socket: String,
    /// Its name.
    pub(super) name: String,
}

impl Device {
    /// Reads one; `None` if it has no socket, or no resource.
    pub(super) fn decode(body: &[u8]) -> Option<Self> {
        Self::read(&serde_json::from_slice(body).ok()?)
    }

    /// Reads the list of devices; those that are none are left out.
    pub(super) fn decode_list(body: &[u8]) -> Vec<Self> {
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        let devices = value.get("devices").and_then(Value::as_array);
        devices.into_iter().flatten().filter_map(Self::read).collect()
    }

    fn read(value: &Value) -> Option<Self> {
        let (url, socket) = (text(value, "/url"), text(value, "/webSocketUrl"));
        let is_device = url.starts_with("https://") && socket.starts_with("wss://");
        let name = text(value, "/name").to_owned();
        is_device.then(|| Self { url: url.to_owned(), socket: socket.to_owned(), name })
    }

    /// Where its socket is, with what Cisco's own client asks for: text frames, and an answer to the authorization.
    pub(super) fn socket_url(&self, now_unix_ms: u64) -> String {
        let mark = if self.socket.contains('?') { '&' } else { '?' };
        let Self { socket, .. } = self;
        let query = "outboundWireFormat=text&bufferStates=true";
        format!("{socket}{mark}{query}&clientTimestamp={now_unix_ms}")
    }
}

/// What every device of a link begins with.
pub(super) fn prefix(link: &str) -> String {
    format!("bowline-{link}-")
}

/// The name of the devices that this installation registers for a link. Devices of this name that it does not use were
/// left behind.
pub(super) fn name(link: &str, installation: &str) -> String {
    format!("{}{installation}", prefix(link))
}

/// What a device is registered with.
pub(super) fn registration(name: &str) -> Value {
    json!({
        "deviceName": name,
        "deviceType": "DESKTOP",
        "localizedModel": "Bowline",
        "model": "bowline",
        "name": name,
        "systemName": "bowline",
        "systemVersion": env!("CARGO_PKG_VERSION"),
    })
}

/// How often a link has registered devices lately.
#[derive(Debug, Default)]
pub(super) struct Registrations {
    lately: VecDeque<Time>,
}

impl Registrations {
    /// Whether there may be another one.
    ///
    /// # Errors
    ///
    /// How long it takes until then: there were [`REGISTRATIONS_MAX`] within [`REGISTRATIONS_WITHIN`].
    pub(super) fn may(&mut self, now: Time) -> Result<(), Duration> {
        while self.lately.front().is_some_and(|at| now.since(*at) >= REGISTRATIONS_WITHIN) {
            self.lately.pop_front();
        }
        match self.lately.front() {
            Some(first) if self.lately.len() >= REGISTRATIONS_MAX => {
                Err(REGISTRATIONS_WITHIN - now.since(*first))
            }
            _ => Ok(()),
        }
    }

    /// There was one. What the service refuses is none.
    pub(super) fn made(&mut self, now: Time) {
        self.lately.push_back(now);
    }
}

/// A refusal of the services that are spoken to by HTTP. `what` was asked for.
pub(super) fn refusal(what: &str, status: u16, headers: &HeaderMap, body: &[u8]) -> OpenFailure {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let said = text(&said, "/message").chars().filter(|char| !char.is_control());
    let said: String = said.take(200).collect();
    let mark = if said.is_empty() { "" } else { ": " };
    OpenFailure {
        verdict: close::verdict_of_status(status),
        words: format!("{what}: answered {status}{mark}{said}"),
        retry_after: retry_after(headers),
    }
}

/// Whether a registration was refused because there are too many devices.
pub(super) fn is_excessive(status: u16, body: &[u8]) -> bool {
    status == 403 && String::from_utf8_lossy(body).to_ascii_lowercase().contains("excessive")
}

/// `Retry-After` in seconds, at most an hour; dates are not read.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    const LONGEST: u64 = 3600;
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(LONGEST)))
}

#[cfg(test)]
mod tests {
    use bowline_proto::keeper::Verdict;

    use super::*;

    #[test]
    fn a_catalog_must_say_where_devices_are() {
        let catalog = |body: &str| Catalog::decode(body.as_bytes());
        let found = catalog(r#"{"serviceLinks":{"wdm":"https://wdm-r.wbx2.com/wdm/api/v1/"}}"#);
        let found = found.unwrap();
        assert_eq!(found.devices, "https://wdm-r.wbx2.com/wdm/api/v1");
        assert_eq!(found.conversations, "https://conv-a.wbx2.com/conversation/api/v1");
        for none in
            ["", "{}", r#"{"serviceLinks":{"wdm":"http://x"}}"#, r#"{"serviceLinks":{"wdm":7}}"#]
        {
            assert_eq!(catalog(none), None, "{none}");
        }
    }

    #[test]
    fn a_device_has_a_resource_and_a_socket() {
        let body = br#"{"url":"https://w/devices/1","webSocketUrl":"wss://m/1","name":"n"}"#;
        let device = Device::decode(body).unwrap();
        let asks = "outboundWireFormat=text&bufferStates=true&clientTimestamp=7";
        assert_eq!(device.socket_url(7), format!("wss://m/1?{asks}"));
        assert_eq!(Device::decode(br#"{"url":"https://w","webSocketUrl":"ws://m"}"#), None);
        let list = format!(r#"{{"devices":[{{}},{},7]}}"#, String::from_utf8_lossy(body));
        assert_eq!(Device::decode_list(list.as_bytes()), [device]);
        assert_eq!(Device::decode_list(b"[]"), []);
    }

    #[test]
    fn ten_devices_an_hour_and_no_more() {
        let mut registrations = Registrations::default();
        let at = |minutes: u64| Time::ZERO + Duration::from_secs(60 * minutes);
        let mut register = |minutes: u64| {
            let may = registrations.may(at(minutes));
            if may.is_ok() {
                registrations.made(at(minutes));
            }
            may
        };
        for minute in 0..10 {
            assert_eq!(register(minute), Ok(()));
        }
        assert_eq!(register(20), Err(Duration::from_secs(40 * 60)));
        assert_eq!(register(60), Ok(()));
        assert_eq!(register(60), Err(Duration::from_secs(60)));
        assert_eq!(register(300), Ok(()));
    }

    #[test]
    fn a_refusal_tells_what_was_said_and_when_to_come_back() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "17".parse().unwrap());
        let refused = refusal("registering a device", 429, &headers, br#"{"message":"slower"}"#);
        assert_eq!(refused.verdict, Verdict::Again);
        assert_eq!(refused.words, "registering a device: answered 429: slower");
        assert_eq!(refused.retry_after, Some(Duration::from_secs(17)));
        assert_eq!(refusal("x", 401, &HeaderMap::new(), b"").words, "x: answered 401");
        headers.insert(RETRY_AFTER, "999999999".parse().unwrap());
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(3600)));
        headers.insert(RETRY_AFTER, "Sun, 22 Nov 2026 10:00:00 GMT".parse().unwrap());
        assert_eq!(retry_after(&headers), None);
        assert!(is_excessive(403, br#"{"message":"User has excessive device registrations"}"#));
        assert!(!is_excessive(403, b"forbidden"));
    }
}
