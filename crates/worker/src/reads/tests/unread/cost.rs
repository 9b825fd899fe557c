//! What counts touch: few rows, whatever is unread, and however Postgres took the size of the log when it planned.

use std::time::{Duration, Instant};

use confab_protocol::ids::ConversationId;
use confab_protocol::query::ListOrder;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, Row as _};
use uuid::Uuid;

use super::super::super::{conversations, list};
use super::{counted, listed};
use crate::commit::bind;
use crate::testing::{Fixture, message, soak};

/// Rows of the log that a count looks at beside the deleted messages.
const LOOK_UPS: i64 = 5;
/// Deleted messages that it looks at.
const DELETED: i64 = 1001;

#[tokio::test]
async fn counts_over_a_large_log_read_few_rows() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let pool = patient(&fixture.url).await;
    execute(&pool, "alter table events set (autovacuum_enabled = off)").await;
    let mut connection = connect(&fixture.url).await;
    // This connection's plans are those of an empty log, and stay so.
    assert_eq!(count(&mut connection, group, "alice").await.0, 0);

    let events = i64::try_from(soak(1_000_000, 50_000)).unwrap();
    fill(&pool, group, events).await;
    for round in ["never analyzed", "analyzed"] {
        for mark in [
            1,
            events / 2,
            events - 15_000,
            events - 1500,
            events - 20,
            events,
        ] {
            sqlx::query("update participants set last_read_seq = $2 where conversation_id = $1")
                .bind(group.0)
                .bind(mark)
                .execute(&pool)
                .await
                .unwrap();
            for user in ["alice", "bob"] {
                let (unread, rows) = count(&mut connection, group, user).await;
                let exact = counted(&pool, group, user, events.cast_unsigned()).await;
                assert_eq!(
                    unread.cast_unsigned(),
                    exact,
                    "{round}, {user} has read {mark}"
                );
                assert!(
                    rows <= LOOK_UPS + DELETED,
                    "{round}, mark {mark}: {rows} rows"
                );
            }
        }
        execute(&pool, "analyze").await;
        connection = connect(&fixture.url).await;
    }
    delete_all(&pool, group).await;
    // Too many deleted ones to look at: the count says so by its bound.
    for (mark, told) in [(1, 1000), (events - 5000, 1000), (events - 900, 0)] {
        sqlx::query("update participants set last_read_seq = $2 where conversation_id = $1")
            .bind(group.0)
            .bind(mark)
            .execute(&pool)
            .await
            .unwrap();
        let (unread, rows) = count(&mut connection, group, "bob").await;
        assert_eq!(unread, told, "mark {mark}");
        assert!(
            rows <= LOOK_UPS + DELETED,
            "{rows} rows of deleted messages"
        );
    }
}

#[tokio::test]
async fn numbers_beside_many_short_logs_read_few_rows() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let pool = patient(&fixture.url).await;
    execute(&pool, "alter table events set (autovacuum_enabled = off)").await;
    let events = i64::try_from(soak(200_000, 20_000)).unwrap();
    fill(&pool, group, events).await;
    // One event a conversation on average: any index by conversation looks as good as another.
    sqlx::query(
        "insert into events (conversation_id, seq, id, type, actor, created_at, payload, messages) \
         select gen_random_uuid(), 1, gen_random_uuid(), 'conversation.created', 'alice', now(), '{}', 0 \
         from generate_series(1, $1 * 5)",
    )
    .bind(events)
    .execute(&pool)
    .await
    .unwrap();
    execute(&pool, "analyze").await;

    let mut connection = connect(&fixture.url).await;
    let (unread, rows) = count(&mut connection, group, "bob").await;
    assert_eq!(unread, 1000);
    assert!(rows <= LOOK_UPS + DELETED, "{rows} rows to count");
    for size in [1, 16] {
        // One who has sent most, and one who has sent little.
        let items: Vec<_> = (0..size)
            .map(|n| message(group, ["bob", "alice"][n % 2], "hello"))
            .collect();
        let batch: Vec<_> = items.iter().map(|item| &item.append).collect();
        let mut tx = connection.begin().await.unwrap();
        let before = rows_read(&mut tx).await;
        bind(&batch).fetch_all(&mut *tx).await.unwrap();
        let rows = rows_read(&mut tx).await - before;
        tx.commit().await.unwrap();
        let most = 2 * i64::try_from(size).unwrap();
        assert!(rows <= most, "{rows} rows to send {size}");
    }
}

#[tokio::test]
async fn list_of_own_messages_reads_few_rows() {
    let fixture = Fixture::new().await;
    let own = i64::try_from(soak(10_000, 500)).unwrap();
    for _ in 0..100 {
        let group = fixture.group(&["bot", "alice"]).await;
        own_messages(&fixture.pool, group, own).await;
    }
    let mut connection = connect(&fixture.url).await;
    let mut tx = connection.begin().await.unwrap();
    let rows = sqlx::query(AssertSqlSafe(list::statement(ListOrder::Recent)))
        .bind("default")
        .bind("bot")
        .bind(vec!["direct", "group", "channel"])
        .bind(Uuid::max())
        .bind(101_i64)
        .bind(time::macros::datetime!(9999-12-31 00:00 UTC))
        .fetch_all(&mut *tx)
        .await
        .unwrap();
    assert_eq!(rows.len(), 100);
    let read = rows_read(&mut tx).await;
    assert!(read <= 100 * (LOOK_UPS + 1), "{read} rows");
    tx.rollback().await.unwrap();

    let began = Instant::now();
    assert_eq!(
        listed(&fixture, "bot", ListOrder::Recent).await,
        [Some(0); 100]
    );
    let took = began.elapsed();
    println!("100 conversations of {own} own messages: {read} rows, {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    let unread = Some(own.cast_unsigned().min(1000));
    assert_eq!(
        listed(&fixture, "alice", ListOrder::Recent).await,
        [unread; 100]
    );
}

/// Connections whose statements may take long.
async fn patient(url: &str) -> PgPool {
    PgPool::connect(url).await.unwrap()
}

/// A connection that plans as those of workers do.
async fn connect(url: &str) -> PgConnection {
    let mut connection = PgConnection::connect(url).await.unwrap();
    for (name, value) in crate::database::PLANS {
        sqlx::query(AssertSqlSafe(format!("set {name} = {value}")))
            .execute(&mut connection)
            .await
            .unwrap();
    }
    connection
}

/// What the user has not read, and how many rows of the log were read for that.
async fn count(connection: &mut PgConnection, group: ConversationId, user: &str) -> (i64, i64) {
    let mut tx = connection.begin().await.unwrap();
    let before = rows_read(&mut tx).await;
    let row = sqlx::query(AssertSqlSafe(conversations::statement()))
        .bind(group.0)
        .bind(user)
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    let rows = rows_read(&mut tx).await - before;
    tx.rollback().await.unwrap();
    (row.get("unread"), rows)
}

/// Rows of the log that this connection has read and not yet reported; none by scanning it.
async fn rows_read(tx: &mut PgConnection) -> i64 {
    let read =
        "select seq_tup_read, idx_tup_fetch from pg_stat_xact_user_tables where relname = 'events'";
    let (scanned, fetched): (i64, i64) = sqlx::query_as(read).fetch_one(tx).await.unwrap();
    assert_eq!(scanned, 0);
    fetched
}

/// Lets bob send nine of ten messages and alice the tenth; a tenth of the events are edits, another tenth are deleted messages.
async fn fill(pool: &PgPool, group: ConversationId, events: i64) {
    sqlx::query(
        "insert into events (conversation_id, seq, id, type, actor, created_at, deleted_at, payload, messages, actor_messages) \
         select $1, n, gen_random_uuid(), case when k.is_edit then 'message.edited' else 'message.created' end, k.actor, now(), \
            case when n % 10 = 7 then now() end, '{}', \
            count(*) filter (where not k.is_edit) over (order by n), \
            case when not k.is_edit then \
                count(*) filter (where not k.is_edit) over (partition by k.actor order by n) end \
         from generate_series(2, $2) as n \
         cross join lateral (select n % 10 = 3 as is_edit, case when n / 10 % 10 = 1 then 'alice' else 'bob' end as actor) k",
    )
    .bind(group.0)
    .bind(events)
    .execute(pool)
    .await
    .unwrap();
    sqlx::query(
        "update conversations c set last_seq = e.seq, messages = e.messages from events e \
         where c.id = $1 and e.conversation_id = $1 and e.seq = $2",
    )
    .bind(group.0)
    .bind(events)
    .execute(pool)
    .await
    .unwrap();
}

/// Deletes alice's and bob's newest messages.
async fn delete_all(pool: &PgPool, group: ConversationId) {
    sqlx::query(
        "update events set deleted_at = now() where conversation_id = $1 and type = 'message.created' and seq > ( \
            select last_seq - 20000 from conversations where id = $1)",
    )
    .bind(group.0)
    .execute(pool)
    .await
    .unwrap();
}

/// Appends messages of a bot.
async fn own_messages(pool: &PgPool, group: ConversationId, count: i64) {
    sqlx::query(
        "insert into events (conversation_id, seq, id, type, actor, created_at, payload, messages, actor_messages) \
         select $1, n + 1, gen_random_uuid(), 'message.created', 'bot', now(), '{\"kind\":\"text\",\"metadata\":{}}', n, n \
         from generate_series(1, $2) as n",
    )
    .bind(group.0)
    .bind(count)
    .execute(pool)
    .await
    .unwrap();
    sqlx::query("update conversations set last_seq = $2 + 1, messages = $2 where id = $1")
        .bind(group.0)
        .bind(count)
        .execute(pool)
        .await
        .unwrap();
}

async fn execute(pool: &PgPool, text: &str) {
    sqlx::query(AssertSqlSafe(text.to_owned()))
        .execute(pool)
        .await
        .unwrap();
}
