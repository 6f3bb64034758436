//! Versions of libraries that are known to fail together.

/// Two libraries that fail together.
#[derive(Debug)]
struct Pair {
    one: &'static str,
    /// Of `one`, the versions from here (none: all) to below there.
    one_from: Option<&'static str>,
    one_below: Option<&'static str>,
    other: &'static str,
    other_from: Option<&'static str>,
    other_below: Option<&'static str>,
    /// What happens, and what to do.
    words: &'static str,
}

/// Only what was run and seen, or what the library itself says.
const PAIRS: &[Pair] = &[
    // Run: every connect fails, and a new device is registered every 5 s.
    Pair {
        one: "webex_bot",
        one_from: None,
        one_below: Some("1.0.9"),
        other: "websockets",
        other_from: Some("14"),
        other_below: None,
        words: "webex_bot before 1.0.9 cannot connect with websockets 14 or newer, and registers a new device every 5 s: install websockets==11.0.3, or a newer webex_bot",
    },
    // Run: Flask-SocketIO chooses eventlet inside a gevent worker, and websocket upgrades fail.
    Pair {
        one: "eventlet",
        one_from: None,
        one_below: None,
        other: "gevent",
        other_from: None,
        other_below: None,
        words: "eventlet and gevent are both installed, and python-socketio takes eventlet if async_mode is not set, in a gevent worker too: uninstall one of them",
    },
    // Run: `Bad file descriptor` for every websocket that ends.
    Pair {
        one: "python-engineio",
        one_from: Some("4.3"),
        one_below: Some("4.6"),
        other: "gunicorn",
        other_from: None,
        other_below: None,
        words: "python-engineio from 4.3 to 4.5 logs `Bad file descriptor` for every websocket that ends under gunicorn: install python-engineio>=4.6",
    },
    // openai 1.55.3 says so in its changes: httpx 0.28 has no `proxies` any more.
    Pair {
        one: "openai",
        one_from: Some("1"),
        one_below: Some("1.55.3"),
        other: "httpx",
        other_from: Some("0.28"),
        other_below: None,
        words: "openai before 1.55.3 fails with httpx 0.28 or newer (unexpected keyword argument 'proxies'): install openai>=1.55.3 or httpx<0.28",
    },
    // Werkzeug 3.0 removed `url_quote`, which Flask imports up to 2.2.
    Pair {
        one: "flask",
        one_from: None,
        one_below: Some("2.2.3"),
        other: "werkzeug",
        other_from: Some("3"),
        other_below: None,
        words: "Flask before 2.2.3 cannot be imported with Werkzeug 3 or newer (url_quote): install Werkzeug<3 or a newer Flask",
    },
];

/// The names whose versions are asked for.
pub(super) fn names() -> Vec<&'static str> {
    let mut names: Vec<_> = PAIRS.iter().flat_map(|pair| [pair.one, pair.other]).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What is known to fail together, of the versions that `version` tells.
pub(super) fn warnings<'v>(version: impl Fn(&str) -> Option<&'v str>) -> Vec<String> {
    let fits = |name: &str, from: Option<&str>, below: Option<&str>| {
        version(name).is_some_and(|version| {
            let version = numbers(version);
            from.is_none_or(|from| version >= numbers(from))
                && below.is_none_or(|below| version < numbers(below))
        })
    };
    PAIRS
        .iter()
        .filter(|pair| {
            fits(pair.one, pair.one_from, pair.one_below)
                && fits(pair.other, pair.other_from, pair.other_below)
        })
        .map(|pair| pair.words.to_owned())
        .collect()
}

/// The release numbers of a version (PEP 440), as far as they matter to the table: what is before a release
/// counts as it, zeros at the end do not count.
fn numbers(version: &str) -> Vec<u64> {
    let mut numbers: Vec<u64> = version
        .split('.')
        .map_while(|part| {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            part[..digits].parse().ok()
        })
        .collect();
    while numbers.last() == Some(&0) {
        numbers.pop();
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(versions: &[(&str, &str)]) -> usize {
        let find = |name: &str| versions.iter().find(|(it, _)| *it == name).map(|(_, it)| *it);
        warnings(find).len()
    }

    #[test]
    fn only_versions_that_fail_together_are_warned_about() {
        assert_eq!(of(&[("webex_bot", "1.0.8"), ("websockets", "14.2")]), 1);
        assert_eq!(of(&[("webex_bot", "1.0.8"), ("websockets", "11.0.3")]), 0);
        assert_eq!(of(&[("webex_bot", "1.3.1"), ("websockets", "16.1")]), 0);
        assert_eq!(of(&[("webex_bot", "1.0.8")]), 0);
        assert_eq!(of(&[("python-engineio", "4.5.1"), ("gunicorn", "21.2.0")]), 1);
        assert_eq!(of(&[("python-engineio", "4.6.0"), ("gunicorn", "21.2.0")]), 0);
        assert_eq!(of(&[("openai", "1.55.3"), ("httpx", "0.28.1")]), 0);
        assert_eq!(of(&[("openai", "1.9.0rc1"), ("httpx", "0.28.0")]), 1);
    }

    #[test]
    fn zeros_at_the_end_of_a_version_do_not_count() {
        assert_eq!(numbers("14.0.0"), numbers("14"));
        assert!(numbers("1.10") > numbers("1.9.9"));
        assert!(numbers("") < numbers("0.1"));
    }
}
