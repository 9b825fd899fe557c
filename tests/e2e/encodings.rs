//! Input is read by its meaning in JSON and MessagePack; values that not every reader can decode are refused.

use confab_protocol::wire::msgpack_of_json;
use serde_json::{Value, json};
use tokio::time::{Duration, timeout};

use crate::support::{BINARY_BYTE, CLOSE_BYTE, Cluster, Raw, Setup, User, frame, id_of};

const JSON_SUBPROTOCOL: &str = "confab.v1.json";
const MSGPACK_SUBPROTOCOL: &str = "confab.v1.msgpack";
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);
const MESSAGES_PATH: &str = "/v1/messages";
const ANY_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn small() -> Setup {
    Setup {
        gateways: 1,
        workers: 1,
        ..Setup::default()
    }
}

/// A session's socket of its own bytes.
async fn socket(cluster: &Cluster, user: &User, subprotocol: &str) -> Raw {
    let bearer = [format!("Authorization: Bearer {}", user.token)];
    let mut raw = Raw::upgraded(cluster.gateways[0].port(), subprotocol, &bearer).await;
    if subprotocol == JSON_SUBPROTOCOL {
        raw.text(r#"{"type":"hello"}"#).await;
    } else {
        say(&mut raw, &json!({"type": "hello"}), &[]).await;
    }
    raw.welcome().await;
    raw
}

/// Says a frame in MessagePack, in which `bytes` stand where the text `@@` does.
async fn say(raw: &mut Raw, json: &Value, bytes: &[u8]) {
    let packed = msgpack_of_json(json.to_string().as_bytes()).unwrap();
    let place = packed
        .windows(3)
        .position(|three| three == [0xa2, b'@', b'@']);
    let packed = match place {
        Some(at) => [&packed[..at], bytes, &packed[at + 3..]].concat(),
        None => packed,
    };
    raw.write(&frame(BINARY_BYTE, &packed)).await.unwrap();
}

/// The next frame of a type.
async fn hears(raw: &mut Raw, kind: &str) -> Value {
    let next = async {
        loop {
            let (first, payload) = raw.frame().await.expect("a frame");
            assert_ne!(first, CLOSE_BYTE, "{}", String::from_utf8_lossy(&payload));
            let json = match first {
                BINARY_BYTE => confab_protocol::wire::json_of_msgpack(&payload).unwrap(),
                _ => payload,
            };
            let frame: Value = serde_json::from_slice(&json).unwrap_or_default();
            if frame["type"] == kind {
                return frame;
            }
        }
    };
    timeout(WAIT_TIMEOUT, next).await.expect(kind)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_are_echoed_as_they_were_written() {
    let cluster = Cluster::start(small()).await;
    let alice = cluster.user("alice");
    let path = alice.begins(0, "group", &["bob"]).await;
    let conversation = id_of(&path).to_uppercase();
    let mut raw = socket(&cluster, &alice, JSON_SUBPROTOCOL).await;
    for (form, is_duplicate) in [
        (ANY_ID.to_uppercase(), false),
        (format!("{{{ANY_ID}}}"), true),
        (format!("urn:uuid:{ANY_ID}"), true),
        (ANY_ID.to_owned(), true),
    ] {
        let send = json!({"type": "send", "id": form, "conversationId": conversation, "kind": "text", "content": 1});
        raw.text(&send.to_string()).await;
        let ack = hears(&mut raw, "ack").await;
        assert_eq!(
            (&ack["id"], &ack["duplicate"]),
            (&json!(form), &json!(is_duplicate))
        );
        let mut bad = send;
        bad["kind"] = "nope".into();
        raw.text(&bad.to_string()).await;
        assert_eq!(hears(&mut raw, "error").await["id"], form);

        let message =
            json!({"conversationId": conversation, "clientId": form, "kind": "text", "content": 1});
        let sent = alice.post(0, MESSAGES_PATH, message).await.ok(201);
        assert_eq!(sent["message"]["clientId"], form);
    }
    let mark = json!({"conversationId": conversation, "upToSeq": 2});
    let read = alice.post(0, "/v1/messages/read", mark).await.ok(200);
    assert_eq!(read["read"], json!({ conversation: 2 }));
    // What is stored has one form.
    let log = alice
        .get(0, &format!("{path}/events?after=1"))
        .await
        .ok(200);
    assert_eq!(log.list("events")[0]["data"]["clientId"], ANY_ID);
    drop(raw);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn non_json_messagepack_is_refused_by_field() {
    let cluster = Cluster::start(small()).await;
    let alice = cluster.user("alice");
    let path = alice.begins(0, "group", &["bob"]).await;
    let mut raw = socket(&cluster, &alice, MSGPACK_SUBPROTOCOL).await;
    let send = |content: Value| json!({"type": "send", "id": ANY_ID, "conversationId": id_of(&path), "kind": "text", "content": content});
    let not_a_number = [&[0xcb][..], &f64::NAN.to_be_bytes()].concat();
    for (content, bytes, pointer) in [
        (
            json!({"at": "@@"}),
            &[0xd6, 0xff, 0, 0, 0, 0][..],
            "/content/at",
        ),
        (json!([1, "@@"]), &not_a_number, "/content/1"),
        (json!({"a": {"@@": 1}}), &[7], "/content/a/7"),
        (json!({"raw": "@@"}), &[0xc4, 1, 0], "/content/raw"),
        (json!("@@"), &[0xa1, 0xff], "/content"),
    ] {
        say(&mut raw, &send(content), bytes).await;
        let error = hears(&mut raw, "error").await;
        assert_eq!(
            (&error["id"], &error["errors"][0]["pointer"]),
            (&json!(ANY_ID), &json!(pointer)),
            "{error}"
        );
    }
    let mut sealed = send(Value::Null);
    sealed["encryptedContent"] = "@@".into();
    sealed["payloadSizeBytes"] = 3.into();
    say(&mut raw, &sealed, &[0xc4, 3, 0, 1, 2]).await;
    assert_eq!(hears(&mut raw, "ack").await["id"], ANY_ID);
    let log = alice
        .get(0, &format!("{path}/events?after=1"))
        .await
        .ok(200);
    assert_eq!(log.list("events")[0]["data"]["encryptedContent"], "AAEC");
    drop(raw);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_count_characters_and_not_their_escapes() {
    let cluster = Cluster::start(small()).await;
    let alice = cluster.user("alice");
    let path = alice.begins(0, "group", &["bob"]).await;
    let post = async |content: String| {
        let body = format!(
            r#"{{"conversationId":"{}","kind":"text","content":{content}}}"#,
            id_of(&path)
        );
        alice.write(0, "POST", MESSAGES_PATH, &[], &body).await
    };
    let escaped = |count| format!("\"{}\"", "\\u65e5".repeat(count));
    let plain = |count| "日".repeat(count);
    let sent = post(escaped(21_844)).await.ok(201);
    assert_eq!(sent["message"]["content"], plain(21_844));
    post(escaped(21_845)).await.invalid(&["/content"]);
    for (count, is_shown) in [(340, true), (342, false)] {
        post(escaped(count)).await.ok(201);
        let listed = alice.get(0, "/v1/conversations").await.ok(200);
        let content = &listed.list("conversations")[0]["lastMessage"]["content"];
        let expected = is_shown.then(|| plain(count));
        assert_eq!(content, &json!(expected));
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_readers_would_understand_differently_is_refused() {
    let cluster = Cluster::start(small()).await;
    let alice = cluster.user("alice");
    let path = alice.begins(0, "group", &["bob"]).await;
    let with = |more: &str| {
        format!(
            r#"{{"conversationId":"{}","kind":"text",{more}}}"#,
            id_of(&path)
        )
    };
    for (more, pointer) in [
        (r#""content":{"a":[{"b":1,"\u0062":2}]}"#, "/content/a/0/b"),
        (
            r#""content":1,"metadata":{"m":{"x":1,"x":1}}"#,
            "/metadata/m/x",
        ),
        (r#""content":[18446744073709551617]"#, "/content/0"),
    ] {
        let refused = alice
            .write(0, "POST", MESSAGES_PATH, &[], &with(more))
            .await;
        refused.invalid(&[pointer]);
    }
    let custom = r#"{"metadata":{"custom":{"k":{"x":1,"x":2}}}}"#;
    let refused = alice.write(0, "PATCH", &path, &[], custom).await;
    refused.invalid(&["/metadata/custom/k/x"]);
    let numbers = r#""content":[18446744073709551615,-9223372036854775808,100000000000000000000]"#;
    let sent = alice
        .write(0, "POST", MESSAGES_PATH, &[], &with(numbers))
        .await
        .ok(201);
    assert_eq!(sent["message"]["content"][0], u64::MAX);
    cluster.end().await;
}
