//! Commits against a real Postgres.

mod batches;
mod creations;
mod memberships;
mod plan;
