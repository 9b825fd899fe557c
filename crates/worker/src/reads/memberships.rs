//! Which memberships users have: for gateways, when a session opens, an addition is confirmed, or the feed broke.

use confab_protocol::ids::ConversationId;
use confab_protocol::query::{Membership, MembershipsOf, UserMemberships};
use sqlx::PgPool;
use uuid::Uuid;

use crate::error::CommandError;

/// Memberships in one answer at most: some 90 bytes each.
const MOST: usize = 7000;

/// Present memberships, and those that ended above a position the gateway holds; also those that ended within the last
/// day (`is_late`), which are told on the first page and, since memberships may end between two pages, on the last.
const PAGE: &str = "\
    select p.conversation_id, p.joined_seq, p.left_seq, c.last_seq, c.members, false as is_late \
    from participants p join conversations c on c.id = p.conversation_id \
    where p.tenant = $1 and p.user_id = $2 and p.left_seq is null and p.conversation_id > $3 \
        and ($4::uuid[] is null or p.conversation_id = any($4)) \
    union all \
    select p.conversation_id, p.joined_seq, p.left_seq, c.last_seq, c.members, false \
    from unnest($5::uuid[], $6::bigint[]) as h(conversation, seq) \
    cross join lateral (select p.* from participants p \
        where p.conversation_id = h.conversation and p.user_id = $2 and p.left_seq > h.seq \
        order by p.joined_seq desc limit $8) p \
    join conversations c on c.id = p.conversation_id \
    where p.tenant = $1 and p.conversation_id > $3 \
    union all \
    (select p.conversation_id, p.joined_seq, p.left_seq, c.last_seq, c.members, true \
    from participants p join conversations c on c.id = p.conversation_id \
    where p.tenant = $1 and p.user_id = $2 and p.left_at > clock_timestamp() - interval '1 day' \
        and ($4::uuid[] is null or p.conversation_id = any($4)) \
    order by p.left_at desc limit 1000) \
    order by 6 desc, 1, 2 limit $7";

/// Answers each question in one snapshot of its own; what finds no room is left for a next page.
pub(super) async fn read(
    pool: &PgPool,
    of: &[MembershipsOf],
) -> Result<Vec<UserMemberships>, CommandError> {
    let mut answers = Vec::with_capacity(of.len());
    let mut room = MOST;
    for one in of {
        let answer = if room == 0 {
            let next = Some(one.after.unwrap_or(ConversationId(Uuid::nil())));
            UserMemberships {
                memberships: Vec::new(),
                next,
                ended: Vec::new(),
            }
        } else {
            page(pool, one, room).await?
        };
        room = room.saturating_sub(answer.memberships.len() + answer.ended.len());
        answers.push(answer);
    }
    Ok(answers)
}

type Row = (Uuid, i64, Option<i64>, i64, i32, bool);

async fn page(
    pool: &PgPool,
    of: &MembershipsOf,
    room: usize,
) -> Result<UserMemberships, CommandError> {
    // A question that found no room in an earlier answer begins above the lowest id.
    let is_first = of.after.is_none_or(|id| id.0.is_nil());
    let most = room.max(1000);
    let rows: Vec<Row> = sqlx::query_as(PAGE)
        .bind(of.tenant.as_str())
        .bind(of.user.as_str())
        .bind(of.after.map_or(Uuid::nil(), |id| id.0))
        .bind(
            of.only
                .as_ref()
                .map(|ids| ids.iter().map(|id| id.0).collect::<Vec<_>>()),
        )
        .bind(of.held.iter().map(|(id, _)| id.0).collect::<Vec<_>>())
        .bind(
            of.held
                .iter()
                .map(|(_, seq)| seq.cast_signed())
                .collect::<Vec<_>>(),
        )
        .bind(i64::try_from(most + 1001).unwrap_or(i64::MAX))
        .bind(i64::try_from(MOST - 1).unwrap_or(i64::MAX))
        .fetch_all(pool)
        .await?;
    let (ended, current): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.5);
    let mut memberships: Vec<_> = current.into_iter().map(membership).collect();
    let mut next = None;
    if memberships.len() > most {
        // A page ends between conversations, never inside one.
        let cut = memberships
            .get(most)
            .map(|membership| membership.conversation);
        memberships.retain(|membership| Some(membership.conversation) < cut);
        let last = memberships.last().map(|membership| membership.conversation);
        // One conversation alone that is more than fits is left for a page of its own, which it does fit.
        next = last.or(Some(of.after.unwrap_or(ConversationId(Uuid::nil()))));
    }
    let is_told = is_first || next.is_none();
    let ended = ended.into_iter().filter(|_| is_told).map(membership);
    Ok(UserMemberships {
        memberships,
        next,
        ended: ended.collect(),
    })
}

fn membership((conversation, joined, left, head, members, _): Row) -> Membership {
    Membership {
        conversation: ConversationId(conversation),
        joined: joined.cast_unsigned(),
        left: left.map(i64::cast_unsigned),
        head: head.cast_unsigned(),
        members: u64::try_from(members).unwrap_or_default(),
    }
}
