//! The answer to a gateway's batch: an outcome for each of its commands.

use std::sync::{Arc, Mutex, PoisonError};

use confab_bus::rpc::Reply;
use confab_protocol::command::Outcomes;

use crate::commit::CommandOutcome;

/// Where a command's outcome goes: into its batch's answer.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    answering: Arc<Answering>,
    place: usize,
}

/// The answer to a batch of a gateway's, sent when it is complete.
#[derive(Debug)]
struct Answering(Mutex<(Vec<Option<CommandOutcome>>, usize, Option<Reply>)>);

impl Slot {
    /// The places of an answer with so many outcomes.
    pub(super) fn each(count: usize, reply: Reply) -> impl Iterator<Item = Self> {
        let state = (vec![None; count], count, Some(reply));
        let answering = Arc::new(Answering(Mutex::new(state)));
        (0..count).map(move |place| Self {
            answering: Arc::clone(&answering),
            place,
        })
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
