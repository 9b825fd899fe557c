//! Senders change many messages at both gateways while others read.

use std::collections::BTreeMap;
use std::time::Duration;

use confab_protocol::event::{Event, EventType, MessageEdited};
use confab_protocol::ids::{ConversationId, EventId, Seq};
use confab_protocol::json::JsonText;
use confab_protocol::resource::{Message, MessageContent};
use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Cluster, Member, Setup, User, soak, text};

const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_edits_and_deletions_converge_for_all() {
    let cluster = Cluster::start(Setup::default()).await;
    let users = ["alice", "bob", "carol"].map(|name| cluster.user(name));
    let mut members = Vec::new();
    for (number, user) in users.iter().enumerate() {
        members.push(user.on(number % 2).await);
    }
    let ids: Vec<_> = members.iter().map(|member| member.id.clone()).collect();
    let conversation = members[0].create_group(&ids).await;
    let each = soak(150, 15);
    let both = members.iter().zip(&users);
    let writers = both.map(|(member, user)| write(member, user, conversation, each));
    join_all(writers).await;

    let log = members[0].http.events(conversation, 0).await.unwrap();
    let head = log.last().unwrap().seq;
    let told = messages_of(&log);
    assert_eq!(told.len(), 3 * each);
    for member in &members {
        member.hears(conversation, head, ARRIVAL_TIMEOUT).await;
        let history = member.http.history(conversation).await.unwrap();
        assert!(history.iter().eq(told.values()));
        for message in told.values() {
            let alone = member.http.message(message.id).await.unwrap();
            assert_eq!(&alone, message);
        }
        // What was heard while it happened ends as the log has it.
        let record = member.record.borrow();
        let heard = &record.events[&conversation];
        let seqs: Vec<Seq> = heard.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, (1..=head).collect::<Vec<_>>());
        assert_eq!(applied(heard), told, "{}", member.id);
    }
    for (gateway, user) in users.iter().take(2).enumerate() {
        let late = user.comes_late(conversation, gateway).await;
        assert_eq!(late, log);
    }
    drop(members);
    cluster.end().await;
}

/// Sends messages and changes each: an edit, two edits, a deletion, an edit and a deletion, or nothing.
async fn write(member: &Member, user: &User, conversation: ConversationId, count: usize) {
    for number in 0..count {
        let words = format!("{} {number}", user.id);
        let sent = member.session.send(conversation, text(&words)).await;
        let id = sent.unwrap().message_id;
        let edits = [1, 2, 0, 1, 0][number % 5];
        // Two at once, at two gateways: either comes first.
        join_all((0..edits).map(|edit| edit_once(user, id, number + edit))).await;
        if [false, false, true, true, false][number % 5] {
            let deleted = user.http(number % 2).delete_message(id).await;
            deleted.unwrap();
        }
    }
}

async fn edit_once(user: &User, id: EventId, number: usize) {
    let words = json!({ "text": format!("edit {number} by {}", user.id) });
    let content = MessageContent {
        content: Some(JsonText::of(&words).unwrap()),
        encrypted_content: None,
        payload_size_bytes: None,
    };
    let edited = user.http(number % 2).edit_message(id, &content).await;
    edited.unwrap();
}

/// The messages as the log tells them; each edit in it tells its message as it is now as well.
fn messages_of(log: &[Event]) -> BTreeMap<Seq, Message> {
    let messages: BTreeMap<Seq, Message> = log
        .iter()
        .filter(|event| event.r#type == EventType::MessageCreated)
        .map(|event| {
            (
                event.seq,
                serde_json::from_str(event.data.as_str()).unwrap(),
            )
        })
        .collect();
    for event in log.iter().filter(|e| e.r#type == EventType::MessageEdited) {
        let edited: MessageEdited = serde_json::from_str(event.data.as_str()).unwrap();
        let message: Message = serde_json::from_str(edited.message.as_str()).unwrap();
        assert_eq!(message, messages[&edited.target_seq]);
    }
    messages
}

/// What a client has that applies the events as it hears them.
fn applied(heard: &[Event]) -> BTreeMap<Seq, Message> {
    let mut messages: BTreeMap<Seq, Message> = BTreeMap::new();
    for event in heard {
        match event.r#type {
            EventType::MessageCreated => {
                let message = serde_json::from_str(event.data.as_str()).unwrap();
                messages.insert(event.seq, message);
            }
            EventType::MessageEdited => {
                let edited: MessageEdited = serde_json::from_str(event.data.as_str()).unwrap();
                let message = serde_json::from_str(edited.message.as_str()).unwrap();
                messages.insert(edited.target_seq, message);
            }
            EventType::MessageDeleted => {
                let data: confab_protocol::event::MessageDeleted =
                    serde_json::from_str(event.data.as_str()).unwrap();
                let message = messages.get_mut(&data.target_seq).unwrap();
                // It may have been told as deleted before.
                message.version += u64::from(message.deleted_at.is_none());
                message.content = None;
                message.encrypted_content = None;
                message.payload_size_bytes = None;
                message.metadata = JsonText::empty_object();
                message.deleted_at = Some(data.deleted_at);
            }
            EventType::ConversationCreated
            | EventType::ConversationUpdated
            | EventType::ConversationDeleted
            | EventType::ParticipantAdded
            | EventType::ParticipantUpdated
            | EventType::ParticipantRemoved => {}
        }
    }
    messages
}
