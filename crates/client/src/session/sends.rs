//! The sends that wait for their answers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use confab_protocol::frame::{Ack, ErrorFrame};

use super::{Answer, SendError};
use crate::ws::Closed;

/// Shared by who sends and who reads.
#[derive(Debug, Default)]
pub(super) struct UnackedSends {
    state: Mutex<SendState>,
    ignored: AtomicU64,
}

#[derive(Debug, Default)]
struct SendState {
    waiting: HashMap<String, Answer>,
    closed: Option<Closed>,
}

impl UnackedSends {
    /// Notes that an answer to `id` is waited for.
    pub(super) fn expect(&self, id: String, answer: Answer) -> Result<(), SendError> {
        let mut state = self.state();
        if let Some(closed) = &state.closed {
            return Err(SendError::Closed(closed.clone()));
        }
        state.waiting.insert(id, answer);
        Ok(())
    }

    pub(super) fn acknowledge(&self, ack: Ack) {
        if let Some(id) = ack.id.clone() {
            self.answer(&id, Ok(ack));
        }
    }

    /// Hands a refusal to the send that it answers, or back where it answers none.
    pub(super) fn refuse(&self, error: ErrorFrame) -> Option<ErrorFrame> {
        let id = error.id.clone();
        match id.filter(|id| self.state().waiting.contains_key(id)) {
            Some(id) => {
                self.answer(&id, Err(SendError::Refused(Box::new(error))));
                None
            }
            None => Some(error),
        }
    }

    /// Tells all that wait that nothing comes any more.
    pub(super) fn close(&self, closed: &Closed) {
        let waiting = {
            let mut state = self.state();
            state.closed = Some(closed.clone());
            std::mem::take(&mut state.waiting)
        };
        for (_, answer) in waiting {
            // Who stopped waiting needs no answer.
            let _unheard = answer.send(Err(SendError::Closed(closed.clone()))).is_err();
        }
    }

    pub(super) fn ignore(&self) {
        self.ignored.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ignored(&self) -> u64 {
        self.ignored.load(Ordering::Relaxed)
    }

    fn answer(&self, id: &str, answer: Result<Ack, SendError>) {
        let waiting = self.state().waiting.remove(id);
        if let Some(waiting) = waiting {
            let _unheard = waiting.send(answer).is_err();
        }
    }

    fn state(&self) -> MutexGuard<'_, SendState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
