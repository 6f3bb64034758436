//! Where things are kept.

use std::{
    env,
    ffi::OsString,
    fs::{self, DirBuilder},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use bowline_names::EnvVar;

/// The longest path that the address of a unix socket has room for, on Linux.
const SOCKET_PATH_MAX: usize = 107;

/// Where root and systemd keep what lives as long as a server.
const SYSTEM_RUNTIME: &str = "/run/bowline";

/// The directories of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paths {
    /// What outlives a restart.
    pub(crate) state: PathBuf,
    /// Lock, record and control socket.
    pub(crate) runtime: PathBuf,
    /// The log of a daemon.
    pub(crate) logs: PathBuf,
    /// Whether the place was named by somebody, by flag, variable or file.
    pub(crate) explicit: bool,
    /// Whether `runtime` lies where everybody may make directories, so that its owner counts.
    shared: bool,
}

/// What the choice of directories depends on.
struct Surroundings<'a> {
    user: u32,
    variable: &'a dyn Fn(EnvVar) -> Option<OsString>,
    temporary: PathBuf,
}

impl Paths {
    /// Chooses: everything in `state_dir` if that is given; else what systemd says, else what is
    /// usual for root or for this user.
    pub(crate) fn of(state_dir: Option<&Path>) -> Self {
        let surroundings = Surroundings {
            user: rustix::process::geteuid().as_raw(),
            variable: &|name| env::var_os(name.name()).filter(|value| !value.is_empty()),
            temporary: env::temp_dir(),
        };
        Self::choose(state_dir, &surroundings)
    }

    fn choose(state_dir: Option<&Path>, around: &Surroundings<'_>) -> Self {
        if let Some(dir) = state_dir {
            let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
            return Self {
                state: dir.clone(),
                runtime: dir.clone(),
                logs: dir,
                explicit: true,
                shared: false,
            };
        }
        let root = around.user == 0;
        let variable = around.variable;
        let absolute =
            |name| variable(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
        // systemd separates several directories by colons; the first is the main one.
        let given = |name| {
            let value = variable(name)?;
            let first = value.as_bytes().split(|byte| *byte == b':').next()?;
            Some(PathBuf::from(std::ffi::OsStr::from_bytes(first)))
        };

        let mut shared = false;
        let runtime = given(EnvVar::RuntimeDirectory).unwrap_or_else(|| {
            if root {
                return PathBuf::from(SYSTEM_RUNTIME);
            }
            absolute(EnvVar::XdgRuntimeDir).map_or_else(
                || {
                    shared = true;
                    around.temporary.join(format!("bowline-{}", around.user))
                },
                |dir| dir.join("bowline"),
            )
        });
        let home_state = || {
            let base = absolute(EnvVar::XdgStateHome)
                .or_else(|| Some(absolute(EnvVar::Home)?.join(".local/state")));
            base.map_or_else(|| runtime.join("state"), |base| base.join("bowline"))
        };
        let state = given(EnvVar::StateDirectory)
            .unwrap_or_else(|| if root { PathBuf::from("/var/lib/bowline") } else { home_state() });
        let logs = given(EnvVar::LogsDirectory).unwrap_or_else(|| {
            if root { PathBuf::from("/var/log/bowline") } else { state.clone() }
        });
        Self { state, runtime, logs, explicit: false, shared }
    }

    /// Where this user keeps what all servers on this machine have in common, wherever each has its own.
    pub(crate) fn of_user() -> PathBuf {
        let user = rustix::process::geteuid().as_raw();
        if user == 0 {
            return PathBuf::from("/var/lib/bowline");
        }
        let absolute = |name: EnvVar| {
            env::var_os(name.name()).map(PathBuf::from).filter(|path| path.is_absolute())
        };
        let base = absolute(EnvVar::XdgStateHome)
            .or_else(|| Some(absolute(EnvVar::Home)?.join(".local/state")));
        let shared = || env::temp_dir().join(format!("bowline-{user}"));
        base.map_or_else(shared, |base| base.join("bowline"))
    }

    /// Where the system's server would be, if that is another place than this and there is or was
    /// one.
    pub(crate) fn of_the_system(&self) -> Option<&'static Path> {
        let place = Path::new(SYSTEM_RUNTIME);
        (!self.explicit && self.runtime != place && place.join("lock").exists()).then_some(place)
    }

    /// The directory that somebody has named.
    pub(crate) fn named(&self) -> Option<&Path> {
        self.explicit.then_some(self.state.as_path())
    }

    /// The file whose lock a server holds for life.
    pub(crate) fn lock(&self) -> PathBuf {
        self.runtime.join("lock")
    }

    /// Who the server is.
    pub(crate) fn record(&self) -> PathBuf {
        self.runtime.join("record.json")
    }

    /// Where the server answers the other commands.
    pub(crate) fn control(&self) -> PathBuf {
        self.runtime.join("control.sock")
    }

    /// What a gateway leaves to the next one.
    pub(crate) fn continuity(&self) -> PathBuf {
        self.state.join("continuity.snapshot")
    }

    /// What a daemon says; `bowline.log.1` is older, and so on.
    pub(crate) fn log(&self) -> PathBuf {
        self.logs.join("bowline.log")
    }

    /// Makes the runtime directory, for this user only.
    ///
    /// # Errors
    /// Those of the system, and when the directory lies in a shared place and belongs to somebody
    /// else, or when a socket in it would have too long a name.
    pub(super) fn make(&self) -> io::Result<()> {
        let control = self.control();
        let length = control.as_os_str().len();
        if length > SOCKET_PATH_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidFilename,
                format!(
                    "{} is {length} bytes long, and a socket's path may have {SOCKET_PATH_MAX}; \
                     choose a shorter --state-dir",
                    control.display()
                ),
            ));
        }
        make_dir(&self.runtime)?;
        if self.shared {
            let found = fs::symlink_metadata(&self.runtime)?;
            let user = rustix::process::geteuid().as_raw();
            if !found.is_dir() || found.uid() != user || found.mode() & 0o077 != 0 {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "it is not a directory that belongs to this user alone",
                ));
            }
        }
        Ok(())
    }
}

/// Makes a directory and those above it, for this user only. One that exists stays as it is.
pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(user: u32, variables: &[(EnvVar, &str)]) -> Paths {
        let surroundings = Surroundings {
            user,
            variable: &|name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
            },
            temporary: PathBuf::from("/tmp"),
        };
        Paths::choose(None, &surroundings)
    }

    fn shown(paths: &Paths) -> [String; 3] {
        [&paths.runtime, &paths.state, &paths.logs].map(|path| path.display().to_string())
    }

    #[test]
    fn a_named_directory_holds_everything() {
        let paths = Paths::of(Some(Path::new("/srv/x")));
        assert_eq!(shown(&paths), ["/srv/x", "/srv/x", "/srv/x"]);
        assert!(paths.explicit);
    }

    #[test]
    fn root_has_the_places_of_the_system() {
        let paths = choose(0, &[(EnvVar::XdgRuntimeDir, "/run/user/0")]);
        assert_eq!(shown(&paths), ["/run/bowline", "/var/lib/bowline", "/var/log/bowline"]);
        assert!(!paths.explicit);
    }

    #[test]
    fn a_user_has_the_places_of_the_session() {
        let variables = [(EnvVar::XdgRuntimeDir, "/run/user/7"), (EnvVar::Home, "/home/a")];
        let state = "/home/a/.local/state/bowline";
        assert_eq!(shown(&choose(7, &variables)), ["/run/user/7/bowline", state, state]);

        let variables = [(EnvVar::XdgStateHome, "/s"), (EnvVar::Home, "/home/a")];
        let paths = choose(7, &variables);
        assert_eq!(shown(&paths), ["/tmp/bowline-7", "/s/bowline", "/s/bowline"]);
        assert!(paths.shared);
    }

    #[test]
    fn what_systemd_says_counts_for_more() {
        let variables = [
            (EnvVar::RuntimeDirectory, "/run/a:/run/b"),
            (EnvVar::StateDirectory, "/var/lib/a"),
            (EnvVar::LogsDirectory, "/var/log/a"),
            (EnvVar::XdgRuntimeDir, "/run/user/7"),
        ];
        for user in [0, 7] {
            assert_eq!(shown(&choose(user, &variables)), ["/run/a", "/var/lib/a", "/var/log/a"]);
        }
    }

    #[test]
    fn a_variable_that_is_no_absolute_path_is_passed_over() {
        let paths = choose(7, &[(EnvVar::XdgRuntimeDir, "here"), (EnvVar::Home, "/h")]);
        assert_eq!(paths.runtime, Path::new("/tmp/bowline-7"));
    }

    #[test]
    fn a_socket_path_that_is_too_long_is_refused_with_its_length() {
        let long = format!("/tmp/{}", "x".repeat(120));
        let error = Paths::of(Some(Path::new(&long))).make().unwrap_err();
        assert!(error.to_string().contains("138 bytes"), "{error}");
    }
}
