//! What there is in the stream of an answer: pieces for the client as they come, and the whole at the end.

use serde_json::{Map, Value, json};

use super::Problem;
use crate::ai::limit;

/// Reads the stream of an answer in the dialect of OpenAI.
#[derive(Debug, Default)]
pub(super) struct Deltas {
    /// A line that is not whole yet.
    rest: Vec<u8>,
    written: Written,
}

/// An answer.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Written {
    text: String,
    reasoning: String,
    calls: Vec<ToolCall>,
    finish: Option<String>,
    usage: Option<Value>,
    /// Whether there was more of it than is kept.
    cut: bool,
}

/// A tool that the model wants to be called.
#[derive(Debug, Default, Clone, PartialEq)]
struct ToolCall {
    id: String,
    name: String,
    arguments: String,
}

impl Deltas {
    /// Takes a piece of the stream: what the client is told of it, if there is anything.
    ///
    /// # Errors
    /// What it says went wrong.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<Option<Value>, Problem> {
        let mut delta = Map::new();
        let mut lines = piece.split(|byte| *byte == b'\n').peekable();
        while let Some(line) = lines.next() {
            self.rest.extend_from_slice(line);
            // What follows the last end of a line is the beginning of another.
            if lines.peek().is_none() {
                break;
            }
            let line = std::mem::take(&mut self.rest);
            let data = line.trim_ascii().strip_prefix(b"data:").map(<[u8]>::trim_ascii_start);
            let chunk = data.and_then(|data| serde_json::from_slice::<Value>(data).ok());
            if let Some(chunk) = chunk {
                self.on_chunk(&chunk, &mut delta)?;
            }
        }
        Ok((!delta.is_empty()).then_some(Value::Object(delta)))
    }

    /// The whole answer.
    ///
    /// # Errors
    /// It broke off.
    pub(super) fn written(self) -> Result<Written, Problem> {
        if self.written.finish.is_none() {
            let words = "the answer broke off";
            return Err(Problem { retry: true, ..Problem::new("truncated", words) });
        }
        Ok(self.written)
    }

    fn on_chunk(&mut self, chunk: &Value, delta: &mut Map<String, Value>) -> Result<(), Problem> {
        if chunk["error"].is_object() {
            return Err(Problem::of_error(&chunk["error"]));
        }
        if chunk["usage"].is_object() {
            self.written.usage = Some(chunk["usage"].clone());
        }
        let choice = &chunk["choices"][0];
        if let Some(finish) = choice["finish_reason"].as_str() {
            self.written.finish = Some(finish.to_owned());
        }
        let said = &choice["delta"];
        // Of the two names for reasoning providers use one.
        let reasoning = said["reasoning_content"].as_str().or(said["reasoning"].as_str());
        let room = limit::ANSWER_BYTES_MAX.saturating_sub(self.written.bytes());
        for (name, piece, whole) in [
            ("text", said["content"].as_str(), &mut self.written.text),
            ("reasoning", reasoning, &mut self.written.reasoning),
        ] {
            let Some(piece) = piece.filter(|piece| !piece.is_empty()) else { continue };
            match delta.get_mut(name) {
                Some(Value::String(before)) => before.push_str(piece),
                _ => {
                    delta.insert(name.to_owned(), json!(piece));
                }
            }
            if piece.len() > room {
                self.written.cut = true;
            } else {
                whole.push_str(piece);
            }
        }
        let calls = said["tool_calls"].as_array();
        for call in calls.into_iter().flatten() {
            self.written.on_call(call, room);
            let calls = delta.entry("tool_calls").or_insert_with(|| json!([]));
            if let Some(calls) = calls.as_array_mut() {
                calls.push(call.clone());
            }
        }
        Ok(())
    }
}

/// Calls of tools in one answer; nobody asks for more.
const CALLS_MAX: usize = 128;

impl Written {
    /// The end of an answer, as its client is told.
    pub(super) fn view(&self) -> Value {
        let mut view = json!({
            "text": self.text, "finish": self.finish, "usage": self.usage,
        });
        if !self.reasoning.is_empty() {
            view["reasoning"] = json!(self.reasoning);
        }
        if !self.calls.is_empty() {
            view["tool_calls"] = self.calls();
        }
        if self.cut {
            view["cut"] = json!(true);
        }
        view
    }

    /// Whether it can be gone on from.
    pub(super) fn is_whole(&self) -> bool {
        !self.cut && self.finish.is_some()
    }

    /// The same as a message of the assistant.
    pub(super) fn message(&self) -> Value {
        let mut message = json!({ "role": "assistant", "content": self.text });
        if !self.calls.is_empty() {
            message["tool_calls"] = self.calls();
            // Models that think want to see their thoughts again while they work with tools, and only then.
            if !self.reasoning.is_empty() {
                message["reasoning_content"] = json!(self.reasoning);
            }
        }
        message
    }

    fn calls(&self) -> Value {
        let call = |call: &ToolCall| {
            let function = json!({ "name": call.name, "arguments": call.arguments });
            json!({ "id": call.id, "type": "function", "function": function })
        };
        self.calls.iter().map(call).collect()
    }

    fn on_call(&mut self, call: &Value, room: usize) {
        let index = call["index"].as_u64().and_then(|index| usize::try_from(index).ok());
        let index = index.unwrap_or(self.calls.len());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let function = &call["function"];
        let (name, arguments) = (text(&function["name"]), text(&function["arguments"]));
        if index >= CALLS_MAX || name.len() + arguments.len() > room {
            self.cut = true;
            return;
        }
        if self.calls.len() <= index {
            self.calls.resize(index + 1, ToolCall::default());
        }
        let one = &mut self.calls[index];
        one.arguments.push_str(&arguments);
        for (whole, piece) in [(&mut one.id, text(&call["id"])), (&mut one.name, name)] {
            if !piece.is_empty() {
                *whole = piece;
            }
        }
    }

    fn bytes(&self) -> usize {
        let calls: usize = self.calls.iter().map(|call| call.arguments.len()).sum();
        self.text.len() + self.reasoning.len() + calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = concat!(
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
        ": ping\n\n",
        "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\r\n\r\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"lö\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"t1\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"}\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"total_tokens\":7}}\n\ndata: [DONE]\n\n",
    );

    fn read(pieces: &[&[u8]]) -> (String, Written) {
        let mut deltas = Deltas::default();
        let mut text = String::new();
        for piece in pieces {
            let delta = deltas.push(piece).unwrap().unwrap_or_default();
            text.push_str(delta["text"].as_str().unwrap_or_default());
        }
        (text, deltas.written().unwrap())
    }

    #[test]
    fn a_stream_is_the_same_however_it_is_cut() {
        let (text, whole) = read(&[STREAM.as_bytes()]);
        assert_eq!((&*text, &*whole.text, &*whole.reasoning), ("Hellö", "Hellö", "hm"));
        assert_eq!(
            whole.view(),
            json!({
                "text": "Hellö", "reasoning": "hm", "finish": "tool_calls", "usage": { "total_tokens": 7 },
                "tool_calls": [{ "id": "t1", "type": "function", "function": { "name": "f", "arguments": "{}" } }],
            })
        );
        assert_eq!(whole.message()["reasoning_content"], "hm");
        for at in 0..STREAM.len() {
            let (one, other) = STREAM.as_bytes().split_at(at);
            assert_eq!(read(&[one, other]), (text.clone(), whole.clone()), "{at}");
        }
    }

    #[test]
    fn pieces_that_came_together_are_told_together() {
        let delta = Deltas::default().push(STREAM.as_bytes()).unwrap().unwrap();
        assert_eq!((&delta["text"], &delta["reasoning"]), (&json!("Hellö"), &json!("hm")));
        assert_eq!(delta["tool_calls"].as_array().map(Vec::len), Some(2));
        let role = STREAM.split_inclusive("\n\n").next().unwrap();
        assert_eq!(Deltas::default().push(role.as_bytes()).unwrap(), None);
    }

    #[test]
    fn an_error_ends_it_and_so_does_a_stream_that_breaks_off() {
        let mut deltas = Deltas::default();
        let error = "data: {\"error\":{\"message\":\"no more\",\"type\":\"server_error\",\"code\":\"stalled\"}}\n\n";
        let problem = deltas.push(error.as_bytes()).unwrap_err();
        assert_eq!(
            (&*problem.code, &*problem.message, problem.retry),
            ("stalled", "no more", true)
        );
        let mut deltas = Deltas::default();
        deltas.push(&STREAM.as_bytes()[..200]).unwrap();
        assert_eq!(deltas.written().unwrap_err().code, "truncated");
    }

    #[test]
    fn no_more_is_kept_than_the_bound() {
        let mut deltas = Deltas::default();
        let chunk = json!({ "choices": [{ "delta": { "content": "x".repeat(1 << 20) } }] });
        let line = format!("data: {chunk}\n\n");
        for _ in 0..6 {
            assert!(deltas.push(line.as_bytes()).unwrap().is_some());
        }
        let end = "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":9999999}]},\"finish_reason\":\"stop\"}]}\n";
        deltas.push(end.as_bytes()).unwrap();
        let written = deltas.written().unwrap();
        assert!(written.bytes() <= limit::ANSWER_BYTES_MAX && !written.is_whole());
        assert_eq!(written.view()["cut"], true);
    }
}
