//! The end of a connection in order (RFC 6455 section 7.1).

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::reader::Reader;
use super::writer::Writer;
use crate::delivery::frames::Frame;

/// Sends a close frame behind what waits, lets the client answer it, ends the stream and waits for the client's end, all
/// within `patience`; whether the client kept up its side. Dropping the halves afterwards frees the socket either way.
///
/// Waiting for the end matters also where the client broke the protocol: a socket closed over unread bytes is reset, and
/// a reset may overtake the close frame, so that the client never learns why.
pub(crate) async fn close<R, W>(
    reader: &mut Reader<R>,
    writer: &mut Writer<W>,
    frame: Frame,
    patience: Duration,
) -> bool
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let ended = timeout(patience, async {
        writer.write([frame]).await?;
        while reader.next().await.is_ok() {}
        writer.shutdown().await?;
        reader.drain().await
    });
    matches!(ended.await, Ok(io::Result::Ok(())))
}

#[cfg(test)]
mod tests;
