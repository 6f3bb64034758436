//! What has become of one client, put together from all shards that had it.

use std::time::Duration;

use bowline_proto::{
    Sid,
    hub::{Happened, StoryEntry},
};

use crate::handler::{Context, Handle};

/// Something that happened to a socket, or to a session that carried it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoryLine {
    /// How long ago.
    pub ago: Duration,
    /// The shard where it happened.
    pub shard: u8,
    /// What.
    pub happened: Happened,
}

impl Handle {
    /// What has happened to the socket with this Socket.IO sid and to the sessions that carried it,
    /// in order of time, as far as the shards remember. Also of one that has gone; nothing of one that
    /// never was.
    pub async fn story(&self, sid: Sid) -> Vec<StoryLine> {
        let asked = move |cx: &mut Context<'_>| {
            let (shard, now) = (cx.shard, cx.process.clock.now());
            let line = |entry: StoryEntry| StoryLine {
                ago: now - entry.at,
                shard,
                happened: entry.happened,
            };
            (now, cx.hub.story(sid).into_iter().map(line).collect::<Vec<_>>())
        };
        let parts = self.ask(asked).await;
        // Each shard has answered at a time of its own.
        let latest = parts.iter().map(|(now, _)| *now).max().unwrap_or_default();
        let mut story: Vec<StoryLine> = (parts.into_iter())
            .flat_map(|(now, part)| {
                let since = latest - now;
                part.into_iter().map(move |line| StoryLine { ago: line.ago + since, ..line })
            })
            .collect();
        story.sort_by_key(|line| std::cmp::Reverse(line.ago));
        story
    }
}
