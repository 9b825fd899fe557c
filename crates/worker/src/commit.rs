//! The only place that writes the log: batches of messages in one call, other commands in a transaction each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use confab_protocol::chain::chain;
use confab_protocol::command::{Command, Outcome, Request};
use confab_protocol::condition::Monitor;
use confab_protocol::error::{Code, Failure};
use tracing::{debug, error, warn};

use crate::conditions::COMMITS;
use crate::database::{ACQUIRE, Pool, bounded};
use crate::error::{CommandError, Meaning, meaning};
use crate::metrics::Metrics;
use crate::outbox::Committed;
use crate::planner::{Locking, Open};

mod append;
mod batch;
mod changes;
mod conversation;
mod creation;
mod keys;
mod lock;
mod marks;
mod membership;
mod message;
mod revocation;
mod transact;

/// How soon a commit that failed is tried again.
const AGAIN: Duration = Duration::from_millis(50);

pub(crate) use append::role;
pub(crate) use batch::{Item, bind};
pub(crate) use creation::Shown;
pub(crate) use marks::Mark;
pub(crate) use membership::{ParticipantRow, participant};

/// Commits; what was committed is for the publisher.
#[derive(Debug, Clone)]
pub(crate) struct Committer {
    /// For batches: as many connections as lanes, so that the same few serve them all and stay warm.
    batches: Pool,
    /// For commands that go alone.
    pool: Pool,
    /// For what waits for a lock.
    places: Pool,
    metrics: Metrics,
    commits: Arc<Monitor>,
}

/// What became of a command.
#[derive(Debug)]
pub(crate) enum Fate {
    /// It has its outcome.
    Decided(CommandOutcome),
    /// Another holds what it needs: it is to be carried out again.
    Locked(Open),
}

/// A command's outcome.
pub(crate) type CommandOutcome = Result<Outcome, Failure>;

impl Committer {
    pub(crate) fn new([batches, pool, places]: [Pool; 3], metrics: Metrics) -> Self {
        Self {
            batches,
            pool,
            places,
            metrics,
            commits: Arc::new(Monitor::new(COMMITS)),
        }
    }

    /// Whether Postgres carries commands out.
    pub(crate) fn condition(&self) -> Arc<Monitor> {
        Arc::clone(&self.commits)
    }

    /// Carries out a command that goes alone. What fails for a passing reason is tried again until `deadline`: its key
    /// finds a first execution whose end was not seen. What was committed is published after the answer was given.
    pub(crate) async fn alone(
        &self,
        request: &Request,
        deadline: Instant,
        locking: Locking,
        mut open: Open,
    ) -> (Fate, Option<Committed>) {
        loop {
            let transacting = Box::pin(self.transact(request, locking, deadline));
            let error = match bounded(transacting).await {
                Ok((outcome, committed)) => {
                    self.commits.succeeded();
                    self.count(request, &outcome, committed.as_ref());
                    return (Fate::Decided(Ok(outcome)), committed);
                }
                Err(error) => error,
            };
            let again = match &error {
                CommandError::Postgres(cause) => {
                    let meaning = meaning(cause);
                    open.is_unknown |= meaning == Meaning::Unknown;
                    debug!(error = %chain(cause), ?meaning, "a command failed in Postgres");
                    if meaning == Meaning::Locked {
                        open.skipped = Some(error.failure(false));
                        return (Fate::Locked(open), None);
                    }
                    !matches!(meaning, Meaning::Data | Meaning::Defect)
                }
                CommandError::KeyInUse(_) => {
                    open.skipped = Some(error.failure(false));
                    return (Fate::Locked(open), None);
                }
                CommandError::Refused(_) | CommandError::Json(_) | CommandError::Stored(_) => false,
            };
            if !again || gives_up(deadline, Instant::now() + AGAIN) {
                self.report(&error);
                return (Fate::Decided(Err(error.failure(open.is_unknown))), None);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Says what a refusal cannot say: the caller is told no more than a code.
    fn report(&self, error: &CommandError) {
        match error {
            CommandError::Refused(_) | CommandError::KeyInUse(_) => {}
            CommandError::Postgres(cause) => match meaning(cause) {
                Meaning::Data => {
                    warn!(error = %chain(cause), "Postgres refused a command's data");
                }
                Meaning::Defect => error!(error = %chain(cause), "a statement failed"),
                Meaning::Locked | Meaning::Again | Meaning::NotExecuted | Meaning::Unknown => {
                    self.passing(cause);
                }
            },
            CommandError::Json(cause) => {
                error!(error = %chain(cause), "stored JSON cannot be read or written");
            }
            CommandError::Stored(what) => error!(what, "stored data is not ours"),
        }
    }

    /// Notes that Postgres did not carry something out for a reason that passes. Where there was no connection, that is told instead.
    fn passing(&self, cause: &sqlx::Error) {
        if !matches!(cause, sqlx::Error::PoolTimedOut) {
            self.commits.failed(cause);
        }
    }

    /// Counts conversations that began or ended; what a repeat found is neither.
    fn count(&self, request: &Request, outcome: &Outcome, committed: Option<&Committed>) {
        if let (Command::CreateConversation(create), Outcome::Created(created)) =
            (&request.command, outcome)
            && !created.replayed
        {
            self.metrics.created(create.r#type);
        }
        if let Some(committed) = committed {
            self.metrics.deleted(&committed.events);
        }
    }
}

/// Whether too little is left of a budget for another try: the answer must come while the gateway waits for it.
pub(crate) fn gives_up(deadline: Instant, now: Instant) -> bool {
    now + ACQUIRE + AGAIN >= deadline
}

/// Whether a budget has not ended while a connection or a lock was waited for, or this process stood still: its gateway has given the
/// command up then, and its caller may have been told so, or been refused elsewhere.
fn in_time(deadline: Instant) -> Result<(), sqlx::Error> {
    if Instant::now() < deadline {
        Ok(())
    } else {
        Err(sqlx::Error::PoolTimedOut)
    }
}

/// What a command is answered with whose budget ended: unknown when an earlier run may have stored it.
fn given_up(unknown: bool) -> Failure {
    if unknown {
        Failure::of(Code::Timeout)
    } else {
        Failure::new(Code::Unavailable, "Postgres did not take it in time").retry_after(1000)
    }
}

#[cfg(test)]
mod tests;
