//! Commits against a real Postgres.

mod batches;
mod content;
mod conversations;
mod creations;
mod memberships;
mod messages;
mod plan;
mod races;
mod roles;
