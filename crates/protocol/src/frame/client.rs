//! Frames from a client.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use crate::error::{Code, Failure};
use crate::frame::message::{read_body, read_change};
use crate::ids::{ClientId, ConversationId, EventId, Seq};
use crate::json::{Fields, JsonText};
use crate::limits;
use crate::resource::{MessageBody, MessageChange, MessageContent};
use crate::schema;
use crate::signal::PresenceStatus;
use crate::wire::Packed;

/// A frame from a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum ClientFrame {
    /// Opens the session; the first frame.
    Hello(Hello),
    /// Says what the client holds without a gap.
    Seen(Seen),
    /// Ends the session for good.
    Bye(Plain),
    /// Sends a message.
    Send(Send),
    /// Replaces a message's content.
    Edit(Edit),
    /// Deletes a message.
    Delete(Delete),
    /// Moves a read mark forward.
    Read(Read),
    /// Says that the user types, or stopped to.
    Typing(Typing),
    /// Says whether the user is there.
    Presence(SetPresence),
    /// Renews the session's token.
    Auth(Auth),
    /// Asks for a pong.
    Ping(Plain),
}

/// A frame of nothing but an id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Plain {
    /// Echoed in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// The first frame.
#[derive(Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Echoed in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The JWT, where the upgrade's header carried none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The token of the session to resume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume_token: Option<String>,
    /// The last seq, by conversation, up to which the client holds all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<ConversationId, u64>>)]
    pub seen: Option<BTreeMap<ConversationId, Seq>>,
    /// Whether the next frame is a `seen` that belongs to this hello.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_follows: Option<bool>,
    /// Whether welcome shall name every conversation's head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<bool>,
    /// Whether a snapshot of presence shall follow the welcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence: Option<bool>,
    /// Which client this is, for the logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientInfo>,
}

impl std::fmt::Debug for Hello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello")
            .field("seen", &self.seen)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// A client's name and version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientInfo {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Option<String>,
}

/// What the client holds without a gap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Seen {
    /// Echoed in an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The last seq by conversation.
    #[schema(value_type = BTreeMap<ConversationId, u64>)]
    pub positions: BTreeMap<ConversationId, Seq>,
}

/// The id of a `send`: the message's key, and the text in which the client wrote it, which its answers repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendId {
    key: ClientId,
    text: String,
}

impl SendId {
    /// The id that a client wrote; none where it is not a UUID (RFC 9562) in one of its usual forms.
    #[must_use]
    pub fn parse(text: String) -> Option<Self> {
        let key = text.parse().ok()?;
        Some(Self { key, text })
    }

    /// The message's client id.
    #[must_use]
    pub const fn key(&self) -> ClientId {
        self.key
    }

    /// The id as the client wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The id as the client wrote it, taken out.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }
}

impl From<ClientId> for SendId {
    fn from(key: ClientId) -> Self {
        let text = key.to_string();
        Self { key, text }
    }
}

impl Serialize for SendId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Send {
    /// The message's client id, echoed in the answer as it was written.
    pub id: SendId,
    /// Where to.
    pub conversation_id: ConversationId,
    /// The message.
    #[serde(flatten)]
    pub body: MessageBody,
}

/// What a message becomes: its content, its metadata, or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Edit {
    /// Echoed in the answer as it was written; one that is a UUID is the edit's key as well ([`key_of`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Where the message is.
    pub conversation_id: ConversationId,
    /// Which.
    pub message_id: EventId,
    /// The version that the message must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
    /// The new content.
    #[serde(flatten)]
    pub content: Option<MessageContent>,
    /// A JSON merge patch (RFC 7396) of the metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<JsonText>,
}

/// A message to delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delete {
    /// Echoed in the answer as it was written; one that is a UUID is the deletion's key as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Where the message is.
    pub conversation_id: ConversationId,
    /// Which.
    pub message_id: EventId,
    /// The version that the message must have, unless it is deleted already.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub if_version: Option<u64>,
}

/// How far the user has read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Read {
    /// Echoed in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Where.
    pub conversation_id: ConversationId,
    /// The last seq that was read.
    #[schema(value_type = u64)]
    pub up_to_seq: Seq,
}

/// Whether the user types.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Typing {
    /// Echoed in an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Where.
    pub conversation_id: ConversationId,
    /// Whether it types now.
    pub on: bool,
}

/// Whether the user is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SetPresence {
    /// Echoed in an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `online` or `away`.
    #[schema(schema_with = schema::own_presence)]
    pub status: PresenceStatus,
}

/// A fresh token for the same user and device.
#[derive(Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Auth {
    /// Echoed in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The JWT.
    pub token: String,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A frame that cannot be carried out, with the id to answer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFrame {
    /// The frame's id, where one could be read.
    pub id: Option<String>,
    /// What is wrong.
    pub failure: Failure,
}

/// Longest `id` of a frame, in bytes.
const MAX_ID_BYTES: usize = 128;

/// The fields of frames that are base64 in JSON.
const BASE64_FIELDS: &[&str] = &["encryptedContent"];

/// The key that a frame's id is, where it is a UUID (RFC 9562), in whatever form and case; any other id is only echoed.
#[must_use]
pub fn key_of(id: Option<&str>) -> Option<ClientId> {
    id?.parse().ok()
}

/// Takes positions out, of as many conversations as a user may be in.
fn positions(fields: &mut Fields<'_>, name: &str) -> Option<BTreeMap<ConversationId, Seq>> {
    let positions: BTreeMap<_, _> = fields.take(name)?;
    if positions.len() <= limits::MAX_SEEN_CONVERSATIONS {
        return Some(positions);
    }
    fields.reject(name, Seen::too_many());
    None
}

impl Seen {
    /// Returns what is wrong with positions of more conversations than a user may be in.
    #[must_use]
    pub fn too_many() -> String {
        format!(
            "must name at most {} conversations",
            limits::MAX_SEEN_CONVERSATIONS
        )
    }
}

impl ClientFrame {
    /// The frame as JSON.
    ///
    /// # Errors
    /// Never for frames made by this crate's types.
    pub fn encode(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// What is wrong with it, every bad field at once.
    pub fn decode(json: &[u8]) -> Result<Self, BadFrame> {
        let mut fields = Fields::parse(json).map_err(|failure| BadFrame { id: None, failure })?;
        let given = fields.take::<String>("id");
        if given.as_ref().is_some_and(|id| id.len() > MAX_ID_BYTES) {
            fields.reject("id", format!("must be at most {MAX_ID_BYTES} bytes"));
        }
        let id = given.filter(|id| id.len() <= MAX_ID_BYTES);
        let bad = |failure| BadFrame {
            id: id.clone(),
            failure,
        };
        let Some(kind) = fields.require::<String>("type") else {
            return Err(bad(fields
                .finish()
                .err()
                .unwrap_or_else(|| Failure::field("/type", "must be given"))));
        };
        let read = match kind.as_str() {
            "hello" => Self::hello(fields, id.clone()),
            "seen" => Self::seen(fields, id.clone()),
            "bye" => fields
                .finish()
                .map(|()| Self::Bye(Plain { id: id.clone() })),
            "ping" => fields
                .finish()
                .map(|()| Self::Ping(Plain { id: id.clone() })),
            "send" => Self::send(fields, id.clone()),
            "edit" => Self::edit(fields, id.clone()),
            "delete" => Self::delete(fields, id.clone()),
            "read" => Self::read(fields, id.clone()),
            "typing" => Self::typing(fields, id.clone()),
            "presence" => Self::presence(fields, id.clone()),
            "auth" => Self::auth(fields, id.clone()),
            _ => Err(Failure::field("/type", "is not a known type of frame")),
        };
        read.map_err(bad)
    }

    /// Reads a frame in MessagePack. `encryptedContent` may be bytes, which are base64 in JSON.
    ///
    /// # Errors
    /// What is wrong with it, with all that JSON has not by its place, and the frame's id.
    pub fn decode_msgpack(bytes: &[u8]) -> Result<Self, BadFrame> {
        let packed = Packed::read(bytes).map_err(|_unreadable| BadFrame {
            id: None,
            failure: Failure::field("", "is not valid MessagePack"),
        })?;
        let json = packed.to_json(BASE64_FIELDS).map_err(|errors| {
            let id = packed.text("id");
            let id = id.filter(|id| id.len() <= MAX_ID_BYTES && !id.contains('\0'));
            BadFrame {
                id: id.map(str::to_owned),
                failure: Failure::validation(errors),
            }
        })?;
        Self::decode(&json)
    }

    fn hello(mut fields: Fields<'_>, id: Option<String>) -> Result<Self, Failure> {
        let hello = Hello {
            id,
            token: fields.take("token"),
            resume_token: fields.take("resumeToken"),
            seen: positions(&mut fields, "seen"),
            seen_follows: fields.take("seenFollows"),
            heads: fields.take("heads"),
            presence: fields.take("presence"),
            client: fields.take("client"),
        };
        fields.finish().map(|()| Self::Hello(hello))
    }

    fn seen(mut fields: Fields<'_>, id: Option<String>) -> Result<Self, Failure> {
        let positions = if fields.has("positions") {
            positions(&mut fields, "positions")
        } else {
            fields.require("positions")
        };
        fields.finish()?;
        Ok(Self::Seen(Seen {
            id,
            positions: positions.unwrap_or_default(),
        }))
    }

    fn send(mut fields: Fields<'_>, id: Option<String>) -> Result<Self, Failure> {
        let id = id.and_then(SendId::parse);
        if id.is_none() {
            fields.reject("id", "must be a UUID: it is the message's clientId");
        }
        let conversation = fields.require::<ConversationId>("conversationId");
        let body = read_body(&mut fields);
        fields.finish()?;
        match (id, conversation, body) {
            (Some(id), Some(conversation_id), Some(body)) => Ok(Self::Send(Send {
                id,
                conversation_id,
                body,
            })),
            _ => Err(Failure::of(Code::Validation)),
        }
    }

    fn edit(mut fields: Fields<'_>, id: Option<String>) -> Result<Self, Failure> {
        let conversation = fields.require::<ConversationId>("conversationId");
        let message = fields.require::<EventId>("messageId");
        let if_version = fields.integer("ifVersion");
        let MessageChange { content, metadata } = read_change(&mut fields);
        fields.finish()?;
        match (conversation, message) {
            (Some(conversation_id), Some(message_id)) => Ok(Self::Edit(Edit {
                id,
                conversation_id,
                message_id,
                if_version,
                content,
                metadata,
            })),
            _ => Err(Failure::of(Code::Validation)),
        }
    }

    fn delete(mut fields: Fields<'_>, id: Option<String>) -> Result<Self, Failure> {
        let conversation = fields.require::<ConversationId>("conversationId");
        let message = fields.require::<EventId>("messageId");
        let if_version = fields.integer("ifVersion");
        fields.finish()?;
        match (conversation, message) {
            (Some(conversation_id), Some(message_id)) => Ok(Self::Delete(Delete {
                id,
                conversation_id,
                message_id,
                if_version,
            })),
            _ => Err(Failure::of(Code::Validation)),
        }
    }

    fn read(mut fields: Fields<'_>, id: Option<String>) -> Result<Self, Failure> {
        let conversation = fields.require::<ConversationId>("conversationId");
        let up_to = fields.require_integer("upToSeq");
        fields.finish()?;
        match (conversation, up_to) {
            (Some(conversation_id), Some(up_to_seq)) => Ok(Self::Read(Read {
                id,
                conversation_id,
                up_to_seq,
            })),
            _ => Err(Failure::of(Code::Validation)),
        }
    }

    fn typing(mut fields: Fields<'_>, id: Option<String>) -> Result<Self, Failure> {
        let conversation = fields.require::<ConversationId>("conversationId");
        let on = fields.require::<bool>("on");
        fields.finish()?;
        match (conversation, on) {
            (Some(conversation_id), Some(on)) => Ok(Self::Typing(Typing {
                id,
                conversation_id,
                on,
            })),
            _ => Err(Failure::of(Code::Validation)),
        }
    }

    fn presence(mut fields: Fields<'_>, id: Option<String>) -> Result<Self, Failure> {
        let status = fields.require::<PresenceStatus>("status");
        if status == Some(PresenceStatus::Offline) {
            fields.reject("status", "must be online or away");
        }
        fields.finish()?;
        let status = status.ok_or_else(|| Failure::of(Code::Validation))?;
        Ok(Self::Presence(SetPresence { id, status }))
    }

    fn auth(mut fields: Fields<'_>, id: Option<String>) -> Result<Self, Failure> {
        let token = fields.require::<String>("token");
        fields.finish()?;
        let token = token.ok_or_else(|| Failure::of(Code::Validation))?;
        Ok(Self::Auth(Auth { id, token }))
    }
}
