//! Frames as a client builds them, and as it should not.

use super::decoder::{Decoder, Limits, Message};
use super::error::Violation;

pub(super) const CONTINUATION_OPCODE: u8 = 0;
pub(super) const TEXT_OPCODE: u8 = 1;
pub(super) const BINARY_OPCODE: u8 = 2;
pub(super) const CLOSE_OPCODE: u8 = 8;
pub(super) const PING_OPCODE: u8 = 9;
pub(super) const PONG_OPCODE: u8 = 10;
/// Bounds that no test reaches by accident.
pub(super) const ROOMY_LIMITS: Limits = Limits::bytes(1 << 20);

const MASK_KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A whole message, or the last fragment of one, masked.
pub(super) fn last(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(0x80 | opcode, payload)
}

/// A fragment that others follow, masked.
pub(super) fn more(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(opcode, payload)
}

/// A masked frame with this first byte, in the shortest form.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        short @ ..126 => bytes.push(0x80 | u8::try_from(short).unwrap()),
        medium @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(medium).unwrap().to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK_KEY);
    bytes.extend(
        payload
            .iter()
            .zip(MASK_KEY.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

/// All messages of `bytes`, given in pieces of `piece` bytes, and what ended them.
pub(super) fn decode_in(
    piece: usize,
    bytes: &[u8],
    limits: Limits,
) -> (Vec<Message>, Option<Violation>) {
    let mut decoder = Decoder::new(limits);
    let mut buffer = bytes::BytesMut::new();
    let mut messages = Vec::new();
    for chunk in bytes.chunks(piece) {
        buffer.extend_from_slice(chunk);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(close @ Message::Close { .. })) => {
                    messages.push(close);
                    return (messages, None);
                }
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(violation) => return (messages, Some(violation)),
            }
        }
    }
    (messages, None)
}

pub(super) fn decode(bytes: &[u8]) -> (Vec<Message>, Option<Violation>) {
    decode_in(usize::MAX, bytes, ROOMY_LIMITS)
}
