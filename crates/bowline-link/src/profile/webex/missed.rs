//! What was written while no connection brought it: the spaces in which something happened since then are listed, and
//! the messages of each. In groups a bot is told only of what mentions it, here as over the socket.
//!
//! An account that is quiet costs one request. *Looking* whether anything was missed stays cheap beside that: a space
//! whose last activity came over the socket, or was listed before, is not asked for its messages. *Catching up* asks for
//! all of them; if it is interrupted, the next one goes on where it was.

use std::{collections::BTreeMap, mem};

use http::{HeaderMap, StatusCode, header};
use serde_json::Value;

use super::{
    Account,
    cloud::{Cloud, Me, Refused},
    envelope::{self, text, uuid_of},
    remember, time,
};
use crate::{
    clock,
    far::{CatchUpFailure, Message},
};

/// Items on a page; and where little can have happened.
const PAGE: usize = 100;
const PAGE_SHORT: usize = 10;

/// How far back that is so.
const SHORTLY_MS: u64 = 5 * 60_000;

/// What is read at most, of each list and of all messages: bounds for a service that has no end. What is beyond them is
/// left out, and that is said.
const PAGES_MAX: usize = 100;
const SPACES_MAX: usize = 5_000;
const MESSAGES_MAX: usize = 10_000;

/// Spaces that are asked for their messages when it is only looked.
const LOOKED_MAX: usize = 10;

/// How far back a space is asked that failed for long: an hour less than ids are remembered.
const OWED_MAX_MS: u64 = 23 * 3_600_000;

/// How often a space is asked that answers with a failure of its own before others do not wait for it any more.
const TRIES_MAX: u32 = 4;

/// Spaces in a row that fail: the service does, and is left alone for a while.
const IN_A_ROW_MAX: usize = 3;

/// Clocks that are further apart than that are not the same. Less than what is taken off every time that is asked from.
const APART_MS: u64 = 30_000;

/// Messages that were written so long from now are none: they would be found forever.
const FUTURE_MS: u64 = 3_600_000;

/// From when on is asked, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Since {
    unix_ms: u64,
    /// What the service's clock says, once that is known.
    service_unix_ms: Option<u64>,
}

impl Since {
    fn new(unix_ms: u64) -> Self {
        Self { unix_ms, service_unix_ms: None }
    }

    /// Takes it over to the clock of the service, which every answer tells.
    fn correct(&mut self, headers: &HeaderMap, now_unix_ms: u64) {
        let date = headers.get(header::DATE).and_then(|date| time::of_date(date.to_str().ok()?));
        let Some(date) = date.filter(|_| self.service_unix_ms.is_none()) else { return };
        self.service_unix_ms = Some(date);
        if date.abs_diff(now_unix_ms) > APART_MS {
            self.unix_ms = (self.unix_ms + date).saturating_sub(now_unix_ms);
        }
    }

    fn is_future(&self, unix_ms: u64) -> bool {
        self.service_unix_ms.is_some_and(|now| unix_ms > now + FUTURE_MS)
    }
}

/// A space in which something may have happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Space {
    /// Its public id.
    id: String,
    is_direct: bool,
    /// When something happened there last, if that is said.
    activity: Option<u64>,
}

impl Space {
    fn read(room: &Value, activity: Option<u64>) -> Self {
        let id = text(room, "/id").to_owned();
        Self { id, is_direct: text(room, "/type") == "direct", activity }
    }

    /// Whether it can be asked for: the id is put into a URL.
    fn has_id(&self) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=".contains(&byte);
        (1..=envelope::ID_MAX).contains(&self.id.len()) && self.id.bytes().all(is_plain)
    }
}

/// What a list has, as far as it was read.
#[derive(Debug, Default)]
struct List {
    /// With when they were.
    items: Vec<(Option<u64>, Value)>,
    /// Whether there is more of it.
    is_cut: bool,
}

/// What a space has.
#[derive(Debug, Default)]
struct Listed {
    /// The last activity that was known when it was asked.
    activity: Option<u64>,
    /// With when they were written, the oldest first.
    messages: Vec<(u64, Message)>,
    is_cut: bool,
    /// Messages that do not say when they were written, or say what cannot be.
    undated: usize,
}

/// What is known of a catch-up that is not at its end: what was answered is not asked again.
#[derive(Debug, Default)]
pub(super) struct Interrupted {
    since_unix_ms: u64,
    /// By public id.
    listed: BTreeMap<String, Listed>,
    /// How often others failed.
    failed: BTreeMap<String, u32>,
}

impl Interrupted {
    fn has(&self, space: &Space) -> bool {
        let listed = self.listed.get(&space.id);
        listed.is_some_and(|listed| listed.activity.is_some() && listed.activity == space.activity)
    }

    fn count(&self) -> usize {
        self.listed.values().map(|listed| listed.messages.len()).sum()
    }

    fn failures(&self, space: &Space) -> u32 {
        self.failed.get(&space.id).copied().unwrap_or_default()
    }
}

/// A catch-up that is under way. Dropped before its end, it is there for the next one.
struct UnderWay<'a> {
    account: &'a Account,
    work: Interrupted,
    is_done: bool,
}

impl<'a> UnderWay<'a> {
    fn begin(account: &'a Account, since_unix_ms: u64, since: Since) -> Self {
        let kept = account.known().interrupted.take();
        let work = kept.filter(|kept| kept.since_unix_ms <= since_unix_ms);
        let mut work =
            work.unwrap_or_else(|| Interrupted { since_unix_ms, ..Interrupted::default() });
        for listed in work.listed.values_mut() {
            // If that was long ago, nobody remembers their ids any more.
            listed.messages.retain(|(created, _)| *created >= since.unix_ms);
        }
        Self { account, work, is_done: false }
    }

    fn finish(mut self) -> Interrupted {
        self.is_done = true;
        mem::take(&mut self.work)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            self.account.known().interrupted = Some(mem::take(&mut self.work));
        }
    }
}

/// What was not asked for, or not taken.
#[derive(Debug, Default)]
struct LeftOut {
    /// Spaces, and why the first of them.
    spaces: Vec<String>,
    why: String,
    /// Lists that are longer than is read.
    cut: usize,
    /// Messages.
    undated: usize,
}

impl LeftOut {
    fn space(&mut self, space: Space, why: String) {
        if self.spaces.is_empty() {
            self.why = why;
        }
        self.spaces.push(space.id);
    }

    fn of(&mut self, listed: &Listed) {
        self.cut += usize::from(listed.is_cut);
        self.undated += listed.undated;
    }
}

/// Who asks, and what for.
struct Asking {
    me: Me,
    conversations: String,
    /// The UUID of the space for probes: what happens there is ours.
    probe_room: String,
}

impl Account {
    /// All messages since then, the oldest first.
    pub(super) async fn catch_up(
        &self,
        since_unix_ms: u64,
    ) -> Result<Vec<Message>, CatchUpFailure> {
        let asking = self.asking().await?;
        let mut since = Since::new(since_unix_ms);
        let mut left = LeftOut::default();
        let spaces = self.spaces(&mut since, &asking, SPACES_MAX, &mut left).await?;
        let mut going = UnderWay::begin(self, since_unix_ms, since);
        let mut count = going.work.count();
        let owed = self.known().owed.clone();
        let is_owed = |space: &Space| owed.iter().any(|(owed, _)| owed.id == space.id);
        let unasked = spaces.iter().filter(|space| !is_owed(space) && !going.work.has(space));
        let unasked = unasked.map(|space| (space.clone(), since));
        let older = owed.iter().map(|(space, since)| (space.clone(), since_owed(*since)));
        let mut todo: Vec<_> = older.chain(unasked).collect();
        // What failed before must not hold up the others.
        todo.sort_by_key(|(space, _)| going.work.failures(space));
        let mut failure = None;
        let mut in_a_row = 0;
        for (at, (space, since)) in todo.iter().enumerate() {
            if count >= MESSAGES_MAX {
                left.cut += todo.len() - at;
                break;
            }
            let why = match self.list(space, *since, &asking).await {
                Ok(listed) => {
                    count += listed.messages.len();
                    in_a_row = 0;
                    going.work.listed.insert(space.id.clone(), listed);
                    continue;
                }
                Err(why) => why,
            };
            if is_closed(why.status) {
                self.is_paid(&space.id);
                left.space(space.clone(), why.words);
                continue;
            }
            if why.is_request() {
                return Err(why.into());
            }
            in_a_row += 1;
            let tries = going.work.failed.entry(space.id.clone()).or_default();
            *tries += 1;
            if *tries >= TRIES_MAX && !going.work.listed.is_empty() {
                self.owe(space, since_unix_ms);
                left.space(space.clone(), why.words);
            } else if why.status.is_none() {
                // The others would not be answered either.
                return Err(why.into());
            } else {
                failure = failure.or(Some(why));
            }
            if in_a_row >= IN_A_ROW_MAX {
                if failure.is_none() {
                    // Nobody waits for those that come last and have failed as often, about.
                    for (space, _) in &todo[at + 1..] {
                        self.owe(space, since_unix_ms);
                        left.space(space.clone(), "others failed in a row".to_owned());
                    }
                }
                break;
            }
        }
        if let Some(why) = failure {
            return Err(why.into());
        }
        let Interrupted { listed, .. } = going.finish();
        self.listed(&spaces);
        listed.keys().for_each(|id| self.is_paid(id));
        listed.values().for_each(|listed| left.of(listed));
        self.tell(left);
        Ok(in_order(listed.into_values()))
    }

    /// Whether something was written since then that no connection has brought: some of it, at least. What cannot be
    /// asked for is a matter of catching up.
    pub(super) async fn look(&self, since_unix_ms: u64) -> Result<Vec<Message>, CatchUpFailure> {
        let asking = self.asking().await?;
        let mut since = Since::new(since_unix_ms);
        let left = &mut LeftOut::default();
        let mut spaces = self.spaces(&mut since, &asking, PAGE, left).await?;
        {
            let known = self.known();
            spaces.retain(|space| {
                let seen = known.active.get(&uuid_of(&space.id)).copied();
                space.activity.is_none() || space.activity > seen
            });
        }
        // In groups most is said to others.
        spaces.sort_by_key(|space| !space.is_direct);
        spaces.truncate(LOOKED_MAX);
        let (mut found, mut failed) = (Vec::new(), Vec::new());
        for space in &spaces {
            match self.list(space, since, &asking).await {
                Ok(listed) => found.push(listed),
                Err(why) if is_closed(why.status) => {}
                Err(why) if why.is_request() || why.status.is_none() => return Err(why.into()),
                Err(why) => failed.push((space, why)),
            }
            if found.is_empty() && failed.len() >= IN_A_ROW_MAX {
                break;
            }
        }
        if found.is_empty()
            && let Some((_, why)) = failed.pop()
        {
            return Err(why.into());
        }
        // Others answered, and do not wait for it.
        failed.iter().for_each(|(space, _)| self.owe(space, since_unix_ms));
        found.extend(self.pay_one(&asking).await);
        self.listed(&spaces);
        Ok(in_order(found))
    }

    /// Asks for one space that failed when others answered.
    async fn pay_one(&self, asking: &Asking) -> Option<Listed> {
        let (space, since) = {
            let mut known = self.known();
            let next = known.owed.pop_front()?;
            known.owed.push_back(next.clone());
            next
        };
        let listed = self.list(&space, since_owed(since), asking).await;
        if listed.is_ok() || listed.as_ref().is_err_and(|why| is_closed(why.status)) {
            self.is_paid(&space.id);
        }
        listed.ok()
    }

    fn owe(&self, space: &Space, since_unix_ms: u64) {
        let mut known = self.known();
        if known.owed.iter().all(|(owed, _)| owed.id != space.id) {
            remember(&mut known.owed, (space.clone(), since_unix_ms));
        }
    }

    fn is_paid(&self, id: &str) {
        self.known().owed.retain(|(owed, _)| owed.id != id);
    }

    async fn asking(&self) -> Result<Asking, CatchUpFailure> {
        let (me, catalog, probe_room) = {
            let known = self.known();
            (known.me.clone(), known.catalog.clone(), known.probe_room.clone())
        };
        let me = match me {
            Some(me) => me,
            None => self.cloud.me().await?,
        };
        let catalog = match catalog {
            Some(catalog) => catalog,
            None => self.cloud.catalog().await?,
        };
        {
            let mut known = self.known();
            known.me.get_or_insert_with(|| me.clone());
            known.catalog.get_or_insert_with(|| catalog.clone());
        }
        let probe_room = match probe_room.or_else(|| self.probe_room.clone()) {
            Some(room) => Some(room),
            None => self.facts.get(&self.link, "probe-room").await,
        };
        let probe_room = probe_room.map(|room| uuid_of(&room)).unwrap_or_default();
        Ok(Asking { me, conversations: catalog.conversations, probe_room })
    }

    /// The spaces in which something happened since then, but that for probes.
    async fn spaces(
        &self,
        since: &mut Since,
        asking: &Asking,
        spaces_max: usize,
        left: &mut LeftOut,
    ) -> Result<Vec<Space>, CatchUpFailure> {
        let max = page_of(since.unix_ms);
        let url = format!("{}/rooms?sortBy=lastactivity&max={max}", self.cloud.api_url);
        let what = "listing the spaces";
        let list = self.cloud.list(what, url, "/lastActivity", since, spaces_max).await?;
        left.cut += usize::from(list.is_cut);
        let spaces = list.items.iter().map(|(activity, room)| Space::read(room, *activity));
        let mut spaces: Vec<_> =
            spaces.filter(|space| uuid_of(&space.id) != asking.probe_room).collect();
        for space in spaces.extract_if(.., |space| !space.has_id()) {
            left.space(space, format!("{what}: its id is none"));
        }
        Ok(spaces)
    }

    /// What others wrote into a space since then.
    async fn list(
        &self,
        space: &Space,
        mut since: Since,
        asking: &Asking,
    ) -> Result<Listed, Refused> {
        let Space { id, is_direct, activity } = space;
        let max = page_of(since.unix_ms);
        let mut url = format!("{}/messages?roomId={id}&max={max}", self.cloud.api_url);
        if !is_direct {
            // Without it a bot is refused.
            url.push_str("&mentionedPeople=me");
        }
        let what = "listing messages";
        let list = self.cloud.list(what, url, "/created", &mut since, MESSAGES_MAX).await?;
        let mut listed = Listed { activity: *activity, is_cut: list.is_cut, ..Listed::default() };
        // Of two of the same millisecond the list has the newer one first.
        for (created, message) in list.items.iter().rev() {
            let Some((activity, body)) = envelope::of_message(message, &asking.conversations)
            else {
                continue;
            };
            if asking.me.is(&activity.actor, &activity.email) {
                continue;
            }
            let Some(created) = created.filter(|created| !since.is_future(*created)) else {
                listed.undated += 1;
                continue;
            };
            let place = (activity.id.clone(), activity.conversation.clone());
            remember(&mut self.known().rooms, place);
            let message = Message {
                id: activity.id,
                own_id: true,
                room: activity.conversation,
                receipt: None,
                confirm: true,
                body,
            };
            listed.messages.push((created, message));
        }
        Ok(listed)
    }

    /// The messages of these spaces are known, up to the last activity of each.
    fn listed(&self, spaces: &[Space]) {
        let mut known = self.known();
        for Space { id, activity, .. } in spaces {
            if let Some(activity) = activity {
                known.is_active(&uuid_of(id), *activity);
            }
        }
    }

    /// Says what was left out, unless that was said before.
    fn tell(&self, left: LeftOut) {
        let LeftOut { spaces, why, cut, undated } = left;
        let mut known = self.known();
        let is_more = cut + undated > 0;
        let mut is_news = is_more && !known.is_more_told;
        known.is_more_told = is_more;
        for space in &spaces {
            if !known.left_out.contains(space) {
                is_news = true;
                remember(&mut known.left_out, space.clone());
            }
        }
        drop(known);
        if !is_news {
            return;
        }
        let mut words = Vec::new();
        if !spaces.is_empty() {
            words.push(format!("{} spaces ({why})", spaces.len()));
        }
        if cut > 0 {
            words.push(format!("the end of {cut} lists, which are longer than is read"));
        }
        if undated > 0 {
            words.push(format!("{undated} messages that do not say when they were written"));
        }
        let what = words.join("; ");
        tracing::warn!(link = %self.link, what, "asking for what was missed, something was left out");
    }
}

impl Cloud {
    /// Items of a list that begins with the newest, as far as they are not older than that. Their time is at `of`; what
    /// does not say when it was is among them.
    async fn list(
        &self,
        what: &str,
        first: String,
        of: &str,
        since: &mut Since,
        items_max: usize,
    ) -> Result<List, Refused> {
        let mut list = List::default();
        let mut url = first;
        for _ in 0..PAGES_MAX {
            let answer = self.page(what, &url).await?;
            since.correct(&answer.headers, clock::unix_ms());
            let Some(items) = items(&answer.body) else {
                let words = format!("{what}: the answer is no list");
                return Err(Refused { status: Some(answer.status), words, retry_after: None });
            };
            let is_empty = items.is_empty();
            let mut is_reached = false;
            for item in items {
                let at = time::unix_ms(text(&item, of));
                if at.is_some_and(|at| at < since.unix_ms) {
                    is_reached = true;
                } else if list.items.len() < items_max {
                    list.items.push((at, item));
                } else {
                    list.is_cut = true;
                }
            }
            let next = match link_to_next(&answer.headers) {
                _ if is_reached || list.is_cut => return Ok(list),
                None => return Ok(list),
                Some(next) => next,
            };
            // The token goes nowhere else, and what has no end is not followed.
            if is_empty || next == url || !self.is_api(&next) {
                break;
            }
            url = next;
        }
        list.is_cut = true;
        Ok(list)
    }
}

impl Refused {
    /// Whether the service wants to be left alone.
    fn is_request(&self) -> bool {
        self.status == Some(StatusCode::TOO_MANY_REQUESTS) || self.retry_after.is_some()
    }
}

impl From<Refused> for CatchUpFailure {
    fn from(Refused { words, retry_after, .. }: Refused) -> Self {
        Self { words, retry_after }
    }
}

/// Whether a space may not be read, or is not there any more: bots are put out of them, and they are deleted.
fn is_closed(status: Option<StatusCode>) -> bool {
    matches!(status, Some(StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE))
}

/// From when on a space is asked that failed since then: not from before ids are remembered, or what came over the socket
/// would be found as if it were new.
fn since_owed(unix_ms: u64) -> Since {
    Since::new(unix_ms.max(clock::unix_ms().saturating_sub(OWED_MAX_MS)))
}

/// How many items are asked for at once.
fn page_of(since_unix_ms: u64) -> usize {
    let is_shortly = clock::unix_ms().saturating_sub(since_unix_ms) <= SHORTLY_MS;
    if is_shortly { PAGE_SHORT } else { PAGE }
}

/// The oldest first.
fn in_order(listed: impl IntoIterator<Item = Listed>) -> Vec<Message> {
    let mut messages: Vec<_> = listed.into_iter().flat_map(|listed| listed.messages).collect();
    messages.sort_by_key(|(created, _)| *created);
    messages.into_iter().map(|(_, message)| message).collect()
}

/// The items of a page; `None` if it is none.
fn items(body: &[u8]) -> Option<Vec<Value>> {
    let mut page: Value = serde_json::from_slice(body).ok()?;
    match page.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => Some(items),
        _ => None,
    }
}

/// The page after this one (RFC 8288).
fn link_to_next(headers: &HeaderMap) -> Option<String> {
    let links = headers.get_all(header::LINK).into_iter().filter_map(|link| link.to_str().ok());
    links.flat_map(|links| links.split(',')).find_map(|link| {
        let (url, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next =
            parameters.split(';').any(|one| matches!(one.trim(), "rel=\"next\"" | "rel=next"));
        is_next.then(|| url.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

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
    fn it_is_asked_by_the_clock_of_the_service() {
        const HERE: u64 = 1_795_341_845_678;
        let corrected = |date: &'static str| {
            let mut since = Since::new(HERE - 120_000);
            let mut headers = HeaderMap::new();
            headers.insert(header::DATE, HeaderValue::from_static(date));
            since.correct(&headers, HERE);
            HERE.abs_diff(since.unix_ms) / 1000
        };
        assert_eq!(corrected("Sun, 22 Nov 2026 10:04:05 GMT"), 120);
        assert_eq!(corrected("Sun, 22 Nov 2026 10:04:25 GMT"), 120, "a little is nothing");
        assert_eq!(corrected("Sun, 22 Nov 2026 09:04:05 GMT"), 3720, "the clock here is ahead");
        assert_eq!(corrected("Sun, 22 Nov 2026 11:04:05 GMT"), 3479, "it is behind");
        assert_eq!(corrected("yesterday"), 120);
        assert_eq!(corrected("Thu, 01 Jan 1970 00:00:00 GMT"), HERE / 1000);
    }

    #[test]
    fn what_is_no_page_is_not_an_empty_one() {
        assert_eq!(items(br#"{"items":[]}"#), Some(Vec::new()));
        let nested = format!(r#"{{"items":{}"#, "[".repeat(100_000));
        for none in ["", "[]", "{}", r#"{"items":{}}"#, "<html>", &nested] {
            assert_eq!(items(none.as_bytes()), None, "{}", &none[..none.len().min(20)]);
        }
    }
}
