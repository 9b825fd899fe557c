-- Unread counts at one price (docs/architecture.md, "Lists").
--
-- Every event stores how many messages its conversation has up to and with it, every message also how many of them its actor sent.
-- Unread messages are then a difference of two numbers, less the reader's own, which is another difference, less the deleted ones,
-- which are looked at. Both indexes are ordered by `messages`, not by `seq`: the primary key cannot deliver that order, so that with
-- sorting off it never takes their place, whatever Postgres takes the size of a log for.
--
-- 0008 has added the columns. This writes every row of events anew, 40 s a million on two busy cores; commands wait for that, reads do not.
lock table conversations, events in exclusive mode;

update events e set messages = n.messages, actor_messages = n.actor_messages
from (
    select conversation_id, seq,
        count(*) filter (where type = 'message.created') over (partition by conversation_id order by seq) as messages,
        case when type = 'message.created' then
            count(*) filter (where type = 'message.created') over (partition by conversation_id, actor order by seq)
        end as actor_messages
    from events
) n
where e.conversation_id = n.conversation_id and e.seq = n.seq;
update conversations c set messages = e.messages from events e where e.conversation_id = c.id and e.seq = c.last_seq;

create index events_by_actor on events (conversation_id, actor, messages) where actor_messages is not null;
create index events_deleted on events (conversation_id, messages) where deleted_at is not null;

-- How many messages of others that are not deleted stand above a read mark, up to an event at which the conversation has in_messages;
-- at most in_most. That many also says that there are more, or that more than in_most deleted ones would have to be looked at.
create function unread_messages(in_conversation uuid, in_user text, in_mark bigint, in_messages bigint, in_most bigint) returns bigint
language plpgsql stable
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set plan_cache_mode = force_generic_plan
as $$
declare
    read_messages bigint;
    unread bigint;
    deleted record;
begin
    -- Workers of the version before number messages only: what they append beside counts as the event before it.
    select e.messages into read_messages from events e
    where e.conversation_id = in_conversation and e.seq <= in_mark and e.messages is not null
    order by e.seq desc limit 1;
    unread := in_messages - read_messages
        - coalesce((
            select e.actor_messages from events e
            where e.conversation_id = in_conversation and e.actor = in_user and e.actor_messages is not null
                and e.messages <= in_messages
            order by e.messages desc limit 1
        ), 0)
        + coalesce((
            select e.actor_messages from events e
            where e.conversation_id = in_conversation and e.actor = in_user and e.actor_messages is not null
                and e.messages <= read_messages
            order by e.messages desc limit 1
        ), 0);
    -- Of so many it does not matter which are deleted.
    if unread <= 0 or unread >= 2 * in_most then
        return least(unread, in_most);
    end if;
    select count(*) as looked_at, count(*) filter (where d.actor <> in_user) as of_others into deleted
    from (
        select e.actor from events e
        where e.conversation_id = in_conversation and e.deleted_at is not null
            and e.messages > read_messages and e.messages <= in_messages
        order by e.messages limit in_most + 1
    ) d;
    unread := unread - deleted.of_others;
    if unread > 0 and deleted.looked_at > in_most then
        return in_most;
    end if;
    return least(unread, in_most);
end
$$;
