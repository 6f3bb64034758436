//! The keys of clients: hashed, with limits and usage.
//!
//! A request that is refused uses nothing up. One that is let in counts with what it may use at most, until
//! [`Keys::settle`] says what it really was.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};

use bowline_proto::Time;
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use crate::{
    limit::USAGE_ROWS_MAX,
    permits::Priority,
    route::{TargetId, window::Window},
    wire::Usage,
};

/// What limits are taken over.
const MINUTE: Duration = Duration::from_secs(60);

const REQUESTS: usize = 0;
const TOKENS: usize = 1;

/// The SHA-256 of a key. The key itself is never kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

/// A key that clients may show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientKey {
    /// What it is called: in records, in usage, in the log.
    pub name: Arc<str>,
    /// Its hash.
    pub digest: Digest,
    /// Who goes first where requests wait.
    pub priority: Priority,
    /// What it may do.
    pub limits: KeyLimits,
}

/// What a key may do; what is `None` is not limited. How many requests it may have under way is a limit of
/// [`Permits`](crate::permits::Permits).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// Requests in any minute.
    pub requests_per_minute: Option<u32>,
    /// Tokens of prompts and answers in any minute.
    pub tokens_per_minute: Option<u64>,
    /// The only models it may ask for.
    pub models: Option<Vec<String>>,
}

/// All keys, what they have used of their minute, and what they have used at all.
#[derive(Debug, Default)]
pub struct Keys {
    keys: Vec<ClientKey>,
    /// The minute of each key that has a limit on it, by its name.
    minutes: HashMap<Arc<str>, Window>,
    usage: BTreeMap<Payer, (u64, Usage)>,
}

/// A key, and where it was used.
type Payer = (Option<Arc<str>>, TargetId);

/// A request that was let in, for [`Keys::settle`]. What is never settled counts as it was estimated.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "what it has really used is to be told"]
pub struct Admission {
    key: Arc<str>,
    tokens: u64,
    at: Time,
}

/// Why a key may not ask this now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRefusal {
    /// Not this model.
    Model,
    /// Too many requests in this minute; after so long there is room again.
    Requests(Duration),
    /// Too many tokens in this minute; after so long there is room again.
    Tokens(Duration),
    /// More tokens than a minute ever has.
    TooLarge,
    /// There is no such key any more.
    Gone,
}

/// What a key has used at one target since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUsage {
    /// The key's name; `None` where requests need none.
    pub key: Option<Arc<str>>,
    /// Where.
    pub target: TargetId,
    /// Attempts, whatever became of them.
    pub attempts: u64,
    /// Their tokens.
    pub tokens: Usage,
}

impl Digest {
    /// Hashes what a client has shown.
    pub fn of(shown: &str) -> Self {
        let mut digest = [0; 32];
        digest.copy_from_slice(
            ring::digest::digest(&ring::digest::SHA256, shown.as_bytes()).as_ref(),
        );
        Self(digest)
    }

    /// As four words, which are quicker to compare than bytes.
    fn words(&self) -> [u64; 4] {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(self.0.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        words
    }
}

/// Hashes do not belong into a log: a short key can be found from its hash.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(…)")
    }
}

impl Keys {
    /// These keys and no others.
    pub fn new(keys: Vec<ClientKey>) -> Self {
        Self { keys, ..Self::default() }
    }

    /// The keys have changed; those that stay keep what they have used, and what others have used is forgotten.
    pub fn reconfigure(&mut self, keys: Vec<ClientKey>) {
        self.keys = keys;
        let names: Vec<&str> = self.keys.iter().map(|key| &*key.name).collect();
        self.minutes.retain(|name, _| names.contains(&&**name));
        self.usage.retain(|(key, _), _| key.as_deref().is_none_or(|key| names.contains(&key)));
    }

    /// Whether there is no key at all.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key of this name.
    pub fn named(&self, name: &str) -> Option<&ClientKey> {
        self.keys.iter().find(|key| &*key.name == name)
    }

    /// Whose key has this hash. Takes as long for a wrong one as for a right one, wherever it stands.
    pub fn identify(&self, digest: &Digest) -> Option<&ClientKey> {
        let shown = digest.words();
        let mut found = u64::MAX;
        for (at, key) in (0_u64..).zip(&self.keys) {
            let differs = shown
                .iter()
                .zip(key.digest.words())
                .fold(0, |all, (one, other)| all | (one ^ other));
            found.conditional_assign(&at, differs.ct_eq(&0));
        }
        self.keys.get(usize::try_from(found).ok()?)
    }

    /// Lets a request of a key in and counts it, or says why not; a refused one does not count. `tokens` is what it
    /// will use at most as far as one can know: its prompt, and what it allows the answer to have.
    ///
    /// # Errors
    ///
    /// A limit of the key.
    pub fn admit(
        &mut self,
        now: Time,
        key: &str,
        model: &str,
        tokens: u64,
    ) -> Result<Admission, KeyRefusal> {
        let found = self.keys.iter().find(|known| &*known.name == key);
        let ClientKey { name, limits, .. } = found.ok_or(KeyRefusal::Gone)?;
        if limits.models.as_ref().is_some_and(|models| !models.iter().any(|known| known == model)) {
            return Err(KeyRefusal::Model);
        }
        let admission = Admission { key: Arc::clone(name), tokens, at: now };
        if limits.requests_per_minute.is_none() && limits.tokens_per_minute.is_none() {
            return Ok(admission);
        }
        if limits.tokens_per_minute.is_some_and(|limit| tokens > limit) {
            return Err(KeyRefusal::TooLarge);
        }
        let minute = self.minutes.entry(Arc::clone(name)).or_insert_with(|| Window::new(MINUTE));
        if let Some(limit) = limits.requests_per_minute
            && minute.sum(now, REQUESTS) >= u64::from(limit)
        {
            let below = u64::from(limit.saturating_sub(1));
            return Err(KeyRefusal::Requests(minute.falls_to(now, REQUESTS, below)));
        }
        if let Some(limit) = limits.tokens_per_minute
            && minute.sum(now, TOKENS).saturating_add(tokens) > limit
        {
            return Err(KeyRefusal::Tokens(minute.falls_to(now, TOKENS, limit - tokens)));
        }
        minute.add(now, REQUESTS, 1);
        minute.add(now, TOKENS, tokens);
        Ok(admission)
    }

    /// A request is over: what it has really used takes the place of the estimate, and counts from now on.
    pub fn settle(&mut self, now: Time, admission: Admission, used: u64) {
        if let Some(minute) = self.minutes.get_mut(&admission.key) {
            minute.take_back(admission.at, TOKENS, admission.tokens);
            minute.add(now, TOKENS, used);
        }
    }

    /// An attempt is over; who pays for its tokens. Past [`USAGE_ROWS_MAX`] rows, new ones are not kept apart by key.
    pub fn on_attempt(&mut self, key: Option<&str>, target: &TargetId, tokens: &Usage) {
        let known = key.and_then(|key| self.keys.iter().find(|known| &*known.name == key));
        let mut row = (known.map(|known| Arc::clone(&known.name)), target.clone());
        if self.usage.len() >= USAGE_ROWS_MAX && !self.usage.contains_key(&row) {
            row.0 = None;
            if self.usage.len() >= 2 * USAGE_ROWS_MAX && !self.usage.contains_key(&row) {
                return;
            }
        }
        let (attempts, sum) = self.usage.entry(row).or_default();
        *attempts += 1;
        sum.input = sum.input.saturating_add(tokens.input);
        sum.output = sum.output.saturating_add(tokens.output);
        sum.cached = sum.cached.saturating_add(tokens.cached);
        sum.written = sum.written.saturating_add(tokens.written);
        sum.reasoning = sum.reasoning.saturating_add(tokens.reasoning);
        sum.estimated |= tokens.estimated;
    }

    /// What was used since the start, by key and target.
    pub fn usage(&self) -> Vec<KeyUsage> {
        let rows = self.usage.iter().map(|((key, target), (attempts, tokens))| KeyUsage {
            key: key.clone(),
            target: target.clone(),
            attempts: *attempts,
            tokens: *tokens,
        });
        rows.collect()
    }
}

impl fmt::Display for KeyRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "the key may not ask for this model",
            Self::Requests(_) => "the key has used up its requests of this minute",
            Self::Tokens(_) => "the key has used up its tokens of this minute",
            Self::TooLarge => "the request may use more tokens than the key has in a minute",
            Self::Gone => "there is no such key any more",
        })
    }
}

impl std::error::Error for KeyRefusal {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    fn key(name: &str, limits: KeyLimits) -> ClientKey {
        ClientKey {
            name: name.into(),
            digest: Digest::of(&format!("secret of {name}")),
            priority: Priority::Normal,
            limits,
        }
    }

    fn per_minute(requests: u32, tokens: u64) -> KeyLimits {
        KeyLimits {
            requests_per_minute: Some(requests),
            tokens_per_minute: Some(tokens),
            models: None,
        }
    }

    fn one(limits: KeyLimits) -> Keys {
        Keys::new(vec![key("k", limits)])
    }

    #[test]
    fn the_hash_is_sha_256() {
        let hex: String = Digest::of("abc").0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(format!("{:?}", Digest::of("abc")), "Digest(…)");
    }

    #[test]
    fn a_key_is_known_by_its_hash_wherever_it_stands() {
        let keys = Keys::new(["a", "b", "c"].map(|name| key(name, KeyLimits::default())).to_vec());
        let shown = |shown: &str| keys.identify(&Digest::of(shown)).map(|key| &*key.name);
        let secrets = ["secret of a", "secret of b", "secret of c", "secret of d", ""];
        assert_eq!(secrets.map(shown), [Some("a"), Some("b"), Some("c"), None, None]);
        assert_eq!(Keys::default().identify(&Digest([0; 32])), None);
        // One bit is enough to be another.
        for at in 0..32 {
            let mut near = Digest::of("secret of a");
            near.0[at] ^= 1;
            assert_eq!(keys.identify(&near), None, "byte {at}");
        }
    }

    #[test]
    fn a_minute_has_so_many_requests_and_refused_ones_do_not_count() {
        let mut keys = one(per_minute(2, 1_000_000));
        let mut admit = |seconds| keys.admit(at(seconds), "k", "m", 1).map(|_| ());
        assert_eq!([admit(100), admit(110)], [Ok(()), Ok(())]);
        assert_eq!(admit(115), Err(KeyRefusal::Requests(Duration::from_secs(50))));
        assert_eq!(admit(164), Err(KeyRefusal::Requests(Duration::from_secs(1))));
        assert_eq!(admit(165), Ok(()));
        assert!(admit(166).is_err());
    }

    #[test]
    fn tokens_count_as_estimated_until_it_is_known_what_they_were() {
        let mut keys = one(per_minute(100, 1_000));
        let first = keys.admit(at(100), "k", "m", 800).unwrap();
        assert_eq!(
            keys.admit(at(101), "k", "m", 201),
            Err(KeyRefusal::Tokens(Duration::from_secs(64)))
        );
        keys.settle(at(101), first, 300);
        let second = keys.admit(at(102), "k", "m", 700).unwrap();
        // An answer that took long counts when it is known.
        keys.settle(at(150), second, 900);
        assert_eq!(
            keys.admit(at(170), "k", "m", 200),
            Err(KeyRefusal::Tokens(Duration::from_secs(45)))
        );
        assert!(keys.admit(at(215), "k", "m", 200).is_ok());
        assert_eq!(keys.admit(at(216), "k", "m", 1_001), Err(KeyRefusal::TooLarge));
    }

    #[test]
    fn a_limit_of_zero_lets_nobody_in() {
        let mut keys = one(per_minute(0, 10));
        assert!(matches!(keys.admit(at(1), "k", "m", 1), Err(KeyRefusal::Requests(_))));
    }

    #[test]
    fn a_key_has_its_models_and_others_are_unknown() {
        let models = Some(vec!["chat".to_owned()]);
        let mut keys = one(KeyLimits { models, ..KeyLimits::default() });
        assert!(keys.admit(at(1), "k", "chat", 1 << 60).is_ok());
        assert_eq!(keys.admit(at(1), "k", "other", 1), Err(KeyRefusal::Model));
        assert_eq!(keys.admit(at(1), "x", "chat", 1), Err(KeyRefusal::Gone));
    }

    #[test]
    fn a_reload_keeps_what_was_used_and_forgets_who_is_gone() {
        let mut keys = Keys::new(vec![key("a", per_minute(1, 100)), key("b", per_minute(1, 100))]);
        let a = keys.admit(at(1), "a", "m", 10).unwrap();
        let b = keys.admit(at(1), "b", "m", 10).unwrap();
        let target = TargetId::new("kimi", "k2");
        keys.on_attempt(Some("a"), &target, &Usage { input: 5, ..Usage::default() });
        keys.on_attempt(Some("b"), &target, &Usage::default());
        keys.reconfigure(vec![key("a", per_minute(1, 100))]);
        assert!(keys.admit(at(2), "a", "m", 10).is_err());
        assert_eq!(keys.admit(at(2), "b", "m", 10), Err(KeyRefusal::Gone));
        keys.settle(at(3), a, 10);
        keys.settle(at(3), b, 10);
        assert_eq!((keys.minutes.len(), keys.usage().len()), (1, 1));
    }

    #[test]
    fn usage_is_kept_by_key_and_target() {
        let mut keys = Keys::new(vec![key("a", KeyLimits::default())]);
        let [kimi, glm] = [TargetId::new("kimi", "k2"), TargetId::new("glm", "4.6")];
        let used = Usage { input: 10, output: 5, cached: 4, reasoning: 2, ..Usage::default() };
        keys.on_attempt(Some("a"), &kimi, &used);
        keys.on_attempt(Some("a"), &kimi, &used);
        keys.on_attempt(Some("a"), &glm, &Usage { estimated: true, ..used });
        // Nobody's, and somebody's who is gone.
        keys.on_attempt(None, &kimi, &used);
        keys.on_attempt(Some("gone"), &kimi, &used);
        let rows = keys.usage();
        let short = |row: &KeyUsage| {
            (row.key.as_deref().map(str::to_owned), row.attempts, row.tokens.input)
        };
        assert_eq!(
            rows.iter().map(short).collect::<Vec<_>>(),
            [(None, 2, 20), (Some("a".into()), 1, 10), (Some("a".into()), 2, 20)]
        );
        assert!(rows[1].tokens.estimated && !rows[2].tokens.estimated);
    }

    #[test]
    fn usage_is_bounded() {
        let mut keys = Keys::new(vec![key("a", KeyLimits::default())]);
        for number in 0..3 * USAGE_ROWS_MAX {
            keys.on_attempt(Some("a"), &TargetId::new("p", number.to_string()), &Usage::default());
        }
        assert_eq!(keys.usage().len(), 2 * USAGE_ROWS_MAX);
    }

    proptest! {
        /// In no minute are more let in than may be, requests and tokens, whatever was estimated.
        #[test]
        fn no_minute_has_more(asks in prop::collection::vec((0_u64..15, 1_u64..400, any::<bool>()), 1..80)) {
            let mut keys = one(per_minute(5, 1_000));
            let (mut now, mut let_in) = (at(1_000), Vec::new());
            for (wait, tokens, settled) in asks {
                now += Duration::from_secs(wait);
                if let Ok(admission) = keys.admit(now, "k", "m", tokens) {
                    let used = if settled { tokens / 2 } else { tokens };
                    if settled {
                        keys.settle(now, admission, used);
                    }
                    let_in.push((now, used));
                }
                let minute = || let_in.iter().filter(|(then, _)| now.since(*then) < MINUTE);
                prop_assert!(minute().count() <= 5);
                prop_assert!(minute().map(|(_, used)| used).sum::<u64>() <= 1_000);
            }
        }

        /// When a refusal says that there is room after so long, there is.
        #[test]
        fn there_is_room_when_it_says_so(asks in prop::collection::vec((0_u64..10, 1_u64..400), 1..60)) {
            let mut keys = one(per_minute(5, 1_000));
            let mut now = at(1_000);
            for (wait, tokens) in asks {
                now += Duration::from_secs(wait);
                if let Err(KeyRefusal::Requests(after) | KeyRefusal::Tokens(after)) = keys.admit(now, "k", "m", tokens) {
                    prop_assert!(after > Duration::ZERO && after <= Duration::from_secs(65));
                    let mut later = now + after;
                    // Room for the one may be none for the other yet.
                    if let Err(KeyRefusal::Tokens(more)) = keys.admit(later, "k", "m", tokens) {
                        later += more;
                        prop_assert!(keys.admit(later, "k", "m", tokens).is_ok());
                    }
                    now = later;
                }
            }
        }
    }
}
