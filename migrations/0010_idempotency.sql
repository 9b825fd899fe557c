-- What a repeat is compared with (docs/architecture.md, "Idempotency").

-- A repeat is compared with what stands. A hash of a message outlived its deletion, and a short text is found by its hash.
alter table events drop column request_hash;

-- Commands that were carried out and appended nothing, by their key: what they asked for stood already. seq is the event that they found, and
-- answered with, so that a repeat is answered alike whatever became of its caller since.
create table settled_keys (
    conversation_id uuid not null,
    actor text collate "C" not null,
    client_id uuid not null,
    seq bigint not null,
    expires_at timestamptz not null,
    primary key (conversation_id, actor, client_id)
);
create index settled_keys_by_expiry on settled_keys (expires_at);

-- A creation's answer is made from its event: creation_keys.outcome is a refusal's alone. A repeat is compared by an HMAC whose key stands in
-- the row and goes with the conversation; where there is none, the key alone is recognised.
alter table creation_keys add column hash_key uuid, alter column request_hash drop not null;
update creation_keys set request_hash = null, outcome = case when conversation_id is null then outcome end;
create index creation_keys_by_conversation on creation_keys (conversation_id) where conversation_id is not null;
