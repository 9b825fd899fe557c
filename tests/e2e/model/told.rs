//! Updates the generator's hints from an answer, without the model's full state.

use serde_json::Value;

use super::command::{MODEL_USERS, ModelAction, ModelCommand, Who};
use super::generator::{Generator, Hint};
use super::state::ModelAnswer;

impl Generator {
    /// Notes what an answer says of a conversation; of `known` there are names.
    pub(super) fn note(
        &mut self,
        known: usize,
        who: Who,
        command: &ModelCommand,
        answer: &ModelAnswer,
    ) {
        let is_granted = answer.status < 300;
        while self.conversations.len() < known {
            self.conversations.push(Hint::beginning());
        }
        let (at, action) = match command {
            ModelCommand::Create(_) => return self.note_beginning(&answer.body),
            ModelCommand::ReadMessages(_) => return,
            ModelCommand::In(at, action) => (at, action),
        };
        let hint = &mut self.conversations[*at];
        let body = &answer.body;
        hint.is_deleted |= body["code"] == "CONVERSATION_DELETED";
        if !is_granted {
            return;
        }
        let seq = [
            &body["ack"],
            &body["message"]["seq"],
            &body["conversation"]["lastSeq"],
        ];
        let seq = seq.into_iter().find_map(Value::as_u64).unwrap_or_default();
        hint.head = hint.head.max(seq);
        match action {
            ModelAction::Send { .. } if !answer.replayed => hint.messages.push((seq, who)),
            ModelAction::Patch { .. } => {
                hint.version = body["conversation"]["version"].as_u64().unwrap();
            }
            ModelAction::Delete => hint.is_deleted = true,
            ModelAction::Add { members } => {
                hint.members.extend(members.iter().map(|(user, _)| user));
            }
            ModelAction::Remove { user } => {
                hint.members.retain(|member| member != user);
                hint.is_deleted |= !body["conversationDeletedAt"].is_null();
            }
            ModelAction::SetRole { .. }
            | ModelAction::Send { .. }
            | ModelAction::Edit { .. }
            | ModelAction::Unsend { .. }
            | ModelAction::Read { .. } => {}
        }
    }
    fn note_beginning(&mut self, body: &Value) {
        let Some(name) = body.pointer("/conversation/id").and_then(Value::as_str) else {
            return;
        };
        let at: usize = name.trim_start_matches('c').parse().unwrap();
        let members = body["participants"].as_array().unwrap().iter();
        let named: Vec<&Value> = members.map(|member| &member["userId"]).collect();
        self.conversations[at].members = MODEL_USERS
            .into_iter()
            .filter(|user| named.iter().any(|named| **named == *user))
            .collect();
    }
}
