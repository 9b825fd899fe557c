//! Commands as tests give them.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use confab_protocol::command::{
    Command, DeleteConversation, DeleteMessage, EditMessage, Request, SendAnswer,
    UpdateConversation, UpdateParticipant,
};
use confab_protocol::ids::{ConversationId, EventId};
use confab_protocol::json::JsonText;
use confab_protocol::resource::Role;
use uuid::Uuid;

use super::{key, request};

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
        content: Some(JsonText::trusted(content)),
        metadata: None,
        expected_version: None,
        client_id: key(),
        answer: SendAnswer::Message,
    })
}

/// The deletion of a message, which is asked for.
pub(crate) fn unsend(named: Option<ConversationId>, message: EventId) -> Command {
    Command::DeleteMessage(DeleteMessage {
        conversation: named,
        message,
        expected_version: None,
        client_id: key(),
        answer: SendAnswer::Message,
    })
}

/// The id that a gateway makes for a command's event, the same in each of its tries.
pub(crate) fn event_of(user: &str, command: &Command) -> Option<EventId> {
    let client_id = match command {
        Command::UpdateConversation(command) => command.client_id,
        Command::DeleteConversation(command) => command.client_id,
        Command::AddParticipants(command) => command.client_id,
        Command::UpdateParticipant(command) => command.client_id,
        Command::RemoveParticipant(command) => command.client_id,
        Command::EditMessage(command) => command.client_id,
        Command::DeleteMessage(command) => command.client_id,
        _ => return None,
    };
    let mut hasher = DefaultHasher::new();
    (user, command.name(), command.conversation(), client_id).hash(&mut hasher);
    let (first, _) = client_id.0.as_u64_pair();
    Some(EventId(Uuid::from_u64_pair(first, hasher.finish())))
}

/// The same request as the client's own repeat brings it, through whatever gateway.
pub(crate) fn repeated(user: &str, command: Command) -> Request {
    Request {
        event: Some(EventId(Uuid::now_v7())),
        ..request(user, command)
    }
}
