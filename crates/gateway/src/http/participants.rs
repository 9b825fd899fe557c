//! `/v1/conversations/{id}/participants`: list, add, change a role, remove.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use confab_protocol::command::{
    AddParticipants, Command, Outcome, RemoveParticipant, UpdateParticipant,
};
use confab_protocol::error::{Code, Failure};
use confab_protocol::event::Member;
use confab_protocol::ids::{ConversationId, UserId};
use confab_protocol::json::Fields;
use confab_protocol::limits;
use confab_protocol::query::{ListParticipants, Query};
use confab_protocol::resource::{Participant, Role};
use confab_protocol::timestamp::Timestamp;
use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};

use super::answer;
use super::body::JsonBody;
use super::pages::gather;
use super::params::{NoParams, Params};
use super::path::{InConversation, OfUser};
use super::problem::Problem;
use super::who::Who;
use super::{App, idempotency};
use crate::api_docs::openapi::{answers, bodies};
use crate::keys;

/// A conversation's participants, in the order of their joining.
///
/// With `includeLeft` the memberships that ended are listed as well, each by itself: who left and joined again is there
/// twice.
#[utoipa::path(
    get,
    path = "/v1/conversations/{id}/participants",
    operation_id = "listParticipants",
    tag = "participants",
    params(
        ("id" = ConversationId, Path, description = "The conversation."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "How many at most, 1 to 1000; 100 when it is not given. One out of its range is refused."),
        ("cursor" = Option<String>, Query, description = "The `nextCursor` of the page before, with the same other parameters."),
        ("includeLeft" = Option<bool>, Query, description = "Whether memberships that ended are listed as well; `false` when it is not given."),
        ("role" = Option<Role>, Query, description = "Only of this role.")
    ),
    responses((status = 200, body = answers::ParticipantPage, description = "A page."))
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    who: Who,
    InConversation(conversation): InConversation,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let caller = who.reads()?;
    let mut params = Params::parse(query.as_deref());
    let limit = params.limit(1..=1000, 100);
    let cursor = params.text("cursor");
    let include_left = params.parsed("includeLeft", "must be true or false");
    let role = params.parsed("role", "must be member or admin");
    params.finish()?;
    let question = |limit, cursor| {
        Query::ListParticipants(ListParticipants {
            caller: caller.clone(),
            conversation,
            limit,
            cursor,
            include_left: include_left.unwrap_or_default(),
            role,
        })
    };
    let page = gather(&app, &who, limit, cursor, question).await?;
    Ok(page.under("participants"))
}

/// Add participants.
///
/// For admins. One user, or up to 1,000 at once: all or none, in one event. Who was a member before gets a new membership,
/// and hears nothing of the time between. Nobody is added to a direct conversation.
#[utoipa::path(
    post,
    path = "/v1/conversations/{id}/participants",
    operation_id = "addParticipants",
    tag = "participants",
    params(("id" = ConversationId, Path, description = "The conversation.")),
    request_body(content = bodies::AddParticipants, description = "Whom to add."),
    responses((status = 201, body = answers::ParticipantsAdded, description = "They are members."))
)]
pub(super) async fn add(
    State(app): State<Arc<App>>,
    who: Who,
    _: NoParams,
    InConversation(conversation): InConversation,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, Problem> {
    let caller = who.writes()?;
    let key = idempotency::key(&headers)?;
    let (participants, single) = app.parse(&who, body, read_additions).await?;
    let command = AddParticipants {
        conversation,
        participants,
        client_id: keys::of_request("add_participants", key.as_deref()),
    };
    let request = who.request(caller, Command::AddParticipants(command));
    let Outcome::Added {
        participants,
        replayed,
    } = app.commands.execute(request).await?
    else {
        return Err(Failure::of(Code::Internal).into());
    };
    let response = match (single, participants.as_slice()) {
        (true, [participant]) => (StatusCode::CREATED, Json(One { participant })).into_response(),
        _ => (
            StatusCode::CREATED,
            Json(Many {
                participants: &participants,
            }),
        )
            .into_response(),
    };
    Ok(answer::replayed_if(key.is_some() && replayed, response))
}

/// Change a participant's role.
///
/// For admins. The last admin cannot step down. It appends a `participant.updated`, unless the role is the same. Roles in a direct
/// conversation do not change.
#[utoipa::path(
    patch,
    path = "/v1/conversations/{id}/participants/{userId}",
    operation_id = "updateParticipant",
    tag = "participants",
    params(("id" = ConversationId, Path, description = "The conversation."), ("userId" = UserId, Path, description = "The participant.")),
    request_body(content = bodies::UpdateParticipant, description = "The role."),
    responses((status = 200, body = answers::ParticipantAlone, description = "The membership with its role."))
)]
pub(super) async fn update(
    State(app): State<Arc<App>>,
    who: Who,
    _: NoParams,
    InConversation(conversation): InConversation,
    OfUser(user): OfUser,
    (headers, JsonBody(body)): (HeaderMap, JsonBody),
) -> Result<Response, Problem> {
    let caller = who.writes()?;
    let key = idempotency::key(&headers)?;
    let command = Command::UpdateParticipant(UpdateParticipant {
        conversation,
        user,
        role: read_role(&body)?,
        client_id: keys::of_request("update_participant", key.as_deref()),
    });
    let Outcome::RoleChanged {
        participant,
        replayed,
    } = app.commands.execute(who.request(caller, command)).await?
    else {
        return Err(Failure::of(Code::Internal).into());
    };
    let response = Json(One {
        participant: &participant,
    })
    .into_response();
    Ok(answer::replayed_if(key.is_some() && replayed, response))
}

/// Remove a participant, or leave.
///
/// Admins remove whom they like, and everyone may leave. A last admin who leaves hands the role to the longest-standing
/// member. The last member to leave deletes the conversation. A repeat without an `Idempotency-Key` is `PARTICIPANT_NOT_FOUND` to those
/// who may still look, and `CONVERSATION_NOT_FOUND` to who left. Nobody leaves a direct conversation.
#[utoipa::path(
    delete,
    path = "/v1/conversations/{id}/participants/{userId}",
    operation_id = "removeParticipant",
    tag = "participants",
    params(("id" = ConversationId, Path, description = "The conversation."), ("userId" = UserId, Path, description = "The participant.")),
    responses((status = 200, body = answers::ParticipantRemoval, description = "The membership ended."))
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    who: Who,
    _: NoParams,
    InConversation(conversation): InConversation,
    OfUser(user): OfUser,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = who.writes()?;
    let key = idempotency::key(&headers)?;
    let command = RemoveParticipant {
        conversation,
        user,
        client_id: keys::of_request("remove_participant", key.as_deref()),
    };
    let request = who.request(caller, Command::RemoveParticipant(command));
    let Outcome::Removed {
        participant,
        conversation_deleted_at,
        replayed,
    } = app.commands.execute(request).await?
    else {
        return Err(Failure::of(Code::Internal).into());
    };
    let response = Json(Removed {
        participant,
        conversation_deleted_at,
    })
    .into_response();
    Ok(answer::replayed_if(key.is_some() && replayed, response))
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

pub(super) fn read_role(body: &[u8]) -> Result<Role, Failure> {
    let mut fields = Fields::parse(body)?;
    let role = fields.require::<Role>("role");
    fields.finish()?;
    role.ok_or_else(|| Failure::of(Code::Validation))
}

/// The members to add, and whether the body named one by itself.
pub(super) fn read_additions(body: &[u8]) -> Result<(Vec<Member>, bool), Failure> {
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
