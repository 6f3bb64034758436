//! Webex, as bots use it: a device is registered, its WebSocket (Mercury) tells what happened, and the text of a message
//! is asked for over HTTP. Written from facts/links-and-fleet.md, section 2.1.
//!
//! - A device is used again as long as the service has it: what nobody acknowledged is sent once more on its next socket.
//!   Beside a connection that is open still, a second device is registered: both are told of everything from then on.
//! - Events hold no text, and not the word of a routing probe either: a probe is known by the id of the message that was
//!   posted. The bot's own messages in the space of the probes are seen by nobody else.
//! - A file is two events. The bot gets one message, with the id of what was shared.
//!
//! # Forms of bodies
//!
//! A message is the envelope as it came. Fetched: what `GET /messages/{id}` answers, for a button
//! `GET /attachment/actions/{id}`. Outgoing: an object for `POST /messages`, or a JSON text, which becomes its
//! `markdown`; if it names no space, it goes to that of the message it answers, into its thread.
//!
//! *Absent on purpose:* buttons of cards that were pressed while there was no connection: no list has them. The
//! decryption of what events hold; bots do not need it.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bowline_dial::Leg;
use bowline_proto::keeper::OpenFailure;
use bowline_store::Inbox;
use bytes::Bytes;
use http::Uri;

use super::{Unusable, Way};
use crate::{
    clock::Clock,
    far::{Boxed, CatchUpFailure, Connection, Message, OpenHow, Profile},
    settings,
};

mod close;
mod cloud;
mod connection;
mod device;
pub mod envelope;
mod missed;
mod open;
mod rules;
mod time;

pub use rules::WebexRules;

use cloud::{Cloud, Me};
use device::{Catalog, Device, Registrations};
use envelope::{Kind, Verb};
use missed::{Interrupted, Space};

/// Shares whose files are awaited, messages whose space is remembered, own messages whose post is not answered yet: what
/// is older is forgotten.
const REMEMBERED_MAX: usize = 1024;

/// One bot at Webex.
#[derive(Debug, Clone)]
pub struct Webex {
    account: Arc<Account>,
}

impl Webex {
    /// Makes one for a link. `leg` is what all of the link's requests go through; `facts` is where it remembers its
    /// device and its space for probes.
    ///
    /// # Errors
    ///
    /// It is a link of another profile, has no token, or a URL that is none.
    pub(crate) fn new(
        link: &settings::Link,
        leg: Arc<Leg>,
        way: Way,
        facts: Inbox,
    ) -> Result<Self, Unusable> {
        let unusable = |words: &str| Unusable(words.to_owned());
        let settings::Profile::Webex { catalog_url, api_url, probe_room } = &link.profile else {
            return Err(unusable("it is no link to Webex"));
        };
        let Some(token) = link.token.clone() else {
            return Err(unusable("a link to Webex needs a token"));
        };
        for url in [catalog_url, api_url] {
            let parsed: Option<Uri> = url.parse().ok();
            let scheme = parsed.as_ref().and_then(Uri::scheme_str);
            if scheme != Some("https") {
                return Err(Unusable(format!("`{url}` does not begin with `https://`")));
            }
        }
        let base = |url: &str| url.trim_end_matches('/').to_owned();
        let cloud = Cloud { leg, token, catalog_url: base(catalog_url), api_url: base(api_url) };
        Ok(Self {
            account: Arc::new(Account {
                link: link.name.clone(),
                // Whoever does not know of Bowline ignores his own messages; an app would answer them.
                is_proxied: matches!(link.deliver, settings::Deliver::Proxy { .. }),
                probe_room: probe_room.clone(),
                connect_timeout: link.http.connect_timeout,
                cloud,
                way,
                facts,
                clock: Clock::start(),
                known: Mutex::default(),
            }),
        })
    }
}

impl Profile for Webex {
    fn open(&self, how: OpenHow) -> Boxed<'_, Result<Connection, OpenFailure>> {
        Box::pin(open::open(Arc::clone(&self.account), how))
    }

    fn catch_up(&self, since_unix_ms: u64) -> Boxed<'_, Result<Vec<Message>, CatchUpFailure>> {
        Box::pin(self.account.catch_up(since_unix_ms))
    }

    fn look(&self, since_unix_ms: u64) -> Boxed<'_, Result<Vec<Message>, CatchUpFailure>> {
        Box::pin(self.account.look(since_unix_ms))
    }

    fn can_look(&self) -> bool {
        true
    }

    fn discard(&self, address: String) -> Boxed<'_, ()> {
        Box::pin(async move { self.account.discard(&address).await })
    }

    fn fetch<'a>(&'a self, message: &'a Message) -> Boxed<'a, Result<Bytes, String>> {
        Box::pin(self.account.fetch(message))
    }

    fn can_probe(&self) -> bool {
        true
    }

    fn host(&self) -> String {
        let uri: Option<Uri> = self.account.cloud.catalog_url.parse().ok();
        uri.as_ref().and_then(Uri::host).unwrap_or_default().to_owned()
    }

    fn fresh_pool(&self) {
        self.account.cloud.leg.fresh();
    }
}

/// What the connections of a link share.
struct Account {
    link: String,
    is_proxied: bool,
    /// From the configuration.
    probe_room: Option<String>,
    connect_timeout: Duration,
    cloud: Cloud,
    way: Way,
    facts: Inbox,
    clock: Clock,
    known: Mutex<Known>,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("link", &self.link).finish_non_exhaustive()
    }
}

/// What was learned.
#[derive(Debug, Default)]
struct Known {
    me: Option<Me>,
    catalog: Option<Catalog>,
    /// What marks the devices of this installation.
    installation: Option<String>,
    /// Devices that are ours and in use, or may be used again; the last one first of all.
    devices: Vec<Device>,
    /// Whether what an earlier process left behind was looked for.
    is_tidied: bool,
    registrations: Registrations,
    /// The space for probes: its public id.
    probe_room: Option<String>,
    /// Probes that were posted: the message's UUID, and the word.
    probes: VecDeque<(String, String)>,
    /// Own messages in that space that no probe was known of yet: on which connection, and the UUID.
    early: VecDeque<(u64, String)>,
    shares: VecDeque<Share>,
    /// Messages and the rooms they are in, by UUID: where answers go.
    rooms: VecDeque<(String, String)>,
    /// Since when frames are missing that the service was not asked for yet, in milliseconds since 1970.
    missed_since: Option<u64>,
    /// By the UUIDs of spaces: until when we know what happened there, by the service's clock. Empty now and then.
    active: BTreeMap<String, u64>,
    /// A catch-up that did not come to its end.
    interrupted: Option<Interrupted>,
    /// Spaces that fail while others answer, and since when they are to be asked: by the next look.
    owed: VecDeque<(Space, u64)>,
    /// Spaces of which it was told that they cannot be asked for, by public id; and whether more was left out the last
    /// time.
    left_out: VecDeque<String>,
    is_more_told: bool,
    /// Connections so far.
    connections: u64,
}

impl Known {
    /// What happened in this space is known until then.
    fn is_active(&mut self, room: &str, at_unix_ms: u64) {
        if self.active.len() >= REMEMBERED_MAX && !self.active.contains_key(room) {
            // They are asked for once more than necessary.
            self.active.clear();
        }
        let known = self.active.entry(room.to_owned()).or_default();
        *known = at_unix_ms.max(*known);
    }
}

/// A file whose contents are not there yet.
#[derive(Debug)]
struct Share {
    /// The connection that brought it.
    connection: u64,
    room: String,
    /// The activity, and the message it becomes.
    id: String,
    envelope: String,
}

fn remember<T>(list: &mut VecDeque<T>, item: T) {
    list.push_back(item);
    if list.len() > REMEMBERED_MAX {
        list.pop_front();
    }
}

/// The share that a connection now brings the contents of: the oldest that it has brought itself. One that another
/// connection brought may be left over from a connection that was lost, and come again on this one.
fn take_share(shares: &mut VecDeque<Share>, room: &str, connection: u64) -> Option<Share> {
    let own = |share: &Share| share.room == room && share.connection == connection;
    let at = shares.iter().position(own);
    shares.remove(at.or_else(|| shares.iter().rposition(|share| share.room == room))?)
}

impl Account {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frames are missing since then.
    fn missed(&self, since_unix_ms: u64) {
        let mut known = self.known();
        let since = known.missed_since.map_or(since_unix_ms, |known| known.min(since_unix_ms));
        known.missed_since = Some(since);
    }

    /// Deletes a device that is not used any more.
    async fn discard(&self, url: &str) {
        let last = {
            let mut known = self.known();
            known.devices.retain(|device| device.url != url);
            known.devices.last().map(|device| device.url.clone())
        };
        self.facts.set(&self.link, "device", last.as_deref()).await;
        self.cloud.delete_device(url).await;
    }

    /// The text of a message, for bots that do not ask for it themselves.
    async fn fetch(&self, message: &Message) -> Result<Bytes, String> {
        if self.is_proxied {
            return Ok(message.body.clone());
        }
        let envelope = envelope::decode(&message.body).map_err(|_| "it is no envelope")?;
        let Kind::Activity(activity) = envelope.kind else {
            return Ok(message.body.clone());
        };
        let is_action = activity.verb == Verb::CardAction;
        let kind = if is_action { "attachment/actions" } else { "messages" };
        let place = format!("conversations/{}", activity.conversation);
        let lookup = activity.url.replace(&place, &format!("{kind}/{}", activity.id));
        self.cloud.message(&lookup, is_action).await
    }
}

/// A random UUID (RFC 9562 section 5.4).
fn uuid() -> String {
    let mut bytes = [0; 16];
    // Without randomness ids would repeat; nothing here is secret.
    if getrandom::fill(&mut bytes).is_err() {
        tracing::warn!("the operating system gives no randomness");
    }
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let number = u128::from_be_bytes(bytes);
    let hex = format!("{number:032x}");
    let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    format!("{a}-{b}-{c}-{d}-{e}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_that_came_again_after_a_loss_does_not_stand_for_the_next_one() {
        let share = |connection, id: &str| Share {
            connection,
            room: "r".to_owned(),
            id: id.to_owned(),
            envelope: String::new(),
        };
        // The first connection was lost before the contents of `a` came, and the service has repeated it.
        let mut shares = VecDeque::from([share(1, "a"), share(2, "a"), share(2, "b")]);
        let mut take = |connection| take_share(&mut shares, "r", connection).map(|share| share.id);
        assert_eq!(take(2).as_deref(), Some("a"));
        assert_eq!(take(2).as_deref(), Some("b"));
        // One that was opened in between gets only the contents.
        assert_eq!(take(3).as_deref(), Some("a"));
        assert_eq!(take(3), None);
    }

    #[test]
    fn a_uuid_is_one_and_no_other() {
        let (one, other) = (uuid(), uuid());
        assert_ne!(one, other);
        let parts: Vec<usize> = one.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(&one[14..15], "4");
    }

    #[test]
    fn of_a_space_the_last_time_counts_and_of_many_spaces_none() {
        let mut known = Known::default();
        for at in [5, 9, 7] {
            known.is_active("a", at);
        }
        assert_eq!(known.active.get("a"), Some(&9));
        for number in 0..REMEMBERED_MAX {
            known.is_active(&number.to_string(), 1);
        }
        assert!(known.active.len() <= REMEMBERED_MAX);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut list = VecDeque::new();
        for number in 0..REMEMBERED_MAX + 10 {
            remember(&mut list, number);
        }
        assert_eq!((list.len(), list.front()), (REMEMBERED_MAX, Some(&10)));
    }
}
