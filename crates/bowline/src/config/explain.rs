//! `config show` and `config explain`: what will run, key by key, and where it comes from.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use serde_json::{Value, json};

use super::{
    Change, Config, DEFAULT_FILE, Examined, Origin,
    keys::{KEYS, Key, last},
    near, suggest,
};

/// One value that will run.
struct Row {
    key: &'static Key,
    /// The table it stands in, as its header has it.
    table: String,
    name: &'static str,
    value: Value,
    origin: Origin,
}

impl Row {
    fn path(&self) -> String {
        format!("{}.{}", self.table, self.name)
    }
}

/// Writes what will run as a file, with the place each value comes from. Secrets are left out.
pub(crate) fn show(examined: &Examined, file: Option<&Path>) -> String {
    let mut lines = Vec::new();
    let mut table = String::new();
    for row in rows(examined) {
        let unset = if row.value.is_null() { "#" } else { "" };
        if table != row.table {
            table.clone_from(&row.table);
            // A table whose keys are needed must not stand there without them.
            let mark = if row.key.required { unset } else { "" };
            lines.push((format!("{mark}[{table}]"), None));
        }
        let (text, none) = match &row.value {
            Value::Null => (format!("{unset}{}", row.name), "not set"),
            value => (format!("{} = {}", row.name, plain(value)), "default"),
        };
        lines.push((text, Some(place(row.origin, file).unwrap_or_else(|| none.to_owned()))));
    }

    // One long value does not move all comments away from their keys.
    let widths = lines.iter().map(|(text, _)| text.chars().count()).filter(|width| *width <= 48);
    let width = widths.max().unwrap_or_default();
    let mut shown = String::new();
    for (text, place) in lines {
        let gap = if shown.is_empty() { "" } else { "\n" };
        // Writing to a string cannot fail.
        let _ = match place {
            Some(place) => writeln!(shown, "{text:<width$}  # {place}"),
            None => writeln!(shown, "{gap}{text}"),
        };
    }
    shown
}

/// The same as JSON.
pub(crate) fn show_json(examined: &Examined, file: Option<&Path>) -> Value {
    let rows = rows(examined).into_iter().map(|row| {
        json!({
            "key": row.path(),
            "value": row.value,
            "from": match row.origin {
                Origin::Default => "default",
                Origin::Line(_) => "file",
                Origin::Variable(_) => "variable",
                Origin::Flag(_) => "flag",
            },
            "place": place(row.origin, file),
            "change": match row.key.change {
                Change::Reload => "reload",
                Change::Restart => "restart",
            },
        })
    });
    json!({ "keys": rows.collect::<Vec<_>>() })
}

/// Says what is to be known of a key, or of all keys of a table.
///
/// # Errors
/// If there is no such key. The text may name one that was meant.
pub(crate) fn explain(
    asked: &str,
    examined: &Examined,
    file: Option<&Path>,
) -> Result<String, String> {
    let keys = keys(asked)?;
    let (rows, words, defaults) = (rows(examined), words(), Config::default());
    let mut text = String::new();
    for key in keys {
        let gap = if text.is_empty() { "" } else { "\n" };
        let _ = writeln!(text, "{gap}{}", key.path);
        for line in words.get(key.path).into_iter().flatten() {
            let _ = writeln!(text, "  {line}");
        }
        text.push('\n');

        let mut say = |label: &str, words: &str| {
            let _ = writeln!(text, "  {label:<8} {words}");
        };
        say("value", &key.words());
        if !key.path.contains('*') {
            say("default", &plain(&key.show(&defaults)));
        }
        for row in rows.iter().filter(|row| row.key.path == key.path) {
            let which = if key.path.contains('*') { row.path() + " = " } else { String::new() };
            let from = place(row.origin, file).unwrap_or_else(|| "the default".to_owned());
            say("now", &format!("{which}{}, from {from}", plain(&row.value)));
        }
        say(
            "change",
            match key.change {
                Change::Reload => "takes effect with `bowline reload`",
                Change::Restart => "takes effect when the server is started again",
            },
        );
        if let Some(variable) = key.variable {
            let flag = variable.flag().unwrap_or_default();
            say("also", &format!("{flag}, {}", variable.name()));
        }
    }
    Ok(text)
}

/// What `default.toml` says about each key, line by line: the comment above it, or that of its
/// table. A comment stands for all keys up to the next empty line.
pub(crate) fn words() -> BTreeMap<String, Vec<&'static str>> {
    let mut words = BTreeMap::new();
    let (mut table, mut comment, mut of_table) = (String::new(), Vec::new(), Vec::new());
    for line in DEFAULT_FILE.lines() {
        if let Some(text) = line.strip_prefix("# ") {
            comment.push(text);
            continue;
        }
        // A key without a default is written as `#key`.
        let line = line.strip_prefix('#').unwrap_or(line);
        if let Some(header) = line.strip_prefix('[') {
            header.trim_end_matches(']').clone_into(&mut table);
            of_table = std::mem::take(&mut comment);
        } else if let Some((key, _)) = line.split_once(" = ") {
            let own = if comment.is_empty() { &of_table } else { &comment };
            words.entry(pattern(&format!("{table}.{key}"))).or_insert_with(|| own.clone());
        } else {
            comment.clear();
        }
    }
    words
}

fn rows(examined: &Examined) -> Vec<Row> {
    let row = |key: &'static Key, table: String, name: &'static str, value: Value| {
        let path = format!("{table}.{name}");
        let origin = examined.origins.get(&path).copied().unwrap_or_default();
        Row { key, table, name, value, origin }
    };
    let rows = KEYS.iter().flat_map(|key| {
        let (table, name) = key.path.rsplit_once('.').unwrap_or_default();
        match key.show(&examined.config) {
            Value::Object(named) => (named.into_iter())
                .map(|(one, value)| row(key, table.replace('*', &format!("{one:?}")), name, value))
                .collect(),
            value => vec![row(key, table.to_owned(), name, value)],
        }
    });
    let mut rows: Vec<Row> = rows.collect();
    // What stands in the tables of several names comes table by table.
    let tables: Vec<String> = rows.iter().map(|row| row.table.clone()).collect();
    rows.sort_by_key(|row| tables.iter().position(|table| *table == row.table));
    rows
}

/// Finds a key by its whole path, or by the end of it, and all keys of a table.
fn keys(asked: &str) -> Result<Vec<&'static Key>, String> {
    let asked = pattern(asked);
    let (inside, end, between) = (format!("{asked}."), format!(".{asked}"), format!(".{asked}."));
    let found: Vec<&Key> = (KEYS.iter())
        .filter(|key| {
            key.path == asked
                || key.path.starts_with(&inside)
                || key.path.ends_with(&end)
                || key.path.contains(&between)
        })
        .collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let meant = suggest::nearest(&asked, KEYS.iter().map(|key| key.path)).or_else(|| {
        let end = suggest::nearest(last(&asked), KEYS.iter().map(|key| last(key.path)))?;
        KEYS.iter().map(|key| key.path).find(|path| last(path) == end)
    });
    let meant = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
    Err(format!("there is no key `{asked}`{meant}"))
}

/// Puts a `*` in the place of a name between quotes, or of one that needs none.
fn pattern(path: &str) -> String {
    if let (Some(from), Some(to)) = (path.find('"'), path.rfind('"'))
        && from < to
    {
        return format!("{}*{}", &path[..from], &path[to + 1..]);
    }
    const NAMED: [&str; 6] =
        ["backends.", "ai.providers.", "ai.models.", "ai.keys.", "services.", "links."];
    if KEYS.iter().any(|key| key.path == path) {
        return path.to_owned();
    }
    let named = NAMED.iter().find_map(|table| Some((table, path.strip_prefix(table)?)));
    match named {
        Some((table, rest)) => {
            let end = rest.find('.').unwrap_or(rest.len());
            format!("{table}*{}", &rest[end..])
        }
        None => path.to_owned(),
    }
}

/// A value as it stands in the file.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            format!("[{}]", items.join(", "))
        }
        // A table on one line, as a handler may be.
        Value::Object(pairs) => {
            let bare = |key: &str| {
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
                !key.is_empty() && key.chars().all(plain)
            };
            let pairs = pairs.iter().map(|(key, value)| match bare(key) {
                true => format!("{key} = {}", plain(value)),
                false => format!("{key:?} = {}", plain(value)),
            });
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        value => value.to_string(),
    }
}

/// Where a value that is no default comes from.
fn place(origin: Origin, file: Option<&Path>) -> Option<String> {
    match origin {
        Origin::Default => None,
        Origin::Line(line) => Some(format!("{}:{line}", file.map(near).unwrap_or_default())),
        Origin::Variable(name) | Origin::Flag(name) => Some(name.to_owned()),
    }
}
