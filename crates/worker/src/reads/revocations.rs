//! Revocations, for gateways.

use confab_protocol::query::Answer;
use sqlx::PgConnection;

use crate::error::CommandError;
use crate::revocations::{COLUMNS, RevocationRow, revocation};

/// Revocations in one answer: each has at most some 900 bytes.
const PAGE: usize = 500;

/// Revocations above a revision, in the order of their revisions.
pub(super) async fn read(
    connection: &mut PgConnection,
    after: u64,
) -> Result<Answer, CommandError> {
    let text =
        format!("select {COLUMNS} from revocations where revision > $1 order by revision limit $2");
    let mut rows: Vec<RevocationRow> = sqlx::query_as(sqlx::AssertSqlSafe(text))
        .bind(i64::try_from(after).unwrap_or(i64::MAX))
        .bind(i64::try_from(PAGE + 1).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await?;
    let more = rows.len() > PAGE;
    rows.truncate(PAGE);
    Ok(Answer::Revocations {
        revocations: rows.into_iter().map(revocation).collect::<Result<_, _>>()?,
        more,
    })
}
