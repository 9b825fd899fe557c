//! `/v1/messages/read`: read marks, which only move forward.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use confab_protocol::command::{Command, MarkRead, Outcome};
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::{ConversationId, EventId, Seq};
use confab_protocol::json::Fields;
use confab_protocol::limits;
use serde::Serialize;
use serde_json::value::RawValue;

use super::body::JsonBody;
use super::params::NoParams;
use super::problem::Problem;
use super::who::Who;
use super::{App, idempotency};
use crate::api_docs::openapi::{answers, bodies};

/// Mark messages as read.
///
/// One conversation up to a seq, or up to 100 messages, each of which marks its conversation up to itself. Marks only move
/// forward, and never beyond the conversation's last seq; the answer says where they stand. If any message is unknown, or of a
/// conversation that the caller is not in, nothing is marked. Nothing is appended to the log; the members hear a `receipt`. A repeat changes
/// nothing, with an `Idempotency-Key` or without: a seq above the last one counts as the one that is the last then.
#[utoipa::path(
    post,
    path = "/v1/messages/read",
    operation_id = "markRead",
    tag = "messages",
    request_body(content = bodies::MarkRead, description = "What was read."),
    responses((status = 200, body = answers::ReadMarks, description = "Where the read marks stand."))
)]
pub(super) async fn mark(
    State(app): State<Arc<App>>,
    who: Who,
    _: NoParams,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let caller = who.writes()?;
    // Marks only move forward: there is nothing to keep it for.
    idempotency::key(&headers)?;
    let (mark, written) = read_mark(&body)?;
    let command = Command::MarkRead(mark);
    let Outcome::Read(marks) = app.reads.execute(who.request(caller, command)).await? else {
        return Err(Failure::of(Code::Internal).into());
    };
    let read = marks.iter().map(|mark| {
        let id = written.clone();
        (
            id.unwrap_or_else(|| mark.conversation.to_string()),
            mark.up_to,
        )
    });
    Ok(Json(Marked {
        read: read.collect(),
    })
    .into_response())
}

#[derive(Serialize)]
struct Marked {
    read: BTreeMap<String, Seq>,
}

/// What the body asks for: one conversation up to a seq, with its id as the client wrote it, or messages.
pub(super) fn read_mark(body: &[u8]) -> Result<(MarkRead, Option<String>), Failure> {
    let mut fields = Fields::parse(body)?;
    if fields
        .peek("messageIds")
        .is_some_and(|raw| raw.get() != "null")
    {
        let mut messages = fields
            .take::<Vec<EventId>>("messageIds")
            .unwrap_or_default();
        for other in ["conversationId", "upToSeq"] {
            if fields.raw(other).is_some() {
                fields.reject(other, "must not be given beside messageIds");
            }
        }
        fields.finish()?;
        if !(1..=limits::READ_MESSAGES).contains(&messages.len()) {
            return Err(Failure::field("/messageIds", "must name 1 to 100 messages"));
        }
        messages.sort_unstable();
        messages.dedup();
        return Ok((MarkRead::Messages(messages), None));
    }
    let written = fields.peek("conversationId").map(RawValue::get);
    let written = written.and_then(|json| serde_json::from_str(json).ok());
    let conversation = fields.require::<ConversationId>("conversationId");
    let seq = fields.require_integer("upToSeq");
    fields.finish()?;
    match (conversation, seq) {
        (Some(conversation), Some(seq)) => Ok((MarkRead::UpTo { conversation, seq }, written)),
        _ => Err(Failure::of(Code::Validation)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn pointers(body: &str) -> Vec<String> {
        let failure = read_mark(body.as_bytes()).unwrap_err();
        let errors = failure.extension.errors;
        errors.into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn conversation_and_messages_together_are_refused() {
        let one = format!(r#"{{"conversationId":"{SAMPLE_ID}","upToSeq":7}}"#);
        assert!(matches!(
            read_mark(one.as_bytes()),
            Ok((MarkRead::UpTo { seq: 7, .. }, Some(id))) if id == SAMPLE_ID
        ));
        let some = format!(r#"{{"messageIds":["{SAMPLE_ID}","{SAMPLE_ID}"]}}"#);
        assert!(
            matches!(read_mark(some.as_bytes()), Ok((MarkRead::Messages(ids), None)) if ids.len() == 1)
        );

        assert_eq!(pointers("{}"), ["/conversationId", "/upToSeq"]);
        for bad in ["[]", "1", "[1]", r#"["x"]"#] {
            let body = format!(r#"{{"messageIds":{bad}}}"#);
            assert_eq!(pointers(&body), ["/messageIds"], "{bad}");
        }
        let both = format!(
            r#"{{"messageIds":["{SAMPLE_ID}"],"conversationId":"{SAMPLE_ID}","upToSeq":1}}"#
        );
        assert_eq!(pointers(&both), ["/conversationId", "/upToSeq"]);
        let many = vec![format!("\"{SAMPLE_ID}\""); 101].join(",");
        assert_eq!(
            pointers(&format!(r#"{{"messageIds":[{many}]}}"#)),
            ["/messageIds"]
        );
        let negative = format!(r#"{{"conversationId":"{SAMPLE_ID}","upToSeq":-1,"typo":1}}"#);
        assert_eq!(pointers(&negative), ["/upToSeq", "/typo"]);
    }
}
