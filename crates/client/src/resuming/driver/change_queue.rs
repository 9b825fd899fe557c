use std::collections::VecDeque;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::resuming::Change;

/// What the program is to be told. What it has no room for waits here; nothing is read from the socket meanwhile, so that
/// no more comes to it than a welcome names.
#[derive(Debug)]
pub(super) struct ChangeQueue {
    changes: mpsc::Sender<Change>,
    waiting: VecDeque<Change>,
}

impl ChangeQueue {
    pub(super) const fn new(changes: mpsc::Sender<Change>) -> Self {
        Self {
            changes,
            waiting: VecDeque::new(),
        }
    }

    pub(super) fn tell(&mut self, change: Change) {
        self.waiting.push_back(change);
        self.hand_over();
    }

    /// Returns true if nothing waits.
    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Hands over what there is room for. Who has dropped its changes hears no more.
    pub(super) fn hand_over(&mut self) {
        while let Some(change) = self.waiting.pop_front() {
            match self.changes.try_send(change) {
                Ok(()) => {}
                Err(TrySendError::Full(change)) => {
                    self.waiting.push_front(change);
                    return;
                }
                Err(TrySendError::Closed(_)) => self.waiting.clear(),
            }
        }
    }

    /// Waits for room. Cancel-safe.
    pub(super) async fn room(&self) {
        drop(self.changes.reserve().await);
    }

    /// Waits until the program has taken all.
    pub(super) async fn finish(mut self) {
        while !self.is_done() {
            self.room().await;
            self.hand_over();
        }
    }
}
