//! Bytes to frames and back.

use bytes::Bytes;
use confab_bus::feed::FeedEvent;

use crate::delivery::encoding::Encoding;
use crate::delivery::sequencer::LogEvent;
use crate::ws::codec::{Decoded, decode};
use crate::ws::socket::Message;

/// A subprotocol.
#[derive(Debug, Clone, Copy)]
pub struct Codec(Encoding);

impl Codec {
    /// JSON in text frames.
    pub const JSON: Self = Self(Encoding::Json);
    /// MessagePack in binary frames.
    pub const MSGPACK: Self = Self(Encoding::MsgPack);

    /// Builds the frame of an event as all sockets share it; gives its length.
    #[must_use]
    pub fn frame(self, event: &FeedEvent) -> usize {
        let event = LogEvent::from(event);
        event.body.frame(self.0).as_bytes().len()
    }
}

/// A message that a client sent.
#[derive(Debug, Clone)]
pub struct Received(Encoding, Message);

impl Received {
    /// Text, in JSON.
    #[must_use]
    pub const fn json(text: Bytes) -> Self {
        Self(Encoding::Json, Message::Text(text))
    }

    /// MessagePack.
    #[must_use]
    pub const fn msgpack(bytes: Bytes) -> Self {
        Self(Encoding::MsgPack, Message::Binary(bytes))
    }

    /// Reads its frame; says whether it is one.
    #[must_use]
    pub fn decode(&self) -> bool {
        matches!(decode(self.0, &self.1), Decoded::Frame(_))
    }
}
