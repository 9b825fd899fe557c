//! What request bodies look like. The parsers beside the handlers take the same fields: a test holds the two together.

use confab_protocol::ids::{ClientId, ConversationId, EventId, SessionId, UserId};
use confab_protocol::limits;
use confab_protocol::resource::{ConversationType, Role};
use confab_protocol::schema;
use confab_protocol::timestamp::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// The body of `POST /v1/conversations`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CreateConversation {
    /// What kind of conversation.
    pub(crate) r#type: ConversationType,
    /// Its members, 1 to 1,000; duplicates count once. Of a direct conversation both, the caller among them.
    #[schema(schema_with = listed_users)]
    pub(crate) participants: Vec<UserId>,
    /// What it is called and about.
    pub(crate) metadata: Option<NewMetadata>,
}

/// What a conversation is called and about. A member that is null counts as not given.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NewMetadata {
    /// What people call it.
    #[schema(schema_with = name, required = false)]
    pub(crate) name: Option<&'static str>,
    /// What it is about.
    #[schema(schema_with = description, required = false)]
    pub(crate) description: Option<&'static str>,
    /// Where its picture is.
    #[schema(schema_with = avatar, required = false)]
    pub(crate) avatar: Option<&'static str>,
    /// The product's own fields.
    #[schema(schema_with = custom, required = false)]
    pub(crate) custom: Option<Value>,
}

/// The body of `PATCH /v1/conversations/{id}`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct UpdateConversation {
    /// What changes.
    pub(crate) metadata: MetadataPatch,
}

/// A JSON merge patch (RFC 7396) of the metadata: null takes a member away, `custom` is merged into what is there.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MetadataPatch {
    /// What people call it.
    #[schema(schema_with = name, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<&'static str>,
    /// What it is about.
    #[schema(schema_with = description, required = false)]
    pub(crate) description: Option<&'static str>,
    /// Where its picture is.
    #[schema(schema_with = avatar, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) avatar: Option<&'static str>,
    /// The product's own fields.
    #[schema(schema_with = custom, required = false)]
    pub(crate) custom: Option<Value>,
}

/// The body of `POST /v1/conversations/{id}/participants`: one user, or several at once.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum AddParticipants {
    /// One user.
    One(Addition),
    /// Several at once, all or none.
    Many(Additions),
}

/// A user to add.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Addition {
    /// Whom.
    pub(crate) user_id: UserId,
    /// As what; `member` when it is not given.
    pub(crate) role: Option<Role>,
}

/// Users to add, all or none.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Additions {
    /// Whom, 1 to 1,000, each once.
    #[schema(schema_with = listed_additions)]
    pub(crate) participants: Vec<Addition>,
}

/// The body of `PATCH /v1/conversations/{id}/participants/{userId}`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct UpdateParticipant {
    /// The member's role from now on.
    pub(crate) role: Role,
}

/// The body of `POST /v1/messages`: exactly one of `content` and `encryptedContent`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SendMessage {
    /// Where to.
    pub(crate) conversation_id: ConversationId,
    /// The sender's id of the message: a repeat with the same one is stored once, for good.
    pub(crate) client_id: Option<ClientId>,
    /// `text`, `image`, `file`, `audio`, `video` or `x-…`.
    #[schema(schema_with = schema::message_kind)]
    pub(crate) kind: &'static str,
    /// The content.
    #[serde(flatten)]
    pub(crate) content: Content,
    /// The message that this one answers, of the same conversation.
    pub(crate) reply_to: Option<EventId>,
    /// The sender's own fields: a JSON object of at most 16 KiB.
    #[schema(schema_with = metadata, required = false)]
    pub(crate) metadata: Option<Value>,
}

/// The content of a message, in clear or encrypted.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Content {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) encrypted_content: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload_size_bytes: Option<u64>,
}

/// The body of `PATCH /v1/messages/{id}`: at most one of `content` and `encryptedContent`, or `metadata` alone.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct EditMessage {
    /// The new content.
    #[serde(flatten)]
    pub(crate) content: Content,
    /// A JSON merge patch (RFC 7396) of the sender's own fields.
    #[schema(schema_with = metadata_patch, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metadata: Option<Value>,
}

/// The body of `POST /v1/messages/read`: one conversation up to a seq, or messages.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum MarkRead {
    /// One conversation.
    UpTo(UpTo),
    /// Each message's conversation, up to that message.
    Messages(Messages),
}

/// How far a conversation was read.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct UpTo {
    /// Which.
    pub(crate) conversation_id: ConversationId,
    /// The last seq that was read; beyond the conversation's last one it counts as that.
    #[schema(schema_with = seq)]
    pub(crate) up_to_seq: u64,
}

/// Messages that were read.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Messages {
    /// Which, 1 to 100, all of conversations that the caller is in; duplicates count once.
    #[schema(schema_with = listed_messages)]
    pub(crate) message_ids: Vec<EventId>,
}

/// The body of `POST /v1/revocations`: a session, a login, or a user's tokens.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Revoke {
    /// A session.
    Session(RevokeSession),
    /// A login: every token that names it, and every session opened with one.
    Login(RevokeLogin),
    /// A user's tokens issued before a time, and every session opened with one.
    User(RevokeUser),
}

/// A session to revoke.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RevokeSession {
    /// Which.
    pub(crate) session_id: SessionId,
}

/// A login to revoke.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RevokeLogin {
    /// Which: the tokens' claim `sessionId`.
    #[schema(schema_with = login)]
    pub(crate) login_session_id: &'static str,
}

/// A user whose tokens are revoked.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RevokeUser {
    /// Whose.
    pub(crate) user_id: UserId,
    /// Those issued before this time; all issued until now when it is not given.
    pub(crate) issued_before: Option<Timestamp>,
}

fn nullable(text: RefOr<Schema>) -> RefOr<Schema> {
    let RefOr::T(Schema::Object(mut object)) = text else {
        return text;
    };
    if let SchemaType::Type(one) = object.schema_type {
        object.schema_type = SchemaType::Array(vec![one, Type::Null]);
    }
    object.into()
}

fn name() -> RefOr<Schema> {
    nullable(schema::conversation_name().into())
}

fn description() -> RefOr<Schema> {
    nullable(schema::conversation_description().into())
}

fn avatar() -> RefOr<Schema> {
    nullable(schema::conversation_avatar().into())
}

fn custom() -> RefOr<Schema> {
    nullable(schema::conversation_custom().into())
}

fn metadata() -> RefOr<Schema> {
    nullable(schema::message_metadata().into())
}

fn metadata_patch() -> RefOr<Schema> {
    let object = ObjectBuilder::new().schema_type(Type::Object);
    let described = object.description(Some(
        "A JSON merge patch (RFC 7396) of the sender's own fields: null takes a member away. At most 16 KiB, and so what it leaves.",
    ));
    nullable(described.into())
}

fn seq() -> RefOr<Schema> {
    let number = ObjectBuilder::new().schema_type(Type::Integer);
    let described = number.description(Some(
        "The last seq that was read; beyond the conversation's last one it counts as that.",
    ));
    described.minimum(Some(0)).maximum(Some(u64::MAX)).into()
}

fn login() -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(Type::String);
    let described = text.description(Some("Which: the tokens' claim `sessionId`."));
    let bounded = described.min_length(Some(1)).max_length(Some(128));
    bounded.pattern(Some(schema::PRINTABLE_PATTERN)).into()
}

fn listed<T: ToSchema>(most: usize) -> RefOr<Schema> {
    ArrayBuilder::new()
        .items(Ref::from_schema_name(T::name()))
        .min_items(Some(1))
        .max_items(Some(most))
        .into()
}

fn listed_users() -> RefOr<Schema> {
    listed::<UserId>(limits::PARTICIPANTS_PER_REQUEST)
}

fn listed_additions() -> RefOr<Schema> {
    listed::<Addition>(limits::PARTICIPANTS_PER_REQUEST)
}

fn listed_messages() -> RefOr<Schema> {
    listed::<EventId>(limits::READ_MESSAGES)
}

impl PartialSchema for Content {
    fn schema() -> RefOr<Schema> {
        let size = ObjectBuilder::new()
            .schema_type(SchemaType::Array(vec![Type::Integer, Type::Null]))
            .minimum(Some(0))
            .maximum(Some(limits::ENCRYPTED_CONTENT as f64))
            .description(Some("The decoded size of `encryptedContent`, in bytes: checked when it is given, and computed when not."));
        ObjectBuilder::new()
            .property("content", schema::content())
            .property("encryptedContent", schema::encrypted_content())
            .property("payloadSizeBytes", size)
            .into()
    }
}

impl ToSchema for Content {}
