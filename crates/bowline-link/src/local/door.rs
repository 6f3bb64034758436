//! Where bots come in: the loopback proxy, made as soon as it can be, and why it cannot be served.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Local;
use crate::settings::Shared;

/// The door of bots.
#[derive(Debug)]
pub(crate) struct Door {
    shared: Shared,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    local: Option<Local>,
    trouble: Option<String>,
}

impl Door {
    pub(crate) fn new(shared: &Shared) -> Self {
        Self { shared: shared.clone(), inside: Mutex::default() }
    }

    /// The proxy. It is made here, again with each call for as long as that fails: a disk may be full for a while.
    ///
    /// # Errors
    ///
    /// Its files cannot be read or made.
    pub(crate) fn local(&self) -> Result<Local, String> {
        let mut inside = self.inside();
        match &inside.local {
            Some(local) => Ok(local.clone()),
            None => {
                let local = Local::new(&self.shared).map_err(|error| error.to_string())?;
                Ok(inside.local.insert(local).clone())
            }
        }
    }

    /// The proxy, if it was made.
    pub(crate) fn made(&self) -> Option<Local> {
        self.inside().local.clone()
    }

    /// Why nobody can come in just now.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.inside().trouble.clone()
    }

    /// Notes why nobody can come in, or that bots can. Says whether that is new.
    pub(crate) fn set_trouble(&self, words: Option<String>) -> bool {
        let mut inside = self.inside();
        let is_new = inside.trouble != words;
        inside.trouble = words;
        is_new
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
