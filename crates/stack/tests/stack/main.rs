//! What tests and `confab dev` rely on, shown with a real NATS server, a real Postgres and real processes.

mod nats;
mod owner;
mod postgres;
mod process;
mod proxy;
mod support;
