use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::query::{Answer, EncodedEvent, LogRange, Query, ReadEvents, ReadRanges};
use uuid::Uuid;

use super::ask;
use super::pages::largest;
use crate::testing::{Fixture, message, sent};

#[tokio::test]
async fn ranges_are_read_as_each_would_be_alone_and_in_their_order() {
    let fixture = Fixture::new().await;
    let (one, other) = (talk(&fixture, 12).await, talk(&fixture, 3).await);
    let unknown = ConversationId(Uuid::now_v7());
    let ranges = vec![
        range(other, 1, 3),
        range(one, 4, 9),
        range(unknown, 0, Seq::MAX),
        range(one, 13, Seq::MAX),
        range(one, Seq::MAX, Seq::MAX),
        range(other, 3, 1),
        range(one, 11, Seq::MAX),
        range(other, 0, 0),
    ];
    let answer = read(&fixture, "default", &ranges).await;
    let mut alone = Vec::new();
    for range in &ranges {
        alone.push(read_one(&fixture, *range).await);
    }
    assert_eq!(answer, alone);
    let counts = answer.iter().map(Vec::len);
    assert_eq!(counts.collect::<Vec<_>>(), [2, 5, 0, 0, 0, 0, 2, 0]);

    let foreign = read(&fixture, "other", &ranges).await;
    assert!(foreign.len() == ranges.len() && foreign.iter().all(Vec::is_empty));
    assert_eq!(
        read(&fixture, "default", &[]).await,
        Vec::<Vec<EncodedEvent>>::new()
    );
}

#[tokio::test]
async fn ranges_that_do_not_fit_come_in_pieces_and_the_first_one_with_events_always_has_some() {
    let fixture = Fixture::new().await;
    let mut ranges = vec![range(ConversationId(Uuid::now_v7()), 0, 9)];
    for number in 0..6 {
        let group = talk(&fixture, 450).await;
        if number % 2 == 0 {
            sent(fixture.send(largest(group, "alice")).await);
            sent(fixture.send(largest(group, "alice")).await);
        }
        ranges.push(range(group, 0, Seq::MAX));
    }
    let mut told = vec![Vec::new(); ranges.len()];
    let mut asked = 0;
    loop {
        let answer = read(&fixture, "default", &ranges).await;
        asked += 1;
        let Some(first) = answer.iter().position(|events| !events.is_empty()) else {
            break;
        };
        // What is cut off comes behind all that is there.
        assert!(
            told.iter()
                .skip(1)
                .take(first.saturating_sub(1))
                .all(|seqs: &Vec<_>| !seqs.is_empty())
        );
        for ((range, events), told) in ranges.iter_mut().zip(answer).zip(&mut told) {
            told.extend(events.iter().map(|event| event.seq));
            range.after = told.last().copied().unwrap_or(range.after);
        }
    }
    for (number, seqs) in told.into_iter().enumerate().skip(1) {
        let last = if number % 2 == 1 { 453 } else { 451 };
        assert!(seqs.into_iter().eq(1..=last), "range {number}");
    }
    assert!(asked < 15, "{asked} questions");
}

#[tokio::test]
async fn hundreds_of_ranges_are_one_question() {
    let fixture = Fixture::new().await;
    let mut ranges = Vec::new();
    for _ in 0..300 {
        ranges.push(range(fixture.group(&["alice"]).await, 0, Seq::MAX));
    }
    let answer = read(&fixture, "default", &ranges).await;
    assert!(answer.len() == 300 && answer.iter().all(|events| events.len() == 1));
}

/// A group with so many messages behind its creation.
async fn talk(fixture: &Fixture, messages: usize) -> ConversationId {
    let group = fixture.group(&["alice"]).await;
    let items: Vec<_> = (0..messages)
        .map(|_| message(group, "alice", "short"))
        .collect();
    for outcome in fixture.committer.finish_batch(&items).await.outcomes {
        sent(outcome);
    }
    group
}

fn range(conversation: ConversationId, after: Seq, up_to: Seq) -> LogRange {
    LogRange {
        conversation,
        after,
        up_to,
    }
}

async fn read(fixture: &Fixture, tenant: &str, ranges: &[LogRange]) -> Vec<Vec<EncodedEvent>> {
    let query = ReadRanges {
        tenant: tenant.parse().unwrap(),
        ranges: ranges.to_vec(),
    };
    match ask(fixture, Query::ReadRanges(query)).await {
        Answer::Ranges(events) => events,
        other => panic!("{other:?}"),
    }
}

async fn read_one(fixture: &Fixture, range: LogRange) -> Vec<EncodedEvent> {
    let query = ReadEvents {
        tenant: "default".parse().unwrap(),
        conversation: range.conversation,
        after: range.after,
        up_to: range.up_to,
    };
    match ask(fixture, Query::ReadEvents(query)).await {
        Answer::Events { events } => events,
        other => panic!("{other:?}"),
    }
}
