-- Appends a batch of messages: locks first, and only then decides (docs/architecture.md, "Writing: group commit").
--
-- The lock is a statement of its own, in READ COMMITTED: the statement behind it has a newer snapshot and sees all that committed
-- while the lock was waited for. Its plan may not depend on statistics, which are those of empty tables on a new installation:
-- every look-up is a lateral one of at most one row, by a unique index, and whatever could replace it is off.
--
-- One row comes back for each item, with its place in the arrays and one of: stored; duplicate (by conversation, actor and client
-- id, looked for before membership); reused (the same key, another hash); not_found; deleted; forbidden; no_message (reply).
create function append_messages(
    in_conversations uuid[], in_tenants text[], in_actors text[], in_admins boolean[], in_client_ids uuid[],
    in_event_ids uuid[], in_hashes bytea[], in_payloads text[], in_replies uuid[], in_wanted boolean[]
) returns table (
    item bigint, outcome text, seq bigint, id uuid, created_at timestamptz,
    payload text, edited_at timestamptz, deleted_at timestamptz, outbox_id bigint
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    stored_at timestamptz;
begin
    perform locked.found
    from (select distinct u.id from unnest(in_conversations) as u(id) order by u.id) as wanted
    cross join lateral (
        select true as found from conversations c where c.id = wanted.id limit 1 for no key update
    ) as locked;

    stored_at := date_trunc('milliseconds', clock_timestamp());

    return query
    with items as materialized (
        select i.*, c.type, c.last_seq, c.deleted_at is not null as is_deleted, c.tenant is not distinct from i.tenant as is_known,
            d.seq as first_seq, d.id as first_id, d.created_at as first_at, d.edited_at, d.deleted_at,
            d.request_hash = i.hash as is_same, case when i.wanted then d.payload end as first_payload,
            m.role, f.was_member, r.conversation_id as reply_conversation, r.type as reply_type
        from unnest(in_conversations, in_tenants, in_actors, in_admins, in_client_ids, in_event_ids, in_hashes, in_payloads,
                in_replies, in_wanted) with ordinality
            as i(conversation, tenant, actor, admin, client_id, event_id, hash, payload, reply, wanted, n)
        left join lateral (
            select c.tenant, c.type, c.last_seq, c.deleted_at from conversations c where c.id = i.conversation limit 1
        ) c on true
        left join lateral (
            select e.seq, e.id, e.created_at, e.edited_at, e.deleted_at, e.request_hash, e.payload from events e
            where e.conversation_id = i.conversation and e.actor = i.actor and e.client_id = i.client_id limit 1
        ) d on true
        left join lateral (
            select p.role from participants p
            where p.conversation_id = i.conversation and p.user_id = i.actor and p.left_seq is null limit 1
        ) m on true
        left join lateral (
            select true as was_member from participants p
            where c.deleted_at is not null and p.conversation_id = i.conversation and p.user_id = i.actor limit 1
        ) f on true
        left join lateral (
            select e.conversation_id, e.type from events e where e.id = i.reply limit 1
        ) r on true
    ),
    decided as (
        select i.*, case
            when not i.is_known then 'not_found'
            when i.first_seq is not null and i.is_same then 'duplicate'
            when i.first_seq is not null then 'reused'
            when i.is_deleted and (i.admin or i.was_member) then 'deleted'
            when i.is_deleted then 'not_found'
            when i.role is null and not i.admin then 'not_found'
            when i.type = 'channel' and i.role is distinct from 'admin' and not i.admin then 'forbidden'
            when i.reply is not null
                and (i.reply_conversation is distinct from i.conversation or i.reply_type <> 'message.created') then 'no_message'
            else 'stored'
        end as decision
        from items i
    ),
    numbered as materialized (
        select d.*, d.last_seq + count(*) filter (where d.decision = 'stored') over (
            partition by d.conversation order by d.n rows unbounded preceding
        ) as new_seq
        from decided d
    ),
    inserted as (
        insert into events (conversation_id, seq, id, type, actor, client_id, request_hash, created_at, payload)
        select n.conversation, n.new_seq, n.event_id, 'message.created', n.actor, n.client_id, n.hash, stored_at, n.payload
        from numbered n where n.decision = 'stored'
    ),
    moved as (
        update conversations c
        set last_seq = s.head, last_message_seq = s.head, last_event_at = stored_at
        from (
            select n.conversation, max(n.new_seq) as head from numbered n where n.decision = 'stored' group by n.conversation
        ) s
        where c.id = s.conversation
    ),
    queued as (
        insert into outbox (created_at, conversation_ids, seqs)
        select stored_at, array_agg(n.conversation order by n.n), array_agg(n.new_seq order by n.n)
        from numbered n where n.decision = 'stored' having count(*) > 0
        returning outbox.id
    )
    select n.n, n.decision,
        case n.decision when 'stored' then n.new_seq else n.first_seq end,
        case n.decision when 'stored' then n.event_id else n.first_id end,
        case n.decision when 'stored' then stored_at else n.first_at end,
        n.first_payload, n.edited_at, n.deleted_at,
        (select q.id from queued q)
    from numbered n;
end
$$;
