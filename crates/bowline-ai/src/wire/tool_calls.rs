//! Which tool call a delta belongs to.
//!
//! SDKs add the pieces of tool calls up by `index`, which has to count from zero without gaps. Providers leave it out,
//! begin with one, or give every call the same.

use super::{StreamFault, openai::ToolDelta};
use crate::limit::TOOL_CALLS_MAX;

/// The tool calls of one answer so far.
#[derive(Debug, Default)]
pub(super) struct ToolCalls {
    calls: Vec<Call>,
}

#[derive(Debug)]
struct Call {
    /// The provider's `index`.
    index: Option<u64>,
    id: String,
}

impl ToolCalls {
    /// The number of the call that a delta belongs to.
    ///
    /// # Errors
    ///
    /// There are more than [`TOOL_CALLS_MAX`].
    pub(super) fn number(&mut self, delta: &ToolDelta<'_>) -> Result<u64, StreamFault> {
        let id = delta.id.as_deref().unwrap_or_default();
        let begins = !delta.name().is_empty();
        let index = delta.index.0;
        let known = match index {
            // Another id and another name under an index that is in use is another call.
            Some(_) => self.calls.iter().rposition(|call| call.index == index).filter(|at| {
                !begins
                    || id.is_empty()
                    || self.calls[*at].id.is_empty()
                    || self.calls[*at].id == id
            }),
            None if !id.is_empty() => self.calls.iter().rposition(|call| call.id == id),
            None if begins => None,
            None => self.calls.len().checked_sub(1),
        };
        let at = match known {
            Some(at) => at,
            None if self.calls.len() == TOOL_CALLS_MAX => {
                return Err(StreamFault::Malformed(format!(
                    "the provider sent more than {TOOL_CALLS_MAX} tool calls"
                )));
            }
            None => {
                self.calls.push(Call { index, id: id.to_owned() });
                self.calls.len() - 1
            }
        };
        Ok(at as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(deltas: &[&str]) -> Vec<u64> {
        let mut calls = ToolCalls::default();
        deltas
            .iter()
            .map(|delta| calls.number(&serde_json::from_str(delta).unwrap()).unwrap())
            .collect()
    }

    #[test]
    fn calls_are_numbered_from_zero_whatever_the_provider_says() {
        let begin = |index: &str, id: &str| {
            format!(r#"{{{index}"id":"{id}","function":{{"name":"f","arguments":""}}}}"#)
        };
        let more = |index: &str| format!(r#"{{{index}"function":{{"arguments":"{{"}}}}"#);
        let rows = [
            // As it should be, one after the other and interleaved.
            (
                vec![
                    begin(r#""index":0,"#, "a"),
                    more(r#""index":0,"#),
                    begin(r#""index":1,"#, "b"),
                    more(r#""index":0,"#),
                ],
                vec![0, 0, 1, 0],
            ),
            // From one, with a gap.
            (
                vec![
                    begin(r#""index":1,"#, "a"),
                    more(r#""index":1,"#),
                    begin(r#""index":5,"#, "b"),
                    more(r#""index":5,"#),
                ],
                vec![0, 0, 1, 1],
            ),
            // None at all.
            (vec![begin("", "a"), more(""), begin("", "b"), more("")], vec![0, 0, 1, 1]),
            // The same for all.
            (
                vec![
                    begin(r#""index":0,"#, "a"),
                    begin(r#""index":0,"#, "b"),
                    more(r#""index":0,"#),
                ],
                vec![0, 1, 1],
            ),
            // The id is repeated in each delta.
            (vec![begin("", "a"), begin("", "a"), begin("", "b")], vec![0, 0, 1]),
        ];
        for (deltas, expected) in rows {
            assert_eq!(
                numbers(&deltas.iter().map(String::as_str).collect::<Vec<_>>()),
                expected,
                "{deltas:?}"
            );
        }
    }
}
