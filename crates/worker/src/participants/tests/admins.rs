//! Whatever is asked for by whom: a conversation that has members has an admin.

use confab_protocol::command::CreateConversation;
use confab_protocol::json::JsonText;
use proptest::prelude::*;

use super::{backend, caller, key, locked, user};
use crate::conversations::begin;
use crate::decision::{Append, Change, Locked};
use crate::participants::{Caller, ConversationType, Member, Present, Role, Standing};
use crate::participants::{UpdateParticipant, add, remove, update};

const USERS: [&str; 5] = ["a", "b", "c", "d", "e"];

#[derive(Debug, Clone)]
enum Deed {
    Add(Vec<(usize, Role)>),
    Remove(usize),
    SetRole(usize, Role),
}

/// By whom: one of the users, or the product's own backend.
fn by(place: usize) -> Caller {
    USERS.get(place).map_or_else(backend, |name| caller(name))
}

/// The members of a group, in the order of their joining.
#[derive(Debug, Clone, Default)]
struct Group(Vec<Member>);

impl Group {
    fn begun(who: usize, named: &[usize]) -> Self {
        let creation = CreateConversation {
            conversation: confab_protocol::ids::ConversationId(uuid::Uuid::nil()),
            key: "k".to_owned(),
            request_hash: [0; 32],
            r#type: ConversationType::Group,
            participants: named.iter().map(|place| user(USERS[*place])).collect(),
            metadata: JsonText::empty_object(),
        };
        Self(begin(&by(who), &creation).unwrap().members)
    }

    /// As a group could be left before: without an admin.
    fn without_admin(named: &[usize]) -> Self {
        let member = |place: &usize| Member {
            user_id: user(USERS[*place]),
            role: Role::Member,
        };
        Self(named.iter().map(member).collect())
    }

    fn has_admin(&self) -> bool {
        self.0.iter().any(|member| member.role == Role::Admin)
    }

    fn role(&self, name: &str) -> Option<Role> {
        let member = self.0.iter().find(|one| one.user_id.as_str() == name);
        member.map(|member| member.role)
    }

    fn locked(&self, caller: &Caller) -> Locked {
        Locked {
            members: self.0.len() as u64,
            ..locked(self.role(caller.user.as_str()))
        }
    }

    fn standing(&self, name: &str) -> Standing {
        let others = || self.0.iter().filter(|one| one.user_id.as_str() != name);
        let admins = others().filter(|one| one.role == Role::Admin);
        Standing {
            role: self.role(name),
            other_admins: admins.count() as u64,
            longest: others().next().map(|one| one.user_id.clone()),
        }
    }

    fn decide(&self, who: usize, deed: &Deed) -> Option<Append> {
        let caller = by(who);
        let locked = self.locked(&caller);
        let decided = match deed {
            Deed::Add(named) => {
                let member = |(place, role): &(usize, Role)| Member {
                    user_id: user(USERS[*place]),
                    role: *role,
                };
                let members: Vec<_> = named.iter().map(member).collect();
                let there = members.iter().map(|one| one.user_id.clone());
                let present = Present {
                    named: there
                        .filter(|one| self.role(one.as_str()).is_some())
                        .collect(),
                    has_admin: self.has_admin(),
                };
                add(&caller, &locked, &members, present).map(Some)
            }
            Deed::Remove(place) => {
                let name = USERS[*place];
                remove(&caller, &locked, &user(name), &self.standing(name)).map(Some)
            }
            Deed::SetRole(place, role) => {
                let name = USERS[*place];
                let command = UpdateParticipant {
                    conversation: confab_protocol::ids::ConversationId(uuid::Uuid::nil()),
                    user: user(name),
                    role: *role,
                    client_id: key(),
                };
                update(&caller, &locked, &command, &self.standing(name))
            }
        };
        decided.ok().flatten()
    }

    /// Carries out what was decided; says whether the group goes on.
    fn apply(&mut self, append: Append) -> bool {
        for change in append.changes {
            match change {
                Change::Join(members) => self.0.extend(members),
                Change::Leave(left) => self.0.retain(|one| one.user_id != left),
                Change::SetRole(whose, role) => {
                    let mut members = self.0.iter_mut();
                    members.find(|one| one.user_id == whose).unwrap().role = role;
                }
                Change::Delete => return false,
                other @ Change::SetMetadata(..) => panic!("{other:?}"),
            }
        }
        true
    }
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![3 => Just(Role::Member), 1 => Just(Role::Admin)]
}

fn users() -> impl Strategy<Value = Vec<usize>> {
    prop::sample::subsequence((0..USERS.len()).collect::<Vec<_>>(), 1..=USERS.len()).prop_shuffle()
}

fn deed() -> impl Strategy<Value = Deed> {
    let one = || 0..USERS.len();
    let added = (users(), prop::collection::vec(role(), USERS.len()))
        .prop_map(|(users, roles)| Deed::Add(users.into_iter().zip(roles).collect()));
    prop_oneof![
        added,
        one().prop_map(Deed::Remove),
        (one(), role()).prop_map(|(place, role)| Deed::SetRole(place, role)),
    ]
}

proptest! {
    #[test]
    fn members_always_have_an_admin(
        creator in 0..=USERS.len(),
        named in users(),
        is_old in any::<bool>(),
        deeds in prop::collection::vec((0..=USERS.len(), deed()), 1..40),
    ) {
        let mut group = if is_old { Group::without_admin(&named) } else { Group::begun(creator, &named) };
        prop_assert!(is_old || group.has_admin());
        for (who, deed) in deeds {
            let Some(append) = group.decide(who, &deed) else {
                continue;
            };
            if !group.apply(append) {
                prop_assert!(group.0.is_empty());
                break;
            }
            prop_assert!(!group.0.is_empty() && group.has_admin(), "{:?} by {} left {:?}", deed, who, group);
        }
    }
}
