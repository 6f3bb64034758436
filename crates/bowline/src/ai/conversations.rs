//! What is kept of conversations between Socket.IO clients and models: their messages, in memory, bounded
//! in every direction. Whoever was quiet for longest goes first. Knows no clock: what counts is the order.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde_json::value::RawValue;

/// What an entry is thought to take besides its text.
const MESSAGE_BYTES: usize = 64;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Conversations.
    pub(super) conversations: usize,
    /// Messages of one.
    pub(super) turns: usize,
    /// The text of all of them.
    pub(super) bytes: usize,
}

/// All conversations.
#[derive(Debug)]
pub(super) struct Conversations {
    bounds: Bounds,
    all: BTreeMap<Arc<str>, Conversation>,
    /// By when they were last spoken in, the oldest first.
    order: BTreeMap<u64, Arc<str>>,
    last: u64,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Conversation {
    messages: VecDeque<Message>,
    bytes: usize,
    /// Its place in the order.
    at: u64,
    /// Whether an answer is under way.
    busy: bool,
}

/// Something that was said, as OpenAI's API has it.
#[derive(Debug, Clone)]
pub(super) struct Message {
    /// Whether a user said it: there a conversation may begin.
    pub(super) by_user: bool,
    pub(super) json: Arc<RawValue>,
}

/// An answer is under way there already: it would not know of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Busy;

impl Message {
    fn bytes(&self) -> usize {
        MESSAGE_BYTES + self.json.get().len()
    }
}

impl Conversations {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, all: BTreeMap::new(), order: BTreeMap::new(), last: 0, bytes: 0 }
    }

    /// Bounds that are lower count at once.
    pub(super) fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        let names: Vec<Arc<str>> = self.all.keys().cloned().collect();
        for name in names {
            self.shorten(&name, bounds.turns);
        }
        self.fit();
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.all.contains_key(name)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Begins an answer in a conversation, which is made if it is not there. What was said so far, the
    /// oldest first.
    pub(super) fn begin(&mut self, name: &Arc<str>) -> Result<Vec<Message>, Busy> {
        if self.all.get(name).is_some_and(|one| one.busy) {
            return Err(Busy);
        }
        self.touch(name);
        let Some(one) = self.all.get_mut(name) else { return Ok(Vec::new()) };
        one.busy = true;
        let messages = one.messages.iter().cloned().collect();
        self.fit();
        Ok(messages)
    }

    /// Ends it, with what is to be remembered: nothing if there was no whole answer.
    pub(super) fn end(&mut self, name: &Arc<str>, said: Vec<Message>) {
        let Some(one) = self.all.get_mut(name) else { return };
        one.busy = false;
        for message in said {
            let bytes = message.bytes();
            one.bytes += bytes;
            self.bytes += bytes;
            one.messages.push_back(message);
        }
        self.touch(name);
        self.shorten(name, self.bounds.turns);
        self.fit();
        if self.all.get(name).is_some_and(|one| one.messages.is_empty() && !one.busy) {
            self.forget(name);
        }
    }

    /// Makes it the one that was spoken in last.
    fn touch(&mut self, name: &Arc<str>) {
        let one = self.all.entry(Arc::clone(name)).or_default();
        self.order.remove(&one.at);
        self.last += 1;
        one.at = self.last;
        self.order.insert(self.last, Arc::clone(name));
    }

    /// Takes the oldest messages out until that many are left, and a user's is the first of them.
    fn shorten(&mut self, name: &Arc<str>, turns: usize) {
        let Some(one) = self.all.get_mut(name) else { return };
        let before = one.bytes;
        let mut cut = false;
        while one.messages.len() > turns
            || cut && one.messages.front().is_some_and(|first| !first.by_user)
        {
            cut = true;
            let Some(gone) = one.messages.pop_front() else { break };
            one.bytes -= gone.bytes();
        }
        self.bytes -= before - one.bytes;
    }

    /// Forgets those that were quiet for longest until all is within the bounds; the last one loses its
    /// oldest messages.
    fn fit(&mut self) {
        while self.all.len() > self.bounds.conversations.max(1)
            || self.bytes > self.bounds.bytes && self.all.len() > 1
        {
            let Some(name) = self.order.first_key_value().map(|(_, name)| Arc::clone(name)) else {
                return;
            };
            self.forget(&name);
        }
        let Some(name) = self.all.keys().next().cloned() else { return };
        while self.bytes > self.bounds.bytes {
            let left = self.all.get(&name).map_or(0, |one| one.messages.len());
            if left == 0 {
                return;
            }
            self.shorten(&name, left - 1);
        }
    }

    fn forget(&mut self, name: &Arc<str>) {
        if let Some(gone) = self.all.remove(name) {
            self.order.remove(&gone.at);
            self.bytes -= gone.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(conversations: usize, turns: usize, bytes: usize) -> Bounds {
        Bounds { conversations, turns, bytes }
    }

    fn message(by_user: bool, text: &str) -> Message {
        let json = RawValue::from_string(format!("{text:?}")).unwrap();
        Message { by_user, json: json.into() }
    }

    fn name(text: &str) -> Arc<str> {
        text.into()
    }

    /// Somebody says something and is answered; what the model saw of earlier turns.
    fn turn(all: &mut Conversations, of: &str, text: &str) -> Vec<String> {
        let seen = all.begin(&name(of)).unwrap();
        all.end(&name(of), vec![message(true, text), message(false, &format!("re {text}"))]);
        seen.iter().map(|message| message.json.get().trim_matches('"').to_owned()).collect()
    }

    #[test]
    fn a_conversation_remembers_what_was_said_in_it_and_in_no_other() {
        let mut all = Conversations::new(bounds(10, 10, 10_000));
        assert!(turn(&mut all, "a", "one").is_empty());
        assert!(turn(&mut all, "b", "two").is_empty());
        assert_eq!(turn(&mut all, "a", "three"), ["one", "re one"]);
        assert_eq!(turn(&mut all, "a", "four"), ["one", "re one", "three", "re three"]);
    }

    #[test]
    fn an_answer_that_failed_leaves_nothing() {
        let mut all = Conversations::new(bounds(10, 10, 10_000));
        all.begin(&name("a")).unwrap();
        assert_eq!(all.begin(&name("a")).unwrap_err(), Busy);
        all.end(&name("a"), Vec::new());
        assert_eq!((all.len(), all.bytes), (0, 0));
        turn(&mut all, "a", "one");
        all.begin(&name("a")).unwrap();
        all.end(&name("a"), Vec::new());
        assert_eq!(turn(&mut all, "a", "two"), ["one", "re one"]);
    }

    #[test]
    fn a_long_conversation_loses_its_beginning_and_begins_with_a_user_again() {
        let mut all = Conversations::new(bounds(10, 3, 10_000));
        for text in ["one", "two", "three"] {
            turn(&mut all, "a", text);
        }
        assert_eq!(turn(&mut all, "a", "four"), ["three", "re three"]);
    }

    #[test]
    fn who_was_quiet_for_longest_goes_first() {
        let mut all = Conversations::new(bounds(2, 10, 10_000));
        turn(&mut all, "a", "one");
        turn(&mut all, "b", "one");
        turn(&mut all, "a", "two");
        turn(&mut all, "c", "one");
        assert!(all.contains("a") && !all.contains("b") && all.contains("c"));
        // One that goes while it is answered is gone: what it was begun with was more than there is room for.
        all.begin(&name("a")).unwrap();
        turn(&mut all, "d", "one");
        turn(&mut all, "e", "one");
        all.end(&name("a"), vec![message(true, "late")]);
        assert_eq!(all.len(), 2);
    }

    #[test]
    fn nothing_goes_beyond_the_bounds_and_nothing_is_counted_wrong() {
        let mut all = Conversations::new(bounds(5, 7, 2_000));
        for number in 0..2_000_u32 {
            let of = name(&(number * 7 % 11).to_string());
            if all.begin(&of).is_ok() {
                let text = "x".repeat((number * 31 % 400) as usize);
                all.end(&of, vec![message(true, &text), message(false, &text)]);
            }
            if number == 1_500 {
                all.set_bounds(bounds(3, 4, 900));
            }
            let counted: usize = all.all.values().map(|one| one.bytes).sum();
            let real: usize =
                all.all.values().flat_map(|one| one.messages.iter().map(Message::bytes)).sum();
            assert_eq!((all.bytes, all.bytes), (counted, real));
            assert_eq!(all.order.len(), all.all.len());
            assert!(all.bytes <= all.bounds.bytes && all.len() <= all.bounds.conversations);
            assert!(all.all.values().all(|one| one.messages.len() <= all.bounds.turns));
        }
    }
}
