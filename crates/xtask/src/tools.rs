//! What must be on the machine before anything can be tested.

use std::{
    path::Path,
    process::{Command, Stdio},
};

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
        at_least: Some((3, 11)),
        remedy: "install Python 3.11 or newer",
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

/// Programs that stand around a server in the tests, a browser among them, and the packages of Debian that have them.
const DEBIAN: &[(&str, &str)] = &[
    ("/usr/sbin/nginx", "nginx-light"),
    ("/usr/sbin/haproxy", "haproxy"),
    ("/usr/bin/caddy", "caddy"),
    ("/usr/bin/prometheus", "prometheus"),
    ("/usr/bin/prometheus-alertmanager", "prometheus-alertmanager"),
    ("/usr/bin/chromium", "chromium"),
    ("/usr/bin/systemd-analyze", "systemd"),
    ("/usr/bin/redis-server", "redis-server"),
];

/// Installs what is missing of [`DEBIAN`], as root or by `sudo`.
pub(crate) fn install_debian() -> Result<String, String> {
    let missing: Vec<&str> = (DEBIAN.iter())
        .filter(|(path, _)| !Path::new(path).exists())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok("everything is installed".to_owned());
    }
    let install = ["apt-get", "install", "--yes", "--no-install-recommends"];
    let root = version(&["id", "-u"]).as_deref() == Some("0");
    let prefix: &[&str] = if root { &[] } else { &["sudo", "--non-interactive"] };
    let call = |words: &[&str]| {
        let words: Vec<&str> = prefix.iter().chain(words).copied().collect();
        let output = Command::new(words[0])
            .args(&words[1..])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{}: {error}", words.join(" ")))?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        if output.status.success() { Ok(said) } else { Err(said) }
    };
    let packages = [&install[..], &missing].concat();
    // The lists may be there and fresh enough; if not, they are fetched.
    let done =
        call(&packages).or_else(|_| call(&["apt-get", "update"]).and_then(|_| call(&packages)));
    done.map_err(|said| format!("{said}\nplease run as root: {}", packages.join(" ")))
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
