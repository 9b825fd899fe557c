-- Versions of messages, and when the last message of a conversation was sent.
--
-- 1. A message's version counts what was stored of it: 1 as it was sent, one more with each edit and its deletion. Null is 1, so that nothing
--    is written for messages that stand already; one that was edited before this migration begins at 1 as well.
alter table events add column version integer;

-- 2. What the event that a settled key names does not tell, and a repeat is compared with: of a change of metadata the version that it
--    found, of a change of role the role and the user, of a revocation all of it.
alter table settled_keys add column detail text;

-- 3. Lists are ordered by the last message: an edit, a joining or another name moves no conversation. `active_at` follows, so that the last
--    message lies within a minute from it on; of a conversation without messages both are its beginning. Not indexed, so that an append stays
--    a HOT update. Workers of the version before begin conversations without a word of it: the default is theirs.
alter table conversations add column last_message_at timestamptz;
lock table conversations, events in exclusive mode;
update conversations c set last_message_at = coalesce(
    (select e.created_at from events e where e.conversation_id = c.id and e.seq = c.last_message_seq), c.created_at);
update conversations c set active_at = last_message_at where active_at <> 'infinity' and active_at <> last_message_at;
update recents r set active_at = c.active_at from conversations c where c.id = r.conversation_id and r.active_at <> c.active_at;
alter table conversations
    alter column last_message_at set default date_trunc('milliseconds', clock_timestamp()),
    alter column last_message_at set not null;

-- Both functions are those of 0008, but for the version of a repeat's message and the time of the last message.
drop function append_messages(uuid[], text[], text[], boolean[], uuid[], uuid[], text[], uuid[]);
drop function append_message(uuid, text, text, boolean, uuid, uuid, text, uuid);

create function append_messages(
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
begin
    -- What another holds is left out, so that no batch waits for a row. With the tenant, so that none holds a foreign one.
    select array_agg(locked.id) into held
    from (
        select distinct u.id, u.tenant collate "C" as tenant from unnest(in_conversations, in_tenants) as u(id, tenant) order by u.id
    ) as wanted
    cross join lateral (
        select c.id from conversations c where c.id = wanted.id and c.tenant = wanted.tenant limit 1 for no key update skip locked
    ) as locked;

    clock := date_trunc('milliseconds', clock_timestamp());

    return query
    with items as materialized (
        select i.*, c.type, c.last_seq, c.deleted_at is not null as is_deleted, c.tenant is not distinct from i.tenant as is_known,
            i.conversation = any(held) as is_held,
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

create function append_message(
    in_conversation uuid, in_tenant text, in_actor text, in_admin boolean, in_client_id uuid,
    in_event_id uuid, in_payload text, in_reply uuid
) returns table (
    item bigint, outcome text, seq bigint, id uuid, created_at timestamptz,
    payload text, edited_at timestamptz, deleted_at timestamptz, version integer, outbox_id bigint
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    there record;
    earlier record;
    is_repeat boolean;
    own_role text;
    was_member boolean := false;
    target record;
    own_messages bigint;
    has_target boolean := false;
    clock timestamptz;
    stored_at timestamptz;
    is_due boolean;
begin
    -- The row as it is once the lock is held; each statement behind this one sees all that committed before.
    item := 1;
    select c.tenant, c.type, c.last_seq, c.last_event_at, c.active_at, c.deleted_at is not null as is_deleted, c.messages into there
    from conversations c where c.id = in_conversation and c.tenant = in_tenant for no key update skip locked;
    if not found then
        outcome := case when exists (select from conversations c where c.id = in_conversation and c.tenant = in_tenant)
            then 'locked' else 'not_found' end;
        return next;
        return;
    end if;

    select e.seq, e.id, e.created_at, e.edited_at, e.deleted_at, e.version, e.type = 'message.created' as is_message, e.payload
    into earlier
    from events e where e.conversation_id = in_conversation and e.actor = in_actor and e.client_id = in_client_id;
    is_repeat := found;

    select p.role into own_role from participants p
    where p.conversation_id = in_conversation and p.user_id = in_actor and p.left_seq is null;

    if there.is_deleted then
        was_member := exists (select from participants p where p.conversation_id = in_conversation and p.user_id = in_actor);
    end if;
    if in_reply is not null then
        -- By its id alone: named beside it, the conversation would make another index look as good, and a whole log be read.
        select e.conversation_id, e.type into target from events e where e.id = in_reply;
        has_target := target.conversation_id = in_conversation and target.type = 'message.created';
    end if;

    outcome := message_decision(
        true, is_repeat, earlier.is_message, there.is_deleted, was_member, in_admin,
        own_role, there.type, in_reply is not null, has_target
    );
    if outcome <> 'stored' then
        seq := earlier.seq;
        id := earlier.id;
        created_at := earlier.created_at;
        payload := case outcome when 'duplicate' then earlier.payload end;
        edited_at := earlier.edited_at;
        deleted_at := earlier.deleted_at;
        version := earlier.version;
        return next;
        return;
    end if;

    clock := date_trunc('milliseconds', clock_timestamp());
    stored_at := greatest(clock, there.last_event_at);
    is_due := stored_at >= there.active_at + interval '1 minute';
    seq := there.last_seq + 1;
    id := in_event_id;
    created_at := stored_at;

    select e.actor_messages into own_messages from events e
    where e.conversation_id = in_conversation and e.actor = in_actor and e.actor_messages is not null
    order by e.messages desc limit 1;

    insert into events (conversation_id, seq, id, type, actor, client_id, created_at, payload,
        messages, actor_messages)
    values (in_conversation, there.last_seq + 1, in_event_id, 'message.created', in_actor, in_client_id, stored_at, in_payload,
        there.messages + 1, coalesce(own_messages, 0) + 1);
    update conversations c
    set last_seq = there.last_seq + 1, last_message_seq = there.last_seq + 1, last_event_at = stored_at,
        last_message_at = stored_at, messages = there.messages + 1,
        active_at = case when is_due then stored_at else c.active_at end
    where c.id = in_conversation;
    if is_due then
        update recents r set active_at = stored_at where r.conversation_id = in_conversation;
    end if;
    insert into outbox as q (created_at, conversation_ids, seqs)
    values (clock, array[in_conversation], array[there.last_seq + 1]) returning q.id into outbox_id;
    return next;
end
$$;
