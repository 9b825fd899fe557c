-- What an edit or a deletion is about: the seq of its message.created. A message.edited keeps no content of its own (payload {});
-- whoever encodes one writes the message as it is now, so that what was edited or deleted since is nowhere else.
alter table events add column target_seq bigint;
create index events_by_target on events (conversation_id, target_seq) where target_seq is not null;
