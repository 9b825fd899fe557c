//! The bytes of one WebSocket: messages out of what a client sends, built frames into what its socket takes.
//!
//! The two halves share nothing, so each has one owner and neither waits for the other.

mod close;
mod decoder;
mod error;
mod header;
mod reader;
#[cfg(test)]
mod testing;
mod writer;

use std::io;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

pub(crate) use close::close;
pub(crate) use decoder::{Limits, Message};
pub(crate) use error::ReadError;
pub(crate) use reader::Reader;
pub(crate) use writer::Writer;

/// What the kernel may hold for a client that does not read, in bytes. Small, since progress is measured by what it takes.
const SEND_BUFFER: usize = 64 * 1024;

/// The two halves of an upgraded connection; `read_ahead` is what the HTTP parser had read behind the request.
///
/// # Errors
/// When the kernel refuses the socket's options: the connection is gone.
pub(crate) fn split(
    stream: TcpStream,
    read_ahead: &[u8],
    limits: Limits,
) -> io::Result<(Reader<OwnedReadHalf>, Writer<OwnedWriteHalf>)> {
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER)?;
    let (read, write) = stream.into_split();
    Ok((Reader::new(read, read_ahead, limits), Writer::new(write)))
}
