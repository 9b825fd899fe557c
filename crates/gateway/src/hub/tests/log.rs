//! One conversation as Postgres has it.

use std::collections::BTreeMap;

use confab_protocol::event::EventType;
use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::lingering::{Announced, Joined};

#[derive(Debug, Clone)]
pub(super) struct Logged {
    pub(super) r#type: EventType,
    pub(super) data: String,
    pub(super) target: Option<Seq>,
}

/// One conversation as Postgres has it.
#[derive(Debug, Default, Clone)]
pub(super) struct Log {
    pub(super) events: Vec<Logged>,
    /// By user: each membership's first and last seq.
    pub(super) memberships: BTreeMap<usize, Vec<(Seq, Option<Seq>)>>,
    /// Whether the conversation was deleted: nothing is appended any more.
    pub(super) is_deleted: bool,
}

impl Log {
    pub(super) fn head(&self) -> Seq {
        self.events.len() as Seq
    }

    pub(super) fn at(&self, seq: Seq) -> &Logged {
        &self.events[usize::try_from(seq).unwrap() - 1]
    }

    pub(super) fn append(&mut self, r#type: EventType, data: String) -> Seq {
        self.events.push(Logged {
            r#type,
            data,
            target: None,
        });
        self.head()
    }

    /// Deletes one of the last messages.
    pub(super) fn delete(&mut self, back: u64) -> Option<Seq> {
        let target = self.head().checked_sub(back).filter(|seq| *seq > 0)?;
        if self.is_deleted || self.at(target).r#type != EventType::MessageCreated {
            return None;
        }
        let seq = self.append(EventType::MessageDeleted, "{}".into());
        self.events.last_mut()?.target = Some(target);
        Some(seq)
    }

    /// What a worker announces of it when nothing of it is published.
    pub(super) fn announced(&self, id: ConversationId) -> Announced {
        let mut announced = Announced::of("t".parse().unwrap());
        if self.events.is_empty() {
            return announced;
        }
        announced.heads.push((id, self.head()));
        for (user, memberships) in &self.memberships {
            let joined = memberships.iter().map(|(seq, _)| Joined {
                conversation: id,
                seq: *seq,
                users: vec![format!("u{user}").parse().unwrap()],
            });
            announced.joined.extend(joined);
        }
        announced
    }

    pub(super) fn is_member(&self, user: usize) -> bool {
        self.memberships
            .get(&user)
            .and_then(|all| all.last())
            .is_some_and(|(_, left)| left.is_none())
    }

    pub(super) fn members(&self) -> u64 {
        let users = self.memberships.keys();
        users.filter(|user| self.is_member(**user)).count() as u64
    }

    pub(super) fn nobody_left(&self) -> bool {
        let mut all = self.memberships.values().flatten();
        all.all(|(_, left)| left.is_none())
    }

    pub(super) fn add(&mut self, user: usize) -> Option<Seq> {
        if self.is_member(user) || self.events.is_empty() || self.is_deleted {
            return None;
        }
        let data = format!(r#"{{"participants":[{{"userId":"u{user}","role":"member"}}]}}"#);
        let seq = self.append(EventType::ParticipantAdded, data);
        self.memberships.entry(user).or_default().push((seq, None));
        Some(seq)
    }

    pub(super) fn remove(&mut self, user: usize) -> Option<Seq> {
        if !self.is_member(user) {
            return None;
        }
        let seq = self.append(
            EventType::ParticipantRemoved,
            format!(r#"{{"userId":"u{user}","reason":"left"}}"#),
        );
        self.memberships.get_mut(&user)?.last_mut()?.1 = Some(seq);
        Some(seq)
    }

    /// Deletes the conversation: every membership ends.
    pub(super) fn end(&mut self) -> Option<Seq> {
        if self.is_deleted || self.events.is_empty() {
            return None;
        }
        self.is_deleted = true;
        let seq = self.append(EventType::ConversationDeleted, "{}".into());
        for (_, left) in self.memberships.values_mut().flatten() {
            left.get_or_insert(seq);
        }
        Some(seq)
    }
}
