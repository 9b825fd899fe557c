//! Answers: one a batch of a gateway's, sent when every command of it has its outcome.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use confab_bus::rpc::Reply;
use confab_protocol::command::{Outcomes, Request};
use confab_protocol::error::{Code, Failure};
use tracing::debug;

use crate::commit::CommandOutcome;

/// A command, when it came, and where its outcome goes.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) request: Request,
    pub(super) received: Instant,
    pub(super) slot: Slot,
}

/// Where a command's outcome goes: into its batch's answer.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    answering: Arc<Answering>,
    place: usize,
}

/// The answer to a batch of a gateway's, sent when it is complete.
#[derive(Debug)]
pub(super) struct Answering(Mutex<(Vec<Option<CommandOutcome>>, usize, Option<Reply>)>);

impl Answering {
    /// Of a batch of this many commands.
    pub(super) fn new(count: usize, reply: Reply) -> Self {
        Self(Mutex::new((vec![None; count], count, Some(reply))))
    }
}

impl Slot {
    /// The place of one command in its batch's answer.
    pub(super) fn new(answering: &Arc<Answering>, place: usize) -> Self {
        Self {
            answering: Arc::clone(answering),
            place,
        }
    }

    /// Sets the outcome; gives the whole answer when it was the last one.
    pub(super) fn set(&self, outcome: CommandOutcome) -> Option<(Reply, Outcomes)> {
        let mut state = self
            .answering
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (outcomes, missing, reply) = &mut *state;
        if let Some(slot) = outcomes.get_mut(self.place)
            && slot.replace(outcome).is_none()
        {
            *missing -= 1;
        }
        if *missing > 0 {
            return None;
        }
        let all = std::mem::take(outcomes).into_iter().flatten().collect();
        Some((reply.take()?, Outcomes(all)))
    }
}

/// Sends an answer; a gateway that does not get it asks again.
pub(super) async fn send(reply: Reply, outcomes: &Outcomes) {
    if let Err(error) = reply.send(outcomes).await {
        debug!(%error, "commands could not be answered");
    }
}

/// The refusal of an outcome, for metrics.
pub(super) fn code<T>(outcome: &Result<T, Failure>) -> Option<Code> {
    outcome.as_ref().err().map(|failure| failure.code)
}
