//! Events: the entries of a conversation's log, encoded once, by the worker.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{ClientId, ConversationId, EventId, Seq, UserId};
use crate::json::JsonText;
use crate::resource::{Conversation, Message, Role, UnknownName};
use crate::schema;
use crate::timestamp::Timestamp;

macro_rules! event_types {
    ($($(#[$doc:meta])* $variant:ident $name:literal;)*) => {
        /// What an event says.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum EventType {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl EventType {
            /// Every type.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The type as it stands on the wire, in the store and at the end of the subject (its dot is a level there).
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        impl std::str::FromStr for EventType {
            type Err = UnknownName;
            fn from_str(text: &str) -> Result<Self, UnknownName> {
                match text { $($name => Ok(Self::$variant),)* _ => Err(UnknownName) }
            }
        }
    };
}

event_types! {
    /// A message was sent.
    MessageCreated "message.created";
    /// A message was edited.
    MessageEdited "message.edited";
    /// A message was deleted.
    MessageDeleted "message.deleted";
    /// The conversation began, with its first members.
    ConversationCreated "conversation.created";
    /// The conversation's metadata changed.
    ConversationUpdated "conversation.updated";
    /// The conversation was deleted; it ends all memberships.
    ConversationDeleted "conversation.deleted";
    /// Members were added.
    ParticipantAdded "participant.added";
    /// A member's role changed.
    ParticipantUpdated "participant.updated";
    /// A member left or was removed.
    ParticipantRemoved "participant.removed";
}

impl EventType {
    /// Returns true if the event changes a message, which it names by its seq.
    #[must_use]
    pub const fn changes_message(self) -> bool {
        matches!(self, Self::MessageEdited | Self::MessageDeleted)
    }

    /// Returns true if the event begins or ends memberships: the only ones that a gateway parses.
    #[must_use]
    pub const fn changes_membership(self) -> bool {
        matches!(
            self,
            Self::ConversationCreated
                | Self::ConversationDeleted
                | Self::ParticipantAdded
                | Self::ParticipantRemoved
        )
    }
}

/// An event as a row of the log has it, before it is encoded.
#[derive(Debug, Clone)]
pub struct LogEntry<'a> {
    /// The conversation it belongs to.
    pub conversation: ConversationId,
    /// Its number there.
    pub seq: Seq,
    /// Its id.
    pub id: EventId,
    /// What it says.
    pub event_type: EventType,
    /// Who did it.
    pub actor: &'a UserId,
    /// The actor's id of the command.
    pub client_id: Option<ClientId>,
    /// When it was stored.
    pub created_at: Timestamp,
    /// When a message's content was last edited.
    pub edited_at: Option<Timestamp>,
    /// When a message was deleted.
    pub deleted_at: Option<Timestamp>,
    /// The version of a message, from 1; of no meaning elsewhere.
    pub version: u64,
    /// What is kept of it: of a `message.created` a [`MessageBody`](crate::resource::MessageBody), of a `message.edited` nothing
    /// (`{}`), else the event's `data`.
    pub payload: &'a str,
    /// Of a `message.edited` or `message.deleted` the seq of its `message.created`.
    pub target_seq: Option<Seq>,
    /// Of a `message.edited` the `message.created` that it is about, as that is now.
    pub target: Option<Box<Self>>,
}

impl LogEntry<'_> {
    /// The event as clients receive it, live, in the log, and in a replay.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::with_capacity(self.payload.len() + 512);
        let _infallible = write!(
            out,
            r#"{{"type":"{}","conversationId":"{}","seq":{},"id":"{}","actor":"#,
            self.event_type.as_str(),
            self.conversation,
            self.seq,
            self.id
        );
        push_string(&mut out, self.actor.as_str());
        let _infallible = write!(out, r#","createdAt":"{}","data":"#, self.created_at);
        match (self.event_type, &self.target) {
            (EventType::MessageCreated, _) => self.push_message(&mut out),
            (EventType::MessageEdited, Some(target)) => {
                let _infallible = write!(out, r#"{{"targetSeq":{},"message":"#, target.seq);
                target.push_message(&mut out);
                out.push('}');
            }
            _ => out.push_str(self.payload),
        }
        out.push('}');
        out
    }

    /// The message of a `message.created`, as histories and answers have it.
    #[must_use]
    pub fn encode_message(&self) -> String {
        let mut out = String::with_capacity(self.payload.len() + 384);
        self.push_message(&mut out);
        out
    }

    fn push_message(&self, out: &mut String) {
        let _infallible = write!(
            out,
            r#"{{"id":"{}","conversationId":"{}","seq":{},"sender":"#,
            self.id, self.conversation, self.seq
        );
        push_string(out, self.actor.as_str());
        match self.client_id {
            Some(id) => {
                let _infallible = write!(out, r#","clientId":"{id}","#);
            }
            None => out.push_str(r#","clientId":null,"#),
        }
        let body = self
            .payload
            .strip_prefix('{')
            .and_then(|p| p.strip_suffix('}'))
            .unwrap_or_default();
        out.push_str(body);
        let _infallible = write!(out, r#","createdAt":"{}""#, self.created_at);
        push_time(out, "editedAt", self.edited_at);
        push_time(out, "deletedAt", self.deleted_at);
        let _infallible = write!(out, r#","version":{}}}"#, self.version);
    }
}

fn push_time(out: &mut String, name: &str, at: Option<Timestamp>) {
    let _infallible = match at {
        Some(at) => write!(out, r#","{name}":"{at}""#),
        None => write!(out, r#","{name}":null"#),
    };
}

fn push_string(out: &mut String, text: &str) {
    match serde_json::to_string(text) {
        Ok(quoted) => out.push_str(&quoted),
        Err(_) => out.push_str("\"\""),
    }
}

/// An event as clients read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// What it says.
    pub r#type: EventType,
    /// The conversation it belongs to.
    pub conversation_id: ConversationId,
    /// Its number there.
    #[schema(value_type = u64)]
    pub seq: Seq,
    /// Its id.
    pub id: EventId,
    /// Who did it.
    pub actor: UserId,
    /// When it was stored.
    pub created_at: Timestamp,
    /// What it says in full, by type.
    #[schema(value_type = Object)]
    pub data: JsonText,
}

/// A member in an event's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Who.
    pub user_id: UserId,
    /// As what.
    pub role: Role,
}

/// The data of a `conversation.created`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ConversationCreated {
    /// The conversation as it began.
    pub conversation: Conversation,
    /// The first members, for whom this is the joining.
    pub participants: Vec<Member>,
}

/// The data of a `participant.added`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ParticipantAdded {
    /// All that were added at once.
    pub participants: Vec<Member>,
}

/// The data of a `participant.updated`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParticipantUpdated {
    /// Whose role changed.
    pub user_id: UserId,
    /// What it is now.
    pub role: Role,
}

/// Why a membership ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RemovalReason {
    /// The member left.
    Left,
    /// Another removed it.
    Removed,
}

/// The data of a `participant.removed`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParticipantRemoved {
    /// Whose membership ended.
    pub user_id: UserId,
    /// Why.
    pub reason: RemovalReason,
}

/// The data of a `conversation.deleted`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConversationDeleted {
    /// When.
    pub deleted_at: Timestamp,
}

/// The data of a `conversation.updated`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ConversationUpdated {
    /// All of it, after the change.
    #[schema(schema_with = schema::conversation_metadata)]
    pub metadata: JsonText,
    /// The version after the change.
    pub version: u64,
}

/// The data of a `message.edited`. The log keeps only `targetSeq` of it: the message is that of its `message.created`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageEdited {
    /// The seq of its `message.created`.
    #[schema(value_type = u64)]
    pub target_seq: Seq,
    /// The message with its present content, or none.
    #[schema(value_type = Message)]
    pub message: JsonText,
}

/// The data of a `message.deleted`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageDeleted {
    /// The seq of its `message.created`.
    #[schema(value_type = u64)]
    pub target_seq: Seq,
    /// The message's id.
    pub message_id: EventId,
    /// When.
    pub deleted_at: Timestamp,
}

/// The effect of an event on memberships.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembershipChange {
    /// These users' memberships begin with the event.
    Joined(Vec<UserId>),
    /// This user's membership ends with the event.
    Left(UserId),
    /// All memberships end with the event.
    Ended,
}

impl MembershipChange {
    /// Returns what the encoded event of type `event_type` does to memberships, if anything.
    ///
    /// # Errors
    /// When the bytes are not such an event.
    pub fn parse(event_type: EventType, bytes: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        #[derive(Deserialize)]
        struct Data<T> {
            data: T,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct NamedMember {
            user_id: UserId,
        }
        #[derive(Deserialize)]
        struct NamedMembers {
            participants: Vec<NamedMember>,
        }
        Ok(match event_type {
            EventType::ConversationCreated | EventType::ParticipantAdded => {
                let Data { data } = serde_json::from_slice::<Data<NamedMembers>>(bytes)?;
                Some(Self::Joined(
                    data.participants
                        .into_iter()
                        .map(|who| who.user_id)
                        .collect(),
                ))
            }
            EventType::ParticipantRemoved => {
                let Data { data } = serde_json::from_slice::<Data<NamedMember>>(bytes)?;
                Some(Self::Left(data.user_id))
            }
            EventType::ConversationDeleted => Some(Self::Ended),
            EventType::MessageCreated
            | EventType::MessageEdited
            | EventType::MessageDeleted
            | EventType::ConversationUpdated
            | EventType::ParticipantUpdated => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::MessageBody;

    fn entry<'a>(actor: &'a UserId, event_type: EventType, payload: &'a str) -> LogEntry<'a> {
        LogEntry {
            conversation: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap(),
            seq: 7,
            id: "01890a5d-ac96-774b-bcce-b302099a8058".parse().unwrap(),
            event_type,
            actor,
            client_id: Some("01890a5d-ac96-774b-bcce-b302099a8059".parse().unwrap()),
            created_at: "2026-11-23T10:20:30.123Z".parse().unwrap(),
            edited_at: None,
            deleted_at: None,
            version: 1,
            payload,
            target_seq: None,
            target: None,
        }
    }

    #[test]
    fn edit_carries_current_message() {
        let actor: UserId = "alice".parse().unwrap();
        let payload = r#"{"kind":"text","content":"now","payloadSizeBytes":null,"replyTo":null,"metadata":{}}"#;
        let message = LogEntry {
            seq: 3,
            edited_at: Some("2026-11-23T10:20:31.456Z".parse().unwrap()),
            version: 2,
            ..entry(&actor, EventType::MessageCreated, payload)
        };
        let edit = LogEntry {
            target_seq: Some(3),
            target: Some(Box::new(message.clone())),
            ..entry(&actor, EventType::MessageEdited, "{}")
        };
        let text = edit.encode();
        insta::assert_snapshot!(text);
        let event: Event = serde_json::from_str(&text).unwrap();
        let data: MessageEdited = serde_json::from_str(event.data.as_str()).unwrap();
        assert_eq!((event.seq, data.target_seq), (7, 3));
        assert_eq!(data.message.as_str(), message.encode_message());
    }

    #[test]
    fn message_event_carries_content_byte_for_byte() {
        let actor: UserId = "al\"ice".parse().unwrap();
        let content = r#"{"b":  1.0,"a":"\u00e9"}"#;
        let body = MessageBody {
            kind: "text".into(),
            content: Some(JsonText::trusted(content.into())),
            encrypted_content: None,
            payload_size_bytes: None,
            reply_to: None,
            metadata: JsonText::empty_object(),
        };
        let payload = serde_json::to_string(&body).unwrap();
        let text = entry(&actor, EventType::MessageCreated, &payload).encode();
        insta::assert_snapshot!(text);
        let event: Event = serde_json::from_str(&text).unwrap();
        let message: Message = serde_json::from_str(event.data.as_str()).unwrap();
        assert_eq!(message.sender, actor);
        assert_eq!(message.content.unwrap().as_str(), content);
        assert_eq!(
            event.data.as_str(),
            entry(&actor, EventType::MessageCreated, &payload).encode_message()
        );
    }

    #[test]
    fn membership_changes_are_read_from_the_encoded_event() {
        let actor: UserId = "alice".parse().unwrap();
        let parse = |event_type, payload: &str| {
            let text = entry(&actor, event_type, payload).encode();
            MembershipChange::parse(event_type, text.as_bytes()).unwrap()
        };
        let added = ParticipantAdded {
            participants: vec![Member {
                user_id: actor.clone(),
                role: Role::Member,
            }],
        };
        assert_eq!(
            parse(
                EventType::ParticipantAdded,
                &serde_json::to_string(&added).unwrap()
            ),
            Some(MembershipChange::Joined(vec![actor.clone()]))
        );
        let removed = ParticipantRemoved {
            user_id: actor.clone(),
            reason: RemovalReason::Left,
        };
        assert_eq!(
            parse(
                EventType::ParticipantRemoved,
                &serde_json::to_string(&removed).unwrap()
            ),
            Some(MembershipChange::Left(actor.clone()))
        );
        assert_eq!(parse(EventType::ConversationUpdated, "{}"), None);
    }
}
