//! Checks JSON text without building values: one pass, no recursion, and no allocation below
//! [`INLINE_DEPTH`] levels.
//!
//! What JavaScript's `JSON.parse` accepts is accepted, lone surrogates in escapes included, at any
//! depth: nesting costs a byte a level, so it is bounded by the length of the text.

use std::borrow::Cow;

/// Levels of nesting that need no allocation.
const INLINE_DEPTH: usize = 32;

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    Number,
    Array,
    Object,
    Literal,
}

/// Why a text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is not JSON, or not the kind of value that is asked for.
    Syntax,
    /// A placeholder names an attachment that does not exist.
    Placeholder,
}

/// The first element of an array: what it is, and its text.
pub(super) type First<'a> = (Kind, &'a str);

/// Checks that `text` is one array and returns its first element, if it has one.
///
/// With `attachments`, every object with `"_placeholder": true` must have a `num` below that.
pub(super) fn check_array(
    text: &str,
    attachments: Option<usize>,
) -> Result<Option<First<'_>>, Fault> {
    let mut walk = Walk { text, at: 0 };
    let first = walk.enter_array(attachments)?;
    if first.is_none() {
        walk.end()?;
        return Ok(None);
    }
    loop {
        walk.skip_space();
        match walk.next() {
            Some(b',') => {
                walk.skip_space();
                walk.value(attachments)?;
            }
            Some(b']') => {
                walk.end()?;
                return Ok(first);
            }
            Some(_) | None => return Err(Fault::Syntax),
        }
    }
}

/// Checks that `text` is one value and returns what it is.
pub(super) fn check_value(text: &str) -> Result<Kind, Fault> {
    let mut walk = Walk { text, at: 0 };
    walk.skip_space();
    let kind = walk.value(None)?;
    walk.end()?;
    Ok(kind)
}

/// Splits an array that was checked before into its first element and the text behind it, which
/// begins at a comma or at the closing bracket.
pub(super) fn split_first(text: &str) -> Option<(First<'_>, &str)> {
    let mut walk = Walk { text, at: 0 };
    let first = walk.enter_array(None).ok()??;
    walk.skip_space();
    Some((first, &text[walk.at..]))
}

/// Finds a value in an array that was checked before: the element at `index`, and in that what `keys`
/// lead to. What stands behind it is not looked at.
pub(super) fn find<'a>(text: &'a str, index: usize, keys: &[String]) -> Option<First<'a>> {
    let mut walk = Walk { text, at: 0 };
    walk.skip_space();
    walk.enter_element(index)?;
    for key in keys {
        walk.enter_member(key)?;
    }
    let from = walk.at;
    let kind = walk.value(None).ok()?;
    Some((kind, &text[from..walk.at]))
}

/// Returns what a string literal that was checked before says. Lone surrogates are replaced.
pub(super) fn unescape(literal: &str) -> Cow<'_, str> {
    let inner = literal.get(1..literal.len().saturating_sub(1)).unwrap_or_default();
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut out = String::with_capacity(inner.len());
    let mut units = Vec::new();
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(letter) = rest.chars().next() else { break };
        rest = &rest[letter.len_utf8()..];
        match letter {
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'u' => {
                // A pair of surrogates is two escapes in a row.
                units.clear();
                rest = take_unit(rest, &mut units);
                while let Some(tail) = rest.strip_prefix("\\u") {
                    rest = take_unit(tail, &mut units);
                }
                out.extend(
                    char::decode_utf16(units.iter().copied())
                        .map(|char| char.unwrap_or(char::REPLACEMENT_CHARACTER)),
                );
            }
            other => out.push(other),
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn take_unit<'a>(text: &'a str, units: &mut Vec<u16>) -> &'a str {
    match text.split_at_checked(4) {
        Some((digits, rest)) => {
            units.extend(u16::from_str_radix(digits, 16));
            rest
        }
        None => "",
    }
}

/// A place in a text.
struct Walk<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Walk<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn end(&mut self) -> Result<(), Fault> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { Err(Fault::Syntax) }
    }

    /// Passes the opening bracket and the first element, or an empty array as a whole.
    fn enter_array(&mut self, attachments: Option<usize>) -> Result<Option<First<'a>>, Fault> {
        self.skip_space();
        if self.next() != Some(b'[') {
            return Err(Fault::Syntax);
        }
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(None);
        }
        let from = self.at;
        let kind = self.value(attachments)?;
        Ok(Some((kind, &self.text[from..self.at])))
    }

    /// Goes from the beginning of an array to that of one of its elements.
    fn enter_element(&mut self, index: usize) -> Option<()> {
        self.take(b'[')?;
        self.skip_space();
        for _ in 0..index {
            self.value(None).ok()?;
            self.skip_space();
            self.take(b',')?;
            self.skip_space();
        }
        (self.peek() != Some(b']')).then_some(())
    }

    /// Goes from the beginning of an object, or an array, to what is called `name` in it.
    fn enter_member(&mut self, name: &str) -> Option<()> {
        if self.peek() == Some(b'[') {
            let is_index = name.bytes().all(|byte| byte.is_ascii_digit());
            return self.enter_element(name.parse().ok().filter(|_| is_index)?);
        }
        self.take(b'{')?;
        self.skip_space();
        loop {
            let from = self.at;
            self.take(b'"')?;
            self.string().ok()?;
            let found = unescape(&self.text[from..self.at]) == name;
            self.skip_space();
            self.take(b':')?;
            self.skip_space();
            if found {
                return Some(());
            }
            self.value(None).ok()?;
            self.skip_space();
            self.take(b',')?;
            self.skip_space();
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.next() == Some(byte)).then_some(())
    }

    /// Passes one value.
    fn value(&mut self, attachments: Option<usize>) -> Result<Kind, Fault> {
        match self.peek() {
            Some(b'[') => self.nested(attachments).map(|()| Kind::Array),
            Some(b'{') => self.nested(attachments).map(|()| Kind::Object),
            Some(_) | None => self.scalar(),
        }
    }

    fn scalar(&mut self) -> Result<Kind, Fault> {
        match self.next() {
            Some(b'"') => self.string().map(|()| Kind::String),
            Some(digit @ (b'-' | b'0'..=b'9')) => self.number(digit).map(|()| Kind::Number),
            Some(b't') => self.literal("rue"),
            Some(b'f') => self.literal("alse"),
            Some(b'n') => self.literal("ull"),
            Some(_) | None => Err(Fault::Syntax),
        }
    }

    fn literal(&mut self, rest: &str) -> Result<Kind, Fault> {
        if self.text.as_bytes()[self.at..].starts_with(rest.as_bytes()) {
            self.at += rest.len();
            Ok(Kind::Literal)
        } else {
            Err(Fault::Syntax)
        }
    }

    /// Passes a string behind its opening quote.
    fn string(&mut self) -> Result<(), Fault> {
        loop {
            self.at += plain_run(&self.text.as_bytes()[self.at..]);
            match self.next() {
                Some(b'"') => return Ok(()),
                Some(b'\\') => self.escape()?,
                Some(_) | None => return Err(Fault::Syntax),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        match self.next() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(()),
            Some(b'u') => {
                let digits = self.text.as_bytes()[self.at..].first_chunk::<4>();
                if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                    return Err(Fault::Syntax);
                }
                self.at += 4;
                Ok(())
            }
            Some(_) | None => Err(Fault::Syntax),
        }
    }

    /// Passes a number behind its first character.
    fn number(&mut self, first: u8) -> Result<(), Fault> {
        let lead = if first == b'-' { self.next() } else { Some(first) };
        match lead {
            Some(b'0') => {}
            Some(b'1'..=b'9') => {
                self.digits();
            }
            Some(_) | None => return Err(Fault::Syntax),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(())
    }

    fn some_digits(&mut self) -> Result<(), Fault> {
        if self.digits() == 0 { Err(Fault::Syntax) } else { Ok(()) }
    }

    fn digits(&mut self) -> usize {
        let from = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        self.at - from
    }

    /// Passes an array or object with all that is in it.
    fn nested(&mut self, attachments: Option<usize>) -> Result<(), Fault> {
        let mut open = Stack::default();
        loop {
            // Here a value begins.
            let from = self.at;
            let whole = match self.peek() {
                Some(b'[') => {
                    self.at += 1;
                    self.skip_space();
                    let empty = self.peek() == Some(b']');
                    if !empty {
                        open.note(|top| top.note_other());
                        open.push(Level::array());
                    }
                    empty
                }
                Some(b'{') => {
                    self.at += 1;
                    self.skip_space();
                    let empty = self.peek() == Some(b'}');
                    if !empty {
                        open.note(|top| top.note_other());
                        open.push(Level::object(self.key(attachments)?));
                    }
                    empty
                }
                Some(_) | None => {
                    self.scalar()?;
                    if let Some(attachments) = attachments {
                        let scalar = &self.text[from..self.at];
                        open.note(|top| top.note_scalar(scalar, attachments));
                    }
                    self.after_value(&mut open, attachments)?;
                    if open.is_empty() {
                        return Ok(());
                    }
                    continue;
                }
            };
            if whole {
                self.at += 1;
                open.note(|top| top.note_other());
                self.after_value(&mut open, attachments)?;
                if open.is_empty() {
                    return Ok(());
                }
            }
        }
    }

    /// Passes what stands between a value and the next one, closing levels as they end.
    fn after_value(&mut self, open: &mut Stack, attachments: Option<usize>) -> Result<(), Fault> {
        while let Some(top) = open.top() {
            self.skip_space();
            let object = top.is_object();
            match self.next() {
                Some(b',') => {
                    self.skip_space();
                    if object {
                        let key = self.key(attachments)?;
                        open.note(|top| top.note_key(key));
                    }
                    return Ok(());
                }
                Some(b']') if !object => open.pop(),
                Some(b'}') if object => {
                    if top.is_bad_placeholder() {
                        return Err(Fault::Placeholder);
                    }
                    open.pop();
                }
                Some(_) | None => return Err(Fault::Syntax),
            }
        }
        Ok(())
    }

    /// Passes a key, its colon and the space behind it.
    fn key(&mut self, attachments: Option<usize>) -> Result<Key, Fault> {
        let from = self.at;
        if self.next() != Some(b'"') {
            return Err(Fault::Syntax);
        }
        self.string()?;
        let key = if attachments.is_some() {
            match &*unescape(&self.text[from..self.at]) {
                "_placeholder" => Key::Placeholder,
                "num" => Key::Num,
                _ => Key::Other,
            }
        } else {
            Key::Other
        };
        self.skip_space();
        if self.next() != Some(b':') {
            return Err(Fault::Syntax);
        }
        self.skip_space();
        Ok(key)
    }
}

/// How many bytes from the start are neither a quote, nor a backslash, nor a control character.
fn plain_run(bytes: &[u8]) -> usize {
    // Eight bytes at a time. In each term the lowest bit that is set marks the first byte that
    // meets the condition; bits above it may be wrong, but only the lowest is used.
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGHS;
    let equals = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let mut at = 0;
    // Sixteen, where they are all plain: without a way out of the loop it becomes one comparison.
    let special = |byte: &u8| (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\');
    while let Some(chunk) = bytes[at..].first_chunk::<16>()
        && !chunk.iter().fold(false, |any, byte| any | special(byte))
    {
        at += 16;
    }
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let found = below(word, 0x20) | equals(word, b'"') | equals(word, b'\\');
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let tail = bytes[at..].iter().position(special);
    tail.map_or(bytes.len(), |tail| at + tail)
}

/// Which key of an object its next value belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Placeholder,
    Num,
    Other,
}

/// One open array or object, in a byte.
#[derive(Debug, Clone, Copy)]
struct Level(u8);

impl Level {
    const OBJECT: u8 = 1;
    const AT_PLACEHOLDER: u8 = 2;
    const AT_NUM: u8 = 4;
    const PLACEHOLDER: u8 = 8;
    const NUM_FITS: u8 = 16;

    fn array() -> Self {
        Self(0)
    }

    fn object(key: Key) -> Self {
        let mut level = Self(Self::OBJECT);
        level.note_key(key);
        level
    }

    fn is_object(self) -> bool {
        self.0 & Self::OBJECT != 0
    }

    fn note_key(&mut self, key: Key) {
        self.0 &= !(Self::AT_PLACEHOLDER | Self::AT_NUM);
        self.0 |= match key {
            Key::Placeholder => Self::AT_PLACEHOLDER,
            Key::Num => Self::AT_NUM,
            Key::Other => 0,
        };
    }

    /// Of a key that is given twice the last value counts, as in `JSON.parse`.
    fn note_scalar(&mut self, scalar: &str, attachments: usize) {
        self.note_other();
        if self.0 & Self::AT_PLACEHOLDER != 0 && scalar == "true" {
            self.0 |= Self::PLACEHOLDER;
        }
        if self.0 & Self::AT_NUM != 0 && fits(scalar, attachments) {
            self.0 |= Self::NUM_FITS;
        }
    }

    fn note_other(&mut self) {
        if self.0 & Self::AT_PLACEHOLDER != 0 {
            self.0 &= !Self::PLACEHOLDER;
        }
        if self.0 & Self::AT_NUM != 0 {
            self.0 &= !Self::NUM_FITS;
        }
    }

    fn is_bad_placeholder(self) -> bool {
        self.0 & (Self::PLACEHOLDER | Self::NUM_FITS) == Self::PLACEHOLDER
    }
}

/// Whether a scalar is the index of an attachment. `1.0` is, to JavaScript.
fn fits(scalar: &str, attachments: usize) -> bool {
    let number: f64 = scalar.parse().unwrap_or(f64::NAN);
    number >= 0.0 && number < attachments as f64 && number.fract() == 0.0
}

/// The levels that are open.
#[derive(Default)]
struct Stack {
    depth: usize,
    inline: [u8; INLINE_DEPTH],
    spill: Vec<u8>,
}

impl Stack {
    fn is_empty(&self) -> bool {
        self.depth == 0
    }

    fn slot(&mut self) -> Option<&mut u8> {
        let index = self.depth.checked_sub(1)?;
        if index < INLINE_DEPTH { self.inline.get_mut(index) } else { self.spill.last_mut() }
    }

    fn top(&mut self) -> Option<Level> {
        self.slot().map(|level| Level(*level))
    }

    fn note(&mut self, change: impl FnOnce(&mut Level)) {
        if let Some(slot) = self.slot() {
            let mut level = Level(*slot);
            change(&mut level);
            *slot = level.0;
        }
    }

    fn push(&mut self, level: Level) {
        match self.inline.get_mut(self.depth) {
            Some(slot) => *slot = level.0,
            None => self.spill.push(level.0),
        }
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        if self.depth >= INLINE_DEPTH {
            self.spill.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn valid(text: &str) -> bool {
        check_value(text).is_ok()
    }

    /// Whether serde_json, asked for nothing but syntax, agrees.
    fn serde_valid(text: &str) -> bool {
        serde_json::from_str::<IgnoredAny>(text).is_ok()
    }

    #[test]
    fn syntax_is_that_of_json() {
        for text in [
            "0",
            "-0",
            "1.5e-7",
            "1E+9",
            "\"\"",
            "\"a\\u00e9\\n\\/\"",
            "\"\\ud83d\"",
            "true",
            "false",
            "null",
            "[]",
            "{}",
            " [ 1 , {\"a\" : [ ] } ] ",
            "{\"a\":{\"b\":[{}]}}",
            "\"é😀\u{7f}\"",
            "[[],[]]",
            "[{},{}]",
        ] {
            assert!(valid(text), "{text}");
            assert!(serde_valid(text), "{text}");
        }
        for text in [
            "",
            " ",
            "-",
            "01",
            "1.",
            ".5",
            "1e",
            "1e+",
            "+1",
            "--1",
            "0x1",
            "NaN",
            "nul",
            "nullx",
            "tru",
            "\"",
            "\"\\\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\u12",
            "\"\n\"",
            "\"\u{1}\"",
            "[",
            "]",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{",
            "{}}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{1:1}",
            "{\"a\":1]",
            "[1}",
            "[[]",
            "[]]",
            "1 2",
            "'a'",
            "\u{a0}1",
            "[[1,]]",
            "[{\"a\":1,}]",
            "[[,]]",
            "{\"a\" 1}",
            "{,}",
        ] {
            assert!(!valid(text), "{text}");
            assert!(!serde_valid(text), "{text}");
        }
    }

    #[test]
    fn a_million_levels_need_no_stack() {
        for depth in [INLINE_DEPTH - 1, INLINE_DEPTH, INLINE_DEPTH + 1, 1_000_000] {
            let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            assert!(valid(&text), "{depth}");
            let text = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
            assert!(valid(&text), "{depth}");
            assert!(!valid(&"[".repeat(depth)), "{depth}");
            let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth + 1));
            assert!(!valid(&text), "{depth}");
            let text = format!("{}{}", "[".repeat(depth), "}".repeat(depth));
            assert!(!valid(&text), "{depth}");
        }
    }

    #[test]
    fn levels_beyond_the_inline_ones_keep_their_kind() {
        let open = "[{\"a\":".repeat(INLINE_DEPTH);
        let close = "}]".repeat(INLINE_DEPTH);
        assert!(valid(&format!("{open}1{close}")));
        assert!(valid(&format!("{open}1,\"b\":2{close}")));
        assert!(!valid(&format!("{open}1,2{close}")));
    }

    #[test]
    fn the_first_element_is_told_apart() {
        let first = |text| check_array(text, None).unwrap();
        assert_eq!(first(" [ \"a\\\"]\" , 2]"), Some((Kind::String, "\"a\\\"]\"")));
        assert_eq!(first("[-1.5e3]"), Some((Kind::Number, "-1.5e3")));
        assert_eq!(first("[[1],2]"), Some((Kind::Array, "[1]")));
        assert_eq!(first("[ ]"), None);
        assert_eq!(check_array("{}", None), Err(Fault::Syntax));
        assert_eq!(check_array("[1]x", None), Err(Fault::Syntax));
        assert_eq!(check_array("[] ]", None), Err(Fault::Syntax));
        assert_eq!(split_first("[\"a\" , 2]"), Some(((Kind::String, "\"a\""), ", 2]")));
        assert_eq!(split_first("[]"), None);
    }

    #[test]
    fn a_value_is_found_by_its_path() {
        let text = r#" [ "n" , {"a":{"id":[1,"x",{}]},"\u0069d" : "yes" ,"id":"no"}, [[],7 ] ] "#;
        let at = |index, keys: &[&str]| {
            let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
            find(text, index, &keys).map(|(_, text)| text)
        };
        assert_eq!(at(0, &[]), Some("\"n\""));
        assert_eq!(at(1, &["id"]), Some("\"yes\""));
        assert_eq!(at(1, &["a", "id", "1"]), Some("\"x\""));
        assert_eq!(at(1, &["a", "id", "2"]), Some("{}"));
        assert_eq!(at(2, &["1"]), Some("7"));
        for (index, keys) in [
            (3, &[][..]),
            (0, &["id"]),
            (1, &["x"]),
            (1, &["a", "id", "3"]),
            (1, &["a", "id", "2", "x"]),
            (1, &["a", "id", "+1"]),
            (1, &["a", "id", ""]),
            (2, &["0", "0"]),
            (2, &["99999999999999999999"]),
        ] {
            assert_eq!(at(index, keys), None, "{index} {keys:?}");
        }
        assert_eq!(find("[]", 0, &[]), None);
        assert_eq!(find("{}", 0, &[]), None);
    }

    #[test]
    fn strings_are_unescaped_and_lone_surrogates_replaced() {
        for (literal, text) in [
            (r#""plain é""#, "plain é"),
            (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
            (r#""\u0041\u00e9""#, "Aé"),
            (r#""\ud83d\ude00!""#, "😀!"),
            (r#""\ud83d""#, "\u{fffd}"),
            (r#""\ude00\ud83d\n""#, "\u{fffd}\u{fffd}\n"),
        ] {
            assert_eq!(unescape(literal), text, "{literal}");
        }
    }

    #[test]
    fn placeholders_must_name_an_attachment() {
        let check = |text: &str| check_array(text, Some(2)).map(|_| ());
        for text in [
            "[\"a\"]",
            "[{\"_placeholder\":true,\"num\":0},{\"num\":1,\"_placeholder\":true}]",
            "[{\"a\":[{\"b\":{\"_placeholder\":true,\"num\":1.0}}]}]",
            "[{\"_placeholder\":false,\"num\":9}]",
            "[{\"_placeholder\":\"true\",\"num\":9}]",
            "[{\"_placeholder\":true,\"num\":9,\"num\":0}]",
            "[{\"_placeholder\":true,\"_placeholder\":[]}]",
            "[{\"num\":9}]",
            "[true,{\"_placeholder\" : true , \"num\" : 1e0 }]",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        for text in [
            "[{\"_placeholder\":true}]",
            "[{\"_placeholder\":true,\"num\":2}]",
            "[{\"_placeholder\":true,\"num\":-1}]",
            "[{\"_placeholder\":true,\"num\":0.5}]",
            "[{\"_placeholder\":true,\"num\":\"0\"}]",
            "[{\"_placeholder\":true,\"num\":null}]",
            "[{\"_placeholder\":true,\"num\":[0]}]",
            "[{\"_placeholder\":true,\"num\":0,\"num\":{}}]",
            "[{\"_placeholder\":true,\"num\":1e999}]",
            "[[[{\"a\":{\"_placeholder\":true,\"num\":7}}]]]",
            "[{\"\\u005fplaceholder\":true,\"num\":7}]",
            "[{\"num\":0,\"_placeholder\":true,\"n\\u0075m\":5}]",
        ] {
            assert_eq!(check(text), Err(Fault::Placeholder), "{text}");
        }
        assert!(check_array("[{\"_placeholder\":true,\"num\":9}]", None).is_ok(), "plain data");
    }

    proptest! {
        #[test]
        fn serde_agrees_on_likely_text(text in "[\\[\\]{}:,\"\\\\u0-9a-f.eE+\\- tnrl\u{1}é]{0,24}") {
            prop_assert_eq!(valid(&text), serde_valid(&text), "{}", text);
        }

        #[test]
        fn serde_agrees_on_cut_and_changed_json(
            values in proptest::collection::vec(value(), 1..4),
            at: proptest::sample::Index,
            change in "[\\[\\]{}:,\"\\\\0e.\u{1}]?",
        ) {
            let mut text = serde_json::to_string(&values).unwrap();
            prop_assert!(valid(&text));
            let at = at.index(text.len());
            if let Some(char) = text.get(at..).and_then(|rest| rest.chars().next()) {
                text.replace_range(at..at + char.len_utf8(), &change);
            }
            prop_assert_eq!(valid(&text), serde_valid(&text), "{}", text);
        }

        #[test]
        fn strings_come_back(text: String) {
            let literal = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(check_value(&literal), Ok(Kind::String));
            prop_assert_eq!(unescape(&literal), text);
        }

        #[test]
        fn plain_runs_end_at_the_first_special_byte(bytes: Vec<u8>) {
            let simple = bytes.iter().position(|byte| *byte < 0x20 || b"\"\\".contains(byte));
            prop_assert_eq!(plain_run(&bytes), simple.unwrap_or(bytes.len()));
        }
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        use serde_json::{Map, Value};
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let pairs = proptest::collection::vec((any::<String>(), inner.clone()), 0..4);
            prop_oneof![
                proptest::collection::vec(inner, 0..4).prop_map(Value::from),
                pairs.prop_map(|pairs| Value::Object(pairs.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }
}
