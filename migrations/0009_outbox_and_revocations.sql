-- The relay finds what was not published by id, whatever any clock says; what it stepped over has an index of its own, so that it is in
-- nobody's way.
alter table outbox add column attempts integer not null default 0;    -- how often it could not be published for a reason of its own
drop index outbox_lingering;
create index outbox_unpublished on outbox (id) where published_at is null and attempts = 0;
create index outbox_stepped_over on outbox (id) where published_at is null and attempts > 0;

-- How far the relays of all workers have taken what lingers, in this pass over it: one row. A claim moves it on, so that no two relays
-- take the same rows; who dies with a claim leaves them to the next pass.
create table outbox_relay (
    singleton boolean primary key default true check (singleton),
    position bigint not null,
    pass bigint not null
) with (fillfactor = 10, autovacuum_vacuum_threshold = 1000);
insert into outbox_relay (position, pass) values (0, 0);

-- How long revocations must be kept, as gateways said: those of tokens for the greatest lifetime that any gateway accepts, those of
-- sessions for as long as any gateway resumes one. A saying counts for its own length behind its last time, so that one of a gateway
-- that was cut off for long counts still, and one that nobody says any more does not count for ever.
create table revocation_lifetimes (
    kind text collate "C" not null check (kind in ('session', 'token')),
    seconds bigint not null,
    said_at timestamptz not null,
    is_applied boolean not null,                 -- whether what was revoked before is kept for so long, too
    primary key (kind, seconds)
);

-- How many sessions a user has revoked.
create index revocations_of_sessions on revocations (tenant, user_id) where kind = 'session' and user_id <> '';
