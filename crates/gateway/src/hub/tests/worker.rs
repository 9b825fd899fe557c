//! Workers, as they answer the hub.

use super::*;

impl World {
    pub(super) fn work(&mut self, question: Question, fails: bool) {
        match question {
            Question::Read(read) if fails => self.hub.read_failed(&read),
            Question::MembershipQuery(ask) if fails => {
                self.most = u64::MAX;
                self.hub.ask_failed(ask);
            }
            Question::Read(read) => {
                let c = index(read.conversation);
                // A worker may answer with fewer events than were asked for.
                let up_to = read.up_to.min(read.after + 3).min(self.logs[c].head());
                let event = |seq| EncodedEvent {
                    seq,
                    id: EventId(Uuid::nil()),
                    r#type: self.logs[c].at(seq).r#type,
                    target: self.logs[c].at(seq).target,
                    json: JsonText::trusted(self.json(c, seq)),
                };
                let events = (read.after + 1..=up_to).map(event).collect();
                self.arriving.push(Arriving::Read(read, events));
            }
            Question::MembershipQuery(ask) => {
                let answers = ask.of.iter().map(|of| self.memberships(of)).collect();
                self.arriving.push(Arriving::MembershipQuery(ask, answers));
            }
        }
    }

    /// As a worker answers: present memberships, and of what is held those that ended above the position.
    fn memberships(&self, of: &MembershipsOf) -> UserMemberships {
        let mut memberships = Vec::new();
        for (c, log) in self.logs.iter().enumerate() {
            let id = conversation(c);
            let held = of
                .held
                .iter()
                .find(|(held, _)| *held == id)
                .map(|(_, position)| *position);
            for (joined, left) in log
                .memberships
                .get(&number(&of.user))
                .into_iter()
                .flatten()
                .copied()
            {
                let present =
                    left.is_none() && of.only.as_ref().is_none_or(|only| only.contains(&id));
                let ended = left.is_some_and(|left| held.is_some_and(|position| left > position));
                if (present || ended) && of.after.is_none_or(|after| id > after) {
                    memberships.push(Membership {
                        conversation: id,
                        joined,
                        left,
                        head: log.head(),
                        members: log.members(),
                    });
                }
            }
        }
        let mut ended = Vec::new();
        for (c, log) in self.logs.iter().enumerate().filter(|(c, _)| {
            let only = of.only.as_ref();
            only.is_none_or(|only| only.contains(&conversation(*c)))
        }) {
            for (joined, left) in log
                .memberships
                .get(&number(&of.user))
                .into_iter()
                .flatten()
                .copied()
            {
                let membership = Membership {
                    conversation: conversation(c),
                    joined,
                    left,
                    head: log.head(),
                    members: log.members(),
                };
                ended.extend(left.is_some().then_some(membership));
            }
        }
        // One conversation a page.
        let first = memberships.first().map(|m| m.conversation);
        let next = first.filter(|id| memberships.iter().any(|m| m.conversation != *id));
        memberships.retain(|m| Some(m.conversation) == first);
        if of.after.is_some() && next.is_some() {
            ended.clear();
        }
        UserMemberships {
            memberships,
            next,
            ended,
        }
    }
}
