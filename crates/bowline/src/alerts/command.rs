//! `bowline alerts print` and `bowline alerts check`.

use std::{
    io::{self, Write as _},
    path::Path,
};

use bowline_names::Exit;

use super::{load_file, prometheus, read, rule::Rules};
use crate::failure::Failure;

/// Prints the rules that are built in, as a rules file; or those of Prometheus, with what a file
/// changes.
///
/// # Errors
/// When the file cannot be read or has mistakes.
pub(crate) fn print(for_prometheus: bool, file: Option<&Path>) -> Result<Exit, Failure> {
    let rules = file.map_or_else(|| Ok(read::built_in()), load_file)?;
    let text =
        if for_prometheus { prometheus::rules_file(&rules) } else { read::BUILT_IN.to_owned() };
    say(&text);
    Ok(Exit::Ok)
}

/// Says whether a rules file is right, and what it comes to.
///
/// # Errors
/// When it cannot be read or has mistakes.
pub(crate) fn check(file: &Path) -> Result<Exit, Failure> {
    let (before, after) = (read::built_in(), load_file(file)?);
    say(&format!("{}: {}\n", file.display(), verdict(&before, &after)));
    Ok(Exit::Ok)
}

fn verdict(before: &Rules, after: &Rules) -> String {
    let known = |name: &str| before.rules.iter().find(|rule| rule.name == name);
    let added = after.rules.iter().filter(|rule| known(&rule.name).is_none()).count();
    let changed = (after.rules.iter())
        .filter(|rule| known(&rule.name).is_some_and(|known| known != *rule))
        .count();
    let off = before.rules.len() + added - after.rules.len();
    format!(
        "ok, {} rules in force: {added} added, {changed} changed, {off} switched off",
        after.rules.len()
    )
}

fn say(text: &str) {
    // A reader that has read enough, such as `head`, is no failure.
    let _ = io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_counts_what_a_file_does() {
        let before = read::built_in();
        let count = before.rules.len();
        let text = "[rules.BowlineAcceptErrors]\nenabled = false\n\
                    [rules.BowlineComponentFailed]\nseverity = \"info\"\n\
                    [rules.Many]\nkind = \"value\"\nof = \"bowline_sessions\"\nabove = 5\n\
                    summary = \"many\"\nremedy = \"none\"\n";
        let (after, mistakes) = read::read(text, &before);
        assert_eq!(mistakes, []);
        assert_eq!(
            verdict(&before, &after),
            format!("ok, {count} rules in force: 1 added, 1 changed, 1 switched off")
        );
    }
}
