//! What a bot shows to be served as one link: its name, and a secret that is in a file of this user.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest;

use super::files::{Directory, LocalError};
use crate::settings::Secret;

/// 256 random bits: nobody guesses them, so nobody who tries need be counted or held up.
const BYTES: usize = 32;

/// The secret of a link, made when there is none.
pub(super) fn of_link(directory: &Directory, link: &str) -> Result<Secret, LocalError> {
    if !is_name(link) {
        return Err(LocalError::new("keep a secret for a link", "its name is not one for a file"));
    }
    let file = format!("{link}.secret");
    if let Some(found) = directory.read(&file)?
        && is_secret(found.trim())
    {
        return Ok(Secret::new(found.trim()));
    }
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(|error| LocalError::new("get random bytes", error))?;
    let secret = URL_SAFE_NO_PAD.encode(bytes);
    directory.write(&file, &format!("{secret}\n"))?;
    Ok(Secret::new(secret))
}

/// Whether that is the secret of a link that may not be served yet. Reads a small file and makes none.
pub(super) fn is_in_file(directory: &Path, link: &str, shown: &str) -> bool {
    in_file(directory, link).is_some_and(|secret| is_shown(&secret, shown))
}

/// The secret of a link, if one was made. Reads a small file and makes none.
pub(super) fn in_file(directory: &Path, link: &str) -> Option<Secret> {
    if !is_name(link) {
        return None;
    }
    let found = fs::read_to_string(directory.join(format!("{link}.secret"))).ok()?;
    let found = found.trim();
    is_secret(found).then(|| Secret::new(found))
}

/// Whether somebody has shown the secret. How long it takes does not tell how much of it was right.
pub(super) fn is_shown(secret: &Secret, shown: &str) -> bool {
    let hash = |text: &str| digest::digest(&digest::SHA256, text.as_bytes());
    let (wanted, shown) = (hash(secret.expose()), hash(shown));
    wanted.as_ref().iter().zip(shown.as_ref()).fold(0, |seen, (a, b)| seen | (a ^ b)) == 0
}

/// Whether it can be a part of a file's name, of a URL and of a user's name in HTTP.
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=128).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(fits)
}

/// Whether it was made here, and whole.
fn is_secret(text: &str) -> bool {
    URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_again_when_it_was_cut() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::lock(temporary.path()).unwrap();
        let first = of_link(&directory, "a").unwrap();
        assert_eq!(of_link(&directory, "a").unwrap(), first);
        assert_ne!(of_link(&directory, "b").unwrap(), first);

        fs::write(directory.file("a.secret"), "short").unwrap();
        let second = of_link(&directory, "a").unwrap();
        assert_ne!(second, first);
        assert!(is_shown(&second, second.expose()));
        assert!(!is_shown(&second, first.expose()) && !is_shown(&second, ""));

        assert!(is_in_file(temporary.path(), "a", second.expose()));
        for (name, shown) in
            [("a", ""), ("a", "x"), ("c", second.expose()), ("../a", second.expose())]
        {
            assert!(!is_in_file(temporary.path(), name, shown), "{name}");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::lock(temporary.path()).unwrap();
        for name in ["", "../a", "a/b", ".hidden", "a b", "a:b", "ä"] {
            assert!(of_link(&directory, name).is_err(), "{name}");
        }
    }
}
