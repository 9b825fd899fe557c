//! What a large installation is filled with.

use confab_protocol::ids::ConversationId;
use sqlx::PgPool;
use uuid::Uuid;

/// So many are inserted well within the statement timeout, also on a busy machine.
const EVENTS_AT_ONCE: usize = 20_000;

/// Groups of a user whose last events lie ten seconds apart, within the minute of `recents`; each with a message.
pub(in crate::reads::tests) async fn begin_many(pool: &PgPool, user: &str, count: i32) {
    let ids: Vec<Uuid> = (0..count).map(|_| Uuid::now_v7()).collect();
    sqlx::query(
        "with begun as ( \
            insert into conversations (id, tenant, type, metadata, created_by, created_at, updated_at, last_seq, \
                last_message_seq, last_event_at, last_message_at, active_at, members, messages) \
            select id, 'default', 'group', '{}', $2, at, at, 2, 2, at, at, at - n % 59 * interval '1 second', 1, 1 \
            from unnest($1::uuid[]) with ordinality as t(id, n) \
            cross join lateral (select date_trunc('milliseconds', now()) - n * interval '10 seconds' as at) a \
            returning id, active_at, last_event_at), \
        joined as ( \
            insert into participants \
                (conversation_id, user_id, joined_seq, tenant, role, position, joined_at, last_read_seq) \
            select id, $2, 1, 'default', 'admin', 0, last_event_at, 1 from begun), \
        listed as ( \
            insert into recents (conversation_id, user_id, tenant, type, active_at) \
            select id, $2, 'default', 'group', active_at from begun) \
        insert into events (conversation_id, seq, id, type, actor, created_at, payload, messages, actor_messages) \
        select id, n, gen_random_uuid(), case n when 1 then 'conversation.created' else 'message.created' end, $2, \
            last_event_at, '{\"kind\":\"text\",\"content\":1,\"payloadSizeBytes\":null,\"replyTo\":null,\"metadata\":{}}', \
            n - 1, nullif(n - 1, 0) \
        from begun cross join generate_series(1, 2) as n",
    )
    .bind(ids)
    .bind(user)
    .execute(pool)
    .await
    .unwrap();
}

/// Fills a conversation's log, an event a second, and its members; its first one has read nothing.
pub(super) async fn fill(
    pool: &PgPool,
    conversation: ConversationId,
    user: &str,
    events: i64,
    members: i64,
) {
    for from in (2..=events).step_by(EVENTS_AT_ONCE) {
        sqlx::query(
        "insert into events (conversation_id, seq, id, type, actor, created_at, payload, messages, actor_messages) \
         select $1, n, gen_random_uuid(), 'message.created', 'u' || n % 100, now() - ($2 - n) * interval '1 second', \
            '{\"kind\":\"text\",\"content\":\"' || repeat('x', 200) || '\",\"payloadSizeBytes\":null,\"replyTo\":null,\"metadata\":{}}', \
            n - 1, n / 100 + (n % 100 > 1)::int \
         from generate_series($3, least($2, $3 + $4 - 1)) as n",
    )
    .bind(conversation.0)
    .bind(events)
    .bind(from)
    .bind(i64::try_from(EVENTS_AT_ONCE).unwrap())
    .execute(pool)
    .await
    .unwrap();
    }
    sqlx::query(
        "insert into participants (conversation_id, user_id, joined_seq, tenant, role, position, joined_at, left_seq, \
            left_at, last_read_seq) \
         select $1, $2 || 's' || n, 2 + n / 1000, 'default', 'member', n % 1000, now(), \
            case when n % 2 = 0 then 2 + n end, case when n % 2 = 0 then now() end, 2 from generate_series(1, $3) as n",
    )
    .bind(conversation.0)
    .bind(user)
    .bind(members)
    .execute(pool)
    .await
    .unwrap();
    sqlx::query(
        "update conversations set last_seq = $2, last_message_seq = $2, last_event_at = now(), last_message_at = now(), members = 1 + $3 / 2, messages = $2 - 1 \
         where id = $1",
    )
    .bind(conversation.0)
    .bind(events)
    .bind(members)
    .execute(pool)
    .await
    .unwrap();
}
