//! What is over is swept whole, by an index, at any rate.

use std::time::Instant;

use super::part::{Part, execute};
use crate::metrics::Metrics;
use crate::outbox::sweep::{ALL, CREATION_KEYS, SETTLED_KEYS, delete_all};
use crate::testing::{Fixture, soak};
use prometheus_client::registry::Registry;

#[tokio::test]
async fn sweeps_find_rows_by_index_condition() {
    let fixture = Fixture::new().await;
    let mut connection = fixture.connections.acquire().await.unwrap();
    for sweep in ALL {
        let delete = sweep
            .delete
            .replace("$1", "10000")
            .replace("$2", "'1970-01-01T00:00:00Z'");
        for statement in [delete.as_str(), sweep.behind] {
            let lines: Vec<(String,)> =
                sqlx::query_as(sqlx::AssertSqlSafe(format!("explain {statement}")))
                    .fetch_all(&mut *connection)
                    .await
                    .unwrap();
            let plan: Vec<_> = lines.into_iter().map(|(line,)| line).collect();
            let plan = plan.join("\n");
            assert!(plan.contains("Index Cond"), "{plan}");
            assert!(
                !plan.contains("Seq Scan") && !plan.contains("Filter"),
                "{plan}"
            );
        }
    }
}

/// A sweep deletes more than one step takes, also what comes while it runs; prints how fast.
#[tokio::test]
async fn sweep_ends_when_nothing_is_left() {
    let part = Part::begin().await;
    part.verify().await.unwrap();
    let rows = soak(1_000_000, 25_000);
    let fill = format!(
        "insert into outbox (created_at, conversation_ids, seqs, published_at, stream_created, stream_seq, stream_event_id) \
         select now(), array[gen_random_uuid()], array[n], now() - interval '10 minutes', now(), n, gen_random_uuid() \
         from generate_series(1, {rows}) n"
    );
    sqlx::query(sqlx::AssertSqlSafe(fill))
        .execute(part.pool())
        .await
        .unwrap();
    let began = Instant::now();
    part.sweep().await;
    let took = began.elapsed();
    assert_eq!(part.marked().await.len(), 0);
    println!("{rows} outbox rows swept in {took:?}");
    assert_eq!(
        part.count("confab_swept_rows_total{table=\"outbox\"}"),
        rows.to_string()
    );
}

#[tokio::test]
async fn expired_keys_are_swept_and_others_stay() {
    let fixture = Fixture::new().await;
    for (sweep, fill, count) in [
        (
            &CREATION_KEYS,
            "insert into creation_keys (tenant, user_id, key, expires_at) \
             select 't', 'u', n::text, now() + (case when n <= 15000 then -1 else 1 end) * interval '1 hour' \
             from generate_series(1, 15010) n",
            "select count(*) from creation_keys",
        ),
        (
            &SETTLED_KEYS,
            "insert into settled_keys \
             select gen_random_uuid(), 'u', gen_random_uuid(), n, now() + (case when n <= 15000 then -1 else 1 end) * interval '1 hour' \
             from generate_series(1, 15010) n",
            "select count(*) from settled_keys",
        ),
    ] {
        execute(&fixture.pool, fill).await;
        let metrics = Metrics::new(&mut Registry::default());
        delete_all(sweep, &fixture.connections, &metrics, || true)
            .await
            .unwrap();
        let left: i64 = sqlx::query_scalar(count)
            .fetch_one(&fixture.pool)
            .await
            .unwrap();
        assert_eq!(left, 10, "{}", sweep.table);
    }
}
