//! Adding and removing members, and their roles: rules that need no database.

use confab_protocol::command::{Caller, UpdateParticipant};
use confab_protocol::error::{Code, Extension, Failure};
use confab_protocol::event::{
    ConversationDeleted, EventType, Member, ParticipantAdded, ParticipantRemoved,
    ParticipantUpdated, RemovalReason,
};
use confab_protocol::ids::UserId;
use confab_protocol::limits;
use confab_protocol::resource::{ConversationType, Role};

use crate::decision::{Append, Change, Locked, NewEvent, administers, fits, visible};
use crate::error::CommandError;

fn fixed(locked: &Locked) -> Result<(), Failure> {
    if locked.r#type == ConversationType::Direct {
        Err(Failure::of(Code::DirectConversationFixed))
    } else {
        Ok(())
    }
}

/// How many members a conversation may have.
pub(crate) const fn capacity(r#type: ConversationType) -> u64 {
    match r#type {
        ConversationType::Direct => 2,
        ConversationType::Group => limits::GROUP_MEMBERS,
        ConversationType::Channel => limits::CHANNEL_MEMBERS,
    }
}

/// Who is there already where members are to be added.
#[derive(Debug, Clone)]
pub(crate) struct Present {
    /// Those of the named who are members.
    pub(crate) named: Vec<UserId>,
    /// Whether any member is an admin.
    pub(crate) has_admin: bool,
}

/// Adds members, all or none. Where there is no admin, and none is added, the first one named becomes it.
pub(crate) fn add(
    caller: &Caller,
    locked: &Locked,
    members: &[Member],
    present: Present,
) -> Result<Append, CommandError> {
    visible(caller, locked)?;
    fixed(locked)?;
    if !administers(caller, locked) {
        return Err(Failure::new(Code::InsufficientPermissions, "only admins add members").into());
    }
    if !present.named.is_empty() {
        let extension = Extension {
            user_ids: present.named,
            ..Extension::default()
        };
        return Err(Failure::of(Code::AlreadyParticipant).with(extension).into());
    }
    let room = capacity(locked.r#type).saturating_sub(locked.members);
    if members.len() as u64 > room {
        return Err(Failure::new(
            Code::ConversationFull,
            format!("there is room for {room} more"),
        )
        .into());
    }
    let mut members = members.to_vec();
    let has_admin = present.has_admin || members.iter().any(|member| member.role == Role::Admin);
    if let Some(first) = members.first_mut()
        && !has_admin
    {
        first.role = Role::Admin;
    }
    let data = ParticipantAdded {
        participants: members,
    };
    let event = NewEvent::of(EventType::ParticipantAdded, &data)?;
    fits(&event.payload)?;
    Ok(Append {
        events: vec![event],
        changes: vec![Change::Join(data.participants)],
    })
}

/// Whether members that were added are those of a repeat: the first of them may have become an admin by it.
pub(crate) fn are_added(added: &[Member], asked: &[Member]) -> bool {
    let mut pairs = added.iter().zip(asked).enumerate();
    added.len() == asked.len()
        && pairs.all(|(place, (added, asked))| {
            let became_admin = place == 0 && added.role == Role::Admin;
            added.user_id == asked.user_id && (added.role == asked.role || became_admin)
        })
}

/// Refuses who is in too many conversations. `counts` are the memberships of each named user.
pub(crate) fn within_limits(
    counts: &[(UserId, u64)],
    limit: impl Fn(&UserId) -> u64,
) -> Result<(), Failure> {
    let over = counts.iter().filter(|(user, count)| *count >= limit(user));
    let user_ids: Vec<_> = over.map(|(user, _)| user.clone()).collect();
    if user_ids.is_empty() {
        return Ok(());
    }
    Err(Failure::of(Code::TooManyConversations).with(Extension {
        user_ids,
        ..Extension::default()
    }))
}

/// A member among the others.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    /// Its role; none where there is no such member.
    pub(crate) role: Option<Role>,
    /// How many other admins there are.
    pub(crate) other_admins: u64,
    /// Who among the others is a member for longest; none where there are no others.
    pub(crate) longest: Option<UserId>,
}

/// Gives a member another role. Nothing is appended where it has that role.
pub(crate) fn update(
    caller: &Caller,
    locked: &Locked,
    command: &UpdateParticipant,
    standing: &Standing,
) -> Result<Option<Append>, CommandError> {
    visible(caller, locked)?;
    fixed(locked)?;
    if !administers(caller, locked) {
        return Err(Failure::new(Code::InsufficientPermissions, "only admins change roles").into());
    }
    if standing.role.is_none() {
        return Err(Failure::of(Code::ParticipantNotFound).into());
    }
    if standing.role == Some(command.role) {
        return Ok(None);
    }
    // Also one who is alone: whoever is added later needs an admin.
    if command.role != Role::Admin && standing.other_admins == 0 {
        return Err(Failure::of(Code::LastAdmin).into());
    }
    let data = ParticipantUpdated {
        user_id: command.user.clone(),
        role: command.role,
    };
    Ok(Some(Append {
        events: vec![NewEvent::of(EventType::ParticipantUpdated, &data)?],
        changes: vec![Change::SetRole(command.user.clone(), command.role)],
    }))
}

/// Removes a member, or lets it leave. The last one who goes takes the conversation along; where no admin is left behind, the one who is a
/// member for longest becomes it.
pub(crate) fn remove(
    caller: &Caller,
    locked: &Locked,
    user: &UserId,
    standing: &Standing,
) -> Result<Append, CommandError> {
    visible(caller, locked)?;
    fixed(locked)?;
    let oneself = caller.user == *user;
    if !oneself && !administers(caller, locked) {
        return Err(
            Failure::new(Code::InsufficientPermissions, "only admins remove others").into(),
        );
    }
    if standing.role.is_none() {
        return Err(Failure::of(Code::ParticipantNotFound).into());
    }
    let reason = if oneself {
        RemovalReason::Left
    } else {
        RemovalReason::Removed
    };
    let data = ParticipantRemoved {
        user_id: user.clone(),
        reason,
    };
    let mut events = vec![NewEvent::of(EventType::ParticipantRemoved, &data)?];
    let mut changes = vec![Change::Leave(user.clone())];
    match &standing.longest {
        None => {
            let data = ConversationDeleted {
                deleted_at: locked.now,
            };
            events.push(NewEvent::of(EventType::ConversationDeleted, &data)?);
            changes.push(Change::Delete);
        }
        Some(heir) if standing.other_admins == 0 => {
            let data = ParticipantUpdated {
                user_id: heir.clone(),
                role: Role::Admin,
            };
            events.push(NewEvent::of(EventType::ParticipantUpdated, &data)?);
            // In the order of users, in which read marks lock memberships.
            let place = usize::from(heir.as_str() > user.as_str());
            changes.insert(place, Change::SetRole(heir.clone(), Role::Admin));
        }
        Some(_) => {}
    }
    Ok(Append { events, changes })
}

#[cfg(test)]
mod tests;
