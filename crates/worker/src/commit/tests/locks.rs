//! What another holds is left out, waits apart, and is carried out once it is free.

use std::time::{Duration, Instant};

use confab_protocol::command::Caller;
use confab_protocol::error::Code;
use confab_protocol::ids::ConversationId;
use futures_util::future::join;

use crate::commit::{Fate, Item};
use crate::messages;
use crate::origin::Origin;
use crate::planner::{Locking, Open};
use crate::testing::{Fixture, addition, caller, code, message, patch, request, sent, soon};

fn is_locked(fate: &Fate) -> bool {
    matches!(fate, Fate::Locked(open) if !open.is_unknown)
}

#[tokio::test]
async fn locked_conversation_is_left_out_of_the_batch() {
    let fixture = Fixture::new().await;
    let (free, held) = (
        fixture.group(&["alice"]).await,
        fixture.group(&["alice"]).await,
    );
    let holder = fixture.hold(held).await;
    let batch = [held, free, held, free].map(|group| message(group, "alice", "hello"));
    let end = fixture.committer.batch(&batch, Locking::Skip).await;
    let skipped: Vec<_> = end.fates.iter().map(is_locked).collect();
    assert_eq!(skipped, [true, false, true, false]);
    let alone = [message(held, "alice", "alone")];
    let end = fixture.committer.batch(&alone, Locking::Skip).await;
    assert!(is_locked(&end.fates[0]));
    assert_eq!(fixture.log(free).await.len(), 3);
    assert_eq!(fixture.log(held).await.len(), 1);
    holder.rollback().await.unwrap();
    let end = fixture.committer.batch(&batch, Locking::Skip).await;
    assert!(!end.fates.iter().any(is_locked));
    assert_eq!(fixture.log(held).await.len(), 3);
}

#[tokio::test]
async fn unknown_or_foreign_conversation_is_not_found_at_once() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice"]).await;
    let holder = fixture.hold(group).await;
    let stranger = Caller {
        tenant: "other".parse().unwrap(),
        ..caller("alice")
    };
    let unknown = ConversationId(uuid::Uuid::now_v7());
    let foreign = |item: Item| Item {
        append: messages::send(stranger.clone(), item.append.message).unwrap(),
        ..item
    };
    for size in [1, 3] {
        for item in [
            foreign(message(group, "alice", "x")),
            message(unknown, "alice", "x"),
        ] {
            let append = item.append.clone();
            let batch: Vec<_> = (0..size)
                .map(|_| Item {
                    append: append.clone(),
                    deadline: soon(),
                    open: Open::default(),
                    origin: Origin::default(),
                })
                .collect();
            let end = fixture.committer.batch(&batch, Locking::Skip).await;
            for fate in end.fates {
                let Fate::Decided(outcome) = fate else {
                    panic!("{fate:?}");
                };
                assert_eq!(code(outcome), Code::ConversationNotFound);
            }
        }
    }
    holder.rollback().await.unwrap();
}

#[tokio::test]
async fn waiting_sends_are_stored_in_order_after_release() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice"]).await;
    let holder = fixture.hold(group).await;
    let batch = ["one", "two", "three"].map(|text| message(group, "alice", text));
    let waiting = fixture.committer.batch(&batch, Locking::Wait);
    let release = async {
        fixture.waiters(1).await;
        holder.rollback().await.unwrap();
    };
    let (end, ()) = join(waiting, release).await;
    let seqs = end.fates.into_iter().map(|fate| match fate {
        Fate::Decided(outcome) => sent(outcome).seq,
        Fate::Locked(open) => panic!("{open:?}"),
    });
    assert_eq!(seqs.collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!(end.committed.len(), 1);
}

#[tokio::test]
async fn waiting_ends_with_the_deadline() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice"]).await;
    let holder = fixture.hold(group).await;
    let deadline = Instant::now() + Duration::from_millis(300);
    let item = Item {
        deadline,
        ..message(group, "alice", "hello")
    };
    let end = fixture.committer.batch(&[item], Locking::Wait).await;
    assert!(is_locked(&end.fates[0]));
    assert!(Instant::now() >= deadline);
    holder.rollback().await.unwrap();
}

#[tokio::test]
async fn doubt_is_kept_while_the_conversation_is_locked() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice"]).await;
    let doubted = || {
        let mut item = message(group, "alice", "hello");
        item.open.is_unknown = true;
        item
    };
    let holder = fixture.hold(group).await;
    for batch in [vec![doubted()], vec![doubted(), doubted()]] {
        let end = fixture.committer.batch(&batch, Locking::Skip).await;
        for fate in end.fates {
            let Fate::Locked(open) = fate else {
                panic!("{fate:?}");
            };
            assert_eq!(open.when_late().code, Code::Timeout);
        }
    }
    let doubt = Open {
        is_unknown: true,
        skipped: None,
    };
    let command = request("alice", patch(group, "{}"));
    let alone = fixture
        .committer
        .alone(&command, soon(), Locking::Skip, doubt);
    let (fate, _) = alone.await;
    assert!(matches!(fate, Fate::Locked(open) if open.is_unknown));
    holder.rollback().await.unwrap();
}

#[tokio::test]
async fn single_commands_leave_out_what_any_lock_holds() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let command = request("alice", addition(group, &["carol"]));
    for held in [
        "select from conversations for no key update",
        "insert into user_counts (tenant, user_id, memberships) values ('default', 'carol', 0)",
    ] {
        let mut holder = fixture.pool.begin().await.unwrap();
        sqlx::query(held).execute(&mut *holder).await.unwrap();
        let (fate, _) = fixture
            .committer
            .alone(&command, soon(), Locking::Skip, Open::default())
            .await;
        assert!(is_locked(&fate), "{held}: {fate:?}");
        holder.rollback().await.unwrap();
    }
    let (fate, _) = fixture
        .committer
        .alone(&command, soon(), Locking::Wait, Open::default())
        .await;
    assert!(matches!(fate, Fate::Decided(Ok(_))), "{fate:?}");
}
