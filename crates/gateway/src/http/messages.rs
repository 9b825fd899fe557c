//! `/v1/messages` and a conversation's history.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use confab_protocol::command::{
    Command, DeleteMessage, EditMessage, Outcome, SendAnswer, SendMessage, Sent,
};
use confab_protocol::error::{Code, Failure};
use confab_protocol::frame::{KIND_RULE, is_kind, read_body, read_change};
use confab_protocol::ids::{ClientId, ConversationId, EventId, UserId};
use confab_protocol::json::{Fields, JsonText};
use confab_protocol::query::{Answer, History, Query};
use confab_protocol::resource::MessageChange;
use confab_protocol::timestamp::Timestamp;
use serde_json::value::RawValue;
use uuid::{Uuid, uuid};

use super::answer;
use super::body::JsonBody;
use super::pages::gather;
use super::params::{NoParams, Params};
use super::path::{InConversation, OfMessage};
use super::problem::Problem;
use super::who::Who;
use super::{App, idempotency, if_match};
use crate::api_docs::openapi::{answers, bodies};
use crate::keys;

/// The namespace in which an Idempotency-Key becomes a clientId (RFC 9562, section 5.5).
const KEY_NAMESPACE: Uuid = uuid!("6f1c7a52-8a2b-4c6e-9f54-7d1f0c6f3b1e");

/// Send a message.
///
/// For members; in a channel for its admins; with the scope `confab:admin` for anyone. The sender is the token's user. A
/// `clientId` makes it idempotent, by sender and conversation, for good: the same message is stored once and answered each
/// time with its present state and `Idempotent-Replayed: true`, also to one who has left since. Another message under the
/// same id is refused for as long as the first one stands as it was sent: by what it says, not by how that is written. Once it
/// was edited or deleted its id alone counts. An `Idempotency-Key` becomes the `clientId` (UUID version 5 of it); giving both
/// is refused.
///
/// A message is `content` (any JSON but null) or `encryptedContent`, never both, and its event at most 512 KiB.
#[utoipa::path(
    post,
    path = "/v1/messages",
    operation_id = "sendMessage",
    tag = "messages",
    params(("Idempotency-Key" = Option<String>, Header, pattern = "^([!#-~][!-~]{0,254}|\"[!#-\\[\\]-~]{1,255}\")$", description = "Becomes the clientId: 1 to 255 visible ASCII characters; the quoted form and the bare one are the same key. Not beside a clientId.")),
    request_body(content = bodies::SendMessage, description = "The message."),
    responses((
        status = 201,
        body = answers::MessageAlone,
        description = "It is stored, now or before.",
        headers(("Idempotent-Replayed" = String, description = "`true` where it was stored before."))
    ))
)]
pub(super) async fn send(
    State(app): State<Arc<App>>,
    who: Who,
    _: NoParams,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, Problem> {
    let caller = who.writes()?;
    let key = idempotency::key(&headers)?;
    let read = move |body: &[u8]| read_message(body, key);
    let given = app.parse(&who, body, read).await?;
    let client_id = given.message.client_id;
    let command = Command::SendMessage(given.message);
    let Outcome::Sent(Sent {
        message: Some(message),
        duplicate,
        ..
    }) = app.commands.execute(who.request(caller, command)).await?
    else {
        return Err(Failure::of(Code::Internal).into());
    };
    let message = match &given.written {
        Some(written) => with_client_id(&message, client_id, written),
        None => message,
    };
    let response = answer::message(StatusCode::CREATED, &message);
    // What this gateway itself tried again is no repeat of the client's.
    Ok(answer::replayed_if(given.is_keyed && duplicate, response))
}

/// A message as its client gave it.
#[derive(Debug)]
pub(super) struct Given {
    message: SendMessage,
    /// Whether there is a key by which it may be repeated.
    is_keyed: bool,
    /// The `clientId` in the client's own form, where that is not the canonical one.
    written: Option<String>,
}

/// Reads the body of a send.
pub(super) fn read_message(body: &[u8], key: Option<String>) -> Result<Given, Failure> {
    let mut fields = Fields::parse(body)?;
    let conversation = fields.require::<ConversationId>("conversationId");
    let written = fields.peek("clientId").map(RawValue::get);
    let given = fields.take::<ClientId>("clientId");
    if given.is_some() && key.is_some() {
        fields.reject("clientId", "must not be given beside an Idempotency-Key");
    }
    let message = read_body(&mut fields);
    fields.finish()?;
    let (Some(conversation), Some(message)) = (conversation, message) else {
        return Err(Failure::of(Code::Validation));
    };
    let keyed = key.map(|key| ClientId(Uuid::new_v5(&KEY_NAMESPACE, key.as_bytes())));
    let client_key = given.or(keyed);
    let payload = JsonText::of(&message).map_err(|_unprintable| Failure::of(Code::Internal))?;
    let message = SendMessage {
        conversation,
        message: EventId(Uuid::now_v7()),
        client_id: client_key.unwrap_or_else(keys::own),
        payload,
        reply_to: message.reply_to,
        answer: SendAnswer::Message,
    };
    let written = given.and_then(|given| written_otherwise(given, written?));
    Ok(Given {
        message,
        is_keyed: client_key.is_some(),
        written,
    })
}

/// An id in its client's form, where that is not the canonical one.
fn written_otherwise(id: ClientId, json: &str) -> Option<String> {
    let written: String = serde_json::from_str(json).ok()?;
    (written != id.to_string()).then_some(written)
}

/// A message with its `clientId` in the form in which the client of this request wrote it.
fn with_client_id(message: &JsonText, id: ClientId, written: &str) -> JsonText {
    // It stands before the content, and a form of a UUID has nothing that JSON escapes.
    let canonical = format!(r#""clientId":"{id}""#);
    let given = format!(r#""clientId":"{written}""#);
    JsonText::trusted(message.as_str().replacen(&canonical, &given, 1))
}

/// A message.
///
/// For present members of its conversation, and with the scope `confab:admin`. One that was deleted keeps its seq and has no
/// content.
#[utoipa::path(
    get,
    path = "/v1/messages/{id}",
    operation_id = "getMessage",
    tag = "messages",
    params(
        ("id" = EventId, Path, description = "The message."),
        ("If-None-Match" = Option<String>, Header, description = "Entity tags that the client has: where one of them is still right, the answer is 304.")
    ),
    responses(
        (
            status = 200,
            body = answers::MessageAlone,
            description = "The message as it is now.",
            headers(("ETag" = String, description = "The message's `version`, quoted."))
        ),
        (
            status = 304,
            description = "The client has it already.",
            headers(("ETag" = String, description = "The message's `version`, quoted."))
        )
    )
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    who: Who,
    _: NoParams,
    OfMessage(message): OfMessage,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = who.reads()?;
    let Answer::Object(message) = app.ask(&who, Query::GetMessage { caller, message }).await?
    else {
        return Err(Failure::of(Code::Internal).into());
    };
    let response = answer::message(StatusCode::OK, &message);
    Ok(answer::unless_unchanged(&headers, response))
}

/// Edit a message.
///
/// For its sender, who must be a member now, and in a channel still an admin; `confab:admin` edits nobody else's. The content is replaced,
/// and `metadata` are a JSON merge patch (RFC 7396), at most 16 KiB behind the change as well; either or both. Kind and reply stay. An
/// encrypted message stays encrypted; one in clear may become it. The edit is an event and counts `version` up; from then on the message is
/// as it is now wherever it is served, and what it was before is nowhere. An edit that changes nothing succeeds and is no event.
#[utoipa::path(
    patch,
    path = "/v1/messages/{id}",
    operation_id = "editMessage",
    tag = "messages",
    params(
        ("id" = EventId, Path, description = "The message."),
        ("If-Match" = Option<String>, Header, pattern = "^(\\*|(0|[1-9][0-9]{0,18})|\"(0|[1-9][0-9]{0,18})\")$", description = "The `version` that the message must have, quoted as in its ETag or bare, or `*`. PRECONDITION_FAILED names the present one.")
    ),
    request_body(content = bodies::EditMessage, description = "What changes."),
    responses((
        status = 200,
        body = answers::MessageAlone,
        description = "The message behind the edit.",
        headers(("ETag" = String, description = "The message's `version`, quoted."))
    ))
)]
pub(super) async fn edit(
    State(app): State<Arc<App>>,
    who: Who,
    _: NoParams,
    OfMessage(message): OfMessage,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, Problem> {
    let caller = who.writes()?;
    let key = idempotency::key(&headers)?;
    let (content, metadata) = app.parse(&who, body, read_edit).await?;
    let command = Command::EditMessage(EditMessage {
        conversation: None,
        message,
        content,
        metadata,
        expected_version: if_match::version(&headers)?,
        client_id: keys::of_request("edit_message", key.as_deref()),
        answer: SendAnswer::Message,
    });
    let outcome = app.commands.execute(who.request(caller, command)).await?;
    changed(outcome, key.is_some())
}

/// Delete a message.
///
/// For its sender, who must be a member now, for the conversation's admins but in a direct one, and with the scope `confab:admin`. The message keeps
/// its seq, and loses its content and metadata wherever it is served. A repeat gives the same answer, whatever its `If-Match`.
#[utoipa::path(
    delete,
    path = "/v1/messages/{id}",
    operation_id = "deleteMessage",
    tag = "messages",
    params(
        ("id" = EventId, Path, description = "The message."),
        ("If-Match" = Option<String>, Header, pattern = "^(\\*|(0|[1-9][0-9]{0,18})|\"(0|[1-9][0-9]{0,18})\")$", description = "The `version` that the message must have unless it is deleted, quoted as in its ETag or bare, or `*`. PRECONDITION_FAILED names the present one.")
    ),
    responses((
        status = 200,
        body = answers::MessageAlone,
        description = "What is left of the message.",
        headers(("ETag" = String, description = "The message's `version`, quoted."))
    ))
)]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    who: Who,
    _: NoParams,
    OfMessage(message): OfMessage,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = who.writes()?;
    let key = idempotency::key(&headers)?;
    let command = Command::DeleteMessage(DeleteMessage {
        conversation: None,
        message,
        expected_version: if_match::version(&headers)?,
        client_id: keys::of_request("delete_message", key.as_deref()),
        answer: SendAnswer::Message,
    });
    let outcome = app.commands.execute(who.request(caller, command)).await?;
    changed(outcome, key.is_some())
}

/// The message as it is behind its edit or deletion.
fn changed(outcome: Outcome, is_keyed: bool) -> Result<Response, Problem> {
    let Outcome::Sent(Sent {
        message: Some(message),
        duplicate,
        ..
    }) = outcome
    else {
        return Err(Failure::of(Code::Internal).into());
    };
    let response = answer::message(StatusCode::OK, &message);
    Ok(answer::replayed_if(is_keyed && duplicate, response))
}

/// The new content as JSON and the patch of the metadata, as far as they are given.
pub(super) fn read_edit(body: &[u8]) -> Result<(Option<JsonText>, Option<JsonText>), Failure> {
    let mut fields = Fields::parse(body)?;
    let MessageChange { content, metadata } = read_change(&mut fields);
    fields.finish()?;
    let content = content.as_ref().map(JsonText::of).transpose();
    let content = content.map_err(|_unprintable| Failure::of(Code::Internal))?;
    Ok((content, metadata))
}

/// A conversation's messages, the newest first.
///
/// For present members, who may read all of it, what came before their joining included, and with the scope
/// `confab:admin`. Filters go together. A page may hold fewer than `limit` also when more follow: only a `nextCursor` of
/// null is the end.
#[utoipa::path(
    get,
    path = "/v1/conversations/{id}/messages",
    operation_id = "listMessages",
    tag = "messages",
    params(
        ("id" = ConversationId, Path, description = "The conversation."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "How many at most, 1 to 200; 50 when it is not given. One out of its range is refused."),
        ("cursor" = Option<String>, Query, description = "The `nextCursor` of the page before, with the same other parameters."),
        ("before" = Option<u64>, Query, description = "Only below this seq."),
        ("after" = Option<u64>, Query, description = "Only above this seq."),
        ("sender" = Option<UserId>, Query, description = "Only of this user."),
        ("kind" = Option<String>, Query, pattern = "^(text|image|file|audio|video|x-[a-z0-9._-]{1,62})$", description = "Only of this kind: one that no message can have is refused."),
        ("from" = Option<Timestamp>, Query, description = "Only stored at or after this time."),
        ("to" = Option<Timestamp>, Query, description = "Only stored before this time.")
    ),
    responses((status = 200, body = answers::MessagePage, description = "A page."))
)]
pub(super) async fn history(
    State(app): State<Arc<App>>,
    who: Who,
    InConversation(conversation): InConversation,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let caller = who.reads()?;
    let mut params = Params::parse(query.as_deref());
    let history = History {
        caller,
        conversation,
        limit: params.limit(1..=200, 50),
        before: params.parsed("before", "must be a seq"),
        after: params.parsed("after", "must be a seq"),
        cursor: params.text("cursor"),
        sender: params.parsed("sender", "must be a user id"),
        kind: kind(&mut params),
        from: params.parsed("from", "must be an RFC 3339 time"),
        to: params.parsed("to", "must be an RFC 3339 time"),
    };
    params.finish()?;
    let (limit, cursor) = (history.limit, history.cursor.clone());
    let question = |limit, cursor| {
        Query::History(History {
            limit,
            cursor,
            ..history.clone()
        })
    };
    let page = gather(&app, &who, limit, cursor, question).await?;
    Ok(page.under("messages"))
}

/// The filter by kind: one that no message can have would find nothing, and hide a typo.
fn kind(params: &mut Params) -> Option<String> {
    let kind = params.text("kind")?;
    if is_kind(&kind) {
        return Some(kind);
    }
    params.reject("kind", KIND_RULE);
    None
}

/// A conversation's messages, the newest first.
///
/// The same as `GET /v1/conversations/{id}/messages`, under another path.
#[utoipa::path(
    get,
    path = "/v1/messages/conversation/{id}",
    operation_id = "listMessagesOfConversation",
    tag = "messages",
    params(
        ("id" = ConversationId, Path, description = "The conversation."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "How many at most, 1 to 200; 50 when it is not given. One out of its range is refused."),
        ("cursor" = Option<String>, Query, description = "The `nextCursor` of the page before, with the same other parameters."),
        ("before" = Option<u64>, Query, description = "Only below this seq."),
        ("after" = Option<u64>, Query, description = "Only above this seq."),
        ("sender" = Option<UserId>, Query, description = "Only of this user."),
        ("kind" = Option<String>, Query, pattern = "^(text|image|file|audio|video|x-[a-z0-9._-]{1,62})$", description = "Only of this kind: one that no message can have is refused."),
        ("from" = Option<Timestamp>, Query, description = "Only stored at or after this time."),
        ("to" = Option<Timestamp>, Query, description = "Only stored before this time.")
    ),
    responses((status = 200, body = answers::MessagePage, description = "A page."))
)]
pub(super) async fn history_of(
    state: State<Arc<App>>,
    who: Who,
    conversation: InConversation,
    query: RawQuery,
) -> Result<Response, Problem> {
    history(state, who, conversation, query).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    #[test]
    fn key_becomes_same_client_id() {
        let body = format!(r#"{{"conversationId":"{SAMPLE_ID}","kind":"text","content":1}}"#);
        let read = |key: Option<&str>| {
            let read = read_message(body.as_bytes(), key.map(str::to_owned));
            read.map(|given| (given.message.client_id, given.is_keyed))
                .unwrap()
        };
        assert_eq!(read(Some("k")), read(Some("k")));
        assert_ne!(read(Some("k")), read(Some("l")));
        assert_ne!(read(None), read(None));
        assert_eq!((read(None).1, read(Some("k")).1), (false, true));
        let both = format!(
            r#"{{"conversationId":"{SAMPLE_ID}","kind":"text","content":1,"clientId":"{SAMPLE_ID}"}}"#
        );
        assert_eq!(
            read_message(both.as_bytes(), Some("k".into()))
                .unwrap_err()
                .code,
            Code::Validation
        );
        let sender = format!(
            r#"{{"conversationId":"{SAMPLE_ID}","kind":"text","content":1,"sender":"eve"}}"#
        );
        let failure = read_message(sender.as_bytes(), None).unwrap_err();
        assert_eq!(failure.extension.errors[0].pointer, "/sender");
    }

    #[test]
    fn client_id_is_answered_as_it_was_written() {
        let upper = SAMPLE_ID.to_uppercase();
        for (written, told) in [(SAMPLE_ID, None), (upper.as_str(), Some(upper.as_str()))] {
            let body = format!(
                r#"{{"conversationId":"{SAMPLE_ID}","kind":"text","content":1,"clientId":"{written}"}}"#
            );
            let given = read_message(body.as_bytes(), None).unwrap();
            assert_eq!(given.message.client_id.to_string(), SAMPLE_ID);
            assert_eq!(given.written.as_deref(), told);
        }
        let stored =
            format!(r#"{{"clientId":"{SAMPLE_ID}","content":{{"clientId":"{SAMPLE_ID}"}}}}"#);
        let told = with_client_id(
            &JsonText::trusted(stored),
            SAMPLE_ID.parse().unwrap(),
            &upper,
        );
        let expected =
            format!(r#"{{"clientId":"{upper}","content":{{"clientId":"{SAMPLE_ID}"}}}}"#);
        assert_eq!(told.as_str(), expected);
    }

    #[test]
    fn unknown_kind_in_a_filter_is_named() {
        let read = |query: &str| {
            let mut params = Params::parse(Some(query));
            let kind = kind(&mut params);
            params.finish().map(|()| kind)
        };
        assert_eq!(read("kind=x-poll").unwrap().as_deref(), Some("x-poll"));
        assert_eq!(read("").unwrap(), None);
        for bad in ["kind=txt", "kind=", "kind=x-", "kind=TEXT"] {
            let failure = read(bad).unwrap_err();
            assert_eq!(failure.extension.errors[0].pointer, "kind", "{bad}");
        }
    }

    #[test]
    fn edit_is_content_or_metadata() {
        let text = |part: Option<JsonText>| part.map(JsonText::into_string);
        let read = |body: &str| {
            let (content, metadata) = read_edit(body.as_bytes())?;
            Ok::<_, Failure>((text(content), text(metadata)))
        };
        let content = r#"{"content":{"b":  1},"payloadSizeBytes":null}"#.to_owned();
        assert_eq!(
            read(r#"{"content":{"b":  1},"metadata":null}"#).unwrap(),
            (Some(content.clone()), None)
        );
        let patch = r#"{"mentions": null}"#;
        let both = format!(r#"{{"content":{{"b":  1}},"metadata":{patch}}}"#);
        assert_eq!(
            read(&both).unwrap(),
            (Some(content), Some(patch.to_owned()))
        );
        let alone = format!(r#"{{"metadata":{patch},"content":null}}"#);
        assert_eq!(read(&alone).unwrap(), (None, Some(patch.to_owned())));
        let encrypted = r#"{"encryptedContent":"AAAA","payloadSizeBytes":3}"#;
        assert_eq!(read(encrypted).unwrap(), (Some(encrypted.to_owned()), None));
        for bad in [
            "{}",
            r#"{"content":1,"encryptedContent":"AAAA"}"#,
            r#"{"content":1,"kind":"text"}"#,
            r#"{"encryptedContent":"AAAA","payloadSizeBytes":4}"#,
            r#"{"metadata":null}"#,
            r#"{"metadata":[]}"#,
            r#"{"metadata":{},"payloadSizeBytes":3}"#,
        ] {
            assert_eq!(read(bad).unwrap_err().code, Code::Validation, "{bad}");
        }
    }
}
