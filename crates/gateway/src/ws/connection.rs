//! A socket with what waits for it, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use confab_protocol::chain::chain;
use confab_protocol::error::{Code, Failure};
use confab_protocol::frame::{ErrorFrame, ServerFrame, Welcome};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tracing::{debug, warn};
use uuid::Uuid;

use super::Sockets;
use super::codec::{Decoded, decode};
use super::socket::{self, Message, ReadError, Reader, Writer};
use crate::delivery::encoding::Encoding;
use crate::delivery::encoding::encode;
use crate::delivery::frames::Frame;
use crate::delivery::send_queue::SendQueue;

/// How long the closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// What one write takes at most, in bytes.
const MAX_WRITE_BYTES: usize = 128 * 1024;

/// A socket with what waits for it.
pub(super) struct Connection {
    pub(super) reader: Reader<OwnedReadHalf>,
    pub(super) writer: Writer<OwnedWriteHalf>,
    pub(super) encoding: Encoding,
    pub(super) send_queue: Arc<SendQueue>,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With a close frame of the gateway's.
    Close(u16, &'static str),
    /// The client closed.
    Closed,
    /// The connection is lost.
    Lost,
}

impl End {
    pub(super) const fn of(code: Code) -> Self {
        Self::Close(code.close_code(), code.as_str())
    }

    pub(super) const fn wrong_kind() -> Self {
        Self::Close(1003, Code::Validation.as_str())
    }
}

impl From<&ReadError> for End {
    fn from(error: &ReadError) -> Self {
        match error {
            ReadError::Violation(_) => Self::Close(error.close_code(), error.code().as_str()),
            ReadError::Io(_) => Self::Lost,
            ReadError::Ended => Self::Closed,
        }
    }
}

impl Connection {
    /// Puts the welcome before whatever waits already.
    pub(super) fn welcome(&self, welcome: Welcome) {
        let welcome = ServerFrame::Welcome(Box::new(welcome));
        match encode(self.encoding, &welcome) {
            Ok(frame) => {
                self.send_queue
                    .metrics()
                    .told(&welcome, frame.as_bytes().len());
                self.send_queue.start(frame);
            }
            Err(error) => warn!(error = %chain(&error), "a welcome cannot be encoded"),
        }
    }

    pub(super) fn answer(&self, frame: &ServerFrame) {
        match encode(self.encoding, frame) {
            Ok(encoded) => {
                self.send_queue
                    .metrics()
                    .told(frame, encoded.as_bytes().len());
                self.send_queue.push_answer(encoded);
            }
            Err(error) => warn!(error = %chain(&error), "an answer cannot be encoded"),
        }
    }

    /// Reads a small frame, and counts it.
    pub(super) fn decode(&self, message: &Message) -> Decoded {
        let decoded = decode(self.encoding, message);
        self.heard(&decoded, message.payload_bytes());
        decoded
    }

    /// Counts a frame that was read.
    pub(super) fn heard(&self, decoded: &Decoded, bytes: usize) {
        let frame = match decoded {
            Decoded::Frame(frame) => Some(frame),
            Decoded::Bad(_) | Decoded::WrongKind => None,
        };
        self.send_queue.metrics().heard(frame, bytes);
    }

    pub(super) fn answer_error(&self, id: Option<String>, failure: Failure) {
        self.answer(&ServerFrame::Error(ErrorFrame::new(
            id,
            failure,
            Uuid::now_v7().to_string(),
        )));
    }

    /// Writes the answers that still wait, and closes.
    pub(super) async fn end(mut self, sockets: &Sockets, end: End) {
        sockets.metrics.ended(match end {
            End::Close(code, _) => code,
            End::Closed => 1000,
            End::Lost => 1006,
        });
        let frame = match end {
            End::Close(code, reason) => Frame::close(code, reason),
            End::Closed => Frame::close(1000, ""),
            End::Lost => return,
        };
        let Self {
            send_queue, writer, ..
        } = &mut self;
        // One that was closed has nothing more.
        let _closed = send_queue.take(usize::MAX, |frame| writer.push(frame));
        if !socket::close(&mut self.reader, &mut self.writer, frame, CLOSE_TIMEOUT).await {
            debug!("the client did not close in time");
        }
    }
}

/// Writes what is queued, and what is added meanwhile, while the socket accepts it without blocking: a session that only receives is
/// then woken for its frames alone. Cancel-safe.
pub(super) async fn pump(
    send_queue: &SendQueue,
    writer: &mut Writer<OwnedWriteHalf>,
    meanwhile: Meanwhile,
) -> Result<(), End> {
    if writer.stalled_since().is_some() {
        // The caller looks at the stall timer after each partial write: a client that reads slowly is not stalled.
        return writer.write_some().await.map_err(|_lost| End::Lost);
    }
    loop {
        send_queue.ready().await;
        let taken = send_queue.take(MAX_WRITE_BYTES, |frame| writer.push(frame));
        taken.map_err(End::of)?;
        let all = writer.write_now().await.map_err(|_lost| End::Lost)?;
        if !all || meanwhile == Meanwhile::ReadingWaits || send_queue.has_room_again() {
            return Ok(());
        }
    }
}

/// Whether the socket is read while it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meanwhile {
    Reading,
    /// Not before some of what waits is written.
    ReadingWaits,
}
