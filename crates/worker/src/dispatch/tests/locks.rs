//! A lock that lasts is told to operators: by a metric, and by one line in the log that names what waits for it.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, set_default};
use tracing::{Event, Level, Metadata, Subscriber};

use super::*;

/// How long a command that meets a lock is worth an answer.
const LEFT: Duration = Duration::from_millis(800);
const WARNING: &str = "another session of Postgres holds what a command waits for";

/// Counts the warnings of locks on this thread.
#[derive(Default)]
struct Warnings(Arc<AtomicUsize>);

impl Warnings {
    fn listen() -> (Arc<AtomicUsize>, DefaultGuard) {
        let count = Arc::default();
        let guard = set_default(Self(Arc::clone(&count)));
        (count, guard)
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() == Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Message(bool);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
                self.0 |= field.name() == "message" && format!("{value:?}") == WARNING;
            }
        }
        let mut message = Message(false);
        event.record(&mut message);
        self.0.fetch_add(usize::from(message.0), Ordering::Relaxed);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn lasting_lock_of_a_conversation_is_told_once() {
    let mut part = Box::pin(Part::begin()).await;
    let group = part.fixture.group(&["alice"]).await;
    let holder = part.fixture.hold(group).await;
    let (warnings, _listening) = Warnings::listen();
    part.takes_within(send(group), LEFT).await;
    part.works_off().await;
    assert_eq!(part.count("confab_commit_lock_wait_seconds_count"), 1);
    assert!(part.count("confab_commit_locked_total") > 1);
    assert_eq!(warnings.load(Ordering::Relaxed), 1);
    holder.rollback().await.unwrap();
}

#[tokio::test]
async fn lasting_lock_of_memberships_is_told_once() {
    let mut part = Box::pin(Part::begin()).await;
    let group = part.fixture.group(&["alice"]).await;
    let message = testing::message(group, "alice", "hello");
    testing::sent(part.fixture.send(message).await);
    let mark = || {
        Command::MarkRead(MarkRead::UpTo {
            conversation: group,
            seq: 2,
        })
    };
    let mut holder = part.fixture.pool.begin().await.unwrap();
    sqlx::query("select from participants for no key update")
        .execute(&mut *holder)
        .await
        .unwrap();
    let (warnings, _listening) = Warnings::listen();
    for _ in 0..3 {
        part.takes_within(mark(), LEFT).await;
    }
    part.works_off().await;
    assert_eq!(part.count("confab_commit_lock_wait_seconds_count"), 3);
    assert!(part.count("confab_commit_locked_total") > 3);
    assert_eq!(warnings.load(Ordering::Relaxed), 1);

    // One that comes to its end behind the lock has waited, and is no reason to warn.
    part.takes(mark()).await;
    part.dispatch.start();
    eventually("the mark meets the lock", async || {
        let ended = part.dispatch.tasks.join_next_with_id().await;
        part.dispatch.ended(ended?);
        part.dispatch.marks.next_retry().map(drop)
    })
    .await;
    holder.rollback().await.unwrap();
    part.works_off().await;
    assert_eq!(part.count("confab_commit_lock_wait_seconds_count"), 4);
    assert_eq!(warnings.load(Ordering::Relaxed), 1);
}
