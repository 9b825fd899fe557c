-- Lists by the last event, for users in thousands of conversations (docs/architecture.md, "Lists").
--
-- conversations.last_event_at is not indexed, so that an append stays a HOT update, and a row a member and message would cost more
-- than the message. So each membership has a row here with a time that is written at most once a minute: the last event of a
-- conversation lies within a minute from active_at on. Whoever lists reads down by active_at until a minute below the last row of
-- its page. A conversation of more than 100 members writes no such rows at each event: from then on its active_at is infinity,
-- which every list reads first, whatever its page.
--
-- Written under the lock on the conversation's row only. All rows of a conversation have the active_at of that row.
alter table conversations add column active_at timestamptz not null default '-infinity';
create table recents (
    conversation_id uuid not null,
    user_id text collate "C" not null,
    tenant text collate "C" not null,
    type text collate "C" not null,
    active_at timestamptz not null,
    primary key (conversation_id, user_id)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
create index recents_by_activity on recents (tenant, user_id, type, active_at, conversation_id);

update conversations set active_at = case when members > 100 then 'infinity' else last_event_at end;
insert into recents (conversation_id, user_id, tenant, type, active_at)
select p.conversation_id, p.user_id, p.tenant, c.type, c.active_at
from participants p join conversations c on c.id = p.conversation_id where p.left_seq is null and c.deleted_at is null;

-- Memberships by joining: the present ones, all of them, and the present admins, who are few among many. No position is below 0: the
-- condition is there so that only who asks for it gets the index. Without it, where conversations had some one member on average, the one
-- membership of a user in a conversation was looked up by reading all of that conversation's (10,000 rows), at what looked like the same cost.
drop index participants_by_joining;
create index participants_by_joining on participants (conversation_id, joined_seq, position)
    where left_seq is null and position >= 0;
create index participants_ever_by_joining on participants (conversation_id, joined_seq, position) where position >= 0;
create index participants_admins on participants (conversation_id, joined_seq, position) where left_seq is null and role = 'admin';

-- The first seq of a conversation stored at or after a time; one above the head where there is none. Times never go down within a
-- conversation and seqs have no gaps, so that some twenty look-ups find it among a million.
create function first_seq_since(in_conversation uuid, in_head bigint, in_at timestamptz) returns bigint
language plpgsql stable
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    low bigint := 1;
    high bigint := in_head + 1;
    middle bigint;
begin
    while low < high loop
        middle := (low + high) / 2;
        if (select e.created_at < in_at from events e where e.conversation_id = in_conversation and e.seq = middle) then
            low := middle + 1;
        else
            high := middle;
        end if;
    end loop;
    return low;
end
$$;

-- Appends a batch of messages, as 0002 describes it. New: the time of an event is never below that of the event before it, and
-- recents.
create or replace function append_messages(
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
    clock timestamptz;
begin
    perform locked.found
    from (select distinct u.id from unnest(in_conversations) as u(id) order by u.id) as wanted
    cross join lateral (
        select true as found from conversations c where c.id = wanted.id limit 1 for no key update
    ) as locked;

    clock := date_trunc('milliseconds', clock_timestamp());

    return query
    with items as materialized (
        select i.*, c.type, c.last_seq, c.deleted_at is not null as is_deleted, c.tenant is not distinct from i.tenant as is_known,
            greatest(clock, c.last_event_at) as stored_at, c.active_at,
            d.seq as first_seq, d.id as first_id, d.created_at as first_at, d.edited_at, d.deleted_at,
            d.request_hash = i.hash as is_same, case when i.wanted then d.payload end as first_payload,
            m.role, f.was_member, r.conversation_id as reply_conversation, r.type as reply_type
        from unnest(in_conversations, in_tenants, in_actors, in_admins, in_client_ids, in_event_ids, in_hashes, in_payloads,
                in_replies, in_wanted) with ordinality
            as i(conversation, tenant, actor, admin, client_id, event_id, hash, payload, reply, wanted, n)
        left join lateral (
            select c.tenant, c.type, c.last_seq, c.last_event_at, c.active_at, c.deleted_at from conversations c
            where c.id = i.conversation limit 1
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
        select n.conversation, n.new_seq, n.event_id, 'message.created', n.actor, n.client_id, n.hash, n.stored_at, n.payload
        from numbered n where n.decision = 'stored'
    ),
    heads as materialized (
        select n.conversation, max(n.new_seq) as head, max(n.stored_at) as stored_at,
            bool_or(n.stored_at >= n.active_at + interval '1 minute') as is_due
        from numbered n where n.decision = 'stored' group by n.conversation
    ),
    moved as (
        update conversations c
        set last_seq = h.head, last_message_seq = h.head, last_event_at = h.stored_at,
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
        n.first_payload, n.edited_at, n.deleted_at,
        (select q.id from queued q)
    from numbered n;
end
$$;
