use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, duplex};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Takes at most `at_most` bytes at once, and remembers how much it was offered and took.
#[derive(Debug, Clone, Default)]
struct Stingy {
    at_most: usize,
    writes: Arc<Mutex<Vec<usize>>>,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl AsyncWrite for Stingy {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = buf.len().min(self.at_most);
        self.writes.lock().unwrap().push(count);
        self.bytes.lock().unwrap().extend(&buf[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = bufs
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        self.poll_write(cx, &all)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn frames(count: usize) -> Vec<Frame> {
    (0..count)
        .map(|number| Frame::text(format!("message {number}").as_bytes()))
        .collect()
}

fn bytes_of(frames: &[Frame]) -> Vec<u8> {
    frames
        .iter()
        .flat_map(|frame| frame.as_bytes().to_vec())
        .collect()
}

#[tokio::test]
async fn frames_that_wait_go_out_in_one_write() {
    let io = Stingy {
        at_most: usize::MAX,
        ..Stingy::default()
    };
    let mut writer = Writer::new(io.clone());
    let frames = frames(50);
    writer.write(frames.clone()).await.unwrap();
    assert_eq!(*io.writes.lock().unwrap(), [bytes_of(&frames).len()]);
}

#[tokio::test]
async fn partial_writes_keep_every_byte_in_order() {
    for at_most in [1, 2, 7, 100] {
        let io = Stingy {
            at_most,
            ..Stingy::default()
        };
        let mut writer = Writer::new(io.clone());
        let frames = frames(150);
        writer.write(frames.clone()).await.unwrap();
        assert_eq!(*io.bytes.lock().unwrap(), bytes_of(&frames));
        assert_eq!(writer.taken(), bytes_of(&frames).len() as u64);
        assert_eq!(writer.waiting.capacity(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn peer_is_stalled_since_last_read() {
    let (mut client, server) = duplex(8);
    let mut writer = Writer::new(server);
    tokio::time::advance(Duration::from_secs(100)).await;
    assert_eq!(writer.stalled_since(), None);

    let offered = Instant::now();
    let write = writer.write([Frame::binary(&[1; 20])]);
    assert!(
        tokio::time::timeout(Duration::from_secs(5), write)
            .await
            .is_err()
    );
    assert_eq!((writer.taken(), writer.stalled_since()), (8, Some(offered)));

    client.read_exact(&mut [0; 4]).await.unwrap();
    let taken = Instant::now();
    assert!(
        tokio::time::timeout(Duration::from_secs(5), writer.flush())
            .await
            .is_err()
    );
    assert_eq!((writer.taken(), writer.stalled_since()), (12, Some(taken)));
}

#[tokio::test]
async fn a_cancelled_write_goes_on_where_it_stopped() {
    let (mut client, server) = duplex(8);
    let mut writer = Writer::new(server);
    let frames = frames(3);
    tokio::select! {
        biased;
        _ = writer.write(frames.clone()) => panic!("the peer has no room"),
        () = std::future::ready(()) => {}
    }
    let mut heard = vec![0; bytes_of(&frames).len()];
    let (written, read) = tokio::join!(writer.flush(), client.read_exact(&mut heard));
    written.unwrap();
    read.unwrap();
    assert_eq!(heard, bytes_of(&frames));
    assert_eq!(writer.stalled_since(), None);
}

#[tokio::test]
async fn a_slow_tcp_peer_gets_everything() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (server, _) = listener.accept().await.unwrap();
    let (_reader, mut writer) =
        super::super::split(server, b"", super::super::Limits::bytes(1)).unwrap();
    let frames = vec![Frame::binary(&[7; 10_000]); 2000];
    let expected = bytes_of(&frames);
    let reading = async {
        let mut heard: Vec<u8> = Vec::new();
        let mut chunk = [0; 3000];
        while heard.len() < expected.len() {
            let count = client.read(&mut chunk).await.unwrap();
            heard.extend(&chunk[..count]);
            tokio::task::yield_now().await;
        }
        heard
    };
    let (written, heard) = tokio::join!(writer.write(frames), reading);
    written.unwrap();
    assert!(heard == expected);
    assert_eq!(writer.taken(), expected.len() as u64);
}

#[tokio::test]
async fn a_lost_connection_is_an_error() {
    let (client, server) = duplex(8);
    drop(client);
    assert!(Writer::new(server).write(frames(1)).await.is_err());
}

#[tokio::test]
async fn untaken_bytes_wait() {
    let (ours, mut theirs) = duplex(16);
    let mut writer = Writer::new(ours);
    let frames = frames(3);
    for frame in &frames {
        writer.push(frame.clone());
    }
    assert!(!writer.write_now().await.unwrap());
    assert!(writer.stalled_since().is_some());
    let mut taken = vec![0; bytes_of(&frames).len()];
    let (flushed, read) = tokio::join!(writer.flush(), theirs.read_exact(&mut taken));
    flushed.unwrap();
    read.unwrap();
    assert_eq!(taken, bytes_of(&frames));
    writer.push(frames[0].clone());
    assert!(writer.write_now().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn slow_reader_is_not_stalled() {
    let (ours, mut theirs) = duplex(16);
    let mut writer = Writer::new(ours);
    writer.push(Frame::binary(&[0; 100]));
    assert!(!writer.write_now().await.unwrap());
    let mut before = writer.stalled_since();
    for _ in 0..5 {
        tokio::time::advance(Duration::from_secs(10)).await;
        theirs.read_exact(&mut [0; 16]).await.unwrap();
        writer.write_some().await.unwrap();
        assert!(writer.stalled_since() > before);
        before = writer.stalled_since();
    }
}
