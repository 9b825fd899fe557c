//! A client's messages to frames, in either subprotocol: MessagePack is transcoded, so that one decoder reads both.

use confab_protocol::frame::{BadFrame, ClientFrame};

use super::socket::Message;
use crate::delivery::encoding::Encoding;

/// What a message of a client is.
pub(crate) enum Decoded {
    /// A frame of ours.
    Frame(ClientFrame),
    /// A frame that can be answered with an error.
    Bad(BadFrame),
    /// Text where binary is due, or binary where text is (close code 1003).
    WrongKind,
}

/// Reads a text or binary message.
pub(crate) fn decode(encoding: Encoding, message: &Message) -> Decoded {
    let frame = match (encoding, message) {
        (Encoding::Json, Message::Text(json)) => ClientFrame::decode(json),
        (Encoding::MsgPack, Message::Binary(packed)) => ClientFrame::decode_msgpack(packed),
        _ => return Decoded::WrongKind,
    };
    match frame {
        Ok(frame) => Decoded::Frame(frame),
        Err(bad) => Decoded::Bad(bad),
    }
}
