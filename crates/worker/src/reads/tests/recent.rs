//! The list by the last message, against a plain sort.

use std::collections::BTreeSet;

use confab_protocol::command::{Command, Outcome};
use confab_protocol::ids::{ConversationId, EventId};
use confab_protocol::query::{Answer, ListConversations, ListOrder, Query};
use confab_protocol::resource::{Conversation, ConversationType, Role};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use uuid::Uuid;

use super::ask;
use crate::testing::{
    Fixture, addition, caller, creation, edit, message, patch, removal, role_change, sent, soak,
};

const USERS: [&str; 3] = ["alice", "bob", "carol"];

/// What happens between two lists.
#[derive(Debug, Clone)]
enum Step {
    /// A conversation begins, for these of the users.
    Begin(ConversationType, u8),
    /// A message in the nth conversation.
    Send(usize),
    /// The nth conversation is renamed, or its last message edited.
    Rename(usize, u8),
    Edit(usize, u8),
    /// Somebody joins the nth conversation, or is removed.
    Join(usize, usize),
    Leave(usize, usize),
    /// The nth conversation grows by so many that its appends write nothing for its members any more.
    Grow(usize),
    /// Everything that was stored is so many milliseconds older.
    Pass(i64),
    /// A list, by pages of so many.
    List(usize, u32, Option<ConversationType>),
}

fn step() -> impl Strategy<Value = Step> {
    use ConversationType::{Channel, Group};
    let types = || prop_oneof![Just(Group), Just(Channel)];
    let n = || 0_usize..12;
    prop_oneof![
        3 => (types(), 1_u8..8).prop_map(|(r#type, users)| Step::Begin(r#type, users)),
        12 => n().prop_map(Step::Send),
        3 => (n(), any::<u8>()).prop_map(|(n, name)| Step::Rename(n, name)),
        3 => (n(), any::<u8>()).prop_map(|(n, text)| Step::Edit(n, text)),
        2 => (n(), 0_usize..3).prop_map(|(n, user)| Step::Join(n, user)),
        2 => (n(), 0_usize..3).prop_map(|(n, user)| Step::Leave(n, user)),
        1 => n().prop_map(Step::Grow),
        6 => prop_oneof![0_i64..200, 50_000_i64..70_000, 0_i64..200_000].prop_map(Step::Pass),
        4 => (0_usize..3, 1_u32..6, proptest::option::of(types()))
            .prop_map(|(user, limit, r#type)| Step::List(user, limit, r#type)),
    ]
}

#[test]
fn the_list_is_that_of_a_plain_sort() {
    let config = Config {
        cases: u32::try_from(soak(100, 6)).unwrap(),
        max_shrink_iters: 0,
        failure_persistence: None,
        ..Config::default()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let steps = proptest::collection::vec(step(), 60..120);
    TestRunner::new(config)
        .run(&steps, |steps| {
            runtime.block_on(Box::pin(carry_out(steps)));
            Ok(())
        })
        .unwrap();
}

async fn carry_out(steps: Vec<Step>) {
    let fixture = Fixture::new().await;
    let mut begun: Vec<ConversationId> = Vec::new();
    for step in steps
        .into_iter()
        .chain((0..3).map(|user| Step::List(user, 2, None)))
    {
        let nth = |n: usize| begun.get(n % begun.len().max(1)).copied();
        match step {
            Step::Begin(r#type, users) => begun.push(begin(&fixture, r#type, users).await),
            Step::Send(n) => {
                if let Some(id) = nth(n) {
                    let items = USERS.map(|user| message(id, user, "hello"));
                    // Those who are no members, or may not send, are refused.
                    drop(fixture.committer.finish_batch(&items).await.outcomes);
                }
            }
            Step::Rename(n, name) => {
                if let Some(id) = nth(n) {
                    let patch = patch(id, &format!(r#"{{"name":"{name}"}}"#));
                    drop(by_product(&fixture, patch).await);
                }
            }
            Step::Edit(n, text) => {
                if let Some(id) = nth(n) {
                    edit_last(&fixture, id, text).await;
                }
            }
            Step::Join(n, user) => {
                if let Some(id) = nth(n) {
                    drop(by_product(&fixture, addition(id, &[USERS[user]])).await);
                }
            }
            Step::Leave(n, user) => {
                if let Some(id) = nth(n) {
                    drop(by_product(&fixture, removal(id, USERS[user])).await);
                }
            }
            Step::Grow(n) => {
                if let Some(id) = nth(n) {
                    let names: Vec<_> = (0..101).map(|_| Uuid::now_v7().to_string()).collect();
                    let names: Vec<_> = names.iter().map(String::as_str).collect();
                    drop(by_product(&fixture, addition(id, &names)).await);
                }
            }
            Step::Pass(milliseconds) => pass(&fixture, milliseconds).await,
            Step::List(user, limit, r#type) => {
                let expected = sorted(&fixture, USERS[user], r#type).await;
                let listed = all(&fixture, list(USERS[user], limit, r#type)).await;
                assert_eq!(listed, expected, "{} by {limit}", USERS[user]);
            }
        }
    }
    assert_invariants(&fixture).await;
}

#[tokio::test]
async fn only_a_message_moves_a_conversation_up() {
    let fixture = Fixture::new().await;
    let (old, new) = (fixture.group(&["alice", "bob"]).await, {
        pass(&fixture, 200_000).await;
        fixture.group(&["alice"]).await
    });
    let first = message(old, "alice", "one");
    let id = sent(fixture.send(first).await).message_id;
    pass(&fixture, 200_000).await;
    sent(fixture.send(message(new, "alice", "later")).await);
    pass(&fixture, 200_000).await;
    let recent = async || all(&fixture, list("alice", 1, None)).await;
    for command in [
        edit(None, id, "edited"),
        patch(old, r#"{"name":"x"}"#),
        addition(old, &["carol"]),
        role_change(old, "bob", Role::Admin),
        removal(old, "carol"),
    ] {
        fixture.alone("alice", command).await.0.unwrap();
        assert_eq!(recent().await, [new, old]);
    }
    sent(fixture.send(message(old, "alice", "two")).await);
    assert_eq!(recent().await, [old, new]);
}

#[tokio::test]
async fn none_comes_twice_while_conversations_move() {
    let fixture = Fixture::new().await;
    let mut groups = Vec::new();
    for _ in 0..30 {
        groups.push(fixture.group(&["alice"]).await);
        pass(&fixture, 5000).await;
    }
    let moving = async {
        for n in 0..soak(300, 60) {
            let group = groups[n * 7 % groups.len()];
            drop(fixture.send(message(group, "alice", "up")).await);
        }
    };
    let reading = async {
        for _ in 0..soak(60, 12) {
            for order in [ListOrder::Recent, ListOrder::Created] {
                let query = ListConversations {
                    order,
                    ..list("alice", 4, None)
                };
                let listed = all(&fixture, query).await;
                let once: BTreeSet<_> = listed.iter().collect();
                assert_eq!(once.len(), listed.len());
                if order == ListOrder::Created {
                    assert!(listed.iter().eq(groups.iter().rev()));
                }
            }
        }
    };
    Box::pin(async { tokio::join!(moving, reading) }).await;
}

#[tokio::test]
async fn a_rare_type_is_found_page_by_page_in_either_order() {
    let fixture = Fixture::new().await;
    let all_types = [ConversationType::Channel, ConversationType::Group];
    let mut channels = Vec::new();
    for n in 0..4 {
        channels.push(begin(&fixture, ConversationType::Channel, 1).await);
        if n < 3 {
            super::scale::begin_many(&fixture.pool, "alice", 1200).await;
        }
    }
    channels.reverse();
    for order in [ListOrder::Recent, ListOrder::Created] {
        let query = |r#type| ListConversations {
            order,
            ..list("alice", 3, r#type)
        };
        let found = all(&fixture, query(Some(ConversationType::Channel))).await;
        assert_eq!(found, channels);
        let mut count = 0;
        for r#type in all_types {
            let query = ListConversations {
                limit: 100,
                ..query(Some(r#type))
            };
            count += all(&fixture, query).await.len();
        }
        assert_eq!(count, 3604);
    }
}

/// A conversation of those of the users whose bit is set.
async fn begin(fixture: &Fixture, r#type: ConversationType, users: u8) -> ConversationId {
    let among = (0..3).filter(|n| users & (1 << n) != 0);
    let names: Vec<_> = among.map(|n| USERS[n]).collect();
    let create = creation(&Uuid::now_v7().to_string(), r#type, &names);
    match fixture.alone(names[0], create).await.0.unwrap() {
        Outcome::Created(created) => created.conversation,
        other => panic!("{other:?}"),
    }
}

/// A command of the product's backend; refusals are part of the game.
async fn by_product(fixture: &Fixture, command: Command) -> crate::commit::CommandOutcome {
    let mut request = crate::testing::request("backend", command);
    request.caller.admin = true;
    let (outcome, _) = fixture
        .committer
        .finish_alone(&request, crate::testing::soon())
        .await;
    outcome
}

/// The sender of the last message edits it.
async fn edit_last(fixture: &Fixture, id: ConversationId, text: u8) {
    let last: Option<(Uuid, String)> = sqlx::query_as(
        "select e.id, e.actor from conversations c \
         join events e on e.conversation_id = c.id and e.seq = c.last_message_seq where c.id = $1",
    )
    .bind(id.0)
    .fetch_optional(&fixture.pool)
    .await
    .unwrap();
    if let Some((message, sender)) = last {
        let edit = edit(None, EventId(message), &text.to_string());
        drop(fixture.alone(&sender, edit).await);
    }
}

/// Lets time pass: all that is stored is older.
async fn pass(fixture: &Fixture, milliseconds: i64) {
    let mut tx = fixture.pool.begin().await.unwrap();
    for text in [
        "update conversations set last_event_at = last_event_at - $1 * interval '1 millisecond', \
            last_message_at = last_message_at - $1 * interval '1 millisecond', active_at = active_at - $1 * interval '1 millisecond'",
        "update recents set active_at = active_at - $1 * interval '1 millisecond'",
    ] {
        sqlx::query(text)
            .bind(milliseconds)
            .execute(&mut *tx)
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
}

async fn sorted(
    fixture: &Fixture,
    user: &str,
    r#type: Option<ConversationType>,
) -> Vec<ConversationId> {
    let rows: Vec<(Uuid,)> = sqlx::query_as(
        "select c.id from conversations c join participants p on p.conversation_id = c.id \
         where p.user_id = $1 and p.left_seq is null and c.deleted_at is null and ($2::text is null or c.type = $2) \
         order by c.last_message_at desc, c.id desc",
    )
    .bind(user)
    .bind(r#type.map(ConversationType::as_str))
    .fetch_all(&fixture.pool)
    .await
    .unwrap();
    rows.into_iter().map(|(id,)| ConversationId(id)).collect()
}

/// Every present membership has its row, and the last message lies within the minute that begins at its time.
async fn assert_invariants(fixture: &Fixture) {
    let (wrong,): (i64,) = sqlx::query_as(
        "select (select count(*) from recents r full join (select * from participants where left_seq is null) p \
                on p.conversation_id = r.conversation_id and p.user_id = r.user_id \
                where r.user_id is null or p.user_id is null) \
            + (select count(*) from recents r join conversations c on c.id = r.conversation_id \
                where r.active_at <> c.active_at or c.deleted_at is not null \
                    or (c.members > 100 and c.active_at <> 'infinity') \
                    or (c.active_at <> 'infinity' and c.last_message_at not between c.active_at and c.active_at + interval '1 minute'))",
    )
    .fetch_one(&fixture.pool)
    .await
    .unwrap();
    assert_eq!(wrong, 0);
}

fn list(user: &str, limit: u32, r#type: Option<ConversationType>) -> ListConversations {
    ListConversations {
        caller: caller(user),
        limit,
        cursor: None,
        r#type,
        order: ListOrder::Recent,
    }
}

/// All pages of a list.
async fn all(fixture: &Fixture, mut list: ListConversations) -> Vec<ConversationId> {
    let mut listed = Vec::new();
    loop {
        let query = Query::ListConversations(list.clone());
        let Answer::Page { items, next_cursor } = ask(fixture, query).await else {
            panic!("a page");
        };
        assert!(items.len() <= list.limit as usize);
        let id = |text: &str| serde_json::from_str::<Conversation>(text).unwrap().id;
        listed.extend(items.iter().map(|item| id(item.as_str())));
        list.cursor = next_cursor;
        if list.cursor.is_none() {
            return listed;
        }
    }
}
