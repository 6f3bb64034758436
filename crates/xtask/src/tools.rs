//! What must be on the machine before anything can be tested.

use std::process::Command;

/// A program that the tests need.
struct Tool {
    command: &'static [&'static str],
    /// The smallest version, if it matters.
    at_least: Option<(u32, u32)>,
    remedy: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool {
        command: &["cargo", "fmt", "--version"],
        at_least: None,
        remedy: "rustup component add rustfmt",
    },
    Tool {
        command: &["cargo", "clippy", "--version"],
        at_least: None,
        remedy: "rustup component add clippy",
    },
    Tool {
        command: &["node", "--version"],
        at_least: Some((20, 0)),
        remedy: "install Node.js 20 or newer",
    },
    Tool { command: &["npm", "--version"], at_least: None, remedy: "install npm" },
    Tool {
        command: &["python3", "--version"],
        at_least: Some((3, 9)),
        remedy: "install Python 3.9 or newer",
    },
    Tool {
        command: &["python3", "-c", "import ensurepip, venv"],
        at_least: None,
        remedy: "install the venv module of Python (Debian: python3-venv)",
    },
];

/// Looks for every tool and says all that is missing.
pub(crate) fn check() -> Result<String, String> {
    let mut found = String::new();
    let mut missing = String::new();
    for tool in TOOLS {
        let name = tool.command.join(" ");
        match version(tool.command) {
            Some(version) if !tool.at_least.is_some_and(|least| older(&version, least)) => {
                found.push_str(&format!("{name}: {version}\n"));
            }
            Some(version) => {
                missing.push_str(&format!("`{name}` says {version}: {}\n", tool.remedy));
            }
            None => missing.push_str(&format!("`{name}` does not work: {}\n", tool.remedy)),
        }
    }
    if missing.is_empty() { Ok(found) } else { Err(missing) }
}

/// Whether cargo-nextest is there.
pub(crate) fn has_nextest() -> bool {
    version(&["cargo", "nextest", "--version"]).is_some()
}

fn version(command: &[&str]) -> Option<String> {
    let (program, args) = command.split_first()?;
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| text.lines().next().unwrap_or_default().trim().to_owned())
}

/// Whether the first two numbers in a text are below `least`.
fn older(version: &str, least: (u32, u32)) -> bool {
    let mut numbers = (version.split(|c: char| !c.is_ascii_digit()))
        .filter(|part| !part.is_empty())
        .filter_map(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(older("v18.9.0", (20, 0)));
        assert!(!older("v20.1.0", (20, 0)));
        assert!(!older("Python 3.11.7", (3, 9)));
        assert!(older("Python 3.8.10", (3, 9)));
    }
}
