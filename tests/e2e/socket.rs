//! Over the socket: edits, deletions and read marks, in order with what the connection sends.

use std::time::Duration;

use confab_client::SendError;
use confab_protocol::error::Code;
use confab_protocol::event::EventType;
use confab_protocol::ids::{ClientId, EventId};
use confab_protocol::json::JsonText;
use confab_protocol::resource::MessageContent;
use futures_util::future::join_all;
use serde_json::json;
use uuid::Uuid;

use crate::support::{Cluster, Setup, text};

const SOON: Duration = Duration::from_secs(10);

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
async fn edits_and_deletions_stand_where_they_were_sent_among_the_connections_sends() {
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
        bob.hears(conversation, c, SOON).await;
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
async fn who_may_not_edit_delete_or_read_is_answered_with_the_code() {
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
    let elsewhere = alice.session.edit(other, message, content("there"));
    assert_eq!(code(elsewhere.await), Code::MessageNotFound);
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
async fn read_marks_sent_at_once_are_few_writes_that_cover_all_and_never_go_back() {
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
