//! `/v1/conversations/{id}/participants`: add, remove.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use confab_protocol::command::{AddParticipants, Command, Outcome, RemoveParticipant};
use confab_protocol::error::{Code, Failure};
use confab_protocol::event::Member;
use confab_protocol::ids::{ClientId, UserId};
use confab_protocol::json::Fields;
use confab_protocol::limits;
use confab_protocol::resource::{Participant, Role};
use confab_protocol::timestamp::Timestamp;
use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::App;
use super::body::JsonBody;
use super::params::NoParams;
use super::path::{InConversation, OfUser};
use super::problem::Problem;
use super::who::Who;

/// `POST /v1/conversations/{id}/participants`
pub(super) async fn add(
    State(app): State<Arc<App>>,
    who: Who,
    _: NoParams,
    InConversation(conversation): InConversation,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let caller = who.writes()?;
    let (participants, single) = read_additions(&body)?;
    let command = AddParticipants {
        conversation,
        participants,
        client_id: new_key(),
    };
    let request = who.request(caller, Command::AddParticipants(command));
    let Outcome::Added { participants } = app.commands.execute(request).await? else {
        return Err(Failure::of(Code::Internal).into());
    };
    Ok(match (single, participants.as_slice()) {
        (true, [participant]) => (StatusCode::CREATED, Json(One { participant })).into_response(),
        _ => (
            StatusCode::CREATED,
            Json(Many {
                participants: &participants,
            }),
        )
            .into_response(),
    })
}

/// `DELETE /v1/conversations/{id}/participants/{user}`
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    who: Who,
    _: NoParams,
    InConversation(conversation): InConversation,
    OfUser(user): OfUser,
) -> Result<Response, Problem> {
    let caller = who.writes()?;
    let command = RemoveParticipant {
        conversation,
        user,
        client_id: new_key(),
    };
    let request = who.request(caller, Command::RemoveParticipant(command));
    let Outcome::Removed {
        participant,
        conversation_deleted_at,
    } = app.commands.execute(request).await?
    else {
        return Err(Failure::of(Code::Internal).into());
    };
    Ok(Json(Removed {
        participant,
        conversation_deleted_at,
    })
    .into_response())
}

/// The key by which a retry of this gateway's finds the first execution.
fn new_key() -> ClientId {
    ClientId(Uuid::now_v7())
}

#[derive(Serialize)]
struct One<'a> {
    participant: &'a Participant,
}

#[derive(Serialize)]
struct Many<'a> {
    participants: &'a [Participant],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Removed {
    participant: Participant,
    conversation_deleted_at: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Addition {
    user_id: UserId,
    role: Option<Role>,
}

/// The members to add, and whether the body named one by itself.
fn read_additions(body: &[u8]) -> Result<(Vec<Member>, bool), Failure> {
    let mut fields = Fields::parse(body)?;
    let Some(listed) = fields.take::<Vec<Addition>>("participants") else {
        let user_id = fields.require::<UserId>("userId");
        let role = fields.take::<Role>("role").unwrap_or_default();
        fields.finish()?;
        let user_id = user_id.ok_or_else(|| Failure::of(Code::Validation))?;
        return Ok((vec![Member { user_id, role }], true));
    };
    if !(1..=limits::PARTICIPANTS_PER_REQUEST).contains(&listed.len()) {
        fields.reject("participants", "must name 1 to 1000 users");
    }
    let mut seen = FxHashSet::default();
    if !listed.iter().all(|addition| seen.insert(&addition.user_id)) {
        fields.reject("participants", "must name each user once");
    }
    fields.finish()?;
    let member = |Addition { user_id, role }| Member {
        user_id,
        role: role.unwrap_or_default(),
    };
    Ok((listed.into_iter().map(member).collect(), false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_or_many_are_added_each_once() {
        assert!(
            matches!(read_additions(br#"{"userId":"a"}"#), Ok((m, true)) if m[0].role == Role::Member)
        );
        assert!(
            matches!(read_additions(br#"{"participants":[{"userId":"a","role":"admin"}]}"#), Ok((m, false)) if m[0].role == Role::Admin)
        );
        for bad in [
            r#"{}"#,
            r#"{"userId":""}"#,
            r#"{"userId":"a","role":"king"}"#,
            r#"{"participants":[]}"#,
            r#"{"participants":[{"userId":"a"},{"userId":"a"}]}"#,
            r#"{"participants":[{"userId":"a"}],"userId":"b"}"#,
        ] {
            assert_eq!(
                read_additions(bad.as_bytes()).unwrap_err().code,
                Code::Validation,
                "{bad}"
            );
        }
    }
}
