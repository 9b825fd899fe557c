//! Where an answer leads: each link names an operation, and what of the answer it takes.

use serde_json::{Map, Value, json};

const CONVERSATION_EXPRESSION: &str = "$response.body#/conversation/id";
const FIRST_CONVERSATION: &str = "$response.body#/conversations/0/id";
const MESSAGE_EXPRESSION: &str = "$response.body#/message/id";
const FIRST_MESSAGE: &str = "$response.body#/messages/0/id";
const IN_PATH: &str = "$request.path.id";

/// What can be done in a conversation.
const IN_CONVERSATION: [&str; 7] = [
    "getConversation",
    "updateConversation",
    "deleteConversation",
    "listParticipants",
    "addParticipants",
    "listMessages",
    "listEvents",
];
/// What can be done with a message.
const WITH_MESSAGE: [&str; 3] = ["getMessage", "editMessage", "deleteMessage"];

/// The links of an operation's answer of this status.
pub(super) fn of(operation: &str, status: &str) -> Option<Value> {
    if !status.starts_with('2') {
        return None;
    }
    let mut links = Map::new();
    match operation {
        "createConversation" | "getConversation" => {
            in_conversation(&mut links, CONVERSATION_EXPRESSION);
            with_participant(
                &mut links,
                CONVERSATION_EXPRESSION,
                "$response.body#/participants/0/userId",
            );
        }
        "updateConversation" => in_conversation(&mut links, CONVERSATION_EXPRESSION),
        "listConversations" => {
            in_conversation(&mut links, FIRST_CONVERSATION);
            next_page(&mut links, operation, &[]);
        }
        "deleteConversation" => {
            link(
                &mut links,
                "deleteConversation",
                "deleteConversation",
                &[("id", IN_PATH)],
            );
        }
        "addParticipants" => {
            with_participant(&mut links, IN_PATH, "$response.body#/participant/userId");
        }
        "listParticipants" => {
            with_participant(&mut links, IN_PATH, "$response.body#/participants/0/userId");
            next_page(&mut links, operation, &[("id", IN_PATH)]);
        }
        "updateParticipant" => {
            with_participant(&mut links, IN_PATH, "$response.body#/participant/userId");
        }
        "sendMessage" | "getMessage" | "editMessage" | "deleteMessage" => {
            with_message(&mut links, MESSAGE_EXPRESSION);
            link(
                &mut links,
                "listMessages",
                "listMessages",
                &[("id", "$response.body#/message/conversationId")],
            );
        }
        "listMessages" => {
            with_message(&mut links, FIRST_MESSAGE);
            next_page(&mut links, operation, &[("id", IN_PATH)]);
        }
        "listSessions" => link(
            &mut links,
            "revokeSession",
            "revokeSession",
            &[("id", "$response.body#/sessions/0/id")],
        ),
        _ => {}
    }
    (!links.is_empty()).then_some(links.into())
}

fn link(links: &mut Map<String, Value>, name: &str, operation: &str, parameters: &[(&str, &str)]) {
    let parameters: Map<_, _> = parameters
        .iter()
        .map(|(name, from)| ((*name).to_owned(), json!(from)))
        .collect();
    links.insert(
        name.to_owned(),
        json!({ "operationId": operation, "parameters": parameters }),
    );
}

fn in_conversation(links: &mut Map<String, Value>, id: &str) {
    for operation in IN_CONVERSATION {
        link(links, operation, operation, &[("id", id)]);
    }
    let to = json!({ "conversationId": id });
    for (operation, body) in [("sendMessage", &to), ("markRead", &to)] {
        links.insert(
            operation.to_owned(),
            json!({ "operationId": operation, "requestBody": body }),
        );
    }
}

fn with_participant(links: &mut Map<String, Value>, id: &str, user: &str) {
    for operation in ["updateParticipant", "removeParticipant"] {
        link(links, operation, operation, &[("id", id), ("userId", user)]);
    }
}

fn with_message(links: &mut Map<String, Value>, id: &str) {
    for operation in WITH_MESSAGE {
        link(links, operation, operation, &[("id", id)]);
    }
}

fn next_page(links: &mut Map<String, Value>, operation: &str, same: &[(&str, &str)]) {
    let mut parameters = same.to_vec();
    parameters.push(("cursor", "$response.body#/nextCursor"));
    link(links, "nextPage", operation, &parameters);
}
