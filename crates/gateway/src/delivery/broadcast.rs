//! An event on its way to many sockets: each encoding's frame is built once.

use std::sync::OnceLock;

use confab_protocol::chain::chain;
use confab_protocol::wire;

use super::encoding::Encoding;
use super::frames::Frame;

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
