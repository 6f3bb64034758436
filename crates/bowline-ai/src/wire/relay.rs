//! A provider's stream on its way to the client.

use super::{
    Ask, Dialect, FinishReason, Identity, ProviderError, StreamFault, Surface, Usage, anthropic,
    from_anthropic, from_openai,
    openai::{self, Chunk},
    sse::{Decoder, Event, Frame},
    tool_calls::ToolCalls,
    track::Track,
};
use crate::limit::STREAM_EVENT_MAX_BYTES;

/// A provider's stream on its way to the client: events go in as they come from the network, in pieces of any size,
/// and come out whole, in the client's dialect.
#[derive(Debug)]
pub struct Relay {
    decoder: Decoder,
    mode: Mode,
    track: Track,
    failed: Option<StreamFault>,
}

/// What there was in a piece of a stream, or in all of it so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// Text, reasoning or a tool call. A role, a ping, a comment, an empty delta are none.
    pub content: bool,
    /// The model said why it stopped. Usage may still follow.
    pub finished: bool,
    /// Tokens, estimated: a fourth of the bytes of the text, and at least one for each delta that has any.
    pub tokens: u64,
}

/// From whom to whom.
#[derive(Debug)]
enum Mode {
    /// Both speak OpenAI's dialect.
    OpenAi(OpenAi),
    /// Both speak Anthropic's.
    Anthropic,
    /// An Anthropic provider, an OpenAI client.
    ToOpenAi(from_anthropic::Stream),
    /// The other way round.
    ToAnthropic(from_openai::Stream),
}

impl Relay {
    /// A relay for the answer to `ask` from a provider that speaks `dialect`. `created` is the time in seconds since
    /// 1970, for clients that are told one where the provider tells none.
    pub fn new(ask: &Ask, dialect: Dialect, created: u64) -> Self {
        let mode = match (ask.surface(), dialect) {
            (Surface::ChatCompletions | Surface::Embeddings, Dialect::OpenAi) => {
                Mode::OpenAi(OpenAi {
                    wants_usage: ask.wants_usage(),
                    choices: ask.choices(),
                    ..OpenAi::default()
                })
            }
            (Surface::Messages, Dialect::Anthropic) => Mode::Anthropic,
            (Surface::ChatCompletions | Surface::Embeddings, Dialect::Anthropic) => {
                Mode::ToOpenAi(from_anthropic::Stream::new(ask.wants_usage(), created))
            }
            (Surface::Messages, Dialect::OpenAi) => Mode::ToAnthropic(from_openai::Stream::new()),
        };
        Self {
            decoder: Decoder::new(STREAM_EVENT_MAX_BYTES),
            mode,
            track: Track::new(ask),
            failed: None,
        }
    }

    /// Takes what came from the provider, and appends to `out` what the client gets: whole events only. Returns what
    /// there was in `bytes`. What follows the end of the stream is passed over.
    ///
    /// # Errors
    ///
    /// The stream is over; the same is returned ever after. What stands in `out` came before the fault and is good, and
    /// [`seen`](Self::seen) counts it. The client is told by [`error_frame`](super::error_frame), which is not in
    /// `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Seen, StreamFault> {
        if let Some(fault) = &self.failed {
            return Err(fault.clone());
        }
        let before = self.track.seen();
        match self.take(bytes, out) {
            Ok(()) => Ok(self.track.since(before)),
            Err(fault) => Err(self.failed.insert(fault).clone()),
        }
    }

    /// The provider has closed its stream. Appends what is missing from a complete one (`[DONE]`, say).
    ///
    /// # Errors
    ///
    /// [`StreamFault::Truncated`] if the model did not say why it stopped: the answer is not complete, and the client
    /// must not believe that it is.
    pub fn end(&mut self, out: &mut Vec<u8>) -> Result<Usage, StreamFault> {
        if let Some(fault) = &self.failed {
            return Err(fault.clone());
        }
        match self.finish_up(out) {
            Ok(()) => Ok(self.track.usage()),
            Err(fault) => Err(self.failed.insert(fault).clone()),
        }
    }

    /// Whether all has been said (`[DONE]`, `message_stop`), so that nothing of what may follow matters.
    pub fn done(&self) -> bool {
        self.track.done
    }

    /// Bytes of an event that has not come whole yet.
    pub fn waiting_bytes(&self) -> usize {
        self.decoder.waiting_bytes()
    }

    /// Everything so far.
    pub fn seen(&self) -> Seen {
        self.track.seen()
    }

    /// Tokens so far: the provider's own figures if it has told them all, an estimate until then.
    pub fn usage(&self) -> Usage {
        self.track.usage()
    }

    /// What the provider calls its answer, once it has said so.
    pub fn identity(&self) -> &Identity {
        self.track.identity()
    }

    /// Why the model stopped, once it has said so.
    pub fn finish(&self) -> Option<FinishReason> {
        self.track.finish()
    }

    fn take(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), StreamFault> {
        while !self.track.done
            && let Some(frame) = self.decoder.next(&mut bytes).map_err(|_| StreamFault::TooLarge)?
        {
            match frame {
                Frame::Event(event) => self.mode.on(event, &mut self.track, out)?,
                Frame::LateLf => self.mode.late_lf(out),
            }
        }
        if self.track.done && self.decoder.late_lf(&mut bytes) {
            self.mode.late_lf(out);
        }
        Ok(())
    }

    fn finish_up(&mut self, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        if self.track.done {
            return Ok(());
        }
        // Many a server forgets the blank line behind its last event. What cannot be read was cut off.
        if let Some(event) = self.decoder.end() {
            // An error in plain JSON, in spite of status 200.
            if event.data.is_none() && anthropic::is_error(event.raw) {
                return Err(StreamFault::Provider(
                    ProviderError::of_body(event.raw).unwrap_or_default(),
                ));
            }
            let length = out.len();
            match self.mode.on(event, &mut self.track, out) {
                Ok(()) => {}
                Err(StreamFault::Malformed(_)) => out.truncate(length),
                Err(fault) => return Err(fault),
            }
        }
        if self.track.done {
            return Ok(());
        }
        if !self.track.seen().finished {
            return Err(StreamFault::Truncated);
        }
        self.mode.end(&mut self.track, out);
        Ok(())
    }
}

impl Mode {
    fn on(
        &mut self,
        event: Event<'_>,
        track: &mut Track,
        out: &mut Vec<u8>,
    ) -> Result<(), StreamFault> {
        match self {
            Self::OpenAi(pass) => pass.on(event, track, out),
            Self::Anthropic => pass_anthropic(event, track, out),
            Self::ToOpenAi(stream) => stream.on(event, track, out),
            Self::ToAnthropic(stream) => stream.on(event, track, out),
        }
    }

    /// The LF of the last event. Only one that was passed on as it is has it.
    fn late_lf(&self, out: &mut Vec<u8>) {
        if matches!(self, Self::OpenAi(OpenAi { dropped: false, .. }) | Self::Anthropic) {
            out.push(b'\n');
        }
    }

    /// All has come but the marks of the end.
    fn end(&mut self, track: &mut Track, out: &mut Vec<u8>) {
        match self {
            Self::OpenAi(_) => out.extend_from_slice(b"data: [DONE]\n\n"),
            Self::Anthropic => {
                out.extend_from_slice(
                    b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
                );
            }
            Self::ToOpenAi(stream) => stream.end(track, out),
            Self::ToAnthropic(stream) => stream.end(track, out),
        }
        track.done = true;
    }
}

/// A stream whose bytes are passed on: all of them, but for a chunk of usage that the client did not ask for and tool
/// calls that are numbered wrong.
#[derive(Debug, Default)]
struct OpenAi {
    wants_usage: bool,
    /// How many answers the client asks for.
    choices: u32,
    /// A bit for each choice that has begun, and for each that has ended; there are at most
    /// [`CHOICES_MAX`](crate::limit::CHOICES_MAX).
    begun: u128,
    ended: u128,
    /// Tool calls of each choice that has any.
    calls: Vec<(u64, ToolCalls)>,
    /// The last event was not passed on as it was.
    dropped: bool,
}

impl OpenAi {
    fn on(
        &mut self,
        event: Event<'_>,
        track: &mut Track,
        out: &mut Vec<u8>,
    ) -> Result<(), StreamFault> {
        self.dropped = false;
        let Some(data) = event.data.filter(|data| !data.is_empty()) else {
            out.extend_from_slice(event.raw);
            return Ok(());
        };
        if data == b"[DONE]" {
            // Of several answers, one was cut.
            if self.begun != self.ended {
                return Err(StreamFault::Truncated);
            }
            track.on_end_mark()?;
            out.extend_from_slice(event.raw);
            return Ok(());
        }
        let chunk = Chunk::read(data)?;
        track.on_identity(chunk.id.as_deref(), chunk.model.as_deref());
        let usage = chunk.usage();
        if let Some(usage) = usage {
            track.on_usage(usage);
        }
        let choices = chunk.choices.unwrap_or_default().0;
        if usage.is_some() && choices.is_empty() && !self.wants_usage {
            self.dropped = true;
            return Ok(());
        }
        let mut numbers = Vec::new();
        let mut misnumbered = false;
        let mut content = 0;
        for choice in choices {
            let index = choice.index();
            let bit = 1 << index.min(127);
            self.begun |= bit;
            if let Some(word) = choice.finish_reason() {
                track.on_finish(openai::finish_reason(word)?);
                self.ended |= bit;
            }
            let Some(delta) = choice.into_delta() else { continue };
            content += delta.weight();
            for call in &delta.tool_calls.0 {
                let number = self.calls_of(index).number(call)?;
                misnumbered |= call.index.0 != Some(number);
                numbers.push(number);
            }
        }
        // Not before: what is in a faulty chunk does not reach the client.
        track.on_content(content);
        // One may be whole before the next has begun.
        let all = self.ended.count_ones() >= self.choices;
        if self.begun != 0 && self.begun == self.ended && all {
            track.on_complete();
        }
        if misnumbered {
            self.dropped = true;
            renumber(data, &numbers, out)
        } else {
            out.extend_from_slice(event.raw);
            Ok(())
        }
    }

    fn calls_of(&mut self, choice: u64) -> &mut ToolCalls {
        let choice = choice.min(127);
        let at = match self.calls.iter().position(|(known, _)| *known == choice) {
            Some(at) => at,
            None => {
                self.calls.push((choice, ToolCalls::default()));
                self.calls.len() - 1
            }
        };
        &mut self.calls[at].1
    }
}

/// Writes a chunk anew, with its tool calls numbered as in `numbers`.
fn renumber(data: &[u8], numbers: &[u64], out: &mut Vec<u8>) -> Result<(), StreamFault> {
    let mut chunk: serde_json::Value =
        serde_json::from_slice(data).map_err(|error| openai::malformed(&error, data))?;
    let mut numbers = numbers.iter().copied();
    let choices = chunk.get_mut("choices").and_then(|choices| choices.as_array_mut());
    for choice in choices.into_iter().flatten() {
        let key = if choice.get("delta").is_some_and(|delta| !delta.is_null()) {
            "delta"
        } else {
            "message"
        };
        let calls = choice.get_mut(key).and_then(|delta| delta.get_mut("tool_calls"));
        for call in calls.and_then(|calls| calls.as_array_mut()).into_iter().flatten() {
            if let (Some(call), Some(number)) = (call.as_object_mut(), numbers.next()) {
                call.insert("index".to_owned(), number.into());
            }
        }
    }
    out.extend_from_slice(b"data: ");
    super::json::write(out, &chunk);
    out.extend_from_slice(b"\n\n");
    Ok(())
}

/// Passes an event on as it is.
fn pass_anthropic(
    event: Event<'_>,
    track: &mut Track,
    out: &mut Vec<u8>,
) -> Result<(), StreamFault> {
    if let Some(data) = event.data.filter(|data| !data.is_empty()) {
        let read = anthropic::Event::read(data)?;
        anthropic::note(&read, track);
        if &*read.kind == "message_stop" {
            track.on_end_mark()?;
        }
    }
    out.extend_from_slice(event.raw);
    Ok(())
}
