//! The worker: decides commands, group-commits them to Postgres, publishes what was committed.
