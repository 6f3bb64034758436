//! What a provider calls its answer.

use crate::limit::IDENTITY_MAX_BYTES;

/// What a provider calls its answer, and the model that gave it: often a dated version of the one that was asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// `id`.
    pub id: Option<Box<str>>,
    /// `model`.
    pub model: Option<Box<str>>,
}

impl Identity {
    /// What was told. Names that are none, or longer than any is, count as untold.
    pub(super) fn of(id: Option<&str>, model: Option<&str>) -> Self {
        let name = |text: &&str| !text.is_empty() && text.len() <= IDENTITY_MAX_BYTES;
        Self { id: id.filter(name).map(Into::into), model: model.filter(name).map(Into::into) }
    }

    /// Whether anything was told.
    pub(super) fn is_known(&self) -> bool {
        self.id.is_some() || self.model.is_some()
    }
}
