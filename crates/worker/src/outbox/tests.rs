//! The outbox on real parts: what is committed is published, whatever is lost or away.

mod announcing;
mod losses;
mod part;
mod relaying;
mod sweeping;
