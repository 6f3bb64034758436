//! Leases: two processes of one machine never keep a link with one token at the same time.
//!
//! A lease is a file that is locked with `flock(2)`: the kernel lets go of it when its process ends, however that
//! ends, so no lease is ever left over. Who has it stands in the file. Its owner removes it, and whoever has locked a
//! file looks whether it is still the one of that name: else two could hold the same lease.

use std::{
    fmt::{self, Write as _},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use ring::digest::{Context, SHA256};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::settings::{Link, Profile, Secret};

/// The bytes of an owner's file that are read.
const OWNER_BYTES_MAX: u64 = 4096;

/// How often a file is opened again that somebody removes at the same time.
const TRIES_MAX: u32 = 10;

/// What a lease is of: one identity at one service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey(String);

impl LeaseKey {
    /// The key of a link: a hash of what it speaks, where, and of the secrets it authorises itself with. `None` for a
    /// link without any: it is nobody in particular, and nothing is to be fought over.
    pub fn of(link: &Link) -> Option<Self> {
        let (profile, address, more): (_, _, Vec<&Secret>) = match &link.profile {
            Profile::WebSocket { url, headers, hello, .. } => {
                ("websocket", url, headers.values().chain(hello).collect())
            }
            Profile::SocketIo { url, auth, .. } => ("socketio", url, auth.iter().collect()),
            Profile::Webex { api_url, .. } => ("webex", api_url, Vec::new()),
        };
        let secrets: Vec<&str> = link.token.iter().chain(more).map(Secret::expose).collect();
        if secrets.is_empty() {
            return None;
        }
        let mut hash = Context::new(&SHA256);
        for part in [profile, address].into_iter().chain(secrets) {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        // Half of it: enough that no two collide, and too little to look a token up by.
        let mut name = String::new();
        for byte in &hash.finish().as_ref()[..16] {
            // Writing into a string does not fail.
            let _ = write!(name, "{byte:02x}");
        }
        Some(Self(name))
    }
}

/// Who has a lease. Nothing in here is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// The link's name there.
    pub name: String,
    /// Where its configuration is, so that a person finds it.
    pub directory: String,
    /// Since when, in milliseconds since 1970.
    pub since_unix_ms: u64,
}

impl Holder {
    /// This process.
    pub fn here(name: &str, directory: &Path, since_unix_ms: u64) -> Self {
        Self {
            pid: std::process::id(),
            name: name.to_owned(),
            directory: directory.display().to_string(),
            since_unix_ms,
        }
    }
}

/// For people: `pid 4711 (link barnacles of /srv/a)`.
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, name, directory, since_unix_ms: _ } = self;
        write!(f, "pid {pid} (link {name} of {directory})")
    }
}

/// Why a lease was not taken.
#[derive(Debug)]
pub enum NotTaken {
    /// Another process has it, or another link of this one. `None` while it has not said who it is.
    Held(Option<Holder>),
    /// Leases cannot be had here: the directory cannot be written, say.
    Failed(io::Error),
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(Some(holder)) => write!(f, "held by {holder}"),
            Self::Held(None) => f.write_str("held by another process"),
            Self::Failed(error) => write!(f, "no lease can be taken: {error}"),
        }
    }
}

impl From<io::Error> for NotTaken {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// A lease that is held; dropped, it is given up.
#[derive(Debug)]
pub struct Lease {
    // The lock is the file's: nobody reads it through this.
    _file: File,
    path: PathBuf,
}

impl Lease {
    /// Takes the lease of `key` in `directory`, which is made if it is not there, or tells who has it. Does not wait
    /// for anybody; touches the disk, though.
    ///
    /// # Errors
    ///
    /// [`NotTaken`].
    pub fn take(directory: &Path, key: &LeaseKey, owner: &Holder) -> Result<Self, NotTaken> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let path = directory.join(format!("{}.lease", key.0));
        for _ in 0..TRIES_MAX {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .mode(0o600)
                .open(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(NotTaken::Held(holder(&file))),
                Err(error) => return Err(NotTaken::Failed(error.into())),
            }
            if !is_at(&file, &path)? {
                continue;
            }
            // A full disk is no reason to go without the lease: it is held, and only its owner is not named.
            let _ = name_owner(&mut file, owner);
            return Ok(Self { _file: file, path });
        }
        Err(NotTaken::Held(None))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // One that stays is empty of meaning: nobody has it locked.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the file is still the one of this name: its last owner may have removed it between the open and the lock.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (own, there) = (file.metadata()?, fs::metadata(path));
    Ok(there.is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino())))
}

fn name_owner(file: &mut File, owner: &Holder) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(serde_json::to_string(owner)?.as_bytes())
}

fn holder(file: &File) -> Option<Holder> {
    let mut text = String::new();
    file.take(OWNER_BYTES_MAX).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        io::{BufRead as _, BufReader},
        process::{Child, Command, Stdio},
    };

    use super::*;

    const CHILD: &str = "BOWLINE_LEASE_TEST";

    #[test]
    fn a_lease_has_one_owner_who_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let (key, owner) =
            (LeaseKey("a".to_owned()), Holder::here("barnacles", Path::new("/srv/a"), 5));
        let lease = Lease::take(directory.path(), &key, &owner).unwrap();

        let refused = Lease::take(directory.path(), &key, &owner).unwrap_err();
        assert!(
            matches!(&refused, NotTaken::Held(Some(holder)) if *holder == owner),
            "{refused:?}"
        );
        let words = format!("held by pid {} (link barnacles of /srv/a)", std::process::id());
        assert_eq!(refused.to_string(), words);
        Lease::take(directory.path(), &LeaseKey("b".to_owned()), &owner).unwrap();

        drop(lease);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left over");
        let other = Holder::here("b", Path::new("/x"), 6);
        let _lease = Lease::take(directory.path(), &key, &other).unwrap();
        let refused = Lease::take(directory.path(), &key, &owner).unwrap_err();
        assert!(
            matches!(&refused, NotTaken::Held(Some(holder)) if *holder == other),
            "{refused:?}"
        );
    }

    #[test]
    fn a_lease_ends_with_its_process() {
        let directory = tempfile::tempdir().unwrap();
        if let Ok(directory) = env::var(CHILD) {
            let owner = Holder::here("child", Path::new("/"), 1);
            let _lease =
                Lease::take(Path::new(&directory), &LeaseKey("k".to_owned()), &owner).unwrap();
            println!("taken");
            io::stdin().read_line(&mut String::new()).unwrap();
            return;
        }
        let mut child = Killed(
            Command::new(env::current_exe().unwrap())
                .args(["--exact", "--nocapture", "lease::tests::a_lease_ends_with_its_process"])
                .env(CHILD, directory.path())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let said = BufReader::new(child.0.stdout.take().unwrap()).lines();
        assert!(
            said.map_while(Result::ok).any(|line| line.ends_with("taken")),
            "the child took the lease"
        );

        let (key, owner) = (LeaseKey("k".to_owned()), Holder::here("parent", Path::new("/"), 2));
        let refused = Lease::take(directory.path(), &key, &owner).unwrap_err();
        let pid = child.0.id();
        assert!(
            matches!(&refused, NotTaken::Held(Some(holder)) if holder.pid == pid),
            "{refused:?}"
        );
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        Lease::take(directory.path(), &key, &owner).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_told_apart_from_another_owner() {
        let owner = Holder::here("a", Path::new("/"), 1);
        let refused = Lease::take(Path::new("/proc/no/leases"), &LeaseKey("a".to_owned()), &owner)
            .unwrap_err();
        assert!(matches!(refused, NotTaken::Failed(_)), "{refused:?}");
    }

    #[test]
    fn a_key_is_of_service_and_secret_and_shows_neither() {
        let keys = [
            key("wss://a.example/x", Some("secret-1")),
            key("wss://a.example/x", Some("secret-2")),
            key("wss://a.example/y", Some("secret-1")),
        ];
        for (index, one) in keys.iter().enumerate() {
            let shown = format!("{one:?}");
            assert!(!shown.contains("secret") && !shown.contains("example"), "{shown}");
            assert!(keys.iter().skip(index + 1).all(|other| other != one));
        }
        assert_eq!(key("wss://a.example/x", Some("secret-1")), keys[0]);
        assert_eq!(key("wss://a.example/x", None), None);
    }

    fn key(url: &str, token: Option<&str>) -> Option<LeaseKey> {
        LeaseKey::of(&Link {
            name: "barnacles".to_owned(),
            profile: Profile::WebSocket {
                url: url.to_owned(),
                headers: Default::default(),
                hello: None,
                message_id: None,
                room: None,
                probe: None,
                ack: None,
                protocols: Vec::new(),
            },
            token: token.map(Secret::new),
            proxy: None,
            ca_file: None,
            keeper: Default::default(),
            http: Default::default(),
            deliver: crate::settings::Deliver::Proxy { intercept: Vec::new() },
            service: None,
            confirm_timeout: Default::default(),
            offers_max: 10,
        })
    }

    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}
