//! What puts the load: connections that cost little, messages at their intended times, and how long each took.

mod arrivals;
mod connection;
mod groups;
mod isolated;
mod latency;
mod pace;
mod timer;
mod users;

pub(crate) use arrivals::Arrivals;
pub(crate) use connection::{Connection, Hearing};
pub(crate) use groups::groups;
pub(crate) use isolated::Isolated;
pub(crate) use latency::{Latencies, Latency};
pub(crate) use pace::{Pace, SendTimes, send_frame};
pub(crate) use timer::Timer;
pub(crate) use users::{LoadUser, LoadUsers, begin, connect_all};
