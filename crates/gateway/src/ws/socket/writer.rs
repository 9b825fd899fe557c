//! The writing half: all frames that wait go out in one write, and the peer's taking is measured.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use crate::delivery::frames::Frame;

/// Frames handed to the kernel at once; it takes 1,024 at most, and 64 small ones fill a packet many times over.
const FRAMES_PER_WRITE: usize = 64;
/// Places kept for waiting frames while none waits.
const PLACES_KEPT: usize = 4;

/// The writing half of a socket. It has no timeout: who owns it looks at [`Writer::stalled_since`].
#[derive(Debug)]
pub(crate) struct Writer<W> {
    io: W,
    waiting: VecDeque<Bytes>,
    taken: u64,
    /// When the peer last took bytes, or began to be offered some.
    progress_at: Instant,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// A writer to `io`.
    pub(crate) fn new(io: W) -> Self {
        Self {
            io,
            waiting: VecDeque::new(),
            taken: 0,
            progress_at: Instant::now(),
        }
    }

    /// Puts `frames` behind those that wait, and writes all of them: [`Writer::push`] and [`Writer::flush`].
    ///
    /// # Errors
    /// When the connection is lost.
    pub(crate) async fn write(
        &mut self,
        frames: impl IntoIterator<Item = Frame>,
    ) -> io::Result<()> {
        for frame in frames {
            self.push(frame);
        }
        self.flush().await
    }

    /// Puts a frame behind those that wait, without writing.
    pub(crate) fn push(&mut self, frame: Frame) {
        if self.waiting.is_empty() {
            self.progress_at = Instant::now();
        }
        self.waiting.push_back(frame.into_bytes());
    }

    /// Writes until nothing waits. Cancel-safe: what was not taken yet, the rest of a frame included, goes on waiting.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            let count = poll_fn(|cx| self.poll_write(cx)).await?;
            self.advance(count);
        }
        self.give_places_back();
        self.io.flush().await
    }

    /// Waits until the kernel takes some of what waits. Cancel-safe, as [`Self::flush`] is, whose caller does not hear of progress before
    /// all is taken.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(crate) async fn write_some(&mut self) -> io::Result<()> {
        let count = poll_fn(|cx| self.poll_write(cx)).await?;
        self.advance(count);
        if self.waiting.is_empty() {
            self.give_places_back();
        }
        Ok(())
    }

    /// Writes what the kernel takes without waiting; says whether nothing waits any more.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(crate) async fn write_now(&mut self) -> io::Result<bool> {
        while !self.waiting.is_empty() {
            let wrote = poll_fn(|cx| Poll::Ready(self.poll_write(cx))).await;
            let Poll::Ready(count) = wrote else {
                return Ok(false);
            };
            self.advance(count?);
        }
        self.give_places_back();
        Ok(true)
    }

    fn give_places_back(&mut self) {
        if self.waiting.capacity() > PLACES_KEPT {
            self.waiting = VecDeque::new();
        }
    }

    /// Bytes that the kernel took in all.
    pub(crate) const fn taken(&self) -> u64 {
        self.taken
    }

    /// Since when the peer has taken nothing, though something waits for it.
    pub(crate) fn stalled_since(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.progress_at)
    }

    /// Ends the stream towards the peer, which may still send.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        self.io.shutdown().await
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Mostly there is one, which needs no list.
        if self.waiting.len() == 1
            && let Some(frame) = self.waiting.front()
        {
            return written(ready!(Pin::new(&mut self.io).poll_write(cx, frame))?);
        }
        let mut slices = [IoSlice::new(&[]); FRAMES_PER_WRITE];
        for (slice, frame) in slices.iter_mut().zip(&self.waiting) {
            *slice = IoSlice::new(frame);
        }
        let count = self.waiting.len().min(FRAMES_PER_WRITE);
        let slices = slices.get(..count).unwrap_or_default();
        written(ready!(
            Pin::new(&mut self.io).poll_write_vectored(cx, slices)
        )?)
    }

    fn advance(&mut self, mut count: usize) {
        self.taken += count as u64;
        self.progress_at = Instant::now();
        while let Some(frame) = self.waiting.front_mut() {
            if count < frame.len() {
                frame.advance(count);
                return;
            }
            count -= frame.len();
            self.waiting.pop_front();
        }
    }
}

/// What was written; nothing means that nothing more can be.
fn written(count: usize) -> Poll<io::Result<usize>> {
    match count {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        count => Poll::Ready(Ok(count)),
    }
}

#[cfg(test)]
mod tests;
