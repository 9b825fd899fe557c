//! `/v1/messages` and a conversation's history.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use confab_protocol::command::{
    Command, DeleteMessage, EditMessage, Outcome, SendAnswer, SendMessage, Sent,
};
use confab_protocol::error::{Code, Failure};
use confab_protocol::frame::{read_body, read_content};
use confab_protocol::ids::{ClientId, ConversationId};
use confab_protocol::json::{Fields, JsonText};
use confab_protocol::query::{Answer, History, Query};
use uuid::{Uuid, uuid};

use super::answer::{self, REPLAYED};
use super::body::JsonBody;
use super::pages::gather;
use super::params::{NoParams, Params};
use super::path::{InConversation, OfMessage};
use super::problem::Problem;
use super::who::Who;
use super::{App, idempotency};

/// The namespace in which an Idempotency-Key becomes a clientId (RFC 9562, section 5.5).
const KEYS: Uuid = uuid!("6f1c7a52-8a2b-4c6e-9f54-7d1f0c6f3b1e");

/// `POST /v1/messages`
pub(super) async fn send(
    State(app): State<Arc<App>>,
    who: Who,
    _: NoParams,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let caller = who.writes()?;
    let (message, is_keyed) = read_message(&body, idempotency::key(&headers)?)?;
    let command = Command::SendMessage(message);
    let Outcome::Sent(Sent {
        message: Some(message),
        duplicate,
        ..
    }) = app.commands.execute(who.request(caller, command)).await?
    else {
        return Err(Failure::of(Code::Internal).into());
    };
    let mut response = answer::named(StatusCode::CREATED, "message", &message);
    // What this gateway itself tried again is no repeat of the client's.
    let replayed = (is_keyed && duplicate).then_some(REPLAYED);
    response.headers_mut().extend(replayed);
    Ok(response)
}

/// The message, and whether its client gave a key by which it may be repeated.
fn read_message(body: &[u8], key: Option<String>) -> Result<(SendMessage, bool), Failure> {
    let mut fields = Fields::parse(body)?;
    let conversation = fields.require::<ConversationId>("conversationId");
    let given = fields.take::<ClientId>("clientId");
    if given.is_some() && key.is_some() {
        fields.reject("clientId", "must not be given beside an Idempotency-Key");
    }
    let message = read_body(&mut fields);
    fields.finish()?;
    let (Some(conversation), Some(message)) = (conversation, message) else {
        return Err(Failure::of(Code::Validation));
    };
    let keyed = key.map(|key| ClientId(Uuid::new_v5(&KEYS, key.as_bytes())));
    let client_key = given.or(keyed);
    let payload = JsonText::of(&message).map_err(|_unprintable| Failure::of(Code::Internal))?;
    let message = SendMessage {
        conversation,
        client_id: client_key.unwrap_or_else(idempotency::own_key),
        payload,
        reply_to: message.reply_to,
        answer: SendAnswer::Message,
    };
    Ok((message, client_key.is_some()))
}

/// `GET /v1/messages/{id}`
pub(super) async fn show(
    State(app): State<Arc<App>>,
    who: Who,
    _: NoParams,
    OfMessage(message): OfMessage,
) -> Result<Response, Problem> {
    let caller = who.reads()?;
    let Answer::Object(message) = app.ask(&who, Query::GetMessage { caller, message }).await?
    else {
        return Err(Failure::of(Code::Internal).into());
    };
    Ok(answer::named(StatusCode::OK, "message", &message))
}

/// `PATCH /v1/messages/{id}`
pub(super) async fn edit(
    State(app): State<Arc<App>>,
    who: Who,
    _: NoParams,
    OfMessage(message): OfMessage,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let caller = who.writes()?;
    let command = Command::EditMessage(EditMessage {
        conversation: None,
        message,
        content: read_edit(&body)?,
        client_id: idempotency::own_key(),
        answer: SendAnswer::Message,
    });
    let outcome = app.commands.execute(who.request(caller, command)).await?;
    changed(outcome)
}

/// `DELETE /v1/messages/{id}`
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    who: Who,
    _: NoParams,
    OfMessage(message): OfMessage,
) -> Result<Response, Problem> {
    let caller = who.writes()?;
    let command = Command::DeleteMessage(DeleteMessage {
        conversation: None,
        message,
        client_id: idempotency::own_key(),
        answer: SendAnswer::Message,
    });
    let outcome = app.commands.execute(who.request(caller, command)).await?;
    changed(outcome)
}

/// The message as it is behind its edit or deletion.
fn changed(outcome: Outcome) -> Result<Response, Problem> {
    let Outcome::Sent(Sent {
        message: Some(message),
        ..
    }) = outcome
    else {
        return Err(Failure::of(Code::Internal).into());
    };
    Ok(answer::named(StatusCode::OK, "message", &message))
}

fn read_edit(body: &[u8]) -> Result<JsonText, Failure> {
    let mut fields = Fields::parse(body)?;
    let content = read_content(&mut fields);
    fields.finish()?;
    JsonText::of(&content).map_err(|_unprintable| Failure::of(Code::Internal))
}

/// `GET /v1/conversations/{id}/messages`
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
        kind: params.text("kind"),
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

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    #[test]
    fn a_key_becomes_the_client_id_and_the_same_key_the_same_one() {
        let body = format!(r#"{{"conversationId":"{ID}","kind":"text","content":1}}"#);
        let read = |key: Option<&str>| {
            let read = read_message(body.as_bytes(), key.map(str::to_owned));
            read.map(|(message, is_keyed)| (message.client_id, is_keyed))
                .unwrap()
        };
        assert_eq!(read(Some("k")), read(Some("k")));
        assert_ne!(read(Some("k")), read(Some("l")));
        assert_ne!(read(None), read(None));
        assert_eq!((read(None).1, read(Some("k")).1), (false, true));
        let both =
            format!(r#"{{"conversationId":"{ID}","kind":"text","content":1,"clientId":"{ID}"}}"#);
        assert_eq!(
            read_message(both.as_bytes(), Some("k".into()))
                .unwrap_err()
                .code,
            Code::Validation
        );
        let sender =
            format!(r#"{{"conversationId":"{ID}","kind":"text","content":1,"sender":"eve"}}"#);
        let failure = read_message(sender.as_bytes(), None).unwrap_err();
        assert_eq!(failure.extension.errors[0].pointer, "/sender");
    }

    #[test]
    fn an_edit_is_content_and_nothing_else() {
        let read = |body: &str| read_edit(body.as_bytes()).map(JsonText::into_string);
        assert_eq!(
            read(r#"{"content":{"b":  1}}"#).unwrap(),
            r#"{"content":{"b":  1},"payloadSizeBytes":null}"#
        );
        let encrypted = r#"{"encryptedContent":"AAAA","payloadSizeBytes":3}"#;
        assert_eq!(read(encrypted).unwrap(), encrypted);
        for bad in [
            "{}",
            r#"{"content":1,"encryptedContent":"AAAA"}"#,
            r#"{"content":1,"kind":"text"}"#,
            r#"{"encryptedContent":"AAAA","payloadSizeBytes":4}"#,
        ] {
            assert_eq!(read(bad).unwrap_err().code, Code::Validation, "{bad}");
        }
    }
}
