//! Bytes to messages, without IO: fragments are put together, bounds and UTF-8 are checked as early as the bytes allow.

use bytes::{Bytes, BytesMut};
use fastwebsockets::OpCode;

use super::error::Violation;
use super::header::Header;
use crate::delivery::frames::is_wire_close_code;

/// Fragments of one message, unless told otherwise: enough for any client that streams, and a bound on those that send
/// empty fragments without end, which a bound in bytes would never stop.
const MAX_FRAGMENTS: usize = 4096;
/// The most that is reserved on the word of a header alone, in bytes; beyond it memory follows what has come.
const TRUSTED_BYTES: usize = 16 * 1024;

/// What a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// A whole text message, valid UTF-8.
    Text(Bytes),
    /// A whole binary message.
    Binary(Bytes),
    /// A ping, to be answered by a pong with the same payload.
    Ping(Bytes),
    /// A pong, with the payload of the ping that it answers.
    Pong(Bytes),
    /// The client closes, or answers a close; nothing follows it.
    Close {
        /// Its code, where it gave one.
        code: Option<u16>,
        /// Its reason, not to be trusted.
        reason: String,
    },
}

impl Message {
    /// Bytes of what it carries.
    pub(crate) fn payload_bytes(&self) -> usize {
        match self {
            Self::Text(payload)
            | Self::Binary(payload)
            | Self::Ping(payload)
            | Self::Pong(payload) => payload.len(),
            Self::Close { reason, .. } => reason.len(),
        }
    }
}

/// The bounds of one message, its fragments together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Payload bytes.
    pub(crate) bytes: usize,
    /// Fragments.
    pub(crate) fragments: usize,
}

impl Limits {
    /// Messages up to `bytes`, in at most 4,096 fragments.
    pub(crate) const fn bytes(bytes: usize) -> Self {
        Self {
            bytes,
            fragments: MAX_FRAGMENTS,
        }
    }
}

/// A decoder for one connection; after an error or a close it must not be used again.
#[derive(Debug)]
pub(super) struct Decoder {
    pub(super) limits: Limits,
    frame: Option<Header>,
    message: Option<Partial>,
}

impl Decoder {
    pub(super) const fn new(limits: Limits) -> Self {
        Self {
            limits,
            frame: None,
            message: None,
        }
    }

    /// Payload bytes that the frame begun is known to need still.
    pub(super) fn wanted(&self) -> usize {
        self.frame.as_ref().map_or(0, |frame| frame.remaining)
    }

    /// The next message out of `buffer`, or nothing until more bytes have come.
    pub(super) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Message>, Violation> {
        loop {
            let Some(mut frame) = self.frame_begun(buffer)? else {
                return Ok(None);
            };
            if frame.is_control() {
                if buffer.len() < frame.remaining {
                    self.frame = Some(frame);
                    return Ok(None);
                }
                let mut payload = BytesMut::with_capacity(frame.remaining);
                frame.take(buffer, &mut payload);
                return control(frame.opcode, payload.freeze()).map(Some);
            }
            let Some(message) = &mut self.message else {
                return Err(Violation::StrayContinuation);
            };
            frame.take(buffer, &mut message.payload);
            message.check_text()?;
            if frame.remaining > 0 {
                self.frame = Some(frame);
                return Ok(None);
            }
            if frame.fin
                && let Some(message) = self.message.take()
            {
                return message.finish().map(Some);
            }
        }
    }

    /// The frame that is being read, or the next one; a new one is checked against the message and its limits.
    fn frame_begun(&mut self, buffer: &mut BytesMut) -> Result<Option<Header>, Violation> {
        if let Some(frame) = self.frame.take() {
            return Ok(Some(frame));
        }
        let frame = Header::parse(buffer)?;
        if let Some(frame) = &frame
            && !frame.is_control()
        {
            self.admit(frame)?;
        }
        Ok(frame)
    }

    fn admit(&mut self, frame: &Header) -> Result<(), Violation> {
        let message = match (self.message.take(), frame.opcode) {
            (None, OpCode::Continuation) => return Err(Violation::StrayContinuation),
            (Some(message), OpCode::Continuation) => message,
            (None, opcode) => Partial::new(opcode),
            (Some(_), _) => return Err(Violation::NestedMessage),
        };
        if frame.remaining > self.limits.bytes.saturating_sub(message.payload.len()) {
            return Err(Violation::TooLarge);
        }
        if message.fragments >= self.limits.fragments {
            return Err(Violation::TooManyFragments);
        }
        self.message.insert(message).begin(frame.remaining);
        Ok(())
    }
}

/// A data message of which at least one header was read.
#[derive(Debug)]
struct Partial {
    is_text: bool,
    payload: BytesMut,
    /// How much of the payload is known to be UTF-8.
    checked: usize,
    fragments: usize,
}

impl Partial {
    fn new(opcode: OpCode) -> Self {
        Self {
            is_text: opcode == OpCode::Text,
            payload: BytesMut::new(),
            checked: 0,
            fragments: 0,
        }
    }

    fn begin(&mut self, fragment_bytes: usize) {
        self.fragments += 1;
        self.payload.reserve(fragment_bytes.min(TRUSTED_BYTES));
    }

    /// Refuses text as soon as its bytes cannot become UTF-8; a character cut in two waits for its rest.
    fn check_text(&mut self) -> Result<(), Violation> {
        if !self.is_text {
            return Ok(());
        }
        match str::from_utf8(self.payload.get(self.checked..).unwrap_or_default()) {
            Ok(text) => self.checked += text.len(),
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(Violation::Utf8),
        }
        Ok(())
    }

    fn finish(self) -> Result<Message, Violation> {
        if !self.is_text {
            return Ok(Message::Binary(self.payload.freeze()));
        }
        if self.checked < self.payload.len() {
            return Err(Violation::Utf8);
        }
        Ok(Message::Text(self.payload.freeze()))
    }
}

fn control(opcode: OpCode, payload: Bytes) -> Result<Message, Violation> {
    match opcode {
        OpCode::Ping => Ok(Message::Ping(payload)),
        OpCode::Pong => Ok(Message::Pong(payload)),
        _ => close(&payload),
    }
}

fn close(payload: &[u8]) -> Result<Message, Violation> {
    if payload.is_empty() {
        return Ok(Message::Close {
            code: None,
            reason: String::new(),
        });
    }
    let Some((code, reason)) = payload.split_first_chunk() else {
        return Err(Violation::CloseCode);
    };
    let code = u16::from_be_bytes(*code);
    if !is_wire_close_code(code) {
        return Err(Violation::CloseCode);
    }
    let Ok(reason) = str::from_utf8(reason) else {
        return Err(Violation::Utf8);
    };
    Ok(Message::Close {
        code: Some(code),
        reason: reason.to_owned(),
    })
}

#[cfg(test)]
mod tests;
