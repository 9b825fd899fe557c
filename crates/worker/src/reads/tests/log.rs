use confab_protocol::error::Code;
use confab_protocol::event::{Event, EventType, MessageEdited};
use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::limits;
use confab_protocol::query::{Answer, Log, Query};
use confab_protocol::resource::Message;
use uuid::Uuid;

use super::pages::{largest, longest};
use super::{ask, refused};
use crate::testing::{Fixture, caller, message, sent};

#[tokio::test]
async fn a_log_of_the_largest_messages_comes_in_pieces_that_fit() {
    let fixture = Fixture::new().await;
    for user in longest() {
        let group = fixture.group(&[&user]).await;
        for _ in 0..4 {
            sent(fixture.send(largest(group, &user)).await);
        }
        let items: Vec<_> = (0..800).map(|_| message(group, &user, "")).collect();
        for outcome in fixture.committer.finish_batch(&items).await.outcomes {
            sent(outcome);
        }
        for limit in [1, 1000] {
            let log = all(&fixture, log(&user, group, limit)).await;
            assert_eq!(log.len(), 805);
            assert!(log.iter().all(|(event, bytes)| {
                *bytes <= limits::MAX_EVENT_BYTES && event.actor.as_str() == user
            }));
            let seqs = log.iter().map(|(event, _)| event.seq);
            assert!(seqs.eq(1..=805));
        }
    }
}

#[tokio::test]
async fn a_log_is_for_members_and_ends_with_its_head() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    fixture.remove("alice", "bob", group).await;
    for user in ["bob", "mallory"] {
        let query = Query::Log(log(user, group, 10));
        assert_eq!(refused(&fixture, query).await, Code::ConversationNotFound);
    }
    for after in [2, 3, Seq::MAX] {
        let query = Log {
            after,
            ..log("alice", group, 10)
        };
        let empty = Answer::Log {
            events: Vec::new(),
            head: 2,
        };
        assert_eq!(ask(&fixture, Query::Log(query)).await, empty);
    }
    fixture.remove("alice", "alice", group).await;
    let query = Query::Log(log("bob", group, 10));
    assert_eq!(refused(&fixture, query).await, Code::ConversationDeleted);
}

#[tokio::test]
async fn an_edit_is_read_with_its_message_as_that_is_now() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice"]).await;
    let id = sent(fixture.send(message(group, "alice", "first")).await).message_id;
    for text in [
        "insert into events (conversation_id, seq, id, type, actor, created_at, payload, target_seq, messages) \
         values ($1, 3, $2, 'message.edited', 'alice', now(), '{}', 2, 1)",
        "update events set edited_at = now(), payload = replace(payload, 'first', 'second') \
         where conversation_id = $1 and $2::uuid is not null and seq = 2",
        "update conversations set last_seq = 3 where id = $1 and $2::uuid is not null",
    ] {
        sqlx::query(text)
            .bind(group.0)
            .bind(Uuid::now_v7())
            .execute(&fixture.pool)
            .await
            .unwrap();
    }
    let log = all(&fixture, log("alice", group, 1)).await;
    let message = |text: &str| serde_json::from_str::<Message>(text).unwrap();
    let created = message(log[1].0.data.as_str());
    assert_eq!(log[2].0.r#type, EventType::MessageEdited);
    let edited: MessageEdited = serde_json::from_str(log[2].0.data.as_str()).unwrap();
    assert_eq!((edited.target_seq, created.id), (2, id));
    assert_eq!(message(edited.message.as_str()), created);
    assert_eq!(created.content.unwrap().as_str(), "\"second\"");
}

fn log(user: &str, conversation: ConversationId, limit: u32) -> Log {
    Log {
        caller: caller(user),
        conversation,
        after: 0,
        limit,
    }
}

/// A whole log, with the bytes of each event.
async fn all(fixture: &Fixture, mut log: Log) -> Vec<(Event, usize)> {
    let mut all = Vec::new();
    loop {
        let (events, head) = match ask(fixture, Query::Log(log.clone())).await {
            Answer::Log { events, head } => (events, head),
            other => panic!("{other:?}"),
        };
        assert!((1..=log.limit as usize).contains(&events.len()));
        for event in events {
            let bytes = event.as_str().len();
            all.push((
                serde_json::from_str::<Event>(event.as_str()).unwrap(),
                bytes,
            ));
        }
        log.after = all.last().unwrap().0.seq;
        if log.after == head {
            return all;
        }
    }
}
