use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const HANDSHAKE_REQUEST: &str = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// "Hello" in a masked text frame (RFC 6455 section 5.7).
const HELLO_FRAME: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
const TEST_SETTINGS: Settings = Settings {
    message_bytes: 1000,
    fragments: 10,
};

/// Runs `client` against a server, which is then stopped and waited for.
async fn with_server<T>(client: impl AsyncFnOnce(TcpStream, CancellationToken) -> T) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let stop = CancellationToken::new();
    let client = async {
        let result = client(stream, stop.clone()).await;
        stop.cancel();
        result
    };
    tokio::join!(client, serve(listener, TEST_SETTINGS, stop.clone())).0
}

/// Reads the head of an HTTP answer, and not a byte behind it.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn frames_sent_with_request_are_echoed() {
    with_server(async |mut stream, _| {
        stream
            .write_all(&[HANDSHAKE_REQUEST.as_bytes(), HELLO_FRAME, HELLO_FRAME].concat())
            .await
            .unwrap();
        assert!(head(&mut stream).await.starts_with("HTTP/1.1 101 "));
        let mut heard = [0; 14];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, *b"\x81\x05Hello\x81\x05Hello");
    })
    .await;
}

#[tokio::test]
async fn violation_is_closed_with_code_and_reason() {
    with_server(async |mut stream, _| {
        let too_large = [0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0];
        stream
            .write_all(&[HANDSHAKE_REQUEST.as_bytes(), &too_large, &[0; 4]].concat())
            .await
            .unwrap();
        head(&mut stream).await;
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"\x88\x13\x03\xf1PAYLOAD_TOO_LARGE");
    })
    .await;
}

#[tokio::test]
async fn another_version_is_answered_426_with_ours() {
    with_server(async |mut stream, _| {
        let request = HANDSHAKE_REQUEST.replace("Version: 13", "Version: 12");
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = head(&mut stream).await.to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 426 "), "{head}");
        assert!(head.contains("\r\nsec-websocket-version: 13\r\n"), "{head}");
    })
    .await;
}

#[tokio::test]
async fn a_stop_is_told_to_clients() {
    with_server(async |mut stream, stop| {
        stream
            .write_all(HANDSHAKE_REQUEST.as_bytes())
            .await
            .unwrap();
        head(&mut stream).await;
        stop.cancel();
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, [0x88, 2, 0x03, 0xe9]);
        stream.write_all(b"\x88\x80mask").await.unwrap();
        assert_eq!(stream.read(&mut heard).await.unwrap(), 0);
    })
    .await;
}
