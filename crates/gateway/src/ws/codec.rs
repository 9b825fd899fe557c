//! Bytes to frames and back, in either subprotocol: MessagePack is transcoded, so that one decoder reads both.

use std::sync::OnceLock;

use confab_protocol::chain::chain;
use confab_protocol::frame::{BadFrame, ClientFrame, ServerFrame};
use confab_protocol::wire;

use super::frames::Frame;
use super::socket::Message;
use super::upgrade::Encoding;

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

/// Writes a frame of the gateway's own.
///
/// # Errors
/// Never for frames made by the protocol's types.
pub(crate) fn encode(encoding: Encoding, frame: &ServerFrame) -> Result<Frame, wire::WireError> {
    let json = frame.encode()?;
    Ok(match encoding {
        Encoding::Json => Frame::text(json.as_bytes()),
        Encoding::MsgPack => Frame::binary(&wire::msgpack_of_json(json.as_bytes())?),
    })
}

/// An event or signal on its way to many sockets: each encoding's frame is built once, the binary one when the first socket
/// needs it.
#[derive(Debug)]
pub(crate) struct Broadcast {
    text: Frame,
    binary: OnceLock<Frame>,
}

impl Broadcast {
    /// What goes as this JSON, which is copied: a part of a large buffer does not keep that alive.
    pub(crate) fn new(json: &[u8]) -> Self {
        Self {
            text: Frame::text(json),
            binary: OnceLock::new(),
        }
    }

    /// The JSON.
    pub(crate) fn json(&self) -> &[u8] {
        self.text.payload()
    }

    /// The frame of an encoding; clones share its bytes.
    pub(crate) fn frame(&self, encoding: Encoding) -> Frame {
        match encoding {
            Encoding::Json => self.text.clone(),
            Encoding::MsgPack => self.binary.get_or_init(|| self.packed()).clone(),
        }
    }

    fn packed(&self) -> Frame {
        match wire::msgpack_of_json(self.json()) {
            Ok(packed) => Frame::binary(&packed),
            Err(error) => {
                tracing::error!(error = %chain(&error), "an event has no MessagePack form");
                Frame::binary(&[0xc0])
            }
        }
    }
}
