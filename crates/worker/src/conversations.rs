//! Beginning a conversation: who its members are, and what its first event says.

use confab_protocol::command::{Caller, CreateConversation};
use confab_protocol::error::{Code, Failure};
use confab_protocol::event::Member;
use confab_protocol::ids::UserId;
use confab_protocol::limits;
use confab_protocol::resource::{ConversationType, Role};

use crate::participants::capacity;

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

#[cfg(test)]
mod tests {
    use confab_protocol::json::JsonText;

    use super::*;

    fn begin_with(
        r#type: ConversationType,
        admin: bool,
        users: &[&str],
    ) -> Result<Beginning, Code> {
        let caller = Caller {
            tenant: "t".parse().unwrap(),
            user: "me".parse().unwrap(),
            admin,
        };
        let create = CreateConversation {
            key: "k".into(),
            request_hash: [0; 32],
            r#type,
            participants: users.iter().map(|user| user.parse().unwrap()).collect(),
            metadata: JsonText::empty_object(),
        };
        begin(&caller, &create).map_err(|failure| failure.code)
    }

    fn names(beginning: &Beginning) -> Vec<(&str, Role)> {
        beginning
            .members
            .iter()
            .map(|member| (member.user_id.as_str(), member.role))
            .collect()
    }

    #[test]
    fn the_caller_is_a_member_and_admin_listed_or_not() {
        for users in [&["b"][..], &["b", "me"]] {
            let beginning = begin_with(ConversationType::Group, false, users).unwrap();
            assert_eq!(
                names(&beginning),
                [("me", Role::Admin), ("b", Role::Member)]
            );
        }
        let beginning = begin_with(ConversationType::Group, true, &["a", "b"]).unwrap();
        assert_eq!(names(&beginning), [("a", Role::Admin), ("b", Role::Member)]);
    }

    #[test]
    fn a_direct_conversation_has_its_two_members_listed() {
        let beginning = begin_with(ConversationType::Direct, false, &["me", "b"]).unwrap();
        assert_eq!(names(&beginning), [("me", Role::Admin), ("b", Role::Admin)]);
        assert_eq!(beginning.pair.unwrap().0.as_str(), "b");
        for users in [&["me"][..], &["a", "b"], &["me", "a", "b"]] {
            assert_eq!(
                begin_with(ConversationType::Direct, false, users),
                Err(Code::InvalidDirectConversation)
            );
        }
        assert!(begin_with(ConversationType::Direct, true, &["a", "b"]).is_ok());
    }

    #[test]
    fn a_group_has_room_for_a_thousand() {
        let users: Vec<_> = (0..1000).map(|n| format!("u{n}")).collect();
        let users: Vec<_> = users.iter().map(String::as_str).collect();
        assert_eq!(
            begin_with(ConversationType::Group, false, &users),
            Err(Code::ConversationFull)
        );
        assert!(begin_with(ConversationType::Group, true, &users).is_ok());
        assert!(begin_with(ConversationType::Channel, false, &users).is_ok());
    }
}
