//! A conversation's participants, by joining.

use confab_protocol::error::{Code, Failure};
use confab_protocol::json::JsonText;
use confab_protocol::query::{Answer, ListParticipants};
use confab_protocol::resource::Role;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::events::may_read;
use super::{ROOM, participants_cursor};
use crate::commit::participant;
use crate::error::CommandError;

/// Memberships that a page looks at when not all of them may be of the role asked for: behind them the page ends, however few
/// it has.
const EXAMINED: u32 = 2000;

#[derive(Debug, sqlx::FromRow)]
struct Row {
    user_id: String,
    role: String,
    joined_at: OffsetDateTime,
    left_at: Option<OffsetDateTime>,
    last_read_seq: i64,
    joined_seq: i64,
    position: i32,
}

/// A page of participants, for those who may read the conversation. Its order never changes and new memberships stand at its end, so that
/// pages neither skip nor repeat one.
pub(super) async fn list(
    connection: &mut PgConnection,
    list: &ListParticipants,
) -> Result<Answer, CommandError> {
    let after = match &list.cursor {
        Some(cursor) => parse(cursor).ok_or_else(|| Failure::of(Code::InvalidCursor))?,
        None => (0, -1),
    };
    let (which, is_exact) = which(list.include_left, list.role);
    let examined = if is_exact {
        list.limit.saturating_add(1)
    } else {
        EXAMINED.max(list.limit.saturating_add(1))
    };
    may_read(connection, &list.caller, list.conversation).await?;
    let text = statement(which);
    let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(text))
        .bind(list.conversation.0)
        .bind(after.0)
        .bind(after.1)
        .bind(i64::from(examined))
        .fetch_all(&mut *connection)
        .await?;
    page_of(rows, list, examined)
}

/// Which memberships an index has apart, and whether they are those asked for without a further look.
const fn which(include_left: bool, role: Option<Role>) -> (&'static str, bool) {
    match (include_left, role) {
        (true, role) => ("true", role.is_none()),
        (false, Some(Role::Admin)) => ("left_seq is null and role = 'admin'", true),
        (false, role) => ("left_seq is null", role.is_none()),
    }
}

pub(super) fn statement(which: &str) -> String {
    format!(
        "select user_id, role, joined_at, left_at, last_read_seq, joined_seq, position from participants \
         where conversation_id = $1 and (joined_seq, position) > ($2, $3) and position >= 0 and {which} \
         order by joined_seq, position limit $4"
    )
}

fn page_of(rows: Vec<Row>, list: &ListParticipants, examined: u32) -> Result<Answer, CommandError> {
    let is_cut = rows.len() >= examined as usize;
    let (mut items, mut bytes, mut last, mut is_full) = (Vec::new(), 0, None, false);
    for row in rows {
        let at = (row.joined_seq, row.position);
        if list.role.is_some_and(|role| role.as_str() != row.role) {
            last = Some(at);
            continue;
        }
        let shown = participant((
            row.user_id,
            row.role,
            row.joined_at,
            row.left_at,
            row.last_read_seq,
        ))?;
        let item = JsonText::of(&shown)?;
        bytes += item.as_str().len() + 8;
        is_full = items.len() >= list.limit as usize || (bytes > ROOM && !items.is_empty());
        if is_full {
            break;
        }
        items.push(item);
        last = Some(at);
    }
    let next_cursor = last
        .filter(|_| is_full || is_cut)
        .map(|(joined, position)| {
            participants_cursor(joined.cast_unsigned(), position.unsigned_abs().into())
        });
    Ok(Answer::Page { items, next_cursor })
}

/// What [`participants_cursor`] wrote.
fn parse(cursor: &str) -> Option<(i64, i32)> {
    let (joined, position) = cursor.strip_prefix('p')?.split_once('-')?;
    let (joined, position): (u64, u32) = (joined.parse().ok()?, position.parse().ok()?);
    Some((joined.try_into().ok()?, position.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_what_was_written_and_nothing_else() {
        assert_eq!(parse(&participants_cursor(7, 99)), Some((7, 99)));
        for junk in [
            "", "p", "p1", "p1-", "p-1", "p1-x", "p1-2-3", "m1-2", "p1--2",
        ] {
            assert_eq!(parse(junk), None, "{junk}");
        }
        assert_eq!(parse("p9223372036854775808-0"), None);
        assert_eq!(parse("p1-2147483648"), None);
    }
}
