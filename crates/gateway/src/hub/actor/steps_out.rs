//! The coordinator's way to the shards: it waits for none of them, and what one has no room for waits here in order.
//!
//! While something waits, no session is opened: so what waits is bounded by the sessions that there are, of which each has one step on its way
//! and one end.

use std::collections::VecDeque;

use futures_util::future::select_all;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing::debug;

use super::ShardTask;

/// The ways to all shards.
pub(super) struct StepQueues(Vec<StepQueue>);

struct StepQueue {
    inbox: mpsc::Sender<ShardTask>,
    waiting: VecDeque<ShardTask>,
}

impl StepQueues {
    pub(super) fn new(inboxes: Vec<mpsc::Sender<ShardTask>>) -> Self {
        let inboxes = inboxes.into_iter();
        let ways = inboxes.map(|inbox| StepQueue {
            inbox,
            waiting: VecDeque::new(),
        });
        Self(ways.collect())
    }

    /// Sends each shard its part, behind all that it was sent before.
    pub(super) fn send(&mut self, parts: impl IntoIterator<Item = ShardTask>) {
        for (way, todo) in self.0.iter_mut().zip(parts) {
            way.waiting.push_back(todo);
            way.send_on();
        }
    }

    /// Sends what waits, as far as there is room.
    pub(super) fn send_on(&mut self) {
        self.0.iter_mut().for_each(StepQueue::send_on);
    }

    /// Whether something waits.
    pub(super) fn is_waiting(&self) -> bool {
        self.0.iter().any(|way| !way.waiting.is_empty())
    }

    /// Comes when a shard for which something waits has room; at once where nothing waits. Cancel-safe.
    pub(super) async fn room(&self) {
        let waiting = self.0.iter().filter(|way| !way.waiting.is_empty());
        let rooms: Vec<_> = waiting.map(|way| Box::pin(way.inbox.reserve())).collect();
        if !rooms.is_empty() {
            let (_room, _, _) = select_all(rooms).await;
        }
    }

    #[cfg(test)]
    pub(super) fn inboxes(&self) -> impl Iterator<Item = &mpsc::Sender<ShardTask>> {
        self.0.iter().map(|way| &way.inbox)
    }
}

impl StepQueue {
    fn send_on(&mut self) {
        while let Some(todo) = self.waiting.pop_front() {
            match self.inbox.try_send(todo) {
                Ok(()) => {}
                Err(TrySendError::Full(todo)) => {
                    self.waiting.push_front(todo);
                    return;
                }
                Err(TrySendError::Closed(_)) => debug!("a session opens or ends behind its shard"),
            }
        }
    }
}
