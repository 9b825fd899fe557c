//! Beginning a conversation, changing its metadata, deleting it: rules that need no database.

use confab_protocol::command::{Caller, CreateConversation, UpdateConversation};
use confab_protocol::error::{Code, Extension, Failure};
use confab_protocol::event::{ConversationDeleted, ConversationUpdated, EventType, Member};
use confab_protocol::ids::UserId;
use confab_protocol::json::{Fields, JsonText, compact, merge_patch};
use confab_protocol::limits;
use confab_protocol::resource::{ConversationType, Role};

use crate::decision::{Append, Change, Locked, NewEvent, administers, visible};
use crate::error::CommandError;
use crate::participants::capacity;
use crate::repeats::is_same_json;

/// A conversation that is to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beginning {
    /// In the order in which they stand in its first event.
    pub(crate) members: Vec<Member>,
    /// Of a direct conversation, its two users, in byte order.
    pub(crate) pair: Option<(UserId, UserId)>,
}

/// Decides who the first members are. The caller is a member and an admin; with `confab:admin` it creates for others, and
/// the first one listed is the admin, so that there is one.
///
/// # Errors
/// `INVALID_DIRECT_CONVERSATION`, `CONVERSATION_FULL`.
pub(crate) fn begin(caller: &Caller, create: &CreateConversation) -> Result<Beginning, Failure> {
    if create.r#type == ConversationType::Direct {
        return direct(caller, &create.participants);
    }
    let mut users: Vec<&UserId> = create.participants.iter().collect();
    if !caller.admin {
        users.retain(|user| **user != caller.user);
        users.insert(0, &caller.user);
    }
    if users.len() as u64 > capacity(create.r#type) {
        return Err(Failure::of(Code::ConversationFull));
    }
    let role = |place| {
        if place == 0 {
            Role::Admin
        } else {
            Role::Member
        }
    };
    let member = |(place, user): (usize, &UserId)| Member {
        user_id: user.clone(),
        role: role(place),
    };
    Ok(Beginning {
        members: users.into_iter().enumerate().map(member).collect(),
        pair: None,
    })
}

fn direct(caller: &Caller, users: &[UserId]) -> Result<Beginning, Failure> {
    let [one, other] = users else {
        return Err(Failure::of(Code::InvalidDirectConversation));
    };
    if !caller.admin && !users.contains(&caller.user) {
        return Err(Failure::of(Code::InvalidDirectConversation));
    }
    let member = |user: &UserId| Member {
        user_id: user.clone(),
        role: Role::Admin,
    };
    let (low, high) = if one.as_str() < other.as_str() {
        (one, other)
    } else {
        (other, one)
    };
    Ok(Beginning {
        members: vec![member(one), member(other)],
        pair: Some((low.clone(), high.clone())),
    })
}

/// How many memberships a user may have before this one.
pub(crate) fn membership_limit(caller: &Caller, user: &UserId) -> u64 {
    if *user == caller.user {
        limits::MEMBERSHIPS_BY_ONESELF
    } else {
        limits::MEMBERSHIPS_BY_OTHERS
    }
}

/// A conversation's metadata, and how often it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) metadata: JsonText,
    pub(crate) version: u64,
}

/// Merges a patch into the metadata. Nothing is appended where they say the same behind it.
pub(crate) fn update(
    caller: &Caller,
    locked: &Locked,
    command: &UpdateConversation,
    described: &Described,
) -> Result<Option<Append>, CommandError> {
    visible(caller, locked)?;
    if !administers(caller, locked) {
        return Err(Failure::new(
            Code::InsufficientPermissions,
            "only admins change a conversation",
        )
        .into());
    }
    if command
        .expected_version
        .is_some_and(|version| version != described.version)
    {
        let extension = Extension {
            current_version: Some(described.version),
            ..Extension::default()
        };
        return Err(Failure::of(Code::VersionConflict).with(extension).into());
    }
    let metadata = bounded(merge_patch(&described.metadata, &command.patch)?)?;
    if is_same_json(described.metadata.as_str(), metadata.as_str()) {
        return Ok(None);
    }
    let version = described.version + 1;
    let data = ConversationUpdated {
        metadata: metadata.clone(),
        version,
    };
    Ok(Some(Append {
        events: vec![NewEvent::of(EventType::ConversationUpdated, &data)?],
        changes: vec![Change::SetMetadata(metadata, version)],
    }))
}

/// Whether a patch would change nothing of these metadata.
pub(crate) fn has_patched(metadata: &JsonText, patch: &JsonText) -> Result<bool, CommandError> {
    let patched = merge_patch(metadata, patch)?;
    Ok(is_same_json(metadata.as_str(), patched.as_str()))
}

/// Metadata whose `custom` is no longer than it may be: as it stands, else in its shortest form.
fn bounded(metadata: JsonText) -> Result<JsonText, Failure> {
    if custom_size(&metadata)? <= limits::MAX_CUSTOM_BYTES {
        return Ok(metadata);
    }
    let short = compact(metadata.as_str()).map(JsonText::trusted);
    if let Some(short) = short
        && custom_size(&short)? <= limits::MAX_CUSTOM_BYTES
    {
        return Ok(short);
    }
    let message = format!("must be at most {} bytes of JSON", limits::MAX_CUSTOM_BYTES);
    Err(Failure::field("/metadata/custom", message))
}

fn custom_size(metadata: &JsonText) -> Result<usize, Failure> {
    let mut fields = Fields::parse_at(metadata.as_str().as_bytes(), "/metadata")?;
    Ok(fields.raw("custom").map_or(0, |custom| custom.get().len()))
}

/// Deletes a conversation.
pub(crate) fn delete(caller: &Caller, locked: &Locked) -> Result<Append, CommandError> {
    visible(caller, locked)?;
    if !administers(caller, locked) {
        return Err(Failure::new(
            Code::InsufficientPermissions,
            "only admins delete a conversation",
        )
        .into());
    }
    let data = ConversationDeleted {
        deleted_at: locked.now,
    };
    Ok(Append {
        events: vec![NewEvent::of(EventType::ConversationDeleted, &data)?],
        changes: vec![Change::Delete],
    })
}

#[cfg(test)]
mod tests;
