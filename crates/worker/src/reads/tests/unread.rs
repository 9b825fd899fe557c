//! What is unread, against a plain count over the log, and what a count touches.

use confab_protocol::command::{MarkRead, Outcome};
use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::limits;
use confab_protocol::query::{Answer, ListConversations, ListOrder, Query};
use confab_protocol::resource::Conversation;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sqlx::PgPool;
use uuid::Uuid;

use super::ask;
use crate::commit::Mark;
use crate::testing::{
    Fixture, addition, backend, caller, edit, message, patch, removal, sent, soak, soon, unsend,
};

mod cost;

const USERS: [&str; 3] = ["alice", "bob", "carol"];

/// What happens in the conversation.
#[derive(Debug, Clone)]
enum Step {
    /// These users send so many messages each, in one commit.
    Send(Vec<usize>),
    /// The product's backend sends, which is no member.
    SendAsBackend,
    /// The sender of the nth message edits it.
    Edit(usize),
    /// The nth message is deleted.
    Delete(usize),
    Join(usize),
    Leave(usize),
    /// A change of metadata, whose answer has a count as well.
    Patch(usize, u8),
    /// A user has read up to so many thousandths of the log.
    Mark(usize, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let user = || 0_usize..3;
    prop_oneof![
        8 => proptest::collection::vec(user(), 1..6).prop_map(Step::Send),
        1 => Just(Step::SendAsBackend),
        4 => any::<usize>().prop_map(Step::Edit),
        5 => any::<usize>().prop_map(Step::Delete),
        2 => user().prop_map(Step::Join),
        2 => user().prop_map(Step::Leave),
        3 => (user(), any::<u8>()).prop_map(|(user, n)| Step::Patch(user, n)),
        6 => (user(), 0_u64..1001).prop_map(|(user, share)| Step::Mark(user, share)),
    ]
}

#[test]
fn unread_counts_equal_a_plain_count() {
    let config = Config {
        cases: u32::try_from(soak(100, 6)).unwrap(),
        max_shrink_iters: 0,
        failure_persistence: None,
        ..Config::default()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let steps = proptest::collection::vec(step(), 40..80);
    TestRunner::new(config)
        .run(&steps, |steps| {
            runtime.block_on(Box::pin(carry_out(steps)));
            Ok(())
        })
        .unwrap();
}

async fn carry_out(steps: Vec<Step>) {
    let fixture = Fixture::new().await;
    let group = fixture.group(&USERS).await;
    let mut messages = Vec::new();
    for step in steps {
        let nth = |n: usize| messages.get(n % messages.len().max(1)).copied();
        match step {
            Step::Send(senders) => {
                let items: Vec<_> = senders
                    .iter()
                    .map(|user| message(group, USERS[*user], "hello"))
                    .collect();
                let outcomes = fixture.committer.finish_batch(&items).await.outcomes;
                let stored = outcomes.into_iter().zip(senders);
                // Who is no member is refused.
                messages.extend(stored.filter_map(|(outcome, user)| {
                    outcome.is_ok().then(|| (sent(outcome).message_id, user))
                }));
            }
            Step::SendAsBackend => {
                let mut item = message(group, "backend", "hello");
                item.append.caller = backend();
                sent(fixture.send(item).await);
            }
            Step::Edit(n) => {
                if let Some((id, user)) = nth(n) {
                    drop(fixture.alone(USERS[user], edit(None, id, "edited")).await);
                }
            }
            Step::Delete(n) => {
                if let Some((id, _)) = nth(n) {
                    drop(fixture.alone_as(backend(), unsend(None, id)).await);
                }
            }
            Step::Join(user) => {
                drop(
                    fixture
                        .alone_as(backend(), addition(group, &[USERS[user]]))
                        .await,
                );
            }
            // The last one stays: with it the conversation would end.
            Step::Leave(user) if present(&fixture.pool, group).await.len() > 1 => {
                drop(
                    fixture
                        .alone_as(backend(), removal(group, USERS[user]))
                        .await,
                );
            }
            Step::Leave(_) => {}
            Step::Patch(user, n) => {
                let patch = patch(group, &format!(r#"{{"name":"{n}"}}"#));
                if let (Ok(Outcome::Updated { conversation, .. }), _) =
                    fixture.alone(USERS[user], patch).await
                {
                    let told: Conversation = serde_json::from_str(conversation.as_str()).unwrap();
                    let counted = counted(&fixture.pool, group, USERS[user], told.last_seq).await;
                    assert_eq!(told.unread_count, Some(counted), "told behind a change");
                }
            }
            Step::Mark(user, share) => {
                let head = head(&fixture.pool, group).await;
                drop(
                    fixture
                        .committer
                        .mark(&[mark(USERS[user], group, head * share / 1000)])
                        .await,
                );
            }
        }
    }
    assert_counts(&fixture, group).await;
    assert_numbers(&fixture.pool, group).await;
    // As workers of the version before append.
    sqlx::query("update events set messages = null where type <> 'message.created' and seq > 1")
        .execute(&fixture.pool)
        .await
        .unwrap();
    assert_counts(&fixture, group).await;
}

/// Compares what every reader is told with a plain count.
async fn assert_counts(fixture: &Fixture, group: ConversationId) {
    let head = head(&fixture.pool, group).await;
    for user in present(&fixture.pool, group).await {
        let exact = counted(&fixture.pool, group, &user, head).await;
        let counted = Some(exact);
        assert_eq!(shown(fixture, &user, group).await, counted, "{user}");
        for order in [ListOrder::Recent, ListOrder::Created] {
            assert_eq!(
                listed(fixture, &user, order).await,
                [counted],
                "{user} in a list"
            );
        }
        assert_cut(fixture, group, &user, exact).await;
    }
}

/// Every event counts what stands up to it.
async fn assert_numbers(pool: &PgPool, group: ConversationId) {
    let numbers = "select bool_and(e.messages = n.messages and e.actor_messages is not distinct from n.actor_messages) \
        from events e cross join lateral ( \
            select count(*) as messages, \
                case when e.type = 'message.created' then count(*) filter (where b.actor = e.actor) end as actor_messages \
            from events b where b.conversation_id = e.conversation_id and b.seq <= e.seq and b.type = 'message.created') n \
        where e.conversation_id = $1";
    let (are_right,): (bool,) = sqlx::query_as(numbers)
        .bind(group.0)
        .fetch_one(pool)
        .await
        .unwrap();
    assert!(are_right);
}

/// With small bounds: below the bound a count is exact; at the bound there are so many, or too many deleted ones to look at.
async fn assert_cut(fixture: &Fixture, group: ConversationId, user: &str, exact: u64) {
    for most in [1, 2, 5] {
        let (cut, deleted): (i64, i64) = sqlx::query_as(
            "select unread_messages(c.id, $2, p.last_read_seq, c.messages, $3), \
                (select count(*) from events e where e.conversation_id = c.id and e.seq > p.last_read_seq and e.deleted_at is not null) \
             from conversations c join participants p on p.conversation_id = c.id and p.user_id = $2 and p.left_seq is null \
             where c.id = $1",
        )
        .bind(group.0)
        .bind(user)
        .bind(most)
        .fetch_one(&fixture.pool)
        .await
        .unwrap();
        let exact = i64::try_from(exact).unwrap();
        if cut < most || (exact < most && deleted <= most) {
            assert_eq!(cut, exact, "{user}, at most {most}");
        } else {
            assert_eq!(cut, most, "{user}, at most {most}");
        }
    }
}

#[tokio::test]
async fn unread_behind_what_does_not_count_is_told() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&USERS).await;
    let id = sent(fixture.send(message(group, "bob", "unread")).await).message_id;
    let own: Vec<_> = (0..5_000).map(|_| message(group, "alice", "own")).collect();
    for batch in own.chunks(500) {
        let outcomes = fixture.committer.finish_batch(batch).await.outcomes;
        assert!(outcomes.iter().all(Result::is_ok));
    }
    // Each as a commit numbers it.
    let edits = "insert into events (conversation_id, seq, id, type, actor, created_at, payload, target_seq, messages) \
        select c.id, c.last_seq + n, gen_random_uuid(), 'message.edited', 'bob', now(), '{}', 2, c.messages \
        from conversations c cross join generate_series(1, 10000) n where c.id = $1";
    let head = "update conversations set last_seq = last_seq + 10000 where id = $1";
    for text in [edits, head] {
        let statement = sqlx::query(text).bind(group.0);
        statement.execute(&fixture.pool).await.unwrap();
    }
    assert_eq!(shown(&fixture, "alice", group).await, Some(1));
    assert_counts(&fixture, group).await;
    // Deleted it leaves the count.
    fixture.alone("bob", unsend(None, id)).await.0.unwrap();
    assert_eq!(shown(&fixture, "alice", group).await, Some(0));
}

#[tokio::test]
async fn migration_numbers_an_old_log_as_commits_do() {
    let fixture = Fixture::new().await;
    for users in [["alice", "bob"], ["carol", "bob"]] {
        let group = fixture.group(&users).await;
        for user in [users[0], users[1], users[0], users[0]] {
            let id = sent(fixture.send(message(group, user, "hello")).await).message_id;
            drop(fixture.alone(user, edit(None, id, "edited")).await);
        }
        let both = users.map(|user| message(group, user, "hello"));
        drop(fixture.committer.finish_batch(&both).await);
        fixture.remove(users[0], users[1], group).await;
    }
    fixture.group(&["alice"]).await;
    let committed = numbers(&fixture.pool).await;
    for text in [
        "drop function unread_messages; drop index events_by_actor, events_deleted; \
         update conversations set messages = 0; update events set messages = null, actor_messages = null",
        include_str!("../../../../../migrations/0011_unread_counts.sql"),
    ] {
        sqlx::raw_sql(text).execute(&fixture.pool).await.unwrap();
    }
    assert_eq!(numbers(&fixture.pool).await, committed);
}

/// The numbers of all conversations and events.
async fn numbers(pool: &PgPool) -> Vec<(Uuid, i64, i64, Option<i64>)> {
    sqlx::query_as(
        "select conversation_id, seq, messages, actor_messages from events \
         union all select id, last_seq + 1, messages, null from conversations order by 1, 2",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

async fn present(pool: &PgPool, group: ConversationId) -> Vec<String> {
    sqlx::query_scalar(
        "select user_id from participants where conversation_id = $1 and left_seq is null",
    )
    .bind(group.0)
    .fetch_all(pool)
    .await
    .unwrap()
}

async fn head(pool: &PgPool, group: ConversationId) -> Seq {
    let head: i64 = sqlx::query_scalar("select last_seq from conversations where id = $1")
        .bind(group.0)
        .fetch_one(pool)
        .await
        .unwrap();
    head.cast_unsigned()
}

/// The messages of others above the user's mark, up to an event, that are not deleted.
async fn counted(pool: &PgPool, group: ConversationId, user: &str, up_to: Seq) -> u64 {
    let count: i64 = sqlx::query_scalar(
        "select count(*) from participants p join events e on e.conversation_id = p.conversation_id \
         where p.conversation_id = $1 and p.user_id = $2 and p.left_seq is null and e.seq > p.last_read_seq and e.seq <= $3 \
            and e.type = 'message.created' and e.actor <> $2 and e.deleted_at is null",
    )
    .bind(group.0)
    .bind(user)
    .bind(up_to.cast_signed())
    .fetch_one(pool)
    .await
    .unwrap();
    count.cast_unsigned().min(limits::MAX_UNREAD_COUNT)
}

async fn shown(fixture: &Fixture, user: &str, conversation: ConversationId) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Shown {
        conversation: Conversation,
    }
    let query = Query::GetConversation {
        caller: caller(user),
        conversation,
    };
    match ask(fixture, query).await {
        Answer::Object(text) => {
            let shown: Shown = serde_json::from_str(text.as_str()).unwrap();
            shown.conversation.unread_count
        }
        other => panic!("{other:?}"),
    }
}

/// The counts of the user's first hundred conversations.
async fn listed(fixture: &Fixture, user: &str, order: ListOrder) -> Vec<Option<u64>> {
    let list = ListConversations {
        caller: caller(user),
        limit: 100,
        cursor: None,
        r#type: None,
        order,
    };
    match ask(fixture, Query::ListConversations(list)).await {
        Answer::Page { items, .. } => items
            .iter()
            .map(|item| serde_json::from_str::<Conversation>(item.as_str()).unwrap())
            .map(|conversation| conversation.unread_count)
            .collect(),
        other => panic!("{other:?}"),
    }
}

fn mark(user: &str, conversation: ConversationId, seq: Seq) -> Mark {
    Mark {
        caller: caller(user),
        read: MarkRead::UpTo { conversation, seq },
        deadline: soon(),
        origin: crate::origin::Origin::default(),
    }
}
