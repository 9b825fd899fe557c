-- Memberships that ended lately are told to gateways, so that what the feed still says of them is recognized as late.
create index participants_by_ending on participants (tenant, user_id, left_at) where left_seq is not null;
