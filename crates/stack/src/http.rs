use std::io::{Error as IoError, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Error;

/// The answer's status and body to a GET on a port of 127.0.0.1.
///
/// # Errors
/// [`Error::NoAnswer`] when nothing listens, the answer is not HTTP, or `deadline` passes.
pub async fn get(port: u16, path: &str, deadline: Duration) -> Result<(u16, String), Error> {
    get_at((Ipv4Addr::LOCALHOST, port).into(), path, deadline).await
}

/// The same at an address of this host or another.
///
/// # Errors
/// As [`get`].
pub async fn get_at(
    address: SocketAddr,
    path: &str,
    deadline: Duration,
) -> Result<(u16, String), Error> {
    let port = address.port();
    let answer = tokio::time::timeout(deadline, exchange(address, path)).await;
    let answer = answer.unwrap_or_else(|late| Err(IoError::new(ErrorKind::TimedOut, late)));
    answer
        .and_then(|bytes| parse(&bytes))
        .map_err(|source| Error::NoAnswer { port, source })
}

async fn exchange(address: SocketAddr, path: &str) -> Result<Vec<u8>, IoError> {
    /// What a status page may have; more is cut off.
    const MAX_PAGE_BYTES: u64 = 4 * 1024 * 1024;
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_PAGE_BYTES).read_to_end(&mut answer).await?;
    Ok(answer)
}

fn parse(answer: &[u8]) -> Result<(u16, String), IoError> {
    let text = String::from_utf8_lossy(answer);
    let status = text
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok());
    let body = text.split_once("\r\n\r\n").and_then(|(head, body)| {
        let is_chunked = head
            .to_ascii_lowercase()
            .contains("\r\ntransfer-encoding: chunked");
        if is_chunked {
            joined(body)
        } else {
            Some(body.to_owned())
        }
    });
    status
        .zip(body)
        .ok_or_else(|| IoError::new(ErrorKind::InvalidData, "not an HTTP/1.1 answer"))
}

/// A body that came in chunks (RFC 9112, 7.1), which servers make of what is large; none where it is cut off.
fn joined(mut chunks: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, rest) = chunks.split_once("\r\n")?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(rest.get(..size)?);
        chunks = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn chunks_are_joined() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let whole = format!("{head}3\r\n{{\"a\r\n3;x=1\r\n\":1\r\n1\r\n}}\r\n0\r\n\r\n");
        let (_, body) = parse(whole.as_bytes()).unwrap();
        assert_eq!(body, "{\"a\":1}");
        assert!(parse(format!("{head}3\r\n{{\"a\r\n").as_bytes()).is_err());
    }

    #[test]
    fn status_and_body_are_read() {
        assert_eq!(
            parse(b"HTTP/1.1 503 No\r\na: b\r\n\r\nwait").unwrap(),
            (503, "wait".to_owned())
        );
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        for answer in [
            &b""[..],
            b"INFO {}\r\n\r\n",
            b"HTTP/1.1 2",
            b"HTTP/1.1 200 OK\r\n",
        ] {
            assert!(parse(answer).is_err());
        }
    }
}
