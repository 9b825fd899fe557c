//! How much of a message a command takes, on the way and as its answer, so that what goes together fits NATS.

use super::{Command, EditMessage, MarkRead, Request, SendAnswer, SendMessage};
use crate::ids::UserId;
use crate::limits;
use crate::revocation::RevocationTarget;

/// The names and fixed fields of a command, or of its outcome.
const COMMAND_FIELDS_BYTES: usize = 256;
/// The names and fixed fields of a request around its command.
const REQUEST_FIELDS: usize = 384;
/// What a membership has beside its user.
const MEMBERSHIP_FIELDS: usize = 112;
/// What a conversation has beside its metadata and its creator, as it is shown.
const CONVERSATION_FIELDS_BYTES: usize = 576;
/// What a message has beside its sender and payload, as it is shown.
const MESSAGE_FIELDS_BYTES: usize = 512;
/// A user's id, escaped.
const MAX_USER_BYTES: usize = 128 * 4;
/// A conversation's metadata, the longest that an update may leave behind: a character takes six bytes at most.
const MAX_METADATA_BYTES: usize = limits::MAX_CUSTOM_BYTES
    + 6 * (limits::NAME_CHARS + limits::DESCRIPTION_CHARS + limits::AVATAR_CHARS)
    + 64;

impl Command {
    /// Returns how many bytes it takes on the wire by itself, at most.
    #[must_use]
    pub fn weight(&self) -> usize {
        COMMAND_FIELDS_BYTES
            + match self {
                Self::CreateConversation(create) => {
                    let users = create.participants.iter().map(UserId::as_str);
                    create.metadata.as_str().len()
                        + create.key.len()
                        + users.map(of_user).sum::<usize>()
                }
                Self::UpdateConversation(update) => update.patch.as_str().len(),
                Self::DeleteConversation(_) | Self::DeleteMessage(_) => 64,
                Self::AddParticipants(add) => {
                    let users = add
                        .participants
                        .iter()
                        .map(|member| member.user_id.as_str());
                    users.map(of_user).sum::<usize>()
                }
                Self::UpdateParticipant(update) => of_user(update.user.as_str()),
                Self::RemoveParticipant(remove) => of_user(remove.user.as_str()),
                Self::SendMessage(send) => send.payload.as_str().len(),
                Self::EditMessage(edit) => {
                    let parts = [&edit.content, &edit.metadata].into_iter().flatten();
                    parts.map(|part| part.as_str().len()).sum()
                }
                Self::MarkRead(MarkRead::UpTo { .. }) => 64,
                Self::MarkRead(MarkRead::Messages(messages)) => messages.len() * 80,
                Self::Revoke(revoke) => match &revoke.target {
                    RevocationTarget::Session { user, .. } => {
                        256 + user.as_ref().map_or(0, |user| of_user(user.as_str()))
                    }
                    RevocationTarget::Login(login) => 256 + login.len(),
                    RevocationTarget::User { user, .. } => 256 + of_user(user.as_str()),
                },
            }
    }

    /// Returns how much more than the command may stand in its answer: what the store adds that the command does not name. Of a message
    /// that is sent again and was edited since, the present content counts for nothing: such an answer is larger.
    fn answer(&self, caller: &UserId) -> usize {
        match self {
            Self::CreateConversation(_) => {
                CONVERSATION_FIELDS_BYTES
                    + 2 * of_user(caller.as_str())
                    + limits::PARTICIPANTS_SHOWN
            }
            Self::UpdateConversation(_) => {
                CONVERSATION_FIELDS_BYTES + MAX_METADATA_BYTES + MAX_USER_BYTES
            }
            Self::EditMessage(EditMessage {
                answer: SendAnswer::Message,
                content,
                ..
            }) => {
                // What is not edited is answered as it stands.
                let kept = if content.is_some() {
                    0
                } else {
                    limits::MAX_EVENT_BYTES
                };
                MESSAGE_FIELDS_BYTES + limits::MESSAGE_METADATA + MAX_USER_BYTES + kept
            }
            Self::SendMessage(SendMessage {
                answer: SendAnswer::Message,
                ..
            }) => MESSAGE_FIELDS_BYTES + json_len(caller.as_str()),
            Self::DeleteMessage(delete) if delete.answer == SendAnswer::Message => {
                MESSAGE_FIELDS_BYTES + MAX_USER_BYTES
            }
            Self::DeleteConversation(_)
            | Self::AddParticipants(_)
            | Self::UpdateParticipant(_)
            | Self::RemoveParticipant(_)
            | Self::SendMessage(_)
            | Self::EditMessage(_)
            | Self::DeleteMessage(_)
            | Self::MarkRead(_)
            | Self::Revoke(_) => 0,
        }
    }
}

impl Request {
    /// Returns what it takes of a message at most, on the way and as its answer: so many together as [`limits::MAX_RPC_BYTES`] has room for
    /// fit one NATS message, whatever users are called.
    #[must_use]
    pub fn weight(&self) -> usize {
        let caller = self.caller.tenant.as_str().len() + self.caller.user.as_str().len();
        let trace = self.traceparent.as_ref().map_or(0, String::len);
        let more = caller + self.request_id.len() + trace + self.command.answer(&self.caller.user);
        REQUEST_FIELDS + more + self.command.weight()
    }
}

/// Returns what a user takes of a command or its answer, which tells its membership.
fn of_user(id: &str) -> usize {
    json_len(id) + MEMBERSHIP_FIELDS
}

/// Returns how long a text is inside of a JSON string.
fn json_len(text: &str) -> usize {
    let escapes = text.bytes().map(|byte| match byte {
        b'"' | b'\\' => 1,
        0..0x20 => 5,
        _ => 0,
    });
    text.len() + escapes.sum::<usize>()
}

#[cfg(test)]
mod tests;
