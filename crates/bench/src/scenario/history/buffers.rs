//! How much of a database a page of messages touches: what does not depend on the machine's mood.

use confab_worker::parts;
use serde::Serialize;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Row as _};

use super::calls::PAGE_ITEMS;
use super::installation::{Installation, conversation_id};
use crate::Error;
use crate::limits;

/// Pages that are looked at.
const SAMPLED_PAGES: u32 = 50;
/// Bytes that an answer may have: more than a page of the bench's has.
const MAX_ANSWER_BYTES: i64 = 1 << 19;

/// Blocks of 8 KiB that a page of messages touches, on average.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Buffers {
    /// All of them.
    pub(crate) blocks: f64,
    /// Those that Postgres had to ask the system for.
    pub(crate) read: f64,
    /// Milliseconds that Postgres took for the statement.
    pub(crate) millis: f64,
}

/// Explains the statement that workers read a page with, for the newest messages of random conversations.
pub(super) async fn of(installation: &Installation) -> Result<Buffers, Error> {
    let pool = parts::pool(&limits::postgres::settings(&installation.stack.servers)?, 1)?;
    let text = format!(
        "explain (analyze, buffers, timing off, format json) {}",
        parts::PAGE
    );
    let mut sum = Buffers::default();
    for _ in 0..SAMPLED_PAGES {
        let (_, number) = installation.any()?;
        let head = installation.seed.head(number).cast_signed();
        let row = sqlx::query(AssertSqlSafe(text.clone()))
            .bind(conversation_id(number).0)
            .bind((head - 999).max(1))
            .bind(head + 1)
            .bind(None::<&str>)
            .bind(None::<&str>)
            .bind(i64::from(PAGE_ITEMS) + 1)
            .bind(MAX_ANSWER_BYTES)
            .fetch_one(&pool)
            .await?;
        let explained: String = row.try_get_unchecked(0)?;
        add(&mut sum, &serde_json::from_str(&explained)?);
    }
    pool.close().await;
    let mean = |sum: f64| sum / f64::from(SAMPLED_PAGES);
    Ok(Buffers {
        blocks: mean(sum.blocks),
        read: mean(sum.read),
        millis: mean(sum.millis),
    })
}

fn add(sum: &mut Buffers, explained: &Value) {
    let Some(explained) = explained.get(0) else {
        return;
    };
    let number = |from: Option<&Value>, name: &str| {
        let found = from.and_then(|from| from.get(name)).and_then(Value::as_f64);
        found.unwrap_or_default()
    };
    let plan = explained.get("Plan");
    let read = number(plan, "Shared Read Blocks");
    sum.blocks += number(plan, "Shared Hit Blocks") + read;
    sum.read += read;
    sum.millis += number(Some(explained), "Execution Time");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_those_of_the_whole_plan() {
        let explained = serde_json::json!([{
            "Plan": {"Shared Hit Blocks": 40, "Shared Read Blocks": 12},
            "Execution Time": 0.5,
        }]);
        let mut sum = Buffers::default();
        add(&mut sum, &explained);
        assert_eq!((sum.blocks, sum.read, sum.millis), (52.0, 12.0, 0.5));
    }
}
