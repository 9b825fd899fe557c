//! What pages cost in a large installation, beside an empty one: in plans and in what they touch, never in time.

use std::time::{Duration, Instant};

use confab_protocol::query::Query;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection, PgPool, Row as _};

mod case;
mod fill;

use case::{Case, Statement};
pub(super) use fill::begin_many;

use super::ask;
use crate::testing::{Fixture, soak};

/// Conversations of the user in many of them.
const MANY: i32 = 5000;
/// Members of the large channel.
const MEMBERS: i64 = 20_000;

#[tokio::test]
async fn a_page_of_a_large_installation_touches_what_one_of_an_empty_one_does() {
    let fixture = Fixture::new().await;
    for table in ["conversations", "participants", "recents", "events"] {
        let off = format!("alter table {table} set (autovacuum_enabled = off)");
        execute(&fixture.pool, &off).await;
    }
    let empty = Case::begin(&fixture, "alice", 150, 2000, 1500).await;
    let before = empty.measure(&fixture).await;
    let events = i64::try_from(soak(1_000_000, 100_000)).unwrap();
    let large = Case::begin(&fixture, "bob", MANY, events, MEMBERS).await;
    // Nothing was analyzed yet: plans are those of empty tables.
    let grown = large.measure(&fixture).await;
    execute(&fixture.pool, "analyze").await;
    let analyzed = large.measure(&fixture).await;
    for (small, measured) in before.iter().cycle().zip(grown.iter().chain(&analyzed)) {
        println!(
            "{}: {} -> {} buffers, {} -> {} rows",
            measured.name, small.buffers, measured.buffers, small.rows, measured.rows
        );
        // A tree of a million entries is deeper by one or two pages a look-up.
        assert!(measured.buffers <= small.buffers * 2 + 150, "{measured:#?}");
        assert!(measured.rows <= small.rows + 100, "{measured:#?}");
    }
    for ((name, small), (_, grown)) in empty.queries().into_iter().zip(large.queries()) {
        let (small, grown) = (time(&fixture, &small).await, time(&fixture, &grown).await);
        println!(
            "{name}: {small:?} beside few, {grown:?} beside {events} events and {MANY} conversations"
        );
    }
}

/// What a statement has touched.
#[derive(Debug)]
struct Measured {
    name: &'static str,
    buffers: i64,
    rows: i64,
}

impl Case {
    /// Runs each statement as workers have it planned; none scans a table, or sorts more than a page.
    async fn measure(&self, fixture: &Fixture) -> Vec<Measured> {
        let mut connection = PgConnection::connect(&fixture.url).await.unwrap();
        for setting in crate::database::PLANS {
            let text = format!("set {} = {}", setting.0, setting.1);
            sqlx::query(sqlx::AssertSqlSafe(text))
                .execute(&mut connection)
                .await
                .unwrap();
        }
        let mut all = Vec::new();
        for (n, statement) in self.statements().into_iter().enumerate() {
            let Statement {
                name,
                text,
                types,
                values,
            } = statement;
            let prepare = format!("prepare s{n}({types}) as {text}");
            sqlx::query(sqlx::AssertSqlSafe(prepare))
                .execute(&mut connection)
                .await
                .unwrap();
            let execute = format!("explain (analyze, buffers, format json) execute s{n}({values})");
            // The second time, as all but the first: dead entries were marked, the catalog is known.
            let mut plan = Value::Null;
            for _ in 0..2 {
                let row = sqlx::query(sqlx::AssertSqlSafe(execute.clone()))
                    .fetch_one(&mut connection)
                    .await
                    .unwrap();
                let text: String = row.try_get_unchecked(0).unwrap();
                plan = serde_json::from_str::<Value>(&text).unwrap()[0]["Plan"].take();
            }
            let mut rows = 0;
            walk(&plan, &mut |node| rows += look(name, node));
            let pages = |name: &str| plan[name].as_i64().unwrap();
            all.push(Measured {
                name,
                buffers: pages("Shared Hit Blocks") + pages("Shared Read Blocks"),
                rows,
            });
        }
        all
    }
}

fn walk(node: &Value, look: &mut impl FnMut(&Value)) {
    look(node);
    for child in node["Plans"].as_array().into_iter().flatten() {
        walk(child, look);
    }
}

/// How many rows a node of a plan has read.
fn look(name: &str, node: &Value) -> i64 {
    let kind = node["Node Type"].as_str().unwrap();
    for bad in ["Seq Scan", "Bitmap", "Hash Join", "Merge Join"] {
        assert!(!kind.contains(bad), "{name}: {node:#}");
    }
    let number = |name: &str| node[name].as_f64().unwrap_or_default();
    let loops = number("Actual Loops");
    if kind.contains("Sort") {
        let page = if name.starts_with("ranges") {
            1000.0
        } else {
            300.0
        };
        assert!(number("Actual Rows") * loops <= page, "{name}: {node:#}");
    }
    if !kind.starts_with("Index") {
        return 0;
    }
    let removed = number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
    format!("{:.0}", (number("Actual Rows") + removed) * loops)
        .parse()
        .unwrap()
}

async fn execute(pool: &PgPool, text: &str) {
    sqlx::query(sqlx::AssertSqlSafe(text.to_owned()))
        .execute(pool)
        .await
        .unwrap();
}

/// The median time of a query.
async fn time(fixture: &Fixture, query: &Query) -> Duration {
    let mut times = Vec::new();
    for _ in 0..21 {
        let began = Instant::now();
        ask(fixture, query.clone()).await;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    times[10]
}
