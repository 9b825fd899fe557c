//! Rows that a Postgres session keeps locked delay only the commands that need them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::quiet::Quiet;
use super::{start, tell, user_of};
use crate::support::{Cluster, User, eventually, id_of, soak};

/// Messages that may be marked as read.
const MESSAGE_COUNT: usize = 40;

/// How long rows stay locked.
fn hold() -> Duration {
    Duration::from_secs(soak(12, 5) as u64)
}

/// How long a neighbour may wait at most: nothing here keeps the machine busy.
fn longest() -> Duration {
    Duration::from_millis(soak(1_000, 1_500) as u64)
}

/// How soon behind the release a send to a locked conversation is answered.
fn soon() -> Duration {
    Duration::from_millis(soak(200, 2_000) as u64)
}

/// Keeps rows locked by a statement for as long as `meanwhile` takes, but for its own look behind the release.
async fn hold_rows(
    cluster: &Cluster,
    lock: &'static str,
    ids: &[Uuid],
    released: &OnceLock<Instant>,
) {
    let mut psql = PgConnection::connect(&cluster.database.url).await.unwrap();
    let mut holding = psql.begin().await.unwrap();
    let lock = sqlx::query(lock).bind(ids).execute(&mut *holding);
    assert!(lock.await.unwrap().rows_affected() > 0);
    // As long as the fault is.
    sleep(hold()).await;
    released.set(Instant::now()).unwrap();
    holding.rollback().await.unwrap();
    psql.close().await.unwrap();
}

/// Waits until a transaction that began with this statement stands open.
async fn is_held(cluster: &Cluster, lock: &str) {
    let held = "select exists (select from pg_stat_activity where datname = current_database() \
                and state = 'idle in transaction' and query = $1)";
    eventually("the lock is held", hold(), async || {
        let held = sqlx::query_scalar(held).bind(lock);
        let held: bool = held.fetch_one(&cluster.store).await.unwrap();
        held.then_some(())
    })
    .await;
}

/// What a sender of its own to a locked conversation was answered: seqs in the order sent, refusals between them.
struct LockedSends {
    path: String,
    answers: Vec<(u16, Option<u64>)>,
    /// From the release to the first success.
    flowing: Duration,
}

/// Sends one message behind the other until one is stored behind the release.
async fn send_on(user: &User, path: &str, released: &OnceLock<Instant>) -> LockedSends {
    let mut answers = Vec::new();
    let flowing = loop {
        let words = format!("{}", answers.len());
        let message = json!({"conversationId": id_of(path), "kind": "text", "content": words});
        let answer = user.post(0, "/v1/messages", message).await;
        answers.push((answer.status, answer["message"]["seq"].as_u64()));
        if let Some(released) = released.get()
            && answer.status == 201
        {
            break released.elapsed();
        }
        // Its client waits before it tries again, as it is told.
        sleep(Duration::from_millis(20)).await;
    };
    LockedSends {
        path: path.to_owned(),
        answers,
        flowing,
    }
}

impl LockedSends {
    async fn check(&self, cluster: &Cluster) {
        let unknown = self.answers.iter().filter(|(status, _)| *status == 504);
        assert_eq!(unknown.count(), 0, "{}: {:?}", self.path, self.answers);
        let seqs: Vec<_> = self.answers.iter().filter_map(|(_, seq)| *seq).collect();
        assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
        let stored = "select count(*) from events where conversation_id = $1::uuid and type = 'message.created'";
        let stored: i64 = sqlx::query_scalar(stored)
            .bind(id_of(&self.path))
            .fetch_one(&cluster.store)
            .await
            .unwrap();
        // What was refused is not stored.
        assert_eq!(
            stored,
            i64::try_from(seqs.len()).unwrap(),
            "{:?}",
            self.answers
        );
        assert!(self.flowing < soon(), "flowing after {:?}", self.flowing);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locked_conversations_hold_up_nobody_else() {
    let cluster = start(1).await;
    let loud = user_of(&cluster, "loud", "loud");
    let mut paths = Vec::new();
    for _ in 0..soak(50, 12) {
        paths.push(loud.begins(0, "group", &["other"]).await);
    }
    let ids: Vec<Uuid> = paths
        .iter()
        .map(|path| id_of(path).parse().unwrap())
        .collect();
    let quiet = Quiet::start(&cluster).await;
    let released = OnceLock::new();
    let lock = "select from conversations where id = any($1) for update";
    let locking = async {
        let sends = paths.iter().map(|path| send_on(&loud, path, &released));
        let (sends, ()) = tokio::join!(join_all(sends), hold_rows(&cluster, lock, &ids, &released));
        let flowing = sends.iter().map(|one| one.flowing).max();
        println!("flowing {flowing:?} after the release");
        for one in sends {
            one.check(&cluster).await;
        }
    };
    quiet
        .beside("locked conversations", longest(), Box::pin(locking))
        .await;
    quiet.end(&cluster).await;
    cluster.end().await;
}

/// Who only knows the id is told that nothing is there, as of any other that is not its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locked_foreign_conversation_is_not_found_at_once() {
    let cluster = start(1).await;
    let loud = user_of(&cluster, "loud", "loud");
    let stranger = user_of(&cluster, "stranger", "quiet");
    let path = loud.begins(0, "group", &["other"]).await;
    let released = OnceLock::new();
    let lock = "select from conversations where id = any($1) for update";
    let ids = [id_of(&path).parse().unwrap()];
    let asking = async {
        is_held(&cluster, lock).await;
        let message = json!({"conversationId": id_of(&path), "kind": "text", "content": 1});
        let began = Instant::now();
        stranger
            .post(0, "/v1/messages", message)
            .await
            .refused(404, "CONVERSATION_NOT_FOUND");
        assert!(began.elapsed() < longest(), "{:?}", began.elapsed());
    };
    tokio::join!(
        send_on(&loud, &path, &released),
        asking,
        hold_rows(&cluster, lock, &ids, &released)
    );
    cluster.end().await;
}

/// Asks, again and again, for what needs the locked row.
async fn ask_on(released: &OnceLock<Instant>, ask: impl AsyncFn() -> u16) -> Vec<u16> {
    let mut answers = Vec::new();
    while released.get().is_none() {
        answers.push(ask().await);
        sleep(Duration::from_millis(50)).await;
    }
    answers
}

/// The user's own commands that need the row wait; none of its others, and nobody else's.
async fn row_locked(what: &str, lock: &'static str, ask: impl AsyncFn(&User, &str) -> u16) {
    let cluster = start(1).await;
    let loud = user_of(&cluster, "loud", "loud");
    let path = loud.begins(0, "group", &["other"]).await;
    for _ in 0..MESSAGE_COUNT {
        loud.says(0, &path, "something to read").await;
    }
    let create = json!({"type": "group", "participants": ["other"]});
    let key = [("idempotency-key", "key")];
    loud.call(0, "POST", "/v1/conversations", &key, Some(create))
        .await
        .ok(201);
    let quiet = Quiet::start(&cluster).await;
    let released = OnceLock::new();
    let ids = [id_of(&path).parse().unwrap()];
    let locking = async {
        let asking = (0..8).map(|_| ask_on(&released, async || ask(&loud, &path).await));
        let (answers, ()) =
            tokio::join!(join_all(asking), hold_rows(&cluster, lock, &ids, &released));
        tell(what, &answers.concat());
        let behind = timeout(Duration::from_secs(10), ask(&loud, &path)).await;
        assert!(behind.unwrap() < 500, "{what} behind the release");
    };
    quiet.beside(what, longest(), Box::pin(locking)).await;
    quiet.end(&cluster).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locked_membership_holds_up_nobody_else() {
    let lock =
        "select from participants where conversation_id = any($1) and user_id = 'loud' for update";
    let read = AtomicUsize::new(1);
    let locked = row_locked("a locked membership", lock, async |loud, path| {
        // Each would move the mark, which a repeat does not.
        let seq = 1 + read.fetch_add(1, Ordering::SeqCst).min(MESSAGE_COUNT);
        let mark = json!({"conversationId": id_of(path), "upToSeq": seq});
        loud.post(0, "/v1/messages/read", mark).await.status
    });
    Box::pin(locked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locked_count_of_user_holds_up_nobody_else() {
    let lock =
        "select from user_counts where user_id = 'loud' and $1::uuid[] is not null for update";
    let locked = row_locked("a locked count", lock, async |loud, _| {
        let group = json!({"type": "group", "participants": ["other"]});
        loud.post(0, "/v1/conversations", group).await.status
    });
    Box::pin(locked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locked_creation_key_holds_up_nobody_else() {
    let lock = "select from creation_keys where user_id = 'loud' and key = 'key' and $1::uuid[] is not null for update";
    let locked = row_locked("a locked creation key", lock, async |loud, _| {
        let group = json!({"type": "group", "participants": ["other"]});
        let key = [("idempotency-key", "key")];
        loud.call(0, "POST", "/v1/conversations", &key, Some(group))
            .await
            .status
    });
    Box::pin(locked).await;
}
