//! `cargo xtask tidy`: the rules that no compiler checks.
//!
//! It fails on facts and only mentions sizes: where a long piece reads better whole, it stays.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{names, root};

/// A file of Rust, and what is said about it.
struct Source {
    path: PathBuf,
    /// The path from the root, for messages.
    name: String,
    text: String,
}

/// Exactly what the sans-IO core may depend on: nothing that knows a clock, a socket or chance.
const PROTO_DEPENDENCIES: &[&str] = &[
    "base64",
    "bowline-names",
    "bytes",
    "bytestring",
    "flate2",
    "memchr",
    "serde",
    "serde_json",
    "sha1_smol",
    "simdutf8",
    "siphasher",
    "slotmap",
];

/// Lines without tests from which a file is mentioned.
const FILE_LINES: usize = 800;

/// Lines from which a function is mentioned.
const FUNCTION_LINES: usize = 70;

pub(crate) fn run() -> ExitCode {
    match check() {
        Ok(mentions) => {
            println!("{mentions}tidy");
            ExitCode::SUCCESS
        }
        Err(problems) => {
            println!("{problems}");
            ExitCode::FAILURE
        }
    }
}

/// Returns what is only mentioned, or all that is wrong.
pub(crate) fn check() -> Result<String, String> {
    let sources = sources();
    let mut problems = Vec::new();
    problems.extend(sources.iter().filter_map(without_front_page));
    problems.extend(sources.iter().flat_map(clock_reads));
    problems.extend(dependencies("bowline-proto", PROTO_DEPENDENCIES));
    problems.extend(dependencies("bowline-names", &[]));
    problems.extend(unused_rows(&sources));
    problems.extend(dead_files(&sources));
    problems.extend(names::stale());
    problems.sort();

    let mut mentions: String = (sources.iter().filter_map(long_file))
        .chain(sources.iter().flat_map(long_functions))
        .map(|mention| mention + "\n")
        .collect();
    let counted = format!("{} files read\n", sources.len());
    mentions.insert_str(0, &counted);
    if problems.is_empty() { Ok(mentions) } else { Err(mentions + &problems.join("\n")) }
}

/// Every file begins by saying what it is.
fn without_front_page(source: &Source) -> Option<String> {
    let first = source.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    (!first.starts_with("//!")).then(|| format!("{}: does not begin with //!", source.name))
}

/// Time is an argument everywhere but in `clock.rs` and in tests.
fn clock_reads(source: &Source) -> Vec<String> {
    if source.path.ends_with("clock.rs") || source.is_test() {
        return Vec::new();
    }
    // Written apart, so that this file does not find itself.
    let reads = ["Instant", "SystemTime", "Utc", "Local"].map(|name| format!("{name}::{}(", "now"));
    (source.production().lines().enumerate())
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .filter(|(_, line)| reads.iter().any(|read| line.contains(read)))
        .map(|(number, _)| format!("{}:{}: reads the clock", source.name, number + 1))
        .collect()
}

/// The list of dependencies of a crate is exactly this one.
fn dependencies(package: &str, expected: &[&str]) -> Vec<String> {
    let path = root().join("crates").join(package).join("Cargo.toml");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let found: BTreeSet<&str> = (text.lines())
        .skip_while(|line| line.trim() != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .collect();
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    let tell = |names: Vec<&&str>, what: &str| -> Vec<String> {
        names.iter().map(|name| format!("{package} {what} {name}")).collect()
    };
    let mut problems = tell(found.difference(&expected).collect(), "must not depend on");
    problems.extend(tell(expected.difference(&found).collect(), "no longer depends on"));
    problems
}

/// Every row of the tables of names is used outside them.
fn unused_rows(sources: &[Source]) -> Vec<String> {
    let (tables, others): (Vec<&Source>, Vec<&Source>) =
        sources.iter().partition(|source| source.name.contains("bowline-names/"));
    let mut problems = Vec::new();
    for table in tables {
        let Some(at) = table.text.find("table! {") else { continue };
        let body = &table.text[at..];
        let Some((_, rest)) = body.split_once("pub enum ") else { continue };
        let Some((name, _)) = rest.split_once(';') else { continue };
        for row in rows(body) {
            let row_name = format!("{name}::{row}");
            if !others.iter().any(|source| mentions_word(&source.text, &row_name)) {
                problems.push(format!("{name}::{row} of {} is not used", table.name));
            }
        }
    }
    problems
}

/// The names of the rows of a table.
fn rows(body: &str) -> impl Iterator<Item = &str> {
    (body.lines())
        .filter_map(|line| line.strip_prefix("    ")?.strip_suffix(" {"))
        .filter(|name| name.starts_with(|c: char| c.is_ascii_uppercase()))
        .filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric()))
}

fn mentions_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        !text[at + word.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
    })
}

/// The files beside a source that it has as modules under another name.
fn named_files(text: &str) -> impl Iterator<Item = &str> {
    (text.lines())
        .filter_map(|line| line.trim().strip_prefix("#[path = \"")?.strip_suffix("\"]"))
        .filter(|name| !name.contains('/'))
}

/// Every file is reached by a `mod` from a root that cargo knows.
fn dead_files(sources: &[Source]) -> Vec<String> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&Source> = sources.iter().filter(|source| source.is_root()).collect();
    while let Some(source) = open.pop() {
        if !reached.insert(&source.path) {
            continue;
        }
        for name in modules(&source.text) {
            let folder = source.module_folder();
            let beside = [folder.join(format!("{name}.rs")), folder.join(&name).join("mod.rs")];
            open.extend(sources.iter().filter(|other| beside.contains(&other.path)));
        }
        let folder = source.path.parent().unwrap_or(Path::new(""));
        for name in named_files(&source.text) {
            let file = folder.join(name);
            open.extend(sources.iter().filter(|other| other.path == file));
        }
    }
    (sources.iter())
        .filter(|source| !reached.contains(&source.path))
        .map(|source| format!("{}: no `mod` leads here", source.name))
        .collect()
}

/// The names in `mod name;`.
fn modules(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter_map(|line| {
        let line = line.trim().strip_suffix(';')?;
        let (before, name) = line.rsplit_once("mod ")?;
        let visible = before.is_empty() || before.trim_start().starts_with("pub");
        visible.then(|| name.trim().to_owned())
    })
}

fn long_file(source: &Source) -> Option<String> {
    let lines = source.production().lines().count();
    (lines > FILE_LINES && !source.is_test())
        .then(|| format!("mention: {} has {lines} lines without tests", source.name))
}

fn long_functions(source: &Source) -> Vec<String> {
    let mut mentions = Vec::new();
    let lines: Vec<&str> = source.production().lines().collect();
    for (start, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let Some(name) = function_name(line) else { continue };
        let closing = format!("{}}}", &line[..indent]);
        let Some(length) = lines[start..].iter().position(|line| *line == closing) else {
            continue;
        };
        if length + 1 > FUNCTION_LINES {
            let number = start + 1;
            mentions.push(format!(
                "mention: {}:{number}: {name} has {} lines",
                source.name,
                length + 1
            ));
        }
    }
    mentions
}

fn function_name(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let (before, after) = line.split_once("fn ")?;
    let words = ["pub", "const", "async", "unsafe"];
    let plain = (before.split_whitespace())
        .all(|word| words.contains(&word.split('(').next().unwrap_or_default()));
    plain.then(|| after.split(['(', '<']).next().unwrap_or_default())
}

impl Source {
    /// Everything above the tests.
    fn production(&self) -> &str {
        self.text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default()
    }

    fn is_test(&self) -> bool {
        let name = &self.name;
        name.contains("/tests/") || name.ends_with("/tests.rs") || name.ends_with("/test_util.rs")
    }

    /// Whether cargo finds the file by itself.
    fn is_root(&self) -> bool {
        let Some((_, inside)) =
            self.name.split_once("crates/").and_then(|(_, rest)| rest.split_once('/'))
        else {
            return false;
        };
        let parts: Vec<&str> = inside.split('/').collect();
        matches!(
            parts.as_slice(),
            ["src", "lib.rs" | "main.rs"]
                | ["build.rs"]
                | ["src", "bin", _]
                | ["src", "bin", _, "main.rs"]
                | ["examples" | "tests" | "benches", _]
                | ["examples" | "tests" | "benches", _, "main.rs"]
        )
    }

    /// Where the modules that the file names are.
    fn module_folder(&self) -> PathBuf {
        let folder = self.path.parent().unwrap_or(Path::new("")).to_path_buf();
        let stem = self.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if stem == "mod" || self.is_root() { folder } else { folder.join(stem) }
    }
}

/// Every file of Rust under `crates/`.
fn sources() -> Vec<Source> {
    let root = root();
    let mut sources = Vec::new();
    let mut folders = vec![root.join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() {
                if name != "target" && name != "node_modules" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap_or_default();
                let name = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
                sources.push(Source { path, name, text });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, text: &str) -> Source {
        Source { path: PathBuf::from(name), name: name.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_file_without_a_front_page_is_found() {
        assert!(without_front_page(&source("crates/a/src/b.rs", "use x;\n")).is_some());
        assert!(without_front_page(&source("crates/a/src/b.rs", "//! B.\nuse x;\n")).is_none());
    }

    #[test]
    fn a_clock_is_read_in_its_file_and_in_tests_only() {
        let read = format!("fn f() {{ Instant::{}() }}\n", "now");
        let tested = format!("fn g() {{}}\n\n#[cfg(test)]\nmod tests {{ {read} }}\n");
        assert_eq!(clock_reads(&source("crates/a/src/b.rs", &read)).len(), 1);
        assert!(clock_reads(&source("crates/a/src/clock.rs", &read)).is_empty());
        assert!(clock_reads(&source("crates/a/src/b.rs", &tested)).is_empty());
    }

    #[test]
    fn a_file_that_no_mod_names_is_dead() {
        let sources = [
            source(
                "crates/a/src/lib.rs",
                "//! A.\npub mod b;\nmod c;\n#[path = \"g.rs\"]\nmod f;\n",
            ),
            source("crates/a/src/b.rs", "mod d;\n"),
            source("crates/a/src/b/d.rs", ""),
            source("crates/a/src/c/mod.rs", "pub(crate) mod e;\n"),
            source("crates/a/src/c/e.rs", ""),
            source("crates/a/src/g.rs", ""),
            source("crates/a/src/lost.rs", ""),
            source("crates/a/examples/x.rs", ""),
        ];
        assert_eq!(dead_files(&sources), ["crates/a/src/lost.rs: no `mod` leads here"]);
    }

    #[test]
    fn a_row_that_nobody_uses_is_found() {
        let table = "crate::table! {\n    pub enum Word;\n\n    columns {\n    }\n\n    One {\n    }\n    Two {\n    }\n}\n";
        let sources = [
            source("crates/bowline-names/src/word.rs", table),
            source("crates/a/src/lib.rs", "use Word; Word::One; Word::Twofold;"),
        ];
        assert_eq!(
            unused_rows(&sources),
            ["Word::Two of crates/bowline-names/src/word.rs is not used"]
        );
    }

    #[test]
    fn functions_are_measured_to_their_own_brace() {
        let body = "    x();\n".repeat(FUNCTION_LINES);
        let text = format!("pub(crate) async fn long() {{\n{body}}}\n\nfn short() {{\n}}\n");
        let mentions = long_functions(&source("crates/a/src/lib.rs", &text));
        assert_eq!(mentions.len(), 1);
        assert!(mentions[0].contains("long has 72 lines"), "{mentions:?}");
    }
}
