//! Adding and removing members: rules that need no database.

use confab_protocol::command::Caller;
use confab_protocol::error::{Code, Extension, Failure};
use confab_protocol::event::{
    ConversationDeleted, EventType, Member, ParticipantAdded, ParticipantRemoved,
    ParticipantUpdated, RemovalReason,
};
use confab_protocol::ids::{Seq, UserId};
use confab_protocol::limits;
use confab_protocol::resource::{ConversationType, Role};
use confab_protocol::timestamp::Timestamp;

/// What is known of a conversation under its lock.
#[derive(Debug, Clone)]
pub(crate) struct Locked {
    pub(crate) r#type: ConversationType,
    pub(crate) last_seq: Seq,
    pub(crate) members: u64,
    pub(crate) is_deleted: bool,
    /// The caller's role; none where it is no member.
    pub(crate) role: Option<Role>,
    /// Whether the caller ever was a member.
    pub(crate) was_member: bool,
    /// The time of the transaction.
    pub(crate) now: Timestamp,
}

/// What is appended to a log, and what that does to the projections: all in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Append {
    /// In their order; the first one carries the command's key.
    pub(crate) events: Vec<(EventType, String)>,
    pub(crate) changes: Vec<Change>,
}

/// A change of a projection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// These memberships begin with the first event.
    Join(Vec<Member>),
    /// This user's membership ends with the first event.
    Leave(UserId),
    /// This member's role is another.
    SetRole(UserId, Role),
    /// The conversation is deleted with the last event.
    Delete,
}

/// Whether the caller may see the conversation at all.
pub(crate) fn visible(caller: &Caller, locked: &Locked) -> Result<(), Failure> {
    let is_known = caller.admin || locked.was_member;
    if locked.is_deleted && is_known {
        return Err(Failure::of(Code::ConversationDeleted));
    }
    let is_visible = !locked.is_deleted && (caller.admin || locked.role.is_some());
    if is_visible {
        Ok(())
    } else {
        Err(Failure::of(Code::ConversationNotFound))
    }
}

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

/// Adds members, all or none. `present` are those of them who are members already.
pub(crate) fn add(
    caller: &Caller,
    locked: &Locked,
    members: &[Member],
    present: Vec<UserId>,
) -> Result<Append, CannotAdd> {
    visible(caller, locked)?;
    fixed(locked)?;
    if !caller.admin && locked.role != Some(Role::Admin) {
        return Err(Failure::new(Code::InsufficientPermissions, "only admins add members").into());
    }
    if !present.is_empty() {
        let extension = Extension {
            user_ids: present,
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
    let data = ParticipantAdded {
        participants: members.to_vec(),
    };
    let events = vec![(EventType::ParticipantAdded, serde_json::to_string(&data)?)];
    Ok(Append {
        events,
        changes: vec![Change::Join(members.to_vec())],
    })
}

/// Why members are not added or removed.
pub(crate) type CannotAdd = crate::error::CommandError;

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

/// Who is there when a member goes.
#[derive(Debug, Clone)]
pub(crate) struct Leaving {
    /// The role of the one who goes; none where there is no such member.
    pub(crate) role: Option<Role>,
    /// How many other admins stay.
    pub(crate) other_admins: u64,
    /// Who among those that stay is a member for longest.
    pub(crate) longest: Option<UserId>,
}

/// Removes a member, or lets it leave. The last one who goes takes the conversation along; a last admin hands its role over.
pub(crate) fn remove(
    caller: &Caller,
    locked: &Locked,
    user: &UserId,
    leaving: &Leaving,
) -> Result<Append, CannotAdd> {
    visible(caller, locked)?;
    fixed(locked)?;
    let oneself = caller.user == *user;
    if !caller.admin && !oneself && locked.role != Some(Role::Admin) {
        return Err(
            Failure::new(Code::InsufficientPermissions, "only admins remove others").into(),
        );
    }
    let Some(role) = leaving.role else {
        return Err(Failure::of(Code::ParticipantNotFound).into());
    };
    let reason = if oneself {
        RemovalReason::Left
    } else {
        RemovalReason::Removed
    };
    let data = ParticipantRemoved {
        user_id: user.clone(),
        reason,
    };
    let mut events = vec![(EventType::ParticipantRemoved, serde_json::to_string(&data)?)];
    let mut changes = vec![Change::Leave(user.clone())];
    match &leaving.longest {
        None => {
            let data = ConversationDeleted {
                deleted_at: locked.now,
            };
            events.push((
                EventType::ConversationDeleted,
                serde_json::to_string(&data)?,
            ));
            changes.push(Change::Delete);
        }
        Some(heir) if role == Role::Admin && leaving.other_admins == 0 => {
            let data = ParticipantUpdated {
                user_id: heir.clone(),
                role: Role::Admin,
            };
            events.push((EventType::ParticipantUpdated, serde_json::to_string(&data)?));
            changes.push(Change::SetRole(heir.clone(), Role::Admin));
        }
        Some(_) => {}
    }
    Ok(Append { events, changes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::CommandError;

    fn user(name: &str) -> UserId {
        name.parse().unwrap()
    }

    fn caller(name: &str) -> Caller {
        Caller {
            tenant: "t".parse().unwrap(),
            user: user(name),
            admin: false,
        }
    }

    fn locked(role: Option<Role>) -> Locked {
        Locked {
            r#type: ConversationType::Group,
            last_seq: 5,
            members: 3,
            is_deleted: false,
            role,
            was_member: role.is_some(),
            now: "2026-11-23T10:20:30.123Z".parse().unwrap(),
        }
    }

    fn code<T: std::fmt::Debug>(result: Result<T, CommandError>) -> Code {
        match result.unwrap_err() {
            CommandError::Refused(failure) => failure.code,
            other => panic!("{other}"),
        }
    }

    fn members(names: &[&str]) -> Vec<Member> {
        names
            .iter()
            .map(|name| Member {
                user_id: user(name),
                role: Role::Member,
            })
            .collect()
    }

    #[test]
    fn only_admins_add_and_strangers_learn_nothing() {
        let new = members(&["n"]);
        assert!(add(&caller("a"), &locked(Some(Role::Admin)), &new, vec![]).is_ok());
        assert_eq!(
            code(add(&caller("a"), &locked(Some(Role::Member)), &new, vec![])),
            Code::InsufficientPermissions
        );
        assert_eq!(
            code(add(&caller("a"), &locked(None), &new, vec![])),
            Code::ConversationNotFound
        );
        let product = Caller {
            admin: true,
            ..caller("backend")
        };
        assert!(add(&product, &locked(None), &new, vec![]).is_ok());
        let deleted = Locked {
            is_deleted: true,
            was_member: true,
            ..locked(None)
        };
        assert_eq!(
            code(add(&caller("a"), &deleted, &new, vec![])),
            Code::ConversationDeleted
        );
        assert_eq!(
            code(add(
                &caller("x"),
                &Locked {
                    was_member: false,
                    ..deleted
                },
                &new,
                vec![]
            )),
            Code::ConversationNotFound
        );
    }

    #[test]
    fn additions_are_all_or_none() {
        let admin = locked(Some(Role::Admin));
        assert_eq!(
            code(add(
                &caller("a"),
                &admin,
                &members(&["b", "n"]),
                vec![user("b")]
            )),
            Code::AlreadyParticipant
        );
        let full = Locked {
            members: limits::GROUP_MEMBERS - 1,
            ..admin
        };
        assert!(add(&caller("a"), &full, &members(&["n"]), vec![]).is_ok());
        assert_eq!(
            code(add(&caller("a"), &full, &members(&["n", "m"]), vec![])),
            Code::ConversationFull
        );
        let direct = Locked {
            r#type: ConversationType::Direct,
            ..admin
        };
        assert_eq!(
            code(add(&caller("a"), &direct, &members(&["n"]), vec![])),
            Code::DirectConversationFixed
        );
    }

    #[test]
    fn a_last_admin_hands_over_and_the_last_member_takes_the_conversation_along() {
        let admin = locked(Some(Role::Admin));
        let stays = Leaving {
            role: Some(Role::Admin),
            other_admins: 0,
            longest: Some(user("b")),
        };
        let append = remove(&caller("a"), &admin, &user("a"), &stays).unwrap();
        assert_eq!(
            append.changes,
            [
                Change::Leave(user("a")),
                Change::SetRole(user("b"), Role::Admin)
            ]
        );
        let last = Leaving {
            longest: None,
            ..stays
        };
        let append = remove(&caller("a"), &admin, &user("a"), &last).unwrap();
        assert_eq!(append.changes, [Change::Leave(user("a")), Change::Delete]);
        assert_eq!(append.events[1].0, EventType::ConversationDeleted);
        let other = Leaving {
            other_admins: 1,
            ..stays
        };
        assert_eq!(
            remove(&caller("a"), &admin, &user("a"), &other)
                .unwrap()
                .changes
                .len(),
            1
        );
    }

    #[test]
    fn oneself_may_leave_and_only_admins_remove_others() {
        let member = locked(Some(Role::Member));
        let leaving = Leaving {
            role: Some(Role::Member),
            other_admins: 1,
            longest: Some(user("b")),
        };
        assert!(remove(&caller("a"), &member, &user("a"), &leaving).is_ok());
        assert_eq!(
            code(remove(&caller("a"), &member, &user("b"), &leaving)),
            Code::InsufficientPermissions
        );
        let nobody = Leaving {
            role: None,
            ..leaving
        };
        assert_eq!(
            code(remove(
                &caller("a"),
                &locked(Some(Role::Admin)),
                &user("x"),
                &nobody
            )),
            Code::ParticipantNotFound
        );
    }
}
