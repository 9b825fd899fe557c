use std::sync::Arc;

use confab_protocol::frame::ClientFrame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::session::Answer;

/// What is kept until it has its answer.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) id: String,
    pub(super) frame: ClientFrame,
    /// Where the answer goes; none where nobody waits.
    pub(super) answer: Option<Answer>,
    pub(super) room: Room,
}

/// The room that something kept takes, given back when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Room(Vec<OwnedSemaphorePermit>);

impl Room {
    pub(super) async fn of(places: &Arc<Semaphore>, space: &Arc<Semaphore>, bytes: usize) -> Self {
        let mut room = Vec::with_capacity(2);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        for (semaphore, many) in [(places, 1), (space, bytes)] {
            // Never closed, so that there is nothing to fail.
            if let Ok(permit) = Arc::clone(semaphore).acquire_many_owned(many).await {
                room.push(permit);
            }
        }
        Self(room)
    }
}
