//! The server stops in order and starts again: what its hubs have saved comes to those of the next
//! process, which may be more or fewer.

use std::time::Duration;

use bowline_proto::{
    Input, SocketKey,
    hub::{Continuity, Snapshot},
};

use super::{
    model::{LifeId, SocketRef},
    network::Stage,
    shards::{Shard, config_of},
    world::{EPOCH, Parcel, World},
};

/// How long a drain takes at most.
const DRAIN: Duration = Duration::from_millis(3_200);

impl World<'_> {
    /// Nobody is let in any more, and everybody is sent away in a way that lets them come back.
    pub(super) fn drain(&mut self, shards: u8, loading: Duration) {
        if self.stage != Stage::Serving {
            return;
        }
        self.stage = Stage::Draining;
        for shard in self.indices() {
            let sessions: Vec<_> = self.shards[usize::from(shard)].hub.sessions().collect();
            for session in sessions {
                self.feed(shard, Input::Drain { session });
            }
        }
        self.post(DRAIN, Parcel::Stop(shards, loading));
    }

    fn indices(&self) -> Vec<u8> {
        (0..self.shards.len()).filter_map(|index| u8::try_from(index).ok()).collect()
    }

    /// The process ends, and the next one begins. What was saved is still to be read.
    pub(super) fn stop(&mut self, shards: u8, loading: Duration) {
        // One that was asked to stop before it has read what it was left reads that first.
        self.restore();
        self.open_all_mail();
        let mut saved = Vec::new();
        for (index, shard) in self.shards.iter_mut().enumerate() {
            assert_eq!(shard.hub.session_count(), 0, "shard {index} has sessions after a drain");
            assert!(!shard.has_parked(), "shard {index} waits for sockets that do not settle");
            let snapshot = shard.hub.snapshot(self.now);
            self.heads.resize(self.heads.len().max(index + 1), 0);
            self.heads[index] = snapshot.head();
            saved.push(snapshot);
        }
        self.counts.restarts += 1;
        self.process += 1;
        self.saved = saved;
        self.model.stop();
        self.named.clear();
        self.mailboxes.clear();
        self.outside_number = 0;
        self.drop_connections();
        let setup = &self.script.setup;
        self.shards = (0..shards)
            .map(|shard| {
                let head = self.heads.get(usize::from(shard)).copied().unwrap_or(0);
                let continuity = Continuity {
                    shard,
                    epoch: EPOCH,
                    key: [9; 16],
                    head,
                    loading: true,
                    ..Continuity::default()
                };
                Shard::new(config_of(setup, shards, continuity), [3; 16])
            })
            .collect();
        self.stage = Stage::Serving;
        let process = self.process;
        self.post(loading, Parcel::Restore(process));
    }

    /// What was saved has been read.
    pub(super) fn restore(&mut self) {
        if self.saved.is_empty() {
            return;
        }
        let saved = std::mem::take(&mut self.saved);
        let shards = u8::try_from(self.shards.len()).unwrap_or(1);
        let parts = Snapshot::redistribute(saved, shards);
        assert_eq!(parts.len(), self.shards.len());
        for (part, shard) in parts.into_iter().zip(self.indices()) {
            self.feed(shard, Input::Restore(Some(Box::new(part))));
        }
        let small = self.script.setup.log_is_small || self.script.setup.away_max < 1_000;
        self.model.check_restored(small);
    }

    /// A socket of the process before this one, which handlers know by its new name from now on. If a
    /// client was waiting for it, it has gone on to another shard already: then it is not known who it
    /// is until that one asks.
    pub(super) fn find_restored(
        &mut self,
        shard: u8,
        key: SocketKey,
        born: SocketRef,
    ) -> Option<LifeId> {
        let Some(view) = self.shards[usize::from(shard)].hub.socket(key) else {
            self.model.strangers.insert(born);
            return None;
        };
        let life = *self.model.by_sid.get(&view.id)?;
        self.model.rebind(life, born).then_some(life)
    }

    /// Lets what shards have told each other arrive.
    fn open_all_mail(&mut self) {
        while let Some(at) = self.next_mail() {
            if let Some(Parcel::Mail(from, to, mail)) = self.take_parcel(at) {
                self.open_mail(from, to, mail);
            }
        }
    }
}
