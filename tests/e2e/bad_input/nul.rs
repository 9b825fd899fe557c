//! U+0000 and lone surrogates are refused in every field and fail no other send.

use confab_client::Response;
use confab_protocol::ids::ConversationId;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{MSGPACK_SUBPROTOCOL, bearer};
use crate::support::{
    BINARY_BYTE, Cluster, Member, Owed, Raw, Setup, TEXT_BYTE, assert_log, frame,
};

const ANY_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
/// What stands in the fields, as JSON escapes.
const BAD_ESCAPES: [&str; 3] = ["\\u0000", "\\ud800", "x\\udc00x"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u0000_fails_validation_and_concurrent_sends_commit() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice").on(0).await;
    let bob = cluster.user("bob").on(1).await;
    let mallory = cluster.user("mallory").on(0).await;
    let others = [bob.id.clone(), mallory.id.clone()];
    let conversation = alice.create_group(&others).await;
    let (done, poisoned) = watch::channel(false);

    let poison = async {
        over_http(&cluster, &mallory, conversation).await;
        over_websocket(&cluster, conversation).await;
        over_msgpack(&cluster, conversation).await;
        done.send_replace(true);
    };
    let ((), sent, posted) = tokio::join!(
        poison,
        talk(&alice, conversation, &poisoned, true),
        talk(&bob, conversation, &poisoned, false),
    );

    let members = [Owed::all(&alice), Owed::all(&bob), Owed::all(&mallory)];
    assert_log(&cluster, conversation, &members).await;
    let history = alice.http.history(conversation).await.unwrap();
    assert_eq!(
        history.len(),
        sent + posted,
        "only what the others said is stored"
    );
    let listed = mallory
        .http
        .conversations(100, None)
        .await
        .unwrap()
        .conversations;
    assert_eq!(listed.len(), 1, "nothing was created");
    drop((alice, bob, mallory));
    cluster.end().await;
}

/// Sends on and on, each acknowledged, until the others are done; gives how many were sent.
async fn talk(
    member: &Member,
    conversation: ConversationId,
    done: &watch::Receiver<bool>,
    over_websocket: bool,
) -> usize {
    let mut count = 0;
    while !*done.borrow() {
        let words = format!("word {count}");
        if over_websocket {
            member.say(conversation, &words).await;
        } else {
            member.post(conversation, &words).await;
        }
        count += 1;
    }
    count
}

async fn over_http(cluster: &Cluster, mallory: &Member, conversation: ConversationId) {
    let bearer = format!("Bearer {}", cluster.user("mallory").token);
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];
    for poison in BAD_ESCAPES {
        for (path, body) in bodies(conversation, poison) {
            let answer = mallory
                .http
                .raw("POST", &path, &headers, body.clone())
                .await;
            assert_refused(&answer.unwrap(), &body);
        }
    }
    for (path, name) in paths(conversation) {
        let path = format!("{path}?{name}=a%00");
        let answer = mallory.http.raw("GET", &path, &headers, "").await.unwrap();
        assert_refused(&answer, &path);
    }
}

fn assert_refused(answer: &Response, what: &str) {
    let problem: Value = answer.json().unwrap();
    assert_eq!(
        (answer.status, &problem["code"]),
        (400, &json!("VALIDATION_ERROR")),
        "{what}: {problem}"
    );
    assert!(!problem["errors"].as_array().unwrap().is_empty(), "{what}");
}

/// Every query parameter that is text.
fn paths(conversation: ConversationId) -> Vec<(String, &'static str)> {
    let history = format!("/v1/conversations/{conversation}/messages");
    let of_history = [
        "limit", "before", "after", "cursor", "sender", "kind", "from", "to",
    ];
    let of_list = ["limit", "cursor", "type", "order"];
    let history = of_history.map(|name| (history.clone(), name));
    let list = of_list.map(|name| ("/v1/conversations".to_owned(), name));
    history.into_iter().chain(list).collect()
}

/// Every text field of every body, good but for the poison.
fn bodies(conversation: ConversationId, poison: &str) -> Vec<(String, String)> {
    let members = format!("/v1/conversations/{conversation}/participants");
    let creations = [
        r#"{"type":"group","participants":["P"]}"#,
        r#"{"type":"groupP","participants":["bob"]}"#,
        r#"{"type":"group","participants":["bob"],"metadata":{"name":"P"}}"#,
        r#"{"type":"group","participants":["bob"],"metadata":{"description":"P"}}"#,
        r#"{"type":"group","participants":["bob"],"metadata":{"avatar":"https://confab.test/P"}}"#,
        r#"{"type":"group","participants":["bob"],"metadata":{"custom":{"a":["P"]}}}"#,
        r#"{"type":"group","participants":["bob"],"metadata":{"custom":{"P":1}}}"#,
        r#"{"type":"group","participants":["bob"],"P":1}"#,
    ];
    let additions = [
        r#"{"userId":"P"}"#,
        r#"{"userId":"carol","role":"memberP"}"#,
        r#"{"participants":[{"userId":"carol"},{"userId":"daveP"}]}"#,
    ];
    let fill = |body: &str| body.replace('P', poison);
    let messages = messages(poison).into_iter().map(|fields| {
        (
            "/v1/messages".to_owned(),
            format!(r#"{{"conversationId":"{conversation}",{fields}}}"#),
        )
    });
    creations
        .map(|body| ("/v1/conversations".to_owned(), fill(body)))
        .into_iter()
        .chain(additions.map(|body| (members.clone(), fill(body))))
        .chain(messages)
        .chain([("/v1/messages".to_owned(), fill(r#"{"conversationId":"P","kind":"text","content":1}"#))])
        .chain([("/v1/messages".to_owned(), format!(
            r#"{{"conversationId":"{conversation}","clientId":"{ANY_ID}{poison}","kind":"text","content":1}}"#
        ))])
        .collect()
}

/// The fields of a message, the same over HTTP and in a frame.
fn messages(poison: &str) -> Vec<String> {
    let messages = [
        r#""kind":"textP","content":1"#,
        r#""kind":"x-P","content":1"#,
        r#""kind":"text","content":"P""#,
        r#""kind":"text","content":{"a":[1,{"b":"P"}]}"#,
        r#""kind":"text","content":{"P":1}"#,
        r#""kind":"text","encryptedContent":"P""#,
        r#""kind":"text","content":1,"metadata":{"a":"P"}"#,
        r#""kind":"text","content":1,"metadata":{"P":"a"}"#,
        r#""kind":"text","content":1,"replyTo":"P""#,
        r#""kind":"text","content":1,"P":1"#,
    ];
    messages.map(|fields| fields.replace('P', poison)).into()
}

/// Each on a connection of its own: ten bad frames would end it.
async fn over_websocket(cluster: &Cluster, conversation: ConversationId) {
    for poison in BAD_ESCAPES {
        for fields in messages(poison) {
            let send = format!(
                r#"{{"type":"send","id":"{ANY_ID}","conversationId":"{conversation}",{fields}}}"#
            );
            assert_answered(cluster, &send).await;
        }
        let frames = [
            r#"{"type":"ping","id":"P"}"#,
            r#"{"type":"pingP"}"#,
            r#"{"type":"send","id":"P","conversationId":"C","kind":"text","content":1}"#,
            r#"{"type":"send","id":"01890a5d-ac96-774b-bcce-b302099a8057","conversationId":"CP","kind":"text","content":1}"#,
            r#"{"type":"seen","positions":{"CP":1}}"#,
        ];
        for text in frames {
            let text = text
                .replace('C', &conversation.to_string())
                .replace('P', poison);
            assert_answered(cluster, &text).await;
        }
        for field in [
            r#""id":"P""#,
            r#""resumeToken":"P""#,
            r#""token":"P""#,
            r#""client":{"name":"P","version":null}"#,
        ] {
            assert_no_hello(
                cluster,
                &format!(r#"{{"type":"hello",{}}}"#, field.replace('P', poison)),
            )
            .await;
        }
    }
}

async fn assert_answered(cluster: &Cluster, text: &str) {
    let mut raw = super::welcomed(cluster).await;
    raw.write(&frame(TEXT_BYTE, text.as_bytes())).await.unwrap();
    let mut answer = raw.json().await;
    // The socket hears what the others say meanwhile.
    while answer["type"] == "message.created" {
        answer = raw.json().await;
    }
    assert_eq!(
        (&answer["type"], &answer["code"]),
        (&json!("error"), &json!("VALIDATION_ERROR")),
        "{text}"
    );
}

async fn assert_no_hello(cluster: &Cluster, text: &str) {
    let mut raw = super::silent(cluster).await;
    raw.text(text).await;
    let end = super::ended(raw).await;
    assert_eq!(end.before[0]["code"], "VALIDATION_ERROR", "{text}");
    assert_eq!(end.code(), Some(4400), "{text}");
}

/// In MessagePack a text holds U+0000 as it is.
async fn over_msgpack(cluster: &Cluster, conversation: ConversationId) {
    let conversation = conversation.to_string();
    for (kind, content) in [("text\0", "a"), ("text", "a\0")] {
        let port = cluster.gateways[0].port();
        let mut raw = Raw::upgraded(port, MSGPACK_SUBPROTOCOL, &bearer(cluster)).await;
        raw.write(&frame(BINARY_BYTE, &packed(&[("type", "hello")])))
            .await
            .unwrap();
        assert!(contains(&raw.welcome().await, "welcome"));
        let send = [
            ("type", "send"),
            ("id", ANY_ID),
            ("conversationId", &conversation),
            ("kind", kind),
            ("content", content),
        ];
        raw.write(&frame(BINARY_BYTE, &packed(&send)))
            .await
            .unwrap();
        let mut answer = raw.frame().await.unwrap().1;
        while contains(&answer, "message.created") {
            answer = raw.frame().await.unwrap().1;
        }
        assert!(contains(&answer, "VALIDATION_ERROR"));
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

/// A map of short texts: a fixmap of str 8.
fn packed(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| {
        [
            &[0xd9, u8::try_from(text.len()).unwrap()][..],
            text.as_bytes(),
        ]
        .concat()
    };
    let mut bytes = vec![0x80 | u8::try_from(fields.len()).unwrap()];
    for (name, value) in fields {
        bytes.extend([text(name), text(value)].concat());
    }
    bytes
}
