//! What was edited away or deleted is nowhere: not in the store, not in any answer, not in what is published again.

use std::time::Duration;

use confab_protocol::event::{Event, EventType, MessageDeleted, MessageEdited};
use confab_protocol::ids::{ClientId, ConversationId};
use confab_protocol::query::{Answer, History, Query, ReadEvents};
use confab_protocol::resource::Message;

use crate::outbox::relay;
use crate::reads;
use crate::testing::{Fixture, caller, edit, key, keyed, request, sent, soon, unsend};

/// All that anyone can be told of a conversation: answers to queries, the repeat of a send, and what the relay would publish.
async fn told(fixture: &Fixture, group: ConversationId, client_id: ClientId) -> Vec<String> {
    let mut told: Vec<String> = events(fixture, group)
        .await
        .into_iter()
        .map(|(_, json)| json)
        .collect();
    let budget = Duration::from_secs(20);
    let history = Query::History(History {
        caller: caller("alice"),
        conversation: group,
        limit: 200,
        before: None,
        after: None,
        cursor: None,
        sender: None,
        kind: Some("text".into()),
        from: None,
        to: None,
    });
    match reads::answer(&fixture.connections, &history, budget)
        .await
        .unwrap()
    {
        Answer::Page { items, .. } => told.extend(items.into_iter().map(|item| item.into_string())),
        other => panic!("{other:?}"),
    }
    let again = sent(
        fixture
            .send(keyed(group, "alice", "secret one", client_id))
            .await,
    );
    assert!(again.duplicate);
    told.push(again.message.unwrap().into_string());
    let seqs: Vec<i64> = (1..=i64::try_from(events(fixture, group).await.len()).unwrap()).collect();
    let ids = vec![group.0; seqs.len()];
    for event in relay::read(&fixture.connections, &ids, &seqs).await {
        told.push(String::from_utf8(event.json.to_vec()).unwrap());
    }
    told
}

/// The log as gateways read it.
async fn events(fixture: &Fixture, group: ConversationId) -> Vec<(EventType, String)> {
    let range = Query::ReadEvents(ReadEvents {
        tenant: "default".parse().unwrap(),
        conversation: group,
        after: 0,
        up_to: 1000,
    });
    let budget = Duration::from_secs(20);
    match reads::answer(&fixture.connections, &range, budget)
        .await
        .unwrap()
    {
        Answer::Events { events } => events
            .into_iter()
            .map(|event| (event.r#type, event.json.into_string()))
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_was_edited_or_deleted_is_nowhere() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let client_id = key();
    let first = sent(
        fixture
            .send(keyed(group, "alice", "secret one", client_id))
            .await,
    );
    let id = first.message_id;
    let texts = ["secret two", "secret three"];
    for text in texts {
        sent(fixture.alone("alice", edit(Some(group), id, text)).await.0);
    }
    let all = told(&fixture, group, client_id).await;
    for one in &all {
        assert!(
            !one.contains("secret one") && !one.contains("secret two"),
            "{one}"
        );
    }
    // The message, its two edits: by a range, a history, a repeat, and the relay.
    let present = all.iter().filter(|one| one.contains("secret three"));
    assert_eq!(present.count(), 3 + 1 + 1 + 3);

    sent(fixture.alone("alice", unsend(Some(group), id)).await.0);
    let all = told(&fixture, group, client_id).await;
    assert!(all.iter().all(|one| !one.contains("secret")));
    let stored = "select count(*) from events where payload like '%secret%'";
    let (stored,): (i64,) = sqlx::query_as(stored)
        .fetch_one(&fixture.pool)
        .await
        .unwrap();
    assert_eq!(stored, 0);

    let mut seen = Vec::new();
    for (event_type, json) in events(&fixture, group).await {
        let event: Event = serde_json::from_str(&json).unwrap();
        let message = match event_type {
            EventType::MessageCreated => event.data,
            EventType::MessageEdited => {
                let data: MessageEdited = serde_json::from_str(event.data.as_str()).unwrap();
                assert_eq!(data.target_seq, first.seq);
                data.message
            }
            EventType::MessageDeleted => {
                let data: MessageDeleted = serde_json::from_str(event.data.as_str()).unwrap();
                assert_eq!((data.target_seq, data.message_id), (first.seq, id));
                assert_eq!(data.deleted_at, event.created_at);
                continue;
            }
            _ => continue,
        };
        let message: Message = serde_json::from_str(message.as_str()).unwrap();
        assert_eq!((message.id, message.seq), (id, first.seq));
        assert!(message.edited_at.is_some() && message.deleted_at.is_some());
        seen.push(event.seq);
    }
    assert_eq!(seen, [2, 3, 4]);
}

#[tokio::test]
async fn what_is_published_at_once_is_what_is_read_later_and_says_what_it_is_about() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice"]).await;
    let first = sent(fixture.send(keyed(group, "alice", "one", key())).await);
    let id = first.message_id;
    for command in [edit(None, id, "two"), unsend(None, id)] {
        let request = request("alice", command);
        let (outcome, committed) = fixture.committer.finish_alone(&request, soon()).await;
        let seq = sent(outcome).seq;
        let published = committed.unwrap().events;
        let [live] = published.as_slice() else {
            panic!("{published:?}");
        };
        assert_eq!((live.seq, live.target_seq), (seq, Some(first.seq)));
        let again = relay::read(&fixture.connections, &[group.0], &[seq.cast_signed()]).await;
        assert_eq!(again[0].json, live.json);
        assert_eq!(
            (again[0].id, again[0].target_seq),
            (live.id, live.target_seq)
        );
        let (_, read) = events(&fixture, group).await.pop().unwrap();
        assert_eq!(read.as_bytes(), live.json);
    }
}
