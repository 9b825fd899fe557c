//! The reading half: one message after another, with memory only while bytes are there.

use std::future::poll_fn;
use std::io;
use std::pin::pin;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::decoder::{Decoder, Limits, Message};
use super::error::ReadError;

/// Room for a read, in bytes: many small frames at once.
const CHUNK_BYTES: usize = 4 * 1024;
/// Room for a read inside a frame known to be long.
const LARGE_CHUNK: usize = 32 * 1024;

/// The reading half of a socket. While nothing comes it holds no buffer: an idle connection costs a few dozen bytes here.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    io: R,
    buffer: BytesMut,
    decoder: Decoder,
    is_over: bool,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// A reader of `io`, from `read_ahead` on.
    pub(crate) fn new(io: R, read_ahead: &[u8], limits: Limits) -> Self {
        Self {
            io,
            buffer: BytesMut::from(read_ahead),
            decoder: Decoder::new(limits),
            is_over: false,
        }
    }

    /// Other bounds, from the next frame on.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.decoder.limits = limits;
    }

    /// The next message. Cancel-safe: what was read stays in the reader, so it may be an arm of a `select!`.
    ///
    /// # Errors
    /// When the client broke the protocol or a bound, or the connection ended; from then on, and after a close, always.
    pub(crate) async fn next(&mut self) -> Result<Message, ReadError> {
        if self.is_over {
            return Err(ReadError::Ended);
        }
        let result = self.read_message().await;
        self.is_over = matches!(result, Err(_) | Ok(Message::Close { .. }));
        result
    }

    async fn read_message(&mut self) -> Result<Message, ReadError> {
        loop {
            if let Some(message) = self.decoder.decode(&mut self.buffer)? {
                return Ok(message);
            }
            if self.fill().await? == 0 {
                return Err(ReadError::Ended);
            }
        }
    }

    /// Reads and forgets until the client's stream ends.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(super) async fn drain(&mut self) -> io::Result<()> {
        self.is_over = true;
        loop {
            self.buffer.clear();
            if self.fill().await? == 0 {
                return Ok(());
            }
        }
    }

    /// One read, into a buffer that is given back whenever there is nothing to put into it.
    async fn fill(&mut self) -> io::Result<usize> {
        let room = self.decoder.wanted().clamp(CHUNK_BYTES, LARGE_CHUNK);
        poll_fn(|cx| {
            self.buffer.reserve(room);
            let read = pin!(self.io.read_buf(&mut self.buffer)).poll(cx);
            if read.is_pending() && self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
            read
        })
        .await
    }
}

#[cfg(test)]
mod tests;
