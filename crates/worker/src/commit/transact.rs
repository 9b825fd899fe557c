//! Which command is carried out by what: each in one transaction.

use std::time::Instant;

use confab_protocol::command::{Caller, Command, Outcome, Request};
use confab_protocol::error::Failure;
use confab_protocol::ids::EventId;
use sqlx::PgConnection;

use super::lock::wait_for_lock;
use super::{Committer, conversation, creation, in_time, membership, message, revocation};
use crate::database::{READ_COMMITTED, Transaction};
use crate::error::CommandError;
use crate::outbox::Committed;
use crate::planner::Locking;

/// What a transaction gives: the outcome, and what is to be published.
pub(super) type Done = (Outcome, Option<Committed>);

/// Who asks, and what tells its gateway's own second try from a repeat.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) caller: &'a Caller,
    /// The id of the first event that is appended, where the gateway made one.
    pub(super) event: Option<EventId>,
}

impl Committer {
    /// Carries out a command in one transaction. A failure that leaves the connection good ends with a rollback, any other closes it.
    pub(super) async fn transact(
        &self,
        request: &Request,
        locking: Locking,
        deadline: Instant,
    ) -> Result<Done, CommandError> {
        let pool = match locking {
            Locking::Skip => &self.pool,
            Locking::Wait => &self.places,
        };
        let mut tx = pool.begin(READ_COMMITTED).await?;
        match self.carry_out(&mut tx, request, locking, deadline).await {
            Ok(done) => {
                tx.commit().await?;
                Ok(done)
            }
            // A refusal that was decided under a creation's key is kept with it.
            Err(Undone::KeptRefusal(failure)) => {
                tx.commit().await?;
                Err(failure.into())
            }
            Err(Undone::Failed(error)) => {
                roll_back(tx, &error).await?;
                Err(error)
            }
        }
    }

    async fn carry_out(
        &self,
        tx: &mut PgConnection,
        request: &Request,
        locking: Locking,
        deadline: Instant,
    ) -> Result<Done, Undone> {
        let caller = &request.caller;
        if locking == Locking::Wait {
            let conversation = request.command.conversation();
            let waited = wait_for_lock(tx, caller, conversation, deadline).await;
            waited.map_err(CommandError::from)?;
        }
        in_time(deadline).map_err(CommandError::from)?;
        let asker = Asker {
            caller,
            event: request.event,
        };
        Ok(match &request.command {
            Command::CreateConversation(command) => {
                let (created, committed) = creation::create(tx, caller, command).await?;
                let created = created.map_err(Undone::KeptRefusal)?;
                (Outcome::Created(created), committed)
            }
            Command::UpdateConversation(command) => {
                conversation::update(tx, asker, command).await?
            }
            Command::DeleteConversation(command) => {
                conversation::delete(tx, asker, command).await?
            }
            Command::AddParticipants(command) => membership::add(tx, asker, command).await?,
            Command::UpdateParticipant(command) => membership::update(tx, asker, command).await?,
            Command::RemoveParticipant(command) => membership::remove(tx, asker, command).await?,
            Command::EditMessage(command) => message::edit(tx, asker, command).await?,
            Command::DeleteMessage(command) => message::delete(tx, asker, command).await?,
            Command::Revoke(command) => revocation::revoke(tx, caller, command).await?,
            Command::SendMessage(_) => {
                return Err(CommandError::Stored("messages are committed in batches").into());
            }
            Command::MarkRead(_) => {
                return Err(CommandError::Stored("read marks have a lane of their own").into());
            }
        })
    }
}

/// Why a command changed nothing.
enum Undone {
    /// It was refused, and that is to be committed.
    KeptRefusal(Failure),
    /// It was refused, or failed.
    Failed(CommandError),
}

impl From<CommandError> for Undone {
    fn from(error: CommandError) -> Self {
        Self::Failed(error)
    }
}

async fn roll_back(tx: Transaction, error: &CommandError) -> Result<(), sqlx::Error> {
    if error.poisons_connection() {
        return Ok(());
    }
    tx.rollback().await
}
