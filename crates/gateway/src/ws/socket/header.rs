//! The header of a client's frame (RFC 6455 section 5.2), with every check that needs no more than the header.
//!
//! Of fastwebsockets the opcodes, the masking and the written header are used, not its `read_frame`: measured with 0.10, a
//! connection keeps the memory of its largest message while idle, a header alone reserves all that it announces, and frames
//! without a mask, padded lengths and long pongs pass.

use bytes::{Buf, BytesMut};
use fastwebsockets::OpCode;

use super::error::Violation;
use crate::delivery::frames::CONTROL_BYTES;

/// A frame whose payload is being read.
#[derive(Debug)]
pub(super) struct Header {
    /// Whether it is the last of its message.
    pub(super) fin: bool,
    /// What it is.
    pub(super) opcode: OpCode,
    /// The mask of the next byte of the payload and the three behind it.
    mask: [u8; 4],
    /// Bytes of the payload that were not taken yet.
    pub(super) remaining: usize,
}

impl Header {
    /// Takes a header from the front of `buffer`, or nothing while it is not whole.
    pub(super) fn parse(buffer: &mut BytesMut) -> Result<Option<Self>, Violation> {
        let Some(&[first, second]) = buffer.first_chunk::<2>() else {
            return Ok(None);
        };
        let fin = first & 0x80 != 0;
        let opcode = checked_opcode(first, second)?;
        let (extra, shortest) = match second & 0x7f {
            126 => (2, 126),
            127 => (8, 1 << 16),
            _ => (0, 0),
        };
        if buffer.len() < 2 + extra + 4 {
            return Ok(None);
        }
        buffer.advance(2);
        let length = match extra {
            0 => u64::from(second & 0x7f),
            length_bytes => buffer.get_uint(length_bytes),
        };
        if length < shortest || length >> 63 != 0 {
            return Err(Violation::LengthForm);
        }
        let Ok(remaining) = usize::try_from(length) else {
            return Err(Violation::TooLarge);
        };
        let mut mask = [0; 4];
        buffer.copy_to_slice(&mut mask);
        Ok(Some(Self {
            fin,
            opcode,
            mask,
            remaining,
        }))
    }

    /// Whether it is a close, ping or pong, which may stand between the fragments of a message.
    pub(super) const fn is_control(&self) -> bool {
        is_control(self.opcode)
    }

    /// Moves what is there of the payload from `buffer` to the end of `payload`, unmasked.
    pub(super) fn take(&mut self, buffer: &mut BytesMut, payload: &mut BytesMut) {
        let count = self.remaining.min(buffer.len());
        let start = payload.len();
        payload.extend_from_slice(buffer.get(..count).unwrap_or_default());
        fastwebsockets::unmask(payload.get_mut(start..).unwrap_or_default(), self.mask);
        buffer.advance(count);
        self.mask.rotate_left(count % 4);
        self.remaining -= count;
    }
}

/// What the first two bytes alone prove wrong is refused before the rest has come.
fn checked_opcode(first: u8, second: u8) -> Result<OpCode, Violation> {
    if first & 0x70 != 0 {
        return Err(Violation::ReservedBits);
    }
    let Ok(opcode) = OpCode::try_from(first & 0x0f) else {
        return Err(Violation::ReservedOpcode);
    };
    if second & 0x80 == 0 {
        return Err(Violation::Unmasked);
    }
    if is_control(opcode) && first & 0x80 == 0 {
        return Err(Violation::FragmentedControl);
    }
    if is_control(opcode) && usize::from(second & 0x7f) > CONTROL_BYTES {
        return Err(Violation::LongControl);
    }
    Ok(opcode)
}

const fn is_control(opcode: OpCode) -> bool {
    matches!(opcode, OpCode::Close | OpCode::Ping | OpCode::Pong)
}
