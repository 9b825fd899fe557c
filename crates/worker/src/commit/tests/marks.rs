//! Read marks: many in one statement.

use confab_protocol::command::{Caller, MarkRead, Outcome, ReadMark};
use confab_protocol::error::Code;
use confab_protocol::ids::{ConversationId, EventId, Seq};
use futures_util::future::join_all;
use sqlx::PgPool;
use uuid::Uuid;

use crate::commit::{CommandOutcome, Fate, Mark};
use crate::origin::Origin;
use crate::testing::{Fixture, addition, caller, code, message, sent, soak, soon};

#[tokio::test]
async fn marks_only_move_forward_and_never_above_the_head() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    for text in ["a", "b", "c"] {
        sent(fixture.send(message(group, "alice", text)).await);
    }
    for (seq, up_to, moved) in [
        (0, 1, false),
        (3, 3, true),
        (3, 3, false),
        (2, 3, false),
        (Seq::MAX, 4, true),
        (5, 4, false),
    ] {
        let expected = ReadMark {
            conversation: group,
            up_to,
            moved,
            members: 2,
        };
        assert_eq!(read(mark(&fixture, "bob", group, seq).await), [expected]);
        assert_eq!(stands(&fixture.pool, group, "bob").await, up_to);
    }
    assert_eq!(stands(&fixture.pool, group, "alice").await, 1);
}

#[tokio::test]
async fn there_is_nothing_to_mark_where_one_is_not_a_member() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let hello = sent(fixture.send(message(group, "alice", "hello")).await).message_id;
    let unknown = ConversationId(Uuid::now_v7());
    fixture.remove("alice", "bob", group).await;
    for (user, conversation) in [("mallory", group), ("alice", unknown), ("bob", group)] {
        let refused = mark(&fixture, user, conversation, 2).await;
        assert_eq!(code(refused), Code::ConversationNotFound, "{user}");
    }
    for user in ["mallory", "bob"] {
        let refused = mark_messages(&fixture, user, &[hello]).await;
        assert_eq!(code(refused), Code::MessageNotFound, "{user}");
    }
    // A user of the same name, of another product.
    let foreign = Mark {
        caller: Caller {
            tenant: "other".parse().unwrap(),
            ..caller("alice")
        },
        ..up_to("alice", group, 2)
    };
    let refused = fixture.committer.finish_marks(&[foreign]).await.remove(0);
    assert_eq!(code(refused), Code::ConversationNotFound);
    assert_eq!(stands(&fixture.pool, group, "alice").await, 1);

    fixture.remove("alice", "alice", group).await;
    for (user, told) in [
        ("alice", [Code::ConversationDeleted; 2]),
        ("bob", [Code::ConversationDeleted; 2]),
        (
            "mallory",
            [Code::ConversationNotFound, Code::MessageNotFound],
        ),
    ] {
        let refused = [
            code(mark(&fixture, user, group, 2).await),
            code(mark_messages(&fixture, user, &[hello]).await),
        ];
        assert_eq!(refused, told, "{user}");
    }
}

#[tokio::test]
async fn messages_are_marked_all_or_none() {
    let fixture = Fixture::new().await;
    let (one, other) = (
        fixture.group(&["alice", "bob"]).await,
        fixture.group(&["alice", "bob"]).await,
    );
    let foreign = fixture.group(&["alice"]).await;
    let mut ids = Vec::new();
    for group in [one, one, other, foreign] {
        ids.push(sent(fixture.send(message(group, "alice", "hello")).await).message_id);
    }
    let (creation,): (Uuid,) =
        sqlx::query_as("select id from events where conversation_id = $1 and seq = 1")
            .bind(one.0)
            .fetch_one(&fixture.pool)
            .await
            .unwrap();
    for bad in [ids[3], EventId(creation), EventId(Uuid::now_v7())] {
        let refused = mark_messages(&fixture, "bob", &[ids[1], bad, ids[2]]).await;
        assert_eq!(code(refused), Code::MessageNotFound);
    }
    assert_eq!(stands(&fixture.pool, one, "bob").await, 1);
    assert_eq!(stands(&fixture.pool, other, "bob").await, 1);

    let mut marks = read(mark_messages(&fixture, "bob", &[ids[1], ids[2], ids[0]]).await);
    marks.sort_by_key(|mark| mark.conversation);
    let expected = |conversation, up_to| ReadMark {
        conversation,
        up_to,
        moved: true,
        members: 2,
    };
    assert_eq!(marks, [expected(one, 3), expected(other, 2)]);
    assert_eq!(stands(&fixture.pool, one, "bob").await, 3);
}

#[tokio::test]
async fn marks_of_one_moment_go_together_and_each_is_answered() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    for _ in 0..9 {
        sent(fixture.send(message(group, "alice", "hello")).await);
    }
    let mut marks: Vec<_> = (0..10).map(|seq| up_to("bob", group, seq)).collect();
    marks.insert(3, up_to("mallory", group, 9));
    marks.push(up_to("alice", group, 4));
    let mut outcomes = fixture.committer.finish_marks(&marks).await;
    let alices = read(outcomes.pop().unwrap());
    assert_eq!((alices[0].up_to, alices[0].moved), (4, true));
    assert_eq!(code(outcomes.remove(3)), Code::ConversationNotFound);
    assert_eq!(outcomes.len(), 10);
    for (seq, outcome) in outcomes.into_iter().enumerate() {
        let mark = read(outcome)[0];
        assert_eq!((mark.up_to, mark.moved), (9, seq > 1));
    }
    assert_eq!(stands(&fixture.pool, group, "bob").await, 9);
}

#[tokio::test]
async fn mark_behind_a_removal_or_deletion_sees_it() {
    let fixture = Fixture::new().await;
    let deleted = "update conversations set deleted_at = now(), deleted_seq = 3 where id = $1";
    let removed = "select $1::uuid";
    for (also, end, told) in [
        (removed, true, Some(Code::ConversationNotFound)),
        (deleted, true, Some(Code::ConversationDeleted)),
        (deleted, false, None),
    ] {
        let group = fixture.group(&["alice", "bob"]).await;
        sent(fixture.send(message(group, "alice", "hello")).await);
        let mut holder = fixture.pool.begin().await.unwrap();
        let ends = "update participants set left_seq = 3, left_at = now() where conversation_id = $1 and user_id = 'bob'";
        for text in [ends, also] {
            sqlx::query(text)
                .bind(group.0)
                .execute(&mut *holder)
                .await
                .unwrap();
        }
        let marks = [up_to("bob", group, 2)];
        let skipped = fixture.committer.mark(&marks).await.remove(0);
        assert!(matches!(skipped, Fate::Locked(_)), "{skipped:?}");
        if end {
            holder.commit().await.unwrap();
        } else {
            holder.rollback().await.unwrap();
        }
        let outcome = mark(&fixture, "bob", group, 2).await;
        assert_eq!(outcome.err().map(|failure| failure.code), told);
        let expected = if told.is_some() { 1 } else { 2 };
        assert_eq!(stands(&fixture.pool, group, "bob").await, expected);
    }
}

#[tokio::test]
async fn no_send_waits_for_a_mark() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let mut holder = fixture.pool.begin().await.unwrap();
    sqlx::query("select mark_read('{0}', '{default}', '{bob}', array[$1], '{1}', '{null}')")
        .bind(group.0)
        .execute(&mut *holder)
        .await
        .unwrap();
    sqlx::query("select from participants where conversation_id = $1 for no key update")
        .bind(group.0)
        .execute(&mut *holder)
        .await
        .unwrap();
    assert_eq!(
        sent(fixture.send(message(group, "bob", "hello")).await).seq,
        2
    );
    holder.rollback().await.unwrap();
}

#[tokio::test]
async fn marks_beside_sends_removals_and_additions_end_within_the_log() {
    let fixture = Fixture::new().await;
    let rounds = soak(100, 10);
    let users = ["alice", "bob", "carol"];
    let groups = [fixture.group(&users).await, fixture.group(&users).await];
    let marking = users.map(|user| {
        let fixture = &fixture;
        async move {
            for round in 0..rounds * 3 {
                let seq = round as Seq;
                // Either order: they are locked in one.
                let mut marks = groups.map(|group| up_to(user, group, seq));
                marks.rotate_left(round % 2);
                let outcomes = fixture.committer.finish_marks(&marks).await;
                for outcome in outcomes.into_iter().filter_map(Result::err) {
                    assert_eq!(outcome.code, Code::ConversationNotFound);
                }
            }
        }
    });
    let changing = async {
        for round in 0..rounds {
            let group = groups[round % 2];
            sent(fixture.send(message(group, "alice", "hello")).await);
            fixture.remove("alice", "bob", group).await;
            let (back, _) = fixture.alone("alice", addition(group, &["bob"])).await;
            back.unwrap();
        }
    };
    Box::pin(async { tokio::join!(join_all(marking), changing) }).await;
    let (wrong,): (i64,) = sqlx::query_as(
        "select count(*) from participants p join conversations c on c.id = p.conversation_id \
         where last_read_seq < joined_seq or last_read_seq > coalesce(left_seq, last_seq)",
    )
    .fetch_one(&fixture.pool)
    .await
    .unwrap();
    assert_eq!(wrong, 0);
}

/// What Postgres refuses of one mark, it refuses of all that stand in the same statement.
#[tokio::test]
async fn mark_that_postgres_refuses_fails_alone() {
    const REFUSING: &str = "
        alter function mark_read(integer[], text[], text[], uuid[], bigint[], uuid[]) rename to mark_all;
        create function mark_read(
            in_commands integer[], in_tenants text[], in_users text[], in_conversations uuid[], in_seqs bigint[], in_messages uuid[]
        ) returns table (command integer, outcome text, conversation uuid, up_to bigint, moved boolean, members integer)
        language plpgsql volatile as $$
        begin
            if 'mallory' = any(in_users) then
                raise 'not for mallory' using errcode = '22000';
            end if;
            return query select * from mark_all(in_commands, in_tenants, in_users, in_conversations, in_seqs, in_messages);
        end
        $$";
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "mallory", "bob"]).await;
    sent(fixture.send(message(group, "alice", "hello")).await);
    sqlx::raw_sql(REFUSING)
        .execute(&fixture.pool)
        .await
        .unwrap();
    let marks = ["alice", "mallory", "bob"].map(|user| up_to(user, group, 2));
    let outcomes = fixture.committer.finish_marks(&marks).await;
    let codes = outcomes
        .into_iter()
        .map(|outcome| outcome.err().map(|failure| failure.code));
    assert_eq!(
        codes.collect::<Vec<_>>(),
        [None, Some(Code::Validation), None]
    );
    for (user, expected) in [("alice", 2), ("mallory", 1), ("bob", 2)] {
        assert_eq!(stands(&fixture.pool, group, user).await, expected, "{user}");
    }
}

pub(super) fn up_to(user: &str, conversation: ConversationId, seq: Seq) -> Mark {
    Mark {
        caller: caller(user),
        read: MarkRead::UpTo { conversation, seq },
        deadline: soon(),
        origin: Origin::default(),
    }
}

async fn mark(
    fixture: &Fixture,
    user: &str,
    conversation: ConversationId,
    seq: Seq,
) -> CommandOutcome {
    let marks = [up_to(user, conversation, seq)];
    fixture.committer.finish_marks(&marks).await.remove(0)
}

async fn mark_messages(fixture: &Fixture, user: &str, messages: &[EventId]) -> CommandOutcome {
    let mark = Mark {
        caller: caller(user),
        read: MarkRead::Messages(messages.to_vec()),
        deadline: soon(),
        origin: Origin::default(),
    };
    fixture.committer.finish_marks(&[mark]).await.remove(0)
}

fn read(outcome: CommandOutcome) -> Vec<ReadMark> {
    match outcome.unwrap() {
        Outcome::Read(marks) => marks,
        other => panic!("{other:?}"),
    }
}

/// Where the mark of a user's latest membership stands.
pub(super) async fn stands(pool: &PgPool, conversation: ConversationId, user: &str) -> Seq {
    let (seq,): (i64,) = sqlx::query_as(
        "select last_read_seq from participants where conversation_id = $1 and user_id = $2 \
         order by joined_seq desc limit 1",
    )
    .bind(conversation.0)
    .bind(user)
    .fetch_one(pool)
    .await
    .unwrap();
    seq.cast_unsigned()
}
