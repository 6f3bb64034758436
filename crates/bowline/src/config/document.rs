//! A TOML document that is read by asking for keys, and then says which ones nobody asked for.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Mistake, Place, suggest};

/// A value and the line it begins on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct At<T> {
    pub(crate) line: usize,
    pub(crate) value: T,
}

/// Finds the line of a place in the text.
pub(crate) struct Lines {
    ends: Vec<usize>,
}

impl Lines {
    pub(crate) fn of(text: &str) -> Self {
        Self { ends: text.match_indices('\n').map(|(at, _)| at).collect() }
    }

    /// Returns the line, from 1.
    pub(crate) fn line(&self, span: Range<usize>) -> usize {
        self.ends.partition_point(|end| *end < span.start) + 1
    }
}

/// One table of the document.
pub(crate) struct Section<'a> {
    /// What stands in front of a key in messages: empty, or `engine.`.
    prefix: String,
    table: &'a DeTable<'a>,
    lines: &'a Lines,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(crate) fn root(table: &'a DeTable<'a>, lines: &'a Lines) -> Self {
        Self { prefix: String::new(), table, lines, known: Vec::new() }
    }

    /// Takes the value of a key. `read` says in half a sentence what it wants when it cannot
    /// read one.
    pub(crate) fn value<T>(
        &mut self,
        key: &'static str,
        mistakes: &mut Vec<Mistake>,
        read: impl FnOnce(&DeValue<'a>) -> Result<T, String>,
    ) -> Option<At<T>> {
        self.known.push(key);
        let value = self.table.get(key)?;
        let line = self.lines.line(value.span());
        match read(value.get_ref()) {
            Ok(value) => Some(At { line, value }),
            Err(problem) => {
                let message = format!("`{}{key}` {problem}", self.prefix);
                mistakes.push(Mistake { place: Place::Line(line), message });
                None
            }
        }
    }

    /// Whether the table has the key, whatever its value.
    pub(crate) fn contains(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Takes a table.
    pub(crate) fn section(
        &mut self,
        key: &'static str,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Section<'a>> {
        self.known.push(key);
        let value = self.table.get(key)?;
        self.open(key, key, value, mistakes)
    }

    /// Takes every table of this table, whatever its key, with its line.
    pub(crate) fn sections(&self, mistakes: &mut Vec<Mistake>) -> Vec<(At<String>, Section<'a>)> {
        let mut sections = Vec::new();
        for (key, value) in self.table {
            let name = key.get_ref().to_string();
            let line = self.lines.line(key.span());
            if let Some(section) = self.open(&format!("\"{name}\""), &name, value, mistakes) {
                sections.push((At { line, value: name }, section));
            }
        }
        sections.sort_by_key(|(name, _)| name.line);
        sections
    }

    fn open(
        &self,
        shown: &str,
        key: &str,
        value: &'a Spanned<DeValue<'a>>,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Section<'a>> {
        let name = format!("{}{shown}", self.prefix);
        let Some(table) = value.get_ref().as_table() else {
            let message = format!("`{name}` is a table: write [{}{key}]", self.prefix);
            let place = Place::Line(self.lines.line(value.span()));
            mistakes.push(Mistake { place, message });
            return None;
        };
        Some(Section { prefix: format!("{name}."), table, lines: self.lines, known: Vec::new() })
    }

    /// Reports every key that nobody asked for. `later` are those of a later version.
    pub(crate) fn finish(self, later: &[&'static str], mistakes: &mut Vec<Mistake>) {
        let what = if self.prefix.is_empty() { "table" } else { "key" };
        for (key, _) in self.table {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            let place = Place::Line(self.lines.line(key.span()));
            let path = format!("{}{name}", self.prefix);
            let message = if later.contains(&name) {
                format!("`{path}` is not in this version")
            } else {
                let mut message = format!("unknown {what} `{path}`");
                match suggest::nearest(name, self.known.iter().copied()) {
                    Some(nearest) => message.push_str(&format!("; did you mean `{nearest}`?")),
                    None => message.push_str(&format!("; known are {}", self.known.join(", "))),
                }
                message
            };
            mistakes.push(Mistake { place, message });
        }
    }
}

/// Shows a value in a message, shortened.
pub(crate) fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => {
            let short: String = text.chars().take(60).collect();
            let rest = if short.len() < text.len() { "…" } else { "" };
            format!("\"{}{rest}\"", short.escape_debug())
        }
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
