//! Keeps secrets out of log lines.

use std::borrow::Cow;

/// What stands where a secret stood.
pub(super) const HIDDEN: &str = "[hidden]";

/// Words that name a secret, alone or as a part of a longer name.
const SECRETS: [&str; 9] = [
    "auth",
    "authorization",
    "cookie",
    "credential",
    "credentials",
    "passwd",
    "password",
    "secret",
    "token",
];

/// Whether a field or parameter of this name holds a secret. `token-file` and the like hold a path.
pub(super) fn is_secret(name: &str) -> bool {
    let mut parts = name.split(|c: char| !c.is_ascii_alphanumeric()).rev();
    let last = parts.next().unwrap_or_default();
    if ["file", "path"].iter().any(|word| last.eq_ignore_ascii_case(word)) {
        return false;
    }
    // `accessToken` as well as `access_token`, but neither `secretary` nor `max_tokens`.
    let names = |part: &str| {
        let part = part.to_ascii_lowercase();
        SECRETS.iter().any(|word| part.ends_with(word))
    };
    names(last) || parts.any(names) || name.eq_ignore_ascii_case("api_key")
}

/// Hides the secrets in a text: values of parameters (`token=…`) and of JSON members
/// (`"token":"…"`), what follows `Bearer` and `Basic`, and user and password of a URL.
pub(super) fn text(text: &str) -> Cow<'_, str> {
    let mut clean = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(found) = text[at..].find(['=', ':', ' ', '@']) {
        let mark = at + found;
        at = mark + 1;
        let hidden = match text.as_bytes()[mark] {
            b'=' => is_secret(word_before(text, mark)).then(|| value(text, at)),
            b':' => json_value(text, mark),
            b' ' => scheme(&text[..mark]).then(|| value(text, at)),
            _ => user_info(text, mark),
        };
        // What was hidden already may hold marks of its own.
        if let Some((from, to)) = hidden.filter(|(from, to)| from < to && *from >= copied) {
            clean.push_str(&text[copied..from]);
            clean.push_str(HIDDEN);
            copied = to;
            at = at.max(to);
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    clean.push_str(&text[copied..]);
    Cow::Owned(clean)
}

/// The name that ends here.
fn word_before(text: &str, end: usize) -> &str {
    let before = &text[..end];
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    &before[before.trim_end_matches(inside).len()..]
}

/// From where to where the value reaches that begins here.
fn value(text: &str, start: usize) -> (usize, usize) {
    let rest = &text[start..];
    let open = rest.len() - rest.trim_start_matches(['"', '\'', '\\']).len();
    let from = start + open;
    let quote = rest[..open].chars().next_back().filter(|last| *last != '\\');
    let ends = |c: char| match quote {
        Some(quote) => c == quote,
        None => c.is_whitespace() || matches!(c, '&' | '"' | '\'' | '\\' | ';' | ',' | '#'),
    };
    let length = text[from..].find(ends).unwrap_or(text.len() - from);
    // What escapes the closing quote is no part of the secret.
    let body = text[from..from + length].trim_end_matches('\\');
    (from, from + body.len())
}

/// The string of a JSON member with a secret name, quotes escaped or not. `colon` stands after it.
fn json_value(text: &str, colon: usize) -> Option<(usize, usize)> {
    let name = text[..colon].strip_suffix('"')?.trim_end_matches('\\');
    if !is_secret(word_before(name, name.len())) {
        return None;
    }
    let rest = text[colon + 1..].trim_start();
    let start = text.len() - rest.len();
    let open = rest.len() - rest.trim_start_matches('\\').len();
    if !rest[open..].starts_with('"') {
        return Some(value(text, start));
    }
    let from = start + open + 1;
    let mut escaped = false;
    for (offset, c) in text[from..].char_indices() {
        match c {
            '"' if !escaped || open > 0 => {
                let body = text[from..from + offset].trim_end_matches('\\');
                return Some((from, from + body.len()));
            }
            _ => escaped = c == '\\' && !escaped,
        }
    }
    Some((from, text.len()))
}

/// Whether the text ends with the name of a way to authenticate.
fn scheme(before: &str) -> bool {
    let word = word_before(before, before.len());
    ["bearer", "basic"].iter().any(|scheme| word.eq_ignore_ascii_case(scheme))
        && before[..before.len() - word.len()].trim_end().to_ascii_lowercase().ends_with([':', '"'])
}

/// What stands before the `@` of a URL.
fn user_info(text: &str, at: usize) -> Option<(usize, usize)> {
    let before = &text[..at];
    let start = before.rfind("://")? + 3;
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '/' | '?' | '#' | '"');
    before[start..].chars().all(plain).then_some((start, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known_in_every_spelling() {
        for name in
            ["token", "Authorization", "admin_token", "accessToken", "client-secret", "auth"]
        {
            assert!(is_secret(name), "{name}");
        }
        for name in ["token_file", "token-path", "author", "limit", "sid", "secretary", ""] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn secrets_in_a_text_are_hidden_and_nothing_else() {
        for (text_in, out) in [
            ("GET /socket.io/?EIO=4&token=abc&x=1", "GET /socket.io/?EIO=4&token=[hidden]&x=1"),
            ("access_token=a-b.c", "access_token=[hidden]"),
            ("password=\"a b\" x", "password=\"[hidden]\" x"),
            ("authorization: Bearer abc.def", "authorization: Bearer [hidden]"),
            (r#"40{"token":"a\"b","n":1}"#, r#"40{"token":"[hidden]","n":1}"#),
            (r#"\"secret\":\"abc\",\"n\":1"#, r#"\"secret\":\"[hidden]\",\"n\":1"#),
            ("http://me:word@host/x@y", "http://[hidden]@host/x@y"),
            ("the bearer of news = 1", "the bearer of news = 1"),
            ("mail a@b.example, ratio 1:2", "mail a@b.example, ratio 1:2"),
            ("token=", "token="),
        ] {
            assert_eq!(text(text_in), out);
        }
    }

    #[test]
    fn no_neighbourhood_uncovers_a_secret() {
        let pieces = [
            "token=s3cret",
            "token=",
            "\"",
            "\\",
            ":",
            "é",
            "@",
            "://",
            "Bearer ",
            "=",
            " ",
            "{",
            "\"token\":",
            "&",
        ];
        let places = pieces.len().pow(4);
        for place in 0..places {
            let part = |n: u32| pieces[place / pieces.len().pow(n) % pieces.len()];
            let words = format!("{}{}token=s3cret{}{}", part(0), part(1), part(2), part(3));
            assert!(!text(&words).contains("s3cret"), "{words} → {}", text(&words));
        }
    }

    #[test]
    fn a_text_without_secrets_is_not_copied() {
        assert!(matches!(text("listening on http://127.0.0.1:8000/"), Cow::Borrowed(_)));
    }
}
