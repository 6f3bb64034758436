//! The instance directory of a master at work. Somebody may sweep it away, as a cleaner of temporary
//! files does: then record and control socket are made again, so that commands find the server.

use std::io;

use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};

use super::{Instance, Now, Shared, Wish, control};
use crate::instance::{Claim, ClaimError, Record};

/// The directory, and what answers on its socket.
pub(super) struct Place {
    claim: Claim,
    record: Record,
    shared: Shared,
    now: watch::Receiver<Now>,
    wishes: mpsc::Sender<Wish>,
    answering: AbortHandle,
    /// Whether it has been said that it cannot be made again.
    complained: bool,
}

impl Place {
    /// Begins to answer on the control socket.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn open(
        instance: Instance,
        shared: Shared,
        now: watch::Receiver<Now>,
        wishes: mpsc::Sender<Wish>,
        tasks: &mut JoinSet<()>,
    ) -> io::Result<Self> {
        let Instance { claim, control, record } = instance;
        let control = control::serve(control, shared.clone(), now.clone(), wishes.clone())?;
        let answering = tasks.spawn(control);
        Ok(Self { claim, record, shared, now, wishes, answering, complained: false })
    }

    /// Makes again what was swept away.
    pub(super) fn look(&mut self, tasks: &mut JoinSet<()>) {
        if self.claim.stands() {
            return;
        }
        let directory = self.claim.paths().runtime.display().to_string();
        match self.renew(tasks) {
            Ok(()) => {
                self.complained = false;
                tracing::warn!(directory, "record and control socket were gone and are made again");
            }
            Err(error) if !self.complained => {
                self.complained = true;
                let words = "record and control socket are gone: commands do not find this server";
                tracing::error!(directory, %error, "{words}");
            }
            Err(_) => {}
        }
    }

    fn renew(&mut self, tasks: &mut JoinSet<()>) -> Result<(), ClaimError> {
        self.claim.renew()?;
        let control = self.claim.listen()?;
        let path = self.claim.paths().control();
        let (shared, now, wishes) = (self.shared.clone(), self.now.clone(), self.wishes.clone());
        let control = control::serve(control, shared, now, wishes)
            .map_err(|error| ClaimError::of(path, error))?;
        self.answering.abort();
        self.answering = tasks.spawn(control);
        self.claim.write(&self.record)
    }
}
