//! What a session missed while it was away: how much of it is replayed, and what is named in `truncated` instead.

use confab_protocol::frame::Truncated;
use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::query::Membership;

use crate::hub::session::TruncatedRange;
use crate::hub::steps::SeqRange;
use crate::hub::subscription::StartPosition;
use crate::hub::{ReplayLimits, Start};

/// What a session missed.
#[derive(Debug, Default)]
pub(super) struct Missed {
    /// Where each membership begins to be heard.
    pub(super) begins: Vec<(Membership, StartPosition)>,
    pub(super) truncated: Vec<Truncated>,
    pub(super) kept: Vec<(ConversationId, TruncatedRange)>,
    /// How many events are replayed.
    pub(super) replayed: u64,
}

/// A membership with events to replay, behind a seq.
#[derive(Debug, Clone, Copy)]
pub(super) struct MissedRange {
    pub(super) membership: Membership,
    after: Seq,
}

impl MissedRange {
    const fn events(&self) -> u64 {
        self.membership.head - self.after
    }

    pub(super) const fn range(&self) -> SeqRange {
        SeqRange {
            conversation: self.membership.conversation,
            after: self.after,
            head: self.membership.head,
        }
    }
}

impl Missed {
    /// Sorts what is `owed` from behind a seq each: what is clear, and what may be too much.
    pub(super) fn of(start: &Start, owed: Vec<(Membership, Seq)>) -> (Self, Vec<MissedRange>) {
        let held = start.held();
        let mut missed = Self::default();
        let mut lacks = Vec::new();
        for (membership, cursor) in owed {
            let goes_on = start.resumed || held.contains_key(&membership.conversation);
            match membership.left {
                // Of one that ended only its end is told.
                Some(left) if goes_on => missed.replay(membership, cursor.max(left - 1), left),
                None if goes_on && cursor > membership.head => missed.reset(membership),
                None if goes_on && cursor < membership.head => lacks.push(MissedRange {
                    membership,
                    after: cursor,
                }),
                _ => missed.begins.push((membership, StartPosition::at(cursor))),
            }
        }
        (missed, lacks)
    }

    /// Decides what is replayed of what is lacking, each with what it would put on the wire as far as that is known: whole
    /// conversations, and of those that are too much the longest are left out.
    pub(super) fn choose(
        mut self,
        mut lacks: Vec<(MissedRange, usize)>,
        limits: ReplayLimits,
    ) -> Self {
        let length = |(lack, _): &(MissedRange, usize)| lack.events();
        lacks.sort_unstable_by_key(|one| std::cmp::Reverse(length(one)));
        let mut events: u64 = lacks.iter().map(length).sum();
        let fits = |one: &(MissedRange, usize)| {
            let fits = events <= limits.events;
            events -= if fits { 0 } else { length(one) };
            fits
        };
        let (mut lacks, longest): (Vec<_>, Vec<_>) = lacks.into_iter().partition(fits);
        lacks.sort_unstable_by_key(|(_, weight)| std::cmp::Reverse(*weight));
        let mut bytes: usize = lacks.iter().map(|(_, weight)| *weight).sum();
        let fits = |(_, weight): &(MissedRange, usize)| {
            let fits = bytes <= limits.bytes;
            bytes -= if fits { 0 } else { *weight };
            fits
        };
        let (lacks, heaviest): (Vec<_>, Vec<_>) = lacks.into_iter().partition(fits);
        for (lack, _) in longest.into_iter().chain(heaviest) {
            self.truncate(lack);
        }
        for (lack, _) in lacks {
            self.replay(lack.membership, lack.after, lack.membership.head);
        }
        self.begins
            .sort_unstable_by_key(|(m, _)| (m.conversation, m.joined));
        self
    }

    /// The range is to be read over HTTP; the membership goes on behind it.
    fn truncate(&mut self, lack: MissedRange) {
        let MissedRange { membership, after } = lack;
        self.name(membership, after, None);
    }

    /// The client holds what is not there: nothing of it counts.
    fn reset(&mut self, membership: Membership) {
        self.name(membership, membership.joined - 1, Some(true));
    }

    fn name(&mut self, membership: Membership, position: Seq, reset: Option<bool>) {
        let Membership {
            conversation, head, ..
        } = membership;
        self.truncated.push(Truncated {
            conversation_id: conversation,
            from_seq: if reset.is_some() { 1 } else { position + 1 },
            head_seq: head,
            reset,
        });
        let kept = TruncatedRange {
            joined: membership.joined,
            position,
            head,
        };
        self.kept.push((conversation, kept));
        self.begins.push((membership, StartPosition::at(head)));
    }

    fn replay(&mut self, membership: Membership, cursor: Seq, up_to: Seq) {
        self.replayed += up_to - cursor;
        let begin = StartPosition {
            replay_to: up_to,
            ..StartPosition::at(cursor)
        };
        self.begins.push((membership, begin));
    }
}
