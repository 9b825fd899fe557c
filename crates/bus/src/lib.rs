//! NATS as confab uses it: connection, subjects, topology, request batches, the feed.
