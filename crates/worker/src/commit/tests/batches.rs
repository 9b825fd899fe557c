use std::collections::BTreeSet;

use confab_protocol::error::Code;
use confab_protocol::event::EventType;
use confab_protocol::ids::{ConversationId, EventId, Seq};
use futures_util::future::join_all;
use uuid::Uuid;

use crate::commit::Committer;
use crate::testing::{Fixture, code, key, keyed, message, removal, request, sent, soon};

#[tokio::test]
async fn a_send_that_waited_while_its_sender_was_removed_is_refused() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let holder = fixture.hold(group).await;

    // The removal first, the batch behind it.
    let request = request("alice", removal(group, "bob"));
    let removed = fixture.committer.finish_alone(&request, soon());
    let items = [
        message(group, "bob", "too late"),
        message(group, "alice", "a member"),
    ];
    let batch = async {
        fixture.queued(1).await;
        fixture.committer.finish_batch(&items).await
    };
    let release = async {
        fixture.queued(2).await;
        holder.rollback().await.unwrap();
    };
    let (removed, end, ()) = Box::pin(async { tokio::join!(removed, batch, release) }).await;

    removed.0.unwrap();
    let mut outcomes = end.outcomes.into_iter();
    assert_eq!(code(outcomes.next().unwrap()), Code::ConversationNotFound);
    assert_eq!(sent(outcomes.next().unwrap()).seq, 3);
    let types = [
        EventType::ConversationCreated,
        EventType::ParticipantRemoved,
        EventType::MessageCreated,
    ];
    assert_eq!(
        fixture.log(group).await,
        types.map(|event_type| event_type.as_str().to_owned())
    );
}

#[tokio::test]
async fn a_send_alone_that_waited_while_its_sender_was_removed_is_refused() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let holder = fixture.hold(group).await;
    let request = request("alice", removal(group, "bob"));
    let removed = fixture.committer.finish_alone(&request, soon());
    let late = async {
        fixture.queued(1).await;
        fixture.send(message(group, "bob", "too late")).await
    };
    let release = async {
        fixture.queued(2).await;
        holder.rollback().await.unwrap();
    };
    let (removed, late, ()) = Box::pin(async { tokio::join!(removed, late, release) }).await;
    removed.0.unwrap();
    assert_eq!(code(late), Code::ConversationNotFound);
    assert_eq!(fixture.log(group).await.len(), 2);
}

#[tokio::test]
async fn a_client_id_twice_in_one_batch_is_stored_once() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let (twice, reused) = (key(), key());
    let items = [
        keyed(group, "alice", "one", twice),
        keyed(group, "alice", "one", twice),
        keyed(group, "alice", "two", reused),
        keyed(group, "alice", "other", reused),
        keyed(group, "bob", "one", twice),
    ];
    let end = fixture.committer.finish_batch(&items).await;
    let events: usize = end
        .committed
        .iter()
        .map(|committed| committed.events.len())
        .sum();
    assert_eq!(events, 3);
    let mut outcomes = end.outcomes.into_iter();
    let (first, second) = (
        sent(outcomes.next().unwrap()),
        sent(outcomes.next().unwrap()),
    );
    assert_eq!((first.seq, first.duplicate), (2, false));
    assert_eq!((second.seq, second.duplicate), (2, true));
    assert_eq!(first.message_id, second.message_id);
    assert_eq!(first.message, second.message);
    assert_eq!(sent(outcomes.next().unwrap()).seq, 3);
    assert_eq!(code(outcomes.next().unwrap()), Code::IdempotencyKeyReused);
    // A client id is its sender's: another user's is another message.
    let bobs = sent(outcomes.next().unwrap());
    assert_eq!((bobs.seq, bobs.duplicate), (4, false));
    assert_eq!(fixture.log(group).await.len(), 4);
}

#[tokio::test]
async fn a_repeat_is_acknowledged_with_the_first_seq_also_to_one_who_left() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let client_id = key();
    let send = |text| fixture.send(keyed(group, "bob", text, client_id));
    let first = sent(send("hello").await);
    for left in [false, true] {
        if left {
            fixture.remove("bob", "bob", group).await;
        }
        let again = sent(send("hello").await);
        assert_eq!((first.duplicate, again.duplicate), (false, true));
        assert_eq!(
            (again.seq, again.message_id, again.created_at),
            (first.seq, first.message_id, first.created_at)
        );
        assert_eq!(again.message, first.message);
        assert_eq!(code(send("other").await), Code::IdempotencyKeyReused);
    }
    let new = fixture.send(message(group, "bob", "new")).await;
    assert_eq!(code(new), Code::ConversationNotFound);
    assert_eq!(fixture.log(group).await.len(), 3);
}

#[tokio::test]
async fn what_postgres_refuses_fails_alone_and_the_rest_keeps_its_order() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice"]).await;
    let texts = ["a", "b", "not\0storable", "c", "d"];
    let items = texts.map(|text| message(group, "alice", text));
    let outcomes = fixture.committer.finish_batch(&items).await.outcomes;
    let answers: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| outcome.map(|outcome| sent(Ok(outcome)).seq))
        .map(|outcome| outcome.map_err(|failure| failure.code))
        .collect();
    assert_eq!(answers, [Ok(2), Ok(3), Err(Code::Validation), Ok(4), Ok(5)]);
    assert_eq!(fixture.log(group).await.len(), 5);
}

#[tokio::test]
async fn seqs_have_no_gaps_and_answers_are_true_under_concurrent_batches() {
    const BATCHES: usize = 12;
    let fixture = Fixture::new().await;
    let mut groups = Vec::new();
    for _ in 0..3 {
        groups.push(fixture.group(&["alice", "bob"]).await);
    }
    let workers = [fixture.committer.clone(), fixture.another_committer()];
    let senders = workers
        .iter()
        .flat_map(|worker| ["alice", "bob"].map(|user| (worker, user)));
    let all = senders.map(|(worker, user)| send_batches(worker, user, &groups, BATCHES));
    let answered: BTreeSet<_> = Box::pin(join_all(all))
        .await
        .into_iter()
        .flatten()
        .collect();

    for group in &groups {
        assert_eq!(fixture.log(*group).await.len(), 1 + 4 * BATCHES * 5);
    }
    let stored: Vec<(Uuid, i64, Uuid)> = sqlx::query_as(
        "select conversation_id, seq, id from events where type = 'message.created'",
    )
    .fetch_all(&fixture.pool)
    .await
    .unwrap();
    let stored: BTreeSet<_> = stored
        .into_iter()
        .map(|(group, seq, id)| (ConversationId(group), seq.cast_unsigned(), EventId(id)))
        .collect();
    assert_eq!(stored, answered);
    let (queued,): (i64,) = sqlx::query_as(
        "select count(*) from events e where exists (select 1 from outbox o, \
            unnest(o.conversation_ids, o.seqs) as k(conversation, seq) \
            where k.conversation = e.conversation_id and k.seq = e.seq)",
    )
    .fetch_one(&fixture.pool)
    .await
    .unwrap();
    assert_eq!(
        usize::try_from(queued).unwrap(),
        stored.len() + groups.len()
    );
}

/// Sends batches of five messages to each conversation, one batch after the other.
async fn send_batches(
    worker: &Committer,
    user: &str,
    groups: &[ConversationId],
    count: usize,
) -> Vec<(ConversationId, Seq, EventId)> {
    let mut answered = Vec::new();
    for batch in 0..count {
        // The locks are taken in the order of ids, whatever the order of the messages.
        let turned = (0..groups.len()).map(|n| groups[(n + batch) % groups.len()]);
        let items: Vec<_> = turned
            .flat_map(|group| [group; 5])
            .map(|group| message(group, user, "hello"))
            .collect();
        let outcomes = worker.finish_batch(&items).await.outcomes;
        for (item, outcome) in items.iter().zip(outcomes) {
            let sent = sent(outcome);
            answered.push((item.append.message.conversation, sent.seq, sent.message_id));
        }
    }
    answered
}
