//! Frames from the gateway to a client (RFC 6455 section 5.2): built once, unmasked, shared by every socket.

use bytes::{BufMut, Bytes, BytesMut};
use fastwebsockets::{OpCode, Payload};

/// The longest header: two bytes, a length of eight, a mask of four.
const HEADER_BYTES: usize = 14;
/// The longest payload of a control frame, in bytes (RFC 6455 section 5.5).
pub(crate) const CONTROL_BYTES: usize = 125;

/// A whole frame, header and payload in one piece: what it holds may be written to any socket of its encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame(Bytes);

impl Frame {
    /// A text message in one frame; `payload` must be UTF-8, which clients check.
    pub(crate) fn text(payload: &[u8]) -> Self {
        Self::build(OpCode::Text, payload)
    }

    /// A binary message in one frame.
    pub(crate) fn binary(payload: &[u8]) -> Self {
        Self::build(OpCode::Binary, payload)
    }

    /// A ping; of `payload`, which the pong repeats, the first 125 bytes are sent.
    pub(crate) fn ping(payload: &[u8]) -> Self {
        Self::control(OpCode::Ping, payload)
    }

    /// The answer to a ping with this payload, of which the first 125 bytes are sent.
    pub(crate) fn pong(payload: &[u8]) -> Self {
        Self::control(OpCode::Pong, payload)
    }

    /// A close frame. Of `reason` is sent what fits 123 bytes; a code that may not stand on the wire (1005, 1006) is left
    /// out, and the reason with it.
    pub(crate) fn close(code: u16, reason: &str) -> Self {
        if !is_wire_close_code(code) {
            return Self::build(OpCode::Close, &[]);
        }
        let cut = reason.floor_char_boundary(CONTROL_BYTES - 2);
        let mut payload = BytesMut::with_capacity(CONTROL_BYTES);
        payload.put_u16(code);
        payload.put_slice(reason.as_bytes().get(..cut).unwrap_or_default());
        Self::build(OpCode::Close, &payload)
    }

    /// The bytes of the frame, header included.
    pub(crate) fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// What stands behind the header.
    pub(crate) fn payload(&self) -> &[u8] {
        let header = match self.0.get(1) {
            Some(126) => 4,
            Some(127) => 10,
            _ => 2,
        };
        self.0.get(header..).unwrap_or_default()
    }

    /// The bytes of the frame, header included.
    pub(crate) fn into_bytes(self) -> Bytes {
        self.0
    }

    fn control(opcode: OpCode, payload: &[u8]) -> Self {
        Self::build(opcode, payload.get(..CONTROL_BYTES).unwrap_or(payload))
    }

    fn build(opcode: OpCode, payload: &[u8]) -> Self {
        let mut head = [0; HEADER_BYTES];
        let length = fastwebsockets::Frame::new(true, opcode, None, Payload::Borrowed(payload))
            .fmt_head(&mut head);
        let mut bytes = BytesMut::with_capacity(length + payload.len());
        bytes.put_slice(head.get(..length).unwrap_or_default());
        bytes.put_slice(payload);
        Self(bytes.freeze())
    }
}

/// Whether a close frame may carry `code`: RFC 6455 section 7.4, and what IANA registered since (1012 to 1014).
pub(crate) const fn is_wire_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_use_the_shortest_length() {
        assert_eq!(Frame::text(b"Hello").as_bytes()[..], *b"\x81\x05Hello");
        assert_eq!(Frame::binary(&[0; 125]).as_bytes()[..2], [0x82, 125]);
        assert_eq!(
            Frame::binary(&[0; 126]).as_bytes()[..4],
            [0x82, 126, 0, 126]
        );
        assert_eq!(
            Frame::binary(&[0; 65_535]).as_bytes()[..4],
            [0x82, 126, 0xff, 0xff]
        );
        let long = Frame::binary(&vec![7; 65_536]);
        assert_eq!(
            long.as_bytes()[..11],
            [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0, 7]
        );
        assert_eq!(long.as_bytes().len(), 10 + 65_536);
        for length in [0, 125, 126, 65_535, 65_536] {
            assert_eq!(Frame::text(&vec![7; length]).payload(), vec![7; length]);
        }
    }

    #[test]
    fn control_frames_never_exceed_125_bytes() {
        assert_eq!(Frame::ping(&[1; 300]).as_bytes().len(), 2 + 125);
        assert_eq!(Frame::pong(b"x").as_bytes()[..], *b"\x8a\x01x");
        let close = Frame::close(4440, &"ü".repeat(100));
        assert_eq!(close.as_bytes()[..4], [0x88, 124, 0x11, 0x58]);
        assert_eq!(
            str::from_utf8(&close.as_bytes()[4..]).unwrap(),
            "ü".repeat(61)
        );
    }

    #[test]
    fn a_code_that_means_silence_is_not_sent() {
        assert_eq!(Frame::close(1006, "lost").into_bytes()[..], [0x88, 0]);
        assert_eq!(Frame::close(1000, "").into_bytes()[..], [0x88, 2, 3, 0xe8]);
    }
}
