use std::sync::Arc;

use confab_protocol::frame::{Ack, ClientFrame};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::session::{Answer, SendError};

/// A send that is kept until it has its answer.
#[derive(Debug)]
pub(in crate::resuming) struct PendingSend {
    pub(in crate::resuming) id: String,
    pub(in crate::resuming) frame: ClientFrame,
    /// Where the answer goes; none where nobody waits.
    pub(in crate::resuming) answer: Option<Answer>,
    _room: Room,
}

impl PendingSend {
    pub(in crate::resuming) const fn new(
        id: String,
        frame: ClientFrame,
        answer: Option<Answer>,
        room: Room,
    ) -> Self {
        Self {
            id,
            frame,
            answer,
            _room: room,
        }
    }

    pub(super) fn answer(self, answer: Result<Ack, SendError>) {
        if let Some(waiting) = self.answer {
            // Who stopped waiting needs no answer.
            let _unheard = waiting.send(answer).is_err();
        }
    }
}

/// The room that something kept takes, given back when it is dropped.
#[derive(Debug, Default)]
pub(in crate::resuming) struct Room {
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Room {
    /// Waits for one of the `places`, and for so many bytes of `space`.
    pub(in crate::resuming) async fn of(
        places: &Arc<Semaphore>,
        space: &Arc<Semaphore>,
        bytes: usize,
    ) -> Self {
        let mut permits = Vec::with_capacity(2);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        for (semaphore, many) in [(places, 1), (space, bytes)] {
            // They are never closed, so that there is nothing to fail.
            if let Ok(permit) = Arc::clone(semaphore).acquire_many_owned(many).await {
                permits.push(permit);
            }
        }
        Self { _permits: permits }
    }
}
