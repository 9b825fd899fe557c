//! How far conversations without local members were heard, for a bounded number of them. Of one that begins here when too many were heard
//! for all to be remembered, a worker is asked once more: what came behind its first answer may have passed unnoticed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::query::MembershipsOf;
use rustc_hash::FxHashMap;

use super::Shard;
use super::asking::memberships_of;
use crate::account::SessionKey;
use crate::delivery::high_water::HighWaterMarks;

/// For how long at least it is remembered how far a conversation without local members was heard: longer than any answer of a worker
/// can be old.
const HEARD_MEMORY: Duration = Duration::from_secs(30);
/// Conversations that are remembered, about: twice as many at most.
const MAX_HEARD: usize = 200_000;
/// Conversations named in one user's part of a question.
const MAX_QUERY_CONVERSATIONS: usize = 100;

/// The highest seqs heard of conversations without local members.
#[derive(Debug)]
pub(super) struct Unheard {
    marks: HighWaterMarks,
    most: usize,
    /// Until when a seq may have been forgotten that an answer on its way does not know.
    forgot_until: Option<Instant>,
    /// Conversations that began for sessions meanwhile, and up to where they were known.
    unsure: FxHashMap<SessionKey, Vec<(ConversationId, Seq)>>,
}

impl Unheard {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            marks: HighWaterMarks::new(HEARD_MEMORY, now),
            most: MAX_HEARD,
            forgot_until: None,
            unsure: FxHashMap::default(),
        }
    }

    /// Takes note that `seq` of a conversation was heard.
    pub(super) fn note(&mut self, id: ConversationId, seq: Seq, now: Instant) {
        if self.marks.noted() >= self.most {
            self.marks.turn_over(now);
            self.forgot_until = Some(now + HEARD_MEMORY);
        }
        self.marks.note(id, seq, now);
    }

    /// The highest seq heard lately; 0 when none was.
    pub(super) fn highest(&self, id: ConversationId) -> Seq {
        self.marks.highest(id)
    }

    /// A conversation begins for a session, known up to a seq.
    pub(super) fn begins(&mut self, key: SessionKey, known: (ConversationId, Seq), now: Instant) {
        if self.forgot_until.is_some_and(|until| now < until) {
            self.unsure.entry(key).or_default().push(known);
        }
    }
}

impl Shard {
    /// Asks once more for what began when seqs were forgotten: of sessions that are entered.
    pub(super) fn ask_unsure(&mut self) {
        if self.heard.unsure.is_empty() {
            return;
        }
        let sessions = &self.sessions;
        let may_ask = |key: &SessionKey| sessions.get(key).is_none_or(|one| one.is_open());
        let due: Vec<_> = self
            .heard
            .unsure
            .extract_if(|key, _| may_ask(key))
            .collect();
        let mut of = Vec::new();
        for (key, known) in due {
            let Some(account) = self.account(key).map(Arc::clone) else {
                continue;
            };
            of.extend(
                known
                    .chunks(MAX_QUERY_CONVERSATIONS)
                    .map(|known| MembershipsOf {
                        only: Some(known.iter().map(|(id, _)| *id).collect()),
                        held: known.to_vec(),
                        ..memberships_of(&account)
                    }),
            );
        }
        self.confirm(of);
    }

    /// So few conversations are remembered.
    #[cfg(test)]
    pub(super) const fn remembers(&mut self, most: usize) {
        self.heard.most = most;
    }
}
