-- A batch looked each of its messages up in the array of conversations that it holds: for some hundred messages that was a tenth of what an
-- append takes in Postgres. Most batches hold all that they want, and need not look. The function is that of 0012 but for this.
create or replace function append_messages(
    in_conversations uuid[], in_tenants text[], in_actors text[], in_admins boolean[], in_client_ids uuid[],
    in_event_ids uuid[], in_payloads text[], in_replies uuid[]
) returns table (
    item bigint, outcome text, seq bigint, id uuid, created_at timestamptz,
    payload text, edited_at timestamptz, deleted_at timestamptz, version integer, outbox_id bigint
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    clock timestamptz;
    held uuid[];
    all_held boolean;
begin
    -- What another holds is left out, so that no batch waits for a row. With the tenant, so that none holds a foreign one.
    select array_agg(locked.id) filter (where locked.id is not null), bool_and(locked.id is not null) into held, all_held
    from (
        select distinct u.id, u.tenant collate "C" as tenant from unnest(in_conversations, in_tenants) as u(id, tenant) order by u.id
    ) as wanted
    left join lateral (
        select c.id from conversations c where c.id = wanted.id and c.tenant = wanted.tenant limit 1 for no key update skip locked
    ) as locked on true;

    clock := date_trunc('milliseconds', clock_timestamp());

    return query
    with items as materialized (
        select i.*, c.type, c.last_seq, c.deleted_at is not null as is_deleted, c.tenant is not distinct from i.tenant as is_known,
            all_held or i.conversation = any(held) as is_held,
            greatest(clock, c.last_event_at) as stored_at, c.active_at,
            d.seq as first_seq, d.id as first_id, d.created_at as first_at, d.edited_at, d.deleted_at, d.version,
            d.type = 'message.created' as is_message, d.payload as first_payload,
            m.role, f.was_member, r.conversation_id as reply_conversation, r.type as reply_type,
            c.messages, o.actor_messages
        from unnest(in_conversations, in_tenants, in_actors, in_admins, in_client_ids, in_event_ids, in_payloads, in_replies)
            with ordinality as i(conversation, tenant, actor, admin, client_id, event_id, payload, reply, n)
        left join lateral (
            select c.tenant, c.type, c.last_seq, c.last_event_at, c.active_at, c.deleted_at, c.messages from conversations c
            where c.id = i.conversation limit 1
        ) c on true
        left join lateral (
            select e.seq, e.id, e.created_at, e.type, e.edited_at, e.deleted_at, e.version, e.payload from events e
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
        left join lateral (
            select e.actor_messages from events e
            where e.conversation_id = i.conversation and e.actor = i.actor and e.actor_messages is not null
            order by e.messages desc limit 1
        ) o on true
    ),
    decided as (
        select i.*, case when i.is_known and i.is_held is not true then 'locked' else message_decision(
            i.is_known, i.first_seq is not null, i.is_message, i.is_deleted, i.was_member, i.admin, i.role, i.type,
            i.reply is not null, i.reply_conversation = i.conversation and i.reply_type = 'message.created'
        ) end as decision
        from items i
    ),
    numbered as materialized (
        select d.*, d.last_seq + count(*) filter (where d.decision = 'stored') over in_conversation as new_seq,
            d.messages + count(*) filter (where d.decision = 'stored') over in_conversation as new_messages,
            coalesce(d.actor_messages, 0) + count(*) filter (where d.decision = 'stored') over of_actor as new_actor_messages
        from decided d
        window in_conversation as (partition by d.conversation order by d.n rows unbounded preceding),
            of_actor as (partition by d.conversation, d.actor order by d.n rows unbounded preceding)
    ),
    inserted as (
        insert into events (conversation_id, seq, id, type, actor, client_id, created_at, payload,
            messages, actor_messages)
        select n.conversation, n.new_seq, n.event_id, 'message.created', n.actor, n.client_id, n.stored_at, n.payload,
            n.new_messages, n.new_actor_messages
        from numbered n where n.decision = 'stored'
    ),
    heads as materialized (
        select n.conversation, max(n.new_seq) as head, max(n.stored_at) as stored_at, max(n.new_messages) as messages,
            bool_or(n.stored_at >= n.active_at + interval '1 minute') as is_due
        from numbered n where n.decision = 'stored' group by n.conversation
    ),
    moved as (
        update conversations c
        set last_seq = h.head, last_message_seq = h.head, last_event_at = h.stored_at, last_message_at = h.stored_at,
            messages = h.messages,
            active_at = case when h.is_due then h.stored_at else c.active_at end
        from heads h where c.id = h.conversation
    ),
    noted as (
        update recents r set active_at = h.stored_at from heads h where h.is_due and r.conversation_id = h.conversation
    ),
    queued as (
        insert into outbox (created_at, conversation_ids, seqs)
        select clock, array_agg(n.conversation order by n.n), array_agg(n.new_seq order by n.n)
        from numbered n where n.decision = 'stored' having count(*) > 0
        returning outbox.id
    )
    select n.n, n.decision,
        case n.decision when 'stored' then n.new_seq else n.first_seq end,
        case n.decision when 'stored' then n.event_id else n.first_id end,
        case n.decision when 'stored' then n.stored_at else n.first_at end,
        case n.decision when 'duplicate' then n.first_payload end, n.edited_at, n.deleted_at, n.version,
        (select q.id from queued q)
    from numbered n;
end
$$;
