//! Read marks: taken from batches of commands, and carried out beside the planner.

use std::time::Instant;

use confab_protocol::command::{Command, MarkRead, Outcome};
use confab_protocol::error::{Code, Failure};

use super::{Dispatch, Ended, Parts, Pending, code};
use crate::commit::{CommandOutcome, Mark};
use crate::fault;
use crate::marks::Waiting;

/// After how long a refused mark is worth another try, in milliseconds.
const AGAIN: u64 = 250;

impl Dispatch {
    /// Takes a mark in, or refuses it.
    pub(super) fn take_mark(&mut self, deadline: Instant, job: Pending, parts: &mut Parts) {
        let items = match &job.request.command {
            Command::MarkRead(MarkRead::Messages(messages)) => messages.len().max(1),
            _ => 1,
        };
        let waiting = Waiting {
            items,
            deadline,
            job,
        };
        if let Err(Waiting { job, .. }) = self.marks.push(waiting) {
            let failure = Failure::of(Code::Overloaded).retry_after(AGAIN);
            self.answer(job, Err(failure), parts);
        }
    }

    /// Begins a statement with what waits, unless one runs.
    pub(super) fn start_marks(&mut self) {
        let Some(together) = self.marks.next(Instant::now()) else {
            return;
        };
        let mut late = Parts::default();
        for Waiting { job, .. } in together.expired {
            self.answer(job, Err(Failure::of(Code::Timeout)), &mut late);
        }
        self.send(late);
        let (mut marks, mut slots, mut dies) = (Vec::new(), Vec::new(), false);
        for Waiting { deadline, job, .. } in together.due {
            let Pending {
                request,
                received,
                slot,
            } = job;
            let bytes = request.command.weight();
            dies |= fault::exits_before_answer(&request);
            if let Command::MarkRead(read) = request.command {
                marks.push(Mark {
                    caller: request.caller,
                    read,
                    deadline,
                });
                slots.push((slot, received, bytes));
            }
        }
        if marks.is_empty() {
            return;
        }
        let (committer, metrics) = (self.committer.clone(), self.metrics.clone());
        self.tasks.spawn(async move {
            let outcomes = committer.mark(&marks).await;
            if dies && outcomes.iter().any(moves) {
                std::process::abort();
            }
            let mut parts = Parts::default();
            for ((slot, received, bytes), outcome) in slots.into_iter().zip(outcomes) {
                metrics.command("mark_read", code(&outcome), received.elapsed(), bytes);
                parts.add(slot, outcome);
            }
            parts.send().await;
            Ended::Marks
        });
    }
}

/// Whether a mark stands further than before: the repeat of one whose worker died does not.
fn moves(outcome: &CommandOutcome) -> bool {
    matches!(outcome, Ok(Outcome::Read(marks)) if marks.iter().any(|mark| mark.moved))
}
