//! The commands `bowline config …`.

use std::io::{self, Read, Write as _};

use bowline_names::{ErrorCode, Exit};
use ring::digest;
use serde_json::{Value, json};

use super::{
    DEFAULT_FILE, Error, Overrides,
    ai::Digest,
    check::{self, Findings},
    explain, near, read, read_file, schema,
};
use crate::failure::Failure;

/// `config check`: says all that is wrong, or that nothing is.
///
/// # Errors
/// When there are mistakes, or the file cannot be read.
pub(crate) fn check(overrides: Overrides, services: bool, json: bool) -> Result<Exit, Failure> {
    let path = overrides.file.clone();
    let (set, warnings, proofs) = match checked(overrides, services) {
        Ok(checked) => checked,
        Err(error) if json => {
            print_json(&check::bad_json(&error));
            return Ok(Exit::Usage);
        }
        Err(error) => return Err(error.into()),
    };
    if json {
        let mut good = check::good_json(path.as_deref(), &warnings);
        if services {
            let of = |(name, interpreter): &(String, String)| json!({ "name": name, "interpreter": interpreter });
            good["services"] = proofs.iter().map(of).collect();
        }
        print_json(&good);
        return Ok(Exit::Ok);
    }
    for (name, interpreter) in &proofs {
        print(&format!("services.{name}: {interpreter}\n"));
    }
    for warning in &warnings {
        let _ = writeln!(io::stderr(), "warning: {warning}");
    }
    let name = path.as_deref().map_or_else(|| "no configuration file".to_owned(), near);
    let keys = if set == 1 { "1 key" } else { &format!("{set} keys") };
    print(&format!("{name}: OK, {keys} set\n"));
    Ok(Exit::Ok)
}

/// Services, and what would run each of them.
type Proofs = Vec<(String, String)>;

/// How many keys are set, and the warnings; with `services` also what would run them.
fn checked(overrides: Overrides, services: bool) -> Result<(usize, Vec<String>, Proofs), Error> {
    let file = overrides.file.as_ref().map(|path| read_file(path)).transpose()?;
    let examined = read::examine(file.clone(), overrides)?;
    let mut findings = check::look(&examined);
    let path = file.as_ref().map(|(path, _)| path.as_path());
    let proofs = if services { findings.prove(&examined, path) } else { Vec::new() };
    let Findings { mistakes, unreadable, warnings } = findings;
    if mistakes.is_empty() {
        let unreadable = unreadable.into_iter().map(|mistake| mistake.message);
        return Ok((examined.origins.len(), unreadable.chain(warnings).collect(), proofs));
    }
    Err(Error::Invalid { file, mistakes })
}

/// Looks at the files that a configuration names, for a server that this user is about to start.
///
/// # Errors
/// When it would not start: there are mistakes, or this user cannot read one of them.
pub(crate) fn startable(overrides: Overrides) -> Result<(), Error> {
    let file = overrides.file.as_ref().map(|path| read_file(path)).transpose()?;
    let examined = read::examine(file.clone(), overrides)?;
    let Findings { mut mistakes, unreadable, .. } = check::look(&examined);
    mistakes.extend(unreadable);
    if mistakes.is_empty() { Ok(()) } else { Err(Error::Invalid { file, mistakes }) }
}

/// `config show`: what will run, and where each value comes from.
///
/// # Errors
/// When there are mistakes, or the file cannot be read.
pub(crate) fn show(overrides: Overrides, json: bool) -> Result<Exit, Failure> {
    let file = overrides.file.clone();
    let read = overrides.file.as_ref().map(|path| read_file(path)).transpose()?;
    let examined = read::examine(read, overrides)?;
    if json {
        print_json(&explain::show_json(&examined, file.as_deref()));
    } else {
        print(&explain::show(&examined, file.as_deref()));
    }
    Ok(Exit::Ok)
}

/// `config show --defaults`: the commented file.
pub(crate) fn show_defaults() -> Exit {
    print(DEFAULT_FILE);
    Exit::Ok
}

/// `config explain`: all about a key.
///
/// # Errors
/// When there is no such key, or the file cannot be read. A mistake elsewhere is no reason not to
/// explain.
pub(crate) fn explain(asked: &str, overrides: Overrides) -> Result<Exit, Failure> {
    let file = overrides.file.clone();
    let read = overrides.file.as_ref().map(|path| read_file(path)).transpose()?;
    let (examined, _) = read::look(read.as_ref(), overrides);
    let text = explain::explain(asked, &examined, file.as_deref())
        .map_err(|message| Failure::new(ErrorCode::ConfigKeyUnknown, message))?;
    print(&text);
    Ok(Exit::Ok)
}

/// `config schema`: the file as JSON Schema.
pub(crate) fn schema() -> Exit {
    print_json(&schema::schema());
    Exit::Ok
}

/// Characters that a key of a client must have: it is hashed without salt, so that it can be found
/// among many, and a short one could be found by trying.
const KEY_LENGTH_MIN: usize = 20;

/// The longest key.
const KEY_LENGTH_MAX: usize = 1_024;

/// `config hash-key`: what `[ai.keys]` has of a key.
///
/// # Errors
/// When nothing comes, or something that could not be shown in a header or could be guessed.
pub(crate) fn hash_key(input: impl Read) -> Result<Exit, Failure> {
    let wrong = |why: String| Failure::new(ErrorCode::KeyUnusable, why);
    let mut text = String::new();
    let limit = KEY_LENGTH_MAX as u64 + 2;
    (input.take(limit).read_to_string(&mut text))
        .map_err(|error| wrong(format!("cannot read a key on stdin: {error}")))?;
    let key = text.trim_end_matches(['\r', '\n']);
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong("a key is one line of letters, digits and signs of ASCII".to_owned()));
    }
    if !(KEY_LENGTH_MIN..=KEY_LENGTH_MAX).contains(&key.len()) {
        let length = key.len();
        return Err(wrong(format!(
            "the key has {length} characters; it takes {KEY_LENGTH_MIN} to {KEY_LENGTH_MAX}"
        )));
    }
    print(&format!("sha256 = \"{}\"\n", digest_of(key.as_bytes())));
    Ok(Exit::Ok)
}

/// The SHA-256 of a key.
fn digest_of(key: &[u8]) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, key).as_ref());
    Digest(bytes)
}

fn print_json(value: &Value) {
    print(&format!("{value:#}\n"));
}

fn print(text: &str) {
    // A reader that has read enough, such as `head`, is no failure.
    let _ = io::stdout().write_all(text.as_bytes());
}
