//! Answers are bounded in bytes: pages of the largest items are split and complete.

use confab_client::{MessageFilter, NewConversation, NewMessage};
use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::json::JsonText;
use confab_protocol::resource::{ConversationType, Message, MessageBody};
use serde_json::json;

use crate::support::{Cluster, Setup, User, soak};

/// The most that a page may take (a little more than an answer of a worker and its last element).
const MAX_PAGE_BYTES: usize = 2 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_largest_messages_and_events_add_up() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let conversation = group(&alice, &json!({})).await;
    let count = soak(100, 24);
    let mut sent: Vec<Message> = Vec::new();
    for number in 0..count {
        let message = NewMessage {
            conversation_id: conversation,
            client_id: None,
            body: largest(number),
        };
        let answer = alice.http(number % 2).send_message(&message).await;
        let stored = answer.unwrap().answer;
        assert_eq!(stored.content, message.body.content);
        assert_eq!(stored.encrypted_content, message.body.encrypted_content);
        sent.push(stored);
    }

    let read = history(&alice, conversation, &MessageFilter::default()).await;
    assert!(read.iter().rev().eq(&sent), "{}", differences(&read, &sent));
    let in_clear = MessageFilter {
        kind: Some("text".to_owned()),
        ..MessageFilter::default()
    };
    let read = history(&alice, conversation, &in_clear).await;
    let expected = sent.iter().filter(|message| message.kind == "text");
    assert!(read.iter().rev().eq(expected));

    let path = format!("/v1/conversations/{conversation}/events?limit=1000");
    let page = alice.get(1, &path).await.ok(200);
    assert!(page.response.body.len() < MAX_PAGE_BYTES);
    assert!(page.list("events").len() < count);
    let log = alice.http(0).events(conversation, 0).await.unwrap();
    let seqs: Vec<Seq> = log.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=log.len() as Seq).collect::<Vec<_>>());
    let messages: Vec<Message> = log[1..]
        .iter()
        .map(|event| serde_json::from_str(event.data.as_str()).unwrap())
        .collect();
    assert!(messages == sent, "{}", differences(&messages, &sent));
    cluster.end().await;
}

/// 64 KiB in clear, or 256 KiB encrypted.
fn largest(number: usize) -> MessageBody {
    let is_clear = !number.is_multiple_of(3);
    // With its quotes it has exactly 64 KiB.
    let content = format!("{number:0>width$}", width = 64 * 1024 - 2);
    let content = JsonText::of(&content).unwrap();
    // 256 KiB are no multiple of three: the last four characters stand for one byte.
    let encrypted = format!("{}AA==", "A".repeat(256 * 1024 / 3 * 4));
    MessageBody {
        kind: if is_clear { "text" } else { "x-encrypted" }.to_owned(),
        content: is_clear.then_some(content),
        encrypted_content: (!is_clear).then_some(encrypted),
        payload_size_bytes: None,
        reply_to: None,
        metadata: JsonText::empty_object(),
    }
}

/// By pages of 200, each of which is bounded in bytes.
async fn history(
    user: &User,
    conversation: ConversationId,
    filter: &MessageFilter,
) -> Vec<Message> {
    let (mut messages, mut cursor, mut pages) = (Vec::new(), None::<String>, 0);
    loop {
        let http = user.http(pages % 2);
        let page = http.messages_page(conversation, filter, 200, cursor.as_deref());
        let page = page.await.unwrap();
        messages.extend(page.messages);
        cursor = page.next_cursor;
        pages += 1;
        if cursor.is_none() {
            assert!(pages > 1 || filter.kind.is_some());
            return messages;
        }
    }
}

/// A failed comparison of megabytes is not printed.
fn differences(read: &[Message], sent: &[Message]) -> String {
    let seqs = |list: &[Message]| list.iter().map(|m| m.seq).collect::<Vec<_>>();
    format!("{:?} of {:?}", seqs(read), seqs(sent))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_largest_metadata_and_previews_add_up() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let count = soak(200, 80);
    let custom = json!({"c": "x".repeat(16 * 1024 - 8)});
    let metadata = json!({
        "name": "ü".repeat(200),
        "description": "ü".repeat(2000),
        "custom": custom,
    });
    let mut begun = Vec::new();
    for _ in 0..count {
        let conversation = group(&alice, &metadata).await;
        let path = format!("/v1/conversations/{conversation}");
        alice.says(0, &path, &"x".repeat(1000)).await;
        begun.push(conversation);
    }
    begun.reverse();
    for order in ["created", "recent"] {
        let (mut listed, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let path = format!("/v1/conversations?limit=100&order={order}{cursor}");
            let page = alice.get(pages % 2, &path).await.ok(200);
            assert!(page.response.body.len() < MAX_PAGE_BYTES);
            listed.extend(page.each("conversations", "id"));
            pages += 1;
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert!(pages > 1, "{pages} pages");
        let begun: Vec<_> = begun.iter().map(|id| json!(id)).collect();
        assert_eq!(listed, begun, "{order}");
    }
    cluster.end().await;
}

async fn group(user: &User, metadata: &serde_json::Value) -> ConversationId {
    let group = NewConversation {
        r#type: ConversationType::Group,
        participants: vec!["bob".parse().unwrap()],
        metadata: Some(JsonText::of(metadata).unwrap()),
    };
    let begun = user.http(0).create_conversation(&group, None).await;
    begun.unwrap().answer.conversation.id
}
