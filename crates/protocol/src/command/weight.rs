//! How much of a message a command takes, on the way and as its answer, so that what goes together fits NATS.

use super::{Command, EditMessage, MarkRead, Request, SendAnswer};
use crate::ids::UserId;
use crate::limits;

impl Command {
    /// About how many bytes it takes on the wire by itself.
    #[must_use]
    pub fn weight(&self) -> usize {
        256 + match self {
            Self::CreateConversation(create) => {
                let users = create.participants.iter().map(UserId::as_str);
                create.metadata.as_str().len() + users.map(of_user).sum::<usize>()
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
            Self::EditMessage(edit) => edit.content.as_str().len(),
            Self::MarkRead(MarkRead::UpTo { .. }) => 64,
            Self::MarkRead(MarkRead::Messages(messages)) => messages.len() * 80,
            Self::Revoke(_) => 512,
        }
    }

    /// How much more than the command may stand in its answer: what the store adds that the command does not name.
    const fn answer(&self) -> usize {
        match self {
            Self::UpdateConversation(_) => 2 * limits::CUSTOM,
            Self::EditMessage(EditMessage {
                answer: SendAnswer::Message,
                ..
            }) => limits::MESSAGE_METADATA,
            Self::CreateConversation(_)
            | Self::DeleteConversation(_)
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
    /// What it takes of a message at most, on the way and as its answer: so many together as [`limits::RPC`] has room for
    /// fit one NATS message, whatever users are called.
    #[must_use]
    pub fn weight(&self) -> usize {
        let caller = self.caller.tenant.as_str().len() + self.caller.user.as_str().len();
        let trace = self.traceparent.as_ref().map_or(0, String::len);
        320 + caller + self.request_id.len() + trace + self.command.weight() + self.command.answer()
    }
}

/// What a user takes of a command or its answer, which tells its membership.
const fn of_user(id: &str) -> usize {
    id.len() + 112
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use crate::command::{
        AddParticipants, Caller, CreateConversation, Outcome, ReadMark, RemoveParticipant,
        SendMessage, Sent,
    };
    use crate::event::Member;
    use crate::ids::{ClientId, ConversationId, EventId, Seq};
    use crate::json::JsonText;
    use crate::resource::{ConversationType, Participant, Role};
    use crate::timestamp::Timestamp;
    use crate::wire::encode;

    use super::*;

    fn user(n: usize) -> UserId {
        format!("{n:0>4}{}", "𝔘".repeat(124)).parse().unwrap()
    }

    fn request(command: Command) -> Request {
        Request {
            request_id: "r".repeat(128),
            traceparent: Some("t".repeat(128)),
            caller: Caller {
                tenant: "t".repeat(64).parse().unwrap(),
                user: user(0),
                admin: false,
            },
            command,
        }
    }

    #[test]
    fn whatever_users_are_called_no_command_takes_more_than_its_weight() {
        let conversation = ConversationId(Uuid::max());
        let client_id = ClientId(Uuid::max());
        let member = |n| Member {
            user_id: user(n),
            role: Role::Member,
        };
        let commands = [
            Command::CreateConversation(CreateConversation {
                conversation,
                key: "k".repeat(255),
                request_hash: [255; 32],
                r#type: ConversationType::Group,
                participants: (0..1000).map(user).collect(),
                metadata: JsonText::empty_object(),
            }),
            Command::AddParticipants(AddParticipants {
                conversation,
                participants: (0..1000).map(member).collect(),
                client_id,
            }),
            Command::RemoveParticipant(RemoveParticipant {
                conversation,
                user: user(1),
                client_id,
            }),
            Command::SendMessage(SendMessage {
                conversation,
                message: EventId(Uuid::nil()),
                client_id,
                payload: JsonText::empty_object(),
                reply_to: Some(EventId(Uuid::max())),
                answer: SendAnswer::Message,
            }),
            Command::MarkRead(MarkRead::UpTo {
                conversation,
                seq: Seq::MAX,
            }),
        ];
        for command in commands {
            let request = request(command);
            let name = request.command.name();
            let weight = request.weight();
            assert!(weight <= limits::RPC, "{name}: {weight}");
            let bytes = encode(&request).unwrap().len();
            assert!(bytes <= weight, "{name}: {bytes} are more than {weight}");
        }
    }

    #[test]
    fn no_answer_takes_more_than_its_commands_weight() {
        let (conversation, id) = (ConversationId(Uuid::max()), EventId(Uuid::max()));
        let at = Timestamp::new(time::OffsetDateTime::UNIX_EPOCH);
        let participant = |n| Participant {
            user_id: user(n),
            role: Role::Member,
            joined_at: at,
            left_at: Some(at),
            last_read_seq: Seq::MAX,
        };
        let mark = ReadMark {
            conversation,
            up_to: Seq::MAX,
            moved: true,
            members: u64::MAX,
        };
        let message = format!(
            r#"{{"id":"{id}","conversationId":"{conversation}","seq":{},"sender":"{}","clientId":"{id}","kind":"text","content":1,"payloadSizeBytes":null,"replyTo":"{id}","metadata":{{}},"createdAt":"{at}","editedAt":"{at}","deletedAt":"{at}"}}"#,
            Seq::MAX,
            user(0)
        );
        let pairs = [
            (
                Command::AddParticipants(AddParticipants {
                    conversation,
                    participants: (0..1000)
                        .map(|n| Member {
                            user_id: user(n),
                            role: Role::Member,
                        })
                        .collect(),
                    client_id: ClientId(id.0),
                }),
                Outcome::Added {
                    participants: (0..1000).map(participant).collect(),
                },
            ),
            (
                Command::MarkRead(MarkRead::Messages(vec![id; 100])),
                Outcome::Read(vec![mark; 100]),
            ),
            (
                Command::SendMessage(SendMessage {
                    conversation,
                    message: EventId(Uuid::nil()),
                    client_id: ClientId(id.0),
                    payload: JsonText::trusted(r#"{"kind":"text","content":1}"#.into()),
                    reply_to: None,
                    answer: SendAnswer::Message,
                }),
                Outcome::Sent(Sent {
                    conversation,
                    message_id: id,
                    seq: Seq::MAX,
                    created_at: at,
                    duplicate: false,
                    message: Some(JsonText::trusted(message)),
                }),
            ),
        ];
        for (command, outcome) in pairs {
            let name = command.name();
            let mut request = request(command);
            request.request_id = "r".into();
            request.traceparent = None;
            request.caller.tenant = "t".parse().unwrap();
            let (weight, bytes) = (request.weight(), encode(&outcome).unwrap().len());
            assert!(bytes <= weight, "{name}: {bytes} are more than {weight}");
        }
    }
}
