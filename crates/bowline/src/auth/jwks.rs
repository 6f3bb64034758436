//! Key sets that are fetched: kept, fetched again while they are used, and once more when a token
//! names a key that is not in them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bowline_dial::{Answer, Options, Wire};
use bowline_net::Handle;
use bowline_proto::Time;
use tokio::{
    sync::{Notify, watch},
    time::{sleep_until, timeout},
};

use super::{
    keys::Keys,
    limit::{FETCH, FRESH, RETRY_FIRST, RETRY_MAX, SET_BYTES, STALE, UNKNOWN_PAUSE},
};
use crate::{clock::Clock, config::Url};

/// One key set.
#[derive(Debug)]
pub(crate) struct KeySet {
    url: Url,
    /// The pattern of a namespace it is for: what operators know it by.
    name: String,
    clock: Clock,
    state: Mutex<State>,
    /// Told when somebody wants a fetch.
    wanted: Notify,
    /// How many fetches have ended.
    ended: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    keys: Option<Arc<Keys>>,
    plan: Plan,
    good: u64,
    failed: u64,
}

impl KeySet {
    pub(super) fn new(url: Url, name: String, clock: Clock, pauses: Pauses) -> Self {
        Self {
            url,
            name,
            clock,
            state: Mutex::new(State { plan: Plan::new(pauses), ..State::default() }),
            wanted: Notify::new(),
            ended: watch::Sender::new(0),
        }
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Fetches that were good, and those that were not.
    pub(super) fn fetches(&self) -> (u64, u64) {
        let state = self.lock();
        (state.good, state.failed)
    }

    /// What tokens are checked with now; `None` if there is nothing that is still good.
    pub(super) fn keys(&self) -> Option<Arc<Keys>> {
        let state = self.lock();
        state.keys.clone().filter(|_| state.plan.is_good(self.clock.now()))
    }

    /// Has the set fetched, if that may be, and waits for it. Returns whether there was a fetch.
    pub(super) async fn refresh(&self) -> bool {
        let mut ended = self.ended.subscribe();
        if !self.lock().plan.want(self.clock.now()) {
            return false;
        }
        self.wanted.notify_one();
        // A fetch has an end of its own; this is longer, and never reached.
        matches!(timeout(FETCH * 2, ended.changed()).await, Ok(Ok(())))
    }

    /// Keeps the set up to date, and says how that goes as the component `jwks:NAME`.
    pub(super) async fn keep(self: Arc<Self>, server: Handle) {
        let component = format!("jwks:{}", self.name);
        loop {
            let due = self.clock.instant(self.lock().plan.due());
            tokio::select! {
                biased;
                () = self.wanted.notified() => {
                    if self.lock().plan.due() > self.clock.now() {
                        continue;
                    }
                }
                () = sleep_until(due) => {}
            }
            self.lock().plan.begin();
            let fetched = match timeout(FETCH, fetch(&self.url)).await {
                Ok(fetched) => fetched,
                Err(_) => Err(format!("no answer within {} s", FETCH.as_secs())),
            };
            let outcome = self.take(fetched);
            // Which logs it.
            server.report_component(&component, outcome);
            self.ended.send_modify(|ended| *ended += 1);
        }
    }

    fn take(&self, fetched: Result<Keys, String>) -> Result<(), String> {
        let now = self.clock.now();
        let mut state = self.lock();
        state.plan.end(now, fetched.is_ok());
        match fetched {
            Ok(keys) => {
                state.good += 1;
                let count = keys.len();
                state.keys = Some(Arc::new(keys));
                drop(state);
                tracing::debug!(namespace = self.name, keys = count, "fetched a key set");
                Ok(())
            }
            Err(error) => {
                state.failed += 1;
                let shown = self.url.shown();
                // The same words each time: it is logged when they change.
                let standing = match state.plan.is_good(now) {
                    true => "the keys that were fetched last stay in use",
                    false => "no token can be checked",
                };
                Err(format!("{shown}: {error}; {standing}"))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fetches a key set. Redirects are not followed: where keys come from is said in one place.
async fn fetch(url: &Url) -> Result<Keys, String> {
    let options = Options { max_message_bytes: SET_BYTES, ..Options::default() };
    let query = url.split_once('?').map(|(_, query)| format!("?{query}")).unwrap_or_default();
    let bare = url.split('?').next().unwrap_or_default().to_owned();
    let path = if bare.ends_with('/') { format!("/{query}") } else { query };
    // The first time it reads what certificates the system trusts, from files.
    let made = tokio::task::spawn_blocking(move || Wire::new(&bare, &options)).await;
    let wire = made.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let Answer { status, body, .. } = wire.request(&path, None).await?;
    if status != 200 {
        return Err(format!("it was answered with {status}"));
    }
    Keys::from_set(&body)
}

/// How long a key set is left alone, and how long it is good.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pauses {
    pub(super) fresh: Duration,
    pub(super) stale: Duration,
    pub(super) unknown: Duration,
    pub(super) retry_first: Duration,
    pub(super) retry_max: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            fresh: FRESH,
            stale: STALE,
            unknown: UNKNOWN_PAUSE,
            retry_first: RETRY_FIRST,
            retry_max: RETRY_MAX,
        }
    }
}

/// When to fetch, and how long what was fetched is good. Pure.
#[derive(Debug, Default)]
struct Plan {
    pauses: Pauses,
    /// The end of the last fetch that was good.
    good: Option<Time>,
    /// The end of the last fetch.
    last: Option<Time>,
    failures: u32,
    /// Somebody has a token with another key.
    wanted: bool,
    fetching: bool,
}

impl Plan {
    fn new(pauses: Pauses) -> Self {
        Self { pauses, ..Self::default() }
    }

    /// When the next fetch is due.
    fn due(&self) -> Time {
        let Some(last) = self.last else { return Time::from_micros(0) };
        let planned = match self.failures {
            0 => last + self.pauses.fresh,
            failures => last + self.pause(failures),
        };
        if self.wanted { planned.min(last + self.pauses.unknown) } else { planned }
    }

    /// Somebody wants a fetch. Returns whether one comes now: if not, the last one has just been.
    fn want(&mut self, now: Time) -> bool {
        if self.fetching {
            return true;
        }
        self.wanted = true;
        let soon = self.due() <= now;
        // Who does not wait for it has no use for it.
        self.wanted = soon;
        soon
    }

    fn begin(&mut self) {
        self.fetching = true;
    }

    fn end(&mut self, now: Time, good: bool) {
        self.fetching = false;
        self.wanted = false;
        self.last = Some(now);
        if good {
            self.good = Some(now);
            self.failures = 0;
        } else {
            self.failures = self.failures.saturating_add(1);
        }
    }

    fn is_good(&self, now: Time) -> bool {
        self.good_for(now).is_some()
    }

    /// How long what was fetched may still be used.
    fn good_for(&self, now: Time) -> Option<Duration> {
        let left = self.pauses.stale.checked_sub(now.since(self.good?))?;
        (!left.is_zero()).then_some(left)
    }

    /// The pause after so many failures.
    fn pause(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        self.pauses.retry_first.saturating_mul(1 << doublings).min(self.pauses.retry_max)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
    };

    use serde_json::{Value, json};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        task::JoinSet,
    };

    use super::*;

    /// Somebody who publishes keys, or does not.
    struct Publisher {
        url: Url,
        /// What is answered: the whole answer.
        answer: Arc<Mutex<String>>,
        asked: Arc<AtomicUsize>,
        _tasks: JoinSet<()>,
    }

    impl Publisher {
        async fn start() -> io::Result<Self> {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let url = format!("http://{}/keys?for=us", listener.local_addr()?);
            let answer: Arc<Mutex<String>> = Arc::default();
            let asked = Arc::new(AtomicUsize::new(0));
            let (said, count) = (Arc::clone(&answer), Arc::clone(&asked));
            let mut tasks = JoinSet::new();
            tasks.spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let mut request = vec![0; 4_096];
                    let length = stream.read(&mut request).await.unwrap_or_default();
                    assert!(request[..length].starts_with(b"GET /keys?for=us HTTP/1.1\r\n"));
                    count.fetch_add(1, SeqCst);
                    let answer = said.lock().unwrap().clone();
                    // An empty answer is a connection that breaks.
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
            Ok(Self { url: Url::new(url), answer, asked, _tasks: tasks })
        }

        fn say(&self, status: &str, body: &str) {
            let length = body.len();
            *self.answer.lock().unwrap() =
                format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
        }

        /// Publishes keys with these names.
        fn publish(&self, names: &[&str]) {
            let key = |kid: &&str| {
                let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x })
            };
            let keys: Vec<Value> = names.iter().map(key).collect();
            self.say("200 OK", &json!({ "keys": keys }).to_string());
        }
    }

    /// A key set that is kept, and the server that is told about it.
    fn kept(publisher: &Publisher, pauses: Pauses) -> (Arc<KeySet>, Handle, JoinSet<()>) {
        let server = bowline_net::Server::builder()
            .listen(([127, 0, 0, 1], 0).into())
            .shards(1)
            .namespace("/", bowline_net::Echo)
            .bind()
            .unwrap();
        let clock = Clock::start();
        let set = KeySet::new(publisher.url.clone(), "/chat".to_owned(), clock, pauses);
        let set = Arc::new(set);
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&set).keep(server.handle()));
        (set, server.handle(), tasks)
    }

    /// What the component says.
    fn health(server: &Handle) -> Result<(), String> {
        let components = server.components();
        let component = components.iter().find(|it| it.name == "jwks:/chat").unwrap();
        component.error.clone().map_or(Ok(()), Err)
    }

    async fn until(what: &str, mut is: impl FnMut() -> bool) {
        let waiting = async {
            while !is() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(10), waiting).await.unwrap_or_else(|_| panic!("{what}"));
    }

    fn count(set: &KeySet) -> Option<usize> {
        set.keys().map(|keys| keys.len())
    }

    #[tokio::test]
    async fn new_keys_are_fetched_when_they_are_wanted() {
        let publisher = Publisher::start().await.unwrap();
        publisher.publish(&["old"]);
        let unknown = Duration::from_millis(50);
        let (set, server, _tasks) = kept(&publisher, Pauses { unknown, ..Pauses::default() });
        until("the first fetch", || count(&set) == Some(1)).await;
        until("the component", || !server.components().is_empty()).await;
        assert_eq!(health(&server), Ok(()));
        publisher.publish(&["old", "new"]);
        until("the second fetch may be", || publisher.asked.load(SeqCst) == 1).await;
        // Too soon it is not fetched; a moment later it is, once for all who wait.
        let started = set.ended.subscribe();
        while !set.refresh().await {
            assert_eq!(publisher.asked.load(SeqCst), 1);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(count(&set), Some(2));
        assert!(started.has_changed().unwrap());
        assert!(!set.refresh().await, "just fetched");
        assert_eq!((publisher.asked.load(SeqCst), set.fetches()), (2, (2, 0)));
    }

    #[tokio::test]
    async fn an_outage_leaves_the_keys_in_use_until_they_are_stale() {
        let publisher = Publisher::start().await.unwrap();
        publisher.publish(&["one"]);
        let pauses = Pauses {
            fresh: Duration::from_millis(20),
            stale: Duration::from_millis(600),
            unknown: Duration::from_millis(10),
            retry_first: Duration::from_millis(10),
            retry_max: Duration::from_millis(40),
        };
        let (set, server, _tasks) = kept(&publisher, pauses);
        until("the first fetch", || count(&set) == Some(1)).await;
        for (status, body, words) in [
            ("503 Service Unavailable", "", "answered with 503"),
            ("302 Found", "", "answered with 302"),
            ("200 OK", "<html>", "no key set"),
            ("200 OK", "{\"keys\":[]}", "no key that can be used"),
        ] {
            publisher.say(status, body);
            let said = || health(&server).err().unwrap_or_default();
            until(words, || said().contains(words)).await;
            // The URL is named without what may be a secret in it.
            assert!(said().starts_with("http://127.0.0.1:") && !said().contains("for=us"));
        }
        publisher.answer.lock().unwrap().clear();
        until("the keys are too old", || count(&set).is_none()).await;
        let unchecked =
            || health(&server).is_err_and(|why| why.contains("no token can be checked"));
        until("the component says so", unchecked).await;
        publisher.publish(&["one", "two"]);
        until("the keys are back", || count(&set) == Some(2)).await;
        until("the component is well", || health(&server).is_ok()).await;
        let (good, failed) = set.fetches();
        assert!(good >= 2 && failed >= 5, "{good} good, {failed} failed");
    }

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_set_is_fetched_at_once_and_then_every_ten_minutes() {
        let mut plan = Plan::default();
        assert_eq!(plan.due(), at(0));
        assert!(!plan.is_good(at(0)));
        plan.begin();
        plan.end(at(1), true);
        assert_eq!(plan.due(), at(601));
        assert!(plan.is_good(at(1)));
    }

    #[test]
    fn an_unknown_key_has_it_fetched_at_most_every_thirty_seconds() {
        let mut plan = Plan::default();
        plan.begin();
        plan.end(at(100), true);
        assert!(!plan.want(at(129)), "too soon, and nobody waits");
        assert_eq!(plan.due(), at(700), "what nobody waits for changes nothing");
        assert!(plan.want(at(130)));
        assert_eq!(plan.due(), at(130));
        plan.begin();
        assert!(plan.want(at(131)), "who comes during a fetch waits for that one");
        plan.end(at(132), true);
        assert!(!plan.want(at(133)));
        assert_eq!(plan.due(), at(732));
    }

    #[test]
    fn a_fetch_that_failed_is_tried_again_after_longer_and_longer_pauses() {
        let mut plan = Plan::default();
        let mut now = 0;
        let pauses: Vec<u64> = (0..9)
            .map(|_| {
                plan.begin();
                plan.end(at(now), false);
                let due = plan.due().as_micros() / 1_000_000;
                let pause = due - now;
                now = due;
                pause
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        // Somebody who wants it makes that shorter, but no shorter than for anybody.
        assert!(!plan.want(at(now - 31)));
        assert!(plan.want(at(now - 30)));
        plan.begin();
        plan.end(at(now), true);
        assert_eq!(plan.due(), at(now + 600));
    }

    #[test]
    fn what_was_fetched_is_good_for_a_day_of_failures() {
        let mut plan = Plan::default();
        plan.begin();
        plan.end(at(10), true);
        plan.begin();
        plan.end(at(610), false);
        let day = 24 * 3_600;
        assert_eq!(plan.good_for(at(610)), Some(Duration::from_secs(day - 600)));
        assert!(plan.is_good(at(10 + day - 1)));
        assert!(!plan.is_good(at(10 + day)));
        plan.begin();
        plan.end(at(10 + day + 5), true);
        assert!(plan.is_good(at(10 + day + 5)));
    }
}
