//! The apps behind HTTP: one [`Backend`] for each table of `[backends]`, which lives as long as its
//! name, so that a reload changes what is said of it and neither its queue nor its order.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bowline_backend::{Backend, Options, Secret, Stats};
use bowline_names::ErrorCode;
use tokio::{runtime::Handle, time::timeout};

use crate::{
    config::{self, Config},
    failure::Failure,
};

/// How long a server that stops waits for apps to hear who has left.
const FAREWELL: Duration = Duration::from_secs(5);

/// All apps of a gateway.
pub(crate) struct Backends {
    office: Handle,
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    live: BTreeMap<String, Backend>,
    /// What the configuration that is being put in place says of them.
    next: Vec<Options>,
}

impl Backends {
    pub(crate) fn new(office: Handle) -> Self {
        Self { office, all: Mutex::default() }
    }

    /// Makes the apps of a configuration known. Those that are known stay as they are until
    /// [`settle`](Self::settle) is called.
    ///
    /// # Errors
    /// One of them cannot be used; then nothing has changed.
    pub(crate) fn prepare(&self, config: &Config) -> Result<(), Failure> {
        let read = |(name, backend): &(String, config::Backend)| {
            options(name, backend).map_err(|why| {
                let words = format!("`backends.{name}`: {why}");
                Failure::new(ErrorCode::BackendUnusable, words)
            })
        };
        let next = config.backends.0.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let mut all = self.lock();
        for options in &next {
            if !all.live.contains_key(&options.name) {
                let backend = Backend::new(options.clone(), &self.office);
                all.live.insert(options.name.clone(), backend);
            }
        }
        all.next = next;
        Ok(())
    }

    /// The app of this name.
    pub(crate) fn get(&self, name: &str) -> Option<Backend> {
        self.lock().live.get(name).cloned()
    }

    /// Puts what was prepared in force. Apps that it does not name are forgotten when the last of
    /// their namespaces is.
    pub(crate) fn settle(&self) {
        let mut all = self.lock();
        let next = std::mem::take(&mut all.next);
        all.live.retain(|name, _| next.iter().any(|options| options.name == *name));
        for options in next {
            if let Some(backend) = all.live.get(&options.name) {
                backend.reconfigure(options);
            }
        }
    }

    /// What was counted of each.
    pub(crate) fn stats(&self) -> Vec<(String, Stats)> {
        let all = self.lock();
        all.live.iter().map(|(name, backend)| (name.clone(), backend.stats())).collect()
    }

    /// Waits until apps have heard of everything, but not for ever.
    pub(crate) async fn farewell(&self) {
        let all: Vec<Backend> = self.lock().live.values().cloned().collect();
        let settled = async {
            for backend in all {
                backend.settled().await;
            }
        };
        if timeout(FAREWELL, settled).await.is_err() {
            tracing::warn!("not every app has heard who has left");
        }
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a table of `[backends]` says, with its secret.
///
/// # Errors
/// What is wrong with it. Does not hold what is secret.
pub(crate) fn options(name: &str, backend: &config::Backend) -> Result<Options, String> {
    let url = bowline_backend::Url::parse(&backend.url).map_err(|error| error.to_string())?;
    let secret = match &backend.secret_file {
        None => None,
        Some(path) => {
            let shown = path.display();
            let text = fs::read_to_string(path)
                .map_err(|error| format!("`secret-file`: cannot read {shown}: {error}"))?;
            let secret =
                Secret::parse(&text).map_err(|error| format!("`secret-file`: {shown}: {error}"))?;
            Some(secret)
        }
    };
    Ok(Options {
        secret,
        timeout: backend.timeout,
        max_concurrent: backend.max_concurrent,
        queue: backend.queue,
        recheck: backend.recheck,
        ..Options::new(name, url)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        config::of_text(Some(("bowline.toml".into(), text.to_owned())), Default::default())
            .unwrap_or_else(|error| panic!("{error}"))
    }

    #[tokio::test]
    async fn a_reload_keeps_apps_whose_names_stay() {
        let backends = Backends::new(Handle::current());
        let names = || backends.stats().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        let app = |name: &str, timeout: &str| {
            format!("[backends.{name}]\nurl = \"http://127.0.0.1:1/\"\ntimeout = \"{timeout}\"\n")
        };
        backends.prepare(&config(&(app("one", "1s") + &app("two", "1s")))).unwrap();
        backends.settle();
        assert_eq!(names(), ["one", "two"]);
        let one = backends.get("one").unwrap();
        backends.prepare(&config(&(app("one", "2s") + &app("three", "1s")))).unwrap();
        // Until it is settled the old ones are there too, for namespaces that still use them.
        assert_eq!(names(), ["one", "three", "two"]);
        backends.settle();
        assert_eq!(names(), ["one", "three"]);
        assert!(one.is_same(&backends.get("one").unwrap()));
    }

    #[tokio::test]
    async fn an_app_whose_secret_cannot_be_used_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        let backends = Backends::new(Handle::current());
        let text = format!("[backends.app]\nurl = \"http://a/\"\nsecret-file = {file:?}\n");
        let failure = backends.prepare(&config(&text)).unwrap_err();
        assert_eq!(failure.code, ErrorCode::BackendUnusable);
        assert!(failure.message.contains("cannot read"), "{}", failure.message);
        fs::write(&file, "whsec_not base64").unwrap();
        let failure = backends.prepare(&config(&text)).unwrap_err();
        assert!(failure.message.contains("not base64"), "{}", failure.message);
        assert!(backends.get("app").is_none());
        fs::write(&file, "whsec_aGVsbG8=\n").unwrap();
        backends.prepare(&config(&text)).unwrap();
        assert!(backends.get("app").is_some());
    }
}
