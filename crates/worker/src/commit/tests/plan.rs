use sqlx::{Connection as _, PgConnection, Row as _};

use crate::commit::{keys, lock, membership, message as changes};

use crate::testing::{Fixture, eventually, key, keyed, message, sent, soak};

#[tokio::test]
async fn spread_over_many_conversations_no_batch_scans_a_table_that_was_never_analyzed() {
    grows_without_scans(100).await;
}

#[tokio::test]
async fn in_one_conversation_no_batch_scans_a_table_that_was_never_analyzed() {
    grows_without_scans(1).await;
}

/// Grows a new installation's log by batches of every size, with repeats and replies among them.
async fn grows_without_scans(conversations: usize) {
    let fixture = Fixture::new().await;
    for table in ["conversations", "participants", "events"] {
        let off = format!("alter table {table} set (autovacuum_enabled = off)");
        sqlx::query(sqlx::AssertSqlSafe(off))
            .execute(&fixture.pool)
            .await
            .unwrap();
    }
    let mut groups = Vec::new();
    for _ in 0..conversations {
        groups.push(fixture.group(&["alice", "bob"]).await);
    }
    let (wanted, repeated) = (soak(200_000, 20_000), key());
    let (mut stored, mut first) = (0, None);
    for size in [1, 4, 16, 50, 200].into_iter().cycle() {
        if stored >= wanted {
            break;
        }
        let mut items: Vec<_> = (stored..stored + size)
            .map(|n| message(groups[n % groups.len()], "alice", "hello"))
            .collect();
        items.push(keyed(groups[0], "alice", "first", repeated));
        let mut reply = message(groups[0], "bob", "reply");
        reply.append.message.reply_to = first;
        items.push(reply);
        let outcomes = fixture.committer.finish_batch(&items).await.outcomes;
        let answers: Vec<_> = outcomes.into_iter().map(sent).collect();
        stored += answers.iter().filter(|sent| !sent.duplicate).count();
        assert_eq!(answers[size].duplicate, first.is_some());
        first = Some(answers[size].message_id);
        let mut alone = message(groups[stored % groups.len()], "bob", "alone");
        if stored.is_multiple_of(2) && groups.len() == 1 {
            alone.append.message.reply_to = first;
        }
        sent(fixture.send(alone).await);
        stored += 1;
    }
    let Fixture {
        url,
        pool,
        committer,
        ..
    } = fixture;
    // What a connection counts is certain to be told when it closes: those, too, that the committer keeps.
    drop(committer);
    pool.close().await;
    assert_no_scans(&url, stored + conversations).await;
}

async fn assert_no_scans(url: &str, events: usize) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let inserted = "select n_tup_ins from pg_stat_user_tables where relname = 'events'";
    eventually("statistics hold every event", async || {
        let (found,): (i64,) = sqlx::query_as(inserted)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        (usize::try_from(found).unwrap() == events).then_some(())
    })
    .await;
    let tables: Vec<(String, i64, i64, bool)> = sqlx::query_as(
        "select s.relname::text, s.seq_tup_read, s.idx_scan, c.reltuples = -1 \
         from pg_stat_user_tables s join pg_class c on c.oid = s.relid \
         where s.relname in ('conversations', 'participants', 'events') order by 1",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert_eq!(tables.len(), 3);
    for (table, scanned, looked_up, never_analyzed) in tables {
        assert_eq!(scanned, 0, "rows of {table} read by scanning it");
        assert!(looked_up > 0 && never_analyzed, "{table}");
    }
}

/// Statements of commands that go alone: of what types their arguments are, and by what indexes they look up.
const ALONE: [(&str, &str, &[&str]); 4] = [
    (
        lock::FIRST_EXECUTION,
        "uuid, text, uuid",
        &["events_by_client_id", "settled_keys_pkey", "events_pkey"],
    ),
    (
        changes::IS_CHANGED,
        "uuid, bigint, bigint",
        &["events_by_target"],
    ),
    (keys::FORGET, "uuid", &["creation_keys_by_conversation"]),
    (membership::FIRST_ADMIN, "uuid", &["participants_admins"]),
];

#[tokio::test]
async fn repeats_are_looked_up_by_index_whatever_is_stored() {
    let fixture = Fixture::new().await;
    let mut connection = fixture.pool.acquire().await.unwrap();
    assert_looked_up(&mut connection).await;
    for filling in [
        "insert into events (conversation_id, seq, id, type, actor, client_id, created_at, payload, target_seq) \
         select '00000000-0000-0000-0000-000000000001', n, gen_random_uuid(), 'message.edited', 'a', gen_random_uuid(), now(), '{}', case when n % 10 = 0 then n - 1 end \
         from generate_series(1, 5000) n",
        "insert into settled_keys select '00000000-0000-0000-0000-000000000001', 'a', gen_random_uuid(), n, now() \
         from generate_series(1, 5000) n",
        "insert into creation_keys (tenant, user_id, key, conversation_id, expires_at) \
         select 't', 'a', n::text, gen_random_uuid(), now() from generate_series(1, 5000) n",
        "insert into participants select '00000000-0000-0000-0000-000000000001', n::text, 1, 't', 'member', n, now(), null, null, 1 \
         from generate_series(1, 5000) n",
        "analyze",
    ] {
        sqlx::query(filling)
            .execute(&mut *connection)
            .await
            .unwrap();
    }
    assert_looked_up(&mut connection).await;
}

async fn assert_looked_up(connection: &mut PgConnection) {
    for (statement, types, indexes) in ALONE {
        let nothing = vec!["null"; types.split(',').count()].join(", ");
        for prepare in [
            format!("prepare looked_up({types}) as {statement}"),
            "set plan_cache_mode = force_generic_plan".to_owned(),
        ] {
            sqlx::raw_sql(sqlx::AssertSqlSafe(prepare))
                .execute(&mut *connection)
                .await
                .unwrap();
        }
        let explain = format!("explain (costs off) execute looked_up({nothing})");
        let plan = sqlx::raw_sql(sqlx::AssertSqlSafe(explain))
            .fetch_all(&mut *connection)
            .await
            .unwrap();
        let plan: Vec<String> = plan.iter().map(|line| line.get(0)).collect();
        let plan = plan.join("\n");
        let named = indexes.iter().all(|index| plan.contains(index));
        assert!(named && !plan.contains("Seq Scan"), "{statement}\n{plan}");
        sqlx::query("deallocate looked_up")
            .execute(&mut *connection)
            .await
            .unwrap();
    }
}
