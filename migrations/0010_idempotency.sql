-- What a repeat is compared with (docs/architecture.md, "Idempotency").

-- A repeat is compared with what stands. A hash of a message outlived its deletion, and a short text is found by its hash.
alter table events drop column request_hash;
