//! Edits, deletions and read marks over the WebSocket keep the order of the connection's sends.

use std::time::Duration;

use confab_client::SendError;
use confab_protocol::error::Code;
use confab_protocol::event::{Event, EventType};
use confab_protocol::ids::{ClientId, EventId};
use confab_protocol::json::JsonText;
use confab_protocol::resource::MessageContent;
use futures_util::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{CLOSE_BYTE, Cluster, Raw, Setup, TEXT_BYTE, frame, text};

const WAIT_TIMEOUT: Duration = Duration::from_secs(10);

fn small() -> Setup {
    Setup {
        gateways: 1,
        workers: 1,
        ..Setup::default()
    }
}

fn content(words: &str) -> MessageContent {
    MessageContent {
        content: Some(JsonText::of(&json!({ "text": words })).unwrap()),
        encrypted_content: None,
        payload_size_bytes: None,
    }
}

fn code<T: std::fmt::Debug>(answer: Result<T, SendError>) -> Code {
    match answer {
        Err(SendError::Refused(error)) => error.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_and_deletions_keep_connection_order() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice").on(0).await;
    let bob = cluster.user("bob").on(1).await;
    let conversation = alice.create_group(std::slice::from_ref(&bob.id)).await;
    let session = &alice.session;
    for round in 0..5 {
        let target = session.send(conversation, text("draft")).await.unwrap();
        let send = async |words: &str| {
            let id = ClientId(Uuid::now_v7());
            let pending = session.submit(id, conversation, text(words)).await;
            pending.unwrap().ack().await.unwrap().seq
        };
        let edit = |words: &str| session.edit(conversation, target.message_id, content(words));
        let delete = session.delete(conversation, target.message_id);

        let (a, edited, b, again, deleted, c) = tokio::join!(
            send("before"),
            edit("first"),
            send("between"),
            edit("second"),
            delete,
            send("behind"),
        );

        let (edited, again, deleted) = (edited.unwrap(), again.unwrap(), deleted.unwrap());
        let seqs = [a, edited.seq, b, again.seq, deleted.seq, c];
        let from = target.seq + 1;
        assert_eq!(
            seqs.to_vec(),
            (from..from + 6).collect::<Vec<_>>(),
            "{round}"
        );
        assert_eq!(edited.message_id, target.message_id);
        bob.hears(conversation, c, WAIT_TIMEOUT).await;
    }
    let record = bob.record.borrow();
    let of = |kind: EventType| {
        let events = &record.events[&conversation];
        events.iter().filter(|event| event.r#type == kind).count()
    };
    assert_eq!(of(EventType::MessageEdited), 10);
    assert_eq!(of(EventType::MessageDeleted), 5);
    drop(record);
    drop((alice, bob));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forbidden_edit_delete_or_read_returns_code() {
    let cluster = Cluster::start(small()).await;
    let alice = cluster.user("alice").on(0).await;
    let bob = cluster.user("bob").on(0).await;
    let eve = cluster.user("eve").on(0).await;
    let conversation = alice.create_group(std::slice::from_ref(&bob.id)).await;
    let other = alice.create_group(std::slice::from_ref(&bob.id)).await;
    let sent = alice
        .session
        .send(conversation, text("mine"))
        .await
        .unwrap();
    let message = sent.message_id;

    let edit = bob.session.edit(conversation, message, content("his"));
    assert_eq!(code(edit.await), Code::InsufficientPermissions);
    let delete = bob.session.delete(conversation, message);
    assert_eq!(code(delete.await), Code::InsufficientPermissions);
    let worker_retry = alice.session.edit(other, message, content("there"));
    assert_eq!(code(worker_retry.await), Code::MessageNotFound);
    let unknown = EventId(Uuid::now_v7());
    let unknown = alice.session.delete(conversation, unknown);
    assert_eq!(code(unknown.await), Code::MessageNotFound);
    let stranger = eve.session.edit(conversation, message, content("hers"));
    assert_eq!(code(stranger.await), Code::ConversationNotFound);
    let stranger = eve.session.read(conversation, 1);
    assert_eq!(code(stranger.await), Code::ConversationNotFound);

    drop((alice, bob, eve));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_read_marks_coalesce_and_never_regress() {
    let cluster = Cluster::start(small()).await;
    let alice = cluster.user("alice").on(0).await;
    let bob = cluster.user("bob").on(0).await;
    let conversation = alice.create_group(std::slice::from_ref(&bob.id)).await;
    let mut last = 0;
    for number in 0..20 {
        last = alice.say(conversation, &format!("word {number}")).await;
    }

    let marks = (0..500).map(|n| n % (last + 5));
    let asked = marks.map(async |seq| (seq, bob.session.read(conversation, seq).await.unwrap()));
    for (asked, stands) in join_all(asked).await {
        assert!(stands >= asked.min(last), "{stands} for {asked}");
        assert!(stands <= last, "above the head");
    }

    assert_eq!(bob.session.read(conversation, 1).await, Ok(last));
    let seen = bob.http.conversation(conversation).await.unwrap();
    assert_eq!(seen.conversation.last_read_seq, Some(last));
    let metrics = bob.http.raw("GET", "/metrics", &[], "").await.unwrap();
    let metrics = String::from_utf8(metrics.body).unwrap();
    let writes = metrics.lines().filter(|line| {
        line.starts_with("confab_gateway_commands_total") && line.contains("mark_read")
    });
    let writes = writes.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    let writes: u64 = writes.sum();
    assert!((1..250).contains(&writes), "{writes} writes for 501 marks");
    drop((alice, bob));
    cluster.end().await;
}

/// The acks of the frames that come until the close frame, and its code.
async fn acks_until_close(raw: &mut Raw) -> (usize, Option<u16>) {
    let mut acks = 0;
    while let Some((first, payload)) = raw.frame().await {
        match first {
            CLOSE_BYTE => {
                let code = payload.first_chunk().copied().map(u16::from_be_bytes);
                return (acks, code);
            }
            TEXT_BYTE => {
                let frame: Value = serde_json::from_slice(&payload).unwrap();
                acks += usize::from(frame["type"] == "ack");
            }
            _ => {}
        }
    }
    (acks, None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_before_close_are_stored_and_acknowledged() {
    const SEND_COUNT: usize = 20;
    let cluster = Cluster::start(small()).await;
    let alice = cluster.user("alice").on(0).await;
    let token = cluster.user("alice").token;
    let bearer = [format!("Authorization: Bearer {token}")];
    for end in [
        frame(TEXT_BYTE, br#"{"type":"bye"}"#),
        frame(CLOSE_BYTE, &1000_u16.to_be_bytes()),
    ] {
        let conversation = alice.create_group(std::slice::from_ref(&alice.id)).await;
        let port = cluster.gateways[0].port();
        let mut raw = Raw::upgraded(port, "confab.v1.json", &bearer).await;
        raw.text(r#"{"type":"hello"}"#).await;
        let (_, welcome) = raw.frame().await.unwrap();
        assert!(welcome.starts_with(br#"{"type":"welcome""#));

        // All in one write, so that the gateway has read the end before it has any answer.
        let mut bytes = Vec::new();
        for n in 0..SEND_COUNT {
            let send = json!({
                "type": "send", "id": Uuid::now_v7(), "conversationId": conversation,
                "kind": "text", "content": n,
            });
            bytes.extend(frame(TEXT_BYTE, send.to_string().as_bytes()));
        }
        bytes.extend(end);
        raw.write(&bytes).await.unwrap();

        assert_eq!(acks_until_close(&mut raw).await, (SEND_COUNT, Some(1000)));
        let log = alice.http.events(conversation, 0).await.unwrap();
        let is_message = |event: &&Event| event.r#type == EventType::MessageCreated;
        assert_eq!(log.iter().filter(is_message).count(), SEND_COUNT);
    }
    drop(alice);
    cluster.end().await;
}
