//! Which command is carried out by what: each in one transaction.

use confab_protocol::command::{Command, Outcome, Request};
use sqlx::{Connection as _, PgConnection};

use super::{Committer, conversation, creation, membership, message, revocation};
use crate::database::acquire;
use crate::error::{CommandError, poisons_connection};
use crate::outbox::Committed;

/// What a transaction gives: the outcome, and what is to be published.
pub(super) type Done = (Outcome, Option<Committed>);

impl Committer {
    /// Carries out a command in one transaction.
    pub(super) async fn transact(&self, request: &Request) -> Result<Done, CommandError> {
        let mut connection = acquire(&self.pool).await?;
        let done = self.transact_on(&mut connection, request).await;
        if let Err(CommandError::Postgres(error)) = &done
            && poisons_connection(error)
        {
            connection.close_on_drop();
        }
        done
    }

    async fn transact_on(
        &self,
        connection: &mut PgConnection,
        request: &Request,
    ) -> Result<Done, CommandError> {
        let mut tx = connection.begin().await?;
        let caller = &request.caller;
        let done = match &request.command {
            Command::CreateConversation(command) => {
                // A refusal that was decided under the key is kept with it: it is committed, too.
                let (created, committed) = creation::create(&mut tx, caller, command).await?;
                tx.commit().await?;
                return created
                    .map(|created| (Outcome::Created(created), committed))
                    .map_err(CommandError::from);
            }
            Command::UpdateConversation(command) => {
                conversation::update(&mut tx, caller, command).await?
            }
            Command::DeleteConversation(command) => {
                conversation::delete(&mut tx, caller, command).await?
            }
            Command::AddParticipants(command) => membership::add(&mut tx, caller, command).await?,
            Command::UpdateParticipant(command) => {
                membership::update(&mut tx, caller, command).await?
            }
            Command::RemoveParticipant(command) => {
                membership::remove(&mut tx, caller, command).await?
            }
            Command::EditMessage(command) => message::edit(&mut tx, caller, command).await?,
            Command::DeleteMessage(command) => message::delete(&mut tx, caller, command).await?,
            Command::SendMessage(_) => {
                return Err(CommandError::Stored("messages are committed in batches"));
            }
            Command::Revoke(command) => {
                revocation::revoke(&mut tx, caller, command, self.token_max_lifetime).await?
            }
            Command::MarkRead(_) => {
                return Err(CommandError::Stored("read marks have a lane of their own"));
            }
        };
        tx.commit().await?;
        Ok(done)
    }
}
