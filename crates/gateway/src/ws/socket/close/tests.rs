use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::time::Instant;

use super::super::testing::*;
use super::*;

const TEST_TIMEOUT: Duration = Duration::from_secs(5);

type Halves = (
    Reader<ReadHalf<DuplexStream>>,
    Writer<WriteHalf<DuplexStream>>,
);

fn connection() -> (DuplexStream, Halves) {
    let (client, server) = duplex(1024);
    let (read, write) = split(server);
    (
        client,
        (Reader::new(read, b"", ROOMY_LIMITS), Writer::new(write)),
    )
}

#[tokio::test]
async fn a_client_that_answers_ends_cleanly() {
    let (mut client, (mut reader, mut writer)) = connection();
    let client = async {
        let mut heard = [0; 4];
        client.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, [0x88, 2, 0x03, 0xe9]);
        client
            .write_all(&last(TEXT_OPCODE, b"was on its way"))
            .await
            .unwrap();
        client
            .write_all(&last(CLOSE_OPCODE, &[0x03, 0xe9]))
            .await
            .unwrap();
        assert_eq!(client.read(&mut heard).await.unwrap(), 0);
        client.shutdown().await.unwrap();
    };
    let server = close(
        &mut reader,
        &mut writer,
        Frame::close(1001, ""),
        TEST_TIMEOUT,
    );
    assert!(tokio::join!(server, client).0);
}

#[tokio::test]
async fn a_client_that_broke_the_protocol_hears_why() {
    let (mut client, (mut reader, mut writer)) = connection();
    let client = async {
        client.write_all(&last(3, b"")).await.unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, [0x88, 2, 0x03, 0xea]);
        drop(client);
    };
    let server = async {
        let error = reader.next().await.unwrap_err();
        let frame = Frame::close(error.close_code(), "");
        close(&mut reader, &mut writer, frame, TEST_TIMEOUT).await
    };
    assert!(tokio::join!(server, client).0);
}

#[tokio::test(start_paused = true)]
async fn silent_client_is_waited_for_until_timeout() {
    let (_client, (mut reader, mut writer)) = connection();
    let before = Instant::now();
    assert!(
        !close(
            &mut reader,
            &mut writer,
            Frame::close(1001, ""),
            TEST_TIMEOUT
        )
        .await
    );
    assert_eq!(before.elapsed(), TEST_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn stalled_client_is_waited_for_until_timeout() {
    let (_client, (mut reader, mut writer)) = connection();
    writer.push(Frame::binary(&[0; 4096]));
    let before = Instant::now();
    assert!(
        !close(
            &mut reader,
            &mut writer,
            Frame::close(4440, ""),
            TEST_TIMEOUT
        )
        .await
    );
    assert_eq!(before.elapsed(), TEST_TIMEOUT);
}
