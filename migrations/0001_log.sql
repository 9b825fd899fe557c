-- The log and its projections (docs/architecture.md, "The log is the model").
--
-- What belongs to a conversation has its id first in its keys, so that a distributed Postgres can shard by it; what cannot
-- (creation keys, direct pairs, user counts, the outbox) is small and keyed by tenant or by itself. There are no foreign keys:
-- every write to a conversation is made under the lock on its row, and a check per event would cost more than the insert.
-- Ids of users are opaque: they compare by bytes (COLLATE "C").

create table conversations (
    id uuid primary key,
    tenant text collate "C" not null,
    type text collate "C" not null check (type in ('direct', 'group', 'channel')),
    metadata text not null,                      -- JSON, byte for byte
    version bigint not null default 1,           -- counts metadata changes
    created_by text collate "C" not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    last_seq bigint not null,
    last_message_seq bigint,                     -- the last message.created, for previews
    last_event_at timestamptz not null,          -- not indexed, so that an append stays a HOT update
    members integer not null,                    -- present memberships
    deleted_at timestamptz,
    deleted_seq bigint
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);

-- One row a membership; at most one of a user without left_seq.
create table participants (
    conversation_id uuid not null,
    user_id text collate "C" not null,
    joined_seq bigint not null,                  -- the event that names the user
    tenant text collate "C" not null,
    role text collate "C" not null check (role in ('member', 'admin')),
    position integer not null,                   -- the user's place among those named by that event
    joined_at timestamptz not null,
    left_seq bigint,                             -- the event that ended it
    left_at timestamptz,
    last_read_seq bigint not null,
    primary key (conversation_id, user_id, joined_seq),
    check (left_seq > joined_seq)
) with (fillfactor = 80);
create unique index participants_present on participants (conversation_id, user_id) where left_seq is null;
create index participants_by_joining on participants (conversation_id, joined_seq, position) where left_seq is null;
create index participants_by_user on participants (tenant, user_id, conversation_id) where left_seq is null;

-- The log. client_id is the key of the command that appended, request_hash what a repeat of it is compared with.
create table events (
    conversation_id uuid not null,
    seq bigint not null,
    id uuid not null,
    type text collate "C" not null,
    actor text collate "C" not null,
    client_id uuid,
    request_hash bytea,
    created_at timestamptz not null,
    edited_at timestamptz,
    deleted_at timestamptz,
    payload text not null,                       -- of message.created the message's body, else the event's data; JSON, byte for byte
    primary key (conversation_id, seq)
) with (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);
create unique index events_by_client_id on events (conversation_id, actor, client_id) where client_id is not null;
create unique index events_by_id on events (id);

-- The first outcome of a creation, by its key.
create table creation_keys (
    tenant text collate "C" not null,
    user_id text collate "C" not null,
    key text collate "C" not null,
    request_hash bytea not null,
    conversation_id uuid,                        -- of a success
    outcome text,                                -- JSON: of a success the answer's body, else the refusal; null only while it runs
    expires_at timestamptz not null,
    primary key (tenant, user_id, key)
);
create index creation_keys_by_expiry on creation_keys (expires_at);

-- The undeleted direct conversation of two users, user_a before user_b by bytes.
create table direct_pairs (
    tenant text collate "C" not null,
    user_a text collate "C" not null,
    user_b text collate "C" not null,
    conversation_id uuid not null,
    primary key (tenant, user_a, user_b),
    check (user_a < user_b)
);

-- How many present memberships a user has. Locked behind the conversation's row, in the order of user ids.
create table user_counts (
    tenant text collate "C" not null,
    user_id text collate "C" not null,
    memberships integer not null,
    primary key (tenant, user_id)
) with (fillfactor = 80);

-- What was committed and is to be published: one row a transaction, with the keys of its events. Marked when JetStream has
-- acknowledged all of them: with the stream's creation time, the highest sequence of any of them, and that event's id.
create table outbox (
    id bigint generated always as identity primary key,
    created_at timestamptz not null,
    conversation_ids uuid[] not null,
    seqs bigint[] not null,
    published_at timestamptz,
    stream_created timestamptz,
    stream_seq bigint,
    stream_event_id uuid
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02);
create index outbox_lingering on outbox (created_at) where published_at is null;
create index outbox_by_sequence on outbox (stream_created, stream_seq) where published_at is not null;
create index outbox_by_publication on outbox (published_at) where published_at is not null;
