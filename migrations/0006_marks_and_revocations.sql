-- Moves read marks forward, many commands at once: no command holds up another, and none holds up a send, for no conversation is locked.
--
-- An item is a mark of a command: a seq of a conversation, or a message. The rows that move are locked first, in the order of
-- (conversation, user), in a statement of its own: the statement behind it sees all that committed while the locks were waited for,
-- a removal or a deletion among it. A mark never moves above the head, and never back.
--
-- A command is carried out whole or not at all. One row comes back for each of its conversations, with one of: marked; deleted (the
-- user was a member); not_found (unknown, or not the user's).
create function mark_read(
    in_commands integer[], in_tenants text[], in_users text[], in_conversations uuid[], in_seqs bigint[], in_messages uuid[]
) returns table (command integer, outcome text, conversation uuid, up_to bigint, moved boolean, members integer)
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
    targets uuid[];
    seqs bigint[];
begin
    -- What an id names never changes.
    select array_agg(coalesce(i.conversation, e.conversation_id) order by i.n), array_agg(coalesce(i.seq, e.seq) order by i.n)
    into targets, seqs
    from unnest(in_conversations, in_seqs, in_messages) with ordinality as i(conversation, seq, message, n)
    left join lateral (
        select e.conversation_id, e.seq from events e where e.id = i.message and e.type = 'message.created' limit 1
    ) e on true;

    perform locked.found
    from (
        select i.conversation, i.tenant, i.user_id collate "C" as user_id, max(i.seq) as seq
        from unnest(targets, in_tenants, in_users, seqs) as i(conversation, tenant, user_id, seq)
        where i.conversation is not null group by 1, 2, 3 order by 1, 3
    ) as wanted
    cross join lateral (
        select true as found from participants p
        where p.conversation_id = wanted.conversation and p.user_id = wanted.user_id and p.left_seq is null
            and p.tenant = wanted.tenant and p.last_read_seq < wanted.seq
        limit 1 for no key update
    ) as locked;

    return query
    with items as materialized (
        select i.*, c.last_seq, c.members, p.joined_seq, p.last_read_seq, case
            when c.tenant is distinct from i.tenant then 'not_found'
            when c.deleted_at is not null and f.was_member then 'deleted'
            when p.joined_seq is null then 'not_found'
            else 'marked'
        end as outcome
        from unnest(in_commands, in_tenants, in_users, targets, seqs) as i(command, tenant, user_id, conversation, seq)
        left join lateral (
            select c.tenant, c.last_seq, c.members, c.deleted_at from conversations c where c.id = i.conversation limit 1
        ) c on true
        left join lateral (
            select p.joined_seq, p.last_read_seq from participants p
            where p.conversation_id = i.conversation and p.user_id = i.user_id and p.left_seq is null limit 1
        ) p on true
        left join lateral (
            select true as was_member from participants p
            where c.deleted_at is not null and p.conversation_id = i.conversation and p.user_id = i.user_id limit 1
        ) f on true
    ),
    decided as materialized (
        select i.*, bool_or(i.outcome = 'not_found') over w as is_unknown, bool_or(i.outcome = 'deleted') over w as is_deleted
        from items i window w as (partition by i.command)
    ),
    marks as materialized (
        select d.conversation, d.user_id, d.joined_seq, least(max(d.seq), max(d.last_seq)) as seq
        from decided d where not (d.is_unknown or d.is_deleted) group by d.conversation, d.user_id, d.joined_seq
    ),
    moving as (
        update participants p set last_read_seq = m.seq from marks m
        where p.conversation_id = m.conversation and p.user_id = m.user_id and p.joined_seq = m.joined_seq
            and p.left_seq is null and p.last_read_seq < m.seq
    )
    select d.command,
        case when bool_or(d.is_unknown) then 'not_found' when bool_or(d.is_deleted) then 'deleted' else 'marked' end,
        d.conversation, max(greatest(m.seq, d.last_read_seq)), bool_or(least(d.seq, d.last_seq) > d.last_read_seq), max(d.members)
    from decided d
    left join lateral (
        select m.seq from marks m where m.conversation = d.conversation and m.user_id = d.user_id limit 1
    ) m on true
    group by d.command, d.conversation;
end
$$;

-- What was revoked, until every token that it covers has expired. Revisions are drawn under an advisory lock of the transaction, so that
-- they are seen in their order: who has read up to one misses none below it.
create sequence revocation_revisions;
create table revocations (
    tenant text collate "C" not null,
    kind text collate "C" not null check (kind in ('session', 'login', 'user')),
    subject text collate "C" not null,           -- the session's id, the login, the user
    user_id text collate "C" not null,           -- of a session, whose it must be to be meant; else empty
    revision bigint not null,
    issued_before timestamptz,                   -- of a user's tokens
    created_at timestamptz not null,
    expires_at timestamptz not null,
    primary key (tenant, kind, subject, user_id)
);
create unique index revocations_by_revision on revocations (revision);
create index revocations_by_expiry on revocations (expires_at);
