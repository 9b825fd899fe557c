//! Events from the feed to a socket's frames, below the hub: the order of events, the window of recent ones, and what waits for a socket.
//! Nothing here knows the hub, a session or a route.

pub(crate) mod acks;
pub(crate) mod broadcast;
pub(crate) mod encoding;
pub(crate) mod frames;
pub(crate) mod high_water;
pub(crate) mod send_queue;
pub(crate) mod sequencer;
pub(crate) mod window;
