use bytes::Bytes;
use tokio::io::{AsyncWriteExt, duplex};

use super::super::error::Violation;
use super::super::testing::*;
use super::*;

#[tokio::test]
async fn frames_that_arrive_byte_by_byte_are_read() {
    let (mut client, server) = duplex(1);
    let mut reader = Reader::new(server, b"", ROOMY_LIMITS);
    let bytes = [
        more(TEXT_OPCODE, &[b'a'; 300]),
        last(PING_OPCODE, b"!"),
        last(CONTINUATION_OPCODE, b"b"),
    ]
    .concat();
    let sending = async {
        for byte in &bytes {
            client.write_all(&[*byte]).await.unwrap();
        }
    };
    let reading = async {
        assert_eq!(
            reader.next().await.unwrap(),
            Message::Ping(Bytes::from("!"))
        );
        let Message::Text(text) = reader.next().await.unwrap() else {
            panic!("no text")
        };
        assert_eq!(text.len(), 301);
    };
    tokio::join!(sending, reading);
}

#[tokio::test]
async fn what_was_read_ahead_comes_first() {
    let (mut client, server) = duplex(64);
    let bytes = last(TEXT_OPCODE, b"Hello");
    let (ahead, rest) = bytes.split_at(3);
    let mut reader = Reader::new(server, ahead, ROOMY_LIMITS);
    client.write_all(rest).await.unwrap();
    assert_eq!(
        reader.next().await.unwrap(),
        Message::Text(Bytes::from("Hello"))
    );
}

#[tokio::test]
async fn a_cancelled_read_loses_nothing() {
    let (mut client, server) = duplex(64);
    let mut reader = Reader::new(server, b"", ROOMY_LIMITS);
    for byte in last(BINARY_OPCODE, &[9; 40]) {
        client.write_all(&[byte]).await.unwrap();
        tokio::select! {
            biased;
            message = reader.next() => {
                assert_eq!(message.unwrap(), Message::Binary(Bytes::from(vec![9; 40])));
                return;
            }
            () = std::future::ready(()) => {}
        }
    }
    panic!("no message came");
}

#[tokio::test]
async fn an_idle_connection_holds_no_buffer() {
    let (mut client, server) = duplex(1 << 20);
    let mut reader = Reader::new(server, b"", ROOMY_LIMITS);
    client
        .write_all(&last(BINARY_OPCODE, &vec![1; 500_000]))
        .await
        .unwrap();
    assert!(matches!(reader.next().await, Ok(Message::Binary(_))));
    tokio::select! {
        biased;
        message = reader.next() => panic!("{message:?} was not sent"),
        () = std::future::ready(()) => assert_eq!(reader.buffer.capacity(), 0),
    }
}

#[tokio::test]
async fn limits_grow_while_running() {
    let (mut client, server) = duplex(1 << 16);
    let mut reader = Reader::new(server, b"", Limits::bytes(10));
    client
        .write_all(&last(BINARY_OPCODE, &[1; 10]))
        .await
        .unwrap();
    assert!(matches!(reader.next().await, Ok(Message::Binary(_))));
    reader.set_limits(Limits::bytes(20));
    client
        .write_all(&last(BINARY_OPCODE, &[1; 20]))
        .await
        .unwrap();
    assert!(matches!(reader.next().await, Ok(Message::Binary(_))));
    client
        .write_all(&last(BINARY_OPCODE, &[1; 21]))
        .await
        .unwrap();
    assert_eq!(reader.next().await.unwrap_err().close_code(), 1009);
}

#[tokio::test]
async fn nothing_is_read_after_close_or_violation() {
    for (first, is_close) in [(last(CLOSE_OPCODE, b""), true), (last(3, b""), false)] {
        let mut reader = Reader::new(
            tokio::io::empty(),
            &[first, last(TEXT_OPCODE, b"x")].concat(),
            ROOMY_LIMITS,
        );
        match reader.next().await {
            Ok(Message::Close { code: None, .. }) => assert!(is_close),
            Err(ReadError::Violation(Violation::ReservedOpcode)) => assert!(!is_close),
            other => panic!("{other:?}"),
        }
        assert!(matches!(reader.next().await, Err(ReadError::Ended)));
    }
}

#[tokio::test]
async fn an_end_inside_a_frame_is_an_end() {
    let half = &last(TEXT_OPCODE, b"Hello")[..8];
    let mut reader = Reader::new(half, b"", ROOMY_LIMITS);
    let error = reader.next().await.unwrap_err();
    assert!(matches!(error, ReadError::Ended));
    assert_eq!(error.close_code(), 1006);
}
