//! What a stream has told so far.

use super::{Ask, FinishReason, Identity, Seen, StreamFault, Usage};

/// What a stream has told so far, whoever reads it.
#[derive(Debug)]
pub(super) struct Track {
    /// The client's estimate of its own prompt.
    prompt_tokens: u64,
    /// What the provider told of usage.
    pub(super) told: Usage,
    /// `told` has the final figures.
    pub(super) told_all: bool,
    seen: Seen,
    identity: Identity,
    /// Why the model stopped.
    finish: Option<FinishReason>,
    /// All that belongs to the stream has come.
    pub(super) done: bool,
}

impl Track {
    pub(super) fn new(ask: &Ask) -> Self {
        Self {
            prompt_tokens: ask.prompt_tokens(),
            told: Usage::default(),
            told_all: false,
            seen: Seen::default(),
            identity: Identity::default(),
            finish: None,
            done: false,
        }
    }

    /// `bytes` of text, reasoning or tool call came in one delta; none is no content.
    pub(super) fn on_content(&mut self, bytes: u64) {
        if bytes > 0 {
            self.seen.content = true;
            self.seen.tokens += (bytes / 4).max(1);
        }
    }

    /// The provider told what it calls its answer; it does so with every chunk.
    pub(super) fn on_identity(&mut self, id: Option<&str>, model: Option<&str>) {
        if !self.identity.is_known() {
            self.identity = Identity::of(id, model);
        }
    }

    /// The model said why it stopped.
    pub(super) fn on_finish(&mut self, reason: FinishReason) {
        self.finish = Some(reason);
    }

    /// Everything that belongs to the answer is there, save the marks of its end.
    pub(super) fn on_complete(&mut self) {
        self.seen.finished = true;
    }

    /// The provider says that this is all.
    ///
    /// # Errors
    ///
    /// [`StreamFault::Truncated`] if the model did not say why it stopped: proxies write the mark whatever came before.
    pub(super) fn on_end_mark(&mut self) -> Result<(), StreamFault> {
        if self.finish.is_none() {
            return Err(StreamFault::Truncated);
        }
        self.on_complete();
        self.done = true;
        Ok(())
    }

    /// The provider told its figures.
    pub(super) fn on_usage(&mut self, usage: Usage) {
        self.told = usage;
        self.told_all = true;
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) fn finish(&self) -> Option<FinishReason> {
        self.finish
    }

    /// The provider's figures if it has told them all, else an estimate.
    pub(super) fn usage(&self) -> Usage {
        if self.told_all {
            return self.told;
        }
        let input = if self.told.input > 0 { self.told.input } else { self.prompt_tokens };
        Usage {
            input,
            output: self.told.output.max(self.seen.tokens),
            estimated: true,
            ..self.told
        }
    }

    /// What came since `before`.
    pub(super) fn since(&self, before: Seen) -> Seen {
        Seen {
            content: self.seen.tokens > before.tokens,
            finished: self.seen.finished && !before.finished,
            tokens: self.seen.tokens - before.tokens,
        }
    }
}
