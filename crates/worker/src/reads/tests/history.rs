use confab_protocol::error::Code;
use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::query::{Answer, History, Query};
use confab_protocol::resource::Message;
use confab_protocol::timestamp::Timestamp;
use time::{Duration, OffsetDateTime};

use super::{ask, refused};
use crate::testing::{Fixture, addition, caller, message, sent};

/// Every 500th of these is an image, every 700th is bob's.
const EVENTS: i64 = 3500;

#[tokio::test]
async fn a_filtered_history_looks_at_so_many_events_a_page_and_goes_on() {
    let fixture = Fixture::new().await;
    let (group, _) = filled(&fixture).await;
    let every = |n: Seq| (1..=3500 / n).rev().map(|k| k * n).collect::<Vec<_>>();
    for limit in [1, 2, 200] {
        let images = History {
            kind: Some("image".into()),
            ..history(group, limit)
        };
        let (seqs, pages) = all(&fixture, images).await;
        assert_eq!(seqs, every(500));
        assert!(limit < 200 || pages.iter().all(|page| (1..3).contains(page)));
        let bobs = History {
            sender: Some("bob".parse().unwrap()),
            ..history(group, limit)
        };
        assert_eq!(all(&fixture, bobs.clone()).await.0, every(700));
        let both = History {
            kind: Some("image".into()),
            ..bobs
        };
        let (seqs, pages) = all(&fixture, both).await;
        assert_eq!((seqs, pages.len()), (vec![3500], 4));
    }
    // A kind is a kind, not the beginning of one.
    let begins = History {
        kind: Some("im".into()),
        ..history(group, 10)
    };
    assert_eq!(all(&fixture, begins).await, (vec![], vec![0; 4]));
}

#[tokio::test]
async fn times_are_turned_into_seqs() {
    let fixture = Fixture::new().await;
    let (group, first) = filled(&fixture).await;
    // Ten events have one time: that of seq n is first + n / 10 seconds.
    let at = |seconds: i64| Some(Timestamp::new(first + Duration::seconds(seconds)));
    for (from, to, lowest, highest) in [
        (at(100), at(101), 1000, 1009),
        (at(0), at(1), 2, 9),
        (at(350), None, 3500, 3500),
        (None, at(1), 2, 9),
        (at(349), at(1000), 3490, 3500),
        (at(-5), at(2), 2, 19),
        (at(351), None, 1, 0),
        (None, at(0), 1, 0),
        (at(5), at(5), 1, 0),
        (at(9), at(5), 1, 0),
    ] {
        let query = History {
            from,
            to,
            ..history(group, 7)
        };
        let (seqs, _) = all(&fixture, query).await;
        assert_eq!(seqs, (lowest..=highest).rev().collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn bounds_are_exclusive_and_events_that_are_no_messages_are_passed_over() {
    let fixture = Fixture::new().await;
    let (group, _) = filled(&fixture).await;
    for (before, after, expected) in [
        (Some(5), Some(2), vec![4, 3]),
        (Some(2), None, vec![]),
        (Some(4), None, vec![3, 2]),
        (None, Some(3498), vec![3500, 3499]),
        (None, Some(Seq::MAX), vec![]),
        (Some(Seq::MAX), Some(3499), vec![3500]),
        (Some(0), None, vec![]),
        (Some(7), Some(7), vec![]),
    ] {
        let query = History {
            before,
            after,
            ..history(group, 2)
        };
        assert_eq!(all(&fixture, query).await.0, expected);
    }
    sqlx::query("update events set type = 'participant.updated' where seq between 500 and 3000")
        .execute(&fixture.pool)
        .await
        .unwrap();
    let expected: Vec<_> = (2..500).chain(3001..3501).rev().collect();
    assert_eq!(all(&fixture, history(group, 50)).await.0, expected);
    let query = History {
        cursor: Some("p1-2".into()),
        ..history(group, 50)
    };
    let code = refused(&fixture, Query::History(query)).await;
    assert_eq!(code, Code::InvalidCursor);
}

#[tokio::test]
async fn pages_neither_skip_nor_repeat_while_messages_come() {
    let fixture = Fixture::new().await;
    let (group, _) = filled(&fixture).await;
    let sending = async {
        for _ in 0..50 {
            sent(fixture.send(message(group, "alice", "new")).await);
        }
    };
    let reading = async {
        let query = History {
            before: Some(3501),
            ..history(group, 200)
        };
        for _ in 0..5 {
            let (seqs, _) = all(&fixture, query.clone()).await;
            assert!(seqs.into_iter().eq((2..3501).rev()));
        }
    };
    Box::pin(async { tokio::join!(sending, reading) }).await;
    let (seqs, _) = all(&fixture, history(group, 200)).await;
    assert!(seqs.into_iter().eq((2..3551).rev()));
}

#[tokio::test]
async fn the_time_of_an_event_is_never_below_that_of_the_one_before() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    // The clock of the server that is primary now is behind that of the one before.
    sqlx::query("update conversations set last_event_at = last_event_at + interval '1 hour'")
        .execute(&fixture.pool)
        .await
        .unwrap();
    sqlx::query("update events set created_at = created_at + interval '1 hour'")
        .execute(&fixture.pool)
        .await
        .unwrap();
    let items = ["a", "b"].map(|text| message(group, "alice", text));
    let mut times = Vec::new();
    for outcome in fixture.committer.finish_batch(&items).await.outcomes {
        times.push(sent(outcome).created_at.to_datetime());
    }
    let (added, _) = fixture.alone("alice", addition(group, &["carol"])).await;
    added.unwrap();
    let stored: Vec<(OffsetDateTime,)> =
        sqlx::query_as("select created_at from events order by seq")
            .fetch_all(&fixture.pool)
            .await
            .unwrap();
    assert_eq!(stored.len(), 4);
    assert!(stored.is_sorted());
    assert_eq!(times, [stored[1].0, stored[2].0]);
}

/// A group of alice and bob whose log has been written for them; gives also when it began.
async fn filled(fixture: &Fixture) -> (ConversationId, OffsetDateTime) {
    let group = fixture.group(&["alice", "bob"]).await;
    let (first,): (OffsetDateTime,) = sqlx::query_as(
        "with begun as ( \
            update conversations set last_seq = $2, last_event_at = last_event_at + $2 / 10 * interval '1 second' \
            where id = $1 returning created_at), \
         filled as ( \
            insert into events (conversation_id, seq, id, type, actor, created_at, payload, messages) \
            select $1, n, gen_random_uuid(), 'message.created', case when n % 700 = 0 then 'bob' else 'alice' end, \
                begun.created_at + n / 10 * interval '1 second', \
                case when n % 500 = 0 then '{\"kind\":\"image\",' else '{\"kind\":\"text\",' end \
                    || '\"content\":1,\"payloadSizeBytes\":null,\"replyTo\":null,\"metadata\":{}}', n - 1 \
            from begun cross join generate_series(2, $2) as n) \
         select created_at from begun",
    )
    .bind(group.0)
    .bind(EVENTS)
    .fetch_one(&fixture.pool)
    .await
    .unwrap();
    (group, first)
}

fn history(conversation: ConversationId, limit: u32) -> History {
    History {
        caller: caller("alice"),
        conversation,
        limit,
        before: None,
        after: None,
        cursor: None,
        sender: None,
        kind: None,
        from: None,
        to: None,
    }
}

/// The seqs of a whole history, and how many each page had.
async fn all(fixture: &Fixture, mut history: History) -> (Vec<Seq>, Vec<usize>) {
    let (mut seqs, mut pages) = (Vec::new(), Vec::new());
    loop {
        let query = Query::History(history.clone());
        let Answer::Page { items, next_cursor } = ask(fixture, query).await else {
            panic!("a page");
        };
        let seq = |text: &str| serde_json::from_str::<Message>(text).unwrap().seq;
        pages.push(items.len());
        seqs.extend(items.iter().map(|item| seq(item.as_str())));
        history.cursor = next_cursor;
        if history.cursor.is_none() {
            return (seqs, pages);
        }
    }
}
