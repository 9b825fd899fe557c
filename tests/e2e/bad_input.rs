//! Invalid client input gets an error frame or a close code that says why.

use serde_json::{Value, json};
use tokio::time::{Duration, Instant, timeout};

use crate::support::{
    BINARY_BYTE, CLOSE_BYTE, Cluster, Ended, Raw, Setup, TEXT_BYTE, frame, frame_head,
};

mod nul;
mod slow;

const JSON_SUBPROTOCOL: &str = "confab.v1.json";
const MSGPACK_SUBPROTOCOL: &str = "confab.v1.msgpack";
/// The largest frame, in bytes.
const MAX_FRAME_BYTES: usize = 512 * 1024;
/// The largest frame of a socket that has not said its token.
const MAX_HELLO_BYTES: usize = 24 * 1024;
/// What the two systems' socket buffers may take before a client notices that nobody reads, in bytes.
const IN_BUFFERS: usize = 16 * 1024 * 1024;
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);
/// A text frame's first byte without FIN: more fragments follow.
const TEXT_BEGUN: u8 = 0x01;
/// That of a further fragment, and of the last one.
const CONTINUATION_BYTE: u8 = 0x00;
const LAST_FRAGMENT_BYTE: u8 = 0x80;
/// A ping's.
const PING_BYTE: u8 = 0x89;
/// A pong's.
const PONG_BYTE: u8 = 0x8a;

fn small(gateway_env: Vec<(&'static str, Option<String>)>) -> Setup {
    Setup {
        gateways: 1,
        workers: 1,
        gateway_env,
        ..Setup::default()
    }
}

fn bearer(cluster: &Cluster) -> [String; 1] {
    [format!(
        "Authorization: Bearer {}",
        cluster.user("mallory").token
    )]
}

/// A socket that was welcomed.
async fn welcomed(cluster: &Cluster) -> Raw {
    let port = cluster.gateways[0].port();
    let mut raw = Raw::upgraded(port, JSON_SUBPROTOCOL, &bearer(cluster)).await;
    raw.text(r#"{"type":"hello"}"#).await;
    assert_welcome(&raw.welcome().await);
    raw
}

fn assert_welcome(payload: &[u8]) {
    let welcome: Value = serde_json::from_slice(payload).unwrap();
    assert_eq!(welcome["type"], "welcome");
}

/// A socket that has said nothing yet, and carried no token.
async fn silent(cluster: &Cluster) -> Raw {
    Raw::upgraded(cluster.gateways[0].port(), JSON_SUBPROTOCOL, &[]).await
}

async fn ended(mut raw: Raw) -> Ended {
    timeout(WAIT_TIMEOUT, raw.ended())
        .await
        .expect("the connection's end")
}

async fn assert_lives(raw: &mut Raw) {
    raw.text(r#"{"type":"ping","id":"still here"}"#).await;
    assert_eq!(
        raw.json().await,
        json!({"type": "pong", "id": "still here"})
    );
}

/// What breaks RFC 6455, and the close code that it gets.
fn violations() -> Vec<(&'static str, Vec<u8>, u16)> {
    let unmasked = vec![TEXT_BYTE, 2, b'{', b'}'];
    let long_form = [&[TEXT_BYTE, 0x80 | 126, 0, 2][..], &[0; 4], b"{}"].concat();
    let negative = [&[TEXT_BYTE, 0x80 | 127, 0x80][..], &[0; 7], &[0; 4]].concat();
    let two = |first: &[u8], second: &[u8]| [first, second].concat();
    let cut = "é".as_bytes()[..1].to_vec();
    vec![
        ("an unmasked frame", unmasked, 1002),
        ("a reserved bit", frame(TEXT_BYTE | 0x40, b"{}"), 1002),
        ("a reserved opcode", frame(0x83, b""), 1002),
        ("a reserved control opcode", frame(0x8b, b""), 1002),
        ("a length not in its shortest form", long_form, 1002),
        ("a length with its highest bit", negative, 1002),
        ("a fragmented ping", frame(0x09, b""), 1002),
        ("a long ping", frame(PING_BYTE, &[b'x'; 126]), 1002),
        (
            "a stray continuation",
            frame(LAST_FRAGMENT_BYTE, b"{}"),
            1002,
        ),
        (
            "a message inside another",
            two(&frame(TEXT_BEGUN, b"{"), &frame(TEXT_BYTE, b"{}")),
            1002,
        ),
        ("a close code of one byte", frame(CLOSE_BYTE, &[3]), 1002),
        (
            "a close code that may not be sent",
            frame(CLOSE_BYTE, &1006_u16.to_be_bytes()),
            1002,
        ),
        (
            "text that is not UTF-8",
            frame(TEXT_BYTE, b"{\"type\":\"\xff\"}"),
            1007,
        ),
        ("text cut inside a character", frame(TEXT_BYTE, &cut), 1007),
        (
            "a close reason that is not UTF-8",
            frame(CLOSE_BYTE, b"\x03\xe8\xff"),
            1007,
        ),
        ("binary where text is due", frame(BINARY_BYTE, b"{}"), 1003),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protocol_violation_closes_with_code_around_hello() {
    let cluster = Cluster::start(small(Vec::new())).await;
    let mut bystander = welcomed(&cluster).await;
    for (what, bytes, code) in violations() {
        for mut raw in [silent(&cluster).await, welcomed(&cluster).await] {
            raw.write(&bytes).await.unwrap();
            assert_eq!(ended(raw).await.code(), Some(code), "{what}");
        }
    }
    let mut packed = Raw::upgraded(
        cluster.gateways[0].port(),
        MSGPACK_SUBPROTOCOL,
        &bearer(&cluster),
    )
    .await;
    packed.text(r#"{"type":"hello"}"#).await;
    assert_eq!(
        ended(packed).await.code(),
        Some(1003),
        "text where binary is due"
    );
    assert_lives(&mut bystander).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frame_above_limit_closes_early_with_1009() {
    let cluster = Cluster::start(small(Vec::new())).await;
    let token = cluster.user("mallory").token;
    let mut largest = silent(&cluster).await;
    let hello = json!({"type": "hello", "token": token}).to_string();
    largest.text(&padded(&hello, MAX_HELLO_BYTES)).await;
    assert_eq!(largest.json().await["type"], "welcome");
    largest
        .text(&padded(r#"{"type":"ping"}"#, MAX_FRAME_BYTES))
        .await;
    assert_eq!(largest.json().await["type"], "pong");

    let early = Raw::upgraded(
        cluster.gateways[0].port(),
        JSON_SUBPROTOCOL,
        &bearer(&cluster),
    )
    .await;
    let announced = [
        (
            "without a token",
            silent(&cluster).await,
            MAX_HELLO_BYTES + 1,
        ),
        ("with one in the header", early, MAX_FRAME_BYTES + 1),
        ("welcomed", welcomed(&cluster).await, MAX_FRAME_BYTES + 1),
        (
            "beyond any memory",
            welcomed(&cluster).await,
            usize::MAX / 2,
        ),
    ];
    for (what, mut raw, length) in announced {
        raw.write(&[&frame_head(TEXT_BYTE, length)[..], &[0; 4]].concat())
            .await
            .unwrap();
        let close = ended(raw).await.close;
        assert_eq!(
            close,
            Some((1009, "PAYLOAD_TOO_LARGE".to_owned())),
            "{what}"
        );
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_fragmented_message_closes_with_1009() {
    let cluster = Cluster::start(small(Vec::new())).await;
    for (fragment, before_hello) in [(7, true), (0, true), (200, false), (1, false), (0, false)] {
        let mut raw = if before_hello {
            silent(&cluster).await
        } else {
            welcomed(&cluster).await
        };
        raw.write(&frame(TEXT_BEGUN, b"")).await.unwrap();
        let more = frame(CONTINUATION_BYTE, &vec![b' '; fragment]).repeat(64);
        let written = without_end(&mut raw, &more).await;
        assert_eq!(
            ended(raw).await.code(),
            Some(1009),
            "fragments of {fragment}"
        );
        assert!(written <= IN_BUFFERS, "{written} bytes were taken");
    }
    cluster.end().await;
}

/// JSON followed by spaces, `bytes` long.
fn padded(json: &str, bytes: usize) -> String {
    json.to_owned() + &" ".repeat(bytes - json.len())
}

/// Writes the same again and again until the gateway speaks; gives how many bytes it took until then.
async fn without_end(raw: &mut Raw, bytes: &[u8]) -> usize {
    let until = Instant::now() + WAIT_TIMEOUT;
    let mut written = 0;
    while !raw.has_answer() {
        assert!(Instant::now() < until, "{written} bytes were taken");
        if raw.write(bytes).await.is_err() {
            break;
        }
        written += bytes.len();
    }
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragmented_frames_with_interleaved_pings_are_read() {
    let cluster = Cluster::start(small(Vec::new())).await;
    let alice = cluster.user("alice");
    let conversation = alice
        .on(0)
        .await
        .create_group(std::slice::from_ref(&alice.id))
        .await;
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let hello = json!({"type": "hello", "token": alice.token}).to_string();
    let send = json!({
        "type": "send", "id": id, "conversationId": conversation, "kind": "text", "content": "é".repeat(70),
    });
    let send = send.to_string();
    let mut raw = silent(&cluster).await;

    drip(&mut raw, &frame(TEXT_BYTE, hello.as_bytes())).await;
    assert_welcome(&raw.welcome().await);
    let (first, last) = send.as_bytes().split_at(send.len() / 2);
    let parts = [
        frame(TEXT_BEGUN, first),
        frame(PING_BYTE, b"between"),
        frame(LAST_FRAGMENT_BYTE, last),
    ];
    drip(&mut raw, &parts.concat()).await;

    assert_eq!(raw.frame().await, Some((PONG_BYTE, b"between".to_vec())));
    let mut heard = [raw.json().await, raw.json().await];
    heard.sort_by_key(|frame| frame["type"].to_string());
    assert_eq!(
        heard.each_ref().map(|frame| &frame["type"]),
        ["ack", "message.created"]
    );
    assert_eq!((&heard[0]["id"], &heard[0]["seq"]), (&json!(id), &json!(2)));
    cluster.end().await;
}

/// Each byte is a packet of its own.
async fn drip(raw: &mut Raw, bytes: &[u8]) {
    for byte in bytes {
        raw.write(std::slice::from_ref(byte)).await.unwrap();
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenth_bad_frame_within_minute_closes_connection() {
    let cluster = Cluster::start(small(Vec::new())).await;
    let mut raw = welcomed(&cluster).await;
    let bad = [
        ("", Value::Null),
        ("{", Value::Null),
        ("[]", Value::Null),
        ("{}", Value::Null),
        (r#"{"type":"nope","id":"a"}"#, json!("a")),
        (r#"{"type":"ping","id":"b","typo":1}"#, json!("b")),
        (r#"{"type":"ping","id":"c","id":"d"}"#, Value::Null),
        (r#"{"type":"hello","id":"e"}"#, json!("e")),
        (
            r#"{"type":"send","id":"f","kind":"text","content":1,"sender":"bob"}"#,
            json!("f"),
        ),
    ];
    for (text, id) in &bad {
        raw.text(text).await;
        let error = raw.json().await;
        assert_eq!(
            (&error["type"], &error["id"]),
            (&json!("error"), id),
            "{text}"
        );
        assert_eq!(error["code"], "VALIDATION_ERROR", "{text}");
        assert_lives(&mut raw).await;
    }
    raw.text("the tenth").await;
    let end = ended(raw).await;
    assert_eq!(end.before[0]["code"], "VALIDATION_ERROR");
    assert_eq!(end.close, Some((4400, "BAD_FRAMES".to_owned())));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn non_hello_first_frame_closes_with_4400() {
    let cluster = Cluster::start(small(Vec::new())).await;
    let first = [
        "{",
        r#"{"type":"ping"}"#,
        r#"{"type":"hello","typo":1}"#,
        r#"{"type":"bye"}"#,
    ];
    for text in first {
        let early = Raw::upgraded(
            cluster.gateways[0].port(),
            JSON_SUBPROTOCOL,
            &bearer(&cluster),
        )
        .await;
        for mut raw in [silent(&cluster).await, early] {
            raw.text(text).await;
            let end = ended(raw).await;
            assert_eq!(end.before[0]["code"], "VALIDATION_ERROR", "{text}");
            assert_eq!(end.code(), Some(4400), "{text}");
        }
    }
    let mut raw = welcomed(&cluster).await;
    raw.text(r#"{"type":"bye"}"#).await;
    assert_eq!(ended(raw).await.code(), Some(1000), "a good end");
    cluster.end().await;
}
