//! The two encodings of a WebSocket's messages, and how a frame of the gateway's own is written in each.

use confab_protocol::frame::ServerFrame;
use confab_protocol::wire;

use super::frames::Frame;

/// The encoding of messages in frames; each is a subprotocol (docs/protocol/websocket.md, "Handshake").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Encoding {
    /// `confab.v1.json`: text frames.
    Json,
    /// `confab.v1.msgpack`: binary frames.
    MsgPack,
}

impl Encoding {
    pub(crate) const fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "confab.v1.json",
            Self::MsgPack => "confab.v1.msgpack",
        }
    }

    pub(crate) fn of_subprotocol(name: &str) -> Option<Self> {
        [Self::Json, Self::MsgPack]
            .into_iter()
            .find(|encoding| encoding.subprotocol() == name)
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
