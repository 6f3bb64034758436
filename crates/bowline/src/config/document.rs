//! A TOML document that is read by asking for keys, and then says which ones nobody asked for.

use std::{borrow::Cow, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Mistake, Place, suggest};

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
    /// Where it begins.
    line: usize,
    lines: &'a Lines,
    known: Vec<&'static str>,
    /// Whether its tables have names of their own.
    named: bool,
    /// Says where a key belongs that is none of this table.
    elsewhere: fn(&str) -> Option<&'static str>,
}

impl<'a> Section<'a> {
    pub(crate) fn root(table: &'a DeTable<'a>, lines: &'a Lines) -> Self {
        let elsewhere = |_: &str| None;
        let (prefix, known) = (String::new(), Vec::new());
        Self { prefix, table, line: 1, lines, known, named: false, elsewhere }
    }

    /// Lets it and its tables ask where a key belongs.
    pub(crate) fn knowing(mut self, elsewhere: fn(&str) -> Option<&'static str>) -> Self {
        self.elsewhere = elsewhere;
        self
    }

    /// Takes the value of a key, and returns its line. `read` says in half a sentence what it
    /// wants when it cannot read one.
    pub(crate) fn value(
        &mut self,
        key: &'static str,
        mistakes: &mut Vec<Mistake>,
        read: impl FnOnce(&DeValue<'a>) -> Result<(), String>,
    ) -> Option<usize> {
        self.known.push(key);
        let value = self.table.get(key)?;
        let line = self.lines.line(value.span());
        let problem = read(value.get_ref()).err();
        if let Some(problem) = &problem {
            let message = format!("`{}` {problem}", self.path(key));
            mistakes.push(Mistake { place: Place::Line(line), message });
        }
        problem.is_none().then_some(line)
    }

    /// Complains if the table does not have the key. `words` says what to write.
    pub(crate) fn require(&self, key: &str, words: &str, mistakes: &mut Vec<Mistake>) {
        if !self.table.contains_key(key) {
            let message = format!("`{}` is missing; write {words}", self.path(key));
            mistakes.push(Mistake { place: Place::Line(self.line), message });
        }
    }

    /// Returns whether the table has the key.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Returns the whole path of a key of this table.
    pub(crate) fn path(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Returns the line it begins on.
    pub(crate) fn line(&self) -> usize {
        self.line
    }

    /// Takes a table.
    pub(crate) fn section(
        &mut self,
        key: &'static str,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Section<'a>> {
        self.known.push(key);
        let (name, value) = self.table.get_key_value(key)?;
        self.open(key, name, value, mistakes)
    }

    /// Takes every table of this table, with its key.
    pub(crate) fn sections(&self, mistakes: &mut Vec<Mistake>) -> Vec<(String, Section<'a>)> {
        let mut sections: Vec<_> = (self.table.iter())
            .filter_map(|(key, value)| {
                let name = key.get_ref().to_string();
                let section = self.open(&format!("{name:?}"), key, value, mistakes)?;
                Some((name, section))
            })
            .collect();
        sections.sort_by_key(|(_, section)| section.line);
        sections
    }

    /// The same of a table that has keys of its own as well: what nobody asked for and is a table has a name.
    pub(crate) fn named_sections(
        &mut self,
        mistakes: &mut Vec<Mistake>,
    ) -> Vec<(String, Section<'a>)> {
        self.named = true;
        let mut sections: Vec<_> = (self.table.iter())
            .filter(|(key, value)| {
                value.get_ref().is_table() && !self.known.contains(&&**key.get_ref())
            })
            .filter_map(|(key, value)| {
                let name = key.get_ref().to_string();
                Some((name.clone(), self.open(&format!("{name:?}"), key, value, mistakes)?))
            })
            .collect();
        sections.sort_by_key(|(_, section)| section.line);
        sections
    }

    fn open(
        &self,
        shown: &str,
        key: &Spanned<Cow<'a, str>>,
        value: &'a Spanned<DeValue<'a>>,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Section<'a>> {
        let name = format!("{}{shown}", self.prefix);
        let Some(table) = value.get_ref().as_table() else {
            let message = format!("`{name}` is a table: write [{name}]");
            let place = Place::Line(self.lines.line(value.span()));
            mistakes.push(Mistake { place, message });
            return None;
        };
        let line = self.lines.line(key.span());
        Some(Section {
            prefix: format!("{name}."),
            table,
            line,
            lines: self.lines,
            known: Vec::new(),
            named: false,
            elsewhere: self.elsewhere,
        })
    }

    /// Reports every key that nobody asked for. `later` are those of a later version.
    pub(crate) fn finish(self, later: &[&'static str], mistakes: &mut Vec<Mistake>) {
        for (key, value) in self.table {
            let name: &str = key.get_ref();
            if self.known.contains(&name) || self.named && value.get_ref().is_table() {
                continue;
            }
            let place = Place::Line(self.lines.line(key.span()));
            let path = self.path(name);
            let what = if value.get_ref().is_table() { "table" } else { "key" };
            let message = if later.contains(&name) {
                format!("`{path}` is not in this version")
            } else if let Some(elsewhere) = (self.elsewhere)(name) {
                format!("unknown {what} `{path}`; did you mean `{elsewhere}`?")
            } else if let Some(nearest) = suggest::nearest(name, self.known.iter().copied()) {
                format!("unknown {what} `{path}`; did you mean `{nearest}`?")
            } else {
                format!("unknown {what} `{path}`; known are {}", self.known.join(", "))
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
