//! `/v1/messages` and a conversation's history.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use confab_protocol::command::{Command, Outcome, SendAnswer, SendMessage, Sent};
use confab_protocol::error::{Code, Failure};
use confab_protocol::frame::read_body;
use confab_protocol::ids::{ClientId, ConversationId};
use confab_protocol::json::{Fields, JsonText};
use confab_protocol::query::{History, Query};
use uuid::{Uuid, uuid};

use super::body::JsonBody;
use super::conversations::{REPLAYED, json, page};
use super::params::{NoParams, Params};
use super::path::InConversation;
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
    let command = Command::SendMessage(read_message(&body, idempotency::key(&headers)?)?);
    let Outcome::Sent(Sent {
        message: Some(message),
        duplicate,
        ..
    }) = app.commands.execute(who.request(caller, command)).await?
    else {
        return Err(Failure::of(Code::Internal).into());
    };
    let mut response = json(
        StatusCode::CREATED,
        format!("{{\"message\":{}}}", message.as_str()),
    );
    response.headers_mut().extend(duplicate.then_some(REPLAYED));
    Ok(response)
}

fn read_message(body: &[u8], key: Option<String>) -> Result<SendMessage, Failure> {
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
    let client_id = given.or(keyed).unwrap_or_else(|| ClientId(Uuid::now_v7()));
    let payload = JsonText::of(&message).map_err(|_unprintable| Failure::of(Code::Internal))?;
    Ok(SendMessage {
        conversation,
        client_id,
        payload,
        reply_to: message.reply_to,
        answer: SendAnswer::Message,
    })
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
    let answer = app
        .commands
        .query(who.request_id, who.traceparent, Query::History(history))
        .await?;
    page("messages", answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    #[test]
    fn a_key_becomes_the_client_id_and_the_same_key_the_same_one() {
        let body = format!(r#"{{"conversationId":"{ID}","kind":"text","content":1}}"#);
        let read = |key: Option<&str>| {
            read_message(body.as_bytes(), key.map(str::to_owned))
                .unwrap()
                .client_id
        };
        assert_eq!(read(Some("k")), read(Some("k")));
        assert_ne!(read(Some("k")), read(Some("l")));
        assert_ne!(read(None), read(None));
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
}
