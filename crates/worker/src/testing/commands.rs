//! Commands as tests give them.

use confab_protocol::command::{
    Command, DeleteConversation, DeleteMessage, EditMessage, SendAnswer, UpdateConversation,
    UpdateParticipant,
};
use confab_protocol::ids::{ConversationId, EventId};
use confab_protocol::json::JsonText;
use confab_protocol::resource::Role;

use super::key;

pub(crate) fn patch(conversation: ConversationId, patch: &str) -> Command {
    patch_of_version(conversation, patch, None)
}

pub(crate) fn patch_of_version(
    conversation: ConversationId,
    patch: &str,
    expected_version: Option<u64>,
) -> Command {
    Command::UpdateConversation(UpdateConversation {
        conversation,
        patch: JsonText::trusted(patch.to_owned()),
        expected_version,
        client_id: key(),
    })
}

pub(crate) fn deletion(conversation: ConversationId) -> Command {
    Command::DeleteConversation(DeleteConversation {
        conversation,
        client_id: key(),
    })
}

pub(crate) fn role_change(conversation: ConversationId, user: &str, role: Role) -> Command {
    Command::UpdateParticipant(UpdateParticipant {
        conversation,
        user: user.parse().unwrap(),
        role,
        client_id: key(),
    })
}

/// An edit that asks for the message; its text goes into the content as it is.
pub(crate) fn edit(named: Option<ConversationId>, message: EventId, text: &str) -> Command {
    let content = format!(r#"{{"content":"{text}","payloadSizeBytes":null}}"#);
    Command::EditMessage(EditMessage {
        conversation: named,
        message,
        content: JsonText::trusted(content),
        client_id: key(),
        answer: SendAnswer::Message,
    })
}

/// The deletion of a message, which is asked for.
pub(crate) fn unsend(named: Option<ConversationId>, message: EventId) -> Command {
    Command::DeleteMessage(DeleteMessage {
        conversation: named,
        message,
        client_id: key(),
        answer: SendAnswer::Message,
    })
}
