use confab_protocol::command::{Command, CreateConversation, Outcome};
use confab_protocol::error::Code;
use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::json::JsonText;
use confab_protocol::limits;
use confab_protocol::query::{
    Answer, EncodedEvent, History, ListConversations, ListOrder, Query, ReadEvents,
};
use confab_protocol::resource::{Conversation, ConversationType, Message, MessageBody};

use super::ask;
use crate::commit::Item;
use crate::decision::ENVELOPE;
use crate::testing::{Fixture, caller, code, creation, edit, message, sent};

/// The longest user ids there are: by their own bytes, and by what JSON makes of them.
pub(super) fn longest() -> [String; 2] {
    ["🜁".repeat(128), "\"".repeat(128)]
}

#[tokio::test]
async fn pages_of_the_largest_messages_fit_and_add_up() {
    let fixture = Fixture::new().await;
    for user in longest() {
        let group = fixture.group(&[&user]).await;
        for _ in 0..5 {
            let item = largest(group, &user);
            assert_eq!(
                item.append.message.payload.as_str().len(),
                limits::MAX_EVENT_BYTES - ENVELOPE
            );
            sent(fixture.send(item).await);
        }
        assert_eq!(assert_log(&fixture, group, 6).await, 5);
        assert_history(&fixture, group, &user, 200, 5).await;
    }
}

#[tokio::test]
async fn edits_of_the_largest_messages_fit_and_add_up() {
    let fixture = Fixture::new().await;
    for user in longest() {
        let group = fixture.group(&[&user]).await;
        let id = sent(fixture.send(largest(group, &user)).await).message_id;
        let message = message(group, &user, "");
        let body: MessageBody =
            serde_json::from_str(message.append.message.payload.as_str()).unwrap();
        let rest = limits::MAX_EVENT_BYTES - ENVELOPE - serde_json::to_string(&body).unwrap().len();
        for text in [rest, rest - 1] {
            let command = edit(Some(group), id, &"y".repeat(text));
            sent(fixture.alone(&user, command).await.0);
        }
        let (larger, _) = fixture
            .alone(&user, edit(Some(group), id, &"y".repeat(rest + 1)))
            .await;
        assert_eq!(code(larger), Code::PayloadTooLarge);
        assert_eq!(assert_log(&fixture, group, 4).await, 4 - 1);
    }
}

#[tokio::test]
async fn pages_of_many_small_messages_fit_and_add_up() {
    let fixture = Fixture::new().await;
    for user in longest() {
        let group = fixture.group(&[&user]).await;
        for _ in 0..5 {
            let items: Vec<_> = (0..230).map(|_| message(group, &user, "")).collect();
            fixture
                .committer
                .finish_batch(&items)
                .await
                .outcomes
                .into_iter()
                .for_each(|one| {
                    sent(one);
                });
        }
        assert!(assert_log(&fixture, group, 1151).await > 1);
        assert_history(&fixture, group, &user, 200, 1150).await;
    }
}

#[tokio::test]
async fn a_page_of_history_that_ends_with_the_log_has_no_cursor() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice"]).await;
    for text in ["a", "b", "c", "d"] {
        sent(fixture.send(message(group, "alice", text)).await);
    }
    for (limit, pages) in [(1, 4), (2, 2), (3, 2), (4, 1), (200, 1)] {
        assert_eq!(
            assert_history(&fixture, group, "alice", limit, 4).await,
            pages
        );
    }
}

#[tokio::test]
async fn pages_of_a_list_follow_their_cursor_in_either_order() {
    let fixture = Fixture::new().await;
    let mut begun = Vec::new();
    for n in 0..70 {
        begun.push(begin_with_metadata(&fixture, &format!("k{n}")).await);
    }
    // Behind the others by its id, before them by its last event.
    sent(fixture.send(message(begun[0], "alice", "up")).await);
    begun.reverse();
    assert_eq!(list(&fixture, ListOrder::Created).await, begun);
    begun.rotate_right(1);
    assert_eq!(list(&fixture, ListOrder::Recent).await, begun);
}

#[tokio::test]
async fn a_large_last_message_is_shown_by_its_kind() {
    let fixture = Fixture::new().await;
    for (text, shown) in [
        ("x".repeat(1022), true),
        ("x".repeat(1023), false),
        ("x".repeat(limits::MAX_CONTENT_BYTES), false),
    ] {
        let group = fixture.group(&["alice"]).await;
        sent(fixture.send(message(group, "alice", &text)).await);
        let query = Query::ListConversations(ListConversations {
            caller: caller("alice"),
            limit: 1,
            cursor: None,
            r#type: None,
            order: ListOrder::Recent,
        });
        let Answer::Page { items, .. } = ask(&fixture, query).await else {
            panic!("a page");
        };
        let listed: Conversation = serde_json::from_str(items[0].as_str()).unwrap();
        let preview = listed.last_message.unwrap();
        assert_eq!((listed.id, preview.kind.as_str()), (group, "text"));
        assert_eq!(preview.content.is_some(), shown);
    }
}

/// The largest message that is accepted.
pub(super) fn largest(conversation: ConversationId, user: &str) -> Item {
    let empty = message(conversation, user, "");
    let rest = limits::MAX_EVENT_BYTES - ENVELOPE - empty.append.message.payload.as_str().len();
    message(conversation, user, &"x".repeat(rest))
}

/// Reads a whole log as gateways do; says in how many pages.
async fn assert_log(fixture: &Fixture, conversation: ConversationId, last: Seq) -> usize {
    let (mut after, mut pages) = (0, 0);
    while after < last {
        let query = Query::ReadEvents(ReadEvents {
            tenant: "default".parse().unwrap(),
            conversation,
            after,
            up_to: last,
        });
        let Answer::Events { events } = ask(fixture, query).await else {
            panic!("events");
        };
        assert!(!events.is_empty(), "nothing above {after}");
        let seqs = events.iter().map(|event| event.seq);
        assert!(seqs.eq(after + 1..=after + events.len() as Seq));
        assert!(events.iter().all(fits));
        after += events.len() as Seq;
        pages += 1;
    }
    assert_eq!(after, last);
    pages
}

fn fits(event: &EncodedEvent) -> bool {
    event.json.as_str().len() <= limits::MAX_EVENT_BYTES
}

/// Reads a whole history, newest first; says in how many pages.
async fn assert_history(
    fixture: &Fixture,
    conversation: ConversationId,
    user: &str,
    limit: u32,
    count: u64,
) -> usize {
    let (mut cursor, mut pages) = (None, 0);
    let mut seqs: Vec<Seq> = Vec::new();
    loop {
        let query = Query::History(History {
            caller: caller(user),
            conversation,
            limit,
            before: None,
            after: None,
            cursor,
            sender: None,
            kind: Some("text".into()),
            from: None,
            to: None,
        });
        let Answer::Page { items, next_cursor } = ask(fixture, query).await else {
            panic!("a page");
        };
        pages += 1;
        assert!((1..=limit as usize).contains(&items.len()));
        seqs.extend(items.iter().map(seq_of));
        cursor = next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert!(seqs.into_iter().eq((2..count + 2).rev()));
    pages
}

fn seq_of(item: &JsonText) -> Seq {
    let message: Message = serde_json::from_str(item.as_str()).unwrap();
    message.seq
}

/// A conversation with as much metadata as there may be.
async fn begin_with_metadata(fixture: &Fixture, key: &str) -> ConversationId {
    let Command::CreateConversation(create) = creation(key, ConversationType::Group, &["alice"])
    else {
        panic!("a creation");
    };
    let custom = format!(
        r#"{{"custom":{{"x":"{}"}}}}"#,
        "x".repeat(limits::MAX_CUSTOM_BYTES)
    );
    let command = CreateConversation {
        conversation: ConversationId(uuid::Uuid::now_v7()),
        metadata: JsonText::trusted(custom),
        ..create
    };
    let command = Command::CreateConversation(command);
    match fixture.alone("alice", command).await.0.unwrap() {
        Outcome::Created(created) => created.conversation,
        other => panic!("{other:?}"),
    }
}

/// The whole list of alice's conversations.
async fn list(fixture: &Fixture, order: ListOrder) -> Vec<ConversationId> {
    let (mut cursor, mut listed) = (None, Vec::new());
    loop {
        let query = Query::ListConversations(ListConversations {
            caller: caller("alice"),
            limit: 60,
            cursor,
            r#type: None,
            order,
        });
        let Answer::Page { items, next_cursor } = ask(fixture, query).await else {
            panic!("a page");
        };
        let item = |item: &JsonText| serde_json::from_str(item.as_str()).unwrap();
        listed.extend(items.iter().map(item).map(|one: Conversation| one.id));
        cursor = next_cursor;
        if cursor.is_none() {
            return listed;
        }
    }
}
