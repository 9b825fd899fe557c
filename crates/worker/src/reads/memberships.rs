//! Which memberships users have: for gateways, when a session opens, an addition is confirmed, or the feed broke.

use std::iter::Peekable;

use confab_protocol::ids::ConversationId;
use confab_protocol::query::{Membership, MembershipsOf, UserMemberships};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::CommandError;

/// Memberships in one answer at most: some 90 bytes each.
const MOST: usize = 7000;
/// A user finds this much room, or waits for the next answer.
const PAGE: usize = 1000;
/// How many of the memberships that ended lately are told on the first and the last page, and of one conversation at most.
const ENDED: usize = 1000;
/// How many of a user's memberships that ended lately are looked at.
const LATE: usize = 10_000;
/// What is read of one user at most; and of all together, so that the first one is read whole, and so is the second where the first
/// leaves room for it.
const READ: usize = MOST + 1 + LATE;

/// For each question a page: present memberships, and those that ended above a position the gateway holds; beside them those that
/// ended within the last day, which have their rank from the newest on.
///
/// Questions are answered in their order: what the limit cuts off belongs to the last ones.
pub(super) fn statement() -> String {
    let held = MOST - ENDED - 1;
    format!(
        "select q.n, u.conversation_id, u.joined_seq, u.left_seq, c.last_seq, c.members, u.rank from ( \
            select q.n, q.tenant, q.user_id, q.after, $4[q.only_from:q.only_to] as only, \
                $7[q.held_from:q.held_to] as held, $8[q.held_from:q.held_to] as seqs \
            from unnest($1::text[], $2::text[], $3::uuid[], $5::integer[], $6::integer[], $9::integer[], $10::integer[]) \
                with ordinality as q(tenant, user_id, after, only_from, only_to, held_from, held_to, n) \
            order by q.n \
        ) q cross join lateral ( \
            (select m.conversation_id, m.joined_seq, m.left_seq, null::bigint as rank from ( \
                (select p.conversation_id, p.joined_seq, p.left_seq from participants p \
                where q.only is null and p.tenant = q.tenant and p.user_id = q.user_id and p.left_seq is null \
                    and p.conversation_id > q.after order by p.conversation_id limit {MOST} + 1) \
                union all \
                (select p.conversation_id, p.joined_seq, p.left_seq from unnest(q.only) as o(conversation) \
                cross join lateral (select p.* from participants p \
                    where p.conversation_id = o.conversation and p.user_id = q.user_id and p.left_seq is null limit 1) p \
                where o.conversation > q.after and p.tenant = q.tenant) \
                union all \
                (select p.conversation_id, p.joined_seq, p.left_seq from unnest(q.held, q.seqs) as h(conversation, seq) \
                cross join lateral (select p.* from participants p \
                    where p.conversation_id = h.conversation and p.user_id = q.user_id and p.left_seq > h.seq \
                    order by p.joined_seq desc limit {held}) p \
                where h.conversation > q.after and p.tenant = q.tenant) \
            ) m order by m.conversation_id, m.joined_seq limit {MOST} + 1) \
            union all \
            (select l.conversation_id, l.joined_seq, l.left_seq, l.rank from ( \
                select l.*, row_number() over (order by l.left_at desc, l.conversation_id, l.joined_seq desc) as rank, \
                    row_number() over (partition by l.conversation_id order by l.joined_seq desc) as nth from ( \
                    select p.conversation_id, p.joined_seq, p.left_seq, p.left_at from participants p \
                    where p.tenant = q.tenant and p.user_id = q.user_id and p.left_seq is not null \
                        and p.left_at > statement_timestamp() - interval '1 day' \
                        and (q.only is null or p.conversation_id = any(q.only)) order by p.left_at desc limit {LATE} \
                ) l \
            ) l where l.nth <= {ENDED} and (l.rank <= {ENDED} or l.conversation_id > q.after)) \
        ) u cross join lateral (select c.last_seq, c.members from conversations c where c.id = u.conversation_id limit 1) c \
        order by q.n limit 2 * {READ}"
    )
}

#[derive(Debug, Clone, Copy, sqlx::FromRow)]
struct Row {
    n: i64,
    conversation_id: Uuid,
    joined_seq: i64,
    left_seq: Option<i64>,
    last_seq: i64,
    members: i32,
    /// Of those that ended lately.
    rank: Option<i64>,
}

impl Row {
    const fn place(&self) -> (Uuid, i64) {
        (self.conversation_id, self.joined_seq)
    }

    fn is_told_at_both_ends(&self) -> bool {
        self.rank
            .and_then(|rank| usize::try_from(rank).ok())
            .is_some_and(|rank| rank <= ENDED)
    }
}

/// Answers all questions in one snapshot; what finds no room is left for a next page.
pub(super) async fn read(
    connection: &mut PgConnection,
    of: &[MembershipsOf],
) -> Result<Vec<UserMemberships>, CommandError> {
    let rows = rows(connection, of).await?;
    // Where the limit has cut, the last one with a row may lack some.
    let whole = if rows.len() < 2 * READ {
        i64::MAX
    } else {
        rows.last().map_or(i64::MAX, |row| row.n)
    };
    let mut rows = rows.into_iter().peekable();
    let mut answers = Vec::with_capacity(of.len());
    let mut room = MOST;
    for (one, n) in of.iter().zip(1..) {
        let own = take(&mut rows, n);
        let answer = if room == 0 || n >= whole {
            UserMemberships {
                memberships: Vec::new(),
                next: Some(ConversationId(after(one))),
                ended: Vec::new(),
            }
        } else {
            page(one, own, room)
        };
        room = room.saturating_sub(answer.memberships.len() + answer.ended.len());
        answers.push(answer);
    }
    Ok(answers)
}

async fn rows(
    connection: &mut PgConnection,
    of: &[MembershipsOf],
) -> Result<Vec<Row>, CommandError> {
    let (mut only, mut onlys) = (Vec::new(), Slices::default());
    let (mut held, mut seqs, mut helds) = (Vec::new(), Vec::new(), Slices::default());
    for one in of {
        only.extend(one.only.iter().flatten().map(|id| id.0));
        onlys.end(one.only.is_some().then_some(only.len()));
        held.extend(one.held.iter().map(|(id, _)| id.0));
        seqs.extend(one.held.iter().map(|(_, seq)| seq.cast_signed()));
        helds.end(Some(held.len()));
    }
    let rows = sqlx::query_as(sqlx::AssertSqlSafe(statement()))
        .bind(of.iter().map(|one| one.tenant.as_str()).collect::<Vec<_>>())
        .bind(of.iter().map(|one| one.user.as_str()).collect::<Vec<_>>())
        .bind(of.iter().map(after).collect::<Vec<_>>())
        .bind(only)
        .bind(onlys.from)
        .bind(onlys.to)
        .bind(held)
        .bind(seqs)
        .bind(helds.from)
        .bind(helds.to)
        .fetch_all(connection)
        .await?;
    Ok(rows)
}

/// Which parts of one array belong to which question, as Postgres counts: from 1, the last one included. None is no part, not even
/// an empty one.
#[derive(Default)]
struct Slices {
    from: Vec<Option<i32>>,
    to: Vec<Option<i32>>,
    next: i32,
}

impl Slices {
    fn end(&mut self, to: Option<usize>) {
        let to = to.map(|to| i32::try_from(to).unwrap_or(i32::MAX));
        self.from.push(to.map(|_| self.next + 1));
        self.to.push(to);
        self.next = to.unwrap_or(self.next);
    }
}

/// The rows of a question.
fn take(rows: &mut Peekable<impl Iterator<Item = Row>>, n: i64) -> Vec<Row> {
    std::iter::from_fn(|| rows.next_if(|row| row.n == n)).collect()
}

/// Where a question begins: one that found no room in an earlier answer above the lowest id, as one that asks for the first time.
fn after(of: &MembershipsOf) -> Uuid {
    of.after.map_or(Uuid::nil(), |id| id.0)
}

fn page(of: &MembershipsOf, rows: Vec<Row>, room: usize) -> UserMemberships {
    let after = after(of);
    let most = room.max(PAGE);
    let (mut ended, mut memberships): (Vec<Row>, Vec<Row>) =
        rows.into_iter().partition(|row| row.rank.is_some());
    memberships.sort_unstable_by_key(Row::place);
    memberships.dedup_by_key(|row| row.place());
    ended.sort_unstable_by_key(|row| row.rank);
    // What ended lately comes with the page of its conversation as well.
    let mut ids: Vec<_> = memberships
        .iter()
        .chain(&ended)
        .map(|row| row.conversation_id)
        .collect();
    ids.retain(|id| *id > after);
    ids.sort_unstable();
    let mut end = Uuid::max();
    let mut next = None;
    // A page ends between conversations, never inside one.
    if let Some(cut) = ids.get(most) {
        // One conversation alone that is more than fits is left for a page of its own, which it does fit.
        end = ids.iter().rfind(|id| *id < cut).copied().unwrap_or(after);
        next = Some(ConversationId(end));
    }
    memberships.retain(|row| row.conversation_id <= end);
    let is_end = after.is_nil() || next.is_none();
    ended.retain(|row| {
        let is_here = row.conversation_id > after && row.conversation_id <= end;
        is_here || is_end && row.is_told_at_both_ends()
    });
    UserMemberships {
        memberships: memberships.into_iter().map(membership).collect(),
        next,
        ended: ended.into_iter().map(membership).collect(),
    }
}

fn membership(row: Row) -> Membership {
    Membership {
        conversation: ConversationId(row.conversation_id),
        joined: row.joined_seq.cast_unsigned(),
        left: row.left_seq.map(i64::cast_unsigned),
        head: row.last_seq.cast_unsigned(),
        members: u64::try_from(row.members).unwrap_or_default(),
    }
}
