//! What a shard does for the coordinator: it takes note of sessions, enters their memberships, and learns what a break of the feed hid.

use std::sync::Arc;

use confab_bus::records::Position;
use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::query::Membership;
use rustc_hash::{FxHashMap, FxHashSet};

use super::asking::confirmation;
use super::ended::Ended;
use super::members::UNKNOWN_MEMBERS;
use super::session::Conversations;
use super::steps::{
    HeldPositions, Reconciliation, RecordedOpening, Registration, SeqRange, ShardOpening, Step,
    Stepped,
};
use super::subscription::StartPosition;
use super::{Session, Shard};
use crate::account::{Account, SessionKey};

/// Memberships that are entered or learned in one go: then others have a turn.
const CHUNK_MEMBERSHIPS: usize = if cfg!(test) { 2 } else { 256 };

impl Shard {
    /// Takes its part of a step, or a piece of it: then there is no answer yet, and the rest is left in `step`.
    pub(crate) fn step(&mut self, step: &mut Step) -> Option<Stepped> {
        match step {
            Step::Register(registration) => self.register(registration.clone()),
            Step::Weigh(_, ranges) => {
                return Some(Stepped::Weights(
                    ranges.iter().map(|one| self.weight(one)).collect(),
                ));
            }
            Step::Enter(key, _, part) => {
                if self.enter_piece(*key, part) {
                    return None;
                }
            }
            Step::EnterByRecord(key, _, recorded) => {
                let (heads, replayed) = self.enter_by_record(*key, std::mem::take(recorded));
                return Some(Stepped::ByRecord(heads, replayed));
            }
            Step::HeldPositions(accounts, held) => {
                let mut conversations = 0;
                while let Some(account) = accounts.pop_front() {
                    let of = self.held_by(&account);
                    conversations += 1 + of.len();
                    held.push(of);
                    if conversations >= CHUNK_MEMBERSHIPS && !accounts.is_empty() {
                        return None;
                    }
                }
                return Some(Stepped::HeldPositions(std::mem::take(held)));
            }
            Step::Reconciliation(told) => {
                let mut memberships = 0;
                while let Some(one) = told.pop() {
                    memberships += 1 + one.memberships.len() + one.ended.len();
                    self.told(&one);
                    if memberships >= CHUNK_MEMBERSHIPS && !told.is_empty() {
                        return None;
                    }
                }
            }
        }
        Some(Stepped::Done)
    }

    /// About how many conversations are looked at for a step.
    pub(crate) fn cost(&self, step: &Step) -> usize {
        match step {
            Step::Register(_) => 1,
            Step::Weigh(_, ranges) => 1 + ranges.len(),
            Step::Enter(_, _, part) => 1 + part.begins.len().min(CHUNK_MEMBERSHIPS),
            Step::EnterByRecord(_, _, recorded) => 1 + recorded.positions.len(),
            Step::HeldPositions(..) => CHUNK_MEMBERSHIPS,
            Step::Reconciliation(told) => {
                let of = told
                    .iter()
                    .map(|one| one.memberships.len() + one.ended.len());
                told.len() + of.sum::<usize>()
            }
        }
    }

    fn register(&mut self, registration: Registration) {
        let Registration {
            key,
            account,
            send_queue,
            replay,
        } = registration;
        let keys = self.present.entry(Arc::clone(&account)).or_default();
        keys.push(key);
        let session = Session {
            account,
            send_queue,
            conversations: Conversations::default(),
            ended: Ended::default(),
            noted: Some(Box::default()),
            opened: self.clock,
            confirming: FxHashMap::default(),
            epoch: 0,
            behind: FxHashSet::default(),
            kept: FxHashMap::default(),
            claims: FxHashMap::default(),
            replay,
        };
        self.sessions.insert(key, Box::new(session));
    }

    /// What a range would put on the wire, as far as the window knows.
    fn weight(&self, range: &SeqRange) -> usize {
        let SeqRange {
            conversation,
            after,
            head,
        } = *range;
        let weight = self.window.weight(conversation, after, head);
        weight.unwrap_or_default()
    }

    /// Enters some of the memberships of a session that opens; says whether there are more. Until the last is entered it opens: what is
    /// added meanwhile is noted.
    fn enter_piece(&mut self, key: SessionKey, part: &mut ShardOpening) -> bool {
        let Some(session) = self.sessions.get_mut(&key) else {
            return false;
        };
        session.epoch = part.epoch;
        session.note_ended(&std::mem::take(&mut part.over));
        session.kept.extend(std::mem::take(&mut part.kept));
        if session.conversations.len() == 0 {
            session.conversations.expect(part.begins.len());
        }
        let piece = part.begins.len().min(CHUNK_MEMBERSHIPS);
        for (membership, begin) in part.begins.drain(..piece) {
            self.enter(key, membership, begin);
            if membership.left.is_none() {
                self.count(&membership);
            }
        }
        if !part.begins.is_empty() {
            return true;
        }
        self.is_entered(key);
        false
    }

    /// A session that opens was entered: what was added meanwhile and it does not know is confirmed.
    fn is_entered(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let noted = session.noted.take().unwrap_or_default();
        let account = Arc::clone(&session.account);
        let unknown = noted
            .into_iter()
            .filter(|(id, seq)| !self.knows(key, *id, *seq));
        let of = unknown
            .map(|(id, seq)| confirmation(&account, id, seq))
            .collect();
        self.confirm(of);
    }

    /// A session that goes on opens without a worker's word, by its record: from there on every event is next to the one
    /// before it, so that none can be passed over that ends the membership. What the record cannot know (memberships that began since,
    /// whether the client holds what is not there) is asked for until a worker answers.
    fn enter_by_record(
        &mut self,
        key: SessionKey,
        recorded: RecordedOpening,
    ) -> (Vec<(ConversationId, Seq)>, u64) {
        let RecordedOpening {
            positions,
            seen: said,
        } = recorded;
        let (mut heads, mut replayed) = (Vec::new(), 0);
        let Some(session) = self.sessions.get_mut(&key) else {
            return (heads, replayed);
        };
        session.epoch = 0;
        self.clock += 1;
        session.opened = self.clock;
        let held = positions.iter().map(|p| (p.conversation, p.seq));
        session.claims = held
            .chain(said.iter().map(|(id, seq)| (*id, *seq)))
            .collect();
        let mut begins = Vec::new();
        for Position {
            conversation,
            joined,
            seq,
        } in positions
        {
            let seen = said.get(&conversation).copied();
            // A client that says that it has less is owed the end of an earlier membership, of which only a worker knows.
            let by_record =
                seen.is_none_or(|seen| seen >= if joined == 0 { seq } else { joined - 1 });
            if joined == 0 {
                if by_record {
                    session.ended.insert(conversation, seq);
                }
                continue;
            }
            let begin = StartPosition {
                skip: seen.unwrap_or_default(),
                by_record,
                acked: Some(seq.max(joined - 1)),
                ..StartPosition::at(seen.map_or(seq, |seen| seen.min(seq)).max(joined - 1))
            };
            begins.push((conversation, joined, begin));
        }
        begins.sort_unstable_by_key(|(conversation, joined, _)| (*conversation, *joined));
        session.conversations.expect(begins.len());
        for (conversation, joined, begin) in begins {
            let membership = Membership {
                conversation,
                joined,
                left: None,
                head: begin.cursor.max(self.window.highest(conversation)),
                members: UNKNOWN_MEMBERS,
            };
            self.enter(key, membership, begin);
            let there = self.conversations.get(&conversation);
            let head = there.map_or(begin.cursor, |there| there.sequencer.position());
            heads.push((conversation, head));
            replayed += head.saturating_sub(begin.cursor.max(begin.skip));
        }
        self.is_open_now(key);
        (heads, replayed)
    }

    fn is_open_now(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(&key) {
            session.noted = None;
        }
    }

    /// What is held for a user: every conversation, with the position up to which all its sessions have it, or claim to.
    fn held_by(&self, account: &Account) -> HeldPositions {
        let mut held: FxHashMap<ConversationId, Seq> = FxHashMap::default();
        for key in self.present.get(account).into_iter().flatten() {
            let Some(session) = self.sessions.get(key) else {
                continue;
            };
            for id in session.conversations.iter() {
                let conversation = self.conversations.get(&id).into_iter();
                for subscription in conversation.flat_map(|there| there.entries_of(*key)) {
                    let position = held.entry(id).or_insert(subscription.cursor);
                    *position = subscription.cursor.min(*position);
                }
            }
            for (id, claim) in &session.claims {
                let position = held.entry(*id).or_insert(*claim);
                *position = (*claim).min(*position);
            }
        }
        held.into_iter().collect()
    }

    /// A worker told of a user after a break.
    fn told(&mut self, told: &Reconciliation) {
        let Reconciliation {
            account,
            proves,
            memberships,
            ended,
            whole,
        } = told;
        let proves = |key: SessionKey, _: &Session| proves.contains(&key);
        self.learn(account, ended, proves);
        self.learn(account, memberships, proves);
        let Some(epoch) = *whole else { return };
        for key in told.proves.iter() {
            if let Some(session) = self.sessions.get_mut(key) {
                session.epoch = epoch.max(session.epoch);
                session.claims = FxHashMap::default();
            }
        }
        self.release_all(account, None);
    }
}
