//! Bytes to messages: the reading half of a connection.

use std::mem;

use bytes::Bytes;
use bytestring::ByteString;

use super::{
    Error, Message, Role, deflate,
    frame::{CONTROL_MAX_BYTES, HEADER_MAX_BYTES, Header, OpCode, apply_mask},
};

/// What a [`Decoder`] accepts; the same for many connections, so it is not kept in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeConfig {
    /// The most bytes a message may have, after it was inflated if it was compressed.
    pub max_message_bytes: usize,
    /// Whether permessage-deflate was agreed on for this connection (RFC 7692).
    pub deflate: bool,
}

/// One thing that a peer said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A whole message.
    Message(Message),
    /// To be answered by a pong with the same payload, at most 125 bytes (RFC 6455 section 5.5.3).
    Ping(Bytes),
    /// Answers a ping, or nothing (RFC 6455 section 5.5.3).
    Pong(Bytes),
    /// The last thing: it is answered by a close frame if none was sent yet (RFC 6455 section
    /// 5.5.1), and whatever follows is dropped.
    Close(CloseFrame),
}

/// Why a peer closes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseFrame {
    /// A status code of RFC 6455 section 7.4, if there was one.
    pub code: Option<u16>,
    /// Words for a log; often empty.
    pub reason: ByteString,
}

/// The reading half of one connection: frames in, [`Incoming`] out.
///
/// It has no memory outside itself between messages. While a message or a frame is cut it keeps
/// what has arrived of it, never more, whatever length was announced; that is at most the size
/// limit, twice that while the memory grows.
#[derive(Debug)]
pub struct Decoder {
    role: Role,
    /// Set by a close frame or an error: nothing is read any more.
    finished: bool,
    partial: Option<Box<Partial>>,
}

impl Decoder {
    /// A decoder for this end of a connection: a server requires masks, a client refuses them.
    pub fn new(role: Role) -> Self {
        Self { role, finished: false, partial: None }
    }

    /// Whether nothing is kept: the last frame and the last message were complete.
    pub fn is_idle(&self) -> bool {
        self.partial.is_none()
    }

    /// Bytes allocated for payloads that are not complete.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        let Some(partial) = &self.partial else { return 0 };
        partial.control.capacity()
            + partial.message.as_ref().map_or(0, |message| message.bytes.capacity())
    }

    /// Takes frames from the front of `input` until one thing is complete, and leaves the rest
    /// there for the next call. `None` means that all of `input` was taken and more is needed.
    ///
    /// Payloads are unmasked where they stand. A frame that is a whole message and all there costs
    /// one allocation: its payload.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol. The connection is to be failed; the decoder drops whatever
    /// else it is given.
    pub fn decode(
        &mut self,
        config: &DecodeConfig,
        input: &mut &mut [u8],
    ) -> Result<Option<Incoming>, Error> {
        if self.finished {
            take(input, input.len());
            return Ok(None);
        }
        let result = self.decode_next(config, input);
        if matches!(result, Err(_) | Ok(Some(Incoming::Close(_)))) {
            self.finished = true;
            self.partial = None;
            take(input, input.len());
        }
        result
    }

    fn decode_next(
        &mut self,
        config: &DecodeConfig,
        input: &mut &mut [u8],
    ) -> Result<Option<Incoming>, Error> {
        loop {
            let in_frame = self.partial.as_ref().is_some_and(|partial| partial.frame.is_some());
            if !in_frame {
                let Some(header) = self.read_header(config, input)? else { return Ok(None) };
                let in_message = self.check_order(config, header)?;
                let alone = header.fin && (header.opcode.is_control() || !in_message);
                if alone && header.len <= input.len() as u64 {
                    let payload = take(input, header.len as usize);
                    apply_mask(header.mask, 0, payload);
                    self.free_if_idle();
                    return whole_frame(config, header, payload).map(Some);
                }
                self.partial.get_or_insert_default().begin_frame(header);
            }

            let Some(partial) = &mut self.partial else { return Ok(None) };
            if !partial.take_payload(input)? {
                return Ok(None);
            }
            let done = partial.end_frame(config)?;
            self.free_if_idle();
            if done.is_some() {
                return Ok(done);
            }
        }
    }

    /// Reads a header from what was kept of it and `input`.
    fn read_header(
        &mut self,
        config: &DecodeConfig,
        input: &mut &mut [u8],
    ) -> Result<Option<Header>, Error> {
        let kept = self.partial.as_ref().map_or(0, |partial| partial.header_len);
        if kept == 0 {
            return match Header::parse(self.role, config.deflate, input)? {
                Some((header, len)) => {
                    take(input, len);
                    Ok(Some(header))
                }
                None if input.is_empty() => Ok(None),
                None => {
                    let partial = self.partial.get_or_insert_default();
                    partial.header[..input.len()].copy_from_slice(input);
                    partial.header_len = input.len();
                    take(input, input.len());
                    Ok(None)
                }
            };
        }

        let partial = self.partial.get_or_insert_default();
        let added = input.len().min(HEADER_MAX_BYTES - kept);
        partial.header[kept..kept + added].copy_from_slice(&input[..added]);
        match Header::parse(self.role, config.deflate, &partial.header[..kept + added])? {
            Some((header, len)) => {
                partial.header_len = 0;
                take(input, len - kept);
                Ok(Some(header))
            }
            None => {
                partial.header_len = kept + added;
                take(input, added);
                Ok(None)
            }
        }
    }

    /// Checks a header against the message it may belong to (RFC 6455 section 5.4) and the limit;
    /// says whether a message has begun.
    fn check_order(&self, config: &DecodeConfig, header: Header) -> Result<bool, Error> {
        let message = self.partial.as_ref().and_then(|partial| partial.message.as_ref());
        match (header.opcode, message) {
            (OpCode::Continuation, None) => return Err(Error::NothingToContinue),
            (OpCode::Text | OpCode::Binary, Some(_)) => return Err(Error::Interleaved),
            (OpCode::Continuation, Some(_))
            | (OpCode::Text | OpCode::Binary, None)
            | (OpCode::Close | OpCode::Ping | OpCode::Pong, _) => {}
        }
        if !header.opcode.is_control() {
            let (before, compressed) =
                message.map_or((0, header.rsv1), |message| (message.bytes.len(), message.deflated));
            let max_bytes = if compressed {
                deflate::max_compressed_bytes(config.max_message_bytes)
            } else {
                config.max_message_bytes
            };
            if header.len.saturating_add(before as u64) > max_bytes as u64 {
                return Err(Error::TooBig { max_bytes: config.max_message_bytes });
            }
        }
        Ok(message.is_some())
    }

    fn free_if_idle(&mut self) {
        if self.partial.as_ref().is_some_and(|partial| partial.is_idle()) {
            self.partial = None;
        }
    }
}

/// What is kept of things that are not complete.
#[derive(Debug, Default)]
struct Partial {
    header: [u8; HEADER_MAX_BYTES],
    header_len: usize,
    frame: Option<PartialFrame>,
    /// The payload of a control frame that is cut.
    control: Vec<u8>,
    message: Option<PartialMessage>,
}

#[derive(Debug)]
struct PartialFrame {
    header: Header,
    taken: u64,
}

#[derive(Debug)]
struct PartialMessage {
    text: bool,
    deflated: bool,
    bytes: Vec<u8>,
    /// How much of a text that is not compressed was found to be UTF-8.
    valid: usize,
}

impl Partial {
    fn is_idle(&self) -> bool {
        self.header_len == 0 && self.frame.is_none() && self.message.is_none()
    }

    fn begin_frame(&mut self, header: Header) {
        if !header.opcode.is_control() && self.message.is_none() {
            self.message = Some(PartialMessage {
                text: header.opcode == OpCode::Text,
                deflated: header.rsv1,
                bytes: Vec::new(),
                valid: 0,
            });
        }
        self.frame = Some(PartialFrame { header, taken: 0 });
    }

    /// Moves payload from `input` into the message or control frame it belongs to; says whether
    /// the frame is complete.
    fn take_payload(&mut self, input: &mut &mut [u8]) -> Result<bool, Error> {
        let Some(frame) = &mut self.frame else { return Ok(true) };
        let left = frame.header.len - frame.taken;
        let len = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
        let payload = take(input, len);
        apply_mask(frame.header.mask, frame.taken, payload);
        frame.taken += len as u64;
        let left = left - len as u64;

        match &mut self.message {
            Some(message) if !frame.header.opcode.is_control() => message.append(payload, left)?,
            Some(_) | None => {
                debug_assert!(self.control.len() + payload.len() <= CONTROL_MAX_BYTES);
                self.control.extend_from_slice(payload);
            }
        }
        Ok(left == 0)
    }

    fn end_frame(&mut self, config: &DecodeConfig) -> Result<Option<Incoming>, Error> {
        let Some(PartialFrame { header, .. }) = self.frame.take() else { return Ok(None) };
        if header.opcode.is_control() {
            let payload = mem::take(&mut self.control);
            return whole_frame(config, header, &payload).map(Some);
        }
        if !header.fin {
            return Ok(None);
        }
        let Some(message) = self.message.take() else { return Ok(None) };
        message.finish(config).map(|message| Some(Incoming::Message(message)))
    }
}

impl PartialMessage {
    /// `left` is what the frame still lacks: memory is never asked for beyond it.
    fn append(&mut self, payload: &[u8], left: u64) -> Result<(), Error> {
        let free = self.bytes.capacity() - self.bytes.len();
        if payload.len() > free {
            // Doubling, as a vector does by itself, but not beyond the end of this frame.
            let end = payload.len().saturating_add(usize::try_from(left).unwrap_or(usize::MAX));
            self.bytes.reserve_exact(payload.len().max(self.bytes.len()).min(end));
        }
        self.bytes.extend_from_slice(payload);
        if self.text && !self.deflated {
            self.check_utf8()?;
        }
        Ok(())
    }

    /// Refuses wrong text as soon as it is seen, not only when the message ends.
    fn check_utf8(&mut self) -> Result<(), Error> {
        match simdutf8::compat::from_utf8(&self.bytes[self.valid..]) {
            Ok(_) => self.valid = self.bytes.len(),
            // The last character may be cut.
            Err(error) if error.error_len().is_none() => self.valid += error.valid_up_to(),
            Err(_) => return Err(Error::InvalidUtf8),
        }
        Ok(())
    }

    fn finish(self, config: &DecodeConfig) -> Result<Message, Error> {
        if self.deflated {
            let bytes = deflate::inflate(&self.bytes, config.max_message_bytes)?;
            return message(self.text, Bytes::from(bytes));
        }
        if self.text && self.valid < self.bytes.len() {
            return Err(Error::InvalidUtf8);
        }
        message(self.text, Bytes::from(self.bytes))
    }
}

/// A frame that is a whole message, or a control frame, with its unmasked payload.
fn whole_frame(config: &DecodeConfig, header: Header, payload: &[u8]) -> Result<Incoming, Error> {
    match header.opcode {
        OpCode::Close => close(payload).map(Incoming::Close),
        OpCode::Ping => Ok(Incoming::Ping(Bytes::copy_from_slice(payload))),
        OpCode::Pong => Ok(Incoming::Pong(Bytes::copy_from_slice(payload))),
        OpCode::Text | OpCode::Binary | OpCode::Continuation => {
            // Heartbeats are a digit, and most of what a quiet server hears: they cost no memory.
            if let ([digit @ b'0'..=b'9'], OpCode::Text, false) =
                (payload, header.opcode, header.rsv1)
            {
                let at = usize::from(digit - b'0');
                let text = ByteString::from_static(&"0123456789"[at..=at]);
                return Ok(Incoming::Message(Message::Text(text)));
            }
            let bytes = if header.rsv1 {
                Bytes::from(deflate::inflate(payload, config.max_message_bytes)?)
            } else {
                Bytes::copy_from_slice(payload)
            };
            message(header.opcode == OpCode::Text, bytes).map(Incoming::Message)
        }
    }
}

fn message(text: bool, bytes: Bytes) -> Result<Message, Error> {
    if text {
        ByteString::try_from(bytes).map(Message::Text).map_err(|_| Error::InvalidUtf8)
    } else {
        Ok(Message::Binary(bytes))
    }
}

fn close(payload: &[u8]) -> Result<CloseFrame, Error> {
    if payload.is_empty() {
        return Ok(CloseFrame { code: None, reason: ByteString::new() });
    }
    let Some((code, reason)) = payload.split_first_chunk() else { return Err(Error::BadClose) };
    let code = u16::from_be_bytes(*code);
    // RFC 6455 section 7.4 and IANA's registry: 1004 to 1006 and 1015 are never sent, 1016 to 2999
    // are for future versions and extensions.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Error::BadClose);
    }
    let reason = ByteString::try_from(reason).map_err(|_| Error::InvalidUtf8)?;
    Ok(CloseFrame { code: Some(code), reason })
}

/// Takes `len` bytes from the front of `input`.
fn take<'a>(input: &mut &'a mut [u8], len: usize) -> &'a mut [u8] {
    let (front, rest) = mem::take(input).split_at_mut(len);
    *input = rest;
    front
}
